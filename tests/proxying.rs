//! What goes through, both ways, and what becomes of it on the way.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::time::Duration;

use tokio::io::AsyncReadExt;

use crate::support::client::{Client, curl};
use crate::support::inside::Inside;
use crate::support::origin::{Gate, Origin, Reply, RequestState, Step, Stream};
use crate::support::proxy::{Proxy, config};
use crate::support::{within, within_time};

const MIB: u64 = 1024 * 1024;

/// A route without a limit on bodies.
const LARGE_BODIES: &str = "routes: [{ match: { path_prefix: / }, upstream: default, max_request_body: unlimited }]";

#[tokio::test]
async fn methods_targets_and_bodies_arrive_as_sent() {
    let origin = Origin::builder()
        .otherwise(
            Reply::status(201)
                .field("X-Twice", "a")
                .field("X-Twice", "b")
                .body("made"),
        )
        .start()
        .await;
    let proxy = Proxy::before(&origin, "").await;
    let mut client = proxy.client().await;
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "x-own"] {
        let target = "/a%2Fb/c;d=e?q=%20+&empty=&q";
        let body: &[u8] = if method == "GET" { b"" } else { b"some body" };
        let response = client
            .request(method, target, &[("X-Case", "Kept"), ("Accept", "a/b")], body)
            .await;
        assert_eq!((response.status, response.text()), (201, "made"), "{method}");
        assert_eq!(response.fields("x-twice"), ["a", "b"], "{method}");
        let request = origin.last_request();
        assert_eq!((request.method.as_str(), request.target.as_str()), (method, target));
        assert_eq!(request.body, body, "{method}");
        assert!(
            request
                .fields
                .iter()
                .any(|(name, value)| name == "X-Case" && value == "Kept")
        );
    }
    assert_eq!(
        origin.connection_count(),
        1,
        "one connection to the upstream serves them all"
    );
}

#[tokio::test]
async fn every_kind_of_response_body_arrives() {
    let origin = Origin::builder()
        .on("/sized", Reply::ok("sized"))
        .on("/empty", Reply::status(200))
        .on("/chunked", Reply::chunked(["chu", "nked"]))
        .on("/close", Reply::until_close("to the end"))
        .on("/204", Reply::status(204))
        .on("/304", Reply::status(304).field("ETag", "\"a\""))
        .on("/404", Reply::status(404).body("not here"))
        .on("/500", Reply::status(500).body("broken"))
        .on("/599", Reply::status(599).body("own"))
        .on(
            "/raw",
            Reply::raw("HTTP/1.1 200 \r\nContent-Length: 3\r\nX: ä\r\n\r\nraw"),
        )
        .on("/http10", Reply::raw("HTTP/1.0 200 OK\r\n\r\nold").close())
        .start()
        .await;
    let proxy = Proxy::before(&origin, "").await;
    let mut client = proxy.client().await;
    for (path, status, body) in [
        ("/sized", 200, "sized"),
        ("/empty", 200, ""),
        ("/chunked", 200, "chunked"),
        ("/close", 200, "to the end"),
        ("/204", 204, ""),
        ("/304", 304, ""),
        ("/404", 404, "not here"),
        ("/500", 500, "broken"),
        ("/599", 599, "own"),
        ("/raw", 200, "raw"),
        ("/http10", 200, "old"),
        ("/sized", 200, "sized"),
    ] {
        let response = client.get(path).await;
        assert_eq!((response.status, response.text()), (status, body), "{path}");
        assert!(response.field("date").is_some(), "{path}: {}", response.raw_head);
    }
}

