//! `cache.redis`, resolved: where Redis is, who we are there, and what is stored in it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::{ServerAddress, Verify};

/// Redis, or what speaks its protocol: the second tier, and whatever else instances share.
#[derive(Debug, Clone, PartialEq)]
pub struct Redis {
    pub deployment: Deployment,
    /// `None`: plain TCP, or a Unix socket.
    pub tls: Option<RedisTls>,
    /// ACL user. `None`: the default one.
    pub username: Option<String>,
    pub password: Option<Password>,
    /// Number of the database.
    pub database: u32,
    /// Begins every key.
    pub prefix: String,
    /// The longest time that a request waits for Redis.
    pub deadline: Duration,
    /// Bytes; a larger body is not stored there.
    pub max_body: u64,
    /// The longest time that a response stays there. `None`: as long as it is of use.
    pub max_ttl: Option<Duration>,
    pub write: WritePolicy,
    /// How long L1 is trusted while purges cannot be followed. `None`: as long as its responses are fresh.
    pub coherence_timeout: Option<Duration>,
}

/// Which servers make up Redis, and who knows the one to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deployment {
    Single(ServerAddress),
    /// Sentinels know which server is the master of that name.
    Sentinel {
        /// At least one, TCP.
        sentinels: Vec<ServerAddress>,
        master: String,
    },
    /// Nodes of Redis Cluster: at least one, TCP. They know the others.
    Cluster(Vec<ServerAddress>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisTls {
    /// What the certificate is verified against. `None`: the host that is connected to.
    pub server_name: Option<String>,
    /// PEM file of the authorities to trust. `None`: those of the system.
    pub ca: Option<PathBuf>,
    pub verify: Verify,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Password {
    Text(Secret),
    /// Read before each connection, so that a new password is taken up without a restart.
    File(PathBuf),
}

/// Text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// When a response is written to Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WritePolicy {
    /// After its client has it.
    Behind,
    /// Before its client has the last of it.
    Through,
    /// Never: others write.
    Around,
}
