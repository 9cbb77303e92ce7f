//! Rates: what clients may have, what they are told of it, and who is asked.

use std::time::Duration;

use forebay::clock::Clock;
use sfv::{BareItem, ListEntry, Parser};

use crate::support::client::{Client, Http2Client, Response, http2_request};
use crate::support::inside::Inside;
use crate::support::origin::{Origin, Reply};
use crate::support::proxy::{Builder, Proxy, Reload, config};
use crate::support::redis::{Cluster, Redis};
use crate::support::within;

mod tokens;

/// One member of `RateLimit` or `RateLimit-Policy` (RFC 9651 §3.1), as a parser of structured fields reads it.
fn members(response: &Response, field: &str) -> Vec<(String, Vec<(String, String)>)> {
    let value = response.field(field).unwrap_or_else(|| panic!("no {field}"));
    let list = Parser::parse_list(value.as_bytes()).unwrap_or_else(|error| panic!("{value}: {error}"));
    let members = list.into_iter().map(|entry| {
        let ListEntry::Item(item) = entry else {
            panic!("{value}: not an Item");
        };
        let BareItem::String(name) = item.bare_item else {
            panic!("{value}: not a String");
        };
        let text = |bare: &BareItem| match bare {
            BareItem::Integer(number) => number.to_string(),
            BareItem::String(text) => text.as_str().to_owned(),
            other => panic!("{value}: {other:?}"),
        };
        let parameters = item
            .params
            .iter()
            .map(|(key, bare)| (key.as_str().to_owned(), text(bare)));
        (name.as_str().to_owned(), parameters.collect())
    });
    members.collect()
}

fn parameter<'m>(members: &'m [(String, Vec<(String, String)>)], name: &str, key: &str) -> Option<&'m str> {
    let (_, parameters) = members.iter().find(|(member, _)| member == name)?;
    parameters
        .iter()
        .find(|(k, _)| k == key)
        .map(|(_, value)| value.as_str())
}

#[tokio::test]
async fn who_has_had_it_all_gets_429_and_is_told_when_to_come_back() {
    let origin = Origin::start().await;
    let limit = "rate_limits: { legacy_fields: true, default: { requests: 60, per: 1h, burst: 3 } }";
    let inside = Inside::before(&origin, limit).await;
    let mut client = inside.client().await;
    for left in ["2", "1", "0"] {
        let response = client.get("/").await;
        assert_eq!(response.status, 200);
        assert_eq!(parameter(&members(&response, "ratelimit"), "default", "r"), Some(left));
        assert_eq!(response.field("x-ratelimit-remaining"), Some(left));
    }
    let refused = client.get("/").await;
    assert_eq!(
        (refused.status, refused.field("proxy-status")),
        (
            429,
            Some("forebay; error=http_request_denied; details=\"rate-limited\"")
        )
    );
    let policy = members(&refused, "ratelimit-policy");
    let policy = ["q", "w", "forebay-burst"].map(|key| parameter(&policy, "default", key));
    assert_eq!(policy, [Some("60"), Some("3600"), Some("3")]);
    let said = members(&refused, "ratelimit");
    assert_eq!(parameter(&said, "default", "r"), Some("0"));
    let wait = refused.field("retry-after").unwrap();
    assert_eq!(parameter(&said, "default", "t"), Some(wait), "the same moment");
    assert!((50..=60).contains(&wait.parse::<u32>().unwrap()), "{wait}");
    assert_eq!(refused.field("x-ratelimit-limit"), Some("60"));
    let problem = refused.json();
    assert_eq!(
        problem["type"],
        "https://iana.org/assignments/http-problem-types#quota-exceeded"
    );
    assert_eq!(
        (&problem["status"], &problem["violated-policies"][0]),
        (&429.into(), &"default".into())
    );
    assert_eq!(origin.requests().len(), 3, "the app sees none of it");
    let labels = [("limit", "default"), ("reason", "excess")];
    assert_eq!(inside.metric("forebay_rate_limited_total", &labels).await, 1.0);
    let entry = inside.log_entry(|entry| entry["status"] == 429).await;
    assert_eq!(
        (&entry["limit"], &entry["limit_reason"]),
        (&"default".into(), &"excess".into())
    );
    // A minute later there is one again.
    inside.advance(60);
    assert_eq!(client.get("/").await.status, 200);
    assert_eq!(client.get("/").await.status, 429);
    let top = inside.most_refused();
    assert_eq!(
        (&*top[0].0, top[0].1[0].label.as_str(), top[0].1[0].count),
        ("default", "127.0.0.1", 2)
    );
}

