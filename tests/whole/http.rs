//! HTTP from outside: the daemon's page, files and API, asked over a socket.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::support::swarm::{Libtorrent, Seeding};
use crate::support::torrents::{self, Torrent};
use crate::support::{Daemon, DaemonOptions, Work, eventually, limited, run};

const MIB: usize = 1 << 20;
const PIECE: u64 = 65_536;

/// No answer here takes so long.
const PATIENCE: Duration = Duration::from_secs(20);

struct Answer {
    status: u16,
    /// In lower case, a line each.
    headers: String,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    fn has(&self, header: &str) -> bool {
        self.headers.lines().any(|line| line == header)
    }
}

/// Sends a request, the headers a line each, and reads the answer to its end.
#[track_caller]
fn ask(address: SocketAddr, first: &str, headers: &str, body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).expect("the daemon listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
    let head = format!(
        "{first} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n{}\r\n",
        body.len(),
        headers.lines().map(|line| format!("{line}\r\n")).collect::<String>()
    );
    stream.write_all(head.as_bytes()).expect("a request");
    stream.write_all(body).expect("its body");
    let mut answer = Vec::new();
    stream
        .read_to_end(&mut answer)
        .unwrap_or_else(|error| panic!("{first}: {error}"));
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("{first}: {}", String::from_utf8_lossy(&answer)));
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    Answer {
        status: head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .expect("a status"),
        headers: head,
        body: answer.split_off(end + 4),
    }
}

#[track_caller]
fn get(address: SocketAddr, path: &str, headers: &str) -> Answer {
    ask(
        address,
        &format!("GET {path}"),
        &format!("Host: {address}\n{headers}"),
        b"",
    )
}

/// As the page does it.
#[track_caller]
fn write(address: SocketAddr, first: &str, content_type: &str, body: &[u8]) -> Answer {
    let headers = format!("Host: {address}\nOrigin: http://{address}\nContent-Type: {content_type}");
    ask(address, first, &headers, body)
}

fn files(torrent: &Torrent, path: &str) -> String {
    format!("/files/{}/{path}", torrent.info_hash)
}

/// Read through the mount, by a child.
fn through_the_mount(daemon: &Daemon, path: &str, from: u64, length: usize) -> Vec<u8> {
    let mut command = Command::new("dd");
    command.arg(format!("if={}", daemon.path(path).display()));
    command.args(["iflag=skip_bytes,count_bytes,fullblock", "bs=64K", "status=none"]);
    command.args([format!("skip={from}"), format!("count={length}")]);
    run(&mut command, Duration::from_secs(30)).ok().stdout
}

#[test]
fn files_and_their_ranges_are_those_of_the_mount() {
    limited(Duration::from_secs(90), || {
        let work = Work::new();
        let name = "two/100% #1?.bin";
        let folder = torrents::folder(&work, "some", &[("one.txt", 100_000), (name, 3 * MIB + 17)], PIECE);
        let single = torrents::single_file(&work, "single film.mkv", MIB + 1, PIECE);
        let seeder = Libtorrent::seed(&[&folder, &single]);
        let daemon = DaemonOptions::new(&work)
            .torrent(&folder)
            .torrent(&single)
            .peer(seeder.address)
            .start();
        let http = daemon.http();
        let (encoded, size) = (files(&folder, "two/100%25%20%231%3F.bin"), 3 * MIB as u64 + 17);
        let source = fs::read(folder.source().join(name)).expect("the source");
        for (range, from, length) in [
            ("bytes=2000000-2299999", 2_000_000, 300_000),
            ("bytes=-17", size - 17, 17),
            (
                "bytes=3000000-99999999",
                3_000_000,
                usize::try_from(size).unwrap() - 3_000_000,
            ),
        ] {
            let answer = get(http, &encoded, &format!("Range: {range}"));
            assert_eq!(answer.status, 206, "{range}: {}", answer.headers);
            let last = from + length as u64 - 1;
            assert!(
                answer.has(&format!("content-range: bytes {from}-{last}/{size}")),
                "{}",
                answer.headers
            );
            assert!(
                answer.body == source[usize::try_from(from).unwrap()..][..length],
                "{range}"
            );
            assert!(
                answer.body == through_the_mount(&daemon, &format!("some/{name}"), from, length),
                "{range}"
            );
        }
        let whole = get(http, &encoded, "");
        assert_eq!((whole.status, whole.body == source), (200, true));
        assert!(whole.has("x-content-type-options: nosniff") && whole.has("referrer-policy: no-referrer"));
        assert_eq!(get(http, &encoded, &format!("Range: bytes={size}-")).status, 416);
        let film = get(http, &files(&single, "single%20film.mkv"), "Range: bytes=0-9");
        assert!(film.has("content-type: video/x-matroska"), "{}", film.headers);
        assert!(film.body == fs::read(single.source()).expect("the source")[..10]);
        for nothing in [
            "some/one.txt",
            "../some/one.txt",
            "one.txt/",
            "two",
            "",
            "..%2f..%2fdaemon.log",
        ] {
            assert_eq!(get(http, &files(&folder, nothing), "").status, 404, "{nothing}");
        }
        let shown = get(http, &format!("/api/torrents/{}", folder.info_hash), "").json();
        let raw = shown["contents"]
            .as_array()
            .expect("files")
            .iter()
            .map(|file| file["raw"].as_str().expect("raw"));
        assert!(raw.clone().any(|raw| format!("/{raw}") == encoded), "{shown}");
        daemon.stop();
    });
}

