//! What directives, credentials, cookies and methods allow (RFC 9111 §3.5, §5.2, §5.4, RFC 5861, RFC 8246).

use super::*;

#[test]
fn rfc9111_5_2_2_response_directives() {
    check_responses(&[
        (&[(CC, "private, max-age=3600")], NotCached),
        (&[(CC, "no-store")], NotCached),
        (&[(CC, "No-StOrE")], NotCached),
        (
            &[(CC, "max-age=10000, no-store"), ("Expires", "@10000"), DATE],
            NotCached,
        ),
        (
            &[(CC, "max-age=10000, no-cache"), ("Expires", "@10000"), DATE],
            NotCached,
        ),
        (
            &[(CC, "max-age=10000, No-CaChE"), ("Expires", "@10000"), DATE],
            NotCached,
        ),
        (&[(CC, "no-cache"), ("ETag", "\"abcd\"")], EtagValidated),
        (
            &[
                (CC, "max-age=10000, no-cache"),
                ("Expires", "@10000"),
                DATE,
                ("ETag", "\"abcd\""),
            ],
            EtagValidated,
        ),
        (&[(CC, "max-age=10000, must-revalidate"), ("ETag", "\"abcd\"")], Cached),
        (
            &[(CC, "max-age=2, must-revalidate"), ("ETag", "\"abcd\"")],
            EtagValidated,
        ),
        (
            &[(CC, "no-cache=\"a\""), ("a", "1"), (CC, "max-age=3600"), DATE],
            Cached,
        ),
    ]);
}

#[test]
fn rfc9111_5_2_2_5_a_response_that_is_not_stored_leaves_an_older_one() {
    let mut shelf = Shelf::new();
    shelf
        .store(&get(&[]), &response(200, &[(CC, "max-age=10000")]), NOW)
        .unwrap();
    let refused = shelf.store(&get(&[]), &response(200, &[(CC, "no-store, max-age=0")]), NOW);
    assert_eq!(refused, Err(Unstorable::NoStore));
    assert_eq!(shelf.outcome(&get(&[]), NOW), Cached);
}

#[test]
fn rfc9111_5_2_1_request_directives() {
    const FRESH: Lines<'_> = &[(CC, "max-age=3600")];
    check(&[
        (&[], 200, FRESH, 3, &[(CC, "max-age=0")], NotCached),
        (&[], 200, FRESH, 0, &[(CC, "max-age=0")], NotCached),
        (&[], 200, FRESH, 3, &[(CC, "max-age=1")], NotCached),
        (&[], 200, FRESH, 3, &[(CC, "max-age=5")], Cached),
        (&[], 200, FRESH, 3, &[(CC, "max-age=rubbish")], NotCached),
        (
            &[],
            200,
            &[(CC, "max-age=3600"), ("Age", "1800")],
            0,
            &[(CC, "max-age=600")],
            NotCached,
        ),
        (&[], 200, &[(CC, "max-age=1")], 3, &[(CC, "max-stale=1000")], Cached),
        (&[], 200, &[(CC, "max-age=1")], 3, &[(CC, "max-stale")], Cached),
        (&[], 200, &[(CC, "max-age=1")], 3, &[(CC, "max-stale=1")], NotCached),
        (&[], 200, &[(CC, "max-age=1")], 3, &[(CC, "max-stale=x")], NotCached),
        (
            &[],
            200,
            &[(CC, "max-age=1500"), ("Age", "2000")],
            0,
            &[(CC, "max-stale=1000")],
            Cached,
        ),
        (
            &[],
            200,
            &[(CC, "max-age=1, must-revalidate")],
            3,
            &[(CC, "max-stale=1000")],
            NotCached,
        ),
        (
            &[],
            200,
            &[(CC, "max-age=1, proxy-revalidate")],
            3,
            &[(CC, "max-stale=1000")],
            NotCached,
        ),
        (&[], 200, &[(CC, "s-maxage=1")], 3, &[(CC, "max-stale=1000")], NotCached),
        (
            &[],
            200,
            &[(CC, "max-age=1500")],
            0,
            &[(CC, "min-fresh=2000")],
            NotCached,
        ),
        (&[], 200, &[(CC, "max-age=1500")], 0, &[(CC, "min-fresh=1000")], Cached),
        (
            &[],
            200,
            &[(CC, "max-age=1500"), ("Age", "1000")],
            0,
            &[(CC, "min-fresh=1000")],
            NotCached,
        ),
        (&[], 200, FRESH, 0, &[(CC, "no-cache")], NotCached),
        (
            &[],
            200,
            &[(CC, "max-age=3600"), ("Last-Modified", "@-10000"), DATE],
            0,
            &[(CC, "no-cache")],
            LmValidated,
        ),
        (
            &[],
            200,
            &[(CC, "max-age=3600"), ("ETag", "\"abc\"")],
            0,
            &[(CC, "no-cache")],
            EtagValidated,
        ),
        (&[], 200, FRESH, 0, &[(CC, "no-store")], NotCached),
        (&[], 200, FRESH, 3, &[(CC, "only-if-cached")], Cached),
        (
            &[],
            200,
            &[(CC, "max-age=1"), ("ETag", "\"abc\"")],
            3,
            &[(CC, "only-if-cached")],
            Timeout,
        ),
        (&[], 200, &[(CC, "no-store")], 0, &[(CC, "only-if-cached")], Timeout),
        // RFC 8246 §2.
        (
            &[],
            200,
            &[(CC, "max-age=3600, immutable"), ("ETag", "\"a\"")],
            3,
            &[(CC, "max-age=0")],
            Cached,
        ),
        (
            &[],
            200,
            &[(CC, "max-age=3600, immutable"), ("ETag", "\"a\"")],
            3,
            &[(CC, "no-cache")],
            EtagValidated,
        ),
        (
            &[],
            200,
            &[(CC, "max-age=2, immutable"), ("ETag", "\"a\"")],
            3,
            &[(CC, "max-age=0")],
            EtagValidated,
        ),
    ]);
}

