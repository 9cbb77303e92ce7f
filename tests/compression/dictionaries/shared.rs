//! What one instance knows as a dictionary, the others find in Redis.

use forebay::cache::purge::{Pattern, What};

use super::{ACCEPT, WITH, ask, asset, read_with, script, versions, with_both, with_both_but_first, with_first};
use crate::compression::read;
use crate::support::client::Response;
use crate::support::inside::Inside;
use crate::support::origin::Origin;
use crate::support::redis::Redis;
use crate::support::within;

async fn instance(origin: &Origin, redis: &Redis) -> Inside {
    instance_with(origin, redis, "5s").await
}

async fn instance_with(origin: &Origin, redis: &Redis, deadline: &str) -> Inside {
    let url = redis.url();
    let yaml = format!("{WITH}cache: {{ redis: {{ url: \"{url}\", deadline: {deadline} }} }}\n");
    let proxy = Inside::before(origin, &yaml).await;
    proxy.follows(true).await;
    proxy
}

/// The names of dictionaries in Redis, as soon as there are so many.
async fn dictionaries(redis: &Redis, count: usize) -> Vec<String> {
    within(&format!("{count} dictionaries in Redis"), async {
        loop {
            let names = redis.command(&["KEYS", "forebay:d:*"]).await;
            let names: Vec<String> = names.lines().map(str::to_owned).collect();
            if names.iter().filter(|name| !name.is_empty()).count() == count {
                return names;
            }
        }
    })
    .await
}

/// Redis knows version 1 as a dictionary, and nothing of version 2.
async fn known(origin: &Origin, redis: &Redis) -> Inside {
    let first = instance(origin, redis).await;
    with_first(&first).await;
    dictionaries(redis, 1).await;
    first
}

#[track_caller]
fn is_difference(response: &Response) {
    assert_eq!(response.field("content-encoding"), Some("dcz"));
    assert!(response.body.len() < 300, "{}", response.body.len());
    assert_eq!(read_with(response, &script(1)), script(2));
}

#[track_caller]
fn is_whole(response: &Response) {
    assert_eq!(response.field("content-encoding"), Some("zstd"));
    assert_eq!(read(response), script(2));
}

#[tokio::test]
async fn another_instance_uses_it_with_the_first_request() {
    let redis = Redis::start().await;
    let origin = versions().await;
    drop(known(&origin, &redis).await);
    // Its response comes from the origin, while the dictionary is looked for.
    let second = instance(&origin, &redis).await;
    let response = ask(&second, "/app.2.js", ACCEPT, &[]).await;
    assert!(response.cache_status().contains("fwd=uri-miss"));
    is_difference(&response);
    // It comes from Redis.
    let third = instance(&origin, &redis).await;
    within("version 2 in Redis", async {
        while redis.command(&["KEYS", "forebay:r:*"]).await.lines().count() < 2 {}
    })
    .await;
    let response = ask(&third, "/app.2.js", ACCEPT, &[]).await;
    assert!(response.cache_status().ends_with("detail=l2"));
    is_difference(&response);
    // It is in memory.
    let fourth = instance(&origin, &redis).await;
    fourth.get("/app.2.js").await;
    let response = ask(&fourth, "/app.2.js", ACCEPT, &[]).await;
    assert!(response.cache_status().ends_with("detail=l1"));
    is_difference(&response);
    assert!(fourth.metric("forebay_dictionary_bytes", &[]).await > script(1).len() as f64);
    assert_eq!(origin.request_count(), 2);
}

#[tokio::test]
async fn a_purge_is_for_dictionaries_everywhere() {
    let redis = Redis::start().await;
    let origin = Origin::builder()
        .on("/app.1.js", super::dictionary(1).field("Cache-Tag", "scripts"))
        .on("/app.2.js", asset(script(2)))
        .start()
        .await;
    for what in [
        What::Pattern(Pattern::Prefix("/app.1.js".to_owned())),
        What::tags(["scripts"]),
    ] {
        redis.command(&["FLUSHALL"]).await;
        let first = known(&origin, &redis).await;
        // One that has it in memory, and one that would have to look.
        let (second, third) = (instance(&origin, &redis).await, instance(&origin, &redis).await);
        is_difference(&ask(&second, "/app.2.js", ACCEPT, &[]).await);
        third.get("/app.2.js").await;
        first.purge_for_all(what.clone()).await;
        within("the purge everywhere", async {
            while ask(&second, "/app.2.js", ACCEPT, &[]).await.field("content-encoding") == Some("dcz") {}
        })
        .await;
        for proxy in [&first, &second, &third] {
            is_whole(&ask(proxy, "/app.2.js", ACCEPT, &[]).await);
        }
        // One that comes later cannot find it either.
        is_whole(&ask(&instance(&origin, &redis).await, "/app.2.js", ACCEPT, &[]).await);
    }
}

