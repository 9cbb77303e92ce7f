use super::*;
use crate::config::{FieldEdits, Match, PathTemplate, Route, RouteCache, Segment};
use crate::message::{Fields, Framing, Scheme, Version};

fn template(text: &str) -> PathTemplate {
    let inner = text.trim_start_matches('/');
    let segments = inner
        .trim_end_matches('/')
        .split('/')
        .filter(|segment| !segment.is_empty());
    PathTemplate {
        text: text.into(),
        segments: segments
            .map(|segment| match segment.strip_prefix('{') {
                Some(name) => Segment::Capture(name.trim_end_matches('}').into()),
                None => Segment::Literal(segment.into()),
            })
            .collect(),
        trailing_slash: inner.ends_with('/'),
    }
}

fn route(matches: Match) -> Route {
    Route {
        name: "r".into(),
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

fn hosts(list: &[&str]) -> Match {
    let pattern = |host: &&str| match host.strip_prefix('*') {
        Some(suffix) => HostPattern::Wildcard(suffix.into()),
        None => HostPattern::Exact((*host).into()),
    };
    Match {
        hosts: list.iter().map(pattern).collect(),
        ..Match::default()
    }
}

fn path(text: &str) -> Match {
    Match {
        path: Some(template(text)),
        ..Match::default()
    }
}

fn prefix(text: &str) -> Match {
    Match {
        path_prefix: Some(template(text)),
        ..Match::default()
    }
}

fn suffixes(list: &[&str]) -> Match {
    Match {
        path_suffix: list.iter().map(|suffix| (*suffix).into()).collect(),
        ..Match::default()
    }
}

fn router(matches: &[Match]) -> Router {
    let routes: Vec<Route> = matches.iter().cloned().map(route).collect();
    Router::new(&routes)
}

fn request(authority: &str, target: &str) -> RequestHead {
    RequestHead {
        method: Method::GET,
        scheme: Scheme::Http,
        version: Version::Http11,
        authority: authority.into(),
        target: target.into(),
        fields: Fields::new(),
        framing: Framing::None,
        expects_continue: false,
        upgrade: false,
        keep_alive: true,
    }
}

fn select(router: &Router, authority: &str, target: &str) -> Result<usize, NoRoute> {
    router
        .select(&request(authority, target))
        .map(|selected| selected.index)
}

#[test]
fn one_condition_decides_as_written() {
    let table: [(Match, &[&str], &[&str]); 13] = [
        (path("/"), &["/", "/?q"], &["/a", "*"]),
        (path("/a"), &["/a", "/a?q"], &["/", "/a/", "/ab", "/a/b", "/A"]),
        (path("/a/"), &["/a/"], &["/a", "/a/b"]),
        (path("/a/{x}"), &["/a/b", "/a/b.c"], &["/a", "/a/", "/a/b/", "/a/b/c"]),
        (path("/{x}/b"), &["/a/b", "/b/b"], &["/b", "/a/c"]),
        (prefix("/"), &["/", "/a", "*"], &[]),
        (
            prefix("/api"),
            &["/api", "/api/", "/api/x", "/api?q"],
            &["/apiary", "/", "/ap", "/x/api"],
        ),
        (prefix("/api/"), &["/api/", "/api/x"], &["/api", "/apiary"]),
        (
            prefix("/api/{v}/x"),
            &["/api/1/x", "/api/2/x/y"],
            &["/api/1", "/api/x", "/api/1/xy"],
        ),
        (
            suffixes(&[".js", ".css"]),
            &["/a.js", "/b/c.css?q=.png"],
            &["/a.jsx", "/a?x=.js", "*"],
        ),
        (
            prefix("/café/my files"),
            &["/caf%C3%A9/my%20files", "/caf%c3%a9/my%20files/x"],
            &["/cafe"],
        ),
        (prefix("/%61pi"), &["/api"], &["/61pi"]),
        (Match::default(), &["/", "*", "/a/b"], &[]),
    ];
    for (matches, matching, others) in table {
        let router = router(std::slice::from_ref(&matches));
        for target in matching {
            assert_eq!(select(&router, "example.com", target), Ok(0), "{target}: {matches:?}");
        }
        for target in others {
            assert_eq!(
                select(&router, "example.com", target),
                Err(NoRoute::NotFound),
                "{target}: {matches:?}"
            );
        }
    }
}

#[test]
fn hosts_are_compared_without_case_port_and_trailing_dot() {
    let router = router(&[
        hosts(&["api.example.com"]),
        hosts(&["*.api.example.com"]),
        hosts(&["*.example.com", "example.net"]),
        hosts(&["[2001:db8::1]"]),
    ]);
    let long = format!("{}.example.com", "a".repeat(MAX_HOST));
    for (authority, expected) in [
        ("api.example.com", Ok(0)),
        ("API.Example.com.:8443", Ok(0)),
        ("a.api.example.com", Ok(1)),
        ("a.b.api.example.com", Ok(1)),
        ("www.example.com", Ok(2)),
        ("a.www.example.com:80", Ok(2)),
        ("example.net", Ok(2)),
        ("[2001:DB8::1]:80", Ok(3)),
        ("example.com", Err(NoRoute::NotFound)),
        (".example.com", Err(NoRoute::NotFound)),
        ("badexample.com", Err(NoRoute::NotFound)),
        ("api.example.com.evil.test", Err(NoRoute::NotFound)),
        (long.as_str(), Err(NoRoute::NotFound)),
        ("", Err(NoRoute::NotFound)),
    ] {
        assert_eq!(select(&router, authority, "/"), expected, "{authority}");
    }
}

#[test]
fn the_first_match_wins_whatever_the_index_holds() {
    let with = |mut matches: Match, prefix: &str| {
        matches.path_prefix = Some(template(prefix));
        matches
    };
    let router = router(&[
        with(hosts(&["*.example.com"]), "/a"),
        prefix("/b"),
        with(hosts(&["www.example.com"]), "/"),
        prefix("/a"),
        with(hosts(&["www.example.com"]), "/c"),
        suffixes(&[".js"]),
        Match::default(),
    ]);
    for (authority, target, expected) in [
        ("www.example.com", "/a", 0),
        ("www.example.com", "/b", 1),
        ("www.example.com", "/c", 2),
        ("ftp.example.com", "/a/x", 0),
        ("ftp.example.com", "/c", 6),
        ("example.org", "/a", 3),
        ("example.org", "/c.js", 5),
        ("example.org", "/a/c.js", 3),
        ("", "/x", 6),
    ] {
        assert_eq!(select(&router, authority, target), Ok(expected), "{authority}{target}");
    }
}

#[test]
fn methods_and_fields_narrow_a_route() {
    let router = router(&[
        Match {
            methods: vec![Method::POST, Method::PUT],
            headers: vec![("x-tenant".into(), "a".into()), ("x-beta".into(), "1".into())],
            ..prefix("/api")
        },
        Match {
            methods: vec![Method::POST],
            ..Match::default()
        },
    ]);
    let fields = |lines: &[(&str, &str)]| {
        let mut fields = Fields::new();
        for (name, value) in lines {
            fields.push(name, value);
        }
        fields
    };
    let both = [("X-Tenant", "b"), ("X-Tenant", "a"), ("X-Beta", "1")];
    for (method, lines, expected) in [
        (Method::POST, &both[..], Ok(0)),
        (Method::PUT, &both[..], Ok(0)),
        (Method::POST, &both[..2], Ok(1)),
        (Method::POST, &[("X-Tenant", "A"), ("X-Beta", "1")], Ok(1)),
        (Method::GET, &both[..], Err(NoRoute::NotFound)),
        (Method::PUT, &[], Err(NoRoute::NotFound)),
    ] {
        let head = RequestHead {
            method: method.clone(),
            fields: fields(lines),
            ..request("example.com", "/api/x")
        };
        let index = router.select(&head).map(|selected| selected.index);
        assert_eq!(index, expected, "{method} {lines:?}");
    }
}

#[test]
fn no_way_of_writing_a_path_leads_around_a_deny() {
    // The first route is the one that would be denied; what reaches it, what reaches the other, and what is refused.
    let router = router(&[prefix("/admin"), prefix("/public"), Match::default()]);
    let refused = |ambiguity| Err(NoRoute::Ambiguous(ambiguity));
    let table = [
        ("/admin", Ok(0)),
        ("/admin/", Ok(0)),
        ("/admin/%61", Ok(0)),
        ("/admin/a//b", Ok(0)),
        ("/admin/./x", Ok(0)),
        ("/admin/a%2Fb", Ok(0)),
        ("/admin/a;b=c", Ok(0)),
        ("/public/a%20b", Ok(1)),
        ("/public/a%2Fb", Ok(1)),
        ("/public/../public/x", Ok(1)),
        ("/public/..x", Ok(1)),
        ("/.well-known/acme-challenge/x", Ok(2)),
        ("/search?q=/../admin", Ok(2)),
        ("/search?q=%zz%00", Ok(2)),
        ("/administrator", Ok(2)),
        ("/a/b;v=1/c", Ok(2)),
        ("/%61dmin", refused(Ambiguity::Routes)),
        ("/%41dmin", Ok(2)),
        ("/%2561dmin", refused(Ambiguity::Routes)),
        ("/%25%36%31dmin", refused(Ambiguity::Routes)),
        ("//admin", refused(Ambiguity::Routes)),
        ("///admin/x", refused(Ambiguity::Routes)),
        ("/./admin", refused(Ambiguity::Routes)),
        ("/%2e/admin", refused(Ambiguity::Routes)),
        ("/public/../admin", refused(Ambiguity::Routes)),
        ("/public/%2e%2e/admin", refused(Ambiguity::Routes)),
        ("/public/.%2E/admin", refused(Ambiguity::Routes)),
        ("/public/%252e%252e/admin", refused(Ambiguity::Routes)),
        ("/public/..%2fadmin", refused(Ambiguity::Routes)),
        ("/public/..%5cadmin", refused(Ambiguity::Routes)),
        ("/public\\..\\admin", refused(Ambiguity::Routes)),
        ("/public/..;/admin", refused(Ambiguity::Routes)),
        ("/public/..;a=b/admin", refused(Ambiguity::Routes)),
        ("/public/..%3b/admin", refused(Ambiguity::Routes)),
        ("/public/x/..//../admin", refused(Ambiguity::Routes)),
        ("/public/%c0%ae%c0%ae/admin", refused(Ambiguity::Routes)),
        ("/admin;x", refused(Ambiguity::Routes)),
        ("/admin%3b", refused(Ambiguity::Routes)),
        ("/;x/admin", refused(Ambiguity::Routes)),
        ("/admin%2fx", refused(Ambiguity::Routes)),
        ("/admin%5cx", refused(Ambiguity::Routes)),
        ("/admin\\x", refused(Ambiguity::Routes)),
        ("/admin%3fx", refused(Ambiguity::Routes)),
        ("/admin%23x", refused(Ambiguity::Routes)),
        ("/admin#x", refused(Ambiguity::Routes)),
        ("/admin/../x", refused(Ambiguity::Routes)),
        ("/%61dmin/../x", refused(Ambiguity::Routes)),
        ("/%2fadmin", refused(Ambiguity::Routes)),
        ("/../admin", refused(Ambiguity::AboveRoot)),
        ("/public/../../admin", refused(Ambiguity::AboveRoot)),
        ("/%2e%2e/admin", refused(Ambiguity::AboveRoot)),
        ("/admin%00", refused(Ambiguity::Nul)),
        ("/admin%", refused(Ambiguity::BadEncoding)),
        ("/admin%u002f", refused(Ambiguity::BadEncoding)),
    ];
    for (target, expected) in table {
        assert_eq!(select(&router, "example.com", target), expected, "{target}");
    }
}

#[test]
fn a_suffix_cannot_be_put_on_or_taken_off() {
    let router = router(&[suffixes(&[".js"]), Match::default()]);
    let refused = Err(NoRoute::Ambiguous(Ambiguity::Routes));
    for (target, expected) in [
        ("/a.js", Ok(0)),
        ("/account;a.js", refused),
        ("/account%3fa.js", refused),
        ("/account%23a.js", refused),
        ("/account%2fa.js", Ok(0)),
        ("/a%2ejs", refused),
        ("/a.js;x", refused),
    ] {
        assert_eq!(select(&router, "example.com", target), expected, "{target}");
    }
}

#[test]
fn captures_are_what_stands_in_the_received_path() {
    let router = router(&[
        Match {
            path_prefix: Some(template("/users/{id}")),
            ..path("/{all}/7/posts/{post}")
        },
        prefix("/files/{owner}"),
        Match::default(),
    ]);
    for (target, index, values) in [
        (
            "/users/7/posts/a%20b?x",
            0,
            [("id", Some("7")), ("post", Some("a%20b")), ("all", Some("users"))],
        ),
        (
            "/files/%41nn/x",
            1,
            [("owner", Some("%41nn")), ("id", None), ("post", None)],
        ),
        ("/other", 2, [("owner", None), ("id", None), ("all", None)]),
    ] {
        let head = request("example.com", target);
        let selected = router.select(&head).unwrap();
        assert_eq!(selected.index, index, "{target}");
        for (name, value) in values {
            assert_eq!(selected.captures.value(name), value, "{target}: {name}");
        }
    }
}

#[test]
fn the_prefix_is_taken_off_on_segment_borders() {
    let table = [
        ("/api", "/api/x?q=/api", Ok("/x?q=/api")),
        ("/api", "/api/x%2Fy//z/", Ok("/x%2Fy//z/")),
        ("/api", "/api", Ok("/")),
        ("/api", "/api?q", Ok("/?q")),
        ("/api", "/api/", Ok("/")),
        ("/api/", "/api/x", Ok("/x")),
        ("/api/{v}", "/api/1/x", Ok("/x")),
        ("/api/{v}", "/api/%31", Ok("/")),
        ("/", "/x?q", Ok("/x?q")),
        ("/", "*", Ok("*")),
        ("/api", "/api/../api/x", Err(Ambiguity::AboveRoot)),
        ("/api", "/api/%2e%2e/api/x", Err(Ambiguity::AboveRoot)),
    ];
    for (prefix_text, target, expected) in table {
        let mut route = route(prefix(prefix_text));
        assert_eq!(strip_prefix(&route, target).as_deref(), Ok(target), "not asked for");
        route.strip_prefix = true;
        assert_eq!(
            strip_prefix(&route, target).as_deref(),
            expected.as_ref().copied(),
            "{prefix_text} {target}"
        );
    }
}

#[test]
fn deny_comes_before_allow() {
    let networks = |list: &[&str]| list.iter().map(|network| network.parse().unwrap()).collect();
    let table: [(&[&str], &[&str], &str, Access); 15] = [
        (&[], &[], "192.0.2.1", Access::Allowed),
        (&[], &[], "unix", Access::Allowed),
        (&["192.0.2.0/24"], &[], "192.0.2.1", Access::Allowed),
        (&["192.0.2.0/24"], &[], "192.0.3.1", Access::Denied),
        (&["192.0.2.0/24"], &[], "::ffff:192.0.2.1", Access::Allowed),
        (&["192.0.2.0/24"], &[], "2001:db8::1", Access::Denied),
        (&["192.0.2.0/24"], &[], "unix", Access::Denied),
        (&["0.0.0.0/0", "::/0"], &["192.0.2.1/32"], "192.0.2.1", Access::Denied),
        (
            &["0.0.0.0/0", "::/0"],
            &["192.0.2.1/32"],
            "::ffff:192.0.2.1",
            Access::Denied,
        ),
        (&["0.0.0.0/0", "::/0"], &["192.0.2.1/32"], "192.0.2.2", Access::Allowed),
        (&["::ffff:192.0.2.0/120"], &[], "192.0.2.1", Access::Allowed),
        (&[], &["::/0"], "192.0.2.1", Access::Allowed),
        (&[], &["::/0"], "2001:db8::1", Access::Denied),
        (&[], &["2001:db8::/32"], "2001:db8::1", Access::Denied),
        (&[], &["0.0.0.0/0"], "unix", Access::Allowed),
    ];
    for (allow, deny, client, expected) in table {
        let route = Route {
            allow: networks(allow),
            deny: networks(deny),
            ..route(Match::default())
        };
        let decision = access(&route, client.parse().ok());
        assert_eq!(decision, expected, "{client}: allow {allow:?}, deny {deny:?}");
    }
}

#[test]
fn the_index_agrees_with_trying_every_route() {
    // Every combination of a few hosts and prefixes, in an order that mixes them.
    let host_conditions: [&[&str]; 5] = [
        &[],
        &["a.test"],
        &["*.a.test"],
        &["*.b.a.test", "c.test"],
        &["x.b.a.test"],
    ];
    let prefixes = ["/", "/a", "/a/b", "/b", "/{x}/b"];
    let mut matches = Vec::new();
    for step in 0..25 {
        let mixed = step * 7 % 25;
        matches.push(Match {
            path_prefix: Some(template(prefixes[mixed / 5])),
            ..hosts(host_conditions[mixed % 5])
        });
    }
    let authorities = [
        "",
        "a.test",
        "y.a.test",
        "b.a.test",
        "x.b.a.test",
        "z.b.a.test",
        "c.test",
        "d.test",
    ];
    for skip in 0..matches.len() {
        let matches = &matches[skip..];
        let all = router(matches);
        for authority in authorities {
            for target in ["/", "/a", "/a/b/c", "/b", "/c/b", "/ab"] {
                let expected = matches
                    .iter()
                    .position(|condition| select(&router(std::slice::from_ref(condition)), authority, target).is_ok());
                assert_eq!(select(&all, authority, target).ok(), expected, "{authority}{target}");
            }
        }
    }
}

/// Servers as they are, told in as few words as possible: each takes the received path for what it answers with.
mod readers {
    fn decode(path: &[u8]) -> Vec<u8> {
        let text = String::from_utf8_lossy(path).into_owned();
        let mut pieces = text.split('%');
        let mut out = pieces.next().unwrap_or_default().as_bytes().to_vec();
        for piece in pieces {
            match piece.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
                Some(byte) => {
                    out.push(byte);
                    out.extend_from_slice(&piece.as_bytes()[2..]);
                }
                None => {
                    out.push(b'%');
                    out.extend_from_slice(piece.as_bytes());
                }
            }
        }
        out
    }

    fn slashes(path: &[u8]) -> Vec<u8> {
        path.iter().map(|b| if *b == b'\\' { b'/' } else { *b }).collect()
    }

    fn without_parameters(path: &[u8]) -> Vec<u8> {
        let segments = path.split(|b| *b == b'/');
        let names = segments.map(|segment| segment.split(|b| *b == b';').next().unwrap_or_default());
        names.collect::<Vec<_>>().join(&b'/')
    }

    /// Merges slashes and resolves dots, clipping at the root.
    fn clean(path: &[u8]) -> Vec<u8> {
        let mut out: Vec<&[u8]> = Vec::new();
        for segment in path.split(|b| *b == b'/') {
            match segment {
                b"" | b"." => {}
                b".." => drop(out.pop()),
                segment => out.push(segment),
            }
        }
        [b"/", &out.join(&b'/')[..]].concat()
    }

    pub fn all(path: &[u8]) -> [Vec<u8>; 8] {
        [
            path.to_vec(),
            decode(path),
            clean(path),
            clean(&decode(path)),
            decode(&clean(path)),
            clean(&slashes(&decode(path))),
            clean(&slashes(&decode(&without_parameters(path)))),
            clean(&slashes(&decode(&decode(path)))),
        ]
    }
}

proptest::proptest! {
    #[test]
    fn no_server_reads_a_denied_path_where_another_route_was_selected(
        pieces in proptest::collection::vec(proptest::sample::select(vec![
            "/", "//", "\\", "%2f", "%2F", "%5c", "%252f", ".", "..", "%2e", "%2E.", "%252e", ";", ";a=b", "%3b", "admin",
            "%61dmin", "adm%69n", "%2561dmin", "public", "x", "%25", "%20", "?", "é",
        ]), 0..9)
    ) {
        let target = format!("/{}", pieces.concat());
        let router = router(&[prefix("/admin"), prefix("/public"), Match::default()]);
        let head = request("example.com", &target);
        if let Ok(selected) = router.select(&head) {
            for reading in readers::all(head.path().as_bytes()) {
                let is_denied = reading == b"/admin" || reading.starts_with(b"/admin/");
                let is_selected = selected.index == 0;
                proptest::prop_assert_eq!(is_denied, is_selected, "{} read as {}", target, reading.escape_ascii());
            }
        }
    }

    #[test]
    fn no_target_and_no_authority_makes_trouble(target in "\\PC*", authority in "\\PC{0,300}") {
        let mut stripped = route(prefix("/{a}"));
        stripped.strip_prefix = true;
        let router = router(&[path("/{a}/b"), hosts(&["*.a"]), prefix("/{a}"), Match::default()]);
        for target in [target.clone(), format!("/{target}")] {
            let _ = router.select(&request(&authority, &target)).map(|selected| selected.captures.value("a").is_some());
            let _ = strip_prefix(&stripped, &target);
        }
    }
}
