//! L2: stored responses in Redis, for all instances and beyond their lives.
//!
//! Under the name of a key stands its response, or, where responses vary, an index that says by which fields; each variant then has
//! a name of its own, made of the index's nonce and the values of those fields. So a lookup is one round trip, or two. Whoever
//! removes what stands under the key's name makes all its variants unreachable, and they expire by themselves.
//!
//! Age travels as a span: a value holds how old the response was when it was written and how long it then had to live, and what is left of
//! that, as the server counts it, says how long ago that was. The end of its life is set by the server's time, so that neither the
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
    format!("{prefix}r:{{{:032x}}}", xxh3_128(key.as_bytes()))
}

/// What was read under a name: the value, and what is left of its time.
struct Read {
    bytes: Bytes,
    left: Duration,
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
        let inspected = self.inspect(key, route, request, deadline).await?;
        Some(inspected.stored)
    }

    async fn inspect(&self, key: &CacheKey, route: &str, request: &Fields, deadline: Instant) -> Option<Inspected> {
        let name = self.name(key);
        let read = self.read(std::slice::from_ref(&name), deadline).await.ok()?.pop()??;
        let (bytes, kept_for) = (read.bytes.len() as u64, read.left);
        match self.decode(&read.bytes, key, &name)? {
            Value::Response(decoded) => {
                let stored = self.finish(decoded, read.left, key, route, &name).await?;
                let fits = stored.meta.variant.fits(request).is_some();
                fits.then_some(Inspected {
                    stored,
                    bytes,
                    kept_for,
                })
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
                let read = self.read(&names, deadline).await.ok()?;
                let mut found = Vec::new();
                for (name, read) in names.iter().zip(read) {
                    let Some(read) = read else { continue };
                    if let Some(Value::Response(decoded)) = self.decode(&read.bytes, key, name)
                        && let Some(stored) = self.finish(decoded, read.left, key, route, name).await
                    {
                        found.push((stored.meta.clone(), (stored, read.bytes.len() as u64, read.left)));
                    }
                }
                let chosen = select(found.iter().map(|(meta, found)| (found, meta)), request);
                chosen.map(|(stored, bytes, kept_for)| Inspected {
                    stored: Stored {
                        meta: stored.meta.clone(),
                        fields: stored.fields.clone(),
                        body: stored.body.clone().into(),
                    },
                    bytes: *bytes,
                    kept_for: *kept_for,
                })
            }
        }
    }

    /// What stands under each of these names of one key. First what is left of its time, then the value: should another one come in
    /// between, it is taken for older than it is, never for younger.
    async fn read(&self, names: &[String], deadline: Instant) -> Result<Vec<Option<Read>>, RedisError> {
        let mut commands = redis::Pipeline::with_capacity(names.len() * 2);
        for name in names {
            commands.cmd("PTTL").arg(name).cmd("GET").arg(name);
        }
        let answers = self.redis.run_all(RedisOperation::Get, &commands, deadline).await?;
        let mut answers = answers.into_iter();
        let mut read = Vec::with_capacity(names.len());
        while let (Some(left), Some(value)) = (answers.next(), answers.next()) {
            read.push(match (left, value) {
                // It came after the look at its time: it has all of it left.
                (Answer::Int(-2), Answer::BulkString(bytes)) => Some(Read {
                    bytes: bytes.into(),
                    left: Duration::MAX,
                }),
                (Answer::Int(left), Answer::BulkString(bytes)) => Some(Read {
                    bytes: bytes.into(),
                    // Without an end nobody knows how old it is.
                    left: Duration::from_millis(u64::try_from(left).unwrap_or(0)),
                }),
                _ => None,
            });
        }
        Ok(read)
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

    async fn finish(
        &self,
        decoded: Box<codec::Decoded>,
        left: Duration,
        key: &CacheKey,
        route: &str,
        name: &str,
    ) -> Option<Stored> {
        let since = {
            let labels = decoded.labels();
            self.coherence.since(decoded.mark, Subject { key, route, labels })
        };
        if since == Since::Purged {
            return None;
        }
        let stored_for = decoded.ttl.saturating_sub(left);
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
    format!("{name}:{:032x}", xxh3_128(&bytes))
}
