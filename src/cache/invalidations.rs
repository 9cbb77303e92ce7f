//! What has been invalidated while it was being fetched.
//!
//! A response that was asked for before an unsafe request succeeded may show what was there before it: it must not be stored behind the
//! invalidation (RFC 9111 §4.4), nor be read along by requests that come after it. So every fetch carries the number of
//! invalidations of its URI that it has seen.

use std::sync::atomic::{AtomicU64, Ordering};

use xxhash_rust::xxh3::xxh3_64;

use crate::key::CacheKey;

/// URIs share counters; one that counts for another's invalidation is fetched once more than it had to be.
const COUNTERS: usize = 1024;

/// Counts invalidations by URI.
#[derive(Debug)]
pub struct Invalidations(Box<[AtomicU64]>);

impl Default for Invalidations {
    fn default() -> Self {
        Self((0..COUNTERS).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Invalidations {
    /// How many there have been of this key's URI.
    pub fn count(&self, key: &CacheKey) -> u64 {
        self.counter(key).map_or(0, |counter| counter.load(Ordering::Acquire))
    }

    /// To be called before what is stored is removed.
    pub fn note(&self, key: &CacheKey) {
        if let Some(counter) = self.counter(key) {
            counter.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn counter(&self, key: &CacheKey) -> Option<&AtomicU64> {
        self.0.get(xxh3_64(key.uri()) as usize % COUNTERS)
    }
}
