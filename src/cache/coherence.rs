//! One purge for all: every purge goes into a log in Redis, and every instance follows it.
//!
//! The log is a stream whose entries are numbered without gaps; beside it stands a random incarnation. A response in L2 carries both as
//! they were known when it was asked for. So whether it has been purged since then is found out without asking Redis again, from what has
//! been read of the log ([`Epochs`]), however many responses a tag has. Whatever of the log is lost counts as a purge of everything: where
//! it has been trimmed past what an instance has read, its memory is cleared; where log or incarnation are gone, or are not those
//! that were followed before, a new incarnation begins, and nothing in L2 is of the old one any more.
//!
//! While the log is not followed, nothing is read from L2 or written there. Purges wait then, bounded, and are recorded in order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use redis::streams::{StreamId, StreamRangeReply, StreamReadReply};
use redis::{FromRedisValue, Value, from_redis_value};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::epochs::{Epochs, Since, Subject};
use super::memory::Memory;
use super::purge::{Purge, What};
use crate::clock::Clock;
use crate::key::QueryOptions;
use crate::metrics::RedisOperation;
use crate::redis::{Dedicated, Redis, RedisError, Script};
use crate::rfc9111::date::Timestamp;

/// Purges that the log keeps, about: some 15 MB of Redis. An instance that was away for longer clears its memory.
const LOG_LENGTH: &str = "100000";

/// Purges that wait for Redis. Beyond these one of everything takes their place.
const MAX_WAITING: usize = 10_000;

/// Entries that are read in one go.
const BATCH: usize = 1000;

/// How long a read of the log blocks before the incarnation is looked at again: so long a log that was thrown away goes unnoticed.
const BLOCK: Duration = Duration::from_millis(250);

/// For the answer to anything that does not block. Beyond it the connection is given up.
const ANSWER: Duration = Duration::from_secs(1);

/// Between two attempts to follow.
const RETRY: Duration = Duration::from_millis(100);

/// Begins both scripts that need the log: sees to it that log and incarnation are there, and finds the last number.
macro_rules! with_log {
    ($rest:literal $(,)?) => {
        concat!(
            r"
local id = redis.call('GET', KEYS[2])
if not id or redis.call('EXISTS', KEYS[1]) == 0 then
  id = ARGV[1]
  redis.call('SET', KEYS[2], id)
  redis.call('DEL', KEYS[1])
  redis.call('XADD', KEYS[1], '1-0', 'nonce', id, 'from', '', 'purge', '')
end
local info = redis.call('XINFO', 'STREAM', KEYS[1])
local last = 0
for i = 1, #info, 2 do
  if info[i] == 'last-generated-id' then last = tonumber(string.match(info[i + 1], '^%d+')) end
end
",
            $rest
        )
    };
}

/// Sees to it that log and incarnation are there. Answers the incarnation, the last number, and the first that is still there.
const OPEN: &str = with_log!(
    r"local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)
local from = last + 1
if first[1] then from = tonumber(string.match(first[1][1], '^%d+')) end
return {id, last, from}
"
);

/// Begins another incarnation, unless somebody else has done so meanwhile.
const BEGIN_ANEW: &str = r"
if redis.call('GET', KEYS[2]) == ARGV[2] then
  redis.call('DEL', KEYS[1], KEYS[2])
end
return 1
";

/// Adds a purge behind all others. Answers the incarnation and its number.
static RECORD: Script = Script::new(with_log!(
    r"local next = string.format('%.0f', last + 1)
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], next .. '-0', 'nonce', ARGV[1], 'from', ARGV[3], 'purge', ARGV[4])
return {id, last + 1}
",
));

/// A point in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    pub incarnation: u64,
    /// Of the last purge.
    pub number: u64,
}

/// The last purges that a fetch has seen when it begins.
#[derive(Debug, Clone, Copy, Default)]
pub struct Began {
    /// In this instance.
    pub local: u64,
    /// In the log. `None`: it was not followed.
    pub mark: Option<Mark>,
}

