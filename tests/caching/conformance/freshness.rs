//! Freshness lifetimes: `Cache-Control`, `Expires` and the heuristic (RFC 9111 §4.2).

use super::script::Kind::{self, Check, Optimal, Required};
use super::script::{Case, Step, case, check, get, optimal, required, soon_stale};

/// Three seconds after it came, is a response with this `Cache-Control` reused?
enum Then {
    Reused,
    Fetched,
}

use Then::{Fetched, Reused};

pub fn cases() -> Vec<Case> {
    [cache_control(), spelling(), expires(), dates(), heuristic()].concat()
}

fn later(first: Step, then: &Then) -> [Step; 2] {
    let second = match then {
        Reused => get().stored(),
        Fetched => get().fetched(),
    };
    [first.wait(), second]
}

fn cache_control() -> Vec<Case> {
    let table: [(Kind, &str, &[&str], Then); 17] = [
        (Optimal, "freshness-max-age", &["max-age=3600"], Reused),
        (Required, "freshness-max-age-0", &["max-age=0"], Fetched),
        (
            Optimal,
            "freshness-max-age-max-minus-1",
            &["max-age=2147483647"],
            Reused,
        ),
        (Optimal, "freshness-max-age-max", &["max-age=2147483648"], Reused),
        (Optimal, "freshness-max-age-max-plus-1", &["max-age=2147483649"], Reused),
        (Optimal, "freshness-max-age-max-plus", &["max-age=99999999999"], Reused),
        (
            Optimal,
            "freshness-max-age-extension",
            &["foobar, max-age=3600"],
            Reused,
        ),
        (Optimal, "freshness-max-age-case-insenstive", &["MaX-aGe=3600"], Reused),
        (Required, "freshness-max-age-negative", &["max-age=-3600"], Fetched),
        (Optimal, "freshness-s-maxage-shared", &["s-maxage=3600"], Reused),
        (
            Required,
            "freshness-max-age-s-maxage-shared-longer",
            &["max-age=3600, s-maxage=1"],
            Fetched,
        ),
        (
            Required,
            "freshness-max-age-s-maxage-shared-longer-reversed",
            &["s-maxage=1, max-age=3600"],
            Fetched,
        ),
        (
            Required,
            "freshness-max-age-s-maxage-shared-longer-multiple",
            &["max-age=3600", "s-maxage=1"],
            Fetched,
        ),
        (
            Optimal,
            "freshness-max-age-s-maxage-shared-shorter",
            &["max-age=1, s-maxage=3600"],
            Reused,
        ),
        (
            Required,
            "freshness-max-age-ignore-quoted",
            &["extension=\"max-age=3600\", max-age=1"],
            Fetched,
        ),
        (
            Required,
            "freshness-max-age-ignore-quoted-rev",
            &["max-age=1, extension=\"max-age=3600\""],
            Fetched,
        ),
        (
            Required,
            "freshness-max-age-single-quoted",
            &["max-age='3600'"],
            Fetched,
        ),
    ];
    let mut cases: Vec<_> = table
        .into_iter()
        .map(|(kind, id, lines, then)| {
            let first = lines.iter().fold(get(), |step, line| step.says("Cache-Control", *line));
            case(kind, id, later(first, &then))
        })
        .collect();
    cases.extend([
        check("freshness-none", later(get(), &Fetched)),
        required("freshness-max-age-stale", [soon_stale(), get().fetched()]),
        required(
            "freshness-max-age-age",
            later(
                get()
                    .says("Date", 0)
                    .says("Cache-Control", "max-age=3600")
                    .says("Age", "7200"),
                &Fetched,
            ),
        ),
        check(
            "freshness-max-age-date",
            later(
                get().says("Date", -7200).says("Cache-Control", "max-age=3600"),
                &Fetched,
            ),
        ),
        optimal(
            "freshness-max-age-expires",
            later(
                get()
                    .says("Cache-Control", "max-age=3600")
                    .says("Expires", -7200)
                    .says("Date", 0),
                &Reused,
            ),
        ),
        optimal(
            "freshness-max-age-expires-invalid",
            later(
                get()
                    .says("Cache-Control", "max-age=3600")
                    .says("Expires", "0")
                    .says("Date", 0),
                &Reused,
            ),
        ),
        required(
            "freshness-max-age-0-expires",
            later(
                get()
                    .says("Expires", 3600)
                    .says("Cache-Control", "max-age=0")
                    .says("Date", 0),
                &Fetched,
            ),
        ),
        optimal(
            "freshness-max-age-s-maxage-shared-shorter-expires",
            later(
                get()
                    .says("Expires", -10)
                    .says("Cache-Control", "max-age=0, s-maxage=3600"),
                &Reused,
            ),
        ),
    ]);
    cases
}

