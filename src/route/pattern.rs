//! Paths as routes ask for them, ready to be compared, and what their `{name}` segments caught.

use std::borrow::Cow;

use super::reading::{Ambiguity, canonical_literal, is_plain, readings};
use crate::config::{self, PathTemplate};

/// A [`PathTemplate`] whose literals are in canonical form.
#[derive(Debug)]
pub(super) struct Pattern {
    segments: Vec<Segment>,
    trailing_slash: bool,
}

#[derive(Debug)]
enum Segment {
    Literal(Box<[u8]>),
    Capture(Box<str>),
}

impl Pattern {
    pub(super) fn new(template: &PathTemplate) -> Self {
        let segments = segments(template)
            .iter()
            .map(|segment| match segment {
                config::Segment::Literal(text) => Segment::Literal(canonical_literal(text).into()),
                config::Segment::Capture(name) => Segment::Capture(name.as_str().into()),
            })
            .collect();
        Self {
            segments,
            trailing_slash: template.trailing_slash,
        }
    }

    /// What the first segment must be, and the second. `None`: anything.
    pub(super) fn first_literals(&self) -> Option<(&[u8], Option<&[u8]>)> {
        match self.segments.as_slice() {
            [Segment::Literal(first), Segment::Literal(second), ..] => Some((first, Some(second))),
            [Segment::Literal(first), ..] => Some((first, None)),
            [Segment::Capture(_), ..] | [] => None,
        }
    }

    pub(super) fn is_root(&self) -> bool {
        self.segments.is_empty()
    }

    /// Whether it is the whole of `path`.
    pub(super) fn is(&self, path: &[u8]) -> bool {
        match self.behind(path) {
            Some(rest) if self.trailing_slash || self.is_root() => rest == b"/",
            Some(rest) => rest.is_empty(),
            None => false,
        }
    }

    /// Whether `path` begins with it, on a segment border.
    pub(super) fn leads(&self, path: &[u8]) -> bool {
        match self.behind(path) {
            Some(rest) if self.trailing_slash => rest.starts_with(b"/"),
            Some(rest) => rest.is_empty() || rest.starts_with(b"/"),
            None => false,
        }
    }

    /// What stands behind the segments; empty or from the next `/` on.
    fn behind<'a>(&self, path: &'a [u8]) -> Option<&'a [u8]> {
        let mut rest = path;
        for segment in &self.segments {
            rest = rest.strip_prefix(b"/")?;
            match segment {
                Segment::Literal(text) => {
                    rest = rest.strip_prefix(&**text)?;
                    if !matches!(rest.first(), None | Some(b'/')) {
                        return None;
                    }
                }
                Segment::Capture(_) => {
                    let end = rest.iter().position(|b| *b == b'/').unwrap_or(rest.len());
                    let (captured, behind) = rest.split_at(end);
                    if captured.is_empty() {
                        return None;
                    }
                    rest = behind;
                }
            }
        }
        Some(rest)
    }
}

/// A `/` at the end is `trailing_slash`, not an empty segment, however the template was split.
fn segments(template: &PathTemplate) -> &[config::Segment] {
    match template.segments.split_last() {
        Some((config::Segment::Literal(text), before)) if text.is_empty() => before,
        _ => &template.segments,
    }
}

/// The values of a route's `{name}` segments in one path, as received. Found when asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Captures<'a> {
    /// The route's `path` and `path_prefix`.
    patterns: [Option<&'a Pattern>; 2],
    /// The path, perhaps with the query behind it.
    target: &'a str,
}

impl<'a> Captures<'a> {
    /// Of a route without any.
    pub const NONE: Self = Self {
        patterns: [None, None],
        target: "",
    };

    pub(super) fn new(patterns: [Option<&'a Pattern>; 2], target: &'a str) -> Self {
        Self { patterns, target }
    }

    /// The segment that stands where a template has `{name}`, percent-encoding included.
    pub fn value(&self, name: &str) -> Option<&'a str> {
        let is_it = |segment: &Segment| matches!(segment, Segment::Capture(capture) if **capture == *name);
        let mut patterns = self.patterns.iter().flatten();
        let index = patterns.find_map(|pattern| pattern.segments.iter().position(is_it))?;
        let path = self.target.split('?').next()?;
        path.strip_prefix('/')?.split('/').nth(index)
    }
}

/// The target to forward: without the segments of the route's `path_prefix` where the route says `strip_prefix`, otherwise
/// as received. The path that is left is at least `/`; the query stays.
///
/// # Errors
/// Where what is left has `..` segments that climb above its root: such a server could be led out of the prefix.
pub fn strip_prefix<'a>(route: &config::Route, target: &'a str) -> Result<Cow<'a, str>, Ambiguity> {
    let template = match &route.matches.path_prefix {
        Some(template) if route.strip_prefix && target.starts_with('/') => template,
        _ => return Ok(Cow::Borrowed(target)),
    };
    let (path, query) = match target.find('?') {
        Some(at) => target.split_at(at),
        None => (target, ""),
    };
    let mut rest = path;
    for _ in segments(template) {
        let behind = rest.strip_prefix('/').unwrap_or(rest);
        rest = behind.find('/').and_then(|at| behind.get(at..)).unwrap_or_default();
    }
    if !is_plain(rest.as_bytes()) {
        readings(rest.as_bytes())?;
    }
    Ok(if rest.is_empty() {
        Cow::Owned(format!("/{query}"))
    } else {
        Cow::Borrowed(target.get(path.len() - rest.len()..).unwrap_or(target))
    })
}
