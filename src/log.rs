//! The two logs: what the program says of itself goes to stderr through `tracing`, what it did for clients goes to the
//! [access log](access).

pub mod access;
mod format;
pub(crate) mod redact;

use std::io::IsTerminal;
use std::{fmt, io};

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, Registry, reload};

use crate::config::Level;

/// Starts the program log on stderr: JSON lines for machines, readable ones on a terminal. Once in a process.
///
/// # Errors
/// Where another logger has been set already.
pub fn start(level: Level) -> Result<ProgramLog, StartError> {
    let form = match io::stderr().is_terminal() {
        true => Form::Readable,
        false => Form::Json,
    };
    let (subscriber, log) = subscriber(form, io::stderr, level);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| StartError)?;
    log::set_boxed_logger(Box::new(Bridge)).map_err(|_| StartError)?;
    log::set_max_level(bridged(level));
    Ok(log)
}

/// The program log as it runs.
#[derive(Debug, Clone)]
pub struct ProgramLog {
    filter: reload::Handle<LevelFilter, Registry>,
}

impl ProgramLog {
    /// From now on what is less severe than `level` is left out.
    pub fn set_level(&self, level: Level) {
        // Fails only where the subscriber is gone, and then nothing is logged anyway.
        let _ = self.filter.reload(filter(level));
        log::set_max_level(bridged(level));
    }
}

/// The program log was started twice.
#[derive(Debug)]
pub struct StartError;

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a logger has been set already")
    }
}

impl std::error::Error for StartError {}

/// Who reads the program log.
#[derive(Debug, Clone, Copy)]
enum Form {
    Json,
    Readable,
}

fn subscriber<W>(form: Form, writer: W, level: Level) -> (impl Subscriber + Send + Sync, ProgramLog)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    // A stderr that is gone must not end the process: the layer would report it with a panicking macro.
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .log_internal_errors(false);
    let layer = match form {
        Form::Json => layer
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .boxed(),
        Form::Readable => layer.boxed(),
    };
    let (filter, handle) = reload::Layer::new(filter(level));
    let subscriber = Registry::default().with(filter).with(layer);
    (subscriber, ProgramLog { filter: handle })
}

fn filter(level: Level) -> LevelFilter {
    match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    }
}

/// The most verbose level at which records of the `log` crate are taken. At `error` the bridge still needs none but errors.
fn bridged(level: Level) -> log::LevelFilter {
    match level {
        Level::Error => log::LevelFilter::Error,
        Level::Warn => log::LevelFilter::Warn,
        Level::Info => log::LevelFilter::Info,
        Level::Debug => log::LevelFilter::Debug,
        Level::Trace => log::LevelFilter::Trace,
    }
}

/// Takes what libraries say through the `log` crate.
///
/// Pingora reports clients that break off or speak nonsense as errors, and its own doings at `info`. The first is nobody's fault
/// here, so it is a warning at most; the second is of use only to who debugs.
#[derive(Debug)]
struct Bridge;

impl Bridge {
    /// `None`: not worth a line.
    fn level(metadata: &log::Metadata<'_>, max: log::LevelFilter) -> Option<log::Level> {
        if metadata.level() > max {
            return None;
        }
        if !metadata.target().starts_with("pingora") {
            return Some(metadata.level());
        }
        match metadata.level() {
            log::Level::Error | log::Level::Warn if max >= log::LevelFilter::Warn => Some(log::Level::Warn),
            level if max >= log::LevelFilter::Debug => Some(level),
            _ => None,
        }
    }
}

