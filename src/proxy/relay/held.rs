//! The part of a request body that was read from the client, so that it can be sent again.

use bytes::Bytes;

use crate::message::{BodyEvent, Fields};
use crate::upstream::retry::Body;

/// Pieces of a body, as long as they are few. They are the buffers that the request came in: nothing is copied.
#[derive(Debug, Default)]
pub struct Held {
    pieces: Vec<Bytes>,
    /// Bytes that may still be added.
    room: usize,
    /// The body's end was read, with these trailers.
    end: Option<Option<Fields>>,
    /// Pieces that were sent again.
    next: usize,
    is_end_sent: bool,
    lost: Lost,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Lost {
    #[default]
    Nothing,
    Something,
}

impl Held {
    /// Holds up to so many bytes.
    pub fn new(room: usize) -> Self {
        Self {
            room,
            ..Self::default()
        }
    }

    /// Whether what was read is here.
    pub fn body(&self) -> Body {
        match self.lost {
            Lost::Nothing => Body::Held,
            Lost::Something => Body::Gone,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.end.is_none()
    }

    /// A piece was read.
    pub fn push(&mut self, data: &Bytes) {
        if self.lost == Lost::Something {
            return;
        }
        if data.len() > self.room {
            self.lost = Lost::Something;
            self.pieces = Vec::new();
            return;
        }
        self.room -= data.len();
        self.pieces.push(data.clone());
        self.next = self.pieces.len();
    }

    /// The end was read.
    pub fn finish(&mut self, trailers: Option<&Fields>) {
        self.end = Some(trailers.cloned());
        self.is_end_sent = true;
    }

    /// From now on nothing has to be sent again.
    pub fn let_go(&mut self) {
        if !self.is_empty() {
            self.lost = Lost::Something;
        }
        self.pieces = Vec::new();
        self.room = 0;
    }

    /// From the beginning.
    pub fn rewind(&mut self) {
        self.next = 0;
        self.is_end_sent = false;
    }

    /// What was read before and has not been sent again.
    pub fn next(&mut self) -> Option<BodyEvent> {
        if let Some(piece) = self.pieces.get(self.next) {
            self.next += 1;
            return Some(BodyEvent::Data(piece.clone()));
        }
        match &self.end {
            Some(trailers) if !self.is_end_sent => {
                self.is_end_sent = true;
                Some(BodyEvent::End(trailers.clone()))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rest(held: &mut Held) -> String {
        let mut rest = String::new();
        while let Some(event) = held.next() {
            match event {
                BodyEvent::Data(data) => rest += &String::from_utf8_lossy(&data),
                BodyEvent::End(trailers) => rest += if trailers.is_some() { "+" } else { "." },
            }
        }
        rest
    }

    #[test]
    fn what_was_read_comes_again_and_then_what_follows() {
        let mut held = Held::new(10);
        assert_eq!(held.body(), Body::Held);
        held.push(&Bytes::from_static(b"one"));
        held.push(&Bytes::from_static(b"two"));
        assert_eq!(rest(&mut held), "");
        held.rewind();
        assert_eq!(rest(&mut held), "onetwo");
        held.push(&Bytes::from_static(b"3"));
        held.finish(Some(&Fields::new()));
        assert_eq!(rest(&mut held), "");
        held.rewind();
        assert_eq!(rest(&mut held), "onetwo3+");
        assert_eq!(held.body(), Body::Held);
    }

    #[test]
    fn what_is_too_much_or_no_longer_needed_is_gone() {
        let mut held = Held::new(4);
        held.push(&Bytes::from_static(b"four"));
        assert_eq!(held.body(), Body::Held);
        held.push(&Bytes::from_static(b"5"));
        assert_eq!(held.body(), Body::Gone);
        assert!(held.pieces.is_empty());

        let mut held = Held::new(4);
        held.let_go();
        assert_eq!(held.body(), Body::Held, "nothing was read");
        held.push(&Bytes::from_static(b"x"));
        assert_eq!(held.body(), Body::Gone);
    }
}
