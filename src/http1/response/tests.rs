use super::*;
use crate::message::Fields;
use proptest::prelude::*;

fn parse_to(method: Method, bytes: &[u8]) -> Result<Option<ReceivedHead>, ResponseError> {
    parse(bytes, &Limits::DEFAULT, &method)
}

fn received(method: Method, text: &str) -> ReceivedHead {
    match parse_to(method, text.as_bytes()) {
        Ok(Some(received)) => {
            assert_eq!(received.length, text.len(), "{text:?}");
            received
        }
        other => panic!("{text:?}: {other:?}"),
    }
}

const USUAL: &str = "HTTP/1.1 200 OK\r\nServer: app/1.0\r\nDate: Tue, 01 Jul 2025 10:00:00 GMT\r\nContent-Type: text/html\r\n\
    Content-Length: 1024\r\nSet-Cookie: a=b\r\nSet-Cookie: c=\u{fc}\r\n\r\n";

#[test]
fn a_response_is_read_as_sent() {
    let bytes = [USUAL.as_bytes(), b"BODY"].concat();
    let received = parse_to(Method::GET, &bytes).unwrap().unwrap();
    assert_eq!((received.length, received.keep_alive), (USUAL.len(), true));
    let head = received.head;
    assert_eq!(
        (head.status, head.framing, head.declared_length),
        (200, Framing::Length(1024), Some(1024))
    );
    let names: Vec<_> = head.fields.iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["Server", "Date", "Content-Type", "Set-Cookie", "Set-Cookie"]);
    assert_eq!(head.fields.get_all("set-cookie").last(), Some("c=\u{fc}".as_bytes()));
}

