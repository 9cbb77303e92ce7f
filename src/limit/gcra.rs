//! The generic cell rate algorithm: a limit that lets `amount` through in a time, and up to `burst` at once, out of one word for each
//! key.
//!
//! The word is the theoretical arrival time: when a key that now stands still has everything back. Each unit that is taken moves it
//! on by `per / amount`; what would move it further than `burst` units (and a tenth of one) into the future is refused. So in any window of `per` at most
//! `burst + amount` get through, and whoever comes at the rate or slower is never refused.

use std::time::Duration;

/// A key that is blocked, and not merely out of budget.
const BLOCKED: u64 = 1 << 63;

/// Nothing reaches further into the future (nanoseconds): 73 years. Leaves room for every addition below.
pub const HORIZON: u64 = 1 << 61;

/// Bits behind the point of [`Gcra::interval`].
const POINT: u32 = 32;

/// What is known of one key: one word. Times are nanoseconds of a clock that never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct State(u64);

impl State {
    /// Nothing is known, so everything is there.
    pub const NEW: Self = Self(0);

    /// A key that has everything back at this time.
    pub fn back_at(time: u64) -> Self {
        Self(time.min(HORIZON))
    }

    pub(super) fn from_word(word: u64) -> Self {
        Self(word)
    }

    pub(super) fn word(self) -> u64 {
        self.0
    }

    /// From then on it is as good as [`State::NEW`]. The later, the more would be lost by forgetting it.
    pub fn forgettable_at(self) -> u64 {
        self.0 & !BLOCKED
    }

    fn is_blocked(self) -> bool {
        self.0 & BLOCKED != 0
    }
}

/// One limit, in nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gcra {
    /// Of one unit, with [`POINT`] bits behind the point, rounded up.
    interval: u128,
    /// `burst` units, and a little.
    tolerance: u64,
    block_for: u64,
}

/// What became of a request for units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    pub admission: Admission,
    /// Whole units that could be taken now.
    pub remaining: u64,
    /// Until everything is back.
    pub reset: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    Admitted,
    Refused {
        why: Refused,
        /// Until so many units could be taken.
        retry_after: Duration,
    },
}

/// What Redis says of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    /// 1: the units were there; 0: they were not; -1: the key is blocked.
    pub admission: i64,
    /// Nanoseconds until everything is back.
    pub back_in: u64,
    /// Nanoseconds.
    pub blocked_for: u64,
}

/// Why units were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// They are not there.
    Excess,
    /// The key had taken too many a while ago (`block_for`).
    Blocked,
}

impl Gcra {
    /// `amount` units in `per`, `burst` of them at once; a key that was refused stays so for `block_for`.
    pub fn new(amount: u64, per: Duration, burst: u64, block_for: Duration) -> Self {
        let interval = (u128::from(nanoseconds(per)) << POINT).div_ceil(u128::from(amount.max(1)));
        let mut gcra = Self {
            interval,
            tolerance: 0,
            block_for: nanoseconds(block_for),
        };
        // A part of one more, which is never a whole one: whoever comes at the rate does not come to the nanosecond.
        gcra.tolerance = gcra
            .cost(burst.max(1))
            .saturating_add(gcra.cost(1) / JITTER)
            .min(HORIZON);
        gcra
    }

    /// The limit of one of `instances` that share this one and do not know of each other. At least one unit goes through it at a time,
    /// so that a `burst` smaller than their number refuses nobody for ever.
    pub fn share(&self, instances: u32) -> Self {
        Self {
            interval: self.interval * u128::from(instances.max(1)),
            ..self.clone()
        }
    }

    /// Nanoseconds that so many units move a key on, rounded up: never more than the limit gets through.
    pub fn cost(&self, units: u64) -> u64 {
        let one = self.interval.div_ceil(1 << POINT);
        let exact = match one {
            // Single units, each rounded up as if taken alone.
            one if one >= u128::from(SHORT) => one.saturating_mul(u128::from(units)),
            _ => self.interval.saturating_mul(u128::from(units)).div_ceil(1 << POINT),
        };
        u64::try_from(exact).unwrap_or(HORIZON).min(HORIZON)
    }

    /// Nanoseconds that a key may be ahead: `burst` units and a tenth of one.
    pub fn tolerance(&self) -> u64 {
        self.tolerance
    }

    pub fn block_for(&self) -> Duration {
        Duration::from_nanos(self.block_for)
    }

    /// Takes `units` if they are there. What is more than `burst` is given to a key that has everything, and takes its time.
    pub fn take(&self, state: State, now: u64, units: u64) -> (State, Verdict) {
        let (base, blocked_until) = self.read(state, now);
        if let Some(until) = blocked_until {
            return (state, self.refused(base, now, Refused::Blocked, until - now));
        }
        let cost = self.cost(units);
        let needed = base.saturating_add(cost.min(self.tolerance));
        let latest = now.saturating_add(self.tolerance);
        if needed > latest {
            if self.block_for == 0 {
                let state = State::back_at(base);
                return (state, self.refused(base, now, Refused::Excess, needed - latest));
            }
            let until = now.saturating_add(self.block_for);
            let forgettable = until.saturating_add(self.tolerance.saturating_sub(self.block_for));
            let state = State(forgettable.min(HORIZON) | BLOCKED);
            let wait = self.block_for.max(needed - latest);
            return (state, self.refused(base, now, Refused::Excess, wait));
        }
        let taken = base.saturating_add(cost).min(HORIZON);
        let verdict = Verdict {
            admission: Admission::Admitted,
            remaining: self.units(latest.saturating_sub(taken)),
            reset: Duration::from_nanos(taken.saturating_sub(now)),
        };
        (State::back_at(taken), verdict)
    }