/// What is not clear counts for the shorter lifetime (RFC 9111 §4.2.1).
fn spelling() -> Vec<Case> {
    let table: [(Kind, &str, &[&str], Then); 12] = [
        (
            Check,
            "freshness-max-age-two-fresh-stale-sameline",
            &["max-age=1800, max-age=1"],
            Fetched,
        ),
        (
            Check,
            "freshness-max-age-two-fresh-stale-sepline",
            &["max-age=1800", "max-age=1"],
            Fetched,
        ),
        (
            Check,
            "freshness-max-age-two-stale-fresh-sameline",
            &["max-age=1, max-age=1800"],
            Fetched,
        ),
        (
            Check,
            "freshness-max-age-two-stale-fresh-sepline",
            &["max-age=1", "max-age=1800"],
            Fetched,
        ),
        (Check, "freshness-max-age-quoted", &["max-age=\"3600\""], Reused),
        (
            Check,
            "freshness-max-age-space-before-equals",
            &["max-age =3600"],
            Fetched,
        ),
        (
            Check,
            "freshness-max-age-space-after-equals",
            &["max-age= 3600"],
            Fetched,
        ),
        (Required, "freshness-max-age-leading-zero", &["max-age=003600"], Reused),
        (Check, "freshness-max-age-decimal-zero", &["max-age=3600.0"], Fetched),
        (Check, "freshness-max-age-decimal-five", &["max-age=3600.5"], Fetched),
        (Check, "freshness-max-age-a100", &["max-age=a3600"], Fetched),
        (Check, "freshness-max-age-100a", &["max-age=3600a"], Fetched),
    ];
    let cases = table.into_iter().map(|(kind, id, lines, then)| {
        let first = lines.iter().fold(get(), |step, line| step.says("Cache-Control", *line));
        case(kind, id, later(first, &then))
    });
    cases.collect()
}

fn expires() -> Vec<Case> {
    const MONTH: i64 = 30 * 24 * 60 * 60;
    vec![
        optimal(
            "freshness-expires-future",
            later(get().says("Expires", MONTH).says("Date", 0), &Reused),
        ),
        required(
            "freshness-expires-past",
            later(get().says("Expires", -MONTH).says("Date", 0), &Fetched),
        ),
        required(
            "freshness-expires-present",
            [get().says("Expires", 0).says("Date", 0), get().fetched()],
        ),
        required(
            "freshness-expires-old-date",
            later(get().says("Expires", 300).says("Date", 400), &Fetched),
        ),
        required(
            "freshness-expires-invalid",
            later(get().says("Expires", "0").says("Date", 0), &Fetched),
        ),
        optimal(
            "freshness-expires-invalid-date",
            [get().mentions("Date", "foo").says("Expires", 10), get().stored()],
        ),
        required(
            "freshness-expires-age-slow-date",
            [
                get().says("Date", -10).says("Expires", 10).says("Age", "25"),
                get().fetched(),
            ],
        ),
        required(
            "freshness-expires-age-fast-date",
            [
                get().says("Date", 10).says("Expires", 20).says("Age", "15"),
                get().fetched(),
            ],
        ),
    ]
}

