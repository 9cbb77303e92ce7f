//! Addresses are bound before anything else happens, so that a server starts whole or not at all.

use std::io;
use std::net::SocketAddr;
use std::os::fd::IntoRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use pingora_core::server::{Fds, ListenFds};
use socket2::SockRef;

use crate::config::{Config, ListenAddress};

/// Which address cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {error}")]
pub struct BindError {
    pub address: String,
    pub error: io::Error,
}

/// All sockets of a server.
pub struct Bound {
    pub listeners: Vec<BoundListener>,
    pub metrics: Option<(tokio::net::TcpListener, SocketAddr)>,
    pub admin: Option<(tokio::net::TcpListener, SocketAddr)>,
}

/// A socket in the form that Pingora takes over, as it would from the process before it.
pub struct BoundListener {
    /// With the port that the system chose, where 0 was asked for.
    pub address: ListenAddress,
    pub fds: ListenFds,
}

/// Binds what the configuration names.
pub fn all(config: &Config) -> Result<Bound, BindError> {
    let mut listeners = Vec::with_capacity(config.listeners.len());
    for listener in &config.listeners {
        let failed = |error| BindError {
            address: listener.address.to_string(),
            error,
        };
        listeners.push(bind(&listener.address).map_err(failed)?);
    }
    let beside = |address: Option<SocketAddr>| match address {
        None => Ok(None),
        Some(address) => bind_beside(address).map(Some).map_err(|error| BindError {
            address: address.to_string(),
            error,
        }),
    };
    Ok(Bound {
        listeners,
        metrics: beside(config.metrics)?,
        admin: beside(config.admin.as_ref().map(|admin| admin.listen))?,
    })
}

fn bind(address: &ListenAddress) -> io::Result<BoundListener> {
    let (address, fd) = match address {
        ListenAddress::Tcp(address) => {
            let listener = std::net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            // Connections inherit it. What is written is meant to leave: an event of a stream, or the rest of a response, would wait for
            // the client to confirm what came before, which it puts off for up to 40 ms.
            SockRef::from(&listener).set_tcp_nodelay(true)?;
            (ListenAddress::Tcp(listener.local_addr()?), listener.into_raw_fd())
        }
        ListenAddress::Unix(path) => {
            remove_stale(path)?;
            let listener = UnixListener::bind(path)?;
            listener.set_nonblocking(true)?;
            (address.clone(), listener.into_raw_fd())
        }
    };
    let name = match &address {
        ListenAddress::Tcp(address) => address.to_string(),
        ListenAddress::Unix(path) => path.display().to_string(),
    };
    let mut fds = Fds::new();
    fds.add(name, fd);
    Ok(BoundListener {
        address,
        fds: Arc::new(Mutex::new(fds)),
    })
}

/// A socket file that nobody listens on is left over from a process that was killed.
fn remove_stale(path: &Path) -> io::Result<()> {
    match UnixStream::connect(path) {
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// For a listener that stands beside the flow of requests.
fn bind_beside(address: SocketAddr) -> io::Result<(tokio::net::TcpListener, SocketAddr)> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((tokio::net::TcpListener::from_std(listener)?, address))
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::os::fd::FromRawFd;

    use super::*;

    #[test]
    #[allow(unsafe_code)]
    fn what_is_written_to_a_client_leaves_at_once() {
        let bound = bind(&ListenAddress::Tcp("127.0.0.1:0".parse().unwrap())).unwrap();
        let ListenAddress::Tcp(address) = bound.address else {
            panic!()
        };
        let fd = *bound.fds.lock().get(&address.to_string()).unwrap();
        // SAFETY: nobody else has it.
        let listener = unsafe { std::net::TcpListener::from_raw_fd(fd) };
        listener.set_nonblocking(false).unwrap();
        let _client = TcpStream::connect(address).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert!(accepted.nodelay().unwrap());
    }
}