impl log::Log for Bridge {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        Self::level(metadata, log::max_level()).is_some()
    }

    fn log(&self, record: &log::Record<'_>) {
        let Some(level) = Self::level(record.metadata(), log::max_level()) else {
            return;
        };
        let record = log::Record::builder()
            .args(*record.args())
            .level(level)
            .target(record.target())
            .module_path(record.module_path())
            .file(record.file())
            .line(record.line())
            .build();
        // Never fails: the result is there for the sake of the function's other users.
        let _ = tracing_log::format_trace(&record);
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use log::Log;
    use tracing::{debug, info, warn};

    use super::*;

    /// A place for log lines.
    #[derive(Clone, Default)]
    pub(super) struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Lines {
        pub(super) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }

        pub(super) fn json(&self) -> Vec<serde_json::Value> {
            self.text()
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect()
        }
    }

    impl Write for Lines {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(buf);
            Ok(buf.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Runs `act` with a program log of its own, in JSON.
    pub(super) fn json_log(act: impl FnOnce()) -> Lines {
        logged(Form::Json, Level::Info, |_| act())
    }

    fn logged(form: Form, level: Level, act: impl FnOnce(&ProgramLog)) -> Lines {
        let lines = Lines::default();
        let writer = lines.clone();
        let (subscriber, log) = subscriber(form, move || writer.clone(), level);
        tracing::subscriber::with_default(subscriber, || act(&log));
        lines
    }

    #[test]
    fn json_fields_stand_at_the_top() {
        let lines = logged(Form::Json, Level::Info, |_| {
            info!(address = "127.0.0.1:8080", kind = "http", "listening");
            warn!(reason = "line\nbreak \"quoted\"", "second");
        });
        let json = lines.json();
        assert_eq!(json.len(), 2);
        assert_eq!(json[0]["message"], "listening");
        assert_eq!(json[0]["address"], "127.0.0.1:8080");
        assert_eq!(json[0]["kind"], "http");
        assert_eq!(json[0]["level"], "INFO");
        assert!(json[0]["timestamp"].is_string() && json[0]["target"].is_string());
        assert_eq!(json[1]["reason"], "line\nbreak \"quoted\"");
    }

    #[test]
    fn readable_lines_are_no_json() {
        let lines = logged(Form::Readable, Level::Info, |_| {
            info!(address = "127.0.0.1:8080", "listening")
        });
        assert!(lines.text().contains("listening"), "{}", lines.text());
        assert!(!lines.text().starts_with('{'));
    }

    #[test]
    fn the_level_changes_at_run_time() {
        let lines = logged(Form::Json, Level::Warn, |log| {
            info!("one");
            log.set_level(Level::Debug);
            debug!("two");
            log.set_level(Level::Error);
            warn!("three");
        });
        let messages: Vec<_> = lines.json().iter().map(|line| line["message"].clone()).collect();
        assert_eq!(messages, ["two"]);
    }

    #[test]
    fn what_libraries_say_is_bridged_and_pingora_is_quieted() {
        use log::Level::{Debug, Error, Info, Warn};
        use log::LevelFilter as Max;
        for (target, level, max, expected) in [
            ("rustls::server", Error, Max::Info, Some(Error)),
            ("rustls::server", Info, Max::Info, Some(Info)),
            ("rustls::server", Debug, Max::Info, None),
            ("pingora_core::services", Error, Max::Info, Some(Warn)),
            ("pingora_core::services", Error, Max::Error, None),
            ("pingora_core::services", Warn, Max::Warn, Some(Warn)),
            ("pingora_core::services", Info, Max::Info, None),
            ("pingora_core::services", Info, Max::Debug, Some(Info)),
            ("pingora_core::services", Debug, Max::Debug, Some(Debug)),
        ] {
            let metadata = log::Metadata::builder().target(target).level(level).build();
            assert_eq!(Bridge::level(&metadata, max), expected, "{target} {level} with {max}");
        }
    }

    #[test]
    fn bridged_records_keep_their_target() {
        let lines = logged(Form::Json, Level::Trace, |_| {
            // The `log` crate has one level for the whole process.
            log::set_max_level(log::LevelFilter::Trace);
            let mut record = log::Record::builder();
            let record = record.level(log::Level::Error).target("rustls::server");
            Bridge.log(&record.args(format_args!("handshake failed")).build());
        });
        let json = lines.json();
        assert_eq!(json[0]["message"], "handshake failed");
        assert_eq!(json[0]["target"], "rustls::server");
        assert_eq!(json[0]["level"], "ERROR");
    }
}
