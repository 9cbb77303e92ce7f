//! What the front door refuses, and that nobody behind it ever hears of it.

use crate::support::client::{Client, Response};
use crate::support::origin::{Origin, Refusing, Reply, RequestState, Stream};
use crate::support::proxy::{Proxy, config};
use crate::support::within;

/// Follows every bad request, and must never be taken for a request of its own.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: test\r\n\r\n";

/// Sends the bytes with a request behind them; there must be one answer and then the end.
async fn refusal(proxy: &Proxy, name: &str, bytes: &[u8]) -> Response {
    let mut client = proxy.client().await;
    // The answer may come, and the connection go, before everything is sent.
    let _ = client.try_send([bytes, SMUGGLED.as_bytes()].concat()).await;
    let response = client
        .try_response()
        .await
        .unwrap_or_else(|error| panic!("{name}: no answer: {error}"));
    let rest = client.read_to_end().await;
    assert!(
        rest.is_empty(),
        "{name}: a second answer: {}",
        String::from_utf8_lossy(&rest)
    );
    response
}

/// Refuses each of the table with its status, tells why, and closes; the origin sees only the good request at the end.
async fn refuses_all(table: &[(&str, Vec<u8>, u16)]) {
    let origin = Origin::start().await;
    let proxy = Proxy::before(&origin, "").await;
    for (name, bytes, status) in table {
        let response = refusal(&proxy, name, bytes).await;
        assert_eq!(response.status, *status, "{name}: {}", response.text());
        assert_eq!(
            response.field("connection"),
            Some("close"),
            "{name}: {}",
            response.raw_head
        );
        let why = response.field("proxy-status").unwrap_or_default();
        assert!(why.contains("error=http_request_"), "{name}: {}", response.raw_head);
    }
    assert_eq!(proxy.get("/good").await.status, 200);
    assert_eq!(origin.only_request().target, "/good");
    // Every refusal is counted once.
    let refused = table.len() as f64;
    proxy
        .metric_becomes("forebay_http_requests_total", &[("route", "none")], refused)
        .await;
}