#[test]
fn rfc9111_5_4_pragma() {
    const FRESH: Lines<'_> = &[(CC, "max-age=3600")];
    check(&[
        (&[], 200, FRESH, 0, &[("Pragma", "no-cache")], NotCached),
        (&[], 200, FRESH, 0, &[("Pragma", "no-cache"), (CC, "nothing")], Cached),
        (&[], 200, FRESH, 0, &[("Pragma", "unrecognised-extension")], Cached),
        (
            &[],
            200,
            &[(CC, "max-age=3600"), ("Pragma", "no-cache")],
            0,
            &[],
            Cached,
        ),
        (
            &[],
            200,
            &[("Last-Modified", "@-10000"), ("Pragma", "no-cache")],
            0,
            &[],
            NotCached,
        ),
        (
            &[],
            200,
            &[(CC, "max-age=3600"), ("Pragma", "unrecognised-extension")],
            0,
            &[],
            Cached,
        ),
    ]);
}

#[test]
fn rfc9111_3_5_authorization() {
    const FOO: Lines<'_> = &[("Authorization", "FOO")];
    check(&[
        (FOO, 200, &[("Expires", "@2592000"), DATE], 3, &[], NotCached),
        (FOO, 200, &[(CC, "max-age=3600"), DATE], 3, FOO, NotCached),
        (FOO, 200, &[(CC, "max-age=3600, public"), DATE], 3, &[], Cached),
        (FOO, 200, &[(CC, "max-age=3600, must-revalidate"), DATE], 3, &[], Cached),
        (FOO, 200, &[(CC, "s-maxage=3600"), DATE], 3, &[], Cached),
    ]);
}

