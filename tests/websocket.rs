//! WebSockets, and everything that only looks like one.

use tokio_tungstenite::tungstenite::Message;

use crate::support::client::web_socket;
use crate::support::origin::{Gate, Origin, Reply, Step};
use crate::support::proxy::Proxy;

const HANDSHAKE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

#[tokio::test]
async fn messages_pass_both_ways() {
    let origin = Origin::builder().on("/ws", Reply::web_socket_echo()).start().await;
    let proxy = Proxy::before(&origin, "").await;
    let mut socket = web_socket(proxy.address(), "/ws?room=1").await.unwrap();
    for text in ["hello", "", "wave \u{1F30A}"] {
        socket.send(text).await;
        assert_eq!(socket.text().await, text);
    }
    let large = vec![7; 1024 * 1024];
    socket.send(large.clone()).await;
    assert_eq!(socket.next().await, Some(Message::binary(large)));
    socket.close().await;
    origin.closed(0).await;
    let request = origin.only_request();
    assert_eq!(request.target, "/ws?room=1");
    assert_eq!(
        (request.field("upgrade"), request.field("sec-websocket-version")),
        (Some("websocket"), Some("13"))
    );
    assert!(request.field("via").is_some() && request.field("x-forwarded-for").is_some());
    proxy.log_entry(|entry| entry["status"] == 101).await;
}

#[tokio::test]
async fn a_handshake_that_is_refused_is_an_ordinary_answer() {
    let origin = Origin::builder()
        .on("/ws", Reply::status(403).body("not you"))
        .start()
        .await;
    let proxy = Proxy::before(&origin, "").await;
    let mut client = proxy.client().await;
    client
        .send(format!("GET /ws HTTP/1.1\r\nHost: test\r\n{HANDSHAKE}\r\n"))
        .await;
    let response = client.response().await;
    assert_eq!((response.status, response.text()), (403, "not you"));
}

#[tokio::test]
async fn nothing_raw_goes_up_before_the_switch() {
    let gate = Gate::new();
    let origin = Origin::builder()
        .on(
            "/ws",
            Reply::script([Step::Hold(gate.clone()), Step::Write(SWITCHED.into()), Step::Echo]),
        )
        .on_each("/refused", [Reply::status(400).body("no")])
        .start()
        .await;
    let proxy = Proxy::before(&origin, "").await;
    let mut client = proxy.client().await;
    client
        .send(format!("GET /ws HTTP/1.1\r\nHost: test\r\n{HANDSHAKE}\r\nraw bytes"))
        .await;
    gate.reached(1).await;
    // A request of somebody else's, so that there was time enough.
    assert_eq!(proxy.get("/else").await.status, 200);
    let raw = String::from_utf8(origin.connection(0).raw).unwrap();
    assert!(raw.ends_with("\r\n\r\n") && !raw.contains("raw bytes"), "{raw}");
    gate.release();
    let switched = client.response_head().await;
    assert_eq!((switched.status, switched.field("upgrade")), (101, Some("websocket")));
    assert_eq!(client.bytes(9).await, b"raw bytes");

    // Without the switch the bytes behind the head are a request, which the door looks at.
    let mut client = proxy.client().await;
    let smuggled = "GET /smuggled HTTP/1.1\nHost: test\n\n";
    client
        .send(format!(
            "GET /refused HTTP/1.1\r\nHost: test\r\n{HANDSHAKE}\r\n{smuggled}"
        ))
        .await;
    assert_eq!(client.response().await.status, 400);
    let rest = String::from_utf8(client.read_to_end().await).unwrap();
    assert!(rest.starts_with("HTTP/1.1 400 "), "{rest}");
    assert!(origin.requests().iter().all(|request| request.target != "/smuggled"));
}

#[tokio::test]
async fn other_upgrades_are_dropped_and_the_request_is_served() {
    let origin = Origin::start().await;
    let proxy = Proxy::before(&origin, "").await;
    let table = [
        (
            "h2c",
            "GET",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
            "",
        ),
        ("a POST", "POST", HANDSHAKE, ""),
        (
            "with a body",
            "GET",
            &format!("{HANDSHAKE}Content-Length: 4\r\n"),
            "body",
        ),
        (
            "with chunks",
            "GET",
            &format!("{HANDSHAKE}Transfer-Encoding: chunked\r\n"),
            "0\r\n\r\n",
        ),
        (
            "a choice",
            "GET",
            "Connection: Upgrade\r\nUpgrade: h2c, websocket\r\n",
            "",
        ),
        ("not in Connection", "GET", "Upgrade: websocket\r\n", ""),
        ("TLS", "GET", "Connection: Upgrade\r\nUpgrade: TLS/1.2\r\n", ""),
    ];
    for (name, method, fields, body) in table {
        let mut client = proxy.client().await;
        client
            .send(format!("{method} / HTTP/1.1\r\nHost: test\r\n{fields}\r\n{body}"))
            .await;
        let response = client.response().await;
        assert_eq!((response.status, response.text()), (200, "hello"), "{name}");
        let request = origin.last_request();
        assert_eq!(
            (request.field("upgrade"), request.field("http2-settings")),
            (None, None),
            "{name}"
        );
        assert_eq!(
            client.get("/next").await.status,
            200,
            "{name}: the connection speaks HTTP still"
        );
    }
}

#[tokio::test]
async fn a_switch_that_nobody_asked_for_is_502() {
    let origin = Origin::builder()
        .on("/", Reply::script([Step::Write(SWITCHED.into()), Step::Echo]))
        .start()
        .await;
    let proxy = Proxy::before(&origin, "").await;
    let response = proxy.get("/").await;
    assert_eq!(response.status, 502, "{}", response.raw_head);
}

#[tokio::test]
async fn the_end_of_one_side_is_the_end_of_the_other() {
    let gate = Gate::new();
    let origin = Origin::builder()
        .on("/echo", Reply::web_socket_echo())
        .on(
            "/leaves",
            Reply::script([Step::Write(SWITCHED.into()), Step::Hold(gate.clone()), Step::Reset]),
        )
        .start()
        .await;
    let proxy = Proxy::before(&origin, "").await;
    let mut socket = web_socket(proxy.address(), "/echo").await.unwrap();
    socket.send("hello").await;
    assert_eq!(socket.text().await, "hello");
    drop(socket);
    origin.closed(0).await;

    let mut client = proxy.client().await;
    client
        .send(format!("GET /leaves HTTP/1.1\r\nHost: test\r\n{HANDSHAKE}\r\n"))
        .await;
    assert_eq!(client.response_head().await.status, 101);
    gate.release();
    client.closed().await;
}
