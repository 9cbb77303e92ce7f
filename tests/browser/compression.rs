//! What is compressed arrives, in whichever coding.

use serde_json::json;

use super::url;
use crate::support::browser::Browser;
use crate::support::inside::Inside;
use crate::support::origin::{Origin, Reply};

fn html() -> Reply {
    Reply::fresh(3600, "<!doctype html><title>t</title><p>page</p>".repeat(50)).field("Content-Type", "text/html")
}

/// Version 1 or 2 of a text: a few lines differ.
fn version(number: u32) -> String {
    let mut random = fastrand::Rng::with_seed(3);
    let lines: String = (0..900).map(|line| format!("f{line}({});\n", random.u32(..))).collect();
    format!("version({number});\n{lines}end({number});\n")
}

fn script(text: String) -> Reply {
    Reply::fresh(3600, text).field("Content-Type", "text/javascript")
}

/// What a fetch in the page brings.
async fn fetched(browser: &mut Browser, target: &str) -> String {
    let expression = format!("fetch({}).then((response) => response.text())", json!(target));
    browser.eval(&expression).await.as_str().unwrap().to_owned()
}

#[tokio::test]
async fn chromium_reads_every_coding() {
    let Some(mut browser) = Browser::start().await else {
        return;
    };
    let origin = Origin::builder()
        .on("/", html())
        .on("/stored", script(version(1)))
        .on(
            "/live",
            Reply::ok(version(2))
                .field("Content-Type", "text/css")
                .field("Cache-Control", "no-store"),
        )
        .start()
        .await;
    for coding in ["zstd", "br", "gzip"] {
        // Chromium says of zstd that it reads it where the connection is one that nobody can listen to.
        let yaml = format!("defaults: {{ compression: {{ codings: [{coding}] }} }}\n");
        let proxy = Inside::before(&origin, &yaml).await;
        proxy.get("/stored").await;
        browser.open(&url(&proxy, "/")).await;
        for (target, expected) in [("/stored", version(1)), ("/live", version(2))] {
            assert!(fetched(&mut browser, target).await == expected, "{coding} {target}");
            let entry = proxy
                .log_entry(|entry| entry["target"] == target && entry["coding"] == coding)
                .await;
            assert!(
                entry["response_bytes"].as_u64().unwrap() < expected.len() as u64 * 2 / 3,
                "{entry}"
            );
        }
        assert_eq!(browser.errors().await, [""; 0]);
    }
}

#[tokio::test]
async fn chromium_reads_the_difference_from_what_it_has() {
    let Some(mut browser) = Browser::start().await else {
        return;
    };
    for (codings, coding) in [("[zstd, gzip]", "dcz"), ("[br, gzip]", "dcb")] {
        let origin = Origin::builder()
            .on("/", html())
            .on(
                "/app.1.js",
                script(version(1)).field("Use-As-Dictionary", "match=\"/app.*.js\", match-dest=(\"\")"),
            )
            .on("/app.2.js", script(version(2)))
            .start()
            .await;
        let yaml = format!("defaults: {{ compression: {{ codings: {codings}, dictionaries: true }} }}\n");
        let proxy = Inside::before(&origin, &yaml).await;
        let host = url(&proxy, "").trim_start_matches("http://").to_owned();
        browser.open(&url(&proxy, "/")).await;
        assert!(fetched(&mut browser, "/app.1.js").await == version(1));
        // The browser takes a moment to note the first as a dictionary, and so does Forebay.
        let mut turns = 0;
        let entry = loop {
            turns += 1;
            let target = format!("/app.2.js?{turns}");
            // Of the browser's own origin.
            proxy.request("GET", &target, &[("Host", &host)], b"").await;
            assert!(fetched(&mut browser, &target).await == version(2), "{coding}");
            let entry = proxy
                .log_entry(|entry| entry["target"] == target.as_str() && entry["coding"] != json!(null))
                .await;
            if entry["coding"] == coding {
                break entry;
            }
            assert!(turns < 200, "never {coding}: {entry}");
        };
        assert_eq!(entry["cache"], "hit_l1");
        assert!(entry["response_bytes"].as_u64().unwrap() < 500, "{entry}");
        assert_eq!(browser.errors().await, [""; 0]);
    }
}
