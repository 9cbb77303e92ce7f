//! What L1 does not have may be in L2; what comes from an origin goes there.

use std::sync::Arc;

use tokio::time::Instant;

use super::cached::Found;
use super::fill::subject;
use super::{Decided, Proxy};
use crate::cache::flight::{Destination, Landing};
use crate::cache::l2::{L2, Write};
use crate::cache::{Began, FetchDuty, Join, Stored};
use crate::config;
use crate::generation::CacheRules;
use crate::key::CacheKey;
use crate::message::RequestHead;
use crate::rfc9111::date::Timestamp;
use crate::rfc9111::reuse::{Forward, Reuse, reuse};
use crate::rfc9111::stored::StaleWindows;

/// What a lookup in L2 depends on beside the request.
#[derive(Debug, Clone)]
pub(super) struct Keeping {
    windows: StaleWindows,
    keep: std::time::Duration,
    route: Arc<str>,
    began: Began,
}

impl Keeping {
    pub(super) fn of(rules: &CacheRules, route: &config::Route, began: Began) -> Self {
        Self {
            windows: rules.reuse.windows,
            keep: rules.keep,
            route: route.name.clone(),
            began,
        }
    }

    pub(super) fn route(&self) -> &str {
        &self.route
    }

    pub(super) fn write(self, key: CacheKey, stored: Arc<Stored>) -> Write {
        Write {
            route: self.route,
            began: self.began,
            key,
            stored,
            windows: self.windows,
            keep: self.keep,
        }
    }
}

impl Proxy {
    /// Whether L2 may know better than L1.
    pub(super) fn worth_a_look(&self, request: &RequestHead, rules: &CacheRules, found: &Found) -> Option<&L2> {
        let l2 = self.cache.l2.as_ref().filter(|l2| l2.is_available())?;
        let may_help = match found.decision {
            Reuse::Forward(reason) | Reuse::Validate(reason) => matches!(
                reason,
                Forward::UriMiss | Forward::VaryMiss | Forward::Miss | Forward::Stale
            ),
            Reuse::GatewayTimeout => true,
            Reuse::Fresh(_) | Reuse::Stale(..) => false,
        };
        if !may_help {
            return None;
        }
        // Neither what must always be validated nor what insists on the origin is answered from anywhere else.
        let always = found
            .stored
            .as_ref()
            .is_some_and(|stored| stored.meta.restrictions.no_cache);
        let directives = rules.reuse.request_directives.of(&request.fields);
        (!always && !directives.no_cache && !directives.no_store).then_some(l2)
    }

    /// Looks in L2, and puts what it finds into L1. `None`: nothing that is better than what L1 has.
    pub(super) async fn bring(
        &self,
        l2: &L2,
        route: &str,
        request: &RequestHead,
        destination: &Destination,
        known: Option<&Arc<Stored>>,
    ) -> Option<Arc<Stored>> {
        let key = &destination.key;
        let began = self.cache.epochs.last();
        let stored = l2.look(key, route, &request.fields).await?;
        if let Some(labels) = stored.meta.labels() {
            labels.set_seen(began);
        }
        let generation = self.generation.load();
        let compression = generation.config.routes.iter().find(|known| *known.name == *route);
        let compression = compression.and_then(|route| route.compression.as_deref());
        let stored = Arc::new(stored.for_route(compression));
        let now = Timestamp::from(self.clock.now());
        if known.is_some_and(|known| known.meta.ttl(now) >= stored.meta.ttl(now)) {
            return None;
        }
        let is_valid = || self.cache.is_current(began, subject(destination, route, &stored.meta));
        if !is_valid() {
            return None;
        }
        self.cache.memory.store(route, key, stored.clone());
        // An invalidation in between may have come too early to find it.
        if !is_valid() {
            self.cache.memory.replace(key, &stored, None);
            return None;
        }
        Some(stored)
    }

    /// The same for a request whose fetch nobody shares: the lookup is shared all the same.
    pub(super) async fn bring_alone(
        &self,
        l2: &L2,
        decided: &Decided<'_>,
        destination: &Destination,
        known: Option<&Arc<Stored>>,
    ) -> Option<Arc<Stored>> {
        let shared = Destination {
            variant: None,
            ..destination.clone()
        };
        let route = &decided.route.name;
        match l2.lookups().join(shared) {
            Join::Lead(duty) => {
                let stored = self.bring(l2, route, decided.request, destination, known).await;
                duty.land(Landing::LookAgain);
                stored
            }
            Join::Follow(mut follower) => {
                let deadline = Instant::now() + l2.redis().config().deadline;
                let _ = follower.wait(deadline).await;
                None
            }
            Join::Alone => self.bring(l2, route, decided.request, destination, known).await,
        }
    }

    /// What a lookup in L1 comes to where L2 has brought something.
    pub(super) fn weigh(
        &self,
        found: Found,
        brought: &Arc<Stored>,
        request: &RequestHead,
        rules: &CacheRules,
    ) -> Found {
        let is_it = found.stored.as_ref().is_some_and(|stored| Arc::ptr_eq(stored, brought));
        // Somebody may have put a newer one there; a small L1 may have no room for it.
        if is_it || matches!(found.decision, Reuse::Fresh(_)) {
            return found;
        }
        let now = Timestamp::from(self.clock.now());
        Found {
            decision: reuse(request, &brought.meta, now, &rules.reuse),
            stored: Some(brought.clone()),
            variants: found.variants,
        }
    }

    /// Has a response written to L2 some time soon.
    pub(super) fn write_behind(&self, keeping: Keeping, destination: &Destination, stored: &Arc<Stored>) {
        if let Some(l2) = &self.cache.l2 {
            l2.write_behind(keeping.write(destination.key.clone(), stored.clone()));
        }
    }

    /// Has a response written to L2 as the configuration says.
    pub(super) async fn write(&self, keeping: Keeping, destination: &Destination, stored: &Arc<Stored>) {
        if let Some(l2) = &self.cache.l2 {
            l2.write(keeping.write(destination.key.clone(), stored.clone())).await;
        }
    }

    /// Has all variants under a key removed from L2.
    pub(super) fn remove_from_l2(&self, key: &CacheKey) {
        if let Some(l2) = &self.cache.l2 {
            l2.delete(key);
        }
    }

    /// Asks L2 before a stale response is validated behind its client's back. Answers the duty where it is still to be done.
    pub(super) async fn refresh_from_l2(
        &self,
        route: &str,
        request: &RequestHead,
        duty: FetchDuty,
        stored: &Arc<Stored>,
    ) -> Option<FetchDuty> {
        let Some(l2) = self.cache.l2.as_ref().filter(|l2| l2.is_available()) else {
            return Some(duty);
        };
        let destination = duty.destination().clone();
        let brought = self.bring(l2, route, request, &destination, Some(stored)).await;
        match brought {
            Some(brought) if brought.meta.is_fresh(Timestamp::from(self.clock.now())) => {
                duty.land(Landing::LookAgain);
                None
            }
            _ => Some(duty),
        }
    }
}
