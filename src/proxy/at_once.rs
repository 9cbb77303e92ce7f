//! What can be decided about a request without waiting for anybody, and the answer where that is a fresh stored response: most requests
//! to a cache are such hits, and they are over before a task or a timer is needed.
//!
//! Everything else goes on in [`Proxy::go_on`] with what has been decided here. There is no second way through the stages: both take
//! the same steps, one after the other.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::time::Instant;

use super::cached::{Lookup, hit};
use super::compression::Chosen;
use super::purging::is_purge;
use super::{Decided, Failure, Proxy};
use crate::clock::Moment;
use crate::edge::client::Client;
use crate::exchange::{Arrival, Exchange};
use crate::generation::Generation;
use crate::in_place::boxed;
use crate::limit::rate::{Admitted, Stage};
use crate::message::{RequestHead, ResponseHead};
use crate::metrics::CacheResult;
use crate::respond::error::{ProxyError, redirect_to_https};
use crate::rfc9111::reuse::Reuse;
use crate::route::{Access, access};
use crate::transform::forwarding::client_address;
use crate::upstream::sticky;

/// A request that has been taken up and is not over yet.
#[derive(Debug)]
pub struct Open {
    pub(super) request: Arc<RequestHead>,
    pub(super) exchange: Exchange,
    pub(super) reached: Reached,
}

/// How far a request has come.
#[derive(Debug)]
pub(super) enum Reached {
    /// Its answer is queued; the client does not take all of it at once.
    Queued,
    /// It is answered with an error of our own.
    Failed(Failure),
    /// It is answered with this, made here.
    Own(Box<ResponseHead>, Bytes),
    /// Index of its route; it asks for a purge.
    Purge(usize),
    /// Index of its route, whose limits others count too.
    Limits(usize),
    /// Index of its route, which does not cache.
    Routed(usize),
    /// Index of its route, and what came of asking the cache.
    LookedUp(usize, Lookup),
}

impl Proxy {
    /// Takes up a request that came at this moment, without ever waiting. `None`: it has been answered, and all of the answer is
    /// written, or will be together with the answer to a request that has come behind it.
    pub fn take_up(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        client: &mut Client,
        request: Arc<RequestHead>,
        arrival: Arrival,
        moment: Moment,
    ) -> Option<Box<Open>> {
        let generation = self.generation.load();
        let (request, own_cookies) = without_own_cookies(request, &generation.sticky_cookies);
        let mut exchange = Exchange::begin(
            Arc::clone(&generation),
            arrival,
            moment,
            Some(request.clone()),
            client_address(arrival.peer, &request.fields, &generation.config.trusted_proxies),
        );
        exchange.own_cookies = own_cookies;
        let mut reached = self.reach(&generation, &request, client, &mut exchange);
        if let Reached::Queued = reached {
            match client.poll_flush_or_gather(cx) {
                Poll::Ready(Ok(())) => {
                    exchange.ends();
                    return None;
                }
                Poll::Ready(Err(_)) => reached = Reached::Failed(Failure::ClientGone),
                Poll::Pending => exchange.responds(exchange.status, Instant::now()),
            }
        } else if !client.is_flushed() {
            // Answers to requests in front of this one do not wait for whatever this one waits for. What cannot be written now
            // is noticed with the next write.
            let _ = client.poll_flush(cx);
        }
        Some(boxed(|| Open {
            request,
            exchange,
            reached,
        }))
    }

    fn reach(
        self: &Arc<Self>,
        generation: &Generation,
        request: &RequestHead,
        client: &mut Client,
        exchange: &mut Exchange,
    ) -> Reached {
        let decided = match self.route(generation, request, exchange) {
            Ok(decided) => decided,
            Err(reached) => return reached,
        };
        match self.admit(&decided, Stage::Arrival, exchange) {
            Ok(Admitted::In) => self.reach_behind_limits(&decided, client, exchange),
            Ok(Admitted::Ask) => Reached::Limits(decided.index),
            Err(too_many) => {
                self.queue_refusal(&too_many, exchange.time.into(), &request.fields, client, exchange);
                Reached::Queued
            }
        }
    }

    /// What comes of a request that its limits let in.
    pub(super) fn reach_behind_limits(
        self: &Arc<Self>,
        decided: &Decided<'_>,
        client: &mut Client,
        exchange: &mut Exchange,
    ) -> Reached {
        let Some(rules) = decided.cache_rules() else {
            return Reached::Routed(decided.index);
        };
        let lookup = self.look_up(decided.request, rules, exchange.client.trust, exchange.time.into());
        if let Lookup::Found(key, _) = &lookup {
            self.cache.hottest.asked(key, decided.request);
        }
        if let Lookup::Found(key, found) = &lookup
            && let (Reuse::Fresh(served), Some(stored)) = (found.decision, &found.stored)
        {
            if let Some(ahead) = &rules.refresh_ahead
                && ahead.is_near(&stored.meta, exchange.time.into())
            {
                self.refresh_ahead(decided, (rules, ahead), key, found, exchange);
            }
            let chosen = self.chosen(decided, key, stored);
            let stored = match &chosen {
                Chosen::AsItCame => stored,
                Chosen::Form(form, recoding) => {
                    exchange.coding = Some(recoding.as_str());
                    form
                }
                Chosen::Missing(_) | Chosen::Elsewhere(_) => return Reached::LookedUp(decided.index, lookup),
            };
            exchange.cache = Some(CacheResult::HitL1);
            let status = hit(&served, "l1");
            self.queue_stored(decided, stored, served, &status, client, exchange);
            return Reached::Queued;
        }
        Reached::LookedUp(decided.index, lookup)
    }

    /// The request's route, if it may use it.
    fn route<'a>(
        &self,
        generation: &'a Generation,
        request: &'a RequestHead,
        exchange: &mut Exchange,
    ) -> Result<Decided<'a>, Reached> {
        let failed = |error: ProxyError| Reached::Failed(error.into());
        let Some(listener) = generation.config.listeners.get(exchange.arrival.listener) else {
            return Err(failed(ProxyError::Draining));
        };
        if listener.redirect_to_https
            && let Some((head, body)) = redirect_to_https(request, exchange.request_id.as_str(), &self.http_date())
        {
            return Err(Reached::Own(Box::new(head), body));
        }
        let selected = generation
            .router
            .select(request)
            .map_err(|error| failed(error.into()))?;
        exchange.route = Some(selected.index);
        let Some(route) = generation.config.routes.get(selected.index) else {
            return Err(failed(ProxyError::NoRoute));
        };
        match access(route, exchange.client.ip) {
            Access::Allowed if generation.purges && is_purge(request) => Err(Reached::Purge(selected.index)),
            Access::Allowed => Ok(Decided {
                generation,
                listener,
                request,
                route,
                index: selected.index,
                captures: selected.captures,
            }),
            Access::Denied => Err(failed(ProxyError::Denied)),
        }
    }
}

/// Takes our own cookies off: they are neither the app's business nor the cache's.
fn without_own_cookies(mut request: Arc<RequestHead>, names: &[String]) -> (Arc<RequestHead>, Vec<(String, Vec<u8>)>) {
    if names.is_empty() || !request.fields.contains("cookie") {
        return (request, Vec::new());
    }
    let taken = sticky::take(&mut Arc::make_mut(&mut request).fields, names);
    (request, taken)
}
