//! New connections to one server.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::connectors::{ConnectorOptions, TransportConnector};
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::upstreams::peer::{BasicPeer, PeerOptions};
use pingora_core::{Error, ErrorType};
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;

use super::proxy_header;
use super::tls::{self, UpstreamTlsConnector};
use crate::config::{self, ProxyVersion, ServerAddress};
use crate::io::Duplex;
use crate::tls::Alpn;

/// Connects to one server, over TLS if the upstream says so.
pub struct Connector {
    address: ServerAddress,
    tls: Option<UpstreamTlsConnector>,
    timeout: Duration,
    proxy_protocol: Option<ProxyVersion>,
    transport: TransportConnector,
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
            // Idle connections are kept by our own pool, so Pingora's has no room.
            transport: TransportConnector::new(Some(ConnectorOptions::new(0))),
        }
    }

    /// Connection and TLS handshake within the connect timeout. What the server agreed to speak; without TLS it is
    /// whatever the configuration says.
    ///
    /// `client`: for whom, where the server is told.
    pub async fn connect(&self, client: Option<IpAddr>) -> Result<(Box<dyn Duplex>, Option<Alpn>), ConnectError> {
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
    ) -> Result<(Box<dyn Duplex>, Option<Alpn>), ConnectError> {
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
                Ok((Box::new(io), Some(alpn)))
            }
        }
    }

    async fn transport(&self) -> Result<Box<dyn Duplex>, ConnectError> {
        let (host, port) = match &self.address {
            ServerAddress::Unix(path) => return self.dial(unix_address(path)?).await,
            ServerAddress::Tcp { host, port } => (host, *port),
        };
        match host.parse() {
            Ok(ip) => self.dial(SocketAddr::Inet(std::net::SocketAddr::new(ip, port))).await,
            // Names are resolved before they become servers.
            Err(_) => Err(ConnectError::Name(host.clone(), "it is not an address".to_owned())),
        }
    }

    async fn dial(&self, address: SocketAddr) -> Result<Box<dyn Duplex>, ConnectError> {
        let peer = BasicPeer {
            _address: address,
            sni: String::new(),
            options: PeerOptions::new(),
        };
        match self.transport.new_stream(&peer).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(refused_or_unreachable(&error)),
        }
    }
}

fn unix_address(path: &PathBuf) -> Result<SocketAddr, ConnectError> {
    match BasicPeer::new_uds(path) {
        Ok(peer) => Ok(peer._address),
        Err(error) => Err(ConnectError::Unreachable(error.to_string())),
    }
}

fn refused_or_unreachable(error: &Error) -> ConnectError {
    match error.etype() {
        ErrorType::ConnectRefused => ConnectError::Refused,
        _ => ConnectError::Unreachable(error.to_string()),
    }
}
