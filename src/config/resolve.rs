//! What was typed → what is used: defaults, and the rules between keys.
//!
//! Always answers a configuration, filled with defaults where something is wrong; it counts only if nothing was
//! reported.

mod admin;
mod cache;
mod concurrency;
mod failing;
mod invalidate;
mod limit;
mod listener;
mod planned;
mod redis;
mod route;
mod upstream;
mod warm;

use std::num::NonZero;
use std::path::Path;
use std::time::Duration;

use super::diagnostic::KeyPath;
use super::file::shape::Switch;
use super::file::{AccessFormatName, FileAccessLog, FileConfig, FileLog, FileProcess, LevelName, TlsVersionName};
use super::report::Report;
use super::{
    AccessFormat, AccessLog, Config, Level, ListenAddress, Listener, Log, LogPath, Server, Shown, TlsVersion, defaults,
};

/// Applies every default and checks every rule.
pub fn resolve(file: &FileConfig, report: &mut Report) -> Config {
    let root = KeyPath::root();
    let trusted_path = root.key("trusted_proxies");
    let mut trusted_proxies = Vec::new();
    if let Some(list) = &file.trusted_proxies {
        for (path, network) in list.under(&trusted_path) {
            if network.0.prefix_len() == 0 {
                report.warn(
                    &path,
                    "everybody may tell us the client's address, and walk around allow and deny",
                    "name the proxies in front",
                );
            }
            trusted_proxies.push(network.0);
        }
    }
    if trusted_proxies.is_empty() {
        listener::refuse_proxy_protocol(file, report);
    }
    let listeners = listener::resolve(file, report);
    let metrics = metrics(file, report, &listeners);
    let admin = admin::resolve(file, report, &listeners, metrics);
    let pools = upstream::resolve(file, report);
    let cache = cache::resolve(file.cache.as_ref(), report);
    let mut limits = limit::Limits::new(file, report);
    let routes = route::resolve(file, report, &pools, cache.memory.size, &mut limits);
    let rate_limits = limits.finish(file, report);
    let upstreams = pools.upstreams.iter().map(|upstream| &*upstream.name);
    let concurrency = concurrency::resolve(file, report, upstreams);
    let log = log(file.log.as_ref(), report, &root.key("log"));
    let server = server(file.server.as_ref());
    planned::check(file, report);
    Config {
        listeners,
        trusted_proxies,
        upstreams: pools.upstreams,
        routes,
        rate_limits,
        concurrency,
        cache,
        metrics,
        admin,
        log,
        server,
        shown: Shown::default(),
    }
}

fn metrics(file: &FileConfig, report: &mut Report, listeners: &[Listener]) -> Option<std::net::SocketAddr> {
    let path = KeyPath::root().key("metrics").key("listen");
    let address = match &file.metrics {
        Some(Switch::Off) => return None,
        None | Some(Switch::On) => defaults::METRICS,
        Some(Switch::With(metrics)) => metrics.listen.as_ref().map_or(defaults::METRICS, |listen| listen.0),
    };
    let is_taken = listeners
        .iter()
        .any(|listener| listener.address == ListenAddress::Tcp(address));
    // Port 0 is another port each time.
    if is_taken && address.port() != 0 {
        report.value(&path, "must not be the address of a listener", "choose another port");
    }
    Some(address)
}

fn log(log: Option<&FileLog>, report: &mut Report, path: &KeyPath) -> Log {
    let level = match log.and_then(|log| log.level) {
        Some(LevelName::Error) => Level::Error,
        Some(LevelName::Warn) => Level::Warn,
        None | Some(LevelName::Info) => Level::Info,
        Some(LevelName::Debug) => Level::Debug,
        Some(LevelName::Trace) => Level::Trace,
    };
    let access = match log.and_then(|log| log.access.as_ref()) {
        Some(Switch::Off) => None,
        None | Some(Switch::On) => Some(access_log(&FileAccessLog::default(), report, path)),
        Some(Switch::With(access)) => Some(access_log(access, report, &path.key("access"))),
    };
    Log { level, access }
}

