//! Decisions about what is stored already: by purges, and for all keys of a URI at once.

use std::hash::BuildHasher;
use std::ops::Bound;
use std::sync::Arc;

use super::nodes::NodeId;
use super::state::State;
use super::{Gone, Memory, Variants};
use crate::cache::Stored;
use crate::cache::epochs::Since;
use crate::key::CacheKey;

/// Keys that are looked at in one go for a purge, before others have their turn.
pub(super) const REVISION_BATCH: usize = 64;

/// What becomes of a response when it is looked at for a purge.
#[derive(Debug)]
pub enum Fate {
    Stay,
    Go,
    Becomes(Stored),
}

/// A key that a purge is about, with what is stored under it.
#[derive(Debug, Clone)]
pub struct Covered {
    pub key: CacheKey,
    /// Index of its route; see [`Memory::route_names`].
    pub route: u16,
    pub variants: Variants,
}

/// How far a walk over everything that is stored has come.
#[derive(Debug, Clone, Copy)]
pub struct Position(NodeId);

impl Default for Position {
    fn default() -> Self {
        Self(NodeId::FIRST)
    }
}

impl Memory {
    /// Compares labels with the purges that there have been, and takes what has been purged out of the store.
    #[cold]
    pub(super) fn without_purged(&self, key: &CacheKey, variants: &Variants) -> Option<Variants> {
        let mut left = Vec::new();
        for stored in variants.iter() {
            match self.label_fate(stored) {
                Fate::Stay => left.push(stored.clone()),
                Fate::Go => self.replace(key, stored, None),
                Fate::Becomes(outdated) => {
                    let outdated = Arc::new(outdated);
                    self.replace(key, stored, Some(outdated.clone()));
                    left.push(outdated);
                }
            }
        }
        Variants::new(left)
    }

    /// What becomes of a response by the purges of its labels. One that stays has been compared with all of them.
    pub fn label_fate(&self, stored: &Stored) -> Fate {
        let Some(labels) = stored.meta.labels() else {
            return Fate::Stay;
        };
        let last = self.epochs.last();
        match self.epochs.labels_since(labels.seen(), labels.as_slice()) {
            Since::Nothing => {
                labels.set_seen(last);
                Fate::Stay
            }
            Since::Purged => Fate::Go,
            Since::Outdated(at) => {
                let outdated = stored.outdated(at);
                if let Some(labels) = outdated.meta.labels() {
                    labels.set_seen(last);
                }
                Fate::Becomes(outdated)
            }
        }
    }

    /// Decides about all variants of all keys of a URI; `key` is one of them. Answers how many did not stay.
    pub fn revise_uri(&self, key: &CacheKey, mut judge: impl FnMut(&Stored) -> Fate) -> u64 {
        let mut gone = Gone::new();
        let mut changed = 0;
        {
            let mut state = self.state.lock();
            if let Some(known) = self.shards.known(key) {
                changed += self.revise_node(&mut state, known.node, |_, _, stored| judge(stored), &mut gone);
            }
        }
        // That one may be in the list, too, if there is more in it than the URI.
        let is_other = |other: &CacheKey| other.as_bytes() != key.as_bytes();
        let mut from = Bound::Included(NodeId::FIRST);
        loop {
            gone.clear();
            let mut state = self.state.lock();
            let hash = state.uri_hash.hash_one(key.uri());
            let batch: Vec<NodeId> = {
                let from = from.map(|node| (hash, node));
                let batch = state.of_uri.range((from, Bound::Included((hash, NodeId::LAST))));
                batch.take(REVISION_BATCH).map(|(_, node)| *node).collect()
            };
            let Some(last) = batch.last() else { return changed };
            from = Bound::Excluded(*last);
            for node in &batch {
                let Some(place) = state.nodes.place(*node) else {
                    continue;
                };
                let of_uri = self
                    .shards
                    .key(place.slot)
                    .is_some_and(|other| other.uri() == key.uri() && is_other(&other));
                if of_uri {
                    changed += self.revise_node(&mut state, *node, |_, _, stored| judge(stored), &mut gone);
                }
            }
            if batch.len() < REVISION_BATCH {
                return changed;
            }
        }
    }

