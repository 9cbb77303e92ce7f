//! The upstream, the request that it gets, and how long it may take.

use super::caching::Way;
use crate::config::{self, Verify};
use crate::http1::encode::{self, Connection};
use crate::message::{Fields, Forwarded, Framing, ResponseHead};
use crate::proxy::Decided;
use crate::proxy::fetch::ask_for_codings;
use crate::proxy::origin::LONG_IDLE;
use crate::proxy::pass::limit_stream;
use crate::proxy::relay::Limits;
use crate::request_id::RequestId;
use crate::transform::compress::tags::restore_conditions;
use crate::transform::fields::{ForwardContext, ForwardRefusal, forward_request};
use crate::transform::forwarding::ClientAddress;
use crate::transform::negotiate::Accepted;

use super::text::{self, Text, count, span};

/// Stands for the name that each process draws for itself.
const PSEUDONYM: &str = "forebay-xxxxxxxx";

pub fn upstream(upstream: &config::Upstream, text: &mut Text) {
    let protocol = match (upstream.http2, &upstream.tls) {
        (false, None) => "HTTP/1.1",
        (false, Some(_)) => "HTTP/1.1 over TLS",
        (true, None) => "HTTP/2",
        (true, Some(_)) => "HTTP/2 over TLS, HTTP/1.1 where the server wants it",
    };
    let balance = match (upstream.servers.len(), &upstream.balance) {
        (1, _) => String::new(),
        (_, balance) => format!(", {balance}"),
    };
    let servers = count(upstream.servers.len(), "server");
    text.line(
        "upstream",
        format_args!("{}: {servers}{balance}, {protocol}", upstream.name),
    );
    if let Some(tls) = &upstream.tls {
        let verified = match tls.verify {
            Verify::Certificate => "verified",
            Verify::Nothing => "not verified",
        };
        text.more(format_args!("as {}, {verified}", tls.server_name));
    }
    let weighted = upstream.servers.iter().any(|server| server.weight != 1);
    for server in &upstream.servers {
        match weighted {
            true => text.more(format_args!("{} weight {}", server.address, server.weight)),
            false => text.more(&server.address),
        }
    }
}

/// The lines of the head that the upstream gets.
///
/// # Errors
/// Where the request is answered here.
pub fn forwarded(
    decided: &Decided<'_>,
    upstream: &config::Upstream,
    client: &ClientAddress,
    way: &Way<'_>,
) -> Result<Vec<String>, ForwardRefusal> {
    let lines = || {
        let request_id = RequestId::of(&decided.request.fields);
        let context = ForwardContext {
            client,
            route: decided.route,
            captures: decided.captures,
            upstream,
            request_id: request_id.as_bytes(),
            pseudonym: PSEUDONYM,
        };
        let mut forwarded = forward_request(decided.request, &context)?;
        if let Way::Looked(rules) = way {
            ask_for_codings(&mut forwarded.fields, rules);
        }
        if decided.generation.compresses {
            restore_conditions(&mut forwarded.fields, Accepted::of(&decided.request.fields));
        }
        if decided.request.expects_continue && !upstream.http2 {
            forwarded.fields.push("Expect", "100-continue");
        }
        Ok(match upstream.http2 {
            true => http2_lines(&forwarded),
            false => http1_lines(&forwarded),
        })
    };
    Ok(steady(lines()?, lines()?))
}

fn http1_lines(head: &Forwarded<'_>) -> Vec<String> {
    let connection = match head.upgrade {
        true => Connection::WebSocket,
        false => Connection::Persistent,
    };
    let mut out = Vec::new();
    encode::request_head(
        &mut out,
        head.method,
        &head.target,
        head.authority,
        &head.fields,
        head.framing,
        connection,
    );
    String::from_utf8_lossy(out.trim_ascii_end())
        .split("\r\n")
        .map(str::to_owned)
        .collect()
}

fn http2_lines(head: &Forwarded<'_>) -> Vec<String> {
    let mut lines = vec![
        format!("{} {} HTTP/2", head.method, head.target),
        format!(":authority: {}", head.authority),
    ];
    lines.extend(field_lines(&head.fields));
    if let Framing::Length(length) = head.framing {
        lines.push(format!("content-length: {length}"));
    }
    lines
}

pub fn field_lines(fields: &Fields) -> impl Iterator<Item = String> {
    fields
        .iter()
        .map(|(name, value)| format!("{name}: {}", text::lossy(value)))
}

/// Two makings of the same lines: what differs between them is drawn anew for each request.
pub fn steady(one: Vec<String>, other: Vec<String>) -> Vec<String> {
    let merge = |(one, other): (String, String)| match one.split_once(": ") {
        Some((name, _)) if one != other => format!("{name}: (new for each request)"),
        _ => one,
    };
    one.into_iter().zip(other).map(merge).collect()
}

pub fn limits(decided: &Decided<'_>, upstream: &config::Upstream, limits: &Limits, text: &mut Text) {
    let body = limits.request_body.map_or_else(|| "unlimited".to_owned(), text::size);
    let streaming = match &decided.route.stream {
        Some(_) => "first_event",
        None => "first_byte",
    };
    let mut rows = vec![
        (
            "request body".to_owned(),
            format!("{body}, {} between two reads", span(limits.request_idle)),
        ),
        ("connect".to_owned(), span(upstream.timeouts.connect)),
        ("send".to_owned(), text::limit(limits.send)),
        (streaming.to_owned(), text::limit(limits.first_byte)),
    ];
    let mut stream = limits.clone();
    limit_stream(&mut stream, decided.route.stream.as_ref(), &event_stream());
    match (decided.request.upgrade, &decided.route.stream) {
        (true, _) => rows.push(("WebSocket".to_owned(), format!("{} of silence", span(LONG_IDLE)))),
        (false, Some(_)) => rows.push(("between_bytes".to_owned(), text::limit(stream.between_bytes))),
        (false, None) => {
            rows.push(("between_bytes".to_owned(), text::limit(limits.between_bytes)));
            rows.push((
                "event stream".to_owned(),
                format!("{} between_bytes", text::limit(stream.between_bytes)),
            ));
        }
    }
    if let Some(heartbeat) = stream.heartbeat {
        rows.push((
            "heartbeat".to_owned(),
            format!("a comment after {} of silence", span(heartbeat)),
        ));
    }
    rows.push(("client".to_owned(), format!("{} without reading", span(limits.write))));
    text.table("limits", &rows);
}

/// A response with what makes it an event stream.
fn event_stream() -> ResponseHead {
    let mut fields = Fields::new();
    fields.push("Content-Type", "text/event-stream");
    ResponseHead {
        status: 200,
        fields,
        framing: Framing::Chunked,
        declared_length: None,
    }
}