fn rows(table: &[(&'static str, &str, u16)]) -> Vec<(&'static str, Vec<u8>, u16)> {
    let row = |(name, text, status): &(&'static str, &str, u16)| (*name, text.as_bytes().to_vec(), *status);
    table.iter().map(row).collect()
}

/// A request with these lines behind `Host`, and a short body.
fn framed(name: &'static str, lines: &str, status: u16) -> (&'static str, Vec<u8>, u16) {
    let text = format!("POST /refused HTTP/1.1\r\nHost: test\r\n{lines}\r\n0\r\n\r\n");
    (name, text.into_bytes(), status)
}

#[tokio::test]
async fn ambiguous_framing_is_refused() {
    refuses_all(&[
        framed(
            "length and chunks",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            400,
        ),
        framed(
            "chunks and length",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            400,
        ),
        framed("two lengths", "Content-Length: 5\r\nContent-Length: 6\r\n", 400),
        framed(
            "the same length twice",
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            400,
        ),
        framed("a list of lengths", "Content-Length: 5, 5\r\n", 400),
        framed("a length with a sign", "Content-Length: +5\r\n", 400),
        framed("a negative length", "Content-Length: -1\r\n", 400),
        framed("a hexadecimal length", "Content-Length: 0x5\r\n", 400),
        framed("an empty length", "Content-Length:\r\n", 400),
        framed("a length in two words", "Content-Length: 5 5\r\n", 400),
        framed(
            "a length beyond 64 bits",
            "Content-Length: 18446744073709551616\r\n",
            400,
        ),
        framed("chunked is not last", "Transfer-Encoding: chunked, identity\r\n", 400),
        framed("no chunked", "Transfer-Encoding: identity\r\n", 400),
        framed("chunked twice", "Transfer-Encoding: chunked, chunked\r\n", 400),
        framed(
            "chunked in two lines",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            400,
        ),
        framed("nearly chunked", "Transfer-Encoding: xchunked\r\n", 400),
        framed("chunked with a control", "Transfer-Encoding: \x0bchunked\r\n", 400),
        framed("chunked in quotes", "Transfer-Encoding: \"chunked\"\r\n", 400),
        framed("space before the colon", "Transfer-Encoding : chunked\r\n", 400),
        framed("an unknown coding below", "Transfer-Encoding: gzip, chunked\r\n", 501),
        (
            "chunks in HTTP/1.0",
            b"POST / HTTP/1.0\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(),
            400,
        ),
    ])
    .await;
}

#[tokio::test]
async fn lines_that_parsers_read_differently_are_refused() {
    let mut table = rows(&[
        ("bare LF everywhere", "GET / HTTP/1.1\nHost: test\n\n", 400),
        (
            "bare LF behind the request line",
            "GET / HTTP/1.1\nHost: test\r\n\r\n",
            400,
        ),
        (
            "bare LF behind a field",
            "GET / HTTP/1.1\r\nHost: test\nX: y\r\n\r\n",
            400,
        ),
        ("bare LF at the end", "GET / HTTP/1.1\r\nHost: test\r\n\n", 400),
        (
            "bare CR in a value",
            "GET / HTTP/1.1\r\nHost: test\r\nX: a\rb\r\n\r\n",
            400,
        ),
        (
            "bare CR in the request line",
            "GET /\r HTTP/1.1\r\nHost: test\r\n\r\n",
            400,
        ),
        (
            "a folded line",
            "GET / HTTP/1.1\r\nHost: test\r\nX: a\r\n b\r\n\r\n",
            400,
        ),
        (
            "a folded line by a tab",
            "GET / HTTP/1.1\r\nHost: test\r\nX: a\r\n\tb\r\n\r\n",
            400,
        ),
        (
            "white space before the first field",
            "GET / HTTP/1.1\r\n Host: test\r\n\r\n",
            400,
        ),
        (
            "an empty field name",
            "GET / HTTP/1.1\r\nHost: test\r\n: a\r\n\r\n",
            400,
        ),
        ("no colon", "GET / HTTP/1.1\r\nHost: test\r\nNonsense\r\n\r\n", 400),
        (
            "a space in a name",
            "GET / HTTP/1.1\r\nHost: test\r\nA b: c\r\n\r\n",
            400,
        ),
        (
            "a delimiter in a name",
            "GET / HTTP/1.1\r\nHost: test\r\nA(b: c\r\n\r\n",
            400,
        ),
        (
            "a letter beyond ASCII in a name",
            "GET / HTTP/1.1\r\nHost: test\r\nÄ: c\r\n\r\n",
            400,
        ),
        ("NUL in a value", "GET / HTTP/1.1\r\nHost: test\r\nX: a\0b\r\n\r\n", 400),
        ("NUL in a name", "GET / HTTP/1.1\r\nHost: test\r\nX\0: b\r\n\r\n", 400),
        ("NUL in the target", "GET /\0 HTTP/1.1\r\nHost: test\r\n\r\n", 400),
        (
            "a control in a value",
            "GET / HTTP/1.1\r\nHost: test\r\nX: a\x01b\r\n\r\n",
            400,
        ),
        (
            "DEL in a value",
            "GET / HTTP/1.1\r\nHost: test\r\nX: a\x7fb\r\n\r\n",
            400,
        ),
    ]);
    table.push((
        "not text at all",
        vec![0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x0d, 0x0a, 0x0d, 0x0a],
        400,
    ));
    refuses_all(&table).await;
}

#[tokio::test]
async fn bad_request_lines_and_hosts_are_refused() {
    let long_method = format!("{} / HTTP/1.1\r\nHost: test\r\n\r\n", "A".repeat(300));
    refuses_all(&rows(&[
        ("two spaces", "GET  / HTTP/1.1\r\nHost: test\r\n\r\n", 400),
        ("a space at the end", "GET / HTTP/1.1 \r\nHost: test\r\n\r\n", 400),
        ("a space in the target", "GET /a b HTTP/1.1\r\nHost: test\r\n\r\n", 400),
        ("a tab for a space", "GET\t/\tHTTP/1.1\r\nHost: test\r\n\r\n", 400),
        ("a fragment", "GET /a#b HTTP/1.1\r\nHost: test\r\n\r\n", 400),
        ("a target without a slash", "GET a HTTP/1.1\r\nHost: test\r\n\r\n", 400),
        ("an asterisk for GET", "GET * HTTP/1.1\r\nHost: test\r\n\r\n", 400),
        ("raw bytes beyond ASCII", "GET /ä HTTP/1.1\r\nHost: test\r\n\r\n", 400),
        ("a bad method", "G(T / HTTP/1.1\r\nHost: test\r\n\r\n", 400),
        ("a method without end", &long_method, 501),
        ("HTTP/0.9", "GET /\r\n\r\n", 400),
        ("lower case HTTP", "GET / http/1.1\r\nHost: test\r\n\r\n", 400),
        ("HTTP/3", "GET / HTTP/3.0\r\nHost: test\r\n\r\n", 505),
        ("CONNECT", "CONNECT test:443 HTTP/1.1\r\nHost: test:443\r\n\r\n", 405),
        ("TRACE", "TRACE / HTTP/1.1\r\nHost: test\r\n\r\n", 405),
        ("no Host", "GET / HTTP/1.1\r\n\r\n", 400),
        ("two Hosts", "GET / HTTP/1.1\r\nHost: test\r\nHost: other\r\n\r\n", 400),
        (
            "the same Host twice",
            "GET / HTTP/1.1\r\nHost: test\r\nHost: test\r\n\r\n",
            400,
        ),
        ("a space in Host", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        ("a slash in Host", "GET / HTTP/1.1\r\nHost: test/admin\r\n\r\n", 400),
        ("a user in Host", "GET / HTTP/1.1\r\nHost: user@test\r\n\r\n", 400),
        ("a word for a port", "GET / HTTP/1.1\r\nHost: test:http\r\n\r\n", 400),
        ("half an IPv6 address", "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
        (
            "Host is not the target's",
            "GET http://other/ HTTP/1.1\r\nHost: test\r\n\r\n",
            400,
        ),
        (
            "an unknown expectation",
            "GET / HTTP/1.1\r\nHost: test\r\nExpect: 200-ok\r\n\r\n",
            417,
        ),
    ]))
    .await;
}

#[tokio::test]
async fn heads_beyond_the_limits_are_refused() {
    let long_target = format!("GET /{} HTTP/1.1\r\nHost: test\r\n\r\n", "a".repeat(10_000));
    let many_fields = format!("GET / HTTP/1.1\r\nHost: test\r\n{}\r\n", "X: y\r\n".repeat(101));
    let long_field = format!("GET / HTTP/1.1\r\nHost: test\r\nX: {}\r\n\r\n", "a".repeat(66_000));
    let long_head = format!(
        "GET / HTTP/1.1\r\nHost: test\r\n{}\r\n",
        format!("X: {}\r\n", "a".repeat(1000)).repeat(70)
    );
    refuses_all(&rows(&[
        ("a long target", &long_target, 414),
        ("many fields", &many_fields, 431),
        ("a long field", &long_field, 431),
        ("a long head", &long_head, 431),
    ]))
    .await;
}

#[tokio::test]
async fn heads_within_the_limits_are_served() {
    let origin = Origin::start().await;
    let proxy = Proxy::before(&origin, "").await;
    let mut client = proxy.client().await;
    for head in [
        format!("GET /{} HTTP/1.1\r\nHost: test\r\n\r\n", "a".repeat(7_000)),
        format!("GET / HTTP/1.1\r\nHost: test\r\n{}\r\n", "X: y\r\n".repeat(90)),
        format!("GET / HTTP/1.1\r\nHost: test\r\nX: {}\r\n\r\n", "a".repeat(60_000)),
        "\r\nGET / HTTP/1.1\r\nhOST:test:80\t\r\nX:\r\nY: ä \"?\t!\r\n\r\n".to_owned(),
        "GET http://test/absolute?x HTTP/1.1\r\nHost: test\r\n\r\n".to_owned(),
        "GET /a%20b;c=d/[e]?{f}|^ HTTP/1.1\r\nHost: [::1]:80\r\n\r\n".to_owned(),
    ] {
        client.send(&head).await;
        let response = client.response().await;
        assert_eq!(response.status, 200, "{head}\n{}", response.text());
    }
    assert_eq!(origin.requests()[4].target, "/absolute?x");
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_413() {
    let origin = Origin::start().await;
    let sections = "routes: [{ match: { path_prefix: / }, upstream: default, max_request_body: 1KiB }]";
    let proxy = Proxy::before(&origin, sections).await;
    let declared = "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 1025\r\n\r\n";
    let response = refusal(&proxy, "a declared length", declared.as_bytes()).await;
    assert_eq!(response.status, 413);
    assert_eq!(
        origin.connection_count(),
        0,
        "a length that is known is refused before anything is sent"
    );

    let chunk = format!("400\r\n{}\r\n", "a".repeat(1024));
    let head = "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";
    let within_limit = proxy.client().await.send_all(&[head, &chunk, "0\r\n\r\n"]).await;
    assert_eq!(within_limit.status, 200);
    let mut client = proxy.client().await;
    client.send([head, &chunk].concat()).await;
    origin
        .request_where(1, "the first chunk", |request| request.body_length == 1024)
        .await;
    client.send("1\r\na\r\n").await;
    let beyond = client.response().await;
    assert_eq!((beyond.status, beyond.field("connection")), (413, Some("close")));
    assert_eq!(origin.ended_request(1).await.state, RequestState::Cut);
}

#[tokio::test]
async fn bodies_have_a_limit_without_being_asked() {
    let origin = Origin::start().await;
    let proxy = Proxy::before(&origin, "").await;
    let head = |length: u64| format!("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n");
    let limit = 10 * 1024 * 1024;
    let response = refusal(&proxy, "beyond", head(limit + 1).as_bytes()).await;
    assert_eq!(response.status, 413);
    let mut client = proxy.client().await;
    client.send(head(limit)).await;
    client.send_zeros(limit).await;
    assert_eq!(client.response().await.status, 200);
    assert_eq!(origin.only_request().body_length, limit);
}

#[tokio::test]
async fn a_bad_chunk_cuts_the_upstream_without_a_terminator() {
    let origin = Origin::start().await;
    let proxy = Proxy::before(&origin, "").await;
    let table = [
        ("no number", "zz\r\n"),
        ("an empty size", "\r\n"),
        ("a sign", "-1\r\na\r\n"),
        ("a prefix", "0x1\r\na\r\n"),
        ("a space before the size", " 1\r\na\r\n"),
        ("bare LF behind the size", "1\na\r\n"),
        ("a size beyond 64 bits", "10000000000000000\r\n"),
        ("more than the size says", "1\r\naXX\r\n0\r\n\r\n"),
        ("bare LF behind the data", "1\r\na\n0\r\n\r\n"),
        ("NUL in an extension", "1;a=\0\r\na\r\n"),
        ("LF in an extension", "1;a\n=b\r\na\r\n"),
        ("a bad trailer", "0\r\nA b: c\r\n\r\n"),
        ("a folded trailer", "0\r\nA: b\r\n c\r\n\r\n"),
    ];
    for (index, (name, bad)) in table.into_iter().enumerate() {
        let mut client = proxy.client().await;
        client
            .send("POST /upload HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
            .await;
        let request = origin
            .request_where(index, "the good chunk", |request| request.body_length == 5)
            .await;
        client.send([bad, SMUGGLED].concat()).await;
        let response = client.response().await;
        assert_eq!(
            (response.status, response.field("connection")),
            (400, Some("close")),
            "{name}"
        );
        assert!(client.read_to_end().await.is_empty(), "{name}");
        origin.closed(request.connection).await;
        assert_eq!(origin.ended_request(index).await.state, RequestState::Cut, "{name}");
        let raw = origin.connection(request.connection).raw;
        assert!(
            !raw.ends_with(b"0\r\n\r\n"),
            "{name}: {}",
            String::from_utf8_lossy(&raw)
        );
    }
    assert_eq!(origin.request_count(), table.len());
    let upstream = origin.requests();
    for (index, request) in upstream.iter().enumerate() {
        let reused = upstream[..index]
            .iter()
            .any(|earlier| earlier.connection == request.connection);
        assert!(!reused, "{}: a cut connection was used again", table[index].0);
    }
}

#[tokio::test]
async fn a_bad_chunk_behind_the_responses_head_cuts_both_sides() {
    let stream = Stream::new();
    let origin = Origin::builder().on("/both", Reply::streamed(&stream)).start().await;
    let proxy = Proxy::before(&origin, "").await;
    let mut client = proxy.client().await;
    client
        .send("POST /both HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        .await;
    stream.opened(1).await;
    stream.send("early");
    let head = client.response_head().await;
    assert_eq!(head.status, 200);
    assert_eq!(client.chunk().await.unwrap(), b"early");
    client.send("zz\r\n").await;
    assert!(client.try_chunk().await.is_err(), "a cut response must not look whole");
    origin.closed(0).await;
    assert_eq!(origin.last_request().state, RequestState::Cut);
}

#[tokio::test]
async fn an_upload_that_breaks_off_is_never_made_whole() {
    let origin = Origin::start().await;
    let proxy = Proxy::before(&origin, "").await;
    for (index, framing) in ["Content-Length: 20", "Transfer-Encoding: chunked"]
        .into_iter()
        .enumerate()
    {
        let mut client = proxy.client().await;
        client
            .send(format!(
                "POST / HTTP/1.1\r\nHost: test\r\n{framing}\r\n\r\n5\r\nhello\r\n"
            ))
            .await;
        origin
            .request_where(index, "the beginning", |request| request.body_length >= 5)
            .await;
        client.half_close().await;
        let _ = client.read_to_end().await;
        assert_eq!(origin.ended_request(index).await.state, RequestState::Cut, "{framing}");
    }
}

#[tokio::test]
async fn errors_speak_the_clients_language_and_leak_nothing() {
    let refusing = Refusing::new();
    let yaml = format!("listen: 127.0.0.1:0\nupstream: http://{}\n", refusing.server());
    let proxy = Proxy::start(&yaml).await;
    let table = [
        (None, "application/problem+json"),
        (Some("application/json"), "application/problem+json"),
        (
            Some("text/html,application/xhtml+xml,*/*;q=0.8"),
            "text/plain; charset=utf-8",
        ),
        (Some("text/plain"), "text/plain; charset=utf-8"),
    ];
    for (accept, kind) in table {
        let accept: Vec<_> = accept.into_iter().map(|value| ("Accept", value)).collect();
        let response = proxy.request("GET", "/secret-path", &accept, b"").await;
        assert_eq!(
            (response.status, response.field("content-type")),
            (502, Some(kind)),
            "{accept:?}"
        );
        let status = response.field("proxy-status").unwrap();
        assert!(
            status.starts_with("forebay;") && status.contains("error=connection_refused"),
            "{status}"
        );
        let everything = format!("{}{}", response.raw_head, response.text());
        for leak in ["127.0.0.1", &refusing.server(), "os error"] {
            assert!(!everything.contains(leak), "{leak} in {everything}");
        }
        if kind.ends_with("json") {
            let problem = response.json();
            assert_eq!(problem["status"], 502);
            assert!(problem["title"].is_string() && problem["type"].is_string());
        }
    }
    assert_eq!(proxy.request("HEAD", "/", &[], b"").await.status, 502);
}

#[tokio::test]
async fn an_upstream_that_fails_is_answered_with_its_status() {
    let origin = Origin::builder()
        .on("/silent", Reply::ok("").hold(&crate::support::origin::Gate::new()))
        .on("/garbage", Reply::raw("SSH-2.0-OpenSSH_9.2\r\n\r\n").close())
        .on("/closed", Reply::script([crate::support::origin::Step::Close]))
        .on("/reset", Reply::script([crate::support::origin::Step::Reset]))
        .on("/bare-lf", Reply::raw("HTTP/1.1 200 OK\nContent-Length: 0\n\n").close())
        .on(
            "/both-lengths",
            Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n").close(),
        )
        .on(
            "/two-lengths",
            Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd").close(),
        )
        .on(
            "/huge-head",
            Reply::raw(format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "a".repeat(600_000))).close(),
        )
        .start()
        .await;
    let yaml = format!(
        "listeners: [{{ address: 127.0.0.1:0 }}]
upstreams: {{ app: {{ servers: [\"{}\"], timeouts: {{ first_byte: 200ms }} }} }}",
        origin.server()
    );
    let proxy = Proxy::start(&yaml).await;
    for (path, status) in [
        ("/silent", 504),
        ("/garbage", 502),
        ("/closed", 502),
        ("/reset", 502),
        ("/bare-lf", 502),
        ("/both-lengths", 502),
        ("/two-lengths", 502),
        ("/huge-head", 502),
    ] {
        let response = proxy.request("POST", path, &[], b"x").await;
        assert_eq!(response.status, status, "{path}: {}", response.raw_head);
        assert!(
            response.field("proxy-status").is_some(),
            "{path}: {}",
            response.raw_head
        );
    }
}

#[tokio::test]
async fn a_response_that_breaks_off_is_cut_for_the_client_too() {
    let origin = Origin::builder()
        .on("/short", Reply::ok("short").declared_length(100).close())
        .on("/reset", Reply::ok("short").declared_length(100).reset())
        .on(
            "/chunks",
            Reply::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n").close(),
        )
        .on(
            "/bad-chunk",
            Reply::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\nzz\r\n"),
        )
        .on(
            "/long-chunk",
            Reply::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshortXX0\r\n\r\n"),
        )
        .start()
        .await;
    let proxy = Proxy::start(&config(&origin, "")).await;
    for path in ["/short", "/reset", "/chunks", "/bad-chunk", "/long-chunk"] {
        let mut client = proxy.client().await;
        client.send_request("GET", path, &[], b"").await;
        let result = client.try_response().await;
        // Where the failure came before the head was sent on, saying so is even better.
        let whole = matches!(&result, Ok(response) if response.status == 200);
        assert!(!whole, "{path}: {result:?}");
    }
    assert_eq!(proxy.get("/good").await.text(), "hello");
}

#[tokio::test]
async fn connections_that_say_nothing_cost_others_nothing() {
    let origin = Origin::start().await;
    let proxy = Proxy::before(&origin, "").await;
    let mut silent = Vec::new();
    for _ in 0..50 {
        let mut client = Client::connect(proxy.address()).await;
        client.send("GET / HT").await;
        silent.push(client);
    }
    let response = within("a request beside silent ones", proxy.get("/")).await;
    assert_eq!(response.status, 200);
}
