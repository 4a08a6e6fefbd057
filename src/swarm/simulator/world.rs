//! A simulated swarm round one picker: a clock, a heap of events, and the wire between them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::ops::Range;
use std::time::Duration;

use super::seeder::{Profile, Seeder};
use crate::swarm::picker::{Action, DemandKey, Picker, Settings};
use crate::swarm::shape::{Block, PeerKey, PieceSet, Shape, Time};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    /// Something on one connection (the count says which) of a seeder; it is lost if that has ended.
    Wire(usize, u32, Wire),
    Connect(usize),
    Disconnect(usize),
    SetChoking(usize, bool),
    Hashed(u32),
    Wake,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wire {
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
pub(super) struct Reading {
    pub(super) pieces: Range<u32>,
    pub(super) key: DemandKey,
    pub(super) begun: Time,
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
    pub(super) downlink_free: Time,
    events: BinaryHeap<Reverse<(Time, u64, Event)>>,
    sequence: u64,
    pub(super) wakes: Option<Time>,
    /// Unfinished pieces: for each block that is here, whether it is false.
    pub(super) assembly: BTreeMap<u32, Vec<Option<bool>>>,
    pub(super) reads: BTreeMap<u64, Reading>,
    pub(super) next_read: u64,
    /// Reads that were answered: how long each took.
    pub(super) answered: BTreeMap<u64, Duration>,
    pub(super) verified_bytes: u64,
    pub(super) wanted_bytes: u64,
    pub(super) banned: Vec<usize>,
    /// Every how many decisions the index is compared with a full scan; 0: never.
    pub(super) scan_every: u64,
    pub(super) decisions: u64,
    /// A digest of all actions, to compare two runs.
    pub(super) trace: u64,
    pub(super) actions: Vec<Action>,
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

    pub(super) fn at(&mut self, time: Time, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((time.max(self.now), self.sequence, event)));
    }

    /// Runs until `time`.
    pub(super) fn run_until(&mut self, time: Time) {
        while self.step(time) {}
        self.now = time;
    }

    pub(super) fn run_for(&mut self, duration: Duration) {
        self.run_until(self.now + duration);
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
    pub(super) fn send(&mut self, seeder: usize, time: Time, wire: Wire) {
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

    pub(super) fn key(&self, seeder: usize) -> PeerKey {
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
}
