//! The behaviours that a cache shows from outside, one exchange after the other: what RFC 9111 requires and what it leaves to
//! good caches. Each table row is a first exchange, a pause and a second request.

mod directives;
mod freshness;
mod model;
mod validation;
mod vary;

use std::time::Duration;

use http::Method;

use super::date::{Timestamp, format_http_date};
use super::freshness::Times;
use super::invalidation;
use super::range::{Selection, selection};
use super::reuse::{Forward, Reuse, ReusePolicy, reuse, reuse_on_error, without_stored};
use super::storability::{
    ClientDirectives, Codings, LifetimeRules, RequestCookies, SetCookie, Storable, StorePolicy, Unstorable, storable,
};
use super::stored::{StaleWindows, StoredMeta};
use super::validation::{ClientCondition, Freshened, evaluate, freshen, make_conditional, selected_by_304};
use super::vary::select;
use crate::message::{Fields, Framing, RequestHead, ResponseHead, Scheme, Version, fields};

/// 2026-01-01T00:00:00Z
pub(crate) const NOW: Timestamp = Timestamp::from_secs(1_767_225_600);

pub(crate) fn request(method: &str, target: &str, lines: &[(&str, &str)]) -> RequestHead {
    RequestHead {
        method: Method::from_bytes(method.as_bytes()).unwrap(),
        scheme: Scheme::Http,
        version: Version::Http11,
        authority: "example.org".into(),
        target: target.into(),
        fields: fields(lines),
        framing: Framing::None,
        expects_continue: false,
        upgrade: false,
        keep_alive: true,
    }
}

pub(crate) fn get(lines: &[(&str, &str)]) -> RequestHead {
    request("GET", "/", lines)
}

pub(crate) fn response(status: u16, lines: &[(&str, &str)]) -> ResponseHead {
    ResponseHead {
        status,
        fields: fields(lines),
        framing: Framing::Length(10),
        declared_length: Some(10),
    }
}

pub(crate) fn policy(targeted_fields: &[String]) -> StorePolicy<'_> {
    StorePolicy {
        targeted_fields,
        heuristic_max: Duration::from_secs(60),
        lifetime: LifetimeRules::default(),
        windows: StaleWindows::default(),
        set_cookie: SetCookie::Bypass,
        cookies: RequestCookies::Unaccounted,
        request_directives: ClientDirectives::Honour,
        codings: Codings::Origins,
    }
}

pub(crate) fn at_once(time: Timestamp) -> Times {
    Times {
        requested: time,
        received: time,
    }
}

/// The date so many seconds from [`NOW`].
pub(crate) fn in_seconds(seconds: i64) -> String {
    let now = i64::try_from(NOW.as_secs()).unwrap();
    format_http_date(Timestamp::from_secs(u64::try_from(now + seconds).unwrap()))
}

/// Replaces `@N` by the date N seconds from [`NOW`].
fn dated<'a>(lines: &[(&'a str, &'a str)]) -> Vec<(&'a str, String)> {
    let date = |value: &str| match value.strip_prefix('@') {
        Some(seconds) => in_seconds(seconds.parse().unwrap()),
        None => value.to_owned(),
    };
    lines.iter().map(|(name, value)| (*name, date(value))).collect()
}

pub(crate) fn dated_fields(lines: &[(&str, &str)]) -> Fields {
    let mut fields = Fields::new();
    for (name, value) in dated(lines) {
        fields.push(name, value);
    }
    fields
}

/// What is kept of one resource.
pub(crate) struct Shelf {
    targeted: Vec<String>,
    pub stored: Vec<(StoredMeta, Fields)>,
}

impl Shelf {
    pub fn new() -> Self {
        Self {
            targeted: vec!["CDN-Cache-Control".to_owned()],
            stored: Vec::new(),
        }
    }

    pub fn policy(&self) -> StorePolicy<'_> {
        policy(&self.targeted)
    }

    pub fn store(&mut self, request: &RequestHead, response: &ResponseHead, now: Timestamp) -> Result<(), Unstorable> {
        match storable(request, response, at_once(now), &self.policy()) {
            Storable::Yes(accepted) => {
                self.stored.retain(|(meta, _)| meta.variant != accepted.meta.variant);
                self.stored.push((accepted.meta, accepted.fields));
                Ok(())
            }
            Storable::No(reason) => Err(reason),
        }
    }

    pub fn chosen(&self, request: &RequestHead) -> Option<&(StoredMeta, Fields)> {
        select(self.stored.iter().map(|pair| (pair, &pair.0)), &request.fields)
    }

    pub fn reuse(&self, request: &RequestHead, now: Timestamp) -> Reuse {
        let policy = ReusePolicy::default();
        match self.chosen(request) {
            Some((meta, _)) => reuse(request, meta, now, &policy),
            None if self.stored.is_empty() => without_stored(&request.fields, Forward::UriMiss, &policy),
            None => without_stored(&request.fields, Forward::VaryMiss, &policy),
        }
    }

    fn outcome(&self, request: &RequestHead, now: Timestamp) -> Seen {
        match self.reuse(request, now) {
            Reuse::Fresh(_) | Reuse::Stale(..) => match self.chosen(request) {
                Some((meta, _)) if evaluate(request, meta) == ClientCondition::NotModified => Seen::NotModified,
                _ => Seen::Cached,
            },
            Reuse::Validate(_) => {
                let mut asked = request.fields.clone();
                make_conditional(&mut asked, self.chosen(request).map(|(meta, fields)| (meta, fields)));
                if asked.contains("if-none-match") {
                    Seen::EtagValidated
                } else {
                    Seen::LmValidated
                }
            }
            Reuse::Forward(_) => Seen::NotCached,
            Reuse::GatewayTimeout => Seen::GatewayTimeout,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Cached,
    /// A 304 from the store.
    NotModified,
    NotCached,
    EtagValidated,
    LmValidated,
    GatewayTimeout,
}

use Seen::{Cached, EtagValidated, GatewayTimeout as Timeout, LmValidated, NotCached, NotModified};

/// Fields as the tables write them.
pub(crate) type Lines<'a> = &'a [(&'a str, &'a str)];

/// First request, status and fields of its response, pause in seconds, second request, what is seen.
type Row<'a> = (Lines<'a>, u16, Lines<'a>, u64, Lines<'a>, Seen);

fn check(rows: &[Row<'_>]) {
    for (first, status, answer, pause, second, expected) in rows {
        let mut shelf = Shelf::new();
        let mut head = response(*status, &[]);
        head.fields = dated_fields(answer);
        // Whether it was stored is seen by what comes next.
        let _ = shelf.store(&get(first), &head, NOW);
        let mut second_request = get(&[]);
        second_request.fields = dated_fields(second);
        let later = NOW.plus(Duration::from_secs(*pause));
        let seen = shelf.outcome(&second_request, later);
        // A request that validates has not been answered from the store alone.
        let not_cached = *expected == NotCached && matches!(seen, EtagValidated | LmValidated);
        assert!(
            seen == *expected || not_cached,
            "{status} {answer:?} {second:?}: {seen:?}, not {expected:?}"
        );
    }
}

/// One response after a pause of three seconds, to the same request.
fn check_responses(rows: &[(Lines<'_>, Seen)]) {
    for (answer, expected) in rows {
        check(&[(&[], 200, answer, 3, &[], *expected)]);
    }
}

const CC: &str = "Cache-Control";
const CDN: &str = "CDN-Cache-Control";
const DATE: (&str, &str) = ("Date", "@0");
