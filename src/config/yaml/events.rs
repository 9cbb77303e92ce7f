//! Text → tree: the parser's events, and the substitution of environment variables.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError};

use super::{Entry, Node, Scalar, Style, Value};
use crate::config::diagnostic::{Complaint, KeyPath, Position};
use crate::config::environment::Environment;
use crate::config::report::MAX_ERRORS;

/// A configuration is a few KiB; a file beyond this (bytes) is another one.
pub const MAX_FILE_SIZE: u64 = 1 << 20;
/// All that comes from the environment together (bytes): a small file could name a large variable often.
const MAX_SUBSTITUTED: usize = 1 << 20;
/// The deepest key of the file stands 8 levels down. What reads the tree recurses, so it may not be deep.
const MAX_DEPTH: usize = 32;

/// A tree, with what was wrong in it. Where something is wrong the tree is [`Value::Broken`].
#[derive(Debug)]
pub struct Parsed {
    pub root: Node,
    pub faults: Vec<Found>,
}

/// Something wrong at a position.
#[derive(Debug)]
pub struct Found {
    pub position: Position,
    pub path: KeyPath,
    pub complaint: Complaint,
}

/// Reads a document and puts environment variables in.
///
/// # Errors
/// The text is not YAML, is too deep or holds more than one document; nothing else can be known of it.
pub fn parse(text: &str, environment: &Environment) -> Result<Parsed, Found> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| not_yaml(text, &error))?;
        builder.take(event, position(span.start))?;
    }
    let mut root = match builder.root {
        Some(root) if !is_null(&root) => root,
        _ => Node::empty(),
    };
    if !matches!(root.value, Value::Map(_)) {
        return Err(Found {
            position: root.position,
            path: KeyPath::root(),
            complaint: Complaint::new("must be a mapping of keys to values", "like `listen: 0.0.0.0:8080`"),
        });
    }
    let mut substitution = Substitution {
        environment,
        faults: builder.faults,
        size: 0,
    };
    substitution.walk(&mut root, &KeyPath::root());
    Ok(Parsed {
        root,
        faults: substitution.faults,
    })
}

fn is_null(node: &Node) -> bool {
    matches!(&node.value, Value::Scalar(Scalar { text, style: Style::Plain }) if super::deserialize::is_null(text))
}

fn position(marker: Marker) -> Position {
    Position {
        line: marker.line(),
        column: marker.col() + 1,
    }
}

/// Builds the tree without recursion.
#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    root: Option<Node>,
    documents: usize,
    faults: Vec<Found>,
}

/// A collection whose end has not come yet.
enum Open {
    List {
        position: Position,
        items: Vec<Node>,
    },
    Map {
        position: Position,
        entries: Vec<Entry>,
        key: Option<Key>,
        /// The line of every key so far.
        lines: HashMap<String, usize>,
    },
}

struct Key {
    name: String,
    position: Position,
    /// A key that was there before: its value is read and dropped.
    is_repeated: bool,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, position: Position) -> Result<(), Found> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(self.found(position, "a second document starts here", "one file holds one document"));
                }
            }
            Event::Alias(_) => {
                self.refuse(
                    position,
                    "aliases are not supported",
                    "put quotes around a value that begins with `*`",
                );
                self.add(Node {
                    position,
                    value: Value::Broken,
                });
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.check_decoration(position, anchor, tag.is_some());
                self.scalar(text.into_owned(), style, position);
            }
            Event::SequenceStart(anchor, tag) => {
                self.check_decoration(position, anchor, tag.is_some());
                self.open(
                    position,
                    Open::List {
                        position,
                        items: Vec::new(),
                    },
                )?;
            }
            Event::MappingStart(anchor, tag) => {
                self.check_decoration(position, anchor, tag.is_some());
                self.open(
                    position,
                    Open::Map {
                        position,
                        entries: Vec::new(),
                        key: None,
                        lines: HashMap::new(),
                    },
                )?;
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List { position, items }) => self.add(Node {
                    position,
                    value: Value::List(items),
                }),
                Some(Open::Map { position, entries, .. }) => self.add(Node {
                    position,
                    value: Value::Map(entries),
                }),
                None => {}
            },
        }
        Ok(())
    }

    fn scalar(&mut self, text: String, style: ScalarStyle, position: Position) {
        if let Some(Open::Map {
            key: key @ None, lines, ..
        }) = self.open.last_mut()
        {
            let first = lines.get(&text).copied();
            lines.entry(text.clone()).or_insert(position.line);
            *key = Some(Key {
                name: text,
                position,
                is_repeated: first.is_some(),
            });
            if let Some(line) = first {
                self.refuse(position, &format!("is given twice, first on line {line}"), "keep one");
            }
            return;
        }
        let style = match style {
            ScalarStyle::Plain => Style::Plain,
            _ => Style::Quoted,
        };
        self.add(Node {
            position,
            value: Value::Scalar(Scalar { text, style }),
        });
    }

    fn open(&mut self, position: Position, collection: Open) -> Result<(), Found> {
        if self.open.len() >= MAX_DEPTH {
            return Err(self.found(position, &format!("is nested deeper than {MAX_DEPTH} levels"), ""));
        }
        if let Some(Open::Map { key: None, .. }) = self.open.last() {
            return Err(self.found(
                position,
                "a key must be a word, not a list or a mapping",
                "put quotes around a value that contains braces",
            ));
        }
        self.open.push(collection);
        Ok(())
    }

    /// Puts a finished node where it belongs.
    fn add(&mut self, node: Node) {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map { entries, key, .. }) => match key.take() {
                Some(key) if !key.is_repeated => entries.push(Entry {
                    key: key.name,
                    position: key.position,
                    value: node,
                }),
                // Only an alias comes here without a key: reported, and there is nothing to keep.
                _ => {}
            },
        }
    }

    fn check_decoration(&mut self, position: Position, anchor: usize, is_tagged: bool) {
        if anchor > 0 {
            self.refuse(
                position,
                "anchors are not supported",
                "put quotes around a value that begins with `&`",
            );
        }
        if is_tagged {
            self.refuse(
                position,
                "tags are not supported",
                "put quotes around a value that begins with `!`",
            );
        }
    }

    fn refuse(&mut self, position: Position, what: &str, cure: &str) {
        if self.faults.len() < MAX_ERRORS {
            let found = self.found(position, what, cure);
            self.faults.push(found);
        }
    }

    fn found(&self, position: Position, what: &str, cure: &str) -> Found {
        let mut path = KeyPath::root();
        for open in &self.open {
            match open {
                Open::List { items, .. } => path = path.index(items.len()),
                Open::Map { key: Some(key), .. } => path = path.key(&key.name),
                Open::Map { key: None, .. } => {}
            }
        }
        Found {
            position,
            path,
            complaint: Complaint::new(what, cure),
        }
    }
}

