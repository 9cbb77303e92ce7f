//! Request targets and hosts (RFC 9112 §3.2, RFC 3986 §3.2).

use http::Method;

use super::RequestError;
use crate::message::{Authority, Scheme, Target, split_port};

/// A request target in another form than `/path?query` (RFC 9112 §3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OtherTarget<'a> {
    /// `http://authority/path?query`; the path may be missing.
    Absolute {
        scheme: Scheme,
        authority: &'a str,
        path_and_query: &'a str,
    },
    /// `*`
    Asterisk,
}

/// Whether it is `/path?query`.
#[inline]
pub(super) fn is_origin_form(target: &[u8]) -> bool {
    target.first() == Some(&b'/')
}

impl<'a> OtherTarget<'a> {
    #[cold]
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, RequestError> {
        if bytes == b"*" {
            return Ok(Self::Asterisk);
        }
        // All bytes that may stand in a target are ASCII.
        let text = std::str::from_utf8(bytes).map_err(|_| RequestError::Target)?;
        // Neither `example.org:443`, which is for CONNECT only, nor a path without a slash.
        let (scheme, rest) = text.split_once("://").ok_or(RequestError::Target)?;
        let scheme = if scheme.eq_ignore_ascii_case("http") {
            Scheme::Http
        } else if scheme.eq_ignore_ascii_case("https") {
            Scheme::Https
        } else {
            return Err(RequestError::Target);
        };
        let (authority, path_and_query) = match rest.find(['/', '?']) {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        // RFC 9110 §4.2.1, §4.2.4: no empty host, no user information.
        if Authority::parse(authority.as_bytes()).is_none() {
            return Err(RequestError::Target);
        }
        Ok(Self::Absolute {
            scheme,
            authority,
            path_and_query,
        })
    }

    /// The authority and the target in origin form (or `*`), once the host is known.
    #[cold]
    pub(super) fn resolve(
        self,
        method: &Method,
        host: Option<Authority>,
        connection: Scheme,
    ) -> Result<(Authority, Target), RequestError> {
        match self {
            // RFC 9112 §3.2.4.
            Self::Asterisk if method == Method::OPTIONS => Ok((host.unwrap_or_default(), "*".into())),
            Self::Asterisk => Err(RequestError::Target),
            Self::Absolute {
                scheme,
                authority,
                path_and_query,
            } => {
                if scheme != connection {
                    return Err(RequestError::Misdirected);
                }
                if host.is_some_and(|host| !is_same_authority(&host, authority, scheme)) {
                    return Err(RequestError::HostMismatch);
                }
                let target = match path_and_query {
                    // RFC 9112 §3.2.4: the way to ask a proxy for `OPTIONS *`.
                    "" if method == Method::OPTIONS => "*".into(),
                    path if path.starts_with('/') => path.into(),
                    // RFC 9112 §3.2.1: an empty path is sent as `/`.
                    query => format!("/{query}").into(),
                };
                Ok((authority.into(), target))
            }
        }
    }
}

/// Whether two authorities are one, with case and the scheme's own port aside (RFC 9110 §4.2.3).
fn is_same_authority(one: &str, other: &str, scheme: Scheme) -> bool {
    let default_port = scheme.default_port();
    let (one_host, one_port) = split_port(one);
    let (other_host, other_port) = split_port(other);
    one_host.eq_ignore_ascii_case(other_host) && one_port.unwrap_or(default_port) == other_port.unwrap_or(default_port)
}
