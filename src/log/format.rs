//! An access log entry as one line: whatever bytes a client sent, they neither end the line nor leave their field.

use std::cell::RefCell;
use std::io::Write;
use std::time::{Duration, SystemTime};

use time::OffsetDateTime;

use super::access::Entry;
use super::redact;
use crate::config::AccessFormat;
use crate::http1::encode::decimal;
use crate::message::Version;
use crate::transform::forwarding::push_address;

/// Longer targets and referrers are cut: what is beyond helps nobody to find a request.
pub(super) const URL_LIMIT: usize = 2048;

/// The same for everything else that clients choose.
pub(super) const TEXT_LIMIT: usize = 512;

/// Appends the entry's line.
pub(super) fn line(format: AccessFormat, entry: &Entry, out: &mut Vec<u8>) {
    match format {
        AccessFormat::Json => json(entry, out),
        AccessFormat::Combined => combined(entry, out),
    }
}

/// The request target as it may be shown: redacted and cut, but not escaped.
pub(super) fn target(entry: &Entry) -> String {
    let shown = redact::url(entry.target.as_bytes());
    let mut text = String::from_utf8_lossy(cut(&shown, URL_LIMIT)).into_owned();
    if shown.len() > URL_LIMIT {
        text.push('…');
    }
    text
}

fn cut(bytes: &[u8], limit: usize) -> &[u8] {
    &bytes[..bytes.len().min(limit)]
}

fn json(entry: &Entry, out: &mut Vec<u8>) {
    let mut object = Object::open(out);
    object.raw("time", |out| rfc3339(entry.time, out));
    if let Some(client) = entry.client_ip {
        object.raw("client_ip", |out| {
            out.push(b'"');
            push_address(out, client);
            out.push(b'"');
        });
    }
    object.text("listener", entry.listener.as_bytes(), TEXT_LIMIT);
    if let Some(method) = &entry.method {
        object.text("method", method.as_str().as_bytes(), TEXT_LIMIT);
    }
    object.text("host", without_userinfo(entry.host.as_bytes()), TEXT_LIMIT);
    object.text("target", &redact::url(entry.target.as_bytes()), URL_LIMIT);
    if let Some(version) = entry.version {
        object.text("version", version_name(version).as_bytes(), TEXT_LIMIT);
    }
    object.number("status", u64::from(entry.status));
    object.optional("route", entry.route.as_deref());
    object.optional("upstream", entry.upstream.as_deref());
    object.optional("server", entry.server.as_deref());
    object.optional("cache", entry.cache.map(|result| result.as_str()));
    object.optional("coding", entry.coding);
    object.number("request_bytes", entry.request_bytes);
    object.number("response_bytes", entry.response_bytes);
    object.raw("duration_seconds", |out| seconds(entry.duration, out));
    if let Some(first_byte) = entry.first_byte {
        object.raw("first_byte_seconds", |out| seconds(first_byte, out));
    }
    object.text("request_id", entry.request_id.as_bytes(), TEXT_LIMIT);
    if let Some(user_agent) = &entry.user_agent {
        object.text("user_agent", user_agent, TEXT_LIMIT);
    }
    if let Some(referer) = &entry.referer {
        object.text("referer", &redact::url(referer), URL_LIMIT);
    }
    object.optional("error", entry.error);
    object.optional("limit", entry.limit.as_deref());
    object.optional("limit_reason", entry.limit_reason.map(|reason| reason.as_str()));
    if let Some(tokens) = &entry.tokens {
        object.number("tokens_reserved", tokens.reserved);
        object.number("tokens", tokens.used);
        object.optional("tokens_by", Some(tokens.by.as_str()));
    }
    object.close();
}

/// The combined format of Apache and nginx, byte for byte:
/// `$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent"`.
/// The user is always `-`: who it is stands in Authorization, which is secret.
fn combined(entry: &Entry, out: &mut Vec<u8>) {
    match entry.client_ip {
        Some(client) => push_address(out, client),
        None => out.push(b'-'),
    }
    out.extend_from_slice(b" - - [");
    common_log_time(entry.time, out);
    out.extend_from_slice(b"] \"");
    match (&entry.method, entry.version) {
        (Some(method), Some(version)) => {
            quoted(method.as_str().as_bytes(), TEXT_LIMIT, out);
            out.push(b' ');
            quoted(&redact::url(entry.target.as_bytes()), URL_LIMIT, out);
            out.push(b' ');
            out.extend_from_slice(version_name(version).as_bytes());
        }
        _ => out.push(b'-'),
    }
    out.extend_from_slice(b"\" ");
    decimal(out, u64::from(entry.status));
    out.push(b' ');
    decimal(out, entry.response_bytes);
    out.extend_from_slice(b" \"");
    match &entry.referer {
        Some(referer) => quoted(&redact::url(referer), URL_LIMIT, out),
        None => out.push(b'-'),
    }
    out.extend_from_slice(b"\" \"");
    match &entry.user_agent {
        Some(user_agent) => quoted(user_agent, TEXT_LIMIT, out),
        None => out.push(b'-'),
    }
    out.extend_from_slice(b"\"\n");
}

