//! Bodies that clients have, and that later ones can be compressed against (RFC 9842).
//!
//! A dictionary is found by the digest of its bytes, which the client names. It stays when its response has gone from the cache: the version
//! before is of use just when nobody asks for it any more. What was not used for the longest goes first; what is purged goes with its
//! response.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::RwLock;

use super::epochs::{Epochs, Since, Subject};
use crate::key::CacheKey;
use crate::message::Fields;
use crate::rfc9111::labels::Label;
use crate::transform::dictionary::{Digest, Offer};

/// Bytes that one takes beside its body, key and labels, about.
const OVERHEAD: u64 = 512;

/// A dictionary takes at most this part of the room, so that there is always another one.
const LARGEST_PART: u64 = 2;

/// One dictionary.
#[derive(Debug)]
pub struct Dictionary {
    pub digest: Digest,
    pub body: Bytes,
    offer: Offer,
    key: CacheKey,
    route: Arc<str>,
    labels: Box<[Label]>,
    /// The last purge that there had been when the response was asked for.
    began: u64,
    /// When it was used last, as the store counts.
    used: AtomicU64,
}

/// The response that a dictionary is the body of.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    pub subject: Subject<'a>,
    pub began: u64,
}

impl Dictionary {
    pub fn new(digest: Digest, body: Bytes, offer: Offer, source: Source<'_>) -> Self {
        let Source {
            subject: Subject { key, route, labels },
            began,
        } = source;
        Self {
            digest,
            body,
            offer,
            key: key.clone(),
            route: route.into(),
            labels: labels.into(),
            began,
            used: AtomicU64::new(0),
        }
    }

    /// Whether it may be used for the response to this request, whose target is in normal form and whose key this is.
    pub fn fits(&self, key: &CacheKey, target: &str, request: &Fields) -> bool {
        is_same_origin(&self.key, key) && self.offer.fits(target, request)
    }

    fn size(&self) -> u64 {
        let labels = size_of_val(&*self.labels) as u64;
        self.body.len() as u64 + self.key.as_bytes().len() as u64 + labels + OVERHEAD
    }

    fn is_purged(&self, epochs: &Epochs) -> bool {
        let subject = Subject {
            key: &self.key,
            route: &self.route,
            labels: &self.labels,
        };
        epochs.since(self.began, subject) == Since::Purged
    }
}

/// Whether both are of the same scheme, host and port (RFC 9842 §9.3.1), and of the same values of whatever else is in their keys: there
/// stands what proxies say of the origin.
fn is_same_origin(one: &CacheKey, other: &CacheKey) -> bool {
    let rest = |key: &CacheKey| key.as_bytes().get(key.uri().len()..).map(<[u8]>::to_vec);
    match (one.parsed_uri(), other.parsed_uri()) {
        (Some(a), Some(b)) => (a.scheme, a.authority) == (b.scheme, b.authority) && rest(one) == rest(other),
        _ => false,
    }
}

/// All dictionaries, within their room.
#[derive(Debug)]
pub struct Dictionaries {
    known: RwLock<Known>,
    uses: AtomicU64,
    room: u64,
}

#[derive(Debug, Default)]
struct Known {
    by_digest: HashMap<Digest, Arc<Dictionary>>,
    bytes: u64,
}

impl Dictionaries {
    /// `room`: bytes for all of them.
    pub fn new(room: u64) -> Self {
        Self {
            known: RwLock::default(),
            uses: AtomicU64::new(0),
            room,
        }
    }

    /// Bytes of the largest body that is kept.
    pub fn largest(&self) -> u64 {
        (self.room / LARGEST_PART).saturating_sub(OVERHEAD)
    }

    /// Bytes that they take.
    pub fn bytes(&self) -> u64 {
        self.known.read().bytes
    }

    /// Keeps a dictionary, in the place of one with the same bytes. Others may have to go for it.
    pub fn add(&self, dictionary: Dictionary) {
        let size = dictionary.size();
        if size > self.room / LARGEST_PART {
            return;
        }
        self.touch(&dictionary);
        let mut known = self.known.write();
        known.remove(&dictionary.digest);
        while known.bytes + size > self.room {
            let oldest = known
                .by_digest
                .values()
                .min_by_key(|kept| kept.used.load(Ordering::Relaxed))
                .map(|kept| kept.digest);
            match oldest {
                Some(oldest) => known.remove(&oldest),
                None => break,
            }
        }
        known.bytes += size;
        known.by_digest.insert(dictionary.digest, Arc::new(dictionary));
    }

