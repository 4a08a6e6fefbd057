//! Peers that die, return, fall silent, answer in any order and lie, while eight readers read, in simulated time.

use std::ops::Range;
use std::time::Duration;

use super::seeder::Profile;
use super::world::World;
use super::{MIB, millis, soak};
use crate::swarm::picker::Settings;
use crate::swarm::reader::{ReadKey, Reader};
use crate::swarm::shape::{Shape, Time};

const READ: u64 = 128 * 1024;
const READERS: usize = 8;
/// How long it goes on, in seconds.
const LIFE: u64 = 60;

fn second(at: f64) -> Time {
    Time::from_micros((at * 1e6) as u64)
}

/// Two honest peers of which one is well at any time, and a liar, a staller and one without order that come again under
/// another address as soon as they are sent away.
fn peers(random: &mut fastrand::Rng) -> Vec<Profile> {
    let honest = || Profile::seeder(3.0 * MIB).latency(millis(1));
    let mut peers = vec![honest(), honest()];
    let mut now = 1.0;
    while now < LIFE as f64 {
        let ill = random.usize(0..2);
        let until = now + 0.5 + 3.5 * random.f64();
        let times = second(now)..second(until);
        if random.bool() {
            peers[ill].away.push(times);
        } else {
            peers[ill].stalls.push(times);
        }
        // Until the other one goes.
        now = until + 1.5;
    }
    for kind in 0..3 {
        let mut now = 0.0;
        while now < LIFE as f64 {
            let until = now + 3.0 + 5.0 * random.f64();
            let mut rogue = Profile {
                fast: false,
                away: vec![Time::ZERO..second(now), second(until)..second(1e6)],
                ..honest()
            };
            match kind {
                0 => rogue.lies = 0.25,
                1 => rogue = rogue.silent_from(second(now + 2.0 * random.f64())),
                _ => {
                    rogue.reorders = true;
                    rogue.jitter = millis(100);
                    rogue.chokes = vec![
                        second(now + 1.0)..second(now + 1.5),
                        second(now + 2.5)..second(now + 2.8),
                    ];
                }
            }
            peers.push(rogue);
            now = until + 0.3;
        }
    }
    peers
}

/// A reader and the read that it waits for.
struct Waiting {
    reader: Reader,
    position: u64,
    read: Option<(ReadKey, Range<u64>, Time)>,
}

impl Waiting {
    /// Ends the read if it is answered, and begins the next; gives how long it took.
    fn go_on(&mut self, world: &mut World) -> Option<Duration> {
        let mut took = None;
        if let Some((key, bytes, begun)) = self.read.take() {
            if !world
                .shape
                .pieces_of(bytes.clone())
                .all(|piece| world.picker.has(piece))
            {
                self.read = Some((key, bytes, begun));
                return None;
            }
            self.reader.end(key, true);
            took = Some(world.now - begun);
            self.position = if world.random.f64() < 0.02 {
                world.random.u64(0..world.shape.total() - READ)
            } else {
                bytes.end % (world.shape.total() - READ)
            };
        }
        let bytes = self.position..self.position + READ;
        let key = self.reader.begin(world.now, bytes.clone()).unwrap();
        self.read = Some((key, bytes, world.now));
        self.reader.update(world.now, &mut world.picker);
        took
    }
}

#[test]
fn no_read_waits_long_while_one_honest_peer_is_well() {
    for seed in 0..soak(6) {
        let mut random = fastrand::Rng::with_seed(seed);
        let shape = Shape::new(256 * 1024, 2 << 30).unwrap();
        let mut world = World::new(shape, peers(&mut random), Settings::default(), seed);
        world.scan_every = 5_003;
        let mut readers: Vec<Waiting> = (0..READERS)
            .map(|_| Waiting {
                reader: Reader::new(shape, 0..shape.total()),
                position: random.u64(0..shape.total() - READ),
                read: None,
            })
            .collect();
        let (mut waits, end) = (Vec::new(), second(LIFE as f64));
        let mut round = Time::ZERO;
        loop {
            let before = waits.len();
            for reader in &mut readers {
                waits.extend(reader.go_on(&mut world).map(|took| (took, world.now)));
            }
            if world.now - round >= Duration::from_secs(1) {
                round = world.now;
                for reader in &mut readers {
                    reader.reader.update(world.now, &mut world.picker);
                }
            }
            if waits.len() == before {
                if !world.step(end) {
                    break;
                }
            } else {
                world.decide();
            }
        }
        waits.sort();
        let (worst, at) = waits[waits.len() - 1];
        let slow = waits.iter().filter(|(took, _)| *took > Duration::from_secs(1)).count();
        println!(
            "churn, seed {seed}: {} reads, {slow} over 1 s, longest {worst:?} until {at:?}",
            waits.len()
        );
        assert!(
            worst <= Duration::from_secs(4),
            "seed {seed}: {worst:?} until {at:?}{}",
            world.describe()
        );
    }
}
