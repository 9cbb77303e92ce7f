//! What is sent again, and what is not.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::upstream;
use crate::support::client::{Client, web_socket};
use crate::support::inside::Inside;
use crate::support::origin::{Gate, Origin, Refusing, Reply, Step};
use crate::support::within;

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Field: value\r\n\r\n";

/// Retries without a pause that are never too many.
const EAGER: &str = "retry: { delay: 0s, budget: 100% }";

async fn before(origins: &[&Origin], keys: &str) -> Inside {
    Inside::start(&upstream(origins.iter().copied(), keys, ""), Default::default()).await
}

#[tokio::test]
async fn a_reset_at_any_byte_of_the_head_costs_no_get() {
    let cut_at = |at: usize| Reply::script([Step::Write(HEAD[..at].into()), Step::Reset]);
    let mut origin = Origin::builder();
    for at in 0..HEAD.len() {
        origin = origin.on_each(&format!("/{at}"), [cut_at(at), Reply::ok("whole")]);
        origin = origin.on_each(
            &format!("/close/{at}"),
            [
                Reply::script([Step::Write(HEAD[..at].into()), Step::Close]),
                Reply::ok("whole"),
            ],
        );
        origin = origin.on_each(&format!("/post/{at}"), [cut_at(at), Reply::ok("twice")]);
    }
    let origin = origin.start().await;
    let proxy = before(&[&origin], &format!("{EAGER}\nkeepalive: 0")).await;
    let mut client = proxy.client().await;
    for at in 0..HEAD.len() {
        for path in [format!("/{at}"), format!("/close/{at}")] {
            let response = client.get(&path).await;
            assert_eq!((response.status, response.text()), (200, "whole"), "{path}");
        }
        let response = client.request("POST", &format!("/post/{at}"), &[], b"x").await;
        assert_eq!(response.status, 502, "a POST may have been worked on");
    }
    let retries = proxy.metric("forebay_retries_total", &[("upstream", "app")]).await;
    assert_eq!(retries, 2.0 * HEAD.len() as f64);
    let resets = proxy
        .metric("forebay_upstream_requests_total", &[("outcome", "reset")])
        .await;
    let cut = proxy
        .metric("forebay_upstream_requests_total", &[("outcome", "incomplete")])
        .await;
    assert_eq!(resets + cut, 3.0 * HEAD.len() as f64, "each attempt is counted once");
}

#[tokio::test]
async fn behind_the_head_nothing_is_sent_again_and_the_client_sees_that_it_is_not_whole() {
    let origin = Origin::builder()
        .on_each(
            "/a",
            [
                Reply::script([Step::Write(format!("{HEAD}ha").into()), Step::Reset]),
                Reply::ok("again"),
            ],
        )
        .on("/short", Reply::ok("short").declared_length(100).close())
        .start()
        .await;
    let proxy = before(&[&origin], EAGER).await;
    for path in ["/a", "/short"] {
        let mut client = proxy.client().await;
        client.send_request("GET", path, &[], b"").await;
        assert!(client.try_response().await.is_err(), "{path}");
    }
    assert_eq!(origin.request_count(), 2);
}

#[tokio::test]
async fn a_server_that_does_not_answer_costs_one_first_byte_timeout() {
    let silent = Origin::builder()
        .otherwise(Reply::ok("late").hold(&Gate::new()))
        .start()
        .await;
    let well = Origin::start().await;
    let keys = "timeouts: { first_byte: 300ms }\nretry: { delay: 10ms }";
    let proxy = before(&[&silent, &well], keys).await;
    let mut client = proxy.client().await;
    for _ in 0..4 {
        let began = Instant::now();
        let response = client.get("/").await;
        assert_eq!((response.status, response.text()), (200, "hello"));
        assert!(began.elapsed() < Duration::from_secs(2));
    }
    assert_eq!(silent.request_count(), 2, "each went on to the other one");
    let posts = [
        client.request("POST", "/", &[], b"").await.status,
        client.request("POST", "/", &[], b"").await.status,
    ];
    assert!(posts == [504, 200] || posts == [200, 504], "{posts:?}");
}

#[tokio::test]
async fn all_attempts_together_have_an_end() {
    let silent = Origin::builder()
        .otherwise(Reply::ok("late").hold(&Gate::new()))
        .start()
        .await;
    let keys = "timeouts: { first_byte: 200ms }\nretry: { retries: 10, delay: 0s, max_time: 500ms, budget: 100% }";
    let proxy = before(&[&silent], keys).await;
    let began = Instant::now();
    assert_eq!(proxy.get("/").await.status, 504);
    assert!(began.elapsed() >= Duration::from_millis(490), "{:?}", began.elapsed());
    assert_eq!(silent.request_count(), 3, "two whole ones, and one in what was left");
}

