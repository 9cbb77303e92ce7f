//! Purges: those that are asked for, and those that unsafe requests bring about (RFC 9111 §4.4).

use bytes::Bytes;
use schemars::JsonSchema;
use serde::Serialize;

use super::rewarm::{Again, Stored};
use super::{Decided, Proxy};
use crate::cache::coherence::Recorded;
use crate::cache::purge::{How, Pattern, Purge, Purged, What, keys};
use crate::cache::tags::{TAG_FIELDS, render};
use crate::config::{ValuePart, ValueTemplate};
use crate::exchange::Exchange;
use crate::key::normalise_target;
use crate::message::{RequestHead, ResponseHead, Scheme};
use crate::respond::error::{ProxyError, done};
use crate::rfc9111::date::Timestamp;
use crate::rfc9111::invalidation::{ResourceUri, invalidated, is_safe};
use crate::rfc9111::labels::{Label, invalidated_groups};
use crate::route::contains;
use crate::transform::forwarding::ClientAddress;

/// Fields by which a PURGE request asks for a soft purge: our own, and one that tools for other caches send.
const SOFT_FIELDS: [&str; 2] = ["x-purge-soft", "fastly-soft-purge"];

/// What became of a purge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// In this instance's memory.
    pub purged: Purged,
    pub recorded: Recorded,
}

/// What was purged, or with `dry_run` would be.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct PurgeReport {
    /// Responses in memory that went, or were made stale, at once.
    pub responses: u64,
    /// Tags whose responses are not used any more, and go when they are next looked at. Without `dry_run` they are not counted among
    /// `responses`.
    pub tags: u64,
    pub soft: bool,
    pub dry_run: bool,
    /// Purges that only this instance has carried out, because Redis is away: so many wait to be told to the others, in order. The
    /// status is 202 then.
    pub waiting: u64,
    /// The task that asks for what was purged again. `null`: it is not asked for here.
    pub rewarm: Option<String>,
}

impl PurgeReport {
    /// 202 (RFC 9110 §15.3.3) as long as other instances do not know of it.
    pub fn status(&self) -> u16 {
        match self.waiting {
            0 => 200,
            _ => 202,
        }
    }
}

/// Whether a request is one of those that caches take for purges. No standard knows the method.
pub fn is_purge(request: &RequestHead) -> bool {
    request.method.as_str() == "PURGE"
}

/// What a PURGE request asks for: its URL, whatever the scheme, because who sends it is often not where clients are.
///
/// # Errors
/// It is not for this route, not from one of its addresses, or asks for something else.
pub fn asked_for(decided: &Decided<'_>, client: &ClientAddress) -> Result<Purge, ProxyError> {
    let request = decided.request;
    let Some(allowed) = &decided.route.purge else {
        return Err(ProxyError::NoPurge);
    };
    if !client.ip.is_some_and(|ip| contains(allowed, ip)) {
        return Err(ProxyError::PurgeDenied);
    }
    // Elsewhere these name what is to go; the URL alone would be less than was asked for.
    if !request.target.starts_with('/') || TAG_FIELDS.iter().any(|name| request.fields.contains(name)) {
        return Err(ProxyError::BadPurge);
    }
    let mut how = How::Hard;
    for value in SOFT_FIELDS.iter().flat_map(|name| request.fields.get_all(name)) {
        how = match value {
            b"1" => How::Soft,
            b"0" => How::Hard,
            _ => return Err(ProxyError::BadPurge),
        };
    }
    let uris = [Scheme::Http, Scheme::Https].map(|scheme| ResourceUri {
        scheme,
        authority: request.authority.normal(scheme).into_owned(),
        target: normalise_target(&request.target).into_owned(),
    });
    let what = What::Uris(uris.into());
    Ok(Purge { what, how })
}

impl Proxy {
    /// Does what a PURGE request asks for, and answers as the admin listener does.
    pub(super) async fn purged(
        &self,
        decided: &Decided<'_>,
        exchange: &Exchange,
    ) -> Result<(ResponseHead, Bytes), ProxyError> {
        let Purge { what, how } = asked_for(decided, &exchange.client)?;
        let all = vec![what];
        let again = match self.warms_after_purges() {
            true => self.again(&all).await,
            false => Vec::new(),
        };
        let report = self.purge_all(all, how).await;
        // Of the two schemes, what was stored, and else that of the request itself.
        let own = format!("{}://", decided.request.scheme.as_str());
        let wanted = |again: &Again| again.stored == Stored::Here || again.url.starts_with(&own);
        self.warm_again(again.into_iter().filter(wanted).collect());
        let body = serde_json::to_string(&report).map_err(|_| ProxyError::Internal)?;
        let request_id = exchange.request_id.as_str();
        Ok(done(report.status(), body, request_id, &self.http_date()))
    }

