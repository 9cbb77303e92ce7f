//! Stored responses: compressed once, sent in the form that each client can read.

use forebay::transform::compress::encode::encode;
use forebay::transform::negotiate::Coding;
use futures_util::future::join_all;

use super::{LEVELS, ON, accepting, best_is_made, fresh_page, page, read};
use crate::support::inside::Inside;
use crate::support::origin::{Gate, Origin, Reply};

async fn compressions(proxy: &Inside, result: &str) -> f64 {
    proxy.metric("forebay_compressions_total", &[("result", result)]).await
}

#[tokio::test]
async fn one_fetch_serves_every_coding() {
    let origin = Origin::builder().on("/a", fresh_page(20_000)).start().await;
    let proxy = Inside::before(&origin, ON).await;
    let mut lengths = Vec::new();
    for (accept, coding) in [
        ("zstd, br, gzip", Some("zstd")),
        ("br, gzip", Some("br")),
        ("gzip;q=0.5, br;q=0.4", Some("gzip")),
        ("", None),
        ("gzip;q=x", None),
        ("lzma", None),
        ("*", Some("zstd")),
    ] {
        // The first of all passes while it is stored, each next is a hit.
        for round in 0..2 {
            let response = proxy.request("GET", "/a", &accepting(accept), b"").await;
            assert_eq!(response.status, 200);
            assert_eq!(response.field("content-encoding"), coding, "{accept}");
            assert_eq!(response.fields("vary"), ["Accept-Encoding"], "{accept}");
            let tag = coding.map_or("\"v1\"".to_owned(), |coding| format!("\"v1;fb-{coding}\""));
            assert_eq!(response.field("etag"), Some(tag.as_str()));
            assert_eq!(read(&response), page(20_000), "{accept}");
            if round == 1 {
                let length = response.body.len().to_string();
                assert_eq!(response.field("content-length"), Some(length.as_str()));
                lengths.push(response.body.len());
            }
        }
    }
    assert!(lengths[..3].iter().all(|length| *length < 8_000), "{lengths:?}");
    assert_eq!(origin.request_count(), 1);
    assert_eq!(origin.last_request().field("accept-encoding"), Some("identity"));
    // zstd once while it passed; each of the others, and zstd, once for all.
    assert_eq!(
        (compressions(&proxy, "live").await, compressions(&proxy, "stored").await),
        (1.0, 3.0)
    );
}

#[tokio::test]
async fn junk_does_not_split_what_is_stored() {
    let origin = Origin::builder()
        .on("/a", fresh_page(2_000).field("Vary", "Accept-Encoding"))
        .start()
        .await;
    let proxy = Inside::before(&origin, ON).await;
    for accept in ["gzip", "gzip, x1", "gzip, x2", "", "br;q=0.123", "identity"] {
        let response = proxy.request("GET", "/a", &accepting(accept), b"").await;
        assert_eq!(read(&response), page(2_000));
        assert_eq!(response.fields("vary"), ["Accept-Encoding"], "{accept}");
    }
    assert_eq!(origin.request_count(), 1);
}

#[tokio::test]
async fn many_who_ask_at_once_pay_once() {
    let origin = Origin::builder().on("/a", fresh_page(300_000)).start().await;
    let proxy = Inside::before(&origin, ON).await;
    proxy.get("/a").await;
    let fields = accepting("zstd");
    let asking = (0..20).map(|_| proxy.request("GET", "/a", &fields, b""));
    for response in join_all(asking).await {
        // Who has waited long enough gets it as it came.
        assert_eq!(read(&response), page(300_000));
    }
    assert_eq!(compressions(&proxy, "stored").await, 1.0);
}

#[tokio::test]
async fn many_who_wait_for_one_fetch_pay_once() {
    let gate = Gate::new();
    let origin = Origin::builder()
        .on("/a", fresh_page(300_000).hold(&gate))
        .start()
        .await;
    // As long as the others have to wait for the end of the body on a busy machine.
    let proxy = Inside::before(&origin, "defaults: { compression: { flush_after: 10s } }\n").await;
    let fields = accepting("zstd");
    let asking = join_all((0..20).map(|_| proxy.request("GET", "/a", &fields, b"")));
    let opening = async {
        proxy.in_flight(20).await;
        gate.release();
    };
    let (responses, ()) = tokio::join!(asking, opening);
    for response in responses {
        assert_eq!(read(&response), page(300_000));
    }
    assert_eq!(origin.request_count(), 1);
    // While it passed, for the one who has fetched it, and once for all others.
    let made = (compressions(&proxy, "live").await, compressions(&proxy, "stored").await);
    assert_eq!(made, (1.0, 1.0));
}

