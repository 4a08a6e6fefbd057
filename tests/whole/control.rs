//! The command line against a running daemon, and what the tree shows of it.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::daemon::PROGRAM;
use crate::support::swarm::{Libtorrent, free_address};
use crate::support::torrents::{self, Torrent};
use crate::support::{Daemon, DaemonOptions, Outcome, Work, eventually, is_mounted, limited, run, shell};

const MIB: usize = 1 << 20;
const PIECE: u64 = 65_536;

fn program(arguments: &[&str]) -> Outcome {
    run(Command::new(PROGRAM).args(arguments), Duration::from_secs(10))
}

fn read_through(daemon: &Daemon, torrent: &Torrent) {
    let mut command = Command::new("diff");
    command.arg("-r").arg(daemon.path(&torrent.name)).arg(torrent.source());
    run(&mut command, Duration::from_secs(30)).ok();
}

fn names_in(path: &Path) -> Vec<String> {
    let listing = run(Command::new("ls").arg("-A").arg(path), Duration::from_secs(5))
        .ok()
        .text();
    listing.lines().map(str::to_owned).collect()
}

#[test]
fn the_command_line_teaches() {
    limited(Duration::from_secs(30), || {
        let help = program(&["--help"]).ok().text();
        for command in [
            "mount", "add", "list", "show", "remove", "pause", "resume", "unmount", "status", "doctor", "demo",
        ] {
            assert!(help.contains(command), "--help does not name {command}\n{help}");
        }
        let help = program(&["mount", "--help"]).ok().text();
        for option in [
            "--data-dir",
            "--socket",
            "--download",
            "--peer",
            "--listen",
            "--dht",
            "--lsd",
            "--upnp",
            "--trackers",
            "--upload-limit",
            "--download-limit",
            "--read-deadline",
            "--free-space-floor",
            "--allow-other",
            "--uid",
            "--gid",
            "--umask",
            "--http",
            "--http-token",
            "--stream-runs",
            "--log",
        ] {
            assert!(help.contains(option), "mount --help does not name {option}\n{help}");
        }
        assert!(program(&["--version"]).ok().text().starts_with("magnetfs "));
        for shell in ["bash", "zsh", "fish"] {
            assert!(
                program(&["completions", shell]).ok().text().contains("magnetfs"),
                "{shell}"
            );
        }
        assert!(program(&["man"]).ok().text().contains(".TH magnetfs"));
        let bash = shell(
            r#"bash -n /dev/stdin <<EOF
$("$1" completions bash)
EOF"#,
            &[PROGRAM.as_ref()],
        );
        run(&mut { bash }, Duration::from_secs(10)).ok();
        for usage in [
            &["mount"][..],
            &["mount", "/x", "--dht", "maybe"],
            &["frobnicate"],
            &["show"],
        ] {
            let outcome = program(usage).fails_with(2);
            assert!(
                outcome.stderr.contains("Usage") || outcome.stderr.contains("--help"),
                "{}",
                outcome.stderr
            );
        }
    });
}

#[test]
fn commands_without_a_daemon_say_so() {
    limited(Duration::from_secs(30), || {
        let work = Work::new();
        let options = DaemonOptions::new(&work);
        for arguments in [
            &["list"][..],
            &["status"],
            &["add", "magnet:?xt=urn:btih:0"],
            &["unmount"],
            &["pause", "abcd"],
        ] {
            let outcome = run(&mut options.control(arguments), Duration::from_secs(10)).fails_with(1);
            assert!(outcome.stderr.starts_with("magnetfs: "), "{}", outcome.stderr);
            assert!(
                outcome.stderr.contains("mount") || arguments[0] == "add",
                "no remedy: {}",
                outcome.stderr
            );
        }
    });
}

