//! A TCP proxy that does what networks do to connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What happens to the bytes from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// What the server answers comes later.
    Delay(Duration),
    /// Nothing comes through any more, in either direction; connections stay open.
    Hang,
    /// Connections are reset, new ones too.
    Cut,
    /// The server's side ends, the client's stays open.
    HalfClose,
    /// Other bytes come in the place of the server's.
    Garbage,
}

/// A listener in front of a server, for as long as the test lives.
pub struct FaultProxy {
    address: SocketAddr,
    fault: watch::Sender<Fault>,
    _tasks: JoinSet<()>,
}

impl FaultProxy {
    pub async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (fault, faults) = watch::channel(Fault::None);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let faults = faults.clone();
                connections.spawn(async move {
                    // The end of one is no failure of the test.
                    let _ = carry(client, server, faults).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Self {
            address,
            fault,
            _tasks: tasks,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }
}

async fn carry(client: TcpStream, server: SocketAddr, mut faults: watch::Receiver<Fault>) -> std::io::Result<()> {
    if *faults.borrow() == Fault::Cut {
        return reset(&client);
    }
    let server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let reset_by = Arc::new(client);
    let mut cut = faults.clone();
    let carried = async {
        let (mut from_client, mut to_client) = (Reader(reset_by.clone()), Writer(reset_by.clone()));
        let (mut from_server, mut to_server) = server.into_split();
        let mut asks = faults.clone();
        let up = async {
            let mut buffer = vec![0; 64 * 1024];
            loop {
                let count = from_client.read(&mut buffer).await?;
                if count == 0 {
                    return Ok::<_, std::io::Error>(());
                }
                let _ = asks.wait_for(|fault| *fault != Fault::Hang).await;
                to_server.write_all(&buffer[..count]).await?;
            }
        };
        let down = async {
            let mut buffer = vec![0; 64 * 1024];
            loop {
                let count = from_server.read(&mut buffer).await?;
                if count == 0 {
                    return Ok::<_, std::io::Error>(());
                }
                let _ = faults.wait_for(|fault| *fault != Fault::Hang).await;
                let fault = *faults.borrow();
                match fault {
                    Fault::Delay(time) => tokio::time::sleep(time).await,
                    Fault::HalfClose => {
                        to_client.close()?;
                        std::future::pending::<()>().await;
                    }
                    Fault::Garbage => buffer[..count].iter_mut().for_each(|byte| *byte ^= 0x5a),
                    Fault::None | Fault::Hang | Fault::Cut => {}
                }
                to_client.write_all(&buffer[..count]).await?;
            }
        };
        tokio::select! {
            result = up => result,
            result = down => result,
        }
    };
    tokio::select! {
        result = carried => result,
        _ = cut.wait_for(|fault| *fault == Fault::Cut) => reset(&reset_by),
    }
}

/// A connection that is closed so is reset.
fn reset(stream: &TcpStream) -> std::io::Result<()> {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO))
}

struct Reader(Arc<TcpStream>);

impl Reader {
    async fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            self.0.readable().await?;
            match self.0.try_read(buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
    }
}

struct Writer(Arc<TcpStream>);

impl Writer {
    async fn write_all(&mut self, mut bytes: &[u8]) -> std::io::Result<()> {
        while !bytes.is_empty() {
            self.0.writable().await?;
            match self.0.try_write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn close(&self) -> std::io::Result<()> {
        socket2::SockRef::from(&*self.0).shutdown(std::net::Shutdown::Write)
    }
}
