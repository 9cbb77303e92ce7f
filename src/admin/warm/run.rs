//! A warm-up under way: several requests at once, at the rate that was asked for, until all is done or the upstream has to be spared.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Pace, Wanted, WarmFailure, WarmReport};
use crate::admin::tasks::Work;
use crate::proxy::Proxy;
use crate::proxy::warm::Warmed;

/// Before the first retry; each further one waits twice as long.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Failures in a row after which the origin is left alone.
const GIVE_UP_AFTER: u32 = 50;

/// Failures that are told one by one.
pub(super) const MAX_TOLD: usize = 20;

/// Between two reports of how far it is.
const REPORT_EVERY: Duration = Duration::from_millis(200);

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

/// Asks for all of it. `report` is what is known before.
pub(super) async fn carried_out(
    proxy: Arc<Proxy>,
    wanted: Vec<Wanted>,
    report: WarmReport,
    pace: Pace,
    work: Arc<Work>,
) -> Result<serde_json::Value, String> {
    let progress = Arc::new(Mutex::new(Progress {
        report,
        ..Progress::default()
    }));
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
