//! "A read returns the torrent's bytes, verified, or an error; never other bytes, never fewer." Every file through the
//! mount equals its source, whoever seeds it, however the torrent is cut, and however it is read.

use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::swarm::{Librqbit, Libtorrent, Transmission};
use crate::support::torrents::{self, Kind, Torrent};
use crate::support::{Background, Daemon, DaemonOptions, Work, limited, report, run, shell};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// A folder whose pieces span files, with empty files and files smaller than a piece.
const FOLDER: &[(&str, usize)] = &[
    ("empty", 0),
    ("first.bin", 3 * MIB + 17),
    ("inner/also empty", 0),
    ("inner/deep/one byte", 1),
    ("inner/small.txt", 700),
    ("inner/smaller.txt", 69),
    ("second.bin", 2 * MIB - 1),
    ("third", 300 * KIB),
];

/// Names as people give them.
const NAMES: &[(&str, usize)] = &[
    ("Амели (2001)/Амели — фильм.mkv", 600_000),
    ("日本語/ファイル 01.txt", 40_000),
    ("  leading and trailing  ", 5_000),
    ("naïve café \u{1F3AC}.bin", 70_001),
    ("quotes ' \" ` $HOME; & |.txt", 1_000),
    (".hidden", 10),
    ("-rf", 10),
];

#[test]
fn every_byte_from_libtorrent() {
    limited(Duration::from_secs(150), || {
        let work = Work::new();
        let source = torrents::source_folder(&work, "hybrid v1+v2", FOLDER);
        let hybrid = torrents::make_with_libtorrent(&work, &source, Kind::Hybrid, 256 * 1024);
        let source = torrents::source_folder(&work, "padded", FOLDER);
        let padded = torrents::make_with_libtorrent(&work, &source, Kind::Padded, 64 * 1024);
        let all = [
            torrents::single_file(&work, "single file.bin", 12 * MIB + 5, 256 * 1024),
            torrents::folder(&work, "spanning", FOLDER, 512 * 1024),
            torrents::folder(&work, "имена и имена", NAMES, 32 * 1024),
            hybrid,
            padded,
        ];
        let seeder = Libtorrent::seed(&all.iter().collect::<Vec<_>>());
        assert_same_through_mount(&work, &all, seeder.address);
    });
}

#[test]
fn every_byte_from_transmission() {
    limited(Duration::from_secs(150), || {
        let work = Work::new();
        // transmission-create leaves empty files out.
        let source = torrents::source_folder(&work, "by transmission", &[("a/b.bin", 2 * MIB + 3), ("c", 10)]);
        let all = [
            torrents::make_with_transmission(&work, &source, 128 * 1024),
            torrents::single_file(&work, "single.bin", 3 * MIB + 5, 1024 * 1024),
            torrents::folder(&work, "spanning", FOLDER, 256 * 1024),
            torrents::folder(&work, "names", &that_transmission_keeps(NAMES), 16 * 1024),
        ];
        let seeder = Transmission::seed(&work, &all.iter().collect::<Vec<_>>());
        assert_same_through_mount(&work, &all, seeder.address);
    });
}

/// Transmission writes some names otherwise on its disk, and so does not find a source of that name.
fn that_transmission_keeps<'a>(names: &[(&'a str, usize)]) -> Vec<(&'a str, usize)> {
    let kept = |name: &str| name.trim() == name && !name.contains(['"', '|']);
    names.iter().copied().filter(|(name, _)| kept(name)).collect()
}

#[test]
fn every_byte_from_librqbit() {
    limited(Duration::from_secs(150), || {
        let work = Work::new();
        let all = [
            torrents::single_file(&work, "single.bin", 12 * MIB + 5, 1024 * 1024),
            torrents::folder(&work, "spanning", FOLDER, 256 * 1024),
            torrents::folder(&work, "names", NAMES, 16 * 1024),
        ];
        let seeder = Librqbit::seed(&work, &all.iter().collect::<Vec<_>>());
        assert_same_through_mount(&work, &all, seeder.address);
    });
}

#[test]
fn every_piece_size_from_16_kib_to_16_mib() {
    limited(Duration::from_secs(150), || {
        let work = Work::new();
        let all: Vec<Torrent> = (14..=24)
            .map(|power| {
                let piece = 1usize << power;
                // Two pieces and the rest of a third.
                torrents::single_file(
                    &work,
                    &format!("pieces of {piece}"),
                    2 * piece + piece / 3 + 1,
                    piece as u64,
                )
            })
            .collect();
        let seeder = Libtorrent::seed(&all.iter().collect::<Vec<_>>());
        assert_same_through_mount(&work, &all, seeder.address);
    });
}

