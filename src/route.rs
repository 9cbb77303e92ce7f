//! Which route a request takes.
//!
//! The first route whose conditions all hold is the one. The path is looked at as received and in every other way that a
//! server may read it; where that leads to different routes the request is refused, so that no `deny` can be
//! walked around.

mod access;
mod condition;
mod pattern;
mod reading;
mod segments;

use fnv::FnvHashMap;
use http::Method;

use crate::config::{self, HostPattern};
use crate::message::{Authority, Readings, RequestHead};

pub use access::{Access, access, contains};
pub use condition::Condition;
pub use pattern::{Captures, strip_prefix};
pub use reading::{Ambiguity, shortest_reading};

use pattern::Pattern;
use reading::{canonical_literal, readings};
use segments::Segments;

/// Octets of a host name (RFC 1035 §2.3.4), with room to spare; a longer one matches no host condition.
const MAX_HOST: usize = 256;

/// The routes of a configuration, indexed by host and first path segments, so that hundreds of them cost little more than
/// ten. Only the operator can put keys into the index, so a fast hash will do.
#[derive(Debug)]
pub struct Router {
    rules: Vec<Rule>,
    /// Per host: the rules that name it or a wildcard that covers it.
    hosts: FnvHashMap<Box<[u8]>, Table>,
    /// Per wildcard (`.example.com`): the rules that name it or a wider one.
    wildcards: FnvHashMap<Box<[u8]>, Table>,
    /// The rules without a host condition.
    any_host: Table,
}

/// Rules of one host by the beginning of their path; numbers ascend.
#[derive(Debug, Default)]
struct Table {
    by_first: Segments<First>,
    /// Where the first segment may be anything.
    any: Vec<usize>,
}

/// Rules for one first segment.
#[derive(Debug, Default)]
struct First {
    by_second: Segments<Vec<usize>>,
    /// Where the second segment may be anything, or there is none.
    any: Vec<usize>,
}

/// A route's conditions except the host.
#[derive(Debug)]
struct Rule {
    path: Option<Pattern>,
    prefix: Option<Pattern>,
    suffixes: Vec<Vec<u8>>,
    methods: Vec<Method>,
    headers: Vec<(String, String)>,
}

/// The route of a request.
#[derive(Debug, Clone, Copy)]
pub struct Selected<'a> {
    /// Into [`config::Config::routes`].
    pub index: usize,
    pub captures: Captures<'a>,
}

/// Why a request has no route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRoute {
    /// 404.
    NotFound,
    /// 400.
    Ambiguous(Ambiguity),
}

impl Router {
    pub fn new(routes: &[config::Route]) -> Self {
        let rules: Vec<Rule> = routes.iter().map(|route| Rule::new(&route.matches)).collect();
        let mut hosts = FnvHashMap::default();
        let mut wildcards = FnvHashMap::default();
        for pattern in routes.iter().flat_map(|route| &route.matches.hosts) {
            match pattern {
                HostPattern::Exact(host) => hosts.insert(Box::from(host.as_bytes()), Table::default()),
                HostPattern::Wildcard(suffix) => wildcards.insert(Box::from(suffix.as_bytes()), Table::default()),
            };
        }
        let mut any_host = Table::default();
        for (index, (rule, route)) in rules.iter().zip(routes).enumerate() {
            let patterns = &route.matches.hosts;
            if patterns.is_empty() {
                any_host.add(index, rule);
                continue;
            }
            for (host, table) in &mut hosts {
                if patterns.iter().any(|pattern| covers(pattern, host)) {
                    table.add(index, rule);
                }
            }
            for (suffix, table) in &mut wildcards {
                if patterns.iter().any(|pattern| covers_all_below(pattern, suffix)) {
                    table.add(index, rule);
                }
            }
        }
        Self {
            rules,
            hosts,
            wildcards,
            any_host,
        }
    }

    /// The first route that matches.
    ///
    /// `*` (RFC 9112 §3.2.4) has no path: it goes to the first route that has no condition on the path or the prefix `/`.
    ///
    /// # Errors
    /// [`NoRoute::Ambiguous`] where a server could read the path so that it belongs to another route.
    pub fn select<'a>(&'a self, head: &'a RequestHead) -> Result<Selected<'a>, NoRoute> {
        let path = head.path();
        let host_table = self.host_table(&head.authority);
        let index = if head.target.path_readings() == Readings::One {
            self.first(host_table, head, path.as_bytes())
        } else {
            let readings = readings(path.as_bytes()).map_err(NoRoute::Ambiguous)?;
            let mut indices = readings.iter().map(|reading| self.first(host_table, head, reading));
            let received = indices.next().flatten();
            if indices.any(|index| index != received) {
                return Err(NoRoute::Ambiguous(Ambiguity::Routes));
            }
            received
        };
        match index {
            Some(index) => Ok(Selected {
                index,
                captures: self.captures(index, path),
            }),
            None => Err(NoRoute::NotFound),
        }
    }

    /// What the `{name}` segments of a route are in the path of `target`, which it was selected for.
    pub fn captures<'a>(&'a self, index: usize, target: &'a str) -> Captures<'a> {
        match self.rules.get(index) {
            Some(rule) => Captures::new([rule.path.as_ref(), rule.prefix.as_ref()], target),
            None => Captures::NONE,
        }
    }

    /// Rules that ask for this host; the longest wildcard's table holds those of the shorter ones too.
    fn host_table(&self, authority: &Authority) -> Option<&Table> {
        if self.hosts.is_empty() && self.wildcards.is_empty() {
            return None;
        }
        let mut buffer = [0; MAX_HOST];
        let host = host(authority, &mut buffer)?;
        if let Some(table) = self.hosts.get(host) {
            return Some(table);
        }
        if self.wildcards.is_empty() {
            return None;
        }
        let dots = host.iter().enumerate().filter(|(at, byte)| *at > 0 && **byte == b'.');
        let mut suffixes = dots.filter_map(|(at, _)| host.get(at..));
        suffixes.find_map(|suffix| self.wildcards.get(suffix))
    }

