//! Request heads (RFC 9112 §3, §5, §6).

use std::sync::Arc;

use http::Method;
use thiserror::Error;

use super::fields::{
    CONNECTION, CONTENT_LENGTH, ConnectionOptions, EXPECT, FieldLine, HOST, TRANSFER_ENCODING, TransferCodings,
    UPGRADE, Verdict, content_length, list_members, parse_lines,
};
use super::{HeadScanner, Limits, SyntaxError};
use crate::message::{
    Authority, FieldNames, Fields, Framing, Line, RequestHead, Scanned, Scheme, Target, Version, is_token_byte,
};

mod target;

use target::{OtherTarget, is_origin_form};

/// Empty lines that may stand before a request (RFC 9112 §2.2 asks for at least one).
const MAX_LEADING_EMPTY_LINES: usize = 2;
/// Longest method. The longest that is registered with IANA has 17 letters.
const MAX_METHOD: usize = 32;

/// The fields that [`Seen`] takes in.
const TAKEN: FieldNames = FieldNames::new(&[HOST, CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION, UPGRADE, EXPECT]);

/// Why a request head is refused. Whatever it is: answer, and close the connection, since where the next request would begin
/// is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RequestError {
    #[error("{0}")]
    Syntax(#[from] SyntaxError),
    /// Not `method SP target SP version CR LF` (RFC 9112 §3); also HTTP/0.9.
    #[error("bad request line")]
    RequestLine,
    /// The method is not a token (RFC 9110 §9.1).
    #[error("bad method")]
    Method,
    /// RFC 9112 §3 asks for 501.
    #[error("method too long")]
    MethodTooLong,
    /// CONNECT and TRACE: Forebay is neither a tunnel nor a mirror.
    #[error("method not allowed")]
    MethodNotAllowed,
    /// In none of the forms of RFC 9112 §3.2, or with bytes that no URI has.
    #[error("bad request target")]
    Target,
    #[error("request target too long")]
    TargetTooLong,
    /// An absolute target whose scheme is not that of the connection (RFC 9110 §7.4).
    #[error("request target of another scheme")]
    Misdirected,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    #[error("HTTP version not supported")]
    Version,
    /// `Connection` or one of its kin in HTTP/2, where it has no meaning (RFC 9113 §8.2.2).
    #[error("connection field in an HTTP/2 request")]
    ConnectionField,
    /// RFC 9112 §3.2.
    #[error("no Host field")]
    HostMissing,
    /// RFC 9112 §3.2.
    #[error("more than one Host field")]
    HostRepeated,
    /// RFC 9112 §3.2.
    #[error("bad Host field")]
    Host,
    /// RFC 9112 §3.2.2 would let the target win; whoever sends two hosts hopes that somebody reads the other one.
    #[error("Host field and request target differ")]
    HostMismatch,
    /// RFC 9112 §6.3.
    #[error("bad Content-Length")]
    ContentLength,
    /// RFC 9110 §8.6 lets a recipient merge equal ones; nobody sends them in good faith.
    #[error("more than one Content-Length")]
    ContentLengthRepeated,
    /// RFC 9112 §6.3.
    #[error("bad Transfer-Encoding")]
    TransferEncoding,
    /// RFC 9112 §6.1.
    #[error("transfer coding not supported")]
    TransferCodingUnsupported,
    /// RFC 9112 §6.1.
    #[error("Transfer-Encoding in an HTTP/1.0 request")]
    TransferEncodingInHttp10,
    /// RFC 9112 §6.3.
    #[error("both Content-Length and Transfer-Encoding")]
    BothLengths,
    /// Something other than `100-continue` (RFC 9110 §10.1.1).
    #[error("expectation not supported")]
    Expectation,
}

