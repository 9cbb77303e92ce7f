//! Taking stored responses out of use on demand: by URI, label, route, or a pattern of URIs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::epochs::{Scope, Since, Subject, UriHash};
use super::memory::{Covered, Fate, Memory, Position};
use super::{Cache, Stored};
use crate::key::{CacheKey, Glob, KeyUri, QueryOptions, normalise_authority, normalise_target};
use crate::message::Scheme;
use crate::metrics::PurgeKind;
use crate::rfc9111::date::Timestamp;
use crate::rfc9111::invalidation::ResourceUri;
use crate::rfc9111::labels::Label;

/// Between a purge of labels and the sweep that frees their memory, and between two sweeps: one does for many purges, and looks at everything
/// that is stored.
const SWEEP_AFTER: Duration = Duration::from_secs(1);

/// Between two batches of responses that are made stale because purges could not be followed for too long: some 6,000 in a second.
const OUTDATE_PAUSE: Duration = Duration::from_millis(10);

/// What is to be purged, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Purge {
    pub what: What,
    pub how: How,
}

#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// All responses of these URIs, whatever they vary by.
    Uris(Vec<ResourceUri>),
    /// All responses that have one of these.
    Labels(Vec<Label>),
    Pattern(Pattern),
}

/// Which URIs, or of which route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pattern {
    /// This path and everything below it, like a route's `path_prefix`: `/api` covers `/api` and `/api/x`, not `/apiary`. With scheme and
    /// authority in front of it (`http://example.org/api`) only there, else wherever it is.
    Prefix(String),
    /// Path and query, or the whole URI where the pattern has a scheme; `*` stands for any characters.
    Glob(String),
    /// All URIs of a host, on whatever port.
    Host(String),
    /// What this route has stored.
    Route(String),
    Everything,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// It is gone.
    Hard,
    /// It is stale: it is validated before it is used again, and may stand in for an origin that fails.
    Soft,
}

/// What a purge has done in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Purged {
    /// Responses that went, or were made stale, at once.
    pub responses: u64,
    /// Labels whose responses go when they are next looked at.
    pub labels: u64,
}

impl What {
    /// Exact names of tags; they have case.
    pub fn tags<T: AsRef<[u8]>>(names: impl IntoIterator<Item = T>) -> Self {
        Self::Labels(names.into_iter().map(|name| Label::tag(name.as_ref())).collect())
    }

    pub fn kind(&self) -> PurgeKind {
        match self {
            Self::Uris(_) => PurgeKind::Uri,
            Self::Labels(_) => PurgeKind::Tag,
            Self::Pattern(Pattern::Prefix(_)) => PurgeKind::Prefix,
            Self::Pattern(Pattern::Glob(_)) => PurgeKind::Glob,
            Self::Pattern(Pattern::Host(_)) => PurgeKind::Host,
            Self::Pattern(Pattern::Route(_)) => PurgeKind::Route,
            Self::Pattern(Pattern::Everything) => PurgeKind::Everything,
        }
    }
}

/// A purge as instances tell it each other.
#[derive(Serialize, Deserialize)]
struct Told {
    what: ToldWhat,
    how: How,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ToldWhat {
    /// Scheme, authority, path and query.
    Uris(Vec<(String, String, String)>),
    Labels(Vec<u64>),
    Pattern(Pattern),
}

impl Purge {
    pub fn everything() -> Self {
        Self {
            what: What::Pattern(Pattern::Everything),
            how: How::Hard,
        }
    }

    pub fn to_json(&self) -> String {
        let what = match &self.what {
            What::Uris(uris) => {
                let told = |uri: &ResourceUri| {
                    let scheme = uri.scheme.as_str().to_owned();
                    (scheme, uri.authority.clone(), uri.target.clone())
                };
                ToldWhat::Uris(uris.iter().map(told).collect())
            }
            What::Labels(labels) => ToldWhat::Labels(labels.iter().map(|label| label.as_u64()).collect()),
            What::Pattern(pattern) => ToldWhat::Pattern(pattern.clone()),
        };
        let told = Told { what, how: self.how };
        serde_json::to_string(&told).unwrap_or_default()
    }

