//! `GET /stats`: how it goes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use tokio::time::Instant;

use super::Admin;
use super::history::{Counts, Moment};
use super::upstreams::{self, UpstreamState};
use crate::limit::Limiter;
use crate::metrics::{BytesFrom, CacheResult, Metrics, RedisFault, RedisOperation};

/// Routes among the slowest.
const SLOWEST: usize = 5;

/// Keys of each limit among those that it refuses most.
const MOST_REFUSED: usize = 10;

/// A rate over less than that is none. (A process that has just begun.)
const SHORTEST: Duration = Duration::from_secs(1);

/// Figures of this process.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Stats {
    pub version: String,
    /// `starting`, `ready` or `draining`.
    pub phase: String,
    pub uptime_seconds: f64,
    /// Requests that are being served.
    pub in_flight: u64,
    /// Event streams that are open.
    pub streams: u64,
    /// Open connections of clients, by listener.
    pub connections: BTreeMap<String, u64>,
    pub since_start: Window,
    pub last_10s: Window,
    pub last_1m: Window,
    pub routes: Vec<RouteStats>,
    /// The routes whose requests of the last minute took longest, by p95; the slowest first.
    pub slowest: Vec<String>,
    pub memory: MemoryStats,
    /// `null`: there is no second tier.
    pub redis: Option<RedisStats>,
    pub upstreams: Vec<UpstreamState>,
    /// The limits that have refused requests since the start, and whose.
    pub limits: Vec<LimitStats>,
}

/// A limit, and the keys that it refuses most, the most refused first.
#[derive(Debug, Serialize, JsonSchema)]
pub struct LimitStats {
    pub limit: String,
    pub most_refused: Vec<Refused>,
}

/// A key that a limit refuses. Values of fields, cookies and parameters are told as fingerprints.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Refused {
    pub key: String,
    /// Requests that were refused, at most: of keys that are seldom refused some are lost sight of.
    pub requests: u64,
    /// And at least.
    pub at_least: u64,
}

/// What came in some time.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Window {
    /// How long it is.
    pub seconds: f64,
    pub requests: u64,
    pub requests_per_second: f64,
    /// Share of the requests that were answered with 500 or more, from 0 to 1.
    pub error_ratio: f64,
    /// `null`: there were no requests.
    pub latency: Option<Latency>,
    /// What the cache did, by the words of `forebay_cache_requests_total`; only those that came up.
    pub results: BTreeMap<String, u64>,
    pub hit_ratio: HitRatio,
    /// Bytes of bodies that clients got without the origin sending them for that.
    pub bytes_saved: u64,
    /// Bytes of bodies that the origin sent for clients.
    pub bytes_from_origin: u64,
}

/// Seconds that so many of a hundred requests did not exceed; estimated within the buckets of the histogram.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
pub struct Latency {
    pub p50: f64,
    pub p90: f64,
    pub p95: f64,
    pub p99: f64,
}

