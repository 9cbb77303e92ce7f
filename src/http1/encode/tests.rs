use super::*;
use crate::http1::{Limits, body, request, response};
use crate::message::{Scheme, Version, fields};
use bytes::BytesMut;
use proptest::prelude::*;

fn text(out: Vec<u8>) -> String {
    String::from_utf8(out).unwrap()
}

fn request_text(fields: &Fields, framing: Framing, connection: Connection) -> String {
    let mut out = Vec::new();
    request_head(
        &mut out,
        &Method::PUT,
        "/a?b",
        "example.org:81",
        fields,
        framing,
        connection,
    );
    text(out)
}

fn response_text(status: u16, framing: Framing, declared_length: Option<u64>, method: Method) -> String {
    let head = ResponseHead {
        status,
        fields: fields(&[("A", "b")]),
        framing,
        declared_length,
    };
    let mut out = Vec::new();
    response_head(&mut out, &head, &method, Connection::Persistent);
    text(out)
}

#[test]
fn numbers_are_written_in_decimal() {
    let mut numbers: Vec<u64> = (0..12_000).collect();
    numbers.extend((0..20).flat_map(|power| {
        [
            10_u64.pow(power) - 1,
            10_u64.pow(power),
            7 * 10_u64.pow(power).min(1 << 60),
        ]
    }));
    numbers.extend([u64::MAX, u64::MAX - 1]);
    for number in numbers {
        let mut out = Vec::new();
        decimal(&mut out, number);
        assert_eq!(String::from_utf8(out).unwrap(), number.to_string());
    }
}

#[test]
fn requests_have_one_host_and_one_length() {
    let start = "PUT /a?b HTTP/1.1\r\nHost: example.org:81\r\nA: b\r\n";
    let cases = [
        (Framing::None, ""),
        (Framing::Length(0), "Content-Length: 0\r\n"),
        (Framing::Length(u64::MAX), "Content-Length: 18446744073709551615\r\n"),
        (Framing::Chunked, "Transfer-Encoding: chunked\r\n"),
        (Framing::Stream, "Transfer-Encoding: chunked\r\n"),
    ];
    let lines = fields(&[
        ("host", "evil"),
        ("Content-length", "9"),
        ("transfer-Encoding", "x"),
        ("A", "b"),
        ("Connection", "A"),
        ("Keep-Alive", "1"),
        ("Proxy-Connection", "close"),
        ("Upgrade", "h2c"),
    ]);
    for (framing, line) in cases {
        assert_eq!(
            request_text(&lines, framing, Connection::Persistent),
            format!("{start}{line}\r\n")
        );
    }
}

#[test]
fn connections_are_told_what_becomes_of_them() {
    let cases = [
        (Connection::Persistent, "", "Connection: TE\r\n"),
        (
            Connection::KeepAlive,
            "Connection: keep-alive\r\n",
            "Connection: keep-alive, TE\r\n",
        ),
        (Connection::Close, "Connection: close\r\n", "Connection: close, TE\r\n"),
        (
            Connection::WebSocket,
            "Connection: Upgrade\r\nUpgrade: websocket\r\n",
            "Connection: Upgrade, TE\r\nUpgrade: websocket\r\n",
        ),
    ];
    for (connection, plain, with_te) in cases {
        let written = request_text(&Fields::new(), Framing::None, connection);
        assert!(written.ends_with(&format!("81\r\n{plain}\r\n")), "{written:?}");
        let written = request_text(&fields(&[("TE", "trailers")]), Framing::None, connection);
        assert!(
            written.ends_with(&format!("81\r\nTE: trailers\r\n{with_te}\r\n")),
            "{written:?}"
        );

        let head = ResponseHead {
            status: 101,
            fields: fields(&[("connection", "x"), ("upgrade", "x"), ("B", "c")]),
            framing: Framing::None,
            declared_length: None,
        };
        let mut out = Vec::new();
        response_head(&mut out, &head, &Method::GET, connection);
        assert_eq!(
            text(out),
            format!("HTTP/1.1 101 Switching Protocols\r\nB: c\r\n{plain}\r\n")
        );
    }
}

#[test]
fn responses_have_the_length_that_status_and_method_allow() {
    let (get, head) = (Method::GET, Method::HEAD);
    let (none, five, zero) = (Framing::None, "Content-Length: 5\r\n", "Content-Length: 0\r\n");
    let chunked = "Transfer-Encoding: chunked\r\n";
    let cases = [
        (200, Framing::Length(5), Some(5), &get, five),
        (200, Framing::Chunked, None, &get, chunked),
        (200, Framing::Close, None, &get, ""),
        (200, none, None, &get, zero),
        (200, none, Some(5), &get, zero),
        (200, none, Some(5), &head, five),
        (200, none, None, &head, ""),
        (200, Framing::Length(5), None, &head, five),
        (200, Framing::Chunked, None, &head, chunked),
        (304, none, Some(5), &get, five),
        (304, none, None, &get, ""),
        (204, none, Some(5), &get, ""),
        (204, none, None, &get, ""),
        (204, Framing::Length(0), Some(0), &get, ""),
        (204, Framing::Chunked, None, &get, ""),
    ];
    for (status, framing, declared, method, line) in cases {
        let written = response_text(status, framing, declared, method.clone());
        assert!(
            written.ends_with(&format!("\r\nA: b\r\n{line}\r\n")),
            "{status} {framing:?} {method}: {written:?}"
        );
    }
}

