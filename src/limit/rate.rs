//! Rates in force: which limits a route has, and what becomes of a request under them.

use std::sync::Arc;
use std::time::Duration;

use arrayvec::ArrayVec;

use super::Limiter;
use super::fields;
use super::gcra::{Admission, Gcra, Refused, Verdict};
use super::keys::{Key, Subject};
use super::local::KeyHash;
use super::refused::TopKeys;
use crate::config::{self, AddressDetail, Enforcement, LimitFields, LimitHits, LimitUnit};
use crate::message::Lines;
use crate::metrics::{LimitMetrics, LimitReason};
use crate::route::contains;

/// Limits of one route: each is checked for every request, and told in every response.
pub const MAX_LIMITS: usize = 8;

/// One limit in force.
#[derive(Debug)]
pub struct Limit {
    pub config: config::RateLimit,
    pub(super) gcra: Gcra,
    metrics: Arc<LimitMetrics>,
    pub(super) refused: Arc<TopKeys>,
}

/// The limits of one route.
#[derive(Debug)]
pub struct RouteLimits {
    limits: ArrayVec<Arc<Limit>, MAX_LIMITS>,
    cost: u64,
    fields: LimitFields,
    addresses: AddressDetail,
    /// The value of `RateLimit-Policy`.
    policy: String,
    pub(super) limiter: Arc<Limiter>,
}

/// When a limit is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Before the cache is asked: limits that hits count for.
    Arrival,
    /// Before the upstream is asked: limits that are only about that.
    Forward,
}

/// A request that is too much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TooMany {
    /// Names of the limits that it is too much for.
    pub limits: Vec<Arc<str>>,
    pub retry_after: Duration,
    pub why: LimitReason,
}

/// What the limits have said to one request so far, and what they are still to be told of it.
#[derive(Debug)]
pub struct Standing {
    limits: Arc<RouteLimits>,
    told: ArrayVec<Told, MAX_LIMITS>,
    owed: ArrayVec<Owed, MAX_LIMITS>,
    /// Its second stage is over: a request that asks the upstream twice is one request.
    is_forwarded: bool,
    /// When the first of them was asked.
    at: u64,
    /// The limit that refused it, or would have, and why.
    pub marked: Option<(Arc<str>, LimitReason)>,
}

/// What a client gets to know of one limit.
#[derive(Debug, Clone, Copy)]
pub struct Told {
    /// Into the route's limits.
    pub(super) limit: usize,
    pub(super) remaining: u64,
    pub(super) reset: Duration,
}

/// A limit that is told at the end what the request has used.
#[derive(Debug, Clone, Copy)]
struct Owed {
    limit: usize,
    key: KeyHash,
    /// Units taken in advance.
    taken: u64,
}

impl Limit {
    pub fn new(config: &config::RateLimit, metrics: Arc<LimitMetrics>, refused: Arc<TopKeys>) -> Self {
        Self {
            gcra: Gcra::new(config.amount, config.per, config.burst, config.block_for),
            config: config.clone(),
            metrics,
            refused,
        }
    }

    fn is_at(&self, stage: Stage) -> bool {
        match self.config.hits {
            LimitHits::Counted => stage == Stage::Arrival,
            LimitHits::Free => stage == Stage::Forward,
        }
    }

    fn exempts(&self, subject: &Subject<'_>) -> bool {
        let exempt = &self.config.exempt;
        let by_address = || subject.client.is_some_and(|client| contains(&exempt.addresses, client));
        let by_header = |(name, wanted): &(String, String)| {
            let mut lines = subject.request.fields.get_all(name);
            lines.any(|line| is_same(line, wanted.as_bytes()))
        };
        (!exempt.addresses.is_empty() && by_address()) || exempt.headers.iter().any(by_header)
    }

    fn key<'a>(&'a self, subject: Subject<'a>) -> Key<'a> {
        Key {
            limit: &self.config.name,
            parts: &self.config.key,
            subject,
        }
    }

    /// Units that a request takes when it comes.
    fn units(&self, cost: u64) -> u64 {
        match self.config.unit {
            LimitUnit::Requests => cost,
            // Whatever is left of them, the next one is let in.
            LimitUnit::Bytes => 1,
            LimitUnit::Tokens { assumed } => assumed,
        }
    }
}

