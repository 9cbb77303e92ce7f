//! Fetching what clients will ask for, before they do: a request of Forebay's own goes the way of a client's, and its response to nobody.

use std::sync::Arc;

use super::cached::{Lookup, key};
use super::{Decided, Failure, Proxy};
use crate::edge::client::Client;
use crate::exchange::{Arrival, Exchange, Kind};
use crate::io::Alarm;
use crate::message::{RequestHead, Scheme};
use crate::respond::error::ProxyError;
use crate::rfc9111::date::Timestamp;
use crate::rfc9111::reuse::Reuse;
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

impl Proxy {
    /// Has a GET answered into the cache.
    pub async fn warm(self: &Arc<Self>, request: RequestHead) -> Warmed {
        let generation = self.generation();
        let request = Arc::new(request);
        let Ok(selected) = generation.router.select(&request) else {
            return Warmed::NoRoute;
        };
        let is_tls = request.scheme == Scheme::Https;
        let listeners = &generation.config.listeners;
        let listener = listeners
            .iter()
            .position(|listener| listener.tls.is_some() == is_tls)
            .unwrap_or(0);
        let arrival = Arrival { listener, peer: None };
        let client = client_address(None, &request.fields, &[]);
        let (log, time) = (self.access_log.clone(), self.clock.now());
        let mut exchange = Exchange::begin(generation.clone(), log, arrival, time, Some(request.clone()), client);
        exchange.kind = Kind::Behind;
        exchange.route = Some(selected.index);
        let Some(decided) = Decided::again(&generation, &request, &exchange, selected.index) else {
            return Warmed::NoRoute;
        };
        let Some(rules) = decided.cache_rules() else {
            return Warmed::NoRoute;
        };
        let lookup = self.look_up(&request, rules, client.trust, time.into());
        if let Lookup::Found(_, found) = &lookup
            && let Reuse::Fresh(_) = found.decision
        {
            return Warmed::Fresh;
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
        let stored = self.cache.memory.peek(&key(&request, rules, client.trust));
        let chosen = stored
            .as_ref()
            .and_then(|variants| select(variants.iter().map(|stored| (stored, &stored.meta)), &request.fields));
        match chosen.is_some_and(|stored| stored.meta.is_fresh(now)) {
            true => Warmed::Stored,
            false => Warmed::NotStored,
        }
    }
}
