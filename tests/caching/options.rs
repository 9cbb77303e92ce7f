//! What a route says about its cache, and what it may not say (CONFIG.md: "What a route's lifetime may not do").

use crate::support::inside::Inside;
use crate::support::origin::{Gate, Origin, Reply};
use crate::support::within;

struct Case {
    name: &'static str,
    /// The route's `cache`.
    cache: &'static str,
    status: u16,
    /// What the origin says.
    response: &'static [(&'static str, &'static str)],
    first: (&'static str, &'static [(&'static str, &'static str)]),
    /// Seconds between the two requests.
    later: u64,
    second: (&'static str, &'static [(&'static str, &'static str)]),
    /// How the second one's `Cache-Status` begins.
    said: &'static str,
}

const PLAIN: (&str, &[(&str, &str)]) = ("/a", &[]);
const COOKIE: (&str, &[(&str, &str)]) = ("/a", &[("Cookie", "lang=de; session=1")]);

const fn case(name: &'static str, cache: &'static str, response: &'static [(&'static str, &'static str)]) -> Case {
    Case {
        name,
        cache,
        status: 200,
        response,
        first: PLAIN,
        later: 5,
        second: PLAIN,
        said: "hit",
    }
}

#[tokio::test]
async fn a_route_has_a_say() {
    let short = &[("Cache-Control", "max-age=1")];
    let long = &[("Cache-Control", "max-age=100")];
    let cases = [
        case("ttl instead of the origin's", "{ ttl: 10s }", short),
        Case {
            later: 11,
            said: "fwd=stale",
            ..case("and no longer", "{ ttl: 10s }", long)
        },
        case("default_ttl where there is none", "{ default_ttl: 10s }", &[]),
        Case {
            said: "fwd=stale",
            ..case("the origin's before default_ttl", "{ default_ttl: 10s }", short)
        },
        Case {
            status: 404,
            ..case("404 by status", "{ statuses: { 404: 10s } }", &[])
        },
        Case {
            status: 404,
            said: "fwd=uri-miss",
            ..case("404 is not for ttl", "{ ttl: 10s }", &[])
        },
        Case {
            said: "fwd=uri-miss",
            ..case("no-store stays", "{ ttl: 10s }", &[("Cache-Control", "no-store")])
        },
        Case {
            said: "fwd=uri-miss",
            ..case("private stays", "{ ttl: 10s }", &[("Cache-Control", "private")])
        },
        Case {
            said: "fwd=stale",
            ..case(
                "no-cache stays",
                "{ ttl: 10s }",
                &[("Cache-Control", "no-cache"), ("ETag", "\"1\"")],
            )
        },
        Case {
            said: "fwd=uri-miss",
            ..case("Vary: * stays", "{ ttl: 10s }", &[("Vary", "*")])
        },
        Case {
            said: "fwd=uri-miss",
            ..case("Set-Cookie stays", "{ ttl: 10s }", &[("Set-Cookie", "a=b")])
        },
        case(
            "unless it is stripped",
            "{ ttl: 10s, set_cookie: strip }",
            &[("Set-Cookie", "a=b")],
        ),
        Case {
            first: ("/a", &[("Authorization", "Basic eA==")]),
            second: ("/a", &[("Authorization", "Basic eA==")]),
            said: "fwd=uri-miss",
            ..case("Authorization stays", "{ ttl: 10s }", &[])
        },
        Case {
            second: COOKIE,
            said: "fwd=",
            ..case("a ttl is not for cookies", "{ ttl: 10s }", &[])
        },
        Case {
            first: COOKIE,
            said: "fwd=uri-miss",
            ..case("nor from them", "{ ttl: 10s }", &[])
        },
        Case {
            first: COOKIE,
            ..case(
                "unless they do not matter",
                "{ ttl: 10s, key: { cookies: ignore } }",
                &[],
            )
        },
        Case {
            first: COOKIE,
            second: ("/a", &[("Cookie", "lang=de; session=2")]),
            ..case("or are named", "{ ttl: 10s, key: { cookies: [lang] } }", &[])
        },
        Case {
            first: COOKIE,
            second: ("/a", &[("Cookie", "lang=fr; session=1")]),
            said: "fwd=uri-miss",
            ..case("and differ", "{ ttl: 10s, key: { cookies: [lang] } }", &[])
        },
        Case {
            later: 0,
            first: ("/a?id=1&utm_source=x", &[]),
            second: ("/a?utm_campaign=y&id=1", &[]),
            ..case(
                "parameters that do not count",
                "{ key: { query: { ignore: [\"utm_*\"] } } }",
                long,
            )
        },
        Case {
            later: 0,
            first: ("/a?b=2&a=1", &[]),
            second: ("/a?a=1&b=2", &[]),
            ..case("parameters in any order", "{ key: { query: { sort: true } } }", long)
        },
        Case {
            later: 0,
            first: ("/a?b=2&a=1", &[]),
            second: ("/a?a=1&b=2", &[]),
            said: "fwd=uri-miss",
            ..case("or as received", "on", long)
        },
        Case {
            later: 0,
            first: ("/a", &[("X-Tenant", "one")]),
            second: ("/a", &[("X-Tenant", "two")]),
            said: "fwd=uri-miss",
            ..case("a header in the key", "{ key: { headers: [X-Tenant] } }", long)
        },
        Case {
            second: ("/a", &[("Cache-Control", "no-cache")]),
            said: "fwd=request",
            ..case("a client's no-cache", "on", long)
        },
        Case {
            second: ("/a", &[("Cache-Control", "no-cache")]),
            ..case("is ignored if asked for", "{ request_directives: ignore }", long)
        },
        case("stale while it is validated", "{ stale_while_revalidate: 60s }", short),
        Case {
            said: "fwd=bypass",
            ..case("no cache at all", "off", long)
        },
    ];
    for case in cases {
        let mut reply = Reply::status(case.status);
        for (name, value) in case.response {
            reply = reply.field(name, value);
        }
        let origin = Origin::builder().otherwise(reply).start().await;
        let proxy = Inside::before(&origin, &format!("defaults: {{ cache: {} }}", case.cache)).await;
        let (target, fields) = case.first;
        proxy.request("GET", target, fields, b"").await;
        proxy.advance(case.later);
        let (target, fields) = case.second;
        let second = proxy.request("GET", target, fields, b"").await;
        let said = second.cache_status();
        assert!(said.starts_with(case.said), "{}: {said}", case.name);
    }
}