impl RouteLimits {
    /// `None`: the route has no limits.
    pub fn new(
        route: &config::Route,
        config: &config::RateLimits,
        limits: &[Arc<Limit>],
        limiter: &Arc<Limiter>,
    ) -> Option<Arc<Self>> {
        let own = route.rate_limits.iter().filter_map(|index| limits.get(*index)).cloned();
        let limits: ArrayVec<_, MAX_LIMITS> = own.take(MAX_LIMITS).collect();
        if limits.is_empty() {
            return None;
        }
        let told = limits
            .iter()
            .filter(|limit| limit.config.enforcement == Enforcement::Refuse);
        Some(Arc::new(Self {
            policy: fields::policy(told.map(|limit| &limit.config)),
            limits,
            cost: route.rate_limit_cost,
            fields: config.fields,
            addresses: config.addresses,
            limiter: limiter.clone(),
        }))
    }

    pub(super) fn get(&self, index: usize) -> Option<&Arc<Limit>> {
        self.limits.get(index)
    }

    /// Takes from all limits that are looked at now what the request costs, or nothing from any of them. `now`: of [`Clock::uptime`],
    /// in nanoseconds.
    ///
    /// # Errors
    /// It is too much.
    ///
    /// [`Clock::uptime`]: crate::clock::Clock::uptime
    pub fn admit(
        self: &Arc<Self>,
        stage: Stage,
        subject: Subject<'_>,
        now: u64,
        standing: &mut Option<Box<Standing>>,
    ) -> Result<(), TooMany> {
        if stage == Stage::Forward
            && standing
                .as_mut()
                .is_some_and(|standing| std::mem::replace(&mut standing.is_forwarded, true))
        {
            return Ok(());
        }
        let mut taken: ArrayVec<(usize, KeyHash, u64, Verdict), MAX_LIMITS> = ArrayVec::new();
        let mut result = Ok(());
        for (index, limit) in self.limits.iter().enumerate() {
            let units = limit.units(self.cost);
            if units == 0 || !limit.is_at(stage) || limit.exempts(&subject) {
                continue;
            }
            let key = self.limiter.table.hash(&limit.key(subject));
            let verdict = self
                .limiter
                .table
                .update(key, now, |state| limit.gcra.take(state, now, units));
            match (verdict.admission, limit.config.enforcement) {
                (Admission::Admitted, _) => taken.push((index, key, units, verdict)),
                (Admission::Refused { .. }, Enforcement::DryRun) => {
                    self.standing(standing, now).marked = Some((limit.config.name.clone(), LimitReason::DryRun));
                    limit.metrics.refused(LimitReason::DryRun);
                }
                (Admission::Refused { why, retry_after }, Enforcement::Refuse) => {
                    limit
                        .refused
                        .count(key.value(), || limit.key(subject).label(self.addresses));
                    let too_many = TooMany {
                        limits: vec![limit.config.name.clone()],
                        retry_after,
                        why: why.into(),
                    };
                    result = Err(self.refuse(index, too_many, verdict, stage, subject, now, standing));
                    break;
                }
            }
        }
        if result.is_err() {
            for (index, key, units, _) in taken {
                self.shift(index, key, now, |gcra, state| gcra.give_back(state, now, units));
            }
            return result;
        }
        if taken.is_empty() {
            return Ok(());
        }
        let standing = self.standing(standing, now);
        standing.is_forwarded = stage == Stage::Forward;
        for (index, key, taken, verdict) in taken {
            let Some(limit) = self.limits.get(index) else { continue };
            if limit.config.enforcement == Enforcement::Refuse {
                standing.tell(index, verdict);
            }
            if limit.config.unit != LimitUnit::Requests {
                let _ = standing.owed.try_push(Owed {
                    limit: index,
                    key,
                    taken,
                });
            }
        }
        Ok(())
    }

