//! The file as it is typed: every key, each optional, and nothing decided yet. `resolve` turns it into a
//! [`Config`](super::Config).
//!
//! The JSON Schema is made from these types and their doc comments.

mod cache;
mod limit;
mod read;
mod route;
pub mod scalar;
mod schema;
pub mod shape;
mod upstream;

use schemars::JsonSchema;
use serde::Deserialize;

pub use cache::{EvictionName, FileCache, FileInvalidate, FileRedis, FileWarm, FileWarmSource, WriteName};
pub use limit::{
    FileAdaptive, FileConcurrency, FileExempt, FileInFlight, FileLimits, FilePerClient, FileRateLimit, FileRateLimits,
    LimitStoreName,
};
pub use read::read;
pub use route::{
    AuthenticatedName, CodingName, CookieKey, FileCachePolicy, FileCompression, FileDefaults, FileKey, FileLevels,
    FileMatch, FilePolicies, FilePurge, FileQueryKey, FileRefreshAhead, FileRequestEdits, FileResponseEdits, FileRoute,
    RequestDirectivesName, SetCookieName, TagFieldsName,
};
use scalar::{Cidr, DurationOrNever, DurationText, ListenText, Percentage, SocketText, Threads, UpstreamText};
pub use schema::schema;
use shape::{List, Map, Switch};
pub use upstream::{
    BalanceName, FileCircuitBreaker, FileHealthCheck, FileOutlier, FileRetry, FileServer, FileSticky, FileUpstream,
    ProxyVersionName, SameSiteName,
};

/// Configuration of Forebay, a caching reverse proxy.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Forebay")]
pub struct FileConfig {
    /// Short form of `listeners`: the address of one listener for plain HTTP.
    pub listen: Option<ListenText>,
    /// Short form of `upstreams`: the URL of one server, as the upstream `default`.
    pub upstream: Option<UpstreamText>,
    /// Where clients are accepted.
    pub listeners: Option<List<FileListener>>,
    /// Who may tell us the client's address, by forwarding fields or the PROXY protocol. Default: nobody.
    pub trusted_proxies: Option<List<Cidr>>,
    /// Named pools of servers.
    pub upstreams: Option<Map<FileUpstream>>,
    /// What is stored, and where.
    pub cache: Option<FileCache>,
    /// Policies for every route that does not say otherwise.
    pub defaults: Option<FileDefaults>,
    /// What is done with which requests; the first match wins. With one upstream, what matches no route goes to it;
    /// with several it gets 404.
    pub routes: Option<List<FileRoute>>,
    /// Limits of what clients may have in a time. Default: none.
    pub rate_limits: Option<FileRateLimits>,
    /// How many requests may be in flight at once; hits, streams and WebSockets are not counted. Default: any number.
    pub concurrency: Option<FileConcurrency>,
    /// The listener for `/metrics`, `/healthz` and `/readyz`.
    pub metrics: Option<Switch<FileMetrics>>,
    /// The listener for purging and inspection. Default: none.
    pub admin: Option<FileAdmin>,
    /// What is logged.
    pub log: Option<FileLog>,
    /// Where traces are sent. Default: nowhere.
    pub tracing: Option<FileTracing>,
    /// The process.
    pub server: Option<FileProcess>,
}

/// One address at which clients are accepted.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileListener {
    /// An IP address with a port, or `unix:` with a path.
    #[schemars(required)]
    pub address: Option<ListenText>,
    /// Answer every request with a redirect to the same URL with `https`. Default: false.
    pub redirect_to_https: Option<bool>,
    /// Offer HTTP/2: by ALPN with TLS, by prior knowledge without. Default: true with TLS, false without.
    pub http2: Option<bool>,
    /// Expect a PROXY protocol header (v1 or v2) from `trusted_proxies`. Default: false.
    pub proxy_protocol: Option<bool>,
    /// Serve HTTPS. Default: plain HTTP.
    pub tls: Option<FileListenerTls>,
}

/// TLS towards clients.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileListenerTls {
    /// Chosen by SNI; the first serves clients whose SNI matches none. Changed files are taken up without a restart.
    #[schemars(required)]
    pub certificates: Option<List<FileCertificate>>,
    /// The oldest version that clients may use. Default: tls1.2.
    pub min_version: Option<TlsVersionName>,
    /// Tell browsers for how long to use HTTPS only (Strict-Transport-Security). Default: they are not told.
    pub hsts: Option<DurationText>,
}

/// A certificate chain and its private key.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileCertificate {
    /// PEM file of the chain, the server's own certificate first.
    #[schemars(required)]
    pub cert: Option<String>,
    /// PEM file of the private key.
    #[schemars(required)]
    pub key: Option<String>,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum TlsVersionName {
    #[serde(rename = "tls1.2")]
    Tls12,
    #[serde(rename = "tls1.3")]
    Tls13,
}

/// The listener for `/metrics`, `/healthz` and `/readyz`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileMetrics {
    /// Default: 127.0.0.1:9190.
    pub listen: Option<SocketText>,
}

/// The listener for purging and inspection.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileAdmin {
    /// Beyond loopback a token is a must.
    #[schemars(required)]
    pub listen: Option<SocketText>,
    /// A file that holds the bearer token; read again on a reload.
    pub token_file: Option<String>,
    /// The bearer token, best from the environment.
    pub token: Option<String>,
}

/// What is logged.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileLog {
    /// Default: info.
    pub level: Option<LevelName>,
    /// One line for each request.
    pub access: Option<Switch<FileAccessLog>>,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LevelName {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// The access log.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileAccessLog {
    /// Default: json.
    pub format: Option<AccessFormatName>,
    /// `stdout`, `stderr` or a file. Default: stdout.
    pub path: Option<String>,
    /// Share of requests that are logged; errors and slow requests always are. Default: 100%.
    pub sample: Option<Percentage>,
    /// A request that takes longer is logged at `warn`. Default: 1s.
    pub slow: Option<DurationOrNever>,
}

/// The form of a line in the access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AccessFormatName {
    Json,
    Combined,
}

/// Where traces are sent.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileTracing {
    /// An OTLP endpoint, by URL.
    #[schemars(required)]
    pub otlp: Option<String>,
    /// Share of requests that are traced. Default: 10%.
    pub sample: Option<Percentage>,
}

/// The process.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileProcess {
    /// Worker threads, and as many for connections whose requests are all answered at once. Default: auto, the number of cores.
    pub threads: Option<Threads>,
    /// Between SIGTERM and the end of accepting: `/readyz` fails, everything else works. Default: 0s.
    pub shutdown_delay: Option<DurationText>,
    /// How long open requests may take to finish. Default: 30s.
    pub shutdown_grace: Option<DurationText>,
    /// The same for event streams and WebSockets. Default: 300s.
    pub stream_grace: Option<DurationText>,
}
