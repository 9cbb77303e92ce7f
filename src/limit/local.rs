//! What every key has used, in memory: a table with an upper bound that holds whatever comes.
//!
//! A key is 64 bits of a keyed hash and its [`State`] one word: 16 bytes. Shards have a lock each, held for some nanoseconds. A key
//! that has everything back is worth nothing, and its place is the next one's: that is how old ones expire. A shard grows as long as
//! it has not its share of `max_keys`; from then on a new key takes the place of the one nearby that has the least to lose, so
//! a flood of new addresses, of which each has used next to nothing, pushes out its own kind: neither does a client that
//! has used up its limit get free, nor is anybody refused for want of room.

use std::hash::{BuildHasher, Hash, RandomState};

use parking_lot::Mutex;

use super::gcra::State;

/// A power of two. So many that two threads seldom meet at one.
const SHARDS: usize = 64;

/// Slots that are looked at for one key, in a row: eight cache lines at the worst.
const WINDOW: usize = 32;

/// Slots of a shard that has just begun.
const FEWEST: usize = 64;

/// Keys that are kept at most, where nothing is said.
pub const MAX_KEYS: usize = 1_000_000;

/// A key of a limit, as a hash that only this process can compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyHash(u64);

impl KeyHash {
    pub(super) fn value(self) -> u64 {
        self.0
    }
}

#[derive(Debug)]
pub struct Table {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    /// Per shard; a power of two.
    max_slots: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    /// 0: nobody has been here.
    key: u64,
    state: u64,
}

#[derive(Debug)]
struct Shard {
    slots: Box<[Slot]>,
    /// Slots that somebody has been in.
    used: usize,
}

impl Table {
    /// For at most `max_keys` that have used something.
    pub fn new(max_keys: usize) -> Self {
        // A quarter more, so that rows of taken slots stay short.
        let slots = (max_keys / SHARDS).saturating_add(max_keys / SHARDS / 4);
        let shards = (0..SHARDS).map(|_| Mutex::new(Shard::new(FEWEST))).collect();
        Self {
            shards,
            hasher: RandomState::new(),
            max_slots: slots.next_power_of_two().max(FEWEST),
        }
    }

    pub fn hash(&self, key: &impl Hash) -> KeyHash {
        // 0 is the mark of an empty slot.
        KeyHash(self.hasher.hash_one(key).max(1))
    }

    /// Changes what is known of a key.
    pub fn update<R>(&self, key: KeyHash, now: u64, change: impl FnOnce(State) -> (State, R)) -> R {
        let mut shard = self.shard(key).lock();
        match shard.find(key.0, now) {
            Place::Known(at) => {
                let slot = &mut shard.slots[at];
                let (state, result) = change(State::from_word(slot.state));
                slot.state = state.word();
                result
            }
            Place::Free(at) => {
                let (state, result) = change(State::NEW);
                if state.forgettable_at() > now {
                    shard.enter(at, key.0, state, now, self.max_slots);
                }
                result
            }
        }
    }

    /// What is known of a key.
    pub fn read(&self, key: KeyHash, now: u64) -> State {
        let shard = self.shard(key).lock();
        match shard.find(key.0, now) {
            Place::Known(at) => State::from_word(shard.slots[at].state),
            Place::Free(_) => State::NEW,
        }
    }

    /// Keys that have used something.
    pub fn len(&self, now: u64) -> usize {
        self.shards.iter().map(|shard| shard.lock().live(now)).sum()
    }

    pub fn is_empty(&self, now: u64) -> bool {
        self.len(now) == 0
    }

    /// Bytes of all slots.
    pub fn bytes(&self) -> usize {
        let slots: usize = self.shards.iter().map(|shard| shard.lock().slots.len()).sum();
        slots * std::mem::size_of::<Slot>()
    }

    /// Gives back the room of one shard that is mostly empty. For now and then: looks at every slot of it.
    pub fn sweep(&self, turn: usize, now: u64) {
        let Some(shard) = self.shards.get(turn % SHARDS) else {
            return;
        };
        let mut shard = shard.lock();
        let live = shard.live(now);
        if shard.slots.len() > FEWEST && live < shard.slots.len() / 8 {
            let slots = (live * 4).next_power_of_two().max(FEWEST);
            shard.rebuild(slots, now);
        }
    }

    fn shard(&self, KeyHash(key): KeyHash) -> &Mutex<Shard> {
        // The lower bits choose the slot.
        &self.shards[(key >> (u64::BITS - SHARDS.ilog2())) as usize]
    }
}

enum Place {
    Known(usize),
    /// Where the key may go.
    Free(usize),
}

impl Shard {
    fn new(slots: usize) -> Self {
        Self {
            slots: vec![Slot::default(); slots].into(),
            used: 0,
        }
    }

    fn live(&self, now: u64) -> usize {
        let is_live = |slot: &&Slot| slot.key != 0 && State::from_word(slot.state).forgettable_at() > now;
        self.slots.iter().filter(is_live).count()
    }

