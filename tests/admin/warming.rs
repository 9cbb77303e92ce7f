//! Filling the cache before clients ask.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{ADMIN, ask, look};
use crate::support::inside::Inside;
use crate::support::origin::{Gate, Origin, Reply};
use crate::support::proxy::forebay;
use crate::support::within;

async fn start(proxy: &Inside, body: Value) -> String {
    let response = ask(proxy.admin_address(), "POST", "/warm", &[], &body.to_string()).await;
    assert_eq!(response.status, 202, "{}", response.text());
    format!("/tasks/{}", response.json()["id"].as_str().unwrap())
}

/// The task when it is over.
async fn over(proxy: &Inside, at: &str) -> Value {
    within("the end of a task", async {
        loop {
            let task = look(proxy, at).await;
            if !task["ended"].is_null() {
                return task;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

#[tokio::test]
async fn clients_then_find_everything_stored() {
    let origin = Origin::builder()
        .answering(|request| match request.target.as_str() {
            "/private" => Reply::ok("x").field("Cache-Control", "private"),
            "/lang" => Reply::fresh(60, request.field("accept-language").unwrap_or("none").to_owned())
                .field("Vary", "Accept-Language"),
            _ => Reply::fresh(60, "x"),
        })
        .start()
        .await;
    let routes = "routes: [{ name: off, match: { path_prefix: /off }, upstream: default, cache: off }]\n";
    let proxy = Inside::before(&origin, &format!("{ADMIN}{routes}")).await;
    proxy.get("/there").await;
    let at = start(
        &proxy,
        json!({ "rate": 10_000, "concurrency": 1, "urls": [
            "http://test/a",
            "http://test/a",
            "http://test/there",
            "http://test/private",
            "http://test/off/x",
            { "url": "http://test/lang", "headers": { "Accept-Language": "de" }, "priority": 5 },
        ] }),
    )
    .await;
    let task = over(&proxy, &at).await;
    assert_eq!(
        (task["state"].as_str(), task["kind"].as_str()),
        (Some("done"), Some("warm")),
        "{task}"
    );
    assert_eq!(
        task["progress"],
        json!({ "total": 5, "done": 5, "stored": 2, "fresh": 1, "not_stored": 1, "no_route": 1, "failed": 0, "retries": 0, "failures": [] })
    );
    assert_eq!(origin.request_count(), 4, "nobody asks where no route caches");
    assert_eq!(
        origin.request(1).await.target,
        "/lang",
        "what is most important goes first"
    );
    assert_eq!(proxy.get("/a").await.cache_status().split(';').next(), Some("hit"));
    let german = proxy.request("GET", "/lang", &[("Accept-Language", "de")], b"").await;
    assert_eq!(
        (german.text(), german.cache_status().split(';').next()),
        ("de", Some("hit"))
    );
    // Nobody's requests are neither counted nor hot.
    assert_eq!(proxy.metric("forebay_http_requests_total", &[]).await, 3.0);
    assert_eq!(look(&proxy, "/cache/top").await["top"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn the_rate_is_kept_and_so_is_the_number_at_once() {
    let gate = Gate::new();
    let origin = Origin::builder()
        .otherwise(Reply::fresh(60, "x").hold(&gate))
        .start()
        .await;
    let proxy = Inside::before(&origin, ADMIN).await;
    let urls = |name: &str| {
        (0..20)
            .map(|number| format!("http://test/{name}{number}"))
            .collect::<Vec<_>>()
    };
    let at = start(&proxy, json!({ "urls": urls("a"), "rate": 1000, "concurrency": 3 })).await;
    gate.reached(3).await;
    assert_eq!(origin.request_count(), 3);
    gate.release();
    assert_eq!(over(&proxy, &at).await["progress"]["stored"], 20);
    let begun = Instant::now();
    let at = start(&proxy, json!({ "urls": urls("b"), "rate": 50, "concurrency": 8 })).await;
    assert_eq!(over(&proxy, &at).await["progress"]["stored"], 20);
    // 19 distances of 20 ms; a machine under load only makes it longer.
    assert!(begun.elapsed() >= Duration::from_millis(380), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn failures_are_told_and_a_task_can_be_cancelled() {
    let origin = Origin::builder().otherwise(Reply::status(500)).start().await;
    let proxy = Inside::before(&origin, ADMIN).await;
    let at = start(&proxy, json!({ "urls": ["http://test/a"], "retries": 0 })).await;
    let task = over(&proxy, &at).await;
    assert_eq!(
        task["progress"]["failures"],
        json!([{ "url": "http://test/a", "reason": "server-error" }])
    );
    assert_eq!(origin.request_count(), 1);
    let many: Vec<_> = (0..500).map(|number| format!("http://test/{number}")).collect();
    let at = start(&proxy, json!({ "urls": many, "retries": 0, "rate": 100_000 })).await;
    let task = over(&proxy, &at).await;
    assert_eq!(task["state"], "failed");
    assert!(
        task["error"].as_str().unwrap().contains("to spare the upstream"),
        "{task}"
    );
    assert!(origin.request_count() < 200, "{}", origin.request_count());
    let at = start(&proxy, json!({ "urls": many, "rate": 0.01 })).await;
    assert_eq!(
        ask(proxy.admin_address(), "DELETE", &at, &[], "").await.json()["state"],
        "cancelled"
    );
    for body in [
        json!({}),
        json!({ "urls": ["/a"] }),
        json!({ "urls": ["http://test/a"], "rate": 0 }),
        json!({ "urls": ["http://test/a"], "concurrency": 0 }),
        json!({ "urls": [{ "url": "http://test/a", "headers": { "a b": "c" } }] }),
        json!({ "hottest": 100_001 }),
    ] {
        let refused = ask(proxy.admin_address(), "POST", "/warm", &[], &body.to_string()).await;
        assert_eq!(refused.status, 400, "{body}");
    }
}

#[tokio::test]
async fn the_command_reads_lists_and_sitemaps_and_waits() {
    let origin = Origin::builder().otherwise(Reply::fresh(60, "x")).start().await;
    let sitemaps = Origin::builder().start().await;
    let index = format!(
        "<sitemapindex><sitemap><loc>http://{}/one.xml</loc></sitemap></sitemapindex>",
        sitemaps.server()
    );
    sitemaps.on("/index.xml", Reply::ok(index));
    sitemaps.on(
        "/one.xml",
        Reply::ok("<urlset><url><loc>http://test/s?a=1&amp;b=2</loc></url></urlset>"),
    );
    let proxy = Inside::before(&origin, ADMIN).await;
    let directory = tempfile::tempdir().unwrap();
    let list = directory.path().join("urls.txt");
    std::fs::write(
        &list,
        "# two\nhttp://test/a\n{\"url\":\"http://test/b\",\"priority\":3}\n",
    )
    .unwrap();
    let admin = format!("http://{}", proxy.admin_address());
    let index = format!("http://{}/index.xml", sitemaps.server());
    let finished = forebay(&[
        "warm",
        "--file",
        list.to_str().unwrap(),
        "--sitemap",
        &index,
        "--admin",
        &admin,
    ])
    .await;
    assert_eq!(
        (finished.code, finished.stdout.as_str()),
        (0, "done: 3 stored\n"),
        "{}",
        finished.stderr
    );
    assert_eq!(
        proxy.get("/s?a=1&b=2").await.cache_status().split(';').next(),
        Some("hit")
    );
    let nothing = forebay(&["warm", "--admin", &admin]).await;
    assert_eq!(nothing.code, 64, "{}", nothing.stderr);
    let nowhere = forebay(&["warm", "--sitemap", "https://a/", "--admin", &admin]).await;
    assert_eq!(nowhere.code, 64, "{}", nowhere.stderr);
    let hottest = forebay(&["warm", "--hottest", "5", "--json", "--admin", &admin]).await;
    assert_eq!(hottest.code, 0, "{}", hottest.stderr);
    assert!(hottest.stdout.contains("\"fresh\": 1"), "{}", hottest.stdout);
}

#[tokio::test]
async fn a_configured_list_is_asked_for_on_start_and_again() {
    let origin = Origin::builder().otherwise(Reply::fresh(1, "x")).start().await;
    let directory = tempfile::tempdir().unwrap();
    let list = directory.path().join("urls.txt");
    std::fs::write(&list, "# one\nhttp://test/a\n").unwrap();
    let warm = format!(
        "cache: {{ warm: {{ sources: [{{ urls: {} }}], every: 1s, rate: 100/s }} }}\n",
        list.display()
    );
    let proxy = Inside::before(&origin, &format!("{ADMIN}{warm}")).await;
    proxy.stored(1).await;
    assert_eq!(proxy.get("/a").await.cache_status().split(';').next(), Some("hit"));
    proxy.advance(2);
    origin.request(1).await;
    let tasks = look(&proxy, "/tasks").await;
    assert!(tasks["tasks"].as_array().unwrap().len() >= 2, "{tasks}");
}

#[tokio::test]
async fn a_sitemap_is_fetched_like_any_other_url_and_leads_nowhere_else() {
    use std::io::Write as _;
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let urls = ["/b", "/c"].map(|path| format!("<url><loc>http://site.test{path}</loc></url>"));
    packed
        .write_all(format!("<urlset>{}</urlset>", urls.concat()).as_bytes())
        .unwrap();
    let packed = packed.finish().unwrap();
    let elsewhere = Origin::start().await;
    let far = elsewhere.server();
    let index = format!(
        "<sitemapindex>{}</sitemapindex>",
        [
            "http://site.test/private/one.xml.gz".to_owned(),
            "http://site.test/missing.xml".to_owned(),
            format!("http://{far}/foreign.xml"),
        ]
        .map(|place| format!("<sitemap><loc>{place}</loc></sitemap>"))
        .concat()
    );
    let origin = Origin::builder()
        .on("/sitemap.xml", Reply::ok(index).field("Cache-Control", "no-store"))
        .on("/private/one.xml.gz", Reply::ok(packed))
        .on("/missing.xml", Reply::status(404))
        .otherwise(Reply::fresh(60, "x"))
        .start()
        .await;
    // The one host that routes know; sitemaps come on routes that do not cache, too.
    let yaml = format!(
        "listen: 127.0.0.1:0\nupstreams: {{ app: {{ servers: [\"{}\"] }}, idle: {{ servers: [\"{far}\"] }} }}\n\
         routes:\n  - {{ name: private, match: {{ host: site.test, path_prefix: /private }}, upstream: app, cache: off }}\n  \
         - {{ name: site, match: {{ host: site.test }}, upstream: app }}\n{ADMIN}\
         cache: {{ warm: {{ sources: [{{ sitemap: \"http://site.test/sitemap.xml\" }}, {{ hottest: 3 }}] }} }}\n",
        origin.server()
    );
    let proxy = Inside::start(&yaml, forebay::clock::Clock::new()).await;
    let task = over(&proxy, &format!("/tasks/{}", first_task(&proxy).await)).await;
    assert_eq!(
        (
            task["state"].as_str(),
            task["about"].as_str(),
            task["progress"]["stored"].as_u64()
        ),
        (Some("done"), Some("as configured"), Some(2)),
        "{task}"
    );
    let targets: Vec<_> = origin.requests().into_iter().map(|request| request.target).collect();
    assert_eq!(
        targets,
        ["/sitemap.xml", "/private/one.xml.gz", "/missing.xml", "/b", "/c"]
    );
    assert_eq!(elsewhere.request_count(), 0, "no foreign host");
}

/// Id of the task that began first; waits until there is one.
async fn first_task(proxy: &Inside) -> String {
    within("a task", async {
        loop {
            let tasks = look(proxy, "/tasks").await;
            if let Some(task) = tasks["tasks"].as_array().unwrap().last() {
                return task["id"].as_str().unwrap().to_owned();
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

#[tokio::test]
async fn a_sitemap_that_is_none_fails_its_task() {
    let origin = Origin::builder()
        .on("/broken.xml", Reply::ok("<urlset></wrong>"))
        .on("/page", Reply::ok("<html><p>no</p></html>"))
        .on("/nothing.xml", Reply::status(404))
        .start()
        .await;
    for (url, expected) in [
        ("http://test/broken.xml", "is no XML"),
        ("http://test/page", "is neither a sitemap nor an index"),
        ("http://test/nothing.xml", "the answer has status 404"),
    ] {
        let warm = format!("cache: {{ warm: {{ sources: [{{ sitemap: \"{url}\" }}] }} }}\n");
        let proxy = Inside::before(&origin, &format!("{ADMIN}{warm}")).await;
        let task = over(&proxy, &format!("/tasks/{}", first_task(&proxy).await)).await;
        assert_eq!(task["state"], "failed");
        assert!(task["error"].as_str().unwrap().contains(expected), "{task}");
    }
}

#[tokio::test]
async fn an_access_log_says_what_is_asked_for_most() {
    let origin = Origin::builder().otherwise(Reply::fresh(60, "x")).start().await;
    // One Forebay writes the log, in both formats, and others warm up from it.
    let before = Inside::before(&origin, "").await;
    for path in [
        "/hot?x=1",
        "/warm",
        "/hot?x=1",
        "/cold?token=secret",
        "/hot?x=1",
        "/warm",
    ] {
        before.get(path).await;
    }
    before.request("POST", "/post", &[], b"x").await;
    before.log_entries(7).await;
    let log = before.log_path();
    let count = origin.request_count();
    let combined = log.with_file_name("combined.log");
    let line = "127.0.0.1 - - [31/Jan/2026:23:59:59 +0000] \"GET /nginx HTTP/1.1\" 200 1 \"-\" \"-\"\n";
    std::fs::write(&combined, line).unwrap();
    let warm = format!(
        "cache: {{ warm: {{ concurrency: 1, sources: [{{ access_log: {}, most: 2 }}, {{ access_log: {}, site: \"http://test\" }}] }} }}\n",
        log.display(),
        combined.display()
    );
    let proxy = Inside::before(&origin, &format!("{ADMIN}{warm}")).await;
    proxy.stored(3).await;
    let targets: Vec<_> = origin
        .requests()
        .into_iter()
        .skip(count)
        .map(|request| request.target)
        .collect();
    assert_eq!(targets, ["/hot?x=1", "/warm", "/nginx"]);

    let proxy = Inside::before(&origin, ADMIN).await;
    let admin = format!("http://{}", proxy.admin_address());
    let (log, combined) = (log.to_str().unwrap(), combined.to_str().unwrap());
    let finished = forebay(&["warm", "--access-log", log, "--most", "2", "--admin", &admin]).await;
    assert_eq!(
        (finished.code, finished.stdout.as_str()),
        (0, "done: 2 stored\n"),
        "{}",
        finished.stderr
    );
    let finished = forebay(&["warm", "--access-log", combined, "--admin", &admin]).await;
    assert_eq!(finished.code, 64);
    assert!(finished.stderr.contains("name the site"), "{}", finished.stderr);
    let finished = forebay(&[
        "warm",
        "--access-log",
        combined,
        "--site",
        "http://test",
        "--admin",
        &admin,
    ])
    .await;
    assert_eq!(finished.stdout, "done: 1 stored\n", "{}", finished.stderr);
}

#[tokio::test]
async fn what_is_wrong_with_a_list_is_said() {
    let origin = Origin::start().await;
    let proxy = Inside::before(&origin, ADMIN).await;
    for (body, wrong) in [
        (
            r#"{"urls":[{"url":"http://test/","priority":0.5}]}"#,
            "floating point `0.5`, expected i32",
        ),
        (r#"{"urls":[{"priority":1}]}"#, "missing field `url`"),
        (
            r#"{"urls":[{"url":"http://test/","method":"POST"}]}"#,
            "unknown field `method`",
        ),
        (
            r#"{"urls":[7]}"#,
            "expected a URL, or an object with url, headers and priority",
        ),
        (r#"{"urls":["nonsense"]}"#, "nonsense"),
        (r#"[["http://test/"]]"#, "must be a JSON object"),
        ("{}", "hottest"),
    ] {
        let refused = ask(proxy.admin_address(), "POST", "/warm", &[], body).await;
        assert_eq!(refused.status, 400, "{body}");
        let detail = refused.json()["detail"].to_string();
        assert!(detail.contains(wrong), "{body}: {detail}");
    }
    assert_eq!(origin.request_count(), 0);
}
