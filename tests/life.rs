//! Reloads and the end: nobody who is served notices.

use nix::sys::signal::Signal;
use tokio::net::{TcpStream, UnixDatagram};

use crate::support::client::{Client, EventSource, Http2Client, head_of, rest_of, web_socket};
use crate::support::origin::{Gate, Origin, Reply, Stream};
use crate::support::proxy::{Builder, Proxy, Reload, config};
use crate::support::within;

/// A route that tells which configuration is in force.
fn marked(origin: &Origin, mark: &str) -> String {
    let sections = format!(
        "routes: [{{ match: {{ path_prefix: / }}, upstream: default, response_headers: {{ set: {{ X-Mark: {mark} }} }} }}]\n"
    );
    config(origin, &sections)
}

#[track_caller]
fn assert_done(reload: Reload) {
    if let Reload::Refused(log) = reload {
        panic!("refused: {log}");
    }
}

#[tokio::test]
async fn a_reload_drops_neither_connections_nor_streams() {
    let stream = Stream::new();
    let gate = Gate::new();
    let origin = Origin::builder()
        .on("/events", Reply::events(&stream))
        .on("/held", Reply::ok("held").hold(&gate))
        .on("/ws", Reply::web_socket_echo())
        .start()
        .await;
    let proxy = Proxy::start(&marked(&origin, "old")).await;
    let mut client = proxy.client().await;
    assert_eq!(client.get("/").await.field("x-mark"), Some("old"));
    let mut source = EventSource::open(proxy.address(), "/events").await;
    let mut socket = web_socket(proxy.address(), "/ws").await.unwrap();
    let mut held = proxy.client().await;
    held.send_request("GET", "/held", &[], b"").await;
    gate.reached(1).await;

    assert_done(proxy.reload(&marked(&origin, "new")).await);
    assert_eq!(
        client.get("/").await.field("x-mark"),
        Some("new"),
        "on the same connection"
    );
    stream.send("data: still here\n\n");
    assert_eq!(source.data().await, "still here");
    socket.send("still here").await;
    assert_eq!(socket.text().await, "still here");
    gate.release();
    assert_eq!(held.response().await.text(), "held");
    assert_eq!(
        proxy
            .metric("forebay_config_reloads_total", &[("result", "applied")])
            .await,
        1.0
    );
}

#[tokio::test]
async fn a_reload_reaches_new_upstreams() {
    let old = Origin::builder().otherwise(Reply::ok("old")).start().await;
    let new = Origin::builder().otherwise(Reply::ok("new")).start().await;
    let proxy = Proxy::start(&config(&old, "")).await;
    let mut client = proxy.client().await;
    assert_eq!(client.get("/").await.text(), "old");
    assert_done(proxy.reload(&config(&new, "")).await);
    assert_eq!(client.get("/").await.text(), "new");
}

#[tokio::test]
async fn a_bad_file_leaves_the_old_one_in_force_and_says_everything() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&marked(&origin, "old")).await;
    let bad = format!(
        "{}log: {{ level: loud }}\nserver: {{ thread: 2 }}\n",
        marked(&origin, "new")
    );
    match proxy.reload(&bad).await {
        Reload::Refused(log) => {
            for part in ["log.level", "server.thread", "forebay.yaml:4:", "forebay.yaml:5:"] {
                assert!(log.contains(part), "{part} is missing: {log}");
            }
        }
        Reload::Done => panic!("a bad file was taken"),
    }
    assert_eq!(proxy.get("/").await.field("x-mark"), Some("old"));
    assert!(matches!(proxy.reload("not: [yaml").await, Reload::Refused(_)));
    assert_eq!(proxy.get("/").await.field("x-mark"), Some("old"));
    assert_eq!(
        proxy
            .metric("forebay_config_reloads_total", &[("result", "refused")])
            .await,
        2.0
    );
    assert_done(proxy.reload(&marked(&origin, "new")).await);
    assert_eq!(proxy.get("/").await.field("x-mark"), Some("new"));
}