    /// The first rule that matches a reading of the path.
    fn first(&self, host_table: Option<&Table>, head: &RequestHead, path: &[u8]) -> Option<usize> {
        let segments = path.get(1..).unwrap_or_default();
        let [d, e, f] = self.any_host.lists(segments);
        match host_table {
            None => self.first_of([d, e, f], head, path),
            Some(table) => {
                let [a, b, c] = table.lists(segments);
                self.first_of([a, b, c, d, e, f], head, path)
            }
        }
    }

    /// The first rule that matches, of all ascending lists that may hold it.
    #[inline]
    fn first_of<const LISTS: usize>(
        &self,
        mut lists: [&[usize]; LISTS],
        head: &RequestHead,
        path: &[u8],
    ) -> Option<usize> {
        let mut from = 0;
        loop {
            let mut nearest = None;
            for list in &mut lists {
                // What a list has in front of the last one that was looked at has been looked at, too.
                if list.first().is_some_and(|index| *index < from) {
                    *list = list.get(1..).unwrap_or_default();
                }
                if let Some(index) = list.first().copied()
                    && nearest.is_none_or(|nearest| index < nearest)
                {
                    nearest = Some(index);
                }
            }
            let index = nearest?;
            if self.rules.get(index).is_some_and(|rule| rule.matches(head, path)) {
                return Some(index);
            }
            from = index + 1;
        }
    }
}

impl Table {
    fn add(&mut self, index: usize, rule: &Rule) {
        let list = match rule.first_segments() {
            Some((first, second)) => {
                let first = self.by_first.entry(first);
                second.map_or(&mut first.any, |second| first.by_second.entry(second))
            }
            None => &mut self.any,
        };
        list.push(index);
    }

    /// The rules that may match a path whose segments begin so: by two segments, by one, and those for any.
    #[inline]
    fn lists(&self, segments: &[u8]) -> [&[usize]; 3] {
        let (first, rest) = cut_segment(segments);
        let Some(by_first) = self.by_first.find(first) else {
            return [&[], &[], &self.any];
        };
        let by_second = rest.and_then(|rest| by_first.by_second.find(cut_segment(rest).0));
        [by_second.map_or(&[], Vec::as_slice), &by_first.any, &self.any]
    }
}

/// The first segment, and what stands behind its slash.
#[inline]
fn cut_segment(segments: &[u8]) -> (&[u8], Option<&[u8]>) {
    match segments.iter().position(|byte| *byte == b'/') {
        Some(slash) => (segments.get(..slash).unwrap_or_default(), segments.get(slash + 1..)),
        None => (segments, None),
    }
}

impl Rule {
    fn new(matches: &config::Match) -> Self {
        Self {
            path: matches.path.as_ref().map(Pattern::new),
            prefix: matches.path_prefix.as_ref().map(Pattern::new),
            suffixes: matches
                .path_suffix
                .iter()
                .map(|suffix| canonical_literal(suffix))
                .collect(),
            methods: matches.methods.clone(),
            headers: matches.headers.clone(),
        }
    }

    fn first_segments(&self) -> Option<(&[u8], Option<&[u8]>)> {
        self.path.as_ref().or(self.prefix.as_ref())?.first_literals()
    }

    /// `path` is one reading of the request's path.
    fn matches(&self, head: &RequestHead, path: &[u8]) -> bool {
        self.matches_path(path)
            && (self.methods.is_empty() || self.methods.contains(&head.method))
            && self
                .headers
                .iter()
                .all(|(name, value)| head.fields.get_all(name).any(|line| line == value.as_bytes()))
    }

    fn matches_path(&self, path: &[u8]) -> bool {
        if path == b"*" {
            return self.path.is_none()
                && self.suffixes.is_empty()
                && self.prefix.as_ref().is_none_or(Pattern::is_root);
        }
        path.starts_with(b"/")
            && self.path.as_ref().is_none_or(|pattern| pattern.is(path))
            && self.prefix.as_ref().is_none_or(|pattern| pattern.leads(path))
            && (self.suffixes.is_empty() || self.suffixes.iter().any(|suffix| path.ends_with(suffix)))
    }
}

/// Whether the pattern matches this host.
fn covers(pattern: &HostPattern, host: &[u8]) -> bool {
    match pattern {
        HostPattern::Exact(exact) => exact.as_bytes() == host,
        HostPattern::Wildcard(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_bytes()),
    }
}

/// Whether the pattern matches every host that ends with `suffix`.
fn covers_all_below(pattern: &HostPattern, suffix: &[u8]) -> bool {
    match pattern {
        HostPattern::Exact(_) => false,
        HostPattern::Wildcard(wider) => suffix.ends_with(wider.as_bytes()),
    }
}

/// The authority's host as [`RequestHead::host`] gives it, without an allocation. `None`: there is none, or none that a
/// configuration could name.
fn host<'b>(authority: &Authority, buffer: &'b mut [u8; MAX_HOST]) -> Option<&'b [u8]> {
    let mut host = authority.host_and_port().0.as_bytes();
    while let [rest @ .., b'.'] = host {
        host = rest;
    }
    let lower = buffer.get_mut(..host.len()).filter(|lower| !lower.is_empty())?;
    lower.copy_from_slice(host);
    lower.make_ascii_lowercase();
    Some(lower)
}

#[cfg(test)]
mod tests;
