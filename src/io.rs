//! What both sides of an exchange do with their sockets: read into a buffer that is small while it waits, write
//! from a queue with few system calls, and give up at a deadline.

pub mod tcp;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop::has_budget_remaining;
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

/// Room that a thread keeps for what it writes next.
const SPARE_TEXT: usize = 32 * 1024;

/// Slices handed to one vectored write.
const MAX_SLICES: usize = 16;

thread_local! {
    /// Where a first read goes. A connection that waits, for hours perhaps, holds no buffer of its own meanwhile.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SMALL_READ].into());

    /// Where what is to be written is put together.
    static SPARE: Cell<Option<Box<Queue>>> = const { Cell::new(None) };
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

    /// Keeps no room for nothing while it waits.
    pub fn rest(&mut self) {
        if self.buffer.is_empty() && self.buffer.capacity() > 0 {
            self.buffer = BytesMut::new();
        }
    }

    fn poll_fill_slowly(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut (impl AsyncRead + Unpin + ?Sized),
    ) -> Poll<io::Result<usize>> {
        self.poll_fill_using(cx, io, |_| 0)
    }

    /// Reads once, like [`poll_fill`](Self::poll_fill). What came is shown to `using` first, unless something is in the buffer already; so
    /// much of it as that says is used, and not kept.
    pub fn poll_fill_or_use(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut (impl AsyncRead + Unpin + ?Sized),
        using: impl FnOnce(&[u8]) -> usize,
    ) -> Poll<io::Result<usize>> {
        match (self.pace, self.buffer.is_empty()) {
            (Pace::Slow, true) => self.poll_fill_using(cx, io, using),
            _ => self.poll_fill(cx, io),
        }
    }

    fn poll_fill_using(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut (impl AsyncRead + Unpin + ?Sized),
        using: impl FnOnce(&[u8]) -> usize,
    ) -> Poll<io::Result<usize>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut read = ReadBuf::new(scratch);
            match Pin::new(io).poll_read(cx, &mut read) {
                Poll::Pending => {
                    self.rest();
                    Poll::Pending
                }
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => {
                    let filled = read.filled();
                    let rest = filled.get(using(filled)..).unwrap_or_default();
                    if !rest.is_empty() {
                        self.buffer.extend_from_slice(rest);
                    }
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
                self.rest();
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

#[allow(unsafe_code)]
fn commit(buffer: &mut BytesMut, count: usize) {
    // SAFETY: `count` bytes behind the length were filled by the `ReadBuf` over the buffer's spare capacity.
    unsafe { buffer.set_len(buffer.len() + count) };
}

/// Bytes to be written, in order.
///
/// What is queued is put together in room of the thread's: it is the connection's only until all of it is written, and what a client does
/// not take at once is all that waits.
#[derive(Debug, Default)]
pub struct Outbox {
    queue: Option<Box<Queue>>,
    backlog: usize,
    written: u64,
    /// Everything is written, but TLS may hold it still.
    unflushed: bool,
}

/// Heads, small pieces, and large ones in between.
#[derive(Debug, Default)]
struct Queue {
    /// What was copied together.
    text: Vec<u8>,
    /// How much of it is written.
    at: usize,
    /// What is written from where it is: each behind so much of `text`, counted from its beginning.
    pieces: VecDeque<(usize, Bytes)>,
}

impl Queue {
    fn poll_write(&self, cx: &mut Context<'_>, io: &mut (impl AsyncWrite + Unpin + ?Sized)) -> Poll<io::Result<usize>> {
        if self.pieces.is_empty() {
            return Pin::new(io).poll_write(cx, self.text.get(self.at..).unwrap_or_default());
        }
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let mut used = 0;
        let mut at = self.at;
        let last = (self.text.len(), Bytes::new());
        let pieces = self.pieces.iter().chain([&last]).flat_map(|(behind, data)| {
            let text = self.text.get(at..*behind).unwrap_or_default();
            at = *behind;
            [text, &data[..]]
        });
        for (slot, piece) in slices.iter_mut().zip(pieces.filter(|piece| !piece.is_empty())) {
            *slot = IoSlice::new(piece);
            used += 1;
        }
        Pin::new(io).poll_write_vectored(cx, &slices[..used])
    }

    fn consume(&mut self, mut count: usize) {
        while let Some((behind, data)) = self.pieces.front_mut() {
            let text = behind.saturating_sub(self.at);
            if count < text {
                break;
            }
            self.at += text;
            count -= text;
            if count < data.len() {
                data.advance(count);
                return;
            }
            count -= data.len();
            self.pieces.pop_front();
        }
        self.at += count;
    }

    /// Keeps no more room than what waits.
    #[cold]
    fn shrink(&mut self) {
        if self.text.capacity() > 2 * (self.text.len() - self.at) {
            let rest = self.text.get(self.at..).unwrap_or_default().to_vec();
            let text = std::mem::replace(&mut self.text, rest);
            for (behind, _) in &mut self.pieces {
                *behind = behind.saturating_sub(self.at);
            }
            self.at = 0;
            Box::new(Self {
                text,
                ..Self::default()
            })
            .spare();
        }
    }

    /// Leaves the room to whoever of this thread needs it next.
    fn spare(mut self: Box<Self>) {
        self.text.clear();
        self.pieces.clear();
        self.at = 0;
        if self.text.capacity() <= SPARE_TEXT && self.pieces.capacity() <= MAX_SLICES {
            SPARE.set(Some(self));
        }
    }
}

impl Outbox {
    /// Bytes queued.
    pub fn backlog(&self) -> usize {
        self.backlog
    }

    /// Whether nothing waits to be written: neither here, nor in TLS, which takes more than its socket does.
    pub fn is_flushed(&self) -> bool {
        self.backlog == 0 && !self.unflushed
    }

    /// Bytes written since the beginning: tells progress.
    pub fn written(&self) -> u64 {
        self.written
    }

    fn queue(&mut self) -> &mut Queue {
        self.queue.get_or_insert_with(|| SPARE.take().unwrap_or_default())
    }

    /// A head is about to be queued and this much behind it: what is copied together finds its room at once.
    pub fn expect(&mut self, length: u64) {
        let body = usize::try_from(length).ok().filter(|length| *length <= COALESCE);
        self.queue().text.reserve(HEAD + body.unwrap_or_default());
    }

    /// Queues what `encode` appends.
    pub fn encode(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        let text = &mut self.queue().text;
        let before = text.len();
        encode(text);
        let length = text.len() - before;
        self.backlog += length;
    }

    /// Queues `data` without copying it if it is large.
    pub fn push(&mut self, data: Bytes) {
        if !self.push_small(&data) {
            self.push_large(data);
        }
    }

    /// Queues what others share: only a reference to it if it is large.
    pub fn push_shared(&mut self, data: &Bytes) {
        if !self.push_small(data) {
            self.push_large(data.clone());
        }
    }

    /// Whether `data` is small enough to be copied; then it is.
    fn push_small(&mut self, data: &[u8]) -> bool {
        let text = &mut self.queue().text;
        if data.len() > COALESCE || text.len() > COALESCE {
            return false;
        }
        text.extend_from_slice(data);
        self.backlog += data.len();
        true
    }

    fn push_large(&mut self, data: Bytes) {
        self.backlog += data.len();
        let queue = self.queue();
        queue.pieces.push_back((queue.text.len(), data));
    }

    /// Drops what is queued.
    pub fn clear(&mut self) {
        if let Some(queue) = self.queue.take() {
            queue.spare();
        }
        self.backlog = 0;
    }

    /// Writes until nothing is queued, and flushes.
    pub fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut (impl AsyncWrite + Unpin + ?Sized),
    ) -> Poll<io::Result<()>> {
        if let Some(queue) = &mut self.queue {
            self.unflushed = true;
            while self.backlog > 0 {
                let count = match queue.poll_write(cx, io) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(count)) => count,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => {
                        queue.shrink();
                        return Poll::Pending;
                    }
                };
                self.backlog = self.backlog.saturating_sub(count);
                self.written += count as u64;
                if self.backlog > 0 {
                    queue.consume(count);
                }
            }
            if let Some(queue) = self.queue.take() {
                queue.spare();
            }
        }
        if self.unflushed {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
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
    /// The task that the timer wakes when it fires.
    wakes: Option<Waker>,
    /// It never rings.
    silent: bool,
}

impl Alarm {
    pub fn new() -> Self {
        Self::default()
    }

    /// One that never rings, for whoever keeps deadlines in another way.
    pub fn silent() -> Self {
        Self {
            silent: true,
            ..Self::default()
        }
    }

    /// Ready when `deadline` has passed; never for `None`.
    pub fn poll(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> Poll<Elapsed> {
        let Some(deadline) = deadline.filter(|_| !self.silent) else {
            return Poll::Pending;
        };
        if let (Some(sleep), Some(wakes)) = (&self.sleep, &self.wakes)
            && sleep.deadline() <= deadline
            && !sleep.is_elapsed()
            && wakes.will_wake(cx.waker())
        {
            return Poll::Pending;
        }
        self.poll_timer(cx, deadline)
    }

    #[inline(never)]
    fn poll_timer(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<Elapsed> {
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        self.wakes = None;
        loop {
            // Without budget the timer does not look who asks.
            let asked = has_budget_remaining();
            if sleep.as_mut().poll(cx).is_pending() {
                self.wakes = asked.then(|| cx.waker().clone());
                return Poll::Pending;
            }
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
    use std::time::Duration;

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
    async fn an_outbox_that_waits_holds_what_waits_and_no_more() {
        let (mut near, mut far) = tokio::io::duplex(1000);
        let mut outbox = Outbox::default();
        outbox.encode(|out| out.resize(3000, b'a'));
        outbox.push(vec![b'b'; COALESCE + 1].into());
        outbox.encode(|out| out.resize(out.len() + 50, b'c'));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(outbox.poll_flush(&mut cx, &mut near).is_pending());
        let room = |outbox: &Outbox| outbox.queue.as_ref().map(|queue| queue.text.capacity());
        assert!(room(&outbox) <= Some(2 * 2050), "{:?}", room(&outbox));
        let mut read = Vec::new();
        while outbox.backlog() > 0 {
            assert!(outbox.poll_flush(&mut cx, &mut near).is_pending());
            let mut some = [0; 1000];
            let count = far.read(&mut some).await.unwrap();
            read.extend_from_slice(&some[..count]);
            let _ = outbox.poll_flush(&mut cx, &mut near);
        }
        let count = outbox.written() as usize - read.len();
        read.resize(outbox.written() as usize, 0);
        let start = read.len() - count;
        far.read_exact(&mut read[start..]).await.unwrap();
        let expected = [vec![b'a'; 3000], vec![b'b'; COALESCE + 1], vec![b'c'; 50]].concat();
        assert!(read == expected);
        assert_eq!(room(&outbox), None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_alarm_wakes_whoever_asked_last() {
        let mut alarm = Alarm::new();
        let deadline = Some(Instant::now() + Duration::from_secs(1));
        let asked = tokio::spawn(async move {
            poll_fn(|cx| {
                assert!(alarm.poll(cx, deadline).is_pending());
                assert!(alarm.poll(cx, deadline).is_pending());
                Poll::Ready(())
            })
            .await;
            alarm
        });
        let mut alarm = asked.await.unwrap();
        let elapsed = tokio::spawn(async move { poll_fn(|cx| alarm.poll(cx, deadline)).await });
        assert_eq!(elapsed.await.unwrap(), Elapsed);
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
