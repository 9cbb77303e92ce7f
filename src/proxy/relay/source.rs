//! Where response bodies come from.

use std::task::{Context, Poll, ready};

use super::RelayError;
use crate::cache::FillReader;
use crate::message::BodyEvent;
use crate::upstream::Origin;

/// Where a response body comes from.
pub trait Source {
    /// The next piece.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyEvent, RelayError>>;

    /// The origin, where it is one: it may still be taking the request.
    fn origin(&mut self) -> Option<&mut Origin>;
}

impl<S: Source> Source for &mut S {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyEvent, RelayError>> {
        (**self).poll_piece(cx)
    }

    fn origin(&mut self) -> Option<&mut Origin> {
        (**self).origin()
    }
}

impl Source for Origin {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyEvent, RelayError>> {
        self.poll_body(cx).map_err(RelayError::Origin)
    }

    fn origin(&mut self) -> Option<&mut Origin> {
        Some(self)
    }
}

impl Source for FillReader {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyEvent, RelayError>> {
        match ready!(FillReader::poll_piece(self, cx)) {
            Ok(Some(data)) => Poll::Ready(Ok(BodyEvent::Data(data))),
            Ok(None) => Poll::Ready(Ok(BodyEvent::End(None))),
            Err(broken) => Poll::Ready(Err(RelayError::Fill(broken))),
        }
    }

    fn origin(&mut self) -> Option<&mut Origin> {
        None
    }
}
