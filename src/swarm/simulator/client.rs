//! The client in the simulated swarm: reads, assembles and hashes pieces, and does what the picker decides.

use std::ops::Range;
use std::time::Duration;

use super::world::{Event, Reading, Wire, World};
use crate::swarm::picker::{Action, Arrival, Want};
use crate::swarm::shape::{Block, PeerKey};

/// Bytes a second at which pieces are hashed.
const HASH_RATE: f64 = 1e9;

impl World {
    /// Begins a read of some bytes; it ends by itself when all of them are verified.
    pub(super) fn read(&mut self, bytes: Range<u64>) -> u64 {
        let pieces = self.shape.pieces_of(bytes.clone());
        let key = self
            .picker
            .add_demand(self.now, &Want::now(bytes))
            .expect("too many reads");
        self.next_read += 1;
        self.reads.insert(
            self.next_read,
            Reading {
                pieces,
                key,
                begun: self.now,
            },
        );
        self.decide();
        self.answer();
        self.next_read
    }

    /// Gives a read up.
    pub(super) fn give_up(&mut self, read: u64) {
        if let Some(reading) = self.reads.remove(&read) {
            self.picker.remove_demand(reading.key);
            self.decide();
        }
    }

    pub(super) fn is_waiting(&self, read: u64) -> bool {
        self.reads.contains_key(&read)
    }

    /// The peers and what the picker makes of them, for a message.
    pub(super) fn describe(&self) -> String {
        let stats = self
            .seeders
            .iter()
            .map(|seeder| (seeder.key.and_then(|key| self.picker.peer_stats(key)), &seeder.profile));
        let lines: Vec<String> = stats
            .map(|(stats, profile)| format!("\n{stats:?}\n  {profile:?}"))
            .collect();
        format!(
            "at {:?}, {:?}, {:?}{}",
            self.now,
            self.picker.counters(),
            self.picker.summary(),
            lines.concat()
        )
    }

    /// Runs until `read` is answered, and gives how long it took; `None` if `patience` is over before.
    pub(super) fn wait(&mut self, read: u64, patience: Duration) -> Option<Duration> {
        let end = self.now + patience;
        while self.is_waiting(read) && self.step(end) {}
        self.answered.get(&read).copied()
    }

    pub(super) fn block_arrives(&mut self, seeder: usize, block: Block) {
        let false_bytes = self.random.f64() < self.seeders[seeder].profile.lies;
        let slot = self
            .assembly
            .get_mut(&block.piece)
            .and_then(|blocks| blocks.get_mut(block.index as usize));
        let stored = slot.as_ref().is_some_and(|slot| slot.is_none());
        if let (true, Some(slot)) = (stored, slot) {
            *slot = Some(false_bytes);
        }
        let key = self.key(seeder);
        let receipt = self.picker.received(self.now, key, block, stored);
        assert_eq!(
            receipt.arrival == Arrival::Wanted,
            stored,
            "picker and assembly disagree on {block:?}"
        );
        if receipt.arrival == Arrival::Wanted {
            self.wanted_bytes += u64::from(self.shape.block_size(block));
        }
        if receipt.piece_complete {
            let hashed_s = f64::from(self.shape.piece_size(block.piece)) / HASH_RATE;
            self.at(self.now + Duration::from_secs_f64(hashed_s), Event::Hashed(block.piece));
        }
    }

    pub(super) fn hashed(&mut self, piece: u32) {
        let Some(blocks) = self.assembly.remove(&piece) else {
            return;
        };
        assert!(
            blocks.iter().all(Option::is_some),
            "piece {piece} was hashed before it was complete"
        );
        // A false block differs each time, as random bytes do.
        let digests: Vec<u64> = blocks
            .iter()
            .map(|block| if *block == Some(true) { self.random.u64(1..) } else { 0 })
            .collect();
        let bad = blocks.contains(&Some(true));
        let liars = if bad {
            let liars = self.picker.failed(self.now, piece, &digests);
            let kept = (0..).zip(&blocks).map(|(index, block)| {
                let kept = self.picker.holds(Block { piece, index });
                block.filter(|_| kept)
            });
            let kept: Vec<Option<bool>> = kept.collect();
            if kept.iter().any(Option::is_some) {
                self.assembly.insert(piece, kept);
            }
            liars
        } else {
            self.verified_bytes += u64::from(self.shape.piece_size(piece));
            self.picker.verified(self.now, piece, &digests)
        };
        for key in liars {
            let seeder = self.seeders.iter().position(|seeder| seeder.key == Some(key));
            let Some(seeder) = seeder else { continue };
            assert!(self.seeders[seeder].profile.lies > 0.0, "an honest peer was blamed");
            self.banned.push(seeder);
            self.picker.remove_peer(key);
            self.seeders[seeder].reset(self.now);
        }
    }

