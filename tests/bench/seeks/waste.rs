//! What is fetched beyond what is read, how much of the line a stream gets, and how fast it goes without a limit.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use librqbit::limits::LimitsConfig;
use librqbit::{AddTorrent, AddTorrentOptions, ConnectionOptions, Session, SessionOptions};

use super::swarm::{Kind, Profile, Swarm};
use super::{MIB, PATIENCE, Source, daemon, seeks, twenty};
use crate::support::{Work, eventually, run};
use crate::table;

const STREAM: usize = 96 << 20;
const PLENTY: usize = 512 << 20;
const PIECE: u64 = 4 * MIB;
const UNLIMITED_LIMIT: Duration = Duration::from_secs(120);

pub(super) fn compare(source: &Source, chosen: &str) {
    if "waste".contains(chosen) {
        let mut rows = vec![(
            "20 random seeks (and head and tail), x".to_owned(),
            vec![random(source)],
        )];
        let (waste, share) = stream();
        rows.push(("from start to end, x".to_owned(), vec![waste]));
        rows.push(("from start to end, share of the line".to_owned(), vec![share]));
        table(
            "20 x 256 KiB/s, 4 MiB: bytes received / needed (to reach: <= 1.30, <= 1.05), rate (>= 0.97)",
            &["magnetfs"],
            &rows,
        );
    }
    if "unlimited".contains(chosen) {
        unlimited();
    }
}

fn number(value: &serde_json::Value, name: &str) -> f64 {
    value[name].as_f64().unwrap_or_else(|| panic!("{name} in {value}"))
}

fn random(source: &Source) -> String {
    let profile = twenty("waste", Kind::Honest, Duration::ZERO);
    let torrent = source.torrent(PIECE);
    let swarm = Swarm::new(&source.work, torrent, &profile);
    let work = Work::new();
    let daemon = daemon(&work, torrent, &swarm.peers).start();
    let times = seeks(&daemon.path(&torrent.name), PIECE, PATIENCE);
    let listed = daemon.listed(&torrent.name).expect("the torrent is listed");
    daemon.stop();
    let sought = times["seeks"].as_array().map_or(0, Vec::len);
    // The first read, and the tail of the file that every player asks for.
    let needed = (sought as u64 + 2) * PIECE;
    format!("{:.2}", number(&listed, "fetched") / needed as f64)
}

/// Received ÷ needed, and the rate ÷ the line.
fn stream() -> (String, String) {
    let source = Source::new("stream.bin", STREAM);
    let profile = twenty("stream", Kind::Honest, Duration::ZERO);
    let torrent = source.torrent(PIECE);
    let swarm = Swarm::new(&source.work, torrent, &profile);
    let work = Work::new();
    let daemon = daemon(&work, torrent, &swarm.peers).start();
    let mut command = Command::new("dd");
    command
        .arg(format!("if={}", daemon.path(&torrent.name).display()))
        .args(["of=/dev/null", "bs=128K", "status=none"]);
    let took = run(&mut command, PATIENCE).ok().took;
    let listed = daemon.listed(&torrent.name).expect("the torrent is listed");
    daemon.stop();
    let waste = number(&listed, "fetched") / STREAM as f64;
    let share = STREAM as f64 / took.as_secs_f64() / profile.line() as f64;
    (format!("{waste:.3}"), format!("{share:.3}"))
}

/// One seeder without a limit: a whole download, by ours and by a librqbit session, in turn.
fn unlimited() {
    let source = Source::new("plenty.bin", PLENTY);
    let torrent = source.torrent(PIECE);
    let profile = Profile {
        name: "unlimited",
        piece: PIECE,
        rates: vec![0],
        kind: Kind::Honest,
        round_trip: Duration::ZERO,
    };
    let swarm = Swarm::new(&source.work, torrent, &profile);
    let mut runs: Vec<[f64; 4]> = Vec::new();
    for _ in 0..3 {
        let work = Work::new();
        let began = Instant::now();
        let daemon = daemon(&work, torrent, &swarm.peers)
            .option("--download", "whole")
            .start();
        eventually("all is downloaded", UNLIMITED_LIMIT, || {
            let listed = daemon.listed(&torrent.name)?;
            (listed["state"] == "complete").then_some(())
        });
        let took = began.elapsed().as_secs_f64();
        let cpu = cpu_s(&daemon.pid().to_string());
        daemon.stop();
        let before = cpu_s("self");
        let began = Instant::now();
        librqbit(&torrent.path, &swarm.peers);
        let (theirs, their_cpu) = (began.elapsed().as_secs_f64(), cpu_s("self") - before);
        let rate = |took: f64| (PLENTY >> 20) as f64 / took;
        let gib = PLENTY as f64 / (1 << 30) as f64;
        runs.push([rate(took), rate(theirs), cpu / gib, their_cpu / gib]);
    }
    let median = |column: usize| {
        let mut values: Vec<f64> = runs.iter().map(|run| run[column]).collect();
        values.sort_by(f64::total_cmp);
        format!("{:.2}", values[values.len() / 2])
    };
    let rows = [
        ("MiB/s".to_owned(), vec![median(0), median(1)]),
        ("CPU seconds per GiB".to_owned(), vec![median(2), median(3)]),
    ];
    table(
        "A whole download of 512 MiB without a limit, median of 3",
        &["magnetfs", "librqbit session"],
        &rows,
    );
}

/// User and system time of a process, in seconds.
fn cpu_s(process: &str) -> f64 {
    const TICKS_A_SECOND: f64 = 100.0;
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("its times");
    let (_, fields) = text.rsplit_once(')').expect("fields after its name");
    let ticks = |place: usize| {
        fields
            .split_whitespace()
            .nth(place)
            .and_then(|field| field.parse::<f64>().ok())
    };
    (ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0)) / TICKS_A_SECOND
}

fn librqbit(torrent: &std::path::Path, peers: &[std::net::SocketAddr]) {
    let work = Work::new();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let options = SessionOptions {
            dht: None,
            disable_trackers: true,
            fastresume: false,
            persistence: None,
            listen: None,
            connect: Some(ConnectionOptions::default()),
            ratelimits: LimitsConfig::default(),
            disable_local_service_discovery: true,
            ..SessionOptions::default()
        };
        let session: Arc<Session> = Session::new_with_opts(work.directory("plain"), options)
            .await
            .expect("a librqbit session");
        let bytes = std::fs::read(torrent).expect("a .torrent file");
        let options = AddTorrentOptions {
            initial_peers: Some(peers.to_vec()),
            ..AddTorrentOptions::default()
        };
        let added = session.add_torrent(AddTorrent::from_bytes(bytes), Some(options)).await;
        let handle = added
            .expect("it is taken")
            .into_handle()
            .expect("a torrent in the session");
        let completed = tokio::time::timeout(UNLIMITED_LIMIT, handle.wait_until_completed()).await;
        completed.expect("it is through in time").expect("it is through");
    });
    runtime.shutdown_background();
}
