//! What is counted for each limit.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use super::{Counter, GateReason, LimitReason, Settled};

/// The counters of one limit.
#[derive(Debug, Default)]
pub struct LimitMetrics {
    refused: [Counter; LimitReason::COUNT],
    reserved: Counter,
    used: Counter,
    settled: [Counter; Settled::COUNT],
}

impl LimitMetrics {
    /// A request was refused, or would have been.
    pub fn refused(&self, why: LimitReason) {
        self.refused[why as usize].add(1);
    }

    /// A request is over that had so many tokens reserved.
    pub fn tokens(&self, reserved: u64, used: u64, by: Settled) {
        self.reserved.add(reserved);
        self.used.add(used);
        self.settled[by as usize].add(1);
    }

    /// By [`LimitReason`].
    pub(crate) fn all(&self) -> [u64; LimitReason::COUNT] {
        std::array::from_fn(|reason| self.refused[reason].value())
    }

    /// Tokens reserved and used, and requests by [`Settled`].
    pub(crate) fn all_tokens(&self) -> ([u64; 2], [u64; Settled::COUNT]) {
        let settled = std::array::from_fn(|by| self.settled[by].value());
        ([self.reserved.value(), self.used.value()], settled)
    }
}

/// The counters of a gate for requests in flight.
#[derive(Debug, Default)]
pub struct GateMetrics {
    in_flight: AtomicI64,
    queued: AtomicI64,
    places: AtomicU64,
    refused: [Counter; GateReason::COUNT],
}

impl GateMetrics {
    /// So many more are in.
    pub fn in_flight(&self, more: i64) {
        self.in_flight.fetch_add(more, Relaxed);
    }

    /// So many more wait.
    pub fn queued(&self, more: i64) {
        self.queued.fetch_add(more, Relaxed);
    }

    pub fn places(&self, places: usize) {
        self.places.store(places as u64, Relaxed);
    }

    pub fn refused(&self, why: GateReason) {
        self.refused[why as usize].add(1);
    }

    /// In flight, waiting, places.
    pub(crate) fn gauges(&self) -> [u64; 3] {
        let now = |gauge: &AtomicI64| u64::try_from(gauge.load(Relaxed)).unwrap_or(0);
        [now(&self.in_flight), now(&self.queued), self.places.load(Relaxed)]
    }

    /// By [`GateReason`].
    pub(crate) fn all_refused(&self) -> [u64; GateReason::COUNT] {
        std::array::from_fn(|reason| self.refused[reason].value())
    }
}
