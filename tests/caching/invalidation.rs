//! Unsafe requests while others read.

use crate::support::inside::Inside;
use crate::support::origin::{Gate, Origin, Reply};

/// GET: fresh, with its number; the rest: 204.
async fn counting(gate: &Gate) -> Origin {
    let gate = gate.clone();
    let gets = std::sync::atomic::AtomicUsize::new(1);
    Origin::builder()
        .answering(move |request| match request.method.as_str() {
            "GET" => {
                let number = gets.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let reply = Reply::fresh(60, format!("{number}")).field("Vary", "Accept-Language");
                if number == 1 { reply.hold(&gate) } else { reply }
            }
            _ => Reply::status(204),
        })
        .start()
        .await
}

#[tokio::test]
async fn all_variants_go() {
    let gate = Gate::new();
    gate.release();
    let origin = counting(&gate).await;
    let proxy = Inside::before(&origin, "").await;
    let get = |language: &'static str| {
        let proxy = &proxy;
        async move { proxy.request("GET", "/a", &[("Accept-Language", language)], b"").await }
    };
    for language in ["de", "en", "de", "en"] {
        get(language).await;
    }
    assert_eq!(origin.request_count(), 2);
    proxy.request("DELETE", "/a", &[], b"").await;
    assert_eq!((get("de").await.text(), get("en").await.text()), ("3", "4"));
}

#[tokio::test]
async fn what_was_asked_for_before_is_not_kept_afterwards() {
    let gate = Gate::new();
    let origin = counting(&gate).await;
    let proxy = Inside::before(&origin, "").await;
    let mut before = proxy.client().await;
    before.send_request("GET", "/a", &[], b"").await;
    gate.reached(1).await;
    assert_eq!(proxy.request("POST", "/a", &[], b"new").await.status, 204);
    // Whoever comes now neither waits for the older fetch nor gets its response.
    assert_eq!(proxy.get("/a").await.text(), "2");
    gate.release();
    assert_eq!(before.response().await.text(), "1");
    let after = proxy.get("/a").await;
    assert_eq!(after.text(), "2", "{}", after.raw_head);
}

#[tokio::test]
async fn a_route_that_does_not_cache_invalidates_too() {
    let gate = Gate::new();
    gate.release();
    let origin = counting(&gate).await;
    let sections = "routes:
  - { name: writes, match: { methods: [POST] }, upstream: default, cache: false }
  - { name: reads, upstream: default }
";
    let proxy = Inside::before(&origin, sections).await;
    assert_eq!((proxy.get("/a").await.text(), proxy.get("/a").await.text()), ("1", "1"));
    proxy.request("POST", "/a", &[], b"x").await;
    assert_eq!(proxy.get("/a").await.text(), "2");
}

#[tokio::test]
async fn all_keys_of_the_uri_go() {
    let gate = Gate::new();
    gate.release();
    let origin = counting(&gate).await;
    let sections = "routes: [{ name: all, upstream: default, cache: { key: { headers: [X-Tenant] } } }]\n";
    let proxy = Inside::before(&origin, sections).await;
    let get = |tenant: &'static str| {
        let proxy = &proxy;
        async move { proxy.request("GET", "/a", &[("X-Tenant", tenant)], b"").await }
    };
    for (tenant, number) in [("one", "1"), ("two", "2"), ("one", "1"), ("two", "2")] {
        assert_eq!(get(tenant).await.text(), number);
    }
    proxy.request("PUT", "/a", &[("X-Tenant", "three")], b"x").await;
    assert_eq!((get("one").await.text(), get("two").await.text()), ("3", "4"));
}
