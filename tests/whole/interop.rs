//! Other clients, both ways, through the whole program: a magnet's metadata and every byte come from them, and theirs from
//! us. (transmission takes 10 s to unchoke whom it does not know, twice.)

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::support::swarm::{Aria2, Librqbit, Libtorrent, Transmission, free_address};
use crate::support::torrents::{self, Torrent, script};
use crate::support::{Daemon, DaemonOptions, Work, eventually, limited, run};

const LIMIT: Duration = Duration::from_secs(30);
const PIECE_LENGTH: u64 = 65_536;
/// A whole number of pieces, so that each file can be had without the other.
const FIRST: usize = 48 * 65_536;
const SECOND: usize = 2_000_001;

fn torrent(work: &Work) -> Torrent {
    torrents::folder(work, "album", &[("first", FIRST), ("second", SECOND)], PIECE_LENGTH)
}

fn magnet(torrent: &Torrent) -> String {
    format!("magnet:?xt=urn:btih:{}", torrent.info_hash)
}

/// A daemon that knows a magnet and one peer, and shows what it stands for once the peer has told.
fn mounted(work: &Work, torrent: &Torrent, peer: SocketAddr, listen: SocketAddr) -> Daemon {
    let daemon = DaemonOptions::new(work)
        .option("--listen", &listen.to_string())
        .argument(magnet(torrent))
        .peer(peer)
        .start();
    eventually("the magnet is resolved", LIMIT, || {
        daemon.listed(&torrent.name).map(|_| ())
    });
    daemon
}

fn same(one: &Path, other: &Path) {
    let mut command = Command::new("diff");
    command.arg("-r").arg(one).arg(other);
    run(&mut command, LIMIT).ok();
}

/// The mount shows what the source is.
fn read_through(daemon: &Daemon, torrent: &Torrent) {
    same(&daemon.path(&torrent.name), &torrent.source());
}

/// A tracker on loopback that names one peer to everyone. It ends with the tests.
fn tracker_of(peer: SocketAddr) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port for the tracker");
    let address = listener.local_addr().expect("its address");
    let IpAddr::V4(ip) = peer.ip() else {
        panic!("{peer} is not an IPv4 address")
    };
    let body = [
        b"d8:intervali1800e5:peers6:",
        &ip.octets()[..],
        &peer.port().to_be_bytes(),
        b"e",
    ]
    .concat();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            let _ = stream.write_all(&[head.as_bytes(), &body].concat());
        }
    });
    format!("http://{address}/announce")
}

#[test]
fn libtorrent_gives_and_takes() {
    limited(Duration::from_secs(60), || {
        let (work, listen) = (Work::new(), free_address());
        let torrent = torrent(&work);
        let seeder = Libtorrent::seed(&[&torrent]);
        let daemon = mounted(&work, &torrent, seeder.address, listen);
        read_through(&daemon, &torrent);
        drop(seeder);

        let taken = work.directory("taken");
        let mut command = Command::new("/usr/bin/python3");
        command.arg(script("leecher.py")).arg(&torrent.path).arg(&taken);
        run(command.arg(listen.to_string()), LIMIT).ok();
        same(&taken.join(&torrent.name), &torrent.source());
        daemon.stop();
    });
}

#[test]
fn librqbit_gives_and_takes() {
    limited(Duration::from_secs(60), || {
        let (work, listen) = (Work::new(), free_address());
        let torrent = torrent(&work);
        let seeder = Librqbit::seed(&work, &[&torrent]);
        let daemon = mounted(&work, &torrent, seeder.address, listen);
        read_through(&daemon, &torrent);
        drop(seeder);

        let taken = work.directory("taken");
        Librqbit::fetch(&work, &magnet(&torrent), listen, &taken, LIMIT);
        same(&taken, &torrent.source());
        daemon.stop();
    });
}

#[test]
fn aria2_gives_and_takes() {
    limited(Duration::from_secs(60), || {
        let (work, listen) = (Work::new(), free_address());
        let torrent = torrent(&work);
        let seeder = Aria2::start(&torrent, &torrent.directory, None);
        let daemon = mounted(&work, &torrent, seeder.address, listen);
        read_through(&daemon, &torrent);
        drop(seeder);

        let taken = work.directory("taken");
        let _leecher = Aria2::start(&torrent, &taken, Some(&tracker_of(listen)));
        eventually("aria2 has got all", LIMIT, || {
            let is_there = |file: &str| {
                let ours = std::fs::read(taken.join(&torrent.name).join(file)).ok();
                ours.is_some() && ours == std::fs::read(torrent.source().join(file)).ok()
            };
            (is_there("first") && is_there("second")).then_some(())
        });
        daemon.stop();
    });
}

/// transmission takes no peer on loopback from anyone, so it is ours to find it, while each has what the other wants.
#[test]
fn transmission_gives_and_takes() {
    limited(Duration::from_secs(60), || {
        let (work, listen) = (Work::new(), free_address());
        let torrent = torrent(&work);
        let seeder = Transmission::seed(&work, &[&torrent]);
        let daemon = mounted(&work, &torrent, seeder.address, listen);
        let (shown, source) = (daemon.path(&torrent.name), torrent.source());
        same(&shown.join("first"), &source.join("first"));
        drop(seeder);

        let taken = work.directory("taken");
        let folder = taken.join(&torrent.name);
        std::fs::create_dir(&folder).expect("a folder for its download");
        std::fs::copy(source.join("second"), folder.join("second")).expect("a copy of one file");
        let partner = Transmission::start(&work, "transmission-partner");
        partner.take(&torrent, &taken);
        daemon.add(&torrent, Some(partner.address));
        same(&shown.join("second"), &source.join("second"));
        partner.whole(1);
        same(&folder, &source);
        daemon.stop();
    });
}
