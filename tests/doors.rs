//! One policy behind every door: the same requests get the same answers, counters and log entries over HTTP/1.1, pipelined or not, on a
//! connection that a reactor has, over TLS and over HTTP/2; and a reader that takes its time holds nothing but a share of what is stored.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use forebay::clock::Clock;
use futures_util::future::join_all;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};

use crate::support::certificate::Certificate;
use crate::support::client::{Client, Http2Client, Response, head_of, http2_request, rest_of};
use crate::support::inside::Inside;
use crate::support::origin::{self, Origin, Reply};
use crate::support::proxy::{Builder, Proxy, Reload};

/// Ages are multiples of this, give or take what the test itself takes; lifetimes lie between them.
const TICK: u64 = 7;

/// How long a test may take without its answers depending on it, in seconds.
const SLACK: i64 = 3;

const MODIFIED: &str = "Tue, 01 Jul 2025 09:00:00 GMT";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    /// A connection for each request.
    Http1,
    /// All requests of a step in one write.
    Pipelined,
    Tls,
    /// One after the other on a connection that a reactor has got.
    Steady,
    /// With prior knowledge.
    Http2,
    Http2Tls,
}

const DOORS: [Door; 6] = [
    Door::Http1,
    Door::Pipelined,
    Door::Tls,
    Door::Steady,
    Door::Http2,
    Door::Http2Tls,
];

/// Requests for one resource that make a connection steady, even if the first of them is none that is answered at once.
const STEADYING: usize = 70;

/// One request.
#[derive(Debug, Clone)]
struct Asked {
    method: &'static str,
    resource: &'static str,
    fields: Vec<(&'static str, &'static str)>,
}

/// As it is sent.
struct Sent {
    method: &'static str,
    target: String,
    fields: Vec<(&'static str, &'static str)>,
}

/// Requests, and how many ticks pass before them.
#[derive(Debug, Clone)]
struct Step {
    ticks: u64,
    requests: Vec<Asked>,
}

/// What a client has of an answer, in a form that does not depend on the door.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Answer {
    status: u16,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

/// What the origin has. The first segment of a path says which run of the test it belongs to.
fn resource(request: &origin::Request) -> Reply {
    let kind = request.target.rsplit('/').next().unwrap_or_default();
    let validated = |reply: Reply| match request.field("if-none-match") {
        Some("\"v1\"") => Reply::status(304).field("ETag", "\"v1\""),
        _ => reply.field("ETag", "\"v1\"").field("Last-Modified", MODIFIED),
    };
    let text: String = (0..300).map(|at| char::from(b'a' + (at % 26) as u8)).collect();
    let fresh = Reply::fresh(10, text.clone());
    match kind {
        "fresh" => validated(fresh.field("Content-Type", "text/plain").field("X-Origin", "1")),
        "edited" => validated(
            fresh
                .field("Server", "origin")
                .field("X-Origin", "1")
                .field("x-origin", "2"),
        ),
        "plain" => Reply::fresh(24, "no validator"),
        "steady" => Reply::fresh(1_000_000, "however long the test takes"),
        "chunked" => Reply::chunked(["in ", "chunks"]).field("Cache-Control", "max-age=24"),
        "large" => validated(Reply::fresh(24, text.repeat(400))),
        "vary" => {
            let language = request.field("accept-language").unwrap_or("none").to_owned();
            validated(Reply::fresh(24, language).field("Vary", "Accept-Language"))
        }
        "private" => Reply::ok("mine").field("Cache-Control", "private, max-age=24"),
        "validate" => validated(Reply::ok("ask first").field("Cache-Control", "no-cache")),
        "missing" => Reply::status(404).field("Cache-Control", "max-age=10").body("not here"),
        "empty" => Reply::status(204).field("Cache-Control", "max-age=10"),
        _ => Reply::ok("nothing is said").field("Cache-Control", "no-store"),
    }
}

const RESOURCES: [&str; 11] = [
    "fresh", "edited", "plain", "chunked", "large", "vary", "private", "validate", "missing", "empty", "passed",
];

