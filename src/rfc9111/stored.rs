//! What is known about a stored response without looking at its fields again: computed once when it is stored or freshened,
//! so that a decision about a request reads a few numbers.

use std::time::Duration;

use super::date::{Millis, Seconds, Timestamp};
use super::freshness::Lifetime;
use super::labels::Labels;
use super::range::Partial;
use super::validation::Validators;
use super::vary::VariantKey;

/// The facts that decide about reuse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMeta {
    pub status: u16,
    /// `response_time` (RFC 9111 §4.2.3), or that of the last response that freshened it.
    pub received: Timestamp,
    /// `corrected_initial_age` (RFC 9111 §4.2.3).
    pub initial_age: Millis,
    pub lifetime: Lifetime,
    /// `Date`, or when it was received.
    pub date: Timestamp,
    pub restrictions: Restrictions,
    /// The origin's own (RFC 5861 §3).
    pub stale_while_revalidate: Option<Seconds>,
    /// The origin's own (RFC 5861 §4).
    pub stale_if_error: Option<Seconds>,
    pub validators: Validators,
    pub variant: VariantKey,
    pub rare: Rare,
}

/// What few stored responses have; for the others it is one pointer to nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rare(Option<Box<RareFacts>>);

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct RareFacts {
    /// `Some`: the body is only a part of the representation.
    partial: Option<Box<Partial>>,
    /// What it can be purged by beside its URI.
    labels: Option<Labels>,
}

/// What the origin's directives ask of a cache that reuses the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Restrictions {
    /// `no-cache` (RFC 9111 §5.2.2.4): never without validation.
    pub no_cache: bool,
    pub stale: StaleUse,
    /// RFC 8246.
    pub immutable: bool,
}

/// Whether the response may be used stale at all (RFC 9111 §4.2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StaleUse {
    #[default]
    Allowed,
    /// `s-maxage` (RFC 9111 §5.2.2.10): only where the origin itself grants it with a directive of RFC 5861 beside it. Neither
    /// a client nor a route can.
    AsGranted,
    /// `must-revalidate`, `proxy-revalidate` (RFC 9111 §5.2.2.2, §5.2.2.8) or `no-cache`.
    Never,
}

impl StoredMeta {
    /// `current_age` (RFC 9111 §4.2.3).
    pub fn age(&self, now: Timestamp) -> Duration {
        Duration::from_millis(self.age_millis(now))
    }

    #[inline]
    fn age_millis(&self, now: Timestamp) -> u64 {
        let resident = now.as_millis().saturating_sub(self.received.as_millis());
        self.initial_age.get().saturating_add(resident)
    }

    /// The value of `Age` (RFC 9111 §5.1).
    #[inline]
    pub fn age_seconds(&self, now: Timestamp) -> Seconds {
        Seconds::new(self.age_millis(now) / 1000)
    }

    /// RFC 9111 §4.2: the lifetime is longer than the age.
    #[inline]
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        u64::from(self.lifetime.seconds.get()) * 1000 > self.age_millis(now)
    }

    /// How long ago it stopped being fresh; zero while it is.
    pub fn staleness(&self, now: Timestamp) -> Duration {
        self.age(now).saturating_sub(self.lifetime.seconds.duration())
    }

    /// What is left of the freshness lifetime in seconds, negative once it is over (RFC 9211 §2.4).
    pub fn ttl(&self, now: Timestamp) -> i64 {
        self.ttl_at(self.age_seconds(now))
    }

    /// The same at this age.
    pub fn ttl_at(&self, age: Seconds) -> i64 {
        i64::from(self.lifetime.seconds.get()) - i64::from(age.get())
    }

    /// When it is of no use any more: its freshness is over and so are the windows in which it may be used stale or, if it
    /// has a validator, be `kept` for validation. The windows given are the route's.
    pub fn useless_from(&self, windows: StaleWindows, keep: Duration) -> Timestamp {
        let lifetime = self.lifetime.seconds.duration();
        let fresh_for = lifetime.saturating_sub(self.initial_age.duration());
        let stale_for = self
            .while_revalidate(windows)
            .max(self.if_error(windows))
            .max(if self.validators.any() { keep } else { Duration::ZERO });
        self.received.plus(fresh_for).plus(stale_for)
    }

    /// How long it may be used stale while it is being validated (RFC 5861 §3): what the origin says, else what the route says.
    pub fn while_revalidate(&self, windows: StaleWindows) -> Duration {
        self.window(self.stale_while_revalidate, windows.while_revalidate)
    }

    /// How long it may be used stale instead of an error (RFC 5861 §4).
    pub fn if_error(&self, windows: StaleWindows) -> Duration {
        self.window(self.stale_if_error, windows.if_error)
    }

    fn window(&self, origin: Option<Seconds>, route: Duration) -> Duration {
        match (self.restrictions.stale, origin) {
            (StaleUse::Never, _) | (StaleUse::AsGranted, None) => Duration::ZERO,
            (_, Some(granted)) => granted.duration(),
            (StaleUse::Allowed, None) => route,
        }
    }

    /// Bytes that this takes on the heap.
    pub fn heap_size(&self) -> usize {
        self.validators.heap_size() + self.variant.heap_size() + self.rare.heap_size()
    }

    /// `Some`: the body is only a part of the representation.
    pub fn partial(&self) -> Option<&Partial> {
        self.rare.0.as_ref()?.partial.as_deref()
    }

    pub fn set_partial(&mut self, partial: Option<Partial>) {
        self.rare.change(|facts| facts.partial = partial.map(Box::new));
    }

    /// What it can be purged by beside its URI. `None`: nothing.
    #[inline]
    pub fn labels(&self) -> Option<&Labels> {
        self.rare.0.as_ref()?.labels.as_ref()
    }

    pub fn set_labels(&mut self, labels: Option<Labels>) {
        self.rare.change(|facts| facts.labels = labels);
    }

    /// The same, stale since `at` and never to be used while it is being validated: what a soft purge leaves. When the origin fails it
    /// may still stand in for it, for as long as it is allowed to.
    pub fn outdated(&self, at: Timestamp) -> Self {
        let mut outdated = self.clone();
        outdated.lifetime.seconds = outdated.lifetime.seconds.min(self.age(at).into());
        outdated.stale_while_revalidate = Some(Seconds::ZERO);
        outdated
    }
}

impl Rare {
    fn change(&mut self, change: impl FnOnce(&mut RareFacts)) {
        let mut facts = self.0.take().unwrap_or_default();
        change(&mut facts);
        self.0 = Some(facts).filter(|facts| facts.partial.is_some() || facts.labels.is_some());
    }

    fn heap_size(&self) -> usize {
        let Some(facts) = &self.0 else { return 0 };
        let partial = facts.partial.as_ref().map_or(0, |partial| size_of_val(&**partial));
        let labels = facts.labels.as_ref().map_or(0, Labels::heap_size);
        size_of::<RareFacts>() + partial + labels
    }
}

/// A route's windows for stale responses whose origin has not given its own. Zero: none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StaleWindows {
    pub while_revalidate: Duration,
    pub if_error: Duration,
}
