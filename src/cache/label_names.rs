//! What labels are called, for people who look: stored responses hold their hashes alone.

use std::sync::LazyLock;

use fnv::FnvHashMap;
use parking_lot::Mutex;

use crate::rfc9111::labels::Label;

/// Names that are remembered: with the longest some 12 MB. What comes beyond is shown by its hash.
const MOST: usize = 65_536;

/// Bytes of a name; a longer one is not remembered.
const LONGEST: usize = 128;

/// What a label stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LabelName {
    Tag(Box<str>),
    /// Of RFC 9875.
    Group(Box<str>),
}

/// A label is the same in all parts of a process, and so is its name.
static NAMES: LazyLock<Mutex<FnvHashMap<u64, LabelName>>> = LazyLock::new(Mutex::default);

/// A tag, whose name is remembered.
pub fn tag(name: &[u8]) -> Label {
    let label = Label::tag(name);
    remember(label, name, LabelName::Tag);
    label
}

/// Remembers what a group is called.
pub fn group(label: Label, name: &str) -> Label {
    remember(label, name.as_bytes(), LabelName::Group);
    label
}

fn remember(label: Label, name: &[u8], kind: fn(Box<str>) -> LabelName) {
    // Whoever is at it now may have it to himself: the next response with this label brings it again.
    let Some(mut names) = NAMES.try_lock() else { return };
    if name.len() > LONGEST || names.len() >= MOST || names.contains_key(&label.as_u64()) {
        return;
    }
    names.insert(label.as_u64(), kind(String::from_utf8_lossy(name).into()));
}

/// What a label is called. `None`: it came from another process, or there were too many.
pub fn of(label: Label) -> Option<LabelName> {
    NAMES.lock().get(&label.as_u64()).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_of_what_came_by() {
        let label = tag(b"users");
        assert_eq!(of(label), Some(LabelName::Tag("users".into())));
        assert_eq!(of(Label::tag(b"never seen")), None);
        assert_eq!(of(tag(&[b'x'; LONGEST + 1])), None);
    }
}
