use super::*;
use proptest::prelude::*;

mod refused;

fn parse_http(bytes: &[u8]) -> Result<Option<(RequestHead, usize)>, RequestError> {
    parse(bytes, &Limits::DEFAULT, Scheme::Http)
}

fn head(text: &str) -> RequestHead {
    match parse_http(text.as_bytes()) {
        Ok(Some((head, length))) => {
            assert_eq!(length, text.len(), "{text:?}");
            head
        }
        other => panic!("{text:?}: {other:?}"),
    }
}

fn error(bytes: &[u8]) -> RequestError {
    match parse_http(bytes) {
        Err(error) => error,
        other => panic!("{:?}: {other:?}", bytes.escape_ascii().to_string()),
    }
}

const BROWSER: &str = "GET /articles/42?lang=de&page=2 HTTP/1.1\r\nHost: www.example.org\r\nConnection: keep-alive\r\n\
    Accept: text/html,*/*;q=0.8\r\nCookie: a=b; c=d\r\nx-empty:\r\nX-Padded: \t v \t\r\n\r\n";

#[test]
fn a_request_is_read_as_sent() {
    let bytes = [BROWSER.as_bytes(), b"NEXT"].concat();
    let (head, length) = parse_http(&bytes).unwrap().unwrap();
    assert_eq!(length, BROWSER.len());
    assert_eq!(head.method, Method::GET);
    assert_eq!(
        (head.authority.as_str(), head.target.as_str()),
        ("www.example.org", "/articles/42?lang=de&page=2")
    );
    assert_eq!((head.path(), head.query()), ("/articles/42", Some("lang=de&page=2")));
    assert_eq!(
        (head.version, head.scheme, head.framing),
        (Version::Http11, Scheme::Http, Framing::None)
    );
    assert!(head.keep_alive && !head.upgrade && !head.expects_continue);
    let lines: Vec<_> = head.fields.iter().collect();
    assert_eq!(
        lines,
        [
            ("Connection", &b"keep-alive"[..]),
            ("Accept", b"text/html,*/*;q=0.8"),
            ("Cookie", b"a=b; c=d"),
            ("x-empty", b""),
            ("X-Padded", b"v"),
        ]
    );
}

#[test]
fn framing_is_what_the_fields_say() {
    let cases = [
        ("", Framing::None),
        ("Content-Length: 0\r\n", Framing::Length(0)),
        ("content-length:5\r\n", Framing::Length(5)),
        ("CONTENT-LENGTH: \t 007 \r\n", Framing::Length(7)),
        (
            "Content-Length: 9223372036854775807\r\n",
            Framing::Length(i64::MAX as u64),
        ),
        ("Transfer-Encoding: chunked\r\n", Framing::Chunked),
        ("transfer-encoding:\tCHUNKED \r\n", Framing::Chunked),
        // Names that only look like them.
        (
            "Content-Lengths: 5\r\nContent_Length: 5\r\nTransfer-Encodinh: chunked\r\n",
            Framing::None,
        ),
    ];
    for (lines, framing) in cases {
        let head = head(&format!("POST / HTTP/1.1\r\nHost: a\r\nX-Y: z\r\n{lines}\r\n"));
        assert_eq!(head.framing, framing, "{lines:?}");
        for name in ["content-length", "transfer-encoding", "host"] {
            assert!(!head.fields.contains(name), "{lines:?}");
        }
        assert!(head.fields.contains("x-y"));
    }
}

