//! Labels of stored responses, by which many of them are invalidated at once: tags that are this cache's own business, and the groups of
//! RFC 9875, which are every cache's.

use std::sync::atomic::{AtomicU64, Ordering};

use sfv::{BareItem, ListEntry, Parser};
use xxhash_rust::xxh3::Xxh3;

use crate::key::normalise_authority;
use crate::message::{Fields, Scheme};

/// The field with the groups that a response belongs to (RFC 9875 §2).
pub const GROUPS: &str = "cache-groups";

/// The field with the groups that a response invalidates (RFC 9875 §3).
pub const GROUP_INVALIDATION: &str = "cache-group-invalidation";

/// One label: a tag, or a group of one origin. Equal in every process, so that instances can tell each other. Two that are not equal are told
/// apart but for a chance of 1 : 2⁶⁴, in which one is invalidated with the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label(u64);

impl Label {
    /// A tag. It has case, and is only equal to itself.
    pub fn tag(name: &[u8]) -> Self {
        Self::of(&[b"tag", name])
    }

    /// A group of an origin (RFC 9875 §2.1: two of different origins are different groups).
    pub fn group(scheme: Scheme, authority: &str, name: &str) -> Self {
        let authority = normalise_authority(scheme, authority);
        Self::of(&[
            b"group",
            scheme.as_str().as_bytes(),
            authority.as_bytes(),
            name.as_bytes(),
        ])
    }

    /// As it came from another process.
    pub const fn from_u64(label: u64) -> Self {
        Self(label)
    }

    pub const fn as_u64(self) -> u64 {
        self.0
    }

    fn of(parts: &[&[u8]]) -> Self {
        let mut hash = Xxh3::new();
        for part in parts {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self(hash.digest())
    }
}

/// The labels of one stored response, and up to which purge they have been compared.
#[derive(Debug)]
pub struct Labels {
    labels: Box<[Label]>,
    seen: AtomicU64,
}

impl Labels {
    /// `None`: there are none, which takes no memory.
    pub fn new(mut labels: Vec<Label>) -> Option<Self> {
        if labels.is_empty() {
            return None;
        }
        labels.sort_unstable();
        labels.dedup();
        Some(Self {
            labels: labels.into_boxed_slice(),
            seen: AtomicU64::new(0),
        })
    }

    pub fn as_slice(&self) -> &[Label] {
        &self.labels
    }

    /// What has been put together of two responses has the labels of both.
    pub fn both(one: Option<&Self>, other: Option<&Self>) -> Option<Self> {
        let slices = [one, other].map(|labels| labels.map_or(&[][..], Self::as_slice));
        let joined = Self::new(slices.concat())?;
        let seen = [one, other].into_iter().flatten().map(Self::seen).min();
        joined.set_seen(seen.unwrap_or_default());
        Some(joined)
    }

    /// The number of the last purge that is known not to concern these.
    pub fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    pub fn set_seen(&self, purge: u64) {
        self.seen.store(purge, Ordering::Relaxed);
    }

    /// Bytes that this takes on the heap.
    pub fn heap_size(&self) -> usize {
        size_of_val(&*self.labels)
    }
}

impl Clone for Labels {
    fn clone(&self) -> Self {
        Self {
            labels: self.labels.clone(),
            seen: AtomicU64::new(self.seen()),
        }
    }
}

impl PartialEq for Labels {
    fn eq(&self, other: &Self) -> bool {
        self.labels == other.labels
    }
}

impl Eq for Labels {}

/// The groups that a response names (RFC 9875 §2).
pub fn groups(fields: &Fields) -> Vec<String> {
    strings(fields, GROUPS)
}

/// The groups that a response invalidates (RFC 9875 §3).
pub fn invalidated_groups(fields: &Fields) -> Vec<String> {
    strings(fields, GROUP_INVALIDATION)
}

/// A List of Strings (RFC 9651 §3.1, §3.3.3); what they have for parameters says nothing. One that has something else in it, or cannot be
/// read, is ignored as a whole (RFC 9651 §4.2).
fn strings(fields: &Fields, name: &str) -> Vec<String> {
    if !fields.contains(name) {
        return Vec::new();
    }
    let mut value = Vec::new();
    for line in fields.get_all(name) {
        if !value.is_empty() {
            value.extend_from_slice(b", ");
        }
        value.extend_from_slice(line);
    }
    let Ok(list) = Parser::parse_list(&value) else {
        return Vec::new();
    };
    let mut strings = Vec::with_capacity(list.len());
    for member in list {
        match member {
            ListEntry::Item(item) => match item.bare_item {
                BareItem::String(string) => strings.push(string),
                _ => return Vec::new(),
            },
            ListEntry::InnerList(_) => return Vec::new(),
        }
    }
    strings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_equal_to_themselves_only() {
        assert_eq!(Label::tag(b"a"), Label::tag(b"a"));
        assert_ne!(Label::tag(b"a"), Label::tag(b"ab"));
        assert_ne!(Label::tag(b"a"), Label::tag(b"A"));
        let group = Label::group(Scheme::Http, "example.org", "a");
        assert_ne!(group, Label::tag(b"a"));
        assert_eq!(group, Label::group(Scheme::Http, "EXAMPLE.org:80", "a"));
        assert_ne!(group, Label::group(Scheme::Https, "example.org", "a"));
        assert_ne!(group, Label::group(Scheme::Http, "example.org:8080", "a"));
    }

    #[test]
    fn rfc9875_2_groups_are_a_list_of_strings() {
        let cases: &[(&[&str], &[&str])] = &[
            (&["\"a\""], &["a"]),
            (&["\"a\", \"b c\"", "\"d\";x=1"], &["a", "b c", "d"]),
            (&["\"a\\\"b\""], &["a\"b"]),
            (&[""], &[]),
            (&["a"], &[]),
            (&["\"a\", 1"], &[]),
            (&["(\"a\")"], &[]),
            (&["\"a\","], &[]),
            (&["\"a"], &[]),
        ];
        for (lines, expected) in cases {
            let mut fields = Fields::new();
            for line in *lines {
                fields.push("Cache-Groups", line);
            }
            assert_eq!(groups(&fields), *expected, "{lines:?}");
        }
    }
}
