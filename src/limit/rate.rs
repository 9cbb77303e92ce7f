//! Rates in force: which limits a route has, and what becomes of a request under them.

mod limit;
mod standing;

use std::sync::Arc;
use std::time::Duration;

use arrayvec::ArrayVec;

use self::standing::{Owed, TakenFrom};
use super::Limiter;
use super::fields;
use super::gcra::{Admission, Gcra, State, Verdict};
use super::keys::Subject;
use super::local::KeyHash;
use super::shared::{GivenBack, Question, Shared};
use super::tokens::Estimate;
use crate::config::{self, AddressDetail, Enforcement, LimitFields, LimitStore, LimitUnit, RouteCache};
use crate::metrics::LimitReason;
use crate::respond::refusal::Refusal;

pub use self::limit::Limit;
pub use self::standing::{Standing, Tokens, Told};

/// Limits of one route: each is checked for every request, and told in every response.
pub const MAX_LIMITS: usize = 8;

/// The limits of one route.
#[derive(Debug)]
pub struct RouteLimits {
    limits: ArrayVec<Arc<Limit>, MAX_LIMITS>,
    /// When each of them is looked at.
    stages: ArrayVec<Stage, MAX_LIMITS>,
    cost: u64,
    store: LimitStore,
    fields: LimitFields,
    addresses: AddressDetail,
    /// The value of `RateLimit-Policy`.
    policy: String,
    /// What a request that is too much is answered with.
    refusal: Refusal,
    pub(super) limiter: Arc<Limiter>,
}

/// When a limit is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Before the cache is asked: limits that hits count for, and all where nothing is cached.
    Arrival,
    /// Before the upstream is asked: limits that are only about that.
    Forward,
}

/// A request that is too much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TooMany {
    /// Those of its route's limits that it is too much for.
    violated: ArrayVec<u8, MAX_LIMITS>,
    retry_after: Duration,
}

/// What came of asking limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admitted {
    In,
    /// Nothing speaks against it here; [`RouteLimits::ask`] decides.
    Ask,
}

