//! Requests in flight: places, queues, and who is counted.

use crate::support::inside::Inside;
use crate::support::origin::{Gate, Origin, Reply, Stream};
use crate::support::within;

/// The gauge of a gate.
async fn gate(inside: &Inside, what: &str, name: &str, wanted: f64) {
    let metric = format!("forebay_concurrency_{what}");
    inside.metric_becomes(&metric, &[("gate", name)], wanted).await;
}

#[tokio::test]
async fn what_is_more_waits_and_what_is_more_than_that_gets_503() {
    let held = Gate::new();
    let origin = Origin::builder().otherwise(Reply::ok("ok").hold(&held)).start().await;
    let limits = "concurrency: { max_in_flight: 1, queue: 1, queue_timeout: 60s }\ndefaults: { cache: off }";
    let inside = Inside::before(&origin, limits).await;
    let (mut first, mut second, mut third) = (inside.client().await, inside.client().await, inside.client().await);
    first.send_request("GET", "/1", &[], b"").await;
    within("the first at the app", held.reached(1)).await;
    second.send_request("GET", "/2", &[], b"").await;
    gate(&inside, "queued", "all", 1.0).await;
    let refused = third.get("/3").await;
    assert_eq!((refused.status, refused.field("retry-after")), (503, Some("60")));
    assert_eq!(refused.json()["reason"], "overloaded");
    assert_eq!(origin.requests().len(), 1);
    let labels = [("gate", "all"), ("reason", "queue_full")];
    assert_eq!(inside.metric("forebay_concurrency_refused_total", &labels).await, 1.0);
    // Who leaves gives up the place.
    drop(second);
    gate(&inside, "queued", "all", 0.0).await;
    third.send_request("GET", "/4", &[], b"").await;
    gate(&inside, "queued", "all", 1.0).await;
    held.release();
    assert_eq!(
        (first.response().await.status, third.response().await.status),
        (200, 200)
    );
    gate(&inside, "in_flight", "all", 0.0).await;
    assert_eq!(origin.requests().len(), 2, "what nobody waited for was not asked");
}

#[tokio::test]
async fn who_waits_too_long_gets_503() {
    let held = Gate::new();
    let origin = Origin::builder().otherwise(Reply::ok("ok").hold(&held)).start().await;
    let limits = "concurrency: { max_in_flight: 1, queue: 9, queue_timeout: 50ms }\ndefaults: { cache: off }";
    let inside = Inside::before(&origin, limits).await;
    let mut first = inside.client().await;
    first.send_request("GET", "/1", &[], b"").await;
    within("the first at the app", held.reached(1)).await;
    let refused = inside.get("/2").await;
    assert_eq!((refused.status, refused.field("retry-after")), (503, Some("1")));
    held.release();
    assert_eq!(first.response().await.status, 200);
}

#[tokio::test]
async fn hits_streams_and_websockets_take_no_place() {
    let held = Gate::new();
    let stream = Stream::new();
    let origin = Origin::builder()
        .on("/fresh", Reply::fresh(60, "fresh"))
        .on("/events", Reply::events(&stream))
        .on("/held", Reply::ok("ok").hold(&held))
        .start()
        .await;
    let limits = "concurrency: { max_in_flight: 1, queue: 0, max_streams: 1 }";
    let inside = Inside::before(&origin, limits).await;
    assert_eq!(inside.get("/fresh").await.status, 200);
    gate(&inside, "in_flight", "all", 0.0).await;
    let mut listening = inside.client().await;
    listening.send_request("GET", "/events", &[], b"").await;
    within("an open stream", stream.opened(1)).await;
    assert_eq!(listening.response_head().await.status, 200);
    gate(&inside, "in_flight", "streams", 1.0).await;
    gate(&inside, "in_flight", "all", 0.0).await;
    assert_eq!(
        inside.get("/events").await.status,
        503,
        "one stream is all there may be"
    );
    let mut busy = inside.client().await;
    busy.send_request("GET", "/held", &[], b"").await;
    within("a request at the app", held.reached(1)).await;
    assert_eq!(inside.get("/fresh").await.status, 200, "a hit needs no place");
    assert_eq!(inside.get("/other").await.status, 503);
    held.release();
    assert_eq!(busy.response().await.status, 200);
    drop(listening);
    gate(&inside, "in_flight", "streams", 0.0).await;
}

#[tokio::test]
async fn routes_upstreams_and_clients_have_places_of_their_own() {
    let held = Gate::new();
    let origin = Origin::builder().otherwise(Reply::ok("ok").hold(&held)).start().await;
    let sections = "trusted_proxies: [127.0.0.1]
concurrency: { queue: 0, per_client: { max_in_flight: 2, queue: 0 } }
defaults: { cache: off }
routes:
  - { name: narrow, match: { path_prefix: /narrow }, concurrency: { max_in_flight: 1 } }
";
    let yaml = format!(
        "listeners: [{{ address: 127.0.0.1:0 }}]
upstreams: {{ app: {{ servers: [\"{}\"], concurrency: {{ max_in_flight: 3 }} }} }}
{sections}",
        origin.server()
    );
    let inside = Inside::start(&yaml, Default::default()).await;
    let mut open = Vec::new();
    for (path, client, status) in [
        ("/narrow", "192.0.2.1", 0),
        ("/narrow", "192.0.2.2", 503),
        ("/", "192.0.2.1", 0),
        ("/", "192.0.2.1", 503),
        ("/", "192.0.2.2", 0),
        ("/", "192.0.2.3", 503),
    ] {
        let mut one = inside.client().await;
        one.send_request("GET", path, &[("X-Forwarded-For", client)], b"").await;
        match status {
            0 => {
                open.push(one);
                within("a request at the app", held.reached(open.len())).await;
            }
            status => assert_eq!(one.response().await.status, status, "{path} {client}"),
        }
    }
    held.release();
    for mut one in open {
        assert_eq!(one.response().await.status, 200);
    }
    for name in ["all", "clients", "route:narrow"] {
        gate(&inside, "in_flight", name, 0.0).await;
    }
}
