//! What L1 does not have may be in L2; what comes from an origin goes there.

use std::sync::Arc;

use tokio::time::Instant;

use super::cached::{FOLLOW, Found, variant_values, while_there};
use super::compression::Whence;
use super::fill::subject;
use super::{Decided, Failure, Proxy};
use crate::cache::flight::{Destination, Landing};
use crate::cache::l2::{L2, Write};
use crate::cache::lease::{Asked, Grant, Lease, Outcome, Standing};
use crate::cache::{Began, FetchDuty, Join, Stored};
use crate::config;
use crate::edge::client::Client;
use crate::generation::{CacheRules, Collapse};
use crate::key::CacheKey;
use crate::message::{Fields, RequestHead};
use crate::rfc9111::date::Timestamp;
use crate::rfc9111::reuse::{Forward, Reuse, reuse};
use crate::rfc9111::stored::StaleWindows;

/// How often a request waits for the next instance when one has given up; then it fetches itself.
const MAX_ABANDONED: usize = 2;

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

    pub(super) fn began(&self) -> Began {
        self.began
    }

    pub(super) fn write(self, key: CacheKey, stored: Arc<Stored>) -> Write {
        Write {
            route: self.route,
            began: self.began,
            key,
            stored,
            windows: self.windows,
            keep: self.keep,
            lease: None,
        }
    }
}

/// What a response is wanted for that other instances may be fetching.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// Its name.
    pub route: &'a str,
    pub request: &'a RequestHead,
    pub rules: &'a CacheRules,
    /// What there is in L1.
    pub known: Option<&'a Arc<Stored>>,
}

