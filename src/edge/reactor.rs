//! Threads that wait for many connections at once, and answer what can be answered at once.
//!
//! A task for each connection is what waiting for others needs: for an origin, for Redis, for a client that reads slowly. Answers out of
//! memory wait for nobody, and for them a task is most of what Forebay adds to the system calls. So a connection whose requests have all been
//! answered at once is steady and moves to a reactor, and the first request that needs more takes it back into a task, with all that has
//! been decided about it. Both run the same code (`Row`); only what wakes it differs.

use std::io;
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};
use parking_lot::Mutex;
use pingora_core::server::ShutdownWatch;
use slab::Slab;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::row::{Row, Step, Turn};
use super::shut_down;
use super::socket::Coming;
use crate::clock;
use crate::io::Alarm;
use crate::metrics::Gauge;

/// Events taken from the system at once.
const EVENTS: usize = 256;

/// What wakes a reactor for something else than a connection.
const WAKE: Token = Token(usize::MAX);

/// How often connections are looked at that may have been silent for too long: each time at one in so many of them, so that nobody waits
/// for a look at all.
const SWEEP_EVERY: Duration = Duration::from_millis(250);
const SWEEPS: usize = 16;

/// The reactors of a server.
#[derive(Debug)]
pub struct Reactors {
    all: Vec<Reactor>,
    steady: Arc<Gauge>,
}

/// A reactor, as others see it.
#[derive(Debug)]
struct Reactor {
    inbox: Arc<Inbox>,
    waker: mio::Waker,
}

/// What a reactor is told.
#[derive(Debug, Default)]
struct Inbox {
    mail: Mutex<Mail>,
    /// Connections that the reactor has, or is about to take.
    held: AtomicUsize,
}

#[derive(Debug, Default)]
struct Mail {
    rows: Vec<Row>,
    /// No more connections are taken.
    stopped: bool,
}

/// Stops the reactors of a server that ends, in whichever way. Connections hold on to them, and they to connections.
struct Stopping(Arc<Reactors>);

