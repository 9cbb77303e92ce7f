//! One fetch for many requests: the first leads, the others follow.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use quick_cache::sync::Cache;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Filling;
use super::lease::{Lease, Outcome};
use crate::key::CacheKey;

/// Requests that wait for one fetch. More go to the origin themselves.
const MAX_FOLLOWERS: usize = 10_000;

/// How long it is remembered that a response was not stored. So long its requests do not wait for each other.
const REMEMBERED: Duration = Duration::from_secs(10);

/// Keys of which that is remembered at once.
const MAX_REMEMBERED: usize = 100_000;

/// What a fetch is for: a key, and the values of the fields that its responses are known to vary by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Destination {
    pub key: CacheKey,
    /// `None`: not known to vary.
    pub variant: Option<Vec<u8>>,
    /// The last purge before it that is about it. Requests from behind another one do not wait for what was asked for before that.
    pub epoch: u64,
}

/// The fetches under way.
#[derive(Debug, Default)]
pub struct Flights {
    under_way: Arc<DashMap<Destination, Flight>>,
    unstored: Unstored,
}

#[derive(Debug)]
struct Flight {
    news: watch::Receiver<News>,
    followers: Arc<AtomicUsize>,
}

/// What the leader tells its followers.
#[derive(Debug, Clone)]
enum News {
    Nothing,
    /// The response is coming in.
    Filling(Arc<Filling>),
    Over(Landing),
}

/// How a fetch ended for those who waited for it.
#[derive(Debug, Clone)]
pub enum Landing {
    /// Read along, if it fits.
    Filling(Arc<Filling>),
    /// There is something new in the store: look again.
    LookAgain,
    /// The response was for the leader alone: each for itself now.
    Unstored,
    /// The upstream failed: whoever may be content with a stale response gets it, the others ask for themselves.
    Failed,
    /// The leader gave up: somebody else leads.
    Abandoned,
}

/// What a request has to do with a fetch.
#[derive(Debug)]
pub enum Join {
    Lead(FetchDuty),
    Follow(Follower),
    /// Fetch alone: nobody waits, nobody is waited for.
    Alone,
}

/// The duty to fetch for all who wait. Dropping it without a word lets somebody else take it over.
#[derive(Debug)]
pub struct FetchDuty {
    destination: Destination,
    news: watch::Sender<News>,
    under_way: Arc<DashMap<Destination, Flight>>,
    /// Other instances wait for this fetch, too.
    lease: Option<Lease>,
    over: bool,
}

/// A place among those who wait.
#[derive(Debug)]
pub struct Follower {
    news: watch::Receiver<News>,
    followers: Arc<AtomicUsize>,
}

impl Flights {
    /// For a request that came at this time.
    pub fn join(&self, destination: &Destination, now: Instant) -> Join {
        if self.unstored.contains(destination, now) {
            return Join::Alone;
        }
        match self.under_way.entry(destination.clone()) {
            Entry::Occupied(flight) => {
                let flight = flight.get();
                if flight.followers.fetch_add(1, Ordering::Relaxed) >= MAX_FOLLOWERS {
                    flight.followers.fetch_sub(1, Ordering::Relaxed);
                    return Join::Alone;
                }
                Join::Follow(Follower {
                    news: flight.news.clone(),
                    followers: flight.followers.clone(),
                })
            }
            Entry::Vacant(place) => {
                let (sender, news) = watch::channel(News::Nothing);
                let destination = place.key().clone();
                place.insert(Flight {
                    news,
                    followers: Arc::default(),
                });
                Join::Lead(FetchDuty {
                    destination,
                    news: sender,
                    under_way: self.under_way.clone(),
                    lease: None,
                    over: false,
                })
            }
        }
    }

    /// Whether that is remembered.
    pub fn is_unstored(&self, destination: &Destination, now: Instant) -> bool {
        self.unstored.contains(destination, now)
    }

    /// Remembers for a while that responses to these requests are not stored, so that they do not wait for each other.
    pub fn remember_unstored(&self, destination: &Destination) {
        self.unstored.0.insert(destination.clone(), Instant::now());
    }
}

impl FetchDuty {
    pub fn destination(&self) -> &Destination {
        &self.destination
    }

    /// Other instances wait for this fetch, too.
    pub fn set_lease(&mut self, lease: Lease) {
        self.lease = Some(lease);
    }

    /// Whoever takes it tells the other instances how the fetch ended.
    pub fn take_lease(&mut self) -> Option<Lease> {
        self.lease.take()
    }

    /// Tells the other instances, while those of this one wait on.
    pub fn release(&mut self, outcome: Outcome) {
        if let Some(lease) = self.lease.take() {
            lease.release(outcome);
        }
    }

    /// The response is coming in, for everybody.
    pub fn publish(&self, filling: Arc<Filling>) {
        self.news.send_replace(News::Filling(filling));
    }

    /// Nothing more will come of this fetch.
    pub fn land(mut self, landing: Landing) {
        self.finish(landing);
    }

    fn finish(&mut self, landing: Landing) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        if let Some(lease) = self.lease.take() {
            lease.release(match landing {
                Landing::Unstored | Landing::Failed | Landing::Filling(_) => Outcome::Apart,
                // Whatever is new in the store came without a write to L2.
                Landing::LookAgain | Landing::Abandoned => Outcome::Abandoned,
            });
        }
        // First out of sight, so that whoever looks again does not find this fetch.
        self.under_way.remove(&self.destination);
        self.news.send_replace(News::Over(landing));
    }
}

impl Drop for FetchDuty {
    fn drop(&mut self) {
        self.finish(Landing::Abandoned);
    }
}

impl Follower {
    /// Waits for the leader's response or the end of its fetch. `None`: not until the deadline.
    pub async fn wait(&mut self, deadline: Instant) -> Option<Landing> {
        let news = self.news.wait_for(|news| !matches!(news, News::Nothing));
        match tokio::time::timeout_at(deadline, news).await {
            Err(_) => None,
            Ok(Err(_)) => Some(Landing::Abandoned),
            Ok(Ok(news)) => match &*news {
                News::Filling(filling) => Some(Landing::Filling(filling.clone())),
                News::Over(landing) => Some(landing.clone()),
                News::Nothing => None,
            },
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.followers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Destinations whose response was not stored a short while ago.
#[derive(Debug)]
struct Unstored(Cache<Destination, Instant>);

impl Default for Unstored {
    fn default() -> Self {
        Self(Cache::new(MAX_REMEMBERED))
    }
}

impl Unstored {
    fn contains(&self, destination: &Destination, now: Instant) -> bool {
        match self.0.get(destination) {
            Some(since) if now < since + REMEMBERED => true,
            Some(_) => {
                self.0.remove(destination);
                false
            }
            None => false,
        }
    }
}
