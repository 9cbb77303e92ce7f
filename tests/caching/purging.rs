//! Purges by tag, group, URI and pattern, hard and soft.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use forebay::cache::purge::{Pattern, What};
use forebay::message::Scheme;
use forebay::rfc9111::invalidation::ResourceUri;

use crate::support::client::Response;
use crate::support::inside::Inside;
use crate::support::origin::{Gate, Origin, Reply, Request};
use crate::support::within;

/// Answers GETs with their number and these fields, fresh for an hour; everything else with 204.
async fn numbering(fields: impl Fn(&Request) -> Vec<(&'static str, String)> + Send + Sync + 'static) -> Origin {
    let gets = Arc::new(AtomicUsize::new(1));
    let answer = move |request: &Request| {
        if request.method != "GET" {
            let reply = Reply::status(204);
            return fields(request)
                .iter()
                .fold(reply, |reply, (name, value)| reply.field(name, value));
        }
        let number = gets.fetch_add(1, Ordering::Relaxed);
        let reply = Reply::fresh(3600, number.to_string());
        fields(request)
            .iter()
            .fold(reply, |reply, (name, value)| reply.field(name, value))
    };
    Origin::builder().answering(answer).start().await
}

/// `/a/b` is tagged with `a` and `b`.
fn segments(request: &Request) -> Vec<(&'static str, String)> {
    vec![("Cache-Tag", request.target.replace('/', " "))]
}

async fn texts<const N: usize>(proxy: &Inside, targets: [&str; N]) -> [String; N] {
    let mut texts = targets.map(|_| String::new());
    for (text, target) in texts.iter_mut().zip(targets) {
        *text = proxy.get(target).await.text().to_owned();
    }
    texts
}

#[tokio::test]
async fn a_tag_takes_out_what_has_it_and_nothing_else() {
    let origin = numbering(segments).await;
    let proxy = Inside::before(&origin, "").await;
    let targets = ["/a/x", "/a", "/ab", "/A", "/x"];
    assert_eq!(texts(&proxy, targets).await, ["1", "2", "3", "4", "5"]);
    assert_eq!(proxy.count_purged(&What::tags(["a"])).await, 2);
    assert_eq!(proxy.purge(What::tags(["a"])).await.labels, 1);
    assert_eq!(proxy.count_purged(&What::tags(["a"])).await, 0);
    assert_eq!(texts(&proxy, targets).await, ["6", "7", "3", "4", "5"]);
    proxy.purge(What::tags(["a", "x"])).await;
    assert_eq!(texts(&proxy, targets).await, ["8", "9", "3", "4", "10"]);
    let purges = proxy.metric("forebay_cache_purges_total", &[("what", "tag")]).await;
    assert_eq!(purges, 2.0);
}

#[tokio::test]
async fn clients_see_tags_only_where_the_route_says_so() {
    let origin = numbering(|_| {
        let names = ["Cache-Tag", "Surrogate-Key", "xkey"];
        let mut fields: Vec<_> = names.map(|name| (name, "t".to_owned())).into();
        fields.push(("Cache-Groups", "\"g\"".to_owned()));
        fields
    })
    .await;
    let sections = "routes:
  - { name: shown, match: { path_prefix: /shown }, upstream: default, cache: { tag_fields: pass } }
  - { name: site, upstream: default }
";
    let proxy = Inside::before(&origin, sections).await;
    let names = ["cache-tag", "surrogate-key", "xkey"];
    let seen = |response: &Response| names.map(|name| response.field(name).is_some());
    for method in ["POST", "GET", "GET", "HEAD"] {
        let hidden = proxy.request(method, "/hidden", &[], b"").await;
        assert_eq!(seen(&hidden), [false; 3], "{method}\n{}", hidden.raw_head);
        assert_eq!(hidden.field("cache-groups"), Some("\"g\""));
        let shown = proxy.request(method, "/shown", &[], b"").await;
        assert_eq!(seen(&shown), [true; 3], "{method}\n{}", shown.raw_head);
    }
    assert_eq!(proxy.count_purged(&What::tags(["t"])).await, 2);
}

#[tokio::test]
async fn routes_give_tags_and_unsafe_requests_purge_them() {
    let origin = numbering(|_| Vec::new()).await;
    let sections = r#"routes:
  - name: users
    match: { path_prefix: "/users/{id}" }
    upstream: default
    cache: { tags: [users, "user-{id}"] }
  - { name: site, upstream: default }
cache:
  invalidate:
    - { when: { methods: [POST, DELETE], path: "/api/users/{id}" }, purge_tags: ["user-{id}"] }
    - { when: { methods: [DELETE], path: "/api/users" }, purge_tags: [users] }
"#;
    let proxy = Inside::before(&origin, sections).await;
    let targets = ["/users/7/posts", "/users/%37", "/users/77", "/other"];
    assert_eq!(texts(&proxy, targets).await, ["1", "2", "3", "4"]);
    // Neither another method, nor one that fails, nor another path.
    proxy.request("PUT", "/api/users/7", &[], b"x").await;
    proxy.request("POST", "/api/users/7/more", &[], b"x").await;
    proxy.get("/api/users/7").await;
    assert_eq!(texts(&proxy, targets).await, ["1", "2", "3", "4"]);
    proxy.request("POST", "/api/users/%37", &[], b"x").await;
    assert_eq!(texts(&proxy, targets).await, ["6", "7", "3", "4"]);
    proxy.request("DELETE", "/api/users", &[], b"x").await;
    assert_eq!(texts(&proxy, targets).await, ["8", "9", "10", "4"]);
}

#[tokio::test]
async fn a_request_that_fails_purges_nothing() {
    let origin = Origin::builder()
        .answering(|request| match request.method.as_str() {
            "GET" => Reply::fresh(60, "x").field("Cache-Tag", "users"),
            _ => Reply::status(409),
        })
        .start()
        .await;
    let sections = "cache: { invalidate: [{ when: {}, purge_tags: [users] }] }\n";
    let proxy = Inside::before(&origin, sections).await;
    proxy.get("/a").await;
    proxy.request("POST", "/b", &[], b"x").await;
    proxy.get("/a").await;
    assert_eq!(origin.request_count(), 2);
}

#[tokio::test]
async fn rfc9875_3_groups_are_invalidated_for_their_origin() {
    let origin = numbering(|request| {
        let name = match request.method.as_str() {
            "GET" => "Cache-Groups",
            _ => "Cache-Group-Invalidation",
        };
        vec![(name, "\"one\", \"two\"".to_owned())]
    })
    .await;
    let proxy = Inside::before(&origin, "").await;
    let get = |host: &'static str| {
        let proxy = &proxy;
        async move {
            let mut client = proxy.client().await;
            client.send(&format!("GET /a HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
            client.response().await
        }
    };
    assert_eq!((get("a.test").await.text(), get("b.test").await.text()), ("1", "2"));
    let mut client = proxy.client().await;
    client
        .send("POST /b HTTP/1.1\r\nHost: A.test\r\nContent-Length: 0\r\n\r\n")
        .await;
    let answer = client.response().await;
    assert_eq!(answer.field("cache-group-invalidation"), Some("\"one\", \"two\""));
    assert_eq!((get("a.test").await.text(), get("b.test").await.text()), ("3", "2"));
    // A tag of that name is something else.
    proxy.purge(What::tags(["one"])).await;
    assert_eq!(get("a.test").await.text(), "3");
}

/// An origin that numbers its fresh responses from 1, and holds the first one.
async fn holding_the_first(gate: &Gate, with: impl Fn(Reply) -> Reply + Send + Sync + 'static) -> Origin {
    let (gate, gets) = (gate.clone(), AtomicUsize::new(1));
    Origin::builder()
        .answering(move |_| {
            let number = gets.fetch_add(1, Ordering::Relaxed);
            let reply = with(Reply::fresh(60, number.to_string()));
            if number == 1 { reply.hold(&gate) } else { reply }
        })
        .start()
        .await
}

#[tokio::test]
async fn what_was_asked_for_before_a_purge_of_its_tag_is_neither_kept_nor_shared() {
    let gate = Gate::new();
    let origin = holding_the_first(&gate, |reply| reply.field("Cache-Tag", "a")).await;
    let proxy = Inside::before(&origin, "").await;
    let mut before = proxy.client().await;
    before.send_request("GET", "/a", &[], b"").await;
    gate.reached(1).await;
    proxy.purge(What::tags(["a"])).await;
    // These can only find out what the first one's response is tagged with when it is there.
    let mut after = Vec::new();
    for _ in 0..10 {
        let mut client = proxy.client().await;
        client.send_request("GET", "/a", &[], b"").await;
        after.push(client);
    }
    proxy.in_flight(11).await;
    gate.release();
    assert_eq!(before.response().await.text(), "1");
    for mut client in after {
        assert_eq!(client.response().await.text(), "2");
    }
    assert_eq!(proxy.get("/a").await.text(), "2");
    assert_eq!(origin.request_count(), 2, "they share one");
}

#[tokio::test]
async fn a_soft_purge_has_what_it_is_about_validated() {
    let origin = Origin::builder()
        .answering(|request| {
            let reply = match request.field("if-none-match") {
                Some(_) => Reply::status(304),
                None => Reply::ok("x"),
            };
            let reply = reply.field("ETag", "\"1\"");
            reply.field("Cache-Control", "max-age=60, stale-while-revalidate=60")
        })
        .start()
        .await;
    let sections =
        "routes: [{ name: all, match: { path: \"/{id}\" }, upstream: default, cache: { tags: [\"t-{id}\"] } }]\n";
    let proxy = Inside::before(&origin, sections).await;
    let uri = |target: &str| ResourceUri {
        scheme: Scheme::Http,
        authority: "test".into(),
        target: target.into(),
    };
    let purges = [
        ("/a", What::tags(["t-a"])),
        ("/b", What::Uris(vec![uri("/b")])),
        ("/c", What::Pattern(Pattern::Prefix("/c".into()))),
        ("/d", What::Pattern(Pattern::Route("all".into()))),
    ];
    for (target, what) in purges {
        proxy.get(target).await;
        let count = origin.request_count();
        proxy.purge_softly(what).await;
        let validated = proxy.get(target).await;
        assert_eq!(validated.text(), "x");
        assert!(
            validated.cache_status().contains("fwd=stale; fwd-status=304"),
            "{target}: {}",
            validated.cache_status()
        );
        assert_eq!(origin.request_count(), count + 1);
        assert!(proxy.get(target).await.cache_status().starts_with("hit"), "{target}");
    }
    // Its tags are still known.
    proxy.purge(What::tags(["t-a"])).await;
    assert!(proxy.get("/a").await.cache_status().contains("fwd=uri-miss"));
}

#[tokio::test]
async fn what_is_purged_softly_stands_in_for_an_origin_that_fails() {
    let tagged = || Reply::ok("x").field("Cache-Tag", "t");
    let origin = Origin::builder()
        .on_each(
            "/a",
            [
                tagged().field("Cache-Control", "max-age=60, stale-if-error=60"),
                Reply::status(503),
            ],
        )
        .start()
        .await;
    let proxy = Inside::before(&origin, "").await;
    proxy.get("/a").await;
    proxy.purge_softly(What::tags(["t"])).await;
    assert_eq!(proxy.get("/a").await.text(), "x");
    assert_eq!(origin.request_count(), 2);
    proxy.purge(What::tags(["t"])).await;
    assert_eq!(proxy.get("/a").await.status, 503);
}

#[tokio::test]
async fn patterns_take_out_what_they_cover() {
    let origin = numbering(|_| Vec::new()).await;
    let sections = "routes:
  - { name: docs, match: { path_prefix: /docs }, upstream: default }
  - { name: site, upstream: default }
";
    let proxy = Inside::before(&origin, sections).await;
    let targets = ["/docs/a", "/docs/a?q", "/docs", "/x.png"];
    let cases = [
        (Pattern::Prefix("/docs/".into()), 2),
        (Pattern::Prefix("http://test/docs".into()), 3),
        (Pattern::Prefix("http://other.test/docs".into()), 0),
        (Pattern::Glob("/*.png".into()), 1),
        (Pattern::Host("test".into()), 4),
        (Pattern::Host("other.test".into()), 0),
        (Pattern::Route("docs".into()), 3),
        (Pattern::Everything, 4),
    ];
    for (pattern, count) in cases {
        texts(&proxy, targets).await;
        let before = origin.request_count();
        let what = What::Pattern(pattern.clone());
        assert_eq!(proxy.count_purged(&what).await, count, "{pattern:?}");
        assert_eq!(proxy.purge(what).await.responses, count, "{pattern:?}");
        texts(&proxy, targets).await;
        assert_eq!(origin.request_count() - before, count as usize, "{pattern:?}");
    }
}

#[tokio::test]
async fn a_fill_that_a_pattern_covers_is_not_kept() {
    let gate = Gate::new();
    let origin = holding_the_first(&gate, |reply| reply).await;
    let proxy = Inside::before(&origin, "").await;
    let mut before = proxy.client().await;
    before.send_request("GET", "/a/b", &[], b"").await;
    gate.reached(1).await;
    proxy.purge(What::Pattern(Pattern::Prefix("/a".into()))).await;
    assert_eq!(proxy.get("/a/b").await.text(), "2");
    gate.release();
    assert_eq!(before.response().await.text(), "1");
    assert_eq!(proxy.get("/a/b").await.text(), "2");
}

#[tokio::test]
async fn a_304_keeps_tags_or_names_new_ones() {
    let tagged = |reply: Reply, tag: &str| {
        let reply = reply.field("ETag", "\"1\"").field("Cache-Control", "max-age=10");
        if tag.is_empty() {
            reply
        } else {
            reply.field("Cache-Tag", tag)
        }
    };
    let origin = Origin::builder()
        .on_each(
            "/a",
            [
                tagged(Reply::ok("x"), "one"),
                tagged(Reply::status(304), ""),
                tagged(Reply::status(304), "two"),
            ],
        )
        .start()
        .await;
    let proxy = Inside::before(&origin, "").await;
    for (one, two) in [(1, 0), (1, 0), (0, 1)] {
        proxy.get("/a").await;
        assert_eq!(proxy.count_purged(&What::tags(["one"])).await, one);
        assert_eq!(proxy.count_purged(&What::tags(["two"])).await, two);
        proxy.advance(11);
    }
    assert_eq!(origin.request_count(), 3);
}

#[tokio::test]
async fn the_memory_of_purged_tags_is_freed() {
    let origin = numbering(segments).await;
    let proxy = Inside::before(&origin, "").await;
    for number in 0..20 {
        proxy.get(&format!("/gone/{number}")).await;
        proxy.get(&format!("/left/{number}")).await;
    }
    proxy.stored(40).await;
    proxy.purge(What::tags(["gone"])).await;
    proxy.stored(20).await;
    assert!(proxy.get("/left/1").await.cache_status().starts_with("hit"));
}

#[tokio::test]
async fn a_tag_of_100_000_responses_is_purged_at_once() {
    const MANY: usize = 100_000;
    let origin = numbering(|_| vec![("Cache-Tag", "all".to_owned())]).await;
    let proxy = Inside::before(&origin, "cache: { memory: { size: 1GiB } }\n").await;
    let mut client = proxy.client().await;
    for target in ["/first", "/last"] {
        client.get(target).await;
    }
    let memory = &proxy.proxy().cache.memory;
    let key = |number: usize| {
        let uri = ResourceUri {
            scheme: Scheme::Http,
            authority: "example.org".into(),
            target: format!("/{number}"),
        };
        forebay::key::CacheKey::of_uri(&uri, &Default::default())
    };
    // As that many requests would leave it.
    let uri = ResourceUri {
        scheme: Scheme::Http,
        authority: "test".into(),
        target: "/first".into(),
    };
    let first = memory
        .get(&forebay::key::CacheKey::of_uri(&uri, &Default::default()))
        .unwrap();
    let stored = first.iter().next().unwrap();
    for number in 0..MANY {
        let copy = stored.updated(stored.meta.clone(), stored.fields.unpack());
        memory.store("default", &key(number), Arc::new(copy));
    }
    // Of some, because others are at work on this machine, too.
    let mut took = Duration::MAX;
    for _ in 0..5 {
        let began = Instant::now();
        proxy.purge(What::tags(["all"])).await;
        took = took.min(began.elapsed());
    }
    assert!(took < Duration::from_millis(10), "{took:?}");
    assert!((0..MANY).step_by(997).all(|number| memory.get(&key(number)).is_none()));
    assert_eq!(client.get("/last").await.text(), "3");
    within("the sweep", async {
        while memory.len() > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn unsafe_requests_purge_globs_of_their_own_site_with_what_the_path_captures() {
    let origin = numbering(|_| Vec::new()).await;
    let sections = r#"cache:
  invalidate:
    - { when: { methods: [PUT], path: "/api/users/{id}" }, purge_globs: ["/api/users/{id}/*", "/lists/*"] }
"#;
    let proxy = Inside::before(&origin, sections).await;
    let targets = ["/api/users/7/posts", "/api/users/77/posts", "/lists/a?b", "/other"];
    assert_eq!(texts(&proxy, targets).await, ["1", "2", "3", "4"]);
    let mut elsewhere = proxy.client().await;
    elsewhere
        .send("PUT /api/users/7 HTTP/1.1\r\nHost: another.test\r\nContent-Length: 0\r\n\r\n")
        .await;
    elsewhere.response().await;
    assert_eq!(texts(&proxy, targets).await, ["1", "2", "3", "4"], "another site");
    proxy.request("PUT", "/api/users/%37", &[], b"x").await;
    assert_eq!(texts(&proxy, targets).await, ["5", "2", "6", "4"]);
    // An asterisk of the client's is none of the configuration's.
    proxy.request("PUT", "/api/users/*", &[], b"x").await;
    assert_eq!(texts(&proxy, targets).await, ["5", "2", "7", "4"]);
}
