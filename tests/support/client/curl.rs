//! The client that everyone has.

use std::process::Stdio;

use tokio::process::Command;

use crate::support::within;

/// What one run of `curl` came to.
#[derive(Debug)]
pub struct Curl {
    pub exit: i32,
    /// Status of the last response.
    pub status: u16,
    /// `1.1`, `2`...
    pub version: String,
    /// All heads, as printed.
    pub heads: String,
    pub body: Vec<u8>,
    pub stderr: String,
}

impl Curl {
    /// The last value of that name in any head.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.heads
            .lines()
            .rev()
            .filter_map(|line| line.split_once(':'))
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    }

    #[track_caller]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// Runs `curl` with these arguments, whatever proxies and settings the environment has.
pub async fn curl(arguments: &[&str]) -> Curl {
    let directory = tempfile::tempdir().unwrap();
    let heads = directory.path().join("heads");
    let body = directory.path().join("body");
    let mut command = Command::new("curl");
    command
        .args([
            "--disable",
            "--silent",
            "--show-error",
            "--noproxy",
            "*",
            "--max-time",
            "10",
        ])
        .args(["--write-out", "%{http_code} %{http_version}"])
        .arg("--dump-header")
        .arg(&heads)
        .arg("--output")
        .arg(&body)
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = within("the end of curl", command.output()).await.unwrap();
    let written = String::from_utf8_lossy(&output.stdout).into_owned();
    let (status, version) = written.split_once(' ').unwrap_or(("0", ""));
    Curl {
        exit: output.status.code().unwrap_or(-1),
        status: status.parse().unwrap_or(0),
        version: version.to_owned(),
        heads: std::fs::read_to_string(heads).unwrap_or_default(),
        body: std::fs::read(body).unwrap_or_default(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
