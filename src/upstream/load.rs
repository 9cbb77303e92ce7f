//! How much a server has to do, and how long it takes.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::health::nanos;

/// After this time (ns) without responses, what is remembered of a server's latency counts for a third (1/e).
const DECAY: f64 = 10e9;

/// What a failed attempt counts as, at least (ns): a server that fails at once must not pass for a quick one.
const FAILED: f64 = 1e9;

/// What a server that has work and has never answered costs: it is not asked again before its first answer, if another can be.
const UNKNOWN_AND_BUSY: f64 = 1e18;

/// One server's load. Read at every choice.
#[derive(Debug, Default)]
pub struct Load {
    /// Exchanges under way, streams and WebSockets included.
    open: AtomicUsize,
    /// Latency to the response's head, as the bits of an `f64` in nanoseconds. 0: unknown.
    latency: AtomicU64,
    /// When `latency` was true, in the nanoseconds of [`nanos`].
    at: AtomicU64,
}

impl Load {
    /// Exchanges under way. In one order with the queue's counter, so that no place that becomes free goes unseen.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Counts one more exchange, unless there are `max`. Tells whether it was counted.
    pub fn enter(&self, max: Option<u32>) -> bool {
        let Some(max) = max else {
            self.open.fetch_add(1, Ordering::SeqCst);
            return true;
        };
        let one_more = |open: usize| (open < max as usize).then_some(open + 1);
        self.open
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more)
            .is_ok()
    }

    pub fn leave(&self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }

    /// A response's head came after this long: a peak counts at once, what is better only by and by (peak EWMA).
    pub fn answered(&self, latency: Duration, now: Instant) {
        self.sample(latency.as_nanos() as f64, nanos(now));
    }

    /// An attempt came to nothing.
    pub fn failed(&self, now: Instant) {
        let now = nanos(now);
        self.sample((2.0 * self.latency(now)).max(FAILED), now);
    }

    /// What one more request would cost, relative to other servers: the latency times those who would share it.
    pub fn cost(&self, now: u64) -> f64 {
        let open = self.open();
        let latency = self.latency(now);
        match latency == 0.0 && open > 0 {
            true => UNKNOWN_AND_BUSY * open as f64,
            false => latency * (open + 1) as f64,
        }
    }

    /// Two threads may overwrite each other's sample: one of many, in a figure that decays.
    fn sample(&self, latency: f64, now: u64) {
        let before = f64::from_bits(self.latency.load(Ordering::Relaxed));
        let new = match latency >= before {
            true => latency,
            false => {
                let kept = self.decay(now);
                before * kept + latency * (1.0 - kept)
            }
        };
        // Never 0, which says that nothing is known.
        self.latency.store(new.max(1.0).to_bits(), Ordering::Relaxed);
        self.at.store(now, Ordering::Relaxed);
    }

    fn latency(&self, now: u64) -> f64 {
        match f64::from_bits(self.latency.load(Ordering::Relaxed)) {
            0.0 => 0.0,
            latency => (latency * self.decay(now)).max(1.0),
        }
    }

    fn decay(&self, now: u64) -> f64 {
        let age = now.saturating_sub(self.at.load(Ordering::Relaxed)) as f64 / DECAY;
        // Between answers that come fast, where both differ by less than one in a million, it is not worth the exponential.
        match age < 1e-3 {
            true => 1.0 - age,
            false => (-age).exp(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn peaks_count_at_once_and_fade() {
        let load = Load::default();
        let start = Instant::now();
        assert_eq!(load.cost(nanos(start)), 0.0, "an idle stranger is tried");
        assert!(load.enter(None));
        assert!(load.cost(nanos(start)) > 1e17, "but once only");
        load.leave();
        load.answered(10 * MS, start);
        assert_eq!(load.cost(nanos(start)), 10e6);
        load.answered(100 * MS, start);
        assert_eq!(load.cost(nanos(start)), 100e6);
        load.answered(10 * MS, start);
        assert_eq!(
            load.cost(nanos(start)),
            100e6,
            "at the same instant one good answer proves nothing"
        );
        let later = start + Duration::from_secs(10);
        let faded = load.cost(nanos(later));
        assert!((36e6..38e6).contains(&faded), "{faded}");
        assert!(load.enter(None) && load.enter(None));
        assert_eq!(load.cost(nanos(later)), 3.0 * faded);
    }

    #[tokio::test(start_paused = true)]
    async fn failing_fast_is_not_being_fast() {
        let load = Load::default();
        let now = Instant::now();
        load.answered(MS, now);
        load.failed(now);
        assert_eq!(load.cost(nanos(now)), 1e9);
        load.failed(now);
        assert_eq!(load.cost(nanos(now)), 2e9);
    }

    #[test]
    fn a_maximum_is_kept() {
        let load = Load::default();
        assert!(load.enter(Some(2)) && load.enter(Some(2)));
        assert!(!load.enter(Some(2)));
        load.leave();
        assert!(load.enter(Some(2)));
        assert_eq!(load.open(), 2);
    }
}
