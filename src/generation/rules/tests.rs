//! From the file to decisions: what a route says about its cache, as the rules of RFC 9111 apply it.

use super::*;
use crate::config::{Config, Environment};
use crate::key::{CacheKey, QueryOrder};
use crate::message::RequestHead;
use crate::rfc9111::date::Timestamp;
use crate::rfc9111::freshness::LifetimeSource;
use crate::rfc9111::reuse::{Forward, Reuse, StaleReason, reuse};
use crate::rfc9111::storability::{Accepted, ClientDirectives, Storable, Unstorable, storable};
use crate::rfc9111::tests::{NOW, at_once, dated_fields, get, request, response};

/// The rules of the one route that a file has.
fn try_rules(sections: &str) -> Option<CacheRules> {
    let text = format!("listen: 0.0.0.0:80\nupstream: http://a\n{sections}");
    let loaded = Config::parse("f.yaml", &text, &Environment::fixed([]));
    let config = loaded.unwrap_or_else(|errors| panic!("{errors}\nin:\n{text}")).config;
    CacheRules::new(&config.cache, &config.routes[0])
}

fn rules(cache: &str) -> CacheRules {
    try_rules(&format!("routes: [{{ cache: {cache} }}]")).unwrap()
}

fn stored(
    rules: &CacheRules,
    request: &RequestHead,
    status: u16,
    lines: &[(&str, &str)],
) -> Result<Accepted, Unstorable> {
    let mut head = response(status, &[]);
    head.fields = dated_fields(lines);
    match storable(request, &head, at_once(NOW), &rules.store_policy()) {
        Storable::Yes(accepted) => Ok(*accepted),
        Storable::No(why) => Err(why),
    }
}

/// Seconds of freshness and what they rest on.
fn lifetime(rules: &CacheRules, status: u16, lines: &[(&str, &str)]) -> Result<(u32, LifetimeSource), Unstorable> {
    let accepted = stored(rules, &get(&[]), status, lines)?;
    Ok((accepted.meta.lifetime.seconds.get(), accepted.meta.lifetime.source))
}

const ORIGIN: (&str, &str) = ("Cache-Control", "max-age=60");

#[test]
fn ttl_and_default_ttl_are_for_four_statuses() {
    let ttl = rules("{ ttl: 5m }");
    let default_ttl = rules("{ default_ttl: 5m }");
    for status in 200..=599 {
        let applies = matches!(status, 200 | 203 | 301 | 308);
        let route = Ok((300, LifetimeSource::Route));
        let origin = lifetime(&rules("on"), status, &[ORIGIN]);
        let none = lifetime(&rules("on"), status, &[]);
        assert_eq!(
            lifetime(&ttl, status, &[ORIGIN]),
            if applies { route } else { origin },
            "{status}"
        );
        assert_eq!(
            lifetime(&ttl, status, &[]),
            if applies { route } else { none },
            "{status}"
        );
        assert_eq!(lifetime(&default_ttl, status, &[ORIGIN]), origin, "{status}");
        assert_eq!(
            lifetime(&default_ttl, status, &[]),
            if applies { route } else { none },
            "{status}"
        );
    }
}

#[test]
fn other_statuses_need_statuses() {
    let rules = rules("{ ttl: 5m, statuses: { 404: 10s, 503: 1s, 200: 1m } }");
    for (status, expected) in [(404, 10), (503, 1), (200, 60), (203, 300)] {
        let expected = Ok((expected, LifetimeSource::Route));
        assert_eq!(lifetime(&rules, status, &[]), expected, "{status}");
        assert_eq!(
            lifetime(&rules, status, &[("Cache-Control", "max-age=7")]),
            expected,
            "{status}"
        );
    }
    assert_eq!(lifetime(&rules, 500, &[]), Err(Unstorable::NoFreshness));
}

/// The file refuses exactly the statuses that would never be stored; parts are left to the origin.
#[test]
fn statuses_of_the_file_are_those_that_can_be_stored() {
    for status in 200..=599 {
        let text = format!(
            "listen: 0.0.0.0:80\nupstream: http://a\nroutes: [{{ cache: {{ statuses: {{ {status}: 10s }} }} }}]"
        );
        let accepted = Config::parse("f.yaml", &text, &Environment::fixed([])).is_ok();
        let mut rules = rules("on");
        rules.statuses = vec![(status, Duration::from_secs(10))];
        assert_eq!(accepted, lifetime(&rules, status, &[]).is_ok(), "{status}");
    }
}

