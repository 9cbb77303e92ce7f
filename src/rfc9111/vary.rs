//! Which of several stored responses answers a request (RFC 9111 §4.1).

use std::borrow::Cow;

use super::stored::StoredMeta;
use crate::message::{Fields, is_token};

mod normalise;

pub use normalise::{FULL_WEIGHT, normalise, weight};

/// A response that nominates more fields than this is treated like `Vary: *`: each costs a comparison per request, and no
/// application that means it names so many.
pub const MAX_NOMINATED: usize = 32;

/// What a response's `Vary` says (RFC 9110 §12.5.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nominates {
    /// Every request gets the same.
    Nothing,
    /// These request fields matter: lower case, sorted, each once.
    Fields(Vec<String>),
    /// `*`, or something that cannot be read: no other request is known to get the same.
    Everything,
}

/// Reads `Vary` in all its lines.
pub fn nominates(response: &Fields) -> Nominates {
    let mut names: Vec<String> = Vec::new();
    for member in response.get_all("vary").flat_map(|line| line.split(|b| *b == b',')) {
        let member = member.trim_ascii();
        if member.is_empty() {
            continue;
        }
        if member == b"*" || !is_token(member) {
            return Nominates::Everything;
        }
        names.push(String::from_utf8_lossy(member).to_ascii_lowercase());
    }
    names.sort_unstable();
    names.dedup();
    match names.len() {
        0 => Nominates::Nothing,
        1..=MAX_NOMINATED => Nominates::Fields(names),
        _ => Nominates::Everything,
    }
}

/// What distinguishes one variant from the others under its cache key: the nominated fields with the values that the original
/// request had. Equal keys belong to responses that replace each other.
#[derive(Debug, Clone, Default)]
pub struct VariantKey(
    /// `None`: no `Vary`, as most stored responses are.
    Option<Box<Varied>>,
);

#[derive(Debug, Clone)]
struct Varied {
    nominated: Box<[Nominated]>,
    /// The one language of a response that was chosen by `Accept-Language`, lower case.
    language: Option<Box<str>>,
}

#[derive(Debug, Clone)]
struct Nominated {
    /// Lower case.
    name: Box<str>,
    /// `None`: the request did not have the field.
    value: Option<Value>,
}

#[derive(Debug, Clone)]
struct Value {
    normal: Box<[u8]>,
    /// The one line as received, where it is not `normal` anyway: most clients send exactly this again.
    received: Option<Box<[u8]>>,
}

/// A nominated field as it is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NominatedPart<'a> {
    /// Lower case.
    pub name: &'a str,
    /// The normalised value, and the one line as received where it differs. `None`: the request did not have the field.
    pub value: Option<(&'a [u8], Option<&'a [u8]>)>,
}

/// How well a stored response fits a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fit {
    /// It has no `Vary`. Chosen after those that have one (RFC 9111 §4.1).
    Unvaried,
    /// Its language is the one that the client prefers to all others; everything else matches.
    Language,
    /// All nominated fields match.
    Exact,
}

impl VariantKey {
    /// The key of a response to this request; `None` where no second request can match it (`Vary: *`).
    pub fn new(request: &Fields, response: &Fields) -> Option<Self> {
        let names = match nominates(response) {
            Nominates::Nothing => return Some(Self::default()),
            Nominates::Fields(names) => names,
            Nominates::Everything => return None,
        };
        let language = if names.iter().any(|name| name == "accept-language") {
            single_language(response)
        } else {
            None
        };
        let nominated = names.into_iter().map(|name| {
            let value = normalise(&name, request).map(|normal| {
                let received = match single_line(request, &name) {
                    Some(line) if *line != *normal => Some(line.into()),
                    _ => None,
                };
                Value {
                    normal: normal.into_owned().into_boxed_slice(),
                    received,
                }
            });
            Nominated {
                name: name.into_boxed_str(),
                value,
            }
        });
        Some(Self(Some(Box::new(Varied {
            nominated: nominated.collect(),
            language,
        }))))
    }

    /// The same for a cache that asks for the same codings whatever its client accepts, without a dictionary, and recodes what comes: what
    /// chooses a coding chooses nothing then.
    pub fn without_codings(self) -> Self {
        let Some(mut varied) = self.0 else { return self };
        let others = Vec::from(std::mem::take(&mut varied.nominated))
            .into_iter()
            .filter(|field| {
                !matches!(
                    &*field.name,
                    "accept-encoding" | "available-dictionary" | "dictionary-id"
                )
            });
        varied.nominated = others.collect();
        match varied.nominated.is_empty() {
            true => Self(None),
            false => Self(Some(varied)),
        }
    }

    /// Whether there is any nominated field.
    pub fn varies(&self) -> bool {
        self.0.is_some()
    }

    /// The nominated fields: lower-case names with their normalised value, `None` where the request did not have the field.
    pub fn nominated(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        let nominated = self.0.as_ref().map_or(&[][..], |varied| &*varied.nominated);
        nominated
            .iter()
            .map(|field| (&*field.name, field.value.as_ref().map(|value| &*value.normal)))
    }

