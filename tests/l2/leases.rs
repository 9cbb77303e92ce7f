//! One fetch for all instances.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use forebay::cache::purge::What;
use forebay::message::Scheme;
use forebay::rfc9111::invalidation::ResourceUri;
use nix::sys::signal::Signal;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::tier::{age, only_key};
use crate::support::inside::Inside;
use crate::support::origin::{Gate, Origin, Reply, Step, Stream};
use crate::support::proxy::{Proxy, config};
use crate::support::redis::Redis;
use crate::support::{within, within_time};

/// How long a lease lives whose owner has died, and what loaded machines take beside it.
const SOON: Duration = Duration::from_secs(3 + 5);

/// The deadline is for machines under load.
fn sections(redis: &Redis, more: &str) -> String {
    format!(
        "cache: {{ redis: {{ url: \"{}\", deadline: 5s{more} }} }}\ndefaults: {{ cache: {{ collapse: cluster }} }}\n",
        redis.url()
    )
}

async fn instance(origin: &Origin, redis: &Redis, more: &str) -> Inside {
    let proxy = Inside::before(origin, &sections(redis, more)).await;
    proxy.follows(true).await;
    heard(&proxy, true).await;
    proxy
}

async fn heard(proxy: &Inside, heard: bool) {
    let wanted = f64::from(u8::from(heard));
    proxy.metric_becomes("forebay_leases_heard", &[], wanted).await;
}

/// Waits until so many other instances' fetches are waited for.
async fn waits(proxy: &Inside, count: usize) {
    proxy.metric_becomes("forebay_leases_waiting", &[], count as f64).await;
}

async fn two(origin: &Origin, redis: &Redis) -> [Inside; 2] {
    [instance(origin, redis, "").await, instance(origin, redis, "").await]
}

/// The answers to come: status and body.
type Answers = JoinSet<(u16, String)>;

/// So many requests on each of them.
async fn ask(proxies: &[Inside], each: usize, target: &'static str) -> Answers {
    let mut all = JoinSet::new();
    ask_also(&mut all, proxies, each, target).await;
    all
}

async fn ask_also(all: &mut Answers, proxies: &[Inside], each: usize, target: &'static str) {
    for proxy in proxies {
        for _ in 0..each {
            let mut client = proxy.client().await;
            all.spawn(async move {
                let response = client.get(target).await;
                (response.status, response.text().to_owned())
            });
        }
    }
}

async fn all_get(all: Answers, body: &str) {
    for got in within("all answers", all.join_all()).await {
        assert_eq!(got, (200, body.to_owned()));
    }
}

/// So many requests on both: the first instance's fetch is held at the gate, and the other one waits for it.
async fn one_leads(proxies: &[Inside; 2], gate: &Gate, each: usize, target: &'static str) -> Answers {
    let [leader, other] = proxies;
    let mut all = ask(std::slice::from_ref(leader), each, target).await;
    within("a held request", gate.reached(1)).await;
    ask_also(&mut all, std::slice::from_ref(other), each, target).await;
    waits(other, 1).await;
    leader.in_flight(each).await;
    other.in_flight(each).await;
    all
}

/// What a purge of that URI is about.
fn uri(target: &str) -> What {
    What::Uris(vec![ResourceUri {
        scheme: Scheme::Http,
        authority: "test".into(),
        target: target.into(),
    }])
}

#[tokio::test]
async fn requests_on_three_instances_share_one_fetch_and_one_purge() {
    let redis = Redis::start().await;
    let gate = Gate::new();
    let count = AtomicUsize::new(1);
    let origin = {
        let gate = gate.clone();
        Origin::builder()
            .answering(move |_| {
                let number = count.fetch_add(1, Ordering::Relaxed);
                let reply = Reply::fresh(3600, number.to_string()).field("Cache-Tag", "a");
                reply.hold(&gate)
            })
            .start()
            .await
    };
    let mut all = Vec::new();
    for _ in 0..3 {
        all.push(instance(&origin, &redis, "").await);
    }
    let answers = ask(&all, 30, "/a").await;
    within("a held request", gate.reached(1)).await;
    for proxy in &all {
        proxy.in_flight(30).await;
    }
    gate.release();
    all_get(answers, "1").await;
    assert_eq!(origin.request_count(), 1);
    // Nobody has it any more: at once where it was purged, and a moment later elsewhere.
    all[1].purge_for_all(What::tags(["a"])).await;
    let purged = Instant::now();
    assert_eq!(all[1].get("/a").await.text(), "2");
    tokio::time::sleep_until(purged + Duration::from_millis(100)).await;
    all_get(ask(&all, 10, "/a").await, "2").await;
    assert_eq!(origin.request_count(), 2);
}

