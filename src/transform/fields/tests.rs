use std::net::IpAddr;
use std::time::Duration;

use super::*;
use crate::config::{
    FieldEdits, ListenerTls, Match, PathTemplate, Route, RouteCache, Segment, ServerAddress, TlsVersion, Upstream,
    UpstreamServer, UpstreamTls, ValuePart, ValueTemplate, Verify,
};
use crate::message::{Framing, fields};
use crate::transform::forwarding::client_address;

fn route() -> Route {
    Route {
        name: "default".into(),
        matches: Match::default(),
        upstream: 0,
        strip_prefix: false,
        request_headers: FieldEdits::default(),
        response_headers: FieldEdits::default(),
        cache: RouteCache::On(Box::default()),
        compression: None,
        stream: None,
        max_request_body: None,
        allow: Vec::new(),
        deny: Vec::new(),
        purge: None,
        keep_fields: Vec::new(),
        rate_limits: vec![],
        rate_limit_cost: 1,
        in_flight: None,
    }
}

fn upstream() -> Upstream {
    let address = ServerAddress::Tcp {
        host: "127.0.0.1".into(),
        port: 3000,
    };
    Upstream::new("app", vec![UpstreamServer::new(address)])
}

fn request(lines: &[(&str, &str)]) -> RequestHead {
    RequestHead {
        method: Method::GET,
        scheme: Scheme::Http,
        version: Version::Http11,
        authority: "example.com:8080".into(),
        target: "/a?b=c".into(),
        fields: fields(lines),
        framing: Framing::None,
        expects_continue: false,
        upgrade: false,
        keep_alive: true,
    }
}

fn text(value: &str) -> ValueTemplate {
    ValueTemplate {
        parts: vec![ValuePart::Text(value.into())],
    }
}

/// From a peer in 192.0.2.0/24, which is not trusted, or 10.0.0.1, which is.
fn forward(head: &RequestHead, peer: &str, route: &Route) -> Result<RequestHead, ForwardRefusal> {
    forward_to(head, peer.parse().ok(), route, &upstream())
}

fn forward_to(
    head: &RequestHead,
    peer: Option<IpAddr>,
    route: &Route,
    upstream: &Upstream,
) -> Result<RequestHead, ForwardRefusal> {
    let client = client_address(peer, &head.fields, &["10.0.0.0/8".parse().unwrap()]);
    let context = ForwardContext {
        client: &client,
        route,
        captures: Captures::NONE,
        upstream,
        request_id: b"r1",
        pseudonym: "forebay-1",
    };
    let forwarded = forward_request(head, &context)?;
    Ok(RequestHead {
        method: forwarded.method.clone(),
        scheme: forwarded.scheme,
        authority: forwarded.authority.into(),
        target: (*forwarded.target).into(),
        fields: forwarded.fields,
        framing: forwarded.framing,
        expects_continue: forwarded.expects_continue,
        upgrade: forwarded.upgrade,
        ..head.clone()
    })
}

const UNTRUSTED: &str = "192.0.2.1";
const TRUSTED: &str = "10.0.0.1";

/// All lines of that name, `|` between them; `-` if there is none.
fn value(fields: &Fields, name: &str) -> String {
    let lines: Vec<_> = fields.get_all(name).map(String::from_utf8_lossy).collect();
    if lines.is_empty() { "-".into() } else { lines.join("|") }
}

