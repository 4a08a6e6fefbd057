//! What FFmpeg is told: one input, and a pipe for each track that is wanted of it.
//!
//! The options are those under which a run that begins at any keyframe gives the same fragments, byte for byte, as the
//! run that began at the start of the file. Each is there for a reason that was measured:
//!
//! - `-copyts`, `frag_discont`, `-avoid_negative_ts disabled` and `-use_editlist 0`: without one of them the timestamps
//!   of a run begin at 0, wherever it begins.
//! - `-output_ts_offset 10`: with the above the first decoding times can be negative, which fragments cannot say.
//! - `-seek_timestamp 1`: `-ss` is otherwise relative to the file's start time, and lands late.
//! - `delay_moov` for audio: AC-3 cannot write its header before its first packet.
//! - `-map_chapters -1`, `-map_metadata -1`: a film with chapters would get a track more, and its names are a stranger's.
//! - no `-xerror`: open GOPs end such a run for timestamps that do no harm.

use std::ffi::OsString;
use std::path::PathBuf;

/// More outputs than this a run cannot have: films with a hundred subtitle tracks exist.
pub const MOST_OUTPUTS: usize = 128;

/// The first output's file descriptor; the others follow it.
pub(super) const FIRST_PIPE: i32 = 3;

/// One run of FFmpeg.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The file, as an absolute path.
    pub input: PathBuf,
    /// The container that was recognised in it, by FFmpeg's name: it is forced, never guessed. A playlist that names
    /// other files is then no playlist.
    pub demuxer: &'static str,
    /// Where to begin; at the beginning if `None`.
    pub start: Option<Start>,
    /// What is wanted, one pipe each, in this order.
    pub outputs: Vec<Output>,
}

/// Where a run begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// In the time of the container, as the file says it, in microseconds. FFmpeg lands on a keyframe at or before it.
    pub at_us: i64,
}

/// One track, and what is made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// FFmpeg's number of the stream (`-map 0:N`).
    pub stream: usize,
    /// What is made of it.
    pub encoding: Encoding,
}

/// What is made of a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Fragmented MP4, a fragment for each keyframe.
    CopyVideo {
        /// The sample entry in place of FFmpeg's choice: `hvc1` for HEVC, since Apple's players refuse `hev1`.
        tag: Option<&'static str>,
    },
    /// Fragmented MP4, a fragment for each frame.
    CopyAudio,
    /// Text subtitles as WebVTT.
    WebVtt,
}

/// The arguments for a job, without the program's name. The outputs go to the pipes 3, 4, 5 and so on.
///
/// Nothing of a torrent gets here but the path, behind `file:`.
pub fn arguments(job: &Job) -> Vec<OsString> {
    let mut line = Line(Vec::new());
    line.add("-v error -nostdin -copyts");
    if let Some(Start { at_us }) = job.start {
        line.add("-seek_timestamp 1 -ss").push(seconds(at_us));
    }
    let mut input = OsString::from("file:");
    input.push(&job.input);
    line.add("-protocol_whitelist file,pipe -f").push(job.demuxer);
    line.add("-i").push(input);
    for (pipe, output) in (FIRST_PIPE..).zip(&job.outputs) {
        line.add("-map").push(format!("0:{}", output.stream));
        line.add("-map_metadata -1 -map_chapters -1");
        match output.encoding {
            Encoding::CopyVideo { tag } => {
                line.add("-c copy");
                if let Some(tag) = tag {
                    line.add("-tag:v").push(tag);
                }
                line.add(TIMESTAMPS);
                line.add("-movflags +frag_keyframe+empty_moov+default_base_moof+frag_discont -f mp4");
            }
            Encoding::CopyAudio => {
                line.add("-c copy").add(TIMESTAMPS).add("-strict -2");
                line.add("-movflags +frag_every_frame+delay_moov+default_base_moof+frag_discont");
                line.add("-flush_packets 1 -f mp4");
            }
            Encoding::WebVtt => {
                line.add("-c:s webvtt -flush_packets 1 -f webvtt");
            }
        }
        line.push(format!("pipe:{pipe}"));
    }
    line.0
}

