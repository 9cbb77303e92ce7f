//! Redis, for whatever instances share: the second tier of the cache, purges, limits.
//!
//! A [`Redis`] is a handle that is cheap to clone. Commands of many requests go over few connections at the same time (`link`), so that
//! under load they travel together. Nothing here makes a request wait for longer than its deadline, and once Redis has failed
//! several times, or a look at it has, nothing waits at all until it is back: commands then fail at once with
//! [`RedisError::Unavailable`]. Connections are made in the background only.
//!
//! What blocks (`XREAD BLOCK`) or listens (`SUBSCRIBE`) has a connection of its own: [`Redis::dedicated`].

mod connect;
mod dedicated;
mod error;
mod gather;
mod link;
mod nodes;
mod script;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arc_swap::ArcSwapOption;
use redis::{Cmd, Pipeline, Value};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use self::dedicated::Dedicated;
pub use self::error::RedisError;
pub use self::script::Script;

use self::link::Link;
use self::nodes::Nodes;
use crate::config::{self, Deployment};
use crate::metrics::{RedisFault, RedisMetrics, RedisOperation};

/// Connections for commands. Few, so that what is sent at the same time travels together; more than one, so that one thread's work on
/// what comes in does not hold everything up.
const LINKS: usize = 2;

/// Commands to Redis. Clones share everything; the last one closes the connections.
#[derive(Clone)]
pub struct Redis {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
    /// Dropped with the last handle, which ends them.
    _tasks: JoinSet<()>,
}

/// What the handles and the tasks in the background share.
struct Shared {
    config: config::Redis,
    metrics: Arc<RedisMetrics>,
    links: Vec<Link>,
    /// Of a cluster.
    nodes: Option<Nodes>,
    /// Whether any link is up, as last said in log and metrics.
    up: AtomicBool,
    /// Whether the log has said anything yet.
    said: AtomicBool,
    /// Notified when a link is up again, so that the others try at once.
    back: Notify,
    /// Notified when none is up any more.
    gone: Notify,
    time: ArcSwapOption<ServerTime>,
}

/// The server's time, as it was told last.
#[derive(Debug, Clone, Copy)]
struct ServerTime {
    told: Instant,
    /// Since 1970.
    millis: u64,
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis")
            .field("deployment", &self.handle.shared.config.deployment)
            .field("available", &self.is_available())
            .finish_non_exhaustive()
    }
}

impl Redis {
    /// Connects in the background. Has to be called in a runtime of tokio; the connections live there.
    pub fn start(config: config::Redis, metrics: Arc<RedisMetrics>) -> Self {
        let links = match config.deployment {
            // The crate's client has connections to all nodes.
            Deployment::Cluster(_) => 1,
            Deployment::Single(_) | Deployment::Sentinel { .. } => LINKS,
        };
        let nodes = match config.deployment {
            Deployment::Cluster(_) => Some(Nodes::new(metrics.clone())),
            Deployment::Single(_) | Deployment::Sentinel { .. } => None,
        };
        let shared = Arc::new(Shared {
            config,
            nodes,
            metrics,
            links: (0..links).map(|_| Link::default()).collect(),
            up: AtomicBool::new(false),
            said: AtomicBool::new(false),
            back: Notify::new(),
            gone: Notify::new(),
            time: ArcSwapOption::empty(),
        });
        let mut tasks = JoinSet::new();
        for index in 0..links {
            tasks.spawn(link::keep(shared.clone(), index));
        }
        Self {
            handle: Arc::new(Handle { shared, _tasks: tasks }),
        }
    }

    pub fn config(&self) -> &config::Redis {
        &self.handle.shared.config
    }

    pub fn metrics(&self) -> &Arc<RedisMetrics> {
        &self.handle.shared.metrics
    }

    /// Whether a command would be sent now. Costs two loads.
    pub fn is_available(&self) -> bool {
        self.handle.shared.links.iter().any(Link::is_up)
    }

    /// Waits until a command would be sent.
    pub async fn available(&self) {
        loop {
            let back = self.handle.shared.back.notified();
            let mut back = std::pin::pin!(back);
            back.as_mut().enable();
            if self.is_available() {
                return;
            }
            back.await;
        }
    }

    /// Waits until no command would be sent.
    pub async fn away(&self) {
        loop {
            let gone = self.handle.shared.gone.notified();
            let mut gone = std::pin::pin!(gone);
            gone.as_mut().enable();
            if !self.is_available() {
                return;
            }
            gone.await;
        }
    }

    /// The server's time in milliseconds since 1970, never ahead of it. In a cluster, that of the node that is furthest behind. `None`: it has
    /// not been told.
    pub fn server_time(&self) -> Option<u64> {
        let time = self.handle.shared.time.load();
        let time = time.as_deref()?;
        let since = u64::try_from(time.told.elapsed().as_millis()).unwrap_or(u64::MAX);
        Some(time.millis.saturating_add(since))
    }

    /// Runs a command within the configured deadline.
    ///
    /// # Errors
    /// At once where Redis is away; else when the deadline is over, the connection breaks, or Redis answers an error.
    pub async fn run(&self, operation: RedisOperation, command: &Cmd) -> Result<Value, RedisError> {
        let deadline = Instant::now() + self.config().deadline;
        self.run_until(operation, command, deadline).await
    }

    /// As [`Self::run`], with a deadline of the caller's.
    ///
    /// # Errors
    /// The same.
    pub async fn run_until(
        &self,
        operation: RedisOperation,
        command: &Cmd,
        deadline: Instant,
    ) -> Result<Value, RedisError> {
        let shared = &self.handle.shared;
        let Some((link, mut connection)) = shared.pick(Some(command)) else {
            return Err(shared.refuse(operation));
        };
        let since = Instant::now();
        let answer = tokio::time::timeout_at(deadline, connection.send(command)).await;
        shared.judge(link, Some(command), operation, since, answer)
    }

