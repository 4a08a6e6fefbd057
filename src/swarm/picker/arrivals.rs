//! What comes of the requests: blocks, rejects, and the verdict on a piece.

use super::partial::Partial;
use super::peer::{Peer, RequestState};
use super::state::{Action, Picker};
use crate::swarm::shape::{BLOCK, Block, PeerKey, Time};

/// What an arrived block was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// The first copy of a block of a piece that is being fetched.
    Wanted,
    /// A block that is here already.
    Duplicate,
    /// A block that was not asked of this peer (or so long ago that it was forgotten) and that nobody kept.
    Unasked,
}

/// What came of a block's arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// What the block was.
    pub arrival: Arrival,
    /// Whether it was the last one of its piece: the piece is to be hashed, then
    /// [`verified`](Picker::verified) or [`failed`](Picker::failed) is called.
    pub piece_complete: bool,
}

impl Picker {
    /// A block arrived from `key`, read off the socket at `now`. `stored`: whoever assembles pieces kept these bytes
    /// (it keeps the first copy of a block): a block's sender is who sent the copy that was kept, so that the right one
    /// is blamed.
    pub fn received(&mut self, now: Time, key: PeerKey, block: Block, stored: bool) -> Receipt {
        let size = self.shape.block_size(block);
        self.counters.received += u64::from(size);
        let answer = self.answered(now, key, block, size);
        let asked = answer == Some(true);
        let useless = if answer.is_some() {
            Arrival::Duplicate
        } else {
            Arrival::Unasked
        };
        if stored && size > 0 && !self.have.get(block.piece) && !self.partials.contains_key(&block.piece) {
            // Asked for once, given up, and here after all.
            self.partials
                .insert(block.piece, Partial::new(self.shape.block_count(block.piece)));
        }
        let Some(partial) = self.partials.get_mut(&block.piece).filter(|_| stored) else {
            self.waste(useless, size);
            if asked {
                self.unask(block);
            }
            return Receipt {
                arrival: useless,
                piece_complete: false,
            };
        };
        let copies = partial.copies(block.index);
        if !partial.store(block.index, key) {
            self.waste(Arrival::Duplicate, size);
            return Receipt {
                arrival: Arrival::Duplicate,
                piece_complete: false,
            };
        }
        let piece_complete = partial.is_complete();
        if copies > u8::from(asked) {
            self.cancel_copies(now, block);
        }
        self.refresh(block.piece);
        Receipt {
            arrival: Arrival::Wanted,
            piece_complete,
        }
    }

    /// Whether the block is here, of a piece that is not whole yet.
    pub fn holds(&self, block: Block) -> bool {
        self.partials
            .get(&block.piece)
            .is_some_and(|partial| partial.is_here(block.index))
    }

    /// Whether anything of the piece is here or asked for, and not all of it verified.
    pub fn is_unfinished(&self, piece: u32) -> bool {
        self.partials.contains_key(&piece)
    }

    /// REJECT: the peer will not send a block that was asked of it. Others are asked at once.
    pub fn rejected(&mut self, now: Time, key: PeerKey, block: Block) {
        let Some(peer) = self.peers.get_mut(key.slot, key.generation) else {
            return;
        };
        let Some(request) = peer.take(block) else { return };
        if request.state == RequestState::Live && (!peer.choking || peer.is_allowed(block.piece)) {
            peer.refuses(now, block.piece);
        }
        if !matches!(request.state, RequestState::GivenUp(_)) {
            self.unask(block);
        }
        self.all_ready = true;
    }

    /// The piece's hash matched. `digests`: of each of its blocks, by any one hash function that peers cannot foresee;
    /// needed only if [`wants_digests`](Picker::wants_digests). Gives the peers that are now known to have sent false
    /// blocks in an earlier attempt: they are asked for nothing any more, and should be banned.
    pub fn verified(&mut self, now: Time, piece: u32, digests: &[u64]) -> Vec<PeerKey> {
        let partial = self.partials.remove(&piece);
        self.release(now, piece);
        for sender in partial.as_ref().map(senders).unwrap_or_default() {
            if let Some(peer) = self.peers.get_mut(sender.slot, sender.generation) {
                peer.good = peer.good.saturating_add(1);
            }
        }
        self.index.put(piece, None);
        if self.have.set(piece) {
            self.count_useful(piece, false);
        }
        let liars = self.suspects.verified(piece, digests);
        self.ban(&liars);
        // Memory for another piece became free.
        self.all_ready = true;
        liars
    }

