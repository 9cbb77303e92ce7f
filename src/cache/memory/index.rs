//! Where in a shard a key may be: a hash table of small numbers, made for one look.
//!
//! Among a million keys nothing that a lookup reads is in the processor's caches, so it takes as long as the places are that it looks at,
//! one after the other. Here that is one line, nearly always: the first bits of twelve hashes, and what they lead to beside them.

/// Keys of one line.
const PLACES: usize = 12;

/// Of them, those that are taken when the table grows. More would spill over into the next line too often.
const MOST_TAKEN: usize = 8;

/// And on average at most after it has.
const TAKEN_AFTER_GROWTH: usize = 6;

/// What is said of places that no key has: one never had any since the table grew, or the line has others like it; or one had, and the
/// search goes on behind it.
const VACANT: u8 = 0;
const GONE: u8 = 1;
const FIRST_TAG: u8 = 2;

/// As long as what the processor fetches at once.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Line {
    /// Those behind the places are never vacant.
    tags: [u8; 16],
    indices: [u32; PLACES],
}

/// The numbers of keys, found by fingerprints that several may share. Whoever asks knows each key's fingerprint.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// As many as a power of two, or none.
    lines: Vec<Line>,
    keys: usize,
    /// Places that are not vacant.
    taken: usize,
}

/// The highest bits: the lowest say which line it is.
fn tag(fingerprint: u32) -> u8 {
    ((fingerprint >> 24) as u8).max(FIRST_TAG)
}

impl Line {
    const EMPTY: Self = {
        let mut tags = [VACANT; 16];
        let mut behind = PLACES;
        while behind < tags.len() {
            tags[behind] = GONE;
            behind += 1;
        }
        Self {
            tags,
            indices: [0; PLACES],
        }
    };

    /// Places with this tag, and perhaps some others behind the first of them.
    #[inline]
    fn places(&self, tag: u8) -> impl Iterator<Item = usize> + use<> {
        const ONES: u128 = u128::from_ne_bytes([1; 16]);
        // All bytes at once: those that are the tag become zero, and a zero is what borrows from its highest bit.
        let differing = u128::from_le_bytes(self.tags) ^ u128::from_ne_bytes([tag; 16]);
        let mut found = differing.wrapping_sub(ONES) & !differing & (ONES << 7);
        std::iter::from_fn(move || {
            let first = (found != 0).then(|| found.trailing_zeros() as usize / 8);
            found &= found.wrapping_sub(1);
            first
        })
    }

    #[inline]
    fn first(&self, tag: u8) -> Option<usize> {
        self.places(tag).next()
    }
}

impl Index {
    /// The numbers of the lines in which a key may be.
    #[inline]
    fn way(&self, fingerprint: u32) -> impl Iterator<Item = usize> + use<> {
        let count = self.lines.len();
        let start = fingerprint as usize;
        (0..count).map(move |step| start.wrapping_add(step) & (count - 1))
    }

    /// How many there are.
    pub fn keys(&self) -> usize {
        self.keys
    }

    /// The key with that fingerprint that it is.
    #[inline]
    pub fn find(&self, fingerprint: u32, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        for line in self.way(fingerprint) {
            let line = self.lines.get(line)?;
            for place in line.places(tag(fingerprint)) {
                let index = *line.indices.get(place)?;
                if is_it(index) {
                    return Some(index);
                }
            }
            if line.first(VACANT).is_some() {
                return None;
            }
        }
        None
    }

    /// Puts a key in that is not there. `fingerprint_of` those that are there is asked when the table grows.
    pub fn insert(&mut self, fingerprint: u32, index: u32, fingerprint_of: impl Fn(u32) -> u32) {
        if self.taken >= self.lines.len() * MOST_TAKEN {
            self.grow(fingerprint_of);
        }
        self.place(fingerprint, index);
    }

