//! A fetch for the cache: what comes back is stored, confirms what is stored, or goes to the one client that asked.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::cached::{hit, key};
use super::origin::{Response, Sent};
use super::pass::forwarded_status;
use super::relay::Relay;
use super::{Decided, Failure, Plan, Proxy};
use crate::cache::filling::{Broken, Room};
use crate::cache::flight::{Destination, Landing};
use crate::cache::partial::{join, settle};
use crate::cache::{FetchDuty, FillReader, Filling, Join, Stored};
use crate::edge::client::Client;
use crate::exchange::Exchange;
use crate::generation::CacheRules;
use crate::io::Alarm;
use crate::key::{CacheKey, unkeyable};
use crate::message::{BodyEvent, Fields, Framing, RequestHead, ResponseHead};
use crate::metrics::{CacheResult, Outcome};
use crate::respond::cache_status::{self, CacheStatus, Storing};
use crate::respond::error::ProxyError;
use crate::rfc9111::date::Timestamp;
use crate::rfc9111::freshness::Times;
use crate::rfc9111::range::{combine, completion};
use crate::rfc9111::reuse::{Forward, Reuse, Served, is_error, reuse, reuse_on_error};
use crate::rfc9111::storability::{Accepted, Storable, storable};
use crate::rfc9111::stored::StaleUse;
use crate::rfc9111::validation::{Freshened, HeadEffect, freshen, head_effect, make_conditional, selected_by_304};
use crate::transform::fields::Delivery;
use crate::transform::forwarding::Trust;
use crate::upstream::Origin;

/// What is still fetched of a body that nobody waits for any more, so that the next request finds it.
const FILL_ALONE: u64 = 1024 * 1024;

