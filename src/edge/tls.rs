//! TLS towards clients: certificates chosen by name and taken up anew when their files change.
//!
//! The acceptor stands on the plain connection, behind a PROXY protocol header if there is one, and has its own deadline.

mod certificates;
mod stream;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rustls::ServerConfig;
use rustls::crypto::ring::Ticketer;
use rustls::server::ServerSessionMemoryCache;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use crate::config::ListenerTls;
use crate::tls::{Alpn, TlsConfigError, provider, versions_from};

use self::certificates::Certificates;
pub use self::stream::{ClientStream, Rewound, TlsInfo};

/// From the accepted connection to the end of the handshake. The same 10 s that a request's head gets: a client with a
/// lossy line needs a few round trips and retransmissions, one that is silent holds a connection for nothing.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// TLS 1.2 sessions remembered for clients that know no tickets. All others bring their own session in a ticket, so few
/// are ever used; one takes some 200 bytes.
const SESSION_CACHE: usize = 1024;

/// Room for a ClientHello (RFC 8446 §4.1.2): with a post-quantum key share it has some 1.8 KB.
const FIRST_READ: usize = 2048;

/// The content type of a TLS record that carries a handshake, which every connection begins with (RFC 8446 §5.1).
const HANDSHAKE_RECORD: u8 = 22;

/// How long the answer to a plain request may be on its way, and the client may go on sending meanwhile. Closing earlier
/// could reset the connection before the answer is read (RFC 9112 §9.6).
const LINGER: Duration = Duration::from_secs(1);

/// What is read and thrown away meanwhile, bytes.
const LINGER_LIMIT: u64 = 64 * 1024;

/// For a client that speaks plain HTTP where TLS is expected.
const PLAIN_HTTP_ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    Content-Type: text/plain\r\n\
    Content-Length: 58\r\n\
    Connection: close\r\n\
    \r\n\
    This port expects HTTPS, and the request was plain HTTP.\r\n";

/// Why a client's TLS connection did not come about.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    #[error("TLS: the handshake was not over in time")]
    Timeout,
    #[error("TLS: the client closed the connection before the end of the handshake")]
    Closed,
    #[error("TLS: the client sent a plain HTTP request")]
    PlainHttp,
    #[error("TLS: the client does not speak TLS")]
    NotTls,
    #[error("TLS: {0}")]
    Handshake(#[from] rustls::Error),
    #[error("TLS: {0}")]
    Io(io::Error),
}

/// What became of certificates whose files had changed.
#[derive(Debug, Default)]
pub struct Reload {
    /// Certificate files that are in force now.
    pub taken_up: Vec<PathBuf>,
    /// Pairs that are not usable; what was in force before still is. Told once for each change of the files.
    pub errors: Vec<TlsConfigError>,
}

/// Makes TLS connections of one listener's plain ones.
#[derive(Debug)]
pub struct TlsAcceptor {
    config: Arc<ServerConfig>,
    certificates: Arc<Certificates>,
}

impl TlsAcceptor {
    /// Reads all certificates and keys. The error holds everything that is wrong, not only the first.
    pub fn new(tls: &ListenerTls, highest: Alpn) -> Result<Self, Vec<TlsConfigError>> {
        let certificates = Arc::new(Certificates::load(&tls.certificates)?);
        let config = server_config(tls, highest, Arc::clone(&certificates)).map_err(|error| vec![error.into()])?;
        Ok(Self {
            config: Arc::new(config),
            certificates,
        })
    }

    /// Takes up certificates whose files are not what they were. Looks at files: for a thread that may block.
    pub fn reload_if_changed(&self) -> Reload {
        self.certificates.reload_if_changed()
    }

    /// Makes the handshake, until `deadline`.
    ///
    /// A client that sends a plain HTTP request gets a 400 in clear text.
    pub async fn accept<IO>(&self, mut io: Rewound<IO>, deadline: Instant) -> Result<ClientStream<IO>, AcceptError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let mut first = BytesMut::with_capacity(FIRST_READ);
        match timeout_at(deadline, io.read_buf(&mut first)).await {
            Err(_) => return Err(AcceptError::Timeout),
            Ok(Err(error)) => return Err(AcceptError::Io(error)),
            Ok(Ok(_)) => {}
        }
        match first.first() {
            None => Err(AcceptError::Closed),
            Some(&HANDSHAKE_RECORD) => {
                io.rewind(first.freeze());
                // Boxed, so that a connection's task does not keep room for a handshake all its life.
                Box::pin(self.handshake(io, deadline)).await
            }
            // No method begins otherwise in practice, and nothing of TLS begins so.
            Some(b'A'..=b'Z') => {
                // The client is told if it can be told; the connection is over either way.
                let _ = timeout(LINGER, answer_plain_http(io)).await;
                Err(AcceptError::PlainHttp)
            }
            Some(_) => Err(AcceptError::NotTls),
        }
    }

    async fn handshake<IO>(&self, io: Rewound<IO>, deadline: Instant) -> Result<ClientStream<IO>, AcceptError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::clone(&self.config));
        match timeout_at(deadline, acceptor.accept(io)).await {
            Ok(Ok(stream)) => Ok(ClientStream::Tls(Box::new(stream))),
            Ok(Err(error)) => Err(accept_error(error)),
            Err(_) => Err(AcceptError::Timeout),
        }
    }
}

fn server_config(tls: &ListenerTls, highest: Alpn, names: Arc<Certificates>) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions_from(tls.min_version))?
        .with_no_client_auth()
        .with_cert_resolver(names);
    config.alpn_protocols = highest.offer();
    config.ticketer = Ticketer::new()?;
    config.session_storage = ServerSessionMemoryCache::new(SESSION_CACHE);
    Ok(config)
}

async fn answer_plain_http<IO>(mut io: IO) -> io::Result<()>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    io.write_all(PLAIN_HTTP_ANSWER).await?;
    io.shutdown().await?;
    tokio::io::copy(&mut io.take(LINGER_LIMIT), &mut tokio::io::sink()).await?;
    Ok(())
}

fn accept_error(error: io::Error) -> AcceptError {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return AcceptError::Closed;
    }
    match error.downcast::<rustls::Error>() {
        Ok(error) => AcceptError::Handshake(error),
        Err(error) => AcceptError::Io(error),
    }
}

#[cfg(test)]
mod tests;
