//! Handles by label value.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// As many series are kept although nobody uses them any more, because a counter that vanishes is a gap in a graph. Beyond it the
/// unused ones go: servers and routes may come and go for as long as the process lives.
const KEPT: usize = 1000;

/// One `T` for each value of a label.
#[derive(Debug)]
pub(crate) struct Series<T>(Mutex<BTreeMap<Arc<str>, Arc<T>>>);

impl<T: Default> Series<T> {
    /// The handle of that label value, made if it is new.
    pub(crate) fn of(&self, label: &str) -> Arc<T> {
        let mut series = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = series.get(label) {
            return Arc::clone(handle);
        }
        if series.len() >= KEPT {
            series.retain(|_, handle| Arc::strong_count(handle) > 1);
        }
        let handle = Arc::<T>::default();
        series.insert(label.into(), Arc::clone(&handle));
        handle
    }

    /// All of them, by label value.
    pub(crate) fn all(&self) -> Vec<(Arc<str>, Arc<T>)> {
        let series = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        series
            .iter()
            .map(|(label, handle)| (Arc::clone(label), Arc::clone(handle)))
            .collect()
    }
}

impl<T> Default for Series<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_handle_for_each_label() {
        let series = Series::<u8>::default();
        assert!(Arc::ptr_eq(&series.of("a"), &series.of("a")));
        assert!(!Arc::ptr_eq(&series.of("a"), &series.of("b")));
    }

    #[test]
    fn unused_series_do_not_pile_up() {
        let series = Series::<u8>::default();
        let used = series.of("used");
        for number in 0..3 * KEPT {
            series.of(&number.to_string());
        }
        assert!(series.all().len() <= KEPT);
        assert!(Arc::ptr_eq(&used, &series.of("used")));
    }
}
