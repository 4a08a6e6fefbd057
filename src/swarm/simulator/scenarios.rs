//! The swarms of the engine's promise, in simulated time: `SOAK=N` runs each with N seeds instead of one.

use std::time::Duration;

use super::seeder::Profile;
use super::world::World;
use super::{KIB, MIB, millis, soak};
use crate::swarm::picker::Settings;
use crate::swarm::shape::{Shape, Time};

/// What a run of seeks took.
#[derive(Debug)]
struct Seeks {
    median: Duration,
    max: Duration,
    /// Bytes received for each byte of a verified piece.
    waste: f64,
}

/// A swarm to seek in.
struct Case {
    name: &'static str,
    seeders: Vec<Profile>,
    piece: u32,
    /// Whether the whole torrent is being downloaded meanwhile.
    whole: bool,
    seeks: usize,
}

const TOTAL: u64 = 4 << 30;

/// Reads 64 KiB of a random missing piece, again and again, with pauses in between.
fn seek(case: &Case, seed: u64) -> Seeks {
    let shape = Shape::new(case.piece, TOTAL).unwrap();
    let mut world = World::new(shape, case.seeders.clone(), Settings::default(), seed);
    world.scan_every = 997;
    world.picker.set_whole(case.whole);
    if !case.whole {
        // The peers are known from an earlier read.
        let read = world.read(0..1);
        world
            .wait(read, Duration::from_secs(60))
            .expect("the first read was never answered");
    }
    world.run_for(Duration::from_secs(4));
    let (received, wanted) = (world.picker.counters().received, world.wanted_bytes);
    let mut times = Vec::new();
    for _ in 0..case.seeks {
        let piece = missing(&mut world, 1);
        let begin = u64::from(piece) * u64::from(case.piece);
        let read = world.read(begin..begin + 64 * 1024);
        times.push(
            world
                .wait(read, Duration::from_secs(60))
                .expect("a read was never answered"),
        );
        let pause = world.random.u64(200..1_200);
        world.run_for(millis(pause));
    }
    times.sort();
    let counters = world.picker.counters();
    let waste = (counters.received - received) as f64 / (world.wanted_bytes - wanted) as f64;
    Seeks {
        median: times[times.len() / 2],
        max: times[times.len() - 1],
        waste,
    }
}

/// The first of some pieces in a row that are not here, at a random place.
pub(super) fn missing(world: &mut World, pieces: u32) -> u32 {
    loop {
        let first = world.random.u32(0..=world.shape.piece_count() - pieces);
        if (first..first + pieces).all(|piece| !world.picker.has(piece)) {
            return first;
        }
    }
}

/// Runs a case and holds it to a median and a maximum.
fn hold(case: &Case, limit: Duration, median: Duration, max: Duration) {
    for seed in 0..soak(1) {
        let seeks = seek(case, seed);
        println!(
            "{:<44} {} limit {:>6.0} ms   median {:>6.0} (≤ {:>6.0})   max {:>6.0} (≤ {:>6.0})   waste {:.3}",
            case.name,
            if case.whole { "whole " } else { "demand" },
            ms(limit),
            ms(seeks.median),
            ms(median),
            ms(seeks.max),
            ms(max),
            seeks.waste
        );
        assert!(
            seeks.median <= median,
            "{} with seed {seed}: median {:?}",
            case.name,
            seeks.median
        );
        assert!(seeks.max <= max, "{} with seed {seed}: max {:?}", case.name, seeks.max);
        assert!(
            seeks.waste <= 1.3,
            "{} with seed {seed}: waste {}",
            case.name,
            seeks.waste
        );
    }
}

