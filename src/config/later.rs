//! Keys that are understood and checked, but whose feature this version does not have: asking for one is an error, so
//! that nothing in a file is silently without effect.

use super::diagnostic::KeyPath;
use super::report::Report;
use super::yaml::{Node, Value};

/// A key, and the values with which it asks for nothing that would not happen anyway.
///
/// `*` stands for any name or index. `routes.*` also means `defaults`.
struct Later(&'static str, &'static [&'static str]);

/// Whoever builds a feature deletes its lines.
const LATER: &[Later] = &[Later("tracing", &[])];

/// Reports every key of the file that cannot be had yet.
pub fn refuse(report: &mut Report) {
    let mut found = Vec::new();
    for Later(pattern, idle) in LATER {
        let pattern: Vec<&str> = pattern.split('.').collect();
        find(report.root(), &pattern, idle, &KeyPath::root(), &mut found);
        if let ["routes", "*", policy @ ..] = pattern.as_slice() {
            let pattern: Vec<&str> = std::iter::once("defaults").chain(policy.iter().copied()).collect();
            find(report.root(), &pattern, idle, &KeyPath::root(), &mut found);
        }
    }
    for (path, cure) in found {
        match cure {
            Cure::Remove => report.key(&path, "not available yet in this version", "remove it"),
            Cure::Choose(idle) => {
                let cure = format!("remove it, or use {idle}");
                report.value(&path, "not available yet in this version", cure);
            }
        }
    }
}

enum Cure {
    Remove,
    /// One of these words.
    Choose(String),
}

fn find(node: &Node, pattern: &[&str], idle: &[&str], path: &KeyPath, found: &mut Vec<(KeyPath, Cure)>) {
    let Some((step, rest)) = pattern.split_first() else {
        let is_idle = match &node.value {
            Value::Scalar(scalar) => idle.contains(&scalar.text.as_str()),
            _ => false,
        };
        if !is_idle {
            let cure = match (&node.value, idle) {
                (Value::Scalar(_), [_, _, ..]) => Cure::Choose(super::diagnostic::alternatives(idle)),
                _ => Cure::Remove,
            };
            found.push((path.clone(), cure));
        }
        return;
    };
    match &node.value {
        Value::List(items) if *step == "*" => {
            for (index, item) in items.iter().enumerate() {
                find(item, rest, idle, &path.index(index), found);
            }
        }
        Value::Map(entries) => {
            for entry in entries.iter().filter(|entry| *step == "*" || entry.key == *step) {
                find(&entry.value, rest, idle, &path.key(&entry.key), found);
            }
        }
        Value::Scalar(_) | Value::List(_) | Value::Broken => {}
    }
}
