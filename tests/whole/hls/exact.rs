//! "A segment is served whole or not at all, and has the same bytes whatever was asked before it."
//!
//! "The segments of a film are the film: every packet of it, at its time, with its bytes, once."

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::show::{Kind, Rendition, Show, attribute};
use crate::support::swarm::Libtorrent;
use crate::support::trials::Trial;
use crate::support::web::Web;
use crate::support::{Daemon, DaemonOptions, Work, limited, report, run};

/// Where the timeline of every stream begins, in seconds: FFmpeg adds it, so that no time is negative.
const OFFSET: f64 = 10.0;

/// Times are printed with six decimals.
const PRINTED: f64 = 2e-6;

/// Matroska knows whole milliseconds of sound; its frames are put back on their grid.
const MATROSKA_AUDIO: f64 = 1.1e-3;

/// mkvmerge writes eight frames with one time, from which ffprobe guesses the others.
const LACED_AUDIO: f64 = 3e-3;

/// What comes before the beginning, to make the first picture of, has less room than a picture.
const PREROLL: f64 = 0.030;

macro_rules! trials {
    ($($name:ident: $trial:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                copies(Trial::$trial);
            }
        )*
    };
}

trials! {
    mp4_with_its_index_first: Mp4IndexFirst,
    mp4_with_its_index_last: Mp4IndexLast,
    mp4_with_an_edit_list: Mp4EditList,
    matroska_by_ffmpeg: Matroska,
    matroska_by_mkvmerge: MatroskaByMkvmerge,
    matroska_that_starts_late: MatroskaLateStart,
    webm_of_vp9_and_opus: Vp9Opus,
    av1: Av1,
    hevc: Hevc,
    open_gop: OpenGop,
    long_gop: LongGop,
    variable_frame_rate: VariableFrameRate,
    many_tracks: ManyTracks,
    sound_of_44100_hz: Aac44100,
    ac3_in_a_group_of_its_own: Ac3,
}

/// A daemon with one film, of which nothing is here yet.
fn daemon(work: &Work, seeder: &Libtorrent, trial: Trial) -> Daemon {
    let options = DaemonOptions::new(work);
    options.torrent(&trial.torrent()).peer(seeder.address).start()
}

fn copies(trial: Trial) {
    limited(Duration::from_secs(170), || {
        let torrent = trial.torrent();
        let seeder = Libtorrent::seed(&[&torrent]);
        let first = Work::new();
        let started = daemon(&first, &seeder, trial);
        let show = Show::open(Web::of(&started), &torrent);

        let in_sequence = fetch_in_sequence(&show);
        cuts_at_keyframes(&torrent.source(), show.video());
        let mut of_kind = BTreeMap::new();
        for (place, rendition) in show.renditions.iter().enumerate() {
            let number = of_kind.entry(rendition.kind as u8).or_insert(0);
            if rendition.kind != Kind::Subtitles {
                let joined = join(&show, rendition, &in_sequence[place]);
                let path = first.path().join("joined.mp4");
                std::fs::write(&path, joined).expect("a file for what was fetched");
                has_every_packet(&torrent.source(), *number, &path, rendition, show.video());
            }
            *number += 1;
        }
        match trial {
            Trial::Ac3 => groups_audio_by_codec(&show),
            Trial::ManyTracks => names_tracks(&show),
            _ => {}
        }
        started.stop();

        // Nothing of the first daemon is there for the second: each segment is made anew, by whatever run reaches it.
        let second = Work::new();
        let started = daemon(&second, &seeder, trial);
        let show = Show::open(Web::of(&started), &torrent);
        fetch_at_random(&show, &in_sequence);
        started.stop();
    });
}

/// Every segment of every rendition, as a player fetches them.
fn fetch_in_sequence(show: &Show) -> Vec<Vec<Vec<u8>>> {
    let mut fetched: Vec<Vec<Vec<u8>>> = vec![Vec::new(); show.renditions.len()];
    for number in 0..show.video().segments.len() {
        for (rendition, fetched) in show.renditions.iter().zip(&mut fetched) {
            let (uri, _) = &rendition.segments[number];
            let answer = show.get(uri).ok();
            if rendition.kind != Kind::Subtitles {
                let kept = answer.header("cache-control").unwrap_or_default();
                assert!(kept.contains("immutable"), "{uri} is sent with cache-control {kept:?}");
            }
            fetched.push(answer.body);
        }
    }
    fetched
}

