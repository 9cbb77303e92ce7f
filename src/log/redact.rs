//! What must not be read in a log: secrets in query parameters, and user names and passwords in URLs.
//!
//! The log errs on the side of silence: a harmless value that looks like a secret costs its reader a word.

use std::borrow::Cow;

/// Stands for what was taken out.
const REDACTED: &[u8] = b"***";

/// Parameter names whose values are secret; in lower case, without anything but letters and digits.
const SECRET_NAMES: &[&str] = &[
    "appsecretproof",
    "assertion",
    "auth",
    "authcode",
    "authorizationcode",
    "clientassertion",
    "code",
    "codeverifier",
    "csrf",
    "devicecode",
    "hmac",
    "key",
    "oauthverifier",
    "otp",
    "pass",
    "pin",
    "samlrequest",
    "samlresponse",
    "session",
    "sid",
    "sig",
    "subscriptionkey",
    "ticket",
    "usercode",
    "xsrf",
];

/// The same for names that end so: `access_token`, `X-Amz-Signature`, `user[password]`.
const SECRET_ENDINGS: &[&str] = &[
    "accesskey",
    "accesskeyid",
    "apikey",
    "authorization",
    "credential",
    "credentials",
    "jwt",
    "passphrase",
    "passwd",
    "password",
    "privatekey",
    "pwd",
    "secret",
    "secretkey",
    "sessid",
    "sessionid",
    "signature",
    "token",
];

/// Percent-encodings are undone as often to look for secrets within a value: a URL in a URL's query in a URL's query.
const NESTING: u8 = 3;

/// As [`url`], for text.
pub(crate) fn url_text(raw: &str) -> String {
    String::from_utf8_lossy(&url(raw.as_bytes())).into_owned()
}

/// A request target or any other URL, without its secrets.
pub(super) fn url(raw: &[u8]) -> Cow<'_, [u8]> {
    let raw = without_userinfo(raw);
    let has_secret = parts(&raw).any(|part| secret(part.bytes).is_some());
    match has_secret {
        true => Cow::Owned(redacted(&raw)),
        false => raw,
    }
}

fn redacted(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len() + REDACTED.len());
    for part in parts(raw) {
        match secret(part.bytes) {
            Some(value) => {
                out.extend_from_slice(&part.bytes[..value]);
                out.extend_from_slice(REDACTED);
            }
            None => out.extend_from_slice(part.bytes),
        }
        out.extend(part.delimiter);
    }
    out
}

/// What stands between two delimiters: a path segment, a parameter of a path segment, or of the query.
struct Part<'a> {
    bytes: &'a [u8],
    /// `None`: the end.
    delimiter: Option<u8>,
}

fn parts(raw: &[u8]) -> impl Iterator<Item = Part<'_>> {
    let mut rest = Some(raw);
    let mut in_path = true;
    std::iter::from_fn(move || {
        let bytes = rest.take()?;
        let delimiter = |byte: &u8| match byte {
            b'?' | b'#' | b';' => true,
            b'/' => in_path,
            b'&' => !in_path,
            _ => false,
        };
        match bytes.iter().position(delimiter) {
            Some(end) => {
                in_path &= !matches!(bytes[end], b'?' | b'#');
                rest = Some(&bytes[end + 1..]);
                Some(Part {
                    bytes: &bytes[..end],
                    delimiter: Some(bytes[end]),
                })
            }
            None => Some(Part { bytes, delimiter: None }),
        }
    })
}

/// Where the secret of a part begins, if it has one.
fn secret(part: &[u8]) -> Option<usize> {
    match part.iter().position(|byte| *byte == b'=') {
        Some(equals) => {
            let (name, value) = (&part[..equals], &part[equals + 1..]);
            match !value.is_empty() && (is_secret_name(name) || hides_secret(value, NESTING)) {
                true => Some(equals + 1),
                false => None,
            }
        }
        None if hides_secret(part, NESTING) => Some(0),
        None => None,
    }
}

