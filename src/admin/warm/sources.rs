//! Where the configuration has URLs from that are asked for before clients do: on start, again and again, and after purges.

use std::io::{BufReader, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::access_log::{self, LogError};
use super::sitemap::{LARGEST, MAX_SITEMAPS, Sitemap};
use super::{MAX_URLS, Pace, WarmEntry, WarmFailure, WarmReport, WarmUrl, priority, rewarm, run, wanted};
use crate::admin::stored;
use crate::admin::tasks::{TaskKind, TaskState, Tasks, Work};
use crate::cache::hottest;
use crate::config::{self, WarmSource};
use crate::proxy::Proxy;

/// Bytes of a configured list of URLs.
const LARGEST_LIST: u64 = 64 * 1024 * 1024;

/// Bytes of an access log that are read, from its end: what was asked for last says most about what will be.
const LARGEST_LOG: u64 = 256 * 1024 * 1024;

/// Between two looks at the clock, for what is to be done every so often.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Between two looks at how much the hottest keys are asked for; see [`hottest::Hottest::tick`].
const TICK_EVERY: Duration = Duration::from_secs(2);

/// How long the first warm-up waits for Redis: before it is there, nothing would be stored in it, and the hottest keys are not known.
const WAIT_FOR_REDIS: Duration = Duration::from_secs(5);

/// Warms up as the configuration in force says, for as long as the process lives.
pub async fn keep_warm(proxy: Arc<Proxy>, tasks: Arc<Tasks>) {
    let mut purged = proxy.purged_to_warm();
    let mut tick = tokio::time::interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut last = Instant::now();
    let (mut ticked, mut told) = (last, last);
    let mut running = None;
    let generation = proxy.generation();
    if let Some(warm) = generation.config.cache.warm.as_ref().filter(|warm| warm.on_start) {
        running = as_configured(&proxy, &tasks, warm);
    }
    drop(generation);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            Some(again) = purged.recv() => {
                rewarm(&proxy, &tasks, again);
                continue;
            }
        }
        if ticked.elapsed() >= TICK_EVERY {
            ticked = Instant::now();
            proxy.cache.hottest.tick();
        }
        if told.elapsed() >= hottest::shared::EVERY {
            told = Instant::now();
            proxy.tell_hottest().await;
        }
        let generation = proxy.generation();
        let Some(warm) = &generation.config.cache.warm else {
            continue;
        };
        if warm.every.is_some_and(|every| last.elapsed() >= every) {
            last = Instant::now();
            let is_busy = |id: &String| tasks.one(id).is_ok_and(|task| task.state == TaskState::Running);
            match running.as_ref().is_some_and(is_busy) {
                true => tracing::warn!("the warm-up before is not over: this one is left out"),
                false => running = as_configured(&proxy, &tasks, warm),
            }
        }
    }
}

/// Begins what the configuration says, as a task. Answers its id.
fn as_configured(proxy: &Arc<Proxy>, tasks: &Arc<Tasks>, warm: &config::Warm) -> Option<String> {
    if warm.sources.is_empty() {
        return None;
    }
    let (proxy, warm) = (proxy.clone(), warm.clone());
    let about = "as configured".to_owned();
    match tasks.start(TaskKind::Warm, about, |work| all(proxy, warm, work)) {
        Ok(report) => Some(report.id),
        Err(refusal) => {
            tracing::error!(?refusal, "the warm-up cannot begin");
            None
        }
    }
}

async fn all(proxy: Arc<Proxy>, warm: config::Warm, work: Arc<Work>) -> Result<serde_json::Value, String> {
    if let Some(l2) = &proxy.cache.l2 {
        let deadline = Instant::now() + WAIT_FOR_REDIS;
        while !l2.is_available() && Instant::now() < deadline {
            tokio::time::sleep(LOOK_EVERY / 10).await;
        }
    }
    let mut entries = Vec::new();
    for source in &warm.sources {
        work.progress(json!({ "reads": source.to_string() }));
        match read(&proxy, source).await {
            Ok(read) => entries.extend(read),
            Err(error) => {
                tracing::error!(%source, error, "a source of URLs to warm up cannot be read");
                if warm.sources.len() == 1 {
                    return Err(format!("{source}: {error}"));
                }
            }
        }
    }
    let (wanted, wrong) = wanted(&mut entries);
    drop(entries);
    let mut report = WarmReport {
        total: (wanted.len() + wrong.len()) as u64,
        done: wrong.len() as u64,
        failed: wrong.len() as u64,
        ..WarmReport::default()
    };
    report.failures = wrong.into_iter().take(run::MAX_TOLD).collect::<Vec<WarmFailure>>();
    run::carried_out(proxy, wanted, report, Pace::of(Some(&warm)), work).await
}

