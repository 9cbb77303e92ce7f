//! Who goes first when room is needed.
//!
//! A lookup only writes a number, the key's usage, and that only where it changes; hot keys soon stay as they are. Everything else is
//! done when something has to go. What the number means is the business of each order.

use std::collections::VecDeque;

use super::Eviction;
use super::ghosts::Ghosts;
use super::nodes::{List, NodeId, Nodes};
use super::shard::Shards;

/// Keys that are passed by in the search for one that may go, at most: that bounds the time that a store takes when everything
/// has been used since the last time.
const MAX_PASSED: usize = 256;

/// The order of one share.
#[derive(Debug)]
pub(super) enum Order {
    S3Fifo(S3Fifo),
    Lru(Lru),
    Lfu(Box<Lfu>),
}

impl Order {
    pub fn new(eviction: Eviction) -> Self {
        match eviction {
            Eviction::S3Fifo => Self::S3Fifo(S3Fifo::default()),
            Eviction::Lru => Self::Lru(Lru::default()),
            Eviction::Lfu => Self::Lfu(Box::default()),
        }
    }

    /// Takes a key in; answers its first usage. `now`: the generation, see [`Lru`].
    pub fn admit(&mut self, nodes: &mut Nodes, id: NodeId, fingerprint: u32, now: u32) -> u32 {
        match self {
            Self::S3Fifo(order) => order.admit(nodes, id, fingerprint),
            Self::Lru(order) => order.admit(nodes, id, now),
            Self::Lfu(order) => order.admit(nodes, id, fingerprint),
        }
    }

    /// Takes a key out that goes for another reason than room.
    pub fn remove(&mut self, nodes: &mut Nodes, id: NodeId, now: u32) {
        match self {
            Self::S3Fifo(order) => order.remove(nodes, id),
            Self::Lru(order) => order.remove(nodes, id, now),
            Self::Lfu(order) => order.remove(nodes, id),
        }
    }

    /// A key's weight is about to change.
    pub fn reweigh(&mut self, nodes: &Nodes, id: NodeId, weight: u64) {
        if let Self::S3Fifo(order) = self {
            let bytes = order.bytes_of(nodes.list(id));
            *bytes = bytes.saturating_sub(nodes.weight(id)).saturating_add(weight);
        }
    }

    /// Takes the key out that goes first.
    pub fn evict(&mut self, nodes: &mut Nodes, shards: &Shards, now: u32) -> Option<NodeId> {
        match self {
            Self::S3Fifo(order) => order.evict(nodes, shards),
            Self::Lru(order) => order.evict(nodes, shards, now),
            Self::Lfu(order) => order.evict(nodes, shards),
        }
    }
}

fn usage(nodes: &Nodes, shards: &Shards, id: NodeId) -> (u32, u32) {
    nodes
        .place(id)
        .and_then(|place| shards.usage(place.slot))
        .unwrap_or_default()
}

fn set_usage(nodes: &Nodes, shards: &Shards, id: NodeId, usage: u32) {
    if let Some(place) = nodes.place(id) {
        shards.set_usage(place.slot, usage);
    }
}

/// S3-FIFO (Yang et al., SOSP 2023): new keys pass through a small queue, so that those that are used only once go soon and leave the
/// others alone. Usage: lookups since the key was last looked at here, up to [`S3Fifo::MOST`].
#[derive(Debug, Default)]
pub(super) struct S3Fifo {
    small: List,
    main: List,
    small_bytes: u64,
    main_bytes: u64,
    keys: usize,
    ghosts: Ghosts,
    /// Keys that went from the small queue, ever.
    gone: u32,
}

impl S3Fifo {
    const SMALL: u32 = 0;
    const MAIN: u32 = 1;
    /// Share of the bytes that is for the small queue: one in ten, as in the paper.
    const SMALL_SHARE: u64 = 10;
    const MOST: u32 = 3;

    pub fn used(usage: u32) -> u32 {
        usage.saturating_add(1).min(Self::MOST)
    }

    fn bytes_of(&mut self, list: u32) -> &mut u64 {
        if list == Self::SMALL {
            &mut self.small_bytes
        } else {
            &mut self.main_bytes
        }
    }

    fn push(&mut self, nodes: &mut Nodes, id: NodeId, list: u32) {
        *self.bytes_of(list) += nodes.weight(id);
        match list {
            Self::SMALL => self.small.push(nodes, id, list),
            _ => self.main.push(nodes, id, list),
        }
    }

    fn unlink(&mut self, nodes: &mut Nodes, id: NodeId) {
        let (list, weight) = (nodes.list(id), nodes.weight(id));
        let bytes = self.bytes_of(list);
        *bytes = bytes.saturating_sub(weight);
        match list {
            Self::SMALL => self.small.unlink(nodes, id),
            _ => self.main.unlink(nodes, id),
        }
    }

