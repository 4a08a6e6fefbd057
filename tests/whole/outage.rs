//! Peers that vanish, peers that lie, disks that change behind our back: a read is answered in the end, and never with
//! other bytes.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::swarm::{Libtorrent, Seeding};
use crate::support::torrents::{self, Torrent, files_below};
use crate::support::{Background, Daemon, DaemonOptions, Work, eventually, limited, report, run};

const MIB: usize = 1 << 20;

fn compare(daemon: &Daemon, torrent: &Torrent) -> Background {
    Background::spawn(
        Command::new("cmp")
            .arg(daemon.path(&torrent.name))
            .arg(torrent.source()),
    )
}

fn bytes_here(daemon: &Daemon, torrent: &Torrent) -> u64 {
    daemon
        .listed(&torrent.name)
        .and_then(|entry| entry["bytes_here"].as_u64())
        .expect("the torrent is listed")
}

/// "When the only seeder dies and returns after 20 s, a read that waits is answered, not failed."
#[test]
fn a_seeder_that_returns_after_20_s_is_met_at_once() {
    limited(Duration::from_secs(120), || {
        let work = Work::new();
        let torrent = torrents::single_file(&work, "film.bin", 24 * MIB, 256 * 1024);
        let slow = Seeding {
            upload_limit: 2 << 20,
            ..Seeding::default()
        };
        let seeder = Libtorrent::seed_with(&[&torrent], &slow);
        let daemon = DaemonOptions::new(&work).torrent(&torrent).peer(seeder.address).start();
        let mut reader = compare(&daemon, &torrent);
        eventually("a part is here", Duration::from_secs(30), || {
            (bytes_here(&daemon, &torrent) >= 4 * MIB as u64).then_some(())
        });

        let address = seeder.address;
        drop(seeder);
        assert!(
            reader.ended_within(Duration::from_secs(20)).is_none(),
            "the read has ended without a seeder"
        );
        let here = bytes_here(&daemon, &torrent);
        assert!(here < 24 * MIB as u64, "all was here before the seeder died");

        let _seeder = Libtorrent::seed_with(
            &[&torrent],
            &Seeding {
                address: Some(address),
                ..Seeding::default()
            },
        );
        let returned = Instant::now();
        eventually("bytes come again", Duration::from_secs(30), || {
            (bytes_here(&daemon, &torrent) > here).then_some(())
        });
        report(&format!(
            "first bytes {:.1} s after the seeder's return",
            returned.elapsed().as_secs_f64()
        ));
        reader
            .outcome(Duration::from_secs(40))
            .expect("the reader gets through")
            .ok();
        daemon.stop();
    });
}

/// "Corrupt seeder beside a good one: no wrong byte ever."
#[test]
fn a_corrupt_seeder_gives_no_wrong_byte() {
    limited(Duration::from_secs(150), || {
        let work = Work::new();
        let torrent = torrents::single_file(&work, "film.bin", 16 * MIB, 128 * 1024);
        let corrupt = Seeding {
            corrupt: Some(work.directory("corrupt")),
            ..Seeding::default()
        };
        // The good one is slow, so that much is asked of the other.
        let slow = Seeding {
            upload_limit: 2 << 20,
            ..Seeding::default()
        };
        let good = Libtorrent::seed_with(&[&torrent], &slow);
        let evil = Libtorrent::seed_with(&[&torrent], &corrupt);
        let options = DaemonOptions::new(&work)
            .torrent(&torrent)
            .peer(evil.address)
            .peer(good.address);
        let daemon = options.start();
        compare(&daemon, &torrent)
            .outcome(Duration::from_secs(120))
            .expect("the file is read through")
            .ok();
        assert!(
            evil.uploaded() > 128 * 1024,
            "the corrupt seeder sent nothing: this shows nothing"
        );
        report(&format!(
            "corrupt seeder {} KiB, good one {} KiB",
            evil.uploaded() >> 10,
            good.uploaded() >> 10
        ));
        daemon.stop();
    });
}

/// The stored file of a single-file torrent.
fn stored(data_dir: &Path) -> PathBuf {
    let files = data_dir.join("files");
    let all = files_below(&files);
    assert_eq!(all.len(), 1, "{all:?}");
    files.join(&all[0])
}

/// Flips a byte in every MiB, and gives the file its old times again when asked to.
fn corrupt(path: &Path, hide: bool) {
    let file = File::options()
        .read(true)
        .write(true)
        .open(path)
        .expect("the stored file");
    let metadata = file.metadata().expect("its times");
    for offset in (1000..metadata.len()).step_by(MIB) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).expect("a stored byte");
        file.write_all_at(&[!byte[0]], offset).expect("a stored byte");
    }
    if hide {
        let modified = metadata.modified().expect("its time");
        file.set_times(fs::FileTimes::new().set_modified(modified))
            .expect("its old time");
    }
}

