//! What is kept, for whom, and what is said about it.

use crate::support::client::Client;
use crate::support::origin::{Gate, Origin, Reply, Step, Stream};
use crate::support::proxy::Proxy;

#[tokio::test]
async fn a_fresh_response_is_fetched_once() {
    let reply = Reply::fresh(60, "kept")
        .field("ETag", "\"a\"")
        .field("Connection", "X-Hop")
        .field("X-Hop", "1")
        .field("X-Own", "2");
    let origin = Origin::builder().on("/a", reply).start().await;
    let proxy = Proxy::before(&origin, "").await;
    let mut client = proxy.client().await;
    let first = client.get("/a").await;
    assert!(first.cache_status().starts_with("fwd=uri-miss"), "{}", first.raw_head);
    assert!(first.cache_status().contains("stored"), "{}", first.raw_head);
    for _ in 0..3 {
        let hit = client.get("/a").await;
        assert_eq!((hit.status, hit.text()), (200, "kept"));
        assert!(hit.cache_status().starts_with("hit"), "{}", hit.raw_head);
        let age: u32 = hit.field("age").unwrap().parse().unwrap();
        assert!(age < 30);
        assert_eq!(
            (hit.field("x-own"), hit.field("x-hop"), hit.field("etag")),
            (Some("2"), None, Some("\"a\""))
        );
        assert_eq!(hit.field("date"), first.field("date"));
        assert_ne!(
            hit.field("x-request-id"),
            first.field("x-request-id"),
            "each request has a name of its own"
        );
    }
    assert_eq!(origin.request_count(), 1);
    let labels = |result| [("route", "default"), ("result", result)];
    proxy
        .metric_becomes("forebay_cache_requests_total", &labels("hit_l1"), 3.0)
        .await;
    assert_eq!(
        proxy.metric("forebay_cache_requests_total", &labels("uri-miss")).await,
        1.0
    );
    assert_eq!(
        proxy.metric("forebay_cache_stored_responses", &[("tier", "l1")]).await,
        1.0
    );
    assert!(proxy.metric("forebay_cache_bytes", &[("tier", "l1")]).await > 4.0);
    let hit = proxy.log_entry(|entry| entry["cache"] == "hit_l1").await;
    assert_eq!((&hit["target"], &hit["status"]), (&"/a".into(), &200.into()));
}

#[tokio::test]
async fn what_may_be_kept_is_kept() {
    let mut origin = Origin::builder();
    let table = [
        ("max-age", Reply::ok("a").field("Cache-Control", "max-age=60")),
        (
            "s-maxage",
            Reply::ok("a").field("Cache-Control", "max-age=0, s-maxage=60"),
        ),
        ("capitals", Reply::ok("a").field("cache-CONTROL", "Public, Max-Age=60")),
        (
            "two lines",
            Reply::ok("a")
                .field("Cache-Control", "public")
                .field("Cache-Control", "max-age=60"),
        ),
        (
            "chunks",
            Reply::chunked(["a", "b"]).field("Cache-Control", "max-age=60"),
        ),
        ("empty", Reply::ok("").field("Cache-Control", "max-age=60")),
        (
            "a megabyte",
            Reply::ok(vec![b'a'; 1024 * 1024]).field("Cache-Control", "max-age=60"),
        ),
    ];
    for (index, (_, reply)) in table.iter().enumerate() {
        origin = origin.on(&format!("/{index}"), reply.clone());
    }
    let origin = origin.start().await;
    let proxy = Proxy::before(&origin, "").await;
    for (index, (name, _)) in table.iter().enumerate() {
        let target = format!("/{index}");
        let first = proxy.get(&target).await;
        let second = proxy.get(&target).await;
        assert!(second.cache_status().starts_with("hit"), "{name}: {}", second.raw_head);
        assert_eq!(first.body, second.body, "{name}");
        assert_eq!(origin.request_count(), index + 1, "{name}");
    }
}

