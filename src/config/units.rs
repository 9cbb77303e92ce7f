//! Durations, sizes, percentages and rates as they are written.
//!
//! Every function takes text and answers what it means or why it means nothing; none can overflow.

use std::time::Duration;

use super::diagnostic::Complaint;

/// Longer durations mean `never`, and an `Instant` plus one of them may not overflow.
const MAX_DURATION: Duration = Duration::from_secs(100 * YEAR);
const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const YEAR: u64 = 365 * DAY;

/// What a duration looks like, for messages.
pub const DURATION_EXAMPLES: &str = "500ms, 10s, 5m, 1h, 1d or 1y";
/// What a size looks like, for messages.
pub const SIZE_EXAMPLES: &str = "512KiB, 10MiB, 1GiB or 10MB";

/// A regular expression for [`duration`], for the JSON Schema.
pub const DURATION_PATTERN: &str = "[0-9]+(ms|s|m|h|d|y)";
/// A regular expression for [`size`], for the JSON Schema.
pub const SIZE_PATTERN: &str = "[0-9]+(B|[kKMGT]B|[KMGT]iB)?";
/// A regular expression for [`percentage`], for the JSON Schema.
pub const PERCENTAGE_PATTERN: &str = "[0-9]+(\\.[0-9]+)?%";
/// A regular expression for [`rate`], for the JSON Schema.
pub const RATE_PATTERN: &str = "[0-9]+/[smh]";

/// `500ms 10s 5m 1h 1d 1y`; a day has 24 hours and a year 365 days.
pub fn duration(text: &str) -> Result<Duration, Complaint> {
    let malformed = || Complaint::new("must be a duration", format!("like {DURATION_EXAMPLES}"));
    let (digits, unit) = split_number(text);
    if digits.is_empty() {
        return Err(malformed());
    }
    if unit.is_empty() {
        return Err(Complaint::rewritten(
            "must be a duration with its unit",
            format!("write {digits}s or {digits}ms"),
        ));
    }
    let too_long = || Complaint::new("is too long a duration, at most 100y", "");
    let number: u64 = digits.parse().map_err(|_| too_long())?;
    let duration = match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(MINUTE).map(Duration::from_secs),
        "h" => number.checked_mul(HOUR).map(Duration::from_secs),
        "d" => number.checked_mul(DAY).map(Duration::from_secs),
        "y" => number.checked_mul(YEAR).map(Duration::from_secs),
        _ => return Err(malformed()),
    };
    match duration {
        Some(duration) if duration <= MAX_DURATION => Ok(duration),
        _ => Err(too_long()),
    }
}

/// As [`duration`]; `None`: `never`, or `unlimited` as for other limits.
pub fn duration_or_never(text: &str) -> Result<Option<Duration>, Complaint> {
    match text {
        "never" | "unlimited" => Ok(None),
        _ => match duration(text) {
            Ok(duration) => Ok(Some(duration)),
            Err(complaint) if complaint.what == "must be a duration" => Err(Complaint::new(
                "must be a duration or `never`",
                format!("like {DURATION_EXAMPLES}"),
            )),
            Err(complaint) => Err(complaint),
        },
    }
}

/// Bytes: `512KiB 10MiB 1GiB`, `10MB` (10^7), or a plain number.
pub fn size(text: &str) -> Result<u64, Complaint> {
    let malformed = || Complaint::new("must be a size", format!("like {SIZE_EXAMPLES}, or a number of bytes"));
    let (digits, unit) = split_number(text);
    if digits.is_empty() {
        return Err(malformed());
    }
    let factor: u64 = match unit {
        "" | "B" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1000_u64.pow(2),
        "GB" => 1000_u64.pow(3),
        "TB" => 1000_u64.pow(4),
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "k" | "K" => return Err(ambiguous(digits, "KiB", "kB")),
        "m" | "M" => return Err(ambiguous(digits, "MiB", "MB")),
        "g" | "G" => return Err(ambiguous(digits, "GiB", "GB")),
        _ => return Err(malformed()),
    };
    let bytes = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    match bytes {
        // Lengths are signed in many an interface; half of the range is enough for everyone.
        Some(bytes) if bytes <= i64::MAX as u64 => Ok(bytes),
        _ => Err(Complaint::new("is too large a size", "at most 8388607TiB")),
    }
}

