//! Redis, for whatever instances share: the second tier of the cache, purges, limits.
//!
//! A [`Redis`] is a handle that is cheap to clone. Commands of many requests go over few connections at the same time (`link`), so that
//! under load they travel together. Nothing here makes a request wait for longer than its deadline, and once Redis has failed
//! several times, or a look at it has, nothing waits at all until it is back: commands then fail at once with
//! [`RedisError::Unavailable`]. Connections are made in the background only.
//!
//! What blocks (`XREAD BLOCK`) or listens (`SUBSCRIBE`) has a connection of its own: [`Redis::dedicated`]. In a cluster every node is a
//! server with connections of its own (`cluster`).

mod cluster;
mod connect;
mod dedicated;
mod error;
mod gather;
mod link;
mod script;
mod server;
mod slots;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use redis::{Cmd, Pipeline, Value};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use self::dedicated::Dedicated;
pub use self::error::RedisError;
pub use self::script::Script;

use self::cluster::{Cluster, REDIRECTIONS, Sent};
use self::server::{Request, Server, Taken};
use self::slots::Place;
use crate::config::{self, Deployment};
use crate::metrics::{RedisFault, RedisMetrics, RedisOperation};

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

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some(cluster) = &self.shared.cluster {
            cluster.close();
        }
    }
}

