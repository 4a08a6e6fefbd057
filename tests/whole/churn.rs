//! Peers that come and go, fall silent, answer in any order and lie, while eight readers compare every byte.

use std::net::SocketAddr;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::swarm::{Librqbit, Libtorrent, Seeding, free_address};
use crate::support::torrents::{self, Torrent, script};
use crate::support::{Background, Daemon, DaemonOptions, Work, limited, report};

const MIB: usize = 1 << 20;
const PIECE_LENGTH: u64 = 256 * 1024;
const READERS: u64 = 8;
/// "No read waits for more than 5 s while a peer could have served it": one honest peer is there at all times.
const LONGEST_READ: Duration = Duration::from_secs(5);
/// Bytes a second of each honest peer.
const RATE: u32 = 3 << 20;
/// How long a peer that has returned is given to be found, before the other one goes.
const GRACE: Duration = Duration::from_millis(1500);

/// What a round came to.
struct Round {
    worst: Duration,
    /// Reads of more than a second.
    slow: usize,
    compared: u64,
    events: usize,
    rss_kib: Vec<u64>,
}

/// A peer that behaves, except that it dies, returns, and falls silent when it is told to.
struct Honest {
    address: SocketAddr,
    seeder: Option<Libtorrent>,
    stopped: bool,
}

impl Honest {
    fn start(torrent: &Torrent) -> Self {
        let seeding = Seeding {
            upload_limit: RATE.into(),
            ..Seeding::default()
        };
        let seeder = Libtorrent::seed_with(&[torrent], &seeding);
        Self {
            address: seeder.address,
            seeder: Some(seeder),
            stopped: false,
        }
    }

    fn is_well(&self) -> bool {
        self.seeder.is_some() && !self.stopped
    }

    /// Dies, or keeps its connections and says nothing more.
    fn fail(&mut self, silently: bool) {
        if silently {
            self.seeder.iter().for_each(|seeder| seeder.signal(Signal::STOP));
            self.stopped = true;
        } else {
            self.seeder = None;
        }
    }

    fn recover(&mut self, torrent: &Torrent) {
        if let Some(seeder) = &self.seeder {
            seeder.signal(Signal::CONT);
            self.stopped = false;
        } else {
            let seeding = Seeding {
                address: Some(self.address),
                upload_limit: RATE.into(),
                ..Seeding::default()
            };
            self.seeder = Some(Libtorrent::seed_with(&[torrent], &seeding));
        }
    }
}

/// One torrent, read by all readers from its first byte to its last.
fn round(
    work: &Work,
    daemon: &Daemon,
    listen: SocketAddr,
    number: u64,
    length: usize,
    random: &mut fastrand::Rng,
) -> Round {
    let torrent = torrents::single_file(work, &format!("film-{number}.bin"), length, PIECE_LENGTH);
    let mut honest = [Honest::start(&torrent), Honest::start(&torrent)];
    let mut session = Some(Librqbit::seed_with(work, &[&torrent], Some(RATE)));
    let mut add = vec!["add".to_owned(), torrent.path.to_string_lossy().into_owned()];
    let peers = honest.iter().map(|honest| honest.address);
    for peer in peers.chain(session.as_ref().map(|session| session.address)) {
        add.extend(["--peer".to_owned(), peer.to_string()]);
    }
    daemon.control(&add.iter().map(String::as_str).collect::<Vec<_>>()).ok();
    let rogues: Vec<Background> = ["stall", "lie", "reorder"]
        .iter()
        .map(|mode| {
            let mut command = Command::new("/usr/bin/python3");
            command.arg(script("rogue.py")).arg(&torrent.info_hash);
            command.arg(torrent.source()).arg(PIECE_LENGTH.to_string());
            command
                .arg(listen.to_string())
                .arg(mode)
                .arg(random.u32(..).to_string());
            Background::spawn(&mut command)
        })
        .collect();
    let mut readers: Vec<Background> = (0..READERS)
        .map(|reader| {
            let mut command = Command::new("/usr/bin/python3");
            command.arg(script("comparer.py")).arg(daemon.path(&torrent.name));
            command
                .arg(torrent.source())
                .arg((number * READERS + reader).to_string());
            Background::spawn(&mut command)
        })
        .collect();

    let began = Instant::now();
    let (mut events, mut rss_kib) = (0, Vec::new());
    let mut due = Instant::now() + Duration::from_secs(1);
    while readers.iter_mut().any(Background::is_running) {
        assert!(
            began.elapsed() < Duration::from_secs(180),
            "the readers are not through after 180 s"
        );
        thread::sleep(Duration::from_millis(100));
        rss_kib.push(daemon.memory_kib("VmRSS"));
        if Instant::now() < due {
            continue;
        }
        events += 1;
        let pause = if let Some(ill) = honest.iter_mut().find(|honest| !honest.is_well()) {
            ill.recover(&torrent);
            GRACE
        } else {
            // The session goes once, and does not return: it is somebody else's.
            if began.elapsed() > Duration::from_secs(6) {
                session = None;
            }
            random.choice(&mut honest).expect("two of them").fail(random.bool());
            Duration::from_millis(random.u64(500..4000))
        };
        due = Instant::now() + pause;
    }
    let mut outcome = Round {
        worst: Duration::ZERO,
        slow: 0,
        compared: 0,
        events,
        rss_kib,
    };
    for reader in readers {
        let text = reader
            .outcome(Duration::from_secs(5))
            .expect("it has ended")
            .ok()
            .text();
        let value: Value = serde_json::from_str(&text).expect("a reader's JSON");
        let worst = Duration::from_secs_f64(value["worst"].as_f64().expect("a time"));
        outcome.worst = outcome.worst.max(worst);
        outcome.slow += value["slow"].as_array().map_or(0, Vec::len);
        outcome.compared += value["bytes"].as_u64().expect("a number of bytes");
    }
    drop((rogues, honest, session));
    daemon.control(&["remove", &torrent.name, "--delete-data"]).ok();
    std::fs::remove_dir_all(&torrent.directory).expect("the source goes");
    outcome
}

