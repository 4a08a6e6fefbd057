//! The picker's state, and what changes it from outside: demands, peers, and what they announce.

use std::collections::BTreeMap;

use super::blame::Suspects;
use super::copies::Late;
use super::demands::{Band, DemandKey, Demands, Want};
use super::index::{Index, Place};
use super::partial::Partial;
use super::peer::Peer;
use super::settings::{MAX_PEERS, Settings};
use super::slots::Slots;
use crate::swarm::shape::{Block, PeerKey, PieceSet, Shape, Time};

/// What the owner of the picker is to do, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Send REQUEST.
    Request {
        /// To whom.
        peer: PeerKey,
        /// For what.
        block: Block,
    },
    /// Send CANCEL. The block may arrive all the same, and may still be of use.
    Cancel {
        /// To whom.
        peer: PeerKey,
        /// For what.
        block: Block,
    },
    /// Send INTERESTED or NOT INTERESTED.
    Interested {
        /// To whom.
        peer: PeerKey,
        /// Which.
        interested: bool,
    },
    /// The peer stopped answering, or answers again; a hint for whoever needs its place.
    Snubbed {
        /// Which peer.
        peer: PeerKey,
        /// Whether it is silent.
        snubbed: bool,
    },
    /// Drop what is here of an unfinished piece: memory is needed for another, or all of it must come from one peer.
    Forget {
        /// Which piece.
        piece: u32,
    },
}

/// Bytes and messages since the picker began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Bytes of blocks that arrived.
    pub received: u64,
    /// Bytes of blocks that arrived and were here already.
    pub duplicate: u64,
    /// Bytes of blocks that nobody had asked for and that were not used.
    pub unasked: u64,
    /// Bytes of blocks that were dropped again, unfinished.
    pub forgotten: u64,
    /// Bytes of pieces whose hash did not match.
    pub failed: u64,
    /// REQUESTs sent.
    pub requests: u64,
    /// CANCELs sent.
    pub cancels: u64,
    /// Requests that were for a block asked of another peer too.
    pub duplicate_requests: u64,
}

/// What is known of one peer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PeerStats {
    /// Bytes a second while it has something to send; `None` before its first block.
    pub rate: Option<u64>,
    /// Time from a request to the first byte of its answer, least seen.
    pub round_trip: std::time::Duration,
    /// Requests it has not answered.
    pub outstanding: usize,
    /// Requests that may be outstanding at once.
    pub window: usize,
    /// Bytes of blocks received from it.
    pub received: u64,
    /// Verified pieces that it sent a part of.
    pub good: u32,
    /// Whether it chokes us.
    pub choking: bool,
    /// Whether we are interested in it.
    pub interested: bool,
    /// Whether it stopped answering.
    pub snubbed: bool,
    /// Whether it sent a bad piece.
    pub banned: bool,
}

/// Decides which block is asked of which peer, and when, for one torrent.
///
/// It is a plain value: everything that happens is told to it with the time at which it happened, and
/// [`decide`](Picker::decide) gives what is to be done about it. Call that after each batch of events and at
/// [`next_wakeup`](Picker::next_wakeup). The same calls with the same seed give the same actions. Calls that name a
/// peer or demand that has gone do nothing.
#[derive(Debug, Clone)]
pub struct Picker {
    pub(super) shape: Shape,
    pub(super) settings: Settings,
    pub(super) random: fastrand::Rng,
    pub(super) have: PieceSet,
    pub(super) demands: Demands,
    pub(super) peers: Slots<Peer>,
    pub(super) seeders: u32,
    pub(super) index: Index,
    pub(super) partials: BTreeMap<u32, Partial>,
    pub(super) suspects: Suspects,
    pub(super) counters: Counters,
    /// Peers that may have become able to take a request.
    pub(super) ready: Vec<u32>,
    /// All of them may have.
    pub(super) all_ready: bool,
    pub(super) interest_changed: bool,
    /// A reader began to wait: requests that are less urgent give way.
    pub(super) preempt: bool,
    /// Something is no longer asked for: requests for it are cancelled.
    pub(super) sweep: bool,
    /// Blocks that readers wait for and that were late when the requests were looked at.
    pub(super) late: Vec<Late>,
    /// When the requests are to be looked at next.
    pub(super) next_check: Time,
    pub(super) wakeup: Option<Time>,
    /// Actions that follow from events; the next decision gives them first.
    pub(super) pending: Vec<Action>,
}

impl Picker {
    /// A picker for a torrent of `shape` of which the pieces `have` are here. `seed` settles every choice that is free.
    pub fn new(shape: Shape, have: PieceSet, settings: Settings, seed: u64) -> Picker {
        let pieces = shape.piece_count();
        let have = if have.pieces() == pieces {
            have
        } else {
            PieceSet::new(pieces)
        };
        Picker {
            shape,
            settings,
            random: fastrand::Rng::with_seed(seed),
            have,
            demands: Demands::new(shape),
            peers: Slots::new(MAX_PEERS),
            seeders: 0,
            index: Index::new(pieces),
            partials: BTreeMap::new(),
            suspects: Suspects::default(),
            counters: Counters::default(),
            ready: Vec::new(),
            all_ready: true,
            interest_changed: false,
            preempt: false,
            sweep: false,
            late: Vec::new(),
            next_check: Time::ZERO,
            wakeup: None,
            pending: Vec::new(),
        }
    }

