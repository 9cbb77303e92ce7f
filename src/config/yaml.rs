//! A YAML file as a tree whose every node knows where it stands, so that everything found later can be said with its
//! position.
//!
//! Strict on purpose: one document, no anchors, aliases, tags, merge keys or repeated keys. Nothing is copied, so a
//! file can not grow in memory; size and depth are bounded.

mod deserialize;
mod events;

use super::diagnostic::{KeyPath, Position, Step};

pub use deserialize::{ANY_SCALAR, Fault, FaultKind, complain};
pub use events::{MAX_FILE_SIZE, parse};

/// A value with its place in the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub position: Position,
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// Something is wrong here and has been reported.
    Broken,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub key: String,
    pub position: Position,
    pub value: Node,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Scalar {
    /// After substitution.
    pub text: String,
    pub style: Style,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Style {
    /// Typed by its form (YAML 1.2.2 §10.3.2).
    Plain,
    /// Text, whatever it looks like.
    Quoted,
    /// Text or typed by its form, whichever is asked for; the text comes from the environment and may be secret.
    Substituted {
        /// As it stands in the file.
        written: String,
    },
}

impl Scalar {
    /// For messages: never what came from the environment.
    pub fn as_written(&self) -> &str {
        match &self.style {
            Style::Substituted { written } => written,
            Style::Plain | Style::Quoted => &self.text,
        }
    }
}

/// What is known of a key path.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Of the key, or of the nearest one above that exists.
    pub key: Position,
    /// `None`: the path does not exist.
    pub node: Option<&'a Node>,
    /// Something at the path or above it is [`Value::Broken`].
    pub is_broken: bool,
}

impl Node {
    /// The root of a file in which nothing is said.
    pub fn empty() -> Self {
        Self {
            position: Position { line: 1, column: 1 },
            value: Value::Map(Vec::new()),
        }
    }

    pub fn locate(&self, path: &KeyPath) -> Place<'_> {
        let mut node = self;
        let mut key = self.position;
        for step in path.steps() {
            let child = match (&node.value, step) {
                (Value::List(items), Step::Index(index)) => items.get(*index).map(|item| (item.position, item)),
                (Value::Map(entries), Step::Key(name)) => entries
                    .iter()
                    .find(|entry| entry.key == *name)
                    .map(|entry| (entry.position, &entry.value)),
                _ => None,
            };
            match child {
                Some(child) => (key, node) = child,
                None => {
                    let is_broken = node.value == Value::Broken;
                    return Place {
                        key,
                        node: None,
                        is_broken,
                    };
                }
            }
        }
        let is_broken = node.value == Value::Broken;
        Place {
            key,
            node: Some(node),
            is_broken,
        }
    }

    fn locate_mut(&mut self, path: &KeyPath) -> Option<&mut Self> {
        let mut node = self;
        for step in path.steps() {
            node = match (&mut node.value, step) {
                (Value::List(items), Step::Index(index)) => items.get_mut(*index)?,
                (Value::Map(entries), Step::Key(name)) => {
                    &mut entries.iter_mut().find(|entry| entry.key == *name)?.value
                }
                _ => return None,
            };
        }
        Some(node)
    }

    /// Marks what is at the path as reported. Returns whether there was something that was not marked yet.
    pub fn break_at(&mut self, path: &KeyPath) -> bool {
        match self.locate_mut(path) {
            Some(node) if node.value != Value::Broken => {
                node.value = Value::Broken;
                true
            }
            _ => false,
        }
    }

    /// Takes an unknown key out of the map at `path`. What it was probably meant to be counts as reported, so that
    /// nobody complains about its absence.
    pub fn drop_unknown(&mut self, path: &KeyPath, key: &str, meant: Option<&str>) -> bool {
        let Some(Node {
            value: Value::Map(entries),
            ..
        }) = self.locate_mut(path)
        else {
            return false;
        };
        let Some(index) = entries.iter().position(|entry| entry.key == key) else {
            return false;
        };
        let mut entry = entries.remove(index);
        if let Some(meant) = meant
            && entries.iter().all(|other| other.key != meant)
        {
            entry.key = meant.to_owned();
            entry.value.value = Value::Broken;
            entries.insert(index, entry);
        }
        true
    }
}
