//! Which server gets the next request. Nothing here takes a lock: turns and rings are laid out beforehand, open exchanges and
//! latencies are read where they are counted.

use std::sync::atomic::{AtomicUsize, Ordering};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::ring::Ring;
use super::zone::Member;
use super::{Selection, Tried};
use crate::config::Balance;

/// Longest round of weighted turns that is laid out; larger weights are scaled down to it.
const MAX_ROUND: u64 = 4096;

/// The full share of a server that does not come back just now, see [`Look::share`].
const FULL_SHARE: u64 = 1024;

/// The least share of a server that comes back, or it would never be asked.
const LEAST_SHARE: u64 = FULL_SHARE / 64;

/// How often a second server is drawn if the first comes again. Taking its neighbour instead would favour some.
const DRAWS: usize = 8;

/// The place of one choice among those of an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn(pub usize);

impl Turn {
    /// Of a choice that does not count.
    pub fn random() -> Self {
        Self(fastrand::usize(..))
    }
}

/// Counts choices.
#[derive(Debug, Default)]
pub struct Turns(AtomicUsize);

impl Turns {
    pub fn next(&self) -> Turn {
        Turn(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// What one choice depends on beside the servers.
#[derive(Clone, Copy)]
pub struct Look<'a> {
    pub selection: &'a Selection,
    pub tried: &'a Tried,
    pub turn: Turn,
    /// In the nanoseconds of [`nanos`](super::health::nanos); 0 where nothing depends on it.
    pub now: u64,
    /// How long (ns) a server that comes back gets less than its share. 0: no server does at the moment.
    pub slow_start: u64,
}

impl Look<'_> {
    /// Whether a server cannot be chosen.
    fn is_out(&self, member: &Member) -> bool {
        // The zone may be older than what happened to a server.
        !member.server.health.is_choosable() || self.tried.contains(member.server.id) || member.is_full()
    }

    /// What a server gets of its weight: it grows evenly over `slow_start`.
    fn share(&self, member: &Member) -> u64 {
        if self.slow_start == 0 {
            return FULL_SHARE;
        }
        match member.server.health.since_back(self.now) {
            Some(since) if since < self.slow_start => {
                let share = u128::from(since) * u128::from(FULL_SHARE) / u128::from(self.slow_start);
                (share as u64).max(LEAST_SHARE)
            }
            _ => FULL_SHARE,
        }
    }

    /// Whether a server is passed over this time because it comes back just now.
    fn spares(&self, member: &Member) -> bool {
        let share = self.share(member);
        share < FULL_SHARE && fastrand::u64(..FULL_SHARE) >= share
    }

    fn weight(&self, member: &Member) -> u64 {
        u64::from(member.weight) * self.share(member)
    }
}

/// Servers of which each is as good as the others, but for load and weight: the usable ones, or the usable backups.
#[derive(Debug, Default)]
pub struct Tier {
    pub members: Vec<Member>,
    /// Indices of members in the order of their turns.
    round: Vec<u32>,
    ring: Ring,
}

impl Tier {
    pub fn new(balance: &Balance, members: Vec<Member>) -> Self {
        let weights: Vec<u32> = members.iter().map(|member| member.weight).collect();
        let ring = match balance {
            Balance::ClientIp | Balance::Hash(_) => {
                Ring::new(members.iter().map(|member| (&*member.server.label, member.weight)))
            }
            _ => Ring::default(),
        };
        Self {
            round: smooth_round(&weights),
            ring,
            members,
        }
    }

    pub fn choose(&self, balance: &Balance, look: &Look<'_>) -> Option<&Member> {
        let chosen = match (balance, look.selection.hash) {
            (Balance::RoundRobin, _) | (Balance::ClientIp | Balance::Hash(_), None) => self.in_turn(look),
            (Balance::LeastConnections, _) => self.least_connections(look),
            (Balance::LeastTime, _) => self.least_time(look),
            (Balance::Random, _) => self.random(look),
            (Balance::ClientIp | Balance::Hash(_), Some(key)) => self.hashed(key, look),
        };
        // All that could be were spared, or the draw was unlucky: one that is not out is better than none.
        chosen.or_else(|| self.from(look.turn.0).find(|member| !look.is_out(member)))
    }

    fn in_turn(&self, look: &Look<'_>) -> Option<&Member> {
        let length = self.round.len();
        (0..length)
            .filter_map(|step| self.round.get((look.turn.0.wrapping_add(step)) % length))
            .filter_map(|index| self.members.get(*index as usize))
            .find(|member| !look.is_out(member) && !look.spares(member))
    }

