//! Threads for work that would hold up requests.
//!
//! What somebody waits for goes first, on a few threads. What nobody waits for has one thread of its own that the kernel lets run when nothing
//! else wants to, and that rests as long as it has worked.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::time::Instant;

/// Threads for what somebody waits for: as many as there are cores, but no more than these.
const MAX_WAITED_FOR: usize = 4;

/// Work that may wait for the thread that has time. More is not begun; whoever asks again brings it up again.
const MAX_IDLE: usize = 1024;

/// How nice the thread for idle work is: the most that there is.
const NICENESS: i32 = 19;

/// The longest rest after a piece of idle work.
const LONGEST_REST: Duration = Duration::from_secs(5);

type Job = Box<dyn FnOnce() + Send>;

/// The threads and what waits for them. They are started by the first work, and end when this is dropped.
#[derive(Debug, Default)]
pub struct Workers(Arc<Shared>);

#[derive(Default)]
struct Shared {
    queues: Mutex<Queues>,
    waited_for: Condvar,
    idle: Condvar,
}

#[derive(Default)]
struct Queues {
    waited_for: VecDeque<Job>,
    idle: VecDeque<Job>,
    started: Started,
    closed: bool,
}

#[derive(Default)]
struct Started {
    /// Threads, of which so many have nothing to do.
    waited_for: usize,
    waiting: usize,
    idle: bool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workers").finish_non_exhaustive()
    }
}

/// There is too much to do already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

impl Workers {
    /// Does this soon. The number of such jobs is that of the bodies under way, each of which has at most one.
    pub fn soon(&self, job: impl FnOnce() + Send + 'static) {
        let mut queues = self.0.queues.lock();
        queues.waited_for.push_back(Box::new(job));
        let most = std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(MAX_WAITED_FOR);
        if queues.started.waiting == 0 && queues.started.waited_for < most {
            let shared = self.0.clone();
            let started = std::thread::Builder::new()
                .name("compress".to_owned())
                .spawn(move || shared.work());
            match started {
                Ok(_) => queues.started.waited_for += 1,
                Err(error) => tracing::warn!(%error, "no thread for compression"),
            }
        }
        self.0.waited_for.notify_one();
    }

    /// Does this when there is nothing better to do.
    ///
    /// # Errors
    /// When too much of that kind waits.
    pub fn when_idle(&self, job: impl FnOnce() + Send + 'static) -> Result<(), Busy> {
        let mut queues = self.0.queues.lock();
        if queues.idle.len() >= MAX_IDLE {
            return Err(Busy);
        }
        queues.idle.push_back(Box::new(job));
        if !queues.started.idle {
            let shared = self.0.clone();
            let started = std::thread::Builder::new()
                .name("compress-idle".to_owned())
                .spawn(move || shared.work_when_idle());
            match started {
                Ok(_) => queues.started.idle = true,
                Err(error) => {
                    tracing::warn!(%error, "no thread for compression");
                    queues.idle.clear();
                    return Err(Busy);
                }
            }
        }
        self.0.idle.notify_one();
        Ok(())
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        let mut queues = self.0.queues.lock();
        queues.closed = true;
        queues.idle.clear();
        self.0.waited_for.notify_all();
        self.0.idle.notify_all();
    }
}

impl Shared {
    fn work(&self) {
        let mut queues = self.queues.lock();
        loop {
            if let Some(job) = queues.waited_for.pop_front() {
                drop(queues);
                run(job);
                queues = self.queues.lock();
            } else if queues.closed {
                return;
            } else {
                queues.started.waiting += 1;
                self.waited_for.wait(&mut queues);
                queues.started.waiting -= 1;
            }
        }
    }

    fn work_when_idle(&self) {
        // Without it the rests alone have to do.
        if let Err(error) = rustix::process::nice(NICENESS) {
            tracing::debug!(%error, "compression in the background has the usual priority");
        }
        let mut queues = self.queues.lock();
        while !queues.closed {
            let Some(job) = queues.idle.pop_front() else {
                self.idle.wait(&mut queues);
                continue;
            };
            drop(queues);
            let began = Instant::now();
            run(job);
            let rest_until = Instant::now() + began.elapsed().min(LONGEST_REST);
            queues = self.queues.lock();
            while !queues.closed && !self.idle.wait_until(&mut queues, rest_until.into_std()).timed_out() {}
        }
    }
}

/// A job that panics is one that does not answer; those who wait for it find out by themselves.
fn run(job: Job) {
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)).is_err() {
        tracing::error!("compression panicked");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn everything_is_done() {
        let workers = Workers::default();
        let (sender, done) = channel();
        for number in 0..100 {
            let (soon, idle) = (sender.clone(), sender.clone());
            workers.soon(move || soon.send(number).unwrap());
            workers.when_idle(move || idle.send(100 + number).unwrap()).unwrap();
        }
        let mut numbers: Vec<i32> = done.iter().take(200).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..200).collect::<Vec<_>>());
    }

    #[test]
    fn a_panic_takes_nothing_else_with_it() {
        let workers = Workers::default();
        let (sender, done) = channel();
        for _ in 0..2 * MAX_WAITED_FOR {
            workers.soon(|| panic!("expected"));
        }
        workers.soon(move || sender.send(()).unwrap());
        done.recv().unwrap();
    }

    #[test]
    fn idle_work_has_an_end() {
        let workers = Workers::default();
        let (hold, held) = channel::<()>();
        workers.when_idle(move || assert!(held.recv().is_err())).unwrap();
        let mut taken = 0;
        while workers.when_idle(|| ()).is_ok() {
            taken += 1;
        }
        assert!((MAX_IDLE - 1..=MAX_IDLE).contains(&taken), "{taken}");
        drop(hold);
    }
}
