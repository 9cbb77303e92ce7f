//! The real binary as a child process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};

use super::client::{Client, Response};
use super::origin::Origin;
use super::watched::Watched;
use super::{PATIENCE, within};

/// A running Forebay. It is killed at the end of the test, which fails if it panicked.
pub struct Proxy {
    child: Child,
    directory: TempDir,
    listeners: Vec<String>,
    metrics: Option<SocketAddr>,
    admin: Option<SocketAddr>,
    stdout: Watched<Lines>,
    stderr: Watched<Lines>,
}

/// What one of the child's pipes has said.
#[derive(Debug, Default)]
struct Lines {
    lines: Vec<String>,
    ended: bool,
}

/// How the binary is started.
pub struct Builder {
    directory: TempDir,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

/// What a reload came to.
#[derive(Debug)]
pub enum Reload {
    Done,
    /// With the lines that were logged for it.
    Refused(String),
}

impl Builder {
    /// A directory of this proxy's own, which holds its configuration and whatever files a test puts there.
    pub fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            arguments: Vec::new(),
            environment: Vec::new(),
        }
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A further argument of `forebay run`.
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts `forebay run --config` with this configuration and waits until it is ready.
    pub async fn start(self, yaml: &str) -> Proxy {
        let config = write_config(self.directory.path(), yaml);
        let mut command = binary();
        command.arg("run").arg("--config").arg(config).args(&self.arguments);
        self.spawn(command).await
    }

    /// Starts the binary with the builder's arguments alone.
    pub async fn start_bare(self) -> Proxy {
        let mut command = binary();
        command.args(&self.arguments);
        self.spawn(command).await
    }

    async fn spawn(self, mut command: Command) -> Proxy {
        command
            .envs(self.environment)
            .current_dir(self.directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = collect(child.stdout.take().unwrap());
        let stderr = collect(child.stderr.take().unwrap());
        let ready = stderr.until_found(|lines| match lines.lines.iter().any(|line| message(line) == "ready") {
            true => Some(true),
            false => lines.ended.then_some(false),
        });
        let ready = tokio::time::timeout(PATIENCE, ready).await;
        let mut proxy = Proxy {
            child,
            directory: self.directory,
            listeners: Vec::new(),
            metrics: None,
            admin: None,
            stdout,
            stderr,
        };
        match ready {
            Ok(true) => {}
            Ok(false) => panic!("the proxy ended instead of listening:\n{}", proxy.log_text()),
            Err(_) => panic!("the proxy is not ready after {PATIENCE:?}:\n{}", proxy.log_text()),
        }
        for entry in proxy.logged("listening") {
            let address = entry["address"].as_str().unwrap().to_owned();
            match entry["kind"].as_str() {
                Some("metrics") => proxy.metrics = Some(address.parse().unwrap()),
                Some("admin") => proxy.admin = Some(address.parse().unwrap()),
                _ => proxy.listeners.push(address),
            }
        }
        proxy
    }
}

impl Proxy {
    pub async fn start(yaml: &str) -> Self {
        Builder::new().start(yaml).await
    }

    /// One listener, this origin as the only upstream, and these further sections of the file.
    pub async fn before(origin: &Origin, sections: &str) -> Self {
        Self::start(&config(origin, sections)).await
    }

    /// Where the proxy's files are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The first listener.
    pub fn address(&self) -> SocketAddr {
        self.listener(0)
    }

    /// Listeners in order of the file.
    pub fn listener(&self, index: usize) -> SocketAddr {
        self.listeners[index].parse().unwrap()
    }

    pub fn metrics_address(&self) -> SocketAddr {
        self.metrics.expect("the proxy has no metrics listener")
    }

    pub fn admin_address(&self) -> SocketAddr {
        self.admin.expect("the proxy has no admin listener")
    }

    pub fn url(&self, target: &str) -> String {
        format!("http://{}{target}", self.address())
    }

