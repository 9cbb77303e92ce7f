//! How much of everything a client may have: rates and concurrency.

pub mod gcra;
pub mod local;
