use proptest::prelude::*;

use super::*;
use crate::rfc9111::tests::{Lines, get, request};

fn key(target: &str) -> CacheKey {
    CacheKey::new(&request("GET", target, &[]), &KeyOptions::default())
}

fn key_with(target: &str, query: &QueryOptions) -> CacheKey {
    let options = KeyOptions {
        query: query.clone(),
        ..KeyOptions::default()
    };
    CacheKey::new(&request("GET", target, &[]), &options)
}

fn globs(patterns: &[&str]) -> Vec<Glob> {
    patterns.iter().map(|pattern| Glob::new(*pattern)).collect()
}

#[test]
fn rfc3986_6_2_2_what_means_the_same_has_one_key() {
    let cases = [
        ("/%7euser", "/~user"),
        ("/%41%2dz%5F", "/A-z_"),
        ("/a%2fb", "/a%2Fb"),
        ("/?%61=%62", "/?a=b"),
        ("/%c3%bc", "/%C3%BC"),
        ("/%2e%2E", "/%2E%2e"),
    ];
    for (one, other) in cases {
        assert_eq!(key(one), key(other), "{one} {other}");
        assert_eq!(key(one).hash128(), key(other).hash128());
    }
}

#[test]
fn what_an_origin_can_tell_apart_never_shares_a_key() {
    let targets = [
        "/",
        "//",
        "/a",
        "/a/",
        "/A",
        "/a?",
        "/a?b",
        "/a?b=",
        "/a?b&",
        "/a//b",
        "/a/b",
        "/a%2Fb",
        "/./a",
        "/../a",
        "/x/../a",
        "/%2E/a",
        "/%2E%2E/a",
        "/?a=1&b=2",
        "/?b=2&a=1",
        "/?a=1%26b=2",
        "/?a=1;b=2",
        "/a%3Fb",
        "/a%23",
        "/%",
        "/%zz",
        "/%25zz",
        "/%00",
        "/+",
        "/%20",
        "/a%20b",
        "/a+b",
        "*",
    ];
    for (at, one) in targets.iter().enumerate() {
        for other in &targets[at + 1..] {
            assert_ne!(key(one), key(other), "{one} {other}");
        }
    }
}

#[test]
fn rfc9110_4_2_3_hosts_have_no_case_and_default_ports_go() {
    let with = |scheme: Scheme, authority: &str| {
        let mut head = get(&[]);
        head.scheme = scheme;
        head.authority = authority.into();
        CacheKey::new(&head, &KeyOptions::default())
    };
    use Scheme::{Http, Https};
    for (scheme, one, other) in [
        (Http, "EXAMPLE.org", "example.org"),
        (Http, "example.org:80", "example.org"),
        (Http, "example.org:", "example.org"),
        (Https, "example.org:443", "example.org"),
        (Http, "[::1]:80", "[::1]"),
    ] {
        assert_eq!(with(scheme, one), with(scheme, other), "{one} {other}");
    }
    for (scheme, one, other_scheme, other) in [
        (Http, "example.org", Https, "example.org"),
        (Http, "example.org:443", Http, "example.org"),
        (Https, "example.org:80", Https, "example.org"),
        (Http, "example.org:8080", Http, "example.org"),
        (Http, "example.org.", Http, "example.org"),
        (Http, "[::1]", Http, "[::80]"),
    ] {
        assert_ne!(with(scheme, one), with(other_scheme, other), "{one} {other}");
    }
}