    /// Sends commands in one piece and answers all their values. They are not a transaction: others' commands may run in between. In a
    /// cluster all must be about keys of one slot.
    ///
    /// # Errors
    /// As [`Self::run`]; also when one of the commands fails.
    pub async fn run_all(
        &self,
        operation: RedisOperation,
        commands: &Pipeline,
        deadline: Instant,
    ) -> Result<Vec<Value>, RedisError> {
        let shared = &self.handle.shared;
        let first = commands.cmd_iter().next();
        let Some((link, mut connection)) = shared.pick(first) else {
            return Err(shared.refuse(operation));
        };
        let since = Instant::now();
        let answer = tokio::time::timeout_at(deadline, connection.send_all(commands)).await;
        shared.judge(link, first, operation, since, answer)
    }

    /// Runs a script by its digest, and sends its text only to a server that does not know it yet. In a cluster all keys must be of one
    /// slot.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn run_script(
        &self,
        operation: RedisOperation,
        script: &Script,
        keys: &[&[u8]],
        arguments: &[&[u8]],
        deadline: Instant,
    ) -> Result<Value, RedisError> {
        let by_digest = script.by_digest(keys, arguments);
        match self.run_until(operation, &by_digest, deadline).await {
            Err(error) if error.fault() == RedisFault::NoScript => {
                self.run_until(operation, &script.by_text(keys, arguments), deadline)
                    .await
            }
            answer => answer,
        }
    }

    /// A connection of its own, for commands that block.
    ///
    /// # Errors
    /// When none comes about within a second.
    pub async fn dedicated(&self) -> Result<Dedicated, RedisError> {
        Dedicated::connect(self.config(), connect::Use::Blocking).await
    }

    /// As [`Self::dedicated`], with RESP3: what the server sends unasked, such as messages of channels, goes to `sender`.
    ///
    /// # Errors
    /// When none comes about within a second, or the server does not know RESP3 (Redis before 6).
    pub async fn listening(
        &self,
        sender: tokio::sync::mpsc::UnboundedSender<redis::PushInfo>,
    ) -> Result<Dedicated, RedisError> {
        Dedicated::connect(self.config(), connect::Use::Listening(sender)).await
    }
}

impl Shared {
    /// A link that is up, and its connection. `command` is the first that is to be sent.
    fn pick(&self, command: Option<&Cmd>) -> Option<(&Link, connect::Connection)> {
        if let (Some(nodes), Some(command)) = (&self.nodes, command)
            && !nodes.admit(command)
        {
            return None;
        }
        let first = match self.links.len() {
            0 | 1 => 0,
            count => thread_number() % count,
        };
        let (behind, ahead) = self.links.split_at_checked(first)?;
        ahead
            .iter()
            .chain(behind)
            .find_map(|link| Some((link, link.connection()?)))
    }

    fn refuse(&self, operation: RedisOperation) -> RedisError {
        self.metrics.fault(operation, RedisFault::Unavailable);
        RedisError::Unavailable
    }

    /// Counts how a command ended, and lets the link know.
    fn judge<T>(
        &self,
        link: &Link,
        command: Option<&Cmd>,
        operation: RedisOperation,
        since: Instant,
        answer: Result<Result<T, redis::RedisError>, tokio::time::error::Elapsed>,
    ) -> Result<T, RedisError> {
        self.metrics.duration(operation, since.elapsed());
        let error = match answer {
            Ok(Ok(answer)) => {
                link.succeeded();
                return Ok(answer);
            }
            Ok(Err(error)) => RedisError::Failed(error),
            Err(_) => RedisError::Timeout,
        };
        self.metrics.fault(operation, error.fault());
        if error.fault() == RedisFault::ReadOnly {
            link.demoted();
        } else if error.is_outage() {
            if let (Some(nodes), Some(command)) = (&self.nodes, command) {
                nodes.failed(command);
                // One of several: a look tells which of them serve.
                link.suspect();
            } else if link.failed() {
                self.review(Some(&error));
            }
        } else {
            link.succeeded();
        }
        Err(error)
    }

    /// Says in log and metrics, once, when Redis goes or comes.
    fn review(&self, why: Option<&RedisError>) {
        let up = self.links.iter().any(Link::is_up);
        let before = self.up.swap(up, Ordering::AcqRel);
        self.metrics.set_up(up);
        match up {
            true => self.back.notify_waiters(),
            false => self.gone.notify_waiters(),
        }
        if up {
            if !before {
                self.said.store(true, Ordering::Release);
                tracing::info!(deployment = %Place(&self.config.deployment), "Redis is there");
            }
        } else if let Some(error) = why
            && (before || !self.said.swap(true, Ordering::AcqRel))
        {
            tracing::warn!(
                deployment = %Place(&self.config.deployment),
                reason = error.fault().as_str(),
                %error,
                "Redis is away: requests go on without it"
            );
        }
    }

    fn told_time(&self, time: ServerTime) {
        self.time.store(Some(Arc::new(time)));
    }
}

/// The same for all commands of a thread, so that they travel together.
fn thread_number() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: usize = THREADS.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.with(|number| *number)
}

/// Where Redis is, for the log.
struct Place<'a>(&'a Deployment);

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Deployment::Single(server) => write!(f, "{server}"),
            Deployment::Sentinel { master, .. } => write!(f, "sentinel:{master}"),
            Deployment::Cluster(nodes) => match nodes.first() {
                Some(node) => write!(f, "cluster:{node}"),
                None => f.write_str("cluster"),
            },
        }
    }
}
