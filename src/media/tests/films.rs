//! What is read of real films, against ffprobe, which reads all of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::{OnDisk, index_of};
use crate::media::read::BLOCK;
use crate::media::{Codec, Container, Index, Kind, MediaError, Track};

/// Pictures of 20 s, 24000/1001 of them a second.
const PICTURES: &str = "-f lavfi -i testsrc=s=320x180:r=24000/1001:d=20";
/// The same for 8 s, since the better the codec the slower.
const SHORT: &str = "-f lavfi -i testsrc=s=320x180:r=24000/1001:d=8.008";
const SOUND: &str = "-f lavfi -i sine=440:r=48000:d=20";
const H264: &str = "-c:v libx264 -preset ultrafast -bf 2 -b_strategy 0 -g 48 -pix_fmt yuv420p";

pub(super) struct Studio {
    folder: TempDir,
}

impl Studio {
    pub(super) fn new() -> Studio {
        Studio {
            folder: TempDir::new().expect("a folder"),
        }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs a program here; a minute is more than any film takes.
    fn run(&self, program: &str, arguments: &str) {
        let mut command = Command::new("timeout");
        command.args(["60", program]).args(arguments.split_whitespace());
        let output = command.current_dir(self.folder.path()).output().expect("it runs");
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments}: {words}");
    }

    pub(super) fn ffmpeg(&self, arguments: &str) {
        self.run("ffmpeg", &format!("-v error -nostdin -y {arguments}"));
    }

    /// An MP4 of H.264 with B-frames and AAC, its moov at the end.
    pub(super) fn base(&self) {
        self.ffmpeg(&format!("{PICTURES} {SOUND} {H264} -c:a aac base.mp4"));
    }

    /// The index, compared with what ffprobe says.
    #[track_caller]
    fn compared(&self, name: &str) -> Index {
        let index = index_of(&OnDisk::open(&self.path(name))).unwrap_or_else(|error| panic!("{name}: {error}"));
        let probe = probe(&self.path(name));
        for track in &index.tracks {
            compare(name, index.container, track, &probe);
        }
        index
    }

    fn blocks(&self, name: &str) -> usize {
        let file = OnDisk::open(&self.path(name));
        index_of(&file).unwrap_or_else(|error| panic!("{name}: {error}"));
        file.blocks()
    }
}

fn probe(path: &Path) -> Value {
    let mut command = Command::new("timeout");
    command.args([
        "60",
        "ffprobe",
        "-v",
        "error",
        "-show_streams",
        "-show_packets",
        "-of",
        "json",
    ]);
    let output = command.arg(path).output().expect("it runs");
    serde_json::from_slice(&output.stdout).expect("what ffprobe says")
}

fn name_of(codec: &Codec) -> &'static str {
    match codec {
        Codec::H264 => "h264",
        Codec::Hevc => "hevc",
        Codec::Av1 => "av1",
        Codec::Vp9 => "vp9",
        Codec::Aac => "aac",
        Codec::Ac3 => "ac3",
        Codec::Eac3 => "eac3",
        Codec::Opus => "opus",
        Codec::Flac => "flac",
        Codec::Mp3 => "mp3",
        Codec::Pcm => "pcm_s16le",
        Codec::Vorbis => "vorbis",
        Codec::SubRip => "subrip",
        Codec::Ass => "ass",
        Codec::MovText => "mov_text",
        codec => panic!("no film here has {codec}"),
    }
}

