//! Answers out of the store.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::{Decided, Failure, Proxy, flush};
use crate::cache::{Stored, StoredLines};
use crate::edge::client::Client;
use crate::exchange::Exchange;
use crate::http1::encode::decimal;
use crate::io::Alarm;
use crate::message::{Framing, Lines, ResponseHead};
use crate::respond::cache_status::CacheStatus;
use crate::rfc9111::range::{ByteRange, ContentRange, Multipart, Selection, held_parts, selection};
use crate::rfc9111::reuse::Served;
use crate::rfc9111::validation::{ClientCondition, evaluate, keep_for_not_modified};
use crate::transform::fields::Delivery;

/// A response as it is sent: its lines are mostly the stored one's, its body is a part of the stored one, or put together around
/// parts of it.
struct Answer<'a> {
    status: u16,
    fields: StoredLines<'a>,
    body: Cow<'a, Bytes>,
}

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
        let mut answer = match evaluate(decided.request, &stored.meta) {
            ClientCondition::NotModified => not_modified(stored),
            ClientCondition::Send => part(decided, stored),
        };
        let age = u64::from(served.age.get());
        answer.fields.push_written("Age", |out| decimal(out, age));
        answer.fields.push_written("Cache-Status", |out| status.write(out));
        let length = answer.body.len() as u64;
        let has_body = answer.status != 304 && answer.status != 204 && decided.request.method != http::Method::HEAD;
        let mut head = ResponseHead {
            status: answer.status,
            fields: answer.fields,
            framing: if has_body {
                Framing::Length(length)
            } else {
                Framing::None
            },
            declared_length: (answer.status != 304).then_some(length),
        };
        self.finish(decided, &mut head, Delivery::Whole, exchange);
        exchange.status = head.status;
        client.respond(head);
        if has_body {
            exchange.response_bytes = length;
            client.send_shared(&answer.body);
        }
        client.finish(None);
    }
}

fn not_modified(stored: &Stored) -> Answer<'_> {
    let mut fields = StoredLines::new(&stored.fields);
    keep_for_not_modified(&mut fields);
    Answer {
        status: 304,
        fields,
        body: Cow::Owned(Bytes::new()),
    }
}

/// The part of a stored response that the request asks for (RFC 9110 §14), or has to be content with (RFC 9111 §3.3).
fn part<'a>(decided: &Decided<'_>, stored: &'a Stored) -> Answer<'a> {
    let mut fields = StoredLines::new(&stored.fields);
    let (first, complete) = match stored.meta.partial() {
        Some(partial) => (partial.held.first(), partial.complete),
        None => (0, Some(stored.body.len() as u64)),
    };
    let parts = match (stored.meta.partial(), complete) {
        (Some(partial), _) => held_parts(partial, &decided.request.fields),
        (None, complete) => match selection(decided.request, &stored.meta, complete.unwrap_or_default()) {
            Selection::Parts(parts) => parts,
            Selection::Whole => {
                return Answer {
                    status: stored.meta.status,
                    fields,
                    body: Cow::Borrowed(&stored.body),
                };
            }
            Selection::Unsatisfiable => {
                fields.set("Content-Range", format!("bytes */{}", stored.body.len()));
                return Answer {
                    status: 416,
                    fields,
                    body: Cow::Owned(Bytes::new()),
                };
            }
        },
    };
    let body = match parts.as_slice() {
        [range] => {
            let content_range = ContentRange {
                range: *range,
                complete,
            };
            fields.set("Content-Range", content_range.to_string());
            slice(&stored.body, first, *range)
        }
        parts => {
            let boundary = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
            let content_type = fields.get("content-type").map(<[u8]>::to_vec);
            let multipart = Multipart {
                boundary: &boundary,
                content_type: content_type.as_deref(),
                complete,
            };
            let mut body = BytesMut::with_capacity(usize::try_from(multipart.length(parts)).unwrap_or_default());
            for range in parts {
                body.extend_from_slice(&multipart.part_head(*range));
                body.extend_from_slice(&slice(&stored.body, first, *range));
            }
            body.extend_from_slice(&multipart.end());
            fields.remove("content-range");
            fields.set("Content-Type", multipart.content_type());
            body.freeze()
        }
    };
    Answer {
        status: 206,
        fields,
        body: Cow::Owned(body),
    }
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
