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
use super::shared::{GivenBack, Question, Shared, SharedKey};
use super::tokens::{Estimate, Used};
use crate::config::{self, AddressDetail, Enforcement, LimitFields, LimitHits, LimitStore, LimitUnit, RouteCache};
use crate::message::Lines;
use crate::metrics::{LimitMetrics, LimitReason, Settled};
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
    /// When each of them is looked at.
    stages: ArrayVec<Stage, MAX_LIMITS>,
    cost: u64,
    store: LimitStore,
    fields: LimitFields,
    addresses: AddressDetail,
    /// The value of `RateLimit-Policy`.
    policy: String,
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
    /// Names of the limits that it is too much for.
    pub limits: Vec<Arc<str>>,
    pub retry_after: Duration,
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

/// What the limits have said to one request so far, and what they are still to be told of it.
#[derive(Debug)]
pub struct Standing {
    limits: Arc<RouteLimits>,
    told: ArrayVec<Told, MAX_LIMITS>,
    owed: ArrayVec<Owed, MAX_LIMITS>,
    /// Its second stage is over.
    is_forwarded: bool,
    /// What it was taken to ask for, in tokens.
    estimate: Estimate,
    /// What its answer has taken. `None`: it has not been looked at.
    pub used: Option<Used>,
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
#[derive(Debug, Clone)]
struct Owed {
    limit: usize,
    key: KeyHash,
    /// In Redis, where that counts.
    name: Option<SharedKey>,
    from: TakenFrom,
    /// Units taken in advance.
    taken: u64,
}

/// Who let a request in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TakenFrom {
    Memory,
    Redis,
    /// This instance's share, while Redis was away.
    Share,
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

    /// Of a route that caches.
    fn stage(&self) -> Stage {
        match (self.config.unit, self.config.hits) {
            // What is stored takes no tokens.
            (LimitUnit::Tokens { .. }, _) | (_, LimitHits::Free) => Stage::Forward,
            (_, LimitHits::Counted) => Stage::Arrival,
        }
    }

    fn refuses(&self, verdict: &Verdict) -> bool {
        self.config.enforcement == Enforcement::Refuse && verdict.admission != Admission::Admitted
    }

    /// Whether what was said last is enough to refuse: tokens may have been given back since, but a block stays.
    fn is_surely(&self, verdict: &Verdict) -> bool {
        let is_blocked = matches!(
            verdict.admission,
            Admission::Refused {
                why: Refused::Blocked,
                ..
            }
        );
        self.refuses(verdict) && (is_blocked || !self.counts_tokens())
    }

