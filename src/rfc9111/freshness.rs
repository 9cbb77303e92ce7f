//! How long a response is fresh and how old it is (RFC 9111 §4.2).

use std::time::Duration;

use super::date::{Seconds, Timestamp, parse_http_date};
use super::directives::{DirectiveSource, ResponseDirectives};
use crate::message::Fields;

/// A tenth of the time since the last modification is taken for fresh (RFC 9111 §4.2.2).
const HEURISTIC_FRACTION: u64 = 10;

/// When a request was sent and its response head came in (RFC 9111 §4.2.3 `request_time`, `response_time`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    pub requested: Timestamp,
    pub received: Timestamp,
}

/// A freshness lifetime and what it rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    pub seconds: Seconds,
    pub source: LifetimeSource,
}

impl Lifetime {
    pub const NONE: Self = Self {
        seconds: Seconds::ZERO,
        source: LifetimeSource::None,
    };
}

/// What a freshness lifetime rests on, in order of precedence (RFC 9111 §4.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LifetimeSource {
    /// The route's own, instead of the origin's.
    Route,
    SMaxage,
    MaxAge,
    Expires,
    Heuristic,
    /// Nothing says that it is fresh at all.
    None,
}

impl LifetimeSource {
    /// Whether the origin said it. A lifetime that it did not say does not apply to requests whose cookies are not accounted for.
    pub fn is_origin(self) -> bool {
        matches!(self, Self::SMaxage | Self::MaxAge | Self::Expires)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::SMaxage => "s-maxage",
            Self::MaxAge => "max-age",
            Self::Expires => "expires",
            Self::Heuristic => "heuristic",
            Self::None => "none",
        }
    }
}

/// The `Date` of a response, if there is exactly one and it can be read (RFC 9110 §6.6.1).
pub fn date(fields: &Fields, now: Timestamp) -> Option<Timestamp> {
    single_date(fields, "date", now)
}

/// `Last-Modified`, under the same conditions (RFC 9110 §8.8.2).
pub fn last_modified(fields: &Fields, now: Timestamp) -> Option<Timestamp> {
    single_date(fields, "last-modified", now)
}

fn single_date(fields: &Fields, name: &str, now: Timestamp) -> Option<Timestamp> {
    let mut lines = fields.get_all(name);
    let date = parse_http_date(lines.next()?, now);
    if lines.next().is_some() { None } else { date }
}

/// The lifetime that the response itself states (RFC 9111 §4.2.1): `s-maxage`, then `max-age`, then `Expires` less `Date`.
/// `None` where it states nothing.
pub fn explicit_lifetime(fields: &Fields, directives: &ResponseDirectives, received: Timestamp) -> Option<Lifetime> {
    if let Some(seconds) = directives.s_maxage {
        return Some(Lifetime {
            seconds,
            source: LifetimeSource::SMaxage,
        });
    }
    if let Some(seconds) = directives.max_age {
        return Some(Lifetime {
            seconds,
            source: LifetimeSource::MaxAge,
        });
    }
    // A targeted field takes the place of Expires, too (RFC 9213 §2.2).
    if directives.source == DirectiveSource::Targeted || !fields.contains("expires") {
        return None;
    }
    // What cannot be read, or is there twice, lies in the past (RFC 9111 §5.3, §4.2.1).
    let seconds = match single_date(fields, "expires", received) {
        Some(expires) => {
            let date = date(fields, received).unwrap_or(received);
            Seconds::new(expires.as_secs().saturating_sub(date.as_secs()))
        }
        None => Seconds::ZERO,
    };
    Some(Lifetime {
        seconds,
        source: LifetimeSource::Expires,
    })
}

/// Heuristic freshness (RFC 9111 §4.2.2): a tenth of the response's age since `Last-Modified`, at most `max`. The caller has seen
/// to it that the status or `public` allows it and that there is no explicit lifetime.
pub fn heuristic_lifetime(fields: &Fields, received: Timestamp, max: Duration) -> Option<Lifetime> {
    let modified = last_modified(fields, received)?;
    let date = date(fields, received).unwrap_or(received);
    let unchanged_for = date.as_secs().saturating_sub(modified.as_secs());
    let seconds = Seconds::new(unchanged_for / HEURISTIC_FRACTION).min(max.into());
    if seconds == Seconds::ZERO {
        return None;
    }
    Some(Lifetime {
        seconds,
        source: LifetimeSource::Heuristic,
    })
}

/// Statuses that may be cached without explicit freshness (RFC 9110 §15.1).
pub fn is_heuristically_cacheable(status: u16) -> bool {
    matches!(
        status,
        200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501
    )
}

/// `corrected_initial_age` (RFC 9111 §4.2.3).
pub fn initial_age(fields: &Fields, times: Times) -> Duration {
    // Date has no fractions of a second, so the clock's are not held against it.
    let received = Timestamp::from_secs(times.received.as_secs());
    let apparent = match date(fields, times.received) {
        Some(date) => received.since(date),
        None => Duration::ZERO,
    };
    let response_delay = times.received.since(times.requested);
    let corrected = age_value(fields).duration() + response_delay;
    apparent.max(corrected).min(Seconds::MAX.duration())
}

