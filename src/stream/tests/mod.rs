//! Real films through real FFmpeg, from every place at which a run can begin.

mod films;
pub(super) mod indexes;

use std::sync::{Arc, OnceLock};

use films::{Film, Given, Output, Packet};
use proptest::prelude::*;

use super::fragments::{FragmentReader, Piece};
use super::{Cut, CutError, Cutter, Plan, RenditionId, Timeline};
use crate::media::{Container, Kind};

/// Every run gives the same bytes for the same segment, and all of them together are the film.
fn holds(name: &str, commands: &str) -> Film {
    holds_but_for(name, commands, 1_000)
}

/// The same, with audio as far from what ffprobe says as that.
fn holds_but_for(name: &str, commands: &str, audio_us: i64) -> Film {
    let film = Film::made(name, commands);
    let whole = film.run(0, 0, usize::MAX);
    let count = film.timeline.count();
    assert!(count >= 2, "{name} has one segment");
    for first in 1..count {
        same(&film, &whole, first, name);
    }
    for rendition in film.plan.renditions() {
        let output = &whole[&rendition.id];
        let numbers: Vec<u32> = output.segments.keys().copied().collect();
        assert_eq!(numbers, (0..count).collect::<Vec<_>>(), "{name} {}", rendition.id);
        if films::fragments_of(rendition.encoding) {
            let allowed_us = if rendition.id == RenditionId::Video {
                1
            } else {
                audio_us
            };
            complete(
                &film.packets(rendition.id),
                &film.joined(output),
                rendition.id,
                allowed_us,
                name,
            );
            unbroken(output, rendition.id, name);
        }
    }
    film
}

fn same(film: &Film, whole: &Given, first: u32, name: &str) {
    let mut begun = first;
    let given = loop {
        let given = film.run(begun, first, 1 + 1000 * first as usize);
        if given.values().any(|output| output.landed_late) {
            eprintln!("{name}: {first} begun at {begun} landed late");
            assert!(begun > 0);
            begun -= 1;
        } else {
            break given;
        }
    };
    for (id, output) in &given {
        let all = &whole[id];
        if film
            .plan
            .rendition(*id)
            .is_some_and(|rendition| films::fragments_of(rendition.encoding))
        {
            assert_eq!(output.init, all.init, "{name} {id}: header of the run from {first}");
        }
        let expected: Vec<u32> = (first..film.timeline.count()).collect();
        assert_eq!(
            output.segments.keys().copied().collect::<Vec<_>>(),
            expected,
            "{name} {id} from {first}"
        );
        for (number, (bytes, provisional)) in &output.segments {
            assert!(
                !*provisional || matches!(id, RenditionId::Subtitles(_)),
                "{name} {id}: segment {number}"
            );
            assert!(
                *provisional || *bytes == all.segments[number].0,
                "{name} {id}: segment {number} of the run from {first} differs"
            );
        }
    }
}

fn complete(source: &[Packet], joined: &[Packet], id: RenditionId, allowed_us: i64, name: &str) {
    let seen = |packets: &[Packet]| {
        packets
            .iter()
            .filter(|packet| !packet.hidden && packet.pts_us >= 0)
            .cloned()
            .collect()
    };
    let (source, joined): (Vec<Packet>, Vec<Packet>) = (seen(source), seen(joined));
    let hashes = |packets: &[Packet]| packets.iter().map(|packet| packet.hash.clone()).collect::<Vec<_>>();
    assert!(hashes(&source) == hashes(&joined), "{name} {id}: not the same packets");
    let mut worst = 0;
    for (ours, theirs) in joined.iter().zip(&source) {
        worst = worst.max((ours.pts_us - theirs.pts_us).abs());
        assert!(ours.dts_us <= ours.pts_us, "{name} {id}: {ours:?}");
    }
    eprintln!("{name} {id}: {} packets, off by {worst} us at most", source.len());
    assert!(worst <= allowed_us, "{name} {id}: off by {worst} us");
    for two in joined.windows(2) {
        assert!(two[0].dts_us < two[1].dts_us, "{name} {id}: {two:?}");
    }
}

/// As the segments themselves say it: each sample ends where the next one begins, and each segment says its number.
fn unbroken(output: &Output, id: RenditionId, name: &str) {
    let mut reader = FragmentReader::default();
    let mut samples = Vec::new();
    let joined = output.segments.values().map(|(segment, _)| segment);
    for bytes in [&output.init].into_iter().chain(joined) {
        for piece in reader.push(bytes).unwrap() {
            if let Piece::Fragment(fragment) = piece {
                samples.extend(fragment.samples);
            }
        }
    }
    if id == RenditionId::Video {
        samples.sort_by_key(|sample| sample.pts);
    }
    for two in samples.windows(2) {
        let end = two[0].pts + i64::from(two[0].duration);
        if id == RenditionId::Video {
            assert!(two[0].pts < two[1].pts, "{name} {id}: {two:?}");
        } else {
            assert_eq!(end, two[1].pts, "{name} {id}: {two:?}");
        }
    }
}

