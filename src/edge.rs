//! The front door: our own application under every listener of Pingora.
//!
//! It takes a connection through PROXY protocol, TLS and the choice of HTTP version, reads request heads under deadlines of its own,
//! refuses what two parsers could read differently, and hands everything else to [`Proxy::take_up`] and [`Proxy::go_on`], for
//! HTTP/1.1 and HTTP/2 alike.

mod admission;
pub mod client;
mod gathered;
pub mod http1;
pub mod http2;
pub mod proxy_protocol;
mod socket;
pub mod stalled;
pub mod tls;

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use pingora_core::apps::ServerApp;
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::v2::server::default_h2_options;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::server::ShutdownWatch;
use tokio::task::JoinSet;
use tokio::task::coop::unconstrained;
use tokio::time::Instant;

use self::admission::Admission;
use self::client::Client;
use self::gathered::Gathered;
use self::http1::{After, Came, Expected, HeadTimes, Http1Client, Next, PriorKnowledge};
use self::http2::Http2Client;
use self::proxy_protocol::Header;
use self::socket::Socket;
use self::tls::{HANDSHAKE_TIMEOUT, Rewound};
use crate::clock::{self, Moment};
use crate::config::{self, ListenAddress};
use crate::exchange::Arrival;
use crate::http1::Limits;
use crate::in_place::pinned;
use crate::io::Alarm;
use crate::message::Scheme;
use crate::metrics::Gauge;
use crate::proxy::Proxy;
use crate::proxy::at_once::Open;
use crate::respond::error::ProxyError;
use crate::route;
use crate::tls::Alpn;

/// How long a connection may be silent between two requests.
const KEEP_ALIVE_IDLE: Duration = Duration::from_secs(75);

/// From the first byte of a request head to its last: a client on a bad line needs seconds, one that sends a byte a minute wants
/// our memory.
const HEAD_TIME: Duration = Duration::from_secs(10);

/// Bytes of a request body that an HTTP/2 client may have under way, per stream and per connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Response bytes that wait inside one HTTP/2 stream for the connection.
const STREAM_SEND_BUFFER: usize = 64 * 1024;

/// One listener's application.
pub struct FrontDoor {
    proxy: Arc<Proxy>,
    /// Index into the configuration's listeners.
    listener: usize,
    connections: Arc<Gauge>,
    admission: Admission,
}

/// A connection that HTTP can be spoken on.
struct Connection {
    socket: Socket,
    arrival: Arrival,
    scheme: Scheme,
    alpn: Alpn,
    prior_knowledge: PriorKnowledge,
}

/// The requests of an HTTP/1 connection.
struct Row {
    arrival: Arrival,
    expected: Expected<'static>,
    /// When the requests came that one read has brought.
    moment: Option<Moment>,
    /// When the last exchange ended, if that was a moment ago.
    ended: Option<Instant>,
}

/// What the requests of a connection come to that cannot be answered at once.
enum Step {
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
}

#[async_trait]
impl ServerApp for FrontDoor {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let counted = (self.connections.guard(), self.proxy.work.connect());
        self.admission.enter().await;
        // A task of its own, so that nothing of how the connection was accepted stands by as long as it lives, and is passed through
        // whenever something comes.
        let (door, shutdown) = (self.clone(), shutdown.clone());
        tokio::spawn(async move {
            let _counted = counted;
            door.serve(stream, shutdown).await;
        });
        None
    }
}

impl FrontDoor {
    pub fn new(proxy: Arc<Proxy>, listener: usize, connections: Arc<Gauge>) -> Self {
        Self {
            proxy,
            listener,
            connections,
            admission: Admission::default(),
        }
    }

    async fn serve(&self, stream: Stream, shutdown: ShutdownWatch) {
        if let Some(connection) = Box::pin(self.open(stream)).await {
            match connection.alpn {
                Alpn::Http1 => self.http1(connection, shutdown).await,
                Alpn::Http2 => Box::pin(self.http2(connection, BytesMut::new(), shutdown)).await,
            }
        }
    }