/// The same segments in an order that a seed makes up, compared byte by byte.
fn fetch_at_random(show: &Show, in_sequence: &[Vec<Vec<u8>>]) {
    let mut wanted: Vec<(usize, usize)> = Vec::new();
    for (place, rendition) in show.renditions.iter().enumerate() {
        if rendition.kind != Kind::Subtitles {
            wanted.extend((0..rendition.segments.len()).map(|number| (place, number)));
        }
    }
    fastrand::Rng::with_seed(4).shuffle(&mut wanted);
    for (place, number) in wanted {
        let (uri, _) = &show.renditions[place].segments[number];
        let again = show.get(uri).ok().body;
        let before = &in_sequence[place][number];
        let differs = again.iter().zip(before).position(|(one, other)| one != other);
        assert!(
            again == *before,
            "{uri} has {} bytes now and had {}; they differ at {differs:?}",
            again.len(),
            before.len()
        );
    }
}

fn join(show: &Show, rendition: &Rendition, segments: &[Vec<u8>]) -> Vec<u8> {
    let init = rendition.init.as_ref().expect("an init segment");
    let mut joined = show.get(init).ok().body;
    segments.iter().for_each(|segment| joined.extend(segment));
    joined
}

#[derive(Debug)]
struct Packet {
    pts: f64,
    key: bool,
    hash: String,
}

/// The packets of one stream in the order of their times.
fn packets(path: &Path, selector: &str) -> Vec<Packet> {
    let mut command = Command::new("ffprobe");
    command.args([
        "-v",
        "error",
        "-select_streams",
        selector,
        "-show_data_hash",
        "MD5",
        "-of",
        "json",
    ]);
    command
        .args(["-show_entries", "packet=pts_time,flags,data_hash"])
        .arg(path);
    let probed: Value = serde_json::from_slice(&run(&mut command, Duration::from_secs(60)).ok().stdout).expect("JSON");
    let packets = probed["packets"]
        .as_array()
        .expect("packets")
        .iter()
        .map(|packet| Packet {
            pts: packet["pts_time"]
                .as_str()
                .and_then(|time| time.parse().ok())
                .expect("a time"),
            key: packet["flags"].as_str().is_some_and(|flags| flags.starts_with('K')),
            hash: packet["data_hash"].as_str().expect("a hash").to_owned(),
        });
    let mut packets: Vec<Packet> = packets.collect();
    packets.sort_by(|one, other| one.pts.total_cmp(&other.pts));
    packets
}

/// "Every playlist duration is its keyframe distance."
fn cuts_at_keyframes(source: &Path, video: &Rendition) {
    let packets = packets(source, "v:0");
    let keyframes: Vec<f64> = packets
        .iter()
        .filter(|packet| packet.key)
        .map(|packet| packet.pts)
        .collect();
    let shown: Vec<f64> = keyframes.iter().copied().filter(|pts| *pts >= 0.0).collect();
    let mut boundary = shown[0].min(
        packets.iter().map(|packet| packet.pts).fold(
            f64::MAX,
            |least, pts| {
                if pts >= 0.0 { least.min(pts) } else { least }
            },
        ),
    );
    for (uri, length) in &video.segments[..video.segments.len() - 1] {
        boundary += length;
        let off = keyframes
            .iter()
            .map(|keyframe| (keyframe - boundary).abs())
            .fold(f64::MAX, f64::min);
        assert!(off < 1e-3, "{uri} ends at {boundary} s, {off} s from a keyframe");
    }
    let target = video
        .text
        .lines()
        .find_map(|line| line.strip_prefix("#EXT-X-TARGETDURATION:"));
    let target: f64 = target
        .and_then(|target| target.parse().ok())
        .expect("a target duration");
    assert!(
        video.segments.iter().all(|(_, length)| length.round() <= target),
        "{}",
        video.text
    );
}

