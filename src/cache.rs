//! Stored responses: in memory, and on their way there.
//!
//! [`memory`] is L1. [`flight`] makes one fetch out of many requests that miss at the same time; [`filling`] is the response that such
//! a fetch brings in, read by everybody who waits while it still arrives.

pub mod filling;
pub mod flight;
pub mod memory;

use std::sync::Arc;

use bytes::Bytes;

pub use self::filling::{Filling, FillReader};
pub use self::flight::{FetchDuty, Flights, Join};
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
}

impl Cache {
    /// `size`: bytes of L1.
    pub fn new(size: u64) -> Self {
        Self { memory: Arc::new(Memory::new(size)), flights: Flights::default() }
    }
}
