//! The requests of an HTTP/1 connection, one after the other.

use std::future::poll_fn;
use std::io;
use std::os::fd::BorrowedFd;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use pingora_core::server::ShutdownWatch;
use tokio::task::coop::unconstrained;
use tokio::time::Instant;

use super::client::Client;
use super::http1::{After, Came, Expected, HeadTimes, Http1Client, Next, PriorKnowledge};
use super::socket::Coming;
use super::{Connection, Counted, FrontDoor, HEAD_TIME, KEEP_ALIVE_IDLE, shut_down};
use crate::clock::{self, Moment};
use crate::exchange::Arrival;
use crate::http1::Limits;
use crate::in_place::pinned;
use crate::io::Alarm;
use crate::metrics::GaugeGuard;
use crate::proxy::at_once::Open;
use crate::respond::error::ProxyError;
use crate::tls::Alpn;

/// Requests that are answered in one turn; then others have theirs.
const TURN: u32 = 64;

/// After so many requests in a row that were answered at once a connection is steady. To move there and back costs as much as fifty hits
/// gain: one that has come so far goes on, more likely than not, for as long again.
const STEADY: u32 = 64;

/// A connection that has come back from a reactor has to answer twice as many before it goes there again, so that one with misses among its
/// hits soon stays where it is; this many at most.
const MOST_STEADY: u32 = 1 << 16;

/// A client's HTTP/1 connection.
pub(super) struct Row {
    door: Arc<FrontDoor>,
    client: Client,
    arrival: Arrival,
    expected: Expected<'static>,
    /// When the requests came that one read has brought.
    moment: Option<Moment>,
    /// When the last exchange ended, if that was a moment ago.
    ended: Option<Instant>,
    /// Requests that were answered at once, since the last one that was not.
    at_once: u32,
    /// How many of them make it steady.
    steady: u32,
    /// Counts it while a reactor has it.
    in_reactor: Option<GaugeGuard>,
    shutdown: ShutdownWatch,
    counted: Counted,
}

/// What the requests of a connection come to that cannot be answered at once.
pub(super) enum Step {
    /// A request that is not over yet.
    GoesOn(Box<Open>),
    /// A request is answered, and not all of it has been read.
    Ends,
    /// The connection is over.
    Closes,
    /// So are requests on it: this one is none.
    Refused(ProxyError),
    /// It goes on in HTTP/2, of which these bytes have been read.
    Http2(BytesMut),
    /// More has been read than is answered in one turn.
    Unfinished,
    /// It rests, and what comes next is most likely answered at once, too.
    Steady,
}

/// What a reactor's turn at a connection comes to.
pub(super) enum Turn {
    /// All that has come is answered.
    Rests,
    /// There is more to be done at once.
    Unfinished,
    /// A task has to go on, at this step if there is one.
    Leaves(Option<Step>),
    /// The client has closed it.
    Over,
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Row")
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

impl Row {
    pub(super) fn new(door: Arc<FrontDoor>, connection: Connection, shutdown: ShutdownWatch, counted: Counted) -> Self {
        Self {
            door,
            client: Client::Http1(Box::new(Http1Client::new(connection.socket, shutdown.clone()))),
            arrival: connection.arrival,
            expected: Expected {
                scheme: connection.scheme,
                limits: &Limits::DEFAULT,
                http2: connection.prior_knowledge,
            },
            moment: None,
            ended: None,
            at_once: 0,
            steady: STEADY,
            in_reactor: None,
            shutdown,
            counted,
        }
    }

    /// Serves the connection to its end, or until a reactor takes it. Begins with this step, if there is one.
    pub(super) async fn serve(mut self, mut first: Option<Step>) {
        let mut alarm = Alarm::new();
        // One for the whole connection: to begin and end waiting takes a lock, and requests come fast.
        let mut stopping = pin!(unconstrained(shut_down(self.shutdown.clone())));
        let mut waits_for_stop = false;
        loop {
            let step = match first.take() {
                Some(step) => {
                    // Another thread has come so far, a while ago.
                    self.moment = None;
                    step
                }
                None => {
                    poll_fn(|cx| {
                        if let Poll::Ready(step) = self.poll(cx, &mut alarm) {
                            return Poll::Ready(step);
                        }
                        // A connection between two requests ends at once, one that has begun to send a request is served. Once the
                        // task waits for the end it is woken then, and does not have to ask each time.
                        if self.has_unread_bytes()
                            || (waits_for_stop && matches!(self.shutdown.has_changed(), Ok(false)))
                        {
                            return Poll::Pending;
                        }
                        waits_for_stop = true;
                        stopping.as_mut().poll(cx).map(|()| Step::Closes)
                    })
                    .await
                }
            };
            let Self {
                door,
                client,
                arrival,
                moment,
                ended,
                ..
            } = &mut self;
            match step {
                Step::GoesOn(open) => {
                    // Boxed, so that an idle connection does not hold room for an exchange.
                    let going_on = pinned(|| door.proxy.go_on(open, client, &mut alarm));
                    *ended = Some(match moment.take() {
                        Some(came) => clock::begun(came.instant, going_on).await,
                        None => going_on.await,
                    });
                }
                Step::Ends => {}
                Step::Closes => break,
                Step::Refused(error) => {
                    pinned(|| door.proxy.refuse(client, *arrival, error, &mut alarm)).await;
                    break;
                }
                Step::Http2(read) => {
                    let Self {
                        door,
                        client: Client::Http1(http1),
                        arrival,
                        expected,
                        shutdown,
                        counted,
                        ..
                    } = self
                    else {
                        return;
                    };
                    let connection = Connection {
                        socket: http1.into_socket(),
                        arrival,
                        scheme: expected.scheme,
                        alpn: Alpn::Http2,
                        prior_knowledge: PriorKnowledge::Refused,
                    };
                    pinned(|| door.http2(connection, read, shutdown)).await;
                    return drop(counted);
                }
                Step::Unfinished => {
                    tokio::task::yield_now().await;
                    continue;
                }
                Step::Steady => {
                    let reactors = self.door.reactors.clone();
                    match reactors.take(self) {
                        Some(row) => self = row,
                        None => return,
                    }
                    continue;
                }
            }
            let Client::Http1(http1) = &mut self.client else { return };
            if !http1.body_is_read() {
                // What is left of it is read first, which may take its time.
                self.ended = None;
            }
            if http1.end(&mut alarm).await == After::Close {
                break;
            }
        }
        if let Client::Http1(http1) = self.client {
            http1.close(&mut alarm).await;
        }
    }

