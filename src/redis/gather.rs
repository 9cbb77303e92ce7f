//! Commands of many requests in one write.
//!
//! The task that writes to a connection is woken by the first command, and would run before any of the other requests that are ready to
//! send theirs. So before it writes it lets them have their turn once: what they send goes out together, and is answered together.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection whose writes wait for one turn of the other tasks.
#[derive(Debug)]
pub(super) struct Gather<IO> {
    io: IO,
    turn: Turn,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// The others'.
    Theirs,
    /// They have had it since the last flush.
    Ours,
}

impl<IO> Gather<IO> {
    pub(super) fn new(io: IO) -> Self {
        Self { io, turn: Turn::Theirs }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Gather<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Gather<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.turn == Turn::Theirs {
            self.turn = Turn::Ours;
            // A task that wakes itself comes behind all that are ready.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.io).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.turn = Turn::Theirs;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn the_first_write_behind_a_flush_waits_for_one_turn() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut gather = Gather::new(ours);
        let cx = &mut Context::from_waker(Waker::noop());
        for _ in 0..2 {
            let mut gather = Pin::new(&mut gather);
            assert!(gather.as_mut().poll_write(cx, b"a").is_pending());
            assert!(gather.as_mut().poll_write(cx, b"a").is_ready());
            assert!(gather.as_mut().poll_write(cx, b"b").is_ready());
            assert!(gather.poll_flush(cx).is_ready());
        }
        let mut got = [0; 4];
        theirs.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"abab");
    }
}
