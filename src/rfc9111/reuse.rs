//! May a stored response answer a request (RFC 9111 §4)?

use std::time::Duration;

use http::Method;

use super::date::{Seconds, Timestamp};
use super::directives::{MaxStale, RequestDirectives};
use super::range;
use super::storability::{ClientDirectives, RequestCookies};
use super::stored::{StaleUse, StaleWindows, StoredMeta};
use crate::message::{Fields, RequestHead};

/// Why a request goes to the origin, in the words of RFC 9211 §2.2. `Cache-Status`, log and metrics use the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Forward {
    /// The cache was configured not to handle it.
    Bypass,
    /// Its method asks for it.
    Method,
    /// Nothing is stored for its URI.
    UriMiss,
    /// Something is stored for its URI, but for other values of the fields in `Vary`.
    VaryMiss,
    /// Nothing that it could use is stored, and it cannot be said which of the two above it was.
    Miss,
    /// What is stored is fresh, but the request does not accept it.
    Request,
    /// What is stored is not fresh, or must not be used without validation.
    Stale,
    /// What is stored does not hold all the ranges that it asks for.
    Partial,
}

impl Forward {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Miss => "miss",
            Self::Request => "request",
            Self::Stale => "stale",
            Self::Partial => "partial",
        }
    }
}

/// What the route says about reuse.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReusePolicy {
    pub windows: StaleWindows,
    pub cookies: RequestCookies,
    pub request_directives: ClientDirectives,
}

/// What is to be done with the stored response that [`super::vary::select`] has chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// Answer with it.
    Fresh(Served),
    /// Answer with it although it is stale.
    Stale(StaleReason, Served),
    /// Ask the origin whether it still holds (RFC 9111 §4.3).
    Validate(Forward),
    /// Pass the request on as it is.
    Forward(Forward),
    /// `only-if-cached`, and there is nothing to answer with: 504 (RFC 9111 §5.2.1.7).
    GatewayTimeout,
}

/// What goes into the response's `Age` and `Cache-Status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    pub age: Seconds,
    /// Seconds of freshness left; negative for a stale response.
    pub ttl: i64,
}

impl Served {
    pub fn of(stored: &StoredMeta, now: Timestamp) -> Self {
        let age = stored.age_seconds(now);
        Self {
            age,
            ttl: stored.ttl_at(age),
        }
    }
}

/// Why a stale response may be served (RFC 9111 §4.2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StaleReason {
    /// RFC 5861 §3. The caller has it validated in the background.
    WhileRevalidate,
    /// RFC 5861 §4.
    IfError,
    /// The client accepts it (RFC 9111 §5.2.1.2).
    MaxStale,
}

impl StaleReason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WhileRevalidate => "stale-while-revalidate",
            Self::IfError => "stale-if-error",
            Self::MaxStale => "max-stale",
        }
    }
}

/// Whether a lookup makes sense at all. Everything but GET and HEAD goes to the origin, as do conditions that only the origin
/// may evaluate (RFC 9111 §4.3.2); a stored response could otherwise answer what was not asked.
pub fn forward_unseen(request: &RequestHead) -> Option<Forward> {
    if request.method != Method::GET && request.method != Method::HEAD {
        return Some(Forward::Method);
    }
    if request.fields.contains("if-match") || request.fields.contains("if-unmodified-since") {
        return Some(Forward::Request);
    }
    None
}

/// What is to be done where no stored response was chosen.
pub fn without_stored(request: &Fields, reason: Forward, policy: &ReusePolicy) -> Reuse {
    if policy.request_directives.of(request).only_if_cached {
        Reuse::GatewayTimeout
    } else {
        Reuse::Forward(reason)
    }
}

/// Decides about a request and the stored response chosen for it. Allocates nothing.
pub fn reuse(request: &RequestHead, stored: &StoredMeta, now: Timestamp, policy: &ReusePolicy) -> Reuse {
    if let Some(reason) = forward_unseen(request) {
        return Reuse::Forward(reason);
    }
    let directives = policy.request_directives.of(&request.fields);
    match usable(request, &directives, stored, now, policy) {
        Ok(None) => Reuse::Fresh(Served::of(stored, now)),
        Ok(Some(reason)) => Reuse::Stale(reason, Served::of(stored, now)),
        Err(_) if directives.only_if_cached => Reuse::GatewayTimeout,
        Err(Forward::Partial) => Reuse::Forward(Forward::Partial),
        Err(reason) if stored.validators.any() => Reuse::Validate(reason),
        Err(reason) => Reuse::Forward(reason),
    }
}

