//! What kind of field a name stands for, where that decides whether it is passed on.
//!
//! Names are compared as CGI and WSGI do: without case, and with `_` for `-`. `X_Forwarded_For` becomes the same variable
//! as `X-Forwarded-For` there, so what holds for the one must hold for the other.

use std::sync::LazyLock;

use crate::message::{FieldName, FieldNames, Fields};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Of one connection (RFC 9110 §7.6.1), or rebuilt by every sender: never passed on.
    HopByHop,
    /// `TE`: `trailers` is passed on anew (RFC 9110 §10.1.4).
    Te,
    /// Written anew for the upstream; `X-Forwarded-For` and its kin.
    Forwarding(Forwarding),
    /// Believed by some application in the place of the method, target, host, scheme, address or user of the request.
    Override,
    Via,
    MaxForwards,
    RequestId,
    TraceParent,
    TraceState,
    Cookie,
    /// Passed on, and `Connection` cannot take it away: routing, caching or security depends on it.
    Protected,
    /// The same, under any spelling.
    Application,
    /// Passed on.
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarding {
    /// `X-Forwarded-For`.
    For,
    /// `X-Forwarded-Proto`.
    Proto,
    /// `X-Forwarded-Host`.
    Host,
    /// `X-Forwarded-Port`.
    Port,
    /// `X-Real-IP`.
    RealIp,
    /// `Forwarded` (RFC 7239).
    Standard,
}

/// How a name is spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// As it is registered or in common use.
    Usual,
    /// With `_` where the usual name has `-`: no client sends that in good faith.
    Underscored,
}

const HOP_BY_HOP: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
];

/// [`Kind::HopByHop`] and [`Kind::Te`] as they are usually spelled.
pub(super) static OF_ONE_CONNECTION: FieldNames = FieldNames::new(&NAMES_OF_ONE_CONNECTION);

const NAMES_OF_ONE_CONNECTION: [FieldName; HOP_BY_HOP.len() + 1] = {
    let mut names = [FieldName::new("te"); HOP_BY_HOP.len() + 1];
    let mut at = 0;
    while at < HOP_BY_HOP.len() {
        names[at] = FieldName::new(HOP_BY_HOP[at]);
        at += 1;
    }
    names
};

/// Names that Forebay gives a meaning of their own.
const OWN: &[(&str, Kind)] = &[
    ("te", Kind::Te),
    ("x-forwarded-for", Kind::Forwarding(Forwarding::For)),
    ("x-forwarded-proto", Kind::Forwarding(Forwarding::Proto)),
    ("x-forwarded-host", Kind::Forwarding(Forwarding::Host)),
    ("x-forwarded-port", Kind::Forwarding(Forwarding::Port)),
    ("x-real-ip", Kind::Forwarding(Forwarding::RealIp)),
    ("forwarded", Kind::Forwarding(Forwarding::Standard)),
    ("via", Kind::Via),
    ("max-forwards", Kind::MaxForwards),
    ("x-request-id", Kind::RequestId),
    ("traceparent", Kind::TraceParent),
    ("tracestate", Kind::TraceState),
    ("cookie", Kind::Cookie),
];

/// Fields that an application, framework or server is known to believe over the request itself. Cache poisoning and
/// access bypass are built from them.
const OVERRIDE: &[&str] = &[
    // The method.
    "x-http-method",
    "x-http-method-override",
    "x-method",
    "x-method-override",
    // The target.
    "base-url",
    "http-url",
    "path-info",
    "proxy-url",
    "request-uri",
    "script-name",
    "x-accel-mapping",
    "x-http-destinationurl",
    "x-http-path-override",
    "x-invoke-output",
    "x-invoke-path",
    "x-invoke-query",
    "x-invoke-status",
    "x-matched-path",
    "x-middleware-invoke",
    "x-middleware-rewrite",
    "x-middleware-subrequest",
    "x-middleware-subrequest-id",
    "x-now-route-matches",
    "x-override-url",
    "x-proxy-url",
    "x-real-uri",
    "x-real-url",
    "x-request-uri",
    "x-request-url",
    "x-script-name",
    "x-sendfile-type",
    "x-wap-profile",
    // The host and port.
    "fastly-host",
    "forwarded-host",
    "http-host",
    "http-x-forwarded-host",
    "proxy-host",
    "x-backend-host",
    "x-client-host",
    "x-client-port",
    "x-dev-auth-host",
    "x-frontend-host",
    "x-gateway-host",
    "x-host",
    "x-host-override",
    "x-http-host",
    "x-http-host-override",
    "x-override-host",
    "x-proxy-host",
    "x-real-host",
    "x-server-name",
    "x-server-port",
    // The scheme.
    "cf-visitor",
    "cloudfront-forwarded-proto",
    "fastly-ssl",
    "front-end-https",
    "x-arr-ssl",
    "x-client-proto",
    "x-https",
    "x-proto",
    "x-scheme",
    "x-url-scheme",
];

