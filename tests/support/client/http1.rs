//! A client that sends what it is given and reads exactly what HTTP/1.1 says belongs to a response.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UnixStream};

use crate::support::certificate::{Certificate, client_config};
use crate::support::origin::values;
use crate::support::{within, within_time};

pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// When a peer has taken nothing for so long it is taken to have stopped.
const BLOCKED_FOR: Duration = Duration::from_millis(500);

/// One connection.
pub struct Client {
    stream: Box<dyn Io>,
    buffer: BytesMut,
}

/// A final response with the interim ones before it.
#[derive(Debug, Clone, Default)]
pub struct Response {
    pub status: u16,
    /// Head as it came, blank line included.
    pub raw_head: String,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// Status and fields.
    pub interim: Vec<(u16, Vec<(String, String)>)>,
}

impl Response {
    /// The first value of that name.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields(name).first().copied()
    }

    pub fn fields(&self, name: &str) -> Vec<&str> {
        values(&self.fields, name)
    }

    #[track_caller]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// `Cache-Status` without the name of the cache: `hit`, `fwd=uri-miss; stored`...
    pub fn cache_status(&self) -> &str {
        let value = self.field("cache-status").unwrap_or_default();
        value.split_once(';').map_or("", |(_, parameters)| parameters.trim())
    }
}

