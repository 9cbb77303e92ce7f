//! One server, or whichever sentinels name, and the connections to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwapOption;
use redis::Cmd;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::connect::Connection;
use super::link::Link;
use super::slots::Place;

/// Connections for commands. Few, so that what is sent at the same time travels together; more than one, so that one thread's work on
/// what comes in does not hold everything up.
const LINKS: usize = 2;

/// A server with its own connections, failures and clock: what one of a cluster does is nothing to the others.
#[derive(Debug)]
pub(super) struct Server {
    /// `None`: where the configuration says.
    place: Option<Place>,
    links: Vec<Arc<Link>>,
    /// Whether any link is up, as last said.
    up: AtomicBool,
    /// Whether it has ever been up, or not been reached.
    tried: AtomicBool,
    /// Whether the log has said that it is away.
    missed: AtomicBool,
    /// Notified when a link is up again, so that the others try at once.
    pub(super) back: Notify,
    time: ArcSwapOption<ServerTime>,
}

/// A server's time, as it was told last: at some moment between question and answer.
#[derive(Debug, Clone, Copy)]
struct ServerTime {
    asked: Instant,
    told: Instant,
    /// Since 1970.
    millis: u64,
}

/// A connection to send commands on, and whom to tell how that went.
pub(super) struct Taken {
    pub server: Arc<Server>,
    pub link: Arc<Link>,
    pub connection: Connection,
}

impl Server {
    /// The one that the configuration names.
    pub(super) fn configured() -> Self {
        Self::with(None, LINKS)
    }

    /// One of a cluster.
    pub(super) fn node(place: Place) -> Self {
        Self::with(Some(place), 1)
    }

    fn with(place: Option<Place>, links: usize) -> Self {
        Self {
            place,
            links: (0..links).map(|_| Arc::default()).collect(),
            up: AtomicBool::new(false),
            tried: AtomicBool::new(false),
            missed: AtomicBool::new(false),
            back: Notify::new(),
            time: ArcSwapOption::empty(),
        }
    }

    pub(super) fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }

    pub(super) fn links(&self) -> &[Arc<Link>] {
        &self.links
    }

    #[inline]
    pub(super) fn is_up(&self) -> bool {
        self.links.iter().any(|link| link.is_up())
    }

    /// Notes whether it is up; answers whether it was when this was called last.
    pub(super) fn note(&self, up: bool) -> bool {
        self.tried.store(true, Ordering::Release);
        let before = self.up.swap(up, Ordering::AcqRel);
        if up {
            self.back.notify_waiters();
        }
        before
    }

    /// Whether nobody knows yet how it is.
    pub(super) fn is_new(&self) -> bool {
        !self.tried.load(Ordering::Acquire)
    }

    /// Notes whether it is missed; answers whether it was.
    pub(super) fn miss(&self, missed: bool) -> bool {
        self.missed.swap(missed, Ordering::AcqRel)
    }

    pub(super) fn is_missed(&self) -> bool {
        self.missed.load(Ordering::Acquire)
    }

    /// Waits until a command would be sent to it, or the deadline is over.
    pub(super) async fn up_until(&self, deadline: Instant) {
        let wait = async {
            loop {
                let back = self.back.notified();
                let mut back = std::pin::pin!(back);
                back.as_mut().enable();
                if self.is_up() {
                    return;
                }
                back.await;
            }
        };
        let _ = tokio::time::timeout_at(deadline, wait).await;
    }

    /// A link that is up. All commands of a thread take the same, so that they travel together.
    pub(super) fn take(self: &Arc<Self>) -> Option<Taken> {
        let count = self.links.len();
        let first = match count {
            0 | 1 => 0,
            count => super::thread_number() % count,
        };
        (0..count).find_map(|turn| {
            let link = self.links.get((first + turn) % count)?;
            Some(Taken {
                server: self.clone(),
                link: link.clone(),
                connection: link.connection()?,
            })
        })
    }

    /// The least that its time can be now, in milliseconds since 1970.
    pub(super) fn time(&self) -> Option<u64> {
        let time = self.time.load();
        let time = time.as_deref()?;
        Some(time.millis.saturating_add(millis_since(time.told)))
    }

    /// The most that it can be.
    pub(super) fn latest_time(&self) -> Option<u64> {
        let time = self.time.load();
        let time = time.as_deref()?;
        // The fraction that was not told, and that of the span.
        Some(time.millis.saturating_add(millis_since(time.asked)).saturating_add(2))
    }

    pub(super) fn told_time(&self, asked: Instant, millis: u64) {
        let told = Instant::now();
        self.time.store(Some(Arc::new(ServerTime { asked, told, millis })));
    }
}

fn millis_since(instant: Instant) -> u64 {
    u64::try_from(instant.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// What is sent in one piece, and answered in one.
pub(super) trait Request {
    type Answer;

    /// The key that says whose it is in a cluster.
    fn key(&self) -> Option<&[u8]>;

    /// Sends it. Dropping the future drops the answer and nothing else.
    fn send(&self, connection: &mut Connection)
    -> impl Future<Output = Result<Self::Answer, redis::RedisError>> + Send;

    /// Sends it to a node that is about to get the slot.
    fn send_asking(
        &self,
        connection: &mut Connection,
    ) -> impl Future<Output = Result<Self::Answer, redis::RedisError>> + Send;
}

impl Request for Cmd {
    type Answer = redis::Value;

    fn key(&self) -> Option<&[u8]> {
        super::slots::key(self)
    }

    async fn send(&self, connection: &mut Connection) -> Result<Self::Answer, redis::RedisError> {
        connection.send(self).await
    }

    async fn send_asking(&self, connection: &mut Connection) -> Result<Self::Answer, redis::RedisError> {
        let mut commands = redis::Pipeline::with_capacity(2);
        commands.cmd("ASKING").add_command(self.clone());
        let mut answers = connection.send_all(&commands).await?;
        Ok(answers.pop().unwrap_or(redis::Value::Nil))
    }
}

impl Request for redis::Pipeline {
    type Answer = Vec<redis::Value>;

    fn key(&self) -> Option<&[u8]> {
        super::slots::key(self.cmd_iter().next()?)
    }

    async fn send(&self, connection: &mut Connection) -> Result<Self::Answer, redis::RedisError> {
        connection.send_all(self).await
    }

    async fn send_asking(&self, connection: &mut Connection) -> Result<Self::Answer, redis::RedisError> {
        let mut commands = redis::Pipeline::with_capacity(2 * self.len());
        for command in self.cmd_iter() {
            // It holds for the next command alone.
            commands.cmd("ASKING").add_command(command.clone());
        }
        let answers = connection.send_all(&commands).await?;
        Ok(answers.into_iter().skip(1).step_by(2).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_time_is_known_from_both_sides() {
        let server = Server::configured();
        assert_eq!((server.time(), server.latest_time()), (None, None));
        let asked = Instant::now();
        tokio::time::advance(Duration::from_millis(30)).await;
        server.told_time(asked, 1_000_000);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(
            (server.time(), server.latest_time()),
            (Some(1_001_000), Some(1_001_032))
        );
    }
}
