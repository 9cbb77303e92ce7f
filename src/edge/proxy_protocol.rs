//! The PROXY protocol, versions 1 and 2: how a load balancer in front of us tells whose connection it forwards.
//!
//! Section numbers are those of "The PROXY protocol, Versions 1 & 2" by HAProxy Technologies. Whether a peer may be
//! believed is not decided here.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, timeout_at};

/// The longest line of version 1, with its CRLF (§2.1).
const V1_MAX_LENGTH: usize = 107;

/// What version 1 begins with (§2.1).
const V1_PREFIX: &[u8] = b"PROXY ";

/// What version 2 begins with (§2.2).
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family and transport, length (§2.2).
const V2_FIXED_LENGTH: usize = 16;

/// Bytes behind the fixed part of version 2. Addresses take at most 216; the rest is for TLVs, of which the longest in
/// use are certificate names and tokens of cloud providers, some hundred bytes each.
const V2_MAX_VARIABLE_LENGTH: usize = 4096;

/// Two IPv4 addresses and two ports (§2.2).
const V2_INET_LENGTH: usize = 12;

/// Two IPv6 addresses and two ports (§2.2).
const V2_INET6_LENGTH: usize = 36;

/// Two socket paths (§2.2).
const V2_UNIX_LENGTH: usize = 216;

/// First read: every header without large TLVs fits (§2.2 promises that 536 bytes arrive in one piece), and a request
/// that comes with it fills little more.
const READ_CAPACITY: usize = 536;

/// What the sender says about the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// The connection's own addresses stand: the sender speaks for itself (`LOCAL`), or does not know an IP address of
    /// its client (`UNKNOWN`, unspecified, Unix sockets).
    Local,
    /// The connection is forwarded. IPv4 addresses in IPv6 clothes are plain IPv4 here, so that address rules match.
    Proxied {
        /// Whose connection it is.
        source: SocketAddr,
        /// Where that client connected to.
        destination: SocketAddr,
    },
}

/// Why bytes are no PROXY protocol header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyProtocolError {
    #[error("the connection does not begin with a PROXY protocol header")]
    Missing,
    #[error("the line has no CRLF within {V1_MAX_LENGTH} bytes")]
    LineTooLong,
    #[error("{0}")]
    Line(&'static str),
    #[error("version {0} is neither 1 nor 2")]
    Version(u8),
    #[error("unknown command {0}")]
    Command(u8),
    #[error("unknown address family {0}")]
    Family(u8),
    #[error("unknown transport protocol {0}")]
    Transport(u8),
    #[error("{length} bytes are too few for the addresses of family {family}")]
    AddressesTooShort { family: u8, length: usize },
    #[error("{0} bytes of addresses and TLVs, {V2_MAX_VARIABLE_LENGTH} are accepted")]
    TooLong(usize),
}

/// Why no header could be read from a connection.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("PROXY protocol: {0}")]
    Header(#[from] ProxyProtocolError),
    #[error("PROXY protocol: the header did not arrive in time")]
    Timeout,
    #[error("PROXY protocol: the connection was closed before the header's end")]
    Closed,
    #[error("PROXY protocol: {0}")]
    Io(#[from] io::Error),
}

/// Reads a header from the beginning of `buf`.
///
/// `Ok(None)` says that everything so far is right and more is needed; then `buf` is shorter than the longest accepted
/// header. `Ok(Some((header, length)))` says how many bytes the header takes.
pub fn parse(buf: &[u8]) -> Result<Option<(Header, usize)>, ProxyProtocolError> {
    match buf.first() {
        None => Ok(None),
        Some(b'P') => parse_v1(buf),
        Some(b'\r') => parse_v2(buf),
        Some(_) => Err(ProxyProtocolError::Missing),
    }
}

/// Reads a header from `io`, until `deadline`. What came behind the header is in the returned buffer, and nothing of
/// the connection is lost.
pub async fn read<IO>(io: &mut IO, deadline: Instant) -> Result<(Header, BytesMut), ReadError>
where
    IO: AsyncRead + Unpin,
{
    let mut buf = BytesMut::with_capacity(READ_CAPACITY);
    loop {
        let count = match timeout_at(deadline, io.read_buf(&mut buf)).await {
            Ok(read) => read?,
            Err(_) => return Err(ReadError::Timeout),
        };
        if count == 0 {
            return Err(ReadError::Closed);
        }
        if let Some((header, length)) = parse(&buf)? {
            buf.advance(length);
            return Ok((header, buf));
        }
    }
}

/// `PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n` (§2.1).
fn parse_v1(buf: &[u8]) -> Result<Option<(Header, usize)>, ProxyProtocolError> {
    if !agrees(buf, V1_PREFIX) {
        return Err(ProxyProtocolError::Missing);
    }
    let window = buf.get(..V1_MAX_LENGTH).unwrap_or(buf);
    let Some(end) = window.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return match buf.len() < V1_MAX_LENGTH {
            true => Ok(None),
            false => Err(ProxyProtocolError::LineTooLong),
        };
    };
    match (window.get(end), window.get(end + 1)) {
        (Some(b'\r'), Some(b'\n')) => {}
        (Some(b'\r'), None) if buf.len() < V1_MAX_LENGTH => return Ok(None),
        (Some(b'\r'), None) => return Err(ProxyProtocolError::LineTooLong),
        _ => return Err(ProxyProtocolError::Line("the line does not end with CRLF")),
    }
    let line = window.get(V1_PREFIX.len()..end).unwrap_or_default();
    let line = match std::str::from_utf8(line) {
        Ok(line) if line.is_ascii() => line,
        _ => return Err(ProxyProtocolError::Line("the line is not ASCII")),
    };
    Ok(Some((v1_header(line)?, end + 2)))
}

