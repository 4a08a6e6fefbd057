//! Nothing hangs: not the readers of other torrents, not `ls`, not a reader that is told to die, not the daemon that
//! is told to stop.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::swarm::{Libtorrent, Seeding, free_address};
use crate::support::torrents::{self, Torrent};
use crate::support::{Background, Daemon, DaemonOptions, Work, eventually, is_mounted, limited, report, run, shell};

const MIB: u64 = 1 << 20;

/// "At once", on a machine that also does other things.
const AT_ONCE: Duration = Duration::from_secs(1);

const READERS: u64 = 200;

/// A daemon with a torrent that nobody has, and one that a seeder has.
struct Stuck {
    work: Work,
    dead: Torrent,
    healthy: Torrent,
    _seeder: Libtorrent,
    daemon: Daemon,
}

impl Stuck {
    fn new() -> Self {
        let work = Work::new();
        let dead = torrents::without_source(&work, "dead.mkv", 2 * READERS * MIB, MIB);
        let healthy = torrents::single_file(&work, "healthy.bin", 24 << 20, 256 * 1024);
        let seeder = Libtorrent::seed(&[&healthy]);
        let daemon = DaemonOptions::new(&work).torrent(&dead).start();
        daemon.add(&healthy, Some(seeder.address));
        Self {
            work,
            dead,
            healthy,
            _seeder: seeder,
            daemon,
        }
    }

    /// Readers of the dead torrent, each in a place of its own, all of which wait.
    fn blocked_readers(&self) -> Vec<Background> {
        let path = self.daemon.path(&self.dead.name);
        let readers = (0..READERS).map(|number| reader_at(&path, number * 2)).collect();
        self.waiting(READERS);
        readers
    }

    /// Waits until so many reads wait in the daemon.
    fn waiting(&self, wanted: u64) {
        eventually("the reads wait", Duration::from_secs(20), || {
            (self.daemon.json(&["status"])["waiting_reads"].as_u64()? >= wanted).then_some(())
        });
    }
}

/// A child that reads one byte at so many MiB.
fn reader_at(path: &Path, mebibytes: u64) -> Background {
    let mut command = Command::new("dd");
    command
        .arg(format!("if={}", path.display()))
        .args(["bs=1", "count=1", "iflag=skip_bytes", "status=none"]);
    Background::spawn(command.arg(format!("skip={}", mebibytes * MIB)))
}

