//! `GET /openapi.json`: the endpoints in OpenAPI 3.1, made of the table of endpoints and of the types that are answered.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::answer::Problem;
use super::endpoint::{Endpoint, Guard};
use super::{purge, stats, stored, tasks, upstreams, warm};

type Make = fn(&mut SchemaGenerator) -> Schema;

fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// A parameter of a query.
struct Parameter {
    name: &'static str,
    about: &'static str,
    required: Required,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Required {
    Yes,
    No,
}

/// The type of a request's body. `None`: it takes none.
pub fn body(endpoint: Endpoint) -> Option<fn(&mut SchemaGenerator) -> Schema> {
    match endpoint {
        Endpoint::Purge => Some(of::<purge::PurgeRequest>),
        Endpoint::Warm => Some(of::<warm::WarmRequest>),
        Endpoint::Page
        | Endpoint::OpenApi
        | Endpoint::Stats
        | Endpoint::Config
        | Endpoint::Stored
        | Endpoint::Top
        | Endpoint::Upstreams
        | Endpoint::Drain
        | Endpoint::Enable
        | Endpoint::Tasks
        | Endpoint::Task
        | Endpoint::CancelTask => None,
    }
}

/// What is answered when all goes well.
fn answers(endpoint: Endpoint) -> &'static [(u16, Option<Make>)] {
    match endpoint {
        Endpoint::Purge => &[(200, Some(of::<purge::PurgeReport>)), (202, Some(of::<purge::Pending>))],
        Endpoint::Warm => &[(202, Some(of::<tasks::TaskReport>))],
        Endpoint::Page | Endpoint::OpenApi | Endpoint::Config => &[(200, None)],
        Endpoint::Stats => &[(200, Some(of::<stats::Stats>))],
        Endpoint::Stored => &[(200, Some(of::<stored::StoredReport>))],
        Endpoint::Top => &[(200, Some(of::<stored::TopReport>))],
        Endpoint::Upstreams => &[(200, Some(of::<upstreams::UpstreamList>))],
        Endpoint::Drain | Endpoint::Enable => &[(200, Some(of::<upstreams::ServerState>))],
        Endpoint::Tasks => &[(200, Some(of::<tasks::TaskList>))],
        Endpoint::Task | Endpoint::CancelTask => &[(200, Some(of::<tasks::TaskReport>))],
    }
}

/// Statuses with problem details, beside those that every endpoint has.
fn problems(endpoint: Endpoint) -> &'static [u16] {
    match endpoint {
        Endpoint::Stored | Endpoint::Top => &[400],
        Endpoint::Drain | Endpoint::Enable | Endpoint::Task => &[404],
        Endpoint::CancelTask => &[404, 409],
        Endpoint::Purge | Endpoint::Warm => &[503],
        Endpoint::Page
        | Endpoint::OpenApi
        | Endpoint::Stats
        | Endpoint::Config
        | Endpoint::Upstreams
        | Endpoint::Tasks => &[],
    }
}

fn parameters(endpoint: Endpoint) -> &'static [Parameter] {
    match endpoint {
        Endpoint::Stored => &[
            Parameter {
                name: "url",
                about: "http://HOST/PATH or https://HOST/PATH",
                required: Required::Yes,
            },
            Parameter {
                name: "header",
                about: "A field of the request, \"Name: value\"; can be repeated",
                required: Required::No,
            },
            Parameter {
                name: "from",
                about: "The address that the request comes from",
                required: Required::No,
            },
        ],
        Endpoint::Top => &[Parameter {
            name: "n",
            about: "How many",
            required: Required::No,
        }],
        _ => &[],
    }
}

/// The whole document.
pub fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
    });
    let mut generator = settings.into_generator();
    let problem = of::<Problem>(&mut generator);
    let mut paths = Map::new();
    for endpoint in Endpoint::ALL.iter().copied() {
        let operation = operation(endpoint, &problem, &mut generator);
        let path = paths.entry(endpoint.path()).or_insert_with(|| json!({}));
        path[endpoint.method().as_str().to_ascii_lowercase()] = operation;
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Forebay's admin listener",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Purging and looking inside. Errors are problem details (RFC 9457).",
        },
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
    })
}

fn operation(endpoint: Endpoint, problem: &Schema, generator: &mut SchemaGenerator) -> Value {
    let mut responses = Map::new();
    for (status, schema) in answers(endpoint) {
        let schema = match schema {
            Some(schema) => json!(schema(generator)),
            None => json!({ "type": "object" }),
        };
        let content = match endpoint {
            Endpoint::Page => json!({ "text/html; charset=utf-8": { "schema": { "type": "string" } } }),
            _ => json!({ "application/json": { "schema": schema } }),
        };
        let response = json!({ "description": endpoint.summary(), "content": content });
        responses.insert(status.to_string(), response);
    }
    let mut refused = vec![403];
    if endpoint.guard() == Guard::Token {
        refused.push(401);
    }
    if body(endpoint).is_some() {
        refused.extend([400, 408, 413, 415]);
    }
    refused.extend(problems(endpoint));
    for status in refused {
        let name = http::StatusCode::from_u16(status)
            .ok()
            .and_then(|status| status.canonical_reason());
        let content = json!({ "application/problem+json": { "schema": problem } });
        let response = json!({ "description": name.unwrap_or_default(), "content": content });
        responses.insert(status.to_string(), response);
    }
    let mut listed: Vec<Value> = Vec::new();
    for segment in endpoint.path().split('/') {
        if let Some(name) = segment.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
            listed.push(json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }));
        }
    }
    for parameter in parameters(endpoint) {
        listed.push(json!({
            "name": parameter.name,
            "in": "query",
            "description": parameter.about,
            "required": parameter.required == Required::Yes,
            "schema": { "type": "string" },
        }));
    }
    let mut operation = json!({
        "operationId": endpoint.id(),
        "summary": endpoint.summary(),
        "responses": responses,
    });
    if !listed.is_empty() {
        operation["parameters"] = json!(listed);
    }
    if let Some(body) = body(endpoint) {
        let schema = body(generator);
        operation["requestBody"] = json!({ "required": true, "content": { "application/json": { "schema": schema } } });
    }
    if endpoint.guard() == Guard::Token {
        operation["security"] = json!([{ "token": [] }]);
    }
    operation
}
