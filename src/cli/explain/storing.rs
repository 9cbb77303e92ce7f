//! What becomes of the upstream's response: stored or not, and what the client is told.

use super::answer_with;
use super::asked::{AskedResponse, Length};
use super::caching::Way;
use super::compression;
use super::forwarding::{field_lines, steady};
use super::text::{self, Text, span};
use crate::generation::CacheRules;
use crate::http1::SyntaxError;
use crate::http1::response::ResponseError;
use crate::message::{Fields, Framing, RequestHead, ResponseHead};
use crate::proxy::Decided;
use crate::proxy::cached::hit;
use crate::proxy::fill::declared;
use crate::proxy::origin::switches;
use crate::proxy::pass::forwarded_status;
use crate::request_id::RequestId;
use crate::respond::cache_status::{CacheStatus, Fetch, Outcome, Storing};
use crate::respond::error::ProxyError;
use crate::rfc9111::date::{Timestamp, format_http_date};
use crate::rfc9111::freshness::{LifetimeSource, Times};
use crate::rfc9111::invalidation::invalidated;
use crate::rfc9111::reuse::{Forward, Reuse, Served, StaleReason, reuse};
use crate::rfc9111::storability::{Accepted, Storable, Unstorable, storable};
use crate::rfc9111::stored::StoredMeta;
use crate::rfc9111::validation::{ClientCondition, evaluate};
use crate::transform::events::is_event_stream;
use crate::transform::fields::{Delivery, ResponseContext, clean_response, finish_response};
use crate::transform::forwarding::ClientAddress;
use crate::transform::template::Values;

/// What becomes of a response.
struct Predicted {
    status: String,
    kept: Kept,
}

enum Kept {
    Yes(Box<Accepted>),
    No(NotKept),
}

/// Why a response is not stored.
enum NotKept {
    /// The request went past the cache.
    Passed,
    Unstorable(Unstorable),
    /// Bytes of the largest that is.
    TooLarge(u64),
}

impl NotKept {
    fn because(&self) -> String {
        let because = match self {
            Self::Passed => "the request goes past the cache",
            Self::TooLarge(limit) => {
                return format!("it is larger than {} (cache.memory.max_body)", text::size(*limit));
            }
            Self::Unstorable(why) => match why {
                Unstorable::Method => "only responses to GET are",
                Unstorable::Status => "its status is about this one request",
                Unstorable::NotUnderstood => "must-understand, and the status is not one that is (RFC 9111 §5.2.2.3)",
                Unstorable::NoStore => "Cache-Control says no-store",
                Unstorable::RequestNoStore => "the request's Cache-Control says no-store",
                Unstorable::Private => "Cache-Control says private",
                Unstorable::Authorization => {
                    "the request has Authorization: only public, s-maxage or must-revalidate allow it (RFC 9111 §3.5)"
                }
                Unstorable::SetCookie => "it sets a cookie",
                Unstorable::Cookie => "the request has cookies, and the origin gives no lifetime",
                Unstorable::VaryStar => "Vary: * fits no other request (RFC 9111 §4.1)",
                Unstorable::NoFreshness => "it has no lifetime and nothing to validate it with (RFC 9111 §3)",
                Unstorable::Partial => "it is a part that does not say which (RFC 9111 §3.3)",
                Unstorable::CloseDelimited => "its end is the connection's: whether it is whole cannot be known",
                Unstorable::EventStream => "it is an event stream",
            },
        };
        because.to_owned()
    }
}

/// What `Proxy::pass` and `Proxy::fetch` say of a response, where nothing is stored yet. The head has been cleaned.
fn predict(decided: &Decided<'_>, way: &Way<'_>, head: &ResponseHead, now: Timestamp) -> Predicted {
    let passed = |reason, detail| Predicted {
        status: forwarded_status(reason, detail, Fetch::Own).to_field_value(),
        kept: Kept::No(NotKept::Passed),
    };
    let rules = match way {
        Way::Off(_) => return passed(Forward::Bypass, None),
        Way::Passed { reason, detail, .. } => return passed(*reason, *detail),
        Way::Looked(rules) => rules,
    };
    let times = Times {
        requested: now,
        received: now,
    };
    let (detail, why) = match storable(decided.request, head, times, &rules.store_policy()) {
        Storable::Yes(_) if declared(head).is_some_and(|length| length > rules.max_body) => {
            ("too-large", NotKept::TooLarge(rules.max_body))
        }
        Storable::Yes(accepted) => {
            let status = CacheStatus {
                outcome: Outcome::Forwarded {
                    reason: Forward::UriMiss,
                    status: None,
                    storing: Storing::Stored,
                    fetch: Fetch::Own,
                },
                ttl: Some(Served::of(&accepted.meta, now).ttl),
                detail: None,
            };
            return Predicted {
                status: status.to_field_value(),
                kept: Kept::Yes(accepted),
            };
        }
        Storable::No(why) => (why.as_str(), NotKept::Unstorable(why)),
    };
    Predicted {
        status: forwarded_status(Forward::UriMiss, Some(detail), Fetch::Own).to_field_value(),
        kept: Kept::No(why),
    }
}