#[test]
fn a_lifetime_lifts_no_prohibition() {
    let tag = ("ETag", "\"a\"");
    for cache in ["{ ttl: 5m }", "{ default_ttl: 5m }", "{ statuses: { 200: 5m } }"] {
        let rules = rules(cache);
        for (lines, expected) in [
            (&[("Cache-Control", "no-store")][..], Unstorable::NoStore),
            (&[("Cache-Control", "private")], Unstorable::Private),
            (&[("Set-Cookie", "a=b")], Unstorable::SetCookie),
            (&[("Vary", "*")], Unstorable::VaryStar),
        ] {
            assert_eq!(lifetime(&rules, 200, lines), Err(expected), "{cache} {lines:?}");
        }
        // RFC 9111 §5.2.2.4: stored, but never used without validation.
        let accepted = stored(&rules, &get(&[]), 200, &[("Cache-Control", "no-cache"), tag]).unwrap();
        let decision = reuse(&get(&[]), &accepted.meta, NOW, &rules.reuse);
        assert_eq!(decision, Reuse::Validate(Forward::Stale), "{cache}");
        // RFC 9111 §3.5.
        let authorized = get(&[("Authorization", "Basic YTpi")]);
        assert_eq!(
            stored(&rules, &authorized, 200, &[]).unwrap_err(),
            Unstorable::Authorization
        );
        assert!(stored(&rules, &authorized, 200, &[("Cache-Control", "public")]).is_ok());
    }
}

#[test]
fn a_lifetime_that_is_not_the_origins_waits_for_a_word_on_cookies() {
    let with_cookie = get(&[("Cookie", "session=1")]);
    let modified = ("Last-Modified", "@-100000");
    for (lifetime, lines) in [
        ("ttl: 5m", &[ORIGIN][..]),
        ("default_ttl: 5m", &[]),
        ("statuses: { 200: 5m }", &[]),
        ("keep: 1m", &[modified]),
    ] {
        for (cookies, expected) in [
            ("", Err(Unstorable::Cookie)),
            (", key: { query: { sort: true } }", Err(Unstorable::Cookie)),
            (", key: { cookies: ignore }", Ok(())),
            (", key: { cookies: [session] }", Ok(())),
        ] {
            let rules = rules(&format!("{{ {lifetime}{cookies} }}"));
            let found = stored(&rules, &with_cookie, 200, lines).map(drop);
            assert_eq!(found, expected, "{lifetime}{cookies}");
            // What somebody without cookies has stored is not for somebody with them either.
            let accepted = stored(&rules, &get(&[]), 200, lines).unwrap();
            let decision = reuse(&with_cookie, &accepted.meta, NOW, &rules.reuse);
            assert_eq!(
                matches!(decision, Reuse::Fresh(_)),
                expected.is_ok(),
                "{lifetime}{cookies}"
            );
        }
    }
    // The origin's own applies to everybody.
    assert!(stored(&rules("{ default_ttl: 5m }"), &with_cookie, 200, &[ORIGIN]).is_ok());
}

#[test]
fn cookies_are_stripped_where_the_route_says_so() {
    let lines = [ORIGIN, ("Set-Cookie", "a=b"), ("X-A", "1")];
    let accepted = stored(&rules("{ set_cookie: strip }"), &get(&[]), 200, &lines).unwrap();
    assert!(!accepted.fields.contains("set-cookie") && accepted.fields.contains("x-a"));
}

#[test]
fn heuristic_freshness_has_a_cap() {
    let modified = ("Last-Modified", "@-100000");
    for (cache, expected) in [
        ("", Ok((60, LifetimeSource::Heuristic))),
        ("cache: { heuristic_max: 1h }", Ok((3600, LifetimeSource::Heuristic))),
        ("cache: { heuristic_max: 0s }", Ok((0, LifetimeSource::None))),
    ] {
        let rules = try_rules(cache).unwrap();
        assert_eq!(lifetime(&rules, 200, &[modified]), expected, "{cache}");
    }
}

