//! The behaviours that a cache shows from outside, one exchange after the other: what RFC 9111 requires and what it leaves to
//! good caches. Each table row is a first exchange, a pause and a second request.

mod model;

use std::time::Duration;

use http::Method;

use super::date::{Timestamp, format_http_date};
use super::freshness::Times;
use super::invalidation;
use super::range::{Selection, selection};
use super::reuse::{Forward, Reuse, ReusePolicy, reuse, reuse_on_error, without_stored};
use super::storability::{
    ClientDirectives, LifetimeRules, RequestCookies, SetCookie, Storable, StorePolicy, Unstorable, storable,
};
use super::stored::{StaleWindows, StoredMeta};
use super::validation::{ClientCondition, Freshened, evaluate, freshen, make_conditional, selected_by_304};
use super::vary::select;
use crate::message::{Fields, Framing, RequestHead, ResponseHead, Scheme, Version};

/// 2026-01-01T00:00:00Z
pub(crate) const NOW: Timestamp = Timestamp::from_secs(1_767_225_600);

pub(crate) fn fields(lines: &[(&str, &str)]) -> Fields {
    let mut fields = Fields::new();
    for (name, value) in lines {
        fields.push(name, value);
    }
    fields
}

pub(crate) fn request(method: &str, target: &str, lines: &[(&str, &str)]) -> RequestHead {
    RequestHead {
        method: Method::from_bytes(method.as_bytes()).unwrap(),
        scheme: Scheme::Http,
        version: Version::Http11,
        authority: "example.org".to_owned(),
        target: target.to_owned(),
        fields: fields(lines),
        framing: Framing::None,
        expects_continue: false,
        upgrade: false,
        keep_alive: true,
    }
}

pub(crate) fn get(lines: &[(&str, &str)]) -> RequestHead {
    request("GET", "/", lines)
}

pub(crate) fn response(status: u16, lines: &[(&str, &str)]) -> ResponseHead {
    ResponseHead {
        status,
        fields: fields(lines),
        framing: Framing::Length(10),
        declared_length: Some(10),
    }
}

pub(crate) fn policy(targeted_fields: &[String]) -> StorePolicy<'_> {
    StorePolicy {
        targeted_fields,
        heuristic_max: Duration::from_secs(60),
        lifetime: LifetimeRules::default(),
        windows: StaleWindows::default(),
        set_cookie: SetCookie::Bypass,
        cookies: RequestCookies::Unaccounted,
        request_directives: ClientDirectives::Honour,
    }
}

pub(crate) fn at_once(time: Timestamp) -> Times {
    Times {
        requested: time,
        received: time,
    }
}

/// The date so many seconds from [`NOW`].
pub(crate) fn in_seconds(seconds: i64) -> String {
    let now = i64::try_from(NOW.as_secs()).unwrap();
    format_http_date(Timestamp::from_secs(u64::try_from(now + seconds).unwrap()))
}

/// Replaces `@N` by the date N seconds from [`NOW`].
fn dated<'a>(lines: &[(&'a str, &'a str)]) -> Vec<(&'a str, String)> {
    let date = |value: &str| match value.strip_prefix('@') {
        Some(seconds) => in_seconds(seconds.parse().unwrap()),
        None => value.to_owned(),
    };
    lines.iter().map(|(name, value)| (*name, date(value))).collect()
}

pub(crate) fn dated_fields(lines: &[(&str, &str)]) -> Fields {
    let mut fields = Fields::new();
    for (name, value) in dated(lines) {
        fields.push(name, value);
    }
    fields
}

/// What is kept of one resource.
pub(crate) struct Shelf {
    targeted: Vec<String>,
    pub stored: Vec<(StoredMeta, Fields)>,
}

impl Shelf {
    pub fn new() -> Self {
        Self {
            targeted: vec!["CDN-Cache-Control".to_owned()],
            stored: Vec::new(),
        }
    }

    pub fn policy(&self) -> StorePolicy<'_> {
        policy(&self.targeted)
    }

    pub fn store(&mut self, request: &RequestHead, response: &ResponseHead, now: Timestamp) -> Result<(), Unstorable> {
        match storable(request, response, at_once(now), &self.policy()) {
            Storable::Yes(accepted) => {
                self.stored.retain(|(meta, _)| meta.variant != accepted.meta.variant);
                self.stored.push((accepted.meta, accepted.fields));
                Ok(())
            }
            Storable::No(reason) => Err(reason),
        }
    }

    pub fn chosen(&self, request: &RequestHead) -> Option<&(StoredMeta, Fields)> {
        select(self.stored.iter().map(|pair| (pair, &pair.0)), &request.fields)
    }

    pub fn reuse(&self, request: &RequestHead, now: Timestamp) -> Reuse {
        let policy = ReusePolicy::default();
        match self.chosen(request) {
            Some((meta, _)) => reuse(request, meta, now, &policy),
            None if self.stored.is_empty() => without_stored(&request.fields, Forward::UriMiss, &policy),
            None => without_stored(&request.fields, Forward::VaryMiss, &policy),
        }
    }

    fn outcome(&self, request: &RequestHead, now: Timestamp) -> Seen {
        match self.reuse(request, now) {
            Reuse::Fresh(_) | Reuse::Stale(..) => match self.chosen(request) {
                Some((meta, _)) if evaluate(request, meta) == ClientCondition::NotModified => Seen::NotModified,
                _ => Seen::Cached,
            },
            Reuse::Validate(_) => {
                let mut asked = request.fields.clone();
                make_conditional(&mut asked, self.chosen(request).map(|(meta, fields)| (meta, fields)));
                if asked.contains("if-none-match") {
                    Seen::EtagValidated
                } else {
                    Seen::LmValidated
                }
            }
            Reuse::Forward(_) => Seen::NotCached,
            Reuse::GatewayTimeout => Seen::GatewayTimeout,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Cached,
    /// A 304 from the store.
    NotModified,
    NotCached,
    EtagValidated,
    LmValidated,
    GatewayTimeout,
}

use Seen::{Cached, EtagValidated, GatewayTimeout as Timeout, LmValidated, NotCached, NotModified};

type Lines<'a> = &'a [(&'a str, &'a str)];

/// First request, status and fields of its response, pause in seconds, second request, what is seen.
type Row<'a> = (Lines<'a>, u16, Lines<'a>, u64, Lines<'a>, Seen);