#[test]
fn a_forged_host_gets_nothing() {
    limited(Duration::from_secs(30), || {
        let work = Work::new();
        let daemon = DaemonOptions::new(&work).option("--http-host", "media.lan").start();
        let http = daemon.http();
        assert!(http.ip().is_loopback());
        for path in ["/", "/api/torrents"] {
            assert_eq!(get(http, path, "").status, 200, "{path}");
            let by_name = ask(http, &format!("GET {path}"), "Host: media.lan:80", b"");
            assert_eq!(by_name.status, 200, "{path}");
            let forged = ask(http, &format!("GET {path}"), "Host: evil.example", b"");
            assert_eq!(forged.status, 421, "{path}");
            assert!(!forged.headers.contains("access-control"), "{}", forged.headers);
        }
        let elsewhere = ask(
            http,
            "GET http://evil.example/api/torrents",
            &format!("Host: {http}"),
            b"",
        );
        assert_eq!(elsewhere.status, 421);
        let status = daemon.control(&["status"]).ok().text();
        assert!(status.contains(&format!("http://{http}/")), "{status}");
        assert!(daemon.log().contains(&http.to_string()), "{}", daemon.log());
        daemon.stop();
    });
}

/// "Nothing listens beyond loopback unless asked to, and then not without a token."
#[test]
fn beyond_this_machine_everything_is_below_the_token() {
    limited(Duration::from_secs(60), || {
        let work = Work::new();
        let torrent = torrents::single_file(&work, "film.mkv", 1000, PIECE);
        let options = DaemonOptions::new(&work)
            .option("--http", "0.0.0.0:0")
            .option("--log-level", "trace")
            .torrent(&torrent);
        let daemon = options.start();
        let kept = daemon.data_dir().join("http-token");
        assert_eq!(kept.metadata().expect("a token").permissions().mode() & 0o777, 0o600);
        let token = fs::read_to_string(&kept).expect("a token").trim().to_owned();
        let http = SocketAddr::from((Ipv4Addr::LOCALHOST, daemon.http().port()));
        for path in ["/", "/api/torrents", "/t/", "/t/wrong/", &format!("/t/{token}x/")] {
            let refused = get(http, path, "");
            assert_eq!(refused.status, 403, "{path}");
            assert!(
                !refused.headers.contains(&token.to_ascii_lowercase()),
                "{}",
                refused.headers
            );
        }
        assert_eq!(get(http, &format!("/t/{token}/"), "").status, 200);
        assert_eq!(
            get(http, &format!("/t/{token}/api/torrents"), "").json()[0]["name"],
            "film.mkv"
        );
        let forged = ask(http, &format!("GET /t/{token}/"), "Host: evil.example", b"");
        assert_eq!(forged.status, 421);
        let playlist = get(http, &format!("/t/{token}/m3u/{}.m3u8", torrent.info_hash), "");
        let playlist = String::from_utf8(playlist.body).expect("text");
        assert!(playlist.contains(&format!("http://{http}/t/{token}/files/{}/film.mkv", torrent.info_hash)));
        assert!(daemon.page().ends_with(&format!("/t/{token}/")), "{}", daemon.page());
        assert!(!daemon.log().contains(&token), "the log tells the token");
        daemon.stop();

        let again = options.start();
        assert_eq!(
            get(
                SocketAddr::from((Ipv4Addr::LOCALHOST, again.http().port())),
                &format!("/t/{token}/"),
                ""
            )
            .status,
            200
        );
        again.stop();
    });
}