    /// The dictionary with these bytes. `None`: it is not there, or has been purged.
    pub fn find(&self, digest: &Digest, epochs: &Epochs) -> Option<Arc<Dictionary>> {
        let dictionary = self.known.read().by_digest.get(digest)?.clone();
        if dictionary.is_purged(epochs) {
            let mut known = self.known.write();
            // Another may have come in its place.
            if known
                .by_digest
                .get(digest)
                .is_some_and(|kept| Arc::ptr_eq(kept, &dictionary))
            {
                known.remove(digest);
            }
            return None;
        }
        self.touch(&dictionary);
        Some(dictionary)
    }

    fn touch(&self, dictionary: &Dictionary) {
        let use_number = self.uses.fetch_add(1, Ordering::Relaxed);
        dictionary.used.store(use_number, Ordering::Relaxed);
    }
}

impl Known {
    fn remove(&mut self, digest: &Digest) {
        if let Some(gone) = self.by_digest.remove(digest) {
            self.bytes -= gone.size();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::epochs::{Scope, UriHash};
    use crate::cache::purge::How;
    use crate::key::QueryOptions;
    use crate::message::Scheme;
    use crate::rfc9111::date::Timestamp;
    use crate::rfc9111::invalidation::ResourceUri;

    fn key(scheme: Scheme, authority: &str, target: &str) -> CacheKey {
        let uri = ResourceUri {
            scheme,
            authority: authority.into(),
            target: target.into(),
        };
        CacheKey::of_uri(&uri, &QueryOptions::default())
    }

    fn dictionary(number: u8, length: usize, labels: &[Label]) -> Dictionary {
        let key = key(Scheme::Https, "example.org", "/app.v1.js");
        let mut fields = Fields::new();
        fields.push("Use-As-Dictionary", "match=\"/app.*.js\"");
        let offer = Offer::of(&fields, key.parsed_uri().unwrap()).unwrap();
        let subject = Subject {
            key: &key,
            route: "assets",
            labels,
        };
        Dictionary::new(
            [number; 32],
            vec![0; length].into(),
            offer,
            Source { subject, began: 0 },
        )
    }

    #[test]
    fn there_is_room_for_what_is_used() {
        let store = Dictionaries::new(4_000);
        let epochs = Epochs::default();
        for number in 0..3 {
            store.add(dictionary(number, 700, &[]));
        }
        assert!(store.find(&[0; 32], &epochs).is_some());
        // The one that was not used for the longest goes.
        store.add(dictionary(3, 700, &[]));
        assert!(store.bytes() <= 4_000);
        let there: Vec<bool> = (0..4)
            .map(|number| store.find(&[number; 32], &epochs).is_some())
            .collect();
        assert_eq!(there, [true, false, true, true]);
        // The same bytes once more take no more room.
        let before = store.bytes();
        store.add(dictionary(3, 700, &[]));
        assert_eq!(store.bytes(), before);
        store.add(dictionary(9, 2_000, &[]));
        assert!(store.find(&[9; 32], &epochs).is_none());
    }

    #[test]
    fn what_is_purged_is_no_dictionary_any_more() {
        let label = Label::tag(b"assets");
        for scope in [
            Scope::Uris(vec![UriHash::of(&key(Scheme::Https, "example.org", "/app.v1.js"))]),
            Scope::Labels(vec![label]),
        ] {
            let store = Dictionaries::new(10_000);
            let epochs = Epochs::default();
            store.add(dictionary(1, 100, &[label]));
            epochs.note(
                Scope::Labels(vec![Label::tag(b"x")]),
                How::Hard,
                Timestamp::from_secs(1),
            );
            epochs.note(scope.clone(), How::Soft, Timestamp::from_secs(1));
            assert!(store.find(&[1; 32], &epochs).is_some());
            epochs.note(scope, How::Hard, Timestamp::from_secs(1));
            assert!(store.find(&[1; 32], &epochs).is_none());
            assert_eq!(store.bytes(), 0);
        }
    }

    #[test]
    fn rfc9842_9_3_1_a_dictionary_is_for_its_own_origin() {
        let dictionary = dictionary(1, 100, &[]);
        let fits = |key: &CacheKey| dictionary.fits(key, "/app.v2.js", &Fields::new());
        assert!(fits(&key(Scheme::Https, "example.org", "/app.v2.js")));
        assert!(!fits(&key(Scheme::Http, "example.org", "/app.v2.js")));
        assert!(!fits(&key(Scheme::Https, "example.com", "/app.v2.js")));
        assert!(!fits(&key(Scheme::Https, "example.org:8443", "/app.v2.js")));
        // What a proxy in front says of the origin stands behind the URI.
        let plain = key(Scheme::Https, "example.org", "/app.v2.js");
        let bytes = [plain.as_bytes(), b"X-Forwarded-Host"].concat();
        assert!(!fits(&CacheKey::from_bytes(&bytes, plain.uri().len())));
    }
}
