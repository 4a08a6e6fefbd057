//! Tiny films, what is in them, and runs of FFmpeg over them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use crate::ffmpeg::{Encoding, Job, Start, arguments};
use crate::media::{Audio, Codec, Container, Index, Keyframe, Kind, Track, Video};
use crate::stream::{Cut, Cutter, Plan, RenditionId, Timeline};

/// A film in a folder of its own.
pub(super) struct Film {
    folder: tempfile::TempDir,
    pub(super) path: PathBuf,
    pub(super) plan: Plan,
    pub(super) timeline: Arc<Timeline>,
}

/// A packet as ffprobe shows it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Packet {
    pub(super) pts_us: i64,
    pub(super) dts_us: i64,
    pub(super) duration_us: i64,
    pub(super) hash: String,
    pub(super) hidden: bool,
}

/// All that a run gave of each rendition.
pub(super) type Given = BTreeMap<RenditionId, Output>;

#[derive(Debug, Default)]
pub(super) struct Output {
    pub(super) init: Bytes,
    pub(super) segments: BTreeMap<u32, (Bytes, bool)>,
    pub(super) landed_late: bool,
}

pub(super) fn call(program: &str, folder: &Path, words: &str) {
    let done = Command::new(program)
        .current_dir(folder)
        .args(words.split_whitespace())
        .output()
        .unwrap();
    assert!(
        done.status.success(),
        "{program} {words}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
}

impl Film {
    /// Made by commands, one a line, of which the last makes the film `name`. `ffmpeg` stands for more than it says, `V`
    /// and `A` are pictures and sound of 14 s.
    pub(super) fn made(name: &str, commands: &str) -> Film {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("subtitles.srt"), subtitles()).unwrap();
        for line in commands.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (program, words) = line.split_once(' ').unwrap();
            let words = match program {
                "ffmpeg" => format!("-v error -nostdin -y -bitexact {words}"),
                _ => words.to_owned(),
            };
            let words = words.replace("V24", "-f lavfi -i testsrc2=s=96x64:r=24000/1001:d=14");
            let words = words.replace("V25", "-f lavfi -i testsrc2=s=96x64:r=25:d=14");
            let words = words.replace("A48", "-f lavfi -i sine=r=48000:d=14");
            let words = words.replace("A44", "-f lavfi -i sine=r=44100:d=14");
            call(program, folder.path(), &words);
        }
        let path = folder.path().join(name);
        let index = index(&path);
        let plan = Plan::of(&index).unwrap();
        let timeline = Arc::new(Timeline::of(&plan));
        Film {
            folder,
            path,
            plan,
            timeline,
        }
    }

    /// Runs FFmpeg from where segment `begun` wants it, and cuts from segment `first` on. `pieces` is how much of each pipe
    /// is given at once.
    pub(super) fn run(&self, begun: u32, first: u32, pieces: usize) -> Given {
        self.run_from(self.timeline.start_job(begun), begun, first, pieces)
    }

    pub(super) fn run_from(&self, start: Option<Start>, begun: u32, first: u32, pieces: usize) -> Given {
        let outputs = self.plan.outputs();
        let job = Job {
            input: self.path.clone(),
            demuxer: self.plan.container().demuxer(),
            start,
            outputs,
        };
        let folder = tempfile::tempdir_in(self.folder.path()).unwrap();
        let mut command = Command::new("ffmpeg");
        // Files in place of pipes: what they get is the same, and none can stand still unread.
        command.current_dir(folder.path()).arg("-y");
        for word in arguments(&job) {
            match word.to_str().and_then(|word| word.strip_prefix("pipe:")) {
                Some(number) => command.arg(format!("file:{number}")),
                None => command.arg(word),
            };
        }
        let done = command.output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let mut given = Given::new();
        let mut video_reached = 0.0;
        for (pipe, rendition) in (3..).zip(self.plan.renditions()) {
            let bytes = std::fs::read(folder.path().join(format!("{pipe}"))).unwrap();
            let mut cutter = Cutter::new(&self.plan, &self.timeline, rendition.id, first).begun_at(begun);
            let mut cuts = Vec::new();
            for piece in bytes.chunks(pieces) {
                cuts.extend(cutter.push(piece).unwrap());
                if rendition.id == RenditionId::Video {
                    video_reached = cutter.reached_s();
                }
            }
            if rendition.id != RenditionId::Video {
                cuts.extend(cutter.passed(video_reached).unwrap());
            }
            cuts.extend(cutter.finish(true).unwrap());
            let output: &mut Output = given.entry(rendition.id).or_default();
            for cut in cuts {
                match cut {
                    Cut::Init(bytes) => output.init = bytes,
                    Cut::Segment {
                        number,
                        bytes,
                        provisional,
                    } => {
                        assert!(
                            output.segments.insert(number, (bytes, provisional)).is_none(),
                            "{number} twice"
                        );
                    }
                    Cut::LandedLate { .. } => output.landed_late = true,
                }
            }
        }
        given
    }

    /// As ffprobe shows the film's own.
    pub(super) fn packets(&self, rendition: RenditionId) -> Vec<Packet> {
        let track = &self.plan.rendition(rendition).unwrap().track;
        packets(&self.path, track.stream)
    }

    /// The same, of what the film was made of.
    pub(super) fn packets_of(&self, name: &str, stream: usize) -> Vec<Packet> {
        packets(&self.folder.path().join(name), stream)
    }

    /// As ffprobe shows those of all segments behind one another.
    pub(super) fn joined(&self, output: &Output) -> Vec<Packet> {
        let path = self.folder.path().join("joined.mp4");
        let mut bytes = output.init.to_vec();
        output
            .segments
            .values()
            .for_each(|(segment, _)| bytes.extend_from_slice(segment));
        std::fs::write(&path, bytes).unwrap();
        let mut packets = packets(&path, 0);
        for packet in &mut packets {
            packet.pts_us -= 10_000_000;
            packet.dts_us -= 10_000_000;
        }
        packets
    }
}

