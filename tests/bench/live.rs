//! A download that is read through the mount as it comes, against the same engine downloading plainly.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use librqbit::limits::LimitsConfig;
use librqbit::{AddTorrent, AddTorrentOptions, ConnectionOptions, Session, SessionOptions};

use crate::support::swarm::{Libtorrent, Seeding};
use crate::support::torrents::{self, Torrent};
use crate::support::{DaemonOptions, Work, run};
use crate::table;

const SIZE: usize = 256 << 20;

pub(crate) fn compare() {
    let work = Work::new();
    let torrent = torrents::single_file(&work, "live.bin", SIZE, 1 << 20);
    let mut rows = Vec::new();
    for (name, limit) in [("a seeder without limit", 0), ("a seeder of 16 MiB/s", 16 << 20)] {
        let seeding = Seeding {
            upload_limit: limit,
            ..Seeding::default()
        };
        let rate = |took: Duration| format!("{:.1}", (SIZE >> 20) as f64 / took.as_secs_f64());
        let seeder = Libtorrent::seed_with(&[&torrent], &seeding);
        let plain = rate(plainly(&torrent, seeder.address));
        drop(seeder);
        let seeder = Libtorrent::seed_with(&[&torrent], &seeding);
        let mounted = rate(through_the_mount(&torrent, seeder.address));
        rows.push((name.to_owned(), vec![plain, mounted]));
    }
    table(
        "A download of 256 MiB, MiB/s",
        &["the engine alone", "read in the mount"],
        &rows,
    );
}

fn through_the_mount(torrent: &Torrent, peer: SocketAddr) -> Duration {
    let work = Work::new();
    let daemon = DaemonOptions::new(&work).torrent(torrent).peer(peer).start();
    let mut command = Command::new("dd");
    command
        .arg(format!("if={}", daemon.path(&torrent.name).display()))
        .args(["of=/dev/null", "bs=1M", "status=none"]);
    let took = run(&mut command, Duration::from_secs(300)).ok().took;
    daemon.stop();
    took
}

fn plainly(torrent: &Torrent, peer: SocketAddr) -> Duration {
    let work = Work::new();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let took = runtime.block_on(async {
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
        let bytes = std::fs::read(&torrent.path).expect("a .torrent file");
        let options = AddTorrentOptions {
            initial_peers: Some(vec![peer]),
            ..AddTorrentOptions::default()
        };
        let began = Instant::now();
        let added = session
            .add_torrent(AddTorrent::from_bytes(bytes), Some(options))
            .await
            .expect("it is taken");
        let handle = added.into_handle().expect("a torrent in the session");
        tokio::time::timeout(Duration::from_secs(300), handle.wait_until_completed())
            .await
            .expect("it is through in time")
            .expect("it is through");
        began.elapsed()
    });
    runtime.shutdown_background();
    took
}