/// How far FFmpeg's guesses of times within laces are off, at most.
const LACED_US: i64 = 3_000;

const X264: &str = "-c:v libx264 -preset ultrafast -bf 2 -b:v 40k -x264-params scenecut=0";

#[test]
fn mp4_of_h264_and_aac() {
    holds(
        "film.mp4",
        &format!("ffmpeg V25 A44 {X264} -g 50 -c:a aac -b:a 48k film.mp4"),
    );
}

#[test]
fn mp4_with_an_edit_list() {
    let film = holds(
        "edited.mp4",
        &format!(
            "ffmpeg V25 A44 {X264} -g 75 -c:a aac -b:a 48k film.mp4\nffmpeg -ss 1.7 -i film.mp4 -c copy edited.mp4"
        ),
    );
    assert!(film.plan.video().track.start < 0);
    assert_eq!(film.timeline.start_s(0), 0.0);
}

#[test]
fn matroska_by_ffmpeg() {
    holds(
        "film.mkv",
        &format!("ffmpeg V24 A44 {X264} -g 48 -c:a aac -b:a 48k film.mkv"),
    );
}

/// mkvmerge puts eight frames of sound into one block, and FFmpeg guesses the times of all but the first from a length
/// in whole milliseconds. What is served has their true times, as the file tells that the merged one was made of.
#[test]
fn matroska_by_mkvmerge() {
    let make = format!("ffmpeg V24 A44 {X264} -g 48 -c:a aac -b:a 48k film.mkv\nmkvmerge -q -o merged.mkv film.mkv");
    let film = holds_but_for("merged.mkv", &make, LACED_US);
    let sound = RenditionId::Audio(0);
    let whole = film.run(0, 0, usize::MAX);
    let truth = film.packets_of("film.mkv", 1);
    complete(&truth, &film.joined(&whole[&sound]), sound, 1_000, "film.mkv");
}

#[test]
fn matroska_that_does_not_begin_at_0() {
    let film = holds(
        "film.mkv",
        &format!("ffmpeg V25 A48 {X264} -g 50 -c:a aac -b:a 48k -output_ts_offset 1.358 film.mkv"),
    );
    assert!(film.timeline.start_s(0) > 1.3);
}

#[test]
fn webm_of_vp9_and_opus() {
    holds(
        "film.webm",
        "ffmpeg V25 A48 -c:v libvpx-vp9 -deadline realtime -cpu-used 8 -b:v 40k -g 50 -c:a libopus -b:a 32k film.webm",
    );
}

#[test]
fn av1_in_matroska_and_in_mp4() {
    let make = "ffmpeg V25 A48 -c:v libsvtav1 -preset 12 -g 50 -c:a libopus -b:a 32k film.mkv";
    holds("film.mkv", make);
    holds("film.mp4", &format!("{make}\nffmpeg -i film.mkv -c copy film.mp4"));
}

#[test]
fn hevc_in_matroska_and_in_mp4() {
    let make = "ffmpeg V25 A48 -c:v libx265 -preset ultrafast \
        -x265-params log-level=none:keyint=50:bframes=3:open-gop=1 -c:a aac -b:a 48k";
    holds("film.mkv", &format!("{make} film.mkv"));
    holds("film.mp4", &format!("{make} film.mp4"));
}

#[test]
fn open_groups_of_pictures() {
    let make = format!("ffmpeg V24 A48 {X264}:open-gop=1:keyint=48 -bf 3 -c:a aac -b:a 48k film.mkv");
    holds("film.mkv", &make);
    holds_but_for(
        "merged.mkv",
        &format!("{make}\nmkvmerge -q -o merged.mkv film.mkv"),
        LACED_US,
    );
    holds("film.mp4", &format!("{make}\nffmpeg -i film.mkv -c copy film.mp4"));
}

#[test]
fn variable_frame_rate() {
    let make = format!(
        "ffmpeg V25 A48 -vf setpts='PTS+if(mod(N,7),0,0.011)/TB+floor(N/50)*0.037/TB' -fps_mode vfr {X264} -g 40 \
        -c:a aac -b:a 48k"
    );
    holds("film.mkv", &format!("{make} film.mkv"));
    holds("film.mp4", &format!("{make} film.mp4"));
}

