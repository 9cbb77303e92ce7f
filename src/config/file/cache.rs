use schemars::JsonSchema;
use serde::Deserialize;

use super::route::FileMatch;
use super::scalar::{DurationOrNever, DurationText, Rate, SizeText};
use super::shape::List;

/// What is stored, and where.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileCache {
    /// The longest heuristic freshness lifetime (RFC 9111 §4.2.2); 0s switches it off. Default: 1m.
    pub heuristic_max: Option<DurationText>,
    /// Targeted cache control fields (RFC 9213), the most specific first. One that is there takes the place of
    /// Cache-Control. Default: CDN-Cache-Control.
    pub targeted_fields: Option<List<String>>,
    /// The first tier.
    pub memory: Option<FileMemory>,
    /// The second tier. Default: none.
    pub redis: Option<FileRedis>,
    /// Fill the cache before clients ask.
    pub warm: Option<FileWarm>,
    /// What else is purged after a successful unsafe request, beside its own URI (RFC 9111 §4.4).
    pub invalidate: Option<List<FileInvalidate>>,
}

/// The tier in memory.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileMemory {
    /// For everything that is stored, bookkeeping included. Default: 256MiB.
    pub size: Option<SizeText>,
    /// A larger response is not stored. Default: 8MiB.
    pub max_body: Option<SizeText>,
    /// The longest time after its arrival that a response counts as fresh. Default: never, it is not shortened.
    pub max_ttl: Option<DurationOrNever>,
    /// What goes when the tier is full. Default: s3_fifo.
    pub eviction: Option<EvictionName>,
    /// For older versions of assets that newer ones are compressed against, where a route has `compression.dictionaries`; beside
    /// `size`. Default: 32MiB.
    pub dictionaries: Option<SizeText>,
}

/// What goes when a tier is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EvictionName {
    /// What was not asked for again soon after it came, then the oldest.
    S3Fifo,
    /// What was not asked for the longest.
    Lru,
    /// What is asked for least.
    Lfu,
}

/// The tier in Redis.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileRedis {
    /// `redis://`, `rediss://`, `redis+sentinel://`, `redis+cluster://` or `unix:`.
    #[schemars(required)]
    pub url: Option<String>,
    /// A file that holds the password.
    pub password_file: Option<String>,
    /// The password, best from the environment.
    pub password: Option<String>,
    /// For `rediss`: how the server is verified.
    pub tls: Option<FileRedisTls>,
    /// Begins every key. Default: `forebay:`.
    pub prefix: Option<String>,
    /// How long a request waits for Redis. Default: 50ms.
    pub deadline: Option<DurationText>,
    /// A larger response is not stored. Default: 1MiB.
    pub max_body: Option<SizeText>,
    /// The longest time that a response stays there. Default: never, it is not shortened.
    pub max_ttl: Option<DurationOrNever>,
    /// When a response is written. Default: behind.
    pub write: Option<WriteName>,
    /// How long the first tier is trusted while purges cannot be followed. Default: never, it is trusted.
    pub coherence_timeout: Option<DurationOrNever>,
}

/// How a Redis server is verified.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileRedisTls {
    /// The name in its certificate. Default: the host that is connected to.
    pub server_name: Option<String>,
    /// A PEM file of the authorities to trust. Default: those of the system.
    pub ca: Option<String>,
    /// Default: true.
    pub verify: Option<bool>,
}

/// When a response is written to the second tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WriteName {
    /// After the client has it.
    Behind,
    /// Before the client has it.
    Through,
    /// Never.
    Around,
}

/// Fill the cache before clients ask.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileWarm {
    /// Default: true.
    pub on_start: Option<bool>,
    /// What to ask for. May be left out beside `after_purge`.
    pub sources: Option<List<FileWarmSource>>,
    /// Ask again for what was purged over the admin listener or by PURGE requests, unless the purge says otherwise. Default: false.
    pub after_purge: Option<bool>,
    /// Again and again. Default: never.
    pub every: Option<DurationOrNever>,
    /// Requests at once. Default: 8.
    pub concurrency: Option<u32>,
    /// Default: 50/s.
    pub rate: Option<Rate>,
}

/// What to ask for: one of these.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileWarmSource {
    /// A file with a URL in each line.
    pub urls: Option<String>,
    /// The URL of a sitemap, or of an index of them; may be gzip. It is fetched like any other URL: from where its route leads.
    pub sitemap: Option<String>,
    /// An access log: Forebay's own in JSON, or the combined format. GETs that were answered with 2xx count, the most frequent first.
    pub access_log: Option<String>,
    /// Beside `access_log`: scheme, and host where the log has none, like `http://example.com`. Default: http.
    pub site: Option<String>,
    /// Beside `access_log`: so many URLs of it. Default: 1000.
    pub most: Option<u32>,
    /// So many of the stored responses that were asked for most.
    pub hottest: Option<u32>,
}

/// What else is purged after a successful unsafe request.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileInvalidate {
    /// Which requests.
    #[schemars(required)]
    pub when: Option<FileMatch>,
    /// May hold what the path captures: `user-{id}`.
    pub purge_tags: Option<List<String>>,
    /// Beside or instead of tags, paths of the same site: `/api/users/{id}/*`; `*` stands for any characters. Each has all that is stored
    /// looked through.
    pub purge_globs: Option<List<String>>,
}