    fn admit(&mut self, nodes: &mut Nodes, id: NodeId, fingerprint: u32) -> u32 {
        let returns = match self.ghosts.recall(fingerprint) {
            Some(went) => self.gone.wrapping_sub(went) as usize <= self.keys,
            None => false,
        };
        self.push(nodes, id, if returns { Self::MAIN } else { Self::SMALL });
        self.keys += 1;
        0
    }

    fn remove(&mut self, nodes: &mut Nodes, id: NodeId) {
        self.unlink(nodes, id);
        self.keys -= 1;
    }

    fn evict(&mut self, nodes: &mut Nodes, shards: &Shards) -> Option<NodeId> {
        for passed in 0.. {
            let small_is_large = self.small_bytes > (self.small_bytes + self.main_bytes) / Self::SMALL_SHARE;
            let (id, from) = match (self.small.back(), self.main.back()) {
                (Some(id), main) if small_is_large || main.is_none() => (id, Self::SMALL),
                (_, Some(id)) => (id, Self::MAIN),
                (_, None) => return None,
            };
            let (usage, fingerprint) = usage(nodes, shards, id);
            self.unlink(nodes, id);
            if passed < MAX_PASSED && from == Self::SMALL && usage > 0 {
                set_usage(nodes, shards, id, 0);
                self.push(nodes, id, Self::MAIN);
                continue;
            }
            if passed < MAX_PASSED && from == Self::MAIN && usage > 0 {
                set_usage(nodes, shards, id, usage - 1);
                self.push(nodes, id, Self::MAIN);
                continue;
            }
            self.keys -= 1;
            if from == Self::SMALL {
                // Zero would be a free place.
                self.gone = self.gone.wrapping_add(1).max(1);
                let now = self.gone;
                let worth = |went: u32| u32::MAX - now.wrapping_sub(went);
                self.ghosts.grow(self.keys, worth);
                self.ghosts.remember(fingerprint, now, worth);
            }
            return Some(id);
        }
        None
    }
}

/// Least recently used, as precise as the generations: a generation lasts for as many stores as make up a small part of the keys.
/// Usage: the generation of the last lookup. Keys are in the list of the generation in which they were last looked at here, and
/// are moved to that of their last lookup when it is their turn to go.
#[derive(Debug, Default)]
pub(super) struct Lru {
    /// By generation, the oldest in front.
    lists: VecDeque<(u32, List)>,
}

impl Lru {
    /// Generations in the time in which all keys would be exchanged.
    pub const GENERATIONS: usize = 128;
    /// Older ones are put together. They come about where keys are stored again and again and none has to go.
    const MAX_LISTS: usize = 4 * Self::GENERATIONS;

    /// Index of the newest list that is not newer than a generation. Generations may wrap: what counts is the distance from now.
    fn index(&self, generation: u32, now: u32) -> usize {
        let age = now.wrapping_sub(generation);
        self.lists
            .partition_point(|(other, _)| now.wrapping_sub(*other) >= age)
            .saturating_sub(1)
    }

    fn admit(&mut self, nodes: &mut Nodes, id: NodeId, now: u32) -> u32 {
        if self.lists.back().is_none_or(|(newest, _)| *newest != now) {
            self.lists.push_back((now, List::default()));
            if self.lists.len() > Self::MAX_LISTS
                && let Some((_, oldest)) = self.lists.pop_front()
                && let Some((_, list)) = self.lists.front_mut()
            {
                list.append(nodes, oldest);
            }
        }
        if let Some((_, list)) = self.lists.back_mut() {
            list.push(nodes, id, now);
        }
        now
    }

    fn remove(&mut self, nodes: &mut Nodes, id: NodeId, now: u32) {
        let index = self.index(nodes.list(id), now);
        if let Some((_, list)) = self.lists.get_mut(index) {
            list.unlink(nodes, id);
        }
    }

    fn evict(&mut self, nodes: &mut Nodes, shards: &Shards, now: u32) -> Option<NodeId> {
        let mut passed = 0;
        loop {
            let (_, oldest) = self.lists.front_mut()?;
            let Some(id) = oldest.back() else {
                self.lists.pop_front();
                continue;
            };
            oldest.unlink(nodes, id);
            let (last_used, _) = usage(nodes, shards, id);
            let index = self.index(last_used, now);
            if index == 0 || passed >= MAX_PASSED {
                return Some(id);
            }
            if let Some((generation, list)) = self.lists.get_mut(index) {
                list.push(nodes, id, *generation);
            }
            passed += 1;
        }
    }
}

