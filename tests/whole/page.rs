//! The player page in a browser: Chromium, used as a viewer uses it.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::support::browser::{driver, in_its_own};
use crate::support::media::{self, Film};
use crate::support::swarm::Libtorrent;
use crate::support::torrents::Torrent;
use crate::support::trials::Trial;
use crate::support::{DaemonOptions, Work, limited, report, run};

/// Longer than a viewer needs on a busy machine; each of his steps has a limit of its own.
const LIMIT: Duration = Duration::from_secs(240);

/// What stands in every address of the page, so that one which is not relative leads nowhere.
const TOKEN: &str = "0123456789abcdef";

/// "A viewer sees a film to its end in Chromium, with seeks, another sound and subtitles, and without an error."
///
/// "hls.js in headless Chromium on our page: start, far seek, back, audio switch, subtitles, to the end, with no fatal
/// error, no hole, no dropped state."
#[test]
fn a_viewer_sees_a_film_to_its_end() {
    limited(LIMIT, || {
        let seen = viewed(&Trial::ManyTracks.torrent(), "plays");
        assert_eq!(seen["sounds"].as_array().map(Vec::len), Some(2), "{seen}");
        assert_eq!(
            seen["texts"].as_array().map(Vec::len),
            Some(4),
            "three and none: {seen}"
        );
        report(&format!("the viewer's steps in ms: {}", seen["milliseconds"]));
    });
}

/// "What cannot be copied to browsers answers 422 with the reason in words", and the page shows it, with a way out.
#[test]
fn a_viewer_is_told_why_a_film_does_not_play() {
    limited(LIMIT, || {
        let film = media::film(Film::Avi);
        let seen = viewed(&film, "refused");
        let words = seen["words"].as_str().unwrap_or_default();
        assert!(words.contains("AVI") || words.contains("index"), "no reason: {seen}");
        let command = seen["command"].as_str().unwrap_or_default();
        assert!(command.starts_with("mpv 'http://127.0.0.1:"), "{command}");
        assert!(command.contains(&format!("/t/{TOKEN}/files/")), "{command}");
    });
}

/// What an older page left in the browser, or somebody wrote there, is as if it were not there.
#[test]
fn a_store_full_of_nonsense_changes_nothing() {
    limited(LIMIT, || drop(viewed(&Trial::ManyTracks.torrent(), "remembers")));
}

/// What is not among the choices is told, with its reason.
#[test]
fn a_viewer_is_told_what_is_left_out() {
    limited(LIMIT, || {
        let seen = viewed(&Trial::Vorbis.torrent(), "lacks");
        let told = seen["told"].as_array().expect("sentences");
        let sentence = told[0].as_str().unwrap_or_default();
        assert_eq!(told.len(), 1, "{seen}");
        assert!(
            sentence.contains("Kommentar") && sentence.contains("Vorbis"),
            "{sentence}"
        );
    });
}

/// "503 with Retry-After": the page says so, asks again when that is over and no sooner, and plays on.
#[test]
fn a_viewer_waits_for_a_busy_machine() {
    limited(LIMIT, || {
        for (scene, parts) in [
            (
                "busy",
                &["master.m3u8", "video.m3u8", "video/init.mp4", "video/1.m4s"][..],
            ),
            ("busy-native", &["master.m3u8"]),
        ] {
            let seen = viewed(&Trial::ManyTracks.torrent(), scene);
            let again = seen["again"].as_array().expect("addresses");
            for part in parts {
                assert!(again.contains(&(*part).into()), "{part} was not put off: {seen}");
            }
            let read = seen["read"].as_array().expect("words");
            let words = "This machine is busy: too many viewers at different places. This page asks again every 4 s.";
            assert!(read.contains(&words.into()), "{seen}");
        }
    });
}

/// What a viewer saw who opened the only film of this torrent on the page.
#[track_caller]
fn viewed(torrent: &Torrent, scene: &str) -> Value {
    let work = Work::new();
    let seeder = Libtorrent::seed(&[torrent]);
    let daemon = DaemonOptions::new(&work)
        .option("--http-token", TOKEN)
        .torrent(torrent)
        .peer(seeder.address)
        .start();
    let mut viewer = Command::new("node");
    viewer
        .arg(driver().join("page.mjs"))
        .arg(daemon.page())
        .arg(&torrent.name)
        .arg(scene);
    let text = run(in_its_own(&mut viewer, &work), LIMIT - Duration::from_secs(20))
        .ok()
        .text();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}
