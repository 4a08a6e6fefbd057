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
use crate::support::web::{Answer, Web};
use crate::support::{Daemon, DaemonOptions, Work, eventually, limited, run};

const MIB: usize = 1 << 20;
const PIECE: u64 = 65_536;

/// No part of an answer takes so long.
const PATIENCE: Duration = Duration::from_secs(20);

/// As the page does it.
#[track_caller]
fn write(web: Web, method: &str, path: &str, content_type: &str, body: &[u8]) -> Answer {
    let origin = format!("http://{}", web.address);
    web.request(
        method,
        path,
        &[("Origin", &origin), ("Content-Type", content_type)],
        body,
    )
}

fn files(torrent: &Torrent, path: &str) -> String {
    format!("files/{}/{path}", torrent.info_hash)
}

#[track_caller]
fn range(web: Web, path: &str, range: &str) -> Answer {
    web.request("GET", path, &[("Range", range)], b"")
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
        let web = Web::of(&daemon);
        let (encoded, size) = (files(&folder, "two/100%25%20%231%3F.bin"), 3 * MIB as u64 + 17);
        let source = fs::read(folder.source().join(name)).expect("the source");
        for (bytes, from, length) in [
            ("bytes=2000000-2299999", 2_000_000, 300_000),
            ("bytes=-17", size - 17, 17),
            (
                "bytes=3000000-99999999",
                3_000_000,
                usize::try_from(size).unwrap() - 3_000_000,
            ),
        ] {
            let answer = range(web, &encoded, bytes);
            let (last, told) = (from + length as u64 - 1, answer.header("content-range"));
            assert_eq!(answer.status, 206, "{bytes}");
            assert_eq!(told, Some(&*format!("bytes {from}-{last}/{size}")), "{bytes}");
            assert!(
                answer.body == source[usize::try_from(from).unwrap()..][..length],
                "{bytes}"
            );
            assert!(
                answer.body == through_the_mount(&daemon, &format!("some/{name}"), from, length),
                "{bytes}"
            );
        }
        let whole = web.get(&encoded).ok();
        assert!(whole.body == source, "the whole file");
        assert_eq!(whole.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(whole.header("referrer-policy"), Some("no-referrer"));
        assert_eq!(range(web, &encoded, &format!("bytes={size}-")).status, 416);
        let film = range(web, &files(&single, "single%20film.mkv"), "bytes=0-9");
        assert_eq!(film.header("content-type"), Some("video/x-matroska"));
        assert!(film.body == fs::read(single.source()).expect("the source")[..10]);
        for nothing in [
            "some/one.txt",
            "../some/one.txt",
            "one.txt/",
            "two",
            "",
            "..%2f..%2fdaemon.log",
        ] {
            assert_eq!(web.get(&files(&folder, nothing)).status, 404, "{nothing}");
        }
        let shown = web.get(&format!("api/torrents/{}", folder.info_hash)).json();
        let raw = shown["contents"]
            .as_array()
            .expect("files")
            .iter()
            .map(|file| file["raw"].as_str().expect("raw"));
        assert!(raw.clone().any(|raw| raw == encoded), "{shown}");
        daemon.stop();
    });
}

