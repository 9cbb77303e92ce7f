//! L1: stored responses in memory, bounded in bytes.
//!
//! A lookup takes one hash and one read lock of one of many shards, and allocates nothing. Changes follow one another under one lock:
//! there is one for each response that comes from an origin, which costs a thousand times as much. So the size holds for all shards
//! together and any of them may take all of it; which key goes first is decided over all keys (`order`); and what belongs together,
//! such as all keys of a URI, never falls apart.

mod ghosts;
mod index;
mod nodes;
mod order;
mod packed;
mod revision;
mod shard;
mod state;
mod variants;

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;

use self::nodes::{NodeId, Place};
use self::order::{Lfu, Lru, S3Fifo};
pub use self::packed::PackedFields;
pub(crate) use self::packed::PackedLine;
pub use self::revision::{Covered, Fate, Position};
use self::shard::{KeyHash, Removed, Shards, Slot};
pub use self::state::RouteShare;
use self::state::{Rules, State};
use self::variants::TABLES;
pub use self::variants::Variants;
use super::epochs::Epochs;
use super::purge::Sweeps;
use super::{Stored, allocation};
use crate::config::Eviction;
use crate::key::CacheKey;
use crate::rfc9111::date::Timestamp;

/// Variants kept under one key. An origin that varies more does not repeat itself, and each lookup looks at all of them.
pub const MAX_VARIANTS: usize = 64;

/// Nodes that are looked at for useless responses before a useful one goes: so the whole cache has been seen in the time in which
/// a small part of it is exchanged.
const SEEN_BEFORE_EVICTION: usize = 16;

/// The common part of the cache counts as at least one in so many of its bytes, however much the routes' shares add up to.
const LEAST_COMMON: u64 = 4;

/// L1.
pub struct Memory {
    shards: Shards,
    epochs: Arc<Epochs>,
    sweeps: Sweeps,
    state: Mutex<State>,
    eviction: Eviction,
    /// See [`Lru`].
    generation: AtomicU32,
    size: u64,
    used: AtomicU64,
    keys: AtomicU64,
    evictions: AtomicU64,
}

/// What is let go of when no lock is held any more: freeing memory takes its time.
type Gone = Vec<Removed>;

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory")
            .field("size", &self.size)
            .field("used", &self.used())
            .finish_non_exhaustive()
    }
}

impl Memory {
    /// `size`: bytes for everything, bookkeeping included.
    pub fn new(size: u64, eviction: Eviction) -> Self {
        Self {
            shards: Shards::new(),
            epochs: Arc::default(),
            sweeps: Sweeps::default(),
            state: Mutex::new(State::new(size, eviction)),
            eviction,
            generation: AtomicU32::new(0),
            size,
            used: AtomicU64::new(0),
            keys: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
        }
    }

    /// The routes from now on. What is stored for one that has no share of its own any more goes before everything else when room
    /// is needed.
    pub fn set_routes(&self, routes: impl IntoIterator<Item = RouteShare>) {
        let mut gone = Gone::new();
        let mut state = self.state.lock();
        let mut before = vec![0; state.rules.len()];
        for (rules, share) in state.rules.iter_mut().zip(&mut before) {
            *share = std::mem::take(rules).share;
        }
        for share in state.shares.iter_mut().skip(1) {
            (share.limit, share.due) = (0, 0);
        }
        let routes = routes.into_iter().filter_map(|route| {
            let index = state.route(route.route.clone())?;
            let kept = before.get(usize::from(index)).copied().filter(|share| *share != 0);
            Some((kept, index, route))
        });
        let mut routes: Vec<_> = routes.collect();
        // Those that keep their share first: an empty one must not be taken for one that nobody has.
        routes.sort_by_key(|(kept, ..)| kept.is_none());
        let mut shared: u64 = 0;
        for (
            kept,
            index,
            RouteShare {
                max_size,
                windows,
                keep,
                ..
            },
        ) in routes
        {
            let share = match max_size {
                None => 0,
                Some(max_size) => {
                    shared = shared.saturating_add(max_size);
                    state.open_share(kept, max_size.min(self.size).max(1), self.eviction)
                }
            };
            if let Some(rules) = state.rules.get_mut(usize::from(index)) {
                *rules = Rules { share, windows, keep };
            }
        }
        if let Some(common) = state.shares.first_mut() {
            common.due = self.size.saturating_sub(shared).max(self.size / LEAST_COMMON);
        }
        for share in 1..state.shares.len() {
            while state
                .shares
                .get(share)
                .is_some_and(|share| share.limit > 0 && share.used > share.limit)
            {
                let Some(removed) = self.evict(&mut state, share) else {
                    break;
                };
                gone.push(removed);
            }
        }
        drop(state);
        drop(gone);
    }

    /// The variants under a key that have not been purged.
    #[inline]
    pub fn get(&self, key: &CacheKey) -> Option<Variants> {
        let variants = self.find(key)?;
        let outrun = |stored: &Arc<Stored>| {
            let labels = stored.meta.labels();
            labels.is_some_and(|labels| self.epochs.concerns_labels(labels.seen()))
        };
        let outrun = variants.iter().any(outrun);
        match outrun {
            true => self.without_purged(key, &variants),
            false => Some(variants),
        }
    }

