//! Stored responses as bytes that other instances read: in Redis, and wherever else they leave the process.
//!
//! ```text
//! magic, version │ checksum of all that follows │ kind, coding │ time, age then │ key │ …
//!   a response: │ mark │ labels │ length of the body │ what is known of it │ variant │ field lines │ body, as coded
//!   an index:   │ nonce │ lists of field names
//!   a form:     │ mark │ digest of the body that it was made of │ coding │ effort │ body, or nothing where it does not pay
//!   a dictionary: │ mark │ labels │ where the URI ends in the key │ route │ what it is offered for │ digest │ length of the body │ body, as coded
//! ```
//!
//! All numbers are little-endian. The checksum says that the bytes are those that were written, the key that they are for this
//! key; what is of another version is not looked at. So whatever is read here came from [`encode`] or [`Index::encode`] in this very
//! form; everything is checked all the same, and nothing is allocated that is not there, or above the limit that the caller gives.

pub mod dictionary;
pub mod form;
mod reader;

use std::time::Duration;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_128;

use self::reader::Reader;
use super::coherence::Mark;
use super::{PackedFields, Stored};
use crate::metrics::RedisFault;
use crate::rfc9111::date::{Millis, Seconds, Timestamp};
use crate::rfc9111::freshness::{Lifetime, LifetimeSource};
use crate::rfc9111::labels::{Label, Labels};
use crate::rfc9111::stored::{Rare, Restrictions, StaleUse, StoredMeta};
use crate::rfc9111::validation::Validators;
use crate::rfc9111::vary::{MAX_NOMINATED, NominatedPart, VariantKey};

/// To be raised with every change of the form: values of another version are read as if they were not there.
const VERSION: u8 = 3;
const MAGIC: [u8; 4] = [b'F', b'B', b'Y', VERSION];
const CHECKSUM: usize = size_of::<u128>();
/// What the checksum stands for begins here.
const SUMMED: usize = MAGIC.len() + CHECKSUM;

/// Smaller bodies are not worth the time.
const COMPRESS_FROM: usize = 1024;
/// Of zstd: as fast as it gets, and most of what can be saved.
const LEVEL: i32 = 1;
/// A compressed body that is larger than so many eighths of it is left as it was.
const WORTH_IT: usize = 7;

/// Lists of field names under one key. More come from an origin that does not know what it varies by.
pub const MAX_LISTS: usize = 8;

/// Bytes of the largest index, head and all: [`MAX_LISTS`] lists of names, and the longest key that a request head makes.
pub const MAX_INDEX: usize = 128 * 1024;

const RESPONSE: u8 = 1;
const INDEX: u8 = 2;
const FORM: u8 = 3;
const DICTIONARY: u8 = 4;
const PLAIN: u8 = 0;
const ZSTD: u8 = 1;

const NO_CACHE: u8 = 1;
const IMMUTABLE: u8 = 2;
const WHILE_REVALIDATE: u8 = 4;
const IF_ERROR: u8 = 8;
const VARIES: u8 = 16;

/// A body as it is written.
#[derive(Debug, Clone)]
pub struct Coded {
    coding: u8,
    bytes: Bytes,
    length: u32,
}

/// Makes a body smaller where that pays. Takes its time: some milliseconds for a megabyte.
pub fn compress(stored: &Stored) -> Coded {
    match is_compressible(&stored.fields) {
        true => smaller(&stored.body),
        false => as_it_is(&stored.body),
    }
}

fn smaller(body: &Bytes) -> Coded {
    if body.len() > COMPRESS_FROM
        && let Ok(smaller) = zstd::bulk::compress(body, LEVEL)
        && smaller.len() <= body.len() / 8 * WORTH_IT
    {
        return Coded {
            coding: ZSTD,
            bytes: smaller.into(),
            ..as_it_is(body)
        };
    }
    as_it_is(body)
}

fn as_it_is(body: &Bytes) -> Coded {
    Coded {
        coding: PLAIN,
        bytes: body.clone(),
        length: u32::try_from(body.len()).unwrap_or(u32::MAX),
    }
}

/// Whether there is a chance: what has a coding already, pictures, films and archives have none.
fn is_compressible(fields: &PackedFields) -> bool {
    const DENSE: [&[u8]; 9] = [
        b"image/jpeg",
        b"image/png",
        b"image/webp",
        b"image/avif",
        b"video/",
        b"audio/",
        b"font/woff",
        b"application/zip",
        b"application/gzip",
    ];
    let fields = fields.unpack();
    if fields.contains("content-encoding") {
        return false;
    }
    let Some(media) = fields.get("content-type") else {
        return true;
    };
    !DENSE.iter().any(|dense| {
        media
            .get(..dense.len())
            .is_some_and(|front| front.eq_ignore_ascii_case(dense))
    })
}

