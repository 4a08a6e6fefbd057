//! Live demands, and what they make of each piece. A piece's urgency is always derived from the demands that live.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use super::settings::MAX_DEMANDS;
use super::slots::Slots;
use crate::swarm::shape::{PieceSet, Shape, Time};

/// How urgent a demand is; a lower band gets what a higher one leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Band {
    /// A reader waits for it now.
    Waiting,
    /// A sequential reader will come to it within seconds.
    Soon,
    /// The head or tail of an opened file.
    Edge,
    /// The rest, fetched because the torrent (or the file) is set to be downloaded whole: rarest first.
    Whole,
}

/// What somebody wants: some bytes, how urgently, and by when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// The bytes of the torrent.
    pub bytes: Range<u64>,
    /// How urgently.
    pub band: Band,
    /// When the first byte is needed; `None`: as soon as it can be had. Within a band the earliest deadline goes first,
    /// and a peer that would deliver before the deadline may be used even if it is slower than the others.
    pub deadline: Option<Time>,
    /// Bytes a second at which the deadline moves back over the range; `None`: all of it is needed at once.
    pub pace: Option<u64>,
}

impl Want {
    /// `bytes` as soon as can be, because a reader waits for them.
    pub fn now(bytes: Range<u64>) -> Want {
        Want {
            bytes,
            band: Band::Waiting,
            deadline: None,
            pace: None,
        }
    }
}

/// Names a demand until it is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DemandKey {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

#[derive(Debug, Clone)]
struct Demand {
    pieces: Range<u32>,
    band: Band,
    deadline: Time,
    piece_time: Duration,
}

/// All live demands of a torrent.
#[derive(Debug, Clone)]
pub(super) struct Demands {
    slots: Slots<Demand>,
    /// Which demands above the whole band lie on a piece.
    claims: BTreeMap<u32, Vec<u32>>,
    /// The pieces of the demands in the whole band.
    whole: PieceSet,
    everything: bool,
}

impl Demands {
    pub(super) fn new(shape: Shape) -> Demands {
        Demands {
            slots: Slots::new(MAX_DEMANDS),
            claims: BTreeMap::new(),
            whole: PieceSet::new(shape.piece_count()),
            everything: false,
        }
    }

    pub(super) fn add(&mut self, now: Time, shape: &Shape, want: &Want) -> Option<(DemandKey, Range<u32>)> {
        let pieces = shape.pieces_of(want.bytes.clone());
        let piece_time = want.pace.map_or(Duration::ZERO, |pace| {
            Duration::from_micros(u64::from(shape.piece_length()) * 1_000_000 / pace.max(1))
        });
        let demand = Demand {
            pieces: pieces.clone(),
            band: want.band,
            deadline: want.deadline.unwrap_or(now),
            piece_time,
        };
        let (slot, generation) = self.slots.insert(|_, _| demand)?;
        if want.band == Band::Whole {
            for piece in pieces.clone() {
                self.whole.set(piece);
            }
        } else {
            for piece in pieces.clone() {
                self.claims.entry(piece).or_default().push(slot);
            }
        }
        Some((DemandKey { slot, generation }, pieces))
    }

    /// Takes a demand out and gives its pieces.
    pub(super) fn remove(&mut self, key: DemandKey) -> Range<u32> {
        let Some(demand) = self.slots.remove(key.slot, key.generation) else {
            return 0..0;
        };
        if demand.band == Band::Whole {
            for piece in demand.pieces.clone() {
                self.whole.clear(piece);
            }
            let others = self.slots.iter().filter(|(_, other)| other.band == Band::Whole);
            for piece in others.flat_map(|(_, other)| other.pieces.clone()) {
                self.whole.set(piece);
            }
        } else {
            for piece in demand.pieces.clone() {
                if let Some(claims) = self.claims.get_mut(&piece) {
                    claims.retain(|slot| *slot != key.slot);
                    if claims.is_empty() {
                        self.claims.remove(&piece);
                    }
                }
            }
        }
        demand.pieces
    }

    /// Whether every piece is wanted from now on, in the whole band; true if that is new.
    pub(super) fn set_everything(&mut self, everything: bool) -> bool {
        std::mem::replace(&mut self.everything, everything) != everything
    }

    /// How urgent `piece` is; `None` if nothing asks for it. The time is the deadline; in the whole band it says
    /// nothing.
    pub(super) fn urgency(&self, piece: u32) -> Option<(Band, Time)> {
        let claims = self.claims.get(&piece).into_iter().flatten();
        claims
            .filter_map(|slot| self.slots.at(*slot))
            .map(|demand| {
                let before = piece.saturating_sub(demand.pieces.start);
                (demand.band, demand.deadline + demand.piece_time.saturating_mul(before))
            })
            .min()
            .or_else(|| (self.everything || self.whole.get(piece)).then_some((Band::Whole, Time::ZERO)))
    }
}