const FIELDS: [(&str, &str); 16] = [
    ("If-None-Match", "\"v1\""),
    ("If-None-Match", "\"v0\", W/\"v1\""),
    ("If-None-Match", "\"v2\""),
    ("If-None-Match", "*"),
    ("If-Modified-Since", MODIFIED),
    ("If-Modified-Since", "Tue, 01 Jul 2025 08:00:00 GMT"),
    ("If-Match", "\"v1\""),
    ("Range", "bytes=2-5"),
    ("Range", "bytes=-3"),
    ("Range", "bytes=0-1,4-5"),
    ("Range", "bytes=1000000-"),
    ("Accept-Language", "de"),
    ("Accept-Language", "fr"),
    ("Cache-Control", "no-cache"),
    ("Cache-Control", "max-age=3"),
    ("Cache-Control", "only-if-cached"),
];

fn scripts() -> impl Strategy<Value = Vec<Step>> {
    // Few resources in each, so that most of them are asked for again.
    proptest::sample::subsequence(&RESOURCES[..], 1..4).prop_flat_map(script)
}

fn script(resources: Vec<&'static str>) -> impl Strategy<Value = Vec<Step>> {
    let fields = prop_oneof![
        4 => Just(Vec::new()),
        4 => select(&FIELDS[..]).prop_map(|field| vec![field]),
        1 => proptest::sample::subsequence(&FIELDS[..], 2),
    ];
    let methods = prop_oneof![6 => Just("GET"), 2 => Just("HEAD"), 1 => Just("POST"), 1 => Just("OPTIONS")];
    let asked = (methods, select(resources), fields).prop_map(|(method, resource, fields)| Asked {
        method,
        resource,
        fields,
    });
    let requests = proptest::collection::vec(asked, 1..10);
    let step = (0..4_u64, requests).prop_map(|(ticks, requests)| Step { ticks, requests });
    proptest::collection::vec(step, 1..4)
}

/// A Forebay of its own for each door, so that their caches and counters can be compared.
struct Side {
    door: Door,
    inside: Inside,
    logged: Cell<usize>,
    counted: RefCell<BTreeMap<String, u64>>,
}

impl Side {
    async fn start(door: Door, origin: &Origin, certificate: &Certificate, directory: &std::path::Path) -> Self {
        let listener = match door {
            Door::Http1 | Door::Pipelined | Door::Steady => "address: 127.0.0.1:0".to_owned(),
            Door::Http2 => "address: 127.0.0.1:0, http2: true".to_owned(),
            Door::Tls | Door::Http2Tls => {
                let (cert, key) = certificate.write(directory, "door");
                let (cert, key) = (cert.display(), key.display());
                format!("address: 127.0.0.1:0, tls: {{ certificates: [{{ cert: {cert}, key: {key} }}] }}")
            }
        };
        let server = origin.server();
        let yaml = format!(
            "listeners: [{{ {listener} }}]\n\
             upstreams: {{ app: {{ servers: [\"{server}\"] }} }}\n\
             routes:\n\
             - {{ name: edited, match: {{ path_suffix: [/edited] }}, upstream: app, response_headers: {{ \
               remove: [X-Origin], set: {{ Server: edge, X-Path: \"{{path}}\" }}, add: {{ X-Added: \"{{method}}\" }} }} }}\n\
             - {{ name: rest, match: {{ path_prefix: / }}, upstream: app }}\n"
        );
        Self {
            door,
            inside: Inside::start(&yaml, Clock::new()).await,
            logged: Cell::new(0),
            counted: RefCell::default(),
        }
    }

    /// The answers to one run.
    async fn run(&self, run: usize, script: &[Step], certificate: &Certificate) -> Vec<Answer> {
        let mut answers = Vec::new();
        for step in script {
            self.inside.advance(step.ticks * TICK);
            let requests = step.requests.iter().enumerate().map(|(number, asked)| {
                let mut fields = asked.fields.clone();
                let id = format!("run-{run}-{}", answers.len() + number);
                fields.push(("X-Request-Id", id.leak()));
                Sent {
                    method: asked.method,
                    target: format!("/{run}/{}", asked.resource),
                    fields,
                }
            });
            let requests: Vec<_> = requests.collect();
            let steady = self.steady_client(certificate).await;
            for response in self.send(&requests, steady, certificate).await {
                answers.push(answer(response));
            }
        }
        answers
    }

