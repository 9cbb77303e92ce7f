//! Event streams: each chunk at once, nothing lost, nothing held.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::support::client::{Event, EventSource, Item};
use crate::support::origin::{Gate, Origin, Reply, Stream};
use crate::support::proxy::Proxy;
use crate::support::within_time;

fn event(data: &str) -> Item {
    Item::Event(Event {
        name: "message".to_owned(),
        data: data.to_owned(),
        id: String::new(),
    })
}

/// A route `events` with these limits, before a catch-all.
fn route(limits: &str) -> String {
    format!(
        "routes: [{{ name: events, match: {{ path_prefix: /events }}, upstream: default, stream: {{ {limits} }} }}]\n"
    )
}

#[tokio::test]
async fn each_event_arrives_before_the_next_is_sent() {
    let stream = Stream::new();
    let origin = Origin::builder()
        .on("/s", Reply::events(&stream).field("Cache-Control", "max-age=60"))
        .start()
        .await;
    let proxy = Proxy::before(&origin, "").await;
    // The response decides, so Accept is of no account: this client sends none.
    let mut client = proxy.client().await;
    client
        .send_request("GET", "/s", &[("Accept-Encoding", "gzip, br, zstd")], b"")
        .await;
    stream.opened(1).await;
    // The head goes before there is any event.
    let mut source = EventSource::after_request(client).await;
    assert_eq!(source.head.field("x-accel-buffering"), Some("no"));
    assert_eq!(source.head.field("content-encoding"), None);
    assert_eq!(source.head.field("content-length"), None);
    for count in 0..100 {
        stream.send(format!("data: {count}\n\n"));
        assert_eq!(source.data().await, count.to_string());
    }
    stream.send("event: done\r\nid: 9\r\ndata: a\r\ndata: b\r\n\r\n");
    let last = Event {
        name: "done".to_owned(),
        data: "a\nb".to_owned(),
        id: "9".to_owned(),
    };
    assert_eq!(source.next().await, Some(Item::Event(last)));
    stream.finish();
    assert_eq!(source.next().await, None);

    // Whatever it says of its freshness, a stream is not stored.
    let again = EventSource::open(proxy.address(), "/s").await;
    assert_eq!(origin.request_count(), 2);
    drop(again);
}

#[tokio::test]
async fn chunks_pass_as_they_are_wherever_they_are_cut() {
    let stream = Stream::new();
    let origin = Origin::builder().on("/s", Reply::events(&stream)).start().await;
    let proxy = Proxy::before(&origin, "").await;
    let mut client = proxy.client().await;
    client.send_request("GET", "/s", &[], b"").await;
    stream.opened(1).await;
    client.response_head().await;
    let large = "x".repeat(100_000);
    for piece in ["da", "ta: \u{1F30A}", "\r", "\n\r", "\n", ": comment\n\n", &large] {
        stream.send(piece.to_owned());
        let mut received = Vec::new();
        while received.len() < piece.len() {
            received.extend(client.chunk().await.unwrap());
        }
        assert_eq!(received, piece.as_bytes());
    }
    // Not at a character's border either.
    for byte in "\u{1F30A}".bytes() {
        stream.send(vec![byte]);
        assert_eq!(client.chunk().await.unwrap(), [byte]);
    }
}

#[tokio::test]
async fn accept_alone_makes_no_stream() {
    let origin = Origin::start().await;
    let proxy = Proxy::before(&origin, "").await;
    let response = proxy.request("GET", "/", &[("Accept", "text/event-stream")], b"").await;
    assert_eq!((response.status, response.field("x-accel-buffering")), (200, None));
    assert_eq!(response.field("content-length"), Some("5"));
}

#[tokio::test]
async fn a_route_makes_a_stream_of_any_type() {
    let stream = Stream::new();
    let origin = Origin::builder()
        .on(
            "/events/json",
            Reply::streamed(&stream).field("Content-Type", "application/x-ndjson"),
        )
        .start()
        .await;
    let proxy = Proxy::before(&origin, &route("first_event: 5s")).await;
    let mut client = proxy.client().await;
    client.send_request("POST", "/events/json", &[], b"{}").await;
    stream.opened(1).await;
    let head = client.response_head().await;
    assert_eq!(head.field("x-accel-buffering"), Some("no"));
    for line in ["{\"a\":1}\n", "{\"a\":2}\n"] {
        stream.send(line);
        assert_eq!(client.chunk().await.unwrap(), line.as_bytes());
    }
}

#[tokio::test]
async fn a_heartbeat_fills_silence_but_never_splits_an_event() {
    let quiet = Stream::new();
    let split = Stream::new();
    let plain = Stream::new();
    let origin = Origin::builder()
        .on("/events/quiet", Reply::events(&quiet))
        .on("/events/split", Reply::events(&split))
        .on("/plain", Reply::events(&plain))
        .start()
        .await;
    let proxy = Proxy::before(&origin, &route("heartbeat: 200ms")).await;
    let mut quiet_source = EventSource::open(proxy.address(), "/events/quiet").await;
    let mut split_source = EventSource::open(proxy.address(), "/events/split").await;
    let mut plain_source = EventSource::open(proxy.address(), "/plain").await;
    split.send("data: one\n\ndata: tw");
    assert_eq!(split_source.next_event().await, event("one"));
    // The quiet stream is the clock: four heartbeats of it are several of the others'.
    for _ in 0..4 {
        match quiet_source.next().await {
            Some(Item::Comment(_)) => {}
            other => panic!("no heartbeat: {other:?}"),
        }
    }
    split.send("o\n");
    split.send("data: more\n\n");
    assert_eq!(
        split_source.next().await,
        Some(event("two\nmore")),
        "a heartbeat stands inside of an event"
    );
    // Behind the event there may be heartbeats again.
    assert!(matches!(split_source.next().await, Some(Item::Comment(_))));
    quiet.send("data: spoken\n\n");
    assert_eq!(quiet_source.next_event().await, event("spoken"));
    plain.send("data: first\n\n");
    assert_eq!(
        plain_source.next().await,
        Some(event("first")),
        "a heartbeat that nobody configured"
    );
}

