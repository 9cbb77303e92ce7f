//! Dictionaries (RFC 9842) as bytes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{
    Coded, DICTIONARY, PLAIN, Reader, ZSTD, decoded, head, labels, mark, opened, put, put_labels, put_mark, sealed,
    smaller,
};
use crate::cache::coherence::Mark;
use crate::cache::dictionaries::{Dictionary, Source, origin};
use crate::cache::epochs::Subject;
use crate::cache::recoded::digest;
use crate::key::CacheKey;
use crate::metrics::RedisFault;
use crate::rfc9111::labels::Label;
use crate::transform::dictionary::{Digest, Offer};

/// Makes a dictionary's body smaller where that pays. Takes its time: some milliseconds for a megabyte.
pub fn compress(dictionary: &Dictionary) -> Coded {
    smaller(&dictionary.body)
}

/// A dictionary with its body as coded. `mark`: the last purge that was known when its response was asked for. `None`: too much for the form.
pub fn encode(dictionary: &Dictionary, body: &Coded, mark: Mark) -> Option<Vec<u8>> {
    let key = dictionary.key().as_bytes();
    let (labels, said) = (dictionary.labels(), dictionary.offer().as_bytes());
    let room = 256 + key.len() + 8 * labels.len() + said.len() + body.bytes.len();
    let mut out = head(DICTIONARY, body.coding, 0, Duration::ZERO, room);
    put(&mut out, key)?;
    put_mark(&mut out, mark);
    put_labels(&mut out, labels)?;
    out.extend_from_slice(&u32::try_from(dictionary.key().uri().len()).ok()?.to_le_bytes());
    put(&mut out, dictionary.route().as_bytes())?;
    put(&mut out, said)?;
    out.extend_from_slice(&dictionary.digest);
    out.extend_from_slice(&body.length.to_le_bytes());
    out.extend_from_slice(&body.bytes);
    Some(sealed(out))
}

/// A dictionary that was read, except for its body.
#[derive(Debug)]
pub struct Decoded {
    pub mark: Mark,
    pub key: CacheKey,
    pub route: Arc<str>,
    pub labels: Vec<Label>,
    offer: Offer,
    digest: Digest,
    coding: u8,
    body: Bytes,
    length: usize,
}

/// Reads the dictionary of an origin that has this digest. `largest`: bytes of the largest body that is wanted.
///
/// # Errors
/// Says what is wrong. None of it is of any use then.
pub fn decode(bytes: &Bytes, origin: &[u8], digest: &Digest, largest: u64) -> Result<Decoded, RedisFault> {
    let mut reader = opened(bytes)?;
    read(bytes, &mut reader, origin, digest, largest).unwrap_or(Err(RedisFault::ValueBroken))
}

/// `None`: there is less than there has to be, or more than is wanted.
fn read(
    bytes: &Bytes,
    reader: &mut Reader<'_>,
    wanted_origin: &[u8],
    wanted: &Digest,
    largest: u64,
) -> Option<Result<Decoded, RedisFault>> {
    let (kind, coding) = (reader.u8()?, reader.u8()?);
    let (_at, _age) = (reader.u64()?, reader.u64()?);
    if kind != DICTIONARY {
        return None;
    }
    let key = reader.block()?;
    let mark = mark(reader)?;
    let labels = labels(reader)?;
    let uri_length = usize::try_from(reader.u32()?).ok()?;
    let key = CacheKey::from_bytes(key, uri_length);
    let route = Arc::from(reader.text()?);
    let said = reader.block()?;
    let digest = reader.array::<32>()?;
    // Another origin's, or another one: as bad as another key's.
    if digest != *wanted || origin(&key)? != wanted_origin {
        return Some(Err(RedisFault::ValueKey));
    }
    let offer = Offer::read(said.to_vec(), key.parsed_uri()?)?;
    let length = usize::try_from(reader.u32()?).ok()?;
    let body = bytes.slice(bytes.len() - reader.left()..);
    if length as u64 > largest || !(coding == ZSTD || coding == PLAIN && body.len() == length) {
        return None;
    }
    Some(Ok(Decoded {
        mark,
        key,
        route,
        labels,
        offer,
        digest,
        coding,
        body,
        length,
    }))
}

impl Decoded {
    /// Bytes that have to be gone through for it.
    pub fn work(&self) -> usize {
        self.length
    }

