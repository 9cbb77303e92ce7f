//! The origin's side of one exchange, over HTTP/1.1 or HTTP/2. The mirror of [`Client`](crate::edge::client::Client).

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::Method;
use tokio::time::Instant;

use super::http1::Http1Origin;
use super::http2::{Http2Origin, Stream};
use super::{Event, OpenExchange, Reuse, Server, Transport};
use crate::http1::body::BodyError;
use crate::http1::response::ResponseError;
use crate::in_place::boxed;
use crate::message::{BodyEvent, Fields, Forwarded, ResponseHead, Version};

/// Where a request goes and its response comes from.
#[derive(Debug)]
pub enum Origin {
    Http1(Box<Http1Origin>),
    Http2(Box<Http2Origin>),
}

/// Why an exchange with a server failed after the connection was there.
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    /// Closed or reset before the first byte of a response. On a connection that had been idle this is the normal end of
    /// keep-alive (RFC 9112 §9.3.1), and the request can be sent again if its method allows.
    #[error("the connection ended before a response: {0}")]
    Closed(io::Error),
    /// The server has said that it has not worked on the request: it refused the stream, or said goodbye before it (RFC 9113 §6.8,
    /// §8.7).
    #[error("the server did not take the request: {0}")]
    Untaken(h2::Error),
    /// Closed or reset in the middle of a response.
    #[error("the connection ended within the response: {0}")]
    Cut(io::Error),
    #[error("malformed response: {0}")]
    Head(#[from] ResponseError),
    #[error("malformed response body: {0}")]
    Body(#[from] BodyError),
    #[error("HTTP/2: {0}")]
    Http2(#[from] h2::Error),
    #[error("no response within {0:?}")]
    FirstByteTimeout(Duration),
    #[error("silent for {0:?} within the response")]
    BetweenBytesTimeout(Duration),
    #[error("the request could not be sent for {0:?}")]
    SendTimeout(Duration),
}

macro_rules! either {
    ($self:expr, $origin:ident => $body:expr) => {
        match $self {
            Origin::Http1($origin) => $body,
            Origin::Http2($origin) => $body,
        }
    };
}

impl Origin {
    pub(super) fn http1(io: Transport, open: OpenExchange, reuse: Reuse) -> Self {
        Self::Http1(boxed(|| Http1Origin::new(io, open, reuse)))
    }

    pub(super) fn http2(requests: SendRequest<Bytes>, stream: Stream, open: OpenExchange) -> Self {
        Self::Http2(Box::new(Http2Origin::new(requests, stream, open)))
    }

    pub fn server(&self) -> &Arc<Server> {
        either!(self, origin => origin.open.server())
    }

    /// Tells what came of the attempt, wherever that counts.
    pub fn record(&self, event: Event) {
        either!(self, origin => origin.open.record(event));
    }

    pub fn version(&self) -> Version {
        match self {
            Self::Http1(_) => Version::Http11,
            Self::Http2(_) => Version::Http2,
        }
    }

    /// Whether the connection may have served a request before.
    pub fn reuse(&self) -> Reuse {
        match self {
            Self::Http1(origin) => origin.reuse,
            Self::Http2(_) => Reuse::Pooled,
        }
    }

    /// Queues the request's head.
    ///
    /// # Errors
    /// Over HTTP/2, where the connection has ended meanwhile.
    pub fn request(&mut self, head: &Forwarded<'_>) -> Result<(), OriginError> {
        either!(self, origin => origin.request(head))
    }

    /// Queues a piece of the request body.
    pub fn send(&mut self, data: Bytes) {
        either!(self, origin => origin.send(data));
    }

    /// Ends the request.
    pub fn finish(&mut self, trailers: Option<&Fields>) {
        either!(self, origin => origin.finish(trailers));
    }

    /// Writes what is queued.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), OriginError>> {
        either!(self, origin => origin.poll_flush(cx))
    }

    /// Bytes that are queued.
    pub fn backlog(&self) -> usize {
        either!(self, origin => origin.backlog())
    }

    /// Bytes that have been written for this exchange: tells progress.
    pub fn written(&self) -> u64 {
        either!(self, origin => origin.written())
    }

    /// Bytes of the request that the server may have got, its head included. `None`: over HTTP/2 a connection's bytes are not told apart.
    pub fn written_head(&self) -> Option<u64> {
        match self {
            Self::Http1(origin) => Some(origin.written()),
            Self::Http2(_) => None,
        }
    }

    /// The next interim head, or the final one.
    pub fn poll_head(&mut self, cx: &mut Context<'_>, method: &Method) -> Poll<Result<ResponseHead, OriginError>> {
        either!(self, origin => origin.poll_head(cx, method))
    }

    /// The next piece of the response body.
    pub fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyEvent, OriginError>> {
        either!(self, origin => origin.poll_body(cx))
    }

    /// All of the response's body, if it came together with its head.
    pub fn body_at_hand(&mut self) -> Option<Bytes> {
        match self {
            Self::Http1(origin) => origin.body_at_hand(),
            Self::Http2(_) => None,
        }
    }

    /// After a 101: what follows is no longer HTTP, both ways.
    pub fn tunnel(&mut self) {
        if let Self::Http1(origin) = self {
            origin.tunnel();
        }
    }

    /// Ends the exchange: the connection is kept if request and response are whole and it may live on, else closed. `since`: when the
    /// response's last bytes came.
    pub fn end(self, since: Instant) {
        match self {
            Self::Http1(origin) => origin.end(since),
            Self::Http2(origin) => origin.end(),
        }
    }
}
