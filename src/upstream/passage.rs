//! A request's way through the circuit breaker of its upstream.

use std::sync::Arc;
use std::time::Duration;

use super::Upstream;
use super::breaker::{Breaker, Permit, Refused, State, Verdict};

/// A request that may go to an upstream. It is told what became of it once; dropping it says nothing about the upstream, as where the
/// client leaves.
#[derive(Debug)]
pub struct Passage {
    /// `None`: nothing may be held up, or it has been told.
    permit: Option<(Permit, Arc<Upstream>)>,
}

impl Upstream {
    /// Asks whether a request may go to any of the servers.
    ///
    /// # Errors
    /// The circuit is open.
    pub fn passage(self: &Arc<Self>) -> Result<Passage, Refused> {
        let permit = match &self.breaker {
            Some(breaker) => Some((breaker.admit(self.clock.running_lately())?, self.clone())),
            None => None,
        };
        Ok(Passage { permit })
    }
}

impl Upstream {
    /// Whether nothing speaks against requests that need not be made: its circuit is closed, or it has none.
    pub fn is_closed(&self) -> bool {
        self.circuit().is_none_or(|state| state == State::Closed)
    }

    /// `None`: it has no circuit breaker.
    pub fn circuit(&self) -> Option<State> {
        self.breaker.as_ref().map(Breaker::state)
    }
}

impl Passage {
    /// No server had an answer.
    pub fn failed(mut self) {
        self.settle(Verdict::Failure);
    }

    /// The head of a response is there, and goes on to somebody. A half-open circuit does not wait for its end, which may be hours away;
    /// for a closed one a whole response is a success, and [`Upstream::record`] hears of it.
    pub fn answered(mut self, status: u16) {
        match &self.permit {
            _ if is_gateway_failure(status) => self.settle(Verdict::Failure),
            Some((permit, _)) if permit.is_trial() => self.settle(Verdict::Success),
            _ => self.settle(Verdict::Unknown),
        }
    }

    fn settle(&mut self, verdict: Verdict) {
        if let Some((permit, upstream)) = self.permit.take()
            && let Some(breaker) = &upstream.breaker
        {
            breaker.settle(permit, verdict, upstream.clock.running());
        }
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        self.settle(Verdict::Unknown);
    }
}

/// What says that a server, or what it needs, is not at work (RFC 9110 §15.6.3 to §15.6.5). A 500 is the answer to this request.
pub fn is_gateway_failure(status: u16) -> bool {
    matches!(status, 502..=504)
}

/// A breaker that tells the log of what it does.
pub fn breaker(upstream: &crate::config::Upstream) -> Option<Breaker> {
    let policy = upstream.circuit_breaker.clone()?;
    let (name, open_for) = (upstream.name.clone(), policy.open_for);
    Some(Breaker::new(policy, move |state| {
        let upstream = &*name;
        match state {
            State::Open => tracing::warn!(upstream, ?open_for, "circuit open: the upstream is not asked"),
            State::HalfOpen => tracing::info!(upstream, "circuit half-open: a few requests try the upstream"),
            State::Closed => tracing::info!(upstream, "circuit closed: the upstream works"),
        }
    }))
}

/// How long a client is asked to wait where no server is left: by then the next probes will have been through.
pub const NO_SERVER_RETRY_AFTER: Duration = Duration::from_secs(5);
