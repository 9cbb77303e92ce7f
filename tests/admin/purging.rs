//! Purges by the admin listener: nothing of what was purged is served after the answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::{ADMIN, ask, look};
use crate::support::client::Client;
use crate::support::inside::Inside;
use crate::support::origin::{Origin, Reply};
use crate::support::within;

async fn purge(proxy: &Inside, body: Value) -> Value {
    let response = ask(proxy.admin_address(), "POST", "/purge", &[], &body.to_string()).await;
    assert!([200, 202].contains(&response.status), "{body}: {}", response.text());
    response.json()
}

/// Whether a request is answered without the origin.
async fn hits(proxy: &Inside, target: &str) -> bool {
    proxy.get(target).await.cache_status().starts_with("hit")
}

async fn tagged() -> Origin {
    Origin::builder()
        .answering(|request| {
            let name = request.target.trim_start_matches('/').replace('/', "-");
            Reply::fresh(600, "x")
                .field("Cache-Tag", &format!("all, {name}"))
                .field("ETag", "\"1\"")
        })
        .start()
        .await
}

#[tokio::test]
async fn what_is_named_goes_and_the_rest_stays() {
    let origin = tagged().await;
    let routes = "routes: [{ name: api, match: { path_prefix: /api }, upstream: default }]\n";
    let proxy = Inside::before(&origin, &format!("{ADMIN}{routes}")).await;
    let all = ["/api/users/1", "/api/users/2", "/api/usersx", "/page"];
    for (body, gone) in [
        (json!({ "urls": ["http://test/api/users/1"] }), &["/api/users/1"][..]),
        (json!({ "urls": ["http://test/page", "http://other/page"] }), &["/page"]),
        (json!({ "tags": ["api-users-2"] }), &["/api/users/2"]),
        (json!({ "tags": ["api-users"] }), &[]),
        (json!({ "prefixes": ["/api/users"] }), &["/api/users/1", "/api/users/2"]),
        (json!({ "globs": ["/api/users/*"] }), &["/api/users/1", "/api/users/2"]),
        (json!({ "hosts": ["other"] }), &[]),
        (
            json!({ "routes": ["api"] }),
            &["/api/users/1", "/api/users/2", "/api/usersx"],
        ),
        (json!({ "tags": ["all"] }), &all),
        (json!({ "hosts": ["test"] }), &all),
        (json!({ "everything": true }), &all),
    ] {
        for target in all {
            proxy.get(target).await;
            assert!(hits(&proxy, target).await, "{target}");
        }
        let mut dry = body.clone();
        dry["dry_run"] = true.into();
        let counted = purge(&proxy, dry).await;
        assert_eq!(
            (counted["responses"].as_u64(), counted["dry_run"].as_bool()),
            (Some(gone.len() as u64), Some(true)),
            "{body}"
        );
        for target in all {
            assert!(hits(&proxy, target).await, "counting changes nothing: {target}");
        }
        purge(&proxy, body.clone()).await;
        for target in all {
            assert_eq!(hits(&proxy, target).await, !gone.contains(&target), "{body}: {target}");
        }
    }
}