impl RequestError {
    /// The status to answer with.
    pub fn status(self) -> u16 {
        match self {
            Self::MethodNotAllowed => 405,
            Self::TargetTooLong => 414,
            Self::Expectation => 417,
            Self::Misdirected => 421,
            Self::Syntax(SyntaxError::TooManyFields | SyntaxError::HeadTooLarge) => 431,
            Self::MethodTooLong | Self::TransferCodingUnsupported => 501,
            Self::Version => 505,
            Self::Syntax(_)
            | Self::RequestLine
            | Self::Method
            | Self::Target
            | Self::ConnectionField
            | Self::HostMissing
            | Self::HostRepeated
            | Self::Host
            | Self::HostMismatch
            | Self::ContentLength
            | Self::ContentLengthRepeated
            | Self::TransferEncoding
            | Self::TransferEncodingInHttp10
            | Self::BothLengths => 400,
        }
    }

    /// The reason in one word, for log, metric and `Proxy-Status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Syntax(error) => error.as_str(),
            Self::RequestLine => "bad-request-line",
            Self::Method => "bad-method",
            Self::MethodTooLong => "method-too-long",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::Target => "bad-target",
            Self::TargetTooLong => "target-too-long",
            Self::Misdirected => "misdirected",
            Self::Version => "bad-version",
            Self::ConnectionField => "connection-field",
            Self::HostMissing => "host-missing",
            Self::HostRepeated => "host-repeated",
            Self::Host => "bad-host",
            Self::HostMismatch => "host-mismatch",
            Self::ContentLength => "bad-content-length",
            Self::ContentLengthRepeated => "content-length-repeated",
            Self::TransferEncoding => "bad-transfer-encoding",
            Self::TransferCodingUnsupported => "unsupported-transfer-coding",
            Self::TransferEncodingInHttp10 => "transfer-encoding-in-http10",
            Self::BothLengths => "both-lengths",
            Self::Expectation => "unsupported-expectation",
        }
    }
}

/// Reads the request head at the beginning of `buf`; answers with it and its length in bytes. `None`: more bytes are needed.
///
/// `scheme` is that of the connection. `Connection`, `Upgrade` and `Expect` lines stay among the fields.
///
/// # Errors
/// As soon as the bytes that are there cannot become an acceptable request.
pub fn parse(buf: &[u8], limits: &Limits, scheme: Scheme) -> Result<Option<(RequestHead, usize)>, RequestError> {
    match read(buf, limits)? {
        Some(read) => {
            let end = read.end;
            Ok(Some((read.head(scheme)?, end)))
        }
        None => Ok(None),
    }
}

/// [`parse`], for a buffer that grows from call to call: `scanner` begins as new with each request and remembers what has
/// been looked at.
///
/// # Errors
/// Those of [`parse`], some of them only once the end of the head is there.
pub fn parse_more(
    buf: &[u8],
    scanner: &mut HeadScanner,
    limits: &Limits,
    scheme: Scheme,
) -> Result<Option<(Arc<RequestHead>, usize)>, RequestError> {
    if !scanner.is_worth_parsing(buf, limits) {
        return Ok(None);
    }
    let read = read(buf, limits);
    if !matches!(read, Ok(None)) {
        scanner.reset();
    }
    match read? {
        Some(read) => {
            let end = read.end;
            Ok(Some((Arc::new(read.head(scheme)?), end)))
        }
        None => Ok(None),
    }
}

/// Holds a request of another version of HTTP to the same rules: its method, its target in origin form (or `*`) and its
/// authority. Answers with authority and target.
///
/// # Errors
/// As [`parse`] would for the same request in HTTP/1.1.
pub fn check(
    method: &Method,
    target: &str,
    authority: &[u8],
    limits: &Limits,
    scheme: Scheme,
) -> Result<(Authority, Target), RequestError> {
    match method {
        _ if method.as_str().len() > MAX_METHOD => return Err(RequestError::MethodTooLong),
        &Method::CONNECT | &Method::TRACE => return Err(RequestError::MethodNotAllowed),
        _ if target.len() > limits.target => return Err(RequestError::TargetTooLong),
        _ => {}
    }
    let scanned = Scanned::of(target.as_bytes());
    if scanned.end() != target.len() {
        return Err(RequestError::Target);
    }
    let host = |authority| Authority::parse(authority).ok_or(RequestError::Host);
    if is_origin_form(target.as_bytes()) {
        return Ok((host(authority)?, scanned.target(target.as_bytes())));
    }
    match OtherTarget::new(target.as_bytes())? {
        OtherTarget::Absolute { .. } => Err(RequestError::Target),
        target @ OtherTarget::Asterisk => target.resolve(method, Some(host(authority)?), scheme),
    }
}

