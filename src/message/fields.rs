//! Field lines of a message.
//!
//! They keep their order, case and bytes, in one arena with an index, because a message is read once and written once: a proxy that hashes
//! names and owns every value spends more on that than on anything else.

use std::ops::Range;

use http::header::HeaderMap;

use super::Lines;

/// Bytes kept free behind received lines, so that `Via`, `X-Forwarded-*` and their kin find room without a new allocation.
const ROOM_FOR_MORE_LINES: usize = 512;

/// That many of them.
const MORE_LINES: usize = 12;

/// Field lines of one message (RFC 9110 §5), in order, as received.
///
/// Names and values have been checked when a line comes in (RFC 9110 §5.1, §5.5): no empty name, no CR, LF or NUL.
#[derive(Debug, Clone, Default)]
pub struct Fields {
    /// Lines in the form of HTTP/1.1, `name: value CR LF`, possibly with bytes between them that no line refers to.
    arena: Vec<u8>,
    lines: Vec<Line>,
    /// Bit [`Tag::bit`] of each line there is, and maybe of some that were: most names that are asked for are not there.
    bits: u64,
}

/// Where a line stands in the arena.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line {
    tag: Tag,
    name: u32,
    name_end: u32,
    value: u32,
    value_end: u32,
    /// Whether the arena has the line in the very form in which it is written: received ones may have other white space
    /// around the value.
    as_sent: bool,
}

impl Line {
    /// A line of `section`, where its name and value have been checked.
    #[inline]
    pub(crate) fn new(section: &[u8], tag: Tag, name: Range<usize>, value: Range<usize>) -> Self {
        Self {
            tag,
            name: name.start as u32,
            name_end: name.end as u32,
            value: value.start as u32,
            value_end: value.end as u32,
            as_sent: value.start == name.end + ": ".len()
                && section.get(name.end + 1) == Some(&b' ')
                && section.get(value.end) == Some(&b'\r'),
        }
    }
}

/// A fingerprint of a field name that ignores case: names that are equal have equal tags, so most lines that are not
/// looked for are passed by with one comparison of integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tag(u32);

impl Tag {
    #[inline]
    pub(crate) const fn of(name: &[u8]) -> Self {
        let length = name.len();
        if length == 0 {
            return Self(0);
        }
        // Setting bit 5 folds upper case into lower; that it also folds a few other bytes together only makes tags collide.
        Self(u32::from_be_bytes([
            length as u8,
            name[0] | 0x20,
            name[length / 2] | 0x20,
            name[length - 1] | 0x20,
        ]))
    }

    /// One of 64 bits, as good as at random (Fibonacci hashing).
    #[inline]
    const fn bit(self) -> u64 {
        1 << (self.0.wrapping_mul(0x9e37_79b9) >> 26)
    }
}

/// A field name that the program knows, of small letters, digits and dashes, with its tag at hand.
#[derive(Debug, Clone, Copy)]
pub struct FieldName {
    text: &'static str,
    tag: Tag,
}

impl FieldName {
    /// # Panics
    /// Where there is anything else in it than small letters, digits and dashes; that is, while it is compiled.
    pub const fn new(text: &'static str) -> Self {
        let mut at = 0;
        while at < text.len() {
            assert!(matches!(text.as_bytes()[at], b'a'..=b'z' | b'0'..=b'9' | b'-'));
            at += 1;
        }
        Self {
            text,
            tag: Tag::of(text.as_bytes()),
        }
    }

    pub const fn as_str(&self) -> &'static str {
        self.text
    }

    /// Whether this is the name, in whatever case. `name` has no control characters, as nothing has that stands in a head.
    // So that the tag of a constant becomes part of the comparison, and its text, too.
    #[inline(always)]
    pub(crate) fn is(&self, tag: Tag, name: &[u8]) -> bool {
        self.tag == tag && name.len() == self.text.len() && is_in_other_case(name, self.text.as_bytes())
    }
}

/// Field names that the program knows, for the question whether a line has one of them.
#[derive(Debug, Clone, Copy)]
pub struct FieldNames {
    names: &'static [FieldName],
    /// Bit [`Tag::bit`] of each: most lines are done with after one look.
    bits: u64,
}

impl FieldNames {
    pub const fn new(names: &'static [FieldName]) -> Self {
        let mut bits = 0;
        let mut at = 0;
        while at < names.len() {
            bits |= names[at].tag.bit();
            at += 1;
        }
        Self { names, bits }
    }

