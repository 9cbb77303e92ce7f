//! The words that label values are made of. Logs and fields that speak of the same thing use the same words.

use std::fmt;

/// Defines an enum whose variants are words: of a label, and wherever else the same thing is said.
macro_rules! words {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// All words, in the order of their declaration.
            pub const ALL: &'static [$name] = &[$($name::$variant),*];
            pub(crate) const COUNT: usize = Self::ALL.len();

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// What the cache did for a request. The same word stands in the metric, the access log and, where RFC 9211 has one for it
    /// (§2.2 `fwd`: from [`Bypass`](Self::Bypass) on), in `Cache-Status`.
    pub enum CacheResult {
        /// A fresh stored response from memory.
        HitL1 = "hit_l1",
        /// A fresh stored response from Redis.
        HitL2 = "hit_l2",
        /// A stored response that was no longer fresh (RFC 9111 §4.2.4).
        ServedStale = "served_stale",
        /// The response that another request had fetched.
        Collapsed = "collapsed",
        /// A stored response that the origin confirmed with a 304 (RFC 9111 §4.3).
        Revalidated = "revalidated",
        /// The route does not cache.
        Bypass = "bypass",
        /// The request's method is not answered from a cache.
        Method = "method",
        /// Nothing is stored under this URI.
        UriMiss = "uri-miss",
        /// Something is stored under this URI, but no variant for this request.
        VaryMiss = "vary-miss",
        /// There was no stored response, and it is not known at which step.
        Miss = "miss",
        /// There was a fresh stored response, but the request did not accept it.
        Request = "request",
        /// The stored response was stale.
        Stale = "stale",
        /// Only a part of the response was stored.
        Partial = "partial",
    }
}

words! {
    /// Whether the origin had to send what the client got.
    pub enum BytesFrom {
        /// A stored response, or another request's fetch.
        Cache = "cache",
        Origin = "origin",
    }
}

impl CacheResult {
    /// Where the body came from.
    pub fn bytes_from(self) -> BytesFrom {
        match self {
            Self::HitL1 | Self::HitL2 | Self::ServedStale | Self::Collapsed | Self::Revalidated => BytesFrom::Cache,
            Self::Bypass
            | Self::Method
            | Self::UriMiss
            | Self::VaryMiss
            | Self::Miss
            | Self::Request
            | Self::Stale
            | Self::Partial => BytesFrom::Origin,
        }
    }
}

words! {
    /// How an attempt to get a response from a server ended.
    pub enum Outcome {
        /// A response with a status below 500, whole as far as the client wanted it.
        Ok = "ok",
        /// A response with a status of 500 or more.
        ServerError = "server_error",
        ConnectError = "connect_error",
        ConnectTimeout = "connect_timeout",
        /// The handshake failed, or the certificate was not to be trusted.
        TlsError = "tls_error",
        /// No byte, or no progress, within the upstream's time.
        Timeout = "timeout",
        /// The connection was closed or reset before the response's head was there.
        Reset = "reset",
        /// The response could not be understood.
        InvalidResponse = "invalid_response",
        /// The response broke off.
        Incomplete = "incomplete",
        /// The client left first.
        ClientGone = "client_gone",
    }
}

impl Outcome {
    /// Whether the server could not be reached, or did not keep to the protocol or its time.
    pub fn is_failure(self) -> bool {
        !matches!(self, Self::Ok | Self::ServerError | Self::ClientGone)
    }

    /// Whether it speaks against the server: what another server would not have done. Statuses are looked at where they come in.
    pub fn speaks_against_server(self) -> bool {
        match self {
            Self::ConnectError
            | Self::ConnectTimeout
            | Self::TlsError
            | Self::Timeout
            | Self::Reset
            | Self::Incomplete => true,
            // What cannot be understood may be the answer to just this request, and who sends it could make others fail.
            Self::Ok | Self::ServerError | Self::InvalidResponse | Self::ClientGone => false,
        }
    }
}

words! {
    /// Why a limit refused a request. The same word stands in the metric and the access log.
    pub enum LimitReason {
        /// There was nothing left.
        Excess = "excess",
        /// There had been nothing left a while ago (`block_for`).
        Blocked = "blocked",
        /// It was not refused, but would have been.
        DryRun = "dry_run",
    }
}