/// Whether there is a secret somewhere within a value: a URL with parameters, or a token that can be told by its looks.
fn hides_secret(value: &[u8], nesting: u8) -> bool {
    let parameters = || value.split(|byte| matches!(byte, b'?' | b'#' | b'&' | b';' | b'/' | b' ' | b','));
    let named = |part: &[u8]| match part.iter().position(|byte| *byte == b'=') {
        Some(equals) => equals + 1 < part.len() && is_secret_name(&part[..equals]),
        None => false,
    };
    is_json_web_token(value) || userinfo(value).is_some() || parameters().any(named) || {
        nesting > 0 && value.contains(&b'%') && hides_secret(&percent_decoded(value), nesting - 1)
    }
}

/// Compact serialisation (RFC 7519 §3.1): the header is a JSON object in base64url, so it begins with `{"`.
fn is_json_web_token(value: &[u8]) -> bool {
    value.starts_with(b"eyJ") && value.contains(&b'.')
}

/// Decides by the whole name and by each member of `user[password]` or `user.password`.
fn is_secret_name(name: &[u8]) -> bool {
    let mut name = Cow::Borrowed(name);
    for _ in 0..NESTING {
        if !name.contains(&b'%') {
            break;
        }
        name = Cow::Owned(percent_decoded(&name));
    }
    let members = name.split(|byte| matches!(byte, b'[' | b']' | b'.'));
    members.chain([&*name]).any(|member| {
        let plain: Vec<u8> = member
            .iter()
            .filter(|b| b.is_ascii_alphanumeric())
            .map(u8::to_ascii_lowercase)
            .collect();
        SECRET_NAMES.iter().any(|secret| plain == secret.as_bytes())
            || SECRET_ENDINGS.iter().any(|ending| plain.ends_with(ending.as_bytes()))
    })
}

/// The URL without the `user:password@` of its authority (RFC 3986 §3.2.1), and of those of URLs within it.
fn without_userinfo(url: &[u8]) -> Cow<'_, [u8]> {
    let mut kept = Vec::new();
    let mut rest = url;
    while let Some((start, end)) = userinfo(rest) {
        kept.extend_from_slice(&rest[..start]);
        rest = &rest[end..];
    }
    match rest.len() == url.len() {
        true => Cow::Borrowed(url),
        false => Cow::Owned([&kept, rest].concat()),
    }
}

/// Where the first `user:password@` begins and ends.
fn userinfo(url: &[u8]) -> Option<(usize, usize)> {
    let mut from = 0;
    loop {
        let start = from + url[from..].windows(2).position(|window| window == b"//")? + 2;
        let ends_authority = |byte: &u8| matches!(byte, b'/' | b'?' | b'#' | b'&' | b'\\');
        let authority = url[start..].split(ends_authority).next().unwrap_or_default();
        // A path may hold empty segments: an authority stands only at the beginning or behind a scheme.
        let is_authority = start == 2 || url[..start].ends_with(b"://");
        match authority.iter().rposition(|byte| *byte == b'@') {
            Some(at) if is_authority => return Some((start, start + at + 1)),
            _ => from = start + authority.len(),
        }
    }
}

