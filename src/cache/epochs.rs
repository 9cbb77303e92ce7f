//! Which purges there have been, so that nothing from before one is stored or served behind it.
//!
//! Every purge has a number, higher than those before it. A fetch remembers the number of the last purge that it has seen, a
//! stored response with labels the last one that it was compared with; whether one of those since then is about it is looked up here. So a
//! purge of a label costs the same however many responses have it. What is remembered is bounded: what is forgotten counts as purged.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use xxhash_rust::xxh3::xxh3_64;

use super::purge::{How, Pattern};
use crate::key::CacheKey;
use crate::rfc9111::date::Timestamp;
use crate::rfc9111::labels::Label;

/// Labels, and URIs, of which the last purge is remembered: some 12 MiB of each at most. Beyond them half is forgotten, the oldest first.
const MAX_MARKS: usize = 1 << 17;

/// Purges by pattern that are remembered.
const MAX_PATTERNS: usize = 1024;

/// A URI's key in one form (see [`CacheKey::uri`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UriHash(u64);

impl UriHash {
    pub fn of(key: &CacheKey) -> Self {
        Self(xxh3_64(key.uri()))
    }
}

/// What one purge is about.
#[derive(Debug, Clone)]
pub enum Scope {
    Uris(Vec<UriHash>),
    Labels(Vec<Label>),
    Pattern(Pattern),
}

/// What is known of a response when it is asked whether it has been purged.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    pub key: &'a CacheKey,
    /// The name of the route that stores it.
    pub route: &'a str,
    pub labels: &'a [Label],
}

/// What has happened to a response since a purge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    Nothing,
    /// It is stale since then.
    Outdated(Timestamp),
    Purged,
}

/// The purges by their numbers.
#[derive(Debug, Default)]
pub struct Epochs {
    /// The last of all.
    last: AtomicU64,
    /// The last of labels, or that concerns them for another reason.
    last_of_labels: AtomicU64,
    notes: RwLock<Notes>,
}

#[derive(Debug, Default)]
struct Notes {
    uris: Marks<UriHash>,
    labels: Marks<Label>,
    patterns: VecDeque<ByPattern>,
    /// The last purge by pattern.
    last_pattern: u64,
    /// Purges by pattern up to this one have been forgotten, or were about everything.
    patterns_floor: u64,
}

#[derive(Debug)]
struct ByPattern {
    number: u64,
    pattern: Pattern,
    how: How,
    at: Timestamp,
}

/// The last purges of single things.
#[derive(Debug)]
struct Marks<K> {
    marks: HashMap<K, Mark>,
    /// Purges up to this one have been forgotten.
    floor: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    hard: u64,
    soft: u64,
    soft_at: Timestamp,
}

impl<K> Default for Marks<K> {
    fn default() -> Self {
        Self {
            marks: HashMap::new(),
            floor: 0,
        }
    }
}

impl<K: std::hash::Hash + Eq> Marks<K> {
    fn note(&mut self, thing: K, number: u64, how: How, at: Timestamp) {
        if self.marks.len() >= MAX_MARKS && !self.marks.contains_key(&thing) {
            self.forget_half();
        }
        let mark = self.marks.entry(thing).or_default();
        match how {
            How::Hard => mark.hard = mark.hard.max(number),
            How::Soft => (mark.soft, mark.soft_at) = (mark.soft.max(number), mark.soft_at.max(at)),
        }
    }

    fn forget_half(&mut self) {
        let mut numbers: Vec<u64> = self.marks.values().map(|mark| mark.hard.max(mark.soft)).collect();
        let middle = numbers.len() / 2;
        let (_, middle, _) = numbers.select_nth_unstable(middle);
        let middle = *middle;
        self.marks.retain(|_, mark| mark.hard.max(mark.soft) > middle);
        self.floor = self.floor.max(middle);
    }

    fn last(&self, thing: &K) -> u64 {
        let mark = self.marks.get(thing).copied().unwrap_or_default();
        mark.hard.max(mark.soft).max(self.floor)
    }

    fn since(&self, thing: &K, number: u64) -> Since {
        let mark = self.marks.get(thing).copied().unwrap_or_default();
        if number < self.floor || number < mark.hard {
            Since::Purged
        } else if number < mark.soft {
            Since::Outdated(mark.soft_at)
        } else {
            Since::Nothing
        }
    }
}

