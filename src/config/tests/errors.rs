//! Every rule, broken: the messages to the letter.

use proptest::prelude::*;
use serde_yaml::Value;

use super::*;

/// Files with their messages: a `=====` stands before each file, a `> ` before each message.
const CASES: &str = include_str!("errors.txt");

#[test]
fn messages_to_the_letter() {
    let environment = Environment::fixed([
        ("SECRET", "hunter2"),
        ("NUM", "12"),
        ("ADDR", "10.1.2.3"),
        ("URL", "me:hunter2@x"),
    ]);
    let cases: Vec<&str> = CASES.split("=====\n").skip(1).collect();
    assert!(cases.len() > 40);
    for case in cases {
        let (messages, file): (Vec<&str>, Vec<&str>) = case.lines().partition(|line| line.starts_with("> "));
        let expected: Vec<&str> = messages.iter().map(|line| line.trim_start_matches("> ")).collect();
        let file = file.join("\n");
        assert_eq!(errors_with(&file, &environment), expected, "in:\n{file}");
        assert!(!expected.is_empty(), "in:\n{file}");
    }
}

#[test]
fn errors_have_an_end() {
    let many: String = (0..1000).map(|index| format!("k{index}: 1\n")).collect();
    assert_eq!(errors(&many).len(), 100);
    let many: String = (0..1000)
        .map(|index| format!("- {{ name: n{index}, upstream: u }}\n"))
        .collect();
    assert_eq!(errors(&smallest(&format!("routes:\n{many}"))).len(), 100);
}

#[test]
fn a_small_file_cannot_grow() {
    let environment = Environment::fixed([("BIG", &*"x".repeat(100_000))]);
    let text = smallest(&format!("trusted_proxies: [{}]", "\"${BIG}\", ".repeat(20)));
    let found = errors_with(&text, &environment);
    assert_eq!(found.len(), 20);
    let last = "trusted_proxies[19]: makes the file larger than 1048576 bytes after substitution";
    assert!(found[19].ends_with(last), "{}", found[19]);
}

/// Puts `${SECRET}` in the place of each scalar in turn.
fn with_a_secret(value: &Value, found: &mut Vec<Value>, rebuild: &dyn Fn(Value) -> Value) {
    match value {
        Value::Sequence(items) => {
            for (index, item) in items.iter().enumerate() {
                with_a_secret(item, found, &|new| {
                    let mut items = items.clone();
                    items[index] = new;
                    rebuild(Value::Sequence(items))
                });
            }
        }
        Value::Mapping(entries) => {
            for (key, item) in entries {
                with_a_secret(item, found, &|new| {
                    let mut entries = entries.clone();
                    entries.insert(key.clone(), new);
                    rebuild(Value::Mapping(entries))
                });
            }
        }
        _ => found.push(rebuild("${SECRET}".into())),
    }
}

#[test]
fn what_comes_from_the_environment_is_never_shown() {
    let everything: Value = serde_yaml::from_str(include_str!("everything.yaml")).unwrap();
    let short: Value = serde_yaml::from_str(&smallest("")).unwrap();
    let mut files = Vec::new();
    with_a_secret(&everything, &mut files, &|value| value);
    with_a_secret(&short, &mut files, &|value| value);
    assert!(files.len() > 100);
    for file in files {
        let text = serde_yaml::to_string(&file).unwrap();
        for secret in [
            "4242M",
            "4242",
            "hunter4242",
            ":4242",
            "hunter4242:1",
            "http://hunter4242",
            "https://u:hunter4242@x",
            "42.42.0.1/8",
            "/hunter4242/{hunter4242}",
            "{hunter4242}",
            "hunter4242\n",
        ] {
            let environment = Environment::fixed([("SECRET", secret)]);
            for error in errors_with(&text, &environment) {
                assert!(
                    !error.contains("4242") && !error.contains("42.42") && !error.contains("42.0.0"),
                    "{error}"
                );
            }
        }
    }
}

proptest! {
    #[test]
    fn no_text_is_too_much(text in "([a-z]{1,3}: |- |\\[|\\]|\\{|\\}|\"|'|\n {0,4}|[*&@!%|>#?:,]|\\$\\{|[0-9]{1,3}|é|\t){0,60}") {
        let _ = errors(&text);
    }

    #[test]
    fn no_value_is_too_much(value in "[^\n\"\\\\]{0,20}", line in 0..120_usize) {
        let everything = include_str!("everything.yaml");
        let changed: Vec<String> = everything
            .lines()
            .enumerate()
            .map(|(index, text)| match text.split_once(": ") {
                Some((key, _)) if index == line => format!("{key}: \"{value}\""),
                _ => text.to_owned(),
            })
            .collect();
        let _ = errors(&changed.join("\n"));
    }
}
