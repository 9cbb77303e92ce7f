//! Response heads of upstreams (RFC 9112 §4, §5, §6).

use http::Method;
use thiserror::Error;

use super::fields::{
    CONNECTION, CONTENT_LENGTH, ConnectionOptions, TRANSFER_ENCODING, TransferCodings, Verdict, content_length,
    list_members, parse_section,
};
use super::{HeadScanner, Limits, SyntaxError};
use crate::message::{Framing, ResponseHead, Version};

/// Why a response is not passed on. Whatever it is: the connection cannot be used any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ResponseError {
    #[error("{0}")]
    Syntax(#[from] SyntaxError),
    /// Not `version SP status SP reason CR LF` (RFC 9112 §4).
    #[error("bad status line")]
    StatusLine,
    /// Not HTTP/1.
    #[error("bad HTTP version")]
    Version,
    /// Not within 100 to 599 (RFC 9110 §15).
    #[error("bad status code")]
    Status,
    /// RFC 9112 §6.3; also several that differ.
    #[error("bad Content-Length")]
    ContentLength,
    /// RFC 9112 §6.3; also in an HTTP/1.0 response.
    #[error("bad Transfer-Encoding")]
    TransferEncoding,
    #[error("transfer coding not supported")]
    TransferCodingUnsupported,
    /// RFC 9112 §6.3.
    #[error("both Content-Length and Transfer-Encoding")]
    BothLengths,
    /// A length on a 1xx response (RFC 9110 §8.6, RFC 9112 §6.1).
    #[error("interim response with a body")]
    InterimBody,
}

impl ResponseError {
    /// The reason in one word, for log, metric and `Proxy-Status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Syntax(error) => error.as_str(),
            Self::StatusLine => "bad-status-line",
            Self::Version => "bad-version",
            Self::Status => "bad-status",
            Self::ContentLength => "bad-content-length",
            Self::TransferEncoding => "bad-transfer-encoding",
            Self::TransferCodingUnsupported => "unsupported-transfer-coding",
            Self::BothLengths => "both-lengths",
            Self::InterimBody => "interim-body",
        }
    }
}

/// A response head as an upstream sent it.
#[derive(Debug, Clone)]
pub struct ReceivedHead {
    pub head: ResponseHead,
    /// Bytes that the head took.
    pub length: usize,
    /// Whether the connection can serve another request behind this response's body (RFC 9112 §9.3). Meaningless for interim
    /// responses.
    pub keep_alive: bool,
}

/// Reads the response head at the beginning of `buf`. `None`: more bytes are needed.
///
/// Interim responses (1xx) are heads like others; the next head stands behind them. `Connection` lines that say more than
/// `keep-alive`, and those that they nominate, stay among the fields.
///
/// # Errors
/// As soon as the bytes that are there cannot become an acceptable response.
pub fn parse(buf: &[u8], limits: &Limits, request_method: &Method) -> Result<Option<ReceivedHead>, ResponseError> {
    let within = &buf[..buf.len().min(limits.head)];
    match parse_within(within, limits, request_method)? {
        None if within.len() == limits.head => Err(SyntaxError::HeadTooLarge.into()),
        parsed => Ok(parsed),
    }
}

/// [`parse`], for a buffer that grows from call to call: `scanner` begins as new with each head and remembers what has been
/// looked at.
///
/// # Errors
/// Those of [`parse`], some of them only once the end of the head is there.
pub fn parse_more(
    buf: &[u8],
    scanner: &mut HeadScanner,
    limits: &Limits,
    request_method: &Method,
) -> Result<Option<ReceivedHead>, ResponseError> {
    if !scanner.is_worth_parsing(buf, limits) {
        return Ok(None);
    }
    let parsed = parse(buf, limits, request_method);
    if !matches!(parsed, Ok(None)) {
        scanner.reset();
    }
    parsed
}

