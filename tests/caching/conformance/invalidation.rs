//! What unsafe requests (RFC 9111 §4.4) and HEAD (§4.3.5) do to what is stored.

use super::script::{Case, Step, check, fresh, get, optimal, required, soon_stale};

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for method in ["POST", "PUT", "DELETE", "M-SEARCH", "PATCH"] {
        cases.extend([
            required(
                format!("invalidate-{method}"),
                [fresh(), get().sending(method), get().fetched()],
            ),
            optimal(
                format!("invalidate-{method}-failed"),
                [fresh(), get().sending(method).status(500), get().stored()],
            ),
        ]);
        for (id, name) in [("location", "Location"), ("cl", "Content-Location")] {
            let case_name = format!("invalidate-{method}-{id}");
            let target = format!("/{case_name}/target");
            let at_target = |step: Step| step.to("/target");
            cases.push(check(
                case_name.clone(),
                [
                    at_target(fresh()),
                    get().sending(method).says(name, target.as_str()),
                    at_target(get()).fetched(),
                ],
            ));
            cases.push(required(
                format!("{case_name}-elsewhere"),
                [
                    at_target(fresh()),
                    get()
                        .sending(method)
                        .says(name, format!("http://elsewhere.example/{case_name}-elsewhere/target")),
                    at_target(get()).stored(),
                ],
            ));
        }
    }
    for method in ["GET", "HEAD", "OPTIONS", "QUERY", "PROPFIND", "REPORT", "SEARCH"] {
        cases.push(optimal(
            format!("safe-{method}-leaves"),
            [
                fresh(),
                get().method(method).asks("Cache-Control", "no-store").any_body(),
                get().stored(),
            ],
        ));
    }
    cases.extend(head());
    cases
}

fn head() -> Vec<Case> {
    let head = || get().method("HEAD").origin_method("HEAD");
    vec![
        check("head-writethrough", [soon_stale(), head()]),
        // The response to HEAD goes through as it is; what is stored keeps the field.
        check(
            "head-200-retain",
            [
                soon_stale(),
                head().says("Cache-Control", "max-age=1000"),
                get().stored().shows("Template-A", "1"),
            ],
        ),
        check(
            "head-200-freshness-update",
            [
                soon_stale(),
                head().says("Cache-Control", "max-age=1000"),
                get().stored(),
            ],
        ),
        check(
            "head-200-update",
            [
                soon_stale(),
                head().says("Template-A", "2").says("Cache-Control", "max-age=1000"),
                get().stored().shows("Template-A", "2"),
            ],
        ),
        check(
            "head-410-update",
            [
                soon_stale(),
                head()
                    .status(410)
                    .says("Template-A", "2")
                    .says("Cache-Control", "max-age=1000"),
                get().fetched(),
            ],
        ),
        required(
            "head-other-tag",
            [
                get().says("Cache-Control", "max-age=2").says("ETag", "\"a\"").wait(),
                head().says("ETag", "\"b\"").says("Cache-Control", "max-age=1000"),
                get().fetched(),
            ],
        ),
        optimal(
            "head-from-stored-get",
            [fresh().says("A", "1"), get().method("HEAD").stored().shows("A", "1")],
        ),
    ]
}
