//! Bodies are compressed with another one in hand: the version before, which the client still has (RFC 9842). What is stored is compressed
//! as a whole, what passes piece by piece.

use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};

use brotli::enc::{BrotliEncoderParams, StandardAlloc};
use brotli::{
    Allocator, BrotliCompressCustomIoCustomDict, Decompressor, IoReaderWrapper, IoWriterWrapper, SliceWrapperMut,
};
use bytes::Bytes;
use zstd::bulk::Compressor;
use zstd::zstd_safe::CParameter;

use super::encode::{Encoder, window_of};
use crate::transform::dictionary::Digest;
use crate::transform::negotiate::DictionaryCoding;

/// In front of a Brotli stream, then the digest (RFC 9842 §4).
const DCB: [u8; 4] = [0xff, b'D', b'C', b'B'];

/// The same for zstd: a frame that decoders skip, of 32 bytes (RFC 9842 §5).
const DCZ: [u8; 8] = [0x5e, 0x2a, 0x4d, 0x18, 0x20, 0, 0, 0];

/// What every decoder of dcz has, as a power of two: 8 MiB (RFC 9842 §5).
const DCZ_WINDOW: u32 = 23;

/// What it has for a large dictionary at most: 128 MiB.
const DCZ_LARGEST_WINDOW: u32 = 27;

/// What every decoder of dcb has: 16 MiB less what Brotli needs for itself (RFC 7932 §9.1, RFC 9842 §4).
const DCB_REACH: usize = (1 << 24) - DCB_OWN;
const DCB_OWN: usize = 16;
const DCB_WINDOW: i32 = 24;

/// With less Brotli looks at no dictionary.
const LOWEST_BR: u32 = 2;

/// With a larger dictionary the tables of the lower levels hold too little of it; zstd then notes long matches apart.
const LONG: usize = 1024 * 1024;

/// Bytes of the largest dictionary with which a body is compressed while it passes: each stream has a copy of it.
pub const LARGEST_LIVE: usize = 2 * 1024 * 1024;

/// How far zstd looks back in such a body, as a power of two: 1 MiB. As long as less has passed, all of the dictionary is in reach.
const LIVE_WINDOW: u32 = 20;

/// The highest level for them: with more the tables take a lot of memory, and reading the dictionary a lot of time.
const HIGHEST_LIVE: u32 = 6;

/// What the dictionaries begin with that zstd has made. One that a client has is none of these, whatever it looks like (RFC 8878 §5).
const MADE_BY_ZSTD: [u8; 4] = [0x37, 0xa4, 0x30, 0xec];

/// Room from which Brotli reads, and into which it writes.
const BR_BUFFER: usize = 64 * 1024;

/// A whole body at once. `level`: of the coding that it is based on.
///
/// # Errors
/// When there is no memory for it, body and dictionary are too large for the coding, or it cannot be written so that it is read again.
pub fn encode_against(
    body: &[u8],
    dictionary: &[u8],
    digest: &Digest,
    coding: DictionaryCoding,
    level: u32,
) -> io::Result<Bytes> {
    match coding {
        DictionaryCoding::Dcz => dcz(body, dictionary, digest, level),
        DictionaryCoding::Dcb => dcb(body, dictionary, digest, level),
    }
}

/// Whether a body can be compressed with this dictionary while it passes. Only zstd does so.
pub fn is_for_live(dictionary: &[u8]) -> bool {
    dictionary.len() <= LARGEST_LIVE && !dictionary.starts_with(&MADE_BY_ZSTD)
}

/// Compresses a body while it passes, as dcz, with a dictionary that [`is_for_live`]. `length`: bytes that will come, if that is known. The
/// first write takes as long as it takes to read the dictionary: a millisecond or two for a megabyte.
///
/// # Errors
/// When there is no memory for it.
pub fn live_against(dictionary: &[u8], digest: &Digest, level: u32, length: Option<u64>) -> io::Result<Encoder> {
    let head = [&DCZ[..], digest].concat();
    let level = i32::try_from(level.min(HIGHEST_LIVE)).unwrap_or(i32::MAX);
    let mut encoder = zstd::stream::write::Encoder::with_dictionary(head, level, dictionary)?;
    encoder.set_parameter(CParameter::WindowLog(LIVE_WINDOW.min(window_of(length))))?;
    Ok(Encoder::of_zstd(encoder))
}

