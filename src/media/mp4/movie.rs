//! The `moov` box: tracks and what they are.

use super::Left;
use super::boxes::{Boxes, below, child};
use super::edits::{Shown, Walk, edits, show};
use super::entry::{Entry, entry};
use super::samples::Tables;
use crate::media::fields::{Fields, frame_rate, words};
use crate::media::{Audio, Codec, Container, Index, Kind, MediaError, TRACK_LIMIT, Track, Video};

/// Whether the samples are in fragments that follow.
pub(super) fn fragmented(moov: &[u8]) -> bool {
    let has_samples = |(kind, trak): ([u8; 4], &[u8])| {
        let stbl = below(trak, &[b"mdia", b"minf", b"stbl"]).filter(|_| &kind == b"trak");
        stbl.and_then(Tables::read).is_some_and(|tables| !tables.empty())
    };
    child(moov, b"mvex").is_some() && !Boxes(moov).any(has_samples)
}

/// One `trak`, before its samples are looked at.
pub(super) struct Trak<'a> {
    pub(super) id: u32,
    pub(super) timescale: u32,
    pub(super) movie_timescale: u32,
    pub(super) body: &'a [u8],
    pub(super) entry: Option<Entry>,
    pub(super) track: Track,
}

/// The tracks with all that no sample is needed for; FFmpeg's streams in FFmpeg's order.
pub(super) fn traks(moov: &[u8]) -> Result<Vec<Trak<'_>>, MediaError> {
    if child(moov, b"cmov").is_some() {
        return Err(MediaError::NoIndex {
            container: Container::Mp4.name(),
            why: "its header is compressed, as QuickTime did long ago".to_owned(),
        });
    }
    let movie_timescale = child(moov, b"mvhd")
        .and_then(|mvhd| times(mvhd).map(|(scale, _)| scale))
        .unwrap_or(1);
    let mut found = Vec::new();
    let mut streams = 0;
    for (kind, body) in Boxes(moov) {
        match &kind {
            b"trak" => {
                if found.len() >= TRACK_LIMIT {
                    return Err(MediaError::TooLarge {
                        what: "tracks",
                        limit: TRACK_LIMIT as u64,
                    });
                }
                found.push(trak(body, streams, movie_timescale));
                streams += 1;
            }
            // Cover pictures become streams at the place where they are found.
            b"udta" => streams += covers(body),
            _ => {}
        }
    }
    let chapters: Vec<u32> = found.iter().flat_map(|trak| chapters(trak.body)).collect();
    for trak in &mut found {
        if chapters.contains(&trak.id) {
            trak.track.kind = Kind::Other;
        }
    }
    Ok(found)
}

/// The index of a file that is not fragmented.
pub(super) fn index(moov: &[u8], size: u64) -> Result<Index, MediaError> {
    let mut left = Left::all();
    let mut tracks = Vec::new();
    for trak in traks(moov)? {
        tracks.push(sampled(trak, size, &mut left)?);
    }
    Index::checked(Container::Mp4, tracks)
}

fn sampled(trak: Trak<'_>, size: u64, left: &mut Left) -> Result<Track, MediaError> {
    let mut track = trak.track;
    let stbl = below(trak.body, &[b"mdia", b"minf", b"stbl"]);
    let Some(tables) = stbl.and_then(Tables::read).filter(|tables| !tables.empty()) else {
        return Ok(track);
    };
    let edits = edits(trak.body, trak.timescale, trak.movie_timescale);
    let walk = match track.kind {
        Kind::Video(_) => Walk::Video,
        Kind::Audio(_) => Walk::Audio,
        _ => Walk::Other,
    };
    let (ticks, samples) = tables.total();
    let shown = if walk == Walk::Audio && tables.raw_sound() {
        let pause = edits
            .first()
            .filter(|edit| edit.media == -1)
            .map_or(0, |edit| edit.duration);
        Shown {
            start: pause,
            end: pause.saturating_add_unsigned(ticks),
            ..Shown::default()
        }
    } else {
        show(&tables, &edits, walk, trak.timescale, left)?
    };
    (track.start, track.end) = (shown.start, shown.end);
    // Samples that lie in the file and not over one another have no more bytes than it.
    let bits = u128::from(tables.bytes().min(size)) * 8 * u128::from(trak.timescale);
    track.bit_rate = bits
        .checked_div(u128::from(ticks))
        .and_then(|rate| u64::try_from(rate).ok());
    if let Kind::Video(video) = &mut track.kind {
        video.frame_rate = frame_rate(samples.saturating_mul(u64::from(trak.timescale)), ticks);
        video.keyframes = shown.keyframes;
        video.reordered = match trak.entry.and_then(|entry| entry.picture.reordered) {
            Some(told) => told || shown.reordered,
            None => shown.reordered,
        };
    }
    Ok(track)
}