fn churn(duration: Duration, length: usize, seed: u64) {
    let work = Work::new();
    let listen = free_address();
    let daemon = DaemonOptions::new(&work)
        .option("--listen", &listen.to_string())
        .start();
    let began = Instant::now();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut rounds: Vec<Round> = Vec::new();
    while rounds.is_empty() || began.elapsed() < duration {
        let number = rounds.len() as u64;
        let round = round(&work, &daemon, listen, number, length, &mut random);
        report(&format!(
            "churn: {} MiB compared, {} events, longest read {:.1} s, {} over 1 s, memory at most {} MiB",
            round.compared >> 20,
            round.events,
            round.worst.as_secs_f64(),
            round.slow,
            round.rss_kib.iter().max().map_or(0, |kib| kib >> 10),
        ));
        assert!(
            round.worst <= LONGEST_READ,
            "a read waited for {:.1} s while a peer could have served it (seed {seed})",
            round.worst.as_secs_f64()
        );
        rounds.push(round);
    }
    let peak = |rounds: &[Round]| {
        rounds
            .iter()
            .flat_map(|round| &round.rss_kib)
            .max()
            .copied()
            .unwrap_or(0)
    };
    let (early, late) = rounds.split_at(rounds.len().div_ceil(2));
    assert!(peak(early) < 200 * 1024, "{} MiB of memory", peak(early) >> 10);
    assert!(
        peak(late) <= peak(early) + 16 * 1024,
        "memory grows: at most {} MiB in the first half, {} MiB in the second",
        peak(early) >> 10,
        peak(late) >> 10
    );
    let log = daemon.log();
    let banned = log.lines().filter(|line| line.contains("it sent false data")).count();
    let compared: u64 = rounds.iter().map(|round| round.compared).sum();
    let worst = rounds.iter().map(|round| round.worst).max().unwrap_or_default();
    report(&format!(
        "churn of {:.0} s: {} rounds, {} MiB compared, {} events, {banned} bans, longest read {:.1} s, memory at most \
         {} MiB in the first half and {} MiB in the second",
        began.elapsed().as_secs_f64(),
        rounds.len(),
        compared >> 20,
        rounds.iter().map(|round| round.events).sum::<usize>(),
        worst.as_secs_f64(),
        peak(early) >> 10,
        peak(late) >> 10,
    ));
    daemon.stop();
}

/// "No wrong byte, and no read waits for more than 5 s while a peer could have served it." `CHURN_SECONDS` makes it
/// longer, `CHURN_SEED` another one.
#[test]
fn readers_get_every_byte_from_peers_that_come_go_and_lie() {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().expect("a number"))
    };
    let seconds = number("CHURN_SECONDS");
    let length = if seconds.is_some() { 128 * MIB } else { 48 * MIB };
    let duration = Duration::from_secs(seconds.unwrap_or(0));
    limited(duration + Duration::from_secs(240), || {
        churn(duration, length, number("CHURN_SEED").unwrap_or(7));
    });
}
