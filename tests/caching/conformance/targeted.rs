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

/// The same with `Surrogate-Control`, where that is a targeted field.
pub fn surrogate_cases() -> Vec<Case> {
    let said = |value: &str| get().says("Surrogate-Control", value);
    let table: [(Kind, &str, Step, bool); 18] = [
        (Optimal, "surrogate-max-age", said("max-age=3600"), true),
        (Optimal, "surrogate-max-age-max", said("max-age=2147483648"), true),
        (Optimal, "surrogate-max-age-max-plus", said("max-age=99999999999"), true),
        (
            Required,
            "surrogate-max-age-other-target",
            said("max-age=3600;not-for-you").says("Date", 0).says("Age", "7200"),
            false,
        ),
        (
            Required,
            "surrogate-max-age-age",
            said("max-age=3600").says("Date", 0).says("Age", "7200"),
            false,
        ),
        (
            Check,
            "surrogate-max-age-space-before-equals",
            said("max-age =100").says("Cache-Control", "max-age=1"),
            false,
        ),
        (
            Check,
            "surrogate-max-age-space-after-equals",
            said("max-age= 100").says("Cache-Control", "max-age=1"),
            false,
        ),
        (Required, "surrogate-max-age-0", said("max-age=0"), false),
        (
            Optimal,
            "surrogate-max-age-extension",
            said("foobar, max-age=3600"),
            true,
        ),
        (
            Optimal,
            "surrogate-max-age-case-insensitive",
            said("MaX-aGe=3600"),
            false,
        ),
        (
            Optimal,
            "surrogate-max-age-expires",
            said("max-age=3600").says("Expires", -10000).says("Date", 0),
            true,
        ),
        (
            Optimal,
            "surrogate-max-age-cc-max-age-invalid-expires",
            said("max-age=3600").says("Expires", "0").says("Date", 0),
            true,
        ),
        (
            Required,
            "surrogate-max-age-0-expires",
            said("max-age=0").says("Expires", 10000).says("Date", 0),
            false,
        ),
        (
            Optimal,
            "surrogate-max-age-short-cc-max-age",
            said("max-age=3600").says("Cache-Control", "max-age=1"),
            true,
        ),
        (
            Required,
            "surrogate-max-age-long-cc-max-age",
            said("max-age=1").says("Cache-Control", "max-age=3600"),
            false,
        ),
        (Required, "surrogate-no-store", said("no-store"), false),
        (
            Required,
            "surrogate-no-store-cc-fresh",
            said("no-store")
                .says("Cache-Control", "max-age=10000")
                .says("Expires", 10000)
                .says("Date", 0),
            false,
        ),
        (
            Required,
            "surrogate-fresh-cc-nostore",
            said("max-age=10000").says("Cache-Control", "no-store"),
            true,
        ),
    ];
    let cases = table.into_iter().map(|(kind, id, first, reused)| {
        let second = if reused { get().stored() } else { get().fetched() };
        let case = case(kind, id, [first.wait(), second]);
        match id {
            "surrogate-max-age-case-insensitive" => {
                case.otherwise("RFC 9651 §3.2: a dictionary's keys are lower case, so this one is invalid and ignored")
            }
            _ => case,
        }
    });
    cases.collect()
}
