use std::collections::BTreeSet;
use std::time::Duration;

use prometheus::proto::MetricType;

use super::*;

fn rendered(metrics: &Metrics) -> String {
    String::from_utf8(metrics.render().unwrap()).unwrap()
}

/// Metrics in which every family has a sample.
fn full() -> (Arc<Metrics>, Vec<GaugeGuard>) {
    let metrics = Metrics::new();
    let route = metrics.route("api");
    route.answered(&Answered::get(Duration::from_millis(3)));
    route.answered(&Answered {
        cache: Some(CacheResult::UriMiss),
        ..Answered::get(Duration::from_micros(7))
    });
    route.first_event(Duration::from_millis(10));
    let upstream = metrics.upstream("app");
    upstream.server("127.0.0.1:3001").outcome(Outcome::Ok);
    upstream.duration(Duration::from_millis(2));
    upstream.retry();
    upstream.observe(|| {
        Some(UpstreamGauges {
            circuit: Some(2),
            healthy: [("127.0.0.1:3001".into(), 1)].into(),
        })
    });
    metrics.observe_cache(|| CacheGauges {
        bytes: 4096,
        stored_responses: 2,
        evictions: 5,
        dictionary_bytes: 77,
    });
    metrics.limit("default").refused(LimitReason::Excess);
    metrics.limit("default").tokens(10, 5, Settled::Usage);
    metrics.observe_limiter(|| 1024);
    metrics.gate("all").refused(GateReason::Timeout);
    let redis = metrics.redis();
    redis.duration(RedisOperation::Get, Duration::from_millis(1));
    redis.fault(RedisOperation::Get, RedisFault::Timeout);
    redis.set_up(true);
    metrics.reload(Reload::Refused);
    metrics.log_dropped().add(6);
    let guards = vec![route.stream_guard(), metrics.connections("0.0.0.0:8080").guard()];
    (metrics, guards)
}

/// Name, type and sorted label names of each family, as a reader of the text sees them.
fn families(text: &str) -> BTreeSet<(String, String, Vec<String>)> {
    let mut families = BTreeSet::new();
    let mut current = None;
    for line in text.lines() {
        if let Some(header) = line.strip_prefix("# TYPE ") {
            let (name, kind) = header.split_once(' ').unwrap();
            current = Some((name.to_owned(), kind.to_owned()));
        } else if !line.starts_with('#') {
            let (name, kind) = current.clone().unwrap();
            assert!(line.starts_with(&name), "{line} under {name}");
            let labels = line
                .split_once('{')
                .map_or("", |(_, rest)| rest.rsplit_once('}').unwrap().0);
            let labels = labels
                .split(',')
                .filter_map(|pair| Some(pair.split_once('=')?.0.to_owned()));
            families.insert((name, kind, labels.filter(|label| label != "le").collect()));
        }
    }
    families
}

#[test]
fn names_kinds_and_labels_are_those_of_the_table() {
    let (metrics, _guards) = full();
    let _in_flight = metrics.in_flight_guard();
    let exposed: Vec<_> = families(&rendered(&metrics))
        .into_iter()
        .filter(|(name, ..)| !name.starts_with("process_"))
        .map(|(name, kind, labels)| format!("{name} {kind} {}", labels.join(",")))
        .collect();
    let expected = [
        "forebay_build_info gauge version",
        "forebay_cache_bytes gauge tier",
        "forebay_cache_evictions_total counter ",
        "forebay_cache_purges_total counter what",
        "forebay_cache_refreshed_ahead_total counter ",
        "forebay_cache_requests_total counter route,result",
        "forebay_cache_stored_responses gauge tier",
        "forebay_circuit_state gauge upstream",
        "forebay_coherence_followed gauge ",
        "forebay_coherence_waiting_purges gauge ",
        "forebay_compressions_total counter coding,result",
        "forebay_concurrency_in_flight gauge gate",
        "forebay_concurrency_places gauge gate",
        "forebay_concurrency_queued gauge gate",
        "forebay_concurrency_refused_total counter gate,reason",
        "forebay_config_reloads_total counter result",
        "forebay_connections gauge listener",
        "forebay_connections_steady gauge ",
        "forebay_dictionary_bytes gauge ",
        "forebay_http_request_duration_seconds histogram route",
        "forebay_http_requests_total counter route,method,status",
        "forebay_http_response_bytes_total counter route,source",
        "forebay_in_flight gauge ",
        "forebay_leases_heard gauge ",
        "forebay_leases_waiting gauge ",
        "forebay_log_dropped_total counter ",
        "forebay_rate_limit_bytes gauge ",
        "forebay_rate_limit_settled_total counter limit,by",
        "forebay_rate_limit_tokens_total counter limit,state",
        "forebay_rate_limited_total counter limit,reason",
        "forebay_redis_duration_seconds histogram operation",
        "forebay_redis_errors_total counter operation,kind",
        "forebay_redis_leases_total counter result",
        "forebay_redis_silent_nodes gauge ",
        "forebay_redis_up gauge ",
        "forebay_redis_writes_dropped_total counter ",
        "forebay_retries_total counter upstream",
        "forebay_stream_first_event_seconds histogram route",
        "forebay_streams_active gauge route",
        "forebay_upstream_duration_seconds histogram upstream",
        "forebay_upstream_healthy gauge upstream,server",
        "forebay_upstream_queue_refused_total counter upstream",
        "forebay_upstream_queued gauge upstream",
        "forebay_upstream_requests_total counter upstream,server,outcome",
    ];
    assert_eq!(exposed, expected);
    assert_eq!(exposed.len(), Family::ALL.len());
}

