//! Refreshing what is asked for often shortly before it expires, so that no client ever waits for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::cached::{Found, known_variant};
use super::{Decided, Proxy};
use crate::cache::flight::Destination;
use crate::config::RefreshAhead;
use crate::exchange::Exchange;
use crate::generation::CacheRules;
use crate::key::CacheKey;
use crate::rfc9111::date::Timestamp;
use crate::rfc9111::stored::StoredMeta;

impl RefreshAhead {
    /// Whether a fresh response is in its last moments.
    #[inline]
    pub fn is_near(&self, meta: &StoredMeta, now: Timestamp) -> bool {
        let lifetime = meta.lifetime.seconds.duration();
        // Of a second a thousandth is a millisecond.
        let before = Duration::from_millis(u64::from(meta.lifetime.seconds.get()) * u64::from(self.permille));
        lifetime.saturating_sub(meta.age(now)) <= before
    }
}

impl Proxy {
    /// A client gets a response that soon expires: if others did so, too, it is validated meanwhile.
    #[cold]
    pub(super) fn refresh_ahead(
        self: &Arc<Self>,
        decided: &Decided<'_>,
        (rules, ahead): (&CacheRules, &RefreshAhead),
        key: &CacheKey,
        found: &Found,
        exchange: &Exchange,
    ) {
        let request = decided.request;
        let Some(stored) = &found.stored else { return };
        // What everybody gets is not asked for with one client's credentials.
        if request.fields.contains("authorization")
            || !self.cache.ahead.is_due(key, stored.meta.received, ahead.min_hits)
        {
            return;
        }
        let upstream = decided.generation.upstreams.get(decided.route.upstream);
        if !upstream.is_some_and(|upstream| upstream.is_closed()) {
            return;
        }
        let Some(place) = self.cache.ahead.begin(Instant::now()) else {
            return;
        };
        self.metrics.refreshed_ahead();
        let destination = Destination {
            key: key.clone(),
            variant: known_variant(request, found, rules),
            epoch: self.cache.epochs.of_key(key),
        };
        self.refresh_behind(decided, destination, stored, exchange, Some(place));
    }
}
