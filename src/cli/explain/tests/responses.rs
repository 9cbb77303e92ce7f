//! What is said of responses, and of the request that comes after.

use super::*;

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