#[tokio::test]
async fn what_may_not_be_kept_is_fetched_each_time() {
    let fresh = || Reply::fresh(60, "mine");
    let said = |value: &str| Reply::ok("a").field("Cache-Control", value);
    let table = [
        ("no freshness", "GET", None, Reply::ok("a")),
        ("Authorization", "GET", Some(("Authorization", "Bearer a")), fresh()),
        ("Set-Cookie", "GET", None, fresh().field("Set-Cookie", "a=b")),
        ("Vary: *", "GET", None, fresh().field("Vary", "*")),
        ("private", "GET", None, said("private, max-age=60")),
        ("no-store", "GET", None, said("no-store, max-age=60")),
        ("no-cache", "GET", None, said("no-cache, max-age=60")),
        ("already stale", "GET", None, said("max-age=0")),
        ("aged on the way", "GET", None, fresh().field("Age", "61")),
        ("s-maxage of nothing", "GET", None, said("max-age=60, s-maxage=0")),
        ("a word for a number", "GET", None, said("max-age=soon")),
        ("a negative age", "GET", None, said("max-age=-1")),
        ("a failure without freshness", "GET", None, Reply::status(500)),
        ("POST", "POST", None, fresh()),
        (
            "no known end",
            "GET",
            None,
            Reply::until_close("a").field("Cache-Control", "max-age=60"),
        ),
    ];
    let mut origin = Origin::builder();
    for (index, (.., reply)) in table.iter().enumerate() {
        origin = origin.on(&format!("/{index}"), reply.clone());
    }
    let origin = origin.start().await;
    let proxy = Proxy::before(&origin, "").await;
    for (index, (name, method, field, _)) in table.iter().enumerate() {
        let target = format!("/{index}");
        let before = origin.request_count();
        for _ in 0..2 {
            let response = proxy.request(method, &target, field.as_slice(), b"").await;
            assert!(
                response.cache_status().starts_with("fwd="),
                "{name}: {}",
                response.raw_head
            );
        }
        assert_eq!(origin.request_count() - before, 2, "{name}");
        proxy.get(&target).await;
        assert_eq!(origin.request_count() - before, 3, "{name}: somebody else got it");
    }
}

#[tokio::test]
async fn variants_are_kept_apart() {
    let reply = |text: &'static str| Reply::fresh(60, text).field("Vary", "Accept-Language");
    let origin = Origin::builder()
        .on_each("/page", [reply("english"), reply("deutsch"), reply("none")])
        .start()
        .await;
    let proxy = Proxy::before(&origin, "").await;
    for _ in 0..2 {
        for (language, text) in [(Some("en"), "english"), (Some("de"), "deutsch"), (None, "none")] {
            let fields: Vec<_> = language.into_iter().map(|value| ("Accept-Language", value)).collect();
            let response = proxy.request("GET", "/page", &fields, b"").await;
            assert_eq!(response.text(), text, "{language:?}: {}", response.raw_head);
        }
    }
    assert_eq!(origin.request_count(), 3);
}

#[tokio::test]
async fn one_clients_response_is_never_anothers() {
    let origin = Origin::builder()
        .on_each(
            "/me",
            ["ada's", "bob's", "everyone's"].map(|whose| Reply::fresh(60, whose)),
        )
        .start()
        .await;
    let proxy = Proxy::before(&origin, "").await;
    let ada = proxy
        .request("GET", "/me", &[("Authorization", "Basic YWRh")], b"")
        .await;
    let bob = proxy
        .request("GET", "/me", &[("Authorization", "Basic Ym9i")], b"")
        .await;
    let anyone = proxy.get("/me").await;
    assert_eq!(
        (ada.text(), bob.text(), anyone.text()),
        ("ada's", "bob's", "everyone's")
    );
    assert_eq!(proxy.get("/me").await.text(), "everyone's");
}