pub(super) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// With next to no round trip, and with 50 ms each way; with a full download running and without; with and without BEP
/// 6; and with blocks that come as unevenly as they do in practice.
fn in_all_ways(
    name: &'static str,
    seeders: &[Profile],
    piece: u32,
    line: f64,
    bounds: impl Fn(Duration) -> (Duration, Duration),
) {
    let ways = [(true, 0.0), (false, 0.0), (true, 0.5)];
    let ways = ways.into_iter().flat_map(|way| [(0, way), (50, way)]);
    for (whole, (latency, (fast, uneven))) in ways.flat_map(|way| [(true, way), (false, way)]) {
        let round_trip = millis(2 * latency);
        let latency = millis(latency) + Duration::from_micros(50);
        let jitter = millis(20).mul_f64(uneven);
        let vary = |(index, profile): (u64, &Profile)| Profile {
            // No two peers are in step, and none is exactly as fast as another.
            away: vec![Time::ZERO..Time::from_micros(index * 37_031 % 1_000_000)],
            rate: profile.rate * (0.905 + 0.01 * (index * 7 % 20) as f64),
            latency,
            jitter,
            fast,
            uneven,
            ..profile.clone()
        };
        let seeders: Vec<Profile> = (0..).zip(seeders).map(vary).collect();
        // Uneven blocks cost what two of them may take longer, at worst three.
        let block_s = 16.0 * KIB * seeders.len() as f64 / line;
        let extra = |blocks: f64| round_trip + jitter + Duration::from_secs_f64(blocks * uneven * block_s);
        let line = line.min(seeders.iter().map(|profile| profile.rate).sum());
        let limit = Duration::from_secs_f64(f64::from(piece) / line);
        let (median, max) = bounds(limit);
        let case = Case {
            name,
            seeders,
            piece,
            whole,
            seeks: 20,
        };
        hold(&case, limit + round_trip, median + extra(2.0), max + extra(3.0));
    }
}

#[test]
fn seeks_run_at_the_speed_of_twenty_slow_seeders() {
    let seeders = vec![Profile::seeder(256.0 * KIB); 20];
    in_all_ways("20 × 256 KiB/s, 4 MiB", &seeders, 4 << 20, 5.0 * MIB, |_| {
        (millis(1100), millis(1700))
    });
}

#[test]
fn seeks_on_one_fast_seeder_cost_little_more_than_the_piece() {
    for (name, piece) in [
        ("1 × 10 MiB/s, 1 MiB", 1),
        ("1 × 10 MiB/s, 4 MiB", 4),
        ("1 × 10 MiB/s, 16 MiB", 16),
    ] {
        let seeders = [Profile::seeder(10.0 * MIB)];
        let bounds = |limit: Duration| (limit.mul_f64(1.3) + millis(50), limit.mul_f64(1.7) + millis(50));
        in_all_ways(name, &seeders, piece << 20, 10.0 * MIB, bounds);
    }
}

#[test]
fn seeks_on_three_seeders_cost_little_more_than_the_piece() {
    let seeders = vec![Profile::seeder(2.0 * MIB); 3];
    let bounds = |limit: Duration| (limit.mul_f64(1.3) + millis(50), limit.mul_f64(1.7) + millis(50));
    in_all_ways("3 × 2 MiB/s, 1 MiB", &seeders, 1 << 20, 6.0 * MIB, bounds);
    in_all_ways("3 × 2 MiB/s, 4 MiB", &seeders, 4 << 20, 6.0 * MIB, bounds);
}

#[test]
fn a_slow_peer_costs_nothing() {
    let mut seeders = vec![Profile::seeder(5.0 * MIB); 2];
    seeders.push(Profile::seeder(20_000.0));
    let bounds = |limit: Duration| (limit.mul_f64(1.3) + millis(50), limit.mul_f64(1.7));
    in_all_ways("2 × 5 MiB/s + 20 KB/s, 1 MiB", &seeders, 1 << 20, 10.0 * MIB, bounds);
    in_all_ways("2 × 5 MiB/s + 20 KB/s, 4 MiB", &seeders, 4 << 20, 10.0 * MIB, bounds);
}

#[test]
fn sixty_very_slow_seeders_add_up() {
    let seeders = vec![Profile::seeder(64.0 * KIB); 60];
    // A block takes such a peer 250 ms, and one is under way when the reader seeks.
    let bounds = |limit: Duration| (limit.mul_f64(1.3) + millis(300), limit.mul_f64(1.7) + millis(300));
    in_all_ways("60 × 64 KiB/s, 1 MiB", &seeders, 1 << 20, 3.75 * MIB, bounds);
    in_all_ways("60 × 64 KiB/s, 4 MiB", &seeders, 4 << 20, 3.75 * MIB, bounds);
}

