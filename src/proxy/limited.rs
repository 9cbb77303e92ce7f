//! Requests meet the limits of their route.

use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use tokio::time::Instant;

use super::origin::limits_of;
use super::relay::RelayError;
use super::{Decided, Failure, Proxy, http_date_of};
use crate::edge::client::Client;
use crate::exchange::{Exchange, Kind};
use crate::generation::Generation;
use crate::io::Alarm;
use crate::limit::concurrency::{Full, Permits};
use crate::limit::keys::Subject;
use crate::limit::rate::{Admitted, Stage, TooMany};
use crate::limit::tokens::{self, Estimate, LARGEST_READ, PromptReader};
use crate::message::{BodyEvent, Fields, Framing};
use crate::respond::error::ProxyError;
use crate::respond::refusal;
use crate::rfc9111::date::Timestamp;

impl Proxy {
    /// Whether the request's limits let it in, as far as can be told without waiting. Costs nothing where there are none.
    pub(super) fn admit(
        &self,
        decided: &Decided<'_>,
        stage: Stage,
        exchange: &mut Exchange,
    ) -> Result<Admitted, TooMany> {
        let route = decided.generation.routes.get(decided.index);
        let Some(limits) = route.and_then(|route| route.limits.as_ref()) else {
            return Ok(Admitted::In);
        };
        let now = match stage {
            Stage::Arrival => self.clock.uptime_at(exchange.started),
            Stage::Forward => self.clock.uptime(),
        };
        let subject = subject(decided, exchange);
        limits.admit(stage, subject, now, &mut exchange.standing)
    }

    /// Asks what has to be waited for, after [`Proxy::admit`] has said so: the request's body for what it asks for, and the store that
    /// instances share.
    pub(super) async fn ask(
        &self,
        decided: &Decided<'_>,
        stage: Stage,
        client: &mut Client,
        exchange: &mut Exchange,
        alarm: &mut Alarm,
    ) -> Result<(), Failure> {
        let route = decided.generation.routes.get(decided.index);
        let Some(limits) = route.and_then(|route| route.limits.as_ref()) else {
            return Ok(());
        };
        let estimate = match limits.needs_body(stage, &subject(decided, exchange)) {
            true => read_ahead(decided, client, exchange, alarm).await?,
            false => Estimate::NOTHING,
        };
        let (subject, now) = (subject(decided, exchange), self.clock.uptime());
        limits
            .ask(stage, subject, estimate, now, &mut exchange.standing)
            .await?;
        Ok(())
    }

    /// Waits for a place in all gates that the request has to pass, the narrowest first, unless the client leaves. What is fetched behind
    /// a response waits for nobody's place.
    pub(super) async fn enter(
        &self,
        decided: &Decided<'_>,
        client: &mut Client,
        exchange: &Exchange,
    ) -> Result<Permits, Failure> {
        let gates = &decided.generation.gates;
        let mut permits = Permits::default();
        if decided.request.upgrade || decided.route.stream.is_some() {
            self.enter_stream(decided.generation, &mut permits)?;
            return Ok(permits);
        }
        let clients = gates.clients.as_ref().filter(|_| exchange.kind != Kind::Behind);
        let own = clients.map(|clients| clients.of(subject(decided, exchange)));
        let route = gates.routes.get(decided.index).and_then(Option::as_ref);
        let upstream = gates.upstreams.get(decided.route.upstream).and_then(Option::as_ref);
        let all = [own.as_ref(), route, upstream, gates.overall.as_ref()];
        for gate in all.into_iter().flatten() {
            let entered = match exchange.kind {
                Kind::Behind => gate.try_enter(),
                Kind::Short | Kind::Stream => {
                    let mut entering = gate.enter(Instant::now() + gate.queue_timeout());
                    poll_fn(|cx| match Pin::new(&mut entering).poll(cx) {
                        Poll::Ready(entered) => Poll::Ready(Ok(entered)),
                        Poll::Pending => client.poll_gone(cx).map(|()| Err(Failure::ClientGone)),
                    })
                    .await?
                }
            };
            permits.push(entered.map_err(overloaded)?);
        }
        Ok(permits)
    }

    /// A response has turned out to be a stream: it is counted with those, and gives its other places back.
    pub(super) fn enter_stream(&self, generation: &Generation, permits: &mut Permits) -> Result<(), Failure> {
        permits.release();
        if let Some(streams) = &generation.gates.streams {
            permits.push(streams.try_enter().map_err(overloaded)?);
        }
        Ok(())
    }

    /// Queues the answer to a request that is too much: no task, no timer, no upstream.
    pub(super) fn queue_refusal(
        &self,
        too_many: &TooMany,
        now: Timestamp,
        fields: &Fields,
        client: &mut Client,
        exchange: &mut Exchange,
    ) {
        exchange.error = Some(refusal::REASON);
        let Some(standing) = &exchange.standing else {
            // Whoever refuses says so there.
            return client.abort();
        };
        let request_id = exchange.request_id.as_bytes();
        let date = http_date_of(now);
        let (mut head, body) = standing.refusal(too_many, fields.get("accept"), request_id, &date);
        let request = exchange.request.as_ref();
        let has_body = request.is_none_or(|request| request.method != http::Method::HEAD);
        if !has_body {
            head.framing = Framing::None;
        }
        exchange.status = head.status;
        client.respond(&mut head);
        if has_body {
            exchange.response_bytes = body.len() as u64;
            client.send(body);
        }
        client.finish(None);
    }
}

/// Finds out how many tokens a request asks for. What has to be read of its body for that goes on to the server first; of a body that is
/// too long, or not in JSON, the length counts.
async fn read_ahead(
    decided: &Decided<'_>,
    client: &mut Client,
    exchange: &mut Exchange,
    alarm: &mut Alarm,
) -> Result<Estimate, Failure> {
    let request = decided.request;
    if !exchange.ahead.is_empty() || client.body_is_read() || !tokens::is_read(request) {
        return Ok(Estimate::of_head(request));
    }
    let limits = limits_of(decided);
    let mut reader = PromptReader::default();
    let mut read = 0;
    loop {
        let since = Instant::now();
        let event = poll_fn(|cx| match client.poll_body(cx) {
            Poll::Ready(event) => Poll::Ready(event.map_err(RelayError::Client)),
            Poll::Pending => {
                let late = alarm.poll(cx, Some(since + limits.request_idle));
                late.map(|_| Err(RelayError::RequestTimeout(limits.request_idle)))
            }
        })
        .await
        .map_err(|error| Failure::from(&error))?;
        let is_over = match &event {
            BodyEvent::Data(data) => {
                read += data.len() as u64;
                reader.pass(data);
                read > LARGEST_READ
            }
            BodyEvent::End(_) => true,
        };
        let is_whole = matches!(event, BodyEvent::End(_));
        exchange.ahead.push(event);
        if limits.request_body.is_some_and(|limit| read > limit) {
            return Err(ProxyError::BodyTooLarge.into());
        }
        if is_over {
            return Ok(match is_whole {
                true => reader.finish(),
                false => Estimate::of_length(read),
            });
        }
    }
}

fn subject<'a>(decided: &Decided<'a>, exchange: &Exchange) -> Subject<'a> {
    Subject {
        request: decided.request,
        client: exchange.client.ip,
        route: &decided.route.name,
    }
}

fn overloaded(full: Full) -> Failure {
    let error = ProxyError::Overloaded {
        retry_after: Some(full.retry_after),
    };
    error.into()
}
