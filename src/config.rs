//! The configuration that the rest of the program runs on: resolved, checked and immutable.
//!
//! What was typed is [`FileConfig`](file::FileConfig); `resolve` gives every key its default and
//! checks the rules between keys. Nothing here is an `Option` that means "the default": `None` always has a meaning of
//! its own, and says which.

pub mod address;
mod changes;
pub(crate) mod defaults;
pub mod diagnostic;
pub mod environment;
pub mod file;
mod health_check;
mod later;
mod limits;
mod load;
mod redis;
mod report;
mod resolve;
pub mod servers_file;
mod shown;
mod template;
pub mod units;
mod upstream;
mod yaml;

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use ipnet::IpNet;

use crate::admin::warm::access_log::Site;
use crate::cache::tags::TagFields;
use crate::key::{Glob, QueryOrder};
use crate::rfc9111::storability::{ClientDirectives, SetCookie};
use crate::transform::compress::rules::TYPES;
use crate::transform::negotiate::Coding;

pub use diagnostic::{Diagnostic, Diagnostics};
pub use environment::Environment;
pub use file::schema;
pub use health_check::{HealthCheck, HttpQuestion, Question, Unchecked};
pub use limits::{
    AddressDetail, Concurrency, Enforcement, Exempt, InFlight, LimitFields, LimitHits, LimitKeyPart, LimitStore,
    LimitUnit, PerClient, RateLimit, RateLimits,
};
pub use load::Loaded;
pub use redis::{Deployment, Password, Redis, RedisTls, Secret, WritePolicy};
pub use upstream::{
    Balance, Dns, HashKey, HostPolicy, ProxyVersion, Retry, Role, SameSite, ServerAddress, ServerSource, Sticky,
    Timeouts, Upstream, UpstreamServer, UpstreamTls, Verify,
};

/// Everything that one configuration file says, with defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// At least one.
    pub listeners: Vec<Listener>,
    /// Peers whose forwarding fields and PROXY protocol headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// At least one; a [`Route`] names its upstream by index.
    pub upstreams: Vec<Upstream>,
    /// In order of the file: the first match wins. An implied catch-all stands last.
    pub routes: Vec<Route>,
    pub rate_limits: RateLimits,
    pub concurrency: Concurrency,
    pub cache: Cache,
    /// `None`: no metrics listener.
    pub metrics: Option<SocketAddr>,
    /// `None`: no admin listener.
    pub admin: Option<Admin>,
    pub log: Log,
    pub server: Server,
    pub shown: Shown,
}

/// What was typed, in the form that may be shown. All are equal: it says nothing that the rest of the configuration does not.
#[derive(Debug, Clone, Default)]
pub struct Shown(pub Arc<serde_json::Value>);

impl PartialEq for Shown {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// The listener for purging and inspection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    pub listen: SocketAddr,
    /// Whoever asks must have it. `None`: whoever reaches the listener may ask, which only loopback is for.
    pub token: Option<Secret>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    pub address: ListenAddress,
    /// Answer every request with a 308 to the same URL with `https`.
    pub redirect_to_https: bool,
    /// Offer HTTP/2: by ALPN with TLS, by prior knowledge without.
    pub http2: bool,
    /// Expect a PROXY protocol header (v1 or v2) from trusted peers.
    pub proxy_protocol: bool,
    /// `None`: plain HTTP.
    pub tls: Option<ListenerTls>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

#[derive(Debug, Clone, PartialEq)]
pub struct ListenerTls {
    /// At least one; the first serves clients whose SNI matches none.
    pub certificates: Vec<Certificate>,
    pub min_version: TlsVersion,
    /// The `max-age` of `Strict-Transport-Security`. `None`: the field is not sent.
    pub hsts: Option<Duration>,
}

/// A PEM chain and its private key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    pub cert: PathBuf,
    pub key: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// From the file, or `route-N` (counted from 1), or `default` for the implied catch-all.
    pub name: Arc<str>,
    pub matches: Match,
    /// Index into [`Config::upstreams`].
    pub upstream: usize,
    /// Take the matched `path_prefix` off before the request is forwarded.
    pub strip_prefix: bool,
    pub request_headers: FieldEdits,
    pub response_headers: FieldEdits,
    pub cache: RouteCache,
    /// `None`: every body is passed on as it is.
    pub compression: Option<Arc<Compression>>,
    /// `Some`: every response of this route is a stream. Streams are also known by their content type; they then
    /// have [`Stream::default`]'s limits.
    pub stream: Option<Stream>,
    /// Bytes. `None`: unlimited.
    pub max_request_body: Option<u64>,
    /// Addresses that may use the route; checked after `deny`. Empty: everyone.
    pub allow: Vec<IpNet>,
    /// Addresses that get 403.
    pub deny: Vec<IpNet>,
    /// From where PURGE requests are taken; from elsewhere they get 403. `None`: this route has no part in them.
    pub purge: Option<Vec<IpNet>>,
    /// Forwarding and override fields that this route passes on although the sender is not trusted (lower case).
    pub keep_fields: Vec<String>,
    /// Into the limits of [`Config::rate_limits`]; all of them hold.
    pub rate_limits: Vec<usize>,
    /// What a request counts for in limits of requests.
    pub rate_limit_cost: u64,
    /// `None`: any number.
    pub in_flight: Option<InFlight>,
}

