//! A fetch for the cache: what comes back is stored, confirms what is stored, or goes to the one client that asked.

use std::sync::Arc;

use tokio::time::Instant;

use super::cached::{hit, key};
use super::compression::Whence;
use super::fill::{declared, subject};
use super::l2::Keeping;
use super::origin::{Response, Sent};
use super::pass::forwarded_status;
use super::{Decided, Failure, Plan, Proxy};
use crate::cache::flight::{Destination, Landing};
use crate::cache::lease;
use crate::cache::tags::Told;
use crate::cache::{Began, FetchDuty, Join, Refreshing, Stored};
use crate::clock;
use crate::edge::client::Client;
use crate::exchange::Exchange;
use crate::generation::CacheRules;
use crate::in_place::pinned;
use crate::io::Alarm;
use crate::key::{CacheKey, unkeyable};
use crate::message::{Fields, Framing, RequestHead, ResponseHead};
use crate::metrics::{CacheResult, Outcome};
use crate::respond::cache_status::{self, CacheStatus, Storing};
use crate::respond::error::ProxyError;
use crate::rfc9111::date::Timestamp;
use crate::rfc9111::freshness::Times;
use crate::rfc9111::reuse::{Forward, Reuse, Served, is_error, reuse, reuse_on_error};
use crate::rfc9111::storability::{Accepted, Codings, Storable, storable};
use crate::rfc9111::stored::StaleUse;
use crate::rfc9111::validation::{Freshened, HeadEffect, freshen, head_effect, make_conditional, selected_by_304};
use crate::rfc9111::vary::normalise;
use crate::transform::forwarding::Trust;
use crate::upstream::Event;

/// One fetch and what it is for.
pub(super) struct Fetch {
    pub destination: Destination,
    /// Stored responses that the origin is asked about.
    pub candidates: Vec<Arc<Stored>>,
    /// The stored response that fits, whatever is wrong with it.
    pub stored: Option<Arc<Stored>>,
    pub reason: Forward,
    /// Others wait for what comes of this.
    pub duty: Option<FetchDuty>,
    /// The last purge that there had been when it began.
    pub began: Began,
}

