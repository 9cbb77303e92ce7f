//! What is done about servers and upstreams that fail.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::positive;
use crate::config::address::host_of_authority;
use crate::config::diagnostic::KeyPath;
use crate::config::file::scalar::DurationText;
use crate::config::file::{FileCircuitBreaker, FileHealthCheck, FileOutlier, FileRetry};
use crate::config::report::Report;
use crate::config::{HealthCheck, HttpQuestion, Question, Retry, Timeouts, Unchecked, defaults};
use crate::upstream::breaker::BreakerPolicy;
use crate::upstream::outlier::OutlierPolicy;
use crate::upstream::retry::{HELD_BODY, RetryPolicy};

/// More attempts than this for one request only keep an upstream down.
const MAX_RETRIES: u32 = 10;

/// Beyond this (bytes) bodies of many requests at once would be too much to hold.
const MAX_HELD_BODY: u64 = 16 << 20;

pub fn health_check(typed: &FileHealthCheck, report: &mut Report, path: &KeyPath) -> HealthCheck {
    let question = match &typed.path {
        Some(target) => http_question(typed, target, report, path),
        None => {
            without_path(typed, report, path);
            Question::Connection
        }
    };
    HealthCheck {
        question,
        interval: time(
            report,
            &path.key("interval"),
            typed.interval.as_ref(),
            defaults::CHECK_INTERVAL,
        ),
        timeout: time(
            report,
            &path.key("timeout"),
            typed.timeout.as_ref(),
            defaults::CHECK_TIMEOUT,
        ),
        unhealthy_threshold: count(
            report,
            &path.key("unhealthy_threshold"),
            typed.unhealthy_threshold,
            defaults::UNHEALTHY_THRESHOLD,
        ),
        healthy_threshold: count(
            report,
            &path.key("healthy_threshold"),
            typed.healthy_threshold,
            defaults::HEALTHY_THRESHOLD,
        ),
        unchecked: match typed.allow_unchecked {
            None | Some(true) => Unchecked::Use,
            Some(false) => Unchecked::LeaveOut,
        },
    }
}

fn http_question(typed: &FileHealthCheck, target: &str, report: &mut Report, path: &KeyPath) -> Question {
    if !(target.starts_with('/') && target.bytes().all(|b| b.is_ascii_graphic() && b != b'#')) {
        report.value(&path.key("path"), "must be a path that begins with /", "");
    }
    if let Some(host) = &typed.host
        && host_of_authority(host).is_none()
    {
        report.value(&path.key("host"), "must be a name to send as Host", "like app.internal");
    }
    if typed.expect_body.as_deref() == Some("") {
        report.value(&path.key("expect_body"), "must not be empty", "");
    }
    Question::Http(HttpQuestion {
        path: target.to_owned(),
        host: typed.host.clone(),
        expect_status: statuses(typed, report, &path.key("expect_status")),
        expect_body: typed.expect_body.clone(),
    })
}

fn statuses(typed: &FileHealthCheck, report: &mut Report, path: &KeyPath) -> Vec<RangeInclusive<u16>> {
    let Some(statuses) = &typed.expect_status else {
        return vec![defaults::EXPECT_STATUS..=defaults::EXPECT_STATUS];
    };
    if statuses.0.is_empty() {
        report.value(path, "must have at least one status", "");
    }
    statuses.under(path).map(|(_, statuses)| statuses.0.clone()).collect()
}

/// Reports what asks for an answer, where only a connection is asked for.
fn without_path(typed: &FileHealthCheck, report: &mut Report, path: &KeyPath) {
    let idle = [
        ("host", typed.host.is_some()),
        ("expect_status", typed.expect_status.is_some()),
        ("expect_body", typed.expect_body.is_some()),
    ];
    for (key, is_there) in idle {
        let path = path.key(key);
        if is_there && !report.is_broken(&path) {
            report.key(
                &path,
                "has no effect without a path",
                "a check without one asks for a connection only",
            );
        }
    }
}

pub fn outlier(typed: &FileOutlier, report: &mut Report, path: &KeyPath) -> OutlierPolicy {
    let eject_for = time(
        report,
        &path.key("eject_for"),
        typed.eject_for.as_ref(),
        defaults::EJECT_FOR,
    );
    let max_eject_for = match &typed.max_eject_for {
        None => defaults::MAX_EJECT_FOR.max(eject_for),
        Some(typed) => {
            if typed.0 < eject_for {
                report.value(&path.key("max_eject_for"), "must not be less than eject_for", "");
            }
            typed.0
        }
    };
    OutlierPolicy {
        consecutive_failures: count(
            report,
            &path.key("consecutive_failures"),
            typed.consecutive_failures,
            defaults::CONSECUTIVE_FAILURES,
        ),
        eject_for,
        max_eject_for,
        max_ejected: typed
            .max_ejected
            .as_ref()
            .map_or(defaults::MAX_EJECTED, |share| share.0),
    }
}

