//! The support code against itself: a test that trusts it must not be wrong because of it.

use bytes::Bytes;
use tokio_tungstenite::tungstenite::Message;

use super::certificate::Certificate;
use super::client::{Client, EventSource, Http2Client, Item, curl, http2_request, web_socket};
use super::origin::{Gate, Origin, Reply, RequestState, Step, Stream};
use super::redis::Redis;

fn address(origin: &Origin) -> std::net::SocketAddr {
    origin.server().parse().unwrap()
}

#[tokio::test]
async fn origin_answers_every_kind_of_body_and_remembers_what_came() {
    let origin = Origin::builder()
        .on("/sized", Reply::fresh(60, "sized"))
        .on("/chunked", Reply::chunked(["chu", "nked"]).trailer("X-Sum", "7"))
        .on("/twice", Reply::ok("later"))
        .on_each("/twice", [Reply::status(503), Reply::ok("then")])
        .on("/early", Reply::ok("final").interim(103, &[("Link", "</a>")]))
        .on("/close", Reply::until_close("to the end"))
        .start()
        .await;
    let mut client = Client::connect(address(&origin)).await;
    let sized = client.get("/sized?x=1").await;
    assert_eq!(
        (sized.status, sized.text(), sized.field("cache-control")),
        (200, "sized", Some("max-age=60"))
    );
    let chunked = client.get("/chunked").await;
    assert_eq!(
        (chunked.text(), &chunked.trailers[..]),
        ("chunked", &[("X-Sum".to_owned(), "7".to_owned())][..])
    );
    assert_eq!(client.request("HEAD", "/chunked", &[], b"").await.status, 200);
    assert_eq!(client.get("/twice").await.status, 503);
    assert_eq!(client.get("/twice").await.text(), "then");
    assert_eq!(client.get("/twice").await.text(), "then");
    let early = client.get("/early").await;
    assert_eq!((early.interim[0].0, early.text()), (103, "final"));
    client.request("POST", "/sized", &[("X-A", "b")], b"12345").await;
    client
        .send("PUT /sized HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nT: v\r\n\r\n")
        .await;
    client.response().await;
    assert_eq!(client.get("/close").await.text(), "to the end");
    client.closed().await;
    drop(client);

    let requests = origin.requests();
    assert_eq!(origin.connection_count(), 1);
    assert_eq!(requests[0].target, "/sized?x=1");
    assert_eq!(
        (requests[7].method.as_str(), requests[7].field("x-a")),
        ("POST", Some("b"))
    );
    assert_eq!((&requests[7].body[..], requests[7].body_length), (&b"12345"[..], 5));
    assert_eq!(
        (&requests[8].body[..], requests[8].state),
        (&b"abc"[..], RequestState::Complete)
    );
    assert_eq!(requests[8].trailers, [("T".to_owned(), "v".to_owned())]);
    let raw = origin.connection(0).raw;
    assert!(raw.starts_with(b"GET /sized?x=1 HTTP/1.1\r\nHost: test\r\n\r\nGET /chunked"));
    origin.closed(0).await;
}

#[tokio::test]
async fn origin_holds_resets_and_sees_clients_leave() {
    let gate = Gate::new();
    let held = Gate::new();
    let origin = Origin::builder()
        .on("/held", Reply::ok("released").hold(&gate))
        .on(
            "/reset",
            Reply::script([Step::Write(Bytes::from_static(b"HTTP/1.1 200 OK\r\n")), Step::Reset]),
        )
        .on("/lie", Reply::ok("short").declared_length(9).close())
        .on("/unread", Reply::ok("").unread(&held))
        .start()
        .await;
    let mut client = Client::connect(address(&origin)).await;
    client.send_request("GET", "/held", &[], b"").await;
    gate.reached(1).await;
    drop(client);
    origin.closed(0).await;
    gate.release();

    let mut client = Client::connect(address(&origin)).await;
    client.send_request("GET", "/reset", &[], b"").await;
    let error = client.try_response().await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);

    let mut client = Client::connect(address(&origin)).await;
    client.send_request("GET", "/lie", &[], b"").await;
    let error = client.try_response().await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);

    let mut client = Client::connect(address(&origin)).await;
    client.send_request("POST", "/unread", &[], b"body").await;
    held.reached(1).await;
    assert_eq!(origin.last_request().body_length, 0);
    held.release();
    client.response().await;
    assert_eq!(origin.ended_request(3).await.body_length, 4);
}

