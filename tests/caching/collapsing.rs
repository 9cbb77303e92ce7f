//! One fetch for many who ask at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::client::Client;
use crate::support::inside::Inside;
use crate::support::origin::{Gate, Origin, Reply, Step, Stream};

/// Clients that have all sent the same GET.
async fn clients(proxy: &Inside, count: usize, target: &str, fields: &[(&str, &str)]) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = proxy.client().await;
        client.send_request("GET", target, fields, b"").await;
        clients.push(client);
    }
    clients
}

#[tokio::test]
async fn load_a_thousand_clients_on_a_hundred_expiring_keys_cause_a_hundred_fetches() {
    const KEYS: usize = 100;
    let gate = Gate::new();
    gate.release();
    let origin = Origin::builder()
        .otherwise(Reply::fresh(10, "kept").field("ETag", "\"a\"").hold(&gate))
        .start()
        .await;
    let proxy = Inside::before(&origin, "").await;
    let mut first = proxy.client().await;
    for key in 0..KEYS {
        first.get(&format!("/{key}")).await;
    }
    proxy.stored(KEYS).await;
    for round in 1..=2 {
        proxy.advance(11);
        gate.close();
        let mut all = Vec::new();
        for key in 0..KEYS {
            all.extend(clients(&proxy, 10, &format!("/{key}"), &[]).await);
        }
        proxy.in_flight(10 * KEYS).await;
        gate.release();
        for client in &mut all {
            let response = client.response().await;
            assert_eq!((response.status, response.text()), (200, "kept"));
        }
        assert_eq!(origin.request_count(), KEYS + round * KEYS);
    }
}

#[tokio::test]
async fn those_who_wait_read_along_while_the_body_arrives() {
    let stream = Stream::new();
    let origin = Origin::builder()
        .on("/a", Reply::streamed(&stream).field("Cache-Control", "max-age=60"))
        .start()
        .await;
    let proxy = Inside::before(&origin, "").await;
    let mut first = clients(&proxy, 1, "/a", &[]).await.remove(0);
    stream.opened(1).await;
    stream.send("one");
    first.response_head().await;
    assert_eq!(first.chunk().await.unwrap(), b"one");
    // In the middle of the body somebody else comes.
    let mut late = clients(&proxy, 3, "/a", &[]).await;
    for client in &mut late {
        let head = client.response_head().await;
        assert_eq!(head.cache_status(), "fwd=uri-miss; collapsed");
        assert_eq!(client.chunk().await.unwrap(), b"one");
    }
    stream.send("two");
    stream.finish();
    for client in late.iter_mut().chain([&mut first]) {
        assert_eq!(client.chunk().await.unwrap(), b"two");
        assert_eq!(client.chunk().await, None);
    }
    let hit = proxy.get("/a").await;
    assert_eq!((hit.text(), origin.request_count()), ("onetwo", 1));
}

#[tokio::test]
async fn those_who_wait_for_what_is_not_for_them_go_on_side_by_side() {
    for cache_control in ["private", "no-store", "no-cache", "max-age=0"] {
        let first = Gate::new();
        let others = Gate::new();
        let count = Arc::new(AtomicUsize::new(0));
        let (one, rest) = (first.clone(), others.clone());
        let origin = Origin::builder()
            .answering(move |_| {
                let number = count.fetch_add(1, Ordering::Relaxed);
                let gate = if number == 0 { &one } else { &rest };
                Reply::ok(format!("{number}"))
                    .field("Cache-Control", cache_control)
                    .field("ETag", "\"a\"")
                    .hold(gate)
            })
            .start()
            .await;
        let proxy = Inside::before(&origin, "").await;
        let mut all = clients(&proxy, 20, "/a", &[]).await;
        first.reached(1).await;
        proxy.in_flight(20).await;
        first.release();
        // Nobody gets any further before all of them are there.
        others.reached(19).await;
        // Who comes now does not wait at all.
        let mut late = clients(&proxy, 1, "/a", &[]).await;
        others.reached(20).await;
        others.release();
        let mut bodies = Vec::new();
        for client in all.iter_mut().chain(&mut late) {
            bodies.push(client.response().await.body);
        }
        bodies.sort();
        bodies.dedup();
        assert_eq!(bodies.len(), 21, "{cache_control}: somebody got another one's response");
    }
}

#[tokio::test]
async fn variants_do_not_wait_for_each_other() {
    let gate = Gate::new();
    gate.release();
    let held = gate.clone();
    let origin = Origin::builder()
        .answering(move |request| {
            let language = request.field("accept-language").unwrap_or_default().to_owned();
            Reply::fresh(10, language).field("Vary", "Accept-Language").hold(&held)
        })
        .start()
        .await;
    let proxy = Inside::before(&origin, "").await;
    for language in ["de", "en"] {
        proxy.request("GET", "/a", &[("Accept-Language", language)], b"").await;
    }
    proxy.advance(11);
    gate.close();
    let mut all = Vec::new();
    for language in ["de", "en", "fr"] {
        all.extend(clients(&proxy, 5, "/a", &[("Accept-Language", language)]).await);
    }
    // Three fetches are under way while none has been answered.
    gate.reached(5).await;
    proxy.in_flight(15).await;
    gate.release();
    for (index, client) in all.iter_mut().enumerate() {
        assert_eq!(client.response().await.text(), ["de", "en", "fr"][index / 5]);
    }
    assert_eq!(origin.request_count(), 5);
}

