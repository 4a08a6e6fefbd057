//! How long a player waits on a swarm of 8 Mbit/s: the first byte, and the first fragment of `ffmpeg -c copy`, against
//! btfs on the same swarm; and what the same cold seeders give a bare client.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::seeks::python;
use crate::support::limit::{Held, Registration, unmount};
use crate::support::media::{Film, film};
use crate::support::swarm::{Libtorrent, Seeding};
use crate::support::torrents::{self, Bencode, Torrent};
use crate::support::{Background, DaemonOptions, Work, eventually, is_mounted, report, run, shell};
use crate::table;

const SEEDERS: u8 = 4;
/// 8 Mbit/s among all of them.
const EACH_BYTES_PER_SECOND: u64 = 250_000;
/// What takes longer is written down as such.
const PATIENCE: Duration = Duration::from_secs(60);
const ROUNDS: usize = 3;

/// The first piece: a bare client can fetch that as well.
const FIRST_BYTE: &str = "first byte";

pub(crate) fn compare() {
    let mut rows = Vec::new();
    // The hardest of the containers: the index lies behind everything else.
    let plain = film(Film::Mp4IndexLast);
    let work = Work::new();
    let large = torrents::make(&work, &plain.source(), 1 << 20);
    for (what, film, script) in [
        (FIRST_BYTE, &plain, r#"exec head -c 1 "$1""#),
        ("first byte, pieces of 1 MiB", &large, r#"exec head -c 1 "$1""#),
        ("first fragment", &plain, FRAGMENT),
        ("first fragment from 60 s on", &plain, FRAGMENT_AFTER_SEEK),
    ] {
        let ours = median((0..ROUNDS).map(|_| magnetfs(film, script)).collect());
        let theirs = median((0..ROUNDS).map(|_| btfs(film, script)).collect());
        let bare = || bare(film, [&BTreeSet::from([0]), &BTreeSet::from([1])])[0];
        let least = if what.starts_with(FIRST_BYTE) {
            median((0..ROUNDS).map(|_| Some(bare())).collect())
        } else {
            "-".to_owned()
        };
        report(&format!("{what}: {ours} s, btfs {theirs} s, a bare client {least} s"));
        rows.push((what.to_owned(), vec![ours, theirs, least]));
    }
    table(
        "A film of 20 Mbit/s on a swarm of 8 Mbit/s, seconds",
        &["magnetfs", "btfs", "bare client"],
        &rows,
    );
}

/// Ends when the first fragment begins to come: FFmpeg writes it in one go. The shell waits for `grep` alone.
const FRAGMENT: &str = r#"{ ffmpeg -nostdin -v error -i "$1" -map 0:v -c copy -f mp4 \
    -movflags frag_keyframe+empty_moov+default_base_moof pipe: 2>/dev/null & } | grep -a -m 1 -o -q mdat"#;
const FRAGMENT_AFTER_SEEK: &str = r#"{ ffmpeg -nostdin -v error -ss 60 -i "$1" -map 0:v -c copy -f mp4 \
    -movflags frag_keyframe+empty_moov+default_base_moof pipe: 2>/dev/null & } | grep -a -m 1 -o -q mdat"#;

pub(crate) fn median(mut times: Vec<Option<Duration>>) -> String {
    // None, which is too late, is the longest.
    times.sort_by_key(|time| time.unwrap_or(Duration::MAX));
    match times[times.len() / 2] {
        Some(time) => format!("{:.1}", time.as_secs_f64()),
        None => format!("over {}", PATIENCE.as_secs()),
    }
}

/// The time until a command on the file has got what it waits for.
fn timed(path: &Path, script: &str) -> Option<Duration> {
    let outcome = Background::spawn(&mut shell(script, &[path.as_os_str()])).outcome(PATIENCE)?;
    outcome.status.success().then_some(outcome.took)
}

/// Seeders and a tracker that names them, and a .torrent with that tracker.
pub(crate) struct Swarm {
    pub(crate) torrent: PathBuf,
    seeders: Vec<Libtorrent>,
}

