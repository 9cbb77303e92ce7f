//! What both sides of an exchange do with their sockets: read into a buffer that is small while it waits, write
//! from a queue with few system calls, and give up at a deadline.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::os::fd::{BorrowedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// A connection, whatever it is made of.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin + Send + Sync {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + Sync> Duplex for T {}

/// A first read. Most heads, and most events of a stream, are smaller.
const SMALL_READ: usize = 16 * 1024;

/// Room for one read when the peer keeps filling the buffer.
const LARGE_READ: usize = 64 * 1024;

/// Pieces up to this size are copied together, larger ones are written from where they are.
const COALESCE: usize = 8 * 1024;

/// Room for a usual head.
const HEAD: usize = 1024;

/// Slices handed to one vectored write.
const MAX_SLICES: usize = 16;

thread_local! {
    /// Where a first read goes. A connection that waits, for hours perhaps, holds no buffer of its own meanwhile.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SMALL_READ].into());
}

/// Bytes that were read and not yet used.
#[derive(Debug, Default)]
pub struct Inbox {
    pub buffer: BytesMut,
    pace: Pace,
}

/// How the peer sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Pace {
    /// A message now and then.
    #[default]
    Slow,
    /// As much as is read.
    Fast,
}

impl Inbox {
    /// Reads once. `Ok(0)` is the end of the stream.
    pub fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut (impl AsyncRead + Unpin + ?Sized),
    ) -> Poll<io::Result<usize>> {
        match self.pace {
            Pace::Slow => self.poll_fill_slowly(cx, io),
            Pace::Fast => self.poll_fill_fast(cx, io),
        }
    }

    fn poll_fill_slowly(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut (impl AsyncRead + Unpin + ?Sized),
    ) -> Poll<io::Result<usize>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut read = ReadBuf::new(scratch);
            match Pin::new(io).poll_read(cx, &mut read) {
                Poll::Pending => {
                    if self.buffer.is_empty() {
                        self.buffer = BytesMut::new();
                    }
                    Poll::Pending
                }
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => {
                    let filled = read.filled();
                    self.buffer.extend_from_slice(filled);
                    if filled.len() == SMALL_READ {
                        self.pace = Pace::Fast;
                    }
                    Poll::Ready(Ok(filled.len()))
                }
            }
        })
    }

    fn poll_fill_fast(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut (impl AsyncRead + Unpin + ?Sized),
    ) -> Poll<io::Result<usize>> {
        if self.buffer.capacity() - self.buffer.len() < SMALL_READ {
            self.buffer.reserve(LARGE_READ);
        }
        let mut read = ReadBuf::uninit(self.buffer.spare_capacity_mut());
        let result = Pin::new(io).poll_read(cx, &mut read);
        let count = read.filled().len();
        match result {
            Poll::Pending => {
                self.pace = Pace::Slow;
                if self.buffer.is_empty() {
                    self.buffer = BytesMut::new();
                }
                Poll::Pending
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) => {
                commit(&mut self.buffer, count);
                Poll::Ready(Ok(count))
            }
        }
    }
}

/// Makes closing a connection a reset: the only way to tell its peer that a body which ends with the connection is not whole.
/// `fd` is that of `_io`.
#[allow(unsafe_code)]
pub fn reset_on_close(_io: &dyn Duplex, fd: RawFd) {
    // SAFETY: the descriptor is open for as long as the connection is borrowed.
    let socket = unsafe { BorrowedFd::borrow_raw(fd) };
    // If the option cannot be set, the connection is gone already.
    let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
}

#[allow(unsafe_code)]
fn commit(buffer: &mut BytesMut, count: usize) {
    // SAFETY: `count` bytes behind the length were filled by the `ReadBuf` over the buffer's spare capacity.
    unsafe { buffer.set_len(buffer.len() + count) };
}

/// Bytes to be written, in order.
#[derive(Debug, Default)]
pub struct Outbox {
    sealed: VecDeque<Bytes>,
    tail: BytesMut,
    backlog: usize,
    written: u64,
    /// Everything is written, but TLS may hold it still.
    unflushed: bool,
}

impl Outbox {
    /// Bytes queued.
    pub fn backlog(&self) -> usize {
        self.backlog
    }

    /// Bytes written since the beginning: tells progress.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// A head is about to be queued and this much behind it: what is copied together finds its room at once.
    pub fn expect(&mut self, length: u64) {
        if self.tail.capacity() == 0 {
            let body = usize::try_from(length).ok().filter(|length| *length <= COALESCE);
            self.tail.reserve(HEAD + body.unwrap_or_default());
        }
    }

    /// Queues what `encode` appends.
    pub fn encode(&mut self, encode: impl FnOnce(&mut BytesMut)) {
        if self.tail.capacity() == 0 {
            self.tail.reserve(HEAD);
        }
        let before = self.tail.len();
        encode(&mut self.tail);
        self.backlog += self.tail.len() - before;
    }

    /// Queues `data` without copying it if it is large.
    pub fn push(&mut self, data: Bytes) {
        self.backlog += data.len();
        if data.len() <= COALESCE && self.tail.len() <= COALESCE {
            self.tail.extend_from_slice(&data);
            return;
        }
        if !self.tail.is_empty() {
            self.sealed.push_back(self.tail.split().freeze());
        }
        self.sealed.push_back(data);
    }

