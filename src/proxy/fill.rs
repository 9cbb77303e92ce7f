//! Responses that are stored while they go to everybody who waits for them.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::compression::Whence;
use super::fetch::Fetch;
use super::l2::Keeping;
use super::metered::Metered;
use super::origin::Response;
use super::recode::Recoder;
use super::relay::{Limits, Relay};
use super::{Decided, Failure, Plan, Proxy};
use crate::cache::epochs::Subject;
use crate::cache::filling::{Broken, Room};
use crate::cache::flight::{Destination, Landing};
use crate::cache::lease::Outcome;
use crate::cache::partial::settle;
use crate::cache::{FetchDuty, FillReader, Filling, Stored};
use crate::config::Compression;
use crate::edge::client::Client;
use crate::exchange::Exchange;
use crate::generation::CacheRules;
use crate::io::Alarm;
use crate::key::CacheKey;
use crate::limit::concurrency::Permits;
use crate::limit::tokens::meter::{End, Meter};
use crate::message::{BodyEvent, Framing, ResponseHead};
use crate::metrics;
use crate::respond::cache_status::{self, CacheStatus, Storing};
use crate::rfc9111::date::Timestamp;
use crate::rfc9111::reuse::Served;
use crate::rfc9111::storability::Accepted;
use crate::rfc9111::stored::StoredMeta;
use crate::transform::fields::Delivery;
use crate::upstream::{Event, Origin};

/// What is still fetched of a body that nobody waits for any more, so that the next request finds it.
const FILL_ALONE: u64 = 1024 * 1024;

impl Proxy {
    /// A response that is stored while it goes to everybody who waits for it.
    pub(super) fn fill<'a>(
        self: &Arc<Self>,
        decided: &Decided<'a>,
        rules: &CacheRules,
        fetch: Fetch,
        response: Response,
        accepted: Accepted,
        exchange: &Exchange,
    ) -> Result<Plan<'a>, Failure> {
        let Response {
            mut origin,
            relay,
            mut head,
            permits,
        } = response;
        let Accepted { meta, mut fields } = accepted;
        fields.shrink();
        let served = Served::of(&meta, meta.received);
        let filling = Arc::new(Filling::new(meta, fields, declared(&head), rules.max_body, fetch.began));
        let status = CacheStatus {
            outcome: cache_status::Outcome::Forwarded {
                reason: fetch.reason,
                status: None,
                storing: Storing::Stored,
                fetch: cache_status::Fetch::Own,
            },
            ttl: Some(served.ttl),
            detail: None,
        };
        let Some(reader) = filling.read() else {
            return Err(Failure::Broken("fill"));
        };
        let has_body = !matches!(head.framing, Framing::None | Framing::Length(0));
        // Where there is nothing to bring in, and no writing to L2 to wait for, it is over before the client gets its head.
        let at_hand = match (has_body, &self.cache.l2) {
            (false, _) => Some(Bytes::new()),
            (true, None) => origin.body_at_hand(),
            (true, Some(_)) => None,
        };
        // Otherwise others who wait for it find it stored.
        if let (Some(duty), None) = (&fetch.duty, &at_hand) {
            duty.publish(filling.clone());
        }
        status.append_to(&mut head.fields);
        let key = &fetch.destination.key;
        let recoder = self.recode(decided, Some(key), &mut head, &mut Limits::DOWNLOAD.clone());
        let mut fill = Fill {
            proxy: self.clone(),
            route: decided.route.name.clone(),
            filling,
            destination: fetch.destination,
            keeping: Keeping::of(rules, decided.route, fetch.began),
            duty: fetch.duty,
            compression: rules.compression.clone(),
            _permits: permits,
        };
        fill.release_too_large(fill.filling.length.unwrap_or(0));
        let between_bytes = relay.limits.between_bytes;
        match at_hand {
            Some(body) => fill.finish_at_once(origin, body),
            None => drop(tokio::spawn(fill.run(origin, between_bytes))),
        }
        // No cookie that names the client's server: what is stored here, a shared cache in front of us may store too,
        // and would hand one client's cookie to all (RFC 9111 §7.3). A response that is not stored brings it.
        self.finish(decided, &mut head, Delivery::Whole, exchange);
        Ok(Plan::Read(Box::new(head), reader, recoder))
    }

    /// A response that another request's fetch brings in.
    pub(super) fn read_along(
        &self,
        decided: &Decided<'_>,
        key: &CacheKey,
        reader: FillReader,
        status: &CacheStatus<'_>,
        exchange: &Exchange,
    ) -> Plan<'static> {
        let filling = reader.filling();
        let served = Served::of(&filling.meta, Timestamp::from(self.clock.now()));
        let mut head = ResponseHead {
            status: filling.meta.status,
            fields: filling.fields.clone(),
            framing: match filling.length {
                Some(length) => Framing::Length(length),
                None => Framing::Stream,
            },
            declared_length: filling.length,
        };
        head.fields.push("Age", served.age.get().to_string());
        status.append_to(&mut head.fields);
        let recoder = self.recode(decided, Some(key), &mut head, &mut Limits::DOWNLOAD.clone());
        self.finish(decided, &mut head, Delivery::Whole, exchange);
        Plan::Read(Box::new(head), reader, recoder)
    }

    /// Sends a body as it is brought in.
    pub(super) async fn read(
        &self,
        mut head: ResponseHead,
        mut reader: FillReader,
        recoder: Option<Box<Recoder>>,
        client: &mut Client,
        exchange: &mut Exchange,
        alarm: &mut Alarm,
    ) -> Result<(), Failure> {
        let mut relay = Relay::download();
        exchange.responds(head.status, relay.heard());
        let has_body = head.framing != Framing::None;
        if has_body {
            relay.gather(client, reader.filling().length);
        }
        client.respond(&mut head);
        // The body may take its time.
        drop(head);
        if !has_body {
            client.finish(None);
        }
        let mut bytes = 0;
        let passing = |data: &Bytes| bytes += data.len() as u64;
        exchange.coding = recoder.as_ref().map(|recoder| recoder.coding());
        let mut meter = exchange.counts_tokens().then(|| {
            let filling = reader.filling();
            Box::new(Meter::new(filling.meta.status, &filling.fields))
        });
        // Boxed, so that bodies that are neither recoded nor looked at hold no room for it.
        let result = match (recoder, &mut meter) {
            (None, None) => relay.body(client, &mut reader, alarm, passing).await,
            (Some(recoder), None) => Box::pin(relay.body(client, &mut recoder.recode(reader), alarm, passing)).await,
            (None, Some(meter)) => Box::pin(relay.body(client, &mut Metered::new(reader, meter), alarm, passing)).await,
            (Some(recoder), Some(meter)) => {
                let source = Metered::new(reader, meter);
                Box::pin(relay.body(client, &mut recoder.recode(source), alarm, passing)).await
            }
        };
        if let Some(meter) = meter {
            exchange.used(meter.finish(End::of(&result)));
        }
        exchange.response_bytes = bytes;
        relay.note_head(exchange);
        let flushed = match result {
            Ok(()) => relay.flush(client, alarm).await,
            Err(error) => Err(error),
        };
        flushed.map_err(|error| relay.failure(&error, client, exchange))
    }
}