/// How a body ends (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
    Close,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = within("a connection", TcpStream::connect(address)).await.unwrap();
        Self::tcp(stream)
    }

    /// From another address of the loopback network (127.0.0.0/8).
    pub async fn connect_from(source: [u8; 4], address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((source, 0).into()).unwrap();
        Self::tcp(within("a connection", socket.connect(address)).await.unwrap())
    }

    /// With a receive buffer so small that the sender notices at once when nothing is read.
    pub async fn connect_narrow(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        Self::tcp(within("a connection", socket.connect(address)).await.unwrap())
    }

    pub async fn connect_unix(path: &Path) -> Self {
        let stream = within("a connection", UnixStream::connect(path)).await.unwrap();
        Self::over(Box::new(stream))
    }

    /// TLS with HTTP/1.1, trusting this certificate alone.
    pub async fn connect_tls(address: SocketAddr, server_name: &str, trusted: &Certificate) -> Self {
        let config = client_config(&[trusted], &["http/1.1"], rustls::ALL_VERSIONS);
        let stream = tls(address, server_name, config).await.unwrap();
        Self::over(Box::new(stream))
    }

    /// As [`Client::connect_tls`], with these bytes sent before the handshake.
    pub async fn connect_tls_behind(
        prefix: &[u8],
        address: SocketAddr,
        server_name: &str,
        trusted: &Certificate,
    ) -> Self {
        let mut stream = within("a connection", TcpStream::connect(address)).await.unwrap();
        within("room to write", stream.write_all(prefix)).await.unwrap();
        let config = client_config(&[trusted], &["http/1.1"], rustls::ALL_VERSIONS);
        Self::over(Box::new(tls_over(stream, server_name, config).await.unwrap()))
    }

    fn tcp(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self::over(Box::new(stream))
    }

    pub(super) fn over(stream: Box<dyn Io>) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
        }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).await.unwrap();
    }

    /// For bytes that the peer may refuse to take.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        within("room to write", async {
            self.stream.write_all(bytes.as_ref()).await?;
            self.stream.flush().await
        })
        .await
    }

    /// Says that nothing more will come (FIN), and reads on.
    pub async fn half_close(&mut self) {
        within("room to close", self.stream.shutdown()).await.unwrap();
    }

    /// `GET` with `Host: test`.
    pub async fn get(&mut self, target: &str) -> Response {
        self.request("GET", target, &[], b"").await
    }

    /// `Host: test` unless the fields have one, and the length if there is a body.
    pub async fn request(&mut self, method: &str, target: &str, fields: &[(&str, &str)], body: &[u8]) -> Response {
        self.send_request(method, target, fields, body).await;
        match method {
            "HEAD" => self.response_without_body().await,
            _ => self.response().await,
        }
    }

    pub async fn send_request(&mut self, method: &str, target: &str, fields: &[(&str, &str)], body: &[u8]) {
        let mut message = format!("{method} {target} HTTP/1.1\r\n");
        if !fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            message.push_str("Host: test\r\n");
        }
        for (name, value) in fields {
            message.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            message.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        message.push_str("\r\n");
        let mut message = message.into_bytes();
        message.extend_from_slice(body);
        self.send(message).await;
    }

    /// Sends the pieces one behind the other and reads the response.
    pub async fn send_all(&mut self, pieces: &[&str]) -> Response {
        self.send(pieces.concat()).await;
        self.response().await
    }

    /// Exactly one final response with its body; interim ones are kept beside it.
    #[track_caller]
    pub fn response(&mut self) -> impl Future<Output = Response> {
        within("a response", async {
            let (mut response, framing) = self.read_head(Expected::Body).await.unwrap();
            self.read_body(&mut response, framing).await.unwrap();
            response
        })
    }

    /// As [`Client::response`], for answers that come at a deadline longer than the usual patience.
    pub async fn response_within(&mut self, limit: Duration) -> Response {
        within_time(limit, "a late response", async {
            let (mut response, framing) = self.read_head(Expected::Body).await.unwrap();
            self.read_body(&mut response, framing).await.unwrap();
            response
        })
        .await
    }

    /// The response to HEAD.
    #[track_caller]
    pub fn response_without_body(&mut self) -> impl Future<Output = Response> {
        within("a response", async {
            self.read_head(Expected::NoBody).await.unwrap().0
        })
    }

    /// The head alone; its body is left to [`Client::chunk`], [`Client::body_part`] and the like.
    #[track_caller]
    pub fn response_head(&mut self) -> impl Future<Output = Response> {
        within("the head of a response", async {
            self.read_head(Expected::NoBody).await.unwrap().0
        })
    }

    /// The head, or why there is none.
    #[track_caller]
    pub fn try_response(&mut self) -> impl Future<Output = std::io::Result<Response>> {
        within("a response or its failure", async {
            let (mut response, framing) = self.read_head(Expected::Body).await?;
            self.read_body(&mut response, framing).await?;
            Ok(response)
        })
    }

    /// The next chunk of a chunked body; `None` behind the last, whose trailers are dropped.
    #[track_caller]
    pub fn chunk(&mut self) -> impl Future<Output = Option<Vec<u8>>> {
        within("a chunk", async { self.read_chunk().await.unwrap() })
    }

    /// As [`Client::chunk`], where the body may be cut.
    #[track_caller]
    pub fn try_chunk(&mut self) -> impl Future<Output = std::io::Result<Option<Vec<u8>>>> {
        within("a chunk or its failure", self.read_chunk())
    }

    /// Exactly so many raw bytes.
    #[track_caller]
    pub fn bytes(&mut self, count: usize) -> impl Future<Output = Vec<u8>> {
        within("bytes", async move {
            while self.buffer.len() < count {
                self.fill().await.unwrap();
            }
            self.buffer.split_to(count).to_vec()
        })
    }

    /// Reads so many bytes of a body and keeps none of them.
    pub async fn count_bytes(&mut self, wanted: u64) -> u64 {
        let mut count = 0;
        while count < wanted {
            if self.buffer.is_empty() {
                within("bytes of a body", self.fill()).await.unwrap();
            }
            count += self.buffer.len() as u64;
            self.buffer.clear();
        }
        count
    }

    /// Sends so many zero bytes.
    pub async fn send_zeros(&mut self, count: u64) {
        let zeros = vec![0; 64 * 1024];
        let mut left = count;
        while left > 0 {
            let take = left.min(zeros.len() as u64) as usize;
            self.send(&zeros[..take]).await;
            left -= take as u64;
        }
    }

    /// Sends zero bytes, at most so many, until the peer takes no more; answers how many it took.
    pub async fn send_until_blocked(&mut self, most: u64) -> u64 {
        let zeros = vec![0; 64 * 1024];
        let mut taken = 0;
        while taken < most {
            let piece = &zeros[..(most - taken).min(zeros.len() as u64) as usize];
            match tokio::time::timeout(BLOCKED_FOR, self.stream.write(piece)).await {
                Ok(written) => taken += written.unwrap() as u64,
                Err(_) => break,
            }
        }
        taken
    }

    /// Everything up to the end of the connection; a reset counts as an end.
    #[track_caller]
    pub fn read_to_end(&mut self) -> impl Future<Output = Vec<u8>> {
        within("the end of the connection", async {
            while self.fill().await.is_ok() {}
            std::mem::take(&mut self.buffer).to_vec()
        })
    }

    /// Waits until the peer has closed the connection; there must be no bytes before that.
    #[track_caller]
    pub fn closed(&mut self) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        let to_end = self.read_to_end();
        async move {
            let rest = to_end.await;
            assert!(
                rest.is_empty(),
                "{caller}: bytes before the end of the connection: {}",
                String::from_utf8_lossy(&rest)
            );
        }
    }

    async fn read_head(&mut self, expected: Expected) -> std::io::Result<(Response, Framing)> {
        let mut interim = Vec::new();
        loop {
            let end = self.find(b"\r\n\r\n").await?;
            let raw = self.buffer.split_to(end);
            let raw_head = String::from_utf8_lossy(&raw).into_owned();
            let mut response = parse_head(raw_head);
            match response.status {
                100 | 102 | 103 => interim.push((response.status, response.fields)),
                _ => {
                    response.interim = interim;
                    let framing = match expected {
                        Expected::Body => framing(&response),
                        Expected::NoBody => Framing::Length(0),
                    };
                    return Ok((response, framing));
                }
            }
        }
    }

    async fn read_body(&mut self, response: &mut Response, framing: Framing) -> std::io::Result<()> {
        match framing {
            Framing::Length(length) => {
                let mut left = length;
                while left > 0 {
                    if self.buffer.is_empty() {
                        self.fill().await?;
                    }
                    let take = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    response.body.extend_from_slice(&self.buffer.split_to(take));
                    left -= take as u64;
                }
            }
            Framing::Chunked => {
                while let Some(size) = self.chunk_size().await? {
                    let chunk = self.chunk_of(size).await?;
                    response.body.extend_from_slice(&chunk);
                }
                response.trailers = self.read_trailers().await?;
            }
            Framing::Close => {
                while self.fill().await.is_ok() {}
                response.body.extend_from_slice(&std::mem::take(&mut self.buffer));
            }
        }
        Ok(())
    }

    async fn read_chunk(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        match self.chunk_size().await? {
            Some(size) => Ok(Some(self.chunk_of(size).await?)),
            None => {
                self.read_trailers().await?;
                Ok(None)
            }
        }
    }

    /// `None` for the last chunk.
    async fn chunk_size(&mut self) -> std::io::Result<Option<usize>> {
        let end = self.find(b"\r\n").await?;
        let line = self.buffer.split_to(end);
        let line = String::from_utf8_lossy(&line).into_owned();
        let size = usize::from_str_radix(line.trim_end(), 16)
            .map_err(|error| std::io::Error::other(format!("{error}: chunk size {line:?}")))?;
        Ok((size > 0).then_some(size))
    }

    async fn chunk_of(&mut self, size: usize) -> std::io::Result<Vec<u8>> {
        while self.buffer.len() < size + 2 {
            self.fill().await?;
        }
        let chunk = self.buffer.split_to(size).to_vec();
        match &self.buffer.split_to(2)[..] {
            b"\r\n" => Ok(chunk),
            other => Err(std::io::Error::other(format!("behind a chunk: {other:?}"))),
        }
    }

    async fn read_trailers(&mut self) -> std::io::Result<Vec<(String, String)>> {
        let mut trailers = Vec::new();
        loop {
            let end = self.find(b"\r\n").await?;
            let line = self.buffer.split_to(end);
            if line.len() == 2 {
                return Ok(trailers);
            }
            trailers.push(parse_field(&String::from_utf8_lossy(&line)));
        }
    }

    async fn find(&mut self, pattern: &[u8]) -> std::io::Result<usize> {
        loop {
            if let Some(at) = self.buffer.windows(pattern.len()).position(|window| window == pattern) {
                return Ok(at + pattern.len());
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> std::io::Result<()> {
        self.buffer.reserve(16 * 1024);
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

#[derive(Clone, Copy)]
enum Expected {
    Body,
    NoBody,
}

/// A TLS connection, or why there is none.
pub async fn tls(
    address: SocketAddr,
    server_name: &str,
    config: Arc<rustls::ClientConfig>,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let stream = within("a connection", TcpStream::connect(address)).await?;
    tls_over(stream, server_name, config).await
}

async fn tls_over(
    stream: TcpStream,
    server_name: &str,
    config: Arc<rustls::ClientConfig>,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(server_name.to_owned()).unwrap();
    let connector = tokio_rustls::TlsConnector::from(config);
    within("a TLS handshake", connector.connect(name, stream)).await
}

fn framing(response: &Response) -> Framing {
    if matches!(response.status, 101 | 204 | 304) {
        return Framing::Length(0);
    }
    match (response.field("transfer-encoding"), response.field("content-length")) {
        (Some(_), _) => Framing::Chunked,
        (None, Some(length)) => Framing::Length(length.parse().unwrap()),
        (None, None) => Framing::Close,
    }
}

fn parse_head(raw_head: String) -> Response {
    let mut lines = raw_head.trim_end().split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let status = status_line
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3))
        .and_then(|digits| digits.parse().ok())
        .unwrap_or_else(|| panic!("not a status line: {status_line:?}"));
    let fields = lines.map(parse_field).collect();
    Response {
        status,
        fields,
        raw_head,
        ..Response::default()
    }
}

fn parse_field(line: &str) -> (String, String) {
    let (name, value) = line.split_once(':').unwrap_or((line, ""));
    (name.to_owned(), value.trim().to_owned())
}
