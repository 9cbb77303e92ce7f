//! `forebay top` in a terminal of its own.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};

use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::ADMIN;
use crate::support::inside::Inside;
use crate::support::origin::{Origin, Reply};
use crate::support::within;

/// Leaves the other screen, and shows the cursor: what was there before the command is there again.
const RESTORED: [&str; 2] = ["\u{1b}[?1049l", "\u{1b}[?25h"];

struct Terminal {
    keyboard: std::fs::File,
    written: Arc<Mutex<String>>,
    child: Child,
}

impl Terminal {
    fn top(address: SocketAddr) -> Self {
        let size = Winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(Some(&size), None).unwrap();
        let end = |fd: &OwnedFd| fd.try_clone().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_forebay"))
            .args(["top", "--admin", &format!("http://{address}")])
            .env("TERM", "xterm")
            .stdin(end(&pty.slave))
            .stdout(end(&pty.slave))
            .stderr(end(&pty.slave))
            .spawn()
            .unwrap();
        let written = Arc::new(Mutex::new(String::new()));
        let (mut screen, log) = (std::fs::File::from(end(&pty.master)), written.clone());
        // Ends with an error when the command has, and with it the last slave.
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = screen.read(&mut piece) {
                log.lock().unwrap().push_str(&String::from_utf8_lossy(&piece[..length]));
            }
        });
        Self {
            keyboard: pty.master.into(),
            written,
            child,
        }
    }

    /// Waits until all of these have been written since the last call.
    async fn shows(&self, words: &[&str]) {
        let shown = async {
            while !words.iter().all(|word| self.written.lock().unwrap().contains(word)) {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        within("words on the screen", shown).await;
        self.written.lock().unwrap().clear();
    }

    fn press(&mut self, key: &str) {
        self.keyboard.write_all(key.as_bytes()).unwrap();
    }

    async fn ended(&mut self) -> ExitStatus {
        within("the end of the command", async {
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status;
                }
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        })
        .await
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn started() -> Inside {
    let origin = Origin::builder().otherwise(Reply::fresh(60, "x")).start().await;
    let inside = Inside::before(&origin, ADMIN).await;
    for _ in 0..3 {
        inside.get("/hot-page").await;
    }
    inside
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_shows_figures_and_ends_by_a_key() {
    let inside = started().await;
    let mut terminal = Terminal::top(inside.admin_address());
    terminal
        .shows(&["forebay", "ready", "busiest", "default", "http://test/hot-page"])
        .await;
    terminal.press("s");
    terminal.shows(&["slow"]).await;
    terminal.press("\t\t");
    terminal.shows(&["failures"]).await;
    terminal.press("p");
    terminal.shows(&["PAUSED"]).await;
    terminal.press("q");
    assert!(terminal.ended().await.success());
    terminal.shows(&RESTORED).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_terminal_is_given_back_however_it_ends() {
    let inside = started().await;
    for end in ["\u{3}", "\u{1b}"] {
        let mut terminal = Terminal::top(inside.admin_address());
        terminal.shows(&["forebay", "ready"]).await;
        terminal.press(end);
        assert!(terminal.ended().await.success(), "{end:?}");
        terminal.shows(&RESTORED).await;
    }
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let mut terminal = Terminal::top(inside.admin_address());
        terminal.shows(&["forebay", "ready"]).await;
        kill(Pid::from_raw(terminal.child.id().try_into().unwrap()), signal).unwrap();
        let status = terminal.ended().await;
        assert_eq!(
            (status.code(), status.signal()),
            (Some(128 + signal as i32), None),
            "{signal}"
        );
        terminal.shows(&RESTORED).await;
    }
}

/// What stands between the command and the listener, as long as this task runs.
async fn relay(address: SocketAddr, to: SocketAddr) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            if let Ok(mut server) = TcpStream::connect(to).await {
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            }
        }
    });
    (address, task)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_goes_and_comes_is_waited_for() {
    let inside = started().await;
    let (address, task) = relay(([127, 0, 0, 1], 0).into(), inside.admin_address()).await;
    let mut terminal = Terminal::top(address);
    terminal.shows(&["forebay", "ready"]).await;
    task.abort();
    let _ = task.await;
    terminal.shows(&["old:", "reached:"]).await;
    let (_, _task) = relay(address, inside.admin_address()).await;
    terminal.shows(&["ready"]).await;
    terminal.press("q");
    assert!(terminal.ended().await.success());
}
