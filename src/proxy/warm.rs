//! Requests of Forebay's own: they go the way of clients' requests, to URLs that a route takes alone. What clients will ask for is fetched
//! before they do, and its response goes to nobody; what says what that is, is read.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::cached::{Lookup, key};
use super::{Decided, Failure, Proxy};
use crate::cache::hottest::{Hot, shared};
use crate::edge::client::{Client, Kept};
use crate::exchange::{Arrival, Exchange, Kind};
use crate::io::Alarm;
use crate::message::{RequestHead, Scheme};
use crate::respond::error::ProxyError;
use crate::rfc9111::date::Timestamp;
use crate::rfc9111::reuse::{Forward, Reuse};
use crate::rfc9111::vary::select;
use crate::transform::forwarding::client_address;

/// What came of one URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Warmed {
    /// A fresh response was stored already.
    Fresh,
    /// It was fetched, and is stored.
    Stored,
    /// It was answered, and is not to be stored.
    NotStored,
    /// No route that caches takes it; nobody was asked.
    NoRoute,
    /// It was answered with an error, or not at all: asking again may help.
    Failed(&'static str),
    /// Nothing goes to the upstream at the moment.
    Unavailable(&'static str),
}

/// The longest time that a response which is read here may take, whatever the limits of its upstream.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// Why nothing was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    #[error("no route takes it")]
    NoRoute,
    #[error("the answer has status {0}")]
    Status(u16),
    #[error("there is no answer ({0})")]
    Failed(&'static str),
    #[error("the answer is not whole, or too large")]
    NotWhole,
    #[error("the answer takes too long")]
    Slow,
}

impl Proxy {
    /// The hottest keys: of all instances where they share Redis and it answers, else of this one.
    pub async fn hottest(&self, count: usize) -> Vec<Hot> {
        let own = self.cache.hottest.top(count);
        let Some(l2) = &self.cache.l2 else { return own };
        match shared::read(l2.redis(), count).await {
            Ok(mut all) => {
                // What came up since the last time they were told of it.
                all.extend(own);
                let mut seen = HashSet::new();
                all.sort_by_key(|hot| std::cmp::Reverse(hot.requests));
                all.retain(|hot| seen.insert(hot.url.clone()));
                all.truncate(count);
                all
            }
            Err(error) => {
                tracing::debug!(%error, "the hottest keys of other instances are not known");
                own
            }
        }
    }

    /// Tells the other instances, and whoever comes after this one, what was asked for since the last time.
    pub async fn tell_hottest(&self) {
        let Some(l2) = self.cache.l2.as_ref().filter(|l2| l2.redis().is_available()) else {
            return;
        };
        let news = self.cache.hottest.news(shared::MOST_TOLD);
        if !news.is_empty()
            && let Err(error) = shared::tell(l2.redis(), &news).await
        {
            tracing::debug!(%error, "the hottest keys are not told to other instances");
        }
    }

    /// The record of a request of our own, with its route. `None`: no route takes it.
    fn own(&self, request: &Arc<RequestHead>) -> Option<(Exchange, usize)> {
        let generation = self.generation();
        let index = generation.router.select(request).ok()?.index;
        let is_tls = request.scheme == Scheme::Https;
        let listeners = &generation.config.listeners;
        let listener = listeners
            .iter()
            .position(|listener| listener.tls.is_some() == is_tls)
            .unwrap_or(0);
        let arrival = Arrival { listener, peer: None };
        let client = client_address(None, &request.fields, &[]);
        let moment = self.clock.moment();
        let mut exchange = Exchange::begin(generation, arrival, moment, Some(request.clone()), client);
        exchange.kind = Kind::Behind;
        exchange.route = Some(index);
        Some((exchange, index))
    }

    /// The body of what a GET is answered with, if that is a 200.
    ///
    /// # Errors
    /// It is something else, or there is none.
    pub async fn read_own(self: &Arc<Self>, request: RequestHead, limit: usize) -> Result<Vec<u8>, Unread> {
        let request = Arc::new(request);
        let Some((mut exchange, index)) = self.own(&request) else {
            return Err(Unread::NoRoute);
        };
        let generation = exchange.generation().clone();
        let Some(decided) = Decided::again(&generation, &request, &exchange, index) else {
            return Err(Unread::NoRoute);
        };
        let (mut client, mut alarm) = (Client::Kept(Box::new(Kept::new(limit))), Alarm::new());
        let work = async {
            let plan = match decided.cache_rules() {
                Some(rules) => {
                    let lookup = self.look_up(&request, rules, exchange.client.trust, exchange.time.into());
                    self.cached(&decided, rules, lookup, &mut client, &mut exchange, &mut alarm)
                        .await?
                }
                None => {
                    let reason = Forward::Bypass;
                    self.pass(&decided, reason, None, &mut client, &mut exchange, &mut alarm)
                        .await?
                }
            };
            self.carry_out(plan, &mut client, &mut exchange, &mut alarm).await
        };
        match timeout(READ_TIMEOUT, Box::pin(work)).await {
            Err(_) => return Err(Unread::Slow),
            Ok(Err(Failure::ClientGone)) => return Err(Unread::NotWhole),
            Ok(Err(failure)) => return Err(Unread::Failed(failure.reason())),
            Ok(Ok(())) => {}
        }
        match client {
            _ if exchange.status != 200 => Err(Unread::Status(exchange.status)),
            Client::Kept(kept) => kept.whole().ok_or(Unread::NotWhole),
            Client::Http1(_) | Client::Http2(_) | Client::Nobody => Err(Unread::NotWhole),
        }
    }

    /// Has a GET answered into the cache.
    pub async fn warm(self: &Arc<Self>, request: RequestHead) -> Warmed {
        let request = Arc::new(request);
        let Some((mut exchange, index)) = self.own(&request) else {
            return Warmed::NoRoute;
        };
        let generation = exchange.generation().clone();
        let Some(decided) = Decided::again(&generation, &request, &exchange, index) else {
            return Warmed::NoRoute;
        };
        let Some(rules) = decided.cache_rules() else {
            return Warmed::NoRoute;
        };
        let trust = exchange.client.trust;
        let mut lookup = self.look_up(&request, rules, trust, exchange.time.into());
        if let Lookup::Found(_, found) = &mut lookup {
            match found.decision {
                Reuse::Fresh(_) => return Warmed::Fresh,
                // Clients may have it as it is; nobody waits for this one.
                Reuse::Stale(..) => found.decision = Reuse::Validate(Forward::Stale),
                Reuse::Validate(_) | Reuse::Forward(_) | Reuse::GatewayTimeout => {}
            }
        }
        let (mut nobody, mut alarm) = (Client::Nobody, Alarm::new());
        let work = async {
            let plan = self
                .cached(&decided, rules, lookup, &mut nobody, &mut exchange, &mut alarm)
                .await?;
            self.carry_out(plan, &mut nobody, &mut exchange, &mut alarm).await
        };
        if let Err(failure) = Box::pin(work).await {
            return match &failure {
                Failure::Refused(ProxyError::NoServer | ProxyError::CircuitOpen { .. } | ProxyError::Draining) => {
                    Warmed::Unavailable(failure.reason())
                }
                _ => Warmed::Failed(failure.reason()),
            };
        }
        if exchange.status >= 500 {
            return Warmed::Failed("server-error");
        }
        let now = Timestamp::from(self.clock.now());
        let stored = self.cache.memory.peek(&key(&request, rules, trust));
        let chosen = stored
            .as_ref()
            .and_then(|variants| select(variants.iter().map(|stored| (stored, &stored.meta)), &request.fields));
        match chosen.is_some_and(|stored| stored.meta.is_fresh(now)) {
            true => Warmed::Stored,
            false => Warmed::NotStored,
        }
    }
}
