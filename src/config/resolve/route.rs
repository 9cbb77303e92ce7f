//! Routes: what they match, where they lead and what they do on the way.

mod cache;
mod compression;
mod fields;
mod matching;

use std::collections::HashSet;
use std::sync::Arc;

use ipnet::IpNet;

use super::concurrency::in_flight;
use super::limit::Limits;
use super::upstream::{Only, Pools};
use super::{NAME_RULE, is_name, positive};
use crate::config::diagnostic::{KeyPath, alternatives};
use crate::config::file::shape::{List, Switch};
use crate::config::file::{FileConfig, FilePolicies, FilePurge, FileRoute, WriteName};
use crate::config::report::Report;
use crate::config::{FieldEdits, InFlight, Match, PathTemplate, Route, Stream, Upstream, defaults};

pub use cache::{globs, tags};
pub use matching::resolve as resolve_match;

/// The name of the implied catch-all.
const DEFAULT: &str = "default";

/// The name of limits that `defaults` have.
const DEFAULTS: &str = "defaults";

/// `memory_size`: bytes of L1.
pub fn resolve(
    file: &FileConfig,
    report: &mut Report,
    pools: &Pools,
    memory_size: u64,
    limits: &mut Limits,
) -> Vec<Route> {
    let root = KeyPath::root();
    let routes_path = root.key("routes");
    let size_path = root.key("cache").key("memory").key("size");
    let mut common = Policies {
        memory_size: Some(memory_size).filter(|size| *size > 0 && !report.is_broken(&size_path)),
        redis: match file.cache.as_ref().and_then(|cache| cache.redis.as_ref()) {
            Some(redis) if redis.write == Some(WriteName::Around) => cache::SecondTier::Read,
            Some(_) => cache::SecondTier::Written,
            None => cache::SecondTier::Absent,
        },
        ..Policies::default()
    };
    if let Some(typed) = &file.defaults {
        let path = root.key("defaults");
        common = policies(typed.policies(), report, &path, None, &common);
        common.read_limits(typed.policies(), DEFAULTS, limits, report, &path);
    }
    common.rate_limits.get_or_insert_with(|| limits.default.clone());
    let mut routes: Vec<Route> = Vec::new();
    let mut paths: Vec<KeyPath> = Vec::new();
    let mut names = HashSet::new();
    let typed_routes = file.routes.as_ref().map_or(&[][..], |routes| routes.0.as_slice());
    for (index, typed) in typed_routes.iter().enumerate() {
        let Some(typed) = typed else {
            continue;
        };
        let path = routes_path.index(index);
        let route = route(typed, index, report, &path, pools, &common, limits);
        if !names.insert(route.name.clone()) {
            report.value(&path.key("name"), "must not be the name of another route", "");
        }
        routes.push(route);
        paths.push(path);
    }
    warn_unreachable(&routes, &paths, report);
    warn_unused(file, &routes, pools, report);
    if routes.iter().any(|route| matches_everything(&route.matches)) {
        return routes;
    }
    match pools.only() {
        Only::One(upstream) => {
            if let Some(index) = routes.iter().position(|route| &*route.name == DEFAULT) {
                report.value(
                    &paths[index].key("name"),
                    "must not be the name of the route that is implied for everything else",
                    "choose another name",
                );
            }
            routes.push(assemble(
                DEFAULT.into(),
                Match::default(),
                upstream,
                pools.upstreams.get(upstream),
                &Policies::default(),
                &common,
            ));
        }
        Only::Several if file.routes.is_none() => report.key(
            &routes_path,
            "is missing",
            "with several upstreams, routes say which one serves what",
        ),
        Only::Several | Only::Unknown => {}
    }
    routes
}

