//! `forebay explain` foretells what the proxy does: the same words, for the same requests and responses.

use crate::support::origin::{Origin, Reply};
use crate::support::proxy::{Proxy, forebay};

type Lines<'a> = &'a [(&'a str, &'a str)];

const A_MINUTE: (&str, &str) = ("Cache-Control", "max-age=60");

const SECTIONS: &str = "
cache: { memory: { size: 1MiB, max_body: 1KiB } }
routes:
  - { name: off, match: { path_prefix: /off }, upstream: default, cache: off }
  - { name: stream, match: { path_prefix: /stream }, upstream: default, stream: { heartbeat: 15s } }
  - { name: site, match: { path_prefix: / }, upstream: default }
";

#[tokio::test]
async fn the_foretold_words_are_the_ones_that_are_said() {
    let table: &[(&str, &str, Lines<'_>, u16, Lines<'_>)] = &[
        ("GET", "/", &[], 200, &[A_MINUTE]),
        ("GET", "/", &[], 200, &[("Cache-Control", "s-maxage=0, max-age=60")]),
        ("GET", "/", &[], 200, &[A_MINUTE, ("Age", "20")]),
        ("GET", "/", &[], 200, &[A_MINUTE, ("Age", "80"), ("ETag", "\"1\"")]),
        ("GET", "/", &[], 200, &[("CDN-Cache-Control", "max-age=9"), A_MINUTE]),
        ("GET", "/", &[], 200, &[("ETag", "\"1\"")]),
        (
            "GET",
            "/",
            &[],
            200,
            &[("ETag", "\"1\""), ("Cache-Control", "no-cache")],
        ),
        (
            "GET",
            "/",
            &[],
            200,
            &[("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")],
        ),
        ("GET", "/", &[], 200, &[("Expires", "0")]),
        ("GET", "/", &[], 200, &[]),
        ("GET", "/", &[], 200, &[("Cache-Control", "private, max-age=60")]),
        ("GET", "/", &[], 200, &[("Cache-Control", "no-store, max-age=60")]),
        ("GET", "/", &[], 200, &[A_MINUTE, ("Set-Cookie", "a=b")]),
        ("GET", "/", &[], 200, &[A_MINUTE, ("Vary", "*")]),
        ("GET", "/", &[], 200, &[A_MINUTE, ("Vary", "Accept-Language")]),
        ("GET", "/", &[], 200, &[A_MINUTE, ("Content-Type", "text/event-stream")]),
        (
            "GET",
            "/",
            &[],
            200,
            &[("Cache-Control", "max-age=0, stale-while-revalidate=60")],
        ),
        ("GET", "/", &[], 404, &[A_MINUTE]),
        ("GET", "/", &[], 404, &[]),
        ("GET", "/", &[], 500, &[A_MINUTE]),
        ("GET", "/", &[], 204, &[A_MINUTE]),
        ("GET", "/", &[], 301, &[A_MINUTE, ("Location", "/b")]),
        ("GET", "/", &[("Authorization", "Bearer a")], 200, &[A_MINUTE]),
        (
            "GET",
            "/",
            &[("Authorization", "Bearer a")],
            200,
            &[("Cache-Control", "public, max-age=60")],
        ),
        ("GET", "/", &[("Cookie", "a=b")], 200, &[A_MINUTE]),
        (
            "GET",
            "/",
            &[("Cookie", "a=b")],
            200,
            &[("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")],
        ),
        ("GET", "/", &[("Cache-Control", "no-store")], 200, &[A_MINUTE]),
        ("GET", "/", &[("Cache-Control", "no-cache")], 200, &[A_MINUTE]),
        ("GET", "/", &[("Cache-Control", "max-age=0")], 200, &[A_MINUTE]),
        ("GET", "/", &[("Cache-Control", "only-if-cached")], 200, &[A_MINUTE]),
        (
            "GET",
            "/",
            &[("If-None-Match", "\"1\"")],
            304,
            &[A_MINUTE, ("ETag", "\"1\"")],
        ),
        ("GET", "/", &[("If-Match", "\"1\"")], 200, &[A_MINUTE]),
        (
            "GET",
            "/",
            &[("Range", "bytes=0-0")],
            206,
            &[A_MINUTE, ("Content-Range", "bytes 0-0/9")],
        ),
        ("GET", "/", &[("X-Original-URL", "/b")], 200, &[A_MINUTE]),
        ("HEAD", "/", &[], 200, &[A_MINUTE]),
        ("POST", "/", &[], 200, &[A_MINUTE]),
        ("DELETE", "/", &[], 204, &[]),
        ("GET", "/off", &[], 200, &[A_MINUTE]),
        ("GET", "/stream", &[], 200, &[A_MINUTE]),
        ("GET", "/%61", &[], 200, &[A_MINUTE]),
        ("GET", "/%6fff", &[], 200, &[A_MINUTE]),
    ];
    for (method, path, request, status, response) in table {
        let case = format!("{method} {path} {request:?} -> {status} {response:?}");
        let bodiless = *method == "HEAD" || matches!(status, 204 | 304);
        let mut reply = Reply::status(*status);
        if !bodiless {
            reply = reply.body("a");
        }
        for (name, value) in *response {
            reply = reply.field(name, value);
        }
        let origin = Origin::builder().otherwise(reply).start().await;
        let proxy = Proxy::before(&origin, SECTIONS).await;
        let foretold = foretold(&proxy, method, path, request, *status, response).await;
        let mut client = proxy.client().await;
        let mut said = Vec::new();
        for _ in 0..2 {
            client.send_request(method, path, request, b"").await;
            let response = match bodiless {
                true => client.response_without_body().await,
                false => client.response().await,
            };
            said.push((response.status, response.field("cache-status").map(str::to_owned)));
        }
        assert_eq!(foretold.first, said.first().cloned(), "{case}\n{}", foretold.text);
        if let Some(again) = foretold.again {
            let found = said.get(1).and_then(|(_, status)| status.clone()).unwrap_or_default();
            assert_eq!(
                without_ttl(&again),
                without_ttl(&found),
                "{case}, again\n{}",
                foretold.text
            );
        }
    }
}

