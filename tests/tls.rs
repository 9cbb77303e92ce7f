//! TLS on both sides.

use crate::support::certificate::{Certificate, client_config};
use crate::support::client::{Client, tls};
use crate::support::origin::{Origin, Reply};
use crate::support::proxy::{Builder, Proxy, Reload};

/// The certificate that the proxy shows to who asks for this name.
async fn shown(proxy: &Proxy, server_name: &str, accepted: &[&Certificate]) -> Option<usize> {
    for (index, certificate) in accepted.iter().enumerate() {
        let config = client_config(&[certificate], &["http/1.1"], rustls::ALL_VERSIONS);
        if let Ok(stream) = tls(proxy.address(), server_name, config).await {
            let chain = stream.get_ref().1.peer_certificates().unwrap();
            assert_eq!(chain[0], *certificate.der());
            return Some(index);
        }
    }
    None
}

fn listener(certificates: &[(std::path::PathBuf, std::path::PathBuf)], more: &str) -> String {
    let entries: Vec<String> = certificates
        .iter()
        .map(|(cert, key)| format!("{{ cert: {}, key: {} }}", cert.display(), key.display()))
        .collect();
    format!(
        "listeners: [{{ address: 127.0.0.1:0, tls: {{ certificates: [{}]{more} }} }}]\n",
        entries.join(", ")
    )
}

fn upstream(origin: &Origin) -> String {
    format!("upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n", origin.server())
}

#[tokio::test]
async fn certificates_are_chosen_by_server_name() {
    let origin = Origin::start().await;
    let builder = Builder::new();
    let one = Certificate::for_names(&["one.example"]);
    let wild = Certificate::for_names(&["*.wild.example"]);
    let files = [
        one.write(builder.directory(), "one"),
        wild.write(builder.directory(), "wild"),
    ];
    let proxy = builder
        .start(&format!("{}{}", listener(&files, ""), upstream(&origin)))
        .await;
    let both = [&one, &wild];
    assert_eq!(shown(&proxy, "one.example", &both).await, Some(0));
    assert_eq!(shown(&proxy, "a.wild.example", &both).await, Some(1));
    // The first one is for everyone else, whose client then refuses its name.
    assert_eq!(shown(&proxy, "else.example", &both).await, None);

    let mut client = Client::connect_tls(proxy.address(), "one.example", &one).await;
    let response = client.request("GET", "/", &[("Host", "one.example")], b"").await;
    assert_eq!((response.status, response.text()), (200, "hello"));
    assert_eq!(origin.last_request().field("x-forwarded-proto"), Some("https"));
    assert_eq!(response.field("strict-transport-security"), None);
}

#[tokio::test]
async fn changed_certificates_are_taken_up_without_a_restart() {
    let origin = Origin::start().await;
    let builder = Builder::new();
    let old = Certificate::for_names(&["test"]);
    let files = [old.write(builder.directory(), "test")];
    let proxy = builder
        .start(&format!("{}{}", listener(&files, ""), upstream(&origin)))
        .await;
    let mut open = Client::connect_tls(proxy.address(), "test", &old).await;
    assert_eq!(open.get("/").await.status, 200);

    let new = Certificate::for_names(&["test"]);
    new.write(proxy.directory(), "test");
    proxy
        .diagnostic("the new certificate", |line| line.contains("taken up"))
        .await;
    assert_eq!(shown(&proxy, "test", &[&old, &new]).await, Some(1));
    assert_eq!(open.get("/").await.status, 200, "connections from before live on");

    // A broken file leaves the good one in force.
    std::fs::write(proxy.directory().join("test.pem"), "no certificate").unwrap();
    proxy
        .diagnostic("a complaint about the certificate", |line| line.contains("test.pem"))
        .await;
    assert_eq!(shown(&proxy, "test", &[&new]).await, Some(0));
}

#[tokio::test]
async fn versions_below_the_least_are_refused() {
    let origin = Origin::start().await;
    let builder = Builder::new();
    let certificate = Certificate::for_names(&["test"]);
    let files = [certificate.write(builder.directory(), "test")];
    let yaml = format!("{}{}", listener(&files, ", min_version: tls1.3"), upstream(&origin));
    let proxy = builder.start(&yaml).await;
    for (version, works) in [(&rustls::version::TLS12, false), (&rustls::version::TLS13, true)] {
        let config = client_config(&[&certificate], &[], &[version]);
        let connected = tls(proxy.address(), "test", config).await;
        assert_eq!(connected.is_ok(), works, "{version:?}");
    }
}

