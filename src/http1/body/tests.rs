use super::*;
use proptest::prelude::*;

/// What came out of a body: data, trailers, how it ended and what is left over.
#[derive(Debug, PartialEq)]
struct Outcome {
    data: Vec<u8>,
    trailers: Vec<(String, Vec<u8>)>,
    end: Result<(), BodyError>,
    left: Vec<u8>,
}

/// Feeds the pieces one after the other, then the end of the connection.
fn decode<'a>(framing: Framing, pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut decoder = Decoder::new(framing);
    let mut buf = BytesMut::new();
    let mut outcome = Outcome {
        data: Vec::new(),
        trailers: Vec::new(),
        end: Ok(()),
        left: Vec::new(),
    };
    let mut ended = false;
    for piece in pieces {
        buf.extend_from_slice(piece);
        while !ended {
            match decoder.decode(&mut buf) {
                Ok(Event::Data(data)) => {
                    assert!(!data.is_empty());
                    outcome.data.extend_from_slice(&data);
                }
                Ok(Event::Trailers(fields)) => {
                    assert!(!fields.is_empty() && decoder.is_done());
                    outcome.trailers = fields
                        .iter()
                        .map(|(name, value)| (name.to_owned(), value.to_vec()))
                        .collect();
                }
                Ok(Event::End) => ended = true,
                Ok(Event::NeedMore) => break,
                Err(error) => {
                    assert_eq!(decoder.decode(&mut buf), Err(error));
                    assert!(!decoder.is_done());
                    outcome.end = Err(error);
                    return outcome;
                }
            }
        }
    }
    assert!(!ended || decoder.is_done());
    outcome.end = decoder.on_eof();
    outcome.left = buf.to_vec();
    outcome
}

#[test]
fn a_body_is_at_hand_only_as_a_whole() {
    let at_once = |framing, bytes: &[u8]| {
        let mut decoder = Decoder::new(framing);
        let mut buf = BytesMut::from(bytes);
        let body = decoder.rest_at_once(&mut buf);
        assert_eq!(decoder.is_done(), body.is_some());
        (body.as_deref().map(<[u8]>::to_vec), buf.to_vec())
    };
    let whole = Some(b"four".to_vec());
    assert_eq!(at_once(Framing::Length(4), b"four"), (whole.clone(), Vec::new()));
    assert_eq!(at_once(Framing::Length(4), b"four, more"), (whole, b", more".to_vec()));
    assert_eq!(at_once(Framing::Length(5), b"four"), (None, b"four".to_vec()));
    for framing in [Framing::Chunked, Framing::Close] {
        assert_eq!(at_once(framing, b"0\r\n\r\n"), (None, b"0\r\n\r\n".to_vec()));
    }
}

fn chunked(bytes: &[u8]) -> Outcome {
    decode(Framing::Chunked, [bytes])
}

