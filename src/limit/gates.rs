//! Gates in force: through which a request goes before the upstream is asked.

use std::sync::Arc;

use super::adaptive::Gradient;
use super::concurrency::{ClientGates, Gate};
use crate::config::{Config, InFlight};
use crate::metrics::Metrics;

/// All gates of a configuration.
#[derive(Debug, Default)]
pub struct Gates {
    pub overall: Option<Arc<Gate>>,
    pub clients: Option<Arc<ClientGates>>,
    /// For streams and WebSockets.
    pub streams: Option<Arc<Gate>>,
    /// As many as the configuration has.
    pub routes: Vec<Option<Arc<Gate>>>,
    pub upstreams: Vec<Option<Arc<Gate>>>,
    /// Whether there is any at all.
    pub any: bool,
}

impl Gates {
    /// Gates that `before` has in the same form are taken over with all who are in them.
    pub fn new(config: &Config, metrics: &Metrics, before: Option<(&Config, &Self)>) -> Self {
        let concurrency = &config.concurrency;
        let same = before.filter(|(before, _)| before.concurrency == *concurrency);
        let mut gates = match same {
            Some((_, before)) => Self {
                overall: before.overall.clone(),
                clients: before.clients.clone(),
                streams: before.streams.clone(),
                ..Self::default()
            },
            None => Self {
                overall: concurrency.overall.as_ref().map(|limits| gate(limits, "all", metrics)),
                clients: concurrency.per_client.clone().map(|limits| {
                    let metrics = metrics.gate("clients");
                    Arc::new(ClientGates::new(limits, concurrency.queue_timeout, metrics))
                }),
                streams: concurrency.max_streams.map(|max| {
                    // A stream lasts for as long as it likes: nobody waits for its end.
                    Gate::new(max, 0, concurrency.queue_timeout, None, metrics.gate("streams"))
                }),
                ..Self::default()
            },
        };
        for route in &config.routes {
            let kept = before.and_then(|(then, gates)| {
                let index = then.routes.iter().position(|other| other.name == route.name)?;
                let is_same = then.routes.get(index)?.in_flight == route.in_flight;
                gates.routes.get(index).filter(|_| is_same)?.clone()
            });
            let made = || {
                Some(gate(
                    route.in_flight.as_ref()?,
                    &format!("route:{}", route.name),
                    metrics,
                ))
            };
            gates.routes.push(kept.or_else(made));
        }
        for (upstream, limits) in config.upstreams.iter().zip(&concurrency.upstreams) {
            let kept = before.and_then(|(then, gates)| {
                let index = then.upstreams.iter().position(|other| other.name == upstream.name)?;
                let is_same = then.concurrency.upstreams.get(index)? == limits;
                gates.upstreams.get(index).filter(|_| is_same)?.clone()
            });
            let made = || Some(gate(limits.as_ref()?, &format!("upstream:{}", upstream.name), metrics));
            gates.upstreams.push(kept.or_else(made));
        }
        gates.any = gates.overall.is_some()
            || gates.clients.is_some()
            || gates.streams.is_some()
            || gates.routes.iter().chain(&gates.upstreams).any(Option::is_some);
        gates
    }
}

fn gate(limits: &InFlight, name: &str, metrics: &Metrics) -> Arc<Gate> {
    let adaptive = limits.adaptive.map(|min| Gradient::new(min, limits.max));
    Gate::new(
        limits.max,
        limits.queue,
        limits.queue_timeout,
        adaptive,
        metrics.gate(name),
    )
}