/// "What is on the disk is compared with its hashes again after a crash, before anyone reads it." Nothing is trusted
/// then, however the file looks.
#[test]
fn nothing_is_trusted_after_a_crash() {
    corrupted_while_down(true);
}

/// The same when it had stopped cleanly: then a file that is not as it was left is not trusted.
#[test]
fn what_changed_after_a_clean_stop_is_not_trusted() {
    corrupted_while_down(false);
}

fn corrupted_while_down(crash: bool) {
    limited(Duration::from_secs(90), || {
        let work = Work::new();
        let torrent = torrents::single_file(&work, "film.bin", 8 * MIB, 256 * 1024);
        let seeder = Libtorrent::seed(&[&torrent]);
        let options = DaemonOptions::new(&work);
        let daemon = options.clone().torrent(&torrent).peer(seeder.address).start();
        compare(&daemon, &torrent)
            .outcome(Duration::from_secs(30))
            .expect("the file is read through")
            .ok();
        let data_dir = daemon.data_dir().to_owned();
        if crash {
            daemon.crash();
        } else {
            daemon.stop();
        }
        corrupt(&stored(&data_dir), crash);

        let before = seeder.uploaded();
        let daemon = options.start();
        compare(&daemon, &torrent)
            .outcome(Duration::from_secs(40))
            .expect("the file is read through")
            .ok();
        assert!(
            seeder.uploaded() > before,
            "nothing was fetched again: the corruption was not there to be found"
        );
        daemon.stop();
    });
}

/// What was stored and not touched is served again without a peer, after a crash and after a clean stop.
#[test]
fn what_is_stored_outlives_the_daemon() {
    limited(Duration::from_secs(90), || {
        let work = Work::new();
        let torrent = torrents::single_file(&work, "film.bin", 8 * MIB, 256 * 1024);
        let seeder = Libtorrent::seed(&[&torrent]);
        let options = DaemonOptions::new(&work);
        let daemon = options.clone().torrent(&torrent).peer(seeder.address).start();
        compare(&daemon, &torrent)
            .outcome(Duration::from_secs(30))
            .expect("the file is read through")
            .ok();
        drop(seeder);
        daemon.crash();

        let daemon = options.start();
        compare(&daemon, &torrent)
            .outcome(Duration::from_secs(20))
            .expect("stored bytes need no peer")
            .ok();
        daemon.stop();

        let daemon = options.start();
        compare(&daemon, &torrent)
            .outcome(Duration::from_secs(20))
            .expect("stored bytes need no peer")
            .ok();
        assert_eq!(daemon.listed(&torrent.name).expect("it is listed")["state"], "complete");
        daemon.stop();
    });
}

/// "`kill -9` or a full disk at any moment loses nothing that was acknowledged." Here the former.
#[test]
fn what_add_has_acknowledged_outlives_a_crash() {
    limited(Duration::from_secs(90), || {
        let work = Work::new();
        let options = DaemonOptions::new(&work);
        let mut acknowledged = Vec::new();
        for round in 0..5 {
            let daemon = options.start();
            // One is added and acknowledged, others are still on their way when the daemon dies.
            let torrent = torrents::without_source(&work, &format!("{round} first"), 1 << 20, 65_536);
            daemon.add(&torrent, None);
            acknowledged.push(torrent.name);
            let rest: Vec<Torrent> = (0..20)
                .map(|number| torrents::without_source(&work, &format!("{round} {number}"), 1 << 20, 65_536))
                .collect();
            let paths: Vec<String> = rest
                .iter()
                .map(|torrent| torrent.path.to_string_lossy().into_owned())
                .collect();
            let mut arguments = vec!["add"];
            arguments.extend(paths.iter().map(String::as_str));
            let mut adding = Background::spawn(&mut options.control(&arguments));
            adding.ended_within(Duration::from_millis(3 * round));
            daemon.signal(Signal::KILL);
            let printed = adding
                .outcome(Duration::from_secs(10))
                .expect("add ends when the daemon dies")
                .text();
            acknowledged.extend(
                rest.into_iter()
                    .map(|t| t.name)
                    .filter(|name| printed.contains(name.as_str())),
            );
            daemon.crash();
        }
        let daemon = options.start();
        let list = daemon.json(&["list"]);
        let names: Vec<&str> = list
            .as_array()
            .expect("an array")
            .iter()
            .filter_map(|entry| entry["name"].as_str())
            .collect();
        for name in &acknowledged {
            assert!(
                names.contains(&name.as_str()),
                "{name} was acknowledged and is gone; there are {names:?}"
            );
        }
        let shown = run(Command::new("ls").arg(daemon.mountpoint()), Duration::from_secs(10))
            .ok()
            .text();
        let mut shown: Vec<&str> = shown.lines().collect();
        let mut names = names;
        shown.sort_unstable();
        names.sort_unstable();
        assert_eq!(shown, names, "the mount shows the library");
        daemon.stop();
    });
}