#[tokio::test]
async fn head_has_the_fields_of_get_and_no_body() {
    let origin = Origin::builder()
        .on("/sized", Reply::ok("sized"))
        .on("/chunked", Reply::chunked(["chunked"]))
        .start()
        .await;
    let proxy = Proxy::before(&origin, "").await;
    let mut client = proxy.client().await;
    let sized = client.request("HEAD", "/sized", &[], b"").await;
    assert_eq!((sized.status, sized.field("content-length")), (200, Some("5")));
    let chunked = client.request("HEAD", "/chunked", &[], b"").await;
    assert_eq!((chunked.status, chunked.field("content-length")), (200, None));
    // Would be read as the next response if there had been a body.
    assert_eq!(client.get("/sized").await.text(), "sized");
    assert_eq!(origin.requests()[0].method, "HEAD");
}

#[tokio::test]
async fn options_and_max_forwards() {
    let origin = Origin::start().await;
    let proxy = Proxy::before(&origin, "").await;
    let mut client = proxy.client().await;
    let here = client.request("OPTIONS", "/a", &[("Max-Forwards", "0")], b"").await;
    assert_eq!(here.status, 200);
    assert!(here.field("allow").unwrap().contains("GET"), "{}", here.raw_head);
    assert_eq!(origin.request_count(), 0, "Max-Forwards: 0 is for us");

    assert_eq!(
        client
            .request("OPTIONS", "/a", &[("Max-Forwards", "5")], b"")
            .await
            .text(),
        "hello"
    );
    assert_eq!(origin.last_request().field("max-forwards"), Some("4"));
    assert_eq!(client.request("OPTIONS", "*", &[], b"").await.status, 200);
    assert_eq!(origin.last_request().target, "*");
    client.request("GET", "/a", &[("Max-Forwards", "0")], b"").await;
    assert_eq!(
        origin.last_request().field("max-forwards"),
        Some("0"),
        "only OPTIONS and TRACE count"
    );
}

#[tokio::test]
async fn large_bodies_pass_in_flat_memory() {
    let size = 64 * MIB;
    let gate = Gate::new();
    let origin = Origin::builder()
        .on("/down", Reply::zeros(size))
        .on("/up", Reply::ok("taken"))
        .on("/late", Reply::ok("taken").unread(&gate))
        .start()
        .await;
    let proxy = Proxy::before(&origin, LARGE_BODIES).await;
    proxy.get("/warm").await;
    let before = proxy.resident();

    let mut client = proxy.client().await;
    client.send_request("GET", "/down", &[], b"").await;
    let head = client.response_head().await;
    assert_eq!(head.field("content-length"), Some(size.to_string().as_str()));
    assert_eq!(client.count_bytes(size).await, size);

    let mut client = proxy.client().await;
    client
        .send(format!(
            "POST /up HTTP/1.1\r\nHost: test\r\nContent-Length: {size}\r\n\r\n"
        ))
        .await;
    client.send_zeros(size).await;
    assert_eq!(client.response().await.text(), "taken");
    assert_eq!(origin.last_request().body_length, size);

    // An upstream that does not read must stop the client, not fill the memory.
    let mut client = proxy.client().await;
    client
        .send(format!(
            "POST /late HTTP/1.1\r\nHost: test\r\nContent-Length: {size}\r\n\r\n"
        ))
        .await;
    gate.reached(1).await;
    let taken = client.send_until_blocked(size).await;
    assert!(taken < size, "all of {size} bytes were taken while nobody read them");
    let held = proxy.resident().saturating_sub(before);
    assert!(held < 16 * MIB, "{held} bytes more than before");
    gate.release();
    client.send_zeros(size - taken).await;
    assert_eq!(client.response().await.text(), "taken");
}

#[tokio::test]
async fn a_chunked_upload_arrives_piece_by_piece() {
    let origin = Origin::start().await;
    let proxy = Proxy::before(&origin, "").await;
    let mut client = proxy.client().await;
    client
        .send("POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    for count in 1..=3 {
        client.send("4;ext=\"a\"\r\nfour\r\n").await;
        origin
            .request_where(0, "a chunk as soon as it was sent", |request| {
                request.body_length == 4 * count
            })
            .await;
    }
    client.send("0\r\nX-Sum: 12\r\n\r\n").await;
    assert_eq!(client.response().await.status, 200);
    let request = origin.only_request();
    assert_eq!(
        (&request.body[..], request.state),
        (&b"fourfourfour"[..], RequestState::Complete)
    );
    assert_eq!(request.trailers, [("X-Sum".to_owned(), "12".to_owned())]);
    assert_eq!(request.field("content-length"), None);
}