/// Least frequently used, with the past fading: of those used equally seldom the oldest goes. Keys that have gone are remembered
/// with their frequency, so that one that returns goes on where it was. Usage: see [`Frequency`].
#[derive(Debug)]
pub(super) struct Lfu {
    /// By frequency.
    lists: [List; Frequency::MOST as usize + 1],
    ghosts: Ghosts,
    keys: usize,
    epoch: u32,
    /// Keys taken in in this epoch.
    admitted: usize,
}

/// How often a key was used, in the low 8 bits; above them the epoch in which it was counted. Each later epoch halves it.
#[derive(Debug, Clone, Copy)]
struct Frequency;

impl Frequency {
    /// More often makes no difference: keys that are used so often do not go.
    const MOST: u32 = 63;
    const EPOCHS: u32 = (1 << 24) - 1;

    fn at(usage: u32, epoch: u32) -> u32 {
        let halvings = epoch.wrapping_sub(usage >> 8) & Self::EPOCHS;
        (usage & 0xff).min(Self::MOST).checked_shr(halvings).unwrap_or(0)
    }

    fn pack(frequency: u32, epoch: u32) -> u32 {
        (epoch & Self::EPOCHS) << 8 | frequency.min(Self::MOST)
    }
}

impl Default for Lfu {
    fn default() -> Self {
        Self {
            lists: [List::default(); Frequency::MOST as usize + 1],
            ghosts: Ghosts::default(),
            keys: 0,
            epoch: 0,
            admitted: 0,
        }
    }
}

impl Lfu {
    /// An epoch is over when so many times the keys that there are have been taken in.
    const EPOCH: usize = 8;
    /// But not before so many.
    const SHORTEST_EPOCH: usize = 256;

    pub fn used(usage: u32) -> u32 {
        if usage & 0xff < Frequency::MOST {
            usage + 1
        } else {
            usage
        }
    }

    fn admit(&mut self, nodes: &mut Nodes, id: NodeId, fingerprint: u32) -> u32 {
        self.admitted += 1;
        if self.admitted > (Self::EPOCH * self.keys).max(Self::SHORTEST_EPOCH) {
            self.begin_epoch(nodes);
        }
        self.keys += 1;
        let before = self
            .ghosts
            .recall(fingerprint)
            .map_or(0, |usage| Frequency::at(usage, self.epoch));
        let usage = Frequency::pack(before + 1, self.epoch);
        self.push(nodes, id, usage);
        usage
    }

    fn begin_epoch(&mut self, nodes: &mut Nodes) {
        (self.epoch, self.admitted) = (self.epoch.wrapping_add(1), 0);
        let mut before = std::mem::replace(&mut self.lists, [List::default(); Frequency::MOST as usize + 1]);
        // The more frequent in front of the less frequent that they are now put together with.
        for (frequency, list) in before.iter_mut().enumerate().rev() {
            if let Some(halved) = self.lists.get_mut(frequency / 2) {
                halved.append(nodes, *list);
            }
        }
    }

    fn push(&mut self, nodes: &mut Nodes, id: NodeId, usage: u32) {
        let frequency = Frequency::at(usage, self.epoch);
        if let Some(list) = self.lists.get_mut(frequency as usize) {
            list.push(nodes, id, Frequency::pack(frequency, self.epoch));
        }
    }

    fn unlink(&mut self, nodes: &mut Nodes, id: NodeId) {
        let frequency = Frequency::at(nodes.list(id), self.epoch);
        if let Some(list) = self.lists.get_mut(frequency as usize) {
            list.unlink(nodes, id);
        }
    }

    fn remove(&mut self, nodes: &mut Nodes, id: NodeId) {
        self.unlink(nodes, id);
        self.keys -= 1;
    }

    fn evict(&mut self, nodes: &mut Nodes, shards: &Shards) -> Option<NodeId> {
        let mut passed = 0;
        loop {
            let id = self.lists.iter().find_map(List::back)?;
            let (usage, fingerprint) = usage(nodes, shards, id);
            let listed = Frequency::at(nodes.list(id), self.epoch);
            let frequency = Frequency::at(usage, self.epoch);
            self.unlink(nodes, id);
            if frequency > listed && passed < MAX_PASSED {
                let usage = Frequency::pack(frequency, self.epoch);
                set_usage(nodes, shards, id, usage);
                self.push(nodes, id, usage);
                passed += 1;
                continue;
            }
            self.keys -= 1;
            let epoch = self.epoch;
            let worth = |usage: u32| Frequency::at(usage, epoch);
            self.ghosts.grow(self.keys, worth);
            // Zero would be a free place, and there is nothing to remember of it.
            if frequency > 0 {
                self.ghosts
                    .remember(fingerprint, Frequency::pack(frequency, epoch), worth);
            }
            return Some(id);
        }
    }
}
