//! Which servers there are: those of the configuration and of `servers_file`, with all addresses of their names.
//!
//! What cannot be found out stays as it was found last, and is said once.

mod file;
mod names;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::{Member, Upstream};
use crate::config::servers_file::MAX_SERVERS;
use crate::config::{self, Role, ServerAddress, ServerSource, UpstreamServer};

pub(super) use self::file::watch as watch_file;
use self::names::{Names, Service};

/// Before a name that could not be resolved is asked for again; it doubles up to `dns_refresh`.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// What has been found out.
#[derive(Debug)]
pub struct Discovery {
    found: parking_lot::Mutex<Found>,
    /// Whether every name has been asked for once.
    settled: watch::Sender<bool>,
    /// Tells the task of the names that the file has others now.
    names_changed: Arc<Notify>,
}

#[derive(Debug, Clone, Default)]
struct Found {
    /// The servers of `servers_file`.
    file: Vec<UpstreamServer>,
    hosts: BTreeMap<String, Vec<IpAddr>>,
    services: BTreeMap<String, Vec<Service>>,
    /// Names that could not be resolved the last time, and why.
    failing: BTreeMap<String, String>,
}

/// A server that is to be there.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wanted {
    pub address: ServerAddress,
    pub weight: u32,
    pub role: Role,
    pub max_connections: Option<u32>,
}

/// Something to resolve.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    /// With a port that a server on this machine would be reached at.
    Host(String, u16),
    Service(String),
}

impl Name {
    fn as_str(&self) -> &str {
        match self {
            Self::Host(name, _) | Self::Service(name) => name,
        }
    }
}

impl Discovery {
    /// What `before` has found out is not asked for again before it can be used.
    pub fn new(config: &config::Upstream, before: Option<&Self>) -> Self {
        let mut found = before.map(|before| before.found.lock().clone()).unwrap_or_default();
        match &config.servers_file {
            None => found.file.clear(),
            Some(path) => match file::read(path) {
                Ok((servers, _)) => found.file = servers,
                Err(error) => file::warn(&config.name, path, &error),
            },
        }
        let names = found.names(config);
        found
            .hosts
            .retain(|host, _| names.iter().any(|name| name.as_str() == host));
        found
            .services
            .retain(|service, _| names.iter().any(|name| name.as_str() == service));
        found
            .failing
            .retain(|failing, _| names.iter().any(|name| name.as_str() == failing));
        let is_settled = names.iter().all(|name| found.knows(name));
        Self {
            found: parking_lot::Mutex::new(found),
            settled: watch::Sender::new(is_settled),
            names_changed: Arc::default(),
        }
    }

    /// All servers that are known.
    pub fn wanted(&self, config: &config::Upstream) -> Vec<Wanted> {
        self.found.lock().wanted(config)
    }

    /// Waits until every name has been asked for, at most until `deadline`. Tells whether there was anything to wait for.
    pub async fn settle(&self, deadline: Instant) -> bool {
        let mut settled = self.settled.subscribe();
        if *settled.borrow() {
            return false;
        }
        let _ = tokio::time::timeout_at(deadline, settled.wait_for(|settled| *settled)).await;
        true
    }

    /// A name that cannot be resolved, and why.
    pub fn failure(&self) -> Option<(String, String)> {
        let found = self.found.lock();
        found
            .failing
            .iter()
            .next()
            .map(|(name, why)| (name.clone(), why.clone()))
    }
}

impl Found {
    fn names(&self, config: &config::Upstream) -> BTreeSet<Name> {
        let sources = config.servers.iter().chain(&self.file).map(|server| &server.address);
        let name = |source: &ServerSource| match source {
            ServerSource::Srv(name) => Some(Name::Service(name.clone())),
            ServerSource::Address(ServerAddress::Tcp { host, port }) if host.parse::<IpAddr>().is_err() => {
                Some(Name::Host(host.clone(), *port))
            }
            ServerSource::Address(_) => None,
        };
        sources.filter_map(name).collect()
    }

    fn knows(&self, name: &Name) -> bool {
        match name {
            Name::Host(host, _) => self.hosts.contains_key(host),
            Name::Service(service) => self.services.contains_key(service),
        }
    }

    fn wanted(&self, config: &config::Upstream) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        for server in config.servers.iter().chain(&self.file) {
            let mut add = |address, weight: u32, role| {
                wanted.push(Wanted {
                    address,
                    weight: weight.clamp(1, UpstreamServer::MAX_WEIGHT),
                    role,
                    max_connections: server.max_connections,
                });
            };
            match &server.address {
                ServerSource::Address(ServerAddress::Tcp { host, port }) if host.parse::<IpAddr>().is_err() => {
                    for ip in self.hosts.get(host).into_iter().flatten() {
                        add(at(SocketAddr::new(*ip, *port)), server.weight, server.role);
                    }
                }
                ServerSource::Address(address) => add(address.clone(), server.weight, server.role),
                ServerSource::Srv(name) => {
                    let services = self.services.get(name).map_or(&[][..], Vec::as_slice);
                    // RFC 2782: a client goes to those of the lowest number, and to others when it can reach none of them.
                    let first = services.iter().map(|service| service.priority).min();
                    for service in services {
                        let role = match Some(service.priority) == first {
                            true => server.role,
                            false => Role::Backup,
                        };
                        let weight = u32::from(service.weight.max(1)).saturating_mul(server.weight);
                        add(at(service.address), weight, role);
                    }
                }
            }
        }
        // Two names may have the same address: the first one's part counts.
        let mut seen = HashSet::new();
        wanted.retain(|wanted| seen.insert(wanted.address.clone()));
        wanted.truncate(MAX_SERVERS);
        wanted
    }
}

