//! Ranges (RFC 9110 §14) cut out of stored responses, and partial responses that are stored (RFC 9111 §3.3, §3.4).

use http::Method;

use super::stored::StoredMeta;
use super::validation::{EntityTag, Validators};
use crate::message::{Fields, RequestHead};

mod combine;
mod multipart;

pub use combine::{Combined, Completion, Piece, Source, combine, completion};
pub use multipart::Multipart;

/// A request for more ranges than this gets the whole (RFC 9110 §14.2, §17.15): nobody who reads needs as many at once.
pub const MAX_RANGES: usize = 16;

/// Positions of bytes, both included (RFC 9110 §14.1.2). `first` is never beyond `last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteRange {
    first: u64,
    last: u64,
}

impl ByteRange {
    pub fn new(first: u64, last: u64) -> Option<Self> {
        // The length must fit, too.
        (first <= last && last - first < u64::MAX).then_some(Self { first, last })
    }

    pub fn first(self) -> u64 {
        self.first
    }

    pub fn last(self) -> u64 {
        self.last
    }

    /// In bytes, at least 1.
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(self) -> u64 {
        self.last - self.first + 1
    }

    fn contains(self, other: Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    /// Whether nothing lies between the two.
    fn touches(self, other: Self) -> bool {
        self.first <= other.last.saturating_add(1) && other.first <= self.last.saturating_add(1)
    }
}

/// One member of a `Range` field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeSpec {
    FromTo(u64, u64),
    From(u64),
    /// The last so many bytes.
    Suffix(u64),
}

impl RangeSpec {
    /// The positions that it means in a representation of so many bytes; `None` where it is not satisfiable.
    fn within(self, length: u64) -> Option<ByteRange> {
        let end = length.checked_sub(1)?;
        match self {
            Self::FromTo(first, last) => ByteRange::new(first, last.min(end)),
            Self::From(first) => ByteRange::new(first, end),
            Self::Suffix(0) => None,
            Self::Suffix(count) => ByteRange::new(length.saturating_sub(count), end),
        }
    }
}

/// A `Range` field that is understood: 1 to [`MAX_RANGES`] members, on the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RangeSet {
    specs: [RangeSpec; MAX_RANGES],
    count: usize,
}

impl RangeSet {
    /// The request's `Range`; `None` where there is none or it is to be ignored: another unit, bad syntax, more than
    /// [`MAX_RANGES`] members (RFC 9110 §14.2).
    pub fn of(request: &Fields) -> Option<Self> {
        let mut lines = request.get_all("range");
        let set = Self::parse(lines.next()?)?;
        if lines.next().is_some() { None } else { Some(set) }
    }

    pub fn parse(value: &[u8]) -> Option<Self> {
        let value = value.trim_ascii();
        let (unit, list) = value.split_at_checked(6)?;
        if !unit.eq_ignore_ascii_case(b"bytes=") {
            return None;
        }
        let mut set = Self {
            specs: [RangeSpec::From(0); MAX_RANGES],
            count: 0,
        };
        for member in list.split(|b| *b == b',') {
            let member = member.trim_ascii();
            if member.is_empty() {
                continue;
            }
            *set.specs.get_mut(set.count)? = range_spec(member)?;
            set.count += 1;
        }
        (set.count > 0).then_some(set)
    }

    pub fn specs(&self) -> &[RangeSpec] {
        self.specs.get(..self.count).unwrap_or_default()
    }
}

fn range_spec(member: &[u8]) -> Option<RangeSpec> {
    let dash = member.iter().position(|b| *b == b'-')?;
    let (first, last) = member.split_at(dash);
    match (first, last.get(1..).unwrap_or_default()) {
        ([], count) => Some(RangeSpec::Suffix(number(count)?)),
        (first, []) => Some(RangeSpec::From(number(first)?)),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(RangeSpec::FromTo(first, last))
        }
    }
}

/// `1*DIGIT`; what does not fit is the largest number, as no representation reaches that far.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    let mut value: u64 = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    }
    Some(value)
}

