//! `cache.invalidate`: what else successful unsafe requests purge.

use super::route::{Captures, globs, resolve_match, tags};
use crate::config::Invalidate;
use crate::config::diagnostic::KeyPath;
use crate::config::file::{FileCache, FileInvalidate};
use crate::config::report::Report;
use crate::rfc9111::invalidation::is_safe;

pub fn resolve(typed: Option<&FileCache>, report: &mut Report) -> Vec<Invalidate> {
    let path = KeyPath::root().key("cache").key("invalidate");
    let rules = typed.and_then(|cache| cache.invalidate.as_ref());
    let rules = rules.into_iter().flat_map(|rules| rules.under(&path));
    rules.map(|(path, rule)| invalidate(rule, report, &path)).collect()
}

fn invalidate(typed: &FileInvalidate, report: &mut Report, path: &KeyPath) -> Invalidate {
    let when_path = path.key("when");
    let when = match &typed.when {
        Some(when) => resolve_match(when, report, &when_path),
        None => {
            report.key(&when_path, "is missing", "like { methods: [POST], path: /api/users }");
            Default::default()
        }
    };
    for (index, method) in when.methods.iter().enumerate() {
        if is_safe(method) {
            report.value(
                &when_path.key("methods").index(index),
                "must be a method that changes something",
                "safe ones never invalidate",
            );
        }
    }
    let tags_path = path.key("purge_tags");
    let purge_tags = match &typed.purge_tags {
        None if typed.purge_globs.is_some() => Vec::new(),
        None => {
            report.key(&tags_path, "is missing", "like [users]");
            Vec::new()
        }
        Some(typed) if typed.0.is_empty() => {
            report.value(&tags_path, "must have at least one tag", "");
            Vec::new()
        }
        Some(typed) => {
            let captures = Captures::of(&when, report, &when_path);
            tags(typed, report, &tags_path, &captures)
        }
    };
    let globs_path = path.key("purge_globs");
    let purge_globs = match &typed.purge_globs {
        None => Vec::new(),
        Some(typed) => {
            if typed.0.is_empty() {
                report.value(&globs_path, "must have at least one glob", "");
            }
            let captures = Captures::of(&when, report, &when_path);
            globs(typed, report, &globs_path, &captures)
        }
    };
    Invalidate {
        when,
        purge_tags,
        purge_globs,
    }
}
