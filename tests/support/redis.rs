//! A real Redis of the test's own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::within;

/// A running `redis-server`. It is killed at the end of the test.
pub struct Redis {
    directory: TempDir,
    /// Bound but not listening, so that nobody else gets the port while the server is down.
    reserved: socket2::Socket,
    /// Further ones, each as `--name value`.
    arguments: Vec<String>,
    child: Child,
}

impl Redis {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With further command line arguments.
    pub async fn start_with(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let reserved = reserve_port();
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let child = spawn(&directory, port_of(&reserved), &arguments).await;
        Self {
            directory,
            reserved,
            arguments,
            child,
        }
    }

    pub fn port(&self) -> u16 {
        port_of(&self.reserved)
    }

    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port()).into()
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port())
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("redis.sock")
    }

    /// Runs one command and answers what `redis-cli` prints.
    pub async fn command(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        command.arg("-s").arg(self.socket()).args(arguments).kill_on_drop(true);
        let output = within("an answer of Redis", command.output()).await.unwrap();
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Stops it in its tracks: connections stay open and nothing is answered.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    pub async fn kill(&mut self) {
        self.child.start_kill().unwrap();
        within("the end of Redis", self.child.wait()).await.unwrap();
    }

    /// Starts it anew on the same port, empty, after [`Redis::kill`].
    pub async fn restart(&mut self) {
        self.child = spawn(&self.directory, self.port(), &self.arguments).await;
    }

    fn signal(&self, signal: Signal) {
        let id = self.child.id().expect("Redis has ended");
        kill(Pid::from_raw(i32::try_from(id).unwrap()), signal).unwrap();
    }
}

/// Both this socket and the server's allow reuse of the address, and this one never listens: the port is the server's alone.
fn reserve_port() -> socket2::Socket {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    let any_port: SocketAddr = ([127, 0, 0, 1], 0).into();
    socket.bind(&any_port.into()).unwrap();
    socket
}

fn port_of(socket: &socket2::Socket) -> u16 {
    socket.local_addr().unwrap().as_socket().unwrap().port()
}

async fn spawn(directory: &TempDir, port: u16, arguments: &[String]) -> Child {
    let port = port.to_string();
    let mut child = Command::new("redis-server")
        .args([
            "--bind",
            "127.0.0.1",
            "--port",
            port.as_str(),
            "--unixsocket",
            "redis.sock",
        ])
        .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
        .args(arguments)
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("redis-server is needed");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut seen = Vec::new();
    loop {
        let line = within("Redis to be ready", lines.next_line()).await.unwrap();
        match line {
            Some(line) if line.contains("Ready to accept connections") => break,
            Some(line) => seen.push(line),
            None => panic!("Redis ended:\n{}", seen.join("\n")),
        }
    }
    // A full pipe would stop the server.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    child
}
