//! Field lines, as heads and trailer sections have them (RFC 9112 §5), and the two fields that say where a body ends.

use super::SyntaxError;
use crate::message::{FieldName, Fields, Line, Tag, is_field_value, is_token, is_token_byte};

pub(super) const HOST: FieldName = FieldName::new("host");
pub(super) const CONNECTION: FieldName = FieldName::new("connection");
pub(super) const CONTENT_LENGTH: FieldName = FieldName::new("content-length");
pub(super) const TRANSFER_ENCODING: FieldName = FieldName::new("transfer-encoding");
pub(super) const EXPECT: FieldName = FieldName::new("expect");
pub(super) const UPGRADE: FieldName = FieldName::new("upgrade");
pub(super) const TE: FieldName = FieldName::new("te");

/// Line slots that are allocated at once: more than most heads need, with a few for the lines that a proxy adds.
const USUAL_LINES: usize = 24;

/// What becomes of a line that was just read.
pub(super) enum Verdict {
    Keep,
    /// It is left out: the caller has taken what it says.
    Drop,
}

/// Reads the field lines that begin at `start` and the empty line behind them; answers with the fields and the offset
/// behind that empty line. `None`: `buf` ends before it.
///
/// `inspect` sees each line once, as tag, name and value.
pub(super) fn parse_section<'a, E: From<SyntaxError>>(
    buf: &'a [u8],
    start: usize,
    max_lines: usize,
    mut inspect: impl FnMut(Tag, &'a [u8], &'a [u8]) -> Result<Verdict, E>,
) -> Result<Option<(Fields, usize)>, E> {
    let mut lines = Vec::new();
    let inspect = |line: FieldLine<'a>| inspect(line.tag, line.name, line.value);
    let Some(end) = parse_lines(buf, start, max_lines, &mut lines, inspect)? else {
        return Ok(None);
    };
    let fields = Fields::from_section(&buf[start..end - "\r\n".len()], lines);
    Ok(Some((fields, end)))
}

/// A line that was just read.
#[derive(Clone, Copy)]
pub(super) struct FieldLine<'a> {
    pub(super) tag: Tag,
    pub(super) name: &'a [u8],
    pub(super) value: &'a [u8],
    /// The value, and all that stands behind it.
    pub(super) rest: &'a [u8],
}

/// [`parse_section`], for who makes [`Fields`] of the lines that are kept: where they stand in what begins at `start`.
#[inline]
pub(super) fn parse_lines<'a, E: From<SyntaxError>>(
    buf: &'a [u8],
    start: usize,
    max_lines: usize,
    lines: &mut Vec<Line>,
    mut inspect: impl FnMut(FieldLine<'a>) -> Result<Verdict, E>,
) -> Result<Option<usize>, E> {
    let mut seen = 0;
    let mut at = start;
    loop {
        let line = &buf[at..];
        let name_length = token_length(line);
        if name_length == 0 {
            match (line.first(), line.get(1)) {
                (Some(b'\r'), Some(b'\n')) => return Ok(Some(at + 2)),
                (Some(b'\r'), Some(_)) => return Err(SyntaxError::BareCr.into()),
                // RFC 9112 §5.2: a folded line is replaced or refused; §2.2: so is white space before the first line.
                (Some(b' ' | b'\t'), _) => return Err(SyntaxError::ObsFold.into()),
                (None, _) | (Some(b'\r'), None) => return Ok(None),
                (Some(_), _) => {}
            }
        }
        if seen == max_lines {
            return Err(SyntaxError::TooManyFields.into());
        }
        seen += 1;

        let Some((name, behind)) = line.split_at_checked(name_length) else {
            return Ok(None);
        };
        let value_start = match behind {
            [] => return Ok(None),
            [b':', b' ', first, ..] if name_length > 0 && !is_white_space(*first) => name_length + 2,
            [b':', padded @ ..] if name_length > 0 => match padded.iter().position(|b| !is_white_space(*b)) {
                Some(padding) => name_length + 1 + padding,
                None => return Ok(None),
            },
            _ => return Err(name_error(line, name_length).into()),
        };
        let text = &line[value_start..];
        let length = value_length(text);
        match text.get(length..) {
            Some([b'\r', b'\n', ..]) => {}
            Some([] | [b'\r']) | None => return Ok(None),
            Some([b'\r', _, ..]) => return Err(SyntaxError::BareCr.into()),
            Some(_) => return Err(value_error(line_of(text)).into()),
        }
        let value = trim_end(&text[..length]);
        let tag = Tag::of(name);
        let found = FieldLine {
            tag,
            name,
            value,
            rest: text,
        };
        if let Verdict::Keep = inspect(found)? {
            if lines.is_empty() {
                lines.reserve_exact(USUAL_LINES);
            }
            let name_at = at - start;
            let value_at = name_at + value_start;
            let (name, value) = (name_at..name_at + name_length, value_at..value_at + value.len());
            lines.push(Line::new(&buf[start..], tag, name, value));
        }
        at += value_start + length + 2;
    }
}

