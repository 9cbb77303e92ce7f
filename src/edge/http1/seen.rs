//! What the bytes are that a client has sent: a request's head, the beginning of HTTP/2, or nothing of the kind.

use std::sync::Arc;

use crate::http1::request::{self, RequestError};
use crate::http1::{HeadScanner, Limits};
use crate::message::{RequestHead, Scheme};

/// What begins an HTTP/2 connection (RFC 9113 §3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Whether HTTP/2 with prior knowledge is spoken on a plain connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PriorKnowledge {
    Accepted,
    Refused,
}

/// What a request is held to.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    pub scheme: Scheme,
    pub limits: &'a Limits,
    /// What the connection may begin with.
    pub http2: PriorKnowledge,
}

/// What a client's bytes are.
pub(super) enum Seen {
    /// A request, and how many bytes its head takes.
    Request(Arc<RequestHead>, usize),
    /// An HTTP/2 connection preface.
    Http2,
    /// Not enough to tell.
    More,
    Refused(RequestError),
}

impl Expected<'_> {
    pub(super) fn look(self, read: &[u8], scanner: &mut HeadScanner) -> Seen {
        if self.http2 == PriorKnowledge::Accepted
            && HTTP2_PREFACE.starts_with(&read[..read.len().min(HTTP2_PREFACE.len())])
        {
            return match read.len() >= HTTP2_PREFACE.len() {
                true => Seen::Http2,
                false => Seen::More,
            };
        }
        match request::parse_more(read, scanner, self.limits, self.scheme) {
            Ok(Some((head, length))) => Seen::Request(head, length),
            Ok(None) => Seen::More,
            Err(error) => Seen::Refused(error),
        }
    }
}

impl Seen {
    /// How many bytes are done with.
    pub(super) fn length(&self) -> usize {
        match self {
            Self::Request(_, length) => *length,
            Self::Http2 | Self::More | Self::Refused(_) => 0,
        }
    }
}
