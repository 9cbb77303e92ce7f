//! What 304s do to what is stored (RFC 9111 §4.3.4).

use crate::support::inside::Inside;
use crate::support::origin::{Origin, Reply};

#[tokio::test]
async fn a_304_with_another_vary_is_stored_under_it() {
    let reply = |vary: &str| Reply::fresh(10, "kept").field("ETag", "\"a\"").field("Vary", vary);
    let confirmed = Reply::status(304)
        .field("ETag", "\"a\"")
        .field("Cache-Control", "max-age=10")
        .field("Vary", "Accept-Language");
    let origin = Origin::builder()
        .on_each("/a", [reply("Foo"), confirmed, reply("Accept-Language")])
        .start()
        .await;
    let proxy = Inside::before(&origin, "").await;
    let get = |language: &'static str| {
        let proxy = &proxy;
        async move {
            let fields = [("Foo", "1"), ("Accept-Language", language)];
            proxy.request("GET", "/a", &fields, b"").await
        }
    };
    get("en").await;
    assert!(
        get("de").await.cache_status().starts_with("hit"),
        "it varies by Foo alone"
    );
    proxy.advance(11);
    let validated = get("en").await;
    assert!(
        validated.cache_status().starts_with("fwd=stale; fwd-status=304"),
        "{}",
        validated.raw_head
    );
    assert!(get("en").await.cache_status().starts_with("hit"));
    assert!(
        get("de").await.cache_status().starts_with("fwd="),
        "it varies by the language now"
    );
}

#[tokio::test]
async fn a_304_confirms_the_variants_that_have_its_tag() {
    let origin = Origin::builder()
        .answering(|request| match request.field("if-none-match") {
            Some(tags) if tags.contains("\"same\"") => Reply::status(304)
                .field("ETag", "\"same\"")
                .field("Cache-Control", "max-age=10"),
            _ => Reply::fresh(10, "same").field("ETag", "\"same\"").field("Vary", "Foo"),
        })
        .start()
        .await;
    let proxy = Inside::before(&origin, "").await;
    proxy.request("GET", "/a", &[("Foo", "1")], b"").await;
    // Another variant that turns out to be the same representation: no body comes again.
    let second = proxy.request("GET", "/a", &[("Foo", "2")], b"").await;
    assert_eq!((second.status, second.text()), (200, "same"));
    assert!(
        second
            .cache_status()
            .starts_with("fwd=vary-miss; fwd-status=304; stored"),
        "{}",
        second.raw_head
    );
    for foo in ["1", "2"] {
        let hit = proxy.request("GET", "/a", &[("Foo", foo)], b"").await;
        assert!(hit.cache_status().starts_with("hit"), "{}", hit.raw_head);
    }
    assert_eq!(origin.request_count(), 2);
}

#[tokio::test]
async fn sixty_four_variants_and_no_more() {
    let origin = Origin::builder()
        .otherwise(Reply::fresh(60, "kept").field("Vary", "Foo"))
        .start()
        .await;
    let proxy = Inside::before(&origin, "").await;
    let mut client = proxy.client().await;
    for foo in 0..65 {
        client.request("GET", "/a", &[("Foo", &foo.to_string())], b"").await;
    }
    for foo in 1..65 {
        let hit = client.request("GET", "/a", &[("Foo", &foo.to_string())], b"").await;
        assert!(hit.cache_status().starts_with("hit"), "{foo}: {}", hit.raw_head);
    }
    let oldest = client.request("GET", "/a", &[("Foo", "0")], b"").await;
    assert_eq!(oldest.cache_status(), "fwd=vary-miss; stored; ttl=60");
}

#[tokio::test]
async fn a_cookie_in_a_304_is_for_one_client() {
    let origin = Origin::builder()
        .on_each(
            "/a",
            [
                Reply::fresh(10, "kept").field("ETag", "\"a\""),
                Reply::status(304).field("ETag", "\"a\"").field("Set-Cookie", "a=b"),
                Reply::status(304)
                    .field("ETag", "\"a\"")
                    .field("Cache-Control", "max-age=10"),
            ],
        )
        .start()
        .await;
    let proxy = Inside::before(&origin, "").await;
    proxy.get("/a").await;
    proxy.advance(11);
    let own = proxy.get("/a").await;
    assert_eq!(
        (own.status, own.field("set-cookie"), own.text()),
        (200, Some("a=b"), "kept")
    );
    let other = proxy.get("/a").await;
    assert_eq!((other.field("set-cookie"), other.text()), (None, "kept"));
    let third = proxy.get("/a").await;
    assert_eq!((third.field("set-cookie"), origin.request_count()), (None, 3));
}

#[tokio::test]
async fn conditions_that_only_the_origin_can_judge_go_there() {
    let origin = Origin::builder()
        .on_each(
            "/a",
            [Reply::fresh(60, "kept").field("ETag", "\"a\""), Reply::status(412)],
        )
        .start()
        .await;
    let proxy = Inside::before(&origin, "").await;
    proxy.get("/a").await;
    for field in [
        ("If-Match", "\"b\""),
        ("If-Unmodified-Since", "Sun, 06 Nov 1994 08:49:37 GMT"),
    ] {
        let response = proxy.request("GET", "/a", &[field], b"").await;
        assert_eq!(response.status, 412);
        assert_eq!(origin.last_request().field(field.0), Some(field.1));
    }
    assert!(proxy.get("/a").await.cache_status().starts_with("hit"));
}
