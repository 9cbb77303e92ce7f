//! The origin's HTTP/1.1: lenient enough to remember whatever it is sent.

use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::reply::{After, Body, RequestBody};
use super::{BODY_KEPT, Io, RAW_KEPT, Reply, Request, RequestState, Shared, Step};

type Input = ReadHalf<Box<dyn Io>>;
type Output = WriteHalf<Box<dyn Io>>;

/// Requests are read while replies are written, so that the end of the connection is seen whatever the reply waits for.
pub(super) async fn serve(stream: Box<dyn Io>, handle: Option<socket2::Socket>, shared: Arc<Shared>, id: usize) {
    let (input, output) = tokio::io::split(stream);
    let (jobs, todo) = mpsc::unbounded_channel();
    let (stop, stopped) = oneshot::channel();
    let (give_back, given_back) = oneshot::channel();
    let reader = Reader {
        input,
        buffer: BytesMut::new(),
        shared: Arc::clone(&shared),
        id,
    };
    let writer = Writer {
        output,
        shared,
        id,
        handle,
        stop,
        given_back,
    };
    tokio::join!(reader.run(jobs, stopped, give_back), writer.run(todo));
}

/// A request that is to be answered.
struct Job {
    /// Index in the log.
    request: usize,
    head: Head,
    reply: Reply,
}

#[derive(Clone)]
struct Head {
    method: String,
    keep_alive: bool,
    expects_continue: bool,
    web_socket_key: Option<String>,
}

struct Reader {
    input: Input,
    buffer: BytesMut,
    shared: Arc<Shared>,
    id: usize,
}

/// Why no more of a request can be read.
struct Ended;

impl Reader {
    async fn run(
        mut self,
        jobs: mpsc::UnboundedSender<Job>,
        stopped: oneshot::Receiver<()>,
        give_back: oneshot::Sender<(Input, BytesMut)>,
    ) {
        tokio::select! {
            biased;
            // An error means that the writer is through, which is no reason not to see the connection's end.
            Ok(()) = stopped => {}
            _ = self.requests(jobs) => self.shared.log.change(|log| log.connections[self.id].closed = true),
        }
        let _ = give_back.send((self.input, self.buffer));
    }

    async fn requests(&mut self, jobs: mpsc::UnboundedSender<Job>) -> Result<(), Ended> {
        loop {
            let end = self.find(b"\r\n\r\n").await?;
            let raw = self.buffer.split_to(end);
            let request = parse_head(&raw, self.id);
            let chunked = request.field("transfer-encoding").is_some();
            let length = request.field("content-length").and_then(|value| value.parse().ok());
            let reply = self.shared.reply(&request);
            let hold = match &reply.request_body {
                RequestBody::Held(gate) => Some(gate.clone()),
                RequestBody::First | RequestBody::Meanwhile => None,
            };
            let head = Head {
                method: request.method.clone(),
                keep_alive: request.version == "HTTP/1.1" && request.field("connection") != Some("close"),
                expects_continue: request.field("expect") == Some("100-continue"),
                web_socket_key: request.field("sec-websocket-key").map(str::to_owned),
            };
            let index = self.shared.log.change(|log| {
                log.requests.push(request);
                log.requests.len() - 1
            });
            // A writer that is through takes no more: then this only reads on to the end.
            let _ = jobs.send(Job {
                request: index,
                head,
                reply,
            });
            if let Some(gate) = hold {
                gate.pass().await;
            }
            let body = match (chunked, length) {
                (true, _) => self.chunks(index).await,
                (false, Some(length)) => self.sized(index, length).await,
                (false, None) => Ok(()),
            };
            let state = match body {
                Ok(()) => RequestState::Complete,
                Err(Ended) => RequestState::Cut,
            };
            self.shared.log.change(|log| log.requests[index].state = state);
            body?;
        }
    }

    async fn sized(&mut self, request: usize, length: u64) -> Result<(), Ended> {
        let mut left = length;
        while left > 0 {
            if self.buffer.is_empty() {
                self.fill().await?;
            }
            let take = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let bytes = self.buffer.split_to(take);
            left -= take as u64;
            self.keep_body(request, &bytes);
        }
        Ok(())
    }

    async fn chunks(&mut self, request: usize) -> Result<(), Ended> {
        loop {
            let end = self.find(b"\r\n").await?;
            let line = self.buffer.split_to(end);
            let line = String::from_utf8_lossy(&line);
            let digits = line.trim_end().split(';').next().unwrap_or_default();
            let size = u64::from_str_radix(digits, 16).map_err(|_| Ended)?;
            if size == 0 {
                return self.trailers(request).await;
            }
            self.sized(request, size).await?;
            let end = self.find(b"\r\n").await?;
            if self.buffer.split_to(end).len() != 2 {
                return Err(Ended);
            }
        }
    }

