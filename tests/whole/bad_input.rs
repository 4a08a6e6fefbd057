//! "Bad input is refused with a clear message and an exit status, and disturbs nothing else."

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::support::daemon::PROGRAM;
use crate::support::limit::{Held, Registration, unmount};
use crate::support::swarm::Libtorrent;
use crate::support::torrents::{self, Bencode, Torrent, with_info};
use crate::support::{Daemon, DaemonOptions, Outcome, Work, eventually, limited, report, run, shell};

const PIECE: u64 = 65_536;

/// A sound info dictionary of one file in a folder, to be spoilt.
fn sound() -> Bencode {
    torrents::info_of_nothing("folder", &[("a".to_owned(), 100_000)], PIECE)
}

fn path_of(components: &[&[u8]]) -> Bencode {
    Bencode::List(
        components
            .iter()
            .map(|component| Bencode::Bytes(component.to_vec()))
            .collect(),
    )
}

fn file(length: Bencode, components: &[&[u8]]) -> Bencode {
    Bencode::dictionary([("length", length), ("path", path_of(components))])
}

/// A sound dictionary but for the paths of its files, of 100 bytes each.
fn with_paths(paths: &[&[&[u8]]]) -> Bencode {
    let files = paths.iter().map(|path| file(Bencode::Integer(100), path)).collect();
    sound()
        .with("files", Bencode::List(files))
        .with("pieces", Bencode::Bytes(vec![7; 20]))
}

fn bytes_of(info: Bencode) -> Vec<u8> {
    with_info(info).0
}

