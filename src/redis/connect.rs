//! New connections: to one server, to the master that sentinels name, or to a node of a cluster.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, ErrorKind, Pipeline, ProtocolVersion, PushInfo, RedisConnectionInfo, Value};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc::UnboundedSender;
use tokio_rustls::TlsConnector;

use super::error::RedisError;
use super::gather::Gather;
use super::slots::Place;
use crate::config::{Deployment, Password, Redis, RedisTls, ServerAddress, TlsVersion, Verify};
use crate::tls::{provider, versions_from};
use crate::upstream::tls::{NoVerification, authorities};

/// Name resolution, connection, handshake and login together.
pub(super) const CONNECT: Duration = Duration::from_secs(1);

/// One sentinel of several: so that one that hangs does not take the others' time.
const ASK_SENTINEL: Duration = Duration::from_millis(300);

/// Commands that wait to be written to a connection. Beyond these, senders wait, within their deadline.
const PIPELINE: usize = 1024;

/// A password has one line.
const MAX_PASSWORD: usize = 4096;

/// Writes what is sent and reads what comes; it ends with the connection.
pub(super) type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where many commands go at the same time.
#[derive(Debug, Clone)]
pub(super) struct Connection(MultiplexedConnection);

/// What a connection is for.
#[derive(Clone)]
pub(super) enum Use {
    /// Commands that are answered at once.
    Commands,
    /// Commands that wait for something, and messages that come unasked (RESP3).
    Listening(UnboundedSender<PushInfo>),
    /// Commands that wait for something.
    Blocking,
}

impl Connection {
    /// Sends one command. Dropping the future drops the answer and nothing else.
    pub(super) async fn send(&mut self, command: &Cmd) -> Result<Value, redis::RedisError> {
        self.0.send_packed_command(command).await?.extract_error()
    }

    /// Sends several commands in one piece; in a cluster all must be about the same slot. Only where all succeed there is an answer.
    pub(super) async fn send_all(&mut self, commands: &Pipeline) -> Result<Vec<Value>, redis::RedisError> {
        let answers = self.0.send_packed_commands(commands, 0, commands.len()).await?;
        answers.into_iter().map(Value::extract_error).collect()
    }
}

/// Connects and logs in, to a node of a cluster or to what the configuration names. Takes no longer than [`CONNECT`].
pub(super) async fn connect(
    config: &Redis,
    node: Option<&Place>,
    purpose: Use,
) -> Result<(Connection, Driver), RedisError> {
    match tokio::time::timeout(CONNECT, establish(config, node, purpose)).await {
        Ok(result) => result,
        Err(_) => Err(RedisError::Timeout),
    }
}

async fn establish(config: &Redis, node: Option<&Place>, purpose: Use) -> Result<(Connection, Driver), RedisError> {
    let login = login(config).await?;
    if let Some(Place { host, port }) = node {
        let (host, port) = (host.clone(), *port);
        return single(config, &ServerAddress::Tcp { host, port }, login, purpose).await;
    }
    match &config.deployment {
        Deployment::Single(server) => single(config, server, login, purpose).await,
        Deployment::Sentinel { sentinels, master } => {
            let server = master_of(config, sentinels, master).await?;
            let (mut connection, mut driver) = single(config, &server, login, purpose).await?;
            // It may have been demoted since: sentinels learn of it later than the server itself.
            let role = tokio::select! {
                role = async { connection.send(&redis::cmd("ROLE")).await } => role?,
                () = &mut driver => return Err(failure(ErrorKind::Io, "the connection was closed")),
            };
            match is_master(&role) {
                true => Ok((connection, driver)),
                false => Err(failure(
                    ErrorKind::MasterNameNotFoundBySentinel,
                    "the sentinels named a replica",
                )),
            }
        }
        // Of a cluster there are nodes only.
        Deployment::Cluster(_) => Err(RedisError::Unavailable),
    }
}

async fn login(config: &Redis) -> Result<RedisConnectionInfo, RedisError> {
    let mut login = RedisConnectionInfo::default()
        .set_lib_name("forebay", env!("CARGO_PKG_VERSION"))
        .set_db(i64::from(config.database));
    if let Some(name) = &config.username {
        login = login.set_username(name);
    }
    match &config.password {
        None => {}
        Some(Password::Text(text)) => login = login.set_password(text.reveal()),
        Some(Password::File(path)) => {
            let path = path.clone();
            let read = tokio::task::spawn_blocking(move || read_password(&path)).await;
            let text = read.unwrap_or_else(|error| Err(io::Error::other(error)));
            login = login.set_password(text.map_err(redis::RedisError::from)?);
        }
    }
    Ok(login)
}

fn read_password(path: &Path) -> io::Result<String> {
    let mut text = std::fs::read_to_string(path)?;
    if text.len() > MAX_PASSWORD {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the password file is too long",
        ));
    }
    text.truncate(text.trim_end_matches(['\r', '\n']).len());
    Ok(text)
}