/// The task that brings a body in.
struct Fill {
    proxy: Arc<Proxy>,
    route: Arc<str>,
    filling: Arc<Filling>,
    destination: Destination,
    keeping: Keeping,
    duty: Option<FetchDuty>,
    compression: Option<Arc<Compression>>,
    _permits: Permits,
}

impl Fill {
    async fn run(mut self, mut origin: Origin, between_bytes: Option<Duration>) {
        let ended = self.bring_in(&mut origin, between_bytes).await;
        match ended {
            Ok(last) => self.finish(origin, last).await,
            Err((outcome, broken)) => {
                origin.record(Event::Ended(outcome));
                self.filling.end(Err(broken));
            }
        }
    }

    /// The body is whole: `last` is what its readers have not got yet.
    async fn finish(mut self, origin: Origin, last: Bytes) {
        self.record(origin);
        if let Some(stored) = self.keep(&last) {
            let lease = self.duty.as_mut().and_then(FetchDuty::take_lease);
            self.proxy
                .write(self.keeping.clone(), &self.destination, &stored, lease)
                .await;
        }
        self.end(last);
    }

    /// The body is whole, and it does not matter when it is written to L2.
    fn finish_at_once(mut self, origin: Origin, body: Bytes) {
        self.record(origin);
        if let Some(stored) = self.keep(&body) {
            let lease = self.duty.as_mut().and_then(FetchDuty::take_lease);
            self.proxy
                .write_behind(self.keeping.clone(), &self.destination, &stored, lease);
        }
        self.end(body);
    }

    fn record(&self, origin: Origin) {
        let outcome = match self.filling.meta.status {
            500.. => metrics::Outcome::ServerError,
            _ => metrics::Outcome::Ok,
        };
        origin.record(Event::Ended(outcome));
        origin.end(Instant::now());
    }

    fn end(mut self, last: Bytes) {
        if let Some(duty) = self.duty.take() {
            duty.land(Landing::LookAgain);
        }
        // Only now: whoever has the whole response in hand, and asks again, finds it stored.
        if !last.is_empty() {
            self.filling.push(last);
        }
        self.filling.end(Ok(()));
    }