fn at(address: SocketAddr) -> ServerAddress {
    ServerAddress::Tcp {
        host: address.ip().to_string(),
        port: address.port(),
    }
}

impl Upstream {
    /// Takes up what was found out.
    fn found(self: &Arc<Self>, change: impl FnOnce(&mut Found)) {
        let wanted = {
            let mut found = self.discovery.found.lock();
            change(&mut found);
            found.wanted(&self.config)
        };
        self.take_up(&wanted);
    }

    /// Makes the servers those that are wanted. Those that stay keep their connections and counters; those that go end what they
    /// have.
    fn take_up(self: &Arc<Self>, wanted: &[Wanted]) {
        let mut members = self.members.lock();
        let same = |member: &Member, wanted: &Wanted| {
            member.server.address == wanted.address
                && (member.weight, member.role, member.max_connections)
                    == (wanted.weight, wanted.role, wanted.max_connections)
        };
        if members.len() == wanted.len() && members.iter().zip(wanted).all(|(member, wanted)| same(member, wanted)) {
            return;
        }
        let others_work = !members.is_empty();
        let mut added = Vec::new();
        let new: Vec<Member> = wanted
            .iter()
            .map(|wanted| {
                let kept = members.iter().find(|member| member.server.address == wanted.address);
                let server = kept.map_or_else(
                    || {
                        let server = self.server(&wanted.address, None);
                        if others_work {
                            server.health.joins(Instant::now());
                        }
                        added.push(server.label.to_string());
                        Arc::new(server)
                    },
                    |member| member.server.clone(),
                );
                Member::new(server, wanted)
            })
            .collect();
        let old = std::mem::replace(&mut *members, new);
        let gone: Vec<_> = old
            .iter()
            .filter(|old| !members.iter().any(|member| Arc::ptr_eq(&member.server, &old.server)))
            .collect();
        let removed: Vec<&str> = gone.iter().map(|member| &*member.server.label).collect();
        tracing::info!(
            upstream = &*self.config.name,
            servers = members.len(),
            added = added.join(" "),
            removed = removed.join(" "),
            "servers changed"
        );
        for member in gone {
            member.server.retire();
        }
        drop(members);
        self.refresh();
    }
}

/// Resolves names for as long as the upstream lives.
pub(super) async fn resolve(upstream: Weak<Upstream>) {
    let mut delays: BTreeMap<Name, (Instant, Duration)> = BTreeMap::new();
    loop {
        let Some(upstream) = upstream.upgrade() else { return };
        let refresh = upstream.config.dns.refresh;
        let names = upstream.discovery.found.lock().names(&upstream.config);
        delays.retain(|name, _| names.contains(name));
        let now = Instant::now();
        let due: Vec<Name> = names
            .into_iter()
            .filter(|name| delays.get(name).is_none_or(|(at, _)| *at <= now))
            .collect();
        if !due.is_empty() {
            for (name, result) in Names::new(&upstream.config.dns.servers).resolve(due).await {
                let last = delays.get(&name).map_or(Duration::ZERO, |(_, delay)| *delay);
                let delay = match result {
                    Ok(_) => refresh,
                    Err(_) => (2 * last).clamp(FIRST_RETRY, refresh.max(FIRST_RETRY)),
                };
                // A failure after a long good time is asked about again soon.
                let delay = if result.is_err() && last == refresh {
                    FIRST_RETRY.min(refresh)
                } else {
                    delay
                };
                upstream.resolved(&name, result);
                // Instances that started together need not ask together.
                let spread = delay.mul_f64(0.9 + 0.2 * fastrand::f64());
                delays.insert(name, (Instant::now() + spread, delay));
            }
            upstream.discovery.settled.send_replace(true);
        }
        let next = delays.values().map(|(at, _)| *at).min();
        let changed = upstream.discovery.names_changed.clone();
        // Not held while this waits.
        drop(upstream);
        match next {
            Some(next) => tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                () = changed.notified() => {}
            },
            None => changed.notified().await,
        }
    }
}

impl Upstream {
    fn resolved(self: &Arc<Self>, name: &Name, result: Result<names::Answer, String>) {
        let upstream = &*self.config.name;
        self.found(|found| match result {
            Ok(answer) => {
                if found.failing.remove(name.as_str()).is_some() {
                    tracing::info!(upstream, name = name.as_str(), "the name resolves again");
                }
                match answer {
                    names::Answer::Host(addresses) => {
                        found.hosts.insert(name.as_str().to_owned(), addresses);
                    }
                    names::Answer::Service(services) => {
                        found.services.insert(name.as_str().to_owned(), services);
                    }
                }
            }
            Err(error) => {
                if !found.failing.contains_key(name.as_str()) {
                    let known = found.knows(name);
                    let rest = if known {
                        "its last addresses stay in use"
                    } else {
                        "it has no addresses"
                    };
                    tracing::warn!(upstream, name = name.as_str(), %error, "a name cannot be resolved: {rest}");
                }
                found.failing.insert(name.as_str().to_owned(), error);
            }
        });
    }
}

#[cfg(test)]
mod tests;
