//! The circuit of an upstream opens, and closes again.

use super::upstream;
use crate::support::client::{Client, EventSource};
use crate::support::inside::Inside;
use crate::support::origin::{Gate, Origin, Reply, Step, Stream};

const CIRCUIT: &str = "circuit_breaker: { failure_threshold: 5, success_threshold: 3, open_for: 30s }";

async fn before(origin: &Origin, keys: &str) -> Inside {
    Inside::start(&upstream([origin], keys, ""), Default::default()).await
}

async fn state(proxy: &Inside) -> f64 {
    proxy.metric("forebay_circuit_state", &[("upstream", "app")]).await
}

#[track_caller]
fn is_refused(response: &crate::support::client::Response, retry_after: &str) {
    assert_eq!(response.status, 503);
    assert_eq!(response.field("retry-after"), Some(retry_after));
    assert_eq!(
        response.field("proxy-status"),
        Some("forebay; error=destination_unavailable; details=\"circuit-open\"")
    );
}

#[tokio::test]
async fn it_opens_after_failures_in_a_row_and_lets_a_few_through_after_a_while() {
    let gate = Gate::new();
    let origin = Origin::builder()
        .on("/fails", Reply::status(502))
        .on("/held", Reply::ok("held").hold(&gate))
        .start()
        .await;
    let proxy = before(&origin, CIRCUIT).await;
    let mut client = proxy.client().await;
    for _ in 0..5 {
        assert_eq!(state(&proxy).await, 0.0);
        assert_eq!(client.get("/fails").await.status, 502);
    }
    assert_eq!(state(&proxy).await, 2.0);
    is_refused(&client.get("/").await, "30");
    proxy.advance(20);
    is_refused(&client.get("/").await, "10");
    assert_eq!(origin.request_count(), 5, "it is not asked");

    proxy.advance(11);
    let mut trials = Vec::new();
    for number in 0..3 {
        let mut trial = proxy.client().await;
        trial.send_request("GET", &format!("/held?{number}"), &[], b"").await;
        trials.push(trial);
    }
    gate.reached(3).await;
    assert_eq!(state(&proxy).await, 1.0);
    is_refused(&client.get("/").await, "1");
    gate.release();
    for trial in &mut trials {
        assert_eq!(trial.response().await.text(), "held");
    }
    assert_eq!(state(&proxy).await, 0.0);
    assert_eq!(client.get("/").await.text(), "hello");
}

#[tokio::test]
async fn a_failing_trial_opens_it_again_and_one_that_is_left_says_nothing() {
    let gate = Gate::new();
    let origin = Origin::builder()
        .on("/fails", Reply::status(503))
        .on("/held", Reply::ok("held").hold(&gate))
        .start()
        .await;
    let proxy = before(&origin, CIRCUIT).await;
    let mut client = proxy.client().await;
    for _ in 0..5 {
        client.get("/fails").await;
    }
    proxy.advance(31);
    let mut leaving: Client = proxy.client().await;
    leaving.send_request("GET", "/held", &[], b"").await;
    gate.reached(1).await;
    drop(leaving);
    proxy.in_flight(0).await;
    assert_eq!(state(&proxy).await, 1.0);
    for _ in 0..2 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert_eq!(client.get("/fails").await.status, 503);
    assert_eq!(state(&proxy).await, 2.0);
    is_refused(&client.get("/").await, "30");
}

#[tokio::test]
async fn a_share_of_failures_opens_it() {
    let origin = Origin::builder().on("/fails", Reply::status(504)).start().await;
    let keys = "circuit_breaker: { failure_threshold: 100, failure_share: 40%, min_requests: 10, window: 10s }";
    let proxy = before(&origin, keys).await;
    let mut client = proxy.client().await;
    // Behind the end of a response comes its count.
    for count in 1..=6 {
        client.get("/").await;
        let whole = [("outcome", "ok")];
        proxy
            .metric_becomes("forebay_upstream_requests_total", &whole, f64::from(count))
            .await;
    }
    for _ in 0..4 {
        assert_eq!(state(&proxy).await, 0.0);
        client.get("/fails").await;
    }
    assert_eq!(state(&proxy).await, 2.0);
}

