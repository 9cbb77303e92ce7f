//! Clients that stay at their server.

use forebay::clock::Clock;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::{numbered, servers, yaml};
use crate::support::client::Response;
use crate::support::inside::Inside;
use crate::support::origin::{Origin, Reply};

const KEYS: &str = "sticky: { cookie: forebay_server, ttl: 1h, secret: hush }";

async fn before(origins: &[Origin]) -> Inside {
    Inside::start(&yaml(&format!("{KEYS}, {}", servers(origins)), ""), Clock::new()).await
}

/// `name=value` of our cookie.
fn cookie(response: &Response) -> Option<String> {
    let ours = response
        .fields("set-cookie")
        .into_iter()
        .find(|line| line.starts_with("forebay_server="))?;
    Some(ours.split(';').next().unwrap().to_owned())
}

#[tokio::test]
async fn a_client_comes_back_to_its_server_on_every_instance() {
    let origins = numbered(3).await;
    let (here, there) = (before(&origins).await, before(&origins).await);
    let first = here.get("/").await;
    let line = first.field("set-cookie").unwrap().to_owned();
    assert!(
        line.ends_with("; Path=/; Max-Age=3600; HttpOnly; Secure; SameSite=Lax"),
        "{line}"
    );
    let mine = cookie(&first).unwrap();
    for proxy in [&here, &there] {
        let mut client = proxy.client().await;
        for _ in 0..6 {
            let again = client.request("GET", "/", &[("Cookie", &mine)], b"").await;
            assert_eq!(again.text(), first.text());
            assert_eq!(again.field("set-cookie"), None, "nothing has changed");
        }
    }
    // Half of its time later it is renewed, and at its end it means nothing.
    here.advance(1801);
    let renewed = here.request("GET", "/", &[("Cookie", &mine)], b"").await;
    assert_eq!(renewed.text(), first.text());
    assert!(cookie(&renewed).is_some());
    here.advance(1800);
    let mut client = here.client().await;
    let mut others = 0;
    for _ in 0..3 {
        others += usize::from(client.request("GET", "/", &[("Cookie", &mine)], b"").await.text() != first.text());
    }
    assert_eq!(others, 2, "in turn again");
}

#[tokio::test]
async fn a_forged_cookie_is_replaced_and_a_lost_server_too() {
    let origins = numbered(2).await;
    let proxy = before(&origins).await;
    let forged = proxy
        .request("GET", "/", &[("Cookie", "forebay_server=AAAA")], b"")
        .await;
    assert!(cookie(&forged).is_some());
    let mine = cookie(&forged).unwrap();
    let number: usize = forged.text().parse().unwrap();
    let mut origins = origins;
    drop(origins.remove(number));
    let other = proxy.request("GET", "/", &[("Cookie", &mine)], b"").await;
    assert_eq!((other.status, other.text()), (200, if number == 0 { "1" } else { "0" }));
    let new = cookie(&other).expect("another name");
    let again = proxy.request("GET", "/", &[("Cookie", &new)], b"").await;
    assert_eq!((again.text(), again.field("set-cookie")), (other.text(), None));
}

#[tokio::test]
async fn the_app_and_the_cache_never_see_it() {
    let reply = || {
        Reply::ok("page")
            .field("Cache-Control", "max-age=60")
            .field("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
    };
    let heuristic = Reply::ok("old").field("Last-Modified", "Thu, 01 Jan 2015 00:00:00 GMT");
    let origin = Origin::builder()
        .on("/heuristic", heuristic)
        .otherwise(reply())
        .start()
        .await;
    let proxy = before(std::slice::from_ref(&origin)).await;
    let first = proxy.get("/").await;
    assert_eq!(
        first.field("set-cookie"),
        None,
        "a cache in front may store it for everybody"
    );
    let hit = proxy.get("/").await;
    assert!(
        hit.cache_status().contains("hit"),
        "stored all the same: {}",
        hit.cache_status()
    );
    assert_eq!(hit.field("set-cookie"), None);
    assert_eq!(origin.request_count(), 1);

    let posted = proxy.request("POST", "/other", &[], b"x").await;
    let mine = cookie(&posted).expect("it is stored nowhere");
    let cookies = format!("a=\"1\"; {mine};  b=2=3");
    let passed = proxy.request("POST", "/", &[("Cookie", &cookies)], b"x").await;
    assert_eq!(passed.status, 200);
    assert_eq!(origin.last_request().fields("cookie"), ["a=\"1\";  b=2=3"]);
    proxy.request("POST", "/", &[("Cookie", &mine)], b"x").await;
    assert_eq!(origin.last_request().field("cookie"), None);

    // Alone, it is not a cookie that a heuristic lifetime would have to respect.
    let count = origin.request_count();
    for _ in 0..2 {
        proxy.request("GET", "/heuristic", &[("Cookie", &mine)], b"").await;
    }
    assert_eq!(origin.request_count(), count + 1);
}

#[tokio::test]
async fn a_web_socket_goes_to_its_clients_server() {
    let mut origins = Vec::new();
    for number in 0..3 {
        let reply = Reply::ok(number.to_string()).field("Cache-Control", "no-store");
        let origin = Origin::builder().on("/ws", Reply::web_socket_echo()).otherwise(reply);
        origins.push(origin.start().await);
    }
    let proxy = before(&origins).await;
    let first = proxy.get("/").await;
    let mine = cookie(&first).unwrap();
    let number: usize = first.text().parse().unwrap();
    for _ in 0..3 {
        let mut request = format!("ws://{}/ws", proxy.address()).into_client_request().unwrap();
        request.headers_mut().insert("cookie", mine.parse().unwrap());
        let (mut socket, response) = tokio_tungstenite::connect_async(request).await.unwrap();
        assert_eq!(response.headers().get("set-cookie"), None, "nothing has changed");
        socket.close(None).await.unwrap();
    }
    let sockets = |origin: &Origin| {
        origin
            .requests()
            .iter()
            .filter(|request| request.target == "/ws")
            .count()
    };
    for (other, origin) in origins.iter().enumerate() {
        assert_eq!(sockets(origin), if other == number { 3 } else { 0 });
    }
    // One that names no server gets the cookie with its 101.
    let (_socket, response) = tokio_tungstenite::connect_async(format!("ws://{}/ws", proxy.address()))
        .await
        .unwrap();
    let line = response.headers().get("set-cookie").unwrap().to_str().unwrap();
    assert!(line.starts_with("forebay_server="), "{line}");
}
