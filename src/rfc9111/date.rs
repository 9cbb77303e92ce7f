//! Time as HTTP writes it: the three date formats (RFC 9110 §5.6.7) and `delta-seconds` (RFC 9111 §1.2.2).

use std::num::NonZeroU32;
use std::time::{Duration, SystemTime};

/// The largest delta: RFC 9111 §1.2.2 asks for it wherever a value or a calculation overflows.
pub const MAX_DELTA: u32 = 1 << 31;

const SECONDS_PER_DAY: u64 = 86_400;
/// How far ahead a two-digit year may lie before it means the century before (RFC 9110 §5.6.7).
const TWO_DIGIT_YEAR_HORIZON: u64 = 50;
/// Later years do not fit the four digits of an HTTP-date.
const MAX_YEAR: u64 = 9999;

const WEEKDAYS: [&str; 7] = [
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
];
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// A point in time: milliseconds since 1970-01-01T00:00:00Z. Times before that are that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Whole seconds, rounded down.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// The time that has passed since `earlier`; zero where that lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    pub fn plus(self, duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }
}

/// A span of time as stored responses keep it: milliseconds, in half the size of a `Duration`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Millis(u64);

impl Millis {
    pub const ZERO: Self = Self(0);

    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }

    pub const fn get(self) -> u64 {
        self.0
    }

    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

/// Whole milliseconds, rounded down.
impl From<Duration> for Millis {
    fn from(duration: Duration) -> Self {
        Self(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }
}

/// `delta-seconds`, at most [`MAX_DELTA`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seconds(
    /// One more than they are, so that an `Option` of them takes no more room.
    NonZeroU32,
);

impl Default for Seconds {
    fn default() -> Self {
        Self::ZERO
    }
}

impl Seconds {
    pub const ZERO: Self = Self::new(0);
    pub const MAX: Self = Self::new(MAX_DELTA as u64);

    pub const fn new(seconds: u64) -> Self {
        let seconds = if seconds > MAX_DELTA as u64 {
            MAX_DELTA
        } else {
            seconds as u32
        };
        Self(NonZeroU32::MIN.saturating_add(seconds))
    }

    /// `1*DIGIT` and nothing else. Leading zeros are fine and overflow is [`Seconds::MAX`] (RFC 9111 §1.2.2); a sign, a
    /// fraction or anything else is no number.
    pub fn parse(digits: &[u8]) -> Option<Self> {
        if digits.is_empty() {
            return None;
        }
        let mut value: u64 = 0;
        for byte in digits {
            match byte {
                b'0'..=b'9' => value = (value * 10 + u64::from(byte - b'0')).min(u64::from(MAX_DELTA)),
                _ => return None,
            }
        }
        Some(Self::new(value))
    }

    pub const fn get(self) -> u32 {
        self.0.get() - 1
    }

    pub const fn duration(self) -> Duration {
        Duration::from_secs(self.get() as u64)
    }
}

/// Whole seconds, rounded down.
impl From<Duration> for Seconds {
    fn from(duration: Duration) -> Self {
        Self::new(duration.as_secs())
    }
}

/// Reads an HTTP-date: IMF-fixdate, or the obsolete RFC 850 and asctime formats.
///
/// Strict but for the case of letters; the day's name is not compared with the date, as nobody needs it. `now` decides the
/// century of a two-digit year: more than 50 years ahead means the past (RFC 9110 §5.6.7).
pub fn parse_http_date(value: &[u8], now: Timestamp) -> Option<Timestamp> {
    let mut text = Text(value);
    let weekday = text.letters();
    if text.literal(b", ") {
        return if is_short_weekday(weekday) {
            imf_fixdate(text)
        } else if is_weekday(weekday) {
            rfc850_date(text, now)
        } else {
            None
        };
    }
    if is_short_weekday(weekday) {
        asctime_date(text)
    } else {
        None
    }
}

/// Writes an IMF-fixdate, such as `Sun, 06 Nov 1994 08:49:37 GMT`.
pub fn format_http_date(time: Timestamp) -> String {
    let days = time.as_secs() / SECONDS_PER_DAY;
    let second_of_day = time.as_secs() % SECONDS_PER_DAY;
    let (year, month, day) = civil_from_days(days);
    // 1970-01-01 was a Thursday.
    let weekday = WEEKDAYS[((days + 3) % 7) as usize];
    format!(
        "{}, {day:02} {} {year:04} {:02}:{:02}:{:02} GMT",
        &weekday[..3],
        MONTHS[(month - 1) as usize],
        second_of_day / 3600,
        second_of_day / 60 % 60,
        second_of_day % 60,
    )
}

/// `18 Aug 2050 02:01:18 GMT`
fn imf_fixdate(mut text: Text<'_>) -> Option<Timestamp> {
    let day = text.digits(2)?;
    text.require(b" ")?;
    let month = text.month()?;
    text.require(b" ")?;
    let year = text.digits(4)?;
    text.require(b" ")?;
    let time = text.time_of_day()?;
    text.require_gmt()?;
    timestamp(year, month, day, time)
}

