//! Compression as requests meet it: what is decided about a response that passes, and in which form a stored one is sent.

mod dictionaries;
mod making;

use std::sync::Arc;
use std::time::Duration;

use dashmap::mapref::entry::Entry;
use tokio::sync::watch;
use tokio::time::Instant;

use self::dictionaries::Held;
pub(super) use self::dictionaries::Whence;
use self::making::{Done, Making, Order, Place, Progress, Quick, Wanted};
use super::l2::Keeping;
use super::recode::{Flushing, How, Places, Recoder};
use super::relay::Limits;
use super::{Decided, Proxy};
use crate::cache::recoded::{Effort, Form, FormBody};
use crate::cache::{Filling, Forms, Stored};
use crate::config::{Compression, Events};
use crate::exchange::Exchange;
use crate::key::CacheKey;
use crate::message::{Fields, Framing, RequestHead, ResponseHead};
use crate::metrics::Compressed;
use crate::transform::compress::encode::{Purpose, Recipe};
use crate::transform::compress::rules::{Body, Untouched, body, judge, recoding};
use crate::transform::compress::tags::confirmed;
use crate::transform::compress::workers::Workers;
use crate::transform::compress::{Recoding, recode_fields, vary, vary_by_coding};
use crate::transform::dictionary::Digest;
use crate::transform::events::is_event_stream;
use crate::transform::negotiate::{Accepted, Coding, DictionaryCoding};

/// The longest body in bytes that comes out of one that an origin has compressed without being asked to. It passes piece by piece, so this
/// only keeps a bomb from going on for ever.
const MAX_DECODED: u64 = 1 << 30;

/// The same for a stored one, as a multiple of the largest body that is stored: it is kept beside the other.
const MAX_DECODED_STORED: u64 = 8;

/// How long a request waits for the form that it asks for. Then it gets the response as it came: that form is there for the next.
const PATIENCE: Duration = Duration::from_millis(250);

/// What compresses, shared by all requests.
#[derive(Debug, Default)]
pub struct Compressor {
    pub workers: Arc<Workers>,
    pub places: Places,
    making: Arc<Making>,
}

/// In which form a stored response is sent.
pub(super) enum Chosen {
    AsItCame,
    Form(Arc<Stored>, Recoding),
    /// It has to be made first.
    Missing(Wanted),
    /// The client has this dictionary, which is not here; L2 may have it.
    Elsewhere(Digest),
}