impl Proxy {
    pub(super) async fn fetch<'a>(
        self: &Arc<Self>,
        decided: &Decided<'a>,
        rules: &CacheRules,
        mut fetch: Fetch,
        client: &mut Client,
        exchange: &mut Exchange,
        alarm: &mut Alarm,
    ) -> Result<Plan<'a>, Failure> {
        exchange.cache = Some(fetch.reason.into());
        let request = decided.request;
        let requested = Timestamp::from(self.clock.now_at(clock::lately()));
        let ask = |fields: &mut Fields| {
            ask_for_codings(fields, rules);
            if !fetch.candidates.is_empty() {
                let candidates: Vec<_> = fetch.candidates.iter().map(|stored| stored.fields.unpack()).collect();
                let metas = fetch.candidates.iter().map(|stored| &stored.meta);
                make_conditional(fields, metas.zip(&candidates));
            }
        };
        // The dictionary that the client has is looked for while the origin is asked.
        let looking = self.look_ahead(decided, &fetch.destination.key);
        let sent = self.send(decided, ask, client, exchange, alarm).await;
        let received = match &sent {
            Ok(Sent::Response(response)) => self.clock.now_at(response.relay.heard()),
            Ok(Sent::Answered) | Err(_) => self.clock.now().into(),
        };
        let received = Timestamp::from(received);
        let times = Times { requested, received };
        if let (Some(looking), Ok(Sent::Response(_))) = (looking, &sent) {
            // Should it fail, there is none.
            let _ = looking.await;
        }
        let failed = match &sent {
            Ok(Sent::Response(response)) => is_error(response.head.status),
            Ok(Sent::Answered) => return Ok(Plan::Answered),
            Err(Failure::Refused(error)) => is_error(error.status()),
            Err(_) => false,
        };
        if failed
            && let Some(stored) = fetch.stored.clone()
            && let Some(served) = reuse_on_error(request, &stored.meta, received, &rules.reuse)
        {
            if let Ok(Sent::Response(response)) = sent {
                response.origin.record(Event::Ended(Outcome::ServerError));
            }
            fetch.land(Landing::Failed);
            exchange.cache = Some(CacheResult::ServedStale);
            let status = hit(&served, "stale-if-error");
            let stored = self.in_form(decided, &fetch.destination.key, &stored, exchange).await;
            pinned(|| self.serve_stored(decided, &stored, served, &status, client, exchange, alarm)).await?;
            return Ok(Plan::Answered);
        }
        let sent = match sent {
            // RFC 9111 §5.2.2.2: what must not be used stale, and cannot be validated, is an error of its own.
            Err(Failure::Refused(error))
                if is_error(error.status())
                    && fetch
                        .stored
                        .as_ref()
                        .is_some_and(|old| old.meta.restrictions.stale == StaleUse::Never) =>
            {
                return Err(ProxyError::NotValidated.into());
            }
            sent => sent?,
        };
        let mut response = match sent {
            Sent::Response(response) => response,
            Sent::Answered => return Ok(Plan::Answered),
        };
        let told = rules.take_labels(decided, &mut response.head.fields);
        if response.head.status == 304 && !fetch.candidates.is_empty() {
            return pinned(|| self.confirmed(decided, rules, fetch, told, response, times, client, exchange, alarm))
                .await;
        }
        if request.method == http::Method::HEAD {
            self.after_head(decided, rules, &fetch, &told, &response.head, times);
        }
        self.arrived(decided, rules, fetch, told, response, times, exchange)
    }

    /// Stores a response for all, or passes it on to the one client.
    #[expect(clippy::too_many_arguments, reason = "what is decided, what came, and where it goes")]
    pub(super) fn arrived<'a>(
        self: &Arc<Self>,
        decided: &Decided<'a>,
        rules: &CacheRules,
        mut fetch: Fetch,
        told: Told,
        mut response: Box<Response>,
        times: Times,
        exchange: &Exchange,
    ) -> Result<Plan<'a>, Failure> {
        let request = decided.request;
        let detail = match storable(request, &response.head, times, &rules.store_policy()) {
            Storable::Yes(_) if declared(&response.head).is_some_and(|length| length > rules.max_body) => {
                fetch.remember_unstored(self);
                Some("too-large")
            }
            Storable::Yes(mut accepted) => {
                rules.limit_freshness(&mut accepted.meta);
                accepted.meta.set_labels(told.labels(fetch.began.local));
                // RFC 9111 §4: who waits may only get what could be reused for it at once.
                let shared = reuse(request, &accepted.meta, times.received, &rules.reuse);
                if !matches!(shared, Reuse::Fresh(_) | Reuse::Stale(..)) {
                    fetch.remember_unstored(self);
                    fetch.land(Landing::Unstored);
                }
                return self.fill(decided, rules, fetch, *response, *accepted, exchange);
            }
            Storable::No(why) => {
                if !why.is_about_request() {
                    fetch.remember_unstored(self);
                }
                Some(why.as_str())
            }
        };
        fetch.land(Landing::Unstored);
        forwarded_status(fetch.reason, detail, cache_status::Fetch::Own).append_to(&mut response.head.fields);
        Ok(Plan::Deliver(*decided, response))
    }

    /// Passes a POST on. Its response is stored where it is what a GET would have got (RFC 9110 §9.3.3).
    pub(super) async fn post<'a>(
        self: &Arc<Self>,
        decided: &Decided<'a>,
        rules: &CacheRules,
        client: &mut Client,
        exchange: &mut Exchange,
        alarm: &mut Alarm,
    ) -> Result<Plan<'a>, Failure> {
        exchange.cache = Some(Forward::Method.into());
        let request = decided.request;
        let requested = Timestamp::from(self.clock.now_at(clock::lately()));
        let ask = |fields: &mut Fields| ask_for_codings(fields, rules);
        let mut response = match self.send(decided, ask, client, exchange, alarm).await? {
            Sent::Response(response) => response,
            Sent::Answered => return Ok(Plan::Answered),
        };
        let told = rules.take_labels(decided, &mut response.head.fields);
        self.after_unsafe(decided, &response.head).await;
        // What it has purged is not from behind itself.
        let began = self.cache.begin();
        let times = Times {
            requested,
            received: Timestamp::from(self.clock.now()),
        };
        let fits = declared(&response.head).is_none_or(|length| length <= rules.max_body);
        if fits
            && client.body_is_read()
            && !response.relay.is_ahead()
            && let Storable::Yes(mut accepted) = storable(request, &response.head, times, &rules.store_policy())
            && let Some(key) = key_of_get(request, rules, exchange.client.trust)
        {
            rules.limit_freshness(&mut accepted.meta);
            accepted.meta.set_labels(told.labels(began.local));
            let fetch = Fetch {
                destination: Destination {
                    epoch: self.cache.epochs.of_key(&key),
                    key,
                    variant: None,
                },
                candidates: Vec::new(),
                stored: None,
                reason: Forward::Method,
                duty: None,
                began,
            };
            return self.fill(decided, rules, fetch, *response, *accepted, exchange);
        }
        forwarded_status(Forward::Method, None, cache_status::Fetch::Own).append_to(&mut response.head.fields);
        Ok(Plan::Deliver(*decided, response))
    }

    /// The origin says that a stored response still holds (RFC 9111 §4.3.3, §4.3.4).
    #[expect(clippy::too_many_arguments, reason = "what is decided, what came, and where it goes")]
    async fn confirmed<'a>(
        self: &Arc<Self>,
        decided: &Decided<'a>,
        rules: &CacheRules,
        mut fetch: Fetch,
        told: Told,
        response: Box<Response>,
        times: Times,
        client: &mut Client,
        exchange: &mut Exchange,
        alarm: &mut Alarm,
    ) -> Result<Plan<'a>, Failure> {
        let Response {
            origin, relay, head, ..
        } = *response;
        origin.record(Event::Ended(Outcome::Ok));
        origin.end(relay.heard());
        let key = &fetch.destination.key;
        let candidates = fetch.candidates.iter().map(|stored| (stored, &stored.meta));
        let selected: Vec<_> = selected_by_304(candidates, &head.fields, times.received)
            .into_iter()
            .cloned()
            .collect();
        let mut answer = None;
        for stored in selected {
            let policy = rules.store_policy();
            let fresh = match freshen(
                decided.request,
                &stored.meta,
                &stored.fields.unpack(),
                &head,
                times,
                &policy,
            ) {
                Freshened::Store(accepted) => {
                    let Accepted { mut meta, fields } = *accepted;
                    rules.limit_freshness(&mut meta);
                    let before = stored.meta.labels();
                    meta.set_labels(told.freshened(decided.request, before, &fields, fetch.began.local));
                    let new = Arc::new(stored.updated(meta, fields));
                    let is_current = || {
                        let subject = subject(&fetch.destination, &decided.route.name, &new.meta);
                        self.cache.is_current(fetch.began.local, subject)
                    };
                    if is_current() {
                        if new.meta.variant == stored.meta.variant {
                            self.cache.memory.replace(key, &stored, Some(new.clone()));
                        } else {
                            self.cache.memory.store(&decided.route.name, key, new.clone());
                        }
                        // A purge in between may have come too early to find it.
                        if !is_current() {
                            self.cache.memory.replace(key, &new, None);
                        }
                    }
                    let keeping = Keeping::of(rules, decided.route, fetch.began);
                    // It has new labels, and lives longer.
                    let compression = rules.compression.as_deref();
                    self.keep_dictionary(compression, key, &new, Whence::Origin(&keeping));
                    let lease = fetch.duty.as_mut().and_then(FetchDuty::take_lease);
                    self.write_behind(keeping, &fetch.destination, &new, lease);
                    new
                }
                Freshened::Leave(fields, _) => with_fields(&stored, fields),
                Freshened::Remove(fields, _) => {
                    self.cache.memory.replace(key, &stored, None);
                    self.remove_from_l2(key);
                    with_fields(&stored, fields)
                }
            };
            answer = Some(fresh);
        }
        let Some(stored) = answer else {
            // It holds for none of them: ask again for the response itself.
            fetch.candidates.clear();
            return self.fetch(decided, rules, fetch, client, exchange, alarm).await;
        };
        fetch.land(Landing::LookAgain);
        exchange.cache = Some(CacheResult::Revalidated);
        let served = Served::of(&stored.meta, times.received);
        let status = CacheStatus {
            outcome: cache_status::Outcome::Forwarded {
                reason: fetch.reason,
                status: Some(304),
                storing: Storing::Stored,
                fetch: cache_status::Fetch::Own,
            },
            ttl: Some(served.ttl),
            detail: None,
        };
        let stored = self.in_form(decided, &fetch.destination.key, &stored, exchange).await;
        pinned(|| self.serve_stored(decided, &stored, served, &status, client, exchange, alarm)).await?;
        Ok(Plan::Answered)
    }

    /// What a response to HEAD says about the stored response to GET (RFC 9111 §4.3.5).
    fn after_head(
        &self,
        decided: &Decided<'_>,
        rules: &CacheRules,
        fetch: &Fetch,
        told: &Told,
        head: &ResponseHead,
        times: Times,
    ) {
        let request = decided.request;
        let Some(stored) = &fetch.stored else { return };
        let key = &fetch.destination.key;
        let length = match stored.meta.partial() {
            Some(partial) => partial.complete,
            None => Some(stored.body.len() as u64),
        };
        match head_effect(&stored.meta, length, head, times.received) {
            HeadEffect::Nothing => {}
            HeadEffect::Invalidate => {
                self.cache.memory.replace(key, stored, None);
                self.remove_from_l2(key);
            }
            HeadEffect::Freshen => {
                let policy = rules.store_policy();
                match freshen(request, &stored.meta, &stored.fields.unpack(), head, times, &policy) {
                    Freshened::Store(accepted) => {
                        let Accepted { mut meta, fields } = *accepted;
                        rules.limit_freshness(&mut meta);
                        let before = stored.meta.labels();
                        meta.set_labels(told.freshened(request, before, &fields, fetch.began.local));
                        if !self.cache.is_current(
                            fetch.began.local,
                            subject(&fetch.destination, &decided.route.name, &meta),
                        ) {
                            return;
                        }
                        let new = Arc::new(stored.updated(meta, fields));
                        self.cache.memory.replace(key, stored, Some(new.clone()));
                        self.write_behind(
                            Keeping::of(rules, decided.route, fetch.began),
                            &fetch.destination,
                            &new,
                            None,
                        );
                    }
                    Freshened::Remove(..) => {
                        self.cache.memory.replace(key, stored, None);
                        self.remove_from_l2(key);
                    }
                    Freshened::Leave(..) => {}
                }
            }
        }
    }

    /// Has a response validated while it is served: a stale one (RFC 5861 §3), or one that soon will be.
    // The task is made on the stack, of which whoever calls this should not take so much.
    #[inline(never)]
    pub(super) fn refresh_behind(
        self: &Arc<Self>,
        decided: &Decided<'_>,
        destination: Destination,
        stored: &Arc<Stored>,
        exchange: &Exchange,
        place: Option<Refreshing>,
    ) {
        let Some(place) = place else { return };
        let Join::Lead(duty) = self.cache.flights.join(&destination, Instant::now()) else {
            return;
        };
        let candidates = match stored.meta.validators.any() {
            true => vec![stored.clone()],
            false => Vec::new(),
        };
        let stored = stored.clone();
        let Some(request) = exchange.request.clone() else {
            return;
        };
        let (proxy, index, behind) = (self.clone(), decided.index, exchange.behind());
        let generation = exchange.generation().clone();
        debug_assert!(std::ptr::eq(decided.request, &*request));
        tokio::spawn(async move {
            let _place = place;
            let mut exchange = behind;
            // The client's own conditions and ranges are answered already.
            let mut request = (*request).clone();
            request.method = http::Method::GET;
            for name in ["range", "if-range", "if-none-match", "if-modified-since"] {
                request.fields.remove(name);
            }
            let Some(decided) = Decided::again(&generation, &request, &exchange, index) else {
                return;
            };
            let Some(rules) = decided.cache_rules() else { return };
            let route = &decided.route.name;
            let Some(duty) = proxy.refresh_from_l2(route, &request, rules, duty, &stored).await else {
                return;
            };
            let fetch = Fetch {
                destination,
                candidates,
                stored: Some(stored),
                reason: Forward::Stale,
                duty,
                began: proxy.cache.begin(),
            };
            let mut client = Client::Nobody;
            // Whatever comes of it is told to those who wait; there is nobody else to tell.
            let mut alarm = Alarm::new();
            if let Ok(plan) = proxy
                .fetch(&decided, rules, fetch, &mut client, &mut exchange, &mut alarm)
                .await
            {
                let _ = proxy.carry_out(plan, &mut client, &mut exchange, &mut alarm).await;
            }
        });
    }
}