/// A head that has come as a whole and is well formed so far. It is made of what is cheap to pass on, so that the parts of a
/// [`RequestHead`] are put where they stay.
struct Read<'a> {
    line: RequestLine<'a>,
    seen: Seen<'a>,
    /// The field lines, without the empty one behind them.
    section: &'a [u8],
    lines: Vec<Line>,
    /// Length of the head.
    end: usize,
}

#[inline(always)]
fn read<'a>(buf: &'a [u8], limits: &Limits) -> Result<Option<Read<'a>>, RequestError> {
    let within = &buf[..buf.len().min(limits.head)];
    match read_within(within, limits)? {
        None if within.len() == limits.head => Err(SyntaxError::HeadTooLarge.into()),
        read => Ok(read),
    }
}

#[inline(always)]
fn read_within<'a>(buf: &'a [u8], limits: &Limits) -> Result<Option<Read<'a>>, RequestError> {
    let Some(start) = skip_empty_lines(buf)? else {
        return Ok(None);
    };
    let Some((line, fields_start)) = parse_request_line(buf, start, limits)? else {
        return Ok(None);
    };
    let mut seen = Seen::default();
    let mut lines = Vec::new();
    let version = line.version;
    let end = parse_lines(buf, fields_start, limits.fields, &mut lines, |line| {
        seen.take(&line, version)
    })?;
    let Some(end) = end else {
        return Ok(None);
    };
    Ok(Some(Read {
        line,
        seen,
        section: &buf[fields_start..end - "\r\n".len()],
        lines,
        end,
    }))
}

impl Read<'_> {
    #[inline(always)]
    fn head(self, scheme: Scheme) -> Result<RequestHead, RequestError> {
        let Self { line, seen, .. } = self;
        let version = line.version;
        let framing = seen.framing(version)?;
        let has_body = !matches!(framing, Framing::None | Framing::Length(0));
        let host = match seen.host {
            // RFC 9112 §3.2.
            None if version >= Version::Http11 => return Err(RequestError::HostMissing),
            None => Authority::default(),
            Some(host) => Authority::leading(host.rest, host.value.len()).ok_or(RequestError::Host)?,
        };
        let method = method(line.method)?;
        let is_get = method == Method::GET;
        let (authority, target) = if is_origin_form(line.target) {
            (host, line.scanned.target(line.target))
        } else {
            let host = seen.host.is_some().then_some(host);
            OtherTarget::new(line.target)?.resolve(&method, host, scheme)?
        };
        Ok(RequestHead {
            upgrade: seen.upgrade == UpgradeOffer::WebSocket
                && version == Version::Http11
                && is_get
                && !has_body
                && seen.connection.upgrade,
            method,
            scheme,
            version,
            authority,
            target,
            fields: Fields::from_section(self.section, self.lines),
            framing,
            expects_continue: seen.expects_continue && has_body,
            // RFC 9112 §9.3.
            keep_alive: !seen.connection.close && (version >= Version::Http11 || seen.connection.keep_alive),
        })
    }
}

/// What the fields said about the message and its connection.
#[derive(Default)]
struct Seen<'a> {
    host: Option<FieldLine<'a>>,
    content_length: Option<u64>,
    codings: TransferCodings,
    connection: ConnectionOptions,
    upgrade: UpgradeOffer,
    expects_continue: bool,
}