#[test]
fn targeted_fields_are_those_of_the_file() {
    let lines = [
        ORIGIN,
        ("CDN-Cache-Control", "max-age=120"),
        ("Forebay-Cache-Control", "max-age=180"),
    ];
    for (cache, expected) in [
        ("", 120),
        ("cache: { targeted_fields: [] }", 60),
        (
            "cache: { targeted_fields: [Forebay-Cache-Control, CDN-Cache-Control] }",
            180,
        ),
    ] {
        let rules = try_rules(cache).unwrap();
        assert_eq!(lifetime(&rules, 200, &lines).unwrap().0, expected, "{cache}");
    }
}

#[test]
fn windows_for_stale_responses() {
    let stale = rules("{ stale_while_revalidate: 30s, stale_if_error: 1h }");
    let meta = stored(&stale, &get(&[]), 200, &[ORIGIN]).unwrap().meta;
    let later = |seconds| NOW.plus(Duration::from_secs(seconds));
    let at = |seconds| reuse(&get(&[]), &meta, later(seconds), &stale.reuse);
    assert!(matches!(at(59), Reuse::Fresh(_)));
    assert!(matches!(at(89), Reuse::Stale(StaleReason::WhileRevalidate, _)));
    assert_eq!(at(90), Reuse::Forward(Forward::Stale));
    let on_error = |seconds| crate::rfc9111::reuse::reuse_on_error(&get(&[]), &meta, later(seconds), &stale.reuse);
    assert!(on_error(60 + 3599).is_some() && on_error(60 + 3600).is_none());
    // Kept as long as it is of use.
    assert_eq!(meta.useless_from(stale.reuse.windows, stale.keep), later(60 + 3600));
    for (cache, kept) in [("on", 600), ("{ keep: 1d }", 86_400), ("{ keep: 0s }", 0)] {
        let rules = rules(cache);
        let meta = stored(&rules, &get(&[]), 200, &[ORIGIN, ("ETag", "\"a\"")])
            .unwrap()
            .meta;
        assert_eq!(
            meta.useless_from(rules.reuse.windows, rules.keep),
            later(60 + kept),
            "{cache}"
        );
    }
}

#[test]
fn directives_of_clients_count_unless_the_route_ignores_them() {
    let reload = get(&[("Cache-Control", "no-cache")]);
    for (cache, expected) in [("on", false), ("{ request_directives: ignore }", true)] {
        let rules = rules(cache);
        let meta = stored(&rules, &get(&[]), 200, &[ORIGIN]).unwrap().meta;
        let decision = reuse(&reload, &meta, NOW, &rules.reuse);
        assert_eq!(matches!(decision, Reuse::Fresh(_)), expected, "{cache}");
    }
    let ignoring = rules("{ request_directives: ignore }");
    assert_eq!(ignoring.store_policy().request_directives, ClientDirectives::Ignore);
}

#[test]
fn freshness_in_memory_ends_with_max_ttl() {
    let rules = try_rules("cache: { memory: { max_ttl: 1m } }").unwrap();
    for (lines, expected) in [
        (&[("Cache-Control", "max-age=10")][..], 10),
        (&[("Cache-Control", "max-age=60")], 60),
        (&[("Cache-Control", "max-age=3600")], 60),
        // It counts from the arrival, not from when the origin made it.
        (&[("Cache-Control", "max-age=3600"), ("Age", "100")], 160),
        (&[("Cache-Control", "max-age=120"), ("Age", "100")], 120),
    ] {
        let mut meta = stored(&rules, &get(&[]), 200, lines).unwrap().meta;
        rules.limit_freshness(&mut meta);
        assert_eq!(meta.lifetime.seconds.get(), expected, "{lines:?}");
    }
    let rules = try_rules("").unwrap();
    let mut meta = stored(&rules, &get(&[]), 200, &[("Cache-Control", "max-age=31536000")])
        .unwrap()
        .meta;
    rules.limit_freshness(&mut meta);
    assert_eq!(meta.lifetime.seconds.get(), 31_536_000);
    assert!(meta.is_fresh(Timestamp::from_secs(NOW.as_secs() + 31_535_999)));
}

#[test]
fn sizes() {
    let of = |sections: &str| {
        let rules = try_rules(sections).unwrap();
        (rules.max_body, rules.max_size)
    };
    assert_eq!(of(""), (8 << 20, None));
    assert_eq!(of("cache: { memory: { max_body: 1MiB } }"), (1 << 20, None));
    assert_eq!(
        of("routes: [{ cache: { max_size: 64MiB } }]"),
        (8 << 20, Some(64 << 20))
    );
    assert_eq!(of("routes: [{ cache: { max_size: 1MiB } }]"), (1 << 20, Some(1 << 20)));
}