    /// As [`Gcra::take`] would answer, with nothing taken.
    pub fn peek(&self, state: State, now: u64, units: u64) -> Verdict {
        self.take(state, now, units).1
    }

    /// Takes units whether or not they are there: they have been used already.
    pub fn charge(&self, state: State, now: u64, units: u64) -> State {
        self.shift(state, now, |base| base.saturating_add(self.cost(units)))
    }

    /// Nanoseconds until a key has everything back. 0 while it is blocked: then it is not known.
    pub fn ahead(&self, state: State, now: u64) -> u64 {
        match self.read(state, now) {
            (base, None) => base.saturating_sub(now),
            (_, Some(_)) => 0,
        }
    }

    /// Gives units back that were taken before and not used.
    pub fn give_back(&self, state: State, now: u64, units: u64) -> State {
        self.shift(state, now, |base| base.saturating_sub(self.cost(units)).max(now))
    }

    /// What is known of a key after this was said of it, asked at `now` or later: it is at least so far ahead.
    pub fn told(&self, reply: Reply, now: u64) -> State {
        match reply.blocked_for {
            0 => State::back_at(now.saturating_add(reply.back_in)),
            blocked_for => {
                let until = now.saturating_add(blocked_for);
                let forgettable = until.saturating_add(self.tolerance.saturating_sub(self.block_for));
                State(forgettable.min(HORIZON) | BLOCKED)
            }
        }
    }

    /// What was said of a key, as [`Gcra::take`] would say it.
    pub fn verdict(&self, reply: Reply, units: u64) -> Verdict {
        let left = self.units(self.tolerance.saturating_sub(reply.back_in));
        let back_in = Duration::from_nanos(reply.back_in);
        if reply.admission == 1 {
            return Verdict {
                admission: Admission::Admitted,
                remaining: left,
                reset: back_in,
            };
        }
        let needed = self.cost(units).min(self.tolerance).saturating_add(reply.back_in);
        let wait = needed.saturating_sub(self.tolerance).max(reply.blocked_for);
        Verdict {
            admission: Admission::Refused {
                why: match reply.admission {
                    0 => Refused::Excess,
                    _ => Refused::Blocked,
                },
                retry_after: Duration::from_nanos(wait),
            },
            remaining: if reply.blocked_for == 0 { left } else { 0 },
            reset: back_in.max(Duration::from_nanos(wait)),
        }
    }

    fn shift(&self, state: State, now: u64, to: impl FnOnce(u64) -> u64) -> State {
        match self.read(state, now) {
            (_, Some(_)) => state,
            (base, None) => State::back_at(to(base)),
        }
    }

    /// When everything is back, not before `now`; and the end of the block that is in force.
    fn read(&self, state: State, now: u64) -> (u64, Option<u64>) {
        let forgettable = state.forgettable_at();
        if !state.is_blocked() {
            return (forgettable.max(now), None);
        }
        // Behind a block the key is where it was before: what the limit gave back meanwhile is counted in.
        let until = forgettable.saturating_sub(self.tolerance.saturating_sub(self.block_for));
        match until > now {
            true => (forgettable.max(now), Some(until)),
            false if self.tolerance > self.block_for => (forgettable.max(now), None),
            false => (now, None),
        }
    }

    fn refused(&self, base: u64, now: u64, why: Refused, wait: u64) -> Verdict {
        Verdict {
            admission: Admission::Refused {
                why,
                retry_after: Duration::from_nanos(wait),
            },
            remaining: match why {
                Refused::Excess if self.block_for == 0 => {
                    self.units(now.saturating_add(self.tolerance).saturating_sub(base))
                }
                Refused::Excess | Refused::Blocked => 0,
            },
            reset: Duration::from_nanos(base.saturating_sub(now).max(wait)),
        }
    }

    /// Whole units that fit into so many nanoseconds.
    fn units(&self, nanoseconds: u64) -> u64 {
        let interval = match self.interval.div_ceil(1 << POINT) {
            one if one >= u128::from(SHORT) => one << POINT,
            _ => self.interval,
        };
        let units = (u128::from(nanoseconds) << POINT) / interval.max(1);
        u64::try_from(units).unwrap_or(u64::MAX)
    }
}

/// So many parts of the time for a unit may it come too early.
const JITTER: u64 = 10;

/// From so many nanoseconds for a unit on, units are rounded one by one: a thousandth, of which with a `burst` of one the tenfold is
/// lost. Shorter ones are bytes and tokens, which are taken many at a time and rounded together.
pub const SHORT: u64 = 1000;

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(HORIZON).min(HORIZON)
}

#[cfg(test)]
mod tests;
