//! Compressed forms of stored responses: made by one instance, used by all, and there after a restart.
//!
//! A form stands under a name of its own, made of the key, the digest of the body that it was made of, and the coding; all three stand in the
//! value, too. It is looked for only by who holds that very body in a stored response that may be used, so no form is ever sent for
//! another response than its own, and what takes a response out of use takes its forms with it. A purge makes forms from before it
//! useless as well, even if the same body comes again.

use std::sync::Arc;

use bytes::Bytes;
use redis::Value as Answer;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_128;

use super::{L2, Shared, WRITE, Write};
use crate::cache::Stored;
use crate::cache::codec::form::{FormOf, decode, encode};
use crate::cache::epochs::{Since, Subject};
use crate::cache::recoded::FormBody;
use crate::config::WritePolicy;
use crate::key::CacheKey;
use crate::metrics::{RedisFault, RedisOperation};
use crate::redis::RedisError;
use crate::rfc9111::date::Timestamp;
use crate::transform::dictionary::Digest;

/// Forms and dictionaries that are written at the same time. More come only after a flood of new responses; they are not written then, and some other instance,
/// or this one after its next start, makes them again.
const AT_ONCE: usize = 32;

/// Places for writes. They begin on threads that compress, which have no runtime of their own.
pub(super) struct FormWrites {
    places: Arc<Semaphore>,
    runtime: Handle,
}

impl FormWrites {
    /// Has to be called in a runtime of tokio.
    pub(super) fn new() -> Self {
        Self {
            places: Arc::new(Semaphore::new(AT_ONCE)),
            runtime: Handle::current(),
        }
    }

    /// `None`: too many are under way.
    fn begin(&self) -> Option<OwnedSemaphorePermit> {
        self.places.clone().try_acquire_owned().ok()
    }

    fn spawn(&self, write: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(write);
    }
}

impl L2 {
    /// What another instance has made of this body. `None`: nothing, or Redis did not say so in time. Takes no longer than the deadline.
    pub async fn look_for_form(&self, key: &CacheKey, route: &str, stored: &Stored, coding: &str) -> Option<FormBody> {
        if !self.is_available() {
            return None;
        }
        let deadline = Instant::now() + self.shared.redis.config().deadline;
        self.shared.look_for_form(key, route, stored, coding, deadline).await
    }

    /// Has a form written some time soon, unless the configuration says that nothing is, or there is too much to write.
    pub fn write_form(&self, write: Write, coding: String, body: FormBody) {
        let config = self.shared.redis.config();
        let length = match &body {
            FormBody::Worthless => 0,
            FormBody::Made(body, _) => body.len() as u64,
        };
        if config.write == WritePolicy::Around || length > config.max_body || !self.is_available() {
            return;
        }
        self.write_aside(|shared, deadline| async move { shared.store_form(&write, &coding, &body, deadline).await });
    }

    /// Has `write` done beside the queue of responses, by its deadline, unless too many of its kind are under way.
    pub(super) fn write_aside<W, F>(&self, write: W)
    where
        W: FnOnce(Arc<Shared>, Instant) -> F + Send + 'static,
        F: Future<Output = Result<(), RedisError>> + Send,
    {
        let Some(place) = self.shared.form_writes.begin() else {
            self.shared.redis.metrics().drop_writes(1);
            return;
        };
        let shared = self.shared.clone();
        shared.queue.begin();
        self.shared.form_writes.spawn(async move {
            let _place = place;
            // What goes wrong is counted where it goes wrong; there is nobody to tell.
            let _ = write(shared.clone(), Instant::now() + WRITE).await;
            shared.queue.done();
        });
    }
}

impl Shared {
    /// In a cluster, in the slot of the key.
    fn form_name(&self, key: &CacheKey, digest: &Digest, coding: &str) -> String {
        let of = xxh3_128(&[digest.as_slice(), coding.as_bytes()].concat());
        let prefix = &self.redis.config().prefix;
        format!("{prefix}f:{{{:032x}}}:{of:032x}", xxh3_128(key.as_bytes()))
    }

    async fn look_for_form(
        &self,
        key: &CacheKey,
        route: &str,
        stored: &Stored,
        coding: &str,
        deadline: Instant,
    ) -> Option<FormBody> {
        let digest = stored.digest();
        let name = self.form_name(key, &digest, coding);
        let mut get = redis::cmd("GET");
        get.arg(&name);
        let answer = self.redis.run_until(RedisOperation::Get, &get, deadline).await.ok()?;
        let Answer::BulkString(bytes) = answer else { return None };
        let bytes = Bytes::from(bytes);
        let of = FormOf {
            key: key.as_bytes(),
            digest: &digest,
            coding,
        };
        let (mark, form) = match decode(&bytes, of) {
            Ok(read) => read,
            Err(fault) => {
                self.refuse(fault, &name);
                return None;
            }
        };
        let labels = stored.meta.labels().map_or(&[][..], |labels| labels.as_slice());
        if self.coherence.since(mark, Subject { key, route, labels }) == Since::Purged {
            return None;
        }
        match &form {
            FormBody::Made(body, _) if body.len() >= stored.body.len() => {
                self.refuse(RedisFault::ValueBroken, &name);
                None
            }
            FormBody::Made(..) | FormBody::Worthless => Some(form),
        }
    }

    async fn store_form(
        &self,
        write: &Write,
        coding: &str,
        body: &FormBody,
        deadline: Instant,
    ) -> Result<(), RedisError> {
        let Some(mark) = write.began.mark.filter(|_| self.is_valid(write)) else {
            return Ok(());
        };
        let digest = write.stored.digest();
        let name = self.form_name(&write.key, &digest, coding);
        let Some(server_time) = self.redis.server_time(name.as_bytes()) else {
            return Err(RedisError::Unavailable);
        };
        let ttl = self.ttl(write, Timestamp::from(self.clock.now()));
        let end = server_time.saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
        let of = FormOf {
            key: write.key.as_bytes(),
            digest: &digest,
            coding,
        };
        let Some(value) = encode(of, mark, body) else {
            return Ok(());
        };
        let mut set = redis::cmd("SET");
        set.arg(&name).arg(value).arg("PXAT").arg(end);
        self.redis.run_until(RedisOperation::Store, &set, deadline).await?;
        Ok(())
    }
}
