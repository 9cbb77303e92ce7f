//! Who may ask.
//!
//! A browser on the same machine reaches a loopback listener too, and runs what any page sends it. So a request that a page of
//! another origin could have made is refused before anything else, token or not: by `Host` (a name that was pointed at loopback, DNS
//! rebinding), by `Origin` and `Sec-Fetch-Site` (Fetch Metadata), and by asking for a content type that no form can send.

use std::net::IpAddr;

use http::HeaderMap;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN};
use subtle::ConstantTimeEq as _;

use super::answer::Refusal;
use crate::config::Secret;
use crate::message::split_port;

/// Refuses what a page of another origin could have sent.
pub fn same_origin(headers: &HeaderMap, token: Option<&Secret>) -> Result<(), Refusal> {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next().and_then(|host| host.to_str().ok()), hosts.next()) else {
        return Err(Refusal::Host);
    };
    // Where a token is asked for, a page that does not have it gains nothing by a name.
    if token.is_none() && !is_local_name(host) {
        return Err(Refusal::Host);
    }
    // https://www.w3.org/TR/fetch-metadata/: `none` is what the user typed.
    match headers.get("sec-fetch-site").map(|site| site.as_bytes()) {
        None | Some(b"same-origin" | b"none") => {}
        // Following a link to the page itself does no harm: it shows nothing that its own requests do not bring.
        Some(_) if is_navigation(headers) => {}
        Some(_) => return Err(Refusal::Origin),
    }
    match headers.get(ORIGIN) {
        None => Ok(()),
        Some(origin) => {
            let origin = origin.to_str().unwrap_or_default();
            let authority = origin
                .strip_prefix("http://")
                .or_else(|| origin.strip_prefix("https://"));
            match authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host)) {
                true => Ok(()),
                false => Err(Refusal::Origin),
            }
        }
    }
}

fn is_navigation(headers: &HeaderMap) -> bool {
    let is = |name: &str, value: &[u8]| headers.get(name).is_some_and(|field| field.as_bytes() == value);
    is("sec-fetch-mode", b"navigate") && is("sec-fetch-dest", b"document")
}

/// An address, or the one name that always means this machine (RFC 6761 §6.3).
fn is_local_name(host: &str) -> bool {
    let (name, port) = split_port(host);
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return false;
    }
    let literal = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || literal.parse::<IpAddr>().is_ok()
}

/// Refuses who does not have the token (RFC 6750 §2.1).
pub fn authorized(headers: &HeaderMap, token: Option<&Secret>) -> Result<(), Refusal> {
    let Some(token) = token else {
        return Ok(());
    };
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let (Some(field), None) = (fields.next(), fields.next()) else {
        return Err(Refusal::Token);
    };
    // RFC 9110 §11.1: the scheme has no case.
    let given = match field.as_bytes().split_at_checked(7) {
        Some((scheme, given)) if scheme.eq_ignore_ascii_case(b"bearer ") => given.trim_ascii(),
        _ => return Err(Refusal::Token),
    };
    // Its length is no secret: how it is made is documented.
    match bool::from(given.ct_eq(token.reveal().as_bytes())) {
        true => Ok(()),
        false => Err(Refusal::Token),
    }
}

/// Refuses a body that a form could have sent.
pub fn json(headers: &HeaderMap) -> Result<(), Refusal> {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = media_type.and_then(|text| text.split(';').next()).unwrap_or_default();
    match essence.trim().eq_ignore_ascii_case("application/json") {
        true => Ok(()),
        false => Err(Refusal::MediaType),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = fields
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        pairs
            .collect::<Vec<_>>()
            .into_iter()
            .fold(HeaderMap::new(), |mut map, (name, value)| {
                map.append::<http::HeaderName>(name, value);
                map
            })
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        let secret = Secret::new("0123456789abcdef");
        type Case = (&'static [(&'static str, &'static str)], bool, bool);
        let table: [Case; 14] = [
            (&[("host", "127.0.0.1:9191")], true, true),
            (&[("host", "[::1]:9191")], true, true),
            (&[("host", "localhost:9191")], true, true),
            (&[("host", "LOCALHOST")], true, true),
            (&[("host", "evil.example:9191")], false, true),
            (&[("host", "127.0.0.1.evil.example")], false, true),
            (&[("host", "localhost:x")], false, true),
            (&[], false, false),
            (&[("host", "localhost"), ("host", "localhost")], false, false),
            (&[("host", "localhost:1"), ("origin", "http://localhost:1")], true, true),
            (
                &[("host", "localhost:1"), ("origin", "http://localhost:2")],
                false,
                false,
            ),
            (&[("host", "localhost:1"), ("origin", "null")], false, false),
            (
                &[("host", "localhost:1"), ("sec-fetch-site", "same-site")],
                false,
                false,
            ),
            (&[("host", "localhost:1"), ("sec-fetch-site", "none")], true, true),
        ];
        for (fields, without, with) in table {
            assert_eq!(same_origin(&headers(fields), None).is_ok(), without, "{fields:?}");
            assert_eq!(same_origin(&headers(fields), Some(&secret)).is_ok(), with, "{fields:?}");
        }
    }

    #[test]
    fn only_the_token_lets_in() {
        let secret = Secret::new("0123456789abcdef");
        for (fields, lets_in) in [
            (&[("authorization", "Bearer 0123456789abcdef")][..], true),
            (&[("authorization", "bearer  0123456789abcdef")], true),
            (&[("authorization", "Bearer 0123456789abcdeF")], false),
            (&[("authorization", "Bearer 0123456789abcde")], false),
            (&[("authorization", "Bearer ")], false),
            (&[("authorization", "Basic 0123456789abcdef")], false),
            (&[("authorization", "0123456789abcdef")], false),
            (
                &[
                    ("authorization", "Bearer 0123456789abcdef"),
                    ("authorization", "Bearer x"),
                ],
                false,
            ),
            (&[], false),
        ] {
            assert_eq!(
                authorized(&headers(fields), Some(&secret)).is_ok(),
                lets_in,
                "{fields:?}"
            );
            assert!(authorized(&headers(fields), None).is_ok());
        }
    }
}
