//! What an upstream does beside its requests, for as long as its configuration is in force.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::health::State;
use super::{Upstream, discovery, probe};
use crate::metrics::UpstreamGauges;

/// How often connections that have been idle for too long are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// The tasks of one upstream. They hold it weakly, and end with it at the latest.
#[derive(Debug, Default)]
pub struct Upkeep(Mutex<JoinSet<()>>);

impl Upstream {
    /// Begins the upkeep, once. Has to be called in a runtime of tokio; the tasks run there.
    pub fn start(self: &Arc<Self>) {
        let mut tasks = self.upkeep.0.lock();
        if !tasks.is_empty() {
            return;
        }
        tasks.spawn(sweep(Arc::downgrade(self)));
        tasks.spawn(discovery::resolve(Arc::downgrade(self)));
        if self.config.servers_file.is_some() {
            tasks.spawn(discovery::watch_file(Arc::downgrade(self)));
        }
        match &self.config.health_check {
            Some(check) => drop(tasks.spawn(probe::probe_all(Arc::downgrade(self), check.clone()))),
            None => self.forget_probes(),
        }
        let upstream = Arc::downgrade(self);
        self.metrics.observe(move || Some(upstream.upgrade()?.gauges()));
    }

    /// What probes of an earlier configuration have found holds no longer.
    fn forget_probes(self: &Arc<Self>) {
        let mut changed = false;
        for member in self.zone().members() {
            changed |= member.server.health.set_state(State::Unknown, Instant::now());
        }
        if changed {
            self.refresh();
        }
    }

    fn gauges(&self) -> UpstreamGauges {
        let mut healthy = BTreeMap::new();
        for member in self.zone().members() {
            let count: &mut u64 = healthy.entry(member.server.label.clone()).or_default();
            *count += u64::from(member.server.health.is_usable());
        }
        let circuit = self.breaker.as_ref().map(|breaker| breaker.state() as u64);
        UpstreamGauges { circuit, healthy }
    }

    /// Ends the upkeep: another configuration is in force. Exchanges that are under way go on.
    pub fn stop(&self) {
        self.upkeep.0.lock().abort_all();
    }
}

async fn sweep(upstream: Weak<Upstream>) {
    let mut every = tokio::time::interval(SWEEP_EVERY);
    loop {
        every.tick().await;
        match upstream.upgrade() {
            Some(upstream) => {
                upstream.sweep();
                upstream.readmit();
            }
            None => return,
        }
    }
}
