use std::path::PathBuf;
use std::time::Duration;

use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::config::TlsVersion;
use crate::tls::private_key;
use crate::tls::testing::{Authority, Files, Issued, soon, tcp_pair};

fn upstream(server_name: &str, ca: Option<PathBuf>) -> UpstreamTls {
    UpstreamTls {
        server_name: server_name.to_owned(),
        ca,
        verify: Verify::Certificate,
        min_version: TlsVersion::Tls12,
        certificate: None,
    }
}

fn server(issued: &Issued, versions: &[&'static SupportedProtocolVersion], alpn: &[&str]) -> TlsAcceptor {
    let key = private_key(issued.key.as_bytes()).unwrap();
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![issued.der.clone()], key)
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

type Connected = Result<(TlsStream<TcpStream>, Alpn), ConnectError>;

/// Connects, and tells the name that the server was asked for.
async fn connect(connector: &UpstreamTlsConnector, server: &TlsAcceptor) -> (Connected, Option<String>) {
    let (near, far) = tcp_pair().await;
    let (connected, accepted) = tokio::join!(connector.connect(near, soon()), server.accept(far));
    let name = match &accepted {
        Ok(stream) => stream.get_ref().1.server_name().map(str::to_owned),
        Err(_) => None,
    };
    (connected, name)
}

#[tokio::test]
async fn a_server_with_the_right_certificate_is_connected_to() {
    let (files, authority) = (Files::new(), Authority::new());
    let bundle = format!("{}{}", Authority::new().pem(), authority.pem());
    let ca = Some(files.write("ca.pem", &bundle));
    let server = server(
        &authority.issue(&["app.internal", "10.0.0.9"]),
        &[&TLS12, &TLS13],
        &["h2", "http/1.1"],
    );
    let cases = [
        ("app.internal", Alpn::Http2, Alpn::Http2, Some("app.internal")),
        ("App.Internal", Alpn::Http1, Alpn::Http1, Some("app.internal")),
        // An address is verified, but is no name to send (RFC 6066 §3).
        ("10.0.0.9", Alpn::Http1, Alpn::Http1, None),
    ];
    for (name, highest, agreed, sent) in cases {
        let connector = UpstreamTlsConnector::new(&upstream(name, ca.clone()), highest).unwrap();
        let (connected, asked) = connect(&connector, &server).await;
        assert_eq!(connected.unwrap().1, agreed, "{name}");
        assert_eq!(asked.as_deref(), sent, "{name}");
    }
}

#[tokio::test]
async fn without_a_choice_of_the_server_it_is_http_1() {
    let (files, authority) = (Files::new(), Authority::new());
    let ca = Some(files.write("ca.pem", &authority.pem()));
    let connector = UpstreamTlsConnector::new(&upstream("a.example", ca), Alpn::Http2).unwrap();
    for alpn in [&[][..], &["http/1.1"]] {
        let server = server(&authority.issue(&["a.example"]), &[&TLS13], alpn);
        assert_eq!(connect(&connector, &server).await.0.unwrap().1, Alpn::Http1, "{alpn:?}");
    }
    let server = server(&authority.issue(&["a.example"]), &[&TLS13], &["imap"]);
    let refused = connect(&connector, &server).await.0.unwrap_err();
    assert!(
        matches!(refused, ConnectError::Alert(AlertDescription::NoApplicationProtocol)),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_certificate_that_proves_nothing_is_refused() {
    let (files, authority) = (Files::new(), Authority::new());
    let mut tls = upstream("a.example", Some(files.write("ca.pem", &authority.pem())));
    let cases = [
        (authority.issue(&["b.example"]), "not valid for name \"a.example\""),
        (authority.issue(&[]), "not valid for name \"a.example\""),
        (Authority::named("Stranger").issue(&["a.example"]), "UnknownIssuer"),
        // Another authority of the same name.
        (Authority::new().issue(&["a.example"]), "BadSignature"),
        (authority.issue_until(&["a.example"], 2002), "certificate expired"),
    ];
    for (issued, reason) in cases {
        let server = server(&issued, &[&TLS12, &TLS13], &[]);
        tls.verify = Verify::Certificate;
        let connector = UpstreamTlsConnector::new(&tls, Alpn::Http1).unwrap();
        let refused = connect(&connector, &server).await.0.unwrap_err();
        assert!(matches!(refused, ConnectError::Certificate(_)), "{refused:?}");
        assert!(refused.to_string().contains(reason), "{refused}");
        // Verification was all that stood in the way, and the name is sent without it too.
        tls.verify = Verify::Nothing;
        let connector = UpstreamTlsConnector::new(&tls, Alpn::Http1).unwrap();
        let (connected, asked) = connect(&connector, &server).await;
        connected.unwrap();
        assert_eq!(asked.as_deref(), Some("a.example"));
    }
}

#[tokio::test]
async fn a_version_below_the_lowest_is_refused() {
    let (files, authority) = (Files::new(), Authority::new());
    let mut tls = upstream("a.example", Some(files.write("ca.pem", &authority.pem())));
    let old = server(&authority.issue(&["a.example"]), &[&TLS12], &[]);
    let connector = UpstreamTlsConnector::new(&tls, Alpn::Http1).unwrap();
    connect(&connector, &old).await.0.unwrap();
    for verify in [Verify::Certificate, Verify::Nothing] {
        tls.min_version = TlsVersion::Tls13;
        tls.verify = verify;
        let connector = UpstreamTlsConnector::new(&tls, Alpn::Http1).unwrap();
        let refused = connect(&connector, &old).await.0.unwrap_err();
        assert!(
            matches!(refused, ConnectError::Alert(AlertDescription::ProtocolVersion)),
            "{refused:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_has_until_the_deadline() {
    let (files, authority) = (Files::new(), Authority::new());
    let ca = Some(files.write("ca.pem", &authority.pem()));
    let connector = UpstreamTlsConnector::new(&upstream("a.example", ca), Alpn::Http1).unwrap();
    let (near, _far) = tokio::io::duplex(16 * 1024);
    let start = Instant::now();
    let refused = connector
        .connect(near, start + Duration::from_secs(10))
        .await
        .unwrap_err();
    assert!(matches!(refused, ConnectError::Timeout), "{refused:?}");
    assert!(start.elapsed() >= Duration::from_secs(10));
}

#[tokio::test]
async fn a_server_without_tls_is_told_from_one_that_closes() {
    let (files, authority) = (Files::new(), Authority::new());
    let ca = Some(files.write("ca.pem", &authority.pem()));
    let connector = UpstreamTlsConnector::new(&upstream("a.example", ca), Alpn::Http1).unwrap();
    let (near, mut far) = tokio::io::duplex(16 * 1024);
    far.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    let refused = connector.connect(near, soon()).await.unwrap_err();
    assert!(matches!(refused, ConnectError::Protocol(_)), "{refused:?}");

    let (near, mut far) = tokio::io::duplex(16 * 1024);
    let closing = async {
        far.read_u8().await.unwrap();
        drop(far);
    };
    let (refused, ()) = tokio::join!(connector.connect(near, soon()), closing);
    assert!(matches!(refused.unwrap_err(), ConnectError::Closed));
}

#[tokio::test]
async fn tls_works_over_a_unix_socket() {
    let (files, authority) = (Files::new(), Authority::new());
    let ca = Some(files.write("ca.pem", &authority.pem()));
    let connector = UpstreamTlsConnector::new(&upstream("a.example", ca), Alpn::Http1).unwrap();
    let server = server(&authority.issue(&["a.example"]), &[&TLS13], &[]);
    let (near, far) = UnixStream::pair().unwrap();
    let (connected, accepted) = tokio::join!(connector.connect(near, soon()), server.accept(far));
    let (mut connected, mut accepted) = (connected.unwrap().0, accepted.unwrap());
    connected.write_all(b"x").await.unwrap();
    connected.flush().await.unwrap();
    assert_eq!(accepted.read_u8().await.unwrap(), b'x');
}

#[test]
fn what_cannot_be_used_is_told() {
    let files = Files::new();
    let missing = files.path("missing.pem");
    let empty = files.write("empty.pem", "");
    let broken = files.write(
        "broken.pem",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    let cases = [
        ("", None, "\"\" is neither a host name nor an IP address".to_owned()),
        ("a b", None, "\"a b\" is neither".to_owned()),
        (
            "a.example",
            Some(&missing),
            format!("{}: cannot be read: No such file", missing.display()),
        ),
        (
            "a.example",
            Some(&empty),
            format!("{}: holds no certificate", empty.display()),
        ),
        (
            "a.example",
            Some(&broken),
            format!("{}: holds a certificate that cannot be used", broken.display()),
        ),
    ];
    for (name, ca, expected) in cases {
        match UpstreamTlsConnector::new(&upstream(name, ca.cloned()), Alpn::Http1) {
            Ok(_) => panic!("{expected}"),
            Err(error) => assert!(error.to_string().starts_with(&expected), "{error}"),
        }
    }
}
