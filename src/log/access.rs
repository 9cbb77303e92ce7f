//! The access log: one line for each request, written by a thread of its own.
//!
//! Whoever answers a request hands over an [`Entry`] and goes on. The writer takes what has gathered a few times a second, in one
//! go for all threads, so that a busy proxy wakes nobody for a single line. When the destination is slower than the requests,
//! entries are dropped and counted: requests never wait for their log.

mod destination;
mod policy;

use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use http::Method;
use tracing::{Dispatch, dispatcher, warn};

pub use destination::Destination;
use policy::Policy;

use super::format;
use crate::config;
use crate::limit::rate::Tokens;
use crate::message::Version;
use crate::metrics::{CacheResult, Counter, LimitReason, PerThread};

/// What the log says of one request. Values are as they came in: secrets are taken out and bytes escaped when they are written.
#[derive(Debug, Clone)]
pub struct Entry {
    /// When the request's first byte came in.
    pub time: SystemTime,
    /// `None`: the client came through a Unix socket.
    pub client_ip: Option<IpAddr>,
    /// The address of the listener.
    pub listener: Arc<str>,
    /// `None`: the request's head could not be understood; then host and target are empty and there is no version.
    pub method: Option<Method>,
    /// The authority as received.
    pub host: String,
    /// As received.
    pub target: String,
    pub version: Option<Version>,
    pub status: u16,
    /// `None`: none matched.
    pub route: Option<Arc<str>>,
    /// `None`: none was asked.
    pub upstream: Option<Arc<str>>,
    /// The server that answered, or was asked last.
    pub server: Option<Arc<str>>,
    /// `None`: the cache had no part in it.
    pub cache: Option<CacheResult>,
    /// `None`: the response has the coding that the upstream sent.
    pub coding: Option<&'static str>,
    /// Of the body.
    pub request_bytes: u64,
    /// Of the body.
    pub response_bytes: u64,
    /// From the request's first byte to the last byte of the response.
    pub duration: Duration,
    /// From the request's first byte to the first byte of the response. `None`: nothing was sent.
    pub first_byte: Option<Duration>,
    pub request_id: String,
    pub user_agent: Option<Vec<u8>>,
    pub referer: Option<Vec<u8>>,
    /// Why Forebay itself answered, or why the response broke off.
    pub error: Option<&'static str>,
    /// The limit that refused it, or would have.
    pub limit: Option<Arc<str>>,
    pub limit_reason: Option<LimitReason>,
    /// Of a language model. `None`: no limit counts them.
    pub tokens: Option<Tokens>,
}

/// Entries that wait for the writer take at most as many bytes, for each thread that serves requests.
const QUEUE_BYTES: usize = 4 * 1024 * 1024;

/// From here on the writer does not linger.
const URGENT_BYTES: usize = QUEUE_BYTES / 4;

/// How long the writer lets entries gather: short for who watches, long enough to be woken seldom.
const LINGER: Duration = Duration::from_millis(50);

/// Lines are written in pieces of about this size.
const WRITE_SIZE: usize = 64 * 1024;

/// The running access log.
#[derive(Debug)]
pub struct AccessLog {
    shared: Arc<Shared>,
    /// What was asked for last: [`AccessLog::reopen`] opens it again.
    config: Mutex<Option<config::AccessLog>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// How [`AccessLog::close`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// Every entry is written, or counted as dropped.
    Flushed,
    /// The destination did not take everything in time.
    TimedOut,
}

