//! Forebay: a caching reverse proxy in front of an application that already works.
//!
//! The life of a request, in the order of the modules that it passes:
//!
//! ```text
//! bytes ─► server ─► edge ─► proxy: route ─► transform ─► upstream ─┐
//!          (listeners) (HTTP/1.1, HTTP/2)                            │
//! client ◄─ edge ◄─ respond ◄─ transform ◄───────────── proxy::relay ◄┘
//! ```
//!
//! The way is one-directional: a stage takes what the earlier ones decided and adds one decision to the [`exchange`]. What is pure
//! knows nothing of sockets: [`http1`], [`route`], [`transform`], [`rfc9111`]. [`metrics`], [`log`] and [`status`] stand beside the flow
//! and read it.

pub mod admin;
pub mod cache;
pub mod cli;
pub mod clock;
pub mod config;
pub mod edge;
pub mod exchange;
pub mod generation;
pub mod heap;
pub mod http1;
mod in_place;
pub mod io;
pub mod key;
pub mod limit;
pub mod log;
pub mod message;
pub mod metrics;
pub mod proxy;
pub mod redis;
pub mod request_id;
pub mod respond;
pub mod rfc9111;
pub mod route;
pub mod server;
mod side_listener;
pub mod status;
pub mod tls;
pub mod transform;
pub mod upstream;
