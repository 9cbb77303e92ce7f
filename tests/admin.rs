//! The admin listener from outside.

mod access;
mod commands;
mod figures;
mod looking;
mod openapi;
mod purge_method;
mod purging;
mod top;
mod warming;

use std::net::SocketAddr;

use serde_json::Value;

use crate::support::client::{Client, Response};
use crate::support::inside::Inside;

/// On any port, without a token.
const ADMIN: &str = "admin: { listen: 127.0.0.1:0 }\n";

/// One request on a connection of its own; `body` is sent as JSON.
async fn ask(address: SocketAddr, method: &str, target: &str, fields: &[(&str, &str)], body: &str) -> Response {
    let mut fields = [&[("Host", "localhost")], fields].concat();
    if !body.is_empty() {
        fields.push(("Content-Type", "application/json"));
    }
    Client::connect(address)
        .await
        .request(method, target, &fields, body.as_bytes())
        .await
}

/// What the endpoint answers, which has to be 200.
async fn look(proxy: &Inside, target: &str) -> Value {
    let response = ask(proxy.admin_address(), "GET", target, &[], "").await;
    assert_eq!(response.status, 200, "{target}: {}", response.text());
    response.json()
}
