//! Dictionaries (RFC 9842) for all instances, and beyond their lives.
//!
//! One stands under a name that is made of its origin and its digest, both of which stand in the value, too; the digest is computed again of
//! what is read. So no lookup brings anything of another origin, nor any other bytes than those that the client has. It lives as long as
//! its response is worth keeping, and a purge of that response makes it useless here as anywhere.

use std::sync::Arc;

use bytes::Bytes;
use redis::Value as Answer;
use tokio::time::Instant;

use super::{L2, OFFLOAD, Shared, Write};
use crate::cache::codec::Coded;
use crate::cache::codec::dictionary::{compress, decode, encode};
use crate::cache::dictionaries::{Dictionary, origin, place};
use crate::cache::epochs::{Since, Subject};
use crate::config::WritePolicy;
use crate::metrics::{RedisFault, RedisOperation};
use crate::redis::RedisError;
use crate::rfc9111::date::Timestamp;
use crate::transform::dictionary::Digest;

impl L2 {
    /// The dictionary of an origin that has this digest. `largest`: bytes of the largest body that is wanted. `None`: there is none, or Redis
    /// did not say so in time.
    pub async fn look_for_dictionary(
        &self,
        origin: &[u8],
        digest: &Digest,
        largest: u64,
        deadline: Instant,
    ) -> Option<Dictionary> {
        if !self.is_available() {
            return None;
        }
        self.shared.look_for_dictionary(origin, digest, largest, deadline).await
    }

    /// Has a dictionary written some time soon, unless the configuration says that nothing is, or there is too much to write. `write`: its
    /// response. To be called where it holds up nobody's request.
    pub fn write_dictionary(&self, write: Write, dictionary: Arc<Dictionary>) {
        let config = self.shared.redis.config();
        if config.write == WritePolicy::Around
            || self.is_too_large(dictionary.body.len() as u64)
            || !self.is_available()
        {
            return;
        }
        let body = compress(&dictionary);
        self.write_aside(|shared, deadline| async move {
            shared.store_dictionary(&write, &dictionary, &body, deadline).await
        });
    }
}

impl Shared {
    fn dictionary_name(&self, origin: &[u8], digest: &Digest) -> String {
        let prefix = &self.redis.config().prefix;
        format!("{prefix}d:{{{:032x}}}", place(origin, digest))
    }

    async fn look_for_dictionary(
        &self,
        origin: &[u8],
        digest: &Digest,
        largest: u64,
        deadline: Instant,
    ) -> Option<Dictionary> {
        // Purges that come while it is read are compared with it later.
        let began = self.epochs.last();
        let name = self.dictionary_name(origin, digest);
        let mut get = redis::cmd("GET");
        get.arg(&name);
        let answer = self.redis.run_until(RedisOperation::Get, &get, deadline).await.ok()?;
        let Answer::BulkString(bytes) = answer else { return None };
        let largest = largest.min(self.redis.config().max_body);
        let decoded = match decode(&Bytes::from(bytes), origin, digest, largest) {
            Ok(decoded) => decoded,
            Err(fault) => {
                self.refuse(fault, &name);
                return None;
            }
        };
        let subject = Subject {
            key: &decoded.key,
            route: &decoded.route,
            labels: &decoded.labels,
        };
        if self.coherence.since(decoded.mark, subject) == Since::Purged {
            return None;
        }
        let dictionary = match decoded.work() > OFFLOAD {
            true => tokio::task::spawn_blocking(move || decoded.into_dictionary(began))
                .await
                .unwrap_or(Err(RedisFault::ValueBroken)),
            false => decoded.into_dictionary(began),
        };
        match dictionary {
            Ok(dictionary) => Some(dictionary),
            Err(fault) => {
                self.refuse(fault, &name);
                None
            }
        }
    }

    async fn store_dictionary(
        &self,
        write: &Write,
        dictionary: &Dictionary,
        body: &Coded,
        deadline: Instant,
    ) -> Result<(), RedisError> {
        let Some(mark) = write.began.mark.filter(|_| self.is_valid(write)) else {
            return Ok(());
        };
        let Some(origin) = origin(dictionary.key()) else {
            return Ok(());
        };
        let name = self.dictionary_name(&origin, &dictionary.digest);
        let Some(server_time) = self.redis.server_time(name.as_bytes()) else {
            return Err(RedisError::Unavailable);
        };
        let ttl = self.ttl(write, Timestamp::from(self.clock.now()));
        let end = server_time.saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
        let Some(value) = encode(dictionary, body, mark) else {
            return Ok(());
        };
        let mut set = redis::cmd("SET");
        set.arg(name).arg(value).arg("PXAT").arg(end);
        self.redis.run_until(RedisOperation::Store, &set, deadline).await?;
        Ok(())
    }
}
