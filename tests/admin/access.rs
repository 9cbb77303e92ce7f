//! Who is let in, and what is refused before anything is done.

use super::{ADMIN, ask};
use crate::support::client::Client;
use crate::support::inside::Inside;
use crate::support::origin::Origin;
use crate::support::proxy::{Builder, Reload, config};

const TOKEN: &str = "0123456789abcdef0123";

#[tokio::test]
async fn pages_of_other_origins_are_refused() {
    let origin = Origin::start().await;
    let proxy = Inside::before(&origin, ADMIN).await;
    let address = proxy.admin_address();
    for (request, status, reason) in [
        ("GET /stats HTTP/1.1\r\nHost: localhost\r\n\r\n", 200, ""),
        ("GET /stats HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403, "host"),
        (
            "GET /stats HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n\r\n",
            403,
            "origin",
        ),
        (
            "GET /stats HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: cross-site\r\n\r\n",
            403,
            "origin",
        ),
        ("GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n", 404, "not-found"),
        ("PUT /stats HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, "method"),
        ("GET /cache HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "query"),
        ("GET /tasks/7 HTTP/1.1\r\nHost: localhost\r\n\r\n", 404, "unknown"),
    ] {
        let response = Client::connect(address).await.send_all(&[request]).await;
        assert_eq!(response.status, status, "{request}");
        assert_eq!(response.field("access-control-allow-origin"), None);
        if status != 200 {
            assert_eq!(response.field("content-type"), Some("application/problem+json"));
            assert_eq!(
                (response.json()["status"].as_u64(), response.json()["reason"].as_str()),
                (Some(u64::from(status)), Some(reason))
            );
        }
        if status == 405 {
            assert_eq!(response.field("allow"), Some("GET, HEAD"));
        }
    }
    assert_eq!(origin.request_count(), 0);
}

#[tokio::test]
async fn whoever_lacks_the_token_is_refused_and_a_reload_changes_it() {
    let origin = Origin::start().await;
    let builder = Builder::new();
    std::fs::write(builder.directory().join("token"), format!("{TOKEN}\n")).unwrap();
    let yaml = config(&origin, "admin: { listen: 127.0.0.1:0, token_file: token }\n");
    let proxy = builder.start(&yaml).await;
    let address = proxy.admin_address();
    let bearer = format!("Bearer {TOKEN}");
    let refused = ask(address, "GET", "/stats", &[], "").await;
    assert_eq!(refused.status, 401);
    assert_eq!(refused.field("www-authenticate"), Some("Bearer realm=\"forebay\""));
    for wrong in ["Bearer 0123456789abcdef0124", "Basic eDp5", "Bearer"] {
        assert_eq!(
            ask(address, "GET", "/stats", &[("Authorization", wrong)], "")
                .await
                .status,
            401
        );
    }
    let authorized = [("Authorization", bearer.as_str())];
    assert_eq!(ask(address, "GET", "/stats", &authorized, "").await.status, 200);
    // What says nothing about this process needs none.
    assert_eq!(ask(address, "GET", "/openapi.json", &[], "").await.status, 200);
    let shown = ask(address, "GET", "/config", &authorized, "").await;
    assert_eq!(shown.json()["admin"]["token_file"], "token");
    std::fs::write(proxy.directory().join("token"), "another-token-of-mine").unwrap();
    assert!(matches!(proxy.reload(&yaml).await, Reload::Done));
    assert_eq!(ask(address, "GET", "/stats", &authorized, "").await.status, 401);
    let authorized = [("Authorization", "Bearer another-token-of-mine")];
    assert_eq!(ask(address, "GET", "/stats", &authorized, "").await.status, 200);
    assert!(!proxy.log_text().contains(TOKEN) && !proxy.log_text().contains("another-token"));
}

#[tokio::test]
async fn nonsense_and_those_who_hold_connections_keep_nobody_out() {
    let origin = Origin::start().await;
    let proxy = Inside::before(&origin, ADMIN).await;
    let address = proxy.admin_address();
    for nonsense in [
        "\x16\x03\x01\x02\x00\x01\x00\x01\x7c\x03\x03",
        "GET\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "POST /purge HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\nzz\r\n",
    ] {
        let mut client = Client::connect(address).await;
        client.send(nonsense).await;
        client.half_close().await;
        let answer = client.read_to_end().await;
        let text = String::from_utf8_lossy(&answer);
        assert!(
            answer.is_empty() || text.starts_with("HTTP/1.1 400"),
            "{nonsense:?}: {text}"
        );
    }
    // More than there are places: one sends nothing, another a part of a head; a few a part of a body.
    let mut held = Vec::new();
    for number in 0..150 {
        let mut client = Client::connect(address).await;
        let part = match number {
            100.. if number % 2 == 0 => "",
            60.. => "GET /stats HTTP/1.1\r\nHost: local",
            _ => {
                "POST /purge HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
            }
        };
        client.send(part).await;
        held.push(client);
    }
    let came = std::time::Instant::now();
    assert_eq!(ask(address, "GET", "/stats", &[], "").await.status, 200);
    // 60 places are theirs whose bodies do not come; the others make room for each other, four at a time.
    assert!(
        came.elapsed() < std::time::Duration::from_secs(10),
        "{:?}",
        came.elapsed()
    );

    let long = "x".repeat(256 * 1024);
    for (target, fields) in [
        (&*format!("/cache?url={long}"), &[][..]),
        ("/stats", &[("X-Long", &*long)]),
    ] {
        let refused = ask(address, "GET", target, fields, "").await;
        assert!([400, 414, 431].contains(&refused.status), "{}", refused.status);
    }
    assert_eq!(origin.request_count(), 0);
    assert_eq!(proxy.get("/a").await.status, 200, "clients are not concerned");
    drop(held);
    assert_eq!(ask(address, "GET", "/tasks", &[], "").await.status, 200);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_said_to_be() {
    let origin = Origin::start().await;
    let proxy = Inside::before(&origin, ADMIN).await;
    let head = "POST /purge HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    for (framing, body) in [
        // As curl asks before it sends so much.
        ("Content-Length: 5000000\r\nExpect: 100-continue\r\n\r\n", 0),
        ("Content-Length: 5000000\r\n\r\n", 5_000_000),
        ("Content-Length: 4194305\r\n\r\n", 4_194_305),
        ("Transfer-Encoding: chunked\r\n\r\n4c4b40\r\n", 5_000_000),
    ] {
        let mut client = Client::connect(proxy.admin_address()).await;
        client.send(&format!("{head}{framing}")).await;
        client.send_zeros(body).await;
        if framing.starts_with("Transfer") {
            client.send("\r\n0\r\n\r\n").await;
        }
        let refused = client.response().await;
        assert_eq!(
            (refused.status, &refused.json()["reason"]),
            (413, &"body-too-large".into()),
            "{framing}"
        );
    }
    // What is as large as it may be is only no JSON.
    let mut client = Client::connect(proxy.admin_address()).await;
    client.send(&format!("{head}Content-Length: 4194304\r\n\r\n")).await;
    client.send_zeros(4 * 1024 * 1024).await;
    assert_eq!(client.response().await.status, 400);
}

#[tokio::test]
async fn no_url_leads_anywhere_but_where_routes_do() {
    let (origin, elsewhere) = (Origin::start().await, Origin::start().await);
    let yaml = format!(
        "listen: 127.0.0.1:0\nupstreams: {{ app: {{ servers: [\"{0}\"] }}, idle: {{ servers: [\"{0}\"] }} }}\n\
         routes: [{{ name: site, match: {{ host: site.test }}, upstream: app }}]\n{ADMIN}",
        origin.server()
    );
    let proxy = Inside::start(&yaml, forebay::clock::Clock::new()).await;
    let far = elsewhere.server();
    for (method, target, body) in [
        (
            "POST",
            "/warm",
            format!("{{\"urls\":[\"http://{far}/a\",\"https://{far}/b\"]}}"),
        ),
        (
            "POST",
            "/purge",
            format!("{{\"urls\":[\"http://{far}/a\"],\"rewarm\":true}}"),
        ),
        ("GET", &format!("/cache?url=http://{far}/"), String::new()),
    ] {
        let answered = ask(proxy.admin_address(), method, target, &[], &body).await;
        assert!([200, 202].contains(&answered.status), "{target}: {}", answered.text());
    }
    crate::support::within("the end of all tasks", async {
        loop {
            let tasks = super::look(&proxy, "/tasks").await;
            if tasks["tasks"]
                .as_array()
                .unwrap()
                .iter()
                .all(|task| !task["ended"].is_null())
            {
                assert!(
                    tasks["tasks"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .all(|task| task["progress"]["no_route"].as_u64() > Some(0)),
                    "{tasks}"
                );
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!((origin.request_count(), elsewhere.connection_count()), (0, 0));
}
