use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use super::listener::certificate;
use super::{NAME_RULE, Pem, check_pem, failing, is_name, positive, read_limited, tls_version};
use crate::config::address::{UpstreamUrl, host_of_authority, is_host_name};
use crate::config::diagnostic::{KeyPath, alternatives, nearest};
use crate::config::file::shape::ShortOr;
use crate::config::file::{
    BalanceName, FileConfig, FileServer, FileSticky, FileUpstream, ProxyVersionName, SameSiteName,
};
use crate::config::report::Report;
use crate::config::servers_file;
use crate::config::{
    Balance, Dns, HashKey, HostPolicy, ProxyVersion, Role, SameSite, Secret, ServerAddress, ServerSource, Sticky,
    Timeouts, TlsVersion, Upstream, UpstreamServer, UpstreamTls, Verify, defaults,
};
use crate::message::is_token;

/// More idle connections to one server than it has ports for.
const MAX_KEEPALIVE: u32 = 65_535;
/// More requests than this are not waiting but lost.
const MAX_QUEUE: u32 = 1_000_000;
/// A message does not list more names than this.
const MAX_NAMED: usize = 20;

/// The upstreams, and what routes may call them.
pub struct Pools {
    pub upstreams: Vec<Upstream>,
    /// Every name in the file, also of upstreams that are wrong.
    names: HashMap<String, Option<usize>>,
    /// Names may be missing, because something about all of them was reported.
    is_partial: bool,
}

impl Pools {
    /// Index of the upstream that a route names. Reports an unknown name.
    pub fn find(&self, report: &mut Report, path: &KeyPath, name: &str) -> Option<usize> {
        if let Some(index) = self.names.get(name) {
            return *index;
        }
        if !self.is_partial && !report.is_full() {
            let mut known: Vec<&str> = self.names.keys().map(String::as_str).collect();
            known.sort_unstable();
            let cure = match nearest(name, known.iter().copied()) {
                Some(meant) => format!("did you mean {meant}?"),
                None if known.len() > MAX_NAMED => String::new(),
                None => format!("known: {}", alternatives(&known)),
            };
            report.value(path, "must be one of upstreams", cure);
        }
        None
    }

    /// Index of the upstream that needs no name.
    pub fn only(&self) -> Only {
        let mut indexes = self.names.values();
        match (indexes.next(), indexes.next()) {
            (Some(Some(index)), None) if !self.is_partial => Only::One(*index),
            (Some(_), Some(_)) if !self.is_partial => Only::Several,
            _ => Only::Unknown,
        }
    }
}

/// How many upstreams there are.
pub enum Only {
    One(usize),
    Several,
    /// Something was reported, so nothing can be said.
    Unknown,
}

pub fn resolve(file: &FileConfig, report: &mut Report) -> Pools {
    let root = KeyPath::root();
    let (short, long) = (root.key("upstream"), root.key("upstreams"));
    let mut pools = Pools {
        upstreams: Vec::new(),
        names: HashMap::new(),
        is_partial: report.is_broken(&short) || report.is_broken(&long),
    };
    match (&file.upstream, &file.upstreams) {
        (Some(_), Some(_)) => {
            report.key(
                &short,
                "is the short form of upstreams, which are there too",
                "keep one of them",
            );
        }
        (None, None) if !pools.is_partial => {
            report.key(
                &short,
                "is missing",
                "write upstream: http://127.0.0.1:3000, or upstreams",
            );
            pools.is_partial = true;
        }
        _ => {}
    }
    if let Some(upstreams) = &file.upstreams {
        if upstreams.0.is_empty() {
            report.value(&long, "must have at least one upstream", "");
            pools.is_partial = true;
        }
        for (name, typed) in &upstreams.0 {
            let path = long.key(name);
            if !is_name(name) {
                report.key(&path, NAME_RULE, "");
            }
            let index = typed.as_ref().map(|typed| {
                pools.upstreams.push(upstream(name, typed, report, &path));
                pools.upstreams.len() - 1
            });
            pools.names.insert(name.clone(), index);
        }
    } else if let Some(url) = &file.upstream {
        pools.upstreams.push(from_url(&url.0));
        pools.names.insert("default".to_owned(), Some(0));
    }
    pools
}

/// The short form.
fn from_url(url: &UpstreamUrl) -> Upstream {
    let tls = url.server_name.as_ref().map(|server_name| UpstreamTls {
        server_name: server_name.clone(),
        ca: None,
        verify: Verify::Certificate,
        min_version: TlsVersion::Tls12,
        certificate: None,
    });
    Upstream {
        tls,
        ..Upstream::new("default", vec![UpstreamServer::new(url.address.clone())])
    }
}