fn version_name(version: Version) -> &'static str {
    match version {
        Version::Http10 => "HTTP/1.0",
        Version::Http11 => "HTTP/1.1",
        Version::Http2 => "HTTP/2.0",
    }
}

/// An authority has no business with it (RFC 9110 §4.2.4), but this may be one that was refused for it.
fn without_userinfo(authority: &[u8]) -> &[u8] {
    match authority.iter().rposition(|byte| *byte == b'@') {
        Some(at) => &authority[at + 1..],
        None => authority,
    }
}

/// nginx's `escape=default`.
fn quoted(bytes: &[u8], limit: usize, out: &mut Vec<u8>) {
    let shown = cut(bytes, limit);
    if is_plain(shown) {
        out.extend_from_slice(shown);
    } else {
        for byte in shown {
            match byte {
                b'"' | b'\\' | 0..=0x1f | 0x7f..=0xff => push(out, format_args!("\\x{byte:02X}")),
                _ => out.push(*byte),
            }
        }
    }
    if bytes.len() > limit {
        out.extend_from_slice(b"...");
    }
}

/// Whether nothing of it has to be escaped, in either format.
fn is_plain(bytes: &[u8]) -> bool {
    // Without a way out in the middle, so that the compiler can look at many bytes at once.
    let is_special = |byte: &u8| !matches!(byte, 0x20..=0x7e) | matches!(byte, b'"' | b'\\');
    !bytes.iter().fold(false, |found, byte| found | is_special(byte))
}

/// A JSON object on one line.
struct Object<'a> {
    out: &'a mut Vec<u8>,
    separator: u8,
}

impl<'a> Object<'a> {
    fn open(out: &'a mut Vec<u8>) -> Self {
        Self { out, separator: b'{' }
    }

    fn raw(&mut self, name: &str, value: impl FnOnce(&mut Vec<u8>)) {
        self.out.push(self.separator);
        self.separator = b',';
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        value(self.out);
    }

    fn number(&mut self, name: &str, value: u64) {
        self.raw(name, |out| decimal(out, value));
    }

    fn optional(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value.as_bytes(), TEXT_LIMIT);
        }
    }

    fn text(&mut self, name: &str, value: &[u8], limit: usize) {
        self.raw(name, |out| {
            out.push(b'"');
            json_text(cut(value, limit), out);
            if value.len() > limit {
                out.extend_from_slice("…".as_bytes());
            }
            out.push(b'"');
        });
    }

    fn close(self) {
        self.out.extend_from_slice(b"}\n");
    }
}

/// RFC 8259 §7. Beyond what it asks for, all controls and Unicode's own line breaks are escaped, because some readers of logs break
/// lines there; bytes that are not UTF-8 are shown as `\xHH`.
fn json_text(bytes: &[u8], out: &mut Vec<u8>) {
    if is_plain(bytes) {
        return out.extend_from_slice(bytes);
    }
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            match char {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                _ if char.is_control() || matches!(char, '\u{2028}' | '\u{2029}') => {
                    push(out, format_args!("\\u{:04x}", u32::from(char)));
                }
                _ => out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        for byte in chunk.invalid() {
            push(out, format_args!("\\\\x{byte:02X}"));
        }
    }
}

/// With microseconds.
fn seconds(duration: Duration, out: &mut Vec<u8>) {
    decimal(out, duration.as_secs());
    out.push(b'.');
    fraction::<6>(out, duration.subsec_micros());
}

/// `"2026-01-31T23:59:59.123Z"`
fn rfc3339(time: SystemTime, out: &mut Vec<u8>) {
    second(TimeForm::Rfc3339, time, out, |at, out| {
        push(
            out,
            format_args!(
                "\"{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.",
                at.year(),
                u8::from(at.month()),
                at.day(),
                at.hour(),
                at.minute(),
                at.second(),
            ),
        );
    });
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    fraction::<3>(out, since.subsec_millis());
    out.extend_from_slice(b"Z\"");
}

