use super::*;
use crate::rfc9111::freshness::{Lifetime, LifetimeSource};
use crate::rfc9111::tests::{NOW, Shelf, get, response};

fn stored(lines: &[(&str, &str)]) -> StoredMeta {
    let mut shelf = Shelf::new();
    shelf.store(&get(&[]), &response(200, lines), NOW).unwrap();
    shelf.stored.remove(0).0
}

fn after(seconds: u64) -> Timestamp {
    NOW.plus(Duration::from_secs(seconds))
}

#[test]
fn rfc9211_2_2_the_reason_for_going_to_the_origin() {
    let plain = stored(&[("Cache-Control", "max-age=10")]);
    let tagged = stored(&[("Cache-Control", "max-age=10"), ("ETag", "\"a\"")]);
    let policy = ReusePolicy::default();
    let at =
        |meta: &StoredMeta, seconds: u64, lines: &[(&str, &str)]| reuse(&get(lines), meta, after(seconds), &policy);
    let no_cache = [("Cache-Control", "no-cache")];
    assert_eq!(at(&plain, 10, &[]), Reuse::Forward(Forward::Stale));
    assert_eq!(at(&tagged, 10, &[]), Reuse::Validate(Forward::Stale));
    assert_eq!(at(&plain, 0, &no_cache), Reuse::Forward(Forward::Request));
    assert_eq!(at(&tagged, 0, &no_cache), Reuse::Validate(Forward::Request));
    assert_eq!(at(&tagged, 10, &no_cache), Reuse::Validate(Forward::Stale));
    assert_eq!(
        at(&tagged, 0, &[("If-Match", "\"a\"")]),
        Reuse::Forward(Forward::Request)
    );
    let words: Vec<&str> = [
        Forward::Bypass,
        Forward::Method,
        Forward::UriMiss,
        Forward::VaryMiss,
        Forward::Miss,
        Forward::Request,
        Forward::Stale,
        Forward::Partial,
    ]
    .into_iter()
    .map(Forward::as_str)
    .collect();
    assert_eq!(
        words,
        [
            "bypass",
            "method",
            "uri-miss",
            "vary-miss",
            "miss",
            "request",
            "stale",
            "partial"
        ]
    );
}

#[test]
fn rfc9111_4_2_fresh_until_the_age_reaches_the_lifetime() {
    let meta = stored(&[("Cache-Control", "max-age=10")]);
    let at = |millis: u64| {
        reuse(
            &get(&[]),
            &meta,
            NOW.plus(Duration::from_millis(millis)),
            &ReusePolicy::default(),
        )
    };
    let Reuse::Fresh(served) = at(9_999) else {
        panic!("stale");
    };
    assert_eq!((served.age.get(), served.ttl), (9, 1));
    assert_eq!(at(10_000), Reuse::Forward(Forward::Stale));
    assert_eq!(meta.ttl(after(25)), -15);
    // A clock that goes back makes nothing younger than it was.
    assert_eq!(meta.age(Timestamp::from_millis(0)), Duration::ZERO);
}

#[test]
fn rfc9111_5_2_1_request_directives_may_be_ignored() {
    let meta = stored(&[("Cache-Control", "max-age=10")]);
    let ignoring = ReusePolicy {
        request_directives: ClientDirectives::Ignore,
        ..ReusePolicy::default()
    };
    for directive in ["no-cache", "no-store", "max-age=0", "min-fresh=100"] {
        let reuse = reuse(&get(&[("Cache-Control", directive)]), &meta, NOW, &ignoring);
        assert!(matches!(reuse, Reuse::Fresh(_)), "{directive}");
    }
    let only = get(&[("Cache-Control", "only-if-cached")]);
    assert_eq!(
        without_stored(&only.fields, Forward::UriMiss, &ignoring),
        Reuse::Forward(Forward::UriMiss)
    );
    assert_eq!(
        without_stored(&only.fields, Forward::UriMiss, &ReusePolicy::default()),
        Reuse::GatewayTimeout
    );
}

#[test]
fn rfc5861_a_routes_windows_apply_where_the_origin_is_silent() {
    let policy = ReusePolicy {
        windows: StaleWindows {
            while_revalidate: Duration::from_secs(10),
            if_error: Duration::from_secs(20),
        },
        ..ReusePolicy::default()
    };
    // Directives; stale for so long; served while it is revalidated; served instead of an error.
    let cases = [
        ("max-age=1", 9, true, true),
        ("max-age=1", 10, false, true),
        ("max-age=1", 20, false, false),
        ("max-age=1, stale-while-revalidate=5", 6, false, true),
        ("max-age=1, stale-while-revalidate=15", 14, true, true),
        ("max-age=1, stale-if-error=5", 9, true, false),
        ("max-age=1, must-revalidate", 0, false, false),
        ("max-age=1, proxy-revalidate", 0, false, false),
        ("s-maxage=1", 0, false, false),
        ("s-maxage=1, stale-if-error=5", 0, false, true),
    ];
    for (directives, stale_for, while_revalidate, if_error) in cases {
        let meta = stored(&[("Cache-Control", directives)]);
        let now = after(1 + stale_for);
        let found = reuse(&get(&[]), &meta, now, &policy);
        let is_stale = matches!(found, Reuse::Stale(StaleReason::WhileRevalidate, _));
        assert_eq!(is_stale, while_revalidate, "{directives} {stale_for}");
        assert_eq!(
            reuse_on_error(&get(&[]), &meta, now, &policy).is_some(),
            if_error,
            "{directives} {stale_for}"
        );
    }
    assert!([500, 502, 503, 504].into_iter().all(is_error));
    assert!(![200, 404, 429, 501].into_iter().any(is_error));
}

#[test]
fn a_lifetime_that_is_not_the_origins_does_not_answer_requests_with_cookies() {
    let mut meta = stored(&[("Cache-Control", "max-age=10, stale-if-error=60")]);
    let with_cookie = get(&[("Cookie", "session=1")]);
    let policy = ReusePolicy::default();
    let accounted = ReusePolicy {
        cookies: RequestCookies::Accounted,
        ..policy
    };
    assert!(matches!(reuse(&with_cookie, &meta, NOW, &policy), Reuse::Fresh(_)));
    for source in [LifetimeSource::Route, LifetimeSource::Heuristic] {
        meta.lifetime = Lifetime {
            source,
            ..meta.lifetime
        };
        assert_eq!(
            reuse(&with_cookie, &meta, NOW, &policy),
            Reuse::Forward(Forward::Request)
        );
        assert_eq!(reuse_on_error(&with_cookie, &meta, after(20), &policy), None);
        assert!(matches!(reuse(&get(&[]), &meta, NOW, &policy), Reuse::Fresh(_)));
        assert!(matches!(reuse(&with_cookie, &meta, NOW, &accounted), Reuse::Fresh(_)));
    }
}