    fn place(&mut self, fingerprint: u32, index: u32) {
        for number in self.way(fingerprint) {
            let Some(line) = self.lines.get_mut(number) else { return };
            let vacant = line.first(VACANT);
            // Those behind the places are as if they were gone.
            let gone = line.first(GONE).filter(|place| *place < PLACES);
            if let Some(place) = gone.or(vacant)
                && let (Some(its_tag), Some(its_index)) = (line.tags.get_mut(place), line.indices.get_mut(place))
            {
                self.taken += usize::from(*its_tag == VACANT);
                self.keys += 1;
                (*its_tag, *its_index) = (tag(fingerprint), index);
                return;
            }
        }
    }

    fn grow(&mut self, fingerprint_of: impl Fn(u32) -> u32) {
        let lines = (self.keys + 1).div_ceil(TAKEN_AFTER_GROWTH).next_power_of_two();
        let before = std::mem::replace(&mut self.lines, vec![Line::EMPTY; lines]);
        (self.keys, self.taken) = (0, 0);
        for line in before {
            for (tag, index) in line.tags.into_iter().zip(line.indices) {
                if tag >= FIRST_TAG {
                    self.place(fingerprint_of(index), index);
                }
            }
        }
    }

    /// Takes a key out.
    pub fn remove(&mut self, fingerprint: u32, index: u32) {
        for number in self.way(fingerprint) {
            let Some(line) = self.lines.get_mut(number) else { return };
            let ends_here = line.first(VACANT).is_some();
            let mut places = line.places(tag(fingerprint));
            if let Some(place) = places.find(|place| line.indices.get(*place) == Some(&index))
                && let Some(tag) = line.tags.get_mut(place)
            {
                *tag = if ends_here { VACANT } else { GONE };
                self.taken -= usize::from(ends_here);
                self.keys -= 1;
                return;
            }
            if ends_here {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_is_what_the_processor_fetches_at_once() {
        assert_eq!((size_of::<Line>(), align_of::<Line>()), (64, 64));
    }

    #[test]
    fn as_many_keys_come_as_go_and_the_table_stays_as_it_is() {
        let mut index = Index::default();
        let fingerprint = |number: u32| number.wrapping_mul(0x9e37_79b9);
        for number in 0..1000 {
            index.insert(fingerprint(number), number, fingerprint);
        }
        let lines = index.lines.len();
        assert!((1000..4000).contains(&(lines * PLACES)), "{lines} lines");
        for number in 1000..100_000 {
            index.remove(fingerprint(number - 1000), number - 1000);
            index.insert(fingerprint(number), number, fingerprint);
        }
        assert!(index.lines.len() <= 2 * lines, "{} lines", index.lines.len());
        for number in 99_000..100_000 {
            assert_eq!(index.find(fingerprint(number), |found| found == number), Some(number));
        }
        assert_eq!(index.keys, 1000);
    }

    proptest! {
        /// Few fingerprints, so that lines fill up, and all of their bits.
        #[test]
        fn what_was_put_in_is_found_until_it_is_taken_out(
            steps in proptest::collection::vec((any::<bool>(), 0..60_u32, 0..8_u32, 0..4_u32), 0..300),
        ) {
            let mut index = Index::default();
            let mut model: HashMap<u32, u32> = HashMap::new();
            for (put, number, low, high) in steps {
                match (model.get(&number).copied(), put) {
                    (None, true) => {
                        let fingerprint = (high << 24) | low;
                        index.insert(fingerprint, number, |number| model[&number]);
                        model.insert(number, fingerprint);
                    }
                    (Some(fingerprint), false) => {
                        index.remove(fingerprint, number);
                        model.remove(&number);
                    }
                    _ => {}
                }
                prop_assert_eq!(index.keys, model.len());
                prop_assert!(index.taken <= index.lines.len() * MOST_TAKEN);
                for (number, fingerprint) in &model {
                    prop_assert_eq!(index.find(*fingerprint, |found| found == *number), Some(*number));
                }
                for fingerprint in 0..8 {
                    index.find(fingerprint, |found| {
                        assert!(model.contains_key(&found), "{found} is not there");
                        false
                    });
                }
            }
        }
    }
}