#[test]
fn a_forged_host_gets_nothing() {
    limited(Duration::from_secs(30), || {
        let work = Work::new();
        let daemon = DaemonOptions::new(&work).option("--http-host", "Media.lan.").start();
        let web = Web::of(&daemon);
        let http = web.address;
        assert!(http.ip().is_loopback());
        for path in ["", "api/torrents"] {
            web.get(path).ok();
            web.request("GET", path, &[("Host", "media.lan:80")], b"").ok();
            web.request("GET", path, &[("Host", "MEDIA.lan.:80")], b"").ok();
            let longer = web.request("GET", path, &[("Host", "media.lan.evil.example")], b"");
            assert_eq!(longer.status, 421, "{path}");
            let forged = web.request("GET", path, &[("Host", "evil.example")], b"");
            assert_eq!(forged.status, 421, "{path}");
            let mut names = forged.headers.iter().map(|(name, _)| name);
            assert!(!names.any(|name| name.starts_with("access-control")), "{forged:?}");
        }
        assert_eq!(web.get("http://evil.example/api/torrents").status, 421);
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
        let web = Web::at(http);
        for path in ["", "api/torrents", "t/", "t/wrong/", &format!("t/{token}x/")] {
            let refused = web.get(path);
            assert_eq!(refused.status, 403, "{path}");
            let told = refused.headers.iter().any(|(_, value)| value.contains(&token));
            assert!(!told && !refused.text().contains(&token), "{refused:?}");
        }
        web.get(&format!("t/{token}/")).ok();
        let torrents = web.get(&format!("t/{token}/api/torrents")).json();
        assert_eq!(torrents[0]["name"], "film.mkv");
        let forged = web.request("GET", &format!("t/{token}/"), &[("Host", "evil.example")], b"");
        assert_eq!(forged.status, 421);
        let playlist = web
            .get(&format!("t/{token}/m3u/{}.m3u8", torrent.info_hash))
            .ok()
            .text();
        assert!(playlist.contains(&format!("http://{http}/t/{token}/files/{}/film.mkv", torrent.info_hash)));
        assert!(daemon.page().ends_with(&format!("/t/{token}/")), "{}", daemon.page());
        assert!(!daemon.log().contains(&token), "the log tells the token");
        daemon.stop();

        let again = options.start();
        let http = SocketAddr::from((Ipv4Addr::LOCALHOST, again.http().port()));
        Web::at(http).get(&format!("t/{token}/")).ok();
        again.stop();
    });
}

#[test]
fn torrents_are_added_paused_and_removed() {
    limited(Duration::from_secs(60), || {
        let work = Work::new();
        let torrent = torrents::single_file(&work, "film.mkv", 200_000, PIECE);
        let daemon = DaemonOptions::new(&work).start();
        let web = Web::of(&daemon);
        let bytes = fs::read(&torrent.path).expect("a .torrent");
        let added = write(web, "POST", "api/torrents", "application/x-bittorrent", &bytes);
        assert_eq!(
            (added.status, &added.json()["info_hash"]),
            (201, &Value::from(&*torrent.info_hash))
        );
        let again = write(web, "POST", "api/torrents", "application/x-bittorrent", &bytes);
        assert_eq!((again.status, &again.json()["new"]), (200, &false.into()));
        assert!(daemon.listed("film.mkv").is_some());

        let one = format!("api/torrents/{}", torrent.info_hash);
        let named = write(web, "POST", &format!("{one}/pause"), "text/plain", b"");
        assert_eq!((named.status, &named.json()["name"]), (200, &"film.mkv".into()));
        assert_eq!(daemon.listed("film.mkv").expect("it")["state"], "paused");
        let paused = web.get(&files(&torrent, "film.mkv"));
        let words = paused.text();
        assert_eq!(paused.status, 503, "{words}");
        assert!(words.contains("paused"), "{words}");
        assert_eq!(paused.header("cache-control"), Some("no-store"));
        write(web, "POST", &format!("{one}/resume"), "text/plain", b"").ok();

        let magnet = format!(r#"{{"source":"magnet:?xt=urn:btih:{}"}}"#, "ab".repeat(20));
        let added = write(web, "POST", "api/torrents", "application/json", magnet.as_bytes());
        assert_eq!((added.status, &added.json()["resolved"]), (201, &false.into()));
        let path = br#"{"source":"/etc/passwd"}"#;
        assert_eq!(write(web, "POST", "api/torrents", "application/json", path).status, 400);
        let garbage = write(web, "POST", "api/torrents", "application/x-bittorrent", b"no torrent");
        assert_eq!(garbage.status, 400);

        let foreign = web.request("DELETE", &one, &[("Origin", "http://evil.example")], b"");
        assert_eq!(foreign.status, 403);
        assert!(daemon.listed("film.mkv").is_some());
        write(web, "DELETE", &format!("{one}?data=true"), "text/plain", b"").ok();
        assert!(daemon.listed("film.mkv").is_none());
        assert_eq!(write(web, "DELETE", &one, "text/plain", b"").status, 404);
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
        write!(downloading, "GET /{path} HTTP/1.1\r\nHost: {http}\r\n\r\n").expect("a request");
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