#[tokio::test]
async fn hsts_is_sent_over_tls_alone_and_plain_http_is_redirected() {
    let origin = Origin::start().await;
    let builder = Builder::new();
    let certificate = Certificate::for_names(&["test"]);
    let (cert, key) = certificate.write(builder.directory(), "test");
    let yaml = format!(
        "listeners:
  - {{ address: 127.0.0.1:0, redirect_to_https: true }}
  - {{ address: 127.0.0.1:0, tls: {{ certificates: [{{ cert: {}, key: {} }}], hsts: 1y }} }}
{}",
        cert.display(),
        key.display(),
        upstream(&origin)
    );
    let proxy = builder.start(&yaml).await;
    let plain = proxy
        .request("GET", "/a?b=c", &[("Host", "shop.example:8080")], b"")
        .await;
    assert_eq!(
        (plain.status, plain.field("location")),
        (308, Some("https://shop.example/a?b=c"))
    );
    assert_eq!(plain.field("strict-transport-security"), None);
    assert_eq!(origin.request_count(), 0);
    let mut client = Client::connect_tls(proxy.listener(1), "test", &certificate).await;
    let secure = client.get("/").await;
    assert_eq!(secure.field("strict-transport-security"), Some("max-age=31536000"));
}

#[tokio::test]
async fn the_upstreams_certificate_is_verified() {
    let good = Certificate::for_names(&["app.internal"]);
    let other = Certificate::for_names(&["other.internal"]);
    let directory = tempfile::tempdir().unwrap();
    let (ca, _) = good.write(directory.path(), "ca");
    let (other_ca, _) = other.write(directory.path(), "other");
    let origin = Origin::builder().tls(&good).on("/", Reply::ok("secure")).start().await;
    let ca = ca.display();
    let table = [
        ("trusted and named", format!("server_name: app.internal, ca: {ca}"), 200),
        ("another name", format!("server_name: other.internal, ca: {ca}"), 502),
        (
            "another authority",
            format!("server_name: app.internal, ca: {}", other_ca.display()),
            502,
        ),
        ("the system's authorities", "server_name: app.internal".to_owned(), 502),
        (
            "not verified",
            "server_name: other.internal, verify: false".to_owned(),
            200,
        ),
    ];
    for (name, settings, status) in table {
        let yaml = format!(
            "listen: 127.0.0.1:0\nupstreams: {{ default: {{ servers: [\"{}\"], tls: {{ {settings} }} }} }}\n",
            origin.server()
        );
        let proxy = Proxy::start(&yaml).await;
        let response = proxy.get("/").await;
        assert_eq!(response.status, status, "{name}: {}", response.text());
        if status == 502 {
            let why = response.field("proxy-status").unwrap();
            assert!(why.contains("error=tls_certificate_error"), "{name}: {why}");
        }
    }
    assert_eq!(origin.request_count(), 2);
    assert_eq!(origin.connection(0).server_name.as_deref(), Some("app.internal"));
    assert_eq!(
        origin.requests()[0].field("host"),
        Some("test"),
        "Host is kept beside the server name"
    );
}

#[tokio::test]
async fn certificates_that_cannot_be_used_refuse_the_reload() {
    let origin = Origin::start().await;
    let builder = Builder::new();
    let certificate = Certificate::for_names(&["test"]);
    let files = [certificate.write(builder.directory(), "test")];
    let yaml = format!("{}{}", listener(&files, ""), upstream(&origin));
    let proxy = builder.start(&yaml).await;
    let missing = yaml.replace("test.pem", "missing.pem");
    match proxy.reload(&missing).await {
        Reload::Refused(log) => assert!(log.contains("missing.pem"), "{log}"),
        Reload::Done => panic!("a certificate that is not there was taken"),
    }
    assert_eq!(shown(&proxy, "test", &[&certificate]).await, Some(0));
}
