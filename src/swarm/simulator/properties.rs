//! What holds in any swarm, tried in many that a seed makes up: `SOAK=N` tries N times as many.

use std::time::Duration;

use super::seeder::Profile;
use super::world::World;
use super::{KIB, millis, soak};
use crate::swarm::picker::Settings;
use crate::swarm::shape::{PieceSet, Shape, Time};

/// How long the made-up part of a swarm's life is; what is bad for a time is over then.
const LIFE: Duration = Duration::from_secs(40);
/// A read may wait so much longer than the one honest peer would take for everything that is asked for.
const GRACE: Duration = Duration::from_secs(12);

/// Some times within the swarm's life.
fn times(random: &mut fastrand::Rng, most: usize) -> Vec<std::ops::Range<Time>> {
    let mut times = Vec::new();
    let mut now = 0;
    for _ in 0..random.usize(0..=most) {
        let start = now + random.u64(1..8_000_000);
        let end = start + random.u64(1..8_000_000);
        now = end;
        if end < LIFE.as_micros() as u64 {
            times.push(Time::from_micros(start)..Time::from_micros(end));
        }
    }
    times
}

fn bad_peer(random: &mut fastrand::Rng, pieces: u32) -> Profile {
    let mut profile = Profile::seeder(10f64.powf(4.0 + 3.0 * random.f64()));
    profile.latency = millis(random.u64(0..150));
    profile.jitter = millis(random.u64(0..50));
    profile.send_buffer = random.u32(1..1 << 20);
    profile.fast = random.bool();
    profile.reqq = random.u32(1..300);
    if random.bool() {
        let mut have = PieceSet::new(pieces);
        let share = random.f64();
        (0..pieces)
            .filter(|_| random.f64() < share)
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|piece| _ = have.set(piece));
        profile.have = Some(have);
    }
    match random.u8(0..8) {
        0 => profile.lies = 1.0,
        1 => profile.lies = 0.1 * random.f64(),
        2 => profile.refuses = random.f64(),
        3 => profile.stalls = times(random, 3),
        4 => profile = profile.silent_from(Time::from_micros(random.u64(0..20_000_000))),
        5 => profile.chokes = times(random, 3),
        6 => profile.away = times(random, 3),
        _ => profile.reorders = true,
    }
    profile
}

/// A swarm that `seed` makes up: bad peers, and one that is slow but has everything and is always there.
fn swarm(seed: u64) -> (World, f64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let piece_length = [16_384, 30_000, 65_536, 262_144, 1 << 20][random.usize(0..5)];
    let total = random.u64(1..24 << 20);
    let shape = Shape::new(piece_length, total).unwrap();
    let pieces = shape.piece_count();
    let mut profiles: Vec<Profile> = (0..random.usize(0..10))
        .map(|_| bad_peer(&mut random, pieces))
        .collect();
    let rate = (200.0 + 2_000.0 * random.f64()) * KIB;
    profiles.push(Profile::seeder(rate).latency(millis(random.u64(0..100))));
    let settings = Settings {
        partial_bytes: random.u64(1..8 << 20),
        ..Settings::default()
    };
    let mut world = World::new(shape, profiles, settings, seed);
    world.scan_every = 61;
    if random.bool() {
        world.downlink = Some(rate * (1.0 + 4.0 * random.f64()));
    }
    (world, rate)
}

/// Readers come, wait, seek and go for a while; gives the reads that nobody gave up.
fn live(world: &mut World) -> Vec<u64> {
    let total = world.shape.total();
    let mut reads = Vec::new();
    while world.now < Time::ZERO + LIFE {
        match world.random.u8(0..10) {
            0..6 => {
                let start = world.random.u64(0..total);
                let length = world.random.u64(1..512 * 1024);
                reads.push(world.read(start..(start + length).min(total)));
            }
            6 | 7 if !reads.is_empty() => {
                let place = world.random.usize(0..reads.len());
                let read = reads.swap_remove(place);
                world.give_up(read);
            }
            _ => {
                let whole = world.random.bool();
                world.picker.set_whole(whole);
                world.decide();
            }
        }
        let pause = world.random.u64(1..3_000);
        world.run_for(millis(pause));
    }
    world.picker.set_whole(false);
    reads
}

