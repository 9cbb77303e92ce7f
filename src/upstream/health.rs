//! Whether a server may be given requests: what probes, failures and people say of it.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use tokio::time::Instant;

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
/// Any of these takes a server out of the choice.
const UNUSABLE: u32 = UNHEALTHY | EJECTED | DRAINED;

/// Read for each request, so it is one word. Whoever changes it calls [`Upstream::refresh`](super::Upstream::refresh) afterwards;
/// a choice that is made in between already sees the change.
#[derive(Debug, Default)]
pub struct ServerHealth {
    flags: AtomicU32,
    /// When it came back, in nanoseconds since [`EPOCH`]. 0: it has not been away.
    back: AtomicU64,
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

    /// What the probes have found. Tells whether that is something new.
    pub fn set_state(&self, state: State, now: Instant) -> bool {
        let (set, cleared) = match state {
            State::Unknown => (0, PROBED | UNHEALTHY),
            State::Healthy => (PROBED, UNHEALTHY),
            State::Unhealthy => (PROBED | UNHEALTHY, 0),
        };
        self.change(set, cleared, now)
    }

    /// Tells whether that is something new.
    pub fn set_ejected(&self, now: Instant) -> bool {
        self.change(EJECTED, 0, now)
    }

    /// The time of an ejection is over, or a probe went well. Tells whether that is something new.
    pub fn readmit(&self, now: Instant) -> bool {
        self.change(0, EJECTED, now)
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
