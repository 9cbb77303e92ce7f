//! What the tests stand on: a fake origin, the real binary, a real Redis and clients that show every byte.
//!
//! Nothing here sleeps. A test that needs an order of events holds a [`origin::Gate`] or waits for a fact ([`watched::Watched`]),
//! and every wait is bounded and says what it waited for.

pub mod browser;
pub mod certificate;
pub mod client;
pub mod dns;
pub mod fault;
pub mod inside;
pub mod origin;
pub mod proxy;
pub mod redis;
mod self_test;
pub mod watched;

use std::future::Future;
use std::time::Duration;

/// The longest that anything a test waits for may take. Far above what it does take, for machines under load.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for `future`; after [`PATIENCE`] the test fails and says `what` it waited for.
#[track_caller]
pub fn within<F: Future>(what: &str, future: F) -> impl Future<Output = F::Output> {
    within_time(PATIENCE, what, future)
}

/// As [`within`], with a limit of the test's own.
#[track_caller]
pub fn within_time<F: Future>(limit: Duration, what: &str, future: F) -> impl Future<Output = F::Output> {
    let caller = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(limit, future).await {
            Ok(output) => output,
            Err(_) => panic!("{caller}: nothing after {limit:?}: {what}"),
        }
    }
}