fn route(
    typed: &FileRoute,
    index: usize,
    report: &mut Report,
    path: &KeyPath,
    pools: &Pools,
    common: &Policies,
    limits: &mut Limits,
) -> Route {
    let name = match &typed.name {
        Some(name) => {
            if !is_name(name) {
                report.value(&path.key("name"), NAME_RULE, "");
            }
            name.clone()
        }
        None => format!("route-{}", index + 1),
    };
    let matches = match &typed.matches {
        Some(typed) => matching::resolve(typed, report, &path.key("match")),
        None => Match::default(),
    };
    let upstream_path = path.key("upstream");
    let upstream = match (&typed.upstream, pools.only()) {
        (Some(name), _) => pools.find(report, &upstream_path, name),
        (None, Only::One(index)) => Some(index),
        (None, Only::Several) => {
            report.key(
                &upstream_path,
                "is missing",
                "with several upstreams, a route names one",
            );
            None
        }
        (None, Only::Unknown) => None,
    };
    if typed.strip_prefix == Some(true) && matches.path_prefix.is_none() {
        report.key(
            &path.key("strip_prefix"),
            "needs match.path_prefix",
            "there is nothing to take off",
        );
    }
    let mut own = policies(typed.policies(), report, path, Some(&matches), common);
    own.read_limits(typed.policies(), &name, limits, report, path);
    if let Some(cost) = own.rate_limit_cost {
        let in_force = said_ref(&own.rate_limits, &common.rate_limits).map_or(&[][..], Vec::as_slice);
        limits.check_cost(in_force, cost, report, &path.key("rate_limit_cost"));
    }
    check_together(typed, &own, common, report, path);
    // Where something was reported the index does not count.
    let upstream = upstream.unwrap_or(0);
    assemble(
        name.into(),
        matches,
        upstream,
        pools.upstreams.get(upstream),
        &own,
        common,
    )
}

/// The policies of a route, or of all. `None`: it says nothing about it.
#[derive(Default)]
struct Policies {
    strip_prefix: Option<bool>,
    request_headers: Option<FieldEdits>,
    response_headers: Option<FieldEdits>,
    cache: Option<cache::Said>,
    compression: Option<compression::Said>,
    stream: Option<Option<StreamLimits>>,
    max_request_body: Option<Option<u64>>,
    allow: Option<Vec<IpNet>>,
    deny: Option<Vec<IpNet>>,
    purge: Option<Option<Vec<IpNet>>>,
    keep_fields: Option<Vec<String>>,
    /// Into all limits of the file.
    rate_limits: Option<Vec<usize>>,
    rate_limit_cost: Option<u64>,
    in_flight: Option<InFlight>,
    /// Bytes of L1, which shares are parts of. `None`: something was reported about it.
    memory_size: Option<u64>,
    redis: cache::SecondTier,
}

/// As [`Stream`], but the outer `None` leaves it to the upstream.
#[derive(Default, Clone)]
struct StreamLimits {
    first_event: Option<Option<std::time::Duration>>,
    between_bytes: Option<Option<std::time::Duration>>,
    heartbeat: Option<std::time::Duration>,
}

/// `matches`: `None` for `defaults`, which cannot know what a route captures. `common`: what holds where nothing is said.
fn policies(
    typed: FilePolicies<'_>,
    report: &mut Report,
    path: &KeyPath,
    matches: Option<&Match>,
    common: &Policies,
) -> Policies {
    let captures = match matches {
        Some(matches) => Captures::of(matches, report, &path.key("match")),
        None => Captures::default(),
    };
    let keep_fields = typed
        .keep_fields
        .map(|names| fields::keep(names, report, &path.key("keep_fields")));
    let around = cache::Around {
        captures: &captures,
        keep_fields: keep_fields
            .as_ref()
            .or(common.keep_fields.as_ref())
            .map_or(&[], Vec::as_slice),
        memory_size: common.memory_size,
        redis: common.redis,
    };
    Policies {
        strip_prefix: typed.strip_prefix.copied(),
        request_headers: typed
            .request_headers
            .map(|edits| fields::request(edits, report, &path.key("request_headers"), &captures)),
        response_headers: typed
            .response_headers
            .map(|edits| fields::response(edits, report, &path.key("response_headers"), &captures)),
        cache: typed
            .cache
            .map(|typed| cache::read(typed, report, &path.key("cache"), &around)),
        compression: typed
            .compression
            .map(|typed| compression::read(typed, report, &path.key("compression"))),
        stream: typed.stream.map(|stream| match stream {
            Switch::Off => None,
            Switch::On => Some(StreamLimits::default()),
            Switch::With(stream) => {
                let path = path.key("stream");
                let limits = StreamLimits {
                    first_event: stream.first_event.as_ref().map(|limit| limit.0),
                    between_bytes: stream.between_bytes.as_ref().map(|limit| limit.0),
                    heartbeat: stream.heartbeat.as_ref().and_then(|heartbeat| heartbeat.0),
                };
                positive(report, &path.key("first_event"), limits.first_event.flatten());
                positive(report, &path.key("between_bytes"), limits.between_bytes.flatten());
                positive(report, &path.key("heartbeat"), limits.heartbeat);
                Some(limits)
            }
        }),
        max_request_body: typed.max_request_body.map(|limit| limit.0),
        allow: typed.allow.map(networks),
        deny: typed.deny.map(networks),
        purge: typed.purge.map(|typed| purge(typed, report, &path.key("purge"))),
        keep_fields,
        rate_limits: None,
        rate_limit_cost: typed.rate_limit_cost.map(|cost| u64::from(*cost)),
        in_flight: None,
        memory_size: common.memory_size,
        redis: common.redis,
    }
}

