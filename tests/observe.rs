//! What can be seen from outside: metrics, health, logs.

use std::time::Duration;

use serde_json::Value;

use crate::support::client::{Client, EventSource, curl};
use crate::support::origin::{Gate, Origin, Refusing, Reply, Stream};
use crate::support::proxy::{Proxy, config};

#[tokio::test]
async fn metrics_have_their_names() {
    let stream = Stream::new();
    let origin = Origin::builder().on("/events", Reply::events(&stream)).start().await;
    let proxy = Proxy::before(&origin, "").await;
    assert_eq!(proxy.get("/").await.status, 200);
    let mut source = EventSource::open(proxy.address(), "/events").await;
    stream.send("data: one\n\n");
    source.data().await;
    proxy
        .metric_becomes("forebay_http_requests_total", &[("status", "200")], 1.0)
        .await;
    let response = proxy.metrics_get("/metrics").await;
    assert!(
        response
            .field("content-type")
            .unwrap()
            .starts_with("text/plain; version=0.0.4")
    );
    let text = response.text();
    for (name, kind) in [
        ("forebay_http_requests_total", "counter"),
        ("forebay_http_request_duration_seconds", "histogram"),
        ("forebay_cache_requests_total", "counter"),
        ("forebay_cache_bytes", "gauge"),
        ("forebay_cache_stored_responses", "gauge"),
        ("forebay_cache_evictions_total", "counter"),
        ("forebay_upstream_requests_total", "counter"),
        ("forebay_upstream_duration_seconds", "histogram"),
        ("forebay_streams_active", "gauge"),
        ("forebay_stream_first_event_seconds", "histogram"),
        ("forebay_connections", "gauge"),
        ("forebay_in_flight", "gauge"),
        ("process_resident_memory_bytes", "gauge"),
        ("process_open_fds", "gauge"),
    ] {
        assert!(text.contains(&format!("# TYPE {name} {kind}\n")), "{name} is missing");
        assert!(text.contains(&format!("# HELP {name} ")), "{name} is not explained");
    }
    let sample = "forebay_http_requests_total{route=\"default\",method=\"GET\",status=\"200\"} 1";
    assert!(text.lines().any(|line| line == sample), "{text}");
    let server = origin.server();
    let labels = [("upstream", "default"), ("server", server.as_str()), ("outcome", "ok")];
    assert_eq!(proxy.metric("forebay_upstream_requests_total", &labels).await, 1.0);
    let count = "forebay_http_request_duration_seconds_count";
    assert_eq!(proxy.metric(count, &[("route", "default")]).await, 1.0);
}

#[tokio::test]
async fn labels_stay_few_whatever_clients_send() {
    let origin = Origin::start().await;
    let proxy = Proxy::before(&origin, "").await;
    let mut client = proxy.client().await;
    for index in 0..50 {
        client
            .request(
                &format!("METHOD{index}"),
                &format!("/{index}"),
                &[("Host", &format!("h{index}"))],
                b"",
            )
            .await;
    }
    proxy.metric_becomes("forebay_http_requests_total", &[], 50.0).await;
    let response = proxy.metrics_get("/metrics").await;
    let series = response
        .text()
        .lines()
        .filter(|line| line.starts_with("forebay_http_requests_total{"))
        .count();
    assert!(series <= 2, "{series} series: {}", response.text());
}

#[tokio::test]
async fn gauges_go_up_and_down() {
    let gate = Gate::new();
    let origin = Origin::builder().on("/held", Reply::ok("").hold(&gate)).start().await;
    let proxy = Proxy::before(&origin, "").await;
    let mut client = proxy.client().await;
    client.send_request("GET", "/held", &[], b"").await;
    gate.reached(1).await;
    proxy.metric_becomes("forebay_in_flight", &[], 1.0).await;
    proxy.metric_becomes("forebay_connections", &[], 1.0).await;
    gate.release();
    client.response().await;
    proxy.metric_becomes("forebay_in_flight", &[], 0.0).await;
    drop(client);
    proxy.metric_becomes("forebay_connections", &[], 0.0).await;
}

