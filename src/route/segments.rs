//! What is known of path segments, found by the whole segment.

/// Entries by a segment. Mostly there are a few, and hundreds at the most, so they are only told apart by length first: comparing what has
/// the right length costs less than hashing.
#[derive(Debug)]
pub(super) struct Segments<T> {
    /// By length; those of one length are in order.
    by_length: Vec<Vec<(Box<[u8]>, T)>>,
}

impl<T> Default for Segments<T> {
    fn default() -> Self {
        Self { by_length: Vec::new() }
    }
}

impl<T: Default> Segments<T> {
    #[inline]
    pub(super) fn find(&self, segment: &[u8]) -> Option<&T> {
        let entries = self.by_length.get(segment.len())?;
        let at = entries.binary_search_by(|(other, _)| (**other).cmp(segment)).ok()?;
        entries.get(at).map(|(_, entry)| entry)
    }

    /// The entry of this segment, which is made if there is none.
    pub(super) fn entry(&mut self, segment: &[u8]) -> &mut T {
        if self.by_length.len() <= segment.len() {
            self.by_length.resize_with(segment.len() + 1, Vec::new);
        }
        let entries = &mut self.by_length[segment.len()];
        let at = entries.partition_point(|(other, _)| **other < *segment);
        if entries.get(at).is_none_or(|(other, _)| **other != *segment) {
            entries.insert(at, (segment.into(), T::default()));
        }
        &mut entries[at].1
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn segments_find_what_was_put_in(put in proptest::collection::vec("[ab]{0,4}", 0..40), asked in "[ab]{0,5}") {
            let (mut segments, mut model) = (Segments::<Vec<usize>>::default(), HashMap::<String, Vec<usize>>::new());
            for (at, segment) in put.iter().enumerate() {
                segments.entry(segment.as_bytes()).push(at);
                model.entry(segment.clone()).or_default().push(at);
            }
            for segment in put.iter().chain([&asked]) {
                prop_assert_eq!(segments.find(segment.as_bytes()), model.get(segment));
            }
        }
    }
}
