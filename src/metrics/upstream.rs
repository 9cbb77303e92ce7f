//! What is counted for each upstream and server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::Outcome;
use super::histogram::{Histogram, Reading};
use super::series::Series;
use super::stripe::{Counter, Gauge, PerThread};

/// The counters of one upstream.
#[derive(Debug, Default)]
pub struct UpstreamMetrics {
    servers: Series<ServerMetrics>,
    duration: Histogram,
    /// Requests that wait for a server with room.
    pub queued: Gauge,
    /// Requests that found no room, or none in time.
    pub queue_refused: Counter,
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
