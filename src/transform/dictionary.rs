//! Compression dictionaries (RFC 9842): which response offers itself as one, which one a request has, and where one may be used.
//!
//! The client decides which of its dictionaries it names, by rules of its own (§2.2). Everything that can be checked of them here is
//! checked again, so that no response is ever put together with something of another origin.

mod pattern;

use sfv::{BareItem, Item, ListEntry, Parser};

use self::pattern::Pattern;
use crate::key::KeyUri;
use crate::message::Fields;

/// SHA-256 of a dictionary.
pub type Digest = [u8; 32];

/// Bytes of the longest id (RFC 9842 §2.1.3), which has a kilobyte.
const MAX_ID: usize = 1024;

/// What a response says of its use as a dictionary (RFC 9842 §2.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    pattern: Pattern,
    /// What responses are for that it is to be used with, as `Sec-Fetch-Dest` has it; empty: for anything.
    destinations: Vec<String>,
    /// What clients send back with it. Empty: nothing.
    id: String,
    /// As the response has it.
    said: Box<[u8]>,
}

impl Offer {
    /// Reads `Use-As-Dictionary` of the response for `uri`. `None`: it is no dictionary, or none that is understood here.
    pub fn of(response: &Fields, uri: KeyUri<'_>) -> Option<Self> {
        let mut lines = response.get_all("use-as-dictionary").peekable();
        lines.peek()?;
        Self::read(lines.collect::<Vec<_>>().join(&b", "[..]), uri)
    }

    /// Reads what [`Offer::as_bytes`] gives.
    pub fn read(said: Vec<u8>, uri: KeyUri<'_>) -> Option<Self> {
        let members = Parser::parse_dictionary(&said).ok()?;
        let mut pattern = None;
        let (mut destinations, mut id) = (Vec::new(), String::new());
        for (name, member) in members {
            match (name.as_str(), member) {
                // §2.1.1; an URL pattern that cannot be read is none.
                ("match", ListEntry::Item(item)) => pattern = Some(Pattern::parse(string(item)?.as_str(), uri)?),
                // §2.1.2
                ("match-dest", ListEntry::InnerList(list)) => {
                    destinations = list.items.into_iter().map(string).collect::<Option<_>>()?;
                }
                ("id", ListEntry::Item(item)) => id = string(item).filter(|id| id.len() <= MAX_ID)?,
                // §2.1.4: there is only one type that is known.
                ("type", ListEntry::Item(item)) => match item.bare_item {
                    BareItem::Token(token) if token.as_str() == "raw" => {}
                    _ => return None,
                },
                ("match" | "match-dest" | "id" | "type", _) => return None,
                _ => {}
            }
        }
        Some(Self {
            pattern: pattern?,
            destinations,
            id,
            said: said.into(),
        })
    }

    /// The value of `Use-As-Dictionary`.
    pub fn as_bytes(&self) -> &[u8] {
        &self.said
    }

    /// Whether it is to be used for the response to this request, whose target is in normal form. The origin has to be the same; that is for
    /// the caller to see to.
    pub fn fits(&self, target: &str, request: &Fields) -> bool {
        // What scripts ask for has an empty destination, which this field calls "empty" (Fetch Metadata §2.1).
        let destination = match request.get("sec-fetch-dest").map(<[u8]>::trim_ascii) {
            Some(b"empty") => Some(&b""[..]),
            destination => destination,
        };
        let wants = |destination: &[u8]| self.destinations.iter().any(|wanted| wanted.as_bytes() == destination);
        self.pattern.matches(target)
            && (self.destinations.is_empty() || destination.is_none_or(wants))
            && has_id(request, &self.id)
    }
}

/// The dictionary that a request has (RFC 9842 §2.2). `None`: it has none, or does not say so in a way that can be read.
pub fn available(request: &Fields) -> Option<Digest> {
    let mut lines = request.get_all("available-dictionary");
    match (lines.next(), lines.next()) {
        (Some(line), None) => match Parser::parse_item(line).ok()?.bare_item {
            BareItem::ByteSeq(bytes) => bytes.try_into().ok(),
            _ => None,
        },
        _ => None,
    }
}

/// Whether a request names this id (RFC 9842 §2.3); none where that is empty.
fn has_id(request: &Fields, id: &str) -> bool {
    let mut lines = request.get_all("dictionary-id");
    match (lines.next(), lines.next()) {
        (None, _) => id.is_empty(),
        (Some(line), None) => match Parser::parse_item(line).ok().and_then(string) {
            Some(named) => named == id,
            None => false,
        },
        (Some(_), Some(_)) => false,
    }
}

fn string(item: Item) -> Option<String> {
    match item.bare_item {
        BareItem::String(string) => Some(string),
        _ => None,
    }
}