#[track_caller]
fn compare(name: &str, container: Container, track: &Track, probe: &Value) {
    let at = format!("{name}, stream {}", track.stream);
    let stream = &probe["streams"][track.stream];
    assert_eq!(stream["codec_name"], name_of(&track.codec), "{at}");
    assert_eq!(stream["time_base"], format!("1/{}", track.timescale), "{at}");
    let tag = |key: &str| {
        stream["tags"][key]
            .as_str()
            .filter(|it| *it != "und")
            .map(str::to_owned)
    };
    // mkvmerge writes both, of which FFmpeg knows the older.
    let language = track.language.as_deref().map(|language| match language {
        "de" => "ger",
        "fr" => "fre",
        "es" => "spa",
        language => language,
    });
    assert_eq!(language, tag("language").as_deref(), "{at}");
    assert_eq!(stream["disposition"]["default"], i32::from(track.default), "{at}");
    let packets = probe["packets"].as_array().expect("packets");
    let packets = packets.iter().filter(|packet| packet["stream_index"] == track.stream);
    let flag = |packet: &Value, flag: char| packet["flags"].as_str().expect("flags").contains(flag);
    let pts = |packet: &Value| packet["pts"].as_i64().expect("a time");
    // ffprobe gives seconds of the duration of a packet where it only knows it by rounding.
    let until = |packet: &Value| pts(packet) + packet["duration"].as_i64().unwrap_or(0);
    let first = packets.clone().map(pts).min().expect("a first packet");
    let last = packets
        .clone()
        .filter(|packet| !flag(packet, 'D'))
        .map(until)
        .max()
        .expect("a last packet");
    assert_eq!(track.start, first, "{at}: start");
    match container {
        Container::Mp4 => {
            let off = (track.end - last).abs();
            assert!(
                off <= i64::from(track.timescale) / 500,
                "{at}: end {} is not {last}",
                track.end
            );
        }
        // What is stated is the end of all tracks; the padding at the end of Opus is not part of it.
        Container::Matroska | Container::Webm => assert!(track.end + 20 >= last, "{at}: {} < {last}", track.end),
    }
    match &track.kind {
        Kind::Video(video) => {
            let mut keyframes: Vec<i64> = packets.clone().filter(|packet| flag(packet, 'K')).map(pts).collect();
            keyframes.sort_unstable();
            let found: Vec<i64> = video.keyframes.iter().map(|keyframe| keyframe.pts).collect();
            assert_eq!(found, keyframes, "{at}: keyframes");
            for keyframe in &video.keyframes {
                let packet = packets
                    .clone()
                    .find(|packet| pts(packet) == keyframe.pts)
                    .expect("its packet");
                let place: u64 = packet["pos"].as_str().expect("a place").parse().expect("a number");
                match container {
                    Container::Mp4 => assert_eq!(keyframe.offset, place, "{at}"),
                    Container::Matroska | Container::Webm => assert!(keyframe.offset < place, "{at}"),
                }
            }
            assert_eq!(
                video.reordered,
                stream["has_b_frames"].as_i64() > Some(0),
                "{at}: reordered"
            );
            assert_eq!(stream["width"], video.width, "{at}");
            assert_eq!(stream["height"], video.height, "{at}");
            let format = stream["pix_fmt"].as_str().expect("a format of pixels");
            let deep = if format.contains("10") { 10 } else { 8 };
            assert!(video.bit_depth.is_none_or(|depth| depth == deep), "{at}: {format}");
            if track.codec == Codec::H264 {
                let level = stream["level"].as_i64().expect("a level");
                let string = track.codec_string.as_deref().expect("a string");
                assert!(
                    string.starts_with("avc1.") && string.ends_with(&format!("{level:02x}")),
                    "{at}: {string}"
                );
            }
        }
        Kind::Audio(audio) => {
            assert_eq!(stream["channels"], audio.channels, "{at}");
            assert_eq!(stream["sample_rate"], audio.sample_rate.to_string(), "{at}");
            if let Some(samples) = audio.frame_samples {
                let exact = i64::from(samples) * i64::from(track.timescale) / i64::from(audio.sample_rate);
                let duration = packets.clone().next().expect("a packet")["duration"]
                    .as_i64()
                    .expect("a duration");
                assert!((duration - exact).abs() <= 1, "{at}: {duration} is not {exact}");
            }
        }
        Kind::Subtitles => assert_eq!(stream["disposition"]["forced"], i32::from(track.forced), "{at}"),
        Kind::Other => {}
    }
}

fn strings(index: &Index) -> Vec<&str> {
    index
        .tracks
        .iter()
        .map(|track| track.codec_string.as_deref().unwrap_or("-"))
        .collect()
}