#[tokio::test]
async fn several_limits_hold_at_once_and_a_refusal_takes_from_none() {
    let origin = Origin::start().await;
    let limits = "
rate_limits:
  default:
    - { name: second, requests: 2, per: 10m }
    - { name: day, requests: 3, per: 1d, key: [client_ip, host] }
";
    let inside = Inside::before(&origin, limits).await;
    let mut client = inside.client().await;
    let mut statuses = Vec::new();
    for advance in [0, 0, 0, 600, 0] {
        inside.advance(advance);
        statuses.push(client.get("/").await.status);
    }
    assert_eq!(
        statuses,
        [200, 200, 429, 200, 429],
        "the third one in ten minutes took nothing from the day"
    );
    let refused = client.get("/").await;
    assert_eq!(refused.json()["violated-policies"], serde_json::json!(["day"]));
    let wait: u32 = refused.field("retry-after").unwrap().parse().unwrap();
    assert!(wait > 3600, "{wait}");
    assert_eq!(members(&refused, "ratelimit-policy").len(), 2);
}

#[tokio::test]
async fn hits_count_unless_they_are_free() {
    for (counts, expected) in [(true, [200, 200, 429]), (false, [200, 200, 200])] {
        let origin = Origin::builder().otherwise(Reply::fresh(60, "fresh")).start().await;
        let limit = format!("rate_limits: {{ default: {{ requests: 2, per: 1h, count_hits: {counts} }} }}");
        let inside = Inside::before(&origin, &limit).await;
        let mut client = inside.client().await;
        let mut statuses = Vec::new();
        for _ in 0..3 {
            statuses.push(client.get("/a").await.status);
        }
        assert_eq!(statuses, expected, "count_hits: {counts}");
        assert_eq!(client.get("/b").await.status, if counts { 429 } else { 200 });
        assert_eq!(client.get("/c").await.status, 429, "what goes to the app counts");
        let stored = client.get("/a").await;
        assert_eq!(stored.status, if counts { 429 } else { 200 });
    }
}

#[tokio::test]
async fn what_one_client_has_left_is_not_stored_for_the_next() {
    let origin = Origin::builder()
        .otherwise(
            Reply::fresh(60, "x")
                .field("RateLimit", "\"app\";r=1;t=1")
                .field("X-RateLimit-Remaining", "1"),
        )
        .start()
        .await;
    let inside = Inside::before(&origin, "rate_limits: { default: { requests: 10, per: 1h } }").await;
    let first = inside.get("/").await;
    assert_eq!(
        first.fields("ratelimit"),
        ["\"app\";r=1;t=1", "\"default\";r=9;t=360"],
        "the app's own are passed on"
    );
    let second = inside.get("/").await;
    assert!(second.cache_status().starts_with("hit"), "{}", second.raw_head);
    assert_eq!(second.fields("ratelimit"), ["\"default\";r=8;t=720"]);
    assert_eq!(second.field("x-ratelimit-remaining"), None);
}

