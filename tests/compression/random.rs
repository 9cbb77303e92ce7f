//! Whatever clients say, and however bodies come.

use std::time::Duration;

use fastrand::Rng;
use forebay::transform::negotiate::Coding;
use futures_util::future::join_all;

use super::{ON, fresh_page, page, read};
use crate::support::client::curl;
use crate::support::inside::Inside;
use crate::support::origin::{Origin, Reply, Stream};

/// What can stand in `Accept-Encoding`, and what should not.
const NAMES: [&str; 14] = [
    "gzip", "br", "zstd", "x-gzip", "GZip", "identity", "*", "deflate", "dcz", "junk", "g zip", "\"br\"", "", "q=1",
];
const WEIGHTS: [&str; 17] = [
    "",
    "",
    "",
    ";q=1",
    "; q=0.5",
    " ;Q=0.25",
    ";q=0",
    ";q=0.000",
    ";q=0.001",
    ";q=1.000",
    ";q=0.999",
    ";q=2",
    ";q=0.1234",
    ";q=",
    ";",
    ";level=9",
    ";q=0.5;q=1",
];

fn lines(random: &mut Rng) -> Vec<String> {
    let mut lines = Vec::new();
    for _ in 0..random.usize(0..3) {
        let members: Vec<String> = (0..random.usize(0..5))
            .map(|_| {
                // Garbage in one member makes all of it garbage, so there must not be too much.
                let (names, weights) = match random.u8(0..8) {
                    0 => (NAMES.len(), WEIGHTS.len()),
                    _ => (9, 11),
                };
                format!("{}{}", NAMES[random.usize(..names)], WEIGHTS[random.usize(..weights)])
            })
            .collect();
        lines.push(members.join([",", ", ", " ,\t"][random.usize(..3)]));
    }
    lines
}

/// RFC 9110 §12.5.3 once more, as plainly as can be: the coding that these lines ask for.
fn wanted(lines: &[String]) -> Option<&'static str> {
    let mut weights: Vec<(String, f64)> = Vec::new();
    for member in lines.iter().flat_map(|line| line.split(',')).map(str::trim) {
        if member.is_empty() {
            continue;
        }
        let (name, parameters) = member.split_once(';').unwrap_or((member, "q=1"));
        let name = name.trim().to_ascii_lowercase();
        let value = parameters.trim().to_ascii_lowercase();
        let value = value.strip_prefix("q=")?.to_owned();
        let digits = value.strip_prefix("0.").or(value.strip_prefix("1."));
        let is_weight = value == "0" || value == "1" || digits.is_some_and(|digits| digits.len() <= 3);
        let is_name = !name.is_empty() && !name.contains([' ', '"', '=']);
        let weight: f64 = value.parse().ok().filter(|weight| is_weight && *weight <= 1.0)?;
        if !is_name {
            return None;
        }
        weights.push((name.replace("x-gzip", "gzip"), weight));
    }
    let weight_of = |name: &str| {
        let named = weights.iter().filter(|(known, _)| known == name);
        named.map(|(_, weight)| *weight).reduce(f64::min)
    };
    let mut best = (weight_of("identity").unwrap_or(0.0), None);
    for coding in ["zstd", "br", "gzip"] {
        let weight = weight_of(coding).or(weight_of("*")).unwrap_or(0.0);
        // Compressed rather than not where both are liked the same, but never where it must not be.
        if weight > best.0 || weight == best.0 && weight > 0.0 && best.1.is_none() {
            best = (weight, Some(coding));
        }
    }
    best.1
}

#[tokio::test]
async fn any_accept_encoding_gets_what_it_asks_for_and_is_fetched_once() {
    let live = Reply::ok(page(3_000))
        .field("Content-Type", "text/css")
        .field("Cache-Control", "no-store");
    let origin = Origin::builder()
        .on("/stored", fresh_page(3_000).field("Vary", "Accept-Encoding"))
        .on("/live", live)
        .start()
        .await;
    let proxy = Inside::before(&origin, ON).await;
    proxy.get("/stored").await;
    let mut client = proxy.client().await;
    let seed = fastrand::u64(..);
    let mut random = Rng::with_seed(seed);
    let mut seen = Vec::new();
    for _ in 0..300 {
        let lines = lines(&mut random);
        let fields: Vec<(&str, &str)> = lines.iter().map(|line| ("Accept-Encoding", line.as_str())).collect();
        let wanted = wanted(&lines);
        for path in ["/stored", "/live"] {
            let response = client.request("GET", path, &fields, b"").await;
            assert_eq!(response.status, 200, "{lines:?} (seed {seed})");
            let coding = response.field("content-encoding");
            assert_eq!(coding, wanted, "{path} {lines:?} (seed {seed})");
            assert_eq!(response.fields("vary"), ["Accept-Encoding"]);
            assert_eq!(read(&response), page(3_000), "{path} {lines:?} (seed {seed})");
        }
        seen.push(wanted);
    }
    for coding in [None, Some("zstd"), Some("br"), Some("gzip")] {
        assert!(seen.contains(&coding), "{coding:?} (seed {seed})");
    }
    let stored = origin
        .requests()
        .into_iter()
        .filter(|request| request.target == "/stored");
    assert_eq!(stored.count(), 1);
}