fn trak(body: &[u8], stream: usize, movie_timescale: u32) -> Trak<'_> {
    let mdia = child(body, b"mdia").unwrap_or_default();
    let (timescale, language) = child(mdia, b"mdhd").and_then(times).unwrap_or((1, None));
    let timescale = timescale.max(1);
    let hdlr = child(mdia, b"hdlr").unwrap_or_default();
    let handler: [u8; 4] = hdlr
        .get(8..12)
        .and_then(|kind| kind.try_into().ok())
        .unwrap_or_default();
    let entry = below(mdia, &[b"minf", b"stbl", b"stsd"]).and_then(|stsd| entry(stsd, &handler));
    let tkhd = child(body, b"tkhd").unwrap_or_default();
    let (id, enabled) = header(tkhd).unwrap_or((0, false));
    let extended = child(mdia, b"elng").and_then(|elng| words(elng.get(4..)?));
    let track = Track {
        stream,
        codec: entry
            .as_ref()
            .map_or(Codec::Other("unknown".to_owned()), |entry| entry.codec.clone()),
        codec_string: entry.as_ref().and_then(|entry| entry.string.clone()),
        language: extended.or(language).filter(|language| language != "und"),
        name: below(body, &[b"udta", b"name"])
            .and_then(words)
            .or_else(|| handler_name(hdlr)),
        default: enabled,
        forced: entry.as_ref().is_some_and(|entry| entry.forced) || forced(body),
        timescale,
        start: 0,
        end: 0,
        bit_rate: None,
        kind: kind(&handler, entry.as_ref()),
    };
    Trak {
        id,
        timescale,
        movie_timescale,
        body,
        entry,
        track,
    }
}

fn kind(handler: &[u8; 4], entry: Option<&Entry>) -> Kind {
    let Some(entry) = entry else { return Kind::Other };
    let still =
        matches!(&entry.codec, Codec::Other(name) if ["jpeg", "png", "mjpa", "still picture"].contains(&&**name));
    match handler {
        b"vide" if !still => Kind::Video(Video {
            width: entry.width,
            height: entry.height,
            frame_rate: None,
            reordered: entry.picture.reordered.unwrap_or(true),
            bit_depth: entry.picture.bit_depth,
            keyframes: Vec::new(),
        }),
        b"soun" => Kind::Audio(Audio {
            channels: entry.sound.channels,
            sample_rate: entry.sound.sample_rate,
            frame_samples: entry.sound.frame_samples,
            delay: entry.sound.delay,
        }),
        b"subt" | b"sbtl" | b"text" | b"subp" | b"clcp" => Kind::Subtitles,
        _ => Kind::Other,
    }
}

/// Timescale and language of an `mdhd`; of an `mvhd` only the first counts.
fn times(body: &[u8]) -> Option<(u32, Option<String>)> {
    let mut fields = Fields(body);
    let wide = fields.u8()? == 1;
    fields.take(3 + if wide { 16 } else { 8 })?;
    let timescale = fields.u32()?;
    fields.take(if wide { 8 } else { 4 })?;
    let packed = fields.u16().unwrap_or(0);
    // Three letters of five bits; below that are QuickTime's numbers of Macintosh languages.
    let letters = [packed >> 10, packed >> 5, packed].map(|letter| (letter & 31) as u8 + 0x60);
    let language = (packed >= 0x400 && letters.iter().all(u8::is_ascii_lowercase))
        .then(|| letters.map(char::from).iter().collect());
    Some((timescale, language))
}

/// Number of the track, and whether it is enabled.
fn header(tkhd: &[u8]) -> Option<(u32, bool)> {
    let mut fields = Fields(tkhd);
    let wide = fields.u8()? == 1;
    let flags = fields.number(3)?;
    fields.take(if wide { 16 } else { 8 })?;
    Some((fields.u32()?, flags & 1 == 1))
}

/// What some writers name a track by, as far as it is more than the name of the kind (`VideoHandler`).
fn handler_name(hdlr: &[u8]) -> Option<String> {
    let name = hdlr.get(24..)?;
    // QuickTime counts the letters in front.
    let counted = name
        .split_first()
        .filter(|(count, rest)| usize::from(**count) == rest.len());
    let name = words(counted.map_or(name, |(_, rest)| rest))?;
    let meaningless = name.ends_with("Handler") || name.ends_with("handler") || name.contains("Media Handler");
    (!meaningless).then_some(name)
}

/// Whether a track has the role of subtitles that are always shown (`kind`, ISO/IEC 14496-12 8.10.4; the roles of
/// DASH).
fn forced(trak: &[u8]) -> bool {
    let udta = child(trak, b"udta").unwrap_or_default();
    let mut roles = Boxes(udta).filter(|(kind, _)| kind == b"kind").filter_map(|(_, body)| {
        let mut strings = body.get(4..)?.split(|byte| *byte == 0);
        strings.nth(1)
    });
    roles.any(|role| matches!(role, b"forced-subtitle" | b"forced_subtitle"))
}

/// Numbers of the tracks that are this one's chapters.
fn chapters(trak: &[u8]) -> Vec<u32> {
    let mut list = Fields(below(trak, &[b"tref", b"chap"]).unwrap_or_default());
    std::iter::from_fn(|| list.u32()).take(TRACK_LIMIT).collect()
}

/// How many cover pictures a `udta` has.
fn covers(udta: &[u8]) -> usize {
    let list = child(udta, b"meta").and_then(|meta| child(meta.get(4..)?, b"ilst"));
    let cover = list.and_then(|list| child(list, b"covr")).unwrap_or_default();
    Boxes(cover)
        .filter(|(kind, _)| kind == b"data")
        .take(TRACK_LIMIT)
        .count()
}
