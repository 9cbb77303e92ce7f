//! L2: stored responses in Redis, for all instances and beyond their lives.
//!
//! Under the name of a key stands its response, or, where responses vary, an index that says by which fields; each variant then has
//! a name of its own, made of the index's nonce and the values of those fields. So a lookup is one round trip, or two. Whoever
//! removes what stands under the key's name makes all its variants unreachable, and they expire by themselves.
//!
//! Age travels as a span: a value holds how old the response was at a time by the server's own clock, and how long ago that was is told by
//! the same clock, as it was heard last. What writes takes the least that the server's time can be, what reads the most. So neither the
//! instances' clocks nor a write that was held up on its way make anything younger than it is.

mod dictionaries;
mod forms;
mod queue;
mod store;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use redis::Value as Answer;
use tokio::task::JoinSet;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_128;

use self::forms::FormWrites;
use self::queue::{Job, Queue};
use self::store::{Standing, Written};
use super::Stored;
use super::codec::{self, Value};
use super::coherence::{Began, Coherence};
use super::epochs::{Epochs, Since, Subject};
use super::flight::Flights;
use super::lease::{Asked, Grant, Lease, Leases, Outcome};
use crate::clock::Clock;
use crate::config::WritePolicy;
use crate::key::CacheKey;
use crate::message::Fields;
use crate::metrics::{RedisFault, RedisOperation};
use crate::redis::{Redis, RedisError};
use crate::rfc9111::date::Timestamp;
use crate::rfc9111::stored::StaleWindows;
use crate::rfc9111::vary::{normalise, select};

/// One write, or a removal. Nobody waits for it.
const WRITE: Duration = Duration::from_secs(1);

/// Bytes to be compressed or decompressed beyond which a thread for such things does it.
const OFFLOAD: usize = 256 * 1024;

/// The second tier. Clones share everything.
#[derive(Clone)]
pub struct L2 {
    shared: Arc<Shared>,
    _tasks: Arc<JoinSet<()>>,
}

struct Shared {
    redis: Redis,
    clock: Clock,
    epochs: Arc<Epochs>,
    coherence: Coherence,
    queue: Queue,
    form_writes: FormWrites,
    /// Lookups of requests that no fetch can be shared with.
    lookups: Flights,
    leases: Leases,
}

impl std::fmt::Debug for L2 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("L2")
            .field("redis", &self.shared.redis)
            .finish_non_exhaustive()
    }
}

/// A response as it stands in Redis.
#[derive(Debug)]
pub struct Inspected {
    pub stored: Stored,
    /// Bytes of its value.
    pub bytes: u64,
    /// How long Redis keeps it yet.
    pub kept_for: Duration,
}

/// A response that fits a request.
struct Found {
    stored: Stored,
    /// Where it stands.
    name: String,
    /// Bytes of its value.
    bytes: u64,
}

/// A response to be written.
#[derive(Debug)]
pub struct Write {
    pub key: CacheKey,
    pub stored: Arc<Stored>,
    /// The route's.
    pub windows: StaleWindows,
    pub keep: Duration,
    pub route: Arc<str>,
    /// The purges that there had been when it was asked for.
    pub began: Began,
    /// Other instances wait for it: released when it is written, or will not be.
    pub lease: Option<Lease>,
}

impl Write {
    /// Tells the other instances.
    fn release(&mut self, outcome: Outcome) {
        if let Some(lease) = self.lease.take() {
            lease.release(outcome);
        }
    }
}

