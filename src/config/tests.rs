//! The configuration as its user meets it: what is typed, and what comes of it.

mod caching;
mod errors;
mod examples;
mod schema;
mod whole;

use std::path::PathBuf;
use std::time::Duration;

use super::*;

fn parse(text: &str) -> Config {
    load(text).config
}

fn load(text: &str) -> Loaded {
    Config::parse("f.yaml", text, &Environment::fixed([])).unwrap_or_else(|errors| panic!("{errors}\nin:\n{text}"))
}

fn errors(text: &str) -> Vec<String> {
    errors_with(text, &Environment::fixed([]))
}

fn errors_with(text: &str, environment: &Environment) -> Vec<String> {
    match Config::parse("f.yaml", text, environment) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

/// The short form, and more.
fn smallest(more: &str) -> String {
    format!("listen: 0.0.0.0:8080\nupstream: http://127.0.0.1:3000\n{more}")
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn flags() {
    let config = Config::from_flags("https://app.internal", Some("[::1]:80"))
        .unwrap()
        .config;
    assert_eq!(
        config.listeners[0].address,
        ListenAddress::Tcp("[::1]:80".parse().unwrap())
    );
    assert_eq!(config.upstreams[0].tls.as_ref().unwrap().server_name, "app.internal");
    let errors = Config::from_flags("127.0.0.1:3000", Some("8080"))
        .unwrap_err()
        .to_string();
    assert_eq!(
        errors,
        "--upstream: must be a URL, got \"127.0.0.1:3000\" (write http://127.0.0.1:3000)\n\
         --listen: must be an IP address with a port, got \"8080\" \
         (write 0.0.0.0:8080, or 127.0.0.1:8080 for this machine only)"
    );
}

#[test]
fn switches_have_two_spellings() {
    for (text, expected) in [
        ("off", RouteCache::Off),
        ("false", RouteCache::Off),
        ("\"off\"", RouteCache::Off),
        ("on", RouteCache::On(Box::default())),
        ("true", RouteCache::On(Box::default())),
        ("{}", RouteCache::On(Box::default())),
    ] {
        let config = parse(&smallest(&format!("routes: [{{ cache: {text} }}]")));
        assert_eq!(config.routes[0].cache, expected, "{text}");
    }
    assert_eq!(parse(&smallest("log: { access: false }")).log.access, None);
    assert!(parse(&smallest("log: { access: on }")).log.access.is_some());
    assert_eq!(parse(&smallest("metrics: false")).metrics, None);
    let config = parse(&smallest("defaults: { stream: on }\nroutes: [{ stream: off }]"));
    assert_eq!(config.routes[0].stream, None);
}

#[test]
fn a_catch_all_is_implied_by_one_upstream() {
    let names = |text: &str| -> Vec<String> {
        let config = parse(text);
        config.routes.iter().map(|route| route.name.to_string()).collect()
    };
    let one = "listen: 0.0.0.0:80\nupstreams: { app: { servers: [a:1] } }\n";
    let two = "listen: 0.0.0.0:80\nupstreams: { app: { servers: [a:1] }, b: { servers: [b:1] } }\n";
    assert_eq!(names(one), ["default"]);
    assert_eq!(
        names(&format!("{one}routes: [{{ match: {{ path: /x }} }}]")),
        ["route-1", "default"]
    );
    assert_eq!(
        names(&format!("{one}routes: [{{ match: {{ path_prefix: / }} }}]")),
        ["route-1"]
    );
    assert_eq!(names(&format!("{one}routes: [{{}}]")), ["route-1"]);
    assert_eq!(
        names(&format!("{one}routes: [{{ match: {{ host: a }} }}]")),
        ["route-1", "default"]
    );
    assert_eq!(names(&format!("{one}routes: []")), ["default"]);
    let text = format!("{two}routes: [{{ upstream: b, match: {{ path: /x }} }}]");
    assert_eq!(names(&text), ["route-1"]);
    assert_eq!(parse(&text).routes[0].upstream, 1);
    // The defaults are for the implied route, too.
    let config = parse(&smallest("defaults: { cache: off, strip_prefix: true }"));
    assert_eq!(
        (&config.routes[0].cache, config.routes[0].strip_prefix),
        (&RouteCache::Off, false)
    );
}

#[test]
fn http2_follows_tls() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| -> PathBuf {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let cert = file("c.pem", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n");
    let key = file("k.pem", "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n");
    let pair = format!("{{ cert: {}, key: {} }}", cert.display(), key.display());
    let text = |rest: &str| {
        let tls = format!("tls: {{ certificates: [{pair}], min_version: tls1.3, hsts: 1y }}");
        format!("listeners: [{{ address: 0.0.0.0:443, {tls}{rest} }}]\nupstream: http://a\n")
    };
    let config = parse(&text(""));
    assert!(config.listeners[0].http2);
    let tls = ListenerTls {
        certificates: vec![Certificate {
            cert: cert.clone(),
            key,
        }],
        min_version: TlsVersion::Tls13,
        hsts: Some(seconds(31_536_000)),
    };
    assert_eq!(config.listeners[0].tls, Some(tls));
    assert!(!parse(&text(", http2: false")).listeners[0].http2);
    assert_eq!(
        errors(&text(", redirect_to_https: true"))[0]
            .split_once(": ")
            .unwrap()
            .1,
        "listeners[0].redirect_to_https: makes no sense on a listener with tls (set it on the plain listener)"
    );

    let swapped = pair.replace("k.pem", "c.pem");
    let missing = pair.replace("c.pem", "none.pem");
    let encrypted = pair.replace("k.pem", "e.pem");
    file("e.pem", "-----BEGIN ENCRYPTED PRIVATE KEY-----\n");
    for (pair, key, expected) in [
        (&swapped, "key", "must be a PEM file with a private key, got"),
        (
            &missing,
            "cert",
            "must be a file that can be read (entity not found), got",
        ),
        (
            &encrypted,
            "key",
            "must be a PEM file with a private key that is not encrypted, got",
        ),
    ] {
        let text =
            format!("listeners: [{{ address: 0.0.0.0:443, tls: {{ certificates: [{pair}] }} }}]\nupstream: http://a\n");
        let errors = errors(&text);
        assert_eq!(errors.len(), 1, "{errors:?}");
        let expected = format!("listeners[0].tls.certificates[0].{key}: {expected}");
        assert!(errors[0].contains(&expected), "{errors:?}");
        assert!(
            errors[0].contains(&directory.path().display().to_string()),
            "{errors:?}"
        );
    }
}

#[test]
fn the_environment_is_put_in_and_typed_again() {
    let environment = Environment::fixed([
        ("PORT", "3000"),
        ("WEIGHT", "7"),
        ("H2", "true"),
        ("NUMBER", "404"),
        ("SIZE", "1MiB"),
        ("CACHE", "off"),
        ("LEVEL", "warn"),
    ]);
    let text = r#"
listen: "0.0.0.0:${NONE:-8080}"
upstreams:
  app: { servers: [{ address: "a:${PORT}", weight: "${WEIGHT}" }], http2: "${H2}", keepalive: "${KEEP:-5}" }
routes:
  - name: "${NUMBER}"
    cache: "${CACHE}"
    max_request_body: ${SIZE}
    request_headers: { set: { X-Literal: "$${PORT}", X-Number: "${NUMBER}" } }
log: { level: "${LEVEL}" }
"#;
    let config = Config::parse("f.yaml", text, &environment).unwrap().config;
    let upstream = &config.upstreams[0];
    assert_eq!(
        upstream.servers[0].address,
        ServerSource::Address(ServerAddress::Tcp {
            host: "a".into(),
            port: 3000
        })
    );
    assert_eq!(
        (upstream.servers[0].weight, upstream.http2, upstream.keepalive),
        (7, true, 5)
    );
    let route = &config.routes[0];
    assert_eq!(
        (&*route.name, &route.cache, route.max_request_body),
        ("404", &RouteCache::Off, Some(1 << 20))
    );
    let value = |text: &str| ValueTemplate {
        parts: vec![ValuePart::Text(text.into())],
    };
    assert_eq!(route.request_headers.set[0].1, value("${PORT}"));
    assert_eq!(route.request_headers.set[1].1, value("404"));
    assert_eq!(config.log.level, Level::Warn);
}

#[test]
fn warnings() {
    let text = "\
listen: 0.0.0.0:80
trusted_proxies: [0.0.0.0/0]
upstreams:
  app:
    servers: [a:1]
    tls: { verify: false }
  other: { servers: [b:1] }
routes:
  - { name: all, upstream: app }
  - { name: late, upstream: app, match: { path: /x } }
";
    let warnings: Vec<String> = load(text).warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "f.yaml:2:19: trusted_proxies[0]: everybody may tell us the client's address, and walk around allow and deny \
             (name the proxies in front)",
            "f.yaml:6:12: upstreams.app.tls.verify: whoever stands between here and the servers can read and change \
             everything (name their authority in tls.ca instead)",
            "f.yaml:7:3: upstreams.other: is not used by any route",
            "f.yaml:10:5: routes[1]: is never reached, because routes[0] before it matches every request (move it up)",
        ]
    );
    assert!(load(&smallest("")).warnings.is_empty());
}

#[test]
fn files() {
    let directory = tempfile::tempdir().unwrap();
    let environment = Environment::fixed([]);
    let path = directory.path().join("f.yaml");
    let error = Config::load(&path, &environment).unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "{}: cannot be read: No such file or directory (os error 2)",
            path.display()
        )
    );
    std::fs::write(&path, smallest("")).unwrap();
    assert!(Config::load(&path, &environment).is_ok());
    std::fs::write(&path, "listen: x\nupstream: http://a\n").unwrap();
    let error = Config::load(&path, &environment).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("{}:1:9: listen: must be", path.display())),
        "{error}"
    );
    std::fs::write(&path, b"listen: \xff\n").unwrap();
    let error = Config::load(&path, &environment).unwrap_err().to_string();
    assert!(
        error.ends_with(": cannot be read: stream did not contain valid UTF-8"),
        "{error}"
    );
    std::fs::write(&path, "#".repeat(1 << 21)).unwrap();
    let error = Config::load(&path, &environment).unwrap_err().to_string();
    assert_eq!(error, format!("{}: is larger than 1048576 bytes", path.display()));
}

