//! What the fake origin says, and when.

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::support::watched::Watched;

/// A barrier that a reply waits at until the test releases it.
#[derive(Debug, Clone, Default)]
pub struct Gate(Watched<GateState>);

#[derive(Debug, Default)]
struct GateState {
    reached: usize,
    open: bool,
}

impl Gate {
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets everyone through, now and later.
    pub fn release(&self) {
        self.0.change(|state| state.open = true);
    }

    /// Holds whoever comes from now on.
    pub fn close(&self) {
        self.0.change(|state| state.open = false);
    }

    /// Waits until so many replies have come to the gate.
    #[track_caller]
    pub fn reached(&self, count: usize) -> impl Future<Output = ()> {
        self.0
            .wait_for("replies at the origin's gate", move |state| state.reached >= count)
    }

    pub(super) async fn pass(&self) {
        self.0.change(|state| state.reached += 1);
        self.0.until_found(|state| state.open.then_some(())).await;
    }
}

/// One step of an answer that the test wrote out itself.
#[derive(Debug, Clone)]
pub enum Step {
    /// These bytes, as they are.
    Write(Bytes),
    Hold(Gate),
    /// Ends the connection in order (FIN).
    Close,
    /// Ends the connection by force (RST).
    Reset,
    /// Sends back every byte that comes, until the client closes.
    Echo,
}

/// One answer of the origin.
#[derive(Debug, Clone)]
pub struct Reply {
    pub(super) status: u16,
    pub(super) fields: Vec<(String, String)>,
    pub(super) body: Body,
    pub(super) trailers: Vec<(String, String)>,
    pub(super) interim: Vec<(u16, Vec<(String, String)>)>,
    pub(super) before: Option<Gate>,
    pub(super) request_body: RequestBody,
    pub(super) after: After,
}

#[derive(Debug, Clone)]
pub(super) enum Body {
    /// With its length, or one that is not.
    Sized {
        bytes: Bytes,
        length: u64,
    },
    /// Bytes that are made while they are sent, with their length.
    Zeros(u64),
    Chunked(Vec<Bytes>),
    UntilClose(Bytes),
    /// Chunks that the test sends.
    Stream(Stream),
    /// Everything, head included, is the test's own.
    Raw(Vec<Step>),
    WebSocketEcho,
}

/// When the origin reads a request's body.
#[derive(Debug, Clone)]
pub(super) enum RequestBody {
    /// It answers when it has read all of it, and asks for it with a 100 where the client waits for one.
    First,
    /// It answers at once and goes on reading.
    Meanwhile,
    /// As `First`, but it reads nothing behind the head until the gate opens.
    Held(Gate),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    KeepAlive,
    Close,
    Reset,
}

impl Reply {
    /// An answer without a body.
    pub fn status(status: u16) -> Self {
        Self {
            status,
            fields: Vec::new(),
            body: Body::Sized {
                bytes: Bytes::new(),
                length: 0,
            },
            trailers: Vec::new(),
            interim: Vec::new(),
            before: None,
            request_body: RequestBody::First,
            after: After::KeepAlive,
        }
    }

    /// 200 with a body and its length.
    pub fn ok(body: impl Into<Bytes>) -> Self {
        Self::status(200).body(body)
    }

    /// 200 that every cache may keep for so many seconds.
    pub fn fresh(seconds: u32, body: impl Into<Bytes>) -> Self {
        Self::ok(body).field("Cache-Control", &format!("max-age={seconds}"))
    }

    /// 200 with so many zero bytes.
    pub fn zeros(length: u64) -> Self {
        Self {
            body: Body::Zeros(length),
            ..Self::status(200)
        }
    }

    /// 200 in these chunks, one write each.
    pub fn chunked<C: Into<Bytes>>(chunks: impl IntoIterator<Item = C>) -> Self {
        Self {
            body: Body::Chunked(chunks.into_iter().map(Into::into).collect()),
            ..Self::status(200)
        }
    }