    /// Asks as often as it takes for a connection to be steady: at each door, so that counters stay alike.
    async fn steady_client(&self, certificate: &Certificate) -> Client {
        let mut client = match self.door {
            Door::Http1 | Door::Pipelined | Door::Steady | Door::Http2 => Client::connect(self.inside.address()).await,
            Door::Tls | Door::Http2Tls => Client::connect_tls(self.inside.address(), "test", certificate).await,
        };
        let request = "GET /steady HTTP/1.1\r\nHost: test\r\nX-Request-Id: steady\r\n\r\n";
        // The first one may have to be fetched.
        for count in [1, STEADYING - 1] {
            client.send(request.repeat(count)).await;
            for _ in 0..count {
                assert_eq!(client.response().await.status, 200);
            }
        }
        if self.door == Door::Steady {
            self.inside.metric_becomes("forebay_connections_steady", &[], 1.0).await;
        }
        client
    }

    async fn send(&self, requests: &[Sent], mut steady: Client, certificate: &Certificate) -> Vec<Response> {
        let address = self.inside.address();
        let mut responses = Vec::new();
        match self.door {
            Door::Http1 => {
                for Sent { method, target, fields } in requests {
                    responses.push(
                        Client::connect(address)
                            .await
                            .request(method, target, fields, b"")
                            .await,
                    );
                }
            }
            Door::Steady => {
                for Sent { method, target, fields } in requests {
                    responses.push(steady.request(method, target, fields, b"").await);
                }
            }
            Door::Pipelined | Door::Tls => {
                let mut client = match self.door {
                    Door::Tls => Client::connect_tls(address, "test", certificate).await,
                    _ => Client::connect(address).await,
                };
                let mut all = String::new();
                for Sent { method, target, fields } in requests {
                    all.push_str(&format!("{method} {target} HTTP/1.1\r\nHost: test\r\n"));
                    for (name, value) in fields {
                        all.push_str(&format!("{name}: {value}\r\n"));
                    }
                    all.push_str("\r\n");
                }
                client.send(all).await;
                for Sent { method, .. } in requests {
                    responses.push(match *method {
                        "HEAD" => client.response_without_body().await,
                        _ => client.response().await,
                    });
                }
            }
            Door::Http2 | Door::Http2Tls => {
                let mut client = match self.door {
                    Door::Http2Tls => Http2Client::connect_tls(address, "test", certificate).await,
                    _ => Http2Client::connect(address).await,
                };
                for Sent { method, target, fields } in requests {
                    responses.push(
                        client
                            .request(http2_request(method, target, fields), b"")
                            .await
                            .unwrap(),
                    );
                }
            }
        }
        responses
    }

    /// What the access log says of the requests since the last time, as many as told.
    async fn logged(&self, count: usize) -> Vec<String> {
        let from = self.logged.get();
        self.logged.set(from + count);
        let entries = self.inside.log_entries(from + count).await;
        let told = |entry: &serde_json::Value| {
            let words = [
                "method",
                "target",
                "status",
                "route",
                "cache",
                "response_bytes",
                "request_id",
                "error",
            ];
            let words = words.iter().map(|word| format!("{word}={}", entry[*word]));
            words.collect::<Vec<_>>().join(" ")
        };
        let mut told: Vec<_> = entries[from..].iter().map(told).collect();
        // A client may be answered, and ask again, before the record of its last request is closed.
        told.sort();
        told
    }

    /// Requests since the last time by what the cache did, and by method and status.
    async fn counted(&self) -> BTreeMap<String, u64> {
        let now = self.counters().await;
        let before = self.counted.replace(now.clone());
        let since = now.into_iter().map(|(series, count)| {
            let count = count - before.get(&series).copied().unwrap_or_default();
            (series, count)
        });
        since.filter(|(_, count)| *count > 0).collect()
    }

    async fn counters(&self) -> BTreeMap<String, u64> {
        let text = self.inside.metrics().await;
        let lines = text.lines().filter(|line| {
            line.starts_with("forebay_cache_requests_total{") || line.starts_with("forebay_http_requests_total{")
        });
        let pairs = lines.filter_map(|line| line.rsplit_once(' '));
        pairs
            .map(|(series, value)| (series.to_owned(), value.parse::<f64>().unwrap() as u64))
            .collect()
    }
}