    /// What cannot be read, because it is from a later version, is taken for everything.
    pub fn from_json(json: &[u8]) -> Self {
        let Ok(told) = serde_json::from_slice::<Told>(json) else {
            return Self::everything();
        };
        let what = match told.what {
            ToldWhat::Uris(uris) => {
                let uri = |(scheme, authority, target): (String, String, String)| {
                    let scheme = match scheme.as_str() {
                        "https" => Scheme::Https,
                        _ => Scheme::Http,
                    };
                    ResourceUri {
                        scheme,
                        authority,
                        target,
                    }
                };
                What::Uris(uris.into_iter().map(uri).collect())
            }
            ToldWhat::Labels(labels) => What::Labels(labels.into_iter().map(Label::from_u64).collect()),
            ToldWhat::Pattern(pattern) => What::Pattern(pattern),
        };
        Self { what, how: told.how }
    }

    /// What it is about, as it is noted. `forms`: the ways in which routes count queries.
    pub fn scope(&self, forms: &[QueryOptions]) -> Scope {
        match &self.what {
            What::Uris(uris) => {
                let keys = uris.iter().flat_map(|uri| keys(uri, forms));
                Scope::Uris(keys.map(|key| UriHash::of(&key)).collect())
            }
            What::Labels(labels) => Scope::Labels(labels.clone()),
            What::Pattern(pattern) => Scope::Pattern(pattern.clone().normalised()),
        }
    }
}

/// A URI or path as it is typed, split where the path begins; the authority is `None` where there is only a path.
fn split_uri(text: &str) -> (Option<(Scheme, &str)>, &str) {
    let (scheme, rest) = if let Some(rest) = text.strip_prefix("http://") {
        (Scheme::Http, rest)
    } else if let Some(rest) = text.strip_prefix("https://") {
        (Scheme::Https, rest)
    } else {
        return (None, text);
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    (Some((scheme, authority)), path)
}

impl Pattern {
    /// The same in normal form, as keys have URIs.
    #[must_use]
    pub fn normalised(self) -> Self {
        let uri = |text: String| {
            let (origin, target) = split_uri(&text);
            let target = normalise_target(target);
            match origin {
                None => target.into_owned(),
                Some((scheme, authority)) => {
                    format!(
                        "{}://{}{target}",
                        scheme.as_str(),
                        normalise_authority(scheme, authority)
                    )
                }
            }
        };
        match self {
            Self::Prefix(prefix) => Self::Prefix(uri(prefix)),
            Self::Glob(glob) => Self::Glob(uri(glob)),
            Self::Host(host) => Self::Host(host.to_ascii_lowercase()),
            Self::Route(_) | Self::Everything => self,
        }
    }

    /// Whether it covers a response of this URI (see [`CacheKey::uri`]) that this route stores.
    pub fn covers(&self, uri: &[u8], route: &str) -> bool {
        match self {
            Self::Everything => return true,
            Self::Route(name) => return name == route,
            Self::Prefix(_) | Self::Glob(_) | Self::Host(_) => {}
        }
        // What cannot be read is nothing that could be named: it goes rather than stays.
        let Some(uri) = KeyUri::parse(uri) else { return true };
        match self {
            Self::Everything | Self::Route(_) => true,
            Self::Host(host) => uri.host() == host,
            Self::Prefix(prefix) => {
                let (origin, prefix) = split_uri(prefix);
                let here = origin
                    .is_none_or(|(scheme, authority)| (scheme.as_str(), authority) == (uri.scheme, uri.authority));
                here && match uri.path.strip_prefix(prefix) {
                    Some(rest) => {
                        rest.is_empty() || prefix.is_empty() || prefix.ends_with('/') || rest.starts_with('/')
                    }
                    None => false,
                }
            }
            Self::Glob(pattern) => {
                let mut text = match split_uri(pattern) {
                    (Some(_), _) => format!("{}://{}{}", uri.scheme, uri.authority, uri.path),
                    (None, _) => uri.path.to_owned(),
                };
                if let Some(query) = uri.query {
                    text.push('?');
                    text.push_str(query);
                }
                Glob::new(pattern.as_str()).matches(&text)
            }
        }
    }
}

/// The keys of a URI under all these options.
pub fn keys<'a>(uri: &ResourceUri, forms: impl IntoIterator<Item = &'a QueryOptions>) -> Vec<CacheKey> {
    let mut keys: Vec<CacheKey> = Vec::new();
    for query in forms {
        let key = CacheKey::of_uri(uri, query);
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

impl Memory {
    /// Takes responses out of use in memory. Whatever is being fetched now, of what this is about, will not be stored. `forms` are the ways
    /// in which routes count queries.
    pub async fn purge(&self, purge: &Purge, forms: &[QueryOptions], at: Timestamp) -> Purged {
        match &purge.what {
            What::Labels(labels) => {
                self.epochs().note(Scope::Labels(labels.clone()), purge.how, at);
                Purged {
                    responses: 0,
                    labels: labels.len() as u64,
                }
            }
            What::Uris(uris) => {
                let keys: Vec<CacheKey> = uris.iter().flat_map(|uri| keys(uri, forms)).collect();
                let hashes = keys.iter().map(UriHash::of).collect();
                self.epochs().note(Scope::Uris(hashes), purge.how, at);
                let mut purged = Purged::default();
                for key in &keys {
                    purged.responses += self.revise_uri(key, |stored| fate(stored, purge.how, at));
                    tokio::task::coop::consume_budget().await;
                }
                purged
            }
            What::Pattern(pattern) => {
                let pattern = pattern.clone().normalised();
                self.epochs().note(Scope::Pattern(pattern.clone()), purge.how, at);
                Purged {
                    responses: self.walk(&pattern, |stored| fate(stored, purge.how, at)).await,
                    labels: 0,
                }
            }
        }
    }

    /// How many responses in memory a purge would be about; nothing happens to them.
    pub async fn count_purged(&self, what: &What, forms: &[QueryOptions]) -> u64 {
        let mut count = 0;
        match what {
            What::Labels(labels) => {
                self.walk(&Pattern::Everything, |stored| {
                    let own = stored.meta.labels().map_or(&[][..], |own| own.as_slice());
                    let since = self.epochs().labels_since(seen(stored), own);
                    count += u64::from(since != Since::Purged && own.iter().any(|label| labels.contains(label)));
                    Fate::Stay
                })
                .await;
            }
            What::Uris(uris) => {
                for key in uris.iter().flat_map(|uri| keys(uri, forms)) {
                    self.revise_uri(&key, |_| {
                        count += 1;
                        Fate::Stay
                    });
                    tokio::task::coop::consume_budget().await;
                }
            }
            What::Pattern(pattern) => {
                let pattern = pattern.clone().normalised();
                self.walk(&pattern, |_| {
                    count += 1;
                    Fate::Stay
                })
                .await;
            }
        }
        count
    }

    /// The keys that a purge is about, at most so many.
    pub async fn covered(&self, what: &What, forms: &[QueryOptions], most: usize) -> Vec<Covered> {
        let mut found = Vec::new();
        if let What::Uris(uris) = what {
            for key in uris.iter().flat_map(|uri| keys(uri, forms)) {
                self.collect_uri(&key, &mut found);
                tokio::task::coop::consume_budget().await;
                if found.len() >= most {
                    break;
                }
            }
            found.truncate(most);
            return found;
        }
        let routes = self.route_names();
        let pattern = match what {
            What::Pattern(pattern) => pattern.clone().normalised(),
            What::Uris(_) | What::Labels(_) => Pattern::Everything,
        };
        let wanted = |uri: &[u8], route: u16, stored: &Stored| match what {
            What::Labels(labels) => {
                let own = stored.meta.labels().map_or(&[][..], |own| own.as_slice());
                let is_left = self.epochs().labels_since(seen(stored), own) != Since::Purged;
                is_left && own.iter().any(|label| labels.contains(label))
            }
            What::Uris(_) | What::Pattern(_) => {
                let route = routes.get(usize::from(route)).map_or("", |name| &**name);
                pattern.covers(uri, route)
            }
        };
        let mut from = Some(Position::default());
        while let Some(position) = from {
            from = self.collect(position, wanted, &mut found);
            if found.len() >= most {
                found.truncate(most);
                break;
            }
            tokio::task::yield_now().await;
        }
        found
    }

    /// Frees the memory of responses whose labels have been purged, and has all others compared. Others have their turn in between.
    pub async fn sweep_labels(&self) {
        self.walk(&Pattern::Everything, |stored| self.label_fate(stored)).await;
    }

    /// Has the memory of purged labels freed in a while.
    pub fn sweep_later(self: &Arc<Self>) {
        if !self.sweeps().begin() {
            return;
        }
        let memory = self.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(SWEEP_AFTER).await;
                memory.sweep_labels().await;
                if !memory.sweeps().again() {
                    return;
                }
            }
        });
    }