#[tokio::test]
async fn listed_statuses_are_tried_again_and_the_last_one_is_the_answer() {
    let answers = |status: u16, count: usize| {
        let failing = (0..count).map(move |_| Reply::status(status).body("no"));
        failing.chain([Reply::ok("yes")]).collect::<Vec<_>>()
    };
    let origin = Origin::builder()
        .on_each("/once", answers(503, 1))
        .on_each("/thrice", answers(502, 3))
        .on_each("/often", answers(504, 4))
        .on_each("/500", answers(500, 1))
        .on_each("/post", answers(503, 1))
        .start()
        .await;
    let proxy = before(&[&origin], EAGER).await;
    let mut client = proxy.client().await;
    for (path, status, body) in [
        ("/once", 200, "yes"),
        ("/thrice", 200, "yes"),
        ("/often", 504, "no"),
        ("/500", 500, "no"),
    ] {
        let response = client.get(path).await;
        assert_eq!((response.status, response.text()), (status, body), "{path}");
    }
    assert_eq!(client.request("POST", "/post", &[], b"").await.status, 503);
    assert_eq!(
        origin.connection_count(),
        1,
        "responses that nobody gets do not cost their connections"
    );
}

#[tokio::test]
async fn another_server_is_asked_if_there_is_one() {
    let failing = Origin::builder().otherwise(Reply::status(503)).start().await;
    let well = Origin::start().await;
    let proxy = before(&[&failing, &well], EAGER).await;
    let mut client = proxy.client().await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await.text(), "hello");
    }
    assert_eq!((failing.request_count(), well.request_count()), (5, 10));
}

#[tokio::test]
async fn retry_after_is_honoured() {
    let busy = |seconds: &str| [Reply::status(503).field("Retry-After", seconds), Reply::ok("now")];
    let origin = Origin::builder()
        .on_each("/soon", busy("1"))
        .on_each("/late", busy("3"))
        .start()
        .await;
    let proxy = before(&[&origin], EAGER).await;
    let began = Instant::now();
    assert_eq!(proxy.get("/soon").await.text(), "now");
    assert!(began.elapsed() >= Duration::from_secs(1));
    let late = proxy.get("/late").await;
    assert_eq!((late.status, late.field("retry-after")), (503, Some("3")));
}

#[tokio::test]
async fn bodies_are_sent_again_while_they_are_held() {
    let broken = || Reply::script([Step::Reset]);
    let origin = Origin::builder()
        .on_each("/small", [broken(), Reply::ok("taken")])
        .on_each("/chunked", [broken(), Reply::ok("taken")])
        .on_each("/large", [broken(), Reply::ok("taken")])
        .start()
        .await;
    let proxy = before(&[&origin], EAGER).await;
    let small: Vec<u8> = (0..40_000_u32).map(|n| n as u8).collect();
    assert_eq!(proxy.request("PUT", "/small", &[], &small).await.text(), "taken");
    assert_eq!(origin.ended_request(1).await.body, small);

    let mut client = proxy.client().await;
    client
        .send(b"PUT /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\nX-Sum: 7\r\n\r\n")
        .await;
    assert_eq!(client.response().await.text(), "taken");
    let again = origin.ended_request(3).await;
    assert_eq!(again.body, b"onetwo");
    assert_eq!(again.trailers, [("X-Sum".to_owned(), "7".to_owned())]);

    let large = vec![7; 70_000];
    assert_eq!(proxy.request("PUT", "/large", &[], &large).await.status, 502);
    assert_eq!(origin.request_count(), 5);
}

#[tokio::test]
async fn retries_are_a_share_of_the_requests() {
    let origin = Origin::builder().otherwise(Reply::status(503)).start().await;
    let proxy = before(&[&origin], "retry: { delay: 0s }").await;
    let mut client = proxy.client().await;
    for _ in 0..200 {
        assert_eq!(client.get("/").await.status, 503);
    }
    let retries = proxy.metric("forebay_retries_total", &[]).await;
    assert!((30.0..=45.0).contains(&retries), "{retries}");
    assert_eq!(origin.request_count() as f64, 200.0 + retries);
}

#[tokio::test]
async fn web_socket_handshakes_are_tried_again() {
    let failing = Origin::builder().otherwise(Reply::status(503)).start().await;
    let echo = Origin::builder().otherwise(Reply::web_socket_echo()).start().await;
    let proxy = before(&[&failing, &echo], EAGER).await;
    for _ in 0..4 {
        let mut socket = web_socket(proxy.address(), "/").await.unwrap();
        socket.send("hello").await;
        assert_eq!(socket.text().await, "hello");
    }
}

