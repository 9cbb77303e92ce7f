use proptest::prelude::*;

use super::*;
use crate::message::fields;

fn response(line: &str) -> ResponseDirectives {
    ResponseDirectives::parse(&fields(&[("Cache-Control", line)]), &[])
}

fn request(line: &str) -> RequestDirectives {
    RequestDirectives::parse(&fields(&[("Cache-Control", line)]))
}

#[test]
fn rfc9111_5_2_members_are_split_outside_of_quotes() {
    let names = |line: &'static str| -> Vec<(&'static str, Argument<'static>)> {
        let text = |bytes| std::str::from_utf8(bytes).unwrap();
        directives(line.as_bytes())
            .map(|found| (text(found.name), found.argument))
            .collect()
    };
    use Argument::{Malformed, None, Value};
    assert_eq!(names(""), []);
    assert_eq!(names(" , ,"), []);
    assert_eq!(
        names("a, b=1,c=\"x, y\""),
        [("a", None), ("b", Value(b"1")), ("c", Value(b"x, y"))]
    );
    assert_eq!(names("a=\"\\\",b\", c"), [("a", Malformed), ("c", None)]);
    assert_eq!(names("a =1, b= 1"), [("a", Malformed), ("b", Malformed)]);
    assert_eq!(
        names("a=\"1\"x, b=\"\", c="),
        [("a", Malformed), ("b", Value(b"")), ("c", Value(b""))]
    );
    assert_eq!(
        names("a=\"b, c=1, d"),
        [("a", Malformed), ("c", Malformed), ("d", Malformed)]
    );
}

#[test]
fn rfc9111_4_2_1_conflicts_are_decided_for_the_most_restrictive() {
    let max_age = |line| response(line).max_age.map(Seconds::get);
    assert_eq!(max_age("public"), None);
    assert_eq!(max_age("max-age=10, max-age=5"), Some(5));
    assert_eq!(max_age("max-age=5, max-age=10"), Some(5));
    assert_eq!(max_age("max-age=5, max-age"), Some(0));
    assert_eq!(max_age("max-age=5, max-age=x"), Some(0));
    assert_eq!(max_age("x=\"open, max-age=5"), Some(0));
    assert!(response("x=\"open, no-store").no_store);
    assert!(response("no-store=0").no_store);
    assert!(response("NO-STORE , x").no_store);
    assert!(!response("xno-store, no-store-x").no_store);
    assert_eq!(response("s-maxage=").s_maxage, Some(Seconds::ZERO));
    assert_eq!(
        response("stale-while-revalidate=9, stale-while-revalidate=3").stale_while_revalidate,
        Some(Seconds::new(3))
    );
}

#[test]
fn rfc9111_5_2_2_4_no_cache_and_private_may_be_about_fields() {
    let some = |names: &[&str]| Scoped::Fields(names.iter().map(|name| (*name).to_owned()).collect());
    let cases = [
        ("max-age=1", Scoped::Absent),
        ("no-cache", Scoped::All),
        ("no-cache=\"A, b\"", some(&["a", "b"])),
        ("no-cache=A", some(&["a"])),
        ("no-cache=\"a\", no-cache=\"b\"", some(&["a", "b"])),
        ("no-cache=\"a\", no-cache", Scoped::All),
        ("no-cache, no-cache=\"a\"", Scoped::All),
        ("no-cache=\"\"", Scoped::All),
        ("no-cache=\"a b\"", Scoped::All),
        ("no-cache=\"a", Scoped::All),
        ("no-cache =\"a\"", Scoped::All),
    ];
    for (line, expected) in cases {
        assert_eq!(response(line).no_cache, expected, "{line}");
        assert_eq!(
            response(&line.replace("no-cache", "private")).private,
            expected,
            "{line}"
        );
    }
}

