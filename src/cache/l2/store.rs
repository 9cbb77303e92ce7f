//! Writes responses, each where a lookup finds it.
//!
//! A response without `Vary` stands under the name of its key, unless variants have been there before it, or come after: then it is one of
//! them, whose list of fields is empty. So neither takes the other's place, and a lookup can prefer the one that fits best (RFC 9111 §4.1).

use std::time::Duration;

use bytes::Bytes;
use redis::Value as Answer;
use tokio::time::Instant;

use super::{OFFLOAD, Shared, Write, variant_name};
use crate::cache::codec::{self, Index, MAX_INDEX, MAX_LISTS, Value};
use crate::cache::epochs::{Since, Subject};
use crate::cache::lease::Outcome;
use crate::key::CacheKey;
use crate::metrics::{RedisFault, RedisOperation};
use crate::redis::{RedisError, Script};
use crate::rfc9111::date::Timestamp;

/// Nothing is written for a shorter time.
const SHORTEST: Duration = Duration::from_secs(1);

/// Nothing is written for a longer time, whatever its lifetime: the server adds it to its own time.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// Where a value says what it is; see [`codec`].
const KIND_AT: usize = 20;
const KIND_RESPONSE: u8 = 1;
const KIND_INDEX: u8 = 2;

/// How often an index is written anew because another instance has just done so.
const ATTEMPTS: usize = 3;

/// Puts an index where the one that was read still stands, or where there is none; a response that stands there becomes one of its
/// variants. Answers 0 where something else has come in between: what was removed meanwhile must not come back.
static PUT_INDEX: Script = Script::new(
    r"
local kind = redis.call('GETRANGE', KEYS[1], 20, 20)
if ARGV[1] ~= '' or kind == '\2' then
  if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
elseif kind == '\1' then
  redis.call('RENAME', KEYS[1], KEYS[2])
end
redis.call('SET', KEYS[1], ARGV[2], 'PXAT', ARGV[3])
return 1
",
);

/// What came of a response that was to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    Stored,
    /// It has been purged, or nobody knows whether it has.
    Purged,
    /// It cannot be written.
    Unwritable,
}

impl Written {
    /// What the other instances are told.
    pub(super) fn outcome(result: &Result<Self, RedisError>) -> Outcome {
        match result {
            Ok(Self::Stored) => Outcome::Stored,
            // Where the answer was late, those who look find it all the same.
            Ok(Self::Purged) | Err(_) => Outcome::Abandoned,
            Ok(Self::Unwritable) => Outcome::TooLarge,
        }
    }
}

/// What stands under the name of a key.
pub(super) enum Standing {
    Nothing,
    /// One without variants.
    Response,
    Index {
        index: Index,
        /// As it was read.
        bytes: Vec<u8>,
        /// What is left of its time.
        left: Duration,
    },
}

/// How long something is kept: for so long, which is until then by the server's clock, in milliseconds since 1970.
#[derive(Clone, Copy)]
struct Life {
    ttl: Duration,
    end: u64,
}

impl Shared {
    pub(super) fn is_valid(&self, write: &Write) -> bool {
        let subject = Subject {
            key: &write.key,
            route: &write.route,
            labels: write.stored.meta.labels().map_or(&[], |labels| labels.as_slice()),
        };
        self.epochs.since(write.began.local, subject) == Since::Nothing
    }

    /// Writes a response, unless its URI has been invalidated since it was asked for.
    pub(super) async fn store(&self, write: &Write, deadline: Instant) -> Result<Written, RedisError> {
        // What was asked for while nobody knew what is purged cannot be compared with purges later.
        let Some(mark) = write.began.mark.filter(|_| self.is_valid(write)) else {
            return Ok(Written::Purged);
        };
        if !self.redis.is_available() {
            self.redis
                .metrics()
                .fault(RedisOperation::Store, RedisFault::Unavailable);
            return Err(RedisError::Unavailable);
        }
        let coded = if write.stored.body.len() > OFFLOAD {
            let stored = write.stored.clone();
            match tokio::task::spawn_blocking(move || codec::compress(&stored)).await {
                Ok(coded) => coded,
                Err(_) => return Ok(Written::Unwritable),
            }
        } else {
            codec::compress(&write.stored)
        };
        let meta = &write.stored.meta;
        let now = Timestamp::from(self.clock.now());
        let ttl = self.ttl(write, now);
        let name = self.name(&write.key);
        let Some(server_time) = self.redis.server_time(name.as_bytes()) else {
            return Err(RedisError::Unavailable);
        };
        let end = server_time.saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
        let key = write.key.as_bytes();
        let Some(value) = codec::encode(key, &write.stored, mark, &coded, meta.age(now), server_time) else {
            return Ok(Written::Unwritable);
        };
        let Some(place) = self.place(write, &name, Life { ttl, end }, deadline).await? else {
            return Ok(Written::Unwritable);
        };
        let mut set = redis::cmd("SET");
        set.arg(place).arg(value).arg("PXAT").arg(end);
        self.redis.run_until(RedisOperation::Store, &set, deadline).await?;
        // An invalidation in between may have come too early to find it.
        if !self.is_valid(write) {
            self.remove(&name).await?;
            return Ok(Written::Purged);
        }
        Ok(Written::Stored)
    }