/// A whole response. `age`: what it is `at` this time by the clock of the server that keeps it, in milliseconds since 1970. `None`: it is
/// a part, or too large for the form.
pub fn encode(key: &[u8], stored: &Stored, mark: Mark, body: &Coded, age: Duration, at: u64) -> Option<Vec<u8>> {
    if stored.meta.partial().is_some() {
        return None;
    }
    let labels = stored.meta.labels().map_or(&[][..], Labels::as_slice);
    let StoredMeta {
        status,
        received: _,
        initial_age: _,
        lifetime,
        date,
        restrictions,
        stale_while_revalidate,
        stale_if_error,
        // Read from the fields again.
        validators: _,
        variant,
        rare: _,
    } = &stored.meta;
    let fields = stored.fields.as_bytes();
    let mut out = head(
        RESPONSE,
        body.coding,
        at,
        age,
        128 + key.len() + 8 * labels.len() + fields.len() + body.bytes.len(),
    );
    put(&mut out, key)?;
    put_mark(&mut out, mark);
    put_labels(&mut out, labels)?;
    out.extend_from_slice(&body.length.to_le_bytes());
    out.extend_from_slice(&status.to_le_bytes());
    out.extend_from_slice(&lifetime.seconds.get().to_le_bytes());
    out.push(source_number(lifetime.source));
    out.extend_from_slice(&date.as_millis().to_le_bytes());
    out.push(match restrictions.stale {
        StaleUse::Allowed => 0,
        StaleUse::AsGranted => 1,
        StaleUse::Never => 2,
    });
    let parts = variant.parts();
    let flags = [
        (restrictions.no_cache, NO_CACHE),
        (restrictions.immutable, IMMUTABLE),
        (stale_while_revalidate.is_some(), WHILE_REVALIDATE),
        (stale_if_error.is_some(), IF_ERROR),
        (parts.is_some(), VARIES),
    ];
    out.push(flags.iter().filter(|(set, _)| *set).map(|(_, flag)| flag).sum());
    for window in [stale_while_revalidate, stale_if_error].into_iter().flatten() {
        out.extend_from_slice(&window.get().to_le_bytes());
    }
    if let Some((nominated, language)) = parts {
        out.push(u8::try_from(nominated.len()).ok()?);
        for NominatedPart { name, value } in nominated {
            put(&mut out, name.as_bytes())?;
            put_optional(&mut out, value.map(|(normal, _)| normal))?;
            put_optional(&mut out, value.and_then(|(_, received)| received))?;
        }
        put_optional(&mut out, language.map(str::as_bytes))?;
    }
    put(&mut out, fields)?;
    out.extend_from_slice(&body.bytes);
    Some(sealed(out))
}

/// What stands in the place of a response that varies: under which lists of fields to look further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// In the names of the values that it leads to: those of an index that is gone cannot be reached by the next one.
    pub nonce: u64,
    /// Sorted lower-case names; at most [`MAX_LISTS`].
    pub lists: Vec<Vec<String>>,
}

impl Index {
    /// `None`: too much for the form.
    pub fn encode(&self, key: &[u8]) -> Option<Vec<u8>> {
        let mut out = head(INDEX, PLAIN, 0, Duration::ZERO, 256 + key.len());
        put(&mut out, key)?;
        out.extend_from_slice(&self.nonce.to_le_bytes());
        out.push(u8::try_from(self.lists.len()).ok()?);
        for names in &self.lists {
            out.push(u8::try_from(names.len()).ok()?);
            for name in names {
                put(&mut out, name.as_bytes())?;
            }
        }
        Some(sealed(out)).filter(|bytes| bytes.len() <= MAX_INDEX)
    }
}

/// What was read.
#[derive(Debug)]
pub enum Value {
    Response(Box<Decoded>),
    Index(Index),
}

/// A response that was read, except for how old it is now.
#[derive(Debug)]
pub struct Decoded {
    meta: StoredMeta,
    fields: PackedFields,
    coding: u8,
    body: Bytes,
    length: usize,
    /// When it was written.
    age: Duration,
    /// That time, by the clock of the server that keeps it, in milliseconds since 1970.
    pub at: u64,
    /// The last purge that was known where it was asked for.
    pub mark: Mark,
}

impl Decoded {
    pub fn labels(&self) -> &[Label] {
        self.meta.labels().map_or(&[], Labels::as_slice)
    }
}