/// "A second `mount` on the same data directory is refused with the name of the mount and the `magnetfs add` that
/// would do."
#[test]
fn a_second_mount_of_the_same_library_is_refused() {
    limited(Duration::from_secs(30), || {
        let work = Work::new();
        let options = DaemonOptions::new(&work);
        let daemon = options.start();
        let second = options
            .clone()
            .mountpoint(&work.directory("second"))
            .socket(&work.socket("second"));
        let hash = "0123456789abcdef0123456789abcdef01234567";
        let outcome = run(&mut second.argument(hash).command(), Duration::from_secs(10)).fails_with(1);
        let message = &outcome.stderr;
        assert!(
            message.contains(&daemon.mountpoint().display().to_string()),
            "{message}"
        );
        assert!(message.contains("magnetfs add") && message.contains(hash), "{message}");
        daemon.stop();
    });
}

/// "What is not read is not fetched, unless the torrent is set to download whole." And a read fetches.
#[test]
fn what_is_not_read_is_not_fetched() {
    limited(Duration::from_secs(60), || {
        let work = Work::new();
        let torrent = torrents::folder(&work, "folder", &[("a.bin", MIB), ("b/c.bin", 2 * MIB)], PIECE);
        let seeder = Libtorrent::seed(&[&torrent]);
        let daemon = DaemonOptions::new(&work).torrent(&torrent).peer(seeder.address).start();
        let list = shell(
            r#"ls -laR "$1" && find "$1" -ls && du -a "$1""#,
            &[daemon.mountpoint().as_os_str()],
        );
        run(&mut { list }, Duration::from_secs(10)).ok();
        let entry = daemon.listed("folder").expect("it is listed");
        assert_eq!(
            (&entry["fetched"], &entry["bytes_here"]),
            (&0.into(), &0.into()),
            "{entry}"
        );
        // It has met its peers, for whoever adds one torrent is about to read it.
        assert_eq!(entry["state"], "active", "{entry}");
        assert_eq!(seeder.uploaded(), 0);

        read_through(&daemon, &torrent);
        let entry = daemon.listed("folder").expect("it is listed");
        assert_eq!(entry["bytes_here"], 3 * MIB, "{entry}");
        assert_eq!(entry["state"], "complete", "{entry}");
        assert!(seeder.uploaded() >= 3 * MIB as u64);
        daemon.stop();
    });
}

/// "`--download whole`": all of it comes without a read.
#[test]
fn a_whole_download_needs_no_reader() {
    limited(Duration::from_secs(60), || {
        let work = Work::new();
        let torrent = torrents::folder(&work, "folder", &[("a.bin", MIB), ("b/c.bin", 2 * MIB)], PIECE);
        let seeder = Libtorrent::seed(&[&torrent]);
        let daemon = DaemonOptions::new(&work).start();
        let path = torrent.path.to_string_lossy();
        daemon
            .control(&[
                "add",
                &path,
                "--download",
                "whole",
                "--peer",
                &seeder.address.to_string(),
            ])
            .ok();
        eventually("all is here", Duration::from_secs(40), || {
            (daemon.listed("folder")?["state"] == "complete").then_some(())
        });
        drop(seeder);
        read_through(&daemon, &torrent);
        daemon.stop();
    });
}

/// "A magnet that is not resolved yet does not hold the mount up: its folder appears when it is."
#[test]
fn a_magnet_appears_when_a_peer_has_told_what_it_is() {
    limited(Duration::from_secs(90), || {
        let work = Work::new();
        let torrent = torrents::folder(&work, "folder", &[("a.bin", MIB), ("b", 20)], PIECE);
        let address = free_address();
        let magnet = format!("magnet:?xt=urn:btih:{}&dn=some+name&x.pe={address}", torrent.info_hash);
        let daemon = DaemonOptions::new(&work).argument(&magnet).start();
        assert!(names_in(daemon.mountpoint()).is_empty());
        let entry = daemon
            .listed("some name")
            .expect("an unresolved magnet is listed by its display name");
        assert_eq!(entry["state"], "resolving");

        let seeding = crate::support::swarm::Seeding {
            address: Some(address),
            ..Default::default()
        };
        let _seeder = Libtorrent::seed_with(&[&torrent], &seeding);
        eventually("the folder appears", Duration::from_secs(40), || {
            (names_in(daemon.mountpoint()) == ["folder"]).then_some(())
        });
        read_through(&daemon, &torrent);
        daemon.stop();
    });
}

