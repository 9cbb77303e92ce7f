//! Cache directives (RFC 9111 §5.2), read from arbitrary bytes and resolved to the safe side.
//!
//! Where a directive stands more than once the most restrictive occurrence counts, and a lifetime that cannot be read is zero
//! (RFC 9111 §4.2.1: either the first or stale; conflicts are decided for the most restrictive).

use sfv::{BareItem, ListEntry, Parser};

use super::date::Seconds;
use crate::message::{Fields, is_token, is_token_byte};

/// One member of a `Cache-Control` list, known or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Directive<'a> {
    /// As received; compare without case.
    pub name: &'a [u8],
    pub argument: Argument<'a>,
}

/// What stands behind a directive's `=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Argument<'a> {
    None,
    /// The token, or what is between the quotes (escapes are left in: no directive that is known here needs them).
    Value(&'a [u8]),
    /// Spaces around `=`, a quote that is not closed, text behind a closed one.
    Malformed,
}

/// Splits one field line into its members (RFC 9110 §5.6.1).
///
/// A quote that is never closed does not hide what follows it: the rest is split at commas all the same, its arguments marked
/// as malformed, so that a restriction in there is still seen and a lifetime in there is worth nothing.
pub fn directives(line: &[u8]) -> Directives<'_> {
    Directives {
        rest: line,
        broken: false,
    }
}

/// See [`directives`].
#[derive(Debug, Clone)]
pub struct Directives<'a> {
    rest: &'a [u8],
    broken: bool,
}

impl<'a> Iterator for Directives<'a> {
    type Item = Directive<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.rest.is_empty() {
                return None;
            }
            let end = match member_end(self.rest) {
                Some(end) if !self.broken => end,
                _ => {
                    self.broken = true;
                    self.rest.iter().position(|b| *b == b',').unwrap_or(self.rest.len())
                }
            };
            let (member, rest) = self.rest.split_at(end);
            self.rest = rest.get(1..).unwrap_or_default();
            let member = member.trim_ascii();
            if !member.is_empty() {
                return Some(directive(member, self.broken));
            }
        }
    }
}

/// Where the first member ends: at a comma outside of quotes, or at the end. `None`: a quote stays open.
fn member_end(bytes: &[u8]) -> Option<usize> {
    // Mostly there are no quotes.
    match bytes.iter().position(|byte| matches!(byte, b',' | b'"')) {
        Some(at) if bytes.get(at) == Some(&b'"') => quoted_member_end(bytes),
        Some(at) => Some(at),
        None => Some(bytes.len()),
    }
}

fn quoted_member_end(bytes: &[u8]) -> Option<usize> {
    let mut quoted = false;
    let mut escaped = false;
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => return Some(at),
            _ => {}
        }
    }
    if quoted { None } else { Some(bytes.len()) }
}

fn directive(member: &[u8], broken: bool) -> Directive<'_> {
    let Some(equals) = member.iter().position(|b| *b == b'=') else {
        return Directive {
            name: member,
            argument: if broken { Argument::Malformed } else { Argument::None },
        };
    };
    let (name, value) = member.split_at(equals);
    let value = value.get(1..).unwrap_or_default();
    let argument = if broken || name.trim_ascii().len() != name.len() {
        Argument::Malformed
    } else {
        match value {
            [b'"', inner @ .., b'"'] if !inner.contains(&b'"') => Argument::Value(inner),
            [] => Argument::Value(value),
            _ if value.iter().all(|b| is_token_byte(*b)) => Argument::Value(value),
            _ => Argument::Malformed,
        }
    };
    Directive {
        name: name.trim_ascii(),
        argument,
    }
}

/// Length of the longest name that is known: `stale-while-revalidate`.
const LONGEST: usize = 22;

/// A name in lower case.
struct Lower {
    bytes: [u8; LONGEST],
    length: usize,
}

impl Lower {
    /// Nothing, where it is longer than any that is known.
    fn of(name: &[u8]) -> Self {
        let mut bytes = [0; LONGEST];
        match bytes.get_mut(..name.len()) {
            Some(lower) => {
                lower.copy_from_slice(name);
                // All of it, because a fixed length takes no loop.
                bytes.make_ascii_lowercase();
                let length = name.len();
                Self { bytes, length }
            }
            None => Self { bytes, length: 0 },
        }
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl Directive<'_> {
    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    fn seconds(&self) -> Option<Seconds> {
        match self.argument {
            Argument::Value(value) => Seconds::parse(value),
            Argument::None | Argument::Malformed => None,
        }
    }

    /// A lifetime: what cannot be read is zero.
    fn lifetime(&self) -> Seconds {
        self.seconds().unwrap_or(Seconds::ZERO)
    }
}

/// The staleness that a client accepts (RFC 9111 §5.2.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxStale {
    Any,
    UpTo(Seconds),
}