impl L2 {
    /// Has to be called in a runtime of tokio.
    pub fn start(redis: Redis, clock: Clock, epochs: Arc<Epochs>, coherence: Coherence) -> Self {
        let leases = Leases::start(redis.clone(), coherence.clone());
        let shared = Arc::new(Shared {
            redis,
            clock,
            epochs,
            coherence,
            queue: Queue::default(),
            form_writes: FormWrites::new(),
            lookups: Flights::default(),
            leases,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(queue::work(shared.clone()));
        Self {
            shared,
            _tasks: Arc::new(tasks),
        }
    }

    pub fn redis(&self) -> &Redis {
        &self.shared.redis
    }

    pub fn coherence(&self) -> &Coherence {
        &self.shared.coherence
    }

    pub fn lookups(&self) -> &Flights {
        &self.shared.lookups
    }

    /// There are routes on which all instances share a fetch.
    pub fn want_leases(&self) {
        self.shared.leases.want();
    }

    /// Asks to fetch for all instances.
    pub async fn acquire(&self, asked: Asked<'_>) -> Grant {
        self.shared.leases.acquire(asked).await
    }

    /// Until when Redis may take to answer what is asked now.
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.shared.redis.config().deadline
    }

    /// Whether a body of so many bytes is too large for it.
    pub fn is_too_large(&self, length: u64) -> bool {
        length > self.shared.redis.config().max_body
    }

    /// Whether a lookup would be sent now: nothing is read from there while it is not known what has been purged.
    pub fn is_available(&self) -> bool {
        self.shared.redis.is_available() && self.shared.coherence.is_followed()
    }

    /// The response that fits a request best. `None`: there is none, or Redis did not say so in time.
    pub async fn look(&self, key: &CacheKey, route: &str, request: &Fields, deadline: Instant) -> Option<Stored> {
        self.shared.look(key, route, request, deadline).await
    }

    /// As [`Self::look`], with what it takes there. For people who look, within the deadline.
    pub async fn inspect(&self, key: &CacheKey, route: &str, request: &Fields) -> Option<Inspected> {
        self.shared.inspect(key, route, request, self.deadline()).await
    }

    /// The fields that the responses under a key vary by, those of the newest. `None`: they do not, or Redis did not say so in time.
    pub async fn varies_by(&self, key: &CacheKey, deadline: Instant) -> Option<Vec<String>> {
        let name = self.shared.name(key);
        match self.shared.standing(RedisOperation::Get, key, &name, deadline).await {
            Ok(Standing::Index { index, .. }) => index.lists.into_iter().find(|list| !list.is_empty()),
            Ok(Standing::Nothing | Standing::Response) | Err(_) => None,
        }
    }

    /// Has a response written as the configuration says; whoever waits for the answer waits no longer than the deadline.
    pub async fn write(&self, mut write: Write) {
        let config = self.shared.redis.config();
        match config.write {
            WritePolicy::Around => {}
            WritePolicy::Behind => self.write_behind(write),
            WritePolicy::Through => {
                if !self.fits(&write) {
                    return write.release(Outcome::TooLarge);
                }
                let deadline = Instant::now() + config.deadline;
                let stored = tokio::time::timeout_at(deadline, self.shared.store(&write, deadline)).await;
                write.release(Written::outcome(&stored.unwrap_or(Err(RedisError::Timeout))));
            }
        }
    }

    /// Has a response written some time soon, unless the configuration says that none is.
    pub fn write_behind(&self, mut write: Write) {
        if self.shared.redis.config().write == WritePolicy::Around {
            return;
        }
        match self.fits(&write) {
            true => self.shared.push(Job::Store(write)),
            false => write.release(Outcome::TooLarge),
        }
    }

    /// Has what stands under a key removed, all variants.
    pub fn delete(&self, key: &CacheKey) {
        self.shared.push(Job::Delete(self.shared.name(key)));
    }

    /// Waits until everything that was to be written is.
    pub async fn flushed(&self) {
        self.shared.queue.empty().await;
    }

    fn fits(&self, write: &Write) -> bool {
        write.stored.meta.partial().is_none() && !self.is_too_large(write.stored.body.len() as u64)
    }
}

/// The name of what stands for a key. In a cluster, all names of a key are in one slot.
pub(super) fn name(prefix: &str, key: &CacheKey) -> String {
    let mut name = String::with_capacity(prefix.len() + NAME);
    name.push_str(prefix);
    name.push_str("r:{");
    push_hex(&mut name, xxh3_128(key.as_bytes()));
    name.push('}');
    name
}

/// Bytes of a name behind the prefix: `r:{`, 32 digits, `}`, and for a variant `:` and 32 more.
const NAME: usize = 3 + 32 + 1 + 33;

/// As `{:032x}` does, which takes ten times as long; every lookup needs it.
fn push_hex(out: &mut String, number: u128) {
    for byte in number.to_be_bytes() {
        for digit in [byte >> 4, byte & 15] {
            out.push(char::from(match digit {
                0..=9 => b'0' + digit,
                _ => b'a' - 10 + digit,
            }));
        }
    }
}

impl Shared {
    fn push(&self, job: Job) {
        let dropped = self.queue.push(job);
        if dropped > 0 {
            self.redis.metrics().drop_writes(dropped);
        }
    }

    fn name(&self, key: &CacheKey) -> String {
        name(&self.redis.config().prefix, key)
    }

    async fn look(&self, key: &CacheKey, route: &str, request: &Fields, deadline: Instant) -> Option<Stored> {
        let found = self.find(key, route, request, deadline).await?;
        Some(found.stored)
    }

    async fn inspect(&self, key: &CacheKey, route: &str, request: &Fields, deadline: Instant) -> Option<Inspected> {
        let found = self.find(key, route, request, deadline).await?;
        let mut left = redis::cmd("PTTL");
        left.arg(&found.name);
        let left = self.redis.run_until(RedisOperation::Get, &left, deadline).await.ok()?;
        let Answer::Int(left) = left else { return None };
        Some(Inspected {
            stored: found.stored,
            bytes: found.bytes,
            // It may have gone meanwhile.
            kept_for: Duration::from_millis(u64::try_from(left).unwrap_or(0)),
        })
    }

