//! Deadlines that are not configured, so that a test has to wait for them: all in one test, which waits for them side by side.

use std::time::{Duration, Instant};

use crate::support::client::{Client, EventSource};
use crate::support::origin::{Origin, Reply, Stream};
use crate::support::proxy::Proxy;
use crate::support::within_time;

const MIB: usize = 1024 * 1024;

/// From a request's first byte to the end of its head.
const HEAD: Duration = Duration::from_secs(10);

/// Between two reads of a request body, and between two writes of a response that made progress.
const IDLE: Duration = Duration::from_secs(30);

/// How late a deadline may come.
const LATE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn who_stands_still_is_let_go() {
    tokio::join!(
        a_head_that_trickles_is_answered_408(),
        a_body_that_stands_still_is_answered_408(),
        a_reader_that_does_not_read_is_dropped_in_bounded_memory(),
    );
}

async fn a_head_that_trickles_is_answered_408() {
    let origin = Origin::start().await;
    let proxy = Proxy::before(&origin, "").await;
    let mut client = proxy.client().await;
    let begin = Instant::now();
    client.send("GET / HTTP/1.1\r\nHost: test\r\nX: ").await;
    // A byte now and then: a deadline for each read alone would never come.
    let mut ticks = tokio::time::interval(Duration::from_millis(500));
    while begin.elapsed() < HEAD + Duration::from_millis(500) {
        ticks.tick().await;
        if client.try_send("a").await.is_err() {
            break;
        }
    }
    let response = client.response().await;
    assert_eq!((response.status, response.field("connection")), (408, Some("close")));
    assert_eq!(origin.request_count(), 0);
}

async fn a_body_that_stands_still_is_answered_408() {
    let origin = Origin::start().await;
    let proxy = Proxy::before(&origin, "").await;
    let mut client = proxy.client().await;
    client
        .send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhello")
        .await;
    let stalled = origin
        .request_where(0, "the beginning", |request| request.body_length == 5)
        .await;
    let response = client.response_within(IDLE + LATE).await;
    assert_eq!((response.status, response.field("connection")), (408, Some("close")));
    origin.closed(stalled.connection).await;
}

async fn a_reader_that_does_not_read_is_dropped_in_bounded_memory() {
    let stream = Stream::new();
    let origin = Origin::builder().on("/s", Reply::events(&stream)).start().await;
    let proxy = Proxy::before(&origin, "").await;
    let mut reading = EventSource::open(proxy.address(), "/s").await;
    let before = proxy.resident();
    let mut stuck = Client::connect_narrow(proxy.address()).await;
    stuck.send_request("GET", "/s", &[], b"").await;
    stream.opened(2).await;
    let large = format!("data: {}\n\n", "x".repeat(MIB));
    for _ in 0..64 {
        stream.send(large.clone());
        assert_eq!(reading.data().await.len(), MIB, "others are not held up");
    }
    let held = proxy.resident().saturating_sub(before);
    assert!(
        held < 16 * MIB as u64,
        "{held} bytes are held for a reader that does not read"
    );
    let dropped = origin.until_closed(1);
    within_time(IDLE + LATE, "the end of a stream that is not read", dropped).await;
    stream.send("data: still\n\n");
    assert_eq!(reading.data().await, "still");
}
