//! Which route a request takes, and what a route does to it.

use crate::support::client::Client;
use crate::support::origin::{Gate, Origin, Refusing, Reply};
use crate::support::proxy::Proxy;

/// One upstream with these routes, without a catch-all of their own; the route's name is told in `X-Route`.
async fn routed(origin: &Origin, routes: &[(&str, &str)]) -> Proxy {
    let mut yaml = format!(
        "listen: 127.0.0.1:0\nupstreams: {{ app: {{ servers: [\"{0}\"] }}, other: {{ servers: [\"{0}\"] }} }}\nroutes:\n",
        origin.server()
    );
    for (name, policies) in routes {
        yaml.push_str(&format!(
            "  - {{ name: {name}, upstream: app, response_headers: {{ set: {{ X-Route: {name} }}, always: true }}, {policies} }}\n"
        ));
    }
    Proxy::start(&yaml).await
}

#[tokio::test]
async fn the_first_match_wins() {
    let origin = Origin::start().await;
    let proxy = routed(
        &origin,
        &[
            ("host", "match: { host: exact.example }"),
            ("wild", "match: { host: \"*.wild.example\" }"),
            ("header", "match: { path_prefix: /api, headers: { X-Beta: \"1\" } }"),
            ("write", "match: { path_prefix: /api, methods: [POST, PUT] }"),
            ("exact", "match: { path: /api/exact }"),
            ("item", "match: { path: \"/api/items/{id}\" }"),
            ("api", "match: { path_prefix: /api }"),
            ("assets", "match: { path_prefix: /assets/, path_suffix: [.js, .css] }"),
            ("nested", "match: { path_prefix: \"/users/{user}/files\" }"),
        ],
    )
    .await;
    let table = [
        ("GET", "exact.example", "/anything", Some("host")),
        ("GET", "EXACT.example:8080", "/anything", Some("host")),
        ("GET", "exact.example.", "/anything", Some("host")),
        ("GET", "a.wild.example", "/", Some("wild")),
        ("GET", "a.b.wild.example", "/", Some("wild")),
        ("GET", "wild.example", "/", None),
        ("GET", "evilwild.example", "/", None),
        ("GET", "test", "/api", Some("api")),
        ("GET", "test", "/api/", Some("api")),
        ("GET", "test", "/api?x", Some("api")),
        ("GET", "test", "/apiary", None),
        ("GET", "test", "/API", None),
        ("POST", "test", "/api/exact", Some("write")),
        ("DELETE", "test", "/api/exact", Some("exact")),
        ("GET", "test", "/api/exact/", Some("api")),
        ("GET", "test", "/api/items/7", Some("item")),
        ("GET", "test", "/api/items/", Some("api")),
        ("GET", "test", "/api/items/7/more", Some("api")),
        ("GET", "test", "/assets/a.js", Some("assets")),
        ("GET", "test", "/assets/deep/a.css", Some("assets")),
        ("GET", "test", "/assets/a.png", None),
        ("GET", "test", "/users/7/files/a", Some("nested")),
        ("GET", "test", "/users/7/other", None),
    ];
    let mut client = proxy.client().await;
    for (method, host, target, route) in table {
        let response = client.request(method, target, &[("Host", host)], b"").await;
        let status = if route.is_some() { 200 } else { 404 };
        assert_eq!(
            (response.status, response.field("x-route")),
            (status, route),
            "{method} {host} {target}"
        );
    }
    let beta = client.request("GET", "/api/exact", &[("X-Beta", "1")], b"").await;
    assert_eq!(beta.field("x-route"), Some("header"));
    let beta = client.request("GET", "/api/exact", &[("X-Beta", "2")], b"").await;
    assert_eq!(beta.field("x-route"), Some("exact"));
    // What routing depends on cannot be nominated away on the way to the application.
    client
        .request("GET", "/api/exact", &[("X-Beta", "1"), ("Connection", "X-Beta")], b"")
        .await;
    assert_eq!(origin.last_request().field("x-beta"), Some("1"));
}

#[tokio::test]
async fn one_upstream_makes_a_catch_all() {
    let origin = Origin::start().await;
    let sections = "routes: [{ name: api, match: { path_prefix: /api }, upstream: default }]";
    let proxy = Proxy::before(&origin, sections).await;
    assert_eq!(proxy.get("/elsewhere").await.status, 200);
    let labels = [("route", "default")];
    proxy.metric_becomes("forebay_http_requests_total", &labels, 1.0).await;
}