/// The same, for who sent the request rather than what it is for.
const OVERRIDE_OF_CLIENT: &[&str] = &[
    // The client's address.
    "akamai-client-ip",
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "cf-ipcountry",
    "cf-pseudo-ipv4",
    "client-ip",
    "cloudfront-viewer-address",
    "do-connecting-ip",
    "fastly-client-ip",
    "fly-client-ip",
    "forwarded-for",
    "forwarded-for-ip",
    "forwarded-proto",
    "real-ip",
    "remote-addr",
    "true-client-ip",
    "x-appengine-remote-addr",
    "x-appengine-user-ip",
    "x-azure-clientip",
    "x-azure-socketip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-coming-from",
    "x-custom-ip-authorization",
    "x-envoy-external-address",
    "x-forward-for",
    "x-forwarder-for",
    "x-nf-client-connection-ip",
    "x-original-forwarded-for",
    "x-original-remote-addr",
    "x-originating-ip",
    "x-proxyuser-ip",
    "x-remote-addr",
    "x-remote-ip",
    "x-true-client-ip",
    "x-true-ip",
    "x-vercel-forwarded-for",
    "x-vercel-proxied-for",
    // The client's certificate (RFC 9440 §4 demands it) and user.
    "client-cert",
    "client-cert-chain",
    "remote-email",
    "remote-groups",
    "remote-name",
    "remote-user",
    "x-appengine-cron",
    "x-appengine-queuename",
    "x-authenticated-user",
    "x-client-cert",
    "x-client-verify",
    "x-remote-user",
    "x-webauth-user",
];

/// Fields of the standards and of caches that are passed on, but out of reach for `Connection`.
const PROTECTED: &[&str] = &[
    "accept",
    "age",
    "allow",
    "authentication-info",
    "authorization",
    "cache-control",
    "cache-status",
    "cache-tag",
    "date",
    "dnt",
    "early-data",
    "etag",
    "expires",
    "from",
    "grpc-encoding",
    "grpc-timeout",
    "last-event-id",
    "last-modified",
    "link",
    "location",
    "origin",
    "pragma",
    "prefer",
    "priority",
    "proxy-status",
    "range",
    "referer",
    "referrer-policy",
    "retry-after",
    "save-data",
    "server",
    "set-cookie",
    "strict-transport-security",
    "surrogate-control",
    "surrogate-key",
    "trailer",
    "user-agent",
    "vary",
    "warning",
    "www-authenticate",
    "x-accel-buffering",
    "x-accel-expires",
    "x-amzn-trace-id",
    "x-frame-options",
    "xkey",
];

/// Fields that applications use for security, some of them with `_` in good faith.
const APPLICATION: &[&str] = &[
    "api-key",
    "idempotency-key",
    "x-api-key",
    "x-auth-token",
    "x-correlation-id",
    "x-csrf-token",
    "x-requested-with",
    "x-xsrf-token",
];

/// Families of names that begin with `x-`.
const X_PREFIXES: &[(&str, Kind)] = &[
    ("x-auth-request-", Kind::Override),
    ("x-envoy-original-", Kind::Override),
    ("x-forward-", Kind::Override),
    ("x-forwarded", Kind::Override),
    ("x-forwarder-", Kind::Override),
    ("x-original-", Kind::Override),
    ("x-rewrite-", Kind::Override),
    ("x-ssl-", Kind::Override),
    ("x-content-", Kind::Protected),
];

/// The others.
const OTHER_PREFIXES: &[(&str, Kind)] = &[
    ("ssl-client-", Kind::Override),
    ("accept-", Kind::Protected),
    ("access-control-", Kind::Protected),
    ("content-", Kind::Protected),
    ("cross-origin-", Kind::Protected),
    ("if-", Kind::Protected),
    ("sec-", Kind::Protected),
];

