use super::super::route::{Captures, resolve_match, tags};
use super::{at_least_one, http_url, positive_text, readable};
use crate::config::diagnostic::{KeyPath, alternatives};
use crate::config::file::{FileCache, FileRedis, FileWarm, FileWarmSource};
use crate::config::report::Report;

pub fn check(typed: &FileCache, report: &mut Report, path: &KeyPath) {
    if let Some(redis) = &typed.redis {
        check_redis(redis, report, &path.key("redis"));
    }
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

fn check_redis(typed: &FileRedis, report: &mut Report, path: &KeyPath) {
    let url_path = path.key("url");
    let schemes = [
        "redis://",
        "rediss://",
        "redis+sentinel://",
        "redis+cluster://",
        "unix:/",
    ];
    match &typed.url {
        None => report.key(&url_path, "is missing", "like redis://127.0.0.1:6379/0"),
        Some(url) => match schemes.iter().find_map(|scheme| url.strip_prefix(scheme)) {
            Some(rest) if !rest.is_empty() => {}
            _ => report.value(
                &url_path,
                format!("must begin with {}", alternatives(&schemes)),
                "like redis://127.0.0.1:6379/0",
            ),
        },
    }
    if typed.password.is_some() && typed.password_file.is_some() {
        report.key(
            &path.key("password"),
            "has no effect beside password_file",
            "keep one of them",
        );
    }
    if let Some(file) = &typed.password_file {
        readable(report, &path.key("password_file"), file);
    }
    positive_text(report, &path.key("deadline"), typed.deadline.as_ref());
    if typed.max_body.as_ref().is_some_and(|size| size.0 == 0) {
        report.value(&path.key("max_body"), "must be greater than 0", "");
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
