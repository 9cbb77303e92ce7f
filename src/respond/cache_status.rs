//! `Cache-Status` (RFC 9211): what the cache did with a request, in the words that log and metrics use.

use bytes::BufMut;

use crate::http1::encode::decimal;
use crate::message::{Fields, is_token_byte};
use crate::rfc9111::reuse::Forward;

/// How this cache calls itself.
pub const CACHE_NAME: &str = "forebay";

/// Most of what is said: [`CACHE_NAME`], and that it is a hit.
const HIT: &str = "forebay; hit";

/// One member of the list, this cache's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheStatus<'a> {
    pub outcome: Outcome,
    /// Seconds of freshness left, negative for a stale response (RFC 9211 §2.4).
    pub ttl: Option<i64>,
    /// Where it came from or why it is so (RFC 9211 §2.8).
    pub detail: Option<&'a str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Answered without the origin (RFC 9211 §2.1).
    Hit,
    /// Answered by the origin, or with its help (RFC 9211 §2.2).
    Forwarded {
        reason: Forward,
        /// The origin's status, where it is not that of this response (RFC 9211 §2.3). `None`: it is, or none came.
        status: Option<u16>,
        storing: Storing,
        fetch: Fetch,
    },
}

/// Whether the response has been stored (RFC 9211 §2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storing {
    Stored,
    NotStored,
}

/// Whose fetch it was (RFC 9211 §2.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetch {
    Own,
    /// Another request's, that this one waited for.
    Collapsed,
}

impl CacheStatus<'_> {
    /// The member as text: `forebay; hit; ttl=30; detail=l1`.
    pub fn to_field_value(&self) -> String {
        let mut value = Vec::with_capacity(64);
        self.write(&mut value);
        String::from_utf8_lossy(&value).into_owned()
    }

    /// Adds it behind the members of caches nearer to the origin (RFC 9211 §2).
    pub fn append_to(&self, fields: &mut Fields) {
        fields.push_written("Cache-Status", |out| self.write(out));
    }

    /// Writes the member behind what is there already.
    pub fn write(&self, out: &mut impl BufMut) {
        match self.outcome {
            Outcome::Hit => out.put_slice(HIT.as_bytes()),
            Outcome::Forwarded {
                reason,
                status,
                storing,
                fetch,
            } => {
                out.put_slice(CACHE_NAME.as_bytes());
                out.put_slice(b"; fwd=");
                out.put_slice(reason.as_str().as_bytes());
                if let Some(status) = status {
                    integer(out, "; fwd-status=", i64::from(status));
                }
                if storing == Storing::Stored {
                    out.put_slice(b"; stored");
                }
                if fetch == Fetch::Collapsed {
                    out.put_slice(b"; collapsed");
                }
            }
        }
        if let Some(ttl) = self.ttl {
            integer(out, "; ttl=", ttl);
        }
        if let Some(detail) = self.detail {
            out.put_slice(b"; detail=");
            token_or_string(out, detail);
        }
    }
}

/// The range of RFC 9651 §3.3.1.
#[inline]
fn integer(out: &mut impl BufMut, name: &str, value: i64) {
    const LIMIT: u64 = 999_999_999_999_999;
    out.put_slice(name.as_bytes());
    if value < 0 {
        out.put_u8(b'-');
    }
    decimal(out, value.unsigned_abs().min(LIMIT));
}

/// RFC 9651 §3.3.4 where possible, else §3.3.3.
fn token_or_string(out: &mut impl BufMut, text: &str) {
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '*');
    if starts && text.bytes().all(|b| is_token_byte(b) || matches!(b, b':' | b'/')) {
        out.put_slice(text.as_bytes());
        return;
    }
    out.put_u8(b'"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.put_slice(&[b'\\', character as u8]),
            ' '..='~' => out.put_u8(character as u8),
            // A String is printable ASCII.
            _ => out.put_u8(b'?'),
        }
    }
    out.put_u8(b'"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sfv::{ListEntry, Parser, SerializeValue};

    use super::*;

    #[test]
    fn a_hit_is_one_of_this_cache() {
        assert_eq!(HIT.strip_prefix(CACHE_NAME), Some("; hit"));
    }

    fn forwarded(reason: Forward, status: Option<u16>, storing: Storing, fetch: Fetch) -> Outcome {
        Outcome::Forwarded {
            reason,
            status,
            storing,
            fetch,
        }
    }

    #[test]
    fn rfc9211_2_members() {
        let cases = [
            (Outcome::Hit, Some(30), Some("l1"), "forebay; hit; ttl=30; detail=l1"),
            (
                Outcome::Hit,
                Some(-5),
                Some("stale-if-error"),
                "forebay; hit; ttl=-5; detail=stale-if-error",
            ),
            (
                forwarded(Forward::UriMiss, Some(200), Storing::Stored, Fetch::Collapsed),
                None,
                None,
                "forebay; fwd=uri-miss; fwd-status=200; stored; collapsed",
            ),
            (
                forwarded(Forward::Stale, Some(304), Storing::Stored, Fetch::Own),
                Some(60),
                None,
                "forebay; fwd=stale; fwd-status=304; stored; ttl=60",
            ),
            (
                forwarded(Forward::Bypass, None, Storing::NotStored, Fetch::Own),
                None,
                Some("no \"key\" for ü"),
                "forebay; fwd=bypass; detail=\"no \\\"key\\\" for ?\"",
            ),
        ];
        for (outcome, ttl, detail, expected) in cases {
            let found = CacheStatus { outcome, ttl, detail }.to_field_value();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn members_of_upstream_caches_are_kept_in_front() {
        let mut fields = Fields::new();
        fields.push("Cache-Status", "OriginCache; hit; ttl=1100");
        let status = CacheStatus {
            outcome: Outcome::Hit,
            ttl: Some(5),
            detail: None,
        };
        status.append_to(&mut fields);
        let lines: Vec<&[u8]> = fields.get_all("cache-status").collect();
        assert_eq!(lines, [&b"OriginCache; hit; ttl=1100"[..], b"forebay; hit; ttl=5"]);
    }

    proptest! {
        #[test]
        fn rfc9651_any_detail_makes_a_valid_list(detail in ".{0,40}", ttl in any::<i64>()) {
            let status = CacheStatus { outcome: Outcome::Hit, ttl: Some(ttl), detail: Some(&detail) };
            let value = status.to_field_value();
            let list = Parser::parse_list(value.as_bytes());
            prop_assert!(list.is_ok(), "{}", value);
            let list = list.unwrap();
            prop_assert_eq!(list.len(), 1);
            prop_assert!(matches!(&list[0], ListEntry::Item(item) if item.params.contains_key("detail")));
            prop_assert!(list.serialize_value().is_ok());
        }
    }
}