/// Shares of the requests on routes that cache, from 0 to 1. `null`: there were none.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
pub struct HitRatio {
    /// Answered without the origin, from wherever.
    pub all: Option<f64>,
    /// Fresh, from memory.
    pub l1: Option<f64>,
    /// Fresh, from Redis.
    pub l2: Option<f64>,
    /// Stale, within what the origin or the route allows.
    pub stale: Option<f64>,
    /// The response that another request had fetched.
    pub collapsed: Option<f64>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct RouteStats {
    /// `none`: requests that no route takes.
    pub route: String,
    pub streams: u64,
    pub since_start: Window,
    pub last_10s: Window,
    pub last_1m: Window,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct MemoryStats {
    /// Of the process. `null`: the system does not say.
    pub resident_bytes: Option<u64>,
    /// Bytes that stored responses take up, bookkeeping included.
    pub cache_bytes: u64,
    /// Bytes that they may take up.
    pub cache_limit_bytes: u64,
    /// Keys with stored responses.
    pub stored_responses: u64,
    /// Stored responses that had to go for others since the start.
    pub evictions: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct RedisStats {
    /// Whether it answers.
    pub up: bool,
    /// Requests to it since the start that failed or came too late.
    pub errors: u64,
    /// Responses that were not written, because too many waited.
    pub writes_dropped: u64,
    /// Whether the purges of all instances are followed; while they are not, nothing is read from there.
    pub followed: bool,
    /// Purges that wait to be told to the other instances.
    pub purges_waiting: u64,
    /// 95 of 100 lookups were answered within so many seconds, since the start. `null`: there were none.
    pub lookup_p95_seconds: Option<f64>,
}

pub fn stats(admin: &Admin) -> Stats {
    let metrics = &admin.proxy.metrics;
    let now = Moment::now(metrics);
    let before = [Duration::from_secs(10), Duration::from_secs(60)].map(|window| admin.history.before(now.at, window));
    let uptime = now.at.saturating_duration_since(admin.started);
    let windows = |route: &str, counts: &Counts| -> [Window; 2] {
        [0, 1].map(|index: usize| since(counts, route, before[index].as_ref(), now.at, uptime))
    };
    let mut sums = [Counts::default(), Counts::default(), Counts::default()];
    let mut lengths = [Duration::ZERO; 2];
    for (route, counts) in &now.routes {
        sums[0].add(counts);
        for (index, before) in before.iter().enumerate() {
            let (counts, length) = recent(counts, route, before.as_ref(), now.at, uptime);
            sums[index + 1].add(&counts);
            lengths[index] = length;
        }
    }
    let [all, recent_10s, recent_1m] = &sums;
    let streams: BTreeMap<_, _> = metrics
        .all_routes()
        .into_iter()
        .map(|(name, route)| (name, route.streams_active()))
        .collect();
    let routes: Vec<RouteStats> = now
        .routes
        .iter()
        .filter(|(_, counts)| counts.requests > 0)
        .map(|(name, counts)| {
            let [last_10s, last_1m] = windows(name, counts);
            RouteStats {
                route: name.to_string(),
                streams: streams.get(name).copied().unwrap_or_default(),
                since_start: window(counts, uptime),
                last_10s,
                last_1m,
            }
        })
        .collect();
    let generation = admin.proxy.generation();
    let gauges = metrics.cache_gauges();
    Stats {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        phase: admin.readiness.phase().as_str().to_owned(),
        uptime_seconds: uptime.as_secs_f64(),
        in_flight: metrics.in_flight(),
        streams: streams.values().sum(),
        connections: metrics
            .all_connections()
            .into_iter()
            .map(|(listener, count)| (listener.to_string(), count))
            .collect(),
        since_start: window(all, uptime),
        last_10s: window(recent_10s, lengths[0]),
        last_1m: window(recent_1m, lengths[1]),
        slowest: slowest(&routes),
        routes,
        memory: MemoryStats {
            resident_bytes: resident(),
            cache_bytes: gauges.bytes,
            cache_limit_bytes: generation.config.cache.memory.size,
            stored_responses: gauges.stored_responses,
            evictions: gauges.evictions,
        },
        redis: generation.config.cache.redis.is_some().then(|| redis(metrics)),
        upstreams: upstreams::upstreams(&generation).upstreams,
        limits: limits(&generation.limiter),
    }
}

fn limits(limiter: &Limiter) -> Vec<LimitStats> {
    let all = limiter.most_refused(MOST_REFUSED).into_iter();
    let refusing = all.filter(|(_, keys)| !keys.is_empty());
    refusing
        .map(|(limit, keys)| LimitStats {
            limit: limit.to_string(),
            most_refused: keys
                .into_iter()
                .map(|key| Refused {
                    at_least: key.count.saturating_sub(key.uncertain),
                    requests: key.count,
                    key: key.label,
                })
                .collect(),
        })
        .collect()
}

fn redis(metrics: &Metrics) -> RedisStats {
    let redis = metrics.redis();
    let faults = RedisOperation::ALL.iter().flat_map(|operation| {
        let faults = RedisFault::ALL.iter();
        faults.map(|fault| redis.faults(*operation, *fault))
    });
    RedisStats {
        up: redis.is_up(),
        errors: faults.sum(),
        writes_dropped: redis.writes_dropped(),
        followed: redis.is_followed(),
        purges_waiting: redis.purges_waiting(),
        lookup_p95_seconds: redis.durations(RedisOperation::Get).quantile(0.95),
    }
}

/// What came to a route since `before`, or since the start, and how long that is.
fn recent(
    counts: &Counts,
    route: &str,
    before: Option<&Arc<Moment>>,
    now: Instant,
    uptime: Duration,
) -> (Counts, Duration) {
    match before {
        None => (counts.clone(), uptime),
        Some(moment) => {
            let length = now.saturating_duration_since(moment.at);
            match moment.routes.get(route) {
                Some(before) => (counts.since(before), length),
                None => (counts.clone(), length),
            }
        }
    }
}

fn since(counts: &Counts, route: &str, before: Option<&Arc<Moment>>, now: Instant, uptime: Duration) -> Window {
    let (counts, length) = recent(counts, route, before, now, uptime);
    window(&counts, length)
}

fn window(counts: &Counts, length: Duration) -> Window {
    let seconds = length.as_secs_f64();
    let share = |part: u64, all: u64| match all {
        0 => 0.0,
        all => part as f64 / all as f64,
    };
    let results = CacheResult::ALL.iter().zip(counts.results);
    let came_up = results.filter(|(_, count)| *count > 0);
    Window {
        seconds,
        requests: counts.requests,
        requests_per_second: counts.requests as f64 / seconds.max(SHORTEST.as_secs_f64()),
        error_ratio: share(counts.errors, counts.requests),
        latency: latency(counts),
        results: came_up
            .map(|(result, count)| (result.as_str().to_owned(), count))
            .collect(),
        hit_ratio: hit_ratio(counts),
        bytes_saved: counts.bytes[BytesFrom::Cache as usize],
        bytes_from_origin: counts.bytes[BytesFrom::Origin as usize],
    }
}

fn latency(counts: &Counts) -> Option<Latency> {
    Some(Latency {
        p50: counts.duration.quantile(0.50)?,
        p90: counts.duration.quantile(0.90)?,
        p95: counts.duration.quantile(0.95)?,
        p99: counts.duration.quantile(0.99)?,
    })
}

fn hit_ratio(counts: &Counts) -> HitRatio {
    let count = |result: CacheResult| counts.results[result as usize];
    // What passes a cache by says nothing about how good it is.
    let all: u64 = counts.results.iter().sum::<u64>() - count(CacheResult::Bypass) - count(CacheResult::Method);
    let share = |part: u64| match all {
        0 => None,
        all => Some(part as f64 / all as f64),
    };
    let [l1, l2, stale, collapsed] = [
        CacheResult::HitL1,
        CacheResult::HitL2,
        CacheResult::ServedStale,
        CacheResult::Collapsed,
    ]
    .map(count);
    HitRatio {
        all: share(l1 + l2 + stale + collapsed),
        l1: share(l1),
        l2: share(l2),
        stale: share(stale),
        collapsed: share(collapsed),
    }
}

fn slowest(routes: &[RouteStats]) -> Vec<String> {
    let timed = routes
        .iter()
        .filter_map(|route| Some((route.last_1m.latency?.p95, &route.route)));
    let mut timed: Vec<_> = timed.collect();
    timed.sort_by(|a, b| b.0.total_cmp(&a.0));
    timed
        .into_iter()
        .take(SLOWEST)
        .map(|(_, route)| route.clone())
        .collect()
}

/// Resident memory (proc_pid_status(5)).
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    kibibytes.checked_mul(1024)
}
