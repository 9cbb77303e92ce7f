//! Who gets a request, and who has to wait.

use std::collections::HashSet;

use forebay::clock::Clock;

use super::{numbered, servers, yaml};
use crate::support::client::{Client, web_socket};
use crate::support::inside::Inside;
use crate::support::origin::{Gate, Origin, Reply};

#[tokio::test]
async fn requests_of_one_client_or_key_stay_together() {
    let origins = numbered(5).await;
    let list = servers(&origins);
    for (keys, target, field) in [
        ("balance: client_ip", "/{}", "X"),
        ("balance: hash, hash_key: \"header:X-User\"", "/{}", "X-User"),
        ("balance: hash, hash_key: \"query:user\"", "/{}?a=1&user=7", "X"),
        ("balance: hash, hash_key: \"cookie:user\"", "/{}", "Cookie"),
        ("balance: hash, hash_key: path", "/same?{}", "X"),
    ] {
        let proxy = Inside::start(&yaml(&format!("{keys}, {list}"), ""), Clock::new()).await;
        let mut client = proxy.client().await;
        let mut seen = HashSet::new();
        for number in 0..20 {
            let target = target.replace("{}", &number.to_string());
            let value = if field == "Cookie" { "a=b; user=7" } else { "7" };
            seen.insert(
                client
                    .request("GET", &target, &[(field, value)], b"")
                    .await
                    .text()
                    .to_owned(),
            );
        }
        assert_eq!(seen.len(), 1, "{keys}");
    }
    // Another value may be another server's; of so many one is.
    let proxy = Inside::start(
        &yaml(&format!("balance: hash, hash_key: \"header:X-User\", {list}"), ""),
        Clock::new(),
    )
    .await;
    let mut client = proxy.client().await;
    let mut seen = HashSet::new();
    for number in 0..40 {
        let user = number.to_string();
        seen.insert(
            client
                .request("GET", "/", &[("X-User", &user)], b"")
                .await
                .text()
                .to_owned(),
        );
    }
    assert!(seen.len() > 2, "{seen:?}");
}

#[tokio::test]
async fn clients_are_told_apart_by_the_address_that_trusted_proxies_tell() {
    let origins = numbered(5).await;
    let keys = format!("balance: client_ip, {}", servers(&origins));
    let proxy = Inside::start(&yaml(&keys, "trusted_proxies: [\"127.0.0.0/8\"]\n"), Clock::new()).await;
    let mut client = proxy.client().await;
    let mut seen = HashSet::new();
    for number in 0..40 {
        let address = format!("203.0.113.{number}");
        seen.insert(
            client
                .request("GET", "/", &[("X-Forwarded-For", &address)], b"")
                .await
                .text()
                .to_owned(),
        );
    }
    assert!(seen.len() > 2, "{seen:?}");
}

#[tokio::test]
async fn open_web_sockets_count_as_connections() {
    let origins = [
        Origin::builder()
            .on("/ws", Reply::web_socket_echo())
            .otherwise(Reply::ok("0"))
            .start()
            .await,
        Origin::builder()
            .on("/ws", Reply::web_socket_echo())
            .otherwise(Reply::ok("1"))
            .start()
            .await,
    ];
    let keys = format!("balance: least_connections, {}", servers(&origins));
    let proxy = Inside::start(&yaml(&keys, "routes: [{ cache: false }]\n"), Clock::new()).await;
    let mut socket = web_socket(proxy.address(), "/ws").await.unwrap();
    socket.send("there").await;
    assert_eq!(socket.text().await, "there");
    let idle = usize::from(origins[0].request_count() == 1);
    let mut client = proxy.client().await;
    for _ in 0..10 {
        assert_eq!(
            client.get("/").await.text(),
            idle.to_string(),
            "the other has the socket"
        );
    }
    socket.close().await;
}

#[tokio::test]
async fn a_full_server_makes_requests_wait_and_a_full_queue_refuses_them() {
    let gate = Gate::new();
    let origin = Origin::builder()
        .on("/held", Reply::ok("held").hold(&gate))
        .otherwise(Reply::ok("free"))
        .start()
        .await;
    let keys = format!(
        "servers: [{{ address: \"{}\", max_connections: 1 }}], queue: 1, queue_timeout: 60s",
        origin.server()
    );
    let proxy = Inside::start(&yaml(&keys, "routes: [{ cache: false }]\n"), Clock::new()).await;
    let mut first = proxy.client().await;
    first.send_request("GET", "/held", &[], b"").await;
    gate.reached(1).await;
    let mut second = proxy.client().await;
    second.send_request("GET", "/waits", &[], b"").await;
    proxy
        .metric_becomes("forebay_upstream_queued", &[("upstream", "app")], 1.0)
        .await;
    let refused = proxy.get("/too-many").await;
    assert_eq!((refused.status, refused.field("retry-after")), (503, Some("1")));
    assert_eq!(origin.request_count(), 1);
    gate.release();
    assert_eq!(first.response().await.text(), "held");
    assert_eq!(second.response().await.text(), "free");
    assert_eq!(
        proxy
            .metric("forebay_upstream_queue_refused_total", &[("upstream", "app")])
            .await,
        1.0
    );
}

#[tokio::test]
async fn a_client_that_leaves_the_queue_makes_room() {
    let gate = Gate::new();
    let origin = Origin::builder()
        .on("/held", Reply::ok("held").hold(&gate))
        .otherwise(Reply::ok("free"))
        .start()
        .await;
    let keys = format!(
        "servers: [{{ address: \"{}\", max_connections: 1 }}], queue: 1",
        origin.server()
    );
    let proxy = Inside::start(&yaml(&keys, "routes: [{ cache: false }]\n"), Clock::new()).await;
    let mut first = proxy.client().await;
    first.send_request("GET", "/held", &[], b"").await;
    gate.reached(1).await;
    let mut leaves: Client = proxy.client().await;
    leaves.send_request("GET", "/leaves", &[], b"").await;
    let queued = [("upstream", "app")];
    proxy.metric_becomes("forebay_upstream_queued", &queued, 1.0).await;
    drop(leaves);
    proxy.metric_becomes("forebay_upstream_queued", &queued, 0.0).await;
    let mut stays = proxy.client().await;
    stays.send_request("GET", "/stays", &[], b"").await;
    proxy.metric_becomes("forebay_upstream_queued", &queued, 1.0).await;
    gate.release();
    assert_eq!(stays.response().await.text(), "free");
    assert!(origin.requests().iter().all(|request| request.target != "/leaves"));
}