/// What is wrong, the bytes, and words of which the message holds at least one.
type Bad = (&'static str, Vec<u8>, &'static [&'static str]);

fn bad_torrents() -> Vec<Bad> {
    let long = vec![b'n'; 256];
    let deep: Vec<&[u8]> = vec![b"d"; 2000];
    let mut bad: Vec<Bad> = vec![
        (
            "text",
            b"This is not a torrent.\n".to_vec(),
            &["not a torrent", "bencode"],
        ),
        ("nothing", Vec::new(), &["empty", "not a torrent", "bencode", "end"]),
        ("a film", torrents::noise(3, 100_000), &["not a torrent", "bencode"]),
        (
            "a web page",
            b"<!DOCTYPE html><html></html>".to_vec(),
            &["not a torrent", "bencode"],
        ),
        (
            "truncated",
            bytes_of(sound())[..120].to_vec(),
            &["ends", "truncated", "bencode", "cut"],
        ),
        (
            "nesting",
            vec![b'l'; 100_000],
            &["deep", "nest", "bencode", "not a torrent"],
        ),
        (
            "no info",
            Bencode::dictionary([("announce", Bencode::text("http://x/"))]).encoded(),
            &["info"],
        ),
        (
            "piece length 0",
            bytes_of(sound().with("piece length", Bencode::Integer(0))),
            &["piece length"],
        ),
        (
            "negative piece length",
            bytes_of(sound().with("piece length", Bencode::Digits("-16384"))),
            &["piece length"],
        ),
        (
            "piece length of 1 TiB",
            bytes_of(sound().with("piece length", Bencode::Integer(1 << 40))),
            &["piece length"],
        ),
        (
            "too few hashes",
            bytes_of(sound().with("pieces", Bencode::Bytes(vec![1; 20]))),
            &["piece"],
        ),
        (
            "too many hashes",
            bytes_of(sound().with("pieces", Bencode::Bytes(vec![1; 60]))),
            &["piece"],
        ),
        (
            "half a hash",
            bytes_of(sound().with("pieces", Bencode::Bytes(vec![1; 30]))),
            &["piece", "hash"],
        ),
        (
            "no hashes",
            bytes_of(sound().with("pieces", Bencode::Integer(1))),
            &["pieces"],
        ),
    ];
    for (name, length) in [
        ("length over 64 bits", Bencode::Digits("18446744073709551616")),
        ("length of 64 bits", Bencode::Digits("18446744073709551615")),
        ("length of 63 bits", Bencode::Digits("9223372036854775807")),
        ("negative length", Bencode::Digits("-1")),
    ] {
        let files = vec![
            file(length, &[b"a"]),
            file(Bencode::Digits("9223372036854775807"), &[b"b"]),
        ];
        let words: &[&str] = &["length", "large", "size", "number", "integer", "big", "more than"];
        bad.push((name, bytes_of(sound().with("files", Bencode::List(files))), words));
    }
    let unsafe_name: &[&str] = &["name", "path"];
    for (name, path) in [
        ("parent", [b"..".as_slice(), b"passwd".as_slice()]),
        ("here", [b"."[..].as_ref(), b"a"]),
        ("empty component", [b"", b"a"]),
        ("absolute", [b"/etc", b"passwd"]),
        ("slash inside", [b"a/b", b"c"]),
        ("NUL", [b"a\0b", b"c"]),
        ("256 bytes", [&long, b"c"]),
    ] {
        bad.push((name, bytes_of(with_paths(&[&path])), unsafe_name));
    }
    for (name, top) in [
        ("name ..", ".."),
        ("name /", "/etc"),
        ("name with NUL", "a\0b"),
        ("name empty", ""),
    ] {
        bad.push((name, bytes_of(sound().with("name", Bencode::text(top))), unsafe_name));
    }
    let twice: &[&str] = &["twice", "duplicate", "clash", "beside", "name", "path"];
    bad.push(("no path", bytes_of(with_paths(&[&[]])), unsafe_name));
    bad.push(("2000 folders deep", bytes_of(with_paths(&[&deep])), &["deep", "path"]));
    bad.push(("./a beside a", bytes_of(with_paths(&[&[b".", b"a"], &[b"a"]])), twice));
    bad.push(("a twice", bytes_of(with_paths(&[&[b"a"], &[b"a"]])), twice));
    bad.push((
        "a file as a folder",
        bytes_of(with_paths(&[&[b"a"], &[b"a", b"b"]])),
        twice,
    ));
    let link = file(Bencode::Integer(0), &[b"link"])
        .with("attr", Bencode::text("l"))
        .with("symlink path", path_of(&[b"..", b"..", b"etc", b"passwd"]));
    let files = Bencode::List(vec![file(Bencode::Integer(100_000), &[b"a"]), link]);
    bad.push(("symbolic link", bytes_of(sound().with("files", files)), &["link"]));
    let second_version = Bencode::dictionary([
        ("name", Bencode::text("v2")),
        ("piece length", Bencode::Integer(PIECE)),
        ("meta version", Bencode::Integer(2)),
        ("file tree", Bencode::Dictionary(Default::default())),
    ]);
    bad.push((
        "v2 alone",
        bytes_of(second_version),
        &["v2", "version 2", "BitTorrent 2"],
    ));
    bad
}

/// A healthy torrent in a daemon, which must be there and readable after whatever it is given.
struct Undisturbed {
    daemon: Daemon,
    torrent: Torrent,
    _seeder: Libtorrent,
    work: Work,
}

impl Undisturbed {
    fn new() -> Self {
        let work = Work::new();
        let torrent = torrents::single_file(&work, "healthy.bin", 1 << 20, PIECE);
        let seeder = Libtorrent::seed(&[&torrent]);
        let daemon = DaemonOptions::new(&work).torrent(&torrent).peer(seeder.address).start();
        Self {
            daemon,
            torrent,
            _seeder: seeder,
            work,
        }
    }

    /// Adds what must be refused: status 1, one message, which says so in one of these words.
    fn refuses(&self, what: &str, source: &str, words: &[&str]) {
        let outcome = self.daemon.control(&["add", source]).fails_with(1);
        says(what, &outcome, words);
    }

    fn check(self) {
        let list = self.daemon.json(&["list"]);
        let names: Vec<&str> = list
            .as_array()
            .expect("an array")
            .iter()
            .filter_map(|e| e["name"].as_str())
            .collect();
        assert_eq!(names, ["healthy.bin"]);
        let listing = run(Command::new("ls").arg(self.daemon.mountpoint()), Duration::from_secs(5))
            .ok()
            .text();
        assert_eq!(listing, "healthy.bin\n");
        let path = self.daemon.path(&self.torrent.name);
        run(
            Command::new("cmp").arg(path).arg(self.torrent.source()),
            Duration::from_secs(30),
        )
        .ok();
        self.daemon.stop();
    }
}

/// A message for people: it begins with the program's name, holds one of the words, and no trace of a panic.
fn says(what: &str, outcome: &Outcome, words: &[&str]) {
    let message = &outcome.stderr;
    assert!(message.starts_with("magnetfs: "), "{what}: {message:?}");
    let found = words
        .iter()
        .any(|word| message.to_lowercase().contains(&word.to_lowercase()));
    assert!(found, "{what}: none of {words:?} in {message:?}");
    assert!(
        !message.contains("panicked") && !message.contains("src/"),
        "{what}: {message:?}"
    );
    assert!(message.len() < 1500, "{what}: a message of {} bytes", message.len());
}

#[test]
fn bad_torrents_are_refused_in_words() {
    limited(Duration::from_secs(120), || {
        let undisturbed = Undisturbed::new();
        for (number, (what, bytes, words)) in bad_torrents().into_iter().enumerate() {
            let path = undisturbed.work.path().join(format!("bad-{number}.torrent"));
            fs::write(&path, bytes).expect("a bad .torrent");
            undisturbed.refuses(what, &path.to_string_lossy(), words);
        }
        undisturbed.check();
    });
}

#[test]
fn bad_sources_are_refused_in_words() {
    limited(Duration::from_secs(90), || {
        let undisturbed = Undisturbed::new();
        let work = undisturbed.work.path().to_string_lossy().into_owned();
        let refused = TcpListener::bind("127.0.0.1:0")
            .and_then(|it| it.local_addr())
            .expect("a free port");
        let web = web_server();
        let sources: [(&str, String, &[&str]); 11] = [
            ("missing file", format!("{work}/missing.torrent"), &["missing.torrent"]),
            ("folder", work, &["directory", "folder", "not a plain file"]),
            (
                "magnet without hash",
                "magnet:?dn=name".to_owned(),
                &["info hash", "xt"],
            ),
            (
                "magnet with half a hash",
                "magnet:?xt=urn:btih:0123456789".to_owned(),
                &["info hash", "hash", "xt"],
            ),
            (
                "magnet with no hex",
                format!("magnet:?xt=urn:btih:{}", "z".repeat(40)),
                &["info hash", "hash", "xt"],
            ),
            (
                "v2 magnet",
                format!("magnet:?xt=urn:btmh:1220{}", "ab".repeat(32)),
                &["v2", "version 2", "btmh"],
            ),
            (
                "no server",
                format!("http://{refused}/a.torrent"),
                &["connect", &format!("{refused}")],
            ),
            ("404", format!("http://{web}/missing"), &["404"]),
            ("a page", format!("http://{web}/page"), &["not a torrent", "bencode"]),
            (
                "endless",
                format!("http://{web}/endless"),
                &["large", "limit", "MiB", "more than"],
            ),
            (
                "another scheme",
                "ftp://127.0.0.1/a.torrent".to_owned(),
                &["ftp", "http"],
            ),
        ];
        for (what, source, words) in sources {
            undisturbed.refuses(what, &source, words);
        }
        undisturbed.check();
    });
}

/// A web server that has nothing, a page, and a file without end.
fn web_server() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || answer(stream));
        }
    });
    address
}

