//! Field lines as they are stored: in one allocation, in about a third of the memory that [`Fields`] takes for the lines of a usual
//! response. There are a million of them, and each is only read when it is sent or validated.

use std::ops::Range;

use crate::http1::encode::NOT_IN_RESPONSES;
use crate::message::{FieldName, Fields, Line, Tag, is_token};

/// Bytes in front: the length of the text.
const PREFIX: usize = size_of::<u32>();
/// What stands behind a name and behind a value.
const COLON: &[u8] = b": ";
const END: &[u8] = b"\r\n";
/// Lines that are usually added before it is sent: what a cache and a proxy say for themselves.
const ROOM_FOR_MORE_LINES: usize = 6;
/// Asked for with each hit, so that it stands in front of all others where it is there.
const FIRST: FieldName = FieldName::new("x-request-id");

/// Field lines that do not change: their text, in the form in which HTTP/1.1 sends it, then for each the lengths of name and value.
///
/// None of them says how a message is framed or what becomes of a connection: whoever sends them says that itself. Lines of
/// one name keep their order; `X-Request-Id` stands in front of all.
#[derive(Debug, Clone)]
pub struct PackedFields(Box<[u8]>);

impl PackedFields {
    /// Bytes that this takes on the heap.
    pub fn heap_size(&self) -> usize {
        self.0.len()
    }

    /// The very bytes, to be written down.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// What was written down. `None`: it is not what [`Self::as_bytes`] gave, or holds lines that no message can have.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (length, rest) = bytes.split_first_chunk::<PREFIX>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let (mut text, mut lengths) = rest.split_at_checked(length)?;
        while !lengths.is_empty() {
            let (name, value) = (take_length(&mut lengths)?, take_length(&mut lengths)?);
            let (name, rest) = text.split_at_checked(name)?;
            let (value, rest) = rest.strip_prefix(COLON)?.split_at_checked(value)?;
            text = rest.strip_prefix(END)?;
            if !is_token(name) || value.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)) {
                return None;
            }
        }
        if !text.is_empty() {
            return None;
        }
        let packed = Self(bytes.into());
        match !packed.has_request_id() && packed.lines().any(|line| is_first(line.name)) {
            true => Some(Self::from(&packed.unpack())),
            false => Some(packed),
        }
    }

    /// Whether one of them is an `X-Request-Id`.
    pub fn has_request_id(&self) -> bool {
        // Few lines begin like that.
        matches!(self.text(), [b'X' | b'x', ..]) && self.lines().next().is_some_and(|line| is_first(line.name))
    }

    /// The first line of that name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.lines().find(name.as_bytes(), &mut 0).map(|(_, value)| value)
    }

    /// The lines as they were, with room for some more.
    pub fn unpack(&self) -> Fields {
        let (text, lengths) = self.parts();
        // Few names and values are so long that their length takes a second byte.
        let mut lines = Vec::with_capacity(lengths.len() / 2 + ROOM_FOR_MORE_LINES);
        for line in self.lines() {
            lines.push(Line::new(text, Tag::of(line.name), line.name_at, line.value_at));
        }
        Fields::from_section(text, lines)
    }

    /// All lines as HTTP/1.1 sends them, each with its CR LF.
    pub fn text(&self) -> &[u8] {
        self.parts().0
    }

    /// There are no more lines than that.
    pub(crate) fn most_lines(&self) -> usize {
        // Each has two lengths of at least one byte.
        self.parts().1.len() / 2
    }

    /// All lines, in order.
    pub(crate) fn lines(&self) -> PackedLines<'_> {
        let (text, lengths) = self.parts();
        PackedLines {
            text,
            lengths,
            start: 0,
        }
    }

    /// The text and the lengths.
    fn parts(&self) -> (&[u8], &[u8]) {
        let (length, rest) = self.0.split_first_chunk::<PREFIX>().unwrap_or((&[0; PREFIX], &[]));
        let length = u32::from_le_bytes(*length) as usize;
        rest.split_at_checked(length).unwrap_or((rest, &[]))
    }
}

