//! Idle connections to one server.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::Transport;

/// At most `limit` connections, none idle for longer than `idle`.
///
/// Pingora's pool is one LRU for the whole process; an app's limit on connections is per server, so this one is too.
pub struct Pool {
    limit: usize,
    closed: AtomicBool,
    idle: Duration,
    connections: Mutex<VecDeque<Idle>>,
}

struct Idle {
    io: Transport,
    since: Instant,
}

impl Pool {
    pub fn new(limit: usize, idle: Duration) -> Self {
        Self {
            limit,
            closed: AtomicBool::new(false),
            idle,
            connections: Mutex::default(),
        }
    }

    /// The connection that was used last, of those that are still open and silent.
    pub fn take(&self, now: Instant) -> Option<Transport> {
        loop {
            let mut idle = self.connections.lock().pop_back()?;
            let is_young = idle.since.checked_add(self.idle).is_none_or(|end| now < end);
            if is_young && idle.io.is_open_and_silent() {
                return Some(idle.io);
            }
        }
    }

    /// Keeps a connection that is idle since then. Whether it is still open is seen when it is taken.
    pub fn put(&self, io: Transport, since: Instant) {
        if self.limit == 0 {
            return;
        }
        let mut connections = self.connections.lock();
        if self.closed.load(Ordering::Relaxed) {
            return;
        }
        let oldest = match connections.len() >= self.limit {
            true => connections.pop_front(),
            false => None,
        };
        connections.push_back(Idle { io, since });
        drop(connections);
        // Closed outside the lock.
        drop(oldest);
    }

    /// Closes all of them, and keeps none any more.
    pub fn close(&self) {
        let mut connections = self.connections.lock();
        self.closed.store(true, Ordering::Relaxed);
        let all = std::mem::take(&mut *connections);
        drop(connections);
        drop(all);
    }

    /// Closes what has been idle for too long.
    pub fn sweep(&self) {
        loop {
            let mut connections = self.connections.lock();
            match connections.front() {
                Some(oldest) if oldest.since.elapsed() >= self.idle => {
                    let oldest = connections.pop_front();
                    drop(connections);
                    drop(oldest);
                }
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

    fn pair() -> (Transport, DuplexStream) {
        let (near, far) = duplex(64);
        (Transport::over(near), far)
    }

    #[tokio::test(start_paused = true)]
    async fn closed_talking_and_old_connections_are_not_reused() {
        let pool = Pool::new(8, Duration::from_secs(4));
        let (io, far) = pair();
        pool.put(io, Instant::now());
        assert!(pool.take(Instant::now()).is_some(), "an open one is");
        drop(far);

        let (io, far) = pair();
        pool.put(io, Instant::now());
        drop(far);
        assert!(pool.take(Instant::now()).is_none(), "closed");

        let (io, mut far) = pair();
        pool.put(io, Instant::now());
        far.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        assert!(pool.take(Instant::now()).is_none(), "talking");

        let (io, _far) = pair();
        pool.put(io, Instant::now());
        tokio::time::advance(Duration::from_secs(4)).await;
        assert!(pool.take(Instant::now()).is_none(), "old");
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_bounded_and_sweeps() {
        let pool = Pool::new(2, Duration::from_secs(4));
        let mut far = Vec::new();
        for _ in 0..3 {
            let (io, end) = pair();
            pool.put(io, Instant::now());
            far.push(end);
        }
        assert_eq!(pool.connections.lock().len(), 2);
        assert!(far[0].write_all(b"x").await.is_err(), "the oldest was closed");
        tokio::time::advance(Duration::from_secs(5)).await;
        pool.sweep();
        assert_eq!(pool.connections.lock().len(), 0);

        let none = Pool::new(0, Duration::from_secs(4));
        let (io, _end) = pair();
        none.put(io, Instant::now());
        assert!(none.take(Instant::now()).is_none());
    }
}
