//! What a successful unsafe request makes worthless (RFC 9111 §4.4).

use http::Method;

use crate::key::{normalise_authority, normalise_target};
use crate::message::{RequestHead, ResponseHead, Scheme};

/// A URI by the parts that tell stored responses apart, in normal form; without a fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceUri {
    pub scheme: Scheme,
    /// Lower case, without the scheme's default port.
    pub authority: String,
    /// Path and query.
    pub target: String,
}

impl ResourceUri {
    /// The target URI of a request (RFC 9110 §7.1).
    pub fn of(request: &RequestHead) -> Self {
        Self {
            scheme: request.scheme,
            authority: normalise_authority(request.scheme, &request.authority).into_owned(),
            target: normalise_target(&request.target).into_owned(),
        }
    }
}

/// Whether a method is safe (RFC 9110 §9.2.1): one that is not registered so is not. The names of WebDAV (RFC 4918 §9.1, RFC 3253
/// §3.6, RFC 5323 §2) and QUERY are.
pub fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
        || matches!(method.as_str(), "PROPFIND" | "QUERY" | "REPORT" | "SEARCH")
}

/// The URIs whose stored responses, all variants of them, are invalid after this response: the target's, and those that
/// `Location` and `Content-Location` name on the same origin. Empty for safe methods and for errors.
pub fn invalidated(request: &RequestHead, response: &ResponseHead) -> Vec<ResourceUri> {
    // RFC 9111 §4.4: a non-error status is 2xx or 3xx.
    if is_safe(&request.method) || !(200..400).contains(&response.status) {
        return Vec::new();
    }
    let target = ResourceUri::of(request);
    let mut uris = vec![target];
    for name in ["location", "content-location"] {
        for reference in response.fields.get_all(name) {
            let Some(uri) = resolve(request, reference) else {
                continue;
            };
            // Another origin's are not ours to judge.
            let same_origin = uris
                .first()
                .is_some_and(|target| uri.scheme == target.scheme && uri.authority == target.authority);
            if same_origin && !uris.contains(&uri) {
                uris.push(uri);
            }
        }
    }
    uris
}

/// Resolves a URI reference against a request's target (RFC 3986 §5.2). `None`: no HTTP URI, or not ASCII.
pub fn resolve(request: &RequestHead, reference: &[u8]) -> Option<ResourceUri> {
    let reference = std::str::from_utf8(reference).ok()?.trim();
    if !reference.is_ascii() || reference.bytes().any(|b| b <= b' ' || b == 0x7f) {
        return None;
    }
    let reference = reference.split('#').next().unwrap_or_default();
    let (scheme, rest) = split_scheme(request.scheme, reference)?;
    if let Some(rest) = rest.strip_prefix("//") {
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        // Userinfo stays, so that a reference with it is no one's origin (RFC 9110 §4.2.4).
        if authority.is_empty() {
            return None;
        }
        return Some(uri(scheme, authority, &without_dots(path)));
    }
    if rest.len() != reference.len() {
        // A scheme without an authority is no HTTP URI (RFC 9110 §4.2.1).
        return None;
    }
    let base = request.path();
    let target = if reference.is_empty() {
        request.target.to_string()
    } else if reference.starts_with('?') {
        format!("{base}{reference}")
    } else if reference.starts_with('/') {
        without_dots(reference)
    } else {
        let folder = base.rfind('/').map_or("", |slash| &base[..slash]);
        without_dots(&format!("{folder}/{reference}"))
    };
    Some(uri(request.scheme, &request.authority, &target))
}

/// The scheme of a reference and what follows it; the base's where it has none.
fn split_scheme(base: Scheme, reference: &str) -> Option<(Scheme, &str)> {
    let end = reference.find([':', '/', '?']).unwrap_or(reference.len());
    let (name, rest) = reference.split_at(end);
    match rest.strip_prefix(':') {
        Some(rest) if name.eq_ignore_ascii_case("http") => Some((Scheme::Http, rest)),
        Some(rest) if name.eq_ignore_ascii_case("https") => Some((Scheme::Https, rest)),
        Some(_) => None,
        None => Some((base, reference)),
    }
}

