//! Several instances, one Redis.

use std::time::Duration;

use ::redis::cmd;
use forebay::clock::Clock;

use crate::support::inside::{Inside, http_date};
use crate::support::origin::{Origin, Reply};
use crate::support::redis::Redis;
use crate::support::within;

/// Sections that name this Redis, with more keys for it. The deadline is for machines under load.
fn sections(redis: &Redis, more: &str) -> String {
    format!(
        "cache: {{ redis: {{ url: \"{}\", deadline: 5s, {more} }} }}",
        redis.url()
    )
}

/// An instance that has a connection to Redis.
async fn instance(origin: &Origin, redis: &Redis, more: &str) -> Inside {
    instance_at(origin, redis, more, &Clock::new()).await
}

async fn instance_at(origin: &Origin, redis: &Redis, more: &str, clock: &Clock) -> Inside {
    let proxy = Inside::with_clock(origin, &sections(redis, more), clock).await;
    proxy.follows(true).await;
    proxy
}

/// Waits until there are so many keys in Redis.
async fn keys(redis: &Redis, count: usize) {
    within(&format!("{count} keys in Redis"), async {
        while names(redis).await.len() != count {}
    })
    .await;
}

pub async fn only_key(redis: &Redis) -> String {
    keys(redis, 1).await;
    names(redis).await.remove(0)
}

/// Without those that purges are told by.
async fn names(redis: &Redis) -> Vec<String> {
    let names = redis.command(&["KEYS", "*r:{*"]).await;
    names.lines().map(str::to_owned).collect()
}