#[test]
fn bodies_end_where_their_framing_says() {
    let cases = [
        (Framing::None, &b"next"[..], &b""[..], Ok(()), &b"next"[..]),
        (Framing::Length(0), &b"next"[..], &b""[..], Ok(()), &b"next"[..]),
        (Framing::Length(3), &b"abcnext"[..], &b"abc"[..], Ok(()), &b"next"[..]),
        (
            Framing::Length(3),
            &b"ab"[..],
            &b"ab"[..],
            Err(BodyError::Truncated),
            &b""[..],
        ),
        (
            Framing::Length(u64::MAX),
            &b"ab"[..],
            &b"ab"[..],
            Err(BodyError::Truncated),
            &b""[..],
        ),
        (Framing::Close, &b"abc"[..], &b"abc"[..], Ok(()), &b""[..]),
        (Framing::Close, &b""[..], &b""[..], Ok(()), &b""[..]),
        (Framing::Stream, &b"abc"[..], &b"abc"[..], Ok(()), &b""[..]),
        (Framing::Chunked, &b"0\r\n\r\nnext"[..], &b""[..], Ok(()), &b"next"[..]),
        (
            Framing::Chunked,
            &b"3\r\nabc\r\n0\r\n\r\nnext"[..],
            &b"abc"[..],
            Ok(()),
            &b"next"[..],
        ),
        (
            Framing::Chunked,
            &b"3\r\nabc\r\n2\r\nde\r\n000\r\n\r\n"[..],
            &b"abcde"[..],
            Ok(()),
            &b""[..],
        ),
        (
            Framing::Chunked,
            &b"00000000000000aB\r\nabc"[..],
            &b"abc"[..],
            Err(BodyError::Truncated),
            &b""[..],
        ),
        (
            Framing::Chunked,
            &b"3;a=b;c=\"d e\";;\r\nabc\r\n0;x\r\n\r\n"[..],
            &b"abc"[..],
            Ok(()),
            &b""[..],
        ),
        (
            Framing::Chunked,
            &b"3\r\nabc\r\n0\r\n"[..],
            &b"abc"[..],
            Err(BodyError::Truncated),
            &b""[..],
        ),
        (
            Framing::Chunked,
            &b"3\r\nabc"[..],
            &b"abc"[..],
            Err(BodyError::Truncated),
            &b""[..],
        ),
        (
            Framing::Chunked,
            &b"7fffffffffffffff\r\nabc"[..],
            &b"abc"[..],
            Err(BodyError::Truncated),
            &b""[..],
        ),
    ];
    for (framing, bytes, data, end, left) in cases {
        let outcome = decode(framing, [bytes]);
        assert_eq!(
            (&outcome.data[..], outcome.end),
            (data, end),
            "{framing:?} {}",
            bytes.escape_ascii()
        );
        assert!(
            end.is_err() || outcome.left == left,
            "{framing:?} {}",
            bytes.escape_ascii()
        );
    }
}

#[test]
fn bad_chunks_are_refused_behind_the_data_before_them() {
    let cases: &[(&[u8], &str)] = &[
        (b"\r\n", "bad-chunk-size"),
        (b" 3\r\nabc\r\n", "bad-chunk-size"),
        (b"3 \r\nabc\r\n", "bad-chunk-size"),
        (b"3\t;a\r\nabc\r\n", "bad-chunk-size"),
        (b"-3\r\nabc\r\n", "bad-chunk-size"),
        (b"+3\r\nabc\r\n", "bad-chunk-size"),
        (b"0x3\r\nabc\r\n", "bad-chunk-size"),
        (b"3_\r\nabc\r\n", "bad-chunk-size"),
        (b"3,\r\nabc\r\n", "bad-chunk-size"),
        (b"g\r\n", "bad-chunk-size"),
        (b";a\r\n", "bad-chunk-size"),
        (b"3h\r\nabc\r\n", "bad-chunk-size"),
        (b"3\0\r\nabc\r\n", "bad-chunk-size"),
        (b"\xef\xbc\x93\r\nabc\r\n", "bad-chunk-size"),
        (b"8000000000000000\r\n", "bad-chunk-size"),
        (b"ffffffffffffffff\r\n", "bad-chunk-size"),
        (b"ffffffffffffffff", "bad-chunk-size"),
        (b"10000000000000003\r\nabc\r\n", "bad-chunk-size"),
        (b"00000000000000003\r\nabc\r\n", "bad-chunk-size"),
        (b"00000000000000000", "bad-chunk-size"),
        (b"3\nabc\r\n", "bare-lf"),
        (b"3\rabc\r\n", "bare-cr"),
        (b"3\r\r\nabc\r\n", "bare-cr"),
        (b"3;a\nabc\r\n", "bare-lf"),
        (b"3;a\n\r\nabc\r\n", "bare-lf"),
        (b"3;a\rb\r\nabc\r\n", "bare-cr"),
        (b"3;\0\r\nabc\r\n", "bad-chunk-extension"),
        (b"3;\0", "bad-chunk-extension"),
        (b"3;a=\x7f\r\nabc\r\n", "bad-chunk-extension"),
        (b"3\r\nabc0\r\n\r\n", "bad-chunk-end"),
        (b"3\r\nabcd\r\n", "bad-chunk-end"),
        (b"3\r\nabc\n0\r\n\r\n", "bad-chunk-end"),
        (b"3\r\nabc\r0\r\n\r\n", "bad-chunk-end"),
        (b"3\r\nabc\n", "bad-chunk-end"),
        (b"0\n\r\n", "bare-lf"),
        (b"0\r\n\n", "bare-lf"),
        (b"0\r\n\rx", "bare-cr"),
        (b"0\r\nA: b\n\r\n", "bare-lf"),
        (b"0\r\nA: b\r\n c\r\n\r\n", "obs-fold"),
        (b"0\r\n A: b\r\n\r\n", "obs-fold"),
        (b"0\r\nA : b\r\n\r\n", "space-before-colon"),
        (b"0\r\nA\r\n\r\n", "bad-field-name"),
        (b"0\r\n: b\r\n\r\n", "bad-field-name"),
        (b"0\r\nA: \0\r\n\r\n", "bad-field-value"),
        (b"0\r\nGET / HTTP/1.1\r\n\r\n", "space-before-colon"),
    ];
    for (bytes, word) in cases {
        for before in [&b""[..], b"2\r\nxy\r\n", b"2\r\nxy\r\n1;e\r\nz\r\n"] {
            let all = [before, bytes].concat();
            let outcome = chunked(&all);
            let Err(error) = outcome.end else {
                panic!("{}: {outcome:?}", all.escape_ascii());
            };
            assert_eq!(error.as_str(), *word, "{}", all.escape_ascii());
            let good = chunked(before).data;
            assert!(outcome.data.starts_with(&good), "{}: {outcome:?}", all.escape_ascii());
        }
    }
}