    /// PROXY protocol and TLS, as the listener is configured now.
    async fn open(&self, mut stream: Stream) -> Option<Connection> {
        let generation = self.proxy.generation();
        let listener = generation.config.listeners.get(self.listener)?;
        let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
        let fd = stream.id();
        let mut peer = peer_address(&stream);
        let mut first = Bytes::new();
        if listener.proxy_protocol {
            // A header from anybody else could claim any address.
            if !peer.is_none_or(|peer| route::contains(&generation.config.trusted_proxies, peer)) {
                tracing::debug!(
                    ?peer,
                    "refused a connection: PROXY protocol from a peer that is not trusted"
                );
                return None;
            }
            match proxy_protocol::read(&mut stream, deadline).await {
                Ok((header, rest)) => {
                    first = rest.freeze();
                    if let Header::Proxied { source, .. } = header {
                        peer = Some(source.ip());
                    }
                }
                Err(error) => {
                    tracing::debug!(?peer, %error, "refused a connection");
                    return None;
                }
            }
        }
        let arrival = Arrival {
            listener: self.listener,
            peer,
        };
        let prior_knowledge = match listener.http2 && listener.tls.is_none() {
            true => PriorKnowledge::Accepted,
            false => PriorKnowledge::Refused,
        };
        let Some(Some(acceptor)) = generation.acceptors.get(self.listener) else {
            let socket = match (first.is_empty(), &listener.address) {
                (true, ListenAddress::Tcp(_)) => Socket::Accepted(stream),
                (true, ListenAddress::Unix(_)) => Socket::Over(Box::new(stream), fd),
                (false, _) => Socket::Over(Box::new(Rewound::new(first, stream)), fd),
            };
            return Some(Connection {
                socket,
                arrival,
                scheme: Scheme::Http,
                alpn: Alpn::Http1,
                prior_knowledge,
            });
        };
        match acceptor.accept(Rewound::new(first, stream), deadline).await {
            Ok(stream) => {
                let alpn = stream.tls().map_or(Alpn::Http1, |info| info.alpn);
                Some(Connection {
                    socket: Socket::Over(Box::new(stream), fd),
                    arrival,
                    scheme: Scheme::Https,
                    alpn,
                    prior_knowledge,
                })
            }
            Err(error) => {
                tracing::debug!(?peer, %error, "refused a connection");
                None
            }
        }
    }

    async fn http1(&self, connection: Connection, shutdown: ShutdownWatch) {
        let Connection {
            socket,
            arrival,
            scheme,
            prior_knowledge,
            ..
        } = connection;
        let mut alarm = Alarm::new();
        let mut client = Client::Http1(Box::new(Http1Client::new(socket, shutdown.clone())));
        let mut row = Row {
            arrival,
            expected: Expected {
                scheme,
                limits: &Limits::DEFAULT,
                http2: prior_knowledge,
            },
            moment: None,
            ended: None,
        };
        // One for the whole connection: to begin and end waiting takes a lock, and requests come fast.
        let mut stopping = pin!(unconstrained(shut_down(shutdown.clone())));
        let mut waits_for_stop = false;
        loop {
            let step = poll_fn(|cx| {
                if let Poll::Ready(step) = self.poll_row(cx, &mut row, &mut client, &mut alarm) {
                    return Poll::Ready(step);
                }
                // A connection between two requests ends at once, one that has begun to send a request is served. Once the task waits
                // for the end it is woken then, and does not have to ask each time.
                if has_unread_bytes(&client) || (waits_for_stop && matches!(shutdown.has_changed(), Ok(false))) {
                    return Poll::Pending;
                }
                waits_for_stop = true;
                stopping.as_mut().poll(cx).map(|()| Step::Closes)
            });
            match step.await {
                Step::GoesOn(open) => {
                    // Boxed, so that an idle connection does not hold room for an exchange.
                    let going_on = pinned(|| self.proxy.go_on(open, &mut client, &mut alarm));
                    row.ended = Some(match row.moment.take() {
                        Some(came) => clock::begun(came.instant, going_on).await,
                        None => going_on.await,
                    });
                }
                Step::Ends => {}
                Step::Closes => break,
                Step::Refused(error) => {
                    Box::pin(self.proxy.refuse(&mut client, arrival, error, &mut alarm)).await;
                    break;
                }
                Step::Http2(read) => {
                    let Client::Http1(http1) = client else { return };
                    let connection = Connection {
                        socket: http1.into_socket(),
                        arrival,
                        scheme,
                        alpn: Alpn::Http2,
                        prior_knowledge,
                    };
                    return Box::pin(self.http2(connection, read, shutdown)).await;
                }
            }
            let Client::Http1(http1) = &mut client else { return };
            let after = match http1.end_at_once() {
                Some(after) => after,
                None => {
                    row.ended = None;
                    http1.end(&mut alarm).await
                }
            };
            if after == After::Close {
                break;
            }
        }
        if let Client::Http1(http1) = client {
            http1.close(&mut alarm).await;
        }
    }

