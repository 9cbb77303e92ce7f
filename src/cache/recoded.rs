//! What a stored response can be sent as, beside what the origin sent: made once for each coding, and kept beside it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::{Memory, Stored, allocation};
use crate::config::{Compression, UseDictionaries};
use crate::key::CacheKey;
use crate::message::Fields;
use crate::rfc9111::stored::StoredMeta;
use crate::rfc9111::validation::EntityTag;
use crate::transform::compress::rules::{self, Body};
use crate::transform::compress::{Recoding, recode_fields, vary};
use crate::transform::dictionary::Digest;

/// A coding that is used so often is made anew with the best that there is.
const USES_WORTH_THE_BEST: u32 = 3;

/// How often something is tried again that another thread has been faster with.
const TURNS: usize = 4;

/// The body of a stored response: with its forms, where it has others. Both in the room of the one, because there are a million of them.
#[derive(Debug)]
pub enum StoredBody {
    /// It is always sent like this.
    AsItCame(Bytes),
    InForms(Box<(Bytes, Forms)>),
}

impl std::ops::Deref for StoredBody {
    type Target = Bytes;

    fn deref(&self) -> &Bytes {
        match self {
            Self::AsItCame(bytes) => bytes,
            Self::InForms(both) => &both.0,
        }
    }
}

impl From<Bytes> for StoredBody {
    fn from(bytes: Bytes) -> Self {
        Self::AsItCame(bytes)
    }
}

/// Forms of a stored response that are made with one dictionary each. Clients choose these, so they have an end.
pub const MAX_WITH_DICTIONARY: usize = 8;

/// The other forms of a stored response. Never changed but for the count: a change puts another list in its place.
#[derive(Debug)]
pub struct Forms {
    /// What can be done with the body as it came.
    pub body: Body,
    /// The route's.
    dictionaries: UseDictionaries,
    /// Of the body as it came, once somebody has asked.
    digest: OnceLock<Digest>,
    uses: AtomicU32,
    known: Vec<(Recoding, Form)>,
}

#[derive(Debug, Clone)]
pub enum Form {
    /// It would not be much smaller, or cannot be made: the response is sent as it came.
    Worthless,
    Made(Arc<Stored>, Effort),
}

/// How much was done for a form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effort {
    /// As little as somebody who waits has patience for.
    Quick,
    Best,
}

/// What became of making a form.
#[derive(Debug, Clone)]
pub enum FormBody {
    Worthless,
    Made(Bytes, Effort),
}

impl Forms {
    fn new(body: Body, dictionaries: UseDictionaries) -> Self {
        Self {
            body,
            dictionaries,
            digest: OnceLock::new(),
            uses: AtomicU32::new(0),
            known: Vec::new(),
        }
    }

    /// `None`: not made yet.
    pub fn get(&self, recoding: Recoding) -> Option<&Form> {
        self.known
            .iter()
            .find(|(known, _)| *known == recoding)
            .map(|(_, form)| form)
    }

    /// Whether a form with another dictionary may be made.
    pub fn takes_dictionary(&self) -> bool {
        let known = self.known.iter();
        known
            .filter(|(known, _)| matches!(known, Recoding::Against(..)))
            .count()
            < MAX_WITH_DICTIONARY
    }

    /// Counts a use of a form that could be better. `true`: now it is worth the best.
    pub fn is_used_again(&self) -> bool {
        // More than one thread may be told so; it is done once all the same.
        self.uses.fetch_add(1, Ordering::Relaxed) + 1 >= USES_WORTH_THE_BEST
    }

    /// Lets the count begin anew: there was no time for the best.
    pub fn put_off(&self) {
        self.uses.store(0, Ordering::Relaxed);
    }

    fn size(&self) -> u64 {
        let made = self.known.iter().map(|(_, form)| match form {
            Form::Worthless => 0,
            Form::Made(stored, _) => stored.size(),
        });
        allocation(size_of::<(Bytes, Self)>())
            + allocation(self.known.capacity() * size_of::<(Recoding, Form)>())
            + made.sum::<u64>()
    }
}

impl Stored {
    /// A response that is sent as it came.
    pub fn new(meta: StoredMeta, fields: &Fields, body: Bytes) -> Self {
        Self {
            meta,
            fields: fields.into(),
            body: body.into(),
        }
    }

    /// `None`: it is always sent as it came.
    pub fn forms(&self) -> Option<&Forms> {
        match &self.body {
            StoredBody::AsItCame(_) => None,
            StoredBody::InForms(both) => Some(&both.1),
        }
    }

