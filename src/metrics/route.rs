//! What is counted for each route.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::Method;

use super::histogram::{Buckets, Reading};
use super::stripe::{PerThread, add};
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

/// How a request ended.
#[derive(Debug, Clone, Copy)]
pub struct Answered<'a> {
    /// `None`: it could not be understood.
    pub method: Option<&'a Method>,
    pub status: u16,
    /// From its first byte to the last of the response.
    pub duration: Duration,
    /// What the cache did for it. `None`: it had no part in it.
    pub cache: Option<CacheResult>,
    /// Of the response's body.
    pub bytes: u64,
}

#[cfg(test)]
impl Answered<'_> {
    pub(crate) const fn get(duration: Duration) -> Self {
        Self {
            method: Some(&Method::GET),
            status: 200,
            duration,
            cache: None,
            bytes: 0,
        }
    }
}

/// The counters of one route.
#[derive(Debug, Default)]
pub struct RouteMetrics {
    stripes: PerThread<Stripe>,
    streams: Arc<Gauge>,
    first_event: Histogram,
}

impl RouteMetrics {
    /// A request is over.
    pub fn answered(&self, answered: &Answered<'_>) {
        let stripe = self.stripes.own();
        let method = answered.method.map_or(OTHER_METHOD, method_index);
        let status = StatusLabel::new(answered.status);
        let counters =
            stripe.requests[method][status.class].get_or_init(|| Box::new(std::array::from_fn(|_| AtomicU64::new(0))));
        add(&counters[status.number], 1);
        stripe.duration.observe(answered.duration);
        let from = match answered.cache {
            Some(result) => {
                add(&stripe.cache[result as usize], 1);
                result.bytes_from()
            }
            None => BytesFrom::Origin,
        };
        add(&stripe.bytes[from as usize], answered.bytes);
    }

    /// Counts a stream as open for as long as the guard lives.
    pub fn stream_guard(&self) -> GaugeGuard {
        self.streams.guard()
    }

    /// A stream's first body bytes came in, this long after its request's first byte.
    pub fn first_event(&self, after: Duration) {
        self.first_event.observe(after);
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
            route.answered(&Answered {
                method: Some(method),
                status,
                ..Answered::get(Duration::ZERO)
            });
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
        route.answered(&Answered {
            method: None,
            status: 400,
            ..Answered::get(Duration::ZERO)
        });
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
        // More than have a stripe to themselves.
        const THREADS: u64 = 40;
        let route = RouteMetrics::default();
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    route.answered(&Answered {
                        cache: Some(CacheResult::HitL1),
                        bytes: 5,
                        ..Answered::get(Duration::from_millis(1))
                    });
                });
            }
        });
        assert_eq!(route.requests().values().sum::<u64>(), THREADS);
        assert_eq!(route.duration().count(), THREADS);
        assert_eq!(route.cache_results()[CacheResult::HitL1 as usize], THREADS);
        assert_eq!(route.bytes_sent()[BytesFrom::Cache as usize], 5 * THREADS);
    }
}
