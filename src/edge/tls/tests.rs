use std::io::IoSlice;
use std::sync::Arc;

use bytes::Bytes;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, ClientConfig, HandshakeKind};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client;

use super::*;
use crate::config::{self, TlsVersion};
use crate::edge::proxy_protocol;
use crate::tls::testing::{Authority, Files, soon, tcp_pair};

fn listener(certificates: Vec<config::Certificate>) -> ListenerTls {
    ListenerTls {
        certificates,
        min_version: TlsVersion::Tls12,
        hsts: None,
    }
}

fn acceptor(certificates: Vec<config::Certificate>) -> TlsAcceptor {
    TlsAcceptor::new(&listener(certificates), Alpn::Http2).unwrap()
}

type Client = Result<client::TlsStream<TcpStream>, io::Error>;
type Server = Result<ClientStream<TcpStream>, AcceptError>;

async fn connect(acceptor: &TlsAcceptor, client: &Arc<ClientConfig>, name: &'static str) -> (Client, Server) {
    let (near, far) = tcp_pair().await;
    let name = ServerName::try_from(name).unwrap();
    let connecting = TlsConnector::from(Arc::clone(client)).connect(name, near);
    tokio::join!(connecting, acceptor.accept(Rewound::new(Bytes::new(), far), soon()))
}

