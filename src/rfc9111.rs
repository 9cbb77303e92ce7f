//! HTTP caching by the book: RFC 9111 with the parts of RFC 9110 that it rests on, RFC 5861 (stale responses), RFC 8246
//! (`immutable`), RFC 9211 (the words for what was decided) and RFC 9213 (targeted fields). Pure: heads and `now` go in, decisions
//! with reasons come out; no I/O, no clock, no configuration.
//!
//! [`date`] reads and writes times and deltas; [`directives`] reads `Cache-Control`, `Pragma` and targeted fields;
//! [`storability`] says whether a response may be stored, which of its fields, and makes the [`stored::StoredMeta`] that later
//! decisions read; [`freshness`] knows lifetimes and ages; [`vary`] chooses among variants; [`reuse`] decides whether the chosen one
//! answers, is validated, or the request goes on; [`validation`] has clients' conditions, our own, and what a 304 or a HEAD
//! does to stored responses; [`range`] cuts parts out of whole responses and puts partial ones together; [`invalidation`]
//! says what an unsafe request makes worthless.

pub mod date;
pub mod directives;
pub mod freshness;
pub mod invalidation;
pub mod labels;
pub mod range;
pub mod reuse;
pub mod storability;
pub mod stored;
pub mod validation;
pub mod vary;

#[cfg(test)]
pub(crate) mod tests;
