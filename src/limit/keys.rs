//! What a client is told apart by.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use arrayvec::ArrayVec;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::config::{AddressDetail, LimitKeyPart};
use crate::key::cookie_values;
use crate::message::RequestHead;
use crate::route::shortest_reading;

/// Who asks for what.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    pub request: &'a RequestHead,
    /// As far as trusted proxies tell. `None`: through a Unix socket.
    pub client: Option<IpAddr>,
    pub route: &'a str,
}

/// A subject as one limit sees it.
#[derive(Debug, Clone, Copy)]
pub struct Key<'a> {
    /// Of the limit.
    pub limit: &'a str,
    pub parts: &'a [LimitKeyPart],
    pub subject: Subject<'a>,
}

/// Bytes of a key that is hashed in one go.
const USUAL_KEY: usize = 128;

/// The form of what stands in a key: no two parts of different kinds are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Form {
    Unix,
    Ipv4,
    Ipv6Network,
    Text,
}

impl<'a> Key<'a> {
    /// The key's bytes: the same in every process. Of a part that is not there the client's address takes the place: who leaves a
    /// field out is no one else for that.
    pub fn each_part(&self, mut part: impl FnMut(&[u8])) {
        part(self.limit.as_bytes());
        let Subject { request, client, route } = self.subject;
        let mut tagged = |form: Form, value: &[u8]| {
            part(&[form as u8]);
            part(value);
        };
        for which in self.parts {
            let mut found = Found::Nothing;
            let mut text = |value: &[u8]| {
                tagged(Form::Text, value);
                found = Found::Something;
            };
            match which {
                LimitKeyPart::ClientIp => {}
                LimitKeyPart::Path => text(&shortest_reading(request.path())),
                LimitKeyPart::Host => {
                    text(request.authority.normal(request.scheme).as_bytes());
                }
                LimitKeyPart::Route => text(route.as_bytes()),
                LimitKeyPart::Header(name) => {
                    for value in request.fields.get_all(name) {
                        text(&header_value(name, value));
                    }
                }
                LimitKeyPart::Cookie(name) => cookie_values(&request.fields, name).for_each(text),
                LimitKeyPart::Query(name) => query_values(request, name).for_each(|value| text(value.as_bytes())),
            }
            if found == Found::Nothing {
                address(client, &mut tagged);
            }
        }
    }

    /// For people: values that may be secret are told as a fingerprint.
    pub fn label(&self, detail: AddressDetail) -> Label {
        let Subject { request, client, route } = self.subject;
        if let [LimitKeyPart::ClientIp] = self.parts {
            return Label::Address(client, detail);
        }
        let address = || Label::Address(client, detail).to_string();
        let parts = self.parts.iter().map(|part| match part {
            LimitKeyPart::ClientIp => address(),
            LimitKeyPart::Path => String::from_utf8_lossy(cut(request.path().as_bytes())).into_owned(),
            LimitKeyPart::Host => String::from_utf8_lossy(cut(request.authority.as_bytes())).into_owned(),
            LimitKeyPart::Route => route.to_owned(),
            LimitKeyPart::Header(name) => match request.fields.get(name) {
                Some(value) => format!("{name}={}", fingerprint(&header_value(name, value))),
                None => address(),
            },
            LimitKeyPart::Cookie(name) => match cookie_values(&request.fields, name).next() {
                Some(value) => format!("{name}={}", fingerprint(value)),
                None => address(),
            },
            LimitKeyPart::Query(name) => match query_values(request, name).next() {
                Some(value) => format!("{name}={}", fingerprint(value.as_bytes())),
                None => address(),
            },
        });
        Label::Text(parts.collect::<Vec<_>>().join(" "))
    }
}

/// What a key is called. Most are addresses, and written out only when somebody looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Label {
    /// `None`: a Unix socket.
    Address(Option<IpAddr>, AddressDetail),
    Text(String),
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ip, detail) = match self {
            Self::Text(text) => return f.write_str(text),
            Self::Address(ip, detail) => (ip.map(|ip| ip.to_canonical()), detail),
        };
        match (ip, detail) {
            (None, _) => f.write_str("unix"),
            (Some(IpAddr::V4(ip)), AddressDetail::Whole) => write!(f, "{ip}"),
            (Some(IpAddr::V4(ip)), AddressDetail::Network) => {
                let [a, b, c, _] = ip.octets();
                write!(f, "{}/24", Ipv4Addr::new(a, b, c, 0))
            }
            (Some(IpAddr::V6(ip)), AddressDetail::Whole) => write!(f, "{}/64", network(ip, 4)),
            (Some(IpAddr::V6(ip)), AddressDetail::Network) => write!(f, "{}/48", network(ip, 3)),
        }
    }
}

