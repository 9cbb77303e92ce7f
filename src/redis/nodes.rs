//! Which nodes of a cluster answer.
//!
//! A node that dies or hangs takes its slots with it while the others serve on. So each master is looked at on a connection of its own,
//! which tells its time and whose the slots are as well: what is meant for one that does not answer is not sent. The crate's client
//! is told nothing of it: it reconnects by itself, but would let everybody wait meanwhile.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use arc_swap::ArcSwap;
use redis::{Arg, Cmd, ErrorKind, ServerErrorKind, Value};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::connect::{self, Connection};
use super::error::RedisError;
use super::link::millis;
use crate::config::{self, Deployment, ServerAddress};
use crate::metrics::RedisMetrics;

/// Slots of a cluster.
const SLOTS: u16 = 16_384;

/// Commands to one node that may fail between two looks; then it is left alone until the next.
const FAILURES: u32 = 3;

/// Where a node is: its host and port.
type Place = (String, u16);

/// The masters of a cluster.
pub(super) struct Nodes {
    map: ArcSwap<Map>,
    /// Whether any node is left alone.
    any_silent: AtomicBool,
    metrics: Arc<RedisMetrics>,
    /// Connections to look at them.
    probes: Mutex<HashMap<Place, Probe>>,
}

/// Whose the slots are.
#[derive(Debug, Default)]
struct Map {
    /// From and to which slot, in order.
    ranges: Vec<(u16, u16, Arc<Node>)>,
}

#[derive(Debug)]
struct Node {
    place: Place,
    silent: AtomicBool,
    /// Since the last look.
    failures: AtomicU32,
}

/// A connection to one node.
struct Probe {
    connection: Connection,
    /// Dropped with it, which closes the connection.
    _driver: JoinSet<()>,
}

/// What a node says.
struct Said {
    /// Its time in milliseconds since 1970.
    millis: u64,
    slots: Value,
}

impl Nodes {
    pub(super) fn new(metrics: Arc<RedisMetrics>) -> Self {
        Self {
            metrics,
            map: ArcSwap::default(),
            any_silent: AtomicBool::new(false),
            probes: Mutex::default(),
        }
    }

    /// Whether a command should be sent: not to a node that does not answer.
    pub(super) fn admit(&self, command: &Cmd) -> bool {
        if !self.any_silent.load(Ordering::Relaxed) {
            return true;
        }
        match self.map.load().of(command) {
            Some(node) => !node.silent.load(Ordering::Relaxed),
            None => true,
        }
    }

    /// Whether any node is left alone, so that it has to be looked at again soon.
    pub(super) fn any_silent(&self) -> bool {
        self.any_silent.load(Ordering::Relaxed)
    }

    /// A command was not answered.
    pub(super) fn failed(&self, command: &Cmd) {
        let map = self.map.load();
        let Some(node) = map.of(command) else { return };
        if node.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1) >= FAILURES {
            silence(node);
            self.count(&map);
        }
    }

    /// Says how many are left alone.
    fn count(&self, map: &Map) {
        let silent = map.ranges.iter().map(|(_, _, node)| node);
        let silent: HashSet<&Place> = silent
            .filter(|node| node.silent.load(Ordering::Relaxed))
            .map(|node| &node.place)
            .collect();
        self.any_silent.store(!silent.is_empty(), Ordering::Relaxed);
        self.metrics.set_silent_nodes(silent.len() as u64);
    }

    /// Looks at all masters. Answers the time of the one that is furthest behind.
    ///
    /// # Errors
    /// When none of them serves.
    pub(super) async fn look(&self, config: &config::Redis, deadline: Instant) -> Result<u64, RedisError> {
        let map = self.map.load_full();
        let mut places: Vec<Place> = Vec::new();
        for (_, _, node) in &map.ranges {
            if !places.contains(&node.place) {
                places.push(node.place.clone());
            }
        }
        if places.is_empty() {
            places = seeds(config);
        }
        let mut probes = self.probes.lock().await;
        let asked = places.iter().map(|place| {
            let probe = probes.remove(place);
            ask(config, place, probe, deadline)
        });
        let said = futures_util::future::join_all(asked).await;
        let (mut alive, mut slots, mut error) = (HashMap::new(), None, RedisError::Unavailable);
        for (place, result) in places.into_iter().zip(said) {
            match result {
                Ok((probe, said)) => {
                    slots = slots.or(Some((said.slots, place.0.clone())));
                    probes.insert(place.clone(), probe);
                    alive.insert(place, said.millis);
                }
                Err(failed) => error = failed,
            }
        }
        let Some((slots, host)) = slots else { return Err(error) };
        self.learn(&slots, &host, &alive);
        alive.into_values().min().ok_or(error)
    }

    /// Takes over whose the slots are, and which masters answer.
    fn learn(&self, slots: &Value, host: &str, alive: &HashMap<Place, u64>) {
        let before = self.map.load_full();
        let mut nodes: HashMap<Place, Arc<Node>> = HashMap::new();
        for (_, _, node) in &before.ranges {
            nodes.insert(node.place.clone(), node.clone());
        }
        let mut ranges = Vec::new();
        for (from, to, place) in parse(slots, host) {
            let node = match nodes.get(&place) {
                // It has been looked at.
                Some(node) => node.clone(),
                None => {
                    let node = Arc::new(Node {
                        place: place.clone(),
                        silent: AtomicBool::new(false),
                        failures: AtomicU32::new(0),
                    });
                    nodes.insert(place.clone(), node.clone());
                    ranges.push((from, to, node));
                    continue;
                }
            };
            if alive.contains_key(&place) {
                node.failures.store(0, Ordering::Relaxed);
                if node.silent.swap(false, Ordering::Relaxed) {
                    let (host, port) = &place;
                    tracing::info!(
                        node = format_args!("{host}:{port}"),
                        "a node of the cluster answers again"
                    );
                }
            } else if before.ranges.iter().any(|(_, _, known)| known.place == place) {
                silence(&node);
            }
            ranges.push((from, to, node));
        }
        ranges.sort_by_key(|(from, ..)| *from);
        let map = Arc::new(Map { ranges });
        self.count(&map);
        self.map.store(map);
    }
}

