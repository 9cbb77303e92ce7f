//! What an upstream does beside its requests, for as long as its configuration is in force.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinSet;

use super::{Upstream, discovery};

/// How often connections that have been idle for too long are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// The tasks of one upstream. They hold it weakly, and end with it at the latest.
#[derive(Debug, Default)]
pub struct Upkeep(Mutex<JoinSet<()>>);

impl Upstream {
    /// Begins the upkeep, once. Has to be called in a runtime of tokio; the tasks run there.
    pub fn start(self: &Arc<Self>) {
        let mut tasks = self.upkeep.0.lock();
        if tasks.is_empty() {
            tasks.spawn(sweep(Arc::downgrade(self)));
            tasks.spawn(discovery::resolve(Arc::downgrade(self)));
            if self.config.servers_file.is_some() {
                tasks.spawn(discovery::watch_file(Arc::downgrade(self)));
            }
        }
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
            Some(upstream) => upstream.sweep(),
            None => return,
        }
    }
}
