//! Readers that read in sequence, in simulated time.

use std::ops::Range;
use std::time::Duration;

use super::scenarios::{limited, missing, ms};
use super::seeder::Profile;
use super::world::World;
use super::{KIB, MIB, millis, soak};
use crate::swarm::picker::Settings;
use crate::swarm::reader::Reader;
use crate::swarm::shape::{Shape, Time};

const READ: u64 = 128 * 1024;

/// Reads some bytes, and gives up at `end`: gives whether they came.
fn read(world: &mut World, reader: &mut Reader, bytes: Range<u64>, end: Time) -> bool {
    let key = reader.begin(world.now, bytes.clone()).unwrap();
    reader.update(world.now, &mut world.picker);
    world.decide();
    let pieces = world.shape.pieces_of(bytes);
    let is_here = |world: &World| pieces.clone().all(|piece| world.picker.has(piece));
    while !is_here(world) && world.step(end) {}
    let came = is_here(world);
    if !came {
        world.run_until(end);
    }
    reader.end(key, came);
    reader.update(world.now, &mut world.picker);
    came
}

/// Reads in sequence from `start` until `end`, as fast as it can or at `pace` bytes a second: gives the bytes read and
/// the longest wait for a read.
fn stream(world: &mut World, reader: &mut Reader, start: u64, end: Time, pace: Option<f64>) -> (u64, Duration) {
    let (mut position, mut longest) = (start, Duration::ZERO);
    while world.now < end && position < world.shape.total() {
        let begun = world.now;
        if !read(world, reader, position..position + READ, end) {
            break;
        }
        position += READ;
        longest = longest.max(world.now - begun);
        if let Some(pace) = pace {
            let next = begun + Duration::from_secs_f64(READ as f64 / pace);
            world.run_until(next.max(world.now));
        }
    }
    (position - start, longest)
}

#[test]
fn a_sequential_reader_gets_the_whole_line_and_little_is_wasted() {
    let mut mixed = vec![Profile::seeder(5.0 * MIB); 2];
    mixed.push(Profile::seeder(20_000.0));
    let mut garbage = vec![Profile::seeder(2.0 * MIB); 3];
    garbage[1].lies = 1.0;
    let swarms: [(&str, Vec<Profile>, u32, f64); 8] = [
        (
            "20 × 256 KiB/s, 4 MiB",
            vec![Profile::seeder(256.0 * KIB); 20],
            4 << 20,
            5.0 * MIB,
        ),
        (
            "1 × 10 MiB/s, 1 MiB",
            vec![Profile::seeder(10.0 * MIB)],
            1 << 20,
            10.0 * MIB,
        ),
        (
            "1 × 10 MiB/s, 16 MiB",
            vec![Profile::seeder(10.0 * MIB)],
            16 << 20,
            10.0 * MIB,
        ),
        (
            "3 × 2 MiB/s, 1 MiB",
            vec![Profile::seeder(2.0 * MIB); 3],
            1 << 20,
            6.0 * MIB,
        ),
        ("2 × 5 MiB/s + 20 KB/s, 1 MiB", mixed, 1 << 20, 10.0 * MIB),
        (
            "60 × 64 KiB/s, 1 MiB",
            vec![Profile::seeder(64.0 * KIB); 60],
            1 << 20,
            3.75 * MIB,
        ),
        (
            "1 × 100 MiB/s, 1 MiB",
            vec![Profile {
                reqq: 2_000,
                ..Profile::seeder(100.0 * MIB)
            }],
            1 << 20,
            100.0 * MIB,
        ),
        ("3 × 2 MiB/s, one sends garbage, 1 MiB", garbage, 1 << 20, 4.0 * MIB),
    ];
    for (name, seeders, piece, line) in swarms {
        for (seed, latency) in (0..soak(1)).flat_map(|seed| [(seed, 0), (seed, 50)]) {
            let seeders = seeders.iter().cloned().map(|profile| profile.latency(millis(latency)));
            let shape = Shape::new(piece, 8 << 30).unwrap();
            let mut world = World::new(shape, seeders.collect(), Settings::default(), seed);
            let mut reader = Reader::new(shape, 0..shape.total());
            let warm = Time::from_micros(5_000_000);
            let (begun, _) = stream(&mut world, &mut reader, 0, warm, None);
            let received = world.picker.counters().received;
            let kept = world.wanted_bytes;
            let seconds = 15;
            let (read, _) = stream(
                &mut world,
                &mut reader,
                begun,
                warm + Duration::from_secs(seconds),
                None,
            );
            let counters = world.picker.counters();
            // What was read ends at a piece, what was fetched does not.
            let useful = (world.wanted_bytes - kept) as f64;
            let waste = (counters.received - received) as f64 / useful;
            let share = useful.min(read as f64 + f64::from(piece)) / seconds as f64 / line;
            println!("in sequence, {name}, {latency} ms each way: {share:.3} of the line, waste {waste:.3}");
            assert!(share >= 0.97, "{name}: {share} of the line");
            assert!(waste <= 1.05, "{name}: waste {waste}");
        }
    }
}

