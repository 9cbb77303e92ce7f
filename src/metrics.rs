//! What Forebay counts: every name, kind and label of its metrics stands in `family`, the words of their label values in `words`.
//!
//! The hot path hashes and formats nothing. Whoever serves a route, an upstream or a listener resolves its handle once
//! ([`Metrics::route`], [`Metrics::upstream`], [`Metrics::connections`]) and keeps it; an update is then a handful of relaxed
//! additions to memory that few other threads touch (`stripe`). Names and labels are put together when somebody reads.

mod expose;
mod family;
mod histogram;
mod limit;
mod redis;
mod route;
mod series;
mod stripe;
mod upstream;
mod words;

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use prometheus::{Registry, TextEncoder};

use crate::transform::negotiate::Coding;

pub(crate) use family::Family;
pub use histogram::Histogram;
pub(crate) use histogram::Reading;
pub use limit::{GateMetrics, LimitMetrics};
pub use redis::RedisMetrics;
pub use route::{Answered, RouteMetrics};
use series::Series;
pub(crate) use stripe::PerThread;
pub use stripe::{Counter, Gauge, GaugeGuard};
pub use upstream::{ServerMetrics, UpstreamGauges, UpstreamMetrics};
pub use words::{
    BytesFrom, CacheResult, Compressed, GateReason, LeaseResult, LimitReason, Outcome, PurgeKind, RedisFault,
    RedisOperation, Reload, Settled,
};

/// The `route` of requests that reached none: refused at the door, or matched by nothing.
pub const NO_ROUTE: &str = "none";

/// The `tier` of the memory cache.
const L1: &str = "l1";

/// What the memory cache says of itself when metrics are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheGauges {
    pub bytes: u64,
    pub stored_responses: u64,
    /// Since the start.
    pub evictions: u64,
    pub dictionary_bytes: u64,
}

/// All counters of one process.
pub struct Metrics {
    registry: Registry,
    routes: Series<RouteMetrics>,
    upstreams: Series<UpstreamMetrics>,
    limits: Series<LimitMetrics>,
    gates: Series<GateMetrics>,
    limiter: Mutex<Option<LimiterReader>>,
    connections: Series<Gauge>,
    steady_connections: Arc<Gauge>,
    in_flight: Gauge,
    reloads: [Counter; Reload::COUNT],
    purges: [Counter; PurgeKind::COUNT],
    refreshed_ahead: Counter,
    log_dropped: Arc<Counter>,
    redis: OnceLock<Arc<RedisMetrics>>,
    compressions: [[Counter; Compressed::COUNT]; Coding::ALL.len()],
    cache: Mutex<Option<CacheReader>>,
}

type LimiterReader = Box<dyn Fn() -> u64 + Send + Sync>;
type CacheReader = Box<dyn Fn() -> CacheGauges + Send + Sync>;

impl Metrics {
    /// # Panics
    /// If the table of names contradicts itself, which no input can bring about.
    #[expect(clippy::expect_used, reason = "the table is constant, and a test reads it")]
    pub fn new() -> Arc<Self> {
        Arc::new_cyclic(|metrics| {
            let registry = Registry::new();
            let collector = expose::Exposition::new(metrics.clone()).expect("names and labels are valid");
            registry.register(Box::new(collector)).expect("names are unique");
            #[cfg(target_os = "linux")]
            registry
                .register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))
                .expect("process metrics have names of their own");
            Self {
                registry,
                routes: Series::default(),
                upstreams: Series::default(),
                limits: Series::default(),
                gates: Series::default(),
                limiter: Mutex::default(),
                connections: Series::default(),
                steady_connections: Arc::default(),
                in_flight: Gauge::default(),
                reloads: Default::default(),
                purges: Default::default(),
                refreshed_ahead: Counter::default(),
                log_dropped: Arc::default(),
                redis: OnceLock::new(),
                compressions: Default::default(),
                cache: Mutex::default(),
            }
        })
    }

    /// The counters of the route of that name; [`NO_ROUTE`] where there is none. For start-up and reloads: takes a lock.
    pub fn route(&self, name: &str) -> Arc<RouteMetrics> {
        self.routes.of(name)
    }

    /// The counters of all routes, by name.
    pub(crate) fn all_routes(&self) -> Vec<(Arc<str>, Arc<RouteMetrics>)> {
        self.routes.all()
    }

    /// Open connections, by listener.
    pub(crate) fn all_connections(&self) -> Vec<(Arc<str>, u64)> {
        let all = self.connections.all().into_iter();
        all.map(|(listener, gauge)| (listener, gauge.value())).collect()
    }

    /// What the memory cache says of itself.
    pub(crate) fn cache_gauges(&self) -> CacheGauges {
        match &*self.cache.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(read) => read(),
            None => CacheGauges::default(),
        }
    }

    /// The counters of the upstream of that name. For start-up and reloads: takes a lock.
    pub fn upstream(&self, name: &str) -> Arc<UpstreamMetrics> {
        self.upstreams.of(name)
    }

    /// The counters of the limit of that name. For start-up and reloads: takes a lock.
    pub fn limit(&self, name: &str) -> Arc<LimitMetrics> {
        self.limits.of(name)
    }

    /// The counters of the gate of that name. For start-up and reloads: takes a lock.
    pub fn gate(&self, name: &str) -> Arc<GateMetrics> {
        self.gates.of(name)
    }

    /// The open connections of the listener with that address. For start-up and reloads: takes a lock. Each connection holds a
    /// [`Gauge::guard`].
    pub fn connections(&self, listener: &str) -> Arc<Gauge> {
        self.connections.of(listener)
    }

    /// Connections whose requests are all answered at once: each holds a guard of this.
    pub fn steady_connections(&self) -> &Arc<Gauge> {
        &self.steady_connections
    }

    /// Counts a request as being served for as long as the guard lives.
    pub fn in_flight_guard(&self) -> GaugeGuard<&Gauge> {
        self.in_flight.borrowed_guard()
    }

    /// Requests that are being served now.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.value()
    }

    pub fn reload(&self, result: Reload) {
        self.reloads[result as usize].add(1);
    }

    pub fn compression(&self, coding: Coding, result: Compressed) {
        self.compressions[coding as usize][result as usize].add(1);
    }

    /// Counts a purge.
    pub fn purge(&self, what: PurgeKind) {
        self.purges[what as usize].add(1);
    }

    /// Counts a refresh ahead of time.
    pub fn refreshed_ahead(&self) {
        self.refreshed_ahead.add(1);
    }

    /// Counts lost access log entries.
    pub fn log_dropped(&self) -> Arc<Counter> {
        Arc::clone(&self.log_dropped)
    }

    /// The counters of Redis. They are shown from the first call on.
    pub fn redis(&self) -> Arc<RedisMetrics> {
        Arc::clone(self.redis.get_or_init(Arc::default))
    }

    /// Says where the memory cache's figures come from. The newest reader replaces the one before it. It is called for each
    /// scrape, so it must be quick.
    pub fn observe_cache(&self, read: impl Fn() -> CacheGauges + Send + Sync + 'static) {
        *self.cache.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(read));
    }

    /// Says where the size in bytes of the memory for limits comes from, as [`Metrics::observe_cache`] does.
    pub fn observe_limiter(&self, read: impl Fn() -> u64 + Send + Sync + 'static) {
        *self.limiter.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(read));
    }

    /// Everything in the Prometheus text format, version 0.0.4.
    ///
    /// # Errors
    /// Where the encoder refuses a family.
    pub fn render(&self) -> prometheus::Result<Vec<u8>> {
        let mut text = String::new();
        TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text)?;
        Ok(text.into_bytes())
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