    /// Carries out one purge after the other.
    pub async fn purge_all(&self, all: Vec<What>, how: How) -> PurgeReport {
        let mut report = PurgeReport {
            soft: how == How::Soft,
            ..PurgeReport::default()
        };
        for what in all {
            let Outcome { purged, recorded } = self.purge(&Purge { what, how }).await;
            report.responses += purged.responses;
            report.tags += purged.labels;
            if let Recorded::Queued { waiting } = recorded {
                report.waiting = waiting as u64;
            }
        }
        tracing::info!(
            responses = report.responses,
            tags = report.tags,
            soft = report.soft,
            "purged"
        );
        report
    }

    /// Takes stored responses out of use. When this is answered, none of them is served any more, by this instance at least; the others
    /// follow at once where it is recorded.
    pub async fn purge(&self, purge: &Purge) -> Outcome {
        self.metrics.purge(purge.what.kind());
        let forms = self.generation().query_forms();
        let memory = &self.cache.memory;
        let at = Timestamp::from(self.clock.now());
        let mut purged = memory.purge(purge, &forms, at).await;
        let recorded = match &self.cache.l2 {
            None => Recorded::Alone,
            Some(l2) => {
                if let What::Uris(uris) = &purge.what {
                    // They would not be used any more, but take room.
                    let keys = uris.iter().flat_map(|uri| keys(uri, &forms));
                    keys.for_each(|key| l2.delete(&key));
                }
                let recorded = l2.coherence().record(purge).await;
                // What L2 has brought in since then may be from before it.
                let at = Timestamp::from(self.clock.now());
                purged.responses += memory.purge(purge, &forms, at).await.responses;
                recorded
            }
        };
        if let What::Labels(_) = purge.what {
            memory.sweep_later();
        }
        Outcome { purged, recorded }
    }

    /// How many stored responses a purge would be about.
    pub async fn count_purged(&self, what: &What) -> u64 {
        self.cache
            .memory
            .count_purged(what, &self.generation().query_forms())
            .await
    }

    /// What a successful unsafe request makes worthless.
    pub(super) async fn after_unsafe(&self, decided: &Decided<'_>, head: &ResponseHead) {
        let request = decided.request;
        if is_safe(&request.method) {
            return;
        }
        let uris = invalidated(request, head);
        let (mut labels, mut globs): (Vec<Label>, Vec<String>) = Default::default();
        if !uris.is_empty() {
            for (condition, rule) in &decided.generation.invalidations {
                let Some(captures) = condition.captures(request) else {
                    continue;
                };
                let tags = rule.purge_tags.iter();
                labels.extend(tags.map(|tag| Label::tag(render(tag, captures).as_bytes())));
                let rendered = rule.purge_globs.iter().map(|glob| (glob, render(glob, captures)));
                // A client that has an asterisk in its path does not get to purge more than others.
                globs.extend(
                    rendered
                        .filter(|(glob, text)| asterisks(glob) == stars(text))
                        .map(|(_, text)| text),
                );
            }
        }
        // RFC 9875 §3: the origin says so itself, whatever became of the request.
        let groups = invalidated_groups(&head.fields);
        labels.extend(
            groups
                .iter()
                .map(|name| Label::group(request.scheme, &request.authority, name)),
        );
        let how = How::Hard;
        if !uris.is_empty() {
            let what = What::Uris(uris);
            self.purge(&Purge { what, how }).await;
        }
        if !labels.is_empty() {
            let what = What::Labels(labels);
            self.purge(&Purge { what, how }).await;
        }
        for glob in globs {
            let (scheme, authority) = (request.scheme, &request.authority);
            let glob = format!("{}://{authority}{glob}", scheme.as_str());
            let what = What::Pattern(Pattern::Glob(glob));
            self.purge(&Purge { what, how }).await;
        }
    }
}

fn stars(text: &str) -> usize {
    text.bytes().filter(|byte| *byte == b'*').count()
}

/// Those that the configuration has written.
fn asterisks(template: &ValueTemplate) -> usize {
    let written = template.parts.iter().map(|part| match part {
        ValuePart::Text(text) => stars(text),
        _ => 0,
    });
    written.sum()
}