/// What becomes of the response that was given, or of some that could be.
pub fn outcome(
    decided: &Decided<'_>,
    way: &Way<'_>,
    client: &ClientAddress,
    given: Option<&AskedResponse>,
    now: Timestamp,
    text: &mut Text,
) {
    match given {
        Some(given) => of_given(decided, way, client, given, now, text),
        None => {
            compression::of_request(decided, text);
            of_usual(decided, way, now, text);
            removed(decided, way, &usual(200, &[], now), text);
        }
    }
}

/// What would be said of responses as origins send them.
fn of_usual(decided: &Decided<'_>, way: &Way<'_>, now: Timestamp, text: &mut Text) {
    if !matches!(way, Way::Looked(_)) {
        let Predicted {
            status,
            kept: Kept::No(why),
        } = predict(decided, way, &usual(200, &[], now), now)
        else {
            return;
        };
        text.line("stored", format_args!("no: {}", why.because()));
        return text.more(format_args!("Cache-Status: {status}"));
    }
    // A day, so that a tenth of it is beyond the cap of heuristic freshness.
    let yesterday = format_http_date(Timestamp::from_secs(now.as_secs().saturating_sub(86_400)));
    const A_MINUTE: (&str, &str) = ("Cache-Control", "max-age=60");
    let table: [(u16, &[(&str, &str)]); 9] = [
        (200, &[A_MINUTE]),
        (200, &[("Cache-Control", "public, max-age=60")]),
        (200, &[("Cache-Control", "private, max-age=60")]),
        (200, &[A_MINUTE, ("Set-Cookie", "a=b")]),
        (200, &[A_MINUTE, ("Vary", "Accept-Language")]),
        (200, &[("ETag", "\"1\"")]),
        (200, &[("Last-Modified", &yesterday)]),
        (200, &[]),
        (404, &[A_MINUTE]),
    ];
    let mut rows = Vec::new();
    for (status, fields) in table {
        let mut said = vec![status.to_string()];
        said.extend(fields.iter().map(|(name, value)| match *name {
            "Last-Modified" => "Last-Modified: (yesterday)".to_owned(),
            name => format!("{name}: {value}"),
        }));
        let predicted = predict(decided, way, &usual(status, fields, now), now);
        rows.push((said.join(" | "), predicted.status));
    }
    text.table("if it says", &rows);
}

/// A response with a body of a known length, as it is when it has been cleaned.
fn usual(status: u16, fields: &[(&str, &str)], now: Timestamp) -> ResponseHead {
    let mut lines = Fields::new();
    for (name, value) in fields {
        lines.push(name, value);
    }
    let mut head = ResponseHead {
        status,
        fields: lines,
        framing: Framing::Chunked,
        declared_length: None,
    };
    clean_response(&mut head, || format_http_date(now));
    head
}

fn of_given(
    decided: &Decided<'_>,
    way: &Way<'_>,
    client: &ClientAddress,
    given: &AskedResponse,
    now: Timestamp,
    text: &mut Text,
) {
    text.block(
        "response",
        [given.status_line.trim_end().to_owned()]
            .into_iter()
            .chain(given.fields.iter().cloned()),
    );
    let (mut head, length) = match given.parse(&decided.request.method) {
        Ok(parsed) => parsed,
        Err(error) => {
            text.line("refused", format_args!("{error} ({})", error.as_str()));
            return answer_with(
                &match error {
                    ResponseError::Syntax(SyntaxError::HeadTooLarge | SyntaxError::TooManyFields) => {
                        ProxyError::UpstreamHeadTooLarge
                    }
                    _ => ProxyError::UpstreamMalformed,
                },
                text,
            );
        }
    };
    if head.status == 101 && !switches(decided.request, &head) {
        text.line("refused", "the request did not ask for this upgrade");
        return answer_with(&ProxyError::UpgradeFailed, text);
    }
    if length == Length::Assumed {
        text.more("(no Content-Length: the body is taken for one whose end is known)");
    }
    clean_response(&mut head, || format_http_date(now));
    let Predicted { status, kept } = predict(decided, way, &head, now);
    match &kept {
        Kept::Yes(accepted) => stored(&accepted.meta, text),
        Kept::No(why) => text.line("stored", format_args!("no: {}", why.because())),
    }
    removed(decided, way, &head, text);
    if head.status != 101 && is_stream(decided, &head) {
        text.line("stream", "each piece goes on at once");
    }
    head.fields.push("Cache-Status", &status);
    compression::of_response_given(decided, &mut head, text);
    let lines = || answer_lines(decided, client, &head);
    text.block("answer", steady(lines(), lines()));
    if let (Kept::Yes(accepted), Way::Looked(rules)) = (&kept, way) {
        again(decided.request, rules, &accepted.meta, now, text);
    }
}

