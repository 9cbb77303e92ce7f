//! `forebay top`: how it goes, on a screen that follows.

mod state;
mod view;

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use http::Method;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use self::state::{Next, Snapshot, State};
use super::client::{Client, Failure};
use super::table::{number, plain, table};
use super::{Connection, UNAVAILABLE, failed, stats};

/// URLs that are asked for.
const HOTTEST: usize = 50;

/// How long a key or an answer may wait to be seen.
const TICK: Duration = Duration::from_millis(50);

/// Added to a signal's number for the exit status, as shells do.
const KILLED: u8 = 128;

#[derive(Debug, Args)]
pub struct TopOptions {
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=3600))]
    interval: u16,
}

/// What the screen hears of.
enum Message {
    Answer(Result<Snapshot, Failure>),
    /// The number of a signal that ends this process.
    Signal(i32),
}

/// Shows figures until it is told to end; where there is no terminal, once.
pub fn run(options: &TopOptions, connection: &Connection) -> ExitCode {
    let client = match connection.client() {
        Ok(client) => client,
        Err(failure) => return failed(&failure),
    };
    // Before the screen is cleared: what is wrong from the beginning is an error as with the other commands.
    let first = match look(&client) {
        Ok(snapshot) => snapshot,
        Err(failure) => return failed(&failure),
    };
    if connection.json || !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        let text = match connection.json {
            true => format!("{:#}\n", first.stats),
            false => once(&first),
        };
        let _ = io::stdout().write_all(text.as_bytes());
        return ExitCode::SUCCESS;
    }
    let mut state = State::new(connection.admin.clone());
    state.take(first);
    let interval = Duration::from_secs(u64::from(options.interval));
    match on_screen(|terminal| follow(terminal, &mut state, client, interval)) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(signal)) => ExitCode::from(KILLED.saturating_add(u8::try_from(signal).unwrap_or(0))),
        Err(error) => {
            eprintln!("forebay: the terminal cannot be used: {error}; forebay stats needs none");
            ExitCode::from(UNAVAILABLE)
        }
    }
}

/// Gives `work` the whole screen; afterwards it is what it was before. A panic, too, gives it back before it says what it has to.
fn on_screen<T>(work: impl FnOnce(&mut DefaultTerminal) -> io::Result<T>) -> io::Result<T> {
    let mut terminal = ratatui::try_init()?;
    let done = work(&mut terminal);
    ratatui::restore();
    done
}

/// Answers the number of the signal that ended it, if one did.
fn follow(
    terminal: &mut DefaultTerminal,
    state: &mut State,
    client: Client,
    interval: Duration,
) -> io::Result<Option<i32>> {
    let (sender, messages) = mpsc::channel();
    hear_signals(sender.clone())?;
    let looking = thread::Builder::new()
        .name("look".to_owned())
        .spawn(move || keep_looking(&client, interval, &sender))?;
    let mut is_due = true;
    let mut drawn = Instant::now();
    loop {
        // How long it has been without an answer is shown, too.
        if is_due || drawn.elapsed() >= Duration::from_secs(1) {
            terminal.draw(|frame| view::draw(frame, state))?;
            (is_due, drawn) = (false, Instant::now());
        }
        match messages.recv_timeout(TICK) {
            Ok(Message::Answer(Ok(snapshot))) => {
                state.take(snapshot);
                is_due = true;
            }
            Ok(Message::Answer(Err(failure))) => {
                state.trouble(failure.to_string());
                is_due = true;
            }
            Ok(Message::Signal(signal)) => return Ok(Some(signal)),
            // It looks for as long as it is listened to: it has panicked, and the screen is given back already.
            Err(_) if looking.is_finished() => return Err(io::Error::other("nothing is looked at any more")),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
        while event::poll(Duration::ZERO)? {
            is_due = true;
            // A resize is taken up when it is drawn.
            if let Event::Key(key) = event::read()?
                && state.key(key) == Next::Quit
            {
                return Ok(None);
            }
        }
    }
}

/// Asks again and again, until nobody listens.
fn keep_looking(client: &Client, interval: Duration, sender: &Sender<Message>) {
    let (_never, pause) = mpsc::channel::<()>();
    loop {
        // Nothing comes: it is a pause.
        let _ = pause.recv_timeout(interval);
        if sender.send(Message::Answer(look(client))).is_err() {
            return;
        }
    }
}

/// Ctrl-C is a key to the screen; these come from elsewhere.
fn hear_signals(sender: Sender<Message>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let heard = runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            let mut hang_up = signal(SignalKind::hangup())?;
            let kind = tokio::select! {
                _ = terminate.recv() => SignalKind::terminate(),
                _ = interrupt.recv() => SignalKind::interrupt(),
                _ = hang_up.recv() => SignalKind::hangup(),
            };
            io::Result::Ok(kind.as_raw_value())
        });
        if let Ok(number) = heard {
            // Else the screen has ended by itself.
            let _ = sender.send(Message::Signal(number));
        }
    })?;
    Ok(())
}

fn look(client: &Client) -> Result<Snapshot, Failure> {
    let stats = client.request(&Method::GET, "/stats", None)?;
    let hottest = client.request(&Method::GET, &format!("/cache/top?n={HOTTEST}"), None)?;
    Ok(Snapshot {
        at: Instant::now(),
        stats,
        hottest,
    })
}

/// One look, as text.
fn once(snapshot: &Snapshot) -> String {
    let mut text = stats::text(&snapshot.stats);
    let row = |key: &Value| vec![number(&key["requests"]), plain(&key["url"])];
    let rows: Vec<_> = stats::list(&snapshot.hottest["top"]).take(10).map(row).collect();
    if !rows.is_empty() {
        text.push_str("\nasked for most\n");
        text.push_str(&table(&["requests", "url"], &rows));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::process::Command;

    use nix::pty::{Winsize, openpty};

    use super::*;

    #[test]
    #[ignore = "panics: it is run by the next one, in a terminal of its own"]
    fn something_panics_on_the_screen() {
        let _ = on_screen(|terminal| -> io::Result<()> {
            terminal.draw(|frame| frame.render_widget("figures", frame.area()))?;
            panic!("out of the blue");
        });
    }

    #[test]
    fn a_panic_gives_the_terminal_back_before_it_is_told() {
        let size = Winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(Some(&size), None).unwrap();
        let end = || pty.slave.try_clone().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--ignored", "--nocapture"])
            .arg("cli::admin::top::tests::something_panics_on_the_screen")
            .env("TERM", "xterm")
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        let mut screen = std::fs::File::from(pty.master);
        let reader = thread::spawn(move || {
            let (mut written, mut piece) = (Vec::new(), [0; 4096]);
            // Ends with an error when the last who could write is gone.
            while let Ok(length @ 1..) = screen.read(&mut piece) {
                written.extend_from_slice(&piece[..length]);
            }
            String::from_utf8_lossy(&written).into_owned()
        });
        assert!(!child.wait().unwrap().success());
        drop(pty.slave);
        let written = reader.join().unwrap();
        let at = |text: &str| {
            written
                .find(text)
                .unwrap_or_else(|| panic!("no {text:?} in {written:?}"))
        };
        let (entered, shown) = (at("\u{1b}[?1049h"), at("figures"));
        let (left, told) = (at("\u{1b}[?1049l"), at("out of the blue"));
        assert!(entered < shown && shown < left && left < told, "{written:?}");
    }
}