#[test]
fn extensions_are_bounded_by_chunk_and_by_body() {
    let line = |extension: usize| [b"1;", &vec![b'e'; extension - 1][..], b"\r\nx\r\n"].concat();
    assert_eq!(
        chunked(&[line(MAX_EXTENSION), b"0\r\n\r\n".to_vec()].concat()).end,
        Ok(())
    );
    assert_eq!(chunked(&line(MAX_EXTENSION + 1)).end, Err(BodyError::ChunkExtension));
    // Without the end of the line being there.
    assert_eq!(
        chunked(&line(MAX_EXTENSION + 1)[..MAX_EXTENSION + 2]).end,
        Err(BodyError::ChunkExtension)
    );

    let times = MAX_EXTENSIONS / 64;
    let enough = line(64).repeat(times);
    let outcome = chunked(&[&enough[..], b"0\r\n\r\n"].concat());
    assert_eq!((outcome.data.len(), outcome.end), (times, Ok(())));
    let outcome = chunked(&[&enough[..], b"1;\r\nx\r\n0\r\n\r\n"].concat());
    assert_eq!(
        (outcome.data.len(), outcome.end),
        (times, Err(BodyError::ChunkExtension))
    );
}

#[test]
fn trailers_come_last_and_without_what_heads_decide() {
    let forbidden: Vec<String> = NOT_IN_TRAILERS
        .iter()
        .map(|field| format!("{}: 1\r\n", field.to_uppercase()))
        .collect();
    let body = format!(
        "1\r\nx\r\n0\r\n{}grpc-status: 0\r\nETag:\"a\" \r\n\r\nnext",
        forbidden.concat()
    );
    let outcome = chunked(body.as_bytes());
    let expected = [
        ("grpc-status".to_owned(), b"0".to_vec()),
        ("ETag".to_owned(), b"\"a\"".to_vec()),
    ];
    assert_eq!((&outcome.trailers[..], outcome.end), (&expected[..], Ok(())));
    assert_eq!((&outcome.data[..], &outcome.left[..]), (&b"x"[..], &b"next"[..]));
    // With nothing left of them they are not an event.
    let outcome = chunked(b"0\r\nHost: a\r\n\r\n");
    assert_eq!((outcome.trailers.len(), outcome.end), (0, Ok(())));
}

#[test]
fn trailers_are_bounded() {
    let lines = |count: usize| format!("0\r\n{}\r\n", "a:\r\n".repeat(count));
    assert_eq!(chunked(lines(TRAILER_LIMITS.fields).as_bytes()).end, Ok(()));
    let too_many = Err(BodyError::Syntax(SyntaxError::TooManyFields));
    assert_eq!(chunked(lines(TRAILER_LIMITS.fields + 1).as_bytes()).end, too_many);

    let large = |value: usize| format!("0\r\na:{}\r\n\r\n", "b".repeat(value));
    assert_eq!(chunked(large(TRAILER_LIMITS.head - 6).as_bytes()).end, Ok(()));
    let too_large = Err(BodyError::Syntax(SyntaxError::HeadTooLarge));
    assert_eq!(chunked(large(TRAILER_LIMITS.head - 5).as_bytes()).end, too_large);
    assert_eq!(
        chunked(&large(TRAILER_LIMITS.head).as_bytes()[..TRAILER_LIMITS.head + 3]).end,
        too_large
    );
}

