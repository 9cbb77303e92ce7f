//! Which responses are compressed.

use super::Recoding;
use crate::config::{Authenticated, Compression, Events, UseDictionaries};
use crate::key::Glob;
use crate::message::Fields;
use crate::transform::events::is_event_stream;
use crate::transform::negotiate::{Accepted, Coding, DictionaryCoding};

/// What is compressed where a route does not list types: text in all its forms, and formats that are not compressed by themselves.
pub const TYPES: [&str; 22] = [
    "text/*",
    "application/json",
    "*+json",
    "application/javascript",
    "application/x-javascript",
    "application/ecmascript",
    "application/xml",
    "*+xml",
    "application/wasm",
    "application/x-ndjson",
    "application/jsonl",
    "application/yaml",
    "application/x-yaml",
    "application/toml",
    "application/rtf",
    "application/sql",
    "application/graphql",
    "application/vnd.ms-fontobject",
    "font/ttf",
    "font/otf",
    "image/bmp",
    "image/vnd.microsoft.icon",
];

/// A client that sends this field gets the response as it is, whatever its value: to find out whether compression is to blame.
const OPT_OUT: &str = "x-no-compression";

/// What can be done with a response's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// It can be compressed.
    Plain,
    /// It is compressed, and can be read here.
    Coded(Coding),
    /// It is sent as it is.
    Fixed,
}

/// Why a response is sent as it is, whoever asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Untouched {
    Status,
    NoTransform,
    /// It has a coding that is not known here, or several.
    Coding,
    NoType,
    Events,
    Size,
    Type,
    Secret,
}

/// Why a request gets a body that could be compressed, or read for it, as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Declined {
    /// It accepts none of the codings, or likes it better without.
    NotAccepted,
    OptOut,
    Range,
    NoTransform,
    Credentials,
    /// It reads the coding in which the body came, or would read no other.
    AsItCame,
}

/// Decides about a response by itself, whoever asked for it. `length`: of its body in bytes, if that is known.
pub fn body(rules: &Compression, status: u16, fields: &Fields, length: Option<u64>) -> Body {
    judge(rules, status, fields, length).unwrap_or(Body::Fixed)
}

/// As [`body`], with the reason for what is [`Body::Fixed`].
///
/// # Errors
/// The reason.
pub fn judge(rules: &Compression, status: u16, fields: &Fields, length: Option<u64>) -> Result<Body, Untouched> {
    // Without a body, or with a part of one: RFC 9110 §15.3.6, §15.3.7, §15.4.5.
    if status < 200 || matches!(status, 204..=206 | 304) || fields.contains("content-range") {
        return Err(Untouched::Status);
    }
    // RFC 9110 §7.7, RFC 9111 §5.2.2.6.
    if fields.has_token("cache-control", "no-transform") {
        return Err(Untouched::NoTransform);
    }
    match body_as_it_came(fields) {
        Body::Plain => {}
        Body::Coded(coding) => return Ok(Body::Coded(coding)),
        Body::Fixed => return Err(Untouched::Coding),
    }
    let Some(content_type) = fields.get("content-type") else {
        return Err(Untouched::NoType);
    };
    if is_event_stream(content_type) {
        if rules.events == Events::Untouched {
            return Err(Untouched::Events);
        }
    } else if length.is_some_and(|length| length < rules.min_size) {
        return Err(Untouched::Size);
    } else if !is_listed(&rules.types, content_type) {
        return Err(Untouched::Type);
    }
    if rules.authenticated != Authenticated::Everything && is_secret(fields) {
        return Err(Untouched::Secret);
    }
    Ok(Body::Plain)
}

/// Whether a body has a coding, and one that can be read here.
pub fn body_as_it_came(fields: &Fields) -> Body {
    // RFC 9110 §8.4.1 has it that nobody writes this, and some do, who are asked for just that.
    let mut codings = fields
        .get_all("content-encoding")
        .map(<[u8]>::trim_ascii)
        .filter(|coding| !coding.eq_ignore_ascii_case(b"identity"));
    match codings.next().map(Coding::parse) {
        None => Body::Plain,
        Some(Some(coding)) if codings.next().is_none() => Body::Coded(coding),
        Some(_) => Body::Fixed,
    }
}

