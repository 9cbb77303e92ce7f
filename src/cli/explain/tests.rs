//! Words of `forebay explain`, for one site mostly.

mod requests;
mod responses;

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
