//! Makes values equal that mean the same (RFC 9111 §4.1): lines are combined, insignificant whitespace goes, and lists
//! whose order has no meaning are sorted. Of `Accept-Encoding` only that is left which origins choose by: so many clients share
//! responses, and nobody splits what is stored by naming codings that there are not.

use std::borrow::Cow;

use crate::message::{Fields, is_token_byte};

/// The weight of a member that has none, in thousandths (RFC 9110 §12.4.2).
pub const FULL_WEIGHT: u16 = 1000;

/// How values of a field may be compared.
enum Kind {
    /// Credentials and the like: byte for byte, lines as they are.
    Opaque,
    /// One list in pairs, separated by `; ` (RFC 6265 §4.2.1); HTTP/2 splits it into lines (RFC 9113 §8.2.3).
    Cookie,
    /// Members with weights, their order without meaning (RFC 9110 §12.5).
    Weighted,
    /// The same, of which only some names have a meaning.
    Codings,
    /// Anything else: combined with commas, whitespace around them without meaning.
    List,
}

fn kind(name: &str) -> Kind {
    match name {
        "authorization" | "proxy-authorization" => Kind::Opaque,
        "cookie" => Kind::Cookie,
        "accept-encoding" => Kind::Codings,
        "accept-language" | "accept-charset" => Kind::Weighted,
        _ => Kind::List,
    }
}

/// The content codings of the Web, in the order of their names; old names stand for them (RFC 9110 §8.4.1.1, §8.4.1.3).
const CODINGS: [&str; 7] = ["br", "compress", "dcb", "dcz", "deflate", "gzip", "zstd"];

/// Those that `*` stands for: the others need something that not everybody has.
const ANY_CODING: [&str; 4] = ["br", "deflate", "gzip", "zstd"];

/// A response without a coding will have to do.
const NO_CODING: &[u8] = b"identity";

/// The normal form of a request field given by its lower-case name; `None` where the request does not have it. Two requests
/// with equal forms mean the same by it.
pub fn normalise<'a>(name: &'a str, request: &'a Fields) -> Option<Cow<'a, [u8]>> {
    let mut lines = request.get_all(name);
    let first = lines.next()?;
    let more = lines.next().is_some();
    let normal = match kind(name) {
        Kind::Opaque if !more => Cow::Borrowed(first),
        // Which of them counts is not ours to say, so each line stays what it is: no value can hold a line feed.
        Kind::Opaque => Cow::Owned(joined(request, name, b"\n")),
        Kind::Cookie if !more => Cow::Borrowed(first),
        Kind::Cookie => Cow::Owned(joined(request, name, b"; ")),
        Kind::Weighted => match weighted(request, name) {
            Some(members) => Cow::Owned(write_weighted(members)),
            None => list(request, name, first, more),
        },
        // What cannot be read asks for nothing.
        Kind::Codings => match weighted(request, name) {
            Some(members) => codings(&members),
            None => Cow::Borrowed(NO_CODING),
        },
        Kind::List => list(request, name, first, more),
    };
    Some(normal)
}

fn list<'a>(request: &Fields, name: &str, first: &'a [u8], more: bool) -> Cow<'a, [u8]> {
    if more {
        return Cow::Owned(without_padding(&joined(request, name, b",")));
    }
    let first = first.trim_ascii();
    if first.contains(&b',') {
        Cow::Owned(without_padding(first))
    } else {
        Cow::Borrowed(first)
    }
}

fn joined(request: &Fields, name: &str, separator: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    for (at, line) in request.get_all(name).enumerate() {
        if at > 0 {
            whole.extend_from_slice(separator);
        }
        whole.extend_from_slice(line.trim_ascii());
    }
    whole
}

/// Takes spaces and tabs away from both sides of commas that are not in a quoted string.
fn without_padding(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    let mut quoted = false;
    let mut escaped = false;
    // How much of `out` must stay although it ends with whitespace: what was quoted.
    let mut fixed = 0;
    for byte in value.trim_ascii() {
        if quoted {
            out.push(*byte);
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => quoted = false,
                _ => {}
            }
            fixed = out.len();
            continue;
        }
        match byte {
            b',' => {
                while out.len() > fixed && matches!(out.last(), Some(b' ' | b'\t')) {
                    out.pop();
                }
                out.push(b',');
                fixed = out.len();
            }
            b' ' | b'\t' if matches!(out.last(), Some(b',')) && out.len() == fixed => {}
            b'"' => {
                quoted = true;
                out.push(b'"');
            }
            _ => out.push(*byte),
        }
    }
    out
}

