//! One HTTP/1 connection of a client, request after request.

mod seen;

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::Method;
use pingora_core::server::ShutdownWatch;
use tokio::time::Instant;

use self::seen::Seen;
pub use self::seen::{Expected, PriorKnowledge};
use super::client::ClientError;
use super::socket::Socket;
use super::stalled::Stalled;
use crate::http1::HeadScanner;
use crate::http1::body::{Decoder, Event};
use crate::http1::encode::{self, Connection};
use crate::http1::request::RequestError;
use crate::io::{Alarm, Inbox, Outbox};
use crate::message::{BodyEvent, Fields, Framing, Lines, RequestHead, ResponseHead, Version};

/// What is read ahead while a response is under way: a pipelined request or two. More stays in the socket.
const READ_AHEAD: usize = 16 * 1024;

/// How long a connection that is being closed is still read, so that the client sees our last response and not a reset.
const LINGER: Duration = Duration::from_secs(2);

/// Answers to pipelined requests are gathered up to this size, so that they leave in one write.
const GATHERED: usize = 16 * 1024;

/// How much of an unwanted request body is read and dropped to keep the connection.
const DRAIN: usize = 256 * 1024;

/// After so many exchanges a connection is one that is used again and again.
const SETTLED: u8 = 2;

/// A client's HTTP/1 connection and the exchange under way on it.
pub struct Http1Client {
    io: Socket,
    inbox: Inbox,
    outbox: Outbox,
    scanner: HeadScanner,
    decoder: Decoder,
    /// The request body has come to its end.
    body_read: bool,
    version: Version,
    method: Method,
    response: Response,
    connection: Connection,
    /// Bytes written before this exchange.
    written_before: u64,
    /// The client has closed its side.
    eof: bool,
    /// The client may hold its body back until it has seen a 100 (RFC 9110 §10.1.1).
    awaits_continue: bool,
    /// Exchanges that have ended, as far as that is of interest.
    exchanges: u8,
    /// While the next request is waited for.
    until: Option<Until>,
    stalled: Stalled,
    shutdown: ShutdownWatch,
}

/// How long a request is waited for.
#[derive(Debug, Clone, Copy)]
struct Until {
    idle: Instant,
    /// For the end of a head that has begun.
    head: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Response {
    /// No final head has been queued.
    None,
    /// The head is queued; a body follows in this framing.
    Body(Framing),
    Finished,
    /// Broken off; that is how its end would have been known.
    Aborted(Framing),
}

/// What came of waiting for a request.
#[derive(Debug)]
pub enum Next {
    Request(Arc<RequestHead>, Came),
    /// An HTTP/2 connection preface: these bytes have been read.
    Http2(BytesMut),
    /// The client closed the connection, or was silent for too long, between two requests.
    Closed,
    /// Bytes that are no request.
    Refused(RequestError),
    /// A head began and did not end in time.
    TimedOut,
}

/// When a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Came {
    Now,
    /// It was there already when the one before it was answered.
    Before,
}

/// How long to wait for a request head.
#[derive(Debug, Clone, Copy)]
pub struct HeadTimes {
    /// For its first byte.
    pub idle: Duration,
    /// From its first byte to its last.
    pub head: Duration,
    /// Since when it has been waited for, where that is known without looking at the clock.
    pub since: Option<Instant>,
}

/// What becomes of a connection after an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    Reuse,
    Close,
}

impl std::fmt::Debug for Http1Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http1Client")
            .field("response", &self.response)
            .field("outbox", &self.outbox)
            .finish_non_exhaustive()
    }
}

impl Http1Client {
    /// Once `shutdown` is true, each response says that it is the connection's last.
    pub fn new(io: Socket, shutdown: ShutdownWatch) -> Self {
        Self {
            io,
            inbox: Inbox::default(),
            outbox: Outbox::default(),
            scanner: HeadScanner::new(),
            decoder: Decoder::new(Framing::None),
            body_read: true,
            version: Version::Http11,
            method: Method::GET,
            response: Response::None,
            connection: Connection::Persistent,
            written_before: 0,
            eof: false,
            awaits_continue: false,
            exchanges: 0,
            until: None,
            stalled: Stalled::default(),
            shutdown,
        }
    }

