//! Which dictionaries there are, and which of them a request gets its response with (RFC 9842).
//!
//! A stored response that is asked for with a dictionary is compressed once for all who have the same; one that comes from the origin just now
//! is compressed with it while it passes, so that the first client gains as well and nobody waits for the end of a body. A dictionary that
//! is not here is looked for in L2: while the origin is asked, or before a stored response is sent, within the time that Redis has for
//! any answer.

use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::making::Wanted;
use crate::cache::dictionaries::{Dictionary, Source, origin, place};
use crate::cache::epochs::Subject;
use crate::cache::recoded::digest;
use crate::cache::{Forms, L2, Stored};
use crate::config::{Compression, UseDictionaries};
use crate::key::{CacheKey, normalise_target};
use crate::message::Fields;
use crate::proxy::l2::Keeping;
use crate::proxy::{Decided, Proxy};
use crate::transform::compress::Recoding;
use crate::transform::compress::against::is_for_live;
use crate::transform::compress::decode::decode;
use crate::transform::compress::rules::{Body, body_as_it_came, dictionary_coding, is_secret};
use crate::transform::dictionary::{Digest, Offer, available, is_readable};
use crate::transform::negotiate::DictionaryCoding;

/// What there is for a request that names a dictionary.
pub(super) enum Held {
    /// Nothing that may be used for it.
    Nothing,
    Here(Wanted),
    /// The dictionary is not here, and L2 has not been asked for it of late.
    Elsewhere(Digest),
}

