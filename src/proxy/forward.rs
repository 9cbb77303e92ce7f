//! A request that goes to the origin, and its response on the way back.

use std::future::poll_fn;
use std::time::Duration;

use http::Method;
use tokio::time::Instant;

use super::relay::{Limits, Relay, RelayError};
use super::{Decided, Failure, Proxy, WRITE_PROGRESS};
use crate::config;
use crate::edge::client::{Client, ClientError};
use crate::exchange::{Exchange, Kind};
use crate::io::Alarm;
use crate::message::{Framing, RequestHead, ResponseHead};
use crate::metrics::Outcome;
use crate::respond::error::{self, ProxyError};
use crate::transform::events::is_event_stream;
use crate::transform::fields::{Delivery, ForwardContext, ForwardRefusal, clean_response, forward_request};
use crate::upstream::{Origin, OriginError, Reuse, Tried, Upstream};

/// Between two reads of a request body.
const REQUEST_IDLE: Duration = Duration::from_secs(30);

/// How long a WebSocket or a gRPC call may be silent.
const LONG_IDLE: Duration = Duration::from_secs(3600);

/// Between two events, where the route does not say.
pub const STREAM_BETWEEN_BYTES: Duration = Duration::from_secs(300);

impl Proxy {
    /// Passes a request on and its response back.
    pub(super) async fn forward(
        &self,
        decided: &Decided<'_>,
        client: &mut Client,
        exchange: &mut Exchange,
        alarm: &mut Alarm,
    ) -> Result<(), Failure> {
        let Decided { request, route, .. } = *decided;
        let limits = limits_of(decided);
        if let (Framing::Length(length), Some(limit)) = (request.framing, limits.request_body)
            && length > limit
        {
            return Err(ProxyError::BodyTooLarge.into());
        }
        let Some(upstream) = decided.generation.upstreams.get(route.upstream) else {
            return Err(ProxyError::NoServer.into());
        };
        let mut tried = Tried::default();
        let mut reuse = Reuse::Pooled;
        loop {
            let mut origin = connect(upstream, &mut tried, reuse, client).await?;
            exchange.server = Some(origin.server().label.clone());
            let began = Instant::now();
            let forwarded = match self.forwarded(decided, upstream, &origin, exchange) {
                Ok(forwarded) => forwarded,
                Err(ForwardRefusal::FinalRecipient) => {
                    origin.end();
                    let head = error::options(exchange.request_id.as_str(), &self.http_date());
                    return self.answer(head, bytes::Bytes::new(), client, exchange, alarm).await;
                }
                Err(refusal) => {
                    origin.end();
                    return Err(ProxyError::from(refusal).into());
                }
            };
            if forwarded.expects_continue && matches!(origin, Origin::Http2(_)) {
                client.interim(&go_on());
            }
            let replayable = request.method.is_idempotent() && client.body_is_read();
            let sent = origin.request(&forwarded).map_err(RelayError::Origin);
            let mut relay = Relay::new(client, &mut origin, alarm, limits.clone());
            let head = match sent {
                Ok(()) => relay.head(&request.method).await,
                Err(error) => Err(error),
            };
            exchange.request_bytes = relay.received;
            let error = match head {
                Ok(head) => {
                    upstream.metrics.duration(began.elapsed());
                    let result = self.deliver(decided, head, relay, exchange).await;
                    let outcome = match &result {
                        Ok(()) if exchange.status >= 500 => Outcome::ServerError,
                        Ok(()) => Outcome::Ok,
                        Err((outcome, _)) => *outcome,
                    };
                    origin.server().metrics.outcome(outcome);
                    match result {
                        Ok(()) => origin.end(),
                        Err((_, failure)) => return Err(failure),
                    }
                    return Ok(());
                }
                Err(error) => error,
            };
            let server = origin.server().clone();
            match &error {
                RelayError::Origin(OriginError::Closed(_)) if origin.reuse() == Reuse::Pooled && replayable => {
                    // The server had closed the idle connection as we wrote to it: not an answer to this request.
                    reuse = Reuse::Fresh;
                    continue;
                }
                RelayError::Origin(error) => {
                    server.metrics.outcome(error.outcome());
                    tracing::warn!(
                        upstream = &*upstream.config().name,
                        server = &*server.label,
                        request_id = exchange.request_id.as_str(),
                        %error,
                        "no response"
                    );
                }
                _ => server.metrics.outcome(Outcome::ClientGone),
            }
            return Err(Failure::from(&error));
        }
    }

    fn forwarded(
        &self,
        decided: &Decided<'_>,
        upstream: &Upstream,
        origin: &Origin,
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
        if forwarded.expects_continue && matches!(origin, Origin::Http1(_)) {
            forwarded.fields.push("Expect", "100-continue");
        }
        Ok(forwarded)
    }