impl AccessLog {
    /// Starts the writer. Slow requests are reported to the program log that the calling thread has, so that one is started first.
    /// Entries that are lost are counted in `dropped`.
    ///
    /// # Errors
    /// Where there can be no more threads.
    pub fn start(destination: Destination, dropped: Arc<Counter>) -> io::Result<Self> {
        let config = destination.config().cloned();
        let shared = Arc::new(Shared {
            policy: Policy::default(),
            queues: PerThread::default(),
            dropped,
            announced: AtomicBool::new(false),
            generation: AtomicU64::new(0),
            signal: Mutex::default(),
            changed: Condvar::new(),
        });
        shared.policy.set(config.as_ref());
        let program_log = dispatcher::get_default(Dispatch::clone);
        let writer = Writer {
            shared: Arc::clone(&shared),
            destination,
        };
        let thread = std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || dispatcher::with_default(&program_log, || writer.run()))?;
        Ok(Self {
            shared,
            config: Mutex::new(config),
            writer: Mutex::new(Some(thread)),
        })
    }

    /// Whether a request that ended so belongs in the log: sampled by its id, so that all instances choose the same; always where the
    /// status is 500 or more, or it was slow. `took` is the request's duration; for event streams and WebSockets, whose
    /// duration says nothing, the time to the first byte. Ask before an [`Entry`] is made.
    pub fn wants(&self, request_id: &[u8], status: u16, took: Duration) -> bool {
        self.shared.policy.wants(request_id, status, took)
    }

    /// Hands over an entry. `took` is the same as for [`wants`](Self::wants): slow requests get a warning in the program log too.
    pub fn send(&self, mut entry: Entry, took: Duration) {
        entry.limit();
        self.shared.push(Pending {
            slow: self.shared.policy.is_slow(took).then_some(took),
            generation: self.shared.generation.load(Ordering::Relaxed),
            entry,
        });
    }

    /// Goes over to another destination, with the policy that comes with it. What was handed over before goes to the old one still.
    pub fn switch(&self, destination: Destination) {
        self.shared.policy.set(destination.config());
        *lock(&self.config) = destination.config().cloned();
        let mut signal = lock(&self.shared.signal);
        let generation = self.shared.generation.fetch_add(1, Ordering::Relaxed) + 1;
        signal.switch = Some(Switch {
            generation,
            destination,
        });
        self.shared.changed.notify_all();
    }

    /// Opens the log's file anew, because the old one was moved away.
    ///
    /// # Errors
    /// Where the file cannot be opened; the old one stays in use.
    pub fn reopen(&self) -> io::Result<()> {
        let config = lock(&self.config).clone();
        self.switch(Destination::open(config.as_ref())?);
        Ok(())
    }

    /// Writes what is left and ends the writer; waits no longer than `within`. Entries that come later are counted as dropped. Blocks:
    /// not for asynchronous code.
    pub fn close(&self, within: Duration) -> Closed {
        let mut signal = lock(&self.shared.signal);
        signal.next = Next::Nothing;
        self.shared.changed.notify_all();
        let ended = self
            .shared
            .changed
            .wait_timeout_while(signal, within, |signal| !signal.ended);
        if !ended.unwrap_or_else(PoisonError::into_inner).0.ended {
            return Closed::TimedOut;
        }
        if let Some(thread) = lock(&self.writer).take() {
            // It has nothing left to do, and its end was no panic.
            let _ = thread.join();
        }
        Closed::Flushed
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        lock(&self.shared.signal).next = Next::Nothing;
        self.shared.changed.notify_all();
    }
}

/// What request threads and the writer have in common.
#[derive(Debug)]
struct Shared {
    policy: Policy,
    queues: PerThread<Mutex<Queue>>,
    dropped: Arc<Counter>,
    /// The writer knows that there are entries, and will look at all queues once more after it has taken this back.
    announced: AtomicBool,
    /// Of the destination that was asked for last.
    generation: AtomicU64,
    signal: Mutex<Signal>,
    /// Something in `signal` changed.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Signal {
    entries: Waiting,
    switch: Option<Switch>,
    next: Next,
    /// The writer is done.
    ended: bool,
}

/// The destination for entries of this generation and later ones.
#[derive(Debug)]
struct Switch {
    generation: u64,
    destination: Destination,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    #[default]
    None,
    Some,
    /// Memory runs out: do not linger.
    Many,
}

/// One thread's entries.
#[derive(Debug, Default)]
struct Queue {
    entries: Vec<Pending>,
    bytes: usize,
    next: Next,
}

/// What the writer does with later entries.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Next {
    #[default]
    Take,
    /// It is gone.
    Nothing,
}

#[derive(Debug)]
struct Pending {
    entry: Entry,
    /// How long it took, if that was too long.
    slow: Option<Duration>,
    generation: u64,
}

impl Shared {
    fn push(&self, pending: Pending) {
        let size = pending.entry.size();
        let mut queue = lock(self.queues.own());
        if queue.next == Next::Nothing || queue.bytes + size > QUEUE_BYTES {
            drop(queue);
            return self.dropped.add(1);
        }
        let was_urgent = queue.bytes > URGENT_BYTES;
        queue.bytes += size;
        queue.entries.push(pending);
        let is_urgent = queue.bytes > URGENT_BYTES;
        drop(queue);
        if is_urgent && !was_urgent {
            self.announce(Waiting::Many);
        } else if !self.announced.load(Ordering::SeqCst) && !self.announced.swap(true, Ordering::SeqCst) {
            self.announce(Waiting::Some);
        }
    }

