//! How much of everything a client may have.
//!
//! A request meets the limits of its route in one place before the cache is asked ([`rate::RouteLimits::admit`]), and those that are
//! only about the upstream before that is asked. What cannot be known before, bytes and tokens, is settled when the request is over.

pub mod adaptive;
pub mod concurrency;
pub mod fields;
pub mod gates;
pub mod gcra;
pub mod keys;
pub mod local;
pub mod rate;
pub mod refused;
pub mod shared;
pub mod tokens;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use self::local::Table;
use self::refused::{RefusedKey, TopKeys};
use self::shared::Shared;

/// What all limits of a process have in common, through all its configurations.
#[derive(Debug)]
pub struct Limiter {
    pub table: Table,
    /// Set at start, where there is a Redis.
    pub shared: OnceLock<Shared>,
    /// By the limit's name.
    refused: Mutex<BTreeMap<Arc<str>, Arc<TopKeys>>>,
}

impl Limiter {
    /// For at most so many keys that have used something.
    pub fn new(max_keys: usize) -> Self {
        Self {
            table: Table::new(max_keys),
            shared: OnceLock::new(),
            refused: Mutex::default(),
        }
    }

    /// Where the refusals of the limit of that name are counted.
    pub fn refused(&self, limit: &Arc<str>) -> Arc<TopKeys> {
        let mut all = self.refused.lock();
        // Limits may come and go for as long as the process lives.
        all.retain(|name, keys| name == limit || Arc::strong_count(keys) > 1);
        all.entry(limit.clone()).or_default().clone()
    }

    /// The keys that each limit in force refuses most, the most refused first.
    pub fn most_refused(&self, at_most: usize) -> Vec<(Arc<str>, Vec<RefusedKey>)> {
        let all = self.refused.lock().clone();
        all.into_iter()
            .map(|(limit, keys)| (limit, keys.top(at_most)))
            .collect()
    }
}
