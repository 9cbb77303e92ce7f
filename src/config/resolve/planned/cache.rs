use super::super::route::{Captures, resolve_match, tags};
use super::{at_least_one, http_url, readable};
use crate::config::diagnostic::KeyPath;
use crate::config::file::{FileCache, FileWarm, FileWarmSource};
use crate::config::report::Report;

pub fn check(typed: &FileCache, report: &mut Report, path: &KeyPath) {
    if let Some(warm) = &typed.warm {
        check_warm(warm, report, &path.key("warm"));
    }
    let path = path.key("invalidate");
    let rules = typed.invalidate.iter().flat_map(|rules| rules.under(&path));
    for (path, rule) in rules {
        let matches = match &rule.when {
            Some(when) => resolve_match(when, report, &path.key("when")),
            None => {
                report.key(
                    &path.key("when"),
                    "is missing",
                    "like { methods: [POST], path: /api/users }",
                );
                Default::default()
            }
        };
        let tags_path = path.key("purge_tags");
        match &rule.purge_tags {
            None => report.key(&tags_path, "is missing", "like [users]"),
            Some(typed) if typed.0.is_empty() => report.value(&tags_path, "must have at least one tag", ""),
            Some(typed) => {
                let captures = Captures::of(&matches, report, &path.key("when"));
                tags(typed, report, &tags_path, &captures);
            }
        }
    }
}

fn check_warm(typed: &FileWarm, report: &mut Report, path: &KeyPath) {
    let sources = path.key("sources");
    match &typed.sources {
        None => report.key(&sources, "is missing", "like [{ hottest: 100 }]"),
        Some(list) if list.0.is_empty() => report.value(&sources, "must have at least one source", ""),
        Some(list) => {
            for (path, source) in list.under(&sources) {
                check_source(source, report, &path);
            }
        }
    }
    at_least_one(report, &path.key("concurrency"), typed.concurrency);
    super::positive(
        report,
        &path.key("every"),
        typed.every.as_ref().and_then(|every| every.0),
    );
}

fn check_source(typed: &FileWarmSource, report: &mut Report, path: &KeyPath) {
    match (&typed.urls, &typed.sitemap, typed.hottest) {
        (Some(file), None, None) => readable(report, &path.key("urls"), file),
        (None, Some(url), None) => http_url(report, &path.key("sitemap"), url),
        (None, None, count @ Some(_)) => at_least_one(report, &path.key("hottest"), count),
        _ if ["urls", "sitemap", "hottest"]
            .iter()
            .any(|key| report.is_broken(&path.key(key))) => {}
        _ => report.value(
            path,
            "must be one of urls, sitemap and hottest",
            "write each source by itself",
        ),
    }
}