const TIMESTAMPS: &str = "-avoid_negative_ts disabled -use_editlist 0 -output_ts_offset 10";

struct Line(Vec<OsString>);

impl Line {
    /// Words of ours, parted by spaces.
    fn add(&mut self, words: &str) -> &mut Self {
        self.0.extend(words.split(' ').map(OsString::from));
        self
    }

    /// One word, whatever is in it.
    fn push(&mut self, word: impl Into<OsString>) {
        self.0.push(word.into());
    }
}

/// Exact: a float would land one keyframe early now and then.
fn seconds(at_us: i64) -> String {
    let sign = if at_us < 0 { "-" } else { "" };
    let at_us = at_us.unsigned_abs();
    format!("{sign}{}.{:06}", at_us / 1_000_000, at_us % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(job: &Job) -> String {
        let words: Vec<_> = arguments(job)
            .into_iter()
            .map(|word| word.into_string().unwrap())
            .collect();
        words.join(" ")
    }

    #[test]
    fn every_track_has_its_pipe() {
        let job = Job {
            input: "/mount/Film.mkv".into(),
            demuxer: "matroska",
            start: Some(Start { at_us: 85_230_001 }),
            outputs: vec![
                Output {
                    stream: 0,
                    encoding: Encoding::CopyVideo { tag: Some("hvc1") },
                },
                Output {
                    stream: 2,
                    encoding: Encoding::CopyAudio,
                },
                Output {
                    stream: 5,
                    encoding: Encoding::WebVtt,
                },
            ],
        };
        let expected = "-v error -nostdin -copyts -seek_timestamp 1 -ss 85.230001 \
            -protocol_whitelist file,pipe -f matroska -i file:/mount/Film.mkv \
            -map 0:0 -map_metadata -1 -map_chapters -1 -c copy -tag:v hvc1 \
            -avoid_negative_ts disabled -use_editlist 0 -output_ts_offset 10 \
            -movflags +frag_keyframe+empty_moov+default_base_moof+frag_discont -f mp4 pipe:3 \
            -map 0:2 -map_metadata -1 -map_chapters -1 -c copy \
            -avoid_negative_ts disabled -use_editlist 0 -output_ts_offset 10 -strict -2 \
            -movflags +frag_every_frame+delay_moov+default_base_moof+frag_discont -flush_packets 1 -f mp4 pipe:4 \
            -map 0:5 -map_metadata -1 -map_chapters -1 -c:s webvtt -flush_packets 1 -f webvtt pipe:5";
        assert_eq!(text(&job), expected);
        let from_the_start = text(&Job { start: None, ..job });
        assert!(!from_the_start.contains("-ss") && !from_the_start.contains("seek_timestamp"));
    }

    #[test]
    fn a_time_is_exact() {
        for (at_us, said) in [
            (0, "0.000000"),
            (1, "0.000001"),
            (-1_500_000, "-1.500000"),
            (-1, "-0.000001"),
            (i64::MAX, "9223372036854.775807"),
            (i64::MIN, "-9223372036854.775808"),
        ] {
            assert_eq!(seconds(at_us), said);
        }
    }

    /// "No name from a torrent reaches a shell or an FFmpeg option."
    #[test]
    fn a_name_is_one_word_behind_its_protocol() {
        use std::os::unix::ffi::OsStringExt;
        let name = OsString::from_vec(b"/m/-i concat:a|b %03d\n$(x) \xff.mkv".to_vec());
        let job = Job {
            input: name.clone().into(),
            demuxer: "mov",
            start: None,
            outputs: vec![Output {
                stream: 1,
                encoding: Encoding::CopyAudio,
            }],
        };
        let arguments = arguments(&job);
        let place = arguments.iter().position(|word| word == "-i").unwrap();
        let mut expected = OsString::from("file:");
        expected.push(name);
        assert_eq!(arguments[place + 1], expected);
    }
}
