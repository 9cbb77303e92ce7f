//! Servers that are found by name, and in a file.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use forebay::clock::Clock;

use super::{numbered, servers, yaml};
use crate::support::dns::{Dns, Records};
use crate::support::inside::Inside;
use crate::support::origin::{Gate, Origin, Reply};
use crate::support::proxy::Proxy;
use crate::support::within;

fn uncached(text: impl Into<String>) -> Reply {
    Reply::ok(text.into()).field("Cache-Control", "no-store")
}

/// Origins on one port of different addresses of this machine.
async fn on_one_port(addresses: &[[u8; 4]]) -> Vec<Origin> {
    let mut origins: Vec<Origin> = Vec::new();
    for address in addresses {
        let port = origins.first().map_or(0, Origin::port);
        let reply = uncached(address[3].to_string());
        origins.push(Origin::builder().otherwise(reply).at((*address, port)).start().await);
    }
    origins
}

fn by_name(dns: &Dns, port: u16, more: &str) -> String {
    let keys = format!(
        "servers: [\"app.test:{port}\"], dns_servers: [\"{}\"], dns_refresh: 100ms{more}",
        dns.address
    );
    yaml(&keys, "")
}

/// Who answers, of so many requests.
async fn answering(proxy: &Inside, requests: usize) -> BTreeSet<String> {
    let mut client = proxy.client().await;
    let mut seen = BTreeSet::new();
    for _ in 0..requests {
        let response = client.get("/").await;
        assert_eq!(response.status, 200, "{}", response.text());
        seen.insert(response.text().to_owned());
    }
    seen
}