    /// Stores the response, if it can be.
    fn keep(&self, last: &Bytes) -> Option<Arc<Stored>> {
        let body = self.filling.whole(last)?;
        let (key, memory) = (&self.destination.key, &self.proxy.cache.memory);
        let (meta, fields) = (self.filling.meta.clone(), self.filling.fields.clone());
        let stored = settle(memory, key, meta, fields, body).filter(|_| self.is_valid())?;
        let stored = Arc::new(stored.for_route(self.compression.as_deref()));
        memory.store(&self.route, key, stored.clone());
        // An invalidation in between may have come too early to find it.
        if !self.is_valid() {
            memory.replace(key, &stored, None);
            return None;
        }
        self.proxy
            .keep_dictionary(self.compression.as_deref(), key, &stored, Whence::Origin(&self.keeping));
        Some(stored)
    }

    /// Whether nothing that is about it has been purged since it was asked for.
    fn is_valid(&self) -> bool {
        let subject = subject(&self.destination, &self.route, &self.filling.meta);
        self.proxy.cache.is_current(self.filling.began.local, subject)
    }

    /// Other instances do not wait for what they will not find.
    fn release_too_large(&mut self, length: u64) {
        if let (Some(l2), Some(duty)) = (&self.proxy.cache.l2, &mut self.duty)
            && l2.is_too_large(length)
        {
            duty.release(Outcome::TooLarge);
        }
    }

    /// Brings the body in, all but its last piece, which is the answer: empty where the end came by itself.
    async fn bring_in(
        &mut self,
        origin: &mut Origin,
        between_bytes: Option<Duration>,
    ) -> Result<Bytes, (metrics::Outcome, Broken)> {
        let mut alarm = Alarm::new();
        let mut last = Bytes::new();
        loop {
            let since = Instant::now();
            let filling = &self.filling;
            let event = poll_fn(|cx| {
                if filling.poll_room(cx).is_pending() {
                    return match filling.poll_deserted(cx) {
                        Poll::Ready(()) => Poll::Ready(Err((metrics::Outcome::ClientGone, Broken::Deserted))),
                        Poll::Pending => Poll::Pending,
                    };
                }
                match origin.poll_body(cx) {
                    Poll::Ready(Ok(event)) => return Poll::Ready(Ok(event)),
                    Poll::Ready(Err(error)) => {
                        let server = &*origin.server().label;
                        tracing::warn!(server, %error, "a response broke off");
                        return Poll::Ready(Err((error.outcome(), Broken::Cut(error.reason()))));
                    }
                    Poll::Pending => {}
                }
                if filling.poll_deserted(cx).is_ready() && left(filling) > FILL_ALONE {
                    return Poll::Ready(Err((metrics::Outcome::ClientGone, Broken::Deserted)));
                }
                match alarm.poll(cx, between_bytes.map(|time| since + time)) {
                    Poll::Ready(_) => Poll::Ready(Err((metrics::Outcome::Timeout, Broken::Silent))),
                    Poll::Pending => Poll::Pending,
                }
            })
            .await?;
            match event {
                BodyEvent::End(_) => return Ok(last),
                // Nothing but the end can follow: over HTTP/1 it is known already.
                BodyEvent::Data(data)
                    if matches!(origin, Origin::Http1(_))
                        && self.filling.length == Some(self.filling.received() + data.len() as u64) =>
                {
                    last = data;
                }
                BodyEvent::Data(data) => {
                    let room = self.filling.push(data);
                    self.release_too_large(self.filling.received());
                    if room == Room::TooLarge
                        && let Some(duty) = self.duty.take()
                    {
                        self.proxy.cache.flights.remember_unstored(&self.destination);
                        duty.land(Landing::Unstored);
                    }
                }
            }
        }
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        // Whatever ended the task: readers must not wait for ever. After a good end this says nothing new.
        self.filling.end(Err(Broken::Aborted));
    }
}

/// What purges are compared with for a response that goes to that destination.
pub(super) fn subject<'a>(destination: &'a Destination, route: &'a str, meta: &'a StoredMeta) -> Subject<'a> {
    Subject {
        key: &destination.key,
        route,
        labels: meta.labels().map_or(&[], |labels| labels.as_slice()),
    }
}

/// Bytes that are still to come, as far as is known.
fn left(filling: &Filling) -> u64 {
    match filling.length {
        Some(length) => length.saturating_sub(filling.received()),
        // Not known: what has come counts, so that it ends some time.
        None => filling.received(),
    }
}

pub(crate) fn declared(head: &ResponseHead) -> Option<u64> {
    match head.framing {
        Framing::Length(length) => Some(length),
        Framing::None => Some(0),
        Framing::Chunked | Framing::Stream | Framing::Close => None,
    }
}