/// `31/Jan/2026:23:59:59 +0000`: always UTC, so that logs of several machines can be laid side by side.
fn common_log_time(time: SystemTime, out: &mut Vec<u8>) {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    second(TimeForm::CommonLog, time, out, |at, out| {
        let month = MONTHS[usize::from(u8::from(at.month()) - 1)];
        push(
            out,
            format_args!(
                "{:02}/{month}/{:04}:{:02}:{:02}:{:02} +0000",
                at.day(),
                at.year(),
                at.hour(),
                at.minute(),
                at.second()
            ),
        );
    });
}

/// A number with zeroes in front.
fn fraction<const DIGITS: usize>(out: &mut Vec<u8>, mut number: u32) {
    let mut digits = [b'0'; DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
    out.extend_from_slice(&digits);
}

thread_local! {
    /// The second that was written last, in the form of each [`TimeForm`]: thousands of lines have the same.
    static LAST_SECOND: RefCell<[(u64, Vec<u8>); 2]> = const { RefCell::new([(u64::MAX, Vec::new()), (u64::MAX, Vec::new())]) };
}

#[derive(Debug, Clone, Copy)]
enum TimeForm {
    CommonLog,
    /// Without its fraction and zone.
    Rfc3339,
}

/// Appends the time to the second, which `write` knows how to put.
fn second(form: TimeForm, time: SystemTime, out: &mut Vec<u8>, write: impl FnOnce(OffsetDateTime, &mut Vec<u8>)) {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).map(|since| since.as_secs());
    let Ok(since) = since else {
        // A clock that is before 1970 is wrong, and not worth more care.
        return write(time.into(), out);
    };
    LAST_SECOND.with_borrow_mut(|last| {
        let (written, text) = &mut last[form as usize];
        if *written != since {
            text.clear();
            write(time.into(), text);
            *written = since;
        }
        out.extend_from_slice(text);
    });
}