fn ambiguous(digits: &str, binary: &str, decimal: &str) -> Complaint {
    Complaint::rewritten(
        "must be a size with an unambiguous unit",
        format!("write {digits}{binary} or {digits}{decimal}"),
    )
}

/// As [`size`]; `None`: `unlimited`.
pub fn size_or_unlimited(text: &str) -> Result<Option<u64>, Complaint> {
    match text {
        "unlimited" => Ok(None),
        _ => match size(text) {
            Ok(size) => Ok(Some(size)),
            Err(complaint) if complaint.what == "must be a size" => Err(Complaint::new(
                "must be a size or `unlimited`",
                format!("like {SIZE_EXAMPLES}, or a number of bytes"),
            )),
            Err(complaint) => Err(complaint),
        },
    }
}

/// `20%` as 0.2; from `0%` to `100%`.
pub fn percentage(text: &str) -> Result<f64, Complaint> {
    let malformed = || Complaint::new("must be a percentage from 0% to 100%", "like 20%");
    let number = text.strip_suffix('%').ok_or_else(malformed)?;
    let (digits, rest) = split_number(number);
    let decimals = match rest.strip_prefix('.') {
        None if rest.is_empty() => "0",
        Some(decimals) => decimals,
        None => return Err(malformed()),
    };
    let plain = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !plain(digits) || !plain(decimals) {
        return Err(malformed());
    }
    match number.parse::<f64>() {
        Ok(percent) if percent <= 100.0 => Ok(percent / 100.0),
        _ => Err(malformed()),
    }
}

/// `50/s`, `600/m` or `100/h`, as a number a second.
pub fn rate(text: &str) -> Result<f64, Complaint> {
    let malformed = || Complaint::new("must be a rate", "like 50/s, 600/m or 100/h");
    let (number, unit) = text.split_once('/').ok_or_else(malformed)?;
    let seconds = match unit {
        "s" => 1.0,
        "m" => MINUTE as f64,
        "h" => HOUR as f64,
        _ => return Err(malformed()),
    };
    match (split_number(number), number.parse::<u32>()) {
        ((_, ""), Ok(number)) if number > 0 => Ok(f64::from(number) / seconds),
        ((_, ""), Ok(_)) => Err(Complaint::new("must be greater than 0", "")),
        _ => Err(malformed()),
    }
}

