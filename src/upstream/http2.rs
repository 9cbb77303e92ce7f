//! Exchanges over shared HTTP/2 connections to a server.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Method, Request, Uri, Version};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::alive::{Heard, until_dead};
use super::{ConnectError, OpenExchange, OriginError, Transport};
use crate::http1::content_length;
use crate::message::{BodyEvent, Fields, Forwarded, Framing, ResponseHead};

/// Received and not yet consumed bytes that a server may have under way for one stream.
const STREAM_WINDOW: u32 = 256 * 1024;

/// The same for a connection: enough for 4,096 streams whose clients have stopped reading, so that they do not stop the streams
/// of others. What bounds memory is the window of each stream.
const CONNECTION_WINDOW: u32 = 4096 * STREAM_WINDOW;

/// Streams that are opened before a server has said how many it takes: the least that RFC 9113 §6.5.2 recommends.
const FIRST_STREAMS: usize = 100;

/// Decoded size of a response's header list, as for HTTP/1.1 heads.
const MAX_HEADER_LIST: u32 = 256 * 1024;

/// The connections to one server that take further streams.
#[derive(Default)]
pub struct Http2Connections {
    open: Mutex<Vec<Shared>>,
}

struct Shared {
    requests: SendRequest<Bytes>,
    /// Streams that are under way hold a clone.
    streams: Stream,
    /// When it was first seen without a stream since it was last used.
    idle_since: Option<Instant>,
}

impl Http2Connections {
    /// Room for a stream on one of the connections.
    pub async fn with_room(&self) -> Option<(SendRequest<Bytes>, Stream)> {
        loop {
            let (requests, stream) = self.find()?;
            // The connection may have ended meanwhile; then it is not found again.
            if let Ok(requests) = requests.ready().await {
                return Some((requests, stream));
            }
        }
    }

    /// A stream on a new connection.
    pub async fn open(&self, io: Transport) -> Result<(SendRequest<Bytes>, Stream), ConnectError> {
        let (io, heard) = Heard::new(Box::new(io));
        let (requests, mut connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEADER_LIST)
            .enable_push(false)
            .initial_max_send_streams(FIRST_STREAMS)
            .handshake(io)
            .await
            .map_err(ConnectError::Http2)?;
        let stream = Stream::default();
        let (ping, waiting) = (connection.ping_pong(), Arc::downgrade(&stream.0));
        tokio::spawn(async move {
            // One of them is the connection's own.
            let is_busy = move || waiting.strong_count() > 1;
            let until_dead = async {
                match ping {
                    Some(ping) => until_dead(ping, heard, is_busy).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                ended = connection => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "an HTTP/2 connection to a server ended");
                    }
                }
                // Dropping the connection ends its streams.
                () = until_dead => tracing::warn!("an HTTP/2 connection to a server is dead"),
            }
        });
        self.open.lock().push(Shared {
            requests: requests.clone(),
            streams: stream.clone(),
            idle_since: None,
        });
        let requests = requests.ready().await.map_err(ConnectError::Http2)?;
        Ok((requests, stream))
    }

    /// Gives no more streams. Those that are under way go on.
    pub fn close(&self) {
        let all = std::mem::take(&mut *self.open.lock());
        drop(all);
    }

    /// Closes connections that have been without a stream for `idle`: a burst opens many.
    pub fn sweep(&self, idle: Duration) {
        self.open.lock().retain_mut(|shared| {
            if Arc::strong_count(&shared.streams.0) > 1 {
                shared.idle_since = None;
                return true;
            }
            shared.idle_since.get_or_insert_with(Instant::now).elapsed() < idle
        });
    }

    fn find(&self) -> Option<(SendRequest<Bytes>, Stream)> {
        let mut open = self.open.lock();
        let mut cx = Context::from_waker(Waker::noop());
        // Ready with an error: closed, or told to go away. Pending: all its streams are taken.
        open.retain_mut(|shared| !matches!(shared.requests.poll_ready(&mut cx), Poll::Ready(Err(_))));
        for shared in open.iter_mut() {
            let streams = Arc::strong_count(&shared.streams.0) - 1;
            let room = streams < shared.requests.current_max_send_streams();
            if room && shared.requests.poll_ready(&mut cx).is_ready() {
                shared.idle_since = None;
                return Some((shared.requests.clone(), shared.streams.clone()));
            }
        }
        None
    }
}

/// Before the head of a response. A goodbye ends those streams only that the server has not processed (RFC 9113 §6.8), a refusal says so
/// of one (§8.7).
fn failed(error: h2::Error) -> OriginError {
    let is_refusal = error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM);
    if error.is_remote() && is_refusal {
        OriginError::Untaken(error)
    } else if has_ended(&error) {
        OriginError::Closed(io::Error::other(error))
    } else {
        error.into()
    }
}

/// Behind the head of a response.
fn cut(error: h2::Error) -> OriginError {
    match has_ended(&error) {
        true => OriginError::Cut(io::Error::other(error)),
        false => error.into(),
    }
}

/// Whether the connection ended, or the server ended the stream.
fn has_ended(error: &h2::Error) -> bool {
    error.is_io() || error.is_go_away() || (error.is_reset() && error.is_remote())
}

/// Counts a stream of a connection while it is under way.
#[derive(Debug, Clone, Default)]
pub struct Stream(Arc<()>);

pub struct Http2Origin {
    pub(super) open: OpenExchange,
    requests: SendRequest<Bytes>,
    _counted: Stream,
    response: Option<ResponseFuture>,
    stream: Option<SendStream<Bytes>>,
    body: Option<RecvStream>,
    body_read: bool,
    queue: VecDeque<Bytes>,
    backlog: usize,
    written: u64,
    finish: Option<Option<HeaderMap>>,
    finished: bool,
}

