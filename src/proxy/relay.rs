//! Bytes between a client and an origin, both ways at once, in one task.
//!
//! Everything is polled side by side on `&mut` halves, so there is no channel, no second task and no lock between the two
//! sockets, and a slow reader holds at most 64 KiB and one read.

mod head;
mod held;
mod progress;
mod source;
mod tunnel;
mod upload;

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;
use std::vec;

use bytes::Bytes;
use http::Method;
use tokio::time::Instant;

pub use self::source::Source;

use self::head::Head;
use self::held::Held;
use self::progress::{Due, Now, Progress, after, earliest};
use self::upload::Upload;
use super::recode::RecodeError;
use crate::cache::filling::Broken;
use crate::edge::client::{Client, ClientError};
use crate::edge::stalled::WRITE_PROGRESS;
use crate::http1::response::ResponseError;
use crate::io::Alarm;
use crate::message::{BodyEvent, ResponseHead};
use crate::transform::events::{EventBoundary, HEARTBEAT};
use crate::upstream::retry::Body;
use crate::upstream::{Origin, OriginError};

/// Queued bytes above which the other side is not read.
const HIGH_WATER: usize = 64 * 1024;

/// Interim responses passed on for one request. More is an origin gone wrong.
const MAX_INTERIM: u32 = 32;

/// The limits of one exchange.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of the request body. `None`: unlimited.
    pub request_body: Option<u64>,
    /// Between two reads of the request body.
    pub request_idle: Duration,
    /// Between two writes to the origin that made progress.
    pub send: Option<Duration>,
    /// From the end of the request to the head of the response.
    pub first_byte: Option<Duration>,
    /// Between two reads of the response body.
    pub between_bytes: Option<Duration>,
    /// Between two writes to the client that made progress.
    pub write: Duration,
    /// After this much silence of an event stream a comment is sent.
    pub heartbeat: Option<Duration>,
}

impl Limits {
    /// Of a response that does not come from an origin.
    pub const DOWNLOAD: Self = Self {
        request_body: None,
        request_idle: WRITE_PROGRESS,
        send: None,
        first_byte: None,
        between_bytes: None,
        write: WRITE_PROGRESS,
        heartbeat: None,
    };
}

/// Why an exchange did not come to a good end.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The client did not send its body for too long.
    #[error("the client sent nothing of its request body for {0:?}")]
    RequestTimeout(Duration),
    #[error("the request body is larger than {0} bytes")]
    RequestTooLarge(u64),
    /// The client did not read its response for too long.
    #[error("the client read nothing for {0:?}")]
    ClientStalled(Duration),
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// The fetch that this response was read from broke off.
    #[error("the fetch broke off: {}", .0.reason())]
    Fill(Broken),
    /// The body that came cannot be read, or there was no memory to compress it.
    #[error("the body cannot be recoded: {0}")]
    Recode(#[from] RecodeError),
}

/// How far one exchange has come. Its two sides are lent to it at each step.
#[derive(Debug)]
pub struct Relay {
    pub limits: Limits,
    upload: Upload,
    ahead: vec::IntoIter<BodyEvent>,
    held: Held,
    hold: Hold,
    head: Head,
    /// Bytes of the request body that were read.
    pub received: u64,
    /// Bytes of a tunnel that went to the client.
    pub sent: u64,
    client_read: Instant,
    client_wrote: Progress,
    origin_read: Instant,
    origin_wrote: Progress,
    interims: u32,
}

/// How long what was read of a request body may have to be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Another server could do the request over.
    UntilHead,
    /// Another server can only have it as long as this one has got nothing of it.
    UntilWritten,
}

impl Relay {
    /// The request's head is queued already. Up to `room` bytes of the request body are held.
    pub fn new(client: &Client, limits: Limits, room: usize, now: Instant) -> Self {
        let upload = match client.body_is_read() {
            true => Upload::Flushing,
            false => Upload::Streaming,
        };
        Self {
            limits,
            upload,
            ahead: vec::IntoIter::default(),
            held: Held::new(room),
            hold: Hold::UntilHead,
            head: Head::Free,
            received: 0,
            sent: 0,
            client_read: now,
            client_wrote: Progress::new(now),
            origin_read: now,
            origin_wrote: Progress::new(now),
            interims: 0,
        }
    }

    /// What has been read of the request body already: it comes first.
    pub fn begin_with(&mut self, ahead: Vec<BodyEvent>) {
        if !ahead.is_empty() {
            self.upload = Upload::Streaming;
            self.ahead = ahead.into_iter();
        }
    }

    /// Whether some of what was read before is still to be sent.
    pub fn is_ahead(&self) -> bool {
        self.ahead.len() > 0
    }

    /// For a response that does not come from an origin.
    pub fn download() -> Self {
        Self {
            upload: Upload::Done,
            ..Self::new(&Client::Nobody, Limits::DOWNLOAD, 0, Instant::now())
        }
    }