    /// A connection to the first listener.
    pub async fn client(&self) -> Client {
        Client::connect(self.address()).await
    }

    /// One GET on a connection of its own.
    pub async fn get(&self, target: &str) -> Response {
        self.client().await.get(target).await
    }

    /// One request on a connection of its own.
    pub async fn request(&self, method: &str, target: &str, fields: &[(&str, &str)], body: &[u8]) -> Response {
        self.client().await.request(method, target, fields, body).await
    }

    pub fn signal(&self, signal: Signal) {
        let id = self.child.id().expect("the proxy has ended");
        kill(Pid::from_raw(i32::try_from(id).unwrap()), signal).unwrap();
    }

    /// Puts this configuration in the place of the old one and asks for it by SIGHUP.
    pub async fn reload(&self, yaml: &str) -> Reload {
        write_config(self.directory.path(), yaml);
        self.reload_after(|| self.signal(Signal::SIGHUP)).await
    }

    /// As [`Proxy::reload`], for a proxy that watches its file.
    pub async fn rewrite(&self, yaml: &str) -> Reload {
        self.reload_after(|| {
            write_config(self.directory.path(), yaml);
        })
        .await
    }

    async fn reload_after(&self, cause: impl FnOnce()) -> Reload {
        let before = self.stderr.read(|lines| lines.lines.len());
        cause();
        self.stderr
            .wait("the outcome of a reload", |lines| {
                let fresh = &lines.lines[before..];
                let outcome = fresh
                    .iter()
                    .find(|line| matches!(message(line), "reloaded" | "reload refused"))?;
                Some(match message(outcome) {
                    "reloaded" => Reload::Done,
                    _ => Reload::Refused(fresh.join("\n")),
                })
            })
            .await
    }

    /// Waits until the process has ended by itself.
    pub async fn wait_exit(&mut self) -> ExitStatus {
        within("the end of the proxy", self.child.wait()).await.unwrap()
    }

    /// Waits for an access log entry that is as told.
    pub async fn log_entry(&self, mut holds: impl FnMut(&Value) -> bool) -> Value {
        self.stdout
            .wait("an access log entry", |lines| {
                lines.lines.iter().map(|line| parse(line)).find(|entry| holds(entry))
            })
            .await
    }

    /// Waits for so many lines of access log.
    pub async fn log_lines(&self, count: usize) -> Vec<String> {
        self.stdout
            .wait("lines of access log", |lines| {
                (lines.lines.len() >= count).then(|| lines.lines.clone())
            })
            .await
    }

    /// All access log so far.
    pub fn log_so_far(&self) -> Vec<String> {
        self.stdout.read(|lines| lines.lines.clone())
    }

    /// Waits for a line of the program's own log that is as told.
    pub async fn diagnostic(&self, what: &str, mut holds: impl FnMut(&str) -> bool) -> String {
        self.stderr
            .wait(what, |lines| lines.lines.iter().find(|line| holds(line)).cloned())
            .await
    }

    /// The program's own log so far.
    pub fn log_text(&self) -> String {
        self.stderr.read(|lines| lines.lines.join("\n"))
    }

    /// The fields of every line of the program's own log with this message.
    fn logged(&self, wanted: &str) -> Vec<Value> {
        self.stderr.read(|lines| {
            let wanted = lines.lines.iter().filter(|line| message(line) == wanted);
            wanted.map(|line| fields(&parse(line)).clone()).collect()
        })
    }

    /// The metrics listener's answer.
    pub async fn metrics_get(&self, target: &str) -> Response {
        Client::connect(self.metrics_address()).await.get(target).await
    }

    /// The sum over all series of this name that have these labels; 0 if there is none.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let response = self.metrics_get("/metrics").await;
        assert_eq!(response.status, 200);
        sum(response.text(), name, labels)
    }