#[tokio::test]
async fn health_tells_of_the_proxy_and_only_on_request_of_its_upstreams() {
    let refusing = Refusing::new();
    let proxy = Proxy::start(&format!(
        "listen: 127.0.0.1:0\nupstream: http://{}\n",
        refusing.server()
    ))
    .await;
    assert_eq!(proxy.get("/").await.status, 502);
    for (target, status) in [("/healthz", 200), ("/readyz", 200), ("/metrics", 200), ("/other", 404)] {
        assert_eq!(proxy.metrics_get(target).await.status, status, "{target}");
    }
    let upstreams = proxy.metrics_get("/readyz?upstreams").await;
    assert!(upstreams.text().contains("default"), "{}", upstreams.text());
}

#[tokio::test]
async fn the_metrics_listener_is_not_the_door() {
    let origin = Origin::start().await;
    let proxy = Proxy::before(&origin, "").await;
    for target in ["/metrics", "/healthz", "/readyz"] {
        assert_eq!(
            proxy.get(target).await.text(),
            "hello",
            "{target} belongs to the application"
        );
    }
    assert_eq!(origin.request_count(), 3);
}

#[tokio::test]
async fn every_request_is_logged_and_counted_exactly_once() {
    let stream = Stream::new();
    let origin = Origin::builder()
        .on("/kept", Reply::fresh(60, "kept"))
        .on("/events", Reply::events(&stream))
        .on("/short", Reply::ok("short").declared_length(100).close())
        .start()
        .await;
    let proxy = Proxy::before(&origin, "").await;
    let mut client = proxy.client().await;
    client.get("/kept").await;
    client.get("/kept").await;
    client.request("POST", "/upload", &[], b"12345").await;
    client.request("HEAD", "/head", &[], b"").await;
    let mut bad = proxy.client().await;
    bad.send("GET / HTTP/1.1\r\n\r\n").await;
    assert_eq!(bad.response().await.status, 400);
    let mut cut = proxy.client().await;
    cut.send_request("GET", "/short", &[], b"").await;
    let _ = cut.try_response().await;
    let mut source = EventSource::open(proxy.address(), "/events").await;
    stream.opened(1).await;
    stream.send("data: one\n\n");
    source.data().await;
    drop(source);
    assert_eq!(curl(&[&proxy.url("/curl")]).await.status, 200);

    proxy.metric_becomes("forebay_http_requests_total", &[], 8.0).await;
    proxy.get("/last").await;
    proxy.log_entry(|entry| entry["target"] == "/last").await;
    let lines = proxy.log_so_far();
    let entries: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(entries.len(), 9, "{}", lines.join("\n"));
    let of = |target: &str| {
        entries
            .iter()
            .filter(|entry| entry["target"] == target)
            .collect::<Vec<_>>()
    };
    let kept = of("/kept");
    assert_eq!(
        (&kept[0]["cache"], &kept[1]["cache"]),
        (&"uri-miss".into(), &"hit_l1".into())
    );
    let upload = of("/upload")[0];
    for (key, value) in [
        ("method", Value::from("POST")),
        ("status", 200.into()),
        ("route", "default".into()),
        ("upstream", "default".into()),
        ("server", origin.server().into()),
        ("client_ip", "127.0.0.1".into()),
        ("host", "test".into()),
        ("version", "HTTP/1.1".into()),
        ("request_bytes", 5.into()),
        ("response_bytes", 5.into()),
    ] {
        assert_eq!(upload[key], value, "{key} in {upload}");
    }
    for key in ["duration_seconds", "first_byte_seconds"] {
        assert!(
            upload[key]
                .as_f64()
                .is_some_and(|seconds| seconds > 0.0 && seconds < 10.0),
            "{key} in {upload}"
        );
    }
    assert!(
        upload["request_id"].as_str().is_some_and(|id| id.len() >= 16),
        "{upload}"
    );
    assert!(
        upload["time"].as_str().is_some_and(|time| time.ends_with('Z')),
        "{upload}"
    );
    let refused = entries.iter().find(|entry| entry["status"] == 400).unwrap();
    assert!(refused["error"].is_string() && refused["route"].is_null(), "{refused}");
    assert!(of("/short")[0]["error"].is_string(), "{}", of("/short")[0]);
    assert!(of("/curl")[0]["user_agent"].as_str().unwrap().starts_with("curl/"));
}

#[tokio::test]
async fn the_combined_format_is_what_log_tools_read() {
    let origin = Origin::start().await;
    let proxy = Proxy::before(&origin, "log: { access: { format: combined } }\n").await;
    let fields = [("User-Agent", "a \"b\" \\c"), ("Referer", "http://r/")];
    proxy.request("GET", "/a?b=c", &fields, b"").await;
    let line = proxy.log_lines(1).await.remove(0);
    assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
    let end = "] \"GET /a?b=c HTTP/1.1\" 200 5 \"http://r/\" \"a \\x22b\\x22 \\x5Cc\"";
    assert!(line.ends_with(end), "{line}");
}