fn answer(mut stream: std::net::TcpStream) {
    let mut request = [0; 4096];
    let length = stream.read(&mut request).unwrap_or(0);
    let request = String::from_utf8_lossy(&request[..length]).into_owned();
    let head = |status: &str| format!("HTTP/1.1 {status}\r\nConnection: close\r\n\r\n");
    if request.starts_with("GET /page") {
        let _ = stream.write_all((head("200 OK") + "<html></html>").as_bytes());
    } else if request.starts_with("GET /endless") {
        let _ = stream.write_all(head("200 OK").as_bytes());
        while stream.write_all(&[b'd'; 65_536]).is_ok() {}
    } else {
        let _ = stream.write_all(head("404 Not Found").as_bytes());
    }
}

/// "100,000 files, a 30 MB metainfo": large is not bad. They are shown, at once and whole.
#[test]
fn large_torrents_are_shown() {
    limited(Duration::from_secs(120), || {
        let undisturbed = Undisturbed::new();
        let daemon = &undisturbed.daemon;
        let files: Vec<(String, u64)> = (0..100_000).map(|n| (format!("{}/{n}", n / 1000), 1000)).collect();
        let many = bytes_of(torrents::info_of_nothing("many", &files, 1 << 20));
        let comment = Bencode::Bytes(vec![b'c'; 12_000_000]);
        let pieces: u64 = 900_000;
        let large = torrents::info_of_nothing("large", &[("a".to_owned(), pieces * 16_384)], 16_384);
        let large = Bencode::dictionary([("info", large), ("comment", comment)]).encoded();
        assert!(large.len() >= 30_000_000);

        for (name, bytes, count) in [("many", many, "100101\n"), ("large", large, "2\n")] {
            let path = undisturbed.work.path().join(name);
            fs::write(&path, bytes).expect("a large .torrent");
            let added = daemon.control(&["add", &path.to_string_lossy()]).ok();
            let shown = daemon.path(name);
            let found = run(
                &mut shell(r#"find "$1" | wc -l"#, &[shown.as_os_str()]),
                Duration::from_secs(20),
            )
            .ok();
            assert_eq!(found.text(), count, "{name}");
            report(&format!(
                "{name}: add {:.2} s, find {:.2} s",
                added.took.as_secs_f64(),
                found.took.as_secs_f64()
            ));
            daemon.control(&["remove", name]).ok();
        }
        undisturbed.check();
    });
}

/// Starts a daemon that must not come up.
fn does_not_mount(options: &DaemonOptions, words: &[&str]) {
    let outcome = run(&mut options.command(), Duration::from_secs(20)).fails_with(1);
    says("mount", &outcome, words);
    assert_eq!(outcome.text(), "", "it says that it has mounted");
}

#[test]
fn mount_points_that_will_not_do() {
    limited(Duration::from_secs(60), || {
        let work = Work::new();
        let options = DaemonOptions::new(&work);
        let missing = work.path().join("missing");
        does_not_mount(&options.clone().mountpoint(&missing), &["does not exist", "missing"]);

        let file = work.path().join("a-file");
        fs::write(&file, "x").expect("a file");
        does_not_mount(&options.clone().mountpoint(&file), &["not a directory"]);

        let full = work.directory("full");
        fs::write(full.join("photo"), "x").expect("a file");
        does_not_mount(&options.clone().mountpoint(&full), &["not empty"]);
        assert!(full.join("photo").exists());

        let daemon = options.start();
        let other = DaemonOptions::new(&work)
            .data_dir(&work.path().join("other"))
            .socket(&work.socket("other"));
        does_not_mount(&other, &["already"]);
        // Refusing the second has not disturbed the first.
        daemon.control(&["status"]).ok();
        run(Command::new("ls").arg(daemon.mountpoint()), Duration::from_secs(5)).ok();
        daemon.stop();
    });
}

/// Whether a test that needs root can be made; says so when not.
fn root(why: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        report(&format!("skipped, not root: {why}"));
    }
    root
}