impl<'a> Seen<'a> {
    /// Takes in a line. The framing fields and Host are left out of the fields: their meaning is in the head's own members.
    #[inline(always)]
    fn take(&mut self, line: &FieldLine<'a>, version: Version) -> Result<Verdict, RequestError> {
        let &FieldLine { tag, name, value, .. } = line;
        if !TAKEN.may_have(tag) {
            return Ok(Verdict::Keep);
        }
        if HOST.is(tag, name) {
            if self.host.replace(*line).is_some() {
                return Err(RequestError::HostRepeated);
            }
            return Ok(Verdict::Drop);
        }
        if CONTENT_LENGTH.is(tag, name) {
            let length = content_length(value).ok_or(RequestError::ContentLength)?;
            if self.content_length.replace(length).is_some() {
                return Err(RequestError::ContentLengthRepeated);
            }
            return Ok(Verdict::Drop);
        }
        if TRANSFER_ENCODING.is(tag, name) {
            self.codings = self.codings.and(value).ok_or(RequestError::TransferEncoding)?;
            return Ok(Verdict::Drop);
        }
        if CONNECTION.is(tag, name) {
            self.connection.add(value);
        } else if UPGRADE.is(tag, name) {
            self.upgrade = self.upgrade.and(value);
        } else if EXPECT.is(tag, name) && version == Version::Http11 {
            // RFC 9110 §10.1.1: ignored in HTTP/1.0.
            if !value.eq_ignore_ascii_case(b"100-continue") {
                return Err(RequestError::Expectation);
            }
            self.expects_continue = true;
        }
        Ok(Verdict::Keep)
    }

    /// RFC 9112 §6.3, with every ambiguity refused.
    fn framing(&self, version: Version) -> Result<Framing, RequestError> {
        match (self.codings, self.content_length) {
            (TransferCodings::Absent, None) => Ok(Framing::None),
            (TransferCodings::Absent, Some(length)) => Ok(Framing::Length(length)),
            (_, Some(_)) => Err(RequestError::BothLengths),
            // RFC 9112 §6.1: whoever wrote HTTP/1.0 cannot have meant it.
            (_, None) if version < Version::Http11 => Err(RequestError::TransferEncodingInHttp10),
            (TransferCodings::Chunked, None) => Ok(Framing::Chunked),
            (TransferCodings::Layered, None) => Err(RequestError::TransferCodingUnsupported),
            // RFC 9112 §6.3: where `chunked` is not the last one the end cannot be known.
            (TransferCodings::Unframed, None) => Err(RequestError::TransferEncoding),
        }
    }
}

/// What the `Upgrade` lines offer (RFC 9110 §7.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum UpgradeOffer {
    #[default]
    Nothing,
    WebSocket,
    /// Something else, or a choice that would be the upstream's to make.
    Other,
}

impl UpgradeOffer {
    fn and(self, value: &[u8]) -> Self {
        match self {
            Self::Nothing if value.eq_ignore_ascii_case(b"websocket") => Self::WebSocket,
            Self::Nothing if list_members(value).all(<[u8]>::is_empty) => Self::Nothing,
            _ => Self::Other,
        }
    }
}

#[derive(Clone, Copy)]
struct RequestLine<'a> {
    /// A token that is no method that is refused.
    method: &'a [u8],
    target: &'a [u8],
    /// What was seen of the target.
    scanned: Scanned,
    version: Version,
}

/// The offset of the request line; `None` where the bytes end before it.
fn skip_empty_lines(buf: &[u8]) -> Result<Option<usize>, RequestError> {
    let mut at = 0;
    loop {
        match (buf.get(at), buf.get(at + 1)) {
            (Some(b'\r'), Some(b'\n')) if at < 2 * MAX_LEADING_EMPTY_LINES => at += 2,
            (Some(b'\r'), Some(b'\n')) => return Err(RequestError::RequestLine),
            (Some(b'\r'), Some(_)) => return Err(SyntaxError::BareCr.into()),
            (Some(b'\n'), _) => return Err(SyntaxError::BareLf.into()),
            (None, _) | (Some(b'\r'), None) => return Ok(None),
            (Some(_), _) => return Ok(Some(at)),
        }
    }
}

