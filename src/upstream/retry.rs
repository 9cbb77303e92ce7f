//! What is tried again: which failure of which request, when, and how often of all requests.
//!
//! A request that has provably not reached a server can be sent to another one, whatever it asks for. One that may have been worked on can
//! be sent again only if that does no harm: if its method is idempotent (RFC 9110 §9.2.2).

use std::time::Duration;

use super::window::{Counts, Window};

/// How often requests of an upstream are tried again.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// Attempts after the first. At least 1.
    pub retries: u32,
    /// At most so long before the first retry; each time `factor` times as long.
    pub delay: Duration,
    pub max_delay: Duration,
    pub factor: f64,
    /// Share of the upstream's requests that may be retries, 0.0 to 1.0.
    pub budget: f64,
    /// Responses with these statuses are no answers yet.
    pub statuses: Vec<u16>,
    /// From the beginning of the first attempt: no retry begins later, or lets the client wait for the head of a response for longer.
    pub max_time: Duration,
}

/// Attempts for a request that no server has taken, where nothing is configured. As many are made for each server that cannot be
/// connected to.
pub const UNTAKEN_RETRIES: u32 = 3;

/// Bytes of a request body that are held where nothing is configured: forms and JSON, not uploads.
pub const HELD_BODY: usize = 64 * 1024;

/// How an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failed {
    /// The server has provably not worked on the request.
    Untaken,
    /// No server could be connected to.
    Unreachable,
    /// The connection ended while the response was awaited.
    Lost,
    /// The server took too long.
    TimedOut,
    /// The response's status is one of [`RetryPolicy::statuses`], and it asks to wait so long (RFC 9110 §10.2.3).
    Answered { retry_after: Option<Duration> },
    /// In a way that another attempt would not mend.
    Finally,
}

/// A request whose last attempt has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    pub method: MethodKind,
    pub body: Body,
    /// Retries there were.
    pub retries: u32,
    /// Since the beginning of the first attempt.
    pub elapsed: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MethodKind {
    /// Asking twice does what asking once does (RFC 9110 §9.2.2).
    Idempotent,
    Other,
}

/// The part of the request's body that was read from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// It can be sent again.
    Held,
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Stop,
    /// After this pause. Only where [`Budget::spend`] allows, if it is `charged`.
    Again {
        after: Duration,
        charge: Charge,
    },
}

/// Whether a retry makes more work for the upstream than the request alone would have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charge {
    Budget,
    Nothing,
}

/// Decides about one more attempt. `random` is from 0.0 to 1.0. Without a policy only what has not been taken is tried again.
pub fn decide(policy: Option<&RetryPolicy>, request: Request, failed: Failed, random: f64) -> Decision {
    if request.body == Body::Gone || failed == Failed::Finally {
        return Decision::Stop;
    }
    if failed == Failed::Untaken {
        return untaken(policy, request);
    }
    if request.method == MethodKind::Other && failed != Failed::Unreachable {
        return Decision::Stop;
    }
    let Some(policy) = policy else {
        return Decision::Stop;
    };
    if request.retries >= policy.retries {
        return Decision::Stop;
    }
    let backoff = policy.longest_delay(request.retries).mul_f64(random.clamp(0.0, 1.0));
    let after = match failed {
        // Who is told to come back later than is worth waiting for is not to come back before (RFC 9110 §10.2.3).
        Failed::Answered {
            retry_after: Some(wanted),
        } if wanted > policy.max_delay => return Decision::Stop,
        Failed::Answered {
            retry_after: Some(wanted),
        } => wanted.max(backoff),
        _ => backoff,
    };
    match request.elapsed.saturating_add(after) < policy.max_time {
        true => Decision::Again {
            after,
            charge: Charge::Budget,
        },
        false => Decision::Stop,
    }
}

/// At once, and whatever the method: the upstream has had no work with it.
fn untaken(policy: Option<&RetryPolicy>, request: Request) -> Decision {
    let retries = policy.map_or(UNTAKEN_RETRIES, |policy| policy.retries.max(UNTAKEN_RETRIES));
    let in_time = policy.is_none_or(|policy| request.elapsed < policy.max_time);
    match request.retries < retries && in_time {
        true => Decision::Again {
            after: Duration::ZERO,
            charge: Charge::Nothing,
        },
        false => Decision::Stop,
    }
}

impl RetryPolicy {
    /// The pause before a retry is anything up to this ("full jitter"), so that those that failed together do not come back together.
    fn longest_delay(&self, retries: u32) -> Duration {
        let exponent = i32::try_from(retries).unwrap_or(i32::MAX);
        let seconds = self.delay.as_secs_f64() * self.factor.powi(exponent);
        Duration::try_from_secs_f64(seconds).map_or(self.max_delay, |delay| delay.min(self.max_delay))
    }

    /// What is left for the head of a response, after so long.
    pub fn time_left(&self, elapsed: Duration) -> Duration {
        self.max_time.saturating_sub(elapsed)
    }
}

/// How much of the traffic may be retries: a share of the requests of late, so that a failing upstream does not get a multiple of the
/// requests that made it fail.
#[derive(Debug)]
pub struct Budget {
    share: f64,
    window: Window,
}

/// Retries that are always allowed within the window: where there are few requests, a share of them is none.
const LEAST: u32 = 10;

impl Budget {
    /// `look_back`: for how long requests earn retries.
    pub fn new(share: f64, look_back: Duration) -> Self {
        Self {
            share,
            window: Window::new(look_back),
        }
    }

    /// A request is made.
    pub fn earn(&self, now: Duration) {
        self.window.add(now, Counts { all: 1, marked: 0 });
    }

    /// Whether there is room for a retry, which is taken then.
    pub fn spend(&self, now: Duration) -> bool {
        let Counts { all, marked } = self.window.counts(now);
        let allowed = (self.share * f64::from(all)).max(f64::from(LEAST));
        let has_room = f64::from(marked) + 1.0 <= allowed;
        if has_room {
            self.window.add(now, Counts { all: 0, marked: 1 });
        }
        has_room
    }
}

/// For how long a budget looks back. A server that freezes holds all that it got within the time that an attempt may take, and all of it
/// comes back for a retry at once: twice that time is enough where two servers of five freeze, and the share is 20 %.
pub fn look_back(first_byte: Option<Duration>) -> Duration {
    const LEAST: Duration = Duration::from_secs(10);
    const MOST: Duration = Duration::from_secs(120);
    first_byte.map_or(MOST, |time| (2 * time).clamp(LEAST, MOST))
}

#[cfg(test)]
mod tests;
