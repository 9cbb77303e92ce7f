//! What is under way, so that the process can end when nothing is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Counts exchanges: short ones, and streams, which are given more time.
#[derive(Debug, Default)]
pub struct Work {
    all: AtomicUsize,
    streams: AtomicUsize,
    connections: AtomicUsize,
    changed: Notify,
    /// Who waits for `changed`: nobody until the process is to end.
    waiting: AtomicUsize,
}

/// One client's connection; dropping it closes it.
#[derive(Debug)]
pub struct Connected(Arc<Work>);

/// One exchange; dropping it ends it.
#[derive(Debug)]
pub struct Begun<'a>(&'a Work);

/// An exchange that has turned out to be a stream.
#[derive(Debug)]
pub struct BegunStream(Arc<Work>);

impl Work {
    pub fn begin(&self) -> Begun<'_> {
        self.all.fetch_add(1, Ordering::Relaxed);
        Begun(self)
    }

    pub fn connect(self: &Arc<Self>) -> Connected {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Connected(self.clone())
    }

    /// Says of an exchange that has begun that it is a stream.
    pub fn stream(self: &Arc<Self>) -> BegunStream {
        self.streams.fetch_add(1, Ordering::SeqCst);
        self.tell();
        BegunStream(self.clone())
    }

    /// Exchanges under way that are no streams.
    pub fn short(&self) -> usize {
        self.all
            .load(Ordering::SeqCst)
            .saturating_sub(self.streams.load(Ordering::SeqCst))
    }

    pub fn streams(&self) -> usize {
        self.streams.load(Ordering::SeqCst)
    }

    /// Ready when no client is connected.
    pub async fn connections_closed(&self) {
        self.until(|_, _| self.connections.load(Ordering::SeqCst) == 0).await;
    }

    /// Ready when `done` is true of the numbers of short exchanges and streams.
    pub async fn until(&self, done: impl Fn(usize, usize) -> bool) {
        // In one order with the counters: whoever moves one and sees nobody wait is seen to have moved it.
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _waiting = Waiting(self);
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if done(self.short(), self.streams()) {
                return;
            }
            changed.await;
        }
    }
}

/// One who waits for a change.
struct Waiting<'a>(&'a Work);

impl Work {
    fn tell(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.changed.notify_waiters();
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::SeqCst);
        self.0.tell();
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.0.all.fetch_sub(1, Ordering::SeqCst);
        self.0.tell();
    }
}

impl Drop for BegunStream {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::SeqCst);
        self.0.tell();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waiting_ends_with_the_last_exchange() {
        let work = Arc::new(Work::default());
        work.until(|short, streams| short + streams == 0).await;
        let request = work.begin();
        let event_stream = work.begin();
        let stream = work.stream();
        assert_eq!((work.short(), work.streams()), (1, 1));
        let waiting = {
            let work = work.clone();
            tokio::spawn(async move { work.until(|short, _| short == 0).await })
        };
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(request);
        waiting.await.unwrap();
        drop(stream);
        drop(event_stream);
        work.until(|short, streams| short + streams == 0).await;
    }
}
