//! The admin listener: purging, and looking inside. It stands beside the flow of requests, on an address of its own.
//!
//! Every endpoint stands in one table (`endpoint`), out of which requests are dispatched and the OpenAPI document is made. Who
//! may ask is decided in `access`, before a byte of a body is read.

mod access;
mod answer;
mod endpoint;
mod history;
mod openapi;
mod page;
mod purge;
mod stats;
mod stored;
pub mod tasks;
mod upstreams;
pub mod warm;

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use tokio::net::TcpListener;
use tokio::time::Instant;

use self::answer::{Answer, Refusal};
use self::endpoint::{Endpoint, Found, Guard};
use self::history::History;
use self::tasks::Tasks;
use crate::proxy::Proxy;
use crate::side_listener::{self, Bounds};
use crate::status::Readiness;

/// A few people and programs need a handful of connections; a URL to look up can be long, and so can a token.
const BOUNDS: Bounds = Bounds {
    name: "admin",
    connections: 64,
    head_size: 32 * 1024,
    lifetime: Duration::from_secs(600),
};

/// Ten thousand URLs of usual length. (Bytes.)
const BODY_SIZE: usize = 4 * 1024 * 1024;

/// Bytes of one that is too large which are read before that is said.
const BODY_READ: usize = 4 * BODY_SIZE;

/// From a request's head to the end of its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// What the endpoints work on.
pub struct Admin {
    proxy: Arc<Proxy>,
    readiness: Arc<Readiness>,
    tasks: Arc<Tasks>,
    history: History,
    started: Instant,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}

impl Admin {
    pub fn new(proxy: Arc<Proxy>, readiness: Arc<Readiness>, tasks: Arc<Tasks>) -> Self {
        Self {
            tasks,
            history: History::default(),
            started: Instant::now(),
            proxy,
            readiness,
        }
    }

    async fn respond(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let answer = match self.dispatch(request).await {
            Ok(answer) => answer,
            Err(refusal) => refusal.into(),
        };
        answer.into_response()
    }

    async fn dispatch(&self, request: Request<Incoming>) -> Result<Answer, Refusal> {
        let generation = self.proxy.generation();
        // Without a token nobody is let in by one: the listener may have been closed by a reload, and ends with the process.
        let token = generation.config.admin.as_ref().and_then(|admin| admin.token.as_ref());
        access::same_origin(request.headers(), token)?;
        let method = match *request.method() {
            // hyper leaves the body of a response to HEAD out.
            Method::HEAD => Method::GET,
            ref method => method.clone(),
        };
        let Found { endpoint, parameters } = Endpoint::find(&method, request.uri().path())?;
        if endpoint.guard() == Guard::Token {
            access::authorized(request.headers(), token)?;
        }
        let query = request.uri().query().unwrap_or_default().to_owned();
        let body = match endpoint.takes_body() {
            false => Bytes::new(),
            true => {
                access::json(request.headers())?;
                let body = tokio::time::timeout(BODY_TIMEOUT, body(request)).await;
                body.map_err(|_| Refusal::BodyTimeout)??
            }
        };
        self.endpoint(endpoint, &parameters, &query, &body).await
    }
}

/// The whole body. Who sends too much without having asked is read on for a while: only then does it come to read what it is told.
async fn body(request: Request<Incoming>) -> Result<Bytes, Refusal> {
    let asks_first = request.headers().contains_key(http::header::EXPECT);
    let mut body = request.into_body();
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > BODY_SIZE && (asks_first || announced > BODY_READ) {
        return Err(Refusal::BodyTooLarge);
    }
    let mut whole = BytesMut::new();
    let mut read = 0_usize;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Refusal::Body("The body broke off.".to_owned()))?;
        let Ok(data) = frame.into_data() else { continue };
        read = read.saturating_add(data.len());
        if read <= BODY_SIZE {
            whole.extend_from_slice(&data);
        } else if read <= BODY_READ {
            whole = BytesMut::new();
        } else {
            return Err(Refusal::BodyTooLarge);
        }
    }
    match read <= BODY_SIZE {
        true => Ok(whole.freeze()),
        false => Err(Refusal::BodyTooLarge),
    }
}

/// Answers on `listener` until `shutdown` ends, and then for as long as open responses need, at most two seconds.
pub async fn serve(listener: TcpListener, admin: Arc<Admin>, shutdown: impl Future<Output = ()>) {
    let asked = Arc::clone(&admin);
    let respond = move |request: Request<Incoming>| {
        let admin = Arc::clone(&asked);
        async move { admin.respond(request).await }
    };
    let ended = async {
        shutdown.await;
        admin.tasks.cancel_all();
    };
    let mut served = pin!(side_listener::serve(listener, BOUNDS, respond, ended));
    let mut tick = tokio::time::interval(history::EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = &mut served => return,
            _ = tick.tick() => admin.history.note(&admin.proxy.metrics),
        }
    }
}