/// `add` of a magnet waits until it is resolved, and not with `--no-wait`; a bare info hash is a magnet.
#[test]
fn add_waits_for_a_magnet_unless_told_not_to() {
    limited(Duration::from_secs(60), || {
        let work = Work::new();
        let torrent = torrents::single_file(&work, "a.bin", MIB, PIECE);
        let nobody = "0123456789abcdef0123456789abcdef01234567";
        let seeder = Libtorrent::seed(&[&torrent]);
        let daemon = DaemonOptions::new(&work).start();
        daemon.control(&["add", nobody, "--no-wait"]).ok();
        let entry = daemon.listed(nobody).expect("it is listed by its hash");
        assert_eq!(entry["state"], "error", "no peer can be found: {entry}");
        assert!(
            entry["error"].as_str().is_some_and(|error| error.contains("--peer")),
            "{entry}"
        );
        let added = daemon
            .control(&["add", &torrent.info_hash, "--peer", &seeder.address.to_string()])
            .ok()
            .text();
        assert!(added.contains("a.bin") && added.contains(&torrent.info_hash), "{added}");
        assert_eq!(names_in(daemon.mountpoint()), ["a.bin"]);
        read_through(&daemon, &torrent);
        // An unresolved one outlives a restart, and can be removed.
        daemon.stop();
        let daemon = DaemonOptions::new(&work).start();
        daemon.control(&["remove", nobody]).ok();
        assert!(daemon.listed(nobody).is_none());
        daemon.stop();
    });
}

/// An http URL of a .torrent is fetched.
#[test]
fn a_torrent_from_the_web_is_added() {
    limited(Duration::from_secs(30), || {
        let work = Work::new();
        let torrent = torrents::single_file(&work, "a.bin", MIB, PIECE);
        let web = serve(fs::read(&torrent.path).expect("the .torrent"));
        let daemon = DaemonOptions::new(&work).start();
        daemon.control(&["add", &format!("http://{web}/a.torrent")]).ok();
        assert_eq!(names_in(daemon.mountpoint()), ["a.bin"]);
        daemon.stop();
    });
}

/// Serves the same bytes to everyone, after one redirect.
fn serve(bytes: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = [0; 4096];
            let length = stream.read(&mut request).unwrap_or(0);
            let redirect = b"HTTP/1.1 302 Found\r\nLocation: /b\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            let found = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                bytes.len()
            );
            let answer = match request[..length].starts_with(b"GET /a.torrent") {
                true => redirect.to_vec(),
                false => [found.as_bytes(), &bytes].concat(),
            };
            let _ = stream.write_all(&answer);
        }
    });
    address
}

