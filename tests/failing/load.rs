//! Servers that die, freeze and come back under steady load: processes of their own, so that they can.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::proxy::{Proxy, config};
use crate::support::within;

/// Clients, each with a connection of its own and a request every 20 ms: 300 requests a second.
const CLIENTS: usize = 6;
const EVERY: Duration = Duration::from_millis(20);

/// What an attempt may take before its first byte.
const FIRST_BYTE: Duration = Duration::from_millis(1000);

/// For a machine that has other things to do.
const SLACK: Duration = Duration::from_millis(2500);

struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: JoinSet<Duration>,
}

impl Load {
    fn start(proxy: &Proxy) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let (stop, answered, address) = (stop.clone(), answered.clone(), proxy.address());
            clients.spawn(async move {
                let mut client = Client::connect(address).await;
                let mut worst = Duration::ZERO;
                let mut every = tokio::time::interval(EVERY);
                every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                while !stop.load(Ordering::Relaxed) {
                    every.tick().await;
                    let began = Instant::now();
                    let response = client.get(&format!("/{number}")).await;
                    assert_eq!(
                        (response.status, response.text()),
                        (200, "hello"),
                        "{}",
                        response.raw_head
                    );
                    worst = worst.max(began.elapsed());
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                worst
            });
        }
        Self {
            stop,
            answered,
            clients,
        }
    }

    /// Waits until so many more requests have been answered.
    async fn answers(&self, count: usize) {
        let wanted = self.answered.load(Ordering::Relaxed) + count;
        within("answers under load", async {
            while self.answered.load(Ordering::Relaxed) < wanted {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    /// The longest that a request took. Fails if one was not answered well.
    async fn end(mut self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        let mut worst = Duration::ZERO;
        while let Some(result) = self.clients.join_next().await {
            worst = worst.max(result.unwrap());
        }
        worst
    }
}

/// Three servers in processes of their own: what they say comes from the origin behind them.
async fn servers(origin: &Origin) -> Vec<Proxy> {
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(
            Proxy::start(&config(
                origin,
                "routes: [{ upstream: default, match: { path_prefix: / }, cache: false }]",
            ))
            .await,
        );
    }
    servers
}

async fn before(servers: &[Proxy]) -> Proxy {
    let addresses: Vec<String> = servers
        .iter()
        .map(|server| format!("\"{}\"", server.address()))
        .collect();
    Proxy::start(&format!(
        "listen: 127.0.0.1:0\nupstreams:\n  app:\n    servers: [{}]\n    timeouts: {{ first_byte: {}ms, connect: 1s }}\n    \
         outlier: {{ consecutive_failures: 3, eject_for: 1m }}\n    retry: {{ delay: 10ms }}\n    \
         circuit_breaker: {{ open_for: 1s }}\nroutes: [{{ upstream: app, match: {{ path_prefix: / }}, cache: false }}]\n",
        addresses.join(", "),
        FIRST_BYTE.as_millis()
    ))
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_costs_no_get() {
    let origin = Origin::start().await;
    let mut servers = servers(&origin).await;
    let proxy = before(&servers).await;
    let load = Load::start(&proxy);
    load.answers(150).await;
    servers[1].signal(Signal::SIGKILL);
    servers[1].wait_exit().await;
    load.answers(300).await;
    assert!(load.end().await < SLACK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_freezes_costs_no_get_and_no_more_than_one_first_byte_timeout() {
    let origin = Origin::start().await;
    let servers = servers(&origin).await;
    let proxy = before(&servers).await;
    let load = Load::start(&proxy);
    load.answers(150).await;
    servers[1].signal(Signal::SIGSTOP);
    let label = servers[1].address().to_string();
    proxy
        .metric_becomes("forebay_upstream_healthy", &[("server", &label)], 0.0)
        .await;
    // Those that were with it come to their end.
    load.answers(CLIENTS * 2).await;
    assert!(load.end().await < FIRST_BYTE + SLACK);
    let after = Load::start(&proxy);
    after.answers(150).await;
    let worst = after.end().await;
    servers[1].signal(Signal::SIGCONT);
    assert!(worst < FIRST_BYTE, "after the ejection none is slow: {worst:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarting_each_server_in_turn_costs_no_get() {
    let origin = Origin::start().await;
    let mut servers = servers(&origin).await;
    let proxy = before(&servers).await;
    let load = Load::start(&proxy);
    for server in &mut servers {
        load.answers(60).await;
        let address = server.address();
        server.signal(Signal::SIGTERM);
        assert!(server.wait_exit().await.success());
        let again = config(&origin, "").replace("127.0.0.1:0", &address.to_string());
        *server = Proxy::start(&again).await;
    }
    load.answers(150).await;
    assert!(load.end().await < SLACK);
}

/// Speaks HTTP/2, says goodbye (GOAWAY, RFC 9113 §6.8) to each connection after some streams, and finishes what it has taken. Ten of a
/// connection's streams are under way at once or more, and some come when it has already been said.
async fn forgetful() -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    const STREAMS: usize = 25;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let goodbyes = Arc::new(AtomicUsize::new(0));
    let said = goodbyes.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let said = said.clone();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                let mut taken = 0;
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    taken += 1;
                    if taken == STREAMS {
                        connection.graceful_shutdown();
                        said.fetch_add(1, Ordering::Relaxed);
                    }
                    tokio::spawn(async move {
                        let mut body = request.into_body();
                        while let Some(Ok(data)) = body.data().await {
                            let _ = body.flow_control().release_capacity(data.len());
                        }
                        tokio::time::sleep(Duration::from_millis(3)).await;
                        let head = http::Response::builder()
                            .header("cache-control", "no-store")
                            .body(())
                            .unwrap();
                        let mut stream = respond.send_response(head, false).unwrap();
                        stream.send_data("hello".into(), true).unwrap();
                    });
                }
            });
        }
    });
    (address, goodbyes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn goodbyes_under_load_cost_no_request_of_any_method() {
    let (address, goodbyes) = forgetful().await;
    let proxy = Proxy::start(&format!(
        "listen: 127.0.0.1:0\nupstreams: {{ app: {{ servers: [\"{address}\"], http2: true }} }}\n"
    ))
    .await;
    let mut clients = JoinSet::new();
    for number in 0..16 {
        let address = proxy.address();
        clients.spawn(async move {
            let mut client = Client::connect(address).await;
            for turn in 0..100 {
                let (method, body) = match (number + turn) % 3 {
                    0 => ("POST", &b"some body"[..]),
                    _ => ("GET", &b""[..]),
                };
                let response = client.request(method, &format!("/{number}/{turn}"), &[], body).await;
                assert_eq!(
                    (response.status, response.text()),
                    (200, "hello"),
                    "{method} {turn}: {}",
                    response.raw_head
                );
            }
        });
    }
    within("all answers", async {
        while let Some(result) = clients.join_next().await {
            result.unwrap();
        }
    })
    .await;
    assert!(goodbyes.load(Ordering::Relaxed) > 20, "{goodbyes:?}");
}
