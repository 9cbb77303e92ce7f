//! What a limit in memory costs: its check, with a few keys and with a million of them, and all that a request meets.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use forebay::config::{Config, Environment};
use forebay::http1::{Limits, request};
use forebay::limit::Limiter;
use forebay::limit::gcra::{Admission, Gcra, State};
use forebay::limit::keys::Subject;
use forebay::limit::local::{MAX_KEYS, Table};
use forebay::limit::rate::{Limit, RouteLimits, Stage};
use forebay::message::{RequestHead, Scheme};
use forebay::metrics::Metrics;

const REQUEST: &[u8] = b"GET /articles/2025/07/forebay-in-front?lang=de HTTP/1.1\r\n\
Host: www.example.org\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\r\n";

/// Keys that have used something and are not forgotten.
const LIVE: u32 = 1_000_000;

/// Nanoseconds between two requests.
const STEP: u64 = 1000;

fn take(table: &Table, gcra: &Gcra, key: u32, now: u64) -> bool {
    let verdict = table.update(table.hash(&key), now, |state| gcra.take(state, now, 1));
    verdict.admission == Admission::Admitted
}

fn check(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("check");
    let gcra = Gcra::new(1_000_000, Duration::from_secs(60), 1_000_000, Duration::ZERO);
    let mut now = STEP;
    group.bench_function("arithmetic", |bench| {
        let mut state = State::NEW;
        bench.iter(|| {
            now += STEP;
            (state, _) = gcra.take(black_box(state), now, 1);
        });
    });
    for (name, live) in [("one key", 1), ("1,000 keys", 1000), ("1,000,000 live keys", LIVE)] {
        let table = Table::new(MAX_KEYS);
        let gcra = Gcra::new(100, Duration::from_secs(3600), 1_000_000, Duration::ZERO);
        for key in 0..live {
            take(&table, &gcra, key, 1);
        }
        println!(
            "{name}: {} live, {:.1} MiB",
            table.len(1),
            table.bytes() as f64 / f64::from(1 << 20)
        );
        let mut random = fastrand::Rng::with_seed(7);
        group.bench_function(name, |bench| bench.iter(|| take(&table, &gcra, random.u32(..live), 1)));
    }
    let (table, gcra) = (
        Table::new(MAX_KEYS),
        Gcra::new(1, Duration::from_secs(3600), 1, Duration::ZERO),
    );
    for key in 0..LIVE {
        take(&table, &gcra, key, 1);
    }
    let mut random = fastrand::Rng::with_seed(7);
    group.bench_function("refused, 1,000,000 live keys", |bench| {
        bench.iter(|| take(&table, &gcra, random.u32(..LIVE), 1));
    });
    group.finish();
}

/// The limits of a route with this rate.
fn limits(rate: &str) -> Option<Arc<RouteLimits>> {
    let yaml = format!("listen: 127.0.0.1:0\nupstream: http://127.0.0.1:1\nrate_limits: {{ default: {rate} }}\n");
    let config = Config::parse("bench.yaml", &yaml, &Environment::fixed([])).ok()?.config;
    let (metrics, limiter) = (Metrics::new(), Arc::new(Limiter::new(MAX_KEYS)));
    let all = config.rate_limits.limits.iter().map(|limit| {
        Arc::new(Limit::new(
            limit,
            metrics.limit(&limit.name),
            limiter.refused(&limit.name),
        ))
    });
    let all: Vec<_> = all.collect();
    RouteLimits::new(config.routes.first()?, &config.rate_limits, &all, &limiter)
}

fn admit(limits: &Arc<RouteLimits>, request: &RequestHead, client: u32) -> bool {
    let subject = Subject {
        request,
        client: Some(IpAddr::V4(Ipv4Addr::from_bits(client))),
        route: "default",
    };
    let mut standing = None;
    limits.admit(Stage::Arrival, subject, 1, &mut standing).is_ok()
}

fn requests(criterion: &mut Criterion) {
    let Ok(Some((request, _))) = request::parse(REQUEST, &Limits::DEFAULT, Scheme::Http) else {
        return;
    };
    let mut group = criterion.benchmark_group("request");
    for (name, rate, clients) in [
        ("let in", "{ requests: 1000000, per: 1s }", 1),
        ("let in, 1,000,000 clients", "{ requests: 1000000, per: 1s }", LIVE),
        (
            "let in by three limits",
            "[{ requests: 1000000, per: 1s }, { requests: 1000000000, per: 1d }, { bytes: 1TiB, per: 1d }]",
            1,
        ),
        ("refused", "{ requests: 1, per: 1d }", 1),
        ("refused, 1,000,000 clients", "{ requests: 1, per: 1d }", LIVE),
    ] {
        let Some(limits) = limits(rate) else { return };
        for client in 0..clients {
            admit(&limits, &request, client);
        }
        let mut random = fastrand::Rng::with_seed(7);
        group.bench_function(name, |bench| {
            bench.iter(|| admit(&limits, black_box(&request), random.u32(..clients)));
        });
    }
    group.finish();
}

criterion_group!(benches, check, requests);
criterion_main!(benches);