/// Who knows of a purge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// There are no other instances.
    Alone,
    /// It is in the log, for all.
    InLog,
    /// Only this instance so far; so many purges wait for Redis.
    Queued { waiting: usize },
}

/// The log as this instance sees it. Clones share everything.
#[derive(Clone)]
pub struct Coherence {
    shared: Arc<Shared>,
    _tasks: Arc<JoinSet<()>>,
}

struct Shared {
    redis: Redis,
    clock: Clock,
    memory: Arc<Memory>,
    forms: ArcSwap<Vec<QueryOptions>>,
    /// `None` while it is not followed.
    followed: ArcSwapOption<Followed>,
    waiting: Mutex<VecDeque<Purge>>,
    /// Length of `waiting`.
    count: AtomicUsize,
    /// Names this instance in the log.
    name: String,
    log: String,
    id: String,
}

/// What is known of one incarnation of the log.
#[derive(Debug)]
struct Followed {
    incarnation: u64,
    epochs: Epochs,
    /// Of the last entry that was read.
    number: AtomicU64,
    /// That entry's own.
    nonce: Mutex<String>,
    /// The last entry that this instance has written, read or not.
    written: Mutex<Entry>,
}

/// An entry of the log: other logs may have one of the same number.
#[derive(Debug, Clone, Default)]
struct Entry {
    number: u64,
    nonce: String,
}

impl Followed {
    /// What the log has to have if it is the same: the last entry that was read, and the last that was written.
    fn ends(&self) -> [Entry; 2] {
        let read = Entry {
            number: self.number.load(Ordering::Acquire),
            nonce: self.nonce.lock().clone(),
        };
        [read, self.written.lock().clone()]
    }

    fn wrote(&self, entry: Entry) {
        let mut written = self.written.lock();
        if written.number < entry.number {
            *written = entry;
        }
    }
}

impl std::fmt::Debug for Coherence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Coherence")
            .field("followed", &self.is_followed())
            .finish_non_exhaustive()
    }
}