#[test]
fn fuse_that_is_missing_is_named() {
    limited(Duration::from_secs(60), || {
        if !root("/dev/fuse cannot be hidden") {
            return;
        }
        let work = Work::new();
        // An empty file in the place of the device, and then a /dev without it, seen by the program alone.
        let script = r#"mount --bind "$1" /dev/fuse && shift && exec "$@""#;
        let empty = work.path().join("empty");
        fs::write(&empty, "").expect("an empty file");
        let arguments = DaemonOptions::new(&work).mount_arguments();
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", script, "sh"])
            .arg(&empty)
            .arg(PROGRAM)
            .arg("mount")
            .args(&arguments);
        says(
            "no device",
            &run(&mut command, Duration::from_secs(20)).fails_with(1),
            &["/dev/fuse"],
        );

        let script = r#"mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && exec "$@""#;
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", script, "sh", PROGRAM, "mount"])
            .args(&arguments);
        says(
            "no /dev/fuse",
            &run(&mut command, Duration::from_secs(20)).fails_with(1),
            &["/dev/fuse"],
        );

        let script = r#"mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && exec "$1" doctor"#;
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh", PROGRAM]);
        let outcome = run(&mut command, Duration::from_secs(20));
        assert!(
            outcome.text().contains("/dev/fuse"),
            "doctor does not name it: {}",
            outcome.text()
        );
    });
}

/// A file system of its own in the place of the data directory.
struct SmallDisk(
    PathBuf,
    #[expect(dead_code, reason = "held for what dropping it does")] Registration,
);

impl SmallDisk {
    fn new(path: &Path, mebibytes: u64) -> Self {
        fs::create_dir_all(path).expect("the data directory");
        let registration = Registration::of(Held::Mount(path.to_owned()));
        let mut command = Command::new("mount");
        command
            .args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "none"])
            .arg(path);
        run(&mut command, Duration::from_secs(10)).ok();
        Self(path.to_owned(), registration)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount(&self.0);
    }
}

