use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{self, Deserializer, SeqAccess, Visitor};

use super::limit::{FileInFlight, FileLimits};
use super::scalar::{Cidr, Collapse, DurationOrNever, DurationText, Percentage, SizeOrUnlimited, SizeText, Text};
use super::shape::{List, Map, OneOrMany, Switch};

/// Declares the policies of a route once, for `routes` and `defaults` alike. `serde` could flatten one into the other
/// only by giving up the errors for unknown keys.
macro_rules! policies {
    ($($(#[doc = $doc:literal])+ $name:ident: $type:ty,)+) => {
        /// Policies for every route that does not say otherwise.
        #[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct FileDefaults {
            $($(#[doc = $doc])+ pub $name: Option<$type>,)+
        }

        /// What is done with which requests.
        #[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct FileRoute {
            /// For logs and metrics. Default: `route-N`.
            pub name: Option<String>,
            /// Which requests; all conditions must hold. Default: every request.
            #[serde(rename = "match")]
            pub matches: Option<FileMatch>,
            /// The name of an upstream. May be left out where there is only one.
            pub upstream: Option<String>,
            $($(#[doc = $doc])+ pub $name: Option<$type>,)+
        }

        /// The policies of a route, or of all.
        #[derive(Debug, Clone, Copy, Default)]
        pub struct FilePolicies<'a> {
            $(pub $name: Option<&'a $type>,)+
        }

        impl FileDefaults {
            pub fn policies(&self) -> FilePolicies<'_> {
                FilePolicies { $($name: self.$name.as_ref(),)+ }
            }
        }

        impl FileRoute {
            pub fn policies(&self) -> FilePolicies<'_> {
                FilePolicies { $($name: self.$name.as_ref(),)+ }
            }
        }
    };
}

policies! {
    /// Take the matched `path_prefix` off before the request is forwarded. Default: false.
    strip_prefix: bool,
    /// Rewrite the fields of requests.
    request_headers: FileRequestEdits,
    /// Rewrite the fields of responses, after they were stored.
    response_headers: FileResponseEdits,
    /// Whether and how responses are stored. A setting that a route leaves out is that of `defaults`. Default: on, as
    /// the origin says.
    cache: Switch<FileCachePolicy>,
    /// Every response is a stream: written as it arrives, never stored. Default: event streams only, by their content
    /// type.
    stream: Switch<FileStream>,
    /// A larger request body gets 413. Default: 10MiB.
    max_request_body: SizeOrUnlimited,
    /// Addresses that may use the route; others get 403. Default: everyone.
    allow: List<Cidr>,
    /// Addresses that get 403, checked before `allow`. Default: nobody.
    deny: List<Cidr>,
    /// Take PURGE requests for stored responses, from these addresses alone. Default: off; PURGE is a method of the app's like
    /// any other, unless another route takes them.
    purge: Switch<FilePurge>,
    /// Forwarding and override fields (like `X-Forwarded-Prefix` or `X-HTTP-Method-Override`) that are passed on to
    /// the upstream as the client sent them, although it is not one of `trusted_proxies`. Default: none; they are
    /// removed or overwritten, because apps believe them.
    keep_fields: List<String>,
    /// Compress responses. A setting that a route leaves out is that of `defaults`. Default: off, bodies are passed on as
    /// they are.
    compression: Switch<FileCompression>,
    /// Limit what each client may have in a time: one limit, or a list of which all hold. Default: that of `rate_limits`.
    rate_limit: FileLimits,
    /// What a request counts for in limits of requests; 0 for nothing. Default: 1.
    rate_limit_cost: u32,
    /// How many requests of the route may be in flight at once. Default: any number.
    concurrency: FileInFlight,
}

/// Conditions on a request; all must hold.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileMatch {
    /// Names, or `"*.example.com"` for all below one.
    pub host: Option<OneOrMany<String>>,
    /// The whole path. `{name}` stands for a segment.
    pub path: Option<String>,
    /// Leading segments: `/api` covers `/api` and `/api/x`, not `/apiary`. `{name}` stands for a segment.
    pub path_prefix: Option<String>,
    /// What the path ends with.
    pub path_suffix: Option<OneOrMany<String>>,
    /// Methods, in upper case.
    pub methods: Option<List<String>>,
    /// Fields, each with the value that it must have.
    pub headers: Option<Map<Text>>,
}

/// Rewriting of a request's fields: first `remove`, then `set`, then `add`. Values may hold
/// `{client_ip} {host} {method} {path} {request_id}` and what the route's path captures.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileRequestEdits {
    /// Fields to set, in the place of what the client sent.
    pub set: Option<Map<Text>>,
    /// Fields to add, beside what the client sent.
    pub add: Option<Map<Text>>,
    /// Fields to remove.
    pub remove: Option<List<String>>,
}

