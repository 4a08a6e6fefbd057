//! The seeders of these tests do seed: each is asked by libtorrent, so that a test that fails on magnetfs fails on
//! magnetfs.

use std::process::Command;
use std::time::Duration;

use crate::support::swarm::{Librqbit, Libtorrent, Transmission};
use crate::support::torrents::{self, Kind, Torrent};
use crate::support::{Work, limited, run};

#[test]
fn each_seeder_is_understood_by_libtorrent() {
    limited(Duration::from_secs(90), || {
        let work = Work::new();
        let torrent = torrents::folder(
            &work,
            "a folder",
            &[("a", 700_000), ("b/c", 30), ("b/empty", 0)],
            65_536,
        );
        let source = torrents::source_folder(&work, "hybrid", &[("a", 700_000), ("b", 300_000)]);
        let hybrid = torrents::make_with_libtorrent(&work, &source, Kind::Hybrid, 65_536);

        let libtorrent = Libtorrent::seed(&[&torrent, &hybrid]);
        fetch(&work, &torrent, libtorrent.address, "from-libtorrent");
        fetch(&work, &hybrid, libtorrent.address, "hybrid-from-libtorrent");
        assert!(
            libtorrent.uploaded() >= 1_700_030,
            "{} bytes sent",
            libtorrent.uploaded()
        );

        let transmission = Transmission::seed(&work, &[&torrent]);
        fetch(&work, &torrent, transmission.address, "from-transmission");

        let librqbit = Librqbit::seed(&work, &[&torrent]);
        fetch(&work, &torrent, librqbit.address, "from-librqbit");
    });
}

fn fetch(work: &Work, torrent: &Torrent, peer: std::net::SocketAddr, into: &str) {
    let directory = work.directory(into);
    let mut command = Command::new("/usr/bin/python3");
    command
        .arg(torrents::script("leecher.py"))
        .arg(&torrent.path)
        .arg(&directory)
        .arg(peer.to_string());
    run(&mut command, Duration::from_secs(30)).ok();
    let mut difference = Command::new("diff");
    difference
        .arg("-r")
        .args(["-x", ".pad"])
        .arg(torrent.source())
        .arg(directory.join(&torrent.name));
    run(&mut difference, Duration::from_secs(10)).ok();
}