/// Limits by index, with the keys that they were asked for, and units.
type Asked = ArrayVec<(usize, KeyHash, u64, Verdict), MAX_LIMITS>;

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
        let stage = |limit: &Arc<Limit>| match &route.cache {
            RouteCache::On(_) => limit.stage(),
            RouteCache::Off => Stage::Arrival,
        };
        let policy = fields::policy(told.map(|limit| &limit.config));
        Some(Arc::new(Self {
            refusal: Refusal::new(&policy),
            policy,
            stages: limits.iter().map(stage).collect(),
            limits,
            cost: route.rate_limit_cost,
            store: config.store,
            fields: config.fields,
            addresses: config.addresses,
            limiter: limiter.clone(),
        }))
    }

    /// All limits, in order.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Limit>> {
        self.limits.iter()
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
    ) -> Result<Admitted, TooMany> {
        if is_done(stage, standing) {
            return Ok(Admitted::In);
        }
        let estimate = Estimate::of_head(subject.request);
        let table = &self.limiter.table;
        if self.shared().is_some() {
            // What Redis has said last is enough to refuse, and not enough to let in.
            let mut asked = Asked::new();
            for (index, limit, units) in self.at(stage, &subject, estimate) {
                let key = table.hash(&limit.key(subject));
                let verdict = limit.gcra.peek(table.read(key, now), now, units);
                if limit.is_surely(&verdict) {
                    asked.push((index, key, units, verdict));
                }
            }
            return match asked.is_empty() {
                true => Ok(Admitted::Ask),
                false => Err(self.refuse(&asked, subject, now, standing)),
            };
        }
        if self.needs_body(stage, &subject) {
            // Whoever has nothing left is refused at once; else it depends on what is asked for.
            let is_over = |(_, limit, units): (usize, &Arc<Limit>, u64)| {
                let least = if limit.counts_tokens() { 1 } else { units };
                let key = table.hash(&limit.key(subject));
                limit.refuses(&limit.gcra.peek(table.read(key, now), now, least))
            };
            if !self.at(stage, &subject, estimate).any(is_over) {
                return Ok(Admitted::Ask);
            }
        }
        self.take_here(stage, subject, estimate, now, standing)
            .map(|()| Admitted::In)
    }

    /// Whether one of the limits that are looked at now counts tokens, so that it matters what a request's body asks for.
    pub fn needs_body(&self, stage: Stage, subject: &Subject<'_>) -> bool {
        let mut limits = self.at(stage, subject, Estimate::NOTHING);
        limits.any(|(_, limit, _)| limit.counts_tokens())
    }

    /// Takes from the limits in memory.
    fn take_here(
        self: &Arc<Self>,
        stage: Stage,
        subject: Subject<'_>,
        estimate: Estimate,
        now: u64,
        standing: &mut Option<Box<Standing>>,
    ) -> Result<(), TooMany> {
        let table = &self.limiter.table;
        let mut asked = Asked::new();
        let mut refused = false;
        for (index, limit, units) in self.at(stage, &subject, estimate) {
            let key = table.hash(&limit.key(subject));
            let verdict = match refused {
                false => table.update(key, now, |state| limit.gcra.take(state, now, units)),
                true => limit.gcra.peek(table.read(key, now), now, units),
            };
            asked.push((index, key, units, verdict));
            if !refused && limit.refuses(&verdict) {
                refused = true;
                for (index, key, units, verdict) in &asked {
                    if verdict.admission == Admission::Admitted {
                        self.shift(*index, *key, now, |gcra, state| gcra.give_back(state, now, *units));
                    }
                }
            }
        }
        self.conclude(stage, &asked, TakenFrom::Memory, subject, estimate, now, standing)
    }

    /// As [`RouteLimits::admit`], where that has not been enough: asks the store that instances share, or while that is away takes
    /// this instance's share. `estimate`: of the request's tokens, where they count.
    ///
    /// # Errors
    /// It is too much.
    pub async fn ask(
        self: &Arc<Self>,
        stage: Stage,
        subject: Subject<'_>,
        estimate: Estimate,
        now: u64,
        standing: &mut Option<Box<Standing>>,
    ) -> Result<(), TooMany> {
        let Some(shared) = self.shared() else {
            return self.take_here(stage, subject, estimate, now, standing);
        };
        let mut questions: ArrayVec<Question<'_>, MAX_LIMITS> = ArrayVec::new();
        let mut indices: ArrayVec<usize, MAX_LIMITS> = ArrayVec::new();
        // In a cluster what one limit refuses is given back to the others.
        let alone = self.at(stage, &subject, estimate).nth(1).is_none();
        for (index, limit, units) in self.at(stage, &subject, estimate) {
            let key = limit.key(subject);
            indices.push(index);
            questions.push(Question {
                gcra: &limit.gcra,
                key: self.limiter.table.hash(&key),
                name: shared.key(&key),
                units,
                refuses: limit.config.enforcement == Enforcement::Refuse,
                given_back: match limit.config.unit {
                    LimitUnit::Requests if alone || !shared.is_cluster() => GivenBack::Never,
                    _ => GivenBack::WhatIsNotUsed,
                },
            });
        }
        if questions.is_empty() {
            return Ok(());
        }
        let verdicts = match shared.is_available() {
            true => shared.take(&questions, &self.limiter.table, now).await.ok(),
            false => None,
        };
        let (verdicts, from) = match verdicts {
            Some(verdicts) => (verdicts, TakenFrom::Redis),
            None => (self.take_shares(shared, &questions, now), TakenFrom::Share),
        };
        let asked = indices.iter().zip(&questions).zip(verdicts);
        let asked: Asked = asked
            .map(|((index, question), verdict)| (*index, question.key, question.units, verdict))
            .collect();
        self.conclude(stage, &asked, from, subject, estimate, now, standing)
    }

    fn take_shares(&self, shared: &Shared, questions: &[Question<'_>], now: u64) -> Vec<Verdict> {
        let mut verdicts: Vec<Verdict> = Vec::with_capacity(questions.len());
        for question in questions {
            let verdict = shared.take_share(question, &self.limiter.table, now);
            let refused = question.refuses && verdict.admission != Admission::Admitted;
            if refused {
                for (question, verdict) in questions.iter().zip(&verdicts) {
                    if verdict.admission == Admission::Admitted {
                        shared.give_share_back(question, now);
                    }
                }
            }
            verdicts.push(verdict);
            if refused {
                break;
            }
        }
        verdicts
    }

    fn shared(&self) -> Option<&Shared> {
        match self.store {
            LimitStore::Memory => None,
            LimitStore::Redis => self.limiter.shared.get(),
        }
    }

    /// The limits that are looked at now, and what the request costs of each.
    fn at<'s>(
        &'s self,
        stage: Stage,
        subject: &Subject<'_>,
        estimate: Estimate,
    ) -> impl Iterator<Item = (usize, &'s Arc<Limit>, u64)> {
        let limits = self.limits.iter().zip(&self.stages).enumerate();
        limits.filter_map(move |(index, (limit, at))| {
            let units = limit.units(self.cost, estimate);
            let counts = units > 0 && *at == stage && !limit.exempts(subject);
            counts.then_some((index, limit, units))
        })
    }

    /// Lets a request in or not, after all limits have been asked.
    #[expect(clippy::too_many_arguments, reason = "who asked what of whom, and what was said")]
    fn conclude(
        self: &Arc<Self>,
        stage: Stage,
        asked: &Asked,
        from: TakenFrom,
        subject: Subject<'_>,
        estimate: Estimate,
        now: u64,
        standing: &mut Option<Box<Standing>>,
    ) -> Result<(), TooMany> {
        let mut refused = false;
        for (index, _, _, verdict) in asked {
            let Some(limit) = self.limits.get(*index) else { continue };
            refused |= limit.refuses(verdict);
            if verdict.admission != Admission::Admitted && limit.config.enforcement == Enforcement::DryRun {
                self.standing(standing, now).marked = Some((*index, LimitReason::DryRun));
                limit.metrics.refused(LimitReason::DryRun);
            }
        }
        if refused {
            return Err(self.refuse(asked, subject, now, standing));
        }
        if asked.is_empty() {
            return Ok(());
        }
        let standing = self.standing(standing, now);
        standing.admitted(stage, estimate);
        for (index, key, taken, verdict) in asked.iter().copied() {
            let Some(limit) = self.limits.get(index) else { continue };
            if verdict.admission != Admission::Admitted {
                continue;
            }
            if limit.config.enforcement == Enforcement::Refuse {
                standing.tell(index, verdict);
            }
            if limit.config.unit != LimitUnit::Requests {
                let name = self.shared().map(|shared| shared.key(&limit.key(subject)));
                standing.owe(Owed {
                    limit: index,
                    key,
                    name,
                    from,
                    taken,
                });
            }
        }
        Ok(())
    }

    /// Counts a refusal and says what the client is told: of all limits that it has to wait for.
    fn refuse(
        self: &Arc<Self>,
        asked: &Asked,
        subject: Subject<'_>,
        now: u64,
        standing: &mut Option<Box<Standing>>,
    ) -> TooMany {
        let standing = self.standing(standing, now);
        let mut too_many = TooMany {
            violated: ArrayVec::new(),
            retry_after: Duration::ZERO,
        };
        for (index, key, _, verdict) in asked {
            let Some(limit) = self.limits.get(*index) else { continue };
            let (Admission::Refused { why, retry_after }, true) = (verdict.admission, limit.refuses(verdict)) else {
                continue;
            };
            if too_many.violated.is_empty() {
                let why = why.into();
                limit
                    .refused
                    .count(key.value(), || limit.key(subject).label(self.addresses));
                limit.metrics.refused(why);
                standing.marked = Some((*index, why));
            }
            let _ = too_many.violated.try_push(u8::try_from(*index).unwrap_or(u8::MAX));
            too_many.retry_after = too_many.retry_after.max(retry_after);
            standing.tell(*index, *verdict);
        }
        too_many
    }

    fn standing<'s>(self: &Arc<Self>, standing: &'s mut Option<Box<Standing>>, now: u64) -> &'s mut Standing {
        standing.get_or_insert_with(|| Box::new(Standing::new(self.clone(), now)))
    }

    fn shift(&self, index: usize, key: KeyHash, now: u64, to: impl FnOnce(&Gcra, State) -> State) {
        if let Some(limit) = self.limits.get(index) {
            self.limiter
                .table
                .update(key, now, |state| (to(&limit.gcra, state), ()));
        }
    }
}

/// Whether the stage is over: a request that asks the upstream twice is one request.
fn is_done(stage: Stage, standing: &Option<Box<Standing>>) -> bool {
    stage == Stage::Forward && standing.as_ref().is_some_and(|standing| standing.is_forwarded)
}
