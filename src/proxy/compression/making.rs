//! Forms of stored responses are made: quickly for who waits, well when there is time, and only where no other instance has done so.

use std::sync::Arc;

use bytes::Bytes;
use dashmap::DashMap;
use tokio::sync::watch;

use crate::cache::recoded::{Effort, Form, FormBody};
use crate::cache::{Dictionary, L2, Memory, Stored};
use crate::config::Compression;
use crate::key::CacheKey;
use crate::metrics::{Compressed, Metrics};
use crate::proxy::l2::Keeping;
use crate::proxy::recode::RecodeError;
use crate::transform::compress::Recoding;
use crate::transform::compress::against::encode_against;
use crate::transform::compress::decode::decode;
use crate::transform::compress::encode::encode;
use crate::transform::compress::rules::{Body, is_secret};
use crate::transform::compress::workers::Workers;
use crate::transform::negotiate::Coding;

/// A form is worth its memory, and the client's work, if it takes at most so many hundredths of the body as it came.
const WORTHWHILE: u64 = 90;

/// Bytes beyond which the best levels of Brotli and zstd take seconds; those below them are nearly as good with so much.
const LARGE: usize = 1024 * 1024;
const BEST_FOR_LARGE_BR: u32 = 9;
const BEST_FOR_LARGE_ZSTD: u32 = 15;

/// Bytes whose digest takes so long that it is made on a thread for such things: a quarter of a millisecond and more.
const LARGE_TO_DIGEST: usize = 256 * 1024;

/// Which form of which stored response: by the address of the response, which whoever makes it holds.
pub(super) type Place = (usize, Recoding, Effort);

/// The forms of stored responses that are being made.
pub(super) type Making = DashMap<Place, watch::Receiver<Progress>>;

/// How far the making of a form has come.
#[derive(Debug, Clone)]
pub(super) enum Progress {
    NotYet,
    Made(Arc<Stored>),
    /// It does not pay, or cannot be made.
    Worthless,
}

/// What is wanted.
#[derive(Debug, Clone)]
pub(in crate::proxy) struct Wanted {
    pub recoding: Recoding,
    /// The one that the recoding names.
    pub dictionary: Option<Arc<Dictionary>>,
}

impl Wanted {
    pub(super) fn without_dictionary(recoding: Recoding) -> Self {
        Self {
            recoding,
            dictionary: None,
        }
    }
}

/// A form that is to be made.
pub(super) struct Order {
    pub rules: Arc<Compression>,
    pub key: CacheKey,
    pub stored: Arc<Stored>,
    pub wanted: Wanted,
    pub memory: Arc<Memory>,
    pub metrics: Arc<Metrics>,
    pub l2: Option<L2>,
    pub keeping: Option<Keeping>,
    /// Bytes of the longest body that may come out.
    pub limit: u64,
    pub _done: Done,
}

impl Order {
    /// L2, if forms of this kind are found there: reading what came compressed is quicker than asking for it.
    pub(super) fn l2_for_form(&self) -> Option<L2> {
        match self.wanted.recoding {
            Recoding::To(_) | Recoding::Against(..) => self.l2.clone().filter(L2::is_available),
            Recoding::Undone => None,
        }
    }

    /// What another instance has made.
    pub(super) async fn look(&self, l2: &L2) -> Option<FormBody> {
        let route = self.keeping.as_ref()?.route();
        if self.stored.body.len() > LARGE_TO_DIGEST {
            let stored = self.stored.clone();
            tokio::task::spawn_blocking(move || stored.digest()).await.ok()?;
        }
        l2.look_for_form(&self.key, route, &self.stored, &self.wanted.recoding.name())
            .await
    }

    /// Puts beside the response what another instance has made.
    pub(super) fn take(&self, body: &FormBody) {
        if let Some(coding) = self.wanted.recoding.base() {
            self.metrics.compression(coding, Compressed::Shared);
        }
        self.memory
            .add_form(&self.key, &self.stored, self.wanted.recoding, body);
    }

    /// Puts beside the response what was made here, and gives it to the others.
    fn give(&self, body: &FormBody) {
        let recoding = self.wanted.recoding;
        let is_there = self.memory.add_form(&self.key, &self.stored, recoding, body);
        if let (Some(stored), Some(l2), Some(keeping)) = (is_there, self.l2_for_form(), &self.keeping) {
            // Here, where nobody's request is held up by it.
            stored.digest();
            let write = keeping.clone().write(self.key.clone(), stored);
            l2.write_form(write, recoding.name().into_owned(), body.clone());
        }
    }

    pub(super) fn improve(self, workers: &Workers) {
        let stored = self.stored.clone();
        if workers.when_idle(move || self.make_best()).is_err()
            && let Some(forms) = stored.forms()
        {
            forms.put_off();
        }
    }