impl Drop for Stopping {
    fn drop(&mut self) {
        self.0.all.iter().for_each(Reactor::stop);
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Reactor {
    /// It gives its connections back, and ends.
    fn stop(&self) {
        self.inbox.mail.lock().stopped = true;
        self.wake();
    }

    fn wake(&self) {
        // It can only fail when there is no reactor to be woken.
        let _ = self.waker.wake();
    }
}

impl Reactors {
    /// Starts so many, for connections of the runtime that this is called in.
    ///
    /// # Errors
    /// When the system has no descriptor or no thread for them.
    pub fn start(count: usize, steady: Arc<Gauge>) -> io::Result<Self> {
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            let poll = Poll::new()?;
            let waker = mio::Waker::new(poll.registry(), WAKE)?;
            let inbox = Arc::new(Inbox::default());
            let work = Rounds {
                inbox: inbox.clone(),
                rows: Slab::new(),
                due: Vec::new(),
                swept: Instant::now(),
                next_swept: 0,
                runtime: Handle::current(),
            };
            all.push(Reactor { inbox, waker });
            std::thread::Builder::new()
                .name("forebay-steady".to_owned())
                .spawn(move || work.run(poll))?;
        }
        Ok(Self { all, steady })
    }

    /// Gives a connection that rests to the reactor that has the fewest. The connection comes back if it has to stay where it is.
    pub(super) fn take(&self, mut row: Row) -> Option<Row> {
        let held = |reactor: &&Reactor| reactor.inbox.held.load(Ordering::Relaxed);
        let Some(reactor) = self.all.iter().min_by_key(held) else {
            return Some(row);
        };
        let mut mail = reactor.inbox.mail.lock();
        if mail.stopped || !row.detach(self.steady.guard()) {
            return Some(row);
        }
        reactor.inbox.held.fetch_add(1, Ordering::Relaxed);
        mail.rows.push(row);
        drop(mail);
        reactor.wake();
        None
    }

    /// Gives all connections back when the server is to stop, or this is dropped.
    pub fn stop_with(self: Arc<Self>, shutdown: ShutdownWatch) -> impl Future<Output = ()> {
        // From now on, not from when it is first polled.
        let stopping = Stopping(self);
        async move {
            let _stopping = stopping;
            shut_down(shutdown).await;
        }
    }
}

/// A connection that a reactor has.
struct Held {
    row: Row,
    /// It is among those that have a turn to come: something has come on it, or more than fits into one turn.
    due: bool,
}

/// The work of a reactor.
struct Rounds {
    inbox: Arc<Inbox>,
    rows: Slab<Held>,
    /// Connections that have a turn to come, each of them once.
    due: Vec<usize>,
    /// When silent connections were last looked for, and where that goes on.
    swept: Instant,
    next_swept: usize,
    runtime: Handle,
}

impl Rounds {
    fn run(mut self, mut poll: Poll) {
        let runtime = self.runtime.clone();
        let _entered = runtime.enter();
        let mut events = Events::with_capacity(EVENTS);
        let mut turns = Vec::new();
        loop {
            match poll.poll(&mut events, self.patience()) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::error!(%error, "cannot wait for connections, each has a task of its own from now on");
                    self.inbox.mail.lock().stopped = true;
                }
            }
            for event in &events {
                let Token(key) = event.token();
                let what = match event.is_read_closed() || event.is_error() {
                    true => Coming::End,
                    false => Coming::Bytes,
                };
                if let Some(held) = self.rows.get_mut(key) {
                    held.row.comes(what);
                    self.calls(key);
                }
            }
            std::mem::swap(&mut turns, &mut self.due);
            let now = Instant::now();
            let round = clock::round(now);
            for key in turns.drain(..) {
                self.turn(key, poll.registry());
            }
            drop(round);
            self.sweep(now, poll.registry());
            // Behind the events, none of which can be for whoever comes now.
            let mut mail = self.inbox.mail.lock();
            let (coming, stopped) = (std::mem::take(&mut mail.rows), mail.stopped);
            drop(mail);
            for row in coming {
                self.add(row, poll.registry());
            }
            if stopped {
                return self.end(poll.registry());
            }
        }
    }

    /// How long to wait for something to come. `None`: until it comes.
    fn patience(&self) -> Option<Duration> {
        match (self.due.is_empty(), self.rows.is_empty()) {
            (false, _) => Some(Duration::ZERO),
            (true, false) => Some(SWEEP_EVERY),
            (true, true) => None,
        }
    }

    fn add(&mut self, row: Row, registry: &Registry) {
        let descriptor = row.descriptor().map(|socket| socket.as_raw_fd());
        let key = self.rows.insert(Held { row, due: false });
        // What has come meanwhile is told at once.
        let register = |fd| registry.register(&mut SourceFd(&fd), Token(key), Interest::READABLE);
        if descriptor.is_none_or(|fd| register(fd).is_err()) {
            self.leave(key, None, registry);
        }
    }

    /// The connection has a turn to come; never two, whatever comes meanwhile, or a client that does not stop would leave ever less to
    /// others.
    fn calls(&mut self, key: usize) {
        if let Some(held) = self.rows.get_mut(key)
            && !std::mem::replace(&mut held.due, true)
        {
            self.due.push(key);
        }
    }

    /// Answers what has come on a connection, as much as fits into a turn.
    fn turn(&mut self, key: usize, registry: &Registry) {
        let Some(Held { row, due }) = self.rows.get_mut(key) else {
            return;
        };
        *due = false;
        let mut cx = Context::from_waker(Waker::noop());
        // Deadlines are kept by the sweeps, or by the task that the connection goes back to.
        let mut alarm = Alarm::silent();
        // A panic in one request must not take everyone else's connections with it.
        let turn = catch_unwind(AssertUnwindSafe(|| row.turn(&mut cx, &mut alarm)));
        match turn {
            Ok(Turn::Rests) => {}
            Ok(Turn::Unfinished) => self.calls(key),
            Ok(Turn::Leaves(step)) => self.leave(key, step, registry),
            Ok(Turn::Over) | Err(_) => drop(self.remove(key, registry)),
        }
    }

    fn remove(&mut self, key: usize, registry: &Registry) -> Option<Row> {
        let Held { row, .. } = self.rows.try_remove(key)?;
        self.inbox.held.fetch_sub(1, Ordering::Relaxed);
        if let Some(socket) = row.descriptor() {
            // It fails only where there is nothing to be undone.
            let _ = registry.deregister(&mut SourceFd(&socket.as_raw_fd()));
        }
        Some(row)
    }

    /// A task goes on with a connection, at this step.
    fn leave(&mut self, key: usize, step: Option<Step>, registry: &Registry) {
        let Some(mut row) = self.remove(key, registry) else {
            return;
        };
        match row.attach() {
            Ok(()) => {
                self.runtime.spawn(row.serve(step));
            }
            Err(error) => tracing::warn!(%error, "a connection is lost"),
        }
    }

    /// Ends connections that have been silent for too long.
    fn sweep(&mut self, now: Instant, registry: &Registry) {
        if now.saturating_duration_since(self.swept) < SWEEP_EVERY {
            return;
        }
        self.swept = now;
        let from = self.next_swept;
        let to = from + self.rows.capacity().div_ceil(SWEEPS);
        for key in from..to {
            if self.rows.get(key).is_some_and(|held| held.row.is_overdue(now)) {
                self.leave(key, Some(Step::Closes), registry);
            }
        }
        self.next_swept = match to < self.rows.capacity() {
            true => to,
            false => 0,
        };
    }

    fn end(mut self, registry: &Registry) {
        let keys: Vec<_> = self.rows.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.leave(key, None, registry);
        }
    }
}
