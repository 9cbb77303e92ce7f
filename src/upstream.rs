//! The backends: which server gets a request, and the connections to it.

mod alive;
pub mod balance;
pub mod breaker;
pub mod connect;
mod discovery;
mod failure;
pub mod health;
pub mod http1;
pub mod http2;
mod judge;
mod load;
mod opening;
pub mod origin;
pub mod outlier;
mod passage;
pub mod pool;
mod probe;
mod proxy_header;
mod queue;
pub mod retry;
mod ring;
mod selection;
mod server;
pub mod sticky;
pub mod tls;
pub mod transport;
mod upkeep;
mod window;
mod zone;

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::time::Instant;

pub use self::connect::ConnectError;
pub use self::origin::{Origin, OriginError};
pub use self::passage::{NO_SERVER_RETRY_AFTER, Passage};
pub use self::selection::{Selection, Tried};
pub use self::server::{Event, OpenExchange, Server, ServerId};
pub use self::transport::Transport;
pub use self::zone::{Choice, Member, Zone};

use self::balance::{Turn, Turns};
use self::breaker::Breaker;
use self::discovery::Discovery;
use self::opening::Opened;
use self::queue::{Offer, Queue};
use self::retry::{Budget, RetryPolicy};
use self::sticky::Sticky;
use self::tls::UpstreamTlsConnector;
use self::upkeep::Upkeep;
use crate::clock::Clock;
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
    queue: Queue,
    discovery: Discovery,
    tls: Option<UpstreamTlsConnector>,
    sticky: Option<Arc<Sticky>>,
    upkeep: Upkeep,
    /// For what lasts: ejections, an open circuit. It never goes back.
    clock: Clock,
    breaker: Option<Breaker>,
    /// How much may be tried again.
    budget: Option<Budget>,
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

/// What came of connecting without waiting.
#[derive(Debug)]
pub enum AtOnce {
    /// To a server that has kept a connection.
    Connected(Origin),
    /// There is a server, but no connection.
    Open(OpenExchange),
    /// It takes longer.
    Nothing,
}

impl Upstream {
    /// Servers that `before` has, too, keep their health and counters, and their connections if those are made in the same way.
    ///
    /// # Errors
    /// Says which file of the TLS configuration cannot be used.
    pub fn new(
        config: &config::Upstream,
        metrics: &Metrics,
        clock: &Clock,
        before: Option<&Self>,
    ) -> Result<Self, TlsConfigError> {
        let highest = match config.http2 {
            true => Alpn::Http2,
            false => Alpn::Http1,
        };
        let tls = match &config.tls {
            Some(tls) => Some(UpstreamTlsConnector::new(tls, highest)?),
            None => None,
        };
        // A secret that was made here is kept.
        let kept = before.and_then(|before| before.sticky.clone());
        let sticky = match (&config.sticky, kept) {
            (Some(sticky), Some(kept)) if kept.config() == sticky => Some(kept),
            (Some(sticky), _) => Some(Arc::new(Sticky::new(sticky, &config.name))),
            (None, _) => None,
        };
        let discovery = Discovery::new(config, before.map(|before| &before.discovery));
        let wanted = discovery.wanted(config);
        let upstream = Self {
            zone: ArcSwap::from_pointee(lay_out(config, &[])),
            members: Mutex::default(),
            turns: Turns::default(),
            queue: Queue::default(),
            discovery,
            tls,
            sticky,
            upkeep: Upkeep::default(),
            clock: clock.clone(),
            breaker: passage::breaker(config),
            budget: config.retry.as_ref().map(|retry| {
                let look_back = retry::look_back(config.timeouts.first_byte);
                Budget::new(retry.policy.budget, look_back)
            }),
            config: config.clone(),
            metrics: metrics.upstream(&config.name),
        };
        let others = before.map(|before| before.members.lock().clone()).unwrap_or_default();
        let connects_alike = before.is_some_and(|before| before.config.connects_like(config));
        let members: Vec<Member> = wanted
            .iter()
            .map(|wanted| {
                let other = others.iter().find(|other| other.server.address == wanted.address);
                let server = match other {
                    Some(other) if connects_alike => other.server.clone(),
                    other => Arc::new(upstream.server(&wanted.address, other.map(|other| &*other.server))),
                };
                if other.is_none() && !others.is_empty() {
                    server.health.joins(Instant::now());
                }
                Member::new(server, wanted)
            })
            .collect();
        upstream.zone.store(Arc::new(lay_out(config, &members)));
        *upstream.members.lock() = members;
        Ok(upstream)
    }

