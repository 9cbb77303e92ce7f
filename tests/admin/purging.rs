//! Purges by the admin listener: nothing of what was purged is served after the answer.

use serde_json::{Value, json};

use super::{ADMIN, ask, look};
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
        json!({ "prefixes": ["a"] }),
        json!({ "globs": vec!["/a"; 101] }),
        json!({ "routes": ["nobody"], "everything": true }),
        json!({ "everything": true, "after": "soon" }),
        json!({ "everything": true, "after": "2d" }),
        json!({ "everything": true, "unknown": 1 }),
        json!([]),
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
