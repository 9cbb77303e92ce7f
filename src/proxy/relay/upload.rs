//! The request on its way to the origin.

use std::task::{Context, Poll, ready};

use super::progress::Now;
use super::{HIGH_WATER, Hold, Relay, RelayError};
use crate::edge::client::Client;
use crate::message::BodyEvent;
use crate::transform::fields::clean_trailers;
use crate::upstream::Origin;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Upload {
    Streaming,
    /// All of the body is queued, not all of it is written.
    Flushing,
    Done,
    /// The origin takes no more; its response may still come.
    Stopped,
}

impl Relay {
    /// Ready when the request has been written, or can no longer be.
    pub(super) fn poll_upload(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client,
        origin: &mut Origin,
        now: &mut Now,
    ) -> Poll<Result<(), RelayError>> {
        loop {
            let mut waiting = false;
            while self.upload == Upload::Streaming && origin.backlog() < HIGH_WATER {
                match self.poll_request_body(cx, client, now) {
                    Poll::Ready(Ok(BodyEvent::Data(data))) => origin.send(data),
                    Poll::Ready(Ok(BodyEvent::End(trailers))) => {
                        origin.finish(trailers.as_ref());
                        self.upload = Upload::Flushing;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => {
                        waiting = true;
                        break;
                    }
                }
            }
            if matches!(self.upload, Upload::Done | Upload::Stopped) {
                return Poll::Ready(Ok(()));
            }
            let flushed = origin.poll_flush(cx);
            if self.hold == Hold::UntilWritten && origin.written() > 0 {
                self.held.let_go();
            }
            match flushed {
                Poll::Pending => self.origin_wrote.stuck(origin.written(), origin.backlog(), now),
                Poll::Ready(_) => self.origin_wrote.flushed(origin.written(), now),
            }
            match flushed {
                Poll::Ready(Ok(())) if self.upload == Upload::Flushing => {
                    self.upload = Upload::Done;
                    self.origin_wrote.at = now.read();
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Ok(())) if waiting => return Poll::Pending,
                Poll::Ready(Ok(())) => {}
                // An origin that answers early may close its side (RFC 9112 §9.5). Its response counts; if there is none, reading
                // it tells why.
                Poll::Ready(Err(_)) => {
                    self.upload = Upload::Stopped;
                    self.origin_wrote.at = now.read();
                    return Poll::Ready(Ok(()));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// The next piece of the request body: of what an earlier attempt has read, then of what was read before there was one, then of
    /// the client's.
    fn poll_request_body(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client,
        now: &mut Now,
    ) -> Poll<Result<BodyEvent, RelayError>> {
        if let Some(event) = self.held.next() {
            return Poll::Ready(Ok(event));
        }
        let mut event = match self.ahead.next() {
            Some(event) => event,
            None => ready!(client.poll_body(cx))?,
        };
        match &mut event {
            BodyEvent::Data(data) => {
                self.client_read = now.read();
                self.received += data.len() as u64;
                if let Some(limit) = self.limits.request_body
                    && self.received > limit
                {
                    return Poll::Ready(Err(RelayError::RequestTooLarge(limit)));
                }
                self.held.push(data);
            }
            BodyEvent::End(trailers) => {
                if let Some(trailers) = trailers {
                    clean_trailers(trailers);
                }
                self.held.finish(trailers.as_ref());
            }
        }
        Poll::Ready(Ok(event))
    }

    /// The request body is over, or waits for the origin to take what is queued.
    pub(super) fn is_client_unread(&self, backlog: usize) -> bool {
        self.upload != Upload::Streaming || backlog >= HIGH_WATER
    }
}
