//! Which listener, which client, which route, and why not another.

use super::asked::Asked;
use super::text::{Text, count};
use super::{Answer, scheme_and_tls};
use crate::cache::purge::How;
use crate::config::{self, HostPattern, ListenAddress, Match, Segment};
use crate::generation::Generation;
use crate::message::{RequestHead, Scheme, split_port};
use crate::proxy::Decided;
use crate::proxy::purging::asked_for;
use crate::respond::error::{self, ProxyError};
use crate::route::{Access, Ambiguity, NoRoute, Router, Selected, access, contains};
use crate::transform::forwarding::{ClientAddress, Trust};

/// Routes that are told not to match; nobody reads more.
const MAX_PASSED_OVER: usize = 20;

/// The listener that speaks the URL's scheme: the one on its port, or else the first. `None`: there is none.
pub fn listener<'a>(asked: &Asked, generation: &'a Generation, text: &mut Text) -> Option<&'a config::Listener> {
    let scheme = asked.url.scheme;
    let speaking: Vec<_> = generation
        .config
        .listeners
        .iter()
        .filter(|listener| Scheme::from(*listener) == scheme)
        .collect();
    let port = split_port(&asked.url.authority).1.unwrap_or(scheme.default_port());
    let on_port = speaking.iter().find(|listener| match listener.address {
        ListenAddress::Tcp(address) => address.port().to_string() == port,
        ListenAddress::Unix(_) => false,
    });
    let Some(listener) = on_port.or(speaking.first()) else {
        text.line(
            "listener",
            format_args!("none speaks {}: no connection", scheme_and_tls(scheme)),
        );
        if scheme == Scheme::Https {
            text.more("where TLS ends in front of Forebay, ask with http://");
        }
        return None;
    };
    text.line(
        "listener",
        format_args!("{}, {}", listener.address, scheme_and_tls(scheme)),
    );
    if on_port.is_none() && speaking.len() > 1 {
        text.more(format_args!("the first of {} for {}", speaking.len(), scheme.as_str()));
    }
    if listener.proxy_protocol {
        text.more("with the PROXY protocol from trusted_proxies, which gives the client's address");
    }
    Some(listener)
}

pub fn client(client: &ClientAddress, text: &mut Text) {
    let peer = client
        .peer
        .map_or_else(|| "a Unix socket".to_owned(), |peer| peer.to_string());
    match (client.ip == client.peer, client.trust) {
        (false, _) => text.line(
            "client",
            format_args!("{}, says the trusted proxy {peer}", client.text()),
        ),
        (true, Trust::Trusted) => text.line("client", format_args!("{peer}, a trusted proxy")),
        (true, Trust::Untrusted) => text.line("client", peer),
    }
}

/// The route that the request takes.
///
/// # Errors
/// The answer where it takes none.
pub fn route<'a>(
    request: &'a RequestHead,
    generation: &'a Generation,
    text: &mut Text,
) -> Result<Selected<'a>, Answer> {
    let routes = &generation.config.routes;
    match generation.router.select(request) {
        Ok(selected) => {
            if let Some(route) = routes.get(selected.index) {
                let place = match routes.len() {
                    1 => String::new(),
                    all => format!(" ({} of {all})", selected.index + 1),
                };
                let conditions: Vec<String> = conditions(route).into_iter().map(|(said, _)| said).collect();
                match conditions.is_empty() {
                    true => text.line("route", format_args!("{}{place}, takes everything", route.name)),
                    false => text.line(
                        "route",
                        format_args!("{}{place}: {}", route.name, conditions.join(", ")),
                    ),
                }
                let captured = captured(route, &selected);
                if !captured.is_empty() {
                    text.more(format_args!("with {}", captured.join(", ")));
                }
            }
            passed_over(routes.get(..selected.index).unwrap_or_default(), request, text);
            Ok(selected)
        }
        Err(error) => {
            match error {
                NoRoute::NotFound => {
                    text.line("route", "none matches");
                    passed_over(routes, request, text);
                }
                NoRoute::Ambiguous(ambiguity) => {
                    text.line(
                        "route",
                        format_args!("refused ({}): {}", ambiguity.reason(), because(ambiguity)),
                    );
                    if ambiguity == Ambiguity::Routes {
                        divided(routes, request, text);
                    }
                }
            }
            Err(ProxyError::from(error).into())
        }
    }
}

fn because(ambiguity: Ambiguity) -> &'static str {
    match ambiguity {
        Ambiguity::Routes => "servers can read the path in ways that belong to different routes",
        Ambiguity::AboveRoot => "the path's .. segments climb above its root",
        Ambiguity::BadEncoding => "a % in the path has no two hexadecimal digits behind it",
        Ambiguity::Nul => "the path holds %00",
        Ambiguity::TooManyReadings => "there are too many ways to read the path",
    }
}

/// Whether the client may use the route.
pub fn allowed(route: &config::Route, client: &ClientAddress, text: &mut Text) {
    let denied = client.ip.is_some_and(|ip| contains(&route.deny, ip));
    match (access(route, client.ip), denied) {
        (Access::Allowed, _) if route.allow.is_empty() && route.deny.is_empty() => {}
        (Access::Allowed, _) => text.line("access", format_args!("{} is allowed", client.text())),
        (Access::Denied, true) => text.line("access", format_args!("denied: {} is in deny", client.text())),
        (Access::Denied, false) => text.line("access", format_args!("denied: {} is not in allow", client.text())),
    }
}

