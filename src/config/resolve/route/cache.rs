//! How a route's responses are stored: what it says itself, then what `defaults` say, then what holds for all.

mod key;

use std::time::Duration;

use super::super::cache::whole_seconds;
use super::Captures;
use crate::cache::tags::TagFields;
use crate::config::diagnostic::KeyPath;
use crate::config::file::scalar::{CollapseScope, DurationText};
use crate::config::file::shape::{List, Map, Switch};
use crate::config::file::{FileCachePolicy, FileRefreshAhead, RequestDirectivesName, SetCookieName, TagFieldsName};
use crate::config::report::Report;
use crate::config::{
    CachePolicy, Collapse, KeyPolicy, RefreshAhead, RouteCache, RouteLifetime, ValuePart, ValueTemplate,
};
use crate::rfc9111::storability::{ClientDirectives, SetCookie};

pub use key::needs_keeping;

/// A tag goes into a response's field and into keys of the second tier.
const MAX_TAG: usize = 128;

/// More would have the origin asked all the time.
const MAX_AHEAD_PERMILLE: u32 = 500;

const FOLLOW_THE_ORIGIN: &str = "remove it to follow the origin";

/// What a route, or `defaults`, says.
pub enum Said {
    Off,
    On(Box<SaidPolicy>),
}

/// Each `None`: nothing.
#[derive(Default)]
pub struct SaidPolicy {
    /// `ttl` and `default_ttl` are one: who gives either takes the place of both.
    lifetime: Option<RouteLifetime>,
    statuses: Option<Vec<(u16, Duration)>>,
    stale_while_revalidate: Option<Duration>,
    stale_if_error: Option<Duration>,
    keep: Option<Duration>,
    max_size: Option<u64>,
    tags: Option<Vec<ValueTemplate>>,
    tag_fields: Option<TagFields>,
    key: key::Said,
    set_cookie: Option<SetCookie>,
    request_directives: Option<ClientDirectives>,
    collapse: Option<Collapse>,
    /// The inner `None`: it is off.
    refresh_ahead: Option<Option<RefreshAhead>>,
}

impl SaidPolicy {
    /// Lower-case names.
    pub fn key_headers(&self) -> Option<&[String]> {
        self.key.headers.as_deref()
    }
}

/// Whether the file has `cache.redis`, right or wrong: what is wrong with it is said there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SecondTier {
    #[default]
    Absent,
    /// Nothing is written there.
    Read,
    Written,
}

/// What the rules of a policy depend on beside it.
pub struct Around<'a> {
    pub captures: &'a Captures<'a>,
    /// Forwarding and override fields that are passed on whoever sends them (lower case).
    pub keep_fields: &'a [String],
    /// Bytes of L1. `None`: something was reported about it.
    pub memory_size: Option<u64>,
    pub redis: SecondTier,
}

pub fn read(typed: &Switch<FileCachePolicy>, report: &mut Report, path: &KeyPath, around: &Around<'_>) -> Said {
    match typed {
        Switch::Off => Said::Off,
        Switch::On => Said::On(Box::default()),
        Switch::With(typed) => Said::On(Box::new(policy(typed, report, path, around))),
    }
}

