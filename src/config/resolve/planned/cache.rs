use super::super::route::{Captures, resolve_match};
use super::{at_least_one, http_url, needs_redis, positive_text, readable, status};
use crate::config::ValueTemplate;
use crate::config::diagnostic::{KeyPath, alternatives};
use crate::config::file::scalar::CollapseScope;
use crate::config::file::shape::List;
use crate::config::file::{CookieKey, FileCache, FileCachePolicy, FileConfig, FileRedis, FileWarm, FileWarmSource};
use crate::config::report::Report;
use crate::message::is_token;

/// A tag goes into a response's field and into keys of the second tier.
const MAX_TAG: usize = 128;

pub fn check(typed: &FileCache, report: &mut Report, path: &KeyPath) {
    if let Some(names) = &typed.targeted_fields {
        field_names(names, report, &path.key("targeted_fields"));
    }
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
            Some(tags) if tags.0.is_empty() => report.value(&tags_path, "must have at least one tag", ""),
            Some(tags) => {
                let captures = Captures::of(&matches, report, &path.key("when"));
                check_tags(tags, report, &tags_path, &captures);
            }
        }
    }
}

pub fn check_policy(typed: &FileCachePolicy, file: &FileConfig, report: &mut Report, path: &KeyPath) {
    let lifetime = "remove it to follow the origin";
    for (key, value) in [("ttl", &typed.ttl), ("default_ttl", &typed.default_ttl)] {
        if value.as_ref().is_some_and(|value| value.0.is_zero()) {
            report.value(&path.key(key), "must be greater than 0", lifetime);
        }
    }
    if typed.ttl.is_some() && typed.default_ttl.is_some() {
        report.value(&path.key("default_ttl"), "has no effect beside ttl", "keep one of them");
    }
    if typed.max_size.as_ref().is_some_and(|size| size.0 == 0) {
        report.value(
            &path.key("max_size"),
            "must be greater than 0",
            "to store nothing, write cache: off",
        );
    }
    if let Some(tags) = &typed.tags {
        check_tags(tags, report, &path.key("tags"), &Captures::default());
    }
    if let Some(statuses) = &typed.statuses {
        let path = path.key("statuses");
        for (path, name, _) in statuses.under(&path) {
            match name.parse() {
                Ok(code @ 200..=599) => status(report, &path, code),
                _ => report.key(&path, "must be a status from 200 to 599", ""),
            }
        }
    }
    if let Some(key) = &typed.key {
        let path = path.key("key");
        if let Some(names) = &key.headers {
            field_names(names, report, &path.key("headers"));
        }
        if let Some(CookieKey::Names(names)) = &key.cookies {
            let path = path.key("cookies");
            for (path, name) in names.under(&path) {
                if !is_token(name.as_bytes()) {
                    report.value(&path, "must be the name of a cookie", "");
                }
            }
        }
        let query = path.key("query").key("ignore");
        let ignored = key.query.as_ref().and_then(|query| query.ignore.as_ref());
        for (path, pattern) in ignored.iter().flat_map(|ignored| ignored.under(&query)) {
            let name = pattern.strip_suffix('*').unwrap_or(pattern);
            if pattern.is_empty() || name.contains('*') {
                report.value(
                    &path,
                    "must be a parameter's name, or its beginning and *",
                    "like \"utm_*\"",
                );
            }
        }
    }
    if let Some(collapse) = &typed.collapse
        && collapse.0 == CollapseScope::Cluster
    {
        needs_redis(file, report, &path.key("collapse"));
    }
}

fn field_names(names: &List<String>, report: &mut Report, path: &KeyPath) {
    for (path, name) in names.under(path) {
        if !is_token(name.as_bytes()) {
            report.value(&path, "must be a field name", "");
        }
    }
}

fn check_tags(tags: &List<String>, report: &mut Report, path: &KeyPath, captures: &Captures<'_>) {
    for (path, tag) in tags.under(path) {
        // Tags are listed in fields with spaces or commas between them.
        let is_good = (1..=MAX_TAG).contains(&tag.len()) && tag.bytes().all(|b| b.is_ascii_graphic() && b != b',');
        if !is_good {
            report.value(
                &path,
                format!("must be a tag of up to {MAX_TAG} characters"),
                "without spaces and commas",
            );
            continue;
        }
        let names_only_captures = ValueTemplate::parse(tag, &captures.names).is_ok_and(|template| {
            template.parts.iter().all(|part| {
                matches!(
                    part,
                    crate::config::ValuePart::Text(_) | crate::config::ValuePart::Capture(_)
                )
            })
        });
        if !names_only_captures {
            report.value(
                &path,
                "holds a {name} that the path does not capture",
                captures.listed(&[]),
            );
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
