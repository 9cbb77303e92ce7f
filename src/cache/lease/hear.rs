//! Hears how the fetches of other instances end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::{PushInfo, PushKind, Value};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{ANSWER, Shared};
use crate::metrics::{RedisFault, RedisOperation};
use crate::redis::{Dedicated, RedisError};

/// Between two attempts to listen: doubled each time.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(5);

/// How often the connection is tried while somebody waits for what comes over it.
const TRY: Duration = Duration::from_millis(250);

/// Hears of releases, from when somebody wants to wait for one.
pub(super) async fn listen(shared: Arc<Shared>) {
    shared.wanted.notified().await;
    let mut retry = FIRST_RETRY;
    let mut said = false;
    loop {
        shared.redis.available().await;
        let ended = hear(&shared).await;
        shared.redis.metrics().set_leases_heard(false);
        if shared.heard.swap(false, Ordering::AcqRel) {
            retry = FIRST_RETRY;
            said = false;
        }
        // Whoever waits now would wait in vain.
        shared.waiting.clear();
        if let Err(error) = ended
            && shared.redis.is_available()
            && !std::mem::replace(&mut said, true)
        {
            tracing::warn!(%error, "other instances cannot be heard: each fetches for itself");
        }
        tokio::time::sleep(retry.mul_f64(0.5 + fastrand::f64())).await;
        retry = (retry * 2).min(LONGEST_RETRY);
    }
}

/// Returns when the connection is lost, or Redis is away.
async fn hear(shared: &Shared) -> Result<(), RedisError> {
    let (sender, mut messages) = mpsc::unbounded_channel();
    let mut connection = shared.redis.listening(sender).await?;
    let mut subscribe = redis::cmd("SUBSCRIBE");
    subscribe.arg(&shared.channel);
    connection.run_until(&subscribe, Instant::now() + ANSWER).await?;
    shared.heard.store(true, Ordering::Release);
    shared.redis.metrics().set_leases_heard(true);
    loop {
        tokio::select! {
            message = messages.recv() => match message {
                Some(PushInfo { kind: PushKind::Message, data }) => {
                    if let Some(Value::BulkString(message)) = data.get(1) {
                        shared.tell(message);
                    }
                }
                Some(PushInfo { kind: PushKind::Disconnection, .. }) | None => return Ok(()),
                Some(_) => {}
            },
            () = shared.redis.away() => return Ok(()),
            () = tokio::time::sleep(TRY) => {
                if !shared.waiting.is_empty() {
                    is_there(&mut connection, shared.redis.config().deadline.max(TRY)).await?;
                    takes_writes(shared).await?;
                }
            }
        }
    }
}

/// Fails where the connection does not carry anything any more.
async fn is_there(connection: &mut Dedicated, patience: Duration) -> Result<(), RedisError> {
    connection
        .run_until(&redis::cmd("PING"), Instant::now() + patience)
        .await?;
    Ok(())
}

/// Fails where Redis is read only: a master that has become a replica lets no lease be released.
async fn takes_writes(shared: &Shared) -> Result<(), RedisError> {
    // There is no such key.
    let mut write = redis::cmd("PEXPIRE");
    write.arg(&shared.channel).arg(1);
    match shared.redis.run(RedisOperation::Lease, &write).await {
        Err(error) if error.fault() == RedisFault::ReadOnly => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}
