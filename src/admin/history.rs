//! The counters of all routes as they were a little while ago, for rates: read every other second, beside the flow of requests.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::metrics::{BytesFrom, CacheResult, Metrics, Reading, RouteMetrics};

/// How often the counters are read.
pub const EVERY: Duration = Duration::from_secs(2);

/// A minute, and one more.
const KEPT: usize = 31;

/// The counters of one route at one moment.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    pub requests: u64,
    /// Those that were answered with 500 or more.
    pub errors: u64,
    /// By [`CacheResult`].
    pub results: [u64; CacheResult::ALL.len()],
    /// By [`BytesFrom`].
    pub bytes: [u64; BytesFrom::ALL.len()],
    pub duration: Reading,
}

impl Counts {
    pub fn read(route: &RouteMetrics) -> Self {
        let (requests, errors) = route.totals();
        Self {
            requests,
            errors,
            results: route.cache_results(),
            bytes: route.bytes_sent(),
            duration: route.duration(),
        }
    }

    /// What came since an earlier moment.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(before.requests),
            errors: self.errors.saturating_sub(before.errors),
            results: std::array::from_fn(|index| self.results[index].saturating_sub(before.results[index])),
            bytes: std::array::from_fn(|index| self.bytes[index].saturating_sub(before.bytes[index])),
            duration: self.duration.since(&before.duration),
        }
    }

    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.errors += other.errors;
        for (sum, count) in self.results.iter_mut().zip(other.results) {
            *sum += count;
        }
        for (sum, count) in self.bytes.iter_mut().zip(other.bytes) {
            *sum += count;
        }
        self.duration.merge(&other.duration);
    }
}

/// All routes at one moment.
#[derive(Debug, Clone)]
pub struct Moment {
    pub at: Instant,
    pub routes: BTreeMap<Arc<str>, Counts>,
}

impl Moment {
    pub fn now(metrics: &Metrics) -> Self {
        let routes = metrics.all_routes().into_iter();
        Self {
            at: Instant::now(),
            routes: routes.map(|(name, route)| (name, Counts::read(&route))).collect(),
        }
    }
}

/// The last minute.
#[derive(Debug, Default)]
pub struct History(Mutex<VecDeque<Arc<Moment>>>);

impl History {
    /// Remembers how it is now.
    pub fn note(&self, metrics: &Metrics) {
        let moment = Arc::new(Moment::now(metrics));
        let mut moments = self.0.lock();
        moments.push_back(moment);
        if moments.len() > KEPT {
            moments.pop_front();
        }
    }

    /// The oldest moment that is not longer ago than `window`, a tick more or less. `None`: there is none yet.
    pub fn before(&self, now: Instant, window: Duration) -> Option<Arc<Moment>> {
        let moments = self.0.lock();
        let within = |moment: &&Arc<Moment>| now.saturating_duration_since(moment.at) <= window + EVERY / 2;
        moments.iter().find(within).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Answered;

    #[tokio::test(start_paused = true)]
    async fn windows_end_where_they_should() {
        let metrics = Metrics::new();
        let route = metrics.route("a");
        let history = History::default();
        assert!(history.before(Instant::now(), Duration::from_secs(10)).is_none());
        for _ in 0..100 {
            history.note(&metrics);
            route.answered(&Answered::get(Duration::from_millis(1)));
            tokio::time::advance(EVERY).await;
        }
        assert_eq!(history.0.lock().len(), KEPT);
        let now = Moment::now(&metrics);
        for (window, requests) in [(10, 5), (60, 30)] {
            let before = history.before(now.at, Duration::from_secs(window)).unwrap();
            let since = now.routes["a"].since(&before.routes["a"]);
            assert_eq!((since.requests, since.duration.count()), (requests, requests));
        }
    }
}
