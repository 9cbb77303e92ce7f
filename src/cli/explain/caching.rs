//! Whether the cache may answer the request, and under which key.

use super::text::{self, Text};
use crate::config::{Redis, RouteCache, WritePolicy};
use crate::generation::{CacheRules, Collapse};
use crate::key::{CacheKey, KeyOptions, Unkeyable, unkeyable};
use crate::message::RequestHead;
use crate::proxy::Decided;
use crate::proxy::cached::{key_options, may_collapse, passed_by};
use crate::rfc9111::reuse::Forward;
use crate::transform::forwarding::Trust;

/// How a request goes past the cache or through it.
pub enum Way<'a> {
    /// The route does not cache, for this reason.
    Off(&'static str),
    /// The route does, and this request is not for a cache.
    Passed {
        reason: Forward,
        detail: Option<&'static str>,
        why: String,
    },
    /// Something stored may answer it.
    Looked(&'a CacheRules),
}

/// The first steps of `Proxy::cached`.
pub fn way<'a>(decided: &Decided<'_>, rules: Option<&'a CacheRules>) -> Way<'a> {
    let Some(rules) = rules else {
        return Way::Off(match decided.route.cache {
            RouteCache::Off => "the route says cache: off",
            RouteCache::On(_) => "the route's responses are streams",
        });
    };
    let request = decided.request;
    let Some((reason, detail)) = passed_by(request) else {
        return Way::Looked(rules);
    };
    let why = match unkeyable(request) {
        Some(Unkeyable::Method) => format!("the method is neither GET nor HEAD ({})", request.method),
        Some(Unkeyable::Content) => "it has content, which the cache key says nothing of".to_owned(),
        Some(Unkeyable::Override) => "it asks to be taken for another request than it is".to_owned(),
        Some(Unkeyable::Upgrade) => "it becomes a WebSocket".to_owned(),
        Some(Unkeyable::Target) => "its target is not a path".to_owned(),
        None => "If-Match and If-Unmodified-Since are for the origin to judge (RFC 9111 §4.3.2)".to_owned(),
    };
    Way::Passed { reason, detail, why }
}

/// Whether something stored can answer, and under which key.
pub fn tell(way: &Way<'_>, request: &RequestHead, trust: Trust, redis: Option<&Redis>, text: &mut Text) {
    match way {
        Way::Off(why) => text.line("cache", format_args!("off: {why}")),
        Way::Passed { why, .. } => text.line("cache", format_args!("on, and passed by: {why}")),
        Way::Looked(rules) => {
            text.line("cache", "on: a fresh stored response answers the request");
            let directives = rules.reuse.request_directives.of(&request.fields);
            if directives.no_cache || directives.no_store {
                text.more("not this one: its Cache-Control or Pragma asks for the origin");
            } else if let Some(age) = directives.max_age {
                text.more(format_args!("no older than {} s: its Cache-Control says so", age.get()));
            }
            match redis.map(|redis| redis.write) {
                None => {}
                Some(WritePolicy::Behind) => {
                    text.more("on a miss Redis is looked at first; what is fetched goes there")
                }
                Some(WritePolicy::Through) => {
                    text.more(
                        "on a miss Redis is looked at first; what is fetched goes there before the client has it",
                    );
                }
                Some(WritePolicy::Around) => {
                    text.more("on a miss Redis is looked at first; what is fetched does not go there")
                }
            }
            match (rules.collapse, may_collapse(request, Forward::UriMiss, rules)) {
                (Collapse::Off, _) => {}
                (Collapse::Cluster, true) => {
                    text.more("requests for the same at the same time, on all instances, wait for one fetch");
                }
                (Collapse::Instance, true) => text.more("requests for the same at the same time wait for one fetch"),
                (Collapse::Instance | Collapse::Cluster, false) => {
                    text.more("it neither waits for another request's fetch nor leads one")
                }
            }
            if let Some(ahead) = rules.refresh_ahead {
                text.more(format_args!(
                    "what is asked for {} times in the last {}% of its lifetime is validated meanwhile",
                    ahead.min_hits,
                    f64::from(ahead.permille) / 10.0
                ));
            }
            let options = key_options(request, rules, trust);
            text.table("key", &key_parts(&CacheKey::new(request, &options), &options));
        }
    }
}

/// What the length-prefixed parts of a key are. See [`crate::key`].
fn key_parts(key: &CacheKey, options: &KeyOptions) -> Vec<(String, String)> {
    let mut parts = Parts(key.as_bytes());
    let mut rows: Vec<(String, String)> = ["scheme", "host", "path"]
        .iter()
        .map(|name| ((*name).to_owned(), parts.part()))
        .collect();
    rows.push(("query".to_owned(), parts.optional()));
    for _ in &options.headers {
        rows.push((format!("header {}", parts.part()), parts.optional()));
    }
    for _ in &options.cookies {
        let name = parts.part();
        let mut values = Vec::new();
        while let Some(value) = parts.present() {
            values.push(value);
        }
        rows.push((format!("cookie {name}"), values.join(", ")));
    }
    rows
}

struct Parts<'a>(&'a [u8]);

impl Parts<'_> {
    fn part(&mut self) -> String {
        let Some((length, rest)) = self.0.split_first_chunk() else {
            return String::new();
        };
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let (part, rest) = rest.split_at_checked(length).unwrap_or((rest, &[]));
        self.0 = rest;
        text::lossy(part)
    }

    /// `None`: it is marked as absent.
    fn present(&mut self) -> Option<String> {
        let (mark, rest) = self.0.split_first()?;
        self.0 = rest;
        (*mark == 1).then(|| self.part())
    }

    fn optional(&mut self) -> String {
        self.present().unwrap_or_else(|| "(none)".to_owned())
    }
}
