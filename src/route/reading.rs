//! The ways in which a server may read the path of a request.
//!
//! RFC 3986 §6.2.2 lets a recipient decode, and servers go further: they fold slashes, take backslashes for slashes, cut
//! `;parameters`, decode twice. A route that is found by one reading and not by another is a way around its `deny`, so all
//! readings are worked out here, and [`super::Router`] demands that they agree.

use std::borrow::Cow;

use crate::message::{Readings, path_readings};

/// Readings of one path; a path that people write has one or two, and a handful in the worst case.
const MAX_READINGS: usize = 32;

/// Bytes in all readings of one path together: bounds what a hostile path costs to a fraction of a millisecond.
const MAX_READING_BYTES: usize = 128 * 1024;

/// Why a path is refused: two servers could take it for different resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ambiguity {
    /// As received and as normalised it belongs to different routes.
    Routes,
    /// Its `..` segments climb above the root (RFC 3986 §5.2.4 clips them, file systems do not).
    AboveRoot,
    /// A `%` without two hexadecimal digits behind it (RFC 3986 §2.1).
    BadEncoding,
    /// `%00`: where C ends a string.
    Nul,
    /// More ways to read it than anything but an attack has.
    TooManyReadings,
}

impl Ambiguity {
    /// The word for logs and problem details.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Routes => "ambiguous-path",
            Self::AboveRoot => "path-above-root",
            Self::BadEncoding => "path-bad-encoding",
            Self::Nul => "path-nul",
            Self::TooManyReadings => "path-too-ambiguous",
        }
    }
}

/// Whether there is only one way to read the path, which is the case for nearly all.
pub(super) fn is_plain(path: &[u8]) -> bool {
    path_readings(path) == Readings::One
}

/// One form for all paths that a server may take for the same: the shortest reading.
pub fn shortest_reading(path: &str) -> Cow<'_, [u8]> {
    if is_plain(path.as_bytes()) {
        return Cow::Borrowed(path.as_bytes());
    }
    let shortest = readings(path.as_bytes()).ok().and_then(|readings| {
        readings
            .into_iter()
            .min_by(|a, b| a.len().cmp(&b.len()).then_with(|| a.cmp(b)))
    });
    shortest.map_or(Cow::Borrowed(path.as_bytes()), Cow::Owned)
}

/// Everything that a server may take `path` for; first what was received (in canonical form).
///
/// The steps are applied in every order, because servers differ in that too.
pub(super) fn readings(path: &[u8]) -> Result<Vec<Vec<u8>>, Ambiguity> {
    let received = canonical(path, LonePercent::Refuse)?;
    let mut bytes = received.len();
    let mut readings = vec![received];
    let mut next = 0;
    while let Some(reading) = readings.get(next) {
        let mut found = Vec::new();
        for step in STEPS {
            let other = step(reading)?;
            if let Some(other) = other
                && !readings.contains(&other)
                && !found.contains(&other)
            {
                bytes += other.len();
                found.push(other);
            }
        }
        readings.append(&mut found);
        if readings.len() > MAX_READINGS || bytes > MAX_READING_BYTES {
            return Err(Ambiguity::TooManyReadings);
        }
        next += 1;
    }
    Ok(readings)
}

/// The form in which paths and what is typed in the configuration are compared: what may stand in a path unencoded
/// (RFC 3986 §3.3) and was received so stands as it is, everything else is encoded with upper-case digits.
pub(super) fn canonical(path: &[u8], lone_percent: LonePercent) -> Result<Vec<u8>, Ambiguity> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        match *byte {
            b'%' => match (hex_pair(behind), lone_percent) {
                (Some(0), _) => return Err(Ambiguity::Nul),
                (Some(encoded), _) => {
                    push_encoded(&mut out, encoded);
                    rest = behind.get(2..).unwrap_or_default();
                }
                (None, LonePercent::Refuse) => return Err(Ambiguity::BadEncoding),
                (None, LonePercent::Encode) => push_encoded(&mut out, b'%'),
            },
            0 => return Err(Ambiguity::Nul),
            byte if is_path_byte(byte) => out.push(byte),
            byte => push_encoded(&mut out, byte),
        }
    }
    Ok(out)
}

/// What to do with a `%` that encodes nothing.
#[derive(Debug, Clone, Copy)]
pub(super) enum LonePercent {
    Refuse,
    Encode,
}

/// What was typed in the configuration, in canonical form: there `%61` means the letter, as RFC 3986 §6.2.2.2 has it.
pub(super) fn canonical_literal(text: &str) -> Vec<u8> {
    let encoded = canonical(text.as_bytes(), LonePercent::Encode).unwrap_or_else(|_| text.as_bytes().to_vec());
    match decode_unreserved(&encoded) {
        Ok(Some(decoded)) => decoded,
        Ok(None) | Err(_) => encoded,
    }
}