fn push(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to memory does not fail.
    let _ = out.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Method;
    use serde_json::{Value, json};

    use super::*;
    use crate::limit::rate::Tokens;
    use crate::metrics::{CacheResult, Settled};

    fn entry() -> Entry {
        Entry {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_769_903_999_123),
            client_ip: Some([192, 0, 2, 1].into()),
            listener: "0.0.0.0:8080".into(),
            method: Some(Method::GET),
            host: "example.org".to_owned(),
            target: "/list?page=2".to_owned(),
            version: Some(Version::Http11),
            status: 200,
            route: Some("api".into()),
            upstream: Some("app".into()),
            server: Some("127.0.0.1:3001".into()),
            cache: Some(CacheResult::UriMiss),
            coding: Some("br"),
            request_bytes: 3,
            response_bytes: 4096,
            duration: Duration::from_micros(1_234_567),
            first_byte: Some(Duration::from_micros(42)),
            request_id: "7f3a".to_owned(),
            user_agent: Some(b"curl/8.5.0".to_vec()),
            referer: Some(b"https://example.org/".to_vec()),
            error: None,
            limit: None,
            limit_reason: None,
            tokens: Some(Tokens {
                reserved: 500,
                used: 123,
                by: Settled::Usage,
            }),
        }
    }

    fn lines(entry: &Entry) -> (Value, String) {
        let mut json = Vec::new();
        line(AccessFormat::Json, entry, &mut json);
        let mut combined = Vec::new();
        line(AccessFormat::Combined, entry, &mut combined);
        for line in [&json, &combined] {
            assert_eq!(
                line.iter().position(|byte| *byte == b'\n'),
                Some(line.len() - 1),
                "one line"
            );
        }
        (
            serde_json::from_slice(&json).unwrap(),
            String::from_utf8(combined).unwrap(),
        )
    }

    #[test]
    fn a_whole_entry() {
        let (json, combined) = lines(&entry());
        let expected = json!({
            "time": "2026-01-31T23:59:59.123Z", "client_ip": "192.0.2.1", "listener": "0.0.0.0:8080", "method": "GET",
            "host": "example.org", "target": "/list?page=2", "version": "HTTP/1.1", "status": 200, "route": "api",
            "upstream": "app", "server": "127.0.0.1:3001", "cache": "uri-miss", "coding": "br", "request_bytes": 3,
            "response_bytes": 4096, "duration_seconds": 1.234567, "first_byte_seconds": 0.000042, "request_id": "7f3a",
            "user_agent": "curl/8.5.0", "referer": "https://example.org/",
            "tokens_reserved": 500, "tokens": 123, "tokens_by": "usage",
        });
        assert_eq!(json, expected);
        assert_eq!(
            combined,
            "192.0.2.1 - - [31/Jan/2026:23:59:59 +0000] \"GET /list?page=2 HTTP/1.1\" 200 4096 \
             \"https://example.org/\" \"curl/8.5.0\"\n"
        );
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let (json, combined) = lines(&Entry {
            client_ip: None,
            method: None,
            host: String::new(),
            target: String::new(),
            version: None,
            status: 400,
            route: None,
            upstream: None,
            server: None,
            cache: None,
            coding: None,
            first_byte: None,
            user_agent: None,
            referer: None,
            error: Some("bad_request"),
            limit: None,
            limit_reason: None,
            tokens: None,
            ..entry()
        });
        for key in [
            "client_ip",
            "method",
            "version",
            "route",
            "upstream",
            "server",
            "cache",
            "coding",
            "first_byte_seconds",
            "tokens",
            "tokens_by",
        ] {
            assert!(json.get(key).is_none(), "{key}");
        }
        assert_eq!(json["error"], "bad_request");
        assert_eq!(
            combined,
            "- - - [31/Jan/2026:23:59:59 +0000] \"-\" 400 4096 \"-\" \"-\"\n"
        );
    }

    #[test]
    fn no_bytes_leave_their_field() {
        for (raw, in_json, in_combined) in [
            (&b"a\"b"[..], "a\"b", "a\\x22b"),
            (b"a\\b", "a\\b", "a\\x5Cb"),
            (b"a\r\n{\"x\":1}", "a\r\n{\"x\":1}", "a\\x0D\\x0A{\\x22x\\x22:1}"),
            (b"a\x1b[31m\x7f", "a\u{1b}[31m\u{7f}", "a\\x1B[31m\\x7F"),
            (
                "ä\u{85}\u{2028}".as_bytes(),
                "ä\u{85}\u{2028}",
                "\\xC3\\xA4\\xC2\\x85\\xE2\\x80\\xA8",
            ),
            (b"a\xff\xc3b", "a\\xFF\\xC3b", "a\\xFF\\xC3b"),
        ] {
            let entry = Entry {
                user_agent: Some(raw.to_vec()),
                ..entry()
            };
            let (json, combined) = lines(&entry);
            assert_eq!(json["user_agent"], in_json);
            assert!(combined.ends_with(&format!("\"{in_combined}\"\n")), "{combined}");
        }
    }

    #[test]
    fn unicode_line_breaks_and_controls_are_not_in_the_bytes() {
        let mut out = Vec::new();
        json_text("\u{85}\u{2028}\u{2029}\u{0}\u{7f}\n".as_bytes(), &mut out);
        assert_eq!(out, br"\u0085\u2028\u2029\u0000\u007f\u000a");
    }

    #[test]
    fn no_secret_is_in_a_line() {
        let entry = Entry {
            target: "/x?token=s3cret&a=1".to_owned(),
            host: "ann:s3cret@example.org".to_owned(),
            referer: Some(b"https://ann:s3cret@example.org/y?code=s3cret".to_vec()),
            ..entry()
        };
        let (json, combined) = lines(&entry);
        assert!(
            !json.to_string().contains("s3cret") && !combined.contains("s3cret"),
            "{json} {combined}"
        );
        assert_eq!(json["target"], "/x?token=***&a=1");
        assert_eq!(json["host"], "example.org");
        assert_eq!(json["referer"], "https://example.org/y?code=***");
        assert!(combined.contains("\"GET /x?token=***&a=1 HTTP/1.1\""), "{combined}");
        assert_eq!(target(&entry), "/x?token=***&a=1");
    }

    #[test]
    fn long_values_are_cut() {
        let long = format!("/{}", "a".repeat(5000));
        let entry = Entry {
            target: long.clone(),
            referer: Some(long.clone().into_bytes()),
            user_agent: Some(long.clone().into_bytes()),
            request_id: long,
            ..entry()
        };
        let (json, combined) = lines(&entry);
        let chars = |key: &str| json[key].as_str().unwrap().chars().count();
        assert_eq!([chars("target"), chars("referer")], [URL_LIMIT + 1; 2]);
        assert_eq!([chars("user_agent"), chars("request_id")], [TEXT_LIMIT + 1; 2]);
        assert!(json["target"].as_str().unwrap().ends_with("a…"));
        assert!(combined.contains("a... HTTP/1.1\""));
        assert!(target(&entry).ends_with("a…"));
    }
}
