//! Addresses, names and networks as they are written.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;

use super::diagnostic::Complaint;
use super::{ListenAddress, ServerAddress, ServerSource};

/// `sun_path` has 108 bytes on Linux, the last of which is NUL.
const MAX_SOCKET_PATH: usize = 107;
/// A name's length in text (RFC 1035 §2.3.4).
const MAX_NAME: usize = 253;
/// A label's length (RFC 1035 §2.3.4).
const MAX_LABEL: usize = 63;

/// `0.0.0.0:8080`, `[::]:8443` or `unix:/run/forebay.sock`.
pub fn listen_address(text: &str) -> Result<ListenAddress, Complaint> {
    match text.strip_prefix("unix:") {
        Some(path) => socket_path(path).map(ListenAddress::Unix),
        None => socket_address(text).map(ListenAddress::Tcp),
    }
}

/// An IP address with a port.
pub fn socket_address(text: &str) -> Result<SocketAddr, Complaint> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let what = "must be an IP address with a port";
    let cure = match text.strip_prefix(':').unwrap_or(text) {
        port if port.parse::<u16>().is_ok() => {
            format!("write 0.0.0.0:{port}, or 127.0.0.1:{port} for this machine only")
        }
        _ if text.parse::<Ipv6Addr>().is_ok() => format!("write [{text}]:8080"),
        _ if text.parse::<IpAddr>().is_ok() => format!("write {text}:8080"),
        _ => "like 0.0.0.0:8080 or \"[::]:8080\"".to_owned(),
    };
    Err(Complaint::rewritten(what, cure))
}

fn socket_path(path: &str) -> Result<PathBuf, Complaint> {
    if !path.starts_with('/') {
        return Err(Complaint::new(
            "must have an absolute path behind `unix:`",
            "like unix:/run/forebay/http.sock",
        ));
    }
    if path.len() > MAX_SOCKET_PATH || path.contains('\0') {
        return Err(Complaint::new(
            format!("must have a path of at most {MAX_SOCKET_PATH} bytes"),
            "",
        ));
    }
    Ok(PathBuf::from(path))
}

/// `app.internal:3000`, `10.0.0.1:3000`, `[::1]:3000` or `unix:/run/app.sock`.
pub fn server_address(text: &str) -> Result<ServerAddress, Complaint> {
    if let Some(path) = text.strip_prefix("unix:") {
        return socket_path(path).map(ServerAddress::Unix);
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (port, tls) = match scheme {
            "https" => (443, ", and `tls` beside `servers`"),
            _ => (80, ""),
        };
        let cure = match host_and_port(authority, None) {
            Ok(_) => format!("write {authority}{tls}"),
            Err(_) => format!("write {authority}:{port}{tls}"),
        };
        return Err(Complaint::rewritten(
            "must be a host and a port, without a scheme",
            cure,
        ));
    }
    host_and_port(text, None)
}

/// A server's address, or `srv:_http._tcp.app.internal`.
pub fn server_source(text: &str) -> Result<ServerSource, Complaint> {
    let Some(name) = text.strip_prefix("srv:") else {
        return server_address(text).map(ServerSource::Address);
    };
    match is_host_name(name) {
        true => Ok(ServerSource::Srv(name.to_ascii_lowercase())),
        false => Err(Complaint::new(
            "must have the name of a service behind `srv:`, without a port",
            "like srv:_http._tcp.app.internal",
        )),
    }
}

fn host_and_port(text: &str, default_port: Option<u16>) -> Result<ServerAddress, Complaint> {
    let malformed = || {
        Complaint::new(
            "must be a host and a port",
            "like app.internal:3000 or unix:/run/app.sock",
        )
    };
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err(Complaint::rewritten(
            "must be a host and a port",
            format!("write \"[{text}]:3000\""),
        ));
    }
    if let Some(port) = text.strip_prefix(':') {
        let cure = format!("write 127.0.0.1:{port}");
        return Err(Complaint::rewritten("must be a host and a port", cure));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port = match (port, default_port) {
        (Some(port), _) => match port.parse::<u16>() {
            Ok(port) if port > 0 => port,
            _ => return Err(Complaint::new("must have a port from 1 to 65535", "")),
        },
        (None, Some(port)) => port,
        (None, None) if is_host_name(host) => {
            return Err(Complaint::rewritten(
                "must be a host and a port",
                format!("write {host}:3000"),
            ));
        }
        (None, None) => return Err(malformed()),
    };
    let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(literal) if literal.parse::<Ipv6Addr>().is_ok() => literal,
        None if is_host_name(host) || host.parse::<IpAddr>().is_ok() => host,
        _ => return Err(malformed()),
    };
    Ok(ServerAddress::Tcp {
        host: host.to_ascii_lowercase(),
        port,
    })
}