#[tokio::test]
async fn stale_if_error_can_be_the_routes() {
    for (cache, expected) in [("{ stale_if_error: 1h }", 200), ("on", 500)] {
        let origin = Origin::builder()
            .on_each(
                "/a",
                [Reply::ok("x").field("Cache-Control", "max-age=1"), Reply::status(500)],
            )
            .start()
            .await;
        let proxy = Inside::before(&origin, &format!("defaults: {{ cache: {cache} }}")).await;
        proxy.get("/a").await;
        proxy.advance(5);
        assert_eq!(proxy.get("/a").await.status, expected, "{cache}");
    }
}

#[tokio::test]
async fn requests_wait_for_each_other_unless_the_route_forbids_it() {
    for (cache, fetches) in [("on", 1), ("{ collapse: false }", 3)] {
        let gate = Gate::new();
        let origin = Origin::builder()
            .otherwise(Reply::ok("x").field("Cache-Control", "max-age=10").hold(&gate))
            .start()
            .await;
        let proxy = Inside::before(&origin, &format!("defaults: {{ cache: {cache} }}")).await;
        let mut clients = Vec::new();
        for _ in 0..3 {
            let mut client = proxy.client().await;
            client.send(b"GET /a HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
            clients.push(client);
        }
        gate.reached(fetches).await;
        gate.release();
        for client in &mut clients {
            let response = within("a response", client.response()).await;
            assert_eq!(response.text(), "x");
        }
        assert_eq!(origin.request_count(), fetches, "{cache}");
    }
}
