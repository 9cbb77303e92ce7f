//! The attempts at one request: which server is next, whether there is a next one, and when.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::Failure;
use super::relay::Limits;
use crate::clock::Clock;
use crate::edge::client::Client;
use crate::io::Alarm;
use crate::message::{BodyEvent, RequestHead, ResponseHead};
use crate::rfc9111::date::{Timestamp, parse_http_date};
use crate::upstream::retry::{Body, Charge, Decision, Failed, MethodKind, Request, decide};
use crate::upstream::{AtOnce, ConnectError, OpenExchange, Origin, Reuse, Selection, Tried, Upstream};

/// Bytes of a response that nobody gets which are read, if they are there, so that its connection can be used again.
const DISCARD: usize = 64 * 1024;

pub(super) struct Attempts<'a> {
    upstream: &'a Arc<Upstream>,
    selection: Selection,
    method: MethodKind,
    began: Instant,
    /// Attempts after the first.
    retries: u32,
    tried: Tried,
    reuse: Reuse,
}

/// Why there is no connection for an attempt.
pub(super) enum NoConnection {
    ClientGone,
    Failed(ConnectError),
}

impl<'a> Attempts<'a> {
    pub fn new(upstream: &'a Arc<Upstream>, request: &RequestHead, selection: Selection, now: Instant) -> Self {
        upstream.earn();
        Self {
            upstream,
            selection,
            method: match request.method.is_idempotent() {
                true => MethodKind::Idempotent,
                false => MethodKind::Other,
            },
            began: now,
            retries: 0,
            tried: Tried::default(),
            reuse: Reuse::Pooled,
        }
    }

    pub fn method(&self) -> MethodKind {
        self.method
    }

    /// The limits of the next attempt: one after the first has no more time than is left for all of them.
    pub fn limits(&self, mut limits: Limits) -> Limits {
        let left = self.time_left();
        limits.first_byte = match (limits.first_byte, left) {
            (Some(first_byte), Some(left)) => Some(first_byte.min(left)),
            (first_byte, left) => first_byte.or(left),
        };
        limits
    }

    /// `None`: the first attempt, or one that nothing is configured for.
    fn time_left(&self) -> Option<Duration> {
        let policy = self.upstream.retry_policy()?;
        (self.retries > 0).then(|| policy.time_left(self.began.elapsed()))
    }

    /// A connection, if nobody has to be waited for.
    pub fn connect_at_once(&self, now: Instant) -> AtOnce {
        let selection = &self.selection;
        self.upstream.connect_at_once(&self.tried, self.reuse, selection, now)
    }

    /// A connection to a server, to one that has not been tried if there is one, unless the client leaves first.
    ///
    /// `open`: what [`connect_at_once`](Self::connect_at_once) has found.
    pub async fn connect(
        &mut self,
        client: &mut Client,
        mut open: Option<OpenExchange>,
    ) -> Result<Origin, NoConnection> {
        let deadline = self.time_left().map(|left| Instant::now() + left);
        loop {
            let connected = {
                let connecting = self
                    .upstream
                    .connect(&mut self.tried, self.reuse, &self.selection, open.take());
                let mut connecting = std::pin::pin!(within(deadline, connecting));
                poll_fn(|cx| match connecting.as_mut().poll(cx) {
                    Poll::Ready(result) => Poll::Ready(Some(result)),
                    Poll::Pending => client.poll_gone(cx).map(|()| None),
                })
                .await
            };
            match connected {
                Some(Ok(origin)) => return Ok(origin),
                // All of them have been: from the beginning.
                Some(Err(ConnectError::NoServer)) if !self.tried.is_empty() => self.tried = Tried::default(),
                Some(Err(error)) => return Err(NoConnection::Failed(error)),
                None => return Err(NoConnection::ClientGone),
            }
        }
    }

    /// The server that the client was to get its response from had closed the idle connection as we wrote to it: no answer to this
    /// request, and nothing that speaks against the server. Whether to send the request again, on a new connection.
    pub fn met_closing(&mut self, origin: &Origin, body: Body) -> bool {
        let was_idle = self.reuse == Reuse::Pooled && origin.reuse() == Reuse::Pooled;
        if was_idle {
            self.reuse = Reuse::Fresh;
        }
        was_idle && self.method == MethodKind::Idempotent && body == Body::Held
    }

