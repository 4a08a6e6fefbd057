//! Tiny films, what is in them, and runs of FFmpeg over them.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use crate::ffmpeg::{Encoding, Job, Start, arguments};
use crate::media::{Index, ReadAt, index};
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

impl Output {
    fn of(cuts: Vec<Cut>) -> Output {
        let mut output = Output::default();
        for cut in cuts {
            match cut {
                Cut::Init(bytes) => output.init = bytes,
                Cut::Segment {
                    number,
                    bytes,
                    provisional,
                } => {
                    let before = output.segments.insert(number, (bytes, provisional));
                    assert!(before.is_none_or(|(_, provisional)| provisional), "{number} twice");
                }
                Cut::LandedLate { .. } => output.landed_late = true,
            }
        }
        output
    }
}

fn call(program: &str, folder: &Path, words: &str) {
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
    /// Made by commands, one a line, of which the last makes the film `name`. `ffmpeg` stands for more than it says,
    /// `V` and `A` are pictures and sound of 14 s.
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
        let index = index_of(&path);
        let plan = Plan::of(&index).unwrap();
        let timeline = Arc::new(Timeline::of(&plan));
        Film {
            folder,
            path,
            plan,
            timeline,
        }
    }

    /// Runs FFmpeg from where segment `begun` wants it, and cuts from segment `first` on. `pieces` is how much of each
    /// pipe is given at once.
    pub(super) fn run(&self, begun: u32, first: u32, pieces: usize) -> Given {
        self.run_from(self.timeline.start_job(begun), begun, first, pieces)
    }

    pub(super) fn run_from(&self, start: Option<Start>, begun: u32, first: u32, pieces: usize) -> Given {
        let mut given = Given::new();
        let mut reached_s = 0.0;
        for (rendition, bytes) in self.plan.renditions().iter().zip(self.pipes(start)) {
            let mut cutter = Cutter::new(&self.plan, &self.timeline, rendition.id, first).begun_at(begun);
            let mut cuts = Vec::new();
            for piece in bytes.chunks(pieces) {
                cuts.extend(cutter.push(piece).unwrap());
            }
            if rendition.id == RenditionId::Video {
                reached_s = cutter.reached_s();
            }
            cuts.extend(cutter.passed(reached_s).unwrap());
            cuts.extend(cutter.finish(true).unwrap());
            given.insert(rendition.id, Output::of(cuts));
        }
        given
    }

    /// What FFmpeg writes to each pipe.
    pub(super) fn pipes(&self, start: Option<Start>) -> Vec<Vec<u8>> {
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
        let pipes = (3..).take(job.outputs.len());
        pipes
            .map(|pipe| std::fs::read(folder.path().join(format!("{pipe}"))).unwrap())
            .collect()
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

struct File(std::fs::File);

impl ReadAt for File {
    fn size(&self) -> u64 {
        self.0.metadata().unwrap().len()
    }

    async fn read_at(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.0.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }
}

fn index_of(path: &Path) -> Index {
    let file = File(std::fs::File::open(path).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(index(&file)).unwrap()
}

/// Whether it comes in fragments.
pub(super) fn fragments_of(encoding: Encoding) -> bool {
    match encoding {
        Encoding::CopyVideo { .. } | Encoding::CopyAudio => true,
        Encoding::WebVtt => false,
    }
}
