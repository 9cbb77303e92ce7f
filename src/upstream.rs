//! The backends: which server gets a request, and the connections to it.

pub mod balance;
pub mod connect;
mod failure;
pub mod health;
pub mod http1;
pub mod http2;
pub mod origin;
pub mod pool;
mod selection;
mod server;
pub mod tls;
mod upkeep;
mod zone;

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

pub use self::connect::ConnectError;
pub use self::origin::{Origin, OriginError};
pub use self::selection::{Selection, Tried};
pub use self::server::{Event, OpenExchange, Server, ServerId};
pub use self::zone::{Member, Zone};

use self::balance::Turns;
use self::upkeep::Upkeep;
use crate::config;
use crate::metrics::{Metrics, UpstreamMetrics};
use crate::tls::{Alpn, TlsConfigError};

/// A pool of servers as it is used by requests: the configuration and what changes while it runs.
pub struct Upstream {
    config: config::Upstream,
    /// What requests choose from.
    zone: ArcSwap<Zone>,
    /// What zones are made of. Held while one is made, so that an older one does not take the place of a newer.
    members: Mutex<Vec<Member>>,
    turns: Turns,
    upkeep: Upkeep,
    pub metrics: Arc<UpstreamMetrics>,
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

impl Upstream {
    /// # Errors
    /// Says which file of the TLS configuration cannot be used.
    pub fn new(config: &config::Upstream, metrics: &Metrics) -> Result<Self, TlsConfigError> {
        let metrics = metrics.upstream(&config.name);
        let mut members = Vec::with_capacity(config.servers.len());
        for server in &config.servers {
            members.push(Member {
                server: Arc::new(Server::new(&server.address, config, &metrics)?),
                weight: server.weight,
            });
        }
        Ok(Self {
            zone: ArcSwap::from_pointee(Zone::new(config.balance, members.clone())),
            members: Mutex::new(members),
            turns: Turns::default(),
            upkeep: Upkeep::default(),
            config: config.clone(),
            metrics,
        })
    }

    pub fn config(&self) -> &config::Upstream {
        &self.config
    }

    /// The servers as they are now.
    pub fn zone(&self) -> Arc<Zone> {
        self.zone.load_full()
    }

    /// Lays the servers out anew. To be called whenever the health of one has changed; not by requests, for which it is too dear.
    pub fn refresh(&self) {
        let members = self.members.lock();
        self.zone
            .store(Arc::new(Zone::new(self.config.balance, members.clone())));
    }

    /// What came of an attempt at one of the servers: the one place where all of them are told.
    pub fn record(&self, server: &Server, event: Event) {
        match event {
            Event::Response { latency, .. } => self.metrics.duration(latency),
            Event::Ended(outcome) => server.metrics.outcome(outcome),
        }
    }

    /// Connects to a server that `tried` does not name, and adds to it each one that cannot be reached.
    ///
    /// A request that found no connection has not reached anybody, so it may go to another server whatever its method is.
    ///
    /// # Errors
    /// The last server's, when all have been tried.
    pub async fn connect(
        self: &Arc<Self>,
        tried: &mut Tried,
        reuse: Reuse,
        selection: &Selection,
    ) -> Result<Origin, ConnectError> {
        let mut last = None;
        while let Some(open) = self.choose(selection, tried) {
            let server = open.server().clone();
            match self.connect_to(&server, open, reuse).await {
                Ok(origin) => return Ok(origin),
                Err(error) => {
                    self.record(&server, Event::from(&error));
                    tracing::warn!(upstream = &*self.config.name, server = &*server.label, %error, "cannot connect");
                    last = Some(error);
                }
            }
            if tried.is_full() {
                break;
            }
            tried.add(server.id);
        }
        Err(last.unwrap_or(ConnectError::NoServer))
    }

    fn choose(self: &Arc<Self>, selection: &Selection, tried: &Tried) -> Option<OpenExchange> {
        let zone = self.zone.load();
        let member = zone.choose(selection, tried, self.turns.next())?;
        Some(OpenExchange::new(self, &member.server))
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
    fn sweep(&self) {
        for member in self.zone.load().members() {
            member.server.idle.sweep();
            member.server.http2.sweep(self.config.keepalive_idle);
        }
    }
}
