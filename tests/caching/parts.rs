//! Ranges out of the store, and parts put together (RFC 9110 §14, RFC 9111 §3.3, §3.4).

use crate::support::inside::Inside;
use crate::support::origin::{Origin, Reply, Request};

const BODY: &str = "0123456789";

/// An origin that knows single ranges, with a strong tag.
fn ranges(request: &Request) -> Reply {
    let reply = Reply::status(200)
        .field("Cache-Control", "max-age=60")
        .field("ETag", "\"a\"")
        .field("Content-Type", "text/plain");
    let range = request.field("range").and_then(|range| range.strip_prefix("bytes="));
    let stale = request.field("if-range").is_some_and(|tag| tag != "\"a\"");
    let Some((first, last)) = range.filter(|_| !stale).and_then(|range| range.split_once('-')) else {
        return reply.body(BODY);
    };
    let first: usize = first.parse().unwrap();
    let last = last.parse().unwrap_or(BODY.len() - 1);
    let partial = Reply::status(206)
        .field("Cache-Control", "max-age=60")
        .field("ETag", "\"a\"")
        .field("Content-Type", "text/plain");
    partial
        .field("Content-Range", &format!("bytes {first}-{last}/{}", BODY.len()))
        .body(&BODY[first..=last])
}

#[tokio::test]
async fn a_stored_whole_answers_all_ranges() {
    let origin = Origin::builder().answering(ranges).start().await;
    let proxy = Inside::before(&origin, "").await;
    proxy.get("/a").await;
    struct Asked(&'static [(&'static str, &'static str)]);
    let table: [(Asked, u16, Option<&str>, &str); 12] = [
        (Asked(&[("Range", "bytes=0-1")]), 206, Some("bytes 0-1/10"), "01"),
        (Asked(&[("Range", "bytes=-3")]), 206, Some("bytes 7-9/10"), "789"),
        (Asked(&[("Range", "bytes=8-")]), 206, Some("bytes 8-9/10"), "89"),
        (Asked(&[("Range", "bytes=5-99")]), 206, Some("bytes 5-9/10"), "56789"),
        (
            Asked(&[("Range", "bytes=0-3,2-5")]),
            206,
            Some("bytes 0-5/10"),
            "012345",
        ),
        (Asked(&[("Range", "bytes=10-")]), 416, Some("bytes */10"), ""),
        (Asked(&[("Range", "bytes=5-1")]), 200, None, BODY),
        (Asked(&[("Range", "lines=1-2")]), 200, None, BODY),
        (
            Asked(&[("Range", "bytes=0-1"), ("If-Range", "\"a\"")]),
            206,
            Some("bytes 0-1/10"),
            "01",
        ),
        (Asked(&[("Range", "bytes=0-1"), ("If-Range", "\"b\"")]), 200, None, BODY),
        (
            Asked(&[("Range", "bytes=0-1"), ("If-Range", "W/\"a\"")]),
            200,
            None,
            BODY,
        ),
        (
            Asked(&[("Range", "bytes=0-1"), ("If-None-Match", "\"a\"")]),
            304,
            None,
            "",
        ),
    ];
    for (Asked(fields), status, content_range, body) in table {
        let response = proxy.request("GET", "/a", fields, b"").await;
        assert_eq!(response.status, status, "{fields:?}: {}", response.raw_head);
        assert_eq!(response.field("content-range"), content_range, "{fields:?}");
        assert_eq!(response.text(), body, "{fields:?}");
        assert!(response.cache_status().starts_with("hit"), "{}", response.raw_head);
    }
    let head = proxy.request("HEAD", "/a", &[("Range", "bytes=0-1")], b"").await;
    assert_eq!((head.status, head.field("content-length")), (200, Some("10")));
    let several = proxy.request("GET", "/a", &[("Range", "bytes=0-1,8-9")], b"").await;
    assert_eq!(several.status, 206);
    let boundary = several
        .field("content-type")
        .unwrap()
        .strip_prefix("multipart/byteranges; boundary=");
    let boundary = boundary.unwrap().trim_matches('"');
    let expected = format!(
        "--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\n01\r\n\
         --{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 8-9/10\r\n\r\n89\r\n--{boundary}--\r\n"
    );
    assert_eq!(several.text().trim_start_matches("\r\n"), expected);
    let many: Vec<_> = (0..40).map(|_| "0-0").collect();
    let many = format!("bytes={}", many.join(","));
    let excessive = proxy.request("GET", "/a", &[("Range", &many)], b"").await;
    assert_eq!((excessive.status, excessive.text()), (200, BODY));
    assert_eq!(origin.request_count(), 1);
}

#[tokio::test]
async fn parts_are_kept_combined_and_completed() {
    let origin = Origin::builder().answering(ranges).start().await;
    let proxy = Inside::before(&origin, "").await;
    let part = |range: &'static str| {
        let proxy = &proxy;
        async move { proxy.request("GET", "/a", &[("Range", range)], b"").await }
    };
    assert_eq!(part("bytes=2-3").await.text(), "23");
    assert_eq!(part("bytes=2-3").await.cache_status(), "hit; ttl=60; detail=l1");
    assert_eq!(part("bytes=3-3").await.text(), "3");
    assert_eq!(origin.request_count(), 1);
    // What lies beside it is fetched, and put to it.
    let beside = part("bytes=4-6").await;
    assert!(beside.cache_status().starts_with("fwd=partial"), "{}", beside.raw_head);
    assert_eq!(part("bytes=2-6").await.text(), "23456");
    assert_eq!(origin.request_count(), 2);
    // Nothing that it holds is asked for again.
    assert_eq!(part("bytes=0-1").await.text(), "01");
    let whole = proxy.get("/a").await;
    assert_eq!((whole.status, whole.text()), (200, BODY));
    assert_eq!(whole.cache_status(), "fwd=partial; fwd-status=206; stored; ttl=60");
    assert_eq!(whole.field("content-range"), None);
    let completion = origin.last_request();
    assert_eq!(
        (completion.field("range"), completion.field("if-range")),
        (Some("bytes=7-"), Some("\"a\""))
    );
    assert_eq!(origin.request_count(), 4);
    let again = proxy.get("/a").await;
    assert_eq!((again.text(), origin.request_count()), (BODY, 4));
    assert!(again.cache_status().starts_with("hit"), "{}", again.raw_head);
}

#[tokio::test]
async fn a_part_of_another_representation_is_not_put_to_it() {
    let origin = Origin::builder().answering(ranges).start().await;
    let proxy = Inside::before(&origin, "").await;
    proxy.request("GET", "/a", &[("Range", "bytes=0-4")], b"").await;
    origin.on("/a", Reply::fresh(60, "ABCDEFGHIJ").field("ETag", "\"b\""));
    let whole = proxy.get("/a").await;
    assert_eq!((whole.status, whole.text()), (200, "ABCDEFGHIJ"));
}
