//! Decoding of message bodies (RFC 9112 §6, §7.1), in place: what is handed out are pieces of the buffer that was read into.

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

use super::fields::{Verdict, parse_section};
use super::{HeadScanner, Limits, MAX_FIELDS, SyntaxError};
use crate::message::{FieldName, FieldNames, Fields, Framing, is_field_value};

/// Hexadecimal digits of a chunk size: 64 bits.
const MAX_SIZE_DIGITS: usize = 16;
/// Bytes of extensions on one chunk. They mean nothing to anybody but have to be read to their end.
const MAX_EXTENSION: usize = 4 * 1024;
/// Bytes of extensions in one body, so that a body cannot consist of them.
const MAX_EXTENSIONS: usize = 16 * 1024;
/// Chunks up to this size that stand in the buffer behind others are moved up to them and handed out as one: copying so few bytes
/// costs less than another write.
const MAX_MOVED: usize = 4 * 1024;

/// Trailer sections are checksums, signatures and gRPC states.
const TRAILER_LIMITS: Limits = Limits {
    head: 16 * 1024,
    fields: MAX_FIELDS,
    target: 0,
};

/// Fields that are not taken from trailers, where they come too late to be heeded and could be mistaken for the head's: framing,
/// routing, request modifiers, authentication, response control and how to process the content (RFC 9110 §6.5.1).
static NOT_IN_TRAILERS: FieldNames = FieldNames::new(&[
    FieldName::new("age"),
    FieldName::new("authorization"),
    FieldName::new("cache-control"),
    FieldName::new("connection"),
    FieldName::new("content-encoding"),
    FieldName::new("content-length"),
    FieldName::new("content-location"),
    FieldName::new("content-range"),
    FieldName::new("content-type"),
    FieldName::new("cookie"),
    FieldName::new("date"),
    FieldName::new("expect"),
    FieldName::new("expires"),
    FieldName::new("forwarded"),
    FieldName::new("host"),
    FieldName::new("if-match"),
    FieldName::new("if-modified-since"),
    FieldName::new("if-none-match"),
    FieldName::new("if-range"),
    FieldName::new("if-unmodified-since"),
    FieldName::new("keep-alive"),
    FieldName::new("location"),
    FieldName::new("max-forwards"),
    FieldName::new("pragma"),
    FieldName::new("proxy-authenticate"),
    FieldName::new("proxy-authorization"),
    FieldName::new("proxy-connection"),
    FieldName::new("range"),
    FieldName::new("retry-after"),
    FieldName::new("set-cookie"),
    FieldName::new("te"),
    FieldName::new("trailer"),
    FieldName::new("transfer-encoding"),
    FieldName::new("upgrade"),
    FieldName::new("vary"),
    FieldName::new("via"),
    FieldName::new("warning"),
    FieldName::new("www-authenticate"),
    FieldName::new("x-forwarded-for"),
    FieldName::new("x-forwarded-host"),
    FieldName::new("x-forwarded-proto"),
    FieldName::new("x-real-ip"),
    FieldName::new("x-http-method-override"),
]);

/// Why a body cannot be read on. The connection cannot be used any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BodyError {
    /// In a chunk's line or in the trailers.
    #[error("{0}")]
    Syntax(#[from] SyntaxError),
    /// Not 1 to 16 hexadecimal digits, or more than 2^63 - 1 (RFC 9112 §7.1).
    #[error("bad chunk size")]
    ChunkSize,
    /// Control characters in a chunk extension, or too many bytes of them (RFC 9112 §7.1.1).
    #[error("bad chunk extension")]
    ChunkExtension,
    /// No CR LF behind the data of a chunk (RFC 9112 §7.1).
    #[error("chunk longer than its size")]
    ChunkEnd,
    /// The connection ended before the body did (RFC 9112 §8).
    #[error("body cut short")]
    Truncated,
}

impl BodyError {
    /// The reason in one word, for log, metric and `Proxy-Status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Syntax(error) => error.as_str(),
            Self::ChunkSize => "bad-chunk-size",
            Self::ChunkExtension => "bad-chunk-extension",
            Self::ChunkEnd => "bad-chunk-end",
            Self::Truncated => "body-truncated",
        }
    }
}

