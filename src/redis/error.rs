//! Why a command came to nothing, in the words of the metrics.

use redis::{ErrorKind, ServerErrorKind};

use crate::metrics::RedisFault;

/// Why a command came to nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RedisError {
    /// It was not sent: there is no connection, or the last commands failed.
    #[error("Redis is away")]
    Unavailable,
    #[error("no answer in time")]
    Timeout,
    #[error("{0}")]
    Failed(#[from] redis::RedisError),
}

impl RedisError {
    pub fn fault(&self) -> RedisFault {
        match self {
            Self::Unavailable => RedisFault::Unavailable,
            Self::Timeout => RedisFault::Timeout,
            Self::Failed(error) => fault(error),
        }
    }

    /// Whether it says that Redis as a whole does not serve now: others would only wait for the same. What a server refuses at once
    /// because of the command does not count.
    pub(super) fn is_outage(&self) -> bool {
        if let Self::Failed(error) = self
            && let ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::Ask | ServerErrorKind::TryAgain) =
                error.kind()
        {
            // The node is well, and knows better.
            return false;
        }
        match self.fault() {
            RedisFault::Timeout
            | RedisFault::Connection
            | RedisFault::Loading
            | RedisFault::Busy
            | RedisFault::Auth
            | RedisFault::Cluster
            | RedisFault::Protocol => true,
            RedisFault::Unavailable
            | RedisFault::ReadOnly
            | RedisFault::OutOfMemory
            | RedisFault::NoScript
            | RedisFault::ValueVersion
            | RedisFault::ValueKey
            | RedisFault::ValueBroken
            | RedisFault::Other => false,
        }
    }
}

fn fault(error: &redis::RedisError) -> RedisFault {
    if error.is_timeout() {
        return RedisFault::Timeout;
    }
    match error.kind() {
        ErrorKind::Io | ErrorKind::ClusterConnectionNotFound => RedisFault::Connection,
        ErrorKind::MasterNameNotFoundBySentinel => RedisFault::Cluster,
        ErrorKind::AuthenticationFailed => RedisFault::Auth,
        ErrorKind::Parse | ErrorKind::UnexpectedReturnType => RedisFault::Protocol,
        ErrorKind::Server(kind) => match kind {
            ServerErrorKind::BusyLoading => RedisFault::Loading,
            ServerErrorKind::ReadOnly => RedisFault::ReadOnly,
            ServerErrorKind::NoScript => RedisFault::NoScript,
            // A command that this user may not use is no outage of the others; a user that may do nothing finds out at the probe.
            ServerErrorKind::NoPerm => RedisFault::Other,
            ServerErrorKind::Moved
            | ServerErrorKind::Ask
            | ServerErrorKind::TryAgain
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::MasterDown => RedisFault::Cluster,
            _ => RedisFault::Other,
        },
        _ => match error.code() {
            Some("OOM") => RedisFault::OutOfMemory,
            Some("BUSY") => RedisFault::Busy,
            Some("NOAUTH" | "WRONGPASS") => RedisFault::Auth,
            _ => RedisFault::Other,
        },
    }
}