fn policy(typed: &FileCachePolicy, report: &mut Report, path: &KeyPath, around: &Around<'_>) -> SaidPolicy {
    SaidPolicy {
        lifetime: lifetime(typed, report, path),
        statuses: typed
            .statuses
            .as_ref()
            .map(|typed| statuses(typed, report, &path.key("statuses"))),
        stale_while_revalidate: typed.stale_while_revalidate.as_ref().map(|window| window.0),
        stale_if_error: typed.stale_if_error.as_ref().map(|window| window.0),
        keep: typed.keep.as_ref().map(|keep| keep.0),
        max_size: typed.max_size.as_ref().map(|size| {
            let path = path.key("max_size");
            if size.0 == 0 {
                report.value(&path, "must be greater than 0", "to store nothing, write cache: off");
            }
            if around.memory_size.is_some_and(|memory| size.0 > memory) {
                report.value(&path, "must not be larger than cache.memory.size", "");
            }
            size.0
        }),
        tags: typed
            .tags
            .as_ref()
            .map(|typed| tags(typed, report, &path.key("tags"), around.captures)),
        tag_fields: typed.tag_fields.map(|name| match name {
            TagFieldsName::Strip => TagFields::Strip,
            TagFieldsName::Pass => TagFields::Pass,
        }),
        key: match &typed.key {
            Some(typed) => key::read(typed, report, &path.key("key"), around.keep_fields),
            None => key::Said::default(),
        },
        set_cookie: typed.set_cookie.map(|name| match name {
            SetCookieName::Bypass => SetCookie::Bypass,
            SetCookieName::Strip => SetCookie::Strip,
        }),
        request_directives: typed.request_directives.map(|name| match name {
            RequestDirectivesName::Honour => ClientDirectives::Honour,
            RequestDirectivesName::Ignore => ClientDirectives::Ignore,
        }),
        refresh_ahead: typed
            .refresh_ahead
            .as_ref()
            .map(|typed| refresh_ahead(typed, report, &path.key("refresh_ahead"))),
        collapse: typed.collapse.as_ref().map(|scope| match scope.0 {
            CollapseScope::Instance => Collapse::Instance,
            CollapseScope::Off => Collapse::Off,
            CollapseScope::Cluster => {
                let path = path.key("collapse");
                match around.redis {
                    SecondTier::Absent => report.value(&path, "needs cache.redis", "use instance"),
                    SecondTier::Read => report.value(
                        &path,
                        "needs responses to be written to Redis, and cache.redis.write is around",
                        "use instance, or write: behind",
                    ),
                    SecondTier::Written => {}
                }
                Collapse::Cluster
            }
        }),
    }
}

fn refresh_ahead(typed: &Switch<FileRefreshAhead>, report: &mut Report, path: &KeyPath) -> Option<RefreshAhead> {
    let typed = match typed {
        Switch::Off => return None,
        Switch::On => return Some(RefreshAhead::default()),
        Switch::With(typed) => typed,
    };
    let mut ahead = RefreshAhead::default();
    if let Some(before) = &typed.before {
        ahead.permille = (before.0 * 1000.0).round() as u32;
        if !(1..=MAX_AHEAD_PERMILLE).contains(&ahead.permille) {
            let cure = "of its lifetime a response should be used for the better part";
            report.value(&path.key("before"), "must be greater than 0% and at most 50%", cure);
        }
    }
    super::super::planned::at_least_one(report, &path.key("min_hits"), typed.min_hits);
    ahead.min_hits = typed.min_hits.unwrap_or(ahead.min_hits);
    Some(ahead)
}

fn lifetime(typed: &FileCachePolicy, report: &mut Report, path: &KeyPath) -> Option<RouteLifetime> {
    for (key, ttl) in [("ttl", &typed.ttl), ("default_ttl", &typed.default_ttl)] {
        if let Some(ttl) = ttl {
            check_lifetime(ttl, report, &path.key(key));
        }
    }
    match (&typed.ttl, &typed.default_ttl) {
        (Some(ttl), None) => Some(RouteLifetime::Instead(ttl.0)),
        (None, Some(ttl)) => Some(RouteLifetime::Fallback(ttl.0)),
        (Some(ttl), Some(_)) => {
            report.value(&path.key("default_ttl"), "has no effect beside ttl", "keep one of them");
            Some(RouteLifetime::Instead(ttl.0))
        }
        (None, None) => None,
    }
}

fn check_lifetime(ttl: &DurationText, report: &mut Report, path: &KeyPath) {
    match ttl.0.is_zero() {
        true => report.value(path, "must be greater than 0", FOLLOW_THE_ORIGIN),
        false => whole_seconds(report, path, Some(ttl)),
    }
}

fn statuses(typed: &Map<DurationText>, report: &mut Report, path: &KeyPath) -> Vec<(u16, Duration)> {
    let mut statuses = Vec::new();
    for (path, name, ttl) in typed.under(path) {
        let status = match name.parse::<u16>() {
            Ok(status @ 200..=599) if name.len() == 3 => status,
            _ => {
                report.key(&path, "must be a status from 200 to 599", "");
                continue;
            }
        };
        check_lifetime(ttl, report, &path);
        match never_stored(status) {
            Some(why) => report.key(&path, "must be a status whose responses are ever stored", why),
            None => statuses.push((status, ttl.0)),
        }
    }
    statuses
}

/// Why no lifetime makes another client get a response of that status (see [`crate::rfc9111::storability`]). `None`: one can.
fn never_stored(status: u16) -> Option<&'static str> {
    match status {
        206 => Some("206 is a part of a 200, and as fresh as the origin says"),
        304 | 412 | 416 => Some("this one answers one request's conditions or range"),
        401 | 407 => Some("this one answers one request's credentials"),
        408 | 417 | 421 | 425 | 426 | 428 | 429 | 431 => Some("this one is about one client or its connection"),
        _ => None,
    }
}