#[tokio::test]
async fn it_says_what_redis_has_to_do_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("forebay.yaml");
    for (write, collapse, lines) in [
        (
            "behind",
            "cluster",
            [
                "on a miss Redis is looked at first; what is fetched goes there\n",
                "requests for the same at the same time, on all instances, wait for one fetch\n",
            ],
        ),
        (
            "around",
            "instance",
            [
                "what is fetched does not go there\n",
                "requests for the same at the same time wait for one fetch\n",
            ],
        ),
    ] {
        let yaml = format!(
            "listen: 127.0.0.1:0\nupstream: http://127.0.0.1:1\n\
             cache: {{ redis: {{ url: \"redis://127.0.0.1:1\", write: {write} }} }}\n\
             defaults: {{ cache: {{ collapse: {collapse} }} }}\n"
        );
        std::fs::write(&file, yaml).unwrap();
        let finished = forebay(&["explain", file.to_str().unwrap(), "GET", "http://a.test/"]).await;
        assert_eq!(finished.code, 0, "{}", finished.stderr);
        for line in lines {
            assert!(finished.stdout.contains(line), "{}", finished.stdout);
        }
    }
}

/// What `explain` says of a request and its response.
struct Foretold {
    /// Status and `Cache-Status`.
    first: Option<(u16, Option<String>)>,
    /// `Cache-Status` of the same request again, where it is answered without the origin.
    again: Option<String>,
    text: String,
}

async fn foretold(
    proxy: &Proxy,
    method: &str,
    path: &str,
    request: Lines<'_>,
    status: u16,
    response: Lines<'_>,
) -> Foretold {
    let file = proxy.directory().join("forebay.yaml").display().to_string();
    let mut arguments = vec!["explain".to_owned(), file, method.to_owned(), proxy.url(path)];
    for (name, value) in request {
        arguments.extend(["-H".to_owned(), format!("{name}: {value}")]);
    }
    arguments.extend(["--response".to_owned(), status.to_string()]);
    let length = ("Content-Length", "1");
    let given = response
        .iter()
        .chain(std::iter::once(&length).filter(|_| !matches!(status, 204 | 304)));
    for (name, value) in given {
        arguments.extend(["-R".to_owned(), format!("{name}: {value}")]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let finished = forebay(&arguments).await;
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    let mut answer = finished.stdout.lines().skip_while(|line| !line.starts_with("answer "));
    let first = answer
        .next()
        .and_then(|line| line.split(' ').filter(|word| !word.is_empty()).nth(2)?.parse().ok());
    let is_more = |line: &&str| line.starts_with(' ');
    let cache_status = answer
        .take_while(is_more)
        .find_map(|line| line.trim().strip_prefix("Cache-Status: ").map(str::to_owned));
    let again = finished
        .stdout
        .lines()
        .find_map(|line| line.strip_prefix("asked again")?.trim().strip_prefix("Cache-Status: "));
    Foretold {
        first: first.map(|status| (status, cache_status)),
        again: again.map(str::to_owned),
        text: finished.stdout.clone(),
    }
}

/// Seconds pass.
fn without_ttl(status: &str) -> String {
    status
        .split("; ")
        .filter(|part| !part.starts_with("ttl="))
        .collect::<Vec<_>>()
        .join("; ")
}
