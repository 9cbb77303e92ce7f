//! Limits counted in tokens of a language model.

use std::time::Duration;

use bytes::Bytes;
use flate2::write::GzEncoder;
use forebay::clock::Clock;

use super::{cluster, members, parameter};
use crate::support::client::{Client, EventSource, Http2Client, Response, http2_request};
use crate::support::inside::Inside;
use crate::support::origin::{Gate, Origin, Reply, Step, Stream};
use crate::support::redis::Redis;

const LIMIT: &str = "rate_limits: { default: { name: t, tokens: 1000, per: 1h, assumed_tokens: 100 } }";

const JSON: (&str, &str) = ("Content-Type", "application/json");

/// A prompt of 100 tokens that asks for so many more.
fn prompt(max_tokens: u64) -> Vec<u8> {
    format!(r#"{{"messages":["{}"],"max_tokens":{max_tokens}}}"#, "x y ".repeat(100)).into_bytes()
}

/// A whole answer that says how many tokens it took.
fn answer(prompt: u64, answer: u64) -> Reply {
    let total = prompt + answer;
    let usage = format!(r#"{{"prompt_tokens":{prompt},"completion_tokens":{answer},"total_tokens":{total}}}"#);
    json(format!(
        r#"{{"choices":[{{"message":{{"content":"Yes."}}}}],"usage":{usage}}}"#
    ))
}

fn json(body: impl Into<Bytes>) -> Reply {
    Reply::ok(body).field("Content-Type", "application/json")
}

/// What the client is told to have left.
#[track_caller]
fn left(response: &Response) -> i64 {
    let said = members(response, "ratelimit");
    parameter(&said, "t", "r").unwrap().parse().unwrap()
}

async fn ask(client: &mut Client, body: &[u8]) -> Response {
    client.request("POST", "/v1/chat/completions", &[JSON], body).await
}

#[tokio::test]
async fn what_was_reserved_and_not_used_comes_back() {
    let origin = Origin::builder().otherwise(answer(90, 10)).start().await;
    let inside = Inside::before(&origin, LIMIT).await;
    let mut client = inside.client().await;
    let first = ask(&mut client, &prompt(400)).await;
    assert_eq!((first.status, left(&first)), (200, 500), "100 and 400 are held back");
    let policy = members(&first, "ratelimit-policy");
    assert_eq!(parameter(&policy, "t", "qu"), Some("tokens"));
    // It was 100.
    let second = ask(&mut client, &prompt(700)).await;
    assert_eq!((second.status, left(&second)), (200, 100));
    // 800 are left.
    let refused = ask(&mut client, &prompt(800)).await;
    assert_eq!(refused.status, 429);
    assert_eq!(origin.request_count(), 2, "the app sees none of it");
    let wait: u64 = refused.field("retry-after").unwrap().parse().unwrap();
    assert!((355..=360).contains(&wait), "{wait}: until there are 100 more");
    inside.advance(wait);
    let third = ask(&mut client, &prompt(800)).await;
    assert_eq!((third.status, left(&third)), (200, 0));
    // Without a number it is what is assumed.
    let fourth = ask(&mut client, br#"{"input":"12345678"}"#).await;
    assert_eq!((fourth.status, left(&fourth)), (200, 800 - 102));
    let tokens = |state| [("limit", "t"), ("state", state)];
    let name = "forebay_rate_limit_tokens_total";
    inside.metric_becomes(name, &tokens("used"), 400.0).await;
    assert_eq!(
        inside.metric(name, &tokens("reserved")).await,
        500.0 + 800.0 + 900.0 + 102.0
    );
    let by_usage = [("limit", "t"), ("by", "usage")];
    assert_eq!(inside.metric("forebay_rate_limit_settled_total", &by_usage).await, 4.0);
    let logged = inside.log_entries(5).await;
    let said = |entry: usize| {
        let [reserved, used, by] = ["tokens_reserved", "tokens", "tokens_by"].map(|name| &logged[entry][name]);
        (reserved.as_u64(), used.as_u64(), by.as_str())
    };
    assert_eq!(said(0), (Some(500), Some(100), Some("usage")));
    assert_eq!(said(2), (None, None, None), "the refused one");
    assert_eq!(said(4), (Some(102), Some(100), Some("usage")));
}

#[tokio::test]
async fn who_used_more_than_he_asked_for_waits_for_it() {
    let origin = Origin::builder().otherwise(answer(100, 1400)).start().await;
    let inside = Inside::before(&origin, LIMIT).await;
    let mut client = inside.client().await;
    assert_eq!(left(&ask(&mut client, &prompt(10)).await), 890);
    let refused = ask(&mut client, &prompt(0)).await;
    assert_eq!((refused.status, left(&refused)), (429, 0));
    let wait: u64 = refused.field("retry-after").unwrap().parse().unwrap();
    // 500 in debt; and what it asks for, nobody has looked at: 108 by its length, and 100.
    assert!((2540..=2550).contains(&wait), "{wait}");
    // Whoever has nothing left is refused before he has sent what he asks for.
    client
        .send("POST / HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n")
        .await;
    assert_eq!(client.response().await.status, 429);
}

#[tokio::test]
async fn events_pass_at_once_and_the_last_one_settles() {
    let stream = Stream::new();
    let origin = Origin::builder().otherwise(Reply::events(&stream)).start().await;
    let inside = Inside::before(&origin, LIMIT).await;
    let mut client = inside.client().await;
    client.send_request("POST", "/", &[JSON], &prompt(300)).await;
    let mut source = EventSource::after_request(client).await;
    assert_eq!(left(&source.head), 600);
    for word in ["Hello", "world"] {
        stream.send(format!(
            "data: {{\"choices\":[{{\"delta\":{{\"content\":\"{word}\"}}}}]}}\n\n"
        ));
        assert!(source.data().await.contains(word));
    }
    // Cut in the middle of what counts.
    for part in [
        "data: {\"usage\":{\"prompt_tokens\":100,\"compl",
        "etion_tokens\":50,\"total_tokens\":1",
        "50}}\n",
        "\n",
    ] {
        stream.send(part);
    }
    assert!(source.data().await.contains("usage"));
    stream.send("data: [DONE]\n\n");
    stream.finish();
    assert_eq!(source.data().await, "[DONE]");
    assert_eq!(source.next().await, None);
    inside
        .metric_becomes(
            "forebay_rate_limit_tokens_total",
            &[("limit", "t"), ("state", "used")],
            150.0,
        )
        .await;
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_counted_by_what_was_seen() {
    let events = "event: message_start\ndata: {\"message\":{\"usage\":{\"input_tokens\":80,\"output_tokens\":1}}}\n\n\
        event: content_block_delta\ndata: {\"delta\":{\"text\":\"a b c d e f g h i j \"}}\n\n";
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = format!("{head}{:x}\r\n{events}\r\n", events.len());
    let gate = Gate::new();
    let steps = [Step::Write(chunk.into()), Step::Hold(gate.clone()), Step::Reset];
    let origin = Origin::builder().otherwise(Reply::script(steps)).start().await;
    let inside = Inside::before(&origin, LIMIT).await;
    let mut client = inside.client().await;
    client.send_request("POST", "/", &[JSON], &prompt(300)).await;
    let mut source = EventSource::after_request(client).await;
    source.data().await;
    source.data().await;
    gate.release();
    assert!(source.try_next().await.is_err());
    let used = [("limit", "t"), ("state", "used")];
    inside
        .metric_becomes("forebay_rate_limit_tokens_total", &used, 80.0 + 5.0)
        .await;
}

#[tokio::test]
async fn a_client_that_leaves_pays_for_what_it_got() {
    let stream = Stream::new();
    let origin = Origin::builder().otherwise(Reply::events(&stream)).start().await;
    let inside = Inside::before(&origin, LIMIT).await;
    let mut client = inside.client().await;
    client.send_request("POST", "/", &[JSON], &prompt(300)).await;
    let mut source = EventSource::after_request(client).await;
    stream.send("data: {\"choices\":[{\"delta\":{\"content\":\"a b c d e f g h i j \"}}]}\n\n");
    source.data().await;
    drop(source);
    let used = [("limit", "t"), ("state", "used")];
    inside
        .metric_becomes("forebay_rate_limit_tokens_total", &used, 100.0 + 5.0)
        .await;
}

#[tokio::test]
async fn answers_without_usage_are_counted_by_their_text_and_errors_not_at_all() {
    let text = "one two three four five six seven ten ..";
    let origin = Origin::builder()
        .on(
            "/text",
            json(format!(r#"{{"choices":[{{"message":{{"content":"{text}"}}}}]}}"#)),
        )
        .on("/image", Reply::ok("\u{0}PNG").field("Content-Type", "image/png"))
        .on("/error", json(r#"{"error":{"message":"overloaded"}}"#).close())
        .on(
            "/busy",
            Reply::status(529).body("{}").field("Content-Type", "application/json"),
        )
        .on("/broken", Reply::script([Step::Close]))
        .otherwise(answer(1, 0))
        .start()
        .await;
    let inside = Inside::before(&origin, LIMIT).await;
    let mut client = inside.client().await;
    let mut had = 1000;
    for (path, status, used, by) in [
        ("/text", 200, 110, "text"),
        ("/image", 200, 150, "estimate"),
        ("/busy", 529, 0, "nothing"),
        ("/broken", 502, 100, "estimate"),
        ("/error", 200, 100, "text"),
    ] {
        let response = client.request("POST", path, &[JSON], &prompt(50)).await;
        assert_eq!((response.status, left(&response)), (status, had - 150), "{path}");
        had -= used;
        let by = [("limit", "t"), ("by", by)];
        assert!(
            inside.metric("forebay_rate_limit_settled_total", &by).await >= 1.0,
            "{path}"
        );
    }
    // What has no body asks for nothing, and is let in as long as something is left.
    let models = client.get("/v1/models").await;
    assert_eq!((models.status, left(&models)), (200, had - 1));
    assert_eq!(
        left(&client.get("/v1/models").await),
        had - 2,
        "and pays what its answer says"
    );
}

/// The app has got all of it; of long bodies it remembers the beginning.
#[track_caller]
fn assert_whole(origin: &Origin, body: &[u8]) {
    let request = origin.last_request();
    assert_eq!(request.body_length, body.len() as u64);
    assert!(body.starts_with(&request.body) && !request.body.is_empty());
}

#[tokio::test]
async fn bodies_that_were_looked_at_go_on_whole() {
    let origin = Origin::builder().otherwise(answer(10, 0)).start().await;
    let limit = "rate_limits: { default: { name: t, tokens: 10000000, per: 1000d, assumed_tokens: 100 } }";
    let inside = Inside::before(&origin, limit).await;
    let mut client = inside.client().await;
    let long = |length: usize| format!(r#"{{"max_tokens":7,"text":"{}"}}"#, "a b ".repeat(length / 4)).into_bytes();
    let mut had = 10_000_000;
    // Small ones, and one that is read to its end; larger ones go by their length.
    for (length, tokens) in [(4, 8), (200_000, 50_007), (400_000, 100_107), (3_000_000, 750_107)] {
        let body = long(length);
        let response = ask(&mut client, &body).await;
        assert_eq!((response.status, left(&response)), (200, had - tokens), "{length}");
        had -= 10;
        assert_whole(&origin, &body);
    }
    // In chunks nobody knows the length before.
    for (length, tokens) in [(200_000, 50_007), (3_000_000, 0)] {
        let body = long(length);
        let head =
            "POST / HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.send(head).await;
        for piece in body.chunks(10_000) {
            client.send(format!("{:x}\r\n", piece.len())).await;
            client.send(piece).await;
            client.send("\r\n").await;
        }
        client.send("0\r\n\r\n").await;
        let response = client.response().await;
        assert_eq!(response.status, 200);
        match tokens {
            0 => assert!((50_000..=1_000_000).contains(&(had - left(&response)))),
            tokens => assert_eq!(left(&response), had - tokens),
        }
        had -= 10;
        assert_whole(&origin, &body);
    }
    // What is no JSON goes by its length, and is not waited for.
    let response = client
        .request("POST", "/", &[("Content-Type", "text/plain")], &[b'a'; 400])
        .await;
    assert_eq!(left(&response), had - 200);
    assert_eq!(origin.last_request().body, [b'a'; 400]);
}

#[tokio::test]
async fn a_client_that_waits_for_a_go_ahead_gets_it_from_the_server() {
    let origin = Origin::builder().otherwise(answer(10, 0)).start().await;
    let inside = Inside::before(&origin, LIMIT).await;
    let mut client = inside.client().await;
    client
        .send("POST / HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: 400\r\nExpect: 100-continue\r\n\r\n")
        .await;
    assert_eq!(client.bytes(25).await, b"HTTP/1.1 100 Continue\r\n\r\n");
    client.send([b' '; 400]).await;
    let response = client.response().await;
    assert_eq!((response.status, left(&response)), (200, 800));
}

#[tokio::test]
async fn over_http2_too() {
    let origin = Origin::builder().otherwise(answer(90, 10)).start().await;
    let yaml = format!(
        "listeners: [{{ address: 127.0.0.1:0, http2: true }}]
upstreams: {{ app: {{ servers: [\"{}\"] }} }}
{LIMIT}",
        origin.server()
    );
    let inside = Inside::start(&yaml, Clock::new()).await;
    let mut client = Http2Client::connect(inside.address()).await;
    let body: &'static [u8] = Vec::leak(prompt(400));
    for expected in [500, 400] {
        let response = client.request(http2_request("POST", "/", &[JSON]), body).await.unwrap();
        assert_eq!((response.status, left(&response)), (200, expected));
        assert_whole(&origin, body);
        inside.metric_becomes("forebay_in_flight", &[], 0.0).await;
    }
}

#[tokio::test]
async fn the_server_is_asked_for_what_can_be_read_and_compressed_answers_are_read_too() {
    let text = r#"{"usage":{"total_tokens":77},"pad":""#.to_owned() + &"pad ".repeat(1000) + "\"}";
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut encoder, text.as_bytes()).unwrap();
    let compressed = encoder.finish().unwrap();
    let origin = Origin::builder()
        .on("/gzip", json(compressed.clone()).field("Content-Encoding", "gzip"))
        .otherwise(json(text.clone()))
        .start()
        .await;
    let compression = format!("{LIMIT}\ndefaults: {{ compression: {{ codings: [gzip] }} }}");
    for (sections, coded) in [(LIMIT, None), (compression.as_str(), Some("gzip"))] {
        let inside = Inside::before(&origin, sections).await;
        let mut client = inside.client().await;
        let fields = [JSON, ("Accept-Encoding", "gzip")];
        let plain = client.request("POST", "/", &fields, &prompt(100)).await;
        assert_eq!((plain.status, plain.field("content-encoding")), (200, coded));
        assert_eq!(origin.last_request().fields("accept-encoding"), ["identity"]);
        let own = client.request("POST", "/gzip", &fields, &prompt(100)).await;
        assert_eq!(
            (own.field("content-encoding"), left(&own)),
            (Some("gzip"), 1000 - 77 - 200)
        );
        assert_eq!(own.body, compressed, "as it came");
        let told = client.request("POST", "/gzip", &[JSON], &prompt(100)).await;
        assert_eq!(left(&told), 1000 - 2 * 77 - 200);
        if coded.is_some() {
            assert_eq!(told.text(), text, "and read for a client that cannot");
        }
    }
}

#[tokio::test]
async fn what_is_stored_takes_no_tokens() {
    let reply = |text: &'static str| json(text).field("Cache-Control", "max-age=60");
    let origin = Origin::builder()
        .otherwise(reply(r#"{"usage":{"total_tokens":600}}"#))
        .start()
        .await;
    let inside = Inside::before(&origin, LIMIT).await;
    let mut client = inside.client().await;
    assert_eq!(left(&client.get("/a").await), 999);
    for _ in 0..3 {
        let hit = client.get("/a").await;
        assert!(hit.cache_status().starts_with("hit"), "{}", hit.raw_head);
        assert_eq!(hit.field("ratelimit"), None, "it is not asked");
    }
    assert_eq!(left(&client.get("/b").await), 399);
    assert_eq!(client.get("/c").await.status, 429, "200 in debt");
    assert_eq!(client.get("/b").await.status, 200);
}

#[tokio::test]
async fn tokens_of_one_route_may_cost_more_and_a_dry_run_refuses_nobody() {
    let origin = Origin::builder().otherwise(answer(90, 10)).start().await;
    let sections = format!(
        "{LIMIT}
routes:
  - {{ name: large, match: {{ path_prefix: /large }}, rate_limit_cost: 3 }}
  - {{ name: free, match: {{ path_prefix: /free }}, rate_limit_cost: 0 }}
  - name: dry
    match: {{ path_prefix: /dry }}
    rate_limit: [{{ name: d, tokens: 300, per: 1h, dry_run: true }}, {{ name: n, requests: 5, per: 1h }}]
",
    );
    let yaml = crate::support::proxy::config(&origin, &sections);
    let inside = Inside::start(&yaml, Clock::new()).await;
    let mut client = inside.client().await;
    let large = client.request("POST", "/large", &[JSON], &prompt(100)).await;
    assert_eq!(left(&large), 400);
    let other = ask(&mut client, &prompt(100)).await;
    assert_eq!(left(&other), 500, "300 were used of one limit over all routes");
    let free = client.request("POST", "/free", &[JSON], &prompt(100)).await;
    assert_eq!((free.status, free.field("ratelimit")), (200, None));
    for _ in 0..4 {
        let dry = client.request("POST", "/dry", &[JSON], &prompt(50)).await;
        assert_eq!(dry.status, 200);
        assert_eq!(members(&dry, "ratelimit").len(), 1);
    }
    let labels = [("limit", "d"), ("reason", "dry_run")];
    assert_eq!(inside.metric("forebay_rate_limited_total", &labels).await, 2.0);
    assert_eq!(client.request("POST", "/dry", &[JSON], &prompt(50)).await.status, 200);
    assert_eq!(
        client.request("POST", "/dry", &[JSON], &prompt(50)).await.status,
        429,
        "the other one holds"
    );
}

/// What another instance says is left of this client's tokens, as soon as it is so much.
async fn becomes_left(instance: &Inside, client: &str, expected: i64) {
    let mut connection = instance.client().await;
    let mut last = 0;
    let told = tokio::time::timeout(Duration::from_secs(10), async {
        while last != expected {
            // Takes one, and gives it back.
            let peek = connection
                .request("GET", "/peek", &[("X-Forwarded-For", client)], b"")
                .await;
            last = if peek.status == 429 { 0 } else { left(&peek) + 1 };
        }
    })
    .await;
    assert!(told.is_ok(), "{last} are left of {expected}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_count_tokens_together_also_while_redis_is_away() {
    let gate = Gate::new();
    let origin = Origin::builder()
        .on("/peek", answer(0, 0))
        .on("/held", answer(100, 1400).hold(&gate))
        .otherwise(answer(90, 10))
        .start()
        .await;
    let mut redis = Redis::start().await;
    let limit = "{ name: t, tokens: 3000, per: 100d }";
    let instances = cluster(&origin, &redis, 3, limit, [0, 3600, 0]).await;
    let post = async |instance: &Inside, path: &str, client: &str, body: Vec<u8>| {
        instance
            .request("POST", path, &[JSON, ("X-Forwarded-For", client)], &body)
            .await
    };
    // Each takes 100, whatever it had reserved, and all instances know.
    for round in 0..9_usize {
        let response = post(&instances[round % 3], "/", "10.0.0.1", prompt(900)).await;
        assert_eq!(response.status, 200);
        let expected = 2000 - round as i64 * 100;
        // A peek may still be on its way back.
        assert!(
            (expected - 1..=expected).contains(&left(&response)),
            "{} for {expected}",
            left(&response)
        );
        becomes_left(&instances[(round + 1) % 3], "10.0.0.1", 2900 - round as i64 * 100).await;
    }
    let held = tokio::spawn({
        let mut client = instances[0].client().await;
        async move {
            let fields = [JSON, ("X-Forwarded-For", "10.0.0.2")];
            client.request("POST", "/held", &fields, &prompt(0)).await
        }
    });
    gate.reached(1).await;
    redis.kill().await;
    for instance in &instances {
        instance.metric_becomes("forebay_redis_up", &[], 0.0).await;
    }
    // 2,100 are left, less what was still on its way back: 700 for each instance.
    for instance in &instances {
        let mut client = instance.client().await;
        let mut post = async |body: &[u8]| {
            let fields = [JSON, ("X-Forwarded-For", "10.0.0.1")];
            client.request("POST", "/", &fields, body).await.status
        };
        assert_eq!(post(&prompt(900)).await, 429);
        assert_eq!(post(&prompt(550)).await, 200);
        let mut admitted = 1;
        while post(&prompt(0)).await == 200 {
            admitted += 1;
        }
        assert!(
            (6..=7).contains(&admitted),
            "{admitted}: what was not used of 650 came back"
        );
    }
    gate.release();
    assert_eq!(held.await.unwrap().status, 200);
    redis.restart().await;
    for instance in &instances {
        instance.metric_becomes("forebay_redis_up", &[], 1.0).await;
    }
    // An empty Redis gets to know all of it: what was used while it was away, and what was only settled then.
    for instance in &instances {
        assert_eq!(post(instance, "/", "10.0.0.1", prompt(100)).await.status, 429);
    }
    becomes_left(&instances[1], "10.0.0.2", 1600).await;
}
