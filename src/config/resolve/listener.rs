use std::collections::HashSet;
use std::path::PathBuf;

use super::{Pem, check_pem, tls_version};
use crate::config::diagnostic::KeyPath;
use crate::config::file::{FileCertificate, FileConfig, FileListener, FileListenerTls};
use crate::config::report::Report;
use crate::config::{Certificate, ListenAddress, Listener, ListenerTls};

pub fn resolve(file: &FileConfig, report: &mut Report) -> Vec<Listener> {
    let root = KeyPath::root();
    let (short, long) = (root.key("listen"), root.key("listeners"));
    match (&file.listen, &file.listeners) {
        (Some(_), Some(_)) => {
            report.key(
                &short,
                "is the short form of listeners, which are there too",
                "keep one of them",
            );
        }
        (None, None) if !report.is_broken(&short) && !report.is_broken(&long) => {
            report.key(&short, "is missing", "write listen: 0.0.0.0:8080, or listeners");
        }
        _ => {}
    }
    if let Some(listen) = &file.listen {
        return vec![plain(listen.0.clone())];
    }
    let mut listeners: Vec<Listener> = Vec::new();
    let mut addresses = HashSet::new();
    if let Some(list) = &file.listeners {
        if list.0.is_empty() {
            report.value(&long, "must have at least one listener", "");
        }
        for (path, typed) in list.under(&long) {
            let Some(listener) = listener(typed, report, &path) else {
                continue;
            };
            if !is_any_port(&listener.address) && !addresses.insert(listener.address.clone()) {
                report.value(&path.key("address"), "must not be the address of another listener", "");
            }
            listeners.push(listener);
        }
    }
    listeners
}

/// A listener for HTTP/1.1 without TLS.
fn plain(address: ListenAddress) -> Listener {
    Listener {
        address,
        redirect_to_https: false,
        http2: false,
        proxy_protocol: false,
        tls: None,
    }
}

/// Reports every listener that would believe PROXY headers, when there is nobody to be believed.
pub fn refuse_proxy_protocol(file: &FileConfig, report: &mut Report) {
    let root = KeyPath::root();
    if report.is_broken(&root.key("trusted_proxies")) {
        return;
    }
    let path = root.key("listeners");
    if let Some(listeners) = &file.listeners {
        for (path, listener) in listeners.under(&path) {
            if listener.proxy_protocol == Some(true) {
                report.key(
                    &path.key("proxy_protocol"),
                    "needs trusted_proxies",
                    "name there who sends PROXY headers, like \"10.0.0.0/8\"",
                );
            }
        }
    }
}

fn is_any_port(address: &ListenAddress) -> bool {
    matches!(address, ListenAddress::Tcp(address) if address.port() == 0)
}

fn listener(typed: &FileListener, report: &mut Report, path: &KeyPath) -> Option<Listener> {
    let tls = typed.tls.as_ref().map(|typed| tls(typed, report, &path.key("tls")));
    let redirect_to_https = typed.redirect_to_https.unwrap_or(false);
    if redirect_to_https && tls.is_some() {
        report.key(
            &path.key("redirect_to_https"),
            "makes no sense on a listener with tls",
            "set it on the plain listener",
        );
    }
    let Some(address) = &typed.address else {
        report.key(&path.key("address"), "is missing", "like 0.0.0.0:8080");
        return None;
    };
    Some(Listener {
        address: address.0.clone(),
        redirect_to_https,
        http2: typed.http2.unwrap_or(tls.is_some()),
        proxy_protocol: typed.proxy_protocol.unwrap_or(false),
        tls,
    })
}

fn tls(typed: &FileListenerTls, report: &mut Report, path: &KeyPath) -> ListenerTls {
    let certificates_path = path.key("certificates");
    let mut certificates = Vec::new();
    match &typed.certificates {
        None => report.key(
            &certificates_path,
            "is missing",
            "like [{ cert: /etc/forebay/example.pem, key: /etc/forebay/example.key }]",
        ),
        Some(list) if list.0.is_empty() => {
            report.value(&certificates_path, "must have at least one certificate", "");
        }
        Some(list) => {
            for (path, typed) in list.under(&certificates_path) {
                certificates.extend(certificate(typed, report, &path));
            }
        }
    }
    ListenerTls {
        certificates,
        min_version: tls_version(typed.min_version),
        hsts: typed.hsts.as_ref().map(|hsts| hsts.0),
    }
}

pub fn certificate(typed: &FileCertificate, report: &mut Report, path: &KeyPath) -> Option<Certificate> {
    let mut file = |key: &str, typed: &Option<String>, pem| match typed {
        Some(file) => {
            check_pem(report, &path.key(key), file, pem);
            Some(PathBuf::from(file))
        }
        None => {
            report.key(&path.key(key), "is missing", "the path of a PEM file");
            None
        }
    };
    let cert = file("cert", &typed.cert, Pem::Certificate);
    let key = file("key", &typed.key, Pem::PrivateKey);
    Some(Certificate { cert: cert?, key: key? })
}
