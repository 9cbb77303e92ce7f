//! Compression as requests meet it: what is decided about a response that passes, and in which form a stored one is sent.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::watch;

use super::recode::{Flushing, How, Places, RecodeError, Recoder};
use super::relay::Limits;
use super::{Decided, Proxy};
use crate::cache::Stored;
use crate::cache::recoded::{Effort, Form};
use crate::config::{Compression, Events};
use crate::key::CacheKey;
use crate::message::{Fields, Framing, RequestHead, ResponseHead};
use crate::metrics::{Compressed, Metrics};
use crate::transform::compress::decode::decode;
use crate::transform::compress::encode::{Purpose, Recipe, encode};
use crate::transform::compress::rules::{Body, body, recoding};
use crate::transform::compress::tags::confirmed;
use crate::transform::compress::workers::Workers;
use crate::transform::compress::{Recoding, recode_fields, vary_by_coding};
use crate::transform::events::is_event_stream;
use crate::transform::negotiate::{Accepted, Coding};

/// The longest body in bytes that comes out of one that an origin has compressed without being asked to. It passes piece by piece, so this
/// only keeps a bomb from going on for ever.
const MAX_DECODED: u64 = 1 << 30;

/// The same for a stored one, as a multiple of the largest body that is stored: it is kept beside the other.
const MAX_DECODED_STORED: u64 = 8;

/// How long a request waits for the form that it asks for. Then it gets the response as it came: that form is there for the next.
const PATIENCE: Duration = Duration::from_millis(250);

/// A form is worth its memory, and the client's work, if it takes at most so many hundredths of the body as it came.
const WORTHWHILE: u64 = 90;

/// Bytes beyond which the best levels of Brotli and zstd take seconds; those below them are nearly as good with so much.
const LARGE: usize = 1024 * 1024;
const BEST_FOR_LARGE_BR: u32 = 9;
const BEST_FOR_LARGE_ZSTD: u32 = 15;

/// What compresses, shared by all requests.
#[derive(Debug, Default)]
pub struct Compressor {
    pub workers: Arc<Workers>,
    pub places: Places,
    making: Arc<Making>,
}

/// The forms of stored responses that are being made: by the address of the response, which whoever makes it holds.
type Making = DashMap<(usize, Recoding, Effort), watch::Receiver<Option<Arc<Stored>>>>;

/// In which form a stored response is sent.
pub(super) enum Chosen {
    AsItCame,
    Form(Arc<Stored>),
    /// It has to be made first.
    Missing(Recoding),
}

impl Proxy {
    /// Decides whether the body behind `head` is recoded on its way to the client, and changes the head accordingly. `limits` are those
    /// of the way: comments that keep an event stream alive have to go through the compressor, too.
    pub(super) fn recode(
        &self,
        decided: &Decided<'_>,
        head: &mut ResponseHead,
        limits: &mut Limits,
    ) -> Option<Box<Recoder>> {
        let rules = decided.route.compression.as_deref()?;
        let request = decided.request;
        if head.status == 304 {
            confirm(request, &mut head.fields);
            return None;
        }
        let is_events = head.fields.get("content-type").is_some_and(is_event_stream);
        let is_stream = is_events || decided.route.stream.is_some();
        if is_stream && rules.events == Events::Untouched {
            return None;
        }
        let length = match head.framing {
            Framing::Length(length) => Some(length),
            Framing::None => head.declared_length,
            Framing::Chunked | Framing::Stream | Framing::Close => None,
        };
        let body = body(rules, head.status, &head.fields, length);
        if body == Body::Fixed {
            return None;
        }
        vary_by_coding(&mut head.fields);
        let recoding = recoding(rules, &request.fields, body)?;
        let mut recoder = None;
        if head.framing != Framing::None {
            let flushing = Flushing {
                pause: match is_stream && !is_events {
                    true => std::time::Duration::ZERO,
                    false => rules.flush_after,
                },
                events: is_events.then_some(limits.heartbeat),
            };
            let purpose = match is_stream {
                true => Purpose::Events,
                false => Purpose::Live,
            };
            let how = how(rules, recoding, body, purpose, length)?;
            let (coding, result) = match how {
                How::Encode(recipe) => (recipe.coding, Compressed::Live),
                How::Decode(coding, _) => (coding, Compressed::Decoded),
            };
            let Some(new) = Recoder::new(how, flushing, &self.compressor.workers, &self.compressor.places) else {
                self.metrics.compression(coding, Compressed::Busy);
                return None;
            };
            self.metrics.compression(coding, result);
            recoder = Some(Box::new(new));
            limits.heartbeat = None;
            head.framing = Framing::Chunked;
        }
        head.declared_length = None;
        recode_fields(&mut head.fields, recoding);
        recoder
    }

