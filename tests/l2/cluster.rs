//! Redis Cluster: what one node does is nothing to the keys of the others.

use std::time::Duration;

use forebay::cache::coherence::Recorded;
use forebay::cache::purge::What;
use tokio::time::Instant;

use crate::support::inside::Inside;
use crate::support::origin::{Origin, Reply};
use crate::support::redis::Cluster;
use crate::support::{within, within_time};

/// The log of purges.
const LOG: &str = "forebay:{coherence}:log";

/// When a node is back, or another has taken its place, it is used after two seconds, and what loaded machines take.
const BACK: Duration = Duration::from_millis(2500);

/// Responses that are stored.
const TARGETS: usize = 60;

/// So long that a loaded machine answers in time.
const LONG: Duration = Duration::from_secs(2);

/// The others serve on while a node is gone.
const PARTLY: [&str; 2] = ["--cluster-require-full-coverage", "no"];

async fn origin() -> Origin {
    Origin::builder()
        .answering(|request| Reply::fresh(60, request.target.clone()).field("Cache-Tag", "all"))
        .start()
        .await
}

async fn instance(origin: &Origin, cluster: &Cluster) -> Inside {
    let (url, deadline) = (cluster.url(), LONG.as_secs());
    let sections = format!("cache: {{ redis: {{ url: \"{url}\", deadline: {deadline}s, write: through }} }}");
    let proxy = Inside::before(origin, &sections).await;
    proxy.follows(true).await;
    proxy
}

/// How many of these targets come from the origin.
async fn fetches(proxy: &Inside, numbers: std::ops::Range<usize>) -> usize {
    let mut fetched = 0;
    for number in numbers {
        let target = format!("/{number}");
        let response = proxy.get(&target).await;
        assert!(response.status == 200 && response.text() == target, "{target}");
        fetched += usize::from(response.cache_status().starts_with("fwd="));
    }
    fetched
}

/// What goes wrong with Redis, for the message of a test that fails.
async fn redis_figures(proxy: &Inside) -> String {
    let metrics = proxy.metrics().await;
    let of_redis = metrics.lines().filter(|line| {
        let names = ["forebay_redis_errors", "forebay_redis_up", "forebay_redis_silent"];
        names.iter().any(|name| line.starts_with(name)) && !line.ends_with(" 0")
    });
    of_redis.collect::<Vec<_>>().join("\n")
}

async fn a_node_takes_its_own_keys_alone(hangs: bool) {
    let origin = origin().await;
    let mut cluster = Cluster::start_with(&PARTLY).await;
    let writer = instance(&origin, &cluster).await;
    fetches(&writer, 0..TARGETS).await;
    let reader = instance(&origin, &cluster).await;
    // Not the one that knows of purges.
    let lost = if cluster.node_of(LOG).await == 2 { 1 } else { 2 };
    let its_own = cluster.nodes[lost].command(&["KEYS", "*r:{*"]).await.lines().count();
    assert!(its_own > 0 && its_own < TARGETS, "{its_own}");
    match hangs {
        true => cluster.nodes[lost].pause(),
        false => cluster.nodes[lost].kill().await,
    }
    let since = Instant::now();
    let fetched = fetches(&reader, 0..TARGETS).await;
    // Before the node is known not to answer one may have waited for it, to be read and to be written.
    assert!(since.elapsed() < 3 * LONG, "{:?}", since.elapsed());
    assert_eq!(fetched, its_own, "{}", redis_figures(&reader).await);
    reader.metric_becomes("forebay_redis_silent_nodes", &[], 1.0).await;
    assert_eq!(reader.metric("forebay_redis_up", &[]).await, 1.0);
    assert_eq!(reader.metric("forebay_coherence_followed", &[]).await, 1.0);
    if hangs {
        cluster.nodes[lost].resume();
        let again = reader.metric_becomes("forebay_redis_silent_nodes", &[], 0.0);
        within_time(BACK, "the node to be used again", again).await;
        let third = instance(&origin, &cluster).await;
        assert_eq!(fetches(&third, 0..TARGETS).await, 0, "{}", redis_figures(&third).await);
    }
}

#[tokio::test]
async fn a_node_that_hangs_takes_away_nobody_elses_keys() {
    a_node_takes_its_own_keys_alone(true).await;
}

#[tokio::test]
async fn a_node_that_is_gone_takes_away_nobody_elses_keys() {
    a_node_takes_its_own_keys_alone(false).await;
}

#[tokio::test]
async fn a_replica_in_its_masters_place_is_found() {
    let origin = origin().await;
    let quick = [PARTLY[0], PARTLY[1], "--cluster-node-timeout", "500"];
    let mut cluster = Cluster::start_with(&quick).await;
    let told = cluster.node_of(LOG).await;
    let replica = cluster.replica_of(told, &quick).await;
    let both = [instance(&origin, &cluster).await, instance(&origin, &cluster).await];
    fetches(&both[0], 0..TARGETS).await;
    let master = &cluster.nodes[told];
    assert_eq!(master.command(&["WAIT", "1", "5000"]).await, "1");
    cluster.nodes[told].kill().await;
    within("the promotion", async {
        while !replica.command(&["ROLE"]).await.starts_with("master") {}
        while !replica.command(&["CLUSTER", "INFO"]).await.contains("cluster_state:ok") {}
    })
    .await;
    within_time(BACK, "the replica to be used", async {
        for proxy in &both {
            proxy.follows(true).await;
            proxy.metric_becomes("forebay_redis_silent_nodes", &[], 0.0).await;
        }
    })
    .await;
    // Nothing is lost: what the master had, the replica has.
    assert_eq!(
        fetches(&both[1], 0..TARGETS).await,
        0,
        "{}",
        redis_figures(&both[1]).await
    );
    assert_eq!(both[0].purge_for_all(What::tags(["all"])).await, Recorded::InLog);
    within("the purge elsewhere", async {
        while both[1].get("/0").await.cache_status().starts_with("hit") {}
    })
    .await;
}

#[tokio::test]
async fn the_log_of_purges_is_followed_to_where_its_slot_goes() {
    let origin = origin().await;
    let cluster = Cluster::start_with(&PARTLY).await;
    let both = [instance(&origin, &cluster).await, instance(&origin, &cluster).await];
    let first = cluster.node_of(LOG).await;
    fetches(&both[1], 0..TARGETS).await;
    let is_followed = async || {
        for proxy in &both {
            proxy.follows(true).await;
        }
    };
    let mut from = first;
    for to in [(first + 1) % 3, (first + 2) % 3] {
        cluster.give(LOG, from, to).await;
        within_time(BACK, "the log to be found", async {
            // Sent on, or kept until the log is found again.
            both[0].purge_for_all(What::tags(["nothing"])).await;
            is_followed().await;
        })
        .await;
        // It is the same log: nothing counts as purged.
        assert!(both[1].get("/0").await.cache_status().starts_with("hit"));
        from = to;
    }
    assert_eq!(both[0].purge_for_all(What::tags(["all"])).await, Recorded::InLog);
    within("the purge elsewhere", async {
        while both[1].get("/0").await.cache_status().starts_with("hit") {}
    })
    .await;
}
