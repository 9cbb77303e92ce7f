//! Responses that are compressed while they pass.

use std::time::Duration;

use forebay::transform::compress::decode::Decoder;
use forebay::transform::compress::encode::encode;
use forebay::transform::negotiate::Coding;
use tokio::time::Instant;

use super::{ON, accepting, page, read};
use crate::support::client::Client;
use crate::support::inside::Inside;
use crate::support::origin::{Origin, Reply, Stream};
use crate::support::proxy::Proxy;

/// Reads chunks until the decoder has said this.
async fn hear(client: &mut Client, decoder: &mut Decoder, expected: &str) {
    let mut heard = Vec::new();
    while heard.len() < expected.len() {
        let chunk = client.chunk().await.expect("the body goes on");
        heard.extend_from_slice(&decoder.decode(&chunk).unwrap());
    }
    assert_eq!(String::from_utf8(heard).unwrap(), expected);
}

fn uncached(body: impl Into<bytes::Bytes>) -> Reply {
    Reply::ok(body)
        .field("Cache-Control", "no-store")
        .field("Content-Type", "application/json")
        .field("ETag", "\"v1\"")
}

#[tokio::test]
async fn every_length_and_framing_comes_out_whole() {
    let body = page(700_000);
    let pieces: Vec<String> = body
        .as_bytes()
        .chunks(9_000)
        .map(|piece| String::from_utf8_lossy(piece).into())
        .collect();
    let origin = Origin::builder()
        .on("/small", uncached(body[..1024].to_owned()))
        .on("/large", uncached(body.clone()))
        .on(
            "/chunked",
            Reply::chunked(pieces)
                .field("Content-Type", "text/css")
                .trailer("X-Sum", "7")
                .trailer("Repr-Digest", "sha-256=:AAAA:"),
        )
        .start()
        .await;
    let proxy = Inside::before(&origin, ON).await;
    let mut client = proxy.client().await;
    for coding in Coding::ALL {
        for (path, length) in [("/small", 1024), ("/large", 700_000), ("/chunked", 700_000)] {
            let response = client.request("GET", path, &accepting(coding.as_str()), b"").await;
            assert_eq!(response.field("content-encoding"), Some(coding.as_str()), "{path}");
            assert_eq!(response.fields("vary"), ["Accept-Encoding"]);
            assert_eq!(response.field("content-length"), None);
            assert!(response.body.len() < length, "{path}");
            assert_eq!(read(&response), &body.as_bytes()[..length], "{coding:?} {path}");
            if path == "/chunked" {
                assert_eq!(response.trailers, [("X-Sum".to_owned(), "7".to_owned())]);
            }
        }
    }
}

#[tokio::test]
async fn no_piece_waits_for_the_next() {
    let stream = Stream::new();
    let reply = Reply::streamed(&stream).field("Content-Type", "application/json");
    let origin = Origin::builder().on("/s", reply).start().await;
    let proxy = Inside::before(&origin, ON).await;
    for (count, coding) in Coding::ALL.into_iter().enumerate() {
        let mut client = proxy.client().await;
        client.send_request("GET", "/s", &accepting(coding.as_str()), b"").await;
        stream.opened(count + 1).await;
        let head = client.response_head().await;
        assert_eq!(head.field("content-encoding"), Some(coding.as_str()));
        let mut decoder = Decoder::new(coding, u64::MAX).unwrap();
        for number in 0..20 {
            let piece = format!("{{\"number\":{number}}}\n");
            stream.send(piece.clone());
            hear(&mut client, &mut decoder, &piece).await;
        }
        // Larger than what a compressor holds back by itself.
        let large = page(100_000);
        stream.send(large.clone());
        hear(&mut client, &mut decoder, &large).await;
        stream.finish();
        while let Some(chunk) = client.chunk().await {
            assert_eq!(decoder.decode(&chunk).unwrap(), "");
        }
        decoder.finish().unwrap();
    }
}

