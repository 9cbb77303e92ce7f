//! What the choice of a server depends on beside the servers.

use arrayvec::ArrayVec;

use super::ServerId;

/// What a request has to do with the choice of its server.
#[derive(Debug, Clone, Copy, Default)]
pub struct Selection {
    /// Requests with the same number go to the same server, where the upstream balances by that. `None`: this request has nothing
    /// to go by.
    pub hash: Option<u64>,
    /// The server that the client was with before.
    pub sticky: Option<ServerId>,
}

/// Servers that one request has tried in vain. More than this many are not tried.
#[derive(Debug, Clone, Default)]
pub struct Tried(ArrayVec<ServerId, 8>);

impl Tried {
    pub fn contains(&self, server: ServerId) -> bool {
        self.0.contains(&server)
    }

    pub fn is_full(&self) -> bool {
        self.0.is_full()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Beyond the eighth this does nothing: [`is_full`](Self::is_full) is asked before.
    pub fn add(&mut self, server: ServerId) {
        if !self.contains(server) {
            let _ = self.0.try_push(server);
        }
    }
}