    /// Queues what others share: only a reference to it if it is large.
    pub fn push_shared(&mut self, data: &Bytes) {
        if data.len() <= COALESCE && self.tail.len() <= COALESCE {
            self.backlog += data.len();
            self.tail.extend_from_slice(data);
            return;
        }
        self.push(data.clone());
    }

    /// Writes until nothing is queued, and flushes.
    pub fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut (impl AsyncWrite + Unpin + ?Sized),
    ) -> Poll<io::Result<()>> {
        if self.backlog == 0 && !self.unflushed {
            return Poll::Ready(Ok(()));
        }
        self.unflushed = true;
        while self.backlog > 0 {
            let count = if self.sealed.is_empty() {
                ready!(Pin::new(&mut *io).poll_write(cx, &self.tail))?
            } else {
                let mut slices = [IoSlice::new(&[]); MAX_SLICES];
                let mut used = 0;
                let tail = [&self.tail[..]];
                for (slot, piece) in slices.iter_mut().zip(self.sealed.iter().map(|b| &b[..]).chain(tail)) {
                    *slot = IoSlice::new(piece);
                    used += 1;
                }
                ready!(Pin::new(&mut *io).poll_write_vectored(cx, &slices[..used]))?
            };
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.consume(count);
        }
        // What waits for its next message, perhaps for hours, does not keep the last one's room.
        self.tail = BytesMut::new();
        ready!(Pin::new(io).poll_flush(cx))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }

    fn consume(&mut self, mut count: usize) {
        self.backlog -= count;
        self.written += count as u64;
        while count > 0 {
            match self.sealed.front_mut() {
                Some(front) if front.len() <= count => {
                    count -= front.len();
                    self.sealed.pop_front();
                }
                Some(front) => {
                    front.advance(count);
                    count = 0;
                }
                None => {
                    self.tail.advance(count);
                    count = 0;
                }
            }
        }
    }
}

/// The deadline passed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elapsed;

/// One timer that serves all deadlines of a connection in turn.
///
/// A deadline that moves away costs nothing: the timer fires at its old time, sees the new one and goes on. Only an
/// earlier deadline touches the timer wheel.
#[derive(Debug, Default)]
pub struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    pub fn new() -> Self {
        Self::default()
    }

    /// Ready when `deadline` has passed; never for `None`.
    pub fn poll(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> Poll<Elapsed> {
        let Some(deadline) = deadline else { return Poll::Pending };
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if Instant::now() >= deadline {
                return Poll::Ready(Elapsed);
            }
            sleep.as_mut().reset(deadline);
        }
    }

    /// `future`, unless the deadline passes first.
    pub async fn race<T>(&mut self, deadline: Option<Instant>, future: impl Future<Output = T>) -> Result<T, Elapsed> {
        let mut future = std::pin::pin!(future);
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(value) => Poll::Ready(Ok(value)),
            Poll::Pending => self.poll(cx, deadline).map(Err),
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn an_outbox_writes_small_and_large_pieces_in_order() {
        let mut outbox = Outbox::default();
        let mut expected = Vec::new();
        for size in [10, COALESCE + 1, 3, 5, 2 * COALESCE, 0, 1] {
            let piece = vec![b'a' + (size % 20) as u8; size];
            expected.extend_from_slice(&piece);
            outbox.push(piece.into());
        }
        outbox.encode(|out| out.extend_from_slice(b"end"));
        expected.extend_from_slice(b"end");
        assert_eq!(outbox.backlog(), expected.len());
        let (mut near, mut far) = tokio::io::duplex(100);
        let reader = tokio::spawn(async move {
            let mut all = Vec::new();
            far.read_to_end(&mut all).await.unwrap();
            all
        });
        poll_fn(|cx| outbox.poll_flush(cx, &mut near)).await.unwrap();
        assert_eq!(outbox.written(), expected.len() as u64);
        assert_eq!(outbox.backlog(), 0);
        drop(near);
        assert_eq!(reader.await.unwrap(), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn an_alarm_follows_its_deadline_both_ways() {
        let mut alarm = Alarm::new();
        let start = Instant::now();
        for (deadline, expected) in [(50, 50), (200, 200), (120, 200), (260, 260)] {
            let deadline = start + Duration::from_millis(deadline);
            assert_eq!(
                alarm.race(Some(deadline), std::future::pending::<()>()).await,
                Err(Elapsed)
            );
            let waited = start.elapsed().as_millis();
            assert!(
                waited >= expected && waited < expected + 5,
                "{waited} instead of {expected}"
            );
        }
        assert_eq!(alarm.race(None, async { 7 }).await, Ok(7));
    }

    #[tokio::test]
    async fn an_inbox_lets_go_of_a_large_buffer_while_it_waits() {
        let (mut near, mut far) = tokio::io::duplex(1 << 20);
        let mut inbox = Inbox::default();
        tokio::io::AsyncWriteExt::write_all(&mut far, &[1; 300_000])
            .await
            .unwrap();
        let mut total = 0;
        poll_fn(|cx| {
            loop {
                match inbox.poll_fill(cx, &mut near) {
                    Poll::Ready(count) => {
                        total += count.unwrap();
                        inbox.buffer.clear();
                    }
                    Poll::Pending => return Poll::Ready(()),
                }
            }
        })
        .await;
        assert_eq!(total, 300_000);
        assert_eq!(inbox.buffer.capacity(), 0);
    }
}
