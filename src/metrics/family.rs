//! Every metric: its name, kind, labels and what it says.

use prometheus::proto::MetricType;

/// One metric family: all that its exposition says beside the samples.
#[derive(Debug)]
pub(crate) struct Family {
    pub(crate) name: &'static str,
    pub(crate) kind: MetricType,
    pub(crate) labels: &'static [&'static str],
    pub(crate) help: &'static str,
}

macro_rules! families {
    ($($id:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        impl Family {
            $(pub(crate) const $id: Family =
                Family { name: $name, kind: MetricType::$kind, labels: &[$($label),*], help: $help };)*
            /// The table, in one piece.
            pub(crate) const ALL: &'static [Family] = &[$(Family::$id),*];
        }
    };
}

families! {
    HTTP_REQUESTS = COUNTER "forebay_http_requests_total" ["route", "method", "status"]
        "Requests answered, by route, method and status code.";
    HTTP_DURATION = HISTOGRAM "forebay_http_request_duration_seconds" ["route"]
        "Time from a request's first byte to the last byte of its response.";
    CACHE_REQUESTS = COUNTER "forebay_cache_requests_total" ["route", "result"]
        "Requests by what the cache did for them: where the response came from, or why it was forwarded (RFC 9211 fwd).";
    RESPONSE_BYTES = COUNTER "forebay_http_response_bytes_total" ["route", "source"]
        "Bytes of response bodies sent to clients, by whether the origin had to send them for that.";
    CACHE_BYTES = GAUGE "forebay_cache_bytes" ["tier"]
        "Bytes that stored responses take up, bookkeeping included.";
    CACHE_STORED_RESPONSES = GAUGE "forebay_cache_stored_responses" ["tier"]
        "Responses in the cache.";
    CACHE_EVICTIONS = COUNTER "forebay_cache_evictions_total" []
        "Stored responses that were removed to make room.";
    DICTIONARY_BYTES = GAUGE "forebay_dictionary_bytes" []
        "Bytes of what new versions of assets are compressed against (RFC 9842).";
    CACHE_PURGES = COUNTER "forebay_cache_purges_total" ["what"]
        "Purges asked for here, those of unsafe requests (RFC 9111 §4.4) among them, by what they name.";
    CACHE_AHEAD = COUNTER "forebay_cache_refreshed_ahead_total" []
        "Stored responses that were validated shortly before they expired.";
    UPSTREAM_REQUESTS = COUNTER "forebay_upstream_requests_total" ["upstream", "server", "outcome"]
        "Attempts to get a response from a server, by how they ended.";
    UPSTREAM_DURATION = HISTOGRAM "forebay_upstream_duration_seconds" ["upstream"]
        "Time from the start of an attempt to the head of its response.";
    RATE_LIMITED = COUNTER "forebay_rate_limited_total" ["limit", "reason"]
        "Requests that a limit refused, by reason; dry_run is what a limit that only counts would have refused.";
    RATE_LIMIT_TOKENS = COUNTER "forebay_rate_limit_tokens_total" ["limit", "state"]
        "Tokens of limits that count them: reserved when requests came, and used in the end.";
    RATE_LIMIT_SETTLED = COUNTER "forebay_rate_limit_settled_total" ["limit", "by"]
        "Requests that have taken tokens, by how their number was found out.";
    RATE_LIMIT_BYTES = GAUGE "forebay_rate_limit_bytes" []
        "Memory for what clients have used of their limits.";
    REDIS_DURATION = HISTOGRAM "forebay_redis_duration_seconds" ["operation"]
        "Time from a command to the end of its answer, by what it is for.";
    REDIS_ERRORS = COUNTER "forebay_redis_errors_total" ["operation", "kind"]
        "Commands that came to nothing, by what they were for and why.";
    REDIS_UP = GAUGE "forebay_redis_up" []
        "1 while Redis is used, 0 while requests go on without it.";
    COHERENCE_FOLLOWED = GAUGE "forebay_coherence_followed" []
        "1 while the purges of all instances are followed, 0 while they are not; then nothing is read from Redis.";
    COHERENCE_WAITING = GAUGE "forebay_coherence_waiting_purges" []
        "Purges that wait to be recorded in Redis.";
    REDIS_SILENT_NODES = GAUGE "forebay_redis_silent_nodes" []
        "Masters of a Redis Cluster that do not answer; their keys are left alone.";
    LEASES_HEARD = GAUGE "forebay_leases_heard" []
        "1 while it is heard how other instances' fetches end, 0 while it is not; then nobody waits for them.";
    LEASES_WAITING = GAUGE "forebay_leases_waiting" []
        "Fetches of other instances that are waited for.";
    REDIS_LEASES = COUNTER "forebay_redis_leases_total" ["result"]
        "Fetches that all instances share, by what came of asking for one.";
    REDIS_WRITES_DROPPED = COUNTER "forebay_redis_writes_dropped_total" []
        "Responses that were not written because too many waited to be.";
    UPSTREAM_QUEUED = GAUGE "forebay_upstream_queued" ["upstream"]
        "Requests that wait because every server of the upstream has as many as its max_connections.";
    UPSTREAM_QUEUE_REFUSED = COUNTER "forebay_upstream_queue_refused_total" ["upstream"]
        "Requests that were refused because too many waited for a server, or none had room in time.";
    GATE_IN_FLIGHT = GAUGE "forebay_concurrency_in_flight" ["gate"]
        "Requests that hold a place of a concurrency limit.";
    GATE_QUEUED = GAUGE "forebay_concurrency_queued" ["gate"]
        "Requests that wait for a place.";
    GATE_PLACES = GAUGE "forebay_concurrency_places" ["gate"]
        "Places of a concurrency limit; an adaptive one changes them.";
    GATE_REFUSED = COUNTER "forebay_concurrency_refused_total" ["gate", "reason"]
        "Requests that got no place, by reason.";
    UPSTREAM_HEALTHY = GAUGE "forebay_upstream_healthy" ["upstream", "server"]
        "1 while a server may be given requests: 0 while probes fail, while it is ejected for its failures, or while it is drained. A name \
         with several addresses counts those that may.";
    CIRCUIT_STATE = GAUGE "forebay_circuit_state" ["upstream"]
        "State of an upstream's circuit breaker: 0 closed, 1 half-open, 2 open.";
    RETRIES = COUNTER "forebay_retries_total" ["upstream"]
        "Attempts at a request after its first.";
    STREAMS_ACTIVE = GAUGE "forebay_streams_active" ["route"]
        "Event streams that are open.";
    STREAM_FIRST_EVENT = HISTOGRAM "forebay_stream_first_event_seconds" ["route"]
        "Time from a request's first byte to the first body bytes of its event stream.";
    COMPRESSIONS = COUNTER "forebay_compressions_total" ["coding", "result"]
        "Bodies that were compressed, or read for clients that cannot, by what came of it.";
    CONNECTIONS = GAUGE "forebay_connections" ["listener"]
        "Client connections that are open.";
    STEADY_CONNECTIONS = GAUGE "forebay_connections_steady" []
        "Client connections whose requests are all answered at once, without a task of their own.";
    IN_FLIGHT = GAUGE "forebay_in_flight" []
        "Requests that are being served.";
    CONFIG_RELOADS = COUNTER "forebay_config_reloads_total" ["result"]
        "Attempts to reload the configuration.";
    LOG_DROPPED = COUNTER "forebay_log_dropped_total" []
        "Access log entries lost because the log's destination was too slow or failed.";
    BUILD_INFO = GAUGE "forebay_build_info" ["version"]
        "Always 1; the label says which version runs.";
}