/// Rewriting of a response's fields: first `remove`, then `set`, then `add`. Values may hold
/// `{client_ip} {host} {method} {path} {request_id}` and what the route's path captures.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileResponseEdits {
    /// Fields to set, in the place of what the upstream sent.
    pub set: Option<Map<Text>>,
    /// Fields to add, beside what the upstream sent.
    pub add: Option<Map<Text>>,
    /// Fields to remove.
    pub remove: Option<List<String>>,
    /// Also on responses that are not 2xx or 3xx. Default: false.
    pub always: Option<bool>,
}

/// Who may purge by PURGE requests.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FilePurge {
    /// Their addresses; others get 403.
    #[schemars(required)]
    pub allow: Option<List<Cidr>>,
}

/// Limits of an event stream.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileStream {
    /// From the request's end to the response. Default: the upstream's `first_byte`.
    pub first_event: Option<DurationOrNever>,
    /// Between two reads. Default: 300s.
    pub between_bytes: Option<DurationOrNever>,
    /// After this much silence a comment is sent, between two events. Default: never.
    pub heartbeat: Option<DurationOrNever>,
}

/// How responses are stored. Nothing here makes storable what the origin forbids to store.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileCachePolicy {
    /// Freshness lifetime instead of the origin's, for 200, 203, 301 and 308. Not for requests with cookies, unless
    /// `key.cookies` says what they mean. Default: the origin's.
    pub ttl: Option<DurationText>,
    /// Freshness lifetime where the origin gives none, under the same conditions. Default: heuristic.
    pub default_ttl: Option<DurationText>,
    /// How long a stale response is served while it is fetched anew. Default: the origin's.
    pub stale_while_revalidate: Option<DurationText>,
    /// How long a stale response is served when the upstream fails. Default: the origin's.
    pub stale_if_error: Option<DurationText>,
    /// How long a response that has a validator is kept after its freshness, to be confirmed. Default: 10m.
    pub keep: Option<DurationText>,
    /// What the route's responses may take of the memory together. Default: all of it.
    pub max_size: Option<SizeText>,
    /// Labels for purging, beside those that the origin gives. May hold what the path captures: `user-{id}`.
    pub tags: Option<List<String>>,
    /// What becomes of Cache-Tag, Surrogate-Key and xkey, in which origins label responses. Default: strip.
    pub tag_fields: Option<TagFieldsName>,
    /// What selects a stored response beside scheme, host and path.
    pub key: Option<FileKey>,
    /// Freshness lifetime by status, also for errors, instead of the origin's.
    pub statuses: Option<Map<DurationText>>,
    /// What is done with responses that set a cookie. Default: bypass, they are not stored.
    pub set_cookie: Option<SetCookieName>,
    /// Whether the client's Cache-Control counts. Default: honour.
    pub request_directives: Option<RequestDirectivesName>,
    /// Where requests for the same response share one fetch: in each `instance`, in all of them (`cluster`, which needs `cache.redis`), or
    /// nowhere. Default: instance.
    pub collapse: Option<Collapse>,
    /// Validate what is asked for often shortly before it expires, so that nobody waits for it. Default: off.
    pub refresh_ahead: Option<Switch<FileRefreshAhead>>,
}

/// When a fresh response is validated because it will expire soon.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileRefreshAhead {
    /// The last part of its lifetime in which that happens, at most 50%. Default: 10%.
    pub before: Option<Percentage>,
    /// How often it has to be asked for in that time. Default: 2.
    pub min_hits: Option<u32>,
}

