//! The only map from what went wrong to the response that the client gets; that there was too much of it is in [`refusal`](super::refusal).
//!
//! Bodies are problem details (RFC 9457) or plain text; `Proxy-Status` (RFC 9209) says why in one word of the standard and
//! one of our own. None of them says where a server is.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::http1::body::BodyError;
use crate::http1::request::RequestError;
use crate::limit::fields::seconds;
use crate::message::{Fields, Framing, RequestHead, ResponseHead, split_port};
use crate::route::NoRoute;
use crate::upstream::NO_SERVER_RETRY_AFTER;

/// Methods that are forwarded, for `Allow` (RFC 9110 §10.2.1).
const ALLOW: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Everything that makes Forebay answer in the place of the upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxyError {
    /// The head is not one that is forwarded; status and reason are the parser's.
    Request(RequestError),
    /// Two servers could take the path for different resources; the reason is the router's word.
    AmbiguousPath(&'static str),
    /// Found after the head was accepted: a bad chunk, or less than was announced.
    MalformedBody(BodyError),
    /// The address is not one that may use the route.
    Denied,
    /// The address is not one that may purge.
    PurgeDenied,
    /// PURGE requests are for other routes.
    NoPurge,
    /// A PURGE request asks for something else than its URL.
    BadPurge,
    NoRoute,
    /// The head did not come in time.
    HeadTimeout,
    /// The body stopped coming.
    BodyTimeout,
    BodyTooLarge,
    /// Forebay's own fault.
    Internal,
    /// The upstream's name does not resolve.
    UpstreamName,
    UpstreamRefused,
    /// No way to the upstream: neither refused nor timed out.
    UpstreamUnreachable,
    /// The connection ended before the response.
    UpstreamClosed,
    /// The connection ended within the response, of which the client has got nothing.
    UpstreamCut,
    UpstreamMalformed,
    UpstreamHeadTooLarge,
    /// HTTP/2 to the upstream broke down.
    UpstreamProtocol,
    UpstreamTls,
    /// The upstream's certificate is not one that is trusted for its name.
    UpstreamCertificate,
    /// The upstream answered an upgrade with something that is neither 101 nor a final response.
    UpgradeFailed,
    NoServer,
    /// The circuit of the upstream is open.
    CircuitOpen {
        retry_after: Duration,
    },
    /// A limit of ours is reached.
    Overloaded {
        retry_after: Option<Duration>,
    },
    /// We are about to stop.
    Draining,
    ConnectTimeout,
    /// The upstream took the request and did not answer in time.
    FirstByteTimeout,
    /// The upstream fell silent within its response, of which the client has got nothing.
    UpstreamSilent,
    /// The upstream did not take the request in time.
    SendTimeout,
    Loop,
    /// `only-if-cached`, and nothing stored can answer (RFC 9111 §5.2.1.7).
    NotStored,
    /// What is stored must be validated first, and the upstream could not be asked (RFC 9111 §5.2.2.2).
    NotValidated,
}

/// Whether more requests can follow on an HTTP/1 connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    KeepAlive,
    /// Where the next request begins is not known, or not worth finding out.
    Close,
}

struct Description {
    status: u16,
    reason: &'static str,
    /// RFC 9209 §2.3.
    proxy_error: &'static str,
    detail: &'static str,
    after: After,
}

impl ProxyError {
    pub fn status(&self) -> u16 {
        self.describe().status
    }