fn stored(meta: &StoredMeta, text: &mut Text) {
    let lifetime = meta.lifetime;
    let source = lifetime.source.as_str();
    match (meta.restrictions.no_cache, lifetime.source) {
        (true, _) => text.line("stored", "yes, to be validated before each use (no-cache)"),
        (false, LifetimeSource::None) => text.line("stored", "yes, to be validated before each use (no lifetime)"),
        (false, _) => text.line(
            "stored",
            format_args!("yes, with a lifetime of {} s ({source})", lifetime.seconds.get()),
        ),
    }
    if meta.partial().is_some() {
        text.more("only a part: it answers for the ranges that it holds, until the rest has come");
    }
    if !meta.initial_age.is_zero() {
        let age = span(meta.initial_age.duration());
        text.more(format_args!("it is {age} old already (Age, Date)"));
    }
    for (name, window) in [
        ("stale-while-revalidate", meta.stale_while_revalidate),
        ("stale-if-error", meta.stale_if_error),
    ] {
        if let Some(window) = window {
            text.more(format_args!("then stale for {} s ({name})", window.get()));
        }
    }
    for (name, value) in meta.variant.nominated() {
        let value = value.map_or_else(|| "no value".to_owned(), |value| format!("{:?}", text::lossy(value)));
        text.more(format_args!("for requests with the same {name}: {value} (Vary)"));
    }
    let validators = match (&meta.validators.etag, &meta.validators.last_modified) {
        (Some(_), Some(_)) => "ETag and Last-Modified",
        (Some(_), None) => "ETag",
        (None, Some(_)) => "Last-Modified",
        (None, None) => return text.more("without a validator: fetched anew when it is stale"),
    };
    text.more(format_args!("validated by its {validators} when it is stale"));
}

/// What a successful unsafe request takes out of the store (RFC 9111 §4.4).
fn removed(decided: &Decided<'_>, way: &Way<'_>, head: &ResponseHead, text: &mut Text) {
    let caches = decided.generation.routes.iter().any(|route| route.cache.is_some());
    if !caches || matches!(way, Way::Looked(_)) {
        return;
    }
    let uris = invalidated(decided.request, head);
    if uris.is_empty() {
        return;
    }
    text.line(
        "removes",
        format_args!(
            "a {} request that succeeds (2xx, 3xx) removes what is stored of",
            decided.request.method
        ),
    );
    for uri in uris {
        text.more(format_args!(
            "{}://{}{}",
            uri.scheme.as_str(),
            uri.authority,
            uri.target
        ));
    }
}

fn is_stream(decided: &Decided<'_>, head: &ResponseHead) -> bool {
    decided.route.stream.is_some() || head.fields.get("content-type").is_some_and(is_event_stream)
}

/// The response as the client gets it.
fn answer_lines(decided: &Decided<'_>, client: &ClientAddress, head: &ResponseHead) -> Vec<String> {
    let request = decided.request;
    let request_id = RequestId::of(&request.fields);
    let (client_ip, host) = (client.text(), request.host());
    let context = ResponseContext {
        route: Some(decided.route),
        tls: decided.listener.tls.as_ref(),
        delivery: match head.status != 101 && is_stream(decided, head) {
            true => Delivery::Stream,
            false => Delivery::Whole,
        },
        values: Values {
            client_ip: &client_ip,
            host: &host,
            method: request.method.as_str(),
            path: request.path(),
            request_id: request_id.as_bytes(),
            captures: decided.captures,
        },
    };
    let mut head = head.clone();
    finish_response(&mut head, &context);
    let mut lines = vec![text::status_line(head.status)];
    lines.extend(field_lines(&head.fields));
    lines
}

/// The same request right after it, where the response has been stored.
fn again(request: &RequestHead, rules: &CacheRules, meta: &StoredMeta, now: Timestamp, text: &mut Text) {
    match reuse(request, meta, now, &rules.reuse) {
        Reuse::Fresh(served) => {
            text.line(
                "asked again",
                format_args!("Cache-Status: {}", hit(&served, "l1").to_field_value()),
            );
            if evaluate(request, meta) == ClientCondition::NotModified {
                text.more("with 304: the client has it");
            }
        }
        Reuse::Stale(why, served) => {
            text.line(
                "asked again",
                format_args!("Cache-Status: {}", hit(&served, why.as_str()).to_field_value()),
            );
            if why == StaleReason::WhileRevalidate {
                text.more("and it is validated meanwhile");
            }
        }
        Reuse::Validate(reason) => {
            text.line(
                "asked again",
                format_args!("the origin is asked whether it still holds: fwd={}", reason.as_str()),
            );
        }
        Reuse::Forward(reason) => text.line("asked again", format_args!("fetched anew: fwd={}", reason.as_str())),
        Reuse::GatewayTimeout => answer_with(&ProxyError::NotStored, text),
    }
}
