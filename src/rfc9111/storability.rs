//! May a response be stored (RFC 9111 §3), and what of it?

use std::time::Duration;

use http::Method;

use super::date::{Seconds, format_http_date};
use super::directives::{RequestDirectives, ResponseDirectives};
use super::freshness::{
    Lifetime, LifetimeSource, Times, date, explicit_lifetime, heuristic_lifetime, initial_age,
    is_heuristically_cacheable,
};
use super::invalidation;
use super::range::Partial;
use super::stored::{Rare, Restrictions, StaleUse, StaleWindows, StoredMeta};
use super::validation::Validators;
use super::vary::VariantKey;
use crate::message::{Fields, Framing, RequestHead, ResponseHead};

/// What a route asks for. None of it makes storable what the origin or RFC 9111 forbids to store.
#[derive(Debug, Clone)]
pub struct StorePolicy<'a> {
    /// Names of targeted fields, most specific first (RFC 9213).
    pub targeted_fields: &'a [String],
    /// Cap of heuristic freshness; zero switches it off.
    pub heuristic_max: Duration,
    pub lifetime: LifetimeRules<'a>,
    pub windows: StaleWindows,
    pub set_cookie: SetCookie,
    pub cookies: RequestCookies,
    pub request_directives: ClientDirectives,
    pub codings: Codings,
}

/// Lifetimes of a route's own.
#[derive(Debug, Clone, Copy, Default)]
pub struct LifetimeRules<'a> {
    /// Instead of the origin's freshness, for 200, 203, 301 and 308. Counted from the response's arrival.
    pub ttl: Option<Duration>,
    /// For the same statuses, where the origin gives no explicit lifetime.
    pub default_ttl: Option<Duration>,
    /// By status, before the other two.
    pub statuses: &'a [(u16, Duration)],
}

impl LifetimeRules<'_> {
    /// Statuses that `ttl` and `default_ttl` are about.
    fn covers(status: u16) -> bool {
        matches!(status, 200 | 203 | 301 | 308)
    }

    fn instead(&self, status: u16) -> Option<Duration> {
        let by_status = self.statuses.iter().find(|(listed, _)| *listed == status);
        match by_status {
            Some((_, duration)) => Some(*duration),
            None if Self::covers(status) => self.ttl,
            None => None,
        }
    }

    fn fallback(&self, status: u16) -> Option<Duration> {
        if Self::covers(status) { self.default_ttl } else { None }
    }
}

/// What is done with a response that sets cookies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SetCookie {
    /// It is not stored.
    #[default]
    Bypass,
    /// It is stored without them.
    Strip,
}

/// Whether the route says what the cookies of a request mean for its response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RequestCookies {
    /// It does not: a lifetime that is not the origin's own does not apply to requests with cookies.
    #[default]
    Unaccounted,
    /// Those that matter are part of the key, or none matters.
    Accounted,
}

/// Whose choice the content coding of a response is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Codings {
    /// The origin's, by what the client accepts.
    #[default]
    Origins,
    /// The cache's own: it asks the origin for none, and recodes for its clients.
    Ours,
}

/// Whether the directives of requests count (RFC 9111 §5.2.1 leaves it to the cache).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientDirectives {
    #[default]
    Honour,
    Ignore,
}

impl ClientDirectives {
    /// The directives of this request as far as they count.
    pub fn of(self, request: &Fields) -> RequestDirectives {
        match self {
            Self::Honour => RequestDirectives::parse(request),
            Self::Ignore => RequestDirectives::default(),
        }
    }
}

#[derive(Debug)]
pub enum Storable {
    Yes(Box<Accepted>),
    No(Unstorable),
}

/// What is stored beside the body.
#[derive(Debug)]
pub struct Accepted {
    pub meta: StoredMeta,
    /// The response's fields without those that must not be stored and without `Age`; with a valid `Date`.
    pub fields: Fields,
}

/// Why a response is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unstorable {
    /// RFC 9111 §3: not a method whose responses this cache can reuse.
    Method,
    /// Not final, or about this one request rather than about the resource.
    Status,
    /// RFC 9111 §5.2.2.3: `must-understand`, and this status is not understood.
    NotUnderstood,
    /// RFC 9111 §5.2.2.5.
    NoStore,
    /// RFC 9111 §5.2.1.5.
    RequestNoStore,
    /// RFC 9111 §5.2.2.7.
    Private,
    /// RFC 9111 §3.5.
    Authorization,
    SetCookie,
    /// The lifetime would not be the origin's own, and the request had cookies.
    Cookie,
    /// RFC 9111 §4.1: `Vary: *` never matches.
    VaryStar,
    /// RFC 9111 §3: no lifetime, and nothing to validate it with.
    NoFreshness,
    /// RFC 9111 §3.3: a 206 that does not say which single range it is.
    Partial,
    /// RFC 9111 §3.3: its end is the connection's, so that nobody knows whether it is whole.
    CloseDelimited,
    /// Events are for the client that listens.
    EventStream,
}