/// Between two reads of what a stored part lacks.
const COLLECT: Duration = Duration::from_secs(30);

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
        let requested = Timestamp::from(self.clock.now());
        let ask = |fields: &mut Fields| {
            if !fetch.candidates.is_empty() {
                let candidates: Vec<_> = fetch.candidates.iter().map(|stored| stored.fields.unpack()).collect();
                let metas = fetch.candidates.iter().map(|stored| &stored.meta);
                make_conditional(fields, metas.zip(&candidates));
            }
        };
        let sent = self.send(decided, ask, client, exchange, alarm).await;
        let received = Timestamp::from(self.clock.now());
        let times = Times { requested, received };
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
                response.origin.server().metrics.outcome(Outcome::ServerError);
            }
            // Those who wait find the same stale response, and ask for themselves before they use it.
            fetch.land(Landing::Unstored);
            exchange.cache = Some(CacheResult::ServedStale);
            let status = hit(&served, "stale-if-error");
            self.serve_stored(decided, &stored, served, &status, client, exchange, alarm)
                .await?;
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
        let response = match sent {
            Sent::Response(response) => response,
            Sent::Answered => return Ok(Plan::Answered),
        };
        if response.head.status == 304 && !fetch.candidates.is_empty() {
            return Box::pin(self.confirmed(decided, rules, fetch, *response, times, client, exchange, alarm)).await;
        }
        if request.method == http::Method::HEAD {
            self.after_head(request, rules, &fetch, &response.head, times);
        }
        self.arrived(decided, rules, fetch, response, times, exchange)
    }

    /// Stores a response for all, or passes it on to the one client.
    fn arrived<'a>(
        self: &Arc<Self>,
        decided: &Decided<'a>,
        rules: &CacheRules,
        mut fetch: Fetch,
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
        let requested = Timestamp::from(self.clock.now());
        let mut response = match self.send(decided, |_| {}, client, exchange, alarm).await? {
            Sent::Response(response) => response,
            Sent::Answered => return Ok(Plan::Answered),
        };
        self.after_unsafe(decided, &response.head);
        let times = Times {
            requested,
            received: Timestamp::from(self.clock.now()),
        };
        let fits = declared(&response.head).is_none_or(|length| length <= rules.max_body);
        if fits
            && client.body_is_read()
            && let Storable::Yes(mut accepted) = storable(request, &response.head, times, &rules.store_policy())
            && let Some(key) = key_of_get(request, rules, exchange.client.trust)
        {
            rules.limit_freshness(&mut accepted.meta);
            let fetch = Fetch {
                destination: Destination {
                    invalidations: self.cache.invalidations.count(&key),
                    key,
                    variant: None,
                },
                candidates: Vec::new(),
                stored: None,
                reason: Forward::Method,
                duty: None,
            };
            return self.fill(decided, rules, fetch, *response, *accepted, exchange);
        }
        forwarded_status(Forward::Method, None, cache_status::Fetch::Own).append_to(&mut response.head.fields);
        Ok(Plan::Deliver(*decided, response))
    }

    /// Fetches what a stored part lacks of its representation, and answers with the whole. `None`: it cannot be made whole so.
    #[expect(
        clippy::too_many_arguments,
        reason = "what is decided, what is stored, and where it goes"
    )]
    pub(super) async fn complete<'a>(
        self: &Arc<Self>,
        decided: &Decided<'a>,
        rules: &CacheRules,
        destination: &Destination,
        stored: &Arc<Stored>,
        client: &mut Client,
        exchange: &mut Exchange,
        alarm: &mut Alarm,
    ) -> Result<Option<Plan<'a>>, Failure> {
        let Some(completion) = completion(&stored.meta) else {
            return Ok(None);
        };
        let mut request = decided.request.clone();
        request.method = http::Method::GET;
        for name in ["if-none-match", "if-modified-since"] {
            request.fields.remove(name);
        }
        request.fields.set("Range", &completion.range);
        match &completion.if_range {
            Some(tag) => request.fields.set("If-Range", tag),
            None => drop(request.fields.remove("if-range")),
        }
        let asking = Decided {
            request: &request,
            ..*decided
        };
        exchange.cache = Some(Forward::Partial.into());
        let requested = Timestamp::from(self.clock.now());
        let Sent::Response(response) = self.send(&asking, |_| {}, client, exchange, alarm).await? else {
            return Ok(Some(Plan::Answered));
        };
        let times = Times {
            requested,
            received: Timestamp::from(self.clock.now()),
        };
        if !matches!(response.head.status, 206 | 304 | 416) && decided.request.method == http::Method::GET {
            // RFC 9110 §13.1.5, §14.2: the whole as it is now, or why there is none.
            let fetch = Fetch {
                destination: destination.clone(),
                candidates: Vec::new(),
                stored: Some(stored.clone()),
                reason: Forward::Partial,
                duty: None,
            };
            return self.arrived(decided, rules, fetch, response, times, exchange).map(Some);
        }
        let Response { mut origin, head, .. } = *response;
        let outcome = if is_error(head.status) {
            Outcome::ServerError
        } else {
            Outcome::Ok
        };
        origin.server().metrics.outcome(outcome);
        let Storable::Yes(accepted) = storable(&request, &head, times, &rules.store_policy()) else {
            return Ok(None);
        };
        let Accepted { mut meta, fields } = *accepted;
        rules.limit_freshness(&mut meta);
        let Some(announced) = meta.partial.as_deref() else {
            return Ok(None);
        };
        let Some(combined) = combine(&stored.meta, announced, &fields, times.received) else {
            return Ok(None);
        };
        if !combined.is_complete() || announced.held.len() > rules.max_body {
            return Ok(None);
        }
        let Some(body) = collect(&mut origin, announced.held.len(), alarm).await else {
            return Ok(None);
        };
        origin.end();
        let whole = Arc::new(join(stored, meta, &fields, &body, &combined));
        if self.cache.invalidations.count(&destination.key) == destination.invalidations {
            self.cache
                .memory
                .store(&decided.route.name, &destination.key, whole.clone());
        }
        let served = Served::of(&whole.meta, times.received);
        let status = CacheStatus {
            outcome: cache_status::Outcome::Forwarded {
                reason: Forward::Partial,
                status: Some(206),
                storing: Storing::Stored,
                fetch: cache_status::Fetch::Own,
            },
            ttl: Some(served.ttl),
            detail: None,
        };
        self.serve_stored(decided, &whole, served, &status, client, exchange, alarm)
            .await?;
        Ok(Some(Plan::Answered))
    }

    /// The origin says that a stored response still holds (RFC 9111 §4.3.3, §4.3.4).
    #[expect(clippy::too_many_arguments, reason = "what is decided, what came, and where it goes")]
    async fn confirmed<'a>(
        self: &Arc<Self>,
        decided: &Decided<'a>,
        rules: &CacheRules,
        mut fetch: Fetch,
        response: Response,
        times: Times,
        client: &mut Client,
        exchange: &mut Exchange,
        alarm: &mut Alarm,
    ) -> Result<Plan<'a>, Failure> {
        let Response { origin, head, .. } = response;
        origin.server().metrics.outcome(Outcome::Ok);
        origin.end();
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
                    let new = Arc::new(Stored {
                        meta,
                        fields: (&fields).into(),
                        body: stored.body.clone(),
                    });
                    if new.meta.variant == stored.meta.variant {
                        self.cache.memory.replace(key, &stored, Some(new.clone()));
                    } else {
                        self.cache.memory.store(&decided.route.name, key, new.clone());
                    }
                    new
                }
                Freshened::Leave(fields, _) => with_fields(&stored, fields),
                Freshened::Remove(fields, _) => {
                    self.cache.memory.replace(key, &stored, None);
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
        self.serve_stored(decided, &stored, served, &status, client, exchange, alarm)
            .await?;
        Ok(Plan::Answered)
    }

    /// What a response to HEAD says about the stored response to GET (RFC 9111 §4.3.5).
    fn after_head(&self, request: &RequestHead, rules: &CacheRules, fetch: &Fetch, head: &ResponseHead, times: Times) {
        let Some(stored) = &fetch.stored else { return };
        let key = &fetch.destination.key;
        let length = match stored.meta.partial.as_deref() {
            Some(partial) => partial.complete,
            None => Some(stored.body.len() as u64),
        };
        match head_effect(&stored.meta, length, head, times.received) {
            HeadEffect::Nothing => {}
            HeadEffect::Invalidate => self.cache.memory.replace(key, stored, None),
            HeadEffect::Freshen => {
                let policy = rules.store_policy();
                match freshen(request, &stored.meta, &stored.fields.unpack(), head, times, &policy) {
                    Freshened::Store(accepted) => {
                        let Accepted { mut meta, fields } = *accepted;
                        rules.limit_freshness(&mut meta);
                        let new = Stored {
                            meta,
                            fields: (&fields).into(),
                            body: stored.body.clone(),
                        };
                        self.cache.memory.replace(key, stored, Some(Arc::new(new)));
                    }
                    Freshened::Remove(..) => self.cache.memory.replace(key, stored, None),
                    Freshened::Leave(..) => {}
                }
            }
        }
    }

    /// A response that is stored while it goes to everybody who waits for it.
    fn fill<'a>(
        self: &Arc<Self>,
        decided: &Decided<'a>,
        rules: &CacheRules,
        fetch: Fetch,
        response: Response,
        accepted: Accepted,
        exchange: &Exchange,
    ) -> Result<Plan<'a>, Failure> {
        let Response {
            origin,
            relay,
            mut head,
        } = response;
        let Accepted { meta, mut fields } = accepted;
        fields.shrink();
        let served = Served::of(&meta, meta.received);
        let filling = Arc::new(Filling::new(meta, fields, declared(&head), rules.max_body));
        let status = CacheStatus {
            outcome: cache_status::Outcome::Forwarded {
                reason: fetch.reason,
                status: None,
                storing: Storing::Stored,
                fetch: cache_status::Fetch::Own,
            },
            ttl: Some(served.ttl),
            detail: None,
        };
        let Some(reader) = filling.read() else {
            return Err(Failure::Broken("fill"));
        };
        if let Some(duty) = &fetch.duty {
            duty.publish(filling.clone());
        }
        let fill = Fill {
            proxy: self.clone(),
            route: decided.route.name.clone(),
            filling,
            destination: fetch.destination,
            duty: fetch.duty,
        };
        let between_bytes = relay.limits.between_bytes;
        tokio::spawn(fill.run(origin, between_bytes));
        status.append_to(&mut head.fields);
        self.finish(decided, &mut head, Delivery::Whole, exchange);
        Ok(Plan::Read(Box::new(head), reader))
    }

    /// A response that another request's fetch brings in.
    pub(super) fn read_along(
        &self,
        decided: &Decided<'_>,
        reader: FillReader,
        status: &CacheStatus<'_>,
        exchange: &Exchange,
    ) -> Plan<'static> {
        let filling = reader.filling();
        let served = Served::of(&filling.meta, Timestamp::from(self.clock.now()));
        let mut head = ResponseHead {
            status: filling.meta.status,
            fields: filling.fields.clone(),
            framing: match filling.length {
                Some(length) => Framing::Length(length),
                None => Framing::Stream,
            },
            declared_length: filling.length,
        };
        head.fields.push("Age", served.age.get().to_string());
        status.append_to(&mut head.fields);
        self.finish(decided, &mut head, Delivery::Whole, exchange);
        Plan::Read(Box::new(head), reader)
    }

    /// Sends a body as it is brought in.
    pub(super) async fn read(
        &self,
        head: ResponseHead,
        mut reader: FillReader,
        client: &mut Client,
        exchange: &mut Exchange,
        alarm: &mut Alarm,
    ) -> Result<(), Failure> {
        exchange.responds(head.status);
        let has_body = head.framing != Framing::None;
        client.respond(head);
        if !has_body {
            client.finish(None);
        }
        let mut bytes = 0;
        let mut relay = Relay::download();
        let result = relay
            .body(client, &mut reader, alarm, |data| bytes += data.len() as u64)
            .await;
        exchange.response_bytes = bytes;
        result.map_err(|error| Failure::within_response(&error))
    }

    /// Has a stale response validated while it is served (RFC 5861 §3).
    pub(super) fn refresh_behind(
        self: &Arc<Self>,
        decided: &Decided<'_>,
        destination: Destination,
        stored: &Arc<Stored>,
        exchange: &Exchange,
    ) {
        let Some(place) = self.cache.refreshes.begin() else {
            return;
        };
        let Join::Lead(duty) = self.cache.flights.join(destination.clone()) else {
            return;
        };
        let candidates = match stored.meta.validators.any() {
            true => vec![stored.clone()],
            false => Vec::new(),
        };
        let fetch = Fetch {
            destination,
            candidates,
            stored: Some(stored.clone()),
            reason: Forward::Stale,
            duty: Some(duty),
        };
        let Some(request) = exchange.request.clone() else {
            return;
        };
        let (proxy, route, behind) = (self.clone(), exchange.route, exchange.behind());
        let generation = exchange.generation().clone();
        let listener = exchange.arrival.listener;
        debug_assert!(std::ptr::eq(decided.request, &*request));
        tokio::spawn(async move {
            let _place = place;
            let mut exchange = behind;
            let (Some(index), Some(listener)) = (route, generation.config.listeners.get(listener)) else {
                return;
            };
            let Some(route) = generation.config.routes.get(index) else {
                return;
            };
            let Some(rules) = generation.routes.get(index).and_then(|route| route.cache.as_ref()) else {
                return;
            };
            let captures = generation.router.captures(index, request.path());
            // The client's own conditions and ranges are answered already.
            let mut request = (*request).clone();
            request.method = http::Method::GET;
            for name in ["range", "if-range", "if-none-match", "if-modified-since"] {
                request.fields.remove(name);
            }
            let decided = Decided {
                generation: &generation,
                listener,
                request: &request,
                route,
                captures,
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
    fn remember_unstored(&self, proxy: &Proxy) {
        if self.duty.is_some() {
            proxy.cache.flights.remember_unstored(&self.destination);
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

/// The task that brings a body in.
struct Fill {
    proxy: Arc<Proxy>,
    route: Arc<str>,
    filling: Arc<Filling>,
    destination: Destination,
    duty: Option<FetchDuty>,
}

impl Fill {
    async fn run(mut self, mut origin: Origin, between_bytes: Option<Duration>) {
        let ended = self.bring_in(&mut origin, between_bytes).await;
        let metrics = origin.server().metrics.clone();
        match ended {
            Ok(()) => {
                metrics.outcome(if self.filling.meta.status >= 500 {
                    Outcome::ServerError
                } else {
                    Outcome::Ok
                });
                origin.end();
                self.filling.end(Ok(()));
                if let Some(body) = self.filling.whole() {
                    let (key, memory) = (&self.destination.key, &self.proxy.cache.memory);
                    let (meta, fields) = (self.filling.meta.clone(), self.filling.fields.clone());
                    if let Some(stored) = settle(memory, key, meta, fields, body).filter(|_| self.is_valid()) {
                        let stored = Arc::new(stored);
                        memory.store(&self.route, key, stored.clone());
                        // An invalidation in between may have come too early to find it.
                        if !self.is_valid() {
                            memory.replace(key, &stored, None);
                        }
                    }
                }
                if let Some(duty) = self.duty.take() {
                    duty.land(Landing::LookAgain);
                }
            }
            Err((outcome, broken)) => {
                metrics.outcome(outcome);
                self.filling.end(Err(broken));
            }
        }
    }

    /// Whether its URI has not been invalidated since it was asked for.
    fn is_valid(&self) -> bool {
        let Destination { key, invalidations, .. } = &self.destination;
        self.proxy.cache.invalidations.count(key) == *invalidations
    }

    async fn bring_in(
        &mut self,
        origin: &mut Origin,
        between_bytes: Option<Duration>,
    ) -> Result<(), (Outcome, Broken)> {
        let mut alarm = Alarm::new();
        loop {
            let since = Instant::now();
            let filling = &self.filling;
            let event = poll_fn(|cx| {
                if filling.poll_room(cx).is_pending() {
                    return match filling.poll_deserted(cx) {
                        Poll::Ready(()) => Poll::Ready(Err((Outcome::ClientGone, Broken("client-gone")))),
                        Poll::Pending => Poll::Pending,
                    };
                }
                match origin.poll_body(cx) {
                    Poll::Ready(Ok(event)) => return Poll::Ready(Ok(event)),
                    Poll::Ready(Err(error)) => {
                        let server = &*origin.server().label;
                        tracing::warn!(server, %error, "a response broke off");
                        return Poll::Ready(Err((error.outcome(), Broken(error.reason()))));
                    }
                    Poll::Pending => {}
                }
                if filling.poll_deserted(cx).is_ready() && left(filling) > FILL_ALONE {
                    return Poll::Ready(Err((Outcome::ClientGone, Broken("client-gone"))));
                }
                match alarm.poll(cx, between_bytes.map(|time| since + time)) {
                    Poll::Ready(_) => Poll::Ready(Err((Outcome::Timeout, Broken("upstream-silent")))),
                    Poll::Pending => Poll::Pending,
                }
            })
            .await?;
            match event {
                BodyEvent::End(_) => return Ok(()),
                BodyEvent::Data(data) => {
                    if self.filling.push(data) == Room::TooLarge
                        && let Some(duty) = self.duty.take()
                    {
                        self.proxy.cache.flights.remember_unstored(&self.destination);
                        duty.land(Landing::Unstored);
                    }
                }
            }
        }
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        // Whatever ended the task: readers must not wait for ever. After a good end this says nothing new.
        self.filling.end(Err(Broken("fill-aborted")));
    }
}

/// Bytes that are still to come, as far as is known.
fn left(filling: &Filling) -> u64 {
    match filling.length {
        Some(length) => length.saturating_sub(filling.received()),
        // Not known: what has come counts, so that it ends some time.
        None => filling.received(),
    }
}

/// All of a body of that length. `None`: it was another length, or broke off.
async fn collect(origin: &mut Origin, length: u64, alarm: &mut Alarm) -> Option<Bytes> {
    let mut body = BytesMut::with_capacity(usize::try_from(length).ok()?);
    loop {
        let deadline = Instant::now() + COLLECT;
        match alarm.race(Some(deadline), poll_fn(|cx| origin.poll_body(cx))).await {
            Ok(Ok(BodyEvent::Data(data))) if (body.len() + data.len()) as u64 <= length => {
                body.extend_from_slice(&data)
            }
            Ok(Ok(BodyEvent::End(_))) if body.len() as u64 == length => return Some(body.freeze()),
            _ => return None,
        }
    }
}

pub(crate) fn declared(head: &ResponseHead) -> Option<u64> {
    match head.framing {
        Framing::Length(length) => Some(length),
        Framing::None => Some(0),
        Framing::Chunked | Framing::Stream | Framing::Close => None,
    }
}

/// The same response with other fields, for one answer.
fn with_fields(stored: &Stored, fields: Fields) -> Arc<Stored> {
    Arc::new(Stored {
        meta: stored.meta.clone(),
        fields: (&fields).into(),
        body: stored.body.clone(),
    })
}