impl Since {
    /// The worse of two; of two times when it became stale the earlier.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Purged, _) | (_, Self::Purged) => Self::Purged,
            (Self::Outdated(one), Self::Outdated(other)) => Self::Outdated(one.min(other)),
            (Self::Outdated(at), Self::Nothing) | (Self::Nothing, Self::Outdated(at)) => Self::Outdated(at),
            (Self::Nothing, Self::Nothing) => Self::Nothing,
        }
    }
}

impl Epochs {
    /// The number of the last purge. Whoever is about to fetch remembers it.
    pub fn last(&self) -> u64 {
        self.last.load(Ordering::Acquire)
    }

    /// Notes a purge behind all others; answers its number. To be called before what is stored is removed.
    pub fn note(&self, scope: Scope, how: How, at: Timestamp) -> u64 {
        let mut notes = self.notes.write();
        let number = self.last.load(Ordering::Relaxed) + 1;
        self.enter(&mut notes, number, scope, how, at);
        number
    }

    /// Notes a purge that has a number already.
    pub fn note_as(&self, number: u64, scope: Scope, how: How, at: Timestamp) {
        self.enter(&mut self.notes.write(), number, scope, how, at);
    }

    /// Whatever is from before this purge, or this one itself, has been purged.
    pub fn forget_until(&self, number: u64) {
        let mut notes = self.notes.write();
        notes.patterns_floor = notes.patterns_floor.max(number);
        notes.last_pattern = notes.last_pattern.max(number);
        self.count(number, true);
    }

    fn enter(&self, notes: &mut Notes, number: u64, scope: Scope, how: How, at: Timestamp) {
        let mut labelled = false;
        match scope {
            Scope::Uris(uris) => {
                for uri in uris {
                    notes.uris.note(uri, number, how, at);
                }
            }
            Scope::Labels(labels) => {
                labelled = true;
                for label in labels {
                    notes.labels.note(label, number, how, at);
                }
            }
            Scope::Pattern(Pattern::Everything) if how == How::Hard => {
                // Nothing from before can come back, so nothing from before has to be remembered.
                notes.patterns_floor = notes.patterns_floor.max(number);
                notes.last_pattern = notes.last_pattern.max(number);
                notes.patterns.retain(|by| by.number > number);
            }
            Scope::Pattern(pattern) => {
                if notes.patterns.len() >= MAX_PATTERNS
                    && let Some(oldest) = notes.patterns.pop_front()
                {
                    notes.patterns_floor = notes.patterns_floor.max(oldest.number);
                }
                notes.last_pattern = notes.last_pattern.max(number);
                let by = ByPattern {
                    number,
                    pattern,
                    how,
                    at,
                };
                notes.patterns.push_back(by);
            }
        }
        self.count(number, labelled);
    }

    /// Last of all, so that who has seen the number has all that it stands for before it.
    fn count(&self, number: u64, labelled: bool) {
        if labelled {
            self.last_of_labels.fetch_max(number, Ordering::AcqRel);
        }
        self.last.fetch_max(number, Ordering::AcqRel);
    }

    /// The last purge that is about a key whatever labels its responses have. Requests from before and from after it do not share a fetch.
    pub fn of_key(&self, key: &CacheKey) -> u64 {
        if self.last() == 0 {
            return 0;
        }
        let notes = self.notes.read();
        notes.uris.last(&UriHash::of(key)).max(notes.last_pattern)
    }

    /// The last purge that is about one of these labels.
    pub fn of_labels(&self, labels: &[Label]) -> u64 {
        let notes = self.notes.read();
        labels
            .iter()
            .map(|label| notes.labels.last(label))
            .max()
            .unwrap_or_default()
    }

    /// Whether labels that were compared with all purges up to `seen` have to be again.
    #[inline]
    pub fn concerns_labels(&self, seen: u64) -> bool {
        seen < self.last_of_labels.load(Ordering::Acquire)
    }

    /// What has happened since the purge of that number to whatever has these labels.
    pub fn labels_since(&self, number: u64, labels: &[Label]) -> Since {
        self.notes.read().labels_since(number, labels)
    }

    /// What has happened since the purge of that number to a response.
    pub fn since(&self, number: u64, subject: Subject<'_>) -> Since {
        if self.last() <= number {
            return Since::Nothing;
        }
        let notes = self.notes.read();
        if number < notes.patterns_floor {
            return Since::Purged;
        }
        let of_uri = notes.uris.since(&UriHash::of(subject.key), number);
        let since = of_uri.and(notes.labels_since(number, subject.labels));
        let later = notes.patterns.iter().filter(|by| by.number > number);
        later.fold(since, |since, by| {
            match (since, by.pattern.covers(subject.key.uri(), subject.route)) {
                (Since::Purged, _) | (_, false) => since,
                (_, true) => since.and(match by.how {
                    How::Hard => Since::Purged,
                    How::Soft => Since::Outdated(by.at),
                }),
            }
        })
    }
}

