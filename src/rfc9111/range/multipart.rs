//! `multipart/byteranges` (RFC 9110 §14.6).

use super::{ByteRange, ContentRange};

/// The text around the parts of one multipart body.
#[derive(Debug, Clone)]
pub struct Multipart<'a> {
    /// Must not occur in the representation: random, and of characters that need no quotes.
    pub boundary: &'a str,
    /// The `Content-Type` of the representation.
    pub content_type: Option<&'a [u8]>,
    pub complete: Option<u64>,
}

impl Multipart<'_> {
    /// The response's own `Content-Type`.
    pub fn content_type(&self) -> String {
        format!("multipart/byteranges; boundary={}", self.boundary)
    }

    /// What stands in front of the bytes of one part.
    pub fn part_head(&self, range: ByteRange) -> Vec<u8> {
        let mut head = format!("\r\n--{}\r\n", self.boundary).into_bytes();
        if let Some(content_type) = self.content_type {
            head.extend_from_slice(b"Content-Type: ");
            head.extend_from_slice(content_type);
            head.extend_from_slice(b"\r\n");
        }
        let content_range = ContentRange {
            range,
            complete: self.complete,
        };
        head.extend_from_slice(format!("Content-Range: {content_range}\r\n\r\n").as_bytes());
        head
    }

    /// What stands behind the last part.
    pub fn end(&self) -> Vec<u8> {
        format!("\r\n--{}--\r\n", self.boundary).into_bytes()
    }

    /// Length of the whole body.
    pub fn length(&self, parts: &[ByteRange]) -> u64 {
        let parts = parts
            .iter()
            .map(|range| self.part_head(*range).len() as u64 + range.len());
        parts.sum::<u64>() + self.end().len() as u64
    }
}
