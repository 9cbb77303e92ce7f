//! One fetch for all instances: whoever fetches holds a lease in Redis, and the others wait for word of it.
//!
//! A lease is a key with a token and a short life, which its owner extends for as long as the fetch lives. It is released by its owner
//! only, once the response can be read in L2 or it is known that it will not be, and that is published to all. Whoever waits looks for itself
//! afterwards; what is purged meanwhile is not found in L2, and leads to another fetch. The token says which purges its owner knew of: who
//! asks from behind one that is about the fetch takes the lease over rather than wait for what nobody may have. Where the owner dies, the
//! lease expires, and somebody else takes it. Without Redis, or while nothing is heard from it, nobody waits.

mod hear;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use redis::Value;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_128;

use super::coherence::{Coherence, Mark};
use super::epochs::Subject;
use super::flight::Destination;
use crate::metrics::{LeaseResult, RedisOperation};
use crate::redis::{Redis, Script};

/// The life of a lease that is not extended: so long others wait for an owner that has died.
const LIFE: Duration = Duration::from_secs(3);

/// Between two extensions: one may fail, and a machine under load may be late.
const EXTEND: Duration = Duration::from_secs(1);

/// Redis is asked again a little later than the lease ends, so that it has ended there, too.
const MARGIN: Duration = Duration::from_millis(20);

/// How long it is remembered that a response was not stored, as in one instance.
const REMEMBERED: Duration = Duration::from_secs(10);

/// For the answers to what no request waits for.
const ANSWER: Duration = Duration::from_secs(1);

/// Answers a text: what is remembered of the last fetch; a table: whose the lease is and the milliseconds that it has left; a number: it
/// is yours, and whether anything stands under the response's name. It begins with a write, so that nobody is told to wait by a server
/// that takes none: there the lease could not be released.
static ACQUIRE: Script = Script::new(
    r"
local last = redis.call('GET', KEYS[2])
if last then return last end
if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
  local owner = redis.call('GET', KEYS[1])
  if owner ~= ARGV[3] then return {owner, math.max(redis.call('PTTL', KEYS[1]), 1)} end
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return redis.call('EXISTS', KEYS[3])
",
);

static PROLONG: Script = Script::new(
    r"
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
",
);

/// Also where it has expired and nobody has taken it: there may be some who still wait.
static RELEASE: Script = Script::new(
    r"
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
if ARGV[5] ~= '0' then redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[5]) end
redis.call('PUBLISH', ARGV[2], ARGV[4] .. ' ' .. ARGV[3])
return 1
",
);

/// How a fetch ended for the other instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It can be read in L2.
    Stored,
    /// Such responses are not for others: each request for itself. Remembered for a while.
    Unstored,
    /// Such responses are too large for L2: each instance for itself. Remembered for a while.
    TooLarge,
    /// This one was not for others, which says nothing of the next one: each instance for itself.
    Apart,
    /// Nothing came of it: somebody else fetches.
    Abandoned,
}

impl Outcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Unstored => "unstored",
            Self::TooLarge => "too_large",
            Self::Apart => "apart",
            Self::Abandoned => "abandoned",
        }
    }

    fn read(text: &str) -> Option<Self> {
        [
            Self::Stored,
            Self::Unstored,
            Self::TooLarge,
            Self::Apart,
            Self::Abandoned,
        ]
        .into_iter()
        .find(|outcome| outcome.as_str() == text)
    }

    const fn remembered(self) -> Duration {
        match self {
            Self::Unstored | Self::TooLarge => REMEMBERED,
            Self::Stored | Self::Apart | Self::Abandoned => Duration::ZERO,
        }
    }
}

/// What asking for a lease came to.
#[derive(Debug)]
pub enum Grant {
    /// Fetch for all.
    Led(Lease, Standing),
    /// Somebody else does.
    Taken(Wait),
    /// What came of the last fetch, a short while ago: nobody waits for another one.
    Remembered(Outcome),
    /// Redis does not say, or is not heard: fetch without waiting.
    Refused,
}

