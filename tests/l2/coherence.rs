//! One purge for all instances, whatever becomes of Redis.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use forebay::cache::coherence::Recorded;
use forebay::cache::purge::{Pattern, What};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::support::fault::{Fault, FaultProxy};
use crate::support::inside::Inside;
use crate::support::origin::{Origin, Reply};
use crate::support::redis::Redis;
use crate::support::within;

/// By path, how often it has been written to: that is what a GET of it says, tagged with its path.
async fn versions() -> Origin {
    let versions: Mutex<HashMap<String, usize>> = Mutex::default();
    Origin::builder()
        .answering(move |request| {
            let mut versions = versions.lock();
            let version = versions.entry(request.target.clone()).or_default();
            if request.method == "GET" {
                let tag = request.target.trim_start_matches('/');
                return Reply::fresh(3600, version.to_string()).field("Cache-Tag", tag);
            }
            *version += 1;
            Reply::status(204)
        })
        .start()
        .await
}

async fn instance(origin: &Origin, redis: &Redis, more: &str) -> Inside {
    let proxy = sharing(origin, redis, more, "instance").await;
    proxy.follows(true).await;
    proxy
}

/// One that shares fetches with these.
async fn sharing(origin: &Origin, redis: &Redis, more: &str, with: &str) -> Inside {
    let sections = format!(
        "cache: {{ redis: {{ url: \"{}\"{more} }} }}\ndefaults: {{ cache: {{ collapse: {with} }} }}\n",
        redis.url()
    );
    let proxy = Inside::before(origin, &sections).await;
    proxy.follows(true).await;
    proxy
}

