//! What the orders of eviction are made of: one node for each key, linked into lists.

use super::shard::Slot;

/// Stands for "none" in links.
const NIL: u32 = u32::MAX;

/// Identifies a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NodeId(u32);

/// A key's place in an order of eviction, and what deciding about it needs: 32 bytes.
#[derive(Debug)]
struct Node {
    /// Towards the front; in a free node the next free one.
    prev: u32,
    /// Towards the back, which goes first.
    next: u32,
    slot: Option<Slot>,
    useless_from: u32,
    /// The order's own mark of the list that it is in.
    list: u32,
    share: u16,
    route: u16,
    weight: u64,
}

/// The facts about a node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub slot: Slot,
    /// Bytes.
    pub weight: u64,
    /// Index of the share that it counts to.
    pub share: u16,
    /// Index of the route that stored it.
    pub route: u16,
    /// Seconds since 1970; rounded up.
    pub useless_from: u32,
}

#[derive(Debug)]
pub(super) struct Nodes {
    nodes: Vec<Node>,
    free: u32,
    /// Where [`Nodes::next_useless`] goes on.
    cursor: usize,
}

impl NodeId {
    pub const FIRST: Self = Self(0);
    pub const LAST: Self = Self(NIL);
}

impl Nodes {
    pub fn new() -> Self {
        Self {
            nodes: Vec::new(),
            free: NIL,
            cursor: 0,
        }
    }

    /// `None`: there are as many as can be counted.
    pub fn insert(&mut self, place: Place) -> Option<NodeId> {
        let node = Node {
            prev: NIL,
            next: NIL,
            slot: Some(place.slot),
            useless_from: place.useless_from,
            list: 0,
            share: place.share,
            route: place.route,
            weight: place.weight,
        };
        if let Some(free) = self.nodes.get_mut(self.free as usize) {
            let id = NodeId(self.free);
            self.free = free.prev;
            *free = node;
            return Some(id);
        }
        let id = u32::try_from(self.nodes.len()).ok().filter(|id| *id != NIL)?;
        self.nodes.push(node);
        Some(NodeId(id))
    }

    /// The node must be in no list any more.
    pub fn remove(&mut self, id: NodeId) {
        let free = self.free;
        let Some(node) = self.nodes.get_mut(id.0 as usize) else {
            return;
        };
        if node.slot.take().is_some() {
            node.prev = free;
            self.free = id.0;
        }
    }

    pub fn place(&self, id: NodeId) -> Option<Place> {
        let node = self.nodes.get(id.0 as usize)?;
        Some(Place {
            slot: node.slot?,
            weight: node.weight,
            share: node.share,
            route: node.route,
            useless_from: node.useless_from,
        })
    }

    /// The list must have been told of the weight, and the node stays in its share.
    pub fn update(&mut self, id: NodeId, weight: u64, useless_from: u32, route: u16) {
        if let Some(node) = self.nodes.get_mut(id.0 as usize) {
            (node.weight, node.useless_from, node.route) = (weight, useless_from, route);
        }
    }

    pub fn weight(&self, id: NodeId) -> u64 {
        self.nodes.get(id.0 as usize).map_or(0, |node| node.weight)
    }

    pub fn list(&self, id: NodeId) -> u32 {
        self.nodes.get(id.0 as usize).map_or(0, |node| node.list)
    }

    /// The nodes in use among so many from this one on, and where to go on after them.
    pub fn some(&self, from: NodeId, steps: usize) -> (Vec<NodeId>, Option<NodeId>) {
        let from = from.0 as usize;
        let end = from.saturating_add(steps).min(self.nodes.len());
        let used = self.nodes.get(from..end).unwrap_or_default().iter().zip(from as u32..);
        let used = used.filter(|(node, _)| node.slot.is_some());
        let next = (end < self.nodes.len()).then_some(NodeId(end as u32));
        (used.map(|(_, id)| NodeId(id)).collect(), next)
    }

    /// Looks at the next `steps` nodes, round and round, for one that is of no use any more.
    pub fn next_useless(&mut self, now: u32, steps: usize) -> Option<NodeId> {
        for _ in 0..steps.min(self.nodes.len()) {
            if self.cursor >= self.nodes.len() {
                self.cursor = 0;
            }
            let at = self.cursor;
            self.cursor += 1;
            let node = self.nodes.get(at)?;
            if node.slot.is_some() && node.useless_from <= now {
                return Some(NodeId(at as u32));
            }
        }
        None
    }
}

/// A list of nodes: new ones come in at the front, the back goes first.
#[derive(Debug, Clone, Copy)]
pub(super) struct List {
    front: u32,
    back: u32,
}

impl Default for List {
    fn default() -> Self {
        Self { front: NIL, back: NIL }
    }
}

impl List {
    pub fn back(&self) -> Option<NodeId> {
        if self.back == NIL {
            None
        } else {
            Some(NodeId(self.back))
        }
    }

    pub fn is_empty(&self) -> bool {
        self.back == NIL
    }

    /// Puts a node that is in no list in front, marked with `mark`.
    pub fn push(&mut self, nodes: &mut Nodes, id: NodeId, mark: u32) {
        let Some(node) = nodes.nodes.get_mut(id.0 as usize) else {
            return;
        };
        (node.prev, node.next, node.list) = (NIL, self.front, mark);
        match nodes.nodes.get_mut(self.front as usize) {
            Some(front) => front.prev = id.0,
            None => self.back = id.0,
        }
        self.front = id.0;
    }

    /// Takes a node of this list out.
    pub fn unlink(&mut self, nodes: &mut Nodes, id: NodeId) {
        let Some(node) = nodes.nodes.get_mut(id.0 as usize) else {
            return;
        };
        let (prev, next) = (node.prev, node.next);
        (node.prev, node.next) = (NIL, NIL);
        match nodes.nodes.get_mut(prev as usize) {
            Some(prev) => prev.next = next,
            None => self.front = next,
        }
        match nodes.nodes.get_mut(next as usize) {
            Some(next) => next.prev = prev,
            None => self.back = prev,
        }
    }

    /// Puts all nodes of another list behind those of this one.
    pub fn append(&mut self, nodes: &mut Nodes, behind: Self) {
        if behind.is_empty() {
            return;
        }
        match nodes.nodes.get_mut(self.back as usize) {
            Some(back) => back.next = behind.front,
            None => self.front = behind.front,
        }
        if let Some(front) = nodes.nodes.get_mut(behind.front as usize) {
            front.prev = self.back;
        }
        self.back = behind.back;
    }
}