#[tokio::test]
async fn no_spelling_walks_around_a_deny() {
    let origin = Origin::start().await;
    let proxy = routed(
        &origin,
        &[
            (
                "admin",
                "match: { path_prefix: /admin }, deny: [\"0.0.0.0/0\", \"::/0\"]",
            ),
            ("site", "match: { path_prefix: / }"),
        ],
    )
    .await;
    let table = [
        ("/admin", 403),
        ("/admin/", 403),
        ("/admin/users?x", 403),
        ("/%61dmin", 400),
        ("/%61%64%6d%69%6e/users", 400),
        ("/%2561dmin", 400),
        ("//admin", 400),
        ("/./admin", 400),
        ("/x/../admin", 400),
        ("/x/%2e%2e/admin", 400),
        ("/x/..%2fadmin", 400),
        ("/x%2f..%2fadmin", 400),
        ("/x/..;/admin", 400),
        ("/x/..\\admin", 400),
        ("/admin;x", 400),
        ("/%2fadmin", 400),
        ("/../admin", 400),
        ("/a%00b", 400),
        ("/a%zz", 400),
        ("/admin%2e/x", 200),
        ("/administrator", 200),
        ("/site/admin", 200),
        ("/caf%C3%A9", 200),
        ("/a//b", 200),
        ("/a%20b", 200),
    ];
    let mut client = proxy.client().await;
    for (target, status) in table {
        let before = origin.request_count();
        client.send_request("GET", target, &[], b"").await;
        let response = client.response().await;
        assert_eq!(response.status, status, "{target}: {}", response.text());
        let forwarded = origin.request_count() - before;
        assert_eq!(forwarded, usize::from(status == 200), "{target}");
        if status == 200 {
            assert_eq!(origin.last_request().target, target, "paths are forwarded as received");
        }
        if response.field("connection") == Some("close") {
            client = proxy.client().await;
        }
    }
}

#[tokio::test]
async fn addresses_are_allowed_and_denied() {
    let origin = Origin::start().await;
    let proxy = routed(
        &origin,
        &[
            ("inner", "match: { path_prefix: /inner }, allow: [\"127.0.0.2/32\"]"),
            ("outer", "match: { path_prefix: /outer }, deny: [\"127.0.0.2/31\"]"),
            (
                "both",
                "match: { path_prefix: /both }, allow: [\"127.0.0.0/8\"], deny: [\"127.0.0.2/32\"]",
            ),
        ],
    )
    .await;
    for (path, from_1, from_2) in [("/inner", 403, 200), ("/outer", 200, 403), ("/both", 200, 403)] {
        for (source, status) in [([127, 0, 0, 1], from_1), ([127, 0, 0, 2], from_2)] {
            let mut client = Client::connect_from(source, proxy.address()).await;
            assert_eq!(client.get(path).await.status, status, "{path} from {source:?}");
            // Saying to be somebody else does not help.
            let claim = [("X-Forwarded-For", "127.0.0.3")];
            assert_eq!(
                client.request("GET", path, &claim, b"").await.status,
                status,
                "{path} from {source:?}"
            );
        }
    }
}

#[tokio::test]
async fn fields_are_rewritten_both_ways() {
    let origin = Origin::builder()
        .on(
            "/users/7/x",
            Reply::ok("").field("X-Powered-By", "old").field("X-Both", "1"),
        )
        .on("/users/8/x", Reply::status(500).field("X-Powered-By", "old"))
        .start()
        .await;
    let proxy = routed(
        &origin,
        &[(
            "users",
            "match: { path_prefix: \"/users/{user}\" }, \
             request_headers: { set: { X-User: \"u-{user}\", X-Ip: \"{client_ip}\", X-Path: \"{method} {host} {path}\" }, \
             remove: [X-Debug], add: { X-Added: \"{request_id}\" } }",
        )],
    )
    .await;
    let mut client = proxy.client().await;
    let fields = [
        ("X-Debug", "1"),
        ("X-User", "evil"),
        ("X-Added", "first"),
        ("X-Request-Id", "id-1"),
    ];
    client.request("GET", "/users/7/x?q", &fields, b"").await;
    let request = origin.last_request();
    assert_eq!(request.fields("x-user"), ["u-7"]);
    assert_eq!(request.fields("x-ip"), ["127.0.0.1"]);
    assert_eq!(request.fields("x-path"), ["GET test /users/7/x"]);
    assert_eq!(request.fields("x-debug"), [""; 0]);
    assert_eq!(request.fields("x-added"), ["first", "id-1"]);
}

#[tokio::test]
async fn response_fields_are_rewritten_for_good_answers_or_always() {
    let origin = Origin::builder()
        .on("/good", Reply::ok("").field("X-Old", "1").field("X-Both", "1"))
        .on("/bad", Reply::status(500).field("X-Old", "1"))
        .start()
        .await;
    for (always, on_bad) in [("", None), (", always: true", Some("new"))] {
        let sections = format!(
            "routes: [{{ match: {{ path_prefix: / }}, upstream: default, \
             response_headers: {{ remove: [X-Old], set: {{ X-New: new }}, add: {{ X-Both: \"2\" }}{always} }} }}]"
        );
        let proxy = Proxy::before(&origin, &sections).await;
        let good = proxy.get("/good").await;
        assert_eq!((good.field("x-old"), good.field("x-new")), (None, Some("new")));
        assert_eq!(good.fields("x-both"), ["1", "2"]);
        let bad = proxy.get("/bad").await;
        assert_eq!(bad.field("x-new"), on_bad);
    }
}