#[tokio::test]
#[should_panic(expected = "the origin panicked")]
async fn origin_panics_fail_the_test() {
    let origin = Origin::builder()
        .on("/", Reply::chunked(["a"]).field("X", "b"))
        .start()
        .await;
    origin.on("/", Reply::status(1000));
    let http2 = Origin::builder().http2().on("/", Reply::status(1000)).start().await;
    let mut client = Http2Client::connect(address(&http2)).await;
    let _ = client.request(http2_request("GET", "/", &[]), b"").await;
}

#[tokio::test]
async fn events_come_one_by_one() {
    let stream = Stream::new();
    let origin = Origin::builder().on("/events", Reply::events(&stream)).start().await;
    let mut source = EventSource::open(address(&origin), "/events").await;
    stream.opened(1).await;
    stream.send("id: 7\nevent: tick\nda");
    stream.send("ta: one\ndata: two\n\n: still here\n\n");
    match source.next().await {
        Some(Item::Event(event)) => {
            assert_eq!(
                (event.id.as_str(), event.name.as_str(), event.data.as_str()),
                ("7", "tick", "one\ntwo")
            );
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(source.next().await, Some(Item::Comment("still here".to_owned())));
    stream.finish();
    assert_eq!(source.next().await, None);
}

#[tokio::test]
async fn web_sockets_echo() {
    let origin = Origin::builder().on("/ws", Reply::web_socket_echo()).start().await;
    let mut socket = web_socket(address(&origin), "/ws").await.unwrap();
    socket.send("hello").await;
    assert_eq!(socket.next().await, Some(Message::text("hello")));
    socket.close().await;
    assert!(web_socket(address(&origin), "/else").await.is_err());
}

#[tokio::test]
async fn tls_http2_and_unix_sockets_work() {
    let certificate = Certificate::for_names(&["test"]);
    let secure = Origin::builder().tls(&certificate).start().await;
    let mut client = Client::connect_tls(address(&secure), "test", &certificate).await;
    assert_eq!(client.get("/").await.text(), "hello");
    assert_eq!(secure.connection(0).server_name.as_deref(), Some("test"));

    let http2 = Origin::builder()
        .http2()
        .tls(&certificate)
        .on(
            "/t",
            Reply::chunked(["a", "b"])
                .trailer("x-sum", "2")
                .interim(103, &[("link", "</a>")]),
        )
        .start()
        .await;
    let mut client = Http2Client::connect_tls(address(&http2), "test", &certificate).await;
    let response = client
        .request(http2_request("POST", "/t", &[("x-a", "b")]), b"body")
        .await
        .unwrap();
    assert_eq!((response.status, response.text()), (200, "ab"));
    assert_eq!(response.trailers, [("x-sum".to_owned(), "2".to_owned())]);
    assert_eq!(response.interim[0].0, 103);
    let request = http2.only_request();
    assert_eq!((request.field("host"), request.field("x-a")), (Some("test"), Some("b")));
    assert_eq!(
        (&request.body[..], request.state),
        (&b"body"[..], RequestState::Complete)
    );

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("origin.sock");
    let local = Origin::builder().unix(&path).start().await;
    assert_eq!(Client::connect_unix(&path).await.get("/").await.text(), "hello");
    assert_eq!(local.request_count(), 1);
}

#[tokio::test]
async fn curl_runs() {
    let origin = Origin::builder()
        .on("/", Reply::ok("curled").field("X-A", "b"))
        .start()
        .await;
    let result = curl(&[&format!("http://{}/", origin.server())]).await;
    assert_eq!(
        (result.exit, result.status, result.text()),
        (0, 200, "curled"),
        "{}",
        result.stderr
    );
    assert_eq!((result.version.as_str(), result.field("x-a")), ("1.1", Some("b")));
}

#[tokio::test]
async fn redis_stops_and_comes_back_on_its_port() {
    let mut redis = Redis::start().await;
    assert_eq!(redis.command(&["SET", "a", "b"]).await, "OK");
    let port = redis.port();
    redis.pause();
    redis.resume();
    assert_eq!(redis.command(&["GET", "a"]).await, "b");
    redis.kill().await;
    redis.restart().await;
    assert_eq!(redis.port(), port);
    assert_eq!(redis.command(&["GET", "a"]).await, "");
    assert!(redis.url().ends_with(&format!(":{port}/0")));
}
