//! Scalars with a form of their own: what they mean is checked where they are read.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

use crate::config::address::{self, UpstreamUrl};
use crate::config::diagnostic::{Complaint, alternatives};
use crate::config::units;
use crate::config::yaml::{ANY_SCALAR, complain};
use crate::config::{LimitKeyPart, ListenAddress, ServerSource};

/// Declares a scalar: its type, what reads it, and the regular expression and types that the schema gives it.
macro_rules! scalar {
    ($(#[doc = $doc:literal])+ $name:ident($type:ty), $parse:expr, $types:tt, $pattern:expr) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name(pub $type);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let parse: fn(&str) -> Result<$type, Complaint> = $parse;
                deserializer.deserialize_newtype_struct(ANY_SCALAR, ScalarVisitor(parse)).map(Self)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let description = concat!($($doc),+).trim();
                // What comes from the environment cannot be known before it is read.
                let pattern = format!("^({})$|\\$\\{{", $pattern);
                json_schema!({ "description": description, "type": $types, "pattern": pattern })
            }
        }
    };
}

struct ScalarVisitor<T>(fn(&str) -> Result<T, Complaint>);

impl<T> Visitor<'_> for ScalarVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        let Self(parse) = self;
        parse(text).map_err(|complaint| complain(&complaint))
    }
}

scalar!(
    /// A duration: `500ms 10s 5m 1h 1d 1y`.
    DurationText(Duration),
    units::duration,
    "string",
    units::DURATION_PATTERN
);
scalar!(
    /// A duration (`500ms 10s 5m 1h 1d 1y`), or `never`.
    DurationOrNever(Option<Duration>),
    units::duration_or_never,
    "string",
    format!("{}|never|unlimited", units::DURATION_PATTERN)
);
scalar!(
    /// A size: `512KiB 10MiB 1GiB` (`10MB` = 10^7), or a number of bytes.
    SizeText(u64),
    units::size,
    ["string", "integer"],
    units::SIZE_PATTERN
);
scalar!(
    /// A size (`512KiB 10MiB 1GiB`, `10MB` = 10^7, or a number of bytes), or `unlimited`.
    SizeOrUnlimited(Option<u64>),
    units::size_or_unlimited,
    ["string", "integer"],
    format!("{}|unlimited", units::SIZE_PATTERN)
);
scalar!(
    /// A percentage from `0%` to `100%`.
    Percentage(f64),
    units::percentage,
    "string",
    units::PERCENTAGE_PATTERN
);
scalar!(
    /// A rate: `50/s 600/m 100/h`.
    Rate(f64),
    units::rate,
    "string",
    units::RATE_PATTERN
);
scalar!(
    /// An address or a network: `10.0.0.0/8`, `"::1/128"`.
    Cidr(IpNet),
    address::cidr,
    "string",
    "[0-9a-fA-F:.]+(/[0-9]+)?"
);
scalar!(
    /// Where to listen: `0.0.0.0:8080`, `"[::]:8443"` or `unix:/run/forebay/http.sock`.
    ListenText(ListenAddress),
    address::listen_address,
    "string",
    "unix:/.+|[0-9.]+:[0-9]+|\\[[0-9a-fA-F:.%]+\\]:[0-9]+"
);
scalar!(
    /// An IP address with a port.
    SocketText(SocketAddr),
    address::socket_address,
    "string",
    "[0-9.]+:[0-9]+|\\[[0-9a-fA-F:.%]+\\]:[0-9]+"
);
scalar!(
    /// `app.internal:3000` (all addresses of the name are servers), `10.0.0.1:3000`, `[::1]:3000`, `unix:/run/app.sock` or
    /// `srv:_http._tcp.app.internal`.
    SourceText(ServerSource),
    address::server_source,
    "string",
    "unix:/.+|srv:[^/:]+|[^/]+:[0-9]+"
);
scalar!(
    /// A server by URL: `http://127.0.0.1:3000`, `https://app.internal` or `unix:/run/app.sock`.
    UpstreamText(UpstreamUrl),
    address::upstream_url,
    "string",
    "unix:/.+|https?://[^/]+/?"
);
scalar!(
    /// Text; numbers and words are taken as they are written.
    Text(String),
    text,
    ["string", "number", "boolean"],
    ".*"
);
scalar!(
    /// A number of threads, or `auto` for the number of cores.
    Threads(Option<usize>),
    threads,
    ["string", "integer"],
    "[0-9]+|auto"
);
scalar!(
    /// Where waiting requests share one fetch: in the `instance`, in the `cluster`, or not at all (`false`).
    Collapse(CollapseScope),
    collapse,
    ["string", "boolean"],
    "instance|cluster|off"
);
scalar!(
    /// A status (`204`) or a range of them (`200-299`).
    StatusRange(RangeInclusive<u16>),
    status_range,
    ["string", "integer"],
    "[1-5][0-9][0-9](-[1-5][0-9][0-9])?"
);
scalar!(
    /// What a server is chosen by: `header:NAME`, `cookie:NAME`, `query:NAME` or `path`.
    HashKey(String),
    hash_key,
    "string",
    "path|(header|cookie|query):.+"
);
scalar!(
    /// What clients are told apart by: `client_ip`, `path`, `host`, `route`, `header:NAME`, `cookie:NAME` or `query:NAME`.
    LimitKey(LimitKeyPart),
    limit_key,
    "string",
    "client_ip|path|host|route|(header|cookie|query):.+"
);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CollapseScope {
    Instance,
    Cluster,
    Off,
}

