use super::super::route::{Captures, resolve_match, tags};
use crate::config::diagnostic::KeyPath;
use crate::config::file::FileCache;
use crate::config::report::Report;

pub fn check(typed: &FileCache, report: &mut Report, path: &KeyPath) {
    let path = path.key("invalidate");
    let rules = typed.invalidate.iter().flat_map(|rules| rules.under(&path));
    for (path, rule) in rules {
        let matches = match &rule.when {
            Some(when) => resolve_match(when, report, &path.key("when")),
            None => {
                report.key(
                    &path.key("when"),
                    "is missing",
                    "like { methods: [POST], path: /api/users }",
                );
                Default::default()
            }
        };
        let tags_path = path.key("purge_tags");
        match &rule.purge_tags {
            None => report.key(&tags_path, "is missing", "like [users]"),
            Some(typed) if typed.0.is_empty() => report.value(&tags_path, "must have at least one tag", ""),
            Some(typed) => {
                let captures = Captures::of(&matches, report, &path.key("when"));
                tags(typed, report, &tags_path, &captures);
            }
        }
    }
}
