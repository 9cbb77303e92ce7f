//! How the process's memory is mapped: in large pages where the cache holds many small responses.
//!
//! A hit among a million responses reads from five or six places that nobody has read from lately. In pages of 4 KiB the processor first
//! has to find out where each of them is, which takes as long as reading it, and twice as long in a virtual machine; pages of 2 MiB it
//! knows by heart. But a process in large pages takes more memory than it uses, and gives it back in larger pieces. So the system may use
//! them only while they are worth it: otherwise free pages go back to it within a tenth of a second, and nobody notices.
//!
//! The allocator asks for large pages everywhere (`thp:always`), and this module says when the system may give them.

use std::ffi::CStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tikv_jemalloc_sys::mallctl;

use crate::cache::Memory;

/// Keys from which pages of 4 KiB are more than a processor knows by heart: 16 MiB at 1 KiB each.
const MANY: usize = 16 * 1024;

/// Average bytes of a key and what is stored under it up to which a hit is mostly finding it. Larger ones leave larger gaps behind.
const SMALL: u64 = 4096;

/// How often is looked.
const EVERY: Duration = Duration::from_millis(250);

/// How long free pages are kept, in milliseconds: a large page that is given back in part is a large page no more.
const DECAY: isize = 100;
const DECAY_IN_LARGE_PAGES: isize = 10_000;

/// Free pages are given back at once where they are more than one in so many of those in use.
const MOST_FREE: usize = 16;

/// Whether this process's memory is what is spoken of here, and nobody else has decided about it.
static OURS: AtomicBool = AtomicBool::new(false);

/// To be called first by a process whose allocator is jemalloc: until there is much to store, its pages are small.
pub fn begin() {
    // Whoever has started us without large pages wants none.
    OURS.store(large_pages_are_permitted() && permit(Pages::Small), Ordering::Relaxed);
}

