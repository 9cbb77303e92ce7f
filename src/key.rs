//! The only maker of cache keys (RFC 9111 §2).
//!
//! A key is a string of length-prefixed parts, so that no two different lists of parts give the same bytes. Requests that an origin
//! could tell apart never share one; spellings of a URI that RFC 3986 §6.2.2 calls equivalent do. Dot segments, empty segments and
//! the order of a query stay as received unless a route says otherwise, because origins differ in how they read them.

use std::borrow::Cow;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::LazyLock;

use http::Method;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::message::{Encoding, FieldName, FieldNames, Fields, Framing, RequestHead, Scheme, split_port};
use crate::rfc9111::invalidation::ResourceUri;
use crate::rfc9111::vary::normalise;

mod glob;

pub use glob::Glob;

/// What a route puts into its keys beside the URI, and what it leaves out of it.
#[derive(Debug, Clone, Default)]
pub struct KeyOptions {
    pub query: QueryOptions,
    /// Request fields whose values distinguish responses (lower case).
    pub headers: Vec<String>,
    /// Cookies whose values do.
    pub cookies: Vec<String>,
}

/// Which parameters of a query count. A parameter's name is what stands in front of its first `=`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueryOptions {
    /// Names that do not count.
    pub ignore: Vec<Glob>,
    /// `Some`: only these count.
    pub keep: Option<Vec<Glob>>,
    pub order: QueryOrder,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QueryOrder {
    #[default]
    AsReceived,
    /// By name. Parameters of one name keep their order, which may have a meaning.
    Sorted,
}

/// Identifies what is stored: equal keys, same resource as far as the route can tell.
///
/// Equality is that of the whole key. The hash only finds the place in a map: 128 bits of XXH3 under a seed that each
/// process draws for itself, so that nobody can prepare keys that all fall into one place, and so that nothing outside this
/// process may rely on it.
#[derive(Debug, Clone)]
pub struct CacheKey {
    bytes: Box<[u8]>,
    hash: u128,
    /// Length of the parts that are the URI, in front of the others.
    uri_length: u32,
}

impl CacheKey {
    /// The key of a GET or HEAD request.
    pub fn new(request: &RequestHead, options: &KeyOptions) -> Self {
        let authority = request.authority.normal(request.scheme);
        let target = &request.target;
        let mut parts = match target.encoding() {
            Encoding::None => Parts::uri(
                request.scheme,
                &authority,
                target.path(),
                target.query(),
                &options.query,
            ),
            Encoding::Percent => Parts::uri_to(request.scheme, &authority, &normalise_target(target), &options.query),
        };
        let uri_length = parts.0.len();
        for name in &options.headers {
            let value = normalise(name, &request.fields);
            parts.optional(name.as_bytes(), value.as_deref());
        }
        for name in &options.cookies {
            parts.push(name.as_bytes());
            for value in cookie_values(&request.fields, name) {
                parts.present(value);
            }
            parts.absent();
        }
        Self::of(parts, uri_length)
    }

    /// The key of a URI under options that name neither headers nor cookies; for others see [`CacheKey::uri`].
    pub fn of_uri(uri: &ResourceUri, query: &QueryOptions) -> Self {
        let parts = Parts::uri_to(uri.scheme, &uri.authority, &uri.target, query);
        let length = parts.0.len();
        Self::of(parts, length)
    }

    fn of(parts: Parts, uri_length: usize) -> Self {
        static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().build_hasher().finish());
        Self {
            hash: xxh3_128_with_seed(&parts.0, *SEED),
            bytes: parts.0.into_boxed_slice(),
            // Heads are limited far below 4 GiB.
            uri_length: u32::try_from(uri_length).unwrap_or(u32::MAX),
        }
    }

    /// A key as it was made: what [`CacheKey::as_bytes`] gives, and the length of what [`CacheKey::uri`] gives.
    pub fn from_bytes(bytes: &[u8], uri_length: usize) -> Self {
        Self::of(Parts(bytes.to_vec()), uri_length)
    }

    /// The whole key. Stable: the same in every process and version that makes the same parts.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The front of [`CacheKey::as_bytes`] that stands for the URI: equal for all keys of one URI under one route, whatever
    /// headers and cookies they have. What is invalidated, is by this.
    pub fn uri(&self) -> &[u8] {
        self.bytes.get(..self.uri_length as usize).unwrap_or(&self.bytes)
    }

    /// The fields that a request for this URI needs beside it to have this key under these options. `None`: the key was made under others.
    pub fn asked_with(&self, options: &KeyOptions) -> Option<Vec<(String, String)>> {
        let mut rest = self.bytes.get(self.uri_length as usize..)?;
        let mut fields = Vec::new();
        for name in &options.headers {
            if take_part(&mut rest)? != name {
                return None;
            }
            if take_present(&mut rest)? {
                fields.push((name.clone(), take_part(&mut rest)?.to_owned()));
            }
        }
        let mut cookies = Vec::new();
        for name in &options.cookies {
            if take_part(&mut rest)? != name {
                return None;
            }
            while take_present(&mut rest)? {
                cookies.push(format!("{name}={}", take_part(&mut rest)?));
            }
        }
        if !cookies.is_empty() {
            fields.push(("cookie".to_owned(), cookies.join("; ")));
        }
        rest.is_empty().then_some(fields)
    }

    /// What [`CacheKey::uri`] stands for.
    pub fn parsed_uri(&self) -> Option<KeyUri<'_>> {
        KeyUri::parse(self.uri())
    }

    /// See the type. Different in each process.
    pub fn hash128(&self) -> u128 {
        self.hash
    }
}

