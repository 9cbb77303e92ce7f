//! The application that `forebay demo` puts behind Forebay: a little of everything that real ones have.
//!
//! It knows nothing of Forebay. Each answer carries the fields that a careful application would send, and what a cache may do
//! with it follows from them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, Stream, StreamExt};
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, COOKIE, ETAG, IF_NONE_MATCH, UPGRADE, VARY};
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// How long the slow page takes: long enough to notice that the second time it does not.
const SLOW_PAGE: Duration = Duration::from_secs(2);

/// Between two tokens of a chat answer: about as fast as a language model speaks.
const TOKEN_INTERVAL: Duration = Duration::from_millis(120);

/// Bytes of a chat request; the demo reads it to find the last message.
const CHAT_REQUEST_LIMIT: usize = 64 * 1024;

/// After an error of `accept` (no file descriptors left, mostly) there is no use in trying again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const ITEMS: [(&str, &str); 3] = [("1", "penstock"), ("2", "spillway"), ("3", "turbine")];

const ASSET: &str = "document.title = 'Forebay demo';\n";

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Serves the application until the task is dropped.
pub async fn serve(listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(connection(stream));
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// The configuration of the Forebay in front: the application's streams and nothing else that its own fields do not say. Its metrics
/// take a free port, so that a demo runs beside whatever else does.
pub fn config(listen: SocketAddr, upstream: SocketAddr) -> String {
    format!(
        "listen: {listen}
upstream: http://{upstream}
metrics: {{ listen: 127.0.0.1:0 }}
routes:
  - name: chat
    match: {{ path_prefix: /api/chat/completions, methods: [POST] }}
    upstream: default
    cache: false
    stream: {{ first_event: 60s, heartbeat: 15s }}
"
    )
}

/// Commands worth trying against `base` (`http://127.0.0.1:8080`), each with what it shows.
pub fn curl_lines(base: &str) -> String {
    let chat = r#"'{"messages":[{"role":"user","content":"What is a forebay?"}]}'"#;
    let tries = [
        (
            format!("curl -i {base}/api/items"),
            "fetched once, then `Cache-Status: ...; hit` for 5 s, however many ask",
        ),
        (
            format!("time curl {base}/slow"),
            "2 s the first time, nothing for the next 30 s",
        ),
        (
            format!("curl -i {base}/me -H 'Cookie: user=ada'"),
            "private: another one for each user, never kept",
        ),
        (
            format!("curl -i {base}/assets/app.js"),
            "kept for a year, as the application says",
        ),
        (
            format!("curl -N {base}/api/chat/completions -d {chat}"),
            "an answer token by token, each passed on as it comes",
        ),
        (
            format!("curl -i {base}/error"),
            "the application's own error, untouched and not kept",
        ),
        (
            format!("curl -i {base}/ -H 'Content-Length: 0' -H 'Transfer-Encoding: chunked'"),
            "400: two lengths are one too many, and the application sees none of it",
        ),
    ];
    let mut text = String::new();
    for (command, outcome) in tries {
        text.push_str(&format!("  {command}\n      # {outcome}\n"));
    }
    text.push_str(&format!(
        "  A WebSocket that sends everything back is at {}/ws\n",
        base.replacen("http", "ws", 1)
    ));
    text
}

async fn connection(stream: TcpStream) {
    // An error is a client that went away, which is its own business.
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service_fn(answer))
        .with_upgrades()
        .await;
}

async fn answer(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    let read = matches!(*request.method(), Method::GET | Method::HEAD);
    Ok(match path.as_str() {
        "/api/chat/completions" if request.method() == Method::POST => chat(request).await,
        _ if !read => text(StatusCode::METHOD_NOT_ALLOWED, "The demo only reads.\n"),
        "/" => index(),
        "/api/items" => items(request.headers()),
        "/slow" => slow().await,
        "/me" => me(request.headers()),
        "/assets/app.js" => asset(),
        "/ws" => web_socket(request),
        "/error" => json(
            StatusCode::INTERNAL_SERVER_ERROR,
            &json!({ "error": "the demo fails when it is asked to" }),
        ),
        _ => match path.strip_prefix("/api/items/") {
            Some(id) => item(id),
            None => text(StatusCode::NOT_FOUND, "There is no such page in the demo.\n"),
        },
    })
}