#[test]
fn rfc5861_stale_responses() {
    check(&[
        (
            &[],
            200,
            &[(CC, "max-age=1, stale-while-revalidate=3600"), ("ETag", "\"abc\"")],
            3,
            &[],
            Cached,
        ),
        (
            &[],
            200,
            &[(CC, "max-age=0, stale-while-revalidate=3600")],
            3,
            &[],
            Cached,
        ),
        (
            &[],
            200,
            &[(CC, "max-age=1, stale-while-revalidate=4"), ("ETag", "\"abc\"")],
            6,
            &[],
            EtagValidated,
        ),
        (
            &[],
            200,
            &[(CC, "max-age=1, stale-while-revalidate=rubbish"), ("ETag", "\"abc\"")],
            3,
            &[],
            EtagValidated,
        ),
        (
            &[],
            200,
            &[
                (CC, "max-age=1, must-revalidate, stale-while-revalidate=60"),
                ("ETag", "\"a\""),
            ],
            3,
            &[],
            EtagValidated,
        ),
        (
            &[],
            200,
            &[(CC, "s-maxage=1, stale-while-revalidate=60"), ("ETag", "\"a\"")],
            3,
            &[],
            Cached,
        ),
        (
            &[],
            200,
            &[(CC, "max-age=1, stale-while-revalidate=60"), ("ETag", "\"a\"")],
            3,
            &[(CC, "max-age=1")],
            EtagValidated,
        ),
    ]);
    let failed: &[(&str, Lines<'_>, bool)] = &[
        ("max-age=2", &[], false),
        ("max-age=2, stale-if-error=60", &[], true),
        ("max-age=2, stale-if-error=60", &[(CC, "no-cache")], false),
        ("max-age=0, stale-if-error=1", &[], false),
        ("max-age=2, s-maxage=2", &[(CC, "stale-if-error=60")], false),
        ("max-age=2", &[(CC, "stale-if-error=60")], true),
        ("max-age=0", &[(CC, "stale-if-error=1")], false),
        ("max-age=2, must-revalidate, stale-if-error=60", &[], false),
        ("max-age=2, proxy-revalidate, stale-if-error=60", &[], false),
        ("no-cache, stale-if-error=60", &[], false),
    ];
    for (directives, second, expected) in failed {
        let mut shelf = Shelf::new();
        shelf
            .store(&get(&[]), &response(200, &[(CC, directives), ("ETag", "\"a\"")]), NOW)
            .unwrap();
        let later = NOW.plus(Duration::from_secs(3));
        let served = reuse_on_error(&get(second), &shelf.stored[0].0, later, &ReusePolicy::default());
        assert_eq!(served.is_some(), *expected, "{directives} {second:?}");
    }
}

#[test]
fn rfc9111_4_requests_with_cookies_get_what_the_origin_lets_be_shared() {
    const COOKIE: Lines<'_> = &[("Cookie", "a=b")];
    check(&[
        (&[], 200, &[(CC, "max-age=3600")], 0, COOKIE, Cached),
        (COOKIE, 200, &[(CC, "max-age=3600")], 0, &[], Cached),
        // Heuristic freshness is not the origin's word.
        (&[], 200, &[("Last-Modified", "@-86400")], 0, COOKIE, LmValidated),
        (COOKIE, 200, &[("Last-Modified", "@-86400")], 0, &[], NotCached),
    ]);
}

#[test]
fn rfc9110_9_3_3_post_with_its_own_content_location_answers_get() {
    let cases: &[(Lines<'_>, Result<(), Unstorable>)] = &[
        (&[("Expires", "@2592000"), ("Content-Location", "/"), DATE], Ok(())),
        (
            &[
                ("Expires", "@2592000"),
                ("Content-Location", "http://example.org/"),
                DATE,
            ],
            Ok(()),
        ),
        (
            &[("Expires", "@2592000"), ("Content-Location", "/x"), DATE],
            Err(Unstorable::Method),
        ),
        (&[("Expires", "@2592000"), DATE], Err(Unstorable::Method)),
        (
            &[("Last-Modified", "@-86400"), ("Content-Location", "/"), DATE],
            Err(Unstorable::NoFreshness),
        ),
    ];
    for (lines, expected) in cases {
        let mut shelf = Shelf::new();
        let mut head = response(200, &[]);
        head.fields = dated_fields(lines);
        let post = request("POST", "/", &[("Content-Type", "text/plain")]);
        assert_eq!(shelf.store(&post, &head, NOW), *expected, "{lines:?}");
        let seen = shelf.outcome(&get(&[]), NOW.plus(Duration::from_secs(3)));
        assert_eq!(seen == Cached, expected.is_ok(), "{lines:?}");
        assert!(!invalidation::is_safe(&post.method));
    }
}

#[test]
fn rfc9111_4_methods_other_than_get_and_head_are_forwarded() {
    let mut shelf = Shelf::new();
    shelf
        .store(&get(&[]), &response(200, &[(CC, "max-age=60")]), NOW)
        .unwrap();
    for (method, expected) in [
        ("HEAD", true),
        ("POST", false),
        ("OPTIONS", false),
        ("QUERY", false),
        ("FOO", false),
    ] {
        let reuse = shelf.reuse(&request(method, "/", &[]), NOW);
        assert_eq!(matches!(reuse, Reuse::Fresh(_)), expected, "{method}");
        assert!(expected || reuse == Reuse::Forward(Forward::Method), "{method}");
    }
}
