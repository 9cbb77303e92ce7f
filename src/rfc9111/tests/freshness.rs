//! How long a response answers (RFC 9111 §4.2, §5.1, §5.3, RFC 9213).

use super::*;

#[test]
fn rfc9111_4_2_freshness_by_cache_control() {
    check_responses(&[
        (&[], NotCached),
        (&[(CC, "max-age=3600")], Cached),
        (&[(CC, "max-age=2")], NotCached),
        (&[(CC, "max-age=0")], NotCached),
        (&[(CC, "max-age=2147483647")], Cached),
        (&[(CC, "max-age=2147483648")], Cached),
        (&[(CC, "max-age=2147483649")], Cached),
        (&[(CC, "max-age=99999999999")], Cached),
        (&[DATE, (CC, "max-age=3600"), ("Age", "7200")], NotCached),
        (&[("Date", "@-7200"), (CC, "max-age=3600")], NotCached),
        (&[(CC, "max-age=3600"), ("Expires", "@-7200"), DATE], Cached),
        (&[(CC, "max-age=3600"), ("Expires", "0"), DATE], Cached),
        (&[(CC, "max-age=0"), ("Expires", "@3600"), DATE], NotCached),
        (&[(CC, "foobar, max-age=3600")], Cached),
        (&[(CC, "MaX-aGe=3600")], Cached),
        (&[(CC, "max-age=-3600")], NotCached),
        (&[(CC, "s-maxage=3600")], Cached),
        (&[(CC, "max-age=3600, s-maxage=1")], NotCached),
        (&[(CC, "s-maxage=1, max-age=3600")], NotCached),
        (&[(CC, "max-age=3600"), (CC, "s-maxage=1")], NotCached),
        (&[(CC, "max-age=1, s-maxage=3600")], Cached),
        (&[("Expires", "@-10"), (CC, "max-age=0, s-maxage=3600")], Cached),
    ]);
}

#[test]
fn rfc9111_5_2_parsing_of_cache_control() {
    check_responses(&[
        (&[(CC, "max-age=1800, max-age=1")], NotCached),
        (&[(CC, "max-age=1800"), (CC, "max-age=1")], NotCached),
        (&[(CC, "max-age=1, max-age=1800")], NotCached),
        (&[(CC, "max-age=1"), (CC, "max-age=1800")], NotCached),
        (&[(CC, "max-age=\"3600\"")], Cached),
        (&[(CC, "extension=\"max-age=3600\", max-age=1")], NotCached),
        (&[(CC, "max-age=1, extension=\"max-age=3600\"")], NotCached),
        (&[(CC, "max-age =3600")], NotCached),
        (&[(CC, "max-age= 3600")], NotCached),
        (&[(CC, "max-age=003600")], Cached),
        (&[(CC, "max-age='3600'")], NotCached),
        (&[(CC, "max-age=3600.0")], NotCached),
        (&[(CC, "max-age=3600.5")], NotCached),
        (&[(CC, "max-age=a3600")], NotCached),
        (&[(CC, "max-age=3600a")], NotCached),
    ]);
}

#[test]
fn rfc9111_5_1_parsing_of_age() {
    let stale = |age: &'static str| ([DATE, (CC, "max-age=3600"), ("Age", age)], NotCached);
    let fresh = |age: &'static str| ([DATE, (CC, "max-age=3600"), ("Age", age)], Cached);
    for (answer, expected) in [
        fresh("abc"),
        fresh("-7200"),
        fresh("7200.0"),
        stale("2147483647"),
        stale("2147483648"),
        stale("2147483649"),
        stale("7200, 0"),
        fresh("0, 7200"),
        fresh("0, 0"),
        stale("7200;foo=bar"),
        stale("7200;foo=111"),
    ] {
        check_responses(&[(&answer, expected)]);
    }
    check_responses(&[
        (&[DATE, (CC, "max-age=3600"), ("Age", "7200"), ("Age", "0")], NotCached),
        (&[DATE, (CC, "max-age=3600"), ("Age", "0"), ("Age", "7200")], Cached),
        (&[DATE, (CC, "max-age=3600"), ("Age", "0"), ("Age", "0")], Cached),
        (&[DATE, (CC, "max-age=10000"), ("Age", "3600"), ("Age", "3600")], Cached),
    ]);
}

