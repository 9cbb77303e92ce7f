//! How many requests may be in flight at once, and who waits for a place.
//!
//! A [`Gate`] has places and a bounded queue. As long as the queue moves, who came first gets in first; once the oldest waits for long,
//! the newest does: in an overload the oldest have mostly given up, and answering them helps nobody.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};

use arrayvec::ArrayVec;

use super::adaptive::Gradient;
use super::keys::{Key, Subject};
use crate::config;
use crate::metrics::{GateMetrics, GateReason};

/// When the oldest has waited for this part of the longest wait, it is an overload.
const OVERLOAD: u32 = 10;

/// Places for requests.
#[derive(Debug)]
pub struct Gate {
    state: Mutex<State>,
    queue: usize,
    queue_timeout: Duration,
    metrics: Arc<GateMetrics>,
}

#[derive(Debug)]
struct State {
    in_flight: usize,
    places: usize,
    adaptive: Option<Gradient>,
    waiting: VecDeque<Waiting>,
    next: u64,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    since: Instant,
    admit: oneshot::Sender<Permit>,
}

/// A place in a gate; dropping it gives it to the next.
#[derive(Debug)]
pub struct Permit {
    /// `None`: the place is no longer this permit's to give.
    gate: Option<Arc<Gate>>,
    since: Instant,
    /// Taken by a request whose latency says something.
    measured: Option<Duration>,
}

/// There is no place, and none came about in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full {
    pub why: GateReason,
    /// When it may be worth asking again.
    pub retry_after: Duration,
}

impl Gate {
    pub fn new(
        places: usize,
        queue: usize,
        queue_timeout: Duration,
        adaptive: Option<Gradient>,
        metrics: Arc<GateMetrics>,
    ) -> Arc<Self> {
        metrics.places(places);
        Self::with(places, queue, queue_timeout, adaptive, metrics)
    }

    /// One of many that are told of together: their places are not.
    fn silent(places: usize, queue: usize, queue_timeout: Duration, metrics: Arc<GateMetrics>) -> Arc<Self> {
        Self::with(places, queue, queue_timeout, None, metrics)
    }

    fn with(
        places: usize,
        queue: usize,
        queue_timeout: Duration,
        adaptive: Option<Gradient>,
        metrics: Arc<GateMetrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                in_flight: 0,
                places: adaptive
                    .as_ref()
                    .map_or(places, |adaptive| adaptive.limit().min(places)),
                adaptive,
                waiting: VecDeque::new(),
                next: 0,
            }),
            queue,
            queue_timeout,
            metrics,
        })
    }

    pub fn queue_timeout(&self) -> Duration {
        self.queue_timeout
    }

    /// A place, if there is one now.
    ///
    /// # Errors
    /// There is none.
    pub fn try_enter(self: &Arc<Self>) -> Result<Permit, Full> {
        let mut state = self.state.lock();
        match self.enter_now(&mut state) {
            Some(permit) => Ok(permit),
            None => Err(self.full(GateReason::QueueFull)),
        }
    }

    /// A place, now or when one is free. Dropping the answer gives up the wait.
    ///
    /// # Errors
    /// The queue is full, or the deadline is over.
    pub fn enter(self: &Arc<Self>, deadline: Instant) -> Entering {
        let mut state = self.state.lock();
        if let Some(permit) = self.enter_now(&mut state) {
            return Entering::Ready(Some(Ok(permit)));
        }
        if state.waiting.len() >= self.queue {
            return Entering::Ready(Some(Err(self.full(GateReason::QueueFull))));
        }
        let (admit, admitted) = oneshot::channel();
        let number = state.next;
        state.next += 1;
        state.waiting.push_back(Waiting {
            number,
            since: Instant::now(),
            admit,
        });
        self.metrics.queued(1);
        Entering::Waiting(Wait {
            gate: self.clone(),
            number,
            admitted,
            timeout: Box::pin(tokio::time::sleep_until(deadline)),
        })
    }

    fn enter_now(self: &Arc<Self>, state: &mut State) -> Option<Permit> {
        if state.in_flight >= state.places || !state.waiting.is_empty() {
            return None;
        }
        state.in_flight += 1;
        self.metrics.in_flight(1);
        Some(self.permit())
    }

    fn permit(self: &Arc<Self>) -> Permit {
        Permit {
            gate: Some(self.clone()),
            since: Instant::now(),
            measured: None,
        }
    }

    fn full(&self, why: GateReason) -> Full {
        self.metrics.refused(why);
        Full {
            why,
            retry_after: self.queue_timeout,
        }
    }

    /// Gives free places to those who wait.
    fn admit_waiting(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        while state.in_flight < state.places {
            let is_overload = state
                .waiting
                .front()
                .is_some_and(|oldest| oldest.since.elapsed() > self.queue_timeout / OVERLOAD);
            let next = match is_overload {
                true => state.waiting.pop_back(),
                false => state.waiting.pop_front(),
            };
            let Some(next) = next else { break };
            self.metrics.queued(-1);
            match next.admit.send(self.permit()) {
                Ok(()) => {
                    state.in_flight += 1;
                    self.metrics.in_flight(1);
                }
                // Nobody waits there any more. Dropped here its permit would come back to this very lock.
                Err(permit) => permit.forget(),
            }
        }
    }

    fn leave(self: &Arc<Self>, number: u64) {
        let mut state = self.state.lock();
        let before = state.waiting.len();
        state.waiting.retain(|waiting| waiting.number != number);
        if state.waiting.len() < before {
            self.metrics.queued(-1);
        }
    }

    fn release(self: &Arc<Self>, measured: Option<Duration>) {
        let mut state = self.state.lock();
        let in_flight = state.in_flight;
        state.in_flight = in_flight.saturating_sub(1);
        self.metrics.in_flight(-1);
        if let (Some(latency), Some(adaptive)) = (measured, &mut state.adaptive) {
            adaptive.observe(latency, in_flight);
            state.places = adaptive.limit();
            self.metrics.places(state.places);
        }
        self.admit_waiting(state);
    }
}

