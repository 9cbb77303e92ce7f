//! Whose the keys of a cluster are (Redis Cluster specification).

use std::sync::Arc;

use redis::{Arg, Cmd, Value};

use super::server::Server;

/// Slots of a cluster.
const SLOTS: u16 = 16_384;

/// Where a node is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub host: String,
    pub port: u16,
}

impl Place {
    /// As `MOVED` and `ASK` say it. A node that does not know its own name leaves it out: it is where `asked` is, who said so.
    pub(super) fn told(text: &str, asked: &Self) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        Some(Self {
            host: name(host, &asked.host)?.to_owned(),
            port: port.parse().ok()?,
        })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// A host as a node names it: itself without a name is `asked`. `None`: nobody knows its name.
fn name<'a>(told: &'a str, asked: &'a str) -> Option<&'a str> {
    match told {
        "" | "0.0.0.0" | "::" => Some(asked),
        "?" => None,
        host => Some(host),
    }
}

/// Whose the slots are.
#[derive(Debug, Default)]
pub(super) struct Map {
    /// From and to which slot, in order.
    ranges: Vec<(u16, u16, Arc<Server>)>,
    /// Each once.
    servers: Vec<Arc<Server>>,
}

impl Map {
    pub(super) fn new(mut ranges: Vec<(u16, u16, Arc<Server>)>) -> Self {
        ranges.sort_by_key(|(from, ..)| *from);
        let mut servers: Vec<Arc<Server>> = Vec::new();
        for (_, _, server) in &ranges {
            if !servers.iter().any(|known| Arc::ptr_eq(known, server)) {
                servers.push(server.clone());
            }
        }
        Self { ranges, servers }
    }

    /// All that have slots.
    pub(super) fn servers(&self) -> &[Arc<Server>] {
        &self.servers
    }