/// Whether there is anything in L2 at the moment at which a lease is had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Nothing,
    Something,
}

/// The duty to tell the other instances how a fetch ended. Dropped without a word, it counts as abandoned.
#[derive(Debug)]
pub struct Lease {
    end: oneshot::Sender<Outcome>,
}

impl Lease {
    /// Does not wait for Redis.
    pub fn release(self, outcome: Outcome) {
        // Without a runtime there is nobody to tell; it expires.
        let _ = self.end.send(outcome);
    }
}

/// A place among those who wait for another instance's fetch.
#[derive(Debug)]
pub struct Wait {
    place: Place,
    /// When the lease expires unless it is extended.
    expires: Instant,
}

/// Leases of all instances with the same prefix.
pub struct Leases {
    shared: Arc<Shared>,
    _listener: JoinSet<()>,
}

struct Shared {
    redis: Redis,
    coherence: Coherence,
    channel: String,
    /// Whether releases are to be heard of.
    wanted: Notify,
    /// Whether they are. Nobody waits otherwise.
    heard: AtomicBool,
    waiting: DashMap<u128, watch::Sender<Option<Outcome>>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leases")
            .field("heard", &self.heard)
            .finish_non_exhaustive()
    }
}

/// A place in `waiting`, given up when it is dropped.
#[derive(Debug)]
struct Place {
    shared: Arc<Shared>,
    digest: u128,
    news: watch::Receiver<Option<Outcome>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        // This one is the last, and nobody has begun to wait for another fetch since.
        self.shared.waiting.remove_if(&self.digest, |_, sender| {
            sender.receiver_count() <= 1 && sender.subscribe().same_channel(&self.news)
        });
    }
}

/// What a lease is kept under.
struct Names {
    digest: u128,
    lease: String,
    remembered: String,
    /// The response's own.
    response: String,
}

/// What a lease is for.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub destination: &'a Destination,
    /// The name of the route.
    pub route: &'a str,
    /// How long Redis may take to answer.
    pub until: Instant,
}

/// Whose a lease is: a random number, and the purges that its owner knew of.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Token(String);

impl Token {
    fn new(mark: Option<Mark>) -> Self {
        let Mark { incarnation, number } = mark.unwrap_or_default();
        Self(format!("{:032x} {incarnation:x} {number:x}", fastrand::u128(..)))
    }

    fn mark(&self) -> Option<Mark> {
        let mut parts = self.0.split(' ').skip(1).map(|part| u64::from_str_radix(part, 16));
        match (parts.next(), parts.next()) {
            (Some(Ok(incarnation)), Some(Ok(number))) => Some(Mark { incarnation, number }),
            _ => None,
        }
    }
}

impl Leases {
    /// Has to be called in a runtime of tokio.
    pub fn start(redis: Redis, coherence: Coherence) -> Self {
        let shared = Arc::new(Shared {
            channel: format!("{}leases", redis.config().prefix),
            redis,
            coherence,
            wanted: Notify::new(),
            heard: AtomicBool::new(false),
            waiting: DashMap::new(),
        });
        let mut listener = JoinSet::new();
        listener.spawn(hear::listen(shared.clone()));
        Self {
            shared,
            _listener: listener,
        }
    }

    /// There are routes that need leases: from now on other instances are heard.
    pub fn want(&self) {
        self.shared.wanted.notify_one();
    }

    /// Asks for a lease.
    pub async fn acquire(&self, asked: Asked<'_>) -> Grant {
        let grant = self.shared.acquire(asked).await;
        let metrics = self.shared.redis.metrics();
        match grant {
            Grant::Led(..) => metrics.lease(LeaseResult::Led),
            Grant::Taken(_) => {}
            Grant::Remembered(_) | Grant::Refused => metrics.lease(LeaseResult::Refused),
        }
        grant
    }
}

