//! The only reader of system time.
//!
//! Freshness is computed from wall-clock time (RFC 9111 §4.2), so it is asked for here and handed on as an argument: tests
//! move this clock instead of sleeping. Deadlines use tokio's monotonic clock.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime};

use crate::rfc9111::date::Timestamp;

/// How long the wall clock is followed with the monotonic one: nobody notices that the system's time was set so much later.
const FOLLOWED: Duration = Duration::from_millis(1);

const NANOS_PER_MILLI: u64 = 1_000_000;

thread_local! {
    /// What both clocks said when the wall clock was last read by this thread; that one as [`WallTime`] has it.
    static LAST: Cell<Option<(tokio::time::Instant, u64)>> = const { Cell::new(None) };

    /// When the work that is being done began, where it has waited for nothing since: see [`begun`] and [`round`].
    static BEGUN: Cell<Option<tokio::time::Instant>> = const { Cell::new(None) };
}

/// Does `work`, which begins at this instant. Until it waits for something for the first time it need not look at the clock to know what
/// time it is: [`lately`] tells.
pub async fn begun<T>(at: tokio::time::Instant, mut work: impl Future<Output = T> + Unpin) -> T {
    let mut at = Some(at);
    poll_fn(move |cx| {
        let _begun = Begun::at(at.take());
        Pin::new(&mut work).poll(cx)
    })
    .await
}

/// Now, or the instant since which the work that is being done has waited for nothing: for deadlines, and for durations that begin with it.
pub fn lately() -> tokio::time::Instant {
    BEGUN.get().unwrap_or_else(tokio::time::Instant::now)
}

/// As long as the answer lives, this thread does what waits for nothing, one thing after the other: for [`lately`] and [`Clock::moment`]
/// the first begins at this instant, and each other one when the one before it has [`ended`].
pub fn round(at: tokio::time::Instant) -> Begun {
    Begun::at(Some(at))
}

/// Now, when something has ended.
pub fn ended() -> tokio::time::Instant {
    let now = tokio::time::Instant::now();
    if BEGUN.get().is_some() {
        BEGUN.set(Some(now));
    }
    now
}

/// As long as it lives, it is known when what is being done began.
#[must_use = "what is done behind it begins at no known time"]
#[derive(Debug)]
pub struct Begun;

impl Begun {
    fn at(at: Option<tokio::time::Instant>) -> Self {
        BEGUN.set(at);
        Self
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        BEGUN.set(None);
    }
}

/// Tells the wall-clock time; clones share one offset.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    /// Milliseconds added to the system's time.
    offset: Arc<AtomicI64>,
}

/// When something happens, by both clocks: the one that freshness is computed from, and the one for durations.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    pub time: WallTime,
    pub instant: tokio::time::Instant,
}

/// A time by the wall clock: nanoseconds since 1970, until the year 2554. Times before that are that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct WallTime(u64);

impl From<WallTime> for Timestamp {
    #[inline]
    fn from(time: WallTime) -> Self {
        Self::from_millis(time.0 / NANOS_PER_MILLI)
    }
}

impl From<WallTime> for SystemTime {
    fn from(time: WallTime) -> Self {
        Self::UNIX_EPOCH + Duration::from_nanos(time.0)
    }
}

impl From<SystemTime> for WallTime {
    fn from(time: SystemTime) -> Self {
        let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX))
    }
}

#[allow(clippy::disallowed_methods)] // The one place that may.
fn system_time() -> SystemTime {
    SystemTime::now()
}

/// Reads the wall clock for [`Clock::moment`].
fn read(instant: tokio::time::Instant) -> u64 {
    let WallTime(nanos) = system_time().into();
    LAST.set(Some((instant, nanos)));
    nanos
}

/// What the wall clock says at this instant, as [`WallTime`] has it, if it was read a short while before.
#[inline]
fn followed(instant: tokio::time::Instant) -> Option<u64> {
    let (then, nanos) = LAST.get()?;
    match instant.checked_duration_since(then) {
        Some(since) if since < FOLLOWED => Some(nanos + u64::from(since.subsec_nanos())),
        _ => None,
    }
}

impl Clock {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn now(&self) -> SystemTime {
        self.ahead(system_time())
    }

