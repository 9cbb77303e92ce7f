use std::time::Duration;

use proptest::prelude::*;
use tokio::io::AsyncWriteExt;

use super::*;

fn addresses(source: &str, destination: &str) -> Header {
    Header::Proxied {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
    }
}

/// A version 2 header with this version and command, family and transport, and what follows the length.
fn v2(version_and_command: u8, family_and_transport: u8, variable: &[u8]) -> Vec<u8> {
    let mut header = V2_SIGNATURE.to_vec();
    header.extend([version_and_command, family_and_transport]);
    header.extend(u16::try_from(variable.len()).unwrap().to_be_bytes());
    header.extend(variable);
    header
}

/// 192.0.2.1:56324 to 198.51.100.1:443.
const INET: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 0x04, 0x01, 0xbb];

/// [2001:db8::1]:1 to [::ffff:198.51.100.1]:65535.
fn inet6() -> Vec<u8> {
    let mut block = Vec::new();
    block.extend("2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
    block.extend("::ffff:198.51.100.1".parse::<Ipv6Addr>().unwrap().octets());
    block.extend([0, 1, 0xff, 0xff]);
    block
}

fn valid() -> Vec<(Vec<u8>, Header)> {
    let tcp4 = addresses("192.0.2.1:56324", "198.51.100.1:443");
    let tcp6 = addresses("[2001:db8::1]:1", "198.51.100.1:65535");
    let longest = "PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535";
    let longest = format!("{longest}{}\r\n", " ".repeat(V1_MAX_LENGTH - 2 - longest.len()));
    let with_tlv = [&INET[..], &[0x04, 0, 3, 1, 2, 3]].concat();
    let most = [&INET[..], &[0; V2_MAX_VARIABLE_LENGTH - 12]].concat();
    vec![
        (b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n".to_vec(), tcp4),
        (b"PROXY TCP6 2001:db8::1 ::ffff:198.51.100.1 1 65535\r\n".to_vec(), tcp6),
        (
            b"PROXY TCP6 ::ffff:192.0.2.1 ::1 0 0\r\n".to_vec(),
            addresses("192.0.2.1:0", "[::1]:0"),
        ),
        (b"PROXY UNKNOWN\r\n".to_vec(), Header::Local),
        (longest.into_bytes(), Header::Local),
        (v2(0x21, 0x11, &INET), tcp4),
        (v2(0x21, 0x12, &INET), tcp4),
        (v2(0x21, 0x11, &with_tlv), tcp4),
        (v2(0x21, 0x11, &most), tcp4),
        (v2(0x21, 0x21, &inet6()), tcp6),
        (v2(0x21, 0x31, &[b'/'; V2_UNIX_LENGTH]), Header::Local),
        (v2(0x21, 0x00, b""), Header::Local),
        (v2(0x21, 0x10, &INET), Header::Local),
        (v2(0x20, 0x00, b""), Header::Local),
        (v2(0x20, 0xff, b"ignored"), Header::Local),
    ]
}

#[test]
fn a_header_is_read_whole_and_what_follows_is_left() {
    for (bytes, header) in valid() {
        assert_eq!(
            parse(&bytes),
            Ok(Some((header, bytes.len()))),
            "{}",
            bytes.escape_ascii()
        );
        let followed = [&bytes[..], b"GET / HTTP/1.1\r\n"].concat();
        assert_eq!(
            parse(&followed),
            Ok(Some((header, bytes.len()))),
            "{}",
            bytes.escape_ascii()
        );
    }
}

#[test]
fn a_header_that_is_cut_anywhere_asks_for_more() {
    for (bytes, _) in valid() {
        for length in 0..bytes.len() {
            assert_eq!(
                parse(&bytes[..length]),
                Ok(None),
                "{length} of {}",
                bytes.escape_ascii()
            );
        }
    }
}

#[test]
fn anything_else_is_refused() {
    use ProxyProtocolError::*;
    let protocol = Line("the protocol is none of TCP4, TCP6 and UNKNOWN");
    let address = Line("an address is not one of the named protocol");
    let port = Line("a port is not a number from 0 to 65535");
    let crlf = Line("the line does not end with CRLF");
    let cases: Vec<(Vec<u8>, ProxyProtocolError)> = vec![
        (b"GET / HTTP/1.1\r\n".to_vec(), Missing),
        (b"POST / HTTP/1.1\r\n".to_vec(), Missing),
        (b"\x16\x03\x01".to_vec(), Missing),
        (b"\r\n\r\nX".to_vec(), Missing),
        (b"PROXYTCP4".to_vec(), Missing),
        (b"proxy TCP4 192.0.2.1 198.51.100.1 1 2\r\n".to_vec(), Missing),
        (b"PROXY TCP5 192.0.2.1 198.51.100.1 1 2\r\n".to_vec(), protocol),
        (b"PROXY \r\n".to_vec(), protocol),
        (b"PROXY  TCP4 192.0.2.1 198.51.100.1 1 2\r\n".to_vec(), protocol),
        (b"PROXY UNKNOWNX\r\n".to_vec(), protocol),
        (b"PROXY TCP4\r\n".to_vec(), Line("an address is missing")),
        (
            b"PROXY TCP4 192.0.2.1 198.51.100.1 1\r\n".to_vec(),
            Line("a port is missing"),
        ),
        (b"PROXY TCP4 192.0.2.1  198.51.100.1 1 2\r\n".to_vec(), address),
        (b"PROXY TCP4 192.0.2.01 198.51.100.1 1 2\r\n".to_vec(), address),
        (b"PROXY TCP4 192.0.2.256 198.51.100.1 1 2\r\n".to_vec(), address),
        (b"PROXY TCP4 2001:db8::1 ::1 1 2\r\n".to_vec(), address),
        (b"PROXY TCP6 192.0.2.1 198.51.100.1 1 2\r\n".to_vec(), address),
        (b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n".to_vec(), address),
        (b"PROXY TCP4 192.0.2.1 198.51.100.1 +1 2\r\n".to_vec(), port),
        (b"PROXY TCP4 192.0.2.1 198.51.100.1 01 2\r\n".to_vec(), port),
        (b"PROXY TCP4 192.0.2.1 198.51.100.1 1 65536\r\n".to_vec(), port),
        (b"PROXY TCP4 192.0.2.1 198.51.100.1 1 \r\n".to_vec(), port),
        (
            b"PROXY TCP4 192.0.2.1 198.51.100.1 1 2 \r\n".to_vec(),
            Line("something follows the destination port"),
        ),
        (b"PROXY TCP4 192.0.2.1 198.51.100.1 1 2\n".to_vec(), crlf),
        (b"PROXY UNKNOWN\rX".to_vec(), crlf),
        (b"PROXY UNKNOWN \xff\r\n".to_vec(), Line("the line is not ASCII")),
        (
            [b"PROXY UNKNOWN".as_slice(), &[b' '; V1_MAX_LENGTH]].concat(),
            LineTooLong,
        ),
        (
            [b"PROXY UNKNOWN".as_slice(), &[b' '; V1_MAX_LENGTH - 14], b"\r\n"].concat(),
            LineTooLong,
        ),
        (v2(0x11, 0x11, &INET), Version(1)),
        (v2(0x31, 0x11, &INET), Version(3)),
        (v2(0x22, 0x11, &INET), Command(2)),
        (v2(0x21, 0x41, &INET), Family(4)),
        (v2(0x21, 0x13, &INET), Transport(3)),
        (v2(0x21, 0x11, &INET[..11]), AddressesTooShort { family: 1, length: 11 }),
        (
            v2(0x21, 0x21, &inet6()[..35]),
            AddressesTooShort { family: 2, length: 35 },
        ),
        (
            v2(0x21, 0x31, &[0; V2_UNIX_LENGTH - 1]),
            AddressesTooShort { family: 3, length: 215 },
        ),
        (v2(0x21, 0x11, &[0; V2_MAX_VARIABLE_LENGTH + 1]), TooLong(4097)),
    ];
    for (bytes, error) in cases {
        assert_eq!(parse(&bytes), Err(error), "{}", bytes.escape_ascii());
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_or_ask_for_more_than_the_limit(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let line = [V1_PREFIX, &bytes].concat();
        let tcp6 = [b"PROXY TCP6 ", &bytes[..]].concat();
        let binary = [V2_SIGNATURE, &bytes].concat();
        for input in [&bytes, &line, &tcp6, &binary] {
            match parse(input) {
                Ok(Some((_, length))) => prop_assert!(length <= input.len()),
                Ok(None) => prop_assert!(input.len() < V2_FIXED_LENGTH + V2_MAX_VARIABLE_LENGTH),
                Err(_) => {}
            }
        }
        if let Ok(None) = parse(&line) {
            prop_assert!(line.len() < V1_MAX_LENGTH);
        }
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

#[tokio::test]
async fn reading_takes_the_header_in_pieces_and_keeps_what_follows() {
    for (bytes, header) in valid() {
        let (mut near, mut far) = tokio::io::duplex(7);
        let sent = [&bytes[..], b"GET /"].concat();
        let writer = tokio::spawn(async move {
            far.write_all(&sent).await.unwrap();
        });
        let (read_header, mut rest) = read(&mut near, soon()).await.unwrap();
        assert_eq!(read_header, header);
        near.read_buf(&mut rest).await.unwrap();
        assert!(b"GET /".starts_with(&rest[..]), "{rest:?}");
        drop(near);
        let _ = writer.await;
    }
}

#[tokio::test(start_paused = true)]
async fn reading_ends_with_the_deadline() {
    let (mut near, mut far) = tokio::io::duplex(100);
    far.write_all(b"PROXY TCP4 192.0.2.1").await.unwrap();
    let start = Instant::now();
    assert!(matches!(read(&mut near, soon()).await, Err(ReadError::Timeout)));
    assert!(start.elapsed() >= Duration::from_secs(10));
}

#[tokio::test]
async fn a_closed_connection_and_a_wrong_beginning_are_told_apart() {
    let (mut near, mut far) = tokio::io::duplex(100);
    far.write_all(b"PROXY").await.unwrap();
    drop(far);
    assert!(matches!(read(&mut near, soon()).await, Err(ReadError::Closed)));

    let (mut near, mut far) = tokio::io::duplex(100);
    far.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let error = read(&mut near, soon()).await.unwrap_err();
    assert!(matches!(error, ReadError::Header(ProxyProtocolError::Missing)));
    assert_eq!(
        error.to_string(),
        "PROXY protocol: the connection does not begin with a PROXY protocol header"
    );
}
