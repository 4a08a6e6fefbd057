//! Sample entries: what a track is coded in (ISO/IEC 14496-12 8.5.2, 14496-14, 14496-15, and those of the codecs).

use super::boxes::{Boxes, child};
use crate::media::Codec;
use crate::media::codecs::{Picture, Sound, ac3, av1, eac3, es_descriptor, flac, h264, hevc, mpeg4_audio, opus, vp9};
use crate::media::fields::{Fields, words};

/// What the first sample entry of a track says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) codec: Codec,
    pub(super) string: Option<String>,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) picture: Picture,
    pub(super) sound: Sound,
    /// All samples are to be shown even where no subtitles are wanted (3GPP TS 26.245 5.16, as Apple extends it).
    pub(super) forced: bool,
}

/// Of the body of an `stsd`, for a track of this handler.
pub(super) fn entry(stsd: &[u8], handler: &[u8; 4]) -> Option<Entry> {
    let (kind, body) = Boxes(stsd.get(8..)?).next()?;
    let mut entry = Entry {
        codec: other(&kind),
        string: None,
        width: 0,
        height: 0,
        picture: Picture::default(),
        sound: Sound::default(),
        forced: false,
    };
    match handler {
        b"vide" => video(&mut entry, kind, body),
        b"soun" => sound(&mut entry, kind, body),
        _ => {
            entry.codec = match &kind {
                b"tx3g" | b"text" => Codec::MovText,
                b"wvtt" => Codec::WebVtt,
                b"mp4s" => Codec::VobSub,
                kind => other(kind),
            };
            const ALL_FORCED: u32 = 0x8000_0000;
            entry.forced = &kind == b"tx3g"
                && body
                    .get(8..)
                    .and_then(|body| Fields(body).u32())
                    .is_some_and(|flags| flags & ALL_FORCED != 0);
        }
    }
    Some(entry)
}

fn other(kind: &[u8; 4]) -> Codec {
    let printable = kind.map(|byte| if byte.is_ascii_graphic() { byte } else { b' ' });
    Codec::Other(words(&printable).unwrap_or_else(|| "unnamed".to_owned()))
}

fn video(entry: &mut Entry, kind: [u8; 4], body: &[u8]) {
    const SIZE_AT: usize = 24;
    const CHILDREN_AT: usize = 78;
    let mut size = Fields(body.get(SIZE_AT..).unwrap_or_default());
    entry.width = size.u16().unwrap_or(0).into();
    entry.height = size.u16().unwrap_or(0).into();
    let children = body.get(CHILDREN_AT..).unwrap_or_default();
    let config = |kind: &[u8; 4]| child(children, kind);
    let (codec, picture) = match &kind {
        b"avc1" | b"avc2" | b"avc3" | b"avc4" | b"dva1" | b"dvav" => (Codec::H264, config(b"avcC").and_then(h264)),
        b"hvc1" | b"hev1" | b"dvh1" | b"dvhe" => (Codec::Hevc, config(b"hvcC").and_then(hevc)),
        b"av01" | b"dav1" => (Codec::Av1, config(b"av1C").and_then(av1)),
        b"vp09" => (Codec::Vp9, config(b"vpcC").and_then(vp9)),
        b"vp08" => (Codec::Vp8, None),
        b"mp4v" => match config(b"esds").and_then(|esds| es_descriptor(esds.get(4..)?)) {
            Some((0x20, _)) => (Codec::Mpeg4, None),
            Some((0x6c..=0x6e, _)) => (Codec::Other("still picture".to_owned()), None),
            Some((0x60..=0x65, _)) => (Codec::Other("MPEG-2 video".to_owned()), None),
            _ => (other(&kind), None),
        },
        kind => (other(kind), None),
    };
    entry.codec = codec;
    entry.picture = picture.unwrap_or_default();
    entry.string = entry.picture.string.clone();
}

