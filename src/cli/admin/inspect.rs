//! `forebay inspect`.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::stats::list;
use super::table::{bytes, number, plain, table};

pub fn target(url: &str, headers: &[String]) -> String {
    let mut target = format!("/cache?url={}", encoded(url));
    for header in headers {
        target.push_str(&format!("&header={}", encoded(header)));
    }
    target
}

/// As a path segment, or in a query.
pub fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

pub fn text(report: &Value) -> String {
    let decision = match (report["decision"].as_str(), report["reason"].as_str()) {
        (None, _) => "not looked up".to_owned(),
        (Some(_), None) => plain(&report["decision"]),
        (Some(_), Some(_)) => format!("{} ({})", plain(&report["decision"]), plain(&report["reason"])),
    };
    let asked = match report["requests"].as_u64() {
        Some(1) => "once".to_owned(),
        _ => format!("{} times", number(&report["requests"])),
    };
    let mut text = format!("{decision}; asked for {asked} lately\n\n");
    let rows: Vec<_> = list(&report["variants"]).map(variant).collect();
    match rows.is_empty() {
        true if report["l2"] == "unavailable" => text.push_str("nothing is in memory, and Redis is away\n"),
        true => text.push_str("nothing is stored\n"),
        false => {
            let headings = [
                "variant", "chosen", "tier", "status", "age", "ttl", "body", "size", "type", "tags",
            ];
            text.push_str(&table(&headings, &rows));
        }
    }
    text.push('\n');
    for line in list(&report["explanation"]) {
        text.push_str(&plain(line));
        text.push('\n');
    }
    text
}

fn variant(variant: &Value) -> Vec<String> {
    let vary: Vec<_> = list(&variant["vary"])
        .map(|field| match field["value"].is_null() {
            true => format!("{} absent", plain(&field["name"])),
            false => format!("{}: {}", plain(&field["name"]), plain(&field["value"])),
        })
        .collect();
    vec![
        if vary.is_empty() {
            "all".to_owned()
        } else {
            vary.join(", ")
        },
        if variant["selected"] == true { "yes" } else { "no" }.to_owned(),
        plain(&variant["tier"]),
        number(&variant["status"]),
        format!("{} s", number(&variant["age"])),
        format!("{} s", variant["ttl"].as_i64().unwrap_or_default()),
        bytes(&variant["body_bytes"]),
        bytes(&variant["size_bytes"]),
        plain(&variant["content_type"]),
        list(&variant["tags"]).map(plain).collect::<Vec<_>>().join(" "),
    ]
}