    /// Decides about some of what is stored, given its URI (see [`CacheKey::uri`]), the index of its route and itself. Answers where to go
    /// on, and how many did not stay. What comes into the store meanwhile may be passed over.
    pub fn revise(
        &self,
        from: Position,
        mut judge: impl FnMut(&[u8], u16, &Stored) -> Fate,
    ) -> (Option<Position>, u64) {
        let mut gone = Gone::new();
        let mut changed = 0;
        let mut state = self.state.lock();
        let (nodes, next) = state.nodes.some(from.0, REVISION_BATCH);
        for node in nodes {
            changed += self.revise_node(&mut state, node, &mut judge, &mut gone);
        }
        drop(state);
        drop(gone);
        (next.map(Position), changed)
    }

    /// Looks at some of what is stored, and collects the keys with a response that is wanted, given its URI and the index of its route.
    /// Answers where to go on.
    pub fn collect(
        &self,
        from: Position,
        mut wanted: impl FnMut(&[u8], u16, &Stored) -> bool,
        found: &mut Vec<Covered>,
    ) -> Option<Position> {
        let state = self.state.lock();
        let (nodes, next) = state.nodes.some(from.0, REVISION_BATCH);
        for node in nodes {
            let Some(place) = state.nodes.place(node) else { continue };
            let covered = self.shards.with(place.slot, |uri, variants| {
                let mut all = variants.iter();
                all.any(|stored| wanted(uri, place.route, stored))
                    .then(|| variants.clone())
            });
            if let (Some(Some(variants)), Some(key)) = (covered, self.shards.key(place.slot)) {
                let route = place.route;
                found.push(Covered { key, route, variants });
            }
        }
        next.map(Position)
    }

    /// Some of the keys of a URI; `key` is one of them.
    pub fn collect_uri(&self, key: &CacheKey, found: &mut Vec<Covered>) {
        let state = self.state.lock();
        let hash = state.uri_hash.hash_one(key.uri());
        let range = (
            Bound::Included((hash, NodeId::FIRST)),
            Bound::Included((hash, NodeId::LAST)),
        );
        let own = self.shards.known(key).map(|known| known.node);
        let others = state.of_uri.range(range).map(|(_, node)| *node);
        let others = others.filter(|node| Some(*node) != own).take(REVISION_BATCH);
        for node in own.into_iter().chain(others) {
            let Some(place) = state.nodes.place(node) else { continue };
            let variants = self.shards.with(place.slot, |_, variants| variants.clone());
            if let (Some(variants), Some(found_key)) = (variants, self.shards.key(place.slot))
                && found_key.uri() == key.uri()
            {
                let route = place.route;
                found.push(Covered {
                    key: found_key,
                    route,
                    variants,
                });
            }
        }
    }

    fn revise_node(
        &self,
        state: &mut State,
        node: NodeId,
        mut judge: impl FnMut(&[u8], u16, &Stored) -> Fate,
        gone: &mut Gone,
    ) -> u64 {
        let Some(place) = state.nodes.place(node) else { return 0 };
        let mut changed = 0;
        let decided = self.shards.with(place.slot, |uri, variants| {
            let decide = |stored: &Arc<Stored>| match judge(uri, place.route, stored) {
                Fate::Stay => Some(stored.clone()),
                Fate::Go => {
                    changed += 1;
                    None
                }
                Fate::Becomes(other) => {
                    changed += 1;
                    Some(Arc::new(other))
                }
            };
            variants.iter().filter_map(decide).collect::<Vec<_>>()
        });
        let Some(left) = decided.filter(|_| changed > 0) else {
            return 0;
        };
        match left.last().map(|last| last.meta.received) {
            None => gone.extend(self.remove(state, node)),
            Some(now) => {
                if let Some(key) = self.shards.key(place.slot) {
                    self.put(state, &key, left, place.route, now, gone);
                }
            }
        }
        changed
    }
}