#[test]
fn torrents_are_shown_paused_resumed_and_removed() {
    limited(Duration::from_secs(90), || {
        let work = Work::new();
        let torrent = torrents::folder(&work, "a folder", &[("a.bin", MIB), ("b/c.bin", 3 * MIB)], PIECE);
        let seeder = Libtorrent::seed(&[&torrent]);
        let options = DaemonOptions::new(&work).option("--read-deadline", "5");
        let daemon = options.torrent(&torrent).peer(seeder.address).start();
        let hash = torrent.info_hash.as_str();

        let table = daemon.control(&["list"]).ok().text();
        assert!(table.contains("a folder"), "{table}");
        let detail = daemon.json(&["show", &hash[..6]]);
        assert_eq!(detail["info_hash"], hash, "{detail}");
        assert_eq!(detail["size"], 4 * MIB, "{detail}");
        assert_eq!(detail["piece_length"], PIECE, "{detail}");
        assert!(daemon.control(&["show", "a folder"]).ok().text().contains("c.bin"));
        let status = daemon.json(&["status"]);
        assert_eq!(status["torrents"], 1, "{status}");
        assert_eq!(status["pid"], daemon.pid(), "{status}");
        assert_eq!(
            status["mountpoint"],
            daemon.mountpoint().display().to_string(),
            "{status}"
        );

        daemon.control(&["pause", "a folder"]).ok();
        assert_eq!(daemon.listed("a folder").expect("it is listed")["state"], "paused");
        let mut command = Command::new("head");
        let outcome = run(
            command.arg("-c1").arg(daemon.path("a folder/a.bin")),
            Duration::from_secs(20),
        )
        .fails_with(1);
        assert!(outcome.stderr.contains("Input/output error"), "{}", outcome.stderr);
        daemon.control(&["resume", hash]).ok();
        eventually("it reads again", Duration::from_secs(20), || {
            let mut command = Command::new("head");
            let outcome = run(
                command.arg("-c1").arg(daemon.path("a folder/a.bin")),
                Duration::from_secs(20),
            );
            outcome.status.success().then_some(())
        });
        read_through(&daemon, &torrent);

        for unknown in ["nothing like it", "ffffffffffffffffffffffffffffffffffffffff"] {
            let outcome = daemon.control(&["remove", unknown]).fails_with(1);
            assert!(outcome.stderr.contains(unknown), "{}", outcome.stderr);
        }
        // Removing leaves the data unless told otherwise, and a second time there is none left to find again.
        let files = daemon.data_dir().join("files").join(hash);
        daemon.control(&["remove", hash]).ok();
        assert!(names_in(daemon.mountpoint()).is_empty());
        assert!(files.exists(), "the data went without --delete-data");
        daemon.add(&torrent, Some(seeder.address));
        read_through(&daemon, &torrent);
        daemon.control(&["remove", hash, "--delete-data"]).ok();
        assert!(!files.exists(), "the data is still there");
        daemon.stop();
    });
}

/// A reader of a removed torrent is not left waiting, and other torrents stay.
#[test]
fn removing_a_torrent_ends_its_reads() {
    limited(Duration::from_secs(60), || {
        let work = Work::new();
        let dead = torrents::without_source(&work, "dead", 1 << 20, PIECE);
        let other = torrents::without_source(&work, "other", 1 << 20, PIECE);
        let daemon = DaemonOptions::new(&work).torrent(&dead).torrent(&other).start();
        let mut command = Command::new("head");
        let reader = crate::support::Background::spawn(command.arg("-c1").arg(daemon.path("dead")));
        eventually("the read waits", Duration::from_secs(10), || {
            (daemon.json(&["status"])["waiting_reads"].as_u64()? >= 1).then_some(())
        });
        daemon.control(&["remove", "dead"]).ok();
        let outcome = reader
            .outcome(Duration::from_secs(3))
            .expect("the read ends with its torrent");
        assert!(!outcome.status.success());
        assert_eq!(names_in(daemon.mountpoint()), ["other"]);
        daemon.stop();
    });
}

#[test]
fn unmount_ends_the_daemon() {
    limited(Duration::from_secs(30), || {
        let work = Work::new();
        let mut daemon = DaemonOptions::new(&work).start();
        daemon.control(&["unmount"]).ok();
        let status = daemon.ended_within(Duration::from_secs(3));
        assert_eq!(status.and_then(|status| status.code()), Some(0), "{status:?}");
        assert!(!is_mounted(daemon.mountpoint()));
    });
}

/// "Name clashes get a suffix of the info hash (the newcomer; a path never changes)."
#[test]
fn the_newcomer_of_two_with_one_name_gets_the_suffix() {
    limited(Duration::from_secs(30), || {
        let (first_work, second_work) = (Work::new(), Work::new());
        let first = torrents::without_source(&first_work, "film.mkv", 1 << 20, PIECE);
        let second = torrents::without_source(&second_work, "film.mkv", 2 << 20, PIECE);
        let options = DaemonOptions::new(&first_work);
        let daemon = options.clone().torrent(&first).start();
        daemon.add(&second, None);
        let mut expected = vec!["film.mkv".to_owned(), format!("film [{}].mkv", &second.info_hash[..8])];
        expected.sort();
        let mut names = names_in(daemon.mountpoint());
        names.sort();
        assert_eq!(names, expected);
        daemon.control(&["remove", &first.info_hash]).ok();
        daemon.stop();
        let daemon = options.start();
        assert_eq!(
            names_in(daemon.mountpoint()),
            [format!("film [{}].mkv", &second.info_hash[..8])]
        );
        daemon.stop();
    });
}