#[tokio::test]
async fn junk_splits_nothing_where_the_origin_compresses_either() {
    let origin = Origin::builder()
        .answering(|request| {
            let accept = request.field("accept-encoding").unwrap_or("nothing");
            Reply::fresh(60, accept.to_owned()).field("Vary", "Accept-Encoding")
        })
        .start()
        .await;
    let proxy = Inside::before(&origin, "").await;
    for (accept, sent) in [
        ("gzip, x1", "gzip"),
        ("x2;q=0.3, gzip;q=0.123", "gzip"),
        ("gzip;q=0.124", "gzip"),
        ("br, gzip", "br, gzip"),
        ("gzip, br, x3", "br, gzip"),
        ("x4", "identity"),
        ("gzip;q=x5", "identity"),
        ("", "identity"),
    ] {
        let response = proxy.request("GET", "/a", &[("Accept-Encoding", accept)], b"").await;
        // What it is asked for is what it is stored for.
        assert_eq!(response.text(), sent, "{accept}");
    }
    assert_eq!(proxy.get("/a").await.text(), "nothing");
    assert_eq!(origin.request_count(), 4);
}

/// A text, and the pieces in which it comes.
fn pieces(random: &mut Rng) -> (String, Vec<String>) {
    let text = page(random.usize(1..300_000));
    let (mut rest, mut pieces) = (text.as_str(), Vec::new());
    while !rest.is_empty() {
        let longest = [1, 10, 2_000, 20_000, 200_000][random.usize(..5)];
        let (piece, more) = rest.split_at(random.usize(1..=longest).min(rest.len()));
        pieces.push(piece.to_owned());
        rest = more;
        if pieces.len() > 300 {
            pieces.push(std::mem::take(&mut rest).to_owned());
        }
    }
    pieces.retain(|piece| !piece.is_empty());
    (text, pieces)
}

#[tokio::test]
async fn however_a_body_comes_curl_reads_it() {
    let seed = fastrand::u64(..);
    let mut random = Rng::with_seed(seed);
    let at_once: Vec<_> = (0..4).map(|_| pieces(&mut random)).collect();
    let (slow_text, slow_pieces) = pieces(&mut random);
    let stream = Stream::new();
    let mut origin = Origin::builder().on(
        "/slow",
        Reply::streamed(&stream).field("Content-Type", "application/json"),
    );
    for (number, (_, pieces)) in at_once.iter().enumerate() {
        let reply = Reply::chunked(pieces.clone()).field("Content-Type", "text/css");
        origin = origin.on(&format!("/{number}"), reply);
    }
    let origin = origin.start().await;
    let proxy = Inside::before(&origin, "defaults: { compression: { flush_after: 1ms }, cache: off }\n").await;
    let address = proxy.address();
    let reads = async |path: String, coding: Coding, text: &str| {
        let accept = format!("Accept-Encoding: {}", coding.as_str());
        let got = curl(&["--compressed", "-H", &accept, &format!("http://{address}{path}")]).await;
        assert_eq!(
            (got.exit, got.status),
            (0, 200),
            "{path} {coding:?} (seed {seed}): {}",
            got.stderr
        );
        assert_eq!(got.field("content-encoding"), Some(coding.as_str()));
        assert!(got.text() == text, "{path} {coding:?} (seed {seed})");
    };
    for coding in Coding::ALL {
        let several = at_once.iter().enumerate();
        join_all(several.map(|(number, (text, _))| reads(format!("/{number}"), coding, text))).await;
    }
    // The same pieces to all three, with pauses that let everything be flushed, or not.
    let writer = async {
        stream.opened(Coding::ALL.len()).await;
        for piece in &slow_pieces {
            stream.send(piece.clone());
            if random.u8(0..4) == 0 {
                tokio::time::sleep(Duration::from_millis(random.u64(0..3))).await;
            }
        }
        stream.finish();
    };
    let readers = join_all(Coding::ALL.map(|coding| reads("/slow".to_owned(), coding, &slow_text)));
    tokio::join!(writer, readers);
}