/// A canonical path in, the other canonical path that some servers see in it out.
type Step = fn(&[u8]) -> Result<Option<Vec<u8>>, Ambiguity>;

const STEPS: [Step; 8] = [
    decode_unreserved,
    decode_all,
    decode_overlong,
    cut_delimiter,
    backslashes_to_slashes,
    cut_parameters,
    merge_slashes,
    remove_dot_segments,
];

/// RFC 3986 §6.2.2.2.
fn decode_unreserved(path: &[u8]) -> Result<Option<Vec<u8>>, Ambiguity> {
    replace_encoded(path, |first, _| match first {
        b'-' | b'.' | b'_' | b'~' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => Some((first, 3)),
        _ => None,
    })
}

/// What servers do that decode before they look at slashes; once more for each layer, because each result is a reading.
fn decode_all(path: &[u8]) -> Result<Option<Vec<u8>>, Ambiguity> {
    replace_encoded(path, |first, _| Some((first, 3)))
}

/// ASCII hidden in two bytes of overlong UTF-8 (`%C0%AF` for `/`), which lenient decoders accept (RFC 3629 §10).
fn decode_overlong(path: &[u8]) -> Result<Option<Vec<u8>>, Ambiguity> {
    replace_encoded(path, |first, second| match (first, second) {
        (0xc0 | 0xc1, Some(second @ 0x80..=0xbf)) => Some(((first & 0x1f) << 6 | second & 0x3f, 6)),
        _ => None,
    })
}

/// `%3F` and `%23` end the path for servers that parse it again after they have decoded it.
fn cut_delimiter(path: &[u8]) -> Result<Option<Vec<u8>>, Ambiguity> {
    let end = path.windows(3).position(|w| w == b"%3F" || w == b"%23");
    Ok(end.and_then(|end| path.get(..end)).map(<[u8]>::to_vec))
}

/// `\` is not a path byte, so it is always encoded here.
fn backslashes_to_slashes(path: &[u8]) -> Result<Option<Vec<u8>>, Ambiguity> {
    replace_encoded(path, |first, _| (first == b'\\').then_some((b'/', 3)))
}

/// Parameters of segments (RFC 3986 §3.3), which servlet containers take off.
fn cut_parameters(path: &[u8]) -> Result<Option<Vec<u8>>, Ambiguity> {
    if !path.contains(&b';') {
        return Ok(None);
    }
    let mut out = Vec::with_capacity(path.len());
    let mut in_parameters = false;
    for byte in path {
        match byte {
            b'/' => in_parameters = false,
            b';' => in_parameters = true,
            _ => {}
        }
        if !in_parameters {
            out.push(*byte);
        }
    }
    Ok(Some(out))
}

fn merge_slashes(path: &[u8]) -> Result<Option<Vec<u8>>, Ambiguity> {
    if !path.windows(2).any(|w| w == b"//") {
        return Ok(None);
    }
    let mut out = path.to_vec();
    out.dedup_by(|byte, previous| *byte == b'/' && *previous == b'/');
    Ok(Some(out))
}

/// RFC 3986 §5.2.4, with an error instead of clipping at the root.
fn remove_dot_segments(path: &[u8]) -> Result<Option<Vec<u8>>, Ambiguity> {
    if !path.windows(2).any(|w| w == b"/.") {
        return Ok(None);
    }
    let mut out: Vec<&[u8]> = Vec::new();
    let mut segments = path.strip_prefix(b"/").unwrap_or(path).split(|b| *b == b'/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            b"." => {}
            b".." => {
                if out.pop().is_none() {
                    return Err(Ambiguity::AboveRoot);
                }
            }
            _ => {
                out.push(segment);
                continue;
            }
        }
        if is_last {
            out.push(b"");
        }
    }
    let mut joined = Vec::with_capacity(path.len());
    for segment in &out {
        joined.push(b'/');
        joined.extend_from_slice(segment);
    }
    Ok((joined != path).then_some(joined))
}

/// Puts another byte in the place of encoded ones: `replacement` gets an encoded byte and the encoded one right behind it
/// and answers with the byte and how much of the path it stands for.
fn replace_encoded(
    path: &[u8],
    replacement: impl Fn(u8, Option<u8>) -> Option<(u8, usize)>,
) -> Result<Option<Vec<u8>>, Ambiguity> {
    if !path.contains(&b'%') {
        return Ok(None);
    }
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((byte, behind)) = rest.split_first() {
        let replaced = match byte {
            b'%' => hex_pair(behind).and_then(|first| replacement(first, second_encoded(behind))),
            _ => None,
        };
        let (byte, used) = replaced.unwrap_or((*byte, 1));
        out.push(byte);
        rest = rest.get(used..).unwrap_or_default();
    }
    let out = canonical(&out, LonePercent::Encode)?;
    Ok((out != path).then_some(out))
}

