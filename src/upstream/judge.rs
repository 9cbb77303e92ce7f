//! What follows from what servers do: ejections, and what probes find.

use std::sync::Arc;

use tokio::time::Instant;

use super::breaker::Verdict;
use super::health::State;
use super::outlier::{Advice, Servers, may_eject};
use super::passage::is_gateway_failure;
use super::probe::{Finding, NotWell};
use super::{Event, Server, Upstream};
use crate::metrics::Outcome;

impl Upstream {
    /// What came of an attempt at one of the servers: the one place where all of them are told.
    pub fn record(self: &Arc<Self>, server: &Server, event: Event) {
        match event {
            Event::Response { status, latency, at } => {
                self.metrics.duration(latency);
                if is_gateway_failure(status) {
                    // It says itself that it has not done the work, which can be said quickly.
                    server.load.failed(at);
                    self.failed(server);
                    return;
                }
                server.load.answered(latency, at);
                if server.health.is_on_probation() {
                    // Others wait for its answer: not until its end, which may be hours away.
                    self.succeeded(server);
                }
            }
            Event::Failed(outcome) => {
                server.metrics.outcome(outcome);
                self.ended(server, outcome);
            }
            Event::Ended(outcome) => {
                server.metrics.outcome(outcome);
                self.ended(server, outcome);
                if let Some(breaker) = &self.breaker {
                    let verdict = match outcome {
                        Outcome::Ok => Verdict::Success,
                        _ if outcome.speaks_against_server() => Verdict::Failure,
                        _ => Verdict::Unknown,
                    };
                    breaker.note(verdict, self.clock.running());
                }
            }
        }
    }

    fn ended(self: &Arc<Self>, server: &Server, outcome: Outcome) {
        if outcome.is_failure() {
            server.load.failed(Instant::now());
        }
        if outcome.speaks_against_server() {
            self.failed(server);
        } else if outcome == Outcome::Ok && server.health.is_suspect() {
            self.succeeded(server);
        }
    }

    fn succeeded(&self, server: &Server) {
        let mut record = server.health.record.lock();
        record.succeeded();
        if record.is_clean() {
            server.health.trust();
        }
    }

    fn failed(self: &Arc<Self>, server: &Server) {
        let Some(policy) = &self.config.outlier else {
            return;
        };
        let advice = {
            let mut record = server.health.record.lock();
            server.health.suspect();
            record.failed(policy)
        };
        if advice == Advice::Keep {
            return;
        }
        // Held, so that two servers that fail at once do not both take the last place.
        let members = self.members.lock();
        if server.health.is_ejected() {
            return;
        }
        let others = members
            .iter()
            .map(|member| &*member.server)
            .filter(|other| other.id != server.id);
        let servers = Servers {
            all: members.len(),
            ejected: others.clone().filter(|other| other.health.is_ejected()).count(),
            others_usable: others.filter(|other| other.health.is_usable()).count(),
        };
        if !may_eject(policy, servers) {
            return;
        }
        let time = server.health.record.lock().eject(self.clock.running(), policy);
        server.health.set_ejected(Instant::now());
        drop(members);
        self.refresh();
        tracing::warn!(
            upstream = &*self.config.name,
            server = &*server.label,
            eject_for = ?time,
            "server ejected: its answers were failures"
        );
    }

    /// Takes back servers whose ejection is over.
    pub(super) fn readmit(self: &Arc<Self>) {
        let mut changed = false;
        for member in self.zone().members() {
            let server = &member.server;
            if server.health.is_ejected()
                && (self.config.outlier.is_none() || server.health.record.lock().expires(self.clock.running()))
            {
                changed |= server.health.readmit(Instant::now());
                tracing::info!(
                    upstream = &*self.config.name,
                    server = &*server.label,
                    "server back: its ejection is over"
                );
            }
        }
        if changed {
            self.refresh();
        }
    }

    /// What a probe has found. `reason` is why the server is not well.
    pub(super) fn probed(self: &Arc<Self>, server: &Server, finding: Finding, reason: Option<&NotWell>) {
        let now = Instant::now();
        let (upstream, label) = (&*self.config.name, &*server.label);
        let changed = match finding {
            Finding::Nothing => return,
            Finding::Well => {
                let changed = server.health.set_state(State::Healthy, now);
                if changed {
                    tracing::info!(upstream, server = label, "server healthy");
                }
                changed
            }
            Finding::NotWell => {
                let changed = server.health.set_state(State::Unhealthy, now);
                if let (true, Some(reason)) = (changed, reason) {
                    tracing::warn!(upstream, server = label, %reason, "server unhealthy");
                }
                changed
            }
            Finding::Recovered => {
                let changed = server.health.record.lock().recovers(self.clock.running()) && server.health.readmit(now);
                if changed {
                    tracing::info!(upstream, server = label, "server back: its probes go well again");
                }
                changed
            }
        };
        if changed {
            self.refresh();
        }
    }
}
