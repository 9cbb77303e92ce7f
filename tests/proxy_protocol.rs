//! The PROXY protocol in front of requests.

use crate::support::certificate::Certificate;
use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::proxy::{Builder, Proxy};

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

/// Believes 127.0.0.1 and no other.
async fn listening(origin: &Origin) -> Proxy {
    let yaml = format!(
        "listeners: [{{ address: 127.0.0.1:0, proxy_protocol: true }}]
trusted_proxies: [\"127.0.0.1/32\"]
upstreams: {{ app: {{ servers: [\"{}\"] }} }}
",
        origin.server()
    );
    Proxy::start(&yaml).await
}

/// Signature, version 2 with this command and family, and what follows with its length.
fn version_2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([0x20 | command, family]);
    header.extend((addresses.len() as u16).to_be_bytes());
    header.extend(addresses);
    header
}

#[tokio::test]
async fn trusted_peers_tell_the_clients_address() {
    let origin = Origin::start().await;
    let proxy = listening(&origin).await;
    let inet = [203, 0, 113, 7, 10, 0, 0, 1, 0x30, 0x39, 0x00, 0x50];
    let mut inet6 = [0; 36];
    inet6[..16].copy_from_slice(&std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7).octets());
    let with_tlv = [&inet[..], &[0x04, 0x00, 0x01, 0x00]].concat();
    let table = [
        (
            "version 1",
            b"PROXY TCP4 203.0.113.7 10.0.0.1 12345 80\r\n".to_vec(),
            "203.0.113.7",
        ),
        (
            "version 1, IPv6",
            b"PROXY TCP6 2001:db8::7 2001:db8::1 12345 80\r\n".to_vec(),
            "2001:db8::7",
        ),
        ("version 1, unknown", b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        ("version 2", version_2(1, 0x11, &inet), "203.0.113.7"),
        ("version 2, IPv6", version_2(1, 0x21, &inet6), "2001:db8::7"),
        ("version 2 with a TLV", version_2(1, 0x11, &with_tlv), "203.0.113.7"),
        ("version 2, local", version_2(0, 0x00, &[]), "127.0.0.1"),
    ];
    for (name, header, address) in table {
        let mut client = proxy.client().await;
        client.send([&header[..], REQUEST.as_bytes()].concat()).await;
        assert_eq!(client.response().await.status, 200, "{name}");
        assert_eq!(origin.last_request().field("x-real-ip"), Some(address), "{name}");
        // One header for the connection, not for each request.
        assert_eq!(client.get("/").await.status, 200, "{name}");
        assert_eq!(origin.last_request().field("x-real-ip"), Some(address), "{name}");
    }
}

#[tokio::test]
async fn the_header_stands_before_the_tls_handshake() {
    let origin = Origin::start().await;
    let builder = Builder::new();
    let certificate = Certificate::for_names(&["test"]);
    let (cert, key) = certificate.write(builder.directory(), "test");
    let yaml = format!(
        "listeners:
  - address: 127.0.0.1:0
    proxy_protocol: true
    tls: {{ certificates: [{{ cert: {}, key: {} }}] }}
trusted_proxies: [\"127.0.0.1/32\"]
upstreams: {{ app: {{ servers: [\"{}\"] }} }}
",
        cert.display(),
        key.display(),
        origin.server()
    );
    let proxy = builder.start(&yaml).await;
    let header = b"PROXY TCP4 203.0.113.7 10.0.0.1 12345 443\r\n";
    let mut client = Client::connect_tls_behind(header, proxy.address(), "test", &certificate).await;
    assert_eq!(client.get("/").await.status, 200);
    assert_eq!(origin.only_request().field("x-real-ip"), Some("203.0.113.7"));
}

#[tokio::test]
async fn a_header_may_come_byte_by_byte() {
    let origin = Origin::start().await;
    let proxy = listening(&origin).await;
    let mut client = proxy.client().await;
    for byte in b"PROXY TCP4 203.0.113.7 10.0.0.1 12345 80\r\n" {
        client.send([*byte]).await;
    }
    assert_eq!(client.get("/").await.status, 200);
    assert_eq!(origin.last_request().field("x-real-ip"), Some("203.0.113.7"));
}

#[tokio::test]
async fn bad_headers_and_strangers_are_dropped_without_an_answer() {
    let origin = Origin::start().await;
    let proxy = listening(&origin).await;
    let good = b"PROXY TCP4 203.0.113.7 10.0.0.1 12345 80\r\n";
    let table = [
        ("no header", Vec::new()),
        ("no address", b"PROXY TCP4 nowhere 10.0.0.1 1 2\r\n".to_vec()),
        (
            "a port too large",
            b"PROXY TCP4 203.0.113.7 10.0.0.1 65536 80\r\n".to_vec(),
        ),
        ("no end", [&b"PROXY "[..], &[b'a'; 200]].concat()),
        ("bare LF", b"PROXY TCP4 203.0.113.7 10.0.0.1 12345 80\n".to_vec()),
        ("version 3", {
            let mut header = version_2(1, 0x11, &[0; 12]);
            header[12] = 0x31;
            header
        }),
        ("addresses too short", version_2(1, 0x11, &[0; 4])),
        ("an unknown command", version_2(5, 0x11, &[0; 12])),
    ];
    for (name, header) in table {
        let mut client = proxy.client().await;
        client
            .try_send([&header[..], REQUEST.as_bytes()].concat())
            .await
            .unwrap();
        let answer = client.read_to_end().await;
        assert!(answer.is_empty(), "{name}: {}", String::from_utf8_lossy(&answer));
    }
    let mut stranger = Client::connect_from([127, 0, 0, 2], proxy.address()).await;
    stranger.send([&good[..], REQUEST.as_bytes()].concat()).await;
    // Whether a stranger is shut out or served, its word must not count: the header is no request, and no address either.
    let answer = String::from_utf8_lossy(&stranger.read_to_end().await).into_owned();
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(origin.request_count(), 0);
}
