//! Newer versions of assets for clients that have an older one (RFC 9842).

mod first;
mod shared;

use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use brotli::enc::StandardAlloc;
use brotli::{Allocator, SliceWrapperMut};
use forebay::cache::purge::{Pattern, What};
use forebay::cache::recoded::digest;
use forebay::transform::compress::encode::encode;
use forebay::transform::negotiate::Coding;
use serde_json::json;

use super::read;
use crate::support::client::Response;
use crate::support::inside::Inside;
use crate::support::origin::{Origin, Reply};
use crate::support::within;

const WITH: &str = "defaults: { compression: { dictionaries: true } }\n";

/// What Chromium sends.
const ACCEPT: &str = "gzip, deflate, br, zstd, dcb, dcz";

/// Version 1 or 2 of a script: a few lines differ.
fn script(version: u32) -> String {
    let mut number: u32 = 7;
    let mut text = format!("const version = {version};\n");
    for line in 0..600 {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        text += &format!("export function f{line}() {{ return {number}; }}\n");
    }
    text + &format!("start({version});\n")
}

fn asset(body: impl Into<bytes::Bytes>) -> Reply {
    Reply::fresh(3600, body)
        .field("Content-Type", "text/javascript")
        .field("ETag", "\"v\"")
}

fn dictionary(version: u32) -> Reply {
    asset(script(version)).field("Use-As-Dictionary", "match=\"/app.*.js\"")
}

async fn versions() -> Origin {
    Origin::builder()
        .on("/app.1.js", dictionary(1))
        .on("/app.2.js", dictionary(2))
        .on("/other.js", asset(script(3)))
        .start()
        .await
}

/// `Available-Dictionary` of who has this.
fn available(body: &str) -> String {
    format!(":{}:", STANDARD.encode(digest(body.as_bytes())))
}

/// Asks for a target with version 1 in hand, and more fields.
async fn ask(proxy: &Inside, target: &str, accept: &str, more: &[(&str, &str)]) -> Response {
    let has = available(&script(1));
    let mut fields = vec![("Accept-Encoding", accept), ("Available-Dictionary", has.as_str())];
    fields.extend_from_slice(more);
    proxy.request("GET", target, &fields, b"").await
}

/// What a response says to who has this dictionary.
#[track_caller]
fn read_with(response: &Response, dictionary: &str) -> String {
    let (body, sum) = (&response.body[..], digest(dictionary.as_bytes()));
    let mut out = Vec::new();
    match response.field("content-encoding") {
        Some("dcz") => {
            assert_eq!(body[..8], [0x5e, 0x2a, 0x4d, 0x18, 0x20, 0, 0, 0]);
            assert_eq!(body[8..40], sum);
            let mut decoder = zstd::stream::read::Decoder::with_ref_prefix(&body[40..], dictionary.as_bytes()).unwrap();
            decoder.read_to_end(&mut out).unwrap();
        }
        Some("dcb") => {
            assert_eq!((&body[..4], &body[4..36]), (&b"\xffDCB"[..], &sum[..]));
            let mut decoder = brotli::Decompressor::new(&body[36..], 4096);
            let mut copy = StandardAlloc::default().alloc_cell(dictionary.len());
            copy.slice_mut().copy_from_slice(dictionary.as_bytes());
            assert!(decoder.attach_dictionary(copy));
            decoder.read_to_end(&mut out).unwrap();
        }
        _ => out = read(response).to_vec(),
    }
    String::from_utf8(out).unwrap()
}

/// Has version 1 stored, and waits until it is a dictionary.
async fn with_first(proxy: &Inside) {
    proxy.get("/app.1.js").await;
    within("a dictionary", async {
        while proxy.metric("forebay_dictionary_bytes", &[]).await == 0.0 {}
    })
    .await;
}

/// Has both versions stored, and waits until the first is a dictionary.
async fn with_both(proxy: &Inside) {
    proxy.get("/app.1.js").await;
    proxy.get("/app.2.js").await;
    within("a dictionary", async {
        while ask(proxy, "/app.2.js", "dcz", &[]).await.field("content-encoding") != Some("dcz") {}
    })
    .await;
}

