//! The values that every part of the swarm speaks in: the shape of a torrent, blocks, sets of pieces, keys, time.

use std::fmt;
use std::ops::{Add, Range, Sub};
use std::time::Duration;

/// Bytes in a block, the unit of every request; only the last block of a torrent's piece may be shorter.
pub const BLOCK: u32 = 16 * 1024;

/// The longest piece that is accepted, in bytes: nothing real is larger, and a piece is held in memory.
pub const MAX_PIECE_LENGTH: u32 = 256 * 1024 * 1024;

/// The most pieces that a torrent may have; bounds every table that has an entry a piece.
pub const MAX_PIECES: u32 = 1 << 20;

/// Why a shape or a bitfield was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// The piece length is zero or beyond [`MAX_PIECE_LENGTH`].
    #[error("piece length {0} is not between 1 and {MAX_PIECE_LENGTH} bytes; the torrent cannot be used")]
    PieceLength(u32),
    /// The torrent has more pieces than [`MAX_PIECES`].
    #[error("{0} pieces are more than the {MAX_PIECES} supported; the torrent needs larger pieces")]
    TooManyPieces(u64),
    /// A bitfield has the wrong number of bytes.
    #[error("bitfield of {got} bytes where {expected} are needed; the peer breaks the protocol")]
    BitfieldLength {
        /// Bytes that the torrent's piece count needs.
        expected: usize,
        /// Bytes that came.
        got: usize,
    },
    /// A bitfield has a bit set beyond the last piece.
    #[error("bitfield claims pieces beyond the last; the peer breaks the protocol")]
    SpareBits,
}

/// How a torrent's bytes are cut into pieces and blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    piece_length: u32,
    total: u64,
}

impl Shape {
    /// A torrent of `total` bytes in pieces of `piece_length`; the last piece may be shorter.
    ///
    /// # Errors
    /// If the piece length or the number of pieces is out of bounds.
    pub fn new(piece_length: u32, total: u64) -> Result<Shape, ShapeError> {
        if piece_length == 0 || piece_length > MAX_PIECE_LENGTH {
            return Err(ShapeError::PieceLength(piece_length));
        }
        let pieces = total.div_ceil(u64::from(piece_length));
        if pieces > u64::from(MAX_PIECES) {
            return Err(ShapeError::TooManyPieces(pieces));
        }
        Ok(Shape { piece_length, total })
    }

    /// Bytes in every piece but the last.
    pub fn piece_length(&self) -> u32 {
        self.piece_length
    }

    /// Bytes in the torrent.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Number of pieces; zero for an empty torrent.
    pub fn piece_count(&self) -> u32 {
        u32::try_from(self.total.div_ceil(u64::from(self.piece_length))).unwrap_or(MAX_PIECES)
    }

    /// Bytes in `piece`; zero if there is no such piece.
    pub fn piece_size(&self, piece: u32) -> u32 {
        let begin = u64::from(piece) * u64::from(self.piece_length);
        let left = self.total.saturating_sub(begin);
        u32::try_from(left).unwrap_or(u32::MAX).min(self.piece_length)
    }

    /// Number of blocks in `piece`.
    pub fn block_count(&self, piece: u32) -> u32 {
        self.piece_size(piece).div_ceil(BLOCK)
    }

    /// Bytes in `block`; zero if there is no such block.
    pub fn block_size(&self, block: Block) -> u32 {
        let begin = u64::from(block.index) * u64::from(BLOCK);
        let left = u64::from(self.piece_size(block.piece)).saturating_sub(begin);
        u32::try_from(left).unwrap_or(u32::MAX).min(BLOCK)
    }

    /// The block that a wire message names, if it is exactly one of this torrent's blocks.
    pub fn block_at(&self, piece: u32, begin: u32, length: u32) -> Option<Block> {
        let block = Block {
            piece,
            index: begin / BLOCK,
        };
        (begin.is_multiple_of(BLOCK) && length > 0 && self.block_size(block) == length).then_some(block)
    }