pub fn circuit_breaker(typed: &FileCircuitBreaker, report: &mut Report, path: &KeyPath) -> BreakerPolicy {
    let failure_share = typed.failure_share.as_ref().map(|share| share.0);
    if failure_share == Some(0.0) {
        report.value(
            &path.key("failure_share"),
            "must be greater than 0%",
            "with 100% only failures in a row count",
        );
    }
    BreakerPolicy {
        failure_threshold: count(
            report,
            &path.key("failure_threshold"),
            typed.failure_threshold,
            defaults::FAILURE_THRESHOLD,
        ),
        failure_share: failure_share.unwrap_or(defaults::FAILURE_SHARE),
        window: time(
            report,
            &path.key("window"),
            typed.window.as_ref(),
            defaults::BREAKER_WINDOW,
        ),
        min_requests: count(
            report,
            &path.key("min_requests"),
            typed.min_requests,
            defaults::MIN_REQUESTS,
        ),
        success_threshold: count(
            report,
            &path.key("success_threshold"),
            typed.success_threshold,
            defaults::SUCCESS_THRESHOLD,
        ),
        open_for: time(
            report,
            &path.key("open_for"),
            typed.open_for.as_ref(),
            defaults::OPEN_FOR,
        ),
    }
}

pub fn retry(typed: &FileRetry, timeouts: &Timeouts, report: &mut Report, path: &KeyPath) -> Retry {
    let retries = typed.retries.unwrap_or(defaults::RETRIES);
    if !(1..=MAX_RETRIES).contains(&retries) {
        report.value(
            &path.key("retries"),
            format!("must be from 1 to {MAX_RETRIES}"),
            "to never retry, remove retry",
        );
    }
    let factor = typed.factor.unwrap_or(defaults::RETRY_FACTOR);
    if !(1.0..=10.0).contains(&factor) {
        report.value(&path.key("factor"), "must be from 1 to 10", "");
    }
    let delay = typed.delay.as_ref().map_or(defaults::RETRY_DELAY, |delay| delay.0);
    let max_delay = match &typed.max_delay {
        None => defaults::MAX_RETRY_DELAY.max(delay),
        Some(typed) => {
            if typed.0 < delay {
                report.value(&path.key("max_delay"), "must not be less than delay", "");
            }
            typed.0
        }
    };
    let statuses = match &typed.statuses {
        None => defaults::RETRY_STATUSES.to_vec(),
        Some(statuses) => {
            for (path, code) in statuses.under(&path.key("statuses")) {
                if !(500..=599).contains(code) && *code != 429 {
                    report.value(
                        &path,
                        "must be a status that another attempt may mend",
                        "429, or from 500 to 599",
                    );
                }
            }
            statuses.0.iter().flatten().copied().collect()
        }
    };
    let max_body = typed.max_body.as_ref().map_or(HELD_BODY as u64, |size| size.0);
    if max_body > MAX_HELD_BODY {
        report.value(
            &path.key("max_body"),
            "must be at most 16MiB",
            "bodies are held in memory",
        );
    }
    Retry {
        policy: RetryPolicy {
            retries,
            delay,
            max_delay,
            factor,
            budget: typed.budget.as_ref().map_or(defaults::RETRY_BUDGET, |share| share.0),
            statuses,
            max_time: match &typed.max_time {
                // One attempt that was too slow, and another one in its place.
                None => timeouts.first_byte.map_or(defaults::RETRY_MAX_TIME, |time| 2 * time),
                Some(typed) => {
                    positive(report, &path.key("max_time"), Some(typed.0));
                    typed.0
                }
            },
        },
        max_body: usize::try_from(max_body).unwrap_or(usize::MAX),
    }
}

fn time(report: &mut Report, path: &KeyPath, typed: Option<&DurationText>, default: Duration) -> Duration {
    let typed = typed.map(|typed| typed.0);
    positive(report, path, typed);
    typed.unwrap_or(default)
}

fn count(report: &mut Report, path: &KeyPath, typed: Option<u32>, default: u32) -> u32 {
    if typed == Some(0) {
        report.value(path, "must be at least 1", "");
    }
    typed.unwrap_or(default)
}
