//! Who may use a route, by address.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::Route;

/// Prefix length from which an IPv6 network lies in `::ffff:0:0/96`, the IPv4-mapped addresses (RFC 4291 §2.5.5.2).
const MAPPED_PREFIX: u8 = 96;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Allowed,
    Denied,
}

/// `deny` comes first, then `allow`, where nothing means everyone.
///
/// `None` is a client on a Unix socket: no network of `deny` holds it, and none of `allow`.
pub fn access(route: &Route, client: Option<IpAddr>) -> Access {
    let holds = |networks: &[IpNet]| client.is_some_and(|client| contains(networks, client));
    if holds(&route.deny) || (!route.allow.is_empty() && !holds(&route.allow)) {
        Access::Denied
    } else {
        Access::Allowed
    }
}

/// Whether one of the networks holds the address. An IPv4-mapped IPv6 address is the IPv4 address.
#[inline]
pub fn contains(networks: &[IpNet], address: IpAddr) -> bool {
    !networks.is_empty() && one_contains(networks, address)
}

fn one_contains(networks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| match (network, address) {
        (IpNet::V6(mapped), IpAddr::V4(v4)) if mapped.prefix_len() >= MAPPED_PREFIX => {
            mapped.contains(&v4.to_ipv6_mapped())
        }
        (network, address) => network.contains(&address),
    })
}
