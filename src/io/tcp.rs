//! TCP, read and written past the C library.
//!
//! A call of the C library that may wait is a point where a thread can be cancelled. Nobody ever cancels one here, but each call pays for
//! that before and after its system call, four times for a request that is passed on.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::io::retry_on_intr;
use rustix::net::{RecvFlags, SendFlags};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// Reads once from a socket in non-blocking mode; answers how many bytes came.
///
/// # Errors
/// Those of recv(2); nothing has come: [`WouldBlock`](io::ErrorKind::WouldBlock).
#[allow(unsafe_code)]
pub fn recv(socket: impl AsFd, buf: &mut ReadBuf<'_>) -> io::Result<usize> {
    // SAFETY: nothing but the system call writes there, and it writes bytes.
    let room = unsafe { buf.unfilled_mut() };
    let count = retry_on_intr(|| {
        let read = rustix::net::recv(&socket, &mut *room, RecvFlags::empty());
        read.map(|((read, _), _)| read.len())
    })?;
    // SAFETY: the system call has written so many.
    unsafe { buf.assume_init(count) };
    buf.advance(count);
    Ok(count)
}

/// Writes once to a socket in non-blocking mode; answers how many bytes it has taken. That the peer has gone is an error and no signal.
///
/// # Errors
/// Those of send(2); there is no room: [`WouldBlock`](io::ErrorKind::WouldBlock).
pub fn send(socket: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    Ok(retry_on_intr(|| {
        rustix::net::send(&socket, bytes, SendFlags::NOSIGNAL)
    })?)
}

/// Writes once what stands apart, in no more pieces than the system takes (`IOV_MAX`). That the peer has gone is an error here, too: a
/// program in Rust ignores the signal.
///
/// # Errors
/// Those of writev(2); there is no room: [`WouldBlock`](io::ErrorKind::WouldBlock).
pub fn send_vectored(socket: impl AsFd, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    Ok(retry_on_intr(|| rustix::io::writev(&socket, pieces))?)
}

/// A connection in the runtime.
#[derive(Debug)]
pub struct Tcp(TcpStream);

impl Tcp {
    pub fn new(stream: TcpStream) -> Self {
        Self(stream)
    }

    /// Takes it out of the runtime.
    ///
    /// # Errors
    /// When the runtime cannot let go of it; it is closed then.
    pub fn into_std(self) -> io::Result<std::net::TcpStream> {
        self.0.into_std()
    }

    /// Whether all that has come is read, and the end has not come. Asks the system only if something has happened, and has nobody woken
    /// later on.
    pub fn is_silent(&self) -> bool {
        let read = self.0.try_read(&mut [0; 1]);
        matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Does what reads or writes up to `wanted` bytes once. Less than all of them: there is nothing more to be had until the system says so.
    fn try_once(
        &self,
        interest: Interest,
        wanted: usize,
        once: impl FnOnce(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let mut done = Poll::Pending;
        let _ = self.0.try_io(interest, || match once(&self.0) {
            Ok(count) => {
                done = Poll::Ready(Ok(count));
                match count > 0 && count < wanted {
                    // That is how the runtime gets to know it.
                    true => Err(io::ErrorKind::WouldBlock.into()),
                    false => Ok(()),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
            Err(error) => {
                done = Poll::Ready(Err(error));
                Ok(())
            }
        });
        done
    }

    fn poll_send(
        &self,
        cx: &mut Context<'_>,
        wanted: usize,
        mut once: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            if let Poll::Ready(sent) = self.try_once(Interest::WRITABLE, wanted, &mut once) {
                return Poll::Ready(sent);
            }
        }
    }
}

impl AsFd for Tcp {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsyncRead for Tcp {
    #[inline]
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(cx))?;
            let read = self.try_once(Interest::READABLE, buf.remaining(), |stream| recv(stream, buf));
            if let Poll::Ready(read) = read {
                return Poll::Ready(read.map(drop));
            }
        }
    }
}

impl AsyncWrite for Tcp {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_send(cx, buf.len(), |stream| send(stream, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wanted = bufs.iter().map(|piece| piece.len()).sum();
        self.poll_send(cx, wanted, |stream| send_vectored(stream, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Our end of a connection, and the peer's.
    async fn pair() -> (Tcp, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        (Tcp::new(near.unwrap()), far.unwrap().0)
    }

    #[tokio::test]
    async fn what_comes_piece_by_piece_is_read_to_its_end() {
        let (mut near, mut far) = pair().await;
        for piece in ["first", "second"] {
            let mut room = [0; 100];
            let mut unread = ReadBuf::new(&mut room);
            let mut cx = Context::from_waker(Waker::noop());
            assert!(Pin::new(&mut near).poll_read(&mut cx, &mut unread).is_pending());
            far.write_all(piece.as_bytes()).await.unwrap();
            // Room for a part of it, and for more than the rest.
            let mut read = [0; 3];
            assert_eq!(near.read(&mut read).await.unwrap(), 3);
            let count = near.read(&mut room).await.unwrap();
            assert_eq!([&read[..], &room[..count]].concat(), piece.as_bytes());
        }
        drop(far);
        assert_eq!(near.read(&mut [0; 1]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_full_socket_is_written_on_as_its_peer_reads() {
        let (mut near, mut far) = pair().await;
        let all: Vec<u8> = (0..4_000_000).map(|at: u32| (at % 251) as u8).collect();
        let expected = all.clone();
        let writing = tokio::spawn(async move {
            let (whole, pieces) = all.split_at(all.len() / 2);
            near.write_all(whole).await.unwrap();
            let mut at = 0;
            while let Some(rest) = pieces.get(at..).filter(|rest| !rest.is_empty()) {
                let (first, second) = rest.split_at(rest.len() / 3);
                at += near
                    .write_vectored(&[IoSlice::new(first), IoSlice::new(second)])
                    .await
                    .unwrap();
            }
            near.shutdown().await.unwrap();
        });
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.unwrap();
        writing.await.unwrap();
        assert!(got == expected);
    }

    #[tokio::test]
    async fn it_is_silent_until_something_comes_or_it_ends() {
        let (near, mut far) = pair().await;
        assert!(near.is_silent());
        far.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
        near.0.readable().await.unwrap();
        assert!(!near.is_silent());

        let (near, far) = pair().await;
        assert!(near.is_silent());
        drop(far);
        near.0.readable().await.unwrap();
        assert!(!near.is_silent());
    }
}
