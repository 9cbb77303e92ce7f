//! One connection for many commands, kept alive by a task of its own.
//!
//! ```text
//!             commands fail FAILURES times in a row, or a look fails
//!   ┌─ up ──────────────────────────────────────────────────────────► suspended ─┐
//!   │    ◄──────────────────────── a look succeeds ───────────────────────────── │
//!   │ the connection ends                       looks get no answer LOOKS times   │
//!   └──► none ◄───────────────────────────────────────────────────────────────────┘
//!         └── connect, again and again ──► up
//! ```
//!
//! The first failure makes the task look (`PING`, `TIME`): so a server that hangs is found out after two deadlines however few requests
//! there are, and one slow command suspends nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::{ErrorKind, ServerErrorKind, Value};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::connect::{self, Connection, Use};
use super::error::RedisError;
use super::server::Server;
use super::{Shared, cluster};
use crate::metrics::{RedisFault, RedisOperation};

/// Commands that may fail in a row before no more are sent.
const FAILURES: u32 = 5;

/// Looks without any answer after which the connection is given up: the server, or what is in between, has forgotten it.
const LOOKS: u32 = 3;

/// Between two looks at a server that fails: doubled each time.
const FIRST_HOLD: Duration = Duration::from_millis(100);
const LONGEST_HOLD: Duration = Duration::from_secs(1);

/// Until the server's time is asked for again while nothing is wrong: a machine that was suspended knows soon how long.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// One that fails again so soon after it came back has not really been back.
const STEADY: Duration = Duration::from_secs(10);

/// Between two attempts to connect, before jitter: doubled each time.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(3);

/// Between two connections that are made because a server says it is a replica.
const DEMOTED_EVERY: Duration = Duration::from_secs(1);

/// A place for a connection.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// Present while commands are sent.
    connection: ArcSwapOption<Connection>,
    suspended: AtomicBool,
    /// In a row.
    failures: AtomicU32,
    demoted: AtomicBool,
    /// Tells the task that something is wrong.
    suspect: Notify,
}

impl Link {
    #[inline]
    pub(super) fn is_up(&self) -> bool {
        !self.suspended.load(Ordering::Relaxed) && self.connection.load().is_some()
    }

    pub(super) fn connection(&self) -> Option<Connection> {
        match self.suspended.load(Ordering::Relaxed) {
            true => None,
            false => self.connection.load().as_deref().cloned(),
        }
    }

