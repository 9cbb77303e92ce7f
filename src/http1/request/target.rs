//! Request targets and hosts (RFC 9112 §3.2, RFC 3986 §3.2).

use http::Method;

use super::RequestError;
use crate::message::{Scheme, Version, split_port};

/// Longest host: what DNS can name (RFC 1035 §2.3.4), with its dot.
const MAX_HOST: usize = 254;

/// A request target as its form says (RFC 9112 §3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target<'a> {
    /// `/path?query`
    Origin(&'a str),
    /// `http://authority/path?query`; the path may be missing.
    Absolute {
        scheme: Scheme,
        authority: &'a str,
        path_and_query: &'a str,
    },
    /// `*`
    Asterisk,
}

/// What the first byte makes of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TargetForm {
    /// Begins with `/`.
    Origin,
    Other,
}

/// How far a target reaches in `bytes`: up to the first byte that may not stand in one.
pub(super) fn scan(bytes: &[u8]) -> (TargetForm, usize) {
    let form = match bytes.first() {
        Some(b'/') => TargetForm::Origin,
        _ => TargetForm::Other,
    };
    let path_end = end_of(bytes, 0, IN_PATH);
    let end = match bytes.get(path_end) {
        Some(b'?') => end_of(bytes, path_end + 1, IN_QUERY),
        _ => path_end,
    };
    (form, end)
}

fn end_of(bytes: &[u8], from: usize, class: u8) -> usize {
    bytes[from..]
        .iter()
        .position(|b| TARGET_BYTES[usize::from(*b)] & class == 0)
        .map_or(bytes.len(), |length| from + length)
}

const IN_PATH: u8 = 1;
const IN_QUERY: u8 = 2;

/// Which bytes a target may have. RFC 3986 §3.3 and §3.4, and what browsers and curl send beside them without encoding it.
///
/// Never: controls, space, `#`, `<`, `>`, DEL and what is not ASCII. `\` is refused in paths, because some read it as `/`. All
/// of it can be said in HTTP/2 as well, so that a request is not served by one version and refused by the other.
static TARGET_BYTES: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0x21;
    while byte < 0x7f {
        table[byte] = match byte as u8 {
            b'#' | b'<' | b'>' => 0,
            b'?' | b'\\' | b'`' => IN_QUERY,
            b'"' => IN_PATH,
            _ => IN_PATH | IN_QUERY,
        };
        byte += 1;
    }
    table
};

impl<'a> Target<'a> {
    /// `bytes` are as far as [`scan`] got.
    pub(super) fn new(form: TargetForm, bytes: &'a [u8]) -> Result<Self, RequestError> {
        // All bytes that the table lets through are ASCII.
        let text = std::str::from_utf8(bytes).map_err(|_| RequestError::Target)?;
        if form == TargetForm::Origin {
            return Ok(Self::Origin(text));
        }
        if text == "*" {
            return Ok(Self::Asterisk);
        }
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
        if !is_authority(authority) {
            return Err(RequestError::Target);
        }
        Ok(Self::Absolute {
            scheme,
            authority,
            path_and_query,
        })
    }

    /// The authority and the target in origin form (or `*`), once the `Host` field is known.
    pub(super) fn resolve(
        self,
        method: &Method,
        version: Version,
        host: Option<&[u8]>,
        connection: Scheme,
    ) -> Result<(String, String), RequestError> {
        let host = match host {
            // RFC 9112 §3.2.
            None if version >= Version::Http11 => return Err(RequestError::HostMissing),
            None => None,
            Some(value) => match std::str::from_utf8(value) {
                Ok(host) if is_authority(host) => Some(host),
                _ => return Err(RequestError::Host),
            },
        };
        match self {
            Self::Origin(target) => Ok((host.unwrap_or_default().to_owned(), target.to_owned())),
            // RFC 9112 §3.2.4.
            Self::Asterisk if method == Method::OPTIONS => Ok((host.unwrap_or_default().to_owned(), "*".to_owned())),
            Self::Asterisk => Err(RequestError::Target),
            Self::Absolute {
                scheme,
                authority,
                path_and_query,
            } => {
                if scheme != connection {
                    return Err(RequestError::Misdirected);
                }
                if host.is_some_and(|host| !is_same_authority(host, authority, scheme)) {
                    return Err(RequestError::HostMismatch);
                }
                let target = match path_and_query {
                    // RFC 9112 §3.2.4: the way to ask a proxy for `OPTIONS *`.
                    "" if method == Method::OPTIONS => "*".to_owned(),
                    path if path.starts_with('/') => path.to_owned(),
                    // RFC 9112 §3.2.1: an empty path is sent as `/`.
                    query => format!("/{query}"),
                };
                Ok((authority.to_owned(), target))
            }
        }
    }
}

/// Whether the text is a host with an optional port (RFC 9110 §7.2, RFC 3986 §3.2.2), and one that every server behind us
/// reads the same: an IP literal or a name as DNS has them, underscores included; no user information, no percent-encoding, no
/// list, no empty label, no empty port.
pub fn is_authority(text: &str) -> bool {
    let (host, port) = split_port(text);
    host.len() <= MAX_HOST && is_host(host) && port.is_none_or(is_port)
}

fn is_host(host: &str) -> bool {
    if let Some(literal) = host.strip_prefix('[') {
        return literal
            .strip_suffix(']')
            .is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
    }
    let name = host.strip_suffix('.').unwrap_or(host).as_bytes();
    // So that the end of the last label is seen like that of the others.
    let mut previous = b'.';
    for byte in name {
        if !NAME_BYTES[usize::from(*byte)] || (*byte == b'.' && previous == b'.') {
            return false;
        }
        previous = *byte;
    }
    previous != b'.'
}

/// Which bytes the name of a host may have.
static NAME_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 0x7f {
        table[byte] = (byte as u8).is_ascii_alphanumeric() || matches!(byte as u8, b'.' | b'-' | b'_' | b'~');
        byte += 1;
    }
    table
};

fn is_port(port: &str) -> bool {
    port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// Whether two authorities are one, with case and the scheme's own port aside (RFC 9110 §4.2.3).
fn is_same_authority(one: &str, other: &str, scheme: Scheme) -> bool {
    let default_port = match scheme {
        Scheme::Http => "80",
        Scheme::Https => "443",
    };
    let (one_host, one_port) = split_port(one);
    let (other_host, other_port) = split_port(other);
    one_host.eq_ignore_ascii_case(other_host) && one_port.unwrap_or(default_port) == other_port.unwrap_or(default_port)
}