    fn make_best(self) {
        let recoding = self.wanted.recoding;
        let Some(coding) = recoding.base() else { return };
        let Some(Form::Made(form, _)) = self.stored.forms().and_then(|forms| forms.get(recoding)) else {
            return;
        };
        let level = best_level(&self.rules, coding, self.stored.body.len());
        match self.compressed(level) {
            Ok(body) if body.len() <= form.body.len() => {
                self.metrics.compression(coding, Compressed::Best);
                self.give(&FormBody::Made(body, Effort::Best));
            }
            // What there is is as good as it gets.
            Ok(_) => self.give(&FormBody::Made(Bytes::clone(&form.body), Effort::Best)),
            Err(error) => tracing::warn!(%error, "compression failed"),
        }
    }

    fn compressed(&self, level: u32) -> Result<Bytes, RecodeError> {
        let body = &self.stored.body;
        let compressed = match (self.wanted.recoding, &self.wanted.dictionary) {
            (Recoding::Against(coding, _), Some(dictionary)) => {
                encode_against(body, &dictionary.body, &dictionary.digest, coding, level)
            }
            (Recoding::To(coding), _) => encode(body, coding, level),
            (Recoding::Against(..) | Recoding::Undone, _) => Err(std::io::ErrorKind::InvalidInput.into()),
        };
        compressed.map_err(RecodeError::Encode)
    }

    /// The body of the form, made so that nobody waits for it long.
    fn quick(&self) -> FormBody {
        let live_levels = &self.rules.live_levels;
        let made = match (self.wanted.recoding, self.stored.forms().map(|forms| forms.body)) {
            (Recoding::To(coding), _) => self
                .compressed(live_levels.of(coding))
                .map(|body| (coding, body, Compressed::Stored)),
            // What is for one client alone is not to be told from its length.
            (Recoding::Against(..), _) if is_secret(&self.stored.fields.unpack()) => return FormBody::Worthless,
            (Recoding::Against(with, _), _) => self
                .compressed(live_levels.of(with.base()))
                .map(|body| (with.base(), body, Compressed::Dictionary)),
            (Recoding::Undone, Some(Body::Coded(coding))) => decode(&self.stored.body, coding, self.limit)
                .map(|body| (coding, body, Compressed::Decoded))
                .map_err(RecodeError::Decode),
            (Recoding::Undone, _) => return FormBody::Worthless,
        };
        match made {
            Ok((coding, body, Compressed::Stored | Compressed::Dictionary)) if !self.pays(&body) => {
                self.metrics.compression(coding, Compressed::Worthless);
                FormBody::Worthless
            }
            Ok((coding, body, word)) => {
                self.metrics.compression(coding, word);
                FormBody::Made(body, Effort::Quick)
            }
            Err(error) => {
                tracing::warn!(%error, "a form of a stored response could not be made");
                if let Some(coding) = self.coding() {
                    self.metrics.compression(coding, Compressed::Failed);
                }
                FormBody::Worthless
            }
        }
    }

    /// The coding by which it is counted.
    fn coding(&self) -> Option<Coding> {
        match (self.wanted.recoding, self.stored.forms().map(|forms| forms.body)) {
            (Recoding::Undone, Some(Body::Coded(coding))) => Some(coding),
            (recoding, _) => recoding.base(),
        }
    }

    /// Whether this is much smaller than the body as it came and, where it takes a dictionary, smaller than without.
    fn pays(&self, form: &Bytes) -> bool {
        let without = match (self.wanted.recoding, self.stored.forms()) {
            (Recoding::Against(coding, _), Some(forms)) => match forms.get(Recoding::To(coding.base())) {
                Some(Form::Made(without, _)) => without.body.len(),
                Some(Form::Worthless) | None => usize::MAX,
            },
            _ => usize::MAX,
        };
        form.len() < without && form.len() as u64 * 100 <= self.stored.body.len() as u64 * WORTHWHILE
    }
}

/// A form that somebody waits for.
pub(super) struct Quick {
    pub order: Order,
    pub sender: watch::Sender<Progress>,
}

impl Quick {
    pub(super) fn make(self) {
        let body = self.order.quick();
        self.order.give(&body);
        self.answer(&body);
    }

    pub(super) fn found(self, body: &FormBody) {
        self.order.take(body);
        self.answer(body);
    }

    fn answer(&self, body: &FormBody) {
        let Order { stored, wanted, .. } = &self.order;
        self.sender.send_replace(match body {
            FormBody::Made(body, _) => Progress::Made(Arc::new(stored.form(wanted.recoding, body.clone()))),
            FormBody::Worthless => Progress::Worthless,
        });
    }
}

/// Ends the making of a form, however it ends.
pub(super) struct Done(pub Arc<Making>, pub Place);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.remove(&self.1);
    }
}

fn best_level(rules: &Compression, coding: Coding, length: usize) -> u32 {
    let level = rules.stored_levels.of(coding);
    match coding {
        Coding::Br if length > LARGE => level.min(BEST_FOR_LARGE_BR),
        Coding::Zstd if length > LARGE => level.min(BEST_FOR_LARGE_ZSTD),
        Coding::Br | Coding::Zstd | Coding::Gzip => level,
    }
}
