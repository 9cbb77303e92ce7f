//! Whole files, and all that comes of them.

use super::*;

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
