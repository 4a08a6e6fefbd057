//! A bitmap of pieces that many threads read and change at once, in the order of the wire and of the disk: the
//! first piece is the highest bit of the first byte.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// One bit a piece. Reading and changing a bit is one atomic step; nothing here locks.
pub(super) struct Bits {
    words: Box<[AtomicU64]>,
    length: u32,
}

fn place(index: u32) -> (usize, u64) {
    ((index / 64) as usize, 1 << (63 - index % 64))
}

impl Bits {
    pub(super) fn new(length: u32) -> Bits {
        Bits {
            words: (0..length.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            length,
        }
    }

    /// Takes what [`Bits::bytes`] gave; missing bytes are zeros and surplus bits are dropped.
    pub(super) fn from_bytes(bytes: &[u8], length: u32) -> Bits {
        let bits = Bits::new(length);
        for (word, chunk) in bits.words.iter().zip(bytes.chunks(8)) {
            let mut whole = [0; 8];
            whole[..chunk.len()].copy_from_slice(chunk);
            word.store(u64::from_be_bytes(whole), Ordering::Relaxed);
        }
        if let Some(last) = bits.words.last()
            && !length.is_multiple_of(64)
        {
            last.fetch_and(!(u64::MAX >> (length % 64)), Ordering::Relaxed);
        }
        bits
    }

    /// How many bytes hold so many bits.
    pub(super) fn bytes_for(length: u32) -> usize {
        length.div_ceil(8) as usize
    }

    /// The bitmap as it goes over the wire (BEP 3 `bitfield`).
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self
            .words
            .iter()
            .flat_map(|word| word.load(Ordering::Acquire).to_be_bytes())
            .collect();
        bytes.truncate(Bits::bytes_for(self.length));
        bytes
    }

    /// The byte of [`Bits::bytes`] that holds this bit, and where it stands.
    pub(super) fn byte_of(&self, index: u32) -> (usize, u8) {
        let (word, _) = place(index);
        let bytes = self
            .words
            .get(word)
            .map_or(0, |word| word.load(Ordering::Acquire))
            .to_be_bytes();
        ((index / 8) as usize, bytes[(index / 8 % 8) as usize])
    }

    /// False for an index past the end.
    pub(super) fn get(&self, index: u32) -> bool {
        let (word, bit) = place(index);
        index < self.length && self.words[word].load(Ordering::Acquire) & bit != 0
    }

    /// Sets a bit; whether that changed it.
    pub(super) fn set(&self, index: u32) -> bool {
        let (word, bit) = place(index);
        index < self.length && self.words[word].fetch_or(bit, Ordering::AcqRel) & bit == 0
    }

    /// Clears a bit; whether that changed it.
    pub(super) fn clear(&self, index: u32) -> bool {
        let (word, bit) = place(index);
        index < self.length && self.words[word].fetch_and(!bit, Ordering::AcqRel) & bit != 0
    }

    /// How many bits of the range are set.
    pub(super) fn count(&self, range: Range<u32>) -> u32 {
        self.masked(range).map(|word| word.count_ones()).sum()
    }

    /// Whether every bit of the range is set.
    pub(super) fn all(&self, range: Range<u32>) -> bool {
        let length = range.end.saturating_sub(range.start);
        range.end <= self.length && self.count(range) == length
    }

    fn masked(&self, range: Range<u32>) -> impl Iterator<Item = u64> {
        let end = range.end.min(self.length);
        let start = range.start.min(end);
        let words = (start / 64) as usize..end.div_ceil(64) as usize;
        words.map(move |index| {
            let first = index as u32 * 64;
            let mut word = self.words[index].load(Ordering::Acquire);
            if start > first {
                word &= u64::MAX >> (start - first);
            }
            if end < first + 64 {
                word &= !(u64::MAX >> (end - first));
            }
            word
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_bitmap_is_a_list_of_booleans(
            list in proptest::collection::vec(any::<bool>(), 0..300), from in 0u32..320, length in 0u32..320,
        ) {
            let bits = Bits::new(list.len() as u32);
            for (index, set) in list.iter().enumerate() {
                prop_assert_eq!(bits.set(index as u32), true);
                if !set {
                    prop_assert_eq!(bits.clear(index as u32), true);
                }
            }
            let range = from..from + length;
            let expected = list.iter().skip(from as usize).take(length as usize);
            prop_assert_eq!(bits.count(range.clone()) as usize, expected.clone().filter(|set| **set).count());
            let whole = range.end as usize <= list.len() && expected.clone().all(|set| *set);
            prop_assert_eq!(bits.all(range), whole);

            let again = Bits::from_bytes(&bits.bytes(), list.len() as u32);
            for (index, set) in list.iter().enumerate() {
                prop_assert_eq!(again.get(index as u32), *set);
                let (byte, value) = again.byte_of(index as u32);
                prop_assert_eq!(bits.bytes()[byte], value);
                prop_assert_eq!(value & (0x80 >> (index % 8)) != 0, *set);
            }
        }
    }

    #[test]
    fn surplus_bits_of_the_disk_do_not_count() {
        let bits = Bits::from_bytes(&[0xff; 8], 3);
        assert_eq!(bits.count(0..3), 3);
        assert_eq!(bits.bytes(), [0b1110_0000]);
        assert!(!bits.get(3));
        assert!(!bits.set(3));
    }
}
