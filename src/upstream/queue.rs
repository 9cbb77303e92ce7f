//! Requests that wait because every server has as many as it may.
//!
//! First come, first served: whoever comes while others wait goes behind them, and a place that becomes free is handed to the first who
//! can use it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::server::OpenExchange;
use super::{ConnectError, Selection, Tried, Upstream};

/// Waiting requests look for themselves this often, for what nobody tells them of: a place that became free on a server that an
/// earlier configuration shares with this one.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// The requests that wait for a server of one upstream.
#[derive(Debug, Default)]
pub struct Queue {
    /// As many as `waiters` has; read where no lock is wanted.
    waiting: AtomicUsize,
    waiters: Mutex<Waiters>,
}

#[derive(Debug, Default)]
struct Waiters {
    tickets: u64,
    /// In the order of their tickets.
    list: Vec<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    ticket: u64,
    selection: Selection,
    tried: Tried,
    seat: oneshot::Sender<OpenExchange>,
}

/// A place in the queue, given up when it is dropped.
struct Place<'a> {
    queue: &'a Queue,
    ticket: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiters = self.queue.waiters.lock();
        if let Ok(index) = waiters.list.binary_search_by_key(&self.ticket, |waiter| waiter.ticket) {
            waiters.list.remove(index);
            self.queue.waiting.store(waiters.list.len(), Ordering::SeqCst);
        }
    }
}

/// What is open to a request just now.
pub(super) enum Offer {
    Open(OpenExchange),
    Full,
    Nobody,
}

impl Queue {
    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }
}

impl Upstream {
    /// Waits for a server that has room.
    ///
    /// # Errors
    /// When too many wait already, or no server has room in time.
    pub(super) async fn queue(
        self: &Arc<Self>,
        selection: &Selection,
        tried: &Tried,
    ) -> Result<OpenExchange, ConnectError> {
        let (limit, timeout) = (self.config.queue, self.config.queue_timeout);
        let (seat, mut granted) = oneshot::channel();
        let place = {
            let mut waiters = self.queue.waiters.lock();
            if waiters.list.len() >= limit {
                drop(waiters);
                self.metrics.queue_refused.add(1);
                return Err(ConnectError::QueueFull);
            }
            let ticket = waiters.tickets;
            waiters.tickets += 1;
            waiters.list.push(Waiter {
                ticket,
                selection: *selection,
                tried: tried.clone(),
                seat,
            });
            self.queue.waiting.store(waiters.list.len(), Ordering::SeqCst);
            Place {
                queue: &self.queue,
                ticket,
            }
        };
        let _queued = self.metrics.queued.borrowed_guard();
        let deadline = Instant::now() + timeout;
        loop {
            // A place may have become free between the choice and the queue.
            self.admit();
            let look_again = (Instant::now() + LOOK_AGAIN).min(deadline);
            match timeout_at(look_again, &mut granted).await {
                Ok(Ok(open)) => return Ok(open),
                Ok(Err(_)) => break,
                Err(_) if look_again < deadline => {}
                Err(_) => break,
            }
        }
        drop(place);
        // It may have been granted in the last moment.
        match granted.try_recv() {
            Ok(open) => Ok(open),
            Err(_) => {
                self.metrics.queue_refused.add(1);
                Err(ConnectError::QueueTimeout(timeout))
            }
        }
    }

    /// Gives what room there is to those who wait.
    pub(super) fn admit(self: &Arc<Self>) {
        if self.queue.waiting() == 0 {
            return;
        }
        // Whoever left in this very moment gives the room back, which ends here again: outside the lock.
        let mut given_back = Vec::new();
        let mut waiters = self.queue.waiters.lock();
        let mut index = 0;
        while let Some(waiter) = waiters.list.get(index) {
            match self.offer(&waiter.selection, &waiter.tried) {
                Offer::Open(open) => {
                    let waiter = waiters.list.remove(index);
                    given_back.extend(waiter.seat.send(open).err());
                }
                // Who wants a certain server, or has tried some, may have to wait although there is room for others.
                _ if waiter.selection.sticky.is_some() || !waiter.tried.is_empty() => index += 1,
                Offer::Full | Offer::Nobody => break,
            }
        }
        self.queue.waiting.store(waiters.list.len(), Ordering::SeqCst);
        drop(waiters);
        drop(given_back);
    }
}
