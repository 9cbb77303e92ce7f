//! `forebay stats`.

use serde_json::Value;

use super::table::{bytes, number, percent, plain, rate, seconds, table};

pub fn text(stats: &Value) -> String {
    let (all, memory) = (&stats["last_1m"], &stats["memory"]);
    let mut text = format!(
        "forebay {} {}, up {}, {} in flight, {} streams\n\n",
        plain(&stats["version"]),
        plain(&stats["phase"]),
        seconds(&stats["uptime_seconds"]),
        number(&stats["in_flight"]),
        number(&stats["streams"]),
    );
    let mut rows = vec![row("all", stats)];
    rows.extend(list(&stats["routes"]).map(|route| row(&plain(&route["route"]), route)));
    let headings = [
        "route",
        "requests",
        "per s (10 s)",
        "per s (1 m)",
        "errors",
        "hits",
        "l1",
        "l2",
        "p50",
        "p90",
        "p95",
        "p99",
    ];
    text.push_str(&table(&headings, &rows));
    text.push_str(&format!(
        "\ncache   {} of {} in {} keys, {} evicted; {} saved, {} from the origin in the last minute\n",
        bytes(&memory["cache_bytes"]),
        bytes(&memory["cache_limit_bytes"]),
        number(&memory["stored_responses"]),
        number(&memory["evictions"]),
        bytes(&all["bytes_saved"]),
        bytes(&all["bytes_from_origin"]),
    ));
    text.push_str(&format!("memory  {} resident\n\n", bytes(&memory["resident_bytes"])));
    let redis = &stats["redis"];
    if redis.is_object() {
        let state = match (redis["up"] == true, redis["followed"] == true) {
            (true, true) => "up",
            (true, false) => "up, purges not followed",
            (false, _) => "down",
        };
        let (errors, dropped) = (number(&redis["errors"]), number(&redis["writes_dropped"]));
        text.push_str(&format!(
            "redis   {state}, {errors} errors, {dropped} writes dropped\n\n"
        ));
    }
    let mut rows = Vec::new();
    for upstream in list(&stats["upstreams"]) {
        for server in list(&upstream["servers"]) {
            rows.push(vec![
                plain(&upstream["name"]),
                plain(&upstream["circuit"]),
                plain(&server["server"]),
                state(server),
                number(&server["open"]),
                number(&server["attempts"]),
                number(&server["failures"]),
            ]);
        }
    }
    text.push_str(&table(
        &["upstream", "circuit", "server", "state", "open", "attempts", "failures"],
        &rows,
    ));
    let refused: Vec<_> = list(&stats["limits"])
        .flat_map(|limit| list(&limit["most_refused"]).map(move |key| (&limit["limit"], key)))
        .map(|(limit, key)| vec![plain(limit), number(&key["requests"]), plain(&key["key"])])
        .collect();
    if !refused.is_empty() {
        text.push_str("\nrefused most\n");
        text.push_str(&table(&["limit", "requests", "client"], &refused));
    }
    text
}

fn row(name: &str, of: &Value) -> Vec<String> {
    let (recent, latency) = (&of["last_1m"], &of["last_1m"]["latency"]);
    vec![
        name.to_owned(),
        number(&of["since_start"]["requests"]),
        rate(&of["last_10s"]["requests_per_second"]),
        rate(&recent["requests_per_second"]),
        percent(&recent["error_ratio"]),
        percent(&recent["hit_ratio"]["all"]),
        percent(&recent["hit_ratio"]["l1"]),
        percent(&recent["hit_ratio"]["l2"]),
        seconds(&latency["p50"]),
        seconds(&latency["p90"]),
        seconds(&latency["p95"]),
        seconds(&latency["p99"]),
    ]
}

/// One word for a server.
pub fn state(server: &Value) -> String {
    if server["drained"] == true {
        return "drained".to_owned();
    }
    if server["ejected"] == true {
        return "ejected".to_owned();
    }
    match server["health"].as_str() {
        Some("unknown") | None => "up".to_owned(),
        _ => plain(&server["health"]),
    }
}

pub fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