#[test]
fn rfc9111_5_3_expires() {
    check_responses(&[
        (&[("Expires", "@2592000"), DATE], Cached),
        (&[("Expires", "@-2592000"), DATE], NotCached),
        (&[("Expires", "@0"), DATE], NotCached),
        (&[("Expires", "@300"), ("Date", "@400")], NotCached),
        (&[("Expires", "0"), DATE], NotCached),
        (&[("Date", "foo"), ("Expires", "@10")], Cached),
        (&[("Date", "@-10"), ("Expires", "@10"), ("Age", "25")], NotCached),
        (&[("Date", "@10"), ("Expires", "@20"), ("Age", "15")], NotCached),
        (&[("Expires", "Tue, 19 Jan 2038 14:14:08 GMT"), DATE], Cached),
        (&[("Expires", "Sun, 21 Nov 2286 04:46:39 GMT"), DATE], Cached),
        (&[("Expires", "Thursday, 18-Aug-50 02:01:18 GMT"), DATE], Cached),
        (&[("Expires", "Thu Aug  8 02:01:18 2050"), DATE], Cached),
        (&[("Expires", "THU, 18 Aug 2050 02:01:18 GMT"), DATE], Cached),
        (&[("Expires", "Thu, 18 AUG 2050 02:01:18 GMT"), DATE], Cached),
        (&[("Expires", "Thu, 18 Aug 2050 02:01:18 gMT"), DATE], Cached),
        (&[("Expires", "Thu, 18 Aug 2050 02:01:18 UTC"), DATE], NotCached),
        (&[("Expires", "Thu, 18 Aug 2050 02:01:18 AEST"), DATE], NotCached),
        (&[("Expires", "Thu, 18 Aug 50 02:01:18 GMT"), DATE], NotCached),
        (&[("Expires", "Thu 18 Aug 2050 02:01:18 GMT"), DATE], NotCached),
        (&[("Expires", "Thu, 18  Aug  2050 02:01:18 GMT"), DATE], NotCached),
        (&[("Expires", "Thu, 18-Aug-2050 02:01:18 GMT"), DATE], NotCached),
        (&[("Expires", "Thu, 18 Aug 2050 02.01.18 GMT"), DATE], NotCached),
        (&[("Expires", "Thu, 18 Aug 2050 2:01:18 GMT"), DATE], NotCached),
        (&[("Expires", "@3600"), ("Expires", "@3601"), DATE], NotCached),
    ]);
}

#[test]
fn rfc9111_4_2_2_heuristic_freshness_by_status() {
    let answer: Lines<'_> = &[("Last-Modified", "@-86400"), DATE];
    for status in [200, 203, 204, 404, 405, 410, 414, 501, 300, 301, 308] {
        check(&[(&[], status, answer, 3, &[], Cached)]);
    }
    for status in [201, 202, 302, 303, 307, 400, 403, 500, 502, 503, 504, 599] {
        check(&[(&[], status, answer, 3, &[], NotCached)]);
    }
    check(&[(
        &[],
        599,
        &[("Last-Modified", "@-86400"), DATE, (CC, "public")],
        3,
        &[],
        Cached,
    )]);
}

