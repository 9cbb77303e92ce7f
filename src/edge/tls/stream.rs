//! A client's connection, with or without TLS.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest,
    UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_rustls::server::TlsStream;

use crate::config::TlsVersion;
use crate::tls::Alpn;

/// A connection of which the first bytes were read already, and are read again.
#[derive(Debug)]
pub struct Rewound<IO> {
    first: Bytes,
    io: IO,
}

impl<IO> Rewound<IO> {
    /// A connection of which `first` was read.
    pub fn new(first: Bytes, io: IO) -> Self {
        Self { first, io }
    }

    /// Gives back what was just read; what is still to be read comes behind it.
    pub fn rewind(&mut self, read: Bytes) {
        self.first = match self.first.is_empty() {
            true => read,
            false => [read, std::mem::take(&mut self.first)].concat().into(),
        };
    }

    pub fn io(&self) -> &IO {
        &self.io
    }

    pub fn io_mut(&mut self) -> &mut IO {
        &mut self.io
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Rewound<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let count = self.first.len().min(buf.remaining());
        buf.put_slice(&self.first.copy_to_bytes(count));
        if self.first.is_empty() {
            // Lets go of the memory behind it.
            self.first = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Rewound<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// A client's connection, as HTTP sees it.
///
/// With TLS, a write may be accepted before it is on the wire: flush to send it. Shutting down sends `close_notify`; a
/// client that closes without one ends reading with `UnexpectedEof` (RFC 8446 §6.1).
#[derive(Debug)]
pub enum ClientStream<IO> {
    Plain(Rewound<IO>),
    /// Boxed: the state of TLS is large, and plain connections would carry its size.
    Tls(Box<TlsStream<Rewound<IO>>>),
}

/// What the handshake agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsInfo<'a> {
    pub version: TlsVersion,
    pub alpn: Alpn,
    /// The name that the client asked for, lower case. `None`: it sent no SNI.
    pub server_name: Option<&'a str>,
}

impl<IO> ClientStream<IO> {
    /// `None`: the connection is plain.
    pub fn tls(&self) -> Option<TlsInfo<'_>> {
        let Self::Tls(stream) = self else { return None };
        let connection = stream.get_ref().1;
        let version = match connection.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_3) => TlsVersion::Tls13,
            _ => TlsVersion::Tls12,
        };
        let alpn = Alpn::agreed(connection.alpn_protocol());
        Some(TlsInfo {
            version,
            alpn,
            server_name: connection.server_name(),
        })
    }

    /// The connection underneath.
    pub fn transport(&self) -> &IO {
        match self {
            Self::Plain(stream) => stream.io(),
            Self::Tls(stream) => stream.get_ref().0.io(),
        }
    }

    /// The connection underneath, for its options: reading or writing here breaks TLS.
    pub fn transport_mut(&mut self) -> &mut IO {
        match self {
            Self::Plain(stream) => stream.io_mut(),
            Self::Tls(stream) => stream.get_mut().0.io_mut(),
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for ClientStream<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ClientStream<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

// What Pingora's HTTP/2 asks of a connection beyond bytes: answered by its own stream underneath.

#[async_trait]
impl Shutdown for ClientStream<Stream> {
    async fn shutdown(&mut self) {
        // The connection is over, whether the client can still be told or not.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for ClientStream<Stream> {
    fn id(&self) -> UniqueIDType {
        self.transport().id()
    }
}

impl Ssl for ClientStream<Stream> {}

impl Peek for ClientStream<Stream> {}

impl GetTimingDigest for ClientStream<Stream> {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.transport().get_timing_digest()
    }

    fn get_read_pending_time(&self) -> Duration {
        self.transport().get_read_pending_time()
    }

    fn get_write_pending_time(&self) -> Duration {
        self.transport().get_write_pending_time()
    }
}

impl GetProxyDigest for ClientStream<Stream> {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.transport().get_proxy_digest()
    }

    fn set_proxy_digest(&mut self, digest: ProxyDigest) {
        self.transport_mut().set_proxy_digest(digest);
    }
}

impl GetSocketDigest for ClientStream<Stream> {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.transport().get_socket_digest()
    }

    fn set_socket_digest(&mut self, digest: SocketDigest) {
        self.transport_mut().set_socket_digest(digest);
    }
}
