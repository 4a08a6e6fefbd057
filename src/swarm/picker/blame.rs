//! Pieces whose hash did not match: who may fetch them again, and how the liar is found.
//!
//! A bad piece with one sender convicts the sender. With several, the digest of every block is kept, and the piece is
//! fetched again whole: from peers that have proved good if there are any, else, and at the next failure, from one peer
//! alone. If that fails too, one sender is convicted; if it succeeds, the digests tell whose blocks were false.

use std::collections::VecDeque;

use crate::swarm::shape::PeerKey;

use super::settings::MAX_SUSPECTS;

/// Blocks whose digests are kept, over all failed pieces; the oldest piece gives way.
const MAX_EVIDENCE: usize = 256 * 1024;

/// Appointments that are remembered for one piece.
const MAX_TRIED: usize = 64;

/// From whom the blocks of a piece may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fetch {
    Anyone,
    /// Peers that sent a part of some piece that was good.
    Trusted,
    /// One peer; `None` until it is appointed.
    Alone(Option<PeerKey>),
}

/// One piece that failed.
#[derive(Debug, Clone)]
pub(super) struct Suspect {
    pub(super) piece: u32,
    pub(super) fetch: Fetch,
    /// Peers that were appointed and did not deliver, once for each time.
    tried: Vec<PeerKey>,
    /// Block, sender and digest of what came in the failed attempts.
    evidence: Vec<(u32, PeerKey, u64)>,
    attempts: u32,
}

impl Suspect {
    /// The appointed peer did not deliver.
    pub(super) fn was_late(&mut self, peer: PeerKey) {
        if self.tried.len() >= MAX_TRIED {
            self.tried.remove(0);
        }
        self.tried.push(peer);
    }

    /// How often that was so, as far as it matters.
    pub(super) fn times_late(&self, peer: PeerKey) -> i32 {
        (0..8)
            .zip(self.tried.iter().filter(|tried| **tried == peer))
            .fold(0, |count, _| count + 1)
    }
}

/// The failed pieces that are not good yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Suspects {
    pieces: VecDeque<Suspect>,
}

impl Suspects {
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    pub(super) fn get(&self, piece: u32) -> Option<&Suspect> {
        self.pieces.iter().find(|suspect| suspect.piece == piece)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Suspect> {
        self.pieces.iter_mut()
    }

    /// From whom `piece` may be fetched.
    pub(super) fn fetch(&self, piece: u32) -> Fetch {
        self.get(piece).map_or(Fetch::Anyone, |suspect| suspect.fetch)
    }

    /// `peer` is late with a block of `piece`: if it fetches it alone, another is to.
    pub(super) fn late(&mut self, piece: u32, peer: PeerKey) {
        let suspect = self.pieces.iter_mut().find(|suspect| suspect.piece == piece);
        if let Some(suspect) = suspect.filter(|suspect| suspect.fetch == Fetch::Alone(Some(peer))) {
            suspect.fetch = Fetch::Alone(None);
            suspect.was_late(peer);
        }
    }

    /// The piece failed, sent by `senders` (block by block), whose blocks have `digests` (empty if unknown).
    pub(super) fn failed(&mut self, piece: u32, senders: &[PeerKey], digests: &[u64]) {
        let mut suspect = match self.pieces.iter().position(|suspect| suspect.piece == piece) {
            Some(place) => self.pieces.remove(place),
            None => None,
        }
        .unwrap_or(Suspect {
            piece,
            fetch: Fetch::Anyone,
            tried: Vec::new(),
            evidence: Vec::new(),
            attempts: 0,
        });
        suspect.attempts += 1;
        suspect.tried.clear();
        suspect.fetch = if suspect.attempts == 1 {
            Fetch::Trusted
        } else {
            Fetch::Alone(None)
        };
        // The latest attempt is the one that the next success convicts; a few before it are kept as well.
        if suspect.evidence.len() > 4 * senders.len() {
            suspect.evidence.clear();
        }
        let blocks = (0..).zip(senders).zip(digests);
        suspect
            .evidence
            .extend(blocks.map(|((index, sender), digest)| (index, *sender, *digest)));
        self.pieces.push_back(suspect);
        let mut kept: usize = self.pieces.iter().map(|suspect| suspect.evidence.len()).sum();
        while self.pieces.len() > MAX_SUSPECTS || (kept > MAX_EVIDENCE && self.pieces.len() > 1) {
            kept -= self.pieces.pop_front().map_or(0, |oldest| oldest.evidence.len());
        }
    }

    /// The piece is good, and its blocks have `digests`: gives who sent other blocks than these.
    pub(super) fn verified(&mut self, piece: u32, digests: &[u64]) -> Vec<PeerKey> {
        let Some(place) = self.pieces.iter().position(|suspect| suspect.piece == piece) else {
            return Vec::new();
        };
        let Some(suspect) = self.pieces.remove(place) else {
            return Vec::new();
        };
        let differs =
            |(index, _, digest): &&(u32, PeerKey, u64)| digests.get(*index as usize).is_some_and(|good| good != digest);
        let mut liars: Vec<PeerKey> = suspect
            .evidence
            .iter()
            .filter(differs)
            .map(|(_, sender, _)| *sender)
            .collect();
        liars.sort_unstable();
        liars.dedup();
        liars
    }
}
