//! Lines under labels, and values as people read them.

use std::fmt::{Display, Write as _};
use std::time::Duration;

use crate::http1::encode;

/// Columns of the labels.
const LABEL: usize = 12;

/// The text so far.
#[derive(Debug, Default)]
pub struct Text(String);

impl Text {
    /// A line with its label.
    pub fn line(&mut self, label: &str, line: impl Display) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{label:<LABEL$} {line}");
    }

    /// A further line under the same label.
    pub fn more(&mut self, line: impl Display) {
        self.line("", line);
    }

    /// Lines under one label.
    pub fn block(&mut self, label: &str, lines: impl IntoIterator<Item = String>) {
        let mut label = label;
        for line in lines {
            self.line(label, line);
            label = "";
        }
    }

    /// Rows of two columns under one label.
    pub fn table(&mut self, label: &str, rows: &[(String, String)]) {
        let width = rows
            .iter()
            .map(|(left, _)| left.chars().count())
            .max()
            .unwrap_or_default();
        self.block(
            label,
            rows.iter().map(|(left, right)| format!("{left:<width$}  {right}")),
        );
    }

    pub fn into_string(self) -> String {
        self.0
    }
}

/// A field value for the eye.
pub fn lossy(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}

/// As it is sent: `HTTP/1.1 404 Not Found`.
pub fn status_line(status: u16) -> String {
    let mut line = Vec::new();
    encode::status_line(&mut line, status);
    lossy(line.trim_ascii_end())
}

/// `30 s`, `5 min`, `1 h`, `500 ms`: the largest unit that says it exactly.
pub fn span(duration: Duration) -> String {
    let (seconds, millis) = (duration.as_secs(), duration.subsec_millis());
    match (seconds, millis) {
        (0, 0) => "0 s".to_owned(),
        (_, 1..) => format!("{} ms", duration.as_millis()),
        _ if seconds.is_multiple_of(3600) => format!("{} h", seconds / 3600),
        _ if seconds.is_multiple_of(60) => format!("{} min", seconds / 60),
        _ => format!("{seconds} s"),
    }
}

/// [`span`], or that there is no limit.
pub fn limit(duration: Option<Duration>) -> String {
    match duration {
        Some(duration) => span(duration),
        None => "unlimited".to_owned(),
    }
}

/// `10 MiB`: the largest unit that says it exactly.
pub fn size(bytes: u64) -> String {
    for (unit, name) in [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
        if bytes >= unit && bytes.is_multiple_of(unit) {
            return format!("{} {name}", bytes / unit);
        }
    }
    format!("{bytes} bytes")
}

/// `1 server`, `2 servers`.
pub fn count(number: usize, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        number => format!("{number} {noun}s"),
    }
}
