//! Requests that the cache may answer: look, decide, and if it must be, fetch (RFC 9111 §4).

use std::borrow::Cow;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use memchr::memmem;
use tokio::time::Instant;

use super::fetch::Fetch;
use super::l2::{Leased, Wanted};
use super::pass::forwarded_status;
use super::{Decided, Failure, Plan, Proxy};
use crate::cache::flight::{Destination, Follower, Landing};
use crate::cache::memory::Variants;
use crate::cache::{Join, L2, Stored};
use crate::clock;
use crate::edge::client::Client;
use crate::exchange::Exchange;
use crate::generation::{CacheRules, Collapse};
use crate::in_place::pinned;
use crate::io::Alarm;
use crate::key::{CacheKey, KeyOptions, Unkeyable, unkeyable};
use crate::message::RequestHead;
use crate::metrics::CacheResult;
use crate::respond::cache_status::{self, CacheStatus};
use crate::respond::error::ProxyError;
use crate::rfc9111::date::Timestamp;
use crate::rfc9111::reuse::{
    Forward, Reuse, Served, StaleReason, forward_unseen, reuse, reuse_on_error, without_stored,
};
use crate::rfc9111::storability::Codings;
use crate::rfc9111::vary::select;
use crate::transform::forwarding::Trust;
use crate::transform::names::tells_target;

/// How long a request waits for another one's fetch to bring a head. The origin's own limits end it earlier.
pub(super) const FOLLOW: Duration = Duration::from_secs(30);

/// How often a request looks again because what it waited for came to nothing.
const MAX_TURNS: usize = 4;

/// What came of asking the cache about a request.
#[derive(Debug)]
pub(super) enum Lookup {
    /// Its response may be stored, but a stored one does not answer it.
    Post,
    /// The cache has no part in it, with the detail for `Cache-Status`.
    Pass(Forward, Option<&'static str>),
    Found(CacheKey, Found),
}

/// What the cache has for a request.
#[derive(Debug)]
pub(super) struct Found {
    pub decision: Reuse,
    /// The one that was chosen.
    pub stored: Option<Arc<Stored>>,
    /// All variants under the key. `None`: there is none, or only the one that was chosen.
    pub variants: Option<Variants>,
}

/// How a wait for another request's fetch ended.
enum Turn<'a> {
    /// Read its response along.
    Read(Plan<'a>),
    /// Look again; the fetch may have to be for these values of the fields that the response varies by.
    Again(Option<Vec<u8>>),
    /// What the other one brings was purged by the purge of this number before this request came: only fetches from behind it will do.
    Purged(u64),
    /// The fetch has failed: use what is stored if that is allowed then, else fetch without waiting for anybody.
    Failed,
    /// Fetch without waiting for anybody.
    Alone,
}

impl Proxy {
    /// Asks the cache about a request.
    pub(super) fn look_up(&self, request: &RequestHead, rules: &CacheRules, trust: Trust, now: Timestamp) -> Lookup {
        if request.method == http::Method::POST {
            return Lookup::Post;
        }
        if let Some((reason, detail)) = passed_by(request) {
            return Lookup::Pass(reason, detail);
        }
        let key = key(request, rules, trust);
        let found = self.look(request, &key, rules, now);
        Lookup::Found(key, found)
    }

