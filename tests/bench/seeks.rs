//! Seeks on swarms whose line is known: how long a read of a missing piece takes while the rest downloads, beside
//! libtorrent on the same swarm, and the least that the line allows.
//!
//! The swarms live in a network namespace of their own, on loopback: each seeder has an address, and tc a class for it
//! that lets through so many bytes of payload a second. A delay is added by [`delay`], for kernels without netem.
//!
//! `MAGNETFS_BENCH_PROFILE` chooses profiles by a part of their name (`waste` and `unlimited` are such names too),
//! `MAGNETFS_BENCH_ALONE` leaves libtorrent out, `MAGNETFS_BENCH_VERBOSE` prints every figure.

mod delay;
mod namespace;
mod swarm;
mod waste;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use self::swarm::{Kind, Profile, Swarm};
use crate::support::torrents::{Torrent, metainfo_of, write_noise};
use crate::support::{DaemonOptions, Work, run};
use crate::table;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const SEEKS: usize = 20;
/// libtorrent may take ten times as long, so it is given fewer, and no more time than this.
const SEEKS_BESIDE: usize = 6;
const PATIENCE_BESIDE: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(60);
/// What all seeders have.
const SIZE: usize = 384 << 20;

/// 20 seeders of 256 KiB/s: what the figures of other engines are known for.
fn twenty(name: &'static str, kind: Kind, round_trip: Duration) -> Profile {
    Profile {
        name,
        piece: 4 * MIB,
        rates: vec![256 * KIB; 20],
        kind,
        round_trip,
    }
}

fn profiles() -> Vec<Profile> {
    let far = Duration::from_millis(100);
    let one = |name, piece, round_trip| Profile {
        name,
        piece,
        rates: vec![10 * MIB],
        kind: Kind::Honest,
        round_trip,
    };
    let near = |name, rates| Profile {
        name,
        piece: 4 * MIB,
        rates,
        kind: Kind::Honest,
        round_trip: Duration::ZERO,
    };
    vec![
        twenty("20 x 256 KiB/s, 4 MiB", Kind::Honest, Duration::ZERO),
        twenty("20 x 256 KiB/s, 4 MiB, 50 ms each way", Kind::Honest, far),
        one("1 x 10 MiB/s, 1 MiB", MIB, Duration::ZERO),
        one("1 x 10 MiB/s, 4 MiB", 4 * MIB, Duration::ZERO),
        one("1 x 10 MiB/s, 16 MiB", 16 * MIB, Duration::ZERO),
        one("1 x 10 MiB/s, 4 MiB, 50 ms each way", 4 * MIB, far),
        near("3 x 2 MiB/s, 4 MiB", vec![2 * MIB; 3]),
        near("2 x 5 MiB/s + 20 KB/s, 4 MiB", vec![5 * MIB, 5 * MIB, 20_000]),
        near("60 x 64 KiB/s, 4 MiB", vec![64 * KIB; 60]),
        twenty("20 x 256 KiB/s, 4 MiB, half choke", Kind::Choking(10), Duration::ZERO),
        Profile {
            kind: Kind::Garbage,
            ..near("3 x 2 MiB/s, 4 MiB, one sends garbage", vec![2 * MIB; 3])
        },
    ]
}

/// The same file in pieces of 1, 4 and 16 MiB.
pub(super) struct Source {
    torrents: Vec<(u64, Torrent)>,
    work: Work,
}

impl Source {
    fn new(name: &str, size: usize) -> Self {
        let work = Work::new();
        let source = work.directory("source").join(name);
        write_noise(&source, size);
        let torrents = [MIB, 4 * MIB, 16 * MIB].map(|piece| {
            let path = work.path().join(format!("{piece}.torrent"));
            let (bytes, info_hash) = metainfo_of(&source, piece);
            std::fs::write(&path, bytes).expect("a .torrent file");
            let directory = work.path().join("source");
            let name = name.to_owned();
            let torrent = Torrent {
                path,
                directory,
                name,
                info_hash,
            };
            (piece, torrent)
        });
        Self {
            torrents: torrents.into(),
            work,
        }
    }

    fn torrent(&self, piece: u64) -> &Torrent {
        let found = self.torrents.iter().find(|(length, _)| *length == piece);
        found.map(|(_, torrent)| torrent).expect("a torrent of such pieces")
    }
}

