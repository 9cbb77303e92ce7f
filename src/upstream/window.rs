//! How often something has happened of late, counted without locks.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Parts of the window. What is older than the window by less than a part of it has left it already.
const SLOTS: usize = 10;

/// Bits of each count in a slot, beside the number of the slot in the remaining ones.
const COUNT_BITS: u32 = 20;
const MAX_COUNT: u64 = (1 << COUNT_BITS) - 1;
const NUMBER_BITS: u32 = 64 - 2 * COUNT_BITS;
const MAX_NUMBER: u64 = (1 << NUMBER_BITS) - 1;

/// Counts over the last while. Times are those of one clock that never goes back.
#[derive(Debug)]
pub struct Window {
    slots: [AtomicU64; SLOTS],
    /// Nanoseconds; never zero.
    slot: u64,
}

/// Something, and the part of it that is of a certain kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub all: u32,
    pub marked: u32,
}

/// A slot, unpacked.
#[derive(Debug, Clone, Copy)]
struct Slot {
    /// How many slots before it, as far as it fits.
    number: u64,
    all: u64,
    marked: u64,
}

impl Slot {
    fn unpack(packed: u64) -> Self {
        Self {
            number: packed >> (2 * COUNT_BITS),
            all: packed & MAX_COUNT,
            marked: packed >> COUNT_BITS & MAX_COUNT,
        }
    }

    fn pack(self) -> u64 {
        self.number << (2 * COUNT_BITS) | self.marked << COUNT_BITS | self.all
    }

    fn plus(mut self, counts: Counts) -> Self {
        if self.all.max(self.marked) + u64::from(counts.all.max(counts.marked)) > MAX_COUNT {
            // A million in a tenth of the window: their proportion is what matters.
            self.all /= 2;
            self.marked /= 2;
        }
        self.all = (self.all + u64::from(counts.all)).min(MAX_COUNT);
        self.marked = (self.marked + u64::from(counts.marked)).min(MAX_COUNT);
        self
    }
}

impl Window {
    pub fn new(length: Duration) -> Self {
        let slot = length.as_nanos() / SLOTS as u128;
        Self {
            slots: Default::default(),
            slot: u64::try_from(slot).unwrap_or(u64::MAX).max(1),
        }
    }

    pub fn add(&self, now: Duration, counts: Counts) {
        let number = self.number(now);
        let Some(place) = self.slots.get(number as usize % SLOTS) else {
            return;
        };
        let number = number & MAX_NUMBER;
        let mut before = place.load(Relaxed);
        loop {
            let slot = match Slot::unpack(before) {
                slot if slot.number == number => slot,
                // It was for an earlier time: begun anew.
                _ => Slot {
                    number,
                    all: 0,
                    marked: 0,
                },
            };
            match place.compare_exchange_weak(before, slot.plus(counts).pack(), Relaxed, Relaxed) {
                Ok(_) => return,
                Err(meanwhile) => before = meanwhile,
            }
        }
    }

    /// What has been added within the window's length before now.
    pub fn counts(&self, now: Duration) -> Counts {
        let number = self.number(now);
        let mut sum = Counts::default();
        for slot in &self.slots {
            let slot = Slot::unpack(slot.load(Relaxed));
            let age = number.wrapping_sub(slot.number) & MAX_NUMBER;
            if age < SLOTS as u64 {
                sum.all += slot.all as u32;
                sum.marked += slot.marked as u32;
            }
        }
        sum
    }

    pub fn clear(&self) {
        for slot in &self.slots {
            slot.store(0, Relaxed);
        }
    }

    fn number(&self, now: Duration) -> u64 {
        u64::try_from(now.as_nanos() / u128::from(self.slot)).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    const LENGTH: Duration = Duration::from_secs(10);

    fn one(marked: u32) -> Counts {
        Counts { all: 1, marked }
    }

    #[test]
    fn what_is_older_than_the_window_no_longer_counts() {
        let window = Window::new(LENGTH);
        let at = |seconds| Duration::from_secs(seconds);
        window.add(at(100), one(1));
        window.add(at(104), one(0));
        assert_eq!(window.counts(at(104)), Counts { all: 2, marked: 1 });
        assert_eq!(window.counts(at(109)), Counts { all: 2, marked: 1 });
        assert_eq!(window.counts(at(110)), Counts { all: 1, marked: 0 });
        assert_eq!(window.counts(at(114)), Counts::default());
        window.add(at(200), one(0));
        assert_eq!(window.counts(at(200)), Counts { all: 1, marked: 0 });
        window.clear();
        assert_eq!(window.counts(at(200)), Counts::default());
    }

    #[test]
    fn the_proportion_stays_when_a_slot_is_full() {
        let window = Window::new(LENGTH);
        for number in 0..3 * MAX_COUNT {
            window.add(Duration::ZERO, one(u32::from(number % 4 == 0)));
        }
        let Counts { all, marked } = window.counts(Duration::ZERO);
        assert!(all > 100_000);
        assert!(
            (f64::from(marked) / f64::from(all) - 0.25).abs() < 0.001,
            "{marked} of {all}"
        );
    }

    #[test]
    fn threads_lose_nothing() {
        let window = Window::new(LENGTH);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| window.add(Duration::from_secs(7), one(1))));
            }
        });
        let all = 40_000;
        assert_eq!(window.counts(Duration::from_secs(7)), Counts { all, marked: all });
    }

    proptest! {
        #[test]
        fn it_counts_the_slots_of_its_length(steps in prop::collection::vec((0..3000_u64, 0..2_u32), 1..200)) {
            let window = Window::new(LENGTH);
            let mut now = 0;
            let mut added = VecDeque::new();
            for (step, marked) in steps {
                now += step;
                window.add(Duration::from_millis(now), one(marked));
                added.push_back((now, marked));
                // A slot is a second long.
                while added.front().is_some_and(|(at, _)| at / 1000 + 10 <= now / 1000) {
                    added.pop_front();
                }
                let marked = added.iter().map(|(_, marked)| marked).sum();
                let expected = Counts { all: added.len() as u32, marked };
                prop_assert_eq!(window.counts(Duration::from_millis(now)), expected);
            }
        }
    }
}
