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

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use bytes::Bytes;

    use super::*;

    /// A server, and what tells when the client has found it dead. It answers as long as it is polled.
    struct Scene {
        server: h2::server::Connection<tokio::io::DuplexStream, Bytes>,
        until_dead: Pin<Box<dyn Future<Output = ()>>>,
        is_busy: Arc<AtomicBool>,
        heard: Arc<AtomicU64>,
    }

    async fn scene() -> Scene {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let (io, heard) = Heard::new(Box::new(ours));
        let (client, server) = tokio::join!(
            h2::client::Builder::new().handshake::<_, Bytes>(io),
            h2::server::handshake(theirs)
        );
        let (requests, mut connection) = client.unwrap();
        let ping = connection.ping_pong().unwrap();
        let is_busy = Arc::new(AtomicBool::new(true));
        let (clock, busy) = (heard.clone(), is_busy.clone());
        let until_dead = Box::pin(async move {
            let _requests = requests;
            tokio::select! {
                _ = connection => {}
                () = until_dead(ping, clock, move || busy.load(Ordering::Relaxed)) => {}
            }
        });
        let mut scene = Scene {
            server: server.unwrap(),
            until_dead,
            is_busy,
            heard,
        };
        scene.while_it_answers(Duration::from_millis(1)).await;
        scene
    }

    impl Scene {
        /// Fails if it is found dead meanwhile.
        async fn while_it_answers(&mut self, time: Duration) {
            tokio::select! {
                () = &mut self.until_dead => panic!("found dead"),
                _ = self.server.accept() => panic!("nobody sends a request"),
                () = sleep(time) => {}
            }
        }

        /// How long after this moment it is found dead, in seconds, when it says nothing more.
        async fn found_dead_after(&mut self, most: Duration) -> Option<u64> {
            let began = Instant::now();
            let found = timeout(most, &mut self.until_dead).await;
            found.ok().map(|()| began.elapsed().as_secs_f64().round() as u64)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_does_not_answer_a_ping_is_dead_and_one_that_does_is_left_in_peace() {
        let mut scene = scene().await;
        let silent = (QUIET + PONG).as_secs();
        assert_eq!(scene.found_dead_after(QUIET + PONG * 2).await, Some(silent));

        let mut scene = self::scene().await;
        let before = scene.heard.load(Ordering::Relaxed);
        scene.while_it_answers(QUIET + PONG).await;
        let answered = scene.heard.load(Ordering::Relaxed);
        assert!(answered > before, "it was asked and answered");
        // Not asked again soon.
        scene.while_it_answers(PATIENCE - PONG * 2).await;
        assert_eq!(scene.heard.load(Ordering::Relaxed), answered);
        let found = scene.found_dead_after(PATIENCE).await;
        assert!(found.is_some_and(|seconds| seconds <= 2 * PONG.as_secs()), "{found:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_asks_while_no_request_waits() {
        let mut scene = scene().await;
        scene.is_busy.store(false, Ordering::Relaxed);
        assert_eq!(scene.found_dead_after(PATIENCE * 10).await, None);
        scene.is_busy.store(true, Ordering::Relaxed);
        assert!(scene.found_dead_after(QUIET + PONG * 2).await.is_some());
    }
}