fn access_log(access: &FileAccessLog, report: &mut Report, path: &KeyPath) -> AccessLog {
    if access.path.as_deref() == Some("") {
        report.value(&path.key("path"), "must be stdout, stderr or a file", "");
    }
    AccessLog {
        format: match access.format {
            None | Some(AccessFormatName::Json) => AccessFormat::Json,
            Some(AccessFormatName::Combined) => AccessFormat::Combined,
        },
        path: match access.path.as_deref() {
            None | Some("stdout") => LogPath::Stdout,
            Some("stderr") => LogPath::Stderr,
            Some(path) => LogPath::File(path.into()),
        },
        sample: access.sample.as_ref().map_or(1.0, |sample| sample.0),
        slow: access.slow.as_ref().map_or(Some(defaults::SLOW), |slow| slow.0),
    }
}

fn server(server: Option<&FileProcess>) -> Server {
    let cores = || std::thread::available_parallelism().map_or(1, NonZero::get);
    let duration = |value: Option<Duration>, default| value.unwrap_or(default);
    let threads = server
        .and_then(|server| server.threads.as_ref())
        .and_then(|threads| threads.0);
    let delay = server
        .and_then(|server| server.shutdown_delay.as_ref())
        .map(|delay| delay.0);
    let grace = server
        .and_then(|server| server.shutdown_grace.as_ref())
        .map(|grace| grace.0);
    let stream = server
        .and_then(|server| server.stream_grace.as_ref())
        .map(|grace| grace.0);
    Server {
        threads: threads.unwrap_or_else(cores),
        shutdown_delay: duration(delay, defaults::SHUTDOWN_DELAY),
        shutdown_grace: duration(grace, defaults::SHUTDOWN_GRACE),
        stream_grace: duration(stream, defaults::STREAM_GRACE),
    }
}

fn tls_version(name: Option<TlsVersionName>) -> TlsVersion {
    match name {
        None | Some(TlsVersionName::Tls12) => TlsVersion::Tls12,
        Some(TlsVersionName::Tls13) => TlsVersion::Tls13,
    }
}

/// Reports a duration of nothing, where something has to happen within it.
fn positive(report: &mut Report, path: &KeyPath, duration: Option<Duration>) {
    if duration == Some(Duration::ZERO) {
        report.value(path, "must be greater than 0", "");
    }
}

/// What the names of routes and upstreams must be: they stand in logs, metrics and key paths.
const NAME_RULE: &str = "must be a name of up to 64 letters, digits, - _ and .";

fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// A PEM file is read whole; one beyond this (bytes) holds no certificates.
const MAX_PEM: u64 = 4 << 20;

/// What a PEM file must hold.
#[derive(Clone, Copy)]
enum Pem {
    Certificate,
    PrivateKey,
}

/// Reports a file that cannot be read or does not hold what it should.
fn check_pem(report: &mut Report, path: &KeyPath, file: &str, pem: Pem) {
    let text = match read_limited(Path::new(file)) {
        Ok(text) => text,
        Err(error) => {
            let what = format!("must be a file that can be read ({})", error.kind());
            return report.value(path, what, "");
        }
    };
    // `-----BEGIN RSA PRIVATE KEY-----` and `-----BEGIN EC PRIVATE KEY-----` are private keys too (RFC 7468 §13).
    let (mark, what) = match pem {
        Pem::Certificate => ("BEGIN CERTIFICATE-----", "must be a PEM file with a certificate"),
        Pem::PrivateKey => ("PRIVATE KEY-----", "must be a PEM file with a private key"),
    };
    if text.contains("BEGIN ENCRYPTED PRIVATE KEY-----") {
        return report.value(path, "must be a PEM file with a private key that is not encrypted", "");
    }
    if !text.contains(mark) {
        report.value(path, what, "");
    }
}

fn read_limited(file: &Path) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(file)?.take(MAX_PEM).read_to_string(&mut text)?;
    Ok(text)
}
