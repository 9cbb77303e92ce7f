//! A WebSocket client through `tokio-tungstenite`.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::support::within;

pub struct WebSocket(WebSocketStream<TcpStream>);

/// Opens a WebSocket, or says why not.
pub async fn web_socket(address: SocketAddr, target: &str) -> Result<WebSocket, Box<Error>> {
    let stream = within("a connection", TcpStream::connect(address)).await.unwrap();
    let opening = tokio_tungstenite::client_async(format!("ws://test{target}"), stream);
    match within("a WebSocket handshake", opening).await {
        Ok((socket, _)) => Ok(WebSocket(socket)),
        Err(error) => Err(Box::new(error)),
    }
}

impl WebSocket {
    pub async fn send(&mut self, message: impl Into<Message>) {
        within("room for a message", self.0.send(message.into())).await.unwrap();
    }

    /// The next message; `None` at the end.
    pub async fn next(&mut self) -> Option<Message> {
        match within("a WebSocket message", self.0.next()).await {
            Some(Ok(message)) => Some(message),
            Some(Err(_)) | None => None,
        }
    }

    /// The next message, which must be text.
    pub async fn text(&mut self) -> String {
        match self.next().await {
            Some(Message::Text(text)) => text.to_string(),
            other => panic!("not a text message: {other:?}"),
        }
    }

    /// Closes in order and waits for the answer.
    pub async fn close(mut self) {
        within("the closing of a WebSocket", self.0.close(None)).await.unwrap();
        while let Some(Message::Text(_) | Message::Binary(_)) = self.next().await {}
    }
}
