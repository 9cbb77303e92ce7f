//! `servers_file` is looked at for as long as its upstream lives.

use std::io::Read as _;
use std::path::Path;
use std::sync::Weak;
use std::time::Duration;

use super::Upstream;
use crate::config::UpstreamServer;
use crate::config::servers_file::{BadLine, parse};
use crate::tls::FileStamp;

/// How often the file is looked at. A change is taken up when two looks in a row find the same, so that nobody reads half a file.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Bytes. A thousand servers with all that can be said of them have a tenth of it.
const MAX_FILE: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("{0}")]
    Unreadable(#[from] std::io::Error),
    #[error("it is larger than {MAX_FILE} bytes")]
    TooLarge,
    #[error("line {0}")]
    Line(#[from] BadLine),
    #[error("it names no server")]
    Empty,
}

/// The servers, with the stamp that the file had before it was read.
pub(super) fn read(path: &Path) -> Result<(Vec<UpstreamServer>, Option<FileStamp>), FileError> {
    let stamp = FileStamp::of(path);
    let mut text = String::new();
    std::fs::File::open(path)?
        .take(MAX_FILE + 1)
        .read_to_string(&mut text)?;
    match text.len() as u64 > MAX_FILE {
        true => Err(FileError::TooLarge),
        false => Ok((parse(&text)?, stamp)),
    }
}

pub(super) fn warn(upstream: &str, path: &Path, error: &FileError) {
    let at = match error {
        FileError::Line(bad) => format!("{}:{}", path.display(), bad.line),
        _ => path.display().to_string(),
    };
    tracing::error!(upstream, file = at, %error, "servers_file is not taken up, the servers before stay in use");
}

/// Takes up changes of the file.
pub(in crate::upstream) async fn watch(upstream: Weak<Upstream>) {
    let mut every = tokio::time::interval(LOOK_EVERY);
    let mut taken_up = None;
    let mut last_seen = None;
    loop {
        every.tick().await;
        let Some(upstream) = upstream.upgrade() else { return };
        let Some(path) = upstream.config.servers_file.clone() else {
            return;
        };
        let looked = tokio::task::spawn_blocking(move || {
            let stamp = FileStamp::of(&path);
            let is_news = Some(stamp) != taken_up && Some(stamp) == last_seen;
            (stamp, is_news.then(|| read(&path)), path)
        });
        let Ok((stamp, news, path)) = looked.await else {
            continue;
        };
        last_seen = Some(stamp);
        let Some(read) = news else { continue };
        // Whatever it says: it is said once.
        taken_up = Some(stamp);
        let has_servers = !upstream.discovery.found.lock().file.is_empty();
        let read = match read {
            Ok((servers, _)) if servers.is_empty() && has_servers => Err(FileError::Empty),
            read => read,
        };
        match read {
            Ok((servers, _)) => {
                upstream.found(|found| found.file = servers);
                upstream.discovery.names_changed.notify_one();
            }
            Err(error) => warn(&upstream.config.name, &path, &error),
        }
    }
}
