//! Whether the other end of a shared connection is still there: a server that lost its power says nothing, and neither does its network.
//!
//! A PING (RFC 9113 §6.7) is sent only while requests wait and nothing has been heard for a while, and not again soon: some servers take
//! frequent ones for an attack.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep, timeout};

use super::health::nanos;
use crate::io::Duplex;

/// A server may be silent for this long while requests wait for it, before it is asked whether it is there.
const QUIET: Duration = Duration::from_secs(10);

/// How long it may take to answer that.
const PONG: Duration = Duration::from_secs(5);

/// Before it is asked again, if it has said nothing else.
const PATIENCE: Duration = Duration::from_secs(300);

/// A connection that notes when something was last heard on it.
pub struct Heard {
    io: Box<dyn Duplex>,
    at: Arc<AtomicU64>,
}

impl Heard {
    pub fn new(io: Box<dyn Duplex>) -> (Self, Arc<AtomicU64>) {
        let at = Arc::new(AtomicU64::new(nanos(Instant::now())));
        (Self { io, at: at.clone() }, at)
    }
}

impl AsyncRead for Heard {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_read(cx, buffer))?;
        self.at.store(nanos(Instant::now()), Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Heard {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

/// Ends when the server does not answer any more. `is_busy` tells whether requests wait for it.
pub async fn until_dead(mut ping: PingPong, heard: Arc<AtomicU64>, is_busy: impl Fn() -> bool) {
    // When it last answered a PING.
    let mut answered = 0;
    loop {
        let last = heard.load(Ordering::Relaxed);
        let limit = match last > answered {
            true => QUIET,
            false => PATIENCE,
        };
        let silent = Duration::from_nanos(nanos(Instant::now()).saturating_sub(last));
        if silent < limit || !is_busy() {
            sleep(limit.saturating_sub(silent).max(Duration::from_secs(1))).await;
            continue;
        }
        match timeout(PONG, ping.ping(Ping::opaque())).await {
            Ok(Ok(_)) => answered = heard.load(Ordering::Relaxed),
            Ok(Err(_)) | Err(_) => return,
        }
    }
}