/// Reads the line that begins at `start`; answers with it and the offset behind its CR LF.
fn parse_request_line<'a>(
    buf: &'a [u8],
    start: usize,
    limits: &Limits,
) -> Result<Option<(RequestLine<'a>, usize)>, RequestError> {
    let rest = &buf[start..];
    let method_end = match rest.iter().position(|b| !is_token_byte(*b)) {
        Some(0) => return Err(RequestError::Method),
        Some(at) if at > MAX_METHOD => return Err(RequestError::MethodTooLong),
        None if rest.len() > MAX_METHOD => return Err(RequestError::MethodTooLong),
        None => return Ok(None),
        Some(at) => at,
    };
    match rest[method_end] {
        b' ' => {}
        b'\r' | b'\n' | b'\t' => return Err(RequestError::RequestLine),
        _ => return Err(RequestError::Method),
    }
    let method = &rest[..method_end];
    if matches!(method, b"CONNECT" | b"TRACE") {
        return Err(RequestError::MethodNotAllowed);
    }

    let rest = &rest[method_end + 1..];
    let scanned = Scanned::of(rest);
    let target_end = scanned.end();
    if target_end > limits.target {
        return Err(RequestError::TargetTooLong);
    }
    match rest.get(target_end) {
        None => return Ok(None),
        Some(b' ') if target_end > 0 => {}
        Some(b'\r' | b'\n') => return Err(RequestError::RequestLine),
        Some(_) => return Err(RequestError::Target),
    }
    let (target, rest) = (&rest[..target_end], &rest[target_end + 1..]);
    if !is_origin_form(target) {
        OtherTarget::new(target)?;
    }
    let Some((version, version_end)) = version_line(rest)? else {
        return Ok(None);
    };
    let line = RequestLine {
        method,
        target,
        scanned,
        version,
    };
    Ok(Some((line, buf.len() - rest.len() + version_end)))
}

#[inline]
fn method(token: &[u8]) -> Result<Method, RequestError> {
    match token {
        b"GET" => Ok(Method::GET),
        b"HEAD" => Ok(Method::HEAD),
        b"POST" => Ok(Method::POST),
        _ => Method::from_bytes(token).map_err(|_| RequestError::Method),
    }
}

/// Reads what stands behind the target; answers with the version and the offset behind the CR LF.
#[inline]
fn version_line(rest: &[u8]) -> Result<Option<(Version, usize)>, RequestError> {
    const USUAL: &[u8] = b"HTTP/1.1\r\n";
    if rest.starts_with(USUAL) {
        return Ok(Some((Version::Http11, USUAL.len())));
    }
    unusual_version_line(rest)
}

#[cold]
fn unusual_version_line(rest: &[u8]) -> Result<Option<(Version, usize)>, RequestError> {
    let Some(version_end) = memchr::memchr2(b'\r', b'\n', rest) else {
        return match rest.len() > "HTTP/1.1".len() {
            true => Err(RequestError::RequestLine),
            false => Ok(None),
        };
    };
    let version = version(&rest[..version_end])?;
    match (rest[version_end], rest.get(version_end + 1)) {
        (b'\r', Some(b'\n')) => Ok(Some((version, version_end + 2))),
        (b'\r', None) => Ok(None),
        (b'\r', Some(_)) => Err(SyntaxError::BareCr.into()),
        _ => Err(SyntaxError::BareLf.into()),
    }
}

/// RFC 9112 §2.3.
fn version(bytes: &[u8]) -> Result<Version, RequestError> {
    match bytes {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', b'1'..=b'9', b'.', b'0'..=b'9'] => Err(RequestError::Version),
        _ => Err(RequestError::RequestLine),
    }
}

#[cfg(test)]
mod tests;
