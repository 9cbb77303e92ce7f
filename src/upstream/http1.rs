//! An exchange over an HTTP/1.1 connection to a server.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::Method;
use tokio::time::Instant;

use super::{OpenExchange, OriginError, Reuse, Transport};
use crate::http1::body::{Decoder, Event};
use crate::http1::encode::{self, Connection};
use crate::http1::{HeadScanner, Limits, response};
use crate::io::{Inbox, Outbox};
use crate::message::{BodyEvent, Fields, Forwarded, Framing, ResponseHead};

/// What may be read of an origin's response head.
const LIMITS: Limits = Limits {
    head: 256 * 1024,
    fields: 500,
    ..Limits::DEFAULT
};

pub struct Http1Origin {
    pub(super) open: OpenExchange,
    pub(super) reuse: Reuse,
    io: Transport,
    inbox: Inbox,
    outbox: Outbox,
    scanner: HeadScanner,
    request: Request,
    response: Response,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    /// Nothing is queued.
    None,
    /// The head is queued; a body follows in this framing.
    Body(Framing),
    Finished,
}

enum Response {
    /// The final head has not come.
    Head,
    Body {
        decoder: Decoder,
        keep_alive: bool,
    },
    Whole {
        keep_alive: bool,
    },
    Tunnel,
}

impl std::fmt::Debug for Http1Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http1Origin")
            .field("open", &self.open)
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}

impl Http1Origin {
    pub fn new(io: Transport, open: OpenExchange, reuse: Reuse) -> Self {
        Self {
            open,
            reuse,
            io,
            inbox: Inbox::default(),
            outbox: Outbox::default(),
            scanner: HeadScanner::new(),
            request: Request::None,
            response: Response::Head,
        }
    }

    pub fn request(&mut self, head: &Forwarded<'_>) -> Result<(), OriginError> {
        let framing = match head.framing {
            Framing::Stream | Framing::Close => Framing::Chunked,
            framing => framing,
        };
        let connection = match head.upgrade {
            true => Connection::WebSocket,
            false => Connection::Persistent,
        };
        let (method, target, authority) = (head.method, &head.target, head.authority);
        self.outbox
            .encode(|out| encode::request_head(out, method, target, authority, &head.fields, framing, connection));
        self.request = match framing {
            Framing::None | Framing::Length(0) => Request::Finished,
            framing => Request::Body(framing),
        };
        Ok(())
    }

    pub fn send(&mut self, data: Bytes) {
        match self.request {
            Request::Body(Framing::Chunked) if !data.is_empty() => {
                self.outbox.encode(|out| encode::chunk_head(out, data.len() as u64));
                self.outbox.push(data);
                self.outbox.encode(|out| out.extend_from_slice(encode::CHUNK_END));
            }
            Request::Body(_) => self.outbox.push(data),
            Request::None | Request::Finished => {}
        }
    }

    pub fn finish(&mut self, trailers: Option<&Fields>) {
        if let Request::Body(framing) = self.request {
            if framing == Framing::Chunked {
                self.outbox.encode(|out| match trailers {
                    Some(trailers) => encode::last_chunk(out, trailers),
                    None => out.extend_from_slice(encode::LAST_CHUNK),
                });
            }
            self.request = Request::Finished;
        }
    }

    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), OriginError>> {
        self.outbox
            .poll_flush(cx, &mut self.io)
            .map_err(|error| match self.response {
                Response::Head => OriginError::Closed(error),
                _ => OriginError::Cut(error),
            })
    }

    pub fn backlog(&self) -> usize {
        self.outbox.backlog()
    }

    pub fn written(&self) -> u64 {
        self.outbox.written()
    }

    pub fn poll_head(&mut self, cx: &mut Context<'_>, method: &Method) -> Poll<Result<ResponseHead, OriginError>> {
        loop {
            if !self.inbox.buffer.is_empty() {
                let received = response::parse_more(&self.inbox.buffer, &mut self.scanner, &LIMITS, method)?;
                if let Some(response::ReceivedHead {
                    head,
                    length,
                    keep_alive,
                }) = received
                {
                    self.inbox.buffer.advance(length);
                    if head.status >= 200 {
                        self.response = match head.framing {
                            Framing::None | Framing::Length(0) => Response::Whole { keep_alive },
                            framing => Response::Body {
                                decoder: Decoder::new(framing),
                                keep_alive,
                            },
                        };
                    }
                    return Poll::Ready(Ok(head));
                }
            }
            let error = match ready!(self.inbox.poll_fill(cx, &mut self.io)) {
                Ok(0) => io::ErrorKind::UnexpectedEof.into(),
                Ok(_) => continue,
                Err(error) => error,
            };
            return Poll::Ready(Err(match self.inbox.buffer.is_empty() {
                true => OriginError::Closed(error),
                false => OriginError::Cut(error),
            }));
        }
    }

    pub fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyEvent, OriginError>> {
        match &mut self.response {
            Response::Head | Response::Whole { .. } => Poll::Ready(Ok(BodyEvent::End(None))),
            Response::Tunnel => self.poll_raw(cx),
            Response::Body { decoder, keep_alive } => {
                loop {
                    match decoder.decode(&mut self.inbox.buffer)? {
                        Event::Data(data) => return Poll::Ready(Ok(BodyEvent::Data(data))),
                        // The last thing of a body.
                        Event::Trailers(fields) => {
                            self.response = Response::Whole {
                                keep_alive: *keep_alive,
                            };
                            return Poll::Ready(Ok(BodyEvent::End(Some(fields))));
                        }
                        Event::End => {
                            self.response = Response::Whole {
                                keep_alive: *keep_alive,
                            };
                            return Poll::Ready(Ok(BodyEvent::End(None)));
                        }
                        Event::NeedMore => {}
                    }
                    match ready!(self.inbox.poll_fill(cx, &mut self.io)) {
                        Ok(0) => {
                            if decoder.on_eof().is_err() {
                                return Poll::Ready(Err(OriginError::Cut(io::ErrorKind::UnexpectedEof.into())));
                            }
                            self.response = Response::Whole { keep_alive: false };
                            return Poll::Ready(Ok(BodyEvent::End(None)));
                        }
                        Ok(_) => {}
                        Err(error) => return Poll::Ready(Err(OriginError::Cut(error))),
                    }
                }
            }
        }
    }

    pub fn body_at_hand(&mut self) -> Option<Bytes> {
        let Response::Body { decoder, keep_alive } = &mut self.response else {
            return None;
        };
        let body = decoder.rest_at_once(&mut self.inbox.buffer)?;
        self.response = Response::Whole {
            keep_alive: *keep_alive,
        };
        Some(body)
    }

    fn poll_raw(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyEvent, OriginError>> {
        if self.inbox.buffer.is_empty() {
            match ready!(self.inbox.poll_fill(cx, &mut self.io)) {
                Ok(0) => return Poll::Ready(Ok(BodyEvent::End(None))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(OriginError::Cut(error))),
            }
        }
        Poll::Ready(Ok(BodyEvent::Data(self.inbox.buffer.split().freeze())))
    }

    pub fn tunnel(&mut self) {
        self.request = Request::Body(Framing::Close);
        self.response = Response::Tunnel;
    }

    pub fn end(self: Box<Self>, since: Instant) {
        let clean = self.request == Request::Finished && self.outbox.is_flushed() && self.inbox.buffer.is_empty();
        if clean && matches!(self.response, Response::Whole { keep_alive: true }) {
            self.open.server().keep(self.io, since);
        }
    }
}