    fn find(&self, key: u64, now: u64) -> Place {
        let mask = self.slots.len() - 1;
        let start = key as usize & mask;
        let mut free = start;
        let mut least = u64::MAX;
        for offset in 0..WINDOW {
            let at = (start + offset) & mask;
            let slot = self.slots[at];
            if slot.key == key {
                return Place::Known(at);
            }
            if slot.key == 0 {
                return Place::Free(if least <= now { free } else { at });
            }
            // The first that is worth nothing, or else the one with the least to lose.
            let worth = State::from_word(slot.state).forgettable_at();
            if least > now && worth < least {
                (free, least) = (at, worth);
            }
        }
        Place::Free(free)
    }

    /// Puts a key where [`Shard::find`] found room.
    fn enter(&mut self, mut at: usize, key: u64, state: State, now: u64, max_slots: usize) {
        let slot = self.slots[at];
        let is_worth_something = slot.key != 0 && State::from_word(slot.state).forgettable_at() > now;
        let is_crowded = is_worth_something || (slot.key == 0 && self.used >= self.slots.len() / 8 * 5);
        if is_crowded && self.slots.len() < max_slots {
            let live = self.live(now);
            // Mostly it is the dead that take up the room.
            let slots = match live > self.slots.len() / 4 {
                true => self.slots.len() * 2,
                false => self.slots.len(),
            };
            self.rebuild(slots, now);
            at = match self.find(key, now) {
                Place::Known(at) | Place::Free(at) => at,
            };
        }
        let slot = &mut self.slots[at];
        self.used += usize::from(slot.key == 0);
        *slot = Slot {
            key,
            state: state.word(),
        };
    }

    fn rebuild(&mut self, slots: usize, now: u64) {
        let before = std::mem::replace(self, Self::new(slots));
        for slot in before.slots {
            let state = State::from_word(slot.state);
            if slot.key == 0 || state.forgettable_at() <= now {
                continue;
            }
            let (Place::Known(at) | Place::Free(at)) = self.find(slot.key, now);
            let place = &mut self.slots[at];
            self.used += usize::from(place.key == 0);
            *place = slot;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::limit::gcra::{Admission, Gcra};

    const SECOND: u64 = 1_000_000_000;

    fn admits(table: &Table, gcra: &Gcra, key: u64, now: u64) -> bool {
        let verdict = table.update(table.hash(&key), now, |state| gcra.take(state, now, 1));
        verdict.admission == Admission::Admitted
    }

    proptest! {
        /// As long as there is room the table is a map.
        #[test]
        fn it_remembers_every_key(steps in prop::collection::vec((0_u64..600, 0_u64..2 * SECOND), 1..2000)) {
            let table = Table::new(100_000);
            let gcra = Gcra::new(3, Duration::from_secs(10), 3, Duration::ZERO);
            let mut model: HashMap<u64, State> = HashMap::new();
            let mut now = 0;
            for (key, step) in steps {
                now += step / 100;
                let known = model.entry(key).or_insert(State::NEW);
                let (state, verdict) = gcra.take(*known, now, 1);
                *known = state;
                prop_assert_eq!(admits(&table, &gcra, key, now), verdict.admission == Admission::Admitted);
            }
        }
    }

    #[test]
    fn a_million_live_keys_take_less_than_a_hundred_mebibytes() {
        let table = Table::new(MAX_KEYS);
        let gcra = Gcra::new(100, Duration::from_secs(60), 1, Duration::ZERO);
        for key in 0..1_000_000 {
            assert!(admits(&table, &gcra, key, 1));
        }
        // Half full, hardly a row of 32 slots is without room.
        assert!(table.len(1) > 999_900, "{}", table.len(1));
        assert!(table.bytes() < 100 << 20, "{} bytes", table.bytes());
        let refused = (0..1_000_000).filter(|key| !admits(&table, &gcra, *key, 2)).count();
        assert!(refused > 999_900, "each of them is remembered: {refused}");
        // A minute later they are worth nothing, and the room comes back.
        for turn in 0..SHARDS {
            table.sweep(turn, 61 * SECOND);
        }
        assert!(table.bytes() < 1 << 20, "{} bytes", table.bytes());
    }

    #[test]
    fn a_flood_of_addresses_frees_nobody_and_blocks_nobody() {
        let table = Table::new(20_000);
        let gcra = Gcra::new(60, Duration::from_secs(60), 60, Duration::ZERO);
        let spent = u64::MAX - 1;
        while admits(&table, &gcra, spent, 1) {}
        for key in 0..1_000_000 {
            assert!(admits(&table, &gcra, key, 1), "a new address is let in");
        }
        assert!(table.bytes() <= 20_000 * 16 * 4, "{} bytes", table.bytes());
        assert!(
            !admits(&table, &gcra, spent, 1),
            "who has used up everything stays refused"
        );
    }

    #[test]
    fn the_dead_make_room_without_growth() {
        let table = Table::new(MAX_KEYS);
        let gcra = Gcra::new(1, Duration::from_secs(1), 1, Duration::ZERO);
        for key in 0..1_000_000_u64 {
            // A thousand of them live at a time.
            assert!(admits(&table, &gcra, key, key * SECOND / 1000));
        }
        assert!(table.bytes() < 1 << 18, "{} bytes", table.bytes());
    }
}