    /// One word, the same in log, metric and answer.
    pub fn reason(&self) -> &'static str {
        self.describe().reason
    }

    /// What becomes of the client's HTTP/1 connection.
    pub fn after(&self) -> After {
        self.describe().after
    }

    /// The value of `Proxy-Status`.
    pub fn proxy_status(&self) -> String {
        let Description {
            reason, proxy_error, ..
        } = self.describe();
        format!("forebay; error={proxy_error}; details=\"{reason}\"")
    }

    fn describe(&self) -> Description {
        use After::{Close, KeepAlive};
        let (status, reason, proxy_error, after, detail) = match self {
            Self::Request(error) => {
                let status = error.status();
                // RFC 9209 §2.3.13: denied is what we refuse by policy, not for being wrong.
                let proxy_error = match status {
                    405 => "http_request_denied",
                    _ => "http_request_error",
                };
                (status, error.as_str(), proxy_error, Close, request_detail(status))
            }
            Self::MalformedBody(error) => {
                let detail = "The request's body is malformed or incomplete.";
                (400, error.as_str(), "http_request_error", Close, detail)
            }
            Self::AmbiguousPath(reason) => {
                let detail = "The path can be read in more than one way.";
                (400, *reason, "http_request_error", KeepAlive, detail)
            }
            Self::Denied => {
                let detail = "Your address may not use this resource.";
                (403, "denied", "http_request_denied", KeepAlive, detail)
            }
            Self::PurgeDenied => {
                let detail = "Your address may not purge.";
                (403, "purge-denied", "http_request_denied", KeepAlive, detail)
            }
            Self::NoPurge => {
                let detail = "Nothing is purged by this method here.";
                (405, "no-purge", "http_request_denied", KeepAlive, detail)
            }
            Self::BadPurge => {
                let detail =
                    "PURGE is for one URL, with X-Purge-Soft: 1 or 0; tags are purged over the admin listener.";
                (400, "bad-purge", "http_request_error", KeepAlive, detail)
            }
            Self::NoRoute => {
                let detail = "No route leads to this resource.";
                (404, "no-route", "destination_not_found", KeepAlive, detail)
            }
            Self::HeadTimeout => {
                let detail = "The request's head did not arrive in time.";
                (408, "head-timeout", "http_request_error", Close, detail)
            }
            Self::BodyTimeout => {
                let detail = "The request's body did not arrive in time.";
                (408, "body-timeout", "http_request_error", Close, detail)
            }
            Self::BodyTooLarge => {
                let detail = "The request's body is larger than this resource takes.";
                (413, "body-too-large", "http_request_error", Close, detail)
            }
            Self::Internal => {
                let detail = "The proxy has failed.";
                (500, "internal", "proxy_internal_error", Close, detail)
            }
            Self::UpstreamName => {
                let detail = "The server's name could not be resolved.";
                (502, "name-not-resolved", "dns_error", KeepAlive, detail)
            }
            Self::UpstreamRefused => {
                let detail = "The server refused the connection.";
                (502, "connect-refused", "connection_refused", KeepAlive, detail)
            }
            Self::UpstreamUnreachable => {
                let detail = "The server could not be reached.";
                (502, "connect-failed", "destination_ip_unroutable", KeepAlive, detail)
            }
            Self::UpstreamClosed => {
                let detail = "The server closed the connection before it answered.";
                (502, "closed-before-head", "connection_terminated", KeepAlive, detail)
            }
            Self::UpstreamCut => {
                let detail = "The server's response broke off.";
                (502, "upstream-cut", "http_response_incomplete", KeepAlive, detail)
            }
            Self::UpstreamMalformed => {
                let detail = "The server's response is malformed.";
                (502, "malformed-response", "http_protocol_error", KeepAlive, detail)
            }
            Self::UpstreamHeadTooLarge => {
                let detail = "The server's response has too many or too large fields.";
                (
                    502,
                    "response-head-too-large",
                    "http_response_header_section_size",
                    KeepAlive,
                    detail,
                )
            }
            Self::UpstreamProtocol => {
                let detail = "The server violated the protocol.";
                (502, "protocol-error", "http_protocol_error", KeepAlive, detail)
            }
            Self::UpstreamTls => {
                let detail = "No secure connection to the server could be made.";
                (502, "tls-failed", "tls_protocol_error", KeepAlive, detail)
            }
            Self::UpstreamCertificate => {
                let detail = "The server's certificate is not trusted.";
                (502, "tls-certificate", "tls_certificate_error", KeepAlive, detail)
            }
            Self::UpgradeFailed => {
                let detail = "The server did not switch protocols.";
                (502, "upgrade-failed", "http_upgrade_failed", KeepAlive, detail)
            }
            Self::NoServer => {
                let detail = "No server is available.";
                (503, "no-server", "destination_unavailable", KeepAlive, detail)
            }
            Self::CircuitOpen { .. } => {
                let detail = "The server has failed too often to be asked now.";
                (503, "circuit-open", "destination_unavailable", KeepAlive, detail)
            }
            Self::Overloaded { .. } => {
                let detail = "The proxy is at its limit.";
                (503, "overloaded", "connection_limit_reached", KeepAlive, detail)
            }
            Self::Draining => {
                let detail = "The proxy is shutting down.";
                (503, "draining", "proxy_internal_response", Close, detail)
            }
            Self::ConnectTimeout => {
                let detail = "The server did not accept the connection in time.";
                (504, "connect-timeout", "connection_timeout", KeepAlive, detail)
            }
            Self::FirstByteTimeout => {
                let detail = "The server did not answer in time.";
                (504, "first-byte-timeout", "http_response_timeout", KeepAlive, detail)
            }
            Self::UpstreamSilent => {
                let detail = "The server did not go on with its response.";
                (504, "upstream-silent", "http_response_timeout", KeepAlive, detail)
            }
            Self::SendTimeout => {
                let detail = "The server did not take the request in time.";
                (504, "send-timeout", "connection_write_timeout", Close, detail)
            }
            Self::NotValidated => {
                let detail = "What is stored could not be validated.";
                (504, "not-validated", "destination_unavailable", KeepAlive, detail)
            }
            Self::NotStored => {
                let detail = "Nothing is stored that could answer the request.";
                (504, "not-stored", "destination_not_found", KeepAlive, detail)
            }
            Self::Loop => {
                let detail = "The request has passed this proxy before.";
                (508, "loop", "proxy_loop_detected", KeepAlive, detail)
            }
        };
        Description {
            status,
            reason,
            proxy_error,
            detail,
            after,
        }
    }
}

