//! What a request asks for: a path, maybe with a query.

use super::classes::{Classes, FOLLOWS, LEADS, Run};
use super::text::{Text, behaves_as_text, known_ascii};

/// Most targets are not longer.
const SHORT: usize = 48;

/// Path with its query in origin form as received, or `*`.
///
/// What reading it has told is kept, so that nobody looks for the query, or for something to normalise, again.
#[derive(Clone, Default)]
pub struct Target {
    text: Text<SHORT>,
    /// Where the first `?` stands, or would.
    path_end: u32,
    path: Readings,
    encoding: Encoding,
}

/// In how many ways a server may read a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Readings {
    /// There is nothing in it that a server would normalise: no percent-encoding, no parameters, no empty or dot segments.
    #[default]
    One,
    /// Maybe in several.
    Maybe,
}

/// Whether there is a `%` in a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    #[default]
    None,
    Percent,
}

/// How far the bytes of a target reach, and what is among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scanned {
    end: u32,
    path_end: u32,
    path: Readings,
    encoding: Encoding,
}

impl Scanned {
    /// Looks at bytes up to the first that may not stand in a target. They are no more than a head may have, far below 4 GiB.
    #[inline]
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let path = Run::of::<NOT_IN_PATH>(bytes, &TARGET_BYTES, 0);
        let mut scanned = Self {
            end: path.length as u32,
            path_end: path.length as u32,
            path: readings(&path),
            encoding: encoding(&path),
        };
        if bytes.get(path.length) == Some(&b'?') {
            let query = bytes.get(path.length + 1..).unwrap_or_default();
            let query = Run::of::<NOT_IN_QUERY>(query, &TARGET_BYTES, 0);
            scanned.end += 1 + query.length as u32;
            if query.has(PERCENT) {
                scanned.encoding = Encoding::Percent;
            }
        }
        scanned
    }

    /// Where the first byte stands that may not.
    #[inline]
    pub(crate) fn end(&self) -> usize {
        self.end as usize
    }

    /// What was looked at.
    #[inline]
    pub(crate) fn target(&self, bytes: &[u8]) -> Target {
        let bytes = bytes.get(..self.end()).unwrap_or_default();
        Target {
            // TARGET_BYTES lets nothing but ASCII through.
            text: Text::new(known_ascii(bytes)),
            path_end: self.path_end,
            path: self.path,
            encoding: self.encoding,
        }
    }
}

impl Target {
    #[inline]
    pub fn as_str(&self) -> &str {
        self.text.as_str()
    }

    /// The path as received, without the query.
    #[inline]
    pub fn path(&self) -> &str {
        self.as_str().get(..self.path_end as usize).unwrap_or(self)
    }

    /// What stands behind the first `?`.
    #[inline]
    pub fn query(&self) -> Option<&str> {
        self.as_str().get(self.path_end as usize + 1..)
    }

    /// Of its path.
    #[inline]
    pub fn path_readings(&self) -> Readings {
        self.path
    }

    #[inline]
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }
}

behaves_as_text!(Target);

impl From<&str> for Target {
    /// Takes whatever it is.
    fn from(text: &str) -> Self {
        let path_end = memchr::memchr(b'?', text.as_bytes()).unwrap_or(text.len());
        Self {
            path_end: path_end as u32,
            path: path_readings(text.as_bytes().get(..path_end).unwrap_or_default()),
            encoding: match memchr::memchr(b'%', text.as_bytes()) {
                Some(_) => Encoding::Percent,
                None => Encoding::None,
            },
            text: Text::new(text),
        }
    }
}

/// In how many ways a server may read `path`.
pub fn path_readings(path: &[u8]) -> Readings {
    let run = Run::of::<NOT_IN_PATH>(path, &TARGET_BYTES, 0);
    if run.length == path.len() {
        readings(&run)
    } else {
        Readings::Maybe
    }
}

#[inline]
fn readings(run: &Run) -> Readings {
    if run.has(NORMALISED) || run.has_pairs() {
        Readings::Maybe
    } else {
        Readings::One
    }
}

#[inline]
fn encoding(run: &Run) -> Encoding {
    if run.has(PERCENT) {
        Encoding::Percent
    } else {
        Encoding::None
    }
}

const NOT_IN_PATH: u8 = 0x80;
const NOT_IN_QUERY: u8 = 0x40;
/// Neither `/` nor `pchar` of RFC 3986 §3.3, or one that stands for something else: `%` and `;`.
const NORMALISED: u8 = 0x20;
const PERCENT: u8 = 0x10;

/// Which bytes a target may have. RFC 3986 §3.3 and §3.4, and what browsers and curl send beside them without encoding it.
///
/// Never: controls, space, `#`, `<`, `>`, DEL and what is not ASCII. `\` is refused in paths, because some read it as `/`. All
/// of it can be said in HTTP/2 as well, so that a request is not served by one version and refused by the other.
///
/// The pairs are `//` and `/.`.
static TARGET_BYTES: Classes = {
    let mut table = [NOT_IN_PATH | NOT_IN_QUERY; 256];
    let mut byte = 0x21;
    while byte < 0x7f {
        table[byte] = match byte as u8 {
            b'#' | b'<' | b'>' => NOT_IN_PATH | NOT_IN_QUERY,
            b'?' | b'\\' | b'`' => NOT_IN_PATH,
            b'"' => NOT_IN_QUERY | NORMALISED,
            b'%' => NORMALISED | PERCENT,
            b'/' => LEADS | FOLLOWS,
            b'.' => FOLLOWS,
            b'-'
            | b'_'
            | b'~'
            | b'!'
            | b'$'
            | b'&'
            | b'\''
            | b'('
            | b')'
            | b'*'
            | b'+'
            | b','
            | b'='
            | b':'
            | b'@'
            | b'0'..=b'9'
            | b'a'..=b'z'
            | b'A'..=b'Z' => 0,
            _ => NORMALISED,
        };
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests;