impl PartialEq for CacheKey {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.bytes == other.bytes
    }
}

impl Eq for CacheKey {}

impl Hash for CacheKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(self.hash);
    }
}

/// A URI as a key has it. It can be asked for again as it is displayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyUri<'a> {
    pub scheme: &'a str,
    /// Lower case, without the scheme's default port.
    pub authority: &'a str,
    pub path: &'a str,
    /// What counts of it.
    pub query: Option<&'a str>,
}

impl<'a> KeyUri<'a> {
    /// Reads what [`CacheKey::uri`] gives. `None`: it is something else.
    pub fn parse(mut bytes: &'a [u8]) -> Option<Self> {
        let scheme = take_part(&mut bytes)?;
        let authority = take_part(&mut bytes)?;
        let path = take_part(&mut bytes)?;
        let (marker, mut rest) = bytes.split_first()?;
        let query = match marker {
            0 => None,
            _ => Some(take_part(&mut rest)?),
        };
        if !rest.is_empty() {
            return None;
        }
        Some(Self {
            scheme,
            authority,
            path,
            query,
        })
    }

    /// Host without port.
    pub fn host(&self) -> &'a str {
        split_port(self.authority).0
    }
}

impl std::fmt::Display for KeyUri<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.path)?;
        match self.query {
            Some(query) => write!(f, "?{query}"),
            None => Ok(()),
        }
    }
}

fn take_part<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH_PREFIX>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (part, rest) = rest.split_at_checked(length)?;
    *bytes = rest;
    std::str::from_utf8(part).ok()
}

/// Whether a value follows.
fn take_present(bytes: &mut &[u8]) -> Option<bool> {
    let (marker, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(*marker != 0)
}

/// Bytes in front of each part.
const LENGTH_PREFIX: usize = size_of::<u32>();

/// Length-prefixed parts.
struct Parts(Vec<u8>);

impl Parts {
    /// The parts of a URI in normal form, whose target is in one piece.
    fn uri_to(scheme: Scheme, authority: &str, target: &str, options: &QueryOptions) -> Self {
        match target.split_once('?') {
            Some((path, query)) => Self::uri(scheme, authority, path, Some(query), options),
            None => Self::uri(scheme, authority, target, None, options),
        }
    }

    /// The parts of a URI in normal form.
    #[inline]
    fn uri(scheme: Scheme, authority: &str, path: &str, query: Option<&str>, options: &QueryOptions) -> Self {
        let scheme: &[u8] = match scheme {
            Scheme::Http => b"\x04\0\0\0http",
            Scheme::Https => b"\x05\0\0\0https",
        };
        // Exact where the whole query counts and nothing follows: the only allocation of an ordinary key.
        let query_length = query.map_or(0, |query| LENGTH_PREFIX + query.len());
        let length = scheme.len() + 2 * LENGTH_PREFIX + authority.len() + path.len() + 1 + query_length;
        let mut parts = Self(Vec::with_capacity(length));
        parts.0.extend_from_slice(scheme);
        parts.push(authority.as_bytes());
        parts.push(path.as_bytes());
        match query.and_then(|query| options.apply(query)) {
            Some(counted) => parts.present(counted.as_bytes()),
            None => parts.absent(),
        }
        parts
    }

    #[inline]
    fn push(&mut self, part: &[u8]) {
        let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
        self.0.extend_from_slice(&length.to_le_bytes());
        self.0.extend_from_slice(part);
    }

    fn absent(&mut self) {
        self.0.push(0);
    }

    fn present(&mut self, part: &[u8]) {
        self.0.push(1);
        self.push(part);
    }

    fn optional(&mut self, name: &[u8], value: Option<&[u8]>) {
        self.push(name);
        match value {
            Some(value) => self.present(value),
            None => self.absent(),
        }
    }
}

impl QueryOptions {
    /// What counts of a query in normal form. `None`: nothing is left of it, which is the same as no query.
    fn apply<'a>(&self, query: &'a str) -> Option<Cow<'a, str>> {
        if self.ignore.is_empty() && self.keep.is_none() && self.order == QueryOrder::AsReceived {
            return Some(Cow::Borrowed(query));
        }
        let mut counted: Vec<&str> = query.split('&').filter(|pair| self.counts(pair)).collect();
        if counted.is_empty() {
            return None;
        }
        if self.order == QueryOrder::Sorted {
            counted.sort_by_key(|pair| name(pair));
        }
        Some(Cow::Owned(counted.join("&")))
    }

    fn counts(&self, pair: &str) -> bool {
        // Some origins take `;` for a separator: what hides behind it must not be left out with the parameter in front.
        if pair.contains(';') {
            return true;
        }
        let name = name(pair);
        let kept = match &self.keep {
            Some(keep) => keep.iter().any(|glob| glob.matches(name)),
            None => true,
        };
        kept && !self.ignore.iter().any(|glob| glob.matches(name))
    }
}

