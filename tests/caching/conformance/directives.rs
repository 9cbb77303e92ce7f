//! Directives other than lifetimes: the origin's, the client's (which Forebay honours), and `Pragma`.

use super::script::{Case, Source, check, fresh, get, optimal, required};

pub fn cases() -> Vec<Case> {
    [origins(), clients(), pragma()].concat()
}

fn origins() -> Vec<Case> {
    let said = |value: &str| get().says("Cache-Control", value);
    let dated = |value: &str| said(value).says("Expires", 10000).says("Date", 0);
    let replaced = |value: &str| {
        [
            dated("max-age=10000").says("A", "1").wait(),
            said(value).says("Date", 0).says("A", "2").wait(),
            get().stored().shows("A", "1"),
        ]
    };
    vec![
        required(
            "cc-resp-private-shared",
            [said("private, max-age=3600"), get().fetched()],
        ),
        required("cc-resp-no-store", [said("no-store"), get().fetched()]),
        required("cc-resp-no-store-case-insensitive", [said("No-StOrE"), get().fetched()]),
        required(
            "cc-resp-no-store-fresh",
            [dated("max-age=10000, no-store"), get().fetched()],
        ),
        // Nothing asks for the second, so nobody hears of it.
        check("cc-resp-no-store-old-new", replaced("no-store")),
        check("cc-resp-no-store-old-max-age", replaced("no-store, max-age=0")),
        required("cc-resp-no-cache", [dated("max-age=10000, no-cache"), get().fetched()]),
        required(
            "cc-resp-no-cache-case-insensitive",
            [dated("max-age=10000, No-CaChE"), get().fetched()],
        ),
        optimal(
            "cc-resp-no-cache-revalidate",
            [
                said("no-cache").says("ETag", "\"abcd\""),
                get().from(Source::ConfirmedByTag),
            ],
        ),
        optimal(
            "cc-resp-no-cache-revalidate-fresh",
            [
                dated("max-age=10000, no-cache").says("ETag", "\"abcd\""),
                get().from(Source::ConfirmedByTag),
            ],
        ),
        check(
            "headers-omit-headers-listed-in-Cache-Control-no-cache-single",
            [
                said("no-cache=\"a\"")
                    .says("a", "1")
                    .says("b", "2")
                    .says("Cache-Control", "max-age=3600")
                    .says("Date", 0)
                    .wait(),
                get().stored().shows("b", "2").hides("a"),
            ],
        ),
        check(
            "headers-omit-headers-listed-in-Cache-Control-no-cache",
            [
                said("no-cache=\"a, b\"")
                    .says("a", "1")
                    .says("b", "2")
                    .says("c", "3")
                    .says("Cache-Control", "max-age=3600")
                    .says("Date", 0)
                    .wait(),
                get().stored().shows("c", "3").hides("a").hides("b"),
            ],
        ),
        check(
            "headers-omit-headers-listed-in-Cache-Control-private",
            [
                said("private=\"a\", max-age=3600").says("a", "1").says("b", "2"),
                get().stored().shows("b", "2").hides("a"),
            ],
        ),
        optimal(
            "cc-resp-must-revalidate-fresh",
            [
                said("max-age=10000, must-revalidate").says("ETag", "\"abcd\""),
                get().stored(),
            ],
        ),
        required(
            "cc-resp-must-revalidate-stale",
            [
                said("max-age=2, must-revalidate").says("ETag", "\"abcd\""),
                get().stored().wait(),
                get().from(Source::ConfirmedByTag),
            ],
        ),
        optimal(
            "cc-resp-immutable-fresh",
            [
                said("max-age=10000, immutable").says("ETag", "\"abcd\"").wait(),
                get().asks("Cache-Control", "max-age=0").stored(),
            ],
        ),
        required(
            "cc-resp-immutable-stale",
            [
                said("max-age=2, immutable").says("ETag", "\"abcd\"").wait(),
                get().asks("Cache-Control", "max-age=0").from(Source::ConfirmedByTag),
            ],
        ),
    ]
}

fn clients() -> Vec<Case> {
    let asking = |value: &str| get().asks("Cache-Control", value);
    let hour = || get().says("Cache-Control", "max-age=3600");
    vec![
        check("ccreq-ma0", [fresh().wait(), asking("max-age=0").fetched()]),
        check("ccreq-ma1", [fresh().wait(), asking("max-age=1").fetched()]),
        check(
            "ccreq-magreaterage",
            [hour().says("Age", "1800"), asking("max-age=600").fetched()],
        ),
        check(
            "ccreq-max-stale",
            [
                get().says("Cache-Control", "max-age=1").wait(),
                asking("max-stale=1000").stored(),
            ],
        ),
        // It came stale and without a validator: there was no use in storing it.
        check(
            "ccreq-max-stale-age",
            [
                get().says("Cache-Control", "max-age=1500").says("Age", "2000"),
                asking("max-stale=1000").stored(),
            ],
        ),
        check(
            "ccreq-min-fresh",
            [
                get().says("Cache-Control", "max-age=1500"),
                asking("min-fresh=2000").fetched(),
            ],
        ),
        check(
            "ccreq-min-fresh-age",
            [
                get().says("Cache-Control", "max-age=1500").says("Age", "1000"),
                asking("min-fresh=1000").fetched(),
            ],
        ),
        check("ccreq-no-cache", [hour(), asking("no-cache").fetched()]),
        check(
            "ccreq-no-cache-lm",
            [
                hour().says("Last-Modified", -10000).says("Date", 0),
                asking("no-cache").from(Source::ConfirmedByDate),
            ],
        ),
        check(
            "ccreq-no-cache-etag",
            [
                hour().says("ETag", "\"abc\""),
                asking("no-cache").from(Source::ConfirmedByTag),
            ],
        ),
        check("ccreq-no-store", [hour(), asking("no-store").fetched()]),
        check(
            "ccreq-oic",
            [asking("only-if-cached").from(Source::Nobody).gives(504).any_body()],
        ),
    ]
}

fn pragma() -> Vec<Case> {
    let hour = || get().says("Cache-Control", "max-age=3600");
    vec![
        check(
            "pragma-request-no-cache",
            [hour(), get().asks("Pragma", "no-cache").fetched()],
        ),
        check(
            "pragma-request-extension",
            [hour(), get().asks("Pragma", "unrecognised-extension").stored()],
        ),
        check(
            "pragma-response-no-cache",
            [hour().says("Pragma", "no-cache"), get().stored()],
        ),
        check(
            "pragma-response-no-cache-heuristic",
            [
                get().says("Last-Modified", -10000).says("Pragma", "no-cache"),
                // Where nothing else is said, it is taken at its word.
                get().from(Source::ConfirmedByDate),
            ],
        ),
        check(
            "pragma-response-extension",
            [hour().says("Pragma", "unrecognised-extension"), get().stored()],
        ),
    ]
}
