//! What has to be known of `text/event-stream` to let it through without disturbing it.

/// The longest end of line twice: enough to see whether an event has just ended.
const TAIL: usize = 4;

/// Sent when a stream has been silent for the configured time: a comment, which readers of the stream ignore.
pub const HEARTBEAT: &[u8] = b":\n\n";

/// Knows whether the bytes so far end between two events.
#[derive(Debug, Clone, Default)]
pub struct EventBoundary {
    tail: [u8; TAIL],
    len: usize,
}

impl EventBoundary {
    /// Takes note of the next bytes of the stream.
    pub fn pass(&mut self, data: &[u8]) {
        let new = &data[data.len().saturating_sub(TAIL)..];
        let kept = (TAIL - new.len()).min(self.len);
        self.tail.copy_within(self.len - kept..self.len, 0);
        self.tail[kept..kept + new.len()].copy_from_slice(new);
        self.len = kept + new.len();
    }

    /// Whether a comment could be put in here: nothing has come yet, or the last line was empty. Lines end with CR LF, LF
    /// or CR.
    pub fn is_between_events(&self) -> bool {
        let tail = &self.tail[..self.len];
        let last_line = match tail {
            [] => return true,
            [rest @ .., b'\r', b'\n'] | [rest @ .., b'\n' | b'\r'] => rest,
            _ => return false,
        };
        matches!(last_line, [] | [.., b'\n' | b'\r'])
    }
}

/// Whether a `Content-Type` is that of an event stream.
pub fn is_event_stream(content_type: &[u8]) -> bool {
    const EVENT_STREAM: &[u8] = b"text/event-stream";
    let Some((essence, rest)) = content_type.trim_ascii_start().split_at_checked(EVENT_STREAM.len()) else {
        return false;
    };
    // What is behind it is looked at last: most other types are shorter, or begin in another way.
    essence.eq_ignore_ascii_case(EVENT_STREAM) && matches!(rest.trim_ascii_start(), [] | [b';', ..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_line_ends_an_event() {
        for (pieces, expected) in [
            (vec![], true),
            (vec!["data: a\n\n"], true),
            (vec!["data: a\n"], false),
            (vec!["data: a\n", "\n"], true),
            (vec!["data: a\r\n\r\n"], true),
            (vec!["data: a\r\n", "\r\n"], true),
            (vec!["data: a\r", "\n\r", "\n"], true),
            (vec!["data: a\r\n"], false),
            (vec!["data: a\r\r"], true),
            (vec!["data: a\n\n", "d"], false),
            (vec!["\n"], true),
            (vec!["a"], false),
            (vec!["data: a", "\n", "\n", "data: b\n"], false),
            (vec!["x\n\r\n"], true),
        ] {
            let mut boundary = EventBoundary::default();
            for piece in &pieces {
                boundary.pass(piece.as_bytes());
            }
            assert_eq!(boundary.is_between_events(), expected, "{pieces:?}");
        }
    }

    #[test]
    fn the_content_type_decides() {
        for (content_type, expected) in [
            ("text/event-stream", true),
            ("Text/Event-Stream; charset=utf-8", true),
            (" text/event-stream ;x", true),
            ("text/event-stream\t", true),
            ("text/event-stream x", false),
            ("text/event-streams", false),
            ("application/json", false),
            ("", false),
        ] {
            assert_eq!(is_event_stream(content_type.as_bytes()), expected, "{content_type:?}");
        }
    }
}