    /// Answers a request on a route that caches, as far as it is not answered yet.
    pub(super) async fn cached<'a>(
        self: &Arc<Self>,
        decided: &Decided<'a>,
        rules: &CacheRules,
        lookup: Lookup,
        client: &mut Client,
        exchange: &mut Exchange,
        alarm: &mut Alarm,
    ) -> Result<Plan<'a>, Failure> {
        let request = decided.request;
        let (mut key, found) = match lookup {
            Lookup::Post => return self.post(decided, rules, client, exchange, alarm).await,
            Lookup::Pass(reason, detail) => return self.pass(decided, reason, detail, client, exchange, alarm).await,
            Lookup::Found(key, found) => (key, found),
        };
        let mut first = Some(found);
        let mut variant = None;
        // Set where a fetch that could be waited for turns out to be from before a purge of what it brings.
        let mut behind = 0;
        let mut followed = Followed::Nobody;
        let mut turns = 0;
        let mut asked_l2 = false;
        let mut brought: Option<Arc<Stored>> = None;
        loop {
            turns += 1;
            let found = match first.take() {
                Some(found) => found,
                None => self.look(request, &key, rules, Timestamp::from(self.clock.now())),
            };
            let found = match &brought {
                Some(brought) => self.weigh(found, brought, request, rules),
                None => found,
            };
            let destination = |key: CacheKey, variant| Destination {
                epoch: self.cache.epochs.of_key(&key).max(behind),
                key,
                variant,
            };
            let reason = match found.decision {
                Reuse::Fresh(served) => {
                    let stored = found.stored.ok_or(ProxyError::Internal)?;
                    let from_l2 = brought.is_some_and(|brought| Arc::ptr_eq(&brought, &stored));
                    let (result, tier) = match (from_l2, followed) {
                        (true, _) => (CacheResult::HitL2, "l2"),
                        (false, Followed::Nobody) => (CacheResult::HitL1, "l1"),
                        (false, Followed::Somebody) => (CacheResult::Collapsed, "l1"),
                    };
                    let stored = self.in_form(decided, &key, &stored, exchange).await;
                    exchange.cache = Some(result);
                    let status = hit(&served, tier);
                    pinned(|| self.serve_stored(decided, &stored, served, &status, client, exchange, alarm)).await?;
                    return Ok(Plan::Answered);
                }
                Reuse::Stale(why, served) => {
                    let stored = found.stored.clone().ok_or(ProxyError::Internal)?;
                    if why == StaleReason::WhileRevalidate {
                        let known = variant.or_else(|| known_variant(request, &found, rules));
                        let place = self.cache.refreshes.begin();
                        let destination = destination(key.clone(), known);
                        self.refresh_behind(decided, destination, &stored, exchange, place);
                    }
                    let stored = self.in_form(decided, &key, &stored, exchange).await;
                    exchange.cache = Some(CacheResult::ServedStale);
                    let status = hit(&served, why.as_str());
                    pinned(|| self.serve_stored(decided, &stored, served, &status, client, exchange, alarm)).await?;
                    return Ok(Plan::Answered);
                }
                Reuse::GatewayTimeout => {
                    if !asked_l2 && let Some(l2) = self.worth_a_look(request, rules, &found) {
                        asked_l2 = true;
                        let destination = destination(key, None);
                        brought = self.bring_alone(l2, decided, &destination, found.stored.as_ref()).await;
                        key = destination.key;
                        continue;
                    }
                    return Err(ProxyError::NotStored.into());
                }
                Reuse::Validate(reason) | Reuse::Forward(reason) => reason,
            };
            variant = variant.or_else(|| known_variant(request, &found, rules));
            let destination = destination(key, variant.clone());
            if let (Forward::Partial, Some(part), false) = (reason, &found.stored, request.fields.contains("range"))
                && let Some(plan) = self
                    .complete(decided, rules, &destination, part, client, exchange, alarm)
                    .await?
            {
                return Ok(plan);
            }
            let candidates = candidates(&found);
            let now = clock::lately();
            let join = match turns <= MAX_TURNS && may_collapse(request, reason, rules) {
                true => self.cache.flights.join(&destination, now),
                false => Join::Alone,
            };
            let l2 = self.worth_a_look(request, rules, &found);
            let until = l2.map(L2::deadline);
            if let (Some(l2), Some(until), false) = (l2, until, asked_l2) {
                match &join {
                    Join::Lead(_) => {
                        asked_l2 = true;
                        let (route, known) = (&decided.route.name, found.stored.as_ref());
                        brought = self.bring(l2, route, request, &destination, known, until).await;
                    }
                    // What was not stored a short while ago is not in L2 either.
                    Join::Alone if !self.cache.flights.is_unstored(&destination, now) => {
                        asked_l2 = true;
                        brought = self.bring_alone(l2, decided, &destination, found.stored.as_ref()).await;
                    }
                    Join::Alone | Join::Follow(_) => {}
                }
                if brought.is_some() || asked_l2 && matches!(join, Join::Alone) {
                    if let Join::Lead(duty) = join {
                        duty.land(Landing::LookAgain);
                    }
                    key = destination.key;
                    continue;
                }
            }
            let duty = match join {
                Join::Lead(duty) => match (rules.collapse, l2, until) {
                    (Collapse::Cluster, Some(l2), Some(until)) => {
                        let wanted = Wanted {
                            route: &decided.route.name,
                            request,
                            rules,
                            known: found.stored.as_ref(),
                        };
                        // Boxed, so that requests that never come here hold no room for it.
                        match pinned(|| self.lease(l2, wanted, duty, until, client)).await? {
                            Leased::Fetch(duty) => duty,
                            Leased::Brought(stored) => {
                                brought = Some(stored);
                                key = destination.key;
                                continue;
                            }
                        }
                    }
                    (Collapse::Cluster | Collapse::Instance | Collapse::Off, _, _) => Some(duty),
                },
                Join::Alone => None,
                Join::Follow(follower) => {
                    match self
                        .follow(decided, rules, &destination.key, follower, reason, client, exchange)
                        .await?
                    {
                        Turn::Read(plan) => return Ok(plan),
                        Turn::Again(values) => {
                            followed = Followed::Somebody;
                            variant = values.or(variant);
                            key = destination.key;
                            continue;
                        }
                        Turn::Purged(epoch) => {
                            behind = epoch;
                            key = destination.key;
                            continue;
                        }
                        Turn::Failed => {
                            let now = Timestamp::from(self.clock.now());
                            if let Some(stored) = &found.stored
                                && let Some(served) = reuse_on_error(request, &stored.meta, now, &rules.reuse)
                            {
                                exchange.cache = Some(CacheResult::ServedStale);
                                let status = hit(&served, StaleReason::IfError.as_str());
                                pinned(|| self.serve_stored(decided, stored, served, &status, client, exchange, alarm))
                                    .await?;
                                return Ok(Plan::Answered);
                            }
                            None
                        }
                        Turn::Alone => None,
                    }
                }
            };
            let fetch = Fetch {
                destination,
                candidates,
                stored: found.stored,
                reason,
                duty,
                began: self.cache.begin(),
            };
            return self.fetch(decided, rules, fetch, client, exchange, alarm).await;
        }
    }

    fn look(&self, request: &RequestHead, key: &CacheKey, rules: &CacheRules, now: Timestamp) -> Found {
        let Some(variants) = self.cache.memory.get(key) else {
            let decision = without_stored(&request.fields, Forward::UriMiss, &rules.reuse);
            return Found {
                decision,
                stored: None,
                variants: None,
            };
        };
        let chosen = select(variants.iter().map(|stored| (stored, &stored.meta)), &request.fields);
        let Some(chosen) = chosen else {
            return Found {
                decision: without_stored(&request.fields, Forward::VaryMiss, &rules.reuse),
                stored: None,
                variants: Some(variants),
            };
        };
        let decision = reuse(request, &chosen.meta, now, &rules.reuse);
        // The only one needs no second owner.
        let one_of_several = (variants.iter().len() > 1).then(|| chosen.clone());
        let (stored, variants) = match variants.into_only() {
            Ok(only) => (Some(only), None),
            Err(several) => (one_of_several, Some(several)),
        };
        Found {
            decision,
            stored,
            variants,
        }
    }

    /// Waits for another request's fetch.
    #[expect(
        clippy::too_many_arguments,
        reason = "what is decided, what is waited for, and who waits"
    )]
    async fn follow(
        &self,
        decided: &Decided<'_>,
        rules: &CacheRules,
        key: &CacheKey,
        mut follower: Follower,
        reason: Forward,
        client: &mut Client,
        exchange: &mut Exchange,
    ) -> Result<Turn<'static>, Failure> {
        let landing = while_there(client, follower.wait(Instant::now() + FOLLOW)).await?;
        let filling = match landing {
            Some(Landing::Filling(filling)) => filling,
            Some(Landing::LookAgain | Landing::Abandoned) => return Ok(Turn::Again(None)),
            Some(Landing::Failed) => return Ok(Turn::Failed),
            Some(Landing::Unstored) | None => return Ok(Turn::Alone),
        };
        let request = decided.request;
        if filling.meta.variant.fits(&request.fields).is_none() {
            return Ok(Turn::Again(variant_values(&request.fields, &filling.fields, rules)));
        }
        let labels = filling.meta.labels().map_or(&[][..], |labels| labels.as_slice());
        let epoch = self.cache.epochs.of_labels(labels);
        if epoch > filling.began.local {
            return Ok(Turn::Purged(epoch));
        }
        // RFC 9111 §4: only a response that may be reused for this request, too.
        let now = Timestamp::from(self.clock.now());
        if !matches!(
            reuse(request, &filling.meta, now, &rules.reuse),
            Reuse::Fresh(_) | Reuse::Stale(..)
        ) {
            return Ok(Turn::Alone);
        }
        let Some(mut reader) = filling.read() else {
            return Ok(Turn::Alone);
        };
        if let Some(patience) = self.would_compress(decided, &filling) {
            let ended = tokio::time::timeout(patience, reader.ended());
            if let Ok(Ok(())) = while_there(client, ended).await? {
                return Ok(Turn::Again(None));
            }
        }
        exchange.cache = Some(CacheResult::Collapsed);
        let status = forwarded_status(reason, None, cache_status::Fetch::Collapsed);
        Ok(Turn::Read(self.read_along(decided, key, reader, &status, exchange)))
    }
}

