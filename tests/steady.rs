//! Connections whose requests are all answered at once move to a reactor, and come back with the first that is not: no client notices.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use crate::support::client::Client;
use crate::support::inside::Inside;
use crate::support::origin::{Gate, Origin, Reply};
use crate::support::proxy::Proxy;
use crate::support::within;

/// More hits than it takes to make a connection steady again that has come back once.
const MANY_HITS: usize = 200;

const LARGE: usize = 256 * 1024;

async fn origin() -> Origin {
    Origin::builder()
        .on("/hit", Reply::fresh(1000, "stored"))
        .on("/large", Reply::fresh(1000, "x".repeat(LARGE)))
        .on("/pass", Reply::ok("passed").field("Cache-Control", "no-store"))
        .start()
        .await
}

async fn are_steady(inside: &Inside, count: usize) {
    inside
        .metric_becomes("forebay_connections_steady", &[], count as f64)
        .await;
}

async fn hits(client: &mut Client, count: usize) {
    for _ in 0..count {
        assert_eq!(client.get("/hit").await.text(), "stored");
    }
}

/// A connection that a reactor has got.
async fn steady(inside: &Inside) -> Client {
    let mut client = inside.client().await;
    within("a steady connection", async {
        while inside.metric("forebay_connections_steady", &[]).await != 1.0 {
            assert_eq!(client.get("/hit").await.text(), "stored");
        }
    })
    .await;
    client
}

#[tokio::test]
async fn a_request_that_has_to_wait_takes_the_connection_back() {
    let gate = Gate::new();
    let origin = origin().await;
    origin.on(
        "/held",
        Reply::ok("held").field("Cache-Control", "no-store").hold(&gate),
    );
    let inside = Inside::before(&origin, "").await;
    let mut client = steady(&inside).await;
    client.send_request("GET", "/held", &[], b"").await;
    are_steady(&inside, 0).await;
    // Others are served meanwhile, at once or not.
    let mut other = steady(&inside).await;
    assert_eq!(other.get("/pass").await.text(), "passed");
    gate.release();
    assert_eq!(client.response().await.text(), "held");
    assert_eq!(client.request("POST", "/pass", &[], b"a body").await.text(), "passed");
    are_steady(&inside, 0).await;
    // It has to be steady for longer now, and can.
    hits(&mut client, MANY_HITS).await;
    are_steady(&inside, 1).await;
}

#[tokio::test]
async fn a_connection_that_begins_with_a_burst_becomes_steady() {
    let origin = origin().await;
    let inside = Inside::before(&origin, "").await;
    assert_eq!(inside.get("/hit").await.text(), "stored");
    let mut client = inside.client().await;
    client.send("GET /hit HTTP/1.1\r\nHost: test\r\n\r\n".repeat(5)).await;
    for _ in 0..5 {
        assert_eq!(client.response().await.text(), "stored");
    }
    hits(&mut client, MANY_HITS).await;
    are_steady(&inside, 1).await;
}

#[tokio::test]
async fn a_request_that_comes_in_pieces_is_waited_for() {
    let origin = origin().await;
    let inside = Inside::before(&origin, "").await;
    let mut client = steady(&inside).await;
    client.send("GET /hit HTTP/1.1\r\nHo").await;
    are_steady(&inside, 0).await;
    client.send("st: test\r\n\r\n").await;
    assert_eq!(client.response().await.text(), "stored");
}

#[tokio::test]
async fn many_requests_in_one_write_are_answered_in_order() {
    const MANY: usize = 1000;
    let origin = origin().await;
    let inside = Inside::before(&origin, "").await;
    let mut client = steady(&inside).await;
    let requests: String = (0..MANY)
        .map(|number| format!("GET /hit HTTP/1.1\r\nHost: test\r\nX-Request-Id: number-{number}\r\n\r\n"))
        .collect();
    client.send(requests).await;
    for number in 0..MANY {
        let response = client.response().await;
        assert_eq!(response.field("x-request-id"), Some(&*format!("number-{number}")));
        assert_eq!(response.text(), "stored");
    }
    assert_eq!(inside.metric("forebay_connections_steady", &[]).await, 1.0);
}