#[test]
fn figures_arrive_in_the_text() {
    let (metrics, guards) = full();
    let in_flight = metrics.in_flight_guard();
    let text = rendered(&metrics);
    for line in [
        r#"forebay_http_requests_total{route="api",method="GET",status="200"} 2"#,
        r#"forebay_http_request_duration_seconds_bucket{route="api",le="0.00005"} 1"#,
        r#"forebay_http_request_duration_seconds_bucket{route="api",le="+Inf"} 2"#,
        r#"forebay_http_request_duration_seconds_sum{route="api"} 0.003007"#,
        r#"forebay_http_request_duration_seconds_count{route="api"} 2"#,
        r#"forebay_cache_requests_total{route="api",result="uri-miss"} 1"#,
        r#"forebay_cache_requests_total{route="api",result="hit_l1"} 0"#,
        r#"forebay_cache_bytes{tier="l1"} 4096"#,
        r#"forebay_cache_stored_responses{tier="l1"} 2"#,
        "forebay_cache_evictions_total 5",
        "forebay_dictionary_bytes 77",
        r#"forebay_upstream_requests_total{upstream="app",server="127.0.0.1:3001",outcome="ok"} 1"#,
        r#"forebay_upstream_duration_seconds_count{upstream="app"} 1"#,
        r#"forebay_upstream_healthy{upstream="app",server="127.0.0.1:3001"} 1"#,
        r#"forebay_circuit_state{upstream="app"} 2"#,
        r#"forebay_retries_total{upstream="app"} 1"#,
        r#"forebay_streams_active{route="api"} 1"#,
        r#"forebay_stream_first_event_seconds_count{route="api"} 1"#,
        r#"forebay_connections{listener="0.0.0.0:8080"} 1"#,
        "forebay_in_flight 1",
        r#"forebay_config_reloads_total{result="applied"} 0"#,
        r#"forebay_config_reloads_total{result="refused"} 1"#,
        "forebay_log_dropped_total 6",
        concat!(r#"forebay_build_info{version=""#, env!("CARGO_PKG_VERSION"), r#""} 1"#),
    ] {
        assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
    }
    drop((guards, in_flight));
    let text = rendered(&metrics);
    for line in [
        r#"forebay_streams_active{route="api"} 0"#,
        r#"forebay_connections{listener="0.0.0.0:8080"} 0"#,
        "forebay_in_flight 0",
    ] {
        assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
    }
}

#[test]
fn label_values_cannot_break_the_text() {
    let metrics = Metrics::new();
    metrics.route("a\"b\\c\nd").answered(&Answered::get(Duration::ZERO));
    let text = rendered(&metrics);
    let expected = r#"forebay_http_requests_total{route="a\"b\\c\nd",method="GET",status="200"} 1"#;
    assert!(text.lines().any(|line| line == expected), "{text}");
}

#[test]
#[cfg(target_os = "linux")]
fn the_process_is_exposed() {
    let text = rendered(&Metrics::new());
    for name in [
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_cpu_seconds_total",
    ] {
        assert!(text.contains(&format!("\n{name} ")), "no {name} in\n{text}");
    }
}

#[test]
fn the_words_of_cache_results() {
    let words: Vec<_> = CacheResult::ALL.iter().map(|result| result.as_str()).collect();
    assert_eq!(
        words.join(" "),
        "hit_l1 hit_l2 served_stale collapsed revalidated bypass method uri-miss vary-miss miss request stale partial"
    );
    for (index, result) in CacheResult::ALL.iter().enumerate() {
        assert_eq!(*result as usize, index);
    }
}

#[test]
fn metrics_end_with_their_last_owner() {
    let metrics = Metrics::new();
    let weak = Arc::downgrade(&metrics);
    drop(metrics);
    assert!(weak.upgrade().is_none(), "the registry keeps its owner alive");
}

/// The files for Grafana and Prometheus ask for nothing that there is not.
#[test]
fn shipped_dashboards_and_alerts_know_names_and_labels() {
    let series = regex::Regex::new(r"\b(forebay_[a-z0-9_]+|process_[a-z0-9_]+)(?:\{([^}]*)\})?").unwrap();
    let label = regex::Regex::new(r#"([a-z_]+)\s*(?:=~|!~|!=|=)\s*\\?""#).unwrap();
    let process = rendered(&full().0);
    let files = [
        ("forebay.json", include_str!("../../conf/grafana/forebay.json"), 20),
        ("alerts.yaml", include_str!("../../conf/prometheus/alerts.yaml"), 7),
    ];
    for (file, text, least) in files {
        let mut found = 0;
        for series in series.captures_iter(text) {
            found += 1;
            let name = series.get(1).unwrap().as_str();
            if name.starts_with("process_") {
                assert!(process.contains(&format!("\n{name} ")), "{file}: {name}");
                continue;
            }
            let family = Family::ALL.iter().find(|family| {
                let parts = ["_bucket", "_sum", "_count"].map(|part| name.strip_suffix(part));
                let is_part = family.kind == MetricType::HISTOGRAM && parts.contains(&Some(family.name));
                family.name == name && family.kind != MetricType::HISTOGRAM || is_part
            });
            let family = family.unwrap_or_else(|| panic!("{file}: there is no {name}"));
            for label in label.captures_iter(series.get(2).map_or("", |labels| labels.as_str())) {
                let label = label.get(1).unwrap().as_str();
                let is_known = ["instance", "job", "le"].contains(&label) || family.labels.contains(&label);
                assert!(is_known, "{file}: {name} has no {label}");
            }
        }
        assert!(found >= least, "{file}: {found}");
    }
    // Prometheus and Grafana read them, too.
    let _: serde_json::Value = serde_json::from_str(files[0].1).unwrap();
    for text in [files[1].1, include_str!("../../conf/prometheus/scrape.yaml")] {
        let _: serde_yaml::Value = serde_yaml::from_str(text).unwrap();
    }
}
