//! Which keys are asked for most: a space-saving sketch (Metwally, Agrawal and El Abbadi, 2005) of bounded size, fed by a sample.
//!
//! As long as there are few requests every one is counted. When more come than the sketch has time for, only one in so many is, and
//! counts for all of them: a hit then pays for a counter of its thread's own.

pub mod shared;

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};

use fnv::FnvHashMap;
use parking_lot::Mutex;

use crate::key::CacheKey;
use crate::message::RequestHead;

/// Keys that are counted. What is hot among millions stands out of a thousand; it takes less than a megabyte.
const CAPACITY: usize = 1024;

/// Bytes of the longest URL that is counted: more would make the sketch as large as what clients send.
const LONGEST_URL: usize = 2048;

/// At most one request in so many is counted.
const LARGEST_STEP: u32 = 64;

/// Samples within one [`Hottest::tick`] beyond which fewer are taken, and below which more are.
const MANY: u32 = 4096;
const FEW: u32 = 256;

/// After so many ticks all counts are halved, so that the hottest are those of the last minutes.
const TICKS_TO_HALVE: u32 = 150;

thread_local! {
    /// Requests of this thread until the next that is counted.
    static UNTIL: Cell<u32> = const { Cell::new(0) };
}

/// Counts what is asked for.
#[derive(Debug)]
pub struct Hottest {
    step: AtomicU32,
    sketch: Mutex<Sketch>,
}

#[derive(Debug, Default)]
struct Sketch {
    keys: FnvHashMap<u128, Counted>,
    /// Those that had the least count when all were looked at, and that count. Some may have been counted since.
    least: Vec<u128>,
    least_count: u64,
    samples: u32,
    ticks: u32,
}

#[derive(Debug)]
struct Counted {
    url: Box<str>,
    count: u64,
    /// So much of `count` may have been another key's.
    error: u64,
    /// So much of what is certain has been told to the other instances.
    told: u64,
}

impl Counted {
    fn certain(&self) -> u64 {
        self.count - self.error
    }
}

/// A key that is asked for often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hot {
    /// As it was asked for first.
    pub url: String,
    /// Estimated, of the last minutes: older ones count less.
    pub requests: u64,
}

impl Default for Hottest {
    fn default() -> Self {
        Self {
            step: AtomicU32::new(1),
            sketch: Mutex::default(),
        }
    }
}

impl Hottest {
    /// A request asks for what is under this key.
    #[inline]
    pub fn asked(&self, key: &CacheKey, request: &RequestHead) {
        let due = UNTIL.with(|until| match until.get() {
            0 => true,
            left => {
                until.set(left - 1);
                false
            }
        });
        if due {
            self.count(key, request);
        }
    }

    #[cold]
    fn count(&self, key: &CacheKey, request: &RequestHead) {
        let step = self.step.load(Ordering::Relaxed);
        // Not always the same distance: requests come in patterns.
        let distance = match step {
            1 => 0,
            step => fastrand::u32(0..2 * step - 1),
        };
        UNTIL.with(|until| until.set(distance));
        // Somebody else is counting: one sample more or less does not matter, waiting would.
        let Some(mut sketch) = self.sketch.try_lock() else {
            return;
        };
        sketch.count(key.hash128(), u64::from(step), || {
            let scheme = request.scheme.as_str();
            format!("{scheme}://{}{}", request.authority, request.target)
        });
        sketch.samples += 1;
        if sketch.samples >= MANY && step < LARGEST_STEP {
            sketch.samples = 0;
            self.step.store(step * 2, Ordering::Relaxed);
        }
    }

    /// To be called every other second: adapts the sampling, and lets old counts fade.
    pub fn tick(&self) {
        let mut sketch = self.sketch.lock();
        let samples = std::mem::take(&mut sketch.samples);
        if samples < FEW {
            let step = self.step.load(Ordering::Relaxed);
            self.step.store((step / 2).max(1), Ordering::Relaxed);
        }
        sketch.ticks += 1;
        if sketch.ticks >= TICKS_TO_HALVE {
            sketch.ticks = 0;
            sketch.least.clear();
            sketch.keys.retain(|_, counted| {
                let untold = counted.certain().saturating_sub(counted.told);
                counted.count /= 2;
                counted.error /= 2;
                counted.told = counted.certain().saturating_sub(untold);
                counted.count > 0
            });
        }
    }

    /// The hottest, most often asked for first.
    pub fn top(&self, count: usize) -> Vec<Hot> {
        let all: Vec<Hot> = {
            let sketch = self.sketch.lock();
            let certain = sketch.keys.values().map(|counted| Hot {
                url: counted.url.to_string(),
                requests: counted.certain(),
            });
            certain.filter(|hot| hot.requests > 0).collect()
        };
        ranked(all, count)
    }