/// Where a dictionary comes from.
pub(in crate::proxy) enum Whence<'a> {
    /// From the origin, just now.
    Origin(&'a Keeping),
    /// From L2, where it stands already; the last purge that there had been before.
    L2 { route: &'a str, began: u64 },
}

impl Proxy {
    /// The form with the dictionary that the client has, if it may get one.
    pub(super) fn with_dictionary(
        &self,
        rules: &Compression,
        decided: &Decided<'_>,
        key: &CacheKey,
        stored: &Stored,
        forms: &Forms,
    ) -> Held {
        if rules.dictionaries == UseDictionaries::Never || forms.body != Body::Plain {
            return Held::Nothing;
        }
        let request = &decided.request.fields;
        let Some(digest) = available(request) else {
            return Held::Nothing;
        };
        let Some(coding) = dictionary_coding(rules, request) else {
            return Held::Nothing;
        };
        let Some(dictionary) = self.dictionary(key, &digest) else {
            return match self.l2_to_ask(key, &digest) {
                Some(_) => Held::Elsewhere(digest),
                None => Held::Nothing,
            };
        };
        let recoding = Recoding::Against(coding, digest);
        let may_be_used = may_use(decided, key, &dictionary)
            && is_readable(request, &stored.fields.unpack())
            && (forms.get(recoding).is_some() || forms.takes_dictionary());
        match may_be_used {
            true => Held::Here(Wanted {
                recoding,
                dictionary: Some(dictionary),
            }),
            false => Held::Nothing,
        }
    }

    /// The dictionary with which a response is compressed on its way from the origin: the one that the client has, if it may get one, and
    /// prefers dcz, because nothing else can be written piece by piece.
    pub(super) fn live_dictionary(
        &self,
        rules: &Compression,
        decided: &Decided<'_>,
        key: &CacheKey,
        response: &Fields,
    ) -> Option<Arc<Dictionary>> {
        let digest = wanted_live(rules, decided)?;
        let dictionary = self.dictionary(key, &digest)?;
        // What is for one client alone is not to be told from its length.
        let may_be_used = may_use(decided, key, &dictionary)
            && is_for_live(&dictionary.body)
            && !is_secret(response)
            && is_readable(&decided.request.fields, response);
        may_be_used.then_some(dictionary)
    }

    /// Has the dictionary looked for that [`Self::live_dictionary`] will want, unless it is here. `None`: there is nothing to wait for.
    pub(in crate::proxy) fn look_ahead(&self, decided: &Decided<'_>, key: &CacheKey) -> Option<JoinHandle<()>> {
        let rules = decided.route.compression.as_deref()?;
        let digest = wanted_live(rules, decided)?;
        match self.dictionary(key, &digest) {
            Some(_) => None,
            None => self.have_dictionary_looked_for(key, digest),
        }
    }

    // The task is made on the stack, of which whoever calls this should not take so much.
    #[inline(never)]
    fn have_dictionary_looked_for(&self, key: &CacheKey, digest: Digest) -> Option<JoinHandle<()>> {
        self.look_for_dictionary(key, digest).map(tokio::spawn)
    }

    /// Looks in L2 for a dictionary, and keeps it here. `None`: L2 has just been asked for it, or cannot be. Takes no longer than Redis may
    /// take to answer.
    pub(super) fn look_for_dictionary(
        &self,
        key: &CacheKey,
        digest: Digest,
    ) -> Option<impl Future<Output = ()> + Send + 'static> {
        let l2 = self.l2_to_ask(key, &digest)?.clone();
        let origin = origin(key)?;
        let dictionaries = self.cache.dictionaries.clone();
        if !dictionaries.ask(place(&origin, &digest), Instant::now()) {
            return None;
        }
        let deadline = l2.deadline();
        Some(async move {
            let largest = dictionaries.largest();
            let looking = l2.look_for_dictionary(&origin, &digest, largest, deadline);
            if let Ok(Some(dictionary)) = tokio::time::timeout_at(deadline, looking).await {
                dictionaries.add(dictionary.into());
            }
        })
    }

    fn dictionary(&self, key: &CacheKey, digest: &Digest) -> Option<Arc<Dictionary>> {
        let place = place(&origin(key)?, digest);
        self.cache.dictionaries.find(place, digest, &self.cache.epochs)
    }

    /// L2, if it may know of a dictionary, and has not just been asked.
    fn l2_to_ask(&self, key: &CacheKey, digest: &Digest) -> Option<&L2> {
        let l2 = self.cache.l2.as_ref().filter(|l2| l2.is_available())?;
        let place = place(&origin(key)?, digest);
        self.cache.dictionaries.may_ask(place, Instant::now()).then_some(l2)
    }

    /// Keeps a response's body as a dictionary, here and in L2, if its origin offers it as one and its route takes them.
    pub(in crate::proxy) fn keep_dictionary(
        &self,
        rules: Option<&Compression>,
        key: &CacheKey,
        stored: &Arc<Stored>,
        whence: Whence<'_>,
    ) {
        if rules.is_none_or(|rules| rules.dictionaries == UseDictionaries::Never) || stored.meta.status != 200 {
            return;
        }
        let fields = stored.fields.unpack();
        let dictionaries = self.cache.dictionaries.clone();
        let largest = dictionaries.largest();
        // Clients take what they have read, so a coding has to come off first.
        let coding = match body_as_it_came(&fields) {
            Body::Plain => None,
            Body::Coded(coding) => Some(coding),
            Body::Fixed => return,
        };
        let offer = key.parsed_uri().and_then(|uri| Offer::of(&fields, uri));
        let Some(offer) = offer.filter(|_| !is_secret(&fields) && stored.body.len() as u64 <= largest) else {
            return;
        };
        let (route, began, write) = match whence {
            Whence::Origin(keeping) => {
                let write = keeping.clone().write(key.clone(), stored.clone());
                let l2 = self.cache.l2.clone().map(|l2| (l2, write));
                (keeping.route().to_owned(), keeping.began().local, l2)
            }
            Whence::L2 { route, began } => (route.to_owned(), began, None),
        };
        let (key, stored) = (key.clone(), stored.clone());
        self.compressor.workers.soon(move || {
            let (body, digest) = match coding {
                None => (stored.body.clone(), stored.digest()),
                Some(coding) => match decode(&stored.body, coding, largest) {
                    Ok(body) => {
                        let digest = digest(&body);
                        (body, digest)
                    }
                    // Who asks for the response is told what is wrong with it.
                    Err(_) => return,
                },
            };
            let labels = stored.meta.labels().map_or(&[][..], |labels| labels.as_slice());
            let source = Source {
                subject: Subject {
                    key: &key,
                    route: &route,
                    labels,
                },
                began,
            };
            let dictionary = Arc::new(Dictionary::new(digest, body, offer, source));
            dictionaries.add(dictionary.clone());
            if let Some((l2, write)) = write {
                l2.write_dictionary(write, dictionary);
            }
        });
    }
}

/// The dictionary that a response on its way from the origin could be compressed with for this request.
fn wanted_live(rules: &Compression, decided: &Decided<'_>) -> Option<Digest> {
    let request = &decided.request.fields;
    match dictionary_coding(rules, request) {
        Some(DictionaryCoding::Dcz) => available(request),
        Some(DictionaryCoding::Dcb) | None => None,
    }
}

/// Whether this request's response may be compressed with a dictionary: by what the two URIs are, and because whoever may use this request's
/// route could have got the dictionary's response, as it still would be given out.
fn may_use(decided: &Decided<'_>, key: &CacheKey, dictionary: &Dictionary) -> bool {
    let target = normalise_target(&decided.request.target);
    if !dictionary.fits(key, &target, &decided.request.fields) {
        return false;
    }
    let own = decided.route;
    if own.name == *dictionary.route() {
        return true;
    }
    let routes = &decided.generation.config.routes;
    let Some((index, other)) = routes
        .iter()
        .enumerate()
        .find(|(_, route)| route.name == *dictionary.route())
    else {
        return false;
    };
    let takes_dictionaries = |rules: &Compression| rules.dictionaries != UseDictionaries::Never;
    let rules = decided.generation.routes.get(index);
    rules.is_some_and(|rules| rules.cache.is_some())
        && other.compression.as_deref().is_some_and(takes_dictionaries)
        && (&other.allow, &other.deny) == (&own.allow, &own.deny)
}
