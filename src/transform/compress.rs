//! Compression of responses.
//!
//! [`rules`] says which responses, [`tags`] what becomes of their entity tags, [`recode_fields`] of their other fields. Bodies are written
//! by [`encode`] and read by [`decode`], on threads of their own ([`workers`]) wherever that takes long.

pub mod decode;
pub mod encode;
pub mod rules;
pub mod tags;
pub mod workers;

use self::tags::suffixed;
use super::negotiate::Coding;
use crate::message::Fields;

/// How a body that is sent differs from the one that the origin sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Recoding {
    /// It was compressed here.
    To(Coding),
    /// It came compressed, and the client cannot read that.
    Undone,
}

impl Recoding {
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
            Self::Undone => "identity",
        }
    }
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

/// Makes a response's fields those of its recoded body.
pub fn recode_fields(fields: &mut Fields, recoding: Recoding) {
    fields.retain(|name, _| !OF_THE_BYTES.iter().any(|known| name.eq_ignore_ascii_case(known)));
    match recoding {
        Recoding::To(coding) => fields.set("Content-Encoding", coding.as_str()),
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
}

/// Says that another `Accept-Encoding` could have got another coding (RFC 9110 §12.5.5): on the response without a coding, too.
pub fn vary_by_coding(fields: &mut Fields) {
    if !fields.has_token("vary", "accept-encoding") && !fields.has_token("vary", "*") {
        fields.push("Vary", "Accept-Encoding");
    }
}

#[cfg(test)]
mod tests;