/// More threads than this are a typing error.
const MAX_THREADS: usize = 1024;

// The signature is that of every scalar's reader.
#[allow(clippy::unnecessary_wraps)]
fn text(text: &str) -> Result<String, Complaint> {
    Ok(text.to_owned())
}

fn threads(text: &str) -> Result<Option<usize>, Complaint> {
    match (text, text.parse()) {
        ("auto", _) => Ok(None),
        (_, Ok(threads @ 1..=MAX_THREADS)) => Ok(Some(threads)),
        _ => Err(Complaint::new(
            format!("must be auto or a whole number from 1 to {MAX_THREADS}"),
            "",
        )),
    }
}

fn collapse(text: &str) -> Result<CollapseScope, Complaint> {
    match text {
        "instance" => Ok(CollapseScope::Instance),
        "cluster" => Ok(CollapseScope::Cluster),
        "false" | "off" => Ok(CollapseScope::Off),
        _ => Err(Complaint::new("must be instance, cluster or false", "")),
    }
}

fn status_range(text: &str) -> Result<RangeInclusive<u16>, Complaint> {
    let status = |text: &str| {
        let is_plain = text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|code| is_plain && (100..=599).contains(code))
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (status(first), status(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        _ => Err(Complaint::new(
            "must be a status from 100 to 599, or a range of them",
            "like 204 or 200-299",
        )),
    }
}

fn hash_key(text: &str) -> Result<String, Complaint> {
    selector(text, &["path"])
}

fn limit_key(text: &str) -> Result<LimitKeyPart, Complaint> {
    let words = ["client_ip", "path", "host", "route"];
    selector(text, &words)?;
    Ok(match text.split_once(':') {
        Some(("header", name)) => LimitKeyPart::Header(name.to_ascii_lowercase()),
        Some(("cookie", name)) => LimitKeyPart::Cookie(name.to_owned()),
        Some((_, name)) => LimitKeyPart::Query(name.to_owned()),
        None if text == "path" => LimitKeyPart::Path,
        None if text == "host" => LimitKeyPart::Host,
        None if text == "route" => LimitKeyPart::Route,
        None => LimitKeyPart::ClientIp,
    })
}

/// `header:NAME`, `cookie:NAME`, `query:NAME` or one of these words.
fn selector(text: &str, words: &[&str]) -> Result<String, Complaint> {
    if words.contains(&text) {
        return Ok(text.to_owned());
    }
    let is_known = match text.split_once(':') {
        Some(("header" | "cookie", name)) => crate::message::is_token(name.as_bytes()),
        Some(("query", name)) => !name.is_empty(),
        _ => false,
    };
    match is_known {
        true => Ok(text.to_owned()),
        false => {
            let forms = alternatives(&[words, &["header:NAME", "cookie:NAME", "query:NAME"]].concat());
            Err(Complaint::new(format!("must be {forms}"), ""))
        }
    }
}