impl Hash for Key<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // In one go: hashers take their time for each piece.
        let mut together: ArrayVec<u8, USUAL_KEY> = ArrayVec::new();
        self.each_part(|part| {
            let length = u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes();
            for piece in [&length[..], part] {
                if together.try_extend_from_slice(piece).is_err() {
                    state.write(&together);
                    together.clear();
                    state.write(piece);
                }
            }
        });
        state.write(&together);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Nothing,
    Something,
}

fn address(client: Option<IpAddr>, part: &mut impl FnMut(Form, &[u8])) {
    match client.map(|ip| ip.to_canonical()) {
        Some(IpAddr::V4(ip)) => part(Form::Ipv4, &ip.octets()),
        // A network is what one subscriber has (RFC 6177 §2); the rest of the address it chooses as it likes.
        Some(IpAddr::V6(ip)) => part(
            Form::Ipv6Network,
            ip.octets().first_chunk::<8>().map_or(&[], |half| half),
        ),
        None => part(Form::Unix, b""),
    }
}

/// The first so many groups of an address.
fn network(ip: Ipv6Addr, groups: usize) -> Ipv6Addr {
    let mut segments = ip.segments();
    segments.iter_mut().skip(groups).for_each(|segment| *segment = 0);
    segments.into()
}

/// The scheme of credentials has no case (RFC 9110 §11.1), and nobody shall be two clients by writing it differently.
fn header_value<'v>(name: &str, value: &'v [u8]) -> Cow<'v, [u8]> {
    let value = value.trim_ascii();
    if name != "authorization" {
        return Cow::Borrowed(value);
    }
    let Some(space) = value.iter().position(|byte| *byte == b' ') else {
        return Cow::Borrowed(value);
    };
    let (scheme, credentials) = value.split_at(space);
    let mut one = scheme.to_ascii_lowercase();
    one.push(b' ');
    one.extend_from_slice(credentials.trim_ascii());
    Cow::Owned(one)
}

fn query_values<'a>(request: &'a RequestHead, name: &'a str) -> impl Iterator<Item = &'a str> {
    let pairs = request.query().into_iter().flat_map(|query| query.split('&'));
    pairs.filter_map(move |pair| match pair.split_once('=') {
        Some((key, value)) => (key == name).then_some(value),
        None => (pair == name).then_some(""),
    })
}

/// Enough to tell two values apart, too little to find out either.
fn fingerprint(value: &[u8]) -> String {
    static SEED: LazyLock<u64> = LazyLock::new(|| fastrand::u64(..));
    format!("#{:08x}", xxh3_64_with_seed(value, *SEED) >> 32)
}