#[tokio::test]
async fn what_is_used_again_gets_better_and_counts_as_memory() {
    let origin = Origin::builder().on("/a", fresh_page(50_000)).start().await;
    let yaml = format!("defaults: {{ compression: {{ {LEVELS} }} }}\n");
    let proxy = Inside::before(&origin, &yaml).await;
    proxy.get("/a").await;
    let plain = proxy.metric("forebay_cache_bytes", &[("tier", "l1")]).await;
    let quick = proxy.request("GET", "/a", &accepting("zstd"), b"").await;
    let with_form = proxy.metric("forebay_cache_bytes", &[("tier", "l1")]).await;
    assert!(with_form >= plain + quick.body.len() as f64, "{plain} {with_form}");
    for _ in 0..3 {
        proxy.request("GET", "/a", &accepting("zstd"), b"").await;
    }
    let best = [("coding", "zstd"), ("result", "best")];
    best_is_made(&proxy).await;
    let better = loop {
        let response = proxy.request("GET", "/a", &accepting("zstd"), b"").await;
        if response.body.len() < quick.body.len() {
            break response;
        }
    };
    assert_eq!(read(&better), page(50_000));
    assert_eq!(better.field("etag"), quick.field("etag"));
    for _ in 0..5 {
        proxy.request("GET", "/a", &accepting("zstd"), b"").await;
    }
    assert_eq!(proxy.metric("forebay_compressions_total", &best).await, 1.0);
}

#[tokio::test]
async fn what_does_not_get_smaller_is_remembered() {
    let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(5_000).collect();
    let reply = Reply::fresh(60, noise.clone()).field("Content-Type", "text/plain");
    let origin = Origin::builder().on("/a", reply).start().await;
    let proxy = Inside::before(&origin, ON).await;
    for _ in 0..3 {
        proxy.get("/a").await;
        let hit = proxy.request("GET", "/a", &accepting("gzip"), b"").await;
        assert_eq!((hit.field("content-encoding"), &hit.body), (None, &noise));
        assert_eq!(hit.fields("vary"), ["Accept-Encoding"]);
    }
    assert_eq!(compressions(&proxy, "worthless").await, 1.0);
}

#[tokio::test]
async fn clients_that_know_it_are_told_so() {
    let origin = Origin::builder().on("/a", fresh_page(5_000)).start().await;
    let proxy = Inside::before(&origin, ON).await;
    proxy.get("/a").await;
    for (accept, known, status) in [
        ("br", "\"v1;fb-br\"", 304),
        ("br", "\"x\", W/\"v1;fb-br\"", 304),
        ("", "\"v1\"", 304),
        ("br", "*", 304),
        // Other bytes, which this client does not ask for.
        ("br", "\"v1;fb-zstd\"", 200),
        ("br", "\"v1\"", 200),
        ("", "\"v1;fb-br\"", 200),
        ("br", "\"v2;fb-br\"", 200),
    ] {
        let fields = [("Accept-Encoding", accept), ("If-None-Match", known)];
        let response = proxy.request("GET", "/a", &fields, b"").await;
        assert_eq!(response.status, status, "{accept} {known}");
        let tag = if accept == "br" { "\"v1;fb-br\"" } else { "\"v1\"" };
        assert_eq!(response.field("etag"), Some(tag), "{accept} {known}");
        assert_eq!(response.fields("vary"), ["Accept-Encoding"]);
    }
    assert_eq!(origin.request_count(), 1);
}

#[tokio::test]
async fn head_says_what_get_would() {
    let origin = Origin::builder().on("/a", fresh_page(5_000)).start().await;
    let proxy = Inside::before(&origin, ON).await;
    proxy.get("/a").await;
    let get = proxy.request("GET", "/a", &accepting("br"), b"").await;
    let mut client = proxy.client().await;
    client.send_request("HEAD", "/a", &accepting("br"), b"").await;
    let head = client.response_without_body().await;
    for name in ["content-encoding", "content-length", "etag", "vary", "content-type"] {
        assert_eq!(head.field(name), get.field(name), "{name}");
    }
    assert!(head.field("content-encoding").is_some());
}

