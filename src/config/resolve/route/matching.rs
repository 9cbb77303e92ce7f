use http::Method;

use crate::config::address::is_host_name;
use crate::config::diagnostic::KeyPath;
use crate::config::file::FileMatch;
use crate::config::report::Report;
use crate::config::{HostPattern, Match, PathTemplate};
use crate::message::{is_field_value, is_token};

/// Checks the conditions of a route.
pub fn resolve(typed: &FileMatch, report: &mut Report, path: &KeyPath) -> Match {
    let matches = Match {
        hosts: hosts(typed, report, &path.key("host")),
        path: template(typed.path.as_deref(), report, &path.key("path")),
        path_prefix: template(typed.path_prefix.as_deref(), report, &path.key("path_prefix")),
        path_suffix: suffixes(typed, report, &path.key("path_suffix")),
        methods: methods(typed, report, &path.key("methods")),
        headers: headers(typed, report, &path.key("headers")),
    };
    if let (Some(whole), Some(prefix)) = (&matches.path, &matches.path_prefix)
        && whole
            .captures()
            .any(|name| prefix.captures().any(|other| other == name))
    {
        report.key(
            &path.key("path_prefix"),
            "captures a name that path captures, too",
            "choose another name",
        );
    }
    matches
}

fn hosts(typed: &FileMatch, report: &mut Report, path: &KeyPath) -> Vec<HostPattern> {
    let mut hosts = Vec::new();
    let typed = typed.host.as_ref().map(|host| host.under(path)).unwrap_or_default();
    for (path, host) in typed {
        // The rest of the name may end with the root's dot (RFC 1034 §3.1), which requests lose too.
        let name = host.trim_end_matches('.').to_ascii_lowercase();
        let is_literal = |name: &str| name.starts_with('[') || name.parse::<std::net::Ipv4Addr>().is_ok();
        let pattern = match name.strip_prefix('*') {
            Some(rest) => {
                let below = rest.strip_prefix('.').filter(|name| is_host_name(name));
                below.map(|_| HostPattern::Wildcard(rest.to_owned()))
            }
            None if is_host_name(&name) || (is_literal(&name) && !name.contains("]:")) => {
                Some(HostPattern::Exact(name))
            }
            None => None,
        };
        match pattern {
            Some(pattern) => hosts.push(pattern),
            None => report.value(
                &path,
                "must be a host name without a port",
                "like api.example.com or \"*.example.com\"",
            ),
        }
    }
    hosts
}

fn template(typed: Option<&str>, report: &mut Report, path: &KeyPath) -> Option<PathTemplate> {
    match PathTemplate::parse(typed?) {
        Ok(template) => Some(template),
        Err(complaint) => {
            report.complaint(path, complaint);
            None
        }
    }
}

fn suffixes(typed: &FileMatch, report: &mut Report, path: &KeyPath) -> Vec<String> {
    let mut suffixes = Vec::new();
    let typed = typed
        .path_suffix
        .as_ref()
        .map(|suffix| suffix.under(path))
        .unwrap_or_default();
    for (path, suffix) in typed {
        let is_good = !suffix.is_empty()
            && suffix
                .bytes()
                .all(|b| b.is_ascii_graphic() && !matches!(b, b'?' | b'#'));
        if !is_good {
            report.value(&path, "must be the end of a path", "like .css");
        }
        suffixes.push(suffix.clone());
    }
    suffixes
}

fn methods(typed: &FileMatch, report: &mut Report, path: &KeyPath) -> Vec<Method> {
    let mut methods = Vec::new();
    let Some(typed) = &typed.methods else {
        return methods;
    };
    if typed.0.is_empty() {
        report.value(path, "must have at least one method", "remove it to match all");
    }
    for (path, name) in typed.under(path) {
        // Methods are case-sensitive (RFC 9110 §9.1), and all that are registered are in upper case.
        if is_token(name.as_bytes()) && name.bytes().any(|b| b.is_ascii_lowercase()) {
            report.value(&path, "must be in upper case", "like GET");
        } else if matches!(name.as_str(), "TRACE" | "CONNECT") {
            report.value(
                &path,
                "must be a method that is ever served",
                "TRACE and CONNECT always get 405",
            );
        } else {
            match Method::from_bytes(name.as_bytes()) {
                Ok(method) => methods.push(method),
                Err(_) => report.value(&path, "must be a method", "like GET"),
            }
        }
    }
    methods
}

fn headers(typed: &FileMatch, report: &mut Report, path: &KeyPath) -> Vec<(String, String)> {
    let mut headers = Vec::new();
    let Some(typed) = &typed.headers else {
        return headers;
    };
    for (path, name, value) in typed.under(path) {
        let name = name.to_ascii_lowercase();
        if !is_token(name.as_bytes()) {
            report.key(&path, "must be a field name", "letters, digits and hyphens");
        } else if name == "host" {
            report.key(&path, "cannot be matched as a field", "use match.host");
        } else if matches!(name.as_str(), "content-length" | "transfer-encoding" | "connection") {
            report.key(&path, "cannot be matched: it belongs to the connection", "");
        }
        if !is_field_value(value.0.as_bytes()) || value.0.trim() != value.0 {
            report.value(
                &path,
                "must be a field value",
                "without control characters, and no space at its ends",
            );
        }
        headers.push((name, value.0.clone()));
    }
    headers
}
