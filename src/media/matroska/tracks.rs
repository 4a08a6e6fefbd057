//! Tracks (RFC 9559 5.1.4), and the codecs by their names (RFC 9559 27.6, and the codec mappings of Matroska).

use super::Clock;
use super::ebml::{Elements, child, float, unsigned};
use crate::media::codecs::{Picture, Sound, av1, flac, h264, hevc, mpeg4_audio, opus, vp9_guess};
use crate::media::fields::{frame_rate, words};
use crate::media::{Audio, Codec, Kind, MediaError, TRACK_LIMIT, Track, Video};

const TRACK_ENTRY: u32 = 0xae;
const TRACK_NUMBER: u32 = 0xd7;
const TRACK_UID: u32 = 0x73c5;
const TRACK_TYPE: u32 = 0x83;
/// Of [`TRACK_TYPE`].
const AUDIO_TYPE: u64 = 2;
const FLAG_DEFAULT: u32 = 0x88;
const FLAG_FORCED: u32 = 0x55aa;
const DEFAULT_DURATION: u32 = 0x23_e383;
const NAME: u32 = 0x536e;
const LANGUAGE: u32 = 0x22_b59c;
const LANGUAGE_BCP47: u32 = 0x22_b59d;
const CODEC_ID: u32 = 0x86;
const CODEC_PRIVATE: u32 = 0x63a2;
const CODEC_DELAY: u32 = 0x56aa;
const VIDEO: u32 = 0xe0;
const PIXEL_WIDTH: u32 = 0xb0;
const PIXEL_HEIGHT: u32 = 0xba;
const COLOUR: u32 = 0x55b0;
const BITS_PER_CHANNEL: u32 = 0x55b2;
const AUDIO: u32 = 0xe1;
const SAMPLING_FREQUENCY: u32 = 0xb5;
const OUTPUT_SAMPLING_FREQUENCY: u32 = 0x78b5;
const CHANNELS: u32 = 0x9f;

/// A track, and what of it only counts within the file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) number: u64,
    pub(super) uid: u64,
    /// What FFmpeg takes off every time of it, in ticks of the index.
    pub(super) delay: i64,
    pub(super) track: Track,
}

/// The tracks that FFmpeg makes streams of, in its order.
pub(super) fn entries(tracks: &[u8], clock: Clock) -> Result<Vec<Entry>, MediaError> {
    let mut entries: Vec<Entry> = Vec::new();
    for (id, body) in Elements(tracks) {
        if id != TRACK_ENTRY {
            continue;
        }
        if entries.len() >= TRACK_LIMIT {
            return Err(MediaError::TooLarge {
                what: "tracks",
                limit: TRACK_LIMIT as u64,
            });
        }
        entries.extend(entry(body, entries.len(), clock));
    }
    Ok(entries)
}

/// The numbers of the audio tracks.
pub(super) fn sounds(tracks: &[u8]) -> Vec<u64> {
    let entries = Elements(tracks).filter(|(id, _)| *id == TRACK_ENTRY).take(TRACK_LIMIT);
    let sounds = entries.filter(|(_, body)| child(body, TRACK_TYPE).and_then(unsigned) == Some(AUDIO_TYPE));
    sounds
        .filter_map(|(_, body)| child(body, TRACK_NUMBER).and_then(unsigned))
        .collect()
}

fn entry(body: &[u8], stream: usize, clock: Clock) -> Option<Entry> {
    let number = |id| child(body, id).and_then(unsigned);
    let text = |id| child(body, id).and_then(words);
    let private = child(body, CODEC_PRIVATE).unwrap_or_default();
    let name = text(CODEC_ID)?;
    let codec = codec(&name, private);
    let delay = number(CODEC_DELAY).unwrap_or(0);
    let (kind, codec_string) = match number(TRACK_TYPE)? {
        1 => video(body, &codec, private),
        AUDIO_TYPE => audio(body, &codec, private, delay),
        17 => (Kind::Subtitles, (codec == Codec::WebVtt).then(|| "wvtt".to_owned())),
        33 => (Kind::Other, None),
        _ => return None,
    };
    let language = text(LANGUAGE_BCP47)
        .or_else(|| text(LANGUAGE))
        .unwrap_or_else(|| "eng".to_owned());
    let ticks = (u128::from(delay) + u128::from(clock.scale) / 2) / u128::from(clock.scale);
    Some(Entry {
        number: number(TRACK_NUMBER).unwrap_or(0),
        uid: number(TRACK_UID).unwrap_or(0),
        delay: clock.ticks(i64::try_from(ticks).unwrap_or(i64::MAX)),
        track: Track {
            stream,
            codec,
            codec_string,
            language: Some(language).filter(|language| language != "und"),
            name: text(NAME),
            default: number(FLAG_DEFAULT) != Some(0),
            forced: number(FLAG_FORCED).is_some_and(|flag| flag != 0),
            timescale: clock.timescale,
            start: 0,
            end: 0,
            bit_rate: None,
            kind,
        },
    })
}