impl Fetch {
    /// Tells those who wait how it ended.
    fn land(&mut self, landing: Landing) {
        if let Some(duty) = self.duty.take() {
            duty.land(landing);
        }
    }

    /// For a while nobody waits for a fetch of this kind. Only those that could be waited for say anything about it: others may have come
    /// to nothing because of their own conditions.
    fn remember_unstored(&mut self, proxy: &Proxy) {
        if let Some(duty) = &mut self.duty {
            duty.release(lease::Outcome::Unstored);
            proxy.cache.flights.remember_unstored(&self.destination);
        }
    }
}

/// What is stored may be compressed here, once for all clients: then the origin is asked for the response without a coding, whoever asks.
/// Where the origin chooses a coding, it does so by what requests have in common that share a response (RFC 9111 §4.1).
pub(crate) fn ask_for_codings(request: &mut Fields, rules: &CacheRules) {
    match rules.codings() {
        Codings::Ours => {
            request.set("Accept-Encoding", "identity");
            for name in ["available-dictionary", "dictionary-id"] {
                request.remove(name);
            }
        }
        Codings::Origins => {
            let normal = normalise("accept-encoding", request).map(std::borrow::Cow::into_owned);
            if let Some(normal) = normal
                && request.get("accept-encoding") != Some(normal.as_slice())
            {
                request.set("Accept-Encoding", normal);
            }
        }
    }
}

/// The key of a GET for the same target; `None`: such a GET would have none.
fn key_of_get(request: &RequestHead, rules: &CacheRules, trust: Trust) -> Option<CacheKey> {
    let mut get = request.clone();
    get.method = http::Method::GET;
    get.framing = Framing::None;
    match unkeyable(&get) {
        Some(_) => None,
        None => Some(key(&get, rules, trust)),
    }
}

/// The same response with other fields, for one answer.
fn with_fields(stored: &Stored, fields: Fields) -> Arc<Stored> {
    Arc::new(stored.updated(stored.meta.clone(), fields))
}