fn video(index: &Index) -> &crate::media::Video {
    let mut videos = index.tracks.iter().filter_map(|track| match &track.kind {
        Kind::Video(video) => Some(video),
        _ => None,
    });
    videos.next().expect("a video")
}

#[test]
fn mp4_films_have_the_keyframes_that_ffprobe_sees() {
    let studio = Studio::new();
    studio.base();
    let base = studio.compared("base.mp4");
    assert_eq!(
        (base.container, strings(&base)),
        (Container::Mp4, vec!["avc1.4d400c", "mp4a.40.2"])
    );
    assert_eq!(video(&base).frame_rate, Some((24_000, 1001)));
    studio.ffmpeg("-i base.mp4 -c copy -movflags +faststart fast.mp4");
    assert_eq!(video(&studio.compared("fast.mp4")).keyframes.len(), 10);
    // The begin is cut off by an edit list; its pictures before the film are needed all the same.
    studio.ffmpeg("-ss 3.3 -i base.mp4 -c copy edit.mp4");
    assert!(studio.compared("edit.mp4").tracks[0].start < 0);
    // An edit that is a pause, and further codecs of sound.
    studio.ffmpeg("-itsoffset 0.7 -i base.mp4 -i base.mp4 -map 0:v -map 1:a -c:v copy -c:a eac3 late.mp4");
    assert_eq!(strings(&studio.compared("late.mp4")), ["avc1.4d400c", "ec-3"]);
    studio.ffmpeg("-i base.mp4 -c:v copy -c:a flac -strict -2 flac.mp4");
    assert_eq!(strings(&studio.compared("flac.mp4")), ["avc1.4d400c", "fLaC"]);
    studio.ffmpeg("-i base.mp4 -c:v copy -c:a libmp3lame -ac 2 mp3.mp4");
    assert_eq!(strings(&studio.compared("mp3.mp4")), ["avc1.4d400c", "mp4a.6b"]);
    studio.ffmpeg("-i base.mp4 -c:v copy -c:a pcm_s16le pcm.mov");
    studio.compared("pcm.mov");
}

#[test]
fn pictures_of_every_kind_have_the_keyframes_that_ffprobe_sees() {
    let studio = Studio::new();
    // No table of keyframes: all are. No B-frames. A long way between keyframes.
    studio.ffmpeg(&format!("{SHORT} {H264} -g 1 intra.mp4"));
    assert_eq!(video(&studio.compared("intra.mp4")).keyframes.len(), 192);
    studio.ffmpeg(&format!("{SHORT} {H264} -bf 0 -g 120 long.mp4"));
    assert!(!video(&studio.compared("long.mp4")).reordered);
    studio.ffmpeg("-i long.mp4 -c copy long.mkv");
    studio.compared("long.mkv");
    let open = format!("{SHORT} {H264} -x264-params open-gop=1:keyint=24 -pix_fmt yuv420p10le");
    studio.ffmpeg(&format!("{open} open.mp4"));
    assert_eq!(video(&studio.compared("open.mp4")).bit_depth, Some(10));
    studio.ffmpeg("-i open.mp4 -c copy open.mkv");
    studio.compared("open.mkv");
    let hevc = "-c:v libx265 -preset ultrafast -pix_fmt yuv420p -x265-params log-level=none:keyint=24 -tag:v hvc1";
    studio.ffmpeg(&format!("{SHORT} {hevc} hevc.mp4"));
    assert_eq!(strings(&studio.compared("hevc.mp4")), ["hvc1.1.6.L60.90"]);
    studio.ffmpeg("-i hevc.mp4 -c copy hevc.mkv");
    assert_eq!(strings(&studio.compared("hevc.mkv")), ["hvc1.1.6.L60.90"]);
    studio.ffmpeg(&format!(
        "{SHORT} -pix_fmt yuv420p -c:v libsvtav1 -preset 12 -g 24 av1.mkv"
    ));
    assert_eq!(strings(&studio.compared("av1.mkv")), ["av01.0.00M.08"]);
    studio.ffmpeg("-i av1.mkv -c copy av1.mp4");
    assert_eq!(strings(&studio.compared("av1.mp4")), ["av01.0.00M.08"]);
    let vp9 = "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 24 -pix_fmt yuv420p";
    studio.ffmpeg(&format!("{SHORT} {SOUND} {vp9} -c:a libopus -shortest vp9.webm"));
    let webm = studio.compared("vp9.webm");
    assert_eq!(
        (webm.container, strings(&webm)),
        (Container::Webm, vec!["vp09.00.11.08", "opus"])
    );
    studio.ffmpeg("-i vp9.webm -c copy vp9.mp4");
    assert_eq!(strings(&studio.compared("vp9.mp4")), ["vp09.00.11.08", "opus"]);
    // The profile and depth are in no header of Matroska, but in the first picture.
    studio.ffmpeg(&format!("{SHORT} {vp9} -pix_fmt yuv420p10le -t 4 deep.webm"));
    assert_eq!(strings(&studio.compared("deep.webm")), ["vp09.02.11.10"]);
    studio.ffmpeg(&format!(
        "{SHORT} -vf select='not(eq(mod(n\\,7)\\,3))' -vsync vfr {H264} vfr.mkv"
    ));
    studio.compared("vfr.mkv");
    studio.ffmpeg("-i vfr.mkv -c copy vfr.mp4");
    studio.compared("vfr.mp4");
}

