//! What every key has used, in Redis: one count for all instances.
//!
//! A script does the arithmetic of [`gcra`](super::gcra) in Redis, by its clock, for all limits of a request at once: exact, in
//! one round trip, and no matter what the instances take for the time. What Redis said last stays in memory, and refuses what is
//! surely too much without asking again. While Redis is away each instance lets its share through: the limit divided by the number of
//! instances that were known last. What went through then is told to Redis when it is back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use redis::Value;
use ring::digest::{SHA256, digest};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::gcra::{Admission, Gcra, Reply, State, Verdict};
use super::keys::Key;
use super::local::{KeyHash, Table};
use crate::config::Deployment;
use crate::metrics::RedisOperation;
use crate::redis::{Redis, RedisError, Script};

/// How often an instance says that it is there.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// What has been used is told by the way; more of it than this waits for nobody.
const CHARGES: usize = 4096;

/// Takes from all limits, or from none. For each key five arguments: tolerance, cost and block in microseconds; how far ahead the key
/// is at least, because of what was let through while Redis was away, or was said before a restart; and 1 if the limit may refuse. Answers three numbers for
/// each: 1 for taken, 0 for too much, -1 for blocked; nanoseconds until everything is back; nanoseconds of the block.
///
/// Times count from 2026, so that a double holds them to a fraction of a microsecond. A key is kept as long as it is ahead.
static TAKE: Script = Script::new(
    r"
local time = redis.call('TIME')
local now = (tonumber(time[1]) - 1767225600) * 1000000 + tonumber(time[2])
local function write(key, tat, till)
  local ahead = math.max(tat, till) - now
  if ahead <= 0 then
    redis.call('DEL', key)
  else
    redis.call('SET', key, string.format('%.4f %.4f', tat, till), 'PX', math.ceil(ahead / 1000) + 1)
  end
end
local tats, tills, told, said, refused = {}, {}, {}, {}, false
for i, key in ipairs(KEYS) do
  local tolerance, cost = tonumber(ARGV[i * 5 - 4]), tonumber(ARGV[i * 5 - 3])
  local tat, till = now, 0
  local known = redis.call('GET', key)
  if known then
    local a, b = string.match(known, '^(%S+) (%S+)$')
    tat, till = tonumber(a) or now, tonumber(b) or 0
  end
  tats[i] = math.max(tat, now + tonumber(ARGV[i * 5 - 1]))
  told[i] = tats[i] > tat
  tills[i] = till
  if till > now then
    said[i] = -1
  elseif tats[i] + math.min(cost, tolerance) > now + tolerance then
    said[i] = 0
  else
    said[i] = 1
  end
  if said[i] ~= 1 and ARGV[i * 5] == '1' then
    refused = true
  end
end
local answer = {}
for i, key in ipairs(KEYS) do
  local block = tonumber(ARGV[i * 5 - 2])
  if said[i] == 1 and not refused then
    tats[i] = tats[i] + tonumber(ARGV[i * 5 - 3])
    write(key, tats[i], 0)
  elseif said[i] == 0 and block > 0 then
    tills[i] = now + block
    write(key, tats[i], tills[i])
  elseif told[i] then
    -- Whoever has told it, tells it once.
    write(key, tats[i], tills[i])
  end
  answer[i * 3 - 2] = said[i]
  answer[i * 3 - 1] = math.floor((tats[i] - now) * 1000)
  answer[i * 3] = math.max(0, math.floor((tills[i] - now) * 1000))
end
return answer
",
);

/// Moves a key on, or back: what was used is not what was taken. Two arguments, in microseconds: how far, and how long ago.
static CHARGE: Script = Script::new(
    r"
local time = redis.call('TIME')
local now = (tonumber(time[1]) - 1767225600) * 1000000 + tonumber(time[2])
local since = now - tonumber(ARGV[2])
local tat, till = since, 0
local known = redis.call('GET', KEYS[1])
if known then
  local a, b = string.match(known, '^(%S+) (%S+)$')
  tat, till = math.max(tonumber(a) or since, since), tonumber(b) or 0
end
tat = math.max(tat + tonumber(ARGV[1]), now)
local ahead = math.max(tat, till) - now
if ahead <= 0 then
  return redis.call('DEL', KEYS[1])
end
return redis.call('SET', KEYS[1], string.format('%.4f %.4f', tat, till), 'PX', math.ceil(ahead / 1000) + 1)
",
);