    /// The piece's hash did not match. `digests` as in [`verified`](Picker::verified), of the bad blocks. Gives who is
    /// to blame as far as is known: they are asked for nothing any more, and should be banned. The piece is fetched
    /// again, all but the blocks that it [`holds`](Picker::holds) then.
    pub fn failed(&mut self, now: Time, piece: u32, digests: &[u64]) -> Vec<PeerKey> {
        let partial = self.partials.remove(&piece);
        self.release(now, piece);
        let contributors = partial.as_ref().map(senders).unwrap_or_default();
        let blamed = if contributors.len() == 1 {
            contributors
        } else {
            Vec::new()
        };
        let blocks: Vec<PeerKey> = partial.iter().flat_map(Partial::senders).flatten().collect();
        let is_trusted = |peer: &Peer| peer.good > 0 && peer.offers(piece, now) && !peer.is_stuck();
        let trusted = self.peers.iter().any(|(_, peer)| is_trusted(peer));
        let doubted = self.suspects.failed(piece, &blocks, digests, trusted);
        let mut dropped = self.shape.piece_size(piece);
        if let Some(mut partial) = partial.filter(|_| blamed.is_empty() && !doubted.is_empty()) {
            dropped = BLOCK * partial.doubt(&doubted);
            self.partials.insert(piece, partial);
        }
        self.counters.failed += u64::from(dropped);
        self.ban(&blamed);
        self.settle(piece);
        self.all_ready = true;
        self.preempt = true;
        blamed
    }

    /// Whether [`verified`](Picker::verified) should be given digests for `piece`: it failed before.
    pub fn wants_digests(&self, piece: u32) -> bool {
        self.suspects.get(piece).is_some()
    }

    /// A piece that was here is not any more (given up, or found damaged).
    pub fn lost(&mut self, piece: u32) {
        if self.have.clear(piece) {
            self.count_useful(piece, true);
            self.refresh(piece);
            self.all_ready = true;
            self.preempt = true;
        }
    }

    /// Takes the answered request out of the peer's queue and measures it. `None` if there was none; else whether the
    /// block was still counted on.
    fn answered(&mut self, now: Time, key: PeerKey, block: Block, size: u32) -> Option<bool> {
        let peer = self.peers.get_mut(key.slot, key.generation)?;
        peer.received += u64::from(size);
        let request = peer.take(block)?;
        let delay = self.settings.queue_delay;
        let unknown = peer.meter.window().is_none();
        peer.meter.arrived(now, request.sent, size, request.alone, delay);
        if unknown {
            peer.promise_anew(now);
        }
        peer.relents(block.piece);
        if std::mem::take(&mut peer.snubbed) {
            self.pending.push(Action::Snubbed {
                peer: key,
                snubbed: false,
            });
        }
        self.mark(key.slot);
        Some(!matches!(request.state, RequestState::GivenUp(_)))
    }

    fn waste(&mut self, arrival: Arrival, size: u32) {
        match arrival {
            Arrival::Wanted => {}
            Arrival::Duplicate => self.counters.duplicate += u64::from(size),
            Arrival::Unasked => self.counters.unasked += u64::from(size),
        }
    }

    /// The block came from one peer: the others need not send it.
    fn cancel_copies(&mut self, now: Time, block: Block) {
        let slots: Vec<u32> = self.peers.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            if let Some(place) = self.peers.at(slot).and_then(|peer| peer.position(block)) {
                self.cancel(now, slot, place);
            }
        }
    }

    fn count_useful(&mut self, piece: u32, more: bool) {
        for (_, peer) in self.peers.iter_mut() {
            if peer.have().is_some_and(|have| have.get(piece)) {
                peer.useful = if more {
                    peer.useful + 1
                } else {
                    peer.useful.saturating_sub(1)
                };
            }
        }
        self.interest_changed = true;
    }

    fn ban(&mut self, liars: &[PeerKey]) {
        for key in liars {
            if let Some(peer) = self.peers.get_mut(key.slot, key.generation) {
                peer.banned = true;
                self.drop_requests(key.slot, *key, |_| true);
            }
        }
    }
}

/// The distinct senders of a piece's blocks.
fn senders(partial: &Partial) -> Vec<PeerKey> {
    let mut senders: Vec<PeerKey> = partial.senders().flatten().collect();
    senders.sort_unstable();
    senders.dedup();
    senders
}
