//! Stale responses: while they are validated, and where the origin fails (RFC 5861).

use crate::support::inside::Inside;
use crate::support::origin::{Gate, Origin, Reply, Step};
use crate::support::within;

fn said(cache_control: &str, body: &'static str) -> Reply {
    Reply::ok(body).field("Cache-Control", cache_control)
}

#[tokio::test]
async fn while_it_is_validated_everybody_gets_it_at_once() {
    let gate = Gate::new();
    let origin = Origin::builder()
        .on_each(
            "/a",
            [
                said("max-age=10, stale-while-revalidate=60", "old"),
                said("max-age=10", "new").hold(&gate),
            ],
        )
        .start()
        .await;
    let proxy = Inside::before(&origin, "").await;
    proxy.get("/a").await;
    proxy.advance(12);
    for _ in 0..20 {
        let stale = proxy.get("/a").await;
        assert_eq!(stale.text(), "old");
        assert_eq!(stale.cache_status(), "hit; ttl=-2; detail=stale-while-revalidate");
    }
    gate.reached(1).await;
    assert_eq!(origin.request_count(), 2, "it is refreshed once");
    gate.release();
    within("the refreshed response", async {
        while proxy.get("/a").await.text() != "new" {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(origin.request_count(), 2);
    assert!(proxy.cache_results("served_stale").await >= 20.0);
}

#[tokio::test]
async fn instead_of_failures_where_the_origin_allows_it() {
    let failures: [(&str, Reply, &str); 4] = [
        ("500", Reply::status(500), ""),
        ("503", Reply::status(503), ""),
        ("closed", Reply::script([Step::Close]), ""),
        (
            "silent",
            Reply::ok("late").hold(&Gate::new()),
            "upstreams: { default: { servers: [SERVER], timeouts: { first_byte: 100ms } } }",
        ),
    ];
    for (name, failure, upstreams) in failures {
        for (cache_control, allowed) in [
            ("max-age=10, stale-if-error=60", true),
            ("max-age=10, s-maxage=10, stale-if-error=60", true),
            ("max-age=10", false),
            ("max-age=10, must-revalidate, stale-if-error=60", false),
        ] {
            let origin = Origin::builder()
                .on_each("/a", [said(cache_control, "old"), failure.clone()])
                .start()
                .await;
            let proxy = match upstreams {
                "" => Inside::before(&origin, "").await,
                section => {
                    let yaml = format!("listen: 127.0.0.1:0\n{}\n", section.replace("SERVER", &origin.server()));
                    Inside::start(&yaml, forebay::clock::Clock::new()).await
                }
            };
            proxy.get("/a").await;
            proxy.advance(12);
            let response = proxy.get("/a").await;
            match allowed {
                true => {
                    assert_eq!(
                        (response.status, response.text()),
                        (200, "old"),
                        "{name} {cache_control}"
                    );
                    assert_eq!(response.cache_status(), "hit; ttl=-2; detail=stale-if-error");
                    assert_eq!(response.field("age"), Some("12"));
                }
                false => assert!(response.status >= 500, "{name} {cache_control}: {}", response.raw_head),
            }
            proxy.advance(60);
            assert!(
                proxy.get("/a").await.status >= 500,
                "{name} {cache_control}: beyond the window"
            );
        }
    }
}

#[tokio::test]
async fn what_must_be_validated_is_an_error_where_it_cannot_be() {
    let origin = Origin::builder()
        .on("/must", said("max-age=10, must-revalidate", "old"))
        .on("/may", said("max-age=10", "old"))
        .on("/error", said("max-age=10, stale-if-error=60", "old"))
        .start()
        .await;
    let proxy = Inside::before(&origin, "").await;
    for path in ["/must", "/may", "/error"] {
        proxy.get(path).await;
        origin.on(path, Reply::script([Step::Close]));
    }
    proxy.advance(12);
    let outcomes = async || {
        let must = proxy.get("/must").await.status;
        let may = proxy.get("/may").await.status;
        (must, may, proxy.get("/error").await.status)
    };
    assert_eq!(outcomes().await, (504, 502, 200));
    // The same where nobody listens any more.
    drop(origin);
    assert_eq!(outcomes().await, (504, 502, 200));
}

#[tokio::test]
async fn only_if_cached_asks_nobody() {
    let origin = Origin::builder().on("/a", said("max-age=10", "kept")).start().await;
    let proxy = Inside::before(&origin, "").await;
    let only = [("Cache-Control", "only-if-cached")];
    assert_eq!(proxy.request("GET", "/a", &only, b"").await.status, 504);
    assert_eq!(origin.request_count(), 0);
    proxy.get("/a").await;
    assert_eq!(proxy.request("GET", "/a", &only, b"").await.text(), "kept");
    proxy.advance(12);
    assert_eq!(proxy.request("GET", "/a", &only, b"").await.status, 504);
    assert_eq!(origin.request_count(), 1);
}