/// A host or an address, with a port or without.
pub fn host_or_address(text: &str, default_port: u16) -> Result<ServerAddress, Complaint> {
    host_and_port(text, Some(default_port))
}

/// The short form of an upstream: one server, by URL.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamUrl {
    pub address: ServerAddress,
    /// `https`: the name to send as SNI and to verify. `None`: plain HTTP.
    pub server_name: Option<String>,
}

/// `http://host:port`, `https://host` or `unix:/path`.
pub fn upstream_url(text: &str) -> Result<UpstreamUrl, Complaint> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok(UpstreamUrl {
            address: ServerAddress::Unix(socket_path(path)?),
            server_name: None,
        });
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        let what = "must be a URL";
        return Err(match server_address(text) {
            Ok(_) => Complaint::rewritten(what, format!("write http://{text}")),
            Err(_) => Complaint::new(
                what,
                "like http://127.0.0.1:3000, https://app.internal or unix:/run/app.sock",
            ),
        });
    };
    let default_port = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return Err(Complaint::new("must begin with http://, https:// or unix:", "")),
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains('@') {
        return Err(Complaint::new(
            "must not hold a user or a password",
            "send them with request_headers, if the app wants them",
        ));
    }
    if authority.contains(['/', '?', '#']) {
        return Err(Complaint::new(
            "must not have a path or a query: requests keep their own",
            "remove what follows the host and port",
        ));
    }
    let address = host_and_port(authority, Some(default_port))?;
    let server_name = match (&address, scheme) {
        (ServerAddress::Tcp { host, .. }, "https") => match host.parse::<IpAddr>() {
            Ok(_) => {
                return Err(Complaint::new(
                    "must have a name behind https://, for the certificate to be verified against",
                    "use the name, or the long form with upstreams.app.tls.server_name",
                ));
            }
            Err(_) => Some(host.clone()),
        },
        _ => None,
    };
    Ok(UpstreamUrl { address, server_name })
}

/// A network, or one address as a network of its own.
pub fn cidr(text: &str) -> Result<IpNet, Complaint> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address));
    }
    match text.parse::<IpNet>() {
        Ok(network) if network.addr() == network.network() => Ok(network),
        Ok(network) => Err(Complaint::rewritten(
            "must have no bits set behind the prefix",
            format!("write {}", network.trunc()),
        )),
        Err(_) => Err(Complaint::new(
            "must be an address or a network",
            "like 10.0.0.0/8 or \"::1/128\"",
        )),
    }
}

/// Letters, digits, hyphens and underscores (which container networks use) in labels, and not an address. A trailing
/// dot is not taken.
pub fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= MAX_LABEL
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    // A name whose last label is a number is an address, or looks like one (RFC 3696 §2).
    let last = text.rsplit('.').next().unwrap_or_default();
    text.len() <= MAX_NAME && text.split('.').all(is_label) && !last.bytes().all(|b| b.is_ascii_digit())
}

