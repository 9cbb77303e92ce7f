//! One backend, and what is counted of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use super::connect::Connector;
use super::health::{ServerHealth, Trial};
use super::http2::Http2Connections;
use super::load::Load;
use super::opening::Opening;
use super::pool::Pool;
use super::tls::UpstreamTlsConnector;
use super::{ConnectError, Member, Transport, Upstream};
use crate::config::{self, ServerAddress, Unchecked};
use crate::metrics::{Outcome, ServerMetrics, UpstreamMetrics};

/// One backend. It outlives changes of the configuration and of name records that leave it where it is.
pub struct Server {
    pub id: ServerId,
    /// Its address: for logs and metrics, never for clients.
    pub label: Arc<str>,
    pub address: ServerAddress,
    pub health: Arc<ServerHealth>,
    pub metrics: Arc<ServerMetrics>,
    pub load: Arc<Load>,
    pub(super) connector: Connector,
    pub(super) idle: Pool,
    pub(super) http2: Http2Connections,
    pub(super) opening: Opening,
}

/// Tells servers of one upstream apart, whatever becomes of their number and order: made of the address, so that it is the same in
/// every process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerId(pub u64);

/// What came of an attempt at a server. An attempt that gets a response is told twice: when the response's head is there, and when
/// all of it is through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The head of a final response came in at this time, this long after its request was begun.
    Response {
        status: u16,
        latency: Duration,
        at: Instant,
    },
    /// Nothing more will come, and nobody gets anything of it: the request goes on to another server, or its end is told to
    /// [`Passage`](super::Passage).
    Failed(Outcome),
    /// Nothing more will come of a response that was passed on or stored. What `Response` has told of is not told again in other
    /// words: after it, [`Outcome::ServerError`] only repeats its status.
    Ended(Outcome),
}

impl Server {
    /// `before`: the same server as it was under another configuration, to which it was connected in another way.
    pub(super) fn new(
        address: &ServerAddress,
        config: &config::Upstream,
        tls: Option<UpstreamTlsConnector>,
        metrics: &UpstreamMetrics,
        before: Option<&Self>,
    ) -> Self {
        let label: Arc<str> = address.to_string().into();
        let health = match before {
            Some(before) => before.health.clone(),
            None => {
                let health = ServerHealth::default();
                if config
                    .health_check
                    .as_ref()
                    .is_some_and(|check| check.unchecked == Unchecked::LeaveOut)
                {
                    health.await_probe();
                }
                Arc::new(health)
            }
        };
        Self {
            id: ServerId(xxh3_64(label.as_bytes())),
            metrics: metrics.server(&label),
            label,
            address: address.clone(),
            health,
            load: before.map(|before| before.load.clone()).unwrap_or_default(),
            connector: Connector::new(address, config, tls),
            idle: match config.proxy_protocol {
                None => Pool::new(config.keepalive, config.keepalive_idle),
                // A connection is one client's.
                Some(_) => Pool::new(0, config.keepalive_idle),
            },
            http2: Http2Connections::default(),
            opening: Opening::default(),
        }
    }

    /// It is no longer among the servers: what it has under way goes on, but nothing is kept for later.
    pub(super) fn retire(&self) {
        self.idle.close();
        self.http2.close();
    }

    /// Keeps a connection on which a request and its response have come to a clean end, then.
    pub fn keep(&self, io: Transport, since: Instant) {
        self.idle.put(io, since);
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("label", &self.label)
            .finish_non_exhaustive()
    }
}

/// One exchange with a server, counted while it is under way.
pub struct OpenExchange {
    upstream: Arc<Upstream>,
    server: Arc<Server>,
    trial: Trial,
}

impl OpenExchange {
    /// `None`: the server has as many as it may.
    pub(super) fn begin(upstream: &Arc<Upstream>, member: &Member) -> Option<Self> {
        let server = &member.server;
        let trial = server.health.begin();
        if trial == Trial::Another {
            return None;
        }
        if !server.load.enter(member.max_connections) {
            if trial == Trial::This {
                server.health.end_trial();
            }
            return None;
        }
        Some(Self {
            upstream: upstream.clone(),
            server: server.clone(),
            trial,
        })
    }

    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// Tells what came of it.
    pub fn record(&self, event: Event) {
        self.upstream.record(&self.server, event);
    }
}

impl Drop for OpenExchange {
    fn drop(&mut self) {
        self.server.load.leave();
        if self.trial == Trial::This {
            self.server.health.end_trial();
        }
        self.upstream.admit();
    }
}

impl fmt::Debug for OpenExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OpenExchange").field(&self.server.label).finish()
    }
}

impl From<&ConnectError> for Event {
    fn from(error: &ConnectError) -> Self {
        Self::Failed(error.outcome())
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
