//! `cache.warm`: what is asked for before clients do.

use std::path::PathBuf;

use super::planned::{at_least_one, http_url, readable};
use super::positive;
use crate::config::diagnostic::KeyPath;
use crate::config::file::{FileWarm, FileWarmSource};
use crate::config::report::Report;
use crate::config::{Warm, WarmSource, defaults};

pub fn resolve(typed: &FileWarm, report: &mut Report, path: &KeyPath) -> Warm {
    let sources_path = path.key("sources");
    let mut sources = Vec::new();
    match &typed.sources {
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
        concurrency: typed.concurrency.unwrap_or(defaults::WARM_CONCURRENCY),
        rate: typed.rate.as_ref().map_or(defaults::WARM_RATE, |rate| rate.0),
    }
}

/// `None`: it is not one that can be had.
fn source(typed: &FileWarmSource, report: &mut Report, path: &KeyPath) -> Option<WarmSource> {
    match (&typed.urls, &typed.sitemap, typed.hottest) {
        (Some(file), None, None) => {
            readable(report, &path.key("urls"), file);
            return Some(WarmSource::Urls(PathBuf::from(file)));
        }
        (None, Some(url), None) => http_url(report, &path.key("sitemap"), url),
        (None, None, count @ Some(_)) => {
            at_least_one(report, &path.key("hottest"), count);
            return count.map(WarmSource::Hottest);
        }
        _ if ["urls", "sitemap", "hottest"]
            .iter()
            .any(|key| report.is_broken(&path.key(key))) => {}
        _ => report.value(
            path,
            "must be one of urls, sitemap and hottest",
            "write each source by itself",
        ),
    }
    None
}
