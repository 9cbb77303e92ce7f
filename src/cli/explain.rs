//! `forebay explain`: what would become of a request, without sending anything.
//!
//! It decides nothing of its own. The request is parsed, routed, keyed, forwarded and stored by the functions that serve requests;
//! what they answer is put into words here.

mod asked;
mod caching;
mod compression;
mod forwarding;
mod limits;
mod routing;
mod storing;
mod text;

use std::io::Write as _;
use std::process::ExitCode;

pub(crate) use self::asked::Asked;
use self::text::Text;
use super::{CONFIGURATION, USAGE};
use crate::clock::Clock;
use crate::config::{Config, Environment, ListenAddress};
use crate::generation::Generation;
use crate::http1::{Limits, request};
use crate::message::{Framing, ResponseHead, Scheme};
use crate::metrics::Metrics;
use crate::proxy::Decided;
use crate::proxy::origin::limits_of;
use crate::proxy::purging::is_purge;
use crate::respond::error::{self, After, ProxyError};
use crate::rfc9111::date::{Timestamp, format_http_date};
use crate::route::{Access, access};
use crate::transform::fields::ForwardRefusal;
use crate::transform::forwarding::{ClientAddress, client_address};

pub fn explain(options: &super::Explain) -> ExitCode {
    let asked = match Asked::new(options) {
        Ok(asked) => asked,
        Err(wrong) => {
            eprintln!("forebay: {wrong}");
            return ExitCode::from(USAGE);
        }
    };
    let loaded = match Config::load(&options.file, &Environment::Process) {
        Ok(loaded) => loaded,
        Err(errors) => {
            eprintln!("{errors}");
            return ExitCode::from(CONFIGURATION);
        }
    };
    for warning in &loaded.warnings {
        eprintln!("warning: {warning}");
    }
    let generation = match Generation::new(loaded.config, &Metrics::new(), &Clock::new(), None) {
        Ok(generation) => generation,
        Err(errors) => {
            for error in errors {
                eprintln!("{}: {error}", options.file.display());
            }
            return ExitCode::from(CONFIGURATION);
        }
    };
    let text = explanation(&asked, &generation, Timestamp::from(Clock::new().now()));
    // Whoever reads it may stop doing so.
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// The whole text.
pub(crate) fn explanation(asked: &Asked, generation: &Generation, now: Timestamp) -> String {
    let mut text = Text::default();
    // An answer of Forebay's own ends the story.
    if let Err(answer) = tell(asked, generation, now, &mut text) {
        match answer {
            Answer::Nothing => {}
            Answer::Error(error) => answer_with(&error, &mut text),
            Answer::Response(head) => {
                text.line("answer", text::status_line(head.status));
                for name in ["Location", "Allow"] {
                    if let Some(value) = head.fields.get(name) {
                        text.more(format_args!("{name}: {}", text::lossy(value)));
                    }
                }
            }
        }
    }
    text.into_string()
}

/// What Forebay answers without an upstream.
enum Answer {
    /// The connection is not made.
    Nothing,
    Error(ProxyError),
    Response(Box<ResponseHead>),
}

impl From<ProxyError> for Answer {
    fn from(error: ProxyError) -> Self {
        Self::Error(error)
    }
}

/// Follows the request through the stages in the order of [`crate::proxy`].
fn tell(asked: &Asked, generation: &Generation, now: Timestamp, text: &mut Text) -> Result<(), Answer> {
    text.line("request", format_args!("{} {}", asked.method, asked.url));
    let Some(listener) = routing::listener(asked, generation, text) else {
        return Err(Answer::Nothing);
    };
    let request = match request::parse(&asked.request_text(), &Limits::DEFAULT, asked.url.scheme) {
        Ok(Some((request, _))) => request,
        Ok(None) => return Err(ProxyError::Internal.into()),
        Err(error) => {
            text.line("refused", format_args!("{error} ({})", error.as_str()));
            return Err(ProxyError::from(error).into());
        }
    };
    // Who comes through a Unix socket has no address.
    let peer = match listener.address {
        ListenAddress::Tcp(_) => Some(asked.from),
        ListenAddress::Unix(_) => None,
    };
    let client = client_address(peer, &request.fields, &generation.config.trusted_proxies);
    routing::client(&client, text);
    if listener.redirect_to_https
        && let Some((head, _)) = error::redirect_to_https(&request, "", &format_http_date(now))
    {
        text.line("redirect", "the listener says redirect_to_https");
        return Err(Answer::Response(Box::new(head)));
    }
    let selected = routing::route(&request, generation, text)?;
    let Some(route) = generation.config.routes.get(selected.index) else {
        return Err(ProxyError::NoRoute.into());
    };
    routing::allowed(route, &client, text);
    if access(route, client.ip) == Access::Denied {
        return Err(ProxyError::Denied.into());
    }
    let decided = Decided {
        generation,
        listener,
        request: &request,
        route,
        index: selected.index,
        captures: selected.captures,
    };
    if generation.purges && is_purge(&request) {
        return Err(routing::purge(&decided, &client, text));
    }
    limits::rates(&decided, &client, text);
    let rules = generation
        .routes
        .get(selected.index)
        .and_then(|route| route.cache.as_ref());
    let way = caching::way(&decided, rules);
    caching::tell(
        &way,
        &request,
        client.trust,
        generation.config.cache.redis.as_ref(),
        text,
    );
    if let caching::Way::Looked(rules) = &way
        && rules.reuse.request_directives.of(&request.fields).only_if_cached
    {
        text.line(
            "not stored",
            "Cache-Control: only-if-cached keeps the request from the upstream",
        );
        return Err(ProxyError::NotStored.into());
    }
    sent(&decided, &way, &client, text)?;
    storing::outcome(&decided, &way, &client, asked.response.as_ref(), now, text);
    Ok(())
}

/// The request as it goes on, and its limits.
fn sent(decided: &Decided<'_>, way: &caching::Way<'_>, client: &ClientAddress, text: &mut Text) -> Result<(), Answer> {
    let limits = limits_of(decided);
    if let (Framing::Length(length), Some(limit)) = (decided.request.framing, limits.request_body)
        && length > limit
    {
        text.line(
            "too large",
            format_args!("Content-Length: {length} is beyond {}", text::size(limit)),
        );
        return Err(ProxyError::BodyTooLarge.into());
    }
    let Some(upstream) = decided.generation.config.upstreams.get(decided.route.upstream) else {
        return Err(ProxyError::NoServer.into());
    };
    limits::places(decided, text);
    forwarding::upstream(upstream, text);
    match forwarding::forwarded(decided, upstream, client, way) {
        Ok(lines) => text.block("forwarded", lines),
        Err(ForwardRefusal::FinalRecipient) => {
            text.line(
                "forwarded",
                "no: Max-Forwards: 0 makes Forebay the recipient (RFC 9110 §7.6.2)",
            );
            return Err(Answer::Response(Box::new(error::options("", ""))));
        }
        Err(refusal) => {
            text.line("forwarded", "no");
            return Err(ProxyError::from(refusal).into());
        }
    }
    forwarding::limits(decided, upstream, &limits, text);
    Ok(())
}

fn answer_with(error: &ProxyError, text: &mut Text) {
    let (head, _) = error::render(error, None, "", "");
    text.line("answer", text::status_line(head.status));
    for name in ["Proxy-Status", "Allow"] {
        if let Some(value) = head.fields.get(name) {
            text.more(format_args!("{name}: {}", text::lossy(value)));
        }
    }
    if error.after() == After::Close {
        text.more("the connection is closed after it");
    }
}

/// What clients and configuration call it.
fn scheme_and_tls(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::Http => "http",
        Scheme::Https => "https (TLS)",
    }
}

#[cfg(test)]
mod tests;
