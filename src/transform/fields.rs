//! The request as the upstream gets it, and the response as the client gets it.

use http::Method;

use super::forwarding::{self, ClientAddress, Passed, Received, Trust};
use super::names::{Kind, Nominated, OF_ONE_CONNECTION, Spelling, kind};
use super::template::{Values, edit};
use crate::config::{self, HostPolicy};
use crate::message::{Fields, Forwarded, Lines, RequestHead, ResponseHead, Scheme, Version};
use crate::request_id::{new_trace_parent, trace_parent};
use crate::route::{Ambiguity, Captures, strip_prefix};

/// What the upstream's request depends on beside the client's request.
#[derive(Debug, Clone, Copy)]
pub struct ForwardContext<'a, 'u> {
    pub client: &'a ClientAddress,
    pub route: &'a config::Route,
    pub captures: Captures<'a>,
    pub upstream: &'u config::Upstream,
    pub request_id: &'a [u8],
    /// Our name in `Via` (RFC 9110 §7.6.3), the same for all instances that must not call each other.
    pub pseudonym: &'a str,
}

/// Why a request is not forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardRefusal {
    /// It has been here before: 508.
    Loop,
    /// OPTIONS with `Max-Forwards: 0` (RFC 9110 §7.6.2): we are the one it is for.
    FinalRecipient,
    /// What `strip_prefix` leaves of the path could leave the prefix: 400.
    Path(Ambiguity),
}

/// Makes the upstream's request out of the client's. Whether it says that the client expects a 100 is up to who sends it.
///
/// # Errors
/// Where the request must be answered here: see [`ForwardRefusal`].
pub fn forward_request<'h>(
    head: &'h RequestHead,
    context: &ForwardContext<'_, 'h>,
) -> Result<Forwarded<'h>, ForwardRefusal> {
    let target = strip_prefix(context.route, &head.target).map_err(ForwardRefusal::Path)?;
    let (mut out, rewritten) = passed_on(head, context)?;

    if let Some(left) = rewritten.max_forwards {
        out.push("Max-Forwards", left.to_string());
    }
    if !rewritten.cookie.is_empty() {
        out.push("Cookie", &rewritten.cookie);
    }
    forwarding::push(&mut out, head, context.client, rewritten.forwarding);
    out.push_joined(
        "Via",
        [via_version(head.version).as_bytes(), context.pseudonym.as_bytes()],
    );
    out.push_joined("X-Request-Id", [context.request_id]);
    if rewritten.trace == Trace::New {
        out.push_joined("traceparent", [&new_trace_parent()[..]]);
    }
    // Only for the next hop, so made anew (RFC 9110 §10.1.4).
    if head.fields.has_token("te", "trailers") {
        out.push("TE", "trailers");
    }

    let edits = &context.route.request_headers;
    if !edits.is_empty() {
        let client_ip = context.client.text();
        let host = head.host();
        let values = Values {
            client_ip: &client_ip,
            host: &host,
            method: head.method.as_str(),
            path: head.path(),
            request_id: context.request_id,
            captures: context.captures,
        };
        edit(&mut out, edits, &values);
    }

    Ok(Forwarded {
        method: &head.method,
        scheme: match context.upstream.tls {
            Some(_) => Scheme::Https,
            None => Scheme::Http,
        },
        authority: match &context.upstream.host {
            HostPolicy::Keep => &head.authority,
            HostPolicy::Send(host) => host,
        },
        target,
        fields: out,
        framing: head.framing,
        expects_continue: false,
        upgrade: head.upgrade,
    })
}

/// What one pass over the received fields finds to be written anew.
struct Rewritten {
    forwarding: Received,
    max_forwards: Option<u32>,
    /// The lines of `Cookie` as one, if there are several: HTTP/2 may split the field, HTTP/1.1 must not (RFC 9113
    /// §8.2.3).
    cookie: Vec<u8>,
    trace: Trace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trace {
    PassedOn,
    New,
}

/// The lines that are passed on as they are, and what is to be written beside them.
fn passed_on(head: &RequestHead, context: &ForwardContext<'_, '_>) -> Result<(Fields, Rewritten), ForwardRefusal> {
    let nominated = Nominated::of(&head.fields);
    let mut rewritten = Rewritten {
        forwarding: Received::default(),
        max_forwards: None,
        cookie: joined_cookies(&head.fields),
        trace: match trace_parent(&head.fields) {
            Some(_) => Trace::PassedOn,
            None => Trace::New,
        },
    };
    let mut refusal = None;
    let mut fields = head.fields.copy_with_room();
    fields.retain(|name, value| {
        let (kind, spelling) = kind(name);
        match kind {
            Kind::Other => !nominated.takes(name, kind) || routes_by(context.route, name),
            _ if spelling == Spelling::Underscored => keeps(context.route, name),
            Kind::Protected | Kind::Application => true,
            Kind::HopByHop | Kind::Te | Kind::RequestId => false,
            Kind::Forwarding(field) => {
                is_believed(context, name) && rewritten.forwarding.passes(field, value) == Passed::Yes
            }
            Kind::Override => is_believed(context, name),
            Kind::Via => {
                if names_us(value, context.pseudonym) {
                    refusal = Some(ForwardRefusal::Loop);
                }
                true
            }
            Kind::MaxForwards if head.method == Method::OPTIONS => {
                match max_forwards(value) {
                    Some(0) => refusal = refusal.or(Some(ForwardRefusal::FinalRecipient)),
                    Some(hops) => rewritten.max_forwards = Some(hops - 1),
                    None => {}
                }
                false
            }
            Kind::MaxForwards => true,
            // Without a valid `traceparent` the state means nothing (W3C Trace Context §3.3.1).
            Kind::TraceParent | Kind::TraceState => rewritten.trace == Trace::PassedOn,
            Kind::Cookie => rewritten.cookie.is_empty(),
        }
    });
    match refusal {
        Some(refusal) => Err(refusal),
        None => Ok((fields, rewritten)),
    }
}

/// Empty where there is at most one line.
fn joined_cookies(fields: &Fields) -> Vec<u8> {
    let mut lines = fields.get_all("cookie");
    let (Some(first), Some(second)) = (lines.next(), lines.next()) else {
        return Vec::new();
    };
    let mut joined = first.to_vec();
    for line in std::iter::once(second).chain(lines) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(line);
    }
    joined
}

