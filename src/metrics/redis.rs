//! What is counted of Redis.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::histogram::{Histogram, Reading};
use super::stripe::Counter;
use super::{LeaseResult, RedisFault, RedisOperation};

/// The counters of Redis.
#[derive(Debug, Default)]
pub struct RedisMetrics {
    durations: [Histogram; RedisOperation::COUNT],
    /// Not by thread: there are few, unless something is wrong.
    faults: [[AtomicU64; RedisFault::COUNT]; RedisOperation::COUNT],
    up: AtomicBool,
    followed: AtomicBool,
    purges_waiting: AtomicU64,
    writes_dropped: Counter,
    leases: [AtomicU64; LeaseResult::COUNT],
    leases_heard: AtomicBool,
    silent_nodes: AtomicU64,
    leases_waiting: AtomicU64,
}

impl RedisMetrics {
    /// A command was answered after so long, whatever the answer was.
    pub fn duration(&self, operation: RedisOperation, duration: Duration) {
        self.durations[operation as usize].observe(duration);
    }

    pub fn fault(&self, operation: RedisOperation, fault: RedisFault) {
        self.faults[operation as usize][fault as usize].fetch_add(1, Relaxed);
    }

    pub fn lease(&self, result: LeaseResult) {
        self.leases[result as usize].fetch_add(1, Relaxed);
    }

    /// How many nodes of a cluster do not answer.
    pub fn set_silent_nodes(&self, count: u64) {
        self.silent_nodes.store(count, Relaxed);
    }

    pub(crate) fn silent_nodes(&self) -> u64 {
        self.silent_nodes.load(Relaxed)
    }

    /// Whether other instances' fetches are heard of.
    pub fn set_leases_heard(&self, heard: bool) {
        self.leases_heard.store(heard, Relaxed);
    }

    /// One more waits for another instance's fetch.
    pub fn lease_wait_begins(&self) {
        self.leases_waiting.fetch_add(1, Relaxed);
    }

    pub fn lease_wait_ends(&self) {
        self.leases_waiting.fetch_sub(1, Relaxed);
    }

    pub(crate) fn are_leases_heard(&self) -> bool {
        self.leases_heard.load(Relaxed)
    }

    pub(crate) fn leases_waiting(&self) -> u64 {
        self.leases_waiting.load(Relaxed)
    }

    pub(crate) fn leases(&self, result: LeaseResult) -> u64 {
        self.leases[result as usize].load(Relaxed)
    }

    /// Whether it is used now.
    pub fn set_up(&self, up: bool) {
        self.up.store(up, Relaxed);
    }

    /// Whether the purges of all instances are followed.
    pub fn set_followed(&self, followed: bool) {
        self.followed.store(followed, Relaxed);
    }

    /// How many purges wait to be recorded.
    pub fn set_purges_waiting(&self, count: u64) {
        self.purges_waiting.store(count, Relaxed);
    }

    pub(crate) fn is_followed(&self) -> bool {
        self.followed.load(Relaxed)
    }

    pub(crate) fn purges_waiting(&self) -> u64 {
        self.purges_waiting.load(Relaxed)
    }

    /// So many responses were not written.
    pub fn drop_writes(&self, count: u64) {
        self.writes_dropped.add(count);
    }

    pub(crate) fn durations(&self, operation: RedisOperation) -> Reading {
        self.durations[operation as usize].read()
    }

    pub(crate) fn faults(&self, operation: RedisOperation, fault: RedisFault) -> u64 {
        self.faults[operation as usize][fault as usize].load(Relaxed)
    }

    pub(crate) fn is_up(&self) -> bool {
        self.up.load(Relaxed)
    }

    pub(crate) fn writes_dropped(&self) -> u64 {
        self.writes_dropped.value()
    }
}