/// The certificate that the acceptor shows to a client that takes any.
async fn shown(acceptor: &TlsAcceptor, name: &'static str) -> CertificateDer<'static> {
    let mut config = ClientConfig::clone(&Authority::new().client(&[&TLS13], &[]));
    let verifier = crate::upstream::tls::NoVerification::new(provider());
    config.dangerous().set_certificate_verifier(Arc::new(verifier));
    let (client, server) = connect(acceptor, &Arc::new(config), name).await;
    server.unwrap();
    client.unwrap().get_ref().1.peer_certificates().unwrap()[0].clone()
}

#[tokio::test]
async fn the_certificate_is_chosen_by_name() {
    let (files, authority) = (Files::new(), Authority::new());
    let first = authority.issue(&["first.example"]);
    let exact = authority.issue(&["www.example.com", "Example.COM"]);
    let wildcard = authority.issue(&["*.example.com", "*.example.org"]);
    let acceptor = acceptor(vec![
        files.write_pair("first", &first),
        files.write_pair("wildcard", &wildcard),
        files.write_pair("exact", &exact),
    ]);
    let cases = [
        ("first.example", &first),
        ("www.example.com", &exact),
        ("WWW.Example.Com", &exact),
        ("example.com", &exact),
        ("api.example.com", &wildcard),
        ("API.example.org", &wildcard),
        ("a.b.example.com", &first),
        ("example.org", &first),
        ("com", &first),
        ("unknown.test", &first),
        // An address is no name: the client sends no SNI (RFC 6066 §3).
        ("127.0.0.1", &first),
    ];
    for (name, expected) in cases {
        assert_eq!(shown(&acceptor, name).await, expected.der, "{name}");
    }
}

#[tokio::test]
async fn what_was_agreed_on_is_told() {
    let (files, authority) = (Files::new(), Authority::new());
    let pair = files.write_pair("a", &authority.issue(&["a.example"]));
    let cases: [(Alpn, &[&str], Alpn); 6] = [
        (Alpn::Http2, &["h2", "http/1.1"], Alpn::Http2),
        (Alpn::Http2, &["http/1.1", "h2"], Alpn::Http2),
        (Alpn::Http2, &["http/1.1"], Alpn::Http1),
        (Alpn::Http2, &[], Alpn::Http1),
        (Alpn::Http1, &["h2", "http/1.1"], Alpn::Http1),
        (Alpn::Http1, &[], Alpn::Http1),
    ];
    for (highest, offered, agreed) in cases {
        let acceptor = TlsAcceptor::new(&listener(vec![pair.clone()]), highest).unwrap();
        for (version, told) in [(&TLS12, TlsVersion::Tls12), (&TLS13, TlsVersion::Tls13)] {
            let (client, server) = connect(&acceptor, &authority.client(&[version], offered), "A.example").await;
            let expected = TlsInfo {
                version: told,
                alpn: agreed,
                server_name: Some("a.example"),
            };
            assert_eq!(server.unwrap().tls(), Some(expected), "{offered:?}");
            client.unwrap();
        }
    }
    let acceptor = TlsAcceptor::new(&listener(vec![pair]), Alpn::Http1).unwrap();
    let (client, server) = connect(&acceptor, &authority.client(&[&TLS13], &["h2"]), "a.example").await;
    assert!(
        matches!(
            server,
            Err(AcceptError::Handshake(rustls::Error::NoApplicationProtocol))
        ),
        "{server:?}"
    );
    assert_eq!(alert(client), AlertDescription::NoApplicationProtocol);
}

fn alert(client: Client) -> AlertDescription {
    match client.unwrap_err().downcast::<rustls::Error>() {
        Ok(rustls::Error::AlertReceived(alert)) => alert,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_version_below_the_lowest_is_refused() {
    let (files, authority) = (Files::new(), Authority::new());
    let mut tls = listener(vec![files.write_pair("a", &authority.issue(&["a.example"]))]);
    tls.min_version = TlsVersion::Tls13;
    let acceptor = TlsAcceptor::new(&tls, Alpn::Http2).unwrap();
    let (client, server) = connect(&acceptor, &authority.client(&[&TLS12], &[]), "a.example").await;
    assert!(
        matches!(server, Err(AcceptError::Handshake(rustls::Error::PeerIncompatible(_)))),
        "{server:?}"
    );
    assert_eq!(alert(client), AlertDescription::ProtocolVersion);
    let (client, server) = connect(&acceptor, &authority.client(&[&TLS13, &TLS12], &[]), "a.example").await;
    assert_eq!(server.unwrap().tls().unwrap().version, TlsVersion::Tls13);
    client.unwrap();
}

#[tokio::test]
async fn a_client_that_comes_again_resumes_its_session() {
    let (files, authority) = (Files::new(), Authority::new());
    let acceptor = acceptor(vec![files.write_pair("a", &authority.issue(&["a.example"]))]);
    for version in [&TLS12, &TLS13] {
        let config = authority.client(&[version], &[]);
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let (client, server) = connect(&acceptor, &config, "a.example").await;
            let (mut client, mut server) = (client.unwrap(), server.unwrap());
            // Tickets come with the first data (RFC 8446 §4.6.1).
            server.write_all(b"x").await.unwrap();
            server.flush().await.unwrap();
            client.read_u8().await.unwrap();
            assert_eq!(client.get_ref().1.handshake_kind(), Some(expected), "{version:?}");
        }
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_taken_up() {
    let (files, authority) = (Files::new(), Authority::new());
    let old = authority.issue(&["old.example", "a.example"]);
    let pair = files.write_pair("a", &old);
    let acceptor = acceptor(vec![
        files.write_pair("first", &authority.issue(&["first.example"])),
        pair.clone(),
    ]);
    let (client, server) = connect(&acceptor, &authority.client(&[&TLS13], &[]), "a.example").await;
    let (mut client, mut server) = (client.unwrap(), server.unwrap());
    assert!(acceptor.reload_if_changed().taken_up.is_empty());

    let new = authority.issue(&["new.example", "a.example"]);
    files.write_pair("a", &new);
    let reload = acceptor.reload_if_changed();
    assert!(reload.errors.is_empty());
    assert_eq!(reload.taken_up, std::slice::from_ref(&pair.cert));
    assert_eq!(shown(&acceptor, "a.example").await, new.der);
    assert_eq!(shown(&acceptor, "new.example").await, new.der);
    assert_ne!(shown(&acceptor, "old.example").await, old.der);
    assert!(acceptor.reload_if_changed().taken_up.is_empty());

    // In place, where perhaps only the times tell.
    let swapped = authority.issue(&["new.example", "b.example"]);
    for (path, content) in [(&pair.key, &swapped.key), (&pair.cert, &swapped.cert)] {
        std::fs::write(path, content).unwrap();
        let written = std::fs::File::options().write(true).open(path).unwrap();
        written
            .set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000))
            .unwrap();
    }
    assert_eq!(acceptor.reload_if_changed().taken_up, [pair.cert]);
    assert_eq!(shown(&acceptor, "b.example").await, swapped.der);

    // What was open stays open.
    server.write_all(b"x").await.unwrap();
    server.flush().await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), b'x');
}

