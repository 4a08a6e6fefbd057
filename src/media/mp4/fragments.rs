//! Fragmented files: the samples are told by each fragment alone, unless a segment index (`sidx`, ISO/IEC 14496-12
//! 8.16.3) lists the fragments.

use super::Left;
use super::movie::traks;
use crate::media::fields::Fields;
use crate::media::{Container, Index, Keyframe, Kind, MediaError};

/// One `sidx`: its subsegments that begin with a picture which can be decoded alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segments {
    track: u32,
    timescale: u32,
    start: u64,
    end: u64,
    keyframes: Vec<(u64, u64)>,
}

/// Of the body of a `sidx` whose box ends at `end` of the file. None of one that lists other indexes.
pub(super) fn segments(body: &[u8], end: u64) -> Option<Segments> {
    let mut fields = Fields(body);
    let wide = fields.u8()? == 1;
    fields.take(3)?;
    let (track, timescale) = (fields.u32()?, fields.u32()?);
    let width = if wide { 8 } else { 4 };
    let (start, first) = (fields.number(width)?, fields.number(width)?);
    fields.u16()?;
    let count = fields.u16()?;
    let (mut time, mut offset) = (start, end.checked_add(first)?);
    let mut keyframes = Vec::new();
    for _ in 0..count {
        let (size, duration, access) = (fields.u32()?, fields.u32()?, fields.u32()?);
        if size >> 31 == 1 {
            return None;
        }
        let (begins, kind) = (access >> 31 == 1, access >> 28 & 7);
        if begins && kind <= 3 {
            keyframes.push((time, offset));
        }
        time = time.checked_add(u64::from(duration))?;
        offset = offset.checked_add(u64::from(size))?;
    }
    (timescale > 0 && time < 1 << 60).then_some(Segments {
        track,
        timescale,
        start,
        end: time,
        keyframes,
    })
}

/// The index of a fragmented file.
pub(super) fn index(moov: &[u8], segments: &[Segments], size: u64) -> Result<Index, MediaError> {
    let unlisted = || MediaError::NoIndex {
        container: Container::Mp4.name(),
        why: "it is in fragments, and has no segment index (sidx) that lists them".to_owned(),
    };
    let mut left = Left::all();
    let mut tracks = Vec::new();
    let mut listed = false;
    for trak in traks(moov)? {
        let mut track = trak.track;
        // Where a track has none of its own, the first tells at least when the film begins and ends.
        let own = segments.iter().filter(|it| it.track == trak.id);
        let own: Vec<&Segments> = own.collect();
        let Some(first) = own.first().copied().or(segments.first()) else {
            return Err(unlisted());
        };
        let last = own.last().copied().unwrap_or(first);
        let ticks = |time: u64, scale: u32| {
            let ticks = u128::from(time) * u128::from(track.timescale) / u128::from(scale);
            i64::try_from(ticks).unwrap_or(i64::MAX)
        };
        (track.start, track.end) = (ticks(first.start, first.timescale), ticks(last.end, last.timescale));
        if let Kind::Video(video) = &mut track.kind {
            let all = own
                .iter()
                .flat_map(|it| it.keyframes.iter().map(|keyframe| (it.timescale, *keyframe)));
            let all = all.map(|(scale, (time, offset))| {
                left.keyframe()?;
                Ok(Keyframe {
                    pts: ticks(time, scale),
                    offset,
                })
            });
            video.keyframes = all.collect::<Result<_, MediaError>>()?;
            video.keyframes.sort_by_key(|keyframe| keyframe.pts);
            video.keyframes.dedup_by_key(|keyframe| keyframe.pts);
            listed |= !video.keyframes.is_empty();
            let length = track.end.saturating_sub(track.start).max(1).cast_unsigned();
            let rate = u128::from(size) * 8 * u128::from(track.timescale) / u128::from(length);
            track.bit_rate = u64::try_from(rate).ok();
        }
        tracks.push(track);
    }
    if !listed && tracks.iter().any(|track| matches!(track.kind, Kind::Video(_))) {
        return Err(unlisted());
    }
    Index::checked(Container::Mp4, tracks)
}