fn upstream(name: &str, typed: &FileUpstream, report: &mut Report, path: &KeyPath) -> Upstream {
    let servers = servers(typed, report, path);
    let host = host(typed, report, path);
    let tls = tls(typed, &servers, &host, report, path);
    let dns_refresh = typed.dns_refresh.as_ref().map(|refresh| refresh.0);
    positive(report, &path.key("dns_refresh"), dns_refresh);
    let dns_servers = typed.dns_servers.as_ref();
    let keepalive = typed.keepalive.unwrap_or(defaults::KEEPALIVE);
    if keepalive > MAX_KEEPALIVE {
        report.value(&path.key("keepalive"), format!("must be at most {MAX_KEEPALIVE}"), "");
    }
    let keepalive_idle = typed.keepalive_idle.as_ref().map(|idle| idle.0);
    positive(report, &path.key("keepalive_idle"), keepalive_idle);
    let queue = typed.queue.unwrap_or(defaults::QUEUE);
    if queue > MAX_QUEUE {
        report.value(&path.key("queue"), format!("must be at most {MAX_QUEUE}"), "");
    }
    let queue_timeout = typed.queue_timeout.as_ref().map(|timeout| timeout.0);
    positive(report, &path.key("queue_timeout"), queue_timeout);
    let timeouts = timeouts(typed, report, path);
    Upstream {
        name: name.into(),
        servers,
        servers_file: typed.servers_file.as_ref().map(Into::into),
        dns: Dns {
            refresh: dns_refresh.unwrap_or(defaults::DNS_REFRESH),
            servers: dns_servers.map_or_else(Vec::new, |list| {
                list.0.iter().flatten().map(|server| server.0).collect()
            }),
        },
        host,
        tls,
        http2: typed.http2.unwrap_or(false),
        balance: balance(typed, report, path),
        sticky: sticky(typed.sticky.as_ref(), report, &path.key("sticky")),
        proxy_protocol: proxy_protocol(typed, report, path),
        slow_start: typed.slow_start.as_ref().map_or(Duration::ZERO, |time| time.0),
        queue: queue as usize,
        queue_timeout: queue_timeout.unwrap_or(defaults::QUEUE_TIMEOUT),
        keepalive: keepalive as usize,
        keepalive_idle: keepalive_idle.unwrap_or(defaults::KEEPALIVE_IDLE),
        health_check: typed
            .health_check
            .as_ref()
            .map(|typed| failing::health_check(typed, report, &path.key("health_check"))),
        outlier: typed
            .outlier
            .as_ref()
            .map(|typed| failing::outlier(typed, report, &path.key("outlier"))),
        circuit_breaker: typed
            .circuit_breaker
            .as_ref()
            .map(|typed| failing::circuit_breaker(typed, report, &path.key("circuit_breaker"))),
        retry: typed
            .retry
            .as_ref()
            .map(|typed| failing::retry(typed, &timeouts, report, &path.key("retry"))),
        timeouts,
    }
}

fn servers(typed: &FileUpstream, report: &mut Report, path: &KeyPath) -> Vec<UpstreamServer> {
    if let Some(file) = &typed.servers_file {
        check_servers_file(file, report, &path.key("servers_file"));
    }
    let path = path.key("servers");
    let mut servers: Vec<UpstreamServer> = Vec::new();
    let mut addresses = HashSet::new();
    let Some(list) = &typed.servers else {
        if typed.servers_file.is_none() {
            report.key(&path, "is missing", "like [\"127.0.0.1:3000\"]");
        }
        return servers;
    };
    if list.0.is_empty() && typed.servers_file.is_none() {
        report.value(&path, "must have at least one server", "");
    }
    for (path, ShortOr(typed)) in list.under(&path) {
        let Some(server) = server(typed, report, &path) else {
            continue;
        };
        if !addresses.insert(server.address.clone()) {
            // A server is a text or a mapping with an `address`.
            let address = path.key("address");
            let is_text = report.root().locate(&address).node.is_none();
            let path = if is_text { path } else { address };
            report.value(&path, "must not be there twice", "give it a weight instead");
        }
        servers.push(server);
    }
    let has_main = list
        .under(&path)
        .any(|(_, ShortOr(server))| server.backup != Some(true));
    if !has_main && !list.0.is_empty() && list.0.iter().all(Option::is_some) {
        report.value(&path, "must have a server that is not a backup", "");
    }
    servers
}

