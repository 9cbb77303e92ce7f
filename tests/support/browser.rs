//! Chromium without a window, driven by the DevTools protocol over its WebSocket.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt, StreamExt};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::certificate::Certificate;
use super::within_time;

/// For anything that a browser does: it is slow to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser with one page. It ends with the test.
pub struct Browser {
    _running: Running,
    socket: WebSocketStream<TcpStream>,
    /// The page's.
    session: String,
    last_id: u64,
    /// What the page has told and nobody has asked for yet.
    events: VecDeque<Value>,
    /// What went wrong in the page.
    errors: Vec<String>,
}

/// Its processes, and the directory that they write into.
struct Running {
    child: Child,
    /// Reads what they say, to its end.
    reading: Option<JoinHandle<()>>,
    _profile: TempDir,
}

impl Drop for Running {
    /// All of them: one that is left would go on writing into a directory that is being removed.
    fn drop(&mut self) {
        let _ = killpg(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGKILL);
        let _ = self.child.wait();
        // Each holds the other end of the pipe as long as it lives.
        let _ = self.reading.take().map(JoinHandle::join);
    }
}

impl Browser {
    /// `None`: there is no Chromium here, which the test's output says; where `FOREBAY_BROWSER` is `required` that fails the test.
    pub async fn start() -> Option<Self> {
        Self::start_with(None).await
    }

    /// One that trusts a certificate, too.
    pub async fn trusting(certificate: &Certificate) -> Option<Self> {
        Self::start_with(Some(certificate)).await
    }