    fn ahead(&self, now: SystemTime) -> SystemTime {
        match self.offset.load(Ordering::Relaxed) {
            0 => now,
            offset if offset > 0 => now + Duration::from_millis(offset.unsigned_abs()),
            offset => now - Duration::from_millis(offset.unsigned_abs()),
        }
    }

    /// [`lately`], by both clocks. Under load the wall clock is not read for each request but followed with the other one in between.
    pub fn moment(&self) -> Moment {
        let instant = lately();
        let nanos = followed(instant).unwrap_or_else(|| read(instant));
        Moment {
            time: self.wall_time(nanos),
            instant,
        }
    }

    fn wall_time(&self, nanos: u64) -> WallTime {
        let ahead = self
            .offset
            .load(Ordering::Relaxed)
            .saturating_mul(NANOS_PER_MILLI as i64);
        WallTime(nanos.saturating_add_signed(ahead))
    }

    /// [`now`](Self::now), where the other clock has just been read for another purpose.
    pub fn now_at(&self, instant: tokio::time::Instant) -> WallTime {
        match followed(instant) {
            Some(nanos) => self.wall_time(nanos),
            None => self.now().into(),
        }
    }

    /// Nanoseconds since the process first asked: never goes back, whatever is done to the system's time.
    pub fn uptime(&self) -> u64 {
        self.uptime_at(tokio::time::Instant::now())
    }

    /// [`uptime`](Self::uptime) at another time than now; 0 for whatever was before the process first asked.
    pub fn uptime_at(&self, instant: tokio::time::Instant) -> u64 {
        static SINCE: LazyLock<Instant> = LazyLock::new(Instant::now);
        let since = instant.into_std().saturating_duration_since(*SINCE);
        let since = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        let offset = u64::try_from(self.offset.load(Ordering::Relaxed)).unwrap_or(0);
        since.saturating_add(offset.saturating_mul(1_000_000))
    }

    /// [`uptime`](Self::uptime) as a duration.
    pub fn running(&self) -> Duration {
        Duration::from_nanos(self.uptime())
    }

    /// [`running`](Self::running), but [`lately`].
    pub fn running_lately(&self) -> Duration {
        Duration::from_nanos(self.uptime_at(lately()))
    }

    /// Moves this clock and its clones on.
    pub fn advance(&self, by: Duration) {
        let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.offset.fetch_add(by, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_follow_the_wall_clock() {
        let clock = Clock::new();
        for _ in 0..100 {
            let before = clock.now();
            let moment = clock.moment();
            let time = SystemTime::from(moment.time);
            assert!(time + FOLLOWED >= before && time <= clock.now() + FOLLOWED);
            assert_eq!(Timestamp::from(moment.time), time.into());
            let again = SystemTime::from(clock.now_at(tokio::time::Instant::now()));
            assert!(again + FOLLOWED >= before && again <= clock.now() + FOLLOWED);
        }
        clock.advance(Duration::from_secs(3600));
        assert!(SystemTime::from(clock.moment().time) + FOLLOWED >= clock.now());
    }

    #[tokio::test(start_paused = true)]
    async fn in_a_round_each_begins_when_the_one_before_it_ended() {
        let clock = Clock::new();
        let began = tokio::time::Instant::now();
        let round = round(began);
        for number in 0..3 {
            let begins = began + number * FOLLOWED;
            tokio::time::advance(FOLLOWED).await;
            assert_eq!((lately(), clock.moment().instant), (begins, begins));
            assert_eq!(ended(), begins + FOLLOWED);
        }
        tokio::time::advance(FOLLOWED).await;
        drop(round);
        assert_eq!(lately(), tokio::time::Instant::now());
        assert_eq!(ended(), lately());
    }

    #[tokio::test(start_paused = true)]
    async fn the_beginning_of_work_is_lately_until_it_waits() {
        let began = tokio::time::Instant::now();
        tokio::time::advance(FOLLOWED).await;
        let now = tokio::time::Instant::now();
        let work = async || {
            assert_eq!(lately(), began);
            tokio::task::yield_now().await;
            assert_eq!(lately(), now);
        };
        begun(began, Box::pin(work())).await;
        assert_eq!(lately(), now);
    }

    #[test]
    fn an_advanced_clock_is_ahead_for_its_clones_too() {
        let clock = Clock::new();
        let clone = clock.clone();
        let before = clone.now();
        clock.advance(Duration::from_secs(3600));
        assert!(clone.now() >= before + Duration::from_secs(3600));
    }
}