impl Unstorable {
    /// The word for log and `Cache-Status` detail.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Status => "status",
            Self::NotUnderstood => "must-understand",
            Self::NoStore => "no-store",
            Self::RequestNoStore => "request-no-store",
            Self::Private => "private",
            Self::Authorization => "authorization",
            Self::SetCookie => "set-cookie",
            Self::Cookie => "cookie",
            Self::VaryStar => "vary-star",
            Self::NoFreshness => "no-freshness",
            Self::Partial => "partial",
            Self::CloseDelimited => "close-delimited",
            Self::EventStream => "event-stream",
        }
    }

    /// Whether the reason lies in the request, so that the response to another one could be stored.
    pub fn is_about_request(self) -> bool {
        matches!(
            self,
            Self::Method | Self::RequestNoStore | Self::Authorization | Self::Cookie
        )
    }
}

/// Decides about a response that came from the origin. Its body may still turn out to be incomplete; then it is not stored.
pub fn storable(request: &RequestHead, response: &ResponseHead, times: Times, policy: &StorePolicy<'_>) -> Storable {
    if response.framing == Framing::Close {
        return Storable::No(Unstorable::CloseDelimited);
    }
    // A response to HEAD says nothing about its body (RFC 9110 §9.3.2); what it does to a stored one is in `validation`.
    let created = request.method == Method::POST && is_post_for_get(request, response);
    if request.method != Method::GET && !created {
        return Storable::No(Unstorable::Method);
    }
    match assess(request, response.status, &response.fields, times, policy) {
        // RFC 9110 §9.3.3: a response to POST needs explicit freshness.
        Storable::Yes(accepted) if created && !accepted.meta.lifetime.source.is_origin() => {
            Storable::No(Unstorable::NoFreshness)
        }
        decision => decision,
    }
}

/// RFC 9110 §9.3.3: a 200 to POST whose `Content-Location` is the target's own URI is what GET would give.
fn is_post_for_get(request: &RequestHead, response: &ResponseHead) -> bool {
    let Some(location) = response.fields.get("content-location") else {
        return false;
    };
    response.status == 200
        && invalidation::resolve(request, location).is_some_and(|uri| uri == invalidation::ResourceUri::of(request))
}

/// The conditions of RFC 9111 §3 on a response as it would stand in the store, whether it came in one piece or was put together
/// from a stored one and a 304 (§4.3.4).
pub fn assess(request: &RequestHead, status: u16, fields: &Fields, times: Times, policy: &StorePolicy<'_>) -> Storable {
    let directives = ResponseDirectives::parse(fields, policy.targeted_fields);
    if let Some(reason) = forbidden(request, status, fields, &directives, policy) {
        return Storable::No(reason);
    }
    let partial = match status {
        206 => match Partial::announced(request, fields) {
            Some(partial) => Some(partial),
            None => return Storable::No(Unstorable::Partial),
        },
        _ => None,
    };
    let Some(variant) = VariantKey::new(&request.fields, fields) else {
        return Storable::No(Unstorable::VaryStar);
    };
    let variant = match policy.codings {
        Codings::Origins => variant,
        Codings::Ours => variant.without_codings(),
    };
    let initial_age = initial_age(fields, times);
    let lifetime = lifetime(status, fields, &directives, times, initial_age, policy);
    let has_cookies = request.fields.contains("cookie") && policy.cookies == RequestCookies::Unaccounted;
    if has_cookies && matches!(lifetime.source, LifetimeSource::Route | LifetimeSource::Heuristic) {
        return Storable::No(Unstorable::Cookie);
    }
    let mut meta = StoredMeta {
        status,
        received: times.received,
        initial_age: initial_age.into(),
        lifetime,
        date: date(fields, times.received).unwrap_or(times.received),
        restrictions: restrictions(&directives),
        stale_while_revalidate: directives.stale_while_revalidate,
        stale_if_error: directives.stale_if_error,
        validators: Validators::of(fields, times.received),
        variant,
        rare: Rare::default(),
    };
    meta.set_partial(partial);
    if is_useless(&meta, policy) {
        return Storable::No(Unstorable::NoFreshness);
    }
    Storable::Yes(Box::new(Accepted {
        fields: stored_fields(fields, &directives, times),
        meta,
    }))
}

fn forbidden(
    request: &RequestHead,
    status: u16,
    fields: &Fields,
    directives: &ResponseDirectives,
    policy: &StorePolicy<'_>,
) -> Option<Unstorable> {
    if !is_reusable_status(status) {
        return Some(Unstorable::Status);
    }
    // RFC 9111 §5.2.2.3: where the status is understood, must-understand takes no-store's force away.
    if directives.must_understand && !is_understood(status) {
        return Some(Unstorable::NotUnderstood);
    }
    if directives.no_store && !directives.must_understand {
        return Some(Unstorable::NoStore);
    }
    if policy.request_directives.of(&request.fields).no_store {
        return Some(Unstorable::RequestNoStore);
    }
    if directives.private.is_all() {
        return Some(Unstorable::Private);
    }
    // RFC 9111 §3.5.
    let shared = directives.public || directives.must_revalidate || directives.s_maxage.is_some();
    if request.fields.contains("authorization") && !shared {
        return Some(Unstorable::Authorization);
    }
    let sets_cookies = ["set-cookie", "set-cookie2"]
        .iter()
        .any(|name| fields.contains(name) && !is_withheld(name, directives));
    if sets_cookies && policy.set_cookie == SetCookie::Bypass {
        return Some(Unstorable::SetCookie);
    }
    if is_event_stream(fields) {
        return Some(Unstorable::EventStream);
    }
    None
}