/// Whether whoever has caused the request may read the response (RFC 9842 §9.3.3): only then its length may depend on a dictionary.
pub fn is_readable(request: &Fields, response: &Fields) -> bool {
    let is = |name: &str, value: &[u8]| request.get(name).map(|is| is.trim_ascii() == value);
    if is("sec-fetch-site", b"same-origin").unwrap_or(true) {
        return true;
    }
    let Some(mode) = request.get("sec-fetch-mode").map(<[u8]>::trim_ascii) else {
        return true;
    };
    match mode {
        b"navigate" | b"same-origin" => true,
        b"cors" => {
            let allowed = response.get("access-control-allow-origin").map(<[u8]>::trim_ascii);
            match (allowed, request.get("origin").map(<[u8]>::trim_ascii)) {
                (Some(allowed), Some(origin)) => allowed == b"*" || allowed == origin,
                _ => false,
            }
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::fields;

    const URI: KeyUri<'static> = KeyUri {
        scheme: "https",
        authority: "example.org",
        path: "/js/app.v1.js",
        query: None,
    };

    fn offer(value: &str) -> Option<Offer> {
        Offer::of(&fields(&[("Use-As-Dictionary", value)]), URI)
    }

    #[test]
    fn rfc9842_2_1_offers_are_read() {
        for (value, understood) in [
            ("match=\"/js/*\"", true),
            ("match=\"/js/*\", type=raw", true),
            ("match=\"/js/*\", match-dest=(\"script\" \"\"), id=\"x\", more=7", true),
            ("match=\"/js/*\", match-dest=()", true),
            ("", false),
            ("id=\"x\"", false),
            ("match=/js", false),
            ("match=\"/js/(a|b)\"", false),
            ("match=\"https://example.com/js/*\"", false),
            ("match=\"/js/*\", type=other", false),
            ("match=\"/js/*\", type=\"raw\"", false),
            ("match=\"/js/*\", match-dest=\"script\"", false),
            ("match=\"/js/*\", id=x", false),
            ("match=\"/js/*", false),
        ] {
            assert_eq!(offer(value).is_some(), understood, "{value}");
        }
        let long = format!("match=\"/js/*\", id=\"{}\"", "x".repeat(MAX_ID + 1));
        assert_eq!(offer(&long), None);
        assert_eq!(Offer::of(&Fields::new(), URI), None);
        let lines = [
            ("Use-As-Dictionary", "match=\"/a\""),
            ("Use-As-Dictionary", "match=\"/b\""),
        ];
        let several = Offer::of(&fields(&lines), URI).unwrap();
        assert!(several.fits("/b", &Fields::new()) && !several.fits("/a", &Fields::new()));
    }

    #[test]
    fn rfc9842_2_2_what_is_offered_for_something_is_used_for_that() {
        let any = offer("match=\"/js/*.js\"").unwrap();
        let scripts = offer("match=\"/js/*\", match-dest=(\"script\")").unwrap();
        let fetched = offer("match=\"/js/*\", match-dest=(\"\")").unwrap();
        let named = offer("match=\"/js/*\", id=\"a\\\"b\"").unwrap();
        for (offer, target, request, expected) in [
            (&any, "/js/app.v2.js", &[][..], true),
            (&any, "/js/app.v2.js?x", &[], true),
            (&any, "/css/app.css", &[], false),
            (&any, "/js/app.v2.js", &[("Dictionary-ID", "\"x\"")], false),
            (&scripts, "/js/a", &[("Sec-Fetch-Dest", "script")], true),
            (&scripts, "/js/a", &[("Sec-Fetch-Dest", "empty")], false),
            (&scripts, "/js/a", &[], true),
            (&fetched, "/js/a", &[("Sec-Fetch-Dest", "empty")], true),
            (&fetched, "/js/a", &[("Sec-Fetch-Dest", "script")], false),
            (&named, "/js/a", &[("Dictionary-ID", "\"a\\\"b\"")], true),
            (&named, "/js/a", &[("Dictionary-ID", "\"a\"")], false),
            (&named, "/js/a", &[("Dictionary-ID", "a")], false),
            (&named, "/js/a", &[], false),
        ] {
            assert_eq!(offer.fits(target, &fields(request)), expected, "{target} {request:?}");
        }
    }

    #[test]
    fn rfc9842_2_2_one_dictionary_is_available() {
        let zeros = ":AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:";
        for (lines, expected) in [
            (&[zeros][..], Some([0; 32])),
            (&[], None),
            (&[zeros, zeros], None),
            (&[":AAAA:"], None),
            (&["\"AAAA\""], None),
            (&["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="], None),
            (&[""], None),
        ] {
            let lines: Vec<_> = lines.iter().map(|line| ("Available-Dictionary", *line)).collect();
            assert_eq!(available(&fields(&lines)), expected, "{lines:?}");
        }
    }

    #[test]
    fn rfc9842_9_3_3_what_cannot_be_read_is_not_compressed_with_a_dictionary() {
        const SITE: (&str, &str) = ("Sec-Fetch-Site", "cross-site");
        const CORS: (&str, &str) = ("Sec-Fetch-Mode", "cors");
        const ORIGIN: (&str, &str) = ("Origin", "https://a.example");
        for (request, allowed, expected) in [
            (&[][..], None, true),
            (
                &[("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Mode", "no-cors")],
                None,
                true,
            ),
            (&[SITE], None, true),
            (&[SITE, ("Sec-Fetch-Mode", "navigate")], None, true),
            (&[SITE, ("Sec-Fetch-Mode", "same-origin")], None, true),
            (&[SITE, ("Sec-Fetch-Mode", "no-cors")], None, false),
            (&[SITE, ("Sec-Fetch-Mode", "no-cors")], Some("*"), false),
            (&[SITE, CORS], None, false),
            (&[SITE, CORS, ORIGIN], None, false),
            (&[SITE, CORS], Some("*"), false),
            (&[SITE, CORS, ORIGIN], Some("*"), true),
            (&[SITE, CORS, ORIGIN], Some("https://a.example"), true),
            (&[SITE, CORS, ORIGIN], Some("https://b.example"), false),
            (
                &[("Sec-Fetch-Site", "same-site"), ("Sec-Fetch-Mode", "websocket")],
                None,
                false,
            ),
        ] {
            let response: Vec<_> = allowed
                .into_iter()
                .map(|value| ("Access-Control-Allow-Origin", value))
                .collect();
            let readable = is_readable(&fields(request), &fields(&response));
            assert_eq!(readable, expected, "{request:?} {allowed:?}");
        }
    }
}
