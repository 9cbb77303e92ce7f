//! `forebay run` and `forebay demo`: a server with signals around it.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::MissedTickBehavior;

use super::{CONFIGURATION, UNAVAILABLE, USAGE, demo as app};
use crate::clock::Clock;
use crate::config::{Config, Environment, Loaded};
use crate::log::{self, ProgramLog};
use crate::server::{Server, StartError, notify};
use crate::tls::FileStamp;

/// How often `--watch` looks at the file.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// Events that a thread takes from the system at once when it has nothing else to do. Its own queue has room for 256 tasks; what does not
/// fit in goes to one that all threads share and rarely look at, where a request waits while later ones are answered.
const EVENTS_WHEN_IDLE: usize = 128;

/// The same in between, after 61 steps of tasks: fewer, so that no more is begun than is ended, and the rest waits with the system in the
/// order in which it came. With ten thousand connections the slowest hundredth of the hits is answered in half the time.
const EVENTS_WHEN_BUSY: usize = 32;

/// Where a configuration comes from when it is read again.
struct Source {
    /// `None`: from the command line, so it cannot change.
    file: Option<PathBuf>,
    watch: Watch,
    /// As it was before it was read.
    stamp: Option<FileStamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Watch {
    File,
    SignalsOnly,
}

pub fn run(options: &super::Run) -> ExitCode {
    let stamp = options.config.as_deref().and_then(FileStamp::of);
    let loaded = match (&options.config, &options.upstream) {
        (Some(file), _) => Config::load(file, &Environment::Process),
        (None, Some(upstream)) => {
            let listen = options.listen.as_deref();
            match Config::from_flags(upstream, listen) {
                Ok(loaded) => Ok(loaded),
                Err(errors) => {
                    eprintln!("{errors}");
                    return ExitCode::from(USAGE);
                }
            }
        }
        // clap asks for one of them.
        (None, None) => return ExitCode::from(USAGE),
    };
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(errors) => {
            eprintln!("{errors}");
            return ExitCode::from(CONFIGURATION);
        }
    };
    let watch = match options.watch {
        true => Watch::File,
        false => Watch::SignalsOnly,
    };
    let source = Source {
        file: options.config.clone(),
        watch,
        stamp,
    };
    serve(loaded, &source, |_| {})
}

pub fn demo(listen: SocketAddr) -> ExitCode {
    let app = match std::net::TcpListener::bind(("127.0.0.1", 0)) {
        Ok(listener) => listener,
        Err(error) => return unavailable(&error),
    };
    let upstream = match app.set_nonblocking(true).and_then(|()| app.local_addr()) {
        Ok(address) => address,
        Err(error) => return unavailable(&error),
    };
    let text = app::config(listen, upstream);
    let loaded = match Config::parse("demo", &text, &Environment::Process) {
        Ok(loaded) => loaded,
        Err(errors) => {
            eprintln!("{errors}");
            return ExitCode::from(CONFIGURATION);
        }
    };
    let source = Source {
        file: None,
        watch: Watch::SignalsOnly,
        stamp: None,
    };
    serve(loaded, &source, move |server| {
        if let Ok(listener) = tokio::net::TcpListener::from_std(app) {
            tokio::spawn(app::serve(listener));
        }
        if let Some(address) = server.addresses.first() {
            println!("{}", app::curl_lines(&format!("http://{address}")));
        }
        if let Some(address) = server.metrics_address {
            println!("  curl http://{address}/metrics\n      # what Forebay counts");
        }
    })
}

fn unavailable(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("forebay: {error}");
    ExitCode::from(UNAVAILABLE)
}

