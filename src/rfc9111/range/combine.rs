//! Putting a partial response together with another (RFC 9111 §3.4, RFC 9110 §15.3.7.3).

use super::{ByteRange, Partial, strong_tag};
use crate::message::Fields;
use crate::rfc9111::date::Timestamp;
use crate::rfc9111::stored::StoredMeta;
use crate::rfc9111::validation::Validators;

/// A request that asks the origin for what a stored partial response lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// Value of `Range`.
    pub range: String,
    /// Value of `If-Range`, so that the origin sends the whole where its representation has changed. `None`: there is no strong
    /// validator, so a 206 that comes cannot be combined, and the whole must then be asked for.
    pub if_range: Option<Vec<u8>>,
}

/// What to ask for to make a stored partial response whole. `None`: not with one range, or nobody knows how far it reaches.
pub fn completion(stored: &StoredMeta) -> Option<Completion> {
    let partial = stored.partial().filter(|partial| partial.exact)?;
    let complete = partial.complete?;
    let held = partial.held;
    let range = match (held.first, complete.checked_sub(held.last + 1)?) {
        (0, 1..) => format!("bytes={}-", held.last + 1),
        (first @ 1.., 0) => format!("bytes=0-{}", first - 1),
        _ => return None,
    };
    Some(Completion {
        range,
        if_range: strong_tag(&stored.validators).map(|etag| etag.to_bytes()),
    })
}

/// Two parts of one representation, put together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Combined {
    pub range: ByteRange,
    pub complete: Option<u64>,
    /// What to take from which body, in order.
    pub pieces: Vec<Piece>,
}

impl Combined {
    /// Whether it is all of the representation, so that it may be stored as a 200 (RFC 9111 §3.4).
    pub fn is_complete(&self) -> bool {
        self.range.first == 0 && self.complete == self.range.last.checked_add(1)
    }
}

/// Bytes of one of the two bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    pub source: Source,
    /// Offset in that body.
    pub offset: u64,
    pub length: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Stored,
    New,
}

/// Combines a stored partial response with a new 206 that holds `new`. `None` where they do not share a strong validator, do not
/// agree on the length, or leave a gap. The stored fields are then updated by the new ones like with a 304.
pub fn combine(stored: &StoredMeta, new: &Partial, new_fields: &Fields, received: Timestamp) -> Option<Combined> {
    let old = stored.partial()?;
    let new_validators = Validators::of(new_fields, received);
    let same = strong_tag(&stored.validators)?.is_strongly(strong_tag(&new_validators)?);
    let agreed = old.complete.is_none() || new.complete.is_none() || old.complete == new.complete;
    if !same || !agreed || !old.exact || !new.exact || !old.held.touches(new.held) {
        return None;
    }
    let (before, after) = if old.held.first <= new.held.first {
        ((Source::Stored, old.held), (Source::New, new.held))
    } else {
        ((Source::New, new.held), (Source::Stored, old.held))
    };
    let mut pieces = vec![Piece {
        source: before.0,
        offset: 0,
        length: before.1.len(),
    }];
    if after.1.last > before.1.last {
        let offset = before.1.last + 1 - after.1.first;
        pieces.push(Piece {
            source: after.0,
            offset,
            length: after.1.len() - offset,
        });
    }
    Some(Combined {
        range: ByteRange {
            first: before.1.first,
            last: before.1.last.max(after.1.last),
        },
        complete: old.complete.or(new.complete),
        pieces,
    })
}