/// What the name stands for, and whether it is spelled so.
pub fn kind(name: &str) -> (Kind, Spelling) {
    let kind = TABLE.kind(name.as_bytes());
    let spelling = match kind {
        Kind::Application | Kind::Other => Spelling::Usual,
        _ if name.contains('_') => Spelling::Underscored,
        _ => Spelling::Usual,
    };
    (kind, spelling)
}

/// Whether a field says what the request is for, where it is believed: its method, target, host, scheme or port. Then
/// it is part of what a response is stored under.
pub fn tells_target(name: &str) -> bool {
    match kind(name).0 {
        Kind::Forwarding(Forwarding::Proto | Forwarding::Host | Forwarding::Port) => true,
        Kind::Override => !OVERRIDE_OF_CLIENT.iter().any(|known| is_spelling_of(name, known)),
        _ => false,
    }
}

/// Without case, and `_` for `-`.
fn is_spelling_of(name: &str, known: &str) -> bool {
    let same = |(a, b): (u8, u8)| a.eq_ignore_ascii_case(&b) || (a == b'_' && b == b'-');
    name.len() == known.len() && name.bytes().zip(known.bytes()).all(same)
}

/// Names that `Connection` takes away beside the known ones (RFC 9110 §7.6.1): only such as nothing depends on.
#[derive(Debug)]
pub struct Nominated<'a>(&'a Fields);

impl<'a> Nominated<'a> {
    pub fn of(fields: &'a Fields) -> Self {
        Self(fields)
    }

    fn has(&self, mut is_wanted: impl FnMut(&[u8]) -> bool) -> bool {
        let mut lines = self.0.get_all("connection");
        lines.any(|line| line.split(|b| *b == b',').any(|option| is_wanted(option.trim_ascii())))
    }

    /// Whether it may name anything beside fields that are never passed on: most senders say `keep-alive` or `close`, and no more.
    #[inline]
    pub fn is_unusual(&self) -> bool {
        self.0.contains("connection")
            && self.has(|option| match option {
                option if option.eq_ignore_ascii_case(b"close") => self.0.contains("close"),
                option => !OF_ONE_CONNECTION.has_bytes(option),
            })
    }

    /// Whether a field of that name and kind must not be passed on.
    #[inline]
    pub fn takes(&self, name: &str, kind: Kind) -> bool {
        kind == Kind::Other
            && self.0.contains("connection")
            && self.has(|option| option.eq_ignore_ascii_case(name.as_bytes()))
    }
}

static TABLE: LazyLock<Table> = LazyLock::new(Table::new);

/// All names by a hash that costs a few instructions; most names that are not in it meet an empty slot.
struct Table {
    slots: Vec<Vec<(&'static str, Kind)>>,
}

/// A power of two, several times the number of names.
const SLOTS: usize = 1024;

impl Table {
    fn new() -> Self {
        let mut table = Self {
            slots: vec![Vec::new(); SLOTS],
        };
        let lists = [
            (HOP_BY_HOP, Kind::HopByHop),
            (OVERRIDE, Kind::Override),
            (OVERRIDE_OF_CLIENT, Kind::Override),
            (PROTECTED, Kind::Protected),
            (APPLICATION, Kind::Application),
        ];
        let listed = lists
            .iter()
            .flat_map(|(names, kind)| names.iter().map(|name| (*name, *kind)));
        for (name, kind) in listed.chain(OWN.iter().copied()) {
            if let Some(slot) = table.slots.get_mut(slot(name.as_bytes())) {
                slot.push((name, kind));
            }
        }
        table
    }