/// The file may change at any time; what it says now must be right.
fn check_servers_file(file: &str, report: &mut Report, path: &KeyPath) {
    match read_limited(Path::new(file)) {
        Err(error) => report.value(path, format!("must be a file that can be read ({})", error.kind()), ""),
        Ok(text) => {
            if let Err(error) = servers_file::parse(&text) {
                report.value(path, format!("must be a file of servers: line {error}"), error.cure());
            }
        }
    }
}

fn server(typed: &FileServer, report: &mut Report, path: &KeyPath) -> Option<UpstreamServer> {
    let weight = typed.weight.unwrap_or(1);
    if !(1..=UpstreamServer::MAX_WEIGHT).contains(&weight) {
        report.value(
            &path.key("weight"),
            format!("must be from 1 to {}", UpstreamServer::MAX_WEIGHT),
            "remove the server to send it nothing",
        );
    }
    if typed.max_connections == Some(0) {
        report.value(&path.key("max_connections"), "must be at least 1", "");
    }
    match &typed.address {
        Some(address) => Some(UpstreamServer {
            address: address.0.clone(),
            weight,
            role: match typed.backup {
                Some(true) => Role::Backup,
                None | Some(false) => Role::Main,
            },
            max_connections: typed.max_connections,
        }),
        None => {
            report.key(&path.key("address"), "is missing", "like 127.0.0.1:3000");
            None
        }
    }
}

fn sticky(typed: Option<&FileSticky>, report: &mut Report, path: &KeyPath) -> Option<Sticky> {
    let typed = typed?;
    let cookie = path.key("cookie");
    match &typed.cookie {
        None => report.key(&cookie, "is missing", "like forebay_server"),
        // A cookie's name is a token (RFC 6265 §4.1.1).
        Some(name) if !is_token(name.as_bytes()) => report.value(&cookie, "must be the name of a cookie", ""),
        Some(_) => {}
    }
    let ttl = typed.ttl.as_ref().map(|ttl| ttl.0);
    positive(report, &path.key("ttl"), ttl);
    let site_path = typed.path.as_deref().unwrap_or("/");
    let is_path = |byte: u8| byte.is_ascii_graphic() && byte != b';';
    if !(site_path.starts_with('/') && site_path.bytes().all(is_path)) {
        report.value(&path.key("path"), "must be a path that begins with /", "");
    }
    let secure = typed.secure.unwrap_or(true);
    if typed.same_site == Some(SameSiteName::None) && !secure {
        report.value(
            &path.key("same_site"),
            "must not be none where secure is false",
            "browsers refuse such a cookie",
        );
    }
    Some(Sticky {
        cookie: typed.cookie.clone().unwrap_or_default(),
        ttl,
        secure,
        same_site: match typed.same_site {
            None | Some(SameSiteName::Lax) => SameSite::Lax,
            Some(SameSiteName::Strict) => SameSite::Strict,
            Some(SameSiteName::None) => SameSite::None,
        },
        path: site_path.to_owned(),
        secret: typed
            .secret
            .as_ref()
            .filter(|secret| !secret.is_empty())
            .map(Secret::new),
    })
}

fn proxy_protocol(typed: &FileUpstream, report: &mut Report, path: &KeyPath) -> Option<ProxyVersion> {
    let version = match typed.proxy_protocol? {
        ProxyVersionName::V1 => ProxyVersion::V1,
        ProxyVersionName::V2 => ProxyVersion::V2,
    };
    if typed.http2 == Some(true) {
        report.key(
            &path.key("proxy_protocol"),
            "makes no sense with http2",
            "a connection that clients share cannot tell the address of one; use X-Forwarded-For",
        );
    }
    Some(version)
}

fn balance(typed: &FileUpstream, report: &mut Report, path: &KeyPath) -> Balance {
    let hash_key = path.key("hash_key");
    if typed.balance != Some(BalanceName::Hash) && typed.hash_key.is_some() {
        report.warn(&hash_key, "has no effect without balance: hash", "");
    }
    match typed.balance {
        None | Some(BalanceName::RoundRobin) => Balance::RoundRobin,
        Some(BalanceName::LeastConnections) => Balance::LeastConnections,
        Some(BalanceName::LeastTime) => Balance::LeastTime,
        Some(BalanceName::Random) => Balance::Random,
        Some(BalanceName::ClientIp) => Balance::ClientIp,
        Some(BalanceName::Hash) => match &typed.hash_key {
            Some(key) => Balance::Hash(hashed(&key.0)),
            None => {
                if !report.is_broken(&hash_key) {
                    report.key(
                        &hash_key,
                        "is missing",
                        "balance: hash needs it, like \"header:X-User\"",
                    );
                }
                Balance::RoundRobin
            }
        },
    }
}

