//! Variants (RFC 9111 §4.1).

use super::*;

#[test]
fn rfc9111_4_1_vary() {
    let varied = |vary: &'static str| [(CC, "max-age=5000"), ("Last-Modified", "@-3000"), DATE, ("Vary", vary)];
    let one: Lines<'_> = &[("Foo", "1")];
    let three: Lines<'_> = &[("Foo", "1"), ("Bar", "abc"), ("Baz", "789")];
    let by_foo = varied("Foo");
    let by_two = varied("Foo, Bar");
    let by_three = varied("Foo, Bar, Baz");
    let by_language = varied("Accept-Language");
    let languages: Lines<'_> = &[("Accept-Language", "en, de")];
    check(&[
        (one, 200, &by_foo, 0, one, Cached),
        (one, 200, &by_foo, 0, &[("Foo", "2")], NotCached),
        (&[], 200, &by_foo, 0, one, NotCached),
        (one, 200, &by_foo, 0, &[], NotCached),
        (&[("Foo", "")], 200, &by_foo, 0, &[], NotCached),
        (
            &[("Foo", "1"), ("Other", "2")],
            200,
            &by_foo,
            0,
            &[("Foo", "1"), ("Other", "3")],
            Cached,
        ),
        (
            &[("Foo", "1"), ("Bar", "abc")],
            200,
            &by_two,
            0,
            &[("Foo", "1"), ("Bar", "abc")],
            Cached,
        ),
        (
            &[("Foo", "1"), ("Bar", "abc")],
            200,
            &by_two,
            0,
            &[("Foo", "2"), ("Bar", "abc")],
            NotCached,
        ),
        (&[("Foo", "1"), ("Bar", "abc")], 200, &by_two, 0, &[], NotCached),
        (three, 200, &by_three, 0, three, Cached),
        (
            three,
            200,
            &by_three,
            0,
            &[("Foo", "2"), ("Bar", "abc"), ("Baz", "789")],
            NotCached,
        ),
        (
            three,
            200,
            &by_three,
            0,
            &[("Foo", "1"), ("Baz", "789"), ("Bar", "abcde")],
            NotCached,
        ),
        (
            three,
            200,
            &by_three,
            0,
            &[("Baz", "789"), ("Bar", "abc"), ("Foo", "1")],
            Cached,
        ),
        (
            &[("Foo", "1"), ("Baz", "789")],
            200,
            &by_three,
            0,
            &[("Foo", "1"), ("Baz", "789")],
            Cached,
        ),
        (
            &[("Foo", "1, 2")],
            200,
            &by_foo,
            0,
            &[("Foo", "1"), ("Foo", "2")],
            Cached,
        ),
        (
            &[("Foo", "1"), ("Foo", "2")],
            200,
            &by_foo,
            0,
            &[("Foo", "1,2")],
            Cached,
        ),
        (&[("Foo", "1,2")], 200, &by_foo, 0, &[("Foo", "1,  2")], Cached),
        (&[("Foo", "1,2")], 200, &by_foo, 0, &[("Foo", "2,1")], NotCached),
        (
            languages,
            200,
            &by_language,
            0,
            &[("Accept-Language", "de, en")],
            Cached,
        ),
        (
            languages,
            200,
            &by_language,
            0,
            &[("Accept-Language", "eN, De")],
            Cached,
        ),
        (
            languages,
            200,
            &by_language,
            0,
            &[("Accept-Language", "en ,   de")],
            Cached,
        ),
        (
            languages,
            200,
            &by_language,
            0,
            &[("Accept-Language", "de, en;q=0.5")],
            NotCached,
        ),
    ]);
    let star = ["*", "*, *", ", *", "*, Foo", "Foo, *", "Foo, b@d"];
    for vary in star {
        check(&[(three, 200, &varied(vary), 0, three, NotCached)]);
    }
    check(&[(
        three,
        200,
        &[(CC, "max-age=5000"), ("Vary", "*"), ("Vary", "*")],
        0,
        three,
        NotCached,
    )]);
    check(&[(
        three,
        200,
        &[(CC, "max-age=5000"), ("Vary", ""), ("Vary", "*")],
        0,
        three,
        NotCached,
    )]);
}

#[test]
fn rfc9111_4_1_language_by_quality_value() {
    let german: Lines<'_> = &[
        (CC, "max-age=5000"),
        ("Vary", "Accept-Language"),
        ("Content-Language", "de"),
    ];
    let first: Lines<'_> = &[("Accept-Language", "en, de")];
    check(&[
        (
            first,
            200,
            german,
            0,
            &[("Accept-Language", "fr;q=0.5, de;q=1.0")],
            Cached,
        ),
        (first, 200, german, 0, &[("Accept-Language", "DE")], Cached),
        (first, 200, german, 0, &[("Accept-Language", "fr, de;q=0.5")], NotCached),
        (first, 200, german, 0, &[("Accept-Language", "fr, de")], NotCached),
        (first, 200, german, 0, &[("Accept-Language", "de;q=0")], NotCached),
        (first, 200, german, 0, &[("Accept-Language", "de-AT")], NotCached),
        (first, 200, german, 0, &[], NotCached),
        (
            first,
            200,
            &[
                (CC, "max-age=5000"),
                ("Vary", "Accept-Language, Foo"),
                ("Content-Language", "de"),
            ],
            0,
            &[("Accept-Language", "de"), ("Foo", "1")],
            NotCached,
        ),
    ]);
}

#[test]
fn rfc9111_4_1_two_variants_live_side_by_side() {
    let mut shelf = Shelf::new();
    for foo in ["1", "2"] {
        let answer = response(200, &[(CC, "max-age=5000"), ("Vary", "Foo"), ("Body", foo)]);
        shelf.store(&get(&[("Foo", foo)]), &answer, NOW).unwrap();
    }
    for foo in ["1", "2"] {
        let (_, fields) = shelf.chosen(&get(&[("Foo", foo)])).unwrap();
        assert_eq!(fields.get("Body"), Some(foo.as_bytes()));
    }
    assert_eq!(
        shelf.reuse(&get(&[("Foo", "3")]), NOW),
        Reuse::Forward(Forward::VaryMiss)
    );
}