/// From what stands behind a `%`: the encoded byte that follows directly.
fn second_encoded(behind: &[u8]) -> Option<u8> {
    match behind.get(2) {
        Some(b'%') => hex_pair(behind.get(3..)?),
        _ => None,
    }
}

fn hex_pair(bytes: &[u8]) -> Option<u8> {
    let (high, low) = (*bytes.first()?, *bytes.get(1)?);
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

fn push_encoded(out: &mut Vec<u8>, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.extend([b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
}

/// `/` and `pchar` of RFC 3986 §3.3, without percent-encoding.
fn is_path_byte(byte: u8) -> bool {
    matches!(byte,
        b'/' | b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'='
        | b':' | b'@' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str) -> Result<Vec<String>, Ambiguity> {
        let readings = readings(path.as_bytes())?;
        Ok(readings
            .into_iter()
            .map(|reading| String::from_utf8(reading).unwrap())
            .collect())
    }

    #[test]
    fn plain_paths_need_no_second_look() {
        for path in ["/", "/a", "/a/b.c/", "/a.b/c~d/e:f@g,h=i", "/a..b/c."] {
            assert!(is_plain(path.as_bytes()), "{path}");
        }
        for path in [
            "//",
            "/a//b",
            "/./a",
            "/a/..",
            "/%61",
            "/a;b",
            "/a\\b",
            "/é",
            "/a#b",
            "/a b",
            "/.well-known",
        ] {
            assert!(!is_plain(path.as_bytes()), "{path}");
        }
    }

    #[test]
    fn a_path_is_read_in_every_way_that_servers_do() {
        let table: [(&str, &[&str]); 18] = [
            ("/a", &[]),
            ("/hello%20world", &[]),
            ("/100%25", &[]),
            ("/.well-known/x", &[]),
            ("/%61dmin", &["/admin"]),
            ("/a%2Fb", &["/a/b"]),
            ("/%61%2Fb", &["/a%2Fb", "/a/b"]),
            ("/a%2fb", &["/a/b"]),
            ("/a%252fb", &["/a%2Fb", "/a/b"]),
            ("/a%5cb", &["/a/b"]),
            ("/a\\b", &["/a/b"]),
            ("//a", &["/a"]),
            ("/x/../a", &["/a"]),
            ("/x/%2e%2e/a", &["/x/../a", "/a"]),
            ("/x/..;v=1/a", &["/x/../a", "/a"]),
            ("/a;v=1/b", &["/a/b"]),
            ("/a%3fb", &["/a"]),
            ("/x/%c0%ae%c0%ae%c0%afa", &["/x/../a", "/a"]),
        ];
        for (path, others) in table {
            let readings = read(path).unwrap();
            for other in others {
                assert!(
                    readings.iter().any(|r| r == other),
                    "{path}: {other} not in {readings:?}"
                );
            }
            if others.is_empty() {
                assert_eq!(readings.len(), 1, "{path}: {readings:?}");
            }
        }
    }

    #[test]
    fn what_no_server_may_guess_at_is_refused() {
        let table = [
            ("/..", Ambiguity::AboveRoot),
            ("/a/../../b", Ambiguity::AboveRoot),
            ("/%2e%2e/b", Ambiguity::AboveRoot),
            ("/%252e%252e/b", Ambiguity::AboveRoot),
            ("/..%2fb", Ambiguity::AboveRoot),
            ("/..\\b", Ambiguity::AboveRoot),
            ("/..;x/b", Ambiguity::AboveRoot),
            ("/a//../../b", Ambiguity::AboveRoot),
            ("/%", Ambiguity::BadEncoding),
            ("/%4", Ambiguity::BadEncoding),
            ("/%zz", Ambiguity::BadEncoding),
            ("/%u002e", Ambiguity::BadEncoding),
            ("/a%00b", Ambiguity::Nul),
            ("/a%2500b", Ambiguity::Nul),
            ("/a%c0%80b", Ambiguity::Nul),
        ];
        for (path, ambiguity) in table {
            assert_eq!(read(path), Err(ambiguity), "{path}");
        }
    }

    #[test]
    fn the_number_and_size_of_readings_are_bounded() {
        let layers = format!("/a%{}41", "25".repeat(MAX_READINGS + 2));
        assert_eq!(read(&layers), Err(Ambiguity::TooManyReadings));
        let long = format!("/{}%2f", "a/".repeat(MAX_READING_BYTES / 3));
        assert_eq!(read(&long), Err(Ambiguity::TooManyReadings));
    }

    #[test]
    fn what_is_typed_in_the_configuration_is_compared_in_the_same_form() {
        let table = [
            ("caf%c3%a9", "caf%C3%A9"),
            ("café", "caf%C3%A9"),
            ("my files", "my%20files"),
            ("%61dmin", "admin"),
            ("100%", "100%25"),
        ];
        for (typed, canonical) in table {
            assert_eq!(canonical_literal(typed), canonical.as_bytes(), "{typed}");
        }
    }
}
