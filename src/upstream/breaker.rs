//! The circuit breaker of one upstream: closed, while requests go through; open, while none does; half-open, while a few show
//! whether it works again.
//!
//! What is judged is what became of a request at the upstream, not each attempt: while one server of several fails and others answer in its
//! place, the circuit stays closed. The time is an argument.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;

use super::window::{Counts, Window};

/// When a circuit opens and closes.
#[derive(Debug, Clone, PartialEq)]
pub struct BreakerPolicy {
    /// Failures in a row that open it. At least 1.
    pub failure_threshold: u32,
    /// Share of the requests in `window` whose failure opens it, 0.0 to 1.0.
    pub failure_share: f64,
    pub window: Duration,
    /// A share of fewer requests says nothing. At least 1.
    pub min_requests: u32,
    /// Successes that close a half-open circuit; no more requests than could still be needed for it are under way at once. At least 1.
    pub success_threshold: u32,
    pub open_for: Duration,
}

/// Whether requests go through. In order of severity, which is the metric's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Closed,
    HalfOpen,
    Open,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Success,
    Failure,
    /// It says nothing about the upstream: the client left, say.
    Unknown,
}

/// A request may go through. Whatever comes of it has to be told to [`Breaker::settle`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a half-open circuit waits for what comes of it"]
pub struct Permit {
    era: u64,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Usual,
    /// One of the few of a half-open circuit.
    Trial,
}

impl Permit {
    /// Whether a half-open circuit waits for it.
    pub fn is_trial(&self) -> bool {
        self.kind == Kind::Trial
    }
}

/// No request goes through now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// When the next trial may go through.
    pub retry_after: Duration,
}

pub struct Breaker {
    policy: BreakerPolicy,
    /// Counts changes of state, so that what began before one has no say after it. Even numbers are times of a closed circuit: a
    /// request that finds one needs no lock.
    era: AtomicU64,
    consecutive: AtomicU32,
    window: Window,
    machine: Mutex<Machine>,
    on_change: Box<dyn Fn(State) + Send + Sync>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Machine {
    Closed,
    Open { until: Duration },
    HalfOpen { under_way: u32, succeeded: u32 },
}

/// Between two looks at a half-open circuit whose trials are all under way.
const TRIALS_UNDER_WAY: Duration = Duration::from_secs(1);

impl std::fmt::Debug for Breaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Breaker")
            .field("machine", &*self.machine.lock())
            .finish_non_exhaustive()
    }
}

impl Breaker {
    /// A closed circuit. `on_change` hears of every change in order; it must not use the breaker.
    pub fn new(policy: BreakerPolicy, on_change: impl Fn(State) + Send + Sync + 'static) -> Self {
        Self {
            era: AtomicU64::new(0),
            consecutive: AtomicU32::new(0),
            window: Window::new(policy.window),
            machine: Mutex::new(Machine::Closed),
            on_change: Box::new(on_change),
            policy,
        }
    }

    /// Asks whether a request may go through.
    ///
    /// # Errors
    /// It may not.
    pub fn admit(&self, now: Duration) -> Result<Permit, Refused> {
        let era = self.era.load(Relaxed);
        if is_closed(era) {
            return Ok(Permit { era, kind: Kind::Usual });
        }
        let mut machine = self.machine.lock();
        match &mut *machine {
            Machine::Closed => Ok(Permit {
                era: self.era.load(Relaxed),
                kind: Kind::Usual,
            }),
            Machine::Open { until } if now < *until => Err(Refused {
                retry_after: *until - now,
            }),
            Machine::Open { .. } => {
                let half_open = Machine::HalfOpen {
                    under_way: 1,
                    succeeded: 0,
                };
                self.change(&mut machine, half_open);
                Ok(self.trial())
            }
            Machine::HalfOpen { under_way, succeeded } if *under_way + *succeeded < self.policy.success_threshold => {
                *under_way += 1;
                Ok(self.trial())
            }
            Machine::HalfOpen { .. } => Err(Refused {
                retry_after: TRIALS_UNDER_WAY,
            }),
        }
    }

    fn trial(&self) -> Permit {
        Permit {
            era: self.era.load(Relaxed),
            kind: Kind::Trial,
        }
    }

    /// Says what became of a request that was let through.
    pub fn settle(&self, permit: Permit, verdict: Verdict, now: Duration) {
        if permit.era != self.era.load(Relaxed) {
            return;
        }
        match permit.kind {
            Kind::Usual => self.settle_usual(permit.era, verdict, now),
            Kind::Trial => self.settle_trial(permit.era, verdict, now),
        }
    }

    /// Says what became of the rest of a response whose head has been settled. Only a closed circuit hears it.
    pub fn note(&self, verdict: Verdict, now: Duration) {
        let era = self.era.load(Relaxed);
        if is_closed(era) {
            self.settle_usual(era, verdict, now);
        }
    }

    fn settle_usual(&self, era: u64, verdict: Verdict, now: Duration) {
        match verdict {
            Verdict::Unknown => {}
            Verdict::Success => {
                // Most of the time it is, and reading is cheaper than writing.
                if self.consecutive.load(Relaxed) != 0 {
                    self.consecutive.store(0, Relaxed);
                }
                self.window.add(now, Counts { all: 1, marked: 0 });
            }
            Verdict::Failure => {
                let consecutive = self.consecutive.fetch_add(1, Relaxed).saturating_add(1);
                self.window.add(now, Counts { all: 1, marked: 1 });
                if consecutive >= self.policy.failure_threshold || self.fails_too_often(now) {
                    let mut machine = self.machine.lock();
                    if era == self.era.load(Relaxed) {
                        self.open(&mut machine, now);
                    }
                }
            }
        }
    }

    fn settle_trial(&self, era: u64, verdict: Verdict, now: Duration) {
        let mut machine = self.machine.lock();
        let Machine::HalfOpen { under_way, succeeded } = &mut *machine else {
            return;
        };
        if era != self.era.load(Relaxed) {
            return;
        }
        *under_way = under_way.saturating_sub(1);
        match verdict {
            Verdict::Unknown => {}
            Verdict::Success => {
                *succeeded += 1;
                if *succeeded >= self.policy.success_threshold {
                    self.consecutive.store(0, Relaxed);
                    self.window.clear();
                    self.change(&mut machine, Machine::Closed);
                }
            }
            Verdict::Failure => self.open(&mut machine, now),
        }
    }

    fn fails_too_often(&self, now: Duration) -> bool {
        let Counts { all, marked } = self.window.counts(now);
        all >= self.policy.min_requests && f64::from(marked) >= self.policy.failure_share * f64::from(all)
    }

    fn open(&self, machine: &mut Machine, now: Duration) {
        let until = now.saturating_add(self.policy.open_for);
        self.change(machine, Machine::Open { until });
    }

    fn change(&self, machine: &mut Machine, to: Machine) {
        *machine = to;
        let era = self.era.load(Relaxed);
        let parity = u64::from(to != Machine::Closed);
        // The next number that says so.
        self.era.store(era + 1 + (era + 1 + parity) % 2, Relaxed);
        (self.on_change)(to.state());
    }

    pub fn state(&self) -> State {
        self.machine.lock().state()
    }
}

fn is_closed(era: u64) -> bool {
    era.is_multiple_of(2)
}

impl Machine {
    fn state(self) -> State {
        match self {
            Self::Closed => State::Closed,
            Self::Open { .. } => State::Open,
            Self::HalfOpen { .. } => State::HalfOpen,
        }
    }
}

#[cfg(test)]
mod tests;
