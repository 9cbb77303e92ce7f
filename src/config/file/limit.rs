use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};

use super::scalar::{Cidr, DurationText, LimitKey, SizeText};
use super::shape::{List, Map, OneOrMany, Switch};
use crate::config::diagnostic::KeyPath;

/// Limits of what clients may have in a time.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileRateLimits {
    /// Where it is counted. Default: memory, each instance for itself.
    pub store: Option<LimitStoreName>,
    /// One limit or a list of them, for every route without one of its own. They are counted over all these routes
    /// together, unless `route` is in their key.
    pub default: Option<FileLimits>,
    /// Clients that none of the limits is for.
    pub exempt: Option<FileExempt>,
    /// Send `X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset` (in seconds) too. Default: false.
    pub legacy_fields: Option<bool>,
    /// Keys that are remembered at once, at 16 to 32 bytes; beyond, those that have used least are forgotten. Default:
    /// 1000000.
    pub max_keys: Option<u32>,
    /// Show no more of an address than its /24 or /48 where the most refused keys are told. Default: false.
    pub shorten_addresses: Option<bool>,
}

/// Where limits are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LimitStoreName {
    Memory,
    Redis,
}

/// No limit, that of all, or limits of one's own.
#[derive(Debug, Clone)]
pub enum FileLimits {
    Off,
    On,
    One(Box<FileRateLimit>),
    Several(List<FileRateLimit>),
}

impl FileLimits {
    /// The limits that are whole, with their key paths.
    pub fn under<'a>(&'a self, path: &'a KeyPath) -> Vec<(KeyPath, &'a FileRateLimit)> {
        match self {
            Self::Off | Self::On => Vec::new(),
            Self::One(limit) => vec![(path.clone(), limit)],
            Self::Several(limits) => limits.under(path).collect(),
        }
    }
}

impl<'de> Deserialize<'de> for FileLimits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LimitsVisitor)
    }
}

struct LimitsVisitor;

impl<'de> Visitor<'de> for LimitsVisitor {
    type Value = FileLimits;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("off, a limit or a list of limits")
    }

    fn visit_bool<E: de::Error>(self, is_on: bool) -> Result<FileLimits, E> {
        match is_on {
            true => Ok(FileLimits::On),
            false => Ok(FileLimits::Off),
        }
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<FileLimits, E> {
        match text {
            "off" => Ok(FileLimits::Off),
            "on" => Ok(FileLimits::On),
            _ => Err(E::invalid_value(de::Unexpected::Other("text"), &self)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<FileLimits, A::Error> {
        let limit = FileRateLimit::deserialize(MapAccessDeserializer::new(map))?;
        Ok(FileLimits::One(Box::new(limit)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<FileLimits, A::Error> {
        List::deserialize(SeqAccessDeserializer::new(items)).map(FileLimits::Several)
    }
}

impl JsonSchema for FileLimits {
    fn schema_name() -> Cow<'static, str> {
        "FileLimits".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "boolean" },
                { "type": "string", "enum": ["off", "on"] },
                generator.subschema_for::<FileRateLimit>(),
                generator.subschema_for::<List<FileRateLimit>>(),
            ]
        })
    }
}

/// So much in a time: one of `requests`, `bytes` and `tokens`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileRateLimit {
    /// For metrics, logs and `RateLimit` fields. Default: the route's name, or default; with a number in a list.
    pub name: Option<String>,
    /// So many requests.
    pub requests: Option<u32>,
    /// So many bytes of response bodies. A request is let in as long as some are left.
    pub bytes: Option<SizeText>,
    /// So many tokens of a language model: estimated from the request (`max_tokens` and the length of its prompt), at most `burst`, and
    /// corrected by the `usage` in the JSON answer or the events of the stream. Each counts as many times as the route's
    /// `rate_limit_cost` says.
    pub tokens: Option<SizeText>,
    /// Default: 1s.
    pub per: Option<DurationText>,
    /// So many may come at once; then as many as `requests`, `bytes` or `tokens` in `per` as time passes. Default: as many as those.
    pub burst: Option<SizeText>,
    /// What is counted by: `client_ip` (IPv6 by /64), `header:NAME`, `cookie:NAME`, `query:NAME`, `path`, `host`, `route`,
    /// or a list of them. A client without the field, cookie or parameter is counted by its address. Default: client_ip.
    pub key: Option<OneOrMany<LimitKey>>,
    /// How long a client stays refused once it was. Default: 0s, until there is something left.
    pub block_for: Option<DurationText>,
    /// Whether responses from the cache count, and are refused. Default: true; with `tokens` false, because they take none.
    pub count_hits: Option<bool>,
    /// Refuse nothing: only count and log what would be refused. Default: false.
    pub dry_run: Option<bool>,
    /// Clients that the limit is not for.
    pub exempt: Option<FileExempt>,
    /// With `tokens`: what a request is taken to ask for that has no `max_tokens`. Default: 1000.
    pub assumed_tokens: Option<u32>,
}

/// Clients that a limit is not for: each of the conditions is enough.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileExempt {
    /// Those with these addresses.
    pub addresses: Option<List<Cidr>>,
    /// Those that send one of these values in this field.
    pub headers: Option<Map<OneOrMany<String>>>,
}

/// How many requests may be in flight at once. Hits, streams and WebSockets are not counted.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileConcurrency {
    /// Default: 1000.
    pub max_in_flight: Option<u32>,
    /// So many may wait; what is more gets 503. Default: 1000.
    pub queue: Option<u32>,
    /// Whoever waits longer gets 503. Default: 5s.
    pub queue_timeout: Option<DurationText>,
    /// Find out by the latency how many are good, up to `max_in_flight`. Default: off.
    pub adaptive: Option<Switch<FileAdaptive>>,
    /// The same for each client by itself. Default: no limit.
    pub per_client: Option<FilePerClient>,
    /// Streams and WebSockets that may be open at once; what is more gets 503. Default: any number.
    pub max_streams: Option<u32>,
}

/// How many requests of a route or to an upstream may be in flight at once. Hits, streams and WebSockets are not counted.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileInFlight {
    #[schemars(required)]
    pub max_in_flight: Option<u32>,
    /// So many may wait; what is more gets 503. Default: that of `concurrency`.
    pub queue: Option<u32>,
    /// Whoever waits longer gets 503. Default: that of `concurrency`.
    pub queue_timeout: Option<DurationText>,
    /// Find out by the latency how many are good, up to `max_in_flight`. Default: off.
    pub adaptive: Option<Switch<FileAdaptive>>,
}

/// How many requests of one client may be in flight at once.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FilePerClient {
    #[schemars(required)]
    pub max_in_flight: Option<u32>,
    /// So many may wait. Default: as many as `max_in_flight`.
    pub queue: Option<u32>,
    /// What a client is known by, as for `rate_limits`. Default: client_ip.
    pub key: Option<OneOrMany<LimitKey>>,
}

/// How the number of requests in flight follows the latency.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileAdaptive {
    /// So many are let in however slow it gets. Default: 10.
    pub min: Option<u32>,
}
