//! The answer to a request that is more than its limits allow: all that does not depend on the request is written when the limits come
//! into force. Whoever sends too much shall cost less than who is served.

use std::time::Duration;

use bytes::{BufMut, Bytes};

use super::error::{Preference, preference};
use crate::cache::{PackedFields, StoredLines};
use crate::http1::encode::decimal;
use crate::limit::fields::seconds;
use crate::message::{Fields, Framing, Lines, ResponseHead};

/// RFC 6585 §4.
const STATUS: u16 = 429;

/// The word for it in log, metric and answer.
pub const REASON: &str = "rate-limited";

/// RFC 9209 §2.3.13.
const PROXY_STATUS: &str = "forebay; error=http_request_denied; details=\"rate-limited\"";

/// Problem details (RFC 9457 §3.1) up to the names of limits, with the problem type of draft-ietf-httpapi-ratelimit-headers-11 for an
/// exhausted quota; behind them the extension members `reason` and `request_id` (§3.2).
const JSON: [&str; 3] = [
    "{\"type\":\"https://iana.org/assignments/http-problem-types#quota-exceeded\",\
     \"title\":\"Request cannot be satisfied as assigned quota has been exceeded\",\"status\":429,\
     \"detail\":\"You have sent too many requests: see Retry-After.\",\"violated-policies\":[",
    "],\"reason\":\"rate-limited\",\"request_id\":\"",
    "\"}\n",
];

/// The same for people.
const TEXT: [&str; 2] = [
    "429 Too Many Requests\n\nYou have sent too many requests: see Retry-After.\nReason: rate-limited\nRequest: ",
    "\n",
];

/// The refusals of one route.
#[derive(Debug)]
pub struct Refusal {
    json: PackedFields,
    text: PackedFields,
}

impl Refusal {
    /// `policy`: the value of `RateLimit-Policy`.
    pub fn new(policy: &str) -> Self {
        let fields = |content_type: &str| {
            let mut fields = Fields::new();
            fields.push("Cache-Control", "no-store");
            fields.push("Content-Type", content_type);
            fields.push("X-Content-Type-Options", "nosniff");
            fields.push("Proxy-Status", PROXY_STATUS);
            fields.push("RateLimit-Policy", policy);
            PackedFields::from(&fields)
        };
        Self {
            json: fields("application/problem+json"),
            text: fields("text/plain; charset=utf-8"),
        }
    }

    /// `violated`: names of limits; `accept`: the request's field of that name; `now`: an IMF-fixdate.
    pub fn render<'n>(
        &self,
        violated: impl Iterator<Item = &'n str> + Clone,
        retry_after: Duration,
        accept: Option<&[u8]>,
        request_id: &[u8],
        now: &str,
    ) -> (ResponseHead<StoredLines<'_>>, Bytes) {
        let (fields, body) = match preference(accept.unwrap_or(b"*/*")) {
            Preference::Json => (&self.json, json(violated, request_id)),
            Preference::Text => (
                &self.text,
                [TEXT[0].as_bytes(), request_id, TEXT[1].as_bytes()].concat().into(),
            ),
        };
        let mut fields = StoredLines::new(fields);
        fields.push("Date", now);
        fields.push("X-Request-Id", request_id);
        fields.push_written("Retry-After", |out| decimal(out, seconds(retry_after).max(1)));
        let length = body.len() as u64;
        let head = ResponseHead {
            status: STATUS,
            fields,
            framing: Framing::Length(length),
            declared_length: Some(length),
        };
        (head, body)
    }
}

/// Names are of letters, digits and `-_.`, and the identifier of a request has nothing in it that would need an escape.
fn json<'n>(violated: impl Iterator<Item = &'n str> + Clone, request_id: &[u8]) -> Bytes {
    let names: usize = violated.clone().map(|name| name.len() + "\"\",".len()).sum();
    let fixed: usize = JSON.iter().map(|piece| piece.len()).sum();
    // The first has no comma: then it is as large as it gets, and is handed over as it is.
    let mut body = Vec::with_capacity(fixed + names.saturating_sub(1) + request_id.len());
    body.put_slice(JSON[0].as_bytes());
    for (number, name) in violated.enumerate() {
        if number > 0 {
            body.push(b',');
        }
        body.push(b'"');
        body.put_slice(name.as_bytes());
        body.push(b'"');
    }
    for piece in [JSON[1].as_bytes(), request_id, JSON[2].as_bytes()] {
        body.put_slice(piece);
    }
    Bytes::from(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(violated: &[&str], accept: Option<&[u8]>) -> (String, Bytes) {
        let refusal = Refusal::new("\"a\";q=1;w=1");
        let (head, body) = refusal.render(
            violated.iter().copied(),
            Duration::from_millis(1500),
            accept,
            b"id-1",
            "Thu, 01 Jan 1970 00:00:00 GMT",
        );
        let mut lines = String::new();
        head.fields
            .for_each(|name, value| lines.push_str(&format!("{name}: {}\n", value.escape_ascii())));
        assert_eq!((head.status, head.declared_length), (429, Some(body.len() as u64)));
        (lines, body)
    }

    #[test]
    fn it_says_which_limits_and_when_to_come_back() {
        let (lines, body) = rendered(&["second", "day"], None);
        for line in [
            "Cache-Control: no-store",
            "Content-Type: application/problem+json",
            "RateLimit-Policy: \\\"a\\\";q=1;w=1",
            "X-Request-Id: id-1",
            "Retry-After: 2",
        ] {
            assert!(lines.contains(&format!("{line}\n")), "{line} in\n{lines}");
        }
        let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(problem["violated-policies"], serde_json::json!(["second", "day"]));
        assert_eq!(
            (&problem["reason"], &problem["request_id"]),
            (&REASON.into(), &"id-1".into())
        );
        assert!(problem["detail"].as_str().unwrap().contains("Retry-After"));
    }

    #[test]
    fn people_get_text() {
        let (lines, body) = rendered(&["day"], Some(b"text/html,*/*;q=0.8"));
        assert!(lines.contains("Content-Type: text/plain; charset=utf-8\n"), "{lines}");
        let text = std::str::from_utf8(&body).unwrap();
        assert!(
            text.starts_with("429 Too Many Requests\n") && text.ends_with("Request: id-1\n"),
            "{text}"
        );
    }
}
