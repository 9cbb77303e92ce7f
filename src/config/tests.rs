//! The configuration as its user meets it: what is typed, and what comes of it.

mod caching;
mod errors;
mod examples;
mod schema;

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
fn two_keys_are_enough() {
    let config = parse(&smallest(""));
    let expected = Config {
        listeners: vec![Listener {
            address: ListenAddress::Tcp("0.0.0.0:8080".parse().unwrap()),
            redirect_to_https: false,
            http2: false,
            proxy_protocol: false,
            tls: None,
        }],
        trusted_proxies: vec![],
        upstreams: vec![Upstream {
            name: "default".into(),
            servers: vec![UpstreamServer {
                address: ServerSource::Address(ServerAddress::Tcp {
                    host: "127.0.0.1".into(),
                    port: 3000,
                }),
                weight: 1,
                role: Role::Main,
                max_connections: None,
            }],
            servers_file: None,
            dns: Dns {
                refresh: seconds(30),
                servers: vec![],
            },
            host: HostPolicy::Keep,
            tls: None,
            http2: false,
            balance: Balance::RoundRobin,
            sticky: None,
            proxy_protocol: None,
            slow_start: seconds(0),
            queue: 1000,
            queue_timeout: seconds(5),
            keepalive: 32,
            keepalive_idle: seconds(4),
            timeouts: Timeouts {
                connect: seconds(10),
                first_byte: Some(seconds(30)),
                between_bytes: Some(seconds(30)),
                send: Some(seconds(30)),
            },
            health_check: None,
            outlier: None,
            circuit_breaker: None,
            retry: None,
        }],
        routes: vec![Route {
            name: "default".into(),
            matches: Match::default(),
            upstream: 0,
            strip_prefix: false,
            request_headers: FieldEdits::default(),
            response_headers: FieldEdits::default(),
            cache: RouteCache::On(Box::default()),
            compression: None,
            stream: None,
            max_request_body: Some(10 << 20),
            allow: vec![],
            deny: vec![],
            purge: None,
            keep_fields: vec![],
            rate_limits: vec![],
            rate_limit_cost: 1,
            in_flight: None,
        }],
        rate_limits: RateLimits {
            store: LimitStore::Memory,
            limits: vec![],
            max_keys: 1_000_000,
            fields: LimitFields::Standard,
            addresses: AddressDetail::Whole,
        },
        concurrency: Concurrency {
            upstreams: vec![None],
            ..Concurrency::default()
        },
        cache: Cache {
            heuristic_max: seconds(60),
            targeted_fields: vec!["cdn-cache-control".into()],
            memory: Memory {
                size: 256 << 20,
                max_body: 8 << 20,
                max_ttl: None,
                eviction: Eviction::S3Fifo,
                dictionaries: 32 << 20,
            },
            warm: None,
            redis: None,
            invalidate: vec![],
        },
        metrics: Some("127.0.0.1:9190".parse().unwrap()),
        admin: None,
        log: Log {
            level: Level::Info,
            access: Some(AccessLog {
                format: AccessFormat::Json,
                path: LogPath::Stdout,
                sample: 1.0,
                slow: Some(seconds(1)),
            }),
        },
        server: Server {
            threads: std::thread::available_parallelism().unwrap().get(),
            shutdown_delay: Duration::ZERO,
            shutdown_grace: seconds(30),
            stream_grace: seconds(300),
        },
        shown: Shown::default(),
    };
    assert_eq!(config, expected);
    let long = "listeners: [{ address: 0.0.0.0:8080 }]\nupstreams: { default: { servers: [127.0.0.1:3000] } }";
    assert_eq!(parse(long), expected);
    assert_eq!(
        Config::from_flags("http://127.0.0.1:3000", None).unwrap().config,
        expected
    );
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
fn everything_that_is_available() {
    let config = parse(
        r#"
listeners:
  - { address: "127.0.0.1:80", redirect_to_https: true, proxy_protocol: true, http2: true }
  - address: unix:/run/forebay.sock
trusted_proxies: [10.0.0.0/8, "::1"]
upstreams:
  web:
    servers: [app.internal:443, { address: "app.internal:444", weight: 3 }]
    tls: { verify: true, min_version: tls1.3 }
    http2: true
    balance: least_connections
    keepalive: 0
    keepalive_idle: 1m
    timeouts: { connect: 1s, first_byte: never, between_bytes: unlimited, send: 500ms }
  api:
    servers: ["unix:/run/api.sock", "[::1]:8080"]
    host: API.example.com:8443
    tls: {}
cache: { memory: { size: 1MiB } }
defaults:
  max_request_body: 1MiB
  cache: off
  deny: [192.0.2.1]
  request_headers: { set: { X-Common: "{host}" } }
routes:
  - match:
      host: ["*.Example.com", example.com.]
      path: "/users/{id}"
      path_suffix: .json
      methods: [GET, HEAD]
      headers: { X-Version: 2 }
    upstream: api
    cache: on
    stream: { first_event: 5s, heartbeat: 15s }
    request_headers: { set: { X-User: "u-{id}" }, add: { x-a: 1 }, remove: [X-Debug] }
    response_headers: { remove: [Server], always: true }
    max_request_body: unlimited
    allow: [10.0.0.0/8]
    deny: []
    keep_fields: [X-Forwarded-Prefix]
  - name: rest
    match: { path_prefix: /api/ }
    upstream: web
    strip_prefix: true
    stream: on
metrics: off
log: { level: debug, access: { format: combined, path: /var/log/a.log, sample: 5%, slow: never } }
server: { threads: 3, shutdown_delay: 1s, shutdown_grace: 2s, stream_grace: 3s }
"#,
    );
    assert!(config.listeners[0].redirect_to_https && config.listeners[0].proxy_protocol && config.listeners[0].http2);
    assert_eq!(
        config.listeners[1].address,
        ListenAddress::Unix("/run/forebay.sock".into())
    );
    assert_eq!(
        config.trusted_proxies,
        ["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]
    );
    let [web, api] = config.upstreams.as_slice() else {
        panic!("{:?}", config.upstreams)
    };
    assert_eq!(
        (&*web.name, &web.balance, web.keepalive, web.http2),
        ("web", &Balance::LeastConnections, 0, true)
    );
    assert_eq!(web.servers[1].weight, 3);
    assert_eq!(web.keepalive_idle, seconds(60));
    let tls = UpstreamTls {
        server_name: "app.internal".into(),
        ca: None,
        verify: Verify::Certificate,
        min_version: TlsVersion::Tls13,
        certificate: None,
    };
    assert_eq!(web.tls, Some(tls));
    let timeouts = Timeouts {
        connect: seconds(1),
        first_byte: None,
        between_bytes: None,
        send: Some(Duration::from_millis(500)),
    };
    assert_eq!(web.timeouts, timeouts);
    assert_eq!(
        api.servers[0].address,
        ServerSource::Address(ServerAddress::Unix("/run/api.sock".into()))
    );
    assert_eq!(api.host, HostPolicy::Send("API.example.com:8443".into()));
    assert_eq!(api.tls.as_ref().unwrap().server_name, "api.example.com");
    assert_eq!(
        config.cache.memory,
        Memory {
            size: 1 << 20,
            max_body: 1 << 20,
            max_ttl: None,
            eviction: Eviction::S3Fifo,
            dictionaries: 32 << 20,
        }
    );

    let [users, rest] = config.routes.as_slice() else {
        panic!("{:?}", config.routes)
    };
    let text = |text: &str| ValuePart::Text(text.to_owned());
    let expected = Route {
        name: "route-1".into(),
        matches: Match {
            hosts: vec![
                HostPattern::Wildcard(".example.com".into()),
                HostPattern::Exact("example.com".into()),
            ],
            path: Some(PathTemplate {
                text: "/users/{id}".into(),
                segments: vec![Segment::Literal("users".into()), Segment::Capture("id".into())],
                trailing_slash: false,
            }),
            path_prefix: None,
            path_suffix: vec![".json".into()],
            methods: vec![Method::GET, Method::HEAD],
            headers: vec![("x-version".into(), "2".into())],
        },
        upstream: 1,
        strip_prefix: false,
        request_headers: FieldEdits {
            remove: vec!["x-debug".into()],
            set: vec![(
                "X-User".into(),
                ValueTemplate {
                    parts: vec![text("u-"), ValuePart::Capture("id".into())],
                },
            )],
            add: vec![("x-a".into(), ValueTemplate { parts: vec![text("1")] })],
            always: false,
        },
        response_headers: FieldEdits {
            remove: vec!["server".into()],
            always: true,
            ..FieldEdits::default()
        },
        cache: RouteCache::On(Box::default()),
        compression: None,
        stream: Some(Stream {
            first_event: Some(seconds(5)),
            between_bytes: Some(seconds(300)),
            heartbeat: Some(seconds(15)),
        }),
        max_request_body: None,
        allow: vec!["10.0.0.0/8".parse().unwrap()],
        deny: vec![],
        purge: None,
        keep_fields: vec!["x-forwarded-prefix".into()],
        rate_limits: vec![],
        rate_limit_cost: 1,
        in_flight: None,
    };
    assert_eq!(*users, expected);
    assert_eq!(
        (&*rest.name, rest.upstream, rest.strip_prefix, &rest.cache),
        ("rest", 0, true, &RouteCache::Off)
    );
    assert_eq!(rest.max_request_body, Some(1 << 20));
    assert_eq!(rest.deny, ["192.0.2.1/32".parse().unwrap()]);
    assert_eq!(rest.request_headers.set[0].0, "X-Common");
    // A stream waits for its head as long as its upstream may take.
    assert_eq!(rest.stream.as_ref().unwrap().first_event, None);
    assert_eq!(config.metrics, None);
    assert_eq!(config.log.level, Level::Debug);
    let access = AccessLog {
        format: AccessFormat::Combined,
        path: LogPath::File("/var/log/a.log".into()),
        sample: 0.05,
        slow: None,
    };
    assert_eq!(config.log.access, Some(access));
    let server = Server {
        threads: 3,
        shutdown_delay: seconds(1),
        shutdown_grace: seconds(2),
        stream_grace: seconds(3),
    };
    assert_eq!(config.server, server);
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
