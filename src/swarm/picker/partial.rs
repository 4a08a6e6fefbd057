//! A piece that is being fetched: which of its blocks are here, which are asked for, and who sent them.

use crate::swarm::shape::PeerKey;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BlockState {
    /// Asked of so many peers.
    Asked(u8),
    /// Here, from this peer.
    Here(PeerKey),
}

#[derive(Debug, Clone)]
pub(super) struct Partial {
    blocks: Vec<BlockState>,
    free: u32,
    here: u32,
    /// No block before this one is free.
    hint: usize,
    /// Blocks asked for a second time while the first request was not late.
    pub(super) duplicates: u32,
}

impl Partial {
    pub(super) fn new(blocks: u32) -> Partial {
        let states = vec![BlockState::Asked(0); blocks as usize];
        Partial {
            blocks: states,
            free: blocks,
            here: 0,
            hint: 0,
            duplicates: 0,
        }
    }

    /// Blocks that nobody was asked for.
    pub(super) fn free(&self) -> u32 {
        self.free
    }

    pub(super) fn here(&self) -> u32 {
        self.here
    }

    pub(super) fn block_count(&self) -> u32 {
        self.blocks.len() as u32
    }

    pub(super) fn is_complete(&self) -> bool {
        self.here as usize == self.blocks.len()
    }

    /// Whether some block is asked of somebody.
    pub(super) fn is_asked(&self) -> bool {
        self.free + self.here < self.block_count()
    }

    pub(super) fn first_free(&mut self) -> Option<u32> {
        let found = self.blocks[self.hint..]
            .iter()
            .position(|state| *state == BlockState::Asked(0))?;
        self.hint += found;
        Some(self.hint as u32)
    }

    pub(super) fn is_here(&self, index: u32) -> bool {
        matches!(self.blocks.get(index as usize), Some(BlockState::Here(_)))
    }

    /// Of how many peers the block is asked.
    pub(super) fn copies(&self, index: u32) -> u8 {
        match self.blocks.get(index as usize) {
            Some(BlockState::Asked(copies)) => *copies,
            _ => 0,
        }
    }

    pub(super) fn ask(&mut self, index: u32) {
        if let Some(BlockState::Asked(copies)) = self.blocks.get_mut(index as usize) {
            self.free -= u32::from(*copies == 0);
            *copies += 1;
        }
    }

    /// A request for the block is no longer counted on.
    pub(super) fn unask(&mut self, index: u32) {
        if let Some(BlockState::Asked(copies)) = self.blocks.get_mut(index as usize)
            && *copies > 0
        {
            *copies -= 1;
            if *copies == 0 {
                self.free += 1;
                self.hint = self.hint.min(index as usize);
            }
        }
    }

    /// The block came from `peer`; true if it was not here.
    pub(super) fn store(&mut self, index: u32, peer: PeerKey) -> bool {
        match self.blocks.get_mut(index as usize) {
            Some(state @ BlockState::Asked(_)) => {
                self.free -= u32::from(*state == BlockState::Asked(0));
                *state = BlockState::Here(peer);
                self.here += 1;
                true
            }
            _ => false,
        }
    }

    /// Drops what came from these peers; gives how many blocks that were.
    pub(super) fn doubt(&mut self, doubted: &[PeerKey]) -> u32 {
        let mut dropped = 0;
        for state in &mut self.blocks {
            if matches!(state, BlockState::Here(peer) if doubted.contains(peer)) {
                *state = BlockState::Asked(0);
                dropped += 1;
            }
        }
        self.here -= dropped;
        self.free += dropped;
        self.hint = 0;
        dropped
    }

    /// Who sent each block that is here.
    pub(super) fn senders(&self) -> impl Iterator<Item = Option<PeerKey>> + '_ {
        self.blocks.iter().map(|state| match state {
            BlockState::Here(peer) => Some(*peer),
            BlockState::Asked(_) => None,
        })
    }
}
