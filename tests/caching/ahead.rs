//! Hot responses are validated shortly before they expire.

use crate::support::inside::Inside;
use crate::support::origin::{Gate, Origin, Reply};

const AHEAD: &str = "defaults: { cache: { refresh_ahead: { before: 10%, min_hits: 3 } } }\n";

/// Fresh for 100 s; confirmed when asked about.
fn confirming(request: &crate::support::origin::Request) -> Reply {
    let reply = match request.field("if-none-match") {
        Some(_) => Reply::status(304),
        None => Reply::ok("x"),
    };
    reply.field("ETag", "\"1\"").field("Cache-Control", "max-age=100")
}

/// How many refreshes have begun.
async fn refreshed(proxy: &Inside) -> f64 {
    proxy.metric("forebay_cache_refreshed_ahead_total", &[]).await
}

#[tokio::test]
async fn what_is_asked_for_in_its_last_tenth_never_expires() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::builder()
        .answering(move |request| match request.field("if-none-match") {
            Some(_) => confirming(request).hold(&held),
            None => confirming(request),
        })
        .start()
        .await;
    let proxy = Inside::before(&origin, AHEAD).await;
    proxy.get("/a").await;
    proxy.advance(89);
    for _ in 0..10 {
        assert_eq!(proxy.get("/a").await.cache_status(), "hit; ttl=11; detail=l1");
    }
    assert_eq!(origin.request_count(), 1, "too early");
    proxy.advance(2);
    for _ in 0..2 {
        proxy.get("/a").await;
    }
    assert_eq!((origin.request_count(), refreshed(&proxy).await), (1, 0.0), "not hot");
    for _ in 0..20 {
        assert_eq!(proxy.get("/a").await.cache_status(), "hit; ttl=9; detail=l1");
    }
    gate.reached(1).await;
    assert_eq!(origin.request_count(), 2, "one fetch, and nobody waits for it");
    assert_eq!(origin.last_request().field("if-none-match"), Some("\"1\""));
    gate.release();
    crate::support::within("its new lifetime", async {
        while proxy.get("/a").await.cache_status() != "hit; ttl=100; detail=l1" {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // No client's requests: nothing but hits is counted.
    assert_eq!(proxy.cache_results("revalidated").await, 0.0);
    proxy.advance(95);
    for _ in 0..3 {
        assert_eq!(proxy.get("/a").await.cache_status(), "hit; ttl=5; detail=l1");
    }
    origin.request(2).await;
}

#[tokio::test]
async fn nothing_else_is() {
    let origin = Origin::builder().answering(confirming).start().await;
    let routes =
        "routes: [{ name: plain, match: { path: /plain }, upstream: default, cache: { refresh_ahead: off } }]\n";
    let proxy = Inside::before(&origin, &format!("{AHEAD}{routes}")).await;
    for path in ["/plain", "/a"] {
        proxy.get(path).await;
    }
    proxy.advance(95);
    for _ in 0..10 {
        proxy.get("/plain").await;
        // What all get is not asked for with one's credentials.
        let own = [("Authorization", "Basic eDp5")];
        let public = proxy.request("GET", "/a", &own, b"").await;
        assert_eq!(public.status, 200);
    }
    assert_eq!(refreshed(&proxy).await, 0.0);
}

#[tokio::test]
async fn an_origin_that_fails_is_spared_and_what_is_stored_stays() {
    let origin = Origin::builder()
        .answering(
            |request| match (request.target.as_str(), request.field("if-none-match")) {
                ("/bad", _) | (_, Some(_)) => Reply::status(503),
                _ => confirming(request),
            },
        )
        .start()
        .await;
    let proxy = Inside::before(&origin, AHEAD).await;
    proxy.get("/a").await;
    proxy.advance(95);
    for _ in 0..40 {
        assert_eq!(proxy.get("/a").await.cache_status(), "hit; ttl=5; detail=l1");
    }
    let tried = origin.request_count() - 1;
    assert!((1..=4).contains(&tried), "at 3, 6, 12 and 24 hits: {tried}");

    let breaker =
        "upstreams: { default: { servers: [SERVER], circuit_breaker: { failure_threshold: 1, open_for: 1h } } }\n"
            .replace("SERVER", &origin.server());
    let yaml = format!("listen: 127.0.0.1:0\n{breaker}{AHEAD}");
    let proxy = Inside::start(&yaml, forebay::clock::Clock::new()).await;
    proxy.get("/a").await;
    proxy.get("/bad").await;
    let count = origin.request_count();
    proxy.advance(95);
    for _ in 0..10 {
        assert_eq!(proxy.get("/a").await.cache_status(), "hit; ttl=5; detail=l1");
    }
    assert_eq!((origin.request_count(), refreshed(&proxy).await), (count, 0.0));
}