/// What becomes of such a body for this request. `None`: it is sent as it is.
pub fn recoding(rules: &Compression, request: &Fields, body: Body) -> Option<Recoding> {
    wish(rules, request, body).ok()
}

/// As [`recoding`], with the reason for what is sent as it is.
///
/// # Errors
/// The reason.
pub fn wish(rules: &Compression, request: &Fields, body: Body) -> Result<Recoding, Declined> {
    match body {
        Body::Fixed => Err(Declined::AsItCame),
        Body::Plain => match Accepted::of(request).choose(&rules.codings) {
            Some(coding) => willing(rules, request).map(|()| Recoding::To(coding)),
            None => Err(Declined::NotAccepted),
        },
        // RFC 9111 §5.2.1.6.
        Body::Coded(_) if request.has_token("cache-control", "no-transform") => Err(Declined::NoTransform),
        Body::Coded(coding) => {
            let accepted = Accepted::of(request);
            match !accepted.accepts(coding) && accepted.accepts_identity() {
                true => Ok(Recoding::Undone),
                false => Err(Declined::AsItCame),
            }
        }
    }
}

/// The coding with a dictionary, whichever that may be, in which this request could get a body that is [`Body::Plain`]. `None`: none. Nothing
/// that has credentials is ever compressed like that.
pub fn dictionary_coding(rules: &Compression, request: &Fields) -> Option<DictionaryCoding> {
    if rules.dictionaries == UseDictionaries::Never || request.contains("authorization") {
        return None;
    }
    willing(rules, request).ok()?;
    DictionaryCoding::choose(request, &rules.codings)
}

/// Whether this request may get a body that is compressed here.
fn willing(rules: &Compression, request: &Fields) -> Result<(), Declined> {
    if request.contains(OPT_OUT) {
        return Err(Declined::OptOut);
    }
    // Parts are those of the origin's body, so that they fit together (RFC 9110 §14.2).
    if request.contains("range") {
        return Err(Declined::Range);
    }
    // RFC 9111 §5.2.1.6.
    if request.has_token("cache-control", "no-transform") {
        return Err(Declined::NoTransform);
    }
    if rules.authenticated == Authenticated::Nothing && has_credentials(request) {
        return Err(Declined::Credentials);
    }
    Ok(())
}

/// Whether what the response says may be for one client. Who can see how long a compressed response is, and have something of its own put
/// into it, learns the rest bit by bit (BREACH).
pub fn is_secret(fields: &Fields) -> bool {
    let is_private = fields.get_all("cache-control").any(|line| {
        line.split(|b| *b == b',').any(|directive| {
            let name = directive.split(|b| *b == b'=').next().unwrap_or_default();
            name.trim_ascii().eq_ignore_ascii_case(b"private")
        })
    });
    is_private
        || fields.contains("set-cookie")
        || ["cookie", "authorization"]
            .iter()
            .any(|name| fields.has_token("vary", name))
}

fn has_credentials(request: &Fields) -> bool {
    request.contains("cookie") || request.contains("authorization")
}

