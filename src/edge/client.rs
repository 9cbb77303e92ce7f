//! The client's side of one exchange, over HTTP/1.1 or HTTP/2.
//!
//! Everything that is sent is queued first and written by [`Client::poll_flush`]; [`Client::backlog`] tells how much waits, so that
//! whoever feeds it can stop. All methods work on `&mut self` and can be polled side by side in one task.

use std::task::{Context, Poll};

use bytes::Bytes;

use super::http1::Http1Client;
use super::http2::Http2Client;
use crate::http1::body::BodyError;
use crate::message::{BodyEvent, Fields, Lines, ResponseHead};

/// Where a request came from and its response goes.
#[derive(Debug)]
pub enum Client {
    Http1(Box<Http1Client>),
    Http2(Box<Http2Client>),
    /// Nobody: a fetch of Forebay's own. It has no body, never leaves, and takes everything.
    Nobody,
    /// The same, and its response is kept.
    Kept(Box<Kept>),
}

/// Why nothing more can be read from or written to a client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The client closed or reset the connection or stream.
    #[error("the client left: {0}")]
    Gone(std::io::Error),
    /// The request body breaks its framing.
    #[error("bad request body: {0}")]
    Body(#[from] BodyError),
}

/// The response to a fetch of Forebay's own.
#[derive(Debug)]
pub struct Kept {
    /// Bytes of the largest body that is kept.
    limit: usize,
    body: Vec<u8>,
    responded: bool,
    end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It has not come.
    Open,
    Whole,
    Broken,
    TooLarge,
}

impl Kept {
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            body: Vec::new(),
            responded: false,
            end: End::Open,
        }
    }

    /// The body. `None`: it did not come to its end, or was too large.
    pub fn whole(self) -> Option<Vec<u8>> {
        match self.end {
            End::Whole => Some(self.body),
            End::Open | End::Broken | End::TooLarge => None,
        }
    }

    fn send(&mut self, data: &[u8]) {
        if self.body.len().saturating_add(data.len()) > self.limit {
            self.end = End::TooLarge;
            self.body = Vec::new();
        }
        if self.end == End::Open {
            self.body.extend_from_slice(data);
        }
    }

    fn ends(&mut self, end: End) {
        if self.end == End::Open {
            self.end = end;
        }
    }

    fn flush(&self) -> Result<(), ClientError> {
        match self.end {
            End::TooLarge => Err(ClientError::Gone(std::io::Error::other("more than is kept"))),
            End::Open | End::Whole | End::Broken => Ok(()),
        }
    }
}

/// Does the same with either version of HTTP; where a fetch of Forebay's own keeps nothing, the same for both kinds of those.
macro_rules! either {
    ($self:expr, $client:ident => $body:expr, $own:expr) => {
        match $self {
            Client::Http1($client) => $body,
            Client::Http2($client) => $body,
            Client::Kept(_) | Client::Nobody => $own,
        }
    };
    ($self:expr, $client:ident => $body:expr, $kept:ident => $keep:expr, $nobody:expr) => {
        match $self {
            Client::Http1($client) => $body,
            Client::Http2($client) => $body,
            Client::Kept($kept) => $keep,
            Client::Nobody => $nobody,
        }
    };
}

impl Client {
    /// The next piece of the request body. After the end: [`BodyEvent::End`] again.
    pub fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyEvent, ClientError>> {
        either!(self, client => client.poll_body(cx), Poll::Ready(Ok(BodyEvent::End(None))))
    }

    /// Whether the request body has been read to its end.
    pub fn body_is_read(&self) -> bool {
        either!(self, client => client.body_is_read(), true)
    }

    /// Ready when the client has left, while nothing is read from it otherwise.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        either!(self, client => client.poll_gone(cx), Poll::Pending)
    }

    /// Queues an interim (1xx) response. HTTP/1.0 clients do not get any (RFC 9110 §15.2).
    pub fn interim(&mut self, head: &ResponseHead) {
        either!(self, client => client.interim(head), ());
    }

    /// Queues the head of the final response; its framing decides how the body is coded.
    pub fn respond(&mut self, head: &mut ResponseHead<impl Lines>) {
        either!(self, client => client.respond(head), kept => kept.responded = true, ());
    }

    /// Queues a piece of the response body.
    pub fn send(&mut self, data: Bytes) {
        either!(self, client => client.send(data), kept => kept.send(&data), ());
    }

    /// Queues a piece of the response body that others share: small ones are copied, so that nobody has to count who reads them.
    pub fn send_shared(&mut self, data: &Bytes) {
        match self {
            Self::Http1(client) => client.send_shared(data),
            Self::Kept(kept) => kept.send(data),
            Self::Http2(client) => client.send(data.clone()),
            Self::Nobody => {}
        }
    }

    /// Ends the response body.
    pub fn finish(&mut self, trailers: Option<&Fields>) {
        either!(self, client => client.finish(trailers), kept => kept.ends(End::Whole), ());
    }

    /// Breaks the response off in a way that the client can tell from its end: the connection is closed without a
    /// terminator, the stream is reset.
    pub fn abort(&mut self) {
        either!(self, client => client.abort(), kept => kept.ends(End::Broken), ());
    }

    /// Writes what is queued.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        either!(self, client => client.poll_flush(cx), kept => Poll::Ready(kept.flush()), Poll::Ready(Ok(())))
    }

    /// Writes what is queued, unless more is sure to follow without any wait: then it may leave together with that.
    pub fn poll_flush_or_gather(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        match self {
            Self::Http1(client) if client.may_gather() => Poll::Ready(Ok(())),
            client => client.poll_flush(cx),
        }
    }

    /// Bytes that are queued.
    pub fn backlog(&self) -> usize {
        either!(self, client => client.backlog(), 0)
    }

    /// Whether nothing waits to be written.
    pub fn is_flushed(&self) -> bool {
        either!(self, client => client.is_flushed(), true)
    }

    /// Bytes that have been written for this exchange, head included: tells progress.
    pub fn written(&self) -> u64 {
        either!(self, client => client.written(), 0)
    }

    /// Whether the final response's head has been queued.
    pub fn has_responded(&self) -> bool {
        either!(self, client => client.has_responded(), kept => kept.responded, false)
    }
}
