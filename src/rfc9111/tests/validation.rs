//! Conditions, what a 304 does, and ranges (RFC 9111 §4.3, RFC 9110 §14).

use super::*;

#[test]
fn rfc9111_4_3_2_conditions_of_clients() {
    const FRESH: (&str, &str) = (CC, "max-age=100000");
    let strong: Lines<'_> = &[FRESH, ("ETag", "\"abcdef\"")];
    let weak: Lines<'_> = &[FRESH, ("ETag", "W/\"abcdef\"")];
    let dated: Lines<'_> = &[FRESH, ("Last-Modified", "@-3000"), DATE];
    let both: Lines<'_> = &[FRESH, ("Last-Modified", "@-5000"), ("ETag", "\"abcdef\"")];
    check(&[
        (&[], 200, strong, 3, &[("If-None-Match", "\"abcdef\"")], NotModified),
        (&[], 200, strong, 3, &[("If-None-Match", "W/\"abcdef\"")], NotModified),
        (&[], 200, strong, 3, &[("If-None-Match", "*")], NotModified),
        (&[], 200, strong, 3, &[("If-None-Match", "\"other\"")], Cached),
        (
            &[],
            200,
            strong,
            3,
            &[("If-None-Match", "\"abcdef\", \"1234\", \"5678\"")],
            NotModified,
        ),
        (
            &[],
            200,
            strong,
            3,
            &[("If-None-Match", "\"1234\", \"abcdef\", \"5678\"")],
            NotModified,
        ),
        (
            &[],
            200,
            strong,
            3,
            &[("If-None-Match", "\"1234\", \"5678\", \"abcdef\"")],
            NotModified,
        ),
        (
            &[],
            200,
            strong,
            3,
            &[("If-None-Match", "\"1234\""), ("If-None-Match", "\"abcdef\"")],
            NotModified,
        ),
        (
            &[],
            200,
            strong,
            3,
            &[("If-None-Match", "\"12,34\",,\"abcdef\"")],
            NotModified,
        ),
        (&[], 200, weak, 3, &[("If-None-Match", "W/\"abcdef\"")], NotModified),
        (&[], 200, weak, 3, &[("If-None-Match", "\"abcdef\"")], NotModified),
        (
            &[],
            200,
            &[FRESH, ("ETag", "abcdef")],
            3,
            &[("If-None-Match", "abcdef")],
            NotModified,
        ),
        (
            &[],
            200,
            &[FRESH, ("ETag", "w/\"abcdef\"")],
            3,
            &[("If-None-Match", "w/\"abcdef\"")],
            NotModified,
        ),
        (
            &[],
            200,
            both,
            3,
            &[("If-None-Match", "\"abcdef\""), ("If-Modified-Since", "@-9000")],
            NotModified,
        ),
        (
            &[],
            200,
            both,
            3,
            &[("If-None-Match", "\"other\""), ("If-Modified-Since", "@0")],
            Cached,
        ),
        (&[], 200, dated, 3, &[("If-Modified-Since", "@-3000")], NotModified),
        (&[], 200, dated, 3, &[("If-Modified-Since", "@-2000")], NotModified),
        (&[], 200, dated, 3, &[("If-Modified-Since", "@-3001")], Cached),
        (&[], 200, dated, 3, &[("If-Modified-Since", "rubbish")], Cached),
        (
            &[],
            200,
            dated,
            3,
            &[("If-Modified-Since", "Wednesday, 31-Dec-25 23:10:00 GMT")],
            NotModified,
        ),
        (&[], 200, &[FRESH, DATE], 3, &[("If-Modified-Since", "@0")], NotModified),
        (&[], 200, &[FRESH, DATE], 3, &[("If-Modified-Since", "@-3000")], Cached),
        (&[], 404, strong, 3, &[("If-None-Match", "\"abcdef\"")], Cached),
        (&[], 200, strong, 3, &[("If-Match", "\"abcdef\"")], NotCached),
        (&[], 200, dated, 3, &[("If-Unmodified-Since", "@0")], NotCached),
        (&[], 200, &[(CC, "max-age=2"), ("ETag", "\"a\"")], 3, &[], EtagValidated),
        (
            &[],
            200,
            &[(CC, "max-age=2"), ("ETag", "W/\"a\"")],
            3,
            &[],
            EtagValidated,
        ),
        (
            &[],
            200,
            &[(CC, "max-age=2"), ("Last-Modified", "@-3000")],
            3,
            &[("If-Modified-Since", "@-3000")],
            LmValidated,
        ),
        (
            &[("Abc", "123")],
            200,
            &[("Expires", "@1"), ("ETag", "\"a\""), DATE, ("Vary", "Abc")],
            3,
            &[("Abc", "123")],
            EtagValidated,
        ),
    ]);
}

