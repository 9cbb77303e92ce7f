//! Requests meet the limits of their route.

use super::{Decided, Proxy};
use crate::edge::client::Client;
use crate::exchange::Exchange;
use crate::limit::keys::Subject;
use crate::limit::rate::Stage;
use crate::message::{Framing, RequestHead};
use crate::respond::error::ProxyError;

impl Proxy {
    /// Whether the request's limits let it in, as far as they are looked at now. Costs nothing where there are none.
    pub(super) fn admit(&self, decided: &Decided<'_>, stage: Stage, exchange: &mut Exchange) -> Result<(), ProxyError> {
        let route = decided.generation.routes.get(decided.index);
        let Some(limits) = route.and_then(|route| route.limits.as_ref()) else {
            return Ok(());
        };
        let subject = Subject {
            request: decided.request,
            client: exchange.client.ip,
            route: &decided.route.name,
        };
        limits
            .admit(stage, subject, self.clock.uptime(), &mut exchange.standing)
            .map_err(|too_many| ProxyError::RateLimited(Box::new(too_many)))
    }

    /// Queues the answer to a request that is too much: no task, no timer, no upstream.
    pub(super) fn queue_refusal(
        &self,
        error: ProxyError,
        request: &RequestHead,
        client: &mut Client,
        exchange: &mut Exchange,
    ) {
        exchange.error = Some(error.reason());
        let (head, body) = self.render(&error, &request.fields, exchange);
        exchange.status = head.status;
        let has_body = head.framing != Framing::None;
        client.respond(head);
        if has_body {
            exchange.response_bytes = body.len() as u64;
            client.send(body);
        }
        client.finish(None);
    }
}
