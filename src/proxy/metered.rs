//! Bodies of answers that are looked through for the tokens that they took.

use std::task::{Context, Poll, ready};

use super::relay::{RelayError, Source};
use crate::limit::tokens::meter::Meter;
use crate::message::BodyEvent;
use crate::upstream::Origin;

/// A body as it comes, shown to a meter as it passes.
#[derive(Debug)]
pub struct Metered<'m, S> {
    source: S,
    meter: &'m mut Meter,
}

impl<'m, S: Source> Metered<'m, S> {
    pub fn new(source: S, meter: &'m mut Meter) -> Self {
        Self { source, meter }
    }
}

impl<S: Source> Source for Metered<'_, S> {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyEvent, RelayError>> {
        let event = ready!(self.source.poll_piece(cx));
        if let Ok(BodyEvent::Data(data)) = &event {
            self.meter.pass(data);
        }
        Poll::Ready(event)
    }

    fn origin(&mut self) -> Option<&mut Origin> {
        self.source.origin()
    }
}