/// One line and where it stands in the text.
#[derive(Debug, Clone)]
pub(crate) struct PackedLine<'a> {
    pub name: &'a [u8],
    pub value: &'a [u8],
    name_at: Range<usize>,
    value_at: Range<usize>,
}

impl PackedLine<'_> {
    /// Where all of it stands, with its CR LF.
    pub fn at(&self) -> Range<usize> {
        self.name_at.start..self.value_at.end + END.len()
    }
}

/// Goes through [`PackedFields`].
#[derive(Debug)]
pub(crate) struct PackedLines<'a> {
    text: &'a [u8],
    lengths: &'a [u8],
    start: usize,
}

impl<'a> PackedLines<'a> {
    /// The number and the value of the next line of that name, in whatever case; `at` is the number of the next line.
    pub(crate) fn find(&mut self, name: &[u8], at: &mut u32) -> Option<(u32, &'a [u8])> {
        loop {
            let lengths = (take_length(&mut self.lengths)?, take_length(&mut self.lengths)?);
            let (name_end, number) = (self.start + lengths.0, *at);
            let value_at = name_end + COLON.len()..name_end + COLON.len() + lengths.1;
            let start = std::mem::replace(&mut self.start, value_at.end + END.len());
            *at += 1;
            if lengths.0 == name.len() && self.text.get(start..name_end)?.eq_ignore_ascii_case(name) {
                return Some((number, self.text.get(value_at)?));
            }
        }
    }
}

impl<'a> Iterator for PackedLines<'a> {
    type Item = PackedLine<'a>;

    #[inline]
    fn next(&mut self) -> Option<PackedLine<'a>> {
        let (name, value) = (take_length(&mut self.lengths)?, take_length(&mut self.lengths)?);
        let name_at = self.start..self.start + name;
        let value_at = name_at.end + COLON.len()..name_at.end + COLON.len() + value;
        self.start = value_at.end + END.len();
        Some(PackedLine {
            name: self.text.get(name_at.clone())?,
            value: self.text.get(value_at.clone())?,
            name_at,
            value_at,
        })
    }
}

impl From<&Fields> for PackedFields {
    fn from(fields: &Fields) -> Self {
        let kept = || {
            let is_kept = |(name, _): &(&str, &[u8])| !NOT_IN_RESPONSES.has(name);
            let has_first = fields.contains(FIRST.as_str());
            let first = fields.iter().filter(|(name, _)| is_first(name.as_bytes()));
            let others = fields
                .iter()
                .filter(move |(name, _)| !has_first || !is_first(name.as_bytes()));
            let first = has_first.then_some(first).into_iter().flatten();
            first.chain(others.filter(is_kept))
        };
        let line = |(name, value): (&str, &[u8])| name.len() + COLON.len() + value.len() + END.len();
        let text: usize = kept().map(line).sum();
        let mut bytes = Vec::with_capacity(PREFIX + text + 4 * fields.len());
        // Heads are limited far below 4 GiB.
        bytes.extend_from_slice(&(text as u32).to_le_bytes());
        for (name, value) in kept() {
            for part in [name.as_bytes(), COLON, value, END] {
                bytes.extend_from_slice(part);
            }
        }
        for (name, value) in kept() {
            push_length(&mut bytes, name.len());
            push_length(&mut bytes, value.len());
        }
        Self(bytes.into_boxed_slice())
    }
}

fn is_first(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(FIRST.as_str().as_bytes())
}

