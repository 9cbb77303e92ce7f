//! What can be done with the field lines of a response on its way to a client, whether they belong to this response alone or most of
//! them are shared with a stored one.

use bytes::BufMut;
use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::fields::{FieldNames, Fields};

/// Field lines that are changed and then sent.
pub trait Lines {
    /// Whether there is a line of that name.
    fn contains(&self, name: &str) -> bool;

    /// Adds a line behind the others. See [`Fields::push`].
    fn push(&mut self, name: &str, value: impl AsRef<[u8]>);

    /// Adds a line whose value `write` appends to what is there. See [`Fields::push_written`].
    fn push_written(&mut self, name: &str, write: impl FnOnce(&mut Vec<u8>));

    /// Keeps the lines for which `keep` is true.
    fn retain(&mut self, keep: impl FnMut(&str, &[u8]) -> bool);

    /// Removes all lines of that name.
    fn remove(&mut self, name: &str) {
        self.retain(|other, _| !other.eq_ignore_ascii_case(name));
    }

    /// Removes all lines of these names.
    fn remove_all(&mut self, names: &FieldNames) {
        self.retain(|name, _| !names.has(name));
    }

    /// Puts one line in the place of all of that name.
    fn set(&mut self, name: &str, value: impl AsRef<[u8]>) {
        self.remove(name);
        self.push(name, value);
    }

    /// All lines, in order.
    fn for_each(&self, line: impl FnMut(&str, &[u8]));

    /// Writes the lines as [`Fields::write_http1`] does.
    fn write_http1(&self, without: &FieldNames, out: &mut impl BufMut);

    /// For HTTP/2. Lines that it does not allow are left out; others were checked when they came in.
    fn to_header_map(&self) -> HeaderMap {
        /// As many as a usual response has.
        const LINES: usize = 16;
        let mut map = HeaderMap::with_capacity(LINES);
        self.for_each(|name, value| {
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value)) {
                map.append(name, value);
            }
        });
        map
    }
}

impl Lines for Fields {
    fn contains(&self, name: &str) -> bool {
        Self::contains(self, name)
    }

    fn push(&mut self, name: &str, value: impl AsRef<[u8]>) {
        Self::push(self, name, value);
    }

    fn push_written(&mut self, name: &str, write: impl FnOnce(&mut Vec<u8>)) {
        Self::push_written(self, name, write);
    }

    fn retain(&mut self, keep: impl FnMut(&str, &[u8]) -> bool) {
        Self::retain(self, keep);
    }

    fn remove(&mut self, name: &str) {
        Self::remove(self, name);
    }

    fn remove_all(&mut self, names: &FieldNames) {
        Self::remove_all(self, names);
    }

    fn for_each(&self, mut line: impl FnMut(&str, &[u8])) {
        for (name, value) in self.iter() {
            line(name, value);
        }
    }

    fn write_http1(&self, without: &FieldNames, out: &mut impl BufMut) {
        Self::write_http1(self, without, |piece| out.put_slice(piece));
    }
}