async fn read(proxy: &Arc<Proxy>, source: &WarmSource) -> Result<Vec<WarmEntry>, String> {
    match source {
        WarmSource::Hottest(count) => Ok(hottest(proxy, *count as usize).await),
        WarmSource::Urls(file) => {
            let file = file.clone();
            let urls = reading(move || listed(&file).map_err(|error| error.to_string())).await?;
            Ok(urls.into_iter().map(WarmEntry::from).collect())
        }
        WarmSource::Sitemap(url) => sitemap(proxy, url).await,
        WarmSource::AccessLog { file, site, most } => {
            let (file, site, most) = (file.clone(), site.clone().unwrap_or_default(), *most as usize);
            let counted = reading(move || {
                let log = end_of(&file).map_err(LogError::from);
                let ranked = log.and_then(|log| access_log::ranked(log, &site, most));
                ranked.map_err(|error| error.to_string())
            });
            Ok(counted.await?.into_iter().map(counted_entry).collect())
        }
    }
}

/// Reads a file where nobody waits for it.
async fn reading<T: Send + 'static>(read: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    match tokio::task::spawn_blocking(read).await {
        Ok(result) => result,
        Err(error) => Err(error.to_string()),
    }
}

/// So many of the hottest keys.
pub(super) async fn hottest(proxy: &Proxy, count: usize) -> Vec<WarmEntry> {
    let hot = proxy.hottest(count).await.into_iter();
    hot.map(|hot| counted_entry((hot.url, hot.requests))).collect()
}

fn counted_entry((url, requests): (String, u64)) -> WarmEntry {
    WarmEntry {
        priority: priority(requests),
        ..WarmEntry::from(WarmUrl::Plain(url))
    }
}

/// A URL, or an entry in JSON, in each line; empty ones and those that begin with `#` ask for nothing.
fn listed(file: &PathBuf) -> std::io::Result<Vec<WarmUrl>> {
    let mut text = String::new();
    std::fs::File::open(file)?
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
}

/// The last part of a log. It may begin within a line, which then is none.
fn end_of(file: &PathBuf) -> std::io::Result<BufReader<std::io::Take<std::fs::File>>> {
    let mut log = std::fs::File::open(file)?;
    let length = log.metadata()?.len();
    log.seek(SeekFrom::Start(length.saturating_sub(LARGEST_LOG)))?;
    Ok(BufReader::new(log.take(LARGEST_LOG)))
}

/// The URLs of a sitemap, or of those that an index names. They are asked for like any other URL: where a route leads.
async fn sitemap(proxy: &Arc<Proxy>, url: &str) -> Result<Vec<WarmEntry>, String> {
    let first = fetched(proxy, url).await?;
    let mut urls = first.urls;
    // An index names no other index.
    for place in first.sitemaps.iter().take(MAX_SITEMAPS) {
        if urls.len() >= MAX_URLS {
            break;
        }
        match fetched(proxy, place).await {
            Ok(sitemap) => urls.extend(sitemap.urls),
            Err(error) => tracing::warn!(sitemap = place, error, "a sitemap of an index is left out"),
        }
    }
    urls.truncate(MAX_URLS);
    let entries = urls.into_iter().map(|(url, priority)| WarmEntry {
        priority,
        ..WarmEntry::from(WarmUrl::Plain(url))
    });
    Ok(entries.collect())
}

async fn fetched(proxy: &Arc<Proxy>, url: &str) -> Result<Sitemap, String> {
    let request = stored::request_for(url)?;
    let limit = usize::try_from(LARGEST).unwrap_or(usize::MAX);
    let body = proxy
        .read_own(request, limit)
        .await
        .map_err(|error| error.to_string())?;
    // Unpacks and reads up to 50 MiB.
    reading(move || Sitemap::read(body).map_err(|error| error.to_string())).await
}