    pub fn iter(&self) -> impl Iterator<Item = &'static str> {
        self.names.iter().map(FieldName::as_str)
    }

    /// Whether it is one of these, in whatever case.
    pub fn has(&self, name: &str) -> bool {
        self.contains(Tag::of(name.as_bytes()), name.as_bytes())
    }

    /// [`has`](Self::has), for what may be no text.
    pub(crate) fn has_bytes(&self, name: &[u8]) -> bool {
        self.contains(Tag::of(name), name)
    }

    /// `false`: none of them has this tag.
    #[inline]
    pub(crate) fn may_have(&self, tag: Tag) -> bool {
        self.bits & tag.bit() != 0
    }

    #[inline]
    pub(crate) fn contains(&self, tag: Tag, name: &[u8]) -> bool {
        self.may_have(tag) && self.has_one(tag, name)
    }

    #[inline(never)]
    fn has_one(&self, tag: Tag, name: &[u8]) -> bool {
        self.names.iter().any(|field| field.is(tag, name))
    }
}

impl Fields {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn with_capacity(lines: usize, bytes: usize) -> Self {
        Self {
            arena: Vec::with_capacity(bytes),
            lines: Vec::with_capacity(lines),
            bits: 0,
        }
    }

    /// Takes over a field section in one copy, with room for the lines that a proxy adds.
    pub(crate) fn from_section(section: &[u8], lines: Vec<Line>) -> Self {
        if lines.is_empty() {
            return Self::new();
        }
        let mut arena = Vec::with_capacity(section.len() + ROOM_FOR_MORE_LINES);
        arena.extend_from_slice(section);
        let bits = lines.iter().fold(0, |bits, line| bits | line.tag.bit());
        Self { arena, lines, bits }
    }

    /// A copy with room for the lines that a proxy adds.
    pub(crate) fn copy_with_room(&self) -> Self {
        let mut copy = Self::with_capacity(self.lines.len() + MORE_LINES, self.arena.len() + ROOM_FOR_MORE_LINES);
        copy.arena.extend_from_slice(&self.arena);
        copy.lines.extend_from_slice(&self.lines);
        copy.bits = self.bits;
        copy
    }

    /// Number of lines.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Bytes that this takes on the heap.
    pub fn heap_size(&self) -> usize {
        self.arena.capacity() + self.lines.capacity() * std::mem::size_of::<Line>()
    }

    /// Gives back memory that is not used: for what is kept for long.
    pub fn shrink(&mut self) {
        self.arena.shrink_to_fit();
        self.lines.shrink_to_fit();
    }