/// What selects a stored response.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileKey {
    /// How the query counts.
    pub query: Option<FileQueryKey>,
    /// Request fields whose values count. Those in `match.headers` and `keep_fields` always do. Default: none beside
    /// what the origin names in Vary.
    pub headers: Option<List<String>>,
    /// `ignore`, or the names of the cookies that count. Default: nothing is known of them, so that for requests with
    /// cookies only the origin's own lifetimes apply.
    pub cookies: Option<CookieKey>,
}

/// How the query counts for the cache key.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileQueryKey {
    /// Parameters that do not count; `*` stands for any characters.
    pub ignore: Option<List<String>>,
    /// The only parameters that count; `*` stands for any characters.
    pub keep: Option<List<String>>,
    /// Whether the order of parameters is of no matter. Default: false.
    pub sort: Option<bool>,
}

/// How cookies count for the cache key.
#[derive(Debug, Clone, PartialEq)]
pub enum CookieKey {
    Ignore,
    Names(List<String>),
}

impl<'de> Deserialize<'de> for CookieKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CookieKeyVisitor)
    }
}

struct CookieKeyVisitor;

impl<'de> Visitor<'de> for CookieKeyVisitor {
    type Value = CookieKey;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ignore or a list of cookie names")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<CookieKey, E> {
        match text {
            "ignore" => Ok(CookieKey::Ignore),
            _ => Err(E::invalid_value(de::Unexpected::Other("text"), &self)),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<CookieKey, A::Error> {
        List::deserialize(SeqAccessDeserializer::new(items)).map(CookieKey::Names)
    }
}

impl JsonSchema for CookieKey {
    fn schema_name() -> Cow<'static, str> {
        "CookieKey".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "const": "ignore" }, generator.subschema_for::<List<String>>()] })
    }
}

/// What is done with responses that set a cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SetCookieName {
    /// They are not stored.
    Bypass,
    /// They are stored without the cookie.
    Strip,
}

/// What becomes of the fields in which origins label responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TagFieldsName {
    /// Clients do not see them.
    Strip,
    /// They go on, for another cache in front.
    Pass,
}

/// Whether the client's Cache-Control counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RequestDirectivesName {
    /// What it asks for is done.
    Honour,
    /// Nobody can have a fetch of their own.
    Ignore,
}

/// Compression of responses.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileCompression {
    /// Smaller responses stay as they are. Default: 1KiB.
    pub min_size: Option<SizeText>,
    /// In the order of preference. Default: zstd, br, gzip.
    pub codings: Option<List<CodingName>>,
    /// Content types; `*` stands for any characters. Default: text, JSON, JavaScript, XML, SVG, WebAssembly and fonts
    /// that are not compressed by themselves.
    pub types: Option<List<String>>,
    /// Whether event streams are compressed, too, and flushed behind each event. Default: false.
    pub events: Option<bool>,
    /// Which responses that may be about one client are compressed. Default: public.
    pub authenticated: Option<AuthenticatedName>,
    /// Whether what the cache stores is compressed against an older version that the client still has, where the origin offers that with
    /// `Use-As-Dictionary` (RFC 9842). Default: false.
    pub dictionaries: Option<bool>,
    /// How long what has come may wait for more before it is sent. Default: 20ms.
    pub flush_after: Option<DurationText>,
    /// While a response passes. Default: gzip 6, br 5, zstd 3.
    pub live_levels: Option<FileLevels>,
    /// For stored responses that are asked for again. Default: gzip 9, br 11, zstd 19.
    pub stored_levels: Option<FileLevels>,
}

/// How hard to try, by coding.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileLevels {
    /// 1 to 9.
    pub gzip: Option<u32>,
    /// 0 to 11.
    pub br: Option<u32>,
    /// 1 to 19.
    pub zstd: Option<u32>,
}

/// Which responses that may be about one client are compressed. What is compressed together with something that an attacker chose can be
/// guessed from its length (BREACH).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AuthenticatedName {
    /// None to requests with `Cookie` or `Authorization`, and none that `public` leaves out.
    None,
    /// All but those that are private, set cookies or vary by `Cookie` or `Authorization`.
    Public,
    /// All.
    All,
}

/// A content coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CodingName {
    Zstd,
    Br,
    Gzip,
}
