//! Validation (RFC 9111 §4.3): conditions of clients, conditions of our own, and what the answers do to stored responses.

use std::num::NonZeroU64;

use http::Method;

use super::date::{Timestamp, parse_http_date};
use super::freshness::{Times, date, last_modified};
use super::storability::{Accepted, Storable, StorePolicy, Unstorable, assess};
use super::stored::StoredMeta;
use crate::message::{FieldName, FieldNames, Fields, Lines, RequestHead, ResponseHead};

/// Bytes of an entity tag that are kept in place, as those of usual file servers are: what a [`EntityTag`] has room for anyway.
const SHORT_TAG: usize = 21;

/// An entity tag (RFC 9110 §8.8.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntityTag(Kept);

/// With its quotes; without `W/`. A tag that fits is always `Short`, so that equal tags are kept equally.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kept {
    Short {
        strength: Strength,
        length: u8,
        /// Zeros behind the length.
        bytes: [u8; SHORT_TAG],
    },
    Long {
        strength: Strength,
        opaque: Box<[u8]>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strength {
    Strong,
    Weak,
    /// Not an entity tag by RFC 9110. It is sent back as it came and equals the same bytes, but proves nothing.
    Foreign,
}

impl EntityTag {
    /// The `ETag` of a response that has exactly one.
    pub fn of(response: &Fields) -> Option<Self> {
        let mut lines = response.get_all("etag");
        let line = lines.next()?.trim_ascii();
        if line.is_empty() || lines.next().is_some() {
            return None;
        }
        let (tag, rest) = next_tag(line)?;
        Some(Self::new(if rest.is_empty() {
            tag
        } else {
            Tag {
                strength: Strength::Foreign,
                opaque: line,
            }
        }))
    }

    fn new(tag: Tag<'_>) -> Self {
        let Tag { strength, opaque } = tag;
        let mut bytes = [0; SHORT_TAG];
        Self(match bytes.get_mut(..opaque.len()) {
            Some(front) => {
                front.copy_from_slice(opaque);
                Kept::Short {
                    strength,
                    length: opaque.len() as u8,
                    bytes,
                }
            }
            None => Kept::Long {
                strength,
                opaque: opaque.into(),
            },
        })
    }

    fn strength(&self) -> Strength {
        match self.0 {
            Kept::Short { strength, .. } | Kept::Long { strength, .. } => strength,
        }
    }

    fn opaque(&self) -> &[u8] {
        match &self.0 {
            Kept::Short { length, bytes, .. } => bytes.get(..usize::from(*length)).unwrap_or(bytes),
            Kept::Long { opaque, .. } => opaque,
        }
    }

    fn heap_size(&self) -> usize {
        match &self.0 {
            Kept::Short { .. } => 0,
            Kept::Long { opaque, .. } => opaque.len(),
        }
    }

    pub fn is_strong(&self) -> bool {
        self.strength() == Strength::Strong
    }

    /// As it stands in a field.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self.strength() {
            Strength::Weak => [b"W/", self.opaque()].concat(),
            Strength::Strong | Strength::Foreign => self.opaque().to_vec(),
        }
    }

    /// Strong comparison (RFC 9110 §8.8.3.2).
    pub fn is_strongly(&self, other: &Self) -> bool {
        self.is_strong() && other.is_strong() && self.opaque() == other.opaque()
    }

    /// Weak comparison (RFC 9110 §8.8.3.2).
    pub fn is_weakly(&self, other: &Self) -> bool {
        self.opaque() == other.opaque()
    }

    fn is_weakly_tag(&self, other: &Tag<'_>) -> bool {
        self.opaque() == other.opaque
    }
}

/// An entity tag in a list.
struct Tag<'a> {
    strength: Strength,
    opaque: &'a [u8],
}

/// The first member of a list of entity tags, and what follows it. Tags may hold commas.
fn next_tag(list: &[u8]) -> Option<(Tag<'_>, &[u8])> {
    let mut list = list;
    while let [b',' | b' ' | b'\t', rest @ ..] = list {
        list = rest;
    }
    if list.is_empty() {
        return None;
    }
    let (strength, quoted) = match list.strip_prefix(b"W/") {
        Some(rest) => (Strength::Weak, rest),
        None => (Strength::Strong, list),
    };
    if let [b'"', inner @ ..] = quoted
        && let Some(length) = inner.iter().position(|b| *b == b'"')
    {
        let (opaque, rest) = quoted.split_at(length + 2);
        let rest = rest.trim_ascii_start();
        if rest.is_empty() || rest.starts_with(b",") {
            return Some((Tag { strength, opaque }, rest));
        }
    }
    let end = list.iter().position(|b| *b == b',').unwrap_or(list.len());
    let (foreign, rest) = list.split_at(end);
    let tag = Tag {
        strength: Strength::Foreign,
        opaque: foreign.trim_ascii_end(),
    };
    Some((tag, rest))
}

