//! Upstreams that fail, and clients that do not notice.

mod breaker;
mod ejection;
mod load;
mod probes;
mod retries;

use crate::support::origin::Origin;

/// These servers as the only upstream, with these keys of it (a line each, in YAML's flow style), and further sections.
fn upstream<'a>(servers: impl IntoIterator<Item = &'a Origin>, keys: &str, sections: &str) -> String {
    let servers: Vec<String> = servers
        .into_iter()
        .map(|origin| format!("\"{}\"", origin.server()))
        .collect();
    let keys: String = keys.lines().map(|key| format!("    {}\n", key.trim())).collect();
    format!(
        "listen: 127.0.0.1:0\nupstreams:\n  app:\n    servers: [{}]\n{keys}\n{sections}\n",
        servers.join(", ")
    )
}
