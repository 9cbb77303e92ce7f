//! Responses that go to one client and nowhere else.

use std::sync::Arc;
use std::time::Duration;

use super::fill::declared;
use super::metered::Metered;
use super::origin::{LONG_IDLE, Response, Sent};
use super::relay::{Limits, RelayError};
use super::{Decided, Failure, Plan, Proxy};
use crate::config;
use crate::edge::client::{Client, ClientError};
use crate::exchange::{Exchange, Kind};
use crate::io::Alarm;
use crate::limit::tokens::meter::{End, Meter};
use crate::message::{Framing, ResponseHead};
use crate::metrics::Outcome;
use crate::respond::cache_status::{self, CacheStatus, Fetch, Storing};
use crate::respond::error::ProxyError;
use crate::rfc9111::reuse::Forward;
use crate::transform::events::is_event_stream;
use crate::transform::fields::Delivery;
use crate::upstream::Event;

/// Between two events, where the route does not say.
const STREAM_BETWEEN_BYTES: Duration = Duration::from_secs(300);

impl Proxy {
    /// Passes a request on, and plans to pass its response back; the cache has no part in it, for this reason.
    pub(super) async fn pass<'a>(
        self: &Arc<Self>,
        decided: &Decided<'a>,
        reason: Forward,
        detail: Option<&'static str>,
        client: &mut Client,
        exchange: &mut Exchange,
        alarm: &mut Alarm,
    ) -> Result<Plan<'a>, Failure> {
        exchange.cache = Some(reason.into());
        let mut response = match self.send(decided, |_| {}, client, exchange, alarm).await? {
            Sent::Response(response) => response,
            Sent::Answered => return Ok(Plan::Answered),
        };
        if let Some(rules) = exchange.route().and_then(|route| route.cache.as_ref()) {
            rules.take_labels(decided, &mut response.head.fields);
        }
        self.after_unsafe(decided, &response.head).await;
        forwarded_status(reason, detail, Fetch::Own).append_to(&mut response.head.fields);
        Ok(Plan::Deliver(*decided, response))
    }

    /// Passes a response on whose head has come and is ready but for what this client alone gets.
    pub(super) async fn deliver(
        &self,
        decided: &Decided<'_>,
        mut response: Box<Response>,
        client: &mut Client,
        exchange: &mut Exchange,
        alarm: &mut Alarm,
    ) -> Result<(), Failure> {
        let status = response.head.status;
        let result = match status {
            101 => self.tunnel(decided, &mut response, client, exchange, alarm).await,
            _ => self.deliver_body(decided, &mut response, client, exchange, alarm).await,
        };
        let outcome = match &result {
            Ok(()) if exchange.status >= 500 => Outcome::ServerError,
            Ok(()) => Outcome::Ok,
            Err((outcome, _)) => *outcome,
        };
        response.origin.record(Event::Ended(outcome));
        if let Err((_, failure)) = result {
            return Err(failure);
        }
        // Before the client has all of it: nobody else has to wait for a slow reader, and whoever has the whole response in hand, and asks
        // again, finds the connection.
        response.origin.end(response.relay.heard());
        drop(response.permits);
        match status {
            101 => Ok(()),
            _ => {
                let flushed = response.relay.flush(client, alarm).await;
                flushed.map_err(|error| Failure::within_response(&error))
            }
        }
    }

    async fn deliver_body(
        &self,
        decided: &Decided<'_>,
        response: &mut Response,
        client: &mut Client,
        exchange: &mut Exchange,
        alarm: &mut Alarm,
    ) -> Result<(), (Outcome, Failure)> {
        let Response {
            origin,
            relay,
            head,
            permits,
        } = response;
        let mut head = std::mem::replace(head, empty_head());
        let is_stream = decided.route.stream.is_some() || head.fields.get("content-type").is_some_and(is_event_stream);
        if is_stream && decided.route.stream.is_none() {
            self.enter_stream(decided.generation, permits)
                .map_err(|failure| (Outcome::Ok, failure))?;
        }
        let mut metrics = None;
        let mut counted = None;
        let delivery = match is_stream {
            true => {
                limit_stream(&mut relay.limits, decided.route.stream.as_ref(), &head);
                exchange.kind = Kind::Stream;
                metrics = exchange.route().map(|route| route.metrics.clone());
                counted = Some((
                    metrics.as_ref().map(|metrics| metrics.stream_guard()),
                    self.work.stream(),
                ));
                Delivery::Stream
            }
            false => Delivery::Whole,
        };
        let mut meter = exchange
            .counts_tokens()
            .then(|| Box::new(Meter::new(head.status, &head.fields)));
        if !is_stream {
            relay.gather(client, declared(&head));
        }
        let recoder = self.recode(decided, None, &mut head, &mut relay.limits);
        self.finish(decided, &mut head, delivery, exchange);
        exchange.push_set_cookie(&mut head.fields);
        exchange.responds(head.status, relay.heard());
        let has_body = head.framing != Framing::None;
        client.respond(&mut head);
        // The body may take its time.
        drop(head);
        if !has_body {
            client.finish(None);
        }
        // Only streams are asked when their first event came.
        let mut unseen = metrics.as_ref();
        let started = exchange.started;
        let mut bytes = 0;
        let passing = |data: &bytes::Bytes| {
            bytes += data.len() as u64;
            if let Some(metrics) = unseen.take() {
                metrics.first_event(started.elapsed());
            }
        };
        exchange.coding = recoder.as_ref().map(|recoder| recoder.coding());
        if let (None, None, None) = (&recoder, &meter, &counted)
            && let Some(body) = relay.body_at_hand(origin)
        {
            exchange.response_bytes = body.len() as u64;
            exchange.request_bytes = relay.received;
            client.send(body);
            client.finish(None);
            return Ok(());
        }
        // Boxed, so that bodies that are neither recoded nor looked at hold no room for it.
        let result = match (recoder, &mut meter) {
            (None, None) => relay.body(client, origin, alarm, passing).await,
            (Some(recoder), None) => {
                Box::pin(relay.body(client, &mut recoder.recode(&mut *origin), alarm, passing)).await
            }
            (None, Some(meter)) => {
                Box::pin(relay.body(client, &mut Metered::new(&mut *origin, meter), alarm, passing)).await
            }
            (Some(recoder), Some(meter)) => {
                let source = Metered::new(&mut *origin, meter);
                Box::pin(relay.body(client, &mut recoder.recode(source), alarm, passing)).await
            }
        };
        if let Some(meter) = meter {
            exchange.used(meter.finish(End::of(&result)));
        }
        drop(counted);
        exchange.response_bytes = bytes;
        relay.note_head(exchange);
        exchange.request_bytes = relay.received;
        let Err(error) = result else { return Ok(()) };
        let outcome = match &error {
            RelayError::Origin(error) => {
                let server = &*origin.server().label;
                tracing::warn!(server, request_id = exchange.request_id.as_str(), %error, "a response broke off");
                error.outcome()
            }
            _ => Outcome::ClientGone,
        };
        Err((outcome, relay.failure(&error, client, exchange)))
    }

    /// After a 101, bytes go both ways.
    async fn tunnel(
        &self,
        decided: &Decided<'_>,
        response: &mut Response,
        client: &mut Client,
        exchange: &mut Exchange,
        alarm: &mut Alarm,
    ) -> Result<(), (Outcome, Failure)> {
        let Response {
            origin, relay, head, ..
        } = response;
        let mut head = std::mem::replace(head, empty_head());
        // Only HTTP/1.1 has upgrades.
        let Client::Http1(http1) = &mut *client else {
            return Err((Outcome::InvalidResponse, ProxyError::UpgradeFailed.into()));
        };
        self.finish(decided, &mut head, Delivery::Whole, exchange);
        exchange.push_set_cookie(&mut head.fields);
        exchange.responds(101, relay.heard());
        exchange.kind = Kind::Stream;
        let _counted = (
            exchange.route().map(|route| route.metrics.stream_guard()),
            self.work.stream(),
        );
        http1.respond(&mut head);
        drop(head);
        http1.tunnel();
        origin.tunnel();
        let result = relay.tunnel(client, origin, alarm, LONG_IDLE).await;
        exchange.request_bytes = relay.received;
        exchange.response_bytes = relay.sent;
        match result {
            // Either side ends a tunnel as it likes.
            Ok(()) | Err(RelayError::Client(ClientError::Gone(_)) | RelayError::Origin(_)) => {
                client.finish(None);
                Ok(())
            }
            Err(error) => Err((Outcome::ClientGone, Failure::within_response(&error))),
        }
    }
}

/// `Cache-Status` of a response that came from the origin and is not stored.
pub(crate) fn forwarded_status(reason: Forward, detail: Option<&'static str>, fetch: Fetch) -> CacheStatus<'static> {
    CacheStatus {
        outcome: cache_status::Outcome::Forwarded {
            reason,
            status: None,
            storing: Storing::NotStored,
            fetch,
        },
        ttl: None,
        detail,
    }
}

pub(crate) fn limit_stream(limits: &mut Limits, stream: Option<&config::Stream>, head: &ResponseHead) {
    match stream {
        Some(stream) => {
            limits.between_bytes = stream.between_bytes;
            // A comment can be put between events only, and only where their bytes are not encoded or counted.
            let takes_comments = head.fields.get("content-type").is_some_and(is_event_stream)
                && !head.fields.contains("content-encoding")
                && matches!(head.framing, Framing::Chunked | Framing::Stream | Framing::Close);
            limits.heartbeat = stream.heartbeat.filter(|_| takes_comments);
        }
        None => limits.between_bytes = Some(STREAM_BETWEEN_BYTES),
    }
}

fn empty_head() -> ResponseHead {
    ResponseHead {
        status: 0,
        fields: Default::default(),
        framing: Framing::None,
        declared_length: None,
    }
}