#[tokio::test]
async fn the_access_log_goes_where_it_is_told() {
    let origin = Origin::start().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let sections = format!("log: {{ access: {{ path: {} }} }}\n", file.path().display());
    let mut proxy = Proxy::before(&origin, &sections).await;
    proxy.get("/to-file").await;
    proxy.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(proxy.wait_exit().await.success());
    let text = std::fs::read_to_string(file.path()).unwrap();
    assert_eq!(
        text.lines().count(),
        1,
        "what is logged is written before the end: {text}"
    );
    assert!(text.contains("/to-file") && proxy.log_so_far().is_empty());

    let mut silent = Proxy::before(&origin, "log: { access: false }\n").await;
    silent.get("/nowhere").await;
    silent.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(silent.wait_exit().await.success());
    assert!(silent.log_so_far().is_empty());
}

#[tokio::test]
async fn secrets_are_in_no_log() {
    const SECRETS: [&str; 7] = [
        "sesame1", "sesame2", "sesame3", "sesame4", "sesame5", "sesame6", "sesame7",
    ];
    let origin = Origin::builder()
        .otherwise(Reply::ok("").field("Set-Cookie", "session=sesame6"))
        .on(
            "/broken",
            Reply::raw("HTTP/1.1 200 OK\r\nSet-Cookie: session=sesame6\r\nbroken\r\n\r\n"),
        )
        .start()
        .await;
    for sections in [
        "log: { level: trace }\n",
        "log: { level: trace, access: { format: combined, slow: 1ms } }\n",
    ] {
        let proxy = Proxy::before(&origin, sections).await;
        let fields = [
            ("Authorization", "Bearer sesame1"),
            ("Cookie", "session=sesame2"),
            ("Proxy-Authorization", "Basic sesame3"),
            ("Referer", "http://user:sesame7@r/?access_token=sesame4"),
        ];
        for target in ["/?access_token=sesame4&a=b", "/broken?api_key=sesame5&password=sesame5"] {
            proxy.request("GET", target, &fields, b"").await;
        }
        let lines = proxy.log_lines(2).await.join("\n");
        assert!(lines.contains("access_token=***&a=b"), "{lines}");
        let everything = format!("{lines}\n{}", proxy.log_text());
        for secret in SECRETS {
            assert!(!everything.contains(secret), "{secret} in {everything}");
        }
    }
}

#[tokio::test]
async fn slow_requests_are_warned_of() {
    let gate = Gate::new();
    let origin = Origin::builder().on("/held", Reply::ok("").hold(&gate)).start().await;
    let proxy = Proxy::before(&origin, "log: { access: { slow: 50ms } }\n").await;
    let mut client = proxy.client().await;
    client.send_request("GET", "/held?token=sesame", &[], b"").await;
    gate.reached(1).await;
    // Slowness is a matter of time alone.
    tokio::time::sleep(Duration::from_millis(60)).await;
    gate.release();
    client.response().await;
    let warning = proxy
        .diagnostic("a warning of a slow request", |line| {
            line.contains("WARN") && line.contains("/held")
        })
        .await;
    assert!(!warning.contains("sesame"), "{warning}");
}

#[tokio::test]
async fn the_file_limit_is_raised_and_said() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&config(&origin, "")).await;
    let line = proxy
        .diagnostic("the limit of open files", |line| line.contains("open files"))
        .await;
    let entry: Value = serde_json::from_str(&line).unwrap();
    assert!(entry["limit"].as_u64().is_some_and(|limit| limit >= 1024), "{line}");
}

#[tokio::test]
async fn connections_leave_nothing_behind() {
    let origin = Origin::start().await;
    let proxy = Proxy::before(&origin, "").await;
    proxy.get("/warm").await;
    proxy.metric_becomes("forebay_connections", &[], 0.0).await;
    let before = proxy.open_files();
    for _ in 0..100 {
        let mut client = Client::connect(proxy.address()).await;
        client.get("/").await;
    }
    proxy.metric_becomes("forebay_connections", &[], 0.0).await;
    // A few connections to the upstream may have been kept; those of a hundred clients not.
    let after = proxy.open_files();
    assert!(after < before + 20, "{after} descriptors instead of {before}");
}
