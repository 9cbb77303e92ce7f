//! Conditions of clients, and Forebay's own (RFC 9111 §4.3).

use super::script::{Case, Source, Step, Value, check, fresh, get, optimal, required, soon_stale};

pub fn cases() -> Vec<Case> {
    [tags_of_clients(), tags_of_ours(), dates()].concat()
}

fn tagged(tag: &str) -> Step {
    fresh().says("ETag", tag).wait()
}

fn if_none_match(tags: &str) -> Step {
    get().asks("If-None-Match", tags)
}

fn tags_of_clients() -> Vec<Case> {
    const TAG: &str = "\"abcdef\"";
    let not_modified = |step: Step| step.stored().gives(304);
    let sent = |step: Step| step.stored().gives(200);
    vec![
        optimal(
            "conditional-etag-strong-respond",
            [tagged(TAG), not_modified(if_none_match(TAG))],
        ),
        required(
            "conditional-304-etag",
            [tagged(TAG), not_modified(if_none_match(TAG)).shows("ETag", TAG)],
        ),
        required(
            "conditional-etag-precedence",
            [
                tagged(TAG).says("Last-Modified", -5000),
                not_modified(if_none_match(TAG).asks("If-Modified-Since", -10000)),
            ],
        ),
        required(
            "conditional-etag-precedence-other",
            [
                tagged(TAG).says("Last-Modified", -5000),
                sent(if_none_match("\"other\"").asks("If-Modified-Since", -1)),
            ],
        ),
        check(
            "conditional-etag-strong-respond-obs-text",
            [
                tagged("\"abcdefü\""),
                not_modified(if_none_match("\"abcdefü\"")).shows("ETag", "\"abcdefü\""),
            ],
        ),
        check(
            "conditional-etag-quoted-respond-unquoted",
            [tagged(TAG), sent(if_none_match("abcdef"))],
        ),
        // Not entity tags by RFC 9110 §8.8.3, but the same bytes.
        check(
            "conditional-etag-unquoted-respond-unquoted",
            [tagged("abcdef"), not_modified(if_none_match("abcdef"))],
        ),
        check(
            "conditional-etag-unquoted-respond-quoted",
            [tagged("abcdef"), sent(if_none_match(TAG))],
        ),
        optimal(
            "conditional-etag-weak-respond",
            [tagged("W/\"abcdef\""), not_modified(if_none_match("W/\"abcdef\""))],
        ),
        optimal(
            "conditional-etag-weak-respond-strong",
            [tagged("W/\"abcdef\""), not_modified(if_none_match(TAG))],
        ),
        check(
            "conditional-etag-weak-respond-lowercase",
            [tagged("w/\"abcdef\""), not_modified(if_none_match("w/\"abcdef\""))],
        ),
        check(
            "conditional-etag-weak-respond-backslash",
            [tagged("W\\\"abcdef\""), not_modified(if_none_match("W\\\"abcdef\""))],
        ),
        check(
            "conditional-etag-weak-respond-omit-slash",
            [tagged("W\"abcdef\""), not_modified(if_none_match("W\"abcdef\""))],
        ),
        optimal(
            "conditional-etag-strong-respond-multiple-first",
            [
                tagged(TAG),
                not_modified(if_none_match("\"abcdef\", \"1234\", \"5678\"")),
            ],
        ),
        optimal(
            "conditional-etag-strong-respond-multiple-second",
            [
                tagged(TAG),
                not_modified(if_none_match("\"1234\", \"abcdef\", \"5678\"")),
            ],
        ),
        optimal(
            "conditional-etag-strong-respond-multiple-last",
            [
                tagged(TAG),
                not_modified(if_none_match("\"1234\", \"5678\", \"abcdef\"")),
            ],
        ),
        optimal("conditional-etag-star", [tagged(TAG), not_modified(if_none_match("*"))]),
        check(
            "conditional-etag-forward",
            [if_none_match(TAG).origin_sees("If-None-Match", TAG)],
        ),
        check(
            "conditional-etag-forward-unquoted",
            [if_none_match("abcdef").origin_sees("If-None-Match", "abcdef")],
        ),
    ]
}

