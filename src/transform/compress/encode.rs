//! Bodies are compressed, piece by piece.

use std::io::{self, Write};

use brotli::CompressorWriter;
use brotli::enc::BrotliEncoderParams;
use bytes::Bytes;
use flate2::write::GzEncoder;
use zstd::zstd_safe::CParameter;

use crate::config::Levels;
use crate::transform::negotiate::Coding;

/// Brotli and zstd look back so far in what is compressed while it passes, as a power of two: 256 and 128 KiB. A larger window gains
/// little and takes megabytes for every stream.
const LIVE_WINDOW: Windows = Windows { br: 18, zstd: 17 };

/// The same for event streams, of which there may be thousands, each for hours.
const EVENTS_WINDOW: Windows = Windows { br: 14, zstd: 14 };

/// The highest levels for event streams. With higher ones an encoder takes three to six times as much memory, most of a megabyte each, for texts
/// that get no smaller.
const EVENTS_LEVEL: Levels = Levels {
    br: 3,
    zstd: 1,
    gzip: 9,
};

/// The same for what is stored: 4 and 8 MiB. More than 8 no client has to read (RFC 9659 §3).
const STORED_WINDOW: Windows = Windows { br: 22, zstd: 23 };

/// The smallest that Brotli has, and more than zstd's.
const SMALLEST_WINDOW: u32 = 10;

/// Room into which Brotli writes.
const BR_BUFFER: usize = 4 * 1024;

#[derive(Debug, Clone, Copy)]
struct Windows {
    br: u32,
    zstd: u32,
}

/// What a body is compressed for: how much memory that may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Live,
    Events,
    Stored,
}

/// How a body is to be compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipe {
    pub coding: Coding,
    /// gzip 1 to 9, br 0 to 11, zstd 1 to 19.
    pub level: u32,
    pub purpose: Purpose,
    /// Bytes that will come, if that is known: a small body needs small tables.
    pub length: Option<u64>,
}

/// A body on its way through a compressor.
pub enum Encoder {
    Gzip(GzEncoder<Vec<u8>>),
    Br(Box<CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Gzip(_) => "Encoder(gzip)",
            Self::Br(_) => "Encoder(br)",
            Self::Zstd(_) => "Encoder(zstd)",
        })
    }
}

impl Encoder {
    /// # Errors
    /// When there is no memory for it.
    pub fn new(recipe: Recipe) -> io::Result<Self> {
        let Recipe {
            coding,
            level,
            purpose,
            length,
        } = recipe;
        let (windows, level) = match purpose {
            Purpose::Live => (LIVE_WINDOW, level),
            Purpose::Events => (EVENTS_WINDOW, level.min(EVENTS_LEVEL.of(coding))),
            Purpose::Stored => (STORED_WINDOW, level),
        };
        Ok(match coding {
            Coding::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), flate2::Compression::new(level))),
            Coding::Br => {
                let params = BrotliEncoderParams {
                    quality: i32::try_from(level).unwrap_or(i32::MAX),
                    lgwin: i32::try_from(windows.br.min(window_of(length))).unwrap_or(i32::MAX),
                    size_hint: length
                        .and_then(|length| usize::try_from(length).ok())
                        .unwrap_or_default(),
                    ..BrotliEncoderParams::default()
                };
                Self::Br(Box::new(CompressorWriter::with_params(Vec::new(), BR_BUFFER, &params)))
            }
            Coding::Zstd => {
                let level = i32::try_from(level).unwrap_or(i32::MAX);
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), level)?;
                encoder.set_parameter(CParameter::WindowLog(windows.zstd.min(window_of(length))))?;
                Self::Zstd(encoder)
            }
        })
    }

    /// One that is given what a stream begins with, and has been told everything else.
    pub(super) fn of_zstd(encoder: zstd::stream::write::Encoder<'static, Vec<u8>>) -> Self {
        Self::Zstd(encoder)
    }

    /// # Errors
    /// When the compressor fails, for want of memory.
    pub fn write(&mut self, data: &[u8]) -> io::Result<()> {
        self.writer().write_all(data)
    }

    /// Makes what has been written readable for the client.
    ///
    /// # Errors
    /// As [`Encoder::write`].
    pub fn flush(&mut self) -> io::Result<()> {
        self.writer().flush()
    }

    /// What is ready to be sent.
    pub fn take(&mut self) -> Bytes {
        let out = match self {
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Br(encoder) => encoder.get_mut(),
            Self::Zstd(encoder) => encoder.get_mut(),
        };
        std::mem::take(out).into()
    }

    /// The rest of the body.
    ///
    /// # Errors
    /// As [`Encoder::write`].
    pub fn finish(self) -> io::Result<Bytes> {
        let out = match self {
            Self::Gzip(encoder) => encoder.finish()?,
            Self::Br(encoder) => encoder.into_inner(),
            Self::Zstd(encoder) => encoder.finish()?,
        };
        Ok(out.into())
    }

    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Gzip(encoder) => encoder,
            Self::Br(encoder) => &mut **encoder,
            Self::Zstd(encoder) => encoder,
        }
    }
}

/// A whole body at once.
///
/// # Errors
/// As [`Encoder::write`].
pub fn encode(body: &[u8], coding: Coding, level: u32) -> io::Result<Bytes> {
    let mut encoder = Encoder::new(Recipe {
        coding,
        level,
        purpose: Purpose::Stored,
        length: Some(body.len() as u64),
    })?;
    encoder.write(body)?;
    encoder.finish()
}

/// The power of two that holds a body.
pub(super) fn window_of(length: Option<u64>) -> u32 {
    match length {
        Some(length) => (u64::BITS - length.leading_zeros()).max(SMALLEST_WINDOW),
        None => u32::MAX,
    }
}
