//! Durations in fixed buckets: two additions for each, no lock, no floating point.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::stripe::{PerThread, add};

/// Ticks of 100 ns: fine enough for a hit from memory, and the sum of a thousand streams that never end takes decades to wrap.
const TICKS_PER_SECOND: u64 = 10_000_000;
const NANOS_PER_TICK: u32 = 100;

/// Upper bounds, in ticks, from a hit in memory to a stream's last byte.
const BOUNDS: [u64; 18] = [
    500,           // 50 µs
    1_000,         // 100 µs
    2_500,         // 250 µs
    5_000,         // 500 µs
    10_000,        // 1 ms
    25_000,        // 2.5 ms
    50_000,        // 5 ms
    100_000,       // 10 ms
    250_000,       // 25 ms
    500_000,       // 50 ms
    1_000_000,     // 100 ms
    2_500_000,     // 250 ms
    5_000_000,     // 500 ms
    10_000_000,    // 1 s
    25_000_000,    // 2.5 s
    100_000_000,   // 10 s
    600_000_000,   // 1 min
    3_000_000_000, // 5 min
];

/// How long something took, again and again.
#[derive(Debug, Default)]
pub struct Histogram(PerThread<Buckets>);

impl Histogram {
    pub fn observe(&self, duration: Duration) {
        self.0.own().observe(duration);
    }

    pub(crate) fn read(&self) -> Reading {
        let mut reading = Reading::default();
        for buckets in self.0.iter() {
            reading.add(buckets);
        }
        reading
    }
}

/// One thread's part of a [`Histogram`].
#[derive(Debug, Default)]
pub(crate) struct Buckets {
    /// The last is for what is beyond all bounds.
    counts: [AtomicU64; BOUNDS.len() + 1],
    ticks: AtomicU64,
}

impl Buckets {
    /// On the calling thread's own.
    pub(crate) fn observe(&self, duration: Duration) {
        let ticks = ticks(duration);
        // Short durations are the frequent ones: the search begins at their end.
        let bucket = BOUNDS.iter().take_while(|bound| ticks > **bound).count();
        add(&self.counts[bucket], 1);
        add(&self.ticks, ticks);
    }
}

/// Rounded, so that the sum of many short durations is not too low.
fn ticks(duration: Duration) -> u64 {
    duration
        .as_secs()
        .saturating_mul(TICKS_PER_SECOND)
        .saturating_add(u64::from(
            (duration.subsec_nanos() + NANOS_PER_TICK / 2) / NANOS_PER_TICK,
        ))
}

/// The sum of all threads' parts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reading {
    counts: [u64; BOUNDS.len() + 1],
    ticks: u64,
}

impl Reading {
    pub(crate) fn add(&mut self, buckets: &Buckets) {
        for (sum, count) in self.counts.iter_mut().zip(&buckets.counts) {
            *sum += count.load(Relaxed);
        }
        self.ticks = self.ticks.wrapping_add(buckets.ticks.load(Relaxed));
    }

    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// What came since an earlier reading of the same.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let mut since = self.clone();
        for (count, before) in since.counts.iter_mut().zip(&before.counts) {
            *count = count.saturating_sub(*before);
        }
        since.ticks = since.ticks.saturating_sub(before.ticks);
        since
    }

    /// Adds another reading.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (sum, count) in self.counts.iter_mut().zip(&other.counts) {
            *sum += count;
        }
        self.ticks = self.ticks.wrapping_add(other.ticks);
    }

    /// The duration (seconds) that this share of all did not exceed, taken as spread evenly within its bucket. `None`: there were none.
    pub(crate) fn quantile(&self, share: f64) -> Option<f64> {
        let wanted = share * self.count() as f64;
        let mut before = 0_u64;
        let mut from = 0;
        for (index, count) in self.counts.iter().enumerate() {
            // What is beyond all bounds is at least as long as the last of them.
            let to = BOUNDS.get(index).copied().unwrap_or(from);
            let after = before + count;
            if *count > 0 && after as f64 >= wanted {
                let inside = (wanted - before as f64) / *count as f64;
                return Some(seconds(from) + inside * (seconds(to) - seconds(from)));
            }
            (before, from) = (after, to);
        }
        None
    }

    pub(crate) fn to_proto(&self) -> prometheus::proto::Histogram {
        let mut cumulative = 0;
        let buckets = BOUNDS.iter().zip(&self.counts).map(|(bound, count)| {
            cumulative += count;
            let mut bucket = prometheus::proto::Bucket::default();
            bucket.set_upper_bound(seconds(*bound));
            bucket.set_cumulative_count(cumulative);
            bucket
        });
        let mut histogram = prometheus::proto::Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(self.count());
        histogram.set_sample_sum(seconds(self.ticks));
        histogram
    }
}

fn seconds(ticks: u64) -> f64 {
    ticks as f64 / TICKS_PER_SECOND as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        for (nanos, bucket) in [
            (0, 0),
            (50_000, 0),
            (50_049, 0),
            (50_050, 1),
            (1_000_000, 4),
            (1_000_100, 5),
            (300_000_000_000, BOUNDS.len() - 1),
            (u64::MAX, BOUNDS.len()),
        ] {
            let histogram = Histogram::default();
            histogram.observe(Duration::from_nanos(nanos));
            let counts = histogram.read().counts;
            assert_eq!(counts.iter().position(|count| *count == 1), Some(bucket), "{nanos} ns");
        }
    }

    #[test]
    fn bounds_rise() {
        assert!(BOUNDS.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn buckets_are_cumulative_and_the_sum_is_in_seconds() {
        let histogram = Histogram::default();
        for millis in [2, 20, 2000, 4_000_000] {
            histogram.observe(Duration::from_millis(millis));
        }
        histogram.observe(Duration::from_nanos(170));
        let proto = histogram.read().to_proto();
        assert_eq!(proto.get_sample_count(), 5);
        assert!(
            (proto.get_sample_sum() - 4002.0220002).abs() < 1e-9,
            "{}",
            proto.get_sample_sum()
        );
        let at = |bound: f64| {
            let found = proto.get_bucket().iter().find(|bucket| bucket.upper_bound() == bound);
            found.map(|bucket| bucket.cumulative_count())
        };
        assert_eq!(
            [at(0.0025), at(0.025), at(1.0), at(2.5), at(300.0)],
            [Some(2), Some(3), Some(3), Some(4), Some(4)]
        );
    }

    #[test]
    fn quantiles_lie_in_their_bucket() {
        let histogram = Histogram::default();
        assert_eq!(histogram.read().quantile(0.5), None);
        for _ in 0..99 {
            histogram.observe(Duration::from_millis(20));
        }
        let before = histogram.read();
        histogram.observe(Duration::from_secs(4000));
        let all = histogram.read();
        let p50 = all.quantile(0.5).unwrap();
        assert!((0.01..=0.025).contains(&p50), "{p50}");
        assert_eq!(all.quantile(1.0), Some(300.0));
        assert_eq!(all.since(&before).count(), 1);
        assert_eq!(all.since(&before).quantile(0.01), Some(300.0));
    }

    #[test]
    fn no_duration_overflows() {
        assert_eq!(ticks(Duration::MAX), u64::MAX);
    }
}
