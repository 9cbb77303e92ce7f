//! Whatever happens to Redis, clients see nothing of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::support::fault::{Fault, FaultProxy};
use crate::support::inside::Inside;
use crate::support::origin::{Origin, Reply};
use crate::support::redis::{Cluster, Redis, Sentinel};
use crate::support::{PATIENCE, within, within_time};

/// What Redis may cost a request.
const DEADLINE: Duration = Duration::from_millis(100);

/// What a request may take beside it here, where many share few processors.
const SLACK: Duration = Duration::from_millis(900);

/// When Redis is back, it is used again.
const BACK: Duration = Duration::from_secs(2);

/// Keys that are asked for.
const KEYS: usize = 200;

/// Clients at the same time.
const CLIENTS: usize = 8;

/// What belongs to a target, and to no other.
fn body(target: &str) -> Vec<u8> {
    let number: usize = target.bytes().map(usize::from).sum();
    let mut body = format!("{target} ").repeat(1 + number % 50).into_bytes();
    body.extend(xxhash_rust::xxh3::xxh3_128(target.as_bytes()).to_le_bytes());
    body
}

async fn origin() -> Origin {
    Origin::builder()
        .answering(|request| Reply::fresh(60, body(&request.target)))
        .start()
        .await
}

async fn proxy(origin: &Origin, url: &str) -> Inside {
    let deadline = DEADLINE.as_millis();
    // Most requests do not find theirs in memory.
    let sections =
        format!("cache: {{ memory: {{ size: 64KiB }}, redis: {{ url: \"{url}\", deadline: {deadline}ms }} }}");
    let proxy = Inside::before(origin, &sections).await;
    up(&proxy).await;
    proxy
}

async fn up(proxy: &Inside) {
    proxy.metric_becomes("forebay_redis_up", &[], 1.0).await;
}

/// Clients that ask all the time and check what they get.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    tasks: JoinSet<Duration>,
}

impl Load {
    async fn on(proxy: &Inside) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = JoinSet::new();
        for number in 0..CLIENTS {
            let mut client = proxy.client().await;
            let (stop, answered) = (stop.clone(), answered.clone());
            tasks.spawn(async move {
                let mut longest = Duration::ZERO;
                let mut step = number;
                while !stop.load(Ordering::Relaxed) {
                    step = (step * 31 + 7) % 1_000_003;
                    let target = format!("/{}", step % KEYS);
                    let since = Instant::now();
                    let response = client.get(&target).await;
                    longest = longest.max(since.elapsed());
                    assert_eq!(response.status, 200, "{target}");
                    assert!(response.body == body(&target), "{target}: another body");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                longest
            });
        }
        let load = Self { stop, answered, tasks };
        load.more(CLIENTS * 20).await;
        load
    }

