//! A request's way through the stages: route → access → (cache) → forward → respond. Each step takes what the earlier ones decided and
//! adds one decision to the [`Exchange`].

mod ahead;
pub mod at_once;
mod attempts;
pub(crate) mod cached;
pub(crate) mod compression;
mod failure;
pub(crate) mod fetch;
pub(crate) mod fill;
mod l2;
mod limited;
mod metered;
pub(crate) mod origin;
mod partial;
pub(crate) mod pass;
pub mod purging;
pub mod recode;
pub mod relay;
pub mod rewarm;
mod stored;
pub mod warm;
pub mod work;

use std::cell::RefCell;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::time::Instant;

pub use self::failure::Failure;

use self::at_once::{Open, Reached};
use self::compression::Compressor;
use self::origin::Response;
use self::recode::Recoder;
use self::rewarm::ToWarm;
use self::work::Work;
use crate::cache::coherence::Coherence;
use crate::cache::{Cache, FillReader, L2};
use crate::clock::Clock;
use crate::config::{self, LimitStore, RouteCache};
use crate::edge::client::Client;
use crate::edge::stalled::Stalled;
use crate::exchange::{Arrival, Exchange};
use crate::generation::{CacheRules, Collapse, Generation};
use crate::in_place::pinned;
use crate::io::Alarm;
use crate::limit::rate::Stage;
use crate::limit::shared::Shared;
use crate::log::access::AccessLog;
use crate::message::{Fields, Framing, Lines, RequestHead, ResponseHead};
use crate::metrics::{CacheGauges, Metrics};
use crate::redis::Redis;
use crate::respond::error::{self, After, ProxyError};
use crate::rfc9111::date::{Timestamp, format_http_date};
use crate::rfc9111::reuse::Forward;
use crate::route::Captures;
use crate::transform::fields::{Delivery, ResponseContext, finish_response};
use crate::transform::forwarding::client_address;
use crate::transform::template::Values;

/// Everything that serves requests, shared by all listeners.
pub struct Proxy {
    generation: ArcSwap<Generation>,
    pub metrics: Arc<Metrics>,
    pub access_log: Arc<AccessLog>,
    pub clock: Clock,
    pub cache: Cache,
    pub work: Arc<Work>,
    compressor: Compressor,
    /// What PURGE requests have purged, to be asked for again; see [`Proxy::purged_to_warm`].
    to_warm: ToWarm,
    /// Our name in `Via`. Random, so that two Forebays in a row do not take each other for a loop.
    pseudonym: String,
}

/// What the stages have decided about one request.
#[derive(Clone, Copy)]
pub struct Decided<'a> {
    pub generation: &'a Generation,
    pub listener: &'a config::Listener,
    pub request: &'a RequestHead,
    pub route: &'a config::Route,
    /// Of the route.
    pub index: usize,
    pub captures: Captures<'a>,
}

impl<'a> Decided<'a> {
    /// What was decided about the request of this exchange when its route was found.
    fn again(generation: &'a Generation, request: &'a RequestHead, exchange: &Exchange, index: usize) -> Option<Self> {
        Some(Self {
            generation,
            listener: generation.config.listeners.get(exchange.arrival.listener)?,
            request,
            route: generation.config.routes.get(index)?,
            index,
            captures: generation.router.captures(index, &request.target),
        })
    }

    /// Bytes of the largest body that the route stores.
    fn max_body(&self) -> u64 {
        self.cache_rules().map_or(0, |rules| rules.max_body)
    }

    /// `None`: the route does not cache.
    fn cache_rules(&self) -> Option<&'a CacheRules> {
        self.generation.routes.get(self.index)?.cache.as_ref()
    }
}

/// What is left to do when everything is decided.
pub(crate) enum Plan<'a> {
    /// Nothing: the response has been sent.
    Answered,
    /// Pass the origin's response on.
    Deliver(Decided<'a>, Box<Response>),
    /// Send this head, and the body as another fetch brings it in, recoded if it says so.
    Read(Box<ResponseHead>, FillReader, Option<Box<Recoder>>),
}

