//! Connections to servers: shared, told of their client, and closed under our hands.

use forebay::clock::Clock;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::yaml;
use crate::support::certificate::Certificate;
use crate::support::inside::Inside;
use crate::support::origin::{Gate, Origin, Reply};

#[tokio::test]
async fn requests_that_come_while_a_connection_is_opened_share_it() {
    let gate = Gate::new();
    let origin = Origin::builder()
        .http2()
        .otherwise(Reply::ok("here").hold(&gate))
        .start()
        .await;
    let keys = format!("servers: [\"{}\"], http2: true", origin.server());
    let proxy = Inside::start(&yaml(&keys, "routes: [{ cache: false }]\n"), Clock::new()).await;
    let mut clients = Vec::new();
    for number in 0..30 {
        let mut client = proxy.client().await;
        client.send_request("GET", &format!("/{number}"), &[], b"").await;
        clients.push(client);
    }
    gate.reached(30).await;
    assert_eq!(origin.connection_count(), 1);
    gate.release();
    for client in &mut clients {
        assert_eq!(client.response().await.text(), "here");
    }
}

#[tokio::test]
async fn a_connection_that_cannot_be_opened_fails_all_who_wait() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let keys = format!("servers: [\"{address}\"], http2: true");
    let proxy = Inside::start(&yaml(&keys, ""), Clock::new()).await;
    for _ in 0..3 {
        let response = proxy.get("/").await;
        assert_eq!(response.status, 502);
        assert!(response.field("proxy-status").unwrap().contains("connection_refused"));
    }
}

#[tokio::test]
async fn servers_that_ask_for_a_certificate_are_shown_ours() {
    let [server, ours, strange] =
        ["app.internal", "forebay.internal", "stranger.internal"].map(|name| Certificate::for_names(&[name]));
    let directory = tempfile::tempdir().unwrap();
    let (ca, _) = server.write(directory.path(), "server");
    for is_http2 in [false, true] {
        let builder = match is_http2 {
            false => Origin::builder(),
            true => Origin::builder().http2(),
        };
        let origin = builder
            .otherwise(Reply::ok("welcome").field("Cache-Control", "no-store"))
            .tls_for_clients_of(&server, &ours)
            .start()
            .await;
        for (shown, status) in [(Some(&ours), 200), (Some(&strange), 502), (None, 502)] {
            let certificate = match shown {
                None => String::new(),
                Some(certificate) => {
                    let (cert, key) = certificate.write(directory.path(), "client");
                    format!(", certificate: {{ cert: {}, key: {} }}", cert.display(), key.display())
                }
            };
            let keys = format!(
                "servers: [\"{}\"], http2: {is_http2}, tls: {{ server_name: app.internal, ca: {}{certificate} }}",
                origin.server(),
                ca.display()
            );
            let proxy = Inside::start(&yaml(&keys, ""), Clock::new()).await;
            let response = proxy.get("/").await;
            assert_eq!(response.status, status, "HTTP/2: {is_http2}, {}", response.text());
        }
        assert_eq!(origin.request_count(), 1);
    }
}

#[tokio::test]
async fn servers_are_told_the_client_by_the_proxy_protocol() {
    // The header comes first, so the origin cannot read a request: what counts is what it was sent.
    for (version, begins) in [
        ("v1", &b"PROXY TCP4 127.0.0.1 127.0.0.1 0 "[..]),
        ("v2", &b"\r\n\r\n\0\r\nQUIT\n\x21\x11"[..]),
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let keys = format!(
            "servers: [\"{}\"], proxy_protocol: {version}",
            listener.local_addr().unwrap()
        );
        let proxy = Inside::start(&yaml(&keys, ""), Clock::new()).await;
        for _ in 0..2 {
            let mut client = proxy.client().await;
            client.send_request("GET", "/", &[], b"").await;
            let (mut stream, _) = crate::support::within("a connection of its own", listener.accept())
                .await
                .unwrap();
            let mut head = Vec::new();
            while !head.windows(14).any(|bytes| bytes == b"GET / HTTP/1.1") {
                assert!(stream.read_buf(&mut head).await.unwrap() > 0);
            }
            assert!(head.starts_with(begins), "{head:?}");
            let response = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nCache-Control: no-store\r\n\r\nok";
            stream.write_all(response).await.unwrap();
            assert_eq!(client.response().await.text(), "ok");
        }
    }
}

#[tokio::test]
async fn an_app_that_closes_idle_connections_costs_no_client_an_error() {
    // Every response may be the last of its connection, which nobody says beforehand.
    let origin = Origin::builder()
        .otherwise(Reply::ok("here").field("Cache-Control", "no-store").close())
        .start()
        .await;
    let keys = format!("servers: [\"{}\"]", origin.server());
    let proxy = Inside::start(&yaml(&keys, ""), Clock::new()).await;
    let mut client = proxy.client().await;
    for round in 0..300 {
        let response = client.get("/").await;
        assert_eq!((response.status, response.text()), (200, "here"), "round {round}");
    }
}
