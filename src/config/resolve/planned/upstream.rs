use super::{at_least_one, positive_text, status};
use crate::config::diagnostic::KeyPath;
use crate::config::file::{FileHealthCheck, FileUpstream};
use crate::config::report::Report;

pub fn check(typed: &FileUpstream, report: &mut Report, path: &KeyPath) {
    if let Some(check) = &typed.health_check {
        check_health(check, report, &path.key("health_check"));
    }
    if let Some(outlier) = &typed.outlier {
        let path = path.key("outlier");
        at_least_one(report, &path.key("consecutive_failures"), outlier.consecutive_failures);
        positive_text(report, &path.key("eject_for"), outlier.eject_for.as_ref());
    }
    if let Some(breaker) = &typed.circuit_breaker {
        let path = path.key("circuit_breaker");
        at_least_one(report, &path.key("failure_threshold"), breaker.failure_threshold);
        at_least_one(report, &path.key("success_threshold"), breaker.success_threshold);
        positive_text(report, &path.key("open_for"), breaker.open_for.as_ref());
    }
    check_retry(typed, report, &path.key("retry"));
}

fn check_health(typed: &FileHealthCheck, report: &mut Report, path: &KeyPath) {
    if let Some(target) = &typed.path
        && !(target.starts_with('/') && target.bytes().all(|b| b.is_ascii_graphic()))
    {
        report.value(&path.key("path"), "must be a path that begins with /", "");
    }
    if let Some(statuses) = &typed.expect_status {
        let path = path.key("expect_status");
        if statuses.0.is_empty() {
            report.value(&path, "must have at least one status", "");
        }
        for (path, code) in statuses.under(&path) {
            status(report, &path, *code);
        }
        if typed.path.is_none() && !report.is_broken(&path) {
            report.key(
                &path,
                "has no effect without a path",
                "a check without one asks for a connection only",
            );
        }
    }
    positive_text(report, &path.key("interval"), typed.interval.as_ref());
    positive_text(report, &path.key("timeout"), typed.timeout.as_ref());
    at_least_one(report, &path.key("unhealthy_threshold"), typed.unhealthy_threshold);
    at_least_one(report, &path.key("healthy_threshold"), typed.healthy_threshold);
}

/// More attempts than this for one request only keep an upstream down.
const MAX_RETRIES: u32 = 10;

fn check_retry(typed: &FileUpstream, report: &mut Report, path: &KeyPath) {
    let Some(typed) = &typed.retry else {
        return;
    };
    if !(1..=MAX_RETRIES).contains(&typed.retries.unwrap_or(1)) {
        report.value(
            &path.key("retries"),
            format!("must be from 1 to {MAX_RETRIES}"),
            "to never retry, remove retry",
        );
    }
    if !(1.0..=10.0).contains(&typed.factor.unwrap_or(1.0)) {
        report.value(&path.key("factor"), "must be from 1 to 10", "");
    }
    if let (Some(delay), Some(max_delay)) = (&typed.delay, &typed.max_delay)
        && delay.0 > max_delay.0
    {
        report.value(&path.key("max_delay"), "must not be less than delay", "");
    }
    if let Some(statuses) = &typed.statuses {
        for (path, code) in statuses.under(&path.key("statuses")) {
            if !(500..=599).contains(code) && *code != 429 {
                report.value(
                    &path,
                    "must be a status that another attempt may mend",
                    "429, or from 500 to 599",
                );
            }
        }
    }
}
