//! The nodes of a cluster: each a server of its own, with connections and failures of its own.
//!
//! ```text
//! command ─► slot of its key ─► its node ─► answer
//!                                 │ MOVED, ASK: another node, at most REDIRECTIONS times
//!                                 ▼
//!            a task asks nodes that are up who has which slots: now and then, at once when a command is sent elsewhere,
//!            and again and again while a node is away
//! ```
//!
//! So a node that is gone or hangs takes its own keys with it and nothing else, and the replica that takes its place is found from what
//! the others say.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use redis::Value;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::connect::Connection;
use super::link;
use super::server::{Server, Taken};
use super::slots::{Map, Place, parse};
use super::{RedisError, Shared};
use crate::config::{Deployment, ServerAddress};

/// How often a command is sent on to another node.
pub(super) const REDIRECTIONS: usize = 4;

/// Nodes that there are connections to. No cluster has more masters; what names more of them is none.
const MAX_NODES: usize = 1000;

/// Nodes that are asked at the same time who has which slots.
const ASKED: usize = 5;

/// Each of them may take so long.
const ANSWER: Duration = Duration::from_millis(250);

/// Until they are asked again while nothing is wrong.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// The same while a node is away: a replica may have taken its place.
const LOOK_FOR_REPLICA: Duration = Duration::from_millis(250);

/// They are not asked more often, however many commands are sent elsewhere.
const PAUSE: Duration = Duration::from_millis(50);

/// A node without slots to which commands were sent is remembered for so long.
const REMEMBERED: Duration = Duration::from_secs(30);

/// A cluster as it is known.
pub(super) struct Cluster {
    map: ArcSwap<Map>,
    /// `None` when it has been closed.
    known: Mutex<Option<HashMap<Place, Known>>>,
    /// Tells the task that the map may be wrong.
    doubt: Notify,
    /// Where the connections live.
    runtime: Handle,
}

/// A node, with or without slots.
struct Known {
    server: Arc<Server>,
    wanted: Instant,
    /// Dropped with it, which closes its connections.
    _tasks: JoinSet<()>,
}

/// What a node says of the cluster.
struct Said {
    /// The higher, the newer.
    epoch: u64,
    ranges: Vec<(u16, u16, Place)>,
}

impl Cluster {
    pub(super) fn new() -> Self {
        Self {
            map: ArcSwap::default(),
            known: Mutex::new(Some(HashMap::new())),
            doubt: Notify::new(),
            runtime: Handle::current(),
        }
    }

    /// Closes all connections, for good.
    pub(super) fn close(&self) {
        *self.known.lock() = None;
    }

    /// Whether any node is up that has slots.
    pub(super) fn is_up(&self) -> bool {
        self.map.load().servers().iter().any(|server| server.is_up())
    }

    /// The node that has a key.
    pub(super) fn of(&self, key: &[u8]) -> Option<Arc<Server>> {
        self.map.load().of(key).cloned()
    }

    /// Any node that is up; another one each time.
    pub(super) fn any(&self) -> Option<Taken> {
        let map = self.map.load();
        let servers = map.servers();
        let first = fastrand::usize(..servers.len().max(1));
        let mut turns = servers.iter().cycle().skip(first).take(servers.len());
        turns.find_map(Server::take)
    }

    /// Who has which slots may have changed.
    pub(super) fn doubt(&self) {
        self.doubt.notify_one();
    }

    /// A node by its place. `None`: there are too many, or everything is over.
    pub(super) fn at(&self, shared: &Arc<Shared>, place: &Place) -> Option<Arc<Server>> {
        let mut known = self.known.lock();
        let known = known.as_mut()?;
        if let Some(node) = known.get_mut(place) {
            node.wanted = Instant::now();
            return Some(node.server.clone());
        }
        if known.len() >= MAX_NODES {
            return None;
        }
        let server = Arc::new(Server::node(place.clone()));
        let mut tasks = JoinSet::new();
        for index in 0..server.links().len() {
            let kept = link::keep(shared.clone(), server.clone(), index);
            tasks.spawn_on(kept, &self.runtime);
        }
        let node = Known {
            server: server.clone(),
            wanted: Instant::now(),
            _tasks: tasks,
        };
        known.insert(place.clone(), node);
        Some(server)
    }

    /// Says in the log, once, when a node that has slots goes or comes, and counts those that are away. `failed`: the one that has just
    /// failed.
    pub(super) fn review(&self, shared: &Shared, failed: Option<&Server>) {
        let map = self.map.load();
        let mut away = 0;
        for server in map.servers() {
            let Some(node) = server.place() else { continue };
            if server.is_up() {
                if server.miss(false) {
                    tracing::info!(%node, "a node of the cluster answers again");
                }
            } else {
                if failed.is_some_and(|failed| std::ptr::eq(failed, &**server)) && !server.miss(true) {
                    tracing::warn!(%node, "a node of the cluster does not answer: its keys are left alone");
                }
                away += u64::from(server.is_missed());
            }
        }
        shared.metrics.set_silent_nodes(away);
    }

    /// Asks some nodes who has which slots. Answers whether all that have any are up.
    async fn learn(&self, shared: &Arc<Shared>) -> bool {
        let mut up: Vec<(Place, Connection)> = {
            let known = self.known.lock();
            let nodes = known.iter().flat_map(HashMap::iter);
            nodes
                .filter_map(|(place, node)| Some((place.clone(), node.server.take()?.connection)))
                .collect()
        };
        fastrand::shuffle(&mut up);
        up.truncate(ASKED);
        let deadline = Instant::now() + ANSWER;
        let asked = up
            .into_iter()
            .map(|(place, connection)| ask(place, connection, deadline));
        let said = futures_util::future::join_all(asked).await;
        // Of two that disagree one has not heard yet.
        match said.into_iter().flatten().max_by_key(|said| said.epoch) {
            Some(said) => self.take_over(shared, said),
            // It may be somewhere else by now.
            None => {
                for seed in seeds(&shared.config.deployment) {
                    self.at(shared, &seed);
                }
            }
        }
        self.review(shared, None);
        shared.review(None);
        let map = self.map.load();
        !map.servers().is_empty() && map.servers().iter().all(|server| server.is_up())
    }