/// "A torrent without peers holds up nobody: not the readers of others, not `ls`, `stat`, `find` or `du`." With 200
/// readers blocked on it, a healthy torrent beside it reads on without delay.
///
/// "SIGTERM of the daemon leaves no mount and no process within 3 s, whoever is blocked."
#[test]
fn two_hundred_blocked_readers_hold_up_nobody() {
    limited(Duration::from_secs(90), || {
        let stuck = Stuck::new();
        let mut readers = stuck.blocked_readers();

        let mount = stuck.daemon.mountpoint();
        let dead = stuck.daemon.path(&stuck.dead.name);
        for (script, of) in [
            (r#"ls -la "$1""#, mount),
            (r#"ls -la "$1""#, dead.as_path()),
            (r#"stat "$1""#, dead.as_path()),
            (r#"stat -f "$1""#, mount),
            (r#"find "$1" -ls"#, mount),
            (r#"du -a "$1""#, mount),
            (r#"df "$1""#, mount),
        ] {
            let outcome = run(&mut shell(script, &[of.as_os_str()]), Duration::from_secs(10)).ok();
            assert!(outcome.took < AT_ONCE, "{script} took {:?}", outcome.took);
        }

        // A second open of a file with blocked reads, by a process that then has to close it as well.
        let opened = run(
            &mut shell(r#"exec 3<"$1""#, &[dead.as_os_str()]),
            Duration::from_secs(10),
        )
        .ok();
        assert!(opened.took < AT_ONCE, "a second open took {:?}", opened.took);

        reads_on(&stuck);
        assert!(
            readers.iter_mut().all(Background::is_running),
            "a reader of the dead torrent has ended"
        );

        let pid = stuck.daemon.pid();
        let mountpoint = mount.to_owned();
        let took = stuck.daemon.stop();
        report(&format!(
            "SIGTERM with {READERS} blocked readers: {:.2} s",
            took.as_secs_f64()
        ));
        assert!(!is_mounted(&mountpoint) && !Path::new(&format!("/proc/{pid}")).exists());
        let deadline = Instant::now() + Duration::from_secs(3);
        for reader in &mut readers {
            let left = deadline.saturating_duration_since(Instant::now());
            let status = reader.ended_within(left).expect("a reader outlives the mount");
            assert!(!status.success(), "a read of the dead torrent succeeded");
        }
        drop(stuck.work);
    });
}

/// Reads the healthy torrent in 64 parts and looks at the slowest.
fn reads_on(stuck: &Stuck) {
    let path = stuck.daemon.path(&stuck.healthy.name);
    run(
        Command::new("cmp").arg(&path).arg(stuck.healthy.source()),
        Duration::from_secs(30),
    )
    .ok();
    // What is here by now is read again past the kernel's cache of the mount: `dd` asks for it to be dropped.
    let drop_cache = shell(r#"dd if="$1" iflag=nocache count=0 status=none"#, &[path.as_os_str()]);
    run(&mut { drop_cache }, Duration::from_secs(5)).ok();
    let slowest = (0..64)
        .map(|part| {
            let mut command = Command::new("dd");
            command
                .arg(format!("if={}", path.display()))
                .args(["of=/dev/null", "bs=64k", "count=1", "status=none"]);
            run(command.arg(format!("skip={}", part * 5 % 384)), Duration::from_secs(10))
                .ok()
                .took
        })
        .max()
        .expect("64 reads");
    report(&format!(
        "slowest of 64 reads beside {READERS} blocked ones: {:.0} ms",
        slowest.as_secs_f64() * 1e3
    ));
    assert!(slowest < AT_ONCE, "a healthy read took {slowest:?}");
}

/// "A blocked reader dies on SIGKILL within 1 s and ffmpeg leaves on SIGINT within 1 s."
#[test]
fn a_blocked_reader_obeys_signals() {
    limited(Duration::from_secs(60), || {
        let stuck = Stuck::new();
        let path = stuck.daemon.path(&stuck.dead.name);

        let mut reader = reader_at(&path, 3);
        stuck.waiting(1);
        reader.signal(Signal::KILL);
        assert!(
            reader.ended_within(AT_ONCE).is_some(),
            "a reader survives SIGKILL for a second"
        );

        let mut ffmpeg = Command::new("ffmpeg");
        ffmpeg
            .args(["-nostdin", "-v", "error", "-i"])
            .arg(&path)
            .args(["-f", "null", "-"]);
        let mut ffmpeg = Background::spawn(&mut ffmpeg);
        stuck.waiting(1);
        ffmpeg.signal(Signal::INT);
        let status = ffmpeg
            .ended_within(AT_ONCE)
            .expect("ffmpeg stays for a second after SIGINT");
        assert!(!status.success());

        // One that has died leaves its place to the next.
        let mut reader = reader_at(&path, 3);
        stuck.waiting(1);
        reader.signal(Signal::TERM);
        assert!(
            reader.ended_within(AT_ONCE).is_some(),
            "a reader survives SIGTERM for a second"
        );
        stuck.daemon.stop();
    });
}

/// "Cancel on FLUSH … only if the waiting thread is gone and no other un-flushed handle of the inode exists": a child
/// that exits flushes the descriptor that it shares with a reader, and must not fail its read.
#[test]
fn the_exit_of_another_child_does_not_fail_a_read() {
    limited(Duration::from_secs(60), || {
        let work = Work::new();
        let torrent = torrents::single_file(&work, "late.bin", 4 << 20, 256 * 1024);
        let address = free_address();
        let daemon = DaemonOptions::new(&work).torrent(&torrent).peer(address).start();
        let script = r#"exec 3<"$1"; head -c1 <&3 & true <&3; wait $!"#;
        let mut reader = Background::spawn(&mut shell(script, &[daemon.path(&torrent.name).as_os_str()]));
        eventually("the read waits", Duration::from_secs(10), || {
            (daemon.json(&["status"])["waiting_reads"].as_u64()? >= 1).then_some(())
        });
        assert!(reader.ended_within(AT_ONCE).is_none(), "the read ended without a peer");
        let _seeder = Libtorrent::seed_with(
            &[&torrent],
            &Seeding {
                address: Some(address),
                ..Seeding::default()
            },
        );
        let outcome = reader
            .outcome(Duration::from_secs(40))
            .expect("the read is answered once a seeder is there");
        assert_eq!(outcome.ok().stdout.len(), 1);
        daemon.stop();
    });
}

/// "Every read ends: with bytes, or with an error once nothing has come for it in 60 s." Here in 2 s.
#[test]
fn a_read_without_progress_ends_at_its_deadline() {
    limited(Duration::from_secs(60), || {
        let work = Work::new();
        let dead = torrents::without_source(&work, "dead.bin", 8 * MIB, MIB);
        let daemon = DaemonOptions::new(&work)
            .option("--read-deadline", "2")
            .torrent(&dead)
            .start();
        let outcome = reader_at(&daemon.path(&dead.name), 3)
            .outcome(Duration::from_secs(20))
            .expect("the read ends");
        assert!(outcome.stderr.contains("Input/output error"), "{}", outcome.stderr);
        let seconds = outcome.took.as_secs_f64();
        assert!((1.9..8.0).contains(&seconds), "it took {seconds:.1} s");
        daemon.stop();
    });
}

/// "After `kill -9` of the daemon the next start clears the dead mount." Whoever still holds it open.
#[test]
fn the_next_start_clears_the_mount_of_a_crash() {
    limited(Duration::from_secs(60), || {
        let work = Work::new();
        let dead = torrents::without_source(&work, "dead.bin", 8 * MIB, MIB);
        let options = DaemonOptions::new(&work);
        let daemon = options.clone().torrent(&dead).start();
        let path = daemon.path(&dead.name);
        let mut reader = reader_at(&path, 3);
        eventually("the read waits", Duration::from_secs(10), || {
            (daemon.json(&["status"])["waiting_reads"].as_u64()? >= 1).then_some(())
        });
        let mountpoint = daemon.mountpoint().to_owned();
        // One that sits in the mount, which keeps it busy, and outlives the daemon.
        let _holder = Background::spawn(Command::new("sleep").arg("60").current_dir(&mountpoint));
        daemon.crash();
        let status = reader.ended_within(AT_ONCE).expect("the reader ends with the daemon");
        assert!(!status.success());
        assert!(
            is_mounted(&mountpoint),
            "a crash leaves the mount, or this test shows nothing"
        );
        let daemon = options.start();
        let listing = run(Command::new("ls").arg(daemon.mountpoint()), Duration::from_secs(10))
            .ok()
            .text();
        assert_eq!(listing.trim(), "dead.bin", "the library is as it was");
        daemon.stop();
    });
}

/// "`fusermount3 -u` from outside is a clean exit 0."
#[test]
fn an_unmount_from_outside_is_a_clean_end() {
    limited(Duration::from_secs(30), || {
        let work = Work::new();
        let mut daemon = DaemonOptions::new(&work).start();
        run(
            Command::new("fusermount3").arg("-u").arg(daemon.mountpoint()),
            Duration::from_secs(10),
        )
        .ok();
        let status = daemon.ended_within(Duration::from_secs(3));
        assert_eq!(status.and_then(|status| status.code()), Some(0), "{status:?}");
    });
}
