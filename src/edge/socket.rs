//! The connection under HTTP/1.
//!
//! What Pingora accepts comes behind a pointer, through buffers that are switched off here, and with the time taken of every read and
//! write. A connection that is going to carry more than one request is worth a system call or two to have it plain.

mod bare;

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pingora_core::protocols::Stream;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use self::bare::Bare;
use crate::io::Duplex;
use crate::io::tcp::Tcp;

/// A client's connection.
#[derive(Default)]
pub enum Socket {
    /// As it was accepted, from a TCP socket.
    Accepted(Stream),
    Tcp(Tcp),
    /// Not in the runtime: nobody is woken when something comes.
    Bare(Bare),
    /// TLS, a Unix socket, or what has begun with something else than HTTP. The descriptor is that of the socket underneath.
    Over(Box<dyn Duplex>, RawFd),
    /// Nothing any more: the runtime could not have it back.
    #[default]
    Gone,
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
                *self = Self::Tcp(Tcp::new(settled));
            }
        }
    }

    /// Whether it can be taken out of the runtime.
    pub fn can_detach(&self) -> bool {
        matches!(self, Self::Tcp(_))
    }

    /// Takes a TCP connection out of the runtime, once it has [settled](Self::settle). Whoever has it from now on says what comes; see
    /// [`comes`](Self::comes). False: it stays as it is, or is gone.
    pub fn detach(&mut self) -> bool {
        match std::mem::take(self) {
            Self::Tcp(stream) => match stream.into_std() {
                Ok(stream) => *self = Self::Bare(Bare::new(stream)),
                // That it is gone is seen when it is read.
                Err(_) => return false,
            },
            other => {
                *self = other;
                return false;
            }
        }
        true
    }

    /// Gives what was taken out of the runtime back to it.
    ///
    /// # Errors
    /// When the system does not take care of another descriptor. The connection is closed then.
    pub fn attach(&mut self) -> io::Result<()> {
        match std::mem::take(self) {
            Self::Bare(bare) => *self = Self::Tcp(Tcp::new(TcpStream::from_std(bare.into_stream())?)),
            other => *self = other,
        }
        Ok(())
    }

    /// Something has come on a connection that is not in the runtime.
    pub fn comes(&mut self, what: Coming) {
        if let Self::Bare(bare) = self {
            bare.comes(what);
        }
    }

    /// Whether all that has come is read, as far as is known without another look.
    pub fn is_read(&self) -> bool {
        matches!(self, Self::Bare(bare) if bare.is_read())
    }

    /// The descriptor of a connection that is not in the runtime.
    pub fn bare(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Bare(bare) => Some(bare.as_fd()),
            _ => None,
        }
    }

    /// Makes closing the connection a reset: the only way to tell its peer that a body which ends with the connection is not whole.
    pub fn reset_on_close(&self) {
        let socket = match self {
            Self::Accepted(stream) => descriptor(self, stream.id()),
            Self::Tcp(stream) => stream.as_fd(),
            Self::Bare(bare) => bare.as_fd(),
            Self::Over(_, fd) => descriptor(self, *fd),
            Self::Gone => return,
        };
        // If the option cannot be set, the connection is gone already.
        let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
    }
}

/// What has come on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coming {
    Bytes,
    /// The end, or an error, behind whatever bytes there are.
    End,
}

/// The descriptor of what is borrowed.
#[allow(unsafe_code)]
fn descriptor<T>(_borrowed: &T, fd: RawFd) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open for as long as the connection that it is of.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// Does the same with whatever is there.
macro_rules! each {
    ($self:expr, $io:ident => $body:expr, $gone:expr) => {
        match $self {
            Socket::Bare($io) => $body,
            Socket::Tcp($io) => $body,
            Socket::Accepted($io) => $body,
            Socket::Over($io, _) => $body,
            Socket::Gone => $gone,
        }
    };
}

fn gone<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
}

impl AsyncRead for Socket {
    #[inline]
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), io => Pin::new(io).poll_read(cx, buf), gone())
    }
}

impl AsyncWrite for Socket {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), io => Pin::new(io).poll_write(cx, buf), gone())
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), io => Pin::new(io).poll_write_vectored(cx, bufs), gone())
    }

    fn is_write_vectored(&self) -> bool {
        each!(self, io => io.is_write_vectored(), true)
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), io => Pin::new(io).poll_flush(cx), gone())
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), io => Pin::new(io).poll_shutdown(cx), gone())
    }
}
