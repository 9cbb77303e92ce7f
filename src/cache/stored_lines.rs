//! What a client gets of a stored response's field lines: those that are stored, sent from where they lie, and this client's own.
//!
//! The stored text has the very form in which HTTP/1.1 sends it, so a hit copies it once, into what is written, and what is told of
//! the hit is written behind it there. What a route does to it is noted beside it: hundreds of thousands of requests share one
//! stored response, and a reload may change what the next of them gets.

use bytes::BufMut;

use super::PackedFields;
use crate::http1::encode::{NOT_IN_RESPONSES, decimal};
use crate::message::{FieldNames, Fields, Lines};
use crate::respond::cache_status::CacheStatus;
use crate::rfc9111::date::Seconds;

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
    /// Stands behind the stored ones.
    told: Option<Told<'a>>,
    /// Stand behind that.
    added: Fields,
}

/// What is told of a stored response that answers.
#[derive(Debug, Clone, Copy)]
pub struct Told<'a> {
    /// `Age` (RFC 9111 §5.1).
    pub age: Seconds,
    pub status: CacheStatus<'a>,
    /// `X-Request-Id`. `None`: the stored response has one.
    pub request_id: Option<&'a [u8]>,
}

const AGE: &str = "Age";
const CACHE_STATUS: &str = "Cache-Status";
const REQUEST_ID: &str = "X-Request-Id";

impl Told<'_> {
    #[inline]
    fn has(&self, name: &str) -> bool {
        // Asked for with each hit.
        self.request_id.is_some() && name.eq_ignore_ascii_case(REQUEST_ID)
            || name.eq_ignore_ascii_case(AGE)
            || name.eq_ignore_ascii_case(CACHE_STATUS)
    }

    /// Each line as [`Self::write_http1`] writes it.
    fn for_each(&self, mut each: impl FnMut(&str, &[u8])) {
        let mut value = Vec::new();
        decimal(&mut value, u64::from(self.age.get()));
        each(AGE, &value);
        value.clear();
        self.status.write(&mut value);
        each(CACHE_STATUS, &value);
        if let Some(request_id) = self.request_id {
            each(REQUEST_ID, request_id);
        }
    }

    #[inline]
    fn write_http1(&self, out: &mut impl BufMut) {
        out.put_slice(b"Age: ");
        decimal(out, u64::from(self.age.get()));
        out.put_slice(b"\r\nCache-Status: ");
        self.status.write(out);
        if let Some(request_id) = self.request_id {
            out.put_slice(b"\r\nX-Request-Id: ");
            out.put_slice(request_id);
        }
        out.put_slice(b"\r\n");
    }
}

impl<'a> StoredLines<'a> {
    #[inline]
    pub fn new(stored: &'a PackedFields) -> Self {
        let all = Self {
            stored: Some(stored),
            left_out: 0,
            told: None,
            added: Fields::new(),
        };
        match stored.most_lines() > NUMBERED {
            true => all.copied(),
            false => all,
        }
    }

    /// With all lines in `added`.
    #[cold]
    fn copied(self) -> Self {
        Self {
            added: self.stored.map(PackedFields::unpack).unwrap_or_default(),
            stored: None,
            ..self
        }
    }

    /// Adds the lines that tell this behind the others. They are not made before they are written, if nothing is behind what is
    /// stored yet: that is the usual case.
    #[inline]
    pub fn tell(&mut self, told: Told<'a>) {
        match (self.told, self.added.is_empty()) {
            (None, true) => self.told = Some(told),
            _ => told.for_each(|name, value| self.push(name, value)),
        }
    }

    /// Makes what is told lines like others.
    fn spell_out(&mut self) {
        let Some(told) = self.told.take() else { return };
        let behind = std::mem::take(&mut self.added);
        told.for_each(|name, value| self.push(name, value));
        for (name, value) in behind.iter() {
            self.push(name, value);
        }
    }

    /// Where lines are added.
    fn room(&mut self) -> &mut Fields {
        if self.added.is_empty() {
            self.added = Fields::with_capacity(ADDED_LINES, ADDED_BYTES);
        }
        &mut self.added
    }

