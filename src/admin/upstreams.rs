//! Upstreams as they are, and taking their servers out and in.

use schemars::JsonSchema;
use serde::Serialize;
use tokio::time::Instant;

use super::answer::Refusal;
use crate::generation::Generation;
use crate::metrics::Outcome;
use crate::upstream::health::State;
use crate::upstream::{Member, breaker};

/// All upstreams.
#[derive(Debug, Serialize, JsonSchema)]
pub struct UpstreamList {
    pub upstreams: Vec<UpstreamState>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct UpstreamState {
    pub name: String,
    /// Servers that would get requests now.
    pub live: usize,
    pub servers: Vec<ServerState>,
    /// `closed`, `half-open` or `open`, where nothing goes to it. `null`: it has no circuit breaker.
    pub circuit: Option<String>,
    /// 95 of 100 responses' heads came within so many seconds, since the start.
    pub p95_seconds: Option<f64>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct ServerState {
    pub server: String,
    /// Whether it would get requests now.
    pub usable: bool,
    /// What probes say: `unknown`, `healthy` or `unhealthy`.
    pub health: String,
    /// Left out for a time, because its answers were failures.
    pub ejected: bool,
    /// Taken out by an operator.
    pub drained: bool,
    pub weight: u32,
    /// Exchanges under way.
    pub open: usize,
    /// Attempts since the start.
    pub attempts: u64,
    /// Those of them that did not end well; clients that left are not counted.
    pub failures: u64,
}

/// What is done to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Drain,
    Enable,
}

pub fn upstreams(generation: &Generation) -> UpstreamList {
    let upstreams = generation.upstreams.iter().map(|upstream| {
        let zone = upstream.zone();
        UpstreamState {
            name: upstream.config().name.to_string(),
            live: zone.live(),
            servers: zone.members().iter().map(server).collect(),
            circuit: upstream.circuit().map(|state| {
                match state {
                    breaker::State::Closed => "closed",
                    breaker::State::HalfOpen => "half-open",
                    breaker::State::Open => "open",
                }
                .to_owned()
            }),
            p95_seconds: upstream.metrics.durations().quantile(0.95),
        }
    });
    UpstreamList {
        upstreams: upstreams.collect(),
    }
}

fn server(member: &Member) -> ServerState {
    let server = &member.server;
    let (mut attempts, mut failures) = (0, 0);
    for (outcome, count) in Outcome::ALL.iter().zip(server.metrics.outcomes()) {
        attempts += count;
        if !matches!(outcome, Outcome::Ok | Outcome::ClientGone) {
            failures += count;
        }
    }
    ServerState {
        server: server.label.to_string(),
        usable: server.health.is_usable(),
        health: match server.health.state() {
            State::Unknown => "unknown",
            State::Healthy => "healthy",
            State::Unhealthy => "unhealthy",
        }
        .to_owned(),
        ejected: server.health.is_ejected(),
        drained: server.health.is_drained(),
        weight: member.weight,
        open: server.load.open(),
        attempts,
        failures,
    }
}

/// Takes a server out, or in again.
///
/// # Errors
/// There is no such upstream or server.
pub fn change(generation: &Generation, upstream: &str, name: &str, change: Change) -> Result<ServerState, Refusal> {
    let found = generation
        .upstreams
        .iter()
        .find(|candidate| *candidate.config().name == *upstream);
    let Some(found) = found else {
        return Err(Refusal::Unknown(format!("There is no upstream {upstream:?}.")));
    };
    let zone = found.zone();
    let Some(member) = zone.members().iter().find(|member| *member.server.label == *name) else {
        return Err(Refusal::Unknown(format!(
            "The upstream {upstream:?} has no server {name:?}."
        )));
    };
    let now = Instant::now();
    let (is_new, word) = match change {
        Change::Drain => (member.server.health.drain(now), "drained"),
        Change::Enable => (member.server.health.enable(now), "enabled"),
    };
    if is_new {
        found.refresh();
        tracing::info!(upstream, server = &*member.server.label, "server {word}");
    }
    Ok(server(member))
}
