//! What is compressed arrives, in whichever coding.

use forebay::clock::Clock;
use serde_json::{Value, json};

use super::url;
use crate::support::browser::Browser;
use crate::support::certificate::Certificate;
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

/// The browser asks anew, and gets what is stored.
const RELOADED: &str = "cache: { request_directives: ignore }";

async fn versions() -> Origin {
    let first = script(version(1)).field("Use-As-Dictionary", "match=\"/app.*.js\", match-dest=(\"\")");
    Origin::builder()
        .on("/", html())
        .on("/app.1.js", first)
        .on("/app.2.js", script(version(2)))
        .start()
        .await
}

/// Opens a page of this origin, reads version 1 of a script there, and then version 2 until it comes in this coding. Answers the log's entry.
async fn until_it_comes_as(browser: &mut Browser, proxy: &Inside, origin: &str, coding: &str) -> Value {
    browser.open(&format!("{origin}/")).await;
    assert!(fetched(browser, "/app.1.js").await == version(1));
    // The browser takes a moment to note the first as a dictionary, and so does Forebay.
    for turn in 0..200 {
        let target = format!("/app.2.js?{turn}");
        // The first time it is stored.
        for _ in 0..2 {
            let again = format!(
                "fetch({}, {{ cache: 'reload' }}).then((response) => response.text())",
                json!(target)
            );
            assert!(browser.eval(&again).await == version(2).as_str(), "{coding}");
        }
        let stored = |entry: &Value| entry["target"] == target.as_str() && entry["cache"] == "hit_l1";
        let entry = proxy.log_entry(stored).await;
        if entry["coding"] == coding {
            assert!(entry["response_bytes"].as_u64().unwrap() < 500, "{entry}");
            return entry;
        }
    }
    panic!("never {coding}");
}

#[tokio::test]
async fn chromium_reads_the_difference_from_what_it_has() {
    let Some(mut browser) = Browser::start().await else {
        return;
    };
    for (codings, coding) in [("[zstd, gzip]", "dcz"), ("[br, gzip]", "dcb")] {
        let origin = versions().await;
        let yaml = format!("defaults: {{ {RELOADED}, compression: {{ codings: {codings}, dictionaries: true }} }}\n");
        let proxy = Inside::before(&origin, &yaml).await;
        until_it_comes_as(&mut browser, &proxy, &url(&proxy, ""), coding).await;
        assert_eq!(browser.errors().await, [""; 0]);
    }
}

/// A certificate for localhost, and a browser that trusts it.
async fn trusting() -> Option<(Certificate, Browser)> {
    let certificate = Certificate::for_names(&["localhost"]);
    let browser = Browser::trusting(&certificate).await?;
    Some((certificate, browser))
}

/// HTTPS on localhost, with this said of compression.
async fn over_https(origin: &Origin, certificate: &Certificate, compression: &str, http2: bool) -> (Inside, String) {
    let directory = tempfile::tempdir().unwrap();
    let (cert, key) = certificate.write(directory.path(), "localhost");
    let yaml = format!(
        "listeners: [{{ address: 127.0.0.1:0, http2: {http2}, tls: {{ certificates: [{{ cert: {}, key: {} }}] }} }}]\n\
         upstreams: {{ app: {{ servers: [\"{}\"] }} }}\ndefaults: {{ {RELOADED}, compression: {compression} }}\n",
        cert.display(),
        key.display(),
        origin.server()
    );
    let proxy = Inside::start(&yaml, Clock::new()).await;
    let own = format!("https://localhost:{}", proxy.address().port());
    (proxy, own)
}

#[tokio::test]
async fn chromium_reads_the_difference_over_https() {
    let Some((certificate, mut browser)) = trusting().await else {
        return;
    };
    for (version, http2) in [("HTTP/2.0", true), ("HTTP/1.1", false)] {
        for (codings, coding) in [("[zstd, gzip]", "dcz"), ("[br, gzip]", "dcb")] {
            let origin = versions().await;
            let compression = format!("{{ codings: {codings}, dictionaries: true }}");
            let (proxy, own) = over_https(&origin, &certificate, &compression, http2).await;
            let entry = until_it_comes_as(&mut browser, &proxy, &own, coding).await;
            assert_eq!(entry["version"], version);
            assert_eq!(browser.errors().await, [""; 0]);
        }
    }
}

#[tokio::test]
async fn chromium_reads_the_difference_while_it_is_fetched() {
    let Some((certificate, mut browser)) = trusting().await else {
        return;
    };
    let origin = versions().await;
    let (proxy, own) = over_https(&origin, &certificate, "{ dictionaries: true }", true).await;
    let known = until_it_comes_as(&mut browser, &proxy, &own, "dcz").await;
    // Another target, which the browser asks for with what it has.
    assert!(fetched(&mut browser, "/app.2.js?new").await == version(2));
    let entry = proxy.log_entry(|entry| entry["target"] == "/app.2.js?new").await;
    assert_eq!(
        (&entry["cache"], &entry["coding"]),
        (&json!("uri-miss"), &json!("dcz")),
        "{known}"
    );
    assert!(entry["response_bytes"].as_u64().unwrap() < 500, "{entry}");
}

#[tokio::test]
async fn chromium_reads_it_over_http2() {
    let Some((certificate, mut browser)) = trusting().await else {
        return;
    };
    let origin = versions().await;
    let (proxy, own) = over_https(&origin, &certificate, "on", true).await;
    browser.open(&format!("{own}/")).await;
    for result in ["uri-miss", "hit_l1"] {
        let again = "fetch('/app.1.js', { cache: 'reload' }).then((response) => response.text())";
        assert!(browser.eval(again).await == version(1).as_str(), "{result}");
        let entry = proxy
            .log_entry(|entry| entry["target"] == "/app.1.js" && entry["cache"] == result)
            .await;
        assert_eq!(
            (&entry["version"], &entry["coding"]),
            (&json!("HTTP/2.0"), &json!("zstd"))
        );
    }
}