#[tokio::test]
async fn a_new_version_comes_as_its_difference_from_the_old_one() {
    let origin = versions().await;
    let proxy = Inside::before(&origin, WITH).await;
    with_both(&proxy).await;
    for (accept, coding, etag) in [(ACCEPT, "dcz", "dcz-"), ("br, dcb", "dcb", "dcb-")] {
        for _ in 0..2 {
            let response = ask(&proxy, "/app.2.js", accept, &[]).await;
            assert_eq!(response.field("content-encoding"), Some(coding));
            assert_eq!(response.fields("vary"), ["Accept-Encoding", "Available-Dictionary"]);
            assert!(response.body.len() < 300, "{}", response.body.len());
            assert_eq!(read_with(&response, &script(1)), script(2));
            let sum: String = digest(script(1).as_bytes())[..16]
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            let tag = format!("\"v;fb-{etag}{sum}\"");
            assert_eq!(response.field("etag"), Some(tag.as_str()));
            // It can be a dictionary for the next version.
            assert_eq!(response.field("use-as-dictionary"), Some("match=\"/app.*.js\""));
            let known = ask(&proxy, "/app.2.js", accept, &[("If-None-Match", &tag)]).await;
            assert_eq!((known.status, known.field("etag")), (304, Some(tag.as_str())));
        }
    }
    assert!(proxy.metric("forebay_dictionary_bytes", &[]).await > script(1).len() as f64);
    // Once for all who have the same.
    let made = [("result", "dictionary")];
    assert_eq!(proxy.metric("forebay_compressions_total", &made).await, 2.0);
    assert_eq!(origin.request_count(), 2);
    let entry = proxy.log_entry(|entry| entry["coding"] == "dcz").await;
    assert_eq!(
        (&entry["cache"], &entry["target"]),
        (&json!("hit_l1"), &json!("/app.2.js"))
    );
}

#[tokio::test]
async fn who_has_no_dictionary_gets_the_whole() {
    let origin = versions().await;
    let proxy = Inside::before(&origin, WITH).await;
    with_both(&proxy).await;
    let plain = proxy
        .request("GET", "/app.2.js", &[("Accept-Encoding", ACCEPT)], b"")
        .await;
    assert_eq!(plain.field("content-encoding"), Some("zstd"));
    assert_eq!(plain.fields("vary"), ["Accept-Encoding", "Available-Dictionary"]);
    assert_eq!(read(&plain), script(2));
    let unknown = available("something else");
    let fields = [("Accept-Encoding", ACCEPT), ("Available-Dictionary", unknown.as_str())];
    let response = proxy.request("GET", "/app.2.js", &fields, b"").await;
    assert_eq!(response.body, plain.body);

    const CROSS: (&str, &str) = ("Sec-Fetch-Site", "cross-site");
    let token = ("Authorization", "Bearer x");
    for (target, accept, more) in [
        // Nothing that needs a dictionary is asked for.
        ("/app.2.js", "zstd, br, *", &[][..]),
        ("/app.2.js", "zstd, dcz;q=0.5", &[]),
        // It was offered for others.
        ("/other.js", ACCEPT, &[]),
        ("/app.2.js", ACCEPT, &[("Dictionary-ID", "\"x\"")]),
        // Another page could tell something from the length.
        ("/app.2.js", ACCEPT, &[CROSS, ("Sec-Fetch-Mode", "no-cors")]),
        (
            "/app.2.js",
            ACCEPT,
            &[CROSS, ("Sec-Fetch-Mode", "cors"), ("Origin", "https://a.example")],
        ),
        // It may be about one client.
        ("/app.2.js", ACCEPT, &[token]),
        ("/app.2.js", ACCEPT, &[("X-No-Compression", "1")]),
        ("/app.2.js", ACCEPT, &[("Cache-Control", "no-transform")]),
        ("/app.2.js", ACCEPT, &[("Range", "bytes=0-9")]),
    ] {
        let response = ask(&proxy, target, accept, more).await;
        let coding = response.field("content-encoding");
        assert!(
            matches!(coding, None | Some("zstd")),
            "{target} {accept} {more:?}: {coding:?}"
        );
        if response.status == 200 {
            let version = if target == "/other.js" { 3 } else { 2 };
            assert_eq!(read(&response), script(version), "{target} {accept} {more:?}");
        }
    }
    let same = [
        ("Sec-Fetch-Site", "same-origin"),
        ("Sec-Fetch-Mode", "no-cors"),
        ("Cookie", "a=b"),
    ];
    assert_eq!(
        ask(&proxy, "/app.2.js", ACCEPT, &same).await.field("content-encoding"),
        Some("dcz")
    );
    // Another host is another origin.
    let other = [("Host", "other.example")];
    let response = ask(&proxy, "/app.2.js", ACCEPT, &other).await;
    assert_ne!(response.field("content-encoding"), Some("dcz"));
    let response = ask(&proxy, "/app.2.js", ACCEPT, &other).await;
    assert_eq!(response.field("content-encoding"), Some("zstd"));
}