/// Has other instances heard where routes share fetches with them.
fn want_leases(l2: &L2, generation: &Generation) {
    let shares =
        |route: &config::Route| matches!(&route.cache, RouteCache::On(policy) if policy.collapse == Collapse::Cluster);
    if generation.config.routes.iter().any(shares) {
        l2.want_leases();
    }
}

impl Proxy {
    /// Where there is a second tier, this has to be called in a runtime of tokio.
    pub fn new(mut generation: Generation, metrics: Arc<Metrics>, access_log: Arc<AccessLog>, clock: Clock) -> Self {
        generation.access_log = Some(access_log.clone());
        let mut cache = Cache::new(&generation.config.cache.memory);
        cache.l2 = generation.config.cache.redis.as_ref().map(|config| {
            let redis = Redis::start(config.clone(), metrics.redis());
            let forms = generation.query_forms();
            let coherence = Coherence::start(redis.clone(), clock.clone(), cache.memory.clone(), forms);
            let l2 = L2::start(redis, clock.clone(), cache.epochs.clone(), coherence);
            want_leases(&l2, &generation);
            l2
        });
        cache.memory.set_routes(generation.shares());
        let (memory, dictionaries) = (cache.memory.clone(), cache.dictionaries.clone());
        metrics.observe_cache(move || CacheGauges {
            bytes: memory.used(),
            stored_responses: memory.len() as u64,
            evictions: memory.evictions(),
            dictionary_bytes: dictionaries.bytes(),
        });
        let limiter = generation.limiter.clone();
        let rate_limits = &generation.config.rate_limits;
        if let (LimitStore::Redis, Some(l2)) = (rate_limits.store, &cache.l2) {
            // Set once: this is the first configuration of the process.
            let _ = limiter
                .shared
                .set(Shared::start(l2.redis().clone(), rate_limits.max_keys));
        }
        metrics.observe_limiter(move || limiter.table.bytes() as u64);
        Self {
            cache,
            generation: ArcSwap::from_pointee(generation),
            metrics,
            access_log,
            clock,
            work: Arc::default(),
            compressor: Compressor::default(),
            to_warm: ToWarm::default(),
            pseudonym: format!("forebay-{:08x}", fastrand::u32(..)),
        }
    }

    /// The configuration in force.
    pub fn generation(&self) -> Arc<Generation> {
        self.generation.load_full()
    }

    /// From now on new requests see `generation`.
    pub fn replace(&self, mut generation: Generation) {
        generation.access_log = Some(self.access_log.clone());
        self.cache.memory.set_routes(generation.shares());
        if let Some(l2) = &self.cache.l2 {
            l2.coherence().set_forms(generation.query_forms());
            want_leases(l2, &generation);
        }
        self.generation.store(Arc::new(generation));
    }

    /// The time as it stands in fields.
    pub fn http_date(&self) -> Arc<str> {
        http_date_of(self.clock.now().into())
    }

    /// Answers a request that was not over at once. Afterwards the client's response is finished, or broken off where it could not be. Tells
    /// when that was.
    pub async fn go_on(self: &Arc<Self>, mut open: Box<Open>, client: &mut Client, alarm: &mut Alarm) -> Instant {
        let _in_flight = self.metrics.in_flight_guard();
        let _open = self.work.begin();
        let Open {
            request,
            exchange,
            reached,
        } = &mut *open;
        let generation = exchange.generation().clone();
        // Boxed, so that a stream does not hold room for the decisions that led to it.
        let planned = pinned(|| self.plan(&generation, request, reached, client, exchange, alarm)).await;
        let result = match planned {
            Ok(plan) => self.carry_out(plan, client, exchange, alarm).await,
            Err(failure) => Err(failure),
        };
        self.conclude(result, &request.fields, client, exchange, alarm).await;
        let now = Instant::now();
        exchange.is_over(now);
        now
    }

