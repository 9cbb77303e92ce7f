//! What a key that is left out means.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::Levels;

/// `forebay run --upstream` without `--listen`.
pub const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8080);
/// Only this machine may read metrics unless someone says otherwise.
pub const METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9190);

/// Idle connections for each server.
pub const KEEPALIVE: u32 = 32;
/// Common application servers close at 5 s; who closes first must be us, or a request meets a closing connection.
pub const KEEPALIVE_IDLE: Duration = Duration::from_secs(4);
/// Requests that wait for a server with room; and how long. Who waits longer has gone elsewhere.
pub const QUEUE: u32 = 1000;
pub const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often names are looked up again: a new server is at work before its colleagues are missed.
pub const DNS_REFRESH: Duration = Duration::from_secs(30);
pub const CONNECT: Duration = Duration::from_secs(10);
pub const FIRST_BYTE: Duration = Duration::from_secs(30);
pub const BETWEEN_BYTES: Duration = Duration::from_secs(30);
pub const SEND: Duration = Duration::from_secs(30);

/// How servers are asked whether they are well.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(5);
pub const CHECK_TIMEOUT: Duration = Duration::from_secs(3);
pub const EXPECT_STATUS: u16 = 200;
pub const UNHEALTHY_THRESHOLD: u32 = 3;
pub const HEALTHY_THRESHOLD: u32 = 2;

/// When a server is left out because its answers were failures.
pub const CONSECUTIVE_FAILURES: u32 = 5;
pub const EJECT_FOR: Duration = Duration::from_secs(30);
/// Beyond it nobody knows any more why the server gets nothing.
pub const MAX_EJECT_FOR: Duration = Duration::from_secs(300);
pub const MAX_EJECTED: f64 = 0.5;

/// When an upstream is no longer asked.
pub const FAILURE_THRESHOLD: u32 = 5;
pub const FAILURE_SHARE: f64 = 0.5;
pub const BREAKER_WINDOW: Duration = Duration::from_secs(10);
pub const MIN_REQUESTS: u32 = 20;
pub const SUCCESS_THRESHOLD: u32 = 3;
pub const OPEN_FOR: Duration = Duration::from_secs(30);

pub const RETRIES: u32 = 3;
pub const RETRY_DELAY: Duration = Duration::from_millis(50);
pub const MAX_RETRY_DELAY: Duration = Duration::from_secs(2);
pub const RETRY_FACTOR: f64 = 2.0;
pub const RETRY_BUDGET: f64 = 0.2;
pub const RETRY_STATUSES: [u16; 3] = [502, 503, 504];
/// Where an attempt may take any time.
pub const RETRY_MAX_TIME: Duration = Duration::from_secs(60);

/// A model may think for minutes between two events.
pub const STREAM_BETWEEN_BYTES: Duration = Duration::from_secs(300);

/// Enough for uploads from forms; more is asked for by the route.
pub const MAX_REQUEST_BODY: u64 = 10 << 20;

/// L1, in bytes.
pub const MEMORY_SIZE: u64 = 256 << 20;
/// The largest body in L1, in bytes.
pub const MEMORY_MAX_BODY: u64 = 8 << 20;
/// For dictionaries, in bytes: some versions of all scripts and styles of a large site.
pub const MEMORY_DICTIONARIES: u64 = 32 << 20;

/// A tenth of a response's age may be days, which is a long time to be wrong.
pub const HEURISTIC_MAX: Duration = Duration::from_secs(60);
/// The field of RFC 9213 that is for all caches of this kind.
pub const TARGETED_FIELDS: [&str; 1] = ["cdn-cache-control"];
/// Stale responses are for who asks for them.
pub const STALE_WHILE_REVALIDATE: Duration = Duration::ZERO;
pub const STALE_IF_ERROR: Duration = Duration::ZERO;
/// A 304 is cheaper than a response, but memory is better used for what is fresh.
pub const KEEP: Duration = Duration::from_secs(600);

/// Begins every key in Redis.
pub const REDIS_PREFIX: &str = "forebay:";
/// A request waits no longer for Redis: beyond this, most origins are as fast.
pub const REDIS_DEADLINE: Duration = Duration::from_millis(50);
/// The largest body in Redis, in bytes: one server sends it to many, and to one after the other.
pub const REDIS_MAX_BODY: u64 = 1 << 20;
/// Of a limit.
pub const LIMIT_PER: Duration = Duration::from_secs(1);
/// What a request to a language model is taken to ask for: a page of text.
pub const ASSUMED_TOKENS: u32 = 1000;

/// What fits into one packet anyway gains nothing.
pub const COMPRESSION_MIN_SIZE: u64 = 1 << 10;
/// Nobody sees it, and it is enough for the pieces of one write of an application to come together.
pub const COMPRESSION_FLUSH_AFTER: Duration = Duration::from_millis(20);
/// What nginx's users are used to, or as fast with a better result.
pub const LIVE_LEVELS: Levels = Levels {
    gzip: 6,
    br: 5,
    zstd: 3,
};
/// Paid once, by a thread that nobody waits for.
pub const STORED_LEVELS: Levels = Levels {
    gzip: 9,
    br: 11,
    zstd: 19,
};
/// Requests in flight, where only `concurrency` is written.
pub const MAX_IN_FLIGHT: u32 = 1000;
/// So many wait for a place, and so long.
pub const IN_FLIGHT_QUEUE: u32 = 1000;
pub const IN_FLIGHT_TIMEOUT: Duration = Duration::from_secs(5);
/// An adaptive limit lets so many in however slow it gets.
pub const ADAPTIVE_MIN: u32 = 10;

/// Slower requests are logged at `warn`.
pub const SLOW: Duration = Duration::from_secs(1);

pub const SHUTDOWN_DELAY: Duration = Duration::ZERO;
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(30);
pub const STREAM_GRACE: Duration = Duration::from_secs(300);

/// The last tenth of its lifetime, in which a response has to be asked for twice: what is asked for less often is not worth a request that
/// nobody made.
pub const REFRESH_AHEAD_PERMILLE: u32 = 100;
pub const REFRESH_AHEAD_HITS: u32 = 2;

/// Requests of a warm-up at once, and the most that can be asked for: an origin that is being spared is not asked for more.
pub const WARM_CONCURRENCY: u32 = 8;
pub const WARM_MAX_CONCURRENCY: u32 = 256;
/// Requests a second.
pub const WARM_RATE: f64 = 50.0;
/// URLs of an access log.
pub const WARM_MOST_LOGGED: u32 = 1000;
