//! Servers are asked whether they are well.

use tokio::net::TcpListener;

use super::upstream;
use crate::support::certificate::Certificate;
use crate::support::inside::Inside;
use crate::support::origin::{Gate, Origin, Refusing, Reply, Step};
use crate::support::proxy::{Proxy, Reload};
use crate::support::within;

async fn before(origins: &[&Origin], keys: &str) -> Inside {
    Inside::start(&upstream(origins.iter().copied(), keys, ""), Default::default()).await
}

async fn healthy(proxy: &Inside, server: &str, wanted: f64) {
    let labels = [("upstream", "app"), ("server", server)];
    proxy.metric_becomes("forebay_upstream_healthy", &labels, wanted).await;
}

fn asked(origin: &Origin, path: &str) -> usize {
    origin
        .requests()
        .iter()
        .filter(|request| request.target == path)
        .count()
}

#[tokio::test]
async fn a_server_that_is_not_well_gets_nothing_until_it_is() {
    let ill = Origin::builder().on("/health", Reply::ok("fine")).start().await;
    let well = Origin::start().await;
    let keys = "health_check: { path: /health, interval: 30ms, unhealthy_threshold: 3, healthy_threshold: 2 }";
    let config = upstream([&ill, &well], keys, "");
    let proxy = Proxy::start(&config).await;
    let labels = [("server", &*ill.server())];
    proxy
        .diagnostic("healthy", |line| line.contains("server healthy"))
        .await;
    ill.on("/health", Reply::status(500));
    proxy.metric_becomes("forebay_upstream_healthy", &labels, 0.0).await;
    let mut client = proxy.client().await;
    for _ in 0..10 {
        assert_eq!(client.get("/x").await.status, 200);
    }
    assert_eq!((asked(&ill, "/x"), asked(&well, "/x")), (0, 10));
    ill.on("/health", Reply::ok("fine"));
    proxy.metric_becomes("forebay_upstream_healthy", &labels, 1.0).await;
    for _ in 0..10 {
        assert_eq!(client.get("/x").await.status, 200);
    }
    assert_eq!(asked(&ill, "/x"), 5);
    // The log is written behind the change.
    let healthy_again = |log: String| log.matches("server healthy").count() >= 3;
    within("the log of the change", async {
        while !healthy_again(proxy.log_text()) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let log = proxy.log_text();
    let lines = |what: &str| {
        log.lines()
            .filter(|line| line.contains(what) && line.contains(&ill.server()))
            .count()
    };
    assert_eq!(
        (lines("server healthy"), lines("server unhealthy")),
        (2, 1),
        "changes are logged, once each:\n{log}"
    );
    assert!(log.contains("status 500"), "{log}");
    let probe = ill
        .requests()
        .into_iter()
        .find(|request| request.target == "/health")
        .unwrap();
    assert_eq!(
        (probe.method.as_str(), probe.field("host")),
        ("GET", Some(&*ill.server()))
    );
    assert!(probe.field("user-agent").unwrap().starts_with("forebay/"));
}

#[tokio::test]
async fn one_failure_among_successes_is_forgiven() {
    let origin = Origin::builder()
        .on_each(
            "/health",
            (0..30).map(|turn| Reply::status(if turn % 3 == 0 { 200 } else { 503 })),
        )
        .start()
        .await;
    let other = Origin::start().await;
    let proxy = before(&[&origin, &other], "health_check: { path: /health, interval: 10ms }").await;
    within("thirty probes", async {
        while asked(&origin, "/health") < 25 {
            assert_eq!(proxy.metric("forebay_upstream_healthy", &[]).await, 2.0);
        }
    })
    .await;
}

#[tokio::test]
async fn the_first_answer_decides_and_until_then_it_is_as_configured() {
    for (keys, meanwhile) in [
        ("health_check: { path: /health, interval: 30ms, timeout: 1m }", 200),
        (
            "health_check: { path: /health, interval: 30ms, timeout: 1m, allow_unchecked: false }",
            503,
        ),
    ] {
        let gate = Gate::new();
        let origin = Origin::builder()
            .on("/health", Reply::ok("fine").hold(&gate))
            .start()
            .await;
        let proxy = before(&[&origin], keys).await;
        gate.reached(1).await;
        let response = proxy.get("/x").await;
        assert_eq!(response.status, meanwhile);
        if meanwhile == 503 {
            assert_eq!(response.field("retry-after"), Some("5"));
        }
        gate.release();
        healthy(&proxy, &origin.server(), 1.0).await;
        assert_eq!(proxy.get("/x").await.status, 200);

        let origin = Origin::builder().on("/health", Reply::status(404)).start().await;
        let proxy = before(&[&origin], keys).await;
        healthy(&proxy, &origin.server(), 0.0).await;
        assert_eq!(proxy.get("/x").await.status, 503, "one answer was enough");
    }
}

#[tokio::test]
async fn what_a_good_answer_is() {
    let expecting = "expect_body: fine, expect_status: [200, 202-204]";
    for (name, reply, keys, is_good) in [
        ("200", Reply::status(200), "", true),
        ("204", Reply::status(204), "", false),
        ("204 in a list", Reply::status(204), "expect_status: [200, 204]", true),
        ("203 in a range", Reply::status(203), "expect_status: [200-299]", true),
        ("301", Reply::status(301), "expect_status: [200-299]", false),
        ("body", Reply::status(203).body("all is fine here"), expecting, true),
        (
            "chunked body",
            Reply::chunked(["all is fi", "ne here"]),
            expecting,
            true,
        ),
        ("body to the end", Reply::until_close("fine"), expecting, true),
        ("another body", Reply::ok("database down"), expecting, false),
        ("no body", Reply::status(204), expecting, false),
        ("endless body", Reply::zeros(1 << 40), expecting, false),
        (
            "interim",
            Reply::ok("fine").interim(103, &[("Link", "</a>")]),
            expecting,
            true,
        ),
        ("malformed", Reply::raw("HTTP/1.1 2000 OK\r\n\r\n"), "", false),
        ("closed", Reply::script([Step::Close]), "", false),
        (
            "half a head",
            Reply::script([Step::Write("HTTP/1.1 200 OK\r\nA: b".into()), Step::Close]),
            "",
            false,
        ),
        ("silent", Reply::ok("late").hold(&Gate::new()), "", false),
    ] {
        let origin = Origin::builder().on("/health", reply).start().await;
        let keys = match keys {
            "" => String::new(),
            keys => format!(", {keys}"),
        };
        let keys =
            format!("health_check: {{ path: /health, interval: 20ms, timeout: 500ms, allow_unchecked: false{keys} }}");
        let proxy = before(&[&origin], &keys).await;
        match is_good {
            true => healthy(&proxy, &origin.server(), 1.0).await,
            false => {
                // It has been asked, answered, and asked again.
                within(name, async {
                    while asked(&origin, "/health") < 2 {
                        tokio::task::yield_now().await;
                    }
                })
                .await;
                healthy(&proxy, &origin.server(), 0.0).await;
            }
        }
        assert_eq!(proxy.get("/x").await.status == 200, is_good, "{name}");
    }
}

#[tokio::test]
async fn over_tls_and_http2_as_the_upstream_is() {
    let certificate = Certificate::for_names(&["app.internal"]);
    let directory = tempfile::tempdir().unwrap();
    let (ca, _) = certificate.write(directory.path(), "app");
    let tls = format!("tls: {{ server_name: app.internal, ca: {} }}\n", ca.display());
    let check = "health_check: { path: /health, host: probe.internal, expect_body: fine, interval: 20ms, allow_unchecked: false }";
    let plain = || Origin::builder().on("/health", Reply::ok("fine"));
    let h2 = || plain().http2();
    for (origin, keys) in [
        (plain().tls(&certificate).start().await, format!("{tls}{check}")),
        (
            h2().tls(&certificate).start().await,
            format!("{tls}http2: true\n{check}"),
        ),
        (h2().start().await, format!("http2: true\n{check}")),
        // Offers HTTP/1.1 where HTTP/2 is preferred.
        (
            plain().tls(&certificate).start().await,
            format!("{tls}http2: true\n{check}"),
        ),
    ] {
        let proxy = before(&[&origin], &keys).await;
        healthy(&proxy, &origin.server(), 1.0).await;
        assert_eq!(origin.request(0).await.field("host"), Some("probe.internal"));
        origin.on("/health", Reply::status(503));
        healthy(&proxy, &origin.server(), 0.0).await;
    }
    // Who is not who it should be is not well.
    let stranger = Certificate::for_names(&["app.internal"]);
    let origin = plain().tls(&stranger).start().await;
    let proxy = before(&[&origin], &format!("{tls}health_check: {{ interval: 20ms }}")).await;
    healthy(&proxy, &origin.server(), 0.0).await;
}

#[tokio::test]
async fn without_a_path_a_connection_is_enough() {
    let refusing = Refusing::new();
    let origin = Origin::start().await;
    let config = format!(
        "listen: 127.0.0.1:0\nupstreams:\n  app:\n    servers: [\"{}\", \"{}\"]\n    health_check: {{ interval: 20ms }}\n",
        refusing.server(),
        origin.server()
    );
    let proxy = Inside::start(&config, Default::default()).await;
    healthy(&proxy, &refusing.server(), 0.0).await;
    healthy(&proxy, &origin.server(), 1.0).await;
    assert_eq!(origin.request_count(), 0);
}

#[tokio::test]
async fn where_no_server_is_well_there_is_what_is_stale_or_a_503() {
    let origin = Origin::builder()
        .on(
            "/a",
            Reply::ok("old").field("Cache-Control", "max-age=10, stale-if-error=60"),
        )
        .on("/health", Reply::ok("fine"))
        .start()
        .await;
    let proxy = before(&[&origin], "health_check: { path: /health, interval: 20ms }").await;
    assert_eq!(proxy.get("/a").await.text(), "old");
    origin.on("/health", Reply::status(503));
    healthy(&proxy, &origin.server(), 0.0).await;
    proxy.advance(20);
    let stale = proxy.get("/a").await;
    assert_eq!(
        (stale.text(), stale.cache_status()),
        ("old", "hit; ttl=-10; detail=stale-if-error")
    );
    let without = proxy.get("/b").await;
    assert_eq!((without.status, without.field("retry-after")), (503, Some("5")));
    proxy.advance(60);
    assert_eq!(proxy.get("/a").await.status, 503, "too old");
    assert_eq!((asked(&origin, "/a"), asked(&origin, "/b")), (1, 0), "it is not asked");
}

#[tokio::test]
async fn those_who_wait_for_a_fetch_that_fails_get_what_is_stale_with_it() {
    let gate = Gate::new();
    let origin = Origin::builder()
        .on_each(
            "/a",
            [
                Reply::ok("old").field("Cache-Control", "max-age=10, stale-if-error=60"),
                Reply::status(503).hold(&gate),
            ],
        )
        .start()
        .await;
    let proxy = before(&[&origin], "").await;
    assert_eq!(proxy.get("/a").await.text(), "old");
    proxy.advance(20);
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut client = proxy.client().await;
        client.send_request("GET", "/a", &[], b"").await;
        clients.push(client);
    }
    proxy.in_flight(10).await;
    gate.reached(1).await;
    gate.release();
    for client in &mut clients {
        let response = client.response().await;
        assert_eq!(
            (response.text(), response.cache_status()),
            ("old", "hit; ttl=-10; detail=stale-if-error")
        );
    }
    assert_eq!(origin.request_count(), 2, "nobody asks a failing origin again");
}

async fn asked_again(origin: &Origin) {
    let before = asked(origin, "/health");
    within("probes", async {
        while asked(origin, "/health") <= before {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn probes_end_with_what_asked_for_them() {
    let origin = Origin::builder().on("/health", Reply::ok("fine")).start().await;
    let other = Origin::start().await;
    let check = "health_check: { path: /health, interval: 20ms }";
    let mut proxy = Proxy::start(&upstream([&origin, &other], check, "")).await;
    asked_again(&origin).await;
    assert!(matches!(
        proxy.reload(&upstream([&other], check, "")).await,
        Reload::Done
    ));
    // What was under way may still come; then nothing does, while the other one is asked on and on.
    asked_again(&other).await;
    let count = asked(&origin, "/health");
    for _ in 0..10 {
        asked_again(&other).await;
    }
    assert!(asked(&origin, "/health") <= count + 1);
    proxy.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(proxy.wait_exit().await.success());
}

#[tokio::test]
async fn a_server_that_accepts_and_says_nothing_is_not_well() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = format!(
        "listen: 127.0.0.1:0\nupstreams:\n  app:\n    servers: [\"{address}\"]\n    \
         health_check: {{ path: /, interval: 20ms, timeout: 100ms }}\n"
    );
    let proxy = Inside::start(&config, Default::default()).await;
    healthy(&proxy, &address.to_string(), 0.0).await;
    drop(listener);
}
