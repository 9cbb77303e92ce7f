//! What is to be written, in the order in which it came, by one task.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Shared, WRITE, Write, Written};

/// Responses that wait. Beyond these the oldest go: it is only that another instance, or this one after its next start, has to fetch them
/// again.
const MAX_JOBS: usize = 10_000;

/// Bytes of bodies that wait. Most are in L1 as well, and take no room of their own.
const MAX_BYTES: usize = 64 << 20;

/// Writes at the same time.
const AT_ONCE: usize = 16;

#[derive(Debug)]
pub(super) enum Job {
    Store(Write),
    /// What stands under this name.
    Delete(String),
}

/// Bounded; what is too much is dropped at its old end.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    more: Notify,
    /// Jobs that wait or are under way.
    open: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Done before all else: what is removed has to be gone soon.
    deletes: VecDeque<String>,
    writes: VecDeque<Write>,
    /// Of the bodies in `writes`.
    bytes: usize,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            waiting: Mutex::default(),
            more: Notify::new(),
            open: watch::Sender::new(0),
        }
    }
}

impl Queue {
    /// Answers how many others were dropped for it.
    pub(super) fn push(&self, job: Job) -> u64 {
        let mut dropped = Vec::new();
        // Before it can be taken: what is done sooner than it is counted would count for ever.
        self.begin();
        let mut waiting = self.waiting.lock();
        let mut dropped_deletes = 0;
        match job {
            Job::Delete(name) => {
                waiting.deletes.push_back(name);
                if waiting.deletes.len() > MAX_JOBS {
                    waiting.deletes.pop_front();
                    dropped_deletes = 1;
                }
            }
            Job::Store(write) => {
                waiting.bytes += write.stored.body.len();
                waiting.writes.push_back(write);
                while waiting.writes.len() > MAX_JOBS || waiting.bytes > MAX_BYTES && waiting.writes.len() > 1 {
                    let Some(oldest) = waiting.writes.pop_front() else {
                        break;
                    };
                    waiting.bytes -= oldest.stored.body.len();
                    dropped.push(oldest);
                }
            }
        }
        drop(waiting);
        let count = dropped.len() + dropped_deletes;
        self.open.send_modify(|open| *open = open.saturating_sub(count));
        self.more.notify_one();
        count as u64
    }

    fn pop(&self) -> Option<Job> {
        let mut waiting = self.waiting.lock();
        if let Some(name) = waiting.deletes.pop_front() {
            return Some(Job::Delete(name));
        }
        let write = waiting.writes.pop_front()?;
        waiting.bytes -= write.stored.body.len();
        Some(Job::Store(write))
    }

    /// Counts something that is written beside the queue, until it is done.
    pub(super) fn begin(&self) {
        self.open.send_modify(|open| *open += 1);
    }

    pub(super) fn done(&self) {
        self.open.send_modify(|open| *open = open.saturating_sub(1));
    }

    /// Waits until nothing waits and nothing is under way.
    pub(super) async fn empty(&self) {
        // The sender lives as long as this does.
        let _ = self.open.subscribe().wait_for(|open| *open == 0).await;
    }
}

/// Does what is in the queue, for as long as there is anybody to fill it.
pub(super) async fn work(shared: Arc<Shared>) {
    let mut under_way = JoinSet::new();
    loop {
        while under_way.try_join_next().is_some() {}
        if under_way.len() >= AT_ONCE {
            under_way.join_next().await;
        }
        match shared.queue.pop() {
            Some(job) => {
                let shared = shared.clone();
                under_way.spawn(async move {
                    shared.clone().carry_out(job).await;
                    shared.queue.done();
                });
            }
            None => shared.queue.more.notified().await,
        }
    }
}

impl Shared {
    async fn carry_out(self: Arc<Self>, job: Job) {
        // What goes wrong is counted where it goes wrong; there is nobody to tell.
        match job {
            Job::Store(mut write) => {
                let stored = self.store(&write, Instant::now() + WRITE).await;
                write.release(Written::outcome(&stored));
            }
            Job::Delete(name) => {
                let _ = self.remove(&name).await;
            }
        }
    }
}
