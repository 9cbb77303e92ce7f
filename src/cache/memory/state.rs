//! What changes of L1 touch: the places of all keys, and the shares that they count to.

use std::collections::{BTreeSet, HashMap};
use std::hash::RandomState;
use std::sync::Arc;
use std::time::Duration;

use super::nodes::{NodeId, Nodes};
use super::order::Order;
use crate::config::Eviction;
use crate::rfc9111::stored::StaleWindows;

/// How long what has a validator is of use where no route says otherwise.
const KEEP: Duration = Duration::from_secs(600);

/// What a route has to do with L1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteShare {
    pub route: Arc<str>,
    /// Bytes that its responses take at most. `None`: those of the whole cache.
    pub max_size: Option<u64>,
    /// The next two say when a response is of no use any more.
    pub windows: StaleWindows,
    pub keep: Duration,
}

/// Everything that only changes touch.
pub(super) struct State {
    pub nodes: Nodes,
    /// The first is the common one.
    pub shares: Vec<Share>,
    /// Of routes by their index; the first is of those that are not known.
    pub rules: Vec<Rules>,
    /// Indices of `rules`. An index stays with its name, so that what is stored can refer to it.
    pub routes: HashMap<Arc<str>, u16>,
    /// All keys that have more than their URI in them, by a hash of that.
    pub of_uri: BTreeSet<(u64, NodeId)>,
    pub uri_hash: RandomState,
    pub keys: usize,
    /// Since the last generation began.
    pub stores: usize,
}

/// A part of L1 with an order of its own.
pub(super) struct Share {
    pub order: Order,
    pub used: u64,
    /// Bytes that it may take.
    pub limit: u64,
    /// Bytes that it may keep when room is needed.
    pub due: u64,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub share: u16,
    pub windows: StaleWindows,
    pub keep: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            share: 0,
            windows: StaleWindows::default(),
            keep: KEEP,
        }
    }
}

impl State {
    /// `size`: bytes for everything.
    pub fn new(size: u64, eviction: Eviction) -> Self {
        let common = Share {
            order: Order::new(eviction),
            used: 0,
            limit: size,
            due: size,
        };
        Self {
            nodes: Nodes::new(),
            shares: vec![common],
            rules: vec![Rules::default()],
            routes: HashMap::new(),
            of_uri: BTreeSet::new(),
            uri_hash: RandomState::new(),
            keys: 0,
            stores: 0,
        }
    }

    /// The index of a route. `None`: there have been too many.
    pub fn route(&mut self, name: Arc<str>) -> Option<u16> {
        if let Some(known) = self.routes.get(&name) {
            return Some(*known);
        }
        let index = u16::try_from(self.rules.len()).ok()?;
        self.rules.push(Rules::default());
        self.routes.insert(name, index);
        Some(index)
    }

    /// A share of `limit` bytes: the one that the route had, or one that nothing is in, or another one.
    pub fn open_share(&mut self, kept: Option<u16>, limit: u64, eviction: Eviction) -> u16 {
        let free = |share: &Share| share.limit == 0 && share.used == 0;
        let index = match kept {
            Some(kept) => usize::from(kept),
            None => match self.shares.iter().skip(1).position(free) {
                Some(free) => free + 1,
                None => self.shares.len(),
            },
        };
        // More routes than that cannot be configured; they would share what is common.
        let Ok(id) = u16::try_from(index) else { return 0 };
        match self.shares.get_mut(index) {
            Some(share) => (share.limit, share.due) = (limit, limit),
            None => self.shares.push(Share {
                order: Order::new(eviction),
                used: 0,
                limit,
                due: limit,
            }),
        }
        id
    }

    pub fn reweigh(&mut self, node: NodeId, weight: u64, useless_from: u32, route: u16) {
        let Some(place) = self.nodes.place(node) else { return };
        if let Some(share) = self.shares.get_mut(usize::from(place.share)) {
            share.order.reweigh(&self.nodes, node, weight);
            share.used = share.used.saturating_sub(place.weight).saturating_add(weight);
        }
        self.nodes.update(node, weight, useless_from, route);
    }

    /// The share that takes most in proportion to what it is due, once `more` bytes have come to `growing`. One that nothing is in
    /// has nothing to give.
    pub fn most_over_due(&self, growing: u16, more: u64) -> usize {
        let taken = |(index, share): &(usize, &Share)| {
            let more = if *index == usize::from(growing) { more } else { 0 };
            (u128::from(share.used.saturating_add(more)) << 32) / u128::from(share.due.max(1))
        };
        let some = self.shares.iter().enumerate().filter(|(_, share)| share.used > 0);
        some.max_by_key(taken).map_or(0, |(index, _)| index)
    }
}
