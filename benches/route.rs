//! What finding a route and forwarding a request's fields cost.

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use forebay::config::{
    FieldEdits, HostPattern, Match, PathTemplate, Route, RouteCache, Segment, ServerAddress, Upstream, UpstreamServer,
};
use forebay::message::{Fields, Framing, RequestHead, Scheme, Version};
use forebay::route::Router;
use forebay::transform::fields::{ForwardContext, forward_request};
use forebay::transform::forwarding::client_address;
use http::Method;
use ipnet::IpNet;

/// Half of the routes name one of a few hosts, all but the last ask for a prefix of two segments.
fn routes(number: usize) -> Vec<Route> {
    let mut routes: Vec<Route> = (0..number - 1)
        .map(|index| {
            let host = HostPattern::Exact(format!("host{}.example.com", index % 7));
            route(Match {
                hosts: if index % 2 == 0 { vec![host] } else { Vec::new() },
                path_prefix: Some(PathTemplate {
                    text: format!("/api/part{index}"),
                    segments: vec![Segment::Literal("api".into()), Segment::Literal(format!("part{index}"))],
                    trailing_slash: false,
                }),
                ..Match::default()
            })
        })
        .collect();
    routes.push(route(Match::default()));
    routes
}

fn route(matches: Match) -> Route {
    Route {
        name: Arc::from("route"),
        matches,
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

/// What a browser sends.
fn request(target: &str) -> RequestHead {
    let mut fields = Fields::new();
    for (name, value) in [
        (
            "User-Agent",
            "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
        ),
        (
            "Accept",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        ),
        ("Accept-Language", "en-US,en;q=0.5"),
        ("Accept-Encoding", "gzip, deflate, br, zstd"),
        ("Connection", "keep-alive"),
        ("Cookie", "session=0123456789abcdef; theme=dark"),
        ("Upgrade-Insecure-Requests", "1"),
        ("Sec-Fetch-Dest", "document"),
        ("Sec-Fetch-Mode", "navigate"),
        ("Sec-Fetch-Site", "none"),
    ] {
        fields.push(name, value);
    }
    RequestHead {
        method: Method::GET,
        scheme: Scheme::Https,
        version: Version::Http11,
        authority: "host2.example.com".into(),
        target: target.into(),
        fields,
        framing: Framing::None,
        expects_continue: false,
        upgrade: false,
        keep_alive: true,
    }
}

fn select(c: &mut Criterion) {
    for number in [10, 300] {
        let router = Router::new(&routes(number));
        let last = number - 2;
        for (what, target) in [
            ("first", "/api/part1/items?page=2".to_owned()),
            ("last", format!("/api/part{}/items?page=2", last | 1)),
            ("catch-all", "/somewhere/else.html".to_owned()),
            ("encoded", "/somewhere/with%20space%2Fslash".to_owned()),
        ] {
            let head = request(&target);
            c.bench_function(&format!("route/{number}/{what}"), |b| {
                b.iter(|| router.select(black_box(&head)).map(|selected| selected.index));
            });
        }
    }
}

fn forward(c: &mut Criterion) {
    let (route, upstream) = (route(Match::default()), upstream());
    let router = Router::new(std::slice::from_ref(&route));
    let head = request("/api/items?page=2");
    let peer: Option<IpAddr> = "192.0.2.1".parse().ok();
    let trusted = [
        IpNet::from(IpAddr::from([127, 0, 0, 1])),
        IpNet::from(IpAddr::from([10, 0, 0, 1])),
    ];
    c.bench_function("forward", |b| {
        b.iter(|| {
            let head = black_box(&head);
            let client = client_address(peer, &head.fields, &trusted);
            let context = ForwardContext {
                client: &client,
                route: &route,
                captures: router.captures(0, head.path()),
                upstream: &upstream,
                request_id: b"0123456789abcdef0123456789abcdef",
                pseudonym: "forebay-1",
            };
            forward_request(head, &context)
        });
    });
}

criterion_group!(benches, select, forward);
criterion_main!(benches);
