//! Any bytes as a request head and as a chunked body: nothing panics, and how they are cut into reads makes no difference.
#![no_main]

use bytes::BytesMut;
use forebay::http1::body::{Decoder, Event};
use forebay::http1::request::{parse, parse_more};
use forebay::http1::{HeadScanner, Limits};
use forebay::message::{Framing, Scheme};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let whole = parse(data, &Limits::DEFAULT, Scheme::Http);
    if let Ok(Some((head, length))) = &whole {
        assert!(*length <= data.len());
        let mut scanner = HeadScanner::new();
        let mut seen = None;
        for end in 1..=*length {
            if let Ok(Some((head, length))) = parse_more(&data[..end], &mut scanner, &Limits::DEFAULT, Scheme::Http) {
                seen = Some((head.target, length));
                break;
            }
        }
        assert_eq!(seen, Some((head.target.clone(), *length)));
    }
    let at_once = chunks(data, data.len().max(1));
    let byte_by_byte = chunks(data, 1);
    assert_eq!(at_once, byte_by_byte);
});

/// The data of a chunked body, and whether it came to its end.
fn chunks(data: &[u8], read: usize) -> (Vec<u8>, bool) {
    let mut decoder = Decoder::new(Framing::Chunked);
    let mut buffer = BytesMut::new();
    let mut body = Vec::new();
    for piece in data.chunks(read) {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Event::Data(data)) => body.extend_from_slice(&data),
                Ok(Event::Trailers(_)) => {}
                Ok(Event::End) => return (body, true),
                Ok(Event::NeedMore) => break,
                Err(_) => return (body, false),
            }
        }
    }
    (body, false)
}