fn uri(scheme: Scheme, authority: &str, target: &str) -> ResourceUri {
    let target = if target.starts_with('/') || target == "*" {
        normalise_target(target).into_owned()
    } else {
        normalise_target(&format!("/{target}")).into_owned()
    };
    ResourceUri {
        scheme,
        authority: normalise_authority(scheme, authority).into_owned(),
        target,
    }
}

/// Removes dot segments from the path (RFC 3986 §5.2.4), as every client does that follows the reference.
fn without_dots(target: &str) -> String {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let mut segments: Vec<&str> = Vec::new();
    let mut folder = false;
    for segment in path.split('/').skip(1) {
        folder = matches!(segment, "." | "..");
        match segment {
            "." => {}
            ".." => {
                segments.pop();
            }
            _ => segments.push(segment),
        }
    }
    let mut out = String::with_capacity(target.len());
    for segment in &segments {
        out.push('/');
        out.push_str(segment);
    }
    if folder || out.is_empty() {
        out.push('/');
    }
    if let Some(query) = query {
        out.push('?');
        out.push_str(query);
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rfc9111::tests::{request, response};

    #[test]
    fn rfc9111_4_4_unsafe_and_unknown_methods_invalidate_unless_they_fail() {
        let cases = [
            ("POST", 200, true),
            ("PUT", 204, true),
            ("DELETE", 303, true),
            ("PATCH", 200, true),
            ("M-SEARCH", 200, true),
            ("POST", 500, false),
            ("POST", 404, false),
            ("GET", 200, false),
            ("HEAD", 200, false),
            ("PROPFIND", 207, false),
            ("REPORT", 200, false),
            ("SEARCH", 200, false),
            ("PROPPATCH", 207, true),
            ("OPTIONS", 200, false),
            ("TRACE", 200, false),
            ("QUERY", 200, false),
        ];
        for (method, status, expected) in cases {
            let found = invalidated(&request(method, "/a", &[]), &response(status, &[]));
            assert_eq!(!found.is_empty(), expected, "{method} {status}");
        }
    }

    #[test]
    fn rfc9111_4_4_locations_of_the_same_origin_are_invalidated_too() {
        let request = request("POST", "/dir/page?q=1", &[]);
        let cases: &[(&str, Option<&str>)] = &[
            ("/other", Some("/other")),
            ("location_target", Some("/dir/location_target")),
            ("../up", Some("/up")),
            ("./here/", Some("/dir/here/")),
            ("..", Some("/")),
            ("?q=2", Some("/dir/page?q=2")),
            ("/a/b/../../../c?x=/../y#fragment", Some("/c?x=/../y")),
            ("http://EXAMPLE.org:80/x", Some("/x")),
            ("http://example.org", Some("/")),
            ("http://example.org?x", Some("/?x")),
            ("//example.org/x", Some("/x")),
            ("HTTP://example.org/%7euser/%2f", Some("/~user/%2F")),
            ("http://example.org:8080/x", None),
            ("https://example.org/x", None),
            ("http://evil.example/x", None),
            ("http://user@example.org/x", None),
            ("http:/x", None),
            ("mailto:a@example.org", None),
            ("/a b", None),
        ];
        for (reference, expected) in cases {
            for field in ["Location", "Content-Location"] {
                let uris = invalidated(&request, &response(201, &[(field, reference)]));
                let other = uris.get(1).map(|uri| uri.target.as_str());
                assert_eq!(other, *expected, "{field}: {reference}");
            }
        }
    }

    #[test]
    fn a_reference_to_the_target_itself_is_named_once() {
        let request = request("POST", "/dir/page?q=1", &[]);
        for reference in ["", "#top", "page?q=1", "/dir/page?q=1"] {
            let uris = invalidated(&request, &response(200, &[("Content-Location", reference)]));
            assert_eq!(uris, [ResourceUri::of(&request)], "{reference:?}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_references_never_panic(reference in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Some(uri) = resolve(&request("POST", "/dir/page?q=1", &[]), &reference) {
                prop_assert!(uri.target.starts_with('/'));
            }
        }
    }
}