    /// Asks for a metric until it has this value. For what is counted behind the end of a response.
    pub async fn metric_becomes(&self, name: &str, labels: &[(&str, &str)], wanted: f64) {
        within(&format!("{name}{labels:?} to be {wanted}"), async {
            while self.metric(name, labels).await != wanted {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> u64 {
        let id = self.child.id().expect("the proxy has ended");
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        let kibibytes: u64 = line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap();
        kibibytes * 1024
    }

    /// Open file descriptors.
    pub fn open_files(&self) -> usize {
        let id = self.child.id().expect("the proxy has ended");
        std::fs::read_dir(format!("/proc/{id}/fd")).unwrap().count()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.start_kill();
        let log = self.log_text();
        if std::thread::panicking() {
            eprintln!("the proxy's log:\n{log}");
        } else {
            assert!(!log.contains("panicked at"), "the proxy panicked:\n{log}");
        }
    }
}

/// The smallest configuration before this origin, and these further sections.
pub fn config(origin: &Origin, sections: &str) -> String {
    format!("listen: 127.0.0.1:0\nupstream: http://{}\n{sections}", origin.server())
}

/// How one command that is not a server ended.
#[derive(Debug)]
pub struct Finished {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// Runs the binary to its end.
pub async fn forebay(arguments: &[&str]) -> Finished {
    let mut command = binary();
    command.args(arguments).stdin(Stdio::null());
    let output = within("the end of a command", command.output()).await.unwrap();
    Finished {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command.kill_on_drop(true).stdin(Stdio::null());
    command
}

/// Replaces the file in one step. Without a metrics section the listener would take its usual port, which is not free on every
/// machine, so it gets one of its own.
fn write_config(directory: &Path, yaml: &str) -> PathBuf {
    let path = directory.join("forebay.yaml");
    let fresh = directory.join("forebay.yaml.new");
    let metrics = match yaml.lines().any(|line| line.starts_with("metrics:")) {
        true => "",
        false => "\nmetrics: { listen: 127.0.0.1:0 }\n",
    };
    std::fs::write(&fresh, format!("{yaml}{metrics}")).unwrap();
    std::fs::rename(&fresh, &path).unwrap();
    path
}

fn collect(pipe: impl AsyncRead + Unpin + Send + 'static) -> Watched<Lines> {
    let collected = Watched::<Lines>::default();
    let shared = collected.clone();
    tokio::spawn(async move {
        let mut lines = BufReader::new(pipe).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            shared.change(|lines| lines.lines.push(line));
        }
        shared.change(|lines| lines.ended = true);
    });
    collected
}

fn parse(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or(Value::Null)
}

/// The fields of a log line, which stand at its top or under `fields`.
fn fields(line: &Value) -> &Value {
    match &line["fields"] {
        Value::Null => line,
        fields => fields,
    }
}

/// The message of a log line if it is one that the tests wait for; what follows a colon is left out.
fn message(line: &str) -> &'static str {
    const KNOWN: [&str; 4] = ["listening", "ready", "reloaded", "reload refused"];
    // Every line is looked at on every change, so only those that can matter are parsed.
    let candidates = || KNOWN.into_iter().filter(|known| line.contains(known));
    if candidates().next().is_none() {
        return "";
    }
    let parsed = parse(line);
    let message = fields(&parsed)["message"].as_str().unwrap_or_default();
    let message = message.split(':').next().unwrap_or_default();
    candidates().find(|known| *known == message).unwrap_or_default()
}

/// Sums series of the Prometheus text format.
pub(super) fn sum(text: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    let mut sum = 0.0;
    for line in text.lines() {
        let Some((series, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let (series_name, series_labels) = series.split_once('{').unwrap_or((series, ""));
        let has = |(label, value): &(&str, &str)| {
            let wanted = format!("{label}=\"{value}\"");
            series_labels.trim_end_matches('}').split(',').any(|one| one == wanted)
        };
        if series_name == name && labels.iter().all(has) {
            sum += value.parse::<f64>().unwrap();
        }
    }
    sum
}
