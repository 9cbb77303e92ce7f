//! What is typed about caching, and what comes of it.

use super::*;
use crate::key::QueryOrder;
use crate::rfc9111::storability::{ClientDirectives, SetCookie};

/// The policies of all routes.
fn policies(sections: &str) -> Vec<CachePolicy> {
    let policy = |route: Route| match route.cache {
        RouteCache::On(policy) => *policy,
        RouteCache::Off => panic!("{} does not cache", route.name),
    };
    parse(&smallest(sections)).routes.into_iter().map(policy).collect()
}

/// The policy of a route that says this about its cache.
fn policy(cache: &str) -> CachePolicy {
    policies(&format!("routes: [{{ cache: {cache} }}]")).remove(0)
}

#[test]
fn everything_about_caching() {
    let cache = parse(&smallest(
        "cache: { heuristic_max: 1h, targeted_fields: [A-Cache-Control, CDN-Cache-Control], \
         memory: { size: 9MiB, max_body: 1MiB, max_ttl: 1d, eviction: lfu }, \
         warm: { on_start: false, every: 1h, sources: [{ hottest: 100 }], rate: 600/m } }",
    ))
    .cache;
    let expected = Cache {
        heuristic_max: seconds(3600),
        targeted_fields: vec!["a-cache-control".into(), "cdn-cache-control".into()],
        memory: Memory {
            size: 9 << 20,
            max_body: 1 << 20,
            max_ttl: Some(seconds(86_400)),
            eviction: Eviction::Lfu,
            dictionaries: 32 << 20,
        },
        warm: Some(Warm {
            after_purge: false,
            on_start: false,
            every: Some(seconds(3600)),
            sources: vec![WarmSource::Hottest(100)],
            concurrency: 8,
            rate: 10.0,
        }),
        redis: None,
        invalidate: vec![],
    };
    assert_eq!(cache, expected);
    let none = parse(&smallest(
        "cache: { heuristic_max: 0s, targeted_fields: [], memory: { max_ttl: never, eviction: lru } }",
    ))
    .cache;
    assert_eq!((none.heuristic_max, none.targeted_fields), (Duration::ZERO, vec![]));
    assert_eq!((none.memory.max_ttl, none.memory.eviction), (None, Eviction::Lru));

    let policy = policy(
        "{ ttl: 5m, stale_while_revalidate: 500ms, stale_if_error: 1h, keep: 0s, max_size: 64MiB, \
         key: { query: { ignore: [\"utm_*\", \"%c3%a9\"], sort: true }, headers: [Accept-Language, x-a], cookies: [A, a] }, \
         statuses: { 404: 10s, 503: 1s }, set_cookie: strip, request_directives: ignore, collapse: false, refresh_ahead: { before: 20%, min_hits: 5 } }",
    );
    let expected = CachePolicy {
        lifetime: RouteLifetime::Instead(seconds(300)),
        statuses: vec![(404, seconds(10)), (503, seconds(1))],
        stale_while_revalidate: Duration::from_millis(500),
        refresh_ahead: Some(RefreshAhead {
            permille: 200,
            min_hits: 5,
        }),
        stale_if_error: seconds(3600),
        keep: Duration::ZERO,
        max_size: Some(64 << 20),
        tags: vec![],
        tag_fields: TagFields::Strip,
        key: KeyPolicy {
            query: QueryKey {
                parameters: QueryParameters::Ignore(vec!["utm_*".into(), "%C3%A9".into()]),
                order: QueryOrder::Sorted,
            },
            headers: vec!["accept-language".into(), "x-a".into()],
            cookies: KeyCookies::Named(vec!["A".into(), "a".into()]),
        },
        set_cookie: SetCookie::Strip,
        request_directives: ClientDirectives::Ignore,
        collapse: Collapse::Off,
    };
    assert_eq!(policy, expected);
}

