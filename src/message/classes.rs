//! How far bytes of a kind reach, and what is among them, found out eight bytes at a time.

/// This bit of a class begins a pair, if the byte behind it has [`FOLLOWS`].
pub(super) const LEADS: u8 = 0x01;
/// See [`LEADS`].
pub(super) const FOLLOWS: u8 = 0x02;

/// One of each of eight classes.
const EACH: u64 = 0x0101_0101_0101_0101;

/// What is known of each byte, in bits.
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
    #[inline(always)]
    pub(super) fn of<const END: u8>(bytes: &[u8], classes: &Classes, before: u8) -> Self {
        let mut run = Self {
            length: 0,
            seen: 0,
            pairs: 0,
        };
        let mut before = u64::from(before);
        while let Some(eight) = bytes[run.length..].first_chunk() {
            let eight = eight_classes(eight, classes);
            let ends = eight & (u64::from(END) * EACH);
            // All bits below the class that has the lowest of these; all there are, where nothing ends here.
            let kept = ((ends & ends.wrapping_neg()) >> END.trailing_zeros()).wrapping_sub(1);
            run.take(eight & kept, &mut before);
            if ends != 0 {
                run.length += (ends.trailing_zeros() / 8) as usize;
                return run;
            }
            run.length += 8;
        }
        for byte in &bytes[run.length..] {
            let class = classes[usize::from(*byte)];
            if class & END != 0 {
                break;
            }
            run.take(u64::from(class), &mut before);
            before = u64::from(class);
            run.length += 1;
        }
        run
    }

    /// Takes in up to eight classes, the first of them lowest.
    #[inline(always)]
    fn take(&mut self, classes: u64, before: &mut u64) {
        self.seen |= classes;
        self.pairs |= ((classes << 8 | *before) & (u64::from(LEADS) * EACH)) << 1 & classes;
        *before = classes >> 56;
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

#[inline(always)]
fn eight_classes(bytes: &[u8; 8], classes: &Classes) -> u64 {
    let class = |at: usize| u64::from(classes[usize::from(bytes[at])]) << (8 * at);
    (class(0) | class(1) | class(2) | class(3)) | (class(4) | class(5) | class(6) | class(7))
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
