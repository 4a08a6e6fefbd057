//! What must hold of a picker at every moment, found by looking at all of it.

use std::collections::BTreeMap;

use super::index::Place;
use super::peer::RequestState;
use super::state::Picker;
use crate::swarm::shape::{Block, Time};

impl Picker {
    /// What it has to do, for a message.
    pub(crate) fn summary(&self) -> String {
        let partials: Vec<String> = self
            .partials
            .iter()
            .map(|(piece, it)| {
                format!(
                    "{piece}: {} here, {} free of {}",
                    it.here(),
                    it.free(),
                    it.block_count()
                )
            })
            .collect();
        let index = &self.index;
        format!(
            "{:?} {:?} {:?} {} {partials:?} {:?}",
            index.open,
            index.tails,
            index.started,
            index.rarity.len(),
            self.suspects
        )
    }

    /// Panics unless the incremental index equals a full scan, the blocks' counts equal the requests, and every queue
    /// and table is within its limit.
    pub(crate) fn assert_consistent(&self, now: Time) {
        let mut open = 0;
        let (mut tails, mut started, mut rare) = (0, 0, 0);
        for piece in 0..self.shape.piece_count() {
            let place = self.place_of(piece);
            assert_eq!(
                self.index.place(piece),
                place,
                "the index has piece {piece} elsewhere at {now:?}"
            );
            match place {
                Some(Place::Open(rank)) => open += usize::from(self.index.open.contains(&rank)),
                Some(Place::Tail(rank)) => tails += usize::from(self.index.tails.contains(&rank)),
                Some(Place::Started) => started += usize::from(self.index.started.contains(&piece)),
                Some(Place::Rare) => rare += usize::from(self.index.rarity.contains(piece)),
                None => {}
            }
            let holders = self.peers.iter().filter(|(_, peer)| peer.has(piece)).count();
            assert_eq!(
                self.availability(piece) as usize,
                holders,
                "availability of piece {piece}"
            );
        }
        assert_eq!(open, self.index.open.len());
        assert_eq!(tails, self.index.tails.len());
        assert_eq!(started, self.index.started.len());
        assert_eq!(rare, self.index.rarity.len());
        let mut copies: BTreeMap<Block, u8> = BTreeMap::new();
        for (_, peer) in self.peers.iter() {
            let limit = peer.reqq.min(self.settings.max_queue) as usize;
            assert!(
                peer.requests.len() <= limit,
                "a queue of {} where {limit} may be",
                peer.requests.len()
            );
            let useful = peer
                .have()
                .map(|have| have.iter().filter(|piece| !self.have.get(*piece)).count());
            assert!(
                useful.is_none_or(|useful| useful == peer.useful as usize),
                "useful pieces of a peer"
            );
            for request in &peer.requests {
                if !matches!(request.state, RequestState::GivenUp(_)) {
                    *copies.entry(request.block).or_default() += 1;
                }
            }
        }
        for (piece, partial) in &self.partials {
            let mut free = 0;
            for index in 0..partial.block_count() {
                let block = Block { piece: *piece, index };
                let expected = if partial.is_here(index) {
                    0
                } else {
                    copies.get(&block).copied().unwrap_or(0)
                };
                assert_eq!(partial.copies(index), expected, "{block:?} is asked of so many peers");
                free += u32::from(!partial.is_here(index) && expected == 0);
            }
            assert_eq!(partial.free(), free, "free blocks of piece {piece}");
        }
        assert!(
            copies.keys().all(|block| self.partials.contains_key(&block.piece)),
            "a request stands for nothing"
        );
        assert!(
            self.partials.len() <= 4 * self.partial_limit().max(1),
            "too many unfinished pieces"
        );
    }
}
