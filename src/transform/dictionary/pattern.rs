//! The URL patterns of RFC 9842 §2.1.1, as far as they are used for versions of assets: literal characters, `*`, and `:name` for a
//! segment of a path. A pattern with anything else is not understood, and its dictionary not used: regular expressions must not be there
//! anyway, and groups and repetitions are hardly needed.

use crate::key::KeyUri;

/// Bytes of the longest pattern: matching takes that times the length of a target.
const MAX_LENGTH: usize = 1024;

/// What targets of the same origin have to look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    path: Vec<Piece>,
    /// `None`: any query, or none.
    query: Option<Vec<Piece>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(Vec<u8>),
    /// Anything, or nothing.
    Anything,
    /// One character or more, but no `/`.
    Segment,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Path,
    Query,
}

impl Pattern {
    /// Reads what the response for `base` says. `None`: it is for another origin, or has something in it that is not understood.
    pub fn parse(pattern: &str, base: KeyUri<'_>) -> Option<Self> {
        if pattern.is_empty() || pattern.len() > MAX_LENGTH || !pattern.bytes().all(|b| b.is_ascii_graphic()) {
            return None;
        }
        let pattern = match pattern.split_once("://") {
            Some((scheme, rest)) if scheme.bytes().all(|b| b.is_ascii_alphanumeric()) => {
                let end = rest.find(['/', '?']).unwrap_or(rest.len());
                let (authority, rest) = rest.split_at(end);
                if scheme != base.scheme || !authority.eq_ignore_ascii_case(base.authority) {
                    return None;
                }
                match rest.starts_with('/') {
                    true => rest.to_owned(),
                    false => format!("/{rest}"),
                }
            }
            _ => pattern.to_owned(),
        };
        let (path, query) = pieces(&pattern)?;
        let path = match (path.first(), query.is_some()) {
            // A query alone is one of the same path.
            (None, true) => vec![Piece::Literal(base.path.as_bytes().to_vec())],
            (Some(Piece::Literal(first)), _) if first.starts_with(b"/") => path,
            _ => {
                let directory = base.path.rfind('/').map_or("/", |at| base.path.split_at(at + 1).0);
                let mut all = vec![Piece::Literal(directory.as_bytes().to_vec())];
                all.extend(path);
                all
            }
        };
        Some(Self { path, query })
    }

    /// `target`: path and query in normal form.
    pub fn matches(&self, target: &str) -> bool {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, query),
            None => (target, ""),
        };
        matches(&self.path, path.as_bytes())
            && self
                .query
                .as_ref()
                .is_none_or(|pieces| matches(pieces, query.as_bytes()))
    }
}

type Pieces = Vec<Piece>;