    /// Makes stale what has been stored or confirmed before a time, bit by bit, so that the origin is not asked about all of it at once.
    pub async fn outdate(&self, before: Timestamp, at: Timestamp) {
        let mut from = Some(Position::default());
        while let Some(position) = from {
            (from, _) = self.revise(position, |_, _, stored| {
                match stored.meta.received < before && stored.meta.is_fresh(at) {
                    true => Fate::Becomes(stored.outdated(at)),
                    false => Fate::Stay,
                }
            });
            tokio::time::sleep(OUTDATE_PAUSE.mul_f64(0.5 + fastrand::f64())).await;
        }
    }

    /// Decides about every response that a pattern covers. Answers how many did not stay.
    async fn walk(&self, pattern: &Pattern, mut judge: impl FnMut(&Stored) -> Fate) -> u64 {
        let routes = self.route_names();
        let mut changed = 0;
        let mut from = Some(Position::default());
        while let Some(position) = from {
            let (next, revised) = self.revise(position, |uri, route, stored| {
                let route = routes.get(usize::from(route)).map_or("", |name| &**name);
                match pattern.covers(uri, route) {
                    true => judge(stored),
                    false => Fate::Stay,
                }
            });
            from = next;
            changed += revised;
            tokio::task::yield_now().await;
        }
        changed
    }
}

