//! New connections wait their turn behind the work that is under way.
//!
//! A runtime treats all tasks alike: when a thousand clients connect at once, a thousand tasks take each step together, and nobody gets a
//! first byte before everybody has been accepted, parsed and connected. Letting them in a few at a time, each time the runtime has looked at
//! its sockets, serves them in the order in which they came; the last of them waits no longer than before.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use pingora_core::listeners::ConnectionFilter;
use tokio::sync::Semaphore;

/// Connections let in at once. Each takes the runtime a handful of steps up to its request's way to the origin, and it looks at its
/// sockets every 61 steps.
const BATCH: usize = 8;

/// The turnstile of one listener.
#[derive(Debug, Clone)]
pub struct Admission(Arc<Turnstile>);

#[derive(Debug)]
struct Turnstile {
    free: Semaphore,
    turning: AtomicBool,
}

impl Default for Admission {
    fn default() -> Self {
        Self(Arc::new(Turnstile {
            free: Semaphore::new(BATCH),
            turning: AtomicBool::new(false),
        }))
    }
}

#[async_trait]
impl ConnectionFilter for Admission {
    /// Lets every connection in, when it is its turn. The next one is accepted behind it and waits in the listener's queue until then.
    async fn should_accept(&self, _: Option<&SocketAddr>) -> bool {
        self.enter().await;
        true
    }
}

impl Admission {
    /// Waits for its turn, first come, first served.
    async fn enter(&self) {
        // Never closed, so there is always a turn.
        if let Ok(turn) = self.0.free.acquire().await {
            turn.forget();
        }
        if !self.0.turning.swap(true, Ordering::AcqRel) {
            tokio::spawn(self.clone().turn());
        }
    }

    /// Lets the next ones in after each look at the sockets, until all turns are free again.
    async fn turn(self) {
        loop {
            tokio::task::yield_now().await;
            let used = BATCH.saturating_sub(self.0.free.available_permits());
            if used > 0 {
                self.0.free.add_permits(used);
                continue;
            }
            self.0.turning.store(false, Ordering::Release);
            // Whoever took a turn in between has seen this task still at work.
            if self.0.free.available_permits() == BATCH || self.0.turning.swap(true, Ordering::AcqRel) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[tokio::test]
    async fn everybody_gets_in_in_order_and_few_at_a_time() {
        let admission = Admission::default();
        let entered = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for number in 0..100 {
            let (admission, entered) = (admission.clone(), entered.clone());
            tasks.push(tokio::spawn(async move {
                admission.enter().await;
                entered.lock().unwrap().push(number);
            }));
        }
        // The first round of polls: nothing has turned yet.
        tokio::task::yield_now().await;
        assert!(entered.lock().unwrap().len() <= 2 * BATCH);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*entered.lock().unwrap(), (0..100).collect::<Vec<_>>());
        // It can come to rest, and start again.
        while admission.0.turning.load(Ordering::Acquire) {
            tokio::task::yield_now().await;
        }
        assert_eq!(admission.0.free.available_permits(), BATCH);
        admission.enter().await;
    }
}