/// One member of a list with weights.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Weighted {
    /// Lower case, aliases resolved.
    pub name: Cow<'static, [u8]>,
    /// Thousandths.
    pub weight: u16,
}

/// Reads `name[;q=weight]` members of all lines of a field; `None` where anything else is in there.
pub(super) fn weighted(request: &Fields, name: &str) -> Option<Vec<Weighted>> {
    let mut members = Vec::new();
    for member in request.get_all(name).flat_map(|line| line.split(|b| *b == b',')) {
        let member = member.trim_ascii();
        if member.is_empty() {
            continue;
        }
        let mut parts = member.splitn(2, |b| *b == b';');
        let token = parts.next().unwrap_or_default().trim_ascii_end();
        if token.is_empty() || !token.iter().all(|b| is_token_byte(*b)) {
            return None;
        }
        let weight = match parts.next() {
            Some(parameter) => weight(parameter.trim_ascii())?,
            None => FULL_WEIGHT,
        };
        members.push(Weighted {
            name: canonical(token),
            weight,
        });
    }
    Some(members)
}

/// `q=0.5` in thousandths (RFC 9110 §12.4.2).
pub fn weight(parameter: &[u8]) -> Option<u16> {
    let value = match parameter {
        [b'q' | b'Q', b'=', value @ ..] => value,
        _ => return None,
    };
    let (whole, fraction) = match value {
        [whole] => (whole, &[][..]),
        [whole, b'.', fraction @ ..] if fraction.len() <= 3 => (whole, fraction),
        _ => return None,
    };
    let mut thousandths = match whole {
        b'0' => 0,
        b'1' => FULL_WEIGHT,
        _ => return None,
    };
    let mut place = 100;
    for digit in fraction {
        if !digit.is_ascii_digit() {
            return None;
        }
        thousandths += u16::from(digit - b'0') * place;
        place /= 10;
    }
    (thousandths <= FULL_WEIGHT).then_some(thousandths)
}

/// Content codings, languages and charsets have no case (RFC 9110 §8.4.1, §8.5.1, §8.3.2), and two codings have an old name
/// (§8.4.1.1, §8.4.1.3).
fn canonical(token: &[u8]) -> Cow<'static, [u8]> {
    let token = token.to_ascii_lowercase();
    match &*token {
        b"x-gzip" => Cow::Borrowed(b"gzip"),
        b"x-compress" => Cow::Borrowed(b"compress"),
        _ => Cow::Owned(token),
    }
}

/// The codings that may be sent, whichever is liked best: few origins ask for that, and every client reads what it accepts.
fn codings(members: &[Weighted]) -> Cow<'static, [u8]> {
    let weight_of = |name: &[u8]| {
        let of_it = members.iter().filter(|member| *member.name == *name);
        of_it.map(|member| member.weight).min()
    };
    let others = weight_of(b"*");
    let is_accepted = |name: &&str| {
        let by_star = others.filter(|_| ANY_CODING.contains(name));
        weight_of(name.as_bytes()).or(by_star).unwrap_or_default() > 0
    };
    let accepted: Vec<&str> = CODINGS.into_iter().filter(is_accepted).collect();
    match accepted.as_slice() {
        [] => Cow::Borrowed(NO_CODING),
        [one] => Cow::Borrowed(one.as_bytes()),
        several => Cow::Owned(several.join(", ").into_bytes()),
    }
}

fn write_weighted(mut members: Vec<Weighted>) -> Vec<u8> {
    members.sort_unstable();
    members.dedup();
    let mut out = Vec::new();
    for (at, member) in members.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&member.name);
        if member.weight < FULL_WEIGHT {
            out.extend_from_slice(format!(";q=0.{:03}", member.weight).as_bytes());
        }
    }
    out
}