fn dcz(body: &[u8], dictionary: &[u8], digest: &Digest, level: u32) -> io::Result<Bytes> {
    let mut compressor = Compressor::new(i32::try_from(level).unwrap_or(i32::MAX))?;
    // All of the dictionary is in reach as long as the window holds the body (RFC 8878 §5).
    let needed = usize::BITS - body.len().leading_zeros();
    let most = (dictionary.len() + dictionary.len() / 4).max(1 << DCZ_WINDOW);
    let allowed = most.ilog2().min(DCZ_LARGEST_WINDOW);
    compressor.set_parameter(CParameter::WindowLog(needed.clamp(10, allowed)))?;
    if dictionary.len() > LONG {
        compressor.set_parameter(CParameter::EnableLongDistanceMatching(true))?;
    }
    // A prefix is raw whatever it begins with; a dictionary might be taken for one that zstd has made (RFC 8878 §5).
    compressor
        .context_mut()
        .ref_prefix(dictionary)
        .map_err(|code| io::Error::other(zstd::zstd_safe::get_error_name(code)))?;
    let mut out = Vec::with_capacity(DCZ.len() + digest.len() + body.len() / 4);
    out.extend_from_slice(&DCZ);
    out.extend_from_slice(digest);
    out.extend_from_slice(&compressor.compress(body)?);
    Ok(out.into())
}

