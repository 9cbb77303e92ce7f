//! A response that is being fetched and read at the same time.
//!
//! One task brings the body in; any number of readers follow at their own pace. As long as the body may still be stored, all of it is
//! kept, so that later readers can begin at its beginning. Once it has outgrown that, only what some reader still needs is kept,
//! and the origin is read no faster than the slowest of them reads.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use super::Began;
use crate::message::Fields;
use crate::rfc9111::stored::StoredMeta;

/// What is kept for the slowest reader of a body that is too large to be stored.
const WINDOW: u64 = 256 * 1024;

/// Why a body ends before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// The origin's response broke off, or its body is none: in one word.
    Cut(&'static str),
    /// The origin has said nothing for too long.
    Silent,
    /// Nobody waits for it any more.
    Deserted,
    /// It was given up here.
    Aborted,
}

impl Broken {
    /// One word for log and metric.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Cut(reason) => reason,
            Self::Silent => "upstream-silent",
            Self::Deserted => "client-gone",
            Self::Aborted => "fill-aborted",
        }
    }
}

/// A response under way: its head, and the body as far as it has come.
#[derive(Debug)]
pub struct Filling {
    pub meta: StoredMeta,
    /// As they are stored.
    pub fields: Fields,
    /// `None`: not announced.
    pub length: Option<u64>,
    /// Bytes of a body that is still stored.
    limit: u64,
    /// The last purge that its fetch had seen when it began.
    pub began: Began,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    pieces: VecDeque<Bytes>,
    /// Pieces that are no longer kept, and their bytes.
    gone: u64,
    first: u64,
    /// Bytes that have come in.
    end: u64,
    ended: Option<Result<(), Broken>>,
    keeps: Keeps,
    readers: Vec<Option<Place>>,
    writer: Option<Waker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Keeps {
    /// All of the body.
    #[default]
    Everything,
    /// What some reader still needs.
    Window,
}

#[derive(Debug)]
struct Place {
    /// Number of the next piece, counted from the body's beginning.
    next: u64,
    waker: Option<Waker>,
}

/// A reader of a [`Filling`]; dropping it gives its place up.
#[derive(Debug)]
pub struct FillReader {
    filling: Arc<Filling>,
    index: usize,
}

/// What became of the bytes that were brought in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// The body may still be stored.
    Storable,
    /// It is too large; it goes on for those who read it.
    TooLarge,
}

impl Filling {
    /// `limit`: bytes of the largest body that is stored. `began`: the last purge that its fetch had seen.
    pub fn new(meta: StoredMeta, fields: Fields, length: Option<u64>, limit: u64, began: Began) -> Self {
        Self {
            meta,
            fields,
            length,
            limit,
            began,
            state: Mutex::default(),
        }
    }

    /// A reader from the beginning. `None`: the beginning is no longer there.
    pub fn read(self: &Arc<Self>) -> Option<FillReader> {
        let mut state = self.state.lock();
        if state.gone > 0 {
            return None;
        }
        let place = Some(Place { next: 0, waker: None });
        let index = match state.readers.iter().position(Option::is_none) {
            Some(index) => {
                state.readers[index] = place;
                index
            }
            None => {
                state.readers.push(place);
                state.readers.len() - 1
            }
        };
        Some(FillReader {
            filling: self.clone(),
            index,
        })
    }

    pub fn readers(&self) -> usize {
        self.state.lock().readers.iter().flatten().count()
    }

    /// Adds what has come in.
    pub fn push(&self, data: Bytes) -> Room {
        let mut state = self.state.lock();
        state.end += data.len() as u64;
        state.pieces.push_back(data);
        if state.end > self.limit {
            state.keeps = Keeps::Window;
            state.let_go();
        }
        state.wake_readers();
        match state.keeps {
            Keeps::Everything => Room::Storable,
            Keeps::Window => Room::TooLarge,
        }
    }

    /// Ready when more may be brought in: always while everything is kept, else when the slowest reader is near.
    pub fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if state.keeps == Keeps::Everything || state.end - state.first < WINDOW {
            return Poll::Ready(());
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Ready when nobody reads any more.
    pub fn poll_deserted(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if state.readers.iter().all(Option::is_none) {
            return Poll::Ready(());
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Ends the body, well or not. Only the first end counts.
    pub fn end(&self, ended: Result<(), Broken>) {
        let mut state = self.state.lock();
        state.ended.get_or_insert(ended);
        state.wake_readers();
    }

    /// Bytes that have come in.
    pub fn received(&self) -> u64 {
        self.state.lock().end
    }

    /// All of the body in one piece, `last` behind what has come in so far. `None`: it is too large, and not all of it was kept.
    pub fn whole(&self, last: &[u8]) -> Option<Bytes> {
        let state = self.state.lock();
        let length = state.end + last.len() as u64;
        if state.keeps == Keeps::Window || length > self.limit {
            return None;
        }
        // Copied, because the pieces are parts of larger read buffers.
        let mut body = BytesMut::with_capacity(usize::try_from(length).ok()?);
        for piece in &state.pieces {
            body.extend_from_slice(piece);
        }
        body.extend_from_slice(last);
        Some(body.freeze())
    }
}

impl State {
    fn wake_readers(&mut self) {
        for place in self.readers.iter_mut().flatten() {
            if let Some(waker) = place.waker.take() {
                waker.wake();
            }
        }
    }

    /// Lets go of what every reader has passed, once not everything is kept.
    fn let_go(&mut self) {
        if self.keeps == Keeps::Everything {
            return;
        }
        let all = self.gone + self.pieces.len() as u64;
        let needed = self
            .readers
            .iter()
            .flatten()
            .map(|place| place.next)
            .min()
            .unwrap_or(all);
        while self.gone < needed {
            let Some(piece) = self.pieces.pop_front() else { break };
            self.gone += 1;
            self.first += piece.len() as u64;
        }
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }

    /// The next piece for a reader.
    fn take(&mut self, reader: usize) -> Option<Bytes> {
        let place = self.readers.get_mut(reader)?.as_mut()?;
        let piece = self.pieces.get(usize::try_from(place.next - self.gone).ok()?)?.clone();
        place.next += 1;
        Some(piece)
    }
}

impl FillReader {
    pub fn filling(&self) -> &Arc<Filling> {
        &self.filling
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// When the body broke off, after everything that came before has been read.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Broken>> {
        let mut state = self.filling.state.lock();
        if let Some(piece) = state.take(self.index) {
            state.let_go();
            return Poll::Ready(Ok(Some(piece)));
        }
        match state.ended {
            Some(Ok(())) => Poll::Ready(Ok(None)),
            Some(Err(broken)) => Poll::Ready(Err(broken)),
            None => {
                if let Some(Some(place)) = state.readers.get_mut(self.index) {
                    place.waker = Some(cx.waker().clone());
                }
                Poll::Pending
            }
        }
    }

    /// Waits until the body has ended, without reading it: well, or not.
    pub async fn ended(&mut self) -> Result<(), Broken> {
        poll_fn(|cx| {
            let mut state = self.filling.state.lock();
            if let Some(ended) = state.ended {
                return Poll::Ready(ended);
            }
            if let Some(Some(place)) = state.readers.get_mut(self.index) {
                place.waker = Some(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }
}

impl Drop for FillReader {
    fn drop(&mut self) {
        let mut state = self.filling.state.lock();
        if let Some(place) = state.readers.get_mut(self.index) {
            *place = None;
        }
        state.let_go();
        if let Some(writer) = state.writer.take() {
            writer.wake();
        }
    }
}
