//! One HTTP/2 stream of a client, and the translation between its head and ours.

use std::collections::VecDeque;
use std::io;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{HeaderMap, HeaderValue};
use http::{Request, Response, StatusCode};

use super::client::ClientError;
use crate::http1::request::{self, RequestError};
use crate::http1::{Limits, SyntaxError, content_length};
use crate::message::{BodyEvent, Fields, Framing, Lines, RequestHead, ResponseHead, Scheme, Version, is_field_value};

/// A client's HTTP/2 stream: one exchange.
///
/// Dropping it while the request body is still coming resets the stream with NO_ERROR once the response has been written (RFC 9113
/// §8.1); an explicit reset would overtake the response.
pub struct Http2Client {
    body: RecvStream,
    body_read: bool,
    respond: SendResponse<Bytes>,
    stream: Option<SendStream<Bytes>>,
    queue: VecDeque<Bytes>,
    backlog: usize,
    written: u64,
    end: End,
}

#[derive(Debug)]
enum End {
    /// More may be queued.
    Open,
    /// Everything is queued; then the stream ends, with these trailers if there are any.
    Queued(Option<HeaderMap>),
    Sent,
}

impl std::fmt::Debug for Http2Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http2Client")
            .field("backlog", &self.backlog)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

fn gone(error: h2::Error) -> ClientError {
    ClientError::Gone(error.into_io().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into()))
}

impl Http2Client {
    pub fn new(body: RecvStream, respond: SendResponse<Bytes>) -> Self {
        let body_read = body.is_end_stream();
        Self {
            body,
            body_read,
            respond,
            stream: None,
            queue: VecDeque::new(),
            backlog: 0,
            written: 0,
            end: End::Open,
        }
    }

    pub fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyEvent, ClientError>> {
        if self.body_read {
            return Poll::Ready(Ok(BodyEvent::End(None)));
        }
        match ready!(self.body.poll_data(cx)) {
            Some(Ok(data)) => {
                self.body.flow_control().release_capacity(data.len()).map_err(gone)?;
                Poll::Ready(Ok(BodyEvent::Data(data)))
            }
            Some(Err(error)) => Poll::Ready(Err(gone(error))),
            None => {
                let trailers = ready!(self.body.poll_trailers(cx)).map_err(gone)?;
                self.body_read = true;
                Poll::Ready(Ok(BodyEvent::End(trailers.map(|map| Fields::from(&map)))))
            }
        }
    }

    pub fn body_is_read(&self) -> bool {
        self.body_read
    }

    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let reset = match &mut self.stream {
            Some(stream) => stream.poll_reset(cx),
            None => self.respond.poll_reset(cx),
        };
        reset.map(|_| ())
    }

    pub fn interim(&mut self, head: &ResponseHead) {
        // 101 has no meaning in HTTP/2 (RFC 9113 §8.6).
        if self.stream.is_some() || head.status == 101 {
            return;
        }
        if let Some(response) = response_of(head) {
            // A stream that is gone is noticed when the final response is sent.
            let _ = self.respond.send_informational(response);
        }
    }

    pub fn respond(&mut self, head: &mut ResponseHead<impl Lines>) {
        let Some(response) = response_of(head) else {
            self.abort();
            return;
        };
        let ends = matches!(head.framing, Framing::None | Framing::Length(0));
        match self.respond.send_response(response, ends) {
            Ok(stream) => {
                self.stream = Some(stream);
                if ends {
                    self.end = End::Sent;
                }
            }
            Err(_) => self.end = End::Sent,
        }
    }

    pub fn send(&mut self, data: Bytes) {
        if matches!(self.end, End::Open) && !data.is_empty() {
            self.backlog += data.len();
            self.queue.push_back(data);
        }
    }

    pub fn finish(&mut self, trailers: Option<&Fields>) {
        if matches!(self.end, End::Open) {
            self.end = End::Queued(trailers.map(HeaderMap::from));
        }
    }

    pub fn abort(&mut self) {
        if !matches!(self.end, End::Sent) {
            match &mut self.stream {
                Some(stream) => stream.send_reset(Reason::INTERNAL_ERROR),
                None => self.respond.send_reset(Reason::INTERNAL_ERROR),
            }
        }
        self.queue.clear();
        self.backlog = 0;
        self.end = End::Sent;
    }

    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(Ok(()));
        };
        while let Some(mut front) = self.queue.pop_front() {
            stream.reserve_capacity(front.len());
            let granted = match stream.poll_capacity(cx) {
                Poll::Ready(Some(Ok(granted))) => granted,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(gone(error))),
                Poll::Ready(None) => return Poll::Ready(Err(ClientError::Gone(io::ErrorKind::ConnectionReset.into()))),
                Poll::Pending => {
                    self.queue.push_front(front);
                    return Poll::Pending;
                }
            };
            let piece = front.split_to(granted.min(front.len()));
            self.backlog -= piece.len();
            self.written += piece.len() as u64;
            let last = front.is_empty() && self.queue.is_empty() && matches!(self.end, End::Queued(None));
            stream.send_data(piece, last).map_err(gone)?;
            if last {
                self.end = End::Sent;
            }
            if !front.is_empty() {
                self.queue.push_front(front);
            }
        }
        match std::mem::replace(&mut self.end, End::Sent) {
            End::Open => self.end = End::Open,
            End::Sent => {}
            End::Queued(None) => stream.send_data(Bytes::new(), true).map_err(gone)?,
            End::Queued(Some(trailers)) => stream.send_trailers(trailers).map_err(gone)?,
        }
        Poll::Ready(Ok(()))
    }

    pub fn backlog(&self) -> usize {
        self.backlog
    }

    /// The connection writes what a stream has given away.
    pub fn is_flushed(&self) -> bool {
        self.backlog == 0
    }

    pub fn written(&self) -> u64 {
        self.written
    }

    pub fn has_responded(&self) -> bool {
        self.stream.is_some() || matches!(self.end, End::Sent)
    }
}