/// What a refused head is told, by its status.
fn request_detail(status: u16) -> &'static str {
    match status {
        405 => "This method is not forwarded.",
        414 => "The request's target is too long.",
        417 => "The request expects what is not done here.",
        421 => "This connection is not for the URL that the request names.",
        431 => "The request's fields are too many or too large.",
        501 => "The request's method or transfer coding is not known.",
        505 => "This version of HTTP is not spoken here.",
        _ => "The request is malformed.",
    }
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for ProxyError {}

impl From<RequestError> for ProxyError {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

impl From<BodyError> for ProxyError {
    fn from(error: BodyError) -> Self {
        Self::MalformedBody(error)
    }
}

impl From<NoRoute> for ProxyError {
    fn from(error: NoRoute) -> Self {
        match error {
            NoRoute::NotFound => Self::NoRoute,
            NoRoute::Ambiguous(ambiguity) => Self::AmbiguousPath(ambiguity.reason()),
        }
    }
}

/// The response; `accept` is the request's field of that name, `now` an IMF-fixdate.
pub fn render(error: &ProxyError, accept: Option<&[u8]>, request_id: &str, now: &str) -> (ResponseHead, Bytes) {
    let description = error.describe();
    let title = phrase(description.status);
    let (media_type, body) = match preference(accept.unwrap_or(b"*/*")) {
        Preference::Json => ("application/problem+json", json(&description, title, request_id)),
        Preference::Text => ("text/plain; charset=utf-8", text(&description, title, request_id)),
    };
    let mut fields = own_fields(request_id, now);
    fields.push("Content-Type", media_type);
    fields.push("X-Content-Type-Options", "nosniff");
    fields.push("Proxy-Status", error.proxy_status());
    match error {
        // RFC 9110 §15.5.6.
        ProxyError::Request(RequestError::MethodNotAllowed) | ProxyError::NoPurge => fields.push("Allow", ALLOW),
        ProxyError::Overloaded {
            retry_after: Some(after),
        } => fields.push("Retry-After", seconds(*after).max(1).to_string()),
        ProxyError::CircuitOpen { retry_after } => {
            fields.push("Retry-After", seconds(*retry_after).max(1).to_string());
        }
        ProxyError::NoServer => fields.push("Retry-After", seconds(NO_SERVER_RETRY_AFTER).to_string()),
        _ => {}
    }
    let head = own_head(description.status, fields, body.len());
    (head, Bytes::from(body))
}

/// The 308 to the same URL with `https` on its default port. `None`: the request names no host.
pub fn redirect_to_https(head: &RequestHead, request_id: &str, now: &str) -> Option<(ResponseHead, Bytes)> {
    let host = split_port(&head.authority).0;
    if host.is_empty() {
        return None;
    }
    let target = if head.target.starts_with('/') {
        &head.target
    } else {
        "/"
    };
    let mut fields = own_fields(request_id, now);
    fields.push("Location", format!("https://{host}{target}"));
    Some((own_head(308, fields, 0), Bytes::new()))
}

/// The answer to an OPTIONS request that must go no further (RFC 9110 §7.6.2, §9.3.7).
pub fn options(request_id: &str, now: &str) -> ResponseHead {
    let mut fields = own_fields(request_id, now);
    fields.push("Allow", ALLOW);
    own_head(200, fields, 0)
}

/// An answer in JSON to what has been done here.
pub fn done(status: u16, body: String, request_id: &str, now: &str) -> (ResponseHead, Bytes) {
    let mut fields = own_fields(request_id, now);
    fields.push("Content-Type", "application/json");
    fields.push("X-Content-Type-Options", "nosniff");
    (own_head(status, fields, body.len()), Bytes::from(body))
}

fn own_fields(request_id: &str, now: &str) -> Fields {
    let mut fields = Fields::with_capacity(10, 512);
    fields.push("Date", now);
    fields.push("Cache-Control", "no-store");
    fields.push("X-Request-Id", request_id);
    fields
}

fn own_head(status: u16, fields: Fields, length: usize) -> ResponseHead {
    let length = length as u64;
    ResponseHead {
        status,
        fields,
        framing: Framing::Length(length),
        declared_length: Some(length),
    }
}

/// Problem details (RFC 9457 §3.1); `reason` and `request_id` are extension members (§3.2).
fn json(description: &Description, title: &str, request_id: &str) -> String {
    let Description {
        status, reason, detail, ..
    } = description;
    let request_id = escaped(request_id);
    format!(
        "{{\"type\":\"about:blank\",\"title\":\"{title}\",\"status\":{status},\"detail\":\"{detail}\",\
         \"reason\":\"{reason}\",\"request_id\":\"{request_id}\"}}\n"
    )
}

fn text(description: &Description, title: &str, request_id: &str) -> String {
    let Description {
        status, reason, detail, ..
    } = description;
    format!("{status} {title}\n\n{detail}\nReason: {reason}\nRequest: {request_id}\n")
}

/// Inside of a JSON string (RFC 8259 §7).
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '"' | '\\' => out.extend(['\\', char]),
            char if char < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(char))),
            char => out.push(char),
        }
    }
    out
}

