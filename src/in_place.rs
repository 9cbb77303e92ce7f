//! Values that are made where they are to live.
//!
//! `Box::new(value)` makes the value first and the room for it afterwards. If there were no room the value would have to be dropped, so it has
//! to exist somewhere else before: the compiler makes it on the stack and copies it. The futures of a request are several KiB, of which
//! hardly anything is written at first, and copying them costs more than most of what they do. Where the room is there before the value
//! is made, nothing is left to be copied.

use std::pin::Pin;

/// A box around what `make` answers with.
#[inline(always)]
pub fn boxed<T>(make: impl FnOnce() -> T) -> Box<T> {
    let room = Box::new_uninit();
    Box::write(room, make())
}

/// The same for a future.
#[inline(always)]
pub fn pinned<F: Future>(make: impl FnOnce() -> F) -> Pin<Box<F>> {
    Box::into_pin(boxed(make))
}
