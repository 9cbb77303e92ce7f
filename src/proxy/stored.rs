//! Answers out of the store.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::{Decided, Failure, Proxy, flush};
use crate::cache::stored_lines::Told;
use crate::cache::{Stored, StoredLines};
use crate::edge::client::Client;
use crate::exchange::Exchange;
use crate::io::Alarm;
use crate::message::{Framing, Lines, ResponseHead};
use crate::respond::cache_status::CacheStatus;
use crate::rfc9111::range::{ByteRange, ContentRange, Multipart, Selection, held_parts, selection};
use crate::rfc9111::reuse::Served;
use crate::rfc9111::validation::{ClientCondition, evaluate, keep_for_not_modified};
use crate::transform::fields::Delivery;

impl Proxy {
    /// Answers with a stored response.
    #[expect(
        clippy::too_many_arguments,
        reason = "what is decided, what is stored, and where it goes"
    )]
    pub(super) async fn serve_stored(
        &self,
        decided: &Decided<'_>,
        stored: &Stored,
        served: Served,
        status: &CacheStatus<'_>,
        client: &mut Client,
        exchange: &mut Exchange,
        alarm: &mut Alarm,
    ) -> Result<(), Failure> {
        self.queue_stored(decided, stored, served, status, client, exchange);
        exchange.responds(exchange.status, Instant::now());
        flush(client, alarm).await
    }

    /// Queues a stored response: all of it, a part of it, or the news that the client has it already.
    pub(super) fn queue_stored(
        &self,
        decided: &Decided<'_>,
        stored: &Stored,
        served: Served,
        status: &CacheStatus<'_>,
        client: &mut Client,
        exchange: &mut Exchange,
    ) {
        let mut head = ResponseHead {
            status: stored.meta.status,
            fields: StoredLines::new(&stored.fields),
            framing: Framing::None,
            declared_length: None,
        };
        let body = match evaluate(decided.request, &stored.meta) {
            ClientCondition::NotModified => {
                head.status = 304;
                keep_for_not_modified(&mut head.fields);
                None
            }
            ClientCondition::Send => Some(part(decided, stored, &mut head)),
        };
        head.fields.tell(Told {
            age: served.age,
            status: *status,
            request_id: (!stored.fields.has_request_id()).then_some(exchange.request_id.as_bytes()),
        });
        head.declared_length = body.as_ref().map(|body| body.len() as u64);
        let body = body.filter(|_| head.status != 204 && decided.request.method != http::Method::HEAD);
        if let (Some(_), Some(length)) = (&body, head.declared_length) {
            head.framing = Framing::Length(length);
            exchange.response_bytes = length;
        }
        self.finish(decided, &mut head, Delivery::Whole, exchange);
        exchange.status = head.status;
        client.respond(&mut head);
        if let Some(body) = &body {
            client.send_shared(body);
        }
        client.finish(None);
    }
}

/// The part of a stored response that the request asks for (RFC 9110 §14), or has to be content with (RFC 9111 §3.3).
fn part<'a>(decided: &Decided<'_>, stored: &'a Stored, head: &mut ResponseHead<StoredLines<'a>>) -> Cow<'a, Bytes> {
    let (first, complete) = match stored.meta.partial() {
        Some(partial) => (partial.held.first(), partial.complete),
        None => (0, Some(stored.body.len() as u64)),
    };
    let parts = match (stored.meta.partial(), complete) {
        (Some(partial), _) => held_parts(partial, &decided.request.fields),
        (None, complete) => match selection(decided.request, &stored.meta, complete.unwrap_or_default()) {
            Selection::Parts(parts) => parts,
            Selection::Whole => return Cow::Borrowed(&stored.body),
            Selection::Unsatisfiable => {
                let content_range = format!("bytes */{}", stored.body.len());
                head.fields.set("Content-Range", content_range);
                head.status = 416;
                return Cow::Owned(Bytes::new());
            }
        },
    };
    head.status = 206;
    let body = match parts.as_slice() {
        [range] => {
            let content_range = ContentRange {
                range: *range,
                complete,
            };
            head.fields.set("Content-Range", content_range.to_string());
            slice(&stored.body, first, *range)
        }
        parts => {
            let boundary = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
            let multipart = Multipart {
                boundary: &boundary,
                content_type: stored.fields.get("content-type"),
                complete,
            };
            let mut body = BytesMut::with_capacity(usize::try_from(multipart.length(parts)).unwrap_or_default());
            for range in parts {
                body.extend_from_slice(&multipart.part_head(*range));
                body.extend_from_slice(&slice(&stored.body, first, *range));
            }
            body.extend_from_slice(&multipart.end());
            head.fields.remove("content-range");
            head.fields.set("Content-Type", multipart.content_type());
            body.freeze()
        }
    };
    Cow::Owned(body)
}

/// Bytes of a body that begins at offset `from` of its representation.
fn slice(body: &Bytes, from: u64, range: ByteRange) -> Bytes {
    let offset = |at: u64| {
        usize::try_from(at.saturating_sub(from))
            .unwrap_or(usize::MAX)
            .min(body.len())
    };
    let (first, end) = (offset(range.first()), offset(range.last().saturating_add(1)));
    body.slice(first..end.max(first))
}