#[tokio::test]
async fn soft_purges_have_it_validated_and_later_ones_are_tasks() {
    let origin = tagged().await;
    let proxy = Inside::before(&origin, ADMIN).await;
    proxy.get("/a").await;
    let report = purge(&proxy, json!({ "urls": ["http://test/a"], "soft": true })).await;
    assert_eq!(
        (report["responses"].as_u64(), report["soft"].as_bool()),
        (Some(1), Some(true))
    );
    proxy.get("/a").await;
    assert_eq!(origin.last_request().field("if-none-match"), Some("\"1\""));

    proxy.get("/b").await;
    let task = purge(&proxy, json!({ "urls": ["http://test/b"], "after": "1h" })).await;
    assert_eq!(
        (task["state"].as_str(), task["about"].as_str()),
        (Some("running"), Some("1 urls"))
    );
    let at = format!("/tasks/{}", task["id"].as_str().unwrap());
    assert_eq!(look(&proxy, &at).await["kind"], "purge");
    assert_eq!(look(&proxy, "/tasks").await["tasks"][0]["id"], task["id"]);
    assert_eq!(
        ask(proxy.admin_address(), "DELETE", &at, &[], "").await.json()["state"],
        "cancelled"
    );
    assert_eq!(ask(proxy.admin_address(), "DELETE", &at, &[], "").await.status, 409);
    assert!(hits(&proxy, "/b").await);

    let task = purge(&proxy, json!({ "urls": ["http://test/b"], "after": "1ms" })).await;
    let at = format!("/tasks/{}", task["id"].as_str().unwrap());
    within("the task", async {
        while look(&proxy, &at).await["state"] != "done" {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(look(&proxy, &at).await["progress"]["responses"], 1);
    assert!(!hits(&proxy, "/b").await);
}

#[tokio::test]
async fn lists_are_bounded_and_bad_ones_do_nothing() {
    let origin = tagged().await;
    let proxy = Inside::before(&origin, ADMIN).await;
    proxy.get("/a").await;
    let urls: Vec<String> = (0..9_999)
        .map(|number| format!("http://test/{number}"))
        .chain(["http://test/a".to_owned()])
        .collect();
    let mut many = urls.clone();
    many.push("http://test/b".to_owned());
    for body in [
        json!({}),
        json!({ "urls": [] }),
        json!({ "urls": many }),
        json!({ "urls": ["/a"] }),
        json!({ "urls": ["http://test/a", "ftp://test/a"] }),
        json!({ "tags": [""] }),
        json!({ "tags": ["a\nb"] }),
        json!({ "tags": ["x".repeat(8193)] }),
        json!({ "globs": [format!("/{}", "*".repeat(8192))] }),
        json!({ "prefixes": ["a"] }),
        json!({ "globs": vec!["/a"; 101] }),
        json!({ "routes": ["nobody"], "everything": true }),
        json!({ "everything": true, "after": "soon" }),
        json!({ "everything": true, "after": "2d" }),
        json!({ "everything": true, "unknown": 1 }),
        json!([]),
        // By position.
        json!([[], [], [], [], [], [], true]),
        json!([["http://test/a"]]),
    ] {
        let refused = ask(proxy.admin_address(), "POST", "/purge", &[], &body.to_string()).await;
        assert_eq!(refused.status, 400, "{}", refused.text());
    }
    let form = crate::support::client::Client::connect(proxy.admin_address())
        .await
        .request(
            "POST",
            "/purge",
            &[("Host", "localhost"), ("Content-Type", "text/plain")],
            b"{\"everything\":true}",
        )
        .await;
    assert_eq!(form.status, 415);
    assert!(hits(&proxy, "/a").await);
    assert_eq!(purge(&proxy, json!({ "urls": urls })).await["responses"], 1);
    assert!(!hits(&proxy, "/a").await);
}

/// `/lang` varies by language, and `/hot` is asked for most.
async fn varying() -> Origin {
    Origin::builder()
        .answering(|request| {
            let language = request.field("accept-language").unwrap_or("none").to_owned();
            let theme = request.field("cookie").unwrap_or_default().to_owned();
            let reply = Reply::fresh(600, format!("{} {language} {theme}", request.target));
            reply
                .field("ETag", "\"1\"")
                .field("Cache-Tag", "all")
                .field("Vary", "Accept-Language")
        })
        .start()
        .await
}

/// The end of the task that asks for what was purged again.
async fn rewarmed(proxy: &Inside, report: &Value) -> Value {
    let id = report["rewarm"].as_str().unwrap_or_else(|| panic!("no task: {report}"));
    let at = format!("/tasks/{id}");
    within("the task", async {
        while look(proxy, &at).await["ended"].is_null() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    look(proxy, &at).await["progress"].clone()
}

#[tokio::test]
async fn what_was_purged_is_asked_for_again_with_what_told_its_variants_apart() {
    let origin = varying().await;
    let sections = format!(
        "{ADMIN}defaults: {{ cache: {{ key: {{ query: {{ ignore: [utm] }}, headers: [X-Kind], cookies: [theme] }} }} }}\n\
         cache: {{ warm: {{ after_purge: true, rate: 10000/s, concurrency: 1 }} }}\n"
    );
    let proxy = Inside::before(&origin, &sections).await;
    let requests: [&[(&str, &str)]; 4] = [
        &[],
        &[("Accept-Language", "de")],
        &[("X-Kind", "a b"), ("Cookie", "theme=dark; session=1")],
        &[("X-Kind", "c"), ("Accept-Language", "fr")],
    ];
    for fields in requests {
        proxy.request("GET", "/a?x=1&utm=2", fields, b"").await;
    }
    for _ in 0..50 {
        proxy.get("/hot").await;
    }
    let before = origin.request_count();
    assert_eq!(before, 5);
    for (body, count) in [
        (json!({ "urls": ["http://test/a?x=1"] }), 4),
        (json!({ "tags": ["all"] }), 5),
        (json!({ "prefixes": ["/"] }), 5),
        (json!({ "everything": true, "soft": true }), 5),
    ] {
        let before = origin.request_count();
        let progress = rewarmed(&proxy, &purge(&proxy, body.clone()).await).await;
        assert_eq!(
            (progress["total"].as_u64(), progress["stored"].as_u64()),
            (Some(count), Some(count)),
            "{body}: {progress}"
        );
        assert_eq!(origin.request_count() - before, count as usize);
        if count == 5 {
            assert_eq!(
                origin.request(before).await.target,
                "/hot",
                "what is hottest goes first"
            );
        }
        for fields in requests {
            let found = proxy.request("GET", "/a?x=1", fields, b"").await;
            assert!(found.cache_status().starts_with("hit"), "{body} {fields:?}");
        }
    }
    // A purge can say otherwise, and counting asks nobody.
    let silent = purge(&proxy, json!({ "everything": true, "rewarm": false })).await;
    assert_eq!(silent["rewarm"], Value::Null);
    let counted = purge(&proxy, json!({ "everything": true, "dry_run": true, "rewarm": true })).await;
    assert_eq!(counted["rewarm"], Value::Null);
    // What was not stored here may have been elsewhere: it was named.
    let report = purge(&proxy, json!({ "urls": ["http://test/new"] })).await;
    assert_eq!(rewarmed(&proxy, &report).await["stored"], 1);
    assert!(hits(&proxy, "/new").await);
}

#[tokio::test]
async fn purges_of_clients_are_followed_by_it_too_and_others_only_when_asked() {
    let origin = varying().await;
    let purging = "defaults: { purge: { allow: [127.0.0.1] } }\n";
    let warm = "cache: { warm: { after_purge: true } }\n";
    let (proxy, other) = (
        Inside::before(&origin, &format!("{ADMIN}{purging}{warm}")).await,
        Inside::before(&origin, &format!("{ADMIN}{purging}")).await,
    );
    for proxy in [&proxy, &other] {
        proxy.get("/a").await;
        assert_eq!(proxy.request("PURGE", "/a", &[], b"").await.status, 200);
    }
    proxy.stored(1).await;
    assert!(hits(&proxy, "/a").await);
    assert!(!hits(&other, "/a").await);
    assert_eq!(look(&other, "/tasks").await["tasks"], json!([]));
    let report = purge(&other, json!({ "tags": ["all"], "rewarm": true })).await;
    rewarmed(&other, &report).await;
    assert!(hits(&other, "/a").await);
}

/// Purges over the admin listener, hard and soft, by URL, tag and prefix, while others have the same responses stored all the time: behind
/// the answer nobody gets what was before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purges_of_every_kind_race_with_fills_and_nothing_old_is_served() {
    let races: usize = match std::env::var("FOREBAY_RACES") {
        Ok(races) => races.parse().unwrap(),
        Err(_) => 400,
    };
    const TARGETS: usize = 4;
    let versions: Arc<[AtomicUsize; TARGETS]> = Arc::default();
    let origin = {
        let versions = versions.clone();
        Origin::builder()
            .answering(move |request| {
                let index: usize = request.target.trim_start_matches('/').parse().unwrap();
                let version = versions[index].load(Ordering::SeqCst).to_string();
                let tag = format!("\"{version}\"");
                let reply = match request.field("if-none-match") == Some(tag.as_str()) {
                    true => Reply::status(304),
                    false => Reply::ok(version),
                };
                reply
                    .field("ETag", &tag)
                    .field("Cache-Control", "max-age=3600")
                    .field("Cache-Tag", &format!("t{index}"))
            })
            .start()
            .await
    };
    let proxy = Arc::new(Inside::before(&origin, ADMIN).await);
    let mut background = Vec::new();
    for _ in 0..2 {
        let mut client = proxy.client().await;
        background.push(tokio::spawn(async move {
            for at in 0.. {
                client.get(&format!("/{}", at % TARGETS)).await;
            }
        }));
    }
    let mut reader = proxy.client().await;
    let mut admin = Client::connect(proxy.admin_address()).await;
    for race in 0..races {
        let index = race % TARGETS;
        let wanted = versions[index].fetch_add(1, Ordering::SeqCst) + 1;
        let mut body = match race / TARGETS % 3 {
            0 => json!({ "urls": [format!("http://test/{index}")] }),
            1 => json!({ "tags": [format!("t{index}")] }),
            _ => json!({ "prefixes": [format!("/{index}")] }),
        };
        body["soft"] = (race / (3 * TARGETS)).is_multiple_of(2).into();
        let fields = [("Host", "localhost"), ("Content-Type", "application/json")];
        let purged = admin
            .request("POST", "/purge", &fields, body.to_string().as_bytes())
            .await;
        assert_eq!(purged.status, 200);
        let seen: usize = reader.get(&format!("/{index}")).await.text().parse().unwrap();
        assert!(
            seen >= wanted,
            "race {race}, {body}: {seen} where {wanted} had been written"
        );
    }
    background.iter().for_each(tokio::task::JoinHandle::abort);
    println!("{races} hard and soft purges raced with fills: nothing old was served behind an answer");
}