#[test]
fn a_route_that_says_nothing_caches_as_the_origin_says() {
    let expected = CachePolicy {
        lifetime: RouteLifetime::Origin,
        statuses: vec![],
        stale_while_revalidate: Duration::ZERO,
        refresh_ahead: None,
        stale_if_error: Duration::ZERO,
        keep: seconds(600),
        max_size: None,
        tags: vec![],
        tag_fields: TagFields::Strip,
        key: KeyPolicy {
            query: QueryKey {
                parameters: QueryParameters::All,
                order: QueryOrder::AsReceived,
            },
            headers: vec![],
            cookies: KeyCookies::Unaccounted,
        },
        set_cookie: SetCookie::Bypass,
        request_directives: ClientDirectives::Honour,
        collapse: Collapse::Instance,
    };
    for cache in ["on", "{}", "{ key: { query: {} } }", "{ collapse: instance }"] {
        assert_eq!(policy(cache), expected, "{cache}");
    }
    let keep = policy("{ default_ttl: 1d, key: { query: { keep: [page], sort: false }, cookies: ignore } }");
    assert_eq!(keep.lifetime, RouteLifetime::Fallback(seconds(86_400)));
    assert_eq!(keep.key.query.parameters, QueryParameters::Keep(vec!["page".into()]));
    assert_eq!(keep.key.cookies, KeyCookies::Ignore);
}

/// A route that sets its lifetime must not lose the key that keeps tenants apart.
#[test]
fn what_a_route_leaves_out_is_as_in_defaults() {
    let found = policies(
        "
defaults:
  cache:
    default_ttl: 1m
    stale_if_error: 1h
    keep: 1m
    statuses: { 404: 1s }
    set_cookie: strip
    key: { headers: [X-Tenant], cookies: [lang], query: { ignore: [a], sort: true } }
routes:
  - { match: { path: /1 }, cache: { ttl: 5m } }
  - { match: { path: /2 }, cache: { key: { query: { keep: [b] } }, statuses: { 410: 1s }, set_cookie: bypass } }
  - { match: { path: /3 }, cache: { key: { headers: [], cookies: ignore }, stale_if_error: 0s } }
  - { match: { path: /4 }, cache: on }
",
    );
    let [first, second, third, fourth, implied] = found.as_slice() else {
        panic!("{found:?}")
    };
    assert_eq!(implied.lifetime, RouteLifetime::Fallback(seconds(60)));
    assert_eq!(fourth, implied);
    let expected = CachePolicy {
        lifetime: RouteLifetime::Instead(seconds(300)),
        ..implied.clone()
    };
    assert_eq!(*first, expected);
    let mut expected = implied.clone();
    expected.key.query = QueryKey {
        parameters: QueryParameters::Keep(vec!["b".into()]),
        order: QueryOrder::AsReceived,
    };
    expected.statuses = vec![(410, seconds(1))];
    expected.set_cookie = SetCookie::Bypass;
    assert_eq!(*second, expected);
    let mut expected = implied.clone();
    expected.key.headers = vec![];
    expected.key.cookies = KeyCookies::Ignore;
    expected.stale_if_error = Duration::ZERO;
    assert_eq!(*third, expected);
    assert_eq!(implied.key.headers, ["x-tenant"]);

    let config = parse(&smallest(
        "defaults: { cache: off }\nroutes: [{ match: { path: /1 }, cache: { ttl: 5m } }]",
    ));
    assert!(matches!(&config.routes[0].cache, RouteCache::On(policy) if policy.keep == seconds(600)));
    assert_eq!(config.routes[1].cache, RouteCache::Off);
}

#[test]
fn fields_that_are_kept_may_be_in_the_key() {
    let found = policies(
        "
defaults: { keep_fields: [X-Forwarded-Host, CF-IPCountry] }
routes:
  - { match: { path: /1 }, cache: { key: { headers: [CF-IPCountry] } } }
  - { match: { path: /2 }, keep_fields: [x-real-ip], cache: { key: { headers: [X-Real-IP, Accept, Authorization] } } }
",
    );
    assert_eq!(found[0].key.headers, ["cf-ipcountry"]);
    assert_eq!(found[1].key.headers, ["x-real-ip", "accept", "authorization"]);
}

#[test]
fn settings_without_effect_are_said() {
    let warnings = |route: &str| -> Vec<String> {
        let loaded = load(&smallest(&format!("routes:\n  - {{ {route} }}\n")));
        loaded.warnings.iter().map(ToString::to_string).collect()
    };
    assert_eq!(
        warnings("stream: on, cache: { ttl: 1m }"),
        ["f.yaml:4:19: routes[0].cache: has no effect beside stream (what comes as a stream is not stored)"]
    );
    for route in [
        "stream: on, cache: on",
        "stream: on, cache: off",
        "stream: off, cache: { ttl: 1m }",
    ] {
        assert!(warnings(route).is_empty(), "{route}");
    }
}
