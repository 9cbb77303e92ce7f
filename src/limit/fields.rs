//! What clients are told of their limits: draft-ietf-httpapi-ratelimit-headers-11, in structured fields (RFC 9651).

use std::fmt::Write as _;
use std::time::Duration;

use super::rate::Told;
use crate::config::{LimitFields, LimitUnit, RateLimit};
use crate::http1::encode::decimal;
use crate::message::Lines;

/// The largest Integer of a structured field (RFC 9651 §3.3.1).
const MAX_INTEGER: u64 = 999_999_999_999_999;

/// The value of `RateLimit-Policy` (§3 of the draft). Names are of letters, digits and `-_.`, so need no escapes.
pub fn policy<'a>(limits: impl Iterator<Item = &'a RateLimit>) -> String {
    let mut value = String::new();
    for limit in limits {
        separate(&mut value);
        let _ = write!(value, "\"{}\";q={}", limit.name, limit.amount.min(MAX_INTEGER));
        match limit.unit {
            LimitUnit::Requests => {}
            LimitUnit::Bytes => value.push_str(";qu=\"content-bytes\""),
            LimitUnit::Tokens { .. } => value.push_str(";qu=\"tokens\""),
        }
        // §3.1.3: whole seconds, or nothing is said.
        if limit.per.subsec_nanos() == 0 {
            let _ = write!(value, ";w={}", limit.per.as_secs());
        }
        // §3.1: parameters of one implementation have its name in front.
        if limit.burst != limit.amount {
            let _ = write!(value, ";forebay-burst={}", limit.burst.min(MAX_INTEGER));
        }
    }
    value
}

/// Adds `RateLimit` (§4 of the draft), and the older fields if they are asked for: those of the limit that is nearest to its end.
pub fn append<'a>(
    lines: &mut impl Lines,
    told: impl Iterator<Item = (&'a RateLimit, &'a Told)> + Clone,
    fields: LimitFields,
) {
    lines.push_written("RateLimit", |out| {
        for (number, (limit, told)) in told.clone().enumerate() {
            if number > 0 {
                out.extend_from_slice(b", ");
            }
            out.push(b'"');
            out.extend_from_slice(limit.name.as_bytes());
            out.extend_from_slice(b"\";r=");
            decimal(out, told.remaining.min(MAX_INTEGER));
            out.extend_from_slice(b";t=");
            decimal(out, seconds(told.reset));
        }
    });
    if fields == LimitFields::Standard {
        return;
    }
    let share_left = |(limit, told): &(&RateLimit, &Told)| {
        let left = u128::from(told.remaining) * u128::from(u32::MAX) / u128::from(limit.burst.max(1));
        (left, std::cmp::Reverse(told.reset))
    };
    if let Some((limit, told)) = told.min_by_key(share_left) {
        let mut push = |name, number| lines.push_written(name, |out| decimal(out, number));
        push("X-RateLimit-Limit", limit.amount);
        push("X-RateLimit-Remaining", told.remaining);
        push("X-RateLimit-Reset", seconds(told.reset));
    }
}

/// Whole seconds, rounded up: whoever waits as long does not come too early.
pub fn seconds(duration: Duration) -> u64 {
    duration
        .as_secs()
        .saturating_add(u64::from(duration.subsec_nanos() > 0))
        .min(MAX_INTEGER)
}

fn separate(value: &mut String) {
    if !value.is_empty() {
        value.push_str(", ");
    }
}