    /// Waits for so many more answers.
    async fn more(&self, count: usize) {
        let wanted = self.answered.load(Ordering::Relaxed) + count;
        within("answers", async {
            while self.answered.load(Ordering::Relaxed) < wanted {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }

    /// Nobody has got anything wrong, or waited for long.
    async fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(longest) = within("the end of the load", self.tasks.join_next()).await {
            let longest = longest.unwrap();
            assert!(longest < DEADLINE + SLACK, "{longest:?}");
        }
    }
}

async fn errors(proxy: &Inside, kind: &str) -> f64 {
    proxy.metric("forebay_redis_errors_total", &[("kind", kind)]).await
}

/// Waits until an error of this kind has been seen.
async fn seen(proxy: &Inside, kind: &str) {
    within(&format!("an error of kind {kind}"), async {
        while errors(proxy, kind).await == 0.0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Redis is used again, and soon.
async fn back(proxy: &Inside) {
    hits_within(BACK + Duration::from_millis(500), proxy).await;
}

async fn hits_within(limit: Duration, proxy: &Inside) {
    within_time(limit, "Redis to be used again", async {
        let before = proxy.cache_results("hit_l2").await;
        while proxy.cache_results("hit_l2").await <= before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

async fn down(proxy: &Inside) {
    proxy.metric_becomes("forebay_redis_up", &[], 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_and_killed_under_load() {
    let (origin, mut redis) = (origin().await, Redis::start().await);
    let proxy = proxy(&origin, &redis.url()).await;
    let load = Load::on(&proxy).await;
    redis.pause();
    down(&proxy).await;
    load.more(500).await;
    // While it is away nothing waits: the answer to each of these is the origin's.
    let since = Instant::now();
    load.more(200).await;
    assert!(since.elapsed() < 25 * DEADLINE, "{:?}", since.elapsed());
    redis.resume();
    back(&proxy).await;
    redis.kill().await;
    down(&proxy).await;
    load.more(500).await;
    redis.restart().await;
    back(&proxy).await;
    load.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_of_the_network_under_load() {
    let (origin, redis) = (origin().await, Redis::start().await);
    let network = FaultProxy::before(redis.address()).await;
    let proxy = proxy(&origin, &format!("redis://{}", network.address())).await;
    let load = Load::on(&proxy).await;
    let slow = Fault::Delay(Duration::from_millis(300));
    for fault in [Fault::Hang, Fault::Cut, Fault::HalfClose, Fault::Garbage, slow] {
        network.set(fault);
        down(&proxy).await;
        load.more(200).await;
        network.set(Fault::None);
        up(&proxy).await;
        back(&proxy).await;
    }
    load.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_from_the_start() {
    let origin = origin().await;
    let mut redis = Redis::start().await;
    redis.kill().await;
    let sections = format!("cache: {{ redis: {{ url: \"{}\" }} }}", redis.url());
    let proxy = Inside::before(&origin, &sections).await;
    let load = Load::on(&proxy).await;
    load.more(500).await;
    assert_eq!(proxy.metric("forebay_redis_up", &[]).await, 0.0);
    redis.restart().await;
    within_time(BACK + Duration::from_millis(500), "Redis to be used", up(&proxy)).await;
    load.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_that_redis_answers_under_load() {
    let (origin, redis) = (origin().await, Redis::start().await);
    let proxy = proxy(&origin, &redis.url()).await;
    let load = Load::on(&proxy).await;
    // Full: what is there is still read.
    redis.command(&["CONFIG", "SET", "maxmemory", "1"]).await;
    seen(&proxy, "oom").await;
    back(&proxy).await;
    assert_eq!(proxy.metric("forebay_redis_up", &[]).await, 1.0);
    redis.command(&["CONFIG", "SET", "maxmemory", "0"]).await;
    // A replica: the same.
    let master = Redis::start().await;
    redis.command(&["REPLICAOF", "127.0.0.1", "1"]).await;
    redis
        .command(&["CONFIG", "SET", "replica-serve-stale-data", "yes"])
        .await;
    seen(&proxy, "readonly").await;
    load.more(200).await;
    // One without a master that may not answer.
    redis
        .command(&["CONFIG", "SET", "replica-serve-stale-data", "no"])
        .await;
    seen(&proxy, "cluster").await;
    load.more(200).await;
    redis.command(&["REPLICAOF", "NO", "ONE"]).await;
    back(&proxy).await;
    drop(master);
    // A script that does not end.
    let script = redis.command_behind(&["EVAL", "while true do end", "0"]);
    down(&proxy).await;
    load.more(200).await;
    redis.command(&["SCRIPT", "KILL"]).await;
    up(&proxy).await;
    drop(script);
    // One that is too long for anybody to wait.
    let script = redis.command_behind(&["DEBUG", "SLEEP", "1"]);
    load.more(200).await;
    back(&proxy).await;
    drop(script);
    // A new password, and nobody told us.
    redis.command(&["CONFIG", "SET", "requirepass", "new"]).await;
    redis
        .command(&["--no-auth-warning", "-a", "new", "CLIENT", "KILL", "TYPE", "normal"])
        .await;
    seen(&proxy, "auth").await;
    down(&proxy).await;
    load.more(200).await;
    redis
        .command(&["--no-auth-warning", "-a", "new", "CONFIG", "SET", "requirepass", ""])
        .await;
    back(&proxy).await;
    load.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loading_under_load() {
    let (origin, mut redis) = (origin().await, Redis::start().await);
    let proxy = proxy(&origin, &redis.url()).await;
    let load = Load::on(&proxy).await;
    redis.command(&["DEBUG", "POPULATE", "2000"]).await;
    redis.command(&["SAVE"]).await;
    redis.kill().await;
    // It takes so many microseconds for each key.
    redis.restart_loading(500).await;
    seen(&proxy, "loading").await;
    load.more(100).await;
    back(&proxy).await;
    load.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_of_sentinels_under_load() {
    let origin = origin().await;
    let mut group = Sentinel::start().await;
    let proxy = proxy(&origin, &group.url()).await;
    let load = Load::on(&proxy).await;
    back(&proxy).await;
    group.master.kill().await;
    down(&proxy).await;
    load.more(200).await;
    group.promoted().await;
    back(&proxy).await;
    load.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_that_move_and_nodes_that_go_in_a_cluster_under_load() {
    let origin = origin().await;
    let mut cluster = Cluster::start().await;
    let proxy = proxy(&origin, &cluster.url()).await;
    let load = Load::on(&proxy).await;
    back(&proxy).await;
    // First ASK, then MOVED.
    let slots = cluster.begin_to_move(10).await;
    load.more(300).await;
    cluster.end_move(&slots).await;
    load.more(300).await;
    back(&proxy).await;
    // One node hangs, not the one that knows of purges: soon nobody waits for it any more.
    assert_eq!(cluster.node_of("forebay:{coherence}:log").await, 1);
    cluster.nodes[2].pause();
    load.more(400).await;
    cluster.nodes[2].resume();
    hits_within(PATIENCE, &proxy).await;
    // One node is gone: what the others have is still of use, and the rest is fetched.
    cluster.nodes[2].kill().await;
    load.more(500).await;
    back(&proxy).await;
    load.end().await;
}