impl Permit {
    /// The response's head has come: from now on the time is that of the body and of the client.
    pub fn measure(&mut self) {
        self.measured = Some(self.since.elapsed());
    }

    /// Ends the permit without giving its place back.
    fn forget(mut self) {
        self.gate = None;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(gate) = self.gate.take() {
            gate.release(self.measured);
        }
    }
}

/// On the way into a gate.
#[derive(Debug)]
pub enum Entering {
    /// It is decided. `None`: and has been told.
    Ready(Option<Result<Permit, Full>>),
    Waiting(Wait),
}

/// A place in the queue; dropping it gives it up.
#[derive(Debug)]
pub struct Wait {
    gate: Arc<Gate>,
    number: u64,
    admitted: oneshot::Receiver<Permit>,
    timeout: Pin<Box<Sleep>>,
}

impl Future for Entering {
    type Output = Result<Permit, Full>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Ready(answer) => match answer.take() {
                Some(answer) => Poll::Ready(answer),
                None => Poll::Pending,
            },
            Self::Waiting(wait) => {
                if let Poll::Ready(Ok(permit)) = Pin::new(&mut wait.admitted).poll(cx) {
                    return Poll::Ready(Ok(permit));
                }
                match wait.timeout.as_mut().poll(cx) {
                    Poll::Ready(()) => Poll::Ready(Err(wait.gate.full(GateReason::Timeout))),
                    Poll::Pending => Poll::Pending,
                }
            }
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.gate.leave(self.number);
    }
}

/// A gate for each client that has anything in flight.
#[derive(Debug)]
pub struct ClientGates {
    pub config: config::PerClient,
    queue_timeout: Duration,
    gates: Mutex<HashMap<u64, Arc<Gate>>>,
    hasher: RandomState,
    metrics: Arc<GateMetrics>,
}

impl ClientGates {
    pub fn new(config: config::PerClient, queue_timeout: Duration, metrics: Arc<GateMetrics>) -> Self {
        Self {
            config,
            queue_timeout,
            gates: Mutex::default(),
            hasher: RandomState::new(),
            metrics,
        }
    }

    /// The gate of whoever asks.
    pub fn of(&self, subject: Subject<'_>) -> Arc<Gate> {
        let key = self.hasher.hash_one(Key {
            limit: "",
            parts: &self.config.key,
            subject,
        });
        let mut gates = self.gates.lock();
        // Now and then those go that nobody holds: never more of them are left than there are in use, and a few.
        if gates.len() >= FEW && gates.len() == gates.capacity() {
            gates.retain(|_, gate| Arc::strong_count(gate) > 1);
        }
        let make = || {
            Gate::silent(
                self.config.max,
                self.config.queue,
                self.queue_timeout,
                self.metrics.clone(),
            )
        };
        gates.entry(key).or_insert_with(make).clone()
    }
}

/// Gates of clients that are kept although nobody is in them.
const FEW: usize = 64;

/// The places that one request holds.
#[derive(Debug, Default)]
pub struct Permits(ArrayVec<Permit, 4>);

impl Permits {
    pub fn push(&mut self, permit: Permit) {
        let _ = self.0.try_push(permit);
    }

    /// The response's head has come.
    pub fn measure(&mut self) {
        self.0.iter_mut().for_each(Permit::measure);
    }

    /// Gives all places back.
    pub fn release(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests;