    /// All lines, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> + '_ {
        self.lines.iter().map(|line| (self.name_text(line), self.value(line)))
    }

    /// The first line of that name.
    // Names are mostly literals: their bits become constants, and asking for what is not there a comparison.
    #[inline(always)]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let tag = Tag::of(name.as_bytes());
        match self.bits & tag.bit() {
            0 => None,
            _ => self.find(tag, name),
        }
    }

    fn find(&self, tag: Tag, name: &str) -> Option<&[u8]> {
        let mut lines = self.lines.iter();
        let line = lines.find(|line| line.tag == tag && is_same_name(self.name(line), name.as_bytes()));
        line.map(|line| self.value(line))
    }

    /// All lines of that name, in order.
    #[inline]
    pub fn get_all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let tag = Tag::of(name.as_bytes());
        let lines = match self.bits & tag.bit() {
            0 => &[][..],
            _ => &self.lines[..],
        };
        lines
            .iter()
            .filter(move |line| line.tag == tag && is_same_name(self.name(line), name.as_bytes()))
            .map(|line| self.value(line))
    }

    #[inline(always)]
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Whether there is a line of one of these names.
    // Mostly there is none, and one comparison says so.
    #[inline]
    pub fn contains_any(&self, names: &FieldNames) -> bool {
        self.bits & names.bits != 0 && names.iter().any(|name| self.contains(name))
    }

    /// Adds a line behind the others.
    ///
    /// # Panics
    /// In debug builds, where the name is not a token or the value holds CR, LF or NUL: whoever brings bytes from outside
    /// checks them first.
    pub fn push(&mut self, name: &str, value: impl AsRef<[u8]>) {
        let value = value.as_ref();
        debug_assert!(is_field_value(value), "not a field value");
        self.push_pieces(name, [value]);
    }

    /// Adds a line whose value `write` appends to what is there.
    pub fn push_written(&mut self, name: &str, write: impl FnOnce(&mut Vec<u8>)) {
        debug_assert!(is_token(name.as_bytes()), "not a field name: {name:?}");
        let start = self.arena.len();
        self.arena.extend_from_slice(name.as_bytes());
        let name_end = self.arena.len();
        self.arena.extend_from_slice(b": ");
        let value_start = self.arena.len();
        write(&mut self.arena);
        let value_end = self.arena.len();
        self.arena.extend_from_slice(b"\r\n");
        let line = Line::new(
            &self.arena,
            Tag::of(name.as_bytes()),
            start..name_end,
            value_start..value_end,
        );
        debug_assert!(is_field_value(self.value(&line)), "not a field value");
        self.bits |= line.tag.bit();
        self.lines.push(line);
    }

    /// Adds a line whose value is these pieces, one behind the other: what a proxy adds to every message.
    // The names are literals: what they come to is part of the program then.
    #[inline(always)]
    pub(crate) fn push_joined<const N: usize>(&mut self, name: &'static str, pieces: [&[u8]; N]) {
        self.push_pieces(name, pieces);
    }

    #[inline(always)]
    fn push_pieces<const N: usize>(&mut self, name: &str, pieces: [&[u8]; N]) {
        debug_assert!(is_token(name.as_bytes()), "not a field name: {name:?}");
        let length = pieces.iter().fold(0, |length, piece| length + piece.len());
        self.arena.reserve(name.len() + ": ".len() + length + "\r\n".len());
        let start = self.arena.len();
        let (name_end, value) = (start + name.len(), start + name.len() + ": ".len());
        self.arena.extend_from_slice(name.as_bytes());
        self.arena.extend_from_slice(b": ");
        for piece in pieces {
            self.arena.extend_from_slice(piece);
        }
        self.arena.extend_from_slice(b"\r\n");
        let tag = Tag::of(name.as_bytes());
        self.bits |= tag.bit();
        self.lines.push(Line {
            tag,
            name: start as u32,
            name_end: name_end as u32,
            value: value as u32,
            value_end: (value + length) as u32,
            as_sent: true,
        });
    }

    /// Puts one line in the place of all of that name.
    pub fn set(&mut self, name: &str, value: impl AsRef<[u8]>) {
        self.remove(name);
        self.push(name, value);
    }

    /// Removes all lines of that name; answers whether there were any.
    #[inline]
    pub fn remove(&mut self, name: &str) -> bool {
        if !self.contains(name) {
            return false;
        }
        self.retain(|n, _| !n.eq_ignore_ascii_case(name))
    }

    /// Keeps the lines for which `keep` is true; answers whether any went.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &[u8]) -> bool) -> bool {
        let before = self.lines.len();
        let mut lines = std::mem::take(&mut self.lines);
        lines.retain(|line| keep(self.name_text(line), self.value(line)));
        self.lines = lines;
        self.lines.len() != before
    }

    /// Removes the lines of all these names.
    pub fn remove_all(&mut self, names: &FieldNames) {
        // Mostly there is none: nothing is moved then.
        let is_one = |line: &Line| names.may_have(line.tag) && names.contains(line.tag, self.name(line));
        if !self.lines.iter().any(is_one) {
            return;
        }
        let arena = &self.arena;
        self.lines.retain(|line| {
            let name = arena.get(line.name as usize..line.name_end as usize);
            !names.contains(line.tag, name.unwrap_or_default())
        });
    }

    /// Whether a list-valued field (RFC 9110 §5.6.1) has this token as a member, in any of its lines.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.get_all(name)
            .flat_map(|value| value.split(|b| *b == b','))
            .any(|member| member.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    }

    /// Writes the lines as HTTP/1.1 has them (RFC 9112 §5), each with its CR LF, but none of those named in `without`.
    ///
    /// `write` gets what stands side by side in one piece: mostly that is everything.
    pub fn write_http1(&self, without: &FieldNames, mut write: impl FnMut(&[u8])) {
        let (mut run, mut run_end) = (0, 0);
        for line in &self.lines {
            if without.may_have(line.tag) && without.contains(line.tag, self.name(line)) {
                continue;
            }
            if !line.as_sent {
                write(&self.arena[run..run_end]);
                (run, run_end) = (0, 0);
                for piece in [self.name(line), b": ", self.value(line), b"\r\n"] {
                    write(piece);
                }
                continue;
            }
            let (start, end) = (line.name as usize, line.value_end as usize + "\r\n".len());
            if start != run_end {
                write(&self.arena[run..run_end]);
                run = start;
            }
            run_end = end;
        }
        write(&self.arena[run..run_end]);
    }

    #[inline]
    fn name(&self, line: &Line) -> &[u8] {
        &self.arena[line.name as usize..line.name_end as usize]
    }

    fn name_text(&self, line: &Line) -> &str {
        // Names are tokens, so always ASCII.
        std::str::from_utf8(self.name(line)).unwrap_or_default()
    }

    #[inline]
    fn value(&self, line: &Line) -> &[u8] {
        &self.arena[line.value as usize..line.value_end as usize]
    }
}

