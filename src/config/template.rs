//! Paths with captures, and field values with values of the request in them.

use super::diagnostic::Complaint;
use super::{PathTemplate, Segment, ValuePart, ValueTemplate};

/// Values of the request that every route has.
pub const REQUEST_VALUES: [&str; 5] = ["client_ip", "host", "method", "path", "request_id"];

/// A path has a few segments; more than this are a mistake.
const MAX_SEGMENTS: usize = 64;

impl PathTemplate {
    /// Reads `/users/{id}/posts`.
    ///
    /// # Errors
    /// It is no path in normal form, which no normalised request path would ever match; or a capture has a bad name.
    pub fn parse(text: &str) -> Result<Self, Complaint> {
        let Some(path) = text.strip_prefix('/') else {
            return Err(Complaint::new("must begin with /", ""));
        };
        check_characters(path)?;
        let trailing_slash = path.ends_with('/');
        let mut segments = Vec::new();
        for segment in path.strip_suffix('/').unwrap_or(path).split('/') {
            match segment {
                "" if path.is_empty() => {}
                "" => return Err(Complaint::new("must not have empty segments (//)", "")),
                "." | ".." => return Err(Complaint::new("must not have the segments . or ..", "")),
                _ => segments.push(parse_segment(segment)?),
            }
        }
        if segments.len() > MAX_SEGMENTS {
            return Err(Complaint::new(format!("must have at most {MAX_SEGMENTS} segments"), ""));
        }
        let template = Self {
            text: text.to_owned(),
            segments,
            trailing_slash,
        };
        let names: Vec<&str> = template.captures().collect();
        for (index, name) in names.iter().enumerate() {
            if names[..index].contains(name) {
                return Err(Complaint::new("must not capture two segments under one name", ""));
            }
        }
        Ok(template)
    }

    /// The names of the captures, in order.
    pub fn captures(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Capture(name) => Some(name.as_str()),
            Segment::Literal(_) => None,
        })
    }
}

/// What may stand in a path (RFC 3986 §3.3), beside the braces of captures.
fn check_characters(path: &str) -> Result<(), Complaint> {
    if path.contains(['?', '#']) {
        return Err(Complaint::new("must be a path alone, without query or fragment", ""));
    }
    let bytes = path.as_bytes();
    for (index, byte) in bytes.iter().enumerate() {
        match byte {
            b'%' => match bytes.get(index + 1..index + 3).map(std::str::from_utf8) {
                Some(Ok(digits)) if digits.bytes().all(|b| b.is_ascii_hexdigit()) => {
                    let code = u8::from_str_radix(digits, 16).unwrap_or_default();
                    if is_unreserved(code) {
                        return Err(Complaint::new(
                            "must not percent-encode letters, digits, - . _ or ~",
                            "write the character itself",
                        ));
                    }
                }
                _ => return Err(Complaint::new("must have two hexadecimal digits behind each %", "")),
            },
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => {}
            _ if b"-._~!$&'()*+,;=:@/{}".contains(byte) => {}
            _ => {
                return Err(Complaint::new(
                    "must percent-encode whatever may not stand in a path",
                    "a space is %20",
                ));
            }
        }
    }
    Ok(())
}

/// RFC 3986 §2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn parse_segment(segment: &str) -> Result<Segment, Complaint> {
    if !segment.contains(['{', '}']) {
        return Ok(Segment::Literal(upper_case_encodings(segment)));
    }
    match segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        Some(name) if REQUEST_VALUES.contains(&name) => Err(Complaint::new(
            "must not name a capture like a value of the request",
            format!("other than {}", REQUEST_VALUES.join(", ")),
        )),
        Some(name) if is_capture_name(name) => Ok(Segment::Capture(name.to_owned())),
        Some(_) => Err(Complaint::new(
            "must name captures with small letters, digits and underscores, a letter first",
            "like {user_id}",
        )),
        None => Err(Complaint::new(
            "must have captures that are whole segments",
            "like /users/{id}",
        )),
    }
}

/// Hexadecimal digits of percent-encodings mean the same in either case (RFC 3986 §6.2.2.1).
fn upper_case_encodings(segment: &str) -> String {
    let mut digits = 0;
    let upper = |c: char| {
        if c == '%' {
            digits = 2;
            return c;
        }
        if digits > 0 {
            digits -= 1;
            return c.to_ascii_uppercase();
        }
        c
    };
    segment.chars().map(upper).collect()
}

fn is_capture_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// A `{name}` that stands for nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownValue {
    pub name: String,
}

