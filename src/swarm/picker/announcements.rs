//! What changes by what peers announce: that they are here, what they have, whether they serve us.

use super::peer::{Peer, RequestState};
use super::state::Picker;
use crate::swarm::shape::{Block, PeerKey, PieceSet};

impl Picker {
    /// A peer whose handshake is done: it chokes us and has nothing until it says otherwise. That we are interested it is
    /// told before it has said what it has, as long as anything is missing: most peers have something, and waiting for
    /// their word would cost a round trip before they unchoke us. `fast`: both sides speak
    /// BEP 6; `reqq`: requests it queues at most. `None` if [`MAX_PEERS`] are here already.
    pub fn add_peer(&mut self, fast: bool, reqq: u32) -> Option<PeerKey> {
        let pieces = self.shape.piece_count();
        let make = |slot, generation| Peer::new(PeerKey { slot, generation }, fast, reqq, pieces);
        let (slot, generation) = self.peers.insert(make)?;
        self.interest_changed = true;
        Some(PeerKey { slot, generation })
    }

    /// The peer says how many requests it queues. What is outstanding beyond that stays so.
    pub fn set_request_limit(&mut self, key: PeerKey, reqq: u32) {
        if let Some(peer) = self.peers.get_mut(key.slot, key.generation) {
            peer.reqq = reqq.max(1);
            self.mark(key.slot);
        }
    }

    /// The peer has gone, and what was asked of it is asked of others.
    pub fn remove_peer(&mut self, key: PeerKey) {
        self.drop_requests(key.slot, key, |_| true);
        let Some(peer) = self.peers.remove(key.slot, key.generation) else {
            return;
        };
        match peer.have() {
            None => self.seeders -= 1,
            Some(have) => have.iter().for_each(|piece| self.index.rarity.fewer(piece)),
        }
        self.all_ready = true;
    }

    /// HAVE.
    pub fn have(&mut self, key: PeerKey, piece: u32) {
        let lacking = !self.have.get(piece);
        let Some(peer) = self.peers.get_mut(key.slot, key.generation) else {
            return;
        };
        self.interest_changed |= !std::mem::replace(&mut peer.announced, true);
        let Some(have) = peer.have_mut() else { return };
        if !have.set(piece) {
            return;
        }
        let full = have.is_full();
        peer.useful += u32::from(lacking);
        self.index.rarity.more(piece);
        if full {
            self.have_all(key);
        }
        self.interest_changed |= lacking;
        self.mark(key.slot);
    }

    /// HAVE ALL, or a BITFIELD that is full.
    pub fn have_all(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(key.slot, key.generation) else {
            return;
        };
        peer.announced = true;
        let Some(have) = peer.have_mut().take() else {
            return;
        };
        have.iter().for_each(|piece| self.index.rarity.fewer(piece));
        self.seeders += 1;
        self.interest_changed = true;
        self.mark(key.slot);
    }

    /// HAVE NONE.
    pub fn have_none(&mut self, key: PeerKey) {
        self.bitfield(key, PieceSet::new(self.shape.piece_count()));
    }

    /// BITFIELD. A set over another number of pieces is ignored.
    pub fn bitfield(&mut self, key: PeerKey, set: PieceSet) {
        if set.pieces() != self.shape.piece_count() {
            return;
        }
        if set.is_full() {
            return self.have_all(key);
        }
        let useful = set.iter().filter(|piece| !self.have.get(*piece)).count() as u32;
        let Some(peer) = self.peers.get_mut(key.slot, key.generation) else {
            return;
        };
        set.iter().for_each(|piece| self.index.rarity.more(piece));
        peer.useful = useful;
        peer.announced = true;
        match peer.have_mut().replace(set) {
            None => self.seeders -= 1,
            Some(old) => old.iter().for_each(|piece| self.index.rarity.fewer(piece)),
        }
        self.interest_changed = true;
        self.drop_requests_not_offered(key);
        self.mark(key.slot);
    }

