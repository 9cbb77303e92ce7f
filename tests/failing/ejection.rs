//! Servers whose answers are failures are left out for a while.

use super::upstream;
use crate::support::client::EventSource;
use crate::support::inside::Inside;
use crate::support::origin::{Gate, Origin, Reply, Step, Stream};

const OUTLIER: &str = "outlier: { consecutive_failures: 3, eject_for: 30s, max_eject_for: 5m }";

async fn before(origins: &[&Origin], keys: &str) -> Inside {
    Inside::start(&upstream(origins.iter().copied(), keys, ""), Default::default()).await
}

async fn healthy(proxy: &Inside, origin: &Origin, wanted: f64) {
    let labels = [("upstream", "app"), ("server", &*origin.server())];
    proxy.metric_becomes("forebay_upstream_healthy", &labels, wanted).await;
}

#[tokio::test]
async fn a_failing_server_is_left_out_for_longer_each_time() {
    let failing = Origin::builder().otherwise(Reply::status(503)).start().await;
    let well = Origin::start().await;
    let proxy = before(&[&failing, &well], OUTLIER).await;
    let mut client = proxy.client().await;
    let mut statuses = Vec::new();
    for _ in 0..20 {
        statuses.push(client.get("/").await.status);
    }
    assert_eq!(statuses.iter().filter(|status| **status == 503).count(), 3);
    assert_eq!(failing.request_count(), 3);
    healthy(&proxy, &failing, 0.0).await;
    healthy(&proxy, &well, 1.0).await;

    proxy.advance(29);
    assert_eq!(client.get("/").await.status, 200);
    proxy.advance(2);
    healthy(&proxy, &failing, 1.0).await;
    for _ in 0..10 {
        client.get("/").await;
    }
    assert_eq!(
        failing.request_count(),
        4,
        "one is enough to see that nothing has changed"
    );
    proxy.advance(31);
    for _ in 0..10 {
        assert_eq!(client.get("/").await.status, 200);
    }
    healthy(&proxy, &failing, 0.0).await;
    proxy.advance(30);
    failing.on("/", Reply::ok("hello"));
    healthy(&proxy, &failing, 1.0).await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert_eq!(failing.request_count(), 9, "its half again");
}

#[tokio::test]
async fn what_speaks_against_a_server_and_what_does_not() {
    for (name, reply, is_left_out) in [
        ("502", Reply::status(502), true),
        ("504", Reply::status(504), true),
        ("500", Reply::status(500), false),
        ("closed", Reply::script([Step::Close]), true),
        ("silent", Reply::ok("late").hold(&Gate::new()), true),
        ("short", Reply::ok("short").declared_length(100).close(), true),
        ("malformed", Reply::raw("HTTP/1.1 2000 OK\r\n\r\n"), false),
    ] {
        let failing = Origin::builder().otherwise(reply).start().await;
        let well = Origin::start().await;
        let proxy = before(
            &[&failing, &well],
            &format!("{OUTLIER}\ntimeouts: {{ first_byte: 100ms }}"),
        )
        .await;
        for _ in 0..8 {
            let mut client = proxy.client().await;
            client.send_request("GET", "/", &[], b"").await;
            let _ = client.try_response().await;
            proxy.in_flight(0).await;
        }
        let expected = if is_left_out { 0.0 } else { 1.0 };
        healthy(&proxy, &failing, expected).await;
        assert_eq!(failing.request_count(), if is_left_out { 3 } else { 4 }, "{name}");
    }
}

#[tokio::test]
async fn the_last_server_is_never_left_out() {
    let first = Origin::builder().otherwise(Reply::status(503)).start().await;
    let second = Origin::builder().otherwise(Reply::status(503)).start().await;
    for origins in [&[&first][..], &[&first, &second]] {
        let proxy = before(origins, "outlier: { consecutive_failures: 1, max_ejected: 100% }").await;
        let mut client = proxy.client().await;
        for _ in 0..10 {
            let response = client.get("/").await;
            assert_eq!((response.status, response.field("proxy-status")), (503, None));
        }
        let live = proxy.metric("forebay_upstream_healthy", &[]).await;
        assert_eq!(live, 1.0, "of {}", origins.len());
    }
}

