//! Where the access log goes.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;

use tracing::{info, warn};

use crate::config::{self, LogPath};

/// For the service and its group: client addresses are nobody else's business.
const FILE_MODE: u32 = 0o640;

/// An open destination, and the configuration that it was opened for.
#[derive(Debug)]
pub struct Destination(Option<Open>);

#[derive(Debug)]
struct Open {
    config: config::AccessLog,
    file: File,
    state: State,
}

/// How the last write went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Working,
    /// It was reported, and will not be again until it works.
    Failed {
        end: LineEnd,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LineEnd {
    Whole,
    /// A part of a line was written: the next one must not continue it.
    Torn,
}

impl Destination {
    /// Opens what `config` asks for. `None`: no access log.
    ///
    /// # Errors
    /// Where the file can be neither opened nor made.
    pub fn open(config: Option<&config::AccessLog>) -> io::Result<Self> {
        let Some(config) = config else {
            return Ok(Self(None));
        };
        // The standard streams as plain files: the library's own would buffer lines and keep what they failed to write.
        let file = match &config.path {
            LogPath::Stdout => File::from(io::stdout().as_fd().try_clone_to_owned()?),
            LogPath::Stderr => File::from(io::stderr().as_fd().try_clone_to_owned()?),
            LogPath::File(path) => OpenOptions::new()
                .append(true)
                .create(true)
                .mode(FILE_MODE)
                .open(path)?,
        };
        Ok(Self(Some(Open {
            config: config.clone(),
            file,
            state: State::Working,
        })))
    }

    /// `None`: there is no access log.
    pub fn config(&self) -> Option<&config::AccessLog> {
        self.0.as_ref().map(|open| &open.config)
    }

    /// Writes whole lines; answers how many were lost. A destination that fails (a full disk, a reader of stdout that left) is tried
    /// again with the next lines.
    pub(super) fn write_lines(&mut self, text: &[u8]) -> u64 {
        match &mut self.0 {
            Some(open) if !text.is_empty() => open.write_lines(text),
            _ => 0,
        }
    }
}

impl Open {
    fn write_lines(&mut self, text: &[u8]) -> u64 {
        let resumed = match self.state {
            State::Failed { end: LineEnd::Torn } => write_all(&mut self.file, b"\n"),
            State::Failed { end: LineEnd::Whole } | State::Working => Ok(()),
        };
        let written = match resumed {
            Ok(()) => write_all(&mut self.file, text),
            Err(Interrupted { error, .. }) => {
                self.failed(&error, LineEnd::Torn);
                return lines(text);
            }
        };
        match written {
            Ok(()) => {
                if self.state != State::Working {
                    info!("the access log is written again");
                    self.state = State::Working;
                }
                0
            }
            Err(Interrupted { error, written }) => {
                let (done, lost) = text.split_at(written);
                self.failed(
                    &error,
                    match done.last() {
                        None | Some(b'\n') => LineEnd::Whole,
                        Some(_) => LineEnd::Torn,
                    },
                );
                lines(lost)
            }
        }
    }

    fn failed(&mut self, error: &io::Error, end: LineEnd) {
        if self.state == State::Working {
            warn!(%error, path = ?self.config.path, "the access log cannot be written: entries are lost");
        }
        self.state = State::Failed { end };
    }
}

fn lines(text: &[u8]) -> u64 {
    text.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// A write that failed on the way.
#[derive(Debug)]
struct Interrupted {
    error: io::Error,
    written: usize,
}

/// Like [`Write::write_all`], but says how far it came.
fn write_all(to: &mut impl Write, bytes: &[u8]) -> Result<(), Interrupted> {
    let mut written = 0;
    while written < bytes.len() {
        match to.write(&bytes[written..]) {
            Ok(0) => {
                let error = io::ErrorKind::WriteZero.into();
                return Err(Interrupted { error, written });
            }
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Interrupted { error, written }),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes two bytes at a time, as often as it is told, and then fails.
    struct Failing(usize, Vec<u8>);

    impl Write for Failing {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(1).ok_or(io::ErrorKind::StorageFull)?;
            let count = bytes.len().min(2);
            self.1.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_failed_write_says_how_far_it_came() {
        for (writes, expected) in [(0, 0), (1, 2), (2, 4)] {
            let interrupted = write_all(&mut Failing(writes, Vec::new()), b"a\nb\nc\n").unwrap_err();
            assert_eq!(interrupted.written, expected);
        }
        assert!(write_all(&mut Failing(3, Vec::new()), b"a\nb\nc\n").is_ok());
    }

    #[test]
    fn a_torn_line_is_ended_before_the_next() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let config = config::AccessLog {
            format: config::AccessFormat::Json,
            path: LogPath::File(file.path().to_owned()),
            sample: 1.0,
            slow: None,
        };
        let mut destination = Destination::open(Some(&config)).unwrap();
        let open = destination.0.as_mut().unwrap();
        write_all(&mut open.file, b"torn").unwrap();
        open.failed(&io::ErrorKind::StorageFull.into(), LineEnd::Torn);
        assert_eq!(destination.write_lines(b"whole\n"), 0);
        assert_eq!(destination.write_lines(b"next\n"), 0);
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "torn\nwhole\nnext\n");
    }
}