fn dcb(body: &[u8], dictionary: &[u8], digest: &Digest, level: u32) -> io::Result<Bytes> {
    // The encoder takes a dictionary for what stands in front of the body in the window. Decoders have it apart; both see the same only
    // as long as nothing leaves the window.
    let reach = body.len().saturating_add(dictionary.len());
    if reach > DCB_REACH {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let params = BrotliEncoderParams {
        quality: i32::try_from(level.max(LOWEST_BR)).unwrap_or(i32::MAX),
        lgwin: DCB_WINDOW,
        size_hint: body.len(),
        ..BrotliEncoderParams::default()
    };
    let mut out = Vec::with_capacity(DCB.len() + digest.len() + body.len() / 4);
    out.extend_from_slice(&DCB);
    out.extend_from_slice(digest);
    let head = out.len();
    let (mut input, mut output) = (vec![0; BR_BUFFER], vec![0; BR_BUFFER]);
    // With a dictionary the encoder computes lengths that are none for some bodies, short ones of few letters among them: then it stops, or
    // writes something else. Nobody gets that.
    let written = catch_unwind(AssertUnwindSafe(|| {
        BrotliCompressCustomIoCustomDict(
            &mut IoReaderWrapper(&mut &body[..]),
            &mut IoWriterWrapper(&mut out),
            &mut input,
            &mut output,
            &params,
            StandardAlloc::default(),
            &mut |_, _, _, _| (),
            dictionary,
            io::Error::from(io::ErrorKind::UnexpectedEof),
        )
    }));
    written.unwrap_or_else(|_| Err(io::ErrorKind::InvalidData.into()))?;
    let stream = out.get(head..).unwrap_or_default();
    match reads_as(stream, dictionary, body) {
        true => Ok(out.into()),
        false => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Whether a decoder with this dictionary reads `body` in a Brotli stream.
fn reads_as(stream: &[u8], dictionary: &[u8], body: &[u8]) -> bool {
    let mut decoder = Decompressor::new(stream, BR_BUFFER);
    let mut copy = StandardAlloc::default().alloc_cell(dictionary.len());
    copy.slice_mut().copy_from_slice(dictionary);
    if !decoder.attach_dictionary(copy) {
        return false;
    }
    let (mut rest, mut piece) = (body, vec![0; BR_BUFFER]);
    loop {
        match decoder.read(&mut piece) {
            Ok(0) => return rest.is_empty(),
            Ok(length) => match piece.get(..length).and_then(|read| rest.strip_prefix(read)) {
                Some(after) => rest = after,
                None => return false,
            },
            Err(_) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cache::recoded::digest;

    fn decoded(form: &[u8], dictionary: &[u8], coding: DictionaryCoding) -> Vec<u8> {
        let sum = digest(dictionary);
        match coding {
            DictionaryCoding::Dcz => {
                assert_eq!((&form[..8], &form[8..40]), (&DCZ[..], &sum[..]));
                let mut decoder = zstd::stream::read::Decoder::with_ref_prefix(&form[40..], dictionary).unwrap();
                let mut out = Vec::new();
                decoder.read_to_end(&mut out).unwrap();
                out
            }
            DictionaryCoding::Dcb => {
                assert_eq!((&form[..4], &form[4..36]), (&DCB[..], &sum[..]));
                let mut decompressor = Decompressor::new(&form[36..], 4096);
                let mut copy = StandardAlloc::default().alloc_cell(dictionary.len());
                copy.slice_mut().copy_from_slice(dictionary);
                assert!(decompressor.attach_dictionary(copy));
                let mut out = Vec::new();
                decompressor.read_to_end(&mut out).unwrap();
                out
            }
        }
    }

    fn text(lines: usize, seed: u64) -> String {
        let mut random = fastrand::Rng::with_seed(seed);
        (0..lines)
            .map(|number| format!("function f{number}() {{ return {}; }}\n", random.u32(..)))
            .collect()
    }

    #[test]
    fn a_new_version_is_small_beside_the_old_one() {
        let old = text(2_000, 7);
        let new = old.replace("f17()", "g17()").replace("f1900()", "h()") + "end();\n";
        for (coding, levels) in [(DictionaryCoding::Dcz, [1, 3, 19]), (DictionaryCoding::Dcb, [0, 2, 5])] {
            for level in levels {
                let sum = digest(old.as_bytes());
                let form = encode_against(new.as_bytes(), old.as_bytes(), &sum, coding, level).unwrap();
                assert_eq!(
                    decoded(&form, old.as_bytes(), coding),
                    new.as_bytes(),
                    "{coding:?} {level}"
                );
                assert!(form.len() < 1_000, "{coding:?} {level}: {}", form.len());
            }
        }
    }

    #[test]
    fn a_dictionary_is_raw_whatever_it_begins_with() {
        let old = [&MADE_BY_ZSTD[..], text(300, 1).as_bytes()].concat();
        let new = text(300, 1);
        for coding in DictionaryCoding::ALL {
            let form = encode_against(new.as_bytes(), &old, &digest(&old), coding, 5).unwrap();
            assert_eq!(decoded(&form, &old, coding), new.as_bytes());
            assert!(form.len() < 500);
        }
    }

    #[test]
    fn the_window_holds_both() {
        // Around powers of two, where one byte less of a window would lose the beginning of the dictionary.
        let noise = text(2_500, 9);
        for reach in [(1 << 16) - 17, (1 << 16) - 16, (1 << 16) - 15, 1 << 16, (1 << 17) - 16] {
            let (old, new) = (&noise.as_bytes()[..reach / 2], &noise.as_bytes()[..reach - reach / 2]);
            let form = encode_against(new, old, &digest(old), DictionaryCoding::Dcb, 5).unwrap();
            assert_eq!(decoded(&form, old, DictionaryCoding::Dcb), new, "{reach}");
            assert!(form.len() < 200, "{reach}: {}", form.len());
        }
    }

    #[test]
    fn what_is_too_large_for_brotli_is_refused() {
        let large = vec![7; DCB_REACH];
        let refused = encode_against(b"x", &large, &[0; 32], DictionaryCoding::Dcb, 2);
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn what_passes_is_small_too_and_readable_with_every_flush() {
        let old = text(2_000, 7);
        let new = old.replace("f17()", "g17()").replace("f1900()", "h()") + "end();\n";
        let sum = digest(old.as_bytes());
        for (length, level) in [(None, 1), (Some(new.len() as u64), 3), (Some(new.len() as u64), 9)] {
            let mut encoder = live_against(old.as_bytes(), &sum, level, length).unwrap();
            let mut form = Vec::new();
            for piece in new.as_bytes().chunks(10_000) {
                encoder.write(piece).unwrap();
                encoder.flush().unwrap();
                form.extend_from_slice(&encoder.take());
            }
            form.extend_from_slice(&encoder.finish().unwrap());
            assert_eq!(decoded(&form, old.as_bytes(), DictionaryCoding::Dcz), new.as_bytes());
            assert!(form.len() < new.len() / 20, "{length:?} {level}: {}", form.len());
        }
    }

    #[test]
    fn some_dictionaries_are_not_for_what_passes() {
        assert!(is_for_live(&[0; LARGEST_LIVE]));
        assert!(!is_for_live(&[0; LARGEST_LIVE + 1]));
        assert!(!is_for_live(&[&MADE_BY_ZSTD[..], b"and more"].concat()));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn what_is_written_is_read(
            old in proptest::collection::vec(0u8..6, 0..3000),
            cut in any::<prop::sample::Index>(),
            new in proptest::collection::vec(0u8..6, 0..300),
        ) {
            // Both have long parts in common.
            let at = cut.index(old.len() + 1);
            let new = [&old[at..], &new, &old[..at]].concat();
            for (coding, level) in [(DictionaryCoding::Dcz, 3), (DictionaryCoding::Dcb, 5), (DictionaryCoding::Dcb, 9)] {
                match encode_against(&new, &old, &digest(&old), coding, level) {
                    Ok(form) => prop_assert_eq!(decoded(&form, &old, coding), new.clone()),
                    Err(error) => {
                        let refused = (DictionaryCoding::Dcb, io::ErrorKind::InvalidData);
                        prop_assert_eq!((coding, error.kind()), refused);
                    }
                }
            }
        }
    }
}