    /// No server could be connected to. The pause before the next attempt; `None`: there is none.
    pub fn after_connecting(&mut self, error: &ConnectError, body: Body) -> Option<Duration> {
        if !error.speaks_against_servers() {
            return None;
        }
        let pause = self.next(Failed::Unreachable, body)?;
        self.tried = Tried::default();
        Some(pause)
    }

    /// The attempt failed. The pause before the next one; `None`: there is none.
    pub fn after_failure(&mut self, origin: &Origin, failed: Failed, body: Body) -> Option<Duration> {
        let pause = self.next(failed, body)?;
        self.tried.add(origin.server().id);
        Some(pause)
    }

    /// A response came. The pause before the next attempt; `None`: it is the answer.
    pub fn after_answer(
        &mut self,
        origin: &Origin,
        head: &ResponseHead,
        body: Body,
        clock: &Clock,
    ) -> Option<Duration> {
        let policy = self.upstream.retry_policy()?;
        if !policy.statuses.contains(&head.status) {
            return None;
        }
        let retry_after = retry_after(head, Timestamp::from(clock.now()));
        self.after_failure(origin, Failed::Answered { retry_after }, body)
    }

    fn next(&mut self, failed: Failed, body: Body) -> Option<Duration> {
        let request = Request {
            method: self.method,
            body,
            retries: self.retries,
            elapsed: self.began.elapsed(),
        };
        match decide(self.upstream.retry_policy(), request, failed, fastrand::f64()) {
            Decision::Stop => None,
            Decision::Again { charge, .. } if charge == Charge::Budget && !self.upstream.spend() => None,
            Decision::Again { after, .. } => {
                self.retries += 1;
                self.upstream.metrics.retry();
                Some(after)
            }
        }
    }
}

async fn within(
    deadline: Option<Instant>,
    connecting: impl Future<Output = Result<Origin, ConnectError>>,
) -> Result<Origin, ConnectError> {
    let Some(deadline) = deadline else {
        return connecting.await;
    };
    let left = deadline.saturating_duration_since(Instant::now());
    match tokio::time::timeout_at(deadline, connecting).await {
        Ok(result) => result,
        Err(_) => Err(ConnectError::Timeout(left)),
    }
}

/// Waits before the next attempt, unless the client leaves.
pub(super) async fn pause(time: Duration, client: &mut Client, alarm: &mut Alarm) -> Result<(), Failure> {
    if time.is_zero() {
        return Ok(());
    }
    let until = Instant::now() + time;
    poll_fn(|cx| match alarm.poll(cx, Some(until)) {
        Poll::Ready(_) => Poll::Ready(Ok(())),
        Poll::Pending => client.poll_gone(cx).map(|()| Err(Failure::ClientGone)),
    })
    .await
}

/// Lets a response go that nobody gets. If all of it is there, its connection can be used again.
pub(super) fn discard(mut origin: Origin) {
    let mut cx = Context::from_waker(Waker::noop());
    let mut room = DISCARD;
    loop {
        match origin.poll_body(&mut cx) {
            Poll::Ready(Ok(BodyEvent::Data(data))) if data.len() <= room => room -= data.len(),
            Poll::Ready(Ok(BodyEvent::End(_))) => return origin.end(Instant::now()),
            _ => return,
        }
    }
}

/// What a response says about the time before another request (RFC 9110 §10.2.3). What is neither seconds nor a date says nothing.
fn retry_after(head: &ResponseHead, now: Timestamp) -> Option<Duration> {
    let value = head.fields.get("retry-after")?;
    let text = std::str::from_utf8(value).ok()?.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // More seconds than fit are too many in any case.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let date = parse_http_date(value, now)?;
    Some(Duration::from_secs(date.as_secs().saturating_sub(now.as_secs())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Fields, Framing};

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = Timestamp::from_secs(784_111_777);
        for (value, expected) in [
            ("0", Some(0)),
            ("120", Some(120)),
            ("99999999999999999999", Some(u64::MAX)),
            ("Sun, 06 Nov 1994 08:50:00 GMT", Some(23)),
            ("Sun, 06 Nov 1994 08:49:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
            ("", None),
        ] {
            let mut fields = Fields::new();
            fields.push("Retry-After", value);
            let head = ResponseHead {
                status: 503,
                fields,
                framing: Framing::None,
                declared_length: None,
            };
            assert_eq!(
                retry_after(&head, now).map(|after| after.as_secs()),
                expected,
                "{value}"
            );
        }
    }
}