/// Final statuses, less those whose answer depends on this request's credentials, conditions, range or connection: the key
/// knows nothing of these, so another request would get an answer to a question that it did not ask.
fn is_reusable_status(status: u16) -> bool {
    (200..=599).contains(&status)
        && !matches!(
            status,
            304 | 401 | 407 | 408 | 412 | 416 | 417 | 421 | 425 | 426 | 428 | 429 | 431
        )
}

/// Statuses whose caching requirements are followed here (RFC 9110 §15, RFC 9111 §3).
fn is_understood(status: u16) -> bool {
    matches!(
        status,
        200..=206 | 300..=303 | 307 | 308 | 400 | 402..=406 | 409..=411 | 413..=415 | 422 | 451 | 500..=505
    )
}

fn is_event_stream(fields: &Fields) -> bool {
    fields.get("content-type").is_some_and(|value| {
        let essence = value.split(|b| *b == b';').next().unwrap_or_default();
        essence.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
    })
}

/// RFC 9111 §3 (last condition), §4.2.1, §4.2.2, and what the route says about it.
fn lifetime(
    status: u16,
    fields: &Fields,
    directives: &ResponseDirectives,
    times: Times,
    initial_age: Duration,
    policy: &StorePolicy<'_>,
) -> Lifetime {
    // A route counts from the arrival, whatever age the response had by then.
    let from_arrival = |ttl: Duration| Lifetime {
        seconds: Seconds::from(initial_age + ttl),
        source: LifetimeSource::Route,
    };
    if let Some(ttl) = policy.lifetime.instead(status) {
        return from_arrival(ttl);
    }
    if let Some(explicit) = explicit_lifetime(fields, directives, times.received) {
        return explicit;
    }
    if let Some(ttl) = policy.lifetime.fallback(status) {
        return from_arrival(ttl);
    }
    if !is_heuristically_cacheable(status) && !directives.public {
        return Lifetime::NONE;
    }
    heuristic_lifetime(fields, times.received, policy.heuristic_max).unwrap_or(Lifetime::NONE)
}

fn restrictions(directives: &ResponseDirectives) -> Restrictions {
    let no_cache = directives.no_cache.is_all();
    let stale = if no_cache || directives.must_revalidate || directives.proxy_revalidate {
        StaleUse::Never
    } else if directives.s_maxage.is_some() {
        StaleUse::AsGranted
    } else {
        StaleUse::Allowed
    };
    Restrictions {
        no_cache,
        stale,
        immutable: directives.immutable,
    }
}

/// Whether it could never answer anything: neither fresh nor usable stale nor to be validated. Without explicit freshness and
/// of a status that is not heuristically cacheable it must not be stored at all (RFC 9111 §3).
fn is_useless(meta: &StoredMeta, policy: &StorePolicy<'_>) -> bool {
    if meta.lifetime.source == LifetimeSource::None && !is_heuristically_cacheable(meta.status) {
        return true;
    }
    if meta.validators.any() {
        return false;
    }
    let stale = meta.while_revalidate(policy.windows).max(meta.if_error(policy.windows));
    meta.restrictions.no_cache || (meta.lifetime.seconds == Seconds::ZERO && stale.is_zero())
}

/// Fields that are about the connection or the next hop (RFC 9111 §3.1, RFC 9110 §7.6.1). `Age` is given anew with each reuse;
/// cookies belong to one client, and so does what it has left of a limit (draft-ietf-httpapi-ratelimit-headers-11).
fn is_transient(name: &str) -> bool {
    const NAMES: [&str; 11] = [
        "connection",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "age",
        "set-cookie",
        "set-cookie2",
        "ratelimit",
        "ratelimit-policy",
    ];
    NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))
        || name
            .get(..12)
            .is_some_and(|prefix| prefix.eq_ignore_ascii_case("x-ratelimit-"))
        || name
            .get(..6)
            .is_some_and(|prefix| prefix.eq_ignore_ascii_case("proxy-"))
}

/// RFC 9111 §5.2.2.4, §5.2.2.7: fields that must not be reused without validation, or not be stored at all. This cache does
/// not store either kind: the client that asked gets them, the next ones do without.
fn is_withheld(name: &str, directives: &ResponseDirectives) -> bool {
    directives.no_cache.names(name) || directives.private.names(name)
}

/// The fields to store.
pub fn stored_fields(fields: &Fields, directives: &ResponseDirectives, times: Times) -> Fields {
    let mut kept = fields.clone();
    kept.retain(|name, _| {
        !is_transient(name) && !fields.has_token("connection", name) && !is_withheld(name, directives)
    });
    // RFC 9110 §6.6.1.
    if date(&kept, times.received).is_none() {
        kept.set("Date", format_http_date(times.received));
    }
    kept
}

#[cfg(test)]
mod tests;