    /// The form of a stored response that this request gets, without waiting.
    pub(super) fn chosen(&self, decided: &Decided<'_>, key: &CacheKey, stored: &Arc<Stored>) -> Chosen {
        let (Some(rules), Some(forms)) = (&decided.route.compression, stored.forms()) else {
            return Chosen::AsItCame;
        };
        let Some(recoding) = recoding(rules, &decided.request.fields, forms.body) else {
            return Chosen::AsItCame;
        };
        match forms.get(recoding) {
            None => Chosen::Missing(recoding),
            Some(Form::Worthless) => Chosen::AsItCame,
            Some(Form::Made(form, effort)) => {
                if *effort == Effort::Quick && forms.is_used_again() {
                    self.improve(rules, key, stored, recoding, form.body.len());
                }
                Chosen::Form(form.clone())
            }
        }
    }

    /// The form of a stored response that this request gets. Where it has to be made first, that is done once for all who ask for it.
    pub(super) async fn in_form(&self, decided: &Decided<'_>, key: &CacheKey, stored: &Arc<Stored>) -> Arc<Stored> {
        let recoding = match self.chosen(decided, key, stored) {
            Chosen::AsItCame => return stored.clone(),
            Chosen::Form(form) => return form,
            Chosen::Missing(recoding) => recoding,
        };
        let Some(rules) = &decided.route.compression else {
            return stored.clone();
        };
        let mut made = self.make(rules, key, stored, recoding, decided.max_body());
        let waited = tokio::time::timeout(PATIENCE, made.wait_for(Option::is_some)).await;
        match waited {
            Ok(Ok(form)) => form.clone().unwrap_or_else(|| stored.clone()),
            Ok(Err(_)) | Err(_) => stored.clone(),
        }
    }

    /// Has a form made that somebody waits for.
    fn make(
        &self,
        rules: &Arc<Compression>,
        key: &CacheKey,
        stored: &Arc<Stored>,
        recoding: Recoding,
        max_body: u64,
    ) -> watch::Receiver<Option<Arc<Stored>>> {
        let place = (Arc::as_ptr(stored).addr(), recoding, Effort::Quick);
        let vacant = match self.compressor.making.entry(place) {
            Entry::Occupied(under_way) => return under_way.get().clone(),
            Entry::Vacant(vacant) => vacant,
        };
        let (sender, receiver) = watch::channel(None);
        vacant.insert(receiver.clone());
        let done = Done(self.compressor.making.clone(), place);
        let (rules, key, stored) = (rules.clone(), key.clone(), stored.clone());
        let (memory, metrics) = (self.cache.memory.clone(), self.metrics.clone());
        self.compressor.workers.soon(move || {
            let _done = done;
            let limit = max_body.saturating_mul(MAX_DECODED_STORED);
            let body = quick_body(&rules, &stored, recoding, limit, &metrics);
            let answer = match &body {
                Some(body) => Arc::new(stored.form(recoding, body.clone())),
                None => stored.clone(),
            };
            memory.add_form(&key, &stored, recoding, body.map(|body| (body, Effort::Quick)));
            sender.send_replace(Some(answer));
        });
        receiver
    }

