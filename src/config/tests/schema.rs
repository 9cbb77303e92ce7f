//! The JSON Schema, checked with as much of JSON Schema as it uses.

use serde_json::Value;

use super::*;

/// Whether the value is valid; the path of the first thing that is not.
fn validate(root: &Value, schema: &Value, value: &Value, path: &str) -> Result<(), String> {
    let Value::Object(schema) = schema else {
        return Ok(());
    };
    if let Some(Value::String(reference)) = schema.get("$ref") {
        let target = root
            .pointer(reference.trim_start_matches('#'))
            .unwrap_or_else(|| panic!("{reference}"));
        validate(root, target, value, path)?;
    }
    for word in schema.keys() {
        let known = [
            "$ref",
            "$defs",
            "$schema",
            "title",
            "description",
            "type",
            "format",
            "minimum",
            "maximum",
            "pattern",
            "enum",
            "const",
            "anyOf",
            "oneOf",
            "items",
            "properties",
            "additionalProperties",
            "required",
        ];
        assert!(known.contains(&word.as_str()), "{word} at {path}");
    }
    let is_type = |name: &str| match value {
        Value::Null => name == "null",
        Value::Bool(_) => name == "boolean",
        Value::Number(number) => name == "number" || (name == "integer" && !number.is_f64()),
        Value::String(_) => name == "string",
        Value::Array(_) => name == "array",
        Value::Object(_) => name == "object",
    };
    let typed = match schema.get("type") {
        None => true,
        Some(Value::String(name)) => is_type(name),
        Some(Value::Array(names)) => names.iter().any(|name| is_type(name.as_str().unwrap())),
        Some(other) => panic!("{other}"),
    };
    if !typed {
        return Err(format!("{path}: wrong type"));
    }
    if let (Some(minimum), Some(number)) = (schema.get("minimum"), value.as_f64())
        && number < minimum.as_f64().unwrap()
    {
        return Err(format!("{path}: too small"));
    }
    if let (Some(pattern), Value::String(text)) = (schema.get("pattern"), value)
        && !regex::Regex::new(pattern.as_str().unwrap()).unwrap().is_match(text)
    {
        return Err(format!("{path}: does not match {pattern}"));
    }
    if let Some(Value::Array(words)) = schema.get("enum")
        && !words.contains(value)
    {
        return Err(format!("{path}: not in {words:?}"));
    }
    if schema.get("const").is_some_and(|word| word != value) {
        return Err(format!("{path}: not the constant"));
    }
    for word in ["anyOf", "oneOf"] {
        if let Some(Value::Array(choices)) = schema.get(word) {
            let failures: Vec<String> = choices
                .iter()
                .filter_map(|choice| validate(root, choice, value, path).err())
                .collect();
            if failures.len() == choices.len() {
                return Err(failures.join(" and "));
            }
        }
    }
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                validate(
                    root,
                    schema.get("items").unwrap_or(&Value::Null),
                    item,
                    &format!("{path}[{index}]"),
                )?;
            }
        }
        Value::Object(entries) => {
            for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
                if !entries.contains_key(name.as_str().unwrap()) {
                    return Err(format!("{path}: needs {name}"));
                }
            }
            for (name, value) in entries {
                let path = format!("{path}.{name}");
                match (
                    schema.get("properties").and_then(|known| known.get(name)),
                    schema.get("additionalProperties"),
                ) {
                    (Some(schema), _) | (None, Some(schema @ Value::Object(_))) => {
                        validate(root, schema, value, &path)?
                    }
                    (None, Some(Value::Bool(false))) => return Err(format!("{path}: unknown")),
                    (None, _) => {}
                }
            }
        }
        _ => {}
    }
    Ok(())
}

fn check(yaml: &str) -> Result<(), String> {
    let root: Value = serde_json::from_str(&schema()).unwrap();
    // JSON has text keys only.
    let value: Value = serde_yaml::from_str(&yaml.replace("404:", "\"404\":")).unwrap();
    validate(&root, &root, &value, "")
}

#[test]
fn it_accepts_what_is_right() {
    for name in ["minimal", "forebay", "llm-chat"] {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("conf/{name}.yaml"));
        assert_eq!(check(&std::fs::read_to_string(path).unwrap()), Ok(()), "{name}");
    }
    assert_eq!(check(include_str!("everything.yaml")), Ok(()));
    for text in [
        "upstreams: { a: { servers: [\"${SERVER}\"], http2: \"${H2:-true}\", keepalive: \"${N}\", balance: \"${B}\" } }",
        "cache: { memory: { size: 1048576, max_body: \"1KiB\" } }",
        "routes: [{ cache: false, match: { headers: { X-A: 1 } } }, { cache: off }, { cache: { ttl: 1s } }]",
        "server: { threads: 4 }",
    ] {
        assert_eq!(check(text), Ok(()), "{text}");
    }
}

#[test]
fn it_refuses_what_is_wrong() {
    for text in [
        "upstraem: http://a",
        "listen: 8080",
        "listen: null",
        "listeners: [{ http2: true }]",
        "upstreams: { a: { servers: [a:1], keepalive: -1 } }",
        "upstreams: { a: { servers: [a:1], keepalive_idle: 10 } }",
        "upstreams: { a: { servers: [a:1], balance: fair } }",
        "upstreams: { a: { servers: [a:1], http2: maybe } }",
        "upstreams: { a: { servers: [{ weight: 1 }] } }",
        "cache: { memory: { size: 10M } }",
        "routes: [{ cache: maybe }]",
        "routes: [{ matches: {} }]",
        "log: { access: { sample: 20 } }",
    ] {
        assert!(check(text).is_err(), "{text}");
    }
}

#[test]
fn keys_are_described_and_never_null() {
    let root: Value = serde_json::from_str(&schema()).unwrap();
    assert_eq!(root["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(root["additionalProperties"], false);
    assert!(
        root["properties"]["upstream"]["description"]
            .as_str()
            .unwrap()
            .starts_with("Short form"),
        "{root}"
    );
    assert!(!schema().contains("\"null\""));
    assert!(!schema().contains('\u{1f}'));
}
