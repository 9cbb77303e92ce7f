//! A real Redis of the test's own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::within;

/// A running `redis-server`. It is killed at the end of the test.
pub struct Redis {
    directory: TempDir,
    /// Bound but not listening, so that nobody else gets the port while the server is down.
    reserved: socket2::Socket,
    /// Further ones, each as `--name value`.
    arguments: Vec<String>,
    child: Child,
}

impl Redis {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With further command line arguments.
    pub async fn start_with(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let reserved = reserve_port();
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let child = spawn(&directory, port_of(&reserved), &arguments).await;
        Self {
            directory,
            reserved,
            arguments,
            child,
        }
    }

    pub fn port(&self) -> u16 {
        port_of(&self.reserved)
    }

    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port()).into()
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port())
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("redis.sock")
    }

    /// Waits until it follows its master.
    pub async fn until_replicated(&self) {
        within("the replica", async {
            while !self
                .command(&["INFO", "replication"])
                .await
                .contains("master_link_status:up")
            {}
        })
        .await;
    }

    /// Runs one command and answers what `redis-cli` prints.
    pub async fn command(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        command.arg("-s").arg(self.socket()).args(arguments).kill_on_drop(true);
        let output = within("an answer of Redis", command.output()).await.unwrap();
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Runs a command that is not over soon. It ends at the latest when this is dropped.
    pub fn command_behind(&self, arguments: &[&str]) -> Child {
        let mut command = Command::new("redis-cli");
        command.arg("-s").arg(self.socket()).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.kill_on_drop(true).spawn().unwrap()
    }

    /// Starts it anew, and has it read what it has saved: so many microseconds for each key.
    pub async fn restart_loading(&mut self, micros: u32) {
        let mut arguments = self.arguments.clone();
        arguments.extend(["--key-load-delay".to_owned(), micros.to_string()]);
        arguments.extend(["--loading-process-events-interval-bytes".to_owned(), "1024".to_owned()]);
        self.child = launch(&self.directory, self.port(), &arguments);
        // Nobody reads what it says; a full pipe would stop it.
        let mut lines = BufReader::new(self.child.stdout.take().unwrap()).lines();
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    }

    /// Stops it in its tracks: connections stay open and nothing is answered.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    pub async fn kill(&mut self) {
        self.child.start_kill().unwrap();
        within("the end of Redis", self.child.wait()).await.unwrap();
    }

    /// Starts it anew on the same port, empty, after [`Redis::kill`].
    pub async fn restart(&mut self) {
        self.child = spawn(&self.directory, self.port(), &self.arguments).await;
    }

    fn signal(&self, signal: Signal) {
        let id = self.child.id().expect("Redis has ended");
        kill(Pid::from_raw(i32::try_from(id).unwrap()), signal).unwrap();
    }
}

/// Both this socket and the server's allow reuse of the address, and this one never listens: the port is the server's alone.
pub fn reserve_port() -> socket2::Socket {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    let any_port: SocketAddr = ([127, 0, 0, 1], 0).into();
    socket.bind(&any_port.into()).unwrap();
    socket
}

pub fn port_of(socket: &socket2::Socket) -> u16 {
    socket.local_addr().unwrap().as_socket().unwrap().port()
}

fn launch(directory: &TempDir, port: u16, arguments: &[String]) -> Child {
    let port = port.to_string();
    Command::new("redis-server")
        .args([
            "--bind",
            "127.0.0.1",
            "--port",
            port.as_str(),
            "--unixsocket",
            "redis.sock",
        ])
        .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
        .args(arguments)
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("redis-server is needed")
}

async fn spawn(directory: &TempDir, port: u16, arguments: &[String]) -> Child {
    let mut child = launch(directory, port, arguments);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut seen = Vec::new();
    loop {
        let line = within("Redis to be ready", lines.next_line()).await.unwrap();
        match line {
            Some(line) if line.contains("Ready to accept connections") => break,
            Some(line) => seen.push(line),
            None => panic!("Redis ended:\n{}", seen.join("\n")),
        }
    }
    // A full pipe would stop the server.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    child
}

/// A master, its replica, and a sentinel that watches both.
pub struct Sentinel {
    pub master: Redis,
    replica: Redis,
    sentinel: Child,
    port: socket2::Socket,
    _directory: TempDir,
}

impl Sentinel {
    pub async fn start() -> Self {
        let master = Redis::start().await;
        let port = master.port().to_string();
        let replica = Redis::start_with(&["--replicaof", &format!("127.0.0.1 {port}")]).await;
        replica.until_replicated().await;
        let directory = tempfile::tempdir().unwrap();
        let reserved = reserve_port();
        let file = directory.path().join("sentinel.conf");
        let text = format!(
            "port {}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {port} 1\n\
             sentinel down-after-milliseconds main 300\nsentinel failover-timeout main 2000\n",
            port_of(&reserved)
        );
        std::fs::write(&file, text).unwrap();
        let sentinel = Command::new("redis-server")
            .arg(&file)
            .arg("--sentinel")
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let group = Self {
            master,
            replica,
            sentinel,
            port: reserved,
            _directory: directory,
        };
        within("the sentinel to know the replica", async {
            while !group
                .ask(&["SENTINEL", "replicas", "main"])
                .await
                .contains("master-link-status\nok")
            {}
        })
        .await;
        group
    }

    pub fn url(&self) -> String {
        // One that is not there comes first.
        format!("redis+sentinel://127.0.0.1:1,127.0.0.1:{}/main", port_of(&self.port))
    }

    /// Waits until the replica is the master.
    pub async fn promoted(&mut self) {
        assert!(self.sentinel.try_wait().unwrap().is_none(), "the sentinel has ended");
        within("the promotion", async {
            while !self.replica.command(&["ROLE"]).await.starts_with("master") {}
        })
        .await;
    }