/// Reads what was written for `key`. `max_body`: bytes of the largest body that is wanted.
///
/// # Errors
/// Says what is wrong. None of it is of any use then.
pub fn decode(bytes: &Bytes, key: &[u8], max_body: u64) -> Result<Value, RedisFault> {
    let mut reader = opened(bytes)?;
    read(bytes, &mut reader, key, max_body).unwrap_or(Err(RedisFault::ValueBroken))
}

/// What the checksum stands for, where it is right.
fn opened(bytes: &[u8]) -> Result<Reader<'_>, RedisFault> {
    let (magic, rest) = bytes.split_first_chunk::<4>().ok_or(RedisFault::ValueBroken)?;
    if *magic != MAGIC {
        return Err(RedisFault::ValueVersion);
    }
    let (sum, summed) = rest.split_first_chunk::<CHECKSUM>().ok_or(RedisFault::ValueBroken)?;
    if xxh3_128(summed) != u128::from_le_bytes(*sum) {
        return Err(RedisFault::ValueBroken);
    }
    Ok(Reader::new(summed))
}

/// `None`: there is less than there has to be.
fn read(bytes: &Bytes, reader: &mut Reader<'_>, key: &[u8], max_body: u64) -> Option<Result<Value, RedisFault>> {
    let (kind, coding) = (reader.u8()?, reader.u8()?);
    let at = reader.u64()?;
    let age = Duration::from_millis(reader.u64()?);
    if reader.block()? != key {
        return Some(Err(RedisFault::ValueKey));
    }
    match kind {
        INDEX => Some(Ok(Value::Index(index(reader)?))),
        RESPONSE => {
            let mark = mark(reader)?;
            let labels = labels(reader)?;
            let (mut meta, fields, length) = response(reader)?;
            meta.set_labels(Labels::new(labels));
            if length as u64 > max_body {
                return None;
            }
            let body = bytes.slice(bytes.len() - reader.left()..);
            if !(coding == ZSTD || coding == PLAIN && body.len() == length) {
                return None;
            }
            Some(Ok(Value::Response(Box::new(Decoded {
                meta,
                fields,
                coding,
                body,
                length,
                age,
                at,
                mark,
            }))))
        }
        _ => None,
    }
}

fn index(reader: &mut Reader<'_>) -> Option<Index> {
    let nonce = reader.u64()?;
    let mut lists = Vec::new();
    for _ in 0..reader.u8()? {
        let mut names = Vec::new();
        for _ in 0..reader.u8()? {
            names.push(reader.text()?.to_owned());
        }
        lists.push(names);
        if lists.len() > MAX_LISTS {
            return None;
        }
    }
    (reader.left() == 0).then_some(Index { nonce, lists })
}

fn response(reader: &mut Reader<'_>) -> Option<(StoredMeta, PackedFields, usize)> {
    let length = usize::try_from(reader.u32()?).ok()?;
    let status = reader.u16()?;
    if !(100..=599).contains(&status) {
        return None;
    }
    let lifetime = Lifetime {
        seconds: Seconds::new(u64::from(reader.u32()?)),
        source: source(reader.u8()?)?,
    };
    let date = Timestamp::from_millis(reader.u64()?);
    let stale = match reader.u8()? {
        0 => StaleUse::Allowed,
        1 => StaleUse::AsGranted,
        2 => StaleUse::Never,
        _ => return None,
    };
    let flags = reader.u8()?;
    let has = |flag: u8| flags & flag != 0;
    let restrictions = Restrictions {
        no_cache: has(NO_CACHE),
        stale,
        immutable: has(IMMUTABLE),
    };
    let mut window = |flag| match has(flag) {
        true => Some(Some(Seconds::new(u64::from(reader.u32()?)))),
        false => Some(None),
    };
    let (stale_while_revalidate, stale_if_error) = (window(WHILE_REVALIDATE)?, window(IF_ERROR)?);
    let variant = match has(VARIES) {
        true => variant(reader)?,
        false => VariantKey::default(),
    };
    let fields = PackedFields::from_bytes(reader.block()?)?;
    let validators = Validators::of(&fields.unpack(), date);
    let meta = StoredMeta {
        status,
        received: Timestamp::default(),
        initial_age: Millis::ZERO,
        lifetime,
        date,
        restrictions,
        stale_while_revalidate,
        stale_if_error,
        validators,
        variant,
        rare: Rare::default(),
    };
    Some((meta, fields, length))
}

fn variant(reader: &mut Reader<'_>) -> Option<VariantKey> {
    let count = usize::from(reader.u8()?);
    if count > MAX_NOMINATED {
        return None;
    }
    let mut fields = Vec::with_capacity(count);
    for _ in 0..count {
        let name = reader.text()?;
        let normal = reader.optional()?;
        let received = reader.optional()?;
        fields.push(NominatedPart {
            name,
            value: normal.map(|normal| (normal, received)),
        });
    }
    let language = match reader.optional()? {
        Some(language) => Some(std::str::from_utf8(language).ok()?),
        None => None,
    };
    VariantKey::from_parts(fields, language)
}