/// Inode numbers, times, modes and sizes of everything in the mount.
fn stats(daemon: &Daemon) -> String {
    let script = r#"cd "$1" && find . -printf '%i %T@ %C@ %m %s %U %G %y %p\n' | sort -k9"#;
    run(
        &mut shell(script, &[daemon.mountpoint().as_os_str()]),
        Duration::from_secs(10),
    )
    .ok()
    .text()
}

/// "Paths, inode numbers and times stay the same over restarts." "The mount is read-only." "Sizes exact, modes read-only, stable inodes and mtimes over restarts, `st_blocks` after the bytes really here,
/// `statfs` meaningful, xattrs `user.magnetfs.*`."
#[test]
fn the_tree_is_stable_and_tells_the_truth() {
    limited(Duration::from_secs(90), || {
        let work = Work::new();
        let folder = torrents::folder(
            &work,
            "folder",
            &[("a.bin", MIB), ("b/c.bin", 2 * MIB + 1), ("d", 0)],
            PIECE,
        );
        let single = torrents::single_file(&work, "single.bin", MIB, PIECE);
        let seeder = Libtorrent::seed(&[&folder, &single]);
        let options = DaemonOptions::new(&work);
        let daemon = options
            .clone()
            .torrent(&folder)
            .torrent(&single)
            .peer(seeder.address)
            .start();
        let before = stats(&daemon);

        let path = daemon.path("single.bin");
        let metadata = |path: &Path| fs::metadata(path).expect("stat never waits");
        assert_eq!(metadata(&path).len(), MIB as u64);
        assert_eq!(metadata(&path).permissions().mode() & 0o222, 0, "no one may write");
        assert!(metadata(&path).blocks() <= 1, "nothing is here yet");
        assert_eq!(metadata(&daemon.path("folder/d")).len(), 0);
        assert_eq!(attribute(&path, "progress"), "0.0000");
        assert_eq!(attribute(&path, "info_hash"), single.info_hash);
        assert_eq!(attribute(&path, "piece_length"), PIECE.to_string());

        read_through(&daemon, &single);
        let full = MIB as u64 / 512;
        eventually("st_blocks follows", Duration::from_secs(5), || {
            (metadata(&path).blocks() == full).then_some(())
        });
        assert_eq!(attribute(&path, "progress"), "1.0000");
        assert_eq!(attribute(&path, "bytes_here"), MIB.to_string());
        assert_eq!(attribute(&path, "state"), "complete");

        let statfs = run(
            Command::new("stat").args(["-f", "-c", "%b %S"]).arg(&path),
            Duration::from_secs(5),
        )
        .ok();
        assert!(!statfs.text().starts_with("0 "), "{}", statfs.text());

        // Nothing in it can be written, whoever asks.
        for script in [
            r#"echo > "$1""#,
            r#"rm -f "$1""#,
            r#"mv "$1" "$1-2""#,
            r#"touch "$1""#,
            r#"mkdir "$1-d""#,
        ] {
            let outcome = run(&mut shell(script, &[path.as_os_str()]), Duration::from_secs(5));
            assert!(!outcome.status.success(), "{script} succeeded");
        }
        assert!(fs::File::options().write(true).open(&path).is_err());

        daemon.stop();
        let daemon = options.clone().start();
        assert_eq!(stats(&daemon), before, "after a clean stop");
        daemon.crash();
        let daemon = options.start();
        assert_eq!(stats(&daemon), before, "after a crash");
        daemon.stop();
    });
}

