//! What is asked for most, counted over all instances and over their restarts: sorted sets in Redis, one for each period of time, to which every
//! instance adds what it has counted. The set of a period is bounded, and goes away when the next one but one begins.

use std::collections::HashMap;
use std::time::Duration;

use redis::from_redis_value;
use tokio::time::Instant;

use super::Hot;
use crate::metrics::RedisOperation;
use crate::redis::{Redis, RedisError};

/// Between two additions.
pub const EVERY: Duration = Duration::from_secs(10);

/// Keys that are told at once: what is hot is among them.
pub const MOST_TOLD: usize = 256;

/// How long one set is added to. What is not asked for any more is out of the way after twice that.
const PERIOD: Duration = Duration::from_secs(6 * 60 * 60);

/// Keys in one set: some 400 KB of Redis.
const MOST_KEPT: isize = 4096;

/// Nobody waits for it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Adds what was asked for since the last time.
///
/// # Errors
/// Redis is away, or does not answer in time; then it is not added.
pub async fn tell(redis: &Redis, news: &[Hot]) -> Result<(), RedisError> {
    let name = name(redis, period(redis)?);
    let mut commands = redis::Pipeline::with_capacity(news.len() + 2);
    for hot in news {
        commands.cmd("ZINCRBY").arg(&name).arg(hot.requests).arg(&hot.url);
    }
    // Those that come up least go.
    commands.cmd("ZREMRANGEBYRANK").arg(&name).arg(0).arg(-MOST_KEPT - 1);
    commands.cmd("EXPIRE").arg(&name).arg(2 * PERIOD.as_secs());
    redis
        .run_all(RedisOperation::Hot, &commands, Instant::now() + PATIENCE)
        .await?;
    Ok(())
}

/// The hottest of all instances, the most often asked for first.
///
/// # Errors
/// Redis is away, does not answer in time, or with something else.
pub async fn read(redis: &Redis, count: usize) -> Result<Vec<Hot>, RedisError> {
    let now = period(redis)?;
    let last = isize::try_from(count).unwrap_or(isize::MAX).min(MOST_KEPT) - 1;
    let mut commands = redis::Pipeline::with_capacity(2);
    for period in [now, now.saturating_sub(1)] {
        let name = name(redis, period);
        commands
            .cmd("ZRANGE")
            .arg(name)
            .arg(0)
            .arg(last)
            .arg("REV")
            .arg("WITHSCORES");
    }
    let answers = redis
        .run_all(RedisOperation::Hot, &commands, Instant::now() + PATIENCE)
        .await?;
    let mut sums: HashMap<String, f64> = HashMap::new();
    // What is of the period before counts half.
    for (answer, weight) in answers.into_iter().zip([1.0, 0.5]) {
        let counted: Vec<(String, f64)> = from_redis_value(answer).map_err(redis::RedisError::from)?;
        for (url, requests) in counted {
            *sums.entry(url).or_default() += requests * weight;
        }
    }
    let hot = sums.into_iter().map(|(url, requests)| Hot {
        url,
        requests: requests as u64,
    });
    Ok(super::ranked(hot.collect(), count))
}

fn period(redis: &Redis) -> Result<u64, RedisError> {
    // The server's, so that it is the same for all.
    let now = redis
        .server_time(name(redis, 0).as_bytes())
        .ok_or(RedisError::Unavailable)?;
    Ok(Duration::from_millis(now).as_secs() / PERIOD.as_secs())
}

/// In a cluster both periods are in one slot.
fn name(redis: &Redis, period: u64) -> String {
    format!("{}{{hot}}:{period}", redis.config().prefix)
}