/// A client that asks without end, so that there is always more to be answered than fits into a turn.
struct Insatiable {
    answered: watch::Receiver<usize>,
    /// How many requests it keeps under way; 0: it has had enough.
    appetite: Arc<AtomicUsize>,
    asks: JoinHandle<()>,
}

impl Insatiable {
    /// Many turns, and few enough that all of them and their answers fit into the sockets.
    const HUGE: usize = 1500;

    /// It asks for one thing after the other at first.
    fn start(address: SocketAddr) -> Self {
        let (counted, answered) = watch::channel(0);
        let appetite = Arc::new(AtomicUsize::new(1));
        let wanted = appetite.clone();
        let asks = std::thread::spawn(move || {
            const END: &[u8] = b"\r\n\r\nstored";
            let mut socket = TcpStream::connect(address).unwrap();
            let mut asked = 0;
            let mut read = vec![0; 1 << 20];
            let mut kept = 0;
            loop {
                let under_way = wanted.load(Ordering::Relaxed);
                if under_way == 0 {
                    return;
                }
                let more = (*counted.borrow() + under_way).saturating_sub(asked);
                let requests = "GET /hit HTTP/1.1\r\nHost: test\r\n\r\n".repeat(more);
                socket.write_all(requests.as_bytes()).unwrap();
                asked += more;
                let end = kept + socket.read(&mut read[kept..]).unwrap();
                let ends = memchr::memmem::find_iter(&read[..end], END);
                let (mut count, mut from) = (0, 0);
                for at in ends {
                    (count, from) = (count + 1, at + END.len());
                }
                counted.send_modify(|answered| *answered += count);
                read.copy_within(from..end, 0);
                kept = end - from;
            }
        });
        Self {
            answered,
            appetite,
            asks,
        }
    }

    fn answered(&self) -> usize {
        *self.answered.borrow()
    }

    fn stop(self) {
        self.appetite.store(0, Ordering::Relaxed);
        self.asks.join().unwrap();
    }
}

#[tokio::test]
async fn a_client_that_does_not_stop_asking_leaves_others_their_turns() {
    let origin = origin().await;
    let inside = Inside::before(&origin, "server: { threads: 1 }").await;
    let mut client = steady(&inside).await;
    let mut other = Insatiable::start(inside.address());
    are_steady(&inside, 2).await;
    other.appetite.store(Insatiable::HUGE, Ordering::Relaxed);
    let many = other.answered.wait_for(|answered| *answered >= 20_000);
    assert!(within("thousands of answers", many).await.is_ok());
    let mut between = Vec::new();
    for _ in 0..20 {
        let before = other.answered();
        assert_eq!(client.get("/hit").await.text(), "stored");
        between.push(other.answered() - before);
    }
    other.stop();
    // A turn or two. What else is counted comes of how the clients were scheduled.
    let least = between.iter().min().copied();
    assert!(least.is_some_and(|least| least <= 300), "{between:?}");
}

#[tokio::test]
async fn a_client_that_reads_slowly_gets_everything() {
    const MANY: usize = 60;
    let origin = origin().await;
    let inside = Inside::before(&origin, "").await;
    assert_eq!(inside.get("/large").await.body.len(), LARGE);
    let mut client = steady(&inside).await;
    client
        .send("GET /large HTTP/1.1\r\nHost: test\r\n\r\n".repeat(MANY))
        .await;
    // More than the sockets take: a task has to wait for the client.
    are_steady(&inside, 0).await;
    for _ in 0..MANY {
        assert_eq!(client.response().await.body.len(), LARGE);
    }
    assert_eq!(client.get("/hit").await.text(), "stored");
}

#[tokio::test]
async fn what_is_no_request_is_refused() {
    let origin = origin().await;
    let inside = Inside::before(&origin, "").await;
    let mut client = steady(&inside).await;
    client.send("no request\r\n\r\n").await;
    assert_eq!(client.response().await.status, 400);
    client.closed().await;
    are_steady(&inside, 0).await;
}