    async fn start_with(trusted: Option<&Certificate>) -> Option<Self> {
        let profile = tempfile::tempdir().unwrap();
        let child = Command::new("chromium")
            .args([
                "--headless",
                // Tests may run as root, where there is none; it sees nothing but their own pages.
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--disable-extensions",
                // The tests' certificates are their own. With such a one it would take no dictionary: a proxy on the client's machine might not
                // know dcb and dcz.
                "--disable-features=CompressionDictionaryTransportRequireKnownRootCert",
                "--no-first-run",
                "--no-default-browser-check",
                "--remote-debugging-port=0",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            // Unlike one that all errors are ignored of, such a certificate has none, as dictionaries ask for.
            .args(trusted.map(|trusted| format!("--ignore-certificate-errors-spki-list={}", trusted.pin())))
            .arg("about:blank")
            .env("TMPDIR", profile.path())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(error) => {
                assert!(
                    std::env::var("FOREBAY_BROWSER").as_deref() != Ok("required"),
                    "Chromium cannot be started: {error}"
                );
                eprintln!("skipped: there is no Chromium here (make test-browser installs it)");
                return None;
            }
        };
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (tell, told) = oneshot::channel();
        // To its end, although nobody wants to know what else it says: a full pipe would stop it.
        let reading = std::thread::spawn(move || {
            let mut tell = Some(tell);
            for line in stderr.lines().map_while(Result::ok) {
                if let Some(url) = line.strip_prefix("DevTools listening on ")
                    && let Some(tell) = tell.take()
                {
                    let _ = tell.send(url.to_owned());
                }
            }
        });
        let running = Running {
            child,
            reading: Some(reading),
            _profile: profile,
        };
        let url = within_time(PATIENCE, "the address of DevTools", told).await;
        let url = url.expect("Chromium ended instead of listening");
        let address = url.trim_start_matches("ws://").split('/').next().unwrap().to_owned();
        let stream = TcpStream::connect(address).await.unwrap();
        let (socket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
        let mut browser = Self {
            _running: running,
            socket,
            session: String::new(),
            last_id: 0,
            events: VecDeque::new(),
            errors: Vec::new(),
        };
        let target = browser
            .command("Target.createTarget", json!({ "url": "about:blank" }))
            .await;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.command("Target.attachToTarget", attach).await;
        browser.session = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.command(&format!("{domain}.enable"), json!({})).await;
        }
        Some(browser)
    }

    /// One command of the protocol, and its result.
    pub async fn command(&mut self, method: &str, parameters: Value) -> Value {
        self.last_id += 1;
        let id = self.last_id;
        let mut command = json!({ "id": id, "method": method, "params": parameters });
        if !self.session.is_empty() {
            command["sessionId"] = self.session.clone().into();
        }
        self.socket.send(Message::text(command.to_string())).await.unwrap();
        let answer = within_time(PATIENCE, method, async {
            loop {
                let message = self.read().await;
                if message["id"] == id {
                    return message;
                }
                self.note(message);
            }
        })
        .await;
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }

    /// The next event of that name for which this holds.
    pub async fn event(&mut self, method: &str, mut holds: impl FnMut(&Value) -> bool) -> Value {
        within_time(PATIENCE, method, async {
            loop {
                while let Some(event) = self.events.pop_front() {
                    if event["method"] == method && holds(&event["params"]) {
                        return event["params"].clone();
                    }
                }
                let message = self.read().await;
                self.note(message);
            }
        })
        .await
    }

    async fn read(&mut self) -> Value {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => return serde_json::from_str(&text).unwrap(),
                Some(Ok(_)) => {}
                other => panic!("Chromium has gone: {other:?}"),
            }
        }
    }

    fn note(&mut self, message: Value) {
        let (method, parameters) = (message["method"].as_str().unwrap_or_default(), &message["params"]);
        let wrong = match method {
            "Runtime.exceptionThrown" => true,
            "Runtime.consoleAPICalled" => matches!(parameters["type"].as_str(), Some("error" | "warning" | "assert")),
            "Log.entryAdded" => matches!(parameters["entry"]["level"].as_str(), Some("error" | "warning")),
            _ => false,
        };
        if wrong {
            self.errors.push(parameters.to_string());
        }
        self.events.push_back(message);
    }

    /// What the console has said of errors so far.
    pub async fn errors(&mut self) -> Vec<String> {
        // Whatever was said before this answer has been read behind it.
        self.eval("0").await;
        std::mem::take(&mut self.errors)
    }

    /// Opens a page, and waits until it is loaded.
    pub async fn open(&mut self, url: &str) {
        self.events.clear();
        let opened = self.command("Page.navigate", json!({ "url": url })).await;
        assert!(opened.get("errorText").is_none(), "{url}: {opened}");
        self.event("Page.loadEventFired", |_| true).await;
    }

    /// The value of an expression in the page; of a promise, what it comes to.
    pub async fn eval(&mut self, expression: &str) -> Value {
        let parameters = json!({
            "expression": expression, "awaitPromise": true, "returnByValue": true, "userGesture": true,
        });
        let result = self.command("Runtime.evaluate", parameters).await;
        assert!(result.get("exceptionDetails").is_none(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub async fn becomes(&mut self, expression: &str) {
        let page = "document.body && document.body.innerText";
        let frames = format!(
            "new Promise((done) => {{ const look = () => ({expression}) ? done(true) : setTimeout(look, 20); look(); \
             setTimeout(() => done(false), {}); }})",
            PATIENCE.as_millis() / 2
        );
        if self.eval(&frames).await != true {
            let text = self.eval(page).await;
            panic!(
                "never true: {expression}\non the page:\n{}",
                text.as_str().unwrap_or_default()
            );
        }
    }

    /// Presses and releases a key, with a text if it writes one.
    pub async fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Tab" => (9, None),
            "Enter" => (13, Some("\r")),
            "Space" => (32, Some(" ")),
            key => (0, Some(key)),
        };
        let name = if key == "Space" { " " } else { key };
        for kind in ["keyDown", "keyUp"] {
            let mut parameters = json!({ "type": kind, "key": name, "code": key, "windowsVirtualKeyCode": code });
            if let (Some(text), "keyDown") = (text, kind) {
                parameters["text"] = text.into();
            }
            self.command("Input.dispatchKeyEvent", parameters).await;
        }
    }

    /// Writes into whatever has the focus.
    pub async fn write(&mut self, text: &str) {
        self.command("Input.insertText", json!({ "text": text })).await;
    }

    /// The size of the window, and whether the system is dark.
    pub async fn looks_like(&mut self, width: u32, height: u32, scheme: &str) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.command("Emulation.setDeviceMetricsOverride", size).await;
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.command("Emulation.setEmulatedMedia", media).await;
    }

    /// Writes a picture of the whole page to a PNG file.
    pub async fn picture(&mut self, path: &Path) {
        let picture = json!({ "format": "png", "captureBeyondViewport": true });
        let taken = self.command("Page.captureScreenshot", picture).await;
        std::fs::write(path, STANDARD.decode(taken["data"].as_str().unwrap()).unwrap()).unwrap();
    }
}
