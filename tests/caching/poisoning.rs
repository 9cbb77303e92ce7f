//! Request fields that are not part of the key change nothing of what another client gets.

use crate::support::inside::Inside;
use crate::support::origin::{Origin, Reply, Request};

/// Fields that applications, frameworks, servers and proxies are known to look at beside the request itself, from published
/// lists for finding unkeyed input.
const NAMES: &str = include_str!("poisoning.txt");

/// Those among them by which an application takes another method, target, host, scheme, port, address or user for the request's own.
const BELIEVED: &str = include_str!("believed.txt");

/// An application that believes all of that, and says so in a response that every cache may keep.
fn echo(request: &Request) -> Reply {
    let believed: Vec<String> = request
        .fields
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase().replace('_', "-"), value))
        .filter(|(name, _)| BELIEVED.lines().any(|known| known == name))
        .map(|(name, value)| format!("{name}={value}\n"))
        .collect();
    Reply::fresh(
        60,
        format!("{} {}\n{}", request.method, request.target, believed.concat()),
    )
}

#[tokio::test]
async fn nothing_that_one_client_sends_reaches_another() {
    let origin = Origin::builder().answering(echo).start().await;
    let proxy = Inside::before(&origin, "").await;
    let names: Vec<&str> = NAMES.lines().collect();
    assert!(names.len() >= 300, "{} names", names.len());
    let mut poisonous = Vec::new();
    let mut client = proxy.client().await;
    for (number, name) in names.iter().enumerate() {
        for (spelled, spelling) in [(*name).to_owned(), name.replace('-', "_")].iter().enumerate() {
            let target = format!("/{number}/{spelled}");
            let sent = proxy.request("GET", &target, &[(spelling, "evil.example")], b"").await;
            if client.get(&target).await.text().contains("evil") {
                poisonous.push(format!("{spelling} ({})", sent.status));
            }
        }
    }
    assert!(poisonous.is_empty(), "these do: {poisonous:#?}");
}

#[tokio::test]
async fn what_a_trusted_proxy_says_of_the_target_is_part_of_the_key() {
    let origin = Origin::builder().answering(echo).start().await;
    let proxy = Inside::before(&origin, "trusted_proxies: [\"127.0.0.0/8\"]\n").await;
    let names = [
        "forwarded-host",
        "front-end-https",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-proto",
        "x-host",
        "x-http-method-override",
        "x-original-url",
        "x-rewrite-url",
        "x-scheme",
    ];
    for name in names {
        let target = format!("/{name}");
        let with = |value: &'static str| {
            let (proxy, target) = (&proxy, &target);
            async move { proxy.request("GET", target, &[(name, value)], b"").await }
        };
        for value in ["one", "two", "one"] {
            let response = with(value).await;
            assert!(response.text().contains(value), "{name}: {}", response.text());
        }
        let without = proxy.get(&target).await;
        assert!(!without.text().contains("one"), "{name}: {}", without.text());
    }
}

#[tokio::test]
async fn the_scheme_that_the_origin_is_told_is_part_of_the_key() {
    let origin = Origin::builder()
        .answering(|request| Reply::fresh(60, request.field("x-forwarded-proto").unwrap_or("none").to_owned()))
        .start()
        .await;
    let proxy = Inside::before(&origin, "trusted_proxies: [\"127.0.0.0/8\"]\n").await;
    for _ in 0..2 {
        for scheme in ["https", "http"] {
            let response = proxy.request("GET", "/a", &[("X-Forwarded-Proto", scheme)], b"").await;
            assert_eq!(response.text(), scheme);
        }
    }
    assert_eq!(origin.request_count(), 2);
}
