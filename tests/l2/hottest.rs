//! What is asked for most, counted over all instances and over restarts.

use nix::sys::signal::Signal;

use crate::support::inside::Inside;
use crate::support::origin::{Gate, Origin, Reply};
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;
use crate::support::within;

/// Nothing is stored in Redis, so that the origin sees what is warmed up.
fn sections(redis: &Redis, more: &str) -> String {
    format!(
        "cache: {{ redis: {{ url: \"{}\", write: around }}{more} }}\n",
        redis.url()
    )
}

#[tokio::test]
async fn a_new_process_warms_up_what_those_before_it_were_asked_for_most() {
    let (redis, origin) = (
        Redis::start().await,
        Origin::builder().otherwise(Reply::fresh(600, "x")).start().await,
    );
    let mut before = Proxy::before(&origin, &sections(&redis, "")).await;
    before.metric_becomes("forebay_coherence_followed", &[], 1.0).await;
    let other = Inside::before(&origin, &sections(&redis, "")).await;
    other.follows(true).await;
    let mut client = before.client().await;
    for (path, times) in [("/cold", 1), ("/hot", 6), ("/both", 4)] {
        for _ in 0..times {
            client.get(path).await;
        }
    }
    let mut client = other.client().await;
    for _ in 0..3 {
        client.get("/both").await;
    }
    // Each adds what it has counted: one now, the other one when it ends.
    other.proxy().tell_hottest().await;
    other.proxy().tell_hottest().await;
    before.signal(Signal::SIGTERM);
    assert!(before.wait_exit().await.success());
    let names = redis.command(&["KEYS", "forebay:{hot}:*"]).await;
    assert!(names.lines().count() >= 1, "{names}");
    for name in names.lines() {
        let left: i64 = redis.command(&["TTL", name]).await.parse().unwrap();
        assert!(left > 0, "{name} would stay for ever");
    }

    let count = origin.request_count();
    let warm = ", warm: { sources: [{ hottest: 2 }], concurrency: 1 }";
    let after = Inside::before(&origin, &sections(&redis, warm)).await;
    after.stored(2).await;
    let targets: Vec<_> = origin
        .requests()
        .into_iter()
        .skip(count)
        .map(|request| request.target)
        .collect();
    assert_eq!(targets, ["/both", "/hot"]);
    let hottest = after.proxy().hottest(2).await;
    assert_eq!(
        hottest.iter().map(|hot| hot.requests).collect::<Vec<_>>(),
        [7, 6],
        "over all instances"
    );
}

#[tokio::test]
async fn without_redis_or_with_something_else_there_the_own_counts_do() {
    let (mut redis, origin) = (
        Redis::start().await,
        Origin::builder().otherwise(Reply::fresh(600, "x")).start().await,
    );
    let proxy = Inside::before(&origin, &sections(&redis, "")).await;
    proxy.follows(true).await;
    proxy.get("/a").await;
    let own = async || {
        let hottest = proxy.proxy().hottest(5).await;
        hottest.into_iter().map(|hot| hot.requests).collect::<Vec<_>>()
    };
    proxy.proxy().tell_hottest().await;
    let name = redis.command(&["KEYS", "forebay:{hot}:*"]).await;
    redis.command(&["SET", name.trim(), "garbage"]).await;
    assert_eq!(own().await, [1]);
    proxy.get("/a").await;
    proxy.proxy().tell_hottest().await;
    assert_eq!(own().await, [2]);
    assert!(
        proxy
            .metric("forebay_redis_errors_total", &[("operation", "hot")])
            .await
            >= 1.0
    );
    redis.kill().await;
    proxy.get("/a").await;
    proxy.proxy().tell_hottest().await;
    assert_eq!(own().await, [3]);
}

#[tokio::test]
async fn of_all_instances_one_refreshes_ahead_of_time() {
    let gate = Gate::new();
    let held = gate.clone();
    let redis = Redis::start().await;
    let origin = Origin::builder()
        .answering(move |request| {
            let reply = match request.field("if-none-match") {
                Some(_) => Reply::status(304).hold(&held),
                None => Reply::ok("x"),
            };
            reply.field("ETag", "\"1\"").field("Cache-Control", "max-age=6")
        })
        .start()
        .await;
    let sections = format!(
        "cache: {{ redis: {{ url: \"{}\" }} }}\ndefaults: {{ cache: {{ refresh_ahead: {{ before: 50% }}, collapse: cluster }} }}\n",
        redis.url()
    );
    let instances = [
        Inside::before(&origin, &sections).await,
        Inside::before(&origin, &sections).await,
    ];
    for proxy in &instances {
        proxy.follows(true).await;
        proxy.metric_becomes("forebay_leases_heard", &[], 1.0).await;
        within("what is in L2", async {
            while !proxy.get("/a").await.cache_status().starts_with("hit") {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    assert_eq!(origin.request_count(), 1);
    // Ages in Redis follow its own clock, which no test moves.
    for proxy in &instances {
        within("a refresh", async {
            while proxy.metric("forebay_cache_refreshed_ahead_total", &[]).await < 1.0 {
                assert!(proxy.get("/a").await.cache_status().starts_with("hit"));
            }
        })
        .await;
    }
    gate.reached(1).await;
    gate.release();
    for proxy in &instances {
        within("its new lifetime", async {
            let is_new = |status: &str| {
                ["hit; ttl=6", "hit; ttl=5", "hit; ttl=4"]
                    .iter()
                    .any(|new| status.starts_with(new))
            };
            while !is_new(proxy.get("/a").await.cache_status()) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    assert_eq!(origin.request_count(), 2, "the other one has it from there");
}