    #[inline]
    fn find(&self, key: &CacheKey) -> Option<Variants> {
        match self.eviction {
            Eviction::S3Fifo => self.shards.get(key, S3Fifo::used),
            Eviction::Lru => self.shards.get(key, |_| self.generation.load(Ordering::Relaxed)),
            Eviction::Lfu => self.shards.get(key, Lfu::used),
        }
    }

    /// The variants under a key, without counting as a use of them.
    pub fn peek(&self, key: &CacheKey) -> Option<Variants> {
        let known = self.shards.known(key)?.variants;
        let left = known
            .iter()
            .filter(|stored| !matches!(self.label_fate(stored), Fate::Go));
        Variants::new(left.cloned().collect())
    }

    /// Puts a response beside the variants of its key, in the place of the one that it replaces. One that is too large for the cache
    /// or for its route's share of it is not stored; the one that it would replace goes all the same.
    pub fn store(&self, route: &str, key: &CacheKey, new: Arc<Stored>) {
        let mut gone = Gone::new();
        let mut state = self.state.lock();
        let route = state.routes.get(route).copied().unwrap_or_default();
        // Gets it counted as used.
        let before = self.find(key);
        let mut variants: Vec<_> = match &before {
            Some(before) => before
                .iter()
                .filter(|old| old.meta.variant != new.meta.variant)
                .cloned()
                .collect(),
            None => Vec::new(),
        };
        variants.push(new.clone());
        if variants.len() > MAX_VARIANTS {
            variants.remove(0);
        }
        self.put(&mut state, key, variants, route, new.meta.received, &mut gone);
        drop(state);
        drop(gone);
    }

    /// Puts `new` in the place of exactly `old`, if that is still there; it counts for the same route.
    pub fn replace(&self, key: &CacheKey, old: &Arc<Stored>, new: Option<Arc<Stored>>) {
        let mut gone = Gone::new();
        let mut state = self.state.lock();
        let Some(before) = self.shards.known(key) else { return };
        if !before.variants.iter().any(|stored| Arc::ptr_eq(stored, old)) {
            return;
        }
        let mut kept: Vec<_> = before
            .variants
            .iter()
            .filter(|stored| !Arc::ptr_eq(stored, old))
            .cloned()
            .collect();
        if let Some(new) = &new {
            kept.retain(|stored| stored.meta.variant != new.meta.variant);
            kept.push(new.clone());
        }
        let now = new.as_ref().unwrap_or(old).meta.received;
        let route = state.nodes.place(before.node).map_or(0, |place| place.route);
        self.put(&mut state, key, kept, route, now, &mut gone);
        drop(state);
        drop(gone);
    }

    /// The names of routes by their index.
    pub fn route_names(&self) -> Vec<Arc<str>> {
        let state = self.state.lock();
        let mut names: Vec<Arc<str>> = vec![Arc::from(""); state.rules.len()];
        for (name, index) in &state.routes {
            if let Some(place) = names.get_mut(usize::from(*index)) {
                *place = name.clone();
            }
        }
        names
    }

    /// The purges that what is stored has to be compared with.
    pub fn epochs(&self) -> &Arc<Epochs> {
        &self.epochs
    }

