//! `Vary` (RFC 9111 §4.1).

use super::script::{Case, Step, check, get, optimal, required};

pub fn cases() -> Vec<Case> {
    [fields(), normalised(), star()].concat()
}

/// A storable response to a request with these fields.
fn varied(vary: &str, request: &[(&str, &str)]) -> Step {
    let reply = get()
        .says("Cache-Control", "max-age=5000")
        .says("Last-Modified", -3000)
        .says("Date", 0)
        .says("Vary", vary);
    with(reply, request)
}

fn with(step: Step, request: &[(&str, &str)]) -> Step {
    request.iter().fold(step, |step, (name, value)| step.asks(name, *value))
}

fn fields() -> Vec<Case> {
    const FOO: (&str, &str) = ("Foo", "1");
    const BAR: (&str, &str) = ("Bar", "abc");
    const BAZ: (&str, &str) = ("Baz", "789");
    let one = || varied("Foo", &[FOO]);
    let two = || varied("Foo, Bar", &[FOO, BAR]);
    let three = || varied("Foo, Bar, Baz", &[FOO, BAR, BAZ]);
    let other = ("Foo", "2");
    vec![
        optimal("vary-match", [one(), with(get(), &[FOO]).stored()]),
        required("vary-no-match", [one(), with(get(), &[other]).fetched()]),
        required("vary-omit-stored", [varied("Foo", &[]), with(get(), &[FOO]).fetched()]),
        required("vary-omit", [one(), get().fetched()]),
        optimal(
            "vary-invalidate",
            [
                one().body("foo_1"),
                varied("Foo", &[other]).body("foo_2").fetched(),
                with(get(), &[FOO]).stored().text("foo_1"),
                with(get(), &[other]).stored().text("foo_2"),
            ],
        ),
        optimal(
            "vary-cache-key",
            [
                varied("Foo", &[FOO, ("Other", "2")]),
                with(get(), &[FOO, ("Other", "3")]).stored(),
            ],
        ),
        optimal("vary-2-match", [two(), with(get(), &[FOO, BAR]).stored()]),
        required("vary-2-no-match", [two(), with(get(), &[other, BAR]).fetched()]),
        required("vary-2-match-omit", [two(), get().fetched()]),
        optimal("vary-3-match", [three(), with(get(), &[FOO, BAR, BAZ]).stored()]),
        required("vary-3-no-match", [three(), with(get(), &[other, BAR, BAZ]).fetched()]),
        required(
            "vary-3-order",
            [three(), with(get(), &[FOO, BAZ, ("Bar", "abcde")]).fetched()],
        ),
        optimal(
            "vary-3-omit",
            [varied("Foo, Bar, Baz", &[FOO, BAZ]), with(get(), &[FOO, BAZ]).stored()],
        ),
        check(
            "vary-newest",
            [
                varied("Foo", &[FOO]).body("old").wait(),
                varied("Bar", &[FOO, BAR])
                    .asks("Cache-Control", "no-cache")
                    .body("new")
                    .fetched(),
                with(get(), &[FOO, BAR]).stored().text("new"),
            ],
        ),
    ]
}

/// Values that mean the same to every origin are the same.
fn normalised() -> Vec<Case> {
    let table = [
        ("combine", "Foo", "1, 2", &["1", "2"][..]),
        ("lang-order", "Accept-Language", "en, de", &["de, en"]),
        ("lang-case", "Accept-Language", "en, de", &["eN, De"]),
        ("lang-space", "Accept-Language", "en, de", &[" en ,   de"]),
        ("space", "Foo", "1,2", &[" 1, 2 "]),
        ("encoding-case", "Accept-Encoding", "gzip, br", &["BR,GZip"]),
    ];
    let mut cases: Vec<_> = table
        .into_iter()
        .map(|(id, name, first, then)| {
            let again = then.iter().fold(get(), |step, line| step.asks(name, *line));
            optimal(
                format!("vary-normalise-{id}"),
                [varied(name, &[(name, first)]), again.stored()],
            )
        })
        .collect();
    cases.push(optimal(
        "vary-normalise-lang-select",
        [
            varied("Accept-Language", &[("Accept-Language", "en, de")]).says("Content-Language", "de"),
            get().asks("Accept-Language", "fr;q=0.5, de;q=1.0").stored(),
        ],
    ));
    cases
}

/// A response that varies by more than the request is never reused, however the star is written.
fn star() -> Vec<Case> {
    let table: [(&str, &[&str]); 8] = [
        ("vary-star", &["*"]),
        ("vary-syntax-star", &["*"]),
        ("vary-syntax-star-star", &["*, *"]),
        ("vary-syntax-star-star-lines", &["*", "*"]),
        ("vary-syntax-empty-star", &[", *"]),
        ("vary-syntax-empty-star-lines", &["", "*"]),
        ("vary-syntax-star-foo", &["*, Foo"]),
        ("vary-syntax-foo-star", &["Foo, *"]),
    ];
    let cases = table.into_iter().map(|(id, lines)| {
        let request = |step: Step| with(step, &[("Foo", "1"), ("Baz", "789")]);
        let first = get()
            .says("Cache-Control", "max-age=5000")
            .says("Last-Modified", -3000)
            .says("Date", 0);
        let first = lines.iter().fold(first, |step, line| step.mentions("Vary", *line));
        required(id, [request(first), request(get()).fetched()])
    });
    cases.collect()
}