/// What a stored response can be validated with (RFC 9110 §8.8).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Validators {
    pub etag: Option<EntityTag>,
    pub last_modified: Option<LastModified>,
}

/// `Last-Modified` (RFC 9110 §8.8.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastModified(
    /// One more than twice the milliseconds since 1970, plus one if it is strong: an `Option` of it takes 8 bytes.
    NonZeroU64,
);

impl LastModified {
    /// `date`: the response's `Date`. No HTTP-date is so late that its milliseconds would not fit in 63 bits.
    fn new(time: Timestamp, date: Option<Timestamp>) -> Self {
        let strong = date.is_some_and(|date| date > time);
        let packed = time.as_millis() << 1 | u64::from(strong);
        Self(NonZeroU64::MIN.saturating_add(packed))
    }

    pub fn time(self) -> Timestamp {
        Timestamp::from_millis(self.packed() >> 1)
    }

    /// Whether it lies at least a second before the response's `Date`, so that nothing can have changed unnoticed in between
    /// (RFC 9110 §8.8.2.2).
    pub fn is_strong(self) -> bool {
        self.packed() & 1 == 1
    }

    fn packed(self) -> u64 {
        self.0.get() - 1
    }
}

impl Validators {
    pub fn of(response: &Fields, received: Timestamp) -> Self {
        let last_modified =
            last_modified(response, received).map(|time| LastModified::new(time, date(response, received)));
        Self {
            etag: EntityTag::of(response),
            last_modified,
        }
    }

    /// Whether there is any.
    pub fn any(&self) -> bool {
        self.etag.is_some() || self.last_modified.is_some()
    }

    pub fn heap_size(&self) -> usize {
        self.etag.as_ref().map_or(0, EntityTag::heap_size)
    }

    /// Whether `If-Range` names exactly this representation (RFC 9110 §13.1.5): a strong comparison, or the very date where
    /// that is a strong validator.
    pub fn if_range_holds(&self, value: &[u8], now: Timestamp) -> bool {
        let value = value.trim_ascii();
        if let Some(time) = parse_http_date(value, now) {
            return self
                .last_modified
                .is_some_and(|known| known.is_strong() && known.time() == time);
        }
        match (&self.etag, next_tag(value)) {
            (Some(etag), Some((tag, []))) => {
                etag.is_strong() && tag.strength == Strength::Strong && etag.is_weakly_tag(&tag)
            }
            _ => false,
        }
    }
}

/// What a client's condition comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCondition {
    /// Send the stored response.
    Send,
    /// Answer 304 with what [`keep_for_not_modified`] leaves.
    NotModified,
}

/// Evaluates `If-None-Match`, else `If-Modified-Since` against a response that is about to answer (RFC 9111 §4.3.2, RFC 9110
/// §13.2.2). Allocates nothing.
pub fn evaluate(request: &RequestHead, stored: &StoredMeta) -> ClientCondition {
    // RFC 9110 §13.2.1: conditions matter only where the answer would otherwise be a success.
    if !(200..300).contains(&stored.status) || (request.method != Method::GET && request.method != Method::HEAD) {
        return ClientCondition::Send;
    }
    let not_modified = if request.fields.contains("if-none-match") {
        none_match_names(&request.fields, &stored.validators)
    } else {
        unmodified_since(&request.fields, stored)
    };
    if not_modified {
        ClientCondition::NotModified
    } else {
        ClientCondition::Send
    }
}

/// RFC 9110 §13.1.2: `*`, or one of the tags by weak comparison.
fn none_match_names(request: &Fields, validators: &Validators) -> bool {
    for line in request.get_all("if-none-match") {
        if line.trim_ascii() == b"*" {
            return true;
        }
        let Some(etag) = &validators.etag else {
            continue;
        };
        let mut rest = line;
        while let Some((tag, behind)) = next_tag(rest) {
            if etag.is_weakly_tag(&tag) {
                return true;
            }
            rest = behind;
        }
    }
    false
}

