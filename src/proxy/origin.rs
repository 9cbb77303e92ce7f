//! A request goes out to a server, and the head of its response comes in.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use tokio::time::Instant;

use super::relay::{Limits, Relay, RelayError};
use super::{Decided, Failure, Proxy, WRITE_PROGRESS};
use crate::edge::client::Client;
use crate::exchange::{Exchange, Kind};
use crate::io::Alarm;
use crate::limit::concurrency::Permits;
use crate::message::{Fields, Framing, RequestHead, ResponseHead};
use crate::metrics::Outcome;
use crate::respond::error::{self, ProxyError};
use crate::transform::compress::tags::restore_conditions;
use crate::transform::fields::{ForwardContext, ForwardRefusal, clean_response, forward_request};
use crate::transform::negotiate::Accepted;
use crate::upstream::{Event, Origin, OriginError, Reuse, Selection, Tried, Upstream};

/// Between two reads of a request body.
const REQUEST_IDLE: Duration = Duration::from_secs(30);

/// How long a WebSocket or a gRPC call may be silent.
pub(crate) const LONG_IDLE: Duration = Duration::from_secs(3600);

/// A response whose head has come.
pub(crate) struct Response {
    pub origin: Origin,
    pub relay: Relay,
    /// Without what belongs to the origin's connection.
    pub head: ResponseHead,
    /// Held as long as the origin is busy with it.
    pub permits: Permits,
}

/// What came of a request.
pub(super) enum Sent {
    Response(Box<Response>),
    /// It was for us, and has been answered (RFC 9110 §7.6.2).
    Answered,
}

impl Proxy {
    /// Sends the request on and waits for the response's head. `conditions` may change the fields that are sent.
    pub(super) async fn send(
        &self,
        decided: &Decided<'_>,
        conditions: impl Fn(&mut Fields),
        client: &mut Client,
        exchange: &mut Exchange,
        alarm: &mut Alarm,
    ) -> Result<Sent, Failure> {
        let Decided { request, route, .. } = *decided;
        let limits = limits_of(decided);
        if let (Framing::Length(length), Some(limit)) = (request.framing, limits.request_body)
            && length > limit
        {
            return Err(ProxyError::BodyTooLarge.into());
        }
        if exchange.kind != Kind::Behind {
            self.admit_forward(decided, exchange).await?;
        }
        let Some(upstream) = decided.generation.upstreams.get(route.upstream) else {
            return Err(ProxyError::NoServer.into());
        };
        let mut forwarded = match self.forwarded(decided, upstream, exchange) {
            Ok(forwarded) => forwarded,
            Err(ForwardRefusal::FinalRecipient) => {
                let head = error::options(exchange.request_id.as_str(), &self.http_date());
                self.answer(head, Bytes::new(), client, exchange, alarm).await?;
                return Ok(Sent::Answered);
            }
            Err(refusal) => return Err(ProxyError::from(refusal).into()),
        };
        if decided.generation.compresses {
            restore_conditions(&mut forwarded.fields, Accepted::of(&request.fields));
        }
        let mut permits = self.enter(decided, client, exchange).await?;
        conditions(&mut forwarded.fields);
        let replayable = request.method.is_idempotent() && client.body_is_read();
        let mut selection = Selection::of(&upstream.config().balance, request, exchange.client.ip);
        let (sticky, now) = (upstream.sticky(), self.clock.now());
        let token = sticky.and_then(|sticky| {
            let mut values = exchange.own_cookie(&sticky.config().cookie);
            values.find_map(|value| sticky.read(value, now))
        });
        selection.sticky = token.map(|token| token.server);
        let mut tried = Tried::default();
        let mut reuse = Reuse::Pooled;
        loop {
            let mut origin = connect(upstream, &mut tried, reuse, &selection, client).await?;
            exchange.server = Some(origin.server().label.clone());
            let began = Instant::now();
            if forwarded.expects_continue && matches!(origin, Origin::Http2(_)) {
                client.interim(&go_on());
            }
            let mut relay = Relay::new(client, limits.clone());
            let head = match origin.request(&forwarded) {
                Ok(()) => relay.head(client, &mut origin, alarm, &request.method).await,
                Err(error) => Err(error.into()),
            };
            exchange.request_bytes = relay.received;
            let error = match head {
                Ok(head) if head.status == 101 && !switches(request, &head) => {
                    origin.record(Event::Ended(Outcome::InvalidResponse));
                    return Err(ProxyError::UpgradeFailed.into());
                }
                Ok(mut head) => {
                    origin.record(Event::Response {
                        status: head.status,
                        latency: began.elapsed(),
                    });
                    permits.measure();
                    clean_response(&mut head, &self.http_date());
                    let server = origin.server().id;
                    exchange.set_cookie = sticky
                        .filter(|sticky| exchange.kind != Kind::Behind && sticky.is_due(token, server, now))
                        .map(|sticky| sticky.set_cookie(server, now));
                    return Ok(Sent::Response(Box::new(Response {
                        origin,
                        relay,
                        head,
                        permits,
                    })));
                }
                Err(error) => error,
            };
            match &error {
                RelayError::Origin(OriginError::Closed(_))
                    if reuse == Reuse::Pooled && origin.reuse() == Reuse::Pooled && replayable =>
                {
                    // The server had closed the idle connection as we wrote to it: that is no answer to this request.
                    reuse = Reuse::Fresh;
                    continue;
                }
                RelayError::Origin(error) => {
                    origin.record(Event::Ended(error.outcome()));
                    tracing::warn!(
                        upstream = &*upstream.config().name,
                        server = &*origin.server().label,
                        request_id = exchange.request_id.as_str(),
                        %error,
                        "no response"
                    );
                }
                _ => origin.server().metrics.outcome(Outcome::ClientGone),
            }
            return Err(Failure::from(&error));
        }
    }

