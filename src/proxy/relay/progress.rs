//! When the two sides of an exchange were last heard of, and which of their deadlines is next.

use std::time::Duration;

use tokio::time::Instant;

/// When a queue was last seen to shrink.
#[derive(Debug, Clone, Copy)]
pub(super) struct Progress {
    written: u64,
    backlog: usize,
    pub at: Instant,
    /// Something waits for the peer, if only inside TLS.
    pub waits: bool,
}

/// The time of one poll, read once and only if it matters.
#[derive(Debug, Default)]
pub(super) struct Now(Option<Instant>);

impl Now {
    /// It was read a moment ago.
    pub fn at(now: Instant) -> Self {
        Self(Some(now))
    }

    pub fn read(&mut self) -> Instant {
        *self.0.get_or_insert_with(Instant::now)
    }
}

impl Progress {
    /// Nothing has been queued yet.
    pub fn new(now: Instant) -> Self {
        Self {
            written: 0,
            backlog: 0,
            waits: false,
            at: now,
        }
    }

    /// Everything is written.
    pub fn flushed(&mut self, written: u64, now: &mut Now) {
        if written != self.written {
            self.at = now.read();
        }
        *self = Self {
            written,
            backlog: 0,
            waits: false,
            at: self.at,
        };
    }

    /// The peer does not take everything. The time before something began to wait does not count, and what TLS takes at once is no
    /// progress of the peer.
    pub fn stuck(&mut self, written: u64, backlog: usize, now: &mut Now) {
        if !self.waits || (written != self.written && self.backlog > 0) {
            self.at = now.read();
        }
        *self = Self {
            written,
            backlog,
            waits: true,
            at: self.at,
        };
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    ClientStalled,
    OriginSilent,
    Heartbeat,
}

pub(super) fn after(since: Instant, time: Option<Duration>, due: Due) -> Option<(Instant, Due)> {
    time.map(|time| (since + time, due))
}

pub(super) fn earliest(all: [Option<(Instant, Due)>; 3]) -> (Option<Instant>, Due) {
    match all.into_iter().flatten().min_by_key(|(at, _)| *at) {
        Some((at, due)) => (Some(at), due),
        None => (None, Due::OriginSilent),
    }
}
