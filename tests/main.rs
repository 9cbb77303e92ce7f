//! Forebay from outside: the real binary between fake origins and real clients.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod admin;
mod browser;
mod cache;
mod caching;
mod compression;
mod concurrency;
mod configuration;
mod deadlines;
mod demo;
mod door;
mod doors;
mod explain;
mod failing;
mod forwarding;
mod http2;
mod l2;
mod life;
mod limits;
mod observe;
mod proxy_protocol;
mod proxying;
mod redis_client;
mod routing;
mod steady;
mod streams;
mod support;
mod tls;
mod upstreams;
mod websocket;
