//! The record of one exchange: what the stages have decided so far.
//!
//! It is counted and logged when it is dropped, so each request is counted and logged exactly once on every way out: an answer, an
//! error, a client that left, a panic.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::{self, Moment, WallTime};
use crate::generation::{Generation, RouteInForce};
use crate::limit::rate::{Standing, Tokens};
use crate::limit::tokens::Used;
use crate::log::access::Entry;
use crate::message::{BodyEvent, Fields, RequestHead};
use crate::metrics::{Answered, CacheResult, RouteMetrics};
use crate::request_id::RequestId;
use crate::rfc9111::reuse::Forward;
use crate::transform::forwarding::ClientAddress;

/// The status in log and metric of a request whose client left before there was a response, as nginx has it.
pub const CLIENT_CLOSED_REQUEST: u16 = 499;

/// Where a request came in.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// Index into the configuration's listeners.
    pub listener: usize,
    /// The address that connected, or for which a trusted PROXY protocol header speaks. `None`: a Unix socket.
    pub peer: Option<IpAddr>,
}

/// One request and what becomes of it.
pub struct Exchange {
    pub arrival: Arrival,
    pub started: Instant,
    pub time: WallTime,
    /// `None`: its head could not be understood.
    pub request: Option<Arc<RequestHead>>,
    pub request_id: RequestId,
    pub client: ClientAddress,
    /// Index of the route.
    pub route: Option<usize>,
    /// The server that answered, or was asked last.
    pub server: Option<Arc<str>>,
    pub cache: Option<CacheResult>,
    /// The coding of the response, where it was compressed, or read for the client, here.
    pub coding: Option<&'static str>,
    pub status: u16,
    /// Bytes of the bodies.
    pub request_bytes: u64,
    pub response_bytes: u64,
    pub first_byte: Option<Duration>,
    /// How long it took. `None`: until now.
    ended: Option<Duration>,
    pub kind: Kind,
    pub error: Option<&'static str>,
    /// What was read of its body before it was known whether it goes on to a server.
    pub ahead: Vec<BodyEvent>,
    /// What its limits have said. `None`: there are none, or they are not for this client.
    pub standing: Option<Box<Standing>>,
    /// Cookies of ours that the request came with: names and values.
    pub own_cookies: Vec<(String, Vec<u8>)>,
    /// `Set-Cookie` for the client of a response that was fetched for it.
    pub set_cookie: Option<String>,
    generation: Arc<Generation>,
}

/// How the duration of an exchange is to be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It should be over soon.
    Short,
    /// An event stream or a WebSocket: it lasts as long as the client likes.
    Stream,
    /// It is no client's request.
    Behind,
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange")
            .field("request_id", &self.request_id)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

impl Exchange {
    pub fn begin(
        generation: Arc<Generation>,
        arrival: Arrival,
        moment: Moment,
        request: Option<Arc<RequestHead>>,
        client: ClientAddress,
    ) -> Self {
        let request_id = match &request {
            Some(request) => RequestId::of(&request.fields),
            None => RequestId::random(),
        };
        Self {
            arrival,
            started: moment.instant,
            time: moment.time,
            request,
            request_id,
            client,
            route: None,
            server: None,
            cache: None,
            coding: None,
            status: CLIENT_CLOSED_REQUEST,
            request_bytes: 0,
            response_bytes: 0,
            first_byte: None,
            ended: None,
            kind: Kind::Short,
            error: None,
            ahead: Vec::new(),
            standing: None,
            own_cookies: Vec::new(),
            set_cookie: None,
            generation,
        }
    }

    pub fn generation(&self) -> &Arc<Generation> {
        &self.generation
    }

    /// The record of what goes on for the cache behind this exchange: not a request of a client's, so neither counted nor logged
    /// as one.
    pub fn behind(&self) -> Self {
        Self {
            arrival: self.arrival,
            started: Instant::now(),
            time: self.time,
            request: None,
            request_id: RequestId::random(),
            client: self.client,
            route: self.route,
            server: None,
            cache: None,
            coding: None,
            status: CLIENT_CLOSED_REQUEST,
            request_bytes: 0,
            response_bytes: 0,
            first_byte: None,
            ended: None,
            kind: Kind::Behind,
            error: None,
            ahead: Vec::new(),
            standing: None,
            own_cookies: Vec::new(),
            set_cookie: None,
            generation: self.generation.clone(),
        }
    }

    /// Whether a limit waits to be told how many tokens the answer takes.
    pub fn counts_tokens(&self) -> bool {
        self.standing.as_ref().is_some_and(|standing| standing.counts_tokens())
    }

