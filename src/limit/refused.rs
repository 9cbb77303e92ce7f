//! Which keys are refused most, in bounded memory.

use std::collections::HashMap;

use parking_lot::Mutex;

/// Keys that are watched for each limit. The true share of a key that has more than a hundredth of all refusals is known.
const WATCHED: usize = 100;

/// The space-saving algorithm (Metwally, Agrawal, El Abbadi 2005): a new key takes the place, and the count, of the one with the fewest.
#[derive(Debug, Default)]
pub struct TopKeys(Mutex<HashMap<u64, Watched>>);

#[derive(Debug)]
struct Watched {
    label: String,
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
    /// Counts a refusal. `label` is asked for when the key has not been watched.
    pub fn count(&self, key: u64, label: impl FnOnce() -> String) {
        let mut keys = self.0.lock();
        if let Some(watched) = keys.get_mut(&key) {
            watched.count += 1;
            return;
        }
        let mut inherited = 0;
        if keys.len() >= WATCHED {
            let fewest = keys.iter().min_by_key(|(_, watched)| watched.count);
            if let Some((fewest, count)) = fewest.map(|(key, watched)| (*key, watched.count)) {
                keys.remove(&fewest);
                inherited = count;
            }
        }
        let watched = Watched {
            label: label(),
            count: inherited + 1,
            inherited,
        };
        keys.insert(key, watched);
    }

    /// The most refused first.
    pub fn top(&self, at_most: usize) -> Vec<RefusedKey> {
        let keys = self.0.lock();
        let mut top: Vec<RefusedKey> = keys
            .values()
            .map(|watched| RefusedKey {
                label: watched.label.clone(),
                count: watched.count,
                uncertain: watched.inherited,
            })
            .collect();
        drop(keys);
        top.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.label.cmp(&b.label)));
        top.truncate(at_most);
        top
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_refused_most_is_found_in_a_crowd() {
        let top = TopKeys::default();
        for number in 0..100_000_u64 {
            top.count(number + 10, || format!("crowd {number}"));
            if number % 20 == 0 {
                top.count(1, || "loud".to_owned());
            }
            if number % 30 == 0 {
                top.count(2, || "less loud".to_owned());
            }
        }
        let found = top.top(2);
        assert_eq!(found[0].label, "loud");
        assert_eq!(found[1].label, "less loud");
        let (count, least) = (found[0].count, found[0].count - found[0].uncertain);
        assert!(least <= 5000 && 5000 <= count, "{least} to {count}");
        assert!(top.top(usize::MAX).len() <= WATCHED);
    }
}