fn silence(node: &Node) {
    if !node.silent.swap(true, Ordering::Relaxed) {
        let (host, port) = &node.place;
        tracing::warn!(
            node = format_args!("{host}:{port}"),
            "a node of the cluster does not answer: its keys are left alone"
        );
    }
}

impl Map {
    /// The node that a command goes to. `None`: it has no key, or nobody has its slot.
    fn of(&self, command: &Cmd) -> Option<&Node> {
        let slot = slot(key(command)?);
        let behind = self.ranges.partition_point(|(from, ..)| *from <= slot);
        let (_, to, node) = self.ranges.get(behind.checked_sub(1)?)?;
        (slot <= *to).then_some(&**node)
    }
}

/// Asks one node, on the connection that there is or on a new one.
async fn ask(
    config: &config::Redis,
    (host, port): &Place,
    probe: Option<Probe>,
    deadline: Instant,
) -> Result<(Probe, Said), RedisError> {
    let asking = async {
        let mut probe = match probe {
            Some(probe) => probe,
            None => {
                let (connection, driver) = connect::node(config, host, *port).await?;
                let mut tasks = JoinSet::new();
                if let Some(driver) = driver {
                    tasks.spawn(driver);
                }
                Probe {
                    connection,
                    _driver: tasks,
                }
            }
        };
        let mut commands = redis::pipe();
        // TIME is answered while data is loaded, PING is not.
        commands.cmd("PING").cmd("TIME").cmd("CLUSTER").arg("SLOTS");
        commands.cmd("CLUSTER").arg("INFO");
        let answers = probe.connection.send_all(&commands).await?;
        // It answers this even when it refuses everything else.
        if !answers.get(3).is_some_and(is_ok) {
            let down =
                redis::RedisError::from((ErrorKind::Server(ServerErrorKind::ClusterDown), "the cluster is down"));
            return Err(down.into());
        }
        let unread = || redis::RedisError::from((ErrorKind::Parse, "that is no time"));
        let millis = answers.get(1).and_then(millis).ok_or_else(unread)?;
        let slots = answers.into_iter().nth(2).unwrap_or(Value::Nil);
        Ok((probe, Said { millis, slots }))
    };
    match tokio::time::timeout_at(deadline, asking).await {
        Ok(result) => result,
        Err(_) => Err(RedisError::Timeout),
    }
}

/// Whether the answer to `CLUSTER INFO` says that the node serves.
fn is_ok(info: &Value) -> bool {
    let text = match info {
        Value::BulkString(text) => text.as_slice(),
        Value::VerbatimString { text, .. } => text.as_bytes(),
        _ => return false,
    };
    memchr::memmem::find(text, b"cluster_state:ok").is_some()
}

/// The nodes that the configuration names.
fn seeds(config: &config::Redis) -> Vec<Place> {
    let Deployment::Cluster(nodes) = &config.deployment else {
        return Vec::new();
    };
    nodes
        .iter()
        .filter_map(|node| match node {
            ServerAddress::Tcp { host, port } => Some((host.clone(), *port)),
            ServerAddress::Unix(_) => None,
        })
        .collect()
}

