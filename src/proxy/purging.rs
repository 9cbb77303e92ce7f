//! Purges: those that are asked for, and those that unsafe requests bring about (RFC 9111 §4.4).

use super::{Decided, Proxy};
use crate::cache::coherence::Recorded;
use crate::cache::purge::{How, Purge, Purged, What, keys};
use crate::cache::tags::render;
use crate::message::ResponseHead;
use crate::rfc9111::date::Timestamp;
use crate::rfc9111::invalidation::{invalidated, is_safe};
use crate::rfc9111::labels::{Label, invalidated_groups};

/// What became of a purge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// In this instance's memory.
    pub purged: Purged,
    pub recorded: Recorded,
}

impl Proxy {
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
        let mut labels: Vec<Label> = Vec::new();
        if !uris.is_empty() {
            for (condition, tags) in &decided.generation.invalidations {
                if let Some(captures) = condition.captures(request) {
                    labels.extend(tags.iter().map(|tag| Label::tag(render(tag, captures).as_bytes())));
                }
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
    }
}
