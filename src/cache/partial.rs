//! Stored parts of representations (RFC 9111 §3.3, §3.4).

use bytes::{Bytes, BytesMut};

use super::{Memory, Stored};
use crate::key::CacheKey;
use crate::message::Fields;
use crate::rfc9111::labels::Labels;
use crate::rfc9111::range::{Combined, ContentRange, Partial, Piece, Source, combine, supersedes};
use crate::rfc9111::stored::StoredMeta;
use crate::rfc9111::validation::updated_fields;

/// What is to be stored of a response whose body has come in whole. `None`: nothing, since its body is not what was announced, or what is
/// stored already is worth more.
pub fn settle(memory: &Memory, key: &CacheKey, mut meta: StoredMeta, fields: Fields, body: Bytes) -> Option<Stored> {
    let Some(announced) = meta.partial() else {
        return Some(Stored::new(meta, &fields, body));
    };
    let held = announced.after_body(body.len() as u64)?;
    meta.set_partial(Some(held));
    let variants = memory.get(key);
    let old = variants
        .iter()
        .flat_map(|variants| variants.iter())
        .find(|old| old.meta.variant == meta.variant);
    let Some(old) = old else {
        return Some(Stored::new(meta, &fields, body));
    };
    match combine(&old.meta, &held, &fields, meta.received) {
        Some(combined) => Some(join(old, meta, &fields, &body, &combined)),
        None if supersedes(&meta, &old.meta) => Some(Stored::new(meta, &fields, body)),
        None => None,
    }
}

/// Puts a stored part and a new one together.
pub fn join(old: &Stored, mut meta: StoredMeta, fields: &Fields, body: &Bytes, combined: &Combined) -> Stored {
    meta.set_labels(Labels::both(old.meta.labels(), meta.labels()));
    let mut fields = updated_fields(&old.fields.unpack(), fields);
    let length = combined.pieces.iter().map(|piece| piece.length).sum::<u64>();
    let mut joined = BytesMut::with_capacity(usize::try_from(length).unwrap_or_default());
    for piece in &combined.pieces {
        let source = match piece.source {
            Source::Stored => &old.body,
            Source::New => body,
        };
        joined.extend_from_slice(cut(source, piece));
    }
    if combined.is_complete() {
        meta.status = 200;
        meta.set_partial(None);
        fields.remove("content-range");
    } else {
        meta.status = 206;
        meta.set_partial(Some(Partial {
            held: combined.range,
            complete: combined.complete,
            exact: true,
        }));
        let content_range = ContentRange {
            range: combined.range,
            complete: combined.complete,
        };
        fields.set("Content-Range", content_range.to_string());
    }
    Stored::new(meta, &fields, joined.freeze())
}

fn cut<'a>(body: &'a Bytes, piece: &Piece) -> &'a [u8] {
    let start = usize::try_from(piece.offset).unwrap_or(usize::MAX);
    let length = usize::try_from(piece.length).unwrap_or(usize::MAX);
    body.get(start..start.saturating_add(length)).unwrap_or_default()
}
