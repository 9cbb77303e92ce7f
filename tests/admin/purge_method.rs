//! `PURGE` on the listeners of clients.

use forebay::clock::Clock;
use http::Request;

use super::{ADMIN, ask};
use crate::support::client::{Http2Client, Response, http2_request};
use crate::support::inside::Inside;
use crate::support::origin::{Origin, Reply};
use crate::support::redis::Redis;
use crate::support::within;

/// `/open` takes PURGE requests from here, `/closed` from elsewhere, and everything else takes none.
const ROUTES: &str = "routes:
  - { name: open, match: { path_prefix: /open }, upstream: default, purge: { allow: [127.0.0.0/8] } }
  - { name: closed, match: { path_prefix: /closed }, upstream: default, purge: { allow: [192.0.2.1] } }
trusted_proxies: [127.0.0.1]
";

async fn tagged() -> Origin {
    Origin::builder()
        .answering(|request| match request.method.as_str() {
            "GET" => Reply::fresh(600, "x")
                .field("ETag", "\"1\"")
                .field("Vary", "Accept-Language"),
            _ => Reply::ok("the app's"),
        })
        .start()
        .await
}

fn is_hit(response: &Response) -> bool {
    response.cache_status().starts_with("hit")
}

#[tokio::test]
async fn who_is_listed_purges_a_url_with_all_its_variants() {
    let origin = tagged().await;
    let proxy = Inside::before(&origin, ROUTES).await;
    let german = [("Accept-Language", "de")];
    for _ in 0..2 {
        proxy.get("/open/a?x=1").await;
        proxy.request("GET", "/open/a?x=1", &german, b"").await;
        proxy.get("/open/a").await;
    }
    assert_eq!(origin.request_count(), 3);
    let purged = proxy.request("PURGE", "/open/%61?x=1", &[], b"").await;
    assert_eq!(purged.status, 200);
    let report = purged.json();
    assert_eq!(
        (
            report["responses"].as_u64(),
            report["soft"].as_bool(),
            report["waiting"].as_u64()
        ),
        (Some(2), Some(false), Some(0)),
        "{report}"
    );
    assert_eq!(purged.field("cache-control"), Some("no-store"));
    assert!(is_hit(&proxy.get("/open/a").await), "another URL");
    assert!(!is_hit(&proxy.get("/open/a?x=1").await));
    assert!(!is_hit(&proxy.request("GET", "/open/a?x=1", &german, b"").await));
    assert!(
        origin.requests().iter().all(|request| request.method == "GET"),
        "no PURGE goes on"
    );
}

#[tokio::test]
async fn the_scheme_and_the_version_do_not_matter() {
    let origin = tagged().await;
    let yaml = format!(
        "listeners: [{{ address: 127.0.0.1:0, http2: true }}]\nupstream: http://{}\n{ROUTES}",
        origin.server()
    );
    let proxy = Inside::start(&yaml, Clock::new()).await;
    let mut client = Http2Client::connect(proxy.address()).await;
    // What is named with https here is what came over http there.
    for purge in [
        http2_request("PURGE", "/open/a", &[]),
        Request::builder()
            .method("PURGE")
            .uri("http://test/open/a")
            .body(())
            .unwrap(),
    ] {
        proxy.get("/open/a").await;
        let purged = client.request(purge, b"").await.unwrap();
        assert_eq!((purged.status, purged.json()["responses"].as_u64()), (200, Some(1)));
        assert!(!is_hit(&proxy.get("/open/a").await));
    }
}

#[tokio::test]
async fn a_soft_one_has_it_validated() {
    let origin = tagged().await;
    let proxy = Inside::before(&origin, ROUTES).await;
    for name in ["X-Purge-Soft", "Fastly-Soft-Purge"] {
        proxy.get("/open/a").await;
        let purged = proxy.request("PURGE", "/open/a", &[(name, "1")], b"").await;
        assert_eq!(
            (purged.json()["responses"].as_u64(), purged.json()["soft"].as_bool()),
            (Some(1), Some(true))
        );
        proxy.get("/open/a").await;
        assert_eq!(origin.last_request().field("if-none-match"), Some("\"1\""), "{name}");
    }
}

#[tokio::test]
async fn others_are_refused_and_nothing_goes_on() {
    let origin = tagged().await;
    let proxy = Inside::before(&origin, ROUTES).await;
    for target in ["/open/a", "/closed/a", "/a"] {
        proxy.get(target).await;
    }
    type Case = (&'static str, &'static [(&'static str, &'static str)], u16, &'static str);
    let table: [Case; 8] = [
        ("/closed/a", &[], 403, "purge-denied"),
        // Whom the trusted proxy speaks for counts.
        ("/open/a", &[("X-Forwarded-For", "198.51.100.7")], 403, "purge-denied"),
        ("/a", &[], 405, "no-purge"),
        ("/open/a", &[("X-Purge-Soft", "maybe")], 400, "bad-purge"),
        ("/open/a", &[("Cache-Tag", "all")], 400, "bad-purge"),
        ("/open/a", &[("Surrogate-Key", "all")], 400, "bad-purge"),
        ("/open/a", &[("xkey", "all")], 400, "bad-purge"),
        ("/open/../a", &[], 400, "path-ambiguous"),
    ];
    for (target, fields, status, reason) in table {
        let refused = proxy.request("PURGE", target, fields, b"").await;
        assert_eq!(refused.status, status, "{target} {fields:?}");
        if reason != "path-ambiguous" {
            assert_eq!(refused.json()["reason"], reason, "{target} {fields:?}");
        }
    }
    assert!(proxy.request("PURGE", "/a", &[], b"").await.field("allow").is_some());
    for target in ["/open/a", "/closed/a", "/a"] {
        assert!(is_hit(&proxy.get(target).await), "{target}");
    }
    assert_eq!(origin.request_count(), 3);
    let listed = [("X-Forwarded-For", "192.0.2.1")];
    let purged = proxy.request("PURGE", "/closed/a", &listed, b"").await;
    assert_eq!((purged.status, purged.json()["responses"].as_u64()), (200, Some(1)));
}

#[tokio::test]
async fn where_no_route_says_so_it_is_a_method_of_the_apps() {
    let origin = tagged().await;
    let proxy = Inside::before(&origin, ADMIN).await;
    let answered = proxy.request("PURGE", "/a", &[], b"").await;
    assert_eq!((answered.status, answered.text()), (200, "the app's"));
    assert_eq!(origin.last_request().method, "PURGE");
    assert_eq!(ask(proxy.admin_address(), "PURGE", "/purge", &[], "").await.status, 405);
}

#[tokio::test]
async fn every_instance_follows_and_202_says_that_they_will() {
    let (mut redis, origin) = (Redis::start().await, tagged().await);
    let sections = format!("{ROUTES}cache: {{ redis: {{ url: \"{}\" }} }}\n", redis.url());
    let (one, other) = (
        Inside::before(&origin, &sections).await,
        Inside::before(&origin, &sections).await,
    );
    for proxy in [&one, &other] {
        proxy.follows(true).await;
        within("what is stored", async {
            while !is_hit(&proxy.get("/open/a").await) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    let before = origin.request_count();
    assert_eq!(one.request("PURGE", "/open/a", &[], b"").await.status, 200);
    within("the purge there", async {
        while origin.request_count() == before {
            other.get("/open/a").await;
        }
    })
    .await;
    redis.kill().await;
    one.follows(false).await;
    let purged = one.request("PURGE", "/open/a", &[], b"").await;
    assert_eq!((purged.status, purged.json()["waiting"].as_u64()), (202, Some(1)));
}
