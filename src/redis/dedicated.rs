//! A connection for one task alone.

use std::sync::Arc;

use redis::{Cmd, Pipeline, Value};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Shared;
use super::connect::{self, Connection, Use};
use super::error::RedisError;
use super::slots::Place;

/// A connection that nobody else uses, for commands that block or listen. It has no deadlines of its own; once it breaks, every command
/// fails at once, and another one has to be made.
pub struct Dedicated {
    connection: Connection,
    shared: Arc<Shared>,
    /// Dropped with it, which closes the connection.
    _driver: JoinSet<()>,
}

impl std::fmt::Debug for Dedicated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dedicated").finish_non_exhaustive()
    }
}

impl Dedicated {
    /// `node`: of a cluster.
    pub(super) async fn connect(shared: &Arc<Shared>, node: Option<&Place>, purpose: Use) -> Result<Self, RedisError> {
        let (connection, driver) = connect::connect(&shared.config, node, purpose).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(driver);
        Ok(Self {
            connection,
            shared: shared.clone(),
            _driver: tasks,
        })
    }

    /// # Errors
    /// When the connection breaks, or Redis answers an error.
    pub async fn run(&mut self, command: &Cmd) -> Result<Value, RedisError> {
        let answer = self.connection.send(command).await;
        self.heed(answer)
    }

    /// # Errors
    /// As [`Self::run`], or when the deadline is over. The answer may still be under way then: make another connection.
    pub async fn run_until(&mut self, command: &Cmd, deadline: Instant) -> Result<Value, RedisError> {
        match tokio::time::timeout_at(deadline, self.connection.send(command)).await {
            Ok(answer) => self.heed(answer),
            Err(_) => Err(RedisError::Timeout),
        }
    }

    /// A key that has moved is found anew.
    fn heed(&self, answer: Result<Value, redis::RedisError>) -> Result<Value, RedisError> {
        if let (Err(error), Some(cluster)) = (&answer, &self.shared.cluster)
            && error.redirect_node().is_some()
        {
            cluster.doubt();
        }
        Ok(answer?)
    }

    /// # Errors
    /// As [`Self::run`]; also when one of the commands fails.
    pub async fn run_all(&mut self, commands: &Pipeline) -> Result<Vec<Value>, RedisError> {
        Ok(self.connection.send_all(commands).await?)
    }
}