    /// Answers something that is no request.
    pub async fn refuse(&self, client: &mut Client, arrival: Arrival, error: ProxyError, alarm: &mut Alarm) {
        let _in_flight = self.metrics.in_flight_guard();
        let _open = self.work.begin();
        let generation = self.generation.load_full();
        let fields = Fields::new();
        let address = client_address(arrival.peer, &fields, &[]);
        let mut exchange = Exchange::begin(generation, arrival, self.clock.moment(), None, address);
        self.conclude(Err(error.into()), &fields, client, &mut exchange, alarm)
            .await;
    }

    /// All decisions up to the response's body that have not been made yet.
    async fn plan<'a>(
        self: &Arc<Self>,
        generation: &'a Generation,
        request: &'a RequestHead,
        reached: &mut Reached,
        client: &mut Client,
        exchange: &mut Exchange,
        alarm: &mut Alarm,
    ) -> Result<Plan<'a>, Failure> {
        if let Reached::Limits(index) = *reached {
            let Some(decided) = Decided::again(generation, request, exchange, index) else {
                return Err(ProxyError::Internal.into());
            };
            self.ask(&decided, Stage::Arrival, client, exchange, alarm).await?;
            *reached = self.reach_behind_limits(&decided, client, exchange);
        }
        let (index, lookup) = match std::mem::replace(reached, Reached::Queued) {
            Reached::Queued => {
                flush(client, alarm).await?;
                return Ok(Plan::Answered);
            }
            Reached::Failed(failure) => return Err(failure),
            Reached::Own(head, body) => {
                self.answer(*head, body, client, exchange, alarm).await?;
                return Ok(Plan::Answered);
            }
            Reached::Purge(index) => {
                let Some(decided) = Decided::again(generation, request, exchange, index) else {
                    return Err(ProxyError::Internal.into());
                };
                let (head, body) = self.purged(&decided, exchange).await?;
                self.answer(head, body, client, exchange, alarm).await?;
                return Ok(Plan::Answered);
            }
            // They have been asked.
            Reached::Limits(_) => return Err(ProxyError::Internal.into()),
            Reached::Routed(index) => (index, None),
            Reached::LookedUp(index, lookup) => (index, Some(lookup)),
        };
        let Some(decided) = Decided::again(generation, request, exchange, index) else {
            return Err(ProxyError::Internal.into());
        };
        match (decided.cache_rules(), lookup) {
            (Some(rules), Some(lookup)) => self.cached(&decided, rules, lookup, client, exchange, alarm).await,
            _ => {
                self.pass(&decided, Forward::Bypass, None, client, exchange, alarm)
                    .await
            }
        }
    }

    /// Sends the body of a response that has been decided on.
    pub(crate) async fn carry_out(
        &self,
        plan: Plan<'_>,
        client: &mut Client,
        exchange: &mut Exchange,
        alarm: &mut Alarm,
    ) -> Result<(), Failure> {
        match plan {
            Plan::Answered => Ok(()),
            Plan::Deliver(decided, response) => self.deliver(&decided, response, client, exchange, alarm).await,
            Plan::Read(head, reader, recoder) => self.read(*head, reader, recoder, client, exchange, alarm).await,
        }
    }

    /// Sends a response that was made here.
    pub(crate) async fn answer(
        &self,
        mut head: ResponseHead,
        body: Bytes,
        client: &mut Client,
        exchange: &mut Exchange,
        alarm: &mut Alarm,
    ) -> Result<(), Failure> {
        exchange.responds(head.status, Instant::now());
        let has_body = head.framing != Framing::None;
        client.respond(&mut head);
        drop(head);
        if has_body {
            exchange.response_bytes = body.len() as u64;
            client.send(body);
        }
        client.finish(None);
        flush(client, alarm).await
    }

    /// Adds to a response what only this client's has.
    pub(crate) fn finish(
        &self,
        decided: &Decided<'_>,
        head: &mut ResponseHead<impl Lines>,
        delivery: Delivery,
        exchange: &Exchange,
    ) {
        let edits = &decided.route.response_headers;
        // What takes time to find is only looked up for those who ask for it.
        let (client_ip, host, path) = match edits.set.is_empty() && edits.add.is_empty() {
            true => Default::default(),
            false => (exchange.client.text(), decided.request.host(), decided.request.path()),
        };
        let context = ResponseContext {
            route: Some(decided.route),
            tls: decided.listener.tls.as_ref(),
            delivery,
            values: Values {
                client_ip: &client_ip,
                host: &host,
                method: decided.request.method.as_str(),
                path,
                request_id: exchange.request_id.as_bytes(),
                captures: decided.captures,
            },
        };
        if let Some(standing) = &exchange.standing {
            standing.append_to(&mut head.fields);
        }
        finish_response(head, &context);
    }

    /// The answer to a request that comes to nothing.
    fn render(&self, error: &ProxyError, fields: &Fields, exchange: &Exchange) -> (ResponseHead, Bytes) {
        let request_id = exchange.request_id.as_str();
        let (mut head, mut body) = error::render(error, fields.get("accept"), request_id, &self.http_date());
        if let Some(standing) = &exchange.standing {
            standing.append_to(&mut head.fields);
        }
        let request = exchange.request.as_ref();
        if request.is_some_and(|request| request.method == http::Method::HEAD) {
            head.framing = Framing::None;
            body = Bytes::new();
        }
        (head, body)
    }

    /// Turns a failure into an answer, or into a transfer that the client can tell from a whole one.
    async fn conclude(
        &self,
        result: Result<(), Failure>,
        fields: &Fields,
        client: &mut Client,
        exchange: &mut Exchange,
        alarm: &mut Alarm,
    ) {
        let failure = match result {
            Ok(()) => return,
            Err(failure) => failure,
        };
        exchange.error = Some(failure.reason());
        let error = match failure {
            Failure::Refused(error) if !client.has_responded() => error,
            Failure::TooMany(too_many) if !client.has_responded() => {
                let now = self.clock.now().into();
                self.queue_refusal(&too_many, now, fields, client, exchange);
                exchange.responds(exchange.status, Instant::now());
                if let Err(failure) = flush(client, alarm).await {
                    exchange.error = Some(failure.reason());
                    client.abort();
                }
                return;
            }
            Failure::Refused(_) | Failure::TooMany(_) | Failure::Broken(_) | Failure::ClientGone => {
                return client.abort();
            }
        };
        let (head, body) = self.render(&error, fields, exchange);
        if let (After::Close, Client::Http1(http1)) = (error.after(), &mut *client) {
            http1.close_after();
        }
        if let Err(failure) = self.answer(head, body, client, exchange, alarm).await {
            exchange.error = Some(failure.reason());
            client.abort();
        }
    }
}

/// A time as it stands in fields.
fn http_date_of(time: Timestamp) -> Arc<str> {
    thread_local! {
        // The same for a second, and it takes longer to write than to look up.
        static LAST: RefCell<(u64, Arc<str>)> = RefCell::new((0, Arc::from("")));
    }
    LAST.with_borrow_mut(|(second, text)| {
        if *second != time.as_secs() {
            *second = time.as_secs();
            *text = format_http_date(time).into();
        }
        text.clone()
    })
}

/// Writes what is queued for a client, as long as it keeps reading.
pub(crate) async fn flush(client: &mut Client, alarm: &mut Alarm) -> Result<(), Failure> {
    let mut stalled = Stalled::default();
    poll_fn(|cx| {
        if let Poll::Ready(result) = client.poll_flush(cx) {
            return Poll::Ready(result.map_err(|_| Failure::ClientGone));
        }
        let deadline = stalled.after(client.written());
        alarm.poll(cx, deadline).map(|_| Err(Failure::Broken("client-stalled")))
    })
    .await
}