#[tokio::test]
async fn routes_have_limits_and_costs_of_their_own() {
    let origin = Origin::start().await;
    let yaml = config(
        &origin,
        "rate_limits: { default: { requests: 10, per: 1h } }
routes:
  - { name: search, match: { path_prefix: /search }, rate_limit_cost: 5 }
  - { name: health, match: { path_prefix: /health }, rate_limit_cost: 0 }
  - { name: free, match: { path_prefix: /free }, rate_limit: off }
  - { name: own, match: { path_prefix: /own }, rate_limit: { requests: 1, per: 1h, key: \"header:X-User\" } }
",
    );
    let inside = Inside::start(&yaml, Default::default()).await;
    let mut client = inside.client().await;
    assert_eq!(client.get("/").await.field("ratelimit"), Some("\"default\";r=9;t=360"));
    assert_eq!(
        client.get("/search").await.field("ratelimit"),
        Some("\"default\";r=4;t=2160"),
        "one limit over all routes"
    );
    assert_eq!(client.get("/search").await.status, 429);
    for path in ["/health", "/free"] {
        let response = client.get(path).await;
        assert_eq!((response.status, response.field("ratelimit")), (200, None));
    }
    for (user, expected) in [("a", 200), ("a", 429), ("b", 200), ("", 200)] {
        let response = client.request("GET", "/own", &[("X-User", user)], b"").await;
        assert_eq!(response.status, expected, "{user}");
    }
    // Without the field it is the address that counts.
    assert_eq!(client.get("/own").await.status, 200);
    assert_eq!(client.get("/own").await.status, 429);
}

#[tokio::test]
async fn the_exempt_are_not_counted_and_a_dry_run_refuses_nobody() {
    let origin = Origin::start().await;
    let sections = "
trusted_proxies: [127.0.0.1]
rate_limits:
  exempt: { addresses: [\"192.0.2.0/24\", \"2001:db8::/32\"], headers: { X-Probe: [one, two] } }
  default: { requests: 1, per: 1h }
routes:
  - { name: dry, match: { path_prefix: /dry }, rate_limit: { requests: 1, per: 1h, dry_run: true } }
";
    let inside = Inside::before(&origin, sections).await;
    let mut client = inside.client().await;
    for exempt in [
        ("X-Forwarded-For", "192.0.2.9"),
        ("X-Forwarded-For", "2001:db8::9"),
        ("X-Probe", "two"),
    ] {
        for _ in 0..3 {
            let response = client.request("GET", "/", &[exempt], b"").await;
            assert_eq!(
                (response.status, response.field("ratelimit")),
                (200, None),
                "{exempt:?}"
            );
        }
    }
    assert_eq!(client.request("GET", "/", &[("X-Probe", "tw")], b"").await.status, 200);
    assert_eq!(
        client.request("GET", "/", &[("X-Probe", "three")], b"").await.status,
        429
    );
    for _ in 0..3 {
        let response = client.get("/dry").await;
        assert_eq!((response.status, response.field("ratelimit")), (200, None));
    }
    let labels = [("limit", "dry"), ("reason", "dry_run")];
    assert_eq!(inside.metric("forebay_rate_limited_total", &labels).await, 2.0);
    let entry = inside.log_entry(|entry| entry["limit"] == "dry").await;
    assert_eq!(
        (&entry["status"], &entry["limit_reason"]),
        (&200.into(), &"dry_run".into())
    );
}

#[tokio::test]
async fn nobody_gets_out_by_an_address_of_his_own_invention() {
    let origin = Origin::start().await;
    let limit = "rate_limits: { default: { requests: 2, per: 1h } }";
    let inside = Inside::before(&origin, limit).await;
    let mut client = inside.client().await;
    let mut statuses = Vec::new();
    for forged in ["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1"] {
        let fields = [
            ("X-Forwarded-For", forged),
            ("Forwarded", "for=198.51.100.7"),
            ("X-Real-IP", forged),
        ];
        statuses.push(client.request("GET", "/", &fields, b"").await.status);
    }
    assert_eq!(statuses, [200, 200, 429, 429]);
    // Behind a proxy that is trusted, only what it says itself counts: the right end.
    let trusted = format!("trusted_proxies: [127.0.0.1]\n{limit}");
    let inside = Inside::before(&origin, &trusted).await;
    let mut client = inside.client().await;
    let mut statuses = Vec::new();
    for forged in ["10.0.0.1", "10.0.0.2", "10.0.0.3"] {
        let chain = format!("{forged}, 203.0.113.5");
        statuses.push(
            client
                .request("GET", "/", &[("X-Forwarded-For", &chain)], b"")
                .await
                .status,
        );
    }
    assert_eq!(statuses, [200, 200, 429]);
    let other = client
        .request("GET", "/", &[("X-Forwarded-For", "203.0.113.6")], b"")
        .await;
    assert_eq!(other.status, 200);
    // One subscriber is one client, however many addresses of the network it takes.
    let mut statuses = Vec::new();
    for ip in [
        "2001:db8:0:7::1",
        "2001:db8:0:7:ffff::2",
        "2001:db8:0:7::3",
        "2001:db8:0:8::1",
    ] {
        statuses.push(client.request("GET", "/", &[("X-Forwarded-For", ip)], b"").await.status);
    }
    assert_eq!(statuses, [200, 200, 429, 200]);
}

#[tokio::test]
async fn bytes_are_counted_when_they_have_gone_out() {
    let origin = Origin::builder().otherwise(Reply::zeros(600)).start().await;
    let limit = "rate_limits: { default: { bytes: 1000, per: 1h } }";
    let inside = Inside::before(&origin, limit).await;
    let mut client = inside.client().await;
    let first = client.get("/").await;
    assert_eq!(
        parameter(&members(&first, "ratelimit-policy"), "default", "qu"),
        Some("content-bytes")
    );
    assert_eq!(client.get("/").await.status, 200, "as long as some are left");
    let refused = client.get("/").await;
    assert_eq!(refused.status, 429);
    let wait: u32 = refused.field("retry-after").unwrap().parse().unwrap();
    // 1200 of 1000 are gone: 200, and the next byte, take 723 seconds.
    assert!((700..=724).contains(&wait), "{wait}");
    inside.advance(724);
    assert_eq!(client.get("/").await.status, 200);
}

#[tokio::test]
async fn a_refusal_over_http2_is_the_same() {
    let origin = Origin::start().await;
    let yaml = format!(
        "listeners: [{{ address: 127.0.0.1:0, http2: true }}]
upstreams: {{ app: {{ servers: [\"{}\"] }} }}
rate_limits: {{ default: {{ requests: 1, per: 1h }} }}",
        origin.server()
    );
    let inside = Inside::start(&yaml, Default::default()).await;
    let mut client = Http2Client::connect(inside.address()).await;
    assert_eq!(client.get("/").await.status, 200);
    let request = http2_request("POST", "/", &[]);
    let refused = client.request(request, b"body").await.unwrap();
    assert_eq!((refused.status, refused.field("retry-after").is_some()), (429, true));
    assert_eq!(parameter(&members(&refused, "ratelimit"), "default", "r"), Some("0"));
    assert_eq!(client.get("/").await.status, 429, "the connection lives on");
}

#[tokio::test]
async fn a_reload_forgets_nothing() {
    let origin = Origin::start().await;
    let yaml = |requests: u32| {
        config(
            &origin,
            &format!("rate_limits: {{ default: {{ requests: {requests}, per: 1h }} }}"),
        )
    };
    let proxy: Proxy = Builder::new().start(&yaml(2)).await;
    let mut client = Client::connect(proxy.address()).await;
    assert_eq!(client.get("/").await.status, 200);
    assert!(matches!(proxy.reload(&yaml(3)).await, Reload::Done));
    assert_eq!(client.get("/").await.status, 200);
    let told = client.get("/").await;
    assert_eq!(told.status, 429, "{}", told.raw_head);
}

/// Instances that count together in one Redis.
async fn cluster(origin: &Origin, redis: &Redis, count: usize, limit: &str, clocks: [u64; 3]) -> Vec<Inside> {
    together(origin, &redis.url(), count, limit, clocks).await
}

async fn together(origin: &Origin, url: &str, count: usize, limit: &str, clocks: [u64; 3]) -> Vec<Inside> {
    let sections = format!(
        "trusted_proxies: [127.0.0.1]
cache: {{ redis: {{ url: \"{url}\", deadline: 2s }} }}
rate_limits: {{ store: redis, default: {limit} }}"
    );
    let mut instances = Vec::new();
    for skew in clocks.into_iter().take(count) {
        let clock = Clock::new();
        clock.advance(Duration::from_secs(skew));
        instances.push(Inside::with_clock(origin, &sections, &clock).await);
    }
    for instance in &instances {
        instance.metric_becomes("forebay_redis_up", &[], 1.0).await;
        within("all instances to know each other", async {
            while instance.known_instances() != count as u32 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
    instances
}

/// A client of its own for each key.
fn address(key: usize) -> String {
    format!("10.9.{}.{}", key / 250, key % 250)
}

/// Sends so many requests for each key over all instances, side by side; answers how many of each key got 200.
async fn crowd(instances: &[Inside], keys: usize, requests: usize) -> Vec<usize> {
    let mut tasks = tokio::task::JoinSet::new();
    const CONNECTIONS: usize = 4;
    for (number, instance) in instances.iter().enumerate() {
        for part in 0..CONNECTIONS {
            let mut client = instance.client().await;
            tasks.spawn(async move {
                let mut admitted = vec![0; keys];
                for request in (part..requests).step_by(CONNECTIONS) {
                    let key = (request + number) % keys;
                    let ip = address(key);
                    let response = client.request("GET", "/", &[("X-Forwarded-For", &ip)], b"").await;
                    match response.status {
                        200 => admitted[key] += 1,
                        429 => {}
                        other => panic!("{other}: {}", response.raw_head),
                    }
                }
                admitted
            });
        }
    }
    let mut sums = vec![0; keys];
    while let Some(admitted) = tasks.join_next().await {
        sums.iter_mut()
            .zip(admitted.unwrap())
            .for_each(|(sum, more)| *sum += more);
    }
    sums
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_instances_let_through_what_one_would() {
    let origin = Origin::start().await;
    let redis = Redis::start().await;
    // Ten thousand requests over fifty keys, of which each may have 40; what comes back in an hour is none in a test. The clocks of the
    // instances are an hour and a day apart.
    let limit = "{ requests: 40, per: 100d }";
    let instances = cluster(&origin, &redis, 3, limit, [0, 3600, 86_400]).await;
    let admitted = crowd(&instances, 50, 3334).await;
    assert_eq!(
        admitted,
        vec![40; 50],
        "exactly the burst of each key, over all instances"
    );
    // What is surely too much is not asked of Redis.
    let asked = || async {
        let text = redis.command(&["INFO", "commandstats"]).await;
        let line = text
            .lines()
            .find(|line| line.starts_with("cmdstat_evalsha:"))
            .map(str::to_owned);
        let calls = line.and_then(|line| line.split("calls=").nth(1)?.split(',').next()?.parse::<u64>().ok());
        calls.unwrap_or(0)
    };
    let before = asked().await;
    for _ in 0..200 {
        let refused = instances[0]
            .request("GET", "/", &[("X-Forwarded-For", "10.9.0.1")], b"")
            .await;
        assert_eq!(refused.status, 429);
    }
    let more = asked().await - before;
    // Heartbeats are scripts too.
    assert!(more < 50, "{more} scripts for 200 requests");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_each_instance_lets_its_share_through() {
    let origin = Origin::start().await;
    let mut redis = Redis::start().await;
    let limit = "{ requests: 90, per: 100d }";
    let instances = cluster(&origin, &redis, 3, limit, [0, 0, 0]).await;
    assert_eq!(
        crowd(&instances, 1, 10).await,
        [30],
        "ten of each instance, all counted together"
    );
    // An instance knows of the others from its last answer: now each has one that counts nearly all.
    assert_eq!(crowd(&instances, 1, 1).await, [3]);
    redis.kill().await;
    for instance in &instances {
        instance.metric_becomes("forebay_redis_up", &[], 0.0).await;
    }
    // 57 are left: 19 for each instance, and what the others have used since it was last told, it has used itself.
    let admitted = crowd(&instances, 1, 100).await;
    assert_eq!(
        admitted,
        [57],
        "neither open nor closed, and with those before exactly the burst"
    );
    redis.restart().await;
    for instance in &instances {
        instance.metric_becomes("forebay_redis_up", &[], 1.0).await;
    }
    // An empty Redis is told what was used meanwhile.
    let after = crowd(&instances, 1, 100).await;
    assert!(after[0] <= 5, "{after:?} after {admitted:?}");
    assert_eq!(crowd(&instances, 2, 400).await[1], 90, "and counts as before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_redis_cluster_it_is_the_same() {
    let origin = Origin::start().await;
    let redis = Cluster::start().await;
    // The two keys of a request are mostly on different nodes: what one refuses is given back to the other.
    let limits = "[{ name: all, requests: 100000, per: 1000d, key: host }, { name: client, requests: 10, per: 1000d }]";
    let instances = together(&origin, &redis.url(), 3, limits, [0, 3600, 86_400]).await;
    // Ten thousand requests over five hundred keys.
    let admitted = crowd(&instances, 500, 3334).await;
    assert_eq!(admitted, vec![10; 500], "exactly the burst of each key");
    let mut connection = instances[0].client().await;
    let mut told = 0;
    within("what was given back", async {
        for client in 0.. {
            let ip = format!("10.8.{}.{}", client / 250, client % 250);
            let fields = [("X-Forwarded-For", ip.as_str())];
            let response = connection.request("GET", "/", &fields, b"").await;
            let left = parameter(&members(&response, "ratelimit"), "all", "r").map(str::to_owned);
            told = left.unwrap().parse::<usize>().unwrap() + client + 1;
            if told == 100_000 - 5000 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(told, 95_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_comes_back_empty_in_the_middle_and_nobody_gets_more() {
    let origin = Origin::start().await;
    let mut redis = Redis::start().await;
    let instances = cluster(&origin, &redis, 3, "{ requests: 40, per: 1000d }", [0, 0, 0]).await;
    let mut sums = vec![0; 20];
    let mut add = |admitted: Vec<usize>| {
        sums.iter_mut().zip(admitted).for_each(|(sum, more)| *sum += more);
        sums.clone()
    };
    assert_eq!(add(crowd(&instances, 20, 6 * 20).await), [18; 20]);
    redis.kill().await;
    for instance in &instances {
        instance.metric_becomes("forebay_redis_up", &[], 0.0).await;
    }
    // 13 of 40 are each instance's, and six of them are gone.
    assert_eq!(add(crowd(&instances, 20, 20 * 20).await), [39; 20]);
    // Keys that have not been asked for meanwhile are known from before.
    redis.restart().await;
    for instance in &instances {
        instance.metric_becomes("forebay_redis_up", &[], 1.0).await;
    }
    assert_eq!(
        add(crowd(&instances, 20, 20 * 20).await),
        [40; 20],
        "exactly the burst of each key"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_forgets_is_told_again() {
    let origin = Origin::start().await;
    let redis = Redis::start().await;
    let instances = cluster(&origin, &redis, 3, "{ requests: 40, per: 1000d }", [0, 0, 0]).await;
    assert_eq!(crowd(&instances, 5, 9 * 5).await, [27; 5]);
    // An instance knows what there was when it last asked itself: 28, 29 and 30 of 40.
    for instance in &instances {
        let mut client = instance.client().await;
        for key in 0..5 {
            let fields = [("X-Forwarded-For", &*address(key))];
            assert_eq!(client.request("GET", "/", &fields, b"").await.status, 200);
        }
    }
    // As a restart without a file would.
    redis.command(&["FLUSHALL"]).await;
    let admitted = crowd(&instances, 5, 20 * 5).await;
    assert!(
        admitted.iter().all(|admitted| (10..=12).contains(admitted)),
        "{admitted:?}"
    );
}

#[tokio::test]
async fn who_is_refused_most_stands_in_the_stats() {
    let origin = Origin::start().await;
    let sections = |shorten: bool| {
        format!(
            "admin: {{ listen: 127.0.0.1:0 }}
trusted_proxies: [127.0.0.1]
rate_limits: {{ shorten_addresses: {shorten}, default: [{{ name: ip, requests: 1, per: 1d }}, {{ name: idle, requests: 100, per: 1d }}] }}"
        )
    };
    for (shorten, loud, quiet) in [
        (false, "192.0.2.7", "2001:db8:1:2::/64"),
        (true, "192.0.2.0/24", "2001:db8:1::/48"),
    ] {
        let inside = Inside::before(&origin, &sections(shorten)).await;
        let mut client = inside.client().await;
        for (ip, requests) in [("192.0.2.7", 5), ("2001:db8:1:2::9", 3), ("192.0.2.8", 1)] {
            for _ in 0..requests {
                client.request("GET", "/", &[("X-Forwarded-For", ip)], b"").await;
            }
        }
        let mut admin = Client::connect(inside.admin_address()).await;
        let stats = admin
            .request("GET", "/stats", &[("Host", "localhost")], b"")
            .await
            .json();
        let refused = |key: &str, count: u32| serde_json::json!({ "key": key, "requests": count, "at_least": count });
        let expected = serde_json::json!([{ "limit": "ip", "most_refused": [refused(loud, 4), refused(quiet, 2)] }]);
        assert_eq!(stats["limits"], expected);
    }
}