    /// What identifies the body as it came. Takes a millisecond or so for a megabyte, once.
    pub fn digest(&self) -> Digest {
        let compute = || digest(&self.body);
        match self.forms() {
            Some(forms) => *forms.digest.get_or_init(compute),
            None => compute(),
        }
    }

    fn in_forms(mut self, forms: Forms) -> Self {
        self.body = StoredBody::InForms(Box::new((self.body.clone(), forms)));
        self
    }

    /// The same for a route that compresses, or not: it then has other forms, and says so.
    pub fn for_route(mut self, compression: Option<&Compression>) -> Self {
        let Some(compression) = compression else { return self };
        if self.meta.partial().is_some() {
            return self;
        }
        let mut fields = self.fields.unpack();
        let length = Some(self.body.len() as u64);
        let body = rules::body(compression, self.meta.status, &fields, length);
        if body == Body::Fixed {
            return self;
        }
        vary(&mut fields, body, compression.dictionaries);
        self.fields = (&fields).into();
        self.in_forms(Forms::new(body, compression.dictionaries))
    }

    /// The same body, and its other forms, with newer fields.
    pub fn updated(&self, meta: StoredMeta, mut fields: Fields) -> Self {
        let Some(forms) = self.forms() else {
            return Self::new(meta, &fields, self.body.clone());
        };
        vary(&mut fields, forms.body, forms.dictionaries);
        let updated = Self::new(meta, &fields, self.body.clone());
        let known = forms.known.iter().map(|(recoding, form)| {
            let form = match form {
                Form::Worthless => Form::Worthless,
                Form::Made(stored, effort) => {
                    Form::Made(Arc::new(updated.form(*recoding, stored.body.clone())), *effort)
                }
            };
            (*recoding, form)
        });
        let forms = Forms {
            body: forms.body,
            dictionaries: forms.dictionaries,
            digest: forms.digest.clone(),
            uses: AtomicU32::new(forms.uses.load(Ordering::Relaxed)),
            known: known.collect(),
        };
        updated.in_forms(forms)
    }

    /// One form of it, whose body this is.
    pub fn form(&self, recoding: Recoding, body: Bytes) -> Self {
        let mut fields = self.fields.unpack();
        recode_fields(&mut fields, recoding);
        let mut meta = self.meta.clone();
        meta.validators.etag = EntityTag::of(&fields);
        Self::new(meta, &fields, body)
    }

    fn with_form(&self, recoding: Recoding, form: Form) -> Option<Self> {
        let forms = self.forms()?;
        let others = forms.known.iter().filter(|(known, _)| *known != recoding).cloned();
        let mut known = Vec::with_capacity(forms.known.len() + 1);
        known.extend(others);
        known.push((recoding, form));
        let copy = Self {
            meta: self.meta.clone(),
            fields: self.fields.clone(),
            body: self.body.clone().into(),
        };
        Some(copy.in_forms(Forms {
            body: forms.body,
            dictionaries: forms.dictionaries,
            digest: forms.digest.clone(),
            uses: AtomicU32::new(0),
            known,
        }))
    }

    /// Bytes that the other forms take.
    pub(super) fn forms_size(&self) -> u64 {
        self.forms().map_or(0, Forms::size)
    }

    /// Whether both have the very same body.
    fn has_body_of(&self, other: &Self) -> bool {
        std::ptr::eq(self.body.as_ptr(), other.body.as_ptr()) && self.body.len() == other.body.len()
    }
}

/// SHA-256 of these bytes.
pub fn digest(bytes: &[u8]) -> Digest {
    let mut digest = Digest::default();
    // It is as long as that.
    for (to, from) in digest
        .iter_mut()
        .zip(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
    {
        *to = *from;
    }
    digest
}

impl Memory {
    /// Puts a form beside a stored response, if that is still there; it may have been freshened meanwhile. Answers the response as it is
    /// now.
    pub fn add_form(
        &self,
        key: &CacheKey,
        stored: &Stored,
        recoding: Recoding,
        body: &FormBody,
    ) -> Option<Arc<Stored>> {
        for _ in 0..TURNS {
            let variants = self.get(key)?;
            let base = variants.iter().find(|variant| variant.has_body_of(stored))?;
            let form = match body {
                FormBody::Made(body, effort) => Form::Made(Arc::new(base.form(recoding, body.clone())), *effort),
                FormBody::Worthless => Form::Worthless,
            };
            let new = base.with_form(recoding, form).map(Arc::new)?;
            self.replace(key, base, Some(new.clone()));
            let is_there = self
                .get(key)
                .is_some_and(|variants| variants.iter().any(|variant| Arc::ptr_eq(variant, &new)));
            if is_there {
                return Some(new);
            }
        }
        None
    }
}