fn hashed(text: &str) -> HashKey {
    match text.split_once(':') {
        Some(("header", name)) => HashKey::Header(name.to_ascii_lowercase()),
        Some(("cookie", name)) => HashKey::Cookie(name.to_owned()),
        Some(("query", name)) => HashKey::Query(name.to_owned()),
        _ => HashKey::Path,
    }
}

fn host(typed: &FileUpstream, report: &mut Report, path: &KeyPath) -> HostPolicy {
    match typed.host.as_deref() {
        None | Some("keep") => HostPolicy::Keep,
        Some(name) => {
            if host_of_authority(name).is_none() {
                report.value(
                    &path.key("host"),
                    "must be keep, or a name to send as Host",
                    "like app.internal",
                );
            }
            HostPolicy::Send(name.to_owned())
        }
    }
}

fn tls(
    typed: &FileUpstream,
    servers: &[UpstreamServer],
    host: &HostPolicy,
    report: &mut Report,
    path: &KeyPath,
) -> Option<UpstreamTls> {
    let path = path.key("tls");
    let (typed_upstream, typed) = (typed, typed.tls.as_ref()?);
    let name_path = path.key("server_name");
    let server_name = match &typed.server_name {
        Some(name) if is_host_name(name) => name.to_ascii_lowercase(),
        Some(_) => {
            report.value(
                &name_path,
                "must be a host name",
                "like app.internal; an address cannot be sent as SNI",
            );
            String::new()
        }
        // The servers of a file may have any names.
        None => match implied_server_name(servers, host).filter(|_| typed_upstream.servers_file.is_none()) {
            Some(name) => name,
            None => {
                // Without a name nothing could be verified, and an empty one would switch verification off.
                report.key(
                    &name_path,
                    "is missing",
                    "the name in the servers' certificate, like app.internal",
                );
                String::new()
            }
        },
    };
    if let Some(ca) = &typed.ca {
        check_pem(report, &path.key("ca"), ca, Pem::Certificate);
    }
    let verify = match typed.verify {
        Some(false) => {
            report.warn(
                &path.key("verify"),
                "whoever stands between here and the servers can read and change everything",
                "name their authority in tls.ca instead",
            );
            Verify::Nothing
        }
        None | Some(true) => Verify::Certificate,
    };
    Some(UpstreamTls {
        server_name,
        ca: typed.ca.as_ref().map(Into::into),
        verify,
        min_version: tls_version(typed.min_version),
        certificate: typed
            .certificate
            .as_ref()
            .and_then(|typed| certificate(typed, report, &path.key("certificate"))),
    })
}

/// The name in `host`, or the one that all servers share.
fn implied_server_name(servers: &[UpstreamServer], host: &HostPolicy) -> Option<String> {
    if let HostPolicy::Send(authority) = host {
        let name = host_of_authority(authority).filter(|name| is_host_name(name));
        return name.map(str::to_ascii_lowercase);
    }
    let mut shared = None;
    for server in servers {
        match &server.address {
            ServerSource::Address(ServerAddress::Tcp { host, .. }) if host.parse::<IpAddr>().is_err() => match shared {
                None => shared = Some(host),
                Some(name) if name == host => {}
                Some(_) => return None,
            },
            ServerSource::Address(_) | ServerSource::Srv(_) => return None,
        }
    }
    shared.cloned()
}

fn timeouts(typed: &FileUpstream, report: &mut Report, path: &KeyPath) -> Timeouts {
    let path = path.key("timeouts");
    let typed = typed.timeouts.as_ref();
    let connect = typed.and_then(|typed| typed.connect.as_ref()).map(|connect| connect.0);
    positive(report, &path.key("connect"), connect);
    let mut limit = |key: &str, value: Option<&crate::config::file::scalar::DurationOrNever>, default| match value {
        None => Some(default),
        Some(value) => {
            positive(report, &path.key(key), value.0);
            value.0
        }
    };
    Timeouts {
        connect: connect.unwrap_or(defaults::CONNECT),
        first_byte: limit(
            "first_byte",
            typed.and_then(|t| t.first_byte.as_ref()),
            defaults::FIRST_BYTE,
        ),
        between_bytes: limit(
            "between_bytes",
            typed.and_then(|t| t.between_bytes.as_ref()),
            defaults::BETWEEN_BYTES,
        ),
        send: limit("send", typed.and_then(|t| t.send.as_ref()), defaults::SEND),
    }
}