    /// Answers one request after the other, as long as nothing has to be waited for but the next one.
    fn poll(&mut self, cx: &mut Context<'_>, alarm: &mut Alarm) -> Poll<Step> {
        for _ in 0..TURN {
            let Client::Http1(http1) = &mut self.client else {
                return Poll::Ready(Step::Closes);
            };
            let times = HeadTimes {
                idle: KEEP_ALIVE_IDLE,
                head: HEAD_TIME,
                since: match self.moment {
                    // The last one was answered at once.
                    Some(moment) => Some(moment.instant),
                    None => self.ended.take(),
                },
            };
            let next = ready!(http1.poll_next(cx, self.expected, times, alarm));
            // Only the first bytes of a connection can be a preface.
            self.expected.http2 = PriorKnowledge::Refused;
            let request = match next {
                Next::Request(request, Came::Before) => request,
                Next::Request(request, Came::Now) => {
                    self.moment = None;
                    request
                }
                Next::Closed => return Poll::Ready(Step::Closes),
                Next::Http2(read) => return Poll::Ready(Step::Http2(read)),
                Next::Refused(error) => return Poll::Ready(Step::Refused(error.into())),
                Next::TimedOut => return Poll::Ready(Step::Refused(ProxyError::HeadTimeout)),
            };
            let proxy = &self.door.proxy;
            let came = *self.moment.get_or_insert_with(|| proxy.clock.moment());
            if let Some(open) = proxy.take_up(cx, &mut self.client, request, self.arrival, came) {
                self.at_once = 0;
                return Poll::Ready(Step::GoesOn(open));
            }
            let Client::Http1(http1) = &mut self.client else {
                return Poll::Ready(Step::Closes);
            };
            match http1.end_at_once() {
                Some(After::Reuse) => {}
                Some(After::Close) => return Poll::Ready(Step::Closes),
                None => return Poll::Ready(Step::Ends),
            }
            self.at_once = self.at_once.saturating_add(1);
            if self.at_once >= self.steady && http1.rests() && http1.socket().can_detach() {
                self.at_once = 0;
                return Poll::Ready(Step::Steady);
            }
            if http1.rests_for_now() {
                return Poll::Pending;
            }
        }
        Poll::Ready(Step::Unfinished)
    }

    /// Whether something of a next request is there.
    fn has_unread_bytes(&self) -> bool {
        matches!(&self.client, Client::Http1(http1) if http1.has_unread_bytes())
    }
}

/// What a reactor does with it.
impl Row {
    /// Takes the connection out of the runtime. False: it stays there.
    pub(super) fn detach(&mut self, counted: GaugeGuard) -> bool {
        let detached = self.http1().is_some_and(Http1Client::detach);
        self.in_reactor = detached.then_some(counted);
        detached
    }

    /// Gives the connection back to the runtime.
    ///
    /// # Errors
    /// When the system does not take care of another descriptor. The connection is closed then.
    pub(super) fn attach(&mut self) -> io::Result<()> {
        self.in_reactor = None;
        self.at_once = 0;
        self.steady = (self.steady * 2).min(MOST_STEADY);
        self.http1().map_or(Ok(()), |http1| http1.socket_mut().attach())
    }

    /// The connection, as long as it is not in the runtime.
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match &self.client {
            Client::Http1(http1) => http1.socket().bare(),
            Client::Http2(_) | Client::Kept(_) | Client::Nobody => None,
        }
    }

    fn http1(&mut self) -> Option<&mut Http1Client> {
        match &mut self.client {
            Client::Http1(http1) => Some(http1),
            Client::Http2(_) | Client::Kept(_) | Client::Nobody => None,
        }
    }

    /// Something has come.
    pub(super) fn comes(&mut self, what: Coming) {
        if let Some(http1) = self.http1() {
            http1.socket_mut().comes(what);
        }
    }

    /// Answers what has come.
    pub(super) fn turn(&mut self, cx: &mut Context<'_>, alarm: &mut Alarm) -> Turn {
        let step = self.poll(cx, alarm);
        match (step, &self.client) {
            (Poll::Pending, Client::Http1(http1)) if http1.rests() => Turn::Rests,
            (Poll::Pending, _) => Turn::Leaves(None),
            (Poll::Ready(Step::Closes), Client::Http1(http1)) if http1.is_over() => Turn::Over,
            (Poll::Ready(Step::Unfinished), _) => Turn::Unfinished,
            (Poll::Ready(step), _) => Turn::Leaves(Some(step)),
        }
    }

    /// Whether it has been silent for too long between two requests.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        let since = self.moment.map(|moment| now.saturating_duration_since(moment.instant));
        since.is_some_and(|silent| silent >= KEEP_ALIVE_IDLE)
    }
}
