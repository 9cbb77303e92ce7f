//! After a 101 what goes both ways is no longer HTTP.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use super::progress::{Due, Now, after, earliest};
use super::upload::Upload;
use super::{HIGH_WATER, Relay, RelayError};
use crate::edge::client::Client;
use crate::io::Alarm;
use crate::message::BodyEvent;
use crate::upstream::Origin;

impl Relay {
    /// Bytes both ways until one side ends, or both have been silent for `idle`.
    pub async fn tunnel(
        &mut self,
        client: &mut Client,
        origin: &mut Origin,
        alarm: &mut Alarm,
        idle: Duration,
    ) -> Result<(), RelayError> {
        self.upload = Upload::Streaming;
        self.limits.request_body = None;
        self.limits.heartbeat = None;
        let mut ended = false;
        poll_fn(|cx| {
            let mut now = Now::default();
            loop {
                if let Poll::Ready(result) = self.poll_upload(cx, client, origin, &mut now) {
                    result?;
                    ended = true;
                }
                let mut full = false;
                while !ended {
                    if client.backlog() >= HIGH_WATER {
                        full = true;
                        break;
                    }
                    match origin.poll_body(cx) {
                        Poll::Ready(Ok(BodyEvent::Data(data))) => {
                            self.origin_read = now.read();
                            self.sent += data.len() as u64;
                            client.send(data);
                        }
                        Poll::Ready(Ok(BodyEvent::End(_))) => ended = true,
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                        Poll::Pending => break,
                    }
                }
                match client.poll_flush(cx)? {
                    Poll::Ready(()) if ended => return Poll::Ready(Ok(())),
                    Poll::Ready(()) if full => continue,
                    Poll::Ready(()) => self.client_wrote.flushed(client.written(), &mut now),
                    Poll::Pending => self.client_wrote.stuck(client.written(), client.backlog(), &mut now),
                }
                let active = self.client_read.max(self.origin_read);
                let (deadline, due) = earliest([
                    Some((active + idle, Due::OriginSilent)),
                    self.client_wrote
                        .waits
                        .then(|| (self.client_wrote.at + self.limits.write, Due::ClientStalled)),
                    after(
                        self.origin_wrote.at,
                        self.limits.send.filter(|_| self.origin_wrote.waits),
                        Due::OriginSilent,
                    ),
                ]);
                match (alarm.poll(cx, deadline), due) {
                    (Poll::Pending, _) => return Poll::Pending,
                    (Poll::Ready(_), Due::ClientStalled) => {
                        return Poll::Ready(Err(RelayError::ClientStalled(self.limits.write)));
                    }
                    (Poll::Ready(_), _) => return Poll::Ready(Ok(())),
                }
            }
        })
        .await
    }
}