#[test]
fn rfc9111_5_2_1_requests() {
    let found = request("no-cache, no-store, only-if-cached, no-transform, max-age=1, min-fresh=2, stale-if-error=3");
    assert!(found.no_cache && found.no_store && found.only_if_cached && found.no_transform);
    assert_eq!(found.max_age, Some(Seconds::new(1)));
    assert_eq!(found.min_fresh, Some(Seconds::new(2)));
    assert_eq!(found.stale_if_error, Some(Seconds::new(3)));
    assert_eq!(request("min-fresh=x").min_fresh, Some(Seconds::MAX));
    assert_eq!(request("min-fresh=9, min-fresh=3").min_fresh, Some(Seconds::new(9)));
    let stale = |line| request(line).max_stale;
    let up_to = |seconds| Some(MaxStale::UpTo(Seconds::new(seconds)));
    assert_eq!(stale("max-stale"), Some(MaxStale::Any));
    assert_eq!(stale("max-stale=5"), up_to(5));
    assert_eq!(stale("max-stale=x"), up_to(0));
    assert_eq!(stale("max-stale, max-stale=5"), up_to(5));
    assert_eq!(stale("max-stale=5, max-stale"), up_to(5));
    assert_eq!(stale("max-stale=5, max-stale=3"), up_to(3));
}

#[test]
fn rfc9111_5_4_pragma_counts_only_without_cache_control() {
    let pragma = ("Pragma", "x, No-Cache");
    assert!(RequestDirectives::parse(&fields(&[pragma])).no_cache);
    assert!(!RequestDirectives::parse(&fields(&[pragma, ("Cache-Control", "")])).no_cache);
    assert!(ResponseDirectives::parse(&fields(&[pragma]), &[]).no_cache.is_all());
    assert!(
        !ResponseDirectives::parse(&fields(&[pragma, ("Cache-Control", "public")]), &[])
            .no_cache
            .is_all()
    );
}

#[test]
fn rfc9213_2_2_the_first_valid_targeted_field_counts() {
    let targeted = ["Forebay-Cache-Control".to_owned(), "CDN-Cache-Control".to_owned()];
    let source = |lines: &[(&str, &str)]| ResponseDirectives::parse(&fields(lines), &targeted);
    let own = ("Forebay-Cache-Control", "max-age=1");
    let cdn = ("CDN-Cache-Control", "max-age=2");
    let general = ("Cache-Control", "max-age=3");
    let max_age = |lines: &[(&str, &str)]| source(lines).max_age.map(Seconds::get);
    assert_eq!(max_age(&[general, cdn, own]), Some(1));
    assert_eq!(max_age(&[general, cdn]), Some(2));
    assert_eq!(max_age(&[general]), Some(3));
    assert_eq!(source(&[general, cdn]).source, DirectiveSource::Targeted);
    assert_eq!(source(&[general]).source, DirectiveSource::CacheControl);
    for rubbish in [
        "",
        "max-age=?1",
        "max-age=(1 2)",
        "max-age=1.5",
        "max-age=\"1\"",
        "max-age",
        "Max-Age=1",
        "a b",
        "\u{fc}",
    ] {
        assert_eq!(
            max_age(&[general, cdn, ("Forebay-Cache-Control", rubbish)]),
            Some(2),
            "{rubbish}"
        );
    }
    let found = source(&[(
        "CDN-Cache-Control",
        "max-age=5, no-store=?0, must-revalidate, no-cache=\"A\", private=?1",
    )]);
    assert!(!found.no_store && found.must_revalidate);
    assert!(found.no_cache.names("a") && found.private.is_all());
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        prop_assert!(directives(&bytes).count() <= bytes.len());
    }

    #[test]
    fn a_plain_restriction_is_never_hidden(before in "[a-z=\", ]{0,20}", after in "[a-z=\", ]{0,20}") {
        // Unless it stands in a closed quoted string.
        let quotes = before.matches('"').count();
        let found = response(&format!("{before}, no-store, {after}")).no_store;
        prop_assert!(found || !quotes.is_multiple_of(2) && after.contains('"'));
    }
}
