//! What is counted for each upstream and server.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Outcome;
use super::histogram::{Histogram, Reading};
use super::series::Series;
use super::stripe::{Counter, Gauge, PerThread};

/// The counters of one upstream.
#[derive(Default)]
pub struct UpstreamMetrics {
    servers: Series<ServerMetrics>,
    duration: Histogram,
    /// Requests that wait for a server with room.
    pub queued: Gauge,
    /// Requests that found no room, or none in time.
    pub queue_refused: Counter,
    retries: Counter,
    gauges: Mutex<Option<GaugesReader>>,
}

/// What an upstream says of itself when metrics are read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct UpstreamGauges {
    /// `None`: it has no circuit breaker.
    pub circuit: Option<u64>,
    /// Servers by label, with the number of those under it that may be given requests.
    pub healthy: BTreeMap<Arc<str>, u64>,
}

/// `None`: the upstream is no longer there.
type GaugesReader = Box<dyn Fn() -> Option<UpstreamGauges> + Send + Sync>;

impl fmt::Debug for UpstreamMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamMetrics").finish_non_exhaustive()
    }
}

impl UpstreamMetrics {
    /// The counters of the server with that configured address (never one that a name resolved to: those have no end). For
    /// start-up and reloads: takes a lock.
    pub fn server(&self, address: &str) -> Arc<ServerMetrics> {
        self.servers.of(address)
    }

    /// A response's head came in, this long after the start of its attempt.
    pub fn duration(&self, duration: Duration) {
        self.duration.observe(duration);
    }

    /// A request is attempted again.
    pub fn retry(&self) {
        self.retries.add(1);
    }

    /// Says where gauges come from. The newest reader replaces the one before it. It is called for each scrape, so it must be quick.
    pub fn observe(&self, read: impl Fn() -> Option<UpstreamGauges> + Send + Sync + 'static) {
        *self.gauges.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(read));
    }

    pub(crate) fn retries(&self) -> u64 {
        self.retries.value()
    }

    pub(crate) fn gauges(&self) -> UpstreamGauges {
        let reader = self.gauges.lock().unwrap_or_else(PoisonError::into_inner);
        reader.as_ref().and_then(|read| read()).unwrap_or_default()
    }

    pub(crate) fn servers(&self) -> Vec<(Arc<str>, Arc<ServerMetrics>)> {
        self.servers.all()
    }

    pub(crate) fn durations(&self) -> Reading {
        self.duration.read()
    }
}

/// The counters of one server of an upstream.
#[derive(Debug, Default)]
pub struct ServerMetrics(PerThread<[AtomicU64; Outcome::COUNT]>);

impl ServerMetrics {
    /// An attempt at this server ended so.
    pub fn outcome(&self, outcome: Outcome) {
        self.0.own()[outcome as usize].fetch_add(1, Relaxed);
    }

    /// By [`Outcome`].
    pub(crate) fn outcomes(&self) -> [u64; Outcome::COUNT] {
        let mut sums = [0; Outcome::COUNT];
        for counters in self.0.iter() {
            for (sum, counter) in sums.iter_mut().zip(counters) {
                *sum += counter.load(Relaxed);
            }
        }
        sums
    }
}