fn index() -> Response<Body> {
    let paths = "/api/items\n/api/items/1\n/slow\n/me\n/assets/app.js\n/api/chat/completions\n/ws\n/error\n";
    with(text(StatusCode::OK, paths), &[(CACHE_CONTROL, "max-age=60")])
}

/// A list that changes now and then: fresh for a moment, and cheap to ask for again.
fn items(request: &HeaderMap) -> Response<Body> {
    const VERSION: &str = "\"items-1\"";
    let validators = [(CACHE_CONTROL, "max-age=5"), (ETAG, VERSION)];
    if request.get(IF_NONE_MATCH).is_some_and(|tags| tags == VERSION) {
        return with(respond(StatusCode::NOT_MODIFIED, Bytes::new()), &validators);
    }
    let items: Vec<Value> = ITEMS
        .iter()
        .map(|(id, name)| json!({ "id": id, "name": name }))
        .collect();
    with(json(StatusCode::OK, &json!({ "items": items })), &validators)
}

fn item(id: &str) -> Response<Body> {
    match ITEMS.iter().find(|(known, _)| *known == id) {
        Some((id, name)) => with(
            json(StatusCode::OK, &json!({ "id": id, "name": name })),
            &[(CACHE_CONTROL, "max-age=60")],
        ),
        None => json(StatusCode::NOT_FOUND, &json!({ "error": "there is no such item" })),
    }
}

async fn slow() -> Response<Body> {
    tokio::time::sleep(SLOW_PAGE).await;
    with(
        text(StatusCode::OK, "This page took its time.\n"),
        &[(CACHE_CONTROL, "max-age=30")],
    )
}

/// A page of one user alone.
fn me(request: &HeaderMap) -> Response<Body> {
    let user = request
        .get_all(COOKIE)
        .iter()
        .filter_map(|cookies| cookies.to_str().ok())
        .flat_map(|cookies| cookies.split(';'))
        .find_map(|cookie| cookie.trim().strip_prefix("user="));
    match user {
        Some(user) => with(
            json(StatusCode::OK, &json!({ "user": user })),
            &[(CACHE_CONTROL, "private, max-age=60"), (VARY, "Cookie")],
        ),
        None => json(
            StatusCode::UNAUTHORIZED,
            &json!({ "error": "say who you are: Cookie: user=<name>" }),
        ),
    }
}

fn asset() -> Response<Body> {
    with(
        respond(StatusCode::OK, ASSET),
        &[
            (CONTENT_TYPE, "text/javascript; charset=utf-8"),
            (CACHE_CONTROL, "public, max-age=31536000, immutable"),
        ],
    )
}

/// An answer in the manner of chat APIs: one event for each token, then `[DONE]`.
async fn chat(request: Request<Incoming>) -> Response<Body> {
    let Ok(body) = Limited::new(request.into_body(), CHAT_REQUEST_LIMIT).collect().await else {
        return json(
            StatusCode::PAYLOAD_TOO_LARGE,
            &json!({ "error": "the question is too long" }),
        );
    };
    // `curl -d` is enough to ask: whatever is not a chat request is taken as an empty question.
    let question: Value = serde_json::from_slice(&body.to_bytes()).unwrap_or_default();
    let words = question["messages"]
        .as_array()
        .and_then(|messages| messages.last())
        .and_then(|message| message["content"].as_str())
        .map_or(0, |content| content.split_whitespace().count());
    let answer = format!(
        "You asked in {words} words. A forebay is the pool of water in front of a power plant: it takes the rush, \
         so that the plant runs evenly."
    );
    let events = tokens(answer).map(|event| Ok(Frame::data(Bytes::from(event))));
    let mut response = Response::new(BodyExt::boxed_unsync(StreamBody::new(events)));
    put(
        response.headers_mut(),
        &[(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-cache")],
    );
    response
}

/// The events of an answer, one for each word, [`TOKEN_INTERVAL`] apart.
fn tokens(answer: String) -> impl Stream<Item = String> {
    let words: Vec<String> = answer.split_inclusive(' ').map(str::to_owned).collect();
    let chunks = words
        .into_iter()
        .map(|word| chunk(&json!({ "content": word }), None))
        .chain([chunk(&json!({}), Some("stop")), "data: [DONE]\n\n".to_owned()]);
    futures_util::stream::iter(chunks).then(|event| async {
        tokio::time::sleep(TOKEN_INTERVAL).await;
        event
    })
}

fn chunk(delta: &Value, finish_reason: Option<&str>) -> String {
    let chunk = json!({
        "id": "chatcmpl-demo",
        "object": "chat.completion.chunk",
        "model": "demo",
        "choices": [{ "index": 0, "delta": delta, "finish_reason": finish_reason }],
    });
    format!("data: {chunk}\n\n")
}

/// Sends every message back.
fn web_socket(mut request: Request<Incoming>) -> Response<Body> {
    let Some(key) = request.headers().get("sec-websocket-key") else {
        return text(StatusCode::UPGRADE_REQUIRED, "This page speaks WebSocket.\n");
    };
    let accept = derive_accept_key(key.as_bytes());
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(stream) = upgrade.await else { return };
        let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(stream), Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
                return;
            }
        }
    });
    with(
        respond(StatusCode::SWITCHING_PROTOCOLS, Bytes::new()),
        &[
            (CONNECTION, "upgrade"),
            (UPGRADE, "websocket"),
            (HeaderName::from_static("sec-websocket-accept"), &accept),
        ],
    )
}