#[tokio::test]
async fn each_uri_has_its_own_response() {
    let origin = Origin::builder().otherwise(Reply::fresh(60, "kept")).start().await;
    let proxy = Proxy::before(&origin, "").await;
    let table = [
        ("a.example", "/"),
        ("b.example", "/"),
        ("a.example", "/x"),
        ("a.example", "/X"),
        ("a.example", "/x/"),
        ("a.example", "/x?"),
        ("a.example", "/x?a=1&b=2"),
        ("a.example", "/x?b=2&a=1"),
        ("a.example", "/x?a=1&b=2&"),
        ("a.example:81", "/x"),
    ];
    for (index, (host, target)) in table.iter().enumerate() {
        let response = proxy.request("GET", target, &[("Host", host)], b"").await;
        assert!(response.cache_status().starts_with("fwd"), "{host} {target}");
        assert_eq!(origin.request_count(), index + 1, "{host} {target}");
    }
    for (host, target) in table {
        let response = proxy.request("GET", target, &[("Host", host)], b"").await;
        assert!(response.cache_status().starts_with("hit"), "{host} {target}");
    }
    let capitals = proxy.request("GET", "/", &[("Host", "A.Example")], b"").await;
    assert!(capitals.cache_status().starts_with("hit"), "a host's case says nothing");
}

#[tokio::test]
async fn many_waiters_share_one_fetch() {
    let gate = Gate::new();
    let origin = Origin::builder()
        .on("/slow", Reply::fresh(60, "shared").hold(&gate))
        .start()
        .await;
    let proxy = Proxy::before(&origin, "").await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = proxy.client().await;
        client.send_request("GET", "/slow", &[], b"").await;
        clients.push(client);
    }
    gate.reached(1).await;
    proxy.metric_becomes("forebay_in_flight", &[], 20.0).await;
    gate.release();
    for client in &mut clients {
        let response = client.response().await;
        assert_eq!((response.status, response.text()), (200, "shared"));
    }
    assert_eq!(origin.request_count(), 1);
    let labels = [("route", "default"), ("result", "collapsed")];
    proxy
        .metric_becomes("forebay_cache_requests_total", &labels, 19.0)
        .await;
}

#[tokio::test]
async fn waiters_survive_whatever_becomes_of_the_fetch() {
    let gate = Gate::new();
    let closing = Reply::script([Step::Hold(gate.clone()), Step::Close]);
    let origin = Origin::builder()
        .on_each("/fails", [closing, Reply::fresh(60, "second")])
        .on_each(
            "/private",
            [
                Reply::ok("first").field("Cache-Control", "private").hold(&gate),
                Reply::ok("own"),
            ],
        )
        .on("/left", Reply::fresh(60, "late").hold(&gate))
        .start()
        .await;
    let proxy = Proxy::before(&origin, "").await;
    for path in ["/fails", "/private", "/left"] {
        let mut first = proxy.client().await;
        first.send_request("GET", path, &[], b"").await;
        origin
            .request_where(origin.request_count(), "the fetch", |_| true)
            .await;
        let mut waiters = Vec::new();
        for _ in 0..5 {
            let mut client = proxy.client().await;
            client.send_request("GET", path, &[], b"").await;
            waiters.push(client);
        }
        proxy.metric_becomes("forebay_in_flight", &[], 6.0).await;
        if path == "/left" {
            drop(first);
            gate.release();
        } else {
            gate.release();
            first.response().await;
        }
        for waiter in &mut waiters {
            let response = waiter.response().await;
            let failed = path == "/fails" && response.status == 502;
            assert!(failed || response.status == 200, "{path}: {}", response.raw_head);
            assert!(
                path != "/private" || response.text() == "own",
                "{path}: another client's private response"
            );
        }
        proxy.metric_becomes("forebay_in_flight", &[], 0.0).await;
        gate.close();
    }
}

#[tokio::test]
async fn a_response_that_breaks_off_is_not_kept() {
    let half = Reply::fresh(60, "half").declared_length(100).close();
    let chunks = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    let origin = Origin::builder()
        .on_each("/sized", [half, Reply::fresh(60, "whole")])
        .on_each("/chunks", [Reply::raw(chunks).close(), Reply::fresh(60, "whole")])
        .start()
        .await;
    let proxy = Proxy::before(&origin, "").await;
    for path in ["/sized", "/chunks"] {
        let mut client = proxy.client().await;
        client.send_request("GET", path, &[], b"").await;
        let _ = client.try_response().await;
        assert_eq!(proxy.get(path).await.text(), "whole", "{path}");
    }
}

