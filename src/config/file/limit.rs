use schemars::JsonSchema;
use serde::Deserialize;

use super::scalar::{DurationText, LimitKey};

/// Limits of requests.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileRateLimits {
    /// Where requests are counted. Default: memory, each instance for itself.
    pub store: Option<LimitStore>,
    /// For every route without a limit of its own.
    pub default: Option<FileRateLimit>,
}

/// Where requests are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LimitStore {
    Memory,
    Redis,
}

/// So many requests in a time.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileRateLimit {
    #[schemars(required)]
    pub requests: Option<u32>,
    /// Default: 1s.
    pub per: Option<DurationText>,
    /// So many more at once. Default: 0.
    pub burst: Option<u32>,
    /// What requests are counted by. Default: client_ip.
    pub key: Option<LimitKey>,
    /// How long a client stays refused once it was. Default: 0s.
    pub block_for: Option<DurationText>,
    /// Whether hits count. Default: true.
    pub count_hits: Option<bool>,
}

/// How many requests may be in flight at once.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileConcurrency {
    /// Default: 1000.
    pub max_in_flight: Option<u32>,
    /// So many may wait. Default: 1000.
    pub queue: Option<u32>,
    /// Then they get 503. Default: 5s.
    pub queue_timeout: Option<DurationText>,
}
