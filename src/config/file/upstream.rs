use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{self, IntoDeserializer};

use super::limit::FileInFlight;
use super::scalar::{
    DurationOrNever, DurationText, HashKey, Percentage, SizeText, SocketText, SourceText, StatusRange,
};
use super::shape::{List, Short, ShortOr};
use super::{FileCertificate, TlsVersionName};

/// A named pool of servers.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileUpstream {
    /// Addresses, or mappings with an `address` and more.
    pub servers: Option<List<ShortOr<FileServer>>>,
    /// A file with a server in each line, watched; instead of `servers` or beside them.
    pub servers_file: Option<String>,
    /// What is sent as `Host`: `keep` for the client's own, or a name. Default: keep.
    pub host: Option<String>,
    /// Speak TLS to the servers. Default: plain HTTP.
    pub tls: Option<FileUpstreamTls>,
    /// Speak HTTP/2: by ALPN with TLS, by prior knowledge without. Default: false.
    pub http2: Option<bool>,
    /// How a server is chosen. Default: round_robin.
    pub balance: Option<BalanceName>,
    /// What `balance: hash` looks at.
    pub hash_key: Option<HashKey>,
    /// Tell servers the client's address by a PROXY protocol header. Connections are not shared then. Default: no header.
    pub proxy_protocol: Option<ProxyVersionName>,
    /// Keep a client at its server.
    pub sticky: Option<FileSticky>,
    /// How long a server that comes back gets less than its share. Default: 0s.
    pub slow_start: Option<DurationText>,
    /// How often names are looked up again. Default: 30s.
    pub dns_refresh: Option<DurationText>,
    /// Name servers to ask, with their ports. Default: the system's.
    pub dns_servers: Option<List<SocketText>>,
    /// Requests that may wait while every server has as many as its `max_connections`. Default: 1000.
    pub queue: Option<u32>,
    /// How long they wait. Default: 5s.
    pub queue_timeout: Option<DurationText>,
    /// Idle connections kept open, for each server. Default: 32.
    pub keepalive: Option<u32>,
    /// How long a connection may be idle; shorter than the app's own limit. Default: 4s.
    pub keepalive_idle: Option<DurationText>,
    /// How many requests to all its servers may be in flight at once. Default: any number.
    pub concurrency: Option<FileInFlight>,
    /// How long a server may take.
    pub timeouts: Option<FileTimeouts>,
    /// Ask servers whether they are well. Default: they are not asked.
    pub health_check: Option<FileHealthCheck>,
    /// Leave out servers that fail. Default: none is left out.
    pub outlier: Option<FileOutlier>,
    /// Stop asking an upstream that fails. Default: it is always asked.
    pub circuit_breaker: Option<FileCircuitBreaker>,
    /// Try again where that is safe. Default: never.
    pub retry: Option<FileRetry>,
}

/// One server of an upstream.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileServer {
    /// A host with a port, `unix:` with a path, or `srv:` with the name of a service.
    #[schemars(required)]
    pub address: Option<SourceText>,
    /// Share of requests relative to the others. Default: 1.
    pub weight: Option<u32>,
    /// Requests at once, streams and WebSockets included; more wait in the `queue`. Default: any number.
    pub max_connections: Option<u32>,
    /// Used only when no other server is left. Default: false.
    pub backup: Option<bool>,
}

impl Short for FileServer {
    const EXPECTED: &'static str = "a host and a port, or a mapping with `address`";

    fn from_text<E: de::Error>(text: &str) -> Result<Self, E> {
        Ok(Self {
            address: Some(SourceText::deserialize(text.into_deserializer())?),
            ..Self::default()
        })
    }
}

impl JsonSchema for ShortOr<FileServer> {
    fn schema_name() -> Cow<'static, str> {
        "FileServerOrAddress".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [generator.subschema_for::<SourceText>(), generator.subschema_for::<FileServer>()]
        })
    }
}

/// How a server is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BalanceName {
    RoundRobin,
    LeastConnections,
    LeastTime,
    Random,
    ClientIp,
    Hash,
}