/// The host of `name:port`, or all of it; `None` if it is neither a name nor an address, or the port is none.
pub fn host_of_authority(text: &str) -> Option<&str> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let is_port = match port {
        None => true,
        Some(port) => port.parse::<u16>().is_ok_and(|port| port > 0),
    };
    let is_literal = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(literal) => literal.parse::<Ipv6Addr>().is_ok(),
        None => host.parse::<std::net::Ipv4Addr>().is_ok(),
    };
    (is_port && (is_literal || is_host_name(host))).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> ServerAddress {
        ServerAddress::Tcp {
            host: host.to_owned(),
            port,
        }
    }

    fn complaint(what: &str, cure: &str) -> Complaint {
        match cure.starts_with("write ") {
            true => Complaint::rewritten(what, cure),
            false => Complaint::new(what, cure),
        }
    }

    #[test]
    fn upstream_urls() {
        for (text, address, server_name) in [
            ("http://127.0.0.1:3000", tcp("127.0.0.1", 3000), None),
            ("http://App.internal", tcp("app.internal", 80), None),
            ("http://[::1]:3000/", tcp("::1", 3000), None),
            ("https://app.internal", tcp("app.internal", 443), Some("app.internal")),
            ("https://app:8443/", tcp("app", 8443), Some("app")),
            ("unix:/run/app.sock", ServerAddress::Unix("/run/app.sock".into()), None),
        ] {
            let expected = UpstreamUrl {
                address,
                server_name: server_name.map(str::to_owned),
            };
            assert_eq!(upstream_url(text), Ok(expected), "{text}");
        }
        for (text, what, cure) in [
            ("127.0.0.1:3000", "must be a URL", "write http://127.0.0.1:3000"),
            (
                "app",
                "must be a URL",
                "like http://127.0.0.1:3000, https://app.internal or unix:/run/app.sock",
            ),
            ("ftp://app:21", "must begin with http://, https:// or unix:", ""),
            (
                "http://app/api",
                "must not have a path or a query: requests keep their own",
                "remove what follows the host and port",
            ),
            ("http://app:0", "must have a port from 1 to 65535", ""),
            (
                "https://10.0.0.1",
                "must have a name behind https://, for the certificate to be verified against",
                "use the name, or the long form with upstreams.app.tls.server_name",
            ),
            (
                "http://me:pw@app",
                "must not hold a user or a password",
                "send them with request_headers, if the app wants them",
            ),
            (
                "unix:app.sock",
                "must have an absolute path behind `unix:`",
                "like unix:/run/forebay/http.sock",
            ),
        ] {
            assert_eq!(upstream_url(text), Err(complaint(what, cure)), "{text}");
        }
    }

    #[test]
    fn server_addresses() {
        assert_eq!(server_address("my_app.internal:80"), Ok(tcp("my_app.internal", 80)));
        assert_eq!(server_address("[2001:db8::1]:80"), Ok(tcp("2001:db8::1", 80)));
        for (text, what, cure) in [
            ("app", "must be a host and a port", "write app:3000"),
            (":3000", "must be a host and a port", "write 127.0.0.1:3000"),
            ("::1", "must be a host and a port", "write \"[::1]:3000\""),
            (
                "http://app:3000",
                "must be a host and a port, without a scheme",
                "write app:3000",
            ),
            (
                "https://app:3000",
                "must be a host and a port, without a scheme",
                "write app:3000, and `tls` beside `servers`",
            ),
            (
                "https://app/x",
                "must be a host and a port, without a scheme",
                "write app:443, and `tls` beside `servers`",
            ),
            ("app:99999", "must have a port from 1 to 65535", ""),
            (
                "a b:80",
                "must be a host and a port",
                "like app.internal:3000 or unix:/run/app.sock",
            ),
            (
                "300.1.1.1:80",
                "must be a host and a port",
                "like app.internal:3000 or unix:/run/app.sock",
            ),
            (
                "",
                "must be a host and a port",
                "like app.internal:3000 or unix:/run/app.sock",
            ),
        ] {
            assert_eq!(server_address(text), Err(complaint(what, cure)), "{text}");
        }
    }

    #[test]
    fn listen_addresses() {
        assert!(listen_address("[::]:8443").is_ok());
        assert!(listen_address("unix:/run/forebay/http.sock").is_ok());
        for (text, cure) in [
            (":8080", "write 0.0.0.0:8080, or 127.0.0.1:8080 for this machine only"),
            ("8080", "write 0.0.0.0:8080, or 127.0.0.1:8080 for this machine only"),
            ("::1", "write [::1]:8080"),
            ("10.0.0.1", "write 10.0.0.1:8080"),
            ("localhost:8080", "like 0.0.0.0:8080 or \"[::]:8080\""),
        ] {
            let expected = Complaint::rewritten("must be an IP address with a port", cure);
            assert_eq!(listen_address(text), Err(expected), "{text}");
        }
        let long = format!("unix:/{}", "x".repeat(MAX_SOCKET_PATH));
        assert_eq!(
            listen_address(&long).unwrap_err().what,
            "must have a path of at most 107 bytes"
        );
    }

    #[test]
    fn networks() {
        for (text, expected) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.0.0.1", "10.0.0.1/32"),
            ("::1", "::1/128"),
        ] {
            assert_eq!(cidr(text).unwrap().to_string(), expected);
        }
        assert_eq!(
            cidr("10.0.0.1/8"),
            Err(Complaint::rewritten(
                "must have no bits set behind the prefix",
                "write 10.0.0.0/8"
            ))
        );
        for text in ["10.0.0.0/33", "10.0.0/8", "example.com", ""] {
            assert_eq!(
                cidr(text).unwrap_err().what,
                "must be an address or a network",
                "{text}"
            );
        }
    }

    #[test]
    fn authorities() {
        for (text, host) in [
            ("example.com", Some("example.com")),
            ("example.com:8080", Some("example.com")),
            ("[::1]:80", Some("[::1]")),
            ("10.0.0.1", Some("10.0.0.1")),
            ("example.com:", None),
            ("exa mple", None),
            ("-a.com", None),
            ("", None),
        ] {
            assert_eq!(host_of_authority(text), host, "{text}");
        }
    }
}
