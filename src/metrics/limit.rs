//! What is counted for each limit.

use super::{Counter, LimitReason};

/// The counters of one limit.
#[derive(Debug, Default)]
pub struct LimitMetrics([Counter; LimitReason::COUNT]);

impl LimitMetrics {
    /// A request was refused, or would have been.
    pub fn refused(&self, why: LimitReason) {
        self.0[why as usize].add(1);
    }

    /// By [`LimitReason`].
    pub(crate) fn all(&self) -> [u64; LimitReason::COUNT] {
        std::array::from_fn(|reason| self.0[reason].value())
    }
}