fn answer(response: Response) -> Answer {
    let mut boundary = None;
    let mut fields: Vec<_> = response
        .fields
        .iter()
        // What a version of HTTP says for itself, and when it was.
        .filter(|(name, _)| !["date", "connection", "transfer-encoding"].contains(&&*name.to_ascii_lowercase()))
        .map(|(name, value)| {
            let name = name.to_ascii_lowercase();
            if let Some((_, random)) = value.split_once("multipart/byteranges; boundary=") {
                boundary = Some(random.trim_matches('"').to_owned());
                return (name, "multipart".to_owned());
            }
            let value = match name.as_str() {
                "age" => format!("{} ticks", (value.parse::<i64>().unwrap() + SLACK) / TICK as i64),
                "cache-status" => in_ticks(value),
                _ => value.clone(),
            };
            (name, value)
        })
        .collect();
    fields.sort();
    let mut body = response.body;
    if let Some(boundary) = boundary {
        body = String::from_utf8_lossy(&body)
            .replace(&boundary, "boundary")
            .into_bytes();
    }
    Answer {
        status: response.status,
        fields,
        body,
    }
}

/// Lifetimes are 3 seconds longer than a multiple of a tick, so that the test's own time does not matter.
fn in_ticks(status: &str) -> String {
    let Some((before, rest)) = status.split_once("ttl=") else {
        return status.to_owned();
    };
    let end = rest.find(';').unwrap_or(rest.len());
    let ticks = rest[..end].parse::<i64>().unwrap().div_euclid(TICK as i64);
    format!("{before}ttl={ticks} ticks{}", &rest[end..])
}

#[test]
fn every_door_leads_to_the_same_answers_counters_and_log_entries() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let certificate = Certificate::for_names(&["test"]);
    let directory = tempfile::tempdir().unwrap();
    let (_origin, sides) = runtime.block_on(async {
        let origin = Origin::builder().answering(resource).start().await;
        let mut sides = Vec::new();
        for door in DOORS {
            sides.push(Side::start(door, &origin, &certificate, directory.path()).await);
        }
        (origin, sides)
    });
    let runs = Cell::new(0);
    // The comparison would be worth little if nothing had been a hit. What scripts have little of takes more of them.
    for round in 1.. {
        let mut runner = TestRunner::new(Config {
            cases: 48,
            failure_persistence: None,
            ..Config::default()
        });
        let result = runner.run(&scripts(), |script| {
            let run = runs.replace(runs.get() + 1);
            runtime.block_on(async {
                let count = script.iter().map(|step| step.requests.len() + STEADYING).sum();
                // All of them to the end, so that they stay alike whatever is found.
                let found = join_all(sides.iter().map(async |side| {
                    let answers = side.run(run, &script, &certificate).await;
                    (answers, side.logged(count).await, side.counted().await)
                }));
                let found = found.await;
                for (side, (answers, logged, counted)) in sides.iter().zip(&found) {
                    let (expected_answers, expected_logged, expected_counted) = &found[0];
                    prop_assert_eq!(expected_answers.len(), answers.len());
                    for (number, (expected, answer)) in expected_answers.iter().zip(answers).enumerate() {
                        prop_assert_eq!(expected, answer, "answer {} by {:?}", number, side.door);
                    }
                    prop_assert_eq!(expected_logged, logged, "log of {:?}", side.door);
                    prop_assert_eq!(expected_counted, counted, "counters of {:?}", side.door);
                }
                Ok(())
            })
        });
        if let Err(error) = result {
            panic!("{error}");
        }
        let counted = runtime.block_on(sides[0].counters());
        let of = |word: &str| -> u64 {
            let series = counted.iter().filter(|(series, _)| series.contains(word));
            series.map(|(_, count)| count).sum()
        };
        if of("result=\"hit_l1\"") > 50 && of("status=\"304\"") > 5 && of("status=\"206\"") > 5 {
            break;
        }
        assert!(round < 5, "{counted:?}");
    }
}

