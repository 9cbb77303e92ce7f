//! `CDN-Cache-Control` (RFC 9213): a structured dictionary, which takes the place of the other two where it is valid.

use super::script::Kind::{self, Check, Optimal, Required};
use super::script::{Case, Step, case, get};

pub fn cases() -> Vec<Case> {
    let cdn = |value: &str| get().says("CDN-Cache-Control", value);
    let table: [(Kind, &str, Step, bool); 21] = [
        (Optimal, "cdn-max-age", cdn("max-age=3600"), true),
        (Optimal, "cdn-max-age-max", cdn("max-age=2147483648"), true),
        (Optimal, "cdn-max-age-max-plus", cdn("max-age=99999999999"), true),
        (
            Required,
            "cdn-max-age-age",
            cdn("max-age=3600").says("Date", 0).says("Age", "7200"),
            false,
        ),
        (
            Check,
            "cdn-max-age-space-before-equals",
            cdn("max-age =100").says("Cache-Control", "max-age=1"),
            false,
        ),
        (
            Check,
            "cdn-max-age-space-after-equals",
            cdn("max-age= 100").says("Cache-Control", "max-age=1"),
            false,
        ),
        (Required, "cdn-max-age-0", cdn("max-age=0"), false),
        (Optimal, "cdn-max-age-extension", cdn("foobar, max-age=3600"), true),
        // A dictionary's keys are lower case (RFC 9651 §3.2), so this one is invalid and ignored.
        (Check, "cdn-max-age-case-insensitive", cdn("MaX-aGe=3600"), false),
        (
            Optimal,
            "cdn-max-age-expires",
            cdn("max-age=3600").says("Expires", -10000).says("Date", 0),
            true,
        ),
        (
            Optimal,
            "cdn-max-age-cc-max-age-invalid-expires",
            cdn("max-age=3600").says("Expires", "0").says("Date", 0),
            true,
        ),
        (
            Required,
            "cdn-max-age-0-expires",
            cdn("max-age=0").says("Expires", 10000).says("Date", 0),
            false,
        ),
        (
            Optimal,
            "cdn-max-age-short-cc-max-age",
            cdn("max-age=3600").says("Cache-Control", "max-age=1"),
            true,
        ),
        (
            Required,
            "cdn-max-age-long-cc-max-age",
            cdn("max-age=1").says("Cache-Control", "max-age=3600"),
            false,
        ),
        (
            Required,
            "cdn-private",
            cdn("private")
                .says("Cache-Control", "max-age=10000")
                .says("Expires", 10000)
                .says("Date", 0),
            false,
        ),
        (
            Required,
            "cdn-no-cache",
            cdn("no-cache")
                .says("Cache-Control", "max-age=10000")
                .says("Expires", 10000)
                .says("Date", 0),
            false,
        ),
        (
            Required,
            "cdn-no-store-cc-fresh",
            cdn("no-store")
                .says("Cache-Control", "max-age=10000")
                .says("Expires", 10000)
                .says("Date", 0),
            false,
        ),
        (
            Required,
            "cdn-fresh-cc-nostore",
            cdn("max-age=10000").says("Cache-Control", "no-store"),
            true,
        ),
        (
            Required,
            "cdn-cc-invalid-sh-type-unknown",
            cdn("max-age=10000, &&&&&").says("Cache-Control", "no-store"),
            false,
        ),
        (
            Required,
            "cdn-cc-invalid-sh-type-wrong",
            cdn("max-age=\"10000\"").says("Cache-Control", "no-store"),
            false,
        ),
        (
            Check,
            "cdn-remove-header",
            cdn("foo").says("Cache-Control", "max-age=10000"),
            false,
        ),
    ];
    let cases = table.into_iter().map(|(kind, id, first, reused)| {
        let second = if reused { get().stored() } else { get().fetched() };
        case(kind, id, [first.wait(), second])
    });
    cases.collect()
}
