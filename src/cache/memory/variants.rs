//! The variants under one key.

use std::sync::Arc;

use crate::cache::prefetch::{Lines, will_read};
use crate::cache::{Stored, allocation};
use crate::key::CacheKey;

/// Bytes that a key takes in the tables beside its own: 64 in its shard and 11 in that one's index, 32 as a node and 8 that are
/// remembered when it has gone, all with the room in which tables grow.
pub(super) const TABLES: u64 = 136;

/// The variants under one key, most recently stored last. Never changed: a change puts another list in its place.
#[derive(Debug, Clone)]
pub struct Variants(List);

#[derive(Debug, Clone)]
enum List {
    One(Arc<Stored>),
    /// Two or more. Not a slice, because few keys have several and this is half as long.
    #[expect(clippy::rc_buffer, reason = "a thin pointer")]
    Many(Arc<Vec<Arc<Stored>>>),
}

impl Variants {
    /// `None` where there is none.
    pub(super) fn new(mut variants: Vec<Arc<Stored>>) -> Option<Self> {
        if variants.len() > 1 {
            variants.shrink_to_fit();
            return Some(Self(List::Many(Arc::new(variants))));
        }
        variants.pop().map(|one| Self(List::One(one)))
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Stored>> {
        match &self.0 {
            List::One(stored) => std::slice::from_ref(stored).iter(),
            List::Many(variants) => variants.iter(),
        }
    }

    /// The only one. `Err`: there are several.
    pub fn into_only(self) -> Result<Arc<Stored>, Self> {
        match self.0 {
            List::One(stored) => Ok(stored),
            List::Many(_) => Err(self),
        }
    }

    /// They have been found, perhaps: what is known about the only one is about to be read.
    #[inline]
    pub(super) fn will_be_looked_at(&self) {
        if let List::One(stored) = &self.0 {
            will_read(&**stored);
        }
    }

    /// What of the only one is about to be sent, mostly. Which one of several is not known yet.
    pub(super) fn lines(&self) -> [Lines; 2] {
        match &self.0 {
            List::One(stored) => [Lines::of(stored.fields.as_bytes()), Lines::of(&stored.body[..])],
            List::Many(_) => [Lines::default(); 2],
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.iter().len() as u64
    }

    /// Bytes that these take with their key and its place.
    pub(super) fn weight(&self, key: &CacheKey) -> u64 {
        let list = match &self.0 {
            List::One(_) => 0,
            List::Many(variants) => allocation(40) + allocation(variants.len() * size_of::<Arc<Stored>>()),
        };
        self.iter().map(|stored| stored.size()).sum::<u64>() + list + allocation(key.as_bytes().len()) + TABLES
    }
}
