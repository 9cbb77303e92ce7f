//! Active health: each server is asked whether it is well, again and again.

mod ask;

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::JoinSet;

pub use self::ask::NotWell;

use self::ask::Manner;

use super::health::State;
use super::{Server, ServerId, Upstream};
use crate::config::HealthCheck;

/// How often is looked for servers that have come or gone.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Part of the interval by which a pause is longer or shorter, so that the probes of several instances and servers do not stay together.
const JITTER: f64 = 0.1;

/// What the latest probe of a server means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// Nothing new.
    Nothing,
    Well,
    NotWell,
    /// It answers well although it is left out for its failures: its time is over early.
    Recovered,
}

/// Counts the answers of one server.
#[derive(Debug, Clone)]
struct Tally {
    unhealthy_threshold: u32,
    healthy_threshold: u32,
    state: State,
    /// Answers in a row that speak against `state`.
    against: u32,
    /// Good answers in a row while it was ejected.
    good_while_ejected: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Good,
    Bad,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    In,
    /// Left out because requests failed.
    Ejected,
}

impl Tally {
    fn new(check: &HealthCheck, state: State) -> Self {
        Self {
            unhealthy_threshold: check.unhealthy_threshold,
            healthy_threshold: check.healthy_threshold,
            state,
            against: 0,
            good_while_ejected: 0,
        }
    }

    /// The first answer decides; after it, as many as the thresholds say.
    fn count(&mut self, answer: Answer, standing: Standing) -> Finding {
        self.good_while_ejected = match (answer, standing) {
            (Answer::Good, Standing::Ejected) => self.good_while_ejected.saturating_add(1),
            _ => 0,
        };
        let (threshold, next, finding) = match (self.state, answer) {
            (State::Unknown, Answer::Good) => (1, State::Healthy, Finding::Well),
            (State::Unknown, Answer::Bad) => (1, State::Unhealthy, Finding::NotWell),
            (State::Healthy, Answer::Bad) => (self.unhealthy_threshold, State::Unhealthy, Finding::NotWell),
            (State::Unhealthy, Answer::Good) => (self.healthy_threshold, State::Healthy, Finding::Well),
            (State::Healthy, Answer::Good) if self.good_while_ejected >= self.healthy_threshold => {
                self.against = 0;
                self.good_while_ejected = 0;
                return Finding::Recovered;
            }
            (State::Healthy, Answer::Good) | (State::Unhealthy, Answer::Bad) => {
                self.against = 0;
                return Finding::Nothing;
            }
        };
        self.against = self.against.saturating_add(1);
        if self.against < threshold {
            return Finding::Nothing;
        }
        self.state = next;
        self.against = 0;
        finding
    }
}

/// Probes all servers of an upstream, also those that come later, for as long as the upstream is there.
pub(super) async fn probe_all(upstream: Weak<Upstream>, check: HealthCheck) {
    let check = Arc::new(check);
    // Ended when this is.
    let mut tasks = JoinSet::new();
    let mut probed: HashMap<ServerId, tokio::task::AbortHandle> = HashMap::new();
    let mut every = tokio::time::interval(LOOK_EVERY);
    loop {
        every.tick().await;
        let Some(zone) = upstream.upgrade().map(|upstream| upstream.zone()) else {
            return;
        };
        let servers: HashMap<ServerId, &Arc<Server>> = zone
            .members()
            .iter()
            .map(|member| (member.server.id, &member.server))
            .collect();
        probed.retain(|id, task| {
            let stays = servers.contains_key(id) && !task.is_finished();
            if !stays {
                task.abort();
            }
            stays
        });
        while tasks.try_join_next().is_some() {}
        for (id, server) in servers {
            let probe = || tasks.spawn(probe_one(upstream.clone(), server.clone(), check.clone()));
            probed.entry(id).or_insert_with(probe);
        }
    }
}

async fn probe_one(upstream: Weak<Upstream>, server: Arc<Server>, check: Arc<HealthCheck>) {
    let mut tally = Tally::new(&check, server.health.state());
    loop {
        let Some(manner) = upstream
            .upgrade()
            .map(|upstream| Manner::of(&upstream, &server, &check))
        else {
            return;
        };
        let result = ask::ask(&server, &check, &manner).await;
        let Some(upstream) = upstream.upgrade() else {
            return;
        };
        let answer = match &result {
            Ok(()) => Answer::Good,
            Err(_) => Answer::Bad,
        };
        let standing = match server.health.is_ejected() {
            true => Standing::Ejected,
            false => Standing::In,
        };
        let finding = tally.count(answer, standing);
        upstream.probed(&server, finding, result.as_ref().err());
        drop(upstream);
        let factor = 1.0 + JITTER * (2.0 * fastrand::f64() - 1.0);
        tokio::time::sleep(check.interval.mul_f64(factor)).await;
    }
}

#[cfg(test)]
mod tests;