/// RFC 9110 §13.1.3; without `Last-Modified` it is `Date` that counts, or the time of receipt (RFC 9111 §4.3.2).
fn unmodified_since(request: &Fields, stored: &StoredMeta) -> bool {
    let mut lines = request.get_all("if-modified-since");
    let Some(since) = lines.next().and_then(|line| parse_http_date(line, stored.received)) else {
        return false;
    };
    if lines.next().is_some() {
        return false;
    }
    let modified = match stored.validators.last_modified {
        Some(known) => known.time(),
        None => stored.date,
    };
    modified.as_secs() <= since.as_secs()
}

/// Metadata of a representation that guides no cache.
static METADATA: FieldNames = FieldNames::new(&[
    FieldName::new("content-type"),
    FieldName::new("content-encoding"),
    FieldName::new("content-language"),
    FieldName::new("content-range"),
    FieldName::new("content-md5"),
    FieldName::new("content-digest"),
    FieldName::new("content-disposition"),
    FieldName::new("accept-ranges"),
]);

/// Leaves of a stored response's fields those of a 304 that the store answers with (RFC 9110 §15.4.5): no metadata of the
/// representation but what guides caches.
pub fn keep_for_not_modified(stored: &mut impl Lines) {
    stored.remove_all(&METADATA);
    if stored.contains("etag") {
        stored.remove("last-modified");
    }
}

/// Turns a client's request into one that asks whether stored responses still hold (RFC 9111 §4.3.1). `stored` are those that
/// the answer may select: one, or all variants where none matched. The client's own conditions are left to
/// [`evaluate`] after the answer.
pub fn make_conditional<'a>(request: &mut Fields, stored: impl IntoIterator<Item = (&'a StoredMeta, &'a Fields)>) {
    request.retain(|name, _| {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        !is("if-none-match") && !is("if-modified-since") && !is("if-range")
    });
    let mut tags: Vec<Vec<u8>> = Vec::new();
    let mut modified = None;
    let mut count = 0;
    let mut partial = false;
    for (meta, fields) in stored {
        count += 1;
        partial |= meta.partial().is_some();
        if let Some(etag) = &meta.validators.etag {
            let tag = etag.to_bytes();
            if !tags.contains(&tag) {
                tags.push(tag);
            }
        }
        if meta.validators.last_modified.is_some() {
            modified = fields.get("last-modified");
        }
    }
    // What is asked about is the whole; a part of it is cut out afterwards.
    if !partial {
        request.remove("range");
    }
    if !tags.is_empty() {
        request.set("If-None-Match", tags.join(&b", "[..]));
    }
    // A date cannot tell several variants apart.
    if let (1, Some(modified)) = (count, modified) {
        request.set("If-Modified-Since", modified);
    }
}

/// Which of the stored responses that were asked about a 304 is about (RFC 9111 §4.3.4). Empty: none; the request is repeated
/// without conditions.
pub fn selected_by_304<'a, T>(
    stored: impl IntoIterator<Item = (T, &'a StoredMeta)>,
    not_modified: &Fields,
    received: Timestamp,
) -> Vec<T> {
    let answer = Validators::of(not_modified, received);
    let candidates: Vec<(T, &StoredMeta)> = stored.into_iter().collect();
    let only = candidates.len() == 1;
    let strong = answer.etag.as_ref().filter(|etag| etag.is_strong());
    if let Some(etag) = strong {
        let same = |meta: &StoredMeta| {
            meta.validators
                .etag
                .as_ref()
                .is_some_and(|known| known.is_strongly(etag))
        };
        return candidates
            .into_iter()
            .filter(|(_, meta)| same(meta))
            .map(|(item, _)| item)
            .collect();
    }
    if answer.any() {
        // Weak: the most recent of those that have it.
        let same = |meta: &StoredMeta| match &answer.etag {
            Some(etag) => meta.validators.etag.as_ref().is_some_and(|known| known.is_weakly(etag)),
            None => {
                let time = |validators: &Validators| validators.last_modified.map(LastModified::time);
                time(&meta.validators) == time(&answer)
            }
        };
        let newest = candidates
            .into_iter()
            .filter(|(_, meta)| same(meta))
            .max_by_key(|(_, meta)| (meta.date, meta.received));
        return newest.into_iter().map(|(item, _)| item).collect();
    }
    // It names none: then it can only be about the one that it was asked about.
    if only {
        candidates.into_iter().map(|(item, _)| item).collect()
    } else {
        Vec::new()
    }
}