#[tokio::test]
async fn what_needs_a_restart_is_refused_whole_and_named() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&format!("{}server: {{ threads: 1 }}\n", marked(&origin, "old"))).await;
    let new = marked(&origin, "new");
    let table = [
        (
            "listen",
            format!(
                "{}server: {{ threads: 1 }}\n",
                new.replace("127.0.0.1:0", "127.0.0.2:0")
            ),
        ),
        ("server.threads", format!("{new}server: {{ threads: 2 }}\n")),
        (
            "metrics",
            format!("{new}server: {{ threads: 1 }}\nmetrics: {{ listen: 127.0.0.2:0 }}\n"),
        ),
    ];
    for (key, yaml) in table {
        match proxy.reload(&yaml).await {
            Reload::Refused(log) => assert!(log.contains("restart") && log.contains(key), "{key}: {log}"),
            Reload::Done => panic!("{key} was changed"),
        }
        assert_eq!(
            proxy.get("/").await.field("x-mark"),
            Some("old"),
            "{key}: not by half either"
        );
    }
}

#[tokio::test]
async fn a_watched_file_is_taken_up_by_itself() {
    let origin = Origin::start().await;
    let proxy = Builder::new().argument("--watch").start(&marked(&origin, "old")).await;
    assert_eq!(proxy.get("/").await.field("x-mark"), Some("old"));
    assert_done(proxy.rewrite(&marked(&origin, "new")).await);
    assert_eq!(proxy.get("/").await.field("x-mark"), Some("new"));
    assert!(matches!(proxy.rewrite("nonsense").await, Reload::Refused(_)));
    assert_eq!(proxy.get("/").await.field("x-mark"), Some("new"));
}

#[tokio::test]
async fn an_idle_proxy_ends_at_once() {
    let origin = Origin::start().await;
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut proxy = Proxy::before(&origin, "").await;
        let mut idle = proxy.client().await;
        idle.get("/").await;
        proxy.signal(signal);
        assert_eq!(
            proxy.wait_exit().await.code(),
            Some(0),
            "{signal}: an idle connection is no reason to stay"
        );
        idle.closed().await;
    }
}

