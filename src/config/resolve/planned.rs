//! The rules of keys that nothing uses yet (see [`later`](crate::config::later)). What is typed for them is checked
//! all the same, so that a file written today is right on the day that they can be used.

use crate::config::diagnostic::KeyPath;
use crate::config::file::FileConfig;
use crate::config::report::Report;

pub fn check(file: &FileConfig, report: &mut Report) {
    let root = KeyPath::root();
    if let Some(tracing) = &file.tracing {
        let path = root.key("tracing").key("otlp");
        match &tracing.otlp {
            None => report.key(&path, "is missing", "like http://127.0.0.1:4318"),
            Some(url) => http_url(report, &path, url),
        }
    }
}

/// Reports that something works only with the second tier.
pub fn needs_redis(file: &FileConfig, report: &mut Report, path: &KeyPath) {
    let redis = KeyPath::root().key("cache").key("redis");
    let is_there = file.cache.as_ref().is_some_and(|cache| cache.redis.is_some());
    if !is_there && !report.is_broken(&redis) {
        report.value(path, "needs cache.redis", "");
    }
}

/// Reports a count of nothing.
pub(super) fn at_least_one(report: &mut Report, path: &KeyPath, count: Option<u32>) {
    if count == Some(0) {
        report.value(path, "must be at least 1", "");
    }
}

pub(super) fn http_url(report: &mut Report, path: &KeyPath, url: &str) {
    let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let authority = host.and_then(|rest| rest.split(['/', '?', '#']).next());
    if authority.and_then(crate::config::address::host_of_authority).is_none() {
        report.value(path, "must be a URL that begins with http:// or https://", "");
    }
}

pub(super) fn readable(report: &mut Report, path: &KeyPath, file: &str) {
    if let Err(error) = super::read_limited(std::path::Path::new(file)) {
        report.value(path, format!("must be a file that can be read ({})", error.kind()), "");
    }
}
