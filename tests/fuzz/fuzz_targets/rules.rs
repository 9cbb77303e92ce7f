//! A request and a response with any fields go through all rules of caching: nothing panics, and what the rules promise holds.
#![no_main]

use forebay::key::{CacheKey, KeyOptions, normalise_target};
use forebay::message::{Fields, Framing, RequestHead, ResponseHead, Scheme, Version, is_field_value, is_token};
use forebay::rfc9111::date::{Timestamp, format_http_date, parse_http_date};
use forebay::rfc9111::directives::{RequestDirectives, ResponseDirectives, directives};
use forebay::rfc9111::freshness::Times;
use forebay::rfc9111::invalidation::invalidated;
use forebay::rfc9111::range::{ContentRange, RangeSet, selection};
use forebay::rfc9111::reuse::{ReusePolicy, reuse};
use forebay::rfc9111::storability::{LifetimeRules, Storable, StorePolicy, storable};
use forebay::rfc9111::validation::evaluate;
use libfuzzer_sys::fuzz_target;

/// One day in 2026, in seconds since 1970.
const NOW: u64 = 1_780_000_000;

/// The length of a representation that ranges are cut out of.
const LENGTH: u64 = 1000;

fuzz_target!(|data: &[u8]| {
    let (request_lines, response_lines) = halves(data);
    let now = Timestamp::from_secs(NOW);
    let request = request(request_lines);
    let response = ResponseHead {
        status: u16::from_be_bytes([data.first().copied().unwrap_or(0) % 6, data.get(1).copied().unwrap_or(200)]),
        fields: fields(response_lines),
        framing: Framing::Length(LENGTH),
        declared_length: Some(LENGTH),
    };

    directives(data).for_each(drop);
    RequestDirectives::parse(&request.fields);
    ResponseDirectives::parse(&response.fields, &["CDN-Cache-Control".to_owned()]);
    if let Some(date) = parse_http_date(data, now) {
        assert_eq!(parse_http_date(format_http_date(date).as_bytes(), now), Some(date));
    }
    if let Some(range) = ContentRange::parse(data) {
        assert_eq!(ContentRange::parse(range.to_string().as_bytes()), Some(range));
    }
    if let Some(set) = RangeSet::parse(data) {
        assert!(!set.specs().is_empty());
    }

    if let Ok(target) = std::str::from_utf8(data) {
        let once = normalise_target(target);
        assert_eq!(normalise_target(&once), once);
    }
    let key = CacheKey::new(&request, &KeyOptions::default());
    assert_eq!(key, CacheKey::new(&request, &KeyOptions::default()));
    invalidated(&request, &response);

    let times = Times {
        requested: now,
        received: now,
    };
    let targeted = ["CDN-Cache-Control".to_owned()];
    let policy = StorePolicy {
        targeted_fields: &targeted,
        heuristic_max: std::time::Duration::from_secs(60),
        lifetime: LifetimeRules::default(),
        windows: Default::default(),
        set_cookie: Default::default(),
        cookies: Default::default(),
        request_directives: Default::default(),
    };
    if let Storable::Yes(accepted) = storable(&request, &response, times, &policy) {
        assert!(!accepted.fields.contains("set-cookie"));
        reuse(&request, &accepted.meta, now, &ReusePolicy::default());
        evaluate(&request, &accepted.meta);
        selection(&request, &accepted.meta, LENGTH);
    }
});

/// What stands before and behind the first empty line.
fn halves(data: &[u8]) -> (&[u8], &[u8]) {
    match data.windows(2).position(|pair| pair == b"\n\n") {
        Some(at) => (&data[..at], &data[at + 2..]),
        None => (data, data),
    }
}

/// The lines that could have come through a parser.
fn fields(lines: &[u8]) -> Fields {
    let mut fields = Fields::new();
    for line in lines.split(|b| *b == b'\n').take(100) {
        let Some(colon) = line.iter().position(|b| *b == b':') else {
            continue;
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if let (true, true, Ok(name)) = (is_token(name), is_field_value(value), std::str::from_utf8(name)) {
            fields.push(name, value);
        }
    }
    fields
}

fn request(lines: &[u8]) -> RequestHead {
    RequestHead {
        method: http::Method::GET,
        scheme: Scheme::Http,
        version: Version::Http11,
        authority: "example.com".into(),
        target: "/a?b=c".into(),
        fields: fields(lines),
        framing: Framing::None,
        expects_continue: false,
        upgrade: false,
        keep_alive: true,
    }
}