/// How often Redis has run a command.
async fn calls(redis: &Redis, command: &str) -> usize {
    let stats = redis.command(&["INFO", "commandstats"]).await;
    let line = stats
        .lines()
        .find_map(|line| line.trim().strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
}

/// Lets time pass for Redis alone: what stands there is as if it had been written so much earlier.
pub async fn age(redis: &Redis, key: &str, millis: i64) {
    let client = ::redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut value: Vec<u8> = cmd("GET").arg(key).query_async(&mut connection).await.unwrap();
    let left: i64 = cmd("PTTL").arg(key).query_async(&mut connection).await.unwrap();
    // Version and checksum, kind and coding, the time.
    let at = i64::from_le_bytes(value[22..30].try_into().unwrap()) - millis;
    value[22..30].copy_from_slice(&at.to_le_bytes());
    let sum = xxhash_rust::xxh3::xxh3_128(&value[20..]);
    value[4..20].copy_from_slice(&sum.to_le_bytes());
    let mut set = cmd("SET");
    set.arg(key).arg(value).arg("PX").arg((left - millis).max(1));
    let () = set.query_async(&mut connection).await.unwrap();
}

#[tokio::test]
async fn what_one_has_fetched_the_others_have_with_its_true_age() {
    let redis = Redis::start().await;
    let origin = Origin::builder()
        .on("/a", Reply::fresh(60, "kept").field("Age", "5"))
        .start()
        .await;
    let first = instance(&origin, &redis, "").await;
    first.get("/a").await;
    let key = only_key(&redis).await;
    assert!(key.starts_with("forebay:r:{"), "{key}");
    for (offset, passed) in [(0, 0), (3600, 10_000), (7200, 10_000)] {
        age(&redis, &key, passed).await;
        let clock = Clock::new();
        clock.advance(Duration::from_secs(offset));
        let other = instance_at(&origin, &redis, "", &clock).await;
        let response = other.get("/a").await;
        assert_eq!((response.status, response.text()), (200, "kept"));
        let age: i64 = response.field("age").unwrap().parse().unwrap();
        let least = 5 + i64::try_from(offset / 3600 * 10).unwrap();
        assert!((least..least + 5).contains(&age), "{age} at {offset}");
        assert_eq!(response.cache_status(), format!("hit; ttl={}; detail=l2", 60 - age));
        assert_eq!(other.cache_results("hit_l2").await, 1.0);
        // From now on it is in memory.
        assert!(other.get("/a").await.cache_status().ends_with("detail=l1"));
        assert_eq!(origin.request_count(), 1);
    }
    // When its lifetime is over it is over everywhere.
    age(&redis, &key, 40_000).await;
    let late = instance(&origin, &redis, "").await;
    assert!(late.get("/a").await.cache_status().starts_with("fwd="));
    assert_eq!(origin.request_count(), 2);
}

#[tokio::test]
async fn a_lifetime_ends_in_redis_with_what_may_be_done_with_it() {
    let redis = Redis::start().await;
    let origin = Origin::builder()
        .on("/plain", Reply::fresh(60, "a"))
        .on("/etag", Reply::fresh(60, "a").field("ETag", "\"a\""))
        .on(
            "/swr",
            Reply::ok("a").field("Cache-Control", "max-age=60, stale-while-revalidate=3600"),
        )
        .start()
        .await;
    for (target, more, expected) in [
        ("/plain", "", 60_000),
        ("/etag", "", 660_000),
        ("/swr", "", 3_660_000),
        ("/swr", "max_ttl: 30s", 30_000),
    ] {
        redis.command(&["FLUSHALL"]).await;
        let proxy = instance(&origin, &redis, more).await;
        proxy.get(target).await;
        let key = only_key(&redis).await;
        let left: i64 = redis.command(&["PTTL", &key]).await.parse().unwrap();
        assert!((expected - 5_000..=expected).contains(&left), "{target}: {left}");
    }
}

#[tokio::test]
async fn variants_are_found_by_their_fields() {
    let redis = Redis::start().await;
    let origin = Origin::builder()
        .answering(|request| {
            let language = request.field("accept-language").unwrap_or("none").to_owned();
            Reply::fresh(60, language).field("Vary", "Accept-Language")
        })
        .start()
        .await;
    let first = instance(&origin, &redis, "").await;
    for language in ["de", "en", "fr"] {
        first.request("GET", "/a", &[("Accept-Language", language)], b"").await;
        // One after the other: the first makes the index.
        within("a variant in Redis", async { while calls(&redis, "set").await < 2 {} }).await;
    }
    keys(&redis, 4).await;
    let second = instance(&origin, &redis, "").await;
    for language in ["en", "de", "fr"] {
        let response = second.request("GET", "/a", &[("Accept-Language", language)], b"").await;
        assert_eq!(response.text(), language);
        assert!(
            response.cache_status().ends_with("detail=l2"),
            "{}",
            response.cache_status()
        );
    }
    assert_eq!(origin.request_count(), 3);
    let other = second.request("GET", "/a", &[("Accept-Language", "it")], b"").await;
    assert_eq!((other.text(), origin.request_count()), ("it", 4));
}

/// RFC 9111 §4.1: the one without `Vary` is chosen where no other fits.
#[tokio::test]
async fn rfc9111_4_1_a_response_without_vary_stands_beside_variants() {
    for unvaried_first in [true, false] {
        let redis = Redis::start().await;
        let origin = Origin::builder()
            .answering(|request| match request.field("accept-language") {
                None => Reply::fresh(60, "plain"),
                Some(language) => Reply::fresh(60, language.to_owned()).field("Vary", "Accept-Language"),
            })
            .start()
            .await;
        let mut languages = [None, Some("de"), Some("en")];
        if !unvaried_first {
            languages.rotate_left(1);
        }
        let writer = instance(&origin, &redis, "write: through").await;
        let fields = |language: Option<&'static str>| language.map(|language| ("Accept-Language", language));
        for language in languages {
            // Whoever does not insist may get the one without `Vary`.
            let mut request = vec![("Cache-Control", "no-cache")];
            request.extend(fields(language));
            let response = writer.request("GET", "/a", &request, b"").await;
            assert_eq!(response.text(), language.unwrap_or("plain"));
        }
        for (language, expected) in [
            (None, "plain"),
            (Some("de"), "de"),
            (Some("en"), "en"),
            (Some("fr"), "plain"),
        ] {
            // One that has nothing of it in memory.
            let reader = instance(&origin, &redis, "write: around").await;
            let request: Vec<_> = fields(language).into_iter().collect();
            let response = reader.request("GET", "/a", &request, b"").await;
            assert_eq!(response.text(), expected, "{unvaried_first}");
            assert!(
                response.cache_status().ends_with("detail=l2"),
                "{}",
                response.cache_status()
            );
        }
        assert_eq!(origin.request_count(), 3);
    }
}

#[tokio::test]
async fn what_is_stale_is_validated_and_written_back() {
    let redis = Redis::start().await;
    let origin = Origin::builder()
        .answering(|request| match request.field("if-none-match") {
            Some("\"a\"") => Reply::status(304)
                .field("ETag", "\"a\"")
                .field("Cache-Control", "max-age=60"),
            _ => Reply::fresh(60, "kept").field("ETag", "\"a\""),
        })
        .start()
        .await;
    let first = instance(&origin, &redis, "").await;
    first.get("/a").await;
    let key = only_key(&redis).await;
    age(&redis, &key, 100_000).await;
    let second = instance(&origin, &redis, "").await;
    let response = second.get("/a").await;
    assert_eq!((response.status, response.text()), (200, "kept"));
    assert!(
        response.cache_status().starts_with("fwd=stale; fwd-status=304"),
        "{}",
        response.cache_status()
    );
    assert_eq!(second.cache_results("revalidated").await, 1.0);
    within("the freshened response in Redis", async {
        while redis.command(&["PTTL", &key]).await.parse::<i64>().unwrap() < 600_000 {}
    })
    .await;
    let third = instance(&origin, &redis, "").await;
    assert!(third.get("/a").await.cache_status().ends_with("detail=l2"));
    assert_eq!(origin.request_count(), 2);
    // What is stale in memory may be fresh in Redis.
    first.advance(100);
    let response = first.get("/a").await;
    assert!(
        response.cache_status().ends_with("detail=l2"),
        "{}",
        response.cache_status()
    );
    assert_eq!(origin.request_count(), 2);
}

#[tokio::test]
async fn an_unsafe_request_empties_both_tiers() {
    let redis = Redis::start().await;
    let origin = Origin::builder().otherwise(Reply::fresh(60, "kept")).start().await;
    let first = instance(&origin, &redis, "").await;
    first.get("/a").await;
    keys(&redis, 1).await;
    first.request("POST", "/a", &[], b"").await;
    keys(&redis, 0).await;
    let second = instance(&origin, &redis, "").await;
    assert!(second.get("/a").await.cache_status().starts_with("fwd=uri-miss"));
}

#[tokio::test]
async fn what_cannot_be_read_is_a_miss_and_goes() {
    let redis = Redis::start().await;
    let origin = Origin::builder().otherwise(Reply::fresh(60, "kept")).start().await;
    let first = instance(&origin, &redis, "").await;
    first.get("/a").await;
    let key = only_key(&redis).await;
    first.get("/b").await;
    keys(&redis, 2).await;
    let other = names(&redis).await.into_iter().find(|name| *name != key).unwrap();
    for (kind, command) in [
        ("value_version", vec!["SETRANGE", &*key, "3", "x"]),
        ("value_broken", vec!["SETRANGE", &*key, "60", "xxxx"]),
        ("value_broken", vec!["SET", &*key, "x"]),
        ("value_key", vec!["COPY", &*other, &*key, "REPLACE"]),
    ] {
        redis.command(&command).await;
        let proxy = instance(&origin, &redis, "write: around").await;
        let response = proxy.get("/a").await;
        assert_eq!((response.status, response.text()), (200, "kept"));
        assert!(response.cache_status().starts_with("fwd=uri-miss"), "{kind}");
        let labels = [("operation", "get"), ("kind", kind)];
        assert_eq!(proxy.metric("forebay_redis_errors_total", &labels).await, 1.0);
        within("its end", async {
            while redis.command(&["EXISTS", &key]).await != "0" {}
        })
        .await;
        // As it was.
        let again = instance(&origin, &redis, "write: through").await;
        again.get("/a").await;
    }
    // Of another type.
    redis.command(&["DEL", &key]).await;
    redis.command(&["LPUSH", &key, "x"]).await;
    let proxy = instance(&origin, &redis, "").await;
    assert_eq!(proxy.get("/a").await.status, 200);
}

#[tokio::test]
async fn write_through_around_and_what_is_too_large() {
    let redis = Redis::start().await;
    let origin = Origin::builder()
        .on("/a", Reply::fresh(60, "kept"))
        .on("/large", Reply::fresh(60, vec![b'x'; 2000]))
        .start()
        .await;
    let proxy = instance(&origin, &redis, "write: through, max_body: 1000").await;
    proxy.get("/large").await;
    proxy.get("/a").await;
    // Before the client had it all.
    assert_eq!(names(&redis).await.len(), 1);
    let reader = instance(&origin, &redis, "write: around").await;
    assert!(reader.get("/a").await.cache_status().ends_with("detail=l2"));
    reader.get("/large").await;
    reader.get("/a?other").await;
    assert_eq!(names(&redis).await.len(), 1);
}

#[tokio::test]
async fn prefixes_separate_tenants() {
    let redis = Redis::start().await;
    let origin = Origin::builder().otherwise(Reply::fresh(60, "kept")).start().await;
    let first = instance(&origin, &redis, "prefix: \"a:\", write: through").await;
    first.get("/a").await;
    let second = instance(&origin, &redis, "prefix: \"b:\"").await;
    assert!(second.get("/a").await.cache_status().starts_with("fwd="));
}

#[tokio::test]
async fn many_who_miss_at_once_ask_redis_once() {
    let redis = Redis::start().await;
    let origin = Origin::builder().otherwise(Reply::fresh(60, "kept")).start().await;
    let first = instance(&origin, &redis, "write: through").await;
    first.get("/a").await;
    first.get("/b").await;
    for (target, fields) in [("/a", &[][..]), ("/b", &[("Range", "bytes=0-1")])] {
        let second = instance(&origin, &redis, "").await;
        let before = calls(&redis, "get").await;
        redis.pause();
        let mut clients = Vec::new();
        for _ in 0..50 {
            let mut client = second.client().await;
            client.send_request("GET", target, fields, b"").await;
            clients.push(client);
        }
        second.in_flight(50).await;
        redis.resume();
        for client in &mut clients {
            let response = client.response().await;
            assert!(
                response.cache_status().contains("detail="),
                "{}",
                response.cache_status()
            );
        }
        assert_eq!(calls(&redis, "get").await - before, 1, "{target}");
    }
    assert_eq!(origin.request_count(), 2);
}

#[tokio::test]
async fn conditions_and_ranges_are_answered_out_of_redis() {
    let redis = Redis::start().await;
    let modified = http_date(
        std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        0,
    );
    let origin = Origin::builder()
        .otherwise(
            Reply::fresh(60, "0123456789")
                .field("ETag", "\"a\"")
                .field("Last-Modified", &modified),
        )
        .start()
        .await;
    let first = instance(&origin, &redis, "write: through").await;
    first.get("/a").await;
    for (fields, status, body) in [
        (&[("If-None-Match", "\"a\"")][..], 304, ""),
        (&[("If-Modified-Since", &*modified)], 304, ""),
        (&[("Range", "bytes=2-4")], 206, "234"),
        (&[("Cache-Control", "only-if-cached")], 200, "0123456789"),
    ] {
        let proxy = instance(&origin, &redis, "").await;
        let mut client = proxy.client().await;
        client.send_request("GET", "/a", fields, b"").await;
        let response = match status {
            304 => client.response_without_body().await,
            _ => client.response().await,
        };
        assert_eq!((response.status, response.text()), (status, body), "{fields:?}");
        assert!(
            response.cache_status().ends_with("detail=l2"),
            "{}",
            response.cache_status()
        );
    }
    let proxy = instance(&origin, &redis, "").await;
    let insists = proxy.request("GET", "/a", &[("Cache-Control", "no-cache")], b"").await;
    assert!(insists.cache_status().starts_with("fwd="), "{}", insists.cache_status());
    assert_eq!(origin.request_count(), 2);
}
