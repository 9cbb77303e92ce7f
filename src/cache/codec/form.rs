//! Compressed forms of responses as bytes.

use std::time::Duration;

use bytes::Bytes;

use super::{FORM, PLAIN, Reader, SLICED_FROM, head, mark, opened, put, put_mark, sealed};
use crate::cache::coherence::Mark;
use crate::cache::recoded::{Effort, FormBody};
use crate::metrics::RedisFault;
use crate::transform::dictionary::Digest;

/// What a form is of.
#[derive(Debug, Clone, Copy)]
pub struct FormOf<'a> {
    pub key: &'a [u8],
    /// Of the body as it came.
    pub digest: &'a Digest,
    /// The coding, as a word.
    pub coding: &'a str,
}

const QUICK: u8 = 0;
const BEST: u8 = 1;
const WORTHLESS: u8 = 2;

/// A form. `mark`: the last purge that was known when it was begun. `None`: too much for the form.
pub fn encode(of: FormOf<'_>, mark: Mark, body: &FormBody) -> Option<Vec<u8>> {
    let (effort, body) = match body {
        FormBody::Worthless => (WORTHLESS, &[][..]),
        FormBody::Made(body, Effort::Quick) => (QUICK, &body[..]),
        FormBody::Made(body, Effort::Best) => (BEST, &body[..]),
    };
    let mut out = head(FORM, PLAIN, 0, Duration::ZERO, 160 + of.key.len() + body.len());
    put(&mut out, of.key)?;
    put_mark(&mut out, mark);
    out.extend_from_slice(of.digest);
    put(&mut out, of.coding.as_bytes())?;
    out.push(effort);
    put(&mut out, body)?;
    Some(sealed(out))
}

/// Reads what was written for this.
///
/// # Errors
/// Says what is wrong. None of it is of any use then.
pub fn decode(bytes: &Bytes, of: FormOf<'_>) -> Result<(Mark, FormBody), RedisFault> {
    let mut reader = opened(bytes)?;
    read(bytes, &mut reader, of).unwrap_or(Err(RedisFault::ValueBroken))
}

/// `None`: there is less than there has to be, or more.
fn read(bytes: &Bytes, reader: &mut Reader<'_>, of: FormOf<'_>) -> Option<Result<(Mark, FormBody), RedisFault>> {
    let (kind, _) = (reader.u8()?, reader.u8()?);
    let (_at, _age) = (reader.u64()?, reader.u64()?);
    if kind != FORM {
        return None;
    }
    if reader.block()? != of.key {
        return Some(Err(RedisFault::ValueKey));
    }
    let mark = mark(reader)?;
    // Another body's form, or in another coding: as bad as another key's.
    if reader.array::<32>()? != *of.digest || reader.block()? != of.coding.as_bytes() {
        return Some(Err(RedisFault::ValueKey));
    }
    let effort = reader.u8()?;
    let length = reader.block()?.len();
    if reader.left() > 0 {
        return None;
    }
    let body = match length > SLICED_FROM {
        true => bytes.slice(bytes.len() - length..),
        false => Bytes::copy_from_slice(bytes.get(bytes.len() - length..)?),
    };
    let form = match effort {
        WORTHLESS if body.is_empty() => FormBody::Worthless,
        QUICK if !body.is_empty() => FormBody::Made(body, Effort::Quick),
        BEST if !body.is_empty() => FormBody::Made(body, Effort::Best),
        _ => return None,
    };
    Some(Ok((mark, form)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MARK: Mark = Mark {
        incarnation: 7,
        number: 9,
    };

    fn of<'a>(key: &'a [u8], digest: &'a Digest, coding: &'a str) -> FormOf<'a> {
        FormOf { key, digest, coding }
    }

    #[test]
    fn a_form_is_read_for_what_it_was_made_of_and_nothing_else() {
        let (digest, other) = ([1; 32], [2; 32]);
        let large = Bytes::from(vec![3; SLICED_FROM + 1]);
        for form in [
            FormBody::Worthless,
            FormBody::Made(Bytes::from_static(b"small"), Effort::Quick),
            FormBody::Made(large, Effort::Best),
        ] {
            let bytes = Bytes::from(encode(of(b"key", &digest, "br"), MARK, &form).unwrap());
            let (mark, read) = decode(&bytes, of(b"key", &digest, "br")).unwrap();
            assert_eq!((mark, format!("{read:?}")), (MARK, format!("{form:?}")));
            for wrong in [
                of(b"kez", &digest, "br"),
                of(b"key", &other, "br"),
                of(b"key", &digest, "zstd"),
            ] {
                assert_eq!(decode(&bytes, wrong).unwrap_err(), RedisFault::ValueKey);
            }
            for length in 0..bytes.len().min(200) {
                assert!(decode(&bytes.slice(..length), of(b"key", &digest, "br")).is_err());
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let sealed = Bytes::from(sealed([&[0; super::super::SUMMED][..], &bytes].concat()));
            let _ = decode(&sealed, of(b"", &[0; 32], ""));
            let _ = decode(&bytes.into(), of(b"", &[0; 32], ""));
        }
    }
}