#[test]
fn peers_that_choke_do_not_hold_up_a_seek() {
    let second = |at: u64| Time::from_micros(at * 1_000_000);
    let choking = |index: u64| {
        let mut profile = Profile::seeder(256.0 * KIB);
        // Every other peer chokes us most of the time, each at another moment.
        if index.is_multiple_of(2) {
            profile.chokes = (0..12)
                .map(|round| second(round * 10 + index / 4)..second(round * 10 + index / 4 + 8))
                .collect();
        }
        profile
    };
    let seeders: Vec<Profile> = (0..20).map(choking).collect();
    let bounds = |limit: Duration| (limit.mul_f64(1.3) + millis(50), limit.mul_f64(1.7) + millis(50));
    in_all_ways(
        "20 × 256 KiB/s, half choking, 4 MiB",
        &seeders,
        4 << 20,
        2.5 * MIB,
        bounds,
    );
}

#[test]
fn the_first_read_does_not_wait_for_the_peers_to_be_known() {
    let mut mixed = vec![Profile::seeder(5.0 * MIB); 2];
    mixed.push(Profile::seeder(20_000.0));
    let swarms = [
        (
            "20 × 256 KiB/s, 4 MiB",
            vec![Profile::seeder(256.0 * KIB); 20],
            4 << 20,
            800,
            1_200,
        ),
        (
            "1 × 10 MiB/s, 1 MiB",
            vec![Profile::seeder(10.0 * MIB)],
            1 << 20,
            100,
            180,
        ),
        (
            "1 × 10 MiB/s, 4 MiB",
            vec![Profile::seeder(10.0 * MIB)],
            4 << 20,
            400,
            570,
        ),
        ("2 × 5 MiB/s + 20 KB/s, 1 MiB", mixed, 1 << 20, 100, 220),
        (
            "60 × 64 KiB/s, 1 MiB",
            vec![Profile::seeder(64.0 * KIB); 60],
            1 << 20,
            267,
            650,
        ),
    ];
    for (name, seeders, piece, limit, most) in swarms {
        for latency in [0, 50] {
            let seeders = seeders.iter().cloned().map(|profile| profile.latency(millis(latency)));
            let shape = Shape::new(piece, TOTAL).unwrap();
            let mut world = World::new(shape, seeders.collect(), Settings::default(), 1);
            let read = world.read(0..1);
            let took = world
                .wait(read, Duration::from_secs(60))
                .expect("the first read was never answered");
            // An unchoke and a round trip, and with a long one the time in which a queue grows to fill it.
            let most = millis(most + 6 * latency);
            println!(
                "first read, {name}, {latency} ms each way: {:.0} ms (line {limit}, ≤ {:.0})",
                ms(took),
                ms(most)
            );
            assert!(took <= most, "{name}: {took:?}");
        }
    }
}

/// Seeders as libtorrent is one under a rate limit: it acts every half second only, and says at the first of these
/// moments that it serves us.
pub(super) fn limited(rate: f64, count: u64, latency: Duration, seed: u64) -> Vec<Profile> {
    let mut random = fastrand::Rng::with_seed(seed);
    let tick = millis(500);
    let seeder = |_| {
        let begins = Time::ZERO + millis(random.u64(1..500));
        Profile {
            ticks: Some(tick),
            // What it reads ahead of its moments.
            send_buffer: (rate / 2.0) as u32,
            away: vec![Time::ZERO..begins],
            chokes: vec![Time::ZERO..begins + tick],
            ..Profile::seeder(rate).latency(latency)
        }
    };
    (0..count).map(seeder).collect()
}

