//! An HTTP/2 client through the `h2` crate, with frames' worth of control.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::http1::{Io, Response, tls};
use crate::support::certificate::{Certificate, client_config};
use crate::support::within;

/// One connection.
pub struct Http2Client {
    sender: SendRequest<Bytes>,
    driving: JoinHandle<()>,
}

impl Http2Client {
    /// Over TLS, where ALPN must come to `h2`.
    pub async fn connect_tls(address: SocketAddr, server_name: &str, trusted: &Certificate) -> Self {
        let config = client_config(&[trusted], &["h2", "http/1.1"], rustls::ALL_VERSIONS);
        let stream = tls(address, server_name, config).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]), "ALPN");
        Self::over(stream).await
    }

    /// Without TLS, with prior knowledge.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = within("a connection", TcpStream::connect(address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream).await
    }

    async fn over(stream: impl Io + 'static) -> Self {
        let (sender, connection) = within("an HTTP/2 handshake", h2::client::handshake(stream))
            .await
            .unwrap();
        let driving = tokio::spawn(async move {
            // Its failure shows in the requests.
            let _ = connection.await;
        });
        Self { sender, driving }
    }

    /// `http://test` or `https://test` before the target, without a body.
    pub async fn get(&mut self, target: &str) -> Response {
        self.request(request("GET", target, &[]), b"").await.unwrap()
    }

    /// Sends all and reads all.
    pub async fn request(&mut self, request: Request<()>, body: &'static [u8]) -> Result<Response, h2::Error> {
        let (response, mut sending) = self.send(request, body.is_empty()).await?;
        if !body.is_empty() {
            sending.send_data(Bytes::from_static(body), true)?;
        }
        let (head, body) = head_of(response).await?;
        rest_of(head, body).await
    }

    /// Sends the head; `end` closes our side of the stream with it.
    pub async fn send(
        &mut self,
        request: Request<()>,
        end: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let mut ready = within("room for an HTTP/2 stream", self.sender.clone().ready()).await?;
        ready.send_request(request, end)
    }

    /// Waits until the connection is at its end.
    pub async fn closed(&mut self) {
        within("the end of an HTTP/2 connection", &mut self.driving)
            .await
            .unwrap();
    }
}

impl Drop for Http2Client {
    fn drop(&mut self) {
        self.driving.abort();
    }
}

/// A request to the authority `test`, by `https`.
pub fn request(method: &str, target: &str, fields: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder().method(method).uri(format!("https://test{target}"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

/// The response's head, with the interim ones before it.
pub async fn head_of(mut response: ResponseFuture) -> Result<(Response, RecvStream), h2::Error> {
    let mut interim = Vec::new();
    within("the head of an HTTP/2 response", async {
        while let Some(Ok(early)) = std::future::poll_fn(|context| response.poll_informational(context)).await {
            interim.push((early.status().as_u16(), pairs(early.headers())));
        }
        let (head, body) = response.await?.into_parts();
        let head = Response {
            status: head.status.as_u16(),
            fields: pairs(&head.headers),
            interim,
            ..Response::default()
        };
        Ok((head, body))
    })
    .await
}

/// The body and trailers of a response whose head has been read.
pub async fn rest_of(mut response: Response, mut body: RecvStream) -> Result<Response, h2::Error> {
    within("the body of an HTTP/2 response", async {
        while let Some(data) = body.data().await {
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
            response.body.extend_from_slice(&data);
        }
        response.trailers = pairs(&body.trailers().await?.unwrap_or_default());
        Ok(response)
    })
    .await
}

fn pairs(map: &HeaderMap) -> Vec<(String, String)> {
    map.iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect()
}
