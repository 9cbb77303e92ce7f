//! What Forebay says on its own.

pub mod cache_status;
pub mod error;
pub mod refusal;
