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
