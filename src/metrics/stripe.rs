//! Counters that threads do not fight over.
//!
//! A counter that all threads add to costs each of them the transfer of a cache line. Here each thread has a number, and adds to
//! the stripe of that number; a reader sums the stripes up. The first threads that count, which are those that serve requests, have
//! a stripe to themselves: what nobody else writes to needs no locked instruction. The others share the rest of the stripes.

use std::cell::Cell;
use std::ops::Deref;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

/// A power of two, so that a thread's number becomes an index without a division.
const STRIPES: usize = 32;

/// Stripes that belong to one thread each.
const OWNED: usize = 16;

static NEXT_THREAD: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static STRIPE: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// The calling thread's stripe.
fn own() -> usize {
    STRIPE.with(|stripe| match stripe.get() {
        usize::MAX => {
            let number = match NEXT_THREAD.fetch_add(1, Relaxed) {
                owned if owned < OWNED => owned,
                other => OWNED + other % (STRIPES - OWNED),
            };
            stripe.set(number);
            number
        }
        number => number,
    })
}

/// Adds to a counter in the calling thread's stripe. Must not be used for any other.
#[inline]
pub(super) fn add(counter: &AtomicU64, count: u64) {
    if own() < OWNED {
        counter.store(counter.load(Relaxed).wrapping_add(count), Relaxed);
    } else {
        counter.fetch_add(count, Relaxed);
    }
}

/// The same for what goes down again.
#[inline]
fn step(gauge: &AtomicI64, by: i64) {
    if own() < OWNED {
        gauge.store(gauge.load(Relaxed).wrapping_add(by), Relaxed);
    } else {
        gauge.fetch_add(by, Relaxed);
    }
}

/// Two lines: processors fetch them in pairs.
#[repr(align(128))]
#[derive(Debug, Default)]
struct Padded<T>(T);

/// One `T` for each stripe, made when a thread first needs it.
#[derive(Debug)]
pub(crate) struct PerThread<T> {
    stripes: [OnceLock<Box<Padded<T>>>; STRIPES],
}

impl<T: Default> PerThread<T> {
    /// The calling thread's own, which it may still share with others.
    pub(crate) fn own(&self) -> &T {
        &self.stripes[own() % STRIPES].get_or_init(Box::default).0
    }

    /// All of them, used or not.
    pub(crate) fn all(&self) -> impl Iterator<Item = &T> {
        self.stripes.iter().map(|stripe| &stripe.get_or_init(Box::default).0)
    }

    /// Those that were used.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.stripes.iter().filter_map(|stripe| Some(&stripe.get()?.0))
    }
}

impl<T> Default for PerThread<T> {
    fn default() -> Self {
        Self {
            stripes: std::array::from_fn(|_| OnceLock::new()),
        }
    }
}

/// Only grows.
#[derive(Debug, Default)]
pub struct Counter(PerThread<AtomicU64>);

impl Counter {
    pub fn add(&self, count: u64) {
        add(self.0.own(), count);
    }

    pub fn value(&self) -> u64 {
        self.0.iter().map(|stripe| stripe.load(Relaxed)).sum()
    }
}

/// How many of something there are now. Moved by guards only, so that what went up comes down on every way out.
#[derive(Debug, Default)]
pub struct Gauge(PerThread<AtomicI64>);

impl Gauge {
    /// Counts one for as long as the guard lives.
    pub fn guard(self: &Arc<Self>) -> GaugeGuard {
        GaugeGuard::new(Arc::clone(self))
    }

    /// The same without the cost of another owner.
    pub fn borrowed_guard(&self) -> GaugeGuard<&Self> {
        GaugeGuard::new(self)
    }

    /// A guard's way up and down may be on different stripes, which are not read in one moment: the sum can be off by what moves
    /// meanwhile, and is never shown below zero.
    pub fn value(&self) -> u64 {
        let sum: i64 = self.0.iter().map(|stripe| stripe.load(Relaxed)).sum();
        sum.try_into().unwrap_or(0)
    }
}

/// Counts as one of its [`Gauge`] until it is dropped.
#[must_use = "the gauge falls again when the guard is dropped"]
#[derive(Debug)]
pub struct GaugeGuard<G: Deref<Target = Gauge> = Arc<Gauge>>(G);

impl<G: Deref<Target = Gauge>> GaugeGuard<G> {
    fn new(gauge: G) -> Self {
        step(gauge.0.own(), 1);
        Self(gauge)
    }
}

impl<G: Deref<Target = Gauge>> Drop for GaugeGuard<G> {
    fn drop(&mut self) {
        step(self.0.0.own(), -1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_add_up() {
        let counter = Counter::default();
        std::thread::scope(|scope| {
            for _ in 0..40 {
                scope.spawn(|| (0..1000).for_each(|_| counter.add(1)));
            }
        });
        assert_eq!(counter.value(), 40_000);
    }

    #[test]
    fn a_guard_may_end_on_another_thread() {
        let gauge = Arc::new(Gauge::default());
        let guards = [gauge.guard(), gauge.guard()];
        let borrowed = gauge.borrowed_guard();
        assert_eq!(gauge.value(), 3);
        drop(borrowed);
        std::thread::scope(|scope| {
            scope.spawn(move || drop(guards));
        });
        assert_eq!(gauge.value(), 0);
    }
}
