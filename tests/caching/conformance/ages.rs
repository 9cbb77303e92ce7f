//! `Age` as it is read (RFC 9111 §5.1): the first member of the first line; what is no number is ignored.

use super::script::Kind::{self, Check, Required};
use super::script::{Case, case, get};

pub fn cases() -> Vec<Case> {
    let table: [(Kind, &str, &[&str], &str, bool); 16] = [
        (Required, "age-parse-nonnumeric", &["abc"], "max-age=3600", true),
        (Required, "age-parse-negative", &["-7200"], "max-age=3600", true),
        (Required, "age-parse-float", &["7200.0"], "max-age=3600", true),
        (
            Required,
            "age-parse-large-minus-one",
            &["2147483647"],
            "max-age=3600",
            false,
        ),
        (Required, "age-parse-large", &["2147483648"], "max-age=3600", false),
        (Required, "age-parse-larger", &["2147483649"], "max-age=3600", false),
        (Required, "age-parse-suffix", &["7200, 0"], "max-age=3600", false),
        (Required, "age-parse-prefix", &["0, 7200"], "max-age=3600", true),
        (
            Required,
            "age-parse-suffix-twoline",
            &["7200", "0"],
            "max-age=3600",
            false,
        ),
        (
            Required,
            "age-parse-prefix-twoline",
            &["0", "7200"],
            "max-age=3600",
            true,
        ),
        (Required, "age-parse-dup-0", &["0, 0"], "max-age=3600", true),
        (Required, "age-parse-dup-0-twoline", &["0", "0"], "max-age=3600", true),
        (Required, "age-parse-dup-old", &["3600", "3600"], "max-age=10000", true),
        (
            Check,
            "age-parse-huge",
            &["99999999999999999999999"],
            "max-age=3600",
            false,
        ),
        (Check, "age-parse-parameter", &["7200;foo=bar"], "max-age=3600", false),
        (
            Check,
            "age-parse-numeric-parameter",
            &["7200;foo=111"],
            "max-age=3600",
            false,
        ),
    ];
    let cases = table.into_iter().map(|(kind, id, ages, cache_control, reused)| {
        let first = get().says("Date", 0).says("Cache-Control", cache_control);
        let first = ages.iter().fold(first, |step, age| step.mentions("Age", *age)).wait();
        let second = if reused { get().stored() } else { get().fetched() };
        case(kind, id, [first, second])
    });
    cases.collect()
}
