//! The data of an event stream (<https://html.spec.whatwg.org/multipage/server-sent-events.html>), without a copy of it.

/// What the lines that matter begin with.
const DATA: &[u8] = b"data:";

/// What comes next of a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'d> {
    /// Of the data of an event.
    Data(&'d [u8]),
    /// A line of it is over.
    LineEnd,
    /// The event is over.
    EventEnd,
}

/// How far a stream has been read.
#[derive(Debug, Clone, Default)]
pub struct EventData {
    line: Line,
    after_return: AfterReturn,
}

#[derive(Debug, Clone, Copy)]
enum Line {
    /// So many bytes have come, and are as in [`DATA`].
    Beginning(usize),
    Data,
    Other,
}

/// CR LF is one end of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum AfterReturn {
    #[default]
    No,
    Yes,
}

impl Default for Line {
    fn default() -> Self {
        Self::Beginning(0)
    }
}

impl EventData {
    /// Reads on and hands over what is data.
    pub fn pass<'d>(&mut self, mut data: &'d [u8], mut piece: impl FnMut(Piece<'d>)) {
        while let Some((first, rest)) = data.split_first() {
            let after_return = std::mem::take(&mut self.after_return);
            if *first == b'\n' && after_return == AfterReturn::Yes {
                data = rest;
                continue;
            }
            if let b'\r' | b'\n' = first {
                if *first == b'\r' {
                    self.after_return = AfterReturn::Yes;
                }
                match std::mem::take(&mut self.line) {
                    Line::Beginning(0) => piece(Piece::EventEnd),
                    Line::Data => piece(Piece::LineEnd),
                    Line::Beginning(_) | Line::Other => {}
                }
                data = rest;
                continue;
            }
            match self.line {
                Line::Beginning(read) if DATA.get(read) == Some(first) => {
                    self.line = match read + 1 == DATA.len() {
                        true => Line::Data,
                        false => Line::Beginning(read + 1),
                    };
                    data = rest;
                }
                Line::Beginning(_) => self.line = Line::Other,
                Line::Data | Line::Other => {
                    let end = memchr::memchr2(b'\r', b'\n', data).unwrap_or(data.len());
                    let (line, rest) = data.split_at(end);
                    if matches!(self.line, Line::Data) {
                        piece(Piece::Data(line));
                    }
                    data = rest;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The data of each event that has ended, and of the one that has not.
    fn events(pieces: &[&str]) -> Vec<String> {
        let (mut reader, mut events) = (EventData::default(), vec![String::new()]);
        for text in pieces {
            reader.pass(text.as_bytes(), |piece| {
                let last = events.last_mut().unwrap();
                match piece {
                    Piece::Data(data) => last.push_str(std::str::from_utf8(data).unwrap()),
                    Piece::LineEnd => last.push('|'),
                    Piece::EventEnd => events.push(String::new()),
                }
            });
        }
        events
    }

    #[test]
    fn data_is_found_at_every_cut_and_with_every_end_of_line() {
        let stream = ":comment\nevent: a\ndata: one\n\ndata:two\ndata: three\nid: 4\ndat: no\n\ndata";
        for end in ["\n", "\r", "\r\n"] {
            let stream = stream.replace('\n', end);
            let expected = [" one|", "two| three|", ""];
            for at in 0..stream.len() {
                let (a, b) = stream.split_at(at);
                assert_eq!(events(&[a, b]), expected, "{end:?} cut at {at}");
            }
        }
    }
}