#[tokio::test]
async fn open_requests_are_finished_first() {
    let gate = Gate::new();
    let origin = Origin::builder()
        .on("/held", Reply::ok("held").hold(&gate))
        .start()
        .await;
    let mut proxy = Proxy::before(&origin, "").await;
    let mut client = proxy.client().await;
    client.send_request("GET", "/held", &[], b"").await;
    gate.reached(1).await;
    proxy.signal(Signal::SIGTERM);
    within("the end of accepting", async {
        while TcpStream::connect(proxy.address()).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(proxy.metrics_get("/readyz").await.status, 503);
    gate.release();
    let response = client.response().await;
    assert_eq!((response.text(), response.field("connection")), ("held", Some("close")));
    assert_eq!(proxy.wait_exit().await.code(), Some(0));
}

#[tokio::test]
async fn http2_connections_finish_their_streams_and_close() {
    let gate = Gate::new();
    let origin = Origin::builder()
        .on("/held", Reply::ok("held").hold(&gate))
        .start()
        .await;
    let yaml = format!(
        "listeners: [{{ address: 127.0.0.1:0, http2: true }}]\nupstreams: {{ app: {{ servers: [\"{}\"] }} }}\n",
        origin.server()
    );
    let mut proxy = Proxy::start(&yaml).await;
    let mut client = Http2Client::connect(proxy.address()).await;
    let request = http::Request::builder().uri("http://test/held").body(()).unwrap();
    let (held, _) = client.send(request, true).await.unwrap();
    gate.reached(1).await;
    proxy.signal(Signal::SIGTERM);
    proxy
        .diagnostic("the end to begin", |line| line.contains("draining"))
        .await;
    gate.release();
    let (head, body) = head_of(held).await.unwrap();
    assert_eq!(rest_of(head, body).await.unwrap().text(), "held");
    client.closed().await;
    assert_eq!(proxy.wait_exit().await.code(), Some(0));
}

#[tokio::test]
async fn shutdown_delay_fails_readiness_and_serves_on() {
    let origin = Origin::start().await;
    let mut proxy = Proxy::before(&origin, "server: { shutdown_delay: 1s }\n").await;
    let mut client = proxy.client().await;
    assert_eq!(proxy.metrics_get("/readyz").await.status, 200);
    proxy.signal(Signal::SIGTERM);
    within("readiness to fail", async {
        while proxy.metrics_get("/readyz").await.status == 200 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(proxy.metrics_get("/healthz").await.status, 200);
    assert_eq!(client.get("/old-connection").await.status, 200);
    assert_eq!(proxy.get("/new-connection").await.status, 200);
    assert_eq!(proxy.wait_exit().await.code(), Some(0));
}

#[tokio::test]
async fn streams_have_their_own_grace() {
    let stream = Stream::new();
    let origin = Origin::builder()
        .on("/events", Reply::events(&stream))
        .on("/ws", Reply::web_socket_echo())
        .start()
        .await;
    let mut proxy = Proxy::before(&origin, "server: { shutdown_grace: 100ms, stream_grace: 60s }\n").await;
    let mut source = EventSource::open(proxy.address(), "/events").await;
    let mut socket = web_socket(proxy.address(), "/ws").await.unwrap();
    proxy.signal(Signal::SIGTERM);
    within("the end of accepting", async {
        while TcpStream::connect(proxy.address()).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // Longer than the grace of requests.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    stream.send("data: still here\n\n");
    assert_eq!(source.data().await, "still here");
    socket.send("still here").await;
    assert_eq!(socket.text().await, "still here");
    stream.finish();
    assert_eq!(source.next().await, None);
    drop(socket);
    assert_eq!(proxy.wait_exit().await.code(), Some(0));
}

#[tokio::test]
async fn grace_has_an_end() {
    let gate = Gate::new();
    let stream = Stream::new();
    let origin = Origin::builder()
        .on("/held", Reply::ok("held").hold(&gate))
        .on("/events", Reply::events(&stream))
        .start()
        .await;
    let mut proxy = Proxy::before(&origin, "server: { shutdown_grace: 200ms, stream_grace: 400ms }\n").await;
    let mut client = proxy.client().await;
    client.send_request("GET", "/held", &[], b"").await;
    gate.reached(1).await;
    let mut source = EventSource::open(proxy.address(), "/events").await;
    proxy.signal(Signal::SIGTERM);
    assert_eq!(proxy.wait_exit().await.code(), Some(0));
    assert!(source.try_next().await.is_err());
    assert!(client.try_response().await.is_err());
}

#[tokio::test]
async fn systemd_is_told() {
    let origin = Origin::start().await;
    let builder = Builder::new();
    let path = builder.directory().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let mut proxy = builder
        .environment("NOTIFY_SOCKET", &path.display().to_string())
        .environment("WATCHDOG_USEC", "400000")
        .start(&config(&origin, ""))
        .await;
    told(&socket, "READY=1").await;
    told(&socket, "WATCHDOG=1").await;
    assert_done(proxy.reload(&config(&origin, "")).await);
    told(&socket, "RELOADING=1").await;
    told(&socket, "READY=1").await;
    proxy.signal(Signal::SIGTERM);
    told(&socket, "STOPPING=1").await;
    assert!(proxy.wait_exit().await.success());
}

/// Waits until systemd would have been told this.
async fn told(socket: &UnixDatagram, state: &str) {
    let mut message = [0; 512];
    loop {
        let length = within(state, socket.recv(&mut message)).await.unwrap();
        if String::from_utf8_lossy(&message[..length])
            .lines()
            .any(|line| line == state)
        {
            return;
        }
    }
}

#[tokio::test]
async fn a_socket_file_that_was_left_behind_is_replaced() {
    let origin = Origin::start().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("http.sock");
    // As after a kill: the file is there and nobody listens.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let yaml = format!(
        "listeners: [{{ address: \"unix:{}\" }}]\nupstreams: {{ app: {{ servers: [\"{}\"] }} }}\n",
        path.display(),
        origin.server()
    );
    let proxy = Proxy::start(&yaml).await;
    assert_eq!(Client::connect_unix(&path).await.get("/").await.status, 200);
    drop(proxy);
}
