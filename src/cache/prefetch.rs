//! Tells the processor what is about to be read, so that memory answers while there is something else to do.
//!
//! Among a million stored responses none of what a hit reads is in a cache of the processor's, and memory takes as long as some hundred
//! instructions. Asked for one after the other these waits are most of what such a hit costs; asked for at once they are one wait.

/// What the processor fetches at once.
const LINE: usize = 64;

/// Bytes that are asked for at most: the processor notices by itself where more is read in order. These lines are fewer than
/// addresses of lines have bits that are zero.
const MOST: usize = 2048;

/// Where something lies that will be read, as far as a hint has to know it: whatever has become of it meanwhile, no harm is done.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lines(
    /// The address of the first line, and how many there are in the bits that are zero in it.
    usize,
);

impl Lines {
    /// All of this, as far as it goes without following a pointer.
    #[inline]
    pub fn of<T: ?Sized>(what: &T) -> Self {
        let start = std::ptr::from_ref(what).addr();
        let first = start / LINE;
        let behind = (start + size_of_val(what).min(MOST)).div_ceil(LINE);
        Self((first * LINE) | (behind - first))
    }

    #[inline]
    pub fn will_be_read(self) {
        let (first, count) = (self.0 & !(LINE - 1), self.0 & (LINE - 1));
        for line in 0..count {
            fetch(first + line * LINE);
        }
    }
}

/// All of this, as far as it goes without following a pointer, will be read.
#[inline]
pub fn will_read<T: ?Sized>(what: &T) {
    Lines::of(what).will_be_read();
}

#[inline]
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
fn fetch(address: usize) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a hint, which changes nothing that a program could see, whatever the address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::without_provenance(address)) };
}

/// Other processors are left to themselves.
#[inline]
#[cfg(not(target_arch = "x86_64"))]
fn fetch(_: usize) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_cover_what_they_are_of() {
        #[repr(align(64))]
        struct Aligned([u8; 4096]);
        let bytes = Aligned([0; 4096]);
        let start = std::ptr::from_ref(&bytes).addr();
        for (from, to, first, count) in [
            (0, 1, 0, 1),
            (0, 64, 0, 1),
            (63, 65, 0, 2),
            (64, 64, 64, 0),
            (100, 200, 64, 3),
            (0, 4096, 0, 32),
            (1, 4096, 0, 33),
        ] {
            let lines = Lines::of(&bytes.0[from..to]);
            assert_eq!((lines.0 & !63, lines.0 & 63), (start + first, count), "{from}..{to}");
            lines.will_be_read();
        }
        Lines::default().will_be_read();
    }
}