/// What [`Decoder::decode`] found next.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Never empty.
    Data(Bytes),
    /// Behind the last data; never empty.
    Trailers(Fields),
    /// The body is whole. What is left in the buffer belongs to the next message.
    End,
    /// The buffer holds nothing that can be handed out.
    NeedMore,
}

/// Finds the data and the end of one body.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    /// Bytes of chunk extensions so far.
    extensions: usize,
    scanner: HeadScanner,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// So many bytes to come.
    Length(u64),
    /// A chunk's line comes next.
    ChunkLine,
    /// So many bytes of a chunk to come, at least 1.
    ChunkData(u64),
    /// The CR LF behind a chunk's data comes next.
    ChunkEnd,
    /// The trailer section comes next, which may be empty.
    Trailers,
    UntilClose,
    Done,
}

impl Decoder {
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::ChunkLine,
            Framing::Close | Framing::Stream => State::UntilClose,
        };
        Self {
            state,
            extensions: 0,
            scanner: HeadScanner::new(),
        }
    }

    /// Whether all of the body has been taken out of the buffer; only [`Event::End`] is still to come.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Takes the next piece of the body out of `buf`.
    ///
    /// # Errors
    /// Where the body is malformed, once everything before that has been handed out. They come again with every further call.
    pub fn decode(&mut self, buf: &mut BytesMut) -> Result<Event, BodyError> {
        match self.state {
            State::Done => Ok(Event::End),
            State::Length(_) | State::UntilClose if buf.is_empty() => Ok(Event::NeedMore),
            State::UntilClose => Ok(Event::Data(buf.split().freeze())),
            State::Length(length) => {
                let piece = available(length, buf.len());
                self.state = match length - piece as u64 {
                    0 => State::Done,
                    rest => State::Length(rest),
                };
                // A buffer that is handed out whole need not be shared.
                let piece = match piece == buf.len() {
                    true => std::mem::take(buf),
                    false => buf.split_to(piece),
                };
                Ok(Event::Data(piece.freeze()))
            }
            State::ChunkLine | State::ChunkData(_) | State::ChunkEnd => self.decode_chunks(buf),
            State::Trailers => self.decode_trailers(buf),
        }
    }

    /// Takes what is missing of the body out of `buf`, if it has a length and all of that is there.
    pub fn rest_at_once(&mut self, buf: &mut BytesMut) -> Option<Bytes> {
        match self.state {
            State::Length(length) if length <= buf.len() as u64 => match self.decode(buf) {
                Ok(Event::Data(data)) => Some(data),
                _ => None,
            },
            _ => None,
        }
    }

    /// Tells that the connection has ended and that [`decode`](Self::decode) has nothing more to hand out.
    ///
    /// # Errors
    /// [`BodyError::Truncated`] where that is not the body's end.
    pub fn on_eof(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::Done => Ok(()),
            State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            _ => Err(BodyError::Truncated),
        }
    }

    /// Walks over the chunks in the buffer, moves small ones together, and takes them out with everything that was read.
    fn decode_chunks(&mut self, buf: &mut BytesMut) -> Result<Event, BodyError> {
        let mut read = 0;
        let mut data = 0..0;
        loop {
            let rest = &buf[read..];
            let step = match self.state {
                State::ChunkLine => self.chunk_line(rest),
                State::ChunkData(_) if rest.is_empty() => break,
                State::ChunkData(length) => {
                    let piece = available(length, rest.len());
                    if data.is_empty() {
                        data = read..read + piece;
                    } else if piece <= MAX_MOVED {
                        buf.copy_within(read..read + piece, data.end);
                        data.end += piece;
                    } else {
                        break;
                    }
                    self.state = match length - piece as u64 {
                        0 => State::ChunkEnd,
                        rest => State::ChunkData(rest),
                    };
                    Ok(piece)
                }
                State::ChunkEnd => self.chunk_end(rest),
                // An empty trailer section is part of the last chunk; another has an event of its own.
                State::Trailers if rest.starts_with(b"\r\n") => {
                    self.state = State::Done;
                    Ok(2)
                }
                _ => break,
            };
            match step {
                Ok(0) => break,
                Ok(length) => read += length,
                Err(error) if data.is_empty() => return Err(error),
                // Comes again with the next call.
                Err(_) => break,
            }
        }
        if !data.is_empty() {
            buf.advance(data.start);
            let piece = buf.split_to(data.len()).freeze();
            buf.advance(read - data.end);
            return Ok(Event::Data(piece));
        }
        buf.advance(read);
        match self.state {
            State::Done => Ok(Event::End),
            State::Trailers => self.decode_trailers(buf),
            _ => Ok(Event::NeedMore),
        }
    }

    /// Reads `chunk-size [ chunk-ext ] CRLF`; answers with its length, 0 where it is not all there.
    fn chunk_line(&mut self, bytes: &[u8]) -> Result<usize, BodyError> {
        let mut size: u64 = 0;
        let mut digits = 0;
        for byte in bytes {
            let Some(digit) = char::from(*byte).to_digit(16) else {
                break;
            };
            if digits == MAX_SIZE_DIGITS {
                return Err(BodyError::ChunkSize);
            }
            digits += 1;
            size = size << 4 | u64::from(digit);
        }
        // 2^63 and more is negative to many parsers.
        if size > i64::MAX as u64 {
            return Err(BodyError::ChunkSize);
        }
        let Some(next) = bytes.get(digits) else {
            return Ok(0);
        };
        let line_end = match next {
            _ if digits == 0 => return Err(BodyError::ChunkSize),
            b'\r' => digits,
            b'\n' => return Err(SyntaxError::BareLf.into()),
            b';' => match self.extension_end(&bytes[digits..])? {
                Some(length) => digits + length,
                None => return Ok(0),
            },
            // White space too, which RFC 9112 §7.1.1 knows only as "bad": parsers differ over what it ends.
            _ => return Err(BodyError::ChunkSize),
        };
        match bytes.get(line_end + 1) {
            Some(b'\n') => {}
            Some(_) => return Err(SyntaxError::BareCr.into()),
            None => return Ok(0),
        }
        self.extensions += line_end - digits;
        self.state = match size {
            0 => State::Trailers,
            size => State::ChunkData(size),
        };
        Ok(line_end + 2)
    }

    /// The length of the chunk extensions that `bytes` begin with: up to the CR. `None`: it is not there yet.
    fn extension_end(&self, bytes: &[u8]) -> Result<Option<usize>, BodyError> {
        let end = memchr::memchr2(b'\r', b'\n', bytes);
        let extension = &bytes[..end.unwrap_or(bytes.len())];
        if extension.len() > MAX_EXTENSION.min(MAX_EXTENSIONS - self.extensions) || !is_field_value(extension) {
            return Err(BodyError::ChunkExtension);
        }
        match end.and_then(|end| bytes.get(end)) {
            Some(b'\n') => Err(SyntaxError::BareLf.into()),
            _ => Ok(end),
        }
    }

    /// Reads the CR LF behind a chunk's data; answers with its length, 0 where it is not all there.
    fn chunk_end(&mut self, bytes: &[u8]) -> Result<usize, BodyError> {
        match bytes {
            [] | [b'\r'] => Ok(0),
            [b'\r', b'\n', ..] => {
                self.state = State::ChunkLine;
                Ok(2)
            }
            _ => Err(BodyError::ChunkEnd),
        }
    }

    fn decode_trailers(&mut self, buf: &mut BytesMut) -> Result<Event, BodyError> {
        if !self.scanner.is_worth_parsing(buf, &TRAILER_LIMITS) {
            return Ok(Event::NeedMore);
        }
        let within = &buf[..buf.len().min(TRAILER_LIMITS.head)];
        let section = parse_section(within, 0, TRAILER_LIMITS.fields, |tag, name, _| {
            match NOT_IN_TRAILERS.contains(tag, name) {
                true => Ok(Verdict::Drop),
                false => Ok(Verdict::Keep),
            }
        });
        let section = match section {
            Ok(None) if within.len() == TRAILER_LIMITS.head => Err(SyntaxError::HeadTooLarge),
            section => section,
        };
        if !matches!(section, Ok(None)) {
            self.scanner.reset();
        }
        match section? {
            None => Ok(Event::NeedMore),
            Some((fields, length)) => {
                buf.advance(length);
                self.state = State::Done;
                match fields.is_empty() {
                    true => Ok(Event::End),
                    false => Ok(Event::Trailers(fields)),
                }
            }
        }
    }
}

/// How much of `length` bytes a buffer of `held` bytes has.
fn available(length: u64, held: usize) -> usize {
    usize::try_from(length).map_or(held, |length| length.min(held))
}

#[cfg(test)]
mod tests;
