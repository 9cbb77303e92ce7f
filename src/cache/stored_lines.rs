//! What a client gets of a stored response's field lines: those that are stored, sent from where they lie, and this client's own.
//!
//! The stored text has the very form in which HTTP/1.1 sends it, so a hit copies it once, into what is written. What a route does
//! to it is noted beside it: hundreds of thousands of requests share one stored response, and a reload may change what the next of
//! them gets.

use super::PackedFields;
use crate::http1::encode::NOT_IN_RESPONSES;
use crate::message::{FieldNames, Fields, Lines};

/// Lines that are usually added, and their bytes.
const ADDED_LINES: usize = 8;
const ADDED_BYTES: usize = 256;

/// Stored lines beyond this are copied, so that a number can say which of them are left out.
const NUMBERED: usize = u64::BITS as usize;

/// The field lines of one answer.
#[derive(Debug)]
pub struct StoredLines<'a> {
    /// `None`: all of them are in `added`.
    stored: Option<&'a PackedFields>,
    /// Bit `n`: line `n` of the stored ones is left out.
    left_out: u64,
    /// Behind the stored ones.
    added: Fields,
}

impl<'a> StoredLines<'a> {
    pub fn new(stored: &'a PackedFields) -> Self {
        if stored.most_lines() > NUMBERED {
            return Self {
                stored: None,
                left_out: 0,
                added: stored.unpack(),
            };
        }
        Self {
            stored: Some(stored),
            left_out: 0,
            added: Fields::with_capacity(ADDED_LINES, ADDED_BYTES),
        }
    }

    /// The first line of that name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let (mut lines, mut at) = (self.stored.map(PackedFields::lines), 0);
        while let Some((number, value)) = lines.as_mut().and_then(|lines| lines.find(name.as_bytes(), &mut at)) {
            if self.left_out & (1 << number) == 0 {
                return Some(value);
            }
        }
        self.added.get(name)
    }

    /// The stored lines that are not left out.
    fn kept(&self) -> impl Iterator<Item = super::memory::PackedLine<'a>> {
        let left_out = self.left_out;
        let numbered = self.stored.into_iter().flat_map(PackedFields::lines).enumerate();
        numbered
            .filter(move |(number, _)| left_out & (1 << number) == 0)
            .map(|(_, line)| line)
    }
}

impl Lines for StoredLines<'_> {
    fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    fn push(&mut self, name: &str, value: impl AsRef<[u8]>) {
        self.added.push(name, value);
    }

    fn push_written(&mut self, name: &str, write: impl FnOnce(&mut Vec<u8>)) {
        self.added.push_written(name, write);
    }

    fn retain(&mut self, mut keep: impl FnMut(&str, &[u8]) -> bool) {
        for (number, line) in self.stored.into_iter().flat_map(PackedFields::lines).enumerate() {
            if self.left_out & (1 << number) == 0 && !keep(text(line.name), line.value) {
                self.left_out |= 1 << number;
            }
        }
        self.added.retain(keep);
    }

    fn for_each(&self, mut each: impl FnMut(&str, &[u8])) {
        for line in self.kept() {
            each(text(line.name), line.value);
        }
        for (name, value) in self.added.iter() {
            each(name, value);
        }
    }

    fn write_http1(&self, without: &FieldNames, mut write: impl FnMut(&[u8])) {
        // None of the stored ones is among those.
        debug_assert!(
            without.iter().all(|name| NOT_IN_RESPONSES.has(name)),
            "not a response's"
        );
        if let Some(stored) = self.stored {
            let all = stored.text();
            if self.left_out == 0 {
                write(all);
            } else {
                for line in self.kept() {
                    write(all.get(line.at()).unwrap_or_default());
                }
            }
        }
        self.added.write_http1(without, write);
    }
}

/// Names are tokens, so always ASCII.
fn text(name: &[u8]) -> &str {
    std::str::from_utf8(name).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Change {
        Push(String, String),
        Set(String, String),
        Remove(String),
        RetainShortValues,
    }

    fn change() -> impl Strategy<Value = Change> {
        // Few names, so that lines meet.
        prop_oneof![
            ("[a-cA-C]|Age|Content-Length", "[ -~]{0,9}").prop_map(|(name, value)| Change::Push(name, value)),
            ("[a-cA-C]", "[ -~]{0,9}").prop_map(|(name, value)| Change::Set(name, value)),
            "[a-cA-C]".prop_map(Change::Remove),
            Just(Change::RetainShortValues),
        ]
    }

    fn apply(lines: &mut impl Lines, change: &Change) {
        match change {
            Change::Push(name, value) => lines.push(name, value),
            Change::Set(name, value) => lines.set(name, value),
            Change::Remove(name) => lines.remove(name),
            Change::RetainShortValues => lines.retain(|_, value| value.len() < 5),
        }
    }

    fn written(lines: &impl Lines) -> String {
        let mut out = Vec::new();
        lines.write_http1(&NOT_IN_RESPONSES, |piece| out.extend_from_slice(piece));
        String::from_utf8(out).unwrap()
    }

    proptest! {
        #[test]
        fn they_are_what_lines_of_ones_own_would_be(
            stored in proptest::collection::vec(("[a-cA-C]", "[ -~]{0,9}"), 0..70),
            changes in proptest::collection::vec(change(), 0..8),
        ) {
            let mut own = Fields::new();
            for (name, value) in &stored {
                own.push(name, value);
            }
            let packed = PackedFields::from(&own);
            let mut shared = StoredLines::new(&packed);
            for change in &changes {
                apply(&mut own, change);
                apply(&mut shared, change);
            }
            prop_assert_eq!(written(&own), written(&shared));
            prop_assert_eq!(own.to_header_map(), shared.to_header_map());
            for name in ["a", "B", "c", "age", "x"] {
                prop_assert_eq!(own.get(name), shared.get(name));
                prop_assert_eq!(Lines::contains(&own, name), Lines::contains(&shared, name));
            }
            prop_assert_eq!(packed.unpack().len(), stored.len());
        }
    }
}
