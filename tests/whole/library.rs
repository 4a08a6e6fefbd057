//! "2,000 torrents are mounted within 5 s, in less than 300 MB of memory, and without a packet to anyone."

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use sha1::{Digest, Sha1};

use crate::support::swarm::Libtorrent;
use crate::support::torrents::{self, Bencode, Torrent, with_info};
use crate::support::{DaemonOptions, Work, limited, report, run, shell};

const TORRENTS: usize = 2_000;
const PIECES: u64 = 2_000;
const FILES: u64 = 10;
const PIECE: u64 = 256 * 1024;

/// Torrents for one `magnetfs add`.
const BATCH: usize = 100;

const MOUNTED_LIMIT: Duration = Duration::from_secs(5);
const MEMORY_LIMIT_KIB: u64 = 300_000_000 / 1024;

/// Stands for trackers and peers: counts everyone who comes.
struct Witness {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    datagrams: UdpSocket,
}

impl Witness {
    fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("its address");
        let datagrams = UdpSocket::bind(address).expect("the same port for datagrams");
        datagrams.set_nonblocking(true).expect("a socket that does not wait");
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        thread::spawn(move || {
            for _ in listener.incoming() {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self {
            address,
            connections,
            datagrams,
        }
    }

    fn saw_nobody(&self, when: &str) {
        assert_eq!(self.connections.load(Ordering::Relaxed), 0, "connections {when}");
        let datagram = self.datagrams.recv_from(&mut [0; 2048]);
        assert!(datagram.is_err(), "a datagram {when}");
    }
}

#[test]
fn two_thousand_torrents() {
    limited(Duration::from_secs(300), || {
        let work = Work::new();
        let witness = Witness::new();
        let torrents = write_torrents(&work, witness.address);
        let options = DaemonOptions::new(&work).option("--trackers", "on");

        let daemon = options.start();
        let mut adding = Duration::ZERO;
        for batch in torrents.chunks(BATCH) {
            let mut command = options.control(&["add", "--peer", &witness.address.to_string()]);
            adding += run(command.args(batch), Duration::from_secs(60)).ok().took;
        }
        let (large, seeder) = large_torrent(&work);
        daemon.add(&large, Some(seeder.address));
        report(&format!("{TORRENTS} torrents added in {:.1} s", adding.as_secs_f64()));
        witness.saw_nobody("while torrents were added");
        daemon.stop();

        let mut daemon = options.spawn();
        let mounted = daemon.mounted_within(Duration::from_secs(30));
        report(&format!("start to mounted: {:.2} s", mounted.as_secs_f64()));
        assert!(mounted < MOUNTED_LIMIT, "mounted after {mounted:?}");

        let mount = daemon.mountpoint().to_owned();
        let files = TORRENTS as u64 * (FILES + 1) + 2;
        for (script, expected) in [
            (r#"ls "$1" | wc -l"#, TORRENTS as u64 + 1),
            (r#"find "$1" | wc -l"#, files),
            (r#"find "$1" -size +0 -type f | wc -l"#, TORRENTS as u64 * FILES + 1),
        ] {
            let outcome = run(&mut shell(script, &[mount.as_os_str()]), Duration::from_secs(30)).ok();
            assert_eq!(outcome.text().trim(), expected.to_string(), "{script}");
            report(&format!("{script}: {:.2} s", outcome.took.as_secs_f64()));
            // 24,000 names and as many stat calls, each through the daemon.
            assert!(
                outcome.took < Duration::from_secs(5),
                "{script} took {:?}",
                outcome.took
            );
        }
        let listed = daemon.control(&["list"]).ok();
        report(&format!("magnetfs list: {:.2} s", listed.took.as_secs_f64()));

        let (now, most) = (daemon.memory_kib("VmRSS"), daemon.memory_kib("VmHWM"));
        report(&format!("memory: {} MiB now, {} MiB at most", now / 1024, most / 1024));
        assert!(most < MEMORY_LIMIT_KIB, "{most} KiB of memory");
        witness.saw_nobody("for torrents that nobody reads");

        first_read_of_a_parked_one(&daemon, &large);
        witness.saw_nobody("for torrents that nobody reads, while another is read");
        daemon.stop();
    });
}

fn first_read_of_a_parked_one(daemon: &crate::support::Daemon, large: &Torrent) {
    let path = daemon.path(&large.name);
    for (what, place) in [
        ("first read of a parked torrent of 20 GB", 10_000),
        ("the next one, far off", 3_000),
    ] {
        let mut command = Command::new("dd");
        command
            .arg(format!("if={}", path.display()))
            .args(["bs=1M", "count=1", "status=none"]);
        let outcome = run(command.arg(format!("skip={place}")), Duration::from_secs(60)).ok();
        assert!(outcome.stdout.len() == 1 << 20 && outcome.stdout.iter().all(|byte| *byte == 0));
        report(&format!("{what}: {:.2} s for 1 MiB", outcome.took.as_secs_f64()));
    }
}

fn write_torrents(work: &Work, tracker: SocketAddr) -> Vec<PathBuf> {
    let folder = work.directory("torrents");
    let length = PIECES * PIECE / FILES;
    (0..TORRENTS)
        .map(|number| {
            let files: Vec<_> = (0..FILES)
                .map(|file| (format!("Episode {file:02}.mkv"), length))
                .collect();
            let info = torrents::info_of_nothing(&format!("Series {number:04}"), &files, PIECE);
            let announce = if number % 2 == 0 {
                format!("http://{tracker}/announce")
            } else {
                format!("udp://{tracker}/announce")
            };
            let bytes = Bencode::dictionary([("announce", Bencode::text(&announce)), ("info", info)]).encoded();
            let path = folder.join(format!("{number:04}.torrent"));
            fs::write(&path, bytes).expect("a .torrent file");
            path
        })
        .collect()
}

/// 20 GB of zeros, which take no room on either side, in pieces of 4 MiB.
fn large_torrent(work: &Work) -> (Torrent, Libtorrent) {
    const LENGTH: u64 = 20_000_000_000;
    const PIECE: u64 = 4 << 20;
    let directory = work.directory("source-large");
    let name = "large.bin".to_owned();
    File::create(directory.join(&name))
        .and_then(|file| file.set_len(LENGTH))
        .expect("a sparse file");
    let whole = Sha1::digest(vec![0; PIECE as usize]);
    let last = Sha1::digest(vec![0; (LENGTH % PIECE) as usize]);
    let mut pieces = whole.repeat((LENGTH / PIECE) as usize);
    pieces.extend_from_slice(&last);
    let (bytes, info_hash) = with_info(Bencode::dictionary([
        ("name", Bencode::text(&name)),
        ("piece length", Bencode::Integer(PIECE)),
        ("length", Bencode::Integer(LENGTH)),
        ("pieces", Bencode::Bytes(pieces)),
    ]));
    let path = work.path().join("large.torrent");
    fs::write(&path, bytes).expect("a .torrent file");
    let torrent = Torrent {
        path,
        directory,
        name,
        info_hash,
    };
    let seeder = Libtorrent::seed(&[&torrent]);
    (torrent, seeder)
}
