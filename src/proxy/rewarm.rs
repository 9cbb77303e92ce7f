//! What is asked for again because it has been purged.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::Proxy;
use crate::cache::memory::Covered;
use crate::cache::purge::What;
use crate::key::KeyUri;
use crate::rfc9111::invalidation::ResourceUri;

/// Purges by PURGE requests whose URLs wait to be asked for again; those of more are not.
const WAITING: usize = 256;

/// Requests that one purge has made at most. Of more, those that are asked for most.
const MOST: usize = 10_000;

/// Keys that are looked at to find these.
const MOST_SEEN: usize = 100_000;

/// One request for what has been purged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Again {
    pub url: String,
    /// By which it was chosen among variants.
    pub fields: BTreeMap<String, String>,
    /// How often it was asked for lately, as far as that is counted.
    pub requests: u64,
    /// Whether it was stored here; else only its URL was named.
    pub stored: Stored,
}

/// Whether something was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    Here,
    /// It may have been in other instances, or in Redis.
    Elsewhere,
}

/// What PURGE requests have purged, on its way to whoever asks for it again.
pub(super) struct ToWarm {
    sender: mpsc::Sender<Vec<Again>>,
    /// Until somebody takes it.
    receiver: Mutex<Option<mpsc::Receiver<Vec<Again>>>>,
}

impl Default for ToWarm {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        Self {
            sender,
            receiver: Mutex::new(Some(receiver)),
        }
    }
}

impl Proxy {
    /// Where what PURGE requests have purged is to be had from. For one reader: another one gets nothing.
    pub fn purged_to_warm(&self) -> mpsc::Receiver<Vec<Again>> {
        let receiver = self.to_warm.receiver.lock().take();
        receiver.unwrap_or_else(|| mpsc::channel(1).1)
    }

    /// Whether the configuration has what is purged asked for again.
    pub fn warms_after_purges(&self) -> bool {
        let generation = self.generation();
        let warm = generation.config.cache.warm.as_ref();
        warm.is_some_and(|warm| warm.after_purge)
    }

    pub(super) fn warm_again(&self, again: Vec<Again>) {
        if !again.is_empty() && self.to_warm.sender.try_send(again).is_err() {
            tracing::warn!("what has been purged is not warmed up again: too many purges wait for it");
        }
    }

    /// The requests that bring back what a purge is about. To be asked before it is carried out.
    pub async fn again(&self, all: &[What]) -> Vec<Again> {
        let generation = self.generation();
        let forms = generation.query_forms();
        let names = self.cache.memory.route_names();
        let mut again = Vec::new();
        for what in all {
            let covered = self.cache.memory.covered(what, &forms, MOST_SEEN).await;
            let mut seen: Vec<String> = Vec::new();
            for Covered { key, route, variants } in &covered {
                let Some(uri) = KeyUri::parse(key.uri()) else { continue };
                let name = names.get(usize::from(*route));
                let route = generation.routes.iter().find(|route| Some(&route.name) == name);
                let Some(rules) = route.and_then(|route| route.cache.as_ref()) else {
                    continue;
                };
                // What trusted proxies said of a request is not said again.
                let Some(fields) = key.asked_with(&rules.key) else {
                    continue;
                };
                let url = uri.to_string();
                for stored in variants.iter() {
                    let mut fields: BTreeMap<String, String> = fields.iter().cloned().collect();
                    for (name, value) in stored.meta.variant.nominated() {
                        if let Some(value) = value.and_then(|value| std::str::from_utf8(value).ok()) {
                            fields.insert(name.to_owned(), value.to_owned());
                        }
                    }
                    again.push(Again {
                        url: url.clone(),
                        fields,
                        requests: self.cache.hottest.requests(key),
                        stored: Stored::Here,
                    });
                }
                seen.push(url);
            }
            if let What::Uris(uris) = what {
                let named = uris.iter().map(named).filter(|url| !seen.contains(url));
                again.extend(named.map(|url| Again {
                    url,
                    fields: BTreeMap::new(),
                    requests: 0,
                    stored: Stored::Elsewhere,
                }));
            }
        }
        again.sort_by_key(|again| std::cmp::Reverse(again.requests));
        again.truncate(MOST);
        again
    }
}

fn named(uri: &ResourceUri) -> String {
    format!("{}://{}{}", uri.scheme.as_str(), uri.authority, uri.target)
}