#[tokio::test]
async fn only_routes_that_say_so_take_dictionaries() {
    let origin = versions().await;
    let proxy = Inside::before(&origin, "defaults: { compression: on }\n").await;
    for _ in 0..2 {
        for target in ["/app.1.js", "/app.2.js"] {
            let response = ask(&proxy, target, ACCEPT, &[]).await;
            assert_eq!(response.field("content-encoding"), Some("zstd"));
            assert_eq!(response.fields("vary"), ["Accept-Encoding"]);
            assert_eq!(response.field("use-as-dictionary"), Some("match=\"/app.*.js\""));
        }
    }
    // The origin is asked for something that everybody can read.
    assert_eq!(origin.last_request().field("available-dictionary"), None);
}

#[tokio::test]
async fn an_old_version_outlives_its_place_in_the_cache() {
    let origin = Origin::builder()
        .answering(|request| match request.target.as_str() {
            "/app.1.js" => dictionary(1),
            "/app.2.js" => dictionary(2),
            _ => Reply::fresh(60, "x".repeat(60_000)),
        })
        .start()
        .await;
    let yaml = format!("{WITH}cache: {{ memory: {{ size: 256KiB, dictionaries: 256KiB }} }}\n");
    let proxy = Inside::before(&origin, &yaml).await;
    proxy.get("/app.1.js").await;
    for number in 0..20 {
        proxy.get(&format!("/{number}")).await;
        proxy.get(&format!("/{number}")).await;
    }
    with_both_but_first(&proxy).await;
    assert!(proxy.get("/app.1.js").await.cache_status().contains("fwd=uri-miss"));
}

async fn with_both_but_first(proxy: &Inside) {
    within("the difference", async {
        while ask(proxy, "/app.2.js", ACCEPT, &[]).await.field("content-encoding") != Some("dcz") {}
    })
    .await;
    let response = ask(proxy, "/app.2.js", ACCEPT, &[]).await;
    assert_eq!(read_with(&response, &script(1)), script(2));
}

#[tokio::test]
async fn what_came_compressed_is_a_dictionary_as_it_is_read() {
    let packed = encode(script(1).as_bytes(), Coding::Gzip, 6).unwrap();
    let old = asset(packed)
        .field("Content-Encoding", "gzip")
        .field("Use-As-Dictionary", "match=\"/app.*.js\"");
    let origin = Origin::builder()
        .on("/app.1.js", old)
        .on("/app.2.js", dictionary(2))
        .start()
        .await;
    let proxy = Inside::before(&origin, WITH).await;
    proxy.get("/app.1.js").await;
    with_both_but_first(&proxy).await;
}

#[tokio::test]
async fn a_purge_takes_dictionaries_with_it() {
    let origin = versions().await;
    let proxy = Inside::before(&origin, WITH).await;
    with_both(&proxy).await;
    proxy
        .purge(What::Pattern(Pattern::Prefix("/app.1.js".to_owned())))
        .await;
    let response = ask(&proxy, "/app.2.js", ACCEPT, &[]).await;
    assert_eq!(response.field("content-encoding"), Some("zstd"));
    assert_eq!(read(&response), script(2));
    // It comes again, and may be used again.
    with_both(&proxy).await;
}

#[tokio::test]
async fn what_is_no_smaller_is_not_sent() {
    let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(30_000).collect();
    let origin = Origin::builder()
        .on("/app.1.js", dictionary(1))
        .on("/app.2.js", asset(noise.clone()))
        .start()
        .await;
    let proxy = Inside::before(&origin, WITH).await;
    proxy.get("/app.1.js").await;
    proxy.get("/app.2.js").await;
    let worthless = [("coding", "zstd"), ("result", "worthless")];
    within("both have been tried", async {
        while proxy.metric("forebay_compressions_total", &worthless).await < 2.0 {
            let response = ask(&proxy, "/app.2.js", ACCEPT, &[]).await;
            assert_eq!((response.field("content-encoding"), &response.body), (None, &noise));
        }
    })
    .await;
}