fn codec(name: &str, private: &[u8]) -> Codec {
    match name {
        "V_MPEG4/ISO/AVC" => Codec::H264,
        "V_MPEGH/ISO/HEVC" => Codec::Hevc,
        "V_AV1" => Codec::Av1,
        "V_VP9" => Codec::Vp9,
        "V_VP8" => Codec::Vp8,
        "V_MPEG4/ISO/SP" | "V_MPEG4/ISO/ASP" | "V_MPEG4/ISO/AP" => Codec::Mpeg4,
        // A BITMAPINFOHEADER.
        "V_MS/VFW/FOURCC" => match private.get(16..20) {
            Some(b"XVID" | b"DIVX" | b"DX50" | b"FMP4" | b"MP4V") => Codec::Mpeg4,
            _ => Codec::Other(name.to_owned()),
        },
        "A_AC3" => Codec::Ac3,
        "A_EAC3" => Codec::Eac3,
        "A_OPUS" => Codec::Opus,
        "A_FLAC" => Codec::Flac,
        "A_VORBIS" => Codec::Vorbis,
        "A_MPEG/L3" => Codec::Mp3,
        "A_TRUEHD" => Codec::TrueHd,
        "S_TEXT/UTF8" | "S_TEXT/ASCII" => Codec::SubRip,
        "S_TEXT/ASS" | "S_TEXT/SSA" | "S_ASS" | "S_SSA" => Codec::Ass,
        "S_TEXT/WEBVTT" => Codec::WebVtt,
        "S_HDMV/PGS" => Codec::Pgs,
        "S_VOBSUB" => Codec::VobSub,
        _ if name == "A_AAC" || name.starts_with("A_AAC/") => Codec::Aac,
        _ if name.starts_with("A_AC3/") => Codec::Ac3,
        _ if name == "A_DTS" || name.starts_with("A_DTS/") => Codec::Dts,
        _ if name.starts_with("A_PCM/") => Codec::Pcm,
        _ if name.starts_with("D_WEBVTT/") => Codec::WebVtt,
        _ => Codec::Other(name.chars().take(64).collect()),
    }
}

fn video(body: &[u8], codec: &Codec, private: &[u8]) -> (Kind, Option<String>) {
    let video = child(body, VIDEO).unwrap_or_default();
    let number = |id| {
        child(video, id)
            .and_then(unsigned)
            .and_then(|value| u32::try_from(value).ok())
    };
    let (width, height) = (number(PIXEL_WIDTH).unwrap_or(0), number(PIXEL_HEIGHT).unwrap_or(0));
    let frame_rate = child(body, DEFAULT_DURATION)
        .and_then(unsigned)
        .and_then(|each| frame_rate(1_000_000_000, each));
    let bits = child(video, COLOUR)
        .and_then(|colour| child(colour, BITS_PER_CHANNEL))
        .and_then(unsigned);
    let told_depth = bits.and_then(|bits| u8::try_from(bits).ok()).filter(|bits| *bits > 0);
    let picture = match codec {
        Codec::H264 => h264(private),
        Codec::Hevc => hevc(private),
        Codec::Av1 => av1(private),
        Codec::Vp9 => Some(vp9_guess(private, (width, height), frame_rate, told_depth)),
        Codec::Vp8 => Some(Picture {
            string: Some("vp8".to_owned()),
            reordered: Some(false),
            bit_depth: Some(8),
        }),
        _ => None,
    };
    let picture = picture.unwrap_or_default();
    let kind = Kind::Video(Video {
        width,
        height,
        frame_rate,
        reordered: picture.reordered.unwrap_or(!matches!(codec, Codec::Av1)),
        bit_depth: picture.bit_depth.or(told_depth),
        keyframes: Vec::new(),
    });
    (kind, picture.string)
}

fn audio(body: &[u8], codec: &Codec, private: &[u8], delay: u64) -> (Kind, Option<String>) {
    let audio = child(body, AUDIO).unwrap_or_default();
    let rate = |id| {
        child(audio, id)
            .and_then(float)
            .filter(|rate| *rate >= 1.0 && *rate < 1e7)
    };
    let rate = rate(OUTPUT_SAMPLING_FREQUENCY)
        .or_else(|| rate(SAMPLING_FREQUENCY))
        .unwrap_or(8000.0);
    let channels = child(audio, CHANNELS).and_then(unsigned).unwrap_or(1).min(255) as u16;
    let plain = |string: &str, frame_samples| {
        Some(Sound {
            string: Some(string.to_owned()),
            frame_samples,
            ..Sound::default()
        })
    };
    let sound = match codec {
        Codec::Aac => mpeg4_audio(private),
        Codec::Ac3 => plain("ac-3", Some(1536)),
        Codec::Eac3 => plain("ec-3", Some(1536)),
        Codec::Opus => opus(private).or_else(|| plain("opus", None)),
        Codec::Flac => flac(private).or_else(|| plain("fLaC", None)),
        Codec::Mp3 => plain("mp4a.6b", Some(1152)),
        _ => None,
    };
    let sound = sound.unwrap_or_default();
    let sample_rate = if sound.sample_rate > 0 {
        sound.sample_rate
    } else {
        rate as u32
    };
    let stated = (u128::from(delay) * u128::from(sample_rate) + 500_000_000) / 1_000_000_000;
    let kind = Kind::Audio(Audio {
        channels: if sound.channels > 0 { sound.channels } else { channels },
        sample_rate,
        frame_samples: sound.frame_samples,
        delay: if delay > 0 {
            i64::try_from(stated).unwrap_or(0)
        } else {
            sound.delay
        },
    });
    (kind, sound.string)
}