impl Proxy {
    /// Decides whether the body behind `head` is recoded on its way to the client, and changes the head accordingly. `key`: of the response,
    /// if it is one that others get as well. `limits` are those of the way: comments that keep an event stream alive have to go through
    /// the compressor, too.
    pub(super) fn recode(
        &self,
        decided: &Decided<'_>,
        key: Option<&CacheKey>,
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
        let length = length(head);
        let body = of_response(rules, decided, head).ok()?;
        vary(&mut head.fields, body, rules.dictionaries);
        let dictionary = match body {
            Body::Plain if !is_stream => key.and_then(|key| self.live_dictionary(rules, decided, key, &head.fields)),
            Body::Plain | Body::Coded(_) | Body::Fixed => None,
        };
        let recoding = match &dictionary {
            Some(dictionary) => Recoding::Against(DictionaryCoding::Dcz, dictionary.digest),
            None => recoding(rules, &request.fields, body)?,
        };
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
            let how = match dictionary {
                Some(dictionary) => How::Against(dictionary, rules.live_levels.of(Coding::Zstd), length),
                None => how(rules, recoding, body, purpose, length)?,
            };
            let (coding, result) = match &how {
                How::Encode(recipe) => (recipe.coding, Compressed::Live),
                How::Against(..) => (Coding::Zstd, Compressed::LiveDictionary),
                How::Decode(coding, _) => (*coding, Compressed::Decoded),
            };
            let Some(new) = Recoder::new(
                how,
                recoding.as_str(),
                flushing,
                &self.compressor.workers,
                &self.compressor.places,
            ) else {
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

    /// How long a request that reads along waits for the end of the body, because it would be compressed for each who does: stored, it is
    /// compressed once for all. No longer than any byte may wait.
    pub(super) fn would_compress(&self, decided: &Decided<'_>, filling: &Filling) -> Option<Duration> {
        let rules = decided.route.compression.as_deref()?;
        let body = body(rules, filling.meta.status, &filling.fields, filling.length);
        recoding(rules, &decided.request.fields, body)?;
        (!rules.flush_after.is_zero()).then_some(rules.flush_after)
    }

    /// The form of a stored response that this request gets, without waiting.
    pub(super) fn chosen(&self, decided: &Decided<'_>, key: &CacheKey, stored: &Arc<Stored>) -> Chosen {
        let (Some(rules), Some(forms)) = (&decided.route.compression, stored.forms()) else {
            return Chosen::AsItCame;
        };
        let plain = recoding(rules, &decided.request.fields, forms.body);
        let held = self.with_dictionary(rules, decided, key, stored, forms);
        if let Held::Elsewhere(digest) = held {
            return Chosen::Elsewhere(digest);
        }
        if let Held::Here(wanted) = held {
            let without = plain.and_then(|plain| forms.get(plain));
            match forms.get(wanted.recoding) {
                None => return Chosen::Missing(wanted),
                Some(Form::Made(form, effort)) if is_smaller(form, without) => {
                    return self.chosen_form(decided, rules, key, stored, &wanted, form, *effort);
                }
                Some(Form::Made(..) | Form::Worthless) => {}
            }
        }
        let Some(recoding) = plain else {
            return Chosen::AsItCame;
        };
        let wanted = Wanted::without_dictionary(recoding);
        match forms.get(recoding) {
            None => Chosen::Missing(wanted),
            Some(Form::Worthless) => Chosen::AsItCame,
            Some(Form::Made(form, effort)) => self.chosen_form(decided, rules, key, stored, &wanted, form, *effort),
        }
    }

    /// A form that is there. One that is used again is worth being made better.
    #[expect(clippy::too_many_arguments, reason = "what is decided, and what is there")]
    fn chosen_form(
        &self,
        decided: &Decided<'_>,
        rules: &Arc<Compression>,
        key: &CacheKey,
        stored: &Arc<Stored>,
        wanted: &Wanted,
        form: &Arc<Stored>,
        effort: Effort,
    ) -> Chosen {
        if effort == Effort::Quick && stored.forms().is_some_and(Forms::is_used_again) {
            self.improve(decided, rules, key, stored, wanted);
        }
        Chosen::Form(form.clone(), wanted.recoding)
    }

    /// The form of a stored response that this request gets. Where it has to be made first, that is done once for all who ask for it.
    pub(super) async fn in_form(
        &self,
        decided: &Decided<'_>,
        key: &CacheKey,
        stored: &Arc<Stored>,
        exchange: &mut Exchange,
    ) -> Arc<Stored> {
        let chosen = match self.chosen(decided, key, stored) {
            Chosen::Elsewhere(digest) => {
                // Boxed, because hardly any request comes here.
                if let Some(looking) = self.look_for_dictionary(key, digest) {
                    Box::pin(looking).await;
                }
                self.chosen(decided, key, stored)
            }
            chosen => chosen,
        };
        let (form, recoding) = match chosen {
            Chosen::AsItCame | Chosen::Elsewhere(_) => return stored.clone(),
            Chosen::Form(form, recoding) => (Some(form), recoding),
            Chosen::Missing(wanted) => self.when_made(decided, key, stored, &wanted).await,
        };
        match form {
            Some(form) => {
                exchange.coding = Some(recoding.as_str());
                form
            }
            None => stored.clone(),
        }
    }

    /// Waits for a form, though not for long. Where one with a dictionary comes to nothing, it is the one without.
    async fn when_made(
        &self,
        decided: &Decided<'_>,
        key: &CacheKey,
        stored: &Arc<Stored>,
        wanted: &Wanted,
    ) -> (Option<Arc<Stored>>, Recoding) {
        let until = Instant::now() + PATIENCE;
        let (Some(rules), Some(forms)) = (&decided.route.compression, stored.forms()) else {
            return (None, wanted.recoding);
        };
        let made = self.make(decided, rules, key, stored, wanted);
        let form = made_until(made, until).await;
        let plain = recoding(rules, &decided.request.fields, forms.body);
        match (form, &wanted.dictionary, plain) {
            (None, Some(_), Some(plain)) => {
                let form = match forms.get(plain) {
                    Some(Form::Made(form, _)) => Some(form.clone()),
                    Some(Form::Worthless) => None,
                    None => {
                        let wanted = Wanted::without_dictionary(plain);
                        made_until(self.make(decided, rules, key, stored, &wanted), until).await
                    }
                };
                (form, plain)
            }
            (form, _, _) => (form, wanted.recoding),
        }
    }

    /// Has a form made that somebody waits for, unless another instance has it.
    fn make(
        &self,
        decided: &Decided<'_>,
        rules: &Arc<Compression>,
        key: &CacheKey,
        stored: &Arc<Stored>,
        wanted: &Wanted,
    ) -> watch::Receiver<Progress> {
        let (sender, receiver) = watch::channel(Progress::NotYet);
        let place = (Arc::as_ptr(stored).addr(), wanted.recoding, Effort::Quick);
        match self.compressor.making.entry(place) {
            Entry::Occupied(under_way) => return under_way.get().clone(),
            Entry::Vacant(vacant) => drop(vacant.insert(receiver.clone())),
        }
        let order = self.order(decided, rules, key, stored, wanted, place);
        let quick = Quick { order, sender };
        let workers = self.compressor.workers.clone();
        match quick.order.l2_for_form() {
            Some(l2) => {
                tokio::spawn(async move {
                    match quick.order.look(&l2).await {
                        Some(body) => quick.found(&body),
                        None => workers.soon(move || quick.make()),
                    }
                });
            }
            None => workers.soon(move || quick.make()),
        }
        receiver
    }

    /// Has a form made anew, as well as it can be, when there is time, unless another instance has done so.
    fn improve(
        &self,
        decided: &Decided<'_>,
        rules: &Arc<Compression>,
        key: &CacheKey,
        stored: &Arc<Stored>,
        wanted: &Wanted,
    ) {
        if wanted.recoding == Recoding::Undone {
            return;
        }
        let place = (Arc::as_ptr(stored).addr(), wanted.recoding, Effort::Best);
        let Entry::Vacant(vacant) = self.compressor.making.entry(place) else {
            return;
        };
        let (_, nobody) = watch::channel(Progress::NotYet);
        drop(vacant.insert(nobody));
        let order = self.order(decided, rules, key, stored, wanted, place);
        let workers = self.compressor.workers.clone();
        match order.l2_for_form() {
            Some(l2) => {
                tokio::spawn(async move {
                    match order.look(&l2).await {
                        Some(body @ FormBody::Made(_, Effort::Best)) => order.take(&body),
                        Some(_) | None => order.improve(&workers),
                    }
                });
            }
            None => order.improve(&workers),
        }
    }

    fn order(
        &self,
        decided: &Decided<'_>,
        rules: &Arc<Compression>,
        key: &CacheKey,
        stored: &Arc<Stored>,
        wanted: &Wanted,
        place: Place,
    ) -> Order {
        let began = self.cache.begin();
        Order {
            rules: rules.clone(),
            key: key.clone(),
            stored: stored.clone(),
            wanted: wanted.clone(),
            memory: self.cache.memory.clone(),
            metrics: self.metrics.clone(),
            l2: self.cache.l2.clone(),
            keeping: decided
                .cache_rules()
                .map(|rules| Keeping::of(rules, decided.route, began)),
            limit: decided.max_body().saturating_mul(MAX_DECODED_STORED),
            _done: Done(self.compressor.making.clone(), place),
        }
    }
}

/// What can be done with a response that passes.
pub(crate) fn of_response(rules: &Compression, decided: &Decided<'_>, head: &ResponseHead) -> Result<Body, Untouched> {
    if decided.route.stream.is_some() && rules.events == Events::Untouched {
        return Err(Untouched::Events);
    }
    judge(rules, head.status, &head.fields, length(head))
}

/// Of the body in bytes, if it is known.
fn length(head: &ResponseHead) -> Option<u64> {
    match head.framing {
        Framing::Length(length) => Some(length),
        Framing::None => head.declared_length,
        Framing::Chunked | Framing::Stream | Framing::Close => None,
    }
}

/// Whether a form with a dictionary is smaller than the one without, if that is there.
fn is_smaller(form: &Stored, without: Option<&Form>) -> bool {
    match without {
        Some(Form::Made(without, _)) => form.body.len() < without.body.len(),
        Some(Form::Worthless) | None => true,
    }
}

/// `None`: it is not there in time, or not worth it.
async fn made_until(mut made: watch::Receiver<Progress>, until: Instant) -> Option<Arc<Stored>> {
    let made = tokio::time::timeout_at(until, made.wait_for(|made| !matches!(made, Progress::NotYet))).await;
    match made.ok()?.ok().as_deref()? {
        Progress::Made(form) => Some(form.clone()),
        Progress::NotYet | Progress::Worthless => None,
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
        // Decided elsewhere.
        (Recoding::Against(..), _) | (Recoding::Undone, Body::Plain | Body::Fixed) => None,
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
