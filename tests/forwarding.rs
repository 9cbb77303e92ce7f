//! What the application is told of a request beside the request itself, and what is kept from it.

use crate::support::client::Client;
use crate::support::origin::{Origin, Reply};
use crate::support::proxy::Proxy;

#[tokio::test]
async fn via_is_added_and_our_own_is_a_loop() {
    let origin = Origin::start().await;
    let proxy = Proxy::before(&origin, "").await;
    proxy.request("GET", "/a", &[("Via", "1.0 other (a, b)")], b"").await;
    let request = origin.only_request();
    let via = request.fields("via").join(", ");
    let (before, own) = via.rsplit_once(", 1.1 ").unwrap();
    assert_eq!(before, "1.0 other (a, b)");

    let own = format!("1.1 {own}");
    let looped = proxy
        .request("GET", "/b", &[("Via", "1.0 other"), ("Via", &own)], b"")
        .await;
    assert_eq!(looped.status, 508);
    assert!(looped.field("proxy-status").unwrap().contains("proxy_loop_detected"));
    assert_eq!(origin.request_count(), 1);
}

#[tokio::test]
async fn hop_by_hop_fields_end_here_and_connection_takes_nothing_that_matters() {
    let origin = Origin::builder()
        .on(
            "/",
            Reply::ok("hello")
                .field("Connection", "X-Own, ETag, close-not")
                .field("X-Own", "1")
                .field("ETag", "\"a\"")
                .field("Keep-Alive", "timeout=5")
                .field("Proxy-Authenticate", "Basic"),
        )
        .start()
        .await;
    let proxy = Proxy::before(&origin, "").await;
    let nominated = "keep-alive, X-Own, Authorization, Cookie, X-Forwarded-For, Host, Content-Type";
    let fields = [
        ("Connection", nominated),
        ("X-Own", "1"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("Proxy-Authorization", "Basic eA=="),
        ("Proxy", "http://evil"),
        ("TE", "gzip"),
        ("Authorization", "Bearer a"),
        ("Cookie", "a=b"),
        ("Content-Type", "text/plain"),
    ];
    let response = proxy.request("POST", "/", &fields, b"x").await;
    let request = origin.only_request();
    for gone in [
        "connection",
        "x-own",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "proxy",
        "te",
    ] {
        assert_eq!(request.field(gone), None, "{gone} went on");
    }
    for kept in ["authorization", "cookie", "content-type", "x-forwarded-for", "host"] {
        assert!(request.field(kept).is_some(), "{kept} was taken away");
    }
    for gone in ["x-own", "keep-alive", "proxy-authenticate"] {
        assert_eq!(response.field(gone), None, "{gone} came back");
    }
    assert_eq!(response.field("etag"), Some("\"a\""));
}

#[tokio::test]
async fn forwarding_fields_tell_the_truth_whatever_strangers_say() {
    let origin = Origin::start().await;
    let proxy = Proxy::before(&origin, "trusted_proxies: [\"127.0.0.2/32\"]\n").await;
    let claims = [
        ("Host", "shop.example:8080"),
        ("X-Forwarded-For", "203.0.113.7"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "evil.example"),
        ("X-Real-IP", "203.0.113.7"),
        ("Forwarded", "for=203.0.113.7;proto=https"),
    ];
    proxy.request("GET", "/", &claims, b"").await;
    let request = origin.last_request();
    assert_eq!(request.fields("host"), ["shop.example:8080"], "Host is kept");
    assert_eq!(request.fields("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(request.fields("x-forwarded-proto"), ["http"]);
    assert_eq!(request.fields("x-forwarded-host"), ["shop.example:8080"]);
    assert_eq!(request.fields("x-real-ip"), ["127.0.0.1"]);
    let forwarded = request.fields("forwarded").join(", ");
    assert!(
        forwarded.starts_with("for=127.0.0.1;") && !forwarded.contains("203.0.113.7"),
        "{forwarded}"
    );

    let mut trusted = Client::connect_from([127, 0, 0, 2], proxy.address()).await;
    trusted.request("GET", "/", &claims, b"").await;
    let request = origin.last_request();
    assert_eq!(request.fields("x-forwarded-for"), ["203.0.113.7, 127.0.0.2"]);
    assert_eq!(request.fields("x-forwarded-proto"), ["https"]);
    assert_eq!(request.fields("x-real-ip"), ["203.0.113.7"]);
    let entry = proxy.log_entry(|entry| entry["client_ip"] == "203.0.113.7").await;
    assert_eq!(entry["status"], 200);
}

#[tokio::test]
async fn fields_that_applications_believe_are_taken_from_strangers() {
    let origin = Origin::start().await;
    let sections = "trusted_proxies: [\"127.0.0.2/32\"]\n";
    let proxy = Proxy::before(&origin, sections).await;
    let names = [
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-HTTP-Method-Override",
        "X-HTTP-Method",
        "X-Method-Override",
        "X-Forwarded-Prefix",
        "X-Forwarded-Server",
        "X-Forwarded-Ssl",
        "X-Original-Host",
        "X-Host",
        "X-Client-IP",
        "True-Client-IP",
        "CF-Connecting-IP",
        "X-Cluster-Client-IP",
        "X-Remote-User",
        "Client-Cert",
        "X_Forwarded_For",
        "X_Original_URL",
    ];
    let fields: Vec<_> = names.iter().map(|name| (*name, "evil")).collect();
    proxy.request("GET", "/", &fields, b"").await;
    let stranger = origin.last_request();
    for (name, value) in &stranger.fields {
        assert!(!value.contains("evil"), "{name} went on");
    }
    let mut trusted = Client::connect_from([127, 0, 0, 2], proxy.address()).await;
    trusted.request("GET", "/", &[("X-Original-URL", "/admin")], b"").await;
    assert_eq!(origin.last_request().field("x-original-url"), Some("/admin"));
}

#[tokio::test]
async fn requests_can_be_followed() {
    let origin = Origin::start().await;
    let proxy = Proxy::before(&origin, "").await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let given = proxy
        .request(
            "GET",
            "/a",
            &[
                ("X-Request-Id", "abc-123"),
                ("traceparent", trace),
                ("tracestate", "a=b"),
            ],
            b"",
        )
        .await;
    let request = origin.last_request();
    assert_eq!(request.fields("x-request-id"), ["abc-123"]);
    assert_eq!(request.fields("traceparent"), [trace]);
    assert_eq!(request.field("tracestate"), Some("a=b"));
    assert_eq!(given.field("x-request-id"), Some("abc-123"));
    proxy.log_entry(|entry| entry["request_id"] == "abc-123").await;

    for bad in ["", "a b", &"a".repeat(500), "\"quoted\""] {
        let response = proxy
            .request("GET", "/b", &[("X-Request-Id", bad), ("traceparent", bad)], b"")
            .await;
        let request = origin.last_request();
        let made = request.field("x-request-id").unwrap();
        assert!(made.len() >= 16 && made != bad, "{bad}");
        assert_eq!(response.field("x-request-id"), Some(made));
        let parent = request.field("traceparent").unwrap();
        assert!(parent.len() == 55 && parent.starts_with("00-"), "{parent}");
    }
}
