//! A value that tests can wait on until it says what they wait for.

use std::fmt::Debug;
use std::sync::Arc;

use tokio::sync::watch;

use super::within;

/// Shared by those who change it and those who wait for a change.
#[derive(Debug)]
pub struct Watched<T>(Arc<watch::Sender<T>>);

impl<T> Clone for Watched<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Default> Default for Watched<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> Watched<T> {
    pub fn new(value: T) -> Self {
        Self(Arc::new(watch::Sender::new(value)))
    }

    pub fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let mut result = None;
        self.0.send_modify(|value| result = Some(change(value)));
        result.unwrap()
    }

    pub fn read<R>(&self, read: impl FnOnce(&T) -> R) -> R {
        read(&self.0.borrow())
    }

    /// Waits without a bound until `found` answers something: for servers, whose tasks end with the test.
    pub async fn until_found<R>(&self, mut found: impl FnMut(&T) -> Option<R>) -> R {
        let mut receiver = self.0.subscribe();
        loop {
            if let Some(result) = found(&receiver.borrow_and_update()) {
                return result;
            }
            receiver.changed().await.unwrap();
        }
    }

    /// Waits until `found` answers something; the test fails when it does not in time.
    #[track_caller]
    pub fn wait<R>(&self, what: &str, found: impl FnMut(&T) -> Option<R>) -> impl Future<Output = R> {
        within(what, self.until_found(found))
    }

    /// As [`Watched::wait`], for a condition.
    #[track_caller]
    pub fn wait_for(&self, what: &str, mut holds: impl FnMut(&T) -> bool) -> impl Future<Output = ()> {
        self.wait(what, move |value| holds(value).then_some(()))
    }
}
