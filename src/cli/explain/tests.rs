use clap::Parser;

use super::asked::Wrong;
use super::*;
use crate::cli::{Cli, Command};

/// 2026-01-01T00:00:00Z.
const NOW: Timestamp = Timestamp::from_secs(1_767_225_600);

const SITE: &str = "
listen: 127.0.0.1:8080
upstreams:
  app: { servers: [127.0.0.1:3001, { address: 127.0.0.1:3002, weight: 2 }], balance: least_connections }
trusted_proxies: [10.0.0.0/8]
routes:
  - name: chat
    match: { host: \"*.example.com\", path_prefix: /chat, methods: [POST] }
    upstream: app
    cache: off
    stream: { first_event: 90s, heartbeat: 15s }
    max_request_body: 1KiB
  - name: user
    match: { path: \"/users/{id}\", headers: { X-Beta: 1 } }
    upstream: app
    request_headers: { set: { X-User: \"{id}\" } }
  - { name: admin, match: { path_prefix: /admin }, upstream: app, deny: [192.0.2.0/24], strip_prefix: true }
  - { name: site, match: { path_prefix: / }, upstream: app, response_headers: { set: { X-Served: \"{path}\" } } }
";

fn asked(arguments: &[&str]) -> Result<Asked, Wrong> {
    let arguments = [&["forebay", "explain", "file"], arguments].concat();
    match Cli::try_parse_from(arguments).unwrap().command {
        Command::Explain(options) => Asked::new(&options),
        other => panic!("{other:?}"),
    }
}

fn told(yaml: &str, arguments: &[&str]) -> String {
    let config = Config::parse("test", yaml, &Environment::fixed([])).unwrap().config;
    let generation = Generation::new(config, &Metrics::new(), &Clock::new(), None).unwrap();
    explanation(&asked(arguments).unwrap(), &generation, NOW)
}

/// The lines under one label.
fn under(text: &str, label: &str) -> Vec<String> {
    let mut lines = text.lines().skip_while(|line| line.split("  ").next() != Some(label));
    let own = lines.next().into_iter();
    let all = own.chain(lines.take_while(|line| line.starts_with(' ')));
    all.map(|line| line.get(13..).unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_whole_explanation() {
    let found = told(
        SITE,
        &["GET", "http://shop.example:8080/page?b=1#x", "-H", "Accept: */*"],
    );
    let expected = "\
request      GET http://shop.example:8080/page?b=1
listener     127.0.0.1:8080, http
client       127.0.0.1
route        site (4 of 4): path_prefix /
             not chat: host *.example.com, path_prefix /chat, methods POST
             not user: path /users/{id}, headers x-beta: 1
             not admin: path_prefix /admin
cache        on: a fresh stored response answers the request
             requests for the same at the same time wait for one fetch
key          scheme  http
             host    shop.example:8080
             path    /page
             query   b=1
upstream     app: 2 servers, least_connections, HTTP/1.1
             127.0.0.1:3001 weight 1
             127.0.0.1:3002 weight 2
forwarded    GET /page?b=1 HTTP/1.1
             Host: shop.example:8080
             Accept: */*
             X-Forwarded-For: 127.0.0.1
             X-Forwarded-Proto: http
             X-Forwarded-Host: shop.example:8080
             X-Forwarded-Port: 8080
             X-Real-IP: 127.0.0.1
             Forwarded: for=127.0.0.1;host=\"shop.example:8080\";proto=http
             Via: 1.1 forebay-xxxxxxxx
             X-Request-Id: (new for each request)
             traceparent: (new for each request)
limits       request body   10 MiB, 30 s between two reads
             connect        10 s
             send           30 s
             first_byte     30 s
             between_bytes  30 s
             event stream   5 min between_bytes
             client         30 s without reading
compression  off: bodies are passed on as they are
if it says   200 | Cache-Control: max-age=60                          forebay; fwd=uri-miss; stored; ttl=60
             200 | Cache-Control: public, max-age=60                  forebay; fwd=uri-miss; stored; ttl=60
             200 | Cache-Control: private, max-age=60                 forebay; fwd=uri-miss; detail=private
             200 | Cache-Control: max-age=60 | Set-Cookie: a=b        forebay; fwd=uri-miss; detail=set-cookie
             200 | Cache-Control: max-age=60 | Vary: Accept-Language  forebay; fwd=uri-miss; stored; ttl=60
             200 | ETag: \"1\"                                          forebay; fwd=uri-miss; stored; ttl=0
             200 | Last-Modified: (yesterday)                         forebay; fwd=uri-miss; stored; ttl=60
             200                                                      forebay; fwd=uri-miss; detail=no-freshness
             404 | Cache-Control: max-age=60                          forebay; fwd=uri-miss; stored; ttl=60
";
    assert_eq!(found, expected);
}

#[test]
fn what_is_said_of_requests() {
    const USER: &str = "http://a.example.com/users/7";
    const CHAT: &str = "http://a.example.com/chat";
    let table: &[(&[&str], &str, &[&str])] = &[
        (
            &["GET", USER, "-H", "X-Beta: 1"],
            "route",
            &[
                "user (2 of 4): path /users/{id}, headers x-beta: 1",
                "with {id} = 7",
                "not chat: path_prefix /chat, methods POST",
            ],
        ),
        (
            &["POST", CHAT],
            "route",
            &["chat (1 of 4): host *.example.com, path_prefix /chat, methods POST"],
        ),
        (&["POST", CHAT], "cache", &["off: the route says cache: off"]),
        (
            &["POST", CHAT],
            "stored",
            &[
                "no: the request goes past the cache",
                "Cache-Status: forebay; fwd=bypass",
            ],
        ),
        (
            &["POST", CHAT],
            "limits",
            &[
                "request body   1 KiB, 30 s between two reads",
                "connect        10 s",
                "send           30 s",
                "first_event    90 s",
                "between_bytes  5 min",
                "heartbeat      a comment after 15 s of silence",
                "client         30 s without reading",
            ],
        ),
        (
            &["POST", CHAT, "-H", "Content-Length: 1025"],
            "too large",
            &["Content-Length: 1025 is beyond 1 KiB"],
        ),
        (
            &["POST", CHAT, "-H", "Content-Length: 1025"],
            "answer",
            &[
                "HTTP/1.1 413 Payload Too Large",
                "Proxy-Status: forebay; error=http_request_error; details=\"body-too-large\"",
                "the connection is closed after it",
            ],
        ),
        (
            &["PUT", "http://a/b"],
            "cache",
            &["on, and passed by: the method is neither GET nor HEAD (PUT)"],
        ),
        (
            &["PUT", "http://a/b"],
            "stored",
            &[
                "no: the request goes past the cache",
                "Cache-Status: forebay; fwd=method",
            ],
        ),
        (
            &["PUT", "http://a/b"],
            "removes",
            &[
                "a PUT request that succeeds (2xx, 3xx) removes what is stored of",
                "http://a/b",
            ],
        ),
        (
            &["GET", "http://a/", "-H", "If-Match: \"1\""],
            "stored",
            &[
                "no: the request goes past the cache",
                "Cache-Status: forebay; fwd=request",
            ],
        ),
        (
            &[
                "GET",
                "http://a/",
                "-H",
                "Upgrade: websocket",
                "-H",
                "Connection: upgrade",
            ],
            "stored",
            &[
                "no: the request goes past the cache",
                "Cache-Status: forebay; fwd=bypass; detail=upgrade",
            ],
        ),
        (
            &["GET", "http://a/", "-H", "Cache-Control: only-if-cached"],
            "answer",
            &[
                "HTTP/1.1 504 Gateway Timeout",
                "Proxy-Status: forebay; error=destination_not_found; details=\"not-stored\"",
            ],
        ),
        (
            &["GET", "http://a/", "-H", "Range: bytes=0-1"],
            "cache",
            &[
                "on: a fresh stored response answers the request",
                "it neither waits for another request's fetch nor leads one",
            ],
        ),
        (
            &["GET", "http://a/admin", "--from", "192.0.2.7"],
            "access",
            &["denied: 192.0.2.7 is in deny"],
        ),
        (
            &["GET", "http://a/admin", "--from", "192.0.2.7"],
            "answer",
            &[
                "HTTP/1.1 403 Forbidden",
                "Proxy-Status: forebay; error=http_request_denied; details=\"denied\"",
            ],
        ),
        (
            &[
                "GET",
                "http://a/admin",
                "--from",
                "10.0.0.1",
                "-H",
                "X-Forwarded-For: 192.0.2.7",
            ],
            "client",
            &["192.0.2.7, says the trusted proxy 10.0.0.1"],
        ),
        (
            &["GET", "http://a/admin", "--from", "192.0.3.7"],
            "access",
            &["192.0.3.7 is allowed"],
        ),
        (
            &["GET", "http://a/x/%2e%2e/admin"],
            "route",
            &[
                "refused (ambiguous-path): servers can read the path in ways that belong to different routes",
                "admin takes it in some readings: path_prefix /admin",
                "site takes it in every reading",
            ],
        ),
        (
            &["GET", "http://a/%2e%2e/b"],
            "route",
            &["refused (path-above-root): the path's .. segments climb above its root"],
        ),
        (
            &["TRACE", "http://a/"],
            "refused",
            &["method not allowed (method-not-allowed)"],
        ),
        (
            &["TRACE", "http://a/"],
            "answer",
            &[
                "HTTP/1.1 405 Method Not Allowed",
                "Proxy-Status: forebay; error=http_request_denied; details=\"method-not-allowed\"",
                "Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
                "the connection is closed after it",
            ],
        ),
        (
            &["GET", "http://a/", "-H", "Host: b,c"],
            "refused",
            &["bad Host field (bad-host)"],
        ),
        (
            &["GET", "http://a/", "-H", "Bad Name: x"],
            "refused",
            &["white space before the colon of a field line (space-before-colon)"],
        ),
        (
            &["OPTIONS", "http://a/", "-H", "Max-Forwards: 0"],
            "answer",
            &["HTTP/1.1 200 OK", "Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"],
        ),
        (
            &["GET", "https://a/"],
            "listener",
            &[
                "none speaks https (TLS): no connection",
                "where TLS ends in front of Forebay, ask with http://",
            ],
        ),
    ];
    for (arguments, label, expected) in table {
        let text = told(SITE, arguments);
        assert_eq!(under(&text, label), *expected, "{arguments:?}\n{text}");
    }
}

#[test]
fn what_is_said_of_responses() {
    let closing = [
        "HTTP/1.1 200 OK",
        "-R",
        "Cache-Control: max-age=60",
        "-R",
        "Connection: close",
    ];
    let table: &[(&[&str], &[&str], &str, &str)] = &[
        (
            &[],
            &["200", "-R", "Cache-Control: max-age=60"],
            "yes, with a lifetime of 60 s (max-age)",
            "fwd=uri-miss; stored; ttl=60",
        ),
        (
            &[],
            &["200", "-R", "Cache-Control: max-age=60", "-R", "Age: 20"],
            "yes, with a lifetime of 60 s (max-age)",
            "fwd=uri-miss; stored; ttl=40",
        ),
        (
            &[],
            &["200", "-R", "Expires: Thu, 01 Jan 2026 00:00:30 GMT"],
            "yes, with a lifetime of 30 s (expires)",
            "fwd=uri-miss; stored; ttl=30",
        ),
        (
            &[],
            &["200", "-R", "ETag: \"1\""],
            "yes, to be validated before each use (no lifetime)",
            "fwd=uri-miss; stored; ttl=0",
        ),
        (
            &[],
            &["200", "-R", "ETag: \"1\"", "-R", "Cache-Control: no-cache"],
            "yes, to be validated before each use (no-cache)",
            "fwd=uri-miss; stored; ttl=0",
        ),
        (
            &[],
            &[
                "200",
                "-R",
                "Cache-Control: max-age=60",
                "-R",
                "Content-Length: 8388609",
            ],
            "no: it is larger than 8 MiB (cache.memory.max_body)",
            "fwd=uri-miss; detail=too-large",
        ),
        (
            &[],
            &[
                "200",
                "-R",
                "Content-Type: text/event-stream",
                "-R",
                "Cache-Control: max-age=60",
            ],
            "no: it is an event stream",
            "fwd=uri-miss; detail=event-stream",
        ),
        (
            &[],
            &closing,
            "no: its end is the connection's: whether it is whole cannot be known",
            "fwd=uri-miss; detail=close-delimited",
        ),
        (
            &["-H", "Authorization: Bearer a"],
            &["200", "-R", "Cache-Control: max-age=60"],
            "no: the request has Authorization: only public, s-maxage or must-revalidate allow it (RFC 9111 §3.5)",
            "fwd=uri-miss; detail=authorization",
        ),
        (
            &["-H", "Range: bytes=0-1"],
            &[
                "206",
                "-R",
                "Cache-Control: max-age=60",
                "-R",
                "Content-Range: bytes 0-1/9",
                "-R",
                "Content-Length: 2",
            ],
            "yes, with a lifetime of 60 s (max-age)",
            "fwd=uri-miss; stored; ttl=60",
        ),
        (
            &["-H", "Content-Length: 1"],
            &["200", "-R", "Cache-Control: max-age=60"],
            "no: the request goes past the cache",
            "fwd=bypass; detail=content",
        ),
    ];
    for (request, response, stored, status) in table {
        let text = told(
            SITE,
            &[&["GET", "http://a/page"], *request, &["--response"], *response].concat(),
        );
        assert_eq!(
            under(&text, "stored").first().map(String::as_str),
            Some(*stored),
            "{response:?}\n{text}"
        );
        let line = format!("Cache-Status: forebay; {status}");
        assert!(under(&text, "answer").contains(&line), "{response:?}: {line}\n{text}");
        assert!(under(&text, "answer").contains(&"X-Served: /page".to_owned()), "{text}");
    }
}

#[test]
fn the_same_request_again() {
    let table: &[(&[&str], &[&str], &[&str])] = &[
        (
            &[],
            &["-R", "Cache-Control: max-age=60"],
            &["Cache-Status: forebay; hit; ttl=60; detail=l1"],
        ),
        (
            &["-H", "If-None-Match: \"1\""],
            &["-R", "Cache-Control: max-age=60", "-R", "ETag: \"1\""],
            &[
                "Cache-Status: forebay; hit; ttl=60; detail=l1",
                "with 304: the client has it",
            ],
        ),
        (
            &["-H", "Cache-Control: no-cache"],
            &["-R", "Cache-Control: max-age=60"],
            &["fetched anew: fwd=request"],
        ),
        (
            &[],
            &["-R", "ETag: \"1\""],
            &["the origin is asked whether it still holds: fwd=stale"],
        ),
        (
            &[],
            &["-R", "Cache-Control: max-age=0, stale-while-revalidate=9"],
            &[
                "Cache-Status: forebay; hit; ttl=0; detail=stale-while-revalidate",
                "and it is validated meanwhile",
            ],
        ),
        (&[], &["-R", "Cache-Control: private, max-age=60"], &[]),
    ];
    for (request, response, expected) in table {
        let text = told(
            SITE,
            &[&["GET", "http://a/"], *request, &["--response", "200"], *response].concat(),
        );
        assert_eq!(under(&text, "asked again"), *expected, "{response:?}\n{text}");
    }
}

#[test]
fn answers_that_are_none() {
    let table: &[(&[&str], &str)] = &[
        (&["200", "-R", "Bad Name: x"], "HTTP/1.1 502 Bad Gateway"),
        (&["200", "-R", "Content-Length: x"], "HTTP/1.1 502 Bad Gateway"),
        (
            &["101", "-R", "Upgrade: websocket", "-R", "Connection: upgrade"],
            "HTTP/1.1 502 Bad Gateway",
        ),
    ];
    for (response, answer) in table {
        let text = told(SITE, &[&["GET", "http://a/", "--response"], *response].concat());
        assert_eq!(
            under(&text, "answer").first().map(String::as_str),
            Some(*answer),
            "{response:?}\n{text}"
        );
    }
}

#[test]
fn listeners_are_chosen_by_scheme_and_port() {
    let yaml = "
listeners: [{ address: 127.0.0.1:80, redirect_to_https: true }, { address: 127.0.0.1:8080 }]
upstream: http://127.0.0.1:3000
";
    let text = told(yaml, &["GET", "http://a.example/b?c"]);
    assert_eq!(under(&text, "listener"), ["127.0.0.1:80, http"]);
    assert_eq!(
        under(&text, "answer"),
        ["HTTP/1.1 308 Permanent Redirect", "Location: https://a.example/b?c"]
    );
    let text = told(yaml, &["GET", "http://a.example:8080/"]);
    assert_eq!(under(&text, "listener"), ["127.0.0.1:8080, http"]);
    assert_eq!(under(&text, "route"), ["default, takes everything"]);
    let text = told(yaml, &["GET", "http://a.example:1/"]);
    assert_eq!(
        under(&text, "listener"),
        ["127.0.0.1:80, http", "the first of 2 for http"]
    );
}

#[test]
fn what_is_wrong_with_the_command_line() {
    let table: &[(&[&str], &str)] = &[
        (&["", "http://a/"], "the method \"\" must be one word, like GET"),
        (
            &["GET /", "http://a/"],
            "the method \"GET /\" must be one word, like GET",
        ),
        (
            &["GET", "no url"],
            "the URL \"no url\" must be http://HOST/PATH or https://HOST/PATH",
        ),
        (
            &["GET", "/path"],
            "the URL \"/path\" must be http://HOST/PATH or https://HOST/PATH",
        ),
        (
            &["GET", "ftp://a/"],
            "the URL \"ftp://a/\" must be http://HOST/PATH or https://HOST/PATH",
        ),
        (
            &["GET", "http:///a"],
            "the URL \"http:///a\" must be http://HOST/PATH or https://HOST/PATH",
        ),
        (
            &["GET", "http://a/b c"],
            "the URL \"http://a/b c\" holds a space or a control character: write it as %20 and the like",
        ),
        (
            &["GET", "http://a/", "-H", "Accept"],
            "the field \"Accept\" must be \"Name: value\"",
        ),
        (
            &["GET", "http://a/", "-H", "A: b\r\nHost: c"],
            "the field \"A: b\\r\\nHost: c\" holds a line break or NUL",
        ),
        (
            &["GET", "http://a/", "-R", "A: b"],
            "--response-header needs --response, like --response 200",
        ),
        (
            &["GET", "http://a/", "--response", "OK"],
            "the status \"OK\" must be a status line, like \"HTTP/1.1 200 OK\", or a number",
        ),
        (
            &["GET", "http://a/", "--response", "103"],
            "the status \"103\" is that of an interim response, which is passed on: give the final one",
        ),
        (
            &["GET", "http://a/", "--response", "600"],
            "the status \"600\" must be a status line, like \"HTTP/1.1 200 OK\", or a number",
        ),
    ];
    for (arguments, expected) in table {
        assert_eq!(asked(arguments).unwrap_err().to_string(), *expected, "{arguments:?}");
    }
}

#[test]
fn purge_requests_are_told_whom_they_are_taken_from() {
    let asked = |target: &str, from: &str| {
        let site = SITE.replace("{ name: admin,", "{ name: admin, purge: { allow: [127.0.0.1] },");
        let told = told(&site, &["PURGE", &format!("http://a:8080{target}"), "--from", from]);
        (
            under(&told, "purge").concat(),
            under(&told, "answer")[0].clone(),
            under(&told, "forwarded").len(),
        )
    };
    let here = asked("/admin/x", "127.0.0.1");
    assert_eq!(
        here,
        (
            "what is stored for the URL, http and https, goes".to_owned(),
            "HTTP/1.1 200 OK".to_owned(),
            0
        )
    );
    assert_eq!(asked("/admin/x", "10.9.9.9").1, "HTTP/1.1 403 Forbidden");
    assert_eq!(asked("/x", "127.0.0.1").1, "HTTP/1.1 405 Method Not Allowed");
}

#[test]
fn what_is_said_of_compression() {
    const SITE: &str = "
listen: 127.0.0.1:8080
upstream: http://127.0.0.1:3000
defaults: { compression: { codings: [br, gzip], dictionaries: true } }
routes:
  - { name: own, match: { path_prefix: /own }, upstream: default, compression: { authenticated: none, min_size: 10KiB } }
  - { name: off, match: { path_prefix: /off }, upstream: default, compression: off }
  - { name: site, upstream: default }
";
    const BR: &[&str] = &["-H", "Accept-Encoding: gzip, br, dcb"];
    const HTML: &[&str] = &[
        "--response",
        "200",
        "-R",
        "Content-Type: text/html",
        "-R",
        "Content-Length: 5000",
    ];
    let asked = |path: &str, more: &[&[&str]]| {
        let url = format!("http://a.test{path}");
        told(SITE, &[&["GET", &url][..], &more.concat()].concat())
    };
    let dictionary = &[
        "-H",
        "Available-Dictionary: :AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:",
    ][..];
    for (path, more, expected) in [
        ("/off", &[BR][..], "off: bodies are passed on as they are"),
        ("/", &[BR], "br: the best that is accepted of br, gzip"),
        ("/", &[], "none: Accept-Encoding asks for none of br, gzip"),
        (
            "/",
            &[BR, &["-H", "X-No-Compression: 1"]],
            "none: the request has X-No-Compression",
        ),
        ("/", &[BR, &["-H", "Range: bytes=0-1"]], "none: the request has Range"),
        (
            "/own",
            &[BR, &["-H", "Cookie: a=b"]],
            "none: the request has Cookie or Authorization",
        ),
        ("/", &[BR, HTML], "br: the best that is accepted of br, gzip"),
        ("/own", &[BR, HTML], "none: it is shorter than 10 KiB (min_size)"),
        (
            "/",
            &[BR, HTML, &["-R", "Cache-Control: private"]],
            "none: it is private",
        ),
        (
            "/",
            &[BR, HTML, &["-R", "Cache-Control: no-transform"]],
            "none: Cache-Control says no-transform",
        ),
        (
            "/",
            &[BR, HTML, &["-R", "Content-Encoding: gzip"]],
            "none: the client reads the response as it comes",
        ),
        (
            "/",
            &[HTML, &["-R", "Content-Encoding: gzip"]],
            "undone: the client does not read",
        ),
        (
            "/",
            &[BR, &["--response", "200", "-R", "Content-Type: image/png"]],
            "none: its type is not among",
        ),
        (
            "/",
            &[BR, &["--response", "200", "-R", "Content-Type: text/event-stream"]],
            "none: it is a stream",
        ),
        ("/", &[BR, &["--response", "200"]], "none: it has no Content-Type"),
    ] {
        let lines = under(&asked(path, more), "compression");
        assert!(
            lines.first().is_some_and(|line| line.starts_with(expected)),
            "{path} {more:?}: {lines:?}"
        );
    }
    for (more, expected) in [
        (&[BR, dictionary][..], "what is stored as dcb, if the dictionary"),
        (&[BR], "without a dictionary: there is no Available-Dictionary"),
        (
            &[BR, dictionary, &["-H", "Authorization: x"]],
            "without the client's dictionary: the request has Authorization",
        ),
    ] {
        let lines = under(&asked("/", more), "compression");
        assert!(
            lines.last().is_some_and(|line| line.starts_with(expected)),
            "{more:?}: {lines:?}"
        );
    }
    // The answer is the one that the client gets, and the origin is asked for what all can read.
    let text = asked(
        "/",
        &[BR, HTML, &["-R", "ETag: \"1\"", "-R", "Cache-Control: max-age=60"]],
    );
    let answer = under(&text, "answer");
    for line in [
        "Content-Encoding: br",
        "ETag: \"1;fb-br\"",
        "Vary: Accept-Encoding",
        "Vary: Available-Dictionary",
    ] {
        assert!(answer.iter().any(|said| said == line), "{line}\n{text}");
    }
    assert!(
        under(&text, "forwarded")
            .iter()
            .any(|line| line == "Accept-Encoding: identity"),
        "{text}"
    );
}