impl Policies {
    fn read_limits(
        &mut self,
        typed: FilePolicies<'_>,
        of: &str,
        limits: &mut Limits,
        report: &mut Report,
        path: &KeyPath,
    ) {
        if let Some(typed) = typed.concurrency {
            self.in_flight = Some(in_flight(typed, &limits.common, report, &path.key("concurrency")));
        }
        if let Some(typed) = typed.rate_limit {
            self.rate_limits = limits.read(typed, of, report, &path.key("rate_limit"));
        }
    }
}

/// The rules between what a route says and what `defaults` say.
fn check_together(typed: &FileRoute, own: &Policies, common: &Policies, report: &mut Report, path: &KeyPath) {
    let streams = said_ref(&own.stream, &common.stream).is_some_and(Option::is_some);
    if streams && matches!(typed.cache, Some(Switch::With(_))) {
        report.warn(
            &path.key("cache"),
            "has no effect beside stream",
            "what comes as a stream is not stored",
        );
    }
    // With fields to keep of its own, a route may take away those that the key of `defaults` rests on.
    if let Some(keep_fields) = &own.keep_fields {
        let inherited = match (&own.cache, &common.cache) {
            (Some(cache::Said::Off), _) => &[],
            (Some(cache::Said::On(own)), _) if own.key_headers().is_some() => &[],
            (_, Some(cache::Said::On(common))) => common.key_headers().unwrap_or_default(),
            (_, Some(cache::Said::Off) | None) => &[],
        };
        let is_lost = |name: &String| cache::needs_keeping(name) && !keep_fields.contains(name);
        if inherited.iter().any(is_lost) {
            report.key(
                &path.key("keep_fields"),
                "leaves out a field that defaults.cache.key.headers names",
                "add it, or give the route a cache.key.headers of its own",
            );
        }
    }
}

/// From where PURGE requests are taken. `None`: from nowhere.
fn purge(typed: &Switch<FilePurge>, report: &mut Report, path: &KeyPath) -> Option<Vec<IpNet>> {
    const CURE: &str = "like [127.0.0.1]: whoever may purge can have every request go to the upstream";
    let allow_path = path.key("allow");
    match typed {
        Switch::Off => None,
        Switch::With(FilePurge { allow: Some(allow) }) => {
            if allow.0.is_empty() {
                report.value(&allow_path, "must have at least one address", CURE);
            }
            Some(networks(allow))
        }
        Switch::With(FilePurge { allow: None }) | Switch::On => {
            report.key(&allow_path, "is missing", CURE);
            Some(Vec::new())
        }
    }
}

fn networks(list: &List<crate::config::file::scalar::Cidr>) -> Vec<IpNet> {
    list.0.iter().flatten().map(|network| network.0).collect()
}

/// What the paths of a match capture.
#[derive(Default)]
pub struct Captures<'a> {
    pub names: Vec<&'a str>,
    /// Whether messages may list them: not if they come from the environment.
    is_public: bool,
}

impl<'a> Captures<'a> {
    /// Those of a match that stands at `path`.
    pub fn of(matches: &'a Match, report: &Report, path: &KeyPath) -> Self {
        let templates = [&matches.path, &matches.path_prefix];
        let mut names: Vec<&str> = Vec::new();
        for name in templates.into_iter().flatten().flat_map(PathTemplate::captures) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let is_secret = |key: &str| report.is_substituted(&path.key(key));
        Self {
            names,
            is_public: !is_secret("path") && !is_secret("path_prefix"),
        }
    }