#[tokio::test]
async fn a_pair_that_is_not_usable_leaves_the_old_one_in_force() {
    let (files, authority) = (Files::new(), Authority::new());
    let old = authority.issue(&["a.example"]);
    let pair = files.write_pair("a", &old);
    let other = files.write_pair("b", &authority.issue(&["b.example"]));
    let acceptor = acceptor(vec![pair.clone(), other.clone()]);
    let new = authority.issue(&["a.example"]);
    let half = &new.cert[..new.cert.len() / 2];
    let cases = [
        (
            "a.pem",
            new.cert.as_str(),
            "a.key: the key does not belong to the first certificate of ",
        ),
        ("a.pem", half, "a.pem: is not valid PEM: it ends inside a section"),
        (
            "a.pem",
            "",
            "a.pem: holds no certificate (expected a section \"BEGIN CERTIFICATE\")",
        ),
    ];
    for (name, content, expected) in cases {
        files.write(name, content);
        let reload = acceptor.reload_if_changed();
        let told: Vec<String> = reload.errors.iter().map(|error| error.to_string()).collect();
        let expected = format!("{}/{expected}", files.directory().display());
        assert!(told.len() == 1 && told[0].starts_with(&expected), "{told:?}");
        assert!(acceptor.reload_if_changed().errors.is_empty(), "told twice");
        assert_eq!(shown(&acceptor, "a.example").await, old.der);
    }
    std::fs::remove_file(&pair.cert).unwrap();
    assert_eq!(acceptor.reload_if_changed().errors.len(), 1);
    assert!(acceptor.reload_if_changed().errors.is_empty());

    // The other pair does not have to wait for this one.
    let other_new = authority.issue(&["b.example"]);
    files.write_pair("b", &other_new);
    assert_eq!(acceptor.reload_if_changed().taken_up, [other.cert]);
    assert_eq!(shown(&acceptor, "b.example").await, other_new.der);
    assert_eq!(shown(&acceptor, "a.example").await, old.der);

    files.write_pair("a", &new);
    assert_eq!(acceptor.reload_if_changed().taken_up, [pair.cert]);
    assert_eq!(shown(&acceptor, "a.example").await, new.der);
}

#[test]
fn what_is_wrong_with_the_files_is_told_all_at_once() {
    let (files, authority) = (Files::new(), Authority::new());
    let (a, b) = (authority.issue(&["a.example"]), authority.issue(&["b.example"]));
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let old_encrypted =
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    let nonsense = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let bad_base64 = "-----BEGIN CERTIFICATE-----\nA*A\n-----END CERTIFICATE-----\n";
    let no_cert = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let encrypted_text = "holds an encrypted private key (decrypt it: openssl pkey -in encrypted.key -out plain.key)";
    let too_long = "x".repeat(1024 * 1024 + 1);
    let cases = [
        (
            a.cert.as_str(),
            Some(b.key.as_str()),
            "0.key: the key does not belong to the first certificate of ",
        ),
        (
            a.key.as_str(),
            Some(&a.key),
            "1.pem: holds no certificate (expected a section \"BEGIN CERTIFICATE\")",
        ),
        (
            &a.cert,
            Some(&a.cert),
            "2.key: holds no private key (expected a section \"BEGIN PRIVATE KEY\")",
        ),
        (
            &a.cert,
            None,
            "3.key: cannot be read: No such file or directory (os error 2)",
        ),
        (&a.cert, Some(encrypted), &format!("4.key: {encrypted_text}")),
        (&a.cert, Some(old_encrypted), &format!("5.key: {encrypted_text}")),
        (
            &a.cert,
            Some(nonsense),
            "6.key: holds a private key that cannot be used: ",
        ),
        (
            bad_base64,
            Some(&a.key),
            "7.pem: is not valid PEM: a section is not base64",
        ),
        (
            no_cert,
            Some(&a.key),
            "8.pem: holds a certificate that cannot be used: it is not a well-formed X.509 certificate of version 3 (",
        ),
        (
            &too_long,
            Some(&a.key),
            "9.pem: is larger than 1048576 bytes, which no PEM file should be",
        ),
    ];
    let mut pairs = vec![files.write_pair("good", &a)];
    for (number, (cert, key, _)) in cases.iter().enumerate() {
        let cert = files.write(&format!("{number}.pem"), cert);
        let key_path = files.path(&format!("{number}.key"));
        if let Some(key) = key {
            std::fs::write(&key_path, key).unwrap();
        }
        pairs.push(config::Certificate { cert, key: key_path });
    }
    let errors = TlsAcceptor::new(&listener(pairs), Alpn::Http2).unwrap_err();
    assert_eq!(errors.len(), cases.len());
    for (error, (_, _, expected)) in errors.iter().zip(cases) {
        let expected = format!("{}/{expected}", files.directory().display());
        assert!(error.to_string().starts_with(&expected), "{error}");
    }
}

