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

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use self::answer::{Answer, Refusal};
use self::endpoint::{Endpoint, Found, Guard};
use self::history::History;
use self::tasks::Tasks;
use crate::proxy::Proxy;
use crate::status::Readiness;

/// A few people and programs need a handful; the rest wait in the backlog.
const MAX_CONNECTIONS: usize = 64;

/// From the connection's begin, or the last response, to the end of a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// A URL to look up can be long, and so can a token.
const HEAD_SIZE: usize = 32 * 1024;

/// Ten thousand URLs of usual length. (Bytes.)
const BODY_SIZE: usize = 4 * 1024 * 1024;

/// From a request's head to the end of its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Then a connection is closed, whatever it does: a reader that does not read must not hold its place for ever.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(600);

/// How long open connections may take to finish their response when they are told to end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// After a failure to accept, which is mostly a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
                let body = Limited::new(request.into_body(), BODY_SIZE).collect();
                match tokio::time::timeout(BODY_TIMEOUT, body).await {
                    Ok(Ok(body)) => body.to_bytes(),
                    Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                        return Err(Refusal::BodyTooLarge);
                    }
                    Ok(Err(_)) => return Err(Refusal::Body("the body broke off".to_owned())),
                    Err(_) => return Err(Refusal::BodyTimeout),
                }
            }
        };
        self.endpoint(endpoint, &parameters, &query, &body).await
    }
}

/// Answers on `listener` until `shutdown` ends, and then for as long as open responses need, at most two seconds.
pub async fn serve(listener: TcpListener, admin: Arc<Admin>, shutdown: impl Future<Output = ()>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let (closing, _) = watch::channel(());
    let mut shutdown = pin!(shutdown);
    let mut tick = tokio::time::interval(history::EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let accepted = async {
            // The semaphore is never closed.
            let place = Arc::clone(&places).acquire_owned().await.map_err(io::Error::other)?;
            let (stream, _) = listener.accept().await?;
            io::Result::Ok((place, stream))
        };
        let accepted = tokio::select! {
            accepted = accepted => accepted,
            _ = tick.tick() => {
                admin.history.note(&admin.proxy.metrics);
                admin.proxy.cache.hottest.tick();
                continue;
            }
            () = &mut shutdown => break,
        };
        match accepted {
            Ok((place, stream)) => {
                let (admin, closing) = (Arc::clone(&admin), closing.subscribe());
                tokio::spawn(async move {
                    connection(stream, admin, closing).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the admin listener cannot accept a connection");
                tokio::select! {
                    () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                    () = &mut shutdown => break,
                }
            }
        }
    }
    drop(listener);
    admin.tasks.cancel_all();
    closing.send_replace(());
    // When every place is free again, every connection has ended; those that have not end with their own timeout.
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, places.acquire_many(MAX_CONNECTIONS as u32)).await;
}

async fn connection(stream: TcpStream, admin: Arc<Admin>, mut closing: watch::Receiver<()>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let admin = Arc::clone(&admin);
        async move { Ok::<_, Infallible>(admin.respond(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_SIZE)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    // How a connection ends is its client's affair.
    tokio::select! {
        _ = &mut connection => return,
        _ = closing.changed() => {}
        () = tokio::time::sleep(CONNECTION_LIFETIME) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, connection).await;
}
