//! What purging and warming up cost, in figures: `make bench-admin` prints them. They take too long, and too much of the machine, to be among
//! the other tests.

use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay::clock::Clock;
use forebay::key::CacheKey;
use forebay::message::Scheme;
use forebay::rfc9111::invalidation::ResourceUri;
use serde_json::json;

use super::{ADMIN, ask, look};
use crate::support::inside::Inside;
use crate::support::origin::{Origin, Reply};
use crate::support::redis::Redis;

/// Stored responses with one tag.
const MANY: usize = 100_000;

fn key(target: &str) -> CacheKey {
    let uri = ResourceUri {
        scheme: Scheme::Http,
        authority: "test".into(),
        target: target.into(),
    };
    CacheKey::of_uri(&uri, &Default::default())
}

/// Puts many copies of a stored response beside it.
fn multiply(proxy: &Inside) {
    let memory = &proxy.proxy().cache.memory;
    let first = memory.get(&key("/first")).expect("it is stored");
    let first = first.iter().next().expect("it is stored");
    for number in 0..MANY {
        let copy = first.updated(first.meta.clone(), first.fields.unpack());
        memory.store("default", &key(&format!("/{number}")), Arc::new(copy));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "figures: make bench-admin"]
async fn a_tag_of_100_000_responses_goes_at_once_everywhere() {
    let redis = Redis::start().await;
    let origin = Origin::builder()
        .otherwise(Reply::fresh(3600, "x").field("Cache-Tag", "all"))
        .start()
        .await;
    let sections = format!(
        "{ADMIN}cache: {{ memory: {{ size: 1GiB }}, redis: {{ url: \"{}\" }} }}\n",
        redis.url()
    );
    let (one, other) = (
        Inside::before(&origin, &sections).await,
        Inside::before(&origin, &sections).await,
    );
    for proxy in [&one, &other] {
        proxy.follows(true).await;
    }
    let (mut answers, mut stops) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        for proxy in [&one, &other] {
            proxy.get("/first").await;
            multiply(proxy);
        }
        let memory = &other.proxy().cache.memory;
        assert!(memory.get(&key("/77777")).is_some());
        let began = Instant::now();
        let purged = ask(one.admin_address(), "POST", "/purge", &[], "{\"tags\":[\"all\"]}").await;
        answers.push(began.elapsed());
        let answered = Instant::now();
        assert_eq!(purged.json()["tags"], 1);
        while memory.get(&key("/77777")).is_some() {
            tokio::task::yield_now().await;
        }
        stops.push(answered.elapsed());
        assert!(
            (0..MANY)
                .step_by(997)
                .all(|number| memory.get(&key(&format!("/{number}"))).is_none())
        );
    }
    let (answer, stop) = (answers.iter().max().unwrap(), stops.iter().max().unwrap());
    println!(
        "purging a tag of {MANY} stored responses: answered after {answer:?} at most, over with everywhere {stop:?} later, of 5"
    );
    assert!(
        *answers.iter().min().unwrap() < Duration::from_millis(10),
        "{answers:?}"
    );
    assert!(*stop < Duration::from_millis(100), "{stops:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "figures: make bench-admin"]
async fn a_warm_up_of_10_000_urls_keeps_its_rate_and_fills_both_tiers() {
    const URLS: usize = 10_000;
    const RATE: usize = 1000;
    let redis = Redis::start().await;
    let arrivals: Arc<parking_lot::Mutex<Vec<Instant>>> = Arc::default();
    let origin = {
        let arrivals = arrivals.clone();
        Origin::builder()
            .answering(move |_| {
                arrivals.lock().push(Instant::now());
                Reply::fresh(3600, "x".repeat(200))
            })
            .start()
            .await
    };
    let yaml = format!(
        "listen: 127.0.0.1:0\nupstream: http://{}\n{ADMIN}cache: {{ redis: {{ url: \"{}\" }} }}\n",
        origin.server(),
        redis.url()
    );
    let proxy = Inside::start(&yaml, Clock::new()).await;
    proxy.follows(true).await;
    let urls: Vec<_> = (0..URLS).map(|number| format!("http://test/{number}")).collect();
    let body = json!({ "urls": urls, "rate": RATE, "concurrency": 32 }).to_string();
    let began = Instant::now();
    let task = ask(proxy.admin_address(), "POST", "/warm", &[], &body).await.json();
    let at = format!("/tasks/{}", task["id"].as_str().unwrap());
    let task = loop {
        let task = look(&proxy, &at).await;
        if !task["ended"].is_null() {
            break task;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let took = began.elapsed();
    assert_eq!(
        (task["state"].as_str(), task["progress"]["stored"].as_u64()),
        (Some("done"), Some(URLS as u64)),
        "{task}"
    );
    let l1 = proxy.metric("forebay_cache_stored_responses", &[("tier", "l1")]).await;
    proxy.proxy().cache.l2.as_ref().unwrap().flushed().await;
    let names = redis
        .command(&["EVAL", "return #redis.call('KEYS', 'forebay:r:*')", "0"])
        .await;
    let mut arrivals = arrivals.lock().clone();
    arrivals.sort();
    // The most that came within any second.
    let (mut busiest, mut from) = (0, 0);
    for to in 0..arrivals.len() {
        while arrivals[to] - arrivals[from] > Duration::from_secs(1) {
            from += 1;
        }
        busiest = busiest.max(to - from + 1);
    }
    println!(
        "warming {URLS} URLs, 32 at once, at most {RATE}/s: {took:?}, {:.0}/s, {busiest} in the busiest second; {l1} in L1, {names} in L2",
        URLS as f64 / took.as_secs_f64(),
    );
    assert_eq!((l1, names.as_str()), (URLS as f64, "10000"));
    let average = (arrivals.len() - 1) as f64 / (arrivals[arrivals.len() - 1] - arrivals[0]).as_secs_f64();
    assert!(average <= 1.05 * RATE as f64, "{average}");
    assert!(busiest as f64 <= 1.05 * RATE as f64, "{busiest}");
}