    fn server(&self, address: &config::ServerAddress, before: Option<&Server>) -> Server {
        Server::new(address, &self.config, self.tls.clone(), &self.metrics, before)
    }

    /// The cookie that keeps clients at their servers.
    pub fn sticky(&self) -> Option<&Arc<Sticky>> {
        self.sticky.as_ref()
    }

    /// Whether this very server is one of them.
    pub fn has(&self, server: &Arc<Server>) -> bool {
        self.members
            .lock()
            .iter()
            .any(|member| Arc::ptr_eq(&member.server, server))
    }

    pub fn config(&self) -> &config::Upstream {
        &self.config
    }

    /// Another configuration is in force: servers that none of these upstreams has taken over keep nothing for later.
    pub fn retire_all_but(&self, taken_over: &[Arc<Self>]) {
        for member in self.zone.load().members() {
            if !taken_over.iter().any(|upstream| upstream.has(&member.server)) {
                member.server.retire();
            }
        }
    }

    /// What of failed requests is sent again. `None`: only what has not reached a server.
    pub fn retry_policy(&self) -> Option<&RetryPolicy> {
        self.config.retry.as_ref().map(|retry| &retry.policy)
    }

    /// Bytes of a request body that are held so that it can be sent again.
    pub fn holds(&self) -> usize {
        self.config
            .retry
            .as_ref()
            .map_or(retry::HELD_BODY, |retry| retry.max_body)
    }

    /// A request is made: it adds to what may be tried again.
    pub fn earn(&self) {
        if let Some(budget) = &self.budget {
            budget.earn(self.clock.running_lately());
        }
    }

    /// Whether something may be tried again as far as the budget goes, which pays for it then.
    pub fn spend(&self) -> bool {
        self.budget
            .as_ref()
            .is_none_or(|budget| budget.spend(self.clock.running()))
    }

    /// The servers as they are now.
    pub fn zone(&self) -> Arc<Zone> {
        self.zone.load_full()
    }

    /// Lays the servers out anew. To be called whenever the health of one has changed; not by requests, for which it is too dear.
    pub fn refresh(self: &Arc<Self>) {
        let members = self.members.lock();
        self.zone.store(Arc::new(lay_out(&self.config, &members)));
        drop(members);
        self.admit();
    }

    /// Requests that wait for a server.
    pub fn waiting(&self) -> usize {
        self.queue.waiting()
    }

    /// Gives a server no new requests; those that it has go on. Tells whether there is a server of that label.
    pub fn drain(self: &Arc<Self>, label: &str) -> bool {
        self.change(label, |server| server.health.drain(Instant::now()), "drained")
    }

    /// Takes [`drain`](Self::drain) back.
    pub fn enable(self: &Arc<Self>, label: &str) -> bool {
        self.change(label, |server| server.health.enable(Instant::now()), "enabled")
    }

    fn change(self: &Arc<Self>, label: &str, change: impl Fn(&Server) -> bool, what: &str) -> bool {
        let zone = self.zone.load_full();
        let Some(member) = zone.members().iter().find(|member| *member.server.label == *label) else {
            return false;
        };
        if change(&member.server) {
            tracing::info!(upstream = &*self.config.name, server = label, "server {what}");
            self.refresh();
        }
        true
    }

    /// What connecting comes to if nobody has to be waited for, which is most of the time.
    pub fn connect_at_once(
        self: &Arc<Self>,
        tried: &Tried,
        reuse: Reuse,
        selection: &Selection,
        now: Instant,
    ) -> AtOnce {
        if reuse == Reuse::Fresh || self.queue.waiting() > 0 {
            return AtOnce::Nothing;
        }
        match self.offer(selection, tried) {
            Offer::Open(open) => match open.server().idle.take(now) {
                Some(io) => AtOnce::Connected(Origin::http1(io, open, Reuse::Pooled)),
                None => AtOnce::Open(open),
            },
            Offer::Full | Offer::Nobody => AtOnce::Nothing,
        }
    }