impl std::fmt::Debug for Http2Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http2Origin")
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}

impl Http2Origin {
    pub fn new(requests: SendRequest<Bytes>, stream: Stream, open: OpenExchange) -> Self {
        Self {
            open,
            requests,
            _counted: stream,
            response: None,
            stream: None,
            body: None,
            body_read: false,
            queue: VecDeque::new(),
            backlog: 0,
            written: 0,
            finish: None,
            finished: false,
        }
    }

    pub fn request(&mut self, head: &Forwarded<'_>) -> Result<(), OriginError> {
        let uri = Uri::builder()
            .scheme(head.scheme.as_str())
            .authority(head.authority)
            .path_and_query(&*head.target)
            .build()
            .map_err(|_| OriginError::Http2(Reason::INTERNAL_ERROR.into()))?;
        let mut request = Request::new(());
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = HeaderMap::from(&head.fields);
        if let Framing::Length(length) = head.framing {
            request
                .headers_mut()
                .insert(http::header::CONTENT_LENGTH, length.into());
        }
        let ends = matches!(head.framing, Framing::None | Framing::Length(0));
        let (response, stream) = self.requests.send_request(request, ends).map_err(failed)?;
        self.response = Some(response);
        self.stream = Some(stream);
        self.finished = ends;
        Ok(())
    }

    pub fn send(&mut self, data: Bytes) {
        if !self.finished && self.finish.is_none() && !data.is_empty() {
            self.backlog += data.len();
            self.queue.push_back(data);
        }
    }

    pub fn finish(&mut self, trailers: Option<&Fields>) {
        if !self.finished && self.finish.is_none() {
            self.finish = Some(trailers.map(HeaderMap::from));
        }
    }

    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), OriginError>> {
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(Ok(()));
        };
        while let Some(mut front) = self.queue.pop_front() {
            stream.reserve_capacity(front.len());
            let granted = match stream.poll_capacity(cx) {
                Poll::Ready(Some(granted)) => granted?,
                Poll::Ready(None) => return Poll::Ready(Err(OriginError::Closed(io::ErrorKind::BrokenPipe.into()))),
                Poll::Pending => {
                    self.queue.push_front(front);
                    return Poll::Pending;
                }
            };
            let piece = front.split_to(granted.min(front.len()));
            self.backlog -= piece.len();
            self.written += piece.len() as u64;
            stream.send_data(piece, false)?;
            if !front.is_empty() {
                self.queue.push_front(front);
            }
        }
        match self.finish.take() {
            None => {}
            Some(None) => {
                self.finished = true;
                stream.send_data(Bytes::new(), true)?;
            }
            Some(Some(trailers)) => {
                self.finished = true;
                stream.send_trailers(trailers)?;
            }
        }
        Poll::Ready(Ok(()))
    }

    pub fn backlog(&self) -> usize {
        self.backlog
    }

    pub fn written(&self) -> u64 {
        self.written
    }

    pub fn poll_head(&mut self, cx: &mut Context<'_>, method: &Method) -> Poll<Result<ResponseHead, OriginError>> {
        let Some(response) = &mut self.response else {
            return Poll::Ready(Err(OriginError::Closed(io::ErrorKind::NotConnected.into())));
        };
        if let Poll::Ready(Some(Ok(interim))) = response.poll_informational(cx) {
            return Poll::Ready(Ok(ResponseHead {
                status: interim.status().as_u16(),
                fields: Fields::from(interim.headers()),
                framing: Framing::None,
                declared_length: None,
            }));
        }
        let response = match ready!(std::pin::Pin::new(response).poll(cx)) {
            Ok(response) => response,
            Err(error) => return Poll::Ready(Err(failed(error))),
        };
        let (parts, body) = response.into_parts();
        let mut fields = Fields::from(&parts.headers);
        let declared_length = match fields.get("content-length") {
            Some(value) => match content_length(value) {
                Some(length) => Some(length),
                None => return Poll::Ready(Err(OriginError::Http2(Reason::PROTOCOL_ERROR.into()))),
            },
            None => None,
        };
        fields.remove("content-length");
        let status = parts.status.as_u16();
        let framing = match (body.is_end_stream(), declared_length) {
            (true, _) => Framing::None,
            _ if *method == Method::HEAD || matches!(status, 204 | 304) => Framing::None,
            (false, Some(length)) => Framing::Length(length),
            (false, None) => Framing::Stream,
        };
        self.body_read = framing == Framing::None;
        self.body = Some(body);
        Poll::Ready(Ok(ResponseHead {
            status,
            fields,
            framing,
            declared_length,
        }))
    }

    pub fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyEvent, OriginError>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(Ok(BodyEvent::End(None)));
        };
        if self.body_read {
            return Poll::Ready(Ok(BodyEvent::End(None)));
        }
        match ready!(body.poll_data(cx)) {
            Some(Ok(data)) => {
                body.flow_control().release_capacity(data.len())?;
                Poll::Ready(Ok(BodyEvent::Data(data)))
            }
            Some(Err(error)) => Poll::Ready(Err(cut(error))),
            None => {
                let trailers = ready!(body.poll_trailers(cx)).map_err(cut)?;
                self.body_read = true;
                Poll::Ready(Ok(BodyEvent::End(trailers.map(|map| Fields::from(&map)))))
            }
        }
    }

    pub fn end(mut self) {
        // Dropping the halves of a stream that is not over resets it; the connection goes on for the others.
        if let (Some(stream), false) = (&mut self.stream, self.finished && self.body_read) {
            stream.send_reset(Reason::CANCEL);
        }
    }
}
