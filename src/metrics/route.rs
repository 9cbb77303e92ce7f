//! What is counted for each route.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::Method;

use super::histogram::{Buckets, Reading};
use super::stripe::PerThread;
use super::{BytesFrom, CacheResult, Gauge, GaugeGuard, Histogram};

/// The `method` and `status` of what has none, or none that is known.
const OTHER: &str = "other";

/// Values of the `method` label: those of RFC 9110 §9.3 and PATCH (RFC 5789), and one for all others, because a client may
/// invent as many as it likes.
const METHODS: [&str; 10] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", OTHER,
];
const OTHER_METHOD: usize = METHODS.len() - 1;

fn method_index(method: &Method) -> usize {
    match *method {
        Method::GET => 0,
        Method::HEAD => 1,
        Method::POST => 2,
        Method::PUT => 3,
        Method::DELETE => 4,
        Method::CONNECT => 5,
        Method::OPTIONS => 6,
        Method::TRACE => 7,
        Method::PATCH => 8,
        _ => OTHER_METHOD,
    }
}

/// RFC 9110 §15: 1xx to 5xx. The place behind them is for what is no status code.
const STATUS_CLASSES: usize = 6;
const OTHER_CLASS: usize = STATUS_CLASSES - 1;
/// 5xx.
const SERVER_ERROR_CLASS: usize = 4;
const CLASS_SIZE: usize = 100;

/// A status code as the place of its counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StatusLabel {
    class: usize,
    number: usize,
}

impl StatusLabel {
    fn new(status: u16) -> Self {
        match usize::from(status) {
            status @ 100..=599 => Self {
                class: status / CLASS_SIZE - 1,
                number: status % CLASS_SIZE,
            },
            _ => Self {
                class: OTHER_CLASS,
                number: 0,
            },
        }
    }
}

impl fmt::Display for StatusLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.class {
            OTHER_CLASS => f.write_str(OTHER),
            class => write!(f, "{}", (class + 1) * CLASS_SIZE + self.number),
        }
    }
}

/// Counters of one status class, made when the first response of that class is counted: most routes never see most of them.
type StatusCounters = OnceLock<Box<[AtomicU64; CLASS_SIZE]>>;

/// One thread's part.
#[derive(Debug, Default)]
struct Stripe {
    /// By [`BytesFrom`].
    bytes: [AtomicU64; BytesFrom::COUNT],
    requests: [[StatusCounters; STATUS_CLASSES]; METHODS.len()],
    duration: Buckets,
    cache: [AtomicU64; CacheResult::COUNT],
}

/// The counters of one route.
#[derive(Debug, Default)]
pub struct RouteMetrics {
    stripes: PerThread<Stripe>,
    streams: Arc<Gauge>,
    first_event: Histogram,
}

impl RouteMetrics {
    /// A request was answered with `status`, `duration` after its first byte.
    pub fn request(&self, method: &Method, status: u16, duration: Duration) {
        self.count(method_index(method), status, duration);
    }

    /// The same for a request that could not be understood, so that its method is not known.
    pub fn refused(&self, status: u16, duration: Duration) {
        self.count(OTHER_METHOD, status, duration);
    }

    /// What the cache did for a request.
    pub fn cache(&self, result: CacheResult) {
        self.stripes.own().cache[result as usize].fetch_add(1, Relaxed);
    }

    /// Bytes of a response's body went to the client.
    pub fn bytes(&self, from: BytesFrom, bytes: u64) {
        self.stripes.own().bytes[from as usize].fetch_add(bytes, Relaxed);
    }

    /// Counts a stream as open for as long as the guard lives.
    pub fn stream_guard(&self) -> GaugeGuard {
        self.streams.guard()
    }

    /// A stream's first body bytes came in, this long after its request's first byte.
    pub fn first_event(&self, after: Duration) {
        self.first_event.observe(after);
    }

    fn count(&self, method: usize, status: u16, duration: Duration) {
        let stripe = self.stripes.own();
        let status = StatusLabel::new(status);
        let counters =
            stripe.requests[method][status.class].get_or_init(|| Box::new(std::array::from_fn(|_| AtomicU64::new(0))));
        counters[status.number].fetch_add(1, Relaxed);
        stripe.duration.observe(duration);
    }

