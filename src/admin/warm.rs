//! Filling the cache before clients ask: `POST /warm`, what the configuration says ([`sources`]), and what has been purged.

pub mod access_log;
mod run;
pub mod sitemap;
pub mod sources;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::Admin;
use super::answer::{Answer, Refusal};
use super::stored;
use super::tasks::{TaskKind, TaskReport, Tasks};
use crate::config::{self, defaults};
use crate::message::RequestHead;
use crate::proxy::Proxy;
use crate::proxy::rewarm::Again;

/// URLs of one request, the hottest included.
const MAX_URLS: usize = 100_000;

/// Requests a second at most.
const MAX_RATE: f64 = 100_000.0;

/// How often a URL that failed is asked for again, when nothing is said and at most.
const RETRIES: u32 = 2;
const MAX_RETRIES: u32 = 10;

/// What is to be asked for: URLs, the hottest keys, or both.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WarmRequest {
    pub urls: Vec<WarmUrl>,
    /// So many of the keys that are asked for most.
    pub hottest: Option<u32>,
    /// Requests at once. Default: 8.
    pub concurrency: Option<u32>,
    /// Requests a second. Default: 50.
    pub rate: Option<f64>,
    /// How often a URL that failed is asked for again. Default: 2.
    pub retries: Option<u32>,
}

/// A URL, alone or with what belongs to it.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(untagged)]
pub enum WarmUrl {
    Plain(String),
    With(WarmEntry),
}

