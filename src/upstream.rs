//! The backends: which server gets a request, and the connections to it.

pub mod balance;
pub mod connect;
mod failure;
pub mod http1;
pub mod http2;
pub mod origin;
pub mod pool;
pub mod tls;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrayvec::ArrayVec;

pub use self::connect::ConnectError;
pub use self::origin::{Origin, OriginError};

use self::balance::Balancer;
use self::connect::Connector;
use self::http2::Http2Connections;
use self::pool::Pool;
use crate::config;
use crate::metrics::{Metrics, ServerMetrics, UpstreamMetrics};
use crate::tls::{Alpn, TlsConfigError};

/// A pool of servers as it is used by requests: the configuration and what changes while it runs.
pub struct Upstream {
    config: config::Upstream,
    servers: Vec<Arc<Server>>,
    balancer: Balancer,
    pub metrics: Arc<UpstreamMetrics>,
}

/// One backend.
pub struct Server {
    /// As it stands in the configuration: for logs and metrics, never for clients.
    pub label: Arc<str>,
    pub weight: u32,
    pub metrics: Arc<ServerMetrics>,
    /// Exchanges under way, streams and WebSockets included.
    open: AtomicUsize,
    connector: Connector,
    idle: Pool,
    http2: Http2Connections,
}

/// One exchange with a server, counted while it is under way.
pub struct OpenExchange(Arc<Server>);

impl OpenExchange {
    fn new(server: &Arc<Server>) -> Self {
        server.open.fetch_add(1, Ordering::Relaxed);
        Self(server.clone())
    }

    pub fn server(&self) -> &Arc<Server> {
        &self.0
    }
}

impl Drop for OpenExchange {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for OpenExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OpenExchange").field(&self.0.label).finish()
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream")
            .field("name", &self.config.name)
            .finish_non_exhaustive()
    }
}

/// Connections may be taken from the pool, or have to be new because a pooled one has just failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    Pooled,
    Fresh,
}

/// Servers that one request has tried in vain. More than this many are not tried.
#[derive(Debug, Default)]
pub struct Tried(ArrayVec<usize, 8>);

impl Tried {
    fn contains(&self, index: usize) -> bool {
        self.0.contains(&index)
    }

    fn is_full(&self) -> bool {
        self.0.is_full()
    }
}

impl Upstream {
    /// # Errors
    /// Says which file of the TLS configuration cannot be used.
    pub fn new(config: &config::Upstream, metrics: &Metrics) -> Result<Self, TlsConfigError> {
        let metrics = metrics.upstream(&config.name);
        let mut servers = Vec::with_capacity(config.servers.len());
        for server in &config.servers {
            let label: Arc<str> = server.address.to_string().into();
            servers.push(Arc::new(Server {
                metrics: metrics.server(&label),
                label,
                weight: server.weight,
                open: AtomicUsize::new(0),
                connector: Connector::new(&server.address, config)?,
                idle: Pool::new(config.keepalive, config.keepalive_idle),
                http2: Http2Connections::default(),
            }));
        }
        let weights = config.servers.iter().map(|server| server.weight);
        Ok(Self {
            balancer: Balancer::new(config.balance, weights),
            config: config.clone(),
            servers,
            metrics,
        })
    }

    pub fn config(&self) -> &config::Upstream {
        &self.config
    }

    /// Connects to a server that `tried` does not name, and adds to it each one that cannot be reached.
    ///
    /// A request that found no connection has not reached anybody, so it may go to another server whatever its method is.
    ///
    /// # Errors
    /// The last server's, when all have been tried.
    pub async fn connect(&self, tried: &mut Tried, reuse: Reuse) -> Result<Origin, ConnectError> {
        let mut last = None;
        while let Some(index) = self.balancer.choose(&self.servers, |index| tried.contains(index)) {
            let Some(server) = self.servers.get(index) else { break };
            let open = OpenExchange::new(server);
            match self.connect_to(server, open, reuse).await {
                Ok(origin) => return Ok(origin),
                Err(error) => {
                    server.metrics.outcome(error.outcome());
                    tracing::warn!(upstream = &*self.config.name, server = &*server.label, %error, "cannot connect");
                    last = Some(error);
                }
            }
            if tried.is_full() {
                break;
            }
            tried.0.push(index);
        }
        Err(last.unwrap_or(ConnectError::NoServer))
    }

    async fn connect_to(&self, server: &Arc<Server>, open: OpenExchange, reuse: Reuse) -> Result<Origin, ConnectError> {
        if reuse == Reuse::Pooled
            && let Some(io) = server.idle.take()
        {
            return Ok(Origin::http1(io, open, Reuse::Pooled));
        }
        let (requests, stream) = match self.config.http2 {
            true => match server.http2.with_room().await {
                Some(shared) => shared,
                None => match server.connector.connect().await? {
                    // The server was asked for HTTP/2 and prefers HTTP/1.1.
                    (io, Some(Alpn::Http1)) => return Ok(Origin::http1(io, open, Reuse::Fresh)),
                    (io, _) => server.http2.open(io).await?,
                },
            },
            false => {
                let (io, _) = server.connector.connect().await?;
                return Ok(Origin::http1(io, open, Reuse::Fresh));
            }
        };
        Ok(Origin::http2(requests, stream, open))
    }

    /// Closes connections that have been idle for too long.
    pub fn sweep(&self) {
        for server in &self.servers {
            server.idle.sweep();
            server.http2.sweep(self.config.keepalive_idle);
        }
    }
}

impl Server {
    /// Exchanges under way.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Keeps a connection on which a request and its response have come to a clean end.
    pub fn keep(&self, io: Box<dyn crate::io::Duplex>) {
        self.idle.put(io);
    }
}

impl fmt::Display for config::ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