#[test]
fn the_first_read_of_limited_seeders_takes_few_of_their_moments() {
    for (name, rate, latency, most) in [
        ("4 × 250 kB/s", 250e3, 0, 2_400),
        ("4 × 500 kB/s", 500e3, 50, 1_900),
        ("1 × 1 MB/s + 3 × 20 kB/s", 1e6, 25, 3_000),
    ] {
        let mut times = Vec::new();
        let mut waste = 0.0;
        for seed in 0..soak(40) {
            let mut seeders = limited(rate, 4, millis(latency), seed);
            if name.contains("20 kB/s") {
                for slow in &mut seeders[1..] {
                    slow.rate = 20e3;
                    slow.send_buffer = 10_000;
                }
            }
            let mut world = World::new(Shape::new(1 << 20, TOTAL).unwrap(), seeders, Settings::default(), seed);
            let read = world.read(0..1);
            let took = world
                .wait(read, Duration::from_secs(60))
                .expect("the first read was never answered");
            times.push(took);
            world.run_for(Duration::from_secs(2));
            waste += world.picker.counters().received as f64 / world.wanted_bytes as f64;
        }
        waste /= times.len() as f64;
        times.sort();
        let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
        println!(
            "first read, {name}, in moments: median {:.0} ms (≤ {most}), max {:.0} ms, waste {waste:.2}",
            ms(median),
            ms(longest)
        );
        assert!(median <= millis(most), "{name}: {median:?}");
    }
}

#[test]
fn seeks_on_limited_seeders_take_the_moments_that_the_line_needs() {
    for (name, rate, latency, pieces, most) in [
        ("4 × 250 kB/s, 1 MiB", 250e3, 0, 1, 1_650),
        ("4 × 250 kB/s, 2 × 1 MiB", 250e3, 0, 2, 2_850),
        ("4 × 500 kB/s, 1 MiB", 500e3, 50, 1, 1_100),
        ("4 × 500 kB/s, 2 × 1 MiB", 500e3, 50, 2, 1_600),
    ] {
        let (mut times, mut waste) = (Vec::new(), 0.0);
        let seeds = soak(10);
        for seed in 0..seeds {
            let seeders = limited(rate, 4, millis(latency), seed);
            let shape = Shape::new(1 << 20, TOTAL).unwrap();
            let mut world = World::new(shape, seeders, Settings::default(), seed);
            world.picker.set_whole(true);
            world.run_for(Duration::from_secs(6));
            let (received, wanted) = (world.picker.counters().received, world.wanted_bytes);
            for _ in 0..6 {
                let piece = missing(&mut world, pieces);
                let boundary = u64::from(piece + pieces - 1) << 20;
                let read = world.read(boundary - if pieces > 1 { 32 * 1024 } else { 0 }..boundary + 32 * 1024);
                times.push(
                    world
                        .wait(read, Duration::from_secs(60))
                        .expect("a read was never answered"),
                );
                let pause = world.random.u64(200..1_200);
                world.run_for(millis(pause));
            }
            let counters = world.picker.counters();
            waste += (counters.received - received) as f64 / (world.wanted_bytes - wanted) as f64 / seeds as f64;
        }
        times.sort();
        let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
        println!(
            "seek, {name}, in moments: median {:.0} ms (≤ {most}), max {:.0} ms, waste {waste:.3}",
            ms(median),
            ms(longest)
        );
        assert!(median <= millis(most), "{name}: {median:?}");
        assert!(waste <= 1.05, "{name}: waste {waste}");
    }
}

#[test]
fn a_peer_that_sends_garbage_is_found_at_once() {
    for seed in 0..soak(20) {
        let mut seeders = vec![Profile::seeder(2.0 * MIB); 3];
        let liar = seed as usize % 3;
        seeders[liar].lies = 1.0;
        let shape = Shape::new(1 << 20, 256 << 20).unwrap();
        let mut world = World::new(shape, seeders, Settings::default(), seed);
        world.scan_every = 101;
        let mut slowest = Duration::ZERO;
        for at in 0..10u64 {
            let read = world.read((at * 20) << 20..((at * 20) << 20) + 1);
            let took = world
                .wait(read, Duration::from_secs(60))
                .expect("a read was never answered");
            if at > 0 {
                slowest = slowest.max(took);
            } else {
                println!("1 of 3 sends garbage: first read {:.0} ms", ms(took));
                // All of the piece, then a third, and if an honest peer was doubted first, two thirds.
                assert!(took <= millis(520), "the first read took {took:?} with seed {seed}");
            }
        }
        assert_eq!(world.banned, [liar], "seed {seed}");
        assert!(
            slowest <= millis(425 + 50),
            "a read with the liar gone took {slowest:?} with seed {seed}"
        );
    }
}

