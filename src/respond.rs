//! What Forebay says on its own.

pub mod error;