#[tokio::test]
async fn what_speaks_against_the_upstream_and_what_does_not() {
    let silent = || Reply::ok("late").hold(&Gate::new());
    let timeouts = "\ntimeouts: { first_byte: 100ms, between_bytes: 100ms }";
    let half = |end: Step| {
        Reply::script([
            Step::Write("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf".into()),
            end,
        ])
    };
    for (name, reply, opens) in [
        ("502", Reply::status(502), true),
        ("503", Reply::status(503), true),
        ("504", Reply::status(504), true),
        ("500", Reply::status(500), false),
        ("501", Reply::status(501), false),
        ("404", Reply::status(404), false),
        ("closed", Reply::script([Step::Close]), true),
        ("reset", Reply::script([Step::Reset]), true),
        ("silent", silent(), true),
        ("reset in the body", half(Step::Reset), true),
        ("silent in the body", half(Step::Hold(Gate::new())), true),
        ("malformed", Reply::raw("HTTP/1.1 2000 OK\r\n\r\n"), false),
    ] {
        let origin = Origin::builder().otherwise(reply).start().await;
        let proxy = before(&origin, &format!("{CIRCUIT}{timeouts}")).await;
        for _ in 0..6 {
            let mut client = proxy.client().await;
            client.send_request("GET", "/", &[], b"").await;
            let _ = client.try_response().await;
        }
        proxy.in_flight(0).await;
        assert_eq!(state(&proxy).await == 2.0, opens, "{name}");
    }
}

#[tokio::test]
async fn clients_that_leave_do_not_open_it() {
    let gate = Gate::new();
    let origin = Origin::builder().otherwise(Reply::ok("late").hold(&gate)).start().await;
    let proxy = before(&origin, CIRCUIT).await;
    for count in 1..=6 {
        let mut client = proxy.client().await;
        client.send_request("GET", "/", &[], b"").await;
        gate.reached(count).await;
    }
    proxy.in_flight(0).await;
    assert_eq!(state(&proxy).await, 0.0);
}

#[tokio::test]
async fn one_broken_server_does_not_open_it_while_another_answers() {
    let broken = Origin::builder().otherwise(Reply::script([Step::Reset])).start().await;
    let well = Origin::start().await;
    let keys = format!("{CIRCUIT}\nretry: {{ delay: 0s, budget: 100% }}");
    let proxy = Inside::start(&upstream([&broken, &well], &keys, ""), Default::default()).await;
    let mut client = proxy.client().await;
    for _ in 0..40 {
        assert_eq!(client.get("/").await.text(), "hello");
    }
    assert_eq!(state(&proxy).await, 0.0);
    assert_eq!(broken.request_count(), 20);
}

#[tokio::test]
async fn open_it_answers_with_what_is_stale_as_long_as_that_is_allowed() {
    let origin = Origin::builder()
        .on_each(
            "/a",
            [
                Reply::ok("old").field("Cache-Control", "max-age=10, stale-if-error=600"),
                Reply::status(503),
            ],
        )
        .on("/fails", Reply::status(503))
        .start()
        .await;
    let proxy = before(&origin, CIRCUIT).await;
    let mut client = proxy.client().await;
    assert_eq!(client.get("/a").await.text(), "old");
    for _ in 0..5 {
        client.get("/fails").await;
    }
    proxy.advance(20);
    for _ in 0..3 {
        let stale = client.get("/a").await;
        assert_eq!((stale.status, stale.text()), (200, "old"));
        assert_eq!(stale.cache_status(), "hit; ttl=-10; detail=stale-if-error");
    }
    assert_eq!(origin.request_count(), 6, "it is not asked");
    is_refused(&client.get("/b").await, "10");
}

#[tokio::test]
async fn a_stream_decides_about_a_half_open_circuit_by_its_head() {
    let stream = Stream::new();
    let origin = Origin::builder()
        .on("/fails", Reply::status(502))
        .on("/events", Reply::events(&stream))
        .start()
        .await;
    let proxy = before(&origin, CIRCUIT).await;
    let mut client = proxy.client().await;
    for _ in 0..5 {
        client.get("/fails").await;
    }
    proxy.advance(31);
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(EventSource::open(proxy.address(), "/events").await);
    }
    assert_eq!(state(&proxy).await, 0.0);
    drop(open);
}