    async fn find(&self, key: &CacheKey, route: &str, request: &Fields, deadline: Instant) -> Option<Found> {
        let name = self.name(key);
        let mut get = redis::cmd("GET");
        get.arg(&name);
        let answer = self.redis.run_until(RedisOperation::Get, &get, deadline).await.ok()?;
        let Answer::BulkString(value) = answer else { return None };
        let value = Bytes::from(value);
        let bytes = value.len() as u64;
        match self.decode(&value, key, &name)? {
            Value::Response(decoded) => {
                let stored = self.finish(decoded, key, route, &name).await?;
                let fits = stored.meta.variant.fits(request).is_some();
                fits.then_some(Found { stored, name, bytes })
            }
            Value::Index(index) => {
                let names: Vec<String> = index
                    .lists
                    .iter()
                    .map(|list| {
                        let values = list.iter().map(|field| (field.as_str(), normalise(field, request)));
                        variant_name(&name, index.nonce, values)
                    })
                    .collect();
                let mut commands = redis::Pipeline::with_capacity(names.len());
                for name in &names {
                    commands.cmd("GET").arg(name);
                }
                let answers = self
                    .redis
                    .run_all(RedisOperation::Get, &commands, deadline)
                    .await
                    .ok()?;
                let mut found = Vec::new();
                for (name, answer) in names.into_iter().zip(answers) {
                    let Answer::BulkString(value) = answer else { continue };
                    let value = Bytes::from(value);
                    let bytes = value.len() as u64;
                    if let Some(Value::Response(decoded)) = self.decode(&value, key, &name)
                        && let Some(stored) = self.finish(decoded, key, route, &name).await
                    {
                        found.push(Found { stored, name, bytes });
                    }
                }
                let places = found.iter().enumerate();
                let chosen = select(places.map(|(at, found)| (at, &found.stored.meta)), request)?;
                Some(found.swap_remove(chosen))
            }
        }
    }

    fn decode(&self, bytes: &Bytes, key: &CacheKey, name: &str) -> Option<Value> {
        match codec::decode(bytes, key.as_bytes(), self.redis.config().max_body) {
            Ok(value) => Some(value),
            Err(fault) => {
                self.refuse(fault, name);
                None
            }
        }
    }

    /// Counts a value that is of no use, and has it removed.
    fn refuse(&self, fault: RedisFault, name: &str) {
        self.redis.metrics().fault(RedisOperation::Get, fault);
        self.push(Job::Delete(name.to_owned()));
    }

    async fn finish(&self, decoded: Box<codec::Decoded>, key: &CacheKey, route: &str, name: &str) -> Option<Stored> {
        let since = {
            let labels = decoded.labels();
            self.coherence.since(decoded.mark, Subject { key, route, labels })
        };
        if since == Since::Purged {
            return None;
        }
        // From the future: another server has taken over, by whose clock nothing can be said.
        let stored_for = self
            .redis
            .latest_server_time(name.as_bytes())?
            .checked_sub(decoded.at)?;
        let stored_for = Duration::from_millis(stored_for);
        let now = Timestamp::from(self.clock.now());
        let finished = if decoded.work() > OFFLOAD {
            tokio::task::spawn_blocking(move || decoded.into_stored(stored_for, now))
                .await
                .unwrap_or(Err(RedisFault::ValueBroken))
        } else {
            decoded.into_stored(stored_for, now)
        };
        match finished {
            Ok(stored) => Some(match since {
                Since::Outdated(at) => stored.outdated(at),
                Since::Nothing | Since::Purged => stored,
            }),
            Err(fault) => {
                self.refuse(fault, name);
                None
            }
        }
    }

    async fn remove(&self, name: &str) -> Result<(), RedisError> {
        let mut delete = redis::cmd("UNLINK");
        delete.arg(name);
        let deadline = Instant::now() + WRITE;
        self.redis.run_until(RedisOperation::Delete, &delete, deadline).await?;
        Ok(())
    }
}

/// The name of a variant: of the values that the fields of one list have.
fn variant_name<'a, V: AsRef<[u8]>>(
    name: &str,
    nonce: u64,
    values: impl Iterator<Item = (&'a str, Option<V>)>,
) -> String {
    let mut bytes = nonce.to_le_bytes().to_vec();
    for (field, value) in values {
        bytes.extend_from_slice(field.as_bytes());
        match value {
            None => bytes.push(0),
            Some(value) => {
                let value = value.as_ref();
                bytes.push(b':');
                bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
                bytes.extend_from_slice(value);
            }
        }
    }
    let mut variant = String::with_capacity(name.len() + 33);
    variant.push_str(name);
    variant.push(':');
    push_hex(&mut variant, xxh3_128(&bytes));
    variant
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_in_names_before() {
        for number in [0, 1, 0x0123_4567_89ab_cdef, u128::MAX, u128::MAX / 7] {
            let mut hex = String::new();
            push_hex(&mut hex, number);
            assert_eq!(hex, format!("{number:032x}"));
        }
    }
}
