//! Whether a server may be given requests: what probes, failures and people say of it.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::outlier::Record;

/// What probes say of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// None has come to an end yet, or there are none.
    Unknown,
    Healthy,
    Unhealthy,
}

const PROBED: u32 = 1;
const UNHEALTHY: u32 = 1 << 1;
const EJECTED: u32 = 1 << 2;
const DRAINED: u32 = 1 << 3;
/// Not probed yet, and not to be used before.
const AWAITED: u32 = 1 << 4;
/// Something is held against it: a success is news.
const SUSPECT: u32 = 1 << 5;
/// It was ejected, and has not shown yet that it works: it gets one request at a time.
const PROBATION: u32 = 1 << 6;
/// That one request is under way.
const TRIED: u32 = 1 << 7;
/// Any of these takes a server out of the zone.
const UNUSABLE: u32 = UNHEALTHY | EJECTED | DRAINED | AWAITED;

/// Whether the request that is about to be given to a server decides about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trial {
    /// It is a server like others.
    None,
    /// It is on probation, and this is its one request: [`ServerHealth::end_trial`] has to follow.
    This,
    /// It is on probation, and has its one request.
    Another,
}

/// Read for each request, so it is one word. Whoever changes it calls [`Upstream::refresh`](super::Upstream::refresh) afterwards;
/// a choice that is made in between already sees the change.
#[derive(Debug, Default)]
pub struct ServerHealth {
    flags: AtomicU32,
    /// When it came back, in nanoseconds since [`EPOCH`]. 0: it has not been away.
    back: AtomicU64,
    /// What its answers were like; the flags say what follows from it.
    pub(super) record: Mutex<Record>,
}

/// Instants are kept as the time since then. A second before the first use, so that no instant is 0.
static EPOCH: LazyLock<Instant> = LazyLock::new(|| {
    let now = Instant::now();
    now.checked_sub(std::time::Duration::from_secs(1)).unwrap_or(now)
});

/// An instant as a number that fits an atomic.
pub fn nanos(at: Instant) -> u64 {
    u64::try_from(at.saturating_duration_since(*EPOCH).as_nanos()).unwrap_or(u64::MAX)
}

impl ServerHealth {
    pub fn state(&self) -> State {
        let flags = self.flags.load(Ordering::Relaxed);
        match (flags & PROBED != 0, flags & UNHEALTHY != 0) {
            (_, true) => State::Unhealthy,
            (true, false) => State::Healthy,
            (false, false) => State::Unknown,
        }
    }

    /// Left out for a time, because its answers were failures.
    pub fn is_ejected(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & EJECTED != 0
    }

    /// Taken out by somebody: no new requests, open ones finish.
    pub fn is_drained(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & DRAINED != 0
    }

    /// Whether it may be given requests.
    pub fn is_usable(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & UNUSABLE == 0
    }

    /// Whether it may be given a request now.
    pub fn is_choosable(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & (UNUSABLE | TRIED) == 0
    }

    /// Whether a success would be news.
    pub fn is_suspect(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & (SUSPECT | PROBATION) != 0
    }

    pub fn is_on_probation(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & PROBATION != 0
    }

    /// Something is held against it.
    pub fn suspect(&self) {
        self.flags.fetch_or(SUSPECT, Ordering::Relaxed);
    }

    /// Nothing is held against it any more.
    pub fn trust(&self) {
        self.flags.fetch_and(!(SUSPECT | PROBATION | TRIED), Ordering::Relaxed);
    }

    /// A request is about to be given to it.
    pub fn begin(&self) -> Trial {
        if !self.is_on_probation() {
            return Trial::None;
        }
        match self.flags.fetch_or(TRIED, Ordering::Relaxed) & (PROBATION | TRIED) {
            PROBATION => Trial::This,
            0 => {
                // It has been trusted meanwhile.
                self.end_trial();
                Trial::None
            }
            _ => Trial::Another,
        }
    }

    /// The one request of a server on probation is over.
    pub fn end_trial(&self) {
        self.flags.fetch_and(!TRIED, Ordering::Relaxed);
    }

