//! Tells the processor what is about to be read, so that memory answers while there is something else to do.
//!
//! Among a million stored responses none of what a hit reads is in a cache of the processor's, and memory takes as long as some hundred
//! instructions. Asked for one after the other these waits are most of what such a hit costs; asked for at once they are one wait.

/// What the processor fetches at once.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 64;

/// Bytes that are asked for at most: the processor notices by itself where more is read in order.
#[cfg(target_arch = "x86_64")]
const MOST: usize = 2048;

/// All of this, as far as it goes without following a pointer, will be read.
#[inline]
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
pub fn will_read<T: ?Sized>(what: &T) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    let start = std::ptr::from_ref(what).cast::<i8>();
    for offset in (0..size_of_val(what).min(MOST)).step_by(LINE) {
        // SAFETY: a hint, which changes nothing that a program could see, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(offset)) };
    }
}

/// Other processors are left to themselves.
#[inline]
#[cfg(not(target_arch = "x86_64"))]
pub fn will_read<T: ?Sized>(_: &T) {}