/// Ranges of slots and their masters, as `CLUSTER SLOTS` answers. `host` is the one that answered: nodes that do not know their own name
/// leave it out.
fn parse(slots: &Value, host: &str) -> Vec<(u16, u16, Place)> {
    let Value::Array(ranges) = slots else { return Vec::new() };
    let range = |range: &Value| {
        let Value::Array(range) = range else { return None };
        let [Value::Int(from), Value::Int(to), Value::Array(master), ..] = range.as_slice() else {
            return None;
        };
        let [name, Value::Int(port), ..] = master.as_slice() else {
            return None;
        };
        let name = match name {
            Value::BulkString(name) => std::str::from_utf8(name).ok()?,
            _ => "",
        };
        let name = match name {
            "" | "0.0.0.0" | "::" => host,
            "?" => return None,
            name => name,
        };
        let (from, to) = (u16::try_from(*from).ok()?, u16::try_from(*to).ok()?);
        let place = (name.to_owned(), u16::try_from(*port).ok()?);
        (from <= to && to < SLOTS).then_some((from, to, place))
    };
    ranges.iter().filter_map(range).collect()
}

/// The first key of a command.
fn key(command: &Cmd) -> Option<&[u8]> {
    let mut arguments = command.args_iter().filter_map(|argument| match argument {
        Arg::Simple(bytes) => Some(bytes),
        _ => None,
    });
    match arguments.next()? {
        // Name, script, number of keys.
        b"EVAL" | b"EVALSHA" => arguments.nth(2),
        _ => arguments.next(),
    }
}

/// The slot of a key: CRC-16/XMODEM of what stands in its first braces, or of all of it (Redis Cluster specification).
fn slot(key: &[u8]) -> u16 {
    let inner = key.iter().position(|b| *b == b'{').and_then(|open| {
        let rest = key.get(open + 1..)?;
        let length = rest.iter().position(|b| *b == b'}')?;
        rest.get(..length).filter(|inner| !inner.is_empty())
    });
    let crc = inner.unwrap_or(key).iter().fold(0_u16, |mut crc, byte| {
        crc ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            let carry = crc & 0x8000 != 0;
            crc <<= 1;
            if carry {
                crc ^= 0x1021;
            }
        }
        crc
    });
    crc % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // From CLUSTER KEYSLOT.
        for (key, expected) in [
            ("123456789", 0x31c3),
            ("foo", 12182),
            ("{foo}bar", 12182),
            ("x{foo}{bar}", 12182),
            ("{}foo", 9500),
        ] {
            assert_eq!(slot(key.as_bytes()), expected, "{key}");
        }
    }

    fn range(from: i64, to: i64, host: &str, port: i64) -> Value {
        let master = Value::Array(vec![Value::BulkString(host.into()), Value::Int(port)]);
        Value::Array(vec![Value::Int(from), Value::Int(to), master])
    }

    #[test]
    fn only_what_is_meant_for_a_silent_node_is_not_sent() {
        let nodes = Nodes::new(Arc::default());
        let (get, script) = (
            redis::cmd("GET").arg("foo").clone(),
            redis::cmd("EVALSHA").arg("d").arg(1).arg("{bar}x").arg("foo").clone(),
        );
        // Slots 12182 and 5061.
        let slots = Value::Array(vec![range(8000, 16383, "", 2), range(0, 7999, "b", 1)]);
        let (a, b) = (("a".to_owned(), 2), ("b".to_owned(), 1));
        let both = HashMap::from([(a.clone(), 5), (b.clone(), 4)]);
        for _ in 0..2 {
            nodes.learn(&slots, "a", &both);
            assert!(nodes.admit(&get) && nodes.admit(&script) && !nodes.any_silent());
        }
        for _ in 0..FAILURES {
            assert!(nodes.admit(&get));
            nodes.failed(&get);
        }
        assert!(!nodes.admit(&get) && nodes.admit(&script) && nodes.any_silent());
        assert!(nodes.admit(&redis::cmd("PING")));
        nodes.learn(&slots, "a", &both);
        assert!(nodes.admit(&get) && !nodes.any_silent());
        nodes.learn(&slots, "a", &HashMap::from([(a, 5)]));
        assert!(nodes.admit(&get) && !nodes.admit(&script) && nodes.any_silent());
        // Its slots are another one's.
        nodes.learn(&Value::Array(vec![range(0, 16383, "a", 2)]), "a", &both);
        assert!(nodes.admit(&get) && nodes.admit(&script) && !nodes.any_silent());
    }

    #[test]
    fn whatever_a_node_says_is_read_without_harm() {
        for value in [
            Value::Nil,
            Value::Array(vec![Value::Nil, range(0, 16384, "a", 1), range(5, 4, "a", 1)]),
            Value::Array(vec![range(0, 1, "?", 1), range(0, 1, "a", -1), range(-1, 1, "a", 1)]),
            Value::Array(vec![Value::Array(vec![
                Value::Int(0),
                Value::Int(1),
                Value::Array(vec![]),
            ])]),
        ] {
            assert!(parse(&value, "a").is_empty(), "{value:?}");
        }
    }
}
