//! Which fields are stored (RFC 9111 §3.1), and which a 304 updates (§3.2).

use super::script::Kind::{Check, Required};
use super::script::{Case, Source, case, check, fresh, get, required};

/// What a 304 does to a stored field.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Update {
    /// It has to be updated.
    Must,
    /// It is updated.
    Does,
    /// It must not be, for it says what the stored bytes are.
    MustNot,
    /// It is not.
    DoesNot,
    /// It is not even stored.
    NotStored,
}

use Update::{Does, DoesNot, Must, MustNot, NotStored};

const OLD: &str = "old-value";
const NEW: &str = "new-value";

const TABLE: [(&str, &str, &str, Update); 32] = [
    ("Test-Header", OLD, NEW, Must),
    ("X-Test-Header", OLD, NEW, Must),
    ("Content-Foo", OLD, NEW, Must),
    ("X-Content-Foo", OLD, NEW, Must),
    ("Cache-Control", "max-age=1", "max-age=3600", Must),
    ("Connection", OLD, NEW, NotStored),
    // The stored bytes stay encoded as they are.
    ("Content-Encoding", OLD, NEW, DoesNot),
    ("Content-Length", "5", "10", MustNot),
    ("Content-Location", "/foo", "/bar", Does),
    (
        "Content-MD5",
        "rL0Y20zC+Fzt72VPzMSk2A==",
        "N7UdGUp1E+RbVvZSTy1R8g==",
        Does,
    ),
    ("Content-Range", OLD, NEW, DoesNot),
    (
        "Content-Security-Policy",
        "default-src 'self'",
        "default-src 'self' cdn.example.com",
        Does,
    ),
    ("Content-Type", "text/plain", "text/plain;charset=utf-8", Does),
    ("Clear-Site-Data", "cache", "cookies", Does),
    (
        "Expires",
        "Fri, 01 Jan 2038 01:01:01 GMT",
        "Mon, 11 Jan 2038 11:11:11 GMT",
        Does,
    ),
    ("Keep-Alive", OLD, NEW, NotStored),
    ("Proxy-Authenticate", OLD, NEW, NotStored),
    ("Proxy-Authentication-Info", OLD, NEW, NotStored),
    ("Proxy-Authorization", OLD, NEW, NotStored),
    ("Proxy-Connection", OLD, NEW, NotStored),
    ("Public-Key-Pins", OLD, NEW, Does),
    ("Strict-Transport-Security", OLD, NEW, Does),
    ("Strict-Transport-Security2", OLD, NEW, Does),
    ("TE", OLD, NEW, NotStored),
    ("Transfer-Encoding", "chunked", "chunked", NotStored),
    ("Trailer", OLD, NEW, NotStored),
    ("Upgrade", OLD, NEW, NotStored),
    ("WWW-Authenticate", OLD, NEW, Does),
    ("X-Frame-Options", "deny", "sameorigin", Does),
    ("X-XSS-Protection", "1", "1; mode=block", Does),
    ("Cache-Tag", "a", "b", Does),
    ("Cache-Groups", "\"a\"", "\"b\"", Does),
];

pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        required(
            "headers-omit-headers-listed-in-Connection",
            [
                fresh()
                    .mentions("Connection", "a, b")
                    .mentions("a", "1")
                    .mentions("b", "2")
                    .says("c", "3"),
                get().stored().shows("c", "3").hides("a").hides("b"),
            ],
        ),
        required(
            "304-lm-use-stored-Test-Header",
            [
                get()
                    .says("Cache-Control", "max-age=2")
                    .says("Last-Modified", "Wed, 01 Jan 2020 00:00:00 GMT")
                    .says("Date", 0)
                    .says("Test-Header", OLD)
                    .wait(),
                get()
                    .says("Last-Modified", "Wed, 01 Jan 2020 00:00:00 GMT")
                    .says("Date", 0)
                    .from(Source::ConfirmedByDate)
                    .gives(200)
                    .shows("Test-Header", OLD),
            ],
        ),
        // A 304 with a tag that was not asked about is not about what is stored (RFC 9111 §4.3.4): the origin is asked again.
        check(
            "304-etag-update-response-ETag",
            [
                get()
                    .says("Date", 0)
                    .says("ETag", "\"abcdef\"")
                    .says("Cache-Control", "max-age=2")
                    .wait(),
                get()
                    .says("Date", 0)
                    .says("ETag", "\"ghijkl\"")
                    .says("Cache-Control", "max-age=2")
                    .fetched(),
            ],
        ),
        required(
            "headers-store-ETag",
            [
                fresh().says("ETag", "\"ghijkl\""),
                get().stored().shows("ETag", "\"ghijkl\""),
            ],
        ),
    ];
    for name in ["Set-Cookie", "Set-Cookie2"] {
        cases.push(
            required(
                format!("headers-store-{name}"),
                [fresh().says(name, "a=c"), get().fetched()],
            )
            .otherwise(
                "a cookie is for the one client that gets it (RFC 9111 §7.3); a route may say set_cookie: strip",
            ),
        );
    }
    for (name, old, new, update) in TABLE {
        cases.push(stored(name, new, update));
        if update != NotStored {
            cases.push(updated(name, old, new, update));
        }
    }
    cases
}

fn stored(name: &'static str, value: &str, update: Update) -> Case {
    let first = get().says("Date", 0);
    let first = match name {
        "Cache-Control" => first,
        _ => first.says("Cache-Control", "max-age=3600"),
    };
    // The connection's fields end with it.
    let first = match update {
        NotStored => first.mentions(name, value),
        Must | Does | MustNot | DoesNot => first.says(name, value),
    };
    let again = match update {
        NotStored => get().stored().hides(name),
        Must | Does | MustNot | DoesNot => get().stored().shows(name, value),
    };
    let (first, again) = match name {
        "Content-Length" => (first.body("0123456789"), again),
        _ => (first, again),
    };
    required(format!("headers-store-{name}"), [first.wait(), again])
}

fn updated(name: &'static str, old: &str, new: &str, update: Update) -> Case {
    let kind = match update {
        Must | MustNot => Required,
        Does | DoesNot | NotStored => Check,
    };
    let expected = match update {
        Must | Does => new,
        MustNot | DoesNot | NotStored => old,
    };
    let reply = |value: &str| {
        let reply = get().says("Date", 0).says("ETag", "\"tag-1\"").mentions(name, value);
        match name {
            "Cache-Control" => reply,
            _ => reply.says("Cache-Control", "max-age=2"),
        }
    };
    let first = match name {
        "Content-Length" => reply(old).body("01234"),
        _ => reply(old),
    };
    let shown = get().stored().shows(name, expected).any_body();
    case(
        kind,
        format!("304-etag-update-response-{name}"),
        [
            first.wait(),
            reply(new)
                .from(Source::ConfirmedByTag)
                .gives(200)
                .shows(name, expected)
                .any_body(),
            shown,
        ],
    )
}
