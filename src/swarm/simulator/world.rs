//! A simulated swarm round one picker: a clock, a heap of events, and the wire between them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::ops::Range;
use std::time::Duration;

use super::seeder::{Profile, Seeder};
use crate::swarm::picker::{Action, Arrival, DemandKey, Picker, Settings, Want};
use crate::swarm::shape::{Block, PeerKey, PieceSet, Shape, Time};

/// Bytes a second at which pieces are hashed.
const HASH_RATE: f64 = 1e9;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// Something on one connection (the count says which) of a seeder; it is lost if that has ended.
    Wire(usize, u32, Wire),
    Connect(usize),
    Disconnect(usize),
    SetChoking(usize, bool),
    Hashed(u32),
    Wake,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Wire {
    Request(Block),
    Cancel(Block),
    /// So many bytes left the send buffer.
    Left(u32),
    /// The block is at the client's line.
    AtLine(Block),
    Arrives(Block),
    Rejected(Block),
    Choke(bool),
}

/// A read that waits.
#[derive(Debug)]
struct Reading {
    pieces: Range<u32>,
    key: DemandKey,
    begun: Time,
}

/// The swarm.
#[derive(Debug)]
pub(super) struct World {
    pub(super) now: Time,
    pub(super) picker: Picker,
    pub(super) shape: Shape,
    pub(super) seeders: Vec<Seeder>,
    pub(super) random: fastrand::Rng,
    /// The client's own line, shared by all peers, in bytes a second.
    pub(super) downlink: Option<f64>,
    downlink_free: Time,
    events: BinaryHeap<Reverse<(Time, u64, Event)>>,
    sequence: u64,
    wakes: Option<Time>,
    /// Unfinished pieces: for each block that is here, whether it is false.
    assembly: BTreeMap<u32, Vec<Option<bool>>>,
    reads: BTreeMap<u64, Reading>,
    next_read: u64,
    /// Reads that were answered: how long each took.
    pub(super) answered: BTreeMap<u64, Duration>,
    pub(super) verified_bytes: u64,
    pub(super) wanted_bytes: u64,
    pub(super) banned: Vec<usize>,
    /// Every how many decisions the index is compared with a full scan; 0: never.
    pub(super) scan_every: u64,
    decisions: u64,
    /// A digest of all actions, to compare two runs.
    pub(super) trace: u64,
    actions: Vec<Action>,
}

impl World {
    pub(super) fn new(shape: Shape, profiles: Vec<Profile>, settings: Settings, seed: u64) -> World {
        let picker = Picker::new(shape, PieceSet::new(shape.piece_count()), settings, seed);
        let mut world = World {
            now: Time::ZERO,
            picker,
            shape,
            seeders: profiles.into_iter().map(Seeder::new).collect(),
            random: fastrand::Rng::with_seed(seed ^ 0x9e37_79b9),
            downlink: None,
            downlink_free: Time::ZERO,
            events: BinaryHeap::new(),
            sequence: 0,
            wakes: None,
            assembly: BTreeMap::new(),
            reads: BTreeMap::new(),
            next_read: 0,
            answered: BTreeMap::new(),
            verified_bytes: 0,
            wanted_bytes: 0,
            banned: Vec::new(),
            scan_every: 0,
            decisions: 0,
            trace: 0,
            actions: Vec::new(),
        };
        for seeder in 0..world.seeders.len() {
            let away = world.seeders[seeder].profile.away.clone();
            let chokes = world.seeders[seeder].profile.chokes.clone();
            if !away.iter().any(|range| range.contains(&Time::ZERO)) {
                world.at(Time::ZERO, Event::Connect(seeder));
            }
            for range in away {
                world.at(range.start, Event::Disconnect(seeder));
                world.at(range.end, Event::Connect(seeder));
            }
            for range in chokes {
                world.at(range.start, Event::SetChoking(seeder, true));
                world.at(range.end, Event::SetChoking(seeder, false));
            }
        }
        world
    }