/// Directives of a request (RFC 9111 §5.2.1, RFC 5861 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RequestDirectives {
    pub no_store: bool,
    pub no_cache: bool,
    pub only_if_cached: bool,
    pub no_transform: bool,
    pub max_age: Option<Seconds>,
    pub min_fresh: Option<Seconds>,
    pub max_stale: Option<MaxStale>,
    pub stale_if_error: Option<Seconds>,
}

impl RequestDirectives {
    /// Reads `Cache-Control`, and `Pragma` where there is none (RFC 9111 §5.4). Does not allocate.
    #[inline]
    pub fn parse(fields: &Fields) -> Self {
        match fields.contains("cache-control") || fields.contains("pragma") {
            true => Self::parse_lines(fields),
            false => Self::default(),
        }
    }

    fn parse_lines(fields: &Fields) -> Self {
        let mut found = Self::default();
        let mut cache_control = false;
        for line in fields.get_all("cache-control") {
            cache_control = true;
            for directive in directives(line) {
                found.apply(&directive);
            }
        }
        if !cache_control {
            found.no_cache = pragma_no_cache(fields);
        }
        found
    }

    fn apply(&mut self, directive: &Directive<'_>) {
        match Lower::of(directive.name).as_bytes() {
            b"no-store" => self.no_store = true,
            b"no-cache" => self.no_cache = true,
            b"only-if-cached" => self.only_if_cached = true,
            b"no-transform" => self.no_transform = true,
            b"max-age" => self.max_age = Some(shorter(self.max_age, directive.lifetime())),
            b"min-fresh" => {
                // The longer is the more restrictive one; nothing is fresh enough for what cannot be read.
                let asked = directive.seconds().unwrap_or(Seconds::MAX);
                self.min_fresh = Some(self.min_fresh.map_or(asked, |known| known.max(asked)));
            }
            b"max-stale" => {
                let asked = match directive.argument {
                    Argument::None => MaxStale::Any,
                    _ => MaxStale::UpTo(directive.lifetime()),
                };
                self.max_stale = Some(match (self.max_stale, asked) {
                    (None | Some(MaxStale::Any), asked) => asked,
                    (Some(known), MaxStale::Any) => known,
                    (Some(MaxStale::UpTo(known)), MaxStale::UpTo(asked)) => MaxStale::UpTo(known.min(asked)),
                });
            }
            b"stale-if-error" => self.stale_if_error = Some(shorter(self.stale_if_error, directive.lifetime())),
            _ => {}
        }
    }
}

/// Which field the directives of a response came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DirectiveSource {
    #[default]
    CacheControl,
    /// A targeted field (RFC 9213): `Cache-Control`, `Expires` and `Pragma` do not count.
    Targeted,
}

/// A directive that may be limited to some fields: `no-cache` and `private` (RFC 9111 §5.2.2.4, §5.2.2.7).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Scoped {
    #[default]
    Absent,
    /// Only these fields (lower case) are meant.
    Fields(Vec<String>),
    /// The whole response is meant.
    All,
}

impl Scoped {
    pub fn is_all(&self) -> bool {
        matches!(self, Self::All)
    }

    /// Whether this field alone is meant.
    pub fn names(&self, field: &str) -> bool {
        match self {
            Self::Fields(names) => names.iter().any(|name| name.eq_ignore_ascii_case(field)),
            Self::Absent | Self::All => false,
        }
    }

    /// Takes one more occurrence into account. What is not a list of field names means everything.
    fn add(&mut self, list: Option<&[u8]>) {
        let names = match list {
            Some(list) => field_names(list),
            None => None,
        };
        match (names, &mut *self) {
            (None, _) => *self = Self::All,
            (Some(names), Self::Absent) => *self = Self::Fields(names),
            (Some(names), Self::Fields(known)) => known.extend(names),
            (Some(_), Self::All) => {}
        }
    }
}

/// `#field-name`, not empty; `None` where anything else is in there.
fn field_names(list: &[u8]) -> Option<Vec<String>> {
    let mut names = Vec::new();
    for name in list.split(|b| *b == b',') {
        let name = name.trim_ascii();
        if name.is_empty() {
            continue;
        }
        if !is_token(name) {
            return None;
        }
        names.push(String::from_utf8_lossy(name).to_ascii_lowercase());
    }
    if names.is_empty() { None } else { Some(names) }
}

/// Directives of a response (RFC 9111 §5.2.2, RFC 5861 §3 and §4, RFC 8246).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResponseDirectives {
    pub source: DirectiveSource,
    pub no_store: bool,
    pub no_cache: Scoped,
    pub private: Scoped,
    pub public: bool,
    pub must_revalidate: bool,
    pub proxy_revalidate: bool,
    pub must_understand: bool,
    pub no_transform: bool,
    pub immutable: bool,
    pub max_age: Option<Seconds>,
    pub s_maxage: Option<Seconds>,
    pub stale_while_revalidate: Option<Seconds>,
    pub stale_if_error: Option<Seconds>,
}

