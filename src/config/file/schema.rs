//! The JSON Schema of the file, for editors.

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::FileConfig;

/// What stands in the place of a number or a word when it comes from the environment.
const REFERENCE: &str = "\\$\\{";

/// The JSON Schema (draft 2020-12) of the file, indented.
pub fn schema() -> String {
    let generator: SchemaGenerator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.into_root_schema_for::<FileConfig>().to_value();
    tidy(&mut schema);
    // Printing a value that was built from strings and numbers cannot fail; an empty schema allows everything.
    serde_json::to_string_pretty(&schema).unwrap_or_else(|_| "{}".to_owned())
}

/// Takes out what follows from `Option` alone (a key may be absent, but never `null`), and lets `${NAME}` stand for
/// what is not text.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(tidy),
        Value::Object(object) => {
            drop_null(object);
            object.values_mut().for_each(tidy);
            allow_reference(object);
        }
        _ => {}
    }
}

fn drop_null(object: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".to_owned(), only);
        }
    }
    let is_null = |schema: &Value| *schema == json!({ "type": "null" });
    if let Some(Value::Array(choices)) = object.get_mut("anyOf") {
        choices.retain(|choice| !is_null(choice));
        if let [Value::Object(only)] = choices.as_mut_slice() {
            let only = std::mem::take(only);
            object.remove("anyOf");
            for (key, value) in only {
                object.entry(key).or_insert(value);
            }
        }
    }
}

fn allow_reference(object: &mut Map<String, Value>) {
    let needs_it = match object.get("type") {
        Some(Value::String(name)) => {
            matches!(name.as_str(), "integer" | "number" | "boolean")
                || (name == "string" && object.contains_key("enum"))
        }
        _ => object.contains_key("oneOf") && !object.contains_key("type"),
    };
    if !needs_it {
        return;
    }
    let description = object.remove("description");
    let original = std::mem::take(object);
    let reference = json!({ "type": "string", "pattern": REFERENCE });
    object.insert("anyOf".to_owned(), json!([original, reference]));
    if let Some(description) = description {
        object.insert("description".to_owned(), description);
    }
}
