//! What is wrong with a configuration, in one line each: `path:line:column: key: what, got "x" (cure)`.

use std::fmt;

/// Everything that was found, in the order of the file. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    /// Sorts by position and drops repetitions.
    pub fn new(mut diagnostics: Vec<Diagnostic>) -> Self {
        in_file_order(&mut diagnostics);
        Self(diagnostics)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.0.iter()
    }
}

/// Sorts by position and drops repetitions.
pub fn in_file_order(diagnostics: &mut Vec<Diagnostic>) {
    diagnostics.sort_by_key(|diagnostic| diagnostic.position);
    diagnostics.dedup();
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self(vec![diagnostic])
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{diagnostic}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// One error or warning. No text in it comes from an environment variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file as it was named, or the command-line flag.
    pub source: String,
    /// `None`: it concerns the source as a whole.
    pub position: Option<Position>,
    /// `routes[2].cache.ttl`; empty: it concerns no key.
    pub key: String,
    pub what: String,
    /// The value as it stands in the file, quoted; `None`: it says nothing or is secret.
    pub got: Option<String>,
    /// What to do about it; empty where `what` says it.
    pub cure: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)?;
        if let Some(position) = self.position {
            write!(f, ":{position}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.what)?;
        if let Some(got) = &self.got {
            write!(f, ", got {got}")?;
        }
        if !self.cure.is_empty() {
            write!(f, " ({})", self.cure)?;
        }
        Ok(())
    }
}

/// Where something stands in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// The way from the root of the file to a key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyPath(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Key(String),
    Index(usize),
}

impl KeyPath {
    pub fn root() -> Self {
        Self::default()
    }

    pub fn from_steps(steps: Vec<Step>) -> Self {
        Self(steps)
    }

    pub fn key(&self, key: &str) -> Self {
        self.with(Step::Key(key.to_owned()))
    }

    pub fn index(&self, index: usize) -> Self {
        self.with(Step::Index(index))
    }

    fn with(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }

    pub fn steps(&self) -> &[Step] {
        &self.0
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (depth, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) => {
                    if depth > 0 {
                        f.write_str(".")?;
                    }
                    match is_bare(key) {
                        true => f.write_str(key)?,
                        false => write!(f, "{key:?}")?,
                    }
                }
            }
        }
        Ok(())
    }
}

fn is_bare(key: &str) -> bool {
    !key.is_empty()
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

/// Why a scalar cannot be what it has to be, without the value itself: who reports it knows whether that may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// Reads on from the key: `must be …`.
    pub what: String,
    pub cure: Cure,
}

/// What to do about something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cure {
    /// Empty where there is nothing to say.
    General(String),
    /// Has the value in it, or a part of it: not for values that may be secret.
    Rewritten(String),
}

impl Complaint {
    pub fn new(what: impl Into<String>, cure: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            cure: Cure::General(cure.into()),
        }
    }

    /// The cure is the value, corrected.
    pub fn rewritten(what: impl Into<String>, cure: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            cure: Cure::Rewritten(cure.into()),
        }
    }
}

/// The known word that was probably meant.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Beyond a third of its letters a word is another word.
    let limit = (word.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn distance(word: &str, candidate: &str) -> usize {
    let word = word.to_ascii_lowercase().replace('-', "_");
    strsim::damerau_levenshtein(&word, candidate)
}

/// `a`, `a or b`, `a, b or c`.
pub fn alternatives<S: AsRef<str>>(words: &[S]) -> String {
    match words {
        [] => String::new(),
        [only] => only.as_ref().to_owned(),
        [first @ .., last] => {
            let first: Vec<&str> = first.iter().map(AsRef::as_ref).collect();
            format!("{} or {}", first.join(", "), last.as_ref())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagnostic_is_one_line_with_everything_that_is_known() {
        let full = Diagnostic {
            source: "conf/forebay.yaml".into(),
            position: Some(Position { line: 14, column: 9 }),
            key: "routes[2].cache.ttl".into(),
            what: "must be greater than 0".into(),
            got: Some("\"0s\"".into()),
            cure: "remove it to follow the origin".into(),
        };
        assert_eq!(
            full.to_string(),
            "conf/forebay.yaml:14:9: routes[2].cache.ttl: must be greater than 0, got \"0s\" \
             (remove it to follow the origin)"
        );
        let bare = Diagnostic {
            position: None,
            key: String::new(),
            got: None,
            cure: String::new(),
            ..full
        };
        assert_eq!(bare.to_string(), "conf/forebay.yaml: must be greater than 0");
    }

    #[test]
    fn key_paths_read_like_the_file() {
        let path = KeyPath::root().key("routes").index(2).key("match").key("a.b");
        assert_eq!(path.to_string(), "routes[2].match.\"a.b\"");
    }

    #[test]
    fn nearest_finds_typing_errors_only() {
        let known = ["upstream", "upstreams", "listen", "listeners"];
        for (word, expected) in [
            ("upstraem", Some("upstream")),
            ("Listeners", Some("listeners")),
            ("listner", Some("listen")),
            ("bananas", None),
            ("x", None),
        ] {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
    }
}