#[test]
fn query_options_say_which_parameters_count() {
    let ignoring = QueryOptions {
        ignore: globs(&["utm_*", "gclid"]),
        ..QueryOptions::default()
    };
    let keeping = QueryOptions {
        keep: Some(globs(&["page", "q"])),
        ..QueryOptions::default()
    };
    let sorting = QueryOptions {
        order: QueryOrder::Sorted,
        ..QueryOptions::default()
    };
    let cases = [
        (&ignoring, "/?a=1&utm_source=x&gclid=y", "/?a=1", true),
        (&ignoring, "/?utm%5Fsource=x", "/", true),
        (&ignoring, "/?utm_source", "/", true),
        (&ignoring, "/?xutm_source=1", "/", false),
        (&ignoring, "/?utm_source=1;admin=1", "/", false),
        (&ignoring, "/?b=2&a=1", "/?a=1&b=2", false),
        (&keeping, "/?page=1&x=2&q=3", "/?page=1&q=3", true),
        (&keeping, "/?x=2", "/", true),
        (&keeping, "/?Page=2", "/?Page=3", true),
        (&keeping, "/?page=1", "/?page=2", false),
        (&keeping, "/?x=1;page=2", "/", false),
        (&sorting, "/?b=2&a=1", "/?a=1&b=2", true),
        (&sorting, "/?a=2&b=1&a=1", "/?b=1&a=2&a=1", true),
        (&sorting, "/?a=2&a=1", "/?a=1&a=2", false),
        (&sorting, "/?", "/", false),
    ];
    for (options, one, other, same) in cases {
        assert_eq!(
            key_with(one, options) == key_with(other, options),
            same,
            "{one} {other}"
        );
    }
}

#[test]
fn headers_and_cookies_of_the_route_are_part_of_the_key() {
    let options = KeyOptions {
        headers: vec!["accept-language".to_owned(), "x-tenant".to_owned()],
        cookies: vec!["lang".to_owned()],
        ..KeyOptions::default()
    };
    let key = |lines: &[(&str, &str)]| CacheKey::new(&get(lines), &options);
    let same: &[(Lines<'_>, Lines<'_>)] = &[
        (&[("Accept-Language", "en, de")], &[("Accept-Language", "de,en")]),
        (&[("Cookie", "a=b")], &[]),
        (&[("Cookie", "a=b; lang=de")], &[("Cookie", "lang=de; c=d")]),
        (&[("Cookie", "a=b"), ("Cookie", "lang=de")], &[("Cookie", "lang=de")]),
        (&[("X-Other", "1")], &[]),
    ];
    for (one, other) in same {
        assert_eq!(key(one), key(other), "{one:?} {other:?}");
    }
    let different: &[(Lines<'_>, Lines<'_>)] = &[
        (&[("X-Tenant", "1")], &[("X-Tenant", "2")]),
        (&[("X-Tenant", "")], &[]),
        (&[("Cookie", "lang=de")], &[("Cookie", "lang=en")]),
        (&[("Cookie", "lang=de; lang=en")], &[("Cookie", "lang=de")]),
        (&[("Cookie", "lang=")], &[]),
        (&[("Cookie", "Lang=de")], &[("Cookie", "lang=de")]),
        (&[("Cookie", "xlang=de")], &[("Cookie", "lang=de")]),
    ];
    for (one, other) in different {
        assert_ne!(key(one), key(other), "{one:?} {other:?}");
        assert_eq!(key(one).uri(), key(other).uri(), "one URI");
    }
    let uri = ResourceUri::of(&get(&[]));
    assert_eq!(key(&[]).uri(), CacheKey::of_uri(&uri, &options.query).uri());
}

#[test]
fn what_a_key_says_nothing_of_has_none() {
    assert_eq!(unkeyable(&get(&[])), None);
    assert_eq!(unkeyable(&request("HEAD", "/", &[])), None);
    assert_eq!(unkeyable(&request("POST", "/", &[])), Some(Unkeyable::Method));
    assert_eq!(unkeyable(&request("GET", "*", &[])), Some(Unkeyable::Target));
    for name in ["X-HTTP-Method-Override", "X-Original-URL", "X-Rewrite-URL"] {
        assert_eq!(
            unkeyable(&get(&[(name, "/admin")])),
            Some(Unkeyable::Override),
            "{name}"
        );
    }
    for (framing, expected) in [
        (Framing::Length(0), None),
        (Framing::Length(1), Some(Unkeyable::Content)),
        (Framing::Chunked, Some(Unkeyable::Content)),
        (Framing::Stream, Some(Unkeyable::Content)),
    ] {
        let mut head = get(&[]);
        head.framing = framing;
        assert_eq!(unkeyable(&head), expected, "{framing:?}");
    }
    let mut head = get(&[]);
    head.upgrade = true;
    assert_eq!(unkeyable(&head), Some(Unkeyable::Upgrade));
}