    /// Numbers of the stored lines of that name that are not left out.
    fn numbers(&self, name: &str) -> impl Iterator<Item = u32> {
        let (mut lines, mut at) = (self.stored.map(PackedFields::lines), 0);
        let left_out = self.left_out;
        let of_name = std::iter::from_fn(move || Some(lines.as_mut()?.find(name.as_bytes(), &mut at)?.0));
        of_name.filter(move |number| left_out & (1 << number) == 0)
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
    #[inline]
    fn contains(&self, name: &str) -> bool {
        self.told.as_ref().is_some_and(|told| told.has(name))
            || self.numbers(name).next().is_some()
            || self.added.contains(name)
    }

    fn push(&mut self, name: &str, value: impl AsRef<[u8]>) {
        self.room().push(name, value);
    }

    fn push_written(&mut self, name: &str, write: impl FnOnce(&mut Vec<u8>)) {
        self.room().push_written(name, write);
    }

    fn retain(&mut self, mut keep: impl FnMut(&str, &[u8]) -> bool) {
        self.spell_out();
        for (number, line) in self.stored.into_iter().flat_map(PackedFields::lines).enumerate() {
            if self.left_out & (1 << number) == 0 && !keep(text(line.name), line.value) {
                self.left_out |= 1 << number;
            }
        }
        self.added.retain(keep);
    }

    fn remove(&mut self, name: &str) {
        if self.told.as_ref().is_some_and(|told| told.has(name)) {
            self.spell_out();
        }
        let numbers = self.numbers(name).fold(0, |bits, number| bits | 1 << number);
        self.left_out |= numbers;
        self.added.remove(name);
    }

    fn remove_all(&mut self, names: &FieldNames) {
        if self.told.is_some() {
            self.spell_out();
        }
        for (number, line) in self.stored.into_iter().flat_map(PackedFields::lines).enumerate() {
            self.left_out |= u64::from(names.has_bytes(line.name)) << number;
        }
        self.added.remove_all(names);
    }

    fn for_each(&self, mut each: impl FnMut(&str, &[u8])) {
        for line in self.kept() {
            each(text(line.name), line.value);
        }
        if let Some(told) = &self.told {
            told.for_each(&mut each);
        }
        for (name, value) in self.added.iter() {
            each(name, value);
        }
    }

    #[inline]
    fn write_http1(&self, without: &FieldNames, out: &mut impl BufMut) {
        // None of the stored ones, and none that is told, is among those.
        debug_assert!(
            without.iter().all(|name| NOT_IN_RESPONSES.has(name)),
            "not a response's"
        );
        if let Some(stored) = self.stored {
            let all = stored.text();
            if self.left_out == 0 {
                out.put_slice(all);
            } else {
                // What stands side by side in one piece.
                let mut run = 0..0;
                for line in self.kept().map(|line| line.at()) {
                    if line.start != run.end {
                        out.put_slice(all.get(run).unwrap_or_default());
                        run = line.start..line.start;
                    }
                    run.end = line.end;
                }
                out.put_slice(all.get(run).unwrap_or_default());
            }
        }
        if let Some(told) = &self.told {
            told.write_http1(out);
        }
        if !self.added.is_empty() {
            self.added.write_http1(without, |piece| out.put_slice(piece));
        }
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
    use crate::message::FieldName;
    use crate::respond::cache_status::Outcome;

    const SOME: FieldNames = FieldNames::new(&[FieldName::new("a"), FieldName::new("age"), FieldName::new("c")]);

    #[derive(Debug, Clone)]
    enum Change {
        Push(String, String),
        Set(String, String),
        Remove(String),
        RemoveAll,
        RetainShortValues,
        Tell(u32, i64, Option<String>),
    }

    fn change() -> impl Strategy<Value = Change> {
        // Few names, so that lines meet.
        prop_oneof![
            ("[a-cA-C]|Age|Content-Length", "[ -~]{0,9}").prop_map(|(name, value)| Change::Push(name, value)),
            ("[a-cA-C]", "[ -~]{0,9}").prop_map(|(name, value)| Change::Set(name, value)),
            "[a-cA-C]|age|cache-status|X-Request-ID".prop_map(Change::Remove),
            Just(Change::RemoveAll),
            Just(Change::RetainShortValues),
            (any::<u32>(), any::<i64>(), proptest::option::of("[!-~]{1,9}"))
                .prop_map(|(age, ttl, request_id)| Change::Tell(age, ttl, request_id)),
        ]
    }

    fn told(change: &Change) -> Option<Told<'_>> {
        let Change::Tell(age, ttl, request_id) = change else {
            return None;
        };
        Some(Told {
            age: Seconds::new(u64::from(*age)),
            status: CacheStatus {
                outcome: Outcome::Hit,
                ttl: Some(*ttl),
                detail: Some("l1"),
            },
            request_id: request_id.as_ref().map(|id| id.as_bytes()),
        })
    }

    fn apply(lines: &mut impl Lines, change: &Change) {
        match change {
            Change::Tell(..) => {
                if let Some(told) = told(change) {
                    lines.push("Age", told.age.get().to_string());
                    lines.push("Cache-Status", told.status.to_field_value());
                    if let Some(request_id) = told.request_id {
                        lines.push("X-Request-Id", request_id);
                    }
                }
            }
            Change::Push(name, value) => lines.push(name, value),
            Change::Set(name, value) => lines.set(name, value),
            Change::Remove(name) => lines.remove(name),
            Change::RemoveAll => lines.remove_all(&SOME),
            Change::RetainShortValues => lines.retain(|_, value| value.len() < 5),
        }
    }

    fn written(lines: &impl Lines) -> String {
        let mut out = Vec::new();
        lines.write_http1(&NOT_IN_RESPONSES, &mut out);
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
                match told(change) {
                    Some(told) => shared.tell(told),
                    None => apply(&mut shared, change),
                }
            }
            prop_assert_eq!(written(&own), written(&shared));
            prop_assert_eq!(own.to_header_map(), shared.to_header_map());
            for name in ["a", "B", "c", "age", "cache-status", "x-request-id", "x"] {
                prop_assert_eq!(Lines::contains(&own, name), Lines::contains(&shared, name));
            }
            prop_assert_eq!(packed.unpack().len(), stored.len());
        }
    }
}
