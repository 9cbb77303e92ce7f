//! L1: stored responses in memory, bounded in bytes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};
use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};

use super::Stored;
use crate::key::CacheKey;

/// Variants kept under one key. An origin that varies more does not repeat itself, and each lookup looks at all of them.
pub const MAX_VARIANTS: usize = 64;

/// A guess for the library, which sizes its tables by it; more is no harm.
const USUAL_SIZE: u64 = 4 * 1024;

/// One shard for so many bytes, but no more than a busy machine has use for.
const SHARD_SIZE: u64 = 64 * 1024 * 1024;
const MAX_SHARDS: usize = 64;

/// Changes of one key follow one another; so many different ones can go on at once.
const LOCKS: usize = 64;

/// The variants under one key, most recently stored last. Never changed: a change puts another list in its place, so that a lookup
/// takes no lock.
#[derive(Debug, Default)]
pub struct Variants(Vec<Arc<Stored>>);

impl Variants {
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Stored>> {
        self.0.iter()
    }
}

#[derive(Debug, Clone)]
struct BySize;

impl Weighter<CacheKey, Arc<Variants>> for BySize {
    fn weight(&self, key: &CacheKey, variants: &Arc<Variants>) -> u64 {
        variants.0.iter().map(|stored| stored.size(key)).sum::<u64>().max(1)
    }
}

/// Counts what has to go, and lets go of it when no lock is held any more.
#[derive(Debug, Clone, Default)]
struct Evictions(Arc<AtomicU64>);

impl Lifecycle<CacheKey, Arc<Variants>> for Evictions {
    type RequestState = Vec<Arc<Variants>>;

    fn begin_request(&self) -> Self::RequestState {
        Vec::new()
    }

    fn on_evict(&self, evicted: &mut Self::RequestState, _key: CacheKey, variants: Arc<Variants>) {
        self.0.fetch_add(variants.0.len() as u64, Ordering::Relaxed);
        evicted.push(variants);
    }
}

/// L1.
pub struct Memory {
    map: Cache<CacheKey, Arc<Variants>, BySize, DefaultHashBuilder, Evictions>,
    evicted: Evictions,
    locks: [Mutex<()>; LOCKS],
    /// For keys that have more than their URI in them: all keys of a URI.
    keys_of_uri: Mutex<HashMap<Box<[u8]>, Vec<CacheKey>>>,
    size: u64,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory")
            .field("size", &self.size)
            .field("used", &self.map.weight())
            .finish_non_exhaustive()
    }
}

impl Memory {
    /// `size`: bytes for everything.
    pub fn new(size: u64) -> Self {
        let items = usize::try_from(size / USUAL_SIZE)
            .unwrap_or(usize::MAX)
            .clamp(64, 1 << 22);
        // A response must fit into one shard, and each shard only knows its own share of the size.
        let shards = usize::try_from(size / SHARD_SIZE)
            .unwrap_or(MAX_SHARDS)
            .clamp(1, MAX_SHARDS);
        let evicted = Evictions::default();
        let options = OptionsBuilder::new()
            .estimated_items_capacity(items)
            .weight_capacity(size)
            .shards(shards)
            .build();
        let map = match options {
            Ok(options) => Cache::with_options(options, BySize, DefaultHashBuilder::default(), evicted.clone()),
            // Only a missing capacity is an error, and both are given.
            Err(_) => Cache::with(items, size, BySize, DefaultHashBuilder::default(), evicted.clone()),
        };
        Self {
            map,
            evicted,
            locks: [const { Mutex::new(()) }; LOCKS],
            keys_of_uri: Mutex::default(),
            size,
        }
    }

    /// The variants under a key.
    pub fn get(&self, key: &CacheKey) -> Option<Arc<Variants>> {
        self.map.get(key)
    }

    /// Puts a response beside the variants of its key, in the place of the one that it replaces.
    pub fn store(&self, key: &CacheKey, new: Arc<Stored>) {
        let _turn = self.turn(key);
        let mut variants: Vec<_> = match self.map.get(key) {
            Some(variants) => variants
                .iter()
                .filter(|old| old.meta.variant != new.meta.variant)
                .cloned()
                .collect(),
            None => Vec::new(),
        };
        if variants.len() >= MAX_VARIANTS {
            variants.remove(0);
        }
        variants.push(new);
        self.map.insert(key.clone(), Arc::new(Variants(variants)));
        if key.uri().len() < key.as_bytes().len() {
            self.remember_key(key);
        }
    }

    /// Puts `new` in the place of exactly `old`, if that is still there.
    pub fn replace(&self, key: &CacheKey, old: &Arc<Stored>, new: Option<Arc<Stored>>) {
        let _turn = self.turn(key);
        let Some(variants) = self.map.get(key) else { return };
        if !variants.iter().any(|stored| Arc::ptr_eq(stored, old)) {
            return;
        }
        let mut kept: Vec<_> = variants
            .iter()
            .filter(|stored| !Arc::ptr_eq(stored, old))
            .cloned()
            .collect();
        if let Some(new) = new {
            kept.retain(|stored| stored.meta.variant != new.meta.variant);
            kept.push(new);
        }
        match kept.is_empty() {
            true => drop(self.map.remove(key)),
            false => self.map.insert(key.clone(), Arc::new(Variants(kept))),
        }
    }

    /// Removes all variants of all keys of a URI; `key` is one of them.
    pub fn invalidate(&self, key: &CacheKey) {
        let others = self.keys_of_uri.lock().remove(key.uri()).unwrap_or_default();
        for key in others.iter().chain([key]) {
            let _turn = self.turn(key);
            self.map.remove(key);
        }
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.map.weight()
    }

    /// Keys in use.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Responses that had to go for others since the start.
    pub fn evictions(&self) -> u64 {
        self.evicted.0.load(Ordering::Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    fn turn(&self, key: &CacheKey) -> MutexGuard<'_, ()> {
        self.locks[key.hash128() as usize % LOCKS].lock()
    }

    fn remember_key(&self, key: &CacheKey) {
        let mut keys_of_uri = self.keys_of_uri.lock();
        let keys = keys_of_uri.entry(key.uri().into()).or_default();
        if !keys.contains(key) {
            // What has been evicted meanwhile need not be remembered.
            keys.retain(|known| self.map.peek(known).is_some());
            keys.push(key.clone());
        }
        // The same for whole URIs, now and then: as soon as there are clearly more of them than stored responses.
        if keys_of_uri.len() > 64 && keys_of_uri.len() > 2 * self.map.len() {
            keys_of_uri.retain(|_, keys| keys.iter().any(|known| self.map.peek(known).is_some()));
        }
    }
}
