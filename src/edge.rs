//! The front door: our own application under every listener of Pingora.
//!
//! It takes a connection through PROXY protocol, TLS and the choice of HTTP version, reads request heads under deadlines of its own,
//! refuses what two parsers could read differently, and hands everything else to [`Proxy::take_up`] and [`Proxy::go_on`], for
//! HTTP/1.1 and HTTP/2 alike.

pub mod admission;
pub mod client;
mod gathered;
pub mod http1;
pub mod http2;
pub mod proxy_protocol;
pub mod reactor;
mod row;
mod socket;
pub mod stalled;
pub mod tls;

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use pingora_core::apps::ServerApp;
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::v2::server::default_h2_options;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::server::ShutdownWatch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::client::Client;
use self::gathered::Gathered;
use self::http1::PriorKnowledge;
use self::http2::Http2Client;
use self::proxy_protocol::Header;
use self::reactor::Reactors;
use self::row::Row;
use self::socket::Socket;
use self::tls::{HANDSHAKE_TIMEOUT, Rewound};
use crate::config::{self, ListenAddress};
use crate::exchange::Arrival;
use crate::in_place::pinned;
use crate::io::Alarm;
use crate::message::Scheme;
use crate::metrics::{Gauge, GaugeGuard};
use crate::proxy::Proxy;
use crate::proxy::work::Connected;
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
    reactors: Arc<Reactors>,
}

/// What counts a connection, as long as it lives.
type Counted = (GaugeGuard, Connected);

/// A connection that HTTP can be spoken on.
struct Connection {
    socket: Socket,
    arrival: Arrival,
    scheme: Scheme,
    alpn: Alpn,
    prior_knowledge: PriorKnowledge,
}

#[async_trait]
impl ServerApp for FrontDoor {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let counted = (self.connections.guard(), self.proxy.work.connect());
        // A task of its own, so that nothing of how the connection was accepted stands by as long as it lives, and is passed through
        // whenever something comes.
        let (door, shutdown) = (self.clone(), shutdown.clone());
        tokio::spawn(door.serve(stream, shutdown, counted));
        None
    }
}

impl FrontDoor {
    pub fn new(proxy: Arc<Proxy>, listener: usize, connections: Arc<Gauge>, reactors: Arc<Reactors>) -> Self {
        Self {
            proxy,
            listener,
            connections,
            reactors,
        }
    }

    async fn serve(self: Arc<Self>, stream: Stream, shutdown: ShutdownWatch, counted: Counted) {
        if let Some(connection) = pinned(|| self.open(stream)).await {
            match connection.alpn {
                Alpn::Http1 => Row::new(self, connection, shutdown, counted).serve(None).await,
                Alpn::Http2 => {
                    pinned(|| self.http2(connection, BytesMut::new(), shutdown)).await;
                    drop(counted);
                }
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