    /// Lets the picker decide, and sends what it decided.
    pub(super) fn decide(&mut self) {
        let mut actions = std::mem::take(&mut self.actions);
        self.picker.decide(self.now, &mut actions);
        for action in actions.drain(..) {
            self.trace = self.trace.wrapping_mul(0x0100_0000_01b3) ^ digest(action) ^ self.now.micros();
            self.carry_out(action);
        }
        self.actions = actions;
        self.decisions += 1;
        if self.scan_every > 0 && self.decisions.is_multiple_of(self.scan_every) {
            self.picker.assert_consistent(self.now);
        }
        if let Some(wakeup) = self.picker.next_wakeup()
            && self.wakes.is_none_or(|wakes| wakes > wakeup)
        {
            let wakeup = wakeup.max(self.now + Duration::from_micros(1));
            self.wakes = Some(wakeup);
            self.at(wakeup, Event::Wake);
        }
    }

    fn carry_out(&mut self, action: Action) {
        let find = |world: &World, key| world.seeders.iter().position(|seeder| seeder.key == Some(key));
        match action {
            Action::Request { peer, block } => {
                let seeder = find(self, peer).expect("a peer that is not connected was asked");
                assert!(!self.picker.has(block.piece), "a piece that is here was asked for");
                assert!(self.shape.block_size(block) > 0, "{block:?} does not exist");
                let count = self.shape.block_count(block.piece) as usize;
                let blocks = self.assembly.entry(block.piece).or_insert_with(|| vec![None; count]);
                let is_here = blocks[block.index as usize].is_some();
                assert!(!is_here, "a block that is here was asked for");
                let has = self.seeders[seeder].has(block.piece);
                assert!(has, "a peer was asked for what it does not have");
                let arrives = self.now + self.seeders[seeder].profile.latency;
                self.send(seeder, arrives, Wire::Request(block));
            }
            Action::Cancel { peer, block } => {
                let seeder = find(self, peer).expect("a peer that is not connected was cancelled");
                let arrives = self.now + self.seeders[seeder].profile.latency;
                self.send(seeder, arrives, Wire::Cancel(block));
            }
            Action::Forget { piece } => _ = self.assembly.remove(&piece),
            Action::Interested { .. } | Action::Snubbed { .. } => {}
        }
    }

    pub(super) fn answer(&mut self) {
        let done: Vec<u64> = self
            .reads
            .iter()
            .filter(|(_, reading)| reading.pieces.clone().all(|piece| self.picker.has(piece)))
            .map(|(read, _)| *read)
            .collect();
        for read in done {
            if let Some(reading) = self.reads.remove(&read) {
                self.picker.remove_demand(reading.key);
                self.answered.insert(read, self.now - reading.begun);
            }
        }
    }
}

fn digest(action: Action) -> u64 {
    let block = |kind: u64, peer: PeerKey, block: Block| {
        kind ^ u64::from(peer.slot) << 8 ^ u64::from(block.piece) << 20 ^ u64::from(block.index) << 44
    };
    match action {
        Action::Request { peer, block: it } => block(1, peer, it),
        Action::Cancel { peer, block: it } => block(2, peer, it),
        Action::Interested { peer, interested } => 3 ^ u64::from(peer.slot) << 8 ^ u64::from(interested) << 4,
        Action::Snubbed { peer, snubbed } => 4 ^ u64::from(peer.slot) << 8 ^ u64::from(snubbed) << 4,
        Action::Forget { piece } => 5 ^ u64::from(piece) << 8,
    }
}
