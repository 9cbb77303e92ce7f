//! HTTP messages as the stages see them, whatever protocol version they came in.

mod authority;
mod classes;
mod fields;
mod lines;
mod target;
mod text;

use std::borrow::Cow;

use bytes::Bytes;
use http::Method;
use memchr::memrchr2;

pub use self::authority::Authority;
#[cfg(test)]
pub(crate) use self::fields::fields;
pub use self::fields::{FieldName, FieldNames, Fields, is_field_value, is_token, is_token_byte};
pub(crate) use self::fields::{Line, Tag};
pub use self::lines::Lines;
pub(crate) use self::target::Scanned;
pub use self::target::{Encoding, Readings, Target, path_readings};

/// The protocol version of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    Http10,
    Http11,
    Http2,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port where an authority names none (RFC 9110 §4.2.1, §4.2.2).
    pub fn default_port(self) -> &'static str {
        match self {
            Self::Http => "80",
            Self::Https => "443",
        }
    }
}

/// How the end of a message body is known (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// This many bytes.
    Length(u64),
    /// HTTP/1.1 chunks.
    Chunked,
    /// Ends with the HTTP/2 stream; no length was given.
    Stream,
    /// Ends with the connection (responses only); whether it is whole cannot be known.
    Close,
}

/// A request whose framing, target and authority have been found unambiguous.
#[derive(Debug, Clone)]
pub struct RequestHead {
    pub method: Method,
    pub scheme: Scheme,
    pub version: Version,
    /// Host and optional port as received, from `Host`, the absolute form or `:authority`. Empty only for HTTP/1.0
    /// without `Host`.
    pub authority: Authority,
    pub target: Target,
    /// Without those that describe the connection's framing: `Content-Length` and `Transfer-Encoding` are `framing`, `Host` is
    /// `authority`.
    pub fields: Fields,
    pub framing: Framing,
    /// `Expect: 100-continue` (RFC 9110 §10.1.1).
    pub expects_continue: bool,
    /// A bodiless HTTP/1.1 GET with `Connection: upgrade` and `Upgrade: websocket`.
    pub upgrade: bool,
    /// HTTP/1: whether the client lets the connection live on (RFC 9112 §9.3). Always true for HTTP/2.
    pub keep_alive: bool,
}

impl RequestHead {
    /// The path as received, without the query.
    pub fn path(&self) -> &str {
        self.target.path()
    }

    /// What stands behind the first `?`.
    pub fn query(&self) -> Option<&str> {
        self.target.query()
    }

    /// The authority's host, lower case, without port and trailing dot; brackets of IPv6 literals stay.
    pub fn host(&self) -> String {
        self.authority
            .host_and_port()
            .0
            .trim_end_matches('.')
            .to_ascii_lowercase()
    }
}

/// A request as a server gets it, whichever protocol that speaks.
///
/// Like the head that a client sent it has no `Host`, `Content-Length` and `Transfer-Encoding`: they are `authority` and `framing`.
/// `Connection` and `Upgrade` are written by who sends it, from `upgrade` and the presence of `TE`.
#[derive(Debug)]
pub struct Forwarded<'a> {
    pub method: &'a Method,
    pub scheme: Scheme,
    pub authority: &'a str,
    /// Path with its query in origin form, or `*`.
    pub target: Cow<'a, str>,
    pub fields: Fields,
    pub framing: Framing,
    /// Whether the client waits for the server to say that it wants the body (RFC 9110 §10.1.1).
    pub expects_continue: bool,
    /// To a WebSocket.
    pub upgrade: bool,
}

/// `example.org:80` → (`example.org`, `Some("80")`); knows IPv6 literals.
pub fn split_port(authority: &str) -> (&str, Option<&str>) {
    let end_of_host = memrchr2(b':', b']', authority.as_bytes());
    match end_of_host.and_then(|at| authority.split_at_checked(at)) {
        Some((host, port)) if port.starts_with(':') => (host, port.get(1..)),
        _ => (authority, None),
    }
}

/// The head of a final or interim response.
#[derive(Debug, Clone)]
pub struct ResponseHead<F = Fields> {
    pub status: u16,
    /// Without `Content-Length` and `Transfer-Encoding`: see `framing`.
    pub fields: F,
    /// How the body's end is known. For responses to HEAD, 204 and 304 it is [`Framing::None`], whatever the fields said.
    pub framing: Framing,
    /// The `Content-Length` that was given, also where there is no body (HEAD, 304).
    pub declared_length: Option<u64>,
}

/// The next piece of a message body.
#[derive(Debug)]
pub enum BodyEvent {
    Data(Bytes),
    /// The body is whole; behind it come these trailers, if there are any.
    End(Option<Fields>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_split_off_hosts_and_literals() {
        let cases = [
            ("a", ("a", None)),
            ("a:1", ("a", Some("1"))),
            ("a:", ("a", Some(""))),
            ("[::1]", ("[::1]", None)),
            ("[::1]:80", ("[::1]", Some("80"))),
        ];
        for (authority, expected) in cases {
            assert_eq!(split_port(authority), expected, "{authority}");
        }
    }
}