    /// The least `open / weight`. Among equals it is the turn of one after the other, so that idle servers share the work.
    fn least_connections(&self, look: &Look<'_>) -> Option<&Member> {
        let first = self.round.get(look.turn.0 % self.round.len().max(1))?;
        let mut best: Option<(&Member, u64, u64)> = None;
        for member in self.from(*first as usize) {
            let open = member.server.load.open() as u64;
            if let Some((_, least, weight)) = best {
                let own = look.weight(member);
                // open/own >= least/weight, without a division.
                if open.saturating_mul(weight) >= least.saturating_mul(own) {
                    continue;
                }
            }
            if look.is_out(member) || look.spares(member) {
                continue;
            }
            best = Some((member, open, look.weight(member)));
            if open == 0 {
                break;
            }
        }
        best.map(|(member, ..)| member)
    }

    /// Of two drawn at random, the one where the request is likely to be answered first.
    fn least_time(&self, look: &Look<'_>) -> Option<&Member> {
        let cost = |member: &Member| member.server.load.cost(look.now) / look.weight(member) as f64;
        let (one, other) = self.two(look, || fastrand::usize(..self.members.len()))?;
        match other {
            Some(other) if cost(other) < cost(one) => Some(other),
            _ => Some(one),
        }
    }

    /// Of two drawn by weight, the one that has less to do.
    fn random(&self, look: &Look<'_>) -> Option<&Member> {
        let load = |member: &Member| member.server.load.open() as u64;
        let draw = || {
            self.round
                .get(fastrand::usize(..self.round.len()))
                .map_or(0, |index| *index as usize)
        };
        let (one, other) = self.two(look, draw)?;
        match other {
            Some(other) if load(other) * look.weight(one) < load(one) * look.weight(other) => Some(other),
            _ => Some(one),
        }
    }

    /// The server of this key, or the next one on the ring.
    fn hashed(&self, key: u64, look: &Look<'_>) -> Option<&Member> {
        // While a server comes back, it gets its keys one after the other, and each for good.
        let spares = |member: &Member| {
            let share = look.share(member);
            share < FULL_SHARE && xxh3_64_with_seed(&key.to_le_bytes(), member.server.id.0) % FULL_SHARE >= share
        };
        self.ring
            .walk(key)
            .filter_map(|index| self.members.get(index as usize))
            .find(|member| !look.is_out(member) && !spares(member))
    }

    /// Two members that are different, if there are two.
    fn two(&self, look: &Look<'_>, draw: impl Fn() -> usize) -> Option<(&Member, Option<&Member>)> {
        if self.members.is_empty() {
            return None;
        }
        let fits = |member: &&Member| !look.is_out(member) && !look.spares(member);
        let one = self.from(draw()).find(fits)?;
        for _ in 0..DRAWS {
            let other = self.from(draw()).find(fits)?;
            if other.server.id != one.server.id {
                return Some((one, Some(other)));
            }
        }
        // Hardly any other can be, or has any weight: whoever there is.
        let other = self
            .from(draw())
            .filter(fits)
            .find(|other| other.server.id != one.server.id);
        Some((one, other))
    }

    /// All members, from this index on.
    fn from(&self, index: usize) -> impl Iterator<Item = &Member> {
        let index = index.checked_rem(self.members.len()).unwrap_or(0);
        let (before, from) = self.members.split_at(index);
        from.iter().chain(before)
    }
}

/// Smooth weighted round robin: turns of a heavy server are spread over the round, not bunched.
fn smooth_round(weights: &[u32]) -> Vec<u32> {
    let divisor = weights.iter().fold(0, |a, b| gcd(a, u64::from(*b))).max(1);
    let total: u64 = weights.iter().map(|w| u64::from(*w) / divisor).sum();
    let scale = total.div_ceil(MAX_ROUND).max(1);
    let weights: Vec<i64> = weights
        .iter()
        .map(|w| (u64::from(*w) / divisor / scale).max(1) as i64)
        .collect();
    let total: i64 = weights.iter().sum();
    let mut credit = vec![0_i64; weights.len()];
    let mut round = Vec::with_capacity(total as usize);
    for _ in 0..total {
        let mut best = 0;
        for (index, weight) in weights.iter().enumerate() {
            credit[index] += weight;
            if credit[index] > credit[best] {
                best = index;
            }
        }
        credit[best] -= total;
        round.push(best as u32);
    }
    round
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests;