#[test]
fn a_combined_file_serves_as_both() {
    let (files, authority) = (Files::new(), Authority::new());
    let issued = authority.issue(&["a.example"]);
    let both = files.write("both.pem", &format!("{}{}{}", issued.key, issued.cert, authority.pem()));
    acceptor(vec![config::Certificate {
        cert: both.clone(),
        key: both,
    }]);
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_has_until_the_deadline() {
    let (files, authority) = (Files::new(), Authority::new());
    let acceptor = acceptor(vec![files.write_pair("a", &authority.issue(&["a.example"]))]);
    // Nothing at all, and the beginning of a ClientHello (RFC 8446 §5.1).
    for sent in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01"] {
        let (near, mut far) = tokio::io::duplex(100);
        far.write_all(sent).await.unwrap();
        let start = Instant::now();
        let accepted = acceptor
            .accept(Rewound::new(Bytes::new(), near), start + HANDSHAKE_TIMEOUT)
            .await;
        assert!(matches!(accepted, Err(AcceptError::Timeout)), "{accepted:?}");
        let waited = start.elapsed();
        assert!(
            waited >= HANDSHAKE_TIMEOUT && waited < HANDSHAKE_TIMEOUT + Duration::from_secs(1),
            "{waited:?}"
        );
    }
}

#[tokio::test]
async fn a_client_that_does_not_speak_tls_is_refused() {
    let (files, authority) = (Files::new(), Authority::new());
    let acceptor = acceptor(vec![files.write_pair("a", &authority.issue(&["a.example"]))]);
    let head_end = PLAIN_HTTP_ANSWER
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .unwrap()
        + 4;
    assert!(
        std::str::from_utf8(PLAIN_HTTP_ANSWER)
            .unwrap()
            .contains("Content-Length: 58\r\n")
    );
    assert_eq!(PLAIN_HTTP_ANSWER.len() - head_end, 58);

    let (mut client, far) = tcp_pair().await;
    // More than what is read before the answer: closing must not reset the connection.
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n")
        .await
        .unwrap();
    client.write_all(&[b'x'; 3 * FIRST_READ]).await.unwrap();
    let accepting = acceptor.accept(Rewound::new(Bytes::new(), far), soon());
    let talking = async {
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        drop(client);
        answer
    };
    let (accepted, answer) = tokio::join!(accepting, talking);
    assert!(matches!(accepted, Err(AcceptError::PlainHttp)), "{accepted:?}");
    assert_eq!(answer, PLAIN_HTTP_ANSWER);

    for (sent, refused) in [
        (&b"\r\n"[..], "does not speak TLS"),
        (b"", "closed"),
        (b"\x16\x03\x01", "closed"),
    ] {
        let (near, mut far) = tokio::io::duplex(100);
        far.write_all(sent).await.unwrap();
        drop(far);
        let error = acceptor
            .accept(Rewound::new(Bytes::new(), near), soon())
            .await
            .unwrap_err();
        assert!(error.to_string().contains(refused), "{error}");
    }
}