impl ValueTemplate {
    /// Reads `Bearer of {client_ip}`. Only a word between braces stands for a value; other braces are themselves, as
    /// in JSON, and so is `${word}`, which the file spells `$${word}`.
    ///
    /// # Errors
    /// The first word between braces that is neither a value of the request nor one of `captures`.
    pub fn parse(text: &str, captures: &[&str]) -> Result<Self, UnknownValue> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(start) = rest.find('{') {
            let (before, braced) = rest.split_at(start);
            literal.push_str(before);
            let name = match placeholder(braced) {
                Some(name) if !literal.ends_with('$') => name,
                _ => {
                    literal.push('{');
                    rest = &braced[1..];
                    continue;
                }
            };
            let part = match name {
                "client_ip" => ValuePart::ClientIp,
                "host" => ValuePart::Host,
                "method" => ValuePart::Method,
                "path" => ValuePart::Path,
                "request_id" => ValuePart::RequestId,
                _ if captures.contains(&name) => ValuePart::Capture(name.to_owned()),
                _ => return Err(UnknownValue { name: name.to_owned() }),
            };
            if !literal.is_empty() {
                parts.push(ValuePart::Text(std::mem::take(&mut literal)));
            }
            parts.push(part);
            rest = &braced[name.len() + 2..];
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(ValuePart::Text(literal));
        }
        Ok(Self { parts })
    }
}

/// The word of `{word}…`.
fn placeholder(braced: &str) -> Option<&str> {
    let (name, _) = braced.strip_prefix('{')?.split_once('}')?;
    let is_word = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    is_word.then_some(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn literal(text: &str) -> Segment {
        Segment::Literal(text.to_owned())
    }

    #[test]
    fn path_templates() {
        for (text, segments, trailing_slash) in [
            ("/", vec![], false),
            ("/api", vec![literal("api")], false),
            ("/api/", vec![literal("api")], true),
            (
                "/users/{id}/x",
                vec![literal("users"), Segment::Capture("id".into()), literal("x")],
                false,
            ),
            ("/caf%c3%a9/v1.0", vec![literal("caf%C3%A9"), literal("v1.0")], false),
        ] {
            let expected = PathTemplate {
                text: text.to_owned(),
                segments,
                trailing_slash,
            };
            assert_eq!(PathTemplate::parse(text), Ok(expected), "{text}");
        }
        for (text, what) in [
            ("", "must begin with /"),
            ("api", "must begin with /"),
            ("//", "must not have empty segments (//)"),
            ("/a//b", "must not have empty segments (//)"),
            ("/a/../b", "must not have the segments . or .."),
            ("/a/.", "must not have the segments . or .."),
            ("/a?b", "must be a path alone, without query or fragment"),
            ("/a b", "must percent-encode whatever may not stand in a path"),
            ("/é", "must percent-encode whatever may not stand in a path"),
            ("/a%2", "must have two hexadecimal digits behind each %"),
            ("/a%zz", "must have two hexadecimal digits behind each %"),
            ("/%é", "must have two hexadecimal digits behind each %"),
            ("/%61", "must not percent-encode letters, digits, - . _ or ~"),
            ("/a{id}", "must have captures that are whole segments"),
            (
                "/{a}{b}",
                "must name captures with small letters, digits and underscores, a letter first",
            ),
            (
                "/{}",
                "must name captures with small letters, digits and underscores, a letter first",
            ),
            (
                "/{ID}",
                "must name captures with small letters, digits and underscores, a letter first",
            ),
            ("/{host}", "must not name a capture like a value of the request"),
            ("/{id}/{id}", "must not capture two segments under one name"),
        ] {
            assert_eq!(PathTemplate::parse(text).unwrap_err().what, what, "{text}");
        }
    }

    #[test]
    fn value_templates() {
        let text = |text: &str| ValuePart::Text(text.to_owned());
        for (template, parts) in [
            ("", vec![]),
            ("plain", vec![text("plain")]),
            ("{client_ip}", vec![ValuePart::ClientIp]),
            (
                "a {id}, {host}{path}.",
                vec![
                    text("a "),
                    ValuePart::Capture("id".into()),
                    text(", "),
                    ValuePart::Host,
                    ValuePart::Path,
                    text("."),
                ],
            ),
            ("{\"a\": {}} {", vec![text("{\"a\": {}} {")]),
            ("{{method}}", vec![text("{"), ValuePart::Method, text("}")]),
            ("{request_id}", vec![ValuePart::RequestId]),
            ("${HOST}$", vec![text("${HOST}$")]),
        ] {
            assert_eq!(
                ValueTemplate::parse(template, &["id"]),
                Ok(ValueTemplate { parts }),
                "{template}"
            );
        }
        assert_eq!(
            ValueTemplate::parse("x {nope}", &[]),
            Err(UnknownValue { name: "nope".into() })
        );
        assert_eq!(
            ValueTemplate::parse("{Host}", &[]),
            Err(UnknownValue { name: "Host".into() })
        );
    }

    proptest! {
        #[test]
        fn no_text_is_too_much(text in "[/{}%a-z0-9.é ?]{0,40}") {
            let _ = PathTemplate::parse(&text);
            let _ = ValueTemplate::parse(&text, &["a"]);
        }
    }
}