#[test]
fn a_body_is_the_same_however_it_is_cut() {
    let bytes = b"5\r\nhello\r\n1;ext=\"v\"\r\n,\r\n0a\r\n new world\r\n0\r\nx-sum: 12\r\nHost: a\r\n\r\nGET /";
    let whole = chunked(bytes);
    assert_eq!((&whole.data[..], whole.end), (&b"hello, new world"[..], Ok(())));
    assert_eq!(whole.trailers, [("x-sum".to_owned(), b"12".to_vec())]);
    for first in 0..bytes.len() {
        assert_eq!(
            decode(Framing::Chunked, [&bytes[..first], &bytes[first..]]),
            whole,
            "{first}"
        );
        for second in first..bytes.len() {
            let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
            assert_eq!(decode(Framing::Chunked, pieces), whole, "{first} {second}");
        }
    }
    assert_eq!(decode(Framing::Chunked, bytes.chunks(1)), whole);
}

#[test]
fn small_chunks_are_handed_out_together_and_large_ones_as_they_are() {
    let mut buf = BytesMut::from(&b"1\r\na\r\n2\r\nbc\r\n3\r\ndef\r\n0\r\n\r\nnext"[..]);
    let mut decoder = Decoder::new(Framing::Chunked);
    assert_eq!(decoder.decode(&mut buf), Ok(Event::Data(Bytes::from_static(b"abcdef"))));
    // Nothing but the end is to come, and that is known with the last data.
    assert!(decoder.is_done());
    assert_eq!(&buf[..], b"next");

    let large = vec![b'l'; MAX_MOVED + 1];
    let head = format!("{:x}\r\n", large.len());
    let body = [b"1\r\na\r\n", head.as_bytes(), &large, b"\r\n1\r\nb\r\n"].concat();
    let mut buf = BytesMut::from(&body[..]);
    let mut decoder = Decoder::new(Framing::Chunked);
    assert_eq!(decoder.decode(&mut buf), Ok(Event::Data(Bytes::from_static(b"a"))));
    let start = buf.as_ptr();
    let Ok(Event::Data(data)) = decoder.decode(&mut buf) else {
        panic!("no data");
    };
    assert_eq!(data, [&large[..], b"b"].concat());
    // Where it was read to.
    assert_eq!(data.as_ptr(), start);
    assert_eq!(decoder.decode(&mut buf), Ok(Event::NeedMore));
}

proptest! {
    #[test]
    fn any_bytes_are_answered(pieces in prop::collection::vec(
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..20),
            prop::sample::select(vec!["\r\n", "0\r\n", "5\r\n", "12345\r\n", "a;b\r\n", "\n", "A: b\r\n", "\r"])
                .prop_map(|text| text.as_bytes().to_vec()),
        ],
        0..20,
    )) {
        let whole = chunked(&pieces.concat());
        let cut = decode(Framing::Chunked, pieces.iter().map(Vec::as_slice));
        prop_assert_eq!(&cut.data, &whole.data);
        prop_assert_eq!(cut.end.is_ok(), whole.end.is_ok());
        let bytes = pieces.concat();
        let trickled = decode(Framing::Chunked, bytes.chunks(1));
        prop_assert_eq!(&trickled.data, &whole.data);
        prop_assert_eq!(trickled.end.is_ok(), whole.end.is_ok());
    }

    #[test]
    fn what_is_encoded_is_decoded(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..6000), 0..8),
        cut in 1..5000usize,
    ) {
        let mut bytes = Vec::new();
        for chunk in &chunks {
            super::super::encode::chunk_head(&mut bytes, chunk.len() as u64);
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(super::super::encode::CHUNK_END);
        }
        bytes.extend_from_slice(super::super::encode::LAST_CHUNK);
        let outcome = decode(Framing::Chunked, bytes.chunks(cut));
        prop_assert_eq!(outcome.data, chunks.concat());
        prop_assert_eq!(outcome.end, Ok(()));
    }
}