#[test]
fn matroska_films_have_the_keyframes_that_ffprobe_sees() {
    let studio = Studio::new();
    for n in 1..=3 {
        let text = "1\n00:00:01,000 --> 00:00:03,000\nhello\n\n2\n00:00:11,000 --> 00:00:13,000\nyou\n";
        fs::write(studio.path(&format!("{n}.srt")), text).expect("written");
    }
    let inputs = format!("{PICTURES} -f lavfi -i sine=440:r=44100:d=20 {SOUND} -i 1.srt -i 2.srt -i 3.srt");
    let maps = "-map 0 -map 1 -map 2 -map 3 -map 4 -map 5 -c:a:0 aac -c:a:1 ac3 -c:s srt -c:s:2 ass";
    let names = "-metadata:s:a:0 language=ger -metadata:s:a:0 title=Ton -metadata:s:a:1 language=fre \
        -metadata:s:s:1 language=spa -disposition:s:1 forced -disposition:s:0 default";
    studio.ffmpeg(&format!("{inputs} {maps} {H264} {names} many.mkv"));
    let many = studio.compared("many.mkv");
    assert_eq!(strings(&many), ["avc1.4d400c", "mp4a.40.2", "ac-3", "-", "-", "-"]);
    assert_eq!(many.tracks[1].name.as_deref(), Some("Ton"));
    assert!(many.tracks[4].forced);
    studio.ffmpeg("-i many.mkv -map 0 -c copy -c:s mov_text many.mp4");
    let many = studio.compared("many.mp4");
    assert_eq!(many.tracks[1].name.as_deref(), Some("Ton"));
    studio.run("mkvmerge", "-q -o merged.mkv many.mkv");
    let merged = studio.compared("merged.mkv");
    assert!(
        merged.tracks[0].bit_rate.is_some_and(|rate| rate < 100_000),
        "statistics: {merged:?}"
    );
    studio.run("mkvmerge", "-q --timestamp-scale 100000 -o fine.mkv many.mkv");
    assert_eq!(studio.compared("fine.mkv").tracks[0].timescale, 10_000);
    studio.ffmpeg("-i many.mkv -map 0:v -map 0:a -c copy -output_ts_offset 1.358 offset.mkv");
    assert_eq!(studio.compared("offset.mkv").tracks[0].start, 1358 + 23);
    studio.ffmpeg("-i many.mkv -map 0:v -map 0:a -c copy -cues_to_front 1 front.mkv");
    studio.compared("front.mkv");
    studio.ffmpeg("-i many.mkv -map 0:v -c copy -reserve_index_space 30000 reserved.mkv");
    studio.compared("reserved.mkv");
}

