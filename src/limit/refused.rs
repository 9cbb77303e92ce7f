//! Which keys are refused most, in bounded memory.

use std::collections::HashMap;

use hashbrown::HashTable;
use parking_lot::Mutex;

use super::keys::Label;
use crate::metrics::PerThread;

/// Keys that are watched for each limit, by each thread. The true share of a key that has more than a hundredth of all refusals is known.
const WATCHED: usize = 100;

/// Who is refused by one limit. Threads count for themselves: who floods a proxy makes all of them refuse at once.
#[derive(Debug, Default)]
pub struct TopKeys(PerThread<Mutex<Watch>>);

/// The space-saving algorithm (Metwally, Agrawal, El Abbadi 2005): a new key takes the place, and the count, of the one with the fewest.
#[derive(Debug, Default)]
struct Watch {
    watched: Vec<Watched>,
    /// Where a key is in `watched`.
    places: HashTable<usize>,
    /// None has fewer, and those in front of `next` have more.
    fewest: u64,
    next: usize,
}

#[derive(Debug)]
struct Watched {
    key: u64,
    label: Label,
    count: u64,
    /// Of another key that was watched here before.
    inherited: u64,
}

/// A key that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedKey {
    pub label: String,
    /// At most so often.
    pub count: u64,
    /// And at least so much less often.
    pub uncertain: u64,
}

impl TopKeys {
    /// Counts a refusal. `key` is a hash; `label` is asked for when the key has not been watched.
    pub fn count(&self, key: u64, label: impl FnOnce() -> Label) {
        self.0.own().lock().count(key, label);
    }

    /// The most refused first.
    pub fn top(&self, at_most: usize) -> Vec<RefusedKey> {
        let mut found: HashMap<u64, RefusedKey> = HashMap::new();
        for watch in self.0.iter() {
            for watched in &watch.lock().watched {
                found.entry(watched.key).or_insert_with(|| RefusedKey {
                    label: watched.label.to_string(),
                    count: 0,
                    uncertain: 0,
                });
            }
        }
        for watch in self.0.iter() {
            let watch = watch.lock();
            for (key, sum) in &mut found {
                match watch.get(*key) {
                    Some(watched) => {
                        sum.count += watched.count;
                        sum.uncertain += watched.inherited;
                    }
                    // It may have been watched there, and given up its place.
                    None => {
                        let forgotten = watch.forgotten();
                        sum.count += forgotten;
                        sum.uncertain += forgotten;
                    }
                }
            }
        }
        let mut top: Vec<RefusedKey> = found.into_values().collect();
        top.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.label.cmp(&b.label)));
        top.truncate(at_most);
        top
    }
}

impl Watch {
    fn count(&mut self, key: u64, label: impl FnOnce() -> Label) {
        let Self { watched, places, .. } = self;
        let place = places.find(key, |place| {
            watched.get(*place).is_some_and(|watched| watched.key == key)
        });
        if let Some(watched) = place.and_then(|place| watched.get_mut(*place)) {
            watched.count += 1;
            return;
        }
        let mut entry = Watched {
            key,
            label: label(),
            count: 1,
            inherited: 0,
        };
        let place = match self.watched.len() < WATCHED {
            true => {
                self.watched.push(entry);
                self.watched.len() - 1
            }
            false => {
                let place = self.place_of_fewest();
                let Some(given_up) = self.watched.get_mut(place) else {
                    return;
                };
                entry.inherited = given_up.count;
                entry.count += given_up.count;
                let given_up = std::mem::replace(given_up, entry);
                if let Ok(old) = self.places.find_entry(given_up.key, |at| *at == place) {
                    old.remove();
                }
                place
            }
        };
        let watched = &self.watched;
        let hash = |place: &usize| watched.get(*place).map_or(0, |watched| watched.key);
        self.places.insert_unique(key, place, hash);
    }

    /// Counts only grow, so over time each place is looked at once for each step of the lowest count.
    fn place_of_fewest(&mut self) -> usize {
        loop {
            let rest = self.watched.iter().enumerate().skip(self.next);
            let mut fewest = rest.filter(|(_, watched)| watched.count <= self.fewest);
            if let Some((place, _)) = fewest.next() {
                self.next = place;
                return place;
            }
            self.next = 0;
            self.fewest = self.watched.iter().map(|watched| watched.count).min().unwrap_or(0);
        }
    }

    fn get(&self, key: u64) -> Option<&Watched> {
        let at = |place: &usize| self.watched.get(*place).is_some_and(|watched| watched.key == key);
        self.watched.get(*self.places.find(key, at)?)
    }

    /// So often at most was a key counted that is not watched.
    fn forgotten(&self) -> u64 {
        match self.watched.len() < WATCHED {
            true => 0,
            false => self.watched.iter().map(|watched| watched.count).min().unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(text: &str) -> Label {
        Label::Text(text.to_owned())
    }

    #[test]
    fn who_is_refused_most_is_found_in_a_crowd() {
        let top = TopKeys::default();
        for number in 0..100_000_u64 {
            top.count(number + 10, || label("crowd"));
            if number % 20 == 0 {
                top.count(1, || label("loud"));
            }
            if number % 30 == 0 {
                top.count(2, || label("less loud"));
            }
        }
        let found = top.top(2);
        assert_eq!(found[0].label, "loud");
        assert_eq!(found[1].label, "less loud");
        let (count, least) = (found[0].count, found[0].count - found[0].uncertain);
        assert!(least <= 5000 && 5000 <= count, "{least} to {count}");
        assert!(top.top(usize::MAX).len() <= WATCHED);
    }

    #[test]
    fn threads_are_summed_and_what_one_has_forgotten_is_said() {
        let top = TopKeys::default();
        let count = |keys: std::ops::Range<u64>, times: u64| {
            for key in keys {
                for _ in 0..times {
                    top.count(key, || label(&format!("{key}")));
                }
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| count(1..3, 50)).join().unwrap();
            scope.spawn(|| count(1..2, 50)).join().unwrap();
            // A crowd that leaves nobody's count here below two.
            scope.spawn(|| count(10..210, 1)).join().unwrap();
        });
        let found = top.top(2);
        let of = |key: &RefusedKey| (key.label.clone(), key.count, key.uncertain);
        assert_eq!(
            found.iter().map(of).collect::<Vec<_>>(),
            [("1".to_owned(), 102, 2), ("2".to_owned(), 52, 2)]
        );
    }

    proptest::proptest! {
        /// What it says is true of every key, whatever the order.
        #[test]
        fn the_truth_is_within_what_is_said(keys in proptest::collection::vec(0_u64..300, 0..3000)) {
            let top = TopKeys::default();
            let mut truth: HashMap<u64, u64> = HashMap::new();
            for key in &keys {
                top.count(*key, || label(&key.to_string()));
                *truth.entry(*key).or_default() += 1;
            }
            let found = top.top(usize::MAX);
            proptest::prop_assert!(found.len() <= WATCHED);
            for key in &found {
                let true_count = truth[&key.label.parse().unwrap()];
                proptest::prop_assert!(true_count <= key.count && key.count - key.uncertain <= true_count);
            }
            // None that has more than its share of all is left out.
            for (key, count) in truth {
                let is_found = || found.iter().any(|found| found.label == key.to_string());
                proptest::prop_assert!(count <= (keys.len() / WATCHED) as u64 || is_found());
            }
        }
    }
}
