//! Pieces whose hash did not match: who may fetch them again, and how the liar is found.
//!
//! A bad piece with one sender convicts the sender. With several, the digest of every block is kept.
//!
//! - If there are peers that have proved good, it is fetched again from these alone.
//! - Else half of its senders are doubted: what came from them is asked of the others, and what came from the others is
//!   kept. If the liar was doubted, the piece is good now. If not, the two digests of each block tell who agrees with
//!   whom, and those whom nobody vouches for are doubted next. So the piece comes at the speed of nearly the whole swarm.
//! - What fails after that is fetched whole from one peer alone. If that fails too, one sender is convicted.
//!
//! When the piece is good, the digests tell whose blocks were false.

use std::collections::{HashMap, HashSet, VecDeque};

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
    /// Those that are not doubted.
    Others,
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
    /// Whose blocks are fetched again from others.
    doubted: Vec<PeerKey>,
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

    pub(super) fn is_doubted(&self, peer: PeerKey) -> bool {
        self.doubted.contains(&peer)
    }

    /// Whom to doubt after a failure, of the distinct `senders` of the piece as it stands and of the attempts before;
    /// empty if that leads nowhere.
    fn whom_to_doubt(&self, blocks: &[PeerKey]) -> Vec<PeerKey> {
        let mut senders: Vec<PeerKey> = self.evidence.iter().map(|(_, sender, _)| *sender).collect();
        senders.sort_unstable();
        senders.dedup();
        let doubted = match self.attempts {
            1 => {
                // Those who sent the least: the least is to be fetched again.
                senders.sort_by_key(|sender| blocks.iter().filter(|other| *other == sender).count());
                senders.truncate(senders.len() / 2);
                senders
            }
            2 => {
                let vouched = self.vouched();
                let doubted = senders.into_iter().filter(|sender| !vouched.contains(sender));
                let doubted: Vec<PeerKey> = doubted.collect();
                let nobody = blocks.iter().all(|sender| doubted.contains(sender));
                let swapped = |sender: &PeerKey| !self.is_doubted(*sender);
                if nobody {
                    doubted.into_iter().filter(swapped).collect()
                } else {
                    doubted
                }
            }
            _ => Vec::new(),
        };
        // Something has to be fetched again, or the piece stays as bad as it is.
        let is_here = blocks.iter().any(|sender| doubted.contains(sender));
        if is_here { doubted } else { Vec::new() }
    }

    /// The peers of which another sent the same bytes for some block.
    fn vouched(&self) -> HashSet<PeerKey> {
        let mut first = HashMap::new();
        let mut vouched = HashSet::new();
        for (index, sender, digest) in &self.evidence {
            let first = *first.entry((index, digest)).or_insert(*sender);
            if first != *sender {
                vouched.extend([first, *sender]);
            }
        }
        vouched
    }

    /// How often the peer was appointed and did not deliver, as far as it matters.
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

    /// Whether `piece` may be fetched from a peer; `good`: it sent a part of a good piece.
    pub(super) fn admit(&self, piece: u32, peer: PeerKey, good: bool) -> bool {
        self.get(piece).is_none_or(|suspect| match suspect.fetch {
            Fetch::Anyone => true,
            Fetch::Trusted => good,
            Fetch::Others => !suspect.is_doubted(peer),
            Fetch::Alone(alone) => alone == Some(peer),
        })
    }

    /// `peer` is late with a block of `piece`: if it fetches it alone, another is to.
    pub(super) fn late(&mut self, piece: u32, peer: PeerKey) {
        let suspect = self.pieces.iter_mut().find(|suspect| suspect.piece == piece);
        if let Some(suspect) = suspect.filter(|suspect| suspect.fetch == Fetch::Alone(Some(peer))) {
            suspect.fetch = Fetch::Alone(None);
            suspect.was_late(peer);
        }
    }

    /// The piece failed, sent by `senders` (block by block), whose blocks have `digests` (empty if unknown). `trusted`: a
    /// peer that proved good has the piece. Gives whose blocks are to be fetched again from others, while the rest is
    /// kept; nobody: all of it is.
    pub(super) fn failed(&mut self, piece: u32, senders: &[PeerKey], digests: &[u64], trusted: bool) -> Vec<PeerKey> {
        let mut suspect = match self.pieces.iter().position(|suspect| suspect.piece == piece) {
            Some(place) => self.pieces.remove(place),
            None => None,
        }
        .unwrap_or(Suspect {
            piece,
            fetch: Fetch::Anyone,
            tried: Vec::new(),
            doubted: Vec::new(),
            evidence: Vec::new(),
            attempts: 0,
        });
        suspect.attempts += 1;
        suspect.tried.clear();
        // The latest attempt is the one that the next success convicts; a few before it are kept as well.
        if suspect.evidence.len() > 4 * senders.len() {
            suspect.evidence.clear();
        }
        let blocks = (0..).zip(senders).zip(digests);
        suspect
            .evidence
            .extend(blocks.map(|((index, sender), digest)| (index, *sender, *digest)));
        let first = suspect.attempts == 1;
        suspect.doubted = if (first && trusted) || suspect.fetch == Fetch::Trusted {
            Vec::new()
        } else {
            suspect.whom_to_doubt(senders)
        };
        suspect.fetch = match suspect.doubted.is_empty() {
            false => Fetch::Others,
            true if first && trusted => Fetch::Trusted,
            true => Fetch::Alone(None),
        };
        let doubted = suspect.doubted.clone();
        self.pieces.push_back(suspect);
        let mut kept: usize = self.pieces.iter().map(|suspect| suspect.evidence.len()).sum();
        while self.pieces.len() > MAX_SUSPECTS || (kept > MAX_EVIDENCE && self.pieces.len() > 1) {
            kept -= self.pieces.pop_front().map_or(0, |oldest| oldest.evidence.len());
        }
        doubted
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