fn tags_of_ours() -> Vec<Case> {
    const TAG: &str = "\"abcdef\"";
    let confirmed = |step: Step| step.from(Source::ConfirmedByTag);
    vec![
        required(
            "conditional-etag-vary-headers",
            [
                get()
                    .asks("Abc", "123")
                    .says("Expires", 1)
                    .says("ETag", TAG)
                    .says("Date", 0)
                    .says("Vary", "Abc")
                    .wait(),
                confirmed(get().asks("Abc", "123")).origin_sees("Abc", "123"),
            ],
        ),
        // All variants are offered: one of them may be what the origin would choose (RFC 9111 §4.3.1).
        check(
            "conditional-etag-vary-headers-mismatch",
            [
                get()
                    .asks("Abc", "123")
                    .says("Expires", 10000)
                    .says("ETag", TAG)
                    .says("Date", 0)
                    .says("Vary", "Abc")
                    .wait(),
                get().asks("Abc", "456").origin_sees("If-None-Match", TAG).fetched(),
            ],
        ),
        optimal(
            "conditional-etag-strong-generate",
            [
                soon_stale().says("ETag", TAG),
                confirmed(get()).origin_sees("If-None-Match", TAG),
            ],
        ),
        optimal(
            "conditional-etag-weak-generate-weak",
            [
                soon_stale().says("ETag", "W/\"abcdef\""),
                confirmed(get()).origin_sees("If-None-Match", "W/\"abcdef\""),
            ],
        ),
        check(
            "conditional-etag-strong-generate-unquoted",
            [
                soon_stale().says("ETag", "abcdef"),
                confirmed(get()).origin_sees("If-None-Match", "abcdef"),
            ],
        ),
        required(
            "conditional-etag-own-beside-clients",
            [
                soon_stale().says("ETag", TAG),
                confirmed(get().asks("If-None-Match", "\"other\""))
                    .origin_sees("If-None-Match", TAG)
                    .gives(200),
            ],
        ),
    ]
}

fn dates() -> Vec<Case> {
    let modified = || {
        get()
            .says("Cache-Control", "max-age=100000")
            .says("Last-Modified", -3000)
            .says("Date", 0)
            .wait()
    };
    let since = |value: Value| get().asks("If-Modified-Since", value);
    vec![
        optimal(
            "conditional-lm-fresh",
            [modified(), since(Value::Date(-3000)).stored().gives(304)],
        ),
        optimal(
            "conditional-lm-fresh-earlier",
            [modified(), since(Value::Date(-2000)).stored().gives(304)],
        ),
        required(
            "conditional-lm-fresh-later",
            [modified(), since(Value::Date(-4000)).stored().gives(200)],
        ),
        optimal(
            "conditional-lm-stale",
            [
                get()
                    .says("Cache-Control", "max-age=2")
                    .says("Last-Modified", -3000)
                    .says("Date", 0)
                    .wait(),
                since(Value::Date(-3000)).from(Source::ConfirmedByDate).gives(304),
            ],
        ),
        optimal(
            "conditional-lm-fresh-no-lm",
            [
                get().says("Cache-Control", "max-age=10000").says("Date", 0).wait(),
                since(Value::Date(-3000)).stored().gives(200),
            ],
        )
        .otherwise(
            "RFC 9111 §4.3.2: without Last-Modified it is Date that the condition is compared with, and this Date is later",
        ),
        optimal(
            "conditional-lm-fresh-no-lm-later",
            [
                get().says("Cache-Control", "max-age=10000").says("Date", 0).wait(),
                since(Value::Date(1)).stored().gives(304),
            ],
        ),
        optimal(
            "conditional-lm-fresh-rfc850",
            [modified(), since(Value::OldDate(-3000)).stored().gives(304)],
        ),
        required(
            "conditional-lm-unreadable",
            [modified(), since("yesterday".into()).stored().gives(200)],
        ),
    ]
}