impl Wait {
    /// Waits for word of the other instance's fetch. `None`: its lease may have expired, Redis is away, or the deadline is over.
    pub async fn over(mut self, deadline: Instant) -> Option<Outcome> {
        let until = deadline.min(self.expires);
        let news = tokio::time::timeout_at(until, self.place.news.wait_for(Option::is_some)).await;
        let (result, outcome) = match news {
            Ok(Ok(outcome)) => (LeaseResult::Followed, *outcome),
            Ok(Err(_)) | Err(_) => (LeaseResult::Expired, None),
        };
        self.place.shared.redis.metrics().lease(result);
        outcome
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.place.shared.redis.metrics().lease_wait_ends();
    }
}

impl Shared {
    fn is_heard(&self) -> bool {
        self.heard.load(Ordering::Acquire) && self.redis.is_available()
    }

    /// Numbers of purges are each instance's own: they are no part of it.
    fn names(&self, destination: &Destination) -> Names {
        let key = xxh3_128(destination.key.as_bytes());
        let variant = destination.variant.as_ref().map_or(0, |variant| xxh3_128(variant));
        let mut both = key.to_le_bytes().to_vec();
        both.extend_from_slice(&variant.to_le_bytes());
        let prefix = &self.redis.config().prefix;
        // In a cluster, all are in one slot.
        let lease = format!("{prefix}lease:{{{key:032x}}}:{variant:032x}");
        Names {
            digest: xxh3_128(&both),
            remembered: format!("{lease}:last"),
            lease,
            response: super::l2::name(prefix, &destination.key),
        }
    }

    async fn acquire(self: &Arc<Self>, asked: Asked<'_>) -> Grant {
        if !self.is_heard() || Instant::now() >= asked.until {
            return Grant::Refused;
        }
        let names = self.names(asked.destination);
        // First a place to wait, so that nothing that happens after the answer goes unheard.
        let place = self.place(names.digest);
        let mine = Token::new(self.coherence.mark());
        let mut displaced = Token(String::new());
        loop {
            match self.ask(&names, &mine, &displaced, asked.until).await {
                Some(Answer::Mine(standing)) => {
                    let (end, ended) = oneshot::channel();
                    tokio::spawn(self.clone().hold(names, mine, ended));
                    return Grant::Led(Lease { end }, standing);
                }
                Some(Answer::Theirs(token, _)) if token != displaced && self.is_overtaken(&token, asked) => {
                    displaced = token;
                }
                // The connection may have been lost since.
                Some(Answer::Theirs(_, left)) if self.is_heard() => {
                    self.redis.metrics().lease_wait_begins();
                    return Grant::Taken(Wait {
                        place,
                        expires: Instant::now() + left.min(LIFE) + MARGIN,
                    });
                }
                Some(Answer::Remembered(outcome)) => return Grant::Remembered(outcome),
                Some(Answer::Theirs(..)) | None => return Grant::Refused,
            }
        }
    }

    async fn ask(&self, names: &Names, mine: &Token, displaced: &Token, until: Instant) -> Option<Answer> {
        let life = LIFE.as_millis().to_string();
        let keys = [
            names.lease.as_bytes(),
            names.remembered.as_bytes(),
            names.response.as_bytes(),
        ];
        let arguments = [mine.0.as_bytes(), life.as_bytes(), displaced.0.as_bytes()];
        let answer = self
            .redis
            .run_script(RedisOperation::Lease, &ACQUIRE, &keys, &arguments, until)
            .await;
        Answer::read(answer.ok()?)
    }

    /// Whether what its owner fetches has been purged since: nobody who asks now may have it.
    fn is_overtaken(&self, token: &Token, asked: Asked<'_>) -> bool {
        let subject = Subject {
            key: &asked.destination.key,
            route: asked.route,
            labels: &[],
        };
        token
            .mark()
            .is_some_and(|mark| self.coherence.is_overtaken(mark, subject))
    }

    fn place(self: &Arc<Self>, digest: u128) -> Place {
        let news = self
            .waiting
            .entry(digest)
            .or_insert_with(|| watch::Sender::new(None))
            .subscribe();
        Place {
            shared: self.clone(),
            digest,
            news,
        }
    }

