//! The connection under HTTP/1.
//!
//! What Pingora accepts comes behind a pointer, through buffers that are switched off here, and with the time taken of every read and
//! write. A connection that is going to carry more than one request is worth a system call or two to have it plain.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pingora_core::protocols::Stream;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::io::Duplex;

/// A client's connection.
pub enum Socket {
    /// As it was accepted, from a TCP socket.
    Accepted(Stream),
    Tcp(TcpStream),
    /// TLS, a Unix socket, or what has begun with something else than HTTP. The descriptor is that of the socket underneath.
    Over(Box<dyn Duplex>, RawFd),
}

impl Socket {
    /// To be called when the connection has come to its second request, and nothing of it is being read or written.
    pub fn settle(&mut self) {
        if let Self::Accepted(stream) = self {
            // If there is no descriptor to be had, it does as it is.
            let settled = descriptor(stream, stream.id())
                .try_clone_to_owned()
                .and_then(|owned| TcpStream::from_std(owned.into()));
            if let Ok(settled) = settled {
                *self = Self::Tcp(settled);
            }
        }
    }

    /// Makes closing the connection a reset: the only way to tell its peer that a body which ends with the connection is not whole.
    pub fn reset_on_close(&self) {
        let socket = match self {
            Self::Accepted(stream) => descriptor(self, stream.id()),
            Self::Tcp(stream) => stream.as_fd(),
            Self::Over(_, fd) => descriptor(self, *fd),
        };
        // If the option cannot be set, the connection is gone already.
        let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
    }
}

/// The descriptor of what is borrowed.
#[allow(unsafe_code)]
fn descriptor<T>(_borrowed: &T, fd: RawFd) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open for as long as the connection that it is of.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// Does the same with whatever is there.
macro_rules! each {
    ($self:expr, $io:ident => $body:expr) => {
        match $self {
            Socket::Tcp($io) => $body,
            Socket::Accepted($io) => $body,
            Socket::Over($io, _) => $body,
        }
    };
}

impl AsyncRead for Socket {
    #[inline]
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), io => Pin::new(io).poll_read(cx, buf))
    }
}

impl AsyncWrite for Socket {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), io => Pin::new(io).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), io => Pin::new(io).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        each!(self, io => io.is_write_vectored())
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), io => Pin::new(io).poll_shutdown(cx))
    }
}