fn name(pair: &str) -> &str {
    pair.split_once('=').map_or(pair, |(name, _)| name)
}

/// The values of all cookies of that name: some origins take the first, some the last. Names have case.
pub(crate) fn cookie_values<'a>(request: &'a Fields, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let pairs = request.get_all("cookie").flat_map(|line| line.split(|b| *b == b';'));
    pairs.filter_map(move |pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

/// Host and port in normal form (RFC 3986 §6.2.2.1, §6.2.3): lower case, without an empty or the scheme's default port. For what is no
/// more than text; requests have [`Authority::normal`](crate::message::Authority::normal).
pub fn normalise_authority(scheme: Scheme, authority: &str) -> Cow<'_, str> {
    let kept = match split_port(authority) {
        (host, Some(port)) if port.is_empty() || port == scheme.default_port() => host,
        _ => authority,
    };
    if kept.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(kept.to_ascii_lowercase())
    } else {
        Cow::Borrowed(kept)
    }
}

/// Path and query in normal form: percent-encoded letters, digits, `-`, `_` and `~` are decoded, hexadecimal digits of all other
/// triplets are upper case (RFC 3986 §6.2.2.1, §6.2.2.2). `%2E` stays: decoded it could make a dot segment, and whether
/// the origin sees one is its business. A target with a `%` that begins no triplet stays as it is, for who knows how it is read.
pub fn normalise_target(target: &str) -> Cow<'_, str> {
    if !target.contains('%') {
        return Cow::Borrowed(target);
    }
    let mut out = String::with_capacity(target.len());
    let mut rest = target;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let [high, low, ..] = after.as_bytes() else {
            return Cow::Borrowed(target);
        };
        if !high.is_ascii_hexdigit() || !low.is_ascii_hexdigit() {
            return Cow::Borrowed(target);
        }
        let byte = hex(*high) << 4 | hex(*low);
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(high.to_ascii_uppercase()));
            out.push(char::from(low.to_ascii_uppercase()));
        }
        rest = after.get(2..).unwrap_or_default();
    }
    out.push_str(rest);
    Cow::Owned(out)
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit.wrapping_sub(b'A').wrapping_add(10),
    }
}

/// Why a request has no key: something in it that a key says nothing of may change the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unkeyable {
    /// Neither GET nor HEAD.
    Method,
    /// RFC 9110 §9.3.1: content in a GET has no meaning that is defined, but some origins look at it.
    Content,
    /// It asks the origin to take it for another request than it is.
    Override,
    /// It becomes a tunnel.
    Upgrade,
    /// No authority, or not a path.
    Target,
}

impl Unkeyable {
    /// The word for log and `Cache-Status` detail.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Content => "content",
            Self::Override => "override",
            Self::Upgrade => "upgrade",
            Self::Target => "target",
        }
    }
}

/// Whether a request must pass the cache by, because its key would not say all that matters. Fields that are removed or
/// overwritten for senders who are not trusted should be gone by now.
pub fn unkeyable(request: &RequestHead) -> Option<Unkeyable> {
    /// Frameworks that know these take method or path from them.
    const OVERRIDES: FieldNames = FieldNames::new(&[
        FieldName::new("x-http-method-override"),
        FieldName::new("x-http-method"),
        FieldName::new("x-method-override"),
        FieldName::new("x-original-url"),
        FieldName::new("x-rewrite-url"),
        FieldName::new("x-original-uri"),
        FieldName::new("x-original-host"),
    ]);
    if request.method != Method::GET && request.method != Method::HEAD {
        return Some(Unkeyable::Method);
    }
    if !matches!(request.framing, Framing::None | Framing::Length(0)) {
        return Some(Unkeyable::Content);
    }
    if request.upgrade {
        return Some(Unkeyable::Upgrade);
    }
    if request.authority.is_empty() || !request.target.starts_with('/') {
        return Some(Unkeyable::Target);
    }
    if request.fields.contains_any(&OVERRIDES) {
        return Some(Unkeyable::Override);
    }
    None
}

#[cfg(test)]
mod tests;
