//! The servers that requests may go to, laid out for choosing.
//!
//! A zone never changes: when a server comes, goes, falls ill or recovers, another is made beside the requests' way and put in its
//! place. So choosing takes no lock.

use std::sync::Arc;

use super::balance::{Turn, least, smooth_round};
use super::{Selection, Server, Tried};
use crate::config::Balance;

/// A server and its part in an upstream.
#[derive(Debug, Clone)]
pub struct Member {
    pub server: Arc<Server>,
    /// Share of requests relative to the others, at least 1.
    pub weight: u32,
}

#[derive(Debug)]
pub struct Zone {
    balance: Balance,
    members: Vec<Member>,
    /// Members that can be used.
    live: Vec<Member>,
    /// Indices of `live` in the order of their turns.
    round: Vec<u32>,
}

impl Zone {
    pub fn new(balance: Balance, members: Vec<Member>) -> Self {
        let is_live = |member: &&Member| member.server.health.is_usable();
        let live: Vec<Member> = members.iter().filter(is_live).cloned().collect();
        let weights: Vec<u32> = live.iter().map(|member| member.weight).collect();
        Self {
            round: smooth_round(&weights),
            balance,
            members,
            live,
        }
    }

    /// All servers, usable or not.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Servers that can be used.
    pub fn live(&self) -> usize {
        self.live.len()
    }

    /// A server that can be used, and that `tried` does not name.
    pub fn choose(&self, _selection: &Selection, tried: &Tried, turn: Turn) -> Option<&Member> {
        // The zone may be older than what happened to a server.
        let is_out = |member: &Member| tried.contains(member.server.id) || !member.server.health.is_usable();
        match self.balance {
            Balance::RoundRobin => {
                let length = self.round.len();
                (0..length)
                    .filter_map(|step| self.live.get(*self.round.get((turn.0 + step) % length)? as usize))
                    .find(|member| !is_out(member))
            }
            Balance::LeastConnections => {
                let loads = self.live.iter().map(|member| (member.server.open(), member.weight));
                let out = |index| self.live.get(index).is_none_or(is_out);
                self.live.get(least(loads, turn, out)?)
            }
        }
    }
}
