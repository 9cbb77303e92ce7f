//! The metrics listener: how Forebay is, for those who watch it. It stands beside the flow of requests and only reads.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | all metrics in the Prometheus text format |
//! | `/healthz` | 200 for as long as the process can answer at all |
//! | `/readyz` | 200 while requests are welcome; an upstream's death does not change that |
//! | `/readyz?upstreams` | the same, but 503 also while an upstream has no live server |

use std::fmt::{self, Write};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tracing::error;

use crate::metrics::Metrics;
use crate::side_listener::{self, Bounds};

/// A scraper, a load balancer and a few people need a handful of connections, and nobody sends much to ask for metrics.
const BOUNDS: Bounds = Bounds {
    name: "metrics",
    connections: 256,
    head_size: 16 * 1024,
    lifetime: Duration::from_secs(300),
};

/// Whether requests are welcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not all listeners are bound.
    Starting,
    Ready,
    /// The process is about to end: send new requests elsewhere.
    Draining,
}

impl Phase {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The phase that the process is in. It only goes forward.
#[derive(Debug, Default)]
pub struct Readiness(AtomicU8);

impl Readiness {
    pub fn phase(&self) -> Phase {
        match self.0.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::Draining,
        }
    }

    /// Everything is configured and bound.
    pub fn ready(&self) {
        self.0.fetch_max(Phase::Ready as u8, Ordering::AcqRel);
    }

    /// The end has begun.
    pub fn drain(&self) {
        self.0.fetch_max(Phase::Draining as u8, Ordering::AcqRel);
    }
}

/// What `/readyz?upstreams` says of one upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamHealth {
    pub name: Arc<str>,
    /// Servers that would get requests now.
    pub live: usize,
    pub total: usize,
}

/// What the listener reads.
pub struct Status {
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
    upstreams: UpstreamReader,
}

type UpstreamReader = Box<dyn Fn() -> Vec<UpstreamHealth> + Send + Sync>;

impl Status {
    /// `upstreams` is called for each request that asks for them.
    pub fn new(
        metrics: Arc<Metrics>,
        readiness: Arc<Readiness>,
        upstreams: impl Fn() -> Vec<UpstreamHealth> + Send + Sync + 'static,
    ) -> Self {
        Self {
            metrics,
            readiness,
            upstreams: Box::new(upstreams),
        }
    }

    fn respond(&self, method: &Method, path: &str, query: Option<&str>) -> Response<Full<Bytes>> {
        let read: fn(&Self, Option<&str>) -> Response<Full<Bytes>> = match path {
            "/metrics" => |status, _| status.metrics(),
            "/healthz" => |_, _| text(StatusCode::OK, "ok\n"),
            "/readyz" => Self::readyz,
            _ => return text(StatusCode::NOT_FOUND, "not found: try /metrics, /healthz or /readyz\n"),
        };
        match *method {
            // hyper leaves the body of a response to HEAD out.
            Method::GET | Method::HEAD => read(self, query),
            _ => {
                let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
                response
                    .headers_mut()
                    .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
                response
            }
        }
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        match self.metrics.render() {
            Ok(body) => {
                let mut response = text(StatusCode::OK, body);
                let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                response.headers_mut().insert(CONTENT_TYPE, content_type);
                response
            }
            Err(error) => {
                error!(%error, "metrics cannot be rendered");
                text(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "metrics cannot be rendered: see the log\n",
                )
            }
        }
    }