    async fn trailers(&mut self, request: usize) -> Result<(), Ended> {
        loop {
            let end = self.find(b"\r\n").await?;
            let line = self.buffer.split_to(end);
            if line.len() == 2 {
                return Ok(());
            }
            let field = parse_field(&String::from_utf8_lossy(&line));
            self.shared.log.change(|log| log.requests[request].trailers.push(field));
        }
    }

    fn keep_body(&self, request: usize, bytes: &[u8]) {
        self.shared.log.change(|log| log.requests[request].keep_body(bytes));
    }

    /// Reads until `pattern` is there; answers the position behind it.
    async fn find(&mut self, pattern: &[u8]) -> Result<usize, Ended> {
        loop {
            if let Some(at) = self.buffer.windows(pattern.len()).position(|window| window == pattern) {
                return Ok(at + pattern.len());
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> Result<(), Ended> {
        let before = self.buffer.len();
        self.buffer.reserve(16 * 1024);
        match self.input.read_buf(&mut self.buffer).await {
            Ok(0) | Err(_) => Err(Ended),
            Ok(_) => {
                let fresh = &self.buffer[before..];
                self.shared.log.change(|log| {
                    let raw = &mut log.connections[self.id].raw;
                    let room = RAW_KEPT.saturating_sub(raw.len()).min(fresh.len());
                    raw.extend_from_slice(&fresh[..room]);
                });
                Ok(())
            }
        }
    }
}

impl Request {
    pub(super) fn keep_body(&mut self, bytes: &[u8]) {
        self.body_length += bytes.len() as u64;
        let room = BODY_KEPT.saturating_sub(self.body.len()).min(bytes.len());
        self.body.extend_from_slice(&bytes[..room]);
    }
}

fn parse_head(raw: &[u8], connection: usize) -> Request {
    let text = String::from_utf8_lossy(raw);
    let mut lines = text.trim_end().split("\r\n");
    let mut request_line = lines.next().unwrap_or_default().splitn(3, ' ').map(str::to_owned);
    let mut part = || request_line.next().unwrap_or_default();
    Request {
        connection,
        method: part(),
        target: part(),
        version: part(),
        fields: lines.map(parse_field).collect(),
        ..Request::default()
    }
}

fn parse_field(line: &str) -> (String, String) {
    let (name, value) = line.split_once(':').unwrap_or((line, ""));
    (name.to_owned(), value.trim().to_owned())
}

struct Writer {
    output: Output,
    shared: Arc<Shared>,
    id: usize,
    handle: Option<socket2::Socket>,
    stop: oneshot::Sender<()>,
    given_back: oneshot::Receiver<(Input, BytesMut)>,
}

/// What becomes of the connection behind an answer.
enum Next {
    Request,
    Close,
    Reset,
    Echo,
    WebSocketEcho,
}

impl Writer {
    async fn run(mut self, mut todo: mpsc::UnboundedReceiver<Job>) {
        while let Some(job) = todo.recv().await {
            // A client that is gone is no fault of the origin's.
            let next = self.answer(job).await.unwrap_or(Next::Close);
            match next {
                Next::Request => {}
                Next::Close => {
                    let _ = self.output.shutdown().await;
                    break;
                }
                Next::Reset => return self.reset().await,
                Next::Echo => return self.echo().await,
                Next::WebSocketEcho => return self.web_socket_echo().await,
            }
        }
        // The reader goes on to the end of the connection: closing it with bytes unread would reset it.
        drop(self.stop);
        let _ = self.given_back.await;
    }

    async fn answer(&mut self, Job { request, head, reply }: Job) -> std::io::Result<Next> {
        for (status, fields) in &reply.interim {
            self.output.write_all(&response_head(*status, fields, &[])).await?;
        }
        if matches!(reply.request_body, RequestBody::First | RequestBody::Held(_)) {
            if head.expects_continue {
                self.output.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
                self.output.flush().await?;
            }
            let read_to_its_end = |log: &super::Log| {
                let state = log.requests[request].state;
                (state != RequestState::Reading).then_some(())
            };
            self.shared.log.until_found(read_to_its_end).await;
        }
        if let Some(gate) = &reply.before {
            gate.pass().await;
        }
        let next = match reply.after {
            After::Close => Next::Close,
            After::Reset => Next::Reset,
            After::KeepAlive if head.keep_alive => Next::Request,
            After::KeepAlive => Next::Close,
        };
        let head_only = head.method == "HEAD";
        match reply.body {
            Body::Sized { bytes, length } => {
                let declared = (!matches!(reply.status, 204 | 304)).then(|| ("Content-Length", length.to_string()));
                let mut message = response_head(reply.status, &reply.fields, declared.as_slice());
                if !head_only {
                    message.extend_from_slice(&bytes);
                }
                self.output.write_all(&message).await?;
            }
            Body::Zeros(length) => {
                let declared = [("Content-Length", length.to_string())];
                self.output
                    .write_all(&response_head(reply.status, &reply.fields, &declared))
                    .await?;
                let zeros = [0; 64 * 1024];
                let mut left = if head_only { 0 } else { length };
                while left > 0 {
                    let take = left.min(zeros.len() as u64) as usize;
                    self.output.write_all(&zeros[..take]).await?;
                    left -= take as u64;
                }
            }
            Body::Chunked(chunks) => {
                self.chunked_head(reply.status, &reply.fields).await?;
                if !head_only {
                    for chunk in chunks {
                        self.chunk(&chunk).await?;
                    }
                    self.last_chunk(&reply.trailers).await?;
                }
            }
            Body::Stream(stream) => {
                let mut chunks = stream.open();
                self.chunked_head(reply.status, &reply.fields).await?;
                while let Some(chunk) = chunks.recv().await {
                    self.chunk(&chunk).await?;
                }
                self.last_chunk(&reply.trailers).await?;
            }
            Body::UntilClose(bytes) => {
                let mut message = response_head(reply.status, &reply.fields, &[("Connection", "close".to_owned())]);
                message.extend_from_slice(&bytes);
                self.output.write_all(&message).await?;
                return Ok(Next::Close);
            }
            Body::Raw(steps) => {
                for step in steps {
                    match step {
                        Step::Write(bytes) => {
                            self.output.write_all(&bytes).await?;
                            self.output.flush().await?;
                        }
                        Step::Hold(gate) => gate.pass().await,
                        Step::Close => return Ok(Next::Close),
                        Step::Reset => return Ok(Next::Reset),
                        Step::Echo => return Ok(Next::Echo),
                    }
                }
            }
            Body::WebSocketEcho => {
                let key = head.web_socket_key.unwrap_or_default();
                let handshake = [
                    ("Connection", "Upgrade".to_owned()),
                    ("Upgrade", "websocket".to_owned()),
                    ("Sec-WebSocket-Accept", derive_accept_key(key.as_bytes())),
                ];
                self.output
                    .write_all(&response_head(101, &reply.fields, &handshake))
                    .await?;
                self.output.flush().await?;
                return Ok(Next::WebSocketEcho);
            }
        }
        self.output.flush().await?;
        Ok(next)
    }

    async fn chunked_head(&mut self, status: u16, fields: &[(String, String)]) -> std::io::Result<()> {
        let framing = [("Transfer-Encoding", "chunked".to_owned())];
        self.output.write_all(&response_head(status, fields, &framing)).await?;
        self.output.flush().await
    }

    async fn chunk(&mut self, chunk: &Bytes) -> std::io::Result<()> {
        let mut framed = format!("{:x}\r\n", chunk.len()).into_bytes();
        framed.extend_from_slice(chunk);
        framed.extend_from_slice(b"\r\n");
        self.output.write_all(&framed).await?;
        self.output.flush().await
    }

    async fn last_chunk(&mut self, trailers: &[(String, String)]) -> std::io::Result<()> {
        let mut last = b"0\r\n".to_vec();
        for (name, value) in trailers {
            last.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        last.extend_from_slice(b"\r\n");
        self.output.write_all(&last).await?;
        self.output.flush().await
    }

    async fn reset(self) {
        let _ = self.stop.send(());
        let both_halves = (self.given_back.await, self.output);
        if let Some(handle) = self.handle {
            handle.set_linger(Some(Duration::ZERO)).unwrap();
            drop(both_halves);
            drop(handle);
        }
    }

    async fn echo(mut self) {
        let _ = self.stop.send(());
        let Ok((input, before)) = self.given_back.await else {
            return;
        };
        let mut input = Cursor::new(before).chain(input);
        let _ = tokio::io::copy(&mut input, &mut self.output).await;
        self.shared.log.change(|log| log.connections[self.id].closed = true);
        let _ = self.output.shutdown().await;
    }

    async fn web_socket_echo(self) {
        let _ = self.stop.send(());
        let Ok((input, before)) = self.given_back.await else {
            return;
        };
        let stream = tokio::io::join(Cursor::new(before).chain(input), self.output);
        let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
                break;
            }
        }
        self.shared.log.change(|log| log.connections[self.id].closed = true);
    }
}

fn response_head(status: u16, fields: &[(String, String)], framing: &[(&str, String)]) -> Vec<u8> {
    let reason = http::StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or_default();
    let mut head = format!("HTTP/1.1 {status} {reason}\r\n");
    for (name, value) in fields {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    for (name, value) in framing {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    head.into_bytes()
}