#[tokio::test]
async fn prefixes_are_stripped() {
    let origin = Origin::start().await;
    let proxy = routed(
        &origin,
        &[
            ("api", "match: { path_prefix: /api/v1 }, strip_prefix: true"),
            ("keep", "match: { path_prefix: /keep }"),
        ],
    )
    .await;
    for (target, forwarded) in [
        ("/api/v1/users?x=/api/v1", "/users?x=/api/v1"),
        ("/api/v1", "/"),
        ("/api/v1?x", "/?x"),
        ("/api/v1/", "/"),
        ("/keep/a", "/keep/a"),
    ] {
        assert_eq!(proxy.get(target).await.status, 200, "{target}");
        assert_eq!(origin.last_request().target, forwarded, "{target}");
    }
    // Nothing climbs out of the prefix.
    let before = origin.request_count();
    for target in ["/api/v1/../../x", "/api/v1/%2e%2e/x", "/api/v1%2f..%2fx"] {
        assert_ne!(proxy.get(target).await.status, 200, "{target}");
    }
    assert_eq!(origin.request_count(), before);
}

#[tokio::test]
async fn the_upstreams_host_can_be_set() {
    let origin = Origin::start().await;
    let yaml = format!(
        "listen: 127.0.0.1:0\nupstreams: {{ default: {{ servers: [\"{}\"], host: app.internal }} }}\n",
        origin.server()
    );
    let proxy = Proxy::start(&yaml).await;
    proxy.request("GET", "/", &[("Host", "shop.example")], b"").await;
    let request = origin.only_request();
    assert_eq!(request.fields("host"), ["app.internal"]);
    assert_eq!(request.field("x-forwarded-host"), Some("shop.example"));
}

#[tokio::test]
async fn named_fields_are_kept_for_routes_that_say_so() {
    let origin = Origin::start().await;
    let proxy = routed(
        &origin,
        &[
            (
                "kept",
                "match: { path_prefix: /kept }, keep_fields: [X-HTTP-Method-Override]",
            ),
            ("taken", "match: { path_prefix: / }"),
        ],
    )
    .await;
    let fields = [("X-HTTP-Method-Override", "PUT"), ("X-Original-URL", "/admin")];
    proxy.request("POST", "/kept", &fields, b"").await;
    let request = origin.last_request();
    assert_eq!(request.field("x-http-method-override"), Some("PUT"));
    assert_eq!(request.field("x-original-url"), None);
    proxy.request("POST", "/taken", &fields, b"").await;
    assert_eq!(origin.last_request().field("x-http-method-override"), None);
}

#[tokio::test]
async fn requests_are_spread_over_servers() {
    let one = Origin::start().await;
    let two = Origin::start().await;
    let weighted = format!(
        "servers: [\"{}\", {{ address: \"{}\", weight: 2 }}]",
        one.server(),
        two.server()
    );
    let yaml = |balance: &str| {
        format!("listen: 127.0.0.1:0\nupstreams: {{ default: {{ {weighted}, balance: {balance} }} }}\n")
    };
    let proxy = Proxy::start(&yaml("round_robin")).await;
    for index in 0..9 {
        assert_eq!(proxy.get(&format!("/{index}")).await.status, 200);
    }
    assert_eq!((one.request_count(), two.request_count()), (3, 6), "by weight");
}

#[tokio::test]
async fn least_connections_avoids_the_busy_server() {
    let gate = Gate::new();
    let one = Origin::builder().on("/held", Reply::ok("").hold(&gate)).start().await;
    let two = Origin::builder().on("/held", Reply::ok("").hold(&gate)).start().await;
    let yaml = format!(
        "listen: 127.0.0.1:0\nupstreams: {{ default: {{ servers: [\"{}\", \"{}\"], balance: least_connections }} }}\n",
        one.server(),
        two.server()
    );
    let proxy = Proxy::start(&yaml).await;
    let mut held = proxy.client().await;
    held.send_request("GET", "/held", &[], b"").await;
    gate.reached(1).await;
    let (busy, idle) = if one.request_count() == 1 {
        (&one, &two)
    } else {
        (&two, &one)
    };
    for index in 0..5 {
        assert_eq!(proxy.get(&format!("/{index}")).await.status, 200);
        // The client has its response a moment before the request is over.
        proxy.metric_becomes("forebay_in_flight", &[], 1.0).await;
    }
    assert_eq!((busy.request_count(), idle.request_count()), (1, 5));
    gate.release();
    assert_eq!(held.response().await.status, 200);
}

#[tokio::test]
async fn a_server_that_refuses_connections_is_passed_over() {
    let refusing = Refusing::new();
    let origin = Origin::start().await;
    let yaml = format!(
        "listen: 127.0.0.1:0\nupstreams: {{ default: {{ servers: [\"{}\", \"{}\"], balance: round_robin }} }}\n",
        refusing.server(),
        origin.server()
    );
    let proxy = Proxy::start(&yaml).await;
    for index in 0..6 {
        // Nothing has been sent yet where there was no connection, so any method may go to the next server.
        let response = proxy.request("POST", &format!("/{index}"), &[], b"body").await;
        assert_eq!(response.status, 200, "{index}: {}", response.text());
    }
    assert_eq!(origin.request_count(), 6);
}
