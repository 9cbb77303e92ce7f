//! The head of a response whose body is still to come.
//!
//! Some servers write head and body apart. Where the body is short, its head waits for the first piece, so that they leave in one write; and
//! where no body comes, nothing has been said yet, and the client can be told what is wrong.

use tokio::time::Instant;

use super::progress::Now;
use super::upload::Upload;
use super::{HIGH_WATER, Relay, RelayError};
use crate::edge::client::Client;
use crate::exchange::Exchange;
use crate::proxy::Failure;

/// Bytes of the longest body whose head waits for the first of it.
const WITH_BODY: u64 = HIGH_WATER as u64;

/// What becomes of the head of a response when it is queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Head {
    /// It leaves.
    Free,
    /// It waits for the first piece of the body.
    Held,
    /// It has waited, until then.
    Let(Instant),
}

impl Relay {
    /// A response is about to be queued that is no stream, and whose origin says that its body has so many bytes. Over HTTP/2 heads leave by
    /// themselves.
    pub fn gather(&mut self, client: &Client, length: Option<u64>) {
        let may_wait = matches!(length, Some(1..=WITH_BODY))
            && matches!(self.upload, Upload::Done | Upload::Stopped)
            && matches!(client, Client::Http1(http1) if http1.is_flushed());
        if may_wait {
            self.head = Head::Held;
        }
    }

    /// Whether nothing of the response has been sent, because nothing of its body has come.
    pub(super) fn holds_head(&self) -> bool {
        self.head == Head::Held
    }

    pub(super) fn let_head(&mut self, now: &mut Now) {
        if self.holds_head() {
            self.head = Head::Let(now.read());
        }
    }

    /// Tells when the response really began, if its head has waited.
    pub fn note_head(&self, exchange: &mut Exchange) {
        if let Head::Let(at) = self.head {
            exchange.responds(exchange.status, at);
        }
    }

    /// What an error of [`body`](Self::body) or [`flush`](Self::flush) comes to. A head that is still held is taken back: the client gets
    /// to know by a response of our own what is wrong.
    pub fn failure(&self, error: &RelayError, client: &mut Client, exchange: &mut Exchange) -> Failure {
        match (self.head, client) {
            (Head::Held, Client::Http1(http1)) => {
                http1.withdraw();
                exchange.is_unsaid();
                error.into()
            }
            _ => Failure::within_response(error),
        }
    }
}