/// Waits until these answer, and no others.
async fn until_answering(proxy: &Inside, wanted: &[&str]) {
    let wanted: BTreeSet<String> = wanted.iter().map(ToString::to_string).collect();
    within("the servers to change", async {
        while answering(proxy, 6).await != wanted {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn all_addresses_of_a_name_are_servers_and_follow_its_records() {
    let origins = on_one_port(&[[127, 0, 0, 2], [127, 0, 0, 3], [127, 0, 0, 4]]).await;
    let dns = Dns::start().await;
    dns.addresses("app.test", &["127.0.0.2", "127.0.0.3"]);
    let proxy = Inside::start(&by_name(&dns, origins[0].port(), ""), Clock::new()).await;
    // The first request waits for the first answer.
    assert_eq!(proxy.get("/").await.status, 200);
    until_answering(&proxy, &["2", "3"]).await;
    let connections = origins[0].connection_count();

    // One more comes, one goes; the one that stays keeps its connections.
    let gate = Gate::new();
    origins[1].on("/held", Reply::ok("held").hold(&gate));
    let mut held = proxy.client().await;
    let mut other = proxy.client().await;
    held.send_request("GET", "/held", &[], b"").await;
    other.send_request("GET", "/held", &[], b"").await;
    gate.reached(1).await;
    dns.addresses("app.test", &["127.0.0.2", "127.0.0.4"]);
    until_answering(&proxy, &["2", "4"]).await;
    assert!(origins[0].connection_count() <= connections + 1, "kept alive");
    let before = origins[1].request_count();
    answering(&proxy, 10).await;
    assert_eq!(origins[1].request_count(), before, "nothing new for who has gone");
    gate.release();
    let bodies = [held.response().await, other.response().await].map(|response| response.text().to_owned());
    assert!(
        bodies.contains(&"held".to_owned()),
        "what is under way is finished: {bodies:?}"
    );
}

#[tokio::test]
async fn failures_keep_the_last_good_set() {
    let origins = on_one_port(&[[127, 0, 0, 2], [127, 0, 0, 3]]).await;
    let dns = Dns::start().await;
    dns.addresses("app.test", &["127.0.0.2"]);
    let proxy = Inside::start(&by_name(&dns, origins[0].port(), ""), Clock::new()).await;
    until_answering(&proxy, &["2"]).await;
    for records in [Records::Broken, Records::Addresses(vec![])] {
        dns.say("app.test", records);
        dns.asked_again(4).await;
        assert_eq!(answering(&proxy, 4).await, BTreeSet::from(["2".to_owned()]));
    }
    dns.forget("app.test");
    dns.asked_again(4).await;
    assert_eq!(answering(&proxy, 4).await, BTreeSet::from(["2".to_owned()]));
    dns.addresses("app.test", &["127.0.0.3"]);
    until_answering(&proxy, &["3"]).await;
}

#[tokio::test]
async fn a_name_that_does_not_exist_at_start_stops_nothing() {
    let origins = on_one_port(&[[127, 0, 0, 2]]).await;
    let dns = Dns::start().await;
    let proxy = Inside::start(&by_name(&dns, origins[0].port(), ""), Clock::new()).await;
    let response = proxy.get("/").await;
    assert_eq!(response.status, 502);
    assert!(response.field("proxy-status").unwrap().contains("error=dns_error"));
    dns.addresses("app.test", &["127.0.0.2"]);
    within("the name to resolve", async {
        while proxy.get("/").await.status != 200 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn addresses_of_both_families_are_servers() {
    let fourth = Origin::builder().otherwise(uncached("4")).start().await;
    let sixth = Origin::builder()
        .otherwise(uncached("6"))
        .at((Ipv6Addr::LOCALHOST, fourth.port()))
        .start()
        .await;
    let dns = Dns::start().await;
    dns.addresses("app.test", &["127.0.0.1", "::1"]);
    let proxy = Inside::start(&by_name(&dns, sixth.port(), ""), Clock::new()).await;
    until_answering(&proxy, &["4", "6"]).await;
    dns.addresses("app.test", &["::1"]);
    until_answering(&proxy, &["6"]).await;
}

#[tokio::test]
async fn service_records_give_ports_weights_and_priorities() {
    let origins = numbered(3).await;
    let dns = Dns::start().await;
    dns.addresses("a.test", &["127.0.0.1"]);
    let (heavy, light, last) = (origins[0].port(), origins[1].port(), origins[2].port());
    dns.say(
        "_http._tcp.app.test",
        Records::Services(vec![
            (10, 30, heavy, "a.test"),
            (10, 10, light, "a.test"),
            (20, 10, last, "a.test"),
        ]),
    );
    let keys = format!(
        "servers: [\"srv:_http._tcp.app.test\"], dns_servers: [\"{}\"], dns_refresh: 100ms",
        dns.address
    );
    let proxy = Inside::start(&yaml(&keys, ""), Clock::new()).await;
    let mut client = proxy.client().await;
    let mut counts = [0; 3];
    for _ in 0..40 {
        counts[client.get("/").await.text().parse::<usize>().unwrap()] += 1;
    }
    assert_eq!(counts, [30, 10, 0]);
    dns.say("_http._tcp.app.test", Records::Services(vec![(20, 10, last, "a.test")]));
    until_answering(&proxy, &["2"]).await;
}

#[tokio::test]
async fn names_of_the_hosts_file_need_no_name_server() {
    let origin = Origin::builder().otherwise(Reply::ok("here")).start().await;
    // Nobody answers there.
    let keys = format!(
        "servers: [\"localhost:{}\"], dns_servers: [\"127.0.0.1:9\"]",
        origin.port()
    );
    let proxy = Inside::start(&yaml(&keys, "routes: [{ cache: false }]\n"), Clock::new()).await;
    for _ in 0..4 {
        assert_eq!(proxy.get("/").await.text(), "here");
    }
    let port = origin.port().to_string();
    let labels = [("upstream", "app"), ("outcome", "connect_error")];
    let server = format!("127.0.0.1:{port}");
    assert_eq!(
        proxy
            .metric(
                "forebay_upstream_requests_total",
                &[labels[0], ("server", &server), labels[1]]
            )
            .await,
        0.0
    );
}

#[tokio::test]
async fn a_file_of_servers_is_watched_and_bad_lines_change_nothing() {
    let origins = numbered(3).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("servers.txt");
    std::fs::write(&file, format!("{}\n", origins[0].server())).unwrap();
    let keys = format!("servers_file: \"{}\"", file.display());
    let proxy = Proxy::start(&yaml(&keys, "")).await;
    assert_eq!(proxy.get("/").await.text(), "0");
    let until = async |wanted: &str| {
        within("the file to be taken up", async {
            let mut client = proxy.client().await;
            while client.get("/").await.text() != wanted {
                tokio::task::yield_now().await;
            }
        })
        .await;
    };
    std::fs::write(&file, format!("# now this\n{} weight=2\n", origins[1].server())).unwrap();
    until("1").await;

    std::fs::write(
        &file,
        format!("{}\n{} wieght=2\n", origins[2].server(), origins[0].server()),
    )
    .unwrap();
    let said = proxy
        .diagnostic("the bad line", |line| line.contains("servers_file is not taken up"))
        .await;
    assert!(said.contains(&format!("{}:2", file.display())), "{said}");
    assert_eq!(proxy.get("/").await.text(), "1");

    // Replaced, as careful people do.
    let new = directory.path().join("new.txt");
    std::fs::write(&new, format!("{}\n", origins[2].server())).unwrap();
    std::fs::rename(&new, &file).unwrap();
    until("2").await;
}

#[tokio::test]
async fn a_reload_lets_open_requests_finish_and_keeps_what_stays() {
    let gate = Gate::new();
    let origins = [
        Origin::builder()
            .on("/held", Reply::ok("held").hold(&gate))
            .otherwise(Reply::ok("0"))
            .start()
            .await,
        Origin::builder()
            .on("/held", Reply::ok("held").hold(&gate))
            .otherwise(Reply::ok("1"))
            .start()
            .await,
    ];
    let sections = "routes: [{ cache: false }]\n";
    let keys = |origins| format!("keepalive_idle: 60s, {}", servers(origins));
    let proxy = Proxy::start(&yaml(&keys(&origins), sections)).await;
    for _ in 0..4 {
        assert_eq!(proxy.get("/").await.status, 200);
    }
    let kept = origins[0].connection_count();
    let mut clients = [proxy.client().await, proxy.client().await];
    for client in &mut clients {
        client.send_request("GET", "/held", &[], b"").await;
    }
    gate.reached(2).await;
    proxy
        .reload(&yaml(
            &format!("balance: least_connections, {}", keys(&origins[..1])),
            sections,
        ))
        .await;
    for _ in 0..4 {
        assert_eq!(proxy.get("/").await.text(), "0");
    }
    gate.release();
    for client in &mut clients {
        assert_eq!(client.response().await.text(), "held");
    }
    // Its connections have outlived the reload.
    assert!((0..kept).all(|index| !origins[0].connection(index).closed));
    // Nothing is kept open to who has gone.
    within("the connections to close", async {
        for index in 0..origins[1].connection_count() {
            origins[1].until_closed(index).await;
        }
    })
    .await;
}