impl ResponseDirectives {
    /// Reads the first of the `targeted` fields (most specific first) that is present, valid and not empty (RFC 9213 §2.2),
    /// else `Cache-Control`, else `Pragma`.
    pub fn parse(fields: &Fields, targeted: &[String]) -> Self {
        for name in targeted {
            if let Some(found) = Self::parse_targeted(fields, name) {
                return found;
            }
        }
        let mut found = Self::default();
        let mut cache_control = false;
        for line in fields.get_all("cache-control") {
            cache_control = true;
            for directive in directives(line) {
                found.apply(&directive);
            }
        }
        if !cache_control && pragma_no_cache(fields) {
            found.no_cache = Scoped::All;
        }
        found
    }

    fn apply(&mut self, directive: &Directive<'_>) {
        let list = match directive.argument {
            Argument::Value(list) => Some(list),
            Argument::None | Argument::Malformed => None,
        };
        match self.told_by(Lower::of(directive.name).as_bytes()) {
            Some(Told::Scoped(scoped)) => scoped.add(list),
            Some(Told::Lifetime(lifetime)) => *lifetime = Some(shorter(*lifetime, directive.lifetime())),
            Some(Told::Flag(flag)) => *flag = true,
            None => {}
        }
    }

    /// `None`: to be ignored, because it is absent, empty, no Dictionary, or has a known directive of the wrong type
    /// (RFC 9213 §2.1, §2.2).
    fn parse_targeted(fields: &Fields, name: &str) -> Option<Self> {
        if !fields.contains(name) {
            return None;
        }
        let lines: Vec<&[u8]> = fields.get_all(name).collect();
        let dictionary = Parser::parse_dictionary(&lines.join(&b","[..])).ok()?;
        if dictionary.is_empty() {
            return None;
        }
        let mut found = Self {
            source: DirectiveSource::Targeted,
            ..Self::default()
        };
        for (key, member) in &dictionary {
            let value = match member {
                ListEntry::Item(item) => Some(&item.bare_item),
                ListEntry::InnerList(_) => None,
            };
            if matches!(value, Some(BareItem::Boolean(false))) {
                continue;
            }
            let list = match value {
                Some(BareItem::String(list) | BareItem::Token(list)) => Some(list.as_bytes()),
                _ => None,
            };
            // Keys have no upper case (RFC 9651 §3.1.2).
            match found.told_by(key.as_bytes()) {
                Some(Told::Scoped(scoped)) => scoped.add(list),
                Some(Told::Lifetime(lifetime)) => match value {
                    Some(BareItem::Integer(seconds)) => {
                        *lifetime = Some(Seconds::new(u64::try_from(*seconds).unwrap_or(0)))
                    }
                    _ => return None,
                },
                Some(Told::Flag(flag)) => *flag = true,
                None => {}
            }
        }
        Some(found)
    }

    /// What a directive of this name, in lower case, is about. `None`: it is not known.
    fn told_by(&mut self, name: &[u8]) -> Option<Told<'_>> {
        Some(match name {
            b"no-cache" => Told::Scoped(&mut self.no_cache),
            b"private" => Told::Scoped(&mut self.private),
            b"max-age" => Told::Lifetime(&mut self.max_age),
            b"s-maxage" => Told::Lifetime(&mut self.s_maxage),
            b"stale-while-revalidate" => Told::Lifetime(&mut self.stale_while_revalidate),
            b"stale-if-error" => Told::Lifetime(&mut self.stale_if_error),
            b"no-store" => Told::Flag(&mut self.no_store),
            b"public" => Told::Flag(&mut self.public),
            b"must-revalidate" => Told::Flag(&mut self.must_revalidate),
            b"proxy-revalidate" => Told::Flag(&mut self.proxy_revalidate),
            b"must-understand" => Told::Flag(&mut self.must_understand),
            b"no-transform" => Told::Flag(&mut self.no_transform),
            b"immutable" => Told::Flag(&mut self.immutable),
            _ => return None,
        })
    }
}

/// Where what a directive of a response says is kept.
enum Told<'a> {
    Scoped(&'a mut Scoped),
    Lifetime(&'a mut Option<Seconds>),
    Flag(&'a mut bool),
}

fn shorter(known: Option<Seconds>, found: Seconds) -> Seconds {
    match known {
        Some(known) => known.min(found),
        None => found,
    }
}

/// `Pragma: no-cache` (RFC 9111 §5.4).
fn pragma_no_cache(fields: &Fields) -> bool {
    fields
        .get_all("pragma")
        .flat_map(directives)
        .any(|directive| directive.is("no-cache"))
}

#[cfg(test)]
mod tests;