    async fn ask(&self, arguments: &[&str]) -> String {
        let port = port_of(&self.port).to_string();
        let mut command = Command::new("redis-cli");
        command.args(["-p", &port]).args(arguments).kill_on_drop(true);
        let output = within("an answer of the sentinel", command.output()).await.unwrap();
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }
}

async fn start_node(more: &[&str]) -> Redis {
    // The port of the bus would be the other one and 10,000.
    let bus = reserve_port();
    let bus = port_of(&bus).to_string();
    let mut arguments = vec!["--cluster-enabled", "yes", "--cluster-port", &bus];
    arguments.extend(more);
    Redis::start_with(&arguments).await
}

/// Three nodes of Redis Cluster.
pub struct Cluster {
    pub nodes: Vec<Redis>,
}

/// Slots of a cluster.
const SLOTS: usize = 16_384;

impl Cluster {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With further command line arguments for each node.
    pub async fn start_with(more: &[&str]) -> Self {
        Self::start_each([more; 3]).await
    }

    /// With each node's own.
    pub async fn start_each(more: [&[&str]; 3]) -> Self {
        let mut nodes = Vec::new();
        for more in more {
            nodes.push(start_node(more).await);
        }
        let cluster = Self { nodes };
        for index in 0..3 {
            let (from, to) = (SLOTS * index / 3, SLOTS * (index + 1) / 3 - 1);
            let (from, to) = (from.to_string(), to.to_string());
            cluster.nodes[index]
                .command(&["CLUSTER", "ADDSLOTSRANGE", &from, &to])
                .await;
            let epoch = (index + 1).to_string();
            cluster.nodes[index]
                .command(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch])
                .await;
        }
        for other in &cluster.nodes[1..] {
            cluster.meet(other).await;
        }
        within("the cluster", async {
            for node in &cluster.nodes {
                loop {
                    let info = node.command(&["CLUSTER", "INFO"]).await;
                    let knows_all = info.contains("cluster_known_nodes:3") && info.contains("cluster_size:3");
                    if info.contains("cluster_state:ok") && knows_all {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
            }
        })
        .await;
        cluster
    }

    async fn meet(&self, other: &Redis) {
        let bus = other.command(&["CONFIG", "GET", "cluster-port"]).await;
        let (port, bus) = (other.port().to_string(), bus.lines().nth(1).unwrap().to_owned());
        self.nodes[0]
            .command(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus])
            .await;
    }

    /// A further node that takes the place of this one when it is gone.
    pub async fn replica_of(&self, index: usize, more: &[&str]) -> Redis {
        let replica = start_node(more).await;
        self.meet(&replica).await;
        let id = self.ids().await.swap_remove(index);
        within("a replica", async {
            while replica.command(&["CLUSTER", "REPLICATE", &id]).await != "OK" {}
        })
        .await;
        replica.until_replicated().await;
        within("all to know the replica", async {
            for node in &self.nodes {
                while !node.command(&["CLUSTER", "SLAVES", &id]).await.contains("connected") {}
            }
        })
        .await;
        replica
    }

    /// Gives the slot of this key, with all that is in it, to another node.
    pub async fn give(&self, key: &str, from: usize, to: usize) {
        let ids = self.ids().await;
        let slot = self.nodes[from].command(&["CLUSTER", "KEYSLOT", key]).await;
        let (giver, taker) = (&self.nodes[from], &self.nodes[to]);
        taker
            .command(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &ids[from]])
            .await;
        giver
            .command(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &ids[to]])
            .await;
        let keys = giver.command(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]).await;
        let port = taker.port().to_string();
        let mut migrate = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
        migrate.extend(keys.lines());
        assert_eq!(giver.command(&migrate).await, "OK");
        for node in [taker, giver].into_iter().chain(&self.nodes) {
            node.command(&["CLUSTER", "SETSLOT", &slot, "NODE", &ids[to]]).await;
        }
    }

    pub fn url(&self) -> String {
        format!("redis+cluster://{}", self.nodes[0].address())
    }

    /// The index of the node that has this key.
    pub async fn node_of(&self, key: &str) -> usize {
        let slot: usize = self.nodes[0]
            .command(&["CLUSTER", "KEYSLOT", key])
            .await
            .parse()
            .unwrap();
        (0..3).rfind(|index| slot >= SLOTS * index / 3).unwrap()
    }

    /// Begins to give the slots of so many keys of the first node to the second: who asks for these keys is sent there for once.
    pub async fn begin_to_move(&self, count: usize) -> Vec<String> {
        let ids = self.ids().await;
        let [first, second, _] = &*self.nodes else {
            panic!("three nodes")
        };
        let names = first.command(&["KEYS", "*"]).await;
        let mut slots = Vec::new();
        for name in names.lines().take(count) {
            let slot = first.command(&["CLUSTER", "KEYSLOT", name]).await;
            second
                .command(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &ids[0]])
                .await;
            first
                .command(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &ids[1]])
                .await;
            first.command(&["DEL", name]).await;
            slots.push(slot);
        }
        assert_eq!(slots.len(), count);
        slots
    }

    /// Ends it: who asks is told where they are now.
    pub async fn end_move(&self, slots: &[String]) {
        let ids = self.ids().await;
        for slot in slots {
            for node in [&self.nodes[1], &self.nodes[0], &self.nodes[2]] {
                node.command(&["CLUSTER", "SETSLOT", slot, "NODE", &ids[1]]).await;
            }
        }
    }

    async fn ids(&self) -> Vec<String> {
        let mut ids = Vec::new();
        for node in &self.nodes {
            ids.push(node.command(&["CLUSTER", "MYID"]).await);
        }
        ids
    }
}
