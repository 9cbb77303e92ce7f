//! The description holds: everything in it is there, and every answer is of the form that it says.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{ADMIN, ask};
use crate::support::inside::Inside;
use crate::support::origin::{Origin, Reply};

/// A request for each operation that does well.
fn examples(proxy: &Inside, server: &str) -> Vec<(&'static str, &'static str, String, &'static str)> {
    let server = server.replace(':', "%3A");
    let url = format!("http://{}/a", proxy.address());
    vec![
        ("GET", "/", "/".to_owned(), ""),
        ("GET", "/openapi.json", "/openapi.json".to_owned(), ""),
        ("GET", "/stats", "/stats".to_owned(), ""),
        ("GET", "/config", "/config".to_owned(), ""),
        ("GET", "/cache", format!("/cache?url={url}"), ""),
        ("GET", "/cache/top", "/cache/top".to_owned(), ""),
        ("POST", "/purge", "/purge".to_owned(), "{ \"tags\": [\"a\"] }"),
        (
            "POST",
            "/purge",
            "/purge".to_owned(),
            "{ \"tags\": [\"a\"], \"after\": \"1h\" }",
        ),
        ("POST", "/purge", "/purge".to_owned(), "{ \"tags\": 7 }"),
        ("POST", "/warm", "/warm".to_owned(), "{ \"hottest\": 1 }"),
        ("GET", "/upstreams", "/upstreams".to_owned(), ""),
        (
            "POST",
            "/upstreams/{upstream}/servers/{server}/drain",
            format!("/upstreams/default/servers/{server}/drain"),
            "",
        ),
        (
            "POST",
            "/upstreams/{upstream}/servers/{server}/enable",
            format!("/upstreams/default/servers/{server}/enable"),
            "",
        ),
        ("GET", "/tasks", "/tasks".to_owned(), ""),
        ("GET", "/tasks/{id}", "/tasks/1".to_owned(), ""),
        ("DELETE", "/tasks/{id}", "/tasks/1".to_owned(), ""),
    ]
}

#[tokio::test]
async fn every_operation_is_there_and_answers_as_described() {
    let origin = Origin::builder().otherwise(Reply::fresh(60, "x")).start().await;
    let proxy = Inside::before(&origin, ADMIN).await;
    proxy.get("/a").await;
    let address = proxy.admin_address();
    let document = ask(address, "GET", "/openapi.json", &[], "").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    let examples = examples(&proxy, &origin.server());
    let asked: BTreeSet<_> = examples
        .iter()
        .map(|(method, path, ..)| format!("{method} {path}"))
        .collect();
    let mut described = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            described.insert(format!("{} {path}", method.to_ascii_uppercase()));
        }
    }
    assert_eq!(asked, described);
    for (method, path, target, body) in examples {
        let operation = &document["paths"][path][method.to_ascii_lowercase()];
        let wrong_host = [("Sec-Fetch-Site", "cross-site")];
        for fields in [&[][..], &wrong_host] {
            let response = ask(address, method, &target, fields, body).await;
            let described = &operation["responses"][response.status.to_string()];
            assert!(
                described.is_object(),
                "{method} {target}: {} is not described",
                response.status
            );
            let content = &described["content"][response.field("content-type").unwrap()];
            assert!(
                content.is_object(),
                "{method} {target}: {:?}",
                response.field("content-type")
            );
            if content["schema"]["type"] != "string" {
                check(&document, &content["schema"], &response.json(), &target);
            }
        }
    }
}

/// The part of JSON Schema that the document uses.
fn check(document: &Value, schema: &Value, value: &Value, at: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document
            .pointer(reference.strip_prefix('#').unwrap())
            .unwrap_or_else(|| panic!("{reference}"));
        return check(document, target, value, at);
    }
    if let Some(any) = schema["anyOf"].as_array() {
        // "This or null", or one of several objects that are told apart by what they must have.
        let has_all = |schema: &&Value| {
            let target = match schema["$ref"].as_str() {
                Some(reference) => document.pointer(reference.strip_prefix('#').unwrap()).unwrap(),
                None => schema,
            };
            let required = target["required"].as_array();
            required.is_none_or(|names| names.iter().all(|name| value.get(name.as_str().unwrap()).is_some()))
        };
        let rest: Vec<_> = any.iter().filter(|schema| schema["type"] != "null").collect();
        let fitting = match rest.as_slice() {
            [only] => only,
            several => several
                .iter()
                .find(|schema| has_all(schema))
                .unwrap_or_else(|| panic!("{at}: {value}")),
        };
        if !value.is_null() || rest.len() == any.len() {
            check(document, fitting, value, at);
        }
        return;
    }
    if let Some(words) = schema["enum"].as_array() {
        assert!(words.contains(value), "{at}: {value}");
    }
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().map(|kind| kind.as_str().unwrap()).collect(),
        _ => Vec::new(),
    };
    let is = |kind: &&str| match *kind {
        "null" => value.is_null(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{at}: {other}"),
    };
    assert!(
        kinds.is_empty() || kinds.iter().any(is),
        "{at}: {value} is not {kinds:?}"
    );
    if let Some(items) = value.as_array() {
        for (index, item) in items.iter().enumerate() {
            check(document, &schema["items"], item, &format!("{at}[{index}]"));
        }
    }
    let (Some(fields), Some(properties)) = (value.as_object(), schema["properties"].as_object()) else {
        return;
    };
    for name in schema["required"].as_array().into_iter().flatten() {
        assert!(fields.contains_key(name.as_str().unwrap()), "{at}: {name} is missing");
    }
    for (name, field) in fields {
        let described = properties
            .get(name)
            .unwrap_or_else(|| panic!("{at}.{name} is not described"));
        check(document, described, field, &format!("{at}.{name}"));
    }
}
