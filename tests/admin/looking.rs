//! What can be seen.

use serde_json::json;

use super::{ADMIN, ask, look};
use crate::support::inside::Inside;
use crate::support::origin::{Origin, Reply};
use crate::support::redis::Redis;
use crate::support::within;

#[tokio::test]
async fn stats_tell_requests_rates_latencies_and_where_from() {
    let origin = Origin::builder()
        .on("/a", Reply::fresh(60, "0123456789"))
        .on("/bad", Reply::status(500))
        .start()
        .await;
    let sections = "routes: [{ name: bad, match: { path: /bad }, upstream: default, cache: off }]\n";
    let proxy = Inside::before(&origin, &format!("{ADMIN}{sections}")).await;
    for _ in 0..4 {
        proxy.get("/a").await;
    }
    proxy.get("/bad").await;
    proxy.metric_becomes("forebay_http_requests_total", &[], 5.0).await;
    let stats = look(&proxy, "/stats").await;
    for window in ["since_start", "last_10s", "last_1m"] {
        let all = &stats[window];
        assert_eq!(all["requests"], 5, "{window}: {all}");
        assert_eq!(all["results"], json!({ "hit_l1": 3, "uri-miss": 1, "bypass": 1 }));
        assert_eq!(all["hit_ratio"]["l1"], 0.75);
        assert_eq!(all["bytes_saved"], 30);
        assert_eq!(all["bytes_from_origin"], 10);
        assert_eq!(all["error_ratio"], 0.2);
        assert!(all["requests_per_second"].as_f64().unwrap() > 0.0);
        let latency = &all["latency"];
        let [p50, p99] = ["p50", "p99"].map(|name| latency[name].as_f64().unwrap());
        assert!(0.0 < p50 && p50 <= p99 && p99 < 10.0, "{latency}");
    }
    let routes: Vec<_> = stats["routes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|route| route["route"].as_str().unwrap())
        .collect();
    assert_eq!(routes, ["bad", "default"]);
    assert_eq!(stats["slowest"].as_array().unwrap().len(), 2);
    assert_eq!(stats["phase"], "ready");
    assert_eq!(stats["memory"]["stored_responses"], 1);
    assert!(stats["memory"]["resident_bytes"].as_u64().unwrap() > 1_000_000);
    assert_eq!(stats["upstreams"][0]["live"], 1);
    assert_eq!(
        (&stats["upstreams"][0]["circuit"], &stats["redis"]),
        (&json!(null), &json!(null))
    );
    // What was saved is a metric, too.
    assert_eq!(
        proxy
            .metric("forebay_http_response_bytes_total", &[("source", "cache")])
            .await,
        30.0
    );
}

#[tokio::test]
async fn a_url_shows_what_is_stored_for_it_and_why_it_would_hit_or_miss() {
    let origin = Origin::builder()
        .answering(|request| {
            let language = request.field("accept-language").unwrap_or("none").to_owned();
            Reply::fresh(60, language)
                .field("Vary", "Accept-Language")
                .field("ETag", "\"1\"")
        })
        .start()
        .await;
    let proxy = Inside::before(&origin, ADMIN).await;
    let url = "http://test/a?x=1";
    let target = format!("/cache?url={url}").replace("?x=1", "%3Fx=1");
    let before = look(&proxy, &target).await;
    assert_eq!(
        (
            before["route"].as_str(),
            before["decision"].as_str(),
            before["reason"].as_str()
        ),
        (Some("default"), Some("forward"), Some("uri-miss"))
    );
    assert_eq!(before["variants"], json!([]));
    for language in ["de", "fr"] {
        proxy
            .request("GET", "/a?x=1", &[("Accept-Language", language)], b"")
            .await;
    }
    proxy.advance(10);
    let neither = look(&proxy, &target).await;
    assert_eq!(
        (neither["decision"].as_str(), neither["reason"].as_str()),
        (Some("forward"), Some("vary-miss"))
    );
    let french = look(&proxy, &format!("{target}&header=Accept-Language:+fr")).await;
    assert_eq!(
        (french["decision"].as_str(), french["reason"].as_str()),
        (Some("hit"), None)
    );
    assert_eq!(french["requests"], 2);
    let variants = french["variants"].as_array().unwrap();
    assert_eq!(variants.len(), 2);
    let selected: Vec<_> = variants.iter().filter(|variant| variant["selected"] == true).collect();
    assert_eq!(selected.len(), 1);
    assert_eq!(
        selected[0]["vary"],
        json!([{ "name": "accept-language", "value": "fr" }])
    );
    assert_eq!(
        (
            selected[0]["age"].as_u64(),
            selected[0]["ttl"].as_i64(),
            selected[0]["fresh"].as_bool()
        ),
        (Some(10), Some(50), Some(true))
    );
    assert_eq!(
        (
            selected[0]["tier"].as_str(),
            selected[0]["etag"].as_str(),
            selected[0]["body_bytes"].as_u64()
        ),
        (Some("l1"), Some("\"1\""), Some(2))
    );
    let explained = french["explanation"].as_array().unwrap();
    assert!(
        explained
            .iter()
            .any(|line| line.as_str().unwrap().contains("route        default")),
        "{explained:?}"
    );
    proxy.advance(60);
    let stale = look(&proxy, &format!("{target}&header=Accept-Language:+fr")).await;
    assert_eq!(
        (stale["decision"].as_str(), stale["reason"].as_str()),
        (Some("validate"), Some("stale"))
    );
    assert_eq!(origin.request_count(), 2, "looking asks nobody");
    for wrong in [
        "/cache?url=x",
        "/cache?url=http://a/&b=1",
        "/cache?url=http://a/&header=x",
        "/cache/top?n=0",
    ] {
        assert_eq!(
            ask(proxy.admin_address(), "GET", wrong, &[], "").await.status,
            400,
            "{wrong}"
        );
    }
}

#[tokio::test]
async fn the_hottest_come_first() {
    let origin = Origin::builder().otherwise(Reply::fresh(60, "x")).start().await;
    let proxy = Inside::before(&origin, ADMIN).await;
    for (path, times) in [("/cold", 1), ("/hot", 5), ("/warm", 3)] {
        for _ in 0..times {
            proxy.get(path).await;
        }
    }
    let top = look(&proxy, "/cache/top?n=2").await;
    // As the client called it.
    let at = "http://test";
    assert_eq!(
        top["top"],
        json!([{ "url": format!("{at}/hot"), "requests": 5 }, { "url": format!("{at}/warm"), "requests": 3 }])
    );
}

#[tokio::test]
async fn a_drained_server_gets_no_new_requests() {
    let replies = ["a", "b"].map(|name| Origin::builder().otherwise(Reply::ok(name)));
    let [a, b] = replies;
    let (a, b) = (a.start().await, b.start().await);
    let yaml = format!(
        "listen: 127.0.0.1:0\nupstreams: {{ app: {{ servers: [\"{}\", \"{}\"] }} }}\n{ADMIN}",
        a.server(),
        b.server()
    );
    let proxy = Inside::start(&yaml, forebay::clock::Clock::new()).await;
    let server = a.server().replace(':', "%3A");
    let change = |what: &str| format!("/upstreams/app/servers/{server}/{what}");
    let drained = ask(proxy.admin_address(), "POST", &change("drain"), &[], "").await;
    assert_eq!(drained.status, 200, "{}", drained.text());
    assert_eq!(
        (drained.json()["drained"].as_bool(), drained.json()["usable"].as_bool()),
        (Some(true), Some(false))
    );
    for _ in 0..6 {
        assert_eq!(proxy.get("/").await.text(), "b");
    }
    assert_eq!(look(&proxy, "/upstreams").await["upstreams"][0]["live"], 1);
    assert_eq!(
        ask(proxy.admin_address(), "POST", &change("enable"), &[], "")
            .await
            .status,
        200
    );
    for _ in 0..6 {
        proxy.get("/").await;
    }
    assert!(a.request_count() > 0);
    let unknown = ask(
        proxy.admin_address(),
        "POST",
        "/upstreams/app/servers/x%3A1/drain",
        &[],
        "",
    )
    .await;
    assert_eq!(unknown.status, 404);
}

#[tokio::test]
async fn redis_is_looked_into_too_and_tags_are_called_by_name() {
    let redis = Redis::start().await;
    let origin = Origin::builder()
        .answering(|request| {
            let language = request.field("accept-language").unwrap_or("none").to_owned();
            Reply::fresh(60, language)
                .field("Vary", "Accept-Language")
                .field("Cache-Tag", "users, user-42")
                .field("Cache-Groups", "\"g\"")
        })
        .start()
        .await;
    let breaker = format!(
        "listen: 127.0.0.1:0\nupstreams: {{ default: {{ servers: [\"{}\"], circuit_breaker: {{ failure_threshold: 5 }} }} }}\n",
        origin.server()
    );
    let yaml = format!("{breaker}{ADMIN}cache: {{ redis: {{ url: \"{}\" }} }}\n", redis.url());
    let start = || Inside::start(&yaml, forebay::clock::Clock::new());
    let (one, other) = (start().await, start().await);
    for proxy in [&one, &other] {
        proxy.follows(true).await;
    }
    let german = [("Accept-Language", "de")];
    one.request("GET", "/a", &german, b"").await;
    one.proxy().cache.l2.as_ref().unwrap().flushed().await;
    let target = "/cache?url=http://test/a&header=Accept-Language:+de";
    let there = look(&other, target).await;
    assert_eq!(
        (&there["decision"], &there["reason"], &there["l2"]),
        (&json!("hit"), &json!(null), &json!("stored"))
    );
    let variants = there["variants"].as_array().unwrap();
    assert_eq!(variants.len(), 1, "{there}");
    let found = &variants[0];
    assert_eq!(
        (
            &found["tier"],
            &found["selected"],
            &found["fresh"],
            &found["body_bytes"]
        ),
        (&json!("l2"), &json!(true), &json!(true), &json!(2))
    );
    assert!(found["kept_seconds"].as_u64().unwrap() >= 50, "{found}");
    assert!(found["size_bytes"].as_u64().unwrap() > 50, "{found}");
    assert_eq!(
        (&found["tags"], &found["groups"]),
        (&json!(["user-42", "users"]), &json!(["g"]))
    );
    // Looking has brought nothing into memory.
    assert_eq!(
        other.metric("forebay_cache_stored_responses", &[("tier", "l1")]).await,
        0.0
    );
    let both = look(&one, target).await;
    let tiers: Vec<_> = both["variants"]
        .as_array()
        .unwrap()
        .iter()
        .map(|variant| (&variant["tier"], &variant["selected"]))
        .collect();
    assert_eq!(tiers, [(&json!("l1"), &json!(true)), (&json!("l2"), &json!(false))]);
    let french = look(&other, "/cache?url=http://test/a&header=Accept-Language:+fr").await;
    assert_eq!(
        (
            &french["decision"],
            &french["reason"],
            &french["l2"],
            &french["variants"]
        ),
        (&json!("forward"), &json!("uri-miss"), &json!("none"), &json!([]))
    );
    let stats = look(&one, "/stats").await;
    assert_eq!(
        (
            &stats["redis"]["up"],
            &stats["redis"]["followed"],
            &stats["redis"]["purges_waiting"]
        ),
        (&json!(true), &json!(true), &json!(0))
    );
    assert!(stats["redis"]["lookup_p95_seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(stats["upstreams"][0]["circuit"], "closed");
    assert_eq!(origin.request_count(), 1);
    // One purge over PURGE's own library reaches both.
    let purged = ask(one.admin_address(), "POST", "/purge", &[], "{\"tags\":[\"users\"]}").await;
    assert_eq!(purged.status, 200);
    within("the purge there", async {
        while look(&other, target).await["l2"] != "none" {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(redis);
    other.follows(false).await;
    assert_eq!(look(&other, target).await["l2"], "unavailable");
}