fn sound(entry: &mut Entry, kind: [u8; 4], body: &[u8]) {
    let mut fields = Fields(body.get(8..).unwrap_or_default());
    let version = fields.u16();
    fields.take(6);
    let mut channels = fields.u16().unwrap_or(0);
    fields.take(6);
    let mut sample_rate = fields.u32().unwrap_or(0) >> 16;
    // QuickTime's longer entries; ISO files have version 0, or 1 without the fields, which have boxes there.
    match version {
        Some(1) if child(fields.0, b"esds").is_none() => {
            fields.take(16);
        }
        Some(2) => {
            fields.take(4);
            sample_rate = fields.u64().map_or(0, |bits| f64::from_bits(bits) as u32);
            channels = fields.u32().map_or(0, |count| count.min(255) as u16);
            fields.take(20);
        }
        _ => {}
    }
    let children = fields.0;
    let config = |kind: &[u8; 4]| {
        let within = || child(child(children, b"wave")?, kind);
        child(children, kind).or_else(within)
    };
    let plain = |string: Option<&str>, frame_samples| {
        Some(Sound {
            string: string.map(str::to_owned),
            frame_samples,
            ..Sound::default()
        })
    };
    let (codec, found) = match &kind {
        b"mp4a" => match config(b"esds").and_then(|esds| es_descriptor(esds.get(4..)?)) {
            Some((object, specific)) => mpeg4(object, specific),
            None => (Codec::Aac, None),
        },
        b"ac-3" => (Codec::Ac3, config(b"dac3").and_then(ac3)),
        b"ec-3" => (Codec::Eac3, config(b"dec3").and_then(eac3)),
        b"Opus" => (Codec::Opus, config(b"dOps").and_then(opus)),
        b"fLaC" => (Codec::Flac, config(b"dfLa").and_then(flac)),
        b".mp3" | b"mp3 " => (Codec::Mp3, plain(Some("mp4a.6b"), Some(1152))),
        b"dtsc" | b"dtsh" | b"dtsl" | b"dtse" | b"dtsx" => (Codec::Dts, None),
        b"mlpa" => (Codec::TrueHd, None),
        b"lpcm" | b"sowt" | b"twos" | b"raw " | b"in24" | b"in32" | b"fl32" | b"fl64" | b"ipcm" | b"fpcm" => {
            (Codec::Pcm, None)
        }
        kind => (other(kind), None),
    };
    entry.codec = codec;
    entry.sound = found.unwrap_or_default();
    if entry.sound.channels == 0 {
        entry.sound.channels = channels;
    }
    if entry.sound.sample_rate == 0 {
        entry.sound.sample_rate = sample_rate;
    }
    // The edit list has it, or nobody applies it.
    entry.sound.delay = 0;
    entry.string = entry.sound.string.clone();
}

/// Sound in an `mp4a`: what the object type says (mp4ra.org).
fn mpeg4(object: u8, specific: &[u8]) -> (Codec, Option<Sound>) {
    let of = |codec, string: &str, frame_samples| {
        let sound = Sound {
            string: Some(string.to_owned()),
            frame_samples,
            ..Sound::default()
        };
        (codec, Some(sound))
    };
    match object {
        0x40 => match mpeg4_audio(specific) {
            // MPEG-1 layer 3 in MPEG-4's clothes.
            Some(sound) if sound.string.as_deref() == Some("mp4a.40.34") => (Codec::Mp3, Some(sound)),
            sound => (Codec::Aac, sound),
        },
        0x66..=0x68 => {
            let sound = mpeg4_audio(specific).unwrap_or_default();
            let string = Some(format!("mp4a.{object:x}"));
            (Codec::Aac, Some(Sound { string, ..sound }))
        }
        0x69 | 0x6b => of(Codec::Mp3, &format!("mp4a.{object:x}"), Some(1152)),
        0xa5 => of(Codec::Ac3, "ac-3", Some(1536)),
        0xa6 => of(Codec::Eac3, "ec-3", Some(1536)),
        0xa9..=0xac => (Codec::Dts, None),
        0xad => of(Codec::Opus, "opus", None),
        0xdd => (Codec::Vorbis, None),
        object => (Codec::Other(format!("mp4a.{object:x}")), None),
    }
}