/// `18-Aug-50 02:01:18 GMT`
fn rfc850_date(mut text: Text<'_>, now: Timestamp) -> Option<Timestamp> {
    let day = text.digits(2)?;
    text.require(b"-")?;
    let month = text.month()?;
    text.require(b"-")?;
    let short_year = text.digits(2)?;
    text.require(b" ")?;
    let time = text.time_of_day()?;
    text.require_gmt()?;
    let (this_year, _, _) = civil_from_days(now.as_secs() / SECONDS_PER_DAY);
    let mut year = this_year - this_year % 100 + short_year;
    if year > this_year + TWO_DIGIT_YEAR_HORIZON {
        year -= 100;
    } else if year + TWO_DIGIT_YEAR_HORIZON <= this_year {
        year += 100;
    }
    timestamp(year, month, day, time)
}

/// ` Aug  8 02:01:18 2050`
fn asctime_date(mut text: Text<'_>) -> Option<Timestamp> {
    text.require(b" ")?;
    let month = text.month()?;
    text.require(b" ")?;
    let day = if text.literal(b" ") {
        text.digits(1)?
    } else {
        text.digits(2)?
    };
    text.require(b" ")?;
    let time = text.time_of_day()?;
    text.require(b" ")?;
    let year = text.digits(4)?;
    text.end()?;
    timestamp(year, month, day, time)
}

fn is_weekday(letters: &[u8]) -> bool {
    WEEKDAYS
        .iter()
        .any(|name| name.as_bytes().eq_ignore_ascii_case(letters))
}

/// Whether these are the first three letters of a day's name.
fn is_short_weekday(letters: &[u8]) -> bool {
    match letters {
        [a, b, c] => matches!(
            &[*a, *b, *c].map(|letter| letter.to_ascii_lowercase()),
            b"mon" | b"tue" | b"wed" | b"thu" | b"fri" | b"sat" | b"sun"
        ),
        _ => false,
    }
}

/// What is left to read.
struct Text<'a>(&'a [u8]);