/// Adapts the pages to what is stored, for as long as the process lives.
pub async fn follow(memory: Arc<Memory>) {
    if !OURS.load(Ordering::Relaxed) {
        return;
    }
    let mut pages = Pages::Small;
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let fitting = pages.fitting(memory.len(), memory.used());
        if fitting != pages {
            pages = fitting;
            tracing::debug!(?pages, stored = memory.len(), "memory");
        } else if pages == Pages::Small {
            continue;
        }
        // Giving back takes its time.
        let _ = tokio::task::spawn_blocking(move || pages.apply()).await;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pages {
    Small,
    Large,
}

impl Pages {
    /// What fits so many keys that take so many bytes in all. What is there stays for as long as it fits half as well.
    fn fitting(self, keys: usize, bytes: u64) -> Self {
        let (many, small) = match self {
            Self::Small => (MANY, SMALL),
            Self::Large => (MANY / 2, 2 * SMALL),
        };
        match keys >= many && bytes <= small.saturating_mul(keys as u64) {
            true => Self::Large,
            false => Self::Small,
        }
    }

    fn apply(self) {
        // If the system cannot, it stays as it is.
        permit(self);
        match self {
            Self::Small => keep_free_pages(DECAY),
            Self::Large => {
                keep_free_pages(DECAY_IN_LARGE_PAGES);
                give_back_if_many();
            }
        }
    }
}

#[allow(unsafe_code)]
fn large_pages_are_permitted() -> bool {
    // SAFETY: a question about this process, without pointers. The system wants to see zeros.
    unsafe { libc::prctl(libc::PR_GET_THP_DISABLE, 0_u64, 0_u64, 0_u64, 0_u64) == 0 }
}

/// Lets the system give this process pages up to that size from now on; answers whether it could be told so.
#[allow(unsafe_code)]
fn permit(pages: Pages) -> bool {
    let only_small = match pages {
        Pages::Small => 1_u64,
        Pages::Large => 0,
    };
    // SAFETY: as above; whatever the answer, memory reads and writes as before.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, only_small, 0_u64, 0_u64, 0_u64) == 0 }
}

/// How long free pages are kept from now on, in milliseconds.
fn keep_free_pages(decay: isize) {
    if read::<isize>(c"arenas.dirty_decay_ms") == Some(decay) {
        return;
    }
    write(c"arenas.dirty_decay_ms", decay);
    for arena in 0..read::<u32>(c"arenas.narenas").unwrap_or_default() {
        if let Ok(name) = std::ffi::CString::new(format!("arena.{arena}.dirty_decay_ms")) {
            // Those that nothing was allocated from yet are not there: they will have the default.
            write(&name, decay);
        }
    }
}

fn give_back_if_many() {
    // Has the statistics counted anew. 4096 stands for all arenas.
    write(c"epoch", 1_u64);
    let [used, free] = [c"stats.arenas.4096.pactive", c"stats.arenas.4096.pdirty"].map(read::<usize>);
    if let (Some(used), Some(free)) = (used, free)
        && free > used / MOST_FREE
    {
        call(c"arena.4096.purge");
    }
}

/// A kind of value that the allocator is told or tells.
trait Setting: Copy + Default {}

impl Setting for isize {}
impl Setting for usize {}
impl Setting for u32 {}
impl Setting for u64 {}

/// `None`: there is no such setting of that type.
#[allow(unsafe_code)]
fn read<T: Setting>(name: &CStr) -> Option<T> {
    let (mut value, mut length) = (T::default(), size_of::<T>());
    let (to, nothing) = (std::ptr::from_mut(&mut value).cast(), std::ptr::null_mut());
    // SAFETY: the name ends with a zero, and `to` has room for `length` bytes, of which any are a value of this type; the allocator writes
    // nothing where the setting has another length.
    let failed = unsafe { mallctl(name.as_ptr(), to, &raw mut length, nothing, 0) };
    (failed == 0).then_some(value)
}

#[allow(unsafe_code)]
fn write<T: Setting>(name: &CStr, mut value: T) {
    let (from, nothing) = (std::ptr::from_mut(&mut value).cast(), std::ptr::null_mut());
    // SAFETY: the name ends with a zero, and `from` points to a value of that length; the allocator takes none of another length.
    unsafe { mallctl(name.as_ptr(), nothing, std::ptr::null_mut(), from, size_of::<T>()) };
}

#[allow(unsafe_code)]
fn call(name: &CStr) {
    let nothing = std::ptr::null_mut();
    // SAFETY: the name ends with a zero; nothing is passed either way.
    unsafe { mallctl(name.as_ptr(), nothing, std::ptr::null_mut(), nothing, 0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_small_responses_are_worth_large_pages() {
        let cases = [
            (Pages::Small, 1_000, 1_600, Pages::Small),
            (Pages::Small, 20_000, 1_600, Pages::Large),
            (Pages::Small, 20_000, 5_000, Pages::Small),
            (Pages::Large, 20_000, 5_000, Pages::Large),
            (Pages::Large, 20_000, 9_000, Pages::Small),
            (Pages::Large, 10_000, 1_600, Pages::Large),
            (Pages::Large, 8_000, 1_600, Pages::Small),
            (Pages::Large, 0, 0, Pages::Small),
        ];
        for (pages, keys, each, expected) in cases {
            assert_eq!(
                pages.fitting(keys, keys as u64 * each),
                expected,
                "{pages:?} {keys} {each}"
            );
        }
    }

    #[test]
    fn the_allocator_knows_these_settings() {
        keep_free_pages(DECAY_IN_LARGE_PAGES);
        assert_eq!(read::<isize>(c"arenas.dirty_decay_ms"), Some(DECAY_IN_LARGE_PAGES));
        assert_eq!(read::<isize>(c"arena.0.dirty_decay_ms"), Some(DECAY_IN_LARGE_PAGES));
        keep_free_pages(DECAY);
        assert_eq!(read::<isize>(c"arena.0.dirty_decay_ms"), Some(DECAY));
        write(c"epoch", 1_u64);
        assert!(read::<usize>(c"stats.arenas.4096.pactive").is_some());
        assert!(read::<usize>(c"stats.arenas.4096.pdirty").is_some());
        assert_eq!(read::<usize>(c"no.such.setting"), None);
        give_back_if_many();
    }
}
