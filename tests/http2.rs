//! HTTP/2 on both sides.

use bytes::Bytes;

use crate::support::certificate::Certificate;
use crate::support::client::{Http2Client, curl, head_of, http2_request, rest_of};
use crate::support::origin::{Gate, Origin, Reply, RequestState, Stream};
use crate::support::proxy::{Builder, Proxy};
use crate::support::within;

/// A listener with TLS for the name `test`, and HTTP/2 offered.
async fn secure(upstream: &str) -> (Proxy, Certificate) {
    let certificate = Certificate::for_names(&["test"]);
    let builder = Builder::new();
    let (cert, key) = certificate.write(builder.directory(), "test");
    let yaml = format!(
        "listeners:
  - address: 127.0.0.1:0
    http2: true
    tls: {{ certificates: [{{ cert: {}, key: {} }}] }}
{upstream}",
        cert.display(),
        key.display()
    );
    (builder.start(&yaml).await, certificate)
}

fn plain_upstream(origin: &Origin) -> String {
    format!("upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n", origin.server())
}

#[tokio::test]
async fn requests_over_http2_reach_an_http1_upstream() {
    let origin = Origin::builder()
        .on("/chunked", Reply::chunked(["chu", "nked"]).trailer("X-Sum", "7"))
        .start()
        .await;
    let (proxy, certificate) = secure(&plain_upstream(&origin)).await;
    let mut client = Http2Client::connect_tls(proxy.address(), "test", &certificate).await;
    let request = http2_request("POST", "/a?b", &[("x-a", "b"), ("x-forwarded-proto", "http")]);
    let response = client.request(request, b"body").await.unwrap();
    assert_eq!((response.status, response.text()), (200, "hello"));
    for gone in ["connection", "transfer-encoding", "keep-alive"] {
        assert_eq!(response.field(gone), None, "{gone} is not for HTTP/2");
    }
    let request = origin.last_request();
    assert_eq!(
        (request.method.as_str(), request.target.as_str(), &request.body[..]),
        ("POST", "/a?b", &b"body"[..])
    );
    assert_eq!((request.field("host"), request.field("x-a")), (Some("test"), Some("b")));
    assert_eq!(request.field("x-forwarded-proto"), Some("https"));
    assert!(
        request.field("via").unwrap().starts_with("2.0 "),
        "{:?}",
        request.field("via")
    );

    let chunked = client.get("/chunked").await;
    assert_eq!(chunked.text(), "chunked");
    assert_eq!(chunked.trailers, [("x-sum".to_owned(), "7".to_owned())]);
    let head = client.request(http2_request("HEAD", "/sized", &[]), b"").await.unwrap();
    assert_eq!(
        (head.status, head.field("content-length"), head.body.len()),
        (200, Some("5"), 0)
    );
    let counted = [("route", "default"), ("method", "POST"), ("status", "200")];
    proxy.metric_becomes("forebay_http_requests_total", &counted, 1.0).await;
}

