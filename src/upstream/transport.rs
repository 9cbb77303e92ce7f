//! What carries requests to a server.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::io::Duplex;
use crate::io::tcp::Tcp;

/// A connection. Most are plain TCP, which is worth not being behind a pointer.
pub enum Transport {
    Tcp(Tcp),
    /// A Unix socket, or TLS over anything.
    Over(Box<dyn Duplex>),
}

/// Does the same with whatever is there.
macro_rules! each {
    ($self:expr, $io:ident => $body:expr) => {
        match $self {
            Transport::Tcp($io) => $body,
            Transport::Over($io) => $body,
        }
    };
}

impl Transport {
    pub fn over(io: impl Duplex + 'static) -> Self {
        Self::Over(Box::new(io))
    }

    /// Whether there is nothing to be read from an idle connection, not even its end.
    ///
    /// A server that sends something on an idle connection closes it, or answers a question that nobody asked: its bytes must never become
    /// another client's response.
    pub fn is_open_and_silent(&mut self) -> bool {
        match self {
            Self::Tcp(tcp) => tcp.is_silent(),
            Self::Over(io) => {
                let mut byte = [0; 1];
                let mut buffer = ReadBuf::new(&mut byte);
                let mut cx = Context::from_waker(Waker::noop());
                Pin::new(io).poll_read(&mut cx, &mut buffer).is_pending()
            }
        }
    }
}

impl AsyncRead for Transport {
    #[inline]
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), io => Pin::new(io).poll_read(cx, buf))
    }
}

impl AsyncWrite for Transport {
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