async fn single(
    config: &Redis,
    server: &ServerAddress,
    login: RedisConnectionInfo,
    purpose: Use,
) -> Result<(Connection, Driver), RedisError> {
    let settings = AsyncConnectionConfig::new()
        .set_pipeline_buffer_size(PIPELINE)
        .set_response_timeout(None)
        .set_connection_timeout(None);
    let (login, settings) = match purpose {
        Use::Listening(sender) => (
            login.set_protocol(ProtocolVersion::RESP3),
            settings.set_push_sender(sender),
        ),
        // Nothing in it is needed for commands, and older servers do not have it.
        Use::Commands | Use::Blocking => (login.set_protocol(ProtocolVersion::RESP2), settings),
    };
    let (connection, driver): (_, Driver) = match server {
        ServerAddress::Unix(path) => {
            let io = UnixStream::connect(path).await.map_err(redis::RedisError::from)?;
            over(&login, io, settings).await?
        }
        ServerAddress::Tcp { host, port } => {
            let io = TcpStream::connect((host.as_str(), *port))
                .await
                .map_err(redis::RedisError::from)?;
            io.set_nodelay(true).map_err(redis::RedisError::from)?;
            match &config.tls {
                None => over(&login, io, settings).await?,
                Some(tls) => {
                    let (connector, name) = tls_connector(tls, host).await.map_err(redis::RedisError::from)?;
                    let io = connector.connect(name, io).await.map_err(redis::RedisError::from)?;
                    over(&login, io, settings).await?
                }
            }
        }
    };
    Ok((Connection(connection), driver))
}

async fn over<IO>(
    login: &RedisConnectionInfo,
    io: IO,
    settings: AsyncConnectionConfig,
) -> Result<(MultiplexedConnection, Driver), RedisError>
where
    IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (connection, driver) = MultiplexedConnection::new_with_config(login, Gather::new(io), settings).await?;
    Ok((connection, Box::pin(driver)))
}

async fn tls_connector(tls: &RedisTls, host: &str) -> io::Result<(TlsConnector, ServerName<'static>)> {
    let name = tls.server_name.as_deref().unwrap_or(host).to_owned();
    let name = ServerName::try_from(name).map_err(io::Error::other)?;
    let tls = tls.clone();
    // Reads files.
    let config = tokio::task::spawn_blocking(move || {
        let provider = provider();
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions_from(TlsVersion::Tls12))
            .map_err(io::Error::other)?;
        let builder = match tls.verify {
            Verify::Certificate => {
                builder.with_root_certificates(authorities(tls.ca.as_deref()).map_err(io::Error::other)?)
            }
            Verify::Nothing => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(NoVerification::new(provider))),
        };
        Ok::<_, io::Error>(builder.with_no_client_auth())
    });
    let config = config.await.unwrap_or_else(|error| Err(io::Error::other(error)))?;
    Ok((TlsConnector::from(Arc::new(config)), name))
}

/// Asks the sentinels one after the other for the master's address.
async fn master_of(config: &Redis, sentinels: &[ServerAddress], master: &str) -> Result<ServerAddress, RedisError> {
    let mut last = failure(ErrorKind::EmptySentinelList, "there is no sentinel");
    for sentinel in sentinels {
        let asked = tokio::time::timeout(ASK_SENTINEL, ask(config, sentinel, master)).await;
        match asked {
            Ok(Ok(server)) => return Ok(server),
            Ok(Err(error)) => last = error,
            Err(_) => last = RedisError::Timeout,
        }
    }
    Err(last)
}

async fn ask(config: &Redis, sentinel: &ServerAddress, master: &str) -> Result<ServerAddress, RedisError> {
    // Sentinels have users and databases of their own, and usually none.
    let login = RedisConnectionInfo::default().set_skip_set_lib_name();
    let (mut connection, driver) = single(config, sentinel, login, Use::Commands).await?;
    let mut question = redis::cmd("SENTINEL");
    question.arg("get-master-addr-by-name").arg(master);
    let answer = tokio::select! {
        answer = connection.send(&question) => answer?,
        () = driver => return Err(failure(ErrorKind::Io, "the connection was closed")),
    };
    let unknown = || failure(ErrorKind::MasterNameNotFoundBySentinel, "no sentinel knows the master");
    let (host, port): (String, String) = redis::from_redis_value(answer).map_err(|_| unknown())?;
    let port = port.parse().map_err(|_| unknown())?;
    Ok(ServerAddress::Tcp { host, port })
}

fn is_master(role: &Value) -> bool {
    match role {
        Value::Array(parts) => match parts.first() {
            Some(Value::BulkString(name)) => name == b"master",
            _ => false,
        },
        _ => false,
    }
}

fn failure(kind: ErrorKind, what: &'static str) -> RedisError {
    redis::RedisError::from((kind, what)).into()
}
