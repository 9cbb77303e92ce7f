//! A fake origin on a free port that answers as told and remembers every byte it was sent.

mod http1;
mod http2;
mod reply;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::task::{JoinHandle, JoinSet};

pub use self::reply::{Gate, Reply, Step, Stream};
use super::certificate::Certificate;
use super::watched::Watched;

/// Raw bytes kept per connection: more than any head, less than an upload.
const RAW_KEPT: usize = 256 * 1024;

/// Body bytes kept per request; beyond it only their number is known.
const BODY_KEPT: usize = 1024 * 1024;

/// A running origin. It ends with the test, and fails it if one of its tasks panicked.
pub struct Origin {
    address: Address,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

#[derive(Debug, Clone)]
enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

struct Shared {
    replies: Mutex<Replies>,
    log: Watched<Log>,
    panics: Mutex<Vec<String>>,
}

#[derive(Default)]
struct Replies {
    /// By path, without the query. The last of a sequence repeats.
    by_path: HashMap<String, Vec<Reply>>,
    otherwise: Option<Reply>,
    /// Answers everything that `by_path` does not.
    answering: Option<Answering>,
}

type Answering = Arc<dyn Fn(&Request) -> Reply + Send + Sync>;

/// Everything that came in.
#[derive(Debug, Default)]
pub struct Log {
    pub connections: Vec<Connection>,
    pub requests: Vec<Request>,
}

#[derive(Debug, Clone, Default)]
pub struct Connection {
    /// What was read, as it was (behind TLS), up to [`RAW_KEPT`]. Empty for HTTP/2.
    pub raw: Vec<u8>,
    /// The name that the client asked for in its TLS handshake.
    pub server_name: Option<String>,
    pub closed: bool,
}

#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Index of its connection.
    pub connection: usize,
    pub method: String,
    /// `:path` for HTTP/2.
    pub target: String,
    /// `HTTP/1.1`, `HTTP/1.0` or `HTTP/2`.
    pub version: String,
    /// In order, as received. For HTTP/2 `:authority` stands first, as `host`.
    pub fields: Vec<(String, String)>,
    /// Up to [`BODY_KEPT`].
    pub body: Vec<u8>,
    pub body_length: u64,
    pub trailers: Vec<(String, String)>,
    pub state: RequestState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RequestState {
    #[default]
    Reading,
    Complete,
    /// The connection or HTTP/2 stream ended before the request did, or its framing was wrong.
    Cut,
}

impl Request {
    /// The first value of that name.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields(name).first().copied()
    }

    pub fn fields(&self, name: &str) -> Vec<&str> {
        values(&self.fields, name)
    }
}

/// All values of a field, in order.
pub fn values<'a>(fields: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    fields
        .iter()
        .filter(|(n, _)| n.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_str())
        .collect()
}

pub struct Builder {
    replies: Replies,
    transport: Transport,
    protocol: Protocol,
    address: SocketAddr,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            replies: Replies::default(),
            transport: Transport::default(),
            protocol: Protocol::default(),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
        }
    }
}

#[derive(Default)]
enum Transport {
    #[default]
    Plain,
    Tls(Arc<rustls::ServerConfig>),
    Unix(PathBuf),
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    #[default]
    Http1,
    Http2,
}

impl Builder {
    /// Answers requests for this path, whatever their query, with these replies one after another; the last one repeats.
    pub fn on_each(mut self, path: &str, replies: impl IntoIterator<Item = Reply>) -> Self {
        self.replies
            .by_path
            .insert(path.to_owned(), replies.into_iter().collect());
        self
    }

    pub fn on(self, path: &str, reply: Reply) -> Self {
        self.on_each(path, [reply])
    }

    /// Answers every other path; `hello` if this is not called.
    pub fn otherwise(mut self, reply: Reply) -> Self {
        self.replies.otherwise = Some(reply);
        self
    }

    /// Answers every other path as this says, having seen the request's head.
    pub fn answering(mut self, answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        self.replies.answering = Some(Arc::new(answer));
        self
    }

    /// Speaks TLS with this certificate, and offers its protocol by ALPN.
    pub fn tls(self, certificate: &Certificate) -> Self {
        self.tls_for(certificate, None)
    }

    /// The same, for clients only that show a certificate of this authority.
    pub fn tls_for_clients_of(self, certificate: &Certificate, authority: &Certificate) -> Self {
        self.tls_for(certificate, Some(authority))
    }