impl Swarm {
    pub(crate) fn new(work: &Work, plain: &Torrent) -> Self {
        let seeders: Vec<Libtorrent> = (0..SEEDERS)
            .map(|number| {
                // libtorrent, which btfs is made of, connects to an address once whatever the port.
                let address = SocketAddr::from(([127, 0, 0, 2 + number], 0));
                let limit = EACH_BYTES_PER_SECOND;
                Libtorrent::seed_with(
                    &[plain],
                    &Seeding {
                        address: Some(address),
                        upload_limit: limit,
                        ..Seeding::default()
                    },
                )
            })
            .collect();
        let tracker = tracker(seeders.iter().map(|seeder| seeder.address).collect());
        // What the film's own .torrent holds is `d4:info…e`; the announce goes before it.
        let bytes = fs::read(&plain.path).expect("the film's torrent");
        let announce = format!("http://{tracker}/announce");
        let mut with_tracker = b"d8:announce".to_vec();
        with_tracker.extend(Bencode::text(&announce).encoded());
        with_tracker.extend(&bytes[1..]);
        let torrent = work.path().join("film.torrent");
        fs::write(&torrent, with_tracker).expect("a .torrent file");
        Self { torrent, seeders }
    }
}

/// What seeders that were met a moment ago give a client that knows beforehand which pieces it will need: the time to
/// the last byte of the first ones, from cold seeders, and then to that of the others, from the same.
pub(crate) fn bare(film: &Torrent, lists: [&BTreeSet<u64>; 2]) -> [Duration; 2] {
    let work = Work::new();
    let swarm = Swarm::new(&work, film);
    let mut command = python("bare.py");
    command.arg(&film.path);
    for pieces in lists {
        let pieces: Vec<String> = pieces.iter().map(u64::to_string).collect();
        command.arg(pieces.join(","));
    }
    command.args(swarm.seeders.iter().map(|seeder| seeder.address.to_string()));
    let seconds: [f64; 2] = serde_json::from_str(&run(&mut command, PATIENCE).ok().text()).expect("two numbers");
    seconds.map(Duration::from_secs_f64)
}

fn tracker(peers: Vec<SocketAddr>) -> SocketAddr {
    let mut compact = Vec::new();
    for peer in &peers {
        if let SocketAddr::V4(peer) = peer {
            compact.extend(peer.ip().octets());
            compact.extend(peer.port().to_be_bytes());
        }
    }
    let body =
        Bencode::dictionary([("interval", Bencode::Integer(1800)), ("peers", Bencode::Bytes(compact))]).encoded();
    let listener = TcpListener::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("its address");
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 4096]);
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(&[head.as_bytes(), &body].concat());
        }
    });
    address
}

fn magnetfs(plain: &Torrent, script: &str) -> Option<Duration> {
    let work = Work::new();
    let swarm = Swarm::new(&work, plain);
    let options = DaemonOptions::new(&work)
        .option("--trackers", "on")
        .option("--read-deadline", "60");
    let began = Instant::now();
    let daemon = options.argument(&swarm.torrent).start();
    let mounted = began.elapsed();
    let time = timed(&daemon.path(&plain.name), script);
    daemon.stop();
    // From the start of the program on, for both.
    time.map(|time| mounted + time)
}

fn btfs(plain: &Torrent, script: &str) -> Option<Duration> {
    // It aborts when its mount is touched too early in its life, which then is not the time that is measured.
    (0..3).find_map(|_| btfs_once(plain, script)).flatten()
}

/// `None` when btfs did not come up; `Some(None)` when it did and was too slow.
fn btfs_once(plain: &Torrent, script: &str) -> Option<Option<Duration>> {
    let work = Work::new();
    let swarm = Swarm::new(&work, plain);
    let mount = Mounted::new(work.directory("mount"));
    let data = work.directory("data");
    let mut command = Command::new("btfs");
    command.arg("-f").arg(format!("--data-directory={}", data.display()));
    let began = Instant::now();
    let mut client = Background::spawn(command.arg(&swarm.torrent).arg(&mount.path));
    let path = mount.path.join(&plain.name);
    let mut appeared = None;
    let ready = eventually("btfs shows the film, or ends", Duration::from_secs(20), || {
        if !client.is_running() {
            return Some(false);
        }
        if appeared.is_none() && is_mounted(&mount.path) {
            appeared = Some(Instant::now());
        }
        (appeared?.elapsed() > Duration::from_millis(200) && path.exists()).then_some(true)
    });
    let mounted = began.elapsed();
    ready.then(|| timed(&path, script).map(|time| mounted + time))
}

/// A mount point of another program, unmounted whatever becomes of that.
struct Mounted {
    path: PathBuf,
    _registration: Registration,
}

impl Mounted {
    fn new(path: PathBuf) -> Self {
        let _registration = Registration::of(Held::Mount(path.clone()));
        Self { path, _registration }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        unmount(&self.path);
    }
}