#[test]
fn a_film_plays_without_a_stall_while_peers_come_and_go() {
    for seed in 0..soak(5) {
        // 1 MiB/s together twice the film's rate, half of them gone at any time.
        let second = |at: u64| Time::from_micros(at * 1_000_000);
        let seeders = (0..12u64).map(|index| {
            let mut profile = Profile::seeder(256.0 * KIB).latency(millis(20));
            let begins = |round: u64| 5 + index + round * 20;
            let gaps = (0..6).map(|round| second(begins(round))..second(begins(round) + 8));
            match index % 3 {
                0 => profile.away = gaps.collect(),
                1 => profile.stalls = gaps.collect(),
                _ => profile.chokes = gaps.collect(),
            }
            profile
        });
        let shape = Shape::new(1 << 20, 1 << 30).unwrap();
        let mut world = World::new(shape, seeders.collect(), Settings::default(), seed);
        world.scan_every = 501;
        let mut reader = Reader::new(shape, 0..shape.total());
        let rate = 640.0 * KIB;
        let (begun, first) = stream(&mut world, &mut reader, 0, second(20), Some(rate));
        let (_, stall) = stream(&mut world, &mut reader, begun, second(120), Some(rate));
        println!("film at 640 KiB/s: longest wait {first:?} at first, then {stall:?}");
        assert!(first <= millis(1_500), "seed {seed}: {first:?}");
        assert!(stall <= millis(200), "seed {seed}: {stall:?}");
    }
}

#[test]
fn many_readers_that_seek_are_all_served() {
    for seed in 0..soak(3) {
        let shape = Shape::new(1 << 20, 4 << 30).unwrap();
        let mut world = World::new(shape, vec![Profile::seeder(1.0 * MIB); 10], Settings::default(), seed);
        world.run_for(Duration::from_secs(1));
        let mut longest = Duration::ZERO;
        for _ in 0..40 {
            let reads: Vec<u64> = (0..8)
                .map(|_| {
                    let start = world.random.u64(0..shape.total() - READ);
                    world.read(start..start + READ)
                })
                .collect();
            for read in reads {
                let took = world
                    .wait(read, Duration::from_secs(30))
                    .expect("a read was never answered");
                longest = longest.max(took);
            }
        }
        println!("8 readers seeking on 10 MiB/s, 1 MiB pieces: longest wait {longest:?}");
        // Eight pieces, sometimes one or two more where a read lies across two: 1 s at the line's rate.
        assert!(longest <= millis(1_400), "seed {seed}: {longest:?}");
    }
}

/// A player that reads `pieces` from a random place on, is killed as it reads on, and is started again: gives how long
/// each waited for its first read.
fn seeks_of_a_player(seeders: &[Profile], pieces: u32, seed: u64) -> Vec<Duration> {
    let shape = Shape::new(1 << 20, 4 << 30).unwrap();
    let mut world = World::new(shape, seeders.to_vec(), Settings::default(), seed);
    let mut reader = Reader::new(shape, 0..shape.total());
    stream(&mut world, &mut reader, 0, Time::from_micros(10_000_000), None);
    reader.close(&mut world.picker);
    let seek = |_| {
        let piece = missing(&mut world, pieces + 1);
        let start = (u64::from(piece) << 20) + READ * world.random.u64(0..8);
        let end = u64::from(piece + pieces) << 20;
        let mut reader = Reader::new(shape, 0..shape.total());
        let begun = world.now;
        let never = begun + Duration::from_secs(60);
        assert!(read(&mut world, &mut reader, start..start + READ, never));
        let took = world.now - begun;
        for position in (start + READ..end).step_by(READ as usize) {
            assert!(read(&mut world, &mut reader, position..position + READ, never));
        }
        let killed = world.now + millis(40);
        read(&mut world, &mut reader, end..end + READ, killed);
        reader.close(&mut world.picker);
        took
    };
    (0..8).map(seek).collect()
}

/// The seeders of a swarm with some seed.
type Seeders = dyn Fn(u64) -> Vec<Profile>;

#[test]
fn a_player_that_is_killed_as_it_reads_on_leaves_the_line_to_a_seek() {
    let moments = |rate, latency| move |seed| limited(rate, 4, millis(latency), seed);
    let far = |_| vec![Profile::seeder(100.0 * MIB).latency(millis(250))];
    // What a seeder that sends at its moments was asked for is on its way when the reader seeks: with all of a piece asked
    // for at once, each seek would lose a moment. A seeder that is as far away as moments are apart has none.
    let swarms: [(&str, &Seeders, u32, u64); 3] = [
        ("4 × 250 kB/s in moments", &moments(250e3, 0), 1, 1_600),
        ("4 × 500 kB/s in moments", &moments(500e3, 50), 1, 1_150),
        ("1 × 100 MiB/s, 250 ms each way", &far, 4, 650),
    ];
    for (name, seeders, pieces, most) in swarms {
        let seeks = (0..soak(10)).flat_map(|seed| seeks_of_a_player(&seeders(seed), pieces, seed));
        let mut times: Vec<Duration> = seeks.collect();
        times.sort();
        let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
        println!(
            "seek of a player, {name}: median {:.0} ms (≤ {most}), max {:.0} ms",
            ms(median),
            ms(longest)
        );
        assert!(median <= millis(most), "{name}: {median:?}");
    }
}