/// The title that `about:blank` asks for (RFC 9457 §4.2.1): the status phrase.
fn phrase(status: u16) -> &'static str {
    // RFC 5842 §7.2, and the only one whose RFC 9110 name the registry has changed.
    match status {
        508 => "Loop Detected",
        413 => "Content Too Large",
        _ => {
            let known = http::StatusCode::from_u16(status).ok();
            known.and_then(|status| status.canonical_reason()).unwrap_or("Error")
        }
    }
}

/// Which form of an error a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Preference {
    Json,
    Text,
}

/// JSON unless plain text or a page is wanted more (RFC 9110 §12.5.1). A browser gets text.
pub(super) fn preference(accept: &[u8]) -> Preference {
    // What most programs send.
    if accept == b"*/*" {
        return Preference::Json;
    }
    let json = quality(accept, "application", &["problem+json", "json"]);
    let text = quality(accept, "text", &["plain", "html"]);
    if text > json {
        Preference::Text
    } else {
        Preference::Json
    }
}

/// The highest quality, in thousandths, that `accept` gives to one of the subtypes; the most specific range counts.
fn quality(accept: &[u8], of_type: &str, subtypes: &[&str]) -> u16 {
    let of = |subtype: &str| {
        let mut best = (0, 0);
        for member in accept.split(|b| *b == b',') {
            let mut parts = member.split(|b| *b == b';').map(<[u8]>::trim_ascii);
            let mut range = parts.next().unwrap_or_default().splitn(2, |b| *b == b'/');
            let (range_type, range_subtype) = (range.next().unwrap_or_default(), range.next().unwrap_or_default());
            let specificity = match (range_type, range_subtype) {
                (b"*", b"*") => 1,
                (range_type, b"*") if range_type.eq_ignore_ascii_case(of_type.as_bytes()) => 2,
                (range_type, range_subtype)
                    if range_type.eq_ignore_ascii_case(of_type.as_bytes())
                        && range_subtype.eq_ignore_ascii_case(subtype.as_bytes()) =>
                {
                    3
                }
                _ => continue,
            };
            if specificity > best.0 {
                best = (specificity, parts.find_map(weight).unwrap_or(1000));
            }
        }
        best.1
    };
    subtypes.iter().map(|subtype| of(subtype)).max().unwrap_or(0)
}

/// `q=` in thousandths (RFC 9110 §12.4.2). `None`: another parameter. What is not a weight is taken for 0.
fn weight(parameter: &[u8]) -> Option<u16> {
    let (name, value) = parameter.split_at_checked(2)?;
    if !name.eq_ignore_ascii_case(b"q=") {
        return None;
    }
    let (whole, fraction) = match value.split_at_checked(1) {
        Some((whole, b"")) => (whole, &b""[..]),
        Some((whole, [b'.', fraction @ ..])) if fraction.len() <= 3 => (whole, fraction),
        _ => return Some(0),
    };
    let mut thousandths = match whole {
        b"1" => return Some(1000),
        b"0" => 0,
        _ => return Some(0),
    };
    for (digit, place) in fraction.iter().zip([100, 10, 1]) {
        match digit {
            b'0'..=b'9' => thousandths += u16::from(digit - b'0') * place,
            _ => return Some(0),
        }
    }
    Some(thousandths)
}

#[cfg(test)]
mod tests;