    /// What was asked for most since this was called last.
    pub fn news(&self, count: usize) -> Vec<Hot> {
        let mut sketch = self.sketch.lock();
        let new: Vec<Hot> = sketch
            .keys
            .values_mut()
            .filter_map(|counted| {
                let requests = counted.certain().checked_sub(counted.told).filter(|new| *new > 0)?;
                let url = counted.url.to_string();
                Some(Hot { url, requests })
            })
            .collect();
        for counted in sketch.keys.values_mut() {
            counted.told = counted.certain();
        }
        drop(sketch);
        ranked(new, count)
    }

    /// How often this key was asked for, as far as it is counted.
    pub fn requests(&self, key: &CacheKey) -> u64 {
        let sketch = self.sketch.lock();
        let counted = sketch.keys.get(&key.hash128());
        counted.map_or(0, Counted::certain)
    }
}

/// The most often asked for first.
fn ranked(mut all: Vec<Hot>, count: usize) -> Vec<Hot> {
    all.sort_by(|a, b| b.requests.cmp(&a.requests).then_with(|| a.url.cmp(&b.url)));
    all.truncate(count);
    all
}

impl Sketch {
    fn count(&mut self, hash: u128, weight: u64, url: impl FnOnce() -> String) {
        if let Some(counted) = self.keys.get_mut(&hash) {
            counted.count += weight;
            return;
        }
        let url = url();
        if url.len() > LONGEST_URL {
            return;
        }
        let mut error = 0;
        if self.keys.len() >= CAPACITY {
            // The least counted gives its place, and its count, which is the newcomer's at most.
            if let Some(least) = self.least()
                && let Some(gone) = self.keys.remove(&least)
            {
                error = gone.count;
            }
        }
        let counted = Counted {
            url: url.into(),
            count: error + weight,
            error,
            told: 0,
        };
        self.keys.insert(hash, counted);
    }

    /// A key that is counted least. All are looked through once for all those that share that count, because counts only grow in between.
    fn least(&mut self) -> Option<u128> {
        loop {
            while let Some(hash) = self.least.pop() {
                if self
                    .keys
                    .get(&hash)
                    .is_some_and(|counted| counted.count == self.least_count)
                {
                    return Some(hash);
                }
            }
            self.least_count = self.keys.values().map(|counted| counted.count).min()?;
            let least = self
                .keys
                .iter()
                .filter(|(_, counted)| counted.count == self.least_count);
            self.least.extend(least.map(|(hash, _)| *hash));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hot_stands_out_of_many_in_bounded_memory() {
        let mut sketch = Sketch::default();
        for round in 0..200_u128 {
            sketch.count(7, 1, || "hot".to_owned());
            for other in 0..50 {
                sketch.count(1000 + round * 50 + other, 1, || "cold".to_owned());
            }
        }
        assert!(sketch.keys.len() <= CAPACITY);
        let hottest = Hottest {
            step: AtomicU32::new(1),
            sketch: Mutex::new(sketch),
        };
        let top = hottest.top(1);
        assert_eq!((top[0].url.as_str(), top[0].requests), ("hot", 200));
    }

    #[test]
    fn urls_without_end_are_not_kept() {
        let mut sketch = Sketch::default();
        sketch.count(1, 1, || "x".repeat(LONGEST_URL + 1));
        assert!(sketch.keys.is_empty());
    }

    #[test]
    fn news_are_told_once() {
        let hottest = Hottest::default();
        let count = |key: u128, times| hottest.sketch.lock().count(key, times, || key.to_string());
        let news = |count| {
            let news = hottest.news(count).into_iter();
            news.map(|hot| (hot.url, hot.requests)).collect::<Vec<_>>()
        };
        count(1, 3);
        count(2, 5);
        assert_eq!(news(9), [("2".to_owned(), 5), ("1".to_owned(), 3)]);
        assert_eq!(news(9), []);
        count(1, 2);
        count(3, 1);
        assert_eq!(news(1), [("1".to_owned(), 2)]);
        // What was passed over is not made up for, and what has faded is not told again.
        assert_eq!(news(9), []);
        (0..TICKS_TO_HALVE).for_each(|_| hottest.tick());
        assert_eq!(news(9), []);
        count(1, 1);
        assert_eq!(news(9), [("1".to_owned(), 1)]);
    }

    #[test]
    fn counts_fade() {
        let hottest = Hottest::default();
        hottest.sketch.lock().count(1, 3, || "a".to_owned());
        for _ in 0..TICKS_TO_HALVE {
            hottest.tick();
        }
        assert_eq!(hottest.top(1)[0].requests, 1);
        for _ in 0..TICKS_TO_HALVE {
            hottest.tick();
        }
        assert_eq!(hottest.top(1), []);
    }
}