/// What becomes of a PURGE request where any route takes them.
pub fn purge(decided: &Decided<'_>, client: &ClientAddress, text: &mut Text) -> Answer {
    match asked_for(decided, client) {
        Ok(purge) => {
            let how = match purge.how {
                How::Hard => "goes",
                How::Soft => "is made stale",
            };
            text.line(
                "purge",
                format_args!("what is stored for the URL, http and https, {how}"),
            );
            let (head, _) = error::done(200, String::new(), "", "");
            Answer::Response(Box::new(head))
        }
        Err(refusal) => {
            let why = match refusal {
                ProxyError::NoPurge => "refused: the route has no purge, others do",
                ProxyError::PurgeDenied => "refused: the address is not in purge.allow",
                _ => "refused: it asks for something else than its URL",
            };
            text.line("purge", why);
            refusal.into()
        }
    }
}

/// Says of routes which of their conditions does not hold.
fn passed_over(routes: &[config::Route], request: &RequestHead, text: &mut Text) {
    for route in routes.iter().take(MAX_PASSED_OVER) {
        let failed: Vec<String> = conditions(route)
            .into_iter()
            .filter(|(_, condition)| holds(route, condition, request) != Holds::Yes)
            .map(|(said, _)| said)
            .collect();
        text.more(format_args!("not {}: {}", route.name, failed.join(", ")));
    }
    if let Some(more) = routes.len().checked_sub(MAX_PASSED_OVER).filter(|more| *more > 0) {
        text.more(format_args!("nor {}", count(more, "other route")));
    }
}

/// Names the routes that take the path in some reading and not in another.
fn divided(routes: &[config::Route], request: &RequestHead, text: &mut Text) {
    for route in routes.iter().take(MAX_PASSED_OVER) {
        let all: Vec<(String, Holds)> = conditions(route)
            .into_iter()
            .map(|(said, condition)| (said, holds(route, &condition, request)))
            .collect();
        if all.iter().any(|(_, holds)| *holds == Holds::No) {
            continue;
        }
        let by_reading: Vec<&str> = all
            .iter()
            .filter(|(_, holds)| *holds == Holds::ByReading)
            .map(|(said, _)| said.as_str())
            .collect();
        match by_reading.is_empty() {
            true => {
                text.more(format_args!("{} takes it in every reading", route.name));
                return;
            }
            false => text.more(format_args!(
                "{} takes it in some readings: {}",
                route.name,
                by_reading.join(", ")
            )),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    Yes,
    No,
    /// In one reading of the path and not in another.
    ByReading,
}

/// Whether a route with this condition alone takes the request: the router itself is asked.
fn holds(route: &config::Route, condition: &Match, request: &RequestHead) -> Holds {
    let alone = config::Route {
        matches: condition.clone(),
        ..route.clone()
    };
    match Router::new(&[alone]).select(request) {
        Ok(_) => Holds::Yes,
        Err(NoRoute::NotFound) => Holds::No,
        Err(NoRoute::Ambiguous(_)) => Holds::ByReading,
    }
}

/// The conditions of a route one by one, as they stand in the file and as a match with nothing else in it.
fn conditions(route: &config::Route) -> Vec<(String, Match)> {
    let Match {
        hosts,
        path,
        path_prefix,
        path_suffix,
        methods,
        headers,
    } = &route.matches;
    let mut conditions = Vec::new();
    if !hosts.is_empty() {
        let names: Vec<String> = hosts
            .iter()
            .map(|host| match host {
                HostPattern::Exact(host) => host.clone(),
                HostPattern::Wildcard(suffix) => format!("*{suffix}"),
            })
            .collect();
        let alone = Match {
            hosts: hosts.clone(),
            ..Match::default()
        };
        conditions.push((format!("host {}", names.join(" or ")), alone));
    }
    if let Some(template) = path {
        let alone = Match {
            path: path.clone(),
            ..Match::default()
        };
        conditions.push((format!("path {}", template.text), alone));
    }
    if let Some(template) = path_prefix {
        let alone = Match {
            path_prefix: path_prefix.clone(),
            ..Match::default()
        };
        conditions.push((format!("path_prefix {}", template.text), alone));
    }
    if !path_suffix.is_empty() {
        let alone = Match {
            path_suffix: path_suffix.clone(),
            ..Match::default()
        };
        conditions.push((format!("path_suffix {}", path_suffix.join(" or ")), alone));
    }
    if !methods.is_empty() {
        let names: Vec<&str> = methods.iter().map(http::Method::as_str).collect();
        let alone = Match {
            methods: methods.clone(),
            ..Match::default()
        };
        conditions.push((format!("methods {}", names.join(" or ")), alone));
    }
    for (name, value) in headers {
        let alone = Match {
            headers: vec![(name.clone(), value.clone())],
            ..Match::default()
        };
        conditions.push((format!("headers {name}: {value}"), alone));
    }
    conditions
}

/// What the `{name}` segments are.
fn captured(route: &config::Route, selected: &Selected<'_>) -> Vec<String> {
    let templates = [&route.matches.path, &route.matches.path_prefix];
    let segments = templates.into_iter().flatten().flat_map(|template| &template.segments);
    let names = segments.filter_map(|segment| match segment {
        Segment::Capture(name) => Some(name),
        Segment::Literal(_) => None,
    });
    names
        .filter_map(|name| {
            selected
                .captures
                .value(name)
                .map(|value| format!("{{{name}}} = {value}"))
        })
        .collect()
}