#[tokio::test]
async fn another_host_has_none_of_it() {
    let redis = Redis::start().await;
    let origin = Origin::builder()
        .on("/app.1.js", super::dictionary(1))
        .on("/app.2.js", asset(script(2)))
        .start()
        .await;
    drop(known(&origin, &redis).await);
    let second = instance(&origin, &redis).await;
    let host = [("Host", "other.example")];
    is_whole(&ask(&second, "/app.2.js", ACCEPT, &host).await);
    // The same bytes are a dictionary of each for itself.
    let response = second.request("GET", "/app.1.js", &host, b"").await;
    assert!(response.cache_status().contains("stored"), "{response:?}");
    dictionaries(&redis, 2).await;
    let third = instance(&origin, &redis).await;
    is_difference(&ask(&third, "/app.2.js", ACCEPT, &host).await);
    is_difference(&ask(&third, "/app.2.js", ACCEPT, &[]).await);
}

#[tokio::test]
async fn what_is_broken_or_another_one_is_not_used() {
    let redis = Redis::start().await;
    let origin = Origin::builder()
        .on("/app.1.js", super::dictionary(1))
        .on("/app.2.js", super::dictionary(2))
        .on("/app.3.js", super::dictionary(3))
        .start()
        .await;
    let first = known(&origin, &redis).await;
    let own = dictionaries(&redis, 1).await.remove(0);
    first.get("/app.3.js").await;
    let names = dictionaries(&redis, 2).await;
    let other = names.iter().find(|name| **name != own).unwrap();
    redis.command(&["COPY", other, &own, "REPLACE"]).await;
    let fault = |kind| [("operation", "get"), ("kind", kind)];
    let second = instance(&origin, &redis).await;
    is_whole(&ask(&second, "/app.2.js", ACCEPT, &[]).await);
    let faults = second.metric("forebay_redis_errors_total", &fault("value_key")).await;
    assert_eq!(faults, 1.0);
    redis.command(&["COPY", other, &own, "REPLACE"]).await;
    redis.command(&["SETRANGE", &own, "300", "xxxx"]).await;
    let third = instance(&origin, &redis).await;
    is_whole(&ask(&third, "/app.2.js", ACCEPT, &[]).await);
    let faults = third.metric("forebay_redis_errors_total", &fault("value_broken")).await;
    assert_eq!(faults, 1.0);
}

#[tokio::test]
async fn nobody_waits_for_a_redis_that_does_not_answer() {
    let redis = Redis::start().await;
    let origin = versions().await;
    drop(known(&origin, &redis).await);
    let second = instance_with(&origin, &redis, "50ms").await;
    second.get("/app.2.js").await;
    redis.pause();
    let response = ask(&second, "/app.2.js", ACCEPT, &[]).await;
    redis.resume();
    is_whole(&response);
}

#[tokio::test]
async fn it_lives_as_long_as_its_response_is_confirmed() {
    let redis = Redis::start().await;
    let origin = Origin::builder()
        .answering(
            |request| match (request.target.as_str(), request.field("if-none-match")) {
                ("/app.1.js", Some(_)) => crate::support::origin::Reply::status(304)
                    .field("Cache-Control", "max-age=7200")
                    .field("ETag", "\"v\""),
                ("/app.1.js", None) => super::dictionary(1),
                _ => asset(script(2)),
            },
        )
        .start()
        .await;
    let first = known(&origin, &redis).await;
    let name = dictionaries(&redis, 1).await.remove(0);
    let left = async || redis.command(&["TTL", &name]).await.trim().parse::<u64>().unwrap();
    assert!(left().await <= 4_200);
    let anew = [("Cache-Control", "no-cache")];
    let confirmed = first.request("GET", "/app.1.js", &anew, b"").await;
    let status = confirmed.cache_status();
    assert!(status.contains("fwd-status=304"), "{status}");
    within("more time", async { while left().await < 7_200 {} }).await;
}

#[tokio::test]
async fn differences_go_to_redis_too() {
    let redis = Redis::start().await;
    let origin = versions().await;
    let first = instance(&origin, &redis).await;
    with_both(&first).await;
    within("the form in Redis", async {
        while redis.command(&["KEYS", "forebay:f:*"]).await.is_empty() {}
    })
    .await;
    // What another instance has stored is a dictionary here, as soon as it is read.
    let second = instance(&origin, &redis).await;
    second.get("/app.1.js").await;
    with_both_but_first(&second).await;
    assert_eq!(
        second
            .metric("forebay_compressions_total", &[("result", "dictionary")])
            .await,
        0.0
    );
    assert_eq!(origin.request_count(), 2);
}
