//! The names under which a request is found again: `X-Request-Id` and `traceparent` (W3C Trace Context).

use std::fmt;

use arrayvec::ArrayString;

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
    New(ArrayString<DIGITS>),
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
        let mut digits = [0; DIGITS];
        write_hex(&mut digits, fastrand::u128(..));
        // Digits are always text.
        Self(Id::New(ArrayString::from_byte_string(&digits).unwrap_or_default()))
    }

    pub fn as_str(&self) -> &str {
        match &self.0 {
            Id::New(digits) => digits,
            Id::Received(id) => id,
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
    write_hex(&mut line[3..35], fastrand::u128(1..));
    write_hex(&mut line[36..52], u128::from(fastrand::u64(1..)));
    line
}

/// Fills `digits` with the lowest of `number`, two of them for each byte.
fn write_hex(digits: &mut [u8], number: u128) {
    const HEX: [u8; 16] = *b"0123456789abcdef";
    let pairs = digits.rchunks_exact_mut(2);
    for (pair, byte) in pairs.zip(number.to_le_bytes()) {
        pair[0] = HEX[usize::from(byte >> 4)];
        pair[1] = HEX[usize::from(byte & 15)];
    }
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