/// Checks labels, which may hold what the path captures.
pub fn tags(typed: &List<String>, report: &mut Report, path: &KeyPath, captures: &Captures<'_>) -> Vec<ValueTemplate> {
    let mut tags = Vec::new();
    for (path, tag) in typed.under(path) {
        // Tags are listed in fields with spaces or commas between them.
        let is_good = (1..=MAX_TAG).contains(&tag.len()) && tag.bytes().all(|b| b.is_ascii_graphic() && b != b',');
        if !is_good {
            report.value(
                &path,
                format!("must be a tag of up to {MAX_TAG} characters"),
                "without spaces and commas",
            );
            continue;
        }
        tags.extend(captured(tag, report, &path, captures));
    }
    tags
}

/// Checks globs of paths, which may hold what the path captures.
pub fn globs(typed: &List<String>, report: &mut Report, path: &KeyPath, captures: &Captures<'_>) -> Vec<ValueTemplate> {
    let mut globs = Vec::new();
    for (path, glob) in typed.under(path) {
        if !glob.starts_with('/') || !glob.bytes().all(|b| b.is_ascii_graphic()) {
            report.value(
                &path,
                "must be a path that begins with /",
                "* stands for any characters",
            );
            continue;
        }
        globs.extend(captured(glob, report, &path, captures));
    }
    globs
}

/// `None`: it holds something else than what the path captures.
fn captured(text: &str, report: &mut Report, path: &KeyPath, captures: &Captures<'_>) -> Option<ValueTemplate> {
    let is_known = |part: &ValuePart| matches!(part, ValuePart::Text(_) | ValuePart::Capture(_));
    match ValueTemplate::parse(text, &captures.names) {
        Ok(template) if template.parts.iter().all(is_known) => Some(template),
        _ => {
            report.value(
                path,
                "holds a {name} that the path does not capture",
                captures.listed(&[]),
            );
            None
        }
    }
}

/// What a route does, by what it says itself and what `defaults` say.
pub fn assemble(own: Option<&Said>, common: Option<&Said>) -> RouteCache {
    let nothing = SaidPolicy::default();
    let (own, common) = match (own, common) {
        (Some(Said::Off), _) | (None, Some(Said::Off)) => return RouteCache::Off,
        (Some(Said::On(own)), Some(Said::On(common))) => (&**own, &**common),
        (Some(Said::On(own)), Some(Said::Off) | None) => (&**own, &nothing),
        (None, Some(Said::On(common))) => (&nothing, &**common),
        (None, None) => (&nothing, &nothing),
    };
    let usual = CachePolicy::default();
    RouteCache::On(Box::new(CachePolicy {
        lifetime: own.lifetime.or(common.lifetime).unwrap_or(usual.lifetime),
        statuses: super::said(&own.statuses, &common.statuses).unwrap_or(usual.statuses),
        stale_while_revalidate: own
            .stale_while_revalidate
            .or(common.stale_while_revalidate)
            .unwrap_or(usual.stale_while_revalidate),
        stale_if_error: own
            .stale_if_error
            .or(common.stale_if_error)
            .unwrap_or(usual.stale_if_error),
        keep: own.keep.or(common.keep).unwrap_or(usual.keep),
        max_size: own.max_size.or(common.max_size),
        tags: super::said(&own.tags, &common.tags).unwrap_or(usual.tags),
        tag_fields: own.tag_fields.or(common.tag_fields).unwrap_or(usual.tag_fields),
        key: KeyPolicy {
            query: super::said(&own.key.query, &common.key.query).unwrap_or_default(),
            headers: super::said(&own.key.headers, &common.key.headers).unwrap_or_default(),
            cookies: super::said(&own.key.cookies, &common.key.cookies).unwrap_or_default(),
        },
        set_cookie: own.set_cookie.or(common.set_cookie).unwrap_or(usual.set_cookie),
        request_directives: own
            .request_directives
            .or(common.request_directives)
            .unwrap_or(usual.request_directives),
        refresh_ahead: own
            .refresh_ahead
            .or(common.refresh_ahead)
            .unwrap_or(usual.refresh_ahead),
        collapse: own.collapse.or(common.collapse).unwrap_or(usual.collapse),
    }))
}