/// 1 in each byte.
const EACH: u64 = 0x0101_0101_0101_0101;
/// The highest bit of each byte.
const HIGH: u64 = 0x80 * EACH;

/// How many token bytes stand at the beginning.
#[inline]
fn token_length(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(eight) = bytes[at..].first_chunk() {
        let others = HIGH & !letters_and_dashes(u64::from_le_bytes(*eight));
        match others {
            0 => at += 8,
            _ => {
                at += (others.trailing_zeros() / 8) as usize;
                match is_token_byte(bytes[at]) {
                    true => at += 1,
                    false => return at,
                }
            }
        }
    }
    let rest = &bytes[at..];
    at + rest.iter().position(|b| !is_token_byte(*b)).unwrap_or(rest.len())
}

/// The highest bit of each byte that is a letter or `-`, of which most names consist. Other bits mean nothing.
#[inline]
fn letters_and_dashes(eight: u64) -> u64 {
    // Without the highest bit, so that no sum carries into the next byte.
    let low = eight & !HIGH;
    let from = |bytes: u64, first: u8| bytes + u64::from(0x80 - first) * EACH;
    let folded = low | (0x20 * EACH);
    let letters = from(folded, b'a') & !from(folded, b'z' + 1);
    let dashes = from(low, b'-') & !from(low, b'-' + 1);
    (letters | dashes) & !eight
}

/// How many bytes that a value may have (RFC 9110 §5.5) stand at the beginning: what ends them is the line's CR, or an error.
fn value_length(bytes: &[u8]) -> usize {
    let mut at = 0;
    // Long values first go by sixteen, which the compiler compares at once.
    while let Some(sixteen) = bytes[at..].first_chunk::<16>() {
        if !is_field_value(sixteen) {
            break;
        }
        at += 16;
    }
    while let Some(eight) = bytes[at..].first_chunk() {
        let eight = u64::from_le_bytes(*eight);
        let with_del = eight ^ (0x7f * EACH);
        // The lowest bit that is set belongs to the first byte that is below 0x20 or is 0x7f. Those above it say nothing.
        let found = (eight.wrapping_sub(0x20 * EACH) & !eight | with_del.wrapping_sub(EACH) & !with_del) & HIGH;
        match found {
            0 => at += 8,
            _ => {
                at += (found.trailing_zeros() / 8) as usize;
                match bytes[at] {
                    b'\t' => at += 1,
                    _ => return at,
                }
            }
        }
    }
    let rest = &bytes[at..];
    at + rest
        .iter()
        .position(|byte| !is_field_value(&[*byte]))
        .unwrap_or(rest.len())
}

/// What stands in front of the first CR.
fn line_of(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == b'\r').next().unwrap_or_default()
}

/// Why the line is not one, when what stands at `at` is no token followed by a colon.
fn name_error(line: &[u8], at: usize) -> SyntaxError {
    match (line[at], line.get(at + 1)) {
        (b'\n', _) => SyntaxError::BareLf,
        (b'\r', Some(next)) if *next != b'\n' => SyntaxError::BareCr,
        (b' ' | b'\t', _) => SyntaxError::SpaceBeforeColon,
        _ => SyntaxError::FieldName,
    }
}