/// Asks until this is the answer.
async fn becomes(proxy: &Inside, target: &str, wanted: &str) {
    within(&format!("{target} to be {wanted}"), async {
        while proxy.get(target).await.text() != wanted {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_purge_on_one_instance_is_one_on_all_and_in_redis() {
    let (redis, origin) = (Redis::start().await, versions().await);
    let (one, other) = (instance(&origin, &redis, "").await, instance(&origin, &redis, "").await);
    for target in ["/a", "/b"] {
        assert_eq!(one.get(target).await.text(), "0");
        within("what one has stored", async {
            while !other.get(target).await.cache_status().contains("hit") {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    // An unsafe request, and a tag.
    one.request("POST", "/a", &[], b"x").await;
    assert_eq!(one.get("/a").await.text(), "1");
    becomes(&other, "/a", "1").await;
    assert_eq!(one.purge_for_all(What::tags(["b"])).await, Recorded::InLog);
    let count = origin.request_count();
    within("the other instance to ask again", async {
        while origin.request_count() == count {
            other.get("/b").await;
        }
    })
    .await;
    // One that starts now knows of both from the log, and finds nothing old in Redis.
    let third = instance(&origin, &redis, "").await;
    assert_eq!(third.get("/a").await.text(), "1");
    let status = third.get("/a").await;
    assert!(status.cache_status().contains("hit"), "{}", status.raw_head);
}

/// Nothing from before a purge is seen behind its answer here, nor 100 ms later elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fills_and_purges_race_and_nothing_old_stays() {
    fills_and_purges_race("instance").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fills_that_are_shared_and_purges_race_and_nothing_old_stays() {
    fills_and_purges_race("cluster").await;
}

async fn fills_and_purges_race(sharing_with: &str) {
    let races: usize = match std::env::var("FOREBAY_RACES") {
        Ok(races) => races.parse().unwrap(),
        Err(_) => 300,
    };
    let (redis, origin) = (Redis::start().await, versions().await);
    let one = Arc::new(sharing(&origin, &redis, "", sharing_with).await);
    let other = Arc::new(sharing(&origin, &redis, "", sharing_with).await);
    if sharing_with == "cluster" {
        for proxy in [&one, &other] {
            proxy.metric_becomes("forebay_leases_heard", &[], 1.0).await;
        }
    }
    let stale_later = Arc::new(AtomicUsize::new(0));
    let mut readers = [one.client().await, other.client().await];
    let mut writers = [one.client().await, other.client().await];
    let (mut background, mut later) = (Vec::new(), Vec::new());
    for proxy in [&one, &other] {
        let mut client = proxy.client().await;
        background.push(tokio::spawn(async move {
            let mut at = 0;
            loop {
                client.get(&format!("/{}", at % 8)).await;
                at += 1;
            }
        }));
    }
    for race in 0..races {
        let target = format!("/{}", race % 8);
        let here = race / 8 % 2;
        let wanted = race / 8 + 1;
        writers[here].request("POST", &target, &[], b"x").await;
        let answered = Instant::now();
        let seen: usize = readers[here].get(&target).await.text().parse().unwrap();
        assert!(seen >= wanted, "race {race}: {seen} where {wanted} had been written");
        let elsewhere = if here == 0 { other.clone() } else { one.clone() };
        let stale_later = stale_later.clone();
        later.push(tokio::spawn(async move {
            tokio::time::sleep_until(answered + Duration::from_millis(100)).await;
            let seen: usize = elsewhere.get(&target).await.text().parse().unwrap();
            if seen < wanted {
                stale_later.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    for check in later {
        check.await.unwrap();
    }
    background.iter().for_each(tokio::task::JoinHandle::abort);
    assert_eq!(stale_later.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn what_was_purged_while_redis_was_away_is_told_when_it_is_back() {
    let (mut redis, origin) = (Redis::start().await, versions().await);
    let (one, other) = (instance(&origin, &redis, "").await, instance(&origin, &redis, "").await);
    for proxy in [&one, &other] {
        assert_eq!(proxy.get("/a").await.text(), "0");
    }
    redis.kill().await;
    for proxy in [&one, &other] {
        proxy.follows(false).await;
    }
    one.request("POST", "/a", &[], b"x").await;
    assert_eq!(one.get("/a").await.text(), "1");
    let queued = one.purge_for_all(What::tags(["b"])).await;
    assert_eq!(queued, Recorded::Queued { waiting: 2 });
    // What is fresh lives on where nothing can be known.
    assert_eq!(other.get("/a").await.text(), "0");
    redis.restart().await;
    for proxy in [&one, &other] {
        proxy.follows(true).await;
    }
    one.metric_becomes("forebay_coherence_waiting_purges", &[], 0.0).await;
    becomes(&other, "/a", "1").await;
}

#[tokio::test]
async fn a_pause_costs_nothing_but_the_time_to_read_on() {
    let (redis, origin) = (Redis::start().await, versions().await);
    let (one, other) = (instance(&origin, &redis, "").await, instance(&origin, &redis, "").await);
    for target in ["/a", "/b"] {
        other.get(target).await;
    }
    redis.command(&["CLIENT", "KILL", "TYPE", "normal"]).await;
    one.follows(true).await;
    one.request("POST", "/a", &[], b"x").await;
    becomes(&other, "/a", "1").await;
    // Nothing was lost, so nothing else went.
    let count = origin.request_count();
    assert_eq!(other.get("/b").await.text(), "0");
    assert_eq!(origin.request_count(), count);
}

#[tokio::test]
async fn lost_bookkeeping_counts_as_a_purge_of_everything() {
    let (redis, origin) = (Redis::start().await, versions().await);
    let one = instance(&origin, &redis, "").await;
    let lose: [&[&[&str]]; 4] = [
        &[&["FLUSHALL"]],
        &[&["DEL", "forebay:{coherence}:incarnation"]],
        &[
            &["DEL", "forebay:{coherence}:log"],
            &["DEL", "forebay:{coherence}:incarnation"],
        ],
        // As a replica that has not got everything.
        &[
            &["DEL", "forebay:{coherence}:log"],
            &["SET", "forebay:{coherence}:incarnation", "00000000000000aa"],
        ],
    ];
    for commands in lose {
        one.get("/a").await;
        one.get("/a").await;
        one.stored(1).await;
        for command in commands {
            redis.command(command).await;
        }
        one.stored(0).await;
        one.follows(true).await;
    }
}

/// As it was before the last purge, and with another one in its place.
#[tokio::test]
async fn a_replica_that_lacks_a_purge_brings_nothing_back() {
    for others_have_purged in [false, true] {
        let (mut redis, origin) = (Redis::start().await, versions().await);
        let network = FaultProxy::before(redis.address()).await;
        let url = format!("redis://{}", network.address());
        let (one, other) = (at(&origin, &url).await, at(&origin, &url).await);
        for proxy in [&one, &other] {
            assert_eq!(proxy.get("/a").await.text(), "0");
        }
        within("it in Redis", async {
            while redis.command(&["KEYS", "*r:{*"]).await.is_empty() {}
        })
        .await;
        // A replica, which is cut off.
        let replica = Redis::start().await;
        replicates(&replica, &redis).await;
        replica.command(&["REPLICAOF", "NO", "ONE"]).await;
        one.request("POST", "/a", &[], b"x").await;
        assert_eq!(one.get("/a").await.text(), "1");
        becomes(&other, "/a", "1").await;
        // It takes over, at the same address.
        network.set(Fault::Cut);
        for proxy in [&one, &other] {
            proxy.follows(false).await;
        }
        redis.kill().await;
        redis.restart().await;
        replicates(&redis, &replica).await;
        redis.command(&["REPLICAOF", "NO", "ONE"]).await;
        if others_have_purged {
            let third = instance(&origin, &redis, "").await;
            assert_eq!(third.purge_for_all(What::tags(["x"])).await, Recorded::InLog);
            third.purge_for_all(What::tags(["x"])).await;
        }
        network.set(Fault::None);
        for proxy in [&one, &other] {
            proxy.follows(true).await;
        }
        let fourth = at(&origin, &url).await;
        for proxy in [&one, &other, &fourth] {
            assert_eq!(proxy.get("/a").await.text(), "1", "others: {others_have_purged}");
        }
    }
}

async fn at(origin: &Origin, url: &str) -> Inside {
    let proxy = Inside::before(origin, &format!("cache: {{ redis: {{ url: \"{url}\" }} }}\n")).await;
    proxy.follows(true).await;
    proxy
}

/// Has one take over everything that another one has.
async fn replicates(replica: &Redis, master: &Redis) {
    let port = master.port().to_string();
    replica.command(&["REPLICAOF", "127.0.0.1", &port]).await;
    replica.until_replicated().await;
}

#[tokio::test]
async fn a_log_that_was_trimmed_past_an_instance_clears_its_memory() {
    let (redis, origin) = (Redis::start().await, versions().await);
    let (one, other) = (instance(&origin, &redis, "").await, instance(&origin, &redis, "").await);
    other.get("/a").await;
    other.stored(1).await;
    one.get("/x").await;
    // In one transaction, so that the other instance reads nothing in between: two purges, of which it gets to see none.
    let script = "local l = KEYS[1]; local last = redis.call('XREVRANGE', l, '+', '-', 'COUNT', 1)[1][1]; \
        local n = tonumber(string.match(last, '^%d+')); \
        for i = 1, 3 do redis.call('XADD', l, (n + i) .. '-0', 'nonce', 'x', 'from', 'y', 'purge', \
        '{\"what\":{\"labels\":[1]},\"how\":\"hard\"}') end; redis.call('XTRIM', l, 'MAXLEN', 1); return 1";
    redis.command(&["EVAL", script, "1", "forebay:{coherence}:log"]).await;
    for proxy in [&one, &other] {
        proxy.stored(0).await;
        proxy.follows(true).await;
    }
}

#[tokio::test]
async fn with_a_coherence_timeout_memory_is_validated_while_purges_cannot_be_followed() {
    let (mut redis, origin) = (Redis::start().await, versions().await);
    let one = instance(&origin, &redis, ", coherence_timeout: 1s").await;
    assert_eq!(one.get("/a").await.text(), "0");
    redis.kill().await;
    one.follows(false).await;
    one.advance(2);
    let count = origin.request_count();
    within("the origin to be asked", async {
        while origin.request_count() == count {
            assert_eq!(one.get("/a").await.text(), "0");
        }
    })
    .await;
    assert_eq!(
        one.purge_for_all(What::Pattern(Pattern::Everything)).await,
        Recorded::Queued { waiting: 1 }
    );
}
