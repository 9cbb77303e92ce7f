//! What is remembered of keys that have gone: a number for a fingerprint.

/// Places that a fingerprint may take: so many keys have to meet before one is forgotten early.
const WAYS: usize = 4;

/// A table of bounded size that forgets: 8 bytes for each key, for as many keys as the cache itself has.
#[derive(Debug, Default)]
pub(super) struct Ghosts {
    places: Vec<Ghost>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Ghost {
    fingerprint: u32,
    /// Zero: the place is free.
    value: u32,
}

impl Ghosts {
    /// Makes room for as many keys as there are; never less than there was.
    pub fn grow(&mut self, keys: usize, worth: impl Fn(u32) -> u32) {
        if self.places.len() >= keys.max(1) {
            return;
        }
        let places = keys.next_power_of_two().max(64);
        let before = std::mem::replace(&mut self.places, vec![Ghost::default(); places]);
        for ghost in before.into_iter().filter(|ghost| ghost.value != 0) {
            self.remember(ghost.fingerprint, ghost.value, &worth);
        }
    }

    /// `value` is not zero; `worth`: of those that share a place, the one with the least goes.
    pub fn remember(&mut self, fingerprint: u32, value: u32, worth: impl Fn(u32) -> u32) {
        let Some(places) = self.bucket(fingerprint) else { return };
        let same = places
            .iter()
            .position(|ghost| ghost.value != 0 && ghost.fingerprint == fingerprint);
        let least = || (0..places.len()).min_by_key(|at| places.get(*at).map(|g| (g.value != 0, worth(g.value))));
        if let Some(place) = same.or_else(least).and_then(|at| places.get_mut(at)) {
            *place = Ghost { fingerprint, value };
        }
    }

    /// Forgets a key and answers what was remembered of it.
    pub fn recall(&mut self, fingerprint: u32) -> Option<u32> {
        let ghost = self
            .bucket(fingerprint)?
            .iter_mut()
            .find(|g| g.value != 0 && g.fingerprint == fingerprint)?;
        Some(std::mem::take(ghost).value)
    }

    fn bucket(&mut self, fingerprint: u32) -> Option<&mut [Ghost]> {
        let buckets = self.places.len() / WAYS;
        if buckets == 0 {
            return None;
        }
        // The low bits have chosen a place in the cache's own tables; any will do here.
        let at = (fingerprint as usize & (buckets - 1)) * WAYS;
        self.places.get_mut(at..at + WAYS)
    }
}