/// Fields of a 304, or of another response that updates a stored one, which do not replace stored ones (RFC 9111 §3.2): those
/// that describe how the stored bytes are to be read.
const NOT_UPDATED: [&str; 4] = [
    "content-length",
    "content-encoding",
    "content-range",
    "transfer-encoding",
];

/// The stored fields with those of a newer response put in their place (RFC 9111 §3.2).
pub fn updated_fields(stored: &Fields, newer: &Fields) -> Fields {
    let replaces = |name: &str| {
        !NOT_UPDATED.iter().any(|known| name.eq_ignore_ascii_case(known)) && !newer.has_token("connection", name)
    };
    let mut fields = Fields::with_capacity(stored.len() + newer.len(), 0);
    for (name, value) in stored.iter() {
        // A Date that the newer response lacks would make it look older than it is; it gets that of its arrival.
        let outdated = name.eq_ignore_ascii_case("date");
        if !(outdated || newer.contains(name) && replaces(name)) {
            fields.push(name, value);
        }
    }
    for (name, value) in newer.iter() {
        if replaces(name) {
            fields.push(name, value);
        }
    }
    fields
}

/// What a 304 has made of a stored response.
#[derive(Debug)]
pub enum Freshened {
    /// Store this with the same body: in its place where the variant key is the same, else beside it.
    Store(Box<Accepted>),
    /// Answer this request with these fields, but leave the stored response as it is: the newer fields are for this client.
    Leave(Fields, Unstorable),
    /// Answer with these fields, and remove the stored response: the origin no longer lets it be stored.
    Remove(Fields, Unstorable),
}

/// Freshens a stored response that [`selected_by_304`] has chosen (RFC 9111 §4.3.4). A `Vary` that has changed is read anew
/// against this request.
pub fn freshen(
    request: &RequestHead,
    stored: &StoredMeta,
    stored_fields: &Fields,
    not_modified: &ResponseHead,
    times: Times,
    policy: &StorePolicy<'_>,
) -> Freshened {
    let fields = updated_fields(stored_fields, &not_modified.fields);
    // Whether it holds is what counts: a 206 that is freshened is not a new one.
    let status = if stored.partial().is_some() { 200 } else { stored.status };
    match assess(request, status, &fields, times, policy) {
        Storable::Yes(mut accepted) => {
            accepted.meta.status = stored.status;
            accepted.meta.set_partial(stored.partial().copied());
            Freshened::Store(accepted)
        }
        Storable::No(reason) => {
            let mut shown = fields;
            shown.retain(|name, _| !not_modified.fields.has_token("connection", name));
            // A cookie that comes with a 304 is for this client, and no reason to drop what is stored.
            if reason.is_about_request() || reason == Unstorable::SetCookie {
                Freshened::Leave(shown, reason)
            } else {
                Freshened::Remove(shown, reason)
            }
        }
    }
}

/// What a response to HEAD means for the stored response to GET (RFC 9111 §4.3.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadEffect {
    /// It is the same representation: update the stored fields as with a 304.
    Freshen,
    /// It is another one: the stored response is stale from now on.
    Invalidate,
    Nothing,
}

/// See [`HeadEffect`]. `length` is that of the stored representation, if known.
pub fn head_effect(stored: &StoredMeta, length: Option<u64>, head: &ResponseHead, received: Timestamp) -> HeadEffect {
    if head.status != 200 || !matches!(stored.status, 200 | 206) {
        let gone = (300..500).contains(&head.status) && !matches!(head.status, 304 | 401 | 407 | 408 | 412 | 429);
        return if gone && head.status != stored.status {
            HeadEffect::Invalidate
        } else {
            HeadEffect::Nothing
        };
    }
    let told = Validators::of(&head.fields, received);
    let same_tag = match (&told.etag, &stored.validators.etag) {
        (Some(told), Some(known)) => told == known,
        (None, _) => true,
        (Some(_), None) => false,
    };
    let same_date = match (told.last_modified, stored.validators.last_modified) {
        (Some(told), Some(known)) => told.time() == known.time(),
        (None, _) => true,
        (Some(_), None) => false,
    };
    let same_length = match (head.declared_length, length) {
        (Some(told), Some(known)) => told == known,
        _ => true,
    };
    if same_tag && same_date && same_length {
        HeadEffect::Freshen
    } else {
        HeadEffect::Invalidate
    }
}

#[cfg(test)]
mod tests;
