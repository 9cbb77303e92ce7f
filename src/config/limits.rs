//! Limits, resolved.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

/// All limits of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct RateLimits {
    pub store: LimitStore,
    /// Routes name theirs by index.
    pub limits: Vec<RateLimit>,
    /// Keys that memory holds at once.
    pub max_keys: usize,
    /// Whether the older `X-RateLimit-*` fields are sent too.
    pub fields: LimitFields,
    /// How addresses are shown where refused keys are told.
    pub addresses: AddressDetail,
}

/// Where limits are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitStore {
    /// Each instance for itself.
    Memory,
    /// All instances together.
    Redis,
}

/// Which fields tell clients of their limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitFields {
    /// `RateLimit` and `RateLimit-Policy`.
    Standard,
    /// And `X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset`.
    WithLegacy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressDetail {
    Whole,
    /// /24 and /48.
    Network,
}

/// So much in a time.
#[derive(Debug, Clone, PartialEq)]
pub struct RateLimit {
    /// No other limit has it.
    pub name: Arc<str>,
    pub unit: LimitUnit,
    /// At least 1.
    pub amount: u64,
    pub per: Duration,
    /// Units that may come at once, at least 1.
    pub burst: u64,
    /// What a client is told apart by. At least one.
    pub key: Vec<LimitKeyPart>,
    /// Zero: until there is something left.
    pub block_for: Duration,
    pub hits: LimitHits,
    pub enforcement: Enforcement,
    pub exempt: Exempt,
}

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitUnit {
    Requests,
    /// Of response bodies.
    Bytes,
    /// Of a language model.
    Tokens {
        /// Taken for what a request asks for that does not say.
        assumed: u64,
    },
}

/// Whether responses from the cache count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitHits {
    Counted,
    /// They do not, and nobody is refused one.
    Free,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enforcement {
    Refuse,
    /// Count and log what would be refused.
    DryRun,
}

/// A part of what a client is told apart by. Where it is not there, the address stands in for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LimitKeyPart {
    /// IPv6 by /64.
    ClientIp,
    Path,
    Host,
    Route,
    /// Lower case.
    Header(String),
    Cookie(String),
    Query(String),
}

/// Clients that a limit is not for: each of the conditions is enough.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Exempt {
    pub addresses: Vec<IpNet>,
    /// Lower-case names, each with a value.
    pub headers: Vec<(String, String)>,
}

/// How many requests may be in flight at once.
#[derive(Debug, Clone, PartialEq)]
pub struct InFlight {
    /// At least 1.
    pub max: usize,
    /// So many may wait.
    pub queue: usize,
    pub queue_timeout: Duration,
    /// `Some`: the latency decides how many, at least so many and at most `max`.
    pub adaptive: Option<usize>,
}

/// The same over all, and for streams and clients.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Concurrency {
    /// `None`: any number.
    pub overall: Option<InFlight>,
    /// `None`: each client may have any number.
    pub per_client: Option<PerClient>,
    /// Streams and WebSockets that may be open. `None`: any number.
    pub max_streams: Option<usize>,
    /// Of clients.
    pub queue_timeout: Duration,
    /// As many as there are; `None`: any number.
    pub upstreams: Vec<Option<InFlight>>,
}

/// For each client by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct PerClient {
    pub max: usize,
    pub queue: usize,
    pub key: Vec<LimitKeyPart>,
}