#[test]
fn torrents_are_added_paused_and_removed() {
    limited(Duration::from_secs(60), || {
        let work = Work::new();
        let torrent = torrents::single_file(&work, "film.mkv", 200_000, PIECE);
        let daemon = DaemonOptions::new(&work).start();
        let http = daemon.http();
        let bytes = fs::read(&torrent.path).expect("a .torrent");
        let added = write(http, "POST /api/torrents", "application/x-bittorrent", &bytes);
        assert_eq!(
            (added.status, &added.json()["info_hash"]),
            (201, &Value::from(&*torrent.info_hash))
        );
        let again = write(http, "POST /api/torrents", "application/x-bittorrent", &bytes);
        assert_eq!((again.status, &again.json()["new"]), (200, &false.into()));
        assert!(daemon.listed("film.mkv").is_some());

        let one = format!("/api/torrents/{}", torrent.info_hash);
        let named = write(http, &format!("POST {one}/pause"), "text/plain", b"");
        assert_eq!((named.status, &named.json()["name"]), (200, &"film.mkv".into()));
        assert_eq!(daemon.listed("film.mkv").expect("it")["state"], "paused");
        let paused = get(http, &files(&torrent, "film.mkv"), "");
        let words = String::from_utf8_lossy(&paused.body).into_owned();
        assert_eq!(paused.status, 503, "{words}");
        assert!(
            words.contains("paused") && paused.has("cache-control: no-store"),
            "{words}"
        );
        assert_eq!(
            write(http, &format!("POST {one}/resume"), "text/plain", b"").status,
            200
        );

        let magnet = format!(r#"{{"source":"magnet:?xt=urn:btih:{}"}}"#, "ab".repeat(20));
        let added = write(http, "POST /api/torrents", "application/json", magnet.as_bytes());
        assert_eq!((added.status, &added.json()["resolved"]), (201, &false.into()));
        let path = br#"{"source":"/etc/passwd"}"#;
        assert_eq!(write(http, "POST /api/torrents", "application/json", path).status, 400);
        assert_eq!(
            write(http, "POST /api/torrents", "application/x-bittorrent", b"no torrent").status,
            400
        );

        let foreign = ask(
            http,
            &format!("DELETE {one}"),
            &format!("Host: {http}\nOrigin: http://evil.example"),
            b"",
        );
        assert_eq!(foreign.status, 403);
        assert!(daemon.listed("film.mkv").is_some());
        assert_eq!(
            write(http, &format!("DELETE {one}?data=true"), "text/plain", b"").status,
            200
        );
        assert!(daemon.listed("film.mkv").is_none());
        assert_eq!(write(http, &format!("DELETE {one}"), "text/plain", b"").status, 404);
        daemon.stop();
    });
}

/// "SIGTERM of the daemon leaves no mount and no process within 3 s, whoever is blocked."
#[test]
fn a_download_does_not_hold_up_the_end() {
    limited(Duration::from_secs(60), || {
        let work = Work::new();
        let torrent = torrents::single_file(&work, "film.mkv", 64 * MIB, PIECE);
        let slow = Seeding {
            upload_limit: 1 << 20,
            ..Seeding::default()
        };
        let seeder = Libtorrent::seed_with(&[&torrent], &slow);
        let daemon = DaemonOptions::new(&work).torrent(&torrent).peer(seeder.address).start();
        let http = daemon.http();
        let path = files(&torrent, "film.mkv");
        let mut downloading = TcpStream::connect(http).expect("the daemon listens");
        downloading.set_read_timeout(Some(PATIENCE)).expect("a limit");
        write!(downloading, "GET {path} HTTP/1.1\r\nHost: {http}\r\n\r\n").expect("a request");
        downloading.read_exact(&mut [0; 1000]).expect("it has begun");
        daemon.stop();
        let mut rest = Vec::new();
        // An end or a reset: either way no client takes it for the whole.
        let _ = downloading.read_to_end(&mut rest);
        assert!(rest.len() < 64 * MIB);
    });
}

#[test]
fn an_address_that_is_taken_is_said_before_anything_is_mounted() {
    limited(Duration::from_secs(30), || {
        let work = Work::new();
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = taken.local_addr().expect("its number").to_string();
        let mut daemon = DaemonOptions::new(&work).option("--http", &address).spawn();
        let status = daemon.ended_within(Duration::from_secs(10)).expect("it ends");
        assert_eq!(status.code(), Some(1));
        let log = eventually("it says why", Duration::from_secs(5), || {
            Some(daemon.log()).filter(|log| log.contains("--http"))
        });
        assert!(log.contains(&address), "{log}");

        let off = DaemonOptions::new(&work).option("--http", "off").start();
        assert_eq!(off.json(&["status"])["http"], Value::Null);
        assert!(off.control(&["status"]).ok().text().contains("HTTP is off"));
        off.stop();
    });
}
