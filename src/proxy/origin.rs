//! A request goes out to a server, and the head of its response comes in.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use tokio::time::Instant;

use super::attempts::{Attempts, NoConnection, discard, pause};
use super::relay::{Hold, Limits, Relay, RelayError};
use super::{Decided, Failure, Proxy};
use crate::clock;
use crate::edge::client::Client;
use crate::edge::stalled::WRITE_PROGRESS;
use crate::exchange::{Exchange, Kind};
use crate::in_place::{boxed, pinned};
use crate::io::Alarm;
use crate::limit::concurrency::Permits;
use crate::limit::rate::{Admitted, Stage};
use crate::message::{Fields, Forwarded, Framing, RequestHead, ResponseHead};
use crate::metrics::Outcome;
use crate::respond::error::{self, ProxyError};
use crate::transform::compress::tags::restore_conditions;
use crate::transform::fields::{ForwardContext, ForwardRefusal, clean_response, forward_request};
use crate::transform::negotiate::Accepted;
use crate::upstream::breaker::Refused;
use crate::upstream::retry::MethodKind;
use crate::upstream::{AtOnce, Event, Origin, OriginError, Selection, Upstream};

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
        if exchange.kind != Kind::Behind
            && let Admitted::Ask = self.admit(decided, Stage::Forward, exchange)?
        {
            // Boxed, like other things that most requests do not wait for.
            pinned(|| self.ask(decided, Stage::Forward, client, exchange, alarm)).await?;
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
        conditions(&mut forwarded.fields);
        if exchange.counts_tokens() {
            // Its answer is read as it passes.
            forwarded.fields.set("Accept-Encoding", "identity");
        }
        let passage = match upstream.passage() {
            Ok(passage) => passage,
            Err(Refused { retry_after }) => return Err(ProxyError::CircuitOpen { retry_after }.into()),
        };
        let mut permits = match decided.generation.gates.any {
            true => pinned(|| self.enter(decided, client, exchange)).await?,
            false => Permits::default(),
        };
        let mut selection = Selection::of(&upstream.config().balance, request, exchange.client.ip);
        let sticky = upstream.sticky().map(|sticky| (sticky, self.clock.now()));
        let token = sticky.and_then(|(sticky, now)| {
            let mut values = exchange.own_cookie(&sticky.config().cookie);
            values.find_map(|value| sticky.read(value, now))
        });
        selection.sticky = token.map(|token| token.server);
        let mut began = clock::lately();
        let mut attempts = Attempts::new(upstream, request, selection, began);
        let mut relay = Relay::new(client, limits, upstream.holds(), began);
        relay.begin_with(std::mem::take(&mut exchange.ahead));
        // Until something has taken its time.
        let mut is_new = true;
        loop {
            let connected = match attempts.connect_at_once(began) {
                AtOnce::Connected(origin) => Ok(origin),
                at_once => {
                    let open = match at_once {
                        AtOnce::Open(open) => Some(open),
                        AtOnce::Connected(_) | AtOnce::Nothing => None,
                    };
                    // Boxed, because most requests find a connection and should not carry room for making one.
                    let connected = pinned(|| attempts.connect(client, open)).await;
                    began = Instant::now();
                    is_new = false;
                    connected
                }
            };
            let mut origin = match connected {
                Ok(origin) => origin,
                Err(NoConnection::ClientGone) => return Err(Failure::ClientGone),
                Err(NoConnection::Failed(error)) => match attempts.after_connecting(&error, relay.held_body()) {
                    Some(time) => {
                        pause(time, client, alarm).await?;
                        began = Instant::now();
                        continue;
                    }
                    None => {
                        if error.speaks_against_servers() {
                            passage.failed();
                        }
                        return Err(Failure::from(&error));
                    }
                },
            };
            exchange.server = Some(origin.server().label.clone());
            if forwarded.expects_continue && matches!(origin, Origin::Http2(_)) {
                client.interim(&go_on());
            }
            if !is_new {
                relay.again(client, attempts.limits(limits_of(decided)), began);
            }
            is_new = false;
            relay.hold(match (&origin, attempts.method()) {
                (Origin::Http1(_), MethodKind::Other) => Hold::UntilWritten,
                _ => Hold::UntilHead,
            });
            let head = match origin.request(&forwarded) {
                Ok(()) => relay.head(client, &mut origin, alarm, &request.method).await,
                Err(error) => Err(error.into()),
            };
            exchange.request_bytes = relay.received;
            if relay.received > 0 {
                // The client has been told to go on, or has not waited for it.
                forwarded.expects_continue = false;
                forwarded.fields.remove("expect");
            }
            let time = match head {
                Ok(head) if head.status == 101 && !switches(request, &head) => {
                    origin.record(Event::Failed(Outcome::InvalidResponse));
                    return Err(ProxyError::UpgradeFailed.into());
                }
                Ok(mut head) => {
                    origin.record(Event::Response {
                        status: head.status,
                        latency: relay.heard().saturating_duration_since(began),
                        at: relay.heard(),
                    });
                    match attempts.after_answer(&origin, &head, relay.held_body(), &self.clock) {
                        Some(time) => {
                            let outcome = match head.status {
                                500.. => Outcome::ServerError,
                                _ => Outcome::Ok,
                            };
                            origin.record(Event::Failed(outcome));
                            discard(origin);
                            time
                        }
                        None => {
                            passage.answered(head.status);
                            relay.settle();
                            permits.measure();
                            clean_response(&mut head, || self.http_date());
                            let server = origin.server().id;
                            exchange.set_cookie = sticky
                                .filter(|(sticky, now)| {
                                    exchange.kind != Kind::Behind && sticky.is_due(token, server, *now)
                                })
                                .map(|(sticky, now)| sticky.set_cookie(server, now));
                            return Ok(Sent::Response(boxed(|| Response {
                                origin,
                                relay,
                                head,
                                permits,
                            })));
                        }
                    }
                }
                Err(RelayError::Origin(OriginError::Closed(_))) if attempts.met_closing(&origin, relay.held_body()) => {
                    began = Instant::now();
                    continue;
                }
                Err(RelayError::Origin(error)) => {
                    let outcome = error.outcome();
                    origin.record(Event::Failed(outcome));
                    let failed = error.failed(origin.written_head());
                    let next = attempts.after_failure(&origin, failed, relay.held_body());
                    no_response(upstream, &origin, &error, next, exchange);
                    match next {
                        Some(time) => time,
                        None => {
                            if outcome.speaks_against_server() {
                                passage.failed();
                            }
                            return Err(Failure::from(&RelayError::Origin(error)));
                        }
                    }
                }
                Err(error) => {
                    origin.record(Event::Failed(Outcome::ClientGone));
                    return Err(Failure::from(&error));
                }
            };
            pause(time, client, alarm).await?;
            began = Instant::now();
        }
    }

    fn forwarded<'a>(
        &self,
        decided: &Decided<'a>,
        upstream: &'a Upstream,
        exchange: &Exchange,
    ) -> Result<Forwarded<'a>, ForwardRefusal> {
        let context = ForwardContext {
            client: &exchange.client,
            route: decided.route,
            captures: decided.captures,
            upstream: upstream.config(),
            request_id: exchange.request_id.as_bytes(),
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

/// Logs an attempt without a response: as a failure where nobody else is asked.
fn no_response(upstream: &Upstream, origin: &Origin, error: &OriginError, next: Option<Duration>, exchange: &Exchange) {
    let (upstream, server) = (&*upstream.config().name, &*origin.server().label);
    let request_id = exchange.request_id.as_str();
    match next {
        Some(after) => tracing::debug!(upstream, server, request_id, %error, ?after, "no response: trying again"),
        None => tracing::warn!(upstream, server, request_id, %error, "no response"),
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