/// Whether what a forwarding or override field says is passed on.
fn is_believed(context: &ForwardContext<'_, '_>, name: &str) -> bool {
    context.client.trust == Trust::Trusted || keeps(context.route, name)
}

/// Whether the route passes this field on whoever sent it.
fn keeps(route: &config::Route, name: &str) -> bool {
    route.keep_fields.iter().any(|kept| kept.eq_ignore_ascii_case(name))
}

/// Whether the route was chosen by this field.
fn routes_by(route: &config::Route, name: &str) -> bool {
    route
        .matches
        .headers
        .iter()
        .any(|(field, _)| field.eq_ignore_ascii_case(name))
}

/// The received protocol version as `Via` names it, with the space behind it; the protocol name is `HTTP`, so left out.
fn via_version(version: Version) -> &'static str {
    match version {
        Version::Http10 => "1.0 ",
        Version::Http11 => "1.1 ",
        Version::Http2 => "2.0 ",
    }
}

/// Whether `received-by` of some member is our pseudonym (RFC 9110 §7.6.3).
///
/// A comment may hold commas; what is torn out of one is not taken for a member, because its first word would have to be
/// a version.
fn names_us(via: &[u8], pseudonym: &str) -> bool {
    via.split(|b| *b == b',').any(|member| {
        let mut words = member
            .split(|b| matches!(b, b' ' | b'\t'))
            .filter(|word| !word.is_empty());
        let is_version = words
            .next()
            .is_some_and(|word| word.last().is_some_and(u8::is_ascii_digit));
        is_version
            && words
                .next()
                .is_some_and(|by| by.eq_ignore_ascii_case(pseudonym.as_bytes()))
    })
}

/// `None` where it is not a number; one that is too large to count has as good as no end.
fn max_forwards(value: &[u8]) -> Option<u32> {
    let digits = std::str::from_utf8(value).ok()?;
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u32::MAX))
}

/// Takes out of a request's trailers what may not be said there: they come from whoever sent the request, and some
/// servers put them beside the fields of the head (RFC 9110 §6.5.1).
pub fn clean_trailers(trailers: &mut Fields) {
    trailers.retain(|name, _| match kind(name) {
        (_, Spelling::Underscored) => false,
        (Kind::Other | Kind::Application | Kind::Protected, Spelling::Usual) => true,
        _ => false,
    });
}

/// Takes out of an upstream's response what is not for us to pass on or store, and dates it where it has no `Date`
/// (RFC 9110 §6.6.1). `now` gives an IMF-fixdate.
///
/// `Connection` and `Upgrade` of a 101 are written by who sends it.
pub fn clean_response<D: AsRef<str>>(head: &mut ResponseHead, now: impl FnOnce() -> D) {
    let fields = &mut head.fields;
    if Nominated::of(fields).is_unusual() {
        let received = fields.clone();
        let nominated = Nominated::of(&received);
        fields.retain(|name, _| !nominated.takes(name, kind(name).0));
    }
    fields.remove_all(&OF_ONE_CONNECTION);
    if head.status >= 200 && !fields.contains("date") {
        fields.push("Date", now().as_ref());
    }
}

/// What the client's response depends on beside the response itself.
#[derive(Debug, Clone, Copy)]
pub struct ResponseContext<'a> {
    /// `None`: no route was found.
    pub route: Option<&'a config::Route>,
    /// `None`: the listener has no TLS.
    pub tls: Option<&'a config::ListenerTls>,
    pub delivery: Delivery,
    pub values: Values<'a>,
}

/// How the body goes to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    Whole,
    /// Each chunk at once. Proxies between us and the client are asked to do the same.
    Stream,
}

/// Adds what this client's response has beside what the upstream or the cache gave: after the decision to store it.
pub fn finish_response(head: &mut ResponseHead<impl Lines>, context: &ResponseContext<'_>) {
    let fields = &mut head.fields;
    if context.delivery == Delivery::Stream {
        fields.set("X-Accel-Buffering", "no");
    }
    if !fields.contains("x-request-id") {
        fields.push("X-Request-Id", context.values.request_id);
    }
    // RFC 6797 §7.2: never over an insecure transport.
    if let Some(max_age) = context.tls.and_then(|tls| tls.hsts) {
        fields.set("Strict-Transport-Security", format!("max-age={}", max_age.as_secs()));
    }
    if let Some(route) = context.route
        && (route.response_headers.always || matches!(head.status, 200..=399))
    {
        edit(fields, &route.response_headers, &context.values);
    }
}

#[cfg(test)]
mod tests;
