//! The servers that requests may go to, laid out for choosing.
//!
//! A zone never changes: when a server comes, goes, falls ill or recovers, another is made beside the requests' way and put in its
//! place. So choosing takes no lock.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::balance::{Look, Tier, Turn};
use super::discovery::Wanted;
use super::health::nanos;
use super::{Selection, Server, ServerId, Tried};
use crate::clock;
use crate::config::{Balance, Role};

/// A server and its part in an upstream.
#[derive(Debug, Clone)]
pub struct Member {
    pub server: Arc<Server>,
    /// Share of requests relative to the others, at least 1.
    pub weight: u32,
    pub role: Role,
    /// Exchanges at once. `None`: any number.
    pub max_connections: Option<u32>,
}

impl Member {
    pub(super) fn new(server: Arc<Server>, wanted: &Wanted) -> Self {
        Self {
            server,
            weight: wanted.weight,
            role: wanted.role,
            max_connections: wanted.max_connections,
        }
    }

    pub fn is_full(&self) -> bool {
        self.max_connections
            .is_some_and(|max| self.server.load.open() >= max as usize)
    }
}

/// Who may get a request.
#[derive(Debug)]
pub enum Choice<'a> {
    Server(&'a Member),
    /// There are servers, and all have as many requests as they may.
    Full,
    Nobody,
}

#[derive(Debug)]
pub struct Zone {
    balance: Balance,
    members: Vec<Member>,
    main: Tier,
    backup: Tier,
    /// Nanoseconds.
    slow_start: u64,
    /// Until when (in nanoseconds of [`nanos`]) some server gets less than its share.
    slow_until: u64,
}

impl Zone {
    pub fn new(balance: Balance, slow_start: Duration, members: Vec<Member>) -> Self {
        let live = |role| -> Vec<Member> {
            let fits = |member: &&Member| member.role == role && member.server.health.is_usable();
            members.iter().filter(fits).cloned().collect()
        };
        let (now, slow_start) = (nanos(Instant::now()), slow_start.as_nanos() as u64);
        let left = |member: &Member| slow_start.saturating_sub(member.server.health.since_back(now)?).into();
        let longest: Option<u64> = members.iter().filter_map(left).max();
        Self {
            main: Tier::new(&balance, live(Role::Main)),
            backup: Tier::new(&balance, live(Role::Backup)),
            slow_start,
            slow_until: match longest {
                Some(left) if left > 0 => now.saturating_add(left),
                _ => 0,
            },
            balance,
            members,
        }
    }

    /// All servers, usable or not.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Servers that can be used, backups included.
    pub fn live(&self) -> usize {
        self.main.members.len() + self.backup.members.len()
    }

    /// A server that can be used, and that `tried` does not name.
    pub fn choose(&self, selection: &Selection, tried: &Tried, turn: Turn) -> Choice<'_> {
        let needs_time = self.balance == Balance::LeastTime || self.slow_until > 0;
        let now = if needs_time { nanos(clock::lately()) } else { 0 };
        let look = Look {
            selection,
            tried,
            turn,
            now,
            slow_start: if now < self.slow_until { self.slow_start } else { 0 },
        };
        if let Some(choice) = selection.sticky.and_then(|id| self.sticky(id, tried)) {
            return choice;
        }
        for tier in [&self.main, &self.backup] {
            if let Some(member) = tier.choose(&self.balance, &look) {
                return Choice::Server(member);
            }
            let is_full = |member: &Member| !tried.contains(member.server.id) && member.server.health.is_usable();
            if tier.members.iter().any(is_full) {
                return Choice::Full;
            }
        }
        Choice::Nobody
    }

    /// The server that the client was with before. `None`: it is gone, and another will do.
    fn sticky(&self, id: ServerId, tried: &Tried) -> Option<Choice<'_>> {
        let is_it = |member: &&Member| member.server.id == id;
        let member = self.members.iter().find(is_it)?;
        match (
            tried.contains(id) || !member.server.health.is_choosable(),
            member.is_full(),
        ) {
            (true, _) => None,
            // What it remembers of the client is worth a wait.
            (false, true) => Some(Choice::Full),
            (false, false) => Some(Choice::Server(member)),
        }
    }
}