/// Mounts the torrents with this seeder, and compares every file, its size and the list of files.
fn assert_same_through_mount(work: &Work, all: &[Torrent], seeder: SocketAddr) {
    let options = all.iter().fold(DaemonOptions::new(work), DaemonOptions::torrent);
    let daemon = options.peer(seeder).start();
    // All at once, each torrent in its own order: a file of each is being waited for at any time.
    let readers: Vec<(&Torrent, Background)> = all.iter().map(|torrent| (torrent, sums(&daemon, torrent))).collect();
    for (torrent, reader) in readers {
        let outcome = reader.outcome(Duration::from_secs(120));
        let outcome = outcome
            .unwrap_or_else(|| panic!("{} is not read through", torrent.name))
            .ok();
        let expected = run(
            &mut sums_command(&torrent.directory, &torrent.name),
            Duration::from_secs(30),
        )
        .ok()
        .text();
        assert_eq!(outcome.text(), expected, "{}", torrent.name);
        assert_eq!(
            listing(&daemon.path(&torrent.name)),
            listing(&torrent.source()),
            "{}",
            torrent.name
        );
        report(&format!("{}: {:.1} s", torrent.name, outcome.took.as_secs_f64()));
    }
    daemon.stop();
}

/// sha256 of all files, as the mount shows them.
fn sums(daemon: &Daemon, torrent: &Torrent) -> Background {
    Background::spawn(&mut sums_command(daemon.mountpoint(), &torrent.name))
}

fn sums_command(directory: &Path, name: &str) -> Command {
    let script = r#"cd "$1" && find "$2" -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum"#;
    shell(script, &[directory.as_os_str(), OsStr::new(name)])
}

/// The files and directories below a path with their sizes, in order.
fn listing(path: &Path) -> String {
    let script = r#"cd "$1" && find . \( -type f -printf 'file %s %P\n' \) -o -printf 'other %y %P\n' | LC_ALL=C sort"#;
    if path.is_dir() {
        run(&mut shell(script, &[path.as_os_str()]), Duration::from_secs(10))
            .ok()
            .text()
    } else {
        fs::metadata(path).expect("a file in the mount").len().to_string()
    }
}

/// Ways to read one file, each on a file of its own that nothing was read of before.
#[test]
fn every_way_to_read() {
    limited(Duration::from_secs(150), || {
        let work = Work::new();
        let names = ["sequence", "random", "backwards", "mmap", "cp", "dd"];
        let source = torrents::source_folder(&work, "ways", &names.map(|name| (name, 4 * MIB + 4321)));
        fio(&source, "checked by fio", &["--rw=write", "--do_verify=0"]);
        // Large pieces: librqbit takes up to 5 s to turn to one that lies before all that it was asked for.
        let torrent = torrents::make(&work, &source, 1024 * 1024);
        let seeder = Libtorrent::seed(&[&torrent]);
        let daemon = DaemonOptions::new(&work).torrent(&torrent).peer(seeder.address).start();
        let shown = daemon.path("ways");

        for mode in ["random", "backwards", "mmap"] {
            let mut command = Command::new("/usr/bin/python3");
            command
                .arg(torrents::script("reader.py"))
                .arg(mode)
                .arg(shown.join(mode))
                .arg(source.join(mode));
            run(&mut command, Duration::from_secs(60)).ok();
        }
        compare(&shown.join("sequence"), &source.join("sequence"));

        let copy = work.path().join("copy");
        run(
            Command::new("cp").arg(shown.join("cp")).arg(&copy),
            Duration::from_secs(60),
        )
        .ok();
        compare(&copy, &source.join("cp"));

        dd_at_odd_offsets(&shown.join("dd"), &source.join("dd"));

        // Eight readers of one file at once, each of which verifies the checksum in every block.
        fio(
            &shown,
            "checked by fio",
            &["--rw=randread", "--numjobs=8", "--readonly", "--group_reporting"],
        );
        daemon.stop();
    });
}

/// Blocks of fio's own, with a checksum in each, written or read and verified.
fn fio(directory: &Path, file: &str, arguments: &[&str]) {
    let mut command = Command::new("fio");
    command.args([
        "--name=blocks",
        "--bs=64k",
        "--size=8m",
        "--ioengine=psync",
        "--verify=crc32c",
    ]);
    command
        .args(["--allow_file_create=1", "--verify_fatal=1", "--verify_state_save=0"])
        .args(arguments);
    command.arg(format!("--filename={}", directory.join(file).display()));
    run(&mut command, Duration::from_secs(60)).ok();
}

fn compare(one: &Path, other: &Path) {
    run(Command::new("cmp").arg(one).arg(other), Duration::from_secs(60)).ok();
}

/// `dd` from offsets that are no multiple of anything, up to the end, and beyond it.
fn dd_at_odd_offsets(path: &Path, source: &Path) {
    let bytes = fs::read(source).expect("the source");
    let size = bytes.len();
    let reads = [
        (1, 1),
        (4095, 2),
        (131_071, 131_075),
        (size - 7, 3),
        (size - 7, 100_000),
        (size - 1, 1),
        (size, 10),
        (size + 12_345, 10),
    ];
    for (offset, length) in reads {
        let input = PathBuf::from(path);
        let mut command = Command::new("dd");
        command
            .arg(format!("if={}", input.display()))
            .args(["status=none", "count=1", "iflag=skip_bytes,fullblock"]);
        command.arg(format!("bs={length}")).arg(format!("skip={offset}"));
        let outcome = run(&mut command, Duration::from_secs(60)).ok();
        let expected = &bytes[offset.min(size)..(offset + length).min(size)];
        assert!(
            outcome.stdout == expected,
            "dd of {length} at {offset}: {} bytes",
            outcome.stdout.len()
        );
    }
}
