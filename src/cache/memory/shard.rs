//! What lookups read: keys and their variants, in tables with a lock each.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::RwLock;

use super::Variants;
use super::index::Index;
use super::nodes::NodeId;
use crate::cache::prefetch::{Lines, will_read};
use crate::key::CacheKey;

/// So many lookups and changes can meet without waiting for each other; it costs 10 KiB.
const SHARD_BITS: u32 = 7;
/// Keys of one shard that can be told apart.
const MAX_INDEX: usize = (1 << (32 - SHARD_BITS)) - 2;

/// Keys of a shard below which what is asked for is in the processor's caches mostly: 2,048 in all, 3 MiB at 1 KiB each. To ask for it
/// ahead would only be a hundred instructions more.
const COLD: usize = 16;

/// Where a key stands: shard and index in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot(NonZeroU32);

impl Slot {
    fn new(shard: usize, index: usize) -> Option<Self> {
        if index > MAX_INDEX {
            return None;
        }
        NonZeroU32::new((index as u32 + 1) << SHARD_BITS | shard as u32).map(Self)
    }

    fn shard(self) -> usize {
        self.0.get() as usize & ((1 << SHARD_BITS) - 1)
    }

    fn index(self) -> usize {
        (self.0.get() >> SHARD_BITS) as usize - 1
    }
}

/// The two parts of a key's hash that are used here.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyHash {
    shard: usize,
    /// Within the shard, and what an order remembers of a key that has gone.
    pub fingerprint: u32,
}

impl KeyHash {
    pub fn of(key: &CacheKey) -> Self {
        let hash = key.hash128();
        Self {
            shard: (hash >> 64) as usize & ((1 << SHARD_BITS) - 1),
            fingerprint: hash as u32,
        }
    }
}

/// What a lookup reads of a key is in one line of the processor's.
#[derive(Debug)]
#[repr(align(64))]
struct Entry {
    key: Box<[u8]>,
    variants: Variants,
    /// Where a hit goes on reading, see [`Variants::lines`].
    lines: [Lines; 2],
    /// See [`super::order`].
    usage: AtomicU32,
    fingerprint: u32,
    uri_length: u32,
    node: NodeId,
}

#[derive(Debug, Default)]
struct Shard {
    /// Of `entries`.
    index: Index,
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
}

impl Shard {
    fn entry(&self, index: usize) -> Option<&Entry> {
        self.entries.get(index)?.as_ref()
    }

    fn find(&self, hash: KeyHash, key: &CacheKey) -> Option<&Entry> {
        let is_it = |index: u32| {
            let entry = self.entry(index as usize);
            entry.is_some_and(|entry| {
                if entry.fingerprint != hash.fingerprint {
                    return false;
                }
                if self.index.keys() >= COLD {
                    // Comparing the keys takes as long as it takes to get there, and is a matter of form.
                    will_read(&*entry.key);
                    entry.variants.will_be_looked_at();
                    entry.lines.into_iter().for_each(Lines::will_be_read);
                }
                *entry.key == *key.as_bytes()
            })
        };
        let index = self.index.find(hash.fingerprint, is_it)?;
        self.entry(index as usize)
    }
}

/// What a key that is there looks like.
#[derive(Debug)]
pub(super) struct Known {
    pub node: NodeId,
    pub variants: Variants,
}

#[derive(Debug)]
pub(super) struct Shards(Box<[RwLock<Shard>]>);

impl Shards {
    pub fn new() -> Self {
        Self((0..1 << SHARD_BITS).map(|_| RwLock::default()).collect())
    }

    /// The variants under a key, and what `used` makes of its usage.
    #[inline]
    pub fn get(&self, key: &CacheKey, used: impl FnOnce(u32) -> u32) -> Option<Variants> {
        let hash = KeyHash::of(key);
        let shard = self.0.get(hash.shard)?.read();
        let entry = shard.find(hash, key)?;
        // Two lookups at once may count as one: that is precise enough, and cheaper than counting both.
        let before = entry.usage.load(Ordering::Relaxed);
        let after = used(before);
        if after != before {
            entry.usage.store(after, Ordering::Relaxed);
        }
        Some(entry.variants.clone())
    }