    fn tls_for(mut self, certificate: &Certificate, clients: Option<&Certificate>) -> Self {
        let alpn = match self.protocol {
            Protocol::Http1 => "http/1.1",
            Protocol::Http2 => "h2",
        };
        self.transport = Transport::Tls(certificate.server_config(&[alpn], clients));
        self
    }

    /// Listens there instead of on a free port of 127.0.0.1.
    pub fn at(mut self, address: impl Into<SocketAddr>) -> Self {
        self.address = address.into();
        self
    }

    pub fn unix(mut self, path: &Path) -> Self {
        self.transport = Transport::Unix(path.to_owned());
        self
    }

    /// Speaks HTTP/2; call it before [`Builder::tls`].
    pub fn http2(mut self) -> Self {
        self.protocol = Protocol::Http2;
        self
    }

    pub async fn start(self) -> Origin {
        let shared = Arc::new(Shared {
            replies: Mutex::new(self.replies),
            log: Watched::default(),
            panics: Mutex::default(),
        });
        let (address, accepting) = match self.transport {
            Transport::Unix(path) => {
                let listener = UnixListener::bind(&path).unwrap();
                let serving = accept_unix(listener, Arc::clone(&shared), self.protocol);
                (Address::Unix(path), tokio::spawn(serving))
            }
            Transport::Plain => listen(self.address, &shared, self.protocol, None).await,
            Transport::Tls(config) => listen(self.address, &shared, self.protocol, Some(config.into())).await,
        };
        Origin {
            address,
            shared,
            accepting,
        }
    }
}

impl Origin {
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// An origin that says `hello` to everything.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// As a configuration names it under `servers`: `127.0.0.1:1234` or `unix:/path`.
    pub fn server(&self) -> String {
        match &self.address {
            Address::Tcp(address) => address.to_string(),
            Address::Unix(path) => format!("unix:{}", path.display()),
        }
    }

    /// Its port, where it has one.
    pub fn port(&self) -> u16 {
        match &self.address {
            Address::Tcp(address) => address.port(),
            Address::Unix(_) => panic!("a Unix socket has no port"),
        }
    }

    /// Replaces what is said to this path from now on.
    pub fn on(&self, path: &str, reply: Reply) {
        let mut replies = self.shared.replies.lock().unwrap();
        replies.by_path.insert(path.to_owned(), vec![reply]);
    }

    pub fn requests(&self) -> Vec<Request> {
        self.shared.log.read(|log| log.requests.clone())
    }

    pub fn request_count(&self) -> usize {
        self.shared.log.read(|log| log.requests.len())
    }

    pub fn connection_count(&self) -> usize {
        self.shared.log.read(|log| log.connections.len())
    }

    pub fn connection(&self, index: usize) -> Connection {
        self.shared.log.read(|log| log.connections[index].clone())
    }

    /// The only request there has been.
    #[track_caller]
    pub fn only_request(&self) -> Request {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "requests at the origin: {requests:#?}");
        requests.remove(0)
    }

    #[track_caller]
    pub fn last_request(&self) -> Request {
        self.requests().pop().expect("no request came to the origin")
    }

    /// Waits for the request of this index to have come in with its whole head.
    pub async fn request(&self, index: usize) -> Request {
        self.request_where(index, "a request at the origin", |_| true).await
    }

    /// Waits for the request of this index to be read to its end, or cut.
    pub async fn ended_request(&self, index: usize) -> Request {
        self.request_where(index, "the end of a request at the origin", |request| {
            request.state != RequestState::Reading
        })
        .await
    }

    /// Waits until the request of this index is as told.
    #[track_caller]
    pub fn request_where(
        &self,
        index: usize,
        what: &str,
        mut holds: impl FnMut(&Request) -> bool,
    ) -> impl Future<Output = Request> {
        self.shared.log.wait(what, move |log| {
            log.requests.get(index).filter(|request| holds(request)).cloned()
        })
    }

    /// Waits until the peer has closed the connection of this index.
    #[track_caller]
    pub fn closed(&self, index: usize) -> impl Future<Output = ()> {
        self.shared
            .log
            .wait_for("the end of a connection to the origin", move |log| {
                log.connections.get(index).is_some_and(|connection| connection.closed)
            })
    }

    /// As [`Origin::closed`], without a bound of its own.
    pub async fn until_closed(&self, index: usize) {
        let closed = |log: &Log| log.connections.get(index).is_some_and(|connection| connection.closed);
        self.shared.log.until_found(|log| closed(log).then_some(())).await;
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.accepting.abort();
        let panics = self.shared.panics.lock().unwrap();
        if !std::thread::panicking() {
            assert!(panics.is_empty(), "the origin panicked: {panics:?}");
        }
    }
}

