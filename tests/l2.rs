//! The second tier: what one instance has stored, all of them have.

mod faults;
mod tier;