fn check(rows: &[Row<'_>]) {
    for (first, status, answer, pause, second, expected) in rows {
        let mut shelf = Shelf::new();
        let mut head = response(*status, &[]);
        head.fields = dated_fields(answer);
        // Whether it was stored is seen by what comes next.
        let _ = shelf.store(&get(first), &head, NOW);
        let mut second_request = get(&[]);
        second_request.fields = dated_fields(second);
        let later = NOW.plus(Duration::from_secs(*pause));
        let seen = shelf.outcome(&second_request, later);
        // A request that validates has not been answered from the store alone.
        let not_cached = *expected == NotCached && matches!(seen, EtagValidated | LmValidated);
        assert!(seen == *expected || not_cached, "{status} {answer:?} {second:?}: {seen:?}, not {expected:?}");
    }
}

/// One response after a pause of three seconds, to the same request.
fn check_responses(rows: &[(Lines<'_>, Seen)]) {
    for (answer, expected) in rows {
        check(&[(&[], 200, answer, 3, &[], *expected)]);
    }
}

const CC: &str = "Cache-Control";
const CDN: &str = "CDN-Cache-Control";
const DATE: (&str, &str) = ("Date", "@0");

#[test]
fn rfc9111_4_2_freshness_by_cache_control() {
    check_responses(&[
        (&[], NotCached),
        (&[(CC, "max-age=3600")], Cached),
        (&[(CC, "max-age=2")], NotCached),
        (&[(CC, "max-age=0")], NotCached),
        (&[(CC, "max-age=2147483647")], Cached),
        (&[(CC, "max-age=2147483648")], Cached),
        (&[(CC, "max-age=2147483649")], Cached),
        (&[(CC, "max-age=99999999999")], Cached),
        (&[DATE, (CC, "max-age=3600"), ("Age", "7200")], NotCached),
        (&[("Date", "@-7200"), (CC, "max-age=3600")], NotCached),
        (&[(CC, "max-age=3600"), ("Expires", "@-7200"), DATE], Cached),
        (&[(CC, "max-age=3600"), ("Expires", "0"), DATE], Cached),
        (&[(CC, "max-age=0"), ("Expires", "@3600"), DATE], NotCached),
        (&[(CC, "foobar, max-age=3600")], Cached),
        (&[(CC, "MaX-aGe=3600")], Cached),
        (&[(CC, "max-age=-3600")], NotCached),
        (&[(CC, "s-maxage=3600")], Cached),
        (&[(CC, "max-age=3600, s-maxage=1")], NotCached),
        (&[(CC, "s-maxage=1, max-age=3600")], NotCached),
        (&[(CC, "max-age=3600"), (CC, "s-maxage=1")], NotCached),
        (&[(CC, "max-age=1, s-maxage=3600")], Cached),
        (&[("Expires", "@-10"), (CC, "max-age=0, s-maxage=3600")], Cached),
    ]);
}

#[test]
fn rfc9111_5_2_parsing_of_cache_control() {
    check_responses(&[
        (&[(CC, "max-age=1800, max-age=1")], NotCached),
        (&[(CC, "max-age=1800"), (CC, "max-age=1")], NotCached),
        (&[(CC, "max-age=1, max-age=1800")], NotCached),
        (&[(CC, "max-age=1"), (CC, "max-age=1800")], NotCached),
        (&[(CC, "max-age=\"3600\"")], Cached),
        (&[(CC, "extension=\"max-age=3600\", max-age=1")], NotCached),
        (&[(CC, "max-age=1, extension=\"max-age=3600\"")], NotCached),
        (&[(CC, "max-age =3600")], NotCached),
        (&[(CC, "max-age= 3600")], NotCached),
        (&[(CC, "max-age=003600")], Cached),
        (&[(CC, "max-age='3600'")], NotCached),
        (&[(CC, "max-age=3600.0")], NotCached),
        (&[(CC, "max-age=3600.5")], NotCached),
        (&[(CC, "max-age=a3600")], NotCached),
        (&[(CC, "max-age=3600a")], NotCached),
    ]);
}

#[test]
fn rfc9111_5_1_parsing_of_age() {
    let stale = |age: &'static str| ([DATE, (CC, "max-age=3600"), ("Age", age)], NotCached);
    let fresh = |age: &'static str| ([DATE, (CC, "max-age=3600"), ("Age", age)], Cached);
    for (answer, expected) in [
        fresh("abc"),
        fresh("-7200"),
        fresh("7200.0"),
        stale("2147483647"),
        stale("2147483648"),
        stale("2147483649"),
        stale("7200, 0"),
        fresh("0, 7200"),
        fresh("0, 0"),
        stale("7200;foo=bar"),
        stale("7200;foo=111"),
    ] {
        check_responses(&[(&answer, expected)]);
    }
    check_responses(&[
        (&[DATE, (CC, "max-age=3600"), ("Age", "7200"), ("Age", "0")], NotCached),
        (&[DATE, (CC, "max-age=3600"), ("Age", "0"), ("Age", "7200")], Cached),
        (&[DATE, (CC, "max-age=3600"), ("Age", "0"), ("Age", "0")], Cached),
        (&[DATE, (CC, "max-age=10000"), ("Age", "3600"), ("Age", "3600")], Cached),
    ]);
}

#[test]
fn rfc9111_5_3_expires() {
    check_responses(&[
        (&[("Expires", "@2592000"), DATE], Cached),
        (&[("Expires", "@-2592000"), DATE], NotCached),
        (&[("Expires", "@0"), DATE], NotCached),
        (&[("Expires", "@300"), ("Date", "@400")], NotCached),
        (&[("Expires", "0"), DATE], NotCached),
        (&[("Date", "foo"), ("Expires", "@10")], Cached),
        (&[("Date", "@-10"), ("Expires", "@10"), ("Age", "25")], NotCached),
        (&[("Date", "@10"), ("Expires", "@20"), ("Age", "15")], NotCached),
        (&[("Expires", "Tue, 19 Jan 2038 14:14:08 GMT"), DATE], Cached),
        (&[("Expires", "Sun, 21 Nov 2286 04:46:39 GMT"), DATE], Cached),
        (&[("Expires", "Thursday, 18-Aug-50 02:01:18 GMT"), DATE], Cached),
        (&[("Expires", "Thu Aug  8 02:01:18 2050"), DATE], Cached),
        (&[("Expires", "THU, 18 Aug 2050 02:01:18 GMT"), DATE], Cached),
        (&[("Expires", "Thu, 18 AUG 2050 02:01:18 GMT"), DATE], Cached),
        (&[("Expires", "Thu, 18 Aug 2050 02:01:18 gMT"), DATE], Cached),
        (&[("Expires", "Thu, 18 Aug 2050 02:01:18 UTC"), DATE], NotCached),
        (&[("Expires", "Thu, 18 Aug 2050 02:01:18 AEST"), DATE], NotCached),
        (&[("Expires", "Thu, 18 Aug 50 02:01:18 GMT"), DATE], NotCached),
        (&[("Expires", "Thu 18 Aug 2050 02:01:18 GMT"), DATE], NotCached),
        (&[("Expires", "Thu, 18  Aug  2050 02:01:18 GMT"), DATE], NotCached),
        (&[("Expires", "Thu, 18-Aug-2050 02:01:18 GMT"), DATE], NotCached),
        (&[("Expires", "Thu, 18 Aug 2050 02.01.18 GMT"), DATE], NotCached),
        (&[("Expires", "Thu, 18 Aug 2050 2:01:18 GMT"), DATE], NotCached),
        (&[("Expires", "@3600"), ("Expires", "@3601"), DATE], NotCached),
    ]);
}

#[test]
fn rfc9111_5_2_2_response_directives() {
    check_responses(&[
        (&[(CC, "private, max-age=3600")], NotCached),
        (&[(CC, "no-store")], NotCached),
        (&[(CC, "No-StOrE")], NotCached),
        (&[(CC, "max-age=10000, no-store"), ("Expires", "@10000"), DATE], NotCached),
        (&[(CC, "max-age=10000, no-cache"), ("Expires", "@10000"), DATE], NotCached),
        (&[(CC, "max-age=10000, No-CaChE"), ("Expires", "@10000"), DATE], NotCached),
        (&[(CC, "no-cache"), ("ETag", "\"abcd\"")], EtagValidated),
        (&[(CC, "max-age=10000, no-cache"), ("Expires", "@10000"), DATE, ("ETag", "\"abcd\"")], EtagValidated),
        (&[(CC, "max-age=10000, must-revalidate"), ("ETag", "\"abcd\"")], Cached),
        (&[(CC, "max-age=2, must-revalidate"), ("ETag", "\"abcd\"")], EtagValidated),
        (&[(CC, "no-cache=\"a\""), ("a", "1"), (CC, "max-age=3600"), DATE], Cached),
    ]);
}

#[test]
fn rfc9111_5_2_2_5_a_response_that_is_not_stored_leaves_an_older_one() {
    let mut shelf = Shelf::new();
    shelf.store(&get(&[]), &response(200, &[(CC, "max-age=10000")]), NOW).unwrap();
    let refused = shelf.store(&get(&[]), &response(200, &[(CC, "no-store, max-age=0")]), NOW);
    assert_eq!(refused, Err(Unstorable::NoStore));
    assert_eq!(shelf.outcome(&get(&[]), NOW), Cached);
}

#[test]
fn rfc9111_4_2_2_heuristic_freshness_by_status() {
    let answer: Lines<'_> = &[("Last-Modified", "@-86400"), DATE];
    for status in [200, 203, 204, 404, 405, 410, 414, 501, 300, 301, 308] {
        check(&[(&[], status, answer, 3, &[], Cached)]);
    }
    for status in [201, 202, 302, 303, 307, 400, 403, 500, 502, 503, 504, 599] {
        check(&[(&[], status, answer, 3, &[], NotCached)]);
    }
    check(&[(&[], 599, &[("Last-Modified", "@-86400"), DATE, (CC, "public")], 3, &[], Cached)]);
}

#[test]
fn rfc9111_3_any_final_status_with_explicit_freshness_is_stored() {
    let fresh: Lines<'_> = &[(CC, "max-age=100000"), DATE];
    let stale: Lines<'_> = &[("Expires", "@-5000"), ("Last-Modified", "@-100000"), DATE];
    for status in [
        200, 203, 204, 299, 301, 302, 303, 307, 308, 400, 404, 410, 499, 500, 502, 503, 504, 599,
    ] {
        check(&[(&[], status, fresh, 3, &[], Cached), (&[], status, stale, 3, &[], NotCached)]);
    }
    check(&[
        (&[], 599, &[(CC, "max-age=3600, no-store, must-understand")], 0, &[], NotCached),
        (&[], 200, &[(CC, "max-age=3600, no-store, must-understand")], 0, &[], Cached),
    ]);
}

#[test]
fn rfc9111_5_2_1_request_directives() {
    const FRESH: Lines<'_> = &[(CC, "max-age=3600")];
    check(&[
        (&[], 200, FRESH, 3, &[(CC, "max-age=0")], NotCached),
        (&[], 200, FRESH, 0, &[(CC, "max-age=0")], NotCached),
        (&[], 200, FRESH, 3, &[(CC, "max-age=1")], NotCached),
        (&[], 200, FRESH, 3, &[(CC, "max-age=5")], Cached),
        (&[], 200, FRESH, 3, &[(CC, "max-age=rubbish")], NotCached),
        (&[], 200, &[(CC, "max-age=3600"), ("Age", "1800")], 0, &[(CC, "max-age=600")], NotCached),
        (&[], 200, &[(CC, "max-age=1")], 3, &[(CC, "max-stale=1000")], Cached),
        (&[], 200, &[(CC, "max-age=1")], 3, &[(CC, "max-stale")], Cached),
        (&[], 200, &[(CC, "max-age=1")], 3, &[(CC, "max-stale=1")], NotCached),
        (&[], 200, &[(CC, "max-age=1")], 3, &[(CC, "max-stale=x")], NotCached),
        (&[], 200, &[(CC, "max-age=1500"), ("Age", "2000")], 0, &[(CC, "max-stale=1000")], Cached),
        (&[], 200, &[(CC, "max-age=1, must-revalidate")], 3, &[(CC, "max-stale=1000")], NotCached),
        (&[], 200, &[(CC, "max-age=1, proxy-revalidate")], 3, &[(CC, "max-stale=1000")], NotCached),
        (&[], 200, &[(CC, "s-maxage=1")], 3, &[(CC, "max-stale=1000")], NotCached),
        (&[], 200, &[(CC, "max-age=1500")], 0, &[(CC, "min-fresh=2000")], NotCached),
        (&[], 200, &[(CC, "max-age=1500")], 0, &[(CC, "min-fresh=1000")], Cached),
        (&[], 200, &[(CC, "max-age=1500"), ("Age", "1000")], 0, &[(CC, "min-fresh=1000")], NotCached),
        (&[], 200, FRESH, 0, &[(CC, "no-cache")], NotCached),
        (&[], 200, &[(CC, "max-age=3600"), ("Last-Modified", "@-10000"), DATE], 0, &[(CC, "no-cache")], LmValidated),
        (&[], 200, &[(CC, "max-age=3600"), ("ETag", "\"abc\"")], 0, &[(CC, "no-cache")], EtagValidated),
        (&[], 200, FRESH, 0, &[(CC, "no-store")], NotCached),
        (&[], 200, FRESH, 3, &[(CC, "only-if-cached")], Cached),
        (&[], 200, &[(CC, "max-age=1"), ("ETag", "\"abc\"")], 3, &[(CC, "only-if-cached")], Timeout),
        (&[], 200, &[(CC, "no-store")], 0, &[(CC, "only-if-cached")], Timeout),
        // RFC 8246 §2.
        (&[], 200, &[(CC, "max-age=3600, immutable"), ("ETag", "\"a\"")], 3, &[(CC, "max-age=0")], Cached),
        (&[], 200, &[(CC, "max-age=3600, immutable"), ("ETag", "\"a\"")], 3, &[(CC, "no-cache")], EtagValidated),
        (&[], 200, &[(CC, "max-age=2, immutable"), ("ETag", "\"a\"")], 3, &[(CC, "max-age=0")], EtagValidated),
    ]);
}

#[test]
fn rfc9111_5_4_pragma() {
    const FRESH: Lines<'_> = &[(CC, "max-age=3600")];
    check(&[
        (&[], 200, FRESH, 0, &[("Pragma", "no-cache")], NotCached),
        (&[], 200, FRESH, 0, &[("Pragma", "no-cache"), (CC, "nothing")], Cached),
        (&[], 200, FRESH, 0, &[("Pragma", "unrecognised-extension")], Cached),
        (&[], 200, &[(CC, "max-age=3600"), ("Pragma", "no-cache")], 0, &[], Cached),
        (&[], 200, &[("Last-Modified", "@-10000"), ("Pragma", "no-cache")], 0, &[], NotCached),
        (&[], 200, &[(CC, "max-age=3600"), ("Pragma", "unrecognised-extension")], 0, &[], Cached),
    ]);
}

#[test]
fn rfc9213_targeted_fields() {
    check_responses(&[
        (&[(CDN, "max-age=3600")], Cached),
        (&[(CDN, "max-age=2147483648")], Cached),
        (&[(CDN, "max-age=99999999999")], Cached),
        (&[DATE, (CDN, "max-age=3600"), ("Age", "7200")], NotCached),
        (&[(CC, "max-age=1"), (CDN, "max-age =100")], NotCached),
        (&[(CC, "max-age=1"), (CDN, "max-age= 100")], NotCached),
        (&[(CDN, "max-age=0")], NotCached),
        (&[(CDN, "max-age=-1")], NotCached),
        (&[(CDN, "foobar, max-age=3600")], Cached),
        (&[(CDN, "MaX-aGe=3600")], NotCached),
        (&[(CDN, "max-age=3600"), ("Expires", "@-10000"), DATE], Cached),
        (&[(CDN, "max-age=3600"), ("Expires", "0"), DATE], Cached),
        (&[(CDN, "max-age=0"), ("Expires", "@10000"), DATE], NotCached),
        (&[(CC, "max-age=1"), (CDN, "max-age=3600")], Cached),
        (&[(CC, "max-age=3600"), (CDN, "max-age=1")], NotCached),
        (&[(CDN, "private"), (CC, "max-age=10000"), ("Expires", "@10000"), DATE], NotCached),
        (&[(CDN, "no-cache"), (CC, "max-age=10000"), ("Expires", "@10000"), DATE], NotCached),
        (&[(CC, "max-age=10000"), (CDN, "no-store"), ("Expires", "@10000"), DATE], NotCached),
        (&[(CC, "no-store"), (CDN, "max-age=10000")], Cached),
        (&[(CDN, "max-age=10000, &&&&&"), (CC, "no-store")], NotCached),
        (&[(CDN, "max-age=\"10000\""), (CC, "no-store")], NotCached),
        (&[(CDN, "max-age=\"10000\""), (CC, "no-store"), ("Last-Modified", "@-86400"), DATE], NotCached),
        (&[(CDN, ""), (CC, "max-age=10000")], Cached),
        (&[(CDN, "none"), (CC, "max-age=10000")], NotCached),
        (&[(CDN, "max-age=10000"), (CDN, "no-store")], NotCached),
    ]);
}

#[test]
fn rfc9111_4_1_vary() {
    let varied = |vary: &'static str| [(CC, "max-age=5000"), ("Last-Modified", "@-3000"), DATE, ("Vary", vary)];
    let one: Lines<'_> = &[("Foo", "1")];
    let three: Lines<'_> = &[("Foo", "1"), ("Bar", "abc"), ("Baz", "789")];
    let by_foo = varied("Foo");
    let by_two = varied("Foo, Bar");
    let by_three = varied("Foo, Bar, Baz");
    let by_language = varied("Accept-Language");
    let languages: Lines<'_> = &[("Accept-Language", "en, de")];
    check(&[
        (one, 200, &by_foo, 0, one, Cached),
        (one, 200, &by_foo, 0, &[("Foo", "2")], NotCached),
        (&[], 200, &by_foo, 0, one, NotCached),
        (one, 200, &by_foo, 0, &[], NotCached),
        (&[("Foo", "")], 200, &by_foo, 0, &[], NotCached),
        (&[("Foo", "1"), ("Other", "2")], 200, &by_foo, 0, &[("Foo", "1"), ("Other", "3")], Cached),
        (&[("Foo", "1"), ("Bar", "abc")], 200, &by_two, 0, &[("Foo", "1"), ("Bar", "abc")], Cached),
        (&[("Foo", "1"), ("Bar", "abc")], 200, &by_two, 0, &[("Foo", "2"), ("Bar", "abc")], NotCached),
        (&[("Foo", "1"), ("Bar", "abc")], 200, &by_two, 0, &[], NotCached),
        (three, 200, &by_three, 0, three, Cached),
        (three, 200, &by_three, 0, &[("Foo", "2"), ("Bar", "abc"), ("Baz", "789")], NotCached),
        (three, 200, &by_three, 0, &[("Foo", "1"), ("Baz", "789"), ("Bar", "abcde")], NotCached),
        (three, 200, &by_three, 0, &[("Baz", "789"), ("Bar", "abc"), ("Foo", "1")], Cached),
        (&[("Foo", "1"), ("Baz", "789")], 200, &by_three, 0, &[("Foo", "1"), ("Baz", "789")], Cached),
        (&[("Foo", "1, 2")], 200, &by_foo, 0, &[("Foo", "1"), ("Foo", "2")], Cached),
        (&[("Foo", "1"), ("Foo", "2")], 200, &by_foo, 0, &[("Foo", "1,2")], Cached),
        (&[("Foo", "1,2")], 200, &by_foo, 0, &[("Foo", "1,  2")], Cached),
        (&[("Foo", "1,2")], 200, &by_foo, 0, &[("Foo", "2,1")], NotCached),
        (languages, 200, &by_language, 0, &[("Accept-Language", "de, en")], Cached),
        (languages, 200, &by_language, 0, &[("Accept-Language", "eN, De")], Cached),
        (languages, 200, &by_language, 0, &[("Accept-Language", "en ,   de")], Cached),
        (languages, 200, &by_language, 0, &[("Accept-Language", "de, en;q=0.5")], NotCached),
    ]);
    let star = ["*", "*, *", ", *", "*, Foo", "Foo, *", "Foo, b@d"];
    for vary in star {
        check(&[(three, 200, &varied(vary), 0, three, NotCached)]);
    }
    check(&[(three, 200, &[(CC, "max-age=5000"), ("Vary", "*"), ("Vary", "*")], 0, three, NotCached)]);
    check(&[(three, 200, &[(CC, "max-age=5000"), ("Vary", ""), ("Vary", "*")], 0, three, NotCached)]);
}

#[test]
fn rfc9111_4_1_language_by_quality_value() {
    let german: Lines<'_> = &[(CC, "max-age=5000"), ("Vary", "Accept-Language"), ("Content-Language", "de")];
    let first: Lines<'_> = &[("Accept-Language", "en, de")];
    check(&[
        (first, 200, german, 0, &[("Accept-Language", "fr;q=0.5, de;q=1.0")], Cached),
        (first, 200, german, 0, &[("Accept-Language", "DE")], Cached),
        (first, 200, german, 0, &[("Accept-Language", "fr, de;q=0.5")], NotCached),
        (first, 200, german, 0, &[("Accept-Language", "fr, de")], NotCached),
        (first, 200, german, 0, &[("Accept-Language", "de;q=0")], NotCached),
        (first, 200, german, 0, &[("Accept-Language", "de-AT")], NotCached),
        (first, 200, german, 0, &[], NotCached),
        (first, 200, &[(CC, "max-age=5000"), ("Vary", "Accept-Language, Foo"), ("Content-Language", "de")], 0,
            &[("Accept-Language", "de"), ("Foo", "1")], NotCached),
    ]);
}

#[test]
fn rfc9111_4_1_two_variants_live_side_by_side() {
    let mut shelf = Shelf::new();
    for foo in ["1", "2"] {
        let answer = response(200, &[(CC, "max-age=5000"), ("Vary", "Foo"), ("Body", foo)]);
        shelf.store(&get(&[("Foo", foo)]), &answer, NOW).unwrap();
    }
    for foo in ["1", "2"] {
        let (_, fields) = shelf.chosen(&get(&[("Foo", foo)])).unwrap();
        assert_eq!(fields.get("Body"), Some(foo.as_bytes()));
    }
    assert_eq!(shelf.reuse(&get(&[("Foo", "3")]), NOW), Reuse::Forward(Forward::VaryMiss));
}

#[test]
fn rfc9111_4_3_2_conditions_of_clients() {
    const FRESH: (&str, &str) = (CC, "max-age=100000");
    let strong: Lines<'_> = &[FRESH, ("ETag", "\"abcdef\"")];
    let weak: Lines<'_> = &[FRESH, ("ETag", "W/\"abcdef\"")];
    let dated: Lines<'_> = &[FRESH, ("Last-Modified", "@-3000"), DATE];
    let both: Lines<'_> = &[FRESH, ("Last-Modified", "@-5000"), ("ETag", "\"abcdef\"")];
    check(&[
        (&[], 200, strong, 3, &[("If-None-Match", "\"abcdef\"")], NotModified),
        (&[], 200, strong, 3, &[("If-None-Match", "W/\"abcdef\"")], NotModified),
        (&[], 200, strong, 3, &[("If-None-Match", "*")], NotModified),
        (&[], 200, strong, 3, &[("If-None-Match", "\"other\"")], Cached),
        (&[], 200, strong, 3, &[("If-None-Match", "\"abcdef\", \"1234\", \"5678\"")], NotModified),
        (&[], 200, strong, 3, &[("If-None-Match", "\"1234\", \"abcdef\", \"5678\"")], NotModified),
        (&[], 200, strong, 3, &[("If-None-Match", "\"1234\", \"5678\", \"abcdef\"")], NotModified),
        (&[], 200, strong, 3, &[("If-None-Match", "\"1234\""), ("If-None-Match", "\"abcdef\"")], NotModified),
        (&[], 200, strong, 3, &[("If-None-Match", "\"12,34\",,\"abcdef\"")], NotModified),
        (&[], 200, weak, 3, &[("If-None-Match", "W/\"abcdef\"")], NotModified),
        (&[], 200, weak, 3, &[("If-None-Match", "\"abcdef\"")], NotModified),
        (&[], 200, &[FRESH, ("ETag", "abcdef")], 3, &[("If-None-Match", "abcdef")], NotModified),
        (&[], 200, &[FRESH, ("ETag", "w/\"abcdef\"")], 3, &[("If-None-Match", "w/\"abcdef\"")], NotModified),
        (&[], 200, both, 3, &[("If-None-Match", "\"abcdef\""), ("If-Modified-Since", "@-9000")], NotModified),
        (&[], 200, both, 3, &[("If-None-Match", "\"other\""), ("If-Modified-Since", "@0")], Cached),
        (&[], 200, dated, 3, &[("If-Modified-Since", "@-3000")], NotModified),
        (&[], 200, dated, 3, &[("If-Modified-Since", "@-2000")], NotModified),
        (&[], 200, dated, 3, &[("If-Modified-Since", "@-3001")], Cached),
        (&[], 200, dated, 3, &[("If-Modified-Since", "rubbish")], Cached),
        (&[], 200, dated, 3, &[("If-Modified-Since", "Wednesday, 31-Dec-25 23:10:00 GMT")], NotModified),
        (&[], 200, &[FRESH, DATE], 3, &[("If-Modified-Since", "@0")], NotModified),
        (&[], 200, &[FRESH, DATE], 3, &[("If-Modified-Since", "@-3000")], Cached),
        (&[], 404, strong, 3, &[("If-None-Match", "\"abcdef\"")], Cached),
        (&[], 200, strong, 3, &[("If-Match", "\"abcdef\"")], NotCached),
        (&[], 200, dated, 3, &[("If-Unmodified-Since", "@0")], NotCached),
        (&[], 200, &[(CC, "max-age=2"), ("ETag", "\"a\"")], 3, &[], EtagValidated),
        (&[], 200, &[(CC, "max-age=2"), ("ETag", "W/\"a\"")], 3, &[], EtagValidated),
        (&[], 200, &[(CC, "max-age=2"), ("Last-Modified", "@-3000")], 3, &[("If-Modified-Since", "@-3000")], LmValidated),
        (&[("Abc", "123")], 200, &[("Expires", "@1"), ("ETag", "\"a\""), DATE, ("Vary", "Abc")], 3, &[("Abc", "123")], EtagValidated),
    ]);
}

#[test]
fn rfc9111_3_5_authorization() {
    const FOO: Lines<'_> = &[("Authorization", "FOO")];
    check(&[
        (FOO, 200, &[("Expires", "@2592000"), DATE], 3, &[], NotCached),
        (FOO, 200, &[(CC, "max-age=3600"), DATE], 3, FOO, NotCached),
        (FOO, 200, &[(CC, "max-age=3600, public"), DATE], 3, &[], Cached),
        (FOO, 200, &[(CC, "max-age=3600, must-revalidate"), DATE], 3, &[], Cached),
        (FOO, 200, &[(CC, "s-maxage=3600"), DATE], 3, &[], Cached),
    ]);
}

#[test]
fn rfc5861_stale_responses() {
    check(&[
        (&[], 200, &[(CC, "max-age=1, stale-while-revalidate=3600"), ("ETag", "\"abc\"")], 3, &[], Cached),
        (&[], 200, &[(CC, "max-age=0, stale-while-revalidate=3600")], 3, &[], Cached),
        (&[], 200, &[(CC, "max-age=1, stale-while-revalidate=4"), ("ETag", "\"abc\"")], 6, &[], EtagValidated),
        (&[], 200, &[(CC, "max-age=1, stale-while-revalidate=rubbish"), ("ETag", "\"abc\"")], 3, &[], EtagValidated),
        (&[], 200, &[(CC, "max-age=1, must-revalidate, stale-while-revalidate=60"), ("ETag", "\"a\"")], 3, &[], EtagValidated),
        (&[], 200, &[(CC, "s-maxage=1, stale-while-revalidate=60"), ("ETag", "\"a\"")], 3, &[], Cached),
        (&[], 200, &[(CC, "max-age=1, stale-while-revalidate=60"), ("ETag", "\"a\"")], 3, &[(CC, "max-age=1")], EtagValidated),
    ]);
    let failed: &[(&str, Lines<'_>, bool)] = &[
        ("max-age=2", &[], false),
        ("max-age=2, stale-if-error=60", &[], true),
        ("max-age=2, stale-if-error=60", &[(CC, "no-cache")], false),
        ("max-age=0, stale-if-error=1", &[], false),
        ("max-age=2, s-maxage=2", &[(CC, "stale-if-error=60")], false),
        ("max-age=2", &[(CC, "stale-if-error=60")], true),
        ("max-age=0", &[(CC, "stale-if-error=1")], false),
        ("max-age=2, must-revalidate, stale-if-error=60", &[], false),
        ("max-age=2, proxy-revalidate, stale-if-error=60", &[], false),
        ("no-cache, stale-if-error=60", &[], false),
    ];
    for (directives, second, expected) in failed {
        let mut shelf = Shelf::new();
        shelf
            .store(&get(&[]), &response(200, &[(CC, directives), ("ETag", "\"a\"")]), NOW)
            .unwrap();
        let later = NOW.plus(Duration::from_secs(3));
        let served = reuse_on_error(&get(second), &shelf.stored[0].0, later, &ReusePolicy::default());
        assert_eq!(served.is_some(), *expected, "{directives} {second:?}");
    }
}

#[test]
fn rfc9111_5_1_age_is_counted_on() {
    for lines in [[("Expires", "@2592000"), DATE, ("Age", "30")], [(CC, "max-age=600"), DATE, ("Age", "30")]] {
        let mut shelf = Shelf::new();
        let mut head = response(200, &[]);
        head.fields = dated_fields(&lines);
        shelf.store(&get(&[]), &head, NOW).unwrap();
        let Reuse::Fresh(served) = shelf.reuse(&get(&[]), NOW.plus(Duration::from_secs(3))) else {
            panic!("not reused");
        };
        assert_eq!(served.age.get(), 33);
        let stored = &shelf.stored[0].1;
        assert!(!stored.contains("age"), "Age is not kept");
        assert_eq!(stored.get("date"), Some(in_seconds(0).as_bytes()), "Date stays as it was");
    }
}

#[test]
fn rfc9111_4_requests_with_cookies_get_what_the_origin_lets_be_shared() {
    const COOKIE: Lines<'_> = &[("Cookie", "a=b")];
    check(&[
        (&[], 200, &[(CC, "max-age=3600")], 0, COOKIE, Cached),
        (COOKIE, 200, &[(CC, "max-age=3600")], 0, &[], Cached),
        // Heuristic freshness is not the origin's word.
        (&[], 200, &[("Last-Modified", "@-86400")], 0, COOKIE, LmValidated),
        (COOKIE, 200, &[("Last-Modified", "@-86400")], 0, &[], NotCached),
    ]);
}

#[test]
fn rfc9110_9_3_3_post_with_its_own_content_location_answers_get() {
    let cases: &[(Lines<'_>, Result<(), Unstorable>)] = &[
        (&[("Expires", "@2592000"), ("Content-Location", "/"), DATE], Ok(())),
        (&[("Expires", "@2592000"), ("Content-Location", "http://example.org/"), DATE], Ok(())),
        (&[("Expires", "@2592000"), ("Content-Location", "/x"), DATE], Err(Unstorable::Method)),
        (&[("Expires", "@2592000"), DATE], Err(Unstorable::Method)),
        (&[("Last-Modified", "@-86400"), ("Content-Location", "/"), DATE], Err(Unstorable::NoFreshness)),
    ];
    for (lines, expected) in cases {
        let mut shelf = Shelf::new();
        let mut head = response(200, &[]);
        head.fields = dated_fields(lines);
        let post = request("POST", "/", &[("Content-Type", "text/plain")]);
        assert_eq!(shelf.store(&post, &head, NOW), *expected, "{lines:?}");
        let seen = shelf.outcome(&get(&[]), NOW.plus(Duration::from_secs(3)));
        assert_eq!(seen == Cached, expected.is_ok(), "{lines:?}");
        assert!(!invalidation::is_safe(&post.method));
    }
}

#[test]
fn rfc9111_4_methods_other_than_get_and_head_are_forwarded() {
    let mut shelf = Shelf::new();
    shelf.store(&get(&[]), &response(200, &[(CC, "max-age=60")]), NOW).unwrap();
    for (method, expected) in [("HEAD", true), ("POST", false), ("OPTIONS", false), ("QUERY", false), ("FOO", false)] {
        let reuse = shelf.reuse(&request(method, "/", &[]), NOW);
        assert_eq!(matches!(reuse, Reuse::Fresh(_)), expected, "{method}");
        assert!(expected || reuse == Reuse::Forward(Forward::Method), "{method}");
    }
}

#[test]
fn rfc9111_3_2_a_304_updates_all_fields_but_those_of_the_body() {
    // Name, stored, sent with the 304, expected.
    let cases: &[(&str, &str, &str, &str)] = &[
        ("Test-Header", "a", "b", "b"),
        ("X-Test-Header", "a", "b", "b"),
        ("Content-Foo", "a", "b", "b"),
        ("X-Content-Foo", "a", "b", "b"),
        ("Cache-Control", "max-age=2", "max-age=3600", "max-age=3600"),
        ("Content-Type", "text/plain", "text/plain;charset=utf-8", "text/plain;charset=utf-8"),
        ("Content-Location", "/foo", "/bar", "/bar"),
        ("Content-Security-Policy", "default-src 'self'", "default-src x", "default-src x"),
        ("Expires", "Fri, 01 Jan 2038 01:01:01 GMT", "Mon, 11 Jan 2038 11:11:11 GMT", "Mon, 11 Jan 2038 11:11:11 GMT"),
        ("Content-Encoding", "gzip", "br", "gzip"),
        ("Content-Length", "5", "10", "5"),
    ];
    let stale = NOW.plus(Duration::from_secs(3));
    for (name, old, new, expected) in cases {
        let mut shelf = Shelf::new();
        let mut lines = vec![("ETag", "\"a\""), ("Keep", "me"), (*name, *old)];
        if *name != "Cache-Control" {
            lines.push((CC, "max-age=2"));
        }
        shelf.store(&get(&[]), &response(200, &lines), NOW).unwrap();
        let (meta, stored) = &shelf.stored[0];
        let answer = response(304, &[("ETag", "\"a\""), (CC, "max-age=60"), (*name, *new)]);
        assert_eq!(selected_by_304([((), meta)], &answer.fields, stale).len(), 1);
        let freshened = freshen(&get(&[]), meta, stored, &answer, at_once(stale), &shelf.policy());
        let Freshened::Store(accepted) = freshened else {
            panic!("{name}: {freshened:?}");
        };
        let last = accepted.fields.get_all(name).last();
        assert_eq!(last, Some(expected.as_bytes()), "{name}");
        assert_eq!(accepted.fields.get("keep"), Some(&b"me"[..]), "{name}");
        assert!(accepted.meta.is_fresh(stale), "{name}");
        assert_eq!(accepted.meta.status, 200);
    }
}

#[test]
fn rfc9110_14_2_ranges_of_a_stored_response() {
    let mut shelf = Shelf::new();
    shelf.store(&get(&[]), &response(200, &[(CC, "max-age=60")]), NOW).unwrap();
    for (range, first, last) in [("bytes=0-1", 0, 1), ("bytes=1-", 1, 10), ("bytes=-1", 10, 10)] {
        let request = get(&[("Range", range)]);
        assert_eq!(shelf.outcome(&request, NOW), Cached, "{range}");
        let Selection::Parts(parts) = selection(&request, &shelf.stored[0].0, 11) else {
            panic!("{range}");
        };
        assert_eq!(parts.iter().map(|part| (part.first(), part.last())).collect::<Vec<_>>(), [(first, last)]);
    }
}