fn value_error(value: &[u8]) -> SyntaxError {
    match memchr::memchr(b'\n', value) {
        Some(_) => SyntaxError::BareLf,
        None => SyntaxError::FieldValue,
    }
}

/// SP and HTAB: `OWS` of RFC 9110 §5.6.3.
fn is_white_space(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

fn trim_end(mut bytes: &[u8]) -> &[u8] {
    while let [rest @ .., last] = bytes
        && is_white_space(*last)
    {
        bytes = rest;
    }
    bytes
}

fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = bytes
        && is_white_space(*first)
    {
        bytes = rest;
    }
    trim_end(bytes)
}

/// The members of a comma-separated value (RFC 9110 §5.6.1), empty ones included.
pub(super) fn list_members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(trim)
}

/// `1*DIGIT` (RFC 9110 §8.6) up to 2^63 - 1: more is an overflow in many parsers, and more bytes than anyone sends.
pub fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    let mut length: u64 = 0;
    for byte in value {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit <= 9)?;
        length = length.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    (length <= i64::MAX as u64).then_some(length)
}

/// What the `Transfer-Encoding` lines of a message add up to (RFC 9112 §6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum TransferCodings {
    #[default]
    Absent,
    Chunked,
    /// Others, and `chunked` was not seen yet: the body's end cannot be known.
    Unframed,
    /// Others, and then `chunked`: the end can be found, the content not be read.
    Layered,
}

impl TransferCodings {
    /// Takes in one line. `None`: it is malformed, or has something behind `chunked`.
    ///
    /// Empty members are refused, although RFC 9110 §5.6.1.2 lets a recipient pass over them: nobody sends them in good faith.
    /// So are parameters, since none is defined.
    pub(super) fn and(self, value: &[u8]) -> Option<Self> {
        let mut codings = self;
        for member in list_members(value) {
            let is_chunked = member.eq_ignore_ascii_case(b"chunked");
            codings = match codings {
                Self::Absent if is_chunked => Self::Chunked,
                Self::Unframed if is_chunked => Self::Layered,
                Self::Absent | Self::Unframed if is_token(member) => Self::Unframed,
                _ => return None,
            };
        }
        Some(codings)
    }
}

/// The options of `Connection` lines that concern the codec (RFC 9110 §7.6.1).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ConnectionOptions {
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
}

impl ConnectionOptions {
    pub(super) fn add(&mut self, value: &[u8]) {
        for option in list_members(value) {
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            self.upgrade |= option.eq_ignore_ascii_case(b"upgrade");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_value_ends_at_the_first_byte_that_no_value_has(
            bytes in proptest::collection::vec(prop_oneof![
                4 => any::<u8>(),
                4 => 0x20..0x7fu8,
                1 => prop::sample::select(b"\t\r\n\x00\x1f\x7f\x80\xff".to_vec()),
            ], 0..40),
        ) {
            let expected = bytes.iter().position(|byte| !is_field_value(&[*byte]));
            prop_assert_eq!(value_length(&bytes), expected.unwrap_or(bytes.len()));
        }

        #[test]
        fn a_name_ends_at_the_first_byte_that_no_token_has(
            bytes in proptest::collection::vec(prop_oneof![
                2 => any::<u8>(),
                4 => proptest::char::range('a', 'z').prop_map(|letter| letter as u8),
                2 => prop::sample::select(b"AZ-_09.~^:@[`{| ".to_vec()),
            ], 0..40),
        ) {
            let expected = bytes.iter().position(|byte| !is_token_byte(*byte));
            prop_assert_eq!(token_length(&bytes), expected.unwrap_or(bytes.len()));
        }
    }

    #[test]
    fn every_byte_is_told_from_its_neighbours() {
        for byte in 0..=255u8 {
            for at in 0..12 {
                let mut bytes = [b'\x80'; 12];
                bytes[at] = byte;
                let expected = if is_field_value(&[byte]) { 12 } else { at };
                assert_eq!(value_length(&bytes), expected, "{byte} at {at}");
                let mut bytes = [b'n'; 12];
                bytes[at] = byte;
                let expected = if is_token_byte(byte) { 12 } else { at };
                assert_eq!(token_length(&bytes), expected, "{byte} at {at}");
            }
        }
    }
}