/// What the handles and the tasks in the background share.
struct Shared {
    config: config::Redis,
    metrics: Arc<RedisMetrics>,
    /// Where there is no cluster.
    server: Arc<Server>,
    cluster: Option<Cluster>,
    /// Whether any server is up, as last said in log and metrics.
    up: AtomicBool,
    /// Whether the log has said anything yet.
    said: AtomicBool,
    /// Notified when one is up again.
    back: Notify,
    /// Notified when none is up any more.
    gone: Notify,
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
        let cluster = match config.deployment {
            Deployment::Cluster(_) => Some(Cluster::new()),
            Deployment::Single(_) | Deployment::Sentinel { .. } => None,
        };
        let shared = Arc::new(Shared {
            config,
            cluster,
            metrics,
            server: Arc::new(Server::configured()),
            up: AtomicBool::new(false),
            said: AtomicBool::new(false),
            back: Notify::new(),
            gone: Notify::new(),
        });
        let mut tasks = JoinSet::new();
        if shared.cluster.is_some() {
            tasks.spawn(cluster::keep_map(shared.clone()));
        } else {
            for index in 0..shared.server.links().len() {
                tasks.spawn(link::keep(shared.clone(), shared.server.clone(), index));
            }
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

    /// Whether a command would be sent now; in a cluster, whether there is any that would be. Costs a few loads.
    pub fn is_available(&self) -> bool {
        self.handle.shared.is_up()
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

    /// The time of the server that has a key, in milliseconds since 1970, never ahead of it. `None`: it has not been told.
    pub fn server_time(&self, key: &[u8]) -> Option<u64> {
        self.handle.shared.server_of(key)?.time()
    }

    /// As [`Self::server_time`], but never behind it.
    pub fn latest_server_time(&self, key: &[u8]) -> Option<u64> {
        self.handle.shared.server_of(key)?.latest_time()
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
        self.exchange(operation, command, deadline).await
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
        self.exchange(operation, commands, deadline).await
    }

    async fn exchange<R: Request>(
        &self,
        operation: RedisOperation,
        request: &R,
        deadline: Instant,
    ) -> Result<R::Answer, RedisError> {
        let shared = &self.handle.shared;
        let since = Instant::now();
        let Some(mut taken) = shared.pick(request.key()) else {
            return Err(shared.refuse(operation));
        };
        let mut sent = Sent::Plainly;
        let mut redirections = 0;
        loop {
            let answer = match sent {
                Sent::Plainly => tokio::time::timeout_at(deadline, request.send(&mut taken.connection)).await,
                Sent::Asking => tokio::time::timeout_at(deadline, request.send_asking(&mut taken.connection)).await,
            };
            let error = match shared.judge(&taken, answer) {
                Ok(answer) => {
                    shared.metrics.duration(operation, since.elapsed());
                    return Ok(answer);
                }
                Err(error) => error,
            };
            if redirections < REDIRECTIONS
                && let Some((place, how)) = error.redirection(&taken.server)
                && let Some(next) = shared.redirect(&place, how, deadline).await
            {
                redirections += 1;
                (taken, sent) = (next, how);
                continue;
            }
            shared.metrics.duration(operation, since.elapsed());
            shared.metrics.fault(operation, error.fault());
            return Err(error);
        }
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

    /// A connection of its own, for commands that block; in a cluster, to the node that has this key now.
    ///
    /// # Errors
    /// When none comes about within a second; in a cluster, at once where that node is away.
    pub async fn dedicated(&self, key: &[u8]) -> Result<Dedicated, RedisError> {
        let shared = &self.handle.shared;
        let server = shared.server_of(key).ok_or(RedisError::Unavailable)?;
        if shared.cluster.is_some() && !server.is_up() {
            return Err(RedisError::Unavailable);
        }
        Dedicated::connect(shared, server.place(), connect::Use::Blocking).await
    }

    /// As [`Self::dedicated`], with RESP3: what the server sends unasked, such as messages of channels, goes to `sender`. In a cluster any
    /// node will do: all of them hear every message.
    ///
    /// # Errors
    /// When none comes about within a second, or the server does not know RESP3 (Redis before 6).
    pub async fn listening(
        &self,
        sender: tokio::sync::mpsc::UnboundedSender<redis::PushInfo>,
    ) -> Result<Dedicated, RedisError> {
        let shared = &self.handle.shared;
        let server = match &shared.cluster {
            Some(cluster) => cluster.any().ok_or(RedisError::Unavailable)?.server,
            None => shared.server.clone(),
        };
        Dedicated::connect(shared, server.place(), connect::Use::Listening(sender)).await
    }
}

impl Shared {
    fn is_up(&self) -> bool {
        match &self.cluster {
            Some(cluster) => cluster.is_up(),
            None => self.server.is_up(),
        }
    }

    /// `None`: nobody has the key's slot.
    fn server_of(&self, key: &[u8]) -> Option<Arc<Server>> {
        match &self.cluster {
            Some(cluster) => cluster.of(key),
            None => Some(self.server.clone()),
        }
    }

    /// A connection to the server that has a key, where it is up; to any, where there is no key.
    fn pick(&self, key: Option<&[u8]>) -> Option<Taken> {
        match (&self.cluster, key) {
            (None, _) => self.server.take(),
            (Some(cluster), Some(key)) => cluster.of(key)?.take(),
            (Some(cluster), None) => cluster.any(),
        }
    }

    /// A connection to the node that a command is sent on to. It may have to come about first.
    async fn redirect(self: &Arc<Self>, place: &Place, how: Sent, deadline: Instant) -> Option<Taken> {
        let cluster = self.cluster.as_ref()?;
        if how == Sent::Plainly {
            cluster.doubt();
        }
        let server = cluster.at(self, place)?;
        if let Some(taken) = server.take() {
            return Some(taken);
        }
        // One that was there and is away is not waited for.
        if !server.is_new() {
            return None;
        }
        server.up_until(deadline).await;
        server.take()
    }

    fn refuse(&self, operation: RedisOperation) -> RedisError {
        self.metrics.fault(operation, RedisFault::Unavailable);
        RedisError::Unavailable
    }

    /// Lets the link know how a command ended.
    fn judge<T>(
        &self,
        taken: &Taken,
        answer: Result<Result<T, redis::RedisError>, tokio::time::error::Elapsed>,
    ) -> Result<T, RedisError> {
        let error = match answer {
            Ok(Ok(answer)) => {
                taken.link.succeeded();
                return Ok(answer);
            }
            Ok(Err(error)) => RedisError::Failed(error),
            Err(_) => RedisError::Timeout,
        };
        let link = &taken.link;
        if error.fault() == RedisFault::ReadOnly {
            link.demoted();
        } else if !error.is_outage() {
            link.succeeded();
        } else if link.failed() {
            self.review_server(&taken.server, Some(&error));
        }
        Err(error)
    }

    /// A link of this server has come or gone.
    fn review_server(&self, server: &Server, why: Option<&RedisError>) {
        let up = server.is_up();
        let before = server.note(up);
        if let Some(cluster) = &self.cluster {
            cluster.review(self, why.map(|_| server));
            if up != before {
                cluster.doubt();
            }
        }
        self.review(why);
    }

    /// Says in log and metrics, once, when Redis goes or comes.
    fn review(&self, why: Option<&RedisError>) {
        let up = self.is_up();
        let before = self.up.swap(up, Ordering::AcqRel);
        self.metrics.set_up(up);
        match up {
            true => self.back.notify_waiters(),
            false => self.gone.notify_waiters(),
        }
        if up {
            if !before {
                self.said.store(true, Ordering::Release);
                tracing::info!(deployment = %Where(&self.config.deployment), "Redis is there");
            }
        } else if let Some(error) = why
            && (before || !self.said.swap(true, Ordering::AcqRel))
        {
            tracing::warn!(
                deployment = %Where(&self.config.deployment),
                reason = error.fault().as_str(),
                %error,
                "Redis is away: requests go on without it"
            );
        }
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
struct Where<'a>(&'a Deployment);

impl std::fmt::Display for Where<'_> {
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