/// "Joined they have every packet of the source": at its time, with its bytes, once.
fn has_every_packet(source: &Path, number: usize, joined: &Path, rendition: &Rendition, video: &Rendition) {
    let (letter, tolerance) = match rendition.kind {
        Kind::Video => ("v", PRINTED),
        _ if source.ends_with("trial-mkvmerge.mkv") => ("a", LACED_AUDIO),
        _ if source
            .extension()
            .is_some_and(|extension| extension == "mkv" || extension == "webm") =>
        {
            ("a", MATROSKA_AUDIO)
        }
        _ => ("a", PRINTED),
    };
    let of_source = packets(source, &format!("{letter}:{number}"));
    let mut served = packets(joined, &format!("{letter}:0"));
    // The pictures before the beginning of the film (the preroll of an edit list) are not shown; those that the first
    // one shown is made of come just before it.
    let begin = if of_source[0].pts < 0.0 { 0.0 } else { of_source[0].pts };
    served.retain(|packet| {
        assert!(
            packet.pts - OFFSET > begin - PREROLL,
            "a packet is at {} s",
            packet.pts - OFFSET
        );
        packet.pts - OFFSET > begin - tolerance
    });
    let frame = of_source[1].pts - of_source[0].pts;
    let first = served.first().expect("a packet").pts - OFFSET;
    assert!(
        first < begin + frame,
        "{letter}:{number} begins at {first} s, not at {begin} s"
    );
    let expected: Vec<&Packet> = of_source
        .iter()
        .filter(|packet| packet.pts >= first - tolerance)
        .collect();
    assert_eq!(
        served.len(),
        expected.len(),
        "{letter}:{number} of {}",
        source.display()
    );
    let mut worst: f64 = 0.0;
    for (place, (served, expected)) in served.iter().zip(&expected).enumerate() {
        let off = (served.pts - OFFSET - expected.pts).abs();
        worst = worst.max(off);
        assert!(
            off <= tolerance,
            "packet {place} of {letter}:{number} is at {} s, not at {} s",
            served.pts - OFFSET,
            expected.pts
        );
        assert_eq!(
            served.hash, expected.hash,
            "packet {place} of {letter}:{number} at {} s",
            expected.pts
        );
    }
    let total: f64 = rendition.segments.iter().map(|(_, length)| length).sum();
    let shown: f64 = video.segments.iter().map(|(_, length)| length).sum();
    assert!(
        (total - shown).abs() < 1e-3,
        "{total} s of {letter}, {shown} s of picture"
    );
    report(&format!(
        "{} {letter}:{number}: {} packets in {} segments, times within {:.3} ms",
        source.file_name().expect("a name").to_string_lossy(),
        served.len(),
        rendition.segments.len(),
        worst * 1e3
    ));
}

/// A browser leaves out every line that names a codec it lacks, so AC-3 must not stand beside AAC in one.
fn groups_audio_by_codec(show: &Show) {
    let lines: Vec<&str> = show
        .master
        .lines()
        .filter(|line| line.starts_with("#EXT-X-STREAM-INF:"))
        .collect();
    assert_eq!(lines.len(), 2, "{}", show.master);
    let with = |codec: &str| lines.iter().filter(|line| line.contains(codec)).count();
    assert_eq!((with("mp4a"), with("ac-3")), (1, 1), "{}", show.master);
}

/// Tracks are chosen by language and name; the name in the film has quotes, which a playlist cannot.
fn names_tracks(show: &Show) {
    let languages = |kind| -> Vec<String> {
        let attributes = show
            .of(kind)
            .map(|rendition| attribute(&rendition.attributes, "LANGUAGE"));
        attributes.map(|language| language.expect("a language")).collect()
    };
    let is_one_of =
        |language: &str, names: [&str; 2]| assert!(names.contains(&language), "{language}: {}", show.master);
    let (audio, subtitles) = (languages(Kind::Audio), languages(Kind::Subtitles));
    assert_eq!((audio.len(), subtitles.len()), (2, 3), "{}", show.master);
    is_one_of(&audio[0], ["en", "eng"]);
    is_one_of(&audio[1], ["de", "ger"]);
    is_one_of(&subtitles[2], ["fr", "fre"]);
    let names: BTreeSet<String> = show
        .of(Kind::Audio)
        .filter_map(|rendition| attribute(&rendition.attributes, "NAME"))
        .collect();
    assert_eq!(names.len(), 2, "{}", show.master);
    assert!(show.master.contains("Kommentar"), "{}", show.master);
}