#[tokio::test]
async fn tls_begins_behind_a_proxy_protocol_header() {
    let (files, authority) = (Files::new(), Authority::new());
    let acceptor = acceptor(vec![files.write_pair("a", &authority.issue(&["a.example"]))]);
    let (mut near, mut far) = tcp_pair().await;
    let client = async {
        near.write_all(b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n")
            .await
            .unwrap();
        let name = ServerName::try_from("a.example").unwrap();
        let mut stream = TlsConnector::from(authority.client(&[&TLS13], &["h2"]))
            .connect(name, near)
            .await
            .unwrap();
        stream.write_all(b"ping").await.unwrap();
        stream.flush().await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        answer
    };
    let server = async {
        let (header, rest) = proxy_protocol::read(&mut far, soon()).await.unwrap();
        let mut stream = acceptor.accept(Rewound::new(rest.freeze(), far), soon()).await.unwrap();
        let mut request = [0; 4];
        stream.read_exact(&mut request).await.unwrap();
        assert!(stream.is_write_vectored());
        let slices = [IoSlice::new(b"po"), IoSlice::new(b"ng")];
        assert_eq!(stream.write_vectored(&slices).await.unwrap(), 4);
        stream.shutdown().await.unwrap();
        (header, request)
    };
    let (answer, (header, request)) = tokio::join!(client, server);
    assert!(matches!(header, proxy_protocol::Header::Proxied { .. }));
    assert_eq!(&request, b"ping");
    assert_eq!(answer, b"pong");
}

#[tokio::test]
async fn what_was_read_is_read_again_first() {
    let (mut near, far) = tcp_pair().await;
    near.write_all(b"third").await.unwrap();
    near.shutdown().await.unwrap();
    let mut rewound = Rewound::new(Bytes::from_static(b"second "), far);
    rewound.rewind(Bytes::from_static(b"first "));
    let mut stream = ClientStream::Plain(rewound);
    assert_eq!(stream.tls(), None);
    let mut two = [0; 2];
    stream.read_exact(&mut two).await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert_eq!([&two[..], &rest].concat(), b"first second third");
}

#[tokio::test]
async fn a_tls_connection_can_be_handed_to_pingora() {
    use pingora_core::protocols::{Stream, l4};
    let (files, authority) = (Files::new(), Authority::new());
    let acceptor = acceptor(vec![files.write_pair("a", &authority.issue(&["a.example"]))]);
    let (near, far) = tcp_pair().await;
    let far: Stream = Box::new(l4::stream::Stream::from(far));
    let name = ServerName::try_from("a.example").unwrap();
    let connecting = TlsConnector::from(authority.client(&[&TLS13], &[])).connect(name, near);
    let accepting = acceptor.accept(Rewound::new(Bytes::new(), far), soon());
    let (client, server) = tokio::join!(connecting, accepting);
    let (mut client, mut server): (_, Stream) = (client.unwrap(), Box::new(server.unwrap()));
    assert!(server.id() > 0);
    server.write_all(b"x").await.unwrap();
    server.flush().await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), b'x');
    pingora_core::protocols::Shutdown::shutdown(&mut *server).await;
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn accepting_takes_little_room_in_a_connections_task() {
    let (files, authority) = (Files::new(), Authority::new());
    let acceptor = acceptor(vec![files.write_pair("a", &authority.issue(&["a.example"]))]);
    let (_near, far) = tcp_pair().await;
    let accepting = acceptor.accept(Rewound::new(Bytes::new(), far), soon());
    assert!(size_of_val(&accepting) <= 1024, "{}", size_of_val(&accepting));
    assert!(
        size_of::<ClientStream<TcpStream>>() <= 96,
        "{}",
        size_of::<ClientStream<TcpStream>>()
    );
}