impl Decoded {
    /// The response as it is `now`, when it has been stored for `stored_for`. Takes its time where the body is compressed.
    ///
    /// # Errors
    /// When the body is not what it was.
    pub fn into_stored(self, stored_for: Duration, now: Timestamp) -> Result<Stored, RedisFault> {
        let body = decoded(&self.body, self.coding, self.length)?;
        let mut meta = self.meta;
        meta.received = now;
        meta.initial_age = self.age.saturating_add(stored_for).min(Seconds::MAX.duration()).into();
        Ok(Stored {
            meta,
            fields: self.fields,
            body: body.into(),
        })
    }

    /// Bytes that have to be gone through for it.
    pub fn work(&self) -> usize {
        match self.coding {
            PLAIN => 0,
            _ => self.length,
        }
    }
}

/// A body of this length that was written like that.
fn decoded(body: &Bytes, coding: u8, length: usize) -> Result<Bytes, RedisFault> {
    match coding {
        // In memory it must not hold on to everything around it, unless that is next to nothing.
        PLAIN if length > SLICED_FROM => Ok(body.clone()),
        PLAIN => Ok(Bytes::copy_from_slice(body)),
        _ => match zstd::bulk::decompress(body, length) {
            Ok(body) if body.len() == length => Ok(body.into()),
            Ok(_) | Err(_) => Err(RedisFault::ValueBroken),
        },
    }
}

/// Beside a larger body the rest of a value does not count.
const SLICED_FROM: usize = 64 * 1024;

fn head(kind: u8, coding: u8, at: u64, age: Duration, room: usize) -> Vec<u8> {
    let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    let mut out = Vec::with_capacity(room);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[0; CHECKSUM]);
    out.extend_from_slice(&[kind, coding]);
    out.extend_from_slice(&at.to_le_bytes());
    out.extend_from_slice(&age.to_le_bytes());
    out
}

/// With its checksum.
fn sealed(mut out: Vec<u8>) -> Vec<u8> {
    let sum = xxh3_128(out.get(SUMMED..).unwrap_or_default());
    if let Some(place) = out.get_mut(MAGIC.len()..SUMMED) {
        place.copy_from_slice(&sum.to_le_bytes());
    }
    out
}

fn put(out: &mut Vec<u8>, block: &[u8]) -> Option<()> {
    out.extend_from_slice(&u32::try_from(block.len()).ok()?.to_le_bytes());
    out.extend_from_slice(block);
    Some(())
}

fn put_mark(out: &mut Vec<u8>, mark: Mark) {
    out.extend_from_slice(&mark.incarnation.to_le_bytes());
    out.extend_from_slice(&mark.number.to_le_bytes());
}

fn mark(reader: &mut Reader<'_>) -> Option<Mark> {
    Some(Mark {
        incarnation: reader.u64()?,
        number: reader.u64()?,
    })
}

fn put_labels(out: &mut Vec<u8>, labels: &[Label]) -> Option<()> {
    out.extend_from_slice(&u32::try_from(labels.len()).ok()?.to_le_bytes());
    for label in labels {
        out.extend_from_slice(&label.as_u64().to_le_bytes());
    }
    Some(())
}

/// No room is made beforehand: how many there are is what somebody says.
fn labels(reader: &mut Reader<'_>) -> Option<Vec<Label>> {
    let mut labels = Vec::new();
    for _ in 0..reader.u32()? {
        labels.push(Label::from_u64(reader.u64()?));
    }
    Some(labels)
}

fn put_optional(out: &mut Vec<u8>, block: Option<&[u8]>) -> Option<()> {
    match block {
        None => out.push(0),
        Some(block) => {
            out.push(1);
            put(out, block)?;
        }
    }
    Some(())
}

const SOURCES: [LifetimeSource; 6] = [
    LifetimeSource::Route,
    LifetimeSource::SMaxage,
    LifetimeSource::MaxAge,
    LifetimeSource::Expires,
    LifetimeSource::Heuristic,
    LifetimeSource::None,
];

fn source_number(source: LifetimeSource) -> u8 {
    match source {
        LifetimeSource::Route => 0,
        LifetimeSource::SMaxage => 1,
        LifetimeSource::MaxAge => 2,
        LifetimeSource::Expires => 3,
        LifetimeSource::Heuristic => 4,
        LifetimeSource::None => 5,
    }
}

fn source(number: u8) -> Option<LifetimeSource> {
    SOURCES.get(usize::from(number)).copied()
}

#[cfg(test)]
mod tests;
