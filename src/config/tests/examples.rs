//! The files that are shipped, and the key list of the manual.

use super::*;

fn shipped() -> Vec<(String, String)> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("conf");
    let mut files: Vec<(String, String)> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| (path.display().to_string(), std::fs::read_to_string(path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn shipped_files_are_right_and_without_warnings() {
    let files = shipped();
    assert!(files.len() >= 3);
    for (name, text) in files {
        let loaded = Config::parse(&name, &text, &Environment::fixed([])).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(loaded.warnings, [], "{name}");
    }
}

/// Comments that show keys must stay true: with them switched on, nothing is wrong but what is not available, or not
/// there.
#[test]
fn shipped_examples_hold_known_keys_only() {
    let (_, text) = shipped()
        .into_iter()
        .find(|(name, _)| name.ends_with("/forebay.yaml"))
        .unwrap();
    let uncomment = |line: &str| {
        // A comment that shows a key instead of another one does not go beside it.
        let repeats = line.contains("#~ balance:");
        match line.find("#~ ") {
            Some(_) if repeats => line.to_owned(),
            Some(at) => format!("{}{}", &line[..at], &line[at + 3..]),
            None => line.to_owned(),
        }
    };
    let on: Vec<String> = text.lines().map(uncomment).collect();
    let found = errors(&on.join("\n"));
    assert!(!found.is_empty());
    for error in found {
        let is_expected =
            error.contains("not available yet in this version") || error.contains("must be a file that can be read");
        assert!(is_expected, "{error}");
    }
}

/// What is commented out because it needs something of the reader's is right all the same.
#[test]
fn shipped_examples_about_failing_servers_are_right() {
    let (_, text) = shipped()
        .into_iter()
        .find(|(name, _)| name.ends_with("/forebay.yaml"))
        .unwrap();
    let lines = text.lines().skip_while(|line| !line.contains("# health_check:"));
    let keys: Vec<String> = lines
        .take_while(|line| line.starts_with("    # "))
        .map(|line| line.replacen("# ", "", 1))
        .collect();
    assert!(keys.iter().any(|line| line.contains("max_body: 64KiB")));
    let with = parse(&format!(
        "listen: 0.0.0.0:80\nupstreams:\n  app:\n    servers: [a:1]\n{}\n",
        keys.join("\n")
    ));
    let upstream = &with.upstreams[0];
    let without =
        "listen: 0.0.0.0:80\nupstreams: { app: { servers: [a:1], outlier: {}, circuit_breaker: {}, retry: {} } }\n";
    let defaults = &parse(without).upstreams[0];
    assert_eq!(upstream.outlier, defaults.outlier);
    assert_eq!(upstream.circuit_breaker, defaults.circuit_breaker);
    assert_eq!(upstream.retry, defaults.retry);
    assert!(upstream.health_check.is_some());
}

/// Every key there is. What this version does not have yet is refused, each key once, and nothing else is wrong.
const EVERYTHING: &str = include_str!("everything.yaml");

#[test]
fn every_key_is_known() {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("example.pem", "-----BEGIN CERTIFICATE-----"),
        ("example.key", "-----BEGIN PRIVATE KEY-----"),
        ("app-ca.pem", "-----BEGIN CERTIFICATE-----"),
        ("servers.txt", ""),
        ("hot-urls.txt", ""),
        ("redis", ""),
        ("forebay-admin", "0123456789abcdef\n"),
    ] {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    let here = format!("{}/", directory.path().display());
    let text = ["/etc/forebay/", "/etc/ssl/", "/run/secrets/"]
        .iter()
        .fold(EVERYTHING.to_owned(), |text, folder| text.replace(folder, &here));
    let found: Vec<String> = errors(&text)
        .into_iter()
        .map(|error| {
            let rest = error.splitn(4, ':').nth(3).unwrap().trim().to_owned();
            rest.split_once(": not available yet in this version")
                .unwrap_or_else(|| panic!("{error}"))
                .0
                .to_owned()
        })
        .collect();
    assert_eq!(found, ["tracing"]);
}