/// How much of a stored complete response is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// All of it, with its own status.
    Whole,
    /// 206 with these parts: several mean `multipart/byteranges`. In the order asked for, none overlapping another.
    Parts(Vec<ByteRange>),
    /// 416 with `Content-Range: bytes */length`.
    Unsatisfiable,
}

/// Which part of a complete stored response of `length` bytes a request asks for. Evaluated after the other conditions (RFC 9110
/// §13.2.2).
pub fn selection(request: &RequestHead, stored: &StoredMeta, length: u64) -> Selection {
    // RFC 9110 §14.2: Range is defined for GET, and for what would be a 200.
    let asks = request.fields.contains("range");
    if !asks || request.method != Method::GET || stored.status != 200 || !if_range_names(request, &stored.validators) {
        return Selection::Whole;
    }
    let Some(set) = RangeSet::of(&request.fields) else {
        return Selection::Whole;
    };
    // No range describes nothing: a suffix of an empty representation is all of it.
    if length == 0 && set.specs().iter().any(|spec| matches!(spec, RangeSpec::Suffix(1..))) {
        return Selection::Whole;
    }
    let satisfiable = set.specs().iter().filter_map(|spec| spec.within(length));
    let parts = coalesced(satisfiable);
    if parts.is_empty() {
        Selection::Unsatisfiable
    } else {
        Selection::Parts(parts)
    }
}

/// Whether `If-Range` lets `Range` apply (RFC 9110 §13.1.5).
fn if_range_names(request: &RequestHead, validators: &Validators) -> bool {
    let mut lines = request.fields.get_all("if-range");
    match (lines.next(), lines.next()) {
        (None, _) => true,
        // The date's century is the only thing that `now` would decide; a date that is compared for equality has one.
        (Some(value), None) => {
            let now = validators.last_modified.map(|known| known.time()).unwrap_or_default();
            validators.if_range_holds(value, now)
        }
        (Some(_), Some(_)) => false,
    }
}

/// Joins ranges that overlap or follow each other without a gap (RFC 9110 §15.3.7.2), so that no byte is sent twice.
fn coalesced(ranges: impl Iterator<Item = ByteRange>) -> Vec<ByteRange> {
    let mut parts: Vec<ByteRange> = Vec::new();
    for mut range in ranges {
        // The joined range takes the place of the first that it touches.
        let mut place = parts.len();
        while let Some(at) = parts.iter().position(|part| part.touches(range)) {
            let part = parts.remove(at);
            range = ByteRange {
                first: part.first.min(range.first),
                last: part.last.max(range.last),
            };
            place = place.min(at);
        }
        parts.insert(place.min(parts.len()), range);
    }
    parts
}

/// A `Content-Range` of bytes (RFC 9110 §14.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentRange {
    pub range: ByteRange,
    /// `None`: `*`, unknown.
    pub complete: Option<u64>,
}

impl ContentRange {
    /// `None` where there is no such field, more than one, or one that makes no sense.
    pub fn of(response: &Fields) -> Option<Self> {
        let mut lines = response.get_all("content-range");
        let found = Self::parse(lines.next()?)?;
        if lines.next().is_some() { None } else { Some(found) }
    }

    pub fn parse(value: &[u8]) -> Option<Self> {
        let (unit, rest) = value.trim_ascii().split_at_checked(6)?;
        if !unit.eq_ignore_ascii_case(b"bytes ") {
            return None;
        }
        let slash = rest.iter().position(|b| *b == b'/')?;
        let (range, complete) = rest.split_at(slash);
        let dash = range.iter().position(|b| *b == b'-')?;
        let (first, last) = range.split_at(dash);
        let range = ByteRange::new(number(first)?, number(last.get(1..)?)?)?;
        let complete = match complete.get(1..)? {
            b"*" => None,
            digits => Some(number(digits)?),
        };
        match complete {
            Some(complete) if complete <= range.last => None,
            _ => Some(Self { range, complete }),
        }
    }
}