#[test]
fn status_lines_have_the_registered_reason_or_none() {
    for (status, expected) in [
        (200, "HTTP/1.1 200 OK\r\n"),
        (404, "HTTP/1.1 404 Not Found\r\n"),
        (599, "HTTP/1.1 599 \r\n"),
    ] {
        let mut out = Vec::new();
        status_line(&mut out, status);
        assert_eq!(text(out), expected);
    }
}

#[test]
fn interim_responses_have_no_length() {
    let mut out = Vec::new();
    interim_head(&mut out, 103, &fields(&[("Link", "</a>"), ("Content-Length", "3")]));
    assert_eq!(text(out), "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
}

#[test]
fn chunks_are_framed() {
    for (length, expected) in [
        (1, "1\r\n"),
        (10, "a\r\n"),
        (255, "ff\r\n"),
        (4096, "1000\r\n"),
        (u64::MAX, "ffffffffffffffff\r\n"),
    ] {
        let mut out = Vec::new();
        chunk_head(&mut out, length);
        assert_eq!(text(out), expected);
    }
    let mut out = Vec::new();
    last_chunk(&mut out, &fields(&[("A", "b"), ("Content-Length", "3")]));
    assert_eq!(text(out), "0\r\nA: b\r\n\r\n");
    let mut out = Vec::new();
    last_chunk(&mut out, &Fields::new());
    assert_eq!(out, LAST_CHUNK);
}

#[test]
fn trailers_are_decoded_as_encoded() {
    let trailers = fields(&[("X-Sum", "1"), ("grpc-status", "0")]);
    let mut out = BytesMut::new();
    last_chunk(&mut out, &trailers);
    let mut decoder = body::Decoder::new(Framing::Chunked);
    assert_eq!(decoder.decode(&mut out), Ok(body::Event::Trailers(trailers)));
}

fn some_fields() -> impl Strategy<Value = Vec<(String, String)>> {
    // Names with a number, so that they are none that the codec knows.
    prop::collection::vec(("[a-zA-Z_-]{0,9}[0-9]", "([!-~é]([ -~é\t]{0,30}[!-~é])?)?"), 0..20)
}

proptest! {
    #[test]
    fn requests_are_read_as_written(
        lines in some_fields(),
        method in "[A-Z-]{1,20}",
        target in "/[a-z0-9%/?=&]{0,40}",
        length in prop::option::of(any::<u32>()),
    ) {
        prop_assume!(method != "TRACE" && method != "CONNECT");
        let mut sent = Fields::new();
        for (name, value) in &lines {
            sent.push(name, value);
        }
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let framing = length.map_or(Framing::Chunked, |length| Framing::Length(length.into()));
        let mut out = Vec::new();
        request_head(&mut out, &method, &target, "a:1", &sent, framing, Connection::Persistent);
        let (head, length) = request::parse(&out, &Limits::DEFAULT, Scheme::Http).unwrap().unwrap();
        prop_assert_eq!(length, out.len());
        prop_assert_eq!((&head.method, head.target.as_str(), head.framing), (&method, target.as_str(), framing));
        prop_assert_eq!(&head.fields, &sent);
        prop_assert_eq!((head.version, head.authority.as_str()), (Version::Http11, "a:1"));
        // Once more, from received fields instead of added ones.
        let mut again = Vec::new();
        request_head(&mut again, &head.method, &head.target, &head.authority, &head.fields, head.framing, Connection::Persistent);
        prop_assert_eq!(again, out);
    }

    #[test]
    fn responses_are_read_as_written(lines in some_fields(), status in 200..600u16, length in prop::option::of(any::<u32>())) {
        prop_assume!(status != 204 && status != 304);
        let mut sent = Fields::new();
        for (name, value) in &lines {
            sent.push(name, value);
        }
        let framing = length.map_or(Framing::Chunked, |length| Framing::Length(length.into()));
        let head = ResponseHead { status, fields: sent, framing, declared_length: length.map(u64::from) };
        let mut out = Vec::new();
        response_head(&mut out, &head, &Method::GET, Connection::Close);
        let received = response::parse(&out, &Limits::DEFAULT, &Method::GET).unwrap().unwrap();
        prop_assert_eq!((received.length, received.keep_alive), (out.len(), false));
        prop_assert_eq!((received.head.status, received.head.framing), (status, framing));
        prop_assert_eq!(received.head.declared_length, head.declared_length);
        let mut fields = received.head.fields;
        fields.remove("connection");
        prop_assert_eq!(fields, head.fields);
    }
}
