use super::*;
use crate::rfc9111::date::Timestamp;
use crate::rfc9111::tests::{Lines, NOW, at_once, dated_fields, get, policy, request, response};

fn decide(request: &RequestHead, status: u16, lines: &[(&str, &str)], policy: &StorePolicy<'_>) -> Storable {
    let mut head = response(status, &[]);
    head.fields = dated_fields(lines);
    storable(request, &head, at_once(NOW), policy)
}

fn reason(request: &RequestHead, status: u16, lines: &[(&str, &str)], policy: &StorePolicy<'_>) -> Option<Unstorable> {
    match decide(request, status, lines, policy) {
        Storable::Yes(_) => None,
        Storable::No(reason) => Some(reason),
    }
}

fn accepted(lines: &[(&str, &str)], policy: &StorePolicy<'_>) -> Accepted {
    match decide(&get(&[]), 200, lines, policy) {
        Storable::Yes(accepted) => *accepted,
        Storable::No(reason) => panic!("{reason:?}"),
    }
}

const FRESH: (&str, &str) = ("Cache-Control", "max-age=60");

#[test]
fn rfc9111_3_each_reason_has_its_condition() {
    use Unstorable::*;
    let cases: &[(u16, Lines<'_>, Option<Unstorable>)] = &[
        (200, &[FRESH], None),
        (103, &[FRESH], Some(Status)),
        (304, &[FRESH], Some(Status)),
        (401, &[FRESH], Some(Status)),
        (412, &[FRESH], Some(Status)),
        (416, &[FRESH], Some(Status)),
        (600, &[FRESH], Some(Status)),
        (
            599,
            &[("Cache-Control", "max-age=60, must-understand")],
            Some(NotUnderstood),
        ),
        (200, &[("Cache-Control", "max-age=60, no-store")], Some(NoStore)),
        (200, &[("Cache-Control", "max-age=60, private")], Some(Private)),
        (200, &[("Cache-Control", "max-age=60, private=\"\"")], Some(Private)),
        (200, &[("Cache-Control", "max-age=60, private=\"x\"")], None),
        (200, &[FRESH, ("Set-Cookie", "a=b")], Some(SetCookie)),
        (200, &[FRESH, ("Set-Cookie2", "a=b")], Some(SetCookie)),
        (
            200,
            &[
                ("Cache-Control", "max-age=60, no-cache=\"Set-Cookie\""),
                ("Set-Cookie", "a=b"),
            ],
            None,
        ),
        (200, &[FRESH, ("Vary", "*")], Some(VaryStar)),
        (200, &[], Some(NoFreshness)),
        (200, &[("Cache-Control", "max-age=0")], Some(NoFreshness)),
        (200, &[("Cache-Control", "max-age=60, no-cache")], Some(NoFreshness)),
        (200, &[("Cache-Control", "no-cache"), ("ETag", "\"a\"")], None),
        (200, &[("ETag", "\"a\"")], None),
        (500, &[("ETag", "\"a\"")], Some(NoFreshness)),
        (206, &[FRESH, ("Content-Range", "bytes 0-9/20")], Some(Partial)),
        (
            200,
            &[FRESH, ("Content-Type", "Text/Event-Stream; charset=utf-8")],
            Some(EventStream),
        ),
    ];
    for (status, lines, expected) in cases {
        assert_eq!(
            reason(&get(&[]), *status, lines, &policy(&[])),
            *expected,
            "{status} {lines:?}"
        );
    }
    for (method, expected) in [
        ("GET", None),
        ("HEAD", Some(Method)),
        ("PUT", Some(Method)),
        ("QUERY", Some(Method)),
    ] {
        assert_eq!(
            reason(&request(method, "/", &[]), 200, &[FRESH], &policy(&[])),
            expected,
            "{method}"
        );
    }
    assert_eq!(
        reason(&get(&[("Cache-Control", "no-store")]), 200, &[FRESH], &policy(&[])),
        Some(RequestNoStore)
    );
    let ignoring = StorePolicy {
        request_directives: ClientDirectives::Ignore,
        ..policy(&[])
    };
    assert_eq!(
        reason(&get(&[("Cache-Control", "no-store")]), 200, &[FRESH], &ignoring),
        None
    );
}

#[test]
fn rfc9111_3_3_what_may_be_incomplete_is_not_stored() {
    let mut head = response(200, &[FRESH]);
    head.framing = Framing::Close;
    let decision = storable(&get(&[]), &head, at_once(NOW), &policy(&[]));
    assert!(matches!(decision, Storable::No(Unstorable::CloseDelimited)));
    let ranged = get(&[("Range", "bytes=0-9")]);
    assert_eq!(
        reason(&ranged, 206, &[FRESH, ("Content-Range", "bytes 0-9/20")], &policy(&[])),
        None
    );
    for bad in ["bytes 9-0/20", "bytes 0-9/5", "bytes */20", "items 0-9/20", ""] {
        let lines = [FRESH, ("Content-Range", bad)];
        assert_eq!(
            reason(&ranged, 206, &lines, &policy(&[])),
            Some(Unstorable::Partial),
            "{bad}"
        );
    }
    let multipart = [FRESH, ("Content-Type", "multipart/byteranges; boundary=x")];
    assert_eq!(
        reason(&ranged, 206, &multipart, &policy(&[])),
        Some(Unstorable::Partial)
    );
}

#[test]
fn rfc9111_3_1_fields_of_the_connection_are_not_stored() {
    let gone = [
        ("Connection", "a, B"),
        ("A", "1"),
        ("b", "2"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Authenticate", "x"),
        ("Proxy-Authentication-Info", "x"),
        ("Proxy-Authorization", "x"),
        ("Proxy-Connection", "x"),
        ("TE", "x"),
        ("Trailer", "x"),
        ("Transfer-Encoding", "chunked"),
        ("Upgrade", "x"),
        ("Age", "1"),
    ];
    let kept = [
        FRESH,
        ("C", "3"),
        ("Clear-Site-Data", "cookies"),
        ("Content-Encoding", "x"),
        ("Content-Location", "/bar"),
        ("Content-MD5", "x"),
        ("Content-Security-Policy", "default-src 'self'"),
        ("Content-Type", "text/plain"),
        ("ETag", "\"a\""),
        ("Expires", "Mon, 11 Jan 2038 11:11:11 GMT"),
        ("Public-Key-Pins", "x"),
        ("Cache-Tag", "users"),
        ("Cache-Groups", "\"users\""),
        ("Cache-Status", "Origin; hit"),
        ("X-Frame-Options", "deny"),
        ("Date", "Thu, 01 Jan 2026 00:00:00 GMT"),
    ];
    let stored = accepted(&[&gone[..], &kept[..]].concat(), &policy(&[])).fields;
    let found: Vec<(&str, &[u8])> = stored.iter().collect();
    let expected: Vec<(&str, &[u8])> = kept.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    assert_eq!(found, expected);
}

#[test]
fn rfc9111_5_2_2_4_listed_fields_are_left_out() {
    let lines = [
        ("Cache-Control", "max-age=60, no-cache=\"a, B\", private=\"C\""),
        ("A", "1"),
        ("b", "2"),
        ("c", "3"),
        ("d", "4"),
    ];
    let stored = accepted(&lines, &policy(&[]));
    assert!(!stored.fields.contains("a") && !stored.fields.contains("b") && !stored.fields.contains("c"));
    assert_eq!(stored.fields.get("d"), Some(&b"4"[..]));
    assert!(!stored.meta.restrictions.no_cache);
}

#[test]
fn rfc9110_6_6_1_a_missing_or_broken_date_is_the_time_of_receipt() {
    let lines: &[&[(&str, &str)]] = &[
        &[FRESH],
        &[FRESH, ("Date", "rubbish")],
        &[
            FRESH,
            ("Date", "Thu, 01 Jan 2026 00:00:00 GMT"),
            ("Date", "Thu, 01 Jan 2026 00:00:00 GMT"),
        ],
    ];
    for lines in lines {
        let dates: Vec<Vec<u8>> = accepted(lines, &policy(&[]))
            .fields
            .get_all("date")
            .map(<[u8]>::to_vec)
            .collect();
        assert_eq!(dates, [b"Thu, 01 Jan 2026 00:00:00 GMT".to_vec()]);
    }
}

#[test]
fn set_cookie_is_stripped_where_the_route_says_so() {
    let strip = StorePolicy {
        set_cookie: super::SetCookie::Strip,
        ..policy(&[])
    };
    let stored = accepted(&[FRESH, ("Set-Cookie", "a=b"), ("X", "1")], &strip);
    assert!(!stored.fields.contains("set-cookie"));
    assert!(stored.fields.contains("x"));
}

#[test]
fn a_routes_lifetime_takes_the_place_of_the_origins() {
    let statuses = [(404, Duration::from_secs(10)), (200, Duration::from_secs(7))];
    let lifetime = |status: u16, lines: &[(&str, &str)], rules: LifetimeRules<'_>| {
        let policy = StorePolicy {
            lifetime: rules,
            ..policy(&[])
        };
        match decide(&get(&[]), status, lines, &policy) {
            Storable::Yes(accepted) => Some((accepted.meta.lifetime.seconds.get(), accepted.meta.ttl(NOW))),
            Storable::No(_) => None,
        }
    };
    let ttl = LifetimeRules {
        ttl: Some(Duration::from_secs(300)),
        ..LifetimeRules::default()
    };
    let fallback = LifetimeRules {
        default_ttl: Some(Duration::from_secs(300)),
        ..LifetimeRules::default()
    };
    let by_status = LifetimeRules {
        statuses: &statuses,
        ..ttl
    };
    assert_eq!(lifetime(200, &[], ttl), Some((300, 300)));
    assert_eq!(lifetime(200, &[FRESH], ttl), Some((300, 300)));
    assert_eq!(
        lifetime(200, &[FRESH, ("Age", "100")], ttl),
        Some((400, 300)),
        "counted from arrival"
    );
    for status in [200, 203, 301, 308] {
        assert_eq!(lifetime(status, &[], ttl), Some((300, 300)), "{status}");
        assert_eq!(lifetime(status, &[], fallback), Some((300, 300)), "{status}");
    }
    for status in [204, 302, 404, 410, 500] {
        assert_eq!(lifetime(status, &[], ttl), None, "{status}");
        assert_eq!(lifetime(status, &[FRESH], ttl), Some((60, 60)), "{status}");
        assert_eq!(lifetime(status, &[], fallback), None, "{status}");
    }
    assert_eq!(lifetime(200, &[FRESH], fallback), Some((60, 60)));
    assert_eq!(lifetime(200, &[("Cache-Control", "max-age=0")], fallback), None);
    assert_eq!(
        lifetime(200, &[("Last-Modified", "@-86400")], fallback),
        Some((300, 300))
    );
    assert_eq!(lifetime(404, &[], by_status), Some((10, 10)));
    assert_eq!(lifetime(200, &[FRESH], by_status), Some((7, 7)));
}

#[test]
fn a_routes_lifetime_changes_nothing_else() {
    let statuses = [(401, Duration::from_secs(10))];
    let policy = StorePolicy {
        lifetime: LifetimeRules {
            ttl: Some(Duration::from_secs(300)),
            default_ttl: Some(Duration::from_secs(300)),
            statuses: &statuses,
        },
        ..policy(&[])
    };
    let cc = |value| [("Cache-Control", value)];
    let anonymous = get(&[]);
    assert_eq!(reason(&anonymous, 200, &[], &policy), None);
    assert_eq!(
        reason(&anonymous, 200, &cc("no-store"), &policy),
        Some(Unstorable::NoStore)
    );
    assert_eq!(
        reason(&anonymous, 200, &cc("private"), &policy),
        Some(Unstorable::Private)
    );
    assert_eq!(
        reason(&anonymous, 200, &cc("no-cache"), &policy),
        Some(Unstorable::NoFreshness)
    );
    assert_eq!(
        reason(&anonymous, 200, &[("Set-Cookie", "a=b")], &policy),
        Some(Unstorable::SetCookie)
    );
    assert_eq!(
        reason(&anonymous, 200, &[("Vary", "*")], &policy),
        Some(Unstorable::VaryStar)
    );
    assert_eq!(reason(&anonymous, 401, &[], &policy), Some(Unstorable::Status));
    let known = get(&[("Authorization", "x")]);
    assert_eq!(reason(&known, 200, &[FRESH], &policy), Some(Unstorable::Authorization));
}

#[test]
fn a_lifetime_that_is_not_the_origins_does_not_apply_to_requests_with_cookies() {
    let ttl = LifetimeRules {
        ttl: Some(Duration::from_secs(300)),
        ..LifetimeRules::default()
    };
    let with_cookie = get(&[("Cookie", "session=1")]);
    for (cookies, expected) in [
        (RequestCookies::Unaccounted, Some(Unstorable::Cookie)),
        (RequestCookies::Accounted, None),
    ] {
        let heuristic = StorePolicy { cookies, ..policy(&[]) };
        let by_route = StorePolicy {
            lifetime: ttl,
            ..heuristic.clone()
        };
        assert_eq!(reason(&with_cookie, 200, &[], &by_route), expected);
        assert_eq!(
            reason(&with_cookie, 200, &[("Last-Modified", "@-86400")], &heuristic),
            expected
        );
        assert_eq!(
            reason(&with_cookie, 200, &[FRESH], &heuristic),
            None,
            "the origin's own"
        );
        assert_eq!(reason(&get(&[]), 200, &[], &by_route), None, "no cookie");
    }
}

#[test]
fn what_is_stored_is_kept_as_long_as_it_may_be_of_use() {
    let keep = Duration::from_secs(600);
    let windows = StaleWindows {
        while_revalidate: Duration::from_secs(5),
        if_error: Duration::from_secs(30),
    };
    let until = |lines: &[(&str, &str)]| {
        let meta = accepted(lines, &policy(&[])).meta;
        meta.useless_from(windows, keep).since(NOW).as_secs()
    };
    assert_eq!(until(&[FRESH]), 60 + 30);
    assert_eq!(until(&[FRESH, ("Age", "20")]), 40 + 30);
    assert_eq!(until(&[FRESH, ("ETag", "\"a\"")]), 60 + 600);
    assert_eq!(until(&[("Cache-Control", "max-age=60, stale-if-error=0")]), 60 + 5);
    assert_eq!(until(&[("Cache-Control", "max-age=60, must-revalidate")]), 60);
    assert!(Timestamp::from_millis(u64::MAX).plus(keep) == Timestamp::from_millis(u64::MAX));
}