/// A cue every two seconds, of one second; and one over all of the film.
fn subtitles() -> String {
    let mut text = String::from("1\n00:00:00,500 --> 00:00:13,000\nall over\n\n");
    for number in 0..6 {
        let start = 2 * number + 1;
        text += &format!(
            "{}\n00:00:{start:02},250 --> 00:00:{:02},250\ncue <i>{number}</i>\nline two\n\n",
            number + 2,
            start + 1
        );
    }
    text
}

fn probe(path: &Path, words: &str) -> Value {
    let done = Command::new("ffprobe")
        .args(["-v", "error", "-of", "json"])
        .args(words.split_whitespace())
        .arg(path)
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(done.stderr.is_empty(), "{}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).unwrap()
}

fn packets(path: &Path, stream: usize) -> Vec<Packet> {
    let shown = probe(
        path,
        &format!("-show_packets -show_data_hash md5 -select_streams {stream}"),
    );
    let us = |value: &Value| (value.as_str().unwrap_or("0").parse::<f64>().unwrap() * 1e6).round() as i64;
    let packet = |packet: &Value| Packet {
        pts_us: us(&packet["pts_time"]),
        dts_us: us(&packet["dts_time"]),
        duration_us: us(&packet["duration_time"]),
        hash: packet["data_hash"].as_str().unwrap().to_owned(),
        hidden: packet["flags"].as_str().unwrap().contains('D'),
    };
    shown["packets"].as_array().unwrap().iter().map(packet).collect()
}

/// What `media` would say, as ffprobe says it.
fn index(path: &Path) -> Index {
    let shown = probe(path, "-show_streams -show_format -show_packets");
    let container = match path.extension().unwrap().to_str().unwrap() {
        "mp4" => Container::Mp4,
        "mkv" => Container::Matroska,
        _ => Container::Webm,
    };
    let tracks = shown["streams"].as_array().unwrap().iter();
    let tracks = tracks.map(|stream| track(stream, &shown, container)).collect();
    Index { container, tracks }
}

fn track(stream: &Value, shown: &Value, container: Container) -> Track {
    let number = stream["index"].as_u64().unwrap();
    let (codec, codec_string, frame) = match stream["codec_name"].as_str().unwrap() {
        "h264" => (Codec::H264, Some("avc1.64000A"), None),
        "hevc" => (Codec::Hevc, Some("hvc1.1.6.L30.90"), None),
        "av1" => (Codec::Av1, Some("av01.0.00M.08"), None),
        "vp9" => (Codec::Vp9, Some("vp09.00.10.08"), None),
        "aac" => (Codec::Aac, Some("mp4a.40.2"), Some(1024)),
        "ac3" => (Codec::Ac3, Some("ac-3"), Some(1536)),
        "opus" => (Codec::Opus, Some("opus"), None),
        "flac" => (
            Codec::Flac,
            Some("fLaC"),
            stream["frame_size"].as_u64().filter(|size| *size > 0),
        ),
        "subrip" => (Codec::SubRip, None, None),
        "mov_text" => (Codec::MovText, None, None),
        other => panic!("{other}"),
    };
    let of_track = |packet: &&Value| packet["stream_index"].as_u64() == Some(number);
    let packets: Vec<&Value> = shown["packets"].as_array().unwrap().iter().filter(of_track).collect();
    let pts = |packet: &&&Value| packet["pts"].as_i64().unwrap();
    let end = |packet: &&Value| packet["pts"].as_i64().unwrap() + packet["duration"].as_i64().unwrap_or(0);
    let timescale: u32 = stream["time_base"]
        .as_str()
        .unwrap()
        .strip_prefix("1/")
        .unwrap()
        .parse()
        .unwrap();
    let keyframe = |packet: &&&Value| packet["flags"].as_str().unwrap().starts_with('K');
    let keyframes = packets.iter().filter(keyframe).map(|packet| Keyframe {
        pts: packet["pts"].as_i64().unwrap(),
        offset: packet["pos"].as_str().unwrap().parse().unwrap(),
    });
    let fraction = stream["avg_frame_rate"].as_str().unwrap().split_once('/').unwrap();
    let kind = match stream["codec_type"].as_str().unwrap() {
        "video" => Kind::Video(Video {
            width: stream["width"].as_u64().unwrap() as u32,
            height: stream["height"].as_u64().unwrap() as u32,
            frame_rate: Some((fraction.0.parse().unwrap(), fraction.1.parse().unwrap())),
            reordered: stream["has_b_frames"].as_u64().unwrap() > 0,
            bit_depth: Some(8),
            keyframes: keyframes.collect(),
        }),
        "audio" => Kind::Audio(Audio {
            channels: stream["channels"].as_u64().unwrap() as u16,
            sample_rate: stream["sample_rate"].as_str().unwrap().parse().unwrap(),
            frame_samples: frame.map(|frame| frame as u32),
            delay: 0,
        }),
        _ => Kind::Subtitles,
    };
    let duration = shown["format"]["duration"].as_str().unwrap().parse::<f64>().unwrap();
    let start = shown["format"]["start_time"].as_str().unwrap().parse::<f64>().unwrap();
    Track {
        stream: number as usize,
        codec,
        codec_string: codec_string.map(str::to_owned),
        language: stream["tags"]["language"].as_str().map(str::to_owned),
        name: stream["tags"]["title"].as_str().map(str::to_owned),
        default: stream["disposition"]["default"] == 1,
        forced: stream["disposition"]["forced"] == 1,
        timescale,
        start: packets.iter().map(|packet| pts(&packet)).min().unwrap(),
        end: match container {
            Container::Mp4 => packets.iter().map(end).max().unwrap(),
            _ => ((duration + start) * f64::from(timescale)).round() as i64,
        },
        bit_rate: stream["bit_rate"].as_str().and_then(|rate| rate.parse().ok()),
        kind,
    }
}

/// So that no test forgets a kind of output.
pub(super) fn fragments_of(encoding: Encoding) -> bool {
    match encoding {
        Encoding::CopyVideo { .. } | Encoding::CopyAudio => true,
        Encoding::WebVtt => false,
    }
}
