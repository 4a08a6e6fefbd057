//! The order in which pieces are fetched, kept up to date piece by piece so that no decision looks at all of them.

use std::collections::{BTreeMap, BTreeSet};

use super::demands::Band;
use super::rarity::Rarity;
use crate::swarm::shape::Time;

/// The place of a piece in the order: band, then deadline, then position in the torrent.
pub(super) type Rank = (Band, Time, u32);

/// Where a piece that is wanted stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// Some of its blocks can be asked for, and somebody wants it before the rest.
    Open(Rank),
    /// All its blocks are here or asked for, and a reader waits for it.
    Tail(Rank),
    /// In the whole band, some blocks here or asked for, and some not.
    Started,
    /// In the whole band, nothing asked for.
    Rare,
}

/// Every piece that can be asked for, in order.
#[derive(Debug, Clone)]
pub(super) struct Index {
    pub(super) open: BTreeSet<Rank>,
    pub(super) tails: BTreeSet<Rank>,
    pub(super) started: BTreeSet<u32>,
    pub(super) rarity: Rarity,
    /// Where each piece stands that is not in `rarity`.
    places: BTreeMap<u32, Place>,
}

impl Index {
    pub(super) fn new(pieces: u32) -> Index {
        Index {
            open: BTreeSet::new(),
            tails: BTreeSet::new(),
            started: BTreeSet::new(),
            rarity: Rarity::new(pieces),
            places: BTreeMap::new(),
        }
    }

    /// Moves `piece` to `place`; true if it was elsewhere.
    pub(super) fn put(&mut self, piece: u32, place: Option<Place>) -> bool {
        let old = self.place(piece);
        if old == place {
            return false;
        }
        match old {
            Some(Place::Open(rank)) => _ = self.open.remove(&rank),
            Some(Place::Tail(rank)) => _ = self.tails.remove(&rank),
            Some(Place::Started) => _ = self.started.remove(&piece),
            Some(Place::Rare) => self.rarity.remove(piece),
            None => {}
        }
        match place {
            Some(Place::Open(rank)) => _ = self.open.insert(rank),
            Some(Place::Tail(rank)) => _ = self.tails.insert(rank),
            Some(Place::Started) => _ = self.started.insert(piece),
            Some(Place::Rare) => self.rarity.insert(piece),
            None => {}
        }
        match place {
            Some(Place::Rare) | None => _ = self.places.remove(&piece),
            Some(place) => _ = self.places.insert(piece, place),
        }
        true
    }

    pub(super) fn place(&self, piece: u32) -> Option<Place> {
        match self.places.get(&piece) {
            Some(place) => Some(*place),
            None => self.rarity.contains(piece).then_some(Place::Rare),
        }
    }

    /// Whether there is anything that could be asked for or asked again.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.tails.is_empty() && self.started.is_empty() && self.rarity.len() == 0
    }

    /// Whether some piece that a reader waits for is incomplete.
    pub(super) fn is_waited_for(&self) -> bool {
        !self.tails.is_empty() || self.open.first().is_some_and(|rank| rank.0 == Band::Waiting)
    }
}
