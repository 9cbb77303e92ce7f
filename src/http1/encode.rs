//! Heads and chunks as they are sent (RFC 9112 §3, §4, §5, §7.1).
//!
//! What says where a message ends and what becomes of the connection is written here alone, from [`Framing`] and
//! [`Connection`]: lines of the same names among the fields are left out, so that no message can have two lengths.

use bytes::BufMut;
use http::{Method, StatusCode};

use super::fields::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use crate::message::{FieldName, FieldNames, Fields, Framing, Lines, ResponseHead};

/// Stands behind the data of each chunk.
pub const CHUNK_END: &[u8] = b"\r\n";
/// Ends a chunked body that has no trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

const KEEP_ALIVE: FieldName = FieldName::new("keep-alive");
const PROXY_CONNECTION: FieldName = FieldName::new("proxy-connection");

/// Lines that never come from the fields.
static NOT_IN_REQUESTS: FieldNames = FieldNames::new(&[
    HOST,
    CONTENT_LENGTH,
    TRANSFER_ENCODING,
    CONNECTION,
    UPGRADE,
    KEEP_ALIVE,
    PROXY_CONNECTION,
]);
pub(crate) static NOT_IN_RESPONSES: FieldNames = FieldNames::new(&[
    CONTENT_LENGTH,
    TRANSFER_ENCODING,
    CONNECTION,
    UPGRADE,
    KEEP_ALIVE,
    PROXY_CONNECTION,
]);

/// What the message says about its connection (RFC 9110 §7.6.1, RFC 9112 §9.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// It lives on, as HTTP/1.1 has it: nothing is written.
    Persistent,
    /// It lives on, and the peer speaks HTTP/1.0 and has to be told.
    KeepAlive,
    Close,
    /// It becomes a WebSocket connection (RFC 6455 §4.1, §4.2.2).
    WebSocket,
}

/// Writes a request head.
///
/// `target` is in origin form or `*`, `authority` becomes `Host`. A body of unknown length goes out in chunks.
pub fn request_head(
    out: &mut impl BufMut,
    method: &Method,
    target: &str,
    authority: &str,
    fields: &Fields,
    framing: Framing,
    connection: Connection,
) {
    out.put_slice(method.as_str().as_bytes());
    out.put_slice(b" ");
    out.put_slice(target.as_bytes());
    out.put_slice(b" HTTP/1.1\r\nHost: ");
    out.put_slice(authority.as_bytes());
    out.put_slice(b"\r\n");
    fields.write_http1(&NOT_IN_REQUESTS, |piece| out.put_slice(piece));
    match framing {
        Framing::None => {}
        Framing::Length(length) => content_length(out, length),
        Framing::Chunked | Framing::Stream | Framing::Close => chunked(out),
    }
    // RFC 9110 §10.1.4: TE is for the next hop only, and `Connection` says so.
    let te: &[u8] = match fields.contains(TE.as_str()) {
        true => b", TE",
        false => b"",
    };
    match connection {
        Connection::Persistent if te.is_empty() => {}
        Connection::Persistent => out.put_slice(b"Connection: TE\r\n"),
        Connection::KeepAlive => connection_line(out, b"keep-alive", te),
        Connection::Close => connection_line(out, b"close", te),
        Connection::WebSocket => {
            connection_line(out, b"Upgrade", te);
            out.put_slice(b"Upgrade: websocket\r\n");
        }
    }
    out.put_slice(b"\r\n");
}

/// Writes the head of a final response, or of a 101, to a request with `request_method`.
///
/// Where the head has [`Framing::None`] its `declared_length` is written if the status and the method have a use for it (RFC
/// 9110 §8.6), and otherwise, where a client would wait for a body, a length of 0. [`Framing::Close`] and [`Framing::Stream`]
/// write nothing: `connection` has to be [`Connection::Close`].
pub fn response_head(
    out: &mut impl BufMut,
    head: &ResponseHead<impl Lines>,
    request_method: &Method,
    connection: Connection,
) {
    status_line(out, head.status);
    head.fields.write_http1(&NOT_IN_RESPONSES, out);
    // RFC 9110 §8.6: here a length tells what a GET would have got, and none at all is not 0.
    let has_no_body = head.status == 304 || request_method == Method::HEAD;
    match (head.status, head.framing) {
        // RFC 9110 §8.6, RFC 9112 §6.1: no length of any kind in 1xx and 204.
        (100..=199 | 204, _) => {}
        (_, Framing::Length(length)) => content_length(out, length),
        (_, Framing::None) if has_no_body => {
            if let Some(length) = head.declared_length {
                content_length(out, length);
            }
        }
        (_, Framing::None) => content_length(out, 0),
        (_, Framing::Chunked) => chunked(out),
        (_, Framing::Stream | Framing::Close) => {}
    }
    match connection {
        Connection::Persistent => {}
        Connection::KeepAlive => connection_line(out, b"keep-alive", b""),
        Connection::Close => connection_line(out, b"close", b""),
        Connection::WebSocket => {
            connection_line(out, b"Upgrade", b"");
            out.put_slice(b"Upgrade: websocket\r\n");
        }
    }
    out.put_slice(b"\r\n");
}