fn text(status: StatusCode, body: &'static str) -> Response<Body> {
    with(respond(status, body), &[(CONTENT_TYPE, "text/plain; charset=utf-8")])
}

fn json(status: StatusCode, value: &Value) -> Response<Body> {
    with(
        respond(status, format!("{value}\n")),
        &[(CONTENT_TYPE, "application/json")],
    )
}

fn respond(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(BodyExt::boxed_unsync(Full::new(body.into())));
    *response.status_mut() = status;
    response
}

fn with(mut response: Response<Body>, fields: &[(HeaderName, &str)]) -> Response<Body> {
    put(response.headers_mut(), fields);
    response
}

fn put(map: &mut HeaderMap, fields: &[(HeaderName, &str)]) {
    for (name, value) in fields {
        // All values are the demo's own, so none is refused.
        if let Ok(value) = value.parse() {
            map.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// The whole answer to one request, as text.
    async fn ask(request: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(serve(listener));
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("{request}\r\nHost: demo\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        serving.abort();
        answer
    }

    #[tokio::test]
    async fn every_page_says_who_may_keep_it() {
        let table = [
            ("GET / HTTP/1.1", "200", "cache-control: max-age=60"),
            ("GET /api/items HTTP/1.1", "200", "etag: \"items-1\""),
            (
                "GET /api/items HTTP/1.1\r\nIf-None-Match: \"items-1\"",
                "304",
                "cache-control: max-age=5",
            ),
            ("GET /api/items/2 HTTP/1.1", "200", "spillway"),
            ("GET /api/items/9 HTTP/1.1", "404", "no such item"),
            (
                "GET /me HTTP/1.1\r\nCookie: a=b; user=ada",
                "200",
                "cache-control: private",
            ),
            ("GET /me HTTP/1.1", "401", "user=<name>"),
            ("GET /assets/app.js HTTP/1.1", "200", "immutable"),
            ("GET /error HTTP/1.1", "500", "error"),
            ("GET /ws HTTP/1.1", "426", "WebSocket"),
            ("GET /nowhere HTTP/1.1", "404", "no such page"),
            ("DELETE /api/items/1 HTTP/1.1", "405", "only reads"),
        ];
        for (request, status, part) in table {
            let answer = ask(request).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
            assert!(answer.contains(part), "{request}: {answer}");
        }
    }

    #[tokio::test]
    async fn chat_speaks_in_events_and_says_when_it_is_done() {
        tokio::time::pause();
        let events: Vec<String> = tokens("one two".to_owned()).collect().await;
        let spoken: Vec<Value> = events
            .iter()
            .filter_map(|event| serde_json::from_str(event.strip_prefix("data: ")?.trim_end()).ok())
            .collect();
        assert_eq!(spoken[0]["choices"][0]["delta"]["content"], "one ");
        assert_eq!(spoken[1]["choices"][0]["delta"]["content"], "two");
        assert_eq!(spoken[2]["choices"][0]["finish_reason"], "stop");
        assert_eq!(events.last().unwrap(), "data: [DONE]\n\n");
    }

    #[test]
    fn curl_lines_name_the_base_and_fit_a_screen() {
        let lines = curl_lines("http://127.0.0.1:8080");
        assert!(lines.contains("ws://127.0.0.1:8080/ws"));
        for line in lines.lines() {
            assert!(line.chars().count() <= 120, "{line}");
        }
    }
}
