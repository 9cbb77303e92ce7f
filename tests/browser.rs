//! Forebay before a real browser: Chromium without a window. Where there is none, these tests say so and do nothing; `make test-browser`
//! installs it.

mod compression;
mod dashboard;

use crate::support::inside::Inside;

/// A listener's URL of a secure context: browsers trust no other plain HTTP.
fn url(proxy: &Inside, target: &str) -> String {
    format!("http://localhost:{}{target}", proxy.address().port())
}