    /// Has a form made anew, as well as it can be, when there is time. `length`: bytes of the one that there is.
    fn improve(
        &self,
        rules: &Arc<Compression>,
        key: &CacheKey,
        stored: &Arc<Stored>,
        recoding: Recoding,
        length: usize,
    ) {
        let Recoding::To(coding) = recoding else { return };
        let place = (Arc::as_ptr(stored).addr(), recoding, Effort::Best);
        let Entry::Vacant(vacant) = self.compressor.making.entry(place) else {
            return;
        };
        let (_, nobody) = watch::channel(None);
        vacant.insert(nobody);
        let done = Done(self.compressor.making.clone(), place);
        let level = best_level(rules, coding, stored.body.len());
        let (key, improved) = (key.clone(), stored.clone());
        let (memory, metrics) = (self.cache.memory.clone(), self.metrics.clone());
        let begun = self.compressor.workers.when_idle(move || {
            let _done = done;
            match encode(&improved.body, coding, level) {
                Ok(body) if body.len() <= length => {
                    metrics.compression(coding, Compressed::Best);
                    memory.add_form(&key, &improved, recoding, Some((body, Effort::Best)));
                }
                // What there is is as good as it gets.
                Ok(_) => match improved.forms().and_then(|forms| forms.get(recoding)) {
                    Some(Form::Made(form, _)) => {
                        memory.add_form(&key, &improved, recoding, Some((form.body.clone(), Effort::Best)));
                    }
                    Some(Form::Worthless) | None => {}
                },
                Err(error) => tracing::warn!(%error, "compression failed"),
            }
        });
        if begun.is_err()
            && let Some(forms) = stored.forms()
        {
            forms.put_off();
        }
    }
}

/// Ends the making of a form, however it ends.
struct Done(Arc<Making>, (usize, Recoding, Effort));

impl Drop for Done {
    fn drop(&mut self) {
        self.0.remove(&self.1);
    }
}

/// The body of a form, made so that nobody waits for it long. `None`: the response is sent as it came.
fn quick_body(
    rules: &Compression,
    stored: &Stored,
    recoding: Recoding,
    limit: u64,
    metrics: &Metrics,
) -> Option<Bytes> {
    let (coding, result) = match (recoding, stored.forms()?.body) {
        (Recoding::To(coding), _) => {
            let body = encode(&stored.body, coding, rules.live_levels.of(coding));
            (
                coding,
                body.map_err(RecodeError::Encode).map(|body| (body, Compressed::Stored)),
            )
        }
        (Recoding::Undone, Body::Coded(coding)) => {
            let body = decode(&stored.body, coding, limit);
            (
                coding,
                body.map_err(RecodeError::Decode)
                    .map(|body| (body, Compressed::Decoded)),
            )
        }
        (Recoding::Undone, Body::Plain | Body::Fixed) => return None,
    };
    match result {
        Ok((body, Compressed::Stored)) if !pays(&body, &stored.body) => {
            metrics.compression(coding, Compressed::Worthless);
            None
        }
        Ok((body, word)) => {
            metrics.compression(coding, word);
            Some(body)
        }
        Err(error) => {
            tracing::warn!(%error, "a stored response is sent as it came");
            metrics.compression(coding, Compressed::Failed);
            None
        }
    }
}

fn pays(form: &Bytes, body: &Bytes) -> bool {
    form.len() as u64 * 100 <= body.len() as u64 * WORTHWHILE
}

fn best_level(rules: &Compression, coding: Coding, length: usize) -> u32 {
    let level = rules.stored_levels.of(coding);
    match coding {
        Coding::Br if length > LARGE => level.min(BEST_FOR_LARGE_BR),
        Coding::Zstd if length > LARGE => level.min(BEST_FOR_LARGE_ZSTD),
        Coding::Br | Coding::Zstd | Coding::Gzip => level,
    }
}

fn how(rules: &Compression, recoding: Recoding, body: Body, purpose: Purpose, length: Option<u64>) -> Option<How> {
    match (recoding, body) {
        (Recoding::To(coding), _) => Some(How::Encode(Recipe {
            coding,
            level: rules.live_levels.of(coding),
            purpose,
            length,
        })),
        (Recoding::Undone, Body::Coded(coding)) => Some(How::Decode(coding, MAX_DECODED)),
        (Recoding::Undone, Body::Plain | Body::Fixed) => None,
    }
}

/// Gives a confirmation of the origin's the tag by which the client knows the response (RFC 9110 §15.4.5).
fn confirm(request: &RequestHead, fields: &mut Fields) {
    let accepted = Accepted::of(&request.fields);
    let etag = fields
        .get("etag")
        .and_then(|etag| confirmed(&request.fields, etag, accepted));
    if let Some(etag) = etag {
        fields.set("ETag", etag);
        vary_by_coding(fields);
    }
}
