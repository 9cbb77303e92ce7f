//! Bodies that clients have, and that later ones can be compressed against (RFC 9842).
//!
//! A dictionary is found by the digest of its bytes, which the client names. It stays when its response has gone from the cache: the version
//! before is of use just when nobody asks for it any more. What was not used for the longest goes first; what is purged goes with its
//! response. Those that other instances have, or this one had before it was started anew, are found in L2.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_128;

use super::epochs::{Epochs, Since, Subject};
use crate::key::CacheKey;
use crate::message::Fields;
use crate::rfc9111::labels::Label;
use crate::transform::dictionary::{Digest, Offer};

/// Bytes that one takes beside its body, key and labels, about.
const OVERHEAD: u64 = 512;

/// A dictionary takes at most this part of the room, so that there is always another one.
const LARGEST_PART: u64 = 2;

/// For so long L2 is not asked again for a dictionary that it did not have, or has just been asked for by another request.
const ASKED_FOR: Duration = Duration::from_secs(10);

/// Dictionaries that are not asked for again at the same time. Clients choose what they name, so with more nobody asks at all: that many
/// lookups in [`ASKED_FOR`] are all that they can cause.
const MAX_ASKED: usize = 1024;

/// One dictionary.
#[derive(Debug)]
pub struct Dictionary {
    pub digest: Digest,
    pub body: Bytes,
    offer: Offer,
    key: CacheKey,
    route: Arc<str>,
    labels: Box<[Label]>,
    place: u128,
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
            place: origin(key).map_or(0, |origin| place(&origin, &digest)),
            key: key.clone(),
            route: route.into(),
            labels: labels.into(),
            began,
            used: AtomicU64::new(0),
        }
    }

    pub fn key(&self) -> &CacheKey {
        &self.key
    }

    /// The name of the route that has stored its response.
    pub fn route(&self) -> &Arc<str> {
        &self.route
    }

    pub fn labels(&self) -> &[Label] {
        &self.labels
    }

    pub fn offer(&self) -> &Offer {
        &self.offer
    }

    /// Whether it may be used for the response to this request, whose target is in normal form and whose key this is.
    pub fn fits(&self, key: &CacheKey, target: &str, request: &Fields) -> bool {
        let own = origin(&self.key);
        own.is_some() && own == origin(key) && self.offer.fits(target, request)
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

/// What is equal where one response may be a dictionary for another: scheme, host and port (RFC 9842 §9.3.1), and the values of whatever else
/// is in the keys; there stands what proxies say of the origin, and by what clients are told apart. `None`: the key is of another form.
pub fn origin(key: &CacheKey) -> Option<Vec<u8>> {
    let uri = key.parsed_uri()?;
    let rest = key.as_bytes().get(key.uri().len()..)?;
    let mut origin = Vec::with_capacity(uri.scheme.len() + uri.authority.len() + rest.len() + 2);
    // Neither has such a byte.
    for part in [uri.scheme.as_bytes(), uri.authority.as_bytes()] {
        origin.extend_from_slice(part);
        origin.push(0);
    }
    origin.extend_from_slice(rest);
    Some(origin)
}

/// Which dictionary of which origin: a name for maps. Whatever is found by it is looked at once more.
pub fn place(origin: &[u8], digest: &Digest) -> u128 {
    xxh3_128(&[digest, origin].concat())
}

/// All dictionaries, within their room.
#[derive(Debug)]
pub struct Dictionaries {
    known: RwLock<Known>,
    /// Those that L2 has been asked for, and when.
    asked: Mutex<HashMap<u128, Instant>>,
    uses: AtomicU64,
    room: u64,
}

#[derive(Debug, Default)]
struct Known {
    by_place: HashMap<u128, Arc<Dictionary>>,
    bytes: u64,
}

impl Dictionaries {
    /// `room`: bytes for all of them.
    pub fn new(room: u64) -> Self {
        Self {
            known: RwLock::default(),
            asked: Mutex::default(),
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
    pub fn add(&self, dictionary: Arc<Dictionary>) {
        let size = dictionary.size();
        if size > self.room / LARGEST_PART {
            return;
        }
        self.touch(&dictionary);
        let mut known = self.known.write();
        known.remove(dictionary.place);
        while known.bytes + size > self.room {
            let oldest = known
                .by_place
                .values()
                .min_by_key(|kept| kept.used.load(Ordering::Relaxed))
                .map(|kept| kept.place);
            match oldest {
                Some(oldest) => known.remove(oldest),
                None => break,
            }
        }
        known.bytes += size;
        known.by_place.insert(dictionary.place, dictionary);
    }

    /// The dictionary of this origin with this digest, which belong to this place. `None`: it is not there, or has been purged.
    pub fn find(&self, place: u128, digest: &Digest, epochs: &Epochs) -> Option<Arc<Dictionary>> {
        let dictionary = self.known.read().by_place.get(&place)?.clone();
        if dictionary.is_purged(epochs) {
            let mut known = self.known.write();
            // Another may have come in its place.
            if known
                .by_place
                .get(&place)
                .is_some_and(|kept| Arc::ptr_eq(kept, &dictionary))
            {
                known.remove(place);
            }
            return None;
        }
        self.touch(&dictionary);
        (dictionary.digest == *digest).then_some(dictionary)
    }

    /// Whether L2 may be asked for one that is not here: another request has not just done so.
    pub fn may_ask(&self, place: u128, now: Instant) -> bool {
        let asked = self.asked.lock();
        let is_recent = |at: &Instant| now.saturating_duration_since(*at) < ASKED_FOR;
        !asked.get(&place).is_some_and(is_recent) && (asked.len() < MAX_ASKED || !asked.values().all(is_recent))
    }

    /// The same, and notes that L2 is asked now.
    pub fn ask(&self, place: u128, now: Instant) -> bool {
        let mut asked = self.asked.lock();
        asked.retain(|_, at| now.saturating_duration_since(*at) < ASKED_FOR);
        if asked.len() >= MAX_ASKED || asked.contains_key(&place) {
            return false;
        }
        asked.insert(place, now);
        true
    }

    fn touch(&self, dictionary: &Dictionary) {
        let use_number = self.uses.fetch_add(1, Ordering::Relaxed);
        dictionary.used.store(use_number, Ordering::Relaxed);
    }
}

impl Known {
    fn remove(&mut self, place: u128) {
        if let Some(gone) = self.by_place.remove(&place) {
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

    fn find(store: &Dictionaries, number: u8, epochs: &Epochs) -> Option<Arc<Dictionary>> {
        let origin = origin(&key(Scheme::Https, "example.org", "/")).unwrap();
        store.find(place(&origin, &[number; 32]), &[number; 32], epochs)
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
            store.add(dictionary(number, 700, &[]).into());
        }
        assert!(find(&store, 0, &epochs).is_some());
        // The one that was not used for the longest goes.
        store.add(dictionary(3, 700, &[]).into());
        assert!(store.bytes() <= 4_000);
        let there: Vec<bool> = (0..4).map(|number| find(&store, number, &epochs).is_some()).collect();
        assert_eq!(there, [true, false, true, true]);
        // The same bytes once more take no more room.
        let before = store.bytes();
        store.add(dictionary(3, 700, &[]).into());
        assert_eq!(store.bytes(), before);
        store.add(dictionary(9, 2_000, &[]).into());
        assert!(find(&store, 9, &epochs).is_none());
    }

    #[test]
    fn l2_is_asked_once_in_a_while() {
        let store = Dictionaries::new(4_000);
        let now = Instant::now();
        assert!(store.may_ask(1, now) && store.ask(1, now));
        assert!(!store.may_ask(1, now) && !store.ask(1, now));
        let later = now + ASKED_FOR;
        assert!(store.may_ask(1, later) && store.ask(1, later));
        for hash in 2..=MAX_ASKED as u128 {
            assert!(store.ask(hash, later));
        }
        assert!(!store.may_ask(0, later) && !store.ask(0, later));
        assert!(store.may_ask(0, later + ASKED_FOR) && store.ask(0, later + ASKED_FOR));
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
            store.add(dictionary(1, 100, &[label]).into());
            epochs.note(
                Scope::Labels(vec![Label::tag(b"x")]),
                How::Hard,
                Timestamp::from_secs(1),
            );
            epochs.note(scope.clone(), How::Soft, Timestamp::from_secs(1));
            assert!(find(&store, 1, &epochs).is_some());
            epochs.note(scope, How::Hard, Timestamp::from_secs(1));
            assert!(find(&store, 1, &epochs).is_none());
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