impl Shared {
    /// What is to be said to this request.
    fn reply(&self, request: &Request) -> Reply {
        let path = request.target.split('?').next().unwrap_or_default();
        let mut replies = self.replies.lock().unwrap();
        match replies.by_path.get_mut(path) {
            Some(sequence) if sequence.len() > 1 => return sequence.remove(0),
            Some(sequence) => return sequence[0].clone(),
            None => {}
        }
        let answering = replies.answering.clone();
        let otherwise = replies.otherwise.clone();
        drop(replies);
        match answering {
            Some(answer) => answer(request),
            None => otherwise.unwrap_or_else(|| Reply::ok("hello")),
        }
    }

    fn new_connection(&self) -> usize {
        self.log.change(|log| {
            log.connections.push(Connection::default());
            log.connections.len() - 1
        })
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

async fn listen(
    address: SocketAddr,
    shared: &Arc<Shared>,
    protocol: Protocol,
    tls: Option<tokio_rustls::TlsAcceptor>,
) -> (Address, JoinHandle<()>) {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = accept_tcp(listener, Arc::clone(shared), protocol, tls);
    (Address::Tcp(address), tokio::spawn(serving))
}

async fn accept_tcp(
    listener: TcpListener,
    shared: Arc<Shared>,
    protocol: Protocol,
    tls: Option<tokio_rustls::TlsAcceptor>,
) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        while connections.try_join_next().is_some() {}
        let id = shared.new_connection();
        let shared = Arc::clone(&shared);
        let tls = tls.clone();
        connections.spawn(watch_panics(Arc::clone(&shared), async move {
            let (stream, handle) = duplicate(stream);
            match tls {
                None => serve(Box::new(stream), Some(handle), shared, id, protocol).await,
                Some(acceptor) => match acceptor.accept(stream).await {
                    Ok(stream) => {
                        let server_name = stream.get_ref().1.server_name().map(str::to_owned);
                        shared.log.change(|log| log.connections[id].server_name = server_name);
                        serve(Box::new(stream), Some(handle), shared, id, protocol).await;
                    }
                    Err(_) => shared.log.change(|log| log.connections[id].closed = true),
                },
            }
        }));
    }
}

async fn accept_unix(listener: UnixListener, shared: Arc<Shared>, protocol: Protocol) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        while connections.try_join_next().is_some() {}
        let id = shared.new_connection();
        let serving = serve(Box::new(stream), None, Arc::clone(&shared), id, protocol);
        connections.spawn(watch_panics(Arc::clone(&shared), serving));
    }
}

async fn serve(
    stream: Box<dyn Io>,
    handle: Option<socket2::Socket>,
    shared: Arc<Shared>,
    id: usize,
    protocol: Protocol,
) {
    match protocol {
        Protocol::Http1 => http1::serve(stream, handle, shared, id).await,
        Protocol::Http2 => http2::serve(stream, shared, id).await,
    }
}

/// A second handle on the socket, to reset it whatever has been wrapped around the first.
fn duplicate(stream: TcpStream) -> (TcpStream, socket2::Socket) {
    let stream = stream.into_std().unwrap();
    let handle = socket2::Socket::from(stream.try_clone().unwrap());
    (TcpStream::from_std(stream).unwrap(), handle)
}

async fn watch_panics(shared: Arc<Shared>, task: impl Future<Output = ()>) {
    if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
        let message = match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
            (Some(text), _) => text.clone(),
            (None, Some(text)) => (*text).to_owned(),
            (None, None) => "without a message".to_owned(),
        };
        shared.panics.lock().unwrap().push(message);
    }
}

/// An address that refuses connections, and that nobody else gets while this lives.
pub struct Refusing(socket2::Socket);

impl Refusing {
    pub fn new() -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let any_port: SocketAddr = ([127, 0, 0, 1], 0).into();
        socket.bind(&any_port.into()).unwrap();
        Self(socket)
    }

    pub fn server(&self) -> String {
        self.0.local_addr().unwrap().as_socket().unwrap().to_string()
    }
}
