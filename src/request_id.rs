//! The names under which a request is found again: `X-Request-Id` and `traceparent` (W3C Trace Context).

use std::fmt;

use crate::message::Fields;

/// Hexadecimal digits of an identifier of our own.
const DIGITS: usize = 32;

/// Bytes of an identifier that is passed on; a UUID has 36.
const MAX_REQUEST_ID: usize = 128;

/// What a request is called in logs, in answers and at the upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(Id);

/// Most are new ones, and need no memory of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Id {
    /// Hexadecimal digits.
    New([u8; DIGITS]),
    Received(Box<str>),
}

impl RequestId {
    /// The client's own where it is a sane one, otherwise a new one.
    pub fn of(fields: &Fields) -> Self {
        let mut lines = fields.get_all("x-request-id");
        match (lines.next(), lines.next()) {
            (Some(line), None) => Self::received(line).unwrap_or_else(Self::random),
            _ => Self::random(),
        }
    }

    /// 128 random bits in hexadecimal.
    pub fn random() -> Self {
        Self(Id::New(hex(fastrand::u128(..))))
    }

    pub fn as_str(&self) -> &str {
        match &self.0 {
            // Digits are always text.
            Id::New(digits) => std::str::from_utf8(digits).unwrap_or_default(),
            Id::Received(id) => id,
        }
    }

    /// The same without a look at whether it is text.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Id::New(digits) => digits,
            Id::Received(id) => id.as_bytes(),
        }
    }

    /// Visible ASCII without what would need quoting where it is written into a log or a JSON string.
    fn received(line: &[u8]) -> Option<Self> {
        let sane = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'<' | b'>');
        let is_sane = (1..=MAX_REQUEST_ID).contains(&line.len()) && line.iter().all(sane);
        is_sane.then(|| Self(Id::Received(String::from_utf8_lossy(line).into())))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The request's `traceparent`, if it has exactly one and that is valid (W3C Trace Context §3.2.2).
pub fn trace_parent(fields: &Fields) -> Option<&[u8]> {
    let mut lines = fields.get_all("traceparent");
    match (lines.next(), lines.next()) {
        (Some(line), None) if is_trace_parent(line) => Some(line),
        _ => None,
    }
}

/// Begins a trace: a `traceparent` with random identifiers.
///
/// Its flags say `sampled`. An application whose sampler follows its parent, which is what they do unless told otherwise,
/// would record nothing if that were missing.
pub fn new_trace_parent() -> [u8; 55] {
    let mut line = *b"00-00000000000000000000000000000000-0000000000000000-01";
    // Both identifiers are invalid when they are all zeroes (§3.2.2.3, §3.2.2.4).
    line[3..35].copy_from_slice(&hex(fastrand::u128(..).max(1)));
    let [high, low] = [32, 0].map({
        let parent = fastrand::u64(..).max(1);
        move |shift| eight_digits((parent >> shift) as u32)
    });
    line[36..44].copy_from_slice(&high);
    line[44..52].copy_from_slice(&low);
    line
}

/// All digits of `number`, the highest first.
fn hex(number: u128) -> [u8; DIGITS] {
    let mut digits = [0; DIGITS];
    for (eight, quarter) in digits.chunks_exact_mut(8).zip([96, 64, 32, 0]) {
        eight.copy_from_slice(&eight_digits((number >> quarter) as u32));
    }
    digits
}

/// All digits of `number`, in all bytes of a word at once.
fn eight_digits(number: u32) -> [u8; 8] {
    let spread = u64::from(number);
    let spread = (spread | spread << 16) & 0x0000_ffff_0000_ffff;
    let spread = (spread | spread << 8) & 0x00ff_00ff_00ff_00ff;
    let digits = (spread | spread << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    // 1 in the bytes of digits from 10 on: their letters are so much further on in ASCII than the figures.
    const BEYOND_NINE: u64 = (b'a' - b'0' - 10) as u64;
    let letters = (digits + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
    (digits + 0x3030_3030_3030_3030 + letters * BEYOND_NINE).to_be_bytes()
}

/// `version "-" trace-id "-" parent-id "-" trace-flags`, lower-case hexadecimal; versions after 00 may have more behind it.
fn is_trace_parent(line: &[u8]) -> bool {
    let mut parts = line.split(|b| *b == b'-');
    let (Some(version), Some(trace), Some(parent), Some(flags)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let is_hex = |part: &[u8], digits: usize| {
        part.len() == digits && part.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_zero = |part: &[u8]| part.iter().all(|b| *b == b'0');
    is_hex(version, 2)
        && version != b"ff"
        && is_hex(trace, 32)
        && !is_zero(trace)
        && is_hex(parent, 16)
        && !is_zero(parent)
        && is_hex(flags, 2)
        && (version != b"00" || parts.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sane_request_id_is_passed_on_and_others_are_replaced() {
        let long = "a".repeat(MAX_REQUEST_ID + 1);
        let table: [(&[&str], bool); 9] = [
            (&["7b1c-4"], true),
            (&["01ARZ3NDEKTSV4RRFFQ69G5FAV"], true),
            (&[&long[1..]], true),
            (&[&long], false),
            (&[""], false),
            (&["a b"], false),
            (&["a\"b"], false),
            (&["é"], false),
            (&["a", "b"], false),
        ];
        for (lines, passed_on) in table {
            let mut fields = Fields::new();
            for line in lines {
                fields.push("X-Request-ID", line);
            }
            let id = RequestId::of(&fields);
            assert_eq!(id.as_str() == lines[0], passed_on, "{lines:?}: {id}");
            assert!(passed_on || id.as_str().len() == 32, "{id}");
        }
        assert_ne!(RequestId::of(&Fields::new()), RequestId::of(&Fields::new()));
    }

    #[test]
    fn digits_are_those_of_the_number() {
        let numbers = [
            0,
            1,
            9,
            10,
            15,
            16,
            u128::MAX,
            0x0123_4567_89ab_cdef_fedc_ba98_7654_3210,
        ];
        for number in numbers
            .into_iter()
            .chain(std::iter::repeat_with(|| fastrand::u128(..)).take(100))
        {
            assert_eq!(hex(number).escape_ascii().to_string(), format!("{number:032x}"));
        }
        let id = RequestId::random();
        assert_eq!(id.as_str().as_bytes(), id.as_bytes());
    }

    #[test]
    fn only_a_valid_traceparent_is_passed_on() {
        let table = [
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", true),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", true),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-new", true),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-new", false),
            ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false),
            ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", false),
            ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", false),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", false),
            ("00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01", false),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7", false),
            ("", false),
        ];
        for (line, valid) in table {
            let mut fields = Fields::new();
            fields.push("traceparent", line);
            assert_eq!(trace_parent(&fields).is_some(), valid, "{line}");
            fields.push("traceparent", line);
            assert_eq!(trace_parent(&fields), None, "twice: {line}");
        }
        let made = new_trace_parent();
        assert!(is_trace_parent(&made), "{}", made.escape_ascii());
        assert_ne!(made, new_trace_parent());
    }
}
