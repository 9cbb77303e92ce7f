//! Compression as requests meet it: what is decided about a response that passes, and in which form a stored one is sent.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::watch;

use super::l2::Keeping;
use super::recode::{Flushing, How, Places, RecodeError, Recoder};
use super::relay::Limits;
use super::{Decided, Proxy};
use crate::cache::recoded::{Effort, Form, FormBody};
use crate::cache::{L2, Memory, Stored};
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

/// Bytes whose digest takes so long that it is made on a thread for such things: a quarter of a millisecond and more.
const LARGE_TO_DIGEST: usize = 256 * 1024;

/// What compresses, shared by all requests.
#[derive(Debug, Default)]
pub struct Compressor {
    pub workers: Arc<Workers>,
    pub places: Places,
    making: Arc<Making>,
}

/// Which form of which stored response: by the address of the response, which whoever makes it holds.
type Place = (usize, Recoding, Effort);

/// The forms of stored responses that are being made.
type Making = DashMap<Place, watch::Receiver<Option<Arc<Stored>>>>;

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
                    self.improve(decided, rules, key, stored, recoding);
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
        let mut made = self.make(decided, rules, key, stored, recoding);
        let waited = tokio::time::timeout(PATIENCE, made.wait_for(Option::is_some)).await;
        match waited {
            Ok(Ok(form)) => form.clone().unwrap_or_else(|| stored.clone()),
            Ok(Err(_)) | Err(_) => stored.clone(),
        }
    }

    /// Has a form made that somebody waits for, unless another instance has it.
    fn make(
        &self,
        decided: &Decided<'_>,
        rules: &Arc<Compression>,
        key: &CacheKey,
        stored: &Arc<Stored>,
        recoding: Recoding,
    ) -> watch::Receiver<Option<Arc<Stored>>> {
        let (sender, receiver) = watch::channel(None);
        let place = (Arc::as_ptr(stored).addr(), recoding, Effort::Quick);
        match self.compressor.making.entry(place) {
            Entry::Occupied(under_way) => return under_way.get().clone(),
            Entry::Vacant(vacant) => drop(vacant.insert(receiver.clone())),
        }
        let order = self.order(decided, rules, key, stored, recoding, place);
        let quick = Quick {
            order,
            limit: decided.max_body().saturating_mul(MAX_DECODED_STORED),
            sender,
        };
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
        recoding: Recoding,
    ) {
        if recoding == Recoding::Undone {
            return;
        }
        let place = (Arc::as_ptr(stored).addr(), recoding, Effort::Best);
        let Entry::Vacant(vacant) = self.compressor.making.entry(place) else {
            return;
        };
        let (_, nobody) = watch::channel(None);
        drop(vacant.insert(nobody));
        let order = self.order(decided, rules, key, stored, recoding, place);
        let workers = self.compressor.workers.clone();
        match order.l2_for_form() {
            Some(l2) => {
                tokio::spawn(async move {
                    match order.look(&l2).await {
                        Some(body @ FormBody::Made(_, Effort::Best)) => drop(order.take(&body)),
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
        recoding: Recoding,
        place: Place,
    ) -> Order {
        let began = self.cache.begin();
        Order {
            rules: rules.clone(),
            key: key.clone(),
            stored: stored.clone(),
            recoding,
            memory: self.cache.memory.clone(),
            metrics: self.metrics.clone(),
            l2: self.cache.l2.clone(),
            keeping: decided
                .cache_rules()
                .map(|rules| Keeping::of(rules, decided.route, began)),
            _done: Done(self.compressor.making.clone(), place),
        }
    }
}

/// A form that is to be made.
struct Order {
    rules: Arc<Compression>,
    key: CacheKey,
    stored: Arc<Stored>,
    recoding: Recoding,
    memory: Arc<Memory>,
    metrics: Arc<Metrics>,
    l2: Option<L2>,
    keeping: Option<Keeping>,
    _done: Done,
}

impl Order {
    /// L2, if forms of this kind are found there: reading what came compressed is quicker than asking for it.
    fn l2_for_form(&self) -> Option<L2> {
        match self.recoding {
            Recoding::To(_) => self.l2.clone().filter(L2::is_available),
            Recoding::Undone => None,
        }
    }

    /// What another instance has made.
    async fn look(&self, l2: &L2) -> Option<FormBody> {
        let route = self.keeping.as_ref()?.route();
        if self.stored.body.len() > LARGE_TO_DIGEST {
            let stored = self.stored.clone();
            tokio::task::spawn_blocking(move || stored.digest()).await.ok()?;
        }
        l2.look_for_form(&self.key, route, &self.stored, self.recoding.as_str())
            .await
    }

    /// Puts beside the response what another instance has made. Answers it as it is then, if it still is.
    fn take(&self, body: &FormBody) -> Option<Arc<Stored>> {
        if let Recoding::To(coding) = self.recoding {
            self.metrics.compression(coding, Compressed::Shared);
        }
        self.memory.add_form(&self.key, &self.stored, self.recoding, body)
    }

    /// Puts beside the response what was made here, and gives it to the others.
    fn give(&self, body: &FormBody) {
        let is_there = self.memory.add_form(&self.key, &self.stored, self.recoding, body);
        if let (Some(stored), Some(l2), Some(keeping)) = (is_there, self.l2_for_form(), &self.keeping) {
            // Here, where nobody's request is held up by it.
            stored.digest();
            let write = keeping.clone().write(self.key.clone(), stored);
            l2.write_form(write, self.recoding.as_str().to_owned(), body.clone());
        }
    }

    fn improve(self, workers: &Workers) {
        let stored = self.stored.clone();
        if workers.when_idle(move || self.make_best()).is_err()
            && let Some(forms) = stored.forms()
        {
            forms.put_off();
        }
    }

    fn make_best(self) {
        let Recoding::To(coding) = self.recoding else { return };
        let Some(Form::Made(form, _)) = self.stored.forms().and_then(|forms| forms.get(self.recoding)) else {
            return;
        };
        let level = best_level(&self.rules, coding, self.stored.body.len());
        match encode(&self.stored.body, coding, level) {
            Ok(body) if body.len() <= form.body.len() => {
                self.metrics.compression(coding, Compressed::Best);
                self.give(&FormBody::Made(body, Effort::Best));
            }
            // What there is is as good as it gets.
            Ok(_) => self.give(&FormBody::Made(Bytes::clone(&form.body), Effort::Best)),
            Err(error) => tracing::warn!(%error, "compression failed"),
        }
    }
}

/// A form that somebody waits for.
struct Quick {
    order: Order,
    /// Bytes of the longest body that may come out.
    limit: u64,
    sender: watch::Sender<Option<Arc<Stored>>>,
}

impl Quick {
    fn make(self) {
        let order = &self.order;
        let body = quick_body(&order.rules, &order.stored, order.recoding, self.limit, &order.metrics);
        self.order.give(&body);
        self.answer(&body);
    }

    fn found(self, body: &FormBody) {
        self.order.take(body);
        self.answer(body);
    }

    fn answer(&self, body: &FormBody) {
        let stored = &self.order.stored;
        let answer = match body {
            FormBody::Made(body, _) => Arc::new(stored.form(self.order.recoding, body.clone())),
            FormBody::Worthless => stored.clone(),
        };
        self.sender.send_replace(Some(answer));
    }
}

/// Ends the making of a form, however it ends.
struct Done(Arc<Making>, Place);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.remove(&self.1);
    }
}

/// The body of a form, made so that nobody waits for it long.
fn quick_body(rules: &Compression, stored: &Stored, recoding: Recoding, limit: u64, metrics: &Metrics) -> FormBody {
    let as_it_came = stored.forms().map_or(Body::Fixed, |forms| forms.body);
    let (coding, result) = match (recoding, as_it_came) {
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
        (Recoding::Undone, Body::Plain | Body::Fixed) => return FormBody::Worthless,
    };
    match result {
        Ok((body, Compressed::Stored)) if !pays(&body, &stored.body) => {
            metrics.compression(coding, Compressed::Worthless);
            FormBody::Worthless
        }
        Ok((body, word)) => {
            metrics.compression(coding, word);
            FormBody::Made(body, Effort::Quick)
        }
        Err(error) => {
            tracing::warn!(%error, "a stored response is sent as it came");
            metrics.compression(coding, Compressed::Failed);
            FormBody::Worthless
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