    fn at(&mut self, time: Time, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((time.max(self.now), self.sequence, event)));
    }

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

    /// Runs until `time`.
    pub(super) fn run_until(&mut self, time: Time) {
        while self.step(time) {}
        self.now = time;
    }

    pub(super) fn run_for(&mut self, duration: Duration) {
        self.run_until(self.now + duration);
    }

    /// Runs until `read` is answered, and gives how long it took; `None` if `patience` is over before.
    pub(super) fn wait(&mut self, read: u64, patience: Duration) -> Option<Duration> {
        let end = self.now + patience;
        while self.is_waiting(read) && self.step(end) {}
        self.answered.get(&read).copied()
    }

    /// One event, if there is one before `end`.
    pub(super) fn step(&mut self, end: Time) -> bool {
        let Some(Reverse((time, _, _))) = self.events.peek() else {
            return false;
        };
        if *time > end {
            return false;
        }
        let Some(Reverse((time, _, event))) = self.events.pop() else {
            return false;
        };
        assert!(time >= self.now, "time runs backwards");
        self.now = time;
        if self.happen(event) {
            self.decide();
            self.answer();
        }
        true
    }

    /// Whether the picker is to decide after it.
    fn happen(&mut self, event: Event) -> bool {
        match event {
            Event::Wire(seeder, connection, wire) => {
                return self.is_connected(seeder, connection) && self.happen_on_wire(seeder, wire);
            }
            Event::Connect(seeder) => self.connect(seeder),
            Event::Disconnect(seeder) => {
                if let Some(key) = self.seeders[seeder].key {
                    self.picker.remove_peer(key);
                }
                self.seeders[seeder].reset(self.now);
            }
            Event::SetChoking(seeder, choking) => {
                self.set_choking(seeder, choking);
                return false;
            }
            Event::Hashed(piece) => self.hashed(piece),
            Event::Wake => {
                if self.wakes == Some(self.now) {
                    self.wakes = None;
                }
            }
        }
        true
    }

    /// Whether the picker is to decide after it.
    fn happen_on_wire(&mut self, seeder: usize, wire: Wire) -> bool {
        let key = self.key(seeder);
        match wire {
            Wire::Request(block) => self.request_reaches(seeder, block),
            Wire::Cancel(block) => {
                let queue = &mut self.seeders[seeder].queue;
                if let Some(place) = queue.iter().position(|queued| *queued == block) {
                    queue.remove(place);
                    self.reject(seeder, block);
                }
            }
            Wire::Left(bytes) => {
                self.seeders[seeder].buffered -= bytes;
                self.pump(seeder);
            }
            Wire::AtLine(block) => match self.downlink {
                None => {
                    self.block_arrives(seeder, block);
                    return true;
                }
                Some(rate) => {
                    let block_s = f64::from(self.shape.block_size(block)) / rate;
                    self.downlink_free = self.downlink_free.max(self.now) + Duration::from_secs_f64(block_s);
                    self.send(seeder, self.downlink_free, Wire::Arrives(block));
                }
            },
            Wire::Arrives(block) => {
                self.block_arrives(seeder, block);
                return true;
            }
            Wire::Rejected(block) => {
                self.picker.rejected(self.now, key, block);
                return true;
            }
            Wire::Choke(choking) => {
                self.picker.choke(key, choking);
                return true;
            }
        }
        false
    }

    /// Something is to happen on the seeder's present connection.
    fn send(&mut self, seeder: usize, time: Time, wire: Wire) {
        let connection = self.seeders[seeder].connection;
        self.at(time, Event::Wire(seeder, connection, wire));
    }

    /// The seeder says that it will not send a block, if it speaks BEP 6.
    fn reject(&mut self, seeder: usize, block: Block) {
        let it = &self.seeders[seeder];
        if it.profile.fast {
            let arrives = (self.now + it.profile.latency).max(it.last_arrival);
            self.send(seeder, arrives, Wire::Rejected(block));
        }
    }

    fn is_connected(&self, seeder: usize, connection: u32) -> bool {
        self.seeders[seeder].key.is_some() && self.seeders[seeder].connection == connection
    }

    fn key(&self, seeder: usize) -> PeerKey {
        self.seeders[seeder].key.expect("the peer is connected")
    }

    fn connect(&mut self, seeder: usize) {
        if self.banned.contains(&seeder) || self.seeders[seeder].key.is_some() {
            return;
        }
        let (fast, reqq) = (self.seeders[seeder].profile.fast, self.seeders[seeder].profile.reqq);
        let key = self.picker.add_peer(fast, reqq).expect("too many peers");
        self.seeders[seeder].reset(self.now);
        self.seeders[seeder].key = Some(key);
        match self.seeders[seeder].profile.have.clone() {
            None => self.picker.have_all(key),
            Some(have) => self.picker.bitfield(key, have),
        }
        let choking = self.seeders[seeder]
            .profile
            .chokes
            .iter()
            .any(|range| range.contains(&self.now));
        self.set_choking(seeder, choking);
    }

    fn set_choking(&mut self, seeder: usize, choking: bool) {
        let it = &mut self.seeders[seeder];
        if it.key.is_none() {
            return;
        }
        it.choking = choking;
        let arrives = (self.now + it.profile.latency).max(it.last_arrival);
        let dropped: Vec<Block> = if choking {
            it.queue.drain(..).collect()
        } else {
            Vec::new()
        };
        self.send(seeder, arrives, Wire::Choke(choking));
        for block in dropped {
            self.reject(seeder, block);
        }
    }

    fn request_reaches(&mut self, seeder: usize, block: Block) {
        let it = &mut self.seeders[seeder];
        let refused = !it.has(block.piece) || self.random.f64() < it.profile.refuses;
        if it.choking || refused || it.queue.len() >= it.profile.reqq as usize {
            self.reject(seeder, block);
        } else {
            it.queue.push_back(block);
            self.pump(seeder);
        }
    }

    fn pump(&mut self, seeder: usize) {
        let shape = self.shape;
        loop {
            let it = &mut self.seeders[seeder];
            let next = it.send_next(self.now, |block| shape.block_size(block), &mut self.random);
            let Some((block, leaves)) = next else { return };
            let jitter = Duration::from_secs_f64(it.profile.jitter.as_secs_f64() * self.random.f64());
            let arrives = (leaves + it.profile.latency + jitter).max(it.last_arrival);
            it.last_arrival = arrives;
            self.send(seeder, leaves, Wire::Left(shape.block_size(block)));
            self.send(seeder, arrives, Wire::AtLine(block));
        }
    }

    fn block_arrives(&mut self, seeder: usize, block: Block) {
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

    fn hashed(&mut self, piece: u32) {
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
            self.picker.failed(self.now, piece, &digests)
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

    fn answer(&mut self) {
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