/// The sound's grid hangs on the time of its first block, which lies behind a picture that is larger than what is read
/// of a file anyhow.
#[test]
fn sound_behind_a_large_picture_has_its_own_start() {
    let studio = Studio::new();
    let noise = "-f lavfi -i nullsrc=s=640x360:r=24:d=4,geq=lum=random(1)*255:cb=128:cr=128";
    studio.ffmpeg(&format!(
        "{noise} -itsoffset 0.07 -f lavfi -i sine=r=44100:d=4 -map 0 -map 1 -map 1 {H264} -qp 8 -c:a aac large.mkv"
    ));
    studio.run("mkvmerge", "-q -o merged.mkv large.mkv");
    for name in ["large.mkv", "merged.mkv"] {
        let index = index_of(&OnDisk::open(&studio.path(name))).expect("an index");
        let starts: Vec<i64> = index.tracks.iter().map(|track| track.start).collect();
        // FFmpeg's encoder begins 23 ms early.
        assert_eq!(starts, [0, 70 - 23, 70 - 23], "{name}");
        // The head, the Cues, and behind each of the pictures before the sound.
        assert!(studio.blocks(name) <= 6, "{name}: {}", studio.blocks(name));
    }
}

/// Bytes that a swarm has to bring before anything can be played: whole blocks of 64 KiB.
#[test]
fn few_blocks_are_read() {
    let studio = Studio::new();
    studio.base();
    let moov = |name: &str| {
        let film = fs::read(studio.path(name)).expect("the film");
        let at = film.windows(4).rposition(|word| word == b"moov").expect("a moov") - 4;
        (u64::from(u32::from_be_bytes(film[at..at + 4].try_into().expect("four"))).div_ceil(BLOCK)) as usize
    };
    // The head, and the moov, which may begin and end within a block.
    assert!(studio.blocks("base.mp4") <= 1 + moov("base.mp4") + 1);
    studio.ffmpeg("-i base.mp4 -c copy -movflags +faststart fast.mp4");
    assert!(studio.blocks("fast.mp4") <= moov("fast.mp4") + 1);
    // The head, and the Cues, which may lie in two blocks.
    studio.ffmpeg("-i base.mp4 -c copy base.mkv");
    assert!(studio.blocks("base.mkv") <= 3);
    studio.run("mkvmerge", "-q -o merged.mkv base.mp4");
    assert!(studio.blocks("merged.mkv") <= 3);
    studio.ffmpeg("-i base.mp4 -c copy -cues_to_front 1 front.mkv");
    assert!(studio.blocks("front.mkv") <= 2);
}

#[test]
fn fragments_are_read_by_their_index_alone() {
    let studio = Studio::new();
    studio.base();
    studio.ffmpeg("-i base.mp4 -c copy -movflags +frag_keyframe+empty_moov fragments.mp4");
    let result = index_of(&OnDisk::open(&studio.path("fragments.mp4")));
    assert!(matches!(result, Err(MediaError::NoIndex { .. })), "{result:?}");
    studio.ffmpeg("-i base.mp4 -c copy -movflags +dash+frag_keyframe+global_sidx listed.mp4");
    let file = OnDisk::open(&studio.path("listed.mp4"));
    let index = index_of(&file).expect("an index");
    assert!(file.blocks() <= 2, "{}", file.blocks());
    let pictures = video(&index);
    assert_eq!(pictures.keyframes.len(), 10, "{pictures:?}");
}

#[test]
fn what_was_recorded_live_has_no_index() {
    let studio = Studio::new();
    studio.base();
    let live = fs::File::create(studio.path("live.mkv")).expect("a file");
    let mut command = Command::new("timeout");
    command
        .args(["60", "ffmpeg", "-v", "error", "-nostdin", "-i"])
        .arg(studio.path("base.mp4"));
    let made = command
        .args(["-c", "copy", "-f", "matroska", "-"])
        .stdout(live)
        .status();
    assert!(made.expect("it runs").success());
    let words = index_of(&OnDisk::open(&studio.path("live.mkv")))
        .expect_err("no index")
        .to_string();
    assert!(words.contains("Matroska") && words.contains("no Cues"), "{words}");
}