    fn announce(&self, waiting: Waiting) {
        let mut signal = lock(&self.signal);
        if signal.entries != Waiting::Many {
            signal.entries = waiting;
        }
        self.changed.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that is done under these locks can be left half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread that writes.
struct Writer {
    shared: Arc<Shared>,
    destination: Destination,
}

/// Why the writer woke up, beside entries.
struct Orders {
    switch: Option<Switch>,
    next: Next,
}

impl Writer {
    fn run(mut self) {
        let mut batch = Vec::new();
        loop {
            let orders = self.wait();
            self.shared.announced.store(false, Ordering::SeqCst);
            self.take(&mut batch, orders.next);
            if let Some(switch) = orders.switch {
                let later = batch.split_off(batch.partition_point(|pending| pending.generation < switch.generation));
                self.write(&mut batch);
                self.destination = switch.destination;
                batch = later;
            }
            self.write(&mut batch);
            if orders.next == Next::Nothing {
                lock(&self.shared.signal).ended = true;
                return self.shared.changed.notify_all();
            }
        }
    }

    /// Until there is something to do, and a little longer where that makes a larger batch.
    fn wait(&self) -> Orders {
        let shared = &self.shared;
        let ordered = |signal: &Signal| signal.next == Next::Nothing || signal.switch.is_some();
        let nothing = |signal: &mut Signal| signal.entries == Waiting::None && !ordered(signal);
        let gathering = |signal: &mut Signal| signal.entries != Waiting::Many && !ordered(signal);
        let signal = shared.changed.wait_while(lock(&shared.signal), nothing);
        let signal = signal.unwrap_or_else(PoisonError::into_inner);
        let signal = shared.changed.wait_timeout_while(signal, LINGER, gathering);
        let mut signal = signal.unwrap_or_else(PoisonError::into_inner).0;
        signal.entries = Waiting::None;
        Orders {
            switch: signal.switch.take(),
            next: signal.next,
        }
    }

    /// Empties all threads' queues, and puts their entries in the order in which the requests ended.
    fn take(&self, batch: &mut Vec<Pending>, next: Next) {
        // All, so that a thread that has not logged yet will find its queue closed.
        for queue in self.shared.queues.all() {
            let mut queue = lock(queue);
            batch.append(&mut queue.entries);
            queue.bytes = 0;
            queue.next = next;
        }
        batch.sort_by_key(|pending| (pending.generation, pending.entry.time + pending.entry.duration));
    }

    fn write(&mut self, batch: &mut Vec<Pending>) {
        let mut text = Vec::with_capacity(WRITE_SIZE.min(batch.len() * 512));
        for pending in batch.drain(..) {
            if let Some(took) = pending.slow {
                warn_slow(&pending.entry, took);
            }
            if let Some(config) = self.destination.config() {
                format::line(config.format, &pending.entry, &mut text);
            }
            if text.len() >= WRITE_SIZE {
                self.flush(&mut text);
            }
        }
        self.flush(&mut text);
    }

    fn flush(&mut self, text: &mut Vec<u8>) {
        let lost = self.destination.write_lines(text);
        if lost > 0 {
            self.shared.dropped.add(lost);
        }
        text.clear();
    }
}

fn warn_slow(entry: &Entry, took: Duration) {
    warn!(
        request_id = entry.request_id,
        method = entry.method.as_ref().map(Method::as_str),
        host = entry.host,
        uri = format::target(entry),
        status = entry.status,
        route = entry.route.as_deref(),
        upstream = entry.upstream.as_deref(),
        server = entry.server.as_deref(),
        took_seconds = took.as_secs_f64(),
        "slow request"
    );
}

impl Entry {
    /// Bytes in memory.
    fn size(&self) -> usize {
        let bytes = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::capacity);
        size_of::<Pending>()
            + self.host.capacity()
            + self.target.capacity()
            + self.request_id.capacity()
            + bytes(&self.user_agent)
            + bytes(&self.referer)
    }

    /// Lets go of what would be cut from the line anyway, so that a few clients with long fields do not fill the queue.
    fn limit(&mut self) {
        /// A cut value stays longer than its limit, so that the line says that it was cut.
        const BEYOND: usize = 4;
        let text = |text: &mut String, limit: usize| {
            if text.len() > limit + BEYOND {
                text.truncate(text.floor_char_boundary(limit + BEYOND));
                text.shrink_to_fit();
            }
        };
        let bytes = |bytes: &mut Option<Vec<u8>>, limit: usize| {
            if let Some(bytes) = bytes
                && bytes.len() > limit + BEYOND
            {
                bytes.truncate(limit + BEYOND);
                bytes.shrink_to_fit();
            }
        };
        text(&mut self.target, format::URL_LIMIT);
        text(&mut self.host, format::TEXT_LIMIT);
        text(&mut self.request_id, format::TEXT_LIMIT);
        bytes(&mut self.referer, format::URL_LIMIT);
        bytes(&mut self.user_agent, format::TEXT_LIMIT);
    }
}

#[cfg(test)]
mod tests;