/// Path and query of a pattern.
fn pieces(pattern: &str) -> Option<(Pieces, Option<Pieces>)> {
    let (mut path, mut query) = (Vec::new(), None);
    let mut part = Part::Path;
    // A `?`, `+` or `*` behind one of these would say how often it comes.
    let mut behind_wild = false;
    let mut rest = pattern.bytes().peekable();
    while let Some(byte) = rest.next() {
        let current = match part {
            Part::Path => &mut path,
            Part::Query => query.get_or_insert_default(),
        };
        match byte {
            b'(' | b')' | b'{' | b'}' | b'#' => return None,
            b'?' | b'+' | b'*' if behind_wild => return None,
            b'*' => {
                current.push(Piece::Anything);
                behind_wild = true;
                continue;
            }
            b':' if rest
                .peek()
                .is_some_and(|b| b.is_ascii_alphabetic() || matches!(b, b'_' | b'$')) =>
            {
                if part == Part::Query {
                    return None;
                }
                while rest
                    .next_if(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$'))
                    .is_some()
                {}
                current.push(Piece::Segment);
                behind_wild = true;
                continue;
            }
            b'?' if part == Part::Path => {
                part = Part::Query;
                query = Some(Vec::new());
            }
            b'?' => return None,
            b'\\' => push(current, rest.next()?),
            byte => push(current, byte),
        }
        behind_wild = false;
    }
    Some((path, query))
}

fn push(pieces: &mut Pieces, byte: u8) {
    match pieces.last_mut() {
        Some(Piece::Literal(literal)) => literal.push(byte),
        _ => pieces.push(Piece::Literal(vec![byte])),
    }
}

/// Follows all places that can be reached at once, so that no pattern takes longer than its length times that of the text.
fn matches(pieces: &[Piece], text: &[u8]) -> bool {
    let mut reached = vec![false; text.len() + 1];
    if let Some(first) = reached.first_mut() {
        *first = true;
    }
    for piece in pieces {
        let mut next = vec![false; text.len() + 1];
        match piece {
            Piece::Literal(literal) => {
                for (at, _) in reached.iter().enumerate().filter(|(_, reached)| **reached) {
                    if text.get(at..).is_some_and(|rest| rest.starts_with(literal))
                        && let Some(place) = next.get_mut(at + literal.len())
                    {
                        *place = true;
                    }
                }
            }
            Piece::Anything => {
                let mut any = false;
                for (from, to) in reached.iter().zip(&mut next) {
                    any |= *from;
                    *to = any;
                }
            }
            Piece::Segment => {
                // Whether some place is reached from which nothing but a segment leads here.
                let mut inside = false;
                for ((from, byte), to) in reached.iter().zip(text).zip(next.iter_mut().skip(1)) {
                    inside = (inside || *from) && *byte != b'/';
                    *to = inside;
                }
            }
        }
        reached = next;
    }
    reached.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BASE: KeyUri<'static> = KeyUri {
        scheme: "https",
        authority: "example.org:8443",
        path: "/js/app.v1.js",
        query: Some("x=1"),
    };

    #[test]
    fn patterns_match_what_url_pattern_does() {
        for (pattern, target, expected) in [
            ("/js/app.v1.js", "/js/app.v1.js", true),
            ("/js/app.v1.js", "/js/app.v1.js?any", true),
            ("/js/app.*.js", "/js/app.v22.js", true),
            ("/js/app.*.js", "/js/app..js", true),
            ("/js/app.*.js", "/js/deep/app.1.js", false),
            ("/js/*", "/js/deep/app.1.js", true),
            ("/*", "/", true),
            ("*", "/js/x", true),
            ("*", "/css/x", false),
            ("app.*.js", "/js/app.2.js", true),
            ("/:v/app.js", "/v1/app.js", true),
            ("/:v/app.js", "/v1/v2/app.js", false),
            ("/:v/app.js", "//app.js", false),
            ("/a:1", "/a:1", true),
            ("/a?b=1", "/a?b=1", true),
            ("/a?b=1", "/a", false),
            ("/a?b=*", "/a?b=7&c=8", true),
            ("/a\\?b", "/a?b", false),
            ("/a\\*b", "/a*b", true),
            ("?v=*", "/js/app.v1.js?v=2", true),
            ("?v=*", "/js/app.v2.js?v=2", false),
            ("https://example.org:8443/js/*", "/js/a", true),
            ("https://EXAMPLE.org:8443", "/", true),
            ("/JS/*", "/js/a", false),
            ("/to?u=https://*", "/to?u=https://a", true),
            ("/a*b*c", "/aXbYbZc", true),
            ("/a*b*c", "/aXbYbZcd", false),
        ] {
            let parsed = Pattern::parse(pattern, BASE).unwrap_or_else(|| panic!("{pattern}"));
            assert_eq!(parsed.matches(target), expected, "{pattern} {target}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for pattern in [
            "",
            "/js/(\\d+)",
            "/js/{a}?",
            "/js/*?",
            "/js/**",
            "/js/:v+",
            "/a?b?c",
            "/a?:b",
            "/a#b",
            "/a\\",
            "/ä",
            "/a b",
            "http://example.org:8443/js/*",
            "https://example.org/js/*",
            "https://*/js/*",
        ] {
            assert_eq!(Pattern::parse(pattern, BASE), None, "{pattern}");
        }
        assert_eq!(Pattern::parse(&"a".repeat(MAX_LENGTH + 1), BASE), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read(pattern in "[ -~]{0,60}", target in "/[a-c/*?]{0,30}") {
            if let Some(pattern) = Pattern::parse(&pattern, BASE) {
                pattern.matches(&target);
            }
        }

        #[test]
        fn what_stands_for_itself_matches_itself(path in "/[a-z0-9/.-]{0,40}") {
            prop_assert!(Pattern::parse(&path, BASE).unwrap().matches(&path));
            prop_assert!(Pattern::parse("/*", BASE).unwrap().matches(&path));
        }
    }
}