    /// Passes a response on whose head has come.
    async fn deliver(
        &self,
        decided: &Decided<'_>,
        mut head: ResponseHead,
        mut relay: Relay<'_>,
        exchange: &mut Exchange,
    ) -> Result<(), (Outcome, Failure)> {
        if head.status == 101 {
            return self.tunnel(decided, head, relay, exchange).await;
        }
        clean_response(&mut head, &self.http_date());
        let is_stream = decided.route.stream.is_some() || head.fields.get("content-type").is_some_and(is_event_stream);
        let metrics = &decided.generation.routes.get(decided_index(exchange)).map(|route| route.metrics.clone());
        let mut counted = None;
        let delivery = match is_stream {
            true => {
                limit_stream(&mut relay.limits, decided.route.stream.as_ref(), &head);
                exchange.kind = Kind::Stream;
                counted = metrics.as_ref().map(|metrics| (metrics.stream_guard(), self.work.stream()));
                Delivery::Stream
            }
            false => Delivery::Whole,
        };
        self.finish(decided, &mut head, delivery, exchange);
        let has_body = head.framing != Framing::None;
        exchange.responds(head.status);
        relay.client.respond(head);
        if !has_body {
            relay.client.finish(None);
        }
        let mut first = is_stream;
        let started = exchange.started;
        let mut bytes = 0;
        let result = relay
            .body(|data| {
                bytes += data.len() as u64;
                if first && let Some(metrics) = metrics {
                    first = false;
                    metrics.first_event(started.elapsed());
                }
            })
            .await;
        drop(counted);
        exchange.response_bytes = bytes;
        exchange.request_bytes = relay.received;
        match result {
            Ok(()) => Ok(()),
            Err(error) => {
                let outcome = match &error {
                    RelayError::Origin(error) => {
                        let server = relay.origin.server();
                        let request_id = exchange.request_id.as_str();
                        tracing::warn!(server = &*server.label, request_id, %error, "a response broke off");
                        error.outcome()
                    }
                    _ => Outcome::ClientGone,
                };
                Err((outcome, Failure::within_response(&error)))
            }
        }
    }

    /// After a 101, bytes go both ways.
    async fn tunnel(
        &self,
        decided: &Decided<'_>,
        mut head: ResponseHead,
        mut relay: Relay<'_>,
        exchange: &mut Exchange,
    ) -> Result<(), (Outcome, Failure)> {
        let is_websocket = head.fields.has_token("upgrade", "websocket");
        let (true, true, Client::Http1(_)) = (decided.request.upgrade, is_websocket, &*relay.client) else {
            return Err((Outcome::InvalidResponse, ProxyError::UpgradeFailed.into()));
        };
        clean_response(&mut head, "");
        self.finish(decided, &mut head, Delivery::Whole, exchange);
        exchange.responds(101);
        exchange.kind = Kind::Stream;
        let metrics = decided.generation.routes.get(decided_index(exchange)).map(|route| &route.metrics);
        let _counted = (metrics.map(|metrics| metrics.stream_guard()), self.work.stream());
        relay.client.respond(head);
        if let Client::Http1(http1) = &mut *relay.client {
            http1.tunnel();
        }
        relay.origin.tunnel();
        let result = relay.tunnel(LONG_IDLE).await;
        exchange.request_bytes = relay.received;
        exchange.response_bytes = relay.sent;
        match result {
            Ok(()) | Err(RelayError::Client(ClientError::Gone(_)) | RelayError::Origin(_)) => {
                relay.client.finish(None);
                Ok(())
            }
            Err(error) => Err((Outcome::ClientGone, Failure::within_response(&error))),
        }
    }
}

/// A connection to a server, unless the client leaves first.
async fn connect(
    upstream: &Upstream,
    tried: &mut Tried,
    reuse: Reuse,
    client: &mut Client,
) -> Result<Origin, Failure> {
    let mut connecting = std::pin::pin!(upstream.connect(tried, reuse));
    let connected = poll_fn(|cx| match connecting.as_mut().poll(cx) {
        std::task::Poll::Ready(result) => std::task::Poll::Ready(Some(result)),
        // While a body is still to come the client's bytes are not ours to look at.
        std::task::Poll::Pending if client.body_is_read() => client.poll_gone(cx).map(|()| None),
        std::task::Poll::Pending => std::task::Poll::Pending,
    })
    .await;
    match connected {
        Some(Ok(origin)) => Ok(origin),
        Some(Err(error)) => Err(Failure::from(&error)),
        None => Err(Failure::ClientGone),
    }
}

fn limits_of(decided: &Decided<'_>) -> Limits {
    let Decided { request, route, generation, .. } = *decided;
    let timeouts = generation.config.upstreams.get(route.upstream).map(|upstream| &upstream.timeouts);
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
        && request.fields.get("content-type").is_some_and(|value| value.starts_with(b"application/grpc"))
}

fn limit_stream(limits: &mut Limits, stream: Option<&config::Stream>, head: &ResponseHead) {
    match stream {
        Some(stream) => {
            limits.between_bytes = stream.between_bytes;
            // A comment can be put into events only, and only where their bytes are not encoded.
            let takes_comments = head.fields.get("content-type").is_some_and(is_event_stream)
                && !head.fields.contains("content-encoding")
                && matches!(head.framing, Framing::Chunked | Framing::Stream | Framing::Close);
            limits.heartbeat = stream.heartbeat.filter(|_| takes_comments);
        }
        None => limits.between_bytes = Some(STREAM_BETWEEN_BYTES),
    }
}

fn decided_index(exchange: &Exchange) -> usize {
    exchange.route.unwrap_or(usize::MAX)
}

fn go_on() -> ResponseHead {
    ResponseHead { status: 100, fields: Default::default(), framing: Framing::None, declared_length: None }
}