#[tokio::test]
async fn a_reload_changes_at_once_what_is_sent_of_what_is_stored() {
    let reply = Reply::fresh(100, "stored")
        .field("Server", "origin")
        .field("X-Origin", "1");
    let origin = Origin::builder().on("/a", reply).start().await;
    let builder = Builder::new();
    let certificate = Certificate::for_names(&["test"]);
    let (cert, key) = certificate.write(builder.directory(), "test");
    let config = |hsts: &str, route: &str| {
        format!(
            "listeners: [{{ address: 127.0.0.1:0, tls: {{ certificates: [{{ cert: {}, key: {} }}]{hsts} }} }}]\n\
             upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
             routes: [{{ match: {{ path_prefix: / }}, upstream: app{route} }}]\n",
            cert.display(),
            key.display(),
            origin.server()
        )
    };
    let proxy = builder.start(&config("", "")).await;
    let mut client = Client::connect_tls(proxy.address(), "test", &certificate).await;
    let seen = |response: &Response| {
        let names = ["server", "x-origin", "x-new", "strict-transport-security"];
        names.map(|name| response.field(name).unwrap_or("-").to_owned())
    };
    assert_eq!(seen(&client.get("/a").await), ["origin", "1", "-", "-"]);
    assert_eq!(seen(&client.get("/a").await), ["origin", "1", "-", "-"]);

    let edits = ", response_headers: { remove: [X-Origin], set: { Server: edge }, add: { X-New: \"{method}\" } }";
    assert!(matches!(proxy.reload(&config(", hsts: 1h", edits)).await, Reload::Done));
    let edited = client.get("/a").await;
    assert_eq!(seen(&edited), ["edge", "-", "GET", "max-age=3600"]);
    assert!(edited.cache_status().starts_with("hit;"), "{}", edited.cache_status());

    assert!(matches!(proxy.reload(&config("", "")).await, Reload::Done));
    assert_eq!(seen(&client.get("/a").await), ["origin", "1", "-", "-"]);
    assert_eq!(origin.request_count(), 1);
}

/// Bytes of a body that many clients read at a time.
const LARGE: usize = 4 * 1024 * 1024;

/// Clients that stop reading behind the head, and streams of HTTP/2 that do.
const SLOW_CLIENTS: usize = 100;
const SLOW_STREAMS: usize = 50;

/// Copies would take a hundred and fifty times the body.
const HELD_AT_MOST: u64 = 5 * LARGE as u64;

#[tokio::test]
async fn slow_readers_share_one_body() {
    let origin = Origin::builder()
        .on("/large", Reply::fresh(100, vec![b'x'; LARGE]))
        .start()
        .await;
    let listeners = "listeners: [{ address: 127.0.0.1:0 }, { address: 127.0.0.1:0, http2: true }]";
    let server = origin.server();
    let proxy = Proxy::start(&format!(
        "{listeners}\nupstreams: {{ app: {{ servers: [\"{server}\"] }} }}\n"
    ))
    .await;
    assert_eq!(proxy.get("/large").await.body.len(), LARGE);
    let before = proxy.resident();
    let mut clients = Vec::new();
    for _ in 0..SLOW_CLIENTS {
        let mut client = Client::connect_narrow(proxy.address()).await;
        client.send_request("GET", "/large", &[], b"").await;
        let head = client.response_head().await;
        assert!(head.cache_status().starts_with("hit;"), "{}", head.cache_status());
        clients.push(client);
    }
    let mut http2 = Http2Client::connect(proxy.listener(1)).await;
    let mut streams = Vec::new();
    for _ in 0..SLOW_STREAMS {
        let (response, sending) = http2.send(http2_request("GET", "/large", &[]), true).await.unwrap();
        streams.push((head_of(response).await.unwrap(), sending));
    }
    let held = proxy.resident().saturating_sub(before);
    assert!(
        held < HELD_AT_MOST,
        "{held} bytes for {SLOW_CLIENTS} clients and {SLOW_STREAMS} streams"
    );

    // They have not been forgotten.
    let mut client = clients.pop().unwrap();
    assert_eq!(client.bytes(LARGE).await.len(), LARGE);
    drop(clients);
    let ((head, body), _sending) = streams.swap_remove(0);
    drop(streams);
    assert_eq!(rest_of(head, body).await.unwrap().body.len(), LARGE);
    assert_eq!(origin.request_count(), 1);
}
