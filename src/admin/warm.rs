//! `POST /warm`: filling the cache before clients ask.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Admin;
use super::answer::{Answer, Refusal};
use super::stored;
use super::tasks::{TaskKind, TaskReport, Tasks, Work};
use crate::config::{self, WarmSource, defaults};
use crate::message::RequestHead;
use crate::proxy::Proxy;
use crate::proxy::warm::Warmed;

/// URLs of one request, the hottest included.
const MAX_URLS: usize = 100_000;

/// Requests a second at most.
const MAX_RATE: f64 = 100_000.0;

/// How often a URL that failed is asked for again, when nothing is said and at most.
const RETRIES: u32 = 2;
const MAX_RETRIES: u32 = 10;

/// Before the first of them; each further one waits twice as long.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Failures in a row after which the origin is left alone.
const GIVE_UP_AFTER: u32 = 50;

/// Failures that are told one by one.
const MAX_TOLD: usize = 20;

/// Bytes of a configured list of URLs.
const LARGEST_LIST: u64 = 64 * 1024 * 1024;

/// Between two looks at the clock, for what is to be done every so often.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Between two reports of how far it is.
const REPORT_EVERY: Duration = Duration::from_millis(200);

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
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum WarmUrl {
    Plain(String),
    With(WarmEntry),
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WarmEntry {
    pub url: String,
    /// Fields of the request, for variants.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Higher ones first.
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
pub fn warm(admin: &Admin, request: WarmRequest) -> Result<Answer, Refusal> {
    let report = begin(&admin.proxy, &admin.tasks, request)?;
    Ok(Answer::json(StatusCode::ACCEPTED, &report))
}

fn begin(proxy: &Arc<Proxy>, tasks: &Arc<Tasks>, request: WarmRequest) -> Result<TaskReport, Refusal> {
    let pace = pace(&request)?;
    let wanted = wanted(proxy, request)?;
    let proxy = Arc::clone(proxy);
    let about = format!("{} URLs", wanted.len());
    tasks.start(TaskKind::Warm, about, |work| carried_out(proxy, wanted, pace, work))
}

/// Warms up as the configuration in force says, for as long as the process lives.
pub async fn keep_warm(proxy: Arc<Proxy>, tasks: Arc<Tasks>) {
    let mut last = Instant::now();
    let mut tick = tokio::time::interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let generation = proxy.generation();
    if let Some(warm) = &generation.config.cache.warm
        && warm.on_start
    {
        as_configured(&proxy, &tasks, warm).await;
    }
    drop(generation);
    loop {
        tick.tick().await;
        let generation = proxy.generation();
        let Some(warm) = &generation.config.cache.warm else {
            continue;
        };
        if warm.every.is_some_and(|every| last.elapsed() >= every) {
            last = Instant::now();
            as_configured(&proxy, &tasks, warm).await;
        }
    }
}

async fn as_configured(proxy: &Arc<Proxy>, tasks: &Arc<Tasks>, warm: &config::Warm) {
    let mut request = WarmRequest {
        concurrency: Some(warm.concurrency),
        rate: Some(warm.rate),
        ..WarmRequest::default()
    };
    for source in &warm.sources {
        match source {
            WarmSource::Hottest(count) => request.hottest = Some(request.hottest.unwrap_or(0).max(*count)),
            WarmSource::Urls(file) => match listed(file.clone()).await {
                Ok(urls) => request.urls.extend(urls),
                Err(error) => {
                    tracing::error!(file = %file.display(), %error, "a list of URLs to warm up cannot be read")
                }
            },
        }
    }
    if request.urls.is_empty() && request.hottest.is_none() {
        return;
    }
    if let Err(refusal) = begin(proxy, tasks, request) {
        tracing::error!(?refusal, "the warm-up cannot begin");
    }
}

/// A URL, or an entry in JSON, in each line; empty ones and those that begin with `#` ask for nothing.
async fn listed(file: PathBuf) -> std::io::Result<Vec<WarmUrl>> {
    let read = move || {
        let mut text = String::new();
        std::fs::File::open(&file)?
            .take(LARGEST_LIST)
            .read_to_string(&mut text)?;
        let lines = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let urls = lines.map(|line| match line.starts_with('{') {
            false => Ok(WarmUrl::Plain(line.to_owned())),
            true => serde_json::from_str(line)
                .map(WarmUrl::With)
                .map_err(std::io::Error::other),
        });
        urls.collect()
    };
    // Reads a file.
    tokio::task::spawn_blocking(read).await.map_err(std::io::Error::other)?
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

/// The requests, those with the highest priority first, each once.
fn wanted(proxy: &Proxy, request: WarmRequest) -> Result<Vec<Wanted>, Refusal> {
    let hottest = request.hottest.unwrap_or_default() as usize;
    if request.urls.is_empty() && request.hottest.is_none() {
        return Err(Refusal::Body("The body must have urls or hottest.".to_owned()));
    }
    if request.urls.len().saturating_add(hottest) > MAX_URLS {
        return Err(Refusal::Body(format!("The body asks for more than {MAX_URLS} URLs.")));
    }
    let mut entries: Vec<WarmEntry> = request.urls.into_iter().map(WarmEntry::from).collect();
    let top = proxy.cache.hottest.top(hottest).into_iter();
    entries.extend(top.map(|hot| WarmEntry::from(WarmUrl::Plain(hot.url))));
    // Stable: those of one priority stay in their order.
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.priority));
    let mut seen = std::collections::HashSet::new();
    let mut wanted = Vec::with_capacity(entries.len());
    for entry in entries {
        if !seen.insert((entry.url.clone(), entry.headers.clone())) {
            continue;
        }
        let fields = entry.headers.iter().map(|(name, value)| format!("{name}: {value}"));
        let request = stored::request_with(&entry.url, fields.collect())
            .map_err(|wrong| Refusal::Body(format!("urls: {wrong}.")))?;
        wanted.push(Wanted {
            url: entry.url,
            request,
        });
    }
    Ok(wanted)
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

/// What several requests at once write into.
#[derive(Debug, Default)]
struct Progress {
    report: WarmReport,
    failed_in_a_row: u32,
    stopped: Option<String>,
}

/// When the next request may begin: each takes the place behind the one before it, so that there is never a burst.
#[derive(Debug)]
struct Turns {
    next: Mutex<Instant>,
    distance: Duration,
}

impl Turns {
    async fn mine(&self) {
        let at = {
            let mut next = self.next.lock();
            // What was not used is not made up for.
            let at = (*next).max(Instant::now());
            *next = at + self.distance;
            at
        };
        tokio::time::sleep_until(at).await;
    }
}

async fn carried_out(
    proxy: Arc<Proxy>,
    wanted: Vec<Wanted>,
    pace: Pace,
    work: Arc<Work>,
) -> Result<serde_json::Value, String> {
    let progress = Arc::new(Mutex::new(Progress::default()));
    progress.lock().report.total = wanted.len() as u64;
    let turns = Arc::new(Turns {
        next: Mutex::new(Instant::now()),
        distance: pace.distance,
    });
    // Taken from the end.
    let rest: Vec<Wanted> = wanted.into_iter().rev().collect();
    let rest = Arc::new(Mutex::new(rest));
    let mut workers = JoinSet::new();
    for _ in 0..pace.concurrency {
        let (proxy, rest, turns, progress) = (proxy.clone(), rest.clone(), turns.clone(), progress.clone());
        workers.spawn(async move {
            while progress.lock().stopped.is_none() {
                let next = rest.lock().pop();
                let Some(wanted) = next else { return };
                one(&proxy, wanted, pace.retries, &turns, &progress).await;
            }
        });
    }
    let mut tick = tokio::time::interval(REPORT_EVERY);
    loop {
        tokio::select! {
            ended = workers.join_next() => if ended.is_none() { break },
            _ = tick.tick() => work.progress(json!(progress.lock().report)),
        }
    }
    let Progress { report, stopped, .. } = &*progress.lock();
    tracing::info!(
        total = report.total,
        stored = report.stored,
        fresh = report.fresh,
        failed = report.failed,
        "warmed up"
    );
    work.progress(json!(report));
    match stopped {
        None => Ok(json!(report)),
        Some(why) => Err(why.clone()),
    }
}

async fn one(proxy: &Arc<Proxy>, wanted: Wanted, retries: u32, turns: &Turns, progress: &Mutex<Progress>) {
    let mut delay = RETRY_DELAY;
    for attempt in 0..=retries {
        turns.mine().await;
        let warmed = proxy.warm(wanted.request.clone()).await;
        let failure = {
            let progress = &mut *progress.lock();
            let report = &mut progress.report;
            let done = match warmed {
                Warmed::Stored => &mut report.stored,
                Warmed::Fresh => &mut report.fresh,
                Warmed::NotStored => &mut report.not_stored,
                Warmed::NoRoute => &mut report.no_route,
                Warmed::Failed(_) | Warmed::Unavailable(_) => &mut report.failed,
            };
            match warmed {
                Warmed::Failed(reason) if attempt < retries && progress.stopped.is_none() => {
                    report.retries += 1;
                    Some(reason)
                }
                Warmed::Failed(reason) | Warmed::Unavailable(reason) => {
                    *done += 1;
                    report.done += 1;
                    if report.failures.len() < MAX_TOLD {
                        report.failures.push(WarmFailure {
                            url: wanted.url.clone(),
                            reason: reason.to_owned(),
                        });
                    }
                    progress.failed_in_a_row += 1;
                    if matches!(warmed, Warmed::Unavailable(_)) || progress.failed_in_a_row >= GIVE_UP_AFTER {
                        progress.stopped = Some(format!("stopped, to spare the upstream: {reason}"));
                    }
                    None
                }
                Warmed::Stored | Warmed::Fresh | Warmed::NotStored | Warmed::NoRoute => {
                    *done += 1;
                    report.done += 1;
                    progress.failed_in_a_row = 0;
                    None
                }
            }
        };
        if failure.is_none() {
            return;
        }
        tokio::time::sleep(delay).await;
        delay *= 2;
    }
}
