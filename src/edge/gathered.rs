//! Writes of one connection, gathered as long as more of them are about to follow.
//!
//! Several HTTP/2 requests often come in one read, and most of them are answered at once. Each answer written by itself would cost more
//! than everything else about it, so they leave together, before the connection waits for anything.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes gathered at most: the answers to a usual burst. More than that is written with what comes next.
const GATHERED: usize = 16 * 1024;

/// Slices of a write that are handed on beside what was gathered.
const MAX_SLICES: usize = 16;

/// A connection that may be told to gather. Clones are the same connection: one is for whoever speaks the protocol, another for whoever
/// knows when nothing more will follow.
#[derive(Debug)]
pub struct Gathered<IO>(Arc<Mutex<Inner<IO>>>);

#[derive(Debug)]
struct Inner<IO> {
    io: IO,
    gathered: BytesMut,
    mode: Mode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Through,
    Gather,
}

impl<IO> Clone for Gathered<IO> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<IO: AsyncWrite + Unpin> Gathered<IO> {
    pub fn new(io: IO) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            io,
            gathered: BytesMut::new(),
            mode: Mode::Through,
        })))
    }

    /// From now on writes may be held back, until [`release`](Self::release).
    pub fn gather(&self) {
        self.0.lock().mode = Mode::Gather;
    }

    /// Writes what was held back, as far as the connection takes it now; the task of `cx` is woken for the rest. Errors are left to
    /// whoever writes or reads next.
    pub fn release(&self, cx: &mut Context<'_>) {
        let mut inner = self.0.lock();
        inner.mode = Mode::Through;
        if !inner.gathered.is_empty() {
            let _ = inner.poll_flush(cx);
        }
    }
}

impl<IO: AsyncWrite + Unpin> Inner<IO> {
    fn poll_write_gathered(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.gathered.is_empty() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &self.gathered))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.gathered.advance(count),
            }
        }
        // A connection that waits holds no buffer.
        self.gathered = BytesMut::new();
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_gathered(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let length: usize = bufs.iter().map(|buf| buf.len()).sum();
        if self.mode == Mode::Gather && self.gathered.len() + length <= GATHERED {
            bufs.iter().for_each(|buf| self.gathered.extend_from_slice(buf));
            return Poll::Ready(Ok(length));
        }
        if self.gathered.is_empty() {
            return match bufs {
                [buf] => Pin::new(&mut self.io).poll_write(cx, buf),
                bufs => Pin::new(&mut self.io).poll_write_vectored(cx, bufs),
            };
        }
        // All in one: what was gathered, and this behind it.
        let mut slices = [IoSlice::new(&[]); MAX_SLICES + 1];
        let used = bufs.len().min(MAX_SLICES) + 1;
        let pieces = std::iter::once(&self.gathered[..]).chain(bufs.iter().map(|buf| &buf[..]));
        for (slot, piece) in slices.iter_mut().zip(pieces) {
            *slot = IoSlice::new(piece);
        }
        let count = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, &slices[..used]))?;
        let of_gathered = count.min(self.gathered.len());
        self.gathered.advance(of_gathered);
        match count - of_gathered {
            // Nothing of this write is out: the rest of what came before it goes first.
            0 if length > 0 => {
                ready!(self.poll_write_gathered(cx))?;
                self.poll_write(cx, bufs)
            }
            count => Poll::Ready(Ok(count)),
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Gathered<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().io).poll_read(cx, buf)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Gathered<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.lock().poll_write(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.lock().poll_write(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        // What is gathered takes any number of them.
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.lock();
        match inner.mode {
            Mode::Gather => Poll::Ready(Ok(())),
            Mode::Through => inner.poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.lock();
        ready!(inner.poll_write_gathered(cx))?;
        Pin::new(&mut inner.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use proptest::prelude::*;

    use super::*;

    /// Takes so many bytes at each write, in turn; 0: it is not ready. What it got, and in how many writes.
    #[derive(Debug, Default)]
    struct Peer {
        takes: Vec<usize>,
        writes: usize,
        got: Vec<u8>,
    }

    impl AsyncWrite for Peer {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            let taken = match self.takes.is_empty() {
                true => buf.len(),
                false => self.takes.remove(0).min(buf.len()),
            };
            if taken == 0 {
                return Poll::Pending;
            }
            self.got.extend_from_slice(&buf[..taken]);
            self.writes += 1;
            Poll::Ready(Ok(taken))
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let all: Vec<u8> = bufs.iter().flat_map(|buf| buf.to_vec()).collect();
            self.poll_write(cx, &all)
        }

        fn is_write_vectored(&self) -> bool {
            true
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn write_all(io: &mut Gathered<Peer>, mut bytes: &[u8]) {
        let mut cx = Context::from_waker(Waker::noop());
        while !bytes.is_empty() {
            let (left, right) = bytes.split_at(bytes.len() / 2);
            let bufs = [IoSlice::new(left), IoSlice::new(right)];
            if let Poll::Ready(count) = Pin::new(&mut *io).poll_write_vectored(&mut cx, &bufs) {
                bytes = &bytes[count.unwrap()..];
            }
        }
    }

    #[test]
    fn what_is_gathered_leaves_in_one_write() {
        let mut io = Gathered::new(Peer::default());
        let mut cx = Context::from_waker(Waker::noop());
        io.gather();
        for piece in [&b"one"[..], b"two", b"three"] {
            write_all(&mut io, piece);
            assert!(Pin::new(&mut io).poll_flush(&mut cx).is_ready());
        }
        assert_eq!(io.0.lock().io.writes, 0, "more may follow");
        io.release(&mut cx);
        let inner = io.0.lock();
        assert_eq!((inner.io.writes, &inner.io.got[..]), (1, &b"onetwothree"[..]));
        assert_eq!(inner.gathered.capacity(), 0, "a connection that waits holds no buffer");
    }

    #[test]
    fn the_end_of_the_connection_does_not_lose_what_is_gathered() {
        let mut io = Gathered::new(Peer::default());
        io.gather();
        write_all(&mut io, b"goodbye");
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut io).poll_shutdown(&mut cx).is_ready());
        assert_eq!(io.0.lock().io.got, b"goodbye");
    }

    proptest! {
        #[test]
        fn bytes_keep_their_order_and_are_held_back_within_bounds(
            pieces in proptest::collection::vec((0..3 * GATHERED, any::<bool>(), any::<bool>()), 0..12),
            takes in proptest::collection::vec(0..2 * GATHERED, 0..20),
        ) {
            let mut cx = Context::from_waker(Waker::noop());
            let mut io = Gathered::new(Peer { takes, ..Peer::default() });
            let mut expected = Vec::new();
            for (number, (length, gather, release)) in pieces.into_iter().enumerate() {
                if gather {
                    io.gather();
                }
                let piece = vec![number as u8; length];
                write_all(&mut io, &piece);
                expected.extend_from_slice(&piece);
                prop_assert!(io.0.lock().gathered.len() <= GATHERED);
                if release {
                    io.release(&mut cx);
                }
            }
            // As many as the peer is asked at most.
            for _ in 0..40 {
                io.release(&mut cx);
            }
            prop_assert_eq!(&io.0.lock().io.got, &expected);
        }
    }
}