#[test]
fn the_upstream_is_told_about_the_client() {
    let out = forward(&request(&[("Accept", "*/*")]), UNTRUSTED, &route()).unwrap();
    for (name, expected) in [
        ("accept", "*/*"),
        ("x-forwarded-for", "192.0.2.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "example.com:8080"),
        ("x-forwarded-port", "8080"),
        ("x-real-ip", "192.0.2.1"),
        ("forwarded", "for=192.0.2.1;host=\"example.com:8080\";proto=http"),
        ("via", "1.1 forebay-1"),
        ("x-request-id", "r1"),
    ] {
        assert_eq!(value(&out.fields, name), expected, "{name}");
    }
    assert_eq!(value(&out.fields, "traceparent").len(), 55);
    assert_eq!(
        (out.authority.as_str(), out.target.as_str()),
        ("example.com:8080", "/a?b=c")
    );
}

#[test]
fn every_kind_of_peer_can_be_told_of() {
    let mut head = request(&[]);
    head.scheme = Scheme::Https;
    head.version = Version::Http2;
    head.authority = "[2001:db8::2]".into();
    let out = forward(&head, "2001:db8::1", &route()).unwrap();
    for (name, expected) in [
        ("x-forwarded-for", "2001:db8::1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-port", "443"),
        ("forwarded", "for=\"[2001:db8::1]\";host=\"[2001:db8::2]\";proto=https"),
        ("via", "2.0 forebay-1"),
    ] {
        assert_eq!(value(&out.fields, name), expected, "{name}");
    }
    let mut head = request(&[("X-Forwarded-For", "6.6.6.6"), ("X-Real-IP", "6.6.6.6")]);
    head.version = Version::Http10;
    head.authority = "".into();
    let out = forward_to(&head, None, &route(), &upstream()).unwrap();
    for (name, expected) in [
        ("x-forwarded-for", "-"),
        ("x-forwarded-host", "-"),
        ("x-forwarded-port", "80"),
        ("x-real-ip", "-"),
        ("forwarded", "for=unknown;proto=http"),
        ("via", "1.0 forebay-1"),
    ] {
        assert_eq!(value(&out.fields, name), expected, "{name}");
    }
}

#[test]
fn forged_fields_are_believed_from_trusted_peers_only() {
    // Name and value as sent; as forwarded for an untrusted peer, a trusted one, and a route that keeps the field.
    let table = [
        (
            "X-Forwarded-For",
            "6.6.6.6",
            "192.0.2.1",
            "6.6.6.6, 10.0.0.1",
            "6.6.6.6, 192.0.2.1",
        ),
        ("X-Forwarded-Proto", "https", "http", "https", "https"),
        (
            "x-forwarded-host",
            "evil.test",
            "example.com:8080",
            "evil.test",
            "evil.test",
        ),
        ("X-Forwarded-Port", "1", "8080", "1", "1"),
        ("X-Real-IP", "6.6.6.6", "192.0.2.1", "6.6.6.6", "6.6.6.6"),
        (
            "Forwarded",
            "for=6.6.6.6",
            "for=192.0.2.1;host=\"example.com:8080\";proto=http",
            "for=6.6.6.6, for=10.0.0.1;host=\"example.com:8080\";proto=http",
            "for=6.6.6.6, for=192.0.2.1;host=\"example.com:8080\";proto=http",
        ),
        ("X-Forwarded-Prefix", "/x", "-", "/x", "/x"),
        ("X-Forwarded-Server", "x", "-", "x", "x"),
        ("X-Forwarded-Scheme", "x", "-", "x", "x"),
        ("X-Forwarded-Ssl", "on", "-", "on", "on"),
        ("X-Forwarded-User", "root", "-", "root", "root"),
        ("X-Original-URL", "/admin", "-", "/admin", "/admin"),
        ("X-Original-Host", "x", "-", "x", "x"),
        ("X-Original-Forwarded-For", "x", "-", "x", "x"),
        ("X-REWRITE-URL", "/admin", "-", "/admin", "/admin"),
        ("X-HTTP-Method-Override", "DELETE", "-", "DELETE", "DELETE"),
        ("X-HTTP-Method", "DELETE", "-", "DELETE", "DELETE"),
        ("X-Method-Override", "DELETE", "-", "DELETE", "DELETE"),
        ("Front-End-Https", "on", "-", "on", "on"),
        ("X-Url-Scheme", "x", "-", "x", "x"),
        ("X-Host", "x", "-", "x", "x"),
        ("X-Client-IP", "x", "-", "x", "x"),
        ("X-Cluster-Client-IP", "x", "-", "x", "x"),
        ("True-Client-IP", "x", "-", "x", "x"),
        ("CF-Connecting-IP", "x", "-", "x", "x"),
        ("Fastly-Client-IP", "x", "-", "x", "x"),
        ("Client-IP", "x", "-", "x", "x"),
        ("X-ProxyUser-Ip", "x", "-", "x", "x"),
        ("X-Middleware-Subrequest", "x", "-", "x", "x"),
        ("X-Sendfile-Type", "x", "-", "x", "x"),
        ("Client-Cert", ":x:", "-", ":x:", ":x:"),
        ("Remote-User", "root", "-", "root", "root"),
        // The spelling is nobody's in good faith, so a trusted proxy may have missed it.
        ("X_Forwarded_For", "6.6.6.6", "-", "-", "6.6.6.6"),
        ("X_Original-URL", "/admin", "-", "-", "/admin"),
        ("CF_Connecting_IP", "x", "-", "-", "x"),
        ("Cache_Control", "no-store", "-", "-", "no-store"),
        ("Transfer_Encoding", "chunked", "-", "-", "chunked"),
        // Never passed on.
        ("Proxy", "http://evil.test", "-", "-", "-"),
        ("Proxy-Authorization", "x", "-", "-", "-"),
        ("Proxy-Connection", "x", "-", "-", "-"),
        ("Keep-Alive", "x", "-", "-", "-"),
        ("HTTP2-Settings", "x", "-", "-", "-"),
        ("Expect", "100-continue", "-", "-", "-"),
        ("Upgrade", "h2c", "-", "-", "-"),
        ("X-Request-Id", "other", "r1", "r1", "r1"),
        // Always passed on.
        ("Authorization", "x", "x", "x", "x"),
        ("Accept-Encoding", "gzip", "gzip", "gzip", "gzip"),
        ("Trailer", "x", "x", "x", "x"),
        ("Destination", "/x", "/x", "/x", "/x"),
        ("api_key", "x", "x", "x", "x"),
        ("X-Custom", "x", "x", "x", "x"),
    ];
    for (name, sent, untrusted, trusted, kept) in table {
        let head = request(&[(name, sent)]);
        let keeping = Route {
            keep_fields: vec![name.to_ascii_lowercase()],
            rate_limits: vec![],
            rate_limit_cost: 1,
            in_flight: None,
            ..route()
        };
        for (peer, route, expected) in [
            (UNTRUSTED, route(), untrusted),
            (TRUSTED, route(), trusted),
            (UNTRUSTED, keeping, kept),
        ] {
            let out = forward(&head, peer, &route).unwrap();
            assert_eq!(
                value(&out.fields, name),
                expected,
                "{name} from {peer}, kept: {:?}",
                route.keep_fields
            );
        }
    }
}

#[test]
fn a_trusted_chain_says_who_the_client_is() {
    let head = request(&[
        ("X-Forwarded-For", "6.6.6.6, 192.0.2.7"),
        ("X-Real-IP", "6.6.6.6"),
        ("X-Forwarded-For", "10.0.0.2"),
    ]);
    let out = forward(&head, TRUSTED, &route()).unwrap();
    assert_eq!(
        value(&out.fields, "x-forwarded-for"),
        "6.6.6.6, 192.0.2.7, 10.0.0.2, 10.0.0.1"
    );
    assert_eq!(value(&out.fields, "x-real-ip"), "192.0.2.7");
}

#[test]
fn connection_takes_hop_by_hop_fields_away_and_no_others() {
    let head = request(&[
        ("Connection", "close, X-Hop, Authorization, X-Forwarded-For, X-Tenant"),
        ("X-Hop", "1"),
        ("X-Tenant", "a"),
        ("Authorization", "x"),
        ("Keep-Alive", "x"),
    ]);
    let by_tenant = Route {
        matches: Match {
            headers: vec![("x-tenant".into(), "a".into())],
            ..Match::default()
        },
        ..route()
    };
    for (route, tenant) in [(route(), "-"), (by_tenant, "a")] {
        let out = forward(&head, UNTRUSTED, &route).unwrap();
        for (name, expected) in [
            ("connection", "-"),
            ("x-hop", "-"),
            ("keep-alive", "-"),
            ("authorization", "x"),
            ("x-forwarded-for", UNTRUSTED),
            ("x-tenant", tenant),
        ] {
            assert_eq!(value(&out.fields, name), expected, "{name}");
        }
    }
}

#[test]
fn te_is_passed_on_for_trailers_only() {
    for (sent, expected) in [
        ("trailers", "trailers"),
        ("gzip, Trailers", "trailers"),
        ("gzip", "-"),
        ("", "-"),
    ] {
        let out = forward(&request(&[("TE", sent)]), UNTRUSTED, &route()).unwrap();
        assert_eq!(value(&out.fields, "te"), expected, "{sent}");
    }
}

#[test]
fn our_own_via_is_a_loop() {
    let table = [
        ("1.1 forebay-1", true),
        ("1.1 a, HTTP/2.0 FOREBAY-1 (comment), 1.1 b", true),
        ("1.1\t forebay-1", true),
        ("1.1 forebay-2", false),
        ("1.1 forebay-10", false),
        ("1.1 other (by, forebay-1)", false),
        ("1.1 other (not forebay-1, x)", false),
        ("", false),
    ];
    for (via, is_loop) in table {
        match forward(&request(&[("Via", via)]), UNTRUSTED, &route()) {
            Err(refusal) => assert!(is_loop && refusal == ForwardRefusal::Loop, "{via}"),
            Ok(out) => {
                assert!(!is_loop, "{via}");
                assert_eq!(value(&out.fields, "via"), format!("{via}|1.1 forebay-1"));
            }
        }
    }
}

#[test]
fn max_forwards_counts_options_down() {
    let table = [
        (Method::OPTIONS, "2", Ok("1")),
        (Method::OPTIONS, "99999999999999999999", Ok("4294967294")),
        (Method::OPTIONS, "x", Ok("-")),
        (Method::OPTIONS, "0", Err(ForwardRefusal::FinalRecipient)),
        (Method::OPTIONS, "000", Err(ForwardRefusal::FinalRecipient)),
        (Method::GET, "0", Ok("0")),
    ];
    for (method, sent, expected) in table {
        let head = RequestHead {
            method: method.clone(),
            ..request(&[("Max-Forwards", sent)])
        };
        let out = forward(&head, UNTRUSTED, &route()).map(|out| value(&out.fields, "max-forwards"));
        assert_eq!(out.as_deref(), expected.as_ref().copied(), "{method} {sent}");
    }
}

#[test]
fn a_trace_is_passed_on_or_begun() {
    let valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let out = forward(
        &request(&[("traceparent", valid), ("tracestate", "a=b")]),
        UNTRUSTED,
        &route(),
    )
    .unwrap();
    assert_eq!(value(&out.fields, "traceparent"), valid);
    assert_eq!(value(&out.fields, "tracestate"), "a=b");
    let out = forward(
        &request(&[("traceparent", "garbage"), ("tracestate", "a=b")]),
        UNTRUSTED,
        &route(),
    )
    .unwrap();
    assert_eq!(value(&out.fields, "traceparent").len(), 55);
    assert_eq!(value(&out.fields, "tracestate"), "-");
}

#[test]
fn cookies_that_were_split_are_joined() {
    let out = forward(
        &request(&[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2"), ("cookie", "c=3")]),
        UNTRUSTED,
        &route(),
    );
    assert_eq!(value(&out.unwrap().fields, "cookie"), "a=1; b=2; c=3");
    let out = forward(&request(&[("Cookie", "a=1; b=2")]), UNTRUSTED, &route()).unwrap();
    assert_eq!(value(&out.fields, "cookie"), "a=1; b=2");
}

#[test]
fn the_route_and_upstream_have_the_last_word() {
    let route = Route {
        matches: Match {
            path_prefix: Some(PathTemplate {
                text: "/a".into(),
                segments: vec![Segment::Literal("a".into())],
                trailing_slash: false,
            }),
            ..Match::default()
        },
        strip_prefix: true,
        request_headers: FieldEdits {
            remove: vec!["x-debug".into()],
            set: vec![("X-Real-IP".into(), text("set")), ("host".into(), text("ignored"))],
            add: vec![(
                "X-Path".into(),
                ValueTemplate {
                    parts: vec![ValuePart::Path],
                },
            )],
            always: false,
        },
        ..route()
    };
    let upstream = Upstream {
        host: HostPolicy::Send("app.internal".into()),
        tls: Some(UpstreamTls {
            server_name: "app.internal".into(),
            ca: None,
            verify: Verify::Certificate,
            min_version: TlsVersion::Tls12,
            certificate: None,
        }),
        ..upstream()
    };
    let mut head = request(&[("X-Debug", "1")]);
    let out = forward_to(&head, UNTRUSTED.parse().ok(), &route, &upstream).unwrap();
    assert_eq!((out.authority.as_str(), out.target.as_str()), ("app.internal", "/?b=c"));
    assert_eq!(out.scheme, Scheme::Https);
    for (name, expected) in [
        ("x-debug", "-"),
        ("x-real-ip", "set"),
        ("host", "-"),
        ("x-path", "/a"),
        ("x-forwarded-host", "example.com:8080"),
    ] {
        assert_eq!(value(&out.fields, name), expected, "{name}");
    }
    head.target = "/a/../a/x".into();
    let refusal = forward_to(&head, UNTRUSTED.parse().ok(), &route, &upstream).unwrap_err();
    assert_eq!(refusal, ForwardRefusal::Path(Ambiguity::AboveRoot));
}

#[test]
fn trailers_cannot_bring_in_what_the_head_may_not() {
    let mut trailers = fields(&[
        ("X-Checksum", "1"),
        ("X-Forwarded-For", "6.6.6.6"),
        ("X-Original-URL", "/admin"),
        ("X_Real_IP", "6.6.6.6"),
        ("Connection", "x"),
        ("Cookie", "x"),
        ("grpc-status", "0"),
    ]);
    clean_trailers(&mut trailers);
    let names: Vec<_> = trailers.iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["X-Checksum", "grpc-status"]);
}

fn response(status: u16, lines: &[(&str, &str)]) -> ResponseHead {
    ResponseHead {
        status,
        fields: fields(lines),
        framing: Framing::None,
        declared_length: None,
    }
}

#[test]
fn responses_lose_what_belongs_to_the_upstream_connection() {
    let mut head = response(
        200,
        &[
            ("Connection", "x-hop, Set-Cookie, Cache-Control"),
            ("X-Hop", "1"),
            ("Keep-Alive", "timeout=5"),
            ("Proxy-Authenticate", "x"),
            ("Upgrade", "h2c"),
            ("Trailer", "x-sum"),
            ("Set-Cookie", "a=1"),
            ("Set-Cookie", "b=2"),
            ("Cache-Control", "private"),
            ("Server", "origin"),
            ("Via", "1.1 inner"),
        ],
    );
    clean_response(&mut head, || "Tue, 15 Nov 1994 08:12:31 GMT");
    for (name, expected) in [
        ("connection", "-"),
        ("x-hop", "-"),
        ("keep-alive", "-"),
        ("proxy-authenticate", "-"),
        ("upgrade", "-"),
        ("trailer", "x-sum"),
        ("set-cookie", "a=1|b=2"),
        ("cache-control", "private"),
        ("server", "origin"),
        ("via", "1.1 inner"),
        ("date", "Tue, 15 Nov 1994 08:12:31 GMT"),
    ] {
        assert_eq!(value(&head.fields, name), expected, "{name}");
    }
    let mut dated = response(200, &[("date", "then")]);
    clean_response(&mut dated, || "now");
    assert_eq!(value(&dated.fields, "date"), "then");
    let mut interim = response(103, &[]);
    clean_response(&mut interim, || "now");
    assert!(interim.fields.is_empty());
}

#[test]
fn the_client_gets_what_route_and_listener_add() {
    let edits = |always| FieldEdits {
        set: vec![("cache-control".into(), text("public"))],
        always,
        ..FieldEdits::default()
    };
    let tls = ListenerTls {
        certificates: Vec::new(),
        min_version: TlsVersion::Tls12,
        hsts: Some(Duration::from_secs(31_536_000)),
    };
    // Status, whether the edits apply always, and the outcome.
    for (status, always, expected) in [
        (200, false, "public"),
        (304, false, "public"),
        (404, false, "no-store"),
        (500, false, "no-store"),
        (404, true, "public"),
    ] {
        let route = Route {
            response_headers: edits(always),
            ..route()
        };
        let mut head = response(
            status,
            &[
                ("Cache-Control", "no-store"),
                ("strict-transport-security", "max-age=1"),
            ],
        );
        let mut context = ResponseContext {
            route: Some(&route),
            tls: Some(&tls),
            delivery: Delivery::Stream,
            values: Values {
                client_ip: UNTRUSTED,
                host: "example.com",
                method: "GET",
                path: "/a",
                request_id: b"r1",
                captures: Captures::NONE,
            },
        };
        finish_response(&mut head, &context);
        assert_eq!(value(&head.fields, "cache-control"), expected, "{status}");
        assert_eq!(value(&head.fields, "strict-transport-security"), "max-age=31536000");
        assert_eq!(value(&head.fields, "x-accel-buffering"), "no");
        assert_eq!(value(&head.fields, "x-request-id"), "r1");

        let mut head = response(status, &[("X-Request-Id", "theirs")]);
        context.tls = None;
        context.delivery = Delivery::Whole;
        finish_response(&mut head, &context);
        assert_eq!(value(&head.fields, "strict-transport-security"), "-");
        assert_eq!(value(&head.fields, "x-accel-buffering"), "-");
        assert_eq!(value(&head.fields, "x-request-id"), "theirs");
    }
}