    /// Says what the origin of the next attempt is like.
    pub fn hold(&mut self, hold: Hold) {
        self.hold = hold;
    }

    /// When something of the origin's was read last.
    pub fn heard(&self) -> Instant {
        self.origin_read
    }

    /// Whether what was read of the request body can be sent again.
    pub fn held_body(&self) -> Body {
        self.held.body()
    }

    /// Begins anew with another origin, whose head is queued already. Only while [`held_body`](Self::held_body) says so.
    pub fn again(&mut self, client: &Client, limits: Limits, now: Instant) {
        self.held.rewind();
        let is_whole = client.body_is_read() && !self.is_ahead() && self.held.is_empty();
        *self = Self {
            limits,
            upload: match is_whole {
                true => Upload::Flushing,
                false => Upload::Streaming,
            },
            ahead: std::mem::take(&mut self.ahead),
            held: std::mem::take(&mut self.held),
            received: self.received,
            ..Self::new(client, Limits::DOWNLOAD, 0, now)
        };
    }

    /// No further attempt follows: the response goes on to the client.
    pub fn settle(&mut self) {
        self.held.let_go();
    }

    /// Sends the request and waits for the final response's head; passes interim ones on.
    ///
    /// # Errors
    /// Nothing but interim heads has been sent to the client.
    pub async fn head(
        &mut self,
        client: &mut Client,
        origin: &mut Origin,
        alarm: &mut Alarm,
        method: &Method,
    ) -> Result<ResponseHead, RelayError> {
        let mut begun = Now::at(self.origin_read);
        poll_fn(|cx| {
            let mut now = std::mem::take(&mut begun);
            loop {
                if let Poll::Ready(result) = self.poll_upload(cx, client, origin, &mut now) {
                    result?;
                }
                match origin.poll_head(cx, method) {
                    Poll::Ready(Ok(head)) if head.status < 200 && head.status != 101 => {
                        self.interims += 1;
                        if self.interims > MAX_INTERIM {
                            return Poll::Ready(Err(OriginError::Head(ResponseError::InterimBody).into()));
                        }
                        client.interim(&head);
                        continue;
                    }
                    Poll::Ready(result) => {
                        self.origin_read = Instant::now();
                        return Poll::Ready(result.map_err(RelayError::Origin));
                    }
                    Poll::Pending => {}
                }
                if !client.is_flushed()
                    && let Poll::Ready(result) = client.poll_flush(cx)
                {
                    result?;
                }
                if self.is_client_unread(origin.backlog()) && client.poll_gone(cx).is_ready() {
                    return Poll::Ready(Err(left()));
                }
                let (deadline, error) = self.head_deadline(origin);
                match alarm.poll(cx, deadline) {
                    Poll::Ready(_) => return Poll::Ready(Err(error)),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await
    }

    /// All of the response's body, where it came together with its head, and nothing of the request is left to be sent: then there is
    /// nothing to wait for.
    pub fn body_at_hand(&self, origin: &mut Origin) -> Option<Bytes> {
        match self.upload {
            Upload::Done | Upload::Stopped => origin.body_at_hand(),
            Upload::Streaming | Upload::Flushing => None,
        }
    }

    /// Passes the response's body on. Its head is queued already. At the end all of it is, too, and [`flush`](Self::flush) has to
    /// follow: the origin need not wait for that.
    ///
    /// # Errors
    /// What came before the error has been written, unless the head is still held; the client must be told that the body is not whole: see
    /// [`failure`](Self::failure).
    pub async fn body(
        &mut self,
        client: &mut Client,
        source: &mut impl Source,
        alarm: &mut Alarm,
        mut passing: impl FnMut(&Bytes),
    ) -> Result<(), RelayError> {
        let mut boundary = EventBoundary::default();
        let mut state = Download::Reading;
        self.client_wrote.at = self.origin_read;
        let mut begun = Now::at(self.origin_read);
        poll_fn(|cx| {
            let mut now = std::mem::take(&mut begun);
            let mut heard = false;
            loop {
                if let Some(origin) = source.origin()
                    && let Poll::Ready(result) = self.poll_upload(cx, client, origin, &mut now)
                {
                    result?;
                }
                let mut full = false;
                while matches!(state, Download::Reading) {
                    if client.backlog() >= HIGH_WATER {
                        full = true;
                        break;
                    }
                    match source.poll_piece(cx) {
                        Poll::Ready(Ok(BodyEvent::Data(data))) => {
                            heard = true;
                            if self.limits.heartbeat.is_some() {
                                boundary.pass(&data);
                            }
                            passing(&data);
                            client.send(data);
                        }
                        Poll::Ready(Ok(BodyEvent::End(trailers))) => {
                            heard = true;
                            client.finish(trailers.as_ref());
                            state = Download::Ended;
                        }
                        Poll::Ready(Err(error)) => state = Download::Failed(Some(error)),
                        Poll::Pending => break,
                    }
                }
                if heard {
                    self.origin_read = now.read();
                }
                // A head that fills the queue waits for nothing.
                if heard || full {
                    self.let_head(&mut now);
                }
                // While the request is still under way, both sides have to go on: the client may read nothing before it has written.
                if matches!((&state, self.upload), (Download::Ended, Upload::Done | Upload::Stopped)) {
                    return Poll::Ready(Ok(()));
                }
                let flushed = match self.holds_head() {
                    true => Poll::Ready(Ok(())),
                    false => client.poll_flush(cx),
                };
                match flushed {
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                    Poll::Ready(Ok(())) => match &mut state {
                        Download::Reading => {
                            self.client_wrote.flushed(client.written(), &mut now);
                            if full {
                                continue;
                            }
                        }
                        Download::Ended => return Poll::Ready(Ok(())),
                        Download::Failed(error) => match error.take() {
                            Some(error) => return Poll::Ready(Err(error)),
                            None => return Poll::Ready(Ok(())),
                        },
                    },
                    Poll::Pending => self.client_wrote.stuck(client.written(), client.backlog(), &mut now),
                }
                if self.is_client_unread(source.origin().map_or(0, |origin| origin.backlog()))
                    && client.poll_gone(cx).is_ready()
                {
                    return Poll::Ready(Err(left()));
                }
                let stalled = self.client_wrote.waits;
                let idle = self.client_wrote.at.max(self.origin_read);
                let (deadline, due) = earliest([
                    stalled.then(|| (self.client_wrote.at + self.limits.write, Due::ClientStalled)),
                    after(
                        self.origin_read,
                        self.limits.between_bytes.filter(|_| !stalled),
                        Due::OriginSilent,
                    ),
                    after(
                        idle,
                        self.limits
                            .heartbeat
                            .filter(|_| !stalled && boundary.is_between_events()),
                        Due::Heartbeat,
                    ),
                ]);
                match (alarm.poll(cx, deadline), due) {
                    (Poll::Pending, _) => return Poll::Pending,
                    (Poll::Ready(_), Due::Heartbeat) => {
                        self.client_wrote.at = now.read();
                        client.send(Bytes::from_static(HEARTBEAT));
                    }
                    (Poll::Ready(_), Due::ClientStalled) => {
                        return Poll::Ready(Err(RelayError::ClientStalled(self.limits.write)));
                    }
                    (Poll::Ready(_), Due::OriginSilent) => {
                        // What was sent so far stands; only the rest is missing.
                        let silent = self.limits.between_bytes.unwrap_or_default();
                        return Poll::Ready(Err(OriginError::BetweenBytesTimeout(silent).into()));
                    }
                }
            }
        })
        .await
    }

    /// Writes what is queued for the client.
    ///
    /// # Errors
    /// The client has left, or does not read.
    pub async fn flush(&mut self, client: &mut Client, alarm: &mut Alarm) -> Result<(), RelayError> {
        let mut begun = Now::at(self.origin_read);
        poll_fn(|cx| {
            if let Poll::Ready(result) = client.poll_flush(cx) {
                return Poll::Ready(result.map_err(RelayError::Client));
            }
            let mut now = std::mem::take(&mut begun);
            self.client_wrote.stuck(client.written(), client.backlog(), &mut now);
            if client.poll_gone(cx).is_ready() {
                return Poll::Ready(Err(left()));
            }
            let deadline = self.client_wrote.at + self.limits.write;
            let late = alarm.poll(cx, Some(deadline));
            late.map(|_| Err(RelayError::ClientStalled(self.limits.write)))
        })
        .await
    }

    fn head_deadline(&self, origin: &Origin) -> (Option<Instant>, RelayError) {
        let send = self.limits.send;
        let first_byte = self.limits.first_byte;
        match self.upload {
            Upload::Streaming | Upload::Flushing if origin.backlog() > 0 => (
                send.map(|time| self.origin_wrote.at + time),
                OriginError::SendTimeout(send.unwrap_or_default()).into(),
            ),
            Upload::Streaming => (
                Some(self.client_read.max(self.origin_wrote.at) + self.limits.request_idle),
                RelayError::RequestTimeout(self.limits.request_idle),
            ),
            Upload::Flushing | Upload::Done | Upload::Stopped => (
                first_byte.map(|time| self.origin_wrote.at + time),
                OriginError::FirstByteTimeout(first_byte.unwrap_or_default()).into(),
            ),
        }
    }
}

enum Download {
    Reading,
    Ended,
    Failed(Option<RelayError>),
}

fn left() -> RelayError {
    RelayError::Client(ClientError::Gone(std::io::ErrorKind::ConnectionAborted.into()))
}