    fn counts_tokens(&self) -> bool {
        matches!(self.config.unit, LimitUnit::Tokens { .. })
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
    fn units(&self, cost: u64, estimate: Estimate) -> u64 {
        match self.config.unit {
            LimitUnit::Requests => cost,
            // Whatever is left of them, the next one is let in.
            LimitUnit::Bytes => 1,
            LimitUnit::Tokens { assumed } if cost > 0 => {
                let tokens = estimate.prompt.saturating_add(estimate.answer.unwrap_or(assumed));
                // What nobody has at once is not held back for it: what was used counts in full in the end.
                tokens.saturating_mul(cost).clamp(1, self.config.burst)
            }
            LimitUnit::Tokens { .. } => 0,
        }
    }

    /// Units that a request has used, of which so many were taken when it came.
    fn used(&self, cost: u64, estimate: Estimate, used: Used, response_bytes: u64, taken: u64) -> u64 {
        let assumed = match self.config.unit {
            LimitUnit::Requests => return taken,
            LimitUnit::Bytes => return response_bytes,
            LimitUnit::Tokens { assumed } => assumed,
        };
        let tokens = match used {
            Used::Nothing => 0,
            Used::Prompt => estimate.prompt,
            Used::Unknown => estimate.prompt.saturating_add(estimate.answer.unwrap_or(assumed)),
            Used::Told(total) => total,
            Used::Seen { prompt, answer } => prompt.unwrap_or(estimate.prompt).saturating_add(answer),
        };
        tokens.saturating_mul(cost)
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
        let stage = |limit: &Arc<Limit>| match &route.cache {
            RouteCache::On(_) => limit.stage(),
            RouteCache::Off => Stage::Arrival,
        };
        Some(Arc::new(Self {
            policy: fields::policy(told.map(|limit| &limit.config)),
            stages: limits.iter().map(stage).collect(),
            limits,
            cost: route.rate_limit_cost,
            store: config.store,
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
        self.conclude(stage, asked, TakenFrom::Memory, subject, estimate, now, standing)
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
        self.conclude(stage, asked, from, subject, estimate, now, standing)
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
        asked: Asked,
        from: TakenFrom,
        subject: Subject<'_>,
        estimate: Estimate,
        now: u64,
        standing: &mut Option<Box<Standing>>,
    ) -> Result<(), TooMany> {
        let mut refused = false;
        for (index, _, _, verdict) in &asked {
            let Some(limit) = self.limits.get(*index) else { continue };
            refused |= limit.refuses(verdict);
            if verdict.admission != Admission::Admitted && limit.config.enforcement == Enforcement::DryRun {
                self.standing(standing, now).marked = Some((limit.config.name.clone(), LimitReason::DryRun));
                limit.metrics.refused(LimitReason::DryRun);
            }
        }
        if refused {
            return Err(self.refuse(&asked, subject, now, standing));
        }
        if asked.is_empty() {
            return Ok(());
        }
        let standing = self.standing(standing, now);
        standing.is_forwarded = stage == Stage::Forward;
        standing.estimate = estimate;
        for (index, key, taken, verdict) in asked {
            let Some(limit) = self.limits.get(index) else { continue };
            if verdict.admission != Admission::Admitted {
                continue;
            }
            if limit.config.enforcement == Enforcement::Refuse {
                standing.tell(index, verdict);
            }
            if limit.config.unit != LimitUnit::Requests {
                let name = self.shared().map(|shared| shared.key(&limit.key(subject)));
                let _ = standing.owed.try_push(Owed {
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
            limits: Vec::with_capacity(1),
            retry_after: Duration::ZERO,
        };
        for (index, key, _, verdict) in asked {
            let Some(limit) = self.limits.get(*index) else { continue };
            let (Admission::Refused { why, retry_after }, true) = (verdict.admission, limit.refuses(verdict)) else {
                continue;
            };
            if too_many.limits.is_empty() {
                let why = why.into();
                limit
                    .refused
                    .count(key.value(), || limit.key(subject).label(self.addresses));
                limit.metrics.refused(why);
                standing.marked = Some((limit.config.name.clone(), why));
            }
            too_many.limits.push(limit.config.name.clone());
            too_many.retry_after = too_many.retry_after.max(retry_after);
            standing.tell(*index, *verdict);
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
                estimate: Estimate::NOTHING,
                used: None,
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

    /// Whether a limit waits to be told how many tokens the answer has taken.
    pub fn counts_tokens(&self) -> bool {
        let mut owed = self.owed.iter().filter_map(|owed| self.limits.get(owed.limit));
        owed.any(|limit| limit.counts_tokens())
    }

    /// The request is over: limits of what it has used get to know it. `unseen`: what is taken for used where nobody has looked.
    pub fn settle(&self, response_bytes: u64, unseen: Used, took: Duration) {
        let now = self.at.saturating_add(u64::try_from(took.as_nanos()).unwrap_or(0));
        let answer = self.used.unwrap_or(unseen);
        for owed in &self.owed {
            let Some(limit) = self.limits.get(owed.limit) else {
                continue;
            };
            let used = limit.used(self.limits.cost, self.estimate, answer, response_bytes, owed.taken);
            if limit.counts_tokens() {
                limit.metrics.tokens(owed.taken, used, answer.into());
            }
            let shift = |gcra: &Gcra, state| match used > owed.taken {
                true => gcra.charge(state, now, used - owed.taken),
                false => gcra.give_back(state, now, owed.taken - used),
            };
            let cost = |units| i64::try_from(limit.gcra.cost(units)).unwrap_or(i64::MAX);
            let forward = cost(used).saturating_sub(cost(owed.taken));
            match (self.limits.shared(), &owed.name, owed.from) {
                (Some(shared), Some(name), TakenFrom::Redis) => {
                    shared.charge(name.clone(), forward);
                    shared.shift_own(&limit.gcra, owed.key, now, shift);
                }
                (Some(shared), Some(name), TakenFrom::Share) => {
                    if !shared.shift_share(&limit.gcra, owed.key, now, shift) {
                        // Redis was told in the meantime.
                        shared.charge(name.clone(), forward);
                    }
                    continue;
                }
                _ => {}
            }
            self.limits.shift(owed.limit, owed.key, now, shift);
        }
    }
}

impl From<Used> for Settled {
    fn from(used: Used) -> Self {
        match used {
            Used::Told(_) => Self::Usage,
            Used::Seen { prompt: Some(_), .. } => Self::Usage,
            Used::Seen { prompt: None, .. } => Self::Text,
            Used::Prompt | Used::Unknown => Self::Estimate,
            Used::Nothing => Self::Nothing,
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

/// Whether the stage is over: a request that asks the upstream twice is one request.
fn is_done(stage: Stage, standing: &Option<Box<Standing>>) -> bool {
    stage == Stage::Forward && standing.as_ref().is_some_and(|standing| standing.is_forwarded)
}

/// In a time that does not tell how much of it was right: the value may be a secret.
fn is_same(line: &[u8], wanted: &[u8]) -> bool {
    line.len() == wanted.len() && line.iter().zip(wanted).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}