#[test]
fn every_read_is_answered_and_every_piece_fetched_if_one_peer_can() {
    let mut longest: f64 = 0.0;
    for seed in 0..soak(300) {
        let (mut world, rate) = swarm(seed);
        let needed = Duration::from_secs_f64(world.shape.total() as f64 / rate);
        let reads = live(&mut world);
        for read in reads {
            if world.is_waiting(read) {
                let took = world.wait(read, 2 * needed + GRACE);
                assert!(
                    took.is_some(),
                    "seed {seed}: a read was not answered: {}",
                    world.describe()
                );
            }
            let took = world.answered[&read];
            longest = longest.max((took.as_secs_f64() - 2.0 * needed.as_secs_f64()) / GRACE.as_secs_f64());
            assert!(
                took <= 2 * needed + GRACE,
                "seed {seed}: a read took {took:?}, {needed:?} needed {}",
                world.describe()
            );
        }
        world.picker.set_whole(true);
        world.decide();
        world.run_for(3 * needed + 2 * GRACE);
        let pieces = world.shape.piece_count();
        let here = (0..pieces).filter(|piece| world.picker.has(*piece)).count();
        assert_eq!(here, pieces as usize, "seed {seed}: {}", world.describe());
        world.picker.assert_consistent(world.now);
        world.run_for(Duration::from_secs(30));
        assert_eq!(
            world.picker.next_wakeup(),
            None,
            "seed {seed}: a picker that wants nothing does not sleep"
        );
        let counters = world.picker.counters();
        let kept = world.wanted_bytes;
        let bound = kept + kept / 3 + 4 * 1024 * 1024;
        assert!(
            counters.received <= bound,
            "seed {seed}: {} received for {kept}: {counters:?}",
            counters.received
        );
    }
    println!("the longest wait was {longest:.2} of what is allowed");
}

#[test]
fn the_same_seed_gives_the_same_actions() {
    for seed in 0..soak(20) {
        let traces = [0, 1].map(|_| {
            let (mut world, _) = swarm(seed);
            live(&mut world);
            world.trace
        });
        assert_eq!(traces[0], traces[1], "seed {seed}");
    }
}

#[test]
fn liars_are_found_and_honest_peers_are_never_blamed() {
    for seed in 0..soak(200) {
        let mut random = fastrand::Rng::with_seed(seed);
        let shape = Shape::new(1 << 18, 8 << 20).unwrap();
        let mut seeders: Vec<Profile> = (0..random.usize(3..8))
            .map(|_| Profile::seeder(random.f64() * 2e6 + 5e4))
            .collect();
        let liars = random.usize(1..seeders.len());
        for liar in &mut seeders[..liars] {
            liar.lies = if random.bool() { 1.0 } else { 0.02 + random.f64() * 0.3 };
        }
        let rate = seeders[liars..]
            .iter()
            .map(|seeder| seeder.rate)
            .fold(f64::INFINITY, f64::min);
        let mut world = World::new(shape, seeders, Settings::default(), seed);
        world.scan_every = 61;
        world.picker.set_whole(true);
        world.decide();
        // At worst each liar costs the slowest honest peer a few pieces.
        world.run_for(Duration::from_secs_f64(3.0 * 8e6 / rate + 40.0));
        let missing = shape.piece_count()
            - (0..shape.piece_count())
                .filter(|piece| world.picker.has(*piece))
                .count() as u32;
        assert_eq!(missing, 0, "seed {seed}: {}", world.describe());
        for liar in 0..liars {
            let key = world.seeders[liar].key;
            let sent = key
                .and_then(|key| world.picker.peer_stats(key))
                .map_or(0, |stats| stats.received);
            let always = world.seeders[liar].profile.lies == 1.0;
            assert!(
                world.banned.contains(&liar) || !always || sent == 0,
                "seed {seed}: liar {liar} sent {sent}"
            );
        }
    }
}

#[test]
fn what_waits_leaves_the_rest_of_the_line_to_the_whole_download() {
    for seed in 0..soak(10) {
        let shape = Shape::new(1 << 18, 64 << 20).unwrap();
        let mut world = World::new(shape, vec![Profile::seeder(512.0 * KIB); 8], Settings::default(), seed);
        world.picker.set_whole(true);
        // A reader takes a quarter of the line, and always waits for something.
        while world.verified_bytes < 32 << 20 {
            let before = world.now;
            let piece = world.random.u64(0..shape.total() >> 18) << 18;
            let read = world.read(piece..piece + 1);
            world
                .wait(read, Duration::from_secs(5))
                .expect("a read was never answered");
            world.run_until(before + millis(250));
            assert!(
                world.now < Time::from_micros(9_000_000),
                "the whole download starves: {}",
                world.verified_bytes
            );
        }
    }
}