#[tokio::test]
async fn the_last_request_is_answered_before_the_connection_closes() {
    let origin = origin().await;
    let inside = Inside::before(&origin, "").await;
    let mut client = steady(&inside).await;
    let response = client.request("GET", "/hit", &[("Connection", "close")], b"").await;
    assert_eq!(response.field("connection"), Some("close"));
    client.closed().await;
    drop(client);
    are_steady(&inside, 0).await;

    let mut client = steady(&inside).await;
    client.send("GET /hit HTTP/1.1\r\nHost: test\r\n\r\n").await;
    client.half_close().await;
    assert_eq!(client.response().await.text(), "stored");
    client.closed().await;
    inside.metric_becomes("forebay_connections", &[], 0.0).await;
    are_steady(&inside, 0).await;
}

#[tokio::test]
async fn a_connection_that_rests_holds_no_buffer() {
    const CLIENTS: usize = 300;
    const AT_ONCE: usize = 30;
    /// What such a connection holds in all, in a build that is not optimized.
    const HELD_AT_MOST: u64 = 16 * 1024;
    let origin = origin().await;
    let proxy = Proxy::before(&origin, "").await;
    // So much in one write that a large buffer is needed for it.
    let requests = format!("GET /hit HTTP/1.1\r\nHost: test\r\nX: {}\r\n\r\n", "x".repeat(1300)).repeat(AT_ONCE);
    let mut clients = Vec::new();
    let mut before = 0;
    for number in 0..CLIENTS {
        let mut client = proxy.client().await;
        // Not enough yet to be steady.
        hits(&mut client, 40).await;
        client.send(requests.as_str()).await;
        for _ in 0..AT_ONCE {
            assert_eq!(client.response().await.text(), "stored");
        }
        clients.push(client);
        // What the first ones need, all need together.
        if number == CLIENTS / 6 {
            before = proxy.resident();
        }
    }
    within("steady connections", async {
        // One or the other may have come in two pieces, and back.
        while proxy.metric("forebay_connections_steady", &[]).await < (CLIENTS * 9 / 10) as f64 {}
    })
    .await;
    let held = proxy.resident().saturating_sub(before) / (CLIENTS - CLIENTS / 6) as u64;
    assert!(held < HELD_AT_MOST, "{held} bytes each");
}

#[tokio::test]
async fn a_client_that_leaves_is_forgotten() {
    let origin = origin().await;
    let inside = Inside::before(&origin, "").await;
    drop(steady(&inside).await);
    are_steady(&inside, 0).await;
    inside.metric_becomes("forebay_connections", &[], 0.0).await;
}

#[tokio::test]
async fn a_silent_connection_is_closed() {
    let origin = origin().await;
    let inside = Inside::before(&origin, "").await;
    // Its own reads have no deadlines, for which it would be late as well.
    let mut client = tokio::net::TcpStream::connect(inside.address()).await.unwrap();
    let mut read = [0; 4096];
    within("a steady connection", async {
        while inside.metric("forebay_connections_steady", &[]).await != 1.0 {
            client
                .write_all(b"GET /hit HTTP/1.1\r\nHost: test\r\n\r\n")
                .await
                .unwrap();
            assert!(client.read(&mut read).await.unwrap() > 0);
        }
    })
    .await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(74)).await;
    tokio::time::resume();
    client
        .write_all(b"GET /hit HTTP/1.1\r\nHost: test\r\n\r\n")
        .await
        .unwrap();
    assert!(client.read(&mut read).await.unwrap() > 0);
    assert_eq!(inside.metric("forebay_connections_steady", &[]).await, 1.0);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(76)).await;
    tokio::time::resume();
    let end = within("the end of a silent connection", client.read(&mut read)).await;
    assert_eq!(end.unwrap(), 0);
}

#[tokio::test]
async fn the_process_ends_although_connections_are_steady() {
    let origin = origin().await;
    let mut proxy = Proxy::before(&origin, "server: { shutdown_delay: 0s }").await;
    let mut client = proxy.client().await;
    within("a steady connection", async {
        while proxy.metric("forebay_connections_steady", &[]).await != 1.0 {
            assert_eq!(client.get("/hit").await.text(), "stored");
        }
    })
    .await;
    proxy.signal(Signal::SIGTERM);
    client.closed().await;
    drop(client);
    assert!(proxy.wait_exit().await.success());
}
