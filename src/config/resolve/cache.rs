//! `cache`: what is stored, and where, for all routes.

use std::time::Duration;

use super::positive;
use crate::config::diagnostic::KeyPath;
use crate::config::file::scalar::DurationText;
use crate::config::file::shape::List;
use crate::config::file::{EvictionName, FileCache};
use crate::config::report::Report;
use crate::config::{Cache, Eviction, Memory, defaults};
use crate::message::is_token;

pub fn resolve(typed: Option<&FileCache>, report: &mut Report) -> Cache {
    let path = KeyPath::root().key("cache");
    let heuristic_max = typed.and_then(|cache| cache.heuristic_max.as_ref());
    whole_seconds(report, &path.key("heuristic_max"), heuristic_max);
    Cache {
        heuristic_max: heuristic_max.map_or(defaults::HEURISTIC_MAX, |max| max.0),
        targeted_fields: match typed.and_then(|cache| cache.targeted_fields.as_ref()) {
            Some(names) => targeted_fields(names, report, &path.key("targeted_fields")),
            None => defaults::TARGETED_FIELDS.map(str::to_owned).to_vec(),
        },
        memory: memory(typed, report, &path.key("memory")),
        warm: typed
            .and_then(|cache| cache.warm.as_ref())
            .map(|warm| super::warm::resolve(warm, report, &path.key("warm"))),
        redis: typed
            .and_then(|cache| cache.redis.as_ref())
            .and_then(|redis| super::redis::resolve(redis, report, &path.key("redis"))),
        invalidate: super::invalidate::resolve(typed, report),
    }
}

fn memory(typed: Option<&FileCache>, report: &mut Report, path: &KeyPath) -> Memory {
    let typed = typed.and_then(|cache| cache.memory.as_ref());
    let size = typed.and_then(|memory| memory.size.as_ref());
    let max_body = typed.and_then(|memory| memory.max_body.as_ref());
    let memory = Memory {
        size: size.map_or(defaults::MEMORY_SIZE, |size| size.0),
        max_body: match (size, max_body) {
            (_, Some(max_body)) => max_body.0,
            // A small tier needs no second key.
            (Some(size), None) => defaults::MEMORY_MAX_BODY.min(size.0),
            (None, None) => defaults::MEMORY_MAX_BODY,
        },
        max_ttl: typed
            .and_then(|memory| memory.max_ttl.as_ref())
            .and_then(|max_ttl| max_ttl.0),
        eviction: match typed.and_then(|memory| memory.eviction) {
            None | Some(EvictionName::S3Fifo) => Eviction::S3Fifo,
            Some(EvictionName::Lru) => Eviction::Lru,
            Some(EvictionName::Lfu) => Eviction::Lfu,
        },
        dictionaries: typed
            .and_then(|memory| memory.dictionaries.as_ref())
            .map_or(defaults::MEMORY_DICTIONARIES, |size| size.0),
    };
    if memory.size == 0 {
        report.value(
            &path.key("size"),
            "must be greater than 0",
            "to store nothing, write defaults: { cache: off }",
        );
    }
    if memory.max_body == 0 {
        report.value(&path.key("max_body"), "must be greater than 0", "");
    }
    if memory.dictionaries == 0 {
        report.value(
            &path.key("dictionaries"),
            "must be greater than 0",
            "to use none, leave compression.dictionaries out",
        );
    }
    if memory.max_body > memory.size {
        report.value(&path.key("max_body"), "must not be larger than cache.memory.size", "");
    }
    positive(report, &path.key("max_ttl"), memory.max_ttl);
    seconds_only(report, &path.key("max_ttl"), memory.max_ttl);
    memory
}

/// Names of fields that are read in the place of `Cache-Control` (RFC 9213 §2.2), in lower case.
fn targeted_fields(typed: &List<String>, report: &mut Report, path: &KeyPath) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (path, name) in typed.under(path) {
        let name = name.to_ascii_lowercase();
        if !is_token(name.as_bytes()) {
            report.value(&path, "must be a field name", "letters, digits and hyphens");
        } else if name == "cache-control" {
            report.value(
                &path,
                "must not be Cache-Control",
                "it always counts where none of these fields is there",
            );
        } else if names.contains(&name) {
            report.value(
                &path,
                "must not be there twice",
                "the case of field names does not count",
            );
        } else {
            names.push(name);
        }
    }
    names
}

/// Freshness lifetimes are counted in whole seconds (RFC 9111 §1.2.2); a part of one would be lost without a word.
pub fn whole_seconds(report: &mut Report, path: &KeyPath, duration: Option<&DurationText>) {
    seconds_only(report, path, duration.map(|duration| duration.0));
}

fn seconds_only(report: &mut Report, path: &KeyPath, duration: Option<Duration>) {
    if duration.is_some_and(|duration| duration.subsec_nanos() != 0) {
        report.value(path, "must be in whole seconds", "freshness has no smaller unit");
    }
}
