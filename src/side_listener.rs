//! Listeners that stand beside the flow of requests: few connections, small heads, and nobody holds a place for ever.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tracing::warn;

/// From the connection's begin, or the last response, to the end of a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// How long open connections may take to finish their response when they are told to end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// After a failure to accept, which is mostly a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a listener may be asked for.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// What it is called in the log.
    pub name: &'static str,
    /// At once; the rest wait in the backlog.
    pub connections: u32,
    /// Bytes of a request's head. (The least that hyper takes is 8 KiB.)
    pub head_size: usize,
    /// Then a connection is closed, whatever it does: a reader that does not read must not hold its place for ever.
    pub lifetime: Duration,
}

/// Answers on `listener` until `shutdown` ends, and then for as long as open responses need, at most two seconds.
pub async fn serve<Answered>(
    listener: TcpListener,
    bounds: Bounds,
    respond: impl Fn(Request<Incoming>) -> Answered + Clone + Send + 'static,
    shutdown: impl Future<Output = ()>,
) where
    Answered: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(bounds.connections as usize));
    let (closing, _) = watch::channel(());
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = async {
            // The semaphore is never closed.
            let place = Arc::clone(&places).acquire_owned().await.map_err(io::Error::other)?;
            let (stream, _) = listener.accept().await?;
            io::Result::Ok((place, stream))
        };
        let accepted = tokio::select! {
            accepted = accepted => accepted,
            () = &mut shutdown => break,
        };
        match accepted {
            Ok((place, stream)) => {
                let (respond, closing) = (respond.clone(), closing.subscribe());
                tokio::spawn(async move {
                    connection(stream, bounds, respond, closing).await;
                    drop(place);
                });
            }
            Err(error) => {
                warn!(%error, "the {} listener cannot accept a connection", bounds.name);
                tokio::select! {
                    () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                    () = &mut shutdown => break,
                }
            }
        }
    }
    drop(listener);
    closing.send_replace(());
    // When every place is free again, every connection has ended; those that have not end with their own timeout.
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, places.acquire_many(bounds.connections)).await;
}

async fn connection<Answered>(
    stream: TcpStream,
    bounds: Bounds,
    respond: impl Fn(Request<Incoming>) -> Answered,
    mut closing: watch::Receiver<()>,
) where
    Answered: Future<Output = Response<Full<Bytes>>>,
{
    let service = service_fn(move |request| {
        let response = respond(request);
        async move { Ok::<_, Infallible>(response.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(bounds.head_size)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    // How a connection ends is its client's affair.
    tokio::select! {
        _ = &mut connection => return,
        _ = closing.changed() => {}
        () = tokio::time::sleep(bounds.lifetime) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, connection).await;
}
