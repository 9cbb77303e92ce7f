//! One HTTP/1 connection of a client, request after request.

use std::future::poll_fn;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::Method;
use pingora_core::server::ShutdownWatch;
use tokio::task::coop::consume_budget;
use tokio::time::Instant;

use super::client::ClientError;
use super::stalled::Stalled;
use crate::http1::body::{Decoder, Event};
use crate::http1::encode::{self, Connection};
use crate::http1::request::{self, RequestError};
use crate::http1::{HeadScanner, Limits};
use crate::io::{Alarm, Duplex, Inbox, Outbox, reset_on_close};
use crate::message::{BodyEvent, Fields, Framing, Lines, RequestHead, ResponseHead, Scheme, Version};

/// What is read ahead while a response is under way: a pipelined request or two. More stays in the socket.
const READ_AHEAD: usize = 16 * 1024;

/// How long a connection that is being closed is still read, so that the client sees our last response and not a reset.
const LINGER: Duration = Duration::from_secs(2);

/// Answers to pipelined requests are gathered up to this size, so that they leave in one write.
const GATHERED: usize = 16 * 1024;

/// How much of an unwanted request body is read and dropped to keep the connection.
const DRAIN: usize = 256 * 1024;

/// What begins an HTTP/2 connection (RFC 9113 §3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A client's HTTP/1 connection and the exchange under way on it.
pub struct Http1Client {
    io: Box<dyn Duplex>,
    fd: RawFd,
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
    shutdown: ShutdownWatch,
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

/// Whether HTTP/2 with prior knowledge is spoken on a plain connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PriorKnowledge {
    Accepted,
    Refused,
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
    /// `fd` is the descriptor under `io`.
    pub fn new(io: Box<dyn Duplex>, fd: RawFd, shutdown: ShutdownWatch) -> Self {
        Self {
            io,
            fd,
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
            shutdown,
        }
    }

    /// Waits for the next request.
    pub async fn next(
        &mut self,
        scheme: Scheme,
        limits: &Limits,
        http2: PriorKnowledge,
        times: HeadTimes,
        alarm: &mut Alarm,
    ) -> Next {
        let mut idle_until = None;
        let mut head_until = None;
        loop {
            let read = &self.inbox.buffer;
            if http2 == PriorKnowledge::Accepted
                && !read.is_empty()
                && HTTP2_PREFACE.starts_with(&read[..read.len().min(HTTP2_PREFACE.len())])
            {
                if read.len() >= HTTP2_PREFACE.len() {
                    return Next::Http2(std::mem::take(&mut self.inbox.buffer));
                }
            } else if !read.is_empty() {
                match request::parse_more(read, &mut self.scanner, limits, scheme) {
                    Ok(Some((head, consumed))) => {
                        let came = match idle_until {
                            Some(_) => Came::Now,
                            None => {
                                // Nothing else in a long row of pipelined requests would let other connections have their turn.
                                consume_budget().await;
                                Came::Before
                            }
                        };
                        self.inbox.buffer.advance(consumed);
                        self.begin(&head);
                        return Next::Request(Arc::new(head), came);
                    }
                    Ok(None) => {}
                    Err(error) => {
                        self.refuse();
                        return Next::Refused(error);
                    }
                }
            }
            let since = match self.outbox.backlog() {
                0 => times.since,
                // It has to be read first, which may take its time.
                _ => None,
            };
            if self.flush_gathered(alarm).await.is_err() {
                self.abort();
                return Next::Closed;
            }
            if self.eof {
                return Next::Closed;
            }
            let idle_until = *idle_until.get_or_insert_with(|| since.unwrap_or_else(Instant::now) + times.idle);
            let until = match self.inbox.buffer.is_empty() {
                true => idle_until,
                false => *head_until.get_or_insert_with(|| Instant::now() + times.head),
            };
            let fill = poll_fn(|cx| self.inbox.poll_fill(cx, &mut *self.io));
            match alarm.race(Some(until), fill).await {
                Ok(Ok(0) | Err(_)) => self.eof = true,
                Ok(Ok(_)) => {}
                Err(_) if self.inbox.buffer.is_empty() => return Next::Closed,
                Err(_) => {
                    self.refuse();
                    return Next::TimedOut;
                }
            }
            if self.eof && self.inbox.buffer.is_empty() {
                return Next::Closed;
            }
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
    async fn flush_gathered(&mut self, alarm: &mut Alarm) -> io::Result<()> {
        if self.outbox.backlog() == 0 {
            return Ok(());
        }
        let mut stalled = Stalled::default();
        poll_fn(|cx| {
            if let Poll::Ready(result) = self.outbox.poll_flush(cx, &mut *self.io) {
                return Poll::Ready(result);
            }
            let deadline = stalled.after(self.outbox.written());
            alarm.poll(cx, deadline).map(|_| Err(io::ErrorKind::TimedOut.into()))
        })
        .await
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
            match ready!(self.inbox.poll_fill(cx, &mut *self.io)) {
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
            match ready!(self.inbox.poll_fill(cx, &mut *self.io)) {
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
        if head.framing == Framing::Close || (self.awaits_continue && !self.body_read) || *self.shutdown.borrow() {
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
        self.outbox.poll_flush(cx, &mut *self.io).map_err(ClientError::Gone)
    }

    pub fn backlog(&self) -> usize {
        self.outbox.backlog()
    }

    pub fn written(&self) -> u64 {
        self.outbox.written() - self.written_before
    }

    pub fn has_responded(&self) -> bool {
        self.response != Response::None
    }

    /// Ends the exchange: drops what is left of the request body if it is little, and decides over the connection.
    pub async fn end(&mut self, alarm: &mut Alarm) -> After {
        if self.response != Response::Finished {
            return After::Close;
        }
        if !self.body_read && self.connection != Connection::Close {
            let deadline = Instant::now() + LINGER;
            let _ = alarm.race(Some(deadline), self.drain()).await;
        }
        match (self.connection, self.body_read) {
            (Connection::Close, _) | (_, false) => After::Close,
            _ => After::Reuse,
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
            Response::Aborted(Framing::Close) => return reset_on_close(&*self.io, self.fd),
            Response::Aborted(_) => return,
            Response::None | Response::Body(_) | Response::Finished => {}
        }
        let deadline = Instant::now() + LINGER;
        let linger = async {
            tokio::io::AsyncWriteExt::shutdown(&mut self.io).await?;
            // However much it is: a client in the middle of a large upload has to come to read the response.
            while !self.eof {
                self.inbox.buffer.clear();
                self.eof = poll_fn(|cx| self.inbox.poll_fill(cx, &mut *self.io)).await? == 0;
            }
            io::Result::Ok(())
        };
        let _ = alarm.race(Some(deadline), linger).await;
    }

    /// Whether something of a next request is there.
    pub fn has_unread_bytes(&self) -> bool {
        !self.inbox.buffer.is_empty()
    }

    /// The connection, for HTTP/2.
    pub fn into_io(self) -> Box<dyn Duplex> {
        self.io
    }
}

#[cfg(test)]
mod tests;