#[test]
fn nothing_is_stored_of_streams_and_where_it_is_off() {
    assert!(try_rules("routes: [{ cache: off }]").is_none());
    assert!(try_rules("defaults: { cache: off }").is_none());
    assert!(try_rules("routes: [{ stream: on }]").is_none());
    assert!(try_rules("routes: [{ cache: { ttl: 1m }, stream: on }]").is_none());
    assert!(try_rules("").is_some());
}

/// Whether two requests for a route are told apart.
fn differ(route: &str, one: &RequestHead, other: &RequestHead) -> bool {
    let rules = try_rules(&format!("routes: [{{ {route} }}]")).unwrap();
    CacheKey::new(one, &rules.key) != CacheKey::new(other, &rules.key)
}

#[test]
fn keys_are_made_of_what_the_route_names() {
    let query = |query: &str, one: &str, other: &str| {
        let route = format!("cache: {{ key: {{ query: {query} }} }}");
        differ(&route, &request("GET", one, &[]), &request("GET", other, &[]))
    };
    for (options, one, other, expected) in [
        ("{}", "/?b=1&a=2", "/?a=2&b=1", true),
        ("{ sort: true }", "/?b=1&a=2", "/?a=2&b=1", false),
        ("{ sort: false }", "/?b=1&a=2", "/?a=2&b=1", true),
        (
            "{ ignore: [\"utm_*\", gclid] }",
            "/?a=2",
            "/?utm_source=x&a=2&gclid=1",
            false,
        ),
        ("{ ignore: [\"utm_*\", gclid] }", "/?a=2", "/?a=2&dclid=1", true),
        ("{ ignore: [\"*\"] }", "/", "/?a=2&b=1", false),
        ("{ keep: [id] }", "/?id=1", "/?x=1&id=1", false),
        ("{ keep: [id] }", "/?id=1", "/?id=2", true),
        // A pattern in whatever spelling of the same name.
        ("{ ignore: [\"%c3%a9\"] }", "/", "/?%C3%a9=1", false),
        ("{ ignore: [\"%61b\"] }", "/", "/?ab=1", false),
    ] {
        assert_eq!(query(options, one, other), expected, "{options} {one} {other}");
    }
    let fields = |route: &str, one: &[(&str, &str)], other: &[(&str, &str)]| differ(route, &get(one), &get(other));
    let version = "cache: { key: { headers: [X-Version] } }";
    assert!(fields(version, &[("x-version", "1")], &[("X-Version", "2")]));
    assert!(!fields(
        version,
        &[("x-version", "1"), ("x-a", "1")],
        &[("X-Version", "1")]
    ));
    let cookies = "cache: { key: { cookies: [lang] } }";
    assert!(fields(cookies, &[("Cookie", "lang=de")], &[("Cookie", "lang=en")]));
    assert!(!fields(
        cookies,
        &[("Cookie", "lang=de; s=1")],
        &[("Cookie", "s=2; lang=de")]
    ));
    assert!(!fields(
        "cache: { key: { cookies: ignore } }",
        &[("Cookie", "a=1")],
        &[]
    ));
}

/// Two routes for one URI must not answer for each other, nor may a field that is passed on from everybody.
#[test]
fn what_chooses_the_route_and_what_the_upstream_believes_is_in_the_key() {
    let chosen = "match: { headers: { X-Api-Version: 2 } }";
    assert!(differ(chosen, &get(&[("X-Api-Version", "2")]), &get(&[])));
    let believed = "keep_fields: [X-Forwarded-Prefix]";
    assert!(differ(believed, &get(&[("X-Forwarded-Prefix", "/evil")]), &get(&[])));
    let twice = "keep_fields: [X-Forwarded-Prefix], cache: { key: { headers: [X-Forwarded-Prefix] } }";
    let rules = try_rules(&format!("routes: [{{ {twice} }}]")).unwrap();
    assert_eq!(rules.key.headers, ["x-forwarded-prefix"]);
    assert_eq!(rules.key.query.order, QueryOrder::AsReceived);
}

#[test]
fn waiting_together_can_be_switched_off() {
    assert_eq!(rules("on").collapse, Collapse::Instance);
    assert_eq!(rules("{ collapse: false }").collapse, Collapse::Off);
}