#[tokio::test]
async fn cookies_that_http2_splits_are_joined() {
    let origin = Origin::start().await;
    let (proxy, certificate) = secure(&plain_upstream(&origin)).await;
    let mut client = Http2Client::connect_tls(proxy.address(), "test", &certificate).await;
    let request = http2_request(
        "GET",
        "/",
        &[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2"), ("cookie", "c=3")],
    );
    client.request(request, b"").await.unwrap();
    assert_eq!(origin.only_request().fields("cookie"), ["a=1; b=2; c=3"]);
}

#[tokio::test]
async fn streams_of_one_connection_do_not_wait_for_each_other() {
    let gate = Gate::new();
    let origin = Origin::builder()
        .on("/held", Reply::ok("late").hold(&gate))
        .start()
        .await;
    let (proxy, certificate) = secure(&plain_upstream(&origin)).await;
    let mut client = Http2Client::connect_tls(proxy.address(), "test", &certificate).await;
    let (held, _) = client.send(http2_request("GET", "/held", &[]), true).await.unwrap();
    gate.reached(1).await;
    assert_eq!(client.get("/quick").await.text(), "hello");
    gate.release();
    let (head, body) = head_of(held).await.unwrap();
    assert_eq!(rest_of(head, body).await.unwrap().text(), "late");
}

#[tokio::test]
async fn uploads_over_http2_arrive_piece_by_piece() {
    let origin = Origin::start().await;
    let (proxy, certificate) = secure(&plain_upstream(&origin)).await;
    let mut client = Http2Client::connect_tls(proxy.address(), "test", &certificate).await;
    let (response, mut sending) = client.send(http2_request("POST", "/", &[]), false).await.unwrap();
    for count in 1..=3 {
        sending.send_data(Bytes::from_static(b"four"), false).unwrap();
        origin
            .request_where(0, "data as soon as it was sent", |request| {
                request.body_length == 4 * count
            })
            .await;
    }
    let trailers = [("x-sum".parse().unwrap(), "12".parse().unwrap())];
    sending.send_trailers(trailers.into_iter().collect()).unwrap();
    let (head, body) = head_of(response).await.unwrap();
    assert_eq!(rest_of(head, body).await.unwrap().status, 200);
    let request = origin.only_request();
    assert_eq!(request.state, RequestState::Complete);
    assert_eq!(request.trailers, [("x-sum".to_owned(), "12".to_owned())]);
}

#[tokio::test]
async fn interim_responses_pass_to_http2() {
    let origin = Origin::builder()
        .on("/early", Reply::ok("final").interim(103, &[("Link", "</a>")]))
        .start()
        .await;
    let (proxy, certificate) = secure(&plain_upstream(&origin)).await;
    let mut client = Http2Client::connect_tls(proxy.address(), "test", &certificate).await;
    let response = client.get("/early").await;
    assert_eq!((response.text(), response.interim.len()), ("final", 1));
    assert_eq!(response.interim[0], (103, vec![("link".to_owned(), "</a>".to_owned())]));
}

#[tokio::test]
async fn a_stream_that_is_reset_cancels_the_upstreams_request() {
    let stream = Stream::new();
    let origin = Origin::builder().on("/events", Reply::events(&stream)).start().await;
    let (proxy, certificate) = secure(&plain_upstream(&origin)).await;
    let mut client = Http2Client::connect_tls(proxy.address(), "test", &certificate).await;
    let (response, mut sending) = client.send(http2_request("GET", "/events", &[]), true).await.unwrap();
    stream.opened(1).await;
    stream.send("data: one\n\n");
    let (head, mut body) = head_of(response).await.unwrap();
    assert_eq!(head.field("content-type"), Some("text/event-stream"));
    let data = within("an event", body.data()).await.unwrap().unwrap();
    assert_eq!(&data[..], b"data: one\n\n");
    sending.send_reset(h2::Reason::CANCEL);
    origin.closed(0).await;
    // The connection itself lives on.
    assert_eq!(client.get("/next").await.status, 200);
}

#[tokio::test]
async fn a_response_that_breaks_off_resets_the_stream() {
    let origin = Origin::builder()
        .on("/short", Reply::ok("short").declared_length(100).close())
        .on(
            "/chunks",
            Reply::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n").close(),
        )
        .start()
        .await;
    let (proxy, certificate) = secure(&plain_upstream(&origin)).await;
    let mut client = Http2Client::connect_tls(proxy.address(), "test", &certificate).await;
    for path in ["/short", "/chunks"] {
        let result = client.request(http2_request("GET", path, &[]), b"").await;
        let whole = matches!(&result, Ok(response) if response.status == 200);
        assert!(!whole, "{path}: {result:?}");
    }
    assert_eq!(client.get("/next").await.status, 200);
}

#[tokio::test]
async fn connection_fields_in_http2_are_refused() {
    let origin = Origin::start().await;
    let (proxy, certificate) = secure(&plain_upstream(&origin)).await;
    let mut client = Http2Client::connect_tls(proxy.address(), "test", &certificate).await;
    for (name, value) in [("host", "other"), ("content-length", "5"), ("te", "gzip")] {
        let result = client.request(http2_request("GET", "/", &[(name, value)]), b"").await;
        let served = matches!(&result, Ok(response) if response.status != 400);
        assert!(!served, "{name}: {result:?}");
    }
    assert_eq!(origin.request_count(), 0);
}

#[tokio::test]
async fn http2_goes_up_over_tls_and_with_prior_knowledge() {
    let certificate = Certificate::for_names(&["app.internal"]);
    let directory = tempfile::tempdir().unwrap();
    let (ca, _) = certificate.write(directory.path(), "ca");
    for encrypted in [true, false] {
        let builder = Origin::builder()
            .http2()
            .on("/t", Reply::chunked(["a", "b"]).trailer("x-sum", "2"));
        let (origin, tls) = match encrypted {
            true => {
                let tls = format!("tls: {{ server_name: app.internal, ca: {} }},", ca.display());
                (builder.tls(&certificate).start().await, tls)
            }
            false => (builder.start().await, String::new()),
        };
        let yaml = format!(
            "listen: 127.0.0.1:0\nupstreams: {{ default: {{ servers: [\"{}\"], {tls} http2: true }} }}\n",
            origin.server()
        );
        let proxy = Proxy::start(&yaml).await;
        let mut client = proxy.client().await;
        let response = client
            .request("POST", "/t", &[("X-A", "b"), ("Cookie", "a=1")], b"body")
            .await;
        assert_eq!((response.status, response.text()), (200, "ab"));
        assert_eq!(response.trailers, [("x-sum".to_owned(), "2".to_owned())]);
        let request = origin.last_request();
        assert_eq!(
            (request.version.as_str(), request.field("host")),
            ("HTTP/2", Some("test"))
        );
        assert_eq!((&request.body[..], request.field("x-a")), (&b"body"[..], Some("b")));
        assert_eq!(client.get("/").await.text(), "hello");
        assert_eq!(origin.connection_count(), 1, "one connection for both");
    }
}

#[tokio::test]
async fn grpc_passes_with_its_trailers() {
    let reply = Reply::chunked([&b"\0\0\0\0\x02ok"[..]])
        .field("content-type", "application/grpc")
        .trailer("grpc-status", "0");
    let origin = Origin::builder().http2().on("/pkg.Service/Method", reply).start().await;
    let upstream = format!(
        "upstreams: {{ app: {{ servers: [\"{}\"], http2: true }} }}\n",
        origin.server()
    );
    let (proxy, certificate) = secure(&upstream).await;
    let mut client = Http2Client::connect_tls(proxy.address(), "test", &certificate).await;
    let fields = [
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("grpc-timeout", "1S"),
    ];
    let request = http2_request("POST", "/pkg.Service/Method", &fields);
    let response = client.request(request, b"\0\0\0\0\x02hi").await.unwrap();
    assert_eq!((response.status, &response.body[..]), (200, &b"\0\0\0\0\x02ok"[..]));
    assert_eq!(response.trailers, [("grpc-status".to_owned(), "0".to_owned())]);
    let request = origin.only_request();
    assert_eq!(
        (request.field("te"), request.field("grpc-timeout")),
        (Some("trailers"), Some("1S"))
    );
}

#[tokio::test]
async fn http2_with_prior_knowledge_is_served_where_it_is_asked_for() {
    let origin = Origin::start().await;
    let yaml = format!(
        "listeners: [{{ address: 127.0.0.1:0, http2: true }}]\n{}",
        plain_upstream(&origin)
    );
    let proxy = Proxy::start(&yaml).await;
    let mut client = Http2Client::connect(proxy.address()).await;
    let request = http::Request::builder().uri("http://test/a").body(()).unwrap();
    assert_eq!(client.request(request, b"").await.unwrap().text(), "hello");
    assert_eq!(proxy.get("/b").await.text(), "hello", "and HTTP/1.1 beside it");
}

#[tokio::test]
async fn curl_speaks_http2() {
    let origin = Origin::start().await;
    let (proxy, _) = secure(&plain_upstream(&origin)).await;
    let result = curl(&["--http2", "--insecure", &format!("https://{}/", proxy.address())]).await;
    assert_eq!(
        (result.exit, result.version.as_str(), result.text()),
        (0, "2", "hello"),
        "{}",
        result.stderr
    );
    let old = curl(&["--http1.1", "--insecure", &format!("https://{}/", proxy.address())]).await;
    assert_eq!(
        (old.exit, old.version.as_str(), old.text()),
        (0, "1.1", "hello"),
        "{}",
        old.stderr
    );
}