    pub(super) fn sweeps(&self) -> &Sweeps {
        &self.sweeps
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Keys in use.
    pub fn len(&self) -> usize {
        self.keys.load(Ordering::Relaxed) as usize
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Responses that had to go for others since the start.
    pub fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    /// Puts these variants, the oldest first, in the place of all under a key.
    fn put(
        &self,
        state: &mut State,
        key: &CacheKey,
        mut variants: Vec<Arc<Stored>>,
        route: u16,
        now: Timestamp,
        gone: &mut Gone,
    ) {
        let rules = state.rules.get(usize::from(route)).copied().unwrap_or_default();
        let limit = state
            .shares
            .get(usize::from(rules.share))
            .map_or(0, |share| share.limit);
        let (variants, weight) = loop {
            let Some(list) = Variants::new(variants.clone()) else {
                break (None, 0);
            };
            let weight = list.weight(key);
            if weight <= limit {
                break (Some(list), weight);
            }
            // The new one decides: where it does not fit alone, it is not stored, and the others stay if they can.
            match variants.last() {
                Some(new) if allocation(key.as_bytes().len()) + TABLES + new.size() > limit => drop(variants.pop()),
                _ => drop(variants.remove(0)),
            }
        };
        let Some(variants) = variants else {
            if let Some(known) = self.shards.known(key) {
                gone.extend(self.remove(state, known.node));
            }
            return;
        };
        let useless_from = variants
            .iter()
            .map(|stored| stored.meta.useless_from(rules.windows, rules.keep))
            .max();
        let useless_from = useless_from.map_or(u32::MAX, seconds);
        self.make_room(state, key, weight, rules.share, now, gone);
        match self.shards.known(key) {
            Some(known) => {
                state.reweigh(known.node, weight, useless_from, route);
                let slot = state.nodes.place(known.node).map(|place| place.slot);
                drop(slot.and_then(|slot| self.shards.exchange(slot, variants)));
            }
            None => self.insert(state, key, variants, |slot| Place {
                slot,
                weight,
                share: rules.share,
                route,
                useless_from,
            }),
        }
        self.count(state);
    }

    fn insert(&self, state: &mut State, key: &CacheKey, variants: Variants, place: impl FnOnce(Slot) -> Place) {
        let hash = KeyHash::of(key);
        let Some(slot) = self.shards.vacant(hash) else { return };
        let place = place(slot);
        let Some(node) = state.nodes.insert(place) else { return };
        state.stores += 1;
        // At least some stores each, so that a small cache does not count its generations round.
        if state.stores > (state.keys / Lru::GENERATIONS).max(1) {
            state.stores = 0;
            self.generation.fetch_add(1, Ordering::Relaxed);
        }
        let generation = self.generation.load(Ordering::Relaxed);
        let State { nodes, shares, .. } = &mut *state;
        let Some(share) = shares.get_mut(usize::from(place.share)) else {
            return;
        };
        share.used += place.weight;
        let usage = share.order.admit(nodes, node, hash.fingerprint, generation);
        self.shards.insert(slot, key, variants, node, usage);
        if key.uri().len() < key.as_bytes().len() {
            let hash = state.uri_hash.hash_one(key.uri());
            state.of_uri.insert((hash, node));
        }
        state.keys += 1;
    }

    /// Lets others go until `weight` bytes fit in, in the place of what is under the key now. That may be among those that go.
    fn make_room(&self, state: &mut State, key: &CacheKey, weight: u64, share: u16, now: Timestamp, gone: &mut Gone) {
        loop {
            let known = self
                .shards
                .known(key)
                .and_then(|known| Some((known.node, state.nodes.place(known.node)?)));
            if let Some((node, place)) = known
                && place.share != share
            {
                gone.extend(self.remove(state, node));
                continue;
            }
            let more = weight.saturating_sub(known.map_or(0, |(_, place)| place.weight));
            let total: u64 = state.shares.iter().map(|share| share.used).sum();
            let own = state.shares.get(usize::from(share));
            let share_is_full = own.is_none_or(|own| own.used.saturating_add(more) > own.limit);
            if !share_is_full && total.saturating_add(more) <= self.size {
                return;
            }
            if let Some(useless) = state.nodes.next_useless(floor(now), SEEN_BEFORE_EVICTION) {
                gone.extend(self.remove(state, useless));
                continue;
            }
            let from = if share_is_full {
                usize::from(share)
            } else {
                state.most_over_due(share, more)
            };
            match self.evict(state, from) {
                Some(removed) => gone.push(removed),
                None => return,
            }
        }
    }

    /// Lets the key go that is first in a share.
    fn evict(&self, state: &mut State, share: usize) -> Option<Removed> {
        let State { nodes, shares, .. } = &mut *state;
        let generation = self.generation.load(Ordering::Relaxed);
        let node = shares.get_mut(share)?.order.evict(nodes, &self.shards, generation)?;
        let removed = self.forget(state, node)?;
        self.evictions.fetch_add(removed.variants.len(), Ordering::Relaxed);
        Some(removed)
    }

    /// Removes a key for another reason than room.
    fn remove(&self, state: &mut State, node: NodeId) -> Option<Removed> {
        let place = state.nodes.place(node)?;
        let State { nodes, shares, .. } = &mut *state;
        let generation = self.generation.load(Ordering::Relaxed);
        shares
            .get_mut(usize::from(place.share))?
            .order
            .remove(nodes, node, generation);
        self.forget(state, node)
    }

    /// Removes a key that is in no order any more.
    fn forget(&self, state: &mut State, node: NodeId) -> Option<Removed> {
        let place = state.nodes.place(node)?;
        if let Some(share) = state.shares.get_mut(usize::from(place.share)) {
            share.used = share.used.saturating_sub(place.weight);
        }
        let removed = self.shards.remove(place.slot)?;
        if let Some(uri) = removed.shared_uri() {
            let hash = state.uri_hash.hash_one(uri);
            state.of_uri.remove(&(hash, node));
        }
        state.nodes.remove(node);
        state.keys -= 1;
        self.count(state);
        Some(removed)
    }

    fn count(&self, state: &State) {
        self.used
            .store(state.shares.iter().map(|share| share.used).sum(), Ordering::Relaxed);
        self.keys.store(state.keys as u64, Ordering::Relaxed);
    }
}

/// Whole seconds since 1970, rounded up.
fn seconds(time: Timestamp) -> u32 {
    u32::try_from(time.as_millis().div_ceil(1000)).unwrap_or(u32::MAX)
}

/// Whole seconds since 1970, rounded down; never so late that what is of use for ever would be past it.
fn floor(time: Timestamp) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX).min(u32::MAX - 1)
}

#[cfg(test)]
mod tests;