/// What is left to do for whoever leads a fetch in this instance.
pub(super) enum Leased {
    /// Fetch it, for those who wait if there is a duty.
    Fetch(Option<FetchDuty>),
    /// Another instance has.
    Brought(Arc<Stored>),
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
        until: Instant,
    ) -> Option<Arc<Stored>> {
        let key = &destination.key;
        let began = self.cache.epochs.last();
        let stored = l2.look(key, route, &request.fields, until).await?;
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
        self.keep_dictionary(compression, key, &stored, Whence::L2 { route, began });
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
        let (route, until) = (&decided.route.name, l2.deadline());
        match l2.lookups().join(&shared, Instant::now()) {
            Join::Lead(duty) => {
                let stored = self.bring(l2, route, decided.request, destination, known, until).await;
                duty.land(Landing::LookAgain);
                stored
            }
            Join::Follow(mut follower) => {
                let _ = follower.wait(until).await;
                None
            }
            Join::Alone => self.bring(l2, route, decided.request, destination, known, until).await,
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

    /// Asks whether another instance fetches the same, and waits for it. `until`: how long Redis may take to answer what is asked first.
    pub(super) async fn lease(
        &self,
        l2: &L2,
        wanted: Wanted<'_>,
        mut duty: FetchDuty,
        mut until: Instant,
        client: &mut Client,
    ) -> Result<Leased, Failure> {
        let give_up = Instant::now() + FOLLOW;
        let mut destination = duty.destination().clone();
        let mut narrowed = false;
        let mut abandoned = 0;
        loop {
            let asked = Asked {
                destination: &destination,
                route: wanted.route,
                until,
            };
            let outcome = match l2.acquire(asked).await {
                Grant::Led(lease, Standing::Nothing) => {
                    duty.set_lease(lease);
                    return Ok(Leased::Fetch(Some(duty)));
                }
                // It may have been stored between the lookup and the lease.
                Grant::Led(lease, Standing::Something) => {
                    let brought = self.bring(l2, wanted.route, wanted.request, &destination, wanted.known, until);
                    return Ok(match brought.await {
                        Some(stored) => {
                            lease.release(Outcome::Stored);
                            duty.land(Landing::LookAgain);
                            Leased::Brought(stored)
                        }
                        None => {
                            duty.set_lease(lease);
                            Leased::Fetch(Some(duty))
                        }
                    });
                }
                Grant::Taken(wait) => {
                    let outcome = while_there(client, wait.over(give_up)).await?;
                    until = l2.deadline();
                    outcome
                }
                Grant::Remembered(outcome) => Some(outcome),
                Grant::Refused => return Ok(Leased::Fetch(Some(duty))),
            };
            match outcome {
                Some(Outcome::Stored) => {
                    let brought = self.bring(l2, wanted.route, wanted.request, &destination, wanted.known, until);
                    if let Some(stored) = brought.await {
                        duty.land(Landing::LookAgain);
                        return Ok(Leased::Brought(stored));
                    }
                    // It was another variant: there is a lease for this one, too.
                    match self.variant_in_l2(l2, wanted, &destination.key, until).await {
                        Some(variant) if !narrowed && destination.variant.as_ref() != Some(&variant) => {
                            narrowed = true;
                            destination.variant = Some(variant);
                        }
                        Some(_) | None => return Ok(Leased::Fetch(Some(duty))),
                    }
                }
                Some(Outcome::Unstored) => {
                    self.cache.flights.remember_unstored(duty.destination());
                    duty.land(Landing::Unstored);
                    return Ok(Leased::Fetch(None));
                }
                Some(Outcome::TooLarge | Outcome::Apart) => return Ok(Leased::Fetch(Some(duty))),
                Some(Outcome::Abandoned) if abandoned >= MAX_ABANDONED => return Ok(Leased::Fetch(Some(duty))),
                Some(Outcome::Abandoned) => abandoned += 1,
                None => {}
            }
            if Instant::now() >= give_up || !l2.is_available() {
                return Ok(Leased::Fetch(Some(duty)));
            }
        }
    }

    /// The request's values of the fields that the responses in L2 vary by.
    async fn variant_in_l2(&self, l2: &L2, wanted: Wanted<'_>, key: &CacheKey, until: Instant) -> Option<Vec<u8>> {
        let names = l2.varies_by(key, until).await?;
        let mut response = Fields::default();
        response.push("Vary", names.join(", "));
        variant_values(&wanted.request.fields, &response, wanted.rules)
    }

    /// Has a response written to L2 some time soon.
    pub(super) fn write_behind(
        &self,
        keeping: Keeping,
        destination: &Destination,
        stored: &Arc<Stored>,
        lease: Option<Lease>,
    ) {
        if let Some(l2) = &self.cache.l2 {
            l2.write_behind(Write {
                lease,
                ..keeping.write(destination.key.clone(), stored.clone())
            });
        }
    }

    /// Has a response written to L2 as the configuration says.
    pub(super) async fn write(
        &self,
        keeping: Keeping,
        destination: &Destination,
        stored: &Arc<Stored>,
        lease: Option<Lease>,
    ) {
        if let Some(l2) = &self.cache.l2 {
            let write = Write {
                lease,
                ..keeping.write(destination.key.clone(), stored.clone())
            };
            l2.write(write).await;
        }
    }

    /// Has all variants under a key removed from L2.
    pub(super) fn remove_from_l2(&self, key: &CacheKey) {
        if let Some(l2) = &self.cache.l2 {
            l2.delete(key);
        }
    }

    /// Asks L2, and the other instances, before a stale response is validated behind its client's back. Answers where it is still to be done,
    /// and for whom.
    pub(super) async fn refresh_from_l2(
        &self,
        route: &str,
        request: &RequestHead,
        rules: &CacheRules,
        duty: FetchDuty,
        stored: &Arc<Stored>,
    ) -> Option<Option<FetchDuty>> {
        let Some(l2) = self.cache.l2.as_ref().filter(|l2| l2.is_available()) else {
            return Some(Some(duty));
        };
        let destination = duty.destination().clone();
        let until = l2.deadline();
        let brought = self.bring(l2, route, request, &destination, Some(stored), until).await;
        let is_fresh = |stored: &Stored| stored.meta.is_fresh(Timestamp::from(self.clock.now()));
        if brought.is_some_and(|brought| is_fresh(&brought)) {
            duty.land(Landing::LookAgain);
            return None;
        }
        if rules.collapse != Collapse::Cluster {
            return Some(Some(duty));
        }
        let wanted = Wanted {
            route,
            request,
            rules,
            known: Some(stored),
        };
        match self.lease(l2, wanted, duty, until, &mut Client::Nobody).await {
            Ok(Leased::Fetch(duty)) => Some(duty),
            // A client that does not exist does not go away.
            Ok(Leased::Brought(_)) | Err(_) => None,
        }
    }
}
