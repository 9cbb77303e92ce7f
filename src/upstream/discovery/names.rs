//! Names become addresses: `/etc/hosts`, then the name servers.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use futures_util::future::join_all;
use hickory_resolver::config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, RecordType};
use hickory_resolver::{ResolverBuilder, TokioResolver};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Name;

/// For one question to one name server.
const QUESTION: Duration = Duration::from_secs(2);

/// How often a question is asked again.
const REPEATED: usize = 2;

/// For everything about one name.
const NAME: Duration = Duration::from_secs(10);

/// For a connection to this machine itself.
const LOOPBACK: Duration = Duration::from_millis(250);

/// One SRV record with one address of its target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    pub address: SocketAddr,
    pub weight: u16,
    pub priority: u16,
}

#[derive(Debug)]
pub enum Answer {
    /// At least one.
    Host(Vec<IpAddr>),
    /// At least one.
    Service(Vec<Service>),
}

/// Who is asked. Made anew for each round, so that `/etc/hosts` and `/etc/resolv.conf` may change.
pub struct Names(Result<TokioResolver, String>);

impl Names {
    /// These name servers, or the system's.
    pub fn new(servers: &[SocketAddr]) -> Self {
        let builder = match servers {
            [] => TokioResolver::builder_tokio(),
            servers => {
                let config = ResolverConfig::from_parts(None, Vec::new(), servers.iter().map(name_server).collect());
                Ok(TokioResolver::builder_with_config(
                    config,
                    TokioRuntimeProvider::default(),
                ))
            }
        };
        let text = |error: NetError| error.to_string();
        Self(builder.and_then(built).map_err(text))
    }

    /// Asks for all of them at once.
    pub async fn resolve(&self, names: Vec<Name>) -> Vec<(Name, Result<Answer, String>)> {
        let asked = names.into_iter().map(|name| async move {
            let answer = match timeout(NAME, self.one(&name)).await {
                Ok(answer) => answer,
                Err(_) => Err(format!("no answer within {NAME:?}")),
            };
            (name, answer)
        });
        join_all(asked).await
    }

    async fn one(&self, name: &Name) -> Result<Answer, String> {
        match name {
            Name::Host(host, port) => self.addresses(host, *port).await.map(Answer::Host),
            Name::Service(name) => self.service(name).await.map(Answer::Service),
        }
    }

    async fn addresses(&self, host: &str, port: u16) -> Result<Vec<IpAddr>, String> {
        let resolver = self.0.as_ref().map_err(Clone::clone)?;
        let found = resolver.lookup_ip(host).await.map_err(|error| error.to_string())?;
        let mut addresses: Vec<IpAddr> = found.iter().collect();
        addresses.sort_unstable();
        addresses.dedup();
        let addresses = usable(addresses, port).await;
        match addresses.is_empty() {
            true => Err("the name has no addresses".to_owned()),
            false => Ok(addresses),
        }
    }

    async fn service(&self, name: &str) -> Result<Vec<Service>, String> {
        let resolver = self.0.as_ref().map_err(Clone::clone)?;
        let found = resolver
            .lookup(name, RecordType::SRV)
            .await
            .map_err(|error| error.to_string())?;
        let mut services = Vec::new();
        let mut failure = None;
        for record in found.answers() {
            let RData::SRV(srv) = &record.data else { continue };
            // RFC 2782: a target of "." says that there is no such service here.
            if srv.target.is_root() {
                continue;
            }
            let target = srv.target.to_ascii();
            match self.addresses(&target, srv.port).await {
                Ok(addresses) => services.extend(addresses.into_iter().map(|ip| Service {
                    address: SocketAddr::new(ip, srv.port),
                    weight: srv.weight,
                    priority: srv.priority,
                })),
                // Half of a service is not what its records say.
                Err(error) => failure = Some(format!("{target}: {error}")),
            }
        }
        services.sort_unstable_by_key(|service| (service.priority, service.address));
        match (failure, services.is_empty()) {
            (Some(failure), _) => Err(failure),
            (None, true) => Err("the service has no servers".to_owned()),
            (None, false) => Ok(services),
        }
    }
}

fn built(mut builder: ResolverBuilder<TokioRuntimeProvider>) -> Result<TokioResolver, NetError> {
    let options = builder.options_mut();
    options.timeout = QUESTION;
    options.attempts = REPEATED;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.try_tcp_on_error = true;
    // How long an answer is used is `dns_refresh`.
    options.cache_size = 0;
    builder.build()
}

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.to_vec())
}

/// Leaves out, of addresses of both families, what cannot be reached from here: a name's AAAA records mean nothing to a container
/// without IPv6, and an app on this machine often listens on one family of `localhost` only.
async fn usable(addresses: Vec<IpAddr>, port: u16) -> Vec<IpAddr> {
    let is_mixed = addresses.iter().any(IpAddr::is_ipv4) && addresses.iter().any(IpAddr::is_ipv6);
    if !is_mixed {
        return addresses;
    }
    let routed: Vec<IpAddr> = addresses.iter().copied().filter(|ip| has_route(*ip)).collect();
    if routed.is_empty() {
        return addresses;
    }
    if !routed.iter().all(IpAddr::is_loopback) {
        return routed;
    }
    let mut accepting = Vec::new();
    for ip in &routed {
        if matches!(timeout(LOOPBACK, TcpStream::connect((*ip, port))).await, Ok(Ok(_))) {
            accepting.push(*ip);
        }
    }
    if accepting.is_empty() { routed } else { accepting }
}

/// Whether the system would know where to send to. Nothing is sent.
fn has_route(ip: IpAddr) -> bool {
    let own: SocketAddr = match ip {
        IpAddr::V4(_) => (std::net::Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // The port does not matter, but must not be 0.
    UdpSocket::bind(own).and_then(|socket| socket.connect((ip, 9))).is_ok()
}