/// Checks an HTTP/2 request as strictly as one in HTTP/1.1 (RFC 9113 §8.2, §8.3).
pub fn request_head(request: &Request<RecvStream>, scheme: Scheme) -> Result<RequestHead, RequestError> {
    let map = request.headers();
    let mut fields = Fields::with_capacity(map.len(), 512);
    for (name, value) in map {
        if !is_field_value(value.as_bytes()) {
            return Err(SyntaxError::FieldValue.into());
        }
        match name.as_str() {
            // Connection-specific fields make a request malformed (RFC 9113 §8.2.2).
            "connection" | "proxy-connection" | "keep-alive" | "transfer-encoding" | "upgrade" => {
                return Err(RequestError::ConnectionField);
            }
            "te" if !value.as_bytes().eq_ignore_ascii_case(b"trailers") => return Err(RequestError::ConnectionField),
            "host" | "content-length" | "expect" => {}
            name => fields.push(name, value.as_bytes()),
        }
    }
    let host = single(map, "host", RequestError::HostRepeated)?;
    // RFC 9113 §8.3.1: `:authority` stands for Host, and both must say the same.
    let authority = match (request.uri().authority(), host) {
        (Some(authority), Some(host)) if !authority.as_str().as_bytes().eq_ignore_ascii_case(host) => {
            return Err(RequestError::HostMismatch);
        }
        (Some(authority), _) => authority.as_str().as_bytes(),
        (None, Some(host)) => host,
        (None, None) => return Err(RequestError::HostMissing),
    };
    let target = match request.uri().path_and_query() {
        Some(target) if !target.as_str().is_empty() => target.as_str(),
        _ => "/",
    };
    let (authority, target) = request::check(request.method(), target, authority, &Limits::DEFAULT, scheme)?;
    if fields.len() > Limits::DEFAULT.fields {
        return Err(SyntaxError::TooManyFields.into());
    }
    let length = match single(map, "content-length", RequestError::ContentLengthRepeated)? {
        None => None,
        Some(value) => Some(content_length(value).ok_or(RequestError::ContentLength)?),
    };
    let framing = match (request.body().is_end_stream(), length) {
        (true, None | Some(0)) => Framing::None,
        // RFC 9113 §8.1.1.
        (true, Some(_)) => return Err(RequestError::ContentLength),
        (false, Some(length)) => Framing::Length(length),
        (false, None) => Framing::Stream,
    };
    let expects_continue = match single(map, "expect", RequestError::Expectation)? {
        None => false,
        Some(value) if value.eq_ignore_ascii_case(b"100-continue") => framing != Framing::None,
        Some(_) => return Err(RequestError::Expectation),
    };
    Ok(RequestHead {
        method: request.method().clone(),
        scheme,
        version: Version::Http2,
        authority,
        target,
        fields,
        framing,
        expects_continue,
        upgrade: false,
        keep_alive: true,
    })
}

fn single<'a>(map: &'a HeaderMap, name: &str, repeated: RequestError) -> Result<Option<&'a [u8]>, RequestError> {
    let mut lines = map.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => Ok(Some(value.as_bytes())),
        (Some(_), Some(_)) => Err(repeated),
    }
}

fn response_of(head: &ResponseHead<impl Lines>) -> Option<Response<()>> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(head.status).ok()?;
    *response.headers_mut() = head.fields.to_header_map();
    let length = match (head.status, head.framing) {
        // RFC 9110 §8.6: no length in 1xx and 204.
        (100..=199 | 204, _) => None,
        (_, Framing::Length(length)) => Some(length),
        (_, Framing::None) => head.declared_length,
        (_, Framing::Chunked | Framing::Stream | Framing::Close) => None,
    };
    if let Some(length) = length {
        response
            .headers_mut()
            .insert(http::header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    Some(response)
}