/// Serves until a signal ends it.
fn serve(loaded: Loaded, source: &Source, started: impl FnOnce(&Server)) -> ExitCode {
    let program_log = match log::start(loaded.config.log.level) {
        Ok(program_log) => program_log,
        Err(error) => return unavailable(&error),
    };
    for warning in &loaded.warnings {
        tracing::warn!(%warning, "configuration");
    }
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(loaded.config.server.threads)
        .thread_name("forebay")
        .max_io_events_per_tick(EVENTS_WHEN_IDLE)
        .max_io_events_per_busy_tick(EVENTS_WHEN_BUSY)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return unavailable(&error),
    };
    let code = runtime.block_on(live(loaded.config, source, program_log, started));
    // Nothing is left, or it has had its time.
    runtime.shutdown_background();
    code
}

async fn live(config: Config, source: &Source, program_log: ProgramLog, started: impl FnOnce(&Server)) -> ExitCode {
    let signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => return unavailable(&error),
    };
    let server = match Server::start(config, Clock::new(), Some(program_log)) {
        Ok(server) => server,
        Err(error) => {
            tracing::error!(%error, "cannot start");
            return match error {
                StartError::Tls(_) => ExitCode::from(CONFIGURATION),
                StartError::Bind(_) | StartError::AccessLog(_) | StartError::Threads(_) => ExitCode::from(UNAVAILABLE),
            };
        }
    };
    notify::ready();
    let watchdog = tokio::spawn(notify::keep_watchdog_calm());
    started(&server);
    let mut signals = until_ended(&server, source, signals).await;
    notify::stopping();
    let code = tokio::select! {
        () = server.shut_down() => ExitCode::SUCCESS,
        // Whoever asks twice does not want to wait.
        () = signals.end() => ExitCode::SUCCESS,
    };
    watchdog.abort();
    code
}

/// Reloads as often as it is asked to, and returns when the end is asked for.
async fn until_ended(server: &Server, source: &Source, mut signals: Signals) -> Signals {
    let mut changes = Changes::new(source);
    loop {
        let Signals {
            terminate,
            interrupt,
            hangup,
        } = &mut signals;
        tokio::select! {
            _ = terminate.recv() => return signals,
            _ = interrupt.recv() => return signals,
            _ = hangup.recv() => {}
            () = changes.next() => tracing::info!("the configuration file has changed"),
        }
        notify::reloading();
        reload(server, source.file.as_deref());
        notify::ready();
    }
}

fn reload(server: &Server, file: Option<&Path>) {
    let Some(file) = file else {
        tracing::warn!("reload refused: the configuration came from the command line");
        return;
    };
    // A few kilobytes, and rarely: not worth another thread.
    let loaded = match Config::load(file, &Environment::Process) {
        Ok(loaded) => loaded,
        Err(errors) => {
            for error in errors.iter() {
                tracing::error!(%error, "configuration");
            }
            server.reload_refused();
            tracing::error!("reload refused: the configuration before stays in force");
            return;
        }
    };
    for warning in &loaded.warnings {
        tracing::warn!(%warning, "configuration");
    }
    match server.reload(loaded.config) {
        Ok(()) => tracing::info!("reloaded"),
        Err(error) => tracing::error!(%error, "reload refused: the configuration before stays in force"),
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Tells when a watched file has changed.
struct Changes {
    watched: Option<(PathBuf, Option<FileStamp>)>,
    every: tokio::time::Interval,
}

impl Changes {
    fn new(source: &Source) -> Self {
        let watched = source.file.clone().filter(|_| source.watch == Watch::File);
        let mut every = tokio::time::interval(WATCH_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            watched: watched.map(|file| (file, source.stamp)),
            every,
        }
    }

    async fn next(&mut self) {
        let Some((file, seen)) = &mut self.watched else {
            return pending().await;
        };
        loop {
            self.every.tick().await;
            let now = FileStamp::of(file);
            // A file that is not there is being replaced.
            if now.is_some() && now != *seen {
                *seen = now;
                return;
            }
        }
    }
}

/// Each connection takes a descriptor, and so does each one to an upstream: the usual soft limit of 1,024 is soon reached.
fn raise_file_limit() {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => tracing::info!(limit, "open files"),
        Err(error) => tracing::warn!(%error, "the limit of open files cannot be raised"),
    }
}
