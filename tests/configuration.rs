//! The configuration as its author meets it: checks, explanations, exit codes.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::origin::Origin;
use crate::support::proxy::{Builder, Finished, forebay};

const OK: i32 = 0;
const USAGE: i32 = 64;
const UNAVAILABLE: i32 = 69;
const CONFIGURATION: i32 = 78;

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

async fn check(text: &str) -> Finished {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("forebay.yaml");
    std::fs::write(&path, text).unwrap();
    forebay(&["check", &path.display().to_string()]).await
}

#[tokio::test]
async fn every_file_in_conf_is_right() {
    let files: Vec<PathBuf> = std::fs::read_dir(project().join("conf"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    for name in ["minimal.yaml", "forebay.yaml", "llm-chat.yaml"] {
        assert!(files.iter().any(|path| path.ends_with(name)), "conf/{name} is missing");
    }
    for path in files {
        let finished = forebay(&["check", &path.display().to_string()]).await;
        assert_eq!(
            (finished.code, finished.stderr.as_str()),
            (OK, ""),
            "{}",
            path.display()
        );
    }
}

#[tokio::test]
async fn every_configuration_in_the_readme_is_right() {
    let readme = std::fs::read_to_string(project().join("README.md")).unwrap();
    let blocks: Vec<&str> = readme
        .split("```yaml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    assert!(blocks.len() >= 2, "the smallest configuration and the chat example");
    for block in blocks {
        let finished = check(block).await;
        assert_eq!((finished.code, finished.stderr.as_str()), (OK, ""), "{block}");
    }
}

#[tokio::test]
async fn all_errors_are_told_at_once_with_their_place() {
    let finished = check(
        "listen: 127.0.0.1:0
upstream: http://127.0.0.1:3000
routes:
  - match: { path_prefix: api }
    upstream: nowhere
    max_request_body: lots
log:
  levle: info
server: { shutdown_grace: -1s }
",
    )
    .await;
    assert_eq!((finished.code, finished.stdout.as_str()), (CONFIGURATION, ""));
    let lines: Vec<&str> = finished.stderr.lines().collect();
    for (place, key) in [
        (":4:", "routes[0].match.path_prefix"),
        (":5:", "routes[0].upstream"),
        (":6:", "routes[0].max_request_body"),
        (":8:", "log.levle"),
        (":9:", "server.shutdown_grace"),
    ] {
        let told = |line: &&str| line.contains("forebay.yaml") && line.contains(place) && line.contains(key);
        assert!(lines.iter().any(told), "{key}: {}", finished.stderr);
    }
    assert!(
        finished.stderr.contains("level"),
        "a cure for the misspelt key: {}",
        finished.stderr
    );
}

#[tokio::test]
async fn broken_rules_are_errors() {
    let upstream = "upstream: http://127.0.0.1:3000\n";
    let table = [
        ("nothing", String::new(), "listen"),
        ("no upstream", "listen: 127.0.0.1:80\n".to_owned(), "upstream"),
        (
            "both forms",
            format!("listen: 127.0.0.1:80\nlisteners: [{{ address: 127.0.0.1:81 }}]\n{upstream}"),
            "listen",
        ),
        ("a bad address", format!("listen: here\n{upstream}"), "listen"),
        (
            "a bad URL",
            "listen: 127.0.0.1:80\nupstream: ftp://a\n".to_owned(),
            "upstream",
        ),
        (
            "the same key twice",
            format!("listen: 127.0.0.1:80\nlisten: 127.0.0.1:81\n{upstream}"),
            "listen",
        ),
        ("no YAML", "listen: [".to_owned(), ":1:"),
        ("a list", "- a\n".to_owned(), ":1:"),
        (
            "an unset variable",
            format!("listen: \"${{FOREBAY_TEST_UNSET}}\"\n{upstream}"),
            "FOREBAY_TEST_UNSET",
        ),
    ];
    for (name, text, part) in table {
        let finished = check(&text).await;
        assert_eq!(finished.code, CONFIGURATION, "{name}: {}", finished.stderr);
        assert!(finished.stderr.contains(part), "{name}: {}", finished.stderr);
        assert!(!finished.stderr.contains("panicked"), "{name}: {}", finished.stderr);
    }
}

#[tokio::test]
async fn what_is_not_available_yet_is_said_and_not_ignored() {
    let table = [("tracing", "tracing: { otlp: \"http://127.0.0.1:4318\" }")];
    for (key, section) in table {
        let finished = check(&format!(
            "listen: 127.0.0.1:80\nupstream: http://127.0.0.1:3000\n{section}\n"
        ))
        .await;
        assert_eq!(finished.code, CONFIGURATION, "{key}: {}", finished.stderr);
        let said = finished.stderr.contains("not available yet") && finished.stderr.contains(key);
        assert!(said, "{key}: {}", finished.stderr);
    }
}

#[tokio::test]
async fn variables_come_from_the_environment() {
    let origin = Origin::start().await;
    let yaml = "listen: \"${LISTEN:-127.0.0.1:0}\"
upstream: \"http://${APP}\"
routes:
  - match: { path_prefix: /, headers: { X-Literal: \"$${APP}\" } }
    upstream: default
    response_headers: { set: { X-Matched: literal } }
";
    let proxy = Builder::new().environment("APP", &origin.server()).start(yaml).await;
    let response = proxy.request("GET", "/", &[("X-Literal", "${APP}")], b"").await;
    assert_eq!(
        (response.text(), response.field("x-matched")),
        ("hello", Some("literal"))
    );
}

#[tokio::test]
async fn exit_codes_tell_usage_from_configuration() {
    let missing = "/nonexistent/forebay.yaml";
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("taken.yaml");
    let text = format!(
        "listen: {}\nupstream: http://127.0.0.1:3000\nmetrics: {{ listen: 127.0.0.1:0 }}\n",
        taken.local_addr().unwrap()
    );
    std::fs::write(&file, text).unwrap();
    let file = file.display().to_string();
    let table: &[(&[&str], i32)] = &[
        (&["--version"], OK),
        (&["--help"], OK),
        (&["run", "--help"], OK),
        (&["check", &file], OK),
        (&[], USAGE),
        (&["fly"], USAGE),
        (&["run"], USAGE),
        (&["run", "--listen", "127.0.0.1:0"], USAGE),
        (&["run", "--config", &file, "--upstream", "http://a"], USAGE),
        (&["run", "--upstream", "nonsense://"], USAGE),
        (&["check"], USAGE),
        (&["check", missing], CONFIGURATION),
        (&["run", "--config", missing], CONFIGURATION),
        (&["run", "--config", &file], UNAVAILABLE),
    ];
    for (arguments, code) in table {
        let finished = forebay(arguments).await;
        assert_eq!(
            finished.code, *code,
            "{arguments:?}: {}{}",
            finished.stdout, finished.stderr
        );
        assert!(
            *code == OK || !finished.stderr.is_empty(),
            "{arguments:?} fails in silence"
        );
    }
    let version = forebay(&["--version"]).await;
    assert_eq!(version.stdout.trim(), format!("forebay {}", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn the_schema_knows_every_section() {
    let finished = forebay(&["schema"]).await;
    assert_eq!(finished.code, OK);
    let schema: Value = serde_json::from_str(&finished.stdout).unwrap();
    for key in [
        "listen",
        "upstream",
        "listeners",
        "trusted_proxies",
        "upstreams",
        "cache",
        "defaults",
        "routes",
        "rate_limits",
        "concurrency",
        "metrics",
        "admin",
        "log",
        "tracing",
        "server",
    ] {
        assert!(schema["properties"][key].is_object(), "{key}");
    }
    assert_eq!(schema["additionalProperties"], false, "unknown keys are errors");
}

#[tokio::test]
async fn explain_tells_what_would_become_of_a_request() {
    let origin = Origin::start().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("forebay.yaml");
    let yaml = format!(
        "listeners: [{{ address: 127.0.0.1:0 }}]
upstreams: {{ app: {{ servers: [\"{}\"] }} }}
routes:
  - {{ name: admin, match: {{ path_prefix: /admin }}, upstream: app, cache: false, max_request_body: 1KiB }}
  - {{ name: beta, match: {{ path_prefix: /, headers: {{ X-Beta: \"1\" }} }}, upstream: app }}
  - {{ name: site, match: {{ path_prefix: / }}, upstream: app }}
",
        origin.server()
    );
    std::fs::write(&path, yaml).unwrap();
    let file = path.display().to_string();
    let url = "http://shop.example/page?b=1";
    let table: &[(&[&str], &[&str])] = &[
        (&["GET", url], &["site", "app", "shop.example", "/page?b=1"]),
        (&["GET", url, "-H", "X-Beta: 1"], &["beta", "app"]),
        (
            &["GET", url, "-H", "Authorization: Bearer a"],
            &["site", "Authorization"],
        ),
        (&["POST", url], &["site", "method"]),
        (&["GET", "http://shop.example/admin/x"], &["admin", "1 KiB"]),
        (&["GET", "http://shop.example/%61dmin"], &["400", "ambiguous"]),
    ];
    for (request, parts) in table {
        let arguments = [&["explain", &file], *request].concat();
        let finished = forebay(&arguments).await;
        assert_eq!(finished.code, OK, "{request:?}: {}", finished.stderr);
        for part in *parts {
            assert!(
                finished.stdout.contains(part),
                "{request:?}: no {part} in {}",
                finished.stdout
            );
        }
    }
    assert_eq!(forebay(&["explain", &file, "GET", "no url"]).await.code, USAGE);
    assert_eq!(origin.connection_count(), 0, "nothing is sent");
}