/// What can be read without doubt is read; everything else lies in the past (RFC 9111 §5.3).
fn dates() -> Vec<Case> {
    let table = [
        (
            "freshness-expires-wrong-case-weekday",
            "THU, 18 Aug 2050 02:01:18 GMT",
            Reused,
        ),
        (
            "freshness-expires-wrong-case-month",
            "Thu, 18 AUG 2050 02:01:18 GMT",
            Reused,
        ),
        (
            "freshness-expires-wrong-case-tz",
            "Thu, 18 Aug 2050 02:01:18 gMT",
            Reused,
        ),
        (
            "freshness-expires-invalid-utc",
            "Thu, 18 Aug 2050 02:01:18 UTC",
            Fetched,
        ),
        (
            "freshness-expires-invalid-aest",
            "Thu, 18 Aug 2050 02:01:18 AEST",
            Fetched,
        ),
        (
            "freshness-expires-invalid-2-digit-year",
            "Thu, 18 Aug 50 02:01:18 GMT",
            Fetched,
        ),
        (
            "freshness-expires-invalid-no-comma",
            "Thu 18 Aug 2050 02:01:18 GMT",
            Fetched,
        ),
        (
            "freshness-expires-invalid-multiple-spaces",
            "Thu, 18  Aug  2050 02:01:18 GMT",
            Fetched,
        ),
        (
            "freshness-expires-invalid-date-dashes",
            "Thu, 18-Aug-2050 02:01:18 GMT",
            Fetched,
        ),
        (
            "freshness-expires-invalid-time-periods",
            "Thu, 18 Aug 2050 02.01.18 GMT",
            Fetched,
        ),
        (
            "freshness-expires-invalid-1-digit-hour",
            "Thu, 18 Aug 2050 2:01:18 GMT",
            Fetched,
        ),
        ("freshness-expires-rfc850", "Thursday, 18-Aug-50 02:01:18 GMT", Reused),
        ("freshness-expires-ansi-c", "Thu Aug 18 02:01:18 2050", Reused),
    ];
    let cases = table
        .into_iter()
        .map(|(id, expires, then)| check(id, later(get().says("Expires", expires).says("Date", 0), &then)));
    cases.collect()
}

/// A tenth of the time since the last modification, at most a minute (RFC 9111 §4.2.2), and only where the status or
/// `public` allows it.
fn heuristic() -> Vec<Case> {
    const DAY: i64 = 24 * 60 * 60;
    let mut cases = Vec::new();
    let statuses = [
        (200, Reused),
        (201, Fetched),
        (202, Fetched),
        (203, Reused),
        (204, Reused),
        (403, Fetched),
        (404, Reused),
        (405, Reused),
        (410, Reused),
        (414, Reused),
        (501, Reused),
        (502, Fetched),
        (503, Fetched),
        (504, Fetched),
        (599, Fetched),
    ];
    for (status, then) in statuses {
        let first = get().status(status).says("Last-Modified", -DAY).says("Date", 0);
        cases.push(match then {
            Reused => optimal(
                format!("heuristic-{status}-cached"),
                [first, get().stored().gives(status)],
            ),
            Fetched => required(
                format!("heuristic-{status}-not_cached"),
                [first, get().status(status).fetched()],
            ),
        });
    }
    let public = get()
        .status(599)
        .says("Last-Modified", -DAY)
        .says("Date", 0)
        .says("Cache-Control", "public");
    cases.push(optimal("heuristic-599-cached", [public, get().stored().gives(599)]));
    // Three seconds later, so that it takes half a minute to be fresh so long.
    for ago in [5, 10, 30, 60, 300, 600, 1200, 1800, 3600, 12 * 3600, DAY] {
        let then = if ago > 30 { Reused } else { Fetched };
        let first = get().says("Last-Modified", -ago).says("Date", 0);
        cases.push(check(format!("heuristic-delta-{ago}"), later(first, &then)));
    }
    cases
}
