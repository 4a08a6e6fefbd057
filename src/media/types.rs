//! What an index holds. All of it is plain values, so that it can be kept on disk.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What the container says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Index {
    /// As its content says; the name of the file does not count.
    pub container: Container,
    /// In the order of FFmpeg's stream indexes, which are [`Track::stream`]. At least one is a video with keyframes.
    pub tracks: Vec<Track>,
}

/// The containers whose index is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Container {
    /// ISO base media (ISO/IEC 14496-12) and QuickTime.
    Mp4,
    /// Matroska (RFC 9559).
    Matroska,
    /// Matroska whose document type says `webm`.
    Webm,
}

impl Container {
    /// The name of FFmpeg's demuxer for it, for `-f`.
    pub fn demuxer(self) -> &'static str {
        match self {
            Container::Mp4 => "mov",
            Container::Matroska | Container::Webm => "matroska",
        }
    }

    /// As people call it.
    pub fn name(self) -> &'static str {
        match self {
            Container::Mp4 => "MP4",
            Container::Matroska => "Matroska",
            Container::Webm => "WebM",
        }
    }
}

/// One stream of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Track {
    /// FFmpeg's index of the stream: the N of `-map 0:N`.
    pub stream: usize,
    /// What its data is coded in.
    pub codec: Codec,
    /// As RFC 6381 writes it in `CODECS`, from the decoder's configuration in the header. None where the codec has no
    /// such string, or where the file lacks the configuration.
    pub codec_string: Option<String>,
    /// BCP 47 or ISO 639-2, as it was found; none when it is not told (`und`).
    pub language: Option<String>,
    /// What its author calls it.
    pub name: Option<String>,
    /// Chosen when the viewer chooses nothing.
    pub default: bool,
    /// Shown also when the viewer wants no subtitles.
    pub forced: bool,
    /// Ticks a second of every time below.
    pub timescale: u32,
    /// Presentation time of the first sample, as FFmpeg's `-copyts` shows it: edit lists are applied, so what comes
    /// before the film (pre-roll) is negative. In Matroska only the video's is exact: its first keyframe in the index.
    /// That of sound is of its first block where that comes soon after the first pictures, that of the others where it
    /// lies in the bytes that were read anyhow, and else it is the video's.
    pub start: i64,
    /// When the last sample ends. In Matroska the duration that the file states, which is that of its longest track.
    pub end: i64,
    /// Bits a second on average. MP4: of the samples. Matroska: as its statistics tags tell where they are near the
    /// index, for the video else what the whole file has, which is too much rather than too little.
    pub bit_rate: Option<u64>,
    /// What only some kinds of stream have.
    pub kind: Kind,
}

/// What only some kinds of stream have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Kind {
    /// Moving pictures.
    Video(Video),
    /// Sound.
    Audio(Audio),
    /// Subtitles, of text or of pictures: [`Codec`] tells.
    Subtitles,
    /// Cover pictures, chapters, time codes, attached files.
    Other,
}

/// Of a video track.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Video {
    /// Coded width in pixels.
    pub width: u32,
    /// Coded height in pixels.
    pub height: u32,
    /// Frames a second as a fraction: the average of an MP4, the one that a Matroska states. None where nothing tells.
    pub frame_rate: Option<(u32, u32)>,
    /// Pictures are coded in another order than shown, so FFmpeg has `has_b_frames` > 0 and seeks a Matroska 3/23 s
    /// early. Where a header does not tell, true.
    pub reordered: bool,
    /// Bits of a colour sample, where the decoder's configuration tells.
    pub bit_depth: Option<u8>,
    /// In order of time, and none twice. In MP4 all; in Matroska those of the Cues, which by custom are all. Empty
    /// only for a further video track that the index does not list.
    pub keyframes: Vec<Keyframe>,
}

/// A picture that can be decoded without another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keyframe {
    /// Presentation time, in the track's ticks, on the same clock as [`Track::start`].
    pub pts: i64,
    /// The byte of the file at which what has to be read for it begins: in MP4 the sample, in Matroska the cluster.
    pub offset: u64,
}

/// Of an audio track.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Audio {
    /// How many channels; what the decoder's configuration says goes before the container's word.
    pub channels: u16,
    /// Samples a second and channel, as decoded.
    pub sample_rate: u32,
    /// Samples a channel in every packet, at `sample_rate`; none where packets may differ.
    pub frame_samples: Option<u32>,
    /// How much of the beginning is only there for the decoder to settle, in samples at `sample_rate`: Matroska's
    /// CodecDelay, Opus' pre-skip. 0 where an edit list says it, since the times have it already.
    pub delay: i64,
}

/// What data is coded in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "they are the names of the codecs")]
pub enum Codec {
    H264,
    Hevc,
    Av1,
    Vp9,
    Vp8,
    Mpeg4,
    Aac,
    Ac3,
    Eac3,
    Opus,
    Flac,
    Vorbis,
    Mp3,
    Dts,
    TrueHd,
    Pcm,
    SubRip,
    Ass,
    WebVtt,
    MovText,
    Pgs,
    VobSub,
    /// As the container names it; at most 64 printable characters.
    Other(String),
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Codec::H264 => "H.264",
            Codec::Hevc => "HEVC",
            Codec::Av1 => "AV1",
            Codec::Vp9 => "VP9",
            Codec::Vp8 => "VP8",
            Codec::Mpeg4 => "MPEG-4 part 2",
            Codec::Aac => "AAC",
            Codec::Ac3 => "AC-3",
            Codec::Eac3 => "E-AC-3",
            Codec::Opus => "Opus",
            Codec::Flac => "FLAC",
            Codec::Vorbis => "Vorbis",
            Codec::Mp3 => "MP3",
            Codec::Dts => "DTS",
            Codec::TrueHd => "TrueHD",
            Codec::Pcm => "PCM",
            Codec::SubRip => "SubRip",
            Codec::Ass => "ASS",
            Codec::WebVtt => "WebVTT",
            Codec::MovText => "MP4 timed text",
            Codec::Pgs => "PGS",
            Codec::VobSub => "VobSub",
            Codec::Other(name) => name,
        })
    }
}