/// Says that an instance is there, forgets those that have not said so for ten seconds, and answers how many there are.
static HERE: Script = Script::new(
    r"
local now = tonumber(redis.call('TIME')[1])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - 10)
redis.call('EXPIRE', KEYS[1], 20)
return redis.call('ZCARD', KEYS[1])
",
);

/// Limits that instances share.
#[derive(Debug)]
pub struct Shared {
    redis: Redis,
    /// What keys have used while Redis was away, and Redis has not been told of.
    away: Table,
    /// What keys have used through this instance, as if it were all that there is: beside its share of the limit. Others may have used
    /// as much that this one has not been told of when Redis goes.
    own: Table,
    instances: Arc<AtomicU32>,
    charges: mpsc::Sender<Charge>,
    /// Dropped with this, which ends them.
    _tasks: JoinSet<()>,
}

/// A limit that is asked of Redis.
#[derive(Debug, Clone)]
pub struct Question<'a> {
    pub gcra: &'a Gcra,
    pub key: KeyHash,
    pub name: SharedKey,
    pub units: u64,
    /// Whether it may refuse the request.
    pub refuses: bool,
    pub given_back: GivenBack,
}

/// Whether units of a limit may come back before their time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GivenBack {
    /// What Redis said once holds: it is told that again, should it have been lost with a restart.
    Never,
    /// What Redis said last may no longer hold.
    WhatIsNotUsed,
}

/// A key's name in Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedKey(Arc<[u8]>);

#[derive(Debug)]
struct Charge {
    key: SharedKey,
    /// Nanoseconds.
    forward: i64,
    since: Instant,
}

impl Shared {
    /// Has to be called in a runtime of tokio.
    pub fn start(redis: Redis, max_keys: usize) -> Self {
        let (charges, mut waiting) = mpsc::channel::<Charge>(CHARGES);
        let instances = Arc::new(AtomicU32::new(1));
        let mut tasks = JoinSet::new();
        let teller = redis.clone();
        tasks.spawn(async move {
            while let Some(charge) = waiting.recv().await {
                tell(&teller, &charge).await;
            }
        });
        tasks.spawn(be_here(redis.clone(), instances.clone()));
        Self {
            redis,
            away: Table::new(max_keys),
            own: Table::new(max_keys),
            instances,
            charges,
            _tasks: tasks,
        }
    }

    /// Instances that count in this Redis, as far as is known.
    pub fn instances(&self) -> u32 {
        self.instances.load(Ordering::Relaxed).max(1)
    }

    pub fn is_available(&self) -> bool {
        self.redis.is_available()
    }

    /// Whether the keys of one request may be in different places.
    pub fn is_cluster(&self) -> bool {
        matches!(self.redis.config().deployment, Deployment::Cluster(_))
    }

    pub fn key(&self, key: &Key<'_>) -> SharedKey {
        let mut bytes = Vec::with_capacity(64);
        key.each_part(|part| {
            bytes.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
            bytes.extend_from_slice(part);
        });
        // Values may be secrets, and nobody shall find another one that means the same.
        let digest = digest(&SHA256, &bytes);
        let half = digest.as_ref().first_chunk::<16>().copied().unwrap_or_default();
        let name = format!("{}limit:{:032x}", self.redis.config().prefix, u128::from_be_bytes(half));
        SharedKey(name.into_bytes().into())
    }

