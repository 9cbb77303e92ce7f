//! `forebay demo`: what it prints is true.

use tokio_tungstenite::tungstenite::Message;

use crate::support::client::{Client, EventSource, Item, curl, web_socket};
use crate::support::proxy::{Builder, Proxy};

async fn demo() -> Proxy {
    Builder::new()
        .argument("demo")
        .argument("--listen")
        .argument("127.0.0.1:0")
        .start_bare()
        .await
}

#[tokio::test]
async fn every_page_does_what_the_printed_lines_say() {
    let proxy = demo().await;
    let mut client = proxy.client().await;
    for path in ["/", "/api/items", "/api/items/1", "/assets/app.js"] {
        let first = client.get(path).await;
        assert_eq!(
            (first.status, first.cache_status().starts_with("fwd")),
            (200, true),
            "{path}"
        );
        assert!(client.get(path).await.cache_status().starts_with("hit"), "{path}");
    }
    for user in ["ada", "bob"] {
        let cookie = format!("user={user}");
        let me = client.request("GET", "/me", &[("Cookie", &cookie)], b"").await;
        assert_eq!(me.json()["user"], user);
    }
    let error = client.get("/error").await;
    assert_eq!((error.status, error.cache_status().contains("stored")), (500, false));
    let smuggling = [
        "-H",
        "Content-Length: 0",
        "-H",
        "Transfer-Encoding: chunked",
        &proxy.url("/"),
    ];
    assert_eq!(curl(&smuggling).await.status, 400);
    let mut socket = web_socket(proxy.address(), "/ws").await.unwrap();
    socket.send("hello").await;
    assert_eq!(socket.next().await, Some(Message::text("hello")));
}

#[tokio::test]
async fn the_slow_page_is_slow_once() {
    let proxy = demo().await;
    let first = proxy.get("/slow").await;
    let second = proxy.get("/slow").await;
    assert_eq!(first.text(), second.text());
    assert!(second.cache_status().starts_with("hit"), "{}", second.raw_head);
}

#[tokio::test]
async fn the_chat_speaks_token_by_token() {
    let proxy = demo().await;
    let mut client: Client = proxy.client().await;
    let question = br#"{"messages":[{"role":"user","content":"What is a forebay?"}]}"#;
    client
        .send_request("POST", "/api/chat/completions", &[], question)
        .await;
    let mut source = EventSource::after_request(client).await;
    let mut spoken = Vec::new();
    while let Some(Item::Event(event)) = source.next().await {
        spoken.push(event.data);
    }
    assert!(spoken.len() > 10, "{spoken:?}");
    assert_eq!(spoken.last().unwrap(), "[DONE]");
}