    /// Waits for the next request.
    pub fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        expected: Expected<'_>,
        times: HeadTimes,
        alarm: &mut Alarm,
    ) -> Poll<Next> {
        loop {
            if !self.inbox.buffer.is_empty() {
                match expected.look(&self.inbox.buffer, &mut self.scanner) {
                    Seen::More => {}
                    seen => {
                        self.inbox.buffer.advance(seen.length());
                        return Poll::Ready(self.saw(seen));
                    }
                }
            }
            let since = match self.outbox.is_flushed() {
                true => times.since,
                // It has to be read first, which may take its time.
                false => None,
            };
            if ready!(self.poll_flush_gathered(cx, alarm)).is_err() {
                self.abort();
                return Poll::Ready(Next::Closed);
            }
            if self.eof {
                return Poll::Ready(Next::Closed);
            }
            let until = self.until.get_or_insert_with(|| Until {
                idle: since.unwrap_or_else(Instant::now) + times.idle,
                head: None,
            });
            let mut seen = Seen::More;
            let scanner = &mut self.scanner;
            let fill = self.inbox.poll_fill_or_use(cx, &mut self.io, |read| {
                // Usually this is a request, the whole of it and nothing else.
                seen = expected.look(read, scanner);
                seen.length()
            });
            match fill {
                Poll::Ready(Ok(0) | Err(_)) => {
                    self.eof = true;
                    return Poll::Ready(Next::Closed);
                }
                Poll::Ready(Ok(_)) => match seen {
                    Seen::More => {}
                    seen => return Poll::Ready(self.saw(seen)),
                },
                Poll::Pending => {
                    let head_has_begun = !self.inbox.buffer.is_empty();
                    let until = match head_has_begun {
                        false => until.idle,
                        true => *until.head.get_or_insert_with(|| Instant::now() + times.head),
                    };
                    ready!(alarm.poll(cx, Some(until)));
                    if head_has_begun {
                        self.refuse();
                        return Poll::Ready(Next::TimedOut);
                    }
                    return Poll::Ready(Next::Closed);
                }
            }
        }
    }

    fn saw(&mut self, seen: Seen) -> Next {
        let came = match self.until.take() {
            Some(_) => Came::Now,
            None => Came::Before,
        };
        match seen {
            Seen::Request(head, _) => {
                self.begin(&head);
                Next::Request(head, came)
            }
            Seen::Http2 => Next::Http2(std::mem::take(&mut self.inbox.buffer)),
            Seen::Refused(error) => {
                self.refuse();
                Next::Refused(error)
            }
            Seen::More => Next::Closed,
        }
    }

    /// Whether an answer that is queued may wait for that to the next request, of which at least the beginning has come.
    pub fn may_gather(&self) -> bool {
        self.response == Response::Finished
            && self.body_read
            && self.connection != Connection::Close
            && !self.inbox.buffer.is_empty()
            && self.outbox.backlog() < GATHERED
    }

    /// Writes answers that have waited for more, as long as the client keeps reading.
    fn poll_flush_gathered(&mut self, cx: &mut Context<'_>, alarm: &mut Alarm) -> Poll<io::Result<()>> {
        if self.outbox.is_flushed() {
            return Poll::Ready(Ok(()));
        }
        if let Poll::Ready(result) = self.outbox.poll_flush(cx, &mut self.io) {
            return Poll::Ready(result);
        }
        let deadline = self.stalled.after(self.outbox.written());
        alarm.poll(cx, deadline).map(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    fn begin(&mut self, head: &RequestHead) {
        self.decoder = Decoder::new(head.framing);
        self.body_read = self.decoder.is_done();
        self.awaits_continue = head.expects_continue;
        self.version = head.version;
        self.method = head.method.clone();
        self.response = Response::None;
        self.connection = match (head.keep_alive, head.version) {
            (false, _) => Connection::Close,
            (true, Version::Http10) => Connection::KeepAlive,
            (true, _) => Connection::Persistent,
        };
        self.written_before = self.outbox.written();
    }

    /// What was read is no request: one answer may follow, then the end.
    fn refuse(&mut self) {
        self.body_read = true;
        self.awaits_continue = false;
        self.version = Version::Http11;
        self.method = Method::GET;
        self.response = Response::None;
        self.connection = Connection::Close;
        self.written_before = self.outbox.written();
    }

    /// No further request will be read from this connection; said in the response's head if that is still to come.
    pub fn close_after(&mut self) {
        self.connection = Connection::Close;
    }

    /// After a 101: what follows is no longer HTTP, both ways.
    pub fn tunnel(&mut self) {
        self.decoder = Decoder::new(Framing::Close);
        self.body_read = false;
        self.response = Response::Body(Framing::Close);
        self.connection = Connection::Close;
    }

    pub fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyEvent, ClientError>> {
        if self.body_read {
            return Poll::Ready(Ok(BodyEvent::End(None)));
        }
        loop {
            match self.decoder.decode(&mut self.inbox.buffer)? {
                Event::Data(data) => {
                    self.awaits_continue = false;
                    return Poll::Ready(Ok(BodyEvent::Data(data)));
                }
                // The last thing of a body.
                Event::Trailers(fields) => {
                    self.body_read = true;
                    return Poll::Ready(Ok(BodyEvent::End(Some(fields))));
                }
                Event::End => {
                    self.body_read = true;
                    return Poll::Ready(Ok(BodyEvent::End(None)));
                }
                Event::NeedMore => {}
            }
            if self.eof {
                self.decoder.on_eof()?;
                self.body_read = true;
                return Poll::Ready(Ok(BodyEvent::End(None)));
            }
            match ready!(self.inbox.poll_fill(cx, &mut self.io)) {
                Ok(0) => self.eof = true,
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(ClientError::Gone(error))),
            }
        }
    }

    pub fn body_is_read(&self) -> bool {
        self.body_read
    }

    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.eof && self.inbox.buffer.len() < READ_AHEAD {
            match ready!(self.inbox.poll_fill(cx, &mut self.io)) {
                Ok(0) | Err(_) => self.eof = true,
                Ok(_) => {}
            }
        }
        match self.eof {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    pub fn interim(&mut self, head: &ResponseHead) {
        if self.version >= Version::Http11 && self.response == Response::None {
            self.awaits_continue &= head.status != 100;
            self.outbox
                .encode(|out| encode::interim_head(out, head.status, &head.fields));
        }
    }

    pub fn respond(&mut self, head: &mut ResponseHead<impl Lines>) {
        head.framing = match head.framing {
            framing @ (Framing::None | Framing::Length(_)) => framing,
            Framing::Chunked | Framing::Stream | Framing::Close if self.version >= Version::Http11 => Framing::Chunked,
            Framing::Chunked | Framing::Stream | Framing::Close => Framing::Close,
        };
        // A client whose expectation is not met sends its body or the next request: nobody can tell which of the two comes.
        if head.framing == Framing::Close || (self.awaits_continue && !self.body_read) || self.is_last() {
            self.connection = Connection::Close;
        }
        let connection = match head.status {
            101 => Connection::WebSocket,
            _ => self.connection,
        };
        if let Framing::Length(length) = head.framing {
            self.outbox.expect(length);
        }
        self.outbox
            .encode(|out| encode::response_head(out, head, &self.method, connection));
        self.response = match head.framing {
            Framing::None | Framing::Length(0) => Response::Finished,
            framing => Response::Body(framing),
        };
    }

    /// Takes back what is queued, which is the head of a response and no more, and nothing of it has been written.
    pub fn withdraw(&mut self) {
        self.outbox.clear();
        self.response = Response::None;
    }

    /// Whether the process is about to stop.
    fn is_last(&self) -> bool {
        // To look whether there is news is cheaper than to look at it, and there is hardly ever any.
        !matches!(self.shutdown.has_changed(), Ok(false)) && *self.shutdown.borrow()
    }

    pub fn send(&mut self, data: Bytes) {
        match self.response {
            Response::Body(Framing::Chunked) if !data.is_empty() => {
                self.outbox.encode(|out| encode::chunk_head(out, data.len() as u64));
                self.outbox.push(data);
                self.outbox.encode(|out| out.extend_from_slice(encode::CHUNK_END));
            }
            Response::Body(_) => self.outbox.push(data),
            Response::None | Response::Finished | Response::Aborted(_) => {}
        }
    }

    /// [`send`](Self::send), for what others share.
    pub fn send_shared(&mut self, data: &Bytes) {
        match self.response {
            Response::Body(Framing::Chunked) => self.send(data.clone()),
            Response::Body(_) => self.outbox.push_shared(data),
            Response::None | Response::Finished | Response::Aborted(_) => {}
        }
    }

    pub fn finish(&mut self, trailers: Option<&Fields>) {
        if let Response::Body(framing) = self.response {
            if framing == Framing::Chunked {
                self.outbox.encode(|out| match trailers {
                    Some(trailers) => encode::last_chunk(out, trailers),
                    None => out.extend_from_slice(encode::LAST_CHUNK),
                });
            }
            self.response = Response::Finished;
        }
    }

    pub fn abort(&mut self) {
        self.response = match self.response {
            Response::None => Response::Aborted(Framing::None),
            Response::Body(framing) => Response::Aborted(framing),
            ended => ended,
        };
        self.connection = Connection::Close;
    }

    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        self.outbox.poll_flush(cx, &mut self.io).map_err(ClientError::Gone)
    }

    pub fn backlog(&self) -> usize {
        self.outbox.backlog()
    }

    pub fn is_flushed(&self) -> bool {
        self.outbox.is_flushed()
    }

    pub fn written(&self) -> u64 {
        self.outbox.written() - self.written_before
    }

    pub fn has_responded(&self) -> bool {
        self.response != Response::None
    }

    /// Ends the exchange, and decides over the connection. `None`: something of the request body is left, and more may come; see
    /// [`end`](Self::end).
    pub fn end_at_once(&mut self) -> Option<After> {
        match (self.connection, self.response) {
            (Connection::Close, _) | (_, Response::None | Response::Body(_) | Response::Aborted(_)) => {
                Some(After::Close)
            }
            _ if !self.body_read => None,
            _ => {
                self.exchanges = self.exchanges.saturating_add(1);
                if self.exchanges >= SETTLED && self.outbox.is_flushed() {
                    self.io.settle();
                }
                Some(After::Reuse)
            }
        }
    }

    /// Ends the exchange: drops what is left of the request body if it is little, and decides over the connection.
    pub async fn end(&mut self, alarm: &mut Alarm) -> After {
        if let Some(after) = self.end_at_once() {
            return after;
        }
        let deadline = Instant::now() + LINGER;
        let _ = alarm.race(Some(deadline), self.drain()).await;
        match self.body_read {
            true => After::Reuse,
            false => After::Close,
        }
    }

    async fn drain(&mut self) {
        let mut left = DRAIN;
        while let Ok(BodyEvent::Data(data)) = poll_fn(|cx| self.poll_body(cx)).await {
            left = left.saturating_sub(data.len());
            if left == 0 {
                return;
            }
        }
    }

    /// Closes the connection so that what was written arrives: closing a socket with unread bytes in it resets the
    /// connection, and the reset would overtake our response.
    pub async fn close(mut self, alarm: &mut Alarm) {
        match self.response {
            // The end of the connection would pass for the end of the body (RFC 9112 §6.3).
            Response::Aborted(Framing::Close) => return self.io.reset_on_close(),
            Response::Aborted(_) => return,
            Response::None | Response::Body(_) | Response::Finished => {}
        }
        let deadline = Instant::now() + LINGER;
        let linger = async {
            tokio::io::AsyncWriteExt::shutdown(&mut self.io).await?;
            // However much it is: a client in the middle of a large upload has to come to read the response.
            while !self.eof {
                self.inbox.buffer.clear();
                self.eof = poll_fn(|cx| self.inbox.poll_fill(cx, &mut self.io)).await? == 0;
            }
            io::Result::Ok(())
        };
        let _ = alarm.race(Some(deadline), linger).await;
    }

    /// Whether nothing is under way but the wait for the next request.
    pub fn rests(&self) -> bool {
        self.inbox.buffer.is_empty() && self.outbox.is_flushed()
    }

    /// [`rests`](Self::rests), and it is known without a look at the socket that nothing more has come.
    pub fn rests_for_now(&self) -> bool {
        self.io.is_read() && self.inbox.buffer.capacity() == 0 && self.outbox.is_flushed()
    }

    /// Whether the client has closed its side, and nothing is left to be told to it.
    pub fn is_over(&self) -> bool {
        self.eof && self.outbox.is_flushed()
    }

    /// Takes a connection that [rests](Self::rests) out of the runtime. False: it stays there.
    pub fn detach(&mut self) -> bool {
        // It has not waited for anything since it has read the last time.
        self.inbox.rest();
        self.io.detach()
    }

    pub fn socket(&self) -> &Socket {
        &self.io
    }

    pub fn socket_mut(&mut self) -> &mut Socket {
        &mut self.io
    }

    /// Whether something of a next request is there.
    pub fn has_unread_bytes(&self) -> bool {
        !self.inbox.buffer.is_empty()
    }

    /// The connection, for HTTP/2.
    pub fn into_socket(self) -> Socket {
        self.io
    }
}

#[cfg(test)]
mod tests;