/// `Age` (RFC 9111 §5.1): the first member of the first line; what is not a number is ignored.
fn age_value(fields: &Fields) -> Seconds {
    let Some(line) = fields.get("age") else {
        return Seconds::ZERO;
    };
    // A parameter changes nothing about the number in front of it.
    let first = line.split(|b| matches!(b, b',' | b';')).next().unwrap_or_default();
    Seconds::parse(first.trim_ascii()).unwrap_or(Seconds::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::fields;
    use crate::rfc9111::tests::{Lines, NOW, at_once};

    #[test]
    fn rfc9111_4_2_1_precedence_and_rubbish() {
        use LifetimeSource::{Expires, MaxAge, SMaxage};
        const DATE: (&str, &str) = ("Date", "Thu, 01 Jan 2026 00:00:00 GMT");
        const LATER: (&str, &str) = ("Expires", "Thu, 01 Jan 2026 00:01:00 GMT");
        let cases: &[(Lines<'_>, Option<(LifetimeSource, u32)>)] = &[
            (
                &[("Cache-Control", "max-age=5, s-maxage=9"), LATER, DATE],
                Some((SMaxage, 9)),
            ),
            (
                &[("Cache-Control", "max-age=0, s-maxage=3600"), LATER],
                Some((SMaxage, 3600)),
            ),
            (&[("Cache-Control", "s-maxage=x, max-age=9")], Some((SMaxage, 0))),
            (&[("Cache-Control", "max-age=5"), LATER, DATE], Some((MaxAge, 5))),
            (&[("Cache-Control", "public"), LATER, DATE], Some((Expires, 60))),
            (&[LATER], Some((Expires, 60))),
            (&[LATER, ("Date", "foo")], Some((Expires, 60))),
            (&[LATER, ("Date", "Thu, 01 Jan 2026 00:02:00 GMT")], Some((Expires, 0))),
            (&[LATER, LATER, DATE], Some((Expires, 0))),
            (&[("Expires", "0"), DATE], Some((Expires, 0))),
            (&[("Expires", ""), DATE], Some((Expires, 0))),
            (&[("CDN-Cache-Control", "foo"), LATER, DATE], None),
            (&[DATE], None),
        ];
        for (lines, expected) in cases {
            let fields = fields(lines);
            let directives = ResponseDirectives::parse(&fields, &["CDN-Cache-Control".to_owned()]);
            let found = explicit_lifetime(&fields, &directives, NOW);
            assert_eq!(found.map(|f| (f.source, f.seconds.get())), *expected, "{lines:?}");
        }
    }

    #[test]
    fn rfc9111_4_2_2_a_tenth_up_to_the_cap() {
        let minute = Duration::from_secs(60);
        let cases: &[(&str, Duration, Option<u32>)] = &[
            ("Wed, 31 Dec 2025 23:59:00 GMT", minute, Some(6)),
            ("Wed, 31 Dec 2025 00:00:00 GMT", minute, Some(60)),
            ("Wed, 31 Dec 2025 23:59:55 GMT", minute, None),
            ("Thu, 01 Jan 2026 00:00:10 GMT", minute, None),
            ("rubbish", minute, None),
            ("Wed, 31 Dec 2025 00:00:00 GMT", Duration::ZERO, None),
        ];
        for (modified, max, expected) in cases {
            let found = heuristic_lifetime(&fields(&[("Last-Modified", modified)]), NOW, *max);
            assert_eq!(found.map(|f| f.seconds.get()), *expected, "{modified}");
        }
    }

    #[test]
    fn rfc9111_4_2_3_initial_age() {
        let slow = Times {
            requested: NOW,
            received: NOW.plus(Duration::from_secs(5)),
        };
        let cases: &[(Lines<'_>, Times, u64)] = &[
            (&[], at_once(NOW), 0),
            (&[("Age", "7")], at_once(NOW), 7),
            (&[("Age", "7")], slow, 12),
            (&[("Date", "Wed, 31 Dec 2025 23:59:00 GMT")], at_once(NOW), 60),
            (
                &[("Date", "Wed, 31 Dec 2025 23:59:00 GMT"), ("Age", "61")],
                at_once(NOW),
                61,
            ),
            (&[("Date", "Thu, 01 Jan 2026 00:01:00 GMT")], at_once(NOW), 0),
            (&[("Age", "abc")], at_once(NOW), 0),
            (&[("Age", "-7200")], at_once(NOW), 0),
            (&[("Age", "7200.0")], at_once(NOW), 0),
            (&[("Age", "7200, 0")], at_once(NOW), 7200),
            (&[("Age", "0, 7200")], at_once(NOW), 0),
            (&[("Age", "7200"), ("Age", "0")], at_once(NOW), 7200),
            (&[("Age", "0"), ("Age", "7200")], at_once(NOW), 0),
            (&[("Age", "7200;foo=bar")], at_once(NOW), 7200),
            (&[("Age", "2147483649")], at_once(NOW), 1 << 31),
            (&[("Age", "99999999999999999999")], slow, 1 << 31),
        ];
        for (lines, times, expected) in cases {
            assert_eq!(initial_age(&fields(lines), *times).as_secs(), *expected, "{lines:?}");
        }
    }
}