    fn take_over(&self, shared: &Arc<Shared>, said: Said) {
        let owned: HashSet<Place> = said.ranges.iter().map(|(_, _, place)| place.clone()).collect();
        let ranges = said.ranges.into_iter();
        let ranges = ranges.filter_map(|(from, to, place)| Some((from, to, self.at(shared, &place)?)));
        self.map.store(Arc::new(Map::new(ranges.collect())));
        if let Some(known) = self.known.lock().as_mut() {
            known.retain(|place, node| owned.contains(place) || node.wanted.elapsed() < REMEMBERED);
        }
    }
}

/// Keeps the map as it is in truth, for as long as there is anybody to use it.
pub(super) async fn keep_map(shared: Arc<Shared>) {
    let Some(cluster) = &shared.cluster else { return };
    for seed in seeds(&shared.config.deployment) {
        cluster.at(&shared, &seed);
    }
    loop {
        let again = match cluster.learn(&shared).await {
            true => LOOK_AGAIN,
            false => LOOK_FOR_REPLICA,
        };
        tokio::time::sleep(PAUSE).await;
        tokio::select! {
            () = cluster.doubt.notified() => {}
            () = tokio::time::sleep(again) => {}
        }
    }
}

/// The nodes that the configuration names.
fn seeds(deployment: &Deployment) -> Vec<Place> {
    let Deployment::Cluster(nodes) = deployment else {
        return Vec::new();
    };
    let places = nodes.iter().filter_map(|node| match node {
        ServerAddress::Tcp { host, port } => Some(Place {
            host: host.clone(),
            port: *port,
        }),
        ServerAddress::Unix(_) => None,
    });
    places.collect()
}

/// `None`: it does not answer, or does not know.
async fn ask(place: Place, mut connection: Connection, deadline: Instant) -> Option<Said> {
    let mut commands = redis::pipe();
    commands.cmd("CLUSTER").arg("INFO").cmd("CLUSTER").arg("SLOTS");
    let answers = tokio::time::timeout_at(deadline, connection.send_all(&commands)).await;
    let [info, slots] = <[Value; 2]>::try_from(answers.ok()?.ok()?).ok()?;
    if !serves(&info) {
        return None;
    }
    let ranges = parse(&slots, &place);
    let said = Said {
        epoch: figure(&info, "cluster_current_epoch")?.parse().ok()?,
        ranges,
    };
    (!said.ranges.is_empty()).then_some(said)
}

/// Whether the answer to `CLUSTER INFO` says that the node serves: it gives that answer even when it refuses everything else.
pub(super) fn serves(info: &Value) -> bool {
    figure(info, "cluster_state") == Some("ok")
}

/// One line of it.
fn figure<'a>(info: &'a Value, name: &str) -> Option<&'a str> {
    let text = match info {
        Value::BulkString(text) => std::str::from_utf8(text).ok()?,
        Value::VerbatimString { text, .. } => text,
        _ => return None,
    };
    let figures = text.lines().filter_map(|line| line.split_once(':'));
    figures
        .into_iter()
        .find(|(known, _)| *known == name)
        .map(|(_, figure)| figure)
}

impl RedisError {
    /// The node that a command is to be sent to instead, and whether only this once.
    pub(super) fn redirection(&self, asked: &Server) -> Option<(Place, Sent)> {
        let Self::Failed(error) = self else { return None };
        let (address, _) = error.redirect_node()?;
        let place = Place::told(address, asked.place()?)?;
        let sent = match error.kind() {
            redis::ErrorKind::Server(redis::ServerErrorKind::Ask) => Sent::Asking,
            _ => Sent::Plainly,
        };
        Some((place, sent))
    }
}

/// How a command is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    Plainly,
    /// To a node that does not have the slot yet.
    Asking,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_says_of_the_cluster_is_read() {
        let info = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let fine = info("cluster_state:ok\r\ncluster_current_epoch:7\r\ncluster_my_epoch:3\r\n");
        assert!(serves(&fine));
        assert_eq!(figure(&fine, "cluster_current_epoch"), Some("7"));
        assert!(!serves(&info("cluster_state:fail\r\n")) && !serves(&Value::Nil));
    }

    #[test]
    fn commands_are_sent_on_as_they_are_told() {
        let asked = Server::node(Place {
            host: "a".to_owned(),
            port: 1,
        });
        let error = |text: &str| {
            let value = redis::parse_redis_value(text.as_bytes()).unwrap();
            RedisError::from(value.extract_error().unwrap_err())
        };
        let sent = |text: &str| {
            let (place, sent) = error(text).redirection(&asked)?;
            Some((place.to_string(), sent))
        };
        assert_eq!(sent("-MOVED 3999 b:2\r\n"), Some(("b:2".to_owned(), Sent::Plainly)));
        assert_eq!(sent("-ASK 3999 :2\r\n"), Some(("a:2".to_owned(), Sent::Asking)));
        assert_eq!(sent("-MOVED 3999\r\n"), None);
        assert_eq!(sent("-TRYAGAIN later\r\n"), None);
        assert_eq!(RedisError::Timeout.redirection(&asked), None);
    }
}