impl<'a> Text<'a> {
    fn letters(&mut self) -> &'a [u8] {
        let end = self
            .0
            .iter()
            .position(|b| !b.is_ascii_alphabetic())
            .unwrap_or(self.0.len());
        let (letters, rest) = self.0.split_at(end);
        self.0 = rest;
        letters
    }

    fn literal(&mut self, expected: &[u8]) -> bool {
        match self.0.strip_prefix(expected) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    fn require(&mut self, expected: &[u8]) -> Option<()> {
        self.literal(expected).then_some(())
    }

    /// Exactly so many digits.
    fn digits(&mut self, count: usize) -> Option<u64> {
        let (digits, rest) = self.0.split_at_checked(count)?;
        let mut value = 0;
        for byte in digits {
            match byte {
                b'0'..=b'9' => value = value * 10 + u64::from(byte - b'0'),
                _ => return None,
            }
        }
        self.0 = rest;
        Some(value)
    }

    /// 1 to 12.
    fn month(&mut self) -> Option<u64> {
        let [a, b, c] = self.letters() else { return None };
        match &[*a, *b, *c].map(|letter| letter.to_ascii_lowercase()) {
            b"jan" => Some(1),
            b"feb" => Some(2),
            b"mar" => Some(3),
            b"apr" => Some(4),
            b"may" => Some(5),
            b"jun" => Some(6),
            b"jul" => Some(7),
            b"aug" => Some(8),
            b"sep" => Some(9),
            b"oct" => Some(10),
            b"nov" => Some(11),
            b"dec" => Some(12),
            _ => None,
        }
    }

    /// Second of the day.
    fn time_of_day(&mut self) -> Option<u64> {
        let hour = self.digits(2)?;
        self.require(b":")?;
        let minute = self.digits(2)?;
        self.require(b":")?;
        let second = self.digits(2)?;
        // 60 is a leap second (RFC 9110 §5.6.7).
        (hour < 24 && minute < 60 && second <= 60).then_some(hour * 3600 + minute * 60 + second)
    }

    fn require_gmt(&mut self) -> Option<()> {
        self.require(b" ")?;
        let zone = self.letters();
        if zone.eq_ignore_ascii_case(b"GMT") {
            self.end()
        } else {
            None
        }
    }

    fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

/// `None` where there is no such day. Years before 1970 are its beginning: long past, which is all that matters here.
fn timestamp(year: u64, month: u64, day: u64, second_of_day: u64) -> Option<Timestamp> {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days_in_month = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if day == 0 || day > days_in_month || year > MAX_YEAR {
        return None;
    }
    if year < 1970 {
        return Some(Timestamp(0));
    }
    let days = days_from_civil(year, month, day);
    Some(Timestamp::from_secs(days * SECONDS_PER_DAY + second_of_day))
}

/// Days from 1970-01-01 to a date of the Gregorian calendar not before it. Years begin in March, so that the leap day is last.
fn days_from_civil(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year / 400;
    let year_of_era = year % 400;
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    // 719,468 days lie between 0000-03-01 and 1970-01-01.
    era * 146_097 + day_of_era - 719_468
}

/// The reverse of [`days_from_civil`]: year, month, day.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2026-01-01T00:00:00Z
    const NOW: Timestamp = Timestamp::from_secs(1_767_225_600);

    #[test]
    fn rfc9110_5_6_7_reads_the_three_formats_and_nothing_else() {
        let cases: &[(&str, Option<u64>)] = &[
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777)),
            ("Sun Nov  6 08:49:37 1994", Some(784_111_777)),
            ("Thu Aug  8 02:01:18 2050", Some(2_543_536_878)),
            ("Thu Aug 18 02:01:18 2050", Some(2_544_400_878)),
            ("Thursday, 18-Aug-50 02:01:18 GMT", Some(2_544_400_878)),
            ("Tue, 19 Jan 2038 14:14:08 GMT", Some(2_147_523_248)),
            ("Sun, 21 Nov 2286 04:46:39 GMT", Some(10_000_039_599)),
            ("THU, 18 Aug 2050 02:01:18 GMT", Some(2_544_400_878)),
            ("Thu, 18 AUG 2050 02:01:18 GMT", Some(2_544_400_878)),
            ("Thu, 18 Aug 2050 02:01:18 gMT", Some(2_544_400_878)),
            ("Thu, 31 Dec 2015 23:59:60 GMT", Some(1_451_606_400)),
            ("Thu, 29 Feb 2024 00:00:00 GMT", Some(1_709_164_800)),
            ("Mon, 01 Jan 1601 00:00:00 GMT", Some(0)),
            ("Thu, 29 Feb 2023 00:00:00 GMT", None),
            ("Thu, 00 Aug 2050 02:01:18 GMT", None),
            ("Thu, 18 Aug 2050 24:01:18 GMT", None),
            ("Thu, 18 Aug 2050 02:01:18 UTC", None),
            ("Thu, 18 Aug 2050 02:01:18 AEST", None),
            ("Thu, 18 Aug 2050 02:01:18 +0000", None),
            ("Thu, 18 Aug 50 02:01:18 GMT", None),
            ("Thu 18 Aug 2050 02:01:18 GMT", None),
            ("Thu, 18  Aug  2050 02:01:18 GMT", None),
            ("Thu, 18-Aug-2050 02:01:18 GMT", None),
            ("Thu, 18-Aug-50 02:01:18 GMT", None),
            ("Thu, 18 Aug 2050 02.01.18 GMT", None),
            ("Thu, 18 Aug 2050 2:01:18 GMT", None),
            ("Thu, 18 Aug 2050 02:01:18 GMT ", None),
            ("Foo, 18 Aug 2050 02:01:18 GMT", None),
            ("Thu, 18 Foo 2050 02:01:18 GMT", None),
            ("0", None),
            ("-1", None),
            ("", None),
            ("foo", None),
        ];
        for (text, expected) in cases {
            assert_eq!(
                parse_http_date(text.as_bytes(), NOW),
                expected.map(Timestamp::from_secs),
                "{text}"
            );
        }
    }

    #[test]
    fn rfc9110_5_6_7_two_digit_years_lie_within_fifty_years_ahead() {
        for (short, year) in [("26", 2026), ("76", 2076), ("77", 1977), ("99", 1999), ("00", 2000)] {
            let short = format!("Friday, 01-Jan-{short} 00:00:00 GMT");
            let long = format!("Fri, 01 Jan {year} 00:00:00 GMT");
            assert_eq!(
                parse_http_date(short.as_bytes(), NOW),
                parse_http_date(long.as_bytes(), NOW),
                "{short}"
            );
        }
    }

    #[test]
    fn rfc9111_1_2_2_delta_seconds() {
        let cases: &[(&str, Option<u32>)] = &[
            ("0", Some(0)),
            ("003600", Some(3600)),
            ("2147483647", Some(2_147_483_647)),
            ("2147483648", Some(MAX_DELTA)),
            ("2147483649", Some(MAX_DELTA)),
            ("99999999999", Some(MAX_DELTA)),
            ("99999999999999999999999999999999", Some(MAX_DELTA)),
            ("", None),
            ("-1", None),
            ("+1", None),
            ("1.0", None),
            ("1a", None),
            (" 1", None),
        ];
        for (text, expected) in cases {
            assert_eq!(Seconds::parse(text.as_bytes()).map(Seconds::get), *expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(secs in 0u64..253_402_300_800) {
            let time = Timestamp::from_secs(secs);
            prop_assert_eq!(parse_http_date(format_http_date(time).as_bytes(), NOW), Some(time));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64), now in any::<u64>()) {
            parse_http_date(&bytes, Timestamp::from_millis(now));
        }
    }
}