impl Notes {
    fn labels_since(&self, number: u64, labels: &[Label]) -> Since {
        let each = labels.iter().map(|label| self.labels.since(label, number));
        each.fold(Since::Nothing, Since::and)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::QueryOptions;
    use crate::message::Scheme;
    use crate::rfc9111::invalidation::ResourceUri;

    const AT: Timestamp = Timestamp::from_secs(7);

    fn key(target: &str) -> CacheKey {
        let uri = ResourceUri {
            scheme: Scheme::Http,
            authority: "example.org".into(),
            target: target.into(),
        };
        CacheKey::of_uri(&uri, &QueryOptions::default())
    }

    fn since(epochs: &Epochs, number: u64, key: &CacheKey, labels: &[Label]) -> Since {
        let route = "site";
        epochs.since(number, Subject { key, route, labels })
    }

    #[test]
    fn what_began_before_a_purge_is_purged_and_nothing_else() {
        let epochs = Epochs::default();
        let (a, b) = (key("/a"), key("/b"));
        let label = [Label::tag(b"a")];
        let before = epochs.last();
        let uri = epochs.note(Scope::Uris(vec![UriHash::of(&a)]), How::Hard, AT);
        assert_eq!(since(&epochs, before, &a, &[]), Since::Purged);
        assert_eq!(since(&epochs, before, &b, &label), Since::Nothing);
        assert_eq!(since(&epochs, uri, &a, &[]), Since::Nothing);
        assert_eq!((epochs.of_key(&a), epochs.of_key(&b)), (uri, 0));
        let tag = epochs.note(Scope::Labels(label.to_vec()), How::Hard, AT);
        assert_eq!(since(&epochs, uri, &b, &label), Since::Purged);
        assert_eq!(since(&epochs, uri, &b, &[Label::tag(b"ab")]), Since::Nothing);
        assert_eq!(since(&epochs, tag, &b, &label), Since::Nothing);
        let all = epochs.note(Scope::Pattern(Pattern::Everything), How::Hard, AT);
        assert_eq!(since(&epochs, tag, &b, &[]), Since::Purged);
        assert_eq!(since(&epochs, all, &b, &[]), Since::Nothing);
        assert_eq!(epochs.of_key(&b), all);
    }

    #[test]
    fn a_soft_purge_only_makes_stale() {
        let epochs = Epochs::default();
        let a = key("/a");
        let soft = epochs.note(Scope::Uris(vec![UriHash::of(&a)]), How::Soft, AT);
        assert_eq!(since(&epochs, 0, &a, &[]), Since::Outdated(AT));
        epochs.note(Scope::Pattern(Pattern::Everything), How::Soft, AT);
        assert_eq!(since(&epochs, soft, &a, &[]), Since::Outdated(AT));
        epochs.note(Scope::Uris(vec![UriHash::of(&a)]), How::Hard, AT);
        assert_eq!(since(&epochs, soft, &a, &[]), Since::Purged);
    }

    #[test]
    fn what_is_forgotten_counts_as_purged() {
        let epochs = Epochs::default();
        let a = key("/a");
        let first = epochs.note(Scope::Labels(vec![Label::from_u64(u64::MAX)]), How::Hard, AT);
        let many = (0..MAX_MARKS as u64 + 1).map(Label::from_u64);
        let mut last = 0;
        for label in many {
            last = epochs.note(Scope::Labels(vec![label]), How::Hard, AT);
        }
        let notes = epochs.notes.read();
        assert!(notes.labels.marks.len() <= MAX_MARKS);
        drop(notes);
        // Never named in a purge, but nobody knows any more.
        let other = [Label::tag(b"other")];
        assert_eq!(since(&epochs, first, &a, &other), Since::Purged);
        assert_eq!(since(&epochs, last, &a, &other), Since::Nothing);
        assert_eq!(since(&epochs, first, &a, &[]), Since::Nothing);
        for number in 0..MAX_PATTERNS + 1 {
            epochs.note(Scope::Pattern(Pattern::Host(format!("h{number}"))), How::Soft, AT);
        }
        assert_eq!(since(&epochs, last, &a, &[]), Since::Purged);
        assert_eq!(since(&epochs, last + 1, &a, &[]), Since::Nothing);
    }
}
