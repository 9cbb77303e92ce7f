use std::collections::HashSet;

use super::Captures;
use crate::config::diagnostic::{KeyPath, Step};
use crate::config::file::scalar::Text;
use crate::config::file::shape::{List, Map};
use crate::config::file::{FileRequestEdits, FileResponseEdits};
use crate::config::report::Report;
use crate::config::template::REQUEST_VALUES;
use crate::config::{FieldEdits, ValueTemplate};
use crate::message::{is_field_value, is_token};

/// They belong to one connection or describe its framing (RFC 9110 §7.6.1, RFC 9112 §6), so each side of the proxy
/// makes its own.
pub const CONNECTION_FIELDS: [&str; 10] = [
    "connection",
    "content-length",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
];

/// Which message's fields are edited.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Request,
    Response,
}

pub fn request(typed: &FileRequestEdits, report: &mut Report, path: &KeyPath, captures: &Captures<'_>) -> FieldEdits {
    let remove = removals(typed.remove.as_ref(), report, &path.key("remove"), Side::Request);
    let mut values = |key: &str, map: Option<&Map<Text>>| edits(map, report, &path.key(key), captures, Side::Request);
    FieldEdits {
        remove,
        set: values("set", typed.set.as_ref()),
        add: values("add", typed.add.as_ref()),
        always: false,
    }
}

pub fn response(typed: &FileResponseEdits, report: &mut Report, path: &KeyPath, captures: &Captures<'_>) -> FieldEdits {
    let remove = removals(typed.remove.as_ref(), report, &path.key("remove"), Side::Response);
    let mut values = |key: &str, map: Option<&Map<Text>>| edits(map, report, &path.key(key), captures, Side::Response);
    FieldEdits {
        remove,
        set: values("set", typed.set.as_ref()),
        add: values("add", typed.add.as_ref()),
        always: typed.always.unwrap_or(false),
    }
}

/// Names of fields that a route passes on although the sender is not trusted.
pub fn keep(typed: &List<String>, report: &mut Report, path: &KeyPath) -> Vec<String> {
    removals(Some(typed), report, path, Side::Request)
}

fn removals(typed: Option<&List<String>>, report: &mut Report, path: &KeyPath, side: Side) -> Vec<String> {
    let mut names = Vec::new();
    let Some(typed) = typed else {
        return names;
    };
    for (path, name) in typed.under(path) {
        names.extend(field_name(name, report, &path, side));
    }
    names
}

fn edits(
    typed: Option<&Map<Text>>,
    report: &mut Report,
    path: &KeyPath,
    captures: &Captures<'_>,
    side: Side,
) -> Vec<(String, ValueTemplate)> {
    let mut edits: Vec<(String, ValueTemplate)> = Vec::new();
    let Some(typed) = typed else {
        return edits;
    };
    let mut names = HashSet::new();
    for (path, name, value) in typed.under(path) {
        let Some(lower) = field_name(name, report, &path, side) else {
            continue;
        };
        if !names.insert(lower) {
            report.key(
                &path,
                "is given twice: the case of field names does not count",
                "keep one",
            );
        }
        if let Some(value) = field_value(&value.0, report, &path, captures) {
            // The name is sent as it was written.
            edits.push((name.to_owned(), value));
        }
    }
    edits
}

/// The name in lower case, or a report.
fn field_name(name: &str, report: &mut Report, path: &KeyPath, side: Side) -> Option<String> {
    let lower = name.to_ascii_lowercase();
    let (what, cure) = if !is_token(name.as_bytes()) {
        ("must be a field name", "letters, digits and hyphens")
    } else if lower == "host" && side == Side::Request {
        ("must not be Host", "use the upstream's `host`")
    } else if CONNECTION_FIELDS.contains(&lower.as_str()) {
        (
            "must not be a connection field: each side of the proxy makes its own",
            "remove it",
        )
    } else {
        return Some(lower);
    };
    match path.steps().last() {
        // In a list the name is the value, in a mapping it is the key.
        Some(Step::Index(_)) => report.value(path, what, cure),
        _ => report.key(path, what, cure),
    }
    None
}

fn field_value(text: &str, report: &mut Report, path: &KeyPath, captures: &Captures<'_>) -> Option<ValueTemplate> {
    if !is_field_value(text.as_bytes()) {
        report.value(
            path,
            "must be a field value, without control characters",
            "write it on one line",
        );
        return None;
    }
    if text.trim() != text {
        report.value(
            path,
            "must have no space at its ends",
            "field values lose it on the way",
        );
        return None;
    }
    match ValueTemplate::parse(text, &captures.names) {
        Ok(template) => Some(template),
        Err(unknown) => {
            let what = match report.is_substituted(path) {
                true => "holds a {name} that stands for nothing".to_owned(),
                false => format!("holds {{{}}}, which stands for nothing", unknown.name),
            };
            report.key(path, what, captures.listed(&REQUEST_VALUES));
            None
        }
    }
}
