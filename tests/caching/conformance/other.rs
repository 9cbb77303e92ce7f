//! `Age`, `Date`, keys, `Authorization`, POST, interim responses and what else there is.

use super::script::{Case, check, fresh, get, optimal, required};

const MONTH: i64 = 30 * 24 * 60 * 60;

pub fn cases() -> Vec<Case> {
    [answers(), requests(), interim()].concat()
}

fn answers() -> Vec<Case> {
    let expiring = || get().says("Expires", MONTH).says("Date", 0).wait();
    vec![
        required("other-age-gen", [fresh().wait(), get().stored().older_than(2)]),
        check(
            "other-age-delay",
            [get().says("Cache-Control", "max-age=3600").says("Date", 0).takes(5)],
        ),
        required(
            "other-age-delay-stored",
            [
                get().says("Cache-Control", "max-age=3600").takes(5),
                get().stored().older_than(4),
            ],
        ),
        required(
            "other-age-update-expires",
            [expiring().says("Age", "30"), get().stored().older_than(32)],
        ),
        required(
            "other-age-update-max-age",
            [fresh().says("Age", "30").wait(), get().stored().older_than(32)],
        ),
        required(
            "other-date-update",
            [fresh().says("Date", 0).wait(), get().stored().shows("Date", 0)],
        ),
        required(
            "other-date-update-expires",
            [expiring(), get().stored().shows("Date", 0)],
        ),
        check(
            "other-date-update-expires-update",
            [expiring(), get().stored().shows("Expires", MONTH)],
        ),
        required("other-date-added", [fresh().wait(), get().stored().shows("Date", 0)]),
        check(
            "other-heuristic-content-disposition-attachment",
            [
                get()
                    .says("Last-Modified", -100_000)
                    .says("Date", 0)
                    .says("Content-Disposition", "attachment; filename=example.txt"),
                get().stored(),
            ],
        ),
        check(
            "other-fresh-content-disposition-attachment",
            [
                fresh().says("Content-Disposition", "attachment; filename=example.txt"),
                get().stored(),
            ],
        ),
        optimal("other-set-cookie", [fresh().says("Set-Cookie", "a=b"), get().fetched()]).otherwise(
            "a cookie is for the one client that gets it (RFC 9111 §7.3); a route may say set_cookie: strip",
        ),
        optimal("other-cookie", [fresh(), get().asks("Cookie", "a=b").stored()]),
    ]
}

fn requests() -> Vec<Case> {
    let authorized = || {
        get()
            .asks("Authorization", "FOO")
            .says("Date", 0)
            .origin_sees("Authorization", "FOO")
            .wait()
    };
    vec![
        required(
            "query-args-different",
            [fresh().to("?test=1"), get().to("?test=2").fetched()],
        ),
        optimal("query-args-same", [fresh().to("?test=1"), get().to("?test=1").stored()]),
        required(
            "other-authorization",
            [authorized().says("Expires", MONTH), get().fetched()],
        ),
        optimal(
            "other-authorization-public",
            [
                authorized().says("Cache-Control", "max-age=3600, public"),
                get().stored(),
            ],
        ),
        optimal(
            "other-authorization-must-revalidate",
            [
                authorized().says("Cache-Control", "max-age=3600, must-revalidate"),
                get().stored(),
            ],
        ),
        optimal(
            "other-authorization-smaxage",
            [authorized().says("Cache-Control", "s-maxage=3600"), get().stored()],
        ),
        optimal(
            "method-POST",
            [
                get()
                    .sending("POST")
                    .asks("Content-Type", "text/plain")
                    .says("Expires", MONTH)
                    .says("Content-Location", "/method-POST")
                    .says("Date", 0)
                    .wait(),
                get().stored(),
            ],
        ),
        required(
            "method-POST-elsewhere",
            [
                get()
                    .sending("POST")
                    .says("Cache-Control", "max-age=3600")
                    .says("Content-Location", "/elsewhere"),
                get().fetched(),
            ],
        ),
        required(
            "method-POST-not-reused-for-POST",
            [
                get()
                    .sending("POST")
                    .says("Cache-Control", "max-age=3600")
                    .says("Content-Location", "/method-POST-not-reused-for-POST"),
                get().sending("POST").fetched(),
            ],
        ),
    ]
}

fn interim() -> Vec<Case> {
    let dated = || get().says("Cache-Control", "max-age=100000").says("Date", 0);
    vec![
        optimal("interim-102", [dated().interim(102, &[]).wait(), get().stored()]),
        optimal(
            "interim-103",
            [
                dated()
                    .interim(
                        103,
                        &[
                            ("link", "</styles.css>; rel=preload; as=style"),
                            ("x-my-header", "test"),
                        ],
                    )
                    .wait(),
                get().stored(),
            ],
        ),
    ]
}
