//! How a route's responses are compressed: what it says itself, then what `defaults` say, then what holds for all.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use crate::config::diagnostic::KeyPath;
use crate::config::file::shape::{List, Switch};
use crate::config::file::{AuthenticatedName, CodingName, FileCompression, FileLevels};
use crate::config::report::Report;
use crate::config::{Authenticated, Compression, Events, Levels, UseDictionaries};
use crate::key::Glob;
use crate::transform::negotiate::Coding;

/// Longer than this nobody would take a page for one that loads.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// What a route, or `defaults`, says.
pub enum Said {
    Off,
    On(Box<SaidCompression>),
}

/// Each `None`: nothing.
#[derive(Default)]
pub struct SaidCompression {
    min_size: Option<u64>,
    codings: Option<Vec<Coding>>,
    types: Option<Vec<Glob>>,
    events: Option<Events>,
    authenticated: Option<Authenticated>,
    dictionaries: Option<UseDictionaries>,
    flush_after: Option<Duration>,
    live_levels: SaidLevels,
    stored_levels: SaidLevels,
}

#[derive(Default, Clone, Copy)]
struct SaidLevels {
    gzip: Option<u32>,
    br: Option<u32>,
    zstd: Option<u32>,
}

pub fn read(typed: &Switch<FileCompression>, report: &mut Report, path: &KeyPath) -> Said {
    let typed = match typed {
        Switch::Off => return Said::Off,
        Switch::On => return Said::On(Box::default()),
        Switch::With(typed) => typed,
    };
    Said::On(Box::new(SaidCompression {
        min_size: typed.min_size.as_ref().map(|size| size.0),
        codings: typed
            .codings
            .as_ref()
            .map(|names| codings(names, report, &path.key("codings"))),
        types: typed
            .types
            .as_ref()
            .map(|patterns| types(patterns, report, &path.key("types"))),
        events: typed.events.map(|events| match events {
            true => Events::Compressed,
            false => Events::Untouched,
        }),
        authenticated: typed.authenticated.map(|name| match name {
            AuthenticatedName::None => Authenticated::Nothing,
            AuthenticatedName::Public => Authenticated::Public,
            AuthenticatedName::All => Authenticated::Everything,
        }),
        dictionaries: typed.dictionaries.map(|used| match used {
            true => UseDictionaries::AsOffered,
            false => UseDictionaries::Never,
        }),
        flush_after: typed.flush_after.as_ref().map(|wait| {
            if wait.0 > LONGEST_WAIT {
                report.value(&path.key("flush_after"), "must not be longer than 10s", "");
            }
            wait.0
        }),
        live_levels: levels(typed.live_levels.as_ref(), report, &path.key("live_levels")),
        stored_levels: levels(typed.stored_levels.as_ref(), report, &path.key("stored_levels")),
    }))
}

fn codings(names: &List<CodingName>, report: &mut Report, path: &KeyPath) -> Vec<Coding> {
    if names.0.is_empty() {
        report.value(
            path,
            "must have at least one coding",
            "to switch it off, write compression: off",
        );
    }
    for (index, name) in names.0.iter().enumerate() {
        if name.is_some() && names.0[..index].contains(name) {
            report.value(&path.index(index), "must not be there twice", "");
        }
    }
    let coding = |name: &CodingName| match name {
        CodingName::Zstd => Coding::Zstd,
        CodingName::Br => Coding::Br,
        CodingName::Gzip => Coding::Gzip,
    };
    names.0.iter().flatten().map(coding).collect()
}

fn types(patterns: &List<String>, report: &mut Report, path: &KeyPath) -> Vec<Glob> {
    if patterns.0.is_empty() {
        report.value(
            path,
            "must have at least one content type",
            "to switch it off, write compression: off",
        );
    }
    for (path, pattern) in patterns.under(path) {
        let is_type = !pattern.is_empty() && pattern.bytes().all(|b| b == b'/' || crate::message::is_token_byte(b));
        if !is_type {
            report.value(
                &path,
                "must be a content type without parameters",
                "like text/* or application/json",
            );
        }
    }
    patterns
        .0
        .iter()
        .flatten()
        .map(|pattern| Glob::new(pattern.to_ascii_lowercase()))
        .collect()
}

fn levels(typed: Option<&FileLevels>, report: &mut Report, path: &KeyPath) -> SaidLevels {
    let Some(typed) = typed else {
        return SaidLevels::default();
    };
    let mut level = |name: &str, level: Option<u32>, allowed: RangeInclusive<u32>| {
        if level.is_some_and(|level| !allowed.contains(&level)) {
            let what = format!("must be from {} to {}", allowed.start(), allowed.end());
            report.value(&path.key(name), what, "");
        }
        level
    };
    SaidLevels {
        gzip: level("gzip", typed.gzip, 1..=9),
        br: level("br", typed.br, 0..=11),
        zstd: level("zstd", typed.zstd, 1..=19),
    }
}

/// `None`: every body is passed on as it is.
pub fn assemble(own: Option<&Said>, common: Option<&Said>) -> Option<Arc<Compression>> {
    let nothing = SaidCompression::default();
    let (own, common) = match (own, common) {
        (Some(Said::Off), _) | (None, None | Some(Said::Off)) => return None,
        (Some(Said::On(own)), Some(Said::On(common))) => (&**own, &**common),
        (Some(Said::On(own)), None | Some(Said::Off)) => (&**own, &nothing),
        (None, Some(Said::On(common))) => (&**common, &nothing),
    };
    let default = Compression::default();
    Some(Arc::new(Compression {
        min_size: own.min_size.or(common.min_size).unwrap_or(default.min_size),
        codings: own
            .codings
            .clone()
            .or(common.codings.clone())
            .unwrap_or(default.codings),
        types: own.types.clone().or(common.types.clone()).unwrap_or(default.types),
        events: own.events.or(common.events).unwrap_or(default.events),
        authenticated: own
            .authenticated
            .or(common.authenticated)
            .unwrap_or(default.authenticated),
        dictionaries: own.dictionaries.or(common.dictionaries).unwrap_or(default.dictionaries),
        flush_after: own.flush_after.or(common.flush_after).unwrap_or(default.flush_after),
        live_levels: own.live_levels.or(common.live_levels, default.live_levels),
        stored_levels: own.stored_levels.or(common.stored_levels, default.stored_levels),
    }))
}

impl SaidLevels {
    fn or(self, common: Self, default: Levels) -> Levels {
        Levels {
            gzip: self.gzip.or(common.gzip).unwrap_or(default.gzip),
            br: self.br.or(common.br).unwrap_or(default.br),
            zstd: self.zstd.or(common.zstd).unwrap_or(default.zstd),
        }
    }
}