#[tokio::test]
async fn a_stream_is_not_kept_and_nobody_waits_for_it() {
    let stream = Stream::new();
    let origin = Origin::builder()
        .on("/s", Reply::events(&stream).field("Cache-Control", "max-age=60"))
        .start()
        .await;
    let proxy = Proxy::before(&origin, "").await;
    let mut one = crate::support::client::EventSource::open(proxy.address(), "/s").await;
    let mut two = crate::support::client::EventSource::open(proxy.address(), "/s").await;
    stream.opened(2).await;
    stream.send("data: both\n\n");
    assert_eq!(
        (one.data().await, two.data().await),
        ("both".to_owned(), "both".to_owned())
    );
    assert_eq!(origin.request_count(), 2);
}

#[tokio::test]
async fn a_slow_reader_does_not_slow_the_others() {
    let body = vec![b'a'; 4 * 1024 * 1024];
    let origin = Origin::builder()
        .on("/large", Reply::fresh(60, body.clone()))
        .start()
        .await;
    let proxy = Proxy::before(&origin, "").await;
    let mut slow = Client::connect_narrow(proxy.address()).await;
    slow.send_request("GET", "/large", &[], b"").await;
    origin.request(0).await;
    let quick = proxy.get("/large").await;
    assert_eq!((quick.status, quick.body.len()), (200, body.len()));
    assert_eq!(slow.response().await.body.len(), body.len());
}

#[tokio::test]
async fn limits_and_routes_keep_responses_out() {
    let origin = Origin::builder()
        .on("/large", Reply::fresh(60, vec![b'a'; 20_000]))
        .on(
            "/chunks",
            Reply::chunked([vec![b'a'; 20_000]]).field("Cache-Control", "max-age=60"),
        )
        .on("/off", Reply::fresh(60, "off"))
        .start()
        .await;
    let sections = "cache: { memory: { size: 1MiB, max_body: 16KiB } }
routes: [{ name: off, match: { path_prefix: /off }, upstream: default, cache: false }]
";
    let proxy = Proxy::before(&origin, sections).await;
    for path in ["/large", "/chunks", "/off"] {
        let before = origin.request_count();
        for _ in 0..2 {
            let response = proxy.get(path).await;
            assert_eq!(response.status, 200);
            assert!(!response.cache_status().starts_with("hit"), "{path}");
        }
        assert_eq!(origin.request_count() - before, 2, "{path}");
    }
    let off = proxy.get("/off").await;
    assert!(off.cache_status().starts_with("fwd=bypass"), "{}", off.raw_head);
    assert_eq!(
        proxy.get("/large").await.body.len(),
        20_000,
        "too large to keep, but whole"
    );
}

#[tokio::test]
async fn memory_stays_within_its_size() {
    let origin = Origin::builder()
        .otherwise(Reply::fresh(60, vec![b'a'; 10_000]))
        .start()
        .await;
    let proxy = Proxy::before(&origin, "cache: { memory: { size: 200KiB } }\n").await;
    let mut client = proxy.client().await;
    for index in 0..100 {
        client.get(&format!("/{index}")).await;
    }
    assert!(proxy.metric("forebay_cache_bytes", &[("tier", "l1")]).await <= 200.0 * 1024.0);
    let stored = proxy.metric("forebay_cache_stored_responses", &[("tier", "l1")]).await;
    assert!((1.0..=20.0).contains(&stored), "{stored}");
    assert!(proxy.metric("forebay_cache_evictions_total", &[]).await >= 80.0);
}

#[tokio::test]
async fn a_route_that_denies_is_asked_before_the_cache() {
    let origin = Origin::builder().on("/a", Reply::fresh(60, "kept")).start().await;
    let sections = "routes: [{ match: { path_prefix: / }, upstream: default, deny: [\"127.0.0.2/32\"] }]";
    let proxy = Proxy::before(&origin, sections).await;
    proxy.get("/a").await;
    assert!(proxy.get("/a").await.cache_status().starts_with("hit"));
    let mut denied = Client::connect_from([127, 0, 0, 2], proxy.address()).await;
    assert_eq!(denied.get("/a").await.status, 403);
}
