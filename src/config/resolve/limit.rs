//! Limits of what clients may have in a time.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::concurrency::Common;
use super::{NAME_RULE, is_name, positive};
use crate::config::diagnostic::KeyPath;
use crate::config::file::scalar::{LimitKey, SizeText};
use crate::config::file::shape::OneOrMany;
use crate::config::file::{FileConfig, FileExempt, FileLimits, FileRateLimit, LimitStoreName};
use crate::config::report::Report;
use crate::config::{
    AddressDetail, Enforcement, Exempt, LimitFields, LimitHits, LimitKeyPart, LimitStore, LimitUnit, RateLimit,
    RateLimits, defaults,
};
use crate::limit::gcra::SHORT;
use crate::limit::local::MAX_KEYS;
use crate::limit::rate::MAX_LIMITS;
use crate::message::is_token;

/// How long a `burst` may take to come back.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The limits that have been read so far.
pub struct Limits {
    limits: Vec<RateLimit>,
    /// Of the names that were given, and those that were made.
    names: HashSet<Arc<str>>,
    exempt: Exempt,
    pub common: Common,
    /// Of routes that say nothing.
    pub default: Vec<usize>,
}

impl Limits {
    /// Those of `rate_limits`.
    pub fn new(file: &FileConfig, report: &mut Report) -> Self {
        let path = KeyPath::root().key("rate_limits");
        let mut limits = Self {
            limits: Vec::new(),
            names: given_names(file),
            exempt: Exempt::default(),
            common: Common::of(file),
            default: Vec::new(),
        };
        let Some(typed) = &file.rate_limits else {
            return limits;
        };
        if let Some(typed) = &typed.exempt {
            limits.exempt = exempt(typed, report, &path.key("exempt"));
        }
        if let Some(typed) = &typed.default {
            let path = path.key("default");
            if matches!(typed, FileLimits::On) {
                report.value(&path, "must be a limit or a list of limits", "");
            }
            limits.default = limits.read(typed, "default", report, &path).unwrap_or_default();
        }
        limits
    }

    /// The limits of a route of that name. `None`: those that it has without saying so.
    pub fn read(&mut self, typed: &FileLimits, of: &str, report: &mut Report, path: &KeyPath) -> Option<Vec<usize>> {
        match typed {
            FileLimits::Off => return Some(Vec::new()),
            FileLimits::On => return None,
            FileLimits::One(_) => {}
            FileLimits::Several(list) => {
                if list.0.is_empty() {
                    report.value(path, "must have at least one limit", "to have none, write off");
                }
                if list.0.len() > MAX_LIMITS {
                    report.value(path, format!("must have at most {MAX_LIMITS} limits"), "");
                }
            }
        }
        let several = matches!(typed, FileLimits::Several(_));
        let mut indices = Vec::new();
        for (number, (path, typed)) in typed.under(path).into_iter().enumerate() {
            let implied = match several {
                true => format!("{of}-{}", number + 1),
                false => of.to_owned(),
            };
            let limit = self.limit(typed, &implied, report, &path);
            indices.push(self.limits.len());
            self.limits.push(limit);
        }
        Some(indices)
    }

    /// Reports limits that a single request of this cost is too much for.
    pub fn check_cost(&self, limits: &[usize], cost: u64, report: &mut Report, path: &KeyPath) {
        for limit in limits.iter().filter_map(|index| self.limits.get(*index)) {
            if limit.unit == LimitUnit::Requests && cost > limit.burst {
                let what = format!("must be at most the burst of the limit {}, {}", limit.name, limit.burst);
                return report.value(path, what, "");
            }
        }
    }