    /// The dictionary itself, whose bytes are those that its digest stands for. `began`: the last purge that was known before it was looked
    /// for. Takes its time.
    ///
    /// # Errors
    /// When the body is not what it was.
    pub fn into_dictionary(self, began: u64) -> Result<Dictionary, RedisFault> {
        let body = decoded(&self.body, self.coding, self.length)?;
        if digest(&body) != self.digest {
            return Err(RedisFault::ValueBroken);
        }
        let subject = Subject {
            key: &self.key,
            route: &self.route,
            labels: &self.labels,
        };
        Ok(Dictionary::new(
            self.digest,
            body,
            self.offer,
            Source { subject, began },
        ))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::key::QueryOptions;
    use crate::message::{Fields, Scheme};
    use crate::rfc9111::invalidation::ResourceUri;

    const MARK: Mark = Mark {
        incarnation: 7,
        number: 9,
    };
    const NO_LIMIT: u64 = u64::MAX;

    fn key(authority: &str) -> CacheKey {
        let uri = ResourceUri {
            scheme: Scheme::Https,
            authority: authority.into(),
            target: "/app.1.js".into(),
        };
        CacheKey::of_uri(&uri, &QueryOptions::default())
    }

    fn dictionary(body: &[u8], key: &CacheKey) -> Dictionary {
        let mut fields = Fields::new();
        fields.push("Use-As-Dictionary", "match=\"/app.*.js\", id=\"x\"");
        let offer = Offer::of(&fields, key.parsed_uri().unwrap()).unwrap();
        let subject = Subject {
            key,
            route: "assets",
            labels: &[Label::tag(b"a"), Label::tag(b"b")],
        };
        Dictionary::new(
            digest(body),
            Bytes::copy_from_slice(body),
            offer,
            Source { subject, began: 3 },
        )
    }

    fn encoded(dictionary: &Dictionary) -> Bytes {
        encode(dictionary, &compress(dictionary), MARK).unwrap().into()
    }

    #[test]
    fn a_dictionary_is_read_for_its_own_origin_and_digest_and_nothing_else() {
        let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(100_000).collect();
        for body in [&b"small"[..], &vec![b'a'; 50_000], &noise] {
            let key = key("example.org");
            let dictionary = dictionary(body, &key);
            let (own, sum) = (origin(&key).unwrap(), digest(body));
            let bytes = encoded(&dictionary);
            assert!(bytes.len() < body.len() + 400);
            let read = decode(&bytes, &own, &sum, NO_LIMIT).unwrap();
            assert_eq!((read.mark, &read.key, &*read.route), (MARK, &key, "assets"));
            assert_eq!(read.key.uri(), key.uri());
            assert_eq!(read.labels, dictionary.labels());
            let read = read.into_dictionary(4).unwrap();
            assert_eq!((&read.body[..], read.offer()), (body, dictionary.offer()));
            let other = origin(&self::key("example.com")).unwrap();
            let faults = [
                (decode(&bytes, &other, &sum, NO_LIMIT), RedisFault::ValueKey),
                (decode(&bytes, &own, &[0; 32], NO_LIMIT), RedisFault::ValueKey),
                (decode(&bytes, &own, &sum, 4), RedisFault::ValueBroken),
            ];
            for (read, fault) in faults {
                assert_eq!(read.unwrap_err(), fault);
            }
            for length in 0..bytes.len().min(400) {
                assert!(decode(&bytes.slice(..length), &own, &sum, NO_LIMIT).is_err());
            }
        }
    }

    #[test]
    fn bytes_that_the_digest_does_not_stand_for_are_refused() {
        let key = key("example.org");
        let right = dictionary(b"right", &key);
        let wrong = dictionary(b"wrong", &key);
        let bytes = encode(&right, &compress(&wrong), MARK).unwrap().into();
        let read = decode(&bytes, &origin(&key).unwrap(), &right.digest, NO_LIMIT).unwrap();
        assert_eq!(read.into_dictionary(0).unwrap_err(), RedisFault::ValueBroken);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let head = [&[0; super::super::SUMMED][..], &[DICTIONARY, ZSTD], &bytes].concat();
            for bytes in [Bytes::from(sealed(head)), bytes.into()] {
                if let Ok(read) = decode(&bytes, b"", &[0; 32], 1000) {
                    let _ = read.into_dictionary(0);
                }
            }
        }
    }
}