/// Bytes of a label's part.
fn cut(text: &[u8]) -> &[u8] {
    const LONGEST: usize = 128;
    text.get(..LONGEST).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::Limits;
    use crate::http1::request::parse;
    use crate::message::Scheme;

    fn request(head: &str) -> RequestHead {
        let head = head.replace('\n', "\r\n");
        parse(head.as_bytes(), &Limits::DEFAULT, Scheme::Http)
            .unwrap()
            .unwrap()
            .0
    }

    fn bytes(parts: &[LimitKeyPart], head: &str, client: &str) -> Vec<u8> {
        let request = request(head);
        let key = Key {
            limit: "l",
            parts,
            subject: Subject {
                request: &request,
                client: client.parse().ok(),
                route: "r",
            },
        };
        let mut bytes = Vec::new();
        key.each_part(|part| {
            bytes.push(part.len() as u8);
            bytes.extend_from_slice(part);
        });
        bytes
    }

    const PLAIN: &str = "GET / HTTP/1.1\nHost: a\n\n";

    #[test]
    fn an_ipv6_client_is_its_network() {
        let ip = [LimitKeyPart::ClientIp];
        let of = |client| bytes(&ip, PLAIN, client);
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_ne!(of("192.0.2.1"), of("unix"));
    }

    #[test]
    fn who_leaves_it_out_is_known_by_address() {
        let user = [LimitKeyPart::Header("x-user".into())];
        let with = |user_value| format!("GET / HTTP/1.1\nHost: a\nX-User: {user_value}\n\n");
        assert_eq!(
            bytes(&user, &with("u"), "192.0.2.1"),
            bytes(&user, &with("u"), "192.0.2.2")
        );
        assert_ne!(
            bytes(&user, &with("u"), "192.0.2.1"),
            bytes(&user, &with("v"), "192.0.2.1")
        );
        assert_ne!(bytes(&user, PLAIN, "192.0.2.1"), bytes(&user, PLAIN, "192.0.2.2"));
        // Nobody gets at another's by sending what an address looks like.
        let forged = "GET / HTTP/1.1\nHost: a\nX-User: \u{c0}\u{0}\u{2}\u{1}\n\n";
        assert!(parse(forged.as_bytes(), &Limits::DEFAULT, Scheme::Http).is_err());
        assert_ne!(
            bytes(&user, &with("192.0.2.1"), "192.0.2.1"),
            bytes(&user, PLAIN, "192.0.2.1")
        );
    }

    #[test]
    fn no_two_ways_to_write_one_client() {
        let authorization = [LimitKeyPart::Header("authorization".into())];
        let of = |value| {
            bytes(
                &authorization,
                &format!("GET / HTTP/1.1\nHost: a\nAuthorization: {value}\n\n"),
                "::1",
            )
        };
        assert_eq!(of("Bearer x"), of("bearer   x"));
        assert_ne!(of("Bearer x"), of("Bearer X"));
        let parts = [LimitKeyPart::Path, LimitKeyPart::Host];
        let of = |target, host| bytes(&parts, &format!("GET {target} HTTP/1.1\nHost: {host}\n\n"), "::1");
        assert_eq!(of("/a?x=1", "h"), of("/a?x=2", "H:80"));
        assert_eq!(of("/%61", "h"), of("/a", "h"));
        assert_eq!(of("/b/../a", "h"), of("/a", "h"));
        assert_eq!(of("//a", "h"), of("/a", "h"));
        assert_ne!(of("/a", "h"), of("/b", "h"));
    }

    #[test]
    fn cookies_and_parameters() {
        let parts = [
            LimitKeyPart::Cookie("s".into()),
            LimitKeyPart::Query("k".into()),
            LimitKeyPart::Route,
        ];
        let of = |target: &str, cookie: &str| {
            bytes(
                &parts,
                &format!("GET {target} HTTP/1.1\nHost: a\nCookie: {cookie}\n\n"),
                "::1",
            )
        };
        assert_eq!(of("/?k=1&z=2", "s=1; t=2"), of("/other?z=3&k=1", "t=3; s=1"));
        assert_ne!(of("/?k=1", "s=1"), of("/?k=1", "s=2"));
        assert_ne!(of("/?k=1", "s=1"), of("/?k=2", "s=1"));
    }

    #[test]
    fn labels_tell_no_secrets() {
        let request = request("GET /p HTTP/1.1\nHost: a\nAuthorization: Bearer hunter2\n\n");
        let parts = [
            LimitKeyPart::ClientIp,
            LimitKeyPart::Header("authorization".into()),
            LimitKeyPart::Path,
        ];
        for (client, detail, expected) in [
            ("192.0.2.77", AddressDetail::Whole, "192.0.2.77 "),
            ("192.0.2.77", AddressDetail::Network, "192.0.2.0/24 "),
            ("2001:db8:1:2:3::4", AddressDetail::Whole, "2001:db8:1:2::/64 "),
            ("2001:db8:1:2:3::4", AddressDetail::Network, "2001:db8:1::/48 "),
        ] {
            let key = Key {
                limit: "l",
                parts: &parts,
                subject: Subject {
                    request: &request,
                    client: client.parse().ok(),
                    route: "r",
                },
            };
            let label = key.label(detail).to_string();
            assert!(label.starts_with(expected), "{label}");
            assert!(!label.contains("hunter2") && label.ends_with(" /p"), "{label}");
        }
    }
}