    /// All that it consists of, to be written down: the nominated fields, and the language.
    pub fn parts(&self) -> Option<(impl ExactSizeIterator<Item = NominatedPart<'_>>, Option<&str>)> {
        let varied = self.0.as_ref()?;
        let fields = varied.nominated.iter().map(|field| NominatedPart {
            name: &field.name,
            value: field
                .value
                .as_ref()
                .map(|value| (&*value.normal, value.received.as_deref())),
        });
        Some((fields, varied.language.as_deref()))
    }

    /// What was written down. `None`: it was not written by [`Self::parts`].
    pub fn from_parts<'a>(fields: impl IntoIterator<Item = NominatedPart<'a>>, language: Option<&str>) -> Option<Self> {
        let mut nominated = Vec::new();
        for NominatedPart { name, value } in fields {
            let is_lower = !name.bytes().any(|b| b.is_ascii_uppercase());
            if nominated.len() >= MAX_NOMINATED || !is_token(name.as_bytes()) || !is_lower {
                return None;
            }
            nominated.push(Nominated {
                name: name.into(),
                value: value.map(|(normal, received)| Value {
                    normal: normal.into(),
                    received: received.map(Into::into),
                }),
            });
        }
        if nominated.is_empty() {
            return None;
        }
        Some(Self(Some(Box::new(Varied {
            nominated: nominated.into_boxed_slice(),
            language: language.map(Into::into),
        }))))
    }

    /// Bytes that this takes on the heap.
    pub fn heap_size(&self) -> usize {
        let Some(varied) = &self.0 else { return 0 };
        let values = varied.nominated.iter().map(|field| {
            let value = match &field.value {
                Some(value) => value.normal.len() + value.received.as_ref().map_or(0, |received| received.len()),
                None => 0,
            };
            size_of::<Nominated>() + field.name.len() + value
        });
        size_of::<Varied>() + values.sum::<usize>() + varied.language.as_ref().map_or(0, |language| language.len())
    }

    /// Whether a response stored under this key may be chosen for a request, and how well it fits. Does not allocate for a
    /// request that has the same lines as the original one.
    pub fn fits(&self, request: &Fields) -> Option<Fit> {
        let Some(varied) = &self.0 else {
            return Some(Fit::Unvaried);
        };
        let mut fit = Fit::Exact;
        for field in &varied.nominated {
            if field.matches(request) {
                continue;
            }
            match &varied.language {
                Some(language) if &*field.name == "accept-language" && prefers(request, language) => {
                    fit = Fit::Language;
                }
                _ => return None,
            }
        }
        Some(fit)
    }
}

impl PartialEq for VariantKey {
    fn eq(&self, other: &Self) -> bool {
        self.nominated().eq(other.nominated())
    }
}

impl Eq for VariantKey {}

impl Nominated {
    fn matches(&self, request: &Fields) -> bool {
        let Some(stored) = &self.value else {
            return !request.contains(&self.name);
        };
        if let Some(line) = single_line(request, &self.name) {
            let received = stored.received.as_deref().unwrap_or(&stored.normal);
            if line == received {
                return true;
            }
        }
        match normalise(&self.name, request) {
            Some(presented) => *presented == *stored.normal,
            None => false,
        }
    }
}

/// Chooses among the stored responses under one cache key (RFC 9111 §4.1): those with a `Vary` before those without, the better
/// fit before the worse, then the most recent. `None` where none fits.
pub fn select<'a, T>(stored: impl IntoIterator<Item = (T, &'a StoredMeta)>, request: &Fields) -> Option<T> {
    let mut best: Option<(Fit, &StoredMeta, T)> = None;
    for (item, meta) in stored {
        let Some(fit) = meta.variant.fits(request) else {
            continue;
        };
        let better = match &best {
            Some((best_fit, best_meta, _)) => {
                (fit, meta.date, meta.received) > (*best_fit, best_meta.date, best_meta.received)
            }
            None => true,
        };
        if better {
            best = Some((fit, meta, item));
        }
    }
    best.map(|(_, _, item)| item)
}

fn single_line<'a>(fields: &'a Fields, name: &'a str) -> Option<&'a [u8]> {
    let mut lines = fields.get_all(name);
    let line = lines.next()?;
    if lines.next().is_some() { None } else { Some(line) }
}

/// The `Content-Language` of a response that has exactly one (RFC 9110 §8.5).
fn single_language(response: &Fields) -> Option<Box<str>> {
    let tag = single_line(response, "content-language")?;
    if tag.is_empty() || !tag.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-') {
        return None;
    }
    Some(String::from_utf8_lossy(tag).to_ascii_lowercase().into_boxed_str())
}

/// Whether a client ranks this language above every other that it names (RFC 9110 §12.5.4): an origin that has it, and it has,
/// can do no better. RFC 9111 §4.1 lets quality values choose among responses.
fn prefers(request: &Fields, language: &str) -> bool {
    let Some(members) = normalise::weighted(request, "accept-language") else {
        return false;
    };
    let Some(best) = members.iter().max_by_key(|member| member.weight) else {
        return false;
    };
    let alone = members.iter().filter(|member| member.weight == best.weight).count() == 1;
    alone && best.weight > 0 && Cow::as_ref(&best.name) == language.as_bytes()
}

#[cfg(test)]
mod tests;
