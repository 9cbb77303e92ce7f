//! Upstreams, resolved.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{Certificate, HealthCheck, Secret, TlsVersion, defaults};
use crate::upstream::breaker::BreakerPolicy;
use crate::upstream::outlier::OutlierPolicy;
use crate::upstream::retry::RetryPolicy;

/// A named pool of servers.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    pub name: Arc<str>,
    /// At least one, or there is a `servers_file`.
    pub servers: Vec<UpstreamServer>,
    /// A file with further servers, which may change at any time.
    pub servers_file: Option<PathBuf>,
    pub dns: Dns,
    pub host: HostPolicy,
    /// `None`: plain HTTP.
    pub tls: Option<UpstreamTls>,
    /// Speak HTTP/2: by ALPN with TLS, by prior knowledge without.
    pub http2: bool,
    pub balance: Balance,
    /// `None`: clients are not kept at their servers.
    pub sticky: Option<Sticky>,
    /// Speak to servers of the client's address before anything else. Connections then have one client each, and one request.
    pub proxy_protocol: Option<ProxyVersion>,
    /// Over how long a server that comes back gets its share. Zero: it has it at once.
    pub slow_start: Duration,
    /// Requests that may wait while all servers have as many as they may.
    pub queue: usize,
    /// How long they wait.
    pub queue_timeout: Duration,
    /// Idle connections kept open, per server.
    pub keepalive: usize,
    /// How long a connection may be idle before it is closed; shorter than the app's own limit.
    pub keepalive_idle: Duration,
    pub timeouts: Timeouts,
    /// `None`: servers are not asked whether they are well.
    pub health_check: Option<HealthCheck>,
    /// `None`: no server is left out for its failures.
    pub outlier: Option<OutlierPolicy>,
    /// `None`: the upstream is asked whatever happens.
    pub circuit_breaker: Option<BreakerPolicy>,
    /// `None`: only what has not reached a server is sent again.
    pub retry: Option<Retry>,
}

/// What is sent again.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    pub policy: RetryPolicy,
    /// Bytes of a request body that are held so that it can be.
    pub max_body: usize,
}

impl Upstream {
    /// Whether connections that were made under `other` can be used under this.
    pub fn connects_like(&self, other: &Self) -> bool {
        let how = |upstream: &Self| {
            let Timeouts { connect, .. } = upstream.timeouts;
            (upstream.http2, connect, upstream.keepalive, upstream.keepalive_idle)
        };
        self.tls == other.tls && self.proxy_protocol == other.proxy_protocol && how(self) == how(other)
    }

    /// These servers, and the default of everything else.
    pub fn new(name: &str, servers: Vec<UpstreamServer>) -> Self {
        Self {
            name: name.into(),
            servers,
            servers_file: None,
            dns: Dns::default(),
            host: HostPolicy::Keep,
            tls: None,
            http2: false,
            balance: Balance::RoundRobin,
            sticky: None,
            proxy_protocol: None,
            slow_start: Duration::ZERO,
            queue: defaults::QUEUE as usize,
            queue_timeout: defaults::QUEUE_TIMEOUT,
            keepalive: defaults::KEEPALIVE as usize,
            keepalive_idle: defaults::KEEPALIVE_IDLE,
            timeouts: Timeouts {
                connect: defaults::CONNECT,
                first_byte: Some(defaults::FIRST_BYTE),
                between_bytes: Some(defaults::BETWEEN_BYTES),
                send: Some(defaults::SEND),
            },
            health_check: None,
            outlier: None,
            circuit_breaker: None,
            retry: None,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamServer {
    pub address: ServerSource,
    /// Share of requests relative to the others, at least 1.
    pub weight: u32,
    pub role: Role,
    /// Requests at once, streams and WebSockets included. `None`: any number.
    pub max_connections: Option<u32>,
}

impl UpstreamServer {
    /// A share beyond this against a server of weight 1 is a server switched off.
    pub const MAX_WEIGHT: u32 = 65_535;

    /// One that is like the others.
    pub fn new(address: ServerAddress) -> Self {
        Self {
            address: ServerSource::Address(address),
            weight: 1,
            role: Role::Main,
            max_connections: None,
        }
    }
}

/// When a server is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Main,
    /// Only while no main server can be.
    Backup,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ServerAddress {
    /// A name or IP literal (without brackets) and a port.
    Tcp {
        host: String,
        port: u16,
    },
    Unix(PathBuf),
}

/// Where servers are found.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ServerSource {
    /// One server, or where the host is a name as many as it has addresses.
    Address(ServerAddress),
    /// Those of a service's SRV records (RFC 2782), with ports, weights and priorities.
    Srv(String),
}

/// How names are resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// How often they are looked up again.
    pub refresh: Duration,
    /// Who is asked. Empty: the system's name servers.
    pub servers: Vec<SocketAddr>,
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            refresh: defaults::DNS_REFRESH,
            servers: Vec::new(),
        }
    }
}