#[test]
fn one_liar_among_many_slow_peers_costs_half_a_piece() {
    for seed in 0..soak(20) {
        let mut seeders = vec![Profile::seeder(256.0 * KIB); 20];
        seeders[seed as usize % 20].lies = 1.0;
        let shape = Shape::new(4 << 20, TOTAL).unwrap();
        let mut world = World::new(shape, seeders, Settings::default(), seed);
        let read = world.read(0..1);
        let took = world
            .wait(read, Duration::from_secs(60))
            .expect("the first read was never answered");
        println!("1 of 20 sends garbage: first read {:.0} ms (line 800)", ms(took));
        assert!(took <= millis(2_000), "the first read took {took:?} with seed {seed}");
        assert_eq!(world.banned, [seed as usize % 20], "seed {seed}");
    }
}

#[test]
fn a_peer_that_falls_silent_holds_up_nothing() {
    for seed in 0..soak(5) {
        let mut seeders = vec![Profile::seeder(2.0 * MIB); 4];
        seeders[2] = seeders[2].clone().silent_from(Time::from_micros(4_100_000));
        let case = Case {
            name: "4 × 2 MiB/s, one falls silent",
            seeders,
            piece: 1 << 20,
            whole: true,
            seeks: 20,
        };
        let seeks = seek(&case, seed);
        println!(
            "{}: median {:.0} ms, max {:.0} ms",
            case.name,
            ms(seeks.median),
            ms(seeks.max)
        );
        assert!(
            seeks.median <= millis(280),
            "median {:?} with seed {seed}",
            seeks.median
        );
        assert!(seeks.max <= millis(500), "max {:?} with seed {seed}", seeks.max);
    }
}

#[test]
fn a_limited_seeder_that_falls_silent_holds_up_little() {
    for seed in 0..soak(10) {
        let silent = Time::from_micros(8_000_000);
        let mut seeders = limited(250e3, 4, Duration::ZERO, seed);
        seeders[0] = seeders[0].clone().silent_from(silent);
        let shape = Shape::new(1 << 20, TOTAL).unwrap();
        let mut world = World::new(shape, seeders, Settings::default(), seed);
        world.picker.set_whole(true);
        world.run_until(silent);
        let piece = (0..shape.piece_count())
            .find(|piece| !world.picker.is_unfinished(*piece) && !world.picker.has(*piece))
            .unwrap();
        let begin = u64::from(piece) << 20;
        let read = world.read(begin..begin + 64 * 1024);
        let took = world
            .wait(read, Duration::from_secs(60))
            .expect("the read was never answered");
        println!("one of four in moments falls silent: a read takes {:.0} ms", ms(took));
        // Three moments of the others and one until it is seen.
        assert!(took <= millis(2_200), "seed {seed}: {took:?}");
    }
}

#[test]
fn a_whole_download_takes_the_whole_line() {
    let swarms: [(&str, Vec<Profile>, f64); 4] = [
        ("20 × 256 KiB/s", vec![Profile::seeder(256.0 * KIB); 20], 5.0 * MIB),
        ("60 × 64 KiB/s", vec![Profile::seeder(64.0 * KIB); 60], 3.75 * MIB),
        (
            "1 × 10 MiB/s, 100 ms",
            vec![Profile::seeder(10.0 * MIB).latency(millis(50)); 1],
            10.0 * MIB,
        ),
        (
            "20 × 256 KiB/s, 100 ms",
            vec![Profile::seeder(256.0 * KIB).latency(millis(50)); 20],
            5.0 * MIB,
        ),
    ];
    for (name, seeders, line) in swarms {
        let shape = Shape::new(4 << 20, TOTAL).unwrap();
        let mut world = World::new(shape, seeders, Settings::default(), 1);
        world.picker.set_whole(true);
        world.run_for(Duration::from_secs(5));
        let before = world.picker.counters().received;
        world.run_for(Duration::from_secs(30));
        let share = (world.picker.counters().received - before) as f64 / 30.0 / line;
        println!("whole download, {name}: {share:.3} of the line");
        assert!(share >= 0.97, "{name}: {share}");
    }
}
