//! What is said of requests.

use super::*;

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
fn what_clients_may_have_is_said() {
    let site = "
listen: 127.0.0.1:8080
upstreams: { app: { servers: [127.0.0.1:3001], concurrency: { max_in_flight: 50 } } }
rate_limits:
  exempt: { addresses: [192.0.2.0/24] }
  default:
    - { name: second, requests: 10, per: 1s, burst: 5 }
    - { name: day, bytes: 1GiB, per: 1d, key: [host, \"header:X-User\"], block_for: 1m, count_hits: false, dry_run: true }
concurrency: { max_in_flight: 100, queue: 20, queue_timeout: 2s, adaptive: { min: 5 }, per_client: { max_in_flight: 3, queue: 1 }, max_streams: 7 }
routes:
  - { name: free, match: { path_prefix: /free }, upstream: app, rate_limit: off }
  - { name: chat, match: { path_prefix: /chat }, upstream: app, rate_limit: { tokens: 1000, per: 1m }, stream: { heartbeat: 15s } }
  - { name: dear, match: { path_prefix: /dear }, upstream: app, rate_limit_cost: 5, concurrency: { max_in_flight: 1, queue: 0 } }
  - { name: site, match: { path_prefix: / }, upstream: app }
";
    let rates = |target: &str, from: &str| {
        let url = format!("http://a.example.com{target}");
        under(&told(site, &["GET", &url, "--from", from]), "rate limits")
    };
    let day = "day: 1 GiB in 24 h by host and header:x-user, 1 GiB at once, then refused for 1 min, hits are free (dry_run: refuses nobody)";
    let second = "second: 10 requests in 1 s by client_ip, 5 requests at once";
    assert_eq!(rates("/", "198.51.100.1"), [second, day]);
    assert_eq!(rates("/free", "198.51.100.1"), [""; 0]);
    assert_eq!(
        rates("/chat", "198.51.100.1"),
        ["chat: 1000 tokens in 1 min by client_ip, 1000 tokens at once"]
    );
    let (exempt, cost) = (
        "  not this client's: it is exempt",
        "  each request of this route counts 5 times",
    );
    assert_eq!(rates("/", "192.0.2.9"), [second, exempt, day, exempt]);
    assert_eq!(rates("/dear", "198.51.100.1"), [second, cost, day, cost]);
    let places = |target: &str| {
        let url = format!("http://a.example.com{target}");
        under(&told(site, &["GET", &url]), "in flight")
    };
    let (client, all) = (
        "each client by client_ip: 3, 1 wait",
        "all: 5 to 100 as the latency says, 20 wait for up to 2 s",
    );
    let upstream = "upstream: 50, 20 wait for up to 2 s";
    assert_eq!(places("/"), [client, upstream, all]);
    assert_eq!(
        places("/dear"),
        [client, "route: 1, 0 wait for up to 2 s", upstream, all]
    );
    assert_eq!(places("/chat"), ["all: 7 streams and WebSockets"]);
    assert_eq!(
        under(&told(SITE, &["GET", "http://a.example.com/"]), "rate limits"),
        [""; 0]
    );
}
