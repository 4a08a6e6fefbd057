//! "Players: hls.js in headless Chromium on our page; ffmpeg, mpv and Shaka as further clients." Those are here; hls.js is
//! in `page.rs`.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::support::browser::{driver, in_its_own};
use crate::support::swarm::Libtorrent;
use crate::support::trials::{SECONDS, SUBTITLES, Trial};
use crate::support::{Daemon, DaemonOptions, Work, limited, report, run};

const PLAY_LIMIT: Duration = Duration::from_secs(60);

/// A daemon with the film of many tracks, its page's address and the rest of the master playlist's.
fn shown(work: &Work, body: impl FnOnce(&Daemon, &str, &str)) {
    let torrent = Trial::ManyTracks.torrent();
    let seeder = Libtorrent::seed(&[&torrent]);
    let daemon = DaemonOptions::new(work).torrent(&torrent).peer(seeder.address).start();
    let master = format!("hls/{}/{}/master.m3u8", torrent.info_hash, torrent.name);
    body(&daemon, &daemon.page(), &master);
    daemon.stop();
}

#[test]
fn ffmpeg_copies_all_of_it() {
    limited(Duration::from_secs(100), || {
        shown(&Work::new(), |_, page, master| {
            let mut command = Command::new("ffprobe");
            command.args([
                "-v",
                "error",
                "-count_packets",
                "-show_entries",
                "stream=codec_type,nb_read_packets",
            ]);
            let text = run(command.args(["-of", "json"]).arg(format!("{page}{master}")), PLAY_LIMIT).ok();
            assert_eq!(text.stderr, "", "ffprobe complains of what it reads");
            let probed: Value = serde_json::from_slice(&text.stdout).expect("JSON");
            let counts = |kind: &str| -> Vec<u32> {
                let streams = probed["streams"].as_array().expect("streams").iter();
                let of_kind = streams.filter(|stream| stream["codec_type"] == kind);
                let counts = of_kind.filter_map(|stream| stream["nb_read_packets"].as_str()?.parse().ok());
                counts.collect()
            };
            assert_eq!(counts("video"), [SECONDS * 25], "{probed}");
            assert!(
                counts("audio").len() == 2 && counts("audio").iter().all(|count| *count > 2800),
                "{probed}"
            );
            report(&format!("ffprobe over HLS: {:.1} s", text.took.as_secs_f64()));
        });
    });
}

#[test]
fn mpv_plays_it() {
    limited(Duration::from_secs(100), || {
        shown(&Work::new(), |_, page, master| {
            let mut command = Command::new("mpv");
            command.args([
                "--no-config",
                "--vo=null",
                "--ao=null",
                "--load-scripts=no",
                "--untimed",
                "--quiet",
            ]);
            command.args(["--length=10", "--term-playing-msg=began at ${=time-pos};"]);
            let text = run(command.arg(format!("{page}{master}")), PLAY_LIMIT).ok().text();
            assert!(text.contains("began at 0") && text.contains("(End of file)"), "{text}");
        });
    });
}

#[test]
fn shaka_plays_it_to_its_end() {
    limited(Duration::from_secs(170), || {
        let work = Work::new();
        shown(&work, |_, page, master| {
            let mut viewer = Command::new("node");
            viewer.arg(driver().join("shaka.mjs")).arg(page).arg(master);
            let text = run(in_its_own(&mut viewer, &work), Duration::from_secs(120))
                .ok()
                .text();
            let seen: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
            assert_eq!(seen["texts"].as_u64(), Some(SUBTITLES.len() as u64), "{seen}");
            // It begins at 0, and the film at 0.021 s; on a slow machine it takes two steps over that.
            let mut gaps = seen["gaps"].as_array().expect("gaps").iter();
            assert!(gaps.all(|at| at.as_f64() < Some(0.1)), "{seen}");
            report(&format!("Shaka: {seen}"));
        });
    });
}
