//! `admin`: who may purge and look inside.

use std::net::SocketAddr;

use crate::config::diagnostic::KeyPath;
use crate::config::file::FileConfig;
use crate::config::report::Report;
use crate::config::{Admin, ListenAddress, Listener, Secret};

/// A token that can be guessed is none. Random ones are longer: `openssl rand -hex 32`.
const SHORTEST_TOKEN: usize = 16;

const TOKEN_RULE: &str = "must be a token of at least 16 letters, digits, - . _ ~ + / and =";

pub fn resolve(
    file: &FileConfig,
    report: &mut Report,
    listeners: &[Listener],
    metrics: Option<SocketAddr>,
) -> Option<Admin> {
    let typed = file.admin.as_ref()?;
    let path = KeyPath::root().key("admin");
    let (listen_path, file_path, token_path) = (path.key("listen"), path.key("token_file"), path.key("token"));
    let listen = typed.listen.as_ref().map(|listen| listen.0);
    match listen {
        None => report.key(&listen_path, "is missing", "like 127.0.0.1:9191"),
        Some(listen) if !listen.ip().is_loopback() && typed.token_file.is_none() && typed.token.is_none() => {
            report.key(
                &file_path,
                "is missing",
                "beyond loopback, whoever reaches the listener could purge everything",
            );
        }
        Some(_) => {}
    }
    // Port 0 is another port each time.
    if let Some(listen) = listen.filter(|listen| listen.port() != 0) {
        let address = ListenAddress::Tcp(listen);
        if listeners.iter().any(|listener| listener.address == address) {
            report.value(
                &listen_path,
                "must not be the address of a listener",
                "choose another port",
            );
        } else if metrics == Some(listen) {
            report.value(
                &listen_path,
                "must not be the address of metrics",
                "choose another port",
            );
        }
    }
    if typed.token_file.is_some() && typed.token.is_some() {
        report.key(&token_path, "has no effect beside token_file", "keep one of them");
    }
    let token = match (&typed.token_file, &typed.token) {
        (Some(name), _) => match super::read_limited(std::path::Path::new(name)) {
            Ok(text) if is_token(text.trim()) => Some(Secret::new(text.trim())),
            Ok(_) => {
                report.value(
                    &file_path,
                    "must be a file with a token of at least 16 letters, digits, - . _ ~ + / and =",
                    "",
                );
                None
            }
            Err(error) => {
                let what = format!("must be a file that can be read ({})", error.kind());
                report.value(&file_path, what, "");
                None
            }
        },
        (None, Some(token)) if is_token(token) => Some(Secret::new(token)),
        (None, Some(_)) => {
            // The value is not shown: it may be nearly right.
            report.key(&token_path, TOKEN_RULE, "like the output of openssl rand -hex 32");
            None
        }
        (None, None) => None,
    };
    Some(Admin { listen: listen?, token })
}

/// `b64token` (RFC 6750 §2.1), and not too short.
fn is_token(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    text.len() >= SHORTEST_TOKEN
        && !body.is_empty()
        && body
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b'+' | b'/'))
}
