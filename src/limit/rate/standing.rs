//! What the limits have said to one request, and what they get to know when it is over.

use std::sync::Arc;
use std::time::Duration;

use arrayvec::ArrayVec;
use bytes::Bytes;

use super::{MAX_LIMITS, RouteLimits, Stage, TooMany};
use crate::cache::StoredLines;
use crate::limit::fields;
use crate::limit::gcra::{Admission, Gcra, Refused, Verdict};
use crate::limit::local::KeyHash;
use crate::limit::shared::SharedKey;
use crate::limit::tokens::{Estimate, Used};
use crate::message::{Lines, ResponseHead};
use crate::metrics::{LimitReason, Settled};

/// What the limits have said to one request so far, and what they are still to be told of it.
#[derive(Debug)]
pub struct Standing {
    pub(super) limits: Arc<RouteLimits>,
    told: ArrayVec<Told, MAX_LIMITS>,
    /// Of limits of requests nothing is owed.
    owed: Vec<Owed>,
    /// Its second stage is over.
    pub(super) is_forwarded: bool,
    /// What it was taken to ask for, in tokens.
    estimate: Estimate,
    /// What its answer has taken. `None`: it has not been looked at.
    pub used: Option<Used>,
    /// When the first of them was asked.
    at: u64,
    /// The limit that refused it, or would have, and why.
    pub(super) marked: Option<(usize, LimitReason)>,
}

/// What a client gets to know of one limit.
#[derive(Debug, Clone, Copy)]
pub struct Told {
    /// Into the route's limits.
    limit: usize,
    pub(in crate::limit) remaining: u64,
    pub(in crate::limit) reset: Duration,
}

/// A limit that is told at the end what the request has used.
#[derive(Debug, Clone)]
pub(super) struct Owed {
    pub limit: usize,
    pub key: KeyHash,
    /// In Redis, where that counts.
    pub name: Option<SharedKey>,
    pub from: TakenFrom,
    /// Units taken in advance.
    pub taken: u64,
}

/// Who let a request in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TakenFrom {
    Memory,
    Redis,
    /// This instance's share, while Redis was away.
    Share,
}

/// What an answer has taken of a language model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tokens {
    /// Held back for it when it was asked for.
    pub reserved: u64,
    pub used: u64,
    /// How that is known.
    pub by: Settled,
}

impl Standing {
    pub(super) fn new(limits: Arc<RouteLimits>, now: u64) -> Self {
        Self {
            limits,
            told: ArrayVec::new(),
            owed: Vec::new(),
            is_forwarded: false,
            estimate: Estimate::NOTHING,
            used: None,
            at: now,
            marked: None,
        }
    }

    /// The request has been let in.
    pub(super) fn admitted(&mut self, stage: Stage, estimate: Estimate) {
        self.is_forwarded = stage == Stage::Forward;
        self.estimate = estimate;
    }

    pub(super) fn owe(&mut self, owed: Owed) {
        // No more than limits, in both stages together.
        self.owed.push(owed);
    }

    pub(super) fn tell(&mut self, limit: usize, verdict: Verdict) {
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
        lines.push("RateLimit-Policy", self.limits.policy.as_bytes());
        self.append_state(lines);
    }

    fn append_state(&self, lines: &mut impl Lines) {
        let told = self.told.iter().filter_map(|told| {
            let limit = self.limits.get(told.limit)?;
            Some((&limit.config, told))
        });
        fields::append(lines, told, self.limits.fields);
    }

    /// The answer to a request that is too much, with its body. `accept` is the request's field of that name, `now` an IMF-fixdate.
    pub fn refusal(
        &self,
        too_many: &TooMany,
        accept: Option<&[u8]>,
        request_id: &[u8],
        now: &str,
    ) -> (ResponseHead<StoredLines<'_>>, Bytes) {
        let violated = too_many.violated.iter();
        let violated = violated.filter_map(|limit| Some(&*self.limits.get(usize::from(*limit))?.config.name));
        let answer = &self.limits.refusal;
        let (mut head, body) = answer.render(violated, too_many.retry_after, accept, request_id, now);
        self.append_state(&mut head.fields);
        (head, body)
    }

    /// The name of the limit that refused the request, or would have, and why.
    pub fn marked(&self) -> Option<(&Arc<str>, LimitReason)> {
        let (limit, why) = self.marked?;
        Some((&self.limits.get(limit)?.config.name, why))
    }

    /// Whether a limit waits to be told how many tokens the answer has taken.
    pub fn counts_tokens(&self) -> bool {
        let mut owed = self.owed.iter().filter_map(|owed| self.limits.get(owed.limit));
        owed.any(|limit| limit.counts_tokens())
    }

    /// The request is over: limits of what it has used get to know it. `unseen`: what is taken for used where nobody has looked. Answers
    /// what it has taken of a language model, where that counts.
    pub fn settle(&self, response_bytes: u64, unseen: Used, took: Duration) -> Option<Tokens> {
        let now = self.at.saturating_add(u64::try_from(took.as_nanos()).unwrap_or(0));
        let answer = self.used.unwrap_or(unseen);
        let mut tokens = None;
        for owed in &self.owed {
            let Some(limit) = self.limits.get(owed.limit) else {
                continue;
            };
            let used = limit.used(self.limits.cost, self.estimate, answer, response_bytes, owed.taken);
            if let Some(counted) = limit.tokens(self.estimate, answer) {
                limit.metrics.tokens(owed.taken, used, answer.into());
                tokens.get_or_insert(Tokens {
                    reserved: owed.taken,
                    used: counted,
                    by: answer.into(),
                });
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
        tokens
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