    /// `None`: nobody has its slot.
    pub(super) fn of(&self, key: &[u8]) -> Option<&Arc<Server>> {
        let slot = slot(key);
        let behind = self.ranges.partition_point(|(from, ..)| *from <= slot);
        let (_, to, server) = self.ranges.get(behind.checked_sub(1)?)?;
        (slot <= *to).then_some(server)
    }
}

/// Ranges of slots and their masters, as `CLUSTER SLOTS` answers when `asked` is.
pub(super) fn parse(slots: &Value, asked: &Place) -> Vec<(u16, u16, Place)> {
    let Value::Array(ranges) = slots else { return Vec::new() };
    let range = |range: &Value| {
        let Value::Array(range) = range else { return None };
        let [Value::Int(from), Value::Int(to), Value::Array(master), ..] = range.as_slice() else {
            return None;
        };
        let [host, Value::Int(port), ..] = master.as_slice() else {
            return None;
        };
        let host = match host {
            Value::BulkString(host) => std::str::from_utf8(host).ok()?,
            _ => "",
        };
        let place = Place {
            host: name(host, &asked.host)?.to_owned(),
            port: u16::try_from(*port).ok()?,
        };
        let (from, to) = (u16::try_from(*from).ok()?, u16::try_from(*to).ok()?);
        (from <= to && to < SLOTS).then_some((from, to, place))
    };
    ranges.iter().filter_map(range).collect()
}

/// The first key of a command. `None`: it has none.
pub(super) fn key(command: &Cmd) -> Option<&[u8]> {
    let mut arguments = command.args_iter().filter_map(|argument| match argument {
        Arg::Simple(bytes) => Some(bytes),
        _ => None,
    });
    match arguments.next()? {
        // Name, script, number of keys.
        b"EVAL" | b"EVALSHA" => arguments.nth(2),
        _ => arguments.next(),
    }
}

/// The slot of a key: of what stands in its first braces, or of all of it.
fn slot(key: &[u8]) -> u16 {
    let inner = key.iter().position(|b| *b == b'{').and_then(|open| {
        let rest = key.get(open + 1..)?;
        let length = rest.iter().position(|b| *b == b'}')?;
        rest.get(..length).filter(|inner| !inner.is_empty())
    });
    let crc = inner.unwrap_or(key).iter().fold(0_u16, |crc, byte| {
        let index = usize::from((crc >> 8) ^ u16::from(*byte));
        (crc << 8) ^ CRC.get(index).copied().unwrap_or_default()
    });
    crc % SLOTS
}

/// CRC-16/XMODEM of each byte.
const CRC: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 != 0 { crc << 1 ^ 0x1021 } else { crc << 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    fn place(host: &str, port: u16) -> Place {
        Place {
            host: host.to_owned(),
            port,
        }
    }

    #[test]
    fn slots_are_those_of_redis() {
        // From CLUSTER KEYSLOT.
        for (key, expected) in [
            ("123456789", 0x31c3),
            ("foo", 12182),
            ("{foo}bar", 12182),
            ("x{foo}{bar}", 12182),
            ("{}foo", 9500),
        ] {
            assert_eq!(slot(key.as_bytes()), expected, "{key}");
        }
    }

    fn range(from: i64, to: i64, host: &str, port: i64) -> Value {
        let master = Value::Array(vec![Value::BulkString(host.into()), Value::Int(port)]);
        Value::Array(vec![Value::Int(from), Value::Int(to), master])
    }

    #[test]
    fn each_key_is_found_with_who_has_its_slot() {
        let slots = Value::Array(vec![range(12182, 16383, "", 2), range(0, 12180, "b", 1)]);
        let found = parse(&slots, &place("a", 9));
        let servers = found
            .iter()
            .map(|(from, to, place)| (*from, *to, Arc::new(Server::node(place.clone()))));
        let map = Map::new(servers.collect());
        let of = |key: &str| map.of(key.as_bytes()).and_then(|server| server.place().cloned());
        assert_eq!(of("foo"), Some(place("a", 2)));
        assert_eq!(of("bar"), Some(place("b", 1)));
        assert_eq!(map.servers().len(), 2);
        let map = Map::new(vec![
            (0, 100, map.servers()[0].clone()),
            (101, 200, map.servers()[0].clone()),
        ]);
        assert_eq!(map.servers().len(), 1);
        assert!(map.of(b"foo").is_none() && Map::default().of(b"foo").is_none());
    }

    #[test]
    fn the_first_key_says_where_a_command_goes() {
        let keyed = |command: &Cmd| key(command).map(<[u8]>::to_vec);
        assert_eq!(keyed(redis::cmd("GET").arg("a")), Some(b"a".to_vec()));
        let script = redis::cmd("EVALSHA").arg("digest").arg(2).arg("a").arg("b").clone();
        assert_eq!(keyed(&script), Some(b"a".to_vec()));
        assert_eq!(keyed(&redis::cmd("PING")), None);
    }

    #[test]
    fn places_are_read_as_they_are_told() {
        let asked = place("a", 1);
        assert_eq!(Place::told("10.0.0.1:7000", &asked), Some(place("10.0.0.1", 7000)));
        assert_eq!(Place::told(":7000", &asked), Some(place("a", 7000)));
        assert_eq!(
            Place::told("2001:db8::1:7000", &asked),
            Some(place("2001:db8::1", 7000))
        );
        for broken in ["", "a", "a:", "a:x", "?:7000", "a:70000"] {
            assert_eq!(Place::told(broken, &asked), None, "{broken}");
        }
        assert_eq!(place("::1", 1).to_string(), "[::1]:1");
    }

    #[test]
    fn whatever_a_node_says_is_read_without_harm() {
        for value in [
            Value::Nil,
            Value::Array(vec![Value::Nil, range(0, 16384, "a", 1), range(5, 4, "a", 1)]),
            Value::Array(vec![range(0, 1, "?", 1), range(0, 1, "a", -1), range(-1, 1, "a", 1)]),
            Value::Array(vec![Value::Array(vec![
                Value::Int(0),
                Value::Int(1),
                Value::Array(vec![]),
            ])]),
        ] {
            assert!(parse(&value, &place("a", 1)).is_empty(), "{value:?}");
        }
    }
}
