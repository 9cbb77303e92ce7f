//! What the choice of a server depends on beside the servers.

use std::net::IpAddr;

use arrayvec::ArrayVec;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::ServerId;
use crate::config::{Balance, HashKey};
use crate::key::cookie_values;
use crate::message::{Fields, RequestHead};

/// What a request has to do with the choice of its server.
#[derive(Debug, Clone, Copy, Default)]
pub struct Selection {
    /// Requests with the same number go to the same server, where the upstream balances by that. `None`: this request has nothing
    /// to go by.
    pub hash: Option<u64>,
    /// The server that the client was with before.
    pub sticky: Option<ServerId>,
    /// For whom the request is. `None`: through a Unix socket.
    pub client: Option<IpAddr>,
}

impl Selection {
    /// What this request of this client says, as far as the upstream balances by it.
    pub fn of(balance: &Balance, request: &RequestHead, client: Option<IpAddr>) -> Self {
        let hash = match balance {
            Balance::RoundRobin | Balance::LeastConnections | Balance::LeastTime | Balance::Random => None,
            Balance::ClientIp => match client {
                Some(IpAddr::V4(ip)) => Some(xxh3_64(&ip.octets())),
                Some(IpAddr::V6(ip)) => Some(xxh3_64(&ip.octets())),
                None => None,
            },
            Balance::Hash(HashKey::Path) => Some(xxh3_64(request.path().as_bytes())),
            Balance::Hash(HashKey::Header(name)) => header(request, name),
            Balance::Hash(HashKey::Cookie(name)) => cookie_values(&request.fields, name).next().map(xxh3_64),
            Balance::Hash(HashKey::Query(name)) => query(request, name).map(|value| xxh3_64(value.as_bytes())),
        };
        Self {
            hash,
            sticky: None,
            client,
        }
    }
}

/// All lines of the field. `Host` is not among the fields.
fn header(request: &RequestHead, name: &str) -> Option<u64> {
    if name == "host" {
        return Some(xxh3_64(request.host().as_bytes()));
    }
    lines(&request.fields, name)
}

fn lines(fields: &Fields, name: &str) -> Option<u64> {
    let mut lines = fields.get_all(name).peekable();
    lines.peek()?;
    let mut hash = Xxh3::new();
    for line in lines {
        hash.update(line);
        hash.update(b"\n");
    }
    Some(hash.digest())
}

/// The first parameter of that name, as it is written.
fn query<'a>(request: &'a RequestHead, name: &str) -> Option<&'a str> {
    let pairs = request.query()?.split('&');
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
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
