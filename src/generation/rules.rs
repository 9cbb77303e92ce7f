//! What a route's configuration means for its cache.

use std::sync::Arc;
use std::time::Duration;

use crate::cache::tags::{self, TagFields, Told};
use crate::config::{
    self, CachePolicy, Collapse, KeyCookies, QueryKey, QueryParameters, RefreshAhead, RouteCache, RouteLifetime,
    ValueTemplate,
};
use crate::key::{Glob, KeyOptions, QueryOptions};
use crate::message::Fields;
use crate::proxy::Decided;
use crate::rfc9111::date::Seconds;
use crate::rfc9111::reuse::ReusePolicy;
use crate::rfc9111::storability::{Codings, LifetimeRules, RequestCookies, SetCookie, StorePolicy};
use crate::rfc9111::stored::{StaleWindows, StoredMeta};

/// What a route's responses are stored and reused by.
#[derive(Debug, Clone)]
pub struct CacheRules {
    pub key: KeyOptions,
    pub reuse: ReusePolicy,
    pub set_cookie: SetCookie,
    pub targeted_fields: Arc<[String]>,
    /// Cap of heuristic freshness; zero switches it off.
    pub heuristic_max: Duration,
    lifetime: RouteLifetime,
    statuses: Vec<(u16, Duration)>,
    /// Bytes of the largest body that is stored.
    pub max_body: u64,
    /// Bytes of L1 that the route's responses may take together. `None`: it has no share of its own.
    pub max_size: Option<u64>,
    /// The longest time after its arrival that a response counts as fresh in L1. `None`: as long as it is. See
    /// [`CacheRules::limit_freshness`].
    pub max_ttl: Option<Duration>,
    /// How long a stored response that has a validator is kept after its freshness, so that the origin can confirm it; the
    /// last argument of [`StoredMeta::useless_from`].
    pub keep: Duration,
    /// Labels of what is stored, for purging.
    pub tags: Vec<ValueTemplate>,
    /// Whether clients see the fields that origins label responses with.
    pub tag_fields: TagFields,
    pub collapse: Collapse,
    /// `None`: what expires is fetched when it is asked for again.
    pub refresh_ahead: Option<RefreshAhead>,
    /// How what is stored is compressed. `None`: it is sent as it came.
    pub compression: Option<Arc<config::Compression>>,
}

impl CacheRules {
    /// `None`: nothing of this route is looked up or stored.
    pub(super) fn new(cache: &config::Cache, route: &config::Route) -> Option<Self> {
        let policy = match &route.cache {
            RouteCache::On(policy) => &**policy,
            RouteCache::Off => return None,
        };
        // Streams are for the client that listens.
        if route.stream.is_some() {
            return None;
        }
        let max_body = cache.memory.max_body;
        Some(Self {
            key: key_options(policy, route),
            reuse: ReusePolicy {
                windows: StaleWindows {
                    while_revalidate: policy.stale_while_revalidate,
                    if_error: policy.stale_if_error,
                },
                cookies: match policy.key.cookies {
                    KeyCookies::Unaccounted => RequestCookies::Unaccounted,
                    KeyCookies::Ignore | KeyCookies::Named(_) => RequestCookies::Accounted,
                },
                request_directives: policy.request_directives,
            },
            set_cookie: policy.set_cookie,
            targeted_fields: cache.targeted_fields.as_slice().into(),
            heuristic_max: cache.heuristic_max,
            lifetime: policy.lifetime,
            statuses: policy.statuses.clone(),
            // What is larger than the whole share would only push everything else out of it.
            max_body: policy.max_size.map_or(max_body, |share| share.min(max_body)),
            max_size: policy.max_size,
            max_ttl: cache.memory.max_ttl,
            keep: policy.keep,
            tags: policy.tags.clone(),
            tag_fields: policy.tag_fields,
            collapse: policy.collapse,
            refresh_ahead: policy.refresh_ahead,
            compression: route.compression.clone(),
        })
    }

    pub fn codings(&self) -> Codings {
        match self.compression {
            Some(_) => Codings::Ours,
            None => Codings::Origins,
        }
    }

    /// Reads what a response is labelled with; see [`tags::take`].
    pub fn take_labels(&self, decided: &Decided<'_>, response: &mut Fields) -> Told {
        tags::take(decided.request, response, &self.tags, decided.captures, self.tag_fields)
    }

    pub fn store_policy(&self) -> StorePolicy<'_> {
        let (ttl, default_ttl) = match self.lifetime {
            RouteLifetime::Origin => (None, None),
            RouteLifetime::Instead(ttl) => (Some(ttl), None),
            RouteLifetime::Fallback(ttl) => (None, Some(ttl)),
        };
        StorePolicy {
            targeted_fields: &self.targeted_fields,
            heuristic_max: self.heuristic_max,
            lifetime: LifetimeRules {
                ttl,
                default_ttl,
                statuses: &self.statuses,
            },
            windows: self.reuse.windows,
            set_cookie: self.set_cookie,
            cookies: self.reuse.cookies,
            request_directives: self.reuse.request_directives,
            codings: self.codings(),
        }
    }

    /// Makes a response that goes into L1 stale at the latest when `max_ttl` has passed since its arrival or last validation.
    /// What it says to clients in its fields stays the origin's.
    pub fn limit_freshness(&self, meta: &mut StoredMeta) {
        if let Some(max_ttl) = self.max_ttl {
            let longest = Seconds::from(meta.initial_age.duration().saturating_add(max_ttl));
            meta.lifetime.seconds = meta.lifetime.seconds.min(longest);
        }
    }
}

fn key_options(policy: &CachePolicy, route: &config::Route) -> KeyOptions {
    let mut headers = policy.key.headers.clone();
    // Another value may lead to another route and thereby to another upstream, and what this route passes on from everybody the
    // application believes: neither may decide what the next client gets.
    let selecting = route.matches.headers.iter().map(|(name, _)| name);
    for name in selecting.chain(&route.keep_fields) {
        if !headers.contains(name) {
            headers.push(name.clone());
        }
    }
    KeyOptions {
        query: query_options(&policy.key.query),
        headers,
        cookies: match &policy.key.cookies {
            KeyCookies::Named(names) => names.clone(),
            KeyCookies::Unaccounted | KeyCookies::Ignore => Vec::new(),
        },
    }
}

fn query_options(query: &QueryKey) -> QueryOptions {
    let globs = |names: &[String]| names.iter().map(Glob::new).collect();
    let (ignore, keep) = match &query.parameters {
        QueryParameters::All => (Vec::new(), None),
        QueryParameters::Ignore(names) => (globs(names), None),
        QueryParameters::Keep(names) => (Vec::new(), Some(globs(names))),
    };
    QueryOptions {
        ignore,
        keep,
        order: query.order,
    }
}

#[cfg(test)]
mod tests;