/// Whether the stored response may answer without asking, and if it is stale, why.
fn usable(
    request: &RequestHead,
    directives: &RequestDirectives,
    stored: &StoredMeta,
    now: Timestamp,
    policy: &ReusePolicy,
) -> Result<Option<StaleReason>, Forward> {
    // RFC 9111 §3.3: a partial response answers only for ranges that it holds.
    if !range::holds(stored, request) {
        return Err(Forward::Partial);
    }
    let fresh = stored.is_fresh(now);
    // RFC 9111 §5.2.2.4.
    if stored.restrictions.no_cache {
        return Err(Forward::Stale);
    }
    let unaccounted = policy.cookies == RequestCookies::Unaccounted && request.fields.contains("cookie");
    if unaccounted && !stored.lifetime.source.is_origin() {
        return Err(if fresh { Forward::Request } else { Forward::Stale });
    }
    // RFC 9111 §5.2.1.4. The request's no-store says nothing about using what is stored (§5.2.1.5), but whoever sends it does not
    // expect an answer from a store.
    if directives.no_cache || directives.no_store {
        return Err(if fresh { Forward::Request } else { Forward::Stale });
    }
    if let Some(max_age) = directives.max_age {
        // RFC 8246 §2: a reload is no reason to validate what never changes; no-cache is. A client that accepts staleness
        // accepts it beyond its max-age, too (RFC 9111 §5.2.1.2).
        let exempt = stored.restrictions.immutable && fresh;
        let within = stored.age(now) <= max_age.duration() && max_age > Seconds::ZERO;
        if !exempt && !within && (fresh || directives.max_stale.is_none()) {
            return Err(if fresh { Forward::Request } else { Forward::Stale });
        }
    }
    if fresh {
        // RFC 9111 §5.2.1.3.
        let is_left =
            |wanted: Seconds| stored.lifetime.seconds.duration().saturating_sub(stored.age(now)) >= wanted.duration();
        return match directives.min_fresh {
            Some(wanted) if !is_left(wanted) => Err(Forward::Request),
            _ => Ok(None),
        };
    }
    if directives.min_fresh.is_some() {
        return Err(Forward::Stale);
    }
    let staleness = stored.staleness(now);
    if staleness < stored.while_revalidate(policy.windows) {
        return Ok(Some(StaleReason::WhileRevalidate));
    }
    match directives.max_stale {
        Some(accepted) if stored.restrictions.stale == StaleUse::Allowed && accepts(accepted, staleness) => {
            Ok(Some(StaleReason::MaxStale))
        }
        _ => Err(Forward::Stale),
    }
}

fn accepts(accepted: MaxStale, staleness: Duration) -> bool {
    match accepted {
        MaxStale::Any => true,
        MaxStale::UpTo(limit) => staleness <= limit.duration(),
    }
}

/// Whether a status counts as an error of the origin (RFC 5861 §4).
pub fn is_error(status: u16) -> bool {
    matches!(status, 500 | 502 | 503 | 504)
}

/// Whether a stored response may stand in for an origin that failed: no connection, no complete answer in time, or a status for
/// which [`is_error`] holds. `None`: the failure must be passed on.
pub fn reuse_on_error(
    request: &RequestHead,
    stored: &StoredMeta,
    now: Timestamp,
    policy: &ReusePolicy,
) -> Option<Served> {
    if forward_unseen(request).is_some() {
        return None;
    }
    if !range::holds(stored, request) {
        return None;
    }
    let unaccounted = policy.cookies == RequestCookies::Unaccounted && request.fields.contains("cookie");
    if unaccounted && !stored.lifetime.source.is_origin() {
        return None;
    }
    if stored.restrictions.stale == StaleUse::Never {
        return None;
    }
    let directives = policy.request_directives.of(&request.fields);
    // A client that insists on the origin gets the origin's failure.
    if directives.no_cache || directives.no_store {
        return None;
    }
    let asked = match directives.stale_if_error {
        Some(window) if stored.restrictions.stale == StaleUse::Allowed => window.duration(),
        _ => Duration::ZERO,
    };
    let window = stored.if_error(policy.windows).max(asked);
    if stored.staleness(now) < window {
        Some(Served::of(stored, now))
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