impl Coherence {
    /// Has to be called in a runtime of tokio.
    pub fn start(redis: Redis, clock: Clock, memory: Arc<Memory>, forms: Vec<QueryOptions>) -> Self {
        let prefix = redis.config().prefix.clone();
        let shared = Arc::new(Shared {
            redis,
            clock,
            memory,
            forms: ArcSwap::from_pointee(forms),
            followed: ArcSwapOption::empty(),
            waiting: Mutex::default(),
            count: AtomicUsize::new(0),
            name: format!("{:016x}", fastrand::u64(..)),
            // In a cluster both are in one slot; while the node that has it is gone, L2 is not used.
            log: format!("{prefix}{{coherence}}:log"),
            id: format!("{prefix}{{coherence}}:incarnation"),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(follow(shared.clone()));
        Self {
            shared,
            _tasks: Arc::new(tasks),
        }
    }

    /// The ways in which routes count queries from now on. What other instances have purged under another one is not known: L2 begins anew.
    pub fn set_forms(&self, forms: Vec<QueryOptions>) {
        if **self.shared.forms.load() == forms {
            return;
        }
        self.shared.forms.store(Arc::new(forms));
        if let Some(followed) = self.shared.followed.load_full() {
            followed.epochs.forget_until(followed.number.load(Ordering::Acquire));
        }
    }

    /// Whether L2 can be used.
    pub fn is_followed(&self) -> bool {
        self.shared.usable().is_some()
    }

    /// What a fetch has to remember that begins now.
    pub fn mark(&self) -> Option<Mark> {
        let followed = self.shared.usable()?;
        Some(Mark {
            incarnation: followed.incarnation,
            number: followed.number.load(Ordering::Acquire),
        })
    }

    /// What has happened since then to a response.
    pub fn since(&self, mark: Mark, subject: Subject<'_>) -> Since {
        let Some(followed) = self.shared.usable() else {
            return Since::Purged;
        };
        // One that knows more than we do, knows what we cannot compare it with yet.
        if mark.incarnation != followed.incarnation || mark.number > followed.number.load(Ordering::Acquire) {
            return Since::Purged;
        }
        followed.epochs.since(mark.number, subject)
    }

    /// Whether something has been purged since then that we know of, and they did not.
    pub fn is_overtaken(&self, mark: Mark, subject: Subject<'_>) -> bool {
        self.shared.usable().is_some_and(|followed| {
            mark.incarnation == followed.incarnation && followed.epochs.since(mark.number, subject) != Since::Nothing
        })
    }

    /// Puts a purge into the log, or into the queue of those that wait for it.
    pub async fn record(&self, purge: &Purge) -> Recorded {
        let shared = &self.shared;
        if let Some(followed) = shared.usable() {
            let deadline = Instant::now() + shared.redis.config().deadline;
            if let Ok((mark, nonce)) = shared.add(purge, deadline).await {
                if mark.incarnation == followed.incarnation {
                    let number = mark.number;
                    followed.wrote(Entry { number, nonce });
                    let at = Timestamp::from(shared.clock.now());
                    let scope = purge.scope(&shared.forms.load());
                    followed.epochs.note_as(mark.number, scope, purge.how, at);
                }
                return Recorded::InLog;
            }
        }
        let mut waiting = shared.waiting.lock();
        if waiting.len() >= MAX_WAITING {
            waiting.clear();
            waiting.push_back(Purge::everything());
        } else {
            waiting.push_back(purge.clone());
        }
        shared.count(&waiting);
        Recorded::Queued { waiting: waiting.len() }
    }

    /// Purges that wait for Redis.
    pub fn waiting(&self) -> usize {
        self.shared.count.load(Ordering::Acquire)
    }
}

impl Shared {
    fn usable(&self) -> Option<Arc<Followed>> {
        match self.count.load(Ordering::Acquire) {
            0 => self.followed.load_full(),
            _ => None,
        }
    }

    /// Answers where it stands in the log, and its nonce.
    async fn add(&self, purge: &Purge, deadline: Instant) -> Result<(Mark, String), RedisError> {
        let nonce = format!("{:016x}", fastrand::u64(..));
        let json = purge.to_json();
        let keys = [self.log.as_bytes(), self.id.as_bytes()];
        let arguments = [
            nonce.as_bytes(),
            LOG_LENGTH.as_bytes(),
            self.name.as_bytes(),
            json.as_bytes(),
        ];
        let answer = self
            .redis
            .run_script(RedisOperation::Purge, &RECORD, &keys, &arguments, deadline)
            .await?;
        let (incarnation, number): (String, u64) = read(answer)?;
        let mark = Mark {
            incarnation: u64::from_str_radix(&incarnation, 16).unwrap_or_default(),
            number,
        };
        Ok((mark, nonce))
    }

    /// Adds what waits, in order.
    async fn deliver(&self, followed: &Followed) -> Result<(), RedisError> {
        loop {
            let Some(next) = self.waiting.lock().front().cloned() else {
                return Ok(());
            };
            let (mark, nonce) = self.add(&next, Instant::now() + ANSWER).await?;
            if mark.incarnation == followed.incarnation {
                let number = mark.number;
                followed.wrote(Entry { number, nonce });
                let at = Timestamp::from(self.clock.now());
                followed
                    .epochs
                    .note_as(mark.number, next.scope(&self.forms.load()), next.how, at);
            }
            let mut waiting = self.waiting.lock();
            // A queue that ran over meanwhile has another one in front.
            if waiting.front() == Some(&next) {
                waiting.pop_front();
            }
            self.count(&waiting);
        }
    }

    fn count(&self, waiting: &VecDeque<Purge>) {
        self.count.store(waiting.len(), Ordering::Release);
        self.redis.metrics().set_purges_waiting(waiting.len() as u64);
    }

    /// Does what an entry says.
    async fn apply(&self, followed: &Followed, entry: &StreamId) {
        let field = |name: &str| -> String { entry.get(name).unwrap_or_default() };
        let purge = field("purge");
        let Some(number) = number(&entry.id) else { return };
        if !purge.is_empty() {
            let purge = Purge::from_json(purge.as_bytes());
            let at = Timestamp::from(self.clock.now());
            let forms = self.forms.load_full();
            // First for L2, so that nothing passes from there into memory behind the purge there.
            followed.epochs.note_as(number, purge.scope(&forms), purge.how, at);
            followed.number.store(number, Ordering::Release);
            if field("from") != self.name {
                self.memory.purge(&purge, &forms, at).await;
                if let What::Labels(_) = purge.what {
                    self.memory.sweep_later();
                }
            }
        }
        followed.number.store(number, Ordering::Release);
        *followed.nonce.lock() = field("nonce");
    }

    /// Nobody knows what has been purged.
    async fn clear(&self, why: &str) {
        tracing::warn!(why, "purges have been lost: everything in memory is taken for purged");
        let at = Timestamp::from(self.clock.now());
        self.memory
            .purge(&Purge::everything(), &self.forms.load_full(), at)
            .await;
    }

    async fn run(&self, connection: &mut Dedicated, command: &redis::Cmd) -> Result<Value, RedisError> {
        connection.run_until(command, Instant::now() + ANSWER).await
    }

    fn script(&self, text: &str, arguments: &[&str]) -> redis::Cmd {
        let mut command = redis::cmd("EVAL");
        command.arg(text).arg(2).arg(&self.log).arg(&self.id).arg(arguments);
        command
    }

    /// Finds the place in the log to go on from.
    async fn open(
        &self,
        connection: &mut Dedicated,
        before: Option<Arc<Followed>>,
    ) -> Result<(Arc<Followed>, u64), RedisError> {
        loop {
            let nonce = format!("{:016x}", fastrand::u64(..));
            let answer = self.run(connection, &self.script(OPEN, &[&nonce])).await?;
            let (id, last, first): (String, u64, u64) = read(answer)?;
            let incarnation = u64::from_str_radix(&id, 16).unwrap_or_default();
            let anew = || {
                let followed = Followed {
                    incarnation,
                    epochs: Epochs::default(),
                    number: AtomicU64::new(first.saturating_sub(1)),
                    nonce: Mutex::default(),
                    written: Mutex::default(),
                };
                followed.epochs.forget_until(first.saturating_sub(1));
                Arc::new(followed)
            };
            let Some(before) = &before else {
                return Ok((anew(), last));
            };
            if before.incarnation != incarnation {
                self.clear("the log is another one").await;
                return Ok((anew(), last));
            }
            let read_until = before.number.load(Ordering::Acquire);
            if first > read_until + 1 {
                self.clear("the log has been trimmed").await;
                return Ok((anew(), last));
            }
            let mut is_same = true;
            for end in before.ends() {
                is_same &= last >= end.number
                    && (first > end.number || self.nonce_of(connection, end.number).await? == end.nonce);
            }
            if is_same {
                return Ok((before.clone(), last));
            }
            // A server that has not got everything has taken over: what it has lost, nobody knows.
            self.run(connection, &self.script(BEGIN_ANEW, &[&nonce, &id])).await?;
        }
    }

    async fn nonce_of(&self, connection: &mut Dedicated, number: u64) -> Result<String, RedisError> {
        let mut command = redis::cmd("XRANGE");
        command.arg(&self.log).arg(number).arg(number);
        let reply: StreamRangeReply = read(self.run(connection, &command).await?)?;
        Ok(reply
            .ids
            .first()
            .and_then(|entry| entry.get("nonce"))
            .unwrap_or_default())
    }

    /// Reads on in the log. Answers whether there was anything; `None` where something is missing.
    async fn read_on(
        &self,
        connection: &mut Dedicated,
        followed: &Followed,
        block: Option<Duration>,
    ) -> Result<Option<bool>, RedisError> {
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(BATCH);
        if let Some(block) = block {
            command.arg("BLOCK").arg(u64::try_from(block.as_millis()).unwrap_or(1));
        }
        let from = format!("{}-0", followed.number.load(Ordering::Acquire));
        command.arg("STREAMS").arg(&self.log).arg(from);
        let reply: Option<StreamReadReply> = read(self.run(connection, &command).await?)?;
        let entries: Vec<StreamId> = reply
            .into_iter()
            .flat_map(|reply| reply.keys)
            .flat_map(|key| key.ids)
            .collect();
        for entry in &entries {
            if number(&entry.id) != Some(followed.number.load(Ordering::Acquire) + 1) {
                return Ok(None);
            }
            self.apply(followed, entry).await;
        }
        Ok(Some(!entries.is_empty()))
    }

    /// Follows the log on one connection, until something is wrong. `before` is where it was left.
    async fn keep_up(&self, before: &mut Option<Arc<Followed>>) -> Result<(), RedisError> {
        let mut connection = self.redis.dedicated(self.log.as_bytes()).await?;
        let (followed, last) = self.open(&mut connection, before.clone()).await?;
        *before = Some(followed.clone());
        while followed.number.load(Ordering::Acquire) < last {
            if self.read_on(&mut connection, &followed, None).await? != Some(true) {
                return Ok(());
            }
        }
        self.deliver(&followed).await?;
        while self.read_on(&mut connection, &followed, None).await? == Some(true) {}
        self.followed.store(Some(followed.clone()));
        self.redis.metrics().set_followed(true);
        tracing::info!("purges of all instances are followed");
        loop {
            if self.read_on(&mut connection, &followed, Some(BLOCK)).await?.is_none() {
                return Ok(());
            }
            let mut command = redis::cmd("GETRANGE");
            command.arg(&self.id).arg(0).arg(-1);
            let id: Option<String> = read(self.run(&mut connection, &command).await?)?;
            if id.and_then(|id| u64::from_str_radix(&id, 16).ok()) != Some(followed.incarnation) {
                return Ok(());
            }
            if self.count.load(Ordering::Acquire) > 0 {
                self.deliver(&followed).await?;
            }
        }
    }
}

/// The number in an entry's name.
fn number(id: &str) -> Option<u64> {
    id.split_once('-')?.0.parse().ok()
}

fn read<T: FromRedisValue>(value: Value) -> Result<T, RedisError> {
    Ok(from_redis_value(value).map_err(redis::RedisError::from)?)
}

async fn follow(shared: Arc<Shared>) {
    let mut before = None;
    let mut lost_at: Option<Instant> = None;
    let mut outdated: Option<Instant> = None;
    loop {
        let result = shared.keep_up(&mut before).await;
        shared.redis.metrics().set_followed(false);
        if shared.followed.swap(None).is_some() {
            let error = result.err().map(|error| error.to_string()).unwrap_or_default();
            tracing::warn!(error, "purges of other instances cannot be followed for now");
            (lost_at, outdated) = (None, None);
        }
        let lost = *lost_at.get_or_insert_with(Instant::now);
        // Jittered, so that instances that were cut off together do not ask the origin together.
        if let Some(timeout) = shared.redis.config().coherence_timeout
            && outdated.unwrap_or(lost).elapsed() > timeout.mul_f64(1.0 + 0.1 * fastrand::f64())
        {
            let at = Timestamp::from(shared.clock.now());
            let before = Timestamp::from_millis(
                at.as_millis()
                    .saturating_sub(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)),
            );
            shared.memory.outdate(before, at).await;
            outdated = Some(Instant::now());
        }
        tokio::time::sleep(RETRY.mul_f64(0.5 + fastrand::f64())).await;
    }
}