#[tokio::test]
async fn no_more_than_a_share_of_the_servers() {
    let mut origins = Vec::new();
    for _ in 0..4 {
        origins.push(Origin::builder().otherwise(Reply::status(503)).start().await);
    }
    let origins: Vec<&Origin> = origins.iter().collect();
    let proxy = before(&origins, "outlier: { consecutive_failures: 1, max_ejected: 50% }").await;
    let mut client = proxy.client().await;
    for _ in 0..20 {
        client.get("/").await;
    }
    assert_eq!(proxy.metric("forebay_upstream_healthy", &[]).await, 2.0);
}

#[tokio::test]
async fn a_server_that_comes_back_gets_one_request_until_it_has_answered() {
    let gate = Gate::new();
    let failing = Origin::builder()
        .on("/fails", Reply::status(503))
        .on("/held", Reply::ok("held").hold(&gate))
        .start()
        .await;
    let well = Origin::start().await;
    let proxy = before(&[&failing, &well], OUTLIER).await;
    let mut client = proxy.client().await;
    while failing.request_count() < 3 {
        client.get("/fails").await;
    }
    healthy(&proxy, &failing, 0.0).await;
    proxy.advance(31);
    healthy(&proxy, &failing, 1.0).await;
    let mut trial = proxy.client().await;
    while failing.request_count() < 4 {
        trial = proxy.client().await;
        trial.send_request("GET", "/held", &[], b"").await;
        // It is with one of the two.
        tokio::select! {
            () = gate.reached(1) => {}
            _ = trial.response_head() => {}
        }
    }
    for _ in 0..6 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert_eq!(failing.request_count(), 4, "nothing but its one request");
    gate.release();
    assert_eq!(trial.response().await.text(), "held");
    for _ in 0..6 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert_eq!(failing.request_count(), 7);
}

#[tokio::test]
async fn open_streams_of_a_server_that_is_left_out_go_on() {
    let stream = Stream::new();
    let failing = Origin::builder()
        .on("/fails", Reply::status(503))
        .on("/events", Reply::events(&stream))
        .start()
        .await;
    let well = Origin::builder().on("/events", Reply::events(&stream)).start().await;
    let proxy = before(&[&failing, &well], OUTLIER).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        open.push(EventSource::open(proxy.address(), "/events").await);
    }
    let mut client = proxy.client().await;
    while failing.request_count() < 4 {
        client.get("/fails").await;
    }
    healthy(&proxy, &failing, 0.0).await;
    stream.send("data: still here\n\n");
    for source in &mut open {
        assert_eq!(source.data().await, "still here");
    }
    // A stream that is open since before does not take the place of the request that it comes back for.
    proxy.advance(31);
    healthy(&proxy, &failing, 1.0).await;
    let before = failing.request_count();
    for _ in 0..4 {
        client.get("/").await;
    }
    assert_eq!(failing.request_count(), before + 2);
}

#[tokio::test]
async fn probes_bring_it_back_early() {
    let failing = Origin::builder()
        .on("/fails", Reply::status(503))
        .on("/health", Reply::ok("well"))
        .start()
        .await;
    let well = Origin::start().await;
    let keys = format!("{OUTLIER}\nhealth_check: {{ path: /health, interval: 50ms }}");
    let proxy = before(&[&failing, &well], &keys).await;
    let mut client = proxy.client().await;
    let fails = |origin: &Origin| {
        origin
            .requests()
            .iter()
            .filter(|request| request.target == "/fails")
            .count()
    };
    while fails(&failing) < 3 {
        client.get("/fails").await;
    }
    // It is left out, and then, long before its time, it is not.
    failing.on("/fails", Reply::ok("works"));
    let before = fails(&failing);
    crate::support::within("the server to be back", async {
        while fails(&failing) == before {
            client.get("/fails").await;
        }
    })
    .await;
}