    /// 200 whose body ends with the connection.
    pub fn until_close(body: impl Into<Bytes>) -> Self {
        Self {
            body: Body::UntilClose(body.into()),
            ..Self::status(200)
        }
    }

    /// 200 `text/event-stream` (chunked) whose events the test sends.
    pub fn events(stream: &Stream) -> Self {
        Self::streamed(stream).field("Content-Type", "text/event-stream")
    }

    /// 200 of no particular type whose chunks the test sends.
    pub fn streamed(stream: &Stream) -> Self {
        Self {
            body: Body::Stream(stream.clone()),
            // A stream says its head before the request is at its end, for uploads that are answered meanwhile.
            request_body: RequestBody::Meanwhile,
            ..Self::status(200)
        }
    }

    /// These bytes, head included, as they are.
    pub fn raw(bytes: impl Into<Bytes>) -> Self {
        Self::script([Step::Write(bytes.into())])
    }

    /// These steps, head included.
    pub fn script(steps: impl IntoIterator<Item = Step>) -> Self {
        Self {
            body: Body::Raw(steps.into_iter().collect()),
            ..Self::status(200)
        }
    }

    /// Accepts the WebSocket handshake and sends every message back.
    pub fn web_socket_echo() -> Self {
        Self {
            body: Body::WebSocketEcho,
            ..Self::status(101)
        }
    }

    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        let bytes = body.into();
        let length = bytes.len() as u64;
        self.body = Body::Sized { bytes, length };
        self
    }

    /// Says this length, whatever the body's own is.
    pub fn declared_length(mut self, declared: u64) -> Self {
        match &mut self.body {
            Body::Sized { length, .. } => *length = declared,
            other => panic!("no length to lie about: {other:?}"),
        }
        self
    }

    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Trailer fields; only behind chunks and streams.
    pub fn trailer(mut self, name: &str, value: &str) -> Self {
        self.trailers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// An interim response (1xx) before the final one, and before the gate.
    pub fn interim(mut self, status: u16, fields: &[(&str, &str)]) -> Self {
        let fields = fields.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        self.interim.push((status, fields.collect()));
        self
    }

    /// Waits at the gate before the final response's first byte.
    pub fn hold(mut self, gate: &Gate) -> Self {
        self.before = Some(gate.clone());
        self
    }

    /// Answers while the request's body still comes.
    pub fn early(mut self) -> Self {
        self.request_body = RequestBody::Meanwhile;
        self
    }

    /// Reads nothing behind the request's head before the gate is released.
    pub fn unread(mut self, gate: &Gate) -> Self {
        self.request_body = RequestBody::Held(gate.clone());
        self
    }

    /// Closes the connection behind the answer.
    pub fn close(mut self) -> Self {
        self.after = After::Close;
        self
    }

    /// Resets the connection behind the answer.
    pub fn reset(mut self) -> Self {
        self.after = After::Reset;
        self
    }
}

/// A response body that the test sends piece by piece, to everyone who has asked for it.
#[derive(Debug, Clone, Default)]
pub struct Stream(Watched<StreamState>);

#[derive(Debug, Default)]
struct StreamState {
    readers: Vec<mpsc::UnboundedSender<Bytes>>,
    opened: usize,
}

impl Stream {
    pub fn new() -> Self {
        Self::default()
    }

    /// One chunk to every open response.
    pub fn send(&self, chunk: impl Into<Bytes>) {
        let chunk = chunk.into();
        self.0
            .change(|state| state.readers.retain(|reader| reader.send(chunk.clone()).is_ok()));
    }

    /// Ends every open response in order.
    pub fn finish(&self) {
        self.0.change(|state| state.readers.clear());
    }

    /// Waits until so many responses have begun, over all time.
    #[track_caller]
    pub fn opened(&self, count: usize) -> impl Future<Output = ()> {
        self.0
            .wait_for("open streams at the origin", move |state| state.opened >= count)
    }

    pub(super) fn open(&self) -> mpsc::UnboundedReceiver<Bytes> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.0.change(|state| {
            state.readers.push(sender);
            state.opened += 1;
        });
        receiver
    }
}
