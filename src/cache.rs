//! Stored responses: in memory, and on their way there.
//!
//! [`memory`] is L1. [`flight`] makes one fetch out of many requests that miss at the same time; [`filling`] is the response that such
//! a fetch brings in, read by everybody who waits while it still arrives. [`partial`] puts parts of representations together.

pub mod filling;
pub mod flight;
pub mod invalidations;
pub mod memory;
pub mod partial;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

pub use self::filling::{FillReader, Filling};
pub use self::flight::{FetchDuty, Flights, Join};
pub use self::invalidations::Invalidations;
pub use self::memory::Memory;

use crate::key::CacheKey;
use crate::message::Fields;
use crate::rfc9111::stored::StoredMeta;

/// Bytes that a stored response takes beside what its parts take: allocations, the map's own entry, reference counts.
const BOOKKEEPING: usize = 240;

/// One response that is stored.
#[derive(Debug)]
pub struct Stored {
    pub meta: StoredMeta,
    /// Without `Age`, and without what says how the body was framed.
    pub fields: Fields,
    pub body: Bytes,
}

impl Stored {
    /// Bytes that it takes in memory, with its key.
    pub fn size(&self, key: &CacheKey) -> u64 {
        let bytes = key.as_bytes().len() + self.fields.heap_size() + self.meta.heap_size() + self.body.len();
        (bytes + std::mem::size_of::<Self>() + BOOKKEEPING) as u64
    }
}

/// Everything the cache knows.
#[derive(Debug)]
pub struct Cache {
    pub memory: Arc<Memory>,
    pub flights: Flights,
    pub invalidations: Invalidations,
    pub refreshes: Refreshes,
}

/// Refreshes behind the backs of clients that go on at once; more are put off until somebody asks again.
const MAX_REFRESHES: usize = 256;

/// Counts the refreshes under way.
#[derive(Debug, Clone, Default)]
pub struct Refreshes(Arc<AtomicUsize>);

/// One refresh; dropping it ends it.
#[derive(Debug)]
pub struct Refreshing(Refreshes);

impl Refreshes {
    /// `None`: there are too many.
    pub fn begin(&self) -> Option<Refreshing> {
        let place = Refreshing(self.clone());
        match self.0.fetch_add(1, Ordering::Relaxed) < MAX_REFRESHES {
            true => Some(place),
            false => None,
        }
    }
}

impl Drop for Refreshing {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Cache {
    /// `size`: bytes of L1.
    pub fn new(size: u64) -> Self {
        Self {
            memory: Arc::new(Memory::new(size)),
            flights: Flights::default(),
            invalidations: Invalidations::default(),
            refreshes: Refreshes::default(),
        }
    }
}
