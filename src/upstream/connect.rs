//! New connections to one server.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;

use super::tls::{self, UpstreamTlsConnector};
use super::{Transport, proxy_header};
use crate::config::{self, ProxyVersion, ServerAddress};
use crate::io::tcp::Tcp;
use crate::tls::Alpn;

/// Connects to one server, over TLS if the upstream says so.
pub struct Connector {
    address: ServerAddress,
    tls: Option<UpstreamTlsConnector>,
    timeout: Duration,
    proxy_protocol: Option<ProxyVersion>,
}

/// Why there is no connection. None of these has let the server see anything of the request.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("no server is left to try")]
    NoServer,
    #[error("every server has as many requests as it may, and too many wait")]
    QueueFull,
    #[error("every server has as many requests as it may, and none had room within {0:?}")]
    QueueTimeout(Duration),
    #[error("the name {0:?} cannot be resolved: {1}")]
    Name(String, String),
    #[error("connection refused")]
    Refused,
    #[error("no connection within {0:?}")]
    Timeout(Duration),
    #[error("{0}")]
    Unreachable(String),
    #[error("TLS: {0}")]
    Tls(#[from] tls::ConnectError),
    #[error("HTTP/2: {0}")]
    Http2(h2::Error),
    /// The connection that this request waited for could not be opened.
    #[error(transparent)]
    Shared(Arc<ConnectError>),
}

impl Connector {
    pub fn new(address: &ServerAddress, upstream: &config::Upstream, tls: Option<UpstreamTlsConnector>) -> Self {
        Self {
            address: address.clone(),
            tls,
            timeout: upstream.timeouts.connect,
            proxy_protocol: upstream.proxy_protocol,
        }
    }

    /// Connection and TLS handshake within the connect timeout. What the server agreed to speak; without TLS it is
    /// whatever the configuration says.
    ///
    /// `client`: for whom, where the server is told.
    pub async fn connect(&self, client: Option<IpAddr>) -> Result<(Transport, Option<Alpn>), ConnectError> {
        let deadline = Instant::now() + self.timeout;
        // Boxed, because most requests find a connection and should not carry room for making one.
        match tokio::time::timeout_at(deadline, Box::pin(self.establish(client, deadline))).await {
            Ok(result) => result,
            Err(_) => Err(ConnectError::Timeout(self.timeout)),
        }
    }

    async fn establish(
        &self,
        client: Option<IpAddr>,
        deadline: Instant,
    ) -> Result<(Transport, Option<Alpn>), ConnectError> {
        let mut io = self.transport().await?;
        if let Some(version) = self.proxy_protocol {
            // Before TLS: it is for whoever ends the connection.
            let header = proxy_header::header(version, client, &self.address);
            let written = io.write_all(&header).await;
            written.map_err(|error| ConnectError::Unreachable(error.to_string()))?;
        }
        match &self.tls {
            None => Ok((io, None)),
            Some(tls) => {
                let (io, alpn) = tls.connect(io, deadline).await?;
                Ok((Transport::over(io), Some(alpn)))
            }
        }
    }

    async fn transport(&self) -> Result<Transport, ConnectError> {
        let (host, port) = match &self.address {
            ServerAddress::Unix(path) => {
                let stream = UnixStream::connect(path).await;
                return Ok(Transport::over(stream.map_err(refused_or_unreachable)?));
            }
            ServerAddress::Tcp { host, port } => (host, *port),
        };
        // Names are resolved before they become servers.
        let Ok(ip) = host.parse::<IpAddr>() else {
            return Err(ConnectError::Name(host.clone(), "it is not an address".to_owned()));
        };
        let connected = TcpStream::connect(SocketAddr::new(ip, port)).await;
        let stream = connected.map_err(refused_or_unreachable)?;
        // What is written is whole: nothing is won by waiting for more.
        stream.set_nodelay(true).map_err(refused_or_unreachable)?;
        Ok(Transport::Tcp(Tcp::new(stream)))
    }
}

fn refused_or_unreachable(error: io::Error) -> ConnectError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ConnectError::Refused,
        _ => ConnectError::Unreachable(error.to_string()),
    }
}