/// Cuts of scenes make keyframes a frame or two apart, so that FFmpeg's guesses after a seek reach past the first
/// group.
#[test]
fn groups_of_a_picture_or_two() {
    let times = "3.80,3.84,3.92,3.96,4,4.04,7.88,7.96,8,8.08,11.96,12";
    let make = format!("ffmpeg V25 A44 {X264} -g 250 -force_key_frames {times} -c:a aac -b:a 48k");
    holds("film.mkv", &format!("{make} film.mkv"));
    holds("film.mp4", &format!("{make} film.mp4"));
}

#[test]
fn long_groups_of_pictures() {
    let film = holds(
        "film.mkv",
        &format!("ffmpeg V25 A44 {X264} -g 250 -c:a aac -b:a 48k film.mkv"),
    );
    assert_eq!(film.timeline.count(), 2);
    assert_eq!(film.timeline.duration_us(0), 10_000_000);
}

#[test]
fn ac3_and_flac_at_44_1_khz() {
    let make = format!("ffmpeg V25 A44 {X264} -g 50 -map 0:v -map 1:a -map 1:a -c:a:0 ac3 -c:a:1 flac");
    holds("film.mkv", &format!("{make} film.mkv"));
    holds("film.mp4", &format!("{make} -strict -2 film.mp4"));
}

#[test]
fn subtitles_of_text() {
    let make = format!("ffmpeg V25 A48 -i subtitles.srt {X264} -g 50 -map 0:v -map 1:a -map 2:s -c:a aac -b:a 48k");
    holds("film.mkv", &format!("{make} -c:s srt film.mkv"));
    holds("film.mp4", &format!("{make} -c:s mov_text film.mp4"));
}

/// "A segment of subtitles counts only from a run that began at least 30 s before it."
#[test]
fn final_subtitles_are_the_same_from_every_run() {
    let make = "ffmpeg -f lavfi -i testsrc2=s=32x32:r=10:d=60 -i subtitles.srt -map 0:v -map 1:s \
        -c:v libx264 -preset ultrafast -g 40 -c:s srt film.mkv";
    let film = Film::made("film.mkv", make);
    let whole = film.run(0, 0, usize::MAX);
    let subtitles = RenditionId::Subtitles(0);
    let mut finals = 0;
    for first in 1..film.timeline.count() {
        let begun = film.timeline.subtitle_start(first);
        let given = film.run(begun, first, 10);
        for (number, (bytes, provisional)) in &given[&subtitles].segments {
            if *provisional {
                continue;
            }
            assert_eq!(
                *bytes, whole[&subtitles].segments[number].0,
                "{number} of the run from {first}"
            );
            finals += usize::from(begun > 0);
        }
    }
    assert!(finals > 10, "{finals} segments of runs that began in the film");
    // A cue that began before the segment is in it.
    let text = String::from_utf8(whole[&subtitles].segments[&2].0.to_vec()).unwrap();
    assert!(text.contains("00:00:00.500 --> 00:00:13.000\nall over\n"), "{text}");
    assert!(text.contains("cue <i>4</i>\nline two\n"), "{text}");
}

fn small() -> &'static (Film, Vec<Vec<u8>>) {
    static SMALL: OnceLock<(Film, Vec<Vec<u8>>)> = OnceLock::new();
    SMALL.get_or_init(|| {
        let film = Film::made(
            "film.mkv",
            &format!("ffmpeg V25 A44 -t 13 {X264} -g 50 -c:a aac -b:a 32k film.mkv"),
        );
        let pipes = film.pipes(None);
        (film, pipes)
    })
}

#[test]
fn a_run_that_lands_late_is_noticed() {
    let (film, _) = small();
    let given = film.run_from(film.timeline.start_job(2), 1, 1, usize::MAX);
    for (id, output) in &given {
        assert!(output.landed_late, "{id}");
        assert!(output.segments.is_empty(), "{id}");
    }
}

/// "A tail that did not reach its boundary is never given out."
#[test]
fn a_tail_that_is_not_known_to_be_whole_is_not_given_out() {
    let (film, pipes) = small();
    let count = film.timeline.count();
    for (rendition, bytes) in film.plan.renditions().iter().zip(pipes) {
        for tenths in 0..=10 {
            let mut cutter = Cutter::new(&film.plan, &film.timeline, rendition.id, 0);
            let mut cuts = cutter.push(&bytes[..bytes.len() * tenths / 10]).unwrap();
            cuts.extend(cutter.finish(false).unwrap());
            let given: Vec<u32> = cuts.iter().filter_map(number).collect();
            let expected: Vec<u32> = (0..count - 1).collect();
            assert!(expected.starts_with(&given), "{} {tenths}: {given:?}", rendition.id);
            assert!(tenths < 10 || given == expected, "{}: {given:?}", rendition.id);
        }
    }
}