    /// Connects to a server that `tried` does not name, and adds to it each one that cannot be reached. `open`: what
    /// [`connect_at_once`](Self::connect_at_once) has found.
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
        mut open: Option<OpenExchange>,
    ) -> Result<Origin, ConnectError> {
        let mut last = None;
        loop {
            let entered = match open.take() {
                Some(open) => Some(open),
                None => self.enter(selection, tried).await?,
            };
            let Some(open) = entered else { break };
            let server = open.server().clone();
            if last.is_some() {
                self.metrics.retry();
            }
            match self.connect_to(&server, open, reuse, selection).await {
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
        Err(last.unwrap_or_else(|| self.nobody()))
    }

    /// Looks at the server that such a request would get, without giving it to it. `None`: there is none, or none has room.
    pub fn choose<T>(&self, selection: &Selection, tried: &Tried, look: impl FnOnce(&Member) -> T) -> Option<T> {
        match self.zone.load().choose(selection, tried, self.turns.next()) {
            Choice::Server(member) => Some(look(member)),
            Choice::Full | Choice::Nobody => None,
        }
    }

    /// A server for a request, if need be after a wait. `None`: there is none that could be tried.
    async fn enter(
        self: &Arc<Self>,
        selection: &Selection,
        tried: &Tried,
    ) -> Result<Option<OpenExchange>, ConnectError> {
        // Nobody passes those who wait.
        if self.queue.waiting() == 0 {
            match self.offer(selection, tried) {
                Offer::Open(open) => return Ok(Some(open)),
                // The names of the servers may not have been looked up yet.
                Offer::Nobody
                    if self
                        .discovery
                        .settle(Instant::now() + self.config.timeouts.connect)
                        .await =>
                {
                    match self.offer(selection, tried) {
                        Offer::Open(open) => return Ok(Some(open)),
                        Offer::Nobody => return Ok(None),
                        Offer::Full => {}
                    }
                }
                Offer::Nobody => return Ok(None),
                Offer::Full => {}
            }
        }
        // Boxed: hardly any request waits.
        Box::pin(self.queue(selection, tried)).await.map(Some)
    }

    /// Why there is no server to try.
    fn nobody(&self) -> ConnectError {
        match self.discovery.failure() {
            Some((name, why)) if self.zone.load().members().is_empty() => ConnectError::Name(name, why),
            _ => ConnectError::NoServer,
        }
    }

    fn offer(self: &Arc<Self>, selection: &Selection, tried: &Tried) -> Offer {
        let zone = self.zone.load();
        loop {
            // Who has been tried before would otherwise take turns that belong to other requests, and with two servers all of them.
            let turn = match tried.is_empty() {
                true => self.turns.next(),
                false => Turn::random(),
            };
            match zone.choose(selection, tried, turn) {
                // In between, others may have taken the last place.
                Choice::Server(member) => {
                    if let Some(open) = OpenExchange::begin(self, member) {
                        return Offer::Open(open);
                    }
                }
                Choice::Full => return Offer::Full,
                Choice::Nobody => return Offer::Nobody,
            }
        }
    }

    async fn connect_to(
        &self,
        server: &Arc<Server>,
        open: OpenExchange,
        reuse: Reuse,
        selection: &Selection,
    ) -> Result<Origin, ConnectError> {
        if reuse == Reuse::Pooled
            && let Some(io) = server.idle.take(Instant::now())
        {
            return Ok(Origin::http1(io, open, Reuse::Pooled));
        }
        if !self.config.http2 {
            let (io, _) = server.connector.connect(selection.client).await?;
            return Ok(Origin::http1(io, open, Reuse::Fresh));
        }
        match server.open_http2().await? {
            Opened::Http1(io, reuse) => Ok(Origin::http1(io, open, reuse)),
            Opened::Http2(requests, stream) => Ok(Origin::http2(requests, stream, open)),
        }
    }

    /// Closes connections that have been idle for too long.
    fn sweep(&self) {
        for member in self.zone.load().members() {
            member.server.idle.sweep();
            member.server.http2.sweep(self.config.keepalive_idle);
        }
    }
}

fn lay_out(config: &config::Upstream, members: &[Member]) -> Zone {
    Zone::new(config.balance.clone(), config.slow_start, members.to_vec())
}

#[cfg(test)]
mod tests;