#[tokio::test]
async fn parts_are_those_of_the_origins_body() {
    let reply = fresh_page(5_000).field("Accept-Ranges", "bytes");
    let origin = Origin::builder().on("/a", reply).start().await;
    let proxy = Inside::before(&origin, ON).await;
    proxy.get("/a").await;
    let whole = proxy.request("GET", "/a", &accepting("br"), b"").await;
    assert_eq!(whole.field("accept-ranges"), None, "there are no parts of these bytes");
    let range = |tag| [("Accept-Encoding", "br"), ("Range", "bytes=10-19"), ("If-Range", tag)];
    let part = proxy.request("GET", "/a", &range("\"v1\""), b"").await;
    assert_eq!((part.status, part.field("content-encoding")), (206, None));
    assert_eq!((part.text(), part.field("etag")), (&page(20)[10..], Some("\"v1\"")));
    // Who has a part of the compressed bytes must not get one of the others.
    let other = proxy.request("GET", "/a", &range("\"v1;fb-br\""), b"").await;
    assert_eq!((other.status, read(&other)), (200, page(5_000).into()));
}

#[tokio::test]
async fn a_confirmation_keeps_the_forms() {
    let origin = Origin::builder()
        .answering(|request| match request.field("if-none-match") {
            Some(tag) => {
                assert_eq!(tag, "\"v1\"", "the origin knows no other");
                Reply::status(304)
                    .field("ETag", "\"v1\"")
                    .field("Cache-Control", "max-age=10")
                    .field("X-New", "yes")
                    .field("Vary", "Origin")
            }
            None => fresh_page(5_000),
        })
        .start()
        .await;
    let proxy = Inside::before(&origin, ON).await;
    proxy.get("/a").await;
    proxy.request("GET", "/a", &accepting("br"), b"").await;
    proxy.advance(61);
    let fields = [("Accept-Encoding", "br"), ("If-None-Match", "\"old;fb-br\"")];
    let confirmed = proxy.request("GET", "/a", &fields, b"").await;
    assert!(
        confirmed.cache_status().contains("fwd-status=304"),
        "{}",
        confirmed.raw_head
    );
    assert_eq!((confirmed.status, confirmed.field("x-new")), (200, Some("yes")));
    assert_eq!(confirmed.field("content-encoding"), Some("br"));
    assert_eq!(confirmed.fields("vary"), ["Origin", "Accept-Encoding"]);
    let hit = proxy.request("GET", "/a", &accepting("br"), b"").await;
    assert_eq!((hit.field("x-new"), read(&hit)), (Some("yes"), page(5_000).into()));
    assert_eq!(compressions(&proxy, "stored").await, 1.0);
}

#[tokio::test]
async fn an_origin_that_compresses_unasked_is_read_for_those_who_cannot() {
    let body = page(10_000);
    for coding in Coding::ALL {
        let packed = encode(body.as_bytes(), coding, 5).unwrap();
        let reply = Reply::fresh(60, packed.clone())
            .field("Content-Type", "text/html")
            .field("Content-Encoding", coding.as_str())
            .field("ETag", "\"v1\"");
        let origin = Origin::builder().on("/a", reply).start().await;
        let proxy = Inside::before(&origin, ON).await;
        for _ in 0..2 {
            let plain = proxy.get("/a").await;
            assert_eq!(plain.field("content-encoding"), None);
            assert_eq!(
                (plain.text(), plain.field("etag")),
                (body.as_str(), Some("\"v1;fb-identity\""))
            );
            let as_it_came = proxy.request("GET", "/a", &accepting(coding.as_str()), b"").await;
            assert_eq!(as_it_came.field("content-encoding"), Some(coding.as_str()));
            assert_eq!((as_it_came.body, as_it_came.fields.len() > 3), (packed.to_vec(), true));
        }
        assert_eq!(origin.request_count(), 1);
    }
}

#[tokio::test]
async fn a_stored_bomb_does_no_harm() {
    let packed = encode(&vec![0; 20 << 20], Coding::Gzip, 6).unwrap();
    let reply = Reply::fresh(60, packed.clone())
        .field("Content-Type", "text/html")
        .field("Content-Encoding", "gzip");
    let origin = Origin::builder().on("/a", reply).start().await;
    let proxy = Inside::before(&origin, ON).await;
    proxy.request("GET", "/a", &accepting("gzip"), b"").await;
    for _ in 0..2 {
        let hit = proxy.get("/a").await;
        assert_eq!(
            (hit.field("content-encoding"), hit.body.len()),
            (Some("gzip"), packed.len())
        );
    }
    let failed = [("result", "failed")];
    proxy.metric_becomes("forebay_compressions_total", &failed, 1.0).await;
}