    fn readyz(&self, query: Option<&str>) -> Response<Full<Bytes>> {
        let phase = self.readiness.phase();
        let mut ready = phase == Phase::Ready;
        let mut body = format!("{phase}\n");
        let names = query
            .unwrap_or_default()
            .split('&')
            .map(|pair| pair.split('=').next().unwrap_or_default());
        if names.into_iter().any(|name| name == "upstreams") {
            for upstream in (self.upstreams)() {
                ready &= upstream.live > 0;
                // Writing to memory does not fail.
                let _ = writeln!(
                    body,
                    "upstream {}: {} of {} servers live",
                    upstream.name, upstream.live, upstream.total
                );
            }
        }
        match ready {
            true => text(StatusCode::OK, body),
            false => text(StatusCode::SERVICE_UNAVAILABLE, body),
        }
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Status")
            .field("readiness", &self.readiness)
            .finish_non_exhaustive()
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Answers on `listener` until `shutdown` ends, and then for as long as open responses need, at most two seconds.
pub async fn serve(listener: TcpListener, status: Arc<Status>, shutdown: impl Future<Output = ()>) {
    let respond = move |request: Request<Incoming>| {
        std::future::ready(status.respond(request.method(), request.uri().path(), request.uri().query()))
    };
    side_listener::serve(listener, BOUNDS, respond, shutdown).await;
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::AtomicUsize;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;

    use super::*;

    struct Listening {
        address: SocketAddr,
        metrics: Arc<Metrics>,
        readiness: Arc<Readiness>,
        live: Arc<AtomicUsize>,
        stop: oneshot::Sender<()>,
        done: JoinHandle<()>,
    }

    async fn listening() -> Listening {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let metrics = Metrics::new();
        let readiness = Arc::new(Readiness::default());
        let live = Arc::new(AtomicUsize::new(2));
        let seen = Arc::clone(&live);
        let status = Status::new(Arc::clone(&metrics), Arc::clone(&readiness), move || {
            let live = seen.load(Ordering::Relaxed);
            let health = |name: &str, live| UpstreamHealth {
                name: name.into(),
                live,
                total: 2,
            };
            vec![health("app", live), health("other", 1)]
        });
        let (stop, stopped) = oneshot::channel();
        let done = tokio::spawn(serve(listener, Arc::new(status), async {
            let _ = stopped.await;
        }));
        Listening {
            address,
            metrics,
            readiness,
            live,
            stop,
            done,
        }
    }

    impl Listening {
        /// The whole response, as it came.
        async fn exchange(&self, request_line: &str) -> String {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            let request = format!("{request_line} HTTP/1.1\r\nHost: forebay\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut response = String::new();
            stream.read_to_string(&mut response).await.unwrap();
            response
        }

        async fn status_and_body(&self, request_line: &str) -> (u16, String) {
            let response = self.exchange(request_line).await;
            let (head, body) = response.split_once("\r\n\r\n").unwrap();
            (head[9..12].parse().unwrap(), body.to_owned())
        }
    }

    #[tokio::test]
    async fn paths_and_methods() {
        let listening = listening().await;
        for (request_line, status, body) in [
            ("GET /healthz", 200, "ok\n"),
            ("HEAD /healthz", 200, ""),
            ("GET /healthz?x=1", 200, "ok\n"),
            ("POST /healthz", 405, "method not allowed\n"),
            ("DELETE /metrics", 405, "method not allowed\n"),
            ("GET /metrics/", 404, "not found: try /metrics, /healthz or /readyz\n"),
            ("POST /", 404, "not found: try /metrics, /healthz or /readyz\n"),
        ] {
            assert_eq!(
                listening.status_and_body(request_line).await,
                (status, body.to_owned()),
                "{request_line}"
            );
        }
        assert!(
            listening
                .exchange("POST /metrics")
                .await
                .contains("\r\nallow: GET, HEAD\r\n")
        );
    }

    #[tokio::test]
    async fn metrics_are_in_the_text_format() {
        let listening = listening().await;
        listening
            .metrics
            .route("api")
            .answered(&crate::metrics::Answered::get(Duration::ZERO));
        let response = listening.exchange("GET /metrics").await;
        assert!(
            response.contains("\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\n"),
            "{response}"
        );
        let sample = r#"forebay_http_requests_total{route="api",method="GET",status="200"} 1"#;
        assert!(response.lines().any(|line| line == sample), "{response}");
    }

    #[tokio::test]
    async fn readiness_goes_forward_and_names_its_phase() {
        let listening = listening().await;
        assert_eq!(
            listening.status_and_body("GET /readyz").await,
            (503, "starting\n".to_owned())
        );
        listening.readiness.ready();
        assert_eq!(
            listening.status_and_body("GET /readyz").await,
            (200, "ready\n".to_owned())
        );
        listening.readiness.drain();
        listening.readiness.ready();
        assert_eq!(
            listening.status_and_body("GET /readyz").await,
            (503, "draining\n".to_owned())
        );
        assert_eq!(listening.status_and_body("GET /healthz").await.0, 200);
    }

    #[tokio::test]
    async fn upstreams_count_only_when_asked_for() {
        let listening = listening().await;
        listening.readiness.ready();
        let body = "ready\nupstream app: 2 of 2 servers live\nupstream other: 1 of 2 servers live\n".to_owned();
        assert_eq!(listening.status_and_body("GET /readyz?upstreams").await, (200, body));
        listening.live.store(0, Ordering::Relaxed);
        let (status, body) = listening.status_and_body("GET /readyz?x=1&upstreams=1").await;
        assert_eq!(
            (status, body.contains("upstream app: 0 of 2 servers live\n")),
            (503, true),
            "{body}"
        );
        assert_eq!(
            listening.status_and_body("GET /readyz").await,
            (200, "ready\n".to_owned())
        );
    }

    #[tokio::test]
    async fn an_idle_connection_does_not_delay_the_end() {
        let listening = listening().await;
        let mut idle = TcpStream::connect(listening.address).await.unwrap();
        idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: forebay\r\n\r\n")
            .await
            .unwrap();
        let mut response = [0; 1024];
        let count = idle.read(&mut response).await.unwrap();
        assert!(response[..count].starts_with(b"HTTP/1.1 200 OK\r\n"));
        listening.stop.send(()).unwrap();
        listening.done.await.unwrap();
        let mut rest = Vec::new();
        idle.read_to_end(&mut rest).await.unwrap();
        assert!(TcpStream::connect(listening.address).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn connections_that_say_nothing_make_room() {
        let listening = listening().await;
        let mut silent = Vec::new();
        for _ in 0..BOUNDS.connections {
            silent.push(TcpStream::connect(listening.address).await.unwrap());
        }
        // All places are taken, so this is answered only once one of the others was closed: the first.
        assert_eq!(listening.status_and_body("GET /healthz").await.0, 200);
        let mut silent = silent.into_iter();
        assert_eq!(silent.next().unwrap().read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_asked_may_be_silent_for_longer_than_who_has_not() {
        let listening = listening().await;
        let mut asked = TcpStream::connect(listening.address).await.unwrap();
        asked
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: forebay\r\n\r\n")
            .await
            .unwrap();
        assert!(asked.read(&mut [0; 1024]).await.unwrap() > 0);
        let mut silent = TcpStream::connect(listening.address).await.unwrap();
        let begun = tokio::time::Instant::now();
        assert_eq!(silent.read(&mut [0]).await.unwrap(), 0);
        assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
        assert_eq!(asked.read(&mut [0]).await.unwrap(), 0);
        assert!(begun.elapsed() > Duration::from_secs(25), "{:?}", begun.elapsed());
    }
}