/// All conditions must hold; an empty one holds always.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Match {
    pub hosts: Vec<HostPattern>,
    /// The whole path. Segments may be captures.
    pub path: Option<PathTemplate>,
    /// Leading segments. `/api` covers `/api` and `/api/x`, not `/apiary`; a trailing `/` asks for something behind it
    /// (or nothing: `/api/` covers `/api/` and `/api/x`, not `/api`).
    pub path_prefix: Option<PathTemplate>,
    /// One of these ends the path.
    pub path_suffix: Vec<String>,
    pub methods: Vec<Method>,
    /// Lower-case field names with the value that one of their lines must have.
    pub headers: Vec<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPattern {
    /// Lower case, without port.
    Exact(String),
    /// `*.example.com` as `.example.com`: one or more labels in front.
    Wildcard(String),
}

/// A path with `{name}` segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathTemplate {
    /// As typed, for messages.
    pub text: String,
    pub segments: Vec<Segment>,
    /// Whether the text ends with `/` (and is more than that).
    pub trailing_slash: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    Literal(String),
    /// Exactly one non-empty segment, available as `{name}` in field values.
    Capture(String),
}

/// Rewriting of one message's fields: first `remove`, then `set`, then `add`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FieldEdits {
    /// Lower-case names.
    pub remove: Vec<String>,
    pub set: Vec<(String, ValueTemplate)>,
    pub add: Vec<(String, ValueTemplate)>,
    /// Responses: also those that are not 2xx or 3xx.
    pub always: bool,
}

impl FieldEdits {
    /// Whether they leave everything as it is.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }
}

/// A field value with values of the request in it: `{client_ip} {host} {method} {path} {request_id}` and captures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueTemplate {
    pub parts: Vec<ValuePart>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValuePart {
    Text(String),
    ClientIp,
    Host,
    Method,
    Path,
    RequestId,
    /// A capture of the route's path template.
    Capture(String),
}

#[derive(Debug, Clone, PartialEq)]
pub enum RouteCache {
    /// Neither looked up nor stored.
    Off,
    On(Box<CachePolicy>),
}

/// How a route's responses are stored and reused. None of it makes storable what the origin or RFC 9111 forbids to store.
#[derive(Debug, Clone, PartialEq)]
pub struct CachePolicy {
    pub lifetime: RouteLifetime,
    /// Freshness lifetimes by status, before `lifetime` and whatever the origin says.
    pub statuses: Vec<(u16, Duration)>,
    /// For responses whose origin gives no window of its own (RFC 5861 §3). Zero: none.
    pub stale_while_revalidate: Duration,
    /// The same for failures of the upstream (RFC 5861 §4).
    pub stale_if_error: Duration,
    /// How long a response that has a validator is kept after its freshness, so that the origin can confirm it.
    pub keep: Duration,
    /// Bytes of L1 that the route's responses may take together. `None`: it has no share of its own.
    pub max_size: Option<u64>,
    /// Labels for purging. Only captures of the route's path stand in them.
    pub tags: Vec<ValueTemplate>,
    /// Whether clients see the fields that origins label responses with.
    pub tag_fields: TagFields,
    pub key: KeyPolicy,
    pub set_cookie: SetCookie,
    pub request_directives: ClientDirectives,
    pub collapse: Collapse,
    /// `None`: what expires is fetched when it is asked for again.
    pub refresh_ahead: Option<RefreshAhead>,
}

/// When a fresh response is validated because it will expire soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefreshAhead {
    /// The last thousandths of its lifetime in which it happens.
    pub permille: u32,
    /// So often it has to be asked for in that time.
    pub min_hits: u32,
}

