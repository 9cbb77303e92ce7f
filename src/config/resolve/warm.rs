//! `cache.warm`: what is asked for before clients do.

use std::path::PathBuf;

use super::planned::{at_least_one, http_url, readable};
use super::positive;
use crate::admin::warm::access_log::Site;
use crate::config::diagnostic::KeyPath;
use crate::config::file::{FileWarm, FileWarmSource};
use crate::config::report::Report;
use crate::config::{Warm, WarmSource, defaults};

pub fn resolve(typed: &FileWarm, report: &mut Report, path: &KeyPath) -> Warm {
    let sources_path = path.key("sources");
    let mut sources = Vec::new();
    match &typed.sources {
        None if typed.after_purge == Some(true) => {}
        None => report.key(&sources_path, "is missing", "like [{ hottest: 100 }]"),
        Some(list) if list.0.is_empty() => report.value(&sources_path, "must have at least one source", ""),
        Some(list) => {
            for (path, typed) in list.under(&sources_path) {
                sources.extend(source(typed, report, &path));
            }
        }
    }
    at_least_one(report, &path.key("concurrency"), typed.concurrency);
    if typed
        .concurrency
        .is_some_and(|concurrency| concurrency > defaults::WARM_MAX_CONCURRENCY)
    {
        let what = format!("must be at most {}", defaults::WARM_MAX_CONCURRENCY);
        report.value(&path.key("concurrency"), what, "");
    }
    let every = typed.every.as_ref().and_then(|every| every.0);
    positive(report, &path.key("every"), every);
    Warm {
        on_start: typed.on_start.unwrap_or(true),
        every,
        sources,
        after_purge: typed.after_purge.unwrap_or(false),
        concurrency: typed.concurrency.unwrap_or(defaults::WARM_CONCURRENCY),
        rate: typed.rate.as_ref().map_or(defaults::WARM_RATE, |rate| rate.0),
    }
}

/// `None`: it is not one that can be had.
fn source(typed: &FileWarmSource, report: &mut Report, path: &KeyPath) -> Option<WarmSource> {
    let is_log = typed.access_log.is_some();
    for (key, is_there) in [("site", typed.site.is_some()), ("most", typed.most.is_some())] {
        if is_there && !is_log {
            report.key(&path.key(key), "has no effect without access_log", "remove it");
        }
    }
    match (&typed.urls, &typed.sitemap, &typed.access_log, typed.hottest) {
        (Some(file), None, None, None) => {
            readable(report, &path.key("urls"), file);
            return Some(WarmSource::Urls(PathBuf::from(file)));
        }
        (None, Some(url), None, None) => {
            http_url(report, &path.key("sitemap"), url);
            return Some(WarmSource::Sitemap(url.clone()));
        }
        // It may not be there yet: it is read when its time has come.
        (None, None, Some(file), None) => {
            at_least_one(report, &path.key("most"), typed.most);
            let site = typed.site.as_ref().map(|text| (Site::parse(text), text));
            if let Some((None, _)) = site {
                report.value(
                    &path.key("site"),
                    "must be a scheme and a host",
                    "like http://example.com",
                );
            }
            return Some(WarmSource::AccessLog {
                file: PathBuf::from(file),
                site: site.and_then(|(site, _)| site),
                most: typed.most.unwrap_or(defaults::WARM_MOST_LOGGED),
            });
        }
        (None, None, None, count @ Some(_)) => {
            at_least_one(report, &path.key("hottest"), count);
            return count.map(WarmSource::Hottest);
        }
        _ if ["urls", "sitemap", "access_log", "hottest"]
            .iter()
            .any(|key| report.is_broken(&path.key(key))) => {}
        _ => report.value(
            path,
            "must be one of urls, sitemap, access_log and hottest",
            "write each source by itself",
        ),
    }
    None
}