    pub(super) fn succeeded(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// Answers whether this was the one that suspends the link.
    pub(super) fn failed(&self) -> bool {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        self.suspect.notify_one();
        failures >= FAILURES && !self.suspended.swap(true, Ordering::AcqRel)
    }

    /// The server says that it is a replica: there may be another master now.
    pub(super) fn demoted(&self) {
        self.demoted.store(true, Ordering::Release);
        self.suspect.notify_one();
    }

    fn suspend(&self) -> bool {
        !self.suspended.swap(true, Ordering::AcqRel)
    }

    /// `failures`: how many of those that suspend it are held against it.
    fn open(&self, failures: u32) {
        self.failures.store(failures, Ordering::Relaxed);
        self.suspended.store(false, Ordering::Release);
    }
}

/// Why a connection is not used any longer.
enum Over {
    Broken(RedisError),
    /// It is used until there is another one.
    Demoted,
}

/// Keeps a connection in a link for as long as there is anybody to use it.
pub(super) async fn keep(shared: Arc<Shared>, server: Arc<Server>, index: usize) {
    let Some(link) = server.links().get(index) else { return };
    let mut wait = FIRST_WAIT;
    let mut hold = FIRST_HOLD;
    // Of the connection that is in use, so that it ends when the next one is there.
    let mut _driver = JoinSet::new();
    loop {
        let error = match connect_and_look(&shared, &server).await {
            Ok((connection, mut driver)) => {
                link.demoted.store(false, Ordering::Release);
                link.connection.store(Some(Arc::new(connection.clone())));
                link.open(0);
                shared.review_server(&server, None);
                let since = Instant::now();
                let over = watch(&shared, &server, link, connection, &mut driver, &mut hold).await;
                _driver = driver;
                if since.elapsed() > STEADY {
                    wait = FIRST_WAIT;
                }
                match over {
                    Over::Broken(error) => {
                        link.connection.store(None);
                        error
                    }
                    Over::Demoted => {
                        tokio::time::sleep_until(since + DEMOTED_EVERY).await;
                        continue;
                    }
                }
            }
            Err(error) => error,
        };
        // One that was demoted may have ended meanwhile.
        if link.demoted.load(Ordering::Acquire) {
            link.connection.store(None);
        }
        shared.review_server(&server, Some(&error));
        let back = server.back.notified();
        tokio::select! {
            () = tokio::time::sleep(jittered(wait)) => {}
            () = back => {}
        }
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

/// Between a quarter and six tenths of the time: instances do not come all at once, and none is later than 1.8 s.
fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(0.25 + 0.35 * fastrand::f64())
}

async fn connect_and_look(shared: &Shared, server: &Server) -> Result<(Connection, JoinSet<()>), RedisError> {
    let since = Instant::now();
    let result = async {
        let (mut connection, driver) = connect::connect(&shared.config, server.place(), Use::Commands).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(driver);
        let deadline = Instant::now() + connect::CONNECT;
        look(shared, server, &mut connection, deadline).await?;
        Ok((connection, tasks))
    }
    .await;
    shared.metrics.duration(RedisOperation::Connect, since.elapsed());
    if let Err(error) = &result {
        let error: &RedisError = error;
        shared.metrics.fault(RedisOperation::Connect, error.fault());
    }
    result
}

/// Looks after a connection until it is of no use any more.
async fn watch(
    shared: &Shared,
    server: &Server,
    link: &Link,
    mut connection: Connection,
    driver: &mut JoinSet<()>,
    hold: &mut Duration,
) -> Over {
    let mut opened = Instant::now();
    loop {
        tokio::select! {
            Some(_) = driver.join_next() => {
                let closed = redis::RedisError::from((ErrorKind::Io, "the connection was closed"));
                return Over::Broken(closed.into());
            }
            () = link.suspect.notified() => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
        if link.demoted.load(Ordering::Acquire) {
            return Over::Demoted;
        }
        let mut unanswered = 0;
        loop {
            let since = Instant::now();
            let looked = look(shared, server, &mut connection, since + shared.config.deadline).await;
            shared.metrics.duration(RedisOperation::Probe, since.elapsed());
            let error = match looked {
                Ok(()) => break,
                Err(error) => error,
            };
            shared.metrics.fault(RedisOperation::Probe, error.fault());
            if link.suspend() && opened.elapsed() > STEADY {
                *hold = FIRST_HOLD;
            }
            shared.review_server(server, Some(&error));
            match error.fault() {
                RedisFault::Connection | RedisFault::Protocol | RedisFault::Auth => return Over::Broken(error),
                RedisFault::Timeout => unanswered += 1,
                _ => unanswered = 0,
            }
            if unanswered >= LOOKS {
                return Over::Broken(error);
            }
            tokio::time::sleep(*hold).await;
            *hold = (*hold * 2).min(LONGEST_HOLD);
        }
        if link.suspended.load(Ordering::Acquire) {
            opened = Instant::now();
            // The next failure is enough to suspend it again.
            link.open(FAILURES - 1);
            shared.review_server(server, None);
        }
    }
}

/// Asks whether the server serves, and for its time.
async fn look(
    shared: &Shared,
    server: &Server,
    connection: &mut Connection,
    deadline: Instant,
) -> Result<(), RedisError> {
    let mut commands = redis::pipe();
    // TIME is answered while data is loaded, PING is not.
    commands.cmd("PING").cmd("TIME");
    if shared.cluster.is_some() {
        commands.cmd("CLUSTER").arg("INFO");
    }
    let asked = Instant::now();
    let answers = match tokio::time::timeout_at(deadline, connection.send_all(&commands)).await {
        Ok(answers) => answers?,
        Err(_) => return Err(RedisError::Timeout),
    };
    if answers.get(2).is_some_and(|info| !cluster::serves(info)) {
        let down = ErrorKind::Server(ServerErrorKind::ClusterDown);
        return Err(redis::RedisError::from((down, "the cluster is down")).into());
    }
    let unread = || redis::RedisError::from((ErrorKind::Parse, "that is no time"));
    server.told_time(asked, answers.get(1).and_then(millis).ok_or_else(unread)?);
    Ok(())
}

/// The answer to `TIME`: seconds and microseconds.
fn millis(time: &Value) -> Option<u64> {
    let Value::Array(parts) = time else { return None };
    let number = |index: usize| match parts.get(index) {
        Some(Value::BulkString(text)) => std::str::from_utf8(text).ok()?.parse::<u64>().ok(),
        _ => None,
    };
    number(0)?.checked_mul(1000)?.checked_add(number(1)? / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_wait_is_as_long_as_two_seconds() {
        for _ in 0..1000 {
            let wait = jittered(LONGEST_WAIT);
            assert!(
                wait >= Duration::from_millis(750) && wait <= Duration::from_millis(1800),
                "{wait:?}"
            );
        }
    }

    #[test]
    fn only_failures_in_a_row_suspend() {
        let link = Link::default();
        for _ in 1..FAILURES {
            assert!(!link.failed());
        }
        link.succeeded();
        for _ in 1..FAILURES {
            assert!(!link.failed());
        }
        assert!(link.failed());
        assert!(!link.failed(), "said once");
        // After it has come back, one is enough.
        link.open(FAILURES - 1);
        assert!(link.failed());
    }

    #[test]
    fn times_are_read() {
        let part = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        assert_eq!(millis(&Value::Array(vec![part("12"), part("345678")])), Some(12_345));
        for broken in [
            Value::Nil,
            Value::Array(vec![]),
            Value::Array(vec![part("x"), part("1")]),
            Value::Array(vec![part("99999999999999999999"), part("1")]),
            Value::Array(vec![part("18446744073709551615"), part("1")]),
        ] {
            assert_eq!(millis(&broken), None);
        }
    }
}