impl Default for RefreshAhead {
    fn default() -> Self {
        Self {
            permille: defaults::REFRESH_AHEAD_PERMILLE,
            min_hits: defaults::REFRESH_AHEAD_HITS,
        }
    }
}

impl Default for CachePolicy {
    /// Of a route that says no more than that it caches.
    fn default() -> Self {
        Self {
            lifetime: RouteLifetime::Origin,
            statuses: Vec::new(),
            stale_while_revalidate: defaults::STALE_WHILE_REVALIDATE,
            stale_if_error: defaults::STALE_IF_ERROR,
            keep: defaults::KEEP,
            max_size: None,
            tags: Vec::new(),
            tag_fields: TagFields::Strip,
            key: KeyPolicy::default(),
            set_cookie: SetCookie::Bypass,
            request_directives: ClientDirectives::Honour,
            collapse: Collapse::Instance,
            refresh_ahead: None,
        }
    }
}

/// Whose freshness lifetime counts for 200, 203, 301 and 308.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteLifetime {
    /// The origin's.
    Origin,
    /// This one, whatever the origin says.
    Instead(Duration),
    /// This one where the origin gives none.
    Fallback(Duration),
}

/// What selects a stored response beside scheme, host and path.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct KeyPolicy {
    pub query: QueryKey,
    /// Request fields whose values count (lower case).
    pub headers: Vec<String>,
    pub cookies: KeyCookies,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct QueryKey {
    pub parameters: QueryParameters,
    pub order: QueryOrder,
}

/// Which parameters of a query count. `*` in a name stands for any characters.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum QueryParameters {
    #[default]
    All,
    /// All but these.
    Ignore(Vec<String>),
    /// These alone. At least one.
    Keep(Vec<String>),
}

/// What the cookies of a request mean for its response.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum KeyCookies {
    /// Nobody has said: only lifetimes of the origin's own apply to requests that have any.
    #[default]
    Unaccounted,
    /// Nothing.
    Ignore,
    /// The values of these count, all others mean nothing. At least one; names have case.
    Named(Vec<String>),
}

/// Whether requests for the same thing wait for one fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Collapse {
    /// Those of this process.
    #[default]
    Instance,
    /// Those of all processes with the same Redis.
    Cluster,
    Off,
}

/// How a route's responses are compressed.
#[derive(Debug, Clone, PartialEq)]
pub struct Compression {
    /// Bytes; a body that is known to be shorter stays as it is.
    pub min_size: u64,
    /// In the order of preference. At least one.
    pub codings: Vec<Coding>,
    /// Content types, lower case.
    pub types: Vec<Glob>,
    pub events: Events,
    pub authenticated: Authenticated,
    pub dictionaries: UseDictionaries,
    /// How long what has come may wait for more before it is sent.
    pub flush_after: Duration,
    /// While a body passes.
    pub live_levels: Levels,
    /// For what is stored, once it is asked for again and again.
    pub stored_levels: Levels,
}

impl Default for Compression {
    /// Of a route that says no more than that it compresses.
    fn default() -> Self {
        Self {
            min_size: defaults::COMPRESSION_MIN_SIZE,
            codings: Coding::ALL.to_vec(),
            types: TYPES.into_iter().map(Glob::new).collect(),
            events: Events::Untouched,
            authenticated: Authenticated::Public,
            dictionaries: UseDictionaries::Never,
            flush_after: defaults::COMPRESSION_FLUSH_AFTER,
            live_levels: defaults::LIVE_LEVELS,
            stored_levels: defaults::STORED_LEVELS,
        }
    }
}

/// What becomes of event streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Events {
    Untouched,
    /// Compressed, and flushed behind each event.
    Compressed,
}

/// Whether stored responses are compressed against what the client has (RFC 9842).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UseDictionaries {
    Never,
    /// Where the origin offers one with `Use-As-Dictionary`.
    AsOffered,
}

/// Which responses that may be about one client are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authenticated {
    /// None to a request with `Cookie` or `Authorization`, and none that is private, sets cookies or varies by them.
    Nothing,
    /// None that is private, sets cookies or varies by them.
    Public,
    Everything,
}

/// How hard to try, by coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Levels {
    /// 1 to 9.
    pub gzip: u32,
    /// 0 to 11.
    pub br: u32,
    /// 1 to 19: more takes a window that no client has to have.
    pub zstd: u32,
}

impl Levels {
    pub fn of(self, coding: Coding) -> u32 {
        match coding {
            Coding::Gzip => self.gzip,
            Coding::Br => self.br,
            Coding::Zstd => self.zstd,
        }
    }
}

