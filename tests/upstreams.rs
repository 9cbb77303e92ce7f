//! Several servers behind one upstream, seen from outside.

mod balance;
mod connections;
mod discovery;
mod sticky;

use crate::support::origin::{Origin, Reply};

/// Origins that each answer with their number, from 0.
async fn numbered(count: usize) -> Vec<Origin> {
    let mut origins = Vec::new();
    for number in 0..count {
        let reply = Reply::ok(number.to_string()).field("Cache-Control", "no-store");
        origins.push(Origin::builder().otherwise(reply).start().await);
    }
    origins
}

/// A configuration with these keys of the upstream, and further sections.
fn yaml(keys: &str, sections: &str) -> String {
    format!("listen: 127.0.0.1:0\nupstreams: {{ app: {{ {keys} }} }}\n{sections}")
}

/// `servers: [..]`.
fn servers(origins: &[Origin]) -> String {
    let list: Vec<String> = origins
        .iter()
        .map(|origin| format!("\"{}\"", origin.server()))
        .collect();
    format!("servers: [{}]", list.join(", "))
}
