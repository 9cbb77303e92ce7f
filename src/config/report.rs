//! Collects what is wrong, and knows where everything stands and what may be shown of it.

use super::diagnostic::{Complaint, Cure, Diagnostic, Diagnostics, KeyPath, Position, Step, in_file_order};
use super::yaml::{Node, Style, Value};

/// Beyond this many errors nobody reads on, and a hostile file would take long.
pub const MAX_ERRORS: usize = 100;
/// Characters of a value that are shown.
const MAX_SHOWN: usize = 64;

#[derive(Debug)]
pub struct Report {
    source: String,
    root: Node,
    errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
}

impl Report {
    pub fn new(source: &str, root: Node) -> Self {
        Self {
            source: source.to_owned(),
            root,
            errors: Vec::new(),
            warnings: Vec::new(),
        }
    }

    pub fn root(&self) -> &Node {
        &self.root
    }

    pub fn root_mut(&mut self) -> &mut Node {
        &mut self.root
    }

    /// The value is wrong; it is shown. Silent where something was reported before.
    pub fn value(&mut self, path: &KeyPath, what: impl Into<String>, cure: impl Into<String>) {
        self.complaint(path, Complaint::new(what, cure));
    }

    /// As [`Self::value`].
    pub fn complaint(&mut self, path: &KeyPath, complaint: Complaint) {
        if self.is_full() {
            return;
        }
        let place = self.root.locate(path);
        if place.is_broken {
            return;
        }
        let (position, got) = match place.node {
            None => (place.key, None),
            Some(node) => match &node.value {
                Value::Scalar(_) => (node.position, shown(path, node)),
                Value::List(items) if items.is_empty() => (place.key, Some("an empty list".to_owned())),
                Value::List(_) => (place.key, Some("a list".to_owned())),
                Value::Map(entries) if entries.is_empty() => (place.key, Some("an empty mapping".to_owned())),
                Value::Map(_) => (place.key, Some("a mapping".to_owned())),
                Value::Broken => (place.key, None),
            },
        };
        let cure = match complaint.cure {
            Cure::Rewritten(_) if got.is_none() || self.is_substituted(path) => String::new(),
            Cure::General(cure) | Cure::Rewritten(cure) => cure,
        };
        self.add_error(position, path, complaint.what, got, cure);
    }

    /// The key itself is wrong or missing. Silent where something was reported before.
    pub fn key(&mut self, path: &KeyPath, what: impl Into<String>, cure: impl Into<String>) {
        if self.is_full() {
            return;
        }
        let place = self.root.locate(path);
        if !place.is_broken {
            self.add_error(place.key, path, what.into(), None, cure.into());
        }
    }

    /// Something at a position that the tree no longer knows.
    pub fn at(&mut self, position: Position, path: &KeyPath, complaint: Complaint) {
        let cure = match complaint.cure {
            Cure::General(cure) | Cure::Rewritten(cure) => cure,
        };
        self.add_error(position, path, complaint.what, None, cure);
    }

    /// Nothing is wrong, but probably not as it was meant.
    pub fn warn(&mut self, path: &KeyPath, what: impl Into<String>, cure: impl Into<String>) {
        if self.warnings.len() >= MAX_ERRORS {
            return;
        }
        let place = self.root.locate(path);
        self.warnings.push(Diagnostic {
            source: self.source.clone(),
            position: Some(place.key),
            key: path.to_string(),
            what: what.into(),
            got: None,
            cure: cure.into(),
        });
    }

    /// Something at the path, or above it, was reported before.
    pub fn is_broken(&self, path: &KeyPath) -> bool {
        self.root.locate(path).is_broken
    }

    /// The value at the path comes from the environment, at least in part.
    pub fn is_substituted(&self, path: &KeyPath) -> bool {
        match self.root.locate(path).node {
            Some(Node {
                value: Value::Scalar(scalar),
                ..
            }) => matches!(scalar.style, Style::Substituted { .. }),
            _ => false,
        }
    }

    /// Nothing more is taken.
    pub fn is_full(&self) -> bool {
        self.errors.len() >= MAX_ERRORS
    }

    /// The warnings, if there are no errors.
    ///
    /// # Errors
    /// Everything that was reported as wrong.
    pub fn finish(mut self) -> Result<Vec<Diagnostic>, Diagnostics> {
        match self.errors.is_empty() {
            true => {
                in_file_order(&mut self.warnings);
                Ok(self.warnings)
            }
            false => Err(Diagnostics::new(self.errors)),
        }
    }

    fn add_error(&mut self, position: Position, path: &KeyPath, what: String, got: Option<String>, cure: String) {
        if self.is_full() {
            return;
        }
        self.errors.push(Diagnostic {
            source: self.source.clone(),
            position: Some(position),
            key: path.to_string(),
            what,
            got,
            cure,
        });
    }
}

/// A scalar for a message, as it stands in the file; `None`: it may hold a secret.
fn shown(path: &KeyPath, node: &Node) -> Option<String> {
    let Value::Scalar(scalar) = &node.value else {
        return None;
    };
    if is_secret(path) {
        return None;
    }
    let text = without_user(scalar.as_written());
    let text = match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    };
    let is_bare = scalar.style == Style::Plain && (text.parse::<f64>().is_ok() || matches!(&*text, "true" | "false"));
    Some(match is_bare {
        true => text,
        false => format!("{text:?}"),
    })
}

/// Keys whose values are, or may hold, passwords and tokens.
fn is_secret(path: &KeyPath) -> bool {
    path.steps().iter().any(|step| match step {
        Step::Key(key) => matches!(&**key, "password" | "secret" | "set" | "add" | "headers"),
        Step::Index(_) => false,
    })
}

/// A URL without what stands before its `@`.
fn without_user(text: &str) -> String {
    match text.split_once("://") {
        Some((scheme, rest)) => match rest.rsplit_once('@') {
            Some((_, host)) => format!("{scheme}://…@{host}"),
            None => text.to_owned(),
        },
        None => text.to_owned(),
    }
}
