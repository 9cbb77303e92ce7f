//! What is changed on the way between client and upstream.
//!
//! Fields that belong to one connection go ([`names`]), those that tell the upstream about the client are written anew
//! ([`forwarding`]), and what the route asks for is done last ([`template`]); [`fields`] puts it together. Bodies are compressed by
//! [`compress`], in the coding that [`negotiate`] chooses, with the [`dictionary`] that the client has.

pub mod compress;
pub mod dictionary;
pub mod events;
pub mod fields;
pub mod forwarding;
pub mod names;
pub mod negotiate;
pub mod template;
