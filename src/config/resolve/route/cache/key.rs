use super::super::fields::CONNECTION_FIELDS;
use crate::config::diagnostic::KeyPath;
use crate::config::file::shape::List;
use crate::config::file::{CookieKey, FileKey, FileQueryKey};
use crate::config::report::Report;
use crate::config::{KeyCookies, QueryKey, QueryParameters};
use crate::key::{QueryOrder, normalise_target};
use crate::message::is_token;
use crate::transform::names::{Kind, Spelling, kind};

/// What a route, or `defaults`, says about its key. Each `None`: nothing.
#[derive(Default)]
pub struct Said {
    pub query: Option<QueryKey>,
    pub headers: Option<Vec<String>>,
    pub cookies: Option<KeyCookies>,
}

/// `keep_fields`: forwarding and override fields that are passed on whoever sends them.
pub fn read(typed: &FileKey, report: &mut Report, path: &KeyPath, keep_fields: &[String]) -> Said {
    Said {
        query: typed
            .query
            .as_ref()
            .map(|typed| query(typed, report, &path.key("query"))),
        headers: typed
            .headers
            .as_ref()
            .map(|typed| headers(typed, report, &path.key("headers"), keep_fields)),
        cookies: typed.cookies.as_ref().map(|typed| match typed {
            CookieKey::Ignore => KeyCookies::Ignore,
            CookieKey::Names(names) => KeyCookies::Named(cookies(names, report, &path.key("cookies"))),
        }),
    }
}

fn query(typed: &FileQueryKey, report: &mut Report, path: &KeyPath) -> QueryKey {
    let mut names = |key: &str, typed: &Option<List<String>>| {
        let path = path.key(key);
        typed.as_ref().map(|typed| parameters(typed, report, &path))
    };
    let parameters = match (names("ignore", &typed.ignore), names("keep", &typed.keep)) {
        (None, None) => QueryParameters::All,
        (Some(ignore), None) => QueryParameters::Ignore(ignore),
        (None, Some(keep)) => QueryParameters::Keep(keep),
        (Some(_), Some(keep)) => {
            report.key(
                &path.key("keep"),
                "must not stand beside ignore",
                "keep one of them: what is not kept is ignored",
            );
            QueryParameters::Keep(keep)
        }
    };
    if typed.keep.as_ref().is_some_and(|keep| keep.0.is_empty()) {
        report.value(
            &path.key("keep"),
            "must have at least one parameter",
            "to ignore the whole query, write ignore: [\"*\"]",
        );
    }
    let order = match typed.sort {
        Some(true) => QueryOrder::Sorted,
        None | Some(false) => QueryOrder::AsReceived,
    };
    QueryKey { parameters, order }
}

/// Patterns in the normal form of the targets that they are compared with.
fn parameters(typed: &List<String>, report: &mut Report, path: &KeyPath) -> Vec<String> {
    let mut patterns = Vec::new();
    for (path, pattern) in typed.under(path) {
        // What separates parameters and their values stands in no name. A parameter with `;` in it always counts.
        let is_good = !pattern.is_empty()
            && pattern
                .bytes()
                .all(|b| b.is_ascii_graphic() && !matches!(b, b'&' | b'=' | b';' | b'#'));
        match is_good {
            true => patterns.push(normalise_target(pattern).into_owned()),
            false => report.value(
                &path,
                "must be a parameter's name as it stands in a URL",
                "like gclid, or \"utm_*\"",
            ),
        }
    }
    patterns
}

fn cookies(typed: &List<String>, report: &mut Report, path: &KeyPath) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    if typed.0.is_empty() {
        report.value(
            path,
            "must have at least one cookie",
            "if none matters, write cookies: ignore",
        );
    }
    for (path, name) in typed.under(path) {
        // RFC 6265 §4.1.1.
        if !is_token(name.as_bytes()) {
            report.value(&path, "must be the name of a cookie", "");
        } else if names.contains(name) {
            report.value(&path, "must not be there twice", "");
        } else {
            names.push(name.clone());
        }
    }
    names
}

/// A key that names such a field says something that the upstream does not see: whoever is not trusted could have the
/// response to a request without it stored for those who are.
const NO_COPY: &str = "is removed or written anew unless keep_fields names it";

/// Whether the upstream gets a field of that (lower-case) name as it was sent only where `keep_fields` names it.
pub fn needs_keeping(name: &str) -> bool {
    match kind(name) {
        (Kind::Forwarding(_) | Kind::Override, _) => true,
        (Kind::Other | Kind::Application, _) => false,
        (_, spelling) => spelling == Spelling::Underscored,
    }
}

fn headers(typed: &List<String>, report: &mut Report, path: &KeyPath, keep_fields: &[String]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (path, name) in typed.under(path) {
        let name = name.to_ascii_lowercase();
        match refused(&name, keep_fields) {
            Some((what, cure)) => report.value(&path, what, cure),
            None if names.contains(&name) => {
                report.value(
                    &path,
                    "must not be there twice",
                    "the case of field names does not count",
                );
            }
            None => names.push(name),
        }
    }
    names
}

/// What is wrong with a field's name in a key, and the cure.
fn refused(name: &str, keep_fields: &[String]) -> Option<(&'static str, &'static str)> {
    if !is_token(name.as_bytes()) {
        return Some(("must be a field name", "letters, digits and hyphens"));
    }
    if CONNECTION_FIELDS.contains(&name) {
        return Some((
            "must not be a connection field: each side of the proxy makes its own",
            "remove it",
        ));
    }
    match kind(name).0 {
        Kind::HopByHop if name == "host" => Some(("must not be Host", "it is part of every key")),
        Kind::HopByHop | Kind::Te | Kind::MaxForwards => Some((
            "must not be a connection field: each side of the proxy makes its own",
            "remove it",
        )),
        Kind::Via | Kind::RequestId | Kind::TraceParent | Kind::TraceState => Some((
            "must not be a field that differs from request to request",
            "nothing that is stored would ever be found",
        )),
        Kind::Cookie => Some(("must not be Cookie", "name those that matter in key.cookies")),
        // Conditions and ranges are answered from the one stored response (RFC 9111 §4.3.2, RFC 9110 §14.2).
        Kind::Protected if name == "range" || name.starts_with("if-") => {
            Some(("must not be a field that the cache itself answers", "remove it"))
        }
        _ if needs_keeping(name) && !keep_fields.iter().any(|kept| kept == name) => Some((
            NO_COPY,
            "add it there, or choose a field that reaches the app as it was sent",
        )),
        _ => None,
    }
}
