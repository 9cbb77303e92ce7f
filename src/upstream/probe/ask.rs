//! One question to a server, and whether the answer is a good one.

use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{Method, Request, Uri};
use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::config::{HealthCheck, HostPolicy, HttpQuestion, Question, ServerAddress};
use crate::http1::body::{Decoder, Event};
use crate::http1::encode::{self, Connection};
use crate::http1::{HeadScanner, Limits, response};
use crate::message::{Fields, Framing};
use crate::tls::Alpn;
use crate::upstream::{ConnectError, Server, Transport, Upstream};

/// Bytes of a body in which the expected text is looked for. What says whether an app is well is short.
const MAX_BODY: usize = 64 * 1024;

/// Bytes that are read at once.
const READ: usize = 4 * 1024;

/// Why a server is not well.
#[derive(Debug, thiserror::Error)]
pub enum NotWell {
    #[error("{0}")]
    Connect(#[from] ConnectError),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("the connection ended: {0}")]
    Io(#[from] io::Error),
    #[error("malformed response: {0}")]
    Malformed(String),
    #[error("HTTP/2: {0}")]
    Http2(#[from] h2::Error),
    #[error("status {0}")]
    Status(u16),
    #[error("the body is not the expected one")]
    Body,
}

/// What of an upstream matters for the question.
#[derive(Debug)]
pub struct Manner {
    /// What is sent as `Host`.
    host: String,
    /// What is spoken where TLS does not say it.
    protocol: Alpn,
}

impl Manner {
    pub fn of(upstream: &Upstream, server: &Server, check: &HealthCheck) -> Self {
        let asked = match &check.question {
            Question::Http(question) => question.host.clone(),
            Question::Connection => None,
        };
        let host = match (asked, &upstream.config().host, &server.address) {
            (Some(host), ..) => host,
            (None, HostPolicy::Send(host), _) => host.clone(),
            (None, HostPolicy::Keep, ServerAddress::Tcp { .. }) => server.address.to_string(),
            // RFC 9112 §3.2 wants the field, and a path is no name.
            (None, HostPolicy::Keep, ServerAddress::Unix(_)) => "localhost".to_owned(),
        };
        let protocol = match upstream.config().http2 {
            true => Alpn::Http2,
            false => Alpn::Http1,
        };
        Self { host, protocol }
    }
}

/// Asks on a connection of its own: one that has been idle could tell of an earlier time.
pub async fn ask(server: &Server, check: &HealthCheck, manner: &Manner) -> Result<(), NotWell> {
    match tokio::time::timeout(check.timeout, question(server, check, manner)).await {
        Ok(result) => result,
        Err(_) => Err(NotWell::Timeout(check.timeout)),
    }
}

async fn question(server: &Server, check: &HealthCheck, manner: &Manner) -> Result<(), NotWell> {
    let (io, alpn) = server.connector.connect(None).await?;
    let Question::Http(question) = &check.question else {
        return Ok(());
    };
    match alpn.unwrap_or(manner.protocol) {
        Alpn::Http1 => over_http1(io, question, &manner.host).await,
        Alpn::Http2 => over_http2(io, question, &manner.host).await,
    }
}

fn fields() -> Fields {
    let mut fields = Fields::with_capacity(2, 64);
    let mut agent = String::from("forebay/");
    let _ = write!(agent, "{} (health check)", env!("CARGO_PKG_VERSION"));
    fields.push("User-Agent", agent);
    fields.push("Accept", "*/*");
    fields
}

async fn over_http1(mut io: Transport, question: &HttpQuestion, host: &str) -> Result<(), NotWell> {
    let mut request = BytesMut::with_capacity(256);
    let (path, framing) = (&question.path, Framing::None);
    encode::request_head(
        &mut request,
        &Method::GET,
        path,
        host,
        &fields(),
        framing,
        Connection::Close,
    );
    io.write_all(&request).await?;
    io.flush().await?;
    let mut scanner = HeadScanner::new();
    let mut buffer = BytesMut::new();
    let head = loop {
        let received = response::parse_more(&buffer, &mut scanner, &Limits::DEFAULT, &Method::GET);
        match received.map_err(|error| NotWell::Malformed(error.to_string()))? {
            Some(received) => {
                let _ = buffer.split_to(received.length);
                // Interim ones are read over; the timeout bounds them.
                if received.head.status >= 200 {
                    break received.head;
                }
                scanner = HeadScanner::new();
            }
            None => read(&mut io, &mut buffer).await?,
        }
    };
    if !expects(question, head.status) {
        return Err(NotWell::Status(head.status));
    }
    let mut wanted = Wanted::new(question);
    let mut decoder = Decoder::new(head.framing);
    while !wanted.is_found() && head.framing != Framing::None {
        match decoder
            .decode(&mut buffer)
            .map_err(|error| NotWell::Malformed(error.to_string()))?
        {
            Event::Data(data) => wanted.look(&data)?,
            Event::Trailers(_) | Event::End => break,
            Event::NeedMore => match read(&mut io, &mut buffer).await {
                Ok(()) => {}
                Err(_) if decoder.on_eof().is_ok() => break,
                Err(error) => return Err(error.into()),
            },
        }
    }
    wanted.end()
}

async fn read(io: &mut Transport, buffer: &mut BytesMut) -> io::Result<()> {
    buffer.reserve(READ);
    match io.read_buf(&mut buffer.limit(READ)).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

async fn over_http2(io: Transport, question: &HttpQuestion, host: &str) -> Result<(), NotWell> {
    let (requests, connection) = h2::client::Builder::new()
        .enable_push(false)
        .max_header_list_size(Limits::DEFAULT.head as u32)
        .handshake::<_, Bytes>(io)
        .await?;
    tokio::select! {
        result = exchange(requests, question, host) => result,
        ended = connection => match ended {
            Ok(()) => Err(NotWell::Io(io::ErrorKind::UnexpectedEof.into())),
            Err(error) => Err(error.into()),
        },
    }
}

async fn exchange(
    requests: h2::client::SendRequest<Bytes>,
    question: &HttpQuestion,
    host: &str,
) -> Result<(), NotWell> {
    let malformed = |error: http::Error| NotWell::Malformed(error.to_string());
    let uri = Uri::builder()
        .scheme("https")
        .authority(host)
        .path_and_query(question.path.as_str())
        .build()
        .map_err(malformed)?;
    let mut request = Request::new(());
    *request.uri_mut() = uri;
    *request.version_mut() = http::Version::HTTP_2;
    *request.headers_mut() = http::HeaderMap::from(&fields());
    let mut requests = requests.ready().await?;
    let (response, _) = requests.send_request(request, true)?;
    let response = response.await?;
    let status = response.status().as_u16();
    if !expects(question, status) {
        return Err(NotWell::Status(status));
    }
    let mut wanted = Wanted::new(question);
    let mut body = response.into_body();
    while !wanted.is_found() {
        match body.data().await {
            Some(data) => {
                let data = data?;
                body.flow_control().release_capacity(data.len())?;
                wanted.look(&data)?;
            }
            None => break,
        }
    }
    wanted.end()
}

fn expects(question: &HttpQuestion, status: u16) -> bool {
    question.expect_status.iter().any(|range| range.contains(&status))
}

/// The text that has to be in the body.
struct Wanted<'a> {
    text: Option<&'a str>,
    /// The beginning of the body.
    seen: BytesMut,
}

impl<'a> Wanted<'a> {
    fn new(question: &'a HttpQuestion) -> Self {
        Self {
            text: question.expect_body.as_deref(),
            seen: BytesMut::new(),
        }
    }

    fn is_found(&self) -> bool {
        match self.text {
            None => true,
            Some(text) => memmem::find(&self.seen, text.as_bytes()).is_some(),
        }
    }

    fn look(&mut self, data: &[u8]) -> Result<(), NotWell> {
        let room = MAX_BODY - self.seen.len();
        self.seen.extend_from_slice(data.get(..room).unwrap_or(data));
        match self.seen.len() >= MAX_BODY && !self.is_found() {
            true => Err(NotWell::Body),
            false => Ok(()),
        }
    }

    fn end(self) -> Result<(), NotWell> {
        match self.is_found() {
            true => Ok(()),
            false => Err(NotWell::Body),
        }
    }
}