words! {
    /// How the tokens of a request were found out.
    pub enum Settled {
        /// The answer said so.
        Usage = "usage",
        /// By the length of what the model said.
        Text = "text",
        /// It could not be found out: what was taken for it counts.
        Estimate = "estimate",
        /// It came to nothing, and took none.
        Nothing = "nothing",
    }
}

words! {
    /// What came of compressing a body.
    pub enum Compressed {
        /// It was compressed while it passed.
        Live = "live",
        /// The same with a dictionary.
        LiveDictionary = "live_dictionary",
        /// It was read, while it passed or out of the cache, for a client that cannot.
        Decoded = "decoded",
        /// A stored one was compressed, for all who ask for it.
        Stored = "stored",
        /// A stored one was compressed with a dictionary, for all who have that.
        Dictionary = "dictionary",
        /// A stored one that is asked for again was compressed better.
        Best = "best",
        /// Another instance had compressed a stored one already.
        Shared = "shared",
        /// A stored one does not get much smaller.
        Worthless = "worthless",
        /// It could not be read, or there was no memory.
        Failed = "failed",
        /// There was too much else to do: it was sent as it came.
        Busy = "busy",
    }
}

words! {
    /// Why a request got no place.
    pub enum GateReason {
        /// As many waited as may.
        QueueFull = "queue_full",
        /// It waited for as long as it may.
        Timeout = "timeout",
    }
}

words! {
    /// What a purge names.
    pub enum PurgeKind {
        Uri = "uri",
        /// A tag, or a group of RFC 9875.
        Tag = "tag",
        Prefix = "prefix",
        Glob = "glob",
        Host = "host",
        Route = "route",
        Everything = "everything",
    }
}

words! {
    /// How an attempt to reload the configuration ended.
    pub enum Reload {
        /// The new configuration is in force.
        Applied = "applied",
        /// It had errors, or needs a restart: the old one stays in force.
        Refused = "refused",
    }
}

words! {
    /// What came of asking to fetch for all instances.
    pub enum LeaseResult {
        /// This one fetched.
        Led = "led",
        /// Another one told how its fetch ended.
        Followed = "followed",
        /// Another one's fetch was not heard of in time.
        Expired = "expired",
        /// Nobody waited: Redis did not say, or such responses are not stored.
        Refused = "refused",
    }
}

words! {
    /// What a command to Redis is for.
    pub enum RedisOperation {
        /// A stored response is looked for.
        Get = "get",
        /// A response is stored.
        Store = "store",
        /// What is stored is removed.
        Delete = "delete",
        /// Is it there, and what is its time?
        Probe = "probe",
        /// A connection is made.
        Connect = "connect",
        /// One fetch for all instances.
        Lease = "lease",
        /// A purge is told to all instances.
        Purge = "purge",
        /// The purges of others are read.
        Follow = "follow",
        /// What has been purged is looked up.
        Epoch = "epoch",
        /// A limit that instances share.
        Limit = "limit",
        /// What is asked for most, counted over all instances.
        Hot = "hot",
    }
}

words! {
    /// Why a command to Redis came to nothing.
    pub enum RedisFault {
        /// There is no connection, or the last commands failed: it was not even sent.
        Unavailable = "unavailable",
        /// No answer within its time.
        Timeout = "timeout",
        /// No connection, or it broke.
        Connection = "connection",
        /// The server reads its data (`LOADING`).
        Loading = "loading",
        /// The server is a replica (`READONLY`).
        ReadOnly = "readonly",
        /// The server is full (`OOM`).
        OutOfMemory = "oom",
        /// The server runs a script that does not end (`BUSY`).
        Busy = "busy",
        /// Wrong or no password, or not permitted (`NOAUTH`, `WRONGPASS`, `NOPERM`).
        Auth = "auth",
        /// The cluster or its master is down, or slots move faster than they can be followed.
        Cluster = "cluster",
        /// The server does not know the script.
        NoScript = "noscript",
        /// What came is not what Redis answers.
        Protocol = "protocol",
        /// A stored value is of a version that is not understood.
        ValueVersion = "value_version",
        /// A stored value belongs to another key.
        ValueKey = "value_key",
        /// A stored value is not whole, or has been changed.
        ValueBroken = "value_broken",
        /// Any other error that the server answered.
        Other = "other",
    }
}
