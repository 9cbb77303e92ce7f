use http::Method;

use super::*;
use crate::http1::SyntaxError;
use crate::message::{Scheme, Version};

const NOW: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// Every error, and one request error for each status, with what it must be answered with.
const TABLE: [(ProxyError, u16, &str, &str); 39] = [
    (
        request_error(RequestError::RequestLine),
        400,
        "bad-request-line",
        "http_request_error",
    ),
    (
        request_error(RequestError::Syntax(SyntaxError::BareLf)),
        400,
        "bare-lf",
        "http_request_error",
    ),
    (
        request_error(RequestError::MethodNotAllowed),
        405,
        "method-not-allowed",
        "http_request_denied",
    ),
    (
        request_error(RequestError::TargetTooLong),
        414,
        "target-too-long",
        "http_request_error",
    ),
    (
        request_error(RequestError::Expectation),
        417,
        "unsupported-expectation",
        "http_request_error",
    ),
    (
        request_error(RequestError::Misdirected),
        421,
        "misdirected",
        "http_request_error",
    ),
    (
        request_error(RequestError::Syntax(SyntaxError::TooManyFields)),
        431,
        "too-many-fields",
        "http_request_error",
    ),
    (
        request_error(RequestError::MethodTooLong),
        501,
        "method-too-long",
        "http_request_error",
    ),
    (
        request_error(RequestError::Version),
        505,
        "bad-version",
        "http_request_error",
    ),
    (
        ProxyError::MalformedBody(BodyError::ChunkSize),
        400,
        "bad-chunk-size",
        "http_request_error",
    ),
    (
        ProxyError::AmbiguousPath("path-nul"),
        400,
        "path-nul",
        "http_request_error",
    ),
    (ProxyError::Denied, 403, "denied", "http_request_denied"),
    (ProxyError::PurgeDenied, 403, "purge-denied", "http_request_denied"),
    (ProxyError::NoPurge, 405, "no-purge", "http_request_denied"),
    (ProxyError::BadPurge, 400, "bad-purge", "http_request_error"),
    (ProxyError::NoRoute, 404, "no-route", "destination_not_found"),
    (ProxyError::HeadTimeout, 408, "head-timeout", "http_request_error"),
    (ProxyError::BodyTimeout, 408, "body-timeout", "http_request_error"),
    (ProxyError::BodyTooLarge, 413, "body-too-large", "http_request_error"),
    (ProxyError::Internal, 500, "internal", "proxy_internal_error"),
    (ProxyError::UpstreamName, 502, "name-not-resolved", "dns_error"),
    (
        ProxyError::UpstreamRefused,
        502,
        "connect-refused",
        "connection_refused",
    ),
    (
        ProxyError::UpstreamUnreachable,
        502,
        "connect-failed",
        "destination_ip_unroutable",
    ),
    (
        ProxyError::UpstreamClosed,
        502,
        "closed-before-head",
        "connection_terminated",
    ),
    (ProxyError::UpstreamCut, 502, "upstream-cut", "http_response_incomplete"),
    (
        ProxyError::UpstreamSilent,
        504,
        "upstream-silent",
        "http_response_timeout",
    ),
    (
        ProxyError::UpstreamMalformed,
        502,
        "malformed-response",
        "http_protocol_error",
    ),
    (
        ProxyError::UpstreamHeadTooLarge,
        502,
        "response-head-too-large",
        "http_response_header_section_size",
    ),
    (
        ProxyError::UpstreamProtocol,
        502,
        "protocol-error",
        "http_protocol_error",
    ),
    (ProxyError::UpstreamTls, 502, "tls-failed", "tls_protocol_error"),
    (
        ProxyError::UpstreamCertificate,
        502,
        "tls-certificate",
        "tls_certificate_error",
    ),
    (ProxyError::UpgradeFailed, 502, "upgrade-failed", "http_upgrade_failed"),
    (ProxyError::NoServer, 503, "no-server", "destination_unavailable"),
    (
        ProxyError::Overloaded { retry_after: None },
        503,
        "overloaded",
        "connection_limit_reached",
    ),
    (ProxyError::Draining, 503, "draining", "proxy_internal_response"),
    (ProxyError::ConnectTimeout, 504, "connect-timeout", "connection_timeout"),
    (
        ProxyError::FirstByteTimeout,
        504,
        "first-byte-timeout",
        "http_response_timeout",
    ),
    (ProxyError::SendTimeout, 504, "send-timeout", "connection_write_timeout"),
    (ProxyError::Loop, 508, "loop", "proxy_loop_detected"),
];

const fn request_error(error: RequestError) -> ProxyError {
    ProxyError::Request(error)
}

fn value(head: &ResponseHead, name: &str) -> String {
    String::from_utf8_lossy(head.fields.get(name).unwrap_or(b"-")).into_owned()
}