    /// Extends a lease until its fetch is over, and releases it.
    async fn hold(self: Arc<Self>, names: Names, token: Token, mut ended: oneshot::Receiver<Outcome>) {
        let life = LIFE.as_millis().to_string();
        let keys = [names.lease.as_bytes(), names.remembered.as_bytes()];
        let outcome = loop {
            match tokio::time::timeout(EXTEND, &mut ended).await {
                Ok(outcome) => break outcome.unwrap_or(Outcome::Abandoned),
                Err(_) => {
                    let deadline = Instant::now() + EXTEND;
                    let arguments = [token.0.as_bytes(), life.as_bytes()];
                    // Where that fails, it may work the next time; where it is somebody else's by now, the release will do nothing.
                    let _ = self
                        .redis
                        .run_script(RedisOperation::Lease, &PROLONG, &keys[..1], &arguments, deadline)
                        .await;
                }
            }
        };
        let digest = format!("{:032x}", names.digest);
        let remembered = outcome.remembered().as_millis().to_string();
        let arguments = [
            token.0.as_bytes(),
            self.channel.as_bytes(),
            outcome.as_str().as_bytes(),
            digest.as_bytes(),
            remembered.as_bytes(),
        ];
        let deadline = Instant::now() + ANSWER;
        // Where that fails, it expires.
        let _ = self
            .redis
            .run_script(RedisOperation::Lease, &RELEASE, &keys, &arguments, deadline)
            .await;
    }

    fn tell(&self, message: &[u8]) {
        let Some((digest, outcome)) = std::str::from_utf8(message).ok().and_then(|text| text.split_once(' ')) else {
            return;
        };
        if let (Ok(digest), Some(outcome)) = (u128::from_str_radix(digest, 16), Outcome::read(outcome))
            && let Some((_, waiting)) = self.waiting.remove(&digest)
        {
            waiting.send_replace(Some(outcome));
        }
    }
}

/// What the script answers.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Mine(Standing),
    Theirs(Token, Duration),
    Remembered(Outcome),
}

impl Answer {
    fn read(value: Value) -> Option<Self> {
        match value {
            Value::Int(0) => Some(Self::Mine(Standing::Nothing)),
            Value::Int(_) => Some(Self::Mine(Standing::Something)),
            Value::BulkString(text) => Outcome::read(std::str::from_utf8(&text).ok()?).map(Self::Remembered),
            Value::Array(parts) => match parts.as_slice() {
                [Value::BulkString(owner), Value::Int(left)] => Some(Self::Theirs(
                    Token(String::from_utf8(owner.clone()).ok()?),
                    Duration::from_millis(left.unsigned_abs()),
                )),
                _ => None,
            },
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_script_answers_is_read() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let token = Token::new(Some(Mark {
            incarnation: u64::MAX,
            number: 7,
        }));
        let theirs = Value::Array(vec![text(&token.0), Value::Int(12)]);
        for (value, expected) in [
            (Value::Int(0), Some(Answer::Mine(Standing::Nothing))),
            (Value::Int(1), Some(Answer::Mine(Standing::Something))),
            (text("too_large"), Some(Answer::Remembered(Outcome::TooLarge))),
            (text("x"), None),
            (theirs, Some(Answer::Theirs(token, Duration::from_millis(12)))),
            (Value::Array(vec![Value::Nil]), None),
            (Value::Nil, None),
        ] {
            assert_eq!(Answer::read(value), expected);
        }
    }

    #[test]
    fn tokens_say_which_purges_their_owners_knew() {
        let mark = Mark {
            incarnation: 0xab,
            number: 300,
        };
        assert_eq!(Token::new(Some(mark)).mark(), Some(mark));
        assert_ne!(Token::new(None), Token::new(None));
        for text in ["", "x", "x 1", "x 1 y", "x -1 1"] {
            assert_eq!(Token(text.to_owned()).mark(), None, "{text}");
        }
    }
}