/// By hand, so that it is said what is wrong with an entry.
impl<'de> Deserialize<'de> for WarmUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = WarmUrl;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a URL, or an object with url, headers and priority")
            }

            fn visit_str<E: de::Error>(self, url: &str) -> Result<WarmUrl, E> {
                Ok(WarmUrl::Plain(url.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<WarmUrl, A::Error> {
                WarmEntry::deserialize(MapAccessDeserializer::new(map)).map(WarmUrl::With)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WarmEntry {
    pub url: String,
    /// Fields of the request, for variants.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// A whole number; higher ones first.
    #[serde(default)]
    pub priority: i32,
}

/// How far a warm-up is.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct WarmReport {
    pub total: u64,
    /// URLs that are done with, whatever came of them.
    pub done: u64,
    /// Fetched and stored.
    pub stored: u64,
    /// There was a fresh response already.
    pub fresh: u64,
    /// Answered, and not to be stored.
    pub not_stored: u64,
    /// No route that caches takes it.
    pub no_route: u64,
    pub failed: u64,
    pub retries: u64,
    /// Some of those that failed, with why.
    pub failures: Vec<WarmFailure>,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct WarmFailure {
    pub url: String,
    pub reason: String,
}

/// One request to be made.
struct Wanted {
    url: String,
    request: RequestHead,
}

/// How it is gone about.
#[derive(Debug, Clone, Copy)]
struct Pace {
    concurrency: usize,
    /// Between the begins of two requests.
    distance: Duration,
    retries: u32,
}

/// # Errors
/// The request is not what it has to be.
pub async fn warm(admin: &Admin, request: WarmRequest) -> Result<Answer, Refusal> {
    let pace = pace(&request)?;
    let hottest = request.hottest.unwrap_or_default() as usize;
    if request.urls.is_empty() && request.hottest.is_none() {
        return Err(Refusal::Body("The body must have urls or hottest.".to_owned()));
    }
    if request.urls.len().saturating_add(hottest) > MAX_URLS {
        return Err(Refusal::Body(format!("The body asks for more than {MAX_URLS} URLs.")));
    }
    let mut entries: Vec<WarmEntry> = request.urls.into_iter().map(WarmEntry::from).collect();
    let (wanted, wrong) = wanted(&mut entries);
    if let Some(wrong) = wrong.into_iter().next() {
        return Err(Refusal::Body(format!("urls: {}.", wrong.reason)));
    }
    let report = match hottest {
        0 => begin(&admin.proxy, &admin.tasks, wanted, Vec::new(), pace)?,
        hottest => {
            entries.extend(sources::hottest(&admin.proxy, hottest).await);
            let (wanted, wrong) = self::wanted(&mut entries);
            begin(&admin.proxy, &admin.tasks, wanted, wrong, pace)?
        }
    };
    Ok(Answer::json(StatusCode::ACCEPTED, &report))
}

/// Has what has been purged asked for again. `None`: there is nothing, or there are too many tasks.
pub fn rewarm(proxy: &Arc<Proxy>, tasks: &Arc<Tasks>, again: Vec<Again>) -> Option<TaskReport> {
    if again.is_empty() {
        return None;
    }
    let mut entries: Vec<WarmEntry> = again.into_iter().map(WarmEntry::from).collect();
    let (wanted, wrong) = wanted(&mut entries);
    let pace = Pace::of(proxy.generation().config.cache.warm.as_ref());
    match begin(proxy, tasks, wanted, wrong, pace) {
        Ok(report) => Some(report),
        Err(refusal) => {
            tracing::warn!(?refusal, "what has been purged is not warmed up again");
            None
        }
    }
}

fn begin(
    proxy: &Arc<Proxy>,
    tasks: &Arc<Tasks>,
    wanted: Vec<Wanted>,
    wrong: Vec<WarmFailure>,
    pace: Pace,
) -> Result<TaskReport, Refusal> {
    let mut report = WarmReport {
        total: (wanted.len() + wrong.len()) as u64,
        done: wrong.len() as u64,
        failed: wrong.len() as u64,
        failures: wrong,
        ..WarmReport::default()
    };
    report.failures.truncate(run::MAX_TOLD);
    let proxy = Arc::clone(proxy);
    let about = format!("{} URLs", report.total);
    tasks.start(TaskKind::Warm, about, |work| {
        run::carried_out(proxy, wanted, report, pace, work)
    })
}

fn pace(request: &WarmRequest) -> Result<Pace, Refusal> {
    let concurrency = request.concurrency.unwrap_or(defaults::WARM_CONCURRENCY);
    if !(1..=defaults::WARM_MAX_CONCURRENCY).contains(&concurrency) {
        let most = defaults::WARM_MAX_CONCURRENCY;
        return Err(Refusal::Body(format!("concurrency: must be from 1 to {most}.")));
    }
    let rate = request.rate.unwrap_or(defaults::WARM_RATE);
    if !(rate > 0.0 && rate <= MAX_RATE) {
        return Err(Refusal::Body(format!(
            "rate: must be greater than 0 and at most {MAX_RATE}."
        )));
    }
    let retries = request.retries.unwrap_or(RETRIES);
    if retries > MAX_RETRIES {
        return Err(Refusal::Body(format!("retries: must be at most {MAX_RETRIES}.")));
    }
    // Less than one in a day is as good as none.
    let distance = Duration::try_from_secs_f64(1.0 / rate).unwrap_or(Duration::MAX);
    if distance > Duration::from_secs(86_400) {
        return Err(Refusal::Body("rate: must be at least one in a day.".to_owned()));
    }
    Ok(Pace {
        concurrency: concurrency as usize,
        distance,
        retries,
    })
}

impl Pace {
    /// As the configuration says, or leaves it.
    fn of(warm: Option<&config::Warm>) -> Self {
        let rate = warm.map_or(defaults::WARM_RATE, |warm| warm.rate);
        Self {
            concurrency: warm.map_or(defaults::WARM_CONCURRENCY, |warm| warm.concurrency) as usize,
            distance: Duration::try_from_secs_f64(1.0 / rate).unwrap_or(Duration::MAX),
            retries: RETRIES,
        }
    }
}

/// The requests, those with the highest priority first, each once and no more than there may be; and what cannot be asked for.
fn wanted(entries: &mut [WarmEntry]) -> (Vec<Wanted>, Vec<WarmFailure>) {
    // Stable: those of one priority stay in their order.
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.priority));
    let mut seen = HashSet::new();
    let (mut wanted, mut wrong) = (Vec::new(), Vec::new());
    for entry in entries.iter() {
        if wanted.len() >= MAX_URLS {
            break;
        }
        if !seen.insert((&entry.url, &entry.headers)) {
            continue;
        }
        let fields = entry.headers.iter().map(|(name, value)| format!("{name}: {value}"));
        match stored::request_with(&entry.url, fields.collect()) {
            Ok(request) => wanted.push(Wanted {
                url: entry.url.clone(),
                request,
            }),
            Err(reason) => wrong.push(WarmFailure {
                url: entry.url.clone(),
                reason,
            }),
        }
    }
    (wanted, wrong)
}

impl From<WarmUrl> for WarmEntry {
    fn from(url: WarmUrl) -> Self {
        match url {
            WarmUrl::With(entry) => entry,
            WarmUrl::Plain(url) => Self {
                url,
                headers: BTreeMap::new(),
                priority: 0,
            },
        }
    }
}

impl From<Again> for WarmEntry {
    fn from(again: Again) -> Self {
        Self {
            url: again.url,
            headers: again.fields.into_iter().collect(),
            priority: priority(again.requests),
        }
    }
}

/// What is asked for more goes first.
fn priority(requests: u64) -> i32 {
    i32::try_from(requests).unwrap_or(i32::MAX)
}