impl PartialEq for Fields {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

/// Whether two names differ in the case of letters only, eight bytes at a time.
fn is_same_name(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let (Some(one_end), Some(other_end)) = (one.last_chunk(), other.last_chunk()) else {
        return one.eq_ignore_ascii_case(other);
    };
    let (ones, _) = one.as_chunks();
    let (others, _) = other.as_chunks();
    let mut pairs = ones.iter().zip(others);
    pairs.all(|(one, other)| are_same_letters(*one, *other)) && are_same_letters(*one_end, *other_end)
}

/// [`is_same_name`] for a name of the program's own: what differs in that one bit from a small letter is a capital one, and from a digit or
/// a dash a control character.
#[inline(always)]
fn is_in_other_case(name: &[u8], known: &[u8]) -> bool {
    const CASE: u8 = 0x20;
    let (names, name_rest) = name.as_chunks::<8>();
    let (knowns, known_rest) = known.as_chunks::<8>();
    let mut different = 0;
    for (name, known) in names.iter().zip(knowns) {
        different |= u64::from_le_bytes(*name) ^ u64::from_le_bytes(*known);
    }
    let rest = name_rest.iter().zip(known_rest);
    let rest = rest.fold(0, |different, (name, known)| different | (name ^ known));
    different & !u64::from_ne_bytes([CASE; 8]) == 0 && rest & !CASE == 0
}

#[inline]
fn are_same_letters(one: [u8; 8], other: [u8; 8]) -> bool {
    const EACH: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x80 * EACH;
    const CASE: u64 = 0x20 * EACH;
    let (one, other) = (u64::from_le_bytes(one), u64::from_le_bytes(other));
    let different = one ^ other;
    // Without the highest bit, so that no sum carries into the next byte.
    let folded = one & !HIGH | CASE;
    let from = |first: u8| folded + u64::from(0x80 - first) * EACH;
    let letters = from(b'a') & !from(b'z' + 1) & !one & HIGH;
    different & !(letters >> 2) == 0
}

/// `token` of RFC 9110 §5.6.2.
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|b| is_token_byte(*b))
}

/// `tchar` of RFC 9110 §5.6.2.
#[inline]
pub fn is_token_byte(byte: u8) -> bool {
    TOKEN_BYTES[usize::from(byte)]
}

static TOKEN_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = matches!(byte as u8,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z');
        byte += 1;
    }
    table
};

/// What may stand in a field value (RFC 9110 §5.5): anything but controls other than HTAB.
#[inline]
pub fn is_field_value(bytes: &[u8]) -> bool {
    // Without a way out in the middle, so that the compiler can look at many bytes at once.
    let control = |b: &u8| (*b < 0x20 && *b != b'\t') || *b == 0x7f;
    !bytes.iter().fold(false, |found, b| found | control(b))
}

impl From<&HeaderMap> for Fields {
    /// Fields of an HTTP/2 message. Lines whose value could not be written in HTTP/1.1 are left out.
    fn from(map: &HeaderMap) -> Self {
        let mut fields = Self::with_capacity(map.len(), 512);
        for (name, value) in map {
            if is_field_value(value.as_bytes()) {
                fields.push(name.as_str(), value.as_bytes());
            }
        }
        fields
    }
}

impl From<&Fields> for HeaderMap {
    /// See [`Lines::to_header_map`].
    fn from(fields: &Fields) -> Self {
        fields.to_header_map()
    }
}

/// What the tests of all modules make their fields with.
#[cfg(test)]
pub(crate) fn fields(lines: &[(&str, &str)]) -> Fields {
    let mut fields = Fields::new();
    for (name, value) in lines {
        fields.push(name, value);
    }
    fields
}

#[cfg(test)]
mod tests;