/// "`kill -9` or a full disk at any moment loses nothing that was acknowledged." And it is named.
#[test]
fn a_full_disk_fails_reads_and_loses_nothing() {
    limited(Duration::from_secs(120), || {
        if !root("a small disk cannot be mounted") {
            return;
        }
        let work = Work::new();
        let data = work.path().join("data");
        let disk = SmallDisk::new(&data, 24);
        let torrent = torrents::single_file(&work, "large.bin", 48 << 20, PIECE * 4);
        let seeder = Libtorrent::seed(&[&torrent]);
        let options = DaemonOptions::new(&work)
            .option("--free-space-floor", "0")
            .option("--read-deadline", "5");
        let daemon = options.clone().torrent(&torrent).peer(seeder.address).start();

        let path = daemon.path(&torrent.name);
        let first = shell(
            r#"head -c 1000000 "$1" | cmp -n 1000000 - "$2""#,
            &[path.as_os_str(), torrent.source().as_os_str()],
        );
        run(&mut { first }, Duration::from_secs(30)).ok();
        let outcome = run(Command::new("cat").arg(&path), Duration::from_secs(60)).fails_with(1);
        assert!(outcome.stderr.contains("Input/output error"), "{}", outcome.stderr);
        assert!(
            outcome.stdout == torrents_prefix(&torrent, outcome.stdout.len()),
            "other bytes before the end"
        );
        let log = daemon.log().to_lowercase();
        assert!(
            ["space", "full"].iter().any(|word| log.contains(word)),
            "the log does not say that the disk is full"
        );

        // The rest of the disk, so that not even a small file can be written.
        let filler = data.join("filler");
        let fill = r#"head -c 100M /dev/zero > "$1"; head -c 4000 /dev/zero >> "$1"; true"#;
        run(&mut shell(fill, &[filler.as_os_str()]), Duration::from_secs(20)).ok();
        let late = torrents::without_source(&work, "late", 1 << 30, PIECE);
        let refused = daemon.control(&["add", &late.path.to_string_lossy()]).fails_with(1);
        says("add on a full disk", &refused, &["space", "full"]);
        daemon.crash();

        let daemon = options.start();
        let names: Vec<String> = torrent_names(&daemon);
        assert_eq!(names, ["large.bin"], "what was acknowledged is there, and nothing else");
        let outcome = run(Command::new("cat").arg(&path), Duration::from_secs(60)).fails_with(1);
        assert!(outcome.stderr.contains("Input/output error"), "{}", outcome.stderr);
        // With room again, and without a restart, it takes torrents and bytes again.
        run(
            Command::new("mount").args(["-o", "remount,size=64m"]).arg(&data),
            Duration::from_secs(10),
        )
        .ok();
        daemon.control(&["add", &late.path.to_string_lossy()]).ok();
        eventually("there is room", Duration::from_secs(10), || {
            (daemon.json(&["status"])["storing"] == true).then_some(())
        });
        let mut command = Command::new("cmp");
        run(
            command.arg(daemon.path(&torrent.name)).arg(torrent.source()),
            Duration::from_secs(40),
        )
        .ok();
        daemon.stop();
        drop(disk);
    });
}

fn torrents_prefix(torrent: &Torrent, length: usize) -> Vec<u8> {
    let mut bytes = fs::read(torrent.source()).expect("the source");
    bytes.truncate(length);
    bytes
}

fn torrent_names(daemon: &Daemon) -> Vec<String> {
    let list = daemon.json(&["list"]);
    list.as_array()
        .expect("an array")
        .iter()
        .filter_map(|e| e["name"].as_str().map(str::to_owned))
        .collect()
}

/// "Below the free-space floor nothing more is stored, reads of what is missing fail with a clear log line."
#[test]
fn nothing_is_stored_below_the_floor() {
    limited(Duration::from_secs(60), || {
        let work = Work::new();
        let torrent = torrents::single_file(&work, "file.bin", 4 << 20, PIECE);
        let seeder = Libtorrent::seed(&[&torrent]);
        // Every disk is below a floor of nearly all of it.
        let options = DaemonOptions::new(&work)
            .option("--free-space-floor", "99.9%")
            .option("--read-deadline", "5");
        let daemon = options.torrent(&torrent).peer(seeder.address).start();
        let outcome = run(
            Command::new("cat").arg(daemon.path(&torrent.name)),
            Duration::from_secs(30),
        )
        .fails_with(1);
        assert!(outcome.stderr.contains("Input/output error"), "{}", outcome.stderr);
        assert!(daemon.log().contains("space"), "the log does not say why");
        let status = daemon.json(&["status"]);
        assert_eq!(status["storing"], false, "{status}");
        assert_eq!(daemon.listed(&torrent.name).expect("it is listed")["bytes_here"], 0);
        daemon.stop();
    });
}