fn v1_header(line: &str) -> Result<Header, ProxyProtocolError> {
    let mut words = line.split(' ');
    match words.next() {
        // §2.1: whatever stands behind UNKNOWN is to be ignored.
        Some("UNKNOWN") => Ok(Header::Local),
        Some("TCP4") => v1_addresses::<Ipv4Addr>(words),
        Some("TCP6") => v1_addresses::<Ipv6Addr>(words),
        _ => Err(ProxyProtocolError::Line(
            "the protocol is none of TCP4, TCP6 and UNKNOWN",
        )),
    }
}

/// Source, destination, source port, destination port, one space between each two (§2.1).
fn v1_addresses<Ip>(mut words: std::str::Split<'_, char>) -> Result<Header, ProxyProtocolError>
where
    Ip: FromStr + Into<IpAddr>,
{
    let source = v1_address::<Ip>(words.next())?;
    let destination = v1_address::<Ip>(words.next())?;
    let source_port = v1_port(words.next())?;
    let destination_port = v1_port(words.next())?;
    match words.next() {
        None => Ok(proxied((source, source_port), (destination, destination_port))),
        Some(_) => Err(ProxyProtocolError::Line("something follows the destination port")),
    }
}

fn v1_address<Ip>(word: Option<&str>) -> Result<IpAddr, ProxyProtocolError>
where
    Ip: FromStr + Into<IpAddr>,
{
    match word.map(Ip::from_str) {
        Some(Ok(ip)) => Ok(ip.into()),
        Some(Err(_)) => Err(ProxyProtocolError::Line("an address is not one of the named protocol")),
        None => Err(ProxyProtocolError::Line("an address is missing")),
    }
}

/// Digits without a sign and without leading zeros (§2.1).
fn v1_port(word: Option<&str>) -> Result<u16, ProxyProtocolError> {
    let Some(word) = word else {
        return Err(ProxyProtocolError::Line("a port is missing"));
    };
    let canonical = word == "0" || matches!(word.as_bytes().first(), Some(b'1'..=b'9'));
    match word.parse() {
        Ok(port) if canonical => Ok(port),
        _ => Err(ProxyProtocolError::Line("a port is not a number from 0 to 65535")),
    }
}

/// The binary header (§2.2).
fn parse_v2(buf: &[u8]) -> Result<Option<(Header, usize)>, ProxyProtocolError> {
    if !agrees(buf, V2_SIGNATURE) {
        return Err(ProxyProtocolError::Missing);
    }
    let Some(&[version_and_command, family_and_transport, high, low]) = buf
        .get(V2_SIGNATURE.len()..V2_FIXED_LENGTH)
        .and_then(|fixed| fixed.first_chunk())
    else {
        return Ok(None);
    };
    if version_and_command >> 4 != 2 {
        return Err(ProxyProtocolError::Version(version_and_command >> 4));
    }
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > V2_MAX_VARIABLE_LENGTH {
        return Err(ProxyProtocolError::TooLong(length));
    }
    let Some(variable) = buf.get(V2_FIXED_LENGTH..V2_FIXED_LENGTH + length) else {
        return Ok(None);
    };
    let header = match version_and_command & 0x0f {
        // §2.2: LOCAL uses the real endpoints, and the family is ignored.
        0 => Header::Local,
        1 => v2_addresses(family_and_transport >> 4, family_and_transport & 0x0f, variable)?,
        other => return Err(ProxyProtocolError::Command(other)),
    };
    Ok(Some((header, V2_FIXED_LENGTH + length)))
}

fn v2_addresses(family: u8, transport: u8, variable: &[u8]) -> Result<Header, ProxyProtocolError> {
    // §2.2: 0 unspecified, 1 stream, 2 datagram. The client's address is as good with the one as with the other.
    if transport > 2 {
        return Err(ProxyProtocolError::Transport(transport));
    }
    let needed = match family {
        0 => return Ok(Header::Local),
        1 => V2_INET_LENGTH,
        2 => V2_INET6_LENGTH,
        3 => V2_UNIX_LENGTH,
        other => return Err(ProxyProtocolError::Family(other)),
    };
    // TLVs that follow the addresses may be skipped (§2.2).
    let Some(mut addresses) = variable.get(..needed) else {
        return Err(ProxyProtocolError::AddressesTooShort {
            family,
            length: variable.len(),
        });
    };
    if transport == 0 || family == 3 {
        return Ok(Header::Local);
    }
    let mut ip = || match family {
        1 => IpAddr::from(Ipv4Addr::from_bits(addresses.get_u32())),
        _ => IpAddr::from(Ipv6Addr::from_bits(addresses.get_u128())),
    };
    let (source, destination) = (ip(), ip());
    Ok(proxied(
        (source, addresses.get_u16()),
        (destination, addresses.get_u16()),
    ))
}

fn proxied(source: (IpAddr, u16), destination: (IpAddr, u16)) -> Header {
    Header::Proxied {
        source: SocketAddr::new(source.0.to_canonical(), source.1),
        destination: SocketAddr::new(destination.0.to_canonical(), destination.1),
    }
}

/// Whether `buf` begins with `expected`, or is the beginning of it.
fn agrees(buf: &[u8], expected: &[u8]) -> bool {
    buf.iter().zip(expected).all(|(a, b)| a == b)
}

#[cfg(test)]
mod tests;