#[test]
fn rfc9111_3_2_a_304_updates_all_fields_but_those_of_the_body() {
    // Name, stored, sent with the 304, expected.
    let cases: &[(&str, &str, &str, &str)] = &[
        ("Test-Header", "a", "b", "b"),
        ("X-Test-Header", "a", "b", "b"),
        ("Content-Foo", "a", "b", "b"),
        ("X-Content-Foo", "a", "b", "b"),
        ("Cache-Control", "max-age=2", "max-age=3600", "max-age=3600"),
        (
            "Content-Type",
            "text/plain",
            "text/plain;charset=utf-8",
            "text/plain;charset=utf-8",
        ),
        ("Content-Location", "/foo", "/bar", "/bar"),
        (
            "Content-Security-Policy",
            "default-src 'self'",
            "default-src x",
            "default-src x",
        ),
        (
            "Expires",
            "Fri, 01 Jan 2038 01:01:01 GMT",
            "Mon, 11 Jan 2038 11:11:11 GMT",
            "Mon, 11 Jan 2038 11:11:11 GMT",
        ),
        ("Content-Encoding", "gzip", "br", "gzip"),
        ("Content-Length", "5", "10", "5"),
    ];
    let stale = NOW.plus(Duration::from_secs(3));
    for (name, old, new, expected) in cases {
        let mut shelf = Shelf::new();
        let mut lines = vec![("ETag", "\"a\""), ("Keep", "me"), (*name, *old)];
        if *name != "Cache-Control" {
            lines.push((CC, "max-age=2"));
        }
        shelf.store(&get(&[]), &response(200, &lines), NOW).unwrap();
        let (meta, stored) = &shelf.stored[0];
        let answer = response(304, &[("ETag", "\"a\""), (CC, "max-age=60"), (*name, *new)]);
        assert_eq!(selected_by_304([((), meta)], &answer.fields, stale).len(), 1);
        let freshened = freshen(&get(&[]), meta, stored, &answer, at_once(stale), &shelf.policy());
        let Freshened::Store(accepted) = freshened else {
            panic!("{name}: {freshened:?}");
        };
        let last = accepted.fields.get_all(name).last();
        assert_eq!(last, Some(expected.as_bytes()), "{name}");
        assert_eq!(accepted.fields.get("keep"), Some(&b"me"[..]), "{name}");
        assert!(accepted.meta.is_fresh(stale), "{name}");
        assert_eq!(accepted.meta.status, 200);
    }
}

#[test]
fn rfc9110_14_2_ranges_of_a_stored_response() {
    let mut shelf = Shelf::new();
    shelf
        .store(&get(&[]), &response(200, &[(CC, "max-age=60")]), NOW)
        .unwrap();
    for (range, first, last) in [("bytes=0-1", 0, 1), ("bytes=1-", 1, 10), ("bytes=-1", 10, 10)] {
        let request = get(&[("Range", range)]);
        assert_eq!(shelf.outcome(&request, NOW), Cached, "{range}");
        let Selection::Parts(parts) = selection(&request, &shelf.stored[0].0, 11) else {
            panic!("{range}");
        };
        assert_eq!(
            parts.iter().map(|part| (part.first(), part.last())).collect::<Vec<_>>(),
            [(first, last)]
        );
    }
}