#[tokio::test]
async fn what_is_not_stored_releases_all_and_is_remembered() {
    let redis = Redis::start().await;
    let gate = Gate::new();
    let reply = Reply::ok("own").field("Cache-Control", "no-store").hold(&gate);
    let origin = Origin::builder().on("/a", reply).start().await;
    let both = two(&origin, &redis).await;
    let all = one_leads(&both, &gate, 5, "/a").await;
    gate.release();
    within_time(Duration::from_secs(2), "everybody's own", all_get(all, "own")).await;
    assert_eq!(origin.request_count(), 10);
    // One that knows nothing of it does not wait, nor lead.
    gate.close();
    let third = [instance(&origin, &redis, "").await];
    let all = ask(&third, 5, "/a").await;
    within("held requests", gate.reached(15)).await;
    gate.release();
    all_get(all, "own").await;
}

#[tokio::test]
async fn what_was_for_one_client_says_nothing_of_the_next() {
    let redis = Redis::start().await;
    let gate = Gate::new();
    // Only what is said to a client with a cookie is not for others.
    let origin = {
        let gate = gate.clone();
        Origin::builder()
            .answering(move |request| match request.field("cookie") {
                Some(_) => Reply::ok("own")
                    .field("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
                    .hold(&gate),
                None => Reply::fresh(60, "all"),
            })
            .start()
            .await
    };
    let both = two(&origin, &redis).await;
    let mut own = both[0].client().await;
    own.send_request("GET", "/a", &[("Cookie", "a=b")], b"").await;
    within("a held request", gate.reached(1)).await;
    let other = ask(&both[1..], 3, "/a").await;
    waits(&both[1], 1).await;
    gate.release();
    all_get(other, "all").await;
    assert_eq!(own.response().await.text(), "own");
    assert_eq!(origin.request_count(), 2);
}

#[tokio::test]
async fn nobody_waits_once_redis_is_gone_or_hangs() {
    for hangs in [false, true] {
        let mut redis = Redis::start().await;
        let gate = Gate::new();
        let origin = Origin::builder()
            .on("/a", Reply::fresh(60, "kept").hold(&gate))
            .start()
            .await;
        let both = two(&origin, &redis).await;
        let all = one_leads(&both, &gate, 5, "/a").await;
        match hangs {
            true => redis.pause(),
            false => redis.kill().await,
        }
        // One that hangs is asked once more, for as long as the deadline is here.
        within_time(Duration::from_secs(12), "another fetch", gate.reached(2)).await;
        gate.release();
        all_get(all, "kept").await;
        assert_eq!(origin.request_count(), 2);
        // The one that leads waits for nothing.
        heard(&both[1], false).await;
        match hangs {
            true => redis.resume(),
            false => redis.restart().await,
        }
        for proxy in &both {
            heard(proxy, true).await;
        }
    }
}

/// Leases are read on a master that has become a replica, and never released.
#[tokio::test]
async fn nobody_waits_where_redis_takes_no_writes() {
    let redis = Redis::start().await;
    let gate = Gate::new();
    let origin = Origin::builder()
        .otherwise(Reply::fresh(60, "kept").hold(&gate))
        .start()
        .await;
    let both = two(&origin, &redis).await;
    let mut all = one_leads(&both, &gate, 1, "/a").await;
    redis.command(&["REPLICAOF", "127.0.0.1", "1"]).await;
    // The lease has two seconds left at least.
    within_time(Duration::from_millis(1900), "another fetch", gate.reached(2)).await;
    ask_also(&mut all, &both, 1, "/b").await;
    within("fetches of both", gate.reached(4)).await;
    gate.release();
    all_get(all, "kept").await;
    redis.command(&["REPLICAOF", "NO", "ONE"]).await;
    for proxy in &both {
        heard(proxy, true).await;
    }
}

#[tokio::test]
async fn without_redis_a_miss_takes_no_longer() {
    let origin = Origin::builder().otherwise(Reply::fresh(60, "kept")).start().await;
    let mut redis = Redis::start().await;
    redis.kill().await;
    let proxy = Inside::before(&origin, &sections(&redis, "")).await;
    let since = Instant::now();
    for number in 0..20 {
        assert_eq!(proxy.get(&format!("/{number}")).await.text(), "kept");
    }
    // The deadline is 5 s.
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    assert_eq!(origin.request_count(), 20);
}

/// A process of its own.
async fn child(origin: &Origin, redis: &Redis) -> Proxy {
    let yaml = config(origin, &sections(redis, "")) + "metrics: { listen: 127.0.0.1:0 }\n";
    let proxy = Proxy::start(&yaml).await;
    for gauge in ["forebay_coherence_followed", "forebay_leases_heard"] {
        proxy.metric_becomes(gauge, &[], 1.0).await;
    }
    proxy
}

#[tokio::test]
async fn a_leader_that_is_killed_in_mid_fill_is_replaced() {
    let redis = Redis::start().await;
    let (stream, gate) = (Stream::new(), Gate::new());
    let half = Reply::streamed(&stream).field("Cache-Control", "max-age=60");
    let origin = Origin::builder()
        .on_each("/a", [half, Reply::fresh(60, "whole").hold(&gate)])
        .start()
        .await;
    let mut leader = child(&origin, &redis).await;
    let others = two(&origin, &redis).await;
    let mut first = leader.client().await;
    first.send_request("GET", "/a", &[], b"").await;
    within("an open stream", stream.opened(1)).await;
    stream.send("wh");
    assert_eq!(first.response_head().await.status, 200);
    let all = ask(&others, 5, "/a").await;
    for proxy in &others {
        waits(proxy, 1).await;
    }
    assert_eq!(origin.request_count(), 1);
    leader.signal(Signal::SIGKILL);
    leader.wait_exit().await;
    // One of the others takes it over, and the other one waits for that.
    within_time(SOON, "another fetch", gate.reached(1)).await;
    gate.release();
    all_get(all, "whole").await;
    assert_eq!(origin.request_count(), 2);
}

#[tokio::test]
async fn a_fetch_that_takes_long_keeps_its_lease() {
    let redis = Redis::start().await;
    let gate = Gate::new();
    let origin = Origin::builder()
        .on("/a", Reply::fresh(60, "kept").hold(&gate))
        .start()
        .await;
    let both = two(&origin, &redis).await;
    let all = one_leads(&both, &gate, 2, "/a").await;
    // It has been extended, and the other one has asked again.
    both[1]
        .metric_becomes("forebay_redis_leases_total", &[("result", "expired")], 1.0)
        .await;
    waits(&both[1], 1).await;
    gate.release();
    all_get(all, "kept").await;
    assert_eq!(origin.request_count(), 1);
}

#[tokio::test]
async fn what_is_too_large_for_redis_is_fetched_by_each() {
    let redis = Redis::start().await;
    let large = "x".repeat(2000);
    for known in [true, false] {
        let gate = Gate::new();
        let fields = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n";
        let (head, end) = match known {
            true => (
                format!("{fields}Content-Length: 2000\r\n\r\n{}", &large[1..]),
                "x".to_owned(),
            ),
            false => (
                format!("{fields}Transfer-Encoding: chunked\r\n\r\n7cf\r\n{}\r\n", &large[1..]),
                "1\r\nx\r\n0\r\n\r\n".to_owned(),
            ),
        };
        let reply = Reply::script([
            Step::Write(head.into_bytes().into()),
            Step::Hold(gate.clone()),
            Step::Write(end.into_bytes().into()),
        ]);
        let origin = Origin::builder().otherwise(reply).start().await;
        let both = [
            instance(&origin, &redis, ", max_body: 1000").await,
            instance(&origin, &redis, ", max_body: 1000").await,
        ];
        // While it still comes in.
        let target = if known { "/known" } else { "/unknown" };
        let all = ask(&both[..1], 3, target).await;
        within("a fetch", gate.reached(1)).await;
        let others = ask(&both[1..], 3, target).await;
        within_time(Duration::from_secs(2), "the other's fetch", gate.reached(2)).await;
        // And it is remembered.
        let third = [instance(&origin, &redis, ", max_body: 1000").await];
        let thirds = ask(&third, 3, target).await;
        within_time(Duration::from_secs(2), "the third's fetch", gate.reached(3)).await;
        gate.release();
        for answers in [all, others, thirds] {
            all_get(answers, &large).await;
        }
        // In one instance they share it all the same.
        assert_eq!(origin.request_count(), 3, "{target}");
    }
}

/// Says how many requests there had been, and holds the first.
async fn counting(gate: &Gate) -> Origin {
    let (gate, count) = (gate.clone(), AtomicUsize::new(1));
    Origin::builder()
        .answering(move |_| {
            let number = count.fetch_add(1, Ordering::Relaxed);
            let reply = Reply::fresh(60, number.to_string()).field("Cache-Tag", "a");
            if number == 1 { reply.hold(&gate) } else { reply }
        })
        .start()
        .await
}

#[tokio::test]
async fn behind_a_purge_nobody_waits_for_what_began_before_it() {
    let (redis, gate) = (Redis::start().await, Gate::new());
    let origin = counting(&gate).await;
    let both = two(&origin, &redis).await;
    let mut before = both[0].client().await;
    before.send_request("GET", "/a", &[], b"").await;
    within("a held request", gate.reached(1)).await;
    both[1].purge_for_all(uri("/a")).await;
    // While the first fetch is still held.
    let got = within_time(Duration::from_secs(2), "a fetch of its own", both[1].get("/a"));
    assert_eq!(got.await.text(), "2");
    gate.release();
    assert_eq!(before.response().await.text(), "1");
    for proxy in &both {
        assert_eq!(proxy.get("/a").await.text(), "2");
    }
    assert_eq!(origin.request_count(), 2);
}

#[tokio::test]
async fn a_purge_of_its_tag_in_mid_fill_hands_the_lease_on() {
    let (redis, gate) = (Redis::start().await, Gate::new());
    let origin = counting(&gate).await;
    let both = two(&origin, &redis).await;
    let mut before = both[0].client().await;
    before.send_request("GET", "/a", &[], b"").await;
    within("a held request", gate.reached(1)).await;
    both[1].purge_for_all(What::tags(["a"])).await;
    // What it is tagged with is known when it is there.
    let mut after = both[1].client().await;
    after.send_request("GET", "/a", &[], b"").await;
    waits(&both[1], 1).await;
    gate.release();
    assert_eq!(before.response().await.text(), "1");
    assert_eq!(after.response().await.text(), "2");
    for proxy in &both {
        let got = proxy.get("/a").await;
        assert_eq!(got.text(), "2");
    }
    assert_eq!(origin.request_count(), 2);
}

#[tokio::test]
async fn routes_share_fetches_in_one_instance_or_in_all() {
    let (redis, gate) = (Redis::start().await, Gate::new());
    let origin = Origin::builder()
        .otherwise(Reply::fresh(60, "kept").hold(&gate))
        .start()
        .await;
    let sections = format!(
        "cache: {{ redis: {{ url: \"{}\", deadline: 5s }} }}\nroutes:\n\
         - {{ name: all, match: {{ path_prefix: /all }}, cache: {{ collapse: cluster }} }}\n\
         - {{ name: each, match: {{ path_prefix: / }} }}\n",
        redis.url()
    );
    let both = [
        Inside::before(&origin, &sections).await,
        Inside::before(&origin, &sections).await,
    ];
    for proxy in &both {
        proxy.follows(true).await;
        heard(proxy, true).await;
    }
    let each = ask(&both, 5, "/each").await;
    within("two fetches", gate.reached(2)).await;
    let all = ask(&both, 5, "/all").await;
    for proxy in &both {
        proxy.in_flight(10).await;
    }
    within("one more", gate.reached(3)).await;
    gate.release();
    all_get(each, "kept").await;
    all_get(all, "kept").await;
    assert_eq!(origin.request_count(), 3);
}

#[tokio::test]
async fn variants_are_fetched_once_each() {
    let (redis, gate) = (Redis::start().await, Gate::new());
    let origin = {
        let gate = gate.clone();
        Origin::builder()
            .answering(move |request| {
                let language = request.field("accept-language").unwrap_or("none").to_owned();
                Reply::fresh(60, language).field("Vary", "Accept-Language").hold(&gate)
            })
            .start()
            .await
    };
    let both = two(&origin, &redis).await;
    let mut clients = Vec::new();
    for (proxy, language) in [(0, "de"), (1, "en"), (1, "de"), (0, "en")] {
        let mut client = both[proxy].client().await;
        client
            .send_request("GET", "/a", &[("Accept-Language", language)], b"")
            .await;
        clients.push((client, language));
        if clients.len() == 1 {
            within("a held request", gate.reached(1)).await;
        }
    }
    waits(&both[1], 1).await;
    gate.release();
    for (mut client, language) in clients {
        assert_eq!(client.response().await.text(), language);
    }
    assert_eq!(origin.request_count(), 2);
}

#[tokio::test]
async fn what_is_stale_is_refreshed_by_one() {
    let (redis, gate) = (Redis::start().await, Gate::new());
    let swr = |body: &'static str| Reply::ok(body).field("Cache-Control", "max-age=60, stale-while-revalidate=3600");
    let origin = Origin::builder()
        .on_each("/a", [swr("old"), swr("new").hold(&gate)])
        .start()
        .await;
    let both = two(&origin, &redis).await;
    for proxy in &both {
        assert_eq!(proxy.get("/a").await.text(), "old");
        if std::ptr::eq(proxy, &both[0]) {
            only_key(&redis).await;
        }
    }
    assert_eq!(origin.request_count(), 1);
    age(&redis, &only_key(&redis).await, 100_000).await;
    both.iter().for_each(|proxy| proxy.advance(100));
    assert_eq!(both[0].get("/a").await.text(), "old");
    within("a refresh", gate.reached(1)).await;
    assert_eq!(both[1].get("/a").await.text(), "old");
    waits(&both[1], 1).await;
    gate.release();
    for proxy in &both {
        within("the new one", async { while proxy.get("/a").await.text() != "new" {} }).await;
    }
    assert_eq!(origin.request_count(), 2);
}

#[tokio::test]
async fn what_is_written_through_is_there_for_those_who_wait() {
    let (redis, gate) = (Redis::start().await, Gate::new());
    let origin = Origin::builder()
        .on("/a", Reply::fresh(60, "kept").hold(&gate))
        .start()
        .await;
    let both = [
        instance(&origin, &redis, ", write: through").await,
        instance(&origin, &redis, ", write: through").await,
    ];
    let all = one_leads(&both, &gate, 3, "/a").await;
    gate.release();
    all_get(all, "kept").await;
    assert_eq!(origin.request_count(), 1);
}

#[tokio::test]
async fn who_leads_and_gives_up_is_followed_by_another() {
    let (redis, gate) = (Redis::start().await, Gate::new());
    let origin = Origin::builder()
        .on_each("/a", [Reply::fresh(60, "late").hold(&gate), Reply::fresh(60, "kept")])
        .start()
        .await;
    let both = two(&origin, &redis).await;
    let mut first = both[0].client().await;
    first.send_request("GET", "/a", &[], b"").await;
    within("a held request", gate.reached(1)).await;
    let other = ask(&both[1..], 3, "/a").await;
    waits(&both[1], 1).await;
    drop(first);
    all_get(other, "kept").await;
}