#[test]
fn every_error_has_its_status_reason_and_proxy_status() {
    for (error, status, reason, proxy_error) in TABLE {
        let (head, body) = render(&error, None, "r1", NOW);
        let body = String::from_utf8(body.to_vec()).unwrap();
        assert_eq!((head.status, error.reason()), (status, reason));
        let expected = format!("forebay; error={proxy_error}; details=\"{reason}\"");
        assert_eq!(value(&head, "proxy-status"), expected);
        assert_eq!(value(&head, "content-type"), "application/problem+json");
        assert_eq!(value(&head, "cache-control"), "no-store");
        assert_eq!(value(&head, "x-request-id"), "r1");
        assert_eq!(value(&head, "date"), NOW);
        assert_eq!(head.framing, Framing::Length(body.len() as u64));
        let phrase = phrase(status);
        assert_ne!(phrase, "Error");
        assert!(body.starts_with(&format!(
            "{{\"type\":\"about:blank\",\"title\":\"{phrase}\",\"status\":{status},\"detail\":\""
        )));
        assert!(
            body.ends_with(&format!("\"reason\":\"{reason}\",\"request_id\":\"r1\"}}\n")),
            "{body}"
        );
    }
}

#[test]
fn what_some_statuses_need_is_there() {
    let (head, _) = render(&RequestError::MethodNotAllowed.into(), None, "r1", NOW);
    assert_eq!(value(&head, "allow"), ALLOW);
    for (retry_after, expected) in [
        (None, "-"),
        (Some(Duration::from_secs(3)), "3"),
        (Some(Duration::from_millis(1)), "1"),
    ] {
        let (head, _) = render(&ProxyError::Overloaded { retry_after }, None, "r1", NOW);
        assert_eq!(value(&head, "retry-after"), expected);
    }
}

#[test]
fn accept_decides_between_json_and_text() {
    let table = [
        (None, Preference::Json),
        (Some("*/*"), Preference::Json),
        (Some(""), Preference::Json),
        (Some("application/json"), Preference::Json),
        (Some("application/problem+json, text/plain"), Preference::Json),
        (Some("text/plain"), Preference::Text),
        (Some("Text/HTML"), Preference::Text),
        (Some("text/*"), Preference::Text),
        (Some("text/plain;q=0.5, */*;q=0.1"), Preference::Text),
        (Some("text/plain;q=0.5, application/json;q=0.9"), Preference::Json),
        (Some("text/plain; q=0.51, application/json;q=0.5"), Preference::Text),
        (Some("text/plain;q=0, */*"), Preference::Json),
        (
            Some("application/json;q=0,application/problem+json;q=0,*/*;q=0.1"),
            Preference::Text,
        ),
        (
            Some("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
            Preference::Text,
        ),
        (Some("image/png"), Preference::Json),
        (Some("text/plain;q=7, application/json;q=0.1"), Preference::Json),
        (Some(";;,,q=,/;q=1.0001,\u{e9}"), Preference::Json),
    ];
    for (accept, expected) in table {
        assert_eq!(preference(accept.unwrap_or("*/*").as_bytes()), expected, "{accept:?}");
        let (head, body) = render(&ProxyError::Loop, accept.map(str::as_bytes), "r1", NOW);
        let is_text = value(&head, "content-type").starts_with("text/plain");
        assert_eq!(is_text, expected == Preference::Text, "{accept:?}");
        assert_eq!(body.starts_with(b"508 Loop Detected\n"), is_text);
    }
}

#[test]
fn a_request_id_cannot_break_out_of_the_body() {
    assert_eq!(escaped("a\"b\\c\n"), "a\\\"b\\\\c\\u000a");
}

fn request(authority: &str, target: &str) -> RequestHead {
    RequestHead {
        method: Method::POST,
        scheme: Scheme::Http,
        version: Version::Http11,
        authority: authority.into(),
        target: target.into(),
        fields: Fields::new(),
        framing: Framing::None,
        expects_continue: false,
        upgrade: false,
        keep_alive: true,
    }
}

#[test]
fn plain_requests_are_sent_to_the_same_place_with_https() {
    for (authority, target, location) in [
        ("example.com", "/a%2Fb?c=d?e", "https://example.com/a%2Fb?c=d?e"),
        ("example.com:8080", "/", "https://example.com/"),
        ("[2001:db8::1]:80", "//x", "https://[2001:db8::1]//x"),
        ("[2001:db8::1]", "/", "https://[2001:db8::1]/"),
        ("example.com", "*", "https://example.com/"),
    ] {
        let (head, body) = redirect_to_https(&request(authority, target), "r1", NOW).unwrap();
        assert_eq!((head.status, value(&head, "location").as_str()), (308, location));
        assert!(body.is_empty());
    }
    assert!(redirect_to_https(&request("", "/"), "r1", NOW).is_none());
}

#[test]
fn options_for_us_are_answered_with_the_methods() {
    let head = options("r1", NOW);
    assert_eq!((head.status, value(&head, "allow").as_str()), (200, ALLOW));
    assert_eq!(head.framing, Framing::Length(0));
}