/// Writes an interim response (RFC 9110 §15.2): 100, 103 and whatever else an upstream sends before the final one; not 101.
pub fn interim_head(out: &mut impl BufMut, status: u16, fields: &Fields) {
    status_line(out, status);
    fields.write_http1(&NOT_IN_RESPONSES, |piece| out.put_slice(piece));
    out.put_slice(b"\r\n");
}

/// `HTTP/1.1 404 Not Found` and CR LF. An unregistered status has an empty reason, and the space before it (RFC 9112 §4).
pub fn status_line(out: &mut impl BufMut, status: u16) {
    match status {
        // Most of what a cache says.
        200 => return out.put_slice(b"HTTP/1.1 200 OK\r\n"),
        304 => return out.put_slice(b"HTTP/1.1 304 Not Modified\r\n"),
        _ => {}
    }
    out.put_slice(b"HTTP/1.1 ");
    decimal(out, u64::from(status));
    out.put_slice(b" ");
    let reason = StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason());
    out.put_slice(reason.unwrap_or_default().as_bytes());
    out.put_slice(b"\r\n");
}

/// Writes the line in front of a chunk of `length` bytes. 0 would end the body: there is nothing to send then.
pub fn chunk_head(out: &mut impl BufMut, length: u64) {
    debug_assert!(length > 0, "an empty chunk ends the body");
    let mut digits = [0; 16];
    let mut at = digits.len();
    let mut rest = length;
    loop {
        at -= 1;
        digits[at] = b"0123456789abcdef"[(rest & 15) as usize];
        rest >>= 4;
        if rest == 0 {
            break;
        }
    }
    out.put_slice(&digits[at..]);
    out.put_slice(b"\r\n");
}

/// Ends a chunked body with its trailer section (RFC 9112 §7.1.2); without lines the same as [`LAST_CHUNK`].
pub fn last_chunk(out: &mut impl BufMut, trailers: &Fields) {
    out.put_slice(b"0\r\n");
    trailers.write_http1(&NOT_IN_REQUESTS, |piece| out.put_slice(piece));
    out.put_slice(b"\r\n");
}

/// The digits of all numbers below 100, two for each.
static PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut number = 0;
    while number < pairs.len() {
        pairs[number] = [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8];
        number += 1;
    }
    pairs
};

/// Writes a number in decimal digits.
pub fn decimal(out: &mut impl BufMut, number: u64) {
    // Most are small, and what has a length that the compiler knows is stored, not copied.
    match number {
        0..100 => one_or_two_digits(out, number),
        100..10_000 => {
            one_or_two_digits(out, number / 100);
            out.put_slice(&PAIRS[(number % 100) as usize]);
        }
        _ => many_digits(out, number),
    }
}

#[inline(always)]
fn one_or_two_digits(out: &mut impl BufMut, number: u64) {
    match number {
        0..10 => out.put_u8(b'0' + number as u8),
        _ => out.put_slice(&PAIRS[number as usize]),
    }
}

#[inline(never)]
fn many_digits(out: &mut impl BufMut, number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = number;
    while rest >= 10 {
        at -= 2;
        digits[at..at + 2].copy_from_slice(&PAIRS[(rest % 100) as usize]);
        rest /= 100;
    }
    // The first one of an odd number of digits.
    if rest > 0 {
        at -= 1;
        digits[at] = b'0' + rest as u8;
    }
    out.put_slice(&digits[at..]);
}

fn content_length(out: &mut impl BufMut, length: u64) {
    out.put_slice(b"Content-Length: ");
    decimal(out, length);
    out.put_slice(b"\r\n");
}

fn chunked(out: &mut impl BufMut) {
    out.put_slice(b"Transfer-Encoding: chunked\r\n");
}

fn connection_line(out: &mut impl BufMut, option: &[u8], more: &[u8]) {
    out.put_slice(b"Connection: ");
    out.put_slice(option);
    out.put_slice(more);
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests;
