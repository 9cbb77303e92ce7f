//! The host and port that a request is for.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use super::classes::{Classes, FOLLOWS, LEADS, Run};
use super::text::{Text, behaves_as_text, known_ascii};
use super::{Scheme, split_port};

/// Longest host: what DNS can name (RFC 1035 §2.3.4), with its dot.
const MAX_HOST: usize = 254;

/// Digits of the highest port.
const MAX_PORT_DIGITS: usize = 5;

/// Most authorities are not longer.
const SHORT: usize = 24;

/// Host and optional port as received.
///
/// What reading it has told is kept, so that nobody looks for the port or for upper case again.
#[derive(Clone, Default)]
pub struct Authority {
    text: Text<SHORT>,
    /// Where the port's colon stands, or would.
    host_end: u32,
    case: Case,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Case {
    /// There is no ASCII letter in upper case.
    #[default]
    Lower,
    Mixed,
}

/// Where an acceptable authority's host ends, and how it is written.
#[derive(Debug, Clone, Copy)]
struct Parts {
    host_end: u32,
    case: Case,
}

impl Authority {
    /// Reads a host with an optional port (RFC 9110 §7.2, RFC 3986 §3.2.2), if it is one that every server behind us reads the same: an IP
    /// literal or a name as DNS has them, underscores included; no user information, no percent-encoding, no list, no
    /// empty label, no empty port.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        Self::leading(bytes, bytes.len())
    }

    /// [`parse`](Self::parse) for the first `length` of these bytes, behind which there is the end of a line or white space: that there is
    /// more to be seen makes it faster.
    #[inline(always)]
    pub(crate) fn leading(bytes: &[u8], length: usize) -> Option<Self> {
        let parts = read(bytes, length)?;
        Some(Self {
            // Everything that gets here is ASCII: a name, or an address, and digits.
            text: Text::new(known_ascii(bytes.get(..length)?)),
            host_end: parts.host_end,
            case: parts.case,
        })
    }

    #[inline]
    pub fn as_str(&self) -> &str {
        self.text.as_str()
    }

    /// [`split_port`].
    #[inline]
    pub fn host_and_port(&self) -> (&str, Option<&str>) {
        match self.as_str().split_at_checked(self.host_end as usize) {
            Some((host, port)) => (host, port.get(1..)),
            None => (self.as_str(), None),
        }
    }

    /// Normal form (RFC 3986 §6.2.2.1, §6.2.3): lower case, without an empty or the scheme's default port.
    #[inline]
    pub fn normal(&self, scheme: Scheme) -> Cow<'_, str> {
        let kept = match self.host_and_port() {
            (host, Some(port)) if port.is_empty() || port == scheme.default_port() => host,
            _ => self.as_str(),
        };
        match self.case {
            Case::Lower => Cow::Borrowed(kept),
            Case::Mixed => Cow::Owned(kept.to_ascii_lowercase()),
        }
    }
}

behaves_as_text!(Authority);

impl From<&str> for Authority {
    /// Takes whatever it is.
    fn from(text: &str) -> Self {
        Self {
            host_end: split_port(text).0.len() as u32,
            case: match text.bytes().any(|b| b.is_ascii_uppercase()) {
                true => Case::Mixed,
                false => Case::Lower,
            },
            text: Text::new(text),
        }
    }
}

/// Ends a name.
const NO_NAME_BYTE: u8 = 0x80;
const UPPER: u8 = 0x10;

/// Which bytes the name of a host may have. Dots are the pairs that it may not have: an empty label is between them.
static NAME_BYTES: Classes = {
    let mut table = [NO_NAME_BYTE; 256];
    let mut byte = 0;
    while byte < 0x80 {
        table[byte] = match byte as u8 {
            b'A'..=b'Z' => UPPER,
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' => 0,
            b'.' => LEADS | FOLLOWS,
            _ => NO_NAME_BYTE,
        };
        byte += 1;
    }
    table
};

fn read(bytes: &[u8], length: usize) -> Option<Parts> {
    let (host_end, case) = if bytes.first() == Some(&b'[') {
        read_literal(bytes.get(..length)?)?
    } else {
        // A name, which may end with a dot.
        let run = Run::of::<NO_NAME_BYTE>(bytes, &NAME_BYTES, LEADS);
        if run.length == 0 || run.has_pairs() {
            return None;
        }
        (run.length, if run.has(UPPER) { Case::Mixed } else { Case::Lower })
    };
    if host_end > MAX_HOST || (host_end != length && !is_port(bytes.get(host_end..length)?)) {
        return None;
    }
    Some(Parts {
        host_end: host_end as u32,
        case,
    })
}

#[cold]
fn read_literal(bytes: &[u8]) -> Option<(usize, Case)> {
    let end = memchr::memchr(b']', bytes)? + 1;
    let host = std::str::from_utf8(bytes.get(..end)?).ok()?;
    let address = host.strip_prefix('[')?.strip_suffix(']')?;
    address.parse::<Ipv6Addr>().ok()?;
    let case = match address.bytes().any(|b| b.is_ascii_uppercase()) {
        true => Case::Mixed,
        false => Case::Lower,
    };
    Some((end, case))
}

/// A colon, and a port that is not 0 behind it.
#[inline]
fn is_port(bytes: &[u8]) -> bool {
    let [b':', digits @ ..] = bytes else {
        return false;
    };
    let mut port: u32 = 0;
    for byte in digits.iter().take(MAX_PORT_DIGITS) {
        match byte.wrapping_sub(b'0') {
            digit @ 0..=9 => port = port * 10 + u32::from(digit),
            _ => return false,
        }
    }
    digits.len() <= MAX_PORT_DIGITS && (1..=u32::from(u16::MAX)).contains(&port)
}

#[cfg(test)]
mod tests;