/// FFmpeg gives the fragment after the last one of a segment when it has read a group of pictures more.
#[test]
fn a_segment_of_video_is_whole_with_its_last_fragment() {
    let make = format!("ffmpeg V25 A44 -t 13 {X264} -g 50 -c:a aac -b:a 32k");
    for name in ["film.mkv", "film.mp4"] {
        let film = Film::made(name, &format!("{make} {name}"));
        let pipe = &film.pipes(None)[0];
        let mut cutter = Cutter::new(&film.plan, &film.timeline, RenditionId::Video, 0);
        let (mut reader, mut fragments, mut given) = (FragmentReader::default(), 0, Vec::new());
        for bytes in pipe.chunks(100) {
            let pieces = reader.push(bytes).unwrap();
            fragments += pieces
                .iter()
                .filter(|piece| matches!(piece, Piece::Fragment(_)))
                .count();
            let numbers = cutter.push(bytes).unwrap();
            given.extend(numbers.iter().filter_map(number).map(|number| (number, fragments)));
        }
        assert_eq!(
            given,
            [(0, 2), (1, 4), (2, 6)],
            "{name}: segments of two fragments each"
        );
    }
}

/// Cues that leave keyframes out: what lies between them belongs to the segment all the same.
#[test]
fn keyframes_that_the_index_does_not_have_cut_nothing_short() {
    let (film, pipes) = small();
    let whole = film.run(0, 0, usize::MAX);
    let mut track = film.plan.video().track.clone();
    if let Kind::Video(video) = &mut track.kind {
        video.keyframes = video.keyframes.iter().copied().step_by(2).collect();
    }
    let index = indexes::index(Container::Matroska, vec![track]);
    let sparse = Arc::new(Timeline::of(&Plan::of(&index).unwrap()));
    assert_eq!(sparse.start_s(1), film.timeline.start_s(1));
    let mut cutter = Cutter::new(&film.plan, &sparse, RenditionId::Video, 0);
    for cut in cutter.push(&pipes[0]).unwrap() {
        if let Cut::Segment { number, bytes, .. } = cut {
            assert_eq!(
                bytes,
                whole[&RenditionId::Video].segments[&number].0,
                "segment {number}"
            );
        }
    }
}

fn number(cut: &Cut) -> Option<u32> {
    match cut {
        Cut::Segment { number, .. } => Some(*number),
        Cut::Init(_) | Cut::LandedLate { .. } => None,
    }
}

#[test]
fn an_index_that_is_wrong_is_noticed() {
    let (film, pipes) = small();
    let (_, wrong) = indexes::film_of(&[0, 3, 7], 13);
    let mut cutter = Cutter::new(&film.plan, &wrong, RenditionId::Video, 0);
    assert_eq!(cutter.push(&pipes[0]), Err(CutError::IndexIsWrong { number: 1 }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn pieces_do_not_matter(sizes in prop::collection::vec(1..9000_usize, 1..40)) {
        let (film, pipes) = small();
        for (rendition, bytes) in film.plan.renditions().iter().zip(pipes) {
            let mut whole = Cutter::new(&film.plan, &film.timeline, rendition.id, 0);
            let expected = whole.push(bytes).unwrap();
            let mut cutter = Cutter::new(&film.plan, &film.timeline, rendition.id, 0);
            let mut cuts = Vec::new();
            let mut rest = &bytes[..];
            for size in sizes.iter().cycle() {
                let (piece, after) = rest.split_at((*size).min(rest.len()));
                cuts.extend(cutter.push(piece).unwrap());
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert!(cuts == expected);
            prop_assert!(whole.finish(true).unwrap() == cutter.finish(true).unwrap());
        }
    }

    /// What FFmpeg gives is a stranger's: whatever it is, nothing breaks.
    #[test]
    fn damage_breaks_nothing(
        places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..30),
        head in any::<bool>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let (film, pipes) = small();
        for (rendition, bytes) in film.plan.renditions().iter().zip(pipes) {
            let mut bytes = bytes.clone();
            // The tables are at the beginning of fragments; most of the rest is data, in which nothing is looked at.
            let reach = if head { 2000 } else { bytes.len() };
            for (place, value) in &places {
                let place = place.index(reach);
                bytes[place] = *value;
            }
            bytes.truncate(cut.index(bytes.len()).max(reach));
            let mut cutter = Cutter::new(&film.plan, &film.timeline, rendition.id, 0);
            if cutter.push(&bytes).is_ok() {
                let _ = cutter.passed(1e9);
                let _ = cutter.finish(true);
            }
        }
    }
}
