//! Which stored responses are worth to be fetched anew before they expire: those that are asked for again and again shortly before.
//!
//! The counts of these last moments stand in a table of fixed size, which is written to without locks. Two responses that fall into one
//! place only push each other's counts out, and then are refreshed later, or not ahead of time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Refreshes, Refreshing};
use crate::key::CacheKey;
use crate::rfc9111::date::Timestamp;

/// Places of the table: 32 KiB. So many responses can be in their last moments at once.
const PLACES: usize = 4096;

/// Refreshes ahead of time that go on at once: the origin has clients to serve, who come first.
const AT_ONCE: usize = 32;

/// Refreshes that begin in a second, for the same reason. What is put off is fetched when it has expired, as ever.
const PER_SECOND: u32 = 100;

/// Between two.
const DISTANCE: Duration = Duration::from_millis(1000 / PER_SECOND as u64);

/// So many may begin together where there were fewer before.
const BURST: u32 = 32;

/// Counts hits, and hands out places.
#[derive(Debug)]
pub struct Ahead {
    /// In the upper half which response is counted, in the lower how often it was asked for.
    counts: Box<[AtomicU64]>,
    under_way: Refreshes,
    /// When the next one could begin if all came evenly.
    next: Mutex<Option<Instant>>,
}

impl Default for Ahead {
    fn default() -> Self {
        Self {
            counts: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
            under_way: Refreshes::new(AT_ONCE),
            next: Mutex::new(None),
        }
    }
}

impl Ahead {
    /// Counts a request for a response that soon expires; `received` tells it from those before it. Answers whether a refresh is due: at so
    /// many `hits`, and where that did not help, at twice as many, and so on.
    pub fn is_due(&self, key: &CacheKey, received: Timestamp, hits: u32) -> bool {
        let hash = key.hash128() as u64 ^ received.as_millis().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // Zero is an empty place.
        let mark = (hash >> 32).max(1);
        let Some(place) = self.counts.get(hash as usize % PLACES) else {
            return false;
        };
        let before = place.load(Ordering::Relaxed);
        let count = match before >> 32 == mark {
            true => (before as u32).saturating_add(1),
            false => 1,
        };
        // A request that is counted by another thread at the same time may be lost.
        place.store(mark << 32 | u64::from(count), Ordering::Relaxed);
        let hits = hits.max(1);
        count.is_multiple_of(hits) && (count / hits).is_power_of_two()
    }

    /// A place for one refresh. `None`: there are too many, or they come too fast.
    pub fn begin(&self, now: Instant) -> Option<Refreshing> {
        let place = self.under_way.begin()?;
        let mut next = self.next.lock();
        let earliest = now.checked_sub(DISTANCE * BURST).unwrap_or(now);
        let due = next.unwrap_or(earliest).max(earliest);
        if due > now {
            return None;
        }
        *next = Some(due + DISTANCE);
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Scheme;
    use crate::rfc9111::invalidation::ResourceUri;

    fn key(target: &str) -> CacheKey {
        let uri = ResourceUri {
            scheme: Scheme::Http,
            authority: "a".into(),
            target: target.into(),
        };
        CacheKey::of_uri(&uri, &Default::default())
    }

    #[test]
    fn it_is_due_when_it_is_asked_for_often_and_then_less_and_less() {
        let ahead = Ahead::default();
        let (key, at) = (key("/a"), Timestamp::from_secs(1));
        let due: Vec<u32> = (1..=100).filter(|_| ahead.is_due(&key, at, 3)).collect();
        assert_eq!(due, [3, 6, 12, 24, 48, 96]);
        // The next response begins anew.
        let later = Timestamp::from_secs(2);
        assert_eq!((1..=4).filter(|_| ahead.is_due(&key, later, 2)).count(), 2);
        assert!(ahead.is_due(&self::key("/b"), at, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_only_so_many_at_once_and_in_a_second() {
        let ahead = Ahead::default();
        // The clock of a machine that has just started cannot go back so far.
        tokio::time::advance(Duration::from_secs(1)).await;
        let mut places: Vec<_> = (0..AT_ONCE).filter_map(|_| ahead.begin(Instant::now())).collect();
        assert_eq!(places.len(), AT_ONCE);
        assert!(ahead.begin(Instant::now()).is_none());
        places.clear();
        tokio::time::advance(Duration::from_secs(10)).await;
        let mut begun = 0;
        for _ in 0..1000 {
            begun += u32::from(ahead.begin(Instant::now()).is_some());
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert!((PER_SECOND..=PER_SECOND + BURST + 1).contains(&begun), "{begun}");
    }
}
