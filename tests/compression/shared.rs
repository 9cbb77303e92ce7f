//! Forms that one instance has made and others use, by way of Redis.

use super::{LEVELS, accepting, best_is_made, fresh_page, page, read};
use crate::support::client::Response;
use crate::support::inside::Inside;
use crate::support::origin::{Origin, Reply};
use crate::support::redis::Redis;
use crate::support::within;
use forebay::cache::purge::{Pattern, What};

async fn instance(origin: &Origin, redis: &Redis) -> Inside {
    let yaml = format!(
        "defaults: {{ compression: {{ {LEVELS} }} }}\ncache: {{ redis: {{ url: \"{}\", deadline: 5s }} }}",
        redis.url()
    );
    let proxy = Inside::before(origin, &yaml).await;
    proxy.follows(true).await;
    proxy
}

async fn compressions(proxy: &Inside, result: &str) -> f64 {
    proxy.metric("forebay_compressions_total", &[("result", result)]).await
}

/// The names of forms in Redis, as soon as there are so many.
async fn forms(redis: &Redis, count: usize) -> Vec<String> {
    within(&format!("{count} forms in Redis"), async {
        loop {
            let names = redis.command(&["KEYS", "forebay:f:*"]).await;
            let names: Vec<String> = names.lines().map(str::to_owned).collect();
            if names.iter().filter(|name| !name.is_empty()).count() == count {
                return names;
            }
        }
    })
    .await
}

/// Has a response stored, and sent in a coding.
async fn in_coding(proxy: &Inside, coding: &str) -> Response {
    proxy.get("/a").await;
    proxy.request("GET", "/a", &accepting(coding), b"").await
}

#[tokio::test]
async fn what_one_has_compressed_the_others_send() {
    let redis = Redis::start().await;
    let origin = Origin::builder().on("/a", fresh_page(50_000)).start().await;
    let first = instance(&origin, &redis).await;
    let quick = in_coding(&first, "zstd").await;
    assert_eq!(quick.field("content-encoding"), Some("zstd"));
    forms(&redis, 1).await;

    let second = instance(&origin, &redis).await;
    let shared = second.request("GET", "/a", &accepting("zstd"), b"").await;
    assert!(shared.cache_status().ends_with("detail=l2"));
    assert_eq!((&shared.body, shared.field("etag")), (&quick.body, quick.field("etag")));
    assert_eq!(read(&shared), page(50_000));
    let made = (
        compressions(&second, "stored").await,
        compressions(&second, "shared").await,
    );
    assert_eq!(made, (0.0, 1.0));
    // Another coding is made where it is first asked for.
    let other = second.request("GET", "/a", &accepting("br"), b"").await;
    assert_eq!(read(&other), page(50_000));
    assert_eq!(compressions(&second, "stored").await, 1.0);
    forms(&redis, 2).await;

    // The best is made once for all, too.
    for _ in 0..3 {
        first.request("GET", "/a", &accepting("zstd"), b"").await;
    }
    best_is_made(&first).await;
    let best = loop {
        let response = first.request("GET", "/a", &accepting("zstd"), b"").await;
        if response.body.len() < quick.body.len() {
            break response;
        }
    };
    let late = within("the best form in Redis", async {
        loop {
            let late = instance(&origin, &redis).await;
            if late.request("GET", "/a", &accepting("zstd"), b"").await.body == best.body {
                return late;
            }
        }
    })
    .await;
    assert_eq!(compressions(&late, "stored").await, 0.0);
    for _ in 0..4 {
        second.request("GET", "/a", &accepting("zstd"), b"").await;
    }
    second
        .metric_becomes("forebay_compressions_total", &[("result", "shared")], 2.0)
        .await;
    assert_eq!(compressions(&second, "best").await, 0.0);
    assert_eq!(origin.request_count(), 1);
}

#[tokio::test]
async fn that_it_does_not_pay_is_told_too() {
    let redis = Redis::start().await;
    let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(5_000).collect();
    let reply = Reply::fresh(60, noise.clone()).field("Content-Type", "text/plain");
    let origin = Origin::builder().on("/a", reply).start().await;
    let first = instance(&origin, &redis).await;
    assert_eq!(in_coding(&first, "zstd").await.body, noise);
    forms(&redis, 1).await;
    let second = instance(&origin, &redis).await;
    assert_eq!(in_coding(&second, "zstd").await.body, noise);
    let made = (
        compressions(&second, "worthless").await,
        compressions(&second, "shared").await,
    );
    assert_eq!(made, (0.0, 1.0));
}