fn parse_within(buf: &[u8], limits: &Limits, request_method: &Method) -> Result<Option<ReceivedHead>, ResponseError> {
    let Some((version, status, fields_start)) = parse_status_line(buf)? else {
        return Ok(None);
    };
    let mut declared_length = None;
    let mut codings = TransferCodings::default();
    let mut connection = ConnectionOptions::default();
    let section = parse_section(buf, fields_start, limits.fields, |tag, name, value| {
        if CONTENT_LENGTH.is(tag, name) {
            // RFC 9110 §8.6: several are one as long as they are equal.
            for member in list_members(value) {
                let length = content_length(member).ok_or(ResponseError::ContentLength)?;
                if declared_length.replace(length).is_some_and(|other| other != length) {
                    return Err(ResponseError::ContentLength);
                }
            }
            return Ok(Verdict::Drop);
        }
        if TRANSFER_ENCODING.is(tag, name) {
            codings = codings.and(value).ok_or(ResponseError::TransferEncoding)?;
            return Ok(Verdict::Drop);
        }
        if CONNECTION.is(tag, name) {
            // What most servers say is about this connection alone, and nominates no field that could be passed on.
            if value.eq_ignore_ascii_case(b"keep-alive") {
                connection.keep_alive = true;
                return Ok(Verdict::Drop);
            }
            connection.add(value);
        }
        Ok(Verdict::Keep)
    })?;
    let Some((fields, length)) = section else {
        return Ok(None);
    };

    let declared = declared(codings, declared_length, version)?;
    let is_empty = matches!(declared, Framing::Close | Framing::Length(0));
    let framing = match status {
        100..=199 if is_empty => Framing::None,
        100..=199 => return Err(ResponseError::InterimBody),
        // RFC 9112 §6.3: these end with their heads, whatever the fields say.
        204 | 304 => Framing::None,
        _ if request_method == Method::HEAD => Framing::None,
        _ => declared,
    };
    // A 204 that announces a body has no right to it (RFC 9110 §8.6), and may well send it.
    let has_stray_body = status == 204 && !is_empty;
    let keep_alive = framing != Framing::Close
        && !has_stray_body
        && !connection.close
        && (version >= Version::Http11 || connection.keep_alive);
    Ok(Some(ReceivedHead {
        head: ResponseHead {
            status,
            fields,
            framing,
            declared_length,
        },
        length,
        keep_alive,
    }))
}

/// RFC 9112 §6.3, with every ambiguity refused.
fn declared(codings: TransferCodings, length: Option<u64>, version: Version) -> Result<Framing, ResponseError> {
    match (codings, length) {
        (TransferCodings::Absent, None) => Ok(Framing::Close),
        (TransferCodings::Absent, Some(length)) => Ok(Framing::Length(length)),
        (_, Some(_)) => Err(ResponseError::BothLengths),
        // RFC 9112 §6.1: whoever wrote HTTP/1.0 cannot have meant it.
        (_, None) if version < Version::Http11 => Err(ResponseError::TransferEncoding),
        (TransferCodings::Chunked, None) => Ok(Framing::Chunked),
        (TransferCodings::Unframed | TransferCodings::Layered, None) => Err(ResponseError::TransferCodingUnsupported),
    }
}

/// Answers with version, status and the offset behind the line's CR LF.
fn parse_status_line(buf: &[u8]) -> Result<Option<(Version, u16, usize)>, ResponseError> {
    const USUAL: &[u8] = b"HTTP/1.1 200 OK\r\n";
    const PREFIX: &[u8] = b"HTTP/1.";
    if buf.starts_with(USUAL) {
        return Ok(Some((Version::Http11, 200, USUAL.len())));
    }
    let known = buf.len().min(PREFIX.len());
    if buf[..known] != PREFIX[..known] {
        return Err(match buf.starts_with(b"HTTP/") {
            true => ResponseError::Version,
            false => ResponseError::StatusLine,
        });
    }
    let Some(end) = memchr::memchr2(b'\r', b'\n', buf) else {
        return Ok(None);
    };
    match (buf[end], buf.get(end + 1)) {
        (b'\r', Some(b'\n')) => {}
        (b'\r', None) => return Ok(None),
        (b'\r', Some(_)) => return Err(SyntaxError::BareCr.into()),
        _ => return Err(SyntaxError::BareLf.into()),
    }
    let line = buf.get(PREFIX.len()..end).ok_or(ResponseError::StatusLine)?;
    let [minor, b' ', status @ ..] = line else {
        return Err(ResponseError::StatusLine);
    };
    let version = match minor {
        b'0' => Version::Http10,
        // RFC 9110 §2.5: a higher minor version is read as the highest that is known.
        b'1'..=b'9' => Version::Http11,
        _ => return Err(ResponseError::Version),
    };
    let (digits, reason) = match status {
        [a, b, c] => ([*a, *b, *c], &[][..]),
        [a, b, c, b' ', reason @ ..] => ([*a, *b, *c], reason),
        _ => return Err(ResponseError::Status),
    };
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(ResponseError::Status);
    }
    let status = digits
        .iter()
        .fold(0, |status, digit| status * 10 + u16::from(digit - b'0'));
    if !(100..=599).contains(&status) {
        return Err(ResponseError::Status);
    }
    // RFC 9112 §4: HTAB, SP, VCHAR and obs-text.
    if !crate::message::is_field_value(reason) {
        return Err(ResponseError::StatusLine);
    }
    Ok(Some((version, status, end + 2)))
}

#[cfg(test)]
mod tests;