    /// Asks for some bytes until [`remove_demand`](Picker::remove_demand); pieces that are here cost nothing.
    /// `None` if [`MAX_DEMANDS`](super::MAX_DEMANDS) live already.
    pub fn add_demand(&mut self, now: Time, want: &Want) -> Option<DemandKey> {
        let (key, pieces) = self.demands.add(now, &self.shape, want)?;
        self.all_ready = true;
        for piece in pieces {
            self.refresh(piece);
        }
        self.preempt |= want.band == Band::Waiting;
        Some(key)
    }

    /// Withdraws a demand: requests that nothing else asks for are cancelled by the next decision.
    pub fn remove_demand(&mut self, key: DemandKey) {
        for piece in self.demands.remove(key) {
            self.refresh(piece);
        }
        self.sweep = true;
        self.all_ready = true;
    }

    /// Whether every piece is fetched, in the lowest band.
    pub fn set_whole(&mut self, whole: bool) {
        if self.demands.set_everything(whole) {
            for piece in 0..self.shape.piece_count() {
                self.refresh(piece);
            }
            self.sweep |= !whole;
            self.all_ready = true;
        }
    }

    /// Whether `piece` is here.
    pub fn has(&self, piece: u32) -> bool {
        self.have.get(piece)
    }

    /// How many peers have `piece`.
    pub fn availability(&self, piece: u32) -> u32 {
        self.seeders + u32::from(self.index.rarity.count(piece))
    }

    /// Whether anything is asked for that is not here.
    pub fn is_wanting(&self) -> bool {
        !self.index.is_empty() || !self.partials.is_empty()
    }

    /// Bytes and messages since the beginning.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// What is known of a peer.
    pub fn peer_stats(&self, key: PeerKey) -> Option<PeerStats> {
        let peer = self.peers.get(key.slot, key.generation)?;
        Some(PeerStats {
            rate: peer.meter.rate().map(|rate| rate as u64),
            round_trip: std::time::Duration::from_secs_f64(peer.meter.round_trip_s()),
            outstanding: peer.requests.len(),
            window: peer.meter.window().unwrap_or(super::settings::PROBE_BLOCKS),
            received: peer.received,
            good: peer.good,
            choking: peer.choking,
            interested: peer.interested,
            snubbed: peer.snubbed,
            banned: peer.banned,
        })
    }

    /// What all peers that serve us would deliver together, in bytes a second.
    pub fn line_rate(&self) -> u64 {
        let serving = self
            .peers
            .iter()
            .filter(|(_, peer)| !peer.choking && !peer.banned && !peer.snubbed);
        serving.filter_map(|(_, peer)| peer.meter.rate()).sum::<f64>() as u64
    }

    /// Where `piece` stands by the demands and its own state, found from nothing but these.
    pub(super) fn place_of(&self, piece: u32) -> Option<Place> {
        if self.have.get(piece) {
            return None;
        }
        let (band, deadline) = self.demands.urgency(piece)?;
        let partial = self.partials.get(&piece);
        if partial.is_some_and(Partial::is_complete) {
            return None;
        }
        let open = partial.is_none_or(|partial| partial.free() > 0);
        match (band, open, partial.is_some()) {
            (Band::Whole, true, false) => Some(Place::Rare),
            (Band::Whole, true, true) => Some(Place::Started),
            (Band::Waiting, false, _) => Some(Place::Tail((band, deadline, piece))),
            (_, true, _) => Some(Place::Open((band, deadline, piece))),
            (_, false, _) => None,
        }
    }

    /// Brings the index up to date after something of `piece` changed.
    pub(super) fn refresh(&mut self, piece: u32) {
        let place = self.place_of(piece);
        self.index.put(piece, place);
    }

    /// The next decision looks at this peer.
    pub(super) fn mark(&mut self, slot: u32) {
        if let Some(peer) = self.peers.at_mut(slot)
            && !peer.marked
        {
            peer.marked = true;
            self.ready.push(slot);
        }
    }

    /// One request less stands for `block`.
    pub(super) fn unask(&mut self, block: Block) {
        if let Some(partial) = self.partials.get_mut(&block.piece) {
            partial.unask(block.index);
            self.settle(block.piece);
        }
    }

    /// Drops a partial of which nothing is here or asked for, and brings the index up to date.
    pub(super) fn settle(&mut self, piece: u32) {
        if self
            .partials
            .get(&piece)
            .is_some_and(|partial| partial.here() == 0 && !partial.is_asked())
        {
            self.partials.remove(&piece);
        }
        self.refresh(piece);
    }

    /// Whether `piece`, if it failed before, may be fetched from this peer.
    pub(super) fn admits(&self, piece: u32, peer: &Peer) -> bool {
        self.suspects.is_empty() || self.suspects.admit(piece, peer.key, peer.good > 0)
    }
}
