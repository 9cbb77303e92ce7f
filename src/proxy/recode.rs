//! Bodies that are compressed, or read for clients that cannot, while they pass.
//!
//! What comes in small pieces is recoded at once; what comes faster than that goes through threads of its own, one batch at a time, so that
//! it holds up nobody else's request. Either way the source is read no faster than the client reads what becomes of it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::relay::{RelayError, Source};
use crate::cache::Dictionary;
use crate::io::Alarm;
use crate::message::{BodyEvent, Fields};
use crate::transform::compress::against::live_against;
use crate::transform::compress::decode::{DecodeError, Decoder};
use crate::transform::compress::drop_what_is_of_the_bytes;
use crate::transform::compress::encode::{Encoder, Purpose, Recipe};
use crate::transform::compress::workers::Workers;
use crate::transform::events::{EventBoundary, HEARTBEAT};
use crate::transform::negotiate::Coding;
use crate::upstream::Origin;

/// Bodies that are recoded at the same time. Each takes up to 2 MiB; further ones are sent as they are.
const MAX_UNDER_WAY: usize = 512;

/// Event streams and the like beside them. Each takes a quarter of a MiB, for hours.
const MAX_EVENTS: usize = 1024;

/// Of the bodies so many with a dictionary: each takes up to 8 MiB.
const MAX_WITH_DICTIONARY: usize = 32;

/// Bytes that are recoded on the request's own thread between two flushes: about half a millisecond's work.
const INLINE: usize = 16 * 1024;

/// Bytes that go to another thread together.
const BATCH: usize = 128 * 1024;

/// Why a body could not be recoded.
#[derive(Debug, thiserror::Error)]
pub enum RecodeError {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("compression failed: {0}")]
    Encode(io::Error),
    #[error("compression broke off")]
    Aborted,
}

impl RecodeError {
    /// One word for log and metric.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Decode(_) => "upstream-coding",
            Self::Encode(_) | Self::Aborted => "compression",
        }
    }
}

/// What is to be done with a body.
#[derive(Debug)]
pub enum How {
    Encode(Recipe),
    /// With a dictionary, at this level of zstd, a body of so many bytes if that is known.
    Against(Arc<Dictionary>, u32, Option<u64>),
    /// The longest body in bytes that may come out.
    Decode(Coding, u64),
}

/// When what has been compressed is made readable for the client.
#[derive(Debug, Clone, Copy)]
pub struct Flushing {
    /// When nothing more is there, and the first of it has waited for so long.
    pub pause: Duration,
    /// Behind each event, too, and with a comment after so much silence.
    pub events: Option<Option<Duration>>,
}

/// Counts the bodies under way.
#[derive(Debug, Clone, Default)]
pub struct Places {
    bodies: Arc<AtomicUsize>,
    with_dictionary: Arc<AtomicUsize>,
    events: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(count: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        let place = Self(count.clone());
        (count.fetch_add(1, Ordering::Relaxed) < most).then_some(place)
    }
}

impl Places {
    /// Bodies and streams under way.
    pub fn taken(&self) -> usize {
        self.bodies.load(Ordering::Relaxed) + self.events.load(Ordering::Relaxed)
    }

