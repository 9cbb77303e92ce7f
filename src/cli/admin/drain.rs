//! `forebay drain`.

use serde_json::Value;

use super::inspect::encoded;
use super::stats::state;
use super::table::{number, plain};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Drain,
    Enable,
}

pub fn target(upstream: &str, server: &str, change: Change) -> String {
    let change = match change {
        Change::Drain => "drain",
        Change::Enable => "enable",
    };
    format!("/upstreams/{}/servers/{}/{change}", encoded(upstream), encoded(server))
}

pub fn text(server: &Value) -> String {
    let open = number(&server["open"]);
    format!(
        "{}: {}, {open} requests under way\n",
        plain(&server["server"]),
        state(server)
    )
}