#[tokio::test]
async fn a_stream_that_does_not_begin_is_504() {
    let gate = Gate::new();
    let stream = Stream::new();
    let origin = Origin::builder()
        .on("/events", Reply::events(&stream).hold(&gate))
        .start()
        .await;
    let proxy = Proxy::before(&origin, &route("first_event: 200ms")).await;
    let response = proxy.get("/events").await;
    assert_eq!(response.status, 504);
    origin.closed(0).await;
}

#[tokio::test]
async fn a_stream_that_falls_silent_is_cut() {
    let stream = Stream::new();
    let origin = Origin::builder().on("/events", Reply::events(&stream)).start().await;
    let proxy = Proxy::before(&origin, &route("between_bytes: 300ms")).await;
    let mut source = EventSource::open(proxy.address(), "/events").await;
    for count in 0..3 {
        stream.send(format!("data: {count}\n\n"));
        assert_eq!(source.data().await, count.to_string());
    }
    assert!(source.try_next().await.is_err(), "a cut stream must not look finished");
    origin.closed(0).await;
}

#[tokio::test]
async fn a_stream_outlives_the_upstreams_usual_patience() {
    let stream = Stream::new();
    let gate = Gate::new();
    let origin = Origin::builder()
        .on("/stream", Reply::events(&stream))
        .on(
            "/held",
            Reply::script([
                crate::support::origin::Step::Write("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf".into()),
                crate::support::origin::Step::Hold(gate.clone()),
            ]),
        )
        .start()
        .await;
    let yaml = format!(
        "listen: 127.0.0.1:0\nupstreams: {{ default: {{ servers: [\"{}\"], timeouts: {{ between_bytes: 300ms }} }} }}\n",
        origin.server()
    );
    let proxy = Proxy::start(&yaml).await;
    let mut source = EventSource::open(proxy.address(), "/stream").await;
    stream.send("data: one\n\n");
    assert_eq!(source.data().await, "one");
    // The other response, begun later, is cut by that time: by then the stream has been silent for longer.
    let mut client = proxy.client().await;
    client.send_request("GET", "/held", &[], b"").await;
    assert!(client.try_response().await.is_err());
    stream.send("data: two\n\n");
    assert_eq!(source.data().await, "two");
}

#[tokio::test]
async fn a_client_that_leaves_closes_the_upstream_within_a_second() {
    let stream = Stream::new();
    let origin = Origin::builder().on("/s", Reply::events(&stream)).start().await;
    let proxy = Proxy::before(&origin, "").await;
    let mut source = EventSource::open(proxy.address(), "/s").await;
    stream.send("data: one\n\n");
    assert_eq!(source.data().await, "one");
    let labels = [("route", "default")];
    proxy.metric_becomes("forebay_streams_active", &labels, 1.0).await;
    drop(source);
    within_time(Duration::from_secs(1), "the upstream's end", origin.closed(0)).await;
    proxy.metric_becomes("forebay_streams_active", &labels, 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_streams_lose_nothing() {
    const STREAMS: usize = 2000;
    const ROUNDS: usize = 5;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert!(most as usize > 3 * STREAMS, "the hard limit of open files is {most}");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();

    let stream = Stream::new();
    let origin = Origin::builder().on("/s", Reply::events(&stream)).start().await;
    let proxy = Proxy::before(&origin, "").await;
    proxy.get("/warm").await;
    let before = proxy.resident();
    let opening = stream::iter(0..STREAMS).map(|_| EventSource::open(proxy.address(), "/s"));
    let mut sources: Vec<_> = opening.buffer_unordered(100).collect().await;
    stream.opened(STREAMS).await;
    for round in 0..ROUNDS {
        stream.send(format!("id: {round}\ndata: event {round}\n\n"));
        for source in &mut sources {
            assert_eq!(source.data().await, format!("event {round}"));
        }
    }
    let each = proxy.resident().saturating_sub(before) / STREAMS as u64;
    // Without optimisation what waits is larger than in a release.
    let most = if cfg!(debug_assertions) { 48 } else { 32 };
    assert!(each <= most * 1024, "{each} bytes a stream");
    proxy
        .metric_becomes("forebay_streams_active", &[("route", "default")], STREAMS as f64)
        .await;
    let first_events = proxy
        .metric("forebay_stream_first_event_seconds_count", &[("route", "default")])
        .await;
    assert_eq!(first_events as usize, STREAMS);
    stream.finish();
    for source in &mut sources {
        assert_eq!(source.next().await, None);
    }
    proxy
        .metric_becomes("forebay_streams_active", &[("route", "default")], 0.0)
        .await;
}