    /// Answers one request after the other, as long as nothing has to be waited for but the next one.
    fn poll_row(&self, cx: &mut Context<'_>, row: &mut Row, client: &mut Client, alarm: &mut Alarm) -> Poll<Step> {
        loop {
            let Client::Http1(http1) = &mut *client else {
                return Poll::Ready(Step::Closes);
            };
            let times = HeadTimes {
                idle: KEEP_ALIVE_IDLE,
                head: HEAD_TIME,
                since: match row.moment {
                    // The last one was answered at once.
                    Some(moment) => Some(moment.instant),
                    None => row.ended.take(),
                },
            };
            let next = ready!(http1.poll_next(cx, row.expected, times, alarm));
            // Only the first bytes of a connection can be a preface.
            row.expected.http2 = PriorKnowledge::Refused;
            let request = match next {
                Next::Request(request, Came::Before) => request,
                Next::Request(request, Came::Now) => {
                    row.moment = None;
                    request
                }
                Next::Closed => return Poll::Ready(Step::Closes),
                Next::Http2(read) => return Poll::Ready(Step::Http2(read)),
                Next::Refused(error) => return Poll::Ready(Step::Refused(error.into())),
                Next::TimedOut => return Poll::Ready(Step::Refused(ProxyError::HeadTimeout)),
            };
            let came = *row.moment.get_or_insert_with(|| self.proxy.clock.moment());
            if let Some(open) = self.proxy.take_up(cx, client, request, row.arrival, came) {
                return Poll::Ready(Step::GoesOn(open));
            }
            let Client::Http1(http1) = &mut *client else {
                return Poll::Ready(Step::Closes);
            };
            match http1.end_at_once() {
                Some(After::Reuse) => {}
                Some(After::Close) => return Poll::Ready(Step::Closes),
                None => return Poll::Ready(Step::Ends),
            }
        }
    }

    async fn http2(&self, connection: Connection, read: BytesMut, shutdown: ShutdownWatch) {
        let Connection {
            socket,
            arrival,
            scheme,
            ..
        } = connection;
        let io = Gathered::new(Rewound::new(read.freeze(), socket));
        let mut options = default_h2_options();
        options
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(STREAM_SEND_BUFFER);
        let handshake = tokio::time::timeout(HEAD_TIME, options.handshake::<_, Bytes>(io.clone()));
        let Ok(Ok(mut connection)) = handshake.await else {
            return;
        };
        let mut streams = JoinSet::new();
        let mut stopping = pin!(shut_down(shutdown));
        let mut ending = false;
        let mut moment = None;
        loop {
            let idle = streams.is_empty();
            let accepted = tokio::select! {
                biased;
                () = &mut stopping, if !ending => {
                    ending = true;
                    connection.graceful_shutdown();
                    continue;
                }
                Some(_) = streams.join_next(), if !idle => continue,
                accepted = poll_fn(|cx| {
                    io.gather();
                    let accepted = connection.poll_accept(cx);
                    if accepted.is_pending() {
                        io.release(cx);
                        moment = None;
                    }
                    accepted
                }) => accepted,
                () = tokio::time::sleep(if ending { HEAD_TIME } else { KEEP_ALIVE_IDLE }), if idle => {
                    // What was left to say has been said, or the peer is gone.
                    if ending {
                        return;
                    }
                    // Requests that have crossed with it are still served (RFC 9113 §6.8).
                    ending = true;
                    connection.graceful_shutdown();
                    continue;
                }
            };
            let Some(Ok((request, respond))) = accepted else { break };
            let head = http2::request_head(&request, scheme);
            let mut client = Client::Http2(Box::new(Http2Client::new(request.into_body(), respond)));
            let begun = match head {
                Ok(head) => {
                    let came = *moment.get_or_insert_with(|| self.proxy.clock.moment());
                    let mut request = Some(Arc::new(head));
                    let taken_up = poll_fn(|cx| {
                        let request = request.take();
                        Poll::Ready(request.and_then(|head| self.proxy.take_up(cx, &mut client, head, arrival, came)))
                    });
                    taken_up.await.map(Ok)
                }
                Err(error) => Some(Err(error)),
            };
            // Only what is not over yet needs a task of its own.
            let Some(begun) = begun else { continue };
            let proxy = self.proxy.clone();
            streams.spawn(async move {
                let mut alarm = Alarm::new();
                match begun {
                    Ok(open) => drop(proxy.go_on(open, &mut client, &mut alarm).await),
                    Err(error) => proxy.refuse(&mut client, arrival, error.into(), &mut alarm).await,
                }
            });
        }
        // The connection is gone or has said goodbye; streams notice that by themselves.
        while streams.join_next().await.is_some() {}
    }
}

/// Whether something of a next request is there.
fn has_unread_bytes(client: &Client) -> bool {
    matches!(client, Client::Http1(http1) if http1.has_unread_bytes())
}

/// Ready when the process is about to stop.
async fn shut_down(mut shutdown: ShutdownWatch) {
    while !*shutdown.borrow_and_update() {
        if shutdown.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn peer_address(stream: &Stream) -> Option<IpAddr> {
    let digest = stream.get_socket_digest()?;
    match digest.peer_addr()? {
        SocketAddr::Inet(address) => Some(address.ip().to_canonical()),
        SocketAddr::Unix(_) => None,
    }
}

impl From<&config::Listener> for Scheme {
    fn from(listener: &config::Listener) -> Self {
        match listener.tls {
            Some(_) => Self::Https,
            None => Self::Http,
        }
    }
}
