//! Stored responses: in memory, and on their way there.
//!
//! [`memory`] is L1. [`flight`] makes one fetch out of many requests that miss at the same time; [`filling`] is the response that such
//! a fetch brings in, read by everybody who waits while it still arrives. [`partial`] puts parts of representations together. [`recoded`] are the forms in which stored responses are sent, [`dictionaries`] what they are compressed against. [`stored_lines`]
//! are what a client gets of a stored response's head. [`purge`] takes responses out of use; [`epochs`] tell of a response whether that has happened to it, and [`tags`] what it is labelled with.

pub mod ahead;
pub mod codec;
pub mod coherence;
pub mod dictionaries;
pub mod epochs;
pub mod filling;
pub mod flight;
pub mod hottest;
pub mod l2;
pub mod label_names;
pub mod lease;
pub mod memory;
pub mod partial;
mod prefetch;
pub mod purge;
pub mod recoded;
pub mod stored_lines;
pub mod tags;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub use self::ahead::Ahead;
pub use self::coherence::Began;
pub use self::dictionaries::{Dictionaries, Dictionary};
pub use self::epochs::Epochs;
pub use self::filling::{FillReader, Filling};
pub use self::flight::{FetchDuty, Flights, Join};
pub use self::hottest::Hottest;
pub use self::l2::L2;
pub use self::memory::{Memory, PackedFields};
pub use self::recoded::{Forms, StoredBody};
pub use self::stored_lines::StoredLines;

use crate::config;
use crate::rfc9111::date::Timestamp;
use crate::rfc9111::stored::StoredMeta;

/// The counts of an `Arc`.
const COUNTS: usize = 2 * size_of::<usize>();

/// What `Bytes` allocates when a body is first shared, to be counted from then on.
const SHARED_BODY: usize = 24;

/// One response that is stored.
#[derive(Debug)]
pub struct Stored {
    pub meta: StoredMeta,
    /// Without `Age`, and without what says how the body was framed.
    pub fields: PackedFields,
    pub body: StoredBody,
}

impl Stored {
    /// See [`StoredMeta::outdated`].
    pub fn outdated(&self, at: Timestamp) -> Self {
        self.updated(self.meta.outdated(at), self.fields.unpack())
    }

    /// Bytes that it takes in memory, without its key.
    pub fn size(&self) -> u64 {
        [
            COUNTS + size_of::<Self>(),
            self.fields.heap_size(),
            self.meta.heap_size(),
            self.body.len(),
            SHARED_BODY,
        ]
        .into_iter()
        .map(allocation)
        .sum::<u64>()
            + self.forms_size()
    }
}

/// Bytes that an allocation of so many takes, as allocators round it up.
fn allocation(bytes: usize) -> u64 {
    match bytes {
        0 => 0,
        bytes => (bytes as u64).saturating_add(8).next_multiple_of(16),
    }
}

/// Everything the cache knows.
#[derive(Debug)]
pub struct Cache {
    pub memory: Arc<Memory>,
    pub flights: Flights,
    pub epochs: Arc<Epochs>,
    pub refreshes: Refreshes,
    pub ahead: Ahead,
    pub hottest: Hottest,
    pub dictionaries: Arc<Dictionaries>,
    /// `None`: L1 only.
    pub l2: Option<L2>,
}

/// Refreshes behind the backs of clients that go on at once; more are put off until somebody asks again.
const MAX_REFRESHES: usize = 256;

/// Counts the refreshes under way.
#[derive(Debug, Clone)]
pub struct Refreshes {
    under_way: Arc<AtomicUsize>,
    most: usize,
}

/// One refresh; dropping it ends it.
#[derive(Debug)]
pub struct Refreshing(Refreshes);

impl Refreshes {
    fn new(most: usize) -> Self {
        Self {
            under_way: Arc::default(),
            most,
        }
    }

    /// `None`: there are too many.
    pub fn begin(&self) -> Option<Refreshing> {
        let place = Refreshing(self.clone());
        match self.under_way.fetch_add(1, Ordering::Relaxed) < self.most {
            true => Some(place),
            false => None,
        }
    }
}

impl Drop for Refreshing {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Cache {
    /// What a fetch that begins now has to remember.
    pub fn begin(&self) -> Began {
        Began {
            local: self.epochs.last(),
            mark: self.l2.as_ref().and_then(|l2| l2.coherence().mark()),
        }
    }

    pub fn new(config: &config::Memory) -> Self {
        let memory = Arc::new(Memory::new(config.size, config.eviction));
        Self {
            epochs: memory.epochs().clone(),
            memory,
            flights: Flights::default(),
            refreshes: Refreshes::new(MAX_REFRESHES),
            ahead: Ahead::default(),
            hottest: Hottest::default(),
            dictionaries: Arc::new(Dictionaries::new(config.dictionaries)),
            l2: None,
        }
    }
}