pub(crate) fn compare() {
    if !namespace::entered() {
        return;
    }
    let chosen = std::env::var("MAGNETFS_BENCH_PROFILE").unwrap_or_default();
    let source = Source::new("seeks.bin", SIZE);
    let profiles: Vec<Profile> = profiles()
        .into_iter()
        .filter(|profile| profile.name.contains(&chosen))
        .collect();
    let mut rows = Vec::new();
    for profile in &profiles {
        let torrent = source.torrent(profile.piece);
        let swarm = Swarm::new(&source.work, torrent, profile);
        let ours = magnetfs(torrent, profile, &swarm.peers);
        let theirs = libtorrent(torrent, &swarm.peers);
        drop(swarm);
        let row = row(profile, &ours, &theirs);
        rows.push(row);
    }
    if !rows.is_empty() {
        table(
            "A read of a missing piece while all is downloaded, seconds (within: median <= 1.3 x limit + 50 ms, max <= 1.7 x)",
            &[
                "limit",
                "first byte",
                "median",
                "max",
                "within",
                "libt. first",
                "libt. median",
                "libt. max",
            ],
            &rows,
        );
    }
    waste::compare(&source, &chosen);
}

fn row(profile: &Profile, ours: &Value, theirs: &Value) -> (String, Vec<String>) {
    let limit = profile.limit_s();
    let (first, median, max) = figures(ours);
    let beside = figures(theirs);
    let within = |value: Option<f64>, factor: f64| value.is_some_and(|value| value <= factor * limit + 0.05);
    let bound = within(median, 1.3) && within(max, 1.7);
    let shown = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}"));
    let mut values = vec![format!("{limit:.2}"), shown(first), shown(median), shown(max)];
    values.push(if bound { "yes" } else { "no" }.to_owned());
    values.extend([beside.0, beside.1, beside.2].map(shown));
    (profile.name.to_owned(), values)
}

/// The first byte, the median and the longest seek.
fn figures(times: &Value) -> (Option<f64>, Option<f64>, Option<f64>) {
    let seeks = times["seeks"].as_array();
    let mut seeks: Vec<f64> = seeks.into_iter().flatten().filter_map(Value::as_f64).collect();
    seeks.sort_by(f64::total_cmp);
    (
        times["first"].as_f64(),
        seeks.get(seeks.len() / 2).copied(),
        seeks.last().copied(),
    )
}

fn script(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench").join(name)
}

/// A script in Python; Debian's own, which libtorrent's bindings are for.
pub(crate) fn python(name: &str) -> Command {
    let mut command = Command::new("/usr/bin/python3");
    command.arg(script(name));
    command
}

/// A daemon on a swarm, with a data directory of its own.
fn daemon(work: &Work, torrent: &Torrent, peers: &[SocketAddr]) -> DaemonOptions {
    let options = DaemonOptions::new(work).torrent(torrent);
    peers.iter().fold(options, |options, peer| options.peer(*peer))
}

fn magnetfs(torrent: &Torrent, profile: &Profile, peers: &[SocketAddr]) -> Value {
    let work = Work::new();
    let options = daemon(&work, torrent, peers).option("--download", "whole");
    let began = Instant::now();
    let daemon = options.start();
    let mounted = began.elapsed();
    let mut times = seeks(&daemon.path(&torrent.name), profile.piece, PATIENCE);
    // From the start of the program on.
    if let Some(first) = times["first"].as_f64() {
        times["first"] = (first + mounted.as_secs_f64()).into();
    }
    if std::env::var_os("MAGNETFS_BENCH_VERBOSE").is_some() {
        println!("{}: {times}\n{}", profile.name, daemon.json(&["list"]));
    }
    daemon.stop();
    times
}

fn seeks(path: &Path, piece: u64, patience: Duration) -> Value {
    let mut command = python("seeks.py");
    command.arg("magnetfs").arg(path).arg(piece.to_string());
    command.arg(SEEKS.to_string()).arg(patience.as_secs().to_string());
    json(&mut command, patience)
}

fn libtorrent(torrent: &Torrent, peers: &[SocketAddr]) -> Value {
    if std::env::var_os("MAGNETFS_BENCH_ALONE").is_some() {
        return Value::Null;
    }
    let work = Work::new();
    let mut command = python("seeks.py");
    command
        .arg("libtorrent")
        .arg(&torrent.path)
        .arg(work.directory("libtorrent"));
    command
        .arg(SEEKS_BESIDE.to_string())
        .arg(PATIENCE_BESIDE.as_secs().to_string());
    command.args(peers.iter().map(SocketAddr::to_string));
    json(&mut command, PATIENCE_BESIDE)
}

fn json(command: &mut Command, patience: Duration) -> Value {
    let outcome = run(command, 2 * patience + Duration::from_secs(20)).ok();
    serde_json::from_str(&outcome.text()).expect("a line of JSON")
}