/// Waits for something, unless the client goes away meanwhile.
pub(super) async fn while_there<T>(client: &mut Client, what: impl Future<Output = T>) -> Result<T, Failure> {
    let mut what = std::pin::pin!(what);
    poll_fn(|cx| match what.as_mut().poll(cx) {
        Poll::Ready(value) => Poll::Ready(Ok(value)),
        Poll::Pending => client.poll_gone(cx).map(|()| Err(Failure::ClientGone)),
    })
    .await
}

/// Why a request passes the cache by, with the detail for `Cache-Status`.
pub(crate) fn passed_by(request: &RequestHead) -> Option<(Forward, Option<&'static str>)> {
    match unkeyable(request) {
        Some(Unkeyable::Method) => Some((Forward::Method, None)),
        Some(why) => Some((Forward::Bypass, Some(why.as_str()))),
        None => forward_unseen(request).map(|reason| (reason, None)),
    }
}

/// What is in the request's key beside its URI. What a trusted proxy says of the request that its client made is passed on, so it is part of
/// the key: two schemes or hosts are two resources, although both came over the same connection.
pub(crate) fn key_options<'a>(request: &RequestHead, rules: &'a CacheRules, trust: Trust) -> Cow<'a, KeyOptions> {
    if trust == Trust::Untrusted {
        return Cow::Borrowed(&rules.key);
    }
    let names = request
        .fields
        .iter()
        .map(|(name, _)| name)
        .filter(|name| tells_target(name));
    let mut names: Vec<String> = names.map(str::to_ascii_lowercase).collect();
    names.retain(|name| !rules.key.headers.contains(name));
    if names.is_empty() {
        return Cow::Borrowed(&rules.key);
    }
    names.sort_unstable();
    names.dedup();
    let mut options = rules.key.clone();
    options.headers.append(&mut names);
    Cow::Owned(options)
}

