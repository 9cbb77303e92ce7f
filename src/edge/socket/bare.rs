//! A TCP connection that is not in the runtime.
//!
//! To wait for a connection in a task of its own costs a hundred nanoseconds more for each request than to be told that something has come:
//! interest to be registered, a task to be woken, queued and taken up. Here, whoever waits for many connections at once says what comes, and
//! reading and writing are a system call each and nothing else. `Poll::Pending` is answered without a promise to wake anybody.

use std::io::{self, IoSlice};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Coming;
use crate::io::tcp;

/// The connection, in non-blocking mode.
#[derive(Debug)]
pub struct Bare {
    stream: TcpStream,
    unread: Unread,
}

/// What is known of bytes that have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unread {
    /// All were read: there is something to read again when that is said.
    None,
    Some,
    /// And behind them the end, of which nothing will be said again.
    ToTheEnd,
}

impl Bare {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            unread: Unread::None,
        }
    }

    pub(super) fn into_stream(self) -> TcpStream {
        self.stream
    }

    pub(super) fn comes(&mut self, what: Coming) {
        self.unread = match (what, self.unread) {
            (Coming::End, _) | (_, Unread::ToTheEnd) => Unread::ToTheEnd,
            (Coming::Bytes, _) => Unread::Some,
        };
    }

    pub(super) fn is_read(&self) -> bool {
        self.unread == Unread::None
    }

    fn read(&mut self, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let room = buf.remaining();
        let read = tcp::recv(&self.stream, buf);
        match read {
            // Had there been more it would have filled the room, and what comes later is said.
            Ok(count) if count < room && self.unread == Unread::Some => self.unread = Unread::None,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.unread = Unread::None;
                return Poll::Pending;
            }
            _ => {}
        }
        Poll::Ready(read.map(drop))
    }
}

impl AsFd for Bare {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

fn unless_full(written: io::Result<usize>) -> Poll<io::Result<usize>> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        written => Poll::Ready(written),
    }
}

impl AsyncRead for Bare {
    #[inline]
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.is_read() {
            return Poll::Pending;
        }
        self.read(buf)
    }
}

impl AsyncWrite for Bare {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        unless_full(tcp::send(&self.stream, buf))
    }

    fn poll_write_vectored(self: Pin<&mut Self>, _: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        unless_full(tcp::send_vectored(&self.stream, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.stream.shutdown(Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::task::Waker;

    use super::*;

    /// A client's end of a connection, and ours.
    fn pair() -> (TcpStream, Bare) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (ours, _) = listener.accept().unwrap();
        ours.set_nonblocking(true).unwrap();
        (client, Bare::new(ours))
    }

    fn read(bare: &mut Bare, room: usize) -> Poll<usize> {
        let mut room = vec![0; room];
        let mut buf = ReadBuf::new(&mut room);
        let mut cx = Context::from_waker(Waker::noop());
        let read = Pin::new(bare).poll_read(&mut cx, &mut buf);
        read.map(|result| result.map(|()| buf.filled().len()).unwrap())
    }

    /// Waits for bytes without reading them.
    fn come(bare: &Bare) {
        bare.stream.set_nonblocking(false).unwrap();
        assert!(bare.stream.peek(&mut [0]).is_ok());
        bare.stream.set_nonblocking(true).unwrap();
    }

    #[test]
    fn it_is_read_when_something_has_come_and_no_more_often() {
        let (mut client, mut bare) = pair();
        client.write_all(b"hello").unwrap();
        come(&bare);
        assert_eq!(read(&mut bare, 100), Poll::Pending, "nobody has said so");
        bare.comes(Coming::Bytes);
        assert_eq!(read(&mut bare, 3), Poll::Ready(3));
        assert!(!bare.is_read(), "there may be more");
        assert_eq!(read(&mut bare, 100), Poll::Ready(2));
        assert!(bare.is_read());
        bare.comes(Coming::Bytes);
        assert_eq!(read(&mut bare, 100), Poll::Pending, "a false alarm");
        assert!(bare.is_read());
    }

    #[test]
    fn the_end_is_said_once_and_read_behind_the_bytes() {
        let (mut client, mut bare) = pair();
        client.write_all(b"bye").unwrap();
        drop(client);
        come(&bare);
        bare.comes(Coming::End);
        bare.comes(Coming::Bytes);
        assert_eq!(read(&mut bare, 100), Poll::Ready(3));
        assert_eq!(read(&mut bare, 100), Poll::Ready(0));
    }

    #[test]
    fn a_full_socket_is_not_waited_for() {
        let (mut client, mut bare) = pair();
        let mut cx = Context::from_waker(Waker::noop());
        let piece = vec![b'x'; 64 * 1024];
        let mut written = 0;
        while let Poll::Ready(count) = Pin::new(&mut bare).poll_write(&mut cx, &piece) {
            written += count.unwrap();
        }
        let vectored = Pin::new(&mut bare).poll_write_vectored(&mut cx, &[IoSlice::new(&piece)]);
        assert!(vectored.is_pending());
        drop(bare);
        let mut got = Vec::new();
        client.read_to_end(&mut got).unwrap();
        assert_eq!(got.len(), written);
    }
}