    /// Requests by method and status; only those that came up.
    pub(crate) fn requests(&self) -> BTreeMap<(&'static str, StatusLabel), u64> {
        let mut sums = BTreeMap::new();
        for stripe in self.stripes.iter() {
            for (method, classes) in METHODS.into_iter().zip(&stripe.requests) {
                for (class, counters) in classes.iter().enumerate() {
                    let counters = counters.get().map(|counters| counters.as_slice()).unwrap_or_default();
                    for (number, counter) in counters.iter().enumerate() {
                        let count = counter.load(Relaxed);
                        if count > 0 {
                            *sums.entry((method, StatusLabel { class, number })).or_default() += count;
                        }
                    }
                }
            }
        }
        sums
    }

    pub(crate) fn duration(&self) -> Reading {
        let mut reading = Reading::default();
        for stripe in self.stripes.iter() {
            reading.add(&stripe.duration);
        }
        reading
    }

    /// By [`BytesFrom`].
    pub(crate) fn bytes_sent(&self) -> [u64; BytesFrom::COUNT] {
        let mut sums = [0; BytesFrom::COUNT];
        for stripe in self.stripes.iter() {
            for (sum, counter) in sums.iter_mut().zip(&stripe.bytes) {
                *sum += counter.load(Relaxed);
            }
        }
        sums
    }

    /// Requests answered, and those of them that were answered with 500 or more.
    pub(crate) fn totals(&self) -> (u64, u64) {
        let (mut all, mut errors) = (0, 0);
        for ((_, status), count) in self.requests() {
            all += count;
            if status.class == SERVER_ERROR_CLASS {
                errors += count;
            }
        }
        (all, errors)
    }

    /// By [`CacheResult`].
    pub(crate) fn cache_results(&self) -> [u64; CacheResult::COUNT] {
        let mut sums = [0; CacheResult::COUNT];
        for stripe in self.stripes.iter() {
            for (sum, counter) in sums.iter_mut().zip(&stripe.cache) {
                *sum += counter.load(Relaxed);
            }
        }
        sums
    }

    pub(crate) fn streams_active(&self) -> u64 {
        self.streams.value()
    }

    pub(crate) fn first_events(&self) -> Reading {
        self.first_event.read()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_bounded() {
        let invented = Method::from_bytes(b"BREW").unwrap();
        for (method, status, expected) in [
            (&Method::GET, 200, ("GET", "200")),
            (&Method::PATCH, 599, ("PATCH", "599")),
            (&Method::TRACE, 100, ("TRACE", "100")),
            (&invented, 418, ("other", "418")),
            (&Method::GET, 99, ("GET", "other")),
            (&Method::GET, 600, ("GET", "other")),
            (&Method::GET, u16::MAX, ("GET", "other")),
        ] {
            let route = RouteMetrics::default();
            route.request(method, status, Duration::ZERO);
            let requests = route.requests();
            let seen: Vec<_> = requests.iter().map(|((m, s), n)| (*m, s.to_string(), *n)).collect();
            assert_eq!(seen, [(expected.0, expected.1.to_owned(), 1)]);
        }
    }

    #[test]
    fn every_method_has_its_own_place() {
        for (index, name) in METHODS.iter().enumerate() {
            assert_eq!(method_index(&name.parse().unwrap()), index, "{name}");
        }
    }

    #[test]
    fn what_was_not_understood_is_counted_without_a_method() {
        let route = RouteMetrics::default();
        route.refused(400, Duration::ZERO);
        assert_eq!(
            route
                .requests()
                .into_iter()
                .map(|((m, _), n)| (m, n))
                .collect::<Vec<_>>(),
            [("other", 1)]
        );
        assert_eq!(route.duration().count(), 1);
    }

    #[test]
    fn threads_are_summed() {
        let route = RouteMetrics::default();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    route.request(&Method::GET, 200, Duration::from_millis(1));
                    route.cache(CacheResult::HitL1);
                });
            }
        });
        assert_eq!(route.requests().values().sum::<u64>(), 3);
        assert_eq!(route.duration().count(), 3);
        assert_eq!(route.cache_results()[CacheResult::HitL1 as usize], 3);
    }
}