    pub fn finish(self, file: &FileConfig, report: &mut Report) -> RateLimits {
        let path = KeyPath::root().key("rate_limits");
        let typed = file.rate_limits.as_ref();
        let store = match typed.and_then(|typed| typed.store) {
            None | Some(LimitStoreName::Memory) => LimitStore::Memory,
            Some(LimitStoreName::Redis) => {
                super::planned::needs_redis(file, report, &path.key("store"));
                LimitStore::Redis
            }
        };
        let max_keys = typed.and_then(|typed| typed.max_keys);
        if max_keys == Some(0) {
            report.value(&path.key("max_keys"), "must be at least 1", "");
        }
        RateLimits {
            store,
            limits: self.limits,
            max_keys: max_keys.map_or(MAX_KEYS, |keys| keys as usize),
            fields: match typed.and_then(|typed| typed.legacy_fields) {
                Some(true) => LimitFields::WithLegacy,
                None | Some(false) => LimitFields::Standard,
            },
            addresses: match typed.and_then(|typed| typed.shorten_addresses) {
                Some(true) => AddressDetail::Network,
                None | Some(false) => AddressDetail::Whole,
            },
        }
    }

    fn limit(&mut self, typed: &FileRateLimit, implied: &str, report: &mut Report, path: &KeyPath) -> RateLimit {
        let name = self.name(typed, implied, report, path);
        let (unit, amount) = amount(typed, report, path);
        let per_path = path.key("per");
        let per = typed.per.as_ref().map_or(defaults::LIMIT_PER, |per| per.0);
        positive(report, &per_path, Some(per));
        let burst_path = path.key("burst");
        let burst = typed.burst.as_ref().map_or(amount.max(1), |SizeText(burst)| *burst);
        if burst == 0 {
            report.value(&burst_path, "must be at least 1", "to let nobody in, use deny");
        }
        let shortest = u128::from(amount) * u128::from(SHORT);
        if unit == LimitUnit::Requests && !per.is_zero() && shortest > per.as_nanos() {
            report.value(&path.key("requests"), "must be at most 1000000 in a second", "");
        }
        let comes_back = per.as_nanos().saturating_mul(u128::from(burst)) / u128::from(amount.max(1));
        if comes_back > LONGEST.as_nanos() {
            report.key(
                path,
                "takes longer than 10y to give burst back",
                "make per or burst smaller",
            );
        }
        let mut exempt = match &typed.exempt {
            Some(typed) => self::exempt(typed, report, &path.key("exempt")),
            None => Exempt::default(),
        };
        exempt.addresses.extend_from_slice(&self.exempt.addresses);
        exempt.headers.extend_from_slice(&self.exempt.headers);
        RateLimit {
            name,
            unit,
            amount: amount.max(1),
            per,
            burst: burst.max(1),
            key: key(typed.key.as_ref(), report, &path.key("key")),
            block_for: typed.block_for.as_ref().map_or(Duration::ZERO, |block| block.0),
            hits: match typed.count_hits {
                None | Some(true) => LimitHits::Counted,
                Some(false) => LimitHits::Free,
            },
            enforcement: match typed.dry_run {
                None | Some(false) => Enforcement::Refuse,
                Some(true) => Enforcement::DryRun,
            },
            exempt,
        }
    }

    fn name(&mut self, typed: &FileRateLimit, implied: &str, report: &mut Report, path: &KeyPath) -> Arc<str> {
        let Some(given) = &typed.name else {
            let mut name: Arc<str> = implied.into();
            let mut number = 1;
            while !self.names.insert(name.clone()) {
                number += 1;
                name = format!("{implied}-{number}").into();
            }
            return name;
        };
        let path = path.key("name");
        if !is_name(given) {
            report.value(&path, NAME_RULE, "");
        }
        if self.limits.iter().any(|limit| &*limit.name == given) {
            report.value(&path, "must not be the name of another limit", "");
        }
        given.as_str().into()
    }
}

