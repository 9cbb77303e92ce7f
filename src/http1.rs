//! HTTP/1.1 on the wire (RFC 9112), bytes in and decisions out: whoever owns the sockets calls it.
//!
//! Parsing is strict, because a message that two parsers could read differently is how one client's bytes become
//! another's request. What RFC 9112 lets a recipient mend (bare LF, folded lines, white space before the colon) is
//! refused here.
//!
//! [`request`] and [`response`] read heads, [`body`] decodes what follows them, [`encode`] writes both.

pub mod body;
pub mod encode;
mod fields;
pub mod request;
pub mod response;

pub use fields::content_length;

use thiserror::Error;

/// Largest head: start line, fields and the empty line. What browsers send with many cookies stays below 32 KiB.
pub const MAX_HEAD: usize = 64 * 1024;
/// Most field lines in one head. Browsers send 15 to 30.
pub const MAX_FIELDS: usize = 100;
/// Longest request target, the least that RFC 9110 §4.1 recommends.
pub const MAX_TARGET: usize = 8 * 1024;

/// How much of a head is read before it is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes.
    pub head: usize,
    /// Field lines.
    pub fields: usize,
    /// Bytes of the request target.
    pub target: usize,
}

impl Limits {
    pub const DEFAULT: Self = Self {
        head: MAX_HEAD,
        fields: MAX_FIELDS,
        target: MAX_TARGET,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What is wrong with the lines of a head or of a trailer section.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SyntaxError {
    /// LF without CR before it (RFC 9112 §2.2).
    #[error("line feed without carriage return")]
    BareLf,
    /// CR without LF behind it (RFC 9112 §2.2).
    #[error("carriage return without line feed")]
    BareCr,
    /// A line that begins with white space (RFC 9112 §2.2, §5.2).
    #[error("folded field line")]
    ObsFold,
    /// A name that is empty or not a token (RFC 9110 §5.1), or a line without a colon.
    #[error("bad field name")]
    FieldName,
    /// RFC 9112 §5.1.
    #[error("white space before the colon of a field line")]
    SpaceBeforeColon,
    /// A control character in a value (RFC 9110 §5.5).
    #[error("control character in a field value")]
    FieldValue,
    #[error("too many field lines")]
    TooManyFields,
    #[error("message head too large")]
    HeadTooLarge,
}

impl SyntaxError {
    /// The reason in one word, for log, metric and `Proxy-Status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BareLf => "bare-lf",
            Self::BareCr => "bare-cr",
            Self::ObsFold => "obs-fold",
            Self::FieldName => "bad-field-name",
            Self::SpaceBeforeColon => "space-before-colon",
            Self::FieldValue => "bad-field-value",
            Self::TooManyFields => "too-many-fields",
            Self::HeadTooLarge => "head-too-large",
        }
    }
}

/// Remembers how far an incomplete head has been searched, so that bytes that trickle in are looked at once and not again
/// with each read.
#[derive(Debug, Clone, Default)]
pub struct HeadScanner {
    searched: usize,
}

impl HeadScanner {
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether parsing `buf`, which has grown since the last call, can tell more than "incomplete": it holds an empty line, a
    /// bare LF, or as much as a head may have.
    fn is_worth_parsing(&mut self, buf: &[u8], limits: &Limits) -> bool {
        let searched = std::mem::replace(&mut self.searched, buf.len());
        if searched == 0 || buf.len() >= limits.head {
            return true;
        }
        memchr::memchr_iter(b'\n', buf.get(searched..).unwrap_or_default()).any(|at| {
            let line = &buf[..searched + at];
            !line.ends_with(b"\r") || line.ends_with(b"\n\r") || line == b"\r"
        })
    }

    fn reset(&mut self) {
        self.searched = 0;
    }
}