#[test]
fn bad_responses_are_refused() {
    let cases: &[(&[u8], &str)] = &[
        (b"\r\nHTTP/1.1 200 OK\r\n\r\n", "bad-status-line"),
        (b"<html>", "bad-status-line"),
        (b"HTTP 200 OK\r\n\r\n", "bad-status-line"),
        (b"HTTP/1.1\r\n\r\n", "bad-status-line"),
        (b"HTTP/1.1200 OK\r\n\r\n", "bad-status-line"),
        (b"HTTP/1.1\t200 OK\r\n\r\n", "bad-status-line"),
        (b"HTTP/1.1 200 O\0K\r\n\r\n", "bad-status-line"),
        (b"http/1.1 200 OK\r\n\r\n", "bad-status-line"),
        (b"HTTP/2.0 200 OK\r\n\r\n", "bad-version"),
        (b"HTTP/0.9 200 OK\r\n\r\n", "bad-version"),
        (b"HTTP/1.x 200 OK\r\n\r\n", "bad-version"),
        (b"HTTP/1.1  200 OK\r\n\r\n", "bad-status"),
        (b"HTTP/1.1 20 OK\r\n\r\n", "bad-status"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "bad-status"),
        (b"HTTP/1.1 099 OK\r\n\r\n", "bad-status"),
        (b"HTTP/1.1 600 OK\r\n\r\n", "bad-status"),
        (b"HTTP/1.1 +20 OK\r\n\r\n", "bad-status"),
        (b"HTTP/1.1 2x0 OK\r\n\r\n", "bad-status"),
        (b"HTTP/1.1 \r\n\r\n", "bad-status"),
        (b"HTTP/1.1 200\tOK\r\n\r\n", "bad-status"),
        (b"HTTP/1.1 200 OK\n\n", "bare-lf"),
        (b"HTTP/1.1 200 O\rK\r\n\r\n", "bare-cr"),
        (b"HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n", "bare-lf"),
        (b"HTTP/1.1 200 OK\r\nA: b\rC: d\r\n\r\n", "bare-cr"),
        (b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", "obs-fold"),
        (b"HTTP/1.1 200 OK\r\n A: b\r\n\r\n", "obs-fold"),
        (b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n", "space-before-colon"),
        (b"HTTP/1.1 200 OK\r\n: b\r\n\r\n", "bad-field-name"),
        (b"HTTP/1.1 200 OK\r\nA\r\n\r\n", "bad-field-name"),
        (b"HTTP/1.1 200 OK\r\nA: \0\r\n\r\n", "bad-field-value"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            "bad-content-length",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n", "bad-content-length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5,\r\n\r\n", "bad-content-length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n", "bad-content-length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "bad-content-length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\n", "bad-content-length"),
        (
            b"HTTP/1.1 304 Not Modified\r\nContent-Length: x\r\n\r\n",
            "bad-content-length",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "both-lengths",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nContent-Length: 5\r\n\r\n",
            "both-lengths",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
            "bad-transfer-encoding",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n\r\n",
            "bad-transfer-encoding",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked;a\r\n\r\n",
            "bad-transfer-encoding",
        ),
        (
            b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "bad-transfer-encoding",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            "unsupported-transfer-coding",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n",
            "unsupported-transfer-coding",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "unsupported-transfer-coding",
        ),
        (b"HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\n", "interim-body"),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nTransfer-Encoding: chunked\r\n\r\n",
            "interim-body",
        ),
    ];
    for (bytes, word) in cases {
        match parse_to(Method::GET, bytes) {
            Err(error) => assert_eq!(error.as_str(), *word, "{}", bytes.escape_ascii()),
            other => panic!("{}: {other:?}", bytes.escape_ascii()),
        }
    }
}

#[test]
fn framing_follows_status_method_and_fields() {
    let chunked = "Transfer-Encoding: Chunked\r\n";
    let five = "Content-Length: 5\r\n";
    let none = Framing::None;
    let cases = [
        (Method::GET, "200 OK", "", Framing::Close, None, false),
        (Method::GET, "200 OK", five, Framing::Length(5), Some(5), true),
        (
            Method::GET,
            "200 OK",
            "Content-Length: 5, 5\r\ncontent-length: 5\r\n",
            Framing::Length(5),
            Some(5),
            true,
        ),
        (
            Method::GET,
            "200 OK",
            "Content-Length: 0\r\n",
            Framing::Length(0),
            Some(0),
            true,
        ),
        (Method::GET, "200 OK", chunked, Framing::Chunked, None, true),
        (Method::GET, "200", five, Framing::Length(5), Some(5), true),
        (Method::GET, "299 ", five, Framing::Length(5), Some(5), true),
        (Method::POST, "404 Not Found", five, Framing::Length(5), Some(5), true),
        (Method::HEAD, "200 OK", "", none, None, true),
        (Method::HEAD, "200 OK", five, none, Some(5), true),
        (Method::HEAD, "200 OK", chunked, none, None, true),
        (Method::GET, "304 Not Modified", "", none, None, true),
        (Method::GET, "304 Not Modified", five, none, Some(5), true),
        (Method::GET, "304 Not Modified", chunked, none, None, true),
        (Method::GET, "204 No Content", "", none, None, true),
        (
            Method::GET,
            "204 No Content",
            "Content-Length: 0\r\n",
            none,
            Some(0),
            true,
        ),
        (Method::GET, "204 No Content", five, none, Some(5), false),
        (Method::GET, "204 No Content", chunked, none, None, false),
        (Method::GET, "100 Continue", "", none, None, true),
        (
            Method::GET,
            "101 Switching Protocols",
            "Content-Length: 0\r\n",
            none,
            Some(0),
            true,
        ),
    ];
    for (method, status, fields, framing, declared, keep_alive) in cases {
        let received = received(method.clone(), &format!("HTTP/1.1 {status}\r\n{fields}X: y\r\n\r\n"));
        let head = received.head;
        assert_eq!(
            (head.framing, head.declared_length),
            (framing, declared),
            "{method} {status} {fields:?}"
        );
        assert_eq!(received.keep_alive, keep_alive, "{method} {status} {fields:?}");
        let mut rest = Fields::new();
        rest.push("X", "y");
        assert_eq!(head.fields, rest);
    }
}

#[test]
fn connections_live_on_as_version_and_options_say() {
    let cases = [
        ("HTTP/1.1", "", true),
        ("HTTP/1.9", "", true),
        ("HTTP/1.1", "Connection: x, close\r\n", false),
        ("HTTP/1.0", "", false),
        ("HTTP/1.0", "Connection: keep-alive\r\n", true),
        ("HTTP/1.0", "Connection: keep-alive, close\r\n", false),
    ];
    for (version, fields, expected) in cases {
        let text = format!("{version} 200 OK\r\nContent-Length: 1\r\n{fields}\r\n");
        assert_eq!(
            received(Method::GET, &text).keep_alive,
            expected,
            "{version} {fields:?}"
        );
    }
}

#[test]
fn interim_heads_stand_before_the_final_one() {
    let text = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx";
    let first = parse_to(Method::GET, text.as_bytes()).unwrap().unwrap();
    assert_eq!((first.head.status, first.head.fields.len()), (103, 1));
    let second = parse_to(Method::GET, &text.as_bytes()[first.length..])
        .unwrap()
        .unwrap();
    assert_eq!((second.head.status, second.head.framing), (200, Framing::Length(1)));
}

#[test]
fn a_response_is_the_same_however_it_is_cut() {
    let whole = format!("{:?}", received(Method::GET, USUAL));
    let bytes = USUAL.as_bytes();
    let mut trickled = HeadScanner::new();
    for cut in 0..bytes.len() {
        assert!(parse_to(Method::GET, &bytes[..cut]).unwrap().is_none(), "{cut}");
        let mut scanner = HeadScanner::new();
        for (end, scanner) in [(cut, &mut scanner), (cut, &mut trickled)] {
            let parsed = parse_more(&bytes[..end], scanner, &Limits::DEFAULT, &Method::GET).unwrap();
            assert!(parsed.is_none(), "{cut}");
        }
        let parsed = parse_more(bytes, &mut scanner, &Limits::DEFAULT, &Method::GET).unwrap();
        assert_eq!(format!("{:?}", parsed.unwrap()), whole, "{cut}");
    }
    let parsed = parse_more(bytes, &mut trickled, &Limits::DEFAULT, &Method::GET).unwrap();
    assert_eq!(format!("{:?}", parsed.unwrap()), whole);
}

#[test]
fn limits_hold_to_the_byte() {
    let limits = Limits {
        head: 60,
        fields: 2,
        target: 0,
    };
    let parse = |text: &str| parse(text.as_bytes(), &limits, &Method::GET).map(|parsed| parsed.is_some());
    let start = "HTTP/1.1 200 OK\r\na: ";
    let fill = "x".repeat(60 - start.len() - 4);
    let too_large = Err(ResponseError::Syntax(SyntaxError::HeadTooLarge));
    assert_eq!(parse(&format!("{start}{fill}\r\n\r\n")), Ok(true));
    assert_eq!(parse(&format!("{start}{fill}x\r\n\r\n")), too_large);
    assert_eq!(parse(&format!("HTTP/1.1 200 {}", "x".repeat(60))), too_large);
    assert_eq!(parse("HTTP/1.1 200 OK\r\na:\r\nb:\r\n\r\n"), Ok(true));
    let too_many = Err(ResponseError::Syntax(SyntaxError::TooManyFields));
    assert_eq!(parse("HTTP/1.1 200 OK\r\na:\r\nb:\r\nc:\r\n\r\n"), too_many);
}

proptest! {
    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..300), prefix in 0..40usize) {
        let bytes = [&USUAL.as_bytes()[..prefix], &bytes].concat();
        let whole = parse_to(Method::GET, &bytes);
        for end in 0..bytes.len() {
            if parse_to(Method::GET, &bytes[..end]).is_err() {
                prop_assert!(whole.is_err());
            }
        }
    }
}
