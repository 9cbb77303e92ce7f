//! Stale responses (RFC 9111 §4.2.4, RFC 5861).

use super::script::{Case, Source, Step, check, get, optimal, required, soon_stale};

pub fn cases() -> Vec<Case> {
    let said = |value: &str| get().says("Cache-Control", value);
    let refused = |step: Step| step.from(Source::Nobody).gives(502).any_body();
    let mut cases = vec![
        // Without a grant of the origin's or the route's nothing stale is served.
        check("stale-close", [soon_stale(), refused(get().cut())]),
        check("stale-503", [soon_stale(), get().status(503).fetched()]),
        optimal(
            "stale-while-revalidate",
            [
                said("max-age=1, stale-while-revalidate=3600")
                    .says("ETag", "\"abc\"")
                    .wait(),
                get().stored(),
            ],
        ),
        required(
            "stale-while-revalidate-window",
            [
                said("max-age=1, stale-while-revalidate=4")
                    .says("ETag", "\"abc\"")
                    .wait(),
                get()
                    .mentions("Cache-Control", "no-cache")
                    .mentions("ETag", "\"def\"")
                    .stored()
                    .wait(),
                get().fetched(),
            ],
        ),
        check(
            "stale-sie-close",
            [
                said("max-age=2, stale-if-error=60").wait(),
                get().cut().stored().gives(200),
            ],
        ),
        check(
            "stale-sie-503",
            [
                said("max-age=2, stale-if-error=60").wait(),
                get().status(503).stored().gives(200),
            ],
        ),
        check(
            "stale-if-error-cc-response",
            [
                said("max-age=0, stale-if-error=3600"),
                get().status(500).stored().gives(200),
            ],
        ),
        required(
            "stale-if-error-cc-response-expired",
            [said("max-age=0, stale-if-error=1").wait(), get().status(500).fetched()],
        ),
        check(
            "stale-if-error-cc-request",
            [
                said("max-age=1").wait(),
                get()
                    .asks("Cache-Control", "stale-if-error=3600")
                    .status(500)
                    .stored()
                    .gives(200),
            ],
        ),
        required(
            "stale-if-error-cc-request-expired",
            [
                said("max-age=1").wait(),
                get().asks("Cache-Control", "stale-if-error=1").status(500).fetched(),
            ],
        ),
        // RFC 9111 has done away with the field.
        check(
            "stale-warning-become",
            [
                said("max-age=2, stale-if-error=60").wait(),
                get().cut().stored().gives(200).hides("Warning"),
            ],
        ),
    ];
    for forbidding in ["must-revalidate", "proxy-revalidate", "no-cache", "s-maxage=2"] {
        for tag in ["", "-etag"] {
            let first = said(&format!("max-age=2, {forbidding}"));
            let first = match tag {
                "" => first,
                _ => first.says("ETag", "\"abc\""),
            };
            let status = match (forbidding, tag) {
                // RFC 9111 §5.2.2.2: what must be validated and cannot be is a 504.
                ("must-revalidate" | "proxy-revalidate", _) | ("no-cache", "-etag") => 504,
                _ => 502,
            };
            let name = forbidding.replace('=', "");
            cases.push(required(
                format!("stale-close-{name}{tag}"),
                [first.wait(), get().cut().from(Source::Nobody).gives(status).any_body()],
            ));
        }
    }
    cases
}