#[tokio::test]
async fn connecting_to_another_server_needs_no_configuration_and_to_the_same_one_it_does() {
    let (refusing, well) = (Refusing::new(), Origin::start().await);
    let servers = |first: &str, second: &str| format!("servers: [\"{first}\", \"{second}\"]");
    let config =
        |servers: &str, keys: &str| format!("listen: 127.0.0.1:0\nupstreams:\n  app:\n    {servers}\n    {keys}\n");
    let both = config(&servers(&refusing.server(), &well.server()), "");
    let proxy = Inside::start(&both, Default::default()).await;
    let mut client = proxy.client().await;
    for _ in 0..6 {
        assert_eq!(client.request("POST", "/", &[], b"x").await.text(), "hello");
    }
    assert_eq!(proxy.metric("forebay_retries_total", &[]).await, 3.0);

    let only = format!("servers: [\"{}\"]", refusing.server());
    for (keys, attempts) in [("", 1.0), ("retry: { delay: 1ms }", 4.0)] {
        let proxy = Inside::start(&config(&only, keys), Default::default()).await;
        assert_eq!(proxy.request("POST", "/", &[], b"x").await.status, 502);
        let outcome = [("outcome", "connect_error")];
        assert_eq!(
            proxy.metric("forebay_upstream_requests_total", &outcome).await,
            attempts
        );
    }
}

/// Says goodbye (GOAWAY) to every HTTP/2 connection, having processed nothing of it, as soon as a request is there.
async fn goodbye() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                // SETTINGS, and later GOAWAY with last stream 0 and NO_ERROR (RFC 9113 §6.5, §6.8).
                stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
                let mut seen = Vec::new();
                // A HEADERS frame (type 1) comes behind the preface, its settings and window update.
                while !has_headers(&seen) {
                    if stream.read_buf(&mut seen).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                let _ = stream.write_all(&goaway).await;
                let _ = stream.read_to_end(&mut seen).await;
            });
        }
    });
    address
}

fn has_headers(seen: &[u8]) -> bool {
    let mut rest = seen.get(24..).unwrap_or_default();
    while let [a, b, c, kind, ..] = rest {
        if *kind == 1 {
            return true;
        }
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        rest = rest.get(9 + length..).unwrap_or_default();
    }
    false
}

/// Refuses every stream.
async fn refusing_streams() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    respond.send_reset(h2::Reason::REFUSED_STREAM);
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn what_an_http2_server_has_not_taken_goes_elsewhere_whatever_it_is() {
    let well = Origin::builder().http2().otherwise(Reply::ok("taken")).start().await;
    for (name, address) in [("goodbye", goodbye().await), ("refused", refusing_streams().await)] {
        let config = format!(
            "listen: 127.0.0.1:0\nupstreams:\n  app:\n    servers: [\"{address}\", \"{}\"]\n    http2: true\n",
            well.server()
        );
        let proxy = Inside::start(&config, Default::default()).await;
        let mut client = proxy.client().await;
        for turn in 0..6 {
            let response = client.request("POST", "/", &[], b"some body").await;
            assert_eq!((response.status, response.text()), (200, "taken"), "{name} {turn}");
            assert_eq!(well.last_request().body, b"some body");
        }
    }
}

#[tokio::test]
async fn a_put_survives_the_end_of_an_idle_connection() {
    let origin = Origin::builder()
        .on_each(
            "/a",
            [Reply::ok("first"), Reply::script([Step::Reset]), Reply::ok("second")],
        )
        .start()
        .await;
    let proxy = before(&[&origin], "").await;
    let mut client = proxy.client().await;
    assert_eq!(client.get("/a").await.text(), "first");
    assert_eq!(client.request("PUT", "/a", &[], b"body").await.text(), "second");
    assert_eq!(origin.last_request().body, b"body");
    assert_eq!(
        proxy
            .metric("forebay_upstream_requests_total", &[("outcome", "reset")])
            .await,
        0.0
    );
}

#[tokio::test]
async fn a_fetch_for_many_is_tried_again_once_for_all() {
    let gate = Gate::new();
    let origin = Origin::builder()
        .on_each("/a", [Reply::status(503).hold(&gate), Reply::fresh(60, "stored")])
        .start()
        .await;
    let proxy = before(&[&origin], EAGER).await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut client = proxy.client().await;
        client.send_request("GET", "/a", &[], b"").await;
        clients.push(client);
    }
    proxy.in_flight(10).await;
    gate.reached(1).await;
    gate.release();
    for client in &mut clients {
        assert_eq!(client.response().await.text(), "stored");
    }
    assert_eq!(origin.request_count(), 2);
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_attempts() {
    let origin = Origin::builder().otherwise(Reply::status(503)).start().await;
    let proxy = before(&[&origin], "retry: { delay: 1m, max_delay: 1m, max_time: 1h }").await;
    let mut client: Client = proxy.client().await;
    client.send_request("GET", "/", &[], b"").await;
    proxy.metric_becomes("forebay_retries_total", &[], 1.0).await;
    drop(client);
    within("the end of the request", proxy.in_flight(0)).await;
    assert_eq!(origin.request_count(), 1);
}