    /// How long it is worth keeping.
    pub(super) fn ttl(&self, write: &Write, now: Timestamp) -> Duration {
        let longest = self.redis.config().max_ttl.unwrap_or(LONGEST).min(LONGEST);
        let useless_from = write.stored.meta.useless_from(write.windows, write.keep);
        useless_from.since(now).min(longest).max(SHORTEST)
    }

    /// The name to write a response to, so that a lookup finds it. `None`: too much stands there already, or it keeps changing.
    async fn place(
        &self,
        write: &Write,
        name: &str,
        life: Life,
        deadline: Instant,
    ) -> Result<Option<String>, RedisError> {
        let variant = &write.stored.meta.variant;
        let list: Vec<String> = variant.nominated().map(|(field, _)| field.to_owned()).collect();
        for _ in 0..ATTEMPTS {
            let standing = self.standing(RedisOperation::Store, &write.key, name, deadline).await?;
            let mut life = life;
            let (before, index) = match standing {
                Standing::Nothing | Standing::Response if list.is_empty() => return Ok(Some(name.to_owned())),
                Standing::Index { index, left, .. } if index.lists.contains(&list) => {
                    if left < life.ttl {
                        // Only where it still is: what was removed meanwhile must not come back.
                        let mut extend = redis::cmd("PEXPIREAT");
                        extend.arg(name).arg(life.end);
                        self.redis.run_until(RedisOperation::Store, &extend, deadline).await?;
                    }
                    return Ok(Some(variant_name(name, index.nonce, variant.nominated())));
                }
                Standing::Nothing => (Vec::new(), new_index(vec![list.clone()])),
                Standing::Response => (Vec::new(), new_index(vec![list.clone(), Vec::new()])),
                Standing::Index { mut index, bytes, left } => {
                    life.extend(left);
                    index.lists.truncate(MAX_LISTS - 1);
                    index.lists.insert(0, list.clone());
                    (bytes, index)
                }
            };
            let Some(after) = index.encode(write.key.as_bytes()) else {
                return Ok(None);
            };
            let unvaried = variant_name(name, index.nonce, std::iter::empty::<(&str, Option<&[u8]>)>());
            let end = life.end.to_string();
            let keys = [name.as_bytes(), unvaried.as_bytes()];
            let arguments = [before.as_slice(), after.as_slice(), end.as_bytes()];
            let put = self
                .redis
                .run_script(RedisOperation::Store, &PUT_INDEX, &keys, &arguments, deadline)
                .await?;
            if put == Answer::Int(1) {
                return Ok(Some(variant_name(name, index.nonce, variant.nominated())));
            }
        }
        Ok(None)
    }

    /// What stands under the name of a key.
    pub(super) async fn standing(
        &self,
        operation: RedisOperation,
        key: &CacheKey,
        name: &str,
        deadline: Instant,
    ) -> Result<Standing, RedisError> {
        let mut kind = redis::cmd("GETRANGE");
        kind.arg(name).arg(KIND_AT).arg(KIND_AT);
        match self.redis.run_until(operation, &kind, deadline).await? {
            Answer::BulkString(kind) if kind == [KIND_INDEX] => {}
            Answer::BulkString(kind) if kind == [KIND_RESPONSE] => return Ok(Standing::Response),
            _ => return Ok(Standing::Nothing),
        }
        let mut commands = redis::pipe();
        commands.cmd("PTTL").arg(name);
        commands.cmd("GETRANGE").arg(name).arg(0).arg(MAX_INDEX);
        let answers = self.redis.run_all(operation, &commands, deadline).await?;
        let Ok([Answer::Int(left), Answer::BulkString(bytes)]) = <[Answer; 2]>::try_from(answers) else {
            return Ok(Standing::Nothing);
        };
        let left = Duration::from_millis(u64::try_from(left).unwrap_or(0));
        match codec::decode(&Bytes::copy_from_slice(&bytes), key.as_bytes(), 0) {
            Ok(Value::Index(index)) => Ok(Standing::Index { index, bytes, left }),
            // Nobody can read it.
            Ok(Value::Response(_)) | Err(_) => {
                self.remove(name).await?;
                Ok(Standing::Nothing)
            }
        }
    }
}

impl Life {
    /// At least for what is left of another one's time.
    fn extend(&mut self, left: Duration) {
        let more = left.saturating_sub(self.ttl);
        self.ttl += more;
        self.end = self
            .end
            .saturating_add(u64::try_from(more.as_millis()).unwrap_or(u64::MAX));
    }
}

fn new_index(lists: Vec<Vec<String>>) -> Index {
    Index {
        nonce: fastrand::u64(..),
        lists,
    }
}
