//! Bodies that came compressed are read, within limits: a few bytes may stand for gigabytes.

use std::io::{self, Write};

use brotli::DecompressorWriter;
use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use zstd::zstd_safe::DParameter;

use crate::transform::negotiate::Coding;

/// A body may become so many times as long. Gzip gets to 1,000 only where one byte is repeated, and so do the others with text that somebody
/// wrote.
const MAX_RATIO: u64 = 200;

/// From so many bytes on the ratio counts: a short text may well be one line repeated.
const RATIO_FROM: u64 = 1024 * 1024;

/// No client has to read a larger window, so no origin may use one (RFC 9659 §3), as a power of two.
const MAX_WINDOW: u32 = 23;

/// Room into which Brotli writes.
const BR_BUFFER: usize = 16 * 1024;

/// Why a body cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("the compressed body is longer than {0} bytes when it is read")]
    TooLong(u64),
    #[error("the compressed body becomes more than {MAX_RATIO} times as long")]
    Ratio,
    #[error("the compressed body is broken: {0}")]
    Broken(io::Error),
}

/// A body on its way out of its coding.
pub struct Decoder {
    kind: Kind,
    /// Bytes that went in.
    read: u64,
    limit: u64,
}

enum Kind {
    Gzip(MultiGzDecoder<Bounded>),
    Br(Box<DecompressorWriter<Bounded>>),
    Zstd(zstd::stream::write::Decoder<'static, Bounded>),
}

/// Takes no more than it may.
#[derive(Debug, Default)]
struct Bounded {
    out: Vec<u8>,
    written: u64,
    allowed: u64,
}

impl Write for Bounded {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.written += data.len() as u64;
        if self.written > self.allowed {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.out.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder")
            .field("read", &self.read)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

impl Decoder {
    /// `limit`: bytes of the longest body that may come out.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn new(coding: Coding, limit: u64) -> Result<Self, DecodeError> {
        let out = Bounded::default();
        let kind = match coding {
            Coding::Gzip => Kind::Gzip(MultiGzDecoder::new(out)),
            Coding::Br => Kind::Br(Box::new(DecompressorWriter::new(out, BR_BUFFER))),
            Coding::Zstd => {
                let mut decoder = zstd::stream::write::Decoder::new(out).map_err(DecodeError::Broken)?;
                decoder
                    .set_parameter(DParameter::WindowLogMax(MAX_WINDOW))
                    .map_err(DecodeError::Broken)?;
                Kind::Zstd(decoder)
            }
        };
        Ok(Self { kind, read: 0, limit })
    }

    /// Reads a piece and answers what it says so far.
    ///
    /// # Errors
    /// When it is broken, or too long. Nothing more can be read then.
    pub fn decode(&mut self, data: &[u8]) -> Result<Bytes, DecodeError> {
        self.read += data.len() as u64;
        let allowed = self.allowed();
        self.out().allowed = allowed;
        let result = match &mut self.kind {
            Kind::Gzip(decoder) => decoder.write_all(data).and_then(|()| decoder.flush()),
            Kind::Br(decoder) => decoder.write_all(data).and_then(|()| push_out(decoder)),
            Kind::Zstd(decoder) => decoder.write_all(data).and_then(|()| decoder.flush()),
        };
        self.check(result)?;
        Ok(std::mem::take(&mut self.out().out).into())
    }

    /// The rest of the body.
    ///
    /// # Errors
    /// As [`Decoder::decode`], and when it is not whole.
    pub fn finish(mut self) -> Result<Bytes, DecodeError> {
        if self.read == 0 {
            return Ok(Bytes::new());
        }
        let result = match &mut self.kind {
            Kind::Gzip(decoder) => decoder.try_finish(),
            Kind::Br(_) => Ok(()),
            Kind::Zstd(decoder) => decoder.do_finish(),
        };
        self.check(result)?;
        let out = match self.kind {
            Kind::Gzip(mut decoder) => std::mem::take(&mut decoder.get_mut().out),
            Kind::Br(decoder) => match decoder.into_inner() {
                Ok(bounded) => bounded.out,
                Err(_) => return Err(DecodeError::Broken(io::ErrorKind::UnexpectedEof.into())),
            },
            Kind::Zstd(mut decoder) => std::mem::take(&mut decoder.get_mut().out),
        };
        Ok(out.into())
    }

    /// Bytes that may come out of what has gone in.
    fn allowed(&self) -> u64 {
        self.limit.min(self.read.saturating_mul(MAX_RATIO).max(RATIO_FROM))
    }

    fn check(&mut self, result: io::Result<()>) -> Result<(), DecodeError> {
        let (limit, allowed) = (self.limit, self.allowed());
        let written = self.out().written;
        match result {
            _ if written > limit => Err(DecodeError::TooLong(limit)),
            _ if written > allowed => Err(DecodeError::Ratio),
            Err(error) => Err(DecodeError::Broken(error)),
            Ok(()) => Ok(()),
        }
    }

    fn out(&mut self) -> &mut Bounded {
        match &mut self.kind {
            Kind::Gzip(decoder) => decoder.get_mut(),
            Kind::Br(decoder) => decoder.get_mut(),
            Kind::Zstd(decoder) => decoder.get_mut(),
        }
    }
}

/// Gets everything out of a Brotli decoder that it knows: with each call it says no more than its buffer holds.
fn push_out(decoder: &mut DecompressorWriter<Bounded>) -> io::Result<()> {
    loop {
        let before = decoder.get_ref().written;
        let _ = decoder.write(&[])?;
        if decoder.get_ref().written == before {
            return Ok(());
        }
    }
}

/// A whole body at once; see [`Decoder`].
///
/// # Errors
/// As [`Decoder::finish`].
pub fn decode(body: &[u8], coding: Coding, limit: u64) -> Result<Bytes, DecodeError> {
    let mut decoder = Decoder::new(coding, limit)?;
    let mut out = decoder.decode(body)?.to_vec();
    out.extend_from_slice(&decoder.finish()?);
    Ok(out.into())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::super::encode::{Encoder, Purpose, Recipe, encode};
    use super::*;

    const NO_LIMIT: u64 = u64::MAX;

    fn text(length: usize) -> Vec<u8> {
        (0..length).map(|at| b'a' + (at * at % 23) as u8).collect()
    }

    /// What decoders say that are not ours.
    fn decoded_by_others(coded: &[u8], coding: Coding) -> Vec<u8> {
        let mut out = Vec::new();
        match coding {
            Coding::Gzip => flate2::read::GzDecoder::new(coded).read_to_end(&mut out).unwrap(),
            Coding::Br => brotli::Decompressor::new(coded, 4096).read_to_end(&mut out).unwrap(),
            Coding::Zstd => zstd::stream::read::Decoder::new(coded)
                .unwrap()
                .read_to_end(&mut out)
                .unwrap(),
        };
        out
    }

    #[test]
    fn what_is_encoded_comes_back() {
        for coding in Coding::ALL {
            for length in [0, 1, 1000, 300_000] {
                let body = text(length);
                for level in [1, 9] {
                    let coded = encode(&body, coding, level).unwrap();
                    assert!(length < 1000 || coded.len() < length, "{coding:?}");
                    assert_eq!(decode(&coded, coding, NO_LIMIT).unwrap(), body, "{coding:?} {length}");
                }
            }
        }
    }

    #[test]
    fn a_flush_makes_everything_readable() {
        for coding in Coding::ALL {
            for purpose in [Purpose::Live, Purpose::Events] {
                let recipe = Recipe {
                    coding,
                    level: 3,
                    purpose,
                    length: None,
                };
                let mut encoder = Encoder::new(recipe).unwrap();
                let mut decoder = Decoder::new(coding, NO_LIMIT).unwrap();
                let large = String::from_utf8(text(100_000)).unwrap();
                for piece in ["first", "second piece", &large, "\u{fc}", &large] {
                    encoder.write(piece.as_bytes()).unwrap();
                    encoder.flush().unwrap();
                    let said = decoder.decode(&encoder.take()).unwrap();
                    assert_eq!(said, piece.as_bytes(), "{coding:?}");
                }
                let rest = encoder.finish().unwrap();
                assert_eq!(decoder.decode(&rest).unwrap(), "");
                assert_eq!(decoder.finish().unwrap(), "");
            }
        }
    }

    #[test]
    fn bombs_end_early() {
        let bomb = vec![0; 64 << 20];
        for coding in Coding::ALL {
            let coded = encode(&bomb, coding, 9).unwrap();
            assert!(coded.len() < 100_000);
            assert!(
                matches!(decode(&coded, coding, NO_LIMIT), Err(DecodeError::Ratio)),
                "{coding:?}"
            );
            assert!(
                matches!(decode(&coded, coding, 1000), Err(DecodeError::TooLong(1000))),
                "{coding:?}"
            );
        }
    }

    #[test]
    fn what_is_cut_off_is_broken() {
        for coding in Coding::ALL {
            let coded = encode(&text(10_000), coding, 5).unwrap();
            for length in [1, 10, coded.len() / 2, coded.len() - 1] {
                let cut = decode(&coded[..length], coding, NO_LIMIT);
                assert!(
                    matches!(cut, Err(DecodeError::Broken(_))),
                    "{coding:?} {length}: {cut:?}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 0..300usize) {
            for coding in Coding::ALL {
                let mut decoder = Decoder::new(coding, 100_000).unwrap();
                let (one, two) = bytes.split_at(cut.min(bytes.len()));
                if decoder.decode(one).is_ok() && decoder.decode(two).is_ok() {
                    let _ = decoder.finish();
                }
            }
        }

        #[test]
        fn pieces_and_flushes_do_not_matter(
            pieces in proptest::collection::vec(("[a-c]{0,2000}", any::<bool>()), 0..10),
            level in 1..=9u32,
        ) {
            for coding in Coding::ALL {
                let recipe = Recipe { coding, level, purpose: Purpose::Live, length: None };
                let mut encoder = Encoder::new(recipe).unwrap();
                let mut coded = Vec::new();
                let mut whole = String::new();
                for (piece, flush) in &pieces {
                    whole += piece;
                    encoder.write(piece.as_bytes()).unwrap();
                    if *flush {
                        encoder.flush().unwrap();
                    }
                    coded.extend_from_slice(&encoder.take());
                }
                coded.extend_from_slice(&encoder.finish().unwrap());
                prop_assert_eq!(decode(&coded, coding, NO_LIMIT).unwrap(), whole.as_bytes());
                prop_assert_eq!(decoded_by_others(&coded, coding), whole.as_bytes());
            }
        }
    }
}
