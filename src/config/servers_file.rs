//! `servers_file`: a server in each line, with what the configuration can say of one.
//!
//! ```text
//! # address, and what differs from the defaults
//! 10.0.0.1:3000
//! 10.0.0.2:3000 weight=2 max_connections=200
//! 10.0.0.9:3000 backup
//! ```

use std::collections::HashSet;
use std::fmt;

use super::address::server_source;
use super::diagnostic::{Complaint, Cure};
use super::{Role, UpstreamServer};

/// More servers than this in one upstream are not looked for: each has a connection pool, counters and a place in every choice.
pub const MAX_SERVERS: usize = 1000;

/// What is wrong with a file, and where.
#[derive(Debug, PartialEq, Eq)]
pub struct BadLine {
    /// From 1.
    pub line: usize,
    complaint: Complaint,
}

impl BadLine {
    pub(super) fn cure(&self) -> &str {
        match &self.complaint.cure {
            Cure::General(cure) | Cure::Rewritten(cure) => cure,
        }
    }
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.complaint.what)
    }
}

impl std::error::Error for BadLine {}

/// All servers of a file.
///
/// # Errors
/// The first line that is wrong: none of the others counts then.
pub fn parse(text: &str) -> Result<Vec<UpstreamServer>, BadLine> {
    let mut servers = Vec::new();
    let mut addresses = HashSet::new();
    for (index, line) in text.lines().enumerate() {
        let bad = |complaint| BadLine {
            line: index + 1,
            complaint,
        };
        let content = line.split_once('#').map_or(line, |(content, _)| content);
        let mut words = content.split_ascii_whitespace();
        let Some(address) = words.next() else { continue };
        let server = server(address, words).map_err(bad)?;
        if !addresses.insert(server.address.clone()) {
            return Err(bad(Complaint::new("is there twice", "give it a weight instead")));
        }
        if servers.len() >= MAX_SERVERS {
            let what = format!("is one more than the {MAX_SERVERS} servers that there may be");
            return Err(bad(Complaint::new(what, "")));
        }
        servers.push(server);
    }
    Ok(servers)
}

fn server<'a>(address: &str, words: impl Iterator<Item = &'a str>) -> Result<UpstreamServer, Complaint> {
    let mut server = UpstreamServer {
        address: server_source(address)?,
        weight: 1,
        role: Role::Main,
        max_connections: None,
    };
    for word in words {
        match word.split_once('=') {
            None if word == "backup" => server.role = Role::Backup,
            Some(("backup", "true")) => server.role = Role::Backup,
            Some(("backup", "false")) => server.role = Role::Main,
            Some(("weight", number)) => server.weight = count("weight", number, UpstreamServer::MAX_WEIGHT)?,
            Some(("max_connections", number)) => {
                server.max_connections = Some(count("max_connections", number, u32::MAX)?);
            }
            _ => {
                return Err(Complaint::new(
                    "has a word that means nothing behind the address",
                    "use weight=2, max_connections=200 or backup",
                ));
            }
        }
    }
    Ok(server)
}

fn count(key: &str, text: &str, most: u32) -> Result<u32, Complaint> {
    match text.parse() {
        Ok(number) if (1..=most).contains(&number) => Ok(number),
        _ => Err(Complaint::new(format!("must have a {key} from 1 to {most}"), "")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_servers() {
        let text = "# who is there\n\n10.0.0.1:3000\n app.internal:3000  weight=2 max_connections=9 # two\n\
                    unix:/run/app.sock backup\nsrv:_http._tcp.app backup=false\n";
        let found: Vec<_> = parse(text)
            .unwrap()
            .into_iter()
            .map(|server| {
                (
                    server.address.to_string(),
                    server.weight,
                    server.role,
                    server.max_connections,
                )
            })
            .collect();
        let expected = [
            ("10.0.0.1:3000", 1, Role::Main, None),
            ("app.internal:3000", 2, Role::Main, Some(9)),
            ("unix:/run/app.sock", 1, Role::Backup, None),
            ("srv:_http._tcp.app", 1, Role::Main, None),
        ];
        assert_eq!(
            found,
            expected
                .map(|(address, ..)| address.to_owned())
                .into_iter()
                .zip(expected)
                .map(|(address, (_, weight, role, max))| (address, weight, role, max))
                .collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_bad_line_is_named() {
        for (text, expected) in [
            ("a:1\n\nb", "3: must be a host and a port"),
            ("a:1 weight=0", "1: must have a weight from 1 to 65535"),
            ("a:1 weight=many", "1: must have a weight from 1 to 65535"),
            (
                "a:1 max_connections=0",
                "1: must have a max_connections from 1 to 4294967295",
            ),
            ("a:1 wieght=2", "1: has a word that means nothing behind the address"),
            ("a:1\na:1 weight=2", "2: is there twice"),
            (
                "srv:app:80",
                "1: must have the name of a service behind `srv:`, without a port",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), expected, "{text}");
        }
        let many: String = (0..=MAX_SERVERS).map(|port| format!("a:{}\n", port + 1)).collect();
        assert_eq!(parse(&many).unwrap_err().line, MAX_SERVERS + 1);
        assert_eq!(parse(""), Ok(Vec::new()));
    }
}