/// What is sent as `Host` to the upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPolicy {
    /// The client's own.
    Keep,
    /// This name, with a port if it has one.
    Send(String),
}

#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamTls {
    /// Sent as SNI, and verified. Never empty.
    pub server_name: String,
    /// PEM file of the authorities to trust. `None`: those of the system.
    pub ca: Option<PathBuf>,
    pub verify: Verify,
    pub min_version: TlsVersion,
    /// What we show to servers that ask who we are. `None`: nothing.
    pub certificate: Option<Certificate>,
}

/// The form of the PROXY protocol header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// A cookie that brings a client back to its server.
#[derive(Debug, Clone, PartialEq)]
pub struct Sticky {
    pub cookie: String,
    /// `None`: as long as the browser runs.
    pub ttl: Option<Duration>,
    /// Over HTTPS only.
    pub secure: bool,
    pub same_site: SameSite,
    pub path: String,
    /// `None`: made at start.
    pub secret: Option<Secret>,
}

/// Which requests from other sites bring the cookie along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SameSite {
    /// Those that follow a link.
    Lax,
    Strict,
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// Chain and name are checked.
    Certificate,
    /// Nothing is checked: any machine in between can read and change everything.
    Nothing,
}

/// How a server is chosen; always by weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Balance {
    /// One after the other.
    RoundRobin,
    /// Who has the fewest requests under way.
    LeastConnections,
    /// Of two drawn at random, who answers sooner.
    LeastTime,
    /// Of two drawn at random, who has less to do.
    Random,
    /// The same for all requests of a client.
    ClientIp,
    /// The same for all requests with the same value of this.
    Hash(HashKey),
}

/// What of a request is hashed. Requests without it are balanced in turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    Path,
    /// Lower-case name of a field.
    Header(String),
    Cookie(String),
    /// Name of a query parameter.
    Query(String),
}

/// How long an upstream may take, by step.
#[derive(Debug, Clone, PartialEq)]
pub struct Timeouts {
    pub connect: Duration,
    /// From the request's end to the first byte of the response. `None`: unlimited.
    pub first_byte: Option<Duration>,
    /// Between two reads of a response body. `None`: unlimited.
    pub between_bytes: Option<Duration>,
    /// Between two writes of a request that made progress. `None`: unlimited.
    pub send: Option<Duration>,
}

impl fmt::Display for ServerSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Srv(name) => write!(f, "srv:{name}"),
        }
    }
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RoundRobin => f.write_str("round_robin"),
            Self::LeastConnections => f.write_str("least_connections"),
            Self::LeastTime => f.write_str("least_time"),
            Self::Random => f.write_str("random"),
            Self::ClientIp => f.write_str("client_ip"),
            Self::Hash(HashKey::Path) => f.write_str("hash of the path"),
            Self::Hash(HashKey::Header(name)) => write!(f, "hash of header {name}"),
            Self::Hash(HashKey::Cookie(name)) => write!(f, "hash of cookie {name}"),
            Self::Hash(HashKey::Query(name)) => write!(f, "hash of query parameter {name}"),
        }
    }
}
