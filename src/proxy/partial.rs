//! Stored parts of representations are made whole (RFC 9111 §3.3, §3.4).

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::fetch::{Fetch, ask_for_codings};
use super::fill::subject;
use super::origin::{Response, Sent};
use super::{Decided, Failure, Plan, Proxy};
use crate::cache::Stored;
use crate::cache::flight::Destination;
use crate::cache::partial::join;
use crate::edge::client::Client;
use crate::exchange::Exchange;
use crate::generation::CacheRules;
use crate::io::Alarm;
use crate::message::{BodyEvent, Fields};
use crate::metrics::Outcome;
use crate::respond::cache_status::{self, CacheStatus, Storing};
use crate::rfc9111::date::Timestamp;
use crate::rfc9111::freshness::Times;
use crate::rfc9111::range::{combine, completion};
use crate::rfc9111::reuse::{Forward, Served, is_error};
use crate::rfc9111::storability::{Accepted, Storable, storable};
use crate::upstream::{Event, Origin};

/// Between two reads of what a stored part lacks.
const COLLECT: Duration = Duration::from_secs(30);

impl Proxy {
    /// Fetches what a stored part lacks of its representation, and answers with the whole. `None`: it cannot be made whole so.
    #[expect(
        clippy::too_many_arguments,
        reason = "what is decided, what is stored, and where it goes"
    )]
    pub(super) async fn complete<'a>(
        self: &Arc<Self>,
        decided: &Decided<'a>,
        rules: &CacheRules,
        destination: &Destination,
        stored: &Arc<Stored>,
        client: &mut Client,
        exchange: &mut Exchange,
        alarm: &mut Alarm,
    ) -> Result<Option<Plan<'a>>, Failure> {
        let Some(completion) = completion(&stored.meta) else {
            return Ok(None);
        };
        let mut request = decided.request.clone();
        request.method = http::Method::GET;
        for name in ["if-none-match", "if-modified-since"] {
            request.fields.remove(name);
        }
        request.fields.set("Range", &completion.range);
        match &completion.if_range {
            Some(tag) => request.fields.set("If-Range", tag),
            None => drop(request.fields.remove("if-range")),
        }
        let asking = Decided {
            request: &request,
            ..*decided
        };
        exchange.cache = Some(Forward::Partial.into());
        let requested = Timestamp::from(self.clock.now());
        let began = self.cache.begin();
        let ask = |fields: &mut Fields| ask_for_codings(fields, rules);
        let Sent::Response(mut response) = self.send(&asking, ask, client, exchange, alarm).await? else {
            return Ok(Some(Plan::Answered));
        };
        let times = Times {
            requested,
            received: Timestamp::from(self.clock.now()),
        };
        let told = rules.take_labels(decided, &mut response.head.fields);
        if !matches!(response.head.status, 206 | 304 | 416) && decided.request.method == http::Method::GET {
            // RFC 9110 §13.1.5, §14.2: the whole as it is now, or why there is none.
            let fetch = Fetch {
                destination: destination.clone(),
                candidates: Vec::new(),
                stored: Some(stored.clone()),
                reason: Forward::Partial,
                duty: None,
                began,
            };
            return self
                .arrived(decided, rules, fetch, told, response, times, exchange)
                .map(Some);
        }
        let Response { mut origin, head, .. } = *response;
        let outcome = if is_error(head.status) {
            Outcome::ServerError
        } else {
            Outcome::Ok
        };
        origin.record(Event::Ended(outcome));
        let Storable::Yes(accepted) = storable(&request, &head, times, &rules.store_policy()) else {
            return Ok(None);
        };
        let Accepted { mut meta, fields } = *accepted;
        rules.limit_freshness(&mut meta);
        meta.set_labels(told.labels(began.local));
        let Some(announced) = meta.partial() else {
            return Ok(None);
        };
        let Some(combined) = combine(&stored.meta, announced, &fields, times.received) else {
            return Ok(None);
        };
        if !combined.is_complete() || announced.held.len() > rules.max_body {
            return Ok(None);
        }
        let Some(body) = collect(&mut origin, announced.held.len(), alarm).await else {
            return Ok(None);
        };
        origin.end(Instant::now());
        let whole = join(stored, meta, &fields, &body, &combined);
        let whole = Arc::new(whole.for_route(rules.compression.as_deref()));
        let subject = subject(destination, &decided.route.name, &whole.meta);
        if self.cache.is_current(began.local, subject) {
            self.cache
                .memory
                .store(&decided.route.name, &destination.key, whole.clone());
            // A purge in between may have come too early to find it.
            if !self.cache.is_current(began.local, subject) {
                self.cache.memory.replace(&destination.key, &whole, None);
            }
        }
        let served = Served::of(&whole.meta, times.received);
        let status = CacheStatus {
            outcome: cache_status::Outcome::Forwarded {
                reason: Forward::Partial,
                status: Some(206),
                storing: Storing::Stored,
                fetch: cache_status::Fetch::Own,
            },
            ttl: Some(served.ttl),
            detail: None,
        };
        let whole = self.in_form(decided, &destination.key, &whole, exchange).await;
        self.serve_stored(decided, &whole, served, &status, client, exchange, alarm)
            .await?;
        Ok(Some(Plan::Answered))
    }
}

/// All of a body of that length. `None`: it was another length, or broke off.
async fn collect(origin: &mut Origin, length: u64, alarm: &mut Alarm) -> Option<Bytes> {
    let mut body = BytesMut::with_capacity(usize::try_from(length).ok()?);
    loop {
        let deadline = Instant::now() + COLLECT;
        match alarm.race(Some(deadline), poll_fn(|cx| origin.poll_body(cx))).await {
            Ok(Ok(BodyEvent::Data(data))) if (body.len() + data.len()) as u64 <= length => {
                body.extend_from_slice(&data)
            }
            Ok(Ok(BodyEvent::End(_))) if body.len() as u64 == length => return Some(body.freeze()),
            _ => return None,
        }
    }
}