#[test]
fn rfc9111_3_any_final_status_with_explicit_freshness_is_stored() {
    let fresh: Lines<'_> = &[(CC, "max-age=100000"), DATE];
    let stale: Lines<'_> = &[("Expires", "@-5000"), ("Last-Modified", "@-100000"), DATE];
    for status in [
        200, 203, 204, 299, 301, 302, 303, 307, 308, 400, 404, 410, 499, 500, 502, 503, 504, 599,
    ] {
        check(&[
            (&[], status, fresh, 3, &[], Cached),
            (&[], status, stale, 3, &[], NotCached),
        ]);
    }
    check(&[
        (
            &[],
            599,
            &[(CC, "max-age=3600, no-store, must-understand")],
            0,
            &[],
            NotCached,
        ),
        (
            &[],
            200,
            &[(CC, "max-age=3600, no-store, must-understand")],
            0,
            &[],
            Cached,
        ),
    ]);
}

#[test]
fn rfc9213_targeted_fields() {
    check_responses(&[
        (&[(CDN, "max-age=3600")], Cached),
        (&[(CDN, "max-age=2147483648")], Cached),
        (&[(CDN, "max-age=99999999999")], Cached),
        (&[DATE, (CDN, "max-age=3600"), ("Age", "7200")], NotCached),
        (&[(CC, "max-age=1"), (CDN, "max-age =100")], NotCached),
        (&[(CC, "max-age=1"), (CDN, "max-age= 100")], NotCached),
        (&[(CDN, "max-age=0")], NotCached),
        (&[(CDN, "max-age=-1")], NotCached),
        (&[(CDN, "foobar, max-age=3600")], Cached),
        (&[(CDN, "MaX-aGe=3600")], NotCached),
        (&[(CDN, "max-age=3600"), ("Expires", "@-10000"), DATE], Cached),
        (&[(CDN, "max-age=3600"), ("Expires", "0"), DATE], Cached),
        (&[(CDN, "max-age=0"), ("Expires", "@10000"), DATE], NotCached),
        (&[(CC, "max-age=1"), (CDN, "max-age=3600")], Cached),
        (&[(CC, "max-age=3600"), (CDN, "max-age=1")], NotCached),
        (
            &[(CDN, "private"), (CC, "max-age=10000"), ("Expires", "@10000"), DATE],
            NotCached,
        ),
        (
            &[(CDN, "no-cache"), (CC, "max-age=10000"), ("Expires", "@10000"), DATE],
            NotCached,
        ),
        (
            &[(CC, "max-age=10000"), (CDN, "no-store"), ("Expires", "@10000"), DATE],
            NotCached,
        ),
        (&[(CC, "no-store"), (CDN, "max-age=10000")], Cached),
        (&[(CDN, "max-age=10000, &&&&&"), (CC, "no-store")], NotCached),
        (&[(CDN, "max-age=\"10000\""), (CC, "no-store")], NotCached),
        (
            &[
                (CDN, "max-age=\"10000\""),
                (CC, "no-store"),
                ("Last-Modified", "@-86400"),
                DATE,
            ],
            NotCached,
        ),
        (&[(CDN, ""), (CC, "max-age=10000")], Cached),
        (&[(CDN, "none"), (CC, "max-age=10000")], NotCached),
        (&[(CDN, "max-age=10000"), (CDN, "no-store")], NotCached),
    ]);
}

#[test]
fn rfc9111_5_1_age_is_counted_on() {
    for lines in [
        [("Expires", "@2592000"), DATE, ("Age", "30")],
        [(CC, "max-age=600"), DATE, ("Age", "30")],
    ] {
        let mut shelf = Shelf::new();
        let mut head = response(200, &[]);
        head.fields = dated_fields(&lines);
        shelf.store(&get(&[]), &head, NOW).unwrap();
        let Reuse::Fresh(served) = shelf.reuse(&get(&[]), NOW.plus(Duration::from_secs(3))) else {
            panic!("not reused");
        };
        assert_eq!(served.age.get(), 33);
        let stored = &shelf.stored[0].1;
        assert!(!stored.contains("age"), "Age is not kept");
        assert_eq!(
            stored.get("date"),
            Some(in_seconds(0).as_bytes()),
            "Date stays as it was"
        );
    }
}