/// The leading digits, and what follows.
fn split_number(text: &str) -> (&str, &str) {
    let end = text.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations() {
        for (text, seconds) in [
            ("500ms", 0.5),
            ("10s", 10.0),
            ("5m", 300.0),
            ("1h", 3600.0),
            ("1d", 86_400.0),
            ("1y", 31_536_000.0),
            ("0s", 0.0),
            ("100y", 3_153_600_000.0),
        ] {
            assert_eq!(duration(text).unwrap().as_secs_f64(), seconds, "{text}");
        }
        for (text, what, cure) in [
            ("", "must be a duration", "like 500ms, 10s, 5m, 1h, 1d or 1y"),
            ("1.5s", "must be a duration", "like 500ms, 10s, 5m, 1h, 1d or 1y"),
            ("-1s", "must be a duration", "like 500ms, 10s, 5m, 1h, 1d or 1y"),
            ("10 s", "must be a duration", "like 500ms, 10s, 5m, 1h, 1d or 1y"),
            ("10S", "must be a duration", "like 500ms, 10s, 5m, 1h, 1d or 1y"),
            ("never", "must be a duration", "like 500ms, 10s, 5m, 1h, 1d or 1y"),
            ("101y", "is too long a duration, at most 100y", ""),
            ("99999999999999999999999y", "is too long a duration, at most 100y", ""),
            ("18446744073709551615h", "is too long a duration, at most 100y", ""),
        ] {
            assert_eq!(duration(text), Err(Complaint::new(what, cure)), "{text}");
        }
        assert_eq!(
            duration("10"),
            Err(Complaint::rewritten(
                "must be a duration with its unit",
                "write 10s or 10ms"
            ))
        );
        assert_eq!(duration_or_never("never"), Ok(None));
        assert_eq!(duration_or_never("unlimited"), Ok(None));
        assert_eq!(duration_or_never("1s"), Ok(Some(Duration::from_secs(1))));
        assert_eq!(
            duration_or_never("x").unwrap_err().what,
            "must be a duration or `never`"
        );
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("10", 10),
            ("10B", 10),
            ("512KiB", 524_288),
            ("10MiB", 10_485_760),
            ("1GiB", 1_073_741_824),
            ("1TiB", 1_099_511_627_776),
            ("10MB", 10_000_000),
            ("2kB", 2000),
            ("2KB", 2000),
            ("1GB", 1_000_000_000),
            ("1TB", 1_000_000_000_000),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for (text, what, cure) in [
            (
                "10mib",
                "must be a size",
                "like 512KiB, 10MiB, 1GiB or 10MB, or a number of bytes",
            ),
            (
                "1.5GiB",
                "must be a size",
                "like 512KiB, 10MiB, 1GiB or 10MB, or a number of bytes",
            ),
            (
                "MiB",
                "must be a size",
                "like 512KiB, 10MiB, 1GiB or 10MB, or a number of bytes",
            ),
            ("9999999999999TiB", "is too large a size", "at most 8388607TiB"),
            ("18446744073709551615", "is too large a size", "at most 8388607TiB"),
        ] {
            assert_eq!(size(text), Err(Complaint::new(what, cure)), "{text}");
        }
        for (text, cure) in [("10M", "write 10MiB or 10MB"), ("64k", "write 64KiB or 64kB")] {
            let expected = Complaint::rewritten("must be a size with an unambiguous unit", cure);
            assert_eq!(size(text), Err(expected), "{text}");
        }
        assert_eq!(size_or_unlimited("unlimited"), Ok(None));
        assert_eq!(size_or_unlimited("1KiB"), Ok(Some(1024)));
        assert_eq!(
            size_or_unlimited("much").unwrap_err().what,
            "must be a size or `unlimited`"
        );
    }

    #[test]
    fn percentages_and_rates() {
        for (text, share) in [("0%", 0.0), ("20%", 0.2), ("100%", 1.0), ("0.5%", 0.005)] {
            assert_eq!(percentage(text), Ok(share), "{text}");
        }
        for text in ["20", "101%", "-1%", "%", "1.%", ".5%", "1e1%", "NaN%", "inf%", "20 %"] {
            let expected = Complaint::new("must be a percentage from 0% to 100%", "like 20%");
            assert_eq!(percentage(text), Err(expected), "{text}");
        }
        for (text, per_second) in [("50/s", 50.0), ("60/m", 1.0), ("3600/h", 1.0)] {
            assert_eq!(rate(text), Ok(per_second), "{text}");
        }
        for text in ["50", "50/d", "/s", "-5/s", "+5/s", "5.5/s", "99999999999/s"] {
            let expected = Complaint::new("must be a rate", "like 50/s, 600/m or 100/h");
            assert_eq!(rate(text), Err(expected), "{text}");
        }
        assert_eq!(rate("0/s"), Err(Complaint::new("must be greater than 0", "")));
    }

    proptest! {
        #[test]
        fn no_text_is_too_much(text in "[0-9]{0,25}[a-zA-Z%/.]{0,4}|.{0,12}") {
            let _ = duration(&text);
            let _ = duration_or_never(&text);
            let _ = size(&text);
            let _ = size_or_unlimited(&text);
            let _ = percentage(&text);
            let _ = rate(&text);
        }

        #[test]
        fn what_is_accepted_matches_the_schema(text in "[0-9]{1,4}(\\.[0-9])?(ms|s|m|h|d|y|KiB|MB|B|%|/s|/m)?") {
            let matches = |pattern: &str| regex::Regex::new(&format!("^({pattern})$")).unwrap().is_match(&text);
            prop_assert!(duration(&text).is_err() || matches(DURATION_PATTERN));
            prop_assert!(size(&text).is_err() || matches(SIZE_PATTERN));
            prop_assert!(percentage(&text).is_err() || matches(PERCENTAGE_PATTERN));
            prop_assert!(rate(&text).is_err() || matches(RATE_PATTERN));
        }
    }
}