    /// Takes from all limits, or from none. `memory` gets to know what Redis said; `now` is its time.
    ///
    /// # Errors
    /// Redis is away, or too slow: nothing was taken, as far as is known.
    pub async fn take(&self, questions: &[Question<'_>], memory: &Table, now: u64) -> Result<Vec<Verdict>, RedisError> {
        let deadline = Instant::now() + self.redis.config().deadline;
        let mut verdicts = Vec::with_capacity(questions.len());
        let mut refused = false;
        // In a cluster the keys of one request are in many places.
        let at_once = match self.is_cluster() {
            true => 1,
            false => questions.len().max(1),
        };
        for questions in questions.chunks(at_once) {
            let replies = self.ask(questions, memory, now, deadline).await?;
            if replies.len() != questions.len() {
                return Err(RedisError::Unavailable);
            }
            for (question, reply) in questions.iter().zip(replies) {
                memory.update(question.key, now, |_| (question.gcra.told(reply, now), ()));
                self.away.update(question.key, now, |_| (State::NEW, ()));
                refused |= question.refuses && reply.admission != 1;
                verdicts.push(question.gcra.verdict(reply, question.units));
            }
            if refused {
                break;
            }
        }
        if !refused {
            for question in questions
                .iter()
                .zip(&verdicts)
                .filter_map(|(question, verdict)| (verdict.admission == Admission::Admitted).then_some(question))
            {
                self.shift_own(question.gcra, question.key, now, |share, state| {
                    share.charge(state, now, question.units)
                });
            }
        }
        if refused && at_once == 1 {
            self.take_back(questions, verdicts.len().saturating_sub(1));
        }
        Ok(verdicts)
    }

    /// Gives back what the first so many questions have taken.
    fn take_back(&self, questions: &[Question<'_>], count: usize) {
        for question in questions.iter().take(count) {
            let cost = i64::try_from(question.gcra.cost(question.units)).unwrap_or(i64::MAX);
            self.charge(question.name.clone(), -cost);
        }
    }

    async fn ask(
        &self,
        questions: &[Question<'_>],
        memory: &Table,
        now: u64,
        deadline: Instant,
    ) -> Result<Vec<Reply>, RedisError> {
        let keys: Vec<&[u8]> = questions.iter().map(|question| &*question.name.0).collect();
        let mut arguments = Vec::with_capacity(questions.len() * 5);
        for question in questions {
            let gcra = question.gcra;
            let used_away = self.away.read(question.key, now).forgettable_at().saturating_sub(now);
            let ahead = match question.given_back {
                GivenBack::Never => used_away.max(gcra.ahead(memory.read(question.key, now), now)),
                GivenBack::WhatIsNotUsed => used_away,
            };
            let block = u64::try_from(gcra.block_for().as_nanos()).unwrap_or(u64::MAX);
            for nanoseconds in [gcra.tolerance(), gcra.cost(question.units), block, ahead] {
                arguments.push(microseconds(i64::try_from(nanoseconds).unwrap_or(i64::MAX)));
            }
            arguments.push(u8::from(question.refuses).to_string());
        }
        let arguments: Vec<&[u8]> = arguments.iter().map(String::as_bytes).collect();
        let answer = self
            .redis
            .run_script(RedisOperation::Limit, &TAKE, &keys, &arguments, deadline)
            .await?;
        let Value::Array(numbers) = answer else {
            return Ok(Vec::new());
        };
        let numbers: Vec<i64> = numbers
            .iter()
            .map(|value| match value {
                Value::Int(number) => *number,
                _ => 0,
            })
            .collect();
        let (replies, _) = numbers.as_chunks::<3>();
        Ok(replies
            .iter()
            .map(|[admission, back_in, blocked_for]| Reply {
                admission: *admission,
                back_in: u64::try_from(*back_in).unwrap_or(0),
                blocked_for: u64::try_from(*blocked_for).unwrap_or(0),
            })
            .collect())
    }

    /// Takes this instance's share of a limit while Redis is away: of what Redis said last that is left, and no more than its share of the
    /// whole, beside what it has used of that already.
    pub fn take_share(&self, question: &Question<'_>, memory: &Table, now: u64) -> Verdict {
        let share = question.gcra.share(self.instances());
        let known = furthest(memory.read(question.key, now), self.own.read(question.key, now));
        self.away.update(question.key, now, |state| {
            share.take(furthest(state, known), now, question.units)
        })
    }

    /// Gives back what [`Shared::take_share`] took.
    pub fn give_share_back(&self, question: &Question<'_>, now: u64) {
        let share = question.gcra.share(self.instances());
        self.away.update(question.key, now, |state| {
            (share.give_back(state, now, question.units), ())
        });
    }

    /// What this instance let through has used more, or less, than was taken for it. `shift` is asked with this instance's share.
    pub fn shift_own(&self, gcra: &Gcra, key: KeyHash, now: u64, shift: impl FnOnce(&Gcra, State) -> State) {
        let share = gcra.share(self.instances());
        // No further than a client can be that has had all of the share: a key that comes to this instance only is not to wait for
        // longer when Redis goes.
        let most = now.saturating_add(share.tolerance());
        self.own.update(key, now, |state| {
            let shifted = shift(&share, state).forgettable_at();
            (State::back_at(shifted.min(most)), ())
        });
    }

    /// The same of what was let through while Redis was away. `false`: Redis has been told meanwhile what was taken.
    pub fn shift_share(&self, gcra: &Gcra, key: KeyHash, now: u64, shift: impl FnOnce(&Gcra, State) -> State) -> bool {
        let share = gcra.share(self.instances());
        self.away.update(key, now, |state| match state.forgettable_at() > now {
            true => (shift(&share, state), true),
            false => (state, false),
        })
    }

    /// Tells Redis by the way that a key has used more, or less, than was taken: nanoseconds.
    pub fn charge(&self, key: SharedKey, forward: i64) {
        if forward != 0 {
            // With that many waiting, Redis is as good as away.
            let since = Instant::now();
            let _ = self.charges.try_send(Charge { key, forward, since });
        }
    }
}

/// Tells Redis of what was used, as soon as it is there. What it may have been told already is not told again.
async fn tell(redis: &Redis, charge: &Charge) {
    loop {
        redis.available().await;
        let ago = i64::try_from(charge.since.elapsed().as_nanos()).unwrap_or(i64::MAX);
        let (forward, ago) = (microseconds(charge.forward), microseconds(ago));
        let arguments = [forward.as_bytes(), ago.as_bytes()];
        let deadline = Instant::now() + redis.config().deadline;
        let answer = redis
            .run_script(RedisOperation::Limit, &CHARGE, &[&charge.key.0], &arguments, deadline)
            .await;
        match answer {
            Err(RedisError::Unavailable) => {}
            Ok(_) | Err(_) => return,
        }
    }
}

/// The state that has less left.
fn furthest(one: State, other: State) -> State {
    match one.forgettable_at() >= other.forgettable_at() {
        true => one,
        false => other,
    }
}

/// Says for as long as it runs that this instance is there.
async fn be_here(redis: Redis, instances: Arc<AtomicU32>) {
    let id = format!("{:016x}", fastrand::u64(..));
    let key = format!("{}instances", redis.config().prefix);
    let mut every = tokio::time::interval(HEARTBEAT);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        redis.available().await;
        let deadline = Instant::now() + redis.config().deadline;
        let answer = redis
            .run_script(
                RedisOperation::Limit,
                &HERE,
                &[key.as_bytes()],
                &[id.as_bytes()],
                deadline,
            )
            .await;
        if let Ok(Value::Int(count)) = answer {
            instances.store(u32::try_from(count).unwrap_or(1).max(1), Ordering::Relaxed);
        }
    }
}

/// For a script, with what a double holds of the fraction.
fn microseconds(nanoseconds: i64) -> String {
    let (whole, rest) = (nanoseconds.unsigned_abs() / 1000, nanoseconds.unsigned_abs() % 1000);
    let sign = if nanoseconds < 0 { "-" } else { "" };
    format!("{sign}{whole}.{rest:03}")
}