/// Limits of an event stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Stream {
    /// From the request's end to the response head. `None`: unlimited.
    pub first_event: Option<Duration>,
    /// `None`: unlimited.
    pub between_bytes: Option<Duration>,
    /// After this much silence an SSE comment is sent, between two events. `None`: never.
    pub heartbeat: Option<Duration>,
}

impl Default for Stream {
    /// Of a stream that is known by its content type: its head has come within the upstream's own limit.
    fn default() -> Self {
        Self {
            first_event: Some(defaults::FIRST_BYTE),
            between_bytes: Some(defaults::STREAM_BETWEEN_BYTES),
            heartbeat: None,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Cache {
    /// Cap of heuristic freshness (RFC 9111 §4.2.2). Zero: there is none.
    pub heuristic_max: Duration,
    /// Lower-case names of targeted fields, most specific first (RFC 9213). Empty: only `Cache-Control` counts.
    pub targeted_fields: Vec<String>,
    pub memory: Memory,
    /// `None`: nothing is asked for before clients do.
    pub warm: Option<Warm>,
    /// `None`: L1 only.
    pub redis: Option<Redis>,
    /// What else successful unsafe requests purge.
    pub invalidate: Vec<Invalidate>,
}

/// What a successful unsafe request purges beside its own URI.
#[derive(Debug, Clone, PartialEq)]
pub struct Invalidate {
    pub when: Match,
    /// Only captures of the path stand in them. There is at least one tag or glob.
    pub purge_tags: Vec<ValueTemplate>,
    /// The same of paths, with `*`.
    pub purge_globs: Vec<ValueTemplate>,
}

/// What is asked for before clients do.
#[derive(Debug, Clone, PartialEq)]
pub struct Warm {
    pub on_start: bool,
    /// `None`: not again.
    pub every: Option<Duration>,
    pub sources: Vec<WarmSource>,
    /// Whether what is purged is asked for again, unless the purge says otherwise.
    pub after_purge: bool,
    /// Requests at once, at least 1.
    pub concurrency: u32,
    /// Requests a second.
    pub rate: f64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WarmSource {
    /// A file with a URL in each line.
    Urls(PathBuf),
    /// The URL of a sitemap, which a route has to take.
    Sitemap(String),
    /// The URLs that an access log has most often.
    AccessLog {
        file: PathBuf,
        site: Option<Site>,
        /// So many of them.
        most: u32,
    },
    /// So many of the keys that are asked for most.
    Hottest(u32),
}

impl fmt::Display for WarmSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Urls(file) => write!(f, "urls {}", file.display()),
            Self::Sitemap(url) => write!(f, "sitemap {url}"),
            Self::AccessLog { file, .. } => write!(f, "access_log {}", file.display()),
            Self::Hottest(count) => write!(f, "hottest {count}"),
        }
    }
}

/// L1.
#[derive(Debug, Clone, PartialEq)]
pub struct Memory {
    /// Bytes for everything that is stored, bookkeeping included.
    pub size: u64,
    /// Bytes; a larger response passes through unstored.
    pub max_body: u64,
    /// The longest time after its arrival that a response counts as fresh in L1. `None`: as long as it is.
    pub max_ttl: Option<Duration>,
    pub eviction: Eviction,
    /// Bytes for what later versions of assets are compressed against, beside `size`.
    pub dictionaries: u64,
}

/// What has to go when L1 is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eviction {
    /// What was not asked for again soon after it came, then the oldest: a scan does not push out what is in use.
    S3Fifo,
    /// What was not asked for the longest.
    Lru,
    /// What is asked for least.
    Lfu,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    pub level: Level,
    /// `None`: no access log.
    pub access: Option<AccessLog>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Debug, Clone, PartialEq)]
pub struct AccessLog {
    pub format: AccessFormat,
    pub path: LogPath,
    /// Share of requests that are logged, 0.0 to 1.0; errors and slow requests always are.
    pub sample: f64,
    /// A request that takes longer is logged at `warn`. `None`: none is slow.
    pub slow: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessFormat {
    Json,
    Combined,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogPath {
    Stdout,
    Stderr,
    File(PathBuf),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    /// At least 1; `auto` is the number of cores.
    pub threads: usize,
    /// Between SIGTERM and the end of accepting: `/readyz` fails, everything else works.
    pub shutdown_delay: Duration,
    /// How long open requests may take to finish.
    pub shutdown_grace: Duration,
    /// The same for event streams and WebSockets.
    pub stream_grace: Duration,
}
