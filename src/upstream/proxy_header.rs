//! The PROXY protocol towards servers: <https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::{ProxyVersion, ServerAddress};

/// §2.2: the first bytes of a binary header.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// §2.2: version 2, and whether the connection is for a client or our own.
const PROXY: u8 = 0x21;
const LOCAL: u8 = 0x20;

/// The header for a connection to `server` on behalf of this client. Its port is not known, so 0; the address it came to is said to be
/// the server's.
pub fn header(version: ProxyVersion, client: Option<IpAddr>, server: &ServerAddress) -> Vec<u8> {
    let (host, port) = match server {
        ServerAddress::Tcp { host, port } => (host.parse().ok(), *port),
        ServerAddress::Unix(_) => (None, 0),
    };
    let to_v4 = |host| match host {
        Some(IpAddr::V4(ip)) => ip,
        _ => Ipv4Addr::UNSPECIFIED,
    };
    let to_v6 = |host| match host {
        Some(IpAddr::V6(ip)) => ip,
        _ => Ipv6Addr::UNSPECIFIED,
    };
    match (version, client) {
        (ProxyVersion::V1, None) => b"PROXY UNKNOWN\r\n".to_vec(),
        (ProxyVersion::V1, Some(IpAddr::V4(ip))) => {
            format!("PROXY TCP4 {ip} {} 0 {port}\r\n", to_v4(host)).into_bytes()
        }
        (ProxyVersion::V1, Some(IpAddr::V6(ip))) => {
            format!("PROXY TCP6 {ip} {} 0 {port}\r\n", to_v6(host)).into_bytes()
        }
        (ProxyVersion::V2, None) => binary(LOCAL, 0, &[]),
        (ProxyVersion::V2, Some(IpAddr::V4(ip))) => binary(
            PROXY,
            0x11,
            &[&ip.octets()[..], &to_v4(host).octets(), &[0, 0], &port.to_be_bytes()].concat(),
        ),
        (ProxyVersion::V2, Some(IpAddr::V6(ip))) => binary(
            PROXY,
            0x21,
            &[&ip.octets()[..], &to_v6(host).octets(), &[0, 0], &port.to_be_bytes()].concat(),
        ),
    }
}

fn binary(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
    let length = (addresses.len() as u16).to_be_bytes();
    [&SIGNATURE[..], &[command, family], &length, addresses].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_those_of_the_specification() {
        let server = ServerAddress::Tcp {
            host: "10.0.0.1".to_owned(),
            port: 8080,
        };
        let (v4, v6) = ("203.0.113.7".parse().ok(), "2001:db8::7".parse().ok());
        for (client, expected) in [
            (v4, "PROXY TCP4 203.0.113.7 10.0.0.1 0 8080\r\n"),
            (v6, "PROXY TCP6 2001:db8::7 :: 0 8080\r\n"),
            (None, "PROXY UNKNOWN\r\n"),
        ] {
            assert_eq!(header(ProxyVersion::V1, client, &server), expected.as_bytes());
        }
        let expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x07\x0a\0\0\x01\0\0\x1f\x90";
        assert_eq!(header(ProxyVersion::V2, v4, &server), expected);
        assert_eq!(header(ProxyVersion::V2, v6, &server)[12..16], [0x21, 0x21, 0, 36]);
        assert_eq!(
            header(ProxyVersion::V2, None, &server),
            b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
        );
    }
}