    /// The pieces that hold `bytes` (of the torrent), cut to the torrent's end; empty for an empty range.
    pub fn pieces_of(&self, bytes: Range<u64>) -> Range<u32> {
        let end = bytes.end.min(self.total);
        if bytes.start >= end {
            return 0..0;
        }
        let length = u64::from(self.piece_length);
        let last = end.div_ceil(length);
        let first = bytes.start / length;
        u32::try_from(first).unwrap_or(MAX_PIECES)..u32::try_from(last).unwrap_or(MAX_PIECES)
    }
}

/// One block of one piece: what a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block {
    /// The piece.
    pub piece: u32,
    /// Which block of the piece, from 0.
    pub index: u32,
}

impl Block {
    /// Offset of the block in its piece, in bytes.
    pub fn begin(&self) -> u32 {
        self.index.saturating_mul(BLOCK)
    }
}

/// A set of the pieces of one torrent, one bit each.
#[derive(Clone, PartialEq, Eq)]
pub struct PieceSet {
    words: Vec<u64>,
    pieces: u32,
    count: u32,
}

impl PieceSet {
    /// The empty set over `pieces` pieces.
    pub fn new(pieces: u32) -> PieceSet {
        PieceSet {
            words: vec![0; (pieces as usize).div_ceil(64)],
            pieces,
            count: 0,
        }
    }

    /// The full set over `pieces` pieces.
    pub fn all(pieces: u32) -> PieceSet {
        let mut set = PieceSet {
            words: vec![u64::MAX; (pieces as usize).div_ceil(64)],
            pieces,
            count: pieces,
        };
        if !pieces.is_multiple_of(64)
            && let Some(last) = set.words.last_mut()
        {
            *last = (1 << (pieces % 64)) - 1;
        }
        set
    }

    /// The set that a BITFIELD message carries (highest bit first).
    ///
    /// # Errors
    /// If the length is not exactly that of `pieces` bits, or a spare bit at the end is set.
    pub fn from_wire_bytes(bytes: &[u8], pieces: u32) -> Result<PieceSet, ShapeError> {
        let expected = (pieces as usize).div_ceil(8);
        if bytes.len() != expected {
            return Err(ShapeError::BitfieldLength {
                expected,
                got: bytes.len(),
            });
        }
        if !pieces.is_multiple_of(8) && bytes.last().is_some_and(|last| last << (pieces % 8) != 0) {
            return Err(ShapeError::SpareBits);
        }
        let mut set = PieceSet::new(pieces);
        for (word, chunk) in set.words.iter_mut().zip(bytes.chunks(8)) {
            for (place, byte) in chunk.iter().enumerate() {
                *word |= u64::from(byte.reverse_bits()) << (8 * place);
            }
        }
        set.count = set.words.iter().map(|word| word.count_ones()).sum();
        Ok(set)
    }

    /// The bytes of a BITFIELD message (highest bit first, spare bits zero).
    pub fn to_wire_bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self
            .words
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .map(u8::reverse_bits)
            .collect();
        bytes.truncate((self.pieces as usize).div_ceil(8));
        bytes
    }

    /// How many pieces the torrent has, in the set or not.
    pub fn pieces(&self) -> u32 {
        self.pieces
    }

    /// How many pieces are in the set.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Whether every piece is in the set.
    pub fn is_full(&self) -> bool {
        self.count == self.pieces
    }

    /// Whether `piece` is in the set; false beyond the last piece.
    pub fn get(&self, piece: u32) -> bool {
        self.words
            .get(piece as usize / 64)
            .is_some_and(|word| word >> (piece % 64) & 1 == 1)
    }

    /// Puts `piece` in; true if it was not there. Beyond the last piece nothing happens.
    pub fn set(&mut self, piece: u32) -> bool {
        if piece >= self.pieces || self.get(piece) {
            return false;
        }
        self.words[piece as usize / 64] |= 1 << (piece % 64);
        self.count += 1;
        true
    }

    /// Takes `piece` out; true if it was there.
    pub fn clear(&mut self, piece: u32) -> bool {
        if !self.get(piece) {
            return false;
        }
        self.words[piece as usize / 64] &= !(1 << (piece % 64));
        self.count -= 1;
        true
    }

    /// The pieces in the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.words.iter().enumerate().flat_map(|(place, &word)| {
            let mut left = word;
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros())?;
                left &= left - 1;
                Some(u32::try_from(place * 64).unwrap_or(u32::MAX).saturating_add(bit))
            })
        })
    }

    /// The set as words, piece 0 in the lowest bit of the first.
    pub(crate) fn words(&self) -> &[u64] {
        &self.words
    }
}

