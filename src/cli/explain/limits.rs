//! What clients may have: rates, and places for what is in flight.

use crate::config::{self, Enforcement, InFlight, LimitHits, LimitKeyPart, LimitUnit};
use crate::limit::keys::Subject;
use crate::proxy::Decided;
use crate::transform::forwarding::ClientAddress;

use super::text::{Text, size, span};

/// The limits that the request meets, before the cache or the upstream is asked.
pub fn rates(decided: &Decided<'_>, client: &ClientAddress, text: &mut Text) {
    let route = decided.generation.routes.get(decided.index);
    let Some(limits) = route.and_then(|route| route.limits.as_ref()) else {
        return;
    };
    let cost = decided.route.rate_limit_cost;
    let subject = Subject {
        request: decided.request,
        client: client.ip,
        route: &decided.route.name,
    };
    let mut lines = Vec::new();
    for limit in limits.all() {
        lines.push(rate(&limit.config));
        if limit.exempts(&subject) {
            lines.push("  not this client's: it is exempt".to_owned());
        }
        match cost {
            0 => lines.push("  not for this route: rate_limit_cost is 0".to_owned()),
            1 => {}
            cost => lines.push(format!("  each request of this route counts {cost} times")),
        }
    }
    text.block("rate limits", lines);
}

/// `hit: 3 requests in 1 h by client_ip, 3 at once`
fn rate(limit: &config::RateLimit) -> String {
    let amount = |units: u64| match limit.unit {
        LimitUnit::Requests => match units {
            1 => "1 request".to_owned(),
            units => format!("{units} requests"),
        },
        LimitUnit::Bytes => size(units),
        LimitUnit::Tokens { .. } => format!("{units} tokens"),
    };
    let key: Vec<_> = limit.key.iter().map(part).collect();
    let mut text = format!(
        "{}: {} in {} by {}, {} at once",
        limit.name,
        amount(limit.amount),
        span(limit.per),
        key.join(" and "),
        amount(limit.burst),
    );
    if !limit.block_for.is_zero() {
        text.push_str(&format!(", then refused for {}", span(limit.block_for)));
    }
    match (limit.unit, limit.hits) {
        (LimitUnit::Requests | LimitUnit::Bytes, LimitHits::Free) => text.push_str(", hits are free"),
        (LimitUnit::Tokens { .. }, _) | (_, LimitHits::Counted) => {}
    }
    if limit.enforcement == Enforcement::DryRun {
        text.push_str(" (dry_run: refuses nobody)");
    }
    text
}

fn part(part: &LimitKeyPart) -> String {
    match part {
        LimitKeyPart::ClientIp => "client_ip".to_owned(),
        LimitKeyPart::Path => "path".to_owned(),
        LimitKeyPart::Host => "host".to_owned(),
        LimitKeyPart::Route => "route".to_owned(),
        LimitKeyPart::Header(name) => format!("header:{name}"),
        LimitKeyPart::Cookie(name) => format!("cookie:{name}"),
        LimitKeyPart::Query(name) => format!("query:{name}"),
    }
}

/// The places that it needs before the upstream is asked.
pub fn places(decided: &Decided<'_>, text: &mut Text) {
    let concurrency = &decided.generation.config.concurrency;
    let mut lines = Vec::new();
    if decided.request.upgrade || decided.route.stream.is_some() {
        if let Some(max) = concurrency.max_streams {
            lines.push(format!("all: {max} streams and WebSockets"));
        }
        return text.block("in flight", lines);
    }
    if let Some(client) = &concurrency.per_client {
        let key: Vec<_> = client.key.iter().map(part).collect();
        let (by, queue) = (key.join(" and "), client.queue);
        lines.push(format!("each client by {by}: {}, {queue} wait", client.max));
    }
    let upstream = concurrency.upstreams.get(decided.route.upstream);
    let gates = [
        ("route", decided.route.in_flight.as_ref()),
        ("upstream", upstream.and_then(Option::as_ref)),
        ("all", concurrency.overall.as_ref()),
    ];
    for (name, limits) in gates {
        lines.extend(limits.map(|limits| format!("{name}: {}", in_flight(limits))));
    }
    text.block("in flight", lines);
}

fn in_flight(limits: &InFlight) -> String {
    let max = match limits.adaptive {
        Some(min) => format!("{min} to {} as the latency says", limits.max),
        None => limits.max.to_string(),
    };
    format!("{max}, {} wait for up to {}", limits.queue, span(limits.queue_timeout))
}