    /// What a body needs that is recoded like this. `None`: there are too many already.
    fn take(&self, how: &How) -> Option<(Place, Option<Place>)> {
        let body = || Place::take(&self.bodies, MAX_UNDER_WAY);
        Some(match how {
            How::Encode(recipe) if recipe.purpose == Purpose::Events => (Place::take(&self.events, MAX_EVENTS)?, None),
            How::Encode(_) | How::Decode(..) => (body()?, None),
            How::Against(..) => (body()?, Some(Place::take(&self.with_dictionary, MAX_WITH_DICTIONARY)?)),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A body that can be recoded, with everything that it takes: decided before the head is sent that says so.
#[derive(Debug)]
pub struct Recoder {
    transcoder: Transcoder,
    coding: &'static str,
    flushing: Flushing,
    /// Bytes that are recoded on the request's own thread between two flushes.
    inline: usize,
    workers: Arc<Workers>,
    places: (Place, Option<Place>),
}

impl Recoder {
    /// `coding`: a word for what comes out. `None`: there are too many already, or there is no memory for it.
    pub fn new(
        how: How,
        coding: &'static str,
        flushing: Flushing,
        workers: &Arc<Workers>,
        places: &Places,
    ) -> Option<Self> {
        let places = places.take(&how)?;
        let inline = match how {
            // It has to be read first, which takes longer than any small piece.
            How::Against(..) => 0,
            How::Encode(_) | How::Decode(..) => INLINE,
        };
        let transcoder = match how {
            How::Encode(recipe) => Transcoder::Encode(Encoder::new(recipe).ok()?),
            How::Against(dictionary, level, length) => {
                let encoder = live_against(&dictionary.body, &dictionary.digest, level, length);
                Transcoder::Encode(encoder.ok()?)
            }
            How::Decode(coding, limit) => Transcoder::Decode(Decoder::new(coding, limit).ok()?),
        };
        Some(Self {
            transcoder,
            coding,
            flushing,
            inline,
            workers: workers.clone(),
            places,
        })
    }

    /// The coding of what comes out, as a word.
    pub fn coding(&self) -> &'static str {
        self.coding
    }

    /// The body that becomes of this one.
    pub fn recode<S: Source>(self, source: S) -> Recoded<S> {
        let Self {
            transcoder,
            coding: _,
            flushing,
            inline,
            workers,
            places,
        } = self;
        Recoded {
            source,
            state: State::Ready(Box::new(transcoder)),
            flushing,
            inline,
            workers,
            boundary: EventBoundary::default(),
            unflushed: 0,
            since: Instant::now(),
            alarm: Alarm::new(),
            _places: places,
        }
    }
}

/// What a body becomes, piece by piece.
pub struct Recoded<S> {
    source: S,
    state: State,
    flushing: Flushing,
    inline: usize,
    workers: Arc<Workers>,
    boundary: EventBoundary,
    /// Bytes that the client may not be able to read yet.
    unflushed: usize,
    /// When the first of them came; without them, when the last ones did, or were put in for the want of any.
    since: Instant,
    alarm: Alarm,
    _places: (Place, Option<Place>),
}

impl<S> std::fmt::Debug for Recoded<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recoded")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum State {
    Ready(Box<Transcoder>),
    /// Another thread is at it; behind the end of the source these trailers come.
    Working(oneshot::Receiver<Done>, Option<Ending>),
    Ended(Ending),
    /// It went wrong, and was said.
    Over,
}

/// The source has ended, with these trailers.
#[derive(Debug)]
struct Ending(Option<Fields>);

/// What a step came to, with the transcoder for the next, unless that was the last.
type Done = (Option<Box<Transcoder>>, Result<Bytes, RecodeError>);

#[derive(Debug)]
enum Transcoder {
    Encode(Encoder),
    Decode(Decoder),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// More comes at once.
    GoOn,
    /// Let the client read it.
    Flush,
    Finish,
}

impl Transcoder {
    fn step(self: Box<Self>, data: &[Bytes], then: Then) -> Done {
        match *self {
            Self::Encode(mut encoder) => {
                let written = data.iter().try_for_each(|piece| encoder.write(piece));
                let flushed = written.and_then(|()| match then {
                    Then::Flush => encoder.flush(),
                    Then::GoOn | Then::Finish => Ok(()),
                });
                match (flushed, then) {
                    (Err(error), _) => (None, Err(RecodeError::Encode(error))),
                    (Ok(()), Then::Finish) => (None, encoder.finish().map_err(RecodeError::Encode)),
                    (Ok(()), Then::GoOn | Then::Flush) => {
                        let out = encoder.take();
                        (Some(Box::new(Self::Encode(encoder))), Ok(out))
                    }
                }
            }
            Self::Decode(mut decoder) => {
                let mut out = Vec::new();
                for piece in data {
                    match decoder.decode(piece) {
                        Ok(decoded) => out.extend_from_slice(&decoded),
                        Err(error) => return (None, Err(error.into())),
                    }
                }
                match then {
                    Then::GoOn | Then::Flush => (Some(Box::new(Self::Decode(decoder))), Ok(out.into())),
                    Then::Finish => match decoder.finish() {
                        Ok(rest) => {
                            out.extend_from_slice(&rest);
                            (None, Ok(out.into()))
                        }
                        Err(error) => (None, Err(error.into())),
                    },
                }
            }
        }
    }
}

/// What the source has brought.
struct Brought {
    pieces: Vec<Bytes>,
    then: Then,
    ending: Option<Ending>,
}

impl<S: Source> Recoded<S> {
    /// What is ready at the source, as much as one batch takes; `Pending`: nothing is, and nothing is due.
    fn poll_brought(&mut self, cx: &mut Context<'_>) -> Poll<Result<Brought, RelayError>> {
        let mut brought = Brought {
            pieces: Vec::new(),
            then: Then::GoOn,
            ending: None,
        };
        let mut bytes = 0;
        while bytes < BATCH {
            match self.source.poll_piece(cx) {
                Poll::Ready(Ok(BodyEvent::Data(data))) => {
                    if data.is_empty() {
                        continue;
                    }
                    if self.unflushed == 0 {
                        self.since = Instant::now();
                    }
                    self.unflushed = self.unflushed.saturating_add(data.len());
                    bytes += data.len();
                    let ends_event = self.flushing.events.is_some() && {
                        self.boundary.pass(&data);
                        self.boundary.is_between_events()
                    };
                    brought.pieces.push(data);
                    if ends_event {
                        brought.then = Then::Flush;
                        break;
                    }
                }
                Poll::Ready(Ok(BodyEvent::End(mut trailers))) => {
                    if let Some(trailers) = &mut trailers {
                        drop_what_is_of_the_bytes(trailers);
                    }
                    brought.then = Then::Finish;
                    brought.ending = Some(Ending(trailers));
                    break;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if bytes > 0 => break,
                Poll::Pending => {
                    ready!(self.poll_due(cx));
                    brought.then = Then::Flush;
                    if self.unflushed == 0 {
                        brought.pieces.push(Bytes::from_static(HEARTBEAT));
                    }
                    break;
                }
            }
        }
        Poll::Ready(Ok(brought))
    }

    /// Ready when the silence has lasted so long that something must be sent.
    fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let after = match (self.unflushed, self.flushing.events) {
            (1.., _) => Some(self.flushing.pause),
            (0, Some(heartbeat)) if self.boundary.is_between_events() => heartbeat,
            (0, _) => None,
        };
        self.alarm.poll(cx, after.map(|time| self.since + time)).map(|_| ())
    }
}

impl<S: Source> Source for Recoded<S> {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyEvent, RelayError>> {
        loop {
            let (done, ending) = match std::mem::replace(&mut self.state, State::Over) {
                State::Over => return Poll::Ready(Err(RecodeError::Aborted.into())),
                State::Ended(Ending(trailers)) => return Poll::Ready(Ok(BodyEvent::End(trailers))),
                State::Working(mut done, ending) => match Pin::new(&mut done).poll(cx) {
                    Poll::Ready(Ok(done)) => (done, ending),
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(RecodeError::Aborted.into())),
                    Poll::Pending => {
                        self.state = State::Working(done, ending);
                        return Poll::Pending;
                    }
                },
                State::Ready(transcoder) => {
                    let Poll::Ready(brought) = self.poll_brought(cx) else {
                        self.state = State::Ready(transcoder);
                        return Poll::Pending;
                    };
                    let Brought { pieces, then, ending } = brought?;
                    let waiting = self.unflushed;
                    if then != Then::GoOn {
                        self.unflushed = 0;
                        self.since = Instant::now();
                    }
                    if waiting > self.inline {
                        let (sender, done) = oneshot::channel();
                        self.workers
                            .soon(move || drop(sender.send(transcoder.step(&pieces, then))));
                        self.state = State::Working(done, ending);
                        continue;
                    }
                    (transcoder.step(&pieces, then), ending)
                }
            };
            let (transcoder, out) = done;
            let out = out?;
            match (ending, transcoder) {
                (Some(ending), _) => self.state = State::Ended(ending),
                (None, Some(transcoder)) => self.state = State::Ready(transcoder),
                (None, None) => {}
            }
            if !out.is_empty() {
                return Poll::Ready(Ok(BodyEvent::Data(out)));
            }
        }
    }

    fn origin(&mut self) -> Option<&mut Origin> {
        self.source.origin()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_and_streams_have_places_of_their_own() {
        let places = Places::default();
        let how = |purpose| {
            How::Encode(Recipe {
                coding: Coding::Gzip,
                level: 1,
                purpose,
                length: None,
            })
        };
        let bodies: Vec<_> = std::iter::from_fn(|| places.take(&how(Purpose::Live))).collect();
        let streams: Vec<_> = std::iter::from_fn(|| places.take(&how(Purpose::Events))).collect();
        assert_eq!((bodies.len(), streams.len()), (MAX_UNDER_WAY, MAX_EVENTS));
        assert_eq!(places.taken(), MAX_UNDER_WAY + MAX_EVENTS);
        assert!(places.take(&How::Decode(Coding::Gzip, 1)).is_none());
        drop((bodies, streams));
        assert!(places.take(&how(Purpose::Live)).is_some());
        assert_eq!(places.taken(), 0);
    }
}
