//! Whether a read that waits may still hope.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How late progress may be noted: with many reads and many blocks, not each is looked at for each.
const DELAY: Duration = Duration::from_millis(100);

/// When there was last progress for a read: one of its blocks arrived, or any block of the torrent while connected peers
/// had all that it lacks. What others get of a torrent says nothing to a read whose piece nobody has.
#[derive(Debug, Default)]
pub struct Progress(Mutex<Option<Instant>>);

impl Progress {
    /// When; `None` for never.
    pub fn last(&self) -> Option<Instant> {
        *self.0.lock()
    }

    pub(super) fn note(&self, at: Instant) {
        let mut last = self.0.lock();
        *last = (*last).max(Some(at));
    }
}

/// Blocks that arrived and of which the reads have not heard.
#[derive(Debug, Default)]
pub(super) struct Arrived {
    pieces: HashSet<u32>,
    last: Option<Instant>,
    told: Option<Instant>,
}

impl Arrived {
    /// A block that was wanted.
    pub(super) fn add(&mut self, piece: u32, at: Instant) {
        self.pieces.insert(piece);
        self.last = self.last.max(Some(at));
    }

    /// When the reads are to hear of it.
    pub(super) fn due(&self) -> Option<Instant> {
        let last = self.last?;
        Some(self.told.map_or(last, |told| told + DELAY))
    }

    /// The pieces of which blocks arrived, and when the last did, if the reads are to hear of it now.
    pub(super) fn take(&mut self, now: Instant) -> Option<(HashSet<u32>, Instant)> {
        if self.due()? > now {
            return None;
        }
        self.told = Some(now);
        Some((std::mem::take(&mut self.pieces), self.last.take()?))
    }
}