    fn forwarded(
        &self,
        decided: &Decided<'_>,
        upstream: &Upstream,
        exchange: &Exchange,
    ) -> Result<RequestHead, ForwardRefusal> {
        let context = ForwardContext {
            client: &exchange.client,
            route: decided.route,
            captures: decided.captures,
            upstream: upstream.config(),
            request_id: exchange.request_id.as_str(),
            pseudonym: &self.pseudonym,
        };
        let mut forwarded = forward_request(decided.request, &context)?;
        // A client that waits for a 100 waits for the origin's: only it knows whether it wants the body.
        forwarded.expects_continue = decided.request.expects_continue && forwarded.framing != Framing::None;
        if forwarded.expects_continue && !upstream.config().http2 {
            forwarded.fields.push("Expect", "100-continue");
        }
        Ok(forwarded)
    }
}

/// A connection to a server, unless the client leaves first.
async fn connect(
    upstream: &Arc<Upstream>,
    tried: &mut Tried,
    reuse: Reuse,
    selection: &Selection,
    client: &mut Client,
) -> Result<Origin, Failure> {
    let mut connecting = std::pin::pin!(upstream.connect(tried, reuse, selection));
    let connected = poll_fn(|cx| match connecting.as_mut().poll(cx) {
        Poll::Ready(result) => Poll::Ready(Some(result)),
        Poll::Pending => client.poll_gone(cx).map(|()| None),
    })
    .await;
    match connected {
        Some(Ok(origin)) => Ok(origin),
        Some(Err(error)) => Err(Failure::from(&error)),
        None => Err(Failure::ClientGone),
    }
}

pub(crate) fn limits_of(decided: &Decided<'_>) -> Limits {
    let Decided {
        request,
        route,
        generation,
        ..
    } = *decided;
    let timeouts = generation
        .config
        .upstreams
        .get(route.upstream)
        .map(|upstream| &upstream.timeouts);
    let is_call = is_grpc(request);
    Limits {
        request_body: route.max_request_body.filter(|_| !is_call),
        request_idle: if is_call { LONG_IDLE } else { REQUEST_IDLE },
        send: timeouts.and_then(|timeouts| timeouts.send),
        first_byte: match &route.stream {
            Some(stream) => stream.first_event,
            None if is_call => Some(LONG_IDLE),
            None => timeouts.and_then(|timeouts| timeouts.first_byte),
        },
        between_bytes: match is_call {
            true => Some(LONG_IDLE),
            false => timeouts.and_then(|timeouts| timeouts.between_bytes),
        },
        write: WRITE_PROGRESS,
        heartbeat: None,
    }
}

/// gRPC calls may stream both ways for as long as they like.
fn is_grpc(request: &RequestHead) -> bool {
    request.method == Method::POST
        && request
            .fields
            .get("content-type")
            .is_some_and(|value| value.starts_with(b"application/grpc"))
}

/// Whether a 101 is the one that the client asked for.
pub(crate) fn switches(request: &RequestHead, head: &ResponseHead) -> bool {
    request.upgrade && head.fields.has_token("upgrade", "websocket")
}

fn go_on() -> ResponseHead {
    ResponseHead {
        status: 100,
        fields: Fields::new(),
        framing: Framing::None,
        declared_length: None,
    }
}