    /// What the answer has taken.
    pub fn used(&mut self, used: Used) {
        if let Some(standing) = &mut self.standing {
            standing.used = Some(used);
        }
    }

    pub fn route(&self) -> Option<&RouteInForce> {
        self.generation.routes.get(self.route?)
    }

    /// The value of a cookie of ours.
    pub fn own_cookie(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let named = self.own_cookies.iter().filter(move |(own, _)| own == name);
        named.map(|(_, value)| value.as_slice())
    }

    /// Adds our cookie to the head of a response that was fetched for this client, and is ready but for that.
    pub fn push_set_cookie(&self, fields: &mut Fields) {
        if let Some(cookie) = &self.set_cookie {
            fields.push("Set-Cookie", cookie);
        }
    }

    /// The response's head is about to be sent, now.
    pub fn responds(&mut self, status: u16, now: Instant) {
        self.status = status;
        self.first_byte = Some(now.saturating_duration_since(self.started));
    }

    /// The response has been taken back: the client has got nothing of it, and it is as if there had been none.
    pub fn is_unsaid(&mut self) {
        self.status = CLIENT_CLOSED_REQUEST;
        self.coding = None;
        self.first_byte = None;
        if let Some(standing) = &mut self.standing {
            standing.used = None;
        }
    }

    /// All of the response has been written, in one go with its head.
    pub fn ends(&mut self) {
        self.is_over(clock::ended());
        self.first_byte = self.ended;
    }

    /// Nothing more comes of it, now.
    pub fn is_over(&mut self, now: Instant) {
        self.ended = Some(now.saturating_duration_since(self.started));
    }

    fn metrics(&self) -> &RouteMetrics {
        match self.route() {
            Some(route) => &route.metrics,
            None => &self.generation.no_route,
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let duration = self.ended.unwrap_or_else(|| self.started.elapsed());
        let took = match self.kind {
            Kind::Short => duration,
            Kind::Stream => self.first_byte.unwrap_or(duration),
            Kind::Behind => return,
        };
        self.metrics().answered(&Answered {
            method: self.request.as_ref().map(|request| &request.method),
            status: self.status,
            duration,
            cache: self.cache,
            bytes: self.response_bytes,
        });
        let tokens = match &self.standing {
            Some(standing) => {
                let unseen = match self.server {
                    Some(_) => Used::Prompt,
                    None => Used::Nothing,
                };
                standing.settle(self.response_bytes, unseen, duration)
            }
            None => None,
        };
        let access = self.generation.access_log.as_ref();
        if access.is_some_and(|access| access.wants(self.request_id.as_bytes(), self.status, took)) {
            self.log(duration, took, tokens);
        }
    }
}

impl Exchange {
    #[inline(never)]
    fn log(&mut self, duration: Duration, took: Duration, tokens: Option<Tokens>) {
        let server = self.server.take();
        let Some(access) = &self.generation.access_log else {
            return;
        };
        let request = self.request.as_deref();
        let field = |name| request.and_then(|request| request.fields.get(name)).map(<[u8]>::to_vec);
        let route = self.route();
        let marked = self.standing.as_ref().and_then(|standing| standing.marked());
        let entry = Entry {
            time: self.time.into(),
            client_ip: self.client.ip,
            listener: self.generation.listener_label(self.arrival.listener),
            method: request.map(|request| request.method.clone()),
            host: request.map(|request| request.authority.to_string()).unwrap_or_default(),
            target: request.map(|request| request.target.to_string()).unwrap_or_default(),
            version: request.map(|request| request.version),
            status: self.status,
            route: route.map(|route| route.name.clone()),
            upstream: route
                .filter(|_| server.is_some())
                .map(|route| route.upstream.config().name.clone()),
            server,
            cache: self.cache,
            coding: self.coding,
            request_bytes: self.request_bytes,
            response_bytes: self.response_bytes,
            duration,
            first_byte: self.first_byte,
            request_id: self.request_id.as_str().to_owned(),
            user_agent: field("user-agent"),
            referer: field("referer"),
            error: self.error,
            limit: marked.map(|(limit, _)| limit.clone()),
            limit_reason: marked.map(|(_, why)| why),
            tokens,
        };
        access.send(entry, took);
    }
}

impl From<Forward> for CacheResult {
    fn from(reason: Forward) -> Self {
        match reason {
            Forward::Bypass => Self::Bypass,
            Forward::Method => Self::Method,
            Forward::UriMiss => Self::UriMiss,
            Forward::VaryMiss => Self::VaryMiss,
            Forward::Miss => Self::Miss,
            Forward::Request => Self::Request,
            Forward::Stale => Self::Stale,
            Forward::Partial => Self::Partial,
        }
    }
}