#[test]
fn targets_are_taken_from_their_form() {
    let cases = [
        ("GET / HTTP/1.1\r\nHost: a", "a", "/"),
        ("GET //b/../? HTTP/1.1\r\nHost: a", "a", "//b/../?"),
        (
            "GET /%2e%2E//x;y?%zz?/\\` HTTP/1.1\r\nHost: A:8080",
            "A:8080",
            "/%2e%2E//x;y?%zz?/\\`",
        ),
        (
            "GET /{a}|[b]^\"?{c}|[d]^ HTTP/1.1\r\nHost: a",
            "a",
            "/{a}|[b]^\"?{c}|[d]^",
        ),
        ("GET http://b/x?y HTTP/1.1\r\nHost: B:80", "b", "/x?y"),
        ("GET HTTP://b:81 HTTP/1.1\r\nHost: b:81", "b:81", "/"),
        ("GET http://b?y=/ HTTP/1.1\r\nHost: b", "b", "/?y=/"),
        ("GET http://b/ HTTP/1.0", "b", "/"),
        ("OPTIONS * HTTP/1.1\r\nHost: a", "a", "*"),
        ("OPTIONS http://a HTTP/1.1\r\nHost: a", "a", "*"),
        ("OPTIONS http://a? HTTP/1.1\r\nHost: a", "a", "/?"),
        ("OPTIONS http://a/ HTTP/1.1\r\nHost: a", "a", "/"),
        ("GET / HTTP/1.0", "", "/"),
        ("GET / HTTP/1.1\r\nHost: [2001:db8::1]:443", "[2001:db8::1]:443", "/"),
        ("GET / HTTP/1.1\r\nHost: my_app.internal.", "my_app.internal.", "/"),
        ("GET / HTTP/1.1\r\nHost: 192.0.2.1:65535", "192.0.2.1:65535", "/"),
        (
            "GET / HTTP/1.1\r\nHost: xn--bcher-kva.example",
            "xn--bcher-kva.example",
            "/",
        ),
    ];
    for (text, authority, target) in cases {
        let head = head(&format!("{text}\r\n\r\n"));
        assert_eq!(
            (head.authority.as_str(), head.target.as_str()),
            (authority, target),
            "{text:?}"
        );
    }
    let (head, _) = parse(
        b"GET https://a/ HTTP/1.1\r\nHost: a:443\r\n\r\n",
        &Limits::DEFAULT,
        Scheme::Https,
    )
    .unwrap()
    .unwrap();
    assert_eq!((head.scheme, head.authority.as_str()), (Scheme::Https, "a"));
}

