//! "A film plays from its path while it is on the network, and seeks: MP4, MKV, AVI, WebM." In stock players.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::media::{Film, film};
use crate::support::swarm::{Libtorrent, Seeding};
use crate::support::{DaemonOptions, Work, limited, report, run};

/// 32 Mbit/s: more than the film's 20, and slow enough that what is fetched needlessly is seen.
const SEEDER_BYTES_PER_SECOND: u64 = 4 << 20;

/// Long enough for the engine's first pieces, a seek, and FFmpeg's own start on a busy machine.
const PLAY_LIMIT: Duration = Duration::from_secs(40);

#[test]
fn mp4_with_its_index_first_plays() {
    plays(Film::Mp4IndexFirst);
}

#[test]
fn mp4_with_its_index_last_plays() {
    plays(Film::Mp4IndexLast);
}

#[test]
fn matroska_plays() {
    plays(Film::Matroska);
}

#[test]
fn avi_plays() {
    plays(Film::Avi);
}

#[test]
fn webm_plays() {
    plays(Film::WebM);
}

fn plays(kind: Film) {
    limited(Duration::from_secs(170), || {
        let torrent = film(kind);
        let seeding = Seeding {
            upload_limit: SEEDER_BYTES_PER_SECOND,
            ..Seeding::default()
        };
        let size = torrent.source().metadata().expect("the film").len();

        let work = Work::new();
        let seeder = Libtorrent::seed_with(&[&torrent], &seeding);
        let daemon = DaemonOptions::new(&work).torrent(&torrent).peer(seeder.address).start();
        let path = daemon.path(&torrent.name);

        let first = run(
            ffmpeg(&path, "0").args(["-frames:v", "1", "-f", "null", "-"]),
            PLAY_LIMIT,
        )
        .ok();
        let cost = seeder.uploaded();
        report(&format!(
            "{}, {} MB: first frame after {:.1} s and {:.1} MB",
            torrent.name,
            size / 1_000_000,
            first.took.as_secs_f64(),
            cost as f64 / 1e6
        ));
        assert!(
            cost < size / 2,
            "the first frame cost {cost} bytes of {size}: that is a download, not a demand"
        );

        let seconds = probe(&path);
        assert!(
            (f64::from(kind.seconds()) - seconds).abs() < 15.0,
            "ffprobe says {seconds} s"
        );
        copies_after_seek(&path, 70);
        copies_after_seek(&path, 30);
        mpv_plays_after_seek(&path, 50);
        report(&format!(
            "{}: {:.1} MB for all players",
            torrent.name,
            seeder.uploaded() as f64 / 1e6
        ));
        daemon.stop();
    });
}

fn ffmpeg(path: &Path, start: &str) -> Command {
    let mut command = Command::new("ffmpeg");
    command
        .args(["-nostdin", "-v", "error", "-xerror", "-ss", start, "-i"])
        .arg(path);
    command
}

fn probe(path: &Path) -> f64 {
    let mut command = Command::new("ffprobe");
    command
        .args([
            "-v",
            "error",
            "-show_entries",
            "format=duration",
            "-of",
            "default=nw=1:nk=1",
        ])
        .arg(path);
    let text = run(&mut command, PLAY_LIMIT).ok().text();
    text.trim()
        .parse()
        .unwrap_or_else(|error| panic!("ffprobe says {text:?}: {error}"))
}

/// Copies three seconds of packets out of the film, and counts them: 25 frames a second and the sound.
fn copies_after_seek(path: &Path, start: u32) {
    let mut command = ffmpeg(path, &start.to_string());
    command.args(["-t", "3", "-map", "0:v", "-c", "copy", "-f", "framecrc", "-"]);
    let outcome = run(&mut command, PLAY_LIMIT).ok();
    assert_eq!(outcome.stderr, "", "ffmpeg complains of what it reads");
    let packets = outcome.text().lines().filter(|line| !line.starts_with('#')).count();
    assert!(
        (50..=200).contains(&packets),
        "{packets} packets in 3 s from {start} s on"
    );
    report(&format!("ffmpeg -ss {start} -t 3: {:.1} s", outcome.took.as_secs_f64()));
}

fn mpv_plays_after_seek(path: &Path, start: u32) {
    let mut command = Command::new("mpv");
    command.args([
        "--no-config",
        "--vo=null",
        "--ao=null",
        "--load-scripts=no",
        "--untimed",
        "--quiet",
    ]);
    command.args(["--cache=no", "--length=2", "--term-playing-msg=began at ${=time-pos};"]);
    let outcome = run(command.arg(format!("--start={start}")).arg(path), PLAY_LIMIT).ok();
    let text = outcome.text();
    let began = text
        .split("began at ")
        .nth(1)
        .and_then(|rest| rest.split(';').next()?.parse::<f64>().ok());
    let began = began.unwrap_or_else(|| panic!("mpv did not begin to play\n{text}"));
    assert!(
        (began - f64::from(start)).abs() < 5.0,
        "mpv began at {began} s, not at {start}"
    );
    assert!(
        text.contains("(End of file)"),
        "mpv did not play to the end of the two seconds\n{text}"
    );
    report(&format!("mpv --start={start}: {:.1} s", outcome.took.as_secs_f64()));
}