/// Patterns are in lower case.
fn is_listed(types: &[Glob], content_type: &[u8]) -> bool {
    let essence = content_type.split(|b| *b == b';').next().unwrap_or_default();
    let essence = String::from_utf8_lossy(essence.trim_ascii()).to_ascii_lowercase();
    types.iter().any(|pattern| pattern.matches(&essence))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::fields;

    fn rules() -> Compression {
        Compression::default()
    }

    const JSON: (&str, &str) = ("Content-Type", "application/json; charset=utf-8");

    #[test]
    fn types_are_listed() {
        for (content_type, expected) in [
            ("text/html", Body::Plain),
            ("TEXT/Plain;x=y", Body::Plain),
            ("application/problem+json", Body::Plain),
            ("image/svg+xml", Body::Plain),
            ("application/wasm", Body::Plain),
            ("font/otf", Body::Plain),
            ("font/woff2", Body::Fixed),
            ("image/png", Body::Fixed),
            ("application/octet-stream", Body::Fixed),
            ("application/jsonx", Body::Fixed),
            ("text", Body::Fixed),
            ("", Body::Fixed),
            ("text/event-stream", Body::Fixed),
        ] {
            let fields = fields(&[("Content-Type", content_type)]);
            assert_eq!(body(&rules(), 200, &fields, None), expected, "{content_type}");
        }
        assert_eq!(body(&rules(), 200, &Fields::new(), None), Body::Fixed);
        let events = Compression {
            events: Events::Compressed,
            ..rules()
        };
        let stream = fields(&[("Content-Type", "text/event-stream")]);
        assert_eq!(body(&events, 200, &stream, None), Body::Plain);
    }

    #[test]
    fn size_and_status_count() {
        for (status, length, expected) in [
            (200, Some(1024), Body::Plain),
            (200, Some(1023), Body::Fixed),
            (200, None, Body::Plain),
            (404, Some(5000), Body::Plain),
            (500, Some(5000), Body::Plain),
            (101, None, Body::Fixed),
            (204, None, Body::Fixed),
            (205, Some(0), Body::Fixed),
            (206, Some(5000), Body::Fixed),
            (304, Some(5000), Body::Fixed),
        ] {
            assert_eq!(
                body(&rules(), status, &fields(&[JSON]), length),
                expected,
                "{status} {length:?}"
            );
        }
    }

    #[test]
    fn fields_forbid_it() {
        for (line, expected) in [
            (("Cache-Control", "public, No-Transform"), Body::Fixed),
            (("Content-Range", "bytes 0-1/2"), Body::Fixed),
            (("Content-Encoding", "GZIP"), Body::Coded(Coding::Gzip)),
            (("Content-Encoding", "deflate"), Body::Fixed),
            (("Content-Encoding", "gzip, br"), Body::Fixed),
            (("Content-Encoding", "identity"), Body::Plain),
            (("Cache-Control", "max-age=5, private"), Body::Fixed),
            (("Cache-Control", "private=\"x\""), Body::Fixed),
            (("Set-Cookie", "a=b"), Body::Fixed),
            (("Vary", "Accept, Cookie"), Body::Fixed),
            (("Vary", "Accept"), Body::Plain),
            (("Cache-Control", "no-store"), Body::Plain),
        ] {
            assert_eq!(body(&rules(), 200, &fields(&[JSON, line]), None), expected, "{line:?}");
        }
        let everything = Compression {
            authenticated: Authenticated::Everything,
            ..rules()
        };
        let private = fields(&[JSON, ("Cache-Control", "private"), ("Set-Cookie", "a=b")]);
        assert_eq!(body(&everything, 200, &private, None), Body::Plain);
    }

    #[test]
    fn requests_choose_or_decline() {
        let br = Some(Recoding::To(Coding::Br));
        let gzipped = Body::Coded(Coding::Gzip);
        type Row = (&'static [(&'static str, &'static str)], Body, Option<Recoding>);
        let table: [Row; 11] = [
            (&[("Accept-Encoding", "br")], Body::Plain, br),
            (&[], Body::Plain, None),
            (&[("Accept-Encoding", "br")], Body::Fixed, None),
            (
                &[("Accept-Encoding", "br"), ("X-No-Compression", "")],
                Body::Plain,
                None,
            ),
            (&[("Accept-Encoding", "br"), ("Range", "bytes=0-1")], Body::Plain, None),
            (
                &[("Accept-Encoding", "br"), ("Cache-Control", "no-transform")],
                Body::Plain,
                None,
            ),
            (&[("Accept-Encoding", "br"), ("Cookie", "a=b")], Body::Plain, br),
            (&[("Accept-Encoding", "br")], gzipped, Some(Recoding::Undone)),
            (&[("Accept-Encoding", "br, gzip;q=0.1")], gzipped, None),
            (&[("Accept-Encoding", "identity;q=0")], gzipped, None),
            (&[("Cache-Control", "no-transform")], gzipped, None),
        ];
        for (lines, body, expected) in table {
            assert_eq!(recoding(&rules(), &fields(lines), body), expected, "{lines:?}");
        }
        let careful = Compression {
            authenticated: Authenticated::Nothing,
            ..rules()
        };
        for name in ["Cookie", "Authorization"] {
            let request = fields(&[("Accept-Encoding", "br"), (name, "x")]);
            assert_eq!(recoding(&careful, &request, Body::Plain), None);
        }
    }
}
