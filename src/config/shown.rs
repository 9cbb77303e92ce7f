//! The configuration as it may be shown: what was typed, with every secret masked.

use serde_json::{Map, Value as Json};

use super::yaml::{Entry, Node, Scalar, Style, Value};
use crate::log::redact;

/// Stands for a secret.
const MASK: &str = "***";

/// Keys whose values are secret wherever they stand.
const SECRET_KEYS: [&str; 3] = ["password", "secret", "token"];

/// What comes from the environment stays as it is written in the file: `${NAME}`.
pub fn shown(root: &Node) -> Json {
    node(root, None)
}

fn node(node_: &Node, key: Option<&str>) -> Json {
    match &node_.value {
        Value::Scalar(scalar) => self::scalar(scalar, key),
        Value::List(items) => Json::Array(items.iter().map(|item| node(item, key)).collect()),
        Value::Map(entries) => {
            let edits_fields = matches!(key, Some("set" | "add"));
            let shown = |entry: &Entry| match edits_fields && is_secret_field(&entry.key) {
                true => Json::String(MASK.to_owned()),
                false => node(&entry.value, Some(&entry.key)),
            };
            let entries = entries.iter().map(|entry| (entry.key.clone(), shown(entry)));
            Json::Object(entries.collect::<Map<_, _>>())
        }
        Value::Broken => Json::Null,
    }
}

fn scalar(scalar: &Scalar, key: Option<&str>) -> Json {
    let is_secret = key.is_some_and(|key| SECRET_KEYS.contains(&key));
    match &scalar.style {
        // A default behind the name is typed, and may be the secret itself.
        Style::Substituted { written } if is_secret => Json::String(without_default(written)),
        Style::Substituted { written } => Json::String(redact::url_text(written)),
        _ if is_secret => Json::String(MASK.to_owned()),
        Style::Quoted => Json::String(redact::url_text(&scalar.text)),
        Style::Plain => plain(&scalar.text),
    }
}

/// Fields that a route sets, whose values let somebody in.
fn is_secret_field(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let endings = [
        "authorization",
        "cookie",
        "token",
        "key",
        "secret",
        "password",
        "credentials",
    ];
    endings.iter().any(|ending| name.ends_with(ending))
}

fn without_default(written: &str) -> String {
    let name = written.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    match name {
        Some(name) if !name.contains(|c: char| !c.is_ascii_alphanumeric() && c != '_') => written.to_owned(),
        _ => MASK.to_owned(),
    }
}

fn plain(text: &str) -> Json {
    match text {
        "" | "null" | "~" => Json::Null,
        "true" => Json::Bool(true),
        "false" => Json::Bool(false),
        text => match text.parse::<i64>() {
            Ok(number) => number.into(),
            Err(_) => Json::String(redact::url_text(text)),
        },
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Environment};

    #[test]
    fn secrets_are_masked_and_the_environment_is_named() {
        let text = "listen: ${ADDR}\nupstream: http://127.0.0.1:3000\nserver: { threads: 2 }\n\
                    admin: { listen: \"127.0.0.1:9191\", token: \"${TOKEN}\" }\nmetrics: off\n";
        let environment = Environment::fixed([("ADDR", "127.0.0.1:8080"), ("TOKEN", "hunter2hunter2hunter2")]);
        let config = Config::parse("f.yaml", text, &environment).unwrap().config;
        assert_eq!(
            *config.shown.0,
            serde_json::json!({
                "listen": "${ADDR}",
                "upstream": "http://127.0.0.1:3000",
                "server": { "threads": 2 },
                "admin": { "listen": "127.0.0.1:9191", "token": "${TOKEN}" },
                "metrics": "off",
            })
        );
        let typed = text.replace("${TOKEN}", "hunter2hunter2hunter2");
        for text in [typed, text.replace("${TOKEN}", "${T:-hunter2hunter2hunter2}")] {
            let config = Config::parse("f.yaml", &text, &environment).unwrap().config;
            assert_eq!(config.shown.0["admin"]["token"], "***");
            assert!(!format!("{config:?}").contains("hunter2"));
        }
    }
}
