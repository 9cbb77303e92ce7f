//! Who the client is, and how the upstream is told.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::message::{Fields, RequestHead};
use crate::route::contains;
use crate::transform::names::Forwarding;

/// Whether the peer's forwarding fields are believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    Trusted,
    Untrusted,
}

/// The client of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress {
    /// The client's own as far as trusted proxies tell. `None`: it came through a Unix socket.
    pub ip: Option<IpAddr>,
    /// Who connected to us. `None`: through a Unix socket.
    pub peer: Option<IpAddr>,
    /// Of the peer. Whoever comes through a Unix socket has no address that could be in `trusted_proxies`, so is untrusted.
    pub trust: Trust,
}

impl ClientAddress {
    /// For logs and templates: the address, or `unix`.
    pub fn text(&self) -> String {
        self.ip.map_or_else(|| "unix".to_owned(), |ip| ip.to_string())
    }
}

/// Finds the client behind trusted proxies.
///
/// Each proxy adds the address that it saw to the right end of `X-Forwarded-For`, so the walk goes leftwards for as long
/// as the addresses are trusted proxies' own; the first other is the client. What cannot be read ends the walk: nobody
/// trusted vouches for what is left of it. `Forwarded` is read where there is no `X-Forwarded-For`.
pub fn client_address(peer: Option<IpAddr>, fields: &Fields, trusted: &[IpNet]) -> ClientAddress {
    let peer = peer.map(|peer| peer.to_canonical());
    let trust = match peer {
        Some(peer) if contains(trusted, peer) => Trust::Trusted,
        Some(_) | None => Trust::Untrusted,
    };
    let mut ip = peer;
    if trust == Trust::Trusted {
        let forwarded_for: Vec<&[u8]> = fields.get_all("x-forwarded-for").collect();
        let is_standard = forwarded_for.is_empty();
        let lines = if is_standard {
            fields.get_all("forwarded").collect()
        } else {
            forwarded_for
        };
        let members = lines.iter().rev().flat_map(|line| line.rsplit(|b| *b == b','));
        for member in members {
            let hop = if is_standard {
                forwarded_for_parameter(member).and_then(parse_node)
            } else {
                parse_node(member.trim_ascii())
            };
            let Some(hop) = hop else { break };
            ip = Some(hop);
            if !contains(trusted, hop) {
                break;
            }
        }
    }
    ClientAddress { ip, peer, trust }
}

/// The `for` parameter of one element (RFC 7239 §4), without its quotes. A comma inside of quotes has torn the element
/// apart, and then its quotes do not match.
fn forwarded_for_parameter(element: &[u8]) -> Option<&[u8]> {
    let mut pairs = element.split(|b| *b == b';').map(<[u8]>::trim_ascii);
    let value = pairs.find_map(|pair| match pair.split_at_checked(4) {
        Some((name, value)) if name.eq_ignore_ascii_case(b"for=") => Some(value),
        _ => None,
    })?;
    match value.strip_prefix(b"\"") {
        Some(quoted) => quoted.strip_suffix(b"\""),
        None => Some(value),
    }
}

/// An address with or without a port; IPv6 with or without brackets.
fn parse_node(node: &[u8]) -> Option<IpAddr> {
    let node = std::str::from_utf8(node).ok()?;
    let ip = match node.parse::<IpAddr>() {
        Ok(ip) => ip,
        Err(_) => match node.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(literal) => literal.parse().ok()?,
            None => node.parse::<SocketAddr>().ok()?.ip(),
        },
    };
    Some(ip.to_canonical())
}

/// What of the received forwarding fields is believed.
#[derive(Debug, Default)]
pub(super) struct Received {
    /// `X-Forwarded-For`, lines joined.
    forwarded_for: Vec<u8>,
    /// `Forwarded`, lines joined.
    forwarded: Vec<u8>,
    proto: Passed,
    host: Passed,
    port: Passed,
    real_ip: Vec<u8>,
}

/// Whether a received line is passed on as it stands, so that ours is not needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Passed {
    #[default]
    No,
    Yes,
}

impl Received {
    /// Takes in a line that is believed. Lists are written anew with our own member at the end.
    pub(super) fn passes(&mut self, field: Forwarding, value: &[u8]) -> Passed {
        let passed = match field {
            Forwarding::For => {
                join(&mut self.forwarded_for, value);
                return Passed::No;
            }
            Forwarding::Standard => {
                join(&mut self.forwarded, value);
                return Passed::No;
            }
            Forwarding::RealIp => {
                self.real_ip = value.to_vec();
                return Passed::No;
            }
            Forwarding::Proto => &mut self.proto,
            Forwarding::Host => &mut self.host,
            Forwarding::Port => &mut self.port,
        };
        *passed = Passed::Yes;
        Passed::Yes
    }
}

