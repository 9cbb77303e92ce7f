//! `cache.redis`: where Redis is, and what for.

use percent_encoding::percent_decode_str;

use super::{positive, read_limited};
use crate::config::address::host_or_address;
use crate::config::diagnostic::{Complaint, KeyPath, alternatives};
use crate::config::file::scalar::DurationOrNever;
use crate::config::file::{FileRedis, WriteName};
use crate::config::report::Report;
use crate::config::{Deployment, Password, Redis, RedisTls, Secret, ServerAddress, Verify, WritePolicy, defaults};

const SCHEMES: [&str; 5] = [
    "redis://",
    "rediss://",
    "redis+sentinel://",
    "redis+cluster://",
    "unix:/",
];

/// Redis Cluster has one database; a server has sixteen unless it is told otherwise, and more is a matter of its own configuration.
const MAX_DATABASE: u32 = 1 << 16;

/// What a URL says.
#[derive(Debug, PartialEq)]
struct Url {
    deployment: Deployment,
    tls: bool,
    username: Option<String>,
    password: Option<String>,
    database: u32,
}

pub fn resolve(typed: &FileRedis, report: &mut Report, path: &KeyPath) -> Option<Redis> {
    let url = url(typed, report, &path.key("url"));
    let password = password(typed, url.as_ref(), report, path);
    let tls = tls(typed, url.as_ref(), report, &path.key("tls"));
    let deadline = typed.deadline.as_ref().map_or(defaults::REDIS_DEADLINE, |text| text.0);
    positive(report, &path.key("deadline"), Some(deadline));
    let max_body = typed.max_body.as_ref().map_or(defaults::REDIS_MAX_BODY, |size| size.0);
    if max_body == 0 {
        report.value(&path.key("max_body"), "must be greater than 0", "");
    }
    let limit = |typed: &Option<DurationOrNever>| typed.as_ref().and_then(|limit| limit.0);
    let (max_ttl, coherence_timeout) = (limit(&typed.max_ttl), limit(&typed.coherence_timeout));
    positive(report, &path.key("max_ttl"), max_ttl);
    positive(report, &path.key("coherence_timeout"), coherence_timeout);
    let url = url?;
    Some(Redis {
        deployment: url.deployment,
        tls,
        username: url.username,
        password,
        database: url.database,
        prefix: typed
            .prefix
            .clone()
            .unwrap_or_else(|| defaults::REDIS_PREFIX.to_owned()),
        deadline,
        max_body,
        max_ttl,
        write: match typed.write {
            None | Some(WriteName::Behind) => WritePolicy::Behind,
            Some(WriteName::Through) => WritePolicy::Through,
            Some(WriteName::Around) => WritePolicy::Around,
        },
        coherence_timeout,
    })
}

fn url(typed: &FileRedis, report: &mut Report, path: &KeyPath) -> Option<Url> {
    let Some(text) = &typed.url else {
        report.key(path, "is missing", "like redis://127.0.0.1:6379/0");
        return None;
    };
    match parse(text) {
        Ok(url) => Some(url),
        Err(complaint) => {
            report.complaint(path, complaint);
            None
        }
    }
}

fn password(typed: &FileRedis, url: Option<&Url>, report: &mut Report, path: &KeyPath) -> Option<Password> {
    let in_url = url.and_then(|url| url.password.clone());
    if typed.password.is_some() && typed.password_file.is_some() {
        report.key(
            &path.key("password"),
            "has no effect beside password_file",
            "keep one of them",
        );
    }
    if in_url.is_some() && (typed.password.is_some() || typed.password_file.is_some()) {
        report.key(
            &path.key("url"),
            "holds a password, and another one stands beside it",
            "keep one of them",
        );
    }
    if let Some(file) = &typed.password_file {
        if let Err(error) = read_limited(std::path::Path::new(file)) {
            let what = format!("must be a file that can be read ({})", error.kind());
            report.value(&path.key("password_file"), what, "");
        }
        return Some(Password::File(file.into()));
    }
    // An empty one, as an unset variable leaves it, is none.
    let text = typed.password.clone().or(in_url).filter(|text| !text.is_empty());
    text.map(|text| Password::Text(Secret::new(text)))
}

fn tls(typed: &FileRedis, url: Option<&Url>, report: &mut Report, path: &KeyPath) -> Option<RedisTls> {
    let url = url?;
    let said = typed.tls.as_ref();
    if !url.tls {
        if said.is_some() {
            report.key(path, "has no effect without TLS", "the url must begin with rediss");
        }
        return None;
    }
    let verify = match said.and_then(|tls| tls.verify) {
        Some(false) => Verify::Nothing,
        None | Some(true) => Verify::Certificate,
    };
    let server_name = said.and_then(|tls| tls.server_name.clone());
    let ca = said.and_then(|tls| tls.ca.clone());
    if let Some(ca) = &ca {
        super::check_pem(report, &path.key("ca"), ca, super::Pem::Certificate);
    }
    Some(RedisTls {
        server_name,
        ca: ca.map(Into::into),
        verify,
    })
}