    pub fn known(&self, key: &CacheKey) -> Option<Known> {
        let hash = KeyHash::of(key);
        let shard = self.0.get(hash.shard)?.read();
        let entry = shard.find(hash, key)?;
        Some(Known {
            node: entry.node,
            variants: entry.variants.clone(),
        })
    }

    /// Usage and fingerprint.
    pub fn usage(&self, slot: Slot) -> Option<(u32, u32)> {
        let shard = self.0.get(slot.shard())?.read();
        let entry = shard.entry(slot.index())?;
        Some((entry.usage.load(Ordering::Relaxed), entry.fingerprint))
    }

    pub fn set_usage(&self, slot: Slot, usage: u32) {
        let Some(shard) = self.0.get(slot.shard()) else { return };
        if let Some(entry) = shard.read().entry(slot.index()) {
            entry.usage.store(usage, Ordering::Relaxed);
        }
    }

    /// The key there.
    pub fn key(&self, slot: Slot) -> Option<CacheKey> {
        let shard = self.0.get(slot.shard())?.read();
        let entry = shard.entry(slot.index())?;
        Some(CacheKey::from_bytes(&entry.key, entry.uri_length as usize))
    }

    /// What is made of the URI and the variants there.
    pub fn with<R>(&self, slot: Slot, make: impl FnOnce(&[u8], &Variants) -> R) -> Option<R> {
        let shard = self.0.get(slot.shard())?.read();
        let entry = shard.entry(slot.index())?;
        let uri = entry.key.get(..entry.uri_length as usize).unwrap_or(&entry.key);
        Some(make(uri, &entry.variants))
    }

    /// Where a key that is not there could stand. Only valid until the next insertion.
    pub fn vacant(&self, hash: KeyHash) -> Option<Slot> {
        let shard = self.0.get(hash.shard)?.read();
        let index = shard.free.last().map_or(shard.entries.len(), |index| *index as usize);
        Slot::new(hash.shard, index)
    }

    /// Puts a key that is not there into its vacant slot.
    pub fn insert(&self, slot: Slot, key: &CacheKey, variants: Variants, node: NodeId, usage: u32) {
        let fingerprint = KeyHash::of(key).fingerprint;
        let entry = Entry {
            key: key.as_bytes().into(),
            lines: variants.lines(),
            variants,
            usage: AtomicU32::new(usage),
            fingerprint,
            uri_length: u32::try_from(key.uri().len()).unwrap_or(u32::MAX),
            node,
        };
        let Some(shard) = self.0.get(slot.shard()) else { return };
        let mut shard = shard.write();
        let Shard {
            index: places,
            entries,
            free,
        } = &mut *shard;
        let index = slot.index();
        match entries.get_mut(index) {
            Some(vacant) => {
                free.pop();
                *vacant = Some(entry);
            }
            None => entries.push(Some(entry)),
        }
        places.insert(fingerprint, index as u32, |index| match entries.get(index as usize) {
            Some(Some(entry)) => entry.fingerprint,
            _ => 0,
        });
    }

    /// Puts other variants under the key there; answers those that it had.
    pub fn exchange(&self, slot: Slot, variants: Variants) -> Option<Variants> {
        let mut shard = self.0.get(slot.shard())?.write();
        let entry = shard.entries.get_mut(slot.index())?.as_mut()?;
        entry.lines = variants.lines();
        Some(std::mem::replace(&mut entry.variants, variants))
    }

    /// Removes the key there. The caller lets go of what is answered when it holds no lock any more.
    pub fn remove(&self, slot: Slot) -> Option<Removed> {
        let mut shard = self.0.get(slot.shard())?.write();
        let index = slot.index();
        let entry = shard.entries.get_mut(index)?.take()?;
        shard.index.remove(entry.fingerprint, index as u32);
        shard.free.push(index as u32);
        Some(Removed {
            key: entry.key,
            uri_length: entry.uri_length as usize,
            variants: entry.variants,
        })
    }
}

/// What has been removed.
#[derive(Debug)]
pub(super) struct Removed {
    key: Box<[u8]>,
    uri_length: usize,
    pub variants: Variants,
}

impl Removed {
    /// The URI of a key that has more than that in it.
    pub fn shared_uri(&self) -> Option<&[u8]> {
        if self.uri_length < self.key.len() {
            self.key.get(..self.uri_length)
        } else {
            None
        }
    }
}