/// Seven bits a byte, the lowest first; the highest bit says that there are more.
fn push_length(bytes: &mut Vec<u8>, mut length: usize) {
    while length > 0x7f {
        bytes.push(length as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
}

#[inline]
fn take_length(bytes: &mut &[u8]) -> Option<usize> {
    match bytes.split_first() {
        Some((byte, rest)) if *byte <= 0x7f => {
            *bytes = rest;
            Some(usize::from(*byte))
        }
        _ => take_long_length(bytes),
    }
}

fn take_long_length(bytes: &mut &[u8]) -> Option<usize> {
    let mut length = 0;
    let mut shift = 0;
    loop {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        length |= usize::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(length);
        }
        shift += 7;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::FieldNames;

    fn written(fields: &Fields) -> Vec<u8> {
        let mut out = Vec::new();
        fields.write_http1(&FieldNames::new(&[]), |piece| out.extend_from_slice(piece));
        out
    }

    #[test]
    fn lines_come_back_and_can_be_changed() {
        let mut fields = Fields::new();
        fields.push("Content-Type", "text/html");
        fields.push("ETag", "\"a\"");
        fields.push("X-Empty", "");
        fields.push("Set-Cookie", "a=1");
        fields.push("set-cookie", [0x80, 0xff]);
        fields.push("X-Long", vec![b'x'; 100_000]);
        let mut back = PackedFields::from(&fields).unpack();
        assert_eq!(back, fields);
        assert_eq!(written(&back), written(&fields));
        back.set("etag", "\"b\"");
        assert_eq!(back.get("ETag"), Some(b"\"b\"".as_slice()));
        assert_eq!(PackedFields::from(&Fields::new()).unpack(), Fields::new());
    }

    #[test]
    fn what_each_hit_asks_for_stands_first() {
        let mut fields = Fields::new();
        fields.push("Content-Type", "text/html");
        let without = PackedFields::from(&fields);
        assert!(!without.has_request_id());
        fields.push("X-Request-ID", "a");
        fields.push("A", "1");
        fields.push("x-request-id", "b");
        let packed = PackedFields::from(&fields);
        assert!(packed.has_request_id());
        let names: Vec<_> = packed.lines().map(|line| line.name).collect();
        assert_eq!(names, [&b"X-Request-ID"[..], b"x-request-id", b"Content-Type", b"A"]);
        assert_eq!(packed.get("x-request-id"), Some(&b"a"[..]));
        assert_eq!(packed.unpack().len(), fields.len());

        // Written down by somebody who had another order.
        let others = b"\x1a\0\0\0A: 1\r\nX-Request-Id: abcd\r\n\x01\x01\x0c\x04";
        let read = PackedFields::from_bytes(others).unwrap();
        assert!(read.has_request_id());
        assert_eq!(read.text(), b"X-Request-Id: abcd\r\nA: 1\r\n");
        let again = PackedFields::from_bytes(packed.as_bytes()).unwrap();
        assert_eq!(again.as_bytes(), packed.as_bytes());
    }

    #[test]
    fn what_says_how_a_message_was_framed_is_left_out() {
        let mut fields = Fields::new();
        for name in [
            "Content-Length",
            "transfer-encoding",
            "Connection",
            "Keep-Alive",
            "Upgrade",
        ] {
            fields.push(name, "1");
        }
        fields.push("A", "1");
        assert_eq!(PackedFields::from(&fields).text(), b"A: 1\r\n");
    }

    #[test]
    fn packed_lines_take_little_more_than_their_text() {
        let mut fields = Fields::new();
        for _ in 0..8 {
            fields.push("Content-Type", "text/html; charset=utf-8");
        }
        assert!(PackedFields::from(&fields).heap_size() <= written(&fields).len() + 8 * 2 + PREFIX);
    }

    proptest! {
        #[test]
        fn any_bytes_are_lines_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), count in 0..60_u8) {
            let mut all = vec![count, 0, 0, 0];
            all.extend(bytes);
            if let Some(packed) = PackedFields::from_bytes(&all) {
                written(&packed.unpack());
            }
        }

        #[test]
        fn any_lines_come_back(lines in proptest::collection::vec(("[a-zA-Z-]{1,200}", "[ -~]{0,300}"), 0..20)) {
            let mut fields = Fields::new();
            for (name, value) in &lines {
                fields.push(name, value);
            }
            let back = PackedFields::from(&fields).unpack();
            let packed = PackedFields::from(&fields);
            prop_assert!(PackedFields::from_bytes(packed.as_bytes()).is_some());
            prop_assert_eq!(written(&back), written(&fields));
            prop_assert_eq!(back, fields);
        }
    }
}