/// `redis://[user[:password]@]host[:port][/database]`, the same with `rediss`, with several hosts for `+cluster`, and with hosts and the
/// master's name for `+sentinel`; or `unix:/path[?db=1]`.
fn parse(text: &str) -> Result<Url, Complaint> {
    if text.starts_with("unix:") {
        return parse_unix(text);
    }
    let unknown = || {
        Complaint::new(
            format!("must begin with {}", alternatives(&SCHEMES)),
            "like redis://127.0.0.1:6379/0",
        )
    };
    let (scheme, rest) = text.split_once("://").ok_or_else(unknown)?;
    let (base, kind) = scheme.split_once('+').unwrap_or((scheme, ""));
    let tls = match base {
        "redis" | "valkey" => false,
        "rediss" | "valkeys" => true,
        _ => return Err(unknown()),
    };
    let (user, rest) = match rest.rsplit_once('@') {
        Some((user, rest)) => (Some(user), rest),
        None => (None, rest),
    };
    let (username, password) = match user.map(|user| user.split_once(':').unwrap_or((user, ""))) {
        Some((name, password)) => (decoded(name)?, decoded(password)?),
        None => (None, None),
    };
    let (hosts, rest) = rest.split_once('/').unwrap_or((rest, ""));
    if rest.contains(['?', '#']) || hosts.contains(['?', '#']) {
        return Err(Complaint::new(
            "must not have a query",
            "options have keys of their own",
        ));
    }
    let default_port = if kind == "sentinel" { 26379 } else { 6379 };
    let mut servers = Vec::new();
    for host in hosts.split(',') {
        servers.push(host_or_address(host, default_port)?);
    }
    let several = servers.len() > 1;
    let (deployment, database) = match kind {
        "" if several => {
            return Err(Complaint::new(
                "must have one host",
                "for several there are redis+sentinel:// and redis+cluster://",
            ));
        }
        "" => match servers.pop() {
            Some(server) => (Deployment::Single(server), rest),
            None => return Err(unknown()),
        },
        "sentinel" => {
            let (master, database) = rest.split_once('/').unwrap_or((rest, ""));
            if master.is_empty() {
                return Err(Complaint::new(
                    "must name the master that the sentinels watch",
                    "like redis+sentinel://10.0.0.1:26379,10.0.0.2:26379/mymaster",
                ));
            }
            let master = master.to_owned();
            (
                Deployment::Sentinel {
                    sentinels: servers,
                    master,
                },
                database,
            )
        }
        "cluster" => {
            if !matches!(rest, "" | "0") {
                return Err(Complaint::new("must not name a database", "Redis Cluster has only one"));
            }
            (Deployment::Cluster(servers), "")
        }
        _ => return Err(unknown()),
    };
    Ok(Url {
        deployment,
        tls,
        username,
        password,
        database: database_number(database)?,
    })
}

fn parse_unix(text: &str) -> Result<Url, Complaint> {
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    let database = match query {
        "" => "",
        query => query.strip_prefix("db=").ok_or_else(|| {
            Complaint::new(
                "must have no other query than the database",
                "like unix:/run/redis/redis.sock?db=1",
            )
        })?,
    };
    match crate::config::address::server_address(path)? {
        server @ ServerAddress::Unix(_) => Ok(Url {
            deployment: Deployment::Single(server),
            tls: false,
            username: None,
            password: None,
            database: database_number(database)?,
        }),
        ServerAddress::Tcp { .. } => Err(Complaint::new("must have an absolute path behind `unix:`", "")),
    }
}

fn database_number(text: &str) -> Result<u32, Complaint> {
    if text.is_empty() {
        return Ok(0);
    }
    match text.parse() {
        Ok(number) if number < MAX_DATABASE => Ok(number),
        _ => Err(Complaint::new(
            "must have the number of a database behind the host",
            "like redis://127.0.0.1:6379/0",
        )),
    }
}

fn decoded(text: &str) -> Result<Option<String>, Complaint> {
    match percent_decode_str(text).decode_utf8() {
        Ok(text) if text.is_empty() => Ok(None),
        Ok(text) => Ok(Some(text.into_owned())),
        Err(_) => Err(Complaint::new("must have a user and password in UTF-8", "")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> ServerAddress {
        let host = host.to_owned();
        ServerAddress::Tcp { host, port }
    }

    #[test]
    fn urls_of_all_kinds() {
        let cases = [
            ("redis://h", Deployment::Single(tcp("h", 6379)), false, 0),
            ("rediss://h:1/3", Deployment::Single(tcp("h", 1)), true, 3),
            ("redis://[::1]:7", Deployment::Single(tcp("::1", 7)), false, 0),
            (
                "redis+cluster://a:1,b",
                Deployment::Cluster(vec![tcp("a", 1), tcp("b", 6379)]),
                false,
                0,
            ),
            (
                "rediss+sentinel://a,b:2/main/4",
                Deployment::Sentinel {
                    sentinels: vec![tcp("a", 26379), tcp("b", 2)],
                    master: "main".to_owned(),
                },
                true,
                4,
            ),
            (
                "unix:/run/r.sock?db=2",
                Deployment::Single(ServerAddress::Unix("/run/r.sock".into())),
                false,
                2,
            ),
        ];
        for (text, deployment, tls, database) in cases {
            let url = parse(text).unwrap();
            assert_eq!(
                (url.deployment, url.tls, url.database),
                (deployment, tls, database),
                "{text}"
            );
        }
    }

    #[test]
    fn users_and_passwords() {
        for (text, username, password) in [
            ("redis://h", None, None),
            ("redis://me@h", Some("me"), None),
            ("redis://:p%40ss@h", None, Some("p@ss")),
            ("redis://me:a:b@h", Some("me"), Some("a:b")),
        ] {
            let url = parse(text).unwrap();
            assert_eq!(
                (url.username.as_deref(), url.password.as_deref()),
                (username, password),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_url() {
        for text in [
            "http://h",
            "redis://",
            "redis:h",
            "redis://h/x",
            "redis://a,b",
            "redis://h?db=1",
            "redis+sentinel://h",
            "redis+x://h",
            "redis+cluster://h/1",
            "unix:run",
            "unix:/run/r?x=1",
            "redis://h:0",
            "redis://%ff@h",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let password = Password::Text(Secret::new("hunter2".to_owned()));
        assert!(!format!("{password:?}").contains("hunter2"));
    }
}
