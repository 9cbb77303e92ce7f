//! `GET /`: the dashboard. One page with all that it needs; it shows nothing that the endpoints do not tell it.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use ring::digest::{SHA256, digest};

use super::answer::Answer;

const PAGE: &str = include_str!("page.html");

/// Exactly the page's own script and style run, and they reach nobody but this listener.
static POLICY: LazyLock<Option<HeaderValue>> = LazyLock::new(|| {
    let (script, style) = (inside(PAGE, "script")?, inside(PAGE, "style")?);
    let policy = format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        source(script),
        source(style)
    );
    HeaderValue::from_str(&policy).ok()
});

pub fn page() -> Answer {
    // Without a policy nothing would be allowed to run.
    let nothing = || HeaderValue::from_static("default-src 'none'");
    Answer::page(PAGE, POLICY.clone().unwrap_or_else(nothing))
}

/// What stands between the tags of the one element of that name.
fn inside<'a>(page: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = page.split_once(&format!("<{name}>"))?;
    Some(rest.split_once(&format!("</{name}>"))?.0)
}

/// A `hash-source` (Content Security Policy Level 3 §2.3.1).
fn source(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(digest(&SHA256, text.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_needs_nothing_from_elsewhere_and_its_policy_lets_nothing_else_run() {
        assert!(POLICY.is_some());
        for name in ["script", "style"] {
            assert_eq!(PAGE.matches(&format!("<{name}")).count(), 1, "{name}");
        }
        // What a policy with hashes does not let through, and what would leave the listener.
        for forbidden in [
            "src=",
            "style=",
            "onclick",
            "onload",
            "http-equiv",
            "innerHTML",
            "@import",
            "url(",
            "eval(",
        ] {
            assert!(!PAGE.contains(forbidden), "{forbidden}");
        }
        let links = PAGE.matches("https://").count() + PAGE.matches("http://").count();
        // The namespace of SVG, and the placeholders of two fields.
        assert_eq!(links, 3);
    }

    #[test]
    fn a_hash_source_is_as_the_standard_says() {
        assert_eq!(
            source("alert('Hello, world.');"),
            "sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng="
        );
    }
}
