//! TLS towards an upstream's servers.
//!
//! A connector of our own over rustls: the lowest version is a matter of the handshake and not of a look afterwards,
//! every upstream has its own authorities, and there is no way to leave the server's name, and with it verification, out.

mod insecure;

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub(crate) use self::insecure::NoVerification;
use crate::config::{Certificate, UpstreamTls, Verify};
use crate::tls::{
    Alpn, FileProblem, TlsConfigError, certificates, private_key, provider, read_pem_file, versions_from,
};

/// Server names whose sessions are remembered. A connector has one name; rustls divides by eight, the tickets of a name.
const REMEMBERED_SESSIONS: usize = 8;

/// Why no TLS connection to a server came about. One case for each word of RFC 9209 §2.3 that says it.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// `tls_certificate_error`: expired, for another name, by an unknown authority.
    #[error("the server's certificate is refused: {0}")]
    Certificate(CertificateError),
    /// `tls_alert_received`: the server refuses us.
    #[error("the server refuses the TLS handshake: {0:?}")]
    Alert(AlertDescription),
    /// `tls_protocol_error`: no common version, or no TLS at all.
    #[error("the TLS handshake failed: {0}")]
    Protocol(rustls::Error),
    /// `connection_timeout`.
    #[error("the TLS handshake was not over in time")]
    Timeout,
    /// `connection_terminated`.
    #[error("the server closed the connection during the TLS handshake")]
    Closed,
    /// `connection_terminated`.
    #[error("the connection failed during the TLS handshake: {0}")]
    Io(io::Error),
}

/// Makes TLS connections to the servers of one upstream.
#[derive(Clone)]
pub struct UpstreamTlsConnector {
    connector: TlsConnector,
    server_name: ServerName<'static>,
}

impl UpstreamTlsConnector {
    /// Reads the authorities: those of the file, or the system's.
    pub fn new(tls: &UpstreamTls, highest: Alpn) -> Result<Self, TlsConfigError> {
        // An empty name is none.
        let server_name = match ServerName::try_from(tls.server_name.clone()) {
            Ok(name) => name,
            Err(_) => return Err(TlsConfigError::ServerName(tls.server_name.clone())),
        };
        let provider = provider();
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions_from(tls.min_version))?;
        let builder = match tls.verify {
            Verify::Certificate => builder.with_root_certificates(authorities(tls.ca.as_deref())?),
            Verify::Nothing => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(NoVerification::new(provider))),
        };
        let mut config = match &tls.certificate {
            None => builder.with_no_client_auth(),
            Some(files) => {
                let (chain, key) = identity(files)?;
                builder.with_client_auth_cert(chain, key)?
            }
        };
        config.alpn_protocols = highest.offer();
        config.resumption = Resumption::in_memory_sessions(REMEMBERED_SESSIONS);
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            server_name,
        })
    }

    /// Makes the handshake on a connection to one of the servers, until `deadline`.
    pub async fn connect<IO>(&self, io: IO, deadline: Instant) -> Result<(TlsStream<IO>, Alpn), ConnectError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        // Boxed, so that an exchange does not keep room for a handshake all its life.
        let handshake = Box::pin(self.connector.connect(self.server_name.clone(), io));
        match timeout_at(deadline, handshake).await {
            Ok(Ok(stream)) => {
                let alpn = Alpn::agreed(stream.get_ref().1.alpn_protocol());
                Ok((stream, alpn))
            }
            Ok(Err(error)) => Err(connect_error(error)),
            Err(_) => Err(ConnectError::Timeout),
        }
    }
}

/// What we show to servers that ask.
fn identity(files: &Certificate) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsConfigError> {
    let (pem, _) = read_pem_file(&files.cert).map_err(|problem| problem.in_file(&files.cert))?;
    let chain = certificates(&pem).map_err(|problem| problem.in_file(&files.cert))?;
    let (pem, _) = read_pem_file(&files.key).map_err(|problem| problem.in_file(&files.key))?;
    let key = private_key(&pem).map_err(|problem| problem.in_file(&files.key))?;
    Ok((chain, key))
}

pub(crate) fn authorities(ca: Option<&Path>) -> Result<RootCertStore, TlsConfigError> {
    let mut store = RootCertStore::empty();
    let Some(path) = ca else {
        let found = rustls_native_certs::load_native_certs()
            .map_err(|error| TlsConfigError::SystemAuthorities(error.to_string()))?;
        // Some systems ship certificates that cannot be used; the others can.
        store.add_parsable_certificates(found);
        return match store.is_empty() {
            true => Err(TlsConfigError::SystemAuthorities("none was found".to_owned())),
            false => Ok(store),
        };
    };
    let in_file = |problem: FileProblem| problem.in_file(path);
    let (pem, _) = read_pem_file(path).map_err(in_file)?;
    for certificate in certificates(&pem).map_err(in_file)? {
        store
            .add(certificate)
            .map_err(|error| in_file(FileProblem::Certificate(error.to_string())))?;
    }
    Ok(store)
}

fn connect_error(error: io::Error) -> ConnectError {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return ConnectError::Closed;
    }
    match error.downcast::<rustls::Error>() {
        Ok(rustls::Error::InvalidCertificate(error)) => ConnectError::Certificate(error),
        Ok(rustls::Error::AlertReceived(alert)) => ConnectError::Alert(alert),
        Ok(error) => ConnectError::Protocol(error),
        Err(error) => ConnectError::Io(error),
    }
}

#[cfg(test)]
mod tests;
