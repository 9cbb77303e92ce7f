//! The first who asks for a new version gets its difference, too.

use zstd::stream::raw::{Decoder, Operation};

use super::{ACCEPT, WITH, ask, asset, available, dictionary, read_with, script, versions, with_first};
use crate::support::inside::Inside;
use crate::support::origin::{Origin, Reply, Stream};

#[tokio::test]
async fn a_new_version_comes_as_its_difference_while_it_is_fetched() {
    let origin = versions().await;
    let proxy = Inside::before(&origin, WITH).await;
    with_first(&proxy).await;
    let first = ask(&proxy, "/app.2.js", ACCEPT, &[]).await;
    assert!(first.cache_status().contains("fwd=uri-miss; stored"));
    assert_eq!(first.field("content-encoding"), Some("dcz"));
    assert_eq!(first.fields("vary"), ["Accept-Encoding", "Available-Dictionary"]);
    assert_eq!(first.field("content-length"), None);
    assert!(first.body.len() < 300, "{}", first.body.len());
    assert_eq!(read_with(&first, &script(1)), script(2));
    // What is stored is called the same.
    let tag = first.field("etag").unwrap();
    let second = ask(&proxy, "/app.2.js", ACCEPT, &[]).await;
    assert!(second.cache_status().contains("hit"));
    assert_eq!(
        (second.field("content-encoding"), second.field("etag")),
        (Some("dcz"), Some(tag))
    );
    assert_eq!(read_with(&second, &script(1)), script(2));
    let known = ask(&proxy, "/app.2.js", ACCEPT, &[("If-None-Match", tag)]).await;
    assert_eq!((known.status, known.field("etag")), (304, Some(tag)));
    let made = async |result| proxy.metric("forebay_compressions_total", &[("result", result)]).await;
    assert_eq!((made("live_dictionary").await, made("dictionary").await), (1.0, 1.0));
    let entry = proxy
        .log_entry(|entry| entry["cache"] == "uri-miss" && entry["target"] == "/app.2.js")
        .await;
    assert_eq!(entry["coding"], "dcz");
    assert_eq!(origin.request_count(), 2);
}

#[tokio::test]
async fn no_piece_of_it_waits_for_the_next() {
    let stream = Stream::new();
    let reply = Reply::streamed(&stream)
        .field("Content-Type", "text/javascript")
        .field("Cache-Control", "max-age=60");
    let origin = Origin::builder()
        .on("/app.1.js", dictionary(1))
        .on("/app.2.js", reply)
        .start()
        .await;
    let proxy = Inside::before(&origin, WITH).await;
    with_first(&proxy).await;
    let has = available(&script(1));
    let mut client = proxy.client().await;
    let fields = [("Accept-Encoding", ACCEPT), ("Available-Dictionary", has.as_str())];
    client.send_request("GET", "/app.2.js", &fields, b"").await;
    stream.opened(1).await;
    let head = client.response_head().await;
    assert_eq!(head.field("content-encoding"), Some("dcz"));
    let whole = script(2);
    let mut decoder = Decoder::with_ref_prefix(script(1).as_bytes().to_vec().leak()).unwrap();
    let mut form = Vec::new();
    let mut heard = String::new();
    for piece in whole.as_bytes().chunks(9_000) {
        stream.send(piece.to_vec());
        while !heard.as_bytes().ends_with(piece) {
            form.extend(client.chunk().await.expect("more"));
            if form.len() <= 40 {
                continue;
            }
            let mut out = vec![0; 1 << 20];
            let status = decoder.run_on_buffers(&form[40..], &mut out).unwrap();
            form.drain(40..40 + status.bytes_read);
            heard += std::str::from_utf8(&out[..status.bytes_written]).unwrap();
        }
    }
    stream.finish();
    assert_eq!(heard, whole);
}

#[tokio::test]
async fn some_are_not_compressed_with_it() {
    let noted = |reply: Reply, name: &str, value: &str| reply.field(name, value);
    let origin = Origin::builder()
        .on("/app.1.js", dictionary(1))
        .on("/app.2.js", asset(script(2)))
        .on(
            "/app.private.js",
            Reply::ok(script(2))
                .field("Content-Type", "text/javascript")
                .field("Cache-Control", "private"),
        )
        .on("/app.cookie.js", noted(asset(script(2)), "Vary", "Cookie"))
        .on(
            "/app.fixed.js",
            Reply::ok(script(2))
                .field("Content-Type", "text/javascript")
                .field("Cache-Control", "max-age=60, no-transform"),
        )
        .on(
            "/app.none.js",
            Reply::ok(script(2))
                .field("Content-Type", "text/javascript")
                .field("Cache-Control", "no-store"),
        )
        .on("/other.js", asset(script(2)))
        .start()
        .await;
    let cross = [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "no-cors")];
    let proxy = Inside::before(&origin, WITH).await;
    with_first(&proxy).await;
    for (target, accept, more, coding) in [
        // Brotli's needs the whole body.
        ("/app.2.js", "br, dcb", &[][..], Some("br")),
        ("/app.2.js?1", ACCEPT, &cross, Some("zstd")),
        ("/app.2.js?2", ACCEPT, &[("Authorization", "Bearer x")], Some("zstd")),
        ("/app.2.js?3", ACCEPT, &[("X-No-Compression", "1")], None),
        ("/app.2.js?4", "zstd, dcz;q=0.5", &[], Some("zstd")),
        ("/app.private.js", ACCEPT, &[], None),
        ("/app.cookie.js", ACCEPT, &[], None),
        ("/app.fixed.js", ACCEPT, &[], None),
        ("/app.none.js", ACCEPT, &[], Some("zstd")),
        ("/other.js", ACCEPT, &[], Some("zstd")),
    ] {
        let response = ask(&proxy, target, accept, more).await;
        assert!(!response.cache_status().contains("hit"), "{target}");
        assert_eq!(response.field("content-encoding"), coding, "{target} {more:?}");
        assert_eq!(super::read(&response), script(2), "{target}");
    }
}

#[tokio::test]
async fn a_dictionary_of_another_route_is_one_where_its_response_may_be_had() {
    let origin = versions().await;
    let yaml = |more: &str| {
        format!(
            "routes:\n\
             - {{ name: first, match: {{ path: /app.1.js }}, compression: {{ dictionaries: true }} }}\n\
             - {{ name: here, match: {{ path: /app.2.js }}, compression: {{ dictionaries: true }}{more} }}\n"
        )
    };
    let denied = ", deny: [192.0.2.1]";
    for (more, coding) in [("", "dcz"), (denied, "zstd")] {
        let proxy = Inside::before(&origin, &yaml(more)).await;
        with_first(&proxy).await;
        let response = ask(&proxy, "/app.2.js", ACCEPT, &[]).await;
        assert_eq!(response.field("content-encoding"), Some(coding), "{more}");
        assert_eq!(read_with(&response, &script(1)), script(2));
    }
}