impl Cache {
    /// Whether what began behind the purge of that number may still be stored.
    pub fn is_current(&self, began: u64, subject: Subject<'_>) -> bool {
        self.epochs.since(began, subject) == Since::Nothing
    }
}

/// Sees to it that one sweep at a time is under way, and that there is one behind every purge of labels.
#[derive(Debug, Default)]
pub struct Sweeps(AtomicUsize);

impl Sweeps {
    /// Nobody sweeps.
    const IDLE: usize = 0;
    /// A sweep is under way or about to begin.
    const BUSY: usize = 1;
    /// There has been another purge since it began.
    const WANTED: usize = 2;

    /// Asks for a sweep. Whether the caller has to make it.
    pub fn begin(&self) -> bool {
        let next = |state| Some(if state == Self::IDLE { Self::BUSY } else { Self::WANTED });
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, next) == Ok(Self::IDLE)
    }

    /// Ends a sweep. Whether there has to be another one.
    pub fn again(&self) -> bool {
        let next = |state| Some(if state == Self::WANTED { Self::BUSY } else { Self::IDLE });
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, next) == Ok(Self::WANTED)
    }
}

fn seen(stored: &Stored) -> u64 {
    stored.meta.labels().map_or(u64::MAX, |labels| labels.seen())
}

fn fate(stored: &Stored, how: How, at: Timestamp) -> Fate {
    match how {
        How::Hard => Fate::Go,
        How::Soft => Fate::Becomes(stored.outdated(at)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(pattern: Pattern, target: &str) -> bool {
        let uri = ResourceUri {
            scheme: Scheme::Http,
            authority: "example.org:8080".into(),
            target: target.into(),
        };
        let key = CacheKey::of_uri(&uri, &QueryOptions::default());
        pattern.normalised().covers(key.uri(), "site")
    }

    #[test]
    fn a_prefix_ends_where_a_segment_ends() {
        let cases = [
            ("/api", "/api", true),
            ("/api", "/api?x=1", true),
            ("/api", "/api/x", true),
            ("/api", "/apiary", false),
            ("/api/", "/api/x", true),
            ("/api/", "/api", false),
            ("/%61pi", "/api/x", true),
            ("/", "/anything", true),
            ("http://EXAMPLE.org:8080/api", "/api/x", true),
            ("http://example.org:8080", "/api/x", true),
            ("http://example.org/api", "/api/x", false),
            ("https://example.org:8080/api", "/api/x", false),
        ];
        for (prefix, target, expected) in cases {
            assert_eq!(
                covers(Pattern::Prefix(prefix.into()), target),
                expected,
                "{prefix} {target}"
            );
        }
    }

    #[test]
    fn globs_hosts_and_routes_cover_what_they_name() {
        let glob = |pattern: &str, target| covers(Pattern::Glob(pattern.into()), target);
        assert!(glob("/img/*.png", "/img/a/b.png"));
        assert!(!glob("/img/*.png", "/img/a.png?v=1"));
        assert!(glob("/img/*.png*", "/img/a.png?v=1"));
        assert!(glob("http://example.org:8080/*", "/x"));
        assert!(!glob("http://example.org/*", "/x"));
        assert!(covers(Pattern::Host("Example.ORG".into()), "/x"));
        assert!(!covers(Pattern::Host("example.com".into()), "/x"));
        assert!(covers(Pattern::Route("site".into()), "/x"));
        assert!(!covers(Pattern::Route("other".into()), "/x"));
        assert!(covers(Pattern::Everything, "/x"));
    }
}
