//! HTTP caching as seen from outside: plain sockets, an origin that says what it is told, and a clock that the tests move.

mod ahead;
mod broken;
mod collapsing;
mod conformance;
mod invalidation;
mod options;
mod parts;
mod poisoning;
mod purging;
mod said;
mod stale;
mod validation;