/// Joins a line of a list-valued field to those before it (RFC 9110 §5.3).
fn join(list: &mut Vec<u8>, line: &[u8]) {
    if line.is_empty() {
        return;
    }
    if !list.is_empty() {
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(line);
}

/// Adds the forwarding fields; `received` is what a believed peer said.
pub(super) fn push(out: &mut Fields, head: &RequestHead, client: &ClientAddress, received: Received) {
    let scheme = head.scheme.as_str();
    let Received {
        forwarded_for,
        forwarded,
        proto,
        host,
        port,
        real_ip,
    } = received;
    let has_chain = !forwarded_for.is_empty() || !forwarded.is_empty();
    let peer = client.peer.map(AddressText::of);
    match &peer {
        Some(peer) if forwarded_for.is_empty() => out.push_joined("X-Forwarded-For", [peer.as_bytes()]),
        Some(peer) => out.push_joined("X-Forwarded-For", [&forwarded_for, b", ", peer.as_bytes()]),
        None if forwarded_for.is_empty() => {}
        None => out.push("X-Forwarded-For", &forwarded_for),
    }
    if proto == Passed::No {
        out.push_joined("X-Forwarded-Proto", [scheme.as_bytes()]);
    }
    if host == Passed::No && !head.authority.is_empty() {
        out.push_joined("X-Forwarded-Host", [head.authority.as_bytes()]);
    }
    if port == Passed::No {
        let port = head.authority.host_and_port().1.filter(|port| !port.is_empty());
        let port = port.unwrap_or(head.scheme.default_port());
        out.push_joined("X-Forwarded-Port", [port.as_bytes()]);
    }
    // A proxy that writes no list may say it this way; one that does may have let the client's own claim through.
    if !has_chain && !real_ip.is_empty() {
        out.push("X-Real-IP", &real_ip);
    } else {
        match (client.ip, &peer) {
            (ip, Some(peer)) if ip == client.peer => out.push_joined("X-Real-IP", [peer.as_bytes()]),
            (Some(ip), _) => out.push_joined("X-Real-IP", [AddressText::of(ip).as_bytes()]),
            (None, _) => {}
        }
    }
    push_forwarded(out, head, client.peer, peer.as_ref(), &forwarded);
}

/// Adds our element of `Forwarded` (RFC 7239 §4) to those that were received.
fn push_forwarded(
    out: &mut Fields,
    head: &RequestHead,
    ip: Option<IpAddr>,
    text: Option<&AddressText>,
    received: &[u8],
) {
    let separator: &[u8] = match received {
        [] => b"",
        _ => b", ",
    };
    let (before, after): (&[u8], &[u8]) = match ip {
        Some(IpAddr::V6(_)) => (b"for=\"[", b"]\""),
        Some(IpAddr::V4(_)) => (b"for=", b""),
        // RFC 7239 §6.2. `X-Forwarded-For` has no word for it.
        None => (b"for=unknown", b""),
    };
    let text = text.map_or(&[][..], AddressText::as_bytes);
    let authority = head.authority.as_bytes();
    let unquotable = authority.iter().any(|b| matches!(b, b'"' | b'\\'));
    let (host, authority, quote): (&[u8], &[u8], &[u8]) = match authority.is_empty() || unquotable {
        true => (b"", b"", b""),
        false => (b";host=\"", authority, b"\""),
    };
    let scheme = head.scheme.as_str().as_bytes();
    out.push_joined(
        "Forwarded",
        [
            received, separator, before, text, after, host, authority, quote, b";proto=", scheme,
        ],
    );
}

/// Appends an address as its type writes it.
pub(crate) fn push_address(out: &mut Vec<u8>, ip: IpAddr) {
    out.extend_from_slice(AddressText::of(ip).as_bytes());
}

/// An address as its type writes it.
struct AddressText {
    bytes: [u8; MAX_ADDRESS],
    length: usize,
}

/// An IPv6 address with an IPv4 address in it.
const MAX_ADDRESS: usize = "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255".len();

/// The figures of a byte, in front of unused ones, and how many they are.
static OCTETS: [([u8; 3], u8); 256] = {
    let mut octets = [([0; 3], 0); 256];
    let mut octet = 0;
    while octet < 256 {
        let [hundreds, tens, ones] = [octet / 100, octet / 10 % 10, octet % 10];
        octets[octet] = match octet {
            0..10 => ([b'0' + ones as u8, 0, 0], 1),
            10..100 => ([b'0' + tens as u8, b'0' + ones as u8, 0], 2),
            _ => ([b'0' + hundreds as u8, b'0' + tens as u8, b'0' + ones as u8], 3),
        };
        octet += 1;
    }
    octets
};

impl AddressText {
    /// For IPv4 without the machinery of formatting.
    fn of(ip: IpAddr) -> Self {
        let mut bytes = [0; MAX_ADDRESS];
        let length = match ip {
            IpAddr::V4(ip) => {
                let mut at = 0;
                for octet in ip.octets() {
                    let (figures, count) = OCTETS[usize::from(octet)];
                    bytes[at..at + 3].copy_from_slice(&figures);
                    at += usize::from(count);
                    bytes[at] = b'.';
                    at += 1;
                }
                at - 1
            }
            IpAddr::V6(ip) => {
                let mut rest = &mut bytes[..];
                // It has room for the longest.
                let _ = write!(rest, "{ip}");
                MAX_ADDRESS - rest.len()
            }
        };
        Self { bytes, length }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::fields;

    #[test]
    fn addresses_are_written_as_their_types_do() {
        let written = |ip| {
            let mut out = Vec::new();
            push_address(&mut out, ip);
            String::from_utf8(out).unwrap()
        };
        let table = [
            "0.0.0.0",
            "10.200.9.99",
            "255.255.255.255",
            "100.1.20.109",
            "::",
            "2001:db8::1",
            "::ffff:255.255.255.255",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        ];
        for address in table {
            let ip: IpAddr = address.parse().unwrap();
            assert_eq!(written(ip), ip.to_string(), "{address}");
        }
        for octet in 0..=255u8 {
            let ip = IpAddr::from([octet, 1, octet, 2]);
            assert_eq!(written(ip), ip.to_string());
        }
    }

    fn networks(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|network| network.parse().unwrap()).collect()
    }

    const XFF: &str = "X-Forwarded-For";
    const FWD: &str = "Forwarded";

    #[test]
    fn the_client_is_the_first_address_from_the_right_that_is_not_a_trusted_proxy() {
        let table: [(&[(&str, &str)], &str); 26] = [
            (&[], "10.0.0.1"),
            (&[(XFF, "192.0.2.1")], "192.0.2.1"),
            (&[(XFF, "6.6.6.6, 192.0.2.1")], "192.0.2.1"),
            (&[(XFF, "6.6.6.6"), (XFF, "192.0.2.1, 10.0.0.2")], "192.0.2.1"),
            (&[(XFF, "192.0.2.1,10.0.0.3 ,\t10.0.0.2")], "192.0.2.1"),
            (&[(XFF, "10.0.0.9, 10.0.0.2")], "10.0.0.9"),
            (&[(XFF, "6.6.6.6, garbage, 10.0.0.2")], "10.0.0.2"),
            (&[(XFF, "6.6.6.6, unknown")], "10.0.0.1"),
            (&[(XFF, "6.6.6.6, ")], "10.0.0.1"),
            (&[(XFF, "")], "10.0.0.1"),
            (&[(XFF, "192.0.2.1:4711")], "192.0.2.1"),
            (&[(XFF, "2001:db8::1")], "2001:db8::1"),
            (&[(XFF, "[2001:db8::1]")], "2001:db8::1"),
            (&[(XFF, "[2001:db8::1]:4711")], "2001:db8::1"),
            (&[(XFF, "192.0.2.1, ::ffff:10.0.0.2")], "192.0.2.1"),
            (&[(XFF, "010.0.0.1")], "10.0.0.1"),
            (&[(XFF, "192.0.2.1 6.6.6.6")], "10.0.0.1"),
            (&[(XFF, "192.0.2.1"), (FWD, "for=6.6.6.6")], "192.0.2.1"),
            (&[("X_Forwarded_For", "6.6.6.6")], "10.0.0.1"),
            (&[(FWD, "for=192.0.2.1")], "192.0.2.1"),
            (
                &[(FWD, "for=6.6.6.6, proto=http;FOR=\"192.0.2.1:80\";by=x , for=10.0.0.2")],
                "192.0.2.1",
            ),
            (&[(FWD, "for=\"[2001:db8::1]:4711\"")], "2001:db8::1"),
            (&[(FWD, "for=6.6.6.6, for=_hidden")], "10.0.0.1"),
            (&[(FWD, "for=6.6.6.6, proto=https")], "10.0.0.1"),
            (&[(FWD, "for=\"x, for=6.6.6.6\"")], "10.0.0.1"),
            (&[(FWD, "for=\"6.6.6.6")], "10.0.0.1"),
        ];
        let trusted = networks(&["10.0.0.0/24"]);
        for (lines, expected) in table {
            let client = client_address("10.0.0.1".parse().ok(), &fields(lines), &trusted);
            assert_eq!(client.text(), expected, "{lines:?}");
            assert_eq!(client.trust, Trust::Trusted);
        }
    }

    #[test]
    fn nobody_else_can_name_another_address() {
        let trusted = networks(&["10.0.0.0/24", "2001:db8::/32"]);
        let forged = fields(&[(XFF, "6.6.6.6"), (FWD, "for=6.6.6.6")]);
        for (peer, text, trust) in [
            (Some("192.0.2.1"), "192.0.2.1", Trust::Untrusted),
            (Some("2001:db9::1"), "2001:db9::1", Trust::Untrusted),
            (Some("::ffff:192.0.2.1"), "192.0.2.1", Trust::Untrusted),
            (None, "unix", Trust::Untrusted),
            (Some("::ffff:10.0.0.1"), "6.6.6.6", Trust::Trusted),
            (Some("2001:db8::1"), "6.6.6.6", Trust::Trusted),
        ] {
            let peer = peer.map(|peer| peer.parse().unwrap());
            let client = client_address(peer, &forged, &trusted);
            assert_eq!((client.text().as_str(), client.trust), (text, trust), "{peer:?}");
        }
    }
}