#[test]
fn what_only_a_restart_can_change() {
    let base = smallest(
        "metrics: { listen: 127.0.0.1:9190 }\nadmin: { listen: 127.0.0.1:9291 }\nserver: { threads: 2 }\ncache: { memory: { size: 9MiB, eviction: lru } }\n",
    );
    let before = parse(&base);
    for (from, to, expected) in [
        ("", "", &[][..]),
        ("0.0.0.0:8080", "0.0.0.0:8081", &["listeners.address"]),
        ("9190", "9191", &["metrics.listen"]),
        ("{ listen: 127.0.0.1:9190 }", "off", &["metrics.listen"]),
        ("9291", "9292", &["admin.listen"]),
        ("9291 }", "9291, token: 0123456789abcdef }", &[]),
        ("threads: 2", "threads: 3", &["server.threads"]),
        ("threads: 2", "threads: 2, stream_grace: 1s", &[]),
        ("size: 9MiB", "size: 10MiB", &["cache.memory.size"]),
        ("lru", "lfu", &["cache.memory.eviction"]),
        ("lru", "lru, dictionaries: 1MiB", &["cache.memory.dictionaries"]),
        ("lru", "lru, max_ttl: 1h", &[]),
        (":3000", ":3001", &[]),
    ] {
        let after = parse(&base.replacen(from, to, usize::from(!from.is_empty())));
        assert_eq!(before.needs_restart(&after), expected, "{to}");
    }
}
