//! A connection for one task alone.

use redis::{Cmd, Pipeline, Value};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::connect::{self, Connection, Use};
use super::error::RedisError;
use crate::config;

/// A connection that nobody else uses, for commands that block or listen. It has no deadlines of its own; once it breaks, every command
/// fails at once, and another one has to be made.
pub struct Dedicated {
    connection: Connection,
    /// Dropped with it, which closes the connection.
    _driver: JoinSet<()>,
}

impl std::fmt::Debug for Dedicated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dedicated").finish_non_exhaustive()
    }
}

impl Dedicated {
    pub(super) async fn connect(config: &config::Redis, purpose: Use) -> Result<Self, RedisError> {
        let (connection, driver) = connect::connect(config, purpose).await?;
        let mut tasks = JoinSet::new();
        if let Some(driver) = driver {
            tasks.spawn(driver);
        }
        Ok(Self {
            connection,
            _driver: tasks,
        })
    }

    /// # Errors
    /// When the connection breaks, or Redis answers an error.
    pub async fn run(&mut self, command: &Cmd) -> Result<Value, RedisError> {
        Ok(self.connection.send(command).await?)
    }

    /// # Errors
    /// As [`Self::run`], or when the deadline is over. The answer may still be under way then: make another connection.
    pub async fn run_until(&mut self, command: &Cmd, deadline: Instant) -> Result<Value, RedisError> {
        match tokio::time::timeout_at(deadline, self.connection.send(command)).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(RedisError::Timeout),
        }
    }

    /// # Errors
    /// As [`Self::run`]; also when one of the commands fails.
    pub async fn run_all(&mut self, commands: &Pipeline) -> Result<Vec<Value>, RedisError> {
        Ok(self.connection.send_all(commands).await?)
    }
}
