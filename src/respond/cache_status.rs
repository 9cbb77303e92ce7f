//! `Cache-Status` (RFC 9211): what the cache did with a request, in the words that log and metrics use.

use std::fmt::Write;

use crate::message::{Fields, is_token_byte};
use crate::rfc9111::reuse::Forward;

/// How this cache calls itself.
pub const CACHE_NAME: &str = "forebay";

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
        let mut value = String::with_capacity(64);
        self.write(&mut value);
        value
    }

    /// Adds it behind the members of caches nearer to the origin (RFC 9211 §2).
    pub fn append_to(&self, fields: &mut Fields) {
        fields.push("Cache-Status", self.to_field_value());
    }

    /// Writes the member behind what is there already.
    pub fn write(&self, out: &mut String) {
        out.push_str(CACHE_NAME);
        match self.outcome {
            Outcome::Hit => out.push_str("; hit"),
            Outcome::Forwarded {
                reason,
                status,
                storing,
                fetch,
            } => {
                out.push_str("; fwd=");
                out.push_str(reason.as_str());
                if let Some(status) = status {
                    integer(out, "fwd-status", i64::from(status));
                }
                if storing == Storing::Stored {
                    out.push_str("; stored");
                }
                if fetch == Fetch::Collapsed {
                    out.push_str("; collapsed");
                }
            }
        }
        if let Some(ttl) = self.ttl {
            integer(out, "ttl", ttl);
        }
        if let Some(detail) = self.detail {
            out.push_str("; detail=");
            token_or_string(out, detail);
        }
    }
}

/// The range of RFC 9651 §3.3.1.
fn integer(out: &mut String, name: &str, value: i64) {
    const LIMIT: i64 = 999_999_999_999_999;
    // Writing to a String cannot fail.
    let _ = write!(out, "; {name}={}", value.clamp(-LIMIT, LIMIT));
}

/// RFC 9651 §3.3.4 where possible, else §3.3.3.
fn token_or_string(out: &mut String, text: &str) {
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '*');
    if starts && text.bytes().all(|b| is_token_byte(b) || matches!(b, b':' | b'/')) {
        out.push_str(text);
        return;
    }
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => {
                out.push('\\');
                out.push(character);
            }
            ' '..='~' => out.push(character),
            // A String is printable ASCII.
            _ => out.push('?'),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sfv::{ListEntry, Parser, SerializeValue};

    use super::*;

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
