//! What Forebay counts: every name, kind and label of its metrics stands in `Family`, the words of their label values in the
//! enums beside it.
//!
//! The hot path hashes and formats nothing. Whoever serves a route, an upstream or a listener resolves its handle once
//! ([`Metrics::route`], [`Metrics::upstream`], [`Metrics::connections`]) and keeps it; an update is then a handful of relaxed
//! additions to memory that few other threads touch (`stripe`). Names and labels are put together when somebody reads.

mod expose;
mod histogram;
mod limit;
mod redis;
mod route;
mod series;
mod stripe;
mod upstream;

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use prometheus::proto::MetricType;
use prometheus::{Registry, TextEncoder};

use crate::transform::negotiate::Coding;

pub use histogram::Histogram;
pub(crate) use histogram::Reading;
pub use limit::{GateMetrics, LimitMetrics};
pub use redis::RedisMetrics;
pub use route::RouteMetrics;
use series::Series;
pub(crate) use stripe::PerThread;
pub use stripe::{Counter, Gauge, GaugeGuard};
pub use upstream::{ServerMetrics, UpstreamGauges, UpstreamMetrics};

/// The `route` of requests that reached none: refused at the door, or matched by nothing.
pub const NO_ROUTE: &str = "none";

/// The `tier` of the memory cache.
const L1: &str = "l1";

/// One metric family: all that its exposition says beside the samples.
#[derive(Debug)]
pub(crate) struct Family {
    pub(crate) name: &'static str,
    pub(crate) kind: MetricType,
    pub(crate) labels: &'static [&'static str],
    pub(crate) help: &'static str,
}