impl fmt::Debug for PieceSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PieceSet({} of {})", self.count, self.pieces)
    }
}

/// Names one peer of one torrent for as long as it is connected. A key is never reused: what arrives late for a peer
/// that has gone meets nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// A moment: microseconds since an epoch that the owner of the clock chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(u64);

impl Time {
    /// The epoch.
    pub const ZERO: Time = Time(0);

    /// The moment `micros` microseconds after the epoch.
    pub const fn from_micros(micros: u64) -> Time {
        Time(micros)
    }

    /// Microseconds since the epoch.
    pub const fn micros(self) -> u64 {
        self.0
    }
}

impl Add<Duration> for Time {
    type Output = Time;

    fn add(self, duration: Duration) -> Time {
        Time(
            self.0
                .saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)),
        )
    }
}

impl Sub<Duration> for Time {
    type Output = Time;

    fn sub(self, duration: Duration) -> Time {
        Time(
            self.0
                .saturating_sub(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)),
        )
    }
}

/// The time from `earlier` to this moment; zero if `earlier` is later.
impl Sub<Time> for Time {
    type Output = Duration;

    fn sub(self, earlier: Time) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_counts_its_pieces_and_blocks() {
        let shape = Shape::new(40_000, 100_001).unwrap();
        assert_eq!(shape.piece_count(), 3);
        assert_eq!(shape.piece_size(2), 20_001);
        assert_eq!(shape.piece_size(3), 0);
        assert_eq!(shape.block_count(0), 3);
        assert_eq!(shape.block_size(Block { piece: 0, index: 2 }), 40_000 - 2 * BLOCK);
        assert_eq!(shape.block_size(Block { piece: 2, index: 2 }), 0);
        assert_eq!(shape.block_at(0, BLOCK, BLOCK), Some(Block { piece: 0, index: 1 }));
        assert_eq!(shape.block_at(0, 1, BLOCK), None);
        assert_eq!(shape.block_at(9, 0, BLOCK), None);
        assert_eq!(shape.block_at(0, u32::MAX / BLOCK * BLOCK, BLOCK), None);
        assert_eq!(shape.pieces_of(39_999..40_001), 0..2);
        assert_eq!(shape.pieces_of(100_000..u64::MAX), 2..3);
        assert_eq!(shape.pieces_of(100_001..u64::MAX), 0..0);
        assert_eq!(Shape::new(0, 1), Err(ShapeError::PieceLength(0)));
        assert!(Shape::new(1, u64::MAX).is_err());
        assert_eq!(Shape::new(1, 0).unwrap().piece_count(), 0);
    }

    #[test]
    fn a_bitfield_goes_over_the_wire_and_back() {
        let mut set = PieceSet::new(75);
        for piece in [0, 1, 9, 63, 64, 74] {
            assert!(set.set(piece));
            assert!(!set.set(piece));
        }
        assert!(!set.set(75));
        let bytes = set.to_wire_bytes();
        assert_eq!(bytes.len(), 10);
        assert_eq!(bytes[0], 0b1100_0000);
        assert_eq!(PieceSet::from_wire_bytes(&bytes, 75), Ok(set.clone()));
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 1, 9, 63, 64, 74]);
        assert!(set.clear(9) && !set.clear(9) && set.count() == 5);

        let mut spare = bytes.clone();
        spare[9] |= 1;
        assert_eq!(PieceSet::from_wire_bytes(&spare, 75), Err(ShapeError::SpareBits));
        assert!(PieceSet::from_wire_bytes(&bytes[1..], 75).is_err());
        for pieces in [0, 1, 63, 64, 65, 128] {
            let all = PieceSet::all(pieces);
            assert_eq!(all.iter().count(), pieces as usize);
            assert!(all.is_full());
            assert_eq!(PieceSet::from_wire_bytes(&all.to_wire_bytes(), pieces), Ok(all));
        }
    }
}
