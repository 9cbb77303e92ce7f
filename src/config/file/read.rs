//! Text → [`FileConfig`], with everything that is wrong in it.

use serde::Deserialize;

use super::FileConfig;
use crate::config::diagnostic::{Diagnostic, Diagnostics, KeyPath, alternatives, nearest};
use crate::config::environment::Environment;
use crate::config::report::Report;
use crate::config::yaml::{self, Fault, FaultKind};

/// Reads as much as can be understood. `serde` stops at the first error, so what it stops at is marked in the tree
/// and the tree is read again, until nothing is wrong any more.
///
/// # Errors
/// The text is too large, or not YAML at all.
pub fn read(source: &str, text: &str, environment: &Environment) -> Result<(FileConfig, Report), Diagnostics> {
    let whole = |what: String| {
        Diagnostics::from(Diagnostic {
            source: source.to_owned(),
            position: None,
            key: String::new(),
            what,
            got: None,
            cure: String::new(),
        })
    };
    if text.len() as u64 > yaml::MAX_FILE_SIZE {
        return Err(whole(format!("is larger than {} bytes", yaml::MAX_FILE_SIZE)));
    }
    let parsed = match yaml::parse(text, environment) {
        Ok(parsed) => parsed,
        Err(found) => {
            let root = yaml::Node {
                position: found.position,
                value: yaml::Value::Broken,
            };
            let mut report = Report::new(source, root);
            report.at(found.position, &found.path, found.complaint);
            return match report.finish() {
                Err(diagnostics) => Err(diagnostics),
                Ok(_) => Err(whole("is not valid YAML".to_owned())),
            };
        }
    };
    let mut report = Report::new(source, parsed.root);
    for found in parsed.faults {
        report.at(found.position, &found.path, found.complaint);
    }
    loop {
        let fault = match FileConfig::deserialize(report.root()) {
            Ok(file) => return Ok((file, report)),
            Err(fault) => fault,
        };
        if !take_out(&mut report, fault) || report.is_full() {
            // What was found is enough.
            return Err(match report.finish() {
                Err(diagnostics) => diagnostics,
                Ok(_) => whole("cannot be understood".to_owned()),
            });
        }
    }
}

/// Reports a fault and marks its place. Returns whether that changed the tree.
fn take_out(report: &mut Report, fault: Fault) -> bool {
    let path = fault.path();
    match fault.kind {
        FaultKind::Value(complaint) => {
            report.complaint(&path, complaint);
            report.root_mut().break_at(&path)
        }
        FaultKind::Empty => {
            report.key(&path, "has no value", "give it one, or remove the key");
            report.root_mut().break_at(&path)
        }
        FaultKind::UnknownKey { key, known } => {
            let meant = nearest(&key, known.iter().copied());
            report_unknown(report, &path.key(&key), meant, known);
            report.root_mut().drop_unknown(&path, &key, meant)
        }
    }
}

fn report_unknown(report: &mut Report, path: &KeyPath, meant: Option<&str>, known: &[&str]) {
    let cure = match meant {
        Some(meant) => format!("did you mean {meant}?"),
        None => format!("known here: {}", alternatives(known)),
    };
    report.key(path, "is not a known key", cure);
}
