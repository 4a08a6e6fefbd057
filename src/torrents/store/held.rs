//! Pieces that are right but found no room on the disk: kept in memory, so that whoever waits for them gets them.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use super::bits::Bits;

/// Bytes held for one torrent; the piece that came first goes first. One piece is always held.
const LIMIT: usize = 32 * 1024 * 1024;

/// The held pieces of one torrent.
pub(super) struct Held {
    bits: Bits,
    pieces: Mutex<VecDeque<(u32, Arc<[u8]>)>>,
}

impl Held {
    pub(super) fn new(pieces: u32) -> Held {
        Held {
            bits: Bits::new(pieces),
            pieces: Mutex::default(),
        }
    }

    /// Whether the piece is held.
    pub(super) fn has(&self, piece: u32) -> bool {
        self.bits.get(piece)
    }

    /// The piece's bytes, if it is held.
    pub(super) fn get(&self, piece: u32) -> Option<Arc<[u8]>> {
        if !self.has(piece) {
            return None;
        }
        self.pieces
            .lock()
            .iter()
            .find(|(held, _)| *held == piece)
            .map(|(_, bytes)| bytes.clone())
    }

    /// Holds a piece; gives those that had to make way.
    pub(super) fn put(&self, piece: u32, bytes: &[u8]) -> Vec<u32> {
        let mut pieces = self.pieces.lock();
        if self.bits.set(piece) {
            pieces.push_back((piece, bytes.into()));
        }
        let mut evicted = Vec::new();
        while pieces.len() > 1 && pieces.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() > LIMIT {
            if let Some((first, _)) = pieces.pop_front() {
                self.bits.clear(first);
                evicted.push(first);
            }
        }
        evicted
    }

    /// The piece that has been held longest.
    pub(super) fn first(&self) -> Option<(u32, Arc<[u8]>)> {
        self.pieces.lock().front().cloned()
    }

    /// Lets a piece go.
    pub(super) fn remove(&self, piece: u32) {
        let mut pieces = self.pieces.lock();
        pieces.retain(|(held, _)| *held != piece);
        self.bits.clear(piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_makes_way_and_one_is_always_held() {
        let held = Held::new(4);
        assert!(held.put(0, &vec![0; LIMIT / 2]).is_empty());
        assert!(held.put(1, &vec![1; LIMIT / 2]).is_empty());
        assert_eq!(held.put(2, &[2]), [0]);
        assert!(!held.has(0) && held.has(1) && held.has(2));
        assert_eq!(held.put(3, &vec![3; 2 * LIMIT]), [1, 2]);
        assert_eq!(held.get(3).unwrap().len(), 2 * LIMIT);
        assert!(held.get(2).is_none());
        assert_eq!(held.first().unwrap().0, 3);
        held.remove(3);
        assert!(!held.has(3) && held.first().is_none());
    }
}