    /// The peer gave a piece up (BEP 54); what was asked of it there is asked of others.
    pub fn dont_have(&mut self, key: PeerKey, piece: u32) {
        let lacking = !self.have.get(piece);
        if piece >= self.shape.piece_count() {
            return;
        }
        let missing = self.shape.piece_count() - self.have.count();
        let Some(peer) = self.peers.get_mut(key.slot, key.generation) else {
            return;
        };
        if peer.is_seeder() {
            *peer.have_mut() = Some(PieceSet::all(self.shape.piece_count()));
            peer.useful = missing;
            self.seeders -= 1;
            (0..self.shape.piece_count()).for_each(|piece| self.index.rarity.more(piece));
        }
        if peer.have_mut().as_mut().is_some_and(|have| have.clear(piece)) {
            peer.useful -= u32::from(lacking);
            self.index.rarity.fewer(piece);
        }
        self.interest_changed = true;
        self.drop_requests_not_offered(key);
    }

    /// CHOKE or UNCHOKE. A peer without BEP 6 that chokes drops what was asked of it; one with BEP 6 rejects it piece
    /// by piece, and until it does the requests count.
    pub fn choke(&mut self, key: PeerKey, choking: bool) {
        let Some(peer) = self.peers.get_mut(key.slot, key.generation) else {
            return;
        };
        peer.choking = choking;
        if choking && !peer.fast {
            self.drop_requests(key.slot, key, |_| true);
        }
        if !choking {
            self.mark(key.slot);
        }
        // Whoever is left may be worth more now than it was.
        self.all_ready |= choking;
    }

    /// ALLOWED FAST.
    pub fn allowed_fast(&mut self, key: PeerKey, piece: u32) {
        if let Some(peer) = self.peers.get_mut(key.slot, key.generation) {
            peer.allow(piece);
            self.mark(key.slot);
        }
    }

    /// Forgets the requests of a peer that `which` names; their blocks are free for others.
    pub(super) fn drop_requests(&mut self, slot: u32, key: PeerKey, which: impl Fn(Block) -> bool) {
        let Some(peer) = self.peers.get_mut(slot, key.generation) else {
            return;
        };
        let mut dropped = Vec::new();
        peer.requests.retain(|request| {
            let drop = which(request.block);
            if drop {
                dropped.push(*request);
            }
            !drop
        });
        for request in dropped {
            if !matches!(request.state, RequestState::GivenUp(_)) {
                self.unask(request.block);
            }
        }
        self.all_ready = true;
    }

    fn drop_requests_not_offered(&mut self, key: PeerKey) {
        let Some(have) = self
            .peers
            .get(key.slot, key.generation)
            .and_then(|peer| peer.have().cloned())
        else {
            return;
        };
        self.drop_requests(key.slot, key, |block| !have.get(block.piece));
    }
}

#[cfg(test)]
mod tests {
    use crate::swarm::picker::{Action, Picker, Settings};
    use crate::swarm::shape::{PieceSet, Shape, Time};

    #[test]
    fn a_peer_hears_of_our_interest_before_it_says_what_it_has_and_that_it_went_if_it_has_nothing() {
        let shape = Shape::new(1 << 14, 10 << 14).unwrap();
        for (have, whole) in [(PieceSet::new(10), false), (PieceSet::all(10), true)] {
            let mut picker = Picker::new(shape, have, Settings::default(), 1);
            let peer = picker.add_peer(true, 250).unwrap();
            let mut actions = Vec::new();
            picker.decide(Time::ZERO, &mut actions);
            let interested = |interested| Action::Interested { peer, interested };
            let expected = if whole { vec![] } else { vec![interested(true)] };
            assert_eq!(actions, expected);
            picker.have_none(peer);
            actions.clear();
            picker.decide(Time::ZERO, &mut actions);
            let expected = if whole { vec![] } else { vec![interested(false)] };
            assert_eq!(actions, expected);
        }
    }
}