/// Decodes what [`normalise_target`] may decode, byte for byte; all bytes as they are where a `%` makes no sense.
fn meaning(target: &str) -> Vec<(bool, u8)> {
    let raw = || target.bytes().map(|byte| (false, byte)).collect();
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(byte) = target.as_bytes().get(at) {
        if *byte != b'%' {
            out.push((false, *byte));
            at += 1;
            continue;
        }
        let digits = target
            .get(at + 1..at + 3)
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let Some(digits) = digits else {
            return raw();
        };
        let byte = u8::from_str_radix(digits, 16).unwrap();
        let plain = byte.is_ascii_alphanumeric() || b"-_~".contains(&byte);
        out.push((!plain, byte));
        at += 3;
    }
    out
}

proptest! {
    #[test]
    fn keys_are_equal_exactly_where_targets_mean_the_same(
        one in "/([aA/.~?&=%]|%[0-9a-fA-F]{2}|%4|%2){0,8}",
        other in "/([aA/.~?&=%]|%[0-9a-fA-F]{2}|%4|%2){0,8}",
    ) {
        prop_assert_eq!(key(&one) == key(&other), meaning(&one) == meaning(&other));
        prop_assert_eq!(key(&one), key(&normalise_target(&one)), "normal forms are their own");
    }

    #[test]
    fn parts_never_run_into_each_other(
        one in proptest::collection::vec("[ab]{0,3}", 2),
        other in proptest::collection::vec("[ab]{0,3}", 2),
    ) {
        let options = KeyOptions { headers: vec!["x".to_owned(), "y".to_owned()], ..KeyOptions::default() };
        let key = |values: &[String]| CacheKey::new(&get(&[("X", &values[0]), ("Y", &values[1])]), &options);
        prop_assert_eq!(key(&one) == key(&other), one == other);
    }

    #[test]
    fn any_target_and_authority_have_a_key(target in ".{0,40}", authority in ".{0,20}") {
        let mut head = request("GET", &target, &[]);
        head.authority = authority.into();
        let _ = CacheKey::new(&head, &KeyOptions {
            query: QueryOptions { ignore: globs(&["a*"]), keep: None, order: QueryOrder::Sorted },
            ..KeyOptions::default()
        });
    }
}

#[test]
fn a_key_tells_what_it_was_asked_with() {
    let options = KeyOptions {
        query: QueryOptions {
            ignore: globs(&["utm"]),
            ..QueryOptions::default()
        },
        headers: vec!["x-a".into(), "x-b".into()],
        cookies: vec!["theme".into(), "lang".into()],
    };
    let cases: [Lines; 4] = [
        &[],
        &[("X-A", "one, two")],
        &[("X-B", ""), ("Cookie", "lang=de; other=1; theme=dark; theme=light")],
        &[("X-A", "x-b"), ("X-B", "theme")],
    ];
    for fields in cases {
        let found = CacheKey::new(&request("GET", "/a?x=1&utm=2", fields), &options);
        let again = found.asked_with(&options).unwrap();
        let again: Vec<(&str, &str)> = again.iter().map(|(name, value)| (&**name, &**value)).collect();
        let uri = KeyUri::parse(found.uri()).unwrap();
        let same = CacheKey::new(
            &request("GET", &format!("{}?{}", uri.path, uri.query.unwrap()), &again),
            &options,
        );
        assert_eq!(found, same, "{fields:?} {again:?}");
        let other = KeyOptions {
            headers: vec!["x-a".into()],
            ..options.clone()
        };
        assert_eq!(found.asked_with(&other), None);
        assert_eq!(found.asked_with(&KeyOptions::default()), None);
    }
}
