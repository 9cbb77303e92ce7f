//! Compression of responses.
//!
//! [`rules`] says which responses, [`tags`] what becomes of their entity tags, [`recode_fields`] of their other fields. Bodies are written
//! by [`encode`], or [`against`] an older version, and read by [`decode`], on threads of their own ([`workers`]) wherever that takes long.

pub mod against;
pub mod decode;
pub mod encode;
pub mod rules;
pub mod tags;
pub mod workers;

use std::borrow::Cow;
use std::fmt::Write;

use self::rules::Body;
use self::tags::suffixed;
use super::dictionary::Digest;
use super::negotiate::{Coding, DictionaryCoding};
use crate::config::UseDictionaries;
use crate::message::Fields;

/// How a body that is sent differs from the one that the origin sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Recoding {
    /// It was compressed here.
    To(Coding),
    /// It was compressed here, with a dictionary that has this digest (RFC 9842).
    Against(DictionaryCoding, Digest),
    /// It came compressed, and the client cannot read that.
    Undone,
}

/// Bytes of a dictionary's digest that stand in entity tags and names: enough to tell any two apart.
const SHORT_DIGEST: usize = 16;

impl Recoding {
    /// Those without a dictionary.
    pub const ALL: [Self; 4] = [
        Self::To(Coding::Zstd),
        Self::To(Coding::Br),
        Self::To(Coding::Gzip),
        Self::Undone,
    ];

    /// The coding of what is sent, as a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::To(coding) => coding.as_str(),
            Self::Against(coding, _) => coding.as_str(),
            Self::Undone => "identity",
        }
    }

    /// What tells the form from all others of the same response: its coding, and its dictionary if it has one.
    pub fn name(self) -> Cow<'static, str> {
        let Self::Against(coding, digest) = self else {
            return self.as_str().into();
        };
        let mut name = format!("{}-", coding.as_str());
        for byte in digest.iter().take(SHORT_DIGEST) {
            // Into a string that never fails.
            let _ = write!(name, "{byte:02x}");
        }
        name.into()
    }

    /// The coding by which it is counted. `None`: nothing was compressed.
    pub fn base(self) -> Option<Coding> {
        match self {
            Self::To(coding) => Some(coding),
            Self::Against(coding, _) => Some(coding.base()),
            Self::Undone => None,
        }
    }
}

/// Whether this is the [`Recoding::name`] of one with a dictionary.
fn names_dictionary(name: &[u8]) -> bool {
    DictionaryCoding::ALL.iter().any(|coding| {
        let digest = name.strip_prefix(coding.as_str().as_bytes());
        digest.and_then(|rest| rest.strip_prefix(b"-")).is_some_and(|digest| {
            digest.len() == 2 * SHORT_DIGEST && digest.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        })
    })
}

/// Fields that hold for the bytes of the origin's body alone: digests of them (RFC 1864, RFC 3230, RFC 9530 §2, §3), and that parts of
/// them can be had.
const OF_THE_BYTES: [&str; 5] = [
    "content-md5",
    "digest",
    "content-digest",
    "repr-digest",
    "accept-ranges",
];

/// Takes out of a response's fields, or trailers, what holds for the origin's bytes alone.
pub fn drop_what_is_of_the_bytes(fields: &mut Fields) {
    fields.retain(|name, _| !OF_THE_BYTES.iter().any(|known| name.eq_ignore_ascii_case(known)));
}

/// Makes a response's fields those of its recoded body.
pub fn recode_fields(fields: &mut Fields, recoding: Recoding) {
    drop_what_is_of_the_bytes(fields);
    match recoding {
        Recoding::To(_) | Recoding::Against(..) => fields.set("Content-Encoding", recoding.as_str()),
        Recoding::Undone => drop(fields.remove("content-encoding")),
    }
    // Several lines, or none, are no entity tag to begin with.
    let etag = {
        let mut lines = fields.get_all("etag");
        match (lines.next(), lines.next()) {
            (Some(etag), None) => suffixed(etag, recoding),
            _ => None,
        }
    };
    if let Some(etag) = etag {
        fields.set("ETag", etag);
    }
    vary_by_coding(fields);
    if matches!(recoding, Recoding::Against(..)) {
        vary_by_dictionary(fields);
    }
}

/// Says that another `Accept-Encoding` could have got another coding (RFC 9110 §12.5.5): on the response without a coding, too.
pub fn vary_by_coding(fields: &mut Fields) {
    vary_by(fields, "Accept-Encoding");
}

/// Says what of a request could have got other bytes.
pub fn vary(fields: &mut Fields, body: Body, dictionaries: UseDictionaries) {
    vary_by_coding(fields);
    match (body, dictionaries) {
        (Body::Plain, UseDictionaries::AsOffered) => vary_by_dictionary(fields),
        (Body::Plain, UseDictionaries::Never) | (Body::Coded(_) | Body::Fixed, _) => {}
    }
}

/// Says that another dictionary could have got other bytes (RFC 9842 §6.2): on the response without one, too.
pub fn vary_by_dictionary(fields: &mut Fields) {
    vary_by(fields, "Available-Dictionary");
}

fn vary_by(fields: &mut Fields, name: &str) {
    if !fields.has_token("vary", name) && !fields.has_token("vary", "*") {
        fields.push("Vary", name);
    }
}

#[cfg(test)]
mod tests;