pub(crate) fn key(request: &RequestHead, rules: &CacheRules, trust: Trust) -> CacheKey {
    CacheKey::new(request, &key_options(request, rules, trust))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Followed {
    Nobody,
    Somebody,
}

/// What the origin may be asked about: the one that was chosen, or where none fits all that have a validator (RFC 9111 §4.3.1).
fn candidates(found: &Found) -> Vec<Arc<Stored>> {
    match (&found.decision, &found.stored, &found.variants) {
        (Reuse::Validate(_), Some(stored), _) => vec![stored.clone()],
        (Reuse::Forward(Forward::VaryMiss), None, Some(variants)) => {
            let usable =
                |stored: &&Arc<Stored>| stored.meta.validators.etag.is_some() && stored.meta.partial().is_none();
            variants.iter().filter(usable).cloned().collect()
        }
        _ => Vec::new(),
    }
}

/// Whether a request may wait for another one's response, or let others wait for its own: only where the answer does not depend on
/// anything but the key.
pub(crate) fn may_collapse(request: &RequestHead, reason: Forward, rules: &CacheRules) -> bool {
    const PERSONAL: [&str; 5] = [
        "authorization",
        "range",
        "if-none-match",
        "if-modified-since",
        "if-range",
    ];
    let directives = rules.reuse.request_directives.of(&request.fields);
    // Whoever asks for events gets a stream of their own: nobody should wait for the head of another one's.
    let wants_events = request
        .fields
        .get_all("accept")
        .any(|line| memmem::find(line, b"text/event-stream").is_some());
    rules.collapse != Collapse::Off
        && request.method == http::Method::GET
        && !wants_events
        // A client that insists on the origin gets an answer of its own.
        && matches!(reason, Forward::UriMiss | Forward::VaryMiss | Forward::Miss | Forward::Stale)
        && !PERSONAL.iter().any(|name| request.fields.contains(name))
        && !directives.no_cache
        && !directives.no_store
}

/// The request's values of the fields that the stored responses vary by: requests that differ in them need not wait for each other.
pub(super) fn known_variant(request: &RequestHead, found: &Found, rules: &CacheRules) -> Option<Vec<u8>> {
    let known = match (&found.stored, &found.variants) {
        (Some(chosen), _) => chosen,
        (None, variants) => variants.as_ref()?.iter().last()?,
    };
    variant_values(&request.fields, &known.fields.unpack(), rules).filter(|values| !values.is_empty())
}

/// The request's values of the fields that a response varies by, as bytes to compare. `None`: `Vary: *`.
pub(super) fn variant_values(
    request: &crate::message::Fields,
    response: &crate::message::Fields,
    rules: &CacheRules,
) -> Option<Vec<u8>> {
    let mut variant = crate::rfc9111::vary::VariantKey::new(request, response)?;
    if rules.codings() == Codings::Ours {
        variant = variant.without_codings();
    }
    let mut values = Vec::new();
    for (name, value) in variant.nominated() {
        values.extend_from_slice(name.as_bytes());
        values.push(b':');
        values.extend_from_slice(value.unwrap_or(b"\n"));
        values.push(b'\n');
    }
    Some(values)
}

pub(crate) fn hit(served: &Served, detail: &'static str) -> CacheStatus<'static> {
    CacheStatus {
        outcome: cache_status::Outcome::Hit,
        ttl: Some(served.ttl),
        detail: Some(detail),
    }
}