#[tokio::test]
async fn a_byte_waits_no_longer_than_it_is_told_to() {
    let stream = Stream::new();
    let reply = Reply::streamed(&stream).field("Content-Type", "application/json");
    let origin = Origin::builder().on("/s", reply).start().await;
    let proxy = Inside::before(&origin, "defaults: { compression: { flush_after: 200ms } }\n").await;
    let mut client = proxy.client().await;
    client.send_request("GET", "/s", &accepting("gzip"), b"").await;
    stream.opened(1).await;
    client.response_head().await;
    let mut decoder = Decoder::new(Coding::Gzip, u64::MAX).unwrap();
    // An origin that never pauses for so long: what came first goes all the same.
    let writer = async {
        for _ in 0..100 {
            stream.send("x");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let reader = async {
        loop {
            let chunk = client.chunk().await.expect("the body goes on");
            if decoder.decode(&chunk).unwrap().starts_with(b"x") {
                return;
            }
        }
    };
    tokio::select! {
        () = writer => panic!("nothing has come while the origin went on"),
        () = reader => {}
    }
}

#[tokio::test]
async fn event_streams_are_compressed_where_the_route_says_so() {
    let stream = Stream::new();
    let origin = Origin::builder().on("/s", Reply::events(&stream)).start().await;
    let yaml = "defaults: { compression: { events: true, flush_after: 10s }, stream: { heartbeat: 200ms } }\n";
    let proxy = Inside::before(&origin, yaml).await;
    for (count, coding) in Coding::ALL.into_iter().enumerate() {
        let mut client = proxy.client().await;
        client.send_request("GET", "/s", &accepting(coding.as_str()), b"").await;
        stream.opened(count + 1).await;
        let head = client.response_head().await;
        assert_eq!(head.field("content-encoding"), Some(coding.as_str()));
        let mut decoder = Decoder::new(coding, u64::MAX).unwrap();
        for number in 0..3 {
            let event = format!("data: {number}\n\n");
            stream.send(event.clone());
            hear(&mut client, &mut decoder, &event).await;
        }
        // What keeps it alive is a part of what is compressed.
        hear(&mut client, &mut decoder, ":\n\n").await;
        stream.finish();
    }
}

#[tokio::test]
async fn some_things_are_left_alone() {
    let html = ("Content-Type", "text/html");
    let gzip = ("Accept-Encoding", "gzip");
    let long = || page(5_000);
    type Lines<'a> = &'a [(&'a str, &'a str)];
    let table: [(&str, Lines, Lines, String); 11] = [
        ("no type", &[], &[gzip], long()),
        ("a picture", &[("Content-Type", "image/png")], &[gzip], long()),
        ("too short", &[html], &[gzip], page(1023)),
        (
            "no-transform",
            &[html, ("Cache-Control", "no-transform")],
            &[gzip],
            long(),
        ),
        ("private", &[html, ("Cache-Control", "private")], &[gzip], long()),
        ("a cookie", &[html, ("Set-Cookie", "a=b")], &[gzip], long()),
        (
            "another coding",
            &[html, ("Content-Encoding", "deflate")],
            &[gzip],
            long(),
        ),
        ("its own coding", &[html, ("Content-Encoding", "gzip")], &[gzip], long()),
        (
            "the client declines",
            &[html],
            &[gzip, ("X-No-Compression", "1")],
            long(),
        ),
        (
            "the client forbids",
            &[html],
            &[gzip, ("Cache-Control", "no-transform")],
            long(),
        ),
        ("nothing is accepted", &[html], &[], long()),
    ];
    for (name, fields, request, body) in table {
        let mut reply = Reply::ok(body.clone()).field("ETag", "\"v1\"");
        for (field, value) in fields {
            reply = reply.field(field, value);
        }
        let origin = Origin::builder().on("/a", reply).start().await;
        let proxy = Inside::before(&origin, "defaults: { compression: on, cache: off }\n").await;
        let response = proxy.request("GET", "/a", request, b"").await;
        assert_eq!(response.text(), body, "{name}");
        assert_eq!(response.field("etag"), Some("\"v1\""), "{name}");
        let length = body.len().to_string();
        assert_eq!(response.field("content-length"), Some(length.as_str()), "{name}");
    }
}

#[tokio::test]
async fn off_means_untouched() {
    let reply = || {
        Reply::ok(page(5_000))
            .field("Content-Type", "text/html")
            .field("ETag", "\"v1\"")
    };
    let origin = Origin::builder().on("/off", reply()).on("/on", reply()).start().await;
    let proxy = Inside::before(
        &origin,
        "routes: [{ match: { path_prefix: /on }, compression: on, cache: off }]\n",
    )
    .await;
    let accept = [("Accept-Encoding", "br;q=0.5,  gzip")];
    let response = proxy.request("GET", "/off", &accept, b"").await;
    assert_eq!((response.text(), response.field("vary")), (page(5_000).as_str(), None));
    // What many share is asked for in one way.
    assert_eq!(origin.last_request().field("accept-encoding"), Some("br, gzip"));
    let response = proxy.request("GET", "/on", &accept, b"").await;
    assert_eq!(response.field("content-encoding"), Some("gzip"));
    // What is not stored may be compressed by the origin, for whom it likes.
    assert_eq!(origin.last_request().field("accept-encoding"), Some("br;q=0.5,  gzip"));
}

#[tokio::test]
async fn conditions_reach_the_origin_in_its_own_words() {
    let origin = Origin::builder()
        .answering(|request| match request.field("if-none-match") {
            Some(tags) if tags.contains("\"v1\"") => Reply::status(304).field("ETag", "\"v1\""),
            _ => uncached(page(5_000)),
        })
        .start()
        .await;
    let proxy = Inside::before(&origin, "defaults: { compression: on, cache: off }\n").await;
    let first = proxy.request("GET", "/a", &accepting("br"), b"").await;
    assert_eq!(first.field("etag"), Some("\"v1;fb-br\""));

    let put = [("If-Match", "\"v1;fb-br\""), ("Content-Type", "text/plain")];
    proxy.request("PUT", "/a", &put, b"new").await;
    assert_eq!(origin.last_request().field("if-match"), Some("\"v1\""));

    let known = [("Accept-Encoding", "br"), ("If-None-Match", "\"v0\", \"v1;fb-br\"")];
    let confirmed = proxy.request("GET", "/a", &known, b"").await;
    assert_eq!(origin.last_request().field("if-none-match"), Some("\"v0\", \"v1\""));
    assert_eq!((confirmed.status, confirmed.field("etag")), (304, Some("\"v1;fb-br\"")));
    assert_eq!(confirmed.fields("vary"), ["Accept-Encoding"]);

    // It has other bytes than it would get.
    let other = [("Accept-Encoding", "gzip"), ("If-None-Match", "\"v1;fb-br\"")];
    let response = proxy.request("GET", "/a", &other, b"").await;
    assert_eq!((response.status, read(&response)), (200, page(5_000).into()));

    let part = [("Range", "bytes=0-9"), ("If-Range", "\"v1;fb-br\"")];
    proxy.request("GET", "/a", &part, b"").await;
    let asked = origin.last_request();
    assert_eq!((asked.field("range"), asked.field("if-range")), (None, None));
}

#[tokio::test]
async fn head_promises_what_get_would_do() {
    let origin = Origin::builder().on("/a", uncached(page(5_000))).start().await;
    let proxy = Inside::before(&origin, "defaults: { compression: on, cache: off }\n").await;
    let mut client = proxy.client().await;
    client.send_request("HEAD", "/a", &accepting("br"), b"").await;
    let head = client.response_without_body().await;
    assert_eq!(head.field("content-encoding"), Some("br"));
    assert_eq!(
        (head.field("content-length"), head.field("etag")),
        (None, Some("\"v1;fb-br\""))
    );
}

#[tokio::test]
async fn what_breaks_off_does_not_look_whole() {
    let broken = encode(page(50_000).as_bytes(), Coding::Gzip, 6).unwrap();
    let cut = broken.slice(..broken.len() / 2);
    let origin = Origin::builder()
        .on("/short", uncached(page(5_000)).declared_length(9_000).close())
        .on("/cut", uncached(cut).field("Content-Encoding", "gzip"))
        .start()
        .await;
    let proxy = Inside::before(&origin, "defaults: { compression: on, cache: off }\n").await;
    for (path, accept) in [("/short", "br"), ("/cut", "")] {
        let mut client = proxy.client().await;
        client.send_request("GET", path, &accepting(accept), b"").await;
        // Where nothing has come out of it yet, the client is told.
        if let Ok(response) = client.try_response().await {
            assert_eq!(response.status, 502, "{path}");
        }
    }
}

#[tokio::test]
async fn a_large_body_holds_up_nobody() {
    // One thread serves everything.
    let origin = Origin::builder().on("/large", uncached(page(20 << 20))).start().await;
    let yaml = format!(
        "listen: 127.0.0.1:0\nupstream: http://{}\nserver: {{ threads: 1 }}\ndefaults: {{ compression: {{ live_levels: {{ gzip: 9 }} }}, cache: off }}\n",
        origin.server()
    );
    let proxy = Proxy::start(&yaml).await;
    let mut slow = proxy.client().await;
    slow.send_request("GET", "/large", &accepting("gzip"), b"").await;
    slow.response_head().await;
    let mut other = proxy.client().await;
    let longest = async {
        let mut longest = Duration::ZERO;
        for _ in 0..20 {
            let began = Instant::now();
            other.get("/small").await;
            longest = longest.max(began.elapsed());
        }
        longest
    };
    let (longest, ()) = tokio::join!(longest, async { while slow.chunk().await.is_some() {} });
    assert!(longest < Duration::from_secs(1), "{longest:?}");
}