#[tokio::test]
async fn expect_100_continue_is_answered_when_the_body_is_wanted() {
    let origin = Origin::builder()
        .on("/small", Reply::ok("taken"))
        .on("/refused", Reply::status(403).early())
        .start()
        .await;
    let sections = "routes: [{ match: { path_prefix: / }, upstream: default, max_request_body: 1KiB }]";
    let proxy = Proxy::before(&origin, sections).await;
    let expect = "Host: test\r\nExpect: 100-continue\r\n";
    let mut client = proxy.client().await;
    client
        .send(format!("PUT /small HTTP/1.1\r\n{expect}Content-Length: 5\r\n\r\n"))
        .await;
    assert_eq!(client.bytes(25).await, b"HTTP/1.1 100 Continue\r\n\r\n");
    client.send("hello").await;
    assert_eq!(client.response().await.text(), "taken");
    assert_eq!(origin.only_request().body, b"hello");

    // What the application thinks of the head it can say before the body is sent.
    client
        .send(format!("PUT /refused HTTP/1.1\r\n{expect}Content-Length: 5\r\n\r\n"))
        .await;
    let refused = client.response().await;
    assert_eq!((refused.status, refused.interim.len()), (403, 0));
    let mut client = proxy.client().await;

    // A body that will not be taken is refused before anything is sent on.
    client
        .send(format!("PUT /small HTTP/1.1\r\n{expect}Content-Length: 5000\r\n\r\n"))
        .await;
    let refused = client.response().await;
    assert_eq!((refused.status, refused.interim.len()), (413, 0));
    assert_eq!(origin.request_count(), 2);
}

#[tokio::test]
async fn interim_responses_and_trailers_pass() {
    let gate = Gate::new();
    let reply = Reply::chunked(["body"])
        .interim(103, &[("Link", "</style.css>; rel=preload")])
        .hold(&gate)
        .field("Trailer", "X-Sum")
        .trailer("X-Sum", "4");
    let origin = Origin::builder().on("/early", reply).start().await;
    let proxy = Proxy::before(&origin, "").await;
    let mut client = proxy.client().await;
    client
        .send_request("GET", "/early", &[("TE", "trailers"), ("Connection", "TE")], b"")
        .await;
    gate.reached(1).await;
    let hints = "HTTP/1.1 103 Early Hints\r\n";
    let start = client.bytes(hints.len()).await;
    assert_eq!(
        String::from_utf8_lossy(&start),
        hints,
        "while the final response is held"
    );
    gate.release();
    // What is left of the interim response: its field and the empty line.
    let link = b"Link: </style.css>; rel=preload\r\n\r\n";
    assert_eq!(
        client.bytes(link.len()).await.to_ascii_lowercase(),
        link.to_ascii_lowercase()
    );
    let response = client.response().await;
    assert_eq!(response.text(), "body");
    assert_eq!(response.trailers, [("X-Sum".to_owned(), "4".to_owned())]);
    assert_eq!(origin.only_request().field("te"), Some("trailers"));
}

#[tokio::test]
async fn an_early_response_reaches_the_client_while_it_still_sends() {
    let origin = Origin::builder()
        .on("/early", Reply::status(409).body("no").early())
        .start()
        .await;
    let proxy = Proxy::before(&origin, LARGE_BODIES).await;
    let mut client = proxy.client().await;
    client
        .send("POST /early HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\nbeginning")
        .await;
    let response = client.response().await;
    assert_eq!((response.status, response.text()), (409, "no"));
}

