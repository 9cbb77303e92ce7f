//! One HTTP/2 connection is opened at a time for each server: requests that come meanwhile wait for it instead of opening one each.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use h2::client::SendRequest;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::http2::Stream;
use super::{ConnectError, Reuse, Server, Transport};
use crate::tls::Alpn;

/// How many openings a request waits for: each brings room for others, who may have come before. After that it opens its own.
const ROUNDS: usize = 8;

type Outcome = Option<Result<(), Arc<ConnectError>>>;

/// The connection to a server that is being opened.
#[derive(Default)]
pub struct Opening {
    under_way: Mutex<Option<watch::Receiver<Outcome>>>,
    /// The server was asked for HTTP/2 and preferred HTTP/1.1: its connections have one request each.
    speaks_http1: AtomicBool,
}

/// Where a request to a server that may speak HTTP/2 goes.
pub enum Opened {
    Http1(Transport, Reuse),
    Http2(SendRequest<Bytes>, Stream),
}

impl Server {
    /// Room for a request, on a connection that is shared where the server speaks HTTP/2.
    ///
    /// # Errors
    /// Why no connection could be opened; the same for all who waited for it.
    pub async fn open_http2(self: &Arc<Self>) -> Result<Opened, ConnectError> {
        for _ in 0..ROUNDS {
            if self.opening.speaks_http1.load(Ordering::Relaxed) {
                break;
            }
            if let Some((requests, stream)) = self.http2.with_room().await {
                return Ok(Opened::Http2(requests, stream));
            }
            let mut opening = self.opening();
            let outcome = opening.wait_for(Option::is_some).await.map(|outcome| outcome.clone());
            match outcome {
                Ok(Some(Err(error))) => return Err(ConnectError::Shared(error)),
                Ok(_) => {}
                Err(_) => {
                    return Err(ConnectError::Unreachable(
                        "opening the connection was given up".to_owned(),
                    ));
                }
            }
        }
        if let Some(io) = self.idle.take(Instant::now()) {
            return Ok(Opened::Http1(io, Reuse::Pooled));
        }
        match self.connector.connect(None).await? {
            (io, Some(Alpn::Http1)) => Ok(Opened::Http1(io, Reuse::Fresh)),
            (io, _) => {
                self.opening.speaks_http1.store(false, Ordering::Relaxed);
                let (requests, stream) = self.http2.open(io).await?;
                Ok(Opened::Http2(requests, stream))
            }
        }
    }

    /// The opening that is under way, or a new one: in a task, so that it does not end with the request that was first.
    fn opening(self: &Arc<Self>) -> watch::Receiver<Outcome> {
        let mut under_way = self.opening.under_way.lock();
        if let Some(opening) = &*under_way
            && opening.borrow().is_none()
            && opening.has_changed().is_ok()
        {
            return opening.clone();
        }
        let (done, opening) = watch::channel(None);
        *under_way = Some(opening.clone());
        let server = self.clone();
        tokio::spawn(async move {
            let outcome = server.open_one().await.map_err(Arc::new);
            done.send_replace(Some(outcome));
        });
        opening
    }

    async fn open_one(&self) -> Result<(), ConnectError> {
        match self.connector.connect(None).await? {
            (io, Some(Alpn::Http1)) => {
                self.opening.speaks_http1.store(true, Ordering::Relaxed);
                self.idle.put(io, Instant::now());
            }
            (io, _) => {
                self.http2.open(io).await?;
            }
        }
        Ok(())
    }
}