macro_rules! families {
    ($($id:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        impl Family {
            $(pub(crate) const $id: Family =
                Family { name: $name, kind: MetricType::$kind, labels: &[$($label),*], help: $help };)*
            /// The table, in one piece.
            pub(crate) const ALL: &'static [Family] = &[$(Family::$id),*];
        }
    };
}

families! {
    HTTP_REQUESTS = COUNTER "forebay_http_requests_total" ["route", "method", "status"]
        "Requests answered, by route, method and status code.";
    HTTP_DURATION = HISTOGRAM "forebay_http_request_duration_seconds" ["route"]
        "Time from a request's first byte to the last byte of its response.";
    CACHE_REQUESTS = COUNTER "forebay_cache_requests_total" ["route", "result"]
        "Requests by what the cache did for them: where the response came from, or why it was forwarded (RFC 9211 fwd).";
    RESPONSE_BYTES = COUNTER "forebay_http_response_bytes_total" ["route", "source"]
        "Bytes of response bodies sent to clients, by whether the origin had to send them for that.";
    CACHE_BYTES = GAUGE "forebay_cache_bytes" ["tier"]
        "Bytes that stored responses take up, bookkeeping included.";
    CACHE_STORED_RESPONSES = GAUGE "forebay_cache_stored_responses" ["tier"]
        "Responses in the cache.";
    CACHE_EVICTIONS = COUNTER "forebay_cache_evictions_total" []
        "Stored responses that were removed to make room.";
    DICTIONARY_BYTES = GAUGE "forebay_dictionary_bytes" []
        "Bytes of what new versions of assets are compressed against (RFC 9842).";
    CACHE_PURGES = COUNTER "forebay_cache_purges_total" ["what"]
        "Purges asked for here, those of unsafe requests (RFC 9111 §4.4) among them, by what they name.";
    CACHE_AHEAD = COUNTER "forebay_cache_refreshed_ahead_total" []
        "Stored responses that were validated shortly before they expired.";
    UPSTREAM_REQUESTS = COUNTER "forebay_upstream_requests_total" ["upstream", "server", "outcome"]
        "Attempts to get a response from a server, by how they ended.";
    UPSTREAM_DURATION = HISTOGRAM "forebay_upstream_duration_seconds" ["upstream"]
        "Time from the start of an attempt to the head of its response.";
    RATE_LIMITED = COUNTER "forebay_rate_limited_total" ["limit", "reason"]
        "Requests that a limit refused, by reason; dry_run is what a limit that only counts would have refused.";
    RATE_LIMIT_TOKENS = COUNTER "forebay_rate_limit_tokens_total" ["limit", "state"]
        "Tokens of limits that count them: reserved when requests came, and used in the end.";
    RATE_LIMIT_SETTLED = COUNTER "forebay_rate_limit_settled_total" ["limit", "by"]
        "Requests that have taken tokens, by how their number was found out.";
    RATE_LIMIT_BYTES = GAUGE "forebay_rate_limit_bytes" []
        "Memory for what clients have used of their limits.";
    REDIS_DURATION = HISTOGRAM "forebay_redis_duration_seconds" ["operation"]
        "Time from a command to the end of its answer, by what it is for.";
    REDIS_ERRORS = COUNTER "forebay_redis_errors_total" ["operation", "kind"]
        "Commands that came to nothing, by what they were for and why.";
    REDIS_UP = GAUGE "forebay_redis_up" []
        "1 while Redis is used, 0 while requests go on without it.";
    COHERENCE_FOLLOWED = GAUGE "forebay_coherence_followed" []
        "1 while the purges of all instances are followed, 0 while they are not; then nothing is read from Redis.";
    COHERENCE_WAITING = GAUGE "forebay_coherence_waiting_purges" []
        "Purges that wait to be recorded in Redis.";
    REDIS_SILENT_NODES = GAUGE "forebay_redis_silent_nodes" []
        "Masters of a Redis Cluster that do not answer; their keys are left alone.";
    LEASES_HEARD = GAUGE "forebay_leases_heard" []
        "1 while it is heard how other instances' fetches end, 0 while it is not; then nobody waits for them.";
    LEASES_WAITING = GAUGE "forebay_leases_waiting" []
        "Fetches of other instances that are waited for.";
    REDIS_LEASES = COUNTER "forebay_redis_leases_total" ["result"]
        "Fetches that all instances share, by what came of asking for one.";
    REDIS_WRITES_DROPPED = COUNTER "forebay_redis_writes_dropped_total" []
        "Responses that were not written because too many waited to be.";
    UPSTREAM_QUEUED = GAUGE "forebay_upstream_queued" ["upstream"]
        "Requests that wait because every server of the upstream has as many as its max_connections.";
    UPSTREAM_QUEUE_REFUSED = COUNTER "forebay_upstream_queue_refused_total" ["upstream"]
        "Requests that were refused because too many waited for a server, or none had room in time.";
    GATE_IN_FLIGHT = GAUGE "forebay_concurrency_in_flight" ["gate"]
        "Requests that hold a place of a concurrency limit.";
    GATE_QUEUED = GAUGE "forebay_concurrency_queued" ["gate"]
        "Requests that wait for a place.";
    GATE_PLACES = GAUGE "forebay_concurrency_places" ["gate"]
        "Places of a concurrency limit; an adaptive one changes them.";
    GATE_REFUSED = COUNTER "forebay_concurrency_refused_total" ["gate", "reason"]
        "Requests that got no place, by reason.";
    UPSTREAM_HEALTHY = GAUGE "forebay_upstream_healthy" ["upstream", "server"]
        "1 while a server may be given requests: 0 while probes fail, while it is ejected for its failures, or while it is drained. A name \
         with several addresses counts those that may.";
    CIRCUIT_STATE = GAUGE "forebay_circuit_state" ["upstream"]
        "State of an upstream's circuit breaker: 0 closed, 1 half-open, 2 open.";
    RETRIES = COUNTER "forebay_retries_total" ["upstream"]
        "Attempts at a request after its first.";
    STREAMS_ACTIVE = GAUGE "forebay_streams_active" ["route"]
        "Event streams that are open.";
    STREAM_FIRST_EVENT = HISTOGRAM "forebay_stream_first_event_seconds" ["route"]
        "Time from a request's first byte to the first body bytes of its event stream.";
    COMPRESSIONS = COUNTER "forebay_compressions_total" ["coding", "result"]
        "Bodies that were compressed, or read for clients that cannot, by what came of it.";
    CONNECTIONS = GAUGE "forebay_connections" ["listener"]
        "Client connections that are open.";
    IN_FLIGHT = GAUGE "forebay_in_flight" []
        "Requests that are being served.";
    CONFIG_RELOADS = COUNTER "forebay_config_reloads_total" ["result"]
        "Attempts to reload the configuration.";
    LOG_DROPPED = COUNTER "forebay_log_dropped_total" []
        "Access log entries lost because the log's destination was too slow or failed.";
    BUILD_INFO = GAUGE "forebay_build_info" ["version"]
        "Always 1; the label says which version runs.";
}

/// Defines an enum whose variants are words: of a label, and wherever else the same thing is said.
macro_rules! words {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// All words, in the order of their declaration.
            pub const ALL: &'static [$name] = &[$($name::$variant),*];
            pub(crate) const COUNT: usize = Self::ALL.len();

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// What the cache did for a request. The same word stands in the metric, the access log and, where RFC 9211 has one for it
    /// (§2.2 `fwd`: from [`Bypass`](Self::Bypass) on), in `Cache-Status`.
    pub enum CacheResult {
        /// A fresh stored response from memory.
        HitL1 = "hit_l1",
        /// A fresh stored response from Redis.
        HitL2 = "hit_l2",
        /// A stored response that was no longer fresh (RFC 9111 §4.2.4).
        ServedStale = "served_stale",
        /// The response that another request had fetched.
        Collapsed = "collapsed",
        /// A stored response that the origin confirmed with a 304 (RFC 9111 §4.3).
        Revalidated = "revalidated",
        /// The route does not cache.
        Bypass = "bypass",
        /// The request's method is not answered from a cache.
        Method = "method",
        /// Nothing is stored under this URI.
        UriMiss = "uri-miss",
        /// Something is stored under this URI, but no variant for this request.
        VaryMiss = "vary-miss",
        /// There was no stored response, and it is not known at which step.
        Miss = "miss",
        /// There was a fresh stored response, but the request did not accept it.
        Request = "request",
        /// The stored response was stale.
        Stale = "stale",
        /// Only a part of the response was stored.
        Partial = "partial",
    }
}

words! {
    /// Whether the origin had to send what the client got.
    pub enum BytesFrom {
        /// A stored response, or another request's fetch.
        Cache = "cache",
        Origin = "origin",
    }
}

impl CacheResult {
    /// Where the body came from.
    pub fn bytes_from(self) -> BytesFrom {
        match self {
            Self::HitL1 | Self::HitL2 | Self::ServedStale | Self::Collapsed | Self::Revalidated => BytesFrom::Cache,
            Self::Bypass
            | Self::Method
            | Self::UriMiss
            | Self::VaryMiss
            | Self::Miss
            | Self::Request
            | Self::Stale
            | Self::Partial => BytesFrom::Origin,
        }
    }
}

words! {
    /// How an attempt to get a response from a server ended.
    pub enum Outcome {
        /// A response with a status below 500, whole as far as the client wanted it.
        Ok = "ok",
        /// A response with a status of 500 or more.
        ServerError = "server_error",
        ConnectError = "connect_error",
        ConnectTimeout = "connect_timeout",
        /// The handshake failed, or the certificate was not to be trusted.
        TlsError = "tls_error",
        /// No byte, or no progress, within the upstream's time.
        Timeout = "timeout",
        /// The connection was closed or reset before the response's head was there.
        Reset = "reset",
        /// The response could not be understood.
        InvalidResponse = "invalid_response",
        /// The response broke off.
        Incomplete = "incomplete",
        /// The client left first.
        ClientGone = "client_gone",
    }
}

impl Outcome {
    /// Whether the server could not be reached, or did not keep to the protocol or its time.
    pub fn is_failure(self) -> bool {
        !matches!(self, Self::Ok | Self::ServerError | Self::ClientGone)
    }

    /// Whether it speaks against the server: what another server would not have done. Statuses are looked at where they come in.
    pub fn speaks_against_server(self) -> bool {
        match self {
            Self::ConnectError
            | Self::ConnectTimeout
            | Self::TlsError
            | Self::Timeout
            | Self::Reset
            | Self::Incomplete => true,
            // What cannot be understood may be the answer to just this request, and who sends it could make others fail.
            Self::Ok | Self::ServerError | Self::InvalidResponse | Self::ClientGone => false,
        }
    }
}

words! {
    /// Why a limit refused a request. The same word stands in the metric and the access log.
    pub enum LimitReason {
        /// There was nothing left.
        Excess = "excess",
        /// There had been nothing left a while ago (`block_for`).
        Blocked = "blocked",
        /// It was not refused, but would have been.
        DryRun = "dry_run",
    }
}

words! {
    /// How the tokens of a request were found out.
    pub enum Settled {
        /// The answer said so.
        Usage = "usage",
        /// By the length of what the model said.
        Text = "text",
        /// It could not be found out: what was taken for it counts.
        Estimate = "estimate",
        /// It came to nothing, and took none.
        Nothing = "nothing",
    }
}

words! {
    /// What came of compressing a body.
    pub enum Compressed {
        /// It was compressed while it passed.
        Live = "live",
        /// It was read, while it passed or out of the cache, for a client that cannot.
        Decoded = "decoded",
        /// A stored one was compressed, for all who ask for it.
        Stored = "stored",
        /// A stored one was compressed with a dictionary, for all who have that.
        Dictionary = "dictionary",
        /// A stored one that is asked for again was compressed better.
        Best = "best",
        /// Another instance had compressed a stored one already.
        Shared = "shared",
        /// A stored one does not get much smaller.
        Worthless = "worthless",
        /// It could not be read, or there was no memory.
        Failed = "failed",
        /// There was too much else to do: it was sent as it came.
        Busy = "busy",
    }
}

words! {
    /// Why a request got no place.
    pub enum GateReason {
        /// As many waited as may.
        QueueFull = "queue_full",
        /// It waited for as long as it may.
        Timeout = "timeout",
    }
}

words! {
    /// What a purge names.
    pub enum PurgeKind {
        Uri = "uri",
        /// A tag, or a group of RFC 9875.
        Tag = "tag",
        Prefix = "prefix",
        Glob = "glob",
        Host = "host",
        Route = "route",
        Everything = "everything",
    }
}

words! {
    /// How an attempt to reload the configuration ended.
    pub enum Reload {
        /// The new configuration is in force.
        Applied = "applied",
        /// It had errors, or needs a restart: the old one stays in force.
        Refused = "refused",
    }
}

words! {
    /// What came of asking to fetch for all instances.
    pub enum LeaseResult {
        /// This one fetched.
        Led = "led",
        /// Another one told how its fetch ended.
        Followed = "followed",
        /// Another one's fetch was not heard of in time.
        Expired = "expired",
        /// Nobody waited: Redis did not say, or such responses are not stored.
        Refused = "refused",
    }
}

words! {
    /// What a command to Redis is for.
    pub enum RedisOperation {
        /// A stored response is looked for.
        Get = "get",
        /// A response is stored.
        Store = "store",
        /// What is stored is removed.
        Delete = "delete",
        /// Is it there, and what is its time?
        Probe = "probe",
        /// A connection is made.
        Connect = "connect",
        /// One fetch for all instances.
        Lease = "lease",
        /// A purge is told to all instances.
        Purge = "purge",
        /// The purges of others are read.
        Follow = "follow",
        /// What has been purged is looked up.
        Epoch = "epoch",
        /// A limit that instances share.
        Limit = "limit",
        /// What is asked for most, counted over all instances.
        Hot = "hot",
    }
}

words! {
    /// Why a command to Redis came to nothing.
    pub enum RedisFault {
        /// There is no connection, or the last commands failed: it was not even sent.
        Unavailable = "unavailable",
        /// No answer within its time.
        Timeout = "timeout",
        /// No connection, or it broke.
        Connection = "connection",
        /// The server reads its data (`LOADING`).
        Loading = "loading",
        /// The server is a replica (`READONLY`).
        ReadOnly = "readonly",
        /// The server is full (`OOM`).
        OutOfMemory = "oom",
        /// The server runs a script that does not end (`BUSY`).
        Busy = "busy",
        /// Wrong or no password, or not permitted (`NOAUTH`, `WRONGPASS`, `NOPERM`).
        Auth = "auth",
        /// The cluster or its master is down, or slots move faster than they can be followed.
        Cluster = "cluster",
        /// The server does not know the script.
        NoScript = "noscript",
        /// What came is not what Redis answers.
        Protocol = "protocol",
        /// A stored value is of a version that is not understood.
        ValueVersion = "value_version",
        /// A stored value belongs to another key.
        ValueKey = "value_key",
        /// A stored value is not whole, or has been changed.
        ValueBroken = "value_broken",
        /// Any other error that the server answered.
        Other = "other",
    }
}

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