#[tokio::test]
async fn a_form_goes_with_the_very_body_that_it_was_made_of() {
    let redis = Redis::start().await;
    let origin = Origin::builder().on("/a", fresh_page(20_000)).start().await;
    let first = instance(&origin, &redis).await;
    in_coding(&first, "br").await;
    let old = forms(&redis, 1).await.remove(0);
    // The response is lost, and the next one is longer.
    let responses = redis.command(&["KEYS", "forebay:r:*"]).await;
    redis.command(&["DEL", &responses]).await;
    let longer = Origin::builder().on("/a", fresh_page(30_000)).start().await;
    let second = instance(&longer, &redis).await;
    let response = in_coding(&second, "br").await;
    assert_eq!(read(&response), page(30_000));
    assert_eq!(compressions(&second, "shared").await, 0.0);
    let names = forms(&redis, 2).await;
    let new = names.iter().find(|name| **name != old).unwrap();
    // Even where one stands in another's place.
    redis.command(&["COPY", &old, new, "REPLACE"]).await;
    let third = instance(&longer, &redis).await;
    let response = third.request("GET", "/a", &accepting("br"), b"").await;
    assert!(response.cache_status().ends_with("detail=l2"));
    assert_eq!(read(&response), page(30_000));
    let fault = [("operation", "get"), ("kind", "value_key")];
    assert_eq!(third.metric("forebay_redis_errors_total", &fault).await, 1.0);
    assert_eq!(compressions(&third, "shared").await, 0.0);
}

#[tokio::test]
async fn broken_forms_are_made_anew() {
    let redis = Redis::start().await;
    let origin = Origin::builder().on("/a", fresh_page(20_000)).start().await;
    let first = instance(&origin, &redis).await;
    in_coding(&first, "gzip").await;
    let name = forms(&redis, 1).await.remove(0);
    redis.command(&["SETRANGE", &name, "200", "xxxx"]).await;
    let second = instance(&origin, &redis).await;
    let response = second.request("GET", "/a", &accepting("gzip"), b"").await;
    assert_eq!(response.field("content-encoding"), Some("gzip"));
    assert_eq!(read(&response), page(20_000));
    let fault = [("operation", "get"), ("kind", "value_broken")];
    assert_eq!(second.metric("forebay_redis_errors_total", &fault).await, 1.0);
    assert_eq!(compressions(&second, "stored").await, 1.0);
}

#[tokio::test]
async fn a_purge_takes_the_forms_with_it() {
    let redis = Redis::start().await;
    let reply = || fresh_page(20_000).field("Cache-Tag", "list");
    let origin = Origin::builder().on("/a", reply()).start().await;
    for what in [What::Pattern(Pattern::Everything), What::tags(["list"])] {
        redis.command(&["FLUSHALL"]).await;
        let first = instance(&origin, &redis).await;
        let second = instance(&origin, &redis).await;
        in_coding(&first, "br").await;
        forms(&redis, 1).await;
        assert_eq!(second.request("GET", "/a", &accepting("br"), b"").await.status, 200);
        assert_eq!(compressions(&second, "shared").await, 1.0);
        first.purge_for_all(what.clone()).await;
        let before = origin.request_count();
        // The same body comes again, and is compressed again.
        in_coding(&first, "br").await;
        assert_eq!(origin.request_count(), before + 1, "{what:?}");
        assert_eq!(compressions(&first, "shared").await, 0.0, "{what:?}");
        assert_eq!(compressions(&first, "stored").await, 2.0, "{what:?}");
    }
}

#[tokio::test]
async fn nobody_waits_for_a_redis_that_does_not_answer() {
    let redis = Redis::start().await;
    let origin = Origin::builder().on("/a", fresh_page(20_000)).start().await;
    let yaml = format!(
        "defaults: {{ compression: on }}\ncache: {{ redis: {{ url: \"{}\", deadline: 50ms }} }}",
        redis.url()
    );
    let proxy = Inside::before(&origin, &yaml).await;
    proxy.follows(true).await;
    proxy.get("/a").await;
    redis.pause();
    let response = proxy.request("GET", "/a", &accepting("br"), b"").await;
    redis.resume();
    assert_eq!(response.field("content-encoding"), Some("br"));
    assert_eq!(read(&response), page(20_000));
}