/// TLS towards servers.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileUpstreamTls {
    /// Sent as SNI and verified. Default: the name in `host`, or the one that all servers share.
    pub server_name: Option<String>,
    /// PEM file of the authorities to trust. Default: those of the system.
    pub ca: Option<String>,
    /// Check the certificate's chain and name. Default: true.
    pub verify: Option<bool>,
    /// The oldest version that servers may use. Default: tls1.2.
    pub min_version: Option<TlsVersionName>,
    /// Shown to servers that ask for a certificate. Default: none.
    pub certificate: Option<FileCertificate>,
}

/// How long a server may take, by step.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileTimeouts {
    /// Until the connection stands, TLS included. Default: 10s.
    pub connect: Option<DurationText>,
    /// From the request's end to the first byte of the response. Default: 30s.
    pub first_byte: Option<DurationOrNever>,
    /// Between two reads of a response body. Default: 30s.
    pub between_bytes: Option<DurationOrNever>,
    /// Between two writes of a request that made progress. Default: 30s.
    pub send: Option<DurationOrNever>,
}

/// Keep a client at its server by a cookie.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileSticky {
    /// The cookie's name.
    #[schemars(required)]
    pub cookie: Option<String>,
    /// Default: as long as the browser runs.
    pub ttl: Option<DurationText>,
    /// Send the cookie over HTTPS only. Default: true.
    pub secure: Option<bool>,
    /// Which requests from other sites bring it along. Default: lax.
    pub same_site: Option<SameSiteName>,
    /// Default: /.
    pub path: Option<String>,
    /// Signs the cookie; the same on every instance. Empty: made at start.
    pub secret: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SameSiteName {
    Lax,
    Strict,
    None,
}

/// The form of the PROXY protocol header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProxyVersionName {
    V1,
    V2,
}

/// Ask servers whether they are well.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileHealthCheck {
    /// Asked for by GET. Default: none, a connection is enough.
    pub path: Option<String>,
    /// What is sent as `Host`. Default: the name in the upstream's `host`, or the server's address.
    pub host: Option<String>,
    /// Statuses and ranges of them. Default: 200.
    pub expect_status: Option<List<StatusRange>>,
    /// Has to be in the first 64 KiB of the body. Default: the body does not matter.
    pub expect_body: Option<String>,
    /// Default: 5s.
    pub interval: Option<DurationText>,
    /// Default: 3s.
    pub timeout: Option<DurationText>,
    /// Failures until a server is left out. Default: 3.
    pub unhealthy_threshold: Option<u32>,
    /// Successes until it is used again. Default: 2.
    pub healthy_threshold: Option<u32>,
    /// Use servers that have not been checked yet. Default: true.
    pub allow_unchecked: Option<bool>,
}

/// Leave out servers that fail.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileOutlier {
    /// Default: 5.
    pub consecutive_failures: Option<u32>,
    /// The first time; longer each time after. Default: 30s.
    pub eject_for: Option<DurationText>,
    /// However often it was left out. Default: 5m.
    pub max_eject_for: Option<DurationText>,
    /// Share of servers that may be left out at once. Default: 50%.
    pub max_ejected: Option<Percentage>,
}

/// Stop asking an upstream that fails.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileCircuitBreaker {
    /// Failures in a row until it is not asked. Default: 5.
    pub failure_threshold: Option<u32>,
    /// Share of failures among the requests in `window` until it is not asked. Default: 50%.
    pub failure_share: Option<Percentage>,
    /// Default: 10s.
    pub window: Option<DurationText>,
    /// Requests in `window` below which their share says nothing. Default: 20.
    pub min_requests: Option<u32>,
    /// Successes until it is asked for everything again. Default: 3.
    pub success_threshold: Option<u32>,
    /// Default: 30s.
    pub open_for: Option<DurationText>,
}

/// Try again where that is safe.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileRetry {
    /// Default: 3.
    pub retries: Option<u32>,
    /// Before the first retry. Default: 50ms.
    pub delay: Option<DurationText>,
    /// Default: 2s.
    pub max_delay: Option<DurationText>,
    /// What the delay grows by each time. Default: 2.
    pub factor: Option<f64>,
    /// Share of requests that may be retries. Default: 20%.
    pub budget: Option<Percentage>,
    /// Default: 502, 503 and 504.
    pub statuses: Option<List<u16>>,
    /// For all attempts at a request together. Default: twice `timeouts.first_byte`.
    pub max_time: Option<DurationText>,
    /// Request bodies up to this size are held, so that they can be sent again. Default: 64KiB.
    pub max_body: Option<SizeText>,
}
