//! Which dictionaries there are, and which of them a request gets its response with (RFC 9842).

use std::sync::Arc;

use super::making::Wanted;
use crate::cache::dictionaries::{Dictionary, Source};
use crate::cache::epochs::Subject;
use crate::cache::recoded::digest;
use crate::cache::{Forms, Stored};
use crate::config::{Compression, UseDictionaries};
use crate::key::{CacheKey, normalise_target};
use crate::proxy::{Decided, Proxy};
use crate::transform::compress::Recoding;
use crate::transform::compress::decode::decode;
use crate::transform::compress::rules::{Body, body_as_it_came, dictionary_coding, is_secret};
use crate::transform::dictionary::{Offer, available, is_readable};

impl Proxy {
    /// The form with the dictionary that the client has, if it may get one.
    pub(super) fn with_dictionary(
        &self,
        rules: &Compression,
        decided: &Decided<'_>,
        key: &CacheKey,
        stored: &Stored,
        forms: &Forms,
    ) -> Option<Wanted> {
        if rules.dictionaries == UseDictionaries::Never || forms.body != Body::Plain {
            return None;
        }
        let request = &decided.request.fields;
        let digest = available(request)?;
        let coding = dictionary_coding(rules, request)?;
        let dictionary = self.cache.dictionaries.find(&digest, &self.cache.epochs)?;
        let recoding = Recoding::Against(coding, digest);
        let target = normalise_target(&decided.request.target);
        let may_be_used = dictionary.fits(key, &target, request)
            && is_readable(request, &stored.fields.unpack())
            && (forms.get(recoding).is_some() || forms.takes_dictionary());
        may_be_used.then(|| Wanted {
            recoding,
            dictionary: Some(dictionary),
        })
    }

    /// Keeps a response's body as a dictionary, if its origin offers it as one and its route takes them. `began`: the last purge that there had
    /// been when it was asked for.
    pub(in crate::proxy) fn keep_dictionary(
        &self,
        rules: Option<&Compression>,
        key: &CacheKey,
        route: &str,
        stored: &Arc<Stored>,
        began: u64,
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
        let (key, route, stored) = (key.clone(), route.to_owned(), stored.clone());
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
            dictionaries.add(Dictionary::new(digest, body, offer, source));
        });
    }
}