fn attribute(path: &Path, name: &str) -> String {
    let mut command = Command::new("getfattr");
    command
        .args(["--only-values", "-n", &format!("user.magnetfs.{name}")])
        .arg(path);
    run(&mut command, Duration::from_secs(5)).ok().text()
}

/// "The same keys in a TOML file and in `MAGNETFS_*` variables, flag over variable over file."
#[test]
fn flag_over_variable_over_file() {
    limited(Duration::from_secs(60), || {
        let work = Work::new();
        let configuration = work.directory("home/config/magnetfs");
        fs::write(
            configuration.join("config.toml"),
            "umask = \"0077\"\nuid = 11\ngid = 12\n",
        )
        .expect("a file");
        // Of the root: what lies in it is then closed to whoever runs this, unless that is root.
        let owner = |daemon: &Daemon| {
            let metadata = fs::metadata(daemon.mountpoint()).expect("the root of the mount");
            (metadata.uid(), metadata.gid(), metadata.permissions().mode() & 0o777)
        };
        let file = DaemonOptions::new(&work);
        let daemon = file.start();
        assert_eq!(owner(&daemon), (11, 12, 0o500), "from the file");
        daemon.stop();
        let variable = file.variable("MAGNETFS_UID", "21").variable("MAGNETFS_UMASK", "0027");
        let daemon = variable.start();
        assert_eq!(owner(&daemon), (21, 12, 0o550), "variables go over the file");
        daemon.stop();
        let daemon = variable.option("--uid", "31").start();
        assert_eq!(owner(&daemon), (31, 12, 0o550), "the flag goes over the variable");
        daemon.stop();

        fs::write(configuration.join("config.toml"), "umsak = \"0077\"\n").expect("a file");
        let outcome = run(&mut DaemonOptions::new(&work).command(), Duration::from_secs(10));
        assert!(matches!(outcome.status.code(), Some(1 | 2)), "{:?}", outcome.status);
        assert!(
            outcome.stderr.contains("umsak") && outcome.stderr.contains("config.toml"),
            "{}",
            outcome.stderr
        );
    });
}

/// The socket gives whoever may use it control over the daemon: nobody else may.
#[test]
fn the_socket_is_for_its_owner_alone() {
    limited(Duration::from_secs(30), || {
        let work = Work::new();
        let daemon = DaemonOptions::new(&work).start();
        let mode = fs::metadata(work.socket("control"))
            .expect("the socket")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        // Nonsense on the socket disturbs nobody.
        for nonsense in [&b"\n\n{}\nnot json\n"[..], &[b'a'; 100_000], b"\xff\xfe\n"] {
            let mut stream = std::os::unix::net::UnixStream::connect(work.socket("control")).expect("a connection");
            stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a limit");
            stream.set_write_timeout(Some(Duration::from_secs(5))).expect("a limit");
            let _ = stream.write_all(nonsense);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        }
        daemon.control(&["status"]).ok();
        daemon.stop();
    });
}

/// "Nothing in our process opens a path under the mount point."
#[test]
fn the_daemon_opens_nothing_in_its_own_mount() {
    limited(Duration::from_secs(60), || {
        let work = Work::new();
        let torrent = torrents::single_file(&work, "a.bin", 8 * MIB, PIECE);
        let seeder = Libtorrent::seed(&[&torrent]);
        let daemon = DaemonOptions::new(&work).torrent(&torrent).peer(seeder.address).start();
        let mut command = Command::new("cmp");
        command.arg(daemon.path(&torrent.name)).arg(torrent.source());
        let mut reader = crate::support::Background::spawn(&mut command);
        let began = Instant::now();
        while reader.is_running() {
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "the reader does not get through"
            );
            for entry in fs::read_dir(format!("/proc/{}/fd", daemon.pid()))
                .expect("its descriptors")
                .flatten()
            {
                let target = fs::read_link(entry.path()).unwrap_or_default();
                assert!(
                    !target.starts_with(daemon.mountpoint()),
                    "it has opened {}",
                    target.display()
                );
            }
        }
        reader.outcome(Duration::from_secs(1)).expect("it has ended").ok();
        daemon.stop();
    });
}