/// Otherwise a request could be had with one version and not be passed on with the other.
#[test]
fn every_target_byte_can_be_said_in_http2() {
    let mut accepted = 0;
    for byte in 0..=255u8 {
        for place in ["/a", "/a?b"] {
            let target = [place.as_bytes(), &[byte], b"c"].concat();
            let bytes = [b"GET ", &target[..], b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
            if let Ok(Some((head, _))) = parse_http(&bytes) {
                assert_eq!(head.target.as_bytes(), target);
                let uri = http::uri::PathAndQuery::try_from(head.target.as_str());
                assert_eq!(head.target, uri.unwrap().as_str(), "{byte:#x}");
                accepted += 1;
            }
        }
    }
    assert!(accepted > 160, "{accepted}");
}

#[test]
fn any_token_is_a_method() {
    for method in [
        "GET",
        "get",
        "PURGE",
        "M-SEARCH",
        "!#$%&'*+-.^_`|~",
        "UPDATEREDIRECTREF",
    ] {
        assert_eq!(
            head(&format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n")).method.as_str(),
            method
        );
    }
    // Methods are case-sensitive (RFC 9110 §9.1): these are not TRACE and CONNECT.
    assert_eq!(head("trace / HTTP/1.1\r\nHost: a\r\n\r\n").method.as_str(), "trace");
    assert_eq!(error(b"connect a:1 HTTP/1.1\r\nHost: a\r\n\r\n"), RequestError::Target);
}

#[test]
fn empty_lines_before_a_request_are_passed_over() {
    for lines in ["\r\n", "\r\n\r\n"] {
        let text = format!("{lines}GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(head(&text).target, "/");
    }
    for partial in ["", "\r", "\r\n", "\r\n\r", "\r\n\r\n"] {
        assert!(parse_http(partial.as_bytes()).unwrap().is_none(), "{partial:?}");
    }
}

#[test]
fn connections_live_on_as_version_and_options_say() {
    let cases = [
        ("HTTP/1.1", "", true),
        ("HTTP/1.1", "Connection: close\r\n", false),
        ("HTTP/1.1", "Connection: x, Close\r\n", false),
        ("HTTP/1.1", "Connection: x\r\nConnection: close\r\n", false),
        ("HTTP/1.1", "Connection: keep-alive, close\r\n", false),
        ("HTTP/1.1", "Connection: closed\r\n", true),
        ("HTTP/1.0", "", false),
        ("HTTP/1.0", "Connection: Keep-Alive\r\n", true),
        ("HTTP/1.0", "Connection: keep-alive, close\r\n", false),
        ("HTTP/1.0", "Keep-Alive: timeout=5\r\n", false),
    ];
    for (version, lines, expected) in cases {
        let head = head(&format!("GET / {version}\r\nHost: a\r\n{lines}\r\n"));
        assert_eq!(head.keep_alive, expected, "{version} {lines:?}");
    }
}

#[test]
fn only_a_bodiless_websocket_get_is_an_upgrade() {
    let offer = "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n";
    let cases = [
        ("GET / HTTP/1.1", offer, true),
        (
            "GET / HTTP/1.1",
            "Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n",
            true,
        ),
        ("GET / HTTP/1.0", offer, false),
        ("POST / HTTP/1.1", offer, false),
        ("HEAD / HTTP/1.1", offer, false),
        ("GET / HTTP/1.1", "Upgrade: websocket\r\n", false),
        ("GET / HTTP/1.1", "Connection: upgrade\r\n", false),
        ("GET / HTTP/1.1", "Connection: upgrade\r\nUpgrade: h2c\r\n", false),
        (
            "GET / HTTP/1.1",
            "Connection: upgrade\r\nUpgrade: websocket, h2c\r\n",
            false,
        ),
        (
            "GET / HTTP/1.1",
            "Connection: upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n",
            false,
        ),
        (
            "GET / HTTP/1.1",
            "Connection: upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n",
            false,
        ),
        (
            "GET / HTTP/1.1",
            "Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n",
            false,
        ),
        (
            "GET / HTTP/1.1",
            "Connection: upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n",
            false,
        ),
    ];
    for (line, fields, expected) in cases {
        let head = head(&format!("{line}\r\nHost: a\r\n{fields}\r\n"));
        assert_eq!(head.upgrade, expected, "{line} {fields:?}");
    }
}

#[test]
fn continue_is_expected_by_http11_requests_with_bodies() {
    let cases = [
        ("HTTP/1.1", "Expect: 100-Continue\r\nContent-Length: 5\r\n", true),
        (
            "HTTP/1.1",
            "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n",
            true,
        ),
        ("HTTP/1.1", "Expect: 100-continue\r\nContent-Length: 0\r\n", false),
        ("HTTP/1.1", "Expect: 100-continue\r\n", false),
        ("HTTP/1.1", "Content-Length: 5\r\n", false),
        ("HTTP/1.0", "Expect: 100-continue\r\nContent-Length: 5\r\n", false),
        ("HTTP/1.0", "Expect: whatever\r\nContent-Length: 5\r\n", false),
    ];
    for (version, fields, expected) in cases {
        let head = head(&format!("PUT / {version}\r\nHost: a\r\n{fields}\r\n"));
        assert_eq!(head.expects_continue, expected, "{version} {fields:?}");
    }
}

#[test]
fn limits_hold_to_the_byte() {
    let limits = Limits {
        head: 100,
        fields: 3,
        target: 10,
    };
    let parse = |text: &str| parse(text.as_bytes(), &limits, Scheme::Http).map(|parsed| parsed.is_some());
    let target_too_long = Err(RequestError::TargetTooLong);
    assert_eq!(parse("GET /123456789 HTTP/1.1\r\nHost: a\r\n\r\n"), Ok(true));
    assert_eq!(parse("GET /1234567890 HTTP/1.1\r\nHost: a\r\n\r\n"), target_too_long);
    assert_eq!(parse("GET /1234567890"), target_too_long);
    assert_eq!(parse("GET /123456789"), Ok(false));

    assert_eq!(parse("GET / HTTP/1.1\r\nHost: a\r\nb:\r\nc:\r\n\r\n"), Ok(true));
    let too_many = Err(RequestError::Syntax(SyntaxError::TooManyFields));
    assert_eq!(parse("GET / HTTP/1.1\r\nHost: a\r\nb:\r\nc:\r\nd:\r\n\r\n"), too_many);
    assert_eq!(parse("GET / HTTP/1.1\r\nHost: a\r\nb:\r\nc:\r\nd"), too_many);

    let start = "GET / HTTP/1.1\r\nHost: a\r\nb: ";
    let too_large = Err(RequestError::Syntax(SyntaxError::HeadTooLarge));
    let fill = "x".repeat(100 - start.len() - 4);
    assert_eq!(parse(&format!("{start}{fill}\r\n\r\n")), Ok(true));
    assert_eq!(parse(&format!("{start}{fill}x\r\n\r\n")), too_large);
    assert_eq!(parse(&format!("{start}{fill}\r\n\r")), Ok(false));
    assert_eq!(parse(&format!("{start}{fill}xxxx")), too_large);
    let statuses = [target_too_long, too_many, too_large].map(|result: Result<bool, _>| result.unwrap_err().status());
    assert_eq!(statuses, [414, 431, 431]);
}

fn same(one: &RequestHead, other: &RequestHead) -> bool {
    format!("{one:?}") == format!("{other:?}")
}

#[test]
fn a_request_is_the_same_however_it_is_cut() {
    let text = format!("\r\n{BROWSER}");
    let whole = head(&text);
    let bytes = text.as_bytes();
    for cut in 0..bytes.len() {
        assert!(parse_http(&bytes[..cut]).unwrap().is_none(), "{cut}");
        let mut scanner = HeadScanner::new();
        for end in [cut, bytes.len()] {
            let parsed = parse_more(&bytes[..end], &mut scanner, &Limits::DEFAULT, Scheme::Http).unwrap();
            assert_eq!(parsed.is_some(), end == bytes.len(), "{cut}");
            assert!(parsed.is_none_or(|(head, _)| same(&head, &whole)));
        }
    }
    let mut scanner = HeadScanner::new();
    for end in 0..bytes.len() {
        let parsed = parse_more(&bytes[..end], &mut scanner, &Limits::DEFAULT, Scheme::Http).unwrap();
        assert!(parsed.is_none(), "{end}");
    }
    let (head, length) = parse_more(bytes, &mut scanner, &Limits::DEFAULT, Scheme::Http)
        .unwrap()
        .unwrap();
    assert!(same(&head, &whole) && length == bytes.len());
    // The scanner is as new for the next one.
    assert!(
        parse_more(BROWSER.as_bytes(), &mut scanner, &Limits::DEFAULT, Scheme::Http)
            .unwrap()
            .is_some()
    );
}

#[test]
fn trickled_bare_line_feeds_do_not_wait_for_an_empty_line() {
    let bytes = b"GET / HTTP/1.1\r\nHost: a\r\nX: y\nZ";
    let mut scanner = HeadScanner::new();
    let result: Result<Vec<_>, _> = (0..bytes.len())
        .map(|end| parse_more(&bytes[..end], &mut scanner, &Limits::DEFAULT, Scheme::Http))
        .collect();
    assert_eq!(result.unwrap_err(), RequestError::Syntax(SyntaxError::BareLf));
}

/// Bytes that come close to being a request.
fn nearly_a_request() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop::sample::select(vec![
        "GET / HTTP/1.1\r\n",
        "Host: a\r\n",
        "\r\n",
        "\n",
        "\r",
        " ",
        "\t",
        ":",
        ",",
        "a",
        "POST ",
        "http://a",
        "/x?y",
        "*",
        "HTTP/1.0",
        "Content-Length: 5",
        "Transfer-Encoding: chunked",
        "Connection: close",
        "\0",
        "\u{80}",
        "%41",
    ]);
    let mutation = (any::<prop::sample::Index>(), any::<u8>());
    (
        prop::collection::vec(pieces, 0..12),
        prop::collection::vec(mutation, 0..3),
    )
        .prop_map(|(pieces, mutations)| {
            let mut bytes = pieces.concat().into_bytes();
            for (index, byte) in mutations {
                if !bytes.is_empty() {
                    let at = index.index(bytes.len());
                    bytes[at] = byte;
                }
            }
            bytes
        })
}

proptest! {
    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse_http(&bytes);
    }

    /// What is said of a beginning stays true of the whole, and what is accepted holds nothing that ends a line.
    #[test]
    fn answers_do_not_change_with_more_bytes(bytes in nearly_a_request()) {
        let whole = parse_http(&bytes);
        for end in 0..bytes.len() {
            match (parse_http(&bytes[..end]), &whole) {
                (Ok(None), _) => {}
                (Ok(Some((head, length))), Ok(Some((whole, whole_length)))) => {
                    prop_assert!(same(&head, whole) && length == *whole_length);
                }
                (Err(_), Err(_)) => {}
                (part, whole) => prop_assert!(false, "{part:?} {whole:?}"),
            }
        }
        if let Ok(Some((head, _))) = whole {
            for (name, value) in head.fields.iter() {
                prop_assert!(crate::message::is_token(name.as_bytes()));
                prop_assert!(crate::message::is_field_value(value));
            }
            prop_assert!(head.target.bytes().all(|b| b.is_ascii_graphic()));
        }
    }
}