    /// Looks at the limits behind the one that refused, so that the client is told of all that it has to wait for.
    #[expect(
        clippy::too_many_arguments,
        reason = "the request, the limit, and what is known of them"
    )]
    fn refuse(
        self: &Arc<Self>,
        refused: usize,
        mut too_many: TooMany,
        verdict: Verdict,
        stage: Stage,
        subject: Subject<'_>,
        now: u64,
        standing: &mut Option<Box<Standing>>,
    ) -> TooMany {
        let standing = self.standing(standing, now);
        standing.tell(refused, verdict);
        for (index, limit) in self.limits.iter().enumerate().skip(refused + 1) {
            let units = limit.units(self.cost);
            let holds =
                limit.config.enforcement == Enforcement::Refuse && limit.is_at(stage) && !limit.exempts(&subject);
            if units == 0 || !holds {
                continue;
            }
            let key = self.limiter.table.hash(&limit.key(subject));
            let verdict = limit.gcra.peek(self.limiter.table.read(key, now), now, units);
            if let Admission::Refused { retry_after, .. } = verdict.admission {
                too_many.limits.push(limit.config.name.clone());
                too_many.retry_after = too_many.retry_after.max(retry_after);
                standing.tell(index, verdict);
            }
        }
        if let Some(limit) = self.limits.get(refused) {
            limit.metrics.refused(too_many.why);
            standing.marked = Some((limit.config.name.clone(), too_many.why));
        }
        too_many
    }

    fn standing<'s>(self: &Arc<Self>, standing: &'s mut Option<Box<Standing>>, now: u64) -> &'s mut Standing {
        standing.get_or_insert_with(|| {
            Box::new(Standing {
                limits: self.clone(),
                told: ArrayVec::new(),
                owed: ArrayVec::new(),
                is_forwarded: false,
                at: now,
                marked: None,
            })
        })
    }

    fn shift(
        &self,
        index: usize,
        key: KeyHash,
        now: u64,
        to: impl FnOnce(&Gcra, super::gcra::State) -> super::gcra::State,
    ) {
        if let Some(limit) = self.limits.get(index) {
            self.limiter
                .table
                .update(key, now, |state| (to(&limit.gcra, state), ()));
        }
    }
}

impl Standing {
    fn tell(&mut self, limit: usize, verdict: Verdict) {
        let reset = match verdict.admission {
            Admission::Admitted => verdict.reset,
            // draft-ietf-httpapi-ratelimit-headers-11 §6: the same moment as Retry-After.
            Admission::Refused { retry_after, .. } => retry_after,
        };
        let _ = self.told.try_push(Told {
            limit,
            remaining: match verdict.admission {
                Admission::Admitted => verdict.remaining,
                Admission::Refused { .. } => 0,
            },
            reset,
        });
    }

    /// Adds to a response what the client is told of its limits.
    pub fn append_to(&self, lines: &mut impl Lines) {
        if self.told.is_empty() {
            return;
        }
        lines.push("RateLimit-Policy", &self.limits.policy);
        let told = self.told.iter().filter_map(|told| {
            let limit = self.limits.get(told.limit)?;
            Some((&limit.config, told))
        });
        fields::append(lines, told, self.limits.fields);
    }

    /// The request is over: limits of what it has used get to know it.
    pub fn settle(&self, response_bytes: u64, took: Duration) {
        let now = self.at.saturating_add(u64::try_from(took.as_nanos()).unwrap_or(0));
        for owed in &self.owed {
            let used = match self.limits.get(owed.limit).map(|limit| limit.config.unit) {
                Some(LimitUnit::Bytes) => response_bytes,
                _ => owed.taken,
            };
            self.limits
                .shift(owed.limit, owed.key, now, |gcra, state| match used > owed.taken {
                    true => gcra.charge(state, now, used - owed.taken),
                    false => gcra.give_back(state, now, owed.taken - used),
                });
        }
    }
}

impl From<Refused> for LimitReason {
    fn from(why: Refused) -> Self {
        match why {
            Refused::Excess => Self::Excess,
            Refused::Blocked => Self::Blocked,
        }
    }
}

/// In a time that does not tell how much of it was right: the value may be a secret.
fn is_same(line: &[u8], wanted: &[u8]) -> bool {
    line.len() == wanted.len() && line.iter().zip(wanted).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}