/// Puts environment variables in.
struct Substitution<'a> {
    environment: &'a Environment,
    faults: Vec<Found>,
    /// Bytes that were put in so far, variables and what stands around them.
    size: usize,
}

impl Substitution<'_> {
    /// Recursion is bounded by [`MAX_DEPTH`].
    fn walk(&mut self, node: &mut Node, path: &KeyPath) {
        match &mut node.value {
            Value::Broken => {}
            Value::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.walk(item, &path.index(index));
                }
            }
            Value::Map(entries) => {
                for entry in entries {
                    self.walk(&mut entry.value, &path.key(&entry.key));
                }
            }
            Value::Scalar(scalar) => {
                if let Err(complaint) = self.scalar(scalar) {
                    if self.faults.len() < MAX_ERRORS {
                        self.faults.push(Found {
                            position: node.position,
                            path: path.clone(),
                            complaint,
                        });
                    }
                    node.value = Value::Broken;
                }
            }
        }
    }

    fn scalar(&mut self, scalar: &mut Scalar) -> Result<(), Complaint> {
        let Some(substituted) = self.environment.substitute(&scalar.text)? else {
            return Ok(());
        };
        self.size += substituted.text.len();
        if self.size > MAX_SUBSTITUTED {
            return Err(Complaint::new(
                format!("makes the file larger than {MAX_SUBSTITUTED} bytes after substitution"),
                "",
            ));
        }
        let written = std::mem::replace(&mut scalar.text, substituted.text);
        if substituted.variables {
            scalar.style = Style::Substituted { written };
        }
        Ok(())
    }
}

/// What the parser could not read, with the cure where the line shows one.
fn not_yaml(text: &str, error: &ScanError) -> Found {
    let position = within(text, position(*error.marker()));
    // Some errors show only where the next line does not fit, and tabs already before theirs.
    let nth = |number: usize| match number {
        0 => "",
        _ => text.lines().nth(number - 1).unwrap_or_default(),
    };
    let [before, line, behind] = [position.line.saturating_sub(1), position.line, position.line + 1].map(nth);
    let is_indented_by_tab = |line: &str| line[..line.len() - line.trim_start().len()].contains('\t');
    let cure = match is_indented_by_tab(line) || is_indented_by_tab(behind) {
        true => Some("indent with spaces, not tabs"),
        false => cure(line).or_else(|| cure(before)),
    };
    Found {
        position,
        path: KeyPath::root(),
        complaint: Complaint::new(format!("is not valid YAML: {}", error.info()), cure.unwrap_or_default()),
    }
}

/// What is missing at the end of a file is missed behind it; said is the end of the last line that holds something.
fn within(text: &str, position: Position) -> Position {
    let mut last = None;
    for (index, line) in text.lines().enumerate() {
        if index + 1 >= position.line {
            return position;
        }
        if !line.trim().is_empty() {
            last = Some((index + 1, line.trim_end().chars().count() + 1));
        }
    }
    match last {
        Some((line, column)) => Position { line, column },
        None => position,
    }
}

fn cure(line: &str) -> Option<&'static str> {
    let content = line.trim_start();
    let starts = |mark: &str| {
        content.starts_with(mark)
            || [": ", "- ", "[", ", "]
                .iter()
                .any(|before| line.contains(&format!("{before}{mark}")))
    };
    if starts("*") || starts("&") || starts("@") || starts("`") || starts("%") || starts("!") {
        return Some("put quotes around a value that begins with `*`, `&`, `@`, `!`, `%` or a backtick");
    }
    if content.starts_with('#') {
        return None;
    }
    if line.matches('{').count() > line.matches('}').count() || line.matches('[').count() > line.matches(']').count() {
        return Some("close every { with a } and every [ with a ]");
    }
    if line.contains('{') || line.contains('}') {
        return Some("put quotes around a value that contains braces");
    }
    if line.matches(": ").count() > 1 {
        return Some("put quotes around a value that contains a colon and a space");
    }
    if line.contains('[') || line.contains(']') {
        return Some("put quotes around a value that contains brackets, like \"[::]:8080\"");
    }
    None
}