    /// `known here: {host} or {id}`, with others in front; empty where there is nothing.
    pub fn listed(&self, others: &[&str]) -> String {
        let own: &[&str] = if self.is_public { &self.names } else { &[] };
        let names: Vec<String> = others.iter().chain(own).map(|name| format!("{{{name}}}")).collect();
        match names.as_slice() {
            [] => String::new(),
            names => format!("known here: {}", alternatives(names)),
        }
    }
}

fn assemble(
    name: Arc<str>,
    matches: Match,
    upstream: usize,
    pool: Option<&Upstream>,
    own: &Policies,
    common: &Policies,
) -> Route {
    let first_byte = pool.map_or(Some(defaults::FIRST_BYTE), |pool| pool.timeouts.first_byte);
    let stream = own.stream.as_ref().or(common.stream.as_ref()).cloned().flatten();
    let strips = own.strip_prefix.or(common.strip_prefix).unwrap_or(false);
    Route {
        name,
        upstream,
        strip_prefix: strips && matches.path_prefix.is_some(),
        matches,
        request_headers: said(&own.request_headers, &common.request_headers).unwrap_or_default(),
        response_headers: said(&own.response_headers, &common.response_headers).unwrap_or_default(),
        cache: cache::assemble(own.cache.as_ref(), common.cache.as_ref()),
        compression: compression::assemble(own.compression.as_ref(), common.compression.as_ref()),
        stream: stream.map(|limits| Stream {
            first_event: limits.first_event.unwrap_or(first_byte),
            between_bytes: limits.between_bytes.unwrap_or(Some(defaults::STREAM_BETWEEN_BYTES)),
            heartbeat: limits.heartbeat,
        }),
        max_request_body: own
            .max_request_body
            .or(common.max_request_body)
            .unwrap_or(Some(defaults::MAX_REQUEST_BODY)),
        allow: said(&own.allow, &common.allow).unwrap_or_default(),
        deny: said(&own.deny, &common.deny).unwrap_or_default(),
        purge: said(&own.purge, &common.purge).flatten(),
        keep_fields: said(&own.keep_fields, &common.keep_fields).unwrap_or_default(),
        rate_limits: said(&own.rate_limits, &common.rate_limits).unwrap_or_default(),
        rate_limit_cost: own.rate_limit_cost.or(common.rate_limit_cost).unwrap_or(1),
        in_flight: said(&own.in_flight, &common.in_flight),
    }
}

fn said<T: Clone>(own: &Option<T>, common: &Option<T>) -> Option<T> {
    said_ref(own, common).cloned()
}

fn said_ref<'a, T>(own: &'a Option<T>, common: &'a Option<T>) -> Option<&'a T> {
    own.as_ref().or(common.as_ref())
}

/// Whether no request can pass the route by.
fn matches_everything(matches: &Match) -> bool {
    let covers_all = |prefix: &PathTemplate| prefix.segments.is_empty();
    let Match {
        hosts,
        path,
        path_prefix,
        path_suffix,
        methods,
        headers,
    } = matches;
    hosts.is_empty()
        && path.is_none()
        && path_prefix.as_ref().is_none_or(covers_all)
        && path_suffix.is_empty()
        && methods.is_empty()
        && headers.is_empty()
}

fn warn_unreachable(routes: &[Route], paths: &[KeyPath], report: &mut Report) {
    let Some(last) = routes.iter().position(|route| matches_everything(&route.matches)) else {
        return;
    };
    for path in paths.iter().skip(last + 1) {
        report.warn(
            path,
            format!(
                "is never reached, because {} before it matches every request",
                paths[last]
            ),
            "move it up",
        );
    }
}

fn warn_unused(file: &FileConfig, routes: &[Route], pools: &Pools, report: &mut Report) {
    // With one upstream the implied route may use it.
    if let (Some(_), Only::Several) = (&file.routes, pools.only()) {
        let path = KeyPath::root().key("upstreams");
        let used: HashSet<usize> = routes.iter().map(|route| route.upstream).collect();
        for (index, upstream) in pools.upstreams.iter().enumerate() {
            if !used.contains(&index) {
                report.warn(&path.key(&upstream.name), "is not used by any route", "");
            }
        }
    }
}