/// All names in the file, so that none is made a second time.
fn given_names(file: &FileConfig) -> HashSet<Arc<str>> {
    let path = KeyPath::root();
    let all = file.rate_limits.iter().filter_map(|typed| typed.default.as_ref());
    let common = file.defaults.iter().filter_map(|typed| typed.rate_limit.as_ref());
    let routes = file.routes.iter().flat_map(|routes| routes.0.iter().flatten());
    let routes = routes.filter_map(|route| route.rate_limit.as_ref());
    all.chain(common)
        .chain(routes)
        .flat_map(|limits| limits.under(&path))
        .filter_map(|(_, limit)| limit.name.as_deref().map(Arc::from))
        .collect()
}

fn amount(typed: &FileRateLimit, report: &mut Report, path: &KeyPath) -> (LimitUnit, u64) {
    let assumed = u64::from(typed.assumed_tokens.unwrap_or(defaults::ASSUMED_TOKENS));
    let units = [
        ("requests", LimitUnit::Requests, typed.requests.map(u64::from)),
        ("bytes", LimitUnit::Bytes, typed.bytes.as_ref().map(|size| size.0)),
        (
            "tokens",
            LimitUnit::Tokens { assumed },
            typed.tokens.as_ref().map(|size| size.0),
        ),
    ];
    let mut said = units
        .into_iter()
        .filter_map(|(key, unit, amount)| amount.map(|amount| (key, unit, amount)));
    let Some((key, unit, amount)) = said.next() else {
        let is_broken = ["requests", "bytes", "tokens"]
            .iter()
            .any(|key| report.is_broken(&path.key(key)));
        if !is_broken {
            report.key(&path.key("requests"), "is missing", "like 1000");
        }
        return (LimitUnit::Requests, 1);
    };
    if let Some((other, ..)) = said.next() {
        report.key(
            &path.key(other),
            format!("cannot stand beside {key}"),
            "write a list of two limits",
        );
    }
    if amount == 0 {
        report.value(&path.key(key), "must be at least 1", "to let nobody in, use deny");
    }
    match unit {
        LimitUnit::Tokens { .. } => {
            if typed.count_hits == Some(true) {
                let what = "cannot be true with tokens: what is stored takes none";
                report.value(&path.key("count_hits"), what, "remove it");
            }
        }
        LimitUnit::Requests | LimitUnit::Bytes => {
            if typed.assumed_tokens.is_some() {
                report.key(&path.key("assumed_tokens"), "has no effect without tokens", "");
            }
        }
    }
    (unit, amount)
}

/// `None`: `client_ip`.
pub fn key(typed: Option<&OneOrMany<LimitKey>>, report: &mut Report, path: &KeyPath) -> Vec<LimitKeyPart> {
    let Some(typed) = typed else {
        return vec![LimitKeyPart::ClientIp];
    };
    let mut parts = Vec::new();
    for (path, LimitKey(part)) in typed.under(path) {
        if parts.contains(part) {
            report.value(&path, "must not be there twice", "");
        }
        parts.push(part.clone());
    }
    if parts.is_empty() {
        if !report.is_broken(path) {
            report.value(path, "must have at least one part", "like client_ip");
        }
        parts.push(LimitKeyPart::ClientIp);
    }
    parts
}

fn exempt(typed: &FileExempt, report: &mut Report, path: &KeyPath) -> Exempt {
    let mut exempt = Exempt::default();
    if let Some(addresses) = &typed.addresses {
        let path = path.key("addresses");
        for (path, network) in addresses.under(&path) {
            if network.0.prefix_len() == 0 {
                report.warn(&path, "the limit is for nobody", "");
            }
            exempt.addresses.push(network.0);
        }
    }
    if let Some(headers) = &typed.headers {
        let path = path.key("headers");
        for (path, name, values) in headers.under(&path) {
            if !is_token(name.as_bytes()) {
                report.key(&path, "must be a field name (letters, digits and hyphens)", "");
            }
            for (path, value) in values.under(&path) {
                if value.is_empty() {
                    report.value(&path, "must be a value", "");
                }
                exempt.headers.push((name.to_ascii_lowercase(), value.clone()));
            }
        }
    }
    exempt
}