#[tokio::test]
async fn a_client_that_leaves_takes_nothing_from_the_others() {
    let stream = Stream::new();
    let origin = Origin::builder()
        .on("/a", Reply::streamed(&stream).field("Cache-Control", "max-age=60"))
        .start()
        .await;
    let proxy = Inside::before(&origin, "").await;
    let mut leader = clients(&proxy, 1, "/a", &[]).await.remove(0);
    stream.opened(1).await;
    stream.send("one");
    leader.response_head().await;
    let mut others = clients(&proxy, 3, "/a", &[]).await;
    for client in &mut others {
        client.response_head().await;
    }
    drop(leader);
    proxy.in_flight(3).await;
    stream.send("two");
    stream.finish();
    for client in &mut others {
        assert_eq!(client.chunk().await.unwrap(), b"one");
        assert_eq!(client.chunk().await.unwrap(), b"two");
        assert_eq!(client.chunk().await, None);
    }
    assert_eq!((proxy.get("/a").await.text(), origin.request_count()), ("onetwo", 1));
}

#[tokio::test]
async fn when_a_fetch_dies_another_takes_its_place() {
    let gate = Gate::new();
    let dying = Reply::script([Step::Hold(gate.clone()), Step::Close]);
    let origin = Origin::builder()
        .on_each("/a", [dying, Reply::fresh(60, "second")])
        .start()
        .await;
    let proxy = Inside::before(&origin, "").await;
    let mut all = clients(&proxy, 1, "/a", &[]).await;
    gate.reached(1).await;
    all.extend(clients(&proxy, 10, "/a", &[]).await);
    proxy.in_flight(11).await;
    gate.release();
    assert_eq!(all.remove(0).response().await.status, 502);
    for client in &mut all {
        assert_eq!(client.response().await.text(), "second");
    }
    assert_eq!(origin.request_count(), 2);
}

#[tokio::test]
async fn the_leaders_client_may_leave_before_there_is_a_head() {
    let gate = Gate::new();
    let origin = Origin::builder()
        .on_each(
            "/a",
            [Reply::fresh(60, "first").hold(&gate), Reply::fresh(60, "second")],
        )
        .start()
        .await;
    let proxy = Inside::before(&origin, "").await;
    let leader = clients(&proxy, 1, "/a", &[]).await;
    gate.reached(1).await;
    let mut others = clients(&proxy, 5, "/a", &[]).await;
    proxy.in_flight(6).await;
    drop(leader);
    for client in &mut others {
        assert_eq!(client.response().await.text(), "second");
    }
    assert_eq!(origin.request_count(), 2);
}

#[tokio::test]
async fn what_is_too_large_passes_through_whole_and_is_not_kept() {
    let body: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let pieces: Vec<_> = body.chunks(7001).map(<[u8]>::to_vec).collect();
    let origin = Origin::builder()
        .on("/sized", Reply::fresh(60, body.clone()))
        .on("/chunks", Reply::chunked(pieces).field("Cache-Control", "max-age=60"))
        .start()
        .await;
    let proxy = Inside::before(&origin, "cache: { memory: { max_body: 64KiB } }\n").await;
    for path in ["/sized", "/chunks"] {
        let before = origin.request_count();
        for _ in 0..2 {
            assert!(proxy.get(path).await.body == body, "{path}: another body");
        }
        assert_eq!(origin.request_count() - before, 2, "{path}");
    }
    proxy.stored(0).await;
    let status = proxy.get("/sized").await;
    assert_eq!(status.cache_status(), "fwd=uri-miss; detail=too-large");
}

#[tokio::test]
async fn one_clients_own_condition_does_not_make_the_others_go_alone() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::builder()
        .answering(move |request| match request.field("if-none-match") {
            Some(_) => Reply::status(304).field("ETag", "\"a\""),
            None => Reply::fresh(60, "whole").field("ETag", "\"a\"").hold(&held),
        })
        .start()
        .await;
    let proxy = Inside::before(&origin, "").await;
    let own = proxy.request("GET", "/a", &[("If-None-Match", "\"a\"")], b"").await;
    assert_eq!((own.status, origin.request_count()), (304, 1));
    let mut all = clients(&proxy, 10, "/a", &[]).await;
    gate.reached(1).await;
    proxy.in_flight(10).await;
    gate.release();
    for client in &mut all {
        assert_eq!(client.response().await.text(), "whole");
    }
    assert_eq!(origin.request_count(), 2);
}