    fn kind(&self, name: &[u8]) -> Kind {
        let candidates = self.slots.get(slot(name)).map_or(&[][..], Vec::as_slice);
        if let Some((_, kind)) = candidates.iter().find(|(known, _)| is_folded(name, known.as_bytes())) {
            return *kind;
        }
        let prefixes = match name.first().map(u8::to_ascii_lowercase) {
            Some(b'x') => X_PREFIXES,
            Some(b'a' | b'c' | b'i' | b's') => OTHER_PREFIXES,
            _ => return Kind::Other,
        };
        let begins = |prefix: &str| {
            name.get(..prefix.len())
                .is_some_and(|begin| is_folded(begin, prefix.as_bytes()))
        };
        let found = prefixes.iter().find(|(prefix, _)| begins(prefix));
        found.map_or(Kind::Other, |(_, kind)| *kind)
    }
}

/// Over the length and four bytes that tell names apart.
fn slot(name: &[u8]) -> usize {
    let at = |index: usize| usize::from(name.get(index).copied().map_or(0, fold));
    let end = name.len();
    let hash = end + at(0) * 7 + at(end / 2) * 31 + at(end.wrapping_sub(1)) * 131 + at(end.wrapping_sub(4)) * 521;
    hash % SLOTS
}

fn fold(byte: u8) -> u8 {
    match byte {
        b'_' => b'-',
        byte => byte.to_ascii_lowercase(),
    }
}

fn is_folded(name: &[u8], known: &[u8]) -> bool {
    name.len() == known.len() && name.iter().zip(known).all(|(byte, known)| fold(*byte) == *known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_however_they_are_written() {
        let table = [
            ("Connection", Kind::HopByHop, Spelling::Usual),
            ("transfer_encoding", Kind::HopByHop, Spelling::Underscored),
            ("X-FORWARDED-FOR", Kind::Forwarding(Forwarding::For), Spelling::Usual),
            (
                "X_Forwarded-For",
                Kind::Forwarding(Forwarding::For),
                Spelling::Underscored,
            ),
            ("x-original-url", Kind::Override, Spelling::Usual),
            ("X-Forwarded-Anything", Kind::Override, Spelling::Usual),
            ("X_Rewrite_Url", Kind::Override, Spelling::Underscored),
            ("If-None-Match", Kind::Protected, Spelling::Usual),
            ("Cache_Control", Kind::Protected, Spelling::Underscored),
            ("x-content-type-options", Kind::Protected, Spelling::Usual),
            ("X-Custom", Kind::Other, Spelling::Usual),
            ("api_token", Kind::Other, Spelling::Usual),
            ("api_key", Kind::Application, Spelling::Usual),
            ("x", Kind::Other, Spelling::Usual),
            ("", Kind::Other, Spelling::Usual),
        ];
        for (name, expected, spelling) in table {
            assert_eq!(kind(name), (expected, spelling), "{name}");
        }
    }

    #[test]
    fn what_the_request_is_for_is_told_apart_from_who_sent_it() {
        let target = [
            "X-Forwarded-Proto",
            "x-forwarded-host",
            "X-Original-URL",
            "x_host",
            "Front-End-Https",
        ];
        let other = [
            "X-Forwarded-For",
            "CF-Connecting-IP",
            "Remote_User",
            "X-Real-IP",
            "Accept",
            "X-Own",
        ];
        assert!(target.iter().all(|name| tells_target(name)));
        assert!(!other.iter().any(|name| tells_target(name)));
    }

    #[test]
    fn every_listed_name_is_found_as_what_it_is_listed() {
        for (names, expected) in [
            (HOP_BY_HOP, Kind::HopByHop),
            (OVERRIDE, Kind::Override),
            (OVERRIDE_OF_CLIENT, Kind::Override),
            (PROTECTED, Kind::Protected),
            (APPLICATION, Kind::Application),
        ] {
            for name in names {
                assert_eq!(kind(name).0, expected, "{name}");
                assert_eq!(kind(&name.to_ascii_uppercase()).0, expected, "{name}");
            }
        }
        for (name, expected) in OWN {
            assert_eq!(kind(name).0, *expected, "{name}");
        }
        let crowded = TABLE.slots.iter().map(Vec::len).max();
        assert!(
            crowded <= Some(4),
            "a slot has {crowded:?} names: the hash tells too few apart"
        );
    }

    #[test]
    fn connection_takes_away_only_what_nothing_depends_on() {
        let mut fields = Fields::new();
        fields.push("Connection", "close, X-Hop , ,cookie");
        fields.push(
            "Connection",
            "Authorization, x-forwarded-for, Content-Type, x-other, x-api-key",
        );
        let nominated = Nominated::of(&fields);
        for (name, taken) in [
            ("x-hop", true),
            ("X-Other", true),
            ("x-third", false),
            ("Cookie", false),
            ("Authorization", false),
            ("X-API-Key", false),
            ("X-Forwarded-For", false),
            ("content-type", false),
        ] {
            assert_eq!(nominated.takes(name, kind(name).0), taken, "{name}");
        }
    }
}