/// The head of a response with a body of four bytes, and what the origin does behind it.
fn apart(cache_control: &str, then: impl IntoIterator<Item = Step>) -> Reply {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nCache-Control: {cache_control}\r\n\r\n");
    Reply::script([Step::Write(head.into())].into_iter().chain(then))
}

#[tokio::test]
async fn the_head_of_a_short_response_waits_for_its_body() {
    let gate = Gate::new();
    let rest = || [Step::Hold(gate.clone()), Step::Write("body".into())];
    let origin = Origin::builder()
        .on("/passed", apart("no-store", rest()))
        .on("/stored", apart("max-age=60", rest()))
        .start()
        .await;
    let inside = Inside::before(&origin, "").await;
    for (count, path) in [(1.0, "/passed"), (2.0, "/stored")] {
        let mut client = TcpStream::connect(inside.address()).unwrap();
        write!(client, "GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        inside
            .metric_becomes(
                "forebay_upstream_duration_seconds_count",
                &[("upstream", "default")],
                count,
            )
            .await;
        client.set_nonblocking(true).unwrap();
        let sent = client.peek(&mut [0]);
        assert!(
            matches!(&sent, Err(error) if error.kind() == ErrorKind::WouldBlock),
            "{path}: {sent:?}"
        );
        gate.release();
        let mut client = tokio::net::TcpStream::from_std(client).unwrap();
        let mut got = String::new();
        within("the rest", async {
            while !got.ends_with("body") {
                let mut room = [0; 1024];
                let count = client.read(&mut room).await.unwrap();
                got.push_str(std::str::from_utf8(&room[..count]).unwrap());
                assert!(count > 0, "{got}");
            }
        })
        .await;
        assert!(got.starts_with("HTTP/1.1 200 OK\r\n"), "{got}");
        gate.close();
    }
}

#[tokio::test]
async fn where_nothing_comes_of_a_short_body_the_client_is_told() {
    let gate = Gate::new();
    let no_gzip = |cache_control| {
        let reply = Reply::ok("no gzip").field("Content-Encoding", "gzip");
        reply.field("Cache-Control", cache_control)
    };
    let origin = Origin::builder()
        .on("/passed", apart("no-store", [Step::Close]))
        .on("/stored", apart("max-age=60", [Step::Close]))
        .on("/silent", apart("no-store", [Step::Hold(gate.clone())]))
        .on("/stored-silent", apart("max-age=60", [Step::Hold(gate.clone())]))
        .on("/coded", no_gzip("no-store"))
        .on("/stored-coded", no_gzip("max-age=60"))
        .start()
        .await;
    let timeouts = "timeouts: { between_bytes: 50ms }";
    let proxy = Proxy::start(&format!(
        "listen: 127.0.0.1:0\nupstreams: {{ default: {{ servers: [\"{}\"], {timeouts} }} }}\ndefaults: {{ compression: on }}\n",
        origin.server()
    ))
    .await;
    let mut client = proxy.client().await;
    for (path, status, reason) in [
        ("/passed", 502, "upstream-cut"),
        ("/stored", 502, "upstream-cut"),
        ("/silent", 504, "upstream-silent"),
        ("/stored-silent", 504, "upstream-silent"),
        ("/coded", 502, "malformed-response"),
        ("/stored-coded", 502, "malformed-response"),
    ] {
        // Over one connection, which goes on.
        let response = client.get(path).await;
        assert_eq!(response.status, status, "{path}: {}", response.raw_head);
        assert_eq!(response.json()["reason"], reason, "{path}");
        let entry = proxy.log_entry(|entry| entry["target"] == path).await;
        assert_eq!(
            (&entry["status"], &entry["error"]),
            (&status.into(), &reason.into()),
            "{entry}"
        );
        assert_eq!(entry["coding"], serde_json::Value::Null, "{entry}");
    }
    gate.release();
}

#[tokio::test]
async fn a_client_that_leaves_before_the_head_goes_on_has_had_no_response() {
    let gate = Gate::new();
    let origin = Origin::builder()
        .on("/", apart("no-store", [Step::Hold(gate.clone())]))
        .start()
        .await;
    let inside = Inside::before(&origin, "").await;
    let mut client = inside.client().await;
    client.send_request("GET", "/", &[], b"").await;
    inside
        .metric_becomes(
            "forebay_upstream_duration_seconds_count",
            &[("upstream", "default")],
            1.0,
        )
        .await;
    drop(client);
    let entry = inside.log_entry(|entry| entry["target"] == "/").await;
    assert_eq!(
        (&entry["status"], &entry["error"]),
        (&499.into(), &"client-gone".into()),
        "{entry}"
    );
    assert_eq!(entry["first_byte_seconds"], serde_json::Value::Null, "{entry}");
    gate.release();
}

#[tokio::test]
async fn a_head_that_is_longer_than_what_is_queued_does_not_wait_for_its_body() {
    let head = |cache_control: &str| {
        let long = "x".repeat(70_000);
        format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Long: {long}\r\nCache-Control: {cache_control}\r\n\r\n")
    };
    let gate = Gate::new();
    let reply = |cache_control| {
        Reply::script([
            Step::Write(head(cache_control).into()),
            Step::Hold(gate.clone()),
            Step::Write("body".into()),
        ])
    };
    let origin = Origin::builder()
        .on("/passed", reply("no-store"))
        .on("/stored", reply("max-age=60"))
        .start()
        .await;
    let proxy = Proxy::before(&origin, "").await;
    for path in ["/passed", "/stored"] {
        let mut client = proxy.client().await;
        client.send_request("GET", path, &[], b"").await;
        assert_eq!(client.response_head().await.field("x-long").unwrap().len(), 70_000);
        gate.release();
        assert_eq!(client.bytes(4).await, b"body");
        gate.close();
    }
}

#[tokio::test]
async fn a_client_that_leaves_cancels_the_upstreams_request() {
    let gate = Gate::new();
    let stream = Stream::new();
    let origin = Origin::builder()
        .on("/held", Reply::ok("late").hold(&gate))
        .on("/body", Reply::streamed(&stream))
        .start()
        .await;
    let proxy = Proxy::before(&origin, "").await;
    let leave = Duration::from_secs(1);

    let mut client = proxy.client().await;
    client
        .send_request("GET", "/held", &[("Cache-Control", "no-store")], b"")
        .await;
    gate.reached(1).await;
    let connection = origin.last_request().connection;
    drop(client);
    within_time(leave, "the upstream's end before the head", origin.closed(connection)).await;

    let mut client = proxy.client().await;
    client.send_request("GET", "/body", &[], b"").await;
    stream.opened(1).await;
    stream.send("part");
    client.response_head().await;
    client.chunk().await;
    let connection = origin.last_request().connection;
    drop(client);
    within_time(leave, "the upstream's end within the body", origin.closed(connection)).await;

    let mut client = proxy.client().await;
    client
        .send("POST /up HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhello")
        .await;
    let request = origin
        .request_where(2, "half an upload", |request| request.body_length == 5)
        .await;
    drop(client);
    within_time(
        leave,
        "the upstream's end within the upload",
        origin.closed(request.connection),
    )
    .await;
    assert_eq!(origin.last_request().state, RequestState::Cut);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let gate = Gate::new();
    let origin = Origin::builder()
        .on("/1", Reply::ok("first").hold(&gate))
        .on("/2", Reply::chunked(["sec", "ond"]))
        .on("/3", Reply::ok("third"))
        .start()
        .await;
    let proxy = Proxy::before(&origin, "").await;
    let mut client = proxy.client().await;
    client
        .send(
            "GET /1 HTTP/1.1\r\nHost: test\r\n\r\n\
             POST /2 HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nbody\
             GET /3 HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n",
        )
        .await;
    gate.reached(1).await;
    gate.release();
    assert_eq!(client.response().await.text(), "first");
    assert_eq!(client.response().await.text(), "second");
    let third = client.response().await;
    assert_eq!((third.text(), third.field("connection")), ("third", Some("close")));
    client.closed().await;
    assert_eq!(origin.requests()[1].body, b"body");
}

#[tokio::test]
async fn pipelined_hits_misses_and_errors_are_answered_in_order_and_none_waits_for_the_next() {
    let gate = Gate::new();
    let origin = Origin::builder()
        .on("/kept", Reply::ok("kept").field("Cache-Control", "max-age=60"))
        .on("/slow", Reply::ok("slow").hold(&gate))
        .on("/rest", Reply::ok("rest").field("Cache-Control", "max-age=60"))
        .start()
        .await;
    let proxy = Proxy::before(&origin, "").await;
    let mut client = proxy.client().await;
    for target in ["/kept", "/rest"] {
        client
            .send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"))
            .await;
        assert_eq!(client.response().await.status, 200);
    }
    let hit = "GET /kept HTTP/1.1\r\nHost: test\r\n\r\n";
    let batch = [
        &hit.repeat(40),
        "HEAD /kept HTTP/1.1\r\nHost: test\r\n\r\n",
        "GET /a/../../b HTTP/1.1\r\nHost: test\r\n\r\n",
        hit,
        "GET /slow HTTP/1.1\r\nHost: test\r\n\r\n",
        "GET /rest HTTP/1.1\r\nHost: test\r\n\r\n",
        hit,
        "no request at all\r\n\r\n",
        hit,
    ];
    client.send(batch.concat()).await;
    for number in 0..40 {
        assert_eq!(client.response().await.text(), "kept", "{number}");
    }
    assert_eq!(client.response_without_body().await.status, 200);
    assert_eq!(client.response().await.status, 400, "above the root");
    assert_eq!(client.response().await.text(), "kept");
    // All of that came while this one waits.
    gate.reached(1).await;
    gate.release();
    assert_eq!(client.response().await.text(), "slow");
    assert_eq!(client.response().await.text(), "rest");
    assert_eq!(client.response().await.text(), "kept");
    let refusal = client.response().await;
    assert_eq!((refusal.status, refusal.field("connection")), (400, Some("close")));
    assert!(client.read_to_end().await.is_empty(), "nothing follows");
}

#[tokio::test]
async fn http_1_0_clients_are_served() {
    let origin = Origin::builder()
        .on("/chunked", Reply::chunked(["chu", "nked"]))
        .start()
        .await;
    let proxy = Proxy::before(&origin, "").await;
    let mut client = proxy.client().await;
    client.send("GET /chunked HTTP/1.0\r\nHost: test\r\n\r\n").await;
    let response = client.response().await;
    assert_eq!((response.status, response.text()), (200, "chunked"));
    assert_eq!(response.field("transfer-encoding"), None);

    let mut client = proxy.client().await;
    for _ in 0..2 {
        client
            .send("GET /sized HTTP/1.0\r\nHost: test\r\nConnection: keep-alive\r\n\r\n")
            .await;
        let response = client.response().await;
        assert_eq!(
            (response.text(), response.field("connection")),
            ("hello", Some("keep-alive"))
        );
    }
    client.send("GET /sized HTTP/1.0\r\n\r\n").await;
    assert_eq!(client.response().await.status, 200);
    client.closed().await;
}

#[tokio::test]
async fn connection_close_is_kept() {
    let origin = Origin::start().await;
    let proxy = Proxy::before(&origin, "").await;
    let mut client = proxy.client().await;
    let response = client.request("GET", "/", &[("Connection", "close")], b"").await;
    assert_eq!(response.field("connection"), Some("close"));
    client.closed().await;
}

#[tokio::test]
async fn an_idle_upstream_connection_that_died_is_replaced_unseen() {
    // Answers once, then closes as applications do whose idle time is over.
    let origin = Origin::builder()
        .on_each("/", [Reply::ok("one").close(), Reply::ok("two")])
        .start()
        .await;
    let proxy = Proxy::before(&origin, "").await;
    assert_eq!(proxy.get("/").await.text(), "one");
    origin.closed(0).await;
    assert_eq!(proxy.get("/").await.text(), "two");
    assert_eq!(origin.connection_count(), 2);
}

#[tokio::test]
async fn a_reused_connection_that_is_reset_is_tried_anew_only_where_that_is_safe() {
    let origin = Origin::builder()
        .on("/first", Reply::ok("first"))
        .on_each("/reset", [Reply::script([Step::Reset]), Reply::ok("again")])
        .on_each("/posted", [Reply::script([Step::Reset]), Reply::ok("twice")])
        .start()
        .await;
    let proxy = Proxy::before(&origin, "").await;
    assert_eq!(proxy.get("/first").await.text(), "first");
    assert_eq!(
        proxy.get("/reset").await.text(),
        "again",
        "a GET on a reused connection is sent again"
    );
    assert_eq!(
        proxy.request("POST", "/posted", &[], b"x").await.status,
        502,
        "a POST may have had its effect"
    );
    assert_eq!(
        origin
            .requests()
            .iter()
            .filter(|request| request.method == "POST")
            .count(),
        1
    );
}

#[tokio::test]
async fn idle_upstream_connections_are_closed_before_the_application_does() {
    let origin = Origin::start().await;
    let yaml = format!(
        "listen: 127.0.0.1:0\nupstreams: {{ default: {{ servers: [\"{}\"], keepalive_idle: 200ms }} }}\n",
        origin.server()
    );
    let proxy = Proxy::start(&yaml).await;
    assert_eq!(proxy.get("/").await.status, 200);
    origin.closed(0).await;
    assert_eq!(proxy.get("/").await.status, 200);
}

#[tokio::test]
async fn unix_sockets_work_on_both_sides() {
    let directory = tempfile::tempdir().unwrap();
    let up = directory.path().join("up.sock");
    let down = directory.path().join("down.sock");
    let origin = Origin::builder().unix(&up).start().await;
    let yaml = format!(
        "listeners: [{{ address: \"unix:{}\" }}]\nupstreams: {{ app: {{ servers: [\"{}\"] }} }}\n",
        down.display(),
        origin.server()
    );
    let proxy = Proxy::start(&yaml).await;
    let mut client = Client::connect_unix(&down).await;
    assert_eq!(client.get("/a").await.text(), "hello");
    let request = origin.only_request();
    assert_eq!(
        (request.target.as_str(), request.field("x-forwarded-for")),
        ("/a", None)
    );
    drop(proxy);
}

#[tokio::test]
async fn curl_is_served() {
    let origin = Origin::builder().on("/up", Reply::ok("taken")).start().await;
    let proxy = Proxy::start(&config(&origin, "")).await;
    let get = curl(&[&proxy.url("/get")]).await;
    assert_eq!((get.exit, get.status, get.text()), (0, 200, "hello"), "{}", get.stderr);
    let file = proxy.directory().join("upload");
    std::fs::write(&file, vec![b'a'; 2 * MIB as usize]).unwrap();
    let file = file.display().to_string();
    // Beyond a megabyte curl asks with Expect: 100-continue first.
    for arguments in [
        &["--upload-file", &file][..],
        &["--data-binary", &format!("@{file}")],
        &["--form", &format!("f=@{file}")],
    ] {
        let url = proxy.url("/up");
        let result = curl(&[arguments, &[url.as_str()]].concat()).await;
        assert_eq!(
            (result.exit, result.status, result.text()),
            (0, 200, "taken"),
            "{arguments:?}: {}",
            result.stderr
        );
        assert!(origin.last_request().body_length >= 2 * MIB, "{arguments:?}");
    }
    let head = curl(&["--head", &proxy.url("/get")]).await;
    assert_eq!((head.exit, head.status), (0, 200));
}