impl std::fmt::Display for ContentRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ByteRange { first, last } = self.range;
        match self.complete {
            Some(complete) => write!(f, "bytes {first}-{last}/{complete}"),
            None => write!(f, "bytes {first}-{last}/*"),
        }
    }
}

/// What a stored 206 holds of its representation: one range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partial {
    pub held: ByteRange,
    /// Length of the representation. `None`: unknown.
    pub complete: Option<u64>,
    /// Whether the body has been as long as announced; if not it is never combined with another.
    pub exact: bool,
}

impl Partial {
    /// What a 206 says that its body is. `None`: it is not a single range of bytes, or nobody asked for one.
    pub fn announced(request: &RequestHead, response: &Fields) -> Option<Self> {
        RangeSet::of(&request.fields)?;
        let ContentRange { range, complete } = ContentRange::of(response)?;
        Some(Self {
            held: range,
            complete,
            exact: true,
        })
    }

    /// What it holds after a body of `length` bytes. `None`: the body is not what was announced, and must not be stored.
    ///
    /// One slip is forgiven, because the bytes are still known: an origin that counts a range reaching to the end one byte too
    /// far. The body then ends the representation one byte earlier.
    pub fn after_body(self, length: u64) -> Option<Self> {
        if length == self.held.len() {
            return Some(self);
        }
        let reaches_end = self.complete.is_some_and(|complete| complete - 1 == self.held.last);
        if reaches_end && length > 0 && length + 1 == self.held.len() {
            let last = self.held.last - 1;
            return Some(Self {
                held: ByteRange { last, ..self.held },
                complete: Some(last + 1),
                exact: false,
            });
        }
        None
    }

    /// The positions that a member of `Range` means, if they are held.
    fn part(&self, spec: RangeSpec) -> Option<ByteRange> {
        let range = match (spec, self.complete) {
            (spec, Some(complete)) => spec.within(complete)?,
            (RangeSpec::FromTo(first, last), None) => ByteRange::new(first, last)?,
            // Without knowing the end nothing can be said about it.
            (RangeSpec::From(_) | RangeSpec::Suffix(_), None) => return None,
        };
        self.held.contains(range).then_some(range)
    }
}

/// Whether a stored response holds all that a request asks for: a complete one does, a partial one where the request is for
/// ranges that are in it (RFC 9111 §3.3). Allocates nothing.
pub fn holds(stored: &StoredMeta, request: &RequestHead) -> bool {
    let Some(partial) = stored.partial() else {
        return true;
    };
    if request.method != Method::GET || !if_range_names(request, &stored.validators) {
        return false;
    }
    match RangeSet::of(&request.fields) {
        Some(set) => set.specs().iter().all(|spec| partial.part(*spec).is_some()),
        None => false,
    }
}

/// Whether a new response is worth more than the one that is stored under the same variant key. A part of a representation is
/// not, where the whole of the same one is there; [`combine()`] is for two parts.
pub fn supersedes(new: &StoredMeta, stored: &StoredMeta) -> bool {
    if new.partial().is_none() || stored.partial().is_some() {
        return true;
    }
    match (strong_tag(&new.validators), strong_tag(&stored.validators)) {
        (Some(new), Some(known)) => !new.is_strongly(known),
        _ => true,
    }
}

/// The parts to send of a stored partial response that [`holds`] what is asked for; positions in the representation.
pub fn held_parts(partial: &Partial, request: &Fields) -> Vec<ByteRange> {
    match RangeSet::of(request) {
        Some(set) => coalesced(set.specs().iter().filter_map(|spec| partial.part(*spec))),
        None => Vec::new(),
    }
}

/// The strong entity tag by which parts of one representation are known to belong together (RFC 9110 §15.3.7.3).
fn strong_tag(validators: &Validators) -> Option<&EntityTag> {
    validators.etag.as_ref().filter(|etag| etag.is_strong())
}

#[cfg(test)]
mod tests;
