//! How far bytes of a kind reach, and what is among them, found out eight bytes at a time.

/// This bit of a class begins a pair, if the byte behind it has [`FOLLOWS`].
pub(super) const LEADS: u8 = 0x01;
/// See [`LEADS`].
pub(super) const FOLLOWS: u8 = 0x02;

/// One of each of eight classes.
const EACH: u64 = 0x0101_0101_0101_0101;

/// What is known of a byte, in bits. Byte 0, which stands behind the last one, has to end every run.
pub(super) type Classes = [u8; 256];

/// Bytes from the first to the one in front of the first that ends the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) length: usize,
    /// All classes of eight places, one over the other.
    seen: u64,
    pairs: u64,
}

impl Run {
    /// `END` is the one bit of the classes that end the run. A byte that has [`FOLLOWS`] is one of a pair at the very beginning as well, if
    /// `before` has [`LEADS`].
    #[inline]
    pub(super) fn of<const END: u8>(bytes: &[u8], classes: &Classes, before: u8) -> Self {
        let mut run = Self {
            length: 0,
            seen: 0,
            pairs: 0,
        };
        let mut before = u64::from(before);
        loop {
            let rest = bytes.get(run.length..).unwrap_or_default();
            let eight = match rest.first_chunk() {
                Some(eight) => eight_classes(eight, classes),
                None => eight_classes(&padded(rest), classes),
            };
            let ends = eight & (END as u64 * EACH);
            // All bits below the class that has the lowest of these; all there are, where nothing ends here.
            let kept = ((ends & ends.wrapping_neg()) >> END.trailing_zeros()).wrapping_sub(1);
            let eight = eight & kept;
            run.seen |= eight;
            run.pairs |= ((eight << 8 | before) & (LEADS as u64 * EACH)) << 1 & eight;
            before = eight >> 56;
            if ends != 0 {
                run.length += (ends.trailing_zeros() / 8) as usize;
                return run;
            }
            run.length += 8;
        }
    }

    /// Whether one of the bytes has this bit.
    #[inline]
    pub(super) fn has(&self, bit: u8) -> bool {
        self.seen & (u64::from(bit) * EACH) != 0
    }

    /// Whether a byte with [`FOLLOWS`] stands behind one with [`LEADS`].
    #[inline]
    pub(super) fn has_pairs(&self) -> bool {
        self.pairs != 0
    }
}

#[inline]
fn eight_classes(bytes: &[u8; 8], classes: &Classes) -> u64 {
    u64::from_le_bytes(bytes.map(|byte| classes[usize::from(byte)]))
}

/// Fewer than eight bytes, and zeros behind them.
#[inline]
fn padded(bytes: &[u8]) -> [u8; 8] {
    let mut eight = [0; 8];
    for (to, from) in eight.iter_mut().zip(bytes) {
        *to = *from;
    }
    eight
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const END: u8 = 0x80;
    const VOWEL: u8 = 0x10;

    /// Of letters.
    static LETTERS: Classes = {
        let mut table = [END; 256];
        let mut byte = b'a';
        while byte <= b'z' {
            table[byte as usize] = match byte {
                b'a' | b'e' => VOWEL,
                b'/' => END,
                b'l' => LEADS | FOLLOWS,
                b'f' => FOLLOWS,
                _ => 0,
            };
            byte += 1;
        }
        table
    };

    proptest! {
        #[test]
        fn a_run_is_what_a_look_at_each_byte_says(bytes in "[xlfa\0/]{0,3}[xxlf]{0,20}[lfae0/\0]{0,3}", before in any::<bool>()) {
            let bytes = bytes.as_bytes();
            let before = if before { LEADS } else { 0 };
            let run = Run::of::<END>(bytes, &LETTERS, before);
            let length = bytes.iter().position(|b| !b.is_ascii_lowercase()).unwrap_or(bytes.len());
            let kept = &bytes[..length];
            let pairs = kept.windows(2).any(|two| two[0] == b'l' && b"lf".contains(&two[1]));
            let first = before != 0 && kept.first().is_some_and(|b| b"lf".contains(b));
            prop_assert_eq!(run.length, length);
            prop_assert_eq!(run.has(VOWEL), kept.iter().any(|b| b"ae".contains(b)));
            prop_assert_eq!(run.has_pairs(), pairs || first);
        }
    }
}
