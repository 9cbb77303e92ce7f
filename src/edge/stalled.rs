//! Until when a client that does not read may be waited for.

use std::time::Duration;

use tokio::time::Instant;

/// Between two writes to a client that made progress. A reader this slow holds memory and a connection to the origin.
pub const WRITE_PROGRESS: Duration = Duration::from_secs(30);

/// When it is too late for a client to go on reading: [`WRITE_PROGRESS`] after it has last taken something.
#[derive(Debug, Default)]
pub struct Stalled {
    written: u64,
    deadline: Option<Instant>,
}

impl Stalled {
    /// To be asked whenever something has to wait for the client that has taken `written` bytes in all.
    pub fn after(&mut self, written: u64) -> Option<Instant> {
        // Counts from when something has to wait.
        if written != self.written || self.deadline.is_none() {
            self.written = written;
            self.deadline = Some(Instant::now() + WRITE_PROGRESS);
        }
        self.deadline
    }
}
