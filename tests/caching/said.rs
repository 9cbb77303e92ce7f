//! What is said about it: `Cache-Status` (RFC 9211), `Age`, the log and the metrics, all in the same words.

use crate::support::inside::Inside;
use crate::support::origin::{Origin, Reply};

#[tokio::test]
async fn field_log_and_metric_use_the_same_words() {
    let origin = Origin::builder()
        .on("/kept", Reply::fresh(10, "kept").field("ETag", "\"a\""))
        .on("/varied", Reply::fresh(60, "kept").field("Vary", "Foo"))
        .on("/private", Reply::ok("own").field("Cache-Control", "private"))
        .on("/cookie", Reply::fresh(60, "own").field("Set-Cookie", "a=b"))
        .on("/plain", Reply::ok("plain"))
        .start()
        .await;
    let proxy = Inside::before(&origin, "").await;
    /// Method, target, fields.
    struct Asked(&'static str, &'static str, &'static [(&'static str, &'static str)]);
    // The request, seconds that pass before; Cache-Status, word.
    let table: [(Asked, u64, &str, &str); 14] = [
        (
            Asked("GET", "/kept", &[]),
            0,
            "fwd=uri-miss; stored; ttl=10",
            "uri-miss",
        ),
        (Asked("GET", "/kept", &[]), 0, "hit; ttl=10; detail=l1", "hit_l1"),
        (Asked("GET", "/kept", &[]), 4, "hit; ttl=6; detail=l1", "hit_l1"),
        (Asked("HEAD", "/kept", &[]), 0, "hit; ttl=6; detail=l1", "hit_l1"),
        (
            Asked("GET", "/kept", &[("Cache-Control", "max-stale=60")]),
            10,
            "hit; ttl=-4; detail=max-stale",
            "served_stale",
        ),
        (Asked("GET", "/kept", &[]), 0, "fwd=stale; stored; ttl=10", "stale"),
        (
            Asked("GET", "/kept", &[("Cache-Control", "no-cache")]),
            0,
            "fwd=request; stored; ttl=10",
            "request",
        ),
        (
            Asked("GET", "/varied", &[("Foo", "1")]),
            0,
            "fwd=uri-miss; stored; ttl=60",
            "uri-miss",
        ),
        (
            Asked("GET", "/varied", &[("Foo", "2")]),
            0,
            "fwd=vary-miss; stored; ttl=60",
            "vary-miss",
        ),
        (
            Asked("GET", "/private", &[]),
            0,
            "fwd=uri-miss; detail=private",
            "uri-miss",
        ),
        (
            Asked("GET", "/cookie", &[]),
            0,
            "fwd=uri-miss; detail=set-cookie",
            "uri-miss",
        ),
        (
            Asked("GET", "/plain", &[]),
            0,
            "fwd=uri-miss; detail=no-freshness",
            "uri-miss",
        ),
        (Asked("POST", "/plain", &[]), 0, "fwd=method", "method"),
        (
            Asked("GET", "/plain", &[("X-HTTP-Method-Override", "DELETE")]),
            0,
            "fwd=bypass; detail=override",
            "bypass",
        ),
    ];
    let mut counts = std::collections::HashMap::new();
    for (number, (Asked(method, target, fields), pass, status, word)) in table.into_iter().enumerate() {
        proxy.advance(pass);
        let name = format!("request-{number}");
        let fields: Vec<_> = fields.iter().copied().chain([("User-Agent", name.as_str())]).collect();
        let response = proxy.request(method, target, &fields, b"").await;
        assert_eq!(
            response.field("cache-status"),
            Some(format!("forebay; {status}").as_str()),
            "{number}"
        );
        let entry = proxy.log_entry(|entry| entry["user_agent"] == name.as_str()).await;
        assert_eq!(entry["cache"], word, "{number}: {entry}");
        *counts.entry(word).or_insert(0.0) += 1.0;
    }
    for (word, count) in counts {
        let labels = [("result", word)];
        proxy
            .metric_becomes("forebay_cache_requests_total", &labels, count)
            .await;
    }
}

#[tokio::test]
async fn a_validated_response_says_so() {
    let origin = Origin::builder()
        .on_each(
            "/a",
            [
                Reply::fresh(10, "kept").field("ETag", "\"a\""),
                Reply::status(304)
                    .field("ETag", "\"a\"")
                    .field("Cache-Control", "max-age=20"),
            ],
        )
        .start()
        .await;
    let proxy = Inside::before(&origin, "").await;
    proxy.get("/a").await;
    proxy.advance(11);
    let validated = proxy.get("/a").await;
    assert_eq!(validated.cache_status(), "fwd=stale; fwd-status=304; stored; ttl=20");
    proxy.log_entry(|entry| entry["cache"] == "revalidated").await;
    assert_eq!(proxy.cache_results("revalidated").await, 1.0);
}

#[tokio::test]
async fn caches_nearer_to_the_origin_keep_their_say() {
    let origin = Origin::builder()
        .on(
            "/a",
            Reply::fresh(100, "kept")
                .field("Cache-Status", "Nearer; hit; ttl=30")
                .field("Age", "20"),
        )
        .start()
        .await;
    let proxy = Inside::before(&origin, "").await;
    let first = proxy.get("/a").await;
    assert_eq!(
        first.fields("cache-status").join(", "),
        "Nearer; hit; ttl=30, forebay; fwd=uri-miss; stored; ttl=80"
    );
    proxy.advance(5);
    let second = proxy.get("/a").await;
    assert_eq!(
        second.fields("cache-status").join(", "),
        "Nearer; hit; ttl=30, forebay; hit; ttl=75; detail=l1"
    );
    assert_eq!(second.fields("age"), ["25"]);
}

#[tokio::test]
async fn what_forebay_says_itself_has_no_status() {
    let origin = Origin::start().await;
    let proxy = Inside::before(&origin, "").await;
    let own = proxy
        .request("GET", "/a", &[("Cache-Control", "only-if-cached")], b"")
        .await;
    assert_eq!((own.status, own.field("cache-status")), (504, None));
}

#[tokio::test]
async fn a_stored_204_has_no_length() {
    let origin = Origin::builder()
        .on("/a", Reply::status(204).field("Cache-Control", "max-age=60"))
        .start()
        .await;
    let proxy = Inside::before(&origin, "").await;
    for _ in 0..2 {
        let response = proxy.get("/a").await;
        assert_eq!((response.status, response.field("content-length")), (204, None));
    }
    assert_eq!(origin.request_count(), 1);
}

#[tokio::test]
async fn a_limit_of_freshness_counts_for_validated_responses_too() {
    let origin = Origin::builder()
        .answering(|request| match request.field("if-none-match") {
            Some(_) => Reply::status(304)
                .field("ETag", "\"a\"")
                .field("Cache-Control", "max-age=100"),
            None => Reply::fresh(100, "kept").field("ETag", "\"a\""),
        })
        .start()
        .await;
    let proxy = Inside::before(&origin, "cache: { memory: { max_ttl: 10s } }\n").await;
    for status in [
        "fwd=uri-miss; stored; ttl=10",
        "fwd=stale; fwd-status=304; stored; ttl=10",
    ] {
        assert_eq!(proxy.get("/a").await.cache_status(), status);
        assert_eq!(proxy.get("/a").await.cache_status(), "hit; ttl=10; detail=l1");
        proxy.advance(11);
    }
}
