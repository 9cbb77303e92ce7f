//! One limit: what a request costs of it, whom it spares, and what it is told in the end.

use std::sync::Arc;

use super::Stage;
use crate::config::{self, Enforcement, LimitHits, LimitUnit};
use crate::limit::gcra::{Admission, Gcra, Refused, Verdict};
use crate::limit::keys::{Key, Subject};
use crate::limit::refused::TopKeys;
use crate::limit::tokens::{Estimate, Used};
use crate::metrics::LimitMetrics;
use crate::route::contains;

/// One limit in force.
#[derive(Debug)]
pub struct Limit {
    pub config: config::RateLimit,
    pub(in crate::limit) gcra: Gcra,
    pub(super) metrics: Arc<LimitMetrics>,
    pub(super) refused: Arc<TopKeys>,
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
    pub(super) fn stage(&self) -> Stage {
        match (self.config.unit, self.config.hits) {
            // What is stored takes no tokens.
            (LimitUnit::Tokens { .. }, _) | (_, LimitHits::Free) => Stage::Forward,
            (_, LimitHits::Counted) => Stage::Arrival,
        }
    }

    pub(super) fn refuses(&self, verdict: &Verdict) -> bool {
        self.config.enforcement == Enforcement::Refuse && verdict.admission != Admission::Admitted
    }

    /// Whether what was said last is enough to refuse: tokens may have been given back since, but a block stays.
    pub(super) fn is_surely(&self, verdict: &Verdict) -> bool {
        let is_blocked = matches!(
            verdict.admission,
            Admission::Refused {
                why: Refused::Blocked,
                ..
            }
        );
        self.refuses(verdict) && (is_blocked || !self.counts_tokens())
    }

    pub(super) fn counts_tokens(&self) -> bool {
        matches!(self.config.unit, LimitUnit::Tokens { .. })
    }

    /// Whether it is not for this client.
    pub fn exempts(&self, subject: &Subject<'_>) -> bool {
        let exempt = &self.config.exempt;
        let by_address = || subject.client.is_some_and(|client| contains(&exempt.addresses, client));
        let by_header = |(name, wanted): &(String, String)| {
            let mut lines = subject.request.fields.get_all(name);
            lines.any(|line| is_same(line, wanted.as_bytes()))
        };
        (!exempt.addresses.is_empty() && by_address()) || exempt.headers.iter().any(by_header)
    }

    pub(super) fn key<'a>(&'a self, subject: Subject<'a>) -> Key<'a> {
        Key {
            limit: &self.config.name,
            parts: &self.config.key,
            subject,
        }
    }

    /// Units that a request takes when it comes.
    pub(super) fn units(&self, cost: u64, estimate: Estimate) -> u64 {
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
    pub(super) fn used(&self, cost: u64, estimate: Estimate, used: Used, response_bytes: u64, taken: u64) -> u64 {
        match self.config.unit {
            LimitUnit::Requests => taken,
            LimitUnit::Bytes => response_bytes,
            LimitUnit::Tokens { .. } => self.tokens(estimate, used).unwrap_or(0).saturating_mul(cost),
        }
    }

    /// Tokens that an answer has taken. `None`: they are not what is counted.
    pub(super) fn tokens(&self, estimate: Estimate, used: Used) -> Option<u64> {
        let LimitUnit::Tokens { assumed } = self.config.unit else {
            return None;
        };
        Some(match used {
            Used::Nothing => 0,
            Used::Prompt => estimate.prompt,
            Used::Unknown => estimate.prompt.saturating_add(estimate.answer.unwrap_or(assumed)),
            Used::Told(total) => total,
            Used::Seen { prompt, answer } => prompt.unwrap_or(estimate.prompt).saturating_add(answer),
        })
    }
}

/// In a time that does not tell how much of it was right: the value may be a secret.
fn is_same(line: &[u8], wanted: &[u8]) -> bool {
    line.len() == wanted.len() && line.iter().zip(wanted).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}