    /// It is not used before it has been probed.
    pub fn await_probe(&self) {
        self.flags.fetch_or(AWAITED, Ordering::Relaxed);
    }

    /// What the probes have found. Tells whether that is something new.
    pub fn set_state(&self, state: State, now: Instant) -> bool {
        let (set, cleared) = match state {
            State::Unknown => (0, PROBED | UNHEALTHY | AWAITED),
            State::Healthy => (PROBED, UNHEALTHY | AWAITED),
            State::Unhealthy => (PROBED | UNHEALTHY, AWAITED),
        };
        self.change(set, cleared, now)
    }

    /// Tells whether that is something new.
    pub fn set_ejected(&self, now: Instant) -> bool {
        self.change(EJECTED, 0, now)
    }

    /// The time of an ejection is over, or probes went well: it has to show that it works. Tells whether that is something new.
    pub fn readmit(&self, now: Instant) -> bool {
        self.change(PROBATION, EJECTED | TRIED, now)
    }

    /// Tells whether that is something new.
    pub fn drain(&self, now: Instant) -> bool {
        self.change(DRAINED, 0, now)
    }

    /// Tells whether that is something new.
    pub fn enable(&self, now: Instant) -> bool {
        self.change(0, DRAINED, now)
    }

    /// The server is added to others that are at work: it is given its share slowly, like one that comes back.
    pub fn joins(&self, now: Instant) {
        self.back.store(nanos(now), Ordering::Relaxed);
    }

    /// Nanoseconds since it came back, at `now`. `None`: it has not been away.
    pub fn since_back(&self, now: u64) -> Option<u64> {
        match self.back.load(Ordering::Relaxed) {
            0 => None,
            back => Some(now.saturating_sub(back)),
        }
    }

    fn change(&self, set: u32, cleared: u32, now: Instant) -> bool {
        let update = |flags: u32| Some((flags & !cleared) | set);
        // The closure never refuses, so both cases carry what was there before.
        let before = match self.flags.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update) {
            Ok(before) | Err(before) => before,
        };
        let after = (before & !cleared) | set;
        if before & UNUSABLE != 0 && after & UNUSABLE == 0 {
            self.back.store(nanos(now), Ordering::Relaxed);
        }
        before != after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_probation_it_gets_one_request_at_a_time() {
        let health = ServerHealth::default();
        let now = Instant::now();
        assert_eq!(health.begin(), Trial::None);
        health.set_ejected(now);
        assert!(health.readmit(now));
        assert!(health.is_usable() && health.is_choosable());
        assert_eq!(health.begin(), Trial::This);
        assert!(health.is_usable() && !health.is_choosable());
        assert_eq!(health.begin(), Trial::Another);
        health.end_trial();
        assert_eq!(health.begin(), Trial::This);
        health.trust();
        assert!(health.is_choosable() && !health.is_suspect());
        assert_eq!(health.begin(), Trial::None);
    }

    #[test]
    fn a_server_that_is_awaited_is_used_after_its_first_probe() {
        let health = ServerHealth::default();
        health.await_probe();
        assert_eq!((health.state(), health.is_usable()), (State::Unknown, false));
        assert!(health.set_state(State::Healthy, Instant::now()));
        assert!(health.is_usable());
    }

    #[tokio::test(start_paused = true)]
    async fn each_reason_counts_for_itself() {
        let health = ServerHealth::default();
        let now = Instant::now();
        assert_eq!((health.state(), health.is_usable()), (State::Unknown, true));
        assert!(health.set_state(State::Unhealthy, now));
        assert!(!health.set_state(State::Unhealthy, now), "nothing new");
        assert!(health.drain(now));
        assert!(health.set_ejected(now));
        assert!(health.set_state(State::Healthy, now));
        assert!(!health.is_usable());
        assert!(health.enable(now));
        assert!(!health.is_usable());
        assert_eq!(health.since_back(nanos(now)), None);
        tokio::time::advance(std::time::Duration::from_millis(5)).await;
        assert!(health.readmit(Instant::now()));
        assert!(health.is_usable());
        assert_eq!(health.since_back(nanos(Instant::now())), Some(0));
        assert_eq!(health.state(), State::Healthy);
    }
}