/// RFC 3986 §2.1. What is no percent-encoding stays as it is.
fn percent_decoded(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, tail)) = rest.split_first() {
        match (first, tail) {
            (b'%', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                out.push(hex_value(*high) << 4 | hex_value(*low));
                rest = after;
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

/// Of a hexadecimal digit.
fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(raw: &str) -> String {
        String::from_utf8(url(raw.as_bytes()).into_owned()).unwrap()
    }

    #[test]
    fn secrets_are_taken_out() {
        for (raw, expected) in [
            ("/x?token=abc", "/x?token=***"),
            ("/x?a=1&access_token=abc&b=2", "/x?a=1&access_token=***&b=2"),
            ("/x?token=a&token=b", "/x?token=***&token=***"),
            ("/x?TOKEN=abc", "/x?TOKEN=***"),
            ("/x?%74oken=abc", "/x?%74oken=***"),
            ("/x?%2574oken=abc", "/x?%2574oken=***"),
            ("/x?tok%65n=a%3Db", "/x?tok%65n=***"),
            ("/x?token=a=b", "/x?token=***"),
            ("/x?a=1;password=abc", "/x?a=1;password=***"),
            ("/x?user[password]=abc", "/x?user[password]=***"),
            ("/x?user%5Bpassword%5D=abc", "/x?user%5Bpassword%5D=***"),
            ("/x?auth.key=abc", "/x?auth.key=***"),
            (
                "/x?X-Amz-Signature=abc&X-Amz-Date=d",
                "/x?X-Amz-Signature=***&X-Amz-Date=d",
            ),
            ("/x?my-api-key=abc", "/x?my-api-key=***"),
            ("/x;jsessionid=abc/y?z=1", "/x;jsessionid=***/y?z=1"),
            ("/x?next=%2Fcb%3Ftoken%3Dabc", "/x?next=***"),
            ("/x?next=%252Fcb%253Ftoken%253Dabc", "/x?next=***"),
            ("/x?next=/cb?token=abc", "/x?next=/cb?token=***"),
            ("/x?next=https%3A%2F%2Fann%3Apw%40example.org%2F", "/x?next=***"),
            ("/x?t=eyJhbGciOiJub25lIn0.e30.", "/x?t=***"),
            ("/reset/eyJhbGciOiJub25lIn0.e30.c2ln", "/reset/***"),
            ("/x?eyJhbGciOiJub25lIn0.e30.c2ln", "/x?***"),
            ("/x?token%3Dabc", "/x?***"),
            (
                "https://example.org/cb#access_token=abc&x=1",
                "https://example.org/cb#access_token=***&x=1",
            ),
            (
                "https://ann:secret@example.org/x?code=1",
                "https://example.org/x?code=***",
            ),
            ("https://ann:a@b@example.org/", "https://example.org/"),
            ("//ann@example.org/", "//example.org/"),
            (
                "/a//b?next=https://ann:pw@example.org/&x=ftp://bob@h/",
                "/a//b?next=https://example.org/&x=ftp://h/",
            ),
        ] {
            assert_eq!(shown(raw), expected, "{raw}");
        }
    }

    #[test]
    fn every_listed_name_is_secret() {
        for name in [
            "token",
            "access_token",
            "id_token",
            "refresh_token",
            "api_key",
            "apikey",
            "key",
            "secret",
            "client_secret",
            "password",
            "passwd",
            "pwd",
            "auth",
            "authorization",
            "session",
            "sessionid",
            "sid",
            "sig",
            "signature",
            "code",
            "jwt",
            "X-Amz-Signature",
            "X-Amz-Credential",
            "X-Amz-Security-Token",
            "X-Goog-Signature",
            "X-Goog-Credential",
            "PHPSESSID",
            "AWSAccessKeyId",
            "code_verifier",
            "SAMLResponse",
            "X-Api-Key",
        ] {
            assert_eq!(shown(&format!("/?{name}=v")), format!("/?{name}=***"));
        }
    }

    #[test]
    fn the_rest_stays() {
        for raw in [
            "/",
            "*",
            "",
            "?",
            "/x?token",
            "/x?token=",
            "/x?q=token&page=2",
            "/x?zipcode=1&monkey=2&max_tokens=3&passenger=4&design=5",
            "/x?q=100%&r=%zz",
            "/x//y@z",
            "/a//b@c/d",
            "/mail/ann@example.org",
            "/x?next=https%3A%2F%2Fexample.org%2F%40ann",
            "https://example.org/@ann?x=a@b",
        ] {
            assert_eq!(shown(raw), raw);
        }
    }
}
